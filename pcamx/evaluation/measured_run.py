"""A run opened for measuring: its networks, and the films that they are measured on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pcamx.catalogue import CENTRE, STAGE_3, UNTRAINED, MapKind, maps_of, trainable
from pcamx.config import Config, Data
from pcamx.data.canvas.provider import Canvases, Decoded, stream
from pcamx.data.feed.batches import eval_batches
from pcamx.data.feed.order import choose_marked
from pcamx.data.prepare.identical_files import copies
from pcamx.data.store import SPLITS, Film, Store, read_store
from pcamx.devices import command_device
from pcamx.errors import PcamxError
from pcamx.evaluation.explainers import Explainer, centre, explainer
from pcamx.model.network import Network, Segmenter, build_network
from pcamx.progress import Say, Track, silent
from pcamx.run.films import read_films_of
from pcamx.run.folder import RunFolder
from pcamx.run.weights import Weights, network_of
from pcamx.types import NORMAL as NORMAL_LABEL
from pcamx.types import Batch

_MOST_FILMS, _MOST_PIXELS = 32, 32 * 320**2
"""Of a batch: it is measured with gradients, and 32 films of 512 px took 16 GB on a CPU."""
NORMAL = 200
"""Normal training films that the level of lesion candidates is taken from, at most."""
CALIBRATING = 400
"""Training films that the temperature is fitted on, at most."""
Split = Literal["valid", "test"]


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run with what it finished, and the films that it is measured on."""

    run: RunFolder
    config: Config
    own: Store
    """That it was trained with; thresholds are tuned on it."""
    store: Store
    """That it is measured on."""
    split: Split
    """The films of both stores that it is measured on."""
    weights: list[Weights]
    """Of what is finished, in the order of training."""
    device: torch.device
    track: Track
    say: Say

    def measured(self, store: Store, what: str) -> Iterator[Batch]:
        """Yield all films of a store's split, decoded once."""
        decoded = Decoded(self._data, store, self.device, self.track, self.say)
        return self._batches(store, store.split(self.split), decoded.split(self.split), what)

    def some(self, store: Store, films: Sequence[Film], what: str = "") -> Iterator[Batch]:
        """Yield a few films; they are decoded as they come."""
        canvases = stream(self._data, store, films, self.device)
        return self._batches(store, films, canvases, what)

    @property
    def _data(self) -> Data:
        """The run's, with a cache that is in the same place from any working directory."""
        data, moved = self.config.data, self.own.folder != Path(self.config.data.store)
        return replace(data, cache="") if moved and not Path(data.cache).is_absolute() else data

    def _batches(
        self, store: Store, films: Sequence[Film], canvases: Canvases, what: str
    ) -> Iterator[Batch]:
        impl = self.config.impl
        size = min(_MOST_FILMS, max(1, _MOST_PIXELS // self.config.data.canvas**2))
        batches = eval_batches(
            store, films, canvases, batch_size=size, device=self.device, impl=impl
        )
        track = self.track if what else silent
        return track(batches, f"{what}, {size} at a time", -(-len(films) // size))

    def networks(self) -> dict[str, Network | Segmenter]:
        """Return every finished network by its title, in evaluation mode on the device."""
        return {
            trainable(weights.stage).title: network_of(
                weights,
                self.run.weights(weights.stage),
                self.device,
                self.config.attention,
                self.config.impl,
                mirrored=self.config.model.mirrored,
            )
            for weights in self.weights
        }

    def untrained(self) -> Network:
        """Return stage 3's network with the seed's first weights."""
        torch.manual_seed(self.config.run.seed)
        network = build_network(STAGE_3, self.config)
        assert isinstance(network, Network)
        return network.to(self.device).eval()

    def tuning_films(self) -> list[Film]:
        """Return the marked training films that stage 3 may see: none is tuned on more marks."""
        films = self.own.split("train")
        chosen = choose_marked(films, self.config.data.marked, seed=self.config.run.seed)
        return [films[i] for i in chosen]

    def normal_films(self) -> list[Film]:
        """Return normal training films, at most NORMAL, drawn by the seed, in the set's order."""
        films = [film for film in self.own.split("train") if film.label == NORMAL_LABEL]
        drawn = np.random.default_rng(self.config.run.seed).permutation(len(films))[:NORMAL]
        return [films[i] for i in sorted(drawn)]

    def calibrating_films(self) -> list[Film]:
        """Return training films of both classes in their own shares, at most CALIBRATING, as
        `normal_films` does.
        """
        films = self.own.split("train")
        drawn = np.random.default_rng(self.config.run.seed).permutation(len(films))[:CALIBRATING]
        return [films[i] for i in sorted(drawn)]

    def explainers(
        self, networks: dict[str, Network | Segmenter], untrained: Network
    ) -> dict[str, Explainer]:
        """Return everything whose maps are measured, by title: networks, then baselines."""
        plain: list[MapKind] = maps_of(STAGE_3, gradient=False)
        return {
            **self.trained_explainers(networks, classify=True),
            CENTRE.key: centre,
            UNTRAINED.key: explainer(untrained, plain),
            **self.trained_explainers(networks, classify=False),
        }

    def trained_explainers(
        self, networks: dict[str, Network | Segmenter], *, classify: bool
    ) -> dict[str, Explainer]:
        """Return, by title, those of the networks that ``classify``, the stages, or do not."""
        entries = [trainable(weights.stage) for weights in self.weights]
        return {
            entry.title: explainer(networks[entry.title], maps_of(entry))
            for entry in entries
            if entry.classifies is classify
        }


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


def open_run(folder: Path, other: Path | None, split: Split, track: Track, say: Say) -> MeasuredRun:
    """Open the run in ``folder`` to be measured on ``split`` of its own store, or of ``other``.

    Raises PcamxError where the folder holds no run or no finished stage, the store has changed
    since, the split is empty, or ``other`` would have training films measured.
    """
    run = RunFolder(folder)
    config = run.read_config()
    run.check_store(run.find_store(config))
    run.finished_classifiers()
    weights = [run.load_weights(key) for key in run.finished()]
    own = read_films_of(run, config, weights)
    store = own if other is None else replace(read_store(other), mean=own.mean, std=own.std)
    if not store.split(split):
        others = ", ".join(name for name in SPLITS if store.split(name))
        raise PcamxError(f"{store.folder}: no film is in the {split} split, only in {others}")
    if other is not None:
        _refuse_trained_on(own, store, split)
    return MeasuredRun(run, config, own, store, split, weights, command_device(), track, say)
