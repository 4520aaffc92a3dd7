"""What is written of one film: picture, map, facts and, if asked for, a DICOM Segmentation.

Imports no torch, so that the processes that draw start fast. Shapes: H W the canvas, h w the film
as drawn, P points.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcamx.data.geometry import Fit, fit
from pcamx.data.verify import UPRIGHT, one_line
from pcamx.explain.candidates import Candidate, Points, as_stored, find_candidates
from pcamx.explain.dicom_seg import MOST, write_segmentation
from pcamx.explain.reading import Reading
from pcamx.report.explained import Outline, Picture, draw

FORMAT = 1
FILMS = "films"
CALLED = 0.5
"""From this probability on a film is called abnormal, as accuracy is measured."""
FRAME = (
    "x, y in pixels of the upright film, 0 0 at its top left corner: the first pixel's centre is "
    "0.5 0.5"
)


class Settings(NamedTuple):
    """What is the same for all films."""

    map: str
    threshold: float
    tuned: bool
    dicom_seg: bool
    about: dict[str, Any]
    """Model and versions, for the facts of every film."""


class Job(NamedTuple):
    """A film that the network has answered."""

    film: Reading
    probability: float
    map_HW: NDArray[np.float32]
    scaled_HW: NDArray[np.float64]


class Row(NamedTuple):
    """What the summary and the COCO file hold of a film."""

    film: str
    reason: str
    """Why it was skipped, or what of it could not be written; empty if all is well."""
    width: int = 0
    height: int = 0
    probability: float | None = None
    candidates: tuple[Candidate, ...] = ()


def finish(folder: Path, settings: Settings, job: Job | Row) -> Row:
    """Write a film's files below ``folder``/films, the facts last; the row of one skipped is kept.

    Raises OSError where the disk refuses.
    """
    if isinstance(job, Row):
        return job
    film, (side, _) = job.film, job.map_HW.shape
    place = fit(film.width, film.height, side)
    flat = bool(job.scaled_HW.min() == 1)
    candidates = (
        []
        if flat
        else find_candidates(job.scaled_HW, settings.threshold, place, film.width, film.height)
    )
    stem = folder / FILMS / film.name
    stem.parent.mkdir(parents=True, exist_ok=True)
    picture = _picture(settings, job, place, candidates, flat)
    stem.with_name(f"{stem.name}.png").write_bytes(draw(picture))
    np.save(stem.with_name(f"{stem.name}.npy"), job.map_HW)
    segmentation, reason = None, ""
    if settings.dicom_seg and film.kind == "DICOM" and candidates:
        segmentation = f"{stem.name}.seg.dcm"
        shown = candidates[:MOST]
        scores = [_score(job, one) for one in shown]
        try:
            write_segmentation(film.path, shown, scores, stem.with_name(segmentation))
        except OSError:
            raise
        except Exception as error:  # highdicom asks for attributes that a film may lack
            segmentation, reason = None, f"no segmentation: {one_line(error)}"
    facts = _facts(settings, job, place, candidates, flat) | {"segmentation": segmentation}
    text = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)
    stem.with_name(f"{stem.name}.json").write_text(text + "\n", encoding="utf-8")
    return Row(film.name, reason, film.width, film.height, job.probability, tuple(candidates))


def score(probability: float, candidate: Candidate) -> float:
    """Probability of abnormal times the scaled map's height: the film's own for its highest."""
    return probability * candidate.value


def _score(job: Job, candidate: Candidate) -> float:
    return score(job.probability, candidate)


def called(probability: float) -> str:
    """normal or abnormal."""
    return "abnormal" if probability >= CALLED else "normal"


def _facts(
    settings: Settings, job: Job, place: Fit, candidates: Sequence[Candidate], flat: bool
) -> dict[str, Any]:
    film = job.film
    name = Path(film.name).name
    stored = (film.width, film.height) if film.turn in UPRIGHT else (film.height, film.width)
    return {
        "format": FORMAT,
        "film": str(film.path),
        "name": film.name,
        "kind": film.kind,
        "sha256": film.sha256,
        "dicom": film.uids or None,
        "width": film.width,
        "height": film.height,
        "white": film.white,
        "exif_orientation": film.turn,
        "stored_size": stored,
        "probability": {"normal": 1 - job.probability, "abnormal": job.probability},
        "called": called(job.probability),
        "called_abnormal_from": CALLED,
        "map": {
            "of": settings.map,
            "class": "abnormal",
            "file": f"{name}.npy",
            "shape": job.map_HW.shape,
            "film_on_map": place._asdict(),
            "low": float(job.map_HW.min()),
            "high": float(job.map_HW.max()),
            "flat": flat,
        },
        "threshold": {"value": settings.threshold, "tuned": settings.tuned, "of": "scaled map"},
        "frame": FRAME,
        "candidates": [_describe(film, job, one) for one in candidates],
        "picture": f"{name}.png",
        **settings.about,
    }


def _describe(film: Reading, job: Job, one: Candidate) -> dict[str, Any]:
    low, high = float(job.map_HW.min()), float(job.map_HW.max())
    described: dict[str, Any] = {
        "score": _score(job, one),
        "map_value": low + one.value * (high - low),
        "scaled_value": one.value,
        "peak": _rounded(np.array(one.peak)),
        "box": _rounded(np.array(one.box)),
        "area": round(one.area, 2),
        "contour": _rounded(one.outline),
        "holes": [_rounded(hole) for hole in one.holes],
    }
    if film.turn != 1:
        stored = as_stored(one.outline, film.turn, film.width, film.height)
        corner, size = stored.min(0), np.ptp(stored, axis=0)
        described["as_stored"] = {
            "box": _rounded(np.concatenate([corner, size])),
            "contour": _rounded(stored),
        }
    return described


def _rounded(numbers: Points) -> list[Any]:
    """To hundredths of a pixel."""
    return list(numbers.round(2).tolist())


def _picture(
    settings: Settings, job: Job, place: Fit, candidates: Sequence[Candidate], flat: bool
) -> Picture:
    film = job.film
    high, wide = film.shown_HW.shape
    call = called(job.probability)
    count = f"{len(candidates)} candidate{'' if len(candidates) == 1 else 's'}"
    verdict = f"P(abnormal) {job.probability:.2f}, called {call}; {count}"
    if flat:
        verdict += "; the map is flat and says nothing about where"
    elif call == "normal" and candidates:
        verdict += ", dashed as the film is called normal"
    return Picture(
        title=film.name,
        verdict=verdict,
        image_HW=film.shown_HW,
        map_HW=np.zeros_like(film.shown_HW, np.float32)
        if flat
        else _on_film(job, place, (wide, high)),
        map_name=settings.map.replace("_", " ").replace("cam", "CAM"),
        outlines=[_outline(n, one, job, wide / film.width) for n, one in enumerate(candidates, 1)],
        sure=call == "abnormal",
        threshold=settings.threshold,
        threshold_from="tuned on marked training films" if settings.tuned else "not tuned",
        ends=(float(job.map_HW.min()), float(job.map_HW.max())),
        notes=_notes(settings),
    )


def _notes(settings: Settings) -> str:
    model, versions = settings.about["model"], settings.about["versions"]
    return (
        f"Left the film, right the map on it. Stage {model['stage']} of {model['folder']}, "
        f"weights {model['sha256'][:12]}, pcamx {versions['pcamx']}. Not for diagnosis."
    )


def _on_film(job: Job, place: Fit, size: tuple[int, int]) -> NDArray[np.float32]:
    """The film's part of the scaled map at the size that the film is drawn in."""
    part_hw = job.scaled_HW[place.top : place.top + place.height, place.left :][:, : place.width]
    image = Image.fromarray(part_hw.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def _outline(number: int, one: Candidate, job: Job, scale: float) -> Outline:
    box = tuple(scale * side for side in one.box)
    rings = [scale * ring for ring in (one.outline, *one.holes)]
    return Outline(f"{number}: {_score(job, one):.2f}", rings, (box[0], box[1], box[2], box[3]))
