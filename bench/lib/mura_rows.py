"""What `bench.mura` reports, as rows of a record."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.lib.record import Row
from pcamx.config import Config
from pcamx.data.feed.order import steps_per_epoch
from pcamx.report.rows import MAPS


def time_rows(case: str, seconds: Mapping[str, float], films: int) -> Iterator[Row]:
    """A row a step, and films a second where a step goes through all of them."""
    for step, value in seconds.items():
        yield Row(case, step, "time", value, "s")
        if step in ("draw", "prepare", "first decode"):
            yield Row(case, step, "rate", films / value, "images/s")


def stage_rows(case: str, report: Mapping[str, Any], config: Config) -> Iterator[Row]:
    """Time and training images a second of each stage."""
    films, batch = report["data"]["splits"]["train"]["films"], config.runtime.batch_size
    total = 0.0
    for number, stage in report["stages"].items():
        marked = config.objective.marked_per_batch if number == "3" else 0
        images = stage["epochs"] * steps_per_epoch(films, batch, marked) * batch
        total += stage["seconds"]
        yield Row(case, f"stage {number}", "time", stage["seconds"], "s")
        yield Row(case, f"stage {number}", "rate", images / stage["seconds"], "images/s")
    yield Row(case, "three stages", "time", total, "s")


def learning_rows(case: str, report: Mapping[str, Any]) -> Iterator[Row]:
    """AUROC of each stage, pointing and mIoU of each map; what is undefined is left out.

    Of the untrained network positive CAM alone; the centre's map is the same under every name.
    """
    for number, stage in report["stages"].items():
        name = f"stage {number}"
        yield from _figure(case, name, "AUROC", stage["classification"]["auroc"])
        for key, figures in stage["localization"].items():
            yield from _map(case, f"{name}, {MAPS[key]}", figures)
    untrained, centre = report["baselines"]["untrained"], report["baselines"]["centre"]
    yield from _map(case, "untrained, positive CAM", untrained["localization"]["positive_cam"])
    yield from _map(case, "centre", centre["localization"]["positive_cam"])


def _map(case: str, impl: str, figures: Mapping[str, Any]) -> Iterator[Row]:
    yield from _figure(case, impl, "pointing", figures["pointing"])
    yield from _figure(case, impl, "mIoU", figures["miou"])


def _figure(case: str, impl: str, metric: str, figure: Mapping[str, float | None]) -> Iterator[Row]:
    for key, which in {"value": "", "low": " low", "high": " high"}.items():
        value = figure[key]
        if value is not None:
            yield Row(case, impl, metric + which, value, "")
