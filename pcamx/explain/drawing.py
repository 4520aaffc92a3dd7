"""An explained film as `pcamx.report.figures.explained_film` draws it.

Shapes: H W the canvas, h w the film on it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcamx.catalogue import MAPS, trainable
from pcamx.explain.candidates import Candidate
from pcamx.explain.messages import Job, Settings
from pcamx.report.figures.explained_film import Outline, Picture


def picture(settings: Settings, job: Job, candidates: Sequence[Candidate]) -> Picture:
    """Return the film, its map, its candidates, and the words around them."""
    shown_HW = job.film.shown_HW
    height, width = shown_HW.shape
    scale = width / job.film.width
    blank_HW = np.zeros(shown_HW.shape, np.float32)
    return Picture(
        title=job.film.name,
        verdict=_verdict(settings, job, len(candidates)),
        image_HW=shown_HW,
        map_HW=blank_HW if job.flat() else _on_film(job, (width, height)),
        map_name=next(kind.title for kind in MAPS if kind.key == settings.map),
        outlines=[_outline(n, job.score(one), one, scale) for n, one in enumerate(candidates, 1)],
        sure=job.called() == "abnormal",
        threshold=settings.threshold,
        threshold_from=_threshold_from(settings),
        ends=job.ends(),
        notes=_notes(settings),
    )


def _threshold_from(settings: Settings) -> str:
    tuned = "tuned on marked training films" if settings.tuned else "not tuned"
    if settings.level is None:
        return f"{tuned}; level of their peaks {settings.level_from}"
    return f"{tuned}; their peaks reach {settings.level:.3g} of the map ({settings.level_from})"


def _verdict(settings: Settings, job: Job, candidates: int) -> str:
    count = f"{candidates or 'no'} candidate{'' if candidates == 1 else 's'}"
    verdict = f"P(abnormal) {job.probability:.2f}, called {job.called()}; {count}"
    if job.flat():
        return verdict + "; the map is flat and says nothing about where"
    if not candidates and settings.level is not None:
        return verdict + f": the map reaches {job.peak():.3g}, a candidate's {settings.level:.3g}"
    if job.called() == "normal" and candidates:
        return verdict + ", dashed as the film is called normal"
    return verdict


def _notes(settings: Settings) -> str:
    model, versions = settings.about["model"], settings.about["versions"]
    stage = trainable(model["stage"]).title.capitalize()
    return (
        f"Left the film, right the map on it. {stage} of {model['folder']}, "
        f"weights {model['sha256'][:12]}, pcamx {versions['pcamx']}. Not for diagnosis."
    )


def _on_film(job: Job, size: tuple[int, int]) -> NDArray[np.float32]:
    """The film's part of the scaled map at the size that the film is drawn in."""
    image = Image.fromarray(job.on_film().astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def _outline(number: int, score: float, one: Candidate, scale: float) -> Outline:
    left, top, width, height = (scale * side for side in one.box)
    rings = [scale * ring for ring in (one.outline, *one.holes)]
    return Outline(f"{number}: {score:.2f}", rings, (left, top, width, height))
