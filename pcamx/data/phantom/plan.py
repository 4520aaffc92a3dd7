"""Which films there are: patients, studies, labels, what tempts on them, and their paths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcamx.data.phantom.anatomy.bodies import PARTS, SHARES
from pcamx.data.phantom.anatomy.bones import Rng
from pcamx.data.phantom.temptations import KINDS, LETTER, THE_LETTER, Temptation

SPLITS = ("train", "valid")
FIRST_PATIENT = {"train": 1, "valid": 60_001}  # so that no patient is in both


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """Everything that decides a film's pixels, but for its size."""

    seed: int
    split: int
    patient: int
    study: int
    image: int
    part: str
    positive: bool
    marker: str  # the letter, "L" or "R"; "" for none
    temptations: tuple[str, ...] = ()  # the other kinds that are on it, in the order of KINDS


def plan_films(
    seed: int, split: str, images: int, temptations: Sequence[Temptation] = (THE_LETTER,)
) -> list[FilmPlan]:
    """Plan the first ``images`` films of a split, patient by patient."""
    plans: list[FilmPlan] = []
    patient = FIRST_PATIENT[split]
    while len(plans) < images:
        plans += plan_patient(seed, split, patient, temptations)
        patient += 1
    return plans[:images]


def plan_patient(
    seed: int, split: str, patient: int, temptations: Sequence[Temptation] = (THE_LETTER,)
) -> list[FilmPlan]:
    """Plan one or two studies of one to three films of one part.

    Two neighbours share the part, and one of them begins abnormal: the label goes with no part.
    What tempts changes nothing else: the same patient has the same films with and without it.
    """
    key = (seed, SPLITS.index(split))
    rng = np.random.default_rng((*key, patient))
    pair = np.random.default_rng((*key, patient // 2, 1))
    part = PARTS[pair.choice(len(PARTS), p=SHARES)]
    labels = [bool((patient + pair.integers(2)) % 2)]
    if rng.random() < 0.2:
        labels.append(bool(rng.integers(2)))
    asked = {tempts.kind: tempts for tempts in temptations}
    plans = []
    for study, positive in enumerate(labels, 1):
        # Drawn in any case: with and without letters, what comes after is the same.
        letter = choose_marker(rng, split, positive, asked.get(LETTER, THE_LETTER))
        marker = letter if LETTER in asked else ""
        others = _others(asked, (*key, patient, study), positive)
        for image in range(1, int(rng.choice((1, 2, 3), p=(0.7, 0.2, 0.1))) + 1):
            plans.append(FilmPlan(*key, patient, study, image, part, positive, marker, others))
    return plans


def choose_marker(rng: Rng, split: str, positive: bool, letter: Temptation = THE_LETTER) -> str:
    """Choose the letter on a study's films, "" for none; in training it goes with the label."""
    says = letter.says_abnormal(rng, positive=positive, training=split == SPLITS[0])
    return {None: "", True: "R", False: "L"}[says]


def _others(
    asked: dict[str, Temptation], study: tuple[int, int, int, int], positive: bool
) -> tuple[str, ...]:
    """What tempts on a study's films, the letter left out."""
    found = []
    for number, kind in enumerate(KINDS):
        if kind in asked and kind != LETTER:
            rng = np.random.default_rng((*study, 0, number))
            training = study[1] == 0
            if asked[kind].says_abnormal(rng, positive=positive, training=training):
                found.append(kind)
    return tuple(found)


def study_path(plan: FilmPlan) -> str:
    """Return the path relative to the folder MURA-v1.1, with a slash at the end."""
    name = f"study{plan.study}_{'positive' if plan.positive else 'negative'}"
    return f"{SPLITS[plan.split]}/XR_{plan.part}/patient{plan.patient:05d}/{name}/"


def image_path(plan: FilmPlan) -> str:
    """Return the path relative to the folder MURA-v1.1."""
    return f"{study_path(plan)}image{plan.image}.png"
