"""The record that every bench writes, the clock, and the command lines' manners."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.lib import command, record, timing
from bench.lib.record import Record, Row
from bench.lib.timing import Timing
from pcamx import provenance
from pcamx.errors import PcamxError

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bench/loader.py", "--json", "a b.json"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = record.begin("loader", CPU, {"nothing": "no-such-distribution"})
    found.rows.extend(Timing(2.0, 1.5, 12345.6).rows("b 1", "ours"))
    found.rows.append(Row("b 1", "ours", "speed", 2.5, "x", "eager"))
    found.rows.append(Row("b 1", "eager", "time p50", 5.0, "ms"))
    found.rows.append(Row("b 2", "eager", "images", 1.23456e-4, "1/s"))
    return found


def test_json_has_these_keys_and_no_others(made: Record, tmp_path: Path) -> None:
    record.write_json(made, tmp_path / "a.json")
    tree = json.loads((tmp_path / "a.json").read_text())
    assert list(tree) == ["device", "versions", "commit", "command", "rows"]
    keys = ["case", "impl", "metric", "value", "unit", "ratio_to"]
    assert [list(row) for row in tree["rows"]] == [keys] * 6
    assert tree["rows"][3] == dict(
        zip(keys, ["b 1", "ours", "speed", 2.5, "x", "eager"], strict=True)
    )
    assert tree["rows"][0]["ratio_to"] is None
    assert record.read_json(tmp_path / "a.json") == made


def test_where_a_record_comes_from(made: Record) -> None:
    assert made.command == "python -m bench.loader --json 'a b.json'"
    assert made.versions["torch"] == torch.__version__
    assert made.versions["nothing"] == "not installed"
    assert {"pcamx", "python", "triton", "numpy", "dali", "deepspeed"} <= set(made.versions)
    assert made.commit == provenance.commit()
    assert made.device.endswith(f" cores, {torch.get_num_threads()} used")


def test_results_lie_where_the_help_says() -> None:
    assert command.RESULTS == ROOT / "bench" / "results"


def test_a_row_needs_a_number() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="b 1, ours: time p50 is"):
            Row("b 1", "ours", "time p50", value, "ms")


def test_markdown_by_hand(made: Record) -> None:
    text = record.markdown(made, "Loader", ["a note"])
    assert text.startswith("# Loader\n\n" + made.device)
    assert "\n    python -m bench.loader --json 'a b.json'\n\n- a note\n" in text
    assert text.endswith(
        "\n## b 1\n\n"
        "|  | time p50 (p20-p80), ms | speed, x of eager |\n"
        "| --- | --- | --- |\n"
        "| ours | 2 (1.50-12,346) | 2.50 |\n"
        "| eager | 5 |  |\n"
        "\n## b 2\n\n"
        "|  | images, 1/s |\n"
        "| --- | --- |\n"
        "| eager | 0.000123 |\n"
    )


def test_another_commands_results_are_not_overwritten(
    made: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    path = record.outputs("loader", made, None, None)
    assert path.parent == tmp_path / "results"
    assert path.name.startswith("cpu_20") and path.name.endswith("_loader.md")
    record.write_markdown(made, path, "Loader")
    assert record.outputs("loader", made, None, None) == path
    other = Record(made.device, made.versions, made.commit, "python -m bench.loader")
    with pytest.raises(PcamxError, match="_loader.md: holds the results of another command; name"):
        record.outputs("loader", other, None, None)
    assert record.outputs("loader", other, tmp_path / "new.md", None) == tmp_path / "new.md"


def test_a_gpu_names_its_file(
    made: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    device = "NVIDIA H100 80GB HBM3, driver 575.57.08, CUDA 13.0"
    gpu = Record(device, made.versions, made.commit, made.command)
    assert record.outputs("step", gpu, None, None).name.startswith("h100_80gb_hbm3_20")


@pytest.mark.parametrize("which", ["markdown", "json"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    which: str, made: Record, tmp_path: Path
) -> None:
    for path in (tmp_path / "none" / "a.md", tmp_path):
        places = {"markdown": tmp_path / "b.md", "json": None, which: path}
        with pytest.raises(PcamxError, match=f"^{path}: cannot be written; name a file"):
            record.outputs("loader", made, places["markdown"], places["json"])


def test_what_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"rows": [{"case": 1}]}')
    for name in ("a.json", "none.json"):
        with pytest.raises(PcamxError, match=f"{name}: not a record of a bench: "):
            record.read_json(tmp_path / name)


def test_quantiles_by_hand() -> None:
    assert timing.quantiles([5.0, 1.0, 4.0, 2.0, 3.0, 6.0]) == Timing(3.5, 2.0, 5.0)
    rows = Timing(3.5, 2.0, 5.0).rows("case", "ours", "in a graph")
    assert [(row.metric, row.value, row.unit) for row in rows] == [
        ("in a graph p50", 3.5, "ms"),
        ("in a graph p20", 2.0, "ms"),
        ("in a graph p80", 5.0, "ms"),
    ]


def test_rivals_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ran = [0.0], list[str]()

    def call(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            ran.append(name)
            clock[0] += seconds

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "SECONDS", {"cpu": 1.0})
    # 2 x 1 s for both together, and 250 ms a turn: 8 turns, and one before them.
    found = timing.time_calls({"a": call("a", 0.05), "b": call("b", 0.2)}, CPU)
    assert ran == ["a", "b"] * 9
    assert found["a"] == pytest.approx((50, 50, 50)) and found["b"] == pytest.approx((200,) * 3)


def test_copies_are_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "COPY_BYTES", {"cpu": 3_000_000})
    monkeypatch.setattr(timing, "time_calls", lambda calls, _: {"copy": Timing(2.0, 1.0, 3.0)})
    assert timing.copy_bandwidth(CPU) == pytest.approx(3.0)  # 6 MB in 2 ms


def test_nothing_is_invented_on_a_cpu() -> None:
    assert timing.peak_bytes(lambda: torch.zeros(10), CPU) is None


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PcamxError("a.md: no"), 2, "python -m bench.loader: error: a.md: no\n"),
        (KeyboardInterrupt(), 130, "python -m bench.loader: stopped; nothing was written\n"),
    ],
)
def test_a_mistake_is_one_line(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_: Any) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["loader"])
    parser = command.parser("loader", "Loads.", "python -m bench.loader")
    assert command.main(parser, run) == code
    assert capsys.readouterr().err == said


def test_benches_start_without_what_a_bare_gpu_machine_lacks() -> None:
    lacking = ["nvidia", "deepspeed", "matplotlib", "PIL", "jinja2", "contourpy", "torchmetrics"]
    code = f"import sys\nfor m in {lacking}: sys.modules[m] = None\nimport bench.kernels"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_says_how_many_ranks_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.step", "--sizes", "2@32"])
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert command.command_line("step") == "python -m bench.step --sizes 2@32"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    expected = "OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m bench.step --sizes 2@32"
    assert command.command_line("step") == expected


def test_numbers_have_no_bare_point() -> None:
    assert [record.number(value) for value in (99.97, 9.996, 99.5)] == ["100", "10.0", "99.5"]
