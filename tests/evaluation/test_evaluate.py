"""report.json of a real run: its structure, and figures worked out again in another way."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import stores
import torch
import torch.nn.functional as F
from PIL import Image

from pcamx import config as configs
from pcamx.compare.measured import read_run
from pcamx.data.canvas.decode import decode_batches
from pcamx.data.canvas.lesion_mask import lesion_canvas
from pcamx.data.feed.order import choose_marked
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.evaluation.evaluate import evaluate
from pcamx.model.network import Network
from pcamx.output import _take_place
from pcamx.run.folder import RunFolder
from pcamx.run.weights import load_weights
from pcamx.seals import sealed, unsealed

STAGES = ("1", "2", "3")
pytestmark = pytest.mark.usefixtures("few_pictures")
MEASURES = (
    *("pointing", "energy", "miou", "dice", "miou_otsu", "relevance_rank", "maxboxacc_v2"),
    "pxap",
)


@pytest.fixture(scope="module")
def run(evaluated_run: Path) -> Path:
    return evaluated_run


@pytest.fixture(scope="module")
def report(run: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads((run / "report.json").read_text(), parse_constant=refuse)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page and no pictures, which take three quarters of the time."""
    for name in ("write_page", "save", "_write_all_films"):
        monkeypatch.setattr(f"pcamx.evaluation.evaluate.{name}", lambda *_: None)


def figures(tree: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and content of every {value, low, high, n} below ``tree``."""
    if isinstance(tree, dict):
        if tree.keys() == {"value", "low", "high", "n"}:
            yield name, tree
        else:
            for key, child in tree.items():
                yield from figures(child, key)


def test_structure(report: Any) -> None:
    assert report["format"] == 1
    assert {"device", "versions", "commit", "data", "config", "command", "created"} <= set(report)
    assert {"pcamx", "python", "torch", "deepspeed", "dali", "numpy"} <= set(report["versions"])
    assert tuple(report["stages"]) == STAGES
    assert set(report["baselines"]) == {"centre", "untrained", "segmenter"}
    untrained, centre = report["baselines"]["untrained"], report["baselines"]["centre"]
    all_baselines = report["baselines"].values()
    for name, found in {**report["stages"], "untrained": untrained}.items():
        assert {"auroc", "accuracy", "kappa", "kappa_by_part"} <= set(found["classification"])
        assert {"sensitivity", "specificity", "brier"} < set(found["classification"])
        decoder = {"decoder"} if name in ("3", "untrained") else set()
        gradients = {"gradcam", "layercam"} if name != "untrained" else set()
        assert set(found["localization"]) == {"cam", "positive_cam"} | gradients | decoder
    assert set(centre["localization"]) == {"cam", "positive_cam", "decoder"}
    segmenter = report["baselines"]["segmenter"]
    assert set(segmenter["localization"]) == {"decoder"} and "classification" not in segmenter
    assert (segmenter["epochs"], segmenter["ranks"]) == (1, 2) and segmenter["seconds"] > 0
    for maps in (x["localization"] for x in [*report["stages"].values(), *all_baselines]):
        for measured in maps.values():
            assert {*MEASURES, "false_activation", "on_marker"} < set(measured)
            assert 0 < measured["threshold"] < 1 and math.isfinite(measured["activation_threshold"])
            assert list(measured["by_size"]) == ["small", "medium", "large"]
            slices = [found["pointing"]["n"] for found in measured["by_size"].values()]
            assert sum(slices) == measured["pointing"]["n"]
    for stage in STAGES:
        assert report["stages"][stage]["seconds"] > 0
        assert report["stages"][stage]["ranks"] == 2
        assert report["stages"][stage]["epochs"] == (2 if stage == "3" else 1)
        assert 0.01 <= report["stages"][stage]["temperature"] <= 100
    assert report["config"]["data"]["canvas"] == 32
    assert report["data"]["splits"]["valid"]["films"] == 14


def test_every_figure_lies_in_its_interval(report: Any) -> None:
    found = list(figures(report))
    assert len(found) > 200
    for name, figure in found:
        if figure["value"] is None or name.startswith("calibration_error"):
            assert figure["low"] is None and figure["high"] is None
        elif figure["low"] is None:  # of films of one patient
            assert figure["high"] is None and math.isfinite(figure["value"]) and figure["n"] > 0
        else:
            assert all(math.isfinite(figure[k]) for k in ("value", "low", "high"))
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["n"] > 0
    assert sum(figure["low"] is not None for _, figure in found) > 200


@pytest.mark.usefixtures("undrawn")
def test_twice_gives_the_same_figures(run: Path, report: Any, tmp_path: Path) -> None:
    again = evaluate(Path(shutil.copytree(run, tmp_path / "run")))
    for part in ("stages", "baselines", "data", "config"):
        assert json.loads(json.dumps(again[part])) == report[part]


def test_stage_3_beside_the_segmenter(run: Path, report: Any) -> None:
    """The ratio and difference of the two decoders' figures, and the page says them."""
    found = report["stage3_against_segmenter"]
    stage3 = report["stages"]["3"]["localization"]["decoder"]
    segmenter = report["baselines"]["segmenter"]["localization"]["decoder"]
    assert list(found) == ["pointing", "energy", "miou"]
    for key, compared in found.items():
        one, other = stage3[key]["value"], segmenter[key]["value"]
        assert compared["value"] == pytest.approx(one - other, abs=1e-7)
        assert compared["low"] <= compared["value"] <= compared["high"]
        assert compared["p"] is None  # of so few patients
        assert compared["n"] == stage3[key]["n"]
        expected = pytest.approx(one / other, rel=1e-5) if other else None
        assert compared["ratio"] == expected
    page = " ".join((run / "report.html").read_text().split())
    assert f"mIoU {found['miou']['value']:+.3f} [" in page


def test_page_and_picture(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "</html>" in page and "http://" not in page.replace("http://www.w3.org", "")
    with Image.open(run / "figure2.png") as picture:
        assert picture.width > 300
    assert not list(run.glob("*.tmp")) and not list(run.glob(".*.tmp"))


@pytest.mark.usefixtures("undrawn")
def test_faithfulness_is_there_where_it_is_asked_for(
    run: Path, report: Any, tmp_path: Path
) -> None:
    assert "deletion" not in report["stages"]["1"]["localization"]["cam"]
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    found = evaluate(copy, faithful=3)
    seen = set()
    for tree in (*found["stages"].values(), found["baselines"]["untrained"]):
        for name, maps in tree["localization"].items():
            for key in ("deletion", "insertion"):
                figure = maps.pop(key)
                assert figure["n"] == 3 and 0 <= figure["low"] <= figure["value"] <= 1
                seen.add((name, figure["value"]))
            ranks = maps.pop("patch_correlation")
            assert ranks["value"] is None or -1 <= ranks["value"] <= 1
    assert len(seen) > 10
    for part in ("stages", "baselines"):
        assert json.loads(json.dumps(found[part])) == report[part]  # all else as before
    assert "deletion" in (copy / "report.json").read_text()


class ByHand:
    """Stage 3's network over single films, with nothing of scoring.py or metrics."""

    def __init__(self, run: Path) -> None:
        self.config = configs.load(run / "config.yaml")
        self.store: Store = read_store(Path(self.config.data.store))
        self.network = Network(self.config, decoder=True)
        state = load_weights(run / "stage3/weights.pt").state
        self.network.load_state_dict(state)
        self.network.eval()

    @torch.no_grad()
    def positive_cam(self, film: Film) -> tuple[np.ndarray, float]:
        """Map at 32 x 32, min-max scaled, and the probability of abnormal."""
        (grey,) = decode_batches(
            self.store.root, [film], [[0]], 32, device=torch.device("cpu"), threads=1
        )
        image = (grey.float() - self.store.mean) / self.store.std
        h = self.network.encoder(image)[-1][0].double()
        w = self.network.head.weight[1].double()
        small = sum(max(float(w[k]), 0.0) * h[k] for k in range(128))
        large = F.interpolate(
            small[None, None], size=(32, 32), mode="bilinear", align_corners=False
        )[0, 0].numpy()
        probability = float(self.network(image).softmax(1)[0, 1])
        return (large - large.min()) / (large.max() - large.min()), probability

    def lesion(self, film: Film) -> np.ndarray:
        mask = lesion_canvas(self.store.folder / film.mark, film, 32)
        return np.asarray(mask[0].numpy(), bool)


def iou(cam: np.ndarray, lesion: np.ndarray, threshold: float) -> float:
    above = cam >= threshold
    return float((above & lesion).sum() / (above | lesion).sum())


def test_positive_cam_of_stage_3_by_hand(run: Path, report: Any) -> None:
    hand = ByHand(run)
    marked = [film for film in hand.store.split("valid") if film.mark]
    found = report["stages"]["3"]["localization"]["positive_cam"]
    maps = [(hand.positive_cam(film)[0], hand.lesion(film)) for film in marked]
    pointing = [lesion[np.unravel_index(cam.argmax(), cam.shape)] for cam, lesion in maps]
    energy = [cam[lesion].sum() / cam.sum() for cam, lesion in maps]
    miou = [iou(cam, lesion, found["threshold"]) for cam, lesion in maps]
    assert found["pointing"]["n"] == found["miou"]["n"] == len(marked) > 2
    assert found["pointing"]["value"] == pytest.approx(np.mean(pointing), abs=1e-9)
    assert found["energy"]["value"] == pytest.approx(np.mean(energy), rel=1e-4)
    assert found["miou"]["value"] == pytest.approx(np.mean(miou), abs=1e-3)
    cams, lesions = [cam for cam, _ in maps], [lesion.astype(np.uint8) for _, lesion in maps]
    boxes = [published.contour_boxes(lesion > 0, holes=False) for lesion in lesions]
    assert found["pxap"]["value"] == pytest.approx(published.pxap(cams, lesions), rel=1e-3)
    assert found["miou_otsu"]["value"] == pytest.approx(
        published.miou_otsu(cams, lesions), rel=0.01
    )
    expected = published.max_box_acc_v2(cams, boxes)
    assert found["maxboxacc_v2"]["value"] == pytest.approx(expected, abs=1e-6)


def test_accuracy_of_stage_3_by_hand(run: Path, report: Any) -> None:
    hand = ByHand(run)
    films = hand.store.split("valid")
    right = [(hand.positive_cam(film)[1] > 0.5) == bool(film.label) for film in films]
    found = report["stages"]["3"]["classification"]
    assert found["accuracy"]["value"] == pytest.approx(np.mean(right))
    scores = [(hand.positive_cam(film)[1], film.label) for film in films]
    pairs = [(p > n) + (p == n) / 2 for p, a in scores if a for n, b in scores if not b]
    assert found["auroc"]["value"] == pytest.approx(np.mean(pairs))


def test_thresholds_come_from_the_marked_training_films_only(run: Path, report: Any) -> None:
    hand = ByHand(run)
    train = hand.store.split("train")
    chosen = [train[i] for i in choose_marked(train, 6, seed=0)]
    assert report["data"]["marked_used"] == len(chosen) == 6
    maps = [(hand.positive_cam(film)[0], hand.lesion(film)) for film in chosen]
    means = {k / 20: np.mean([iou(c, m, k / 20) for c, m in maps]) for k in range(1, 20)}
    found = report["stages"]["3"]["localization"]["positive_cam"]
    assert found["threshold_tuned"] is True
    assert means[found["threshold"]] == pytest.approx(max(means.values()), abs=1e-3)


@pytest.mark.usefixtures("undrawn")
def test_no_network_sees_marks_of_validation_films(run: Path, report: Any, tmp_path: Path) -> None:
    """Without those marks all but the localization stays, and that says n 0."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = configs.load(copy / "config.yaml")
    folder = Path(shutil.copytree(config.data.store, tmp_path / "store"))
    stores.change(folder, stores.no_validation_marks)
    _use_store(copy, folder)
    found = evaluate(copy)
    for stage in STAGES:
        ours, theirs = found["stages"][stage], report["stages"][stage]
        assert ours["classification"] == theirs["classification"]
        for name, maps in ours["localization"].items():
            assert maps["threshold"] == theirs["localization"][name]["threshold"]
            for measure in MEASURES:
                assert maps[measure] == {"value": None, "low": None, "high": None, "n": 0}
            for measure in ("false_activation", "on_marker"):  # these need no such mark
                assert maps[measure] == theirs["localization"][name][measure]


def test_no_marks_at_all(run: Path, phantoms: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "figure2.png").unlink()
    prepare(phantoms / "MURA-v1.1", tmp_path / "store", table=None, marks=None, workers=1)
    _use_store(copy, tmp_path / "store")
    found = evaluate(copy)
    for tree in (*found["stages"].values(), *found["baselines"].values()):
        for maps in tree["localization"].values():
            assert maps["threshold_tuned"] is False
            undefined = [maps[m] for m in (*MEASURES, "false_activation")]
            assert all(m["value"] is None and m["n"] == 0 for m in undefined)
            assert maps["activation_threshold"] is None and maps["on_marker"]["n"] > 0
    assert "</html>" in (copy / "report.html").read_text()


def test_a_kill_between_two_files_leaves_no_evaluation_of_both(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until report.json has come, it does not fit films.csv; pages are gone until all has."""
    copy, moves = tmp_path / "run", []
    written = ("films.csv", "figure2.png", "films.html", "report.html", "report.json")
    files = {name: (run / name).read_bytes() for name in written}

    def measure(_: object, new: RunFolder, *__: object) -> Any:
        new.pictures.mkdir()
        rows = files["films.csv"].splitlines(keepends=True)[:-1]
        facts = unsealed(json.loads(files["report.json"])) | {
            "films_sha256": sha256(b"".join(rows)).hexdigest()
        }
        changed = {"films.csv": b"".join(rows), "report.json": json.dumps(sealed(facts)).encode()}
        for name, content in (files | changed).items():
            (new.path / name).write_bytes(content)

    def take_place(*places: Path) -> None:
        moves.append(places[1].name)
        if len(moves) == last:
            raise KeyboardInterrupt  # as a kill, but that the draft goes
        _take_place(*places)

    monkeypatch.setattr("pcamx.evaluation.evaluate._measure", measure)
    monkeypatch.setattr("pcamx.output._take_place", take_place)
    pages = {"figure2.png", "films.html", "report.html"}
    for last in range(1, 7):
        shutil.copytree(run, copy)
        moves.clear()
        with pytest.raises(KeyboardInterrupt):
            evaluate(copy)
        assert {name for name in pages if (copy / name).exists()} == pages & {*moves[:-1]}
        if last in (1, 4, 5, 6):
            assert (read_run(copy, "").report == read_run(run, "").report) is (last == 1)
        else:
            with pytest.raises(PcamxError, match="are of different evaluations"):
                read_run(copy, "")
        shutil.rmtree(copy)
    assert moves == ["films.csv", "films", "report.json", *sorted(pages, key=moves.index)]


def test_stage_that_is_not_finished_is_left_out_and_named(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "stage3/weights.pt").unlink()
    found = evaluate(copy)
    assert tuple(found["stages"]) == ("1", "2")
    assert found["unfinished"] == [3] and "stage3_against_segmenter" not in found


def test_one_class_in_the_validation_split(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = configs.load(copy / "config.yaml")
    folder = Path(shutil.copytree(config.data.store, tmp_path / "store"))
    stores.change(folder, stores.abnormal_validation_only)
    _use_store(copy, folder)
    found = evaluate(copy)["stages"]["1"]["classification"]
    assert found["auroc"]["value"] is None
    assert found["accuracy"]["value"] is not None


def _use_store(run: Path, folder: Path) -> None:
    text = (run / "config.yaml").read_text()
    old = configs.load(run / "config.yaml").data.store
    (run / "config.yaml").write_text(text.replace(old, str(folder)))
    RunFolder(run).write_origin(folder)


def test_store_prepared_anew_is_refused(run: Path, tmp_path: Path) -> None:
    copy, folder = tmp_path / "run", tmp_path / "store"
    shutil.copytree(run, copy)
    shutil.copytree(configs.load(copy / "config.yaml").data.store, folder)
    _use_store(copy, folder)
    before = (copy / "report.json").read_bytes()
    stores.change(folder, stores.no_validation_marks)
    with pytest.raises(PcamxError, match="store was prepared anew since .*run began"):
        evaluate(copy)
    assert (copy / "report.json").read_bytes() == before


def test_a_data_set_without_markers_has_no_figure_of_them(run: Path, tmp_path: Path) -> None:
    copy, root = tmp_path / "run", tmp_path / "MURA-v1.1"
    shutil.copytree(run, copy)
    config = configs.load(copy / "config.yaml")
    folder = Path(shutil.copytree(config.data.store, tmp_path / "store"))
    shutil.copytree(read_store(folder).root, root)
    (root / "markers.csv").unlink()
    head = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(head | {"root": str(root)}))
    _use_store(copy, folder)
    found = evaluate(copy)["stages"]["3"]["localization"]["decoder"]
    assert not {"on_marker", "on_marker_abnormal"} & set(found)


def test_no_validation_film(run: Path, tmp_path: Path) -> None:
    copy, folder = tmp_path / "run", tmp_path / "store"
    shutil.copytree(run, copy)
    shutil.copytree(configs.load(copy / "config.yaml").data.store, folder)
    stores.change(folder, lambda row: None if row["split"] == "valid" else row)
    _use_store(copy, folder)
    with pytest.raises(PcamxError, match="no film is in the valid split"):
        evaluate(copy)


def test_a_folder_that_cannot_be_made(run: Path, tmp_path: Path, store_folder: Path) -> None:
    """Said in a line, and before the films are measured."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / f"on_{store_folder.name}").write_text("in the way")
    with pytest.raises(PcamxError, match=f"cannot lock .*on_{store_folder.name}: File exists"):
        evaluate(copy, other=store_folder, say=pytest.fail, track=pytest.fail)


def test_a_run_without_its_history(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "metrics.jsonl").unlink()
    with pytest.raises(PcamxError, match="metrics.jsonl: No such file.*the folder of a run"):
        evaluate(copy, track=pytest.fail)


def test_another_store_s_films_that_were_trained_on(
    run: Path, tmp_path: Path, store_folder: Path
) -> None:
    """Known by their bytes: there they lie under other names, and in the other split."""
    copy, root = Path(shutil.copytree(run, tmp_path / "run")), tmp_path / "films"
    folder = Path(shutil.copytree(store_folder, tmp_path / "swapped"))
    films = read_store(store_folder)
    other = {"train": "valid", "valid": "train"}
    for film in films.films:
        target = root / "elsewhere" / film.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(films.root / film.path, target)
    stores.change(
        folder,
        lambda row: row | {"path": f"elsewhere/{row['path']}", "split": other[row["split"]]},
    )
    head = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(head | {"root": str(root)}))
    count, first = len(films.split("train")), films.split("train")[0].path
    message = (
        f"{folder}: {count} of the {count} films in its valid split are training films of this "
        f"run, such as elsewhere/{first} ({first} there); leave them out"
    )
    with pytest.raises(PcamxError, match=re.escape(message)):
        evaluate(copy, other=folder)
    assert not (copy / "on_swapped").exists()
    (root / "elsewhere" / first).unlink()
    with pytest.raises(PcamxError, match="No such file or directory; prepare its store anew"):
        evaluate(copy, other=folder)


def test_on_another_store(
    run: Path, report: Any, phantoms: Path, tmp_path: Path, store_folder: Path
) -> None:
    """The same films as HTJ2K: the same figures, in a folder of their own."""
    copy, folder = tmp_path / "run", tmp_path / "as_htj2k"
    shutil.copytree(run, copy)
    films, marks = phantoms / "MURA-v1.1", phantoms / "marks"
    prepare(films, folder, marks=marks, transcode="htj2k", workers=1)
    # Films are standardised as in training, whatever the other store says.
    stores.change(folder, lambda row: row, mean=1.0, std=2.0)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(PcamxError, match="nowhere: no such folder"):
        evaluate(copy, other=tmp_path / "nowhere")
    found = evaluate(copy, other=folder)
    assert before == {path: path.read_bytes() for path in before}
    pictures = 3 * len(read_store(folder).split("valid"))
    assert sum(path.is_file() for path in copy.rglob("*")) == len(before) + 5 + pictures
    names = {path.name for path in (copy / "on_as_htj2k").iterdir()}
    assert names == {
        "report.json",
        "films.csv",
        "report.html",
        "figure2.png",
        "films.html",
        "films",
    }
    assert json.loads(json.dumps(found["stages"])) == report["stages"]  # markers come along
    assert found["data"]["store"] == str(folder)
    auroc = {n: report["stages"][n]["classification"]["auroc"]["value"] for n in STAGES}
    assert found["own"] == {"store": str(store_folder), "films": 14, "auroc": auroc}
