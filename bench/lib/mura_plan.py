"""A phantom set with MURA-v1.1's numbers of films, studies and patients, part by part.

Known: 36,808 films for training and 3,197 for validation, and 14,656 studies of both: Rajpurkar et
al., arXiv 1712.06957, has 14,863 studies with the 207 of the test set, which is not public.
Assumed, for want of the data and of the paper's table at hand: how films and studies divide by
part and label, 13,457 and 1,199 studies by split, and 11,184 and 783 patients. Their sums agree
with what is known.
"""

from typing import NamedTuple

import numpy as np

from pcamx.data.phantom.plan import FIRST_PATIENT, SPLITS, FilmPlan, choose_marker


class Count(NamedTuple):
    """Of one part and label."""

    films: int
    studies: int


NORMAL_ABNORMAL = {
    "train": {
        "ELBOW": (Count(2925, 1094), Count(2006, 660)),
        "FINGER": (Count(3138, 1280), Count(1968, 655)),
        "FOREARM": (Count(1164, 590), Count(661, 287)),
        "HAND": (Count(4059, 1497), Count(1484, 521)),
        "HUMERUS": (Count(673, 321), Count(599, 271)),
        "SHOULDER": (Count(4211, 1364), Count(4168, 1457)),
        "WRIST": (Count(5765, 2134), Count(3987, 1326)),
    },
    "valid": {
        "ELBOW": (Count(235, 92), Count(230, 66)),
        "FINGER": (Count(214, 92), Count(247, 83)),
        "FOREARM": (Count(150, 69), Count(151, 64)),
        "HAND": (Count(271, 101), Count(189, 66)),
        "HUMERUS": (Count(148, 68), Count(140, 67)),
        "SHOULDER": (Count(285, 99), Count(278, 95)),
        "WRIST": (Count(364, 140), Count(295, 97)),
    },
}
PATIENTS = {"train": 11_184, "valid": 783}


class _Study(NamedTuple):
    part: str
    positive: bool
    films: int


def plan_mura(share: float, seed: int = 0) -> list[FilmPlan]:
    """Plan the films of ``share`` in (0, 1] of MURA, at least one of each part, label and split."""
    plans = []
    for index, split in enumerate(SPLITS):
        rng = np.random.default_rng((seed, index))
        studies = [
            study
            for part, counts in NORMAL_ABNORMAL[split].items()
            for positive, count in zip((False, True), counts, strict=True)
            for study in _studies(part, positive, count, share)
        ]
        patients = min(_part_of(PATIENTS[split], share), len(studies))
        # The first studies go to a patient each, the others are somebody's second.
        for i, k in enumerate(rng.permutation(len(studies)).tolist()):
            study, (number, patient) = studies[k], divmod(i, patients)
            marker = choose_marker(rng, split, study.positive)
            who = seed, index, FIRST_PATIENT[split] + patient, number + 1
            plans += [
                FilmPlan(*who, image, study.part, study.positive, marker)
                for image in range(1, study.films + 1)
            ]
    return plans


def _studies(part: str, positive: bool, count: Count, share: float) -> list[_Study]:
    """The studies of one part and label, the films spread evenly over them."""
    films = _part_of(count.films, share)
    studies = min(_part_of(count.studies, share), films)
    borders = [i * films // studies for i in range(studies + 1)]
    return [_Study(part, positive, b - a) for a, b in zip(borders, borders[1:], strict=False)]


def _part_of(count: int, share: float) -> int:
    return max(1, round(share * count))
