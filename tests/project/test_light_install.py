"""What is said where a package of `pcamx[train]` is missing, and that the list of them is whole."""

import re
import sys
import tomllib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from one_line import assert_one_line
from PIL import Image

from pcamx import cli
from pcamx.data.files import image, image_decoders
from pcamx.errors import TRAIN, missing_package

PROJECT = tomllib.loads(
    (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
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


def encoded(kind: str, pixels: np.ndarray, turn: int = 1) -> bytes:
    out, exif = BytesIO(), Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(out, kind, **({"exif": exif} if turn != 1 else {}))
    return out.getvalue()


GREY = np.arange(30 * 20, dtype=np.uint8).reshape(30, 20)
DEEP = np.arange(30 * 20, dtype=np.uint16).reshape(30, 20) * 100
COLOURS = np.stack([GREY, GREY[::-1], GREY], axis=-1)


@pytest.mark.parametrize(
    "data",
    [
        *(encoded("JPEG", GREY, turn) for turn in range(1, 9)),
        *(encoded("PNG", pixels) for pixels in (GREY, DEEP, GREY > 100)),
        encoded("PNG", GREY[..., None].repeat(3, axis=-1)),
        *(encoded("TIFF", pixels) for pixels in (GREY, DEEP)),
        encoded("BMP", GREY),
    ],
)
def test_grey_films_are_the_same_to_the_bit(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """`predict` needs no DALI."""
    expected = image.read_image(data)
    monkeypatch.setattr(image_decoders, "_decoder", without_dali)
    found = image.read_image(data)
    assert found.grey_HW.dtype == expected.grey_HW.dtype
    assert np.array_equal(found.grey_HW, expected.grey_HW)
    assert (found.kind, found.turn) == (expected.kind, expected.turn)


def without_dali() -> None:
    raise ModuleNotFoundError("No module named 'nvidia'", name="nvidia")


def test_what_needs_dali_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoders, "_decoder", without_dali)
    with pytest.raises(image.UnfitError, match=r"in colour, which pcamx\[train\] decodes; install"):
        image.read_image(encoded("PNG", COLOURS))
    with pytest.raises(image.UnfitError, match="damaged"):
        image.read_image(encoded("JPEG", GREY)[:200])
