"""What an export carries with it, and `pcamx export --check` on copies of it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from one_line import assert_one_line
from safetensors.torch import load_file, save_file

from pcamx import cli
from pcamx.export import check_copy, samples
from pcamx.run.pretrained import from_pretrained
from pcamx.seals import SEAL, sealed


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def resign(folder: Path) -> None:
    """Write the digests anew, so that only the answers can tell."""
    path = folder / "samples/sha256.json"
    digests = {p.relative_to(folder).as_posix(): samples._digest(p) for p in samples._files(folder)}
    path.write_text(json.dumps(sealed(digests)))


def run_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["pcamx", "export", "--check", str(folder)])
    return cli.main()


def test_onnx_carries_the_facts(exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    found = {one.key: one.value for one in model.metadata_props}
    config = json.loads((exported / "config.json").read_text())
    for name in ("encoder", "pooling", "commit"):
        assert found[name] == config[name]
    for name in ("stage", "mirrored", "canvas", "mean", "std", "classes", "thresholds", "versions"):
        assert json.loads(found[name]) == config[name]


def test_a_copy_is_found_whole(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_check(copy, monkeypatch) == 0
    assert re.search(r"model\.safetensors .*, model\.onnx ", capsys.readouterr().out)
    with np.load(copy / "samples/expected.npz") as expected:
        found = from_pretrained(copy, device="cpu").predict(
            [copy / "samples" / name for name in samples.FILMS]
        )
        assert expected["probability"] == pytest.approx([one.probability for one in found], 1e-5)


@pytest.mark.parametrize("more", [["--out", "elsewhere"], ["--stage", "1"]])
def test_a_check_takes_nothing_that_it_would_pass_over(
    copy: Path,
    more: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["pcamx", "export", "--check", str(copy), *more])
    assert cli.main() == 2
    assert "leave out --out and --stage" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.onnx", "README.md", "samples/normal.png"])
def test_a_changed_byte_is_named(
    copy: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert run_check(copy, monkeypatch) == 1
    assert_one_line(capsys.readouterr().err, name)
    (copy / name).unlink()
    assert run_check(copy, monkeypatch) == 1
    assert_one_line(capsys.readouterr().err, name)


def test_other_answers_are_found(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digests hold and the weights are others, as those of a machine that computes wrongly."""
    state = load_file(copy / "model.safetensors")
    state["head.weight"] *= 1.01
    save_file(state, copy / "model.safetensors")
    facts = json.loads((copy / "config.json").read_text())
    facts["sha256"] = samples._digest(copy / "model.safetensors")
    del facts[SEAL]
    (copy / "config.json").write_text(json.dumps(sealed(facts)))
    resign(copy)
    assert run_check(copy, monkeypatch) == 1
    assert_one_line(capsys.readouterr().err, "model.safetensors", "differs by")


def test_without_onnxruntime(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    assert set(check_copy(copy)) == {"model.safetensors"}
    assert run_check(copy, monkeypatch) == 0
    assert "onnxruntime is not installed, so model.onnx was not run" in capsys.readouterr().out


def test_an_export_of_before_is_no_mismatch(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy / "samples")
    assert run_check(copy, monkeypatch) == 2
    assert_one_line(capsys.readouterr().err, "sha256.json")
