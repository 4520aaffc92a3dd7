"""Exports as tools make them: one of Label Studio's own, and formats in a zip."""

import struct
import warnings
import zipfile
from pathlib import Path

import marks_by_hand as by_hand
import numpy as np
import pytest
from marks_by_hand import FILMS

from pcamx.data.marks import parse, read_marks
from pcamx.errors import PcamxError

LABEL_STUDIO = Path(__file__).with_name("label_studio_1.23.2.json")
"""Six drawn films of `pcamx marks suggest`, marked and exported by the API of Label Studio 1.23.2
(bench/results/cpu_2026-11_tools.md says how)."""
ACCEPTED, MOVED, DRAWN, PAINTED, SKIPPED, EMPTY = (
    f"train/XR_{name}.png"
    for name in (
        "FINGER/patient00006/study1_positive/image1",
        "HUMERUS/patient00002/study1_positive/image2",
        "WRIST/patient00008/study2_positive/image2",
        "SHOULDER/patient00005/study1_positive/image1",
        "SHOULDER/patient00005/study1_positive/image2",
        "HAND/patient00014/study1_positive/image1",
    )
)


def test_an_export_of_label_studio() -> None:
    films = dict.fromkeys((ACCEPTED, MOVED, DRAWN, PAINTED, SKIPPED, EMPTY), (96, 96))
    films |= {ACCEPTED: (85, 96), MOVED: (60, 96), DRAWN: (92, 96), PAINTED: (80, 96)}
    marks = read_marks(LABEL_STUDIO, films)
    assert set(marks.of) == {ACCEPTED, MOVED, DRAWN, PAINTED} and not marks.problems
    assert marks.labels() == {"lesion": 4} and marks.unmarked == 2
    masks = {film: make() for film, make in marks.masks.items() if make}
    painted, drawn = np.zeros((96, 80), np.uint8), np.zeros((96, 92), np.uint8)
    painted[20:40, 30:60] = drawn[24:48, 23:46] = 255
    assert np.array_equal(masks[PAINTED], painted) and np.array_equal(masks[DRAWN], drawn)
    assert all(0 < (masks[film] > 0).sum() < 500 for film in (ACCEPTED, MOVED))


def packed(folder: Path, name: str = "export.zip", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Everything in ``folder``, and what else CVAT and macOS put beside it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(folder.parent / name, "w", method) as file:
        for path in files:
            file.write(path, path.relative_to(folder))
            file.writestr(f"__MACOSX/._{path.name}", "what macOS leaves")
        file.writestr("images/a/x.jpg", "a film, which is not looked at")
    return folder.parent / name


@pytest.mark.parametrize(("name", "kind"), by_hand.WRITE, ids=map("-".join, by_hand.WRITE))
def test_what_a_zip_holds(tmp_path: Path, name: str, kind: str) -> None:
    by_hand.WRITE[name, kind](tmp_path / "export" / "annotations", kind)
    archive = packed(tmp_path / "export")
    before = sorted(tmp_path.rglob("*"))
    if name == "mask images":
        with pytest.raises(PcamxError, match="unpack it if it holds mask images"):
            read_marks(archive, FILMS)
    else:
        found = read_marks(archive, FILMS)
        make = found.masks["a/x.jpg"]
        assert found.kind == name and not found.problems and make is not None
        assert np.array_equal(make(), by_hand.mask(kind))
    assert sorted(tmp_path.rglob("*")) == before


def refused(archive: Path) -> str:
    with pytest.raises(PcamxError) as caught:
        read_marks(archive, FILMS)
    assert str(caught.value).startswith(f"{archive}: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("said", [None, 10])
def test_a_zip_that_swells_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: int | None
) -> None:
    """A thousandfold, over several files, and where the zip says that they are small."""
    monkeypatch.setattr("pcamx.data.marks.parse.MAX_BYTES", 1 << 20)
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(3):
            file.writestr(f"{number}.json", b"[" + b" " * (400 << 10) + b"]")
    if said is not None:
        size = struct.pack("<I", (400 << 10) + 2)
        archive.write_bytes(archive.read_bytes().replace(size, struct.pack("<I", said)))
    assert ("larger than 1 MiB" if said is None else "not a zip") in refused(archive)


@pytest.mark.parametrize("name", ["../../out.xml", "/out.xml", "a/../../out.xml"])
def test_names_that_lead_out_of_a_zip(tmp_path: Path, name: str) -> None:
    marks = by_hand.cvat(tmp_path / "made", "box").read_text()
    archive = tmp_path / "deep" / "er" / "export.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, marks)
    before = sorted(tmp_path.rglob("*"))
    assert read_marks(archive, FILMS).shapes() == {"box": 1}
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a.xml", "./a.xml"])
def test_a_name_that_a_zip_holds_twice(tmp_path: Path, name: str) -> None:
    """The second of them alone would be read."""
    text = by_hand.cvat(tmp_path, "box").read_text()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("a.xml", text)
        file.writestr(name, text)
    assert "holds a.xml twice" in refused(tmp_path / "x.zip")


def test_an_archive_in_a_zip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read: films may lie packed beside their marks, larger than marks may be."""
    by_hand.cvat(tmp_path / "export", "box")
    (tmp_path / "export" / "more.zip").write_bytes(bytes(100_000))
    monkeypatch.setattr(parse, "MAX_BYTES", 50_000)
    marks = read_marks(packed(tmp_path / "export"), by_hand.FILMS)
    assert [problem.text for problem in marks.problems] == ["more.zip: of no known kind"]


def test_damaged_zips(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no zip")
    assert "not a zip that can be read" in refused(tmp_path / "x.zip")
    by_hand.cvat(tmp_path / "export", "box")
    whole = packed(tmp_path / "export", method=zipfile.ZIP_STORED).read_bytes()
    for name, found, put in (
        ("wrong.zip", b"<annotations>", b"<annotatiXns>"),  # the checksum tells
        ("cut.zip", whole[-40:], b""),
        ("secret.zip", b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    ):
        assert found in whole
        (tmp_path / name).write_bytes(whole.replace(found, put))
        assert "not a zip that can be read" in refused(tmp_path / name)
