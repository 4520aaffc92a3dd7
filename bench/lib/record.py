"""What every bench writes: rows of figures with device, versions, commit and command beside them.

{"device", "versions", "commit", "command",
 "rows": [{"case", "impl", "metric", "value", "unit", "ratio_to"}]}
"""

import dataclasses
import datetime
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.lib.command import RESULTS, command_line
from pcamx import provenance
from pcamx.errors import PcamxError
from pcamx.output import write_text


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``ratio_to`` names the impl that ``value`` is a ratio to, or None."""

    case: str  # operation and sizes: what the impls of a table have in common
    impl: str
    metric: str
    value: float
    unit: str
    ratio_to: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.case}, {self.impl}: {self.metric} is {self.value}")


@dataclass(frozen=True, slots=True)
class Record:
    """The rows of one run of one bench, and where they come from."""

    device: str
    versions: dict[str, str]
    commit: str | None
    command: str
    rows: list[Row] = field(default_factory=list)

    def find(self, case: str, impl: str, metric: str) -> float:
        """Return the figure itself, not a ratio. Raises KeyError where it was not measured."""
        for row in self.rows:
            if (row.case, row.impl, row.metric, row.ratio_to) == (case, impl, metric, None):
                return row.value
        raise KeyError(f"{case}, {impl}: {metric}")


def begin(bench: str, device: torch.device, extra: dict[str, str] | None = None) -> Record:
    """Begin a record of this run; ``extra`` adds packages (short name: distribution) to versions.

    To be called before anything is written: a new file in the tree counts as a change.
    """
    name = provenance.device_name(device)
    if device.type == "cuda":
        name += f", driver {provenance.driver() or 'unknown'}, CUDA {torch.version.cuda}"
    else:
        name += f", {torch.get_num_threads()} used"
    return Record(name, provenance.versions(extra), provenance.commit(), command_line(bench))


def outputs(bench: str, record: Record, markdown: Path | None, json_file: Path | None) -> Path:
    """Return where the tables go; to be asked before the work, so that no result is lost at its
    end.

    The default is bench/results/<device>_<yyyy-mm>_<bench>.md. Raises PcamxError where a folder is
    missing or not writable, or the file holds the results of another command.
    """
    if markdown is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        markdown = RESULTS / f"{_slug(record.device)}_{datetime.date.today():%Y-%m}_{bench}.md"
    for path in (markdown, json_file):
        if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise PcamxError(f"{path}: cannot be written; name a file in a folder that can")
    if markdown.exists() and _code(record.command) not in markdown.read_text().splitlines():
        raise PcamxError(
            f"{markdown}: holds the results of another command; name another file with --markdown"
        )
    return markdown


def write_json(record: Record, path: Path) -> None:
    """Write the record, whole or not at all. Raises PcamxError if it cannot."""
    text = json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Record:
    """Read what `write_json` wrote. Raises PcamxError that names the file."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{**tree, "rows": [Row(**row) for row in tree["rows"]]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PcamxError(f"{path}: not a record of a bench: {error}") from None


def write_markdown(record: Record, path: Path, title: str, notes: Sequence[str] = ()) -> None:
    """Write `markdown`'s text, whole or not at all. Raises PcamxError if it cannot."""
    write_text(path, markdown(record, title, notes))


def markdown(record: Record, title: str, notes: Sequence[str] = ()) -> str:
    """Return the record as a page: where it comes from, the notes, then a table a case.

    Impls are its rows, metrics its columns, in the order in which they were measured; three
    metrics "x p50", "x p20", "x p80" share the column "x p50 (p20-p80)".
    """
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    head = [
        f"# {title}",
        "",
        f"{record.device}. {versions}. Commit {record.commit or 'unknown: not run from git'}.",
        "",
        _code(record.command),
        "",
        *(f"- {note}" for note in notes),
    ]
    cases = dict.fromkeys(row.case for row in record.rows)
    tables = [_table(case, [row for row in record.rows if row.case == case]) for case in cases]
    return "\n".join(head).rstrip() + "\n" + "".join(tables)


def number(value: float) -> str:
    """Return three significant digits, all of whole numbers; 12,345, 1.23, 0.00123, 1.2e-07."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1e-3 else f"{value:#.3g}".removesuffix(".")


def _table(case: str, rows: Sequence[Row]) -> str:
    cells: dict[tuple[str, str], str] = {}
    for row in rows:
        if not row.metric.endswith((" p20", " p80")):
            cells[row.impl, _heading(row)] = number(row.value)
    for low, high in zip(_quantile(rows, " p20"), _quantile(rows, " p80"), strict=True):
        cells[low.impl, _heading(low)] += f" ({number(low.value)}-{number(high.value)})"
    headings = dict.fromkeys(heading for _, heading in cells)
    lines = [["", *headings], ["---"] * (1 + len(headings))]
    for impl in dict.fromkeys(row.impl for row in rows):
        lines.append([impl, *(cells.get((impl, heading), "") for heading in headings)])
    return f"\n## {case}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _quantile(rows: Sequence[Row], which: str) -> list[Row]:
    return [row for row in rows if row.metric.endswith(which)]


def _heading(row: Row) -> str:
    metric = re.sub(r" p[258]0$", " p50 (p20-p80)", row.metric)
    unit = f", {row.unit}" if row.unit else ""
    return f"{metric}{unit}" + (f" of {row.ratio_to}" if row.ratio_to else "")


def _code(command: str) -> str:
    return f"    {command}"


def _slug(device: str) -> str:
    """File name of a device: h100_80gb_hbm3; every processor is cpu."""
    if ", driver " not in device:
        return "cpu"
    return re.sub(r"\W+", "_", device.split(",")[0].lower().removeprefix("nvidia ")).strip("_")
