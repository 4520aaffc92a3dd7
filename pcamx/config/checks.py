"""What a value of a config must satisfy."""

from pcamx.errors import PcamxError


class ConfigError(PcamxError):
    """A config file that cannot be used as it stands."""


def in_range(key: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless low <= value <= high."""
    if not low <= value <= high:
        raise ConfigError(f"{key}: {value} is outside [{low:g}, {high:g}]")


def is_path(key: str, value: str) -> None:
    """Raise ConfigError for a text that no file can be named, or none that YAML could keep."""
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ConfigError(f"{key}: {value!r} is no path in UTF-8; rename what it names")


def not_empty(key: str, value: str) -> None:
    """Raise ConfigError for the empty name of a folder."""
    if not value.strip():
        raise ConfigError(f"{key}: names no folder")
