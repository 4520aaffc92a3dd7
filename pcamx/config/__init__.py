"""One tree of frozen dataclasses, one YAML file a run, no merging."""

from pcamx.config.checks import ConfigError
from pcamx.config.file import as_tree, changed, differences, dump, load
from pcamx.config.instruments import DeepSpeed, FlopsProfiler, Monitor
from pcamx.config.sections import (
    TIMM,
    Attention,
    Augment,
    Data,
    Layout,
    Model,
    Objective,
    Pooling,
    Run,
    Runtime,
    Stage,
)
from pcamx.config.tree import Config
from pcamx.config.yaml_text import quoted, read_yaml, settings

__all__ = [
    "TIMM",
    "Attention",
    "Augment",
    "Config",
    "ConfigError",
    "Data",
    "DeepSpeed",
    "FlopsProfiler",
    "Layout",
    "Model",
    "Monitor",
    "Objective",
    "Pooling",
    "Run",
    "Runtime",
    "Stage",
    "as_tree",
    "changed",
    "differences",
    "dump",
    "load",
    "quoted",
    "read_yaml",
    "settings",
]
