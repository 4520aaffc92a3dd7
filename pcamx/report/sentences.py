"""What the page says in sentences: what was measured on what, and what the figures mean."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pcamx.catalogue import (
    AUROC,
    BASELINES,
    DECODER,
    KAPPA,
    MAPS,
    MEASURES,
    MIOU,
    POINTING,
    POSITIVE_CAM,
    SAME_MARKS,
    STAGE_3,
    TRAINABLES,
    classifiers,
)
from pcamx.data.patients import BLOCKS, FILMS, PATIENTS
from pcamx.report import numbers, rows

_AFTER: dict[str, tuple[tuple[str, str], ...]] = {
    MIOU.key: (
        (
            "threshold",
            "Chosen for each map on the marked training films, never on the films reported here.",
        ),
    ),
}
"""Terms that explain a measure's, after it."""


_DRAWN = {
    PATIENTS: "draws whole patients, not single films.",
    FILMS: "draws films, no two of which are known to be of one patient.",
    BLOCKS: "draws whole blocks of neighbouring films, which stand for the unknown patients.",
}


def over(report: Mapping[str, Any]) -> str:
    """Return what the intervals of a report draw, as `pcamx.data.patients.drawn` says it."""
    data = report.get("data")
    found = data.get("intervals_over") if isinstance(data, Mapping) else None
    return found if found in _DRAWN else PATIENTS  # what reports of an earlier pcamx meant


def terms(drawn: str = PATIENTS) -> Iterator[tuple[str, str]]:
    """Yield every term of the page and what it means; ``drawn`` is what intervals draw."""
    yield from ((kind.title, kind.meaning) for kind in MAPS)
    for measure in MEASURES:
        lower = "" if measure.better == "higher" else " Lower is better."
        yield measure.title, measure.meaning + lower
        yield from _AFTER.get(measure.key, ())
    yield (
        "small, medium, large",
        "Lesions that cover less than 0.3 % of the canvas, less than 1 %, and more.",
    )
    exact = (
        "A share of none or of all has the exact one (Clopper and Pearson), unless its threshold "
        "is drawn anew as well. Another figure that is the same in every draw has none."
    )
    yield "interval", f"95 % bootstrap interval that {_DRAWN[drawn]} {exact}"
    yield from ((baseline.title, baseline.meaning) for baseline in BASELINES)
    yield (
        "P, λ, mask area",
        "Running accuracy on training films; the weight of L2 that follows from it (eq. 3); mean "
        "of the mask that stage 2 lays over the film.",
    )


_SPLITS = {"valid": "validation"}


def measured(report: Mapping[str, Any]) -> str:
    """Say what was measured on what."""
    classes, groups = rows.classification(report), rows.localization(report)
    names = [e.title for e in TRAINABLES if str(e.key) in rows.stages(report)]
    text = f"The network after {_enumerate(names) or 'no stage'} was measured"
    if classes:
        films, studies = (classes[0].figures[key].n for key in (AUROC.key, KAPPA.key))
        text += f" on {_count(films, 'film')} of {_count(studies, 'study', 'studies')}"
        text += _of_split(report)
    if rows.any_measured(groups):
        marked = groups[0].rows[0].figures[POINTING.key].n
        text += f"; where its maps lie, on {_count(marked, 'film')} with a marked lesion"
    return text + "."


def _of_split(report: Mapping[str, Any]) -> str:
    data = report.get("data")
    split = data.get("split") if isinstance(data, Mapping) else None
    return f" from the {_SPLITS.get(split, split)} split" if split else ""


def found(report: Mapping[str, Any]) -> str:
    """Say the pointing of every stage, and of the baselines."""
    groups = rows.localization(report)
    trained = [g for g in groups if g.title in [entry.title for entry in classifiers()]]
    said = [
        f"{row.figures[POINTING.key].text()} {row.figures[POINTING.key].interval()}".strip()
        + f" for the {row.name} of {group.title}"
        for group in trained
        for row in group.rows
        if row.name in (POSITIVE_CAM.title, DECODER.title)
        and row.figures[POINTING.key].value is not None
    ]
    if not said:
        return ""
    beside = [
        f"{group.rows[0].figures[POINTING.key].text()} for a {group.title}"
        for group in groups
        if group not in trained and len(group.rows) == 1
    ]
    text = f"Share of marked films whose map has its peak in the lesion: {_enumerate(said)}"
    return f"{text}; {_enumerate(beside)}." if beside else f"{text}."


def against(report: Mapping[str, Any]) -> str:
    """Hold stage 3's decoder beside the segmenter that saw the same marks; empty without one."""
    found = rows.against_segmenter(report)
    if found.get("value") is None:
        return ""
    low, high = (found.get(end) for end in ("low", "high"))
    interval = "" if None in (low, high) else f" [{numbers.number(low)}, {numbers.number(high)}]"
    ratio, iou = found.get("ratio"), MIOU.title
    times = f", {numbers.number(ratio, 2)} times its {iou}" if ratio else ""
    ours = f"{STAGE_3.title.capitalize()}'s {DECODER.title}"
    return (
        f"{ours} minus the {SAME_MARKS.title}, film by film: "
        f"{iou} {found['value']:+.3f}{interval}{times}."
    )


def calibrated(report: Mapping[str, Any]) -> str:
    """Say the temperature of every stage; empty where none was fitted."""
    found = rows.temperatures(report)
    said = [f"{numbers.temperature(value)} after {title}" for title, value in found.items()]
    return f"Temperature, fitted on training films: {_enumerate(said)}." if said else ""


def made(report: Mapping[str, Any]) -> str:
    """Say device, commit and time."""
    text = f"Evaluated on {report.get('device') or 'an unknown device'}"
    text += f" at commit {report.get('commit') or 'unknown'}"
    timed = {k: s for k, s in rows.trained(report).items() if s.get("seconds") is not None}
    if not timed:
        return f"{text}."
    where = {_where(stage) for stage in timed.values()}
    alike = where.pop() if len(where) == 1 else ""
    times = [
        f"{numbers.duration(stage['seconds'])} for {_the(key)}{'' if alike else _where(stage)}"
        for key, stage in timed.items()
    ]
    return f"{text}. Training took {_enumerate(times)}{',' if alike else ''}{alike}."


def _the(name: str) -> str:
    return name if name in [entry.title for entry in classifiers()] else f"the {name}"


def _where(stage: Mapping[str, Any]) -> str:
    """Device and ranks of a stage's training, where the report knows them."""
    ranks, device = stage.get("ranks"), stage.get("device")
    text = f" on {device}" if device else ""
    return f"{text} with {_count(ranks, 'rank')}" if isinstance(ranks, int) else text


def _enumerate(items: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


def _count(n: int | None, one: str, many: str = "") -> str:
    return f"{numbers.DASH if n is None else format(n, ',')} {one if n == 1 else many or one + 's'}"


def facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return names and values of what was run, on what and with what."""
    for key in ("command", "created", "device", "commit"):
        yield key, str(report.get(key) or numbers.DASH)
    for key, stage in rows.trained(report).items():
        yield key, cost(stage) or numbers.DASH
    if "parent" in report:
        yield from _flat("goes on from", report["parent"])
    for key in ("data", "versions"):
        yield from _flat(key, report.get(key))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A line for a value or a mapping of plain values, several for what is nested deeper."""
    name = name.replace("_", " ")
    if not isinstance(value, Mapping):
        yield name, numbers.DASH if value is None else str(value)
        return
    plain = {k: v for k, v in value.items() if not isinstance(v, Mapping)}
    if plain:
        yield name, ", ".join(f"{str(k).replace('_', ' ')} {v}" for k, v in plain.items())
    for key, below in value.items():
        if key not in plain:
            yield from _flat(f"{name}, {key}", below)


def cost(stage: Mapping[str, Any]) -> str:
    """Say epochs, time and place of a stage's training, empty where unknown."""
    epochs = stage.get("epochs")
    text = numbers.duration(stage["seconds"]) if stage.get("seconds") is not None else ""
    text += _where(stage)
    return f"{_count(epochs, 'epoch')}, {text}" if isinstance(epochs, int) and text else text
