"""Whether maps find lesions whose marks were not learned from, epoch by epoch; off by default.

Shapes: B films, H W the canvas, K maps, T thresholds, 3 red green blue.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ImageColor
from torch import Tensor

from pcamx.catalogue import DECODER, MIOU, POINTING, POSITIVE_CAM, StageId, maps_of, trainable
from pcamx.config import Config
from pcamx.data.canvas.provider import Canvases
from pcamx.data.feed.batches import eval_batches
from pcamx.data.feed.order import choose_marked
from pcamx.data.store import Store
from pcamx.engine import Ranks
from pcamx.metrics import iou_curve, minmax, pointing
from pcamx.model.maps import explain
from pcamx.model.network import Network, Segmenter
from pcamx.output import readable

_SHOWN = (POSITIVE_CAM, DECODER)
_DRAWN = 4
"""Films that are drawn, at most."""

Pictures = dict[str, NDArray[np.uint8]]
"""By a film's path the film, and beside it the film under each map: [H, (1 + maps) W, 3]."""


def held_back(config: Config, store: Store) -> list[int]:
    """Return the indices, in the train split, of up to data.watched marked films.

    Drawn by the seed after those whose marks may be learned from (data.marked).
    """
    count = config.data.marked + config.data.watched
    chosen = choose_marked(store.split("train"), count, seed=config.run.seed)
    return chosen[config.data.marked :]


@torch.no_grad()
def look(
    network: Network | Segmenter,
    stage: StageId,
    config: Config,
    store: Store,
    canvases: Canvases,
    ranks: Ranks,
) -> tuple[dict[str, float], Pictures]:
    """Measure pointing and mIoU on `held_back` films, each rank a share of them.

    mIoU at the threshold that suits each map best on these films. ``canvases`` are those of the
    train split. Keys are the map's and the measure's with _ between. Of rank 0's first films the
    pictures, where TensorBoard shows them. Every rank must call it.
    """
    films, train = held_back(config, store), store.split("train")
    drawn = _DRAWN if ranks.rank == 0 and config.deepspeed.tensorboard.enabled else 0
    kinds = [k for k in maps_of(trainable(stage), gradient=False) if k in _SHOWN]
    found: list[Any] = []
    pictures: Pictures = {}
    mine = films[ranks.rank :: ranks.world]
    bf16 = config.runtime.precision == "bf16"
    for batch in eval_batches(
        store,
        train,
        canvases,
        rows=mine,
        batch_size=max(1, config.runtime.batch_size // ranks.world),
        device=ranks.device,
        impl=config.impl,
    ):
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bf16):
            _, maps = explain(network, batch.image_B1HW, kinds)
        lesion_BHW = batch.lesion_B1HW[:, 0]
        for number, index in enumerate(mine[len(found) : drawn][: len(lesion_BHW)]):
            grey_HW = batch.image_B1HW[number, 0] * store.std + store.mean
            scaled_KHW = minmax(torch.stack([maps[kind.key][number].float() for kind in kinds]))
            picture = _draw(grey_HW, scaled_KHW, lesion_BHW[number])
            pictures[readable(train[index].path)] = picture
        values = []
        for kind in kinds:
            map_BHW = maps[kind.key].float()
            hit_B1 = pointing(map_BHW, lesion_BHW)[:, None]
            values.append(torch.cat([hit_B1, iou_curve(map_BHW, lesion_BHW)], dim=1))
        found += torch.stack(values, dim=1).tolist()
    shares: list[Any] = [None] * ranks.world
    dist.all_gather_object(shares, found)
    means = torch.tensor([film for share in shares for film in share]).mean(dim=0)
    figures: dict[str, float] = {}
    for kind, (hit, *iou_T) in zip(kinds, means.tolist(), strict=True):
        figures |= {f"{kind.key}_{POINTING.key}": hit, f"{kind.key}_{MIOU.key}": max(iou_T)}
    return figures, pictures


def _draw(grey_HW: Tensor, scaled_KHW: Tensor, lesion_HW: Tensor) -> NDArray[np.uint8]:
    """The film as it is, then under each map in [0, 1] with the mark's outline."""
    # Here: matplotlib takes a second to come, and few trainings need it.
    from pcamx.report.figures.film_figure import OUTLINE, overlay

    film_HW = grey_HW.round().clamp(0, 255).byte().cpu().numpy()
    outside_HW = (lesion_HW < 0.5).float()
    near_HW = F.max_pool2d(outside_HW[None], 3, stride=1, padding=1)[0]
    edge_HW = (near_HW > outside_HW).cpu().numpy()
    tiles = [film_HW[..., None].repeat(3, axis=2)]
    for map_HW in scaled_KHW.cpu().numpy():
        tile_HW3 = overlay(film_HW, map_HW)
        tile_HW3[edge_HW] = ImageColor.getrgb(OUTLINE)
        tiles.append(tile_HW3)
    return np.concatenate(tiles, axis=1)
