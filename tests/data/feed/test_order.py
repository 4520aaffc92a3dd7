"""Which films make up a batch."""

import subprocess
import sys

import numpy as np
import pytest

from pcamx.data.feed.order import choose_marked, epoch_order, steps_per_epoch
from pcamx.data.store import Film
from pcamx.errors import PcamxError


def test_each_film_at_most_once_and_the_tail_dropped() -> None:
    order = epoch_order(23, 5, seed=1, epoch=0)
    assert order.shape == (4, 5) and order.dtype == np.int64
    assert len(np.unique(order)) == 20
    assert 0 <= order.min() and order.max() < 23


def test_depends_on_seed_and_epoch_and_nothing_else() -> None:
    order = epoch_order(100, 10, seed=1, epoch=2)
    assert (order == epoch_order(100, 10, seed=1, epoch=2)).all()
    assert (order != epoch_order(100, 10, seed=2, epoch=2)).any()
    assert (order != epoch_order(100, 10, seed=1, epoch=3)).any()
    dropped = [set(range(23)) - set(epoch_order(23, 5, seed=0, epoch=e).flat) for e in range(4)]
    assert len(set(map(frozenset, dropped))) > 1  # not always the same films


@pytest.mark.parametrize(("batch", "per_batch", "ranks"), [(16, 4, 4), (12, 3, 2), (8, 7, 8)])
def test_every_rank_gets_its_share_of_marked_films(batch: int, per_batch: int, ranks: int) -> None:
    marked = range(1000, 1009)  # not ordinary films, so that the slots can be told apart
    order = epoch_order(50, batch, seed=0, epoch=0, marked=marked, marked_per_batch=per_batch)
    is_marked = order >= 1000
    assert (is_marked.sum(1) == per_batch).all()
    per_rank = is_marked.reshape(len(order), ranks, -1).sum(2)
    assert per_rank.min() >= per_batch // ranks
    assert per_rank.max() <= -(-per_batch // ranks)
    ordinary = order[~is_marked]
    assert len(np.unique(ordinary)) == ordinary.size == len(order) * (batch - per_batch)


def test_marked_films_are_used_equally_over_batches_and_epochs() -> None:
    uses = np.zeros(7, int)
    for epoch in range(5):
        order = epoch_order(20, 6, seed=3, epoch=epoch, marked=range(100, 107), marked_per_batch=2)
        for batch in order:
            uses += np.bincount(batch[batch >= 100] - 100, minlength=7)
            assert uses.max() - uses.min() <= 1
    assert uses.sum() == 5 * 5 * 2


def test_one_marked_film_fills_all_marked_slots() -> None:
    order = epoch_order(9, 4, seed=0, epoch=1, marked=[77], marked_per_batch=3)
    assert ((order == 77).sum(1) == 3).all()


def test_too_few_films() -> None:
    assert steps_per_epoch(8, 8) == 1
    with pytest.raises(PcamxError, match=r"runtime\.batch_size: 8 .* 7 training films.* 7 or less"):
        epoch_order(7, 8, seed=0, epoch=0)
    assert steps_per_epoch(7, 9, 2) == 1


@pytest.mark.parametrize(
    ("batch", "per_batch", "ranks"), [(8, 0, 2), (12, 2, 2), (9, 0, 1), (12, 8, 2), (16, 8, 4)]
)
def test_balanced_batches_are_half_abnormal_and_use_each_class_equally(
    batch: int, per_batch: int, ranks: int
) -> None:
    classes = {0: range(40), 1: range(100, 107)}  # 15 % abnormal
    uses = np.zeros(107, int)
    for epoch in range(3):
        order = epoch_order(
            47,
            batch,
            seed=5,
            epoch=epoch,
            strata=[classes],
            marked=[1000],
            marked_per_batch=per_batch,
        )
        assert len(order) == steps_per_epoch(47, batch, per_batch)
        ordinary = order[order < 1000].reshape(len(order), -1)
        if not per_batch:
            assert ((ordinary >= 100) == np.arange(batch) % 2).all()
        abnormal = order >= 100  # marked ones too
        assert (abnormal.sum(1) == max(batch // 2, per_batch)).all()
        shares = abnormal.reshape(len(order), ranks, -1).sum(2)
        assert shares.max() - shares.min() <= 2
        uses += np.bincount(ordinary.flat, minlength=107)
        for label in classes:
            assert np.ptp(uses[list(classes[label])]) <= 1
    assert not uses[40:100].any()


def test_within_strata_half_is_abnormal_by_hand() -> None:
    """Of 48 films 36 lie in the first stratum, as do the marked ones; 6 steps of 8 + 4 marked."""
    strata = [{0: range(6), 1: range(6, 36)}, {0: range(36, 47), 1: [47]}]
    uses, per_step = np.zeros(48, int), []
    for epoch in range(6):
        order = epoch_order(
            48, 12, seed=5, epoch=epoch, strata=strata, marked=range(6, 10), marked_per_batch=4
        )
        assert order.shape == (6, 12)
        first = order < 36
        abnormal = np.isin(order, [*strata[0][1], 47])
        # 72 films: 54 of the first stratum, 27 of them abnormal; 18 of the second, 9 abnormal.
        assert (first.sum(), (first & abnormal).sum()) == (54, 27)
        assert ((~first).sum(), (~first & abnormal).sum()) == (18, 9)
        ordinary = order[:, ~np.isin(np.arange(12), [1, 4, 7, 10])]
        uses += np.bincount(ordinary.flat, minlength=48)
        per_step.extend(abnormal.sum(1))
    assert all(np.ptp(uses[list(c[label])]) <= 1 for c in strata for label in (0, 1))
    assert np.ptp(per_step) > 0  # shuffled over the steps


@pytest.mark.parametrize(
    ("per_batch", "expected"),
    [  # 12 steps of 8; 2 strata of 24 films, marked films 9 to 1 of the first
        # 24 marked: 21.6 and 2.4, less than the 24 that half of each stratum are.
        (2, [24, 24, 24, 24]),
        # 4 of 8 are 48 marked ones: 43.2 and 4.8, so normal ones as many, and no other abnormal.
        (4, [43, 43, 5, 5]),
        # 6 of 8 are 72, 64.8 and 7.2: the 24 others are normal, 9 to 1 as well.
        (6, [22, 65, 2, 7]),
    ],
)
def test_marked_films_of_one_stratum_by_hand(per_batch: int, expected: list[int]) -> None:
    strata = [{0: range(12), 1: range(12, 24)}, {0: range(24, 36), 1: range(36, 48)}]
    marked = [*range(12, 21), 36]
    films = 12 * (8 - per_batch)  # as many as make 12 steps
    order = epoch_order(
        films, 8, seed=3, epoch=1, strata=strata, marked=marked, marked_per_batch=per_batch
    )
    found = [int(np.isin(order, list(c[label])).sum()) for c in strata for label in (0, 1)]
    assert order.size == 96 and np.abs(np.subtract(found, expected)).max() <= 1
    if per_batch > 2:
        assert np.isin(order, [12 + 9, 12 + 10, 12 + 11, *range(37, 48)]).sum() == 0


def test_a_class_that_a_stratum_lacks_is_made_up_for() -> None:
    strata = [{0: range(10), 1: range(10, 20)}, {0: range(20, 40), 1: []}]
    order = epoch_order(40, 10, seed=1, epoch=0, strata=strata)
    counts = [int((order < 10).sum()), int(((order >= 10) & (order < 20)).sum())]
    # A quarter of 40 each, scaled up from 30.
    assert [*counts, int((order >= 20).sum())] == [14, 13, 13]


def film(index: int, part: str, label: int, mark: str) -> Film:
    return Film(f"{index}.png", label, "p", f"s{index}", part, "train", 9, 9, 255, mark)


def test_marked_films_are_spread_over_the_parts() -> None:
    parts = ["HAND"] * 20 + ["WRIST"] * 20 + ["ELBOW"] * 2
    films = [film(i, part, 1, "m.png") for i, part in enumerate(parts)]
    films += [film(90, "HAND", 0, "m.png"), film(91, "HAND", 1, "")]  # normal; not marked
    few, many = choose_marked(films, 8, seed=0), choose_marked(films, 12, seed=0)
    assert sorted(parts[i] for i in few) == ["ELBOW"] * 2 + ["HAND"] * 3 + ["WRIST"] * 3
    assert set(few) < set(many) and len(set(many)) == 12
    assert set(few) != set(choose_marked(films, 8, seed=1))
    assert sorted(choose_marked(films, 1000, seed=0)) == list(range(42))
    assert choose_marked(films, 0, seed=0) == []


def test_order_does_not_load_dali() -> None:
    code = (
        "import sys, pcamx.data.feed.order, pcamx.data.feed.augment; "
        "sys.exit('nvidia.dali' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
