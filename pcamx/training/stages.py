"""The paper's three stages and the baseline of the third: each turns a batch into a loss.

The loop knows none of them.

Shapes: B batch, C classes, H W the image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx.catalogue import L1, L2, L3, LOSS, StageId, Trainable, resolve, trainable
from pcamx.config import Config, Objective
from pcamx.distributed import rank_count, sum_over_ranks
from pcamx.model.batch_norm import join_ranks
from pcamx.model.network import Network, Segmenter, batch_norm_by, build_network
from pcamx.ops import Attended, mask_image
from pcamx.training.losses.guidance import guidance, guides
from pcamx.training.losses.on_map import outside_share
from pcamx.training.losses.paper import (
    RunningAccuracy,
    confidence,
    lesion_loss,
    mean_over_ranks,
)
from pcamx.types import ABNORMAL, NORMAL, Batch, StageOutput


class Stage(nn.Module):
    """What is trained: a network, and a forward that turns a batch into a loss.

    Made of (its entry in `pcamx.catalogue.TRAINABLES`, config, number of training films).
    """

    accuracy: RunningAccuracy | None
    """P, the running accuracy of the full-image branch; None where nothing is classified."""

    def __init__(self, entry: Trainable, config: Config, images: int) -> None:
        super().__init__()
        del images
        self.config = config
        self.network = build_network(entry, config)
        if config.runtime.sync_batch_norm:
            join_ranks(self.network)
        self.accuracy = None

    def after_step(self, output: StageOutput, batch: Batch) -> None:
        """Take note of an update that was made; every rank calls it after each."""


class ClassifierStage(Stage):
    """A stage with P: a forward reads it and leaves it, each batch is taken in afterwards."""

    network: Network
    accuracy: RunningAccuracy

    def __init__(self, entry: Trainable, config: Config, images: int) -> None:
        super().__init__(entry, config, images)
        self.accuracy = RunningAccuracy(window=images)

    def after_step(self, output: StageOutput, batch: Batch) -> None:
        """Take the batch into P."""
        assert output.logits_BC is not None
        self.accuracy.take_in(output.logits_BC, batch.label_B)


class Stage1(ClassifierStage):
    """Classify: L1, the cross-entropy of the full image."""

    def forward(self, batch: Batch) -> StageOutput:
        logits_BC = self.network(batch.image_B1HW)
        l1 = F.cross_entropy(logits_BC.float(), batch.label_B)
        telemetry = {LOSS.key: l1, L1.key: l1}
        return StageOutput(l1, logits_BC, _detached(telemetry))


class Stage2(ClassifierStage):
    """Classify from the attended area too: (1 - lambda) L1 + lambda L2, eq. (3)."""

    def forward(self, batch: Batch) -> StageOutput:
        features = self.network.encoder(batch.image_B1HW)
        logits_BC, attended = self._attend(features, batch)
        loss, telemetry = self._attended_loss(logits_BC, attended, batch)
        telemetry |= {LOSS.key: loss}
        return StageOutput(loss, logits_BC, _detached(telemetry))

    def _attend(self, features: list[Tensor], batch: Batch) -> tuple[Tensor, Attended]:
        """Logits of the full image, and the image masked by the class's map."""
        logits_BC, attended = self.network.head(features[-1], batch.image_B1HW, batch.label_B)
        assert isinstance(attended, Attended)
        return logits_BC, attended

    def _attended_loss(
        self, logits_BC: Tensor, attended: Attended, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. (3), the masked pass with the same weights; lambda comes from the steps before."""
        network, objective = self.network, self.config.objective
        with batch_norm_by(network, self.config.attention.batch_norm):
            masked_logits_BC = network(self._shown(attended, batch))
        l1 = F.cross_entropy(logits_BC.float(), batch.label_B)
        l2 = F.cross_entropy(masked_logits_BC.float(), batch.label_B)
        lam = confidence(self.accuracy.value, objective.schedule).float()
        telemetry = {
            L1.key: l1,
            L2.key: l2,
            "lam": lam,
            "area": attended.area_B.mean(),
            "flat": (attended.area_B >= 1).sum(),
        }
        loss = (1 - lam) * l1 + lam * l2
        if objective.outside_weight:
            telemetry["outside"] = self._outside(attended, batch)
            loss = loss + objective.outside_weight * telemetry["outside"]
        return loss, telemetry

    def _shown(self, attended: Attended, batch: Batch) -> Tensor:
        """The film inside the attended area or outside it; a flat map attends to nothing."""
        if self.config.attention.shown == "inside":
            return attended.image_B1HW
        flat_B111 = (attended.area_B >= 1)[:, None, None, None]
        rest_B1HW = batch.image_B1HW - attended.image_B1HW
        return torch.where(flat_B111, batch.image_B1HW, rest_B1HW)

    def _outside(self, attended: Attended, batch: Batch) -> Tensor:
        """Mean over the abnormal films of all ranks of `outside_share`."""
        cfg, abnormal_B = self.config.attention, batch.label_B == ABNORMAL
        (abnormal,) = sum_over_ranks(abnormal_B.sum())
        share_B = outside_share(attended.cam_Bhw, omega=cfg.omega, sigma=cfg.sigma)
        return mean_over_ranks(share_B, abnormal_B, abnormal)


class Stage3(Stage2):
    """Learn from the marks as well: + lambda' L3, eq. (4); the decoder shares the encoder.

    `guidance` adds what else the objective asks for.
    """

    def forward(self, batch: Batch) -> StageOutput:
        objective, image_B1HW = self.config.objective, batch.image_B1HW
        if objective.reasons_weight:
            image_B1HW = image_B1HW.detach().requires_grad_()
        features = self.network.encoder(image_B1HW)
        if self.config.attention.mask_from == "decoder":
            logit_B1HW = self._lesion_logit(features, batch)
            logits_BC, attended = self._attend_by(logit_B1HW, features, batch)
            loss, telemetry = self._attended_loss(logits_BC, attended, batch)
        else:
            logits_BC, attended = self._attend(features, batch)
            loss, telemetry = self._attended_loss(logits_BC, attended, batch)
            logit_B1HW = self._lesion_logit(features, batch)
        l3, told = self._marks_loss(logit_B1HW, batch)
        loss, telemetry = loss + objective.lesion_weight * l3, telemetry | told
        if guides(objective):
            given = batch, image_B1HW, features[-1], logits_BC, logit_B1HW
            more, told = guidance(self.network, objective, *given)
            loss, telemetry = loss + more, telemetry | told
        return StageOutput(loss, logits_BC, _detached(telemetry | {LOSS.key: loss}))

    def _lesion_logit(self, features: list[Tensor], batch: Batch) -> Tensor:
        assert self.network.decoder is not None
        size = (batch.image_B1HW.shape[-2], batch.image_B1HW.shape[-1])
        logit_B1HW: Tensor = self.network.decoder(features, size)
        return logit_B1HW

    def _attend_by(
        self, logit_B1HW: Tensor, features: list[Tensor], batch: Batch
    ) -> tuple[Tensor, Attended]:
        """Logits of the full image, and the image masked by the decoder's answer."""
        logits_BC, _ = self.network.head(features[-1])
        cfg = self.config.attention
        attended = mask_image(
            torch.sigmoid(logit_B1HW)[:, 0],
            batch.image_B1HW,
            omega=cfg.omega,
            sigma=cfg.sigma,
            mask_grad=cfg.mask_grad,
        )
        return logits_BC, attended

    def _marks_loss(self, logit_B1HW: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """L3 over the marked films of all ranks, and half over the normal ones where asked."""
        objective = self.config.objective
        normal_B = ~batch.marked_B & (batch.label_B == NORMAL)
        answers, counts = _answers(logit_B1HW, batch)
        marked, normal, *counts = sum_over_ranks(batch.marked_B.sum(), normal_B.sum(), *counts)
        l3 = _lesion_loss(objective, logit_B1HW, batch, batch.marked_B, marked)
        if objective.normal_films:
            l3_normal = _lesion_loss(objective, logit_B1HW, batch, normal_B, normal)
            # A batch without normal films is all marks, not half of them.
            l3 = torch.where(normal > 0, (l3 + l3_normal) / 2, l3)
        return l3, _means(answers, counts) | {L3.key: l3}


class SegmenterStage(Stage):
    """L3 alone, on marked films alone: what the same marks teach without labels or attention."""

    network: Segmenter

    def forward(self, batch: Batch) -> StageOutput:
        logit_B1HW = self.network(batch.image_B1HW)
        answers, counts = _answers(logit_B1HW, batch)
        marked, *counts = sum_over_ranks(batch.marked_B.sum(), *counts)
        l3 = _lesion_loss(self.config.objective, logit_B1HW, batch, batch.marked_B, marked)
        telemetry = _means(answers, counts) | {LOSS.key: l3, L3.key: l3}
        return StageOutput(l3, None, _detached(telemetry))


def _lesion_loss(
    objective: Objective, logit_B1HW: Tensor, batch: Batch, taken_B: Tensor, total: Tensor
) -> Tensor:
    return lesion_loss(
        logit_B1HW,
        batch.lesion_B1HW,
        taken_B,
        kind=objective.lesion_loss,
        share=objective.lesion_share,
        marked_total=total,
    )


def _answers(logit_B1HW: Tensor, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """Sum of the answers on lesion pixels and on others of marked images; how many these are."""
    answer_B1HW, lesion_B1HW = torch.sigmoid(logit_B1HW), batch.lesion_B1HW
    other_B1HW = (1 - lesion_B1HW) * batch.marked_B[:, None, None, None]
    pixels = [lesion_B1HW, other_B1HW]
    return [(answer_B1HW * those).sum() for those in pixels], [those.sum() for those in pixels]


def _means(answers: list[Tensor], pixels: list[Tensor]) -> dict[str, Tensor]:
    """Mean answer of each kind, 0 and 0 in a collapse; the ranks' mean is that of all pixels."""
    names = ("lesion_answer", "other_answer")
    return {
        name: answer * rank_count() / total.clamp(min=1).to(answer.dtype)
        for name, answer, total in zip(names, answers, pixels, strict=True)
    }


def _detached(telemetry: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in telemetry.items()}


def build_stage(key: StageId, config: Config, images: int) -> Stage:
    """Return what is trained under ``key``, for a training split of ``images`` films."""
    entry = trainable(key)
    stage: Stage = resolve(entry.stage)(entry, config, images)
    return stage
