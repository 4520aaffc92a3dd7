"""Everything that can be trained, mapped and measured: one entry each, in one place.

Whoever lists them (training, evaluation, report.json, films.csv, pages, console, compare, the
ablation, the command lines) iterates over `TRAINABLES`, `MAPS`, `BASELINES` and `MEASURES`, in
their order. To add one, write its function or class and its entry here.

An entry names its function or class as packaging's entry points do, "package.module:name", since
those lie above this file; `resolve` imports it on first use.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

StageId = int | str
"""Key of a `Trainable`: the paper's stage 1, 2 or 3, or a baseline's name."""


@cache
def resolve(reference: str) -> Any:
    """Import and return what ``"package.module:name"`` names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


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
    losses: tuple[str, ...] = ("loss", "l1", "l2", "l3")
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
    losses=("l1",),
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
    losses=("l3",),
)
TRAINABLES: list[Trainable] = [STAGE_1, STAGE_2, STAGE_3, SEGMENTER]
"""In the order in which they are trained."""


def trainable(key: StageId) -> Trainable:
    """Return the entry of a key; KeyError where there is none."""
    for entry in TRAINABLES:
        if entry.key == key and type(entry.key) is type(key):
            return entry
    raise KeyError(key)


def classifiers() -> list[Trainable]:
    """Return the trainables that classify: the paper's stages."""
    return [entry for entry in TRAINABLES if entry.classifies]


@dataclass(frozen=True, kw_only=True, slots=True)
class MapKind:
    """A map of where the network looks, of the abnormal class, at the film's size."""

    key: str
    title: str
    meaning: str
    function: str
    """Takes a `pcamx.model.maps.Seen`, gives [B, H, W], not normalised."""
    needs: frozenset[Literal["classifier", "decoder"]]
    """What a network must have to give it."""
    gradient: bool = False
    """Whether it needs the class score's gradient: then only `pcamx evaluate` makes it."""

    def of(self, entry: Trainable) -> bool:
        """Whether the network of ``entry`` gives this map."""
        have = {"classifier": entry.classifies, "decoder": entry.decoder}
        return all(have[need] for need in self.needs)


CAM = MapKind(
    key="cam",
    title="CAM",
    meaning="The last features weighed by the abnormal class's weights, eq. 1 of the paper; of the "
    "full film, without its label, as all maps.",
    function="pcamx.model.maps:cam",
    needs=frozenset({"classifier"}),
)
POSITIVE_CAM = MapKind(
    key="positive_cam",
    title="positive CAM",
    meaning="As CAM, by the positive weights alone, eq. 2.",
    function="pcamx.model.maps:positive_cam",
    needs=frozenset({"classifier"}),
)
GRADCAM = MapKind(
    key="gradcam",
    title="Grad-CAM, stride 8",
    meaning="The features of stride 8, weighed by the gradient of the abnormal class's score, "
    "averaged over the film. At the last features it would be CAM without what is negative, times "
    "a constant.",
    function="pcamx.model.maps:gradcam",
    needs=frozenset({"classifier"}),
    gradient=True,
)
LAYERCAM = MapKind(
    key="layercam",
    title="LayerCAM, stride 8",
    meaning="As Grad-CAM, weighed in each place by the gradient where it is positive. At the last "
    "features it would be positive CAM times a constant.",
    function="pcamx.model.maps:layercam",
    needs=frozenset({"classifier"}),
    gradient=True,
)
DECODER = MapKind(
    key="decoder",
    title="decoder",
    meaning="The lesion as the decoder draws it, which stage 3 and the segmenter train.",
    function="pcamx.model.maps:decoder",
    needs=frozenset({"decoder"}),
)
MAPS: list[MapKind] = [CAM, POSITIVE_CAM, DECODER, GRADCAM, LAYERCAM]


def maps_of(entry: Trainable, *, gradient: bool = True) -> list[MapKind]:
    """Return the maps that the network of ``entry`` gives, without those that need gradients."""
    return [kind for kind in MAPS if kind.of(entry) and (gradient or not kind.gradient)]


def best_map(entry: Trainable) -> MapKind:
    """Return the map that shows where ``entry`` looks: the decoder's, else the positive CAM."""
    return DECODER if DECODER.of(entry) else POSITIVE_CAM


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
    meaning="Encoder and decoder of stage 3, trained from random weights on its marked films "
    "alone: no label, no attention.",
)
BASELINES: list[Baseline] = [CENTRE, UNTRAINED, SAME_MARKS]

Films = Literal[
    "marked", "normal", "lettered", "lettered abnormal", "every", "abnormal tried", "twins"
]
"""Films that a figure is about; lettered ones carry a side marker."""


Judged = Literal["map", "decision", "faithfulness", "basis"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A figure of report.json with its interval."""

    key: str
    title: str
    meaning: str
    of: Judged
    """What it judges: one map; the classification; one map by the network's own answers; what the
    decision rests on, by films and their twins."""
    function: str
    """map: (maps [M, H, W], lesions or markers [M, H, W]) > [M, ...], or of maps alone where
    ``films`` is normal. decision: of a `pcamx.metrics.Decisions`. faithfulness: see
    `pcamx.metrics.deletion`. basis: of `pcamx.metrics.basis.Pairs`."""
    value: str = ""
    """map: (what ``function`` gave [M, ...], `pcamx.evaluation.scoring.Tuning`) > [M], a Statistic
    of the whole set, or None where undefined; left out, the function's own [M]."""
    films: Films = "marked"
    unit: str = "share"
    better: Literal["higher", "lower"] = "higher"
    column: str = ""
    """Of films.csv; a figure of the whole set has none."""
    shown: Literal["first", "console", "page"] = "page"
    """first: in every table. console: in the terminal's second table. page: in report.html."""


_METRICS, _SCORING = "pcamx.metrics", "pcamx.evaluation.scoring"
POINTING = Measure(
    key="pointing",
    title="pointing",
    meaning="Share of the marked films whose map has its peak inside the mark, without tolerance; "
    "of several equal peaks, the share inside.",
    of="map",
    function=f"{_METRICS}:pointing",
    column="pointing",
    shown="first",
)
ENERGY = Measure(
    key="energy",
    title="energy",
    meaning="Share of the map's sum, after min-max per film, that lies inside the mark, averaged "
    "over the marked films.",
    of="map",
    function=f"{_METRICS}:energy",
    column="energy",
    shown="first",
)
MIOU = Measure(
    key="miou",
    title="mIoU",
    meaning="Intersection over union of the mark and the pixels where the map, after min-max per "
    "film, reaches the threshold, averaged over the marked films.",
    of="map",
    function=f"{_METRICS}:iou_curve",
    value=f"{_SCORING}:iou_at_threshold",
    column="miou",
    shown="first",
)
DICE = Measure(
    key="dice",
    title="Dice",
    meaning="Dice at the threshold of mIoU.",
    of="map",
    function=f"{_METRICS}:iou_curve",
    value=f"{_SCORING}:dice_at_threshold",
    column="dice",
)
MIOU_OTSU = Measure(
    key="miou_otsu",
    title="mIoU, Otsu",
    meaning="mIoU with each map cut at its own Otsu threshold.",
    of="map",
    function=f"{_METRICS}:iou_otsu",
    column="miou_otsu",
)
RELEVANCE_RANK = Measure(
    key="relevance_rank",
    title="relevance rank",
    meaning="Of as many of a map's highest pixels as the mark has, the share inside the mark.",
    of="map",
    function=f"{_METRICS}:relevance_rank",
    column="relevance_rank",
)
MAXBOXACC = Measure(
    key="maxboxacc_v2",
    title="MaxBoxAccV2",
    meaning="Share of the marked films where a box around what the map exceeds a threshold in "
    "meets the box of a lesion with an intersection over union of 0.3, 0.5, 0.7, averaged over the "
    "three; each at the one threshold that is best for these very films.",
    of="map",
    function=f"{_METRICS}:box_hits_of",
    value=f"{_SCORING}:best_box_hits",
    column="maxboxacc_v2",
    shown="console",
)
PXAP = Measure(
    key="pxap",
    title="PxAP",
    meaning="Average precision of the pixels of all marked films together: a large lesion counts "
    "more.",
    of="map",
    function=f"{_METRICS}:pixel_counts",
    value=f"{_SCORING}:average_precision",
    shown="console",
)
FALSE_ACTIVATION = Measure(
    key="false_activation",
    title="false activation",
    meaning="Share of the normal films whose map, not normalised, somewhere exceeds the level that "
    "it reaches on 80 % of the marked training lesions.",
    of="map",
    function=f"{_METRICS}:peak",
    value=f"{_SCORING}:active",
    films="normal",
    better="lower",
    shown="console",
)
FALSE_CANDIDATES = Measure(
    key="false_candidates",
    title="false candidates",
    meaning="Share of the normal films whose map, not normalised, reaches the level that 2 % of "
    "the normal training films reach: pcamx explain then shows a lesion candidate.",
    of="map",
    function=f"{_METRICS}:peak",
    value=f"{_SCORING}:candidate",
    films="normal",
    better="lower",
)
LESIONS_FOUND = Measure(
    key="lesions_found",
    title="lesions found",
    meaning="Share of the marked films whose map reaches that level inside the mark.",
    of="map",
    function=f"{_METRICS}:lesion_peak",
    value=f"{_SCORING}:candidate",
)
ON_MARKER = Measure(
    key="on_marker",
    title="peak on letter",
    meaning="Share of the films carrying a side marker, L or R, whose map has its peak on it or "
    "within 1/16 of the film's side.",
    of="map",
    function=f"{_METRICS}:pointing",
    films="lettered",
    better="lower",
    column="on_marker",
)
ON_MARKER_ABNORMAL = Measure(
    key="on_marker_abnormal",
    title="peak on letter, abnormal",
    meaning="The same, of the abnormal ones among them.",
    of="map",
    function=f"{_METRICS}:pointing",
    films="lettered abnormal",
    better="lower",
)
DELETION = Measure(
    key="deletion",
    title="deletion",
    meaning="Area under the probability of abnormal while the map's hottest pixels are removed.",
    of="faithfulness",
    function=f"{_METRICS}:deletion",
    films="abnormal tried",
    unit="probability",
    better="lower",
)
INSERTION = Measure(
    key="insertion",
    title="insertion",
    meaning="Area under the probability of abnormal while they are put back on the blurred film.",
    of="faithfulness",
    function=f"{_METRICS}:insertion",
    films="abnormal tried",
    unit="probability",
)
_DECISIONS = "pcamx.metrics.decisions"
AUROC = Measure(
    key="auroc",
    title="AUROC",
    meaning="Chance that an abnormal film scores above a normal one; a tie counts a half.",
    of="decision",
    function=f"{_DECISIONS}:film_auroc",
    films="every",
    unit="chance",
    shown="first",
)
ACCURACY = Measure(
    key="accuracy",
    title="accuracy",
    meaning="Share of the films on the right side of a probability of 0.5.",
    of="decision",
    function=f"{_DECISIONS}:film_accuracy",
    films="every",
    shown="first",
)
KAPPA = Measure(
    key="kappa",
    title="kappa",
    meaning="Cohen's kappa, agreement beyond chance, between label and decision per study; a "
    "study's probability is the mean of its films'.",
    of="decision",
    function=f"{_DECISIONS}:study_kappa",
    films="every",
    unit="kappa",
    shown="first",
)
SENSITIVITY = Measure(
    key="sensitivity",
    title="sensitivity",
    meaning="Share of the abnormal studies called abnormal, at a probability of 0.5.",
    of="decision",
    function=f"{_DECISIONS}:sensitivity",
    films="every",
)
SPECIFICITY = Measure(
    key="specificity",
    title="specificity",
    meaning="Share of the normal studies called normal, at a probability of 0.5.",
    of="decision",
    function=f"{_DECISIONS}:specificity",
    films="every",
)
BRIER = Measure(
    key="brier",
    title="Brier score",
    meaning="Mean squared error of the probability.",
    of="decision",
    function=f"{_DECISIONS}:film_brier",
    films="every",
    unit="squared probability",
    better="lower",
)
CALIBRATION_ERROR = Measure(
    key="calibration_error",
    title="calibration error",
    meaning="Mean distance between the probability and the share of abnormal films, in 15 bins, "
    "without an interval since resampling inflates it.",
    of="decision",
    function=f"{_DECISIONS}:film_calibration_error",
    films="every",
    unit="probability",
    better="lower",
)
_BASIS = "pcamx.metrics.basis"
LESION_FLIPS = Measure(
    key="lesion_flips",
    title="lesion away: flips",
    meaning="Of the films called abnormal, the share called normal once the lesion is taken away "
    "and nothing else.",
    of="basis",
    function=f"{_BASIS}:lesion_flips",
    films="twins",
    shown="first",
)
LESION_PUT_IN_FLIPS = Measure(
    key="lesion_put_in_flips",
    title="lesion put in: flips",
    meaning="Of the films called normal, the share called abnormal once a lesion is put in.",
    of="basis",
    function=f"{_BASIS}:lesion_put_in_flips",
    films="twins",
    shown="first",
)
TEMPTATION_FLIPS = Measure(
    key="temptation_flips",
    title="temptation toggled: flips",
    meaning="Share of the decisions that change when a temptation, which says nothing of the "
    "lesion, is put in or taken away.",
    of="basis",
    function=f"{_BASIS}:temptation_flips",
    films="twins",
    better="lower",
    shown="first",
)
LESION_EFFECT = Measure(
    key="lesion_effect",
    title="lesion, logits",
    meaning="Logit of abnormal minus that of normal, with the lesion minus without.",
    of="basis",
    function=f"{_BASIS}:lesion_effect",
    films="twins",
    unit="logits",
)
TEMPTATION_EFFECT = Measure(
    key="temptation_effect",
    title="temptation, logits",
    meaning="The same with the temptation minus without.",
    of="basis",
    function=f"{_BASIS}:temptation_effect",
    films="twins",
    unit="logits",
    better="lower",
)
SHARE = Measure(
    key="share",
    title="temptation's share",
    meaning="Of the decision: the temptation's effect over the sum of both effects, in size.",
    of="basis",
    function=f"{_BASIS}:share",
    films="twins",
    better="lower",
    shown="first",
)
MEASURES: list[Measure] = [
    *(LESION_FLIPS, LESION_PUT_IN_FLIPS, TEMPTATION_FLIPS, SHARE),
    *(LESION_EFFECT, TEMPTATION_EFFECT),
    *(POINTING, ENERGY, MIOU, DICE, MIOU_OTSU, RELEVANCE_RANK, MAXBOXACC, PXAP),
    *(
        FALSE_ACTIVATION,
        FALSE_CANDIDATES,
        LESIONS_FOUND,
        ON_MARKER,
        ON_MARKER_ABNORMAL,
        DELETION,
        INSERTION,
    ),
    *(AUROC, ACCURACY, KAPPA, SENSITIVITY, SPECIFICITY, BRIER, CALIBRATION_ERROR),
]


def measures(of: Judged) -> Iterator[Measure]:
    """Yield the measures that judge ``of``."""
    return (measure for measure in MEASURES if measure.of == of)
