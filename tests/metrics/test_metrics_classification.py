"""AUROC, accuracy and kappa: by hand, against torchmetrics, and study by study."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_cohen_kappa,
    binary_recall,
    binary_specificity,
)

from pcamx.metrics import (
    Figure,
    Statistic,
    accuracy,
    auroc,
    brier,
    calibration_error,
    classification_figures,
    figure,
    temperature,
)
from pcamx.metrics.calibration import at_temperature
from pcamx.metrics.classification import (
    auroc_within,
    cohen_kappa,
    gather_studies,
    sensitivity_at,
    share_called,
)

Ours = Callable[[Any, Any], Statistic]
STATISTICS: dict[Ours, Callable[[Tensor, Tensor], Tensor]] = {
    auroc: binary_auroc,
    accuracy: binary_accuracy,
    cohen_kappa: binary_cohen_kappa,
}
each_statistic = pytest.mark.parametrize(
    "statistic", STATISTICS, ids=["auroc", "accuracy", "cohen_kappa"]
)


def some_films(films: int = 120, levels: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and labels that go with them somewhat."""
    generator = np.random.default_rng(4)
    score = generator.integers(0, levels + 1, films) / levels
    label = (score + generator.normal(0, 0.4, films) > 0.5).astype(np.int64)
    return score, label


def test_by_hand() -> None:
    score, label = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    assert auroc(score, label).value == pytest.approx(0.75)  # 3 of 4 pairs in order
    assert auroc([0.5, 0.5, 0.2], [1, 0, 0]).value == pytest.approx(0.75)  # a tie is a half
    assert accuracy(score, label).value == 0.75
    # 20 found, 10 false alarms, 5 missed, 15 right normals: po 0.7, pe 0.5, kappa 0.4
    called = [0.9] * 20 + [0.9] * 10 + [0.1] * 5 + [0.1] * 15
    truth = [1] * 20 + [0] * 10 + [1] * 5 + [0] * 15
    assert cohen_kappa(called, truth).value == pytest.approx(0.4)
    assert cohen_kappa(called, truth).n == 50


def test_one_half_is_normal() -> None:
    assert accuracy([0.5, 0.5], [0, 1]).value == 0.5
    assert accuracy([0.5, 0.5], [0, 0]).value == 1.0


@each_statistic
def test_weights_agree_with_torchmetrics_on_replicated_films(statistic: Ours) -> None:
    score, label = some_films()
    ours, theirs = statistic(score, label), STATISTICS[statistic]
    generator = np.random.default_rng(9)
    weight_RN = generator.poisson(1.0, (40, len(score))).astype(np.float64)
    weight_RN[0] = 1
    expected = []
    for weight_N in weight_RN.astype(int):
        films = np.repeat(np.arange(len(score)), weight_N)
        value = theirs(torch.from_numpy(score[films]), torch.from_numpy(label[films]))
        expected.append(float(value))
    assert len(set(expected)) > 30
    assert ours.replicate(weight_RN).tolist() == pytest.approx(expected, abs=1e-6)
    assert ours.value == pytest.approx(expected[0], abs=1e-6)
    assert ours.n == len(score)


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    score, label = some_films()
    pairs = [(a > b) + (a == b) / 2 for a in score[label == 1] for b in score[label == 0]]
    exact = auroc(score, label).replicate(np.ones((1, len(score))))
    assert exact.tolist() == pytest.approx([np.mean(pairs)], abs=1e-14)


@each_statistic
def test_order_of_films_is_free_and_a_perfect_score_is_one(statistic: Ours) -> None:
    score, label = some_films()
    order = np.random.default_rng(0).permutation(len(score))
    shuffled = statistic(score[order], label[order]).value
    assert shuffled == pytest.approx(statistic(score, label).value, abs=1e-6)
    assert statistic(0.25 + label / 2, label).value == 1.0


def test_auroc_undefined_with_one_class() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for label in ([0, 0, 0], [1, 1, 1]):
            statistic = auroc([0.1, 0.2, 0.9], label)
            assert statistic.value is None
            assert figure(statistic, ["a", "b", "c"], seed=0) == Figure(None, None, None, 3)
        for statistic in (auroc([], []), accuracy([], []), cohen_kappa([], [])):
            assert figure(statistic, [], seed=0) == Figure(None, None, None, 0)
        replicates = auroc([0.1, 0.9], [0, 1]).replicate(np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert math.isnan(replicates[0]) and replicates[1] == 1


def test_auroc_within_groups_by_hand() -> None:
    """Hands: 0.9 > 0.2, 0.1 < 0.2, so 1 of 2 pairs; hips: a tie, 1/2 of 1; the leg has none."""
    score, label = [0.9, 0.1, 0.2, 0.5, 0.5, 0.7], [1, 1, 0, 1, 0, 1]
    groups = ["hand", "hand", "hand", "hip", "hip", "leg"]
    assert auroc_within(score, label, groups).value == pytest.approx(1.5 / 3)
    # Between hand and hip nothing is compared: all hips abnormal, all hands normal.
    assert auroc_within([0.9, 0.1], [1, 0], ["hip", "hand"]).value is None
    # A film of no known group is in none, and not all such films in one.
    unknown = ["hand", "hand", "hand", "", "", ""]
    assert auroc_within(score, label, unknown).value == pytest.approx(1 / 2)
    assert auroc_within(score, label, [""] * 6).value is None


def test_weights_of_auroc_within_groups_are_copies_of_films() -> None:
    rng = np.random.default_rng(2)
    score, label = rng.random(30).round(1), rng.integers(0, 2, 30)
    group = rng.choice(["a", "b"], 30)
    weight = rng.integers(0, 3, 30)
    films = np.repeat(np.arange(30), weight)
    copied = auroc_within(score[films], label[films], list(group[films])).value
    weighed = auroc_within(score, label, list(group)).replicate(weight[None].astype(float))
    assert weighed[0] == pytest.approx(copied)


def test_sensitivity_at_a_specificity_by_hand() -> None:
    """Ten normal films, one of which may be called: 0.8 leaves it, 0.7 would call a second."""
    normal = [0.8, 0.7, *[0.1] * 8]
    score, label = [*normal, 0.9, 0.75, 0.7, 0.3], [0] * 10 + [1] * 4
    assert sensitivity_at(score, label, 0.9).value == pytest.approx(2 / 4)
    # Two may be: the others lie at 0.1, so any threshold down to 0.3 will do.
    assert sensitivity_at(score, label, 0.8).value == 1
    # The highest score is a normal film's: at a specificity of 1 nothing is left to call.
    assert sensitivity_at([0.9, 0.5], [0, 1], 1.0).value == 0
    assert sensitivity_at([0.9, 0.5], [1, 1], 0.9).value is None
    assert sensitivity_at([0.9, 0.5], [0, 0], 0.9).value is None
    assert sensitivity_at([], [], 0.9).value is None
    doubled = sensitivity_at(score, label, 0.9).replicate(np.full((1, 14), 2.0))
    assert doubled[0] == pytest.approx(2 / 4)


def test_the_interval_of_a_sensitivity_whose_threshold_one_normal_film_sets() -> None:
    """All 40 abnormal films are found while one of ten normal ones may be called: where the one
    that scores highest is drawn twice, none is."""
    score = [*np.linspace(0.1, 0.3, 9), 0.99, *np.linspace(0.5, 0.9, 40)]
    label = [0] * 10 + [1] * 40
    found = figure(sensitivity_at(score, label, 0.9), range(50), seed=0)
    assert found == Figure(1, 0, 1, 50)
    alone = figure(sensitivity_at([0.4, 0.3, 0.6, 0.7], [0, 1, 1, 1], 0.9), range(4), seed=0)
    assert alone == Figure(pytest.approx(2 / 3), None, None, 4)  # of one normal film


def test_kappa_where_a_rater_is_constant() -> None:
    low, high = [0.2, 0.3, 0.1], [0.7, 0.8, 0.9]
    assert cohen_kappa(low, [0, 0, 0]).value is None  # nothing but agreement by chance
    assert cohen_kappa(high, [1, 1, 1]).value is None
    assert cohen_kappa(low, [1, 1, 1]).value == 0
    assert cohen_kappa(low, [0, 1, 0]).value == 0
    assert cohen_kappa([0.2, 0.8], [1, 1]).value == 0
    weight_RS = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    replicates = cohen_kappa([0.2, 0.8], [0, 1]).replicate(weight_RS)
    assert np.isnan(replicates[:2]).all() and replicates[2] == 1


@each_statistic
def test_refuses_what_is_no_probability_or_label(statistic: Ours) -> None:
    for logits in ([-0.1, 0.5], [0.2, 1.5]):
        with pytest.raises(ValueError, match="probability"):
            statistic(logits, [0, 1])
    for labels in ([0, 2], [0.5, 1], [-1, 1]):
        with pytest.raises(ValueError, match="label must be 0"):
            statistic([0.1, 0.2], labels)
    with pytest.raises(ValueError, match="2 scores for 3 labels"):
        statistic([0.1, 0.2], [0, 1, 1])
    with pytest.raises(ValueError, match="finite"):
        statistic([0.1, math.nan], [0, 1])


def test_a_study_is_the_mean_of_its_films() -> None:
    score = [0.9, 0.2, 0.3, 0.6, 0.5, 0.7]
    label = [1, 0, 1, 1, 0, 0]
    patients = ["a", "b", "a", "a", "b", "c"]
    studies = ["s1", "s1", "s1", "s2", "s1", "s2"]  # "s1" of a and of b are two studies
    gathered = gather_studies(score, label, patients, studies)
    assert gathered.patients == ["a", "b", "a", "c"]
    assert gathered.score_S.tolist() == pytest.approx([0.6, 0.35, 0.6, 0.7])
    assert gathered.label_S.tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="studies' names"):
        gather_studies(score, label, patients, studies[:-1])


def test_a_study_is_abnormal_if_any_film_is() -> None:
    assert gather_studies([0.5, 0.5], [0, 1], ["a", "a"], ["s", "s"]).label_S.tolist() == [1]


def test_sensitivity_and_specificity() -> None:
    score, label = [0.9, 0.5, 0.2, 0.7, 0.1, 0.5], [1, 1, 1, 0, 0, 0]
    assert share_called(score, label, 1).value == pytest.approx(1 / 3)  # 0.5 is normal
    assert share_called(score, label, 0).value == pytest.approx(2 / 3)
    assert share_called(score, label, 1).n == 3
    scores, labels = some_films()
    ours = [share_called(scores, labels, label).value for label in (1, 0)]
    pair = torch.from_numpy(scores), torch.from_numpy(labels)
    expected = [float(binary_recall(*pair)), float(binary_specificity(*pair))]
    assert ours == pytest.approx(expected, abs=1e-6)
    assert share_called([0.2], [0], 1).value is None


def test_brier_and_calibration_error_by_hand() -> None:
    score, label = [0.9, 0.9, 0.9, 0.9, 0.1, 0.1], [1, 1, 0, 1, 0, 1]
    assert brier(score, label).value == pytest.approx((3 * 0.01 + 0.81 + 0.01 + 0.81) / 6)
    # two bins: 3/4 abnormal at 0.9, 1/2 abnormal at 0.1
    assert calibration_error(score, label).value == pytest.approx((4 * 0.15 + 2 * 0.4) / 6)
    perfect = [1.0, 0.0, 1.0]
    assert brier(perfect, perfect).value == calibration_error(perfect, perfect).value == 0
    assert brier([], []).value is None and calibration_error([], []).value is None


def test_a_calibration_error_has_no_interval() -> None:
    score, label = some_films()
    fit = figure(calibration_error(score, label), list(range(len(score))), replicates=9, seed=0)
    assert fit.value is not None and fit[1:] == (None, None, len(score))


def test_refused_by_all_alike() -> None:
    for statistic in (brier, calibration_error):
        with pytest.raises(ValueError, match="probability"):
            statistic([1.5], [1])
    with pytest.raises(ValueError, match="label must be 0"):
        share_called([0.5], [2], 1)


def many_films() -> dict[str, Any]:
    generator = np.random.default_rng(6)
    score: list[float] = []
    label: list[int] = []
    patients, studies, parts = [], [], []
    for study in range(80):
        truth = int(generator.integers(2))
        for _ in range(int(generator.integers(1, 4))):
            score.append(float(np.clip(0.35 + 0.3 * truth + generator.normal(0, 0.25), 0, 1)))
            label.append(truth)
            patients.append(f"patient{study // 2}")
            studies.append(f"study{study}")
            parts.append(("XR_WRIST", "XR_HAND", "", "XR_ELBOW")[study // 2 % 4])
    return {
        "score_N": np.array(score),
        "label_N": np.array(label),
        "patients": patients,
        "studies": studies,
        "parts": parts,
    }


def test_all_figures_together() -> None:
    films = many_films()
    score, label, patients = films["score_N"], films["label_N"], films["patients"]
    result = classification_figures(**films, replicates=100, seed=3)
    assert result.figures["auroc"] == figure(auroc(score, label), patients, replicates=100, seed=3)
    assert result.figures["accuracy"].value == pytest.approx(np.mean((score > 0.5) == label))
    assert result.figures["auroc"].n == result.figures["accuracy"].n == len(score)
    assert result.figures["kappa"].n == 80
    study = gather_studies(score, label, patients, films["studies"])
    assert result.figures["sensitivity"].n == int(study.label_S.sum())
    assert result.figures["sensitivity"].n + result.figures["specificity"].n == 80
    called, truth = study.score_S > 0.5, study.label_S == 1
    assert result.figures["sensitivity"].value == pytest.approx(called[truth].mean())
    assert result.figures["specificity"].value == pytest.approx((~called[~truth]).mean())
    assert (
        result.figures["specificity"].low is not None
        and result.figures["specificity"].high is not None
    )
    assert result.figures["specificity"].low < result.figures["specificity"].high
    assert result.figures["brier"].value == pytest.approx(np.mean((score - label) ** 2))
    assert list(result.kappa_by_part) == ["XR_ELBOW", "XR_HAND", "XR_WRIST"]
    for part, kappa in result.kappa_by_part.items():
        mean_by_study: dict[str, list[float]] = {}
        truth_by_study: dict[str, int] = {}
        for i, name in enumerate(films["parts"]):
            if name == part:
                mean_by_study.setdefault(films["studies"][i], []).append(score[i])
                truth_by_study[films["studies"][i]] = int(label[i])
        called = torch.tensor([int(np.mean(s) > 0.5) for s in mean_by_study.values()])
        expected = binary_cohen_kappa(called, torch.tensor(list(truth_by_study.values())))
        assert kappa.value == pytest.approx(float(expected), abs=1e-6)
        assert kappa.n == len(called) == 20
        assert kappa.low is not None and kappa.high is not None
        assert -1 <= kappa.low < kappa.high <= 1


def test_the_temperature_by_hand() -> None:
    """Of logits +-m, a share s of them right, the likeliest probability is s: T = m / logit(s)."""
    logit = math.log(0.99 / 0.01)
    score, label = [0.99] * 4 + [0.01] * 4, [1, 1, 1, 0, 0, 0, 0, 1]
    found = temperature(score, label)
    assert found == pytest.approx(logit / math.log(3), rel=1e-9)
    assert at_temperature(score, found) == pytest.approx([0.75] * 4 + [0.25] * 4)
    assert temperature([0.9, 0.1], [1, 0]) == pytest.approx(0.01)  # without one error
    assert temperature([0.9, 0.1], [0, 1]) == pytest.approx(100)  # worse than chance
    with np.errstate(over="raise"):
        assert temperature([1.0, 0.999, 0.2, 0.0], [1, 1, 0, 0]) == pytest.approx(0.01)
    assert temperature([0.9, 0.1], [1, 1]) is None and temperature([], []) is None
    assert at_temperature([0.0, 0.5, 1.0], 2).tolist() == pytest.approx([3.16e-4, 0.5, 1], abs=4e-4)


def test_the_temperature_makes_the_labels_likeliest() -> None:
    """Against a search over torch's own loss; and a temperature takes overconfidence back."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4000, generator=generator, dtype=torch.float64)
    label = (torch.rand(4000, generator=generator, dtype=torch.float64) < true.sigmoid()).double()
    logit = 3 * true  # thrice too sure
    found = temperature(logit.sigmoid(), label)
    assert found == pytest.approx(3, rel=0.1)
    steps = torch.linspace(2, 4, 2001, dtype=torch.float64)
    loss = [F.binary_cross_entropy_with_logits(logit / t, label) for t in steps]
    assert found == pytest.approx(float(steps[torch.stack(loss).argmin()]), abs=1e-3)
    sure = calibration_error(logit.sigmoid(), label).value
    assert calibration_error(at_temperature(logit.sigmoid(), found), label).value < sure / 3
    films = many_films()
    record = classification_figures(**films, temperature=2.0, replicates=2, seed=0).to_dict()
    by_hand = calibration_error(at_temperature(films["score_N"], 2.0), films["label_N"])
    assert record["calibration_error_at_temperature"]["value"] == by_hand.value


def test_all_figures_need_a_name_for_every_film() -> None:
    films = many_films()
    for names in ("patients", "studies", "parts"):
        with pytest.raises(ValueError, match=f"names of {names}"):
            classification_figures(**films | {names: films[names][:-1]}, replicates=2, seed=0)


def test_within_parts_and_markers_by_hand() -> None:
    """Plates: 0.9 > 0.2 and 0.1 < 0.2; without: 0.8 > 0.3. The cast is on one class alone."""
    record = classification_figures(
        [0.9, 0.1, 0.2, 0.8, 0.3, 0.7],
        [1, 1, 0, 1, 0, 1],
        patients=list("aabbcc"),
        studies=list("stuvwx"),
        parts=["hand", "hand", "hand", "", "", "hip"],
        markers=["plate", "plate", "plate", "none", "none", "cast"],
        replicates=20,
        seed=0,
    ).to_dict()
    assert record["auroc_within_markers"]["value"] == pytest.approx(2 / 3)
    assert record["auroc_within_parts"]["value"] == pytest.approx(1 / 2)
    # Films that are compared with none do not count.
    assert record["auroc_within_markers"]["n"] == 5 and record["auroc_within_parts"]["n"] == 3
    alone = classification_figures(
        [0.9, 0.1], [1, 0], patients=[*"ab"], studies=[*"st"], parts=["", ""], seed=0
    )
    assert alone.figures["auroc_within_markers"] == Figure(None, None, None, 0)


def test_all_figures_as_json() -> None:
    films = many_films()
    record = classification_figures(**films, replicates=20, seed=0).to_dict()
    assert list(record) == [
        *("auroc", "auroc_within_parts", "auroc_within_markers"),
        *("accuracy", "kappa", "sensitivity", "specificity"),
        *("sensitivity_at_90_specificity", "brier", "calibration_error"),
        *("calibration_error_at_temperature", "kappa_by_part"),
    ]
    # No temperature was fitted.
    assert record["calibration_error_at_temperature"]["value"] is None
    assert set(record["kappa_by_part"]["XR_HAND"]) == {"value", "low", "high", "n"}
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    nothing = classification_figures([], [], patients=[], studies=[], parts=[], seed=0)
    record = nothing.to_dict()
    undefined = {"value": None, "low": None, "high": None, "n": 0}
    assert record.pop("kappa_by_part") == {}
    assert len(record) == 11 and all(found == undefined for found in record.values())


def test_a_part_with_one_class_is_undefined_and_the_rest_stands() -> None:
    result = classification_figures(
        [0.1, 0.2, 0.9, 0.3],
        [0, 0, 1, 0],
        patients=["a", "b", "c", "d"],
        studies=["s", "t", "u", "v"],
        parts=["XR_HAND", "XR_HAND", "XR_WRIST", "XR_WRIST"],
        replicates=50,
        seed=0,
    )
    assert result.kappa_by_part["XR_HAND"] == Figure(None, None, None, 2)
    assert result.kappa_by_part["XR_WRIST"].value == 1
    assert result.figures["auroc"].value == 1
