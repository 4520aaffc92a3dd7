"""A run's folder opened for measuring: its networks, and the films that they are measured on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch

from pcamx import config as configs
from pcamx.config import Config
from pcamx.data.canvas.provider import Canvases, Decoded, stream
from pcamx.data.feed.batches import eval_batches
from pcamx.data.feed.order import choose_marked
from pcamx.data.prepare.identical_files import copies
from pcamx.data.store import SPLITS, Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.model.network import Network, Segmenter
from pcamx.progress import Say, Track, silent
from pcamx.run import checkpoints
from pcamx.run.checkpoints import Weights
from pcamx.run.folder import check_store
from pcamx.types import SEGMENTER, Batch, section

_BATCH = 32
Split = Literal["valid", "test"]
N = TypeVar("N", Network, Segmenter)


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run with its finished stages, and the films that it is measured on."""

    folder: Path
    config: Config
    own: Store
    """That it was trained with; thresholds are tuned on it."""
    store: Store
    """That it is measured on."""
    split: Split
    """The films of both stores that it is measured on."""
    weights: dict[int, Weights]
    segmenter: Weights | None
    device: torch.device
    track: Track
    say: Say

    def measured(self, store: Store, what: str) -> Iterator[Batch]:
        """All films of a store's split, decoded once."""
        decoded = Decoded(self.config.data, store, self.device, self.track, self.say)
        return self._batches(store, store.split(self.split), decoded.split(self.split), what)

    def some(self, store: Store, films: Sequence[Film], what: str = "") -> Iterator[Batch]:
        """A few films; they are decoded as they come."""
        canvases = stream(self.config.data, store, films, self.device)
        return self._batches(store, films, canvases, what)

    def _batches(
        self, store: Store, films: Sequence[Film], canvases: Canvases, what: str
    ) -> Iterator[Batch]:
        impl = self.config.attention.impl
        batches = eval_batches(
            store, films, canvases, batch_size=_BATCH, device=self.device, impl=impl
        )
        track = self.track if what else silent
        return track(batches, f"{what}, {_BATCH} at a time", -(-len(films) // _BATCH))

    def networks(self) -> dict[str, Network]:
        """Of every finished stage, by "stage 1" and so on, in evaluation mode on the device."""
        found = {}
        for number, weights in self.weights.items():
            network = Network(self.config, decoder=number == 3)
            found[f"stage {number}"] = self._filled(network, weights)
        return found

    def untrained(self) -> Network:
        """The same network with the seed's first weights."""
        torch.manual_seed(self.config.run.seed)
        return Network(self.config, decoder=True).to(self.device).eval()

    def trained_segmenter(self) -> Segmenter | None:
        """The baseline of stage 3, None where it was not trained."""
        weights = self.segmenter
        return self._filled(Segmenter(self.config), weights) if weights else None

    def _filled(self, network: N, weights: Weights) -> N:
        path = self.folder / section(weights.stage) / "weights.pt"
        missing = checkpoints.fill(network, weights, path, layout=self.config.model.layout)
        if missing:
            raise PcamxError(f"{path}: lacks {missing[0]}")
        return network.to(self.device).eval()

    def tuning_films(self) -> list[Film]:
        """The marked training films that stage 3 may see, so no stage is tuned on more marks."""
        films = self.own.split("train")
        chosen = choose_marked(films, self.config.data.marked, seed=self.config.run.seed)
        return [films[i] for i in chosen]


def _refuse_trained_on(own: Store, other: Store, split: Split) -> None:
    """Raise PcamxError if films to be measured are copies of those that the run learned from."""
    ones = [(film, other.root / film.path) for film in other.split(split)]
    trained = [(film, own.root / film.path) for film in own.split("train")]
    try:
        found = list(copies(ones, trained))
    except OSError as error:
        raise PcamxError(f"{error.filename}: {error.strerror}; prepare its store anew") from None
    if found:
        film, there = found[0]
        raise PcamxError(
            f"{other.folder}: {len(found)} of the {len(ones)} films in its {split} split are "
            f"training films of this run, such as {film.path} ({there.path} there); leave them out"
        )


def open_run(folder: Path, other: Path | None, split: Split, track: Track, say: Say) -> OpenRun:
    """Open the run in ``folder`` to be measured on ``split`` of its own store, or of ``other``.

    Raises PcamxError where the folder holds no run or no finished stage, the store has changed
    since, the split is empty, or ``other`` would have training films measured.
    """
    if not (folder / "config.yaml").is_file():
        raise PcamxError(f"{folder}: not a run's folder, config.yaml is not there")
    config = configs.load(folder / "config.yaml")
    own = read_store(Path(config.data.store))
    check_store(folder, own.folder)
    store = own if other is None else replace(read_store(other), mean=own.mean, std=own.std)
    found = {n: folder / f"stage{n}" / "weights.pt" for n in (1, 2, 3)}
    weights = {n: checkpoints.load_weights(path) for n, path in found.items() if path.is_file()}
    segmenter = folder / section(SEGMENTER) / "weights.pt"
    if not weights:
        raise PcamxError(f"{folder}: none of stages 1, 2, 3 is finished; train one, or --resume it")
    if not store.split(split):
        others = ", ".join(name for name in SPLITS if store.split(name))
        raise PcamxError(f"{store.folder}: no film is in the {split} split, only in {others}")
    if other is not None:
        _refuse_trained_on(own, store, split)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    baseline = checkpoints.load_weights(segmenter) if segmenter.is_file() else None
    return OpenRun(folder, config, own, store, split, weights, baseline, device, track, say)
