"""Mark files come from anywhere: their text is read within limits, and every number is checked."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pcamx.data.marks.shapes import Box, Points, Size, by
from pcamx.errors import PcamxError
from pcamx.output import printable

MAX_BYTES = 1 << 28
FURTHEST = 1e7
"""Pixels; no film reaches that far, and Pillow counts in 32 bits."""
_MOST_MEMORY = 900_000_000
_JSON = {b"{": 250, b"[": 150, b",": 96}
"""Bytes that a file's parts take as Python's objects, with what is made of them."""
_XML = {b"<": 150, b"=": 250}
_TEXT = dict.fromkeys((b" ", *(bytes([code]) for code in (*range(9, 14), *range(28, 31)))), 200)
_WIDE, _WIDER = re.compile(rb"[\xc4-\xef]"), re.compile(rb"[\xf0-\xff]")
MOST_POINTS = 100_000
_LINE = 300  # letters
_CLAIM = 1e15  # pixels; whole numbers stay whole
_DTD = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


def content(file: Path) -> bytes:
    """Read a file. Raises PcamxError, with the file."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise too_large(file)
        return file.read_bytes()
    except OSError as error:
        raise PcamxError(f"{file}: {error.strerror}; check the path") from None


def too_large(file: Path) -> PcamxError:
    """Return the error of a file that is larger than MAX_BYTES."""
    return PcamxError(f"{file}: larger than {MAX_BYTES >> 20} MiB; split the export")


def memory(data: bytes, parts: Mapping[bytes, int]) -> int:
    """Return the bytes that a file may take: itself, its text and what is in it.

    Python has one width for all letters of a text, by the widest.
    """
    letter = 4 if _WIDER.search(data) else 2 if _WIDE.search(data) else 1
    return len(data) * (2 + letter) + sum(data.count(part) * size for part, size in parts.items())


def check_memory(data: bytes, file: Path, parts: Mapping[bytes, int]) -> None:
    """Raise PcamxError, with the file, where it would take more memory than a mark file may."""
    needed = memory(data, parts)
    if needed > _MOST_MEMORY:
        raise PcamxError(
            f"{file}: so many marks would take {needed / 1e9:.1f} GB of memory, more than the "
            f"{_MOST_MEMORY / 1e9:.1f} that a mark file may; split the export"
        )


def words_of(data: bytes, file: Path) -> str:
    """Return the text of a file in any encoding, what is not UTF-8 replaced. Raises PcamxError."""
    check_memory(data, file, _TEXT)
    return text(data, file, errors="replace")


def text(data: bytes, file: Path, errors: str = "strict") -> str:
    """Return the UTF-8 text of ``file``; ``errors`` as `open` has it. Raises PcamxError with it."""
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError:
        raise PcamxError(f"{file}: not UTF-8 text; export the marks again") from None


def json_tree(data: bytes, file: Path) -> Any:
    """Return what the JSON of ``file`` holds. Raises PcamxError, with the file."""
    check_memory(data, file, _JSON)
    try:
        return json.loads(text(data, file), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise PcamxError(f"{file}: not valid JSON ({error}); export the marks again") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object. Raises ValueError for a name that stands twice: json would drop the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{short(name)} stands twice in one object")
    return found


def xml_tree(data: bytes, file: Path) -> ElementTree.Element:
    """Return the root of ``file``'s XML. Raises PcamxError, with the file, where it has entities.

    Without a document type there is no entity: none that grows, none that opens another file.
    """
    check_memory(data, file, _XML)
    words = text(data, file)
    if _DTD.search(words):
        raise PcamxError(f"{file}: declares a document type, which no mark file needs; remove it")
    try:
        return ElementTree.fromstring(words)  # noqa: S314
    except (ElementTree.ParseError, ValueError) as error:
        raise PcamxError(f"{file}: not valid XML ({error}); export the marks again") from None


def objects(tree: Any, key: str, of: str) -> list[dict[str, Any]]:
    """Return ``tree[key]``, which must be a list of objects."""
    items = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise PcamxError(f'no list "{key}" of objects, which {of} has; export the marks again')
    return items


def word(value: Any, what: str) -> str:
    """Return a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise PcamxError(f"{what} is {short(value)}, not a text; export the marks again")
    return value.strip()


def number(value: Any, what: str, furthest: float = FURTHEST) -> float:
    """Return a number within reach, also written as text, as XML does."""
    found: Any = value
    if isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            found = None
    # Compared before it is converted: a whole number may be longer than a float can be. NaN fails.
    if type(found) not in (int, float) or not abs(found) <= furthest:
        raise PcamxError(f"{what} is {short(value)}, not a number within reach; mend it")
    return float(found)


def whole(value: Any, what: str, furthest: float = FURTHEST) -> int:
    """Return a whole number, not negative."""
    found = number(value, what, furthest)
    if found < 0 or found != int(found):
        raise PcamxError(f"{what} is {short(value)}, not a whole number from 0 on; mend it")
    return int(found)


def image_size(width: Any, height: Any) -> Size | None:
    """Return the image's size; None where the file leaves it out or writes 0 x 0.

    It may be any: it is compared with the film's, and nothing is allocated by it.
    """
    if width is None and height is None:
        return None
    size = whole(width, "width", _CLAIM), whole(height, "height", _CLAIM)
    if size == (0, 0):
        return None
    if 0 in size:
        raise PcamxError(f"the image is {by(size)} pixels; mend it")
    return size


def points(pairs: Any, what: str) -> Points:
    """Return at least three pairs x, y."""
    if not isinstance(pairs, Sequence) or isinstance(pairs, str) or len(pairs) < 3:
        raise PcamxError(f"{what} is at least three points x, y; mend it")
    check_points(len(pairs), what)
    return tuple(pair(p, what) for p in pairs)


def check_points(count: int, what: str) -> None:
    """Raise PcamxError for more points than anybody draws, before they are looked at."""
    if count > MOST_POINTS:
        raise PcamxError(f"{what} of {count:,} points, which takes too long; simplify it")


def pair(value: Any, what: str) -> tuple[float, float]:
    """Return one point x, y."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise PcamxError(f"{what}: {short(value)} is not a point x, y; mend it")
    return number(value[0], f"{what}: x"), number(value[1], f"{what}: y")


def box(left: float, top: float, right: float, bottom: float) -> Box:
    """Return a box with its edges in order."""
    if right < left or bottom < top:
        raise PcamxError(f"a box of {right - left:g} x {bottom - top:g}; mend it")
    return Box(left, top, right, bottom)


def line(message: object) -> str:
    """Return one short line of a message that may hold anything a mark file does."""
    clean = printable(message)
    return clean if len(clean) <= _LINE else f"{clean[: _LINE - 3]}..."


def short(value: Any) -> str:
    """Return a value as a message shows it."""
    if value is None:
        return "missing"
    if isinstance(value, int) and abs(value) > 10**40:  # Python refuses to write the longest
        return "too large"
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
