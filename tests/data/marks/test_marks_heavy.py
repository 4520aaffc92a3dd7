"""Small mark files that would take hours or gigabytes; limits are lowered here."""

import json
from pathlib import Path
from typing import Any

import marks_by_hand
import pytest

from pcamx.data.marks import annotated, parse, problems, read_marks, work
from pcamx.errors import PcamxError

SIDE = 100
FILMS = {"x.png": (SIDE, SIDE)}
FULL = [0, 0, SIDE, 0, SIDE, SIDE, 0, SIDE]
SMALL = [10, 10, 20, 10, 20, 20, 10, 20]


def coco(folder: Path, drawn: list[dict[str, Any]]) -> Path:
    image = {"id": 1, "file_name": "x.png", "width": SIDE, "height": SIDE}
    marks = [{"id": i, "image_id": 1} | one for i, one in enumerate(drawn)]
    file = folder / "marks.json"
    file.write_text(json.dumps({"images": [image], "annotations": marks}))
    return file


def pixels(found: Any) -> int:
    return int((found.masks["x.png"]() > 0).sum())


FULL_MASK = {"segmentation": {"size": [SIDE, SIDE], "counts": [0, SIDE * SIDE]}}


@pytest.mark.parametrize("mark", [{"segmentation": [FULL]}, FULL_MASK], ids=["polygon", "runs"])
def test_marks_that_each_cover_the_film(
    mark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small one, which comes last, still has room, and each that has not is named."""
    monkeypatch.setattr(work, "MOST", 40_000)
    found = read_marks(coco(tmp_path, [mark] * 10 + [{"segmentation": [SMALL]}]), FILMS)
    assert 0 < len(found.of["x.png"]) < 5
    heavy = [problem.text for problem in found.problems if problem.kind == "heavy"]
    assert len(heavy) == 11 - len(found.of["x.png"])
    assert heavy[-1] == "annotation 9 of x.png, film x.png"
    assert any("take too long to draw" in note for note in found.notes())
    assert found.of["x.png"][-1].shape.bounds() == (10, 10, 20, 20)


def test_an_intricate_polygon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zigzag = [one for k in range(200) for one in (k * 37 % SIDE, k % 2 * SIDE)]
    file = coco(tmp_path, [{"segmentation": [SMALL]}, {"segmentation": [zigzag]}])
    assert len(read_marks(file, FILMS).of["x.png"]) == 2
    monkeypatch.setattr(work, "MOST", 100_000)
    found = read_marks(file, FILMS)
    assert pixels(found) == 100
    assert [problem.text for problem in found.problems] == ["annotation 1 of x.png, film x.png"]


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_a_polygon_of_very_many_points(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse, "MOST_POINTS", 3)
    source = getattr(marks_by_hand, kind)(tmp_path, "polygon")
    with pytest.raises(PcamxError, match="a polygon of 4 points, which takes too long; simplify"):
        read_marks(source, marks_by_hand.FILMS)


def test_work_is_of_a_film_over_all_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MOST", 25_000)
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(coco(tmp_path / name, [FULL_MASK]))
    assert len(read_marks(files, FILMS).of["x.png"]) == 2
    monkeypatch.setattr(work, "MOST", 15_000)
    with pytest.raises(PcamxError, match="no mark can be used; marks that take too long to draw"):
        read_marks(files, FILMS)


def test_what_is_beyond_the_film_takes_no_work(tmp_path: Path) -> None:
    far = [-9e6, -9e6, 9e6, -9e6, 9e6, 9e6, -9e6, 9e6]
    assert pixels(read_marks(coco(tmp_path, [{"segmentation": [far]}]), FILMS)) == SIDE * SIDE


@pytest.mark.parametrize("kind", ["coco", "labelme", "label_studio", "voc", "cvat", "yolo"])
def test_a_file_of_many_parts(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = getattr(marks_by_hand, kind)(tmp_path, "polygon" if kind != "voc" else "box")
    read_marks(source, marks_by_hand.FILMS)
    monkeypatch.setattr(parse, "_MOST_MEMORY", 1_000)
    with pytest.raises(PcamxError, match=r"so many marks would take .*; split the export"):
        read_marks(source, marks_by_hand.FILMS)


def test_memory_is_counted_by_parts_and_letters() -> None:
    file = Path("marks.json")
    parts = {b"{": 1000}
    for data, needed in ((b'"aa"', 12), (b"{}", 1006), ('"ł"'.encode(), 16), ('"😀"'.encode(), 36)):
        assert parse.memory(data, parts) == needed, data
    parse.check_memory(b"{}" * 100, file, parts)


def test_very_many_items_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = coco(tmp_path, [{"segmentation": [SMALL]}] + [{"bbox": [200, 200, 5, 5]}] * 20)
    assert len(read_marks(file, FILMS).problems) == 20
    monkeypatch.setattr(problems, "MOST", 10)
    with pytest.raises(PcamxError, match="more than 100,000 items cannot be read, annotation 11"):
        read_marks(file, FILMS)
    file = coco(tmp_path, [{"segmentation": [SMALL, *[[1]] * 20]}])
    monkeypatch.setattr(problems, "MOST", 1000)
    monkeypatch.setattr(annotated, "MOST", 15)
    with pytest.raises(PcamxError, match=r"marks.json: more than 15 items .* polygon 17"):
        read_marks(file, FILMS)
