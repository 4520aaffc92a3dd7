"""A run's config: one tree of the sections, and what must hold between them."""

from dataclasses import dataclass
from typing import Literal

from pcamx.catalogue import TRAINABLES, StageId, trainable
from pcamx.config.checks import ConfigError
from pcamx.config.instruments import DeepSpeed
from pcamx.config.sections import (
    ONLY_TIMM,
    Attention,
    Augment,
    Data,
    Model,
    Objective,
    Run,
    Runtime,
    Stage,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that a run depends on."""

    run: Run
    data: Data
    stages: dict[str, Stage | None]
    """By the sections of `pcamx.catalogue.TRAINABLES`: the paper's three stages, and the
    segmenter, stage 3's encoder and decoder trained on its marked films alone, which may be left
    out. Its epochs have as many steps as stage 1's, so each goes through the few films many
    times."""
    runtime: Runtime
    augment: Augment = Augment()
    model: Model = Model()
    attention: Attention = Attention()
    objective: Objective = Objective()
    deepspeed: DeepSpeed = DeepSpeed()

    def stage(self, key: StageId) -> Stage:
        """Return the settings of what is trained under ``key``; ConfigError where it has none."""
        section = trainable(key).section
        found = self.stages.get(section)
        if found is None:
            raise ConfigError(
                f"stages.{section}: not in the config; add a line such as {section}: {{epochs: 4}}"
            )
        return found

    @property
    def impl(self) -> Literal["auto", "triton", "reference"]:
        """runtime.impl, which a network asks for."""
        return self.runtime.impl

    def trained(self) -> list[StageId]:
        """Return what the config has settings for, in the order of training."""
        return [e.key for e in TRAINABLES if self.stages.get(e.section) is not None]

    def __post_init__(self) -> None:
        _check_starts(self.stages)
        _check_backbone(self)
        if self.objective.marked_per_batch >= self.runtime.batch_size:
            raise ConfigError(
                f"objective.marked_per_batch: {self.objective.marked_per_batch} leaves no room in "
                f"runtime.batch_size {self.runtime.batch_size}"
            )
        if self.data.watched and self.runtime.zero_stage == 3:
            raise ConfigError(
                "data.watched: a map needs the classifier's whole weights, which ZeRO-3 keeps in "
                "parts; set it to 0, or runtime.zero_stage to 0, 1 or 2"
            )
        if self.objective.outside_weight and not self.attention.mask_grad:
            raise ConfigError(
                "objective.outside_weight: the map learns nothing from it without "
                "attention.mask_grad; set it to 0, or attention.mask_grad to true"
            )
        compiled = self.runtime.compiled
        if self.objective.reasons_weight and (compiled or self.runtime.zero_stage == 3):
            key = f"compile {self.runtime.compile}" if compiled else "zero_stage 3"
            raise ConfigError(
                f"objective.reasons_weight: it goes backward within the forward, which "
                f"runtime.{key} does not allow; set it to 0"
            )
        if self.deepspeed.flops_profiler.enabled and self.runtime.compile != "off":
            raise ConfigError(
                "deepspeed.flops_profiler.enabled: it counts within modules, which "
                "runtime.compile leaves none of; set it to false, or runtime.compile to off"
            )


def _check_starts(stages: dict[str, Stage | None]) -> None:
    """Raise ConfigError unless every stage starts from what was trained before it."""
    sections = [entry.section for entry in TRAINABLES]
    for number, entry in enumerate(TRAINABLES):
        stage = stages.get(entry.section)
        start = stage.init_from if stage else ""
        where = f"stages.{entry.section}.init_from"
        if start in sections and not entry.classifies:
            raise ConfigError(
                f"{where}: {start} has learned from more than the marks; set it to scratch"
            )
        if start in sections[number:]:
            raise ConfigError(f"{where}: {start} does not come before {entry.title}")


def _check_backbone(config: Config) -> None:
    """Raise ConfigError where a stage has a step size for a backbone that there is not."""
    for section, stage in config.stages.items():
        if stage and stage.backbone_lr != 1 and not config.model.timm:
            raise ConfigError(f"stages.{section}.backbone_lr: {ONLY_TIMM}")
