"""report.json: what `pcamx evaluate` found. One schema, one version, one reader."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NotRequired, TypedDict

from pcamx import __version__
from pcamx.catalogue import KAPPA_BY_PART, StageId
from pcamx.errors import PcamxError
from pcamx.output import write_text
from pcamx.run.folder import RunFolder
from pcamx.run.weights import Weights
from pcamx.seals import sealed, unsealed

FORMAT = 1
_OPTIONAL: dict[str, tuple[type, ...]] = {
    "versions": (dict,),
    "commit": (str, type(None)),
    "films_sha256": (str,),
}
_LARGEST = 1e300
"""Above which a number is no figure; whole numbers of JSON know no bound."""


class Figure(TypedDict):
    """A value, its 95 % interval, and the number of films or studies behind it; None: undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class Measured(TypedDict, total=False):
    """What was found of a network or baseline; keys below as in `pcamx.catalogue`."""

    classification: dict[str, Any]
    """Figure by measure, and kappa_by_part: Figure by body part."""
    temperature: float | None
    """By which the logits are divided to be calibrated on training films; None where these are of
    one class."""
    localization: dict[str, dict[str, Any]]
    """By map: Figure by measure, by_size, threshold, threshold_tuned, activation_threshold,
    candidate_level."""
    basis: dict[str, Any]
    """Figure by measure, of films and their twins and of marked films with a patch erased; what
    the films do not allow is absent."""
    seconds: float
    epochs: int
    ranks: int
    device: str


class Report(TypedDict):
    """The whole file; `stages` and `baselines` by their keys as text."""

    format: int
    created: str
    device: str
    versions: dict[str, str]
    commit: str | None
    command: str
    data: dict[str, Any]
    config: dict[str, Any]
    stages: dict[str, Measured]
    baselines: dict[str, Measured]
    unfinished: list[StageId]
    films_sha256: NotRequired[str]
    """Of the films.csv of the same evaluation, which report.html names as well."""
    parent: NotRequired[dict[str, str]]
    """Of a run that goes on from another: that one's folder and id."""
    own: NotRequired[dict[str, Any]]
    """On another store's films: the AUROC on the run's own."""
    stage3_against_segmenter: NotRequired[dict[str, Any]]


def write_report(run: RunFolder, report: Report) -> None:
    """Write report.json whole or not at all, with a digest of all of it.

    Raises PcamxError where the disk refuses.
    """
    text = json.dumps(sealed(report), indent=1, allow_nan=False)
    write_text(run.report_file, text + "\n")


def read_report(run: RunFolder) -> Report:
    """Read what `write_report` wrote.

    Raises PcamxError, one line, where there is none, it is damaged or of another version.
    """
    path, again = run.report_file, f"run pcamx evaluate {run.path} again"
    try:
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        if (version := report["format"]) == FORMAT:
            report = unsealed(report)
    except FileNotFoundError:
        if not run.is_run():
            run.read_config()
        raise PcamxError(f"{run.path}: not evaluated yet; run pcamx evaluate {run.path}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise PcamxError(f"{path}: damaged, or no report of an evaluation; {again}") from None
    if version != FORMAT:
        raise PcamxError(
            f"{path}: format {version}, this pcamx {__version__} reads format {FORMAT}; {again}"
        )
    if wrong := next(_wrong(report), None):
        raise PcamxError(f"{path}: damaged or of another version ({wrong}); {again}")
    found: Report = report
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def read_report_of(run: RunFolder, weights: Weights) -> Report | None:
    """Read the report that measures ``weights``; None where nobody has measured them.

    Raises PcamxError as `read_report`, and where it measures weights trained over since, or
    answers by another `model.mirrored` than the run's of now: thresholds differ.
    """
    if not run.report_file.exists():
        return None
    report = read_report(run)
    measured = report["stages"].get(str(weights.stage))
    if measured is None:
        return None
    if (measured.get("epochs"), measured.get("seconds")) != (weights.epochs, weights.seconds):
        raise PcamxError(
            f"{run.report_file}: measures another training of stage {weights.stage}; run pcamx "
            f"evaluate {run.path}"
        )
    check_asked_alike(run, report)
    return report


def check_asked_alike(run: RunFolder, report: Report) -> None:
    """Raise PcamxError where the run's `model.mirrored` of now is not the report's."""
    if _mirrored(report) != (now := run.read_config().model.mirrored):
        raise PcamxError(
            f"{run.report_file}: measured before model.mirrored became {str(now).lower()}; run "
            f"pcamx evaluate {run.path}"
        )


def _mirrored(report: Report) -> bool:
    """Whether it measures means over films and their mirror images; none did before the key."""
    model = report["config"].get("model")
    return isinstance(model, dict) and bool(model.get("mirrored"))


def _wrong(report: Any) -> Iterator[str]:
    """What does not fit the schema, key by key."""
    for key, kind in {"stages": dict, "baselines": dict, "data": dict, "config": dict}.items():
        if not isinstance(report.get(key), kind):
            yield key
            return
    for key, kinds in _OPTIONAL.items():
        if key in report and not isinstance(report[key], kinds):
            yield key
    if not report["stages"]:
        yield "stages: none is measured"
    for group in ("stages", "baselines"):
        for name, found in report[group].items():
            where = f"{group}.{name}"
            maps = found.get("localization") if isinstance(found, dict) else None
            if not isinstance(maps, dict):
                yield f"{where}.localization"
                continue
            yield from (f"{where}.localization.{m}" for m, v in maps.items() if not _is_map(v))
            figures = found.get("classification", {})
            if not isinstance(figures, dict) or not all(
                _is_figure(v) for k, v in figures.items() if k != KAPPA_BY_PART
            ):
                yield f"{where}.classification"
            if not (found.get("temperature") is None or _is_number(found["temperature"])):
                yield f"{where}.temperature"


def _is_map(found: Any) -> bool:
    if not isinstance(found, dict) or not _is_number(found.get("threshold")):
        return False
    if not isinstance(found.get("threshold_tuned", False), bool):
        return False
    nested = [v for v in found.values() if isinstance(v, dict) and "value" in v]
    return 0 <= found["threshold"] <= 1 and all(map(_is_figure, nested))


def _is_figure(found: Any) -> bool:
    if not isinstance(found, Mapping) or not isinstance(found.get("n"), int):
        return False
    return all(found.get(k) is None or _is_number(found[k]) for k in ("value", "low", "high"))


def _is_number(found: Any) -> bool:
    fine = isinstance(found, int | float) and not isinstance(found, bool)
    return fine and -_LARGEST < found < _LARGEST
