"""Twins: the films of the validation split once more, with one thing changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pcamx.data.phantom.plan import FilmPlan, image_path, study_path
from pcamx.data.phantom.temptations import KINDS, LETTER

LESION = "lesion"
FILE = "twins.csv"
HEADER = ("film", "twin", "change", "temptation")
DIGEST = "film_sha256"
"""Column behind HEADER, of the film's file; tables made by hand may lack it."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A film and what it is with one thing changed."""

    film: FilmPlan
    twin: FilmPlan
    change: str  # lesion_removed, lesion_added, temptation_removed or temptation_added
    temptation: str  # its kind; "" where the lesion changed

    @property
    def folder(self) -> str:
        """Of the twins with this change, within the folder of all twins."""
        return self.temptation or LESION

    @property
    def path(self) -> str:
        """Relative to the folder of all twins."""
        return f"{self.folder}/{image_path(self.twin)}"

    def listed(self) -> tuple[str, str, str, str]:
        """Return its row below HEADER; the film's path is relative to MURA-v1.1."""
        return image_path(self.film), self.path, self.change, self.temptation

    def label(self) -> tuple[str, int, str, str, str, str]:
        """Return its row for `pcamx prepare`: path, label, split, patient, study, part."""
        split, part, patient, study = study_path(self.twin).rstrip("/").split("/")
        label = int(self.twin.positive)
        return self.path, label, split, patient, f"{self.folder}/{study}", part


def pair_up(plans: Sequence[FilmPlan], kinds: Sequence[str]) -> list[Twin]:
    """Return for each film its twin without the lesion, or with one, and one a kind of temptation.

    A letter R, which says "abnormal", becomes an L; an L, or no letter, becomes an R.
    """
    twins = []
    for plan in plans:
        change = "lesion_removed" if plan.positive else "lesion_added"
        twins.append(Twin(plan, replace(plan, positive=not plan.positive), change, ""))
        for kind in KINDS:
            if kind in kinds:
                there, twin = _toggled(plan, kind)
                change = "temptation_removed" if there else "temptation_added"
                twins.append(Twin(plan, twin, change, kind))
    return twins


def _toggled(plan: FilmPlan, kind: str) -> tuple[bool, FilmPlan]:
    """Whether the temptation says "abnormal" on the film, and the film where it is otherwise."""
    if kind == LETTER:
        there = plan.marker == "R"
        return there, replace(plan, marker="L" if there else "R")
    there = kind in plan.temptations
    left = {*plan.temptations} ^ {kind}
    return there, replace(plan, temptations=tuple(name for name in KINDS if name in left))
