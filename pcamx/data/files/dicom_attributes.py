"""Attributes of a DICOM file: present with a value, or taken as absent.

Some writers leave attributes without a value (PS3.5, 7.4.5), which is as if they were not there.
pydicom makes an object of each number and item, a hundred times what they take in the file, so
their bytes are counted before.
"""

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pcamx.data.files.file_content import UnfitError

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_BYTES = 1 << 16
"""Of an attribute that is no sequence and no table."""
MOST_OF_A_TABLE = 1 << 18
_MOST_OF_A_SEQUENCE = 1 << 21  # of a dozen tables
_MOST_ITEMS, _MOST_READS = 20_000, 1_000_000
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # their tag, little and big endian


class Header(BytesIO):
    """A DICOM file that refuses to be read in a great many parts: pydicom keeps each of them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read the next part. Raises UnfitError after very many."""
        self._reads += 1
        if self._reads > _MOST_READS:
            raise UnfitError(f"its header is in more than {_MOST_READS:,} parts; save it anew")
        return super().read(size)


def check_items(data: bytes) -> None:
    """Raise UnfitError for a file of very many sequence items or fragments of pixels."""
    if max(map(data.count, _ITEMS)) > _MOST_ITEMS:
        raise UnfitError(f"more than {_MOST_ITEMS:,} sequence items or fragments; save it anew")


def attribute(dataset: "Dataset", name: str, most: int = MOST_BYTES) -> Any:
    """Read an attribute, None where it is absent.

    Raises UnfitError that names it where it takes more than ``most`` bytes in the file.
    """
    stored = getattr(dataset.get_item(name) if name in dataset else None, "value", None)
    if isinstance(stored, bytes) and len(stored) > most:
        raise UnfitError(f"its {name} takes {len(stored):,} bytes, more than any film's")
    return dataset.get(name)


def items(dataset: "Dataset", name: str) -> Any:
    """Read the items of a sequence, none where it is absent. Raises UnfitError as `attribute`."""
    return attribute(dataset, name, _MOST_OF_A_SEQUENCE) or []


def numbers(dataset: "Dataset", name: str) -> list[float | None]:
    """Read the values of an attribute, None for each that is empty; at least one.

    Raises UnfitError that names it where a value is no finite number.
    """
    try:
        value = attribute(dataset, name)
        several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        found = [None if one in (None, "") else float(one) for one in several]
    except UnfitError:
        raise
    except Exception:  # pydicom converts only now, and raises what the type's class does
        raise UnfitError(f"its {name} is no number") from None
    if any(one is not None and not math.isfinite(one) for one in found):
        raise UnfitError(f"its {name} is no number")
    return found or [None]


def number(dataset: "Dataset", name: str) -> float | None:
    """Read the first value of an attribute, None where it is absent or empty. Raises UnfitError."""
    return numbers(dataset, name)[0]


def whole(dataset: "Dataset", name: str, default: int | None = None) -> int:
    """Read a whole number, ``default`` where it is absent or empty.

    Raises UnfitError that names it where it is no such number, or absent without a default.
    """
    value = number(dataset, name)
    if value is None and default is None:
        raise UnfitError(f"a DICOM without {name}")
    if value is not None and value != int(value):
        raise UnfitError(f"its {name} is {value:g}, not a whole number")
    return int(value) if value is not None else int(default or 0)


def text(dataset: "Dataset", name: str) -> str:
    """Read a text, "" where it is absent or empty; fit for a message, whatever the file holds."""
    words = "".join(c if c.isprintable() else " " for c in str(attribute(dataset, name) or "")[:64])
    return " ".join(words.split())
