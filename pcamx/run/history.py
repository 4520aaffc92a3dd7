"""A run's metrics.jsonl: one line per logged step and per validation, each step once."""

import json
from pathlib import Path
from typing import Any

from pcamx.errors import PcamxError
from pcamx.output import write_text
from pcamx.types import StageId


class History:
    """Appends to RUN/metrics.jsonl."""

    def __init__(self, run: Path) -> None:
        self.path = run / "metrics.jsonl"

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
    except (ValueError, KeyError, TypeError):
        return False
