"""`python -m bench.ablation GRID`: which choice does what, every cell of a grid over its seeds.

Resumable: what is done is kept, what was begun continues, and several runners may share a folder.
"""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

import torch

from bench.ablation.grid import jobs, read_grid, refuse_changed
from bench.ablation.runs import finished, run_jobs
from bench.ablation.table import write_tables
from pcamx.errors import PcamxError
from pcamx.report.console import say

PROG = "python -m bench.ablation"


def run(options: argparse.Namespace) -> int:
    """Train what the grid lacks, then write the tables of what there is; 1 if a run failed."""
    if options.ranks < 1:
        raise PcamxError(f"--ranks {options.ranks}: expected 1 or more")
    grid = read_grid(options.grid)
    every = jobs(grid, options.folder)
    foreign = sorted(set(options.seeds or []) - set(grid.seeds))
    if foreign:
        raise PcamxError(f"--seeds {foreign[0]}: not among the grid's, {list(grid.seeds)}")
    refuse_changed(every)
    failed = list[str]()
    if not options.table:
        chosen = [job for job in every if job.seed in (options.seeds or grid.seeds)]
        failed = run_jobs(chosen, options.ranks, say)
    for line in failed:
        print(f"{PROG}: failed: {line}", file=sys.stderr)
    done = [job for job in every if finished(job)]
    if done:
        files = write_tables(grid, done, options.folder)
        print(f"{' and '.join(map(str, files))}: {len(done)} of {len(every)} runs")
    elif not failed:
        raise PcamxError(f"{options.folder}: holds no finished run; train without --table")
    return 1 if failed else 0


def main() -> int:
    """Return 0, 1 where a run failed, 2 and one line for a mistake, 130 after Ctrl-C, SIGTERM."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Train and evaluate every cell of a grid with every seed, and table them.",
        epilog=f"example: {PROG} bench/ablation/grid.yaml --folder runs/ablation",
    )
    parser.add_argument("grid", type=Path, metavar="GRID", help="e.g. bench/ablation/grid.yaml")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/ablation"),
        metavar="OUT",
        help="keeps the runs and the tables, ablation.md and .json (%(default)s)",
    )
    parser.add_argument("--ranks", type=int, default=1, help="of every training (%(default)s)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="K", help="train these of the grid's seeds only"
    )
    parser.add_argument("--table", action="store_true", help="train nothing, only write the tables")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(1)  # the trainings need the cores
    try:
        return run(options)
    except PcamxError as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROG}: stopped; the same command continues", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
