"""`pcamx continue`: train stage 3 of a run on, with more marks, and compare the two."""

import argparse
import ctypes
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pcamx.catalogue import STAGE_3
from pcamx.cli.command import Commands, command
from pcamx.cli.options import FORMATS, MERGING, add_gpus, add_labels, add_set, told

if TYPE_CHECKING:
    from pcamx.training.continued import Continued


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "continue",
        run,
        "train stage 3 of a run on with more marks, in a new run that starts from its weights; "
        "evaluate it and compare the two",
        "pcamx continue runs/mine --marks export.json --out runs/mine2",
    )
    sub.add_argument("run", type=Path, metavar="RUN", help="an evaluated run; it stays as it is")
    sub.add_argument(
        "--marks",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help=f"{FORMATS}; {MERGING}; on a film that was marked before they replace its marks",
    )
    add_labels(sub)
    sub.add_argument("--out", type=Path, required=True, metavar="NEW_RUN", help="a new folder")
    add_gpus(sub)
    add_set(sub, f"stages.{STAGE_3.section}.epochs=2")


def run(options: argparse.Namespace) -> None:
    from pcamx import config as configs
    from pcamx.compare.measured import read_run
    from pcamx.errors import PcamxError
    from pcamx.report.console import track
    from pcamx.training.command import launched
    from pcamx.training.continued import begin

    if launched():
        raise PcamxError("pcamx continue starts the ranks itself; run it alone, with --gpus N")
    changes = configs.settings(options.set)
    read_run(options.run, str(options.run))  # what it will be compared with
    try:
        begun = begin(
            options.run,
            options.out,
            options.marks,
            labels=options.labels,
            changes=changes,
            track=track,
        )
    except configs.ConfigError as error:
        # The parent's own config names its file.
        raise told(error) if changes and str(options.run) not in str(error) else error from None
    try:
        _print(begun, options.run)
        if code := _train(begun, options.gpus):
            _leave_stopped(begun, options.run)
            raise SystemExit(code)
        _measure(options.run, options.out)
    except KeyboardInterrupt:
        _leave_stopped(begun, options.run)
        if not begun.run.begun():
            raise
        raise SystemExit(130) from None
    except PcamxError:
        _leave_stopped(begun, options.run)
        raise


def _print(begun: "Continued", parent: Path) -> None:
    from pcamx.catalogue import trainable

    marks, tally = begun.marks, begun.marks.tally
    for note in (*tally.notes, *tally.dropped()):
        print(note)
    print(
        f"{begun.run.store}: {marks.films} marked films to learn from: {marks.earlier} as {parent} "
        f"has them, {marks.renewed} marked anew, {marks.new} new"
    )
    print(f"{begun.run.path} starts from {trainable(begun.start).title} of {parent}")


def _train(begun: "Continued", gpus: int | None) -> int:
    """Train it as `pcamx train` does, by that command; the exit code."""
    words = ["train", str(begun.run.config_file), "--stage", str(STAGE_3.key)]
    words += [] if gpus is None else ["--gpus", str(gpus)]
    started: list[subprocess.Popen[bytes]] = []
    told_to_end = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        # Ctrl-C reaches the training from the terminal; SIGTERM comes to this process alone.
        nonlocal told_to_end
        if number == signal.SIGTERM:
            told_to_end = True
            for process in started:
                process.terminate()

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        sys.stdout.flush()
        command = [sys.executable, "-m", "pcamx", *words]
        started.append(subprocess.Popen(command, preexec_fn=_end_with_parent()))  # noqa: S603
        if told_to_end:  # while it was being started
            started[0].terminate()
        code = started[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _end_with_parent() -> Callable[[], object] | None:
    """What has a process be sent SIGTERM where its parent is killed; None where nothing does."""
    control = getattr(ctypes.CDLL(None), "prctl", None)
    return control and partial(control, 1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _leave_stopped(begun: "Continued", parent: Path) -> None:
    """Say what is left to do, or clear up where no step was taken."""
    if not begun.run.begun():
        shutil.rmtree(begun.run.path, ignore_errors=True)
        return
    out = begun.run.path
    print(
        f"pcamx: once trained: pcamx evaluate {out}, then pcamx compare {parent} {out} "
        f"--out {begun.run.comparison}",
        file=sys.stderr,
    )


def _measure(parent: Path, out: Path) -> None:
    from pcamx.compare import PAGE, compare
    from pcamx.evaluation.evaluate import evaluate
    from pcamx.report.comparison_rows import print_comparison
    from pcamx.report.console import say, track
    from pcamx.run.folder import RunFolder

    run = RunFolder(out)
    evaluate(out, track=track, say=say)
    print_comparison(compare([parent, out], run.comparison))
    print(f"{run.page_file} is the new run's report for people")
    print(f"{run.comparison / PAGE} is the comparison with {parent}")
