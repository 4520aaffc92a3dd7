"""The commands that write, killed or stopped at a file operation or a moment, and run again."""

import functools
import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lib import forked
from bench.lib.torture.runs import bits
from pcamx.compare.measured import read_run
from pcamx.data.store import CACHE
from pcamx.errors import PcamxError

STRUCK = Path(__file__).with_name("struck.py")
_LONG = 300.0
"""Seconds after which a command counts as hanging."""
_GRACE = 20.0
"""Seconds that processes of a killed command may take to see that it has gone."""
_OUT, _NEW, _TEMPORARY = "out", "new", "tmp"
"""Folders: of the results, of those where a command asks for another, and TMPDIR."""
_DATED = ("content.csv", "films.zip")
"""What holds the times of files."""
_KILL = "SIGKILL"
_SIGNALS = (_KILL, _KILL, _KILL, "SIGTERM", "SIGINT")

Digests = dict[str, str]
"""SHA-256 by path in the trial's folder, of all but hidden files."""


@dataclass(frozen=True)
class Case:
    """A command on a small set; {sound} and {trial} in its words are the folders' paths."""

    words: str
    copied: tuple[str, ...] = ()
    """Of the sound folder, what it works in; a:b copies a as b."""
    earlier: str = ""
    """The command that wrote what is there before."""
    without: tuple[str, ...] = ()
    """What of the copied goes first."""
    processors: int = 1
    one_by_one: bool = False
    """Whether files may be replaced one after the other: then readers refuse a mixture."""
    often: int = 4
    """Among the trials; less for what takes long."""
    dated: tuple[str, ...] = ()
    """Files that hold times, even where the clock stands still; they are not looked at."""


def _cases() -> dict[str, Case]:
    films, out = "{sound}/films/MURA-v1.1", "--out {trial}/out"
    phantom = "phantom {trial}/out --size 32 --seed 3 --twins --temptation plate letter"
    prepare = f"prepare {films} {out}"
    suggest = "marks suggest {trial}/run --data {sound}/unmarked"
    explain = f"explain {{sound}}/run {{sound}}/inputs/plain.dcm {{sound}}/inputs/a.png {out}"
    runs = ("run", "run:other")
    compare = f"compare {{trial}}/run {{trial}}/other {out}"
    reports = ("report.json", "report.html", "films.csv", "films.html", "figure2.png", "films")
    bare = tuple(f"run/{name}" for name in reports)
    figure = "figure {sound}/run patient60005/study1_positive/image1.png --out {trial}/figure.pdf"
    sheet = "--data {sound}/store --out {trial}/sheet.png"
    check = f"marks check {{sound}}/films/marks {sheet}"
    some = f"marks check {{sound}}/films/marks/valid {sheet}"
    evaluate = "evaluate {trial}/run"
    cases = {
        "phantom": Case(f"{phantom} --train 12 --valid 6"),
        "phantom, two processes": Case(f"{phantom} --train 150 --valid 6", processors=2),
        "prepare": Case(f"{prepare} --marks {{sound}}/films/marks"),
        "prepare again": Case(
            f"{prepare} --marks {{sound}}/films/marks", ("unmarked:out",), processors=2
        ),
        "prepare jpeg again": Case(f"{prepare} --transcode jpeg", ("store:out",), dated=_DATED),
        "prepare htj2k": Case(f"{prepare} --transcode htj2k", processors=2, dated=_DATED),
        "init": Case("init {sound}/store --out {trial}/films.yaml"),
        "init again": Case(
            "init {sound}/store --replace --out {trial}/films.yaml",
            earlier="init --copy demo --out {trial}/films.yaml",
        ),
        "marks check": Case(check),
        "marks check again": Case(check, earlier=some),
        "marks suggest": Case(suggest, ("run",)),
        "marks suggest again": Case(
            suggest, ("run",), earlier=f"{suggest} --count 3", one_by_one=True
        ),
        "explain": Case(explain),
        "explain again": Case(
            f"explain {{sound}}/run {films}/valid --replace {out}", earlier=explain, processors=2
        ),
        "export": Case("export {trial}/run", ("run",), often=1),
        "evaluate": Case(evaluate, ("run",), without=bare, one_by_one=True),
        "evaluate again": Case(f"{evaluate} --twins {{sound}}/twins", ("run",), one_by_one=True),
        "evaluate a store": Case(
            f"{evaluate} --store {{trial}}/store",
            ("run", "store", "films"),
            without=("store/cache",),
            one_by_one=True,
        ),
        "figure again": Case(figure, earlier=figure.replace("image1", "image2")),
        "compare": Case(compare, runs),
        "compare again": Case(
            compare, runs, earlier=f"compare {{trial}}/other {{trial}}/run {out}"
        ),
        "continue": Case(
            f"continue {{trial}}/run --marks {{sound}}/films/marks {out}",
            ("run",),
            often=1,
            one_by_one=True,
            dated=("out/*.*", "out/compare/*", "out/stage3/checkpoints/*/*"),
        ),
    }
    return cases | {
        f"marks suggest {tool}": Case(f"{suggest} --to {tool} {out}", ("run",), dated=_DATED)
        for tool in ("label-studio", "cvat", "labelme", "coco")
    }


CASES = _cases()


@dataclass
class Ended:
    """What became of a command."""

    code: int
    said: str
    session: int
    seconds: float


@dataclass(frozen=True)
class Undisturbed:
    """What a command does when nobody strikes it."""

    before: Path
    """A copy of the folder that it finds."""
    found: Digests
    """What is there before."""
    left: Digests
    """What is there in the end."""
    hidden: set[str]
    """What libraries leave in the folder of temporary files."""
    operations: list[str]
    said: list[str]
    seconds: float


def _run(
    folder: Path,
    words: Sequence[str],
    case: Case,
    plan: Mapping[str, Any] | None = None,
    wait: float = _LONG,
) -> Ended:
    """Run a command; the plan's signal comes at an operation, or after ``wait`` seconds."""
    log, trial = folder / "log", folder / "trial"
    log.write_bytes(b"")
    (trial / _TEMPORARY).mkdir(exist_ok=True)
    whole = {"at": None, "signal": _KILL, "group": True, **(plan or {})}
    whole |= {"processors": case.processors, "operations": str(folder / "operations")}
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(forked.PROJECT), "TERM": "dumb"}
    forked.context(env)  # whose own temporary files are not the command's
    env |= {"TMPDIR": str(trial / _TEMPORARY), "PYTHONDONTWRITEBYTECODE": "1"}
    (folder / "operations").unlink(missing_ok=True)
    process = forked.start([str(STRUCK), json.dumps(whole), *words], folder, env, log)
    while process.exitcode is None and not (folder / "operations").exists():
        time.sleep(0.01)  # before it has imported the command line, Python itself answers a stop
    begun = time.monotonic()
    process.join(wait)
    if process.exitcode is None:
        with suppress(ProcessLookupError):
            send = os.killpg if whole["group"] else os.kill
            send(process.pid or 0, signal.Signals[whole["signal"]])
        process.join(_LONG)
    hangs = process.exitcode is None
    if hangs:
        process.kill()
        process.join()
    seconds = time.monotonic() - begun
    code = -signal.SIGALRM if hangs else process.exitcode or 0
    said = log.read_text(errors="replace")
    return Ended(code, said, process.pid or 0, seconds)


def _running(session: int) -> list[str]:
    """The command lines of a session's processes, once those that are ending have ended."""
    end = time.monotonic() + _GRACE
    while (found := list(_of_session(session))) and time.monotonic() < end:
        time.sleep(0.1)
    for process, _ in found:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return [words for _, words in found]


def _of_session(session: int) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, found = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(found) == session and state != "Z":
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(folder.name), words.decode(errors="replace")


def _digests(trial: Path, case: Case, place: str = _OUT) -> Digests:
    """Digests of the files that a person sees, ``place`` being the folder that was named."""
    found = {}
    for path in trial.glob("**/*"):
        name = path.relative_to(trial)
        if any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        if name.parts[0] == _TEMPORARY or (place != _OUT and name.parts[0] == _OUT):
            continue
        name = Path(str(name).replace(f"{place}/", f"{_OUT}/", 1))
        if any(map(name.match, case.dated)):
            continue
        content = path.read_bytes().replace(f"{trial}/{place}".encode(), f"{trial}/{_OUT}".encode())
        content = content.replace(b" --replace", b"")  # of the words that some files hold
        digest = hashlib.sha256(content).hexdigest()
        found[str(name)] = bits(path) if path.name == "weights.pt" else digest
    return found


def _hidden(trial: Path) -> set[str]:
    """Hidden and temporary files, but for the locks of runs."""
    found = [path for path in trial.rglob(".*") if path.name != ".lock"]
    return {str(path.relative_to(trial)) for path in (*found, *(trial / _TEMPORARY).iterdir())}


def _begin(folder: Path, case: Case) -> None:
    """Make the trial's folder as a command finds it, but for what was there earlier."""
    trial, sound = folder / "trial", folder / "sound"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    for name in case.copied:
        source, _, target = name.partition(":")
        shutil.copytree(sound / source, trial / (target or source))
    for name in case.without:
        path = trial / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _words(folder: Path, words: str) -> list[str]:
    return words.format(sound=folder / "sound", trial=folder / "trial").split()


@functools.cache
def _undisturbed(folder: Path, name: str) -> Undisturbed:
    """Run a command as it should be; raises PcamxError where it fails."""
    case, before = CASES[name], folder / "before" / name
    _begin(folder, case)
    if case.earlier:
        _whole(_run(folder, _words(folder, case.earlier), case), name)
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(folder / "trial", before)
    shutil.rmtree(folder / "trial")
    shutil.copytree(before, folder / "trial")
    ended = _whole(_run(folder, _words(folder, case.words), case), name)
    found, left = _digests(before, case), _digests(folder / "trial", case)
    operations = json.loads((folder / "operations").read_text())
    said, hidden = ended.said.splitlines(), _hidden(folder / "trial")
    return Undisturbed(before, found, left, hidden, operations, said, ended.seconds)


def _whole(ended: Ended, name: str) -> Ended:
    if ended.code:
        raise PcamxError(f"{name}: fails without torture:\n{ended.said}")
    return ended


def _other(one: Digests, two: Digests) -> set[str]:
    return {name for name, _ in one.items() ^ two.items()}


def command(folder: Path, seed: str) -> dict[str, str]:
    """Kill or stop a command, run it again as its user would: the same files, nothing else."""
    rng = random.Random(seed)
    names = [name for name, case in CASES.items() for _ in range(case.often)]
    return strike(folder.resolve(), rng.choice(names), rng)


def strike(folder: Path, name: str, rng: random.Random) -> dict[str, str]:
    """Do so to the case ``name``, at one of its file operations or at a moment of its time."""
    case, sound = CASES[name], _undisturbed(folder, name)
    plan: dict[str, Any] = {"signal": rng.choice(_SIGNALS), "group": rng.random() < 0.5}
    wait, kinds, share = _LONG, sorted(set(sound.operations)), rng.random()
    if rng.random() < 0.7:  # as many in each kind of operation: few are renames, on which all hangs
        kind = rng.choice(kinds)
        places = [n for n, one in enumerate(sound.operations) if one == kind]
        plan["at"] = rng.choice(places)
        when = f"at {kind}, {plan['at'] + 1} of {len(sound.operations)} operations"
    else:
        wait = share * sound.seconds
        when = f"after {wait:.1f} s"
    whom = "its group" if plan["group"] else "it"
    what = f"{name}: {plan['signal']} to {whom} {when}"
    words, trial = _words(folder, case.words), folder / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copytree(sound.before, trial)
    first = _run(folder, words, case, plan, wait)
    fault = _in_between(trial, case, sound, first, plan["signal"])
    if "at" in plan and plan["signal"] != _KILL and not first.code:
        fault = "passed over"
    if fault:
        return {"came": "fault", "what": f"{what}; {fault}", "said": first.said}
    second, followed = _again(folder, case, words)
    if fault := _in_the_end(trial, case, sound, second) or _left(first, second):
        return {"came": "fault", "what": f"{what}{followed}; {fault}", "said": second.said}
    came = "the same files" if first.code else "ended before"
    return {"came": came, "what": what + followed, "said": ""}


def _in_between(trial: Path, case: Case, sound: Undisturbed, first: Ended, number: str) -> str:
    """What is wrong after the strike, if anything."""
    if "Traceback" in first.said:
        return "traceback"
    if number != _KILL and first.code:
        if first.code != 130:
            return f"exit code {first.code}"
        if hidden := _hidden(trial) - sound.hidden:
            return f"left {sorted(hidden)[:3]}"
        if len(lines := _unusual(first.said, sound.said)) > 1:
            return f"says {lines}"
    now = _digests(trial, case)
    written = [n for n in sorted(_other(now, sound.found)) if CACHE not in Path(n).parts]
    if "nothing was written" in first.said and written:
        return f"something was written: {written[:3]}"
    if now in (sound.found, sound.left):
        return ""
    if case.one_by_one and all(digest in _known(name, sound) for name, digest in now.items()):
        return next(_mixed(trial, now, sound), "")
    return f"neither old nor new: {sorted(_other(now, sound.left))[:3]}"


def _unusual(said: str, usual: Sequence[str]) -> list[str]:
    """The lines that an undisturbed command does not write; a progress may have begun."""
    begun = {_beginning(line) for line in usual}
    return [line for line in said.splitlines() if _beginning(line) not in begun]


def _beginning(line: str) -> str:
    """What a line begins with, up to a figure that may be another each time."""
    return re.split(r"[\d:]", line, maxsplit=1)[0]


def _known(name: str, sound: Undisturbed) -> set[str | None]:
    return {sound.found.get(name), sound.left.get(name)}


def _mixed(trial: Path, now: Digests, sound: Undisturbed) -> Iterator[str]:
    """The reports in whose folder old and new lie side by side, but that are read all the same."""
    for report in trial.rglob("report.json"):
        inside = {n: d for n, d in now.items() if (trial / n).is_relative_to(report.parent)}
        whole = (
            {n: d for n, d in side.items() if (trial / n).is_relative_to(report.parent)}
            for side in (sound.found, sound.left)
        )
        if inside in whole:
            continue
        with suppress(PcamxError):
            read_run(report.parent, "")
            yield f"old and new: {report.relative_to(trial)} is read"


def _again(folder: Path, case: Case, words: list[str]) -> tuple[Ended, str]:
    """Run it again, and once more with the option that it then names, if it does; which."""
    ended = _run(folder, words, case)
    if ended.code and "add --replace" in ended.said:
        return _run(folder, [*words, "--replace"], case), ", then with --replace"
    if ended.code and "a new" in ended.said:
        new = [word.replace(f"trial/{_OUT}", f"trial/{_NEW}") for word in words]
        return _run(folder, new, case), ", then to a new folder"
    return ended, ""


def _in_the_end(trial: Path, case: Case, sound: Undisturbed, second: Ended) -> str:
    """What is wrong after the second run, if anything."""
    if second.code:
        return f"exit code {second.code} when run again"
    place = _NEW if (trial / _NEW).exists() else _OUT
    now = _digests(trial, case, place)
    if other := _other(now, sound.left):
        return f"other results: {sorted(other)[:3]}"
    hidden = _hidden(trial) - sound.hidden
    if place != _OUT:  # what is left in a folder that is given up is nobody's surprise
        hidden = {name for name in hidden if not name.startswith(f"{_OUT}/")}
    return f"left {sorted(hidden)[:3]}" if hidden else ""


def _left(*ended: Ended) -> str:
    """The processes that outlive their command."""
    running = [words for one in ended for words in _running(one.session)]
    return f"still running: {running[:2]}" if running else ""
