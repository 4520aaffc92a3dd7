"""from_pretrained on runs and exports: the same network, and one line for what is neither."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import random_runs
import torch
from safetensors.torch import load_file, save_file

import pcamx
from pcamx import config as configs
from pcamx.catalogue import CAM, MAPS
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.model.network import Network
from pcamx.run.folder import RunFolder
from pcamx.run.pretrained import Pretrained, from_pretrained, save_pretrained
from pcamx.run.report import read_report, write_report
from pcamx.run.thresholds import UNTUNED, Threshold
from pcamx.run.weights import load_weights, save_weights
from pcamx.seals import SEAL, sealed


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    """A run, the same with a report, and its export: what the tests have copies of."""
    folder = tmp_path_factory.mktemp("made")
    run = random_runs.random_run(folder / "run", write_config(folder))
    shutil.copytree(run, folder / "measured")
    random_runs.write_report(folder / "measured")
    (folder / "export").mkdir()
    save_pretrained(from_pretrained(folder / "measured", device="cpu"), folder / "export")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


@pytest.fixture
def exported(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "export", tmp_path / "export"))


def logits(model: Pretrained) -> torch.Tensor:
    grey = torch.randint(0, 256, (3, 1, 32, 32), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model.network(model.standardise(grey.to(torch.uint8).to(model.device)))


def test_last_stage_of_a_run(run: Path, store_folder: Path, write_config: Any) -> None:
    model = pcamx.from_pretrained(run, device="cpu")
    store = read_store(store_folder)
    assert (model.stage, model.encoder, model.canvas) == (3, "bottleneck", 32)
    assert (model.mean, model.std) == (store.mean, store.std)
    assert not any(layer.training for layer in model.network.modules())
    network = Network(configs.load(run / "config.yaml"), decoder=True).eval()
    network.load_state_dict(load_weights(run / "stage3/weights.pt").state)
    grey = torch.randint(0, 256, (3, 1, 32, 32), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = network((grey.float() - store.mean) / store.std)
    assert torch.equal(logits(model), expected)


def test_one_stage_of_a_run(run: Path) -> None:
    second, third = (from_pretrained(run, stage=n, device="cpu") for n in (2, 3))
    assert second.stage == 2 and second.network.decoder is None
    assert third.network.decoder is not None
    assert not torch.equal(logits(second), logits(third))


def test_no_earlier_stage_answers_for_a_later_one(run: Path) -> None:
    """Its weights went, or it is still trained; whoever wants the earlier one names it."""
    (run / "stage3/weights.pt").unlink()
    with pytest.raises(PcamxError, match="stage 3 has begun, but .*stage3/weights.pt is not there"):
        from_pretrained(run, device="cpu")
    assert from_pretrained(run, stage=2, device="cpu").stage == 2
    (run / "stage3").rename(run.parent / "stage3")
    assert from_pretrained(run, device="cpu").stage == 2


def test_films_may_be_gone(run: Path, store_folder: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(store_folder, tmp_path / "store"))
    head = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(head | {"root": str(tmp_path / "gone")}))
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(str(store_folder), str(store)))
    assert from_pretrained(run, device="cpu").mean == head["mean"]


def test_thresholds(run: Path) -> None:
    untuned = Threshold(0.5, False)
    assert from_pretrained(run, stage=1).thresholds == {"cam": untuned, "positive_cam": untuned}
    random_runs.write_report(run, stages=(1, 3))
    third = from_pretrained(run)
    assert third.thresholds == {
        "cam": Threshold(0.35, True),
        "positive_cam": Threshold(0.45, True),
        "decoder": Threshold(0.55, True),
    }
    assert third.versions == {"pcamx": "0.1.0", "torch": "2.13.0"} and third.commit == "0123abc"
    second = from_pretrained(run, stage=2)
    assert second.thresholds == {"cam": untuned, "positive_cam": untuned}
    assert second.versions == {} and second.commit is None


def test_report_of_another_training(run: Path) -> None:
    random_runs.write_report(run)
    random_runs.retrained(run, 3)
    with pytest.raises(PcamxError, match=r"report.json: measures another training of stage 3; run"):
        from_pretrained(run)
    from_pretrained(run, stage=2)


def test_export_and_back(run: Path, exported: Path) -> None:
    random_runs.write_report(run)
    ours, theirs = from_pretrained(exported, device="cpu"), from_pretrained(run, device="cpu")
    assert torch.equal(logits(ours), logits(theirs))
    for name in (
        "stage",
        "encoder",
        "pooling",
        "mirrored",
        "canvas",
        "mean",
        "std",
        "thresholds",
        "versions",
        "commit",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert from_pretrained(exported, stage=3).stage == 3
    shutil.rmtree(run)
    assert from_pretrained(exported).stage == 3


def test_an_export_of_before_a_map_was_added(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = dataclasses.replace(CAM, key="new", title="new")
    monkeypatch.setattr("pcamx.catalogue.maps.MAPS", [*MAPS, new])
    thresholds = from_pretrained(exported, device="cpu").thresholds
    assert thresholds[new.key] == Threshold(UNTUNED, False)
    assert thresholds[CAM.key] == Threshold(0.35, True)


def test_a_mirrored_export_and_one_of_before_the_key(
    exported: Path, tmp_path: Path, write_config: Any
) -> None:
    edit("config.json", mirrored=True)(exported)
    assert from_pretrained(exported, device="cpu").mirrored
    facts = json.loads((exported / "config.json").read_text())
    del facts["mirrored"], facts[SEAL]
    (exported / "config.json").write_text(json.dumps(sealed(facts)))
    assert not from_pretrained(exported, device="cpu").mirrored
    config = write_config(tmp_path, {"model.mirrored": True})
    run = random_runs.random_run(tmp_path / "mirrored", config, stages=(1,))
    (tmp_path / "made").mkdir()
    save_pretrained(from_pretrained(run, device="cpu"), tmp_path / "made")
    assert from_pretrained(tmp_path / "made", device="cpu").mirrored


def test_a_triton_run_loads_anywhere(tmp_path: Path, write_config: Any) -> None:
    config = write_config(tmp_path, {"runtime.impl": "triton", "model.encoder": "basic"})
    run = random_runs.random_run(tmp_path / "run", config, stages=(1,))
    model = from_pretrained(run, device="cpu")
    assert model.encoder == "basic"
    model.explain(torch.zeros(1, 1, 32, 32))


# Neither a run nor an export


def test_no_model_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match=r"no model in it; expected a run's config.yaml or an exp"):
        from_pretrained(tmp_path)
    with pytest.raises(PcamxError, match="gone: no such folder; expected"):
        from_pretrained(tmp_path / "gone")


def test_stage_that_is_not_there(run: Path, exported: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "stage3")
    with pytest.raises(PcamxError, match="stage 3 is not finished; there is stage 1 and stage 2"):
        from_pretrained(run, stage=3)
    shutil.rmtree(run / "stage1")
    (run / "stage2/weights.pt").unlink()
    with pytest.raises(
        PcamxError, match="none of stages 1, 2, 3 is finished; train one, or --resume it"
    ):
        from_pretrained(run)
    with pytest.raises(PcamxError, match="an export of stage 3, not of stage 1"):
        from_pretrained(exported, stage=1)


@pytest.mark.parametrize("stage", ["3", True, 4, "segmenter"])
def test_a_stage_that_no_run_has(run: Path, exported: Path, stage: Any) -> None:
    for folder in (run, exported):
        with pytest.raises(PcamxError, match=f"stage {stage!r}: name one of 1, 2, 3, a number"):
            from_pretrained(folder, stage=stage)


def test_a_device_that_is_not_here(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(PcamxError, match=r"device cuda:1: torch finds no GPU here; say device='c"):
        from_pretrained(run, device="cuda:1")
    with pytest.raises(PcamxError, match="device 'gpu': torch knows none such; say cpu or cuda"):
        from_pretrained(run, device="gpu")


@pytest.mark.parametrize("shape", [(1, 1, 32, 48), (1, 1, 48, 48), (1, 3, 32, 32), (32, 32)])
def test_canvases_of_another_shape_are_refused(run: Path, shape: tuple[int, ...]) -> None:
    """Of 32 x 48 pixels the maps came out as 48 x 48."""
    model = from_pretrained(run, device="cpu")
    with pytest.raises(PcamxError, match=r"canvases are .*; pass grey .* \[B, 1, 32, 32\]"):
        model.explain(torch.zeros(shape))


def test_store_that_is_gone(tmp_path: Path, write_config: Any) -> None:
    config = write_config(tmp_path, {"data.store": "elsewhere"})
    run = random_runs.random_run(tmp_path / "run", config)
    with pytest.raises(PcamxError, match="the store of its films is not at elsewhere; bring"):
        from_pretrained(run)


def test_store_prepared_anew(run: Path) -> None:
    config = configs.load(run / "config.yaml")
    RunFolder(run).write_origin(Path(config.data.store))
    edit("origin.json", sha256="0" * 64)(run)
    with pytest.raises(PcamxError, match="was prepared anew since"):
        from_pretrained(run)


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        facts = json.loads(path.read_text())
        sign = sealed if facts.pop(SEAL, None) else dict  # whoever changes it signs it anew
        path.write_text(json.dumps(sign(facts | changes)))

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_bytes(content))


def void(_: object) -> None:
    return None


def other_shapes(folder: Path) -> None:
    path = folder / "stage3/weights.pt"
    weights = load_weights(path)
    state = weights.state | {"head.weight": torch.zeros(3, 128)}
    save_weights(path, dataclasses.replace(weights, state=state))


def other_fields(folder: Path) -> None:
    path = folder / "stage3/weights.pt"
    torch.save(torch.load(path, weights_only=True) | {"era": "later"}, path)


def other_encoder(folder: Path) -> None:
    path = folder / "stage3/weights.pt"
    save_weights(path, dataclasses.replace(load_weights(path), encoder="wide"))


def one_bit(folder: Path) -> None:
    path = folder / "stage3/weights.pt"
    content = torch.load(path, weights_only=True)
    content["state"]["head.weight"].view(torch.int32)[0, 5] ^= 1
    torch.save(content, path)


def zeros(folder: Path) -> None:
    """64 KB in the middle of the file, as a bad disk leaves them."""
    path = folder / "stage3/weights.pt"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 65536] = bytes(65536)
    path.write_bytes(content)


def nan_weights(folder: Path) -> None:
    path = folder / "stage3/weights.pt"
    weights = load_weights(path)
    weights.state["head.bias"][0] = float("nan")
    save_weights(path, weights)


def large_figure(folder: Path) -> None:
    """A whole number beyond what a float holds."""
    path = folder / "report.json"
    path.write_text(path.read_text().replace('"value": 0.4,', f'"value": {10**400},', 1))


def of_stage_2(folder: Path) -> None:
    """Stage 2's file in the place of stage 3's."""
    shutil.copy(folder / "stage2/weights.pt", folder / "stage3/weights.pt")


def more_keys(folder: Path) -> None:
    with (folder / "config.yaml").open("a") as file:
        file.write("optics:\n  lens: 5\n")


def other_number(folder: Path) -> None:
    """A digit of a report that was measured, where nothing but its digest tells."""
    run = RunFolder(folder)
    write_report(run, read_report(run))
    text = run.report_file.read_text()
    run.report_file.write_text(text.replace('"marked_used": 6', '"marked_used": 7'))
    assert text != run.report_file.read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write("stage3/weights.pt", b"photo"), "weights.pt: not a stage's weights .*of pcamx"),
        (other_fields, "weights.pt: not a stage's weights .*of pcamx"),
        (other_encoder, "weights.pt: encoder 'wide' is unknown to pcamx"),
        (other_shapes, "weights.pt: not the weights of this network; pcamx"),
        (one_bit, "weights.pt: damaged, its SHA-256 is another"),
        (zeros, "weights.pt: damaged, its SHA-256 is another"),
        (of_stage_2, "weights.pt: weights of 2, not of 3"),
        (
            more_keys,
            r"config.yaml: unknown key optics; .*\(pcamx .*; is the run of another version",
        ),
        (write("config.yaml", b"\xff"), "config.yaml: not UTF-8"),
        (
            write("report.json", b"{"),
            "report.json: damaged, or no report of an evaluation; run pcam",
        ),
        (
            write("report.json", b'{"format": 2}'),
            "report.json: format 2, this pcamx ",
        ),
        (edit("report.json", stages={"3": {"epochs": 3}}), "report.json: damaged"),
        (edit("report.json", stages=[]), "report.json: damaged"),
        (edit("report.json", versions=[]), "report.json: damaged"),
        (edit("report.json", commit=5), "report.json: damaged"),
        (large_figure, "report.json: damaged"),
        (write("report.json", b'{"format": 1, "data": NaN}'), "report.json: damaged"),
        (other_number, "report.json: damaged"),
        (write("report.json", b"[" * 100_000), "report.json: damaged"),
        (write("origin.json", b"[" * 100_000), "origin.json: damaged"),
        (write("store.sha256", b"\xff\xfe"), "store.sha256: damaged"),
        (write("store.sha256", b"photo"), "store.sha256: damaged"),
        (nan_weights, "weights.pt: head.bias is not finite everywhere"),
    ],
)
def test_damaged_run(run: Path, damage: Callable[[Path], None], message: str) -> None:
    random_runs.write_report(run)
    damage(run)
    assert_one_line(run, message)


def assert_one_line(folder: Path, message: str) -> None:
    with pytest.raises(PcamxError, match=message) as caught:
        from_pretrained(folder, device="cpu")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def renamed_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    state["head.gain"] = state.pop("head.bias")
    save_file(state, path)
    _sign(folder)


def text_for_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"text")
    _sign(folder)


def not_finite(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    state["head.bias"][0] = float("nan")
    save_file(state, path)
    _sign(folder)


def one_letter(folder: Path) -> None:
    """Another threshold, as a person or a bad disk writes it."""
    path = folder / "config.json"
    text = path.read_text()
    assert '"value": 0.55' in text
    path.write_text(text.replace('"value": 0.55', '"value": 0.45'))


def _sign(folder: Path) -> None:
    import hashlib

    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit("config.json", sha256=digest)(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "model.safetensors: damaged, its SHA-256 is not config.json's; export it again"),
        (no_weights, "model.safetensors: No such file or directory; export it again"),
        (renamed_tensor, "model.safetensors: not the weights of this network; pcamx"),
        (text_for_weights, "model.safetensors: not a safetensors file"),
        (edit("config.json", format=2, pcamx="9.0"), "config.json: format 2 of pcamx 9.0, this pc"),
        (edit("config.json", encoder="wide"), "encoder 'wide' is unknown"),
        (edit("config.json", encoder=[]), "encoder .. is unknown"),
        *(
            (edit("config.json", **changes), "config.json: not a config.json of pcamx export")
            for changes in (
                {"stage": 4},
                {"canvas": 10**9},
                {"canvas": "32"},
                {"mirrored": "yes"},
                {"std": 0},
                {"mean": float("nan")},
                {"thresholds": {"none": {"value": 0.5, "tuned": True}}},
                {"thresholds": []},
                {"stage": True},
                {"stage": 3.0},
                {"canvas": 32.0},
                {"mean": 10**400},
                {"mean": None},
                {"sha256": 5},
                {"versions": []},
                {"commit": {}},
            )
        ),
        (one_letter, "config.json: not a config.json of pcamx export, or damaged; export it again"),
        (write("config.json", b"[" * 100_000), "not a config.json of pcamx export"),
        (not_finite, "model.safetensors: head.bias is not finite everywhere"),
        (write("config.json", b'{"architectures": ["ResNet"]}'), "not a config.json of pcamx exp"),
        (write("config.json", b"[1]"), "not a config.json of pcamx export"),
        (write("config.json", b"\xff\xfe"), "not a config.json of pcamx export"),
    ],
)
def test_damaged_export(exported: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(exported)
    assert_one_line(exported, message)
