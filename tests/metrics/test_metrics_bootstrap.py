"""Figures and their intervals: by hand, against explicit resampling, and their coverage."""

import json
import math

import numpy as np
import pytest
import torch

from pcamx.metrics import Difference, Figure, Statistic, auroc, figure, mean, paired
from pcamx.metrics import bootstrap as module
from pcamx.metrics.bootstrap import draw_patients, mean_known, weighted_sums

PATIENTS = ["p3", "p1", "p1", "p2", "p3", "p3", "p4", "p2"]
VALUES = [0.9, 0.1, 0.2, 0.5, 0.7, 1.0, 0.0, 0.4]


def films_of_draw(count_P: np.ndarray, patients: list[str]) -> list[int]:
    """The films of one replicate, each as often as its patient was drawn."""
    names = sorted(set(patients))
    return [
        film
        for patient, times in enumerate(count_P)
        for _ in range(times)
        for film, name in enumerate(patients)
        if name == names[patient]
    ]


def test_agrees_with_explicit_resampling_of_the_same_draws() -> None:
    result = figure(VALUES, PATIENTS, replicates=400, seed=5)
    means = [
        np.mean([VALUES[film] for film in films_of_draw(count_P, PATIENTS)])
        for block_RP in draw_patients(4, 400, seed=5)
        for count_P in block_RP
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    assert result.value == pytest.approx(np.mean(VALUES), abs=1e-15)
    assert result.low == pytest.approx(low, abs=1e-12)
    assert result.high == pytest.approx(high, abs=1e-12)
    assert result.n == 8
    assert low < np.mean(VALUES) < high


def test_all_films_of_a_patient_come_along() -> None:
    seen = []

    def replicate(weight_RN: np.ndarray) -> np.ndarray:
        seen.append(weight_RN)
        return np.asarray(weight_RN.sum(axis=1))

    figure(Statistic(8.0, 8, replicate), PATIENTS, replicates=50, seed=0)
    weight_RN = np.concatenate(seen)
    assert weight_RN.shape == (50, 8)
    for films in ([0, 4, 5], [1, 2], [3, 7]):  # those of p3, p1, p2
        assert (weight_RN[:, films] == weight_RN[:, films[:1]]).all()
    assert (weight_RN[:, [0, 1, 3, 6]].sum(axis=1) == 4).all()  # as many draws as patients
    assert len(np.unique(weight_RN, axis=0)) > 10


def test_draws_are_uniform_over_patients_and_do_not_depend_on_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (whole,) = draw_patients(7, 3000, seed=1)
    assert whole.shape == (3000, 7) and (whole.sum(axis=1) == 7).all()
    # the count of a patient has mean 1 and variance 6/7
    assert whole.mean(axis=0) == pytest.approx(np.ones(7), abs=4 * math.sqrt(6 / 7 / 3000))
    assert whole.var(axis=0) == pytest.approx(np.full(7, 6 / 7), rel=0.15)
    result = figure(VALUES, PATIENTS, replicates=300, seed=1)
    monkeypatch.setattr(module, "_DRAWN", 23)
    blocks = list(draw_patients(7, 3000, seed=1))
    assert len(blocks) == 1000
    assert np.array_equal(np.concatenate(blocks), whole)
    in_blocks = figure(VALUES, PATIENTS, replicates=300, seed=1)
    assert in_blocks == pytest.approx(result, abs=1e-12)


def test_seed_decides_and_order_of_films_does_not() -> None:
    once = figure(VALUES, PATIENTS, replicates=200, seed=0)
    assert once == figure(VALUES, PATIENTS, replicates=200, seed=0)
    assert once != figure(VALUES, PATIENTS, replicates=200, seed=1)
    order = [4, 2, 7, 0, 1, 6, 5, 3]
    shuffled = figure(
        [VALUES[i] for i in order], [PATIENTS[i] for i in order], replicates=200, seed=0
    )
    assert shuffled == pytest.approx(once, abs=1e-12)


def test_tensor_array_and_list_are_the_same() -> None:
    expected = figure(VALUES, PATIENTS, replicates=50, seed=0)
    for values in (np.array(VALUES), torch.tensor(VALUES, dtype=torch.float64)):
        assert figure(values, PATIENTS, replicates=50, seed=0) == expected
    learning = torch.tensor(VALUES, dtype=torch.bfloat16, requires_grad=True)
    assert figure(learning, PATIENTS, replicates=50, seed=0).value == pytest.approx(0.475, abs=0.01)
    numbers = [int(name[1:]) for name in PATIENTS]
    assert figure(VALUES, numbers, replicates=50, seed=0) == expected


def test_a_share_of_none_of_the_films_that_it_is_of() -> None:
    """Clopper and Pearson of the three patients that have one, not of all four."""
    values = np.array([0.0, np.nan, 0.0, 0.0, np.nan])
    patients = ["a", "b", "c", "d", "d"]
    found = figure(mean_known(values, share=True), patients, seed=0)
    assert found == Figure(0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 3)), 5)
    one = figure(mean_known(np.array([1.0, np.nan])), ["a", "b"], seed=0)
    assert one == Figure(1.0, None, None, 2)


def test_what_is_no_share_and_shows_no_spread_has_no_interval() -> None:
    """[1, 1] for five films of which the next might be otherwise; a difference may be below 0."""
    patients = list("abcdefghij")
    flips = figure(mean_known(np.array([1.0, 1.0, np.nan, 1.0, 1.0, 1.0])), range(6), seed=0)
    assert flips == Figure(1.0, None, None, 6)
    assert figure(mean_known(np.zeros(3)), range(3), seed=0) == Figure(0.0, None, None, 3)
    assert figure([0.1] * 10, patients, seed=0) == Figure(pytest.approx(0.1), None, None, 10)
    score, label = [0.1, 0.2, 0.3, 0.4, 0.45, 0.6, 0.7, 0.8, 0.9, 0.95], [0] * 5 + [1] * 5
    assert figure(auroc(score, label), patients, seed=0) == Figure(1.0, None, None, 10)
    other = figure(auroc([*score[:-1], 0.44], label), patients, seed=0)
    assert other.low is not None and other.low < 1 == other.high


def test_one_patient_alone_shows_no_spread() -> None:
    assert figure([0.0, 1.0, 1.0], ["p"] * 3, seed=0) == Figure(2 / 3, None, None, 3)


def test_nothing_gives_none() -> None:
    assert figure([], [], seed=0) == Figure(None, None, None, 0)
    assert mean([]).value is None


def test_undefined_replicates_are_left_out() -> None:
    # two abnormal films of a and b against normal ones: undefined wherever neither was drawn
    score, label, patients = [0.6, 0.2, 0.1, 0.9, 0.3], [1, 1, 0, 0, 0], ["a", "b", "c", "d", "e"]
    statistic = auroc(score, label)
    result = figure(statistic, patients, replicates=500, seed=2)
    drawn = [
        films_of_draw(count_P, patients)
        for block_RP in draw_patients(5, 500, seed=2)
        for count_P in block_RP
    ]
    defined = [
        np.mean([score[a] > score[n] for a in films if label[a] for n in films if not label[n]])
        for films in drawn
        if len({label[f] for f in films}) == 2
    ]
    assert 300 < len(defined) < 500
    assert result.value == pytest.approx(3 / 6, abs=1e-7)
    expected = np.percentile(defined, [2.5, 97.5])
    assert [result.low, result.high] == pytest.approx(expected.tolist(), abs=1e-12)


def test_a_value_without_one_defined_replicate_has_no_interval() -> None:
    def never(weight_RN: np.ndarray) -> np.ndarray:
        return np.full(len(weight_RN), np.nan)

    assert figure(Statistic(0.5, 2, never), ["a", "b"], seed=0) == Figure(0.5, None, None, 2)


def test_to_dict_is_json() -> None:
    text = json.dumps(figure([], [], seed=0).to_dict(), allow_nan=False)
    assert json.loads(text) == {"value": None, "low": None, "high": None, "n": 0}
    record = figure(VALUES, PATIENTS, seed=0).to_dict()
    assert list(record) == ["value", "low", "high", "n"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="3 films, 2 patients"):
        figure([1.0, 2.0, 3.0], ["a", "b"], seed=0)
    with pytest.raises(ValueError, match="0 replicates"):
        figure([1.0, 2.0], ["a", "b"], replicates=0, seed=0)
    for bad in ([1.0, math.nan], [1.0, math.inf], [[1.0], [2.0]]):
        with pytest.raises(ValueError, match="one finite number per film"):
            figure(np.array(bad), ["a", "b"], seed=0)


def holds(truth: float, fit: Figure) -> bool:
    assert fit.low is not None and fit.high is not None
    return fit.low <= truth <= fit.high


def test_intervals_cover_the_truth_and_films_as_units_would_not() -> None:
    """60 patients with 5 nearly equal films each: 95 % intervals must hold the mean about 95 %."""
    generator = np.random.default_rng(11)
    trials, patients, films = 300, 60, 5
    covered = covered_by_film = 0
    names = np.repeat(np.arange(patients), films).tolist()
    for trial in range(trials):
        level_P = generator.normal(0.4, 0.2, patients)
        values = np.repeat(level_P, films) + generator.normal(0, 0.05, patients * films)
        fit = figure(values, names, replicates=300, seed=trial)
        covered += holds(0.4, fit)
        fit = figure(values, range(patients * films), replicates=300, seed=trial)
        covered_by_film += holds(0.4, fit)
    assert 0.90 <= covered / trials <= 0.98
    assert covered_by_film / trials < 0.75


# Two runs on the same films


def test_few_patients_have_no_test() -> None:
    """p would be 0.0002 here, of two films of two patients that differ by nothing but chance."""
    few = paired([0.31, 0.32], [0.3, 0.3], ["p0", "p1"], replicates=10_000, seed=0)
    assert few.p is None and few.value == pytest.approx(0.015)
    nine, ten = ([1.0] * n + [0.0] for n in (8, 9))
    assert paired(nine, [0.0] * 9, range(9), seed=0).p is None
    assert paired(ten, [0.0] * 10, range(10), seed=0).p is not None


def test_a_test_counts_the_patients_behind_each_run() -> None:
    """Of one class, or of the films that a figure is of, and not of all films."""
    label = [1] * 9 + [0] * 60
    score = [0.1 + 0.01 * i for i in range(69)]
    for abnormal, counts in ((9, False), (10, True)):
        label = [1] * abnormal + [0] * (69 - abnormal)
        one, other = auroc(score, label), auroc(score[::-1], label)
        found = paired(one, other, range(69), seed=0)
        assert found.n == 69 and (found.p is not None) is counts
    alone = figure(auroc(score, [1] + [0] * 68), range(69), seed=0)
    assert (alone.low, alone.high) == (None, None) and alone.value is not None
    known, unknown = np.arange(100.0) % 2, np.full(100, np.nan)
    unknown[3] = 0
    found = paired(mean_known(known), mean_known(unknown), range(100), seed=0)
    assert found == Difference(0.5, None, None, None, 100)
    few = np.where(np.arange(100) < 12, known, np.nan)
    other = np.where(np.arange(100) > 3, 0.0, few)
    assert paired(mean_known(few), mean_known(few), range(100), seed=0).n == 12
    assert paired(mean_known(few), mean_known(other), range(100), seed=0).n == 100


def test_paired_agrees_with_explicit_resampling_of_the_same_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FEWEST", 2)
    other = [0.5, 0.3, 0.2, 0.9, 0.1, 0.6, 0.3, 0.4]
    result = paired(VALUES, other, PATIENTS, replicates=400, seed=5)
    gaps = [a - b for a, b in zip(VALUES, other, strict=True)]
    means = [
        np.mean([gaps[film] for film in films_of_draw(count_P, PATIENTS)])
        for block_RP in draw_patients(4, 400, seed=5)
        for count_P in block_RP
    ]
    assert result.value == pytest.approx(np.mean(gaps), abs=1e-15)
    expected = np.percentile(means, [2.5, 97.5])
    assert [result.low, result.high] == pytest.approx(expected.tolist(), abs=1e-12)
    below, above = sum(m <= 1e-15 for m in means), sum(m >= -1e-15 for m in means)
    assert 10 < min(below, above) < 190
    assert result.p == pytest.approx(2 * (min(below, above) + 1) / 401)
    assert result.n == 8
    back = paired(other, VALUES, PATIENTS, replicates=400, seed=5)
    assert (back.value, back.low, back.high) == pytest.approx(
        (-(result.value or 0), -(result.high or 0), -(result.low or 0))
    )
    assert back.p == result.p


def test_what_both_runs_share_cancels() -> None:
    """Films differ much more than runs: the paired interval is narrow, the single ones wide."""
    generator = np.random.default_rng(0)
    names = np.repeat(np.arange(40), 3).tolist()
    hard = np.repeat(generator.random(40), 3)
    better = hard + 0.05 + generator.normal(0, 0.02, 120)
    gain = paired(better, hard, names, seed=0)
    assert gain.low is not None and gain.high is not None and gain.p is not None
    assert 0.04 < gain.low < gain.high < 0.06 and gain.p < 0.01
    one, other = figure(better, names, seed=0), figure(hard, names, seed=0)
    assert (one.low or 0) < (other.high or 0)  # side by side they tell nothing


def test_the_same_run_twice_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST", 2)
    assert paired(VALUES, VALUES, PATIENTS, seed=0) == Difference(0.0, 0.0, 0.0, 1.0, 8)


def test_paired_statistics_that_are_no_means() -> None:
    generator = np.random.default_rng(3)
    label = np.repeat([0, 1], 60)
    good, weak = (
        np.clip(label * gap + generator.normal(0.3, 0.2, 120), 0, 1) for gap in (0.4, 0.1)
    )
    names = generator.permutation(np.repeat(np.arange(60), 2)).tolist()
    result = paired(auroc(good, label), auroc(weak, label), names, seed=0)
    value = (auroc(good, label).value or 0) - (auroc(weak, label).value or 0)
    assert result.value == pytest.approx(value) and value > 0.1
    assert result.low is not None and 0 < result.low < value and result.p == 2 / 1001


def test_paired_where_something_is_undefined() -> None:
    assert paired([], [], [], seed=0) == Difference(None, None, None, None, 0)
    one_class = auroc([0.1, 0.2], [0, 0])
    assert paired(one_class, one_class, ["a", "b"], seed=0).value is None
    assert paired([1.0, 0.5], [0.5, 0.5], ["a", "a"], seed=0) == Difference(
        0.25, None, None, None, 2
    )
    record = paired(VALUES, VALUES, PATIENTS, seed=0).to_dict()
    assert list(record) == ["value", "low", "high", "p", "n"]
    with pytest.raises(ValueError, match="2 films, 3 patients"):
        paired([1.0, 2.0, 3.0], [1.0, 2.0], ["a", "b", "c"], seed=0)


def test_paired_finds_nothing_where_there_is_nothing_about_one_time_in_twenty() -> None:
    generator = np.random.default_rng(12)
    trials, names = 300, np.repeat(np.arange(50), 3).tolist()
    found = 0
    for trial in range(trials):
        level = np.repeat(generator.normal(0, 0.2, 50), 3)  # a patient's films lean one way
        gap = level + generator.normal(0, 0.1, 150)
        p = paired(gap, np.zeros(150), names, replicates=400, seed=trial).p
        assert p is not None
        found += p < 0.05
    assert 0.02 <= found / trials <= 0.09


def test_weighted_sums_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    weight_RN, table_NK = generator.random((3, 50)), generator.integers(0, 9, (50, 7))
    expected = weight_RN @ table_NK
    assert weighted_sums(weight_RN, table_NK) == pytest.approx(expected)
    monkeypatch.setattr(module, "_CELLS", 40)
    assert weighted_sums(weight_RN, table_NK) == pytest.approx(expected)
    assert weighted_sums(weight_RN[:, :0], table_NK[:0]).tolist() == np.zeros((3, 7)).tolist()
    deep = weighted_sums(weight_RN, table_NK.reshape(50, 7, 1))
    assert deep.shape == (3, 7, 1) and deep[:, :, 0] == pytest.approx(expected)
