"""`python -m bench.kernels`: the attention path's kernels and their rivals, side by side.

Correctness first, and no figure where it fails. On a CPU the reference runs in the kernels' place.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

import torch

from bench import chart
from bench.lib import command, record
from bench.lib.operations import floors
from bench.lib.operations.attention import attend_case, class_activation_case
from bench.lib.operations.case import EAGER, Case, Size
from bench.lib.operations.check import check
from bench.lib.operations.films import gather_affine_normalise_case
from bench.lib.operations.peers import PACKAGES
from bench.lib.operations.tracing import kept_bytes, launches
from bench.lib.record import Row
from bench.lib.timing import Timing, copy_bandwidth, peak_bytes, time_calls, time_graph
from pcamx.report.console import track

SIZES = {
    "cuda": [Size(1), Size(16), Size(64), Size(256), Size(1024), Size(16, 1024)],
    "cpu": [Size(1), Size(16)],
}
OPERATIONS = 5  # of `cases`
COPY = "copy"
GRAPHS_UP_TO = 256  # images: beyond, launches cost nothing beside the work
HERE = {
    "cuda": "ours are the Triton kernels; the reference is what runs where they do not.",
    "cpu": "A CPU: this is the reference in plain PyTorch, not the kernels, and not their speed. "
    "Peak memory and launches are not measured, caches are not cleared.",
}
NOTES = """\
Every impl was first held against float64; errors are relative to the output's largest value, of \
lesions the share of pixels that differ.
eager and torch.compile work in the dtype named, as under autocast; torch.compile is in its \
default mode, each size compiled on its own; two matmuls is the upsampling as products with fixed \
weights. Peers return the plain map min-max normalised, and their calls hold the head's \
forward pass, which their hooks need.
Bandwidth is by the bytes that the operation cannot do without \
(bench/lib/operations/roofline.py), for every impl; copy is a plain copy's in the same run.
Times are of alternating runs, on CUDA with L2 cleared before each; within CUDA graphs the host \
has no part in them, and L2 is not cleared.
Floors are counted in the machine code (bench/lib/operations/floors.py) at an H100's rates, not \
measured.
Peak is what a call allocates at most, results included; kept is what it keeps for backward beyond \
its inputs.
"""


def size(text: str) -> Size:
    """Parse a size of the command line: 256, or 16@1024."""
    found = re.fullmatch(r"(\d+)(?:@(\d+))?", text)
    batch, pixels = (int(found[1]), int(found[2] or 320)) if found else (0, 0)
    if batch < 1 or pixels < 32 or pixels % 16:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected images, or images@pixels with pixels a multiple of 16 from 32 on"
        )
    return Size(batch, pixels)


def cases(sizes: Sequence[Size], device: torch.device) -> Iterator[Case]:
    """Yield all operations at all sizes, each made when it is its turn."""
    for size in sizes:
        for positive in (False, True):
            yield class_activation_case(size, device, positive=positive)
        for learns in (False, True):
            yield attend_case(size, device, learns=learns)
        yield gather_affine_normalise_case(size, device)


def measure(case: Case, device: torch.device, copy: float) -> list[Row]:
    """Measure all figures of a case; ``copy`` is the device's bandwidth in GB/s.

    Raises PcamxError where an impl is not right.
    """
    torch.compiler.reset()  # after eight sizes of one function it would compile no more
    errors, rows = check(case), list[Row]()
    timings = time_calls({name: impl.call for name, impl in case.impls.items()}, device)
    for name, timing in timings.items():
        rows += timing.rows(case.name, name)
        rows += _bandwidth(case.name, case.bytes_moved, name, timing, copy)
        rows += _resources(case, name, device)
    return rows + _speed(case.name, case.subject, timings) + errors


def measure_graphs(case: Case, copy: float) -> tuple[list[Row], list[str]]:
    """Measure the same calls within CUDA graphs; a line for each that cannot be captured.

    No bandwidth is given where L2, which is not cleared here, could hold a good part.
    """
    name_of_case = case.name.replace(", ", " in a CUDA graph, ", 1)
    timings, notes = dict[str, Timing](), list[str]()
    for name, impl in case.impls.items():
        if impl.captured:
            try:
                timings[name] = time_graph(impl.call)
            except RuntimeError as error:
                notes.append(f"not run: {name_of_case}: {name}: {str(error).splitlines()[0]}")
    rows = [row for name, timing in timings.items() for row in timing.rows(name_of_case, name)]
    if case.bytes_moved > 4 * torch.cuda.get_device_properties().L2_cache_size:
        for name, timing in timings.items():
            rows += _bandwidth(name_of_case, case.bytes_moved, name, timing, copy)
    if case.subject in timings:
        rows += _speed(name_of_case, case.subject, timings)
    return rows, notes


def _bandwidth(case: str, bytes_moved: int, name: str, timing: Timing, copy: float) -> list[Row]:
    speed = bytes_moved / (timing.p50 * 1e6)
    return [
        Row(case, name, "bandwidth", speed, "GB/s"),
        Row(case, name, "bandwidth", speed / copy, "x", COPY),
    ]


def _speed(case: str, name: str, timings: Mapping[str, Timing]) -> list[Row]:
    """How many times as fast as each rival ``name`` is."""
    return [
        Row(case, name, "speed", timing.p50 / timings[name].p50, "x", rival)
        for rival, timing in timings.items()
        if rival != name
    ]


def _resources(case: Case, name: str, device: torch.device) -> list[Row]:
    """Memory and launches of one impl, where they can be counted."""
    call = case.impls[name].call
    found = []
    if (peak := peak_bytes(call, device)) is not None:
        found.append(Row(case.name, name, "peak", peak / 1e6, "MB"))
    if case.learns:
        kept = kept_bytes(call, case.inputs)
        found.append(Row(case.name, name, "kept", kept / 1e6, "MB"))
        if name == case.subject:
            ratio = kept / kept_bytes(case.impls[EAGER].call, case.inputs)
            found.append(Row(case.name, name, "kept", ratio, "x", EAGER))
    if (count := launches(call, device)) is not None:
        found.append(Row(case.name, name, "launches", count, ""))
    return found


def run(options: argparse.Namespace) -> None:
    """Measure, then write the JSON, the tables and the chart."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = record.begin("kernels", device, PACKAGES)
    path = record.outputs("kernels", found, options.markdown, options.json)
    sizes = list(dict.fromkeys(options.sizes or SIZES[device.type]))
    notes = [HERE[device.type], *NOTES.splitlines()]
    copy = copy_bandwidth(device)
    found.rows.append(Row("device", COPY, "bandwidth", copy, "GB/s"))
    work, least = cases(sizes, device), floors.counted(device)
    for case in track(work, "operations checked and timed", OPERATIONS * len(sizes)):
        found.rows.extend(measure(case, device, copy))
        found.rows.extend(floors.rows(case, least))
        if device.type == "cuda" and case.size.batch <= GRAPHS_UP_TO:
            rows, failed = measure_graphs(case, copy)
            found.rows.extend(rows)
            notes += failed
        notes += [f"not run: {name}: {why}" for name, why in case.missing.items()]
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "Kernels", list(dict.fromkeys(notes)))
    print(f"{path}: {len(found.rows)} figures")
    try:
        print(chart.write(found, path.with_suffix(".png")))
    except ImportError as error:
        print(f"no chart: {error}; draw it elsewhere: {chart.HOW}")


if __name__ == "__main__":
    made = command.parser(
        "kernels",
        "Time the attention path's kernels and their rivals, each checked against float64 first.",
        "python -m bench.kernels --sizes 256 16@1024 --json kernels.json",
    )
    made.add_argument(
        "--sizes",
        type=size,
        nargs="+",
        metavar="B[@PIXELS]",
        help="images of a batch, 320 px unless told "
        "(default: 1 16 64 256 1024 16@1024; on a CPU 1 16)",
    )
    sys.exit(command.main(made, run))
