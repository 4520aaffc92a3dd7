"""Which films make up each batch: a pure function of seed and epoch, the same for any ranks.

Shapes: S steps of an epoch, B the global batch. Rank r of R takes columns [r B/R, (r+1) B/R).
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pcamx.catalogue import StageId, trainable
from pcamx.config import Config
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.types import ABNORMAL, NORMAL, IntArray

FloatArray = npt.NDArray[np.float64]


class Stream(IntEnum):
    """Keeps the random numbers of different uses apart where seed and epoch are the same."""

    ORDER = 1
    MARKED_ORDER = 2
    MARKED_CHOICE = 3
    WARP = 4
    NORMAL_ORDER = 5
    ABNORMAL_ORDER = 6
    STRATUM_ORDER = 7


_Turn = TypeVar("_Turn", IntArray, Tensor)
Classes = Mapping[int, Sequence[int]]
"""Indices of the films of each label."""


def generator(stream: Stream, seed: int, *counters: int) -> np.random.Generator:
    """Return a fresh generator addressed by its place in the run: no need for a checkpoint."""
    return np.random.default_rng([seed, stream, *counters])


def steps_per_epoch(films: int, batch_size: int, marked_per_batch: int = 0) -> int:
    """Count the whole batches in an epoch; raises PcamxError if the films do not fill one."""
    ordinary = batch_size - marked_per_batch
    if films < ordinary:
        raise PcamxError(
            f"runtime.batch_size: {batch_size} is more than the {films} training films can "
            f"fill; lower it to {films + marked_per_batch} or less"
        )
    return films // ordinary


def epoch_order(
    films: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    strata: Sequence[Classes] = (),
    marked: Sequence[int] = (),
    marked_per_batch: int = 0,
) -> IntArray:
    """Return the film indices of every batch of an epoch, int64 [S, B].

    The ordinary slots hold each film at most once, shuffled anew each epoch, the tail dropped.
    With one of ``strata`` half of each batch is abnormal instead, marked films counted, each class
    going through its films in rounds as the marked ones do. With more of them half of each is
    abnormal over the epoch, marked films counted: what tells the strata apart says nothing of the
    label. Each keeps its share of the films, but for one whose marked films are more than half of
    that. Where marked films are more than half of all, the rest is normal, in their shares.
    ``marked_per_batch`` slots, spread evenly over the columns so that every rank gets its share,
    go through ``marked`` in shuffled rounds that carry on over batches and epochs: at any moment
    no marked film has been used more than once oftener than another.

    Raises PcamxError if the films do not fill one batch.
    """
    steps = steps_per_epoch(films, batch_size, marked_per_batch)
    ordinary = batch_size - marked_per_batch
    if not strata:
        shuffled = generator(Stream.ORDER, seed, epoch).permutation(films)[: steps * ordinary]
        ordinary_SO = shuffled.reshape(steps, ordinary).astype(np.int64)
    elif len(strata) == 1:
        abnormal = max(0, batch_size // 2 - marked_per_batch)
        ordinary_SO = _of_both(strata[0], steps, ordinary, abnormal, seed, epoch)
    else:
        draws = _draws(strata, steps * ordinary, marked, steps * marked_per_batch)
        ordinary_SO = _of_strata(strata, draws, seed, epoch).reshape(steps, ordinary)
    if not marked_per_batch:
        return ordinary_SO
    is_marked_B = _spread(marked_per_batch, batch_size)
    order_SB = np.empty((steps, batch_size), np.int64)
    order_SB[:, ~is_marked_B] = ordinary_SO
    order_SB[:, is_marked_B] = _turns(
        Stream.MARKED_ORDER, marked, steps, marked_per_batch, seed, epoch
    )
    return order_SB


def marked_order(
    marked: Sequence[int], steps: int, batch_size: int, *, seed: int, epoch: int
) -> IntArray:
    """Return batches of marked films alone, int64 [S, B], in shuffled rounds as `epoch_order`."""
    return _turns(Stream.MARKED_ORDER, marked, steps, batch_size, seed, epoch)


def _spread(count: int, slots: int) -> npt.NDArray[np.bool_]:
    """Which of ``slots`` are taken by ``count``, evenly, so that every rank gets its share."""
    return np.isin(np.arange(slots), column_of(np.arange(count), count, slots))


def column_of(turn: _Turn, count: int, slots: int) -> _Turn:
    """Return the column, of ``slots``, of the marked film number ``turn`` of a batch's ``count``.

    ``turn`` is an array or a tensor of whole numbers below ``count``.
    """
    return (2 * turn + 1) * slots // (2 * max(count, 1))


def turns_before(column: int, count: int, slots: int) -> int:
    """Return how many of a batch's ``count`` marked films stand in columns before ``column``."""
    return -((slots - 2 * column * count) // (2 * slots))


def _of_both(
    classes: Classes,
    steps: int,
    slots: int,
    abnormal: int,
    seed: int,
    epoch: int,
) -> IntArray:
    """Normal films, and ``abnormal`` abnormal ones spread among them."""
    order_SO, is_abnormal_O = np.empty((steps, slots), np.int64), _spread(abnormal, slots)
    for label, stream, places_O in (
        (NORMAL, Stream.NORMAL_ORDER, ~is_abnormal_O),
        (ABNORMAL, Stream.ABNORMAL_ORDER, is_abnormal_O),
    ):
        if count := int(places_O.sum()):
            order_SO[:, places_O] = _turns(stream, classes[label], steps, count, seed, epoch)
    return order_SO


def _draws(
    strata: Sequence[Classes], count: int, marked: Sequence[int], marked_count: int
) -> list[dict[int, int]]:
    """How many of ``count`` films an epoch draws of each stratum's classes.

    A class that a stratum lacks is made up for by all the others. A stratum in which the marked
    films are more than their class's share grows, so that its other class is as many.
    """
    places = [(s, label) for s, classes in enumerate(strata) for label in classes if classes[label]]
    in_place = np.array([len(set(marked).intersection(strata[s][label])) for s, label in places])
    taken = marked_count * in_place / max(1, in_place.sum())
    stratum = np.array([s for s, _ in places])
    least = np.array([taken[stratum == s].max() for s in stratum])
    size = np.array([sum(map(len, strata[s].values())) for s in stratum])
    wanted = _shares(size, least, count + marked_count) - taken
    whole = np.floor(wanted * count / wanted.sum()).astype(int)
    # What rounding left goes to those that lost most by it.
    lost = wanted * count / wanted.sum() - whole
    whole[np.argsort(-lost, kind="stable")[: count - whole.sum()]] += 1
    draws: list[dict[int, int]] = [{} for _ in strata]
    for (s, label), number in zip(places, whole.tolist(), strict=True):
        draws[s][label] = number
    return draws


def _shares(size: FloatArray, least: FloatArray, total: int) -> FloatArray:
    """Divide ``total`` in proportion to ``size``, but for who is to have at ``least`` more.

    Where they are to have more than there is, they get ``least``, and more than ``total``.
    """
    held = np.zeros(len(size), bool)
    while not held.all():
        each = max(0.0, total - least[held].sum()) / size[~held].sum()
        short = ~held & (each * size < least)
        if not short.any():
            return np.where(held, least, each * size)
        held |= short
    return least


def _of_strata(
    strata: Sequence[Classes], draws: Sequence[Mapping[int, int]], seed: int, epoch: int
) -> IntArray:
    """An epoch's films in any order, each class of a stratum in rounds that carry on."""
    chosen = [
        _rounds(Stream.STRATUM_ORDER, strata[s][label], (seed, s, label), epoch * number, number)
        for s, numbers in enumerate(draws)
        for label, number in numbers.items()
        if number
    ]
    return generator(Stream.ORDER, seed, epoch).permutation(np.concatenate(chosen))


def _turns(
    stream: Stream, items: Sequence[int], steps: int, per_step: int, seed: int, epoch: int
) -> IntArray:
    """An epoch's share [S, per_step] of the endless rounds of ``items``."""
    count = steps * per_step
    return _rounds(stream, items, (seed,), epoch * count, count).reshape(steps, per_step)


def _rounds(
    stream: Stream, items: Sequence[int], address: tuple[int, ...], start: int, count: int
) -> IntArray:
    """Elements [start, start + count) of an endless sequence of shuffled rounds of ``items``."""
    first, last = start // len(items), (start + count - 1) // len(items)
    rounds = [
        generator(stream, *address, turn).permutation(np.asarray(items, np.int64))
        for turn in range(first, last + 1)
    ]
    offset = start - first * len(items)
    return np.concatenate(rounds)[offset : offset + count]


def choose_marked(films: Sequence[Film], count: int, *, seed: int) -> list[int]:
    """Choose up to ``count`` abnormal films that have a mark, spread over the body parts; their
    indices.

    The parts take turns, each giving its films in a seeded order, so that a smaller count
    chooses a subset of a larger one's films.
    """
    by_part: dict[str, list[int]] = {}
    for index, film in enumerate(films):
        if film.mark and film.label == ABNORMAL:
            by_part.setdefault(film.part, []).append(index)
    rng = generator(Stream.MARKED_CHOICE, seed)
    queues = [[int(i) for i in rng.permutation(by_part[part])] for part in sorted(by_part)]
    # Which part goes first must not depend on the alphabet.
    queues = [queues[int(k)] for k in rng.permutation(len(queues))]
    turns = [(turn, k, i) for k, queue in enumerate(queues) for turn, i in enumerate(queue)]
    return [i for _, _, i in sorted(turns)[:count]]


def marked_per_batch(config: Config, stage: StageId) -> int:
    """Return how many marked films stand among the ordinary ones in each global batch."""
    among = trainable(stage).batches == "films and marks"
    return config.objective.marked_per_batch if among else 0


def marked_films(config: Config, store: Store, stage: StageId) -> list[int]:
    """Return the marked training films' indices; raises PcamxError where ``stage`` needs one."""
    marked = choose_marked(store.split("train"), config.data.marked, seed=config.run.seed)
    entry = trainable(stage)
    if not marked and entry.learns_marks:
        name = entry.title if entry.classifies else f"the {entry.title}"
        raise PcamxError(
            f"data.marked: 0 leaves {name} no lesion to learn from; raise it"
            if config.data.marked == 0
            else f"{store.folder}: {name} needs an abnormal training film with a lesion mark, "
            "and there is none; run pcamx prepare with --marks"
        )
    return marked
