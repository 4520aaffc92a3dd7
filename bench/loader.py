"""`python -m bench.loader`: an epoch of films loaded in every way, nothing trained.

Correctness first: a loader whose canvases are not DALI's gives no figure, nor does any other.
Shapes: B batch, H W the canvas.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bench.lib import command, record
from bench.lib.loaders import ALIKE, RESIDENT, Loader, loaders_of, uint8_batch
from bench.lib.record import Row
from bench.lib.stores import PNG, Stores, open_stores
from bench.lib.timing import Timing, quantiles
from pcamx.catalogue import STAGE_1, classifiers
from pcamx.config import Config, Data, Objective, Run, Runtime, Stage
from pcamx.data.canvas.decode import decode_batches
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import Feed, open_feed
from pcamx.data.feed.order import epoch_order
from pcamx.data.store import Store
from pcamx.errors import PcamxError
from pcamx.report.console import track
from pcamx.types import IntArray

EPOCHS = 5  # timed, after those that check and warm up
BATCH = {"cuda": 256, "cpu": 64}
PACKAGES = {
    "pillow": "pillow",
    "opencv": "opencv-python-headless",
    "imagecodecs": "imagecodecs",
    "nvimgcodec": "nvidia-nvimgcodec-cu13",
}
NOTES = f"""\
canvases: until the batch's films lie on the device as uint8 [B, 1, H, W]; the resident ones are \
gathered, the others come as a batch. This is loading alone.
batches: until they are warped, brightened and standardised as well, float32: the training feed's \
own epoch, in which only the source of the canvases differs. The warps are the same, and so is the \
operation, on the device.
Before any figure an epoch of each loader was compared with DALI's canvases of the PNG films: \
DALI on PNG and HTJ2K, resident and memmap are the same to the bit; JPEG, Pillow and OpenCV (its \
area filter) within {ALIKE} grey levels at the mean; the table says how far.
That epoch and two batches more warmed up; {EPOCHS} epochs of each were timed, in turn. An epoch \
ends with its last batch on the device. Files were in the system's page cache.
DALI builds its graph anew each epoch, as the feed does. DataLoader: workers that live from epoch \
to epoch, two batches ahead each; pinned memory on a GPU. As many threads, or workers, as cores. \
Raw memmap is what FFCV's raw mode does, without a thread that reads ahead.
first decode is what resident costs once: all films decoded, written to the cache file, synced to \
the disk, mapped, and on a GPU copied there. opened again is a later run's start.
"""


def config_of(store: Store, folder: Path, canvas: int, batch: int, threads: int) -> Config:
    """Return a run of stage 1 on ``store`` whose cache is in ``folder``; it is not trained."""
    stage = Stage(epochs=1)
    return Config(
        run=Run(folder=str(folder)),
        data=Data(store=str(store.folder), canvas=canvas, cache=str(folder), threads=threads),
        stages={entry.section: stage for entry in classifiers()},
        runtime=Runtime(batch_size=batch),
        objective=Objective(marked_per_batch=1),
    )


def first_decode(
    case: str, name: str, config: Config, store: Store, device: torch.device
) -> list[Row]:
    """Decode the films of a format into a new cache file, then open it again."""
    found = []
    for _ in range(2):
        start = time.perf_counter()
        Decoded(config.data, store, device).split("train")
        _wait(device)
        found.append(time.perf_counter() - start)
    images = len(store.split("train"))
    return [
        Row(case, f"DALI, {name}", "time", found[0], "s"),
        Row(case, f"DALI, {name}", "rate", images / found[0], "images/s"),
        Row(case, f"DALI, {name}", "opened again", 1000 * found[1], "ms"),
    ]


def check(case: str, loader: Loader, truth_N1HW: Tensor, order: Sequence[IntArray]) -> list[Row]:
    """Return how far a loader's canvases lie from DALI's, grey levels; PcamxError if too far."""
    total = worst = 0
    count = 0
    for batch_B, given in zip(order, loader.canvases(order), strict=True):
        got_B1HW = uint8_batch(*given).cpu()
        want_B1HW = truth_N1HW[torch.from_numpy(batch_B)]
        if got_B1HW.shape != want_B1HW.shape or got_B1HW.dtype != torch.uint8:
            raise PcamxError(f"{loader.name}: {got_B1HW.dtype} {list(got_B1HW.shape)}; no figure")
        error = (got_B1HW.short() - want_B1HW.short()).abs()
        total, worst = total + int(error.sum()), max(worst, int(error.max()))
        count += error.numel()
    if total > loader.error * count:
        raise PcamxError(
            f"{loader.name}: canvases {total / count:.3g} grey levels from DALI's at the mean, "
            f"{loader.error:g} allowed; no figure"
        )
    return [
        Row(case, loader.name, "mean error", total / count, "grey levels"),
        Row(case, loader.name, "largest error", worst, "grey levels"),
    ]


def measure(case: str, loaders: Sequence[Loader], feed: Feed, device: torch.device) -> list[Row]:
    """Time canvases and batches, epoch by epoch in turn, and how resident compares."""
    samples: dict[str, dict[str, list[float]]] = {"canvases": {}, "batches": {}}
    batch, seed = feed.config.runtime.batch_size, feed.config.run.seed
    feeds = {loader.name: replace(feed, canvases=loader.canvases) for loader in loaders}
    for fed in feeds.values():
        _epoch_ms(fed.epoch(0, start_step=feed.steps_per_epoch - 2), device)
    work = [(epoch, name) for epoch in range(1, EPOCHS + 1) for name in feeds]
    for epoch, name in track(work, "epochs timed", len(work)):
        order = list(epoch_order(feed.images, batch, seed=seed, epoch=epoch))
        for what, epoch_of in {
            "canvases": (uint8_batch(*given) for given in feeds[name].canvases(order)),
            "batches": feeds[name].epoch(epoch),
        }.items():
            samples[what].setdefault(name, []).append(_epoch_ms(epoch_of, device))
    rows = list[Row]()
    for what, of_loaders in samples.items():
        timings = {name: quantiles(found) for name, found in of_loaders.items()}
        rows += _rows(f"{what}, {case}", timings, feed.steps_per_epoch * batch)
    return rows


def _rows(case: str, timings: dict[str, Timing], images: int) -> Iterator[Row]:
    for name, timing in timings.items():
        yield from timing.rows(case, name, "epoch")
        yield Row(case, name, "rate", 1000 * images / timing.p50, "images/s")
        if name != RESIDENT:
            faster = timing.p50 / timings[RESIDENT].p50
            yield Row(case, RESIDENT, "speed", faster, "x", name)


def _epoch_ms(epoch: Iterable[object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in epoch:
        pass
    _wait(device)
    return 1000 * (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run(options: argparse.Namespace) -> None:
    """Draw or find the films, check, measure, then write the JSON and the tables."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    batch = options.batch or BATCH[device.type]
    if not 2 <= batch <= options.count // 2:
        raise PcamxError(
            f"{options.count} films, batches of {batch}: expected two films a batch or more, and "
            "films for two batches; change --count or --batch"
        )
    found = record.begin("loader", device, PACKAGES)
    path = record.outputs("loader", found, options.markdown, options.json)
    with tempfile.TemporaryDirectory(prefix="pcamx-loader-") as scratch:
        folder = options.films or Path(scratch)
        stores = open_stores(folder, options.count, options.size)
        rows, notes = bench(stores, Path(scratch), options.canvas, batch, device)
    found.rows.extend(rows)
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "Loading", [*NOTES.splitlines(), *notes])
    print(f"{path}: {len(found.rows)} figures")


def bench(
    stores: Stores, scratch: Path, canvas: int, batch: int, device: torch.device
) -> tuple[list[Row], list[str]]:
    """Measure all figures on these stores; a line for each loader that could not run."""
    workers = len(os.sched_getaffinity(0))
    store = stores.found[PNG]
    films = store.split("train")
    size = max(max(film.width, film.height) for film in films)
    case = f"{len(films)} films of {size} px > {canvas} px"
    chunks = [range(i, min(i + batch, len(films))) for i in range(0, len(films), batch)]
    decoded = decode_batches(store.root, films, chunks, canvas, device=device, threads=workers)
    truth_N1HW = torch.cat([canvas_B1HW.cpu() for canvas_B1HW in decoded])

    configs, rows = dict[str, Config](), list[Row]()
    for name, other in stores.found.items():
        configs[name] = config_of(other, scratch / "cache" / name, canvas, batch, workers)
        rows += first_decode(f"first decode, {case}", name, configs[name], other, device)
    config = configs[PNG]
    feed = open_feed(config, Decoded(config.data, store, device), stage=STAGE_1.key)
    loaders, notes = loaders_of(stores, config, feed, workers, device)
    order = list(epoch_order(len(films), batch, seed=0, epoch=0))
    for loader in track(loaders, "loaders checked", len(loaders)):
        rows += check(f"canvases beside DALI's on PNG, {case}", loader, truth_N1HW, order)
    return measure(f"{case}, batches of {batch}", loaders, feed, device) + rows, notes


if __name__ == "__main__":
    made = command.parser(
        "loader",
        "Time an epoch of loading, nothing trained: DALI, resident, torch DataLoader, raw memmap.",
        "python -m bench.loader --films runs/loader_films --json loader.json",
    )
    made.add_argument(
        "--films", type=Path, metavar="FOLDER", help="keep the drawn films there, or find them"
    )
    made.add_argument("--count", type=int, default=400, help="films (%(default)s)")
    made.add_argument("--size", type=int, default=512, help="their long side (%(default)s px)")
    made.add_argument("--canvas", type=int, default=320, help="side in pixels (%(default)s)")
    made.add_argument("--batch", type=int, help="films of a batch (default: 256; on a CPU 64)")
    sys.exit(command.main(made, run))
