"""What the page says in sentences: what was measured on what, and what the figures mean."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pcamx.report import rows

TERMS = (
    (
        "CAM, positive CAM, decoder",
        "CAM weighs the last features by the abnormal class's weights (eq. 1 of the paper), "
        "positive CAM by the positive ones alone (eq. 2), and the decoder, which only stage 3 "
        "trains, draws the lesion; all see the full film and never its label.",
    ),
    (
        "Grad-CAM, LayerCAM",
        "At the features of stride 8, weighed by the gradient of the abnormal class's score: "
        "averaged over the film (Grad-CAM), or where it is positive (LayerCAM). At the last "
        "features they would be CAM and positive CAM without what is negative, times a constant.",
    ),
    (
        "pointing",
        "Share of the marked films whose map has its peak inside the mark, without tolerance; "
        "of several equal peaks, the share inside.",
    ),
    (
        "energy",
        "Share of the map's sum, after min-max per film, that lies inside the mark, averaged over "
        "the marked films.",
    ),
    (
        "mIoU",
        "Intersection over union of the mark and the pixels where the map, after min-max per "
        "film, reaches the threshold, averaged over the marked films.",
    ),
    (
        "threshold",
        "Chosen for each map on the marked training films, never on the films reported here.",
    ),
    (
        "relevance rank",
        "Of as many of a map's highest pixels as the mark has, the share inside the mark.",
    ),
    (
        "PxAP",
        "Average precision of the pixels of all marked films together: a large lesion counts more.",
    ),
    (
        "MaxBoxAccV2",
        "Share of the marked films where a box around what the map exceeds a threshold in meets "
        "the box of a lesion with an intersection over union of 0.3, 0.5, 0.7, averaged over the "
        "three; each at the one threshold that is best for these very films.",
    ),
    (
        "Dice; mIoU, Otsu",
        "Dice at the threshold of mIoU; mIoU with each map cut at its own Otsu threshold.",
    ),
    (
        "false activation",
        "Share of the normal films whose map, not normalised, somewhere exceeds the level that "
        "it reaches on 80 % of the marked training lesions.",
    ),
    (
        "peak on letter",
        "Share of the films carrying a side marker, L or R, whose map has its peak on it or within "
        "1/16 of the film's side; of all such films, and of the abnormal ones.",
    ),
    (
        "deletion, insertion",
        "Area under the probability of abnormal while the map's hottest pixels are removed (lower "
        "is better), or put back on the blurred film (higher is better).",
    ),
    (
        "small, medium, large",
        "Lesions that cover less than 0.3 % of the canvas, less than 1 %, and more.",
    ),
    ("AUROC", "Chance that an abnormal film scores above a normal one; a tie counts a half."),
    ("accuracy", "Share of the films on the right side of a probability of 0.5."),
    (
        "kappa",
        "Cohen's kappa, agreement beyond chance, between label and decision per study; a study's "
        "probability is the mean of its films'.",
    ),
    (
        "sensitivity, specificity",
        "Share of the abnormal studies called abnormal, of the normal ones called normal, at a "
        "probability of 0.5.",
    ),
    (
        "Brier score, calibration error",
        "Mean squared error of the probability; mean distance between it and the share of "
        "abnormal films, in 15 bins, without an interval since resampling inflates it.",
    ),
    ("interval", "95 % bootstrap interval that draws whole patients, not single films."),
    (
        "centre Gaussian",
        "A Gaussian at the film's centre in the place of every map: what is reached unseen.",
    ),
    ("untrained network", "The same network with random weights."),
    (
        "same-marks segmenter",
        "Encoder and decoder of stage 3, trained from random weights on its marked films alone: "
        "no label, no attention.",
    ),
    (
        "P, λ, mask area",
        "Running accuracy on training films; the weight of L2 that follows from "
        "it (eq. 3); mean of the mask that stage 2 lays over the film.",
    ),
)

_SPLITS = {"valid": "validation"}


def measured(report: Mapping[str, Any]) -> str:
    """What was measured on what."""
    classes, groups = rows.classification(report), rows.localization(report)
    names = [f"stage {key}" for key in rows.stages(report)]
    text = f"The network after {_enumerate(names) or 'no stage'} was measured"
    if classes:
        films, studies = (classes[0].figures[key].n for key in ("auroc", "kappa"))
        text += f" on {_count(films, 'film')} of {_count(studies, 'study', 'studies')}"
        text += _of_split(report)
    if groups:
        marked = groups[0].rows[0].figures["pointing"].n
        text += f"; where its maps lie, on {_count(marked, 'film')} with a marked lesion"
    return text + "."


def _of_split(report: Mapping[str, Any]) -> str:
    data = report.get("data")
    split = data.get("split") if isinstance(data, Mapping) else None
    return f" from the {_SPLITS.get(split, split)} split" if split else ""


def found(report: Mapping[str, Any]) -> str:
    """Pointing of every stage, and of the baselines."""
    groups = rows.localization(report)
    trained = [g for g in groups if g.title.startswith("stage")]
    said = [
        f"{row.figures['pointing'].text()} {row.figures['pointing'].interval()}".strip()
        + f" for the {row.name} of {group.title}"
        for group in trained
        for row in group.rows
        if row.name in (rows.MAPS["positive_cam"], rows.MAPS["decoder"])
        and row.figures["pointing"].value is not None
    ]
    if not said:
        return ""
    beside = [
        f"{group.rows[0].figures['pointing'].text()} for a {group.title}"
        for group in groups
        if group not in trained and len(group.rows) == 1
    ]
    text = f"Share of marked films whose map has its peak in the lesion: {_enumerate(said)}"
    return f"{text}; {_enumerate(beside)}." if beside else f"{text}."


def against(report: Mapping[str, Any]) -> str:
    """Stage 3's decoder beside the segmenter that saw the same marks, empty without one."""
    found = rows.against_segmenter(report)
    if found.get("value") is None:
        return ""
    low, high = (rows.number(found[end]) for end in ("low", "high"))
    times = f", {rows.number(found['ratio'], 2)} times its mIoU" if found.get("ratio") else ""
    return (
        f"Stage 3's decoder minus the same-marks segmenter, film by film: mIoU "
        f"{found['value']:+.3f} [{low}, {high}]{times}."
    )


def made(report: Mapping[str, Any]) -> str:
    """Device, commit and time."""
    text = f"Evaluated on {report.get('device') or 'an unknown device'}"
    text += f" at commit {report.get('commit') or 'unknown'}"
    timed = {k: s for k, s in rows.trained(report).items() if s.get("seconds") is not None}
    if not timed:
        return f"{text}."
    where = {_where(stage) for stage in timed.values()}
    alike = where.pop() if len(where) == 1 else ""
    times = [
        f"{rows.duration(stage['seconds'])} for {_the(key)}{'' if alike else _where(stage)}"
        for key, stage in timed.items()
    ]
    return f"{text}. Training took {_enumerate(times)}{',' if alike else ''}{alike}."


def _the(name: str) -> str:
    return f"the {name}" if name == "segmenter" else name


def _where(stage: Mapping[str, Any]) -> str:
    """Device and ranks of a stage's training, where the report knows them."""
    ranks, device = stage.get("ranks"), stage.get("device")
    text = f" on {device}" if device else ""
    return f"{text} with {_count(ranks, 'rank')}" if isinstance(ranks, int) else text


def _enumerate(items: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


def _count(n: int | None, one: str, many: str = "") -> str:
    return f"{rows.DASH if n is None else format(n, ',')} {one if n == 1 else many or one + 's'}"


def facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of what was run, on what and with what."""
    for key in ("command", "created", "device", "commit"):
        yield key, str(report.get(key) or rows.DASH)
    for key, stage in rows.trained(report).items():
        yield key, cost(stage) or rows.DASH
    for key in ("data", "versions"):
        yield from _flat(key, report.get(key))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A line for a value or a mapping of plain values, several for what is nested deeper."""
    name = name.replace("_", " ")
    if not isinstance(value, Mapping):
        yield name, rows.DASH if value is None else str(value)
        return
    plain = {k: v for k, v in value.items() if not isinstance(v, Mapping)}
    if plain:
        yield name, ", ".join(f"{str(k).replace('_', ' ')} {v}" for k, v in plain.items())
    for key, below in value.items():
        if key not in plain:
            yield from _flat(f"{name}, {key}", below)


def cost(stage: Mapping[str, Any]) -> str:
    """Epochs, time and place of a stage's training, empty where unknown."""
    epochs = stage.get("epochs")
    text = rows.duration(stage["seconds"]) if stage.get("seconds") is not None else ""
    text += _where(stage)
    return f"{_count(epochs, 'epoch')}, {text}" if isinstance(epochs, int) and text else text
