"""Where canvases come from: decoded once and kept, or decoded anew each epoch.

Shapes: N films, S steps, B batch (one rank's share of it), H W the canvas.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from pcamx.config import Data
from pcamx.data.canvas import cache
from pcamx.data.canvas.decode import Decoder, decode_batches, who_decodes
from pcamx.data.store import Film, Store
from pcamx.devices import to_device
from pcamx.distributed import HostRanks
from pcamx.errors import PcamxError
from pcamx.progress import Say, Track, mute, silent
from pcamx.types import IntArray

Canvases = Callable[[Sequence[IntArray]], Iterator[tuple[Tensor, Tensor]]]
"""From the film indices of each batch, S times [B], to S pairs on the device: canvases, uint8
[N, 1, H, W], not to be written into, and the rows [B] in them of the batch's films."""

CHUNK = 64  # films that are decoded at a time where they are kept
AHEAD = 2  # batches that are gathered before they are asked for
_SHARE = 0.5
"""Of a GPU's free memory that canvases may take; the rest is the network's."""


@dataclass(frozen=True)
class Decoded:
    """The canvases of a store's splits on one rank, as data.feed says; stages share them."""

    data: Data
    store: Store
    device: torch.device
    track: Track = silent
    say: Say = mute
    _opened: dict[str, Canvases] = field(default_factory=dict)

    def split(self, name: str) -> Canvases:
        """Return the canvases of a split, made ready by the first call, which every rank must make.

        Raises PcamxError, on every rank, if a film cannot be read or nothing has room.
        """
        if name not in self._opened:
            films = self.store.split(name)
            kept = films and self.data.feed == "resident"
            self._opened[name] = (self._resident if kept else self._stream)(name, films)
        return self._opened[name]

    def _stream(self, name: str, films: Sequence[Film]) -> Canvases:
        if films:
            who = who_decodes(films, self.device, self.data.threads)
            self.say(f"{name}: {len(films):,} films, decoded anew each epoch; {who}")
        return stream(self.data, self.store, films, self.device)

    def _resident(self, name: str, films: Sequence[Film]) -> Canvases:
        canvas_N1HW = self._file(name, films)
        if self.device.type != "cuda":
            return held(canvas_N1HW, self.device)
        needed, room = canvas_N1HW.nbytes, _room(self.device)
        fits = needed <= room
        where = "on the GPU" if fits else "in host memory, each batch copied to the GPU"
        self.say(f"{name}: {_size(needed)} of canvases, {_size(room)} of room: kept {where}")
        if fits:
            return held(canvas_N1HW.to(self.device), self.device)
        return gathered(canvas_N1HW, self.device)

    def _file(self, name: str, films: Sequence[Film]) -> Tensor:
        """The split's file, mapped; decoded by the ranks of each host that does not have it."""
        host, head, failure = HostRanks(), "", ""
        found: cache.Plan | None = None
        if host.leads:
            try:
                head = cache.describe(self.data, self.store, films, self.device)
                found = cache.plan(self.data, self.store, films, head)
            except PcamxError as error:
                failure = str(error)
        try:
            host.raise_together(failure)
            plan = host.gather(found)[host.leader]
            self._say_plan(name, films, plan)
            return self._open(host, plan, head, films, name)
        finally:
            if found is not None and found.draft is not None:
                found.draft.unlink(missing_ok=True)

    def _say_plan(self, name: str, films: Sequence[Film], plan: cache.Plan) -> None:
        size = _size(cache.size(self.data, len(films)))
        if plan.draft is None:
            self.say(f"{name}: {size} of canvases, decoded before: {plan.path}")
            return
        if plan.damaged:
            self.say(f"warning: {plan.path} is damaged, its SHA-256 is another: decoded anew")
        who = who_decodes(films, self.device, self.data.threads)
        where = f"memory until the run ends ({plan.reason})" if plan.reason else plan.path
        warning = "warning: " if plan.reason else ""
        self.say(f"{warning}{name}: {size} of canvases, decoded once into {where}; {who}")

    def _open(
        self, host: HostRanks, plan: cache.Plan, head: str, films: Sequence[Film], name: str
    ) -> Tensor:
        failure = ""
        try:
            file = plan.draft.open("r+b") if plan.draft else plan.path.open("rb")
        except OSError as error:
            failure = f"{error.filename}: {error.strerror}; the ranks of a host share data.cache"
        host.raise_together(failure)
        with file:
            if plan.draft is not None and plan.reason and host.leads:
                plan.draft.unlink()  # memory goes with the last process, however it ends
            if plan.draft is not None:
                try:
                    self._fill(file, films, host.share(len(films)), name)
                except PcamxError as error:
                    failure = str(error)
            host.raise_together(failure)
            for leader in host.leaders:
                # One host after the other: they may share the folder.
                if leader == host.rank and plan.draft is not None and not plan.reason:
                    problem = cache.publish(file, plan, head, cache.size(self.data, len(films)))
                    if problem:
                        self.say(f"warning: {problem}: the next run decodes {name} again")
                host.gather(None)
            return cache.mapped(file, len(films), self.data.canvas)

    def _fill(self, file: BinaryIO, films: Sequence[Film], mine: range, name: str) -> None:
        """Decode the rows ``mine`` into the file."""
        chunks = [mine[i : i + CHUNK] for i in range(0, len(mine), CHUNK)]
        canvas, threads = self.data.canvas, self.data.threads
        decoded = decode_batches(
            self.store.root,
            films,
            chunks,
            canvas,
            device=self.device,
            threads=threads,
            contents=self.store.contents,
        )
        try:
            file.seek(cache.HEAD + mine.start * canvas**2)
            shown = f"decoding {name} films, {CHUNK} at a time"
            for canvas_B1HW in self.track(decoded, shown, len(chunks)):
                file.write(canvas_B1HW.cpu().numpy().data)
            file.flush()
        except OSError as error:
            raise PcamxError(
                f"{file.name}: {error.strerror}; set data.cache to another folder"
            ) from None


def stream(data: Data, store: Store, films: Sequence[Film], device: torch.device) -> Canvases:
    """Decode every batch when it is asked for, all epochs by one pipeline."""
    decoder = Decoder(
        store.root,
        films,
        data.canvas,
        device=device,
        threads=data.threads,
        contents=store.contents,
    )

    def canvases(batches: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        decoded = decoder.batches([batch.tolist() for batch in batches])
        return (
            (canvas_B1HW, torch.arange(len(canvas_B1HW), device=device)) for canvas_B1HW in decoded
        )

    return canvases


def held(canvas_N1HW: Tensor, device: torch.device) -> Canvases:
    """Return canvases that lie on the device, on a CPU in the file that all its ranks map."""

    def canvases(batches: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        if not batches:
            return iter(())
        rows = to_device(torch.from_numpy(np.concatenate(batches)), device)
        sizes = [len(batch) for batch in batches]
        return ((canvas_N1HW, row_B) for row_B in torch.split(rows, sizes))

    return canvases


def gathered(canvas_N1HW: Tensor, device: torch.device) -> Canvases:
    """Return canvases in the host's memory, of which each batch's are copied to the device.

    A thread gathers the next batches into pinned memory meanwhile; PyTorch does not use that
    memory again before the copy out of it is done.
    """

    def gather(batch_B: IntArray) -> Tensor:
        canvas_B1HW = torch.empty(
            (len(batch_B), *canvas_N1HW.shape[1:]),
            dtype=torch.uint8,
            pin_memory=device.type == "cuda",
        )
        return torch.index_select(canvas_N1HW, 0, torch.from_numpy(batch_B), out=canvas_B1HW)

    def canvases(batches: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(1) as thread:
            waiting: deque[Future[Tensor]] = deque()
            for i, batch in enumerate(batches):
                ahead = batches[i + len(waiting) : i + 1 + AHEAD]
                waiting.extend(thread.submit(gather, later) for later in ahead)
                canvas_B1HW = waiting.popleft().result().to(device, non_blocking=True)
                yield canvas_B1HW, torch.arange(len(batch), device=device)

    return canvases


def _room(device: torch.device) -> int:
    """Bytes of a GPU that canvases may take."""
    torch.cuda.empty_cache()  # what PyTorch keeps for later is free
    free, _ = torch.cuda.mem_get_info(device)
    return int(_SHARE * free)


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
