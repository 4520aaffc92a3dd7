"""`python -m bench.step`: a training step, ours on DeepSpeed beside a plain PyTorch loop.

Correctness first: from the same weights all must give the same losses, or no figure is written.
"""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import torch
import torch._functorch.config
from torch._inductor import compile_fx, metrics

from bench.lib import command, loops, record
from bench.lib.loops import Films, Step, Work
from bench.lib.operations.case import Size
from bench.lib.record import Row
from bench.lib.step_bytes import step_bytes
from bench.lib.step_timing import Paces, time_steps
from bench.lib.timing import copy_bandwidth, peak_bytes
from pcamx import engine
from pcamx.catalogue import classifiers, key_of, trainable
from pcamx.errors import PcamxError

PLAIN, COMPILED, COPY = "plain PyTorch", ", torch.compile", "copy"
DEFAULTS = "ours, ZeRO-1 by DeepSpeed's defaults"
SIZES = {"cuda": [Size(256)], "cpu": [Size(8, 128)]}
PRECISION = {"cuda": "bf16", "cpu": "fp32"}
CLOSE = {"fp32": (1e-4, 5e-3, 2e-2), "bf16": (2e-2, 5e-2, 0.1)}
"""How far a loss may be from plain PyTorch's, relative, at each of the first steps: an update by
Adam turns rounding of a small gradient into a step of full size, and the next ones enlarge it."""
WARM = 3  # more steps before the clock runs
ELEMENT = {"bf16": 2, "fp32": 4}  # bytes
NOTES = """\
plain PyTorch: the same network, films and batch, channels_last, autocast, fused AdamW, clipping, \
the attention path and the batch in PyTorch; DistributedDataParallel on several ranks.
A step makes its batch from resident uint8 canvases, and ends with P taken in.
Times are of alternating rounds, by the clock; a ratio is the median over the rounds.
Of the roofline: the time that a plain copy, timed in this run, would need for the bytes of \
bench/lib/step_bytes.py, as a share of the step's.
Kernels and bytes of torch.compile: what its inductor counts in the graphs it makes, forward and \
backward; convolutions are not among the kernels.
"""


def size(text: str) -> Size:
    """Parse a size of the command line: 256, or 8@128; the films of one rank."""
    found = re.fullmatch(r"(\d+)(?:@(\d+))?", text)
    batch, pixels = (int(found[1]), int(found[2] or 320)) if found else (0, 0)
    if batch < 2 or pixels < 32 or pixels % 16:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected films from 2 on, or films@pixels with pixels a multiple of 16 "
            "from 32 on"
        )
    return Size(batch, pixels)


def rivals(work: Work, zero: list[int], *, compiled: bool) -> dict[str, Callable[[], Step]]:
    """Return all loops, made when called; plain PyTorch first."""
    found: dict[str, Callable[[], Step]] = {
        PLAIN: partial(loops.plain, work),
        f"{PLAIN}, channels first": partial(loops.plain, work, channels_last=False),
        f"{PLAIN}, AdamW not fused": partial(loops.plain, work, fused=False),
    }
    if work.stage > 1:
        # Stage 1 asks for no gradient of its films.
        found[f"{PLAIN}, stem not by phases"] = partial(loops.plain, work, phases=False)
    for stage in zero:
        found[f"ours, ZeRO-{stage}"] = partial(loops.ours, work, stage)
        if stage < 2 and work.ranks.device.type == "cuda":
            captured = partial(loops.ours, work, stage, compile="whole-step")
            found[f"ours, ZeRO-{stage}, the whole step as a CUDA graph"] = captured
    if 1 in zero:
        found[DEFAULTS] = partial(loops.by_default, work, 1)
    if compiled:
        found[PLAIN + COMPILED] = partial(loops.plain, work, compiled=True)
        for stage in set(zero) - {3}:
            name = f"ours, ZeRO-{stage}{COMPILED}"
            found[name] = partial(loops.ours, work, stage, compile="on")
            if work.ranks.device.type == "cuda":
                replayed = partial(loops.ours, work, stage, compile="reduce-overhead")
                found[f"{name} as a CUDA graph"] = replayed
    return found


def open_loops(
    case: str, work: Work, made: Mapping[str, Callable[[], Step]], notes: list[str]
) -> tuple[dict[str, Step], list[Row]]:
    """Open every loop by its first steps; return what torch.compile made of those, too.

    What cannot be compiled or captured here is left out and noted. Raises PcamxError where a loop's
    losses are not plain PyTorch's.
    """
    steps, rows, truth, red = dict[str, Step](), list[Row](), list[float](), list[str]()
    torch.compiler.reset()  # of the loops before, once: each graph would be compiled again
    _count_graphs()
    for name, make in made.items():
        metrics.reset()
        step = make()
        try:
            losses = [float(step()) for _ in CLOSE[work.precision]]
            for _ in range(WARM):
                step()
        except PcamxError as error:
            notes.append(f"not run: {case}: {name}: {error}")
            continue
        except RuntimeError as error:
            if not (failure := engine.compiler_failure(error)):
                raise
            notes.append(f"not run: {case}: {name}: {failure}")
            continue
        steps[name] = step
        truth = truth or losses
        for number, (loss, true) in enumerate(zip(losses, truth, strict=True), 1):
            if not abs(loss - true) <= CLOSE[work.precision][number - 1] * true:
                red.append(f"{name}: loss {loss:.6g} at step {number}, {PLAIN} {true:.6g}")
        if name.endswith(COMPILED) and metrics.generated_kernel_count:
            rows.append(Row(case, name, "kernels", metrics.generated_kernel_count, ""))
            rows.append(Row(case, name, "bytes", metrics.num_bytes_accessed / 1e6, "MB"))
    if red:
        raise PcamxError(f"{case}: {'; '.join(red)}; no figure was written")
    return steps, rows


def _count_graphs() -> None:
    """Have inductor count the graphs that it makes, which it does for its log alone."""
    # Graphs from a cache are not counted.
    torch._inductor.config.fx_graph_cache = False
    torch._functorch.config.enable_autograd_cache = False
    compile_fx.inductor_metrics_log.setLevel(logging.INFO)
    compile_fx.inductor_metrics_log.propagate = False


def measure(
    work: Work, zero: list[int], copy: float, notes: list[str], *, compiled: bool
) -> list[Row]:
    """Measure all figures of a stage; ``copy`` is the device's bandwidth in GB/s."""
    case = f"{trainable(work.stage).title}, B {work.batch}, {work.pixels} px, {work.precision}"
    case += f", {work.ranks.world} ranks" if work.ranks.world > 1 else ""
    steps, counted = open_loops(case, work, rivals(work, zero, compiled=compiled), notes)
    paces = time_steps(steps, work.ranks)
    rows = [row for name in steps for row in _speed(case, name, work, paces)]
    # Of four films, one of them marked, which is their share in any batch of four or more.
    few = work._replace(
        batch=min(work.batch, 4),
        ranks=work.ranks._replace(device=torch.device("cpu"), world=1, rank=0),
    )
    counted_bytes = step_bytes(
        few.build(few.config()), Films(few, "reference").next(), ELEMENT[work.precision]
    )
    moved = counted_bytes * work.batch / few.batch
    for name in steps:
        share = moved / (1e6 * copy * paces.timing(name).p50)
        rows.append(Row(case, name, "of the roofline", share, "x", COPY))
    for name, step in steps.items():
        if (peak := peak_bytes(step, work.ranks.device)) is not None:
            rows.append(Row(case, name, "peak", peak / 1e6, "MB"))
    return rows + counted


def _speed(case: str, name: str, work: Work, paces: Paces) -> list[Row]:
    timing = paces.timing(name)
    films = work.batch * work.ranks.world
    rows = timing.rows(case, name, "step")
    rows.append(Row(case, name, "films", 1000 * films / timing.p50, "/s"))
    for rival in (PLAIN, PLAIN + COMPILED):
        if rival in paces.samples and rival != name:
            rows.append(Row(case, name, "step", paces.ratio(name, rival), "x", rival))
    return rows


def run(options: argparse.Namespace) -> None:
    """Measure on all ranks; rank 0 writes the JSON and the tables."""
    ranks = engine.start()
    found = record.begin("step", ranks.device)
    first = ranks.rank == 0
    path = record.outputs("step", found, options.markdown, options.json) if first else None
    precisions = options.precision or [PRECISION[ranks.device.type]]
    copy, notes = copy_bandwidth(ranks.device), NOTES.splitlines()
    found.rows.append(Row("device", COPY, "bandwidth", copy, "GB/s"))
    cases = product(options.sizes or SIZES[ranks.device.type], precisions, options.stages)
    for one, precision, stage in dict.fromkeys(cases):
        work = Work(stage, one.batch, one.pixels, precision, ranks)
        if first:
            print(
                f"{trainable(stage).title}, {one.batch} films of {one.pixels} px, {precision}",
                flush=True,
            )
        found.rows.extend(
            measure(work, sorted(set(options.zero)), copy, notes, compiled=not options.eager)
        )
    engine.stop()
    if path is None:
        return
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "A training step", notes)
    print(f"{path}: {len(found.rows)} figures")


if __name__ == "__main__":
    made = command.parser(
        "step",
        "Time a step of each stage on DeepSpeed and in plain PyTorch, from the same weights.",
        "python -m bench.step --stages 2 --sizes 8@128 --json step.json; several ranks: "
        "torchrun --nproc_per_node 2 -m bench.step",
    )
    stages = [entry.key for entry in classifiers()]
    made.add_argument("--stages", type=key_of, nargs="+", choices=stages, default=stages)
    made.add_argument(
        "--sizes",
        type=size,
        nargs="+",
        metavar="B[@PIXELS]",
        help="films of one rank, 320 px unless told (default: 256; on a CPU 8@128)",
    )
    made.add_argument(
        "--precision", nargs="+", choices=["bf16", "fp32"], help="default: bf16; on a CPU fp32"
    )
    made.add_argument("--zero", type=int, nargs="+", choices=[0, 1, 2, 3], default=[0, 1, 2, 3])
    made.add_argument("--eager", action="store_true", help="leave out torch.compile")
    sys.exit(command.main(made, run))
