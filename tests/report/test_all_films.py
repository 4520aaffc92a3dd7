"""films.html of an evaluated run: its numbers, pictures and marks, against the run's own files."""

import csv
import json
import math
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pcamx import config as configs
from pcamx.catalogue import DECODER
from pcamx.data.canvas.lesion_mask import lesion_canvas
from pcamx.data.canvas.provider import stream
from pcamx.data.feed.batches import eval_batches
from pcamx.data.store import Store, read_store
from pcamx.errors import PcamxError
from pcamx.evaluation.all_films import FilmPictures, all_films, only_pictures
from pcamx.evaluation.explainers import explainer
from pcamx.evaluation.twins import Twin
from pcamx.metrics import minmax
from pcamx.output import safe_cell
from pcamx.run.pretrained import from_pretrained


@pytest.fixture(scope="module")
def page(evaluated_run: Path) -> Any:
    """What the page holds."""
    text = (evaluated_run / "films.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


@pytest.fixture(scope="module")
def store(store_folder: Path) -> Store:
    return read_store(store_folder)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "films.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_film_with_the_figures_of_films_csv(
    evaluated_run: Path, store: Store, page: Any
) -> None:
    films = store.split("valid")
    assert page["paths"] == [film.path for film in films]
    assert page["facts"]["label"] == [["normal", "abnormal"][film.label] for film in films]
    assert page["facts"]["part"] == [film.part for film in films]
    assert [bool(rings) for rings in page["marks"]] == [bool(film.mark) for film in films]
    titles = [network["title"] for network in page["networks"]]
    assert titles == ["stage 1", "stage 2", "stage 3", "untrained network", "same-marks segmenter"]
    third = page["networks"][titles.index("stage 3")]
    decoder = next(one for one in third["maps"] if one["title"] == "decoder")
    assert page["start"] == [2, third["maps"].index(decoder)]
    seen = 0
    for row in rows(evaluated_run):
        if (row["network"], row["map"]) == ("stage 3", "decoder"):
            place = page["paths"].index(row["path"])
            assert third["probability"][place] == float(row["probability"])
            for column, title in (("pointing", "pointing"), ("miou", "mIoU")):
                value = decoder["columns"][title][place]
                assert (value is None) == (row[column] == "")
                if row[column]:
                    assert value == pytest.approx(float(row[column]), rel=1e-3)
                    seen += 1
    assert seen == 2 * sum(bool(film.mark) for film in films) > 4
    assert 'href="films.html"' in (evaluated_run / "report.html").read_text()


@torch.no_grad()
def test_each_map_lies_in_its_film_s_strip(evaluated_run: Path, store: Store, page: Any) -> None:
    """The decoder's, of the film's part of the canvas alone; films are 48 px on a canvas of 32."""
    config, films = configs.load(evaluated_run / "config.yaml"), store.split("valid")
    model = from_pretrained(evaluated_run, device="cpu")
    canvases = stream(config.data, store, films, torch.device("cpu"))
    (batch,) = eval_batches(
        store, films, canvases, batch_size=32, device=torch.device("cpu"), lesions=False
    )
    maps = minmax(explainer(model.network, [DECODER])(batch.image_B1HW)[1][DECODER.key])
    tile = next(m["tile"] for m in page["networks"][2]["maps"] if m["title"] == "decoder")
    tiles = 1 + max(m["tile"] or 0 for n in page["networks"] for m in n["maps"])
    for film, stem, map_HW in zip(films, page["stems"], maps, strict=True):
        long_side = max(film.width, film.height)
        width, height = (round(32 * side / long_side) for side in (film.width, film.height))
        left, top = (32 - width) // 2, (32 - height) // 2
        part = map_HW[top : top + height, left : left + width]
        size = (max(1, round(height / 4)), max(1, round(width / 4)))
        expected = 255 * F.adaptive_avg_pool2d(part[None, None], size)[0, 0].numpy()
        with Image.open(evaluated_run / "films" / f"{stem}.png") as strip:
            pixels = np.asarray(strip).reshape(tiles, size[0], size[1])
        assert np.abs(pixels[tile] - expected).max() <= 0.51
        with Image.open(evaluated_run / "films" / f"{stem}.jpg") as picture:
            assert picture.size == (film.width, film.height) and picture.mode == "L"


def test_outlines_enclose_the_marks(store: Store, page: Any) -> None:
    """The middle of a mask's box lies in the box of its outlines, and the boxes agree."""
    for film, rings in zip(store.split("valid"), page["marks"], strict=True):
        if not film.mark:
            continue
        mask = lesion_canvas(store.folder / film.mark, film, 32)[0].numpy() > 0
        long_side = max(film.width, film.height)
        width, height = (round(32 * side / long_side) for side in (film.width, film.height))
        left, top = (32 - width) // 2, (32 - height) // 2
        down, across = mask.nonzero()
        points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in rings]) / page["scale"]
        low, high = points.min(0) * (width, height), points.max(0) * (width, height)
        assert low == pytest.approx([across.min() - left, down.min() - top], abs=0.51)
        assert high == pytest.approx([across.max() + 1 - left, down.max() + 1 - top], abs=0.51)


def test_somebody_s_own_files_among_the_pictures(tmp_path: Path) -> None:
    only_pictures(tmp_path / "none")
    (tmp_path / "000001.small.jpg").touch()
    only_pictures(tmp_path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(PcamxError, match=r"thesis.txt is no picture of pcamx evaluate; move it"):
        only_pictures(tmp_path)


def test_films_whose_names_a_spreadsheet_would_run(tmp_path: Path, store: Store) -> None:
    """films.csv has them behind an apostrophe."""
    names = ("-left.png", "=a,b.png", "+1.png", "@x.png")
    films = [replace(store.split("valid")[0], path=name) for name in names]
    with (tmp_path / "films.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            "path,patient,study,part,label,lesion_share,network,probability,map".split(",")
        )
        for k, name in enumerate(names):
            rows.writerow([safe_cell(name), "p", "s", "", 1, 0.5, "stage 1", k / 4, "positive_cam"])
    found = all_films(
        tmp_path / "films.csv", FilmPictures(tmp_path, store, films, []), [None] * 4, [], "a run"
    )
    assert found.networks[0].probability == [0.0, 0.25, 0.5, 0.75] and "size" not in found.facts
    assert None not in found.facts["lesion"]


def test_any_column_of_films_csv_and_every_temptation(tmp_path: Path, store: Store) -> None:
    """A column that a later pcamx adds is sorted by as well; twins say what tempts a film."""
    films = store.split("valid")[:3]
    lines = ["path,patient,study,part,label,lesion_share,network,probability,map,erase_effect"]
    for film, effect in zip(films, ("-1.5", "", "0.25"), strict=True):
        lines += [f"{film.path},p,s,,{film.label},,stage 1,0.5,positive_cam,{effect}"]
        lines += [f"{film.path},p,s,,{film.label},,centre,,positive_cam,9"]
    (tmp_path / "films.csv").write_text("\n".join(lines) + "\n")
    pictures = FilmPictures(tmp_path, store, films, [])
    twins = [
        Twin(0, 0, "temptation_removed", "plate"),
        Twin(2, 1, "temptation_added", "plate"),
        Twin(1, 2, "lesion_removed", ""),
        Twin(1, 3, "temptation_added", "letter"),  # an L, which becomes an R
    ]
    found = all_films(tmp_path / "films.csv", pictures, [None] * 3, twins, "a run")
    (network,) = found.networks
    assert network.title == "stage 1" and found.start == (0, 0)
    assert list(network.maps[0].columns) == ["erase effect"]
    found_3 = list(network.maps[0].columns["erase effect"])
    assert found_3 == pytest.approx([-1.5, math.nan, 0.25], nan_ok=True)
    assert (
        found.facts["plate"] == ["with", "", "without"] and found.facts["letter R"][1] == "without"
    )


def test_a_number_of_many_films_takes_few_bytes(tmp_path: Path, store: Store) -> None:
    """8 each, where a list takes 32: 39,999 films have 4 million."""
    one, films, columns = store.split("valid")[0], 2000, 50
    many = [replace(one, path=f"{row}.png") for row in range(films)]
    with (tmp_path / "films.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        head = "path,patient,study,part,label,lesion_share,network,probability,map"
        rows.writerow([*head.split(","), *(f"c{k}" for k in range(columns))])
        for row in range(films):
            what = [f"{row}.png", "p", "s", "", 1, 0.5, "stage 1", 0.5, "positive_cam"]
            rows.writerow([*what, *(f"{(row + k) / 7:.6g}" for k in range(columns))])
    pictures = FilmPictures(tmp_path, store, many, [])
    tracemalloc.start()
    try:
        found = all_films(tmp_path / "films.csv", pictures, [()] * films, [], "a run")
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert found.networks[0].maps[0].columns["c3"][5] == pytest.approx(8 / 7, abs=1e-5)
    assert held < 16 * films * columns


def test_films_that_are_shown_with_fewer_pixels_say_so(tmp_path: Path, store: Store) -> None:
    films = [*store.split("valid")[:1], replace(store.split("valid")[1], width=900, height=2000)]
    lines = ["path,patient,study,part,label,lesion_share,network,probability,map"]
    lines += [f"{film.path},p,s,,{film.label},,stage 1,0.5,positive_cam" for film in films]
    (tmp_path / "films.csv").write_text("\n".join(lines) + "\n")
    pictures = FilmPictures(tmp_path, store, films, [])
    found = all_films(tmp_path / "films.csv", pictures, [None] * 2, [], "a run")
    said = "900 x 2000 pixels, shown with 1024 along the longer side"
    assert found.facts["size"] == ["", said]
