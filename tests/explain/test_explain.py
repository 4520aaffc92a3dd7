"""`pcamx explain` on a run with random weights: evaluate's own figures, files, bad input."""

import csv
import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import dicoms
import highdicom
import numpy as np
import processes
import pytest
import random_runs
import torch
from matplotlib.figure import Figure
from one_line import assert_one_line
from PIL import Image
from pycocotools.coco import COCO

from pcamx import config as configs
from pcamx.catalogue import DECODER
from pcamx.data.canvas.provider import stream
from pcamx.data.feed.batches import eval_batches
from pcamx.data.marks import read_marks
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.evaluation.explainers import explainer
from pcamx.explain.candidates import Candidate, cover
from pcamx.explain.dicom_seg import NEEDED, write_segmentation
from pcamx.explain.folder import Explained, explain
from pcamx.explain.inputs import find_films
from pcamx.explain.maps import answer
from pcamx.explain.messages import Job, Settings
from pcamx.explain.read_film import read
from pcamx.explain.results import finish
from pcamx.explain.workers import Here, ahead
from pcamx.output import replacing_folder
from pcamx.report.figures.explained_film import Picture, draw
from pcamx.run.pretrained import from_pretrained, save_pretrained
from pcamx.run.weights import load_weights, save_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    """A run of three stages with thresholds, without training."""
    folder = tmp_path_factory.mktemp("explain")
    made = random_runs.random_run(folder / "run", write_config(folder))
    random_runs.write_report(made)
    return made


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder with a grey, a deep and a turned film, and a DICOM, in subfolders."""
    folder = tmp_path / "films"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    pixels = dicoms.ramp(60, 40)
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(folder / "a/one.png")
    Image.fromarray(pixels).save(folder / "b/one.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(folder / "b/turned.jpg", exif=exif)
    dicoms.save(dicoms.dataset(pixels, WindowCenter=2000, WindowWidth=3000), folder / "b/film")
    (folder / "notes.txt").write_text("not a film")
    (folder / ".hidden.png").write_text("not a film")
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take nine tenths of the time, where no test looks at them."""
    empty = BytesIO()
    Image.new("L", (1, 1)).save(empty, "PNG")
    monkeypatch.setattr("pcamx.explain.results.draw", lambda picture: empty.getvalue())


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def of_films(*names: str) -> set[str]:
    """What is written of each film, without a segmentation."""
    return {f"films/{name}.{kind}" for name in names for kind in ("png", "json", "npy")} | {
        f"page/{name}.{kind}" for name in names for kind in ("jpg", "small.jpg", "png")
    }


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "films.csv").open(newline="") as file:
        return {row["film"]: row for row in csv.DictReader(file)}


def facts(out: Path, name: str) -> Any:
    return json.loads((out / "films" / f"{name}.json").read_text())


# The figures


@pytest.mark.usefixtures("undrawn")
def test_same_figures_as_evaluate_to_the_bit(run: Path, store_folder: Path, tmp_path: Path) -> None:
    """All films of a store, 14 in one batch there, 8 in a batch here."""
    config, store = configs.load(run / "config.yaml"), read_store(store_folder)
    listed = store.split("valid")
    model = from_pretrained(run, device="cpu")
    canvases = stream(config.data, store, listed, CPU)
    (batch,) = eval_batches(store, listed, canvases, batch_size=32, device=CPU, lesions=False)
    probability_B, maps = explainer(model.network, [DECODER])(batch.image_B1HW)
    assert probability_B is not None
    out = tmp_path / "out"
    explain(run, [store.root / film.path for film in listed], out=out)
    names = {facts["film"]: facts for facts in map(_load, (out / "films").rglob("*.json"))}
    assert len(names) == len(listed) == 14
    for film, probability, map_HW in zip(listed, probability_B, maps["decoder"], strict=True):
        found = names[str(store.root / film.path)]
        assert found["probability"]["abnormal"] == float(probability)
        saved = np.load(out / "films" / f"{found['name']}.npy")
        assert saved.dtype == np.float32 and np.array_equal(saved, map_HW.numpy())


def _load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_processes_change_nothing(run: Path, films: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        explain(run, [films], out=tmp_path / str(workers), workers=workers or None)
    here, there = (tmp_path / name for name in ("0", "2"))
    assert files(here) == files(there)
    for name in files(here) - {"explain.json", "coco.json"}:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


@pytest.mark.usefixtures("undrawn")
def test_positive_cam_without_a_decoder_and_the_default_threshold(
    tmp_path: Path, write_config: Any, films: Path
) -> None:
    made = random_runs.random_run(tmp_path / "run", write_config(tmp_path), stages=(1,))
    explain(made, [films / "a/one.png"])  # below the run unless told otherwise
    found = facts(made / "explain", "one.png")
    assert found["map"]["of"] == "positive_cam" and found["model"]["stage"] == 1
    assert found["threshold"] == {"value": 0.5, "tuned": False, "of": "scaled map"}


def random_job(films: Path) -> Job:
    """A film of 40 x 60 on a map of 32 x 32 of values from 0.1 to 0.6."""
    (film,) = find_films([films / "a/one.png"])
    reading = read(film)
    assert not isinstance(reading, str)
    map_HW = np.random.default_rng(5).uniform(0.1, 0.6, (32, 32)).astype(np.float32)
    low, high = map_HW.min(), map_HW.max()
    scaled_HW = (map_HW.astype(np.float64) - low) / (float(high) - float(low))
    return Job(reading, 0.7, map_HW, scaled_HW)


def test_a_candidate_reaches_the_level_and_only_a_film_that_does_has_one(films: Path) -> None:
    job = random_job(films)
    low, high = job.ends()
    place = job.place()
    on_film = job.map_HW[place.top :, place.left :][: place.height, : place.width]
    every = job.candidates(0.5, None)
    raw = {one.peak: low + one.value * (high - low) for one in every}
    assert len(every) > 5
    for level in (0.0, low, 0.3, 0.55, float(on_film.max())):
        found = job.candidates(0.5, level)
        assert found, level
        assert all(low + one.value * (high - low) >= level - 1e-6 for one in found)
        if level > low + 0.5 * (high - low):  # the outlines of the threshold, fewer of them
            assert [one.peak for one in found] == [p for p, v in raw.items() if v >= level]
        else:
            outlined = sum(cover([one.outline, *one.holes], 40, 60).sum() for one in found)
            assert outlined >= sum(cover([o.outline, *o.holes], 40, 60).sum() for o in every)
    assert job.candidates(0.5, float(on_film.max()) + 1e-4) == []


@pytest.mark.usefixtures("undrawn")
def test_a_level_empties_films_in_every_file_alike(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Of the DICOM's peak, which the others do not reach, or do: whatever is written agrees."""
    explain(run, [films], out=tmp_path / "all")
    seen = {name: facts(tmp_path / "all", name) for name in table(tmp_path / "all")}
    high = {n: max(one["map_value"] for one in f["candidates"]) for n, f in seen.items()}
    level = sorted(high.values())[-2] - 1e-7
    words = ("explain", run, films, "--out", tmp_path / "some", "--dicom-seg", "--level", level)
    code, said, _ = command(monkeypatch, capsys, *words)
    assert code == 0
    has = {name for name, value in high.items() if value >= level}
    assert 0 < len(has) < len(high) and f"{len(has)} with a lesion candidate" in said
    rows = table(tmp_path / "some")
    coco = _load(tmp_path / "some/coco.json")
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    assert {names[one["image_id"]] for one in coco["annotations"]} == has
    for name, row in rows.items():
        found = facts(tmp_path / "some", name)
        assert bool(found["candidates"]) == bool(int(row["candidates"])) == (name in has)
        assert found["level"] == {"value": level, "from": "given", "of": "map"}
        assert (row["score"] == "") == (name not in has)
        assert (found["segmentation"] is not None) == (name in has and name == "b/film")
        assert all(one["map_value"] >= level - 1e-6 for one in found["candidates"])


@pytest.mark.usefixtures("undrawn")
def test_the_level_is_the_reports_and_lives_in_an_export(
    run: Path, films: Path, tmp_path: Path
) -> None:
    made = Path(shutil.copytree(run, tmp_path / "run"))
    report = _load(made / "report.json")
    report["stages"]["3"]["localization"]["decoder"]["candidate_level"] = 2.0
    report["stages"]["3"]["localization"]["positive_cam"]["candidate_level"] = -50.0
    (made / "report.json").write_text(json.dumps(report))
    (tmp_path / "export").mkdir()
    save_pretrained(from_pretrained(made, device="cpu"), tmp_path / "export")
    for model in (made, tmp_path / "export"):
        out = tmp_path / f"of_{model.name}"
        done = explain(model, [films], out=out)  # a probability never reaches 2
        assert done.level == 2.0 and not any(row.candidates for row in done.rows)
        assert facts(out, "a/one.png")["level"]["from"].startswith("reached by few of the normal")
        done = explain(model, [films], out=out, replace=True, map_key="positive_cam")
        assert done.level == -50.0 and all(row.candidates for row in done.rows)
        assert facts(out, "a/one.png")["map"]["of"] == "positive_cam"
    assert explain(made, [films], out=out, replace=True, stage=1).level is None


def test_a_map_that_the_stage_does_not_have(run: Path, films: Path, tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match="--map decoder: stage 2 has cam, positive_cam"):
        explain(run, [films], out=tmp_path / "out", stage=2, map_key="decoder")


def test_a_level_that_is_none(
    run: Path, films: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for text in ("high", "nan"):
        with pytest.raises(SystemExit):
            command(monkeypatch, capsys, "explain", run, films, "--level", text)
        assert f"'{text}' is not a level of a map" in capsys.readouterr().err


# The files


def test_files_of_a_folder(run: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = explain(run, [films], out=out, dicom_seg=True)
    assert isinstance(done, Explained) and done.skipped() == []
    names = ["a/one.png", "b/film", "b/one.png", "b/turned.jpg"]
    assert [row.film for row in done.rows] == names
    assert files(out) == of_films(*names) | {
        "explain.json",
        "index.html",
        "films.csv",
        "coco.json",
        "films/b/film.seg.dcm",
    }
    head = _load(out / "explain.json")
    assert head["films"] == 4 and head["skipped"] == 0 and head["threshold"]["tuned"]
    assert {"pcamx", "torch", "dali", "pydicom"} <= set(head["versions"])
    assert len(head["model"]["sha256"]) == 64
    found = facts(out, "b/film")
    assert found["kind"] == "DICOM" and len(found["dicom"]["SOPInstanceUID"]) > 10
    assert found["segmentation"] == "film.seg.dcm" and len(found["sha256"]) == 64
    assert (found["width"], found["height"]) == (40, 60)
    assert found["map"]["film_on_map"] == {"width": 21, "height": 32, "left": 5, "top": 0}
    row = table(out)["b/film"]
    assert float(row["probability"]) == pytest.approx(found["probability"]["abnormal"], abs=1e-4)
    first = found["candidates"][0]
    assert [float(row[k]) for k in ("left", "top", "width", "height")] == first["box"]
    assert first["score"] == pytest.approx(
        found["probability"]["abnormal"] * first["scaled_value"], rel=1e-12
    )
    raw = np.load(out / "films/b/film.npy")
    assert (found["map"]["low"], found["map"]["high"]) == (raw.min(), raw.max())
    with Image.open(out / row["picture"]) as picture:
        assert picture.height > 900


def test_the_page_of_a_folder(run: Path, films: Path, tmp_path: Path) -> None:
    """index.html says of each film what its json does, and lays the map over the film's part."""
    (films / "empty.png").write_bytes(b"")
    wide_HW = np.tile(np.linspace(0, 255, 1200, dtype=np.uint8), (900, 1))
    Image.fromarray(wide_HW).save(films / "b/wide.png")
    explain(run, [films], out=tmp_path / "out")
    text = (tmp_path / "out/index.html").read_text()
    (content,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    page = json.loads(content)
    # What was read, and not what is empty.
    names = ("a/one.png", "b/film", "b/one.png", "b/turned.jpg", "b/wide.png")
    assert page["paths"] == list(names)
    wide = "1200 x 900 pixels, shown with 1000 along the longer side"
    assert page["facts"]["size"] == [*[""] * 4, wide]
    (network,) = page["networks"]
    (decoder,) = network["maps"]
    for i, name in enumerate(page["paths"]):
        found = facts(tmp_path / "out", name)
        assert network["probability"][i] == found["probability"]["abnormal"]
        assert decoder["columns"]["candidates"][i] == len(found["candidates"])
        rings = page["candidates"][i]
        first = np.reshape(rings[0], (-1, 2)) * (found["width"], found["height"]) / page["scale"]
        step = max(found["width"], found["height"]) / page["scale"]
        assert first == pytest.approx(np.array(found["candidates"][0]["contour"]), abs=step + 0.005)
        raw = np.load(tmp_path / "out/films" / f"{name}.npy").astype(np.float64)
        scaled = (raw - raw.min()) / (raw.max() - raw.min())
        place = found["map"]["film_on_map"]
        rows = slice(place["top"], place["top"] + place["height"])
        part = scaled[rows, place["left"] : place["left"] + place["width"]]
        with Image.open(tmp_path / "out/page" / f"{name}.png") as strip:
            kept = np.asarray(strip)
        assert kept.shape == tuple(-(-side // 4) for side in part.shape)
        assert kept.mean() / 255 == pytest.approx(part.mean(), abs=0.01)


@pytest.mark.usefixtures("undrawn")
def test_a_turned_film_has_its_candidates_in_both_frames(
    run: Path, films: Path, tmp_path: Path
) -> None:
    explain(run, [films / "b/turned.jpg", films / "a/one.png"], out=tmp_path / "out")
    found = facts(tmp_path / "out", "b/turned.jpg")
    assert (found["width"], found["height"], found["exif_orientation"]) == (60, 40, 6)
    assert found["stored_size"] == [40, 60]
    for one in found["candidates"]:
        x, y, w, h = one["box"]
        assert one["as_stored"]["box"] == pytest.approx([y, 60 - x - w, h, w], abs=0.02)
    assert all("as_stored" not in one for one in facts(tmp_path / "out", "a/one.png")["candidates"])


@pytest.mark.usefixtures("undrawn")
def test_coco_is_read_by_pycocotools_and_by_prepare(run: Path, films: Path, tmp_path: Path) -> None:
    explain(run, [films], out=tmp_path / "out")
    coco = COCO(str(tmp_path / "out/coco.json"))
    results = coco.loadRes(list(coco.anns.values()))
    assert len(results.anns) == len(coco.anns) > 0
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in coco.imgs.values()}
    with pytest.raises(PcamxError, match="predictions of pcamx explain; marks are what a person"):
        read_marks(tmp_path / "out/coco.json", sizes)
    with pytest.raises(PcamxError, match="predictions of pcamx explain"):
        read_marks(tmp_path / "out/films", sizes)
    tree = _load(tmp_path / "out/coco.json")
    drawn = [{k: v for k, v in one.items() if k != "score"} for one in tree["annotations"]]
    (tmp_path / "drawn.json").write_text(json.dumps(tree | {"info": {}, "annotations": drawn}))
    masks = read_marks(tmp_path / "drawn.json", sizes).masks
    for image in coco.imgs.values():
        found = facts(tmp_path / "out", image["file_name"])
        theirs = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert [one["bbox"] for one in theirs] == [one["box"] for one in found["candidates"]]
        union = np.zeros((image["height"], image["width"]), bool)
        for one in theirs:
            union |= coco.annToMask(one).astype(bool)
        make = masks.get(image["file_name"])
        if theirs:
            assert make is not None
            assert (union != (make() > 0)).mean() < 0.1  # they differ along the edges


@pytest.mark.usefixtures("undrawn")
def test_segmentation_refers_to_the_film(run: Path, films: Path, tmp_path: Path) -> None:
    explain(run, [films / "b/film"], out=tmp_path / "out", dicom_seg=True)
    found = facts(tmp_path / "out", "film")
    read_back = highdicom.seg.segread(tmp_path / "out/films/film.seg.dcm")
    assert read_back.number_of_segments == len(found["candidates"])
    assert (read_back.Rows, read_back.Columns) == (60, 40)
    ((study, series, instance),) = read_back.get_source_image_uids()
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": instance}
    assert found["dicom"] == uids
    (labels,) = read_back.get_pixels_by_source_instance([instance], combine_segments=True)
    for number, one in enumerate(found["candidates"], 1):
        rows, columns = (labels == number).nonzero()
        x, y, w, h = one["box"]
        assert abs(columns.min() - x) <= 1 and abs(columns.max() + 1 - x - w) <= 1
        assert abs(rows.min() - y) <= 1 and abs(rows.max() + 1 - y - h) <= 1


@pytest.mark.usefixtures("undrawn")
def test_a_film_that_cannot_have_a_segmentation_is_told(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """It counts as explained."""
    bare = dicoms.dataset(dicoms.ramp(60, 40), PatientID=None, StudyInstanceUID=None)
    dicoms.save(bare, films / "b/bare.dcm")
    odd = dicoms.dataset(dicoms.ramp(60, 40), PatientSex="X")
    dicoms.save(odd, films / "b/odd.dcm")
    out = tmp_path / "out"
    code, said, error = command(
        monkeypatch, capsys, "explain", run, films, "--out", out, "--dicom-seg"
    )
    assert code == 2
    assert_one_line(error, "error: 2 of 6 films have no segmentation; the reasons are in")
    lacks = "no segmentation: the film lacks StudyInstanceUID, PatientID"
    assert f"\nb/bare.dcm: {lacks}\n" in f"\n{said}" and "skipped" not in said
    assert "b/odd.dcm: no segmentation: highdicom makes nothing of the film (" in said
    assert "6 films explained" in said
    head = _load(out / "explain.json")
    assert (head["films"], head["skipped"], head["without_segmentation"]) == (6, 0, 2)
    assert facts(out, "b/bare.dcm")["segmentation"] is None
    row = table(out)["b/bare.dcm"]
    assert row["probability"] and row["picture"] and row["skipped"] == lacks
    (films / "empty.png").write_bytes(b"")
    words = ("explain", run, films, "--out", out, "--dicom-seg", "--replace")
    code, said, error = command(monkeypatch, capsys, *words)
    assert_one_line(error, "1 of 7 films were skipped, 2 of 7 films have no segmentation; the")
    assert "6 films explained" in said


def test_every_attribute_that_a_segmentation_needs_is_known(films: Path, tmp_path: Path) -> None:
    """highdicom asks for no other: without any one of them it raises what nobody can read."""
    ring = np.array([[2.0, 2.0], [9.0, 2.0], [9.0, 9.0], [2.0, 2.0]])
    one = Candidate(1.0, (5.5, 4.5), (2, 2, 7, 7), 24.5, ring, ())
    full = dicoms.dataset(dicoms.ramp(60, 40))
    for name in [one.keyword for one in full if one.keyword not in ("Rows", "Columns")]:
        if name.startswith(("Pixel", "Bits")):
            continue
        film = dicoms.save(dicoms.dataset(dicoms.ramp(60, 40), **{name: None}), tmp_path / "film")
        if name in NEEDED:
            with pytest.raises(PcamxError, match=f"^the film lacks {name}$"):
                write_segmentation(film, [one], [0.5], tmp_path / "seg")
        else:
            write_segmentation(film, [one], [0.5], tmp_path / "seg")


# The picture


def test_the_film_is_drawn_in_true_grey() -> None:
    """Pixel by pixel on the left; on the right too where the map is zero."""
    image = np.random.default_rng(0).integers(0, 256, (300, 420), dtype=np.uint8)
    strength = np.zeros((300, 420), np.float32)
    strength[:, 210:] = 1
    picture = draw(
        Picture("a", "b", image, strength, "decoder", [], True, 0.5, "tuned", (0, 1), "notes")
    )
    with Image.open(BytesIO(picture)) as drawn:
        shown = np.asarray(drawn.convert("RGB")).astype(int)
    left = (max(2 * 420 + 72, 1040) - 2 * 420 - 24) // 2
    inner = np.s_[2:-2, 2:-2]  # a thin frame lies on the edge
    film = shown[104 : 104 + 300, left : left + 420]
    assert all(np.array_equal(film[..., c][inner], image[inner]) for c in range(3))
    overlaid = shown[104 : 104 + 300, left + 444 : left + 444 + 420]
    bare = np.s_[2:-2, 2:208]
    assert all(np.array_equal(overlaid[..., c][bare], image[bare]) for c in range(3))
    assert (np.ptp(overlaid[10:-10, 220:-10], axis=-1) > 30).all()


def test_the_title_of_a_long_path_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    write = Figure.text

    def listen(figure: Figure, x: float, y: float, text: str, **style: Any) -> Any:
        said.append(text)
        return write(figure, x, y, text, **style)

    monkeypatch.setattr(Figure, "text", listen)
    blank_HW = np.zeros((60, 40), np.uint8)
    names = ["a/one film\n.png", f"{'folder/' * 30}image1.png"]
    for name in names:
        strength_HW = blank_HW.astype(np.float32)
        draw(Picture(name, "", blank_HW, strength_HW, "map", [], True, 0.5, "tuned", (0, 1), ""))
    assert said[0] == "a/one film?.png"
    (title,) = [text for text in said if text.endswith("image1.png")]
    assert title == f"...{names[1][-90:]}" and len(title) == (1040 - 48) // 10.6


@pytest.mark.usefixtures("undrawn")
def test_a_flat_map_has_no_candidate(run: Path, films: Path, tmp_path: Path) -> None:
    (film,) = find_films([films / "a/one.png"])
    reading = read(film)
    assert not isinstance(reading, str)
    flat = Job(reading, 0.7, np.full((32, 32), 0.3, np.float32), np.ones((32, 32)))
    about = {"model": {"stage": 3, "folder": "r", "sha256": "0"}, "versions": {"pcamx": "0"}}
    row = finish(tmp_path, Settings("decoder", 0.5, True, None, "unknown", False, about), flat)
    found = json.loads((tmp_path / "films/one.png.json").read_text())
    assert row.candidates == () and found["candidates"] == [] and found["map"]["flat"]


# Which films


def test_names_do_not_clash(films: Path) -> None:
    one, other = films / "a/one.png", films / "b/one.png"
    found = find_films([one, other, one, films / "b"])
    names = {film.name for film in found}
    assert names == {"a/one.png", "b/one.png", "b/film", "b/turned.jpg"} and len(found) == 4
    assert [film.name for film in find_films([one])] == ["one.png"]
    assert [film.name for film in find_films([Path(os.path.relpath(one))])] == ["one.png"]


def test_results_do_not_clash(films: Path) -> None:
    """x.png is what the picture of x is called, and x.small.jpg a picture of both x and x.small."""
    names = ("x", "x.png/y.png", "z", "z.small", "x.jpg", "z.png")
    found = {film.name: film.refusal for film in find_films([films / name for name in names])}
    assert list(found) == list(names)
    told = "its results would be called as those of {}; rename it or explain it alone"
    assert {name: why for name, why in found.items() if why} == {
        "x": told.format("x.png/y.png"),
        "z.small": told.format("z"),
    }


def test_links_that_leave_the_folder(films: Path, tmp_path: Path) -> None:
    shutil.copy(films / "a/one.png", tmp_path / "outside.png")
    (films / "a/link.png").symlink_to(tmp_path / "outside.png")
    (films / "a/inner.png").symlink_to(films / "b/one.png")
    found = {film.name: film.refusal for film in find_films([films])}
    assert "leaves" in found["a/link.png"] and found["a/inner.png"] == ""
    assert find_films([films / "a/link.png"])[0].refusal == ""  # asked for by name


def test_films_stay_in_the_order_in_which_they_were_given(films: Path) -> None:
    late, turned = films / "b/one.png", films / "b/turned.jpg"
    found = find_films([late, films, turned])
    names = ["b/one.png", "a/one.png", "b/film", "b/turned.jpg"]
    assert [film.name for film in found] == names
    names = ["b/turned.jpg", "b/film", "b/one.png", "a/one.png"]
    assert [film.name for film in find_films([turned, films / "b", films])] == names


def test_linked_folders_are_told_and_not_walked_into(films: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    shutil.copy(films / "a/one.png", tmp_path / "outside")
    (films / "a/far").symlink_to(tmp_path / "outside")
    (films / "round").symlink_to(films)
    refused = {film.name: film.refusal for film in find_films([films]) if film.refusal}
    told = "a link to a folder, which is not followed; name the folder itself"
    assert refused == {"a/far": told, "round": told}
    found = {film.name: film.refusal for film in find_films([films / "a/far", films])}
    assert found.pop("round") == told and "a/far/one.png" in found and not any(found.values())


def test_odd_things_in_a_folder(films: Path) -> None:
    os.mkfifo(films / "pipe")
    os.mkfifo(films / "pipe.png")
    (films / "loop.png").symlink_to(films / "loop.png")
    (films / os.fsdecode(b"\xff.png")).write_bytes(b"")
    found = {film.name: film for film in find_films([films])}
    assert "pipe" not in found
    assert found["\\udcff.png"].refusal == "its name is not UTF-8; rename it"
    for name, reason in (("pipe.png", "not a file"), ("loop.png", "cannot be read: ")):
        assert str(read(found[name])).startswith(reason)


# Bad input


@pytest.mark.usefixtures("undrawn")
def test_bad_films_are_skipped_and_told(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (films / "empty.png").write_bytes(b"")
    (films / "text.dcm").write_text("not a film at all")
    (films / "cut.png").write_bytes((films / "b/one.png").read_bytes()[:-700])
    Image.new("L", (3, 3)).save(films / "small.png")
    dicoms.save(dicoms.dataset(dicoms.ramp(), PixelData=None), films / "report.dcm")
    (films / "far.png").symlink_to("/etc/hostname")
    code, out, error = command(
        monkeypatch, capsys, "explain", run, films, films / "gone.png", "--out", tmp_path / "out"
    )
    assert code == 2
    assert_one_line(error, "7 of 11 films were skipped", f"{tmp_path}/out/films.csv")
    rows = table(tmp_path / "out")
    reasons = {name: row["skipped"] for name, row in rows.items() if row["skipped"]}
    assert reasons.pop("cut.png")
    assert reasons == {
        "empty.png": "empty",
        "text.dcm": "not an image, or one with a damaged header",
        "small.png": "smaller than 8 pixels a side",
        "report.dcm": "a DICOM without pixels, or cut short (modality CR)",
        "far.png": f"a link that leaves {films}; name the film itself",
        "gone.png": "missing",
    }
    assert "skipped gone.png: missing" in out and "4 films explained" in out
    assert sum(bool(row["picture"]) for row in rows.values()) == 4
    assert len(_load(tmp_path / "out/coco.json")["images"]) == 4


@pytest.mark.usefixtures("undrawn")
def test_a_film_of_a_name_too_long_is_skipped_alone(run: Path, films: Path, tmp_path: Path) -> None:
    """255 bytes are a legal name; its files end in up to ten more."""
    endings = {250: ".png", 246: ".dcm", 245: ".jpg"}
    for length, suffix in endings.items():
        shutil.copy(films / "a/one.png", films / ("n" * (length - 4) + suffix))
    done = explain(run, [films], out=tmp_path / "out")
    reasons = {len(row.film): row.reason for row in done.skipped()}
    told = "its name is too long to end in .small.jpg, too; shorten it"
    assert reasons == {250: told, 246: told}
    written = [name for name in files(tmp_path / "out") if "nnn" in name]
    assert {Path(name).name[:245] for name in written} == {"n" * 241 + ".jpg"}
    with pytest.raises(PcamxError, match="no film could be read; .*: its name is too long"):
        explain(run, [next(films.glob("*.png"))], out=tmp_path / "none")


def test_a_refusal_of_the_disk_names_no_draft(tmp_path: Path) -> None:
    with (
        pytest.raises(PcamxError, match=f"^{tmp_path}/out/x: Is a directory; nothing was written"),
        replacing_folder(tmp_path / "out", lambda folder: None) as draft,
    ):
        (draft / "x").mkdir()
        (draft / "x").write_text("")


@pytest.mark.parametrize("workers", [None, 1])
def test_folders_whose_names_are_not_utf_8(
    run: Path,
    films: Path,
    tmp_path: Path,
    workers: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the films, the run and the results; the films are explained as any."""
    odd = [tmp_path / os.fsdecode(name) for name in (b"nd\xff", b"run\xfe", b"out\xfd")]
    shutil.copytree(films, odd[0])
    shutil.copytree(run, odd[1])
    (odd[0] / "far.png").symlink_to("/etc/hostname")
    monkeypatch.setattr("sys.argv", ["pcamx", "explain", *map(str, odd)])
    monkeypatch.setattr("pcamx.explain.folder.answer", failing_on("turned.jpg"))
    done = explain(odd[1], [odd[0]], out=odd[2], workers=workers)
    reasons = {row.film: row.reason for row in done.skipped()}
    told = f"{tmp_path}/nd\\udcff"
    assert reasons == {
        "far.png": f"a link that leaves {told}; name the film itself",
        "b/turned.jpg": f"{told}/b/turned.jpg: gone",
    }
    assert facts(odd[2], "a/one.png")["film"] == f"{told}/a/one.png"
    head = _load(odd[2] / "explain.json")
    assert head["model"]["folder"] == f"{tmp_path}/run\\udcfe" and told in head["command"]


def failing_on(name: str) -> Any:
    """The network's answer, that finds a film of this name gone."""

    def answer_or_fail(model: Any, readings: Any, kind: Any) -> Any:
        for reading in readings:
            if reading.path.name == name:
                raise PcamxError(f"{reading.path}: gone")
        return answer(model, readings, kind)

    return answer_or_fail


@pytest.mark.usefixtures("undrawn")
def test_no_name_is_obeyed_by_the_terminal(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (films / "red\x1b[31m\nbell\x07.png").write_bytes(b"")
    code, out, error = command(
        monkeypatch, capsys, "explain", run, films, "--out", tmp_path / "o\x1b[2J"
    )
    assert code == 2 and "skipped red?[31m?bell?.png: empty\n" in out
    assert_one_line(error, "1 of 5 films were skipped", f"{tmp_path}/o?[2J/films.csv")
    assert not {"\x1b", "\x07"} & set(out + error)
    with pytest.raises(PcamxError, match=r"red\?\[31m\?bell\?.png: empty"):
        explain(run, [next(films.glob("red*"))], out=tmp_path / "none")


def command(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: object) -> tuple[int, str, str]:
    from pcamx import cli

    monkeypatch.setattr("sys.argv", ["pcamx", *map(str, words)])
    code = cli.main()
    return (code, *capsys.readouterr())


def test_a_film_that_dali_refuses_after_all(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was whole when it was read; the others of its batch are explained."""

    def damaged_then(film: Any) -> Any:
        reading = read(film)
        if film.name == "b/one.png":
            film.path.write_bytes(b"gone bad")
        return reading

    monkeypatch.setattr("pcamx.explain.folder.read", damaged_then)
    (row,) = explain(run, [films], out=tmp_path / "out").skipped()
    assert row.film == "b/one.png" and "cannot be decoded" in row.reason


@pytest.mark.usefixtures("undrawn")
def test_no_film_at_all(run: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    explain(run, [films / "a"], out=out)
    before = {name: (out / name).read_bytes() for name in files(out)}
    (tmp_path / "empty").mkdir()
    with pytest.raises(PcamxError, match=r"empty: no film in it; films are \.png"):
        explain(run, [tmp_path / "empty"], out=out, replace=True)
    with pytest.raises(PcamxError, match=r"no film could be read; .*gone.png: missing \(and 1 mor"):
        explain(run, [tmp_path / "gone.png", tmp_path / "nowhere"], out=out, replace=True)
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.usefixtures("undrawn")
def test_a_second_run_replaces_the_first_when_told(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out"
    explain(run, [films], out=out)
    before = {name: (out / name).read_bytes() for name in files(out)}
    words = ("explain", run, films / "a/one.png", "--out", out)
    code, _, error = command(monkeypatch, capsys, *words)
    assert code == 2
    assert_one_line(error, f"{out} holds an earlier explanation; choose another --out, or add --re")
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert command(monkeypatch, capsys, *words, "--replace")[0] == 0
    summary = {"explain.json", "films.csv", "coco.json", "index.html"}
    assert files(out) == of_films("one.png") | summary


@pytest.mark.usefixtures("undrawn")
def test_where_results_may_not_go(run: Path, films: Path, tmp_path: Path) -> None:
    for out in (films, films / "a/explain"):
        with pytest.raises(PcamxError, match="lies among the films in"):
            explain(run, [films], out=out)
    with pytest.raises(PcamxError, match="would replace the folder that holds"):
        explain(run, [films / "a/one.png"], out=films)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(PcamxError, match=r"not of pcamx explain \(it holds thesis.txt\); choose"):
        explain(run, [films], out=tmp_path / "mine")
    for out in (tmp_path / "mine/thesis.txt", tmp_path / "mine/thesis.txt/deeper"):
        with pytest.raises(PcamxError, match="thesis.txt"):
            explain(run, [films], out=out)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_no_model(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "nothing").mkdir()
    code, _, error = command(monkeypatch, capsys, "explain", tmp_path / "nothing", films)
    assert code == 2
    assert_one_line(error, f"{tmp_path}/nothing: no model in it")
    assert files(tmp_path / "nothing") == set()


def test_a_network_that_answers_nan(films: Path, tmp_path: Path, write_config: Any) -> None:

    made = random_runs.random_run(tmp_path / "run", write_config(tmp_path), stages=(1,))
    weights = load_weights(made / "stage1/weights.pt")
    weights.state["head.weight"].fill_(3.0e38)  # finite, and both logits are infinite
    save_weights(made / "stage1/weights.pt", weights)
    with pytest.raises(PcamxError, match="answers NaN; train it again"):
        explain(made, [films], out=tmp_path / "out")


@pytest.mark.parametrize("workers", [None, 1])
def test_ctrl_c_leaves_nothing(run: Path, films: Path, tmp_path: Path, workers: int | None) -> None:
    def stop_after_one(rows: Any, what: str, total: int) -> Iterator[Any]:
        yield next(rows)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(run, [films], out=tmp_path / "out", workers=workers, track=stop_after_one)
    assert {p.name for p in tmp_path.iterdir()} == {"films"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_leaves_nothing_for_long(
    run: Path, films: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGTERM clears up; after SIGKILL the next run does, and no process stays."""
    for n in range(30):
        shutil.copy(films / "a/one.png", films / f"{n}.png")
    words = [sys.executable, "-m", "pcamx", "explain", run, films, "--out", tmp_path / "out"]
    with subprocess.Popen(
        list(map(str, words)),
        cwd=processes.PROJECT,
        env=processes.environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        assert started.stderr is not None
        first = started.stderr.readline()
        assert "explaining films" in first
        assert len(list(tmp_path.glob(".out.*.draft"))) == 1
        os.kill(started.pid, number)
        rest = started.stderr.read()
    left = list(tmp_path.glob(".out.*"))
    if number == signal.SIGTERM:
        assert started.returncode == 130 and left == []
        assert rest.endswith("pcamx: stopped; nothing was written\n")
    else:
        assert started.returncode == -number and len(left) == 1
        explain(run, [films / "a/one.png"], out=tmp_path / "out")
        assert list(tmp_path.glob(".out.*")) == [] and (tmp_path / "out/films.csv").is_file()


def test_a_process_ends_with_its_parent() -> None:
    """The pipe is closed by the last of them; a process that stayed would hold it open."""
    code = (
        "import os, time; from concurrent.futures import ProcessPoolExecutor as P; "
        "import multiprocessing as m; from pcamx.processes import begin\n"
        "if __name__ == '__main__':\n"
        " pool = P(1, m.get_context('spawn'), initializer=begin)\n"
        " pool.submit(os.getpid).result(); os.kill(os.getpid(), 9)\n"
    )
    ended = processes.command(sys.executable, "-c", code, cwd=processes.PROJECT)
    assert ended.code == -signal.SIGKILL


def test_a_process_that_dies(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcamx.explain.workers._begin", _die)
    with pytest.raises(PcamxError, match="a reading or drawing process died"):
        explain(run, [films], out=tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def _die() -> None:
    os._exit(1)


# Memory


def test_memory_is_flat_over_a_folder(run: Path, tmp_path: Path) -> None:
    """Of films of many sizes, in the process that reads and draws and in this one."""
    rng = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    for number, (height, width) in enumerate(rng.integers(300, 1800, (32, 2))):
        grey_HW = np.arange(height * width, dtype=np.uint32).reshape(height, width) >> 8
        Image.fromarray(grey_HW.astype(np.uint8)).save(tmp_path / f"films/{number}.png")
    used: list[tuple[int, int]] = []

    def watch(rows: Any, what: str, total: int) -> Iterator[Any]:
        for row in rows:
            (worker,) = multiprocessing.active_children()
            used.append((resident(os.getpid()), resident(worker.pid)))
            yield row

    explain(run, [tmp_path / "films"], out=tmp_path / "out", workers=1, track=watch)
    # The median: a film that is being drawn when the process is looked at takes 100 MB and more.
    growth = np.median(used[16:], axis=0) - used[0]
    assert (growth < 45e6).all(), used  # figures that are kept: 70 MB and more


def resident(process: int | None) -> int:
    """Bytes that a process has in memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_figure_goes_when_it_is_drawn() -> None:
    """Matplotlib's figures refer to themselves, and wait for the garbage collector."""
    blank_HW = np.zeros((60, 40), np.uint8)
    strength_HW = blank_HW.astype(np.float32)
    gc.collect()  # those of other tests
    gc.disable()
    try:
        draw(
            Picture("a", "b", blank_HW, strength_HW, "decoder", [], True, 0.5, "tuned", (0, 1), "")
        )
        assert not [one for one in gc.get_objects() if type(one) is Figure]
    finally:
        gc.enable()


def test_reading_and_drawing_processes_do_without_torch() -> None:
    """Each is a new Python: torch would cost it seconds and hundreds of megabytes."""
    code = (
        "import pickle, sys; from pcamx.explain import read_film, results, workers; "
        "pickle.dumps((read_film.read, results.finish, workers._begin)); "
        "print({'torch', 'nvidia.dali', 'pcamx.run.pretrained'} & set(sys.modules))"
    )
    ended = processes.command(sys.executable, "-c", code, cwd=processes.PROJECT)
    assert ended.text.strip() == "set()"


def test_only_so_many_films_are_under_way() -> None:
    begun, done = [], []

    def items() -> Iterator[int]:
        for number in range(100):
            begun.append(number)
            yield number

    for result in ahead(Here(), lambda n: n * n, items(), depth=5):
        done.append(result)
        assert len(begun) - len(done) <= 5
    assert done == [n * n for n in range(100)]


def test_pixels_of_a_large_film_stay_in_the_reading_process(films: Path) -> None:
    """Whatever its size, what is sent on of a film is bounded; a DICOM's pixels go to DALI only."""
    Image.new("L", (6000, 4000), 90).save(films / "large.png")
    (film,) = find_films([films / "large.png"])
    reading = read(film)
    assert not isinstance(reading, str) and reading.grey_HW is None
    assert reading.shown_HW.shape == (667, 1000) and (reading.width, reading.height) == (6000, 4000)
