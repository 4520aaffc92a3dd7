"""What is to be known of marks before they are used: which item of which file, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pcamx.data.marks.annotated import MOST, too_many
from pcamx.data.marks.parse import line

_NAMED = 10
"""Items that a note names before it counts the rest."""
PROBLEMS = {
    "damaged": "items that cannot be read, not used",
    "unknown": "images that are not films of this data set, not used",
    "ambiguous": "images that may be several films, not used; name them by the whole path",
    "frame": "images marked before the EXIF rotation (width and height swapped), not used",
    "size": "images marked at another size than the film's, not used",
    "shares": "marks within the first pixel, by shares of the image as it seems, not used",
    "heavy": "marks that take too long to draw, not used; draw fewer or simpler ones",
    "outside": "marks outside the film, not used",
    "cut": "marks partly outside the film, cut at its border",
    "empty": "marks without any area, not used",
    "unsaved": "films with candidates of pcamx marks suggest that nobody has saved, not used",
    "drafts": "tasks with drafts that nobody has submitted, not used",
    "open": "points and lines, which have no area, not used",
    "greys": "masks of several greys or colours, all but black taken as lesion",
    "ground": "masks over half of a film or all of its border, as the negative of one is; look at "
    "them with pcamx marks check, and save them with the lesion in white",
    "classes": "sets of folders that masks lie in, which may be classes; all taken as lesion",
    "renamed": "files named like one film that speak of another, for which they are taken",
    "folders": "images in another folder than the film that they are taken for",
    "prefix": "images taken for the film whose name follows an upload's prefix",
    "twice": "films that several images stand for, their marks put together",
    "people": "tasks marked more than once, all marks put together",
    "merged": "films that several of the sources mark, their marks put together",
}
"""What may be wrong with marks that can be read, the gravest first."""
_LOST = ("damaged", "heavy", "shares", "outside", "empty")
"""Kinds of single marks, of which no tool writes very many."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to look at."""

    kind: str
    """A key of PROBLEMS."""
    text: str
    """Which image or mark, and why."""
    film: str = ""
    """Of one whose marks are used all the same."""


@dataclass(slots=True)
class Desk:
    """Collects problems; each text names the source where there are several."""

    problems: list[Problem] = field(default_factory=list)
    source: str = ""
    _lost: int = 0

    def note(self, kind: str, text: str, film: str = "") -> None:
        """Add a problem, its text made one short line. Raises PcamxError after very many."""
        self._lost += kind in _LOST
        if self._lost > MOST:
            raise too_many(line(f"{self.source}{text}"))
        self.problems.append(Problem(kind, line(f"{self.source}{text}"), film))


def notes_of(problems: tuple[Problem, ...]) -> list[str]:
    """Return a line for each kind of problem: how many, and the first of them."""
    found = {kind: [p.text for p in problems if p.kind == kind] for kind in PROBLEMS}
    return [counted(texts, PROBLEMS[kind]) for kind, texts in found.items() if texts]


def counted(found: Sequence[str], words: str) -> str:
    """Return ``2 words: one; another``, the first of them."""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{len(found)} {words}: {'; '.join(map(line, found[:_NAMED]))}{more}"
