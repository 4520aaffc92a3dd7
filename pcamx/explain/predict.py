"""Films in, numbers out, with nothing written: what `pcamx explain` finds, in Python.

Shapes: B batch, H W the canvas, h w the film.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pcamx.catalogue import best_map, maps_of, trainable
from pcamx.data.canvas.placement import Fit, on_film
from pcamx.data.canvas.without_dali import has_dali
from pcamx.errors import PcamxError
from pcamx.explain.inputs import FilmPath
from pcamx.explain.maps import answers
from pcamx.explain.messages import Job, Scored
from pcamx.explain.read_film import Reading, read
from pcamx.processes import bounded
from pcamx.run.pretrained import Pretrained

BATCH = 8
"""Films that the network sees at a time, here and in `pcamx explain`."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a network says of one film."""

    path: Path
    probability: float
    """Of abnormal."""
    width: int
    """Of the upright film, pixels."""
    height: int
    maps: Mapping[str, NDArray[np.float32]] = field(repr=False)
    """[H, W] on the square canvas, as they come out of the network, not scaled, by key."""
    place: Fit
    """Where the film lies on the canvas."""
    map: str
    """Key of the map whose peaks the candidates are."""
    candidates: tuple[Scored, ...]
    """In pixels of the upright film; the highest score first."""

    def on_film(self, key: str) -> NDArray[np.float32]:
        """Return a map at the upright film's own size, [h, w], bilinear between canvas pixels."""
        film_hw = on_film(self.maps[key], self.place)
        image = Image.fromarray(np.ascontiguousarray(film_hw))
        return np.asarray(image.resize((self.width, self.height), Image.Resampling.BILINEAR))


@overload
def predict(model: Pretrained, films: str | Path) -> Prediction: ...
@overload
def predict(model: Pretrained, films: list[str] | Sequence[Path]) -> list[Prediction]: ...
def predict(
    model: Pretrained, films: str | Path | list[str] | Sequence[Path]
) -> Prediction | list[Prediction]:
    """Say of a film, or of each of several in their order, what ``model`` finds in it.

    A film is PNG, JPEG, TIFF, BMP or DICOM. The numbers are those of `pcamx explain`; without DALI
    Pillow reduces the films, and they differ a little. Raises PcamxError, naming the file, where
    one cannot be read or the network answers NaN, and for what is no path.
    """
    if isinstance(films, str | Path):
        return predict(model, [Path(films)])[0]
    found: list[Prediction] = []
    paths = [_path(film) for film in _listed(films)]
    for first in range(0, len(paths), BATCH):
        found += _predict(model, [_read(path) for path in paths[first : first + BATCH]])
    return found


def _listed(films: object) -> Iterable[object]:
    if isinstance(films, Iterable) and not isinstance(films, np.ndarray | torch.Tensor):
        return films
    raise _no_path(films)


def _path(film: object) -> Path:
    if isinstance(film, str | os.PathLike):
        return Path(film)
    raise _no_path(film)


def _no_path(film: object) -> PcamxError:
    return PcamxError(
        f"predict takes paths of films; this is a {type(film).__name__}: save it as "
        "a file, or give model.explain a tensor of canvases"
    )


def _read(path: Path) -> Reading:
    path = Path(os.path.abspath(path))
    with bounded():
        reading = read(FilmPath(path, path.name, ""), keep_pixels=not has_dali())
    if isinstance(reading, str):
        raise PcamxError(f"{path}: {reading}")
    return reading


def _predict(model: Pretrained, films: Sequence[Reading]) -> list[Prediction]:
    entry = trainable(model.stage)
    best, kinds = best_map(entry).key, list(maps_of(entry, gradient=False))
    threshold = model.thresholds[best]
    by_map = answers(model, films, kinds)
    found = []
    for row, film in enumerate(films):
        job = Job(film, *by_map[best][row])
        candidates = job.candidates(threshold.value, threshold.level)
        found.append(
            Prediction(
                path=film.path,
                probability=job.probability,
                width=film.width,
                height=film.height,
                maps={key: of_films[row].map_HW for key, of_films in by_map.items()},
                place=job.place(),
                map=best,
                candidates=tuple(Scored(job.score(one), one) for one in candidates),
            )
        )
    return found
