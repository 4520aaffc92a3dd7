"""A run's metrics.jsonl: one line per logged step and per validation, each step once."""

import json
from collections.abc import Mapping
from typing import Any

from pcamx.catalogue import StageId
from pcamx.errors import PcamxError
from pcamx.output import write_text
from pcamx.run.folder import RunFolder

_LARGEST = 2**63


class History:
    """Appends to RUN/metrics.jsonl."""

    def __init__(self, run: RunFolder) -> None:
        self.path = run.history_file

    def add(self, entry: dict[str, Any]) -> None:
        """Append one line; raises PcamxError where the disk refuses."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise PcamxError(
                f"cannot write {self.path}: {error.strerror}; make room, then --resume"
            ) from None

    def forget(self, stage: StageId, after: int) -> None:
        """Drop the lines of ``stage`` past step ``after``: those steps are done again.

        A line that a kill or a full disk cut off goes as well.
        """
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError):
            raise PcamxError(f"{self.path}: cannot be read; move it away") from None
        kept = [line for line in lines if _keeps(line, stage, after)]
        write_text(self.path, "".join(line + "\n" for line in kept))


def _keeps(line: str, stage: StageId, after: int) -> bool:
    try:
        entry = json.loads(line)
        return bool(entry["stage"] != stage or entry["step"] <= after)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def read_history(run: RunFolder) -> list[Mapping[str, Any]]:
    """Return the lines of a run's metrics.jsonl.

    A last line that was cut off by a kill is left out; any other bad line raises PcamxError.
    """
    path = run.history_file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise PcamxError(f"{path}: {reason}; is this the folder of a run?") from None
    found: list[Mapping[str, Any]] = []
    for index, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if isinstance(entry, dict):
                _check(entry)
        except (ValueError, RecursionError):
            if index == len(lines):
                break
            entry = None
        if not isinstance(entry, dict):
            raise PcamxError(
                f"{path}: line {index} is not a JSON object, or has too large a number, or none as "
                "its step; remove it"
            ) from None
        found.append(entry)
    return found


def _check(entry: Mapping[str, Any]) -> None:
    """Raise ValueError where no curve can show it: of no stage or step, or too large a number."""
    if not isinstance(entry.get("stage", 0), int | str) or type(entry.get("step", 0)) is not int:
        raise ValueError
    if any(isinstance(value, int) and abs(value) > _LARGEST for value in entry.values()):
        raise ValueError
