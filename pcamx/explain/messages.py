"""What goes to the processes that draw, and what comes back.

Imports no torch, so that these processes start fast. Shapes: H W the canvas.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcamx.data.canvas.placement import Fit, fit, on_film
from pcamx.explain.candidates import Candidate, find_candidates
from pcamx.explain.read_film import Reading

CALLED = 0.5
"""From this probability on a film is called abnormal, as accuracy is measured."""


class Settings(NamedTuple):
    """What is the same for all films."""

    map: str
    threshold: float
    """Of the scaled map: the outline."""
    tuned: bool
    level: float | None
    """Of the map as it is: the least peak of a candidate; None where no level is known."""
    level_from: str
    """Where the level comes from, in words."""
    dicom_seg: bool
    about: dict[str, Any]
    """Model and versions, for the facts of every film."""


class Job(NamedTuple):
    """A film that the network has answered."""

    film: Reading
    probability: float
    map_HW: NDArray[np.float32]
    scaled_HW: NDArray[np.float64]

    def called(self) -> str:
        """Return normal or abnormal."""
        return "abnormal" if self.probability > CALLED else "normal"

    def flat(self) -> bool:
        """Tell whether the map says nothing about where: scaled, it is all ones."""
        return bool(self.scaled_HW.min() == 1)

    def ends(self) -> tuple[float, float]:
        """Return the map's own values that 0 and 1 of the scaled map stand for."""
        return float(self.map_HW.min()), float(self.map_HW.max())

    def place(self) -> Fit:
        """Return where the film lies on the map."""
        return fit(self.film.width, self.film.height, len(self.map_HW))

    def on_film(self) -> NDArray[np.float64]:
        """Return the film's part of the scaled map."""
        return on_film(self.scaled_HW, self.place())

    def peak(self) -> float:
        """Return the most that the map, as it is, reaches on the film."""
        return float(on_film(self.map_HW, self.place()).max())

    def candidates(self, threshold: float, level: float | None) -> list[Candidate]:
        """Find what is outlined at ``threshold`` of the scaled map and peaks at ``level`` or above.

        A film has one exactly where its map, as it is, reaches ``level`` on it (`peak`): where that
        lies below the threshold, as the map's peak is on the padding, the outline is drawn at the
        level, around the whole film where all of it lies above. None where the map is flat. Without
        a level a film has one where the scaled map reaches the threshold on it.
        """
        if self.flat():
            return []
        low, high = self.ends()
        least = 0.0 if level is None else (level - low) / (high - low)
        place, size = self.place(), (self.film.width, self.film.height)
        found = find_candidates(self.scaled_HW, threshold, place, *size)
        if not found and level is not None and least < threshold:
            found = find_candidates(self.scaled_HW, least, place, *size)
        return [one for one in found if one.value >= least]

    def score(self, candidate: Candidate) -> float:
        """Return the probability of abnormal times the scaled map's height there."""
        return self.probability * candidate.value


class Scored(NamedTuple):
    """A candidate as the COCO file and the table hold it."""

    score: float
    candidate: Candidate


class Row(NamedTuple):
    """What the summary and the COCO file hold of a film."""

    film: str
    reason: str
    """Why it was skipped, or what of it could not be written; empty if all is well."""
    width: int = 0
    height: int = 0
    probability: float | None = None
    called: str = ""
    candidates: tuple[Scored, ...] = ()
    """The highest score first."""
