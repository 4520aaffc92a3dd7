"""`python -m bench.gpu`, or `make gpu-check`: every part, going on after a failure."""

import argparse
import sys
from pathlib import Path

import torch

from bench.gpu import work
from bench.gpu.jobs import LIMIT, PARTS, on_cpu, on_gpu
from bench.gpu.page import page
from bench.lib import command
from pcamx import provenance
from pcamx.errors import PcamxError
from pcamx.output import make_folder, write_text


def run(options: argparse.Namespace) -> None:
    """Run what has not passed yet of the chosen parts; the page is written after each job."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    out = options.out.absolute()
    make_folder(out)
    every = list(on_gpu(out) if gpu else on_cpu(out))
    where = (
        f"{provenance.device_name(device)}, driver {provenance.driver() or 'none'}. "
        f"Commit {provenance.commit() or 'unknown: not run from git'}."
    )
    if not gpu:
        where += " No GPU: toy sizes, which show that the commands work, and measure nothing."
    failed = []
    for job in [job for job in every if job.part in options.parts]:
        result = work.done(job, out)
        said = "passed before" if result else ""
        if result is None:
            print(f"{job.name} ...", flush=True)
            result = work.do(job, out)
            said = f"{'passed' if result.passed else 'FAILED'} in {result.seconds:.0f} s"
        print(f"{job.name}: {said}", flush=True)
        failed += [] if result.passed else [job.name]
        write_text(out / "record.md", page(every, out, where))
    print(out / "record.md")
    if failed:
        raise PcamxError(f"{', '.join(failed)}: see the logs in {out}; run it again to repeat them")


if __name__ == "__main__":
    made = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=f"Every check that needs a GPU, as commands of at most {LIMIT:.0f} s each; "
        "what has passed is not repeated.",
    )
    made.add_argument("--out", type=Path, default=Path("runs/gpu-check"), metavar="FOLDER")
    made.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    sys.exit(command.main(made, run))
