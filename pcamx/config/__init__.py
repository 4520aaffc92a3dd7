"""One tree of frozen dataclasses, one YAML file a run, no merging.

A YAML file comes in, a `Config` with every key checked goes out, or an error that names the key.
`sections` describes each key, `tree` reads them and `file` the YAML; `checks` is what no single key
shows. Every room that works on a run takes a `Config`.
"""

from pcamx.config.checks import ConfigError
from pcamx.config.file import as_tree, changed, differences, dump, from_tree, load
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
    "from_tree",
    "load",
    "quoted",
    "read_yaml",
    "settings",
]
