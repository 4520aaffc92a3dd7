"""What every format is read into: images with the marks on them, and what could not be read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pcamx.data.marks.shapes import Shape, Size
from pcamx.errors import PcamxError

MOST = 100_000
"""Items that are named; a file of more is none that a tool wrote."""
RemarkKind = Literal["damaged", "unsaved", "drafts", "open", "people", "greys"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One lesion as it was drawn."""

    where: str
    """For messages: which item of its image."""
    labels: tuple[str, ...]
    """What the person called it; most tools give one name, or none."""
    shape: Shape


@dataclass(frozen=True, slots=True)
class Remark:
    """Something of an image that is not read, or that is to be known."""

    kind: RemarkKind
    """A key of `pcamx.data.marks.problems.PROBLEMS`."""
    text: str
    """Which item, and why."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """One image of a mark file and what is drawn on it."""

    name: str
    """The image's path, address or file name, as the file has it."""
    size: Size | None = None
    """The image's size according to the file, None if it does not say."""
    marks: tuple[Mark, ...] = ()
    relative: bool = False
    """Coordinates are shares of the image's width and height."""
    suffix: bool = True
    """The name's suffix is the image's, not the mask's."""
    remarks: tuple[Remark, ...] = ()


@dataclass(slots=True)
class Draft:
    """Collects what is drawn on one image: an item that cannot be read costs none but itself."""

    marks: list[Mark] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def take(self, where: str, labels: tuple[str, ...], make: Callable[[], Shape]) -> None:
        """Add the item that ``make`` reads, or say why it raises PcamxError."""
        try:
            self.marks.append(Mark(where, labels, make()))
        except PcamxError as error:
            self.leave(where, str(error))

    def leave(self, where: str, why: str, kind: RemarkKind = "damaged") -> None:
        """Leave an item out, and say so. Raises PcamxError after very many."""
        if len(self.remarks) >= MOST:
            raise too_many(f"{where}: {why}")
        self.remarks.append(Remark(kind, f"{where}: {why}"))

    def image(self, name: str, size: Size | None, *, relative: bool = False) -> Annotated:
        """Return the image, with all that was collected."""
        return Annotated(
            name, size, tuple(self.marks), relative=relative, remarks=tuple(self.remarks)
        )


def too_many(text: str) -> PcamxError:
    """Return the error of a file of more items that cannot be read than are named."""
    return PcamxError(f"more than {MOST:,} items cannot be read, {text}; export the marks again")


def unreadable(error: Exception) -> Annotated:
    """Return what stands for an image of which nothing can be read, not even its name."""
    return Annotated("", remarks=(Remark("damaged", str(error)),))


def label_of(value: object) -> tuple[str, ...]:
    """Return the one label that a format gives as any value; none if it is blank."""
    text = "" if value is None else str(value).strip()
    return (text,) if text else ()
