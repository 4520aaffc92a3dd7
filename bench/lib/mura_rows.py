"""What `bench.mura` reports, as rows of a record."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.lib.record import Row
from pcamx.catalogue import (
    AUROC,
    CENTRE,
    MAPS,
    MIOU,
    POINTING,
    POSITIVE_CAM,
    UNTRAINED,
    Trainable,
    classifiers,
)
from pcamx.config import Config
from pcamx.data.feed.order import marked_per_batch, steps_per_epoch


def time_rows(case: str, seconds: Mapping[str, float], films: int) -> Iterator[Row]:
    """Return a row a step, and films a second where a step goes through all of them."""
    for step, value in seconds.items():
        yield Row(case, step, "time", value, "s")
        if step in ("draw", "prepare", "first decode"):
            yield Row(case, step, "rate", films / value, "images/s")


def stage_rows(case: str, report: Mapping[str, Any], config: Config) -> Iterator[Row]:
    """Time and training images a second of each stage."""
    films, batch = report["data"]["splits"]["train"]["films"], config.runtime.batch_size
    total = 0.0
    for entry in _measured(report):
        stage, marked = report["stages"][str(entry.key)], marked_per_batch(config, entry.key)
        images = stage["epochs"] * steps_per_epoch(films, batch, marked) * batch
        total += stage["seconds"]
        yield Row(case, entry.title, "time", stage["seconds"], "s")
        yield Row(case, entry.title, "rate", images / stage["seconds"], "images/s")
    yield Row(case, "three stages", "time", total, "s")


def learning_rows(case: str, report: Mapping[str, Any]) -> Iterator[Row]:
    """Return AUROC of each stage, pointing and mIoU of each map; what is undefined is left out.

    Of the untrained network positive CAM alone; the centre's map is the same under every name.
    """
    titles = {kind.key: kind.title for kind in MAPS}
    for entry in _measured(report):
        stage = report["stages"][str(entry.key)]
        figure = stage["classification"][AUROC.key]
        yield from _figure(case, entry.title, AUROC.title, figure)
        for key, figures in stage["localization"].items():
            yield from _map(case, f"{entry.title}, {titles[key]}", figures)
    untrained, centre = (
        report["baselines"][baseline.key]["localization"][POSITIVE_CAM.key]
        for baseline in (UNTRAINED, CENTRE)
    )
    yield from _map(case, f"{UNTRAINED.key}, {POSITIVE_CAM.title}", untrained)
    yield from _map(case, CENTRE.key, centre)


def _measured(report: Mapping[str, Any]) -> list[Trainable]:
    return [entry for entry in classifiers() if str(entry.key) in report["stages"]]


def _map(case: str, impl: str, figures: Mapping[str, Any]) -> Iterator[Row]:
    for measure in (POINTING, MIOU):
        yield from _figure(case, impl, measure.title, figures[measure.key])


def _figure(case: str, impl: str, metric: str, figure: Mapping[str, float | None]) -> Iterator[Row]:
    for key, which in {"value": "", "low": " low", "high": " high"}.items():
        value = figure[key]
        if value is not None:
            yield Row(case, impl, metric + which, value, "")
