"""The pages of an evaluated run, an explained folder and a comparison, in a real browser."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import chromium
import numpy as np
import pytest
from PIL import Image

from pcamx.compare import compare
from pcamx.data.store import read_store
from pcamx.explain.folder import explain

pytestmark = chromium.needs_chromium


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as page:
        page.appear("light")
        yield page
    assert page.errors == []


def text(page: chromium.Page, element: str) -> str:
    return str(page.run(f"document.getElementById('{element}').textContent"))


DRAWN = """(() => {
  const map = document.getElementById("heatmap");
  try { map.getContext("2d").getImageData(0, 0, 1, 1); } catch { return true; }
  return false;
})()"""
"""Whether the map is there: a picture from a file forbids that the canvas is read."""


def open_first(page: chromium.Page, folder: Path) -> str:
    """Click on the first film and wait for its map; the film's path."""
    page.wait("document.querySelector('.cell img').naturalWidth > 0")
    page.click(".cell:nth-child(1)")
    page.wait("document.getElementById('picture').naturalWidth > 0")
    page.wait(DRAWN)
    page.run("new Promise((kept) => setTimeout(kept, 300))")
    left, top, width, height = page.run(
        "(() => { const b = document.getElementById('stage').getBoundingClientRect();"
        " return [b.x, b.y, b.width, b.height]; })()"
    )
    with Image.open(page.picture(folder / "window.png")) as picture:
        stage = picture.convert("RGB").crop((left, top, left + width, top + height))
    red, _, blue = np.moveaxis(np.asarray(stage).astype(int), 2, 0)
    assert (abs(red - blue) > 30).mean() > 0.01  # colours over the grey film
    return text(page, "name")


def test_films_of_an_evaluated_run(
    window: chromium.Page, evaluated_run: Path, store_folder: Path, tmp_path: Path
) -> None:
    films = read_store(store_folder).split("valid")
    window.open((evaluated_run / "report.html").as_uri())
    window.follow("a[href='films.html']")
    assert text(window, "count") == f"{len(films)} films"
    window.choose("[data-fact=label]", "abnormal")
    path = open_first(window, tmp_path)
    film = next(film for film in films if film.path == path)
    assert film.label == 1
    facts = text(window, "facts")
    with (evaluated_run / "films.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"] == path]
    for network in ("stage 1", "stage 2", "stage 3"):
        probability = next(row["probability"] for row in rows if row["network"] == network)
        assert f"{network}{float(probability):.3f}" in facts
    assert bool(window.run("document.querySelectorAll('#lines path').length")) == bool(film.mark)
    window.click("#close")
    window.follow("header a")
    assert window.run("location.pathname").endswith("/report.html")


def test_films_that_were_explained(
    window: chromium.Page, evaluated_run: Path, store_folder: Path, tmp_path: Path
) -> None:
    store = read_store(store_folder)
    films = [store.root / film.path for film in store.split("valid")[:3]]
    explain(evaluated_run, films, out=tmp_path / "out", level=-1e9, workers=1)
    window.open((tmp_path / "out/index.html").as_uri())
    assert text(window, "count") == "3 films"
    with (tmp_path / "out/films.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert open_first(window, tmp_path) == rows[0]["film"]
    assert f"{float(rows[0]['probability']):.3f}" in text(window, "facts")
    assert window.run("document.querySelectorAll('#lines path').length") > 0
    window.key("ArrowRight")
    assert text(window, "name") == rows[1]["film"]


def test_films_of_a_comparison(window: chromium.Page, evaluated_run: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated_run, tmp_path / "copy")
    compare([evaluated_run, tmp_path / "copy"], tmp_path / "out")
    window.open((tmp_path / "out/compare.html").as_uri())
    window.follow("a[href='films.html']")
    names = window.run("[...document.getElementById('network').options].map((one) => one.text)")
    assert [name.split(": ")[0] for name in names] == ["run"] * 4 + ["copy"] * 4
    shown = "document.getElementById('network').selectedOptions[0].text"
    assert window.run(shown) == "run: stage 3"
    window.choose("#network", "6")
    open_first(window, tmp_path)
    facts = text(window, "facts")
    assert names[6] == "copy: stage 3" and "decoder of copy: stage 3" in facts
    assert all(name in facts for name in names if "segmenter" not in name)
    window.follow("header a")
    assert window.run("location.pathname").endswith("/compare.html")
