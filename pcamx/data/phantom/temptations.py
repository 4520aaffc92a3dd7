"""Temptations: what goes with the label in training without being the lesion.

A temptation is *in play* on a share of the studies, of either split and label. Where it is in
play it says "abnormal" or "normal". In training it says the label of the study with probability
``follows``, in validation with 1/2. The letter says abnormal with R and normal with L; every other
kind says abnormal by being there and normal by its absence. Where it is not in play it is absent.
So a plate with share 1 and follows 0.9 lies on 90 % of the abnormal and 10 % of the normal
training films and on half of the validation films; with share 0.4 and follows 0.8, on 32 %, 8 % and
20 %.
"""

from dataclasses import dataclass

from pcamx.data.phantom.anatomy.bones import Rng
from pcamx.errors import PcamxError

LETTER, PLATE, CAST, EXPOSURE, COLLIMATION = KINDS = (
    "letter",
    "plate",
    "cast",
    "exposure",
    "collimation",
)
USUAL = {LETTER: (0.4, 0.8), PLATE: (1, 0.9), CAST: (1, 0.9), EXPOSURE: (1, 0.9)} | {
    COLLIMATION: (1, 0.9)
}
"""Share and follows where nobody says others."""


@dataclass(frozen=True, slots=True)
class Temptation:
    """A kind, on which share of the studies it is in play, and how often it follows the label."""

    kind: str
    share: float
    follows: float

    def says_abnormal(self, rng: Rng, *, positive: bool, training: bool) -> bool | None:
        """Tell what it says on a study, None where it is not in play. Takes two numbers of rng."""
        true = rng.random() < (self.follows if training else 0.5)
        return positive == true if rng.random() < self.share else None


def temptation(kind: str, share: float | None = None, follows: float | None = None) -> Temptation:
    """Return a temptation, with what is usual for its kind in place of None.

    Raises:
        PcamxError: there is no such kind, or a number is not a share.
    """
    if kind not in KINDS:
        raise PcamxError(f"temptation is {kind!r}: name none, or some of {', '.join(KINDS)}")
    usual = USUAL[kind]
    made = Temptation(
        kind, usual[0] if share is None else share, usual[1] if follows is None else follows
    )
    for name, value in (("share", made.share), ("follows", made.follows)):
        if not 0 <= value <= 1:
            raise PcamxError(f"{name} is {value}: it must be from 0 to 1")
    return made


THE_LETTER = temptation(LETTER)
