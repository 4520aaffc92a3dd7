"""Ways to load films, all by the interface of the feed's own: orders of films in, canvases out.

Shapes: N films, B batch, H W the canvas.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.lib.stores import JPEG, PNG, Stores
from pcamx.config import Config
from pcamx.data.canvas.cache import HEAD
from pcamx.data.canvas.placement import fit, on_film
from pcamx.data.canvas.provider import Canvases, gathered, stream
from pcamx.data.feed.batches import Feed
from pcamx.data.store import CANVASES, Film, Store
from pcamx.devices import to_device
from pcamx.errors import PcamxError
from pcamx.types import IntArray

ALIKE = 3.0  # grey levels: of another resize, or of JPEG
RESIDENT, MEMMAP, HOST = "resident", "raw memmap", "host memory"
Grey = npt.NDArray[np.uint8]
Read = Callable[[Path, int, int], Grey]
"""A file's grey levels at a width and a height, uint8 [height, width]."""


@dataclass(frozen=True)
class Loader:
    """``error`` is how far its canvases may lie from DALI's on PNG, in grey levels at the mean."""

    name: str
    canvases: Canvases
    error: float


def uint8_batch(canvas_N1HW: Tensor, row_B: Tensor) -> Tensor:
    """Return what a loader gave as a batch [B, 1, H, W]: gathered where it gave all of its
    canvases.

    Batches are smaller than the films are many.
    """
    whole = len(canvas_N1HW) == len(row_B)
    return canvas_N1HW if whole else canvas_N1HW.index_select(0, row_B)


def read_pillow(path: Path, width: int, height: int) -> Grey:
    """Read by Pillow, whose triangle filter is antialiased, as DALI's resize is."""
    from PIL import Image

    with Image.open(path) as image:
        grey = image if image.mode == "L" else image.convert("L")
        return np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR))


def read_opencv(path: Path, width: int, height: int) -> Grey:
    """Read by OpenCV, whose one antialiased filter is the mean over a pixel's area.

    Raises PcamxError where it cannot read the file.
    """
    import cv2

    grey: Any = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise PcamxError(f"{path}: OpenCV cannot read it")
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class FilmSet(Dataset[Tensor]):
    """Film > uint8 [1, H, W]: decoded grey, reduced, centred on black by the feed's geometry."""

    def __init__(self, root: Path, films: Sequence[Film], side: int, read: Read) -> None:
        self.root, self.films, self.side, self.read = root, films, side, read

    def __getitem__(self, index: int) -> Tensor:
        film = self.films[index]
        at = fit(film.width, film.height, self.side)
        canvas_HW = np.zeros((self.side, self.side), np.uint8)
        grey_HW = self.read(self.root / film.path, at.width, at.height)
        on_film(canvas_HW, at)[:] = grey_HW
        return torch.from_numpy(canvas_HW)[None]


def torch_dataloader(
    store: Store, side: int, read: Read, *, workers: int, device: torch.device
) -> Canvases:
    """Return a DataLoader as a careful user writes it.

    Whole batches of bytes collated by ``workers`` processes, which live from epoch to epoch, two
    batches ahead each; pinned and copied without waiting where there is a GPU.
    """
    order: list[list[int]] = []  # the workers' next epoch
    loader = DataLoader(
        FilmSet(store.root, store.split("train"), side, read),
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        worker_init_fn=partial(_one_thread, read),
        multiprocessing_context="spawn",  # a fork would copy DALI's threads and the GPU's context
    )

    def canvases(batches: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        order[:] = [batch.tolist() for batch in batches]
        for canvas_B1HW in loader:
            rows = torch.arange(len(canvas_B1HW), device=device)
            yield canvas_B1HW.to(device, non_blocking=True), rows

    return canvases


def _one_thread(read: Read, worker: int) -> None:
    """PyTorch sees to its own threads; OpenCV's would be as many again in each worker."""
    del worker
    if read is read_opencv:
        import cv2

        cv2.setNumThreads(0)


def raw_memmap(path: Path, films: int, side: int, device: torch.device) -> Canvases:
    """Return decoded canvases in a plain file, mapped, each batch gathered out of it by NumPy.

    What FFCV's raw mode does, without its compiled threads. ``path`` is the feed's own cache file.
    """
    raw_NHW = np.memmap(path, np.uint8, mode="r", offset=HEAD, shape=(films, side, side))

    def canvases(batches: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch_B in batches:
            canvas_B1HW = torch.from_numpy(raw_NHW[batch_B])[:, None]
            yield to_device(canvas_B1HW, device), torch.arange(len(batch_B), device=device)

    return canvases


def loaders_of(
    stores: Stores, config: Config, feed: Feed, workers: int, device: torch.device
) -> tuple[list[Loader], list[str]]:
    """Return every loader that can run here, resident first, and a line for each that cannot."""
    side, films = config.data.canvas, feed.images
    (file,) = Path(config.data.cache).glob(f"*{CANVASES}")
    made = [
        Loader(RESIDENT, feed.canvases, 0.0),
        Loader(MEMMAP, raw_memmap(file, films, side, device), 0.0),
    ]
    if device.type == "cuda":
        canvas_N1HW, _ = next(feed.canvases([np.arange(films)]))
        made.append(Loader(HOST, gathered(canvas_N1HW.cpu(), device), 0.0))
    for name, store in stores.found.items():
        canvases = stream(config.data, store, store.split("train"), device)
        made.append(Loader(f"DALI, {name}", canvases, ALIKE if name == JPEG else 0.0))
    notes = [f"not run: {name}: {why}" for name, why in stores.missing.items()]
    for library, read in (("Pillow", read_pillow), ("OpenCV", read_opencv)):
        try:
            film = stores.found[PNG].films[0]
            read(stores.found[PNG].root / film.path, film.width, film.height)
        except ImportError as error:
            notes.append(f"not run: {library}: {error}; pip install 'pcamx[bench]'")
            continue
        for name in (PNG, JPEG):
            canvases = torch_dataloader(
                stores.found[name], side, read, workers=workers, device=device
            )
            made.append(Loader(f"DataLoader, {library}, {name}", canvases, ALIKE))
    return made, notes
