"""One tree of frozen dataclasses, one YAML file a run, no merging."""

from pcamx.config.checks import ConfigError
from pcamx.config.file import as_tree, changed, differences, dump, load, read_yaml
from pcamx.config.instruments import DeepSpeed, FlopsProfiler, Monitor
from pcamx.config.tree import (
    Attention,
    Augment,
    Config,
    Data,
    Model,
    Objective,
    Run,
    Runtime,
    Stage,
)

__all__ = [
    "Attention",
    "Augment",
    "Config",
    "ConfigError",
    "Data",
    "DeepSpeed",
    "FlopsProfiler",
    "Model",
    "Monitor",
    "Objective",
    "Run",
    "Runtime",
    "Stage",
    "as_tree",
    "changed",
    "differences",
    "dump",
    "load",
    "read_yaml",
]
