"""Every mistake in a config file is one line that names the key."""

import dataclasses
import re
from pathlib import Path

import pytest

from pcamx import config as configs
from pcamx.config import ConfigError, changed, differences, dump, load, settings
from pcamx.errors import PcamxError

GOOD = """
run:
  folder: runs/test
data:
  store: stores/test
stages:
  stage1: {epochs: 3}
  stage2: {epochs: 2, lr: 2, init_from: stage1}
  stage3: {epochs: 1}
runtime:
  batch_size: 8
"""
SHIPPED = Path(__file__).resolve().parents[2] / "configs"


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """The message, less the file's name, after checking that it is one line with that name."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert isinstance(caught.value, PcamxError)
    assert "\n" not in message and message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_a_good_file(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))
    assert config.run.folder == "runs/test" and config.stage(1).epochs == 3
    assert type(config.stage(2).lr) is float and config.stage(2).lr == 2
    assert config.stage(2).init_from == "stage1"
    assert config.data.canvas == 320 and config.attention.mask_class == "abnormal"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.run.folder = "other"  # type: ignore[misc]


MISTAKES = [  # what is put in for what, and what the message must hold
    ("lr: 2,", "lr: '1e-4',", "stages.stage2.lr: '1e-4' is not a number"),
    ("epochs: 3", "epochs: 1e1", "stages.stage1.epochs: 10.0 is not a whole number"),
    ("lr: 2,", "lr: fast,", "stages.stage2.lr: 'fast' is not a number"),
    ("lr: 2,", "lr: true,", "stages.stage2.lr: True is not a number"),
    ("lr: 2,", "lr: .nan,", "stages.stage2.lr: not a number"),
    ("lr: 2,", "lr: .inf,", "stages.stage2.lr: inf is outside [1e-09, 1000]"),
    ("lr: 2,", "lr: -.inf,", "stages.stage2.lr: -inf is outside"),
    ("lr: 2,", "lr: 0,", "stages.stage2.lr: 0.0 is outside"),
    ("lr: 2,", f"lr: {10**400},", "stages.stage2.lr: too large"),
    ("lr: 2,", "backbone_lr: 2,", "stages.stage2.backbone_lr: 2.0 is outside [0, 1]"),
    ("lr: 2,", "backbone_lr: 0.5,", "stages.stage2.backbone_lr: only a timm backbone has it"),
    ("epochs: 3", "epochs: 010", "stages.stage1.epochs: '010' is not a whole number"),
    ("epochs: 3", "epochs: 1:30", "stages.stage1.epochs: '1:30' is not a whole number"),
    ("epochs: 3", "epochs: 0x10", "stages.stage1.epochs: '0x10' is not a whole number"),
    ("epochs: 3", "epochs: 1_0", "stages.stage1.epochs: '1_0' is not a whole number"),
    ("lr: 2,", "lr: 1:30.5,", "stages.stage2.lr: '1:30.5' is not a number"),
    ("epochs: 3", "epochs: 0", "stages.stage1.epochs: 0 is outside [1, 1e+06]"),
    ("epochs: 3", "epochs: 3.0", "stages.stage1.epochs: 3.0 is not a whole number"),
    ("epochs: 3", "epochs: true", "stages.stage1.epochs: True is not a whole number"),
    ("epochs: 3", "epochs: '3'", "stages.stage1.epochs: '3' is not a whole number"),
    ("epochs: 3", "epochs:", "stages.stage1.epochs: None is not a whole number"),
    ("epochs: 3", "lr: 1.0", "missing key stages.stage1.epochs"),
    ("epochs: 3", "epoch: 3", "unknown key stages.stage1.epoch;", "mean stages.stage1.epochs?"),
    ("init_from: stage1", "init_from: 1", "stages.stage2.init_from: 1 is not text"),
    ("{epochs: 3}", "[3]", "stages.stage1: expected keys below it, found [3]"),
    ("{epochs: 3}", "", "stages.stage1: expected keys below it, found None"),
    ("batch_size: 8", "batch_size: 0", "runtime.batch_size: 0 is outside"),
    ("batch_size: 8", "batch_size: 4", "objective.marked_per_batch: 4", "runtime.batch_size 4"),
    ("batch_size: 8", "zero_stage: 1", "missing key runtime.batch_size"),
    ("runtime:", "runtimes:", "unknown key runtimes;", "did you mean runtime?"),
    ("runtime:", "zzz:", "unknown key zzz;", "known: run, data, stages, runtime"),
    ("  folder: runs/test", "  seed: -1\n  folder: r", "run.seed: -1 is outside"),
    ("  folder: runs/test", '  folder: "a\\0b"', "run.folder: 'a\\x00b' is no path in UTF-8"),
    ("  folder: runs/test", '  folder: "\\uD800"', "run.folder: '\\ud800' is no path in UTF-8"),
    ("store: stores/test", 'store: "~a\\0b"', "data.store: '~a\\x00b' is no path in UTF-8"),
    ("init_from: stage1", 'init_from: "a\\0"', "stages.stage2.init_from: 'a\\x00' is no path"),
    ("  folder: runs/test", "  folder: 7", "run.folder: 7 is not text"),
    ("run:\n  folder: runs/test", "", "missing key run"),
]
ADDED = [  # a line at the end
    ("  zero_stage: true", "runtime.zero_stage: True is not one of 0, 1, 2, 3"),
    ("  zero_stage: 1.0", "runtime.zero_stage: 1.0 is not one of"),
    ("  zero_stage: 4", "runtime.zero_stage: 4 is not one of"),
    ("  precision: bf61", "runtime.precision: 'bf61' is not one of bf16, fp32; did you mean bf16?"),
    ("  batch_size: 9", "line 12: key 'batch_size' is given twice"),
    ("run: {folder: a}", "line 12: key 'run' is given twice"),
    ("attention: {mask_grad: 1}", "attention.mask_grad: 1 is not true or false"),
    ("attention: {sigma: 1.5}", "attention.sigma: 1.5 is outside [0, 1]"),
    ("attention: {omega: 0}", "attention.omega: 0.0 is outside"),
    ("attention: {impl: cuda}", "runtime.impl: 'cuda' is not one of auto, triton, reference"),
    ("attention: {mask_clas: label}", "unknown key attention.mask_clas;", "attention.mask_class?"),
    ("model: bottleneck", "model: expected keys below it, found 'bottleneck'"),
    ("model: {encoder: [basic]}", "model.encoder: ['basic'] is not text"),
    ("objective: {marked_per_batch: 0}", "objective.marked_per_batch: 0 is outside"),
    ("objective: {lesion_share: 1.1}", "objective.lesion_share: 1.1 is outside"),
    ("objective: {lesion_weight: -1}", "objective.lesion_weight: -1.0 is outside"),
    ("augment: {rotate: 200}", "augment.rotate: 200.0 is outside [0, 180]"),
    ("augment: {scale: 1}", "augment.scale: 1.0 is outside [0, 0.9]"),
    ("  weight_decay: .nan", "runtime.weight_decay: not a number"),
    (
        "  compile: true\n  sync_batch_norm: true",
        "runtime.sync_batch_norm: its sums",
        "runtime.compile to",
    ),
    ("  weight_decay: 11", "runtime.weight_decay: 11.0 is outside [0, 10]"),
    ("  log_every: 0", "runtime.log_every: 0 is outside"),
    ("  save_every: 0", "runtime.save_every: 0 is outside"),
    ("model: !!python/object/apply:os.getcwd []", "not valid YAML", "python/object/apply"),
    ("model: !!python/name:os.system", "not valid YAML", "python/name"),
    ("model: [1", "not valid YAML"),
    ("---\nrun: 1", "not valid YAML"),
    ("model: 2024-13-45", "not valid YAML", "month"),  # PyYAML raises a bare ValueError
    ("model: " + 2000 * "[", "not valid YAML"),
    ("model: \x01", "not valid YAML"),
    ("model: {<<: {encoder: basic}}", "line 12: << (merging) is not read; write the keys out"),
]


@pytest.mark.parametrize(("old", "new", "words"), [(o, n, w) for o, n, *w in MISTAKES])
def test_mistakes(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert GOOD.count(old) == 1
    message = refusal(written(tmp_path, GOOD.replace(old, new)))
    assert message.startswith(words[0]) and all(word in message for word in words)


@pytest.mark.parametrize(("line", "words"), [(line, w) for line, *w in ADDED])
def test_mistakes_in_a_further_line(tmp_path: Path, line: str, words: list[str]) -> None:
    message = refusal(written(tmp_path, GOOD + line + "\n"))
    assert message.startswith(words[0]) and all(word in message for word in words)


@pytest.mark.parametrize(
    ("canvas", "words"),
    [(330, "330 is not a multiple of 16"), (16, "16 is outside"), (4112, "4112 is outside")],
)
def test_canvas(tmp_path: Path, canvas: int, words: str) -> None:
    text = GOOD.replace("store: stores/test", f"store: s\n  canvas: {canvas}")
    assert refusal(written(tmp_path, text)).startswith(f"data.canvas: {words}")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- run\n", "run\n"])
def test_no_keys_at_all(tmp_path: Path, text: str) -> None:
    assert "no config, which has keys such as data.store" in refusal(written(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml").startswith("No such file")
    assert refusal(tmp_path).startswith("Is a directory")
    assert "configs/demo.yaml" in refusal(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("run: {folder: Zürich}".encode("latin-1"))
    assert refusal(latin).startswith("not UTF-8 text")


def test_dump_reads_back(tmp_path: Path) -> None:
    text = GOOD + "attention: {omega: 12.5, mask_grad: false}\nmodel: {layout: basic}\n"
    config = load(written(tmp_path, text))
    whole = dump(config)
    assert load(written(tmp_path, whole)) == config
    for cls in (configs.Augment, configs.Attention, configs.Objective, configs.Runtime):
        for field in dataclasses.fields(cls):
            assert re.search(rf"^  {field.name}: ", whole, re.MULTILINE), field.name


def test_dump_reads_back_with_small_numbers(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD.replace("lr: 2,", "lr: 1.0e-7,")))
    assert load(written(tmp_path, dump(config))).stage(2).lr == 1e-7


def test_differences(tmp_path: Path) -> None:
    ours = load(written(tmp_path, GOOD))
    theirs = load(written(tmp_path, GOOD.replace("lr: 2,", "lr: 3,") + "model: {layout: basic}\n"))
    assert differences(ours, ours) == []
    assert differences(ours, theirs) == [
        "stages.stage2.lr: 2.0 here, 3.0 there",
        "model.encoder: 'bottleneck' here, 'basic' there",
    ]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_load(path: Path) -> None:
    config = load(path)
    paper = path.stem == "paper"
    assert config.attention.mask_class == ("label" if paper else "abnormal")
    assert config.objective.schedule == ("paper" if paper else "rescaled")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("init_from: stage1", "init_from: stage2", "stages.stage2.init_from: stage2 does not come"),
        ("init_from: stage1", "init_from: stage3", "stages.stage2.init_from: stage3 does not come"),
        ("folder: runs/test", "folder: ''", "run.folder: names no folder"),
        ("store: stores/test", "store: ' '", "data.store: names no folder"),
    ],
)
def test_starts_and_folders_that_make_no_sense(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert said in refusal(written(tmp_path, GOOD.replace(old, new)))


def test_several_nodes_differ_from_one_only_in_how_they_run() -> None:
    """Same films, stages and losses; the cache serves several nodes, so none decodes each epoch."""
    one, several = (load(SHIPPED / f"{name}.yaml") for name in ("mura", "mura_multinode"))
    assert several.data == one.data and several.data.feed == "resident"


@pytest.mark.parametrize(
    ("written_as", "found"),
    [("off", "off"), ("on", "on"), ("false", "off"), ("true", "on")]
    + [(name, name) for name in ("reduce-overhead", "whole-step")]
    + [("'on'", "on")],
)
def test_compile_as_yaml_and_earlier_versions_have_it(
    tmp_path: Path, written_as: str, found: str
) -> None:
    """YAML reads on and off as true and false, which is also what earlier versions wrote."""
    path = written(tmp_path, GOOD + f"  compile: {written_as}\n")
    assert load(path).runtime.compile == found
    assert load(written(tmp_path, dump(load(path)))).runtime.compile == found


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("2E+1", 20.0), ("1.5e2", 150.0), (".5e-1", 0.05), ("5.e-1", 0.5)]
    + [("+.5", 0.5), ("010.5", 10.5), ("7.", 7.0)],
)
def test_a_number_with_an_exponent_is_a_number(tmp_path: Path, text: str, value: float) -> None:
    assert load(written(tmp_path, GOOD.replace("lr: 2,", f"lr: {text},"))).stage(2).lr == value


def test_a_folder_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    for folder in ("1e5", "-.5", "010", "1:30", "0x1", "+7", "1_0"):
        config = changed(load(written(tmp_path, GOOD)), {"run.folder": folder})
        assert load(written(tmp_path, dump(config))).run.folder == folder


def test_a_key_of_a_section_that_is_not_there(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))
    with pytest.raises(ConfigError, match=r"no segmenter .*: 'stages\.segmenter={epochs: 2}'$"):
        changed(config, {"stages.segmenter.epochs": 2})


def test_settings_are_yaml() -> None:
    words = ["runtime.batch_size=64", "stages.stage1.lr=1e-3", "data.balanced=true", "data.cache="]
    found = settings([*words, "run.folder=a=b", "stages.segmenter={epochs: 2}"])
    assert found == {
        "runtime.batch_size": 64,
        "stages.stage1.lr": 1e-3,
        "data.balanced": True,
        "data.cache": None,
        "run.folder": "a=b",
        "stages.segmenter": {"epochs": 2},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch"], "--set batch: write KEY=VALUE"),
        (["=3"], "--set =3: write KEY=VALUE"),
        (["a=1", "a=2"], "--set a=2: a is given twice"),
        (["a=[1"], "--set a=.*: not valid YAML"),
    ],
)
def test_settings_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        settings(words)
    assert "\n" not in str(caught.value)
