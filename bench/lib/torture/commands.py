"""The commands that write, killed or stopped at a file operation or a moment, and run again."""

import functools
import hashlib
import json
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lib.torture.command_cases import CASES, Case
from bench.lib.torture.command_run import KILL, LONG, TEMPORARY, Ended, run, running
from bench.lib.torture.runs import bits
from bench.lib.torture.struck import FULL, READ_ONLY
from pcamx.catalogue import STAGE_1
from pcamx.compare.measured import read_run
from pcamx.data.store import CACHE
from pcamx.errors import PcamxError
from pcamx.run.folder import RunFolder
from pcamx.run.lock import NAME

_RUN = RunFolder(Path())
_WEIGHTS = _RUN.weights(STAGE_1.key).name
_OUT, _NEW = "out", "new"
"""Folders: of the results, and of those where a command asks for another."""
DISKS = (FULL, READ_ONLY)
REFUSED = 2
_REFUSAL = re.compile(r"^pcamx: error: .*(No space left|Read-only file system|disk)", re.M)
_SIGNALS = (KILL, KILL, KILL, "SIGTERM", "SIGINT")

Digests = dict[str, str]
"""SHA-256 by path in the trial's folder, of all but hidden files."""


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


def _digests(trial: Path, case: Case, place: str = _OUT) -> Digests:
    """Digests of the files that a person sees, ``place`` being the folder that was named."""
    found = {}
    for path in trial.glob("**/*"):
        name = path.relative_to(trial)
        if any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        if name.parts[0] == TEMPORARY or (place != _OUT and name.parts[0] == _OUT):
            continue
        name = Path(str(name).replace(f"{place}/", f"{_OUT}/", 1))
        if any(map(name.match, case.dated)):
            continue
        content = path.read_bytes().replace(f"{trial}/{place}".encode(), f"{trial}/{_OUT}".encode())
        content = content.replace(b" --replace", b"")  # of the words that some files hold
        digest = hashlib.sha256(content).hexdigest()
        found[str(name)] = bits(path) if path.name == _WEIGHTS else digest
    return found


def _hidden(trial: Path) -> set[str]:
    """Hidden and temporary files, but for the locks of runs."""
    found = [path for path in trial.rglob(".*") if path.name != NAME]
    return {str(path.relative_to(trial)) for path in (*found, *(trial / TEMPORARY).iterdir())}


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


def words_of(folder: Path, words: str) -> list[str]:
    return words.format(sound=folder / "sound", trial=folder / "trial").split()


@functools.cache
def undisturbed(folder: Path, name: str) -> Undisturbed:
    """Run a command as it should be; raises PcamxError where it fails."""
    case, before = CASES[name], folder / "before" / name
    _begin(folder, case)
    if case.earlier:
        _whole(run(folder, words_of(folder, case.earlier), case), name)
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(folder / "trial", before)
    shutil.rmtree(folder / "trial")
    shutil.copytree(before, folder / "trial")
    ended = _whole(run(folder, words_of(folder, case.words), case), name)
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
    case, sound = CASES[name], undisturbed(folder, name)
    plan: dict[str, Any] = {"signal": rng.choice(_SIGNALS), "group": rng.random() < 0.5}
    wait, share = LONG, rng.random()
    if rng.random() < 0.7:
        plan["at"], when = some_operation(sound, rng)
    else:
        wait = share * sound.seconds
        when = f"after {wait:.1f} s"
    whom = "its group" if plan["group"] else "it"
    what = f"{name}: {plan['signal']} to {whom} {when}"
    words, trial = words_of(folder, case.words), folder / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copytree(sound.before, trial)
    first = run(folder, words, case, plan, wait)
    fault = in_between(trial, case, sound, first, plan["signal"])
    if "at" in plan and plan["signal"] != KILL and not first.code:
        fault = "passed over"
    return fault_of(first, what, fault) or and_again(folder, name, first, what)


def some_operation(sound: Undisturbed, rng: random.Random) -> tuple[int, str]:
    """Choose one, as often of each kind: few are renames, on which all hangs."""
    kind = rng.choice(sorted(set(sound.operations)))
    at = rng.choice([n for n, one in enumerate(sound.operations) if one == kind])
    return at, f"at {kind}, {at + 1} of {len(sound.operations)} operations"


def fault_of(ended: Ended, what: str, fault: str) -> dict[str, str]:
    """Return the line of a trial that is a fault, an empty one otherwise."""
    return {"came": "fault", "what": f"{what}; {fault}", "said": ended.said} if fault else {}


def and_again(folder: Path, name: str, first: Ended, what: str) -> dict[str, str]:
    """Run a command that was struck again; return what came of it."""
    case, sound = CASES[name], undisturbed(folder, name)
    second, followed = _again(folder, case, words_of(folder, case.words))
    fault = _in_the_end(folder / "trial", case, sound, second) or _left(first, second)
    came = "the same files" if first.code else "ended before"
    return fault_of(second, what + followed, fault) or {
        "came": came,
        "what": what + followed,
        "said": "",
    }


def in_between(trial: Path, case: Case, sound: Undisturbed, first: Ended, number: str) -> str:
    """Say what is wrong after the strike, if anything."""
    if "Traceback" in first.said:
        return "traceback"
    if number in DISKS and first.code:
        if first.code != REFUSED or not _REFUSAL.search(first.said):
            return f"exit code {first.code}, no line of what the disk refuses"
    elif number != KILL and first.code and first.code != 130:
        return f"exit code {first.code}"
    if number not in (KILL, READ_ONLY) and first.code:
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
    for report in trial.rglob(_RUN.report_file.name):
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
    ended = run(folder, words, case)
    if ended.code and "add --replace" in ended.said:
        return run(folder, [*words, "--replace"], case), ", then with --replace"
    if ended.code and "a new" in ended.said:
        new = [word.replace(f"trial/{_OUT}", f"trial/{_NEW}") for word in words]
        return run(folder, new, case), ", then to a new folder"
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
    still = [words for one in ended for words in running(one.session)]
    return f"still running: {still[:2]}" if still else ""
