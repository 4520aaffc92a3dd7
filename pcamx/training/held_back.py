"""Whether maps find lesions whose marks were not learned from, epoch by epoch; off by default.

Shapes: B films, H W the canvas, T thresholds.
"""

from typing import Any

import torch
import torch.distributed as dist

from pcamx.catalogue import DECODER, MIOU, POINTING, POSITIVE_CAM, StageId, maps_of, trainable
from pcamx.config import Config
from pcamx.data.canvas.provider import Canvases
from pcamx.data.feed.batches import eval_batches
from pcamx.data.feed.order import choose_marked
from pcamx.data.store import Store
from pcamx.engine import Ranks
from pcamx.metrics import iou_curve, pointing
from pcamx.model.maps import explain
from pcamx.model.network import Network, Segmenter

_SHOWN = (POSITIVE_CAM, DECODER)


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
) -> dict[str, float]:
    """Measure pointing and mIoU on `held_back` films, each rank a share of them.

    mIoU at the threshold that suits each map best on these films. ``canvases`` are those of the
    train split. Keys are the map's and the measure's with _ between. Every rank must call it.
    """
    films = held_back(config, store)
    kinds = [k for k in maps_of(trainable(stage), gradient=False) if k in _SHOWN]
    found: list[Any] = []
    bf16 = config.runtime.precision == "bf16"
    for batch in eval_batches(
        store,
        store.split("train"),
        canvases,
        rows=films[ranks.rank :: ranks.world],
        batch_size=max(1, config.runtime.batch_size // ranks.world),
        device=ranks.device,
        impl=config.impl,
    ):
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bf16):
            _, maps = explain(network, batch.image_B1HW, kinds)
        lesion_BHW = batch.lesion_B1HW[:, 0]
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
    return figures
