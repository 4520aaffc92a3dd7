"""The page of all films: what is written, and what a real browser makes of clicks and keys."""

import dataclasses
import json
import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import matplotlib
import numpy as np
import pytest
from chromium import needs_chromium
from PIL import Image

from pcamx.report.figures.film_figure import COLORMAP, OPACITY
from pcamx.report.viewer.page import AllFilms, MapOf, NetworkOf, render
from pcamx.report.viewer.pictures import (
    eight_bits,
    join_maps,
    reduced,
    ring,
    write_film,
    write_maps,
)

FILMS = 2000
HOSTILE = 'hand/</script><script>document.title="caught"</script>&\'.png'
PARTS = ("HAND", "WRIST", "")


def films() -> AllFilms:
    """2,000 films that share two pictures; the maps are all 1 above and all 0 below, or turned."""
    rng = np.random.default_rng(0)
    paths = [f"valid/study {i // 2}/{i}.png" for i in range(FILMS)]
    paths[7] = HOSTILE
    first = [float(p) for p in rng.random(FILMS)]
    second = [float(p) for p in rng.random(FILMS)]
    score = [round(float(s), 3) if i % 3 else None for i, s in enumerate(rng.random(FILMS))]
    return AllFilms(
        subject="a drawn set",
        folder="pictures",
        paths=paths,
        stems=["a/dark" if i % 2 else "grey" for i in range(FILMS)],
        facts={
            "label": ["abnormal" if i % 4 == 0 else "normal" for i in range(FILMS)],
            "part": [PARTS[i % 3] for i in range(FILMS)],
            "patient": [f"p{i // 3}" for i in range(FILMS)],
        },
        networks=[
            NetworkOf("stage 1", first, [MapOf("up", 0, {"IoU": score}), MapOf("down", 1, {})]),
            NetworkOf("stage 2", second, [MapOf("up", 0, {})]),
        ],
        marks=[[[2500, 2500, 7500, 2500, 7500, 7500]] if i % 4 == 0 else [] for i in range(FILMS)],
        candidates=[[]] * FILMS,
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page's, its pictures beside it."""
    folder = tmp_path_factory.mktemp("viewer")
    for stem, level, shape in (("a/dark", 0, (200, 100)), ("grey", 100, (200, 200))):
        write_film(folder / "pictures" / stem, np.full(shape, level, np.uint8))
        up = np.zeros((shape[0] // 4, shape[1] // 4), np.uint8)
        up[: len(up) // 2] = 255
        write_maps(folder / "pictures" / stem, [up, 255 - up])
    text = "".join(render(films(), "All films", "report.html"))
    (folder / "films.html").write_text(text, encoding="utf-8")
    return (folder / "films.html").as_uri()


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as page:
        page.appear("light")
        yield page


@pytest.fixture
def page(window: chromium.Page, address: str) -> Iterator[chromium.Page]:
    """The page, opened anew; it must not have thrown nor missed anything."""
    window.errors.clear()
    window.open(address)
    yield window
    assert window.errors == []


def titles(page: chromium.Page) -> list[str]:
    """The paths of the films whose cells exist, as they stand."""
    found = page.run(
        "[...document.querySelectorAll('.cell')].sort((a, b) => parseFloat(a.style.top) -"
        " parseFloat(b.style.top) || parseFloat(a.style.left) - parseFloat(b.style.left))"
        ".map((cell) => cell.title)"
    )
    return list(found)


def count(page: chromium.Page) -> str:
    return str(page.run("document.getElementById('count').textContent"))


def film(page: chromium.Page) -> str | None:
    """The path of the film that is shown large, None in the grid."""
    shown = "document.getElementById('film').hidden ? null"
    found: str | None = page.run(f"{shown} : document.getElementById('name').textContent")
    return found


def pixel(page: chromium.Page, folder: Path, x: float, y: float) -> list[int]:
    """Red, green and blue of the window at a place."""
    with Image.open(page.picture(folder / "window.png")) as picture:
        colour = picture.convert("RGB").getpixel((x, y))
    assert isinstance(colour, tuple)
    return list(colour)


# What is written


def test_pictures(tmp_path: Path) -> None:
    write_film(tmp_path / "b/one", np.full((3000, 1500), 77, np.uint8))
    write_film(tmp_path / "small", np.full((60, 90), 200, np.uint8))
    sizes = {}
    for path in sorted(tmp_path.rglob("*.jpg")):
        with Image.open(path) as image:
            sizes[path.name] = image.size
    assert sizes == {
        "one.jpg": (512, 1024),
        "one.small.jpg": (88, 176),
        "small.jpg": (90, 60),
        "small.small.jpg": (90, 60),
    }
    assert reduced(1500, 3000) == "1500 x 3000 pixels, shown with 1024 along the longer side"
    assert reduced(1024, 60) == ""
    write_maps(tmp_path / "one", [np.full((2, 3), n, np.uint8) for n in (1, 2)])
    with Image.open(tmp_path / "one.png") as strip:
        assert np.asarray(strip).tolist() == [[1, 1, 1], [1, 1, 1], [2, 2, 2], [2, 2, 2]]


def test_grey_levels_and_outlines() -> None:
    deep = np.array([[0, 1000, 4095]], np.uint16)
    assert eight_bits(deep, 4095).tolist() == [[0, 62, 255]]
    points = np.array([[0.0, 0.0], [50.0, 20.0], [100.0, 40.0], [-3.0, 60.0]])
    assert ring(points, 100, 40) == [0, 0, 5000, 5000, 10000, 10000, 0, 10000]


def test_nothing_in_a_path_ends_the_script() -> None:
    text = "".join(render(films(), "All films"))
    assert text.count("</script>") == 2 and "caught" in text
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert json.loads(found)["paths"][7] == HOSTILE
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_no_piece_holds_the_page_and_unknown_numbers_are_null() -> None:
    """40,000 films make 30 MB of text, which was held whole and copied."""
    kinds = [MapOf(str(k), k, {"IoU": array("d", [math.nan, k / 3] * 1000)}) for k in range(40)]
    few = dataclasses.replace(films(), networks=[NetworkOf("stage 1", [None] * FILMS, kinds)])
    pieces = list(render(few, "All films"))
    text = "".join(pieces)
    assert max(map(len, pieces)) < len(text) / 5
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    network = json.loads(found)["networks"][0]
    assert [one["title"] for one in network["maps"]] == [str(k) for k in range(40)]
    assert network["maps"][1]["columns"] == {"IoU": [None, 0.3333] * 1000}
    assert network["probability"] == [None] * FILMS


# In the browser


@needs_chromium
def test_two_thousand_films_are_there_and_few_are_drawn(page: chromium.Page) -> None:
    assert count(page) == "2000 films"
    seen = titles(page)
    assert seen == list(films().paths[: len(seen)]) and 20 < len(seen) < 70
    page.run("document.getElementById('scroller').scrollTop = 1e9")
    page.wait("[...document.querySelectorAll('.cell')].some((c) => c.title.endsWith('/1999.png'))")
    assert len(titles(page)) < 70
    assert page.run("document.querySelectorAll('*').length") < 1500
    assert page.run("document.title") == "All films: a drawn set"


@needs_chromium
def test_filters(page: chromium.Page) -> None:
    found = films()
    label, part = found.facts["label"], found.facts["part"]
    first = [p or 0 for p in found.networks[0].probability]
    page.choose("[data-fact=part]", "WRIST")
    assert count(page) == f"{part.count('WRIST')} of 2000 films"
    page.choose("[data-fact=error]", "missed")
    missed = [i for i in range(FILMS) if label[i] == "abnormal" and first[i] < 0.5]
    wanted = [found.paths[i] for i in missed if part[i] == "WRIST"]
    assert count(page) == f"{len(wanted)} of 2000 films"
    seen = titles(page)
    assert seen == wanted[: len(seen)]
    page.click("#find")
    for letter in "study 12/":
        page.key(letter)
    assert titles(page) == [path for path in wanted if "study 12/" in path.lower()]
    page.click("#reset")
    assert count(page) == "2000 films"
    assert page.run("document.querySelector('[data-fact=patient]')") is None  # 667 of them


@needs_chromium
def test_sorting(page: chromium.Page) -> None:
    found = films()
    score = found.networks[0].maps[0].columns["IoU"]
    page.choose("#sort", "IoU")
    order = sorted(range(FILMS), key=lambda i: (score[i] is None, score[i] or 0, i))
    seen = titles(page)
    assert seen == [found.paths[i] for i in order[: len(seen)]]
    page.click("#direction")
    order = sorted(range(FILMS), key=lambda i: (score[i] is None, -(score[i] or 0), i))
    seen = titles(page)
    assert seen == [found.paths[i] for i in order[: len(seen)]]  # none without a number
    page.choose("#network", "1")  # whose map has no IoU
    assert page.run("document.getElementById('sort').value") == ""
    page.choose("#sort", "probability")
    second = found.networks[1].probability
    order = sorted(range(FILMS), key=lambda i: -(second[i] or 0))
    seen = titles(page)
    assert seen == [found.paths[i] for i in order[: len(seen)]]


@needs_chromium
def test_a_click_opens_a_film_and_keys_go_on(page: chromium.Page) -> None:
    paths = films().paths
    page.click(".cell:nth-child(3)")
    assert film(page) == paths[2]
    assert page.run("new URLSearchParams(location.hash.slice(1)).get('film')") == paths[2]
    page.key("ArrowRight")
    assert film(page) == paths[3]
    page.click("#previous")
    page.key("ArrowLeft")
    page.key("ArrowLeft")
    page.key("ArrowLeft")  # there is none before the first
    assert film(page) == paths[0]
    page.key("Escape")
    assert film(page) is None
    assert page.run("document.activeElement.title") == paths[0]
    page.key("End")
    assert page.run("document.activeElement.title") == paths[-1]
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r",
              windowsVirtualKeyCode=13)  # fmt: skip
    assert film(page) == paths[-1]
    page.run("history.back()")
    page.wait("document.getElementById('film').hidden")
    page.run("history.forward()")
    page.wait("!document.getElementById('film').hidden")


@needs_chromium
def test_names_that_every_object_has_and_keys_without_a_name(page: chromium.Page) -> None:
    page.run("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '', bubbles: true}))")
    page.run("location.hash = 'sort=toString'")
    page.wait("written === 'sort=toString'")
    assert page.run("state.sort") == "" and titles(page)[0] == films().paths[0]


@needs_chromium
def test_numbers_without_a_power_of_ten(page: chromium.Page) -> None:
    said = page.run("[3, 0.12345, 999.4, 999.7, 1234.5, -12345.6].map(number)")
    assert said == ["3", "0.123", "999", "1000", "1235", "-12346"]


@needs_chromium
def test_a_film_that_is_closed_before_its_picture_has_come(page: chromium.Page) -> None:
    page.click(".cell:nth-child(3)")
    page.key("Escape")
    page.run("document.getElementById('picture').dispatchEvent(new Event('load'))")
    assert page.run("Promise.resolve().then(() => document.getElementById('film').hidden)") is True


@needs_chromium
def test_deep_links(window: chromium.Page, address: str) -> None:
    window.open(f"{address}#film={HOSTILE.replace('&', '%26')}&network=stage+2&part=WRIST")
    assert film(window) == HOSTILE
    assert window.run("document.getElementById('network').selectedOptions[0].text") == "stage 2"
    assert window.run("document.querySelector('[data-fact=part]').value") == "WRIST"
    assert "not among" not in window.run("document.getElementById('place').textContent")
    window.run("location.hash = 'film=nowhere'")
    window.wait("document.getElementById('film').hidden")
    assert count(window) == "2000 films"


@needs_chromium
def test_the_map_lies_over_the_film_as_in_the_report(page: chromium.Page, tmp_path: Path) -> None:
    """Blended as `film_figure.overlay` does; film 0 is grey 100, its map 1 above and 0 below."""
    page.click(".cell:nth-child(1)")
    page.wait("document.getElementById('heatmap').width === 200")
    page.key("k")  # without the outline
    page.run("new Promise((kept) => setTimeout(kept, 300))")
    x, y = page.middle("#stage")
    hot = 255 * np.array(matplotlib.colormaps[COLORMAP](1.0)[:3])
    expected = (1 - OPACITY) * 100 + OPACITY * hot
    assert pixel(page, tmp_path, x, y - 100) == pytest.approx(expected.tolist(), abs=4)
    assert pixel(page, tmp_path, x, y + 100) == pytest.approx([100] * 3, abs=3)
    page.key("m")  # the map that lies the other way round
    page.run("new Promise((kept) => setTimeout(kept, 300))")
    assert pixel(page, tmp_path, x, y + 100) == pytest.approx(expected.tolist(), abs=4)
    page.key("o")
    page.run("new Promise((kept) => setTimeout(kept, 300))")
    assert pixel(page, tmp_path, x, y + 100) == pytest.approx([100] * 3, abs=3)
    page.drag("#stage", (-155, -55.5 * 2))  # window 100, level 72: 100 is at 78 % of it
    page.run("new Promise((kept) => setTimeout(kept, 300))")
    assert "window 100, level 72" in page.run("document.getElementById('readout').textContent")
    assert pixel(page, tmp_path, x, y) == pytest.approx([255 * (0.5 + 0.28)] * 3, abs=4)


@needs_chromium
def test_zoom_keeps_what_is_under_the_pointer(page: chromium.Page) -> None:
    page.click(".cell:nth-child(1)")
    page.wait("document.getElementById('picture').complete")
    box = "(() => { const b = document.getElementById('layer').getBoundingClientRect();"
    x, y = page.middle("#stage")
    before = page.run(
        f"{box} return [({x + 60} - b.x) / b.width, ({y + 30} - b.y) / b.height] }})()"
    )
    width = page.run(f"{box} return b.width }})()")
    page.mouse("mouseWheel", x + 60, y + 30, deltaX=0, deltaY=-400)
    page.wait(f"{box} return b.width > {1.5 * width} }})()")
    after = page.run(
        f"{box} return [({x + 60} - b.x) / b.width, ({y + 30} - b.y) / b.height] }})()"
    )
    assert after == pytest.approx(before, abs=1e-3)
    left = page.run(f"{box} return b.x }})()")
    page.drag("#stage", (40, 0), modifiers=8)  # shift: moved, not windowed
    assert page.run(f"{box} return b.x }})()") == pytest.approx(left + 40, abs=1)
    page.key("0")
    assert page.run("document.getElementById('readout').textContent").startswith("window 255")
    assert page.run(f"{box} return b.width }})()") == pytest.approx(width, abs=1)


@needs_chromium
def test_outlines_and_facts(page: chromium.Page) -> None:
    page.click(".cell:nth-child(1)")
    paths = "[...document.querySelectorAll('#lines path')].map((p) => p.getAttribute('d'))"
    assert page.run(paths) == ["M2500 2500L7500 2500L7500 7500Z"] * 2  # and its dark rim
    facts = page.run("document.getElementById('facts').textContent")
    for text in ("abnormal", "HAND", "p0", "stage 2", f"{films().networks[1].probability[0]:.3f}"):
        assert text in facts
    page.key("ArrowRight")
    assert page.run(paths) == []


@needs_chromium
def test_light_and_dark(page: chromium.Page) -> None:
    def ground() -> Any:
        return page.run("getComputedStyle(document.body).backgroundColor")

    light = ground()
    page.appear("dark")
    dark = ground()
    page.appear("light")
    assert light == "rgb(255, 255, 255)" and dark == "rgb(21, 24, 27)"


def test_maps_of_several_strips_in_the_size_of_the_first(tmp_path: Path) -> None:
    for name, side, levels in (("one", 8, (0, 50)), ("other", 4, (100, 150, 255))):
        write_maps(tmp_path / name, [np.full((side, side), level, np.uint8) for level in levels])
    join_maps(tmp_path / "both", [(tmp_path / "one.png", 2), (tmp_path / "other.png", 3)])
    with Image.open(tmp_path / "both.png") as strip:
        tiles = np.asarray(strip).reshape(5, 8 * 8)
    assert tiles.tolist() == [[level] * 64 for level in (0, 50, 100, 150, 255)]
