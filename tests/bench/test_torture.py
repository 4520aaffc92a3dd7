"""`make torture` on a small scale: the same trials each time, and readers that refuse in a line."""

import random
from pathlib import Path

import pytest

from bench import torture
from bench.lib.torture import files, inputs


def test_trials_are_a_function_of_seed_and_number() -> None:
    content = bytes(range(256)) * 8
    changed = [files.mutate(content, random.Random(f"1 {n}")) for n in range(50)]
    again = [files.mutate(content, random.Random(f"1 {n}")) for n in range(50)]
    assert changed == again and len(set(changed)) > 45


def test_every_kind_has_its_turn() -> None:
    kinds = [torture.kind_of(number, torture.KINDS) for number in range(1000)]
    assert set(kinds) == set(torture.KINDS)
    assert sum(kind in torture.RUNS for kind in kinds) == 20
    assert {torture.kind_of(number, ["kill", "stop"]) for number in range(4)} == {"kill", "stop"}
    assert {torture.kind_of(number, ["flip"]) for number in range(4)} == {"flip"}


def test_what_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def worker(_: object, seed: int, trials: list[tuple[int, str]]) -> object:
        made.extend(trial for trial, _ in trials)
        return [(trial, kind, {"came": "read", "what": "", "said": ""}) for trial, kind in trials]

    monkeypatch.setattr(torture, "in_a_worker", worker)
    monkeypatch.setattr(torture, "make", files.Damage)
    options = torture._parser().parse_args(["--folder", str(tmp_path), "--kinds", "flip,fuzz"])
    options.trials = 60
    torture.run(options)
    with (tmp_path / "trials_0.jsonl").open("a") as log:
        log.write('{"trial": 60, "ki')  # a kill
    options.trials = 62
    torture.run(options)
    assert made == list(range(62))
    torture.run(options)
    assert made == list(range(62))
    options.kinds = "flip"  # the trials that were of the other kind are still to be done so
    torture.run(options)
    assert made[62:] == [t for t in range(62) if torture.kind_of(t, ["flip", "fuzz"]) == "fuzz"]


def test_fuzzed_files_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = {key: use for key, use in inputs.FUZZ.items() if key.startswith("inputs/")}
    monkeypatch.setattr(files, "FUZZ", fed)
    inputs.draw_inputs(tmp_path / "inputs")
    before = {path: path.read_bytes() for path in (tmp_path / "inputs").rglob("*.*")}
    came = [files._trial(tmp_path, tmp_path, 0, n, "fuzz") for n in range(300)]
    assert not [one for one in came if one["came"] == "fault"]
    assert {one["came"] for one in came} == {"read", "refused"}
    assert before == {path: path.read_bytes() for path in (tmp_path / "inputs").rglob("*.*")}
