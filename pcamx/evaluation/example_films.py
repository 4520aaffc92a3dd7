"""The films of Figure 2: which are shown, and each stage's maps of them."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from pcamx import metrics
from pcamx.data.store import Film, Store
from pcamx.evaluation.scoring import Scores, network_maps
from pcamx.model.network import Network
from pcamx.report.film_figure import Panel
from pcamx.types import Batch

_FILMS = 12
_COLUMNS = {
    "CAM": ("stage 1", "cam"),
    "positive CAM": ("stage 1", "positive_cam"),
    "stage 2": ("stage 2", "positive_cam"),
    "stage 3": ("stage 3", "positive_cam"),
    "decoder": ("stage 3", "decoder"),
}
"""Column of the figure: whose map, and which."""


def choose_films(films: Sequence[Film], scores: Scores, *, seed: int) -> list[Film]:
    """A dozen marked films drawn by the seed, half of them missed by the last stage's best map."""
    marked = [film for film in films if film.mark]
    best = scores.maps.get("decoder", scores.maps["positive_cam"])
    shuffled = np.random.default_rng(seed).permutation(len(marked))
    hit = [i for i in shuffled if best.pointing_M[i] >= 0.5]
    missed = [i for i in shuffled if best.pointing_M[i] < 0.5]
    half = _FILMS // 2
    chosen = missed[: max(half, _FILMS - len(hit))] + hit[: max(half, _FILMS - len(missed))]
    return [marked[i] for i in chosen]


@torch.no_grad()
def draw_panels(
    networks: dict[str, Network], store: Store, batches: Iterable[Batch], films: Sequence[Film]
) -> list[Panel]:
    """One panel per film, in order; ``batches`` holds just these films."""
    panels: list[Panel] = []
    for batch in batches:
        explained = {n: network_maps(net)(batch.image_B1HW) for n, net in networks.items()}
        for row in range(len(batch.label_B)):
            film = films[len(panels)]
            lesion_HW = batch.lesion_B1HW[row, 0]
            maps = {
                column: explained[stage][1][name][row]
                for column, (stage, name) in _COLUMNS.items()
                if stage in explained and name in explained[stage][1]
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
