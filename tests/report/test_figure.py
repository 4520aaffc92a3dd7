"""`pcamx figure`: the films asked for, in their order, in three formats."""

import re
from pathlib import Path

import pytest
from PIL import Image

from pcamx import cli
from pcamx.errors import PcamxError
from pcamx.evaluation.chosen_figure import chosen, draw_figure
from pcamx.evaluation.film_table import read_films


def test_films_in_their_order_marked_or_not(evaluated_run: Path, tmp_path: Path) -> None:
    label = read_films(evaluated_run / "films.csv").label
    normal, abnormal = (next(film for film in label if label[film] == k) for k in (0, 1))
    ends = [normal, "/".join(abnormal.split("/")[-3:])]
    found = draw_figure(evaluated_run, ends, tmp_path / "f.svg")
    assert [film.path for film in found] == [normal, abnormal]
    said = " ".join(re.findall(r">([^<>]+)</text>", (tmp_path / "f.svg").read_text()))
    assert said.index(normal) < said.index(abnormal)
    assert ("hit" in said or "MISSED" in said) and "stage 3" in said
    draw_figure(evaluated_run, ends, tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as image:
        assert round(image.info["dpi"][0]) == 200 and image.height > 600
    for name in ("a.pdf", "b.PDF"):
        draw_figure(evaluated_run, ends[:1], tmp_path / name)
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.PDF").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")


def test_mistakes_are_one_line(
    evaluated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    for words, said in (
        (("image1.png", "--out", "f.pdf"), r"image1.png may be valid/.*; give more of the path"),
        (("gone.png", "--out", "f.pdf"), "gone.png: no film of this split; films.csv of the run"),
        (("x.png", "--out", "f.gif"), "f.gif: a figure is written as .pdf, .svg, .png; choose one"),
        (("x.png",) * 51 + ("--out", "f.pdf"), "51 films: a figure holds 50 at most; draw several"),
    ):
        monkeypatch.setattr("sys.argv", ["pcamx", "figure", str(evaluated_run), *words])
        monkeypatch.chdir(tmp_path)
        assert cli.main() == 2
        assert re.search(said, capsys.readouterr().err)  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
    with pytest.raises(PcamxError, match="no film of this split"):
        chosen([], ["x.png"])
