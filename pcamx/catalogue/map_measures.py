"""Measures of a map, against the marks and by the network's own answers."""

from pcamx.catalogue.measure import Measure

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
    whole=True,
    shown="console",
)
FALSE_ACTIVATION = Measure(
    key="false_activation",
    title="false activation",
    meaning="Share of the normal films on which the map, not normalised, somewhere exceeds the "
    "level that it reaches on 80 % of the marked training lesions.",
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
    meaning="Share of the normal films on which the map, not normalised, reaches the level that it "
    "reaches on 5 % of the normal training films: pcamx explain then shows a lesion candidate.",
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
    title="peak on marker",
    meaning="Share of the films with a letter, L or R, or a plate on them whose map has its peak "
    "on it or within 1/16 of the film's side.",
    of="map",
    function=f"{_METRICS}:pointing",
    films="with marker",
    better="lower",
    column="on_marker",
)
ON_MARKER_ABNORMAL = Measure(
    key="on_marker_abnormal",
    title="peak on marker, abnormal",
    meaning="The same, of the abnormal ones among them.",
    of="map",
    function=f"{_METRICS}:pointing",
    films="abnormal with marker",
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
PATCH_CORRELATION = Measure(
    key="patch_correlation",
    title="rank by patches",
    meaning="What the map promises against what erasing does: Spearman's correlation, over the "
    "patches of an 8 x 8 grid that lie on the limb, of the map's sum and how far the logit of "
    "abnormal falls when the patch is blurred; 1 where they order the patches alike.",
    of="faithfulness",
    function=f"{_METRICS}:patch_correlation",
    films="abnormal tried",
    unit="correlation",
)
MAP_MEASURES = [
    *(POINTING, ENERGY, MIOU, DICE, MIOU_OTSU, RELEVANCE_RANK, MAXBOXACC, PXAP),
    *(FALSE_ACTIVATION, FALSE_CANDIDATES, LESIONS_FOUND, ON_MARKER, ON_MARKER_ABNORMAL),
    *(DELETION, INSERTION, PATCH_CORRELATION),
]
