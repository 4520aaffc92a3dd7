"""`make torture` on a small scale: the same trials each time, and readers that refuse in a line."""

import random
from pathlib import Path

import pytest

from bench import torture
from bench.lib.torture import commands, files, inputs, struck


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


@pytest.mark.slow
def test_commands_that_are_killed_and_stopped_end_in_the_same_files(
    store_folder: Path, tmp_path: Path
) -> None:
    """Just before the last rename, and just after it."""
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound/store").symlink_to(store_folder)
    killed = commands.strike(tmp_path, "phantom", random.Random(2))
    stopped = commands.strike(tmp_path, "init again", random.Random(12))
    assert [killed["came"], stopped["came"]] == ["the same files"] * 2, (killed, stopped)
    assert "SIGKILL to its group at os.rename" in killed["what"]
    assert "SIGTERM to its group at os.remove" in stopped["what"]


def test_what_a_struck_command_may_not_leave(tmp_path: Path) -> None:
    """Neither half a result, nor hidden files, nor a word that is not so."""
    case, out = commands.Case(""), tmp_path / "out/file"
    for folder in (out.parent, tmp_path / "tmp"):
        folder.mkdir()

    def digests(content: str) -> dict[str, str]:
        out.write_text(content)
        return commands._digests(tmp_path, case)

    sound = commands.Undisturbed(
        tmp_path, digests("old"), digests("new"), set(), [], ["films: 1 to do"], 1.0
    )

    def found(content: str, said: str = "", code: int = 130, number: str = "SIGTERM") -> str:
        digests(content)
        ended = commands.Ended(code, said, 0, 1.0)
        return commands.in_between(tmp_path, case, sound, ended, number)

    nothing = "films: 2 to do\npcamx: stopped; nothing was written\n"
    assert found("old", nothing) == found("new", "pcamx: stopped; out was written\n") == ""
    assert found("new", nothing) == "something was written: ['out/file']"
    assert found("ne") == "neither old nor new: ['out/file']"
    assert found("old", code=1) == "exit code 1"
    assert found("old", "Traceback (most") == "traceback"
    assert found("old", "one\ntwo\n") == "says ['one', 'two']"
    full, line = "No space left on device", "pcamx: error: cannot write out: "
    for number, why in ((struck.FULL, full), (struck.READ_ONLY, "Read-only file system")):
        assert found("old", line + why, code=2, number=number) == ""
        assert found("old", why, code=2, number=number).startswith("exit code 2, no line")
        assert found("ne", line + why, code=2, number=number).startswith("neither old nor new")
    (tmp_path / ".out.draft").mkdir()
    assert found("old", line + full, code=2, number=struck.FULL) == "left ['.out.draft']"
    assert found("old", line + full, code=2, number=struck.READ_ONLY) == ""  # it cannot be removed
    assert found("old") == "left ['.out.draft']"
    assert found("old", code=-9, number="SIGKILL") == ""  # the next run clears up
