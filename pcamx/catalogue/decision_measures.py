"""Measures of a classifier's decisions, and of what they rest on."""

from pcamx.catalogue.measure import Measure

_DECISIONS = "pcamx.metrics.decisions"
TEMPERATURES = (0.01, 100.0)
"""Lowest and highest that is fitted: of films without one error the best is 0."""
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
AUROC_WITHIN_PARTS = Measure(
    key="auroc_within_parts",
    title="AUROC within parts",
    meaning="The same of films of one body part, whose fracture rate then helps nobody.",
    of="decision",
    function=f"{_DECISIONS}:film_auroc_within_parts",
    films="every",
    unit="chance",
)
AUROC_WITHIN_MARKERS = Measure(
    key="auroc_within_markers",
    title="AUROC within markers",
    meaning="The same of films with the same markers, such as a plate or none (markers.csv, or "
    "what the data set names), which then help nobody.",
    of="decision",
    function=f"{_DECISIONS}:film_auroc_within_markers",
    films="every",
    unit="chance",
)
SENSITIVITY_AT_90 = Measure(
    key="sensitivity_at_90_specificity",
    title="sensitivity at specificity 0.9",
    meaning="Share of the abnormal films above the threshold that 9 of 10 normal films are below.",
    of="decision",
    function=f"{_DECISIONS}:film_sensitivity_at_90",
    films="every",
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
KAPPA_BY_PART = f"{KAPPA.key}_by_part"
"""In report.json, kappa for each body part."""
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
CALIBRATION_ERROR_AT_TEMPERATURE = Measure(
    key="calibration_error_at_temperature",
    title="calibration error at the temperature",
    meaning="The same once all logits are divided by one number, the temperature, fitted on "
    "training films.",
    of="decision",
    function=f"{_DECISIONS}:film_calibration_error_at_temperature",
    films="every",
    unit="probability",
    better="lower",
)
DECISION_MEASURES = [
    *(AUROC, AUROC_WITHIN_PARTS, AUROC_WITHIN_MARKERS),
    *(ACCURACY, KAPPA, SENSITIVITY, SPECIFICITY),
    *(SENSITIVITY_AT_90, BRIER, CALIBRATION_ERROR, CALIBRATION_ERROR_AT_TEMPERATURE),
]
_BASIS = "pcamx.metrics.basis"
LESION_FLIPS = Measure(
    key="lesion_flips",
    title="lesion away: flips",
    meaning="Of the films called abnormal, the share called normal once the lesion is taken away "
    "and nothing else.",
    of="basis",
    function=f"{_BASIS}:lesion_flips",
    films="twins",
    column="lesion_flips",
    shown="first",
)
LESION_PUT_IN_FLIPS = Measure(
    key="lesion_put_in_flips",
    title="lesion put in: flips",
    meaning="Of the films called normal, the share called abnormal once a lesion is put in.",
    of="basis",
    function=f"{_BASIS}:lesion_put_in_flips",
    films="twins",
    column="lesion_put_in_flips",
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
    column="temptation_flips",
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
    column="lesion_effect",
    unit="logits",
)
TEMPTATION_EFFECT = Measure(
    key="temptation_effect",
    title="temptation, logits",
    meaning="The same with the temptation minus without.",
    of="basis",
    function=f"{_BASIS}:temptation_effect",
    films="twins",
    column="temptation_effect",
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
    made_of=("lesion_effect", "temptation_effect"),
    better="lower",
    shown="first",
)
ERASE_BLUR = Measure(
    key="erase_blur",
    title="lesion blurred: fall of p",
    meaning="How far the probability of abnormal falls when a marked lesion is blurred away, less "
    "the fall when the same patch in another place is, of like brightness, several drawn.",
    of="basis",
    function=f"{_BASIS}:erase_blur",
    unit="probability",
    column="erase_blur",
    shown="first",
)
ERASE_INPAINT = Measure(
    key="erase_inpaint",
    title="lesion in-painted: fall of p",
    meaning="The same with the patch filled in from its rim, which leaves no blur to go by.",
    of="basis",
    function=f"{_BASIS}:erase_inpaint",
    unit="probability",
    column="erase_inpaint",
    shown="first",
)
ERASE_BLUR_LOGIT = Measure(
    key="erase_blur_logit",
    title="lesion blurred, logits",
    meaning="The fall of the logit of abnormal minus that of normal, less another patch's.",
    of="basis",
    function=f"{_BASIS}:erase_blur_logit",
    unit="logits",
    column="erase_blur_logit",
)
ERASE_INPAINT_LOGIT = Measure(
    key="erase_inpaint_logit",
    title="lesion in-painted, logits",
    meaning="The same with the patch filled in from its rim.",
    of="basis",
    function=f"{_BASIS}:erase_inpaint_logit",
    unit="logits",
    column="erase_inpaint_logit",
)
ERASE_BLUR_FLIPS = Measure(
    key="erase_blur_flips",
    title="lesion blurred: flips",
    meaning="Of the marked films called abnormal, the share called normal once the lesion is "
    "blurred away, less the share when another patch is.",
    of="basis",
    function=f"{_BASIS}:erase_blur_flips",
    unit="share less share",
    column="erase_blur_flips",
)
ERASE_INPAINT_FLIPS = Measure(
    key="erase_inpaint_flips",
    title="lesion in-painted: flips",
    meaning="The same with the patch filled in from its rim.",
    of="basis",
    function=f"{_BASIS}:erase_inpaint_flips",
    unit="share less share",
    column="erase_inpaint_flips",
)
BY_TEMPTATION = "by_temptation"
"""In report.json, what is about a temptation for each, where the twins are of several."""
TEMPTING = (TEMPTATION_FLIPS.key, TEMPTATION_EFFECT.key, SHARE.key)
BASIS_MEASURES = [
    *(LESION_FLIPS, LESION_PUT_IN_FLIPS, TEMPTATION_FLIPS, SHARE),
    *(LESION_EFFECT, TEMPTATION_EFFECT),
    *(ERASE_BLUR, ERASE_INPAINT, ERASE_BLUR_FLIPS, ERASE_INPAINT_FLIPS),
    *(ERASE_BLUR_LOGIT, ERASE_INPAINT_LOGIT),
]
