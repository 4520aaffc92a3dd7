"""Batches for training and evaluation.

Shapes: N films, M marked films, S steps, B batch (one rank's share of it), H W the canvas.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcamx import ops
from pcamx.catalogue import StageId, trainable
from pcamx.config import Config
from pcamx.data.canvas.lesion_mask import lesion_canvas
from pcamx.data.canvas.provider import Canvases, Decoded
from pcamx.data.feed.augment import draw, identity
from pcamx.data.feed.order import (
    Classes,
    epoch_order,
    marked_films,
    marked_order,
    marked_per_batch,
    steps_per_epoch,
)
from pcamx.data.feed.strata import strata
from pcamx.data.store import Film, Store
from pcamx.devices import to_device
from pcamx.errors import PcamxError
from pcamx.progress import Track
from pcamx.types import Batch, IntArray


@dataclass(frozen=True, slots=True)
class Lesions:
    """Which training films may be learned from with their lesions, and the masks of stage 3."""

    marked: list[int]
    row_N: IntArray  # a film's mask below; the last, empty one where it is not among ``marked``
    mask_M1HW: Tensor | None  # uint8 {0, 1}, on the device; None in stages 1 and 2


@dataclass(frozen=True, slots=True)
class Feed:
    """One rank's batches of the training split; `open_feed` makes it.

    The batches are a pure function of config, store and epoch: whichever feed, number of ranks
    or step to start from, the global batch is the same to the bit.
    """

    stage: StageId
    images: int
    """Films of the training split."""
    steps_per_epoch: int
    marked_films: tuple[Film, ...]
    """Training films whose lesion marks may be learned from; no other mark is looked at."""

    config: Config
    store: Store
    device: torch.device
    columns: slice
    """This rank's share of the global batch."""
    label_N: IntArray
    strata: Sequence[Classes]
    """Within which batches are balanced; none where they are not."""
    lesions: Lesions
    canvases: Canvases

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch from ``start_step`` on, without waiting for the
        device.

        In batches of films alone no lesion is looked at: ``lesion_B1HW`` is an expanded zero (one
        element, not to be written into) and ``marked_B`` false throughout. With more ranks than
        objective.marked_per_batch some ranks have no marked film among theirs.
        """
        config, seed, lesions = self.config, self.config.run.seed, self.lesions
        order_SB = self._order(epoch)[start_step:, self.columns]
        label_SB = to_device(torch.from_numpy(self.label_N[order_SB]), self.device)
        lesion_row_SB = to_device(torch.from_numpy(lesions.row_N[order_SB]), self.device)
        for i, (canvas_N1HW, row_B) in enumerate(self.canvases(list(order_SB))):
            warp = draw(
                config.augment,
                config.runtime.batch_size,
                seed=seed,
                epoch=epoch,
                step=start_step + i,
            ).columns(self.columns)
            shown = lesions.mask_M1HW is not None
            image, lesion = ops.gather_affine_normalise(
                canvas_N1HW,
                row_B,
                *warp.on(self.device),
                self.store.mean,
                self.store.std,
                lesion_M1HW=lesions.mask_M1HW,
                lesion_row_B=lesion_row_SB[i] if shown else None,
                impl=config.impl,
            )
            marked_B = lesion_row_SB[i] < (len(lesions.marked) if shown else 0)
            yield Batch(image, label_SB[i], lesion, marked_B)

    def _order(self, epoch: int) -> IntArray:
        """Film indices of every global batch of an epoch, [S, B]."""
        size, seed, marked = (
            self.config.runtime.batch_size,
            self.config.run.seed,
            self.lesions.marked,
        )
        if trainable(self.stage).batches == "marks":
            return marked_order(marked, self.steps_per_epoch, size, seed=seed, epoch=epoch)
        return epoch_order(
            self.images,
            size,
            seed=seed,
            epoch=epoch,
            strata=self.strata,
            marked=marked,
            marked_per_batch=marked_per_batch(self.config, self.stage),
        )


def open_feed(
    config: Config, decoded: Decoded, *, stage: StageId, rank: int = 0, world: int = 1
) -> Feed:
    """Make ready the training split for one rank of ``world``, and the masks learned from.

    Raises PcamxError if the batch cannot be shared by the ranks or filled by the films, if one of
    those has no marked film, or if a mask cannot be read; or as `Decoded.split`.
    """
    batch_size = config.runtime.batch_size
    if batch_size % world:
        raise PcamxError(
            f"runtime.batch_size: {batch_size} cannot be shared by {world} ranks; "
            f"make it a multiple of {world}"
        )
    store = decoded.store
    films = store.split("train")
    steps = steps_per_epoch(len(films), batch_size, marked_per_batch(config, stage))
    lesions = _lesions(config, store, stage, decoded.device, decoded.track)
    share = batch_size // world
    return Feed(
        stage=stage,
        images=len(films),
        steps_per_epoch=steps,
        marked_films=tuple(films[i] for i in lesions.marked),
        config=config,
        store=store,
        device=decoded.device,
        columns=slice(rank * share, (rank + 1) * share),
        label_N=np.array([film.label for film in films]),
        strata=strata(config, store),
        lesions=lesions,
        canvases=decoded.split("train"),
    )


def _lesions(
    config: Config, store: Store, stage: StageId, device: torch.device, track: Track
) -> Lesions:
    """Choose the marked films and, where they are learned from, read their masks."""
    films, marked = store.split("train"), marked_films(config, store, stage)
    row_N = np.full(len(films), len(marked))
    row_N[marked] = np.arange(len(marked))
    if not trainable(stage).learns_marks:
        return Lesions(marked, row_N, None)
    masks = [
        _mask(store, films[i], config.data.canvas)
        for i in track(marked, "reading lesion masks", len(marked))
    ]
    stacked_M1HW = torch.stack([*masks, torch.zeros_like(masks[0])])
    return Lesions(marked, row_N, to_device(stacked_M1HW, device))


def eval_batches(
    store: Store,
    films: Sequence[Film],
    canvases: Canvases,
    *,
    batch_size: int,
    device: torch.device,
    rows: Sequence[int] | None = None,
    lesions: bool = True,
    impl: ops.Impl = "auto",
) -> Iterator[Batch]:
    """Yield ``films``, or their ``rows``, in order, not augmented; the last batch may be shorter.

    ``canvases`` are those of ``films``. ``lesion_B1HW`` and ``marked_B`` are filled for every film
    that has a mark; without ``lesions`` no mark is read, and ``lesion_B1HW`` is an expanded zero.
    ``impl`` as in `pcamx.ops`.
    Raises PcamxError if a film or mask cannot be read.
    """
    order = np.arange(len(films)) if rows is None else np.asarray(rows, np.int64)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for batch, (canvas_N1HW, row_B) in zip(batches, canvases(batches), strict=True):
        share = [films[i] for i in batch]
        side = canvas_N1HW.shape[-1]
        mask_B1HW = to_device(_masks(store, share, side), device) if lesions else None
        image, lesion = ops.gather_affine_normalise(
            canvas_N1HW,
            row_B,
            *identity(len(share)).on(device),
            store.mean,
            store.std,
            lesion_M1HW=mask_B1HW,
            lesion_row_B=torch.arange(len(share), device=device) if lesions else None,
            impl=impl,
        )
        label_B = torch.tensor([film.label for film in share])
        marked_B = torch.tensor([bool(film.mark) and lesions for film in share])
        yield Batch(image, to_device(label_B, device), lesion, to_device(marked_B, device))


def _masks(store: Store, films: Sequence[Film], side: int) -> Tensor:
    """The lesions of ``films``, uint8 [B, 1, H, W]; empty where a film has no mark."""
    lesion_B1HW = torch.zeros(len(films), 1, side, side, dtype=torch.uint8)
    for k, film in enumerate(films):
        if film.mark:
            lesion_B1HW[k] = _mask(store, film, side)
    return lesion_B1HW


def _mask(store: Store, film: Film, side: int) -> Tensor:
    """A marked film's lesion; PcamxError if its mask is not what prepare wrote, or all black."""
    store.check_mark(film)
    lesion_1HW = lesion_canvas(store.folder / film.mark, film, side)
    if not lesion_1HW.any():
        raise PcamxError(f"{store.folder / film.mark}: all black; run pcamx prepare again")
    return lesion_1HW
