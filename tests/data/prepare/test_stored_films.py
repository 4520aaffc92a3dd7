"""`pcamx prepare` of a data set with DICOM films: taken into the store, to the bit."""

import csv
import sys
from pathlib import Path

import dicoms
import numpy as np
import processes
import pytest
import torch
from PIL import Image

from pcamx.data.canvas.decode import decode_batches
from pcamx.data.canvas.decode_pixels import decode_pixels
from pcamx.data.canvas.side_markers import marker_names, read_markers
from pcamx.data.files.film import read_film
from pcamx.data.prepare.dicom_to_png import _names
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.prepare.summary import Summary
from pcamx.data.prepare.transcode import Kind
from pcamx.data.store import read_store

CPU = torch.device("cpu")
ROWS = [
    ("n.png", 0, "train"),
    ("y.dcm", 1, "train"),
    ("x.png", 1, "train"),
    ("a/1.2.840.7", 0, "valid"),  # named by its UID
    ("cut.dcm", 1, "valid"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """PNG films of 8 bits, DICOM of 12 with a window and of 8 turned round, and one cut short."""
    folder = tmp_path / "set"
    (folder / "a").mkdir(parents=True)
    pixels = dicoms.ramp(60, 40)
    for name in ("n.png", "x.png"):
        Image.fromarray((pixels >> 5).astype(np.uint8)).save(folder / name)
    dicoms.save(dicoms.dataset(pixels, WindowCenter=1500, WindowWidth=2500), folder / "y.dcm")
    small = (pixels >> 4).astype(np.uint8)[:30]
    turned = dicoms.dataset(small, bits=8, PhotometricInterpretation="MONOCHROME1")
    dicoms.save(turned, folder / "a/1.2.840.7")
    whole = dicoms.save(dicoms.dataset(pixels), folder / "cut.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:-1000])
    with (folder / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "label", "split"), *ROWS])
    return folder


def made(root: Path, out: Path, transcode: Kind | None = None) -> Summary:
    return prepare(root, out, transcode=transcode, workers=1)


def test_dicom_films_are_trained_on_as_they_are_explained(root: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    mask = np.zeros((60, 40), np.uint8)
    mask[10:20, 5:9] = 255
    Image.fromarray(mask).save(marks / "y.png")
    out = tmp_path / "store"
    summary = prepare(root, out, marks=marks, workers=1)
    assert (summary.dicoms, summary.quarantined, summary.marks.used) == (2, 1, 1)
    store = read_store(out)
    assert store.root == out / "films"
    names = ["n.png", "y.png", "x.png", "a/1.2.840.7.png"]
    assert [film.path for film in store.films] == names
    assert store.films[1].mark and (store.films[1].width, store.films[1].height) == (40, 60)
    for row, film in zip(ROWS, store.films, strict=False):
        shown = read_film(root / row[0])
        assert film.white == shown.white
        (canvas,) = decode_batches(store.root, [film], [[0]], 48, device=CPU, threads=1)
        laid = decode_pixels([shown.grey_HW], [shown.white], 48, device=CPU, threads=1)
        assert torch.equal(canvas, laid), film.path
    assert (out / "films/n.png").read_bytes() == (root / "n.png").read_bytes()
    (bad,) = list(csv.DictReader((out / "quarantine.csv").open()))
    assert bad["path"] == "cut.dcm" and bad["reason"]


def test_transcoded_too_and_replaced_again(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    made(root, out)
    found = made(root, out, "htj2k")
    assert found.parity is not None and found.parity.on_films is None  # the same to the bit
    assert {p.suffix for p in out.rglob("films/**/*.*")} == {".j2c"}
    assert not (out / "taken").exists()
    made(root, out)
    assert {p.suffix for p in out.rglob("films/**/*.*") if p.is_file()} == {".png"}
    (tmp_path / "set/y.dcm").unlink()
    assert len(read_store(out).films) == 4  # it stands on its own


def test_names_in_the_store() -> None:
    paths = ["a.dcm", "b/a.DICOM", "1.2.3", "c.png", "c.dcm", "c.dicom"]
    names = _names(paths, {path for path in paths if path != "c.png"})
    assert names == ["a.png", "b/a.png", "1.2.3.png", "c.png", "c.dcm_.png", "c.dicom_.png"]


def test_writing_processes_do_without_torch() -> None:
    """Each is a new Python: torch would cost it seconds."""
    code = (
        "import sys; from pcamx.data.prepare import dicom_to_png; "
        "print({'torch', 'nvidia.dali'} & set(sys.modules))"
    )
    assert processes.command(sys.executable, "-c", code, cwd=processes.PROJECT).text == "set()\n"


@pytest.mark.parametrize("transcode", [None, "jpeg"])
def test_markers_come_along_by_the_films_new_names(
    root: Path, tmp_path: Path, transcode: Kind | None
) -> None:
    (root / "markers.csv").write_text(
        "path,marker,left,top,right,bottom\ny.dcm,plate,1,2,3,4\ngone.png,L,1,1,2,2\nx.png,R,,,,\n"
    )
    made(root, tmp_path / "store", transcode)
    store = read_store(tmp_path / "store")
    films = store.split("train")
    names = dict(zip((f.path[0] for f in films), marker_names(store, films), strict=True))
    assert names == {"n": (), "x": ("R",), "y": ("plate",)}
    assert all(film.path.endswith(".jpg" if transcode else ".png") for film in films)
    boxes = dict(zip((f.path[0] for f in films), read_markers(store, films, 60), strict=True))
    assert len(boxes["y"]) == 1 and not boxes["x"]
