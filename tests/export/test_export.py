"""`pcamx export`: what it writes, read by others, and nothing where it fails."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import random_runs
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pcamx import cli
from pcamx.data.canvas.placement import fit
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.export import check_copy, export, graph
from pcamx.export.card import model_card
from pcamx.run.pretrained import from_pretrained
from pcamx.run.weights import load_weights

FILES = {"config.json", "model.safetensors", "model.onnx", "onnx.json", "README.md", "samples"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return random_runs.random_run(folder / "run", write_config(folder))


def greys(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(count, 1, 5, 5, generator=generator)
    return (255 * F.interpolate(coarse, size=(32, 32), mode="bicubic")).clamp(0, 255).round()


def run_onnx(path: Path, grey_B1HW: Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": grey_B1HW.numpy()}), strict=True))


def test_files(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == FILES
    assert [path.name for path in exported.parent.iterdir()] == ["export"]


def test_stride_8(tmp_path: Path, write_config: Any) -> None:
    config = write_config(tmp_path, {"model.encoder": "bottleneck_stride8"})
    out = tmp_path / "export"
    export(random_runs.random_run(tmp_path / "run", config, stages=(3,)), out)
    assert run_onnx(out / "model.onnx", greys(2))["map"].shape == (2, 4, 4)
    assert "| map | [B, 4, 4] |" in (out / "README.md").read_text()
    assert from_pretrained(out).encoder == "bottleneck_stride8"


def test_mirrored(tmp_path: Path, write_config: Any) -> None:
    """ONNX and the folder's own check answer as PyTorch does, to a film as to its mirror image."""
    config, out = write_config(tmp_path, {"model.mirrored": True}), tmp_path / "export"
    export(random_runs.random_run(tmp_path / "run", config, stages=(3,)), out)
    model, grey = from_pretrained(out, device="cpu"), greys(3)
    probability, maps = model.explain(grey)
    found, turned = (run_onnx(out / "model.onnx", x) for x in (grey, grey.flip(-1)))
    np.testing.assert_allclose(found["probability"], probability, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["lesion"], maps["decoder"], rtol=1e-4, atol=1e-5)
    cam = F.interpolate(torch.from_numpy(found["map"])[:, None], (32, 32), mode="bilinear")[:, 0]
    np.testing.assert_allclose(cam, maps["positive_cam"], rtol=1e-4, atol=1e-5)
    for name in ("map", "lesion"):
        np.testing.assert_allclose(turned[name][..., ::-1], found[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(turned["probability"], found["probability"], rtol=1e-4, atol=1e-5)
    props = onnx.load(out / "model.onnx").metadata_props
    assert {one.key: one.value for one in props}["mirrored"] == "true"
    assert max(check_copy(out).values()) <= 1e-3
    assert "the mean over the film and its mirror image" in (out / "README.md").read_text()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_by_hand(exported: Path, run: Path, store_folder: Path, count: int) -> None:
    """Grey levels in; the formula in float64 out of the run's own network."""
    model, store, grey = from_pretrained(run, device="cpu"), read_store(store_folder), greys(count)
    found = run_onnx(exported / "model.onnx", grey)
    assert list(found) == ["probability", "map", "lesion"]
    network = model.network.double()
    with torch.no_grad():
        features = network.encoder((grey.double() - store.mean) / store.std)
        logits = network((grey.double() - store.mean) / store.std)
        weight = network.head.weight[1].clamp(min=0)
        lesion = torch.sigmoid(model.network.decoder(features, (32, 32)))[:, 0]
    probability = torch.sigmoid(logits[:, 1] - logits[:, 0])
    cam = torch.einsum("k,bkhw->bhw", weight, features[-1])
    assert cam.shape == (count, 2, 2)
    for name, expected in {"probability": probability, "map": cam, "lesion": lesion}.items():
        np.testing.assert_allclose(found[name], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_onnx_names_no_path_of_this_machine(exported: Path) -> None:
    content = (exported / "model.onnx").read_bytes()
    home = str(Path(__file__).resolve().parents[2]).encode()
    assert home not in content and b".py" not in content
    model = onnx.load(exported / "model.onnx")
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "image": ["batch", 1, 32, 32],
        "probability": ["batch"],
        "map": ["batch", 2, 2],
        "lesion": ["batch", 32, 32],
    }


def test_parity_is_written_down(exported: Path) -> None:
    facts = json.loads((exported / "onnx.json").read_text())
    assert set(facts["max_abs_diff"]) == {"probability", "map", "lesion"}
    assert all(0 <= d < 1e-3 for d in facts["max_abs_diff"].values())
    assert facts["versions"]["onnxruntime"] == onnxruntime.__version__
    assert facts["opset"] == onnx.load(exported / "model.onnx").opset_import[0].version


def test_card(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pcamx\n") and "\n---\n\n# Bone" in card
    assert "| stage 3 | 0.800 [0.750, 0.850] |" in card
    assert "| stage 3, decoder | 0.400 [0.350, 0.450] |" in card and "stage 2" not in card
    assert "14 films of 9 patients, 7 abnormal, 7 with a marked lesion" in card
    assert "a machine, 2 cores; pcamx 0.1.0, torch 2.13.0; commit 0123abc; 2026-11-22" in card
    assert "CAM 0.35, positive CAM 0.45, decoder 0.55." in card
    assert "learned from 6 marked films" in card and "3 epochs in 15 s" in card
    assert "mirror image" not in card
    assert "For research only" in card and "do not use it for diagnosis" in card
    assert "/secret/place" not in card and not re.search(
        r"[{}]", re.sub(r"(?s)```.*?```", "", card)
    )


def test_the_cards_code_runs(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "export"))
    grey = np.arange(40 * 20, dtype=np.uint8).reshape(40, 20)
    Image.fromarray(grey).save(folder / "film.png")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    blocks = re.findall(r"(?s)```python\n(.*?)```", (folder / "README.md").read_text())
    assert len(blocks) == 3
    for block in blocks[:2]:
        exec(block, names)
    by_onnx = names["probability"]
    assert names["map"].shape == (1, 2, 2) and names["lesion"].shape == (1, 32, 32)
    exec(blocks[2], names)
    np.testing.assert_allclose(by_onnx, names["probability"].numpy(), atol=1e-5)
    np.testing.assert_allclose(names["lesion"], names["maps"]["decoder"].numpy(), atol=1e-4)


@pytest.mark.parametrize("size", [(495, 403), (514, 138), (138, 514), (33, 33), (1, 900)])
def test_the_card_lays_a_film_where_training_does(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    card = (exported / "README.md").read_text().replace("32", "64")  # where rounding tells
    block = re.findall(r"(?s)```python\n(.*?)```", card)[0]
    monkeypatch.chdir(tmp_path)
    Image.new("L", size, 255).save("film.png")
    names: dict[str, Any] = {}
    exec(block, names)
    place = fit(*size, 64)
    expected = np.zeros((64, 64))
    expected[place.top : place.top + place.height, place.left : place.left + place.width] = 255
    assert np.array_equal(names["grey"][0, 0], expected)


def test_a_stage_that_nobody_measured(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    out.mkdir()  # empty is fine
    facts = export(run, out, stage=1)
    assert list(facts["max_abs_diff"]) == ["probability", "map"]
    card = (out / "README.md").read_text()
    assert "Not measured: run `pcamx evaluate`" in card and "95 %" not in card
    assert "lesion map" not in card and "CAM 0.5 (not tuned)" in card
    assert from_pretrained(out, device="cpu").network.decoder is None
    found = {one.key: one.value for one in onnx.load(out / "model.onnx").metadata_props}
    assert (found["commit"], found["stage"]) == ("null", "1")


def test_card_of_a_stage_without_a_decoder(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    report = random_runs.write_report(copy)
    weights = load_weights(copy / "stage2/weights.pt")
    onnx_facts = {"opset": 20, "versions": {}, "max_abs_diff": {"probability": 0.0, "map": 1e-6}}
    model = from_pretrained(copy, stage=2, device="cpu")
    card = model_card(model, weights, report, onnx_facts)
    assert "| stage 2, positive CAM | 0.400" in card
    assert "| untrained network, CAM | 0.400" in card and "decoder |" not in card
    assert "probability, map = session.run" in card and "probability 0.0e+00, map 1.0e-06" in card


# Nothing is written where something is wrong


@pytest.fixture
def pcamx(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pcamx", *map(str, words)])
        code = cli.main()
        return code, capsys.readouterr().err

    return command


def assert_refused(answer: tuple[int, str], message: str) -> None:
    code, text = answer
    assert code == 2 and text.count("\n") == 1
    assert re.search(f"pcamx: error: .*{message}", text), text


def test_folder_that_is_not_empty(pcamx: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for out in (tmp_path, tmp_path / "mine"):
        assert_refused(pcamx("export", run, "--out", out), "there is something already; name a new")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_store_that_appears_meanwhile_is_not_replaced(
    pcamx: Any, run: Path, store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def write(*_: object) -> dict[str, Any]:
        shutil.copytree(store_folder, out)
        return {}

    monkeypatch.setattr("pcamx.export.write_onnx", write)
    monkeypatch.setattr("pcamx.export.model_card", lambda *_: "")
    assert_refused(pcamx("export", run, "--out", out), "there is something already; name a new")
    assert (out / "store.json").is_file() and list(tmp_path.iterdir()) == [out]


def test_folder_that_cannot_be_made(pcamx: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = pcamx("export", run, "--out", tmp_path / "file/export")
    assert_refused(answer, "Not a directory; nothing was written")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: not a run's folder, config.yaml is not there"),
        (["run", "--stage", "2"], "stage 2 is not finished; there is stage 1"),
    ],
)
def test_nothing_to_export(
    pcamx: Any, run: Path, tmp_path: Path, words: list[str], message: str, monkeypatch: Any
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("stage[23]"))
    monkeypatch.chdir(tmp_path)
    assert_refused(pcamx("export", *words), message)
    assert not (tmp_path / "run/export").exists() and not (tmp_path / "nowhere").exists()


def test_an_export_is_no_run(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match="not a run's folder"):
        export(exported, tmp_path / "out")


def test_a_package_that_is_missing(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(PcamxError, match=r"needs the package onnxscript: pip install 'pcamx\[exp"):
        export(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_disagreement_with_pytorch(
    run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of the same network, but for a hundredth in the weights of one class."""

    def another_network(*_: object) -> Any:
        proto = onnx.load(exported / "model.onnx")
        (head,) = (one for one in proto.graph.initializer if one.name == "network.head.weight")
        weight = onnx.numpy_helper.to_array(head) + np.float32([[0], [0.01]])
        head.CopyFrom(onnx.numpy_helper.from_array(weight, head.name))
        return proto

    monkeypatch.setattr(graph, "_trace", another_network)
    with pytest.raises(PcamxError, match="model.onnx and PyTorch differ by .* nothing was written"):
        export(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_interrupted(pcamx: Any, run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pcamx.export.write_onnx", interrupt)
    code, text = pcamx("export", run, "--out", tmp_path / "out")
    assert code == 130 and "nothing was written" in text
    assert not list(tmp_path.iterdir())
