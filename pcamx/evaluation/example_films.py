"""The films of Figure 2: which are shown, and each stage's maps of them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pcamx import metrics
from pcamx.catalogue import (
    CAM,
    DECODER,
    POINTING,
    POSITIVE_CAM,
    STAGE_3,
    MapKind,
    Trainable,
    classifiers,
)
from pcamx.data.store import Film, Store
from pcamx.evaluation.explainers import Explainer
from pcamx.evaluation.scoring import Scores
from pcamx.report.figures.film_figure import Panel
from pcamx.types import Batch

_FILMS = 12


def _columns() -> dict[str, tuple[Trainable, MapKind]]:
    """Column of the figure: whose map, and which."""
    first, *later = classifiers()
    found = {CAM.title: (first, CAM), POSITIVE_CAM.title: (first, POSITIVE_CAM)}
    found |= {entry.title: (entry, POSITIVE_CAM) for entry in later}
    found[DECODER.title] = (STAGE_3, DECODER)
    return found


def choose_films(films: Sequence[Film], scores: Scores, *, seed: int) -> list[Film]:
    """Choose a dozen marked films by the seed, half of them missed by the last stage's best map."""
    marked = [film for film in films if film.mark]
    best = scores.maps.get(DECODER.key, scores.maps[POSITIVE_CAM.key]).of(POINTING)
    shuffled = np.random.default_rng(seed).permutation(len(marked))
    hit = [i for i in shuffled if best[i] >= 0.5]
    missed = [i for i in shuffled if best[i] < 0.5]
    half = _FILMS // 2
    chosen = missed[: max(half, _FILMS - len(hit))] + hit[: max(half, _FILMS - len(missed))]
    return [marked[i] for i in chosen]


@torch.no_grad()
def draw_panels(
    explainers: Mapping[str, Explainer],
    store: Store,
    batches: Iterable[Batch],
    films: Sequence[Film],
) -> list[Panel]:
    """Draw one panel per film, in order; ``batches`` holds just these films."""
    panels: list[Panel] = []
    for batch in batches:
        explained = {n: explain(batch.image_B1HW) for n, explain in explainers.items()}
        for row in range(len(batch.label_B)):
            film = films[len(panels)]
            lesion_HW = batch.lesion_B1HW[row, 0]
            maps = {
                column: explained[entry.title][1][kind.key][row]
                for column, (entry, kind) in _columns().items()
                if entry.title in explained and kind.key in explained[entry.title][1]
            }
            panels.append(
                Panel(
                    title=film.path,
                    caption=f"{film.part} {film.patient}".strip(),
                    image_HW=_grey(batch.image_B1HW[row, 0], store),
                    maps={
                        c: metrics.minmax(m[None])[0].float().cpu().numpy() for c, m in maps.items()
                    },
                    lesion_HW=lesion_HW.byte().cpu().numpy(),
                    hits={
                        c: bool(metrics.pointing(m[None], lesion_HW[None]) >= 0.5)
                        for c, m in maps.items()
                        if lesion_HW.any()
                    },
                    probability={
                        n: float(p[row]) for n, (p, _) in explained.items() if p is not None
                    },
                )
            )
    return panels


def _grey(image_HW: Tensor, store: Store) -> np.ndarray:
    grey = (image_HW * store.std + store.mean).round().clamp(0, 255)
    return grey.byte().cpu().numpy()
