"""The MURA-v1.1 layout (Rajpurkar et al., arXiv 1712.06957).

Four csv files without a header: `{train,valid}_image_paths.csv` with one path a row and
`{train,valid}_labeled_studies.csv` with study folder and label (1 abnormal). All paths start with
`MURA-v1.1/`, whatever the folder itself is called. A film has the label of its study.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pcamx.data.csv_files import csv_rows, relative
from pcamx.data.sets.entry import Entry
from pcamx.errors import PcamxError

PREFIX = "MURA-v1.1/"
IMAGES, STUDIES = "{}_image_paths.csv", "{}_labeled_studies.csv"
_STUDY = re.compile(
    r"(?P<split>train|valid)/(?P<part>XR_[^/]+)/(?P<patient>[^/]+)/"
    r"(?P<study>[^/]+)_(?P<says>positive|negative)"
)


@dataclass(slots=True)
class _Study:
    """One labelled study; `id` is its folder without the label that ends it."""

    where: str
    id: str
    label: int
    patient: str
    part: str
    films: int = 0


def is_mura(root: Path) -> bool:
    """Tell whether the folder looks like MURA-v1.1."""
    return (root / IMAGES.format("train")).is_file()


def _rows(file: Path, width: int) -> Iterator[tuple[str, list[str]]]:
    """Location and fields of each row; the path, always first, comes without `MURA-v1.1/`."""
    empty = True
    for line, row in csv_rows(file):
        where = f"{file}, line {line}"
        if empty and "/" not in row[0]:
            raise PcamxError(
                f"{where}: a header; MURA-v1.1's csv files have none, delete this line"
            )
        if len(row) != width:
            raise PcamxError(f"{where}: {width} fields expected, found {len(row)}")
        empty = False
        try:
            path = relative(row[0])
        except PcamxError as error:
            raise PcamxError(f"{where}: {error}") from None
        if not path.startswith(PREFIX):
            raise PcamxError(f"{where}: {row[0]} does not start with {PREFIX}")
        yield where, [path.removeprefix(PREFIX), *row[1:]]
    if empty:
        raise PcamxError(f"{file}: empty; copy the file from MURA-v1.1 again")


def _studies(file: Path, split: str) -> dict[str, _Study]:
    """Labelled studies of one split by folder."""
    studies: dict[str, _Study] = {}
    ids: dict[str, str] = {}
    for where, (folder, label) in _rows(file, 2):
        match = _STUDY.fullmatch(folder)
        if not match or match["split"] != split:
            shape = f"{PREFIX}{split}/XR_PART/patientN/studyN_positive or _negative"
            raise PcamxError(f"{where}: {folder} is not of the form {shape}")
        if label not in ("0", "1"):
            raise PcamxError(f"{where}: label is {label!r}; write 0 for normal, 1 for abnormal")
        if match["says"] != ("negative", "positive")[int(label)]:
            raise PcamxError(
                f"{where}: the folder says {match['says']}, the label says {label}; mend one"
            )
        name = folder.rpartition("_")[0]
        if name in ids:
            raise PcamxError(f"{where}: study {name} is listed twice ({ids[name]}); delete one row")
        ids[name] = where
        studies[folder] = _Study(where, name, int(label), match["patient"], match["part"])
    return studies


def _read_split(root: Path, split: str) -> list[Entry]:
    studies = _studies(root / STUDIES.format(split), split)
    entries: dict[str, Entry] = {}
    for where, (path,) in _rows(root / IMAGES.format(split), 1):
        folder, _, name = path.rpartition("/")
        if name.startswith("._"):
            continue  # macOS leaves these beside the films; they are no images
        study = studies.get(folder)
        if study is None:
            raise PcamxError(
                f"{where}: study {folder} has no label; add it to {STUDIES.format(split)}"
            )
        if path in entries:
            first = entries[path].where
            raise PcamxError(f"{where}: {path} is listed twice ({first}); delete one row")
        study.films += 1
        entries[path] = Entry(where, path, study.label, study.patient, study.id, study.part, split)
    for folder, study in studies.items():
        if not study.films:
            raise PcamxError(
                f"{study.where}: study {folder} has no film in {IMAGES.format(split)}; "
                "add its films or delete this row"
            )
    return list(entries.values())


def read_mura(root: Path) -> list[Entry]:
    """Read the films of a MURA-v1.1 folder, training split first, in the order of its csv files.

    `study` is `split/XR_PART/patientN/studyN`. Raises PcamxError that names file, line, remedy.
    """
    if not root.is_dir():
        raise PcamxError(
            f"{root}: no such folder; name the folder that holds MURA-v1.1's csv files"
        )
    needed = [form.format(split) for split in ("train", "valid") for form in (IMAGES, STUDIES)]
    missing = [name for name in needed if not (root / name).is_file()]
    if missing:
        raise PcamxError(
            f"{root}: {', '.join(missing)} missing; a MURA-v1.1 folder has all four csv files"
        )
    return _read_split(root, "train") + _read_split(root, "valid")
