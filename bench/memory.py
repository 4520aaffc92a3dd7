"""`python -m bench.memory`: the most memory that `evaluate` holds, by the number of films.

Draws films, trains a network for three epochs on a few, and evaluates each set in a process of its
own. Its peak is the resident set's, films.html and the pages of the disk's cache that it has mapped
included.
"""

import argparse
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from bench.lib import command
from bench.lib.torture.files import make
from pcamx.data.phantom import draw_phantoms
from pcamx.data.prepare.store_builder import prepare
from pcamx.errors import PcamxError
from pcamx.evaluation.evaluate import evaluate


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    made.add_argument("--folder", type=Path, default=Path("runs/memory"), metavar="FOLDER")
    made.add_argument("--films", type=int, nargs="+", default=[250, 1000, 4000])
    made.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    return made


def run(options: argparse.Namespace) -> None:
    """Print megabytes by the number of films."""
    if options.alone is not None:
        evaluate(options.folder / "sound/run", other=_store(options.folder, options.alone))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{options.alone} films: {peak >> 10} MB", flush=True)
        return
    make(options.folder)
    for films in options.films:
        if not _store(options.folder, films).is_dir():
            _draw(options.folder, films)
        words = ["-m", "bench.memory", "--folder", options.folder, "--alone", films]
        if subprocess.run([sys.executable, *map(str, words)]).returncode:
            raise PcamxError(f"{options.folder}: evaluating {films} films failed; see above")


def _store(folder: Path, films: int) -> Path:
    return folder / f"store{films}"


def _draw(folder: Path, films: int) -> None:
    drawn = folder / f"films{films}"
    shutil.rmtree(drawn, ignore_errors=True)
    draw_phantoms(drawn, train=2, valid=films, size=48, seed=5, workers=1)
    prepare(drawn / "MURA-v1.1", _store(folder, films), table=None, marks=drawn / "marks")


if __name__ == "__main__":
    sys.exit(command.main(_parser(), run))
