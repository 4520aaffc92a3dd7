"""GRAZPEDWRI-DX as it is published: its csv, its boxes of nine classes, films of 8 and 16 bits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcamx.data.prepare.store_builder import prepare
from pcamx.data.sets.graz import read_graz
from pcamx.data.sets.listing import confounders
from pcamx.data.store import read_store
from pcamx.errors import PcamxError

HEADER = (
    "filestem,patient_id,study_number,timehash,gender,age,laterality,projection,initial_exam,"
    "ao_classification,cast,diagnosis_uncertain,osteopenia,fracture_visible,metal,pixel_spacing,"
    "device_manufacturer"
)
SIDE = 64


def row(stem: str, patient: int, fracture: str) -> str:
    """Every fourth patient wears a cast, every fifth metal."""
    cast, metal = (patient % every == 0 for every in (4, 5))
    worn = "1" * cast, "1" * metal
    start, end = f"{stem},{patient},1,123456,M,9.5,L,1,1,23r-M/2.1", "0.144,Siemens"
    return f"{start},{worn[0]},,,{fracture},{worn[1]},{end}"


def box(name: str, left: int, top: int, right: int, bottom: int) -> str:
    return (
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
    )


@pytest.fixture(name="release")
def _release(tmp_path: Path) -> Path:
    root = tmp_path / "GRAZPEDWRI-DX"
    boxes = root / "folder_structure" / "pascalvoc"
    boxes.mkdir(parents=True)
    rows = [HEADER]
    for number in range(20):
        stem = f"{number:04}_0123456789_01_WRI-L1_M009"
        fracture = "1" if number % 3 else ""
        rows.append(row(stem, number, fracture))
        folder = root / f"images_part{1 + number % 4}"
        folder.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE))
        deep = number % 2  # 16 bits, of which a film here uses the upper ones
        image = (pixels * 257).astype(np.uint16) if deep else pixels.astype(np.uint8)
        Image.fromarray(image).save(folder / f"{stem}.png")
        objects = box("text", 1, 1, 9, 5) + (box("fracture", 11, 21, 30, 40) if fracture else "")
        (boxes / f"{stem}.xml").write_text(
            f"<annotation><filename>{stem}.png</filename><size><width>{SIDE}</width>"
            f"<height>{SIDE}</height><depth>1</depth></size>{objects}</annotation>"
        )
    (root / "dataset.csv").write_text("\n".join(rows) + "\n")
    return root


def test_films_labels_and_splits_by_patient(release: Path) -> None:
    entries = read_graz(release)
    assert [entry.split for entry in entries[:10]] == ["test"] + 2 * ["valid"] + 7 * ["train"]
    assert [entry.label for entry in entries[:4]] == [0, 1, 1, 0]
    assert entries[5].path == "images_part2/0005_0123456789_01_WRI-L1_M009.png"
    assert (entries[5].patient, entries[5].part) == ("patient 5", "wrist")


def test_casts_and_metal_count_as_markers(release: Path) -> None:
    found: dict[str, set[str]] = {}
    for path, name in confounders(release):
        found.setdefault(path, set()).add(name)
    of = {entry.path: int(entry.patient.split()[1]) for entry in read_graz(release)}
    assert {of[path]: names for path, names in found.items()} == {
        **{patient: {"cast"} for patient in (4, 8, 12, 16)},
        **{patient: {"metal"} for patient in (5, 10, 15)},
        0: {"cast", "metal"},
    }
    (release / "dataset.csv").write_text("filestem,other\na,b\n")
    assert not list(confounders(release))


def test_prepare_takes_fractures_alone_as_lesions(release: Path, tmp_path: Path) -> None:
    prepare(release, tmp_path / "store", workers=1)
    store = read_store(tmp_path / "store")
    assert len(store.films) == 20
    film = next(film for film in store.films if film.path.startswith("images_part2/0005"))
    with Image.open(store.folder / film.mark) as image:
        mask = np.asarray(image) > 0
    # As every box of this format is read: from the left edge 11 to the right edge 30.
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (11, 29, 21, 39)
    assert not any(film.mark for film in store.films if not film.label)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("fracture_visible", "fracture", "line 1: column fracture_visible missing"),
        (",1,1,123456", ",x,1,123456", "line 3: patient_id is 'x'"),
        ("0001_0123456789_01_WRI-L1_M009", "../a", "line 3: path .* leaves the data folder"),
        ("0001_", "0000_", "line 3: 0000_.* is listed twice .*line 2"),
        (",,,,1,,0.144", ",,,,2,,0.144", "fracture_visible is '2'"),
        (",0.144,Siemens", "", "fields expected"),
    ],
)
def test_mistakes(release: Path, old: str, new: str, match: str) -> None:
    table = release / "dataset.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(PcamxError, match=match):
        read_graz(release)
