"""`pcamx marks check` and `pcamx marks suggest`: figures by hand, and what a person sees."""

import csv
import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image

from pcamx import cli
from pcamx import config as configs
from pcamx.data.canvas.decode import decode_batches
from pcamx.data.store import Film, Store, read_store, write_store
from pcamx.errors import PcamxError
from pcamx.marking.check import check, choose
from pcamx.marking.suggest import in_turn, suggest
from pcamx.marking.wrong_attention import Signs, apart, measure, rival
from pcamx.model.network import Network
from pcamx.report.figures.contact_sheet import draw_sheet
from pcamx.report.figures.film_figure import Panel
from pcamx.run.folder import RunFolder
from pcamx.run.pretrained import from_pretrained
from pcamx.run.weights import Weights, load_weights, save_weights


@pytest.fixture
def pcamx(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """``pcamx(words...)``: the command in this process; its code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pcamx", *map(str, words)])
        code = cli.main()
        return code, *capsys.readouterr()

    return run


# check


def film(path: str, label: int = 1, part: str = "hand", split: str = "train") -> Film:
    return Film(path, label, path, path, part, split, 40, 20, 255, "")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five films of 40 x 20 and one in the quarantine; t.jpg is stored upside down."""
    films = [
        film("a.png"),
        film("b.png", split="valid"),
        film("n.png", label=0),
        film("t.jpg", part="elbow"),
        film("u.png", part="elbow"),
    ]
    (tmp_path / "films").mkdir()
    grey = np.tile(np.arange(0, 240, 6, dtype=np.uint8), (20, 1))
    for one in films:
        exif = Image.Exif()
        exif[274] = 3 if one.path == "t.jpg" else 1
        Image.fromarray(grey).save(tmp_path / "films" / one.path, exif=exif)
    (tmp_path / "store").mkdir()
    bad = [("q.png", "empty")]
    write_store(tmp_path / "store", tmp_path / "films", films, mean=100, std=50, quarantine=bad)
    return tmp_path / "store"


BOXES = [
    ("a.png", [4, 2, 8, 5], 1),  # 40 of 800 pixels
    ("a.png", [20, 2, 8, 5], 2),
    ("b.png", [36, 2, 8, 5], 1),  # half of it outside
    ("n.png", [4, 2, 8, 5], 1),
    ("t.jpg", [4, 2, 8, 5], 1),
    ("q.png", [4, 2, 8, 5], 1),
    ("z.png", [4, 2, 8, 5], 1),
    ("u.png", [50, 2, 8, 5], 1),
]


def coco(file: Path, boxes: Sequence[tuple[str, list[int], int]] = BOXES) -> Path:
    names = list(dict.fromkeys(name for name, _, _ in boxes))
    images = [{"id": k, "file_name": n, "width": 40, "height": 20} for k, n in enumerate(names)]
    marks = [
        {"id": k, "image_id": names.index(name), "bbox": box, "category_id": label}
        for k, (name, box, label) in enumerate(boxes)
    ]
    labels = [{"id": 1, "name": "fracture"}, {"id": 2, "name": "cyst"}]
    file.write_text(json.dumps({"images": images, "annotations": marks, "categories": labels}))
    return file


def test_check_by_hand(store: Path, tmp_path: Path) -> None:
    both = ("fracture", "cyst")
    found = check(coco(tmp_path / "marks.json"), store, tmp_path / "sheet.png", labels=both)
    assert [one.path for one in found.usable] == ["a.png", "b.png", "t.jpg"]
    assert found.share == {"a.png": 0.1, "b.png": 0.025, "n.png": 0.05, "t.jpg": 0.05}
    assert [(p.name, p.films, p.abnormal, p.marked, p.marks) for p in found.parts] == [
        ("elbow", 2, 2, 1, 1),
        ("hand", 3, 2, 2, 3),
    ]
    assert found.splits == {"train": 2, "valid": 1}
    assert found.labels == {"fracture": 4, "cyst": 1}
    assert (found.normal, found.empty, found.quarantined) == (("n.png",), (), ("q.png",))
    assert found.turned == ("t.jpg",)
    assert [problem.kind for problem in found.marks.problems] == ["unknown", "cut", "outside"]
    assert found.shown == 4
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000


def test_what_a_person_sees(pcamx: Any, store: Path, tmp_path: Path) -> None:
    marks, sheet = coco(tmp_path / "marks.json"), tmp_path / "sheet.png"
    words = ("--data", store, "--out", sheet, "--labels", "fracture,cyst")
    code, out, err = pcamx("marks", "check", marks, *words)
    assert code == 0 and "Traceback" not in err and sheet.is_file()
    for line in (
        "COCO: 5 boxes on 4 films",
        "labels: cyst 1, fracture 4; images without a mark: 0",
        "marked share of a film: median 5.00%, largest 10.0% (a.png)",
        "usable: 3 abnormal films (train 2, valid 1)",
        "elbow      2         2       1      1",
        "1 images that are not films of this data set, not used\n    z.png",
        "1 marks outside the film, not used",
        "1 marks partly outside the film, cut at its border",
        "1 films labelled normal, their marks not used\n    n.png",
        "1 films in the quarantine, their marks not used\n    q.png",
        "1 films turned by EXIF; look whether their marks are turned too\n    t.jpg",
        f"{sheet} shows 4 of them; look at it",
    ):
        assert line in out, line


@pytest.mark.parametrize(
    ("boxes", "words", "message"),
    [
        ([("z.png", [4, 2, 8, 5], 1)], [], "no mark can be used; images that are not films"),
        ([("n.png", [4, 2, 8, 5], 1)], [], "no mark lies on an abnormal film"),
        ([("q.png", [4, 2, 8, 5], 1)], [], "no mark lies on an abnormal film"),
        (BOXES, ["--out", "sheet.jpg"], "--out sheet.jpg: name a .png file"),
        (BOXES, ["--out", "no/sheet.png"], "--out no/sheet.png: its folder is not there"),
        (BOXES, ["--data", "nowhere"], "nowhere: no such folder; make one with"),
    ],
)
def test_check_refuses(
    pcamx: Any,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    boxes: Any,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    marks = coco(tmp_path / "marks.json", boxes)
    code, _, err = pcamx("marks", "check", marks, "--data", store, *words)
    assert code == 2 and "Traceback" not in err
    (line,) = (line for line in err.splitlines() if line.startswith("pcamx: error:"))
    assert message in line


def test_the_films_to_look_at_come_first_and_the_rest_evenly() -> None:
    films = [film(f"{part}{k:02}.png", part=part) for part in ("x", "y") for k in range(20)]
    chosen = [one.path for one in choose(films, {"y07.png"}, 9)]
    assert chosen[0] == "y07.png" and len(chosen) == len(set(chosen)) == 9
    assert sum(path.startswith("x") for path in chosen) == 5
    assert choose(films[:3], set(), 9) == films[:3]


def test_true_grey_on_the_sheet() -> None:
    grey = np.tile(np.arange(64, dtype=np.uint8), (64, 1))  # dark: must not be stretched
    lesion = np.zeros((64, 64), np.uint8)
    lesion[20:30, 20:30] = 1
    figure = draw_sheet([Panel("p" * 60, "hand", grey, {}, lesion)], "one $film$")
    (axis,) = figure.axes
    (image,) = axis.images
    assert image.get_clim() == (0, 255) and np.array_equal(image.get_array(), grey)  # type: ignore[arg-type]
    assert len(axis.lines) == 2  # the outline and its rim
    assert axis.get_title(loc="left").startswith("...ppp")
    with pytest.raises(PcamxError, match="no films"):
        draw_sheet([], "")


# suggest


def test_the_score_by_hand() -> None:
    assert Signs(1.0, 0.0, 0.0, 0.0).score() == 0
    assert Signs(0.8, 0.3, 0.6, None).score() == pytest.approx(0.45)
    assert Signs(0.1, 0.3, 0.6, 0.9).score() == pytest.approx(0.6)
    assert Signs(0.4, 0.0, 0.0, None).reason() == "called normal"
    assert Signs(0.7, 0.91, 0.5, 0.6).reason() == (
        "map and decoder peak apart; mirrored, the map peaks elsewhere; a second peak of 91%"
    )
    assert Signs(0.99, 0.2, 0.1, 0.4).reason() == "nothing stands out"


def test_a_rival_far_from_the_peak_by_hand() -> None:
    map_BHW = torch.zeros(3, 12, 12)  # the last is flat
    map_BHW[0, 2, 2], map_BHW[0, 2, 3] = 1.0, 0.9  # nearer than 12 / 6: no rival
    map_BHW[1, 2, 2], map_BHW[1, 2, 4] = 1.0, 0.9
    mean = map_BHW.mean((1, 2)).tolist()
    expected = [-mean[0] / (1 - mean[0]), (0.9 - mean[1]) / (1 - mean[1]), 1.0]
    assert rival(map_BHW).tolist() == pytest.approx([max(0, expected[0]), *expected[1:]])


def test_peaks_apart_by_hand() -> None:
    one, other = torch.zeros(3, 16, 16), torch.zeros(3, 16, 16)
    one[:, 5, 5] = 1.0
    other[0, 5, 5], other[1, 5, 7], other[2, 5, 15] = 1.0, 1.0, 1.0
    assert apart(one, other).tolist() == [0.0, 0.5, 1.0]  # 4 of 16 pixels are far


def test_parts_take_turns_and_ties_go_by_path() -> None:
    parts = {"b": "hand", "a": "hand", "c": "hand", "d": "wrist", "e": "wrist"}
    films = [film(path, part=part) for path, part in parts.items()]
    order = in_turn(films, [0.9, 0.9, 0.95, 0.2, 0.3])
    assert [films[i].path for i in order] == ["c", "e", "a", "d", "b"]


@pytest.fixture(scope="module")
def unmarked(store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn films' store with two marks left."""
    folder = Path(shutil.copytree(store_folder, tmp_path_factory.mktemp("few") / "store"))
    kept: list[str] = []

    def few(row: stores.Row) -> stores.Row:
        if row["mark"] and row["split"] == "train" and len(kept) < 2:
            kept.append(row["path"])
            return row
        return row | {"mark": ""}

    stores.change(folder, few)
    return folder


@pytest.fixture(scope="module")
def run(unmarked: Path, write_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a finished stage 1 whose weights were drawn, not trained."""
    folder = tmp_path_factory.mktemp("run")
    write_config(folder, {"data.store": str(unmarked)}).rename(folder / "config.yaml")
    torch.manual_seed(0)
    network = Network(configs.load(folder / "config.yaml"), decoder=False)
    (folder / "stage1").mkdir()
    facts: dict[str, Any] = {"accuracy": 0.5, "seconds": 1.0, "epochs": 1, "world": 1}
    weights = Weights(
        stage=1,
        encoder="bottleneck",
        canvas=32,
        device="cpu",
        state={k: v.clone() for k, v in network.state_dict().items()},
        **facts,
    )
    save_weights(folder / "stage1" / "weights.pt", weights)
    return folder


def _candidates(store: Store) -> list[Film]:
    return [f for f in store.split("train") if f.label == 1 and not f.mark]


@torch.no_grad()
def test_signs_by_hand(run: Path, unmarked: Path) -> None:
    """Both passes and the map again, without the project's maps."""
    store = read_store(unmarked)
    films = _candidates(store)
    model = from_pretrained(run)
    found = measure(model, store, films)
    assert len(found) == len(films) > 5
    network, head = model.network, model.network.head
    (canvas_B1HW,) = decode_batches(
        store.root, films, [range(len(films))], 32, device=torch.device("cpu"), threads=1
    )
    for k, signs in enumerate(found):
        canvas_HW = canvas_B1HW[k, 0].double()
        image = ((canvas_HW - store.mean) / store.std).float()[None, None]
        features = network.encoder(image)[-1]
        normal, abnormal = (features.mean((2, 3)) @ head.weight.T + head.bias)[0].tolist()
        assert signs.probability == pytest.approx(1 / (1 + math.exp(normal - abnormal)), abs=1e-5)

        def peak(features: torch.Tensor) -> torch.Tensor:
            cam = (features[0] * head.weight[1].clamp(min=0)[:, None, None]).sum(0)
            cam = F.interpolate(cam[None, None], (32, 32), mode="bilinear", align_corners=False)
            top = cam[0, 0] >= cam.max() - 1e-5 * (cam.max() - cam.min())  # an edge may tie
            return top.nonzero().double().mean(0)

        row, column = peak(features).tolist()
        turned, mirrored = peak(network.encoder(image.flip(-1))[-1]).tolist()
        far = math.hypot(row - turned, column - (31 - mirrored)) / 8
        assert signs.unsteady == pytest.approx(min(1.0, far))
        assert signs.disagreement is None
        assert 0 <= signs.rival <= 1


@torch.no_grad()
def test_a_decoder_that_peaks_elsewhere(
    run: Path, unmarked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disagreement is the distance to the decoder's peak, wherever that is."""
    store = read_store(unmarked)
    films = _candidates(store)[:3]
    map_1HW = torch.zeros(1, 32, 32)
    map_1HW[0, 30, 3] = 1.0

    def answers(_: Any, canvas_B1HW: torch.Tensor) -> Any:
        count = len(canvas_B1HW)
        decoder_1HW = map_1HW.roll(-4, 1)  # 4 of 8 pixels up
        maps = {"positive_cam": map_1HW, "decoder": decoder_1HW}
        return torch.full((count,), 0.9), {k: m.expand(count, 32, 32) for k, m in maps.items()}

    monkeypatch.setattr("pcamx.run.pretrained.Pretrained.explain", answers)
    monkeypatch.setattr(
        "pcamx.marking.wrong_attention.explain_once", lambda _, image, __: answers(_, image)
    )
    for signs in measure(from_pretrained(run), store, films):
        assert signs.disagreement == 0.5
        assert signs.unsteady == 1.0  # the answer ignores the film, so it is mirrored back: 25 px


def test_suggest_by_file(run: Path, unmarked: Path, tmp_path: Path) -> None:
    found = suggest(run, 7, tmp_path / "list.csv")
    rows = list(csv.DictReader((tmp_path / "list.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["path", "part", "probability", "score", "reason"]
    assert [row["path"] for row in rows] == [one.film.path for one in found]
    assert len(rows) == len({row["path"] for row in rows}) == 7
    films = {one.path: one for one in _candidates(read_store(unmarked))}
    for row, one in zip(rows, found, strict=True):
        assert films[row["path"]].part == row["part"]
        assert float(row["score"]) == pytest.approx(one.signs.score(), abs=1e-4)
        assert row["reason"]
    parts = [row["part"] for row in rows]
    assert len(set(parts)) == len(parts) or len(set(parts)) == len({f.part for f in films.values()})
    with Image.open(tmp_path / "list.png") as sheet:
        assert sheet.width > 1000
    before = (tmp_path / "list.csv").read_bytes()
    suggest(run, 7, tmp_path / "list.csv")
    assert (tmp_path / "list.csv").read_bytes() == before


def test_a_store_that_was_prepared_anew(
    run: Path, unmarked: Path, tmp_path: Path, pcamx: Any
) -> None:
    """As with the marks that came back: it is asked for those that are still missing."""
    store = Path(shutil.copytree(unmarked, tmp_path / "store"))
    ours = RunFolder(Path(shutil.copytree(run, tmp_path / "run")))
    config = configs.changed(ours.read_config(), {"data.store": str(store)})
    ours.config_file.write_text(configs.dump(config))
    weights = dataclasses.replace(load_weights(ours.weights(1)), mean=50.0, std=50.0)
    save_weights(ours.weights(1), weights)
    ours.write_origin(store)
    code, _, err = pcamx("marks", "suggest", ours.path, "--count", 2)
    assert code == 0 and "prepared anew" not in err
    first = _candidates(read_store(store))[0]

    def other(row: stores.Row) -> stores.Row:
        return row | {"label": "0"} if row["study"] == first.study else row

    stores.change(store, other)
    code, out, err = pcamx("marks", "suggest", ours.path, "--count", 10_000)
    assert code == 0 and f"{store} was prepared anew since {ours.path} began; its films are" in err
    assert f"{len(_candidates(read_store(store)))} films, not 10000" in out
    assert first.path not in ours.to_mark_file.read_text()


def test_more_than_there_are(run: Path, unmarked: Path, pcamx: Any) -> None:
    code, out, _ = pcamx("marks", "suggest", run, "--count", 10_000)
    assert code == 0 and f"{run / 'to_mark.csv'} lists them" in out
    rows = (run / "to_mark.csv").read_text().splitlines()
    count = len(_candidates(read_store(unmarked)))
    assert len(rows) - 1 == count and f"{count} films, not 10000: no other abnormal" in out


def test_suggest_refuses(run: Path, store_folder: Path, tmp_path: Path, pcamx: Any) -> None:
    def refused(message: str, *words: object) -> None:
        code, _, err = pcamx("marks", "suggest", *words)
        assert code == 2 and err.startswith("pcamx: error:") and err.count("\n") == 1, err
        assert message in err

    refused("no such folder", tmp_path / "none")
    refused("--count 0: ask for 1 film", run, "--count", 0)
    refused("every abnormal training film has a mark already", run, "--data", store_folder)
    refused("name a .csv file", run, "--out", tmp_path)
    refused("its folder is not there", run, "--out", tmp_path / "no" / "list.csv")


def test_nothing_of_somebody_else_s_is_written_over(
    run: Path, unmarked: Path, tmp_path: Path, pcamx: Any
) -> None:
    """The list and its sheet, and their like of an earlier run alone, make way."""
    out = tmp_path / "to_mark.csv"
    for _ in range(2):
        assert pcamx("marks", "suggest", run, "--data", unmarked, "--out", out)[0] == 0
    mine = tmp_path / "mine.csv"
    mine.write_text("path,label\na.png,1\n")
    Image.new("L", (9, 9)).save(tmp_path / "film.png")
    words = ("marks", "suggest", run, "--data", unmarked, "--out")
    assert "mine.csv is no list of films to mark" in pcamx(*words, mine)[2]
    assert "film.png is no contact sheet" in pcamx(*words, tmp_path / "film.csv")[2]
    Figure().savefig(tmp_path / "film.png")  # somebody's drawing is not ours either
    assert "film.png is no contact sheet" in pcamx(*words, tmp_path / "film.csv")[2]
    assert mine.read_text() == "path,label\na.png,1\n"
    assert not (tmp_path / "film.csv").exists()


def test_help_shows_an_example(pcamx: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("check", "suggest"):
        with pytest.raises(SystemExit) as ended:
            pcamx("marks", what, "--help")
        assert ended.value.code == 0
        assert f"example: pcamx marks {what} " in capsys.readouterr().out
