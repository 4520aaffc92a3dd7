"""`pcamx init`: a config that loads, fits, says why and never overwrites unasked."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from pcamx import __version__, cli
from pcamx.cli.init import SHIPPED
from pcamx.config import load
from pcamx.data.feed.order import steps_per_epoch
from pcamx.errors import PcamxError
from pcamx.training.first_config import Films, Machine, first_config

LAPTOP = Machine(gpus=0, cores=4, bf16="")


def config_of(tmp_path: Path, films: Films, here: Machine = LAPTOP) -> Any:
    path = tmp_path / "first.yaml"
    path.write_text(first_config(films, here, "hands"), encoding="utf-8")
    return load(path)


def test_by_hand_for_two_sets(tmp_path: Path) -> None:
    """1,920 films / 60 steps = batches of 32, 20 epochs = 1,200 steps; a tenth is abnormal."""
    small = config_of(tmp_path, Films("s", train=1920, abnormal=192, marked=7, side=300))
    assert (small.runtime.batch_size, small.stage(1).epochs, small.stage(2).epochs) == (32, 20, 6)
    assert (small.data.canvas, small.data.balanced, small.data.marked) == (288, "on", 7)
    assert (small.objective.marked_per_batch, small.runtime.log_every) == (7, 10)
    assert (small.runtime.precision, small.runtime.zero_stage, small.data.threads) == ("fp32", 0, 4)
    server = Machine(gpus=4, cores=64, bf16="this GPU")
    # 36,808 / 60 = 613: 512 films are 128 a GPU. 71 steps an epoch, 17 epochs for 1,200.
    large = config_of(tmp_path, Films("s", 36808, 14873, None, 512), server)
    assert (large.runtime.batch_size, large.stage(1).epochs, large.data.threads) == (512, 17, 16)
    assert (large.data.canvas, large.data.balanced, large.data.marked) == (320, "off", 100)
    assert (large.runtime.precision, large.runtime.zero_stage) == ("bf16", 1)


@pytest.mark.parametrize(
    ("marked", "learned", "watched"), [(9, 9, 0), (49, 49, 0), (55, 50, 5), (1000, 980, 20)]
)
def test_a_tenth_of_the_marks_is_watched(
    tmp_path: Path, marked: int, learned: int, watched: int
) -> None:
    config = config_of(tmp_path, Films("s", 1920, 1200, marked, 300))
    assert (config.data.marked, config.data.watched) == (learned, watched)
    assert config.objective.marked_per_batch == min(8, learned)


@pytest.mark.parametrize("train", [4, 5, 17, 32, 500, 10**6])
@pytest.mark.parametrize("gpus", [0, 1, 2])
@pytest.mark.parametrize("marked", [None, 0, 1, 1000])
def test_every_size_loads_and_has_steps(
    tmp_path: Path, train: int, gpus: int, marked: int | None
) -> None:
    films = Films('a "store": #1', train, 1, marked, 40)
    config = config_of(tmp_path, films, Machine(gpus, 2, "this GPU"))
    batch, ranks = config.runtime.batch_size, max(1, gpus)
    assert batch % ranks == 0 and config.data.store == films.store
    assert steps_per_epoch(train, batch, config.objective.marked_per_batch) >= 1


def test_fewer_films_than_gpus() -> None:
    with pytest.raises(PcamxError, match="7 training films are fewer than the 8 GPUs"):
        first_config(Films("s", 7, 3, 0, 128), Machine(8, 8, ""), "hands")


def test_every_value_has_its_reason() -> None:
    text = first_config(Films("s", 100, 40, None, None), LAPTOP, "hands")
    values = [line for line in text.splitlines() if line.startswith("  ")]
    assert len(values) == 14 and all(re.search(r"\S  +# \S", line) for line in values)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = ["path;label;patient"]
    for i in range(30):
        Image.new("L", (70, 100), 8 * i).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png;{'broken' if i % 4 else 'whole'};p{i}")
    (tmp_path / "hands.csv").write_text("\n".join(rows))
    return tmp_path


def init(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pcamx", "init", *words])
    return cli.main()


def test_a_table_and_then_no_overwriting(
    films: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("hands.csv", "--normal", "whole", "--abnormal", "broken")
    assert init(monkeypatch, *words) == 0
    config = load(films / "hands.yaml")
    assert (config.run.folder, config.data.store) == ("runs/hands", "stores/hands")
    assert config.data.canvas == 96
    said = capsys.readouterr().out
    assert "pcamx prepare . --table hands.csv --out stores/hands --normal whole" in said
    assert "pcamx train hands.yaml --stage all" in said
    (films / "hands.yaml").write_text("mine")
    assert init(monkeypatch, *words) == 2
    assert capsys.readouterr().err == (
        "pcamx: error: hands.yaml exists; choose another --out, or add --replace\n"
    )
    assert (films / "hands.yaml").read_text() == "mine"
    assert init(monkeypatch, *words, "--replace") == 0
    assert load(films / "hands.yaml") == config


def test_films_in_a_folder_beside_the_table(
    films: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("hands.csv", "--normal", "whole", "--abnormal", "broken")
    (films / "empty").mkdir()
    (films / "scans").mkdir()
    for film in films.glob("*.png"):
        film.rename(films / "scans" / film.name)
    assert init(monkeypatch, *words) == 0
    assert load(films / "hands.yaml").data.canvas == 96
    assert "pcamx prepare scans --table hands.csv --out" in capsys.readouterr().out
    (films / "scans").rename(films.parent / "elsewhere")
    assert init(monkeypatch, *words, "--replace") == 0
    said = capsys.readouterr().out
    assert "no film of it was found in .: write their folder there instead" in said


def test_a_folder_keeps_its_whole_name(
    films: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else hand.2023 and hand.2024 would share a store and a run."""
    told = []
    monkeypatch.setattr("pcamx.cli.init._fit", lambda options, name, out: told.append((name, out)))
    (films / "hand.2023").mkdir()
    assert init(monkeypatch, "hand.2023") == 0 and init(monkeypatch, "hands.csv") == 0
    assert told == [("hand.2023", Path("hand.2023.yaml")), ("hands", Path("hands.yaml"))]


def test_a_store(tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "first.yaml"
    assert init(monkeypatch, str(store_folder), "--out", str(out)) == 0
    config = load(out)
    assert config.data.store == str(store_folder) and config.data.canvas == 48
    assert 1 <= config.data.marked <= 32


@pytest.mark.parametrize("name", ["a\x7fb", "a\x85b", "a\u2028b", "Zürich", "a'\"\\ b"])
def test_a_store_of_an_odd_name(
    tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).symlink_to(store_folder)
    out = tmp_path / "first.yaml"
    assert init(monkeypatch, str(tmp_path / name), "--out", str(out)) == 0
    assert load(out).data.store == str(tmp_path / name)
    assert ("Zürich" in name) == ("Zürich" in out.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "said"), [("a\udcff", "is no path in UTF-8; rename"), ("~root", "rename it")]
)
def test_a_store_that_no_config_can_name(
    tmp_path: Path, store_folder: Path, monkeypatch: Any, capsys: Any, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).symlink_to(store_folder)
    assert init(monkeypatch, name, "--out", "first.yaml") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err and "Traceback" not in err
    assert not Path("first.yaml").exists()


def test_a_set_without_validation_films(
    films: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{i}.png,{i % 2},train" for i in range(30)]
    (films / "hands.csv").write_text("\n".join(["path,label,split", *rows]))
    assert init(monkeypatch, "hands.csv") == 2
    assert capsys.readouterr().err == (
        "pcamx: error: hands.csv: no film is in the valid split; training needs train and valid\n"
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_config_that_comes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init(monkeypatch, "--copy", name) == 0
    ours = Path(__file__).resolve().parents[2] / "configs" / f"{name}.yaml"
    assert (tmp_path / f"{name}.yaml").read_bytes() == ours.read_bytes()
    assert init(monkeypatch, "--copy", name) == 2  # it is there


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing.csv",), "nothing.csv: no such file or folder; name a store"),
        (("0.png",), "0.png: not a csv; name a store, a data folder or a csv"),
        (("hands.csv",), "hands.csv, line 2: label is 'whole'; write 0 for normal"),
        (("hands.csv", "--out", "a.txt"), "--out a.txt: not a YAML file; name one such as a.yaml"),
        ((".",), "neither a MURA-v1.1 folder"),
        (("--copy", "paper", "--normal", "a"), "--copy: takes no --normal or --abnormal"),
    ],
)
def test_mistakes_are_one_line(
    films: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    assert init(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said
    assert not list(films.glob("*.yaml"))


def test_the_citation_names_this_version() -> None:
    path = Path(__file__).resolve().parents[2] / "CITATION.cff"
    cited = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert cited["version"] == __version__ and cited["preferred-citation"]["year"] == 2019
