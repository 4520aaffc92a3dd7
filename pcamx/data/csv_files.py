"""Csv files of films: their rows, their text, and the paths that stand in them."""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from pcamx.errors import PcamxError
from pcamx.output import safe_cell

_NAMED_DELIMITER = re.compile(r"""\s*"?sep=([,;\t])"?[\s,;]*""", re.IGNORECASE)
"""A first line by which spreadsheets say what separates the fields; no row of the table."""


def relative(text: str) -> str:
    """Return a path from a data file, normalised to forward slashes.

    Raises PcamxError, without a location, if it is empty, absolute or climbs with `..`. Links
    are another matter: `pcamx.data.prepare.store_builder` looks at those.
    """
    path = PurePosixPath(text)
    if not text or not path.parts or "\0" in text:
        raise PcamxError("the path is empty; give the film's path inside the data folder")
    if path.is_absolute() or ".." in path.parts:
        raise PcamxError(f"path {text} leaves the data folder; give a path inside it")
    return path.as_posix()


def film_path(text: str, root: Path | None = None) -> str:
    """Return a film's path as `relative` does; it may have been written on Windows.

    Below ``root``, the resolved data folder, it may stand in full.
    """
    if text[1:3] in (":\\", ":/"):
        raise PcamxError(f"path {text} leaves the data folder; give a path inside it")
    path = text.replace("\\", "/")
    folder, _, name = path.rpartition("/")
    if root and path.startswith("/") and "\0" not in path:
        real = Path(os.path.realpath(folder))  # not of the film, which may be a link itself
        if real.is_relative_to(root):
            path = (real / name).relative_to(root).as_posix()
    return relative(path)


def delimiter_of(path: Path) -> str:
    """Return comma, semicolon or tab: what the first line names as `sep=;` does, or what stands
    most often in it; comma if none.

    Nothing is said of a file that cannot be read: `csv_rows` does.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
    except (OSError, UnicodeDecodeError):
        return ","
    if named := _NAMED_DELIMITER.fullmatch(first):
        return named[1]
    return max(",;\t", key=first.count)


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row that is not blank; UTF-8 with or without a BOM.

    A first line that only names the delimiter, as `delimiter_of` knows it, is passed by.
    Raises PcamxError that names the file and the line.
    """
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            for row in reader:
                line = reader.line_num
                if line == 1 and _NAMED_DELIMITER.fullmatch(delimiter.join(row)):
                    continue
                if any(field.strip() for field in row):
                    yield line, [field.strip() for field in row]
    except UnicodeDecodeError:
        raise PcamxError(f"{path}: not UTF-8 text; save it as a UTF-8 csv") from None
    except csv.Error as error:
        raise PcamxError(f"{path}, after line {line}: not a valid csv ({error})") from None
    except OSError as error:
        raise PcamxError(f"{path}: {error.strerror}; check the path") from None


def rows_that_say(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a csv file with a header by column; none where it lacks one of ``columns``.

    Rows of another length than the header are passed by. Raises PcamxError as `csv_rows`.
    """
    rows = csv_rows(path)
    _, header = next(rows, (0, []))
    if set(columns) <= set(header):
        for _, row in rows:
            if len(row) == len(header):
                yield dict(zip(header, row, strict=True))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return the text of a csv file, its fields quoted where they, or a spreadsheet, need it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([safe_cell(f) if isinstance(f, str) else f for f in row] for row in rows)
    return text.getvalue()
