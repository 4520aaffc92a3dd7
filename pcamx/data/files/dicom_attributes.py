"""Attributes of a DICOM file: present with a value, or taken as absent.

Some writers leave attributes without a value (PS3.5, 7.4.5), which is as if they were not there.
"""

import math
from typing import TYPE_CHECKING, Any

from pcamx.data.files.file_content import UnfitError

if TYPE_CHECKING:
    from pydicom import Dataset


def numbers(dataset: "Dataset", name: str) -> list[float | None]:
    """Read the values of an attribute, None for each that is empty; at least one.

    Raises UnfitError that names it where a value is no finite number.
    """
    try:
        value: Any = dataset.get(name)
        several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        found = [None if one in (None, "") else float(one) for one in several]
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
    words = "".join(c if c.isprintable() else " " for c in str(dataset.get(name) or "")[:64])
    return " ".join(words.split())
