"""Which settings of a run may change once it has begun, and which its weights are bound to."""

from collections.abc import Mapping
from typing import Any

from pcamx import config as configs
from pcamx.catalogue import StageId, trainable
from pcamx.config import Config

FREE = (
    "data.threads",
    "data.feed",
    "data.cache",
    "data.watched",
    "runtime.log_every",
    "runtime.save_every",
    "runtime.timeout",
    "deepspeed.",
)
"""Keys that change no figure, and so may change within a run."""
_ELSEWHERE = ("run.folder", "data.store", "runtime.impl", "model.mirrored")
"""Keys that may change once a stage is trained: its store is known by its fingerprint, a network
that a GPU has trained answers on CPUs too, and any may be asked for a film's mirror image."""


def binding_differences(config: Config, other: Config) -> list[str]:
    """Return dotted keys, with both values, in which configs differ and may not within one run."""
    return [line for line in configs.differences(config, other) if not line.startswith(FREE)]


def changed_since(config: Config, trained: Mapping[str, Any], key: StageId) -> list[str]:
    """Return dotted keys, with both values, of ``config`` that are not as stage ``key`` had them.

    ``trained`` are the settings in its weights. Those of other stages may have been added since.
    Raises ConfigError where ``trained`` is of another version.
    """
    own = f"stages.{trainable(key).section}"
    return [
        line
        for line in binding_differences(config, configs.from_tree(trained))
        if not line.startswith(tuple(f"{name}:" for name in _ELSEWHERE))
        and (line.startswith((f"{own}:", f"{own}.")) or not line.startswith("stages."))
    ]
