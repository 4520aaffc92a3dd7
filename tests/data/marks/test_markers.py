"""Boxes of markers: read, laid on the canvas, and refused in one line."""

from pathlib import Path

import pytest

from pcamx.data.canvas.side_markers import HEADER, Box, marker_names, read_markers, strata_of
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError


def film(path: str, width: int = 100, height: int = 50) -> Film:
    return Film(path, 1, "p", "s", "", "valid", width, height, 255, "")


def store(root: Path, *films: Film, rows: str = "") -> Store:
    if rows:
        (root / "markers.csv").write_text(",".join(HEADER) + "\n" + rows)
    return Store(root / "store", root, films, 0.0, 1.0)


def test_boxes_on_the_canvas(tmp_path: Path) -> None:
    films = film("a.png"), film("b.png"), film("c.png", 50, 100)
    found = store(tmp_path, *films, rows="a.png,R,40,20,50,30\n\nc.png,L,0,95,5,100\n")
    # a 100 x 50 film on a canvas of 200: twice as large, 50 pixels below the top
    margin = 200 / 16
    a, b, c = read_markers(found, films, 200)
    left, top, right, bottom = 80 - margin, 90 - margin, 100 + margin, 110 + margin
    assert a == (Box(round(left), round(top), round(right), round(bottom)),)
    assert b == ()
    assert c == (Box(round(50 - margin), round(190 - margin), round(60 + margin), 200),)
    assert read_markers(found, films[:2], 200) == [a, b]


def test_no_file_is_no_marker(tmp_path: Path) -> None:
    films = (film("a.png"),)
    assert read_markers(store(tmp_path, *films), films, 64) == [()]


def test_a_table_of_a_release_s_name_that_is_none_of_its(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset.csv").write_bytes("größe,länge\n".encode("latin-1"))
    assert read_markers(store(tmp_path, film("a.png")), [film("a.png")], 64) == [()]


def test_films_that_the_store_does_not_have_are_passed_over(tmp_path: Path) -> None:
    films = (film("a.png"),)
    found = store(tmp_path, *films, rows="gone.png,R,999,999,1000,1000\na.png,L,1,1,3,3\n")
    assert len(read_markers(found, films, 100)[0]) == 1


def test_a_film_of_two_markers_and_a_header_of_before(tmp_path: Path) -> None:
    films = (film("a.png"),)
    rows = "a.png,R,40,20,50,30\na.png,plate,0,0,9,9\n"
    both = read_markers(store(tmp_path, *films, rows=rows), films, 100)
    assert [len(boxes) for boxes in both] == [2]
    (tmp_path / "markers.csv").write_text("path,letter,left,top,right,bottom\n" + rows)
    assert read_markers(store(tmp_path, *films), films, 100) == both


def test_paths_as_a_table_of_films_may_have_them(tmp_path: Path) -> None:
    films = (film("x/a.png"), film("x/b.png"))
    rows = "x\\a.png,R,40,20,50,30\n./x/b.png,R,40,20,50,30\n"
    found = read_markers(store(tmp_path, *films, rows=rows), films, 100)
    assert [len(boxes) for boxes in found] == [1, 1]
    for bad in ("../a.png", "/a.png"):
        with pytest.raises(PcamxError, match=f"line 2: path {bad} leaves the data folder"):
            read_markers(store(tmp_path, *films, rows=f"{bad},R,1,1,2,2\n"), films, 100)


def test_strata_by_markers(tmp_path: Path) -> None:
    films = film("a.png"), film("b.png"), film("c.png")
    rows = "a.png,plate,,,,\na.png,L,,,,\nb.png,plate,,,,\n"
    found = store(tmp_path, *films, rows=rows)
    assert strata_of(found, films) == ["L plate", "plate", "none"]
    # Where all have the same there is nothing to compare within.
    assert strata_of(found, films[1:2]) == [""]
    assert strata_of(store(tmp_path / "without", *films), films) == ["", "", ""]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheets_delimiter(tmp_path: Path, delimiter: str) -> None:
    films = (film("a.png"),)
    rows = "a.png,R,40,20,50,30\n"
    expected = read_markers(store(tmp_path, *films, rows=rows), films, 100)
    file = tmp_path / "markers.csv"
    file.write_text(file.read_text().replace(",", delimiter))
    assert read_markers(store(tmp_path, *films), films, 100) == expected != [()]


def test_a_marker_whose_place_is_not_known(tmp_path: Path) -> None:
    films = film("a.png"), film("b.png"), film("c.png")
    rows = "a.png,plate,,,,\na.png,L,40,20,50,30\na.png,L,0,0,5,5\nb.png,plate,,,,\n"
    found = store(tmp_path, *films, rows=rows)
    assert marker_names(found, films) == [("L", "plate"), ("plate",), ()]
    assert [len(boxes) for boxes in read_markers(found, films, 100)] == [2, 0, 0]


@pytest.mark.parametrize(
    "row",
    [
        "a.png,R,1,,,",
        "a.png,R,,,",
        "a.png,R,1,1,3",
        "a.png,R,1,1,3,3,4",
        "a.png,R,1,1,3.5,3",
        "a.png,R,-1,1,3,3",
        "a.png,R,3,1,3,3",
        "a.png,R,1,1,101,3",
        "a.png,R,1,1,3,51",
        "a.png,R,x,1,3,3",
    ],
)
def test_what_is_no_box_is_named(tmp_path: Path, row: str) -> None:
    films = (film("a.png"),)
    with pytest.raises(PcamxError, match=r"markers\.csv, line 2: not a box on that film") as error:
        read_markers(store(tmp_path, *films, rows=row + "\n"), films, 64)
    assert "\n" not in str(error.value)


def test_another_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "markers.csv").write_text("path,x,y\na.png,1,2\n")
    films = (film("a.png"),)
    with pytest.raises(PcamxError, match="line 1 must be path,marker,left,top,right,bottom"):
        read_markers(store(tmp_path, *films), films, 64)
