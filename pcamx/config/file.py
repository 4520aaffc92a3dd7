"""The YAML file of a run, read into the tree and written back.

A key that is unknown, missing, given twice or of the wrong type is an error that names the key.
"""

import copy
import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pcamx.catalogue import TRAINABLES
from pcamx.config.checks import ConfigError, is_path
from pcamx.config.sections import Stage
from pcamx.config.tree import Config
from pcamx.config.yaml_text import read_yaml, write_yaml
from pcamx.output import NO_HOME


def _check(value: Any, kind: Any, key: str) -> Any:
    """Return ``value`` as ``kind`` or raise a ConfigError that names ``key``."""
    if isinstance(kind, types.UnionType):  # a section that may be left out
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    if typing.get_origin(kind) is dict:
        return _stages(value, key + ".")
    if dataclasses.is_dataclass(kind):
        return _build(value, typing.cast(type, kind), key + ".")
    if typing.get_origin(kind) is Literal:
        allowed = typing.get_args(kind)
        if type(value) is bool and "off" in allowed:
            # YAML reads on and off as true and false, which earlier versions wrote here.
            value = "on" if value else "off"
        # `True in (0, 1)` holds in Python, so the type is compared as well.
        if not any(value == a and type(value) is type(a) for a in allowed):
            near = difflib.get_close_matches(str(value), [str(a) for a in allowed], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{key}: {value!r} is not one of {', '.join(map(str, allowed))}{hint}"
            )
        return value
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{key}: too large a number") from None
    if type(value) is not kind:
        raise ConfigError(f"{key}: {value!r} is not {_NAMES[kind]}")
    if kind is float and value != value:
        raise ConfigError(f"{key}: not a number")
    return value


_SHOWN = 60
"""Characters of what is no section, which may be a whole file of another kind."""
_NAMES: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
}


def _build(tree: Any, cls: type, prefix: str) -> Any:
    """Make a ``cls`` out of a parsed YAML mapping; ``prefix`` is the dotted path so far."""
    where = prefix[:-1] or "the file"
    if not isinstance(tree, dict):
        raise _not_a_section(where, tree)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    _refuse_unknown(tree, fields, prefix)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING
        if name not in tree and required:
            raise ConfigError(f"missing key {prefix}{name}")
    values = {name: _check(tree[name], hints[name], prefix + name) for name in tree}
    try:
        return cls(**values)
    except ConfigError as error:
        # Stage does not know which of the three it is.
        known = str(error).startswith(where.split(".")[0] + ".")
        raise error if known or not prefix else ConfigError(f"{prefix}{error}") from None


def _stages(tree: Any, prefix: str) -> dict[str, Stage | None]:
    """The settings of each trainable; of one that may be left out, None where it is."""
    if not isinstance(tree, dict):
        raise _not_a_section(prefix[:-1], tree)
    _refuse_unknown(tree, [entry.section for entry in TRAINABLES], prefix)
    found: dict[str, Stage | None] = {}
    for entry in TRAINABLES:
        given = tree.get(entry.section)
        if given is None and entry.optional:
            found[entry.section] = None
        elif entry.section not in tree:
            raise ConfigError(f"missing key {prefix}{entry.section}")
        else:
            found[entry.section] = _build(given, Stage, f"{prefix}{entry.section}.")
    return found


def _not_a_section(where: str, found: Any) -> ConfigError:
    shown = repr(found)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return ConfigError(f"{where}: expected keys below it, found {shown}")


def _refuse_unknown(tree: Mapping[Any, Any], known: Collection[str], prefix: str) -> None:
    for name in tree:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown key {prefix}{name}; {hint}")


def load(path: str | Path) -> Config:
    """Read and check a run's YAML file.

    Raises ConfigError with the file's name and the key.
    """
    try:
        tree = read_yaml(path, "a config is a YAML file such as configs/demo.yaml")
        if not isinstance(tree, dict):
            raise ConfigError("no config, which has keys such as data.store; pcamx init writes one")
        config = from_tree(tree)
    except ConfigError as error:
        known = str(error).startswith(f"{path}: ")
        raise error if known else ConfigError(f"{path}: {error}") from None
    return config


def from_tree(tree: Mapping[str, Any]) -> Config:
    """Return the config of nested plain dicts, as a file or `as_tree` has it.

    Raises ConfigError that names the key.
    """
    config: Config = _build(_at_home(_move(copy.deepcopy(tree))), Config, "")
    return config


_MOVED = {"attention.impl": "runtime.impl", "model.layout": "model.encoder"}
"""Keys of earlier versions and where they are now; a run's config.yaml may have them."""


def _move(tree: Any) -> Any:
    """Put keys of an earlier version in their place; one that is in both is left to be refused."""
    for old, new in _MOVED.items():
        (section, key), (home, name) = old.split("."), new.split(".")
        given = tree.get(section) if isinstance(tree, dict) else None
        place = tree.get(home) if isinstance(tree, dict) else None
        if isinstance(given, dict) and isinstance(place, dict) and key in given:
            if name not in place:
                place[name] = given.pop(key)
    return tree


_PATHS = (
    "run.folder",
    "data.store",
    "data.cache",
    "model.weights",
    *(f"stages.{e.section}.init_from" for e in TRAINABLES),
)


def _at_home(tree: Any) -> Any:
    """Write the home folder out where a path begins with ~, which no shell has seen."""
    for key in _PATHS:
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(name), str):
            is_path(key, place[name])
            found = os.path.expanduser(place[name])
            if found.startswith("~"):
                raise ConfigError(f"{key}: {NO_HOME.format(found)}")
            place[name] = found
    return tree


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return ``config`` with other values at some dotted keys, for example ``{"run.seed": 1}``.

    Checked as a file is: raises ConfigError that names the key.
    """
    tree = as_tree(config)
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            below = place.get(section, {})
            if below is None and section == sections[-1]:
                whole = f"{'.'.join(sections)}={{{name}: {value}}}"
                raise ConfigError(f"{key}: there is no {section} yet; set all of it: '{whole}'")
            place = below if isinstance(below, dict) else {}
        if name not in place:
            near = difflib.get_close_matches(key, list(_keys(tree)), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown key {key}{hint}")
        place[name] = value
    found: Config = _build(_at_home(tree), Config, "")
    return found


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def as_tree(config: Config) -> dict[str, Any]:
    """Return the resolved config as nested plain dicts."""
    return dataclasses.asdict(config)


def dump(config: Config) -> str:
    """Return the resolved config as YAML, every default written out; `load` reads it back."""
    return write_yaml(as_tree(config))


def differences(ours: Config, theirs: Config) -> list[str]:
    """Return dotted keys in which two configs differ, with both values."""

    def walk(a: Any, b: Any, prefix: str) -> list[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            return [
                line for k in a for line in walk(a[k], b.get(k), f"{prefix}.{k}" if prefix else k)
            ]
        return [] if a == b else [f"{prefix}: {a!r} here, {b!r} there"]

    return walk(as_tree(ours), as_tree(theirs), "")
