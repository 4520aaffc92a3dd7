"""`python -m bench.explain`: maps of a batch beside the peers', and a folder of films end to end.

Around one network with random weights, whose speed is that of a trained one. No figure is given
where a map is not what it should be.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from bench.lib import command, record
from bench.lib.map_calls import (
    OURS,
    check_maps,
    decoder_answer,
    explain_call,
    map_calls,
    network,
)
from bench.lib.operations.peers import GRAD_CAM, PACKAGES, TORCH_CAM, import_grad_cam
from bench.lib.record import Row
from bench.lib.timing import time_calls
from pcamx.catalogue import STAGE_3, maps_of
from pcamx.data.phantom import draw_phantoms
from pcamx.errors import PcamxError
from pcamx.report.console import track
from pcamx.run.pretrained import Pretrained, save_pretrained
from pcamx.run.thresholds import Threshold

CANVAS, BATCH, FILMS, FILM_SIZE = 320, 16, 100, 1000
DECODER = "pcamx explain with the decoder"
NOTES = """\
From a batch of tensors to maps of the images' size, the network's forward pass within each call.
pcamx explain makes maps and probabilities; torch-cam's CAM and PositiveCAM's maps are upsampled \
as its are, GradCAM upsamples its own.
Peers' maps are min-max normalised plain CAMs (pytorch-grad-cam's cut off at 0 before); each was \
first held against the reference.
The folder: the command over drawn films of 1000 px, from its start to its end, with the decoder, \
pictures drawn; memory is the median of all its processes together, shared pages counted once.
"""


def measure_maps(device: torch.device, canvas: int, batch: int) -> tuple[list[Row], list[str]]:
    """Measure images a second of each rival; a line for each that cannot run as installed."""
    generator = torch.Generator().manual_seed(1)
    image_B1HW = torch.randn(batch, 1, canvas, canvas, generator=generator).to(device)
    calls, missing = map_calls(network(device, decoder=False), image_B1HW)
    with_decoder = network(device, decoder=True)
    calls[DECODER] = explain_call(with_decoder, image_B1HW)
    check_maps(DECODER, calls[DECODER](), decoder_answer(with_decoder, image_B1HW))
    case, timings = f"maps, B {batch}, {canvas} px", time_calls(calls, device)
    rows = [row for name, timing in timings.items() for row in timing.rows(case, name)]
    for name, timing in timings.items():
        rows.append(Row(case, name, "speed", 1000 * batch / timing.p50, "images/s"))
    for rival in (TORCH_CAM, GRAD_CAM):
        if rival in timings:
            ratio = timings[rival].p50 / timings[OURS].p50
            rows.append(Row(case, OURS, "speed", ratio, "x", rival))
    notes = [f"not run: {name}: {why}" for name, why in missing.items()]
    if GRAD_CAM in calls and (absent := import_grad_cam()[2]):
        notes.append(
            f"{GRAD_CAM} ran without {', '.join(absent)}, which it imports but does not use."
        )
    return rows, notes


def measure_folder(films: Path, device: torch.device, canvas: int, folder: Path) -> list[Row]:
    """Measure films a second of the command over ``films``, and its memory early and late.

    Works in ``folder``. Raises PcamxError where a film could not be explained.
    """
    _export(folder, device, canvas)
    words = ("explain", folder / "export", films, "--out", folder / "out")
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "pcamx", *map(str, words)]) as process:
        samples = [sum(map(_memory, _family(process.pid)))]
        while process.poll() is None:
            samples.append(sum(map(_memory, _family(process.pid))))
            time.sleep(0.2)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise PcamxError(f"{films}: pcamx explain ended with {process.returncode}")
    count = len(list((folder / "out").rglob("*.npy")))
    case, tenth = f"a folder of {count} films, {canvas} px", max(1, len(samples) // 10)
    early, late = (median(part) for part in (samples[tenth : 2 * tenth + 1], samples[-tenth:]))
    return [
        Row(case, OURS, "speed", count / seconds, "films/s"),
        Row(case, OURS, "memory in the second tenth", early / 1e6, "MB"),
        Row(case, OURS, "memory in the last tenth", late / 1e6, "MB"),
    ]


def _export(folder: Path, device: torch.device, canvas: int) -> None:
    """A network with random weights and a decoder, as `pcamx explain` loads it."""
    thresholds = {kind.key: Threshold(0.9, False) for kind in maps_of(STAGE_3, gradient=False)}
    (folder / "export").mkdir()
    model = Pretrained(
        folder=folder,
        network=network(device, decoder=True),
        stage=STAGE_3.key,
        encoder="bottleneck",
        pooling="mean",
        canvas=canvas,
        mean=60.0,
        std=50.0,
        thresholds=thresholds,
        versions={},
        commit=None,
    )
    save_pretrained(model, folder / "export")


def _family(process: int) -> list[int]:
    """A process and all that it has started."""
    try:
        tasks = Path(f"/proc/{process}/task").iterdir()
        children = [int(n) for task in tasks for n in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return []
    return [process, *(one for child in children for one in _family(child))]


def _memory(process: int) -> int:
    """Bytes in memory; of pages that several processes share, this one's part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def run(options: argparse.Namespace) -> None:
    """Measure maps, then a folder; write the tables and the JSON."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = record.begin("explain", device, PACKAGES)
    path = record.outputs("explain", found, options.markdown, options.json)
    rows, notes = measure_maps(device, options.canvas, options.batch)
    found.rows.extend(rows)
    with TemporaryDirectory() as name:
        drawn = Path(name) / "films"
        draw_phantoms(drawn, train=16, valid=options.films, size=FILM_SIZE, seed=0, track=track)
        films = drawn / "MURA-v1.1" / "valid"
        rows = measure_folder(films, device, options.canvas, Path(name))
        found.rows.extend(rows)
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "Explain", [*NOTES.splitlines(), *notes])
    print(f"{path}: {len(found.rows)} figures")


if __name__ == "__main__":
    made = command.parser(
        "explain",
        "Time maps beside torch-cam's and pytorch-grad-cam's, and pcamx explain over a folder.",
        "python -m bench.explain --films 1000 --json explain.json",
    )
    made.add_argument("--films", type=int, default=FILMS, help="of the folder (%(default)s)")
    made.add_argument("--batch", type=int, default=BATCH, help="images a batch (%(default)s)")
    made.add_argument("--canvas", type=int, default=CANVAS, help="pixels a side (%(default)s)")
    sys.exit(command.main(made, run))
