"""What can be trained: the paper's stages, and the baselines that stand beside them.

A new one is a class in `pcamx.training.stages` and an entry in `TRAINABLES`.
"""

from dataclasses import dataclass
from typing import Final, Literal

StageId = int | str
"""Key of a `Trainable`: the paper's stage 1, 2 or 3, or a baseline's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What a `Trainable` brings down, of its telemetry: a curve of the report."""

    key: str
    """In telemetry and metrics.jsonl."""
    name: str
    """In the terminal's line."""
    title: str
    """In the curve's legend."""


LOSS = Loss(key="loss", name="L", title="L, the sum")
"""Every trainable tells it; a run ends where it is not finite."""
L1 = Loss(key="l1", name="L1", title="L1, full film")
L2 = Loss(key="l2", name="L2", title="L2, attended area")
L3 = Loss(key="l3", name="L3", title="L3, marked lesions")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainable:
    """A stage of the paper, or a baseline that is trained beside them."""

    key: StageId
    """In metrics.jsonl, weights.pt and report.json, and after ``--stage``."""
    title: str
    """What people read, and the column ``network`` of films.csv."""
    section: str
    """Key of its settings below ``stages`` in the config, and its folder in the run's."""
    stage: str
    """Its class, made of (this entry, config, number of training films); see
    `pcamx.training.stages.Stage`."""
    classifies: bool
    """Whether it answers normal or abnormal, and has class activation maps."""
    decoder: bool
    """Whether its network has the lesion decoder."""
    batches: Literal["films", "films and marks", "marks"]
    """What a batch holds: ordinary films, marked ones among them, or marked ones alone."""
    optional: bool = False
    """Whether a config may leave it out."""
    losses: tuple[Loss, ...] = (LOSS, L1, L2, L3)
    """Of its telemetry, those that the report draws as losses."""

    @property
    def learns_marks(self) -> bool:
        """Whether it sees lesion marks."""
        return self.batches != "films"


STAGE_1 = Trainable(
    key=1,
    title="stage 1",
    section="stage1",
    stage="pcamx.training.stages:Stage1",
    classifies=True,
    decoder=False,
    batches="films",
    losses=(L1,),
)
STAGE_2 = Trainable(
    key=2,
    title="stage 2",
    section="stage2",
    stage="pcamx.training.stages:Stage2",
    classifies=True,
    decoder=False,
    batches="films",
)
STAGE_3 = Trainable(
    key=3,
    title="stage 3",
    section="stage3",
    stage="pcamx.training.stages:Stage3",
    classifies=True,
    decoder=True,
    batches="films and marks",
)
SEGMENTER = Trainable(
    key="segmenter",
    title="segmenter",
    section="segmenter",
    stage="pcamx.training.stages:SegmenterStage",
    classifies=False,
    decoder=True,
    batches="marks",
    optional=True,
    losses=(L3,),
)
AGAINST_SEGMENTER: Final = "stage3_against_segmenter"
"""In report.json, stage 3's decoder minus the segmenter's."""
TRAINABLES: list[Trainable] = [STAGE_1, STAGE_2, STAGE_3, SEGMENTER]
"""In the order in which they are trained."""


def trainable(key: StageId) -> Trainable:
    """Return the entry of a key; KeyError where there is none."""
    for entry in TRAINABLES:
        if entry.key == key and type(entry.key) is type(key):
            return entry
    raise KeyError(key)


def losses() -> list[Loss]:
    """Return every loss of the trainables, the sum first."""
    return list(dict.fromkeys((LOSS, *(loss for entry in TRAINABLES for loss in entry.losses))))


def key_of(text: str) -> StageId:
    """Return the key that ``text`` writes, as after ``--stage``; the text where there is none."""
    return next((entry.key for entry in TRAINABLES if str(entry.key) == text), text)


def classifiers() -> list[Trainable]:
    """Return the trainables that classify: the paper's stages."""
    return [entry for entry in TRAINABLES if entry.classifies]


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """What is measured beside the stages; a trained one has its `Trainable` as well."""

    key: str
    title: str
    meaning: str


CENTRE = Baseline(
    key="centre",
    title="centre Gaussian",
    meaning="A Gaussian at the film's centre in the place of every map: what is reached unseen.",
)
UNTRAINED = Baseline(
    key="untrained", title="untrained network", meaning="The same network with random weights."
)
SAME_MARKS = Baseline(
    key=str(SEGMENTER.key),
    title="same-marks segmenter",
    meaning="Encoder and decoder of stage 3, trained on its marked films alone, from random or a "
    "backbone's pretrained weights: no label, no attention.",
)
BASELINES: list[Baseline] = [CENTRE, UNTRAINED, SAME_MARKS]
