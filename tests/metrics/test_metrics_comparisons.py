"""Holm's correction and exact intervals, by hand and by the binomial distribution."""

import pytest

from pcamx.metrics import Figure, Statistic, figure, holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.6]) == [1.0, None, 1.0]  # 2 x 0.5, and the next not below it
    assert holm([0.2]) == [0.2] and holm([]) == [] and holm([None]) == [None]


@pytest.mark.parametrize("patients", [2, 10, 97])
def test_none_and_all_have_the_exact_interval(patients: int) -> None:
    """The end is the share at which none, or all, of so many trials come with 2.5 %."""
    names = [f"p{i // 2}" for i in range(2 * patients)]  # two films each: half as many trials
    none = figure([0.0] * len(names), names, share=True, seed=0)
    assert none.low == 0 and none.high is not None
    assert (1 - none.high) ** patients == pytest.approx(0.025)
    every = figure([True] * len(names), names, share=True, seed=0)
    assert every.high == 1 and every.low is not None
    assert every.low**patients == pytest.approx(0.025)
    assert none.n == every.n == 2 * patients


def test_ten_of_ten_as_printed() -> None:
    """69.15 % to 100 %: tables of Clopper-Pearson, 10 of 10."""
    found = figure([1.0] * 10, list(range(10)), share=True, seed=0)
    assert found.low == pytest.approx(0.6915, abs=5e-5)


def test_only_a_share_of_none_or_all() -> None:
    names = list("abcdefgh")
    some = figure([0.0] * 7 + [1.0], names, share=True, seed=0)
    assert some.low == 0 and some.high == pytest.approx(0.375, abs=0.13)  # the bootstrap's
    flat = figure([0.3] * 8, names, share=True, seed=0)
    assert (flat.low, flat.high) == (None, None)  # nothing is known of how they vary
    whole = Statistic(1.0, 8, lambda weight_RN: weight_RN.sum(1) * 0 + 1)  # an AUROC, say
    assert figure(whole, names, seed=0)[:3] == (1.0, None, None)
    # A correlation of 0 on every film may lie on either side of it.
    assert figure([0.0] * 8, names, seed=0) == Figure(0.0, None, None, 8)
