"""What is said where a package of `pcamx[train]` is missing, and that the list of them is whole."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from test_cli import assert_one_line

from pcamx import cli
from pcamx.errors import TRAIN, missing_package

PROJECT = tomllib.loads(
    (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
)["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", one)[0] for one in requirements}


def test_train_is_what_the_light_install_lacks() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(TRAIN.values()) == names(extras["train"])
    assert not names(PROJECT["dependencies"]) & set(TRAIN.values())
    assert "train" in extras["dev"][0]


@pytest.mark.parametrize(("platform", "part"), [("linux", "pcamx[train]"), ("darwin", "Linux")])
def test_one_line_for_a_missing_package(
    platform: str,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "pcamx.report.console", raising=False)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("sys.argv", ["pcamx", "prepare", str(tmp_path), "--out", str(tmp_path)])
    assert cli.main() == 2
    assert_one_line(capsys.readouterr().err, "rich", part)


def test_another_missing_module_is_a_fault_of_ours() -> None:
    assert missing_package(ModuleNotFoundError("no", name="pcamx.nothing")) is None
    found = missing_package(ModuleNotFoundError("no", name="nvidia.dali"))
    assert found is not None and "nvidia-dali-cuda130" in str(found)
