"""YAML as a run's files have it: strict about keys given twice, numbers as people write them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pcamx.config.checks import ConfigError

_TAG = "tag:yaml.org,2002:"
_NUMBERS = {
    _TAG + "int": re.compile(r"[-+]?(0|[1-9][0-9]*)$"),
    _TAG + "float": re.compile(
        r"([-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
}
"""YAML 1.2's decimals. PyYAML knows 1.1's: 1e-3 is text there, 010 is 8, and 1:30 is 90."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; PyYAML would keep the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key_node, _ in node.value:
            if key_node.tag == _TAG + "merge":
                line = key_node.start_mark.line + 1
                raise ConfigError(f"line {line}: << (merging) is not read; write the keys out")
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"line {line}: key '{key}' is given twice")
            seen.append(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which `_StrictLoader` would read as a number."""


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _NUMBERS]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _StrictLoader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))
    _Dumper.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))


def read_yaml(path: str | Path, expected: str) -> Any:
    """Return what a YAML file holds, in Python's own types; a key given twice is refused.

    Raises ConfigError with the file's name, and with ``expected`` where it cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: {reason}; {expected}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Read a text in YAML; raises ConfigError that begins with ``where``."""
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML lets the last two through: a date that does not exist, brackets 1000 deep.
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def write_yaml(tree: Any) -> str:
    """Return the text of nested plain dicts in their order; `read_yaml` reads it back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def quoted(text: str) -> str:
    """Return a text in YAML's double quotes, on one line, whatever it holds."""
    found = yaml.safe_dump(text, default_style='"', width=10**9, allow_unicode=True)
    return found.strip()


def settings(words: Sequence[str]) -> dict[str, Any]:
    """Return the changes that ``KEY=VALUE`` words ask for, each value read as YAML.

    Raises ConfigError for a word without = and a key given twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ConfigError(f"--set {word}: write KEY=VALUE, for example runtime.batch_size=64")
        if key in found:
            raise ConfigError(f"--set {word}: {key} is given twice")
        found[key] = parse_yaml(value, f"--set {word}")
    return found
