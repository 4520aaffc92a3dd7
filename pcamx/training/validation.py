"""How well a stage classifies the validation split, epoch by epoch; `evaluate` says the rest."""

from typing import Any

import torch
import torch.distributed as dist

from pcamx.catalogue import ACCURACY, AUROC
from pcamx.config import Config
from pcamx.data.canvas.provider import Canvases
from pcamx.data.feed.batches import eval_batches
from pcamx.data.store import Store
from pcamx.engine import Ranks
from pcamx.metrics import accuracy, auroc
from pcamx.model.network import Network
from pcamx.types import ABNORMAL


@torch.no_grad()
def validate(
    network: Network, config: Config, store: Store, canvases: Canvases, ranks: Ranks
) -> dict[str, float]:
    """Score the full image by AUROC and accuracy, each rank scoring its share of the films.

    Computed in the precision of the training, which `evaluate` is not.
    ``canvases`` are those of the valid split. AUROC is left out where the split holds one class
    only. Every rank must call it.
    """
    films = store.split("valid")
    share = range(ranks.rank, len(films), ranks.world)
    # Under ZeRO-3 each forward gathers weights from all ranks, so all must make as many of them.
    padding = range(-(-len(films) // ranks.world) - len(share))
    scores: list[tuple[float, int]] = []
    bf16 = config.runtime.precision == "bf16"
    for batch in eval_batches(
        store,
        films,
        canvases,
        rows=(*share, *padding),
        batch_size=max(1, config.runtime.batch_size // ranks.world),
        device=ranks.device,
        lesions=False,
        impl=config.impl,
    ):
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bf16):
            logits_BC = network(batch.image_B1HW)
        probability_B = logits_BC.float().softmax(1)[:, ABNORMAL]
        scores += zip(probability_B.tolist(), batch.label_B.tolist(), strict=True)
    shares: list[Any] = [None] * ranks.world
    dist.all_gather_object(shares, scores[: len(share)])
    score, label = map(torch.tensor, zip(*(pair for s in shares for pair in s), strict=True))
    found = {AUROC.key: auroc(score, label).value, ACCURACY.key: accuracy(score, label).value}
    return {name: value for name, value in found.items() if value is not None}
