"""The tables of an ablation: every cell beside the base, over the seeds that are finished."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from bench import record
from bench.ablation_grid import BASE, LEAST_SEEDS, Cell, Grid, Job
from bench.record import Record, Row
from pcamx.checkpoint import write_text
from pcamx.compare.differences import difference
from pcamx.compare.measured import Measured, read_run
from pcamx.report.rows import DASH, number

LEVELS = {  # name: where report.json's stage has it
    "AUROC": ("classification", "auroc"),
    "pointing": ("localization", "positive_cam", "pointing"),
    "mIoU": ("localization", "positive_cam", "miou"),
    "energy": ("localization", "positive_cam", "energy"),
    "decoder: pointing": ("localization", "decoder", "pointing"),
    "decoder: mIoU": ("localization", "decoder", "miou"),
    "peak on letter": ("localization", "positive_cam", "on_marker"),
}
DIFFERENCES = {
    "pointing": ("positive_cam", "pointing"),
    "mIoU": ("positive_cam", "miou"),
    "decoder: pointing": ("decoder", "pointing"),
    "decoder: mIoU": ("decoder", "miou"),
}
NOTES = (
    "Every figure is of the validation films. Pointing, mIoU, energy and peak on letter are of the "
    "positive CAM of the full film unless the decoder is named; higher is better but for peak on "
    "letter, the share of maps that peak on the side marker.",
    "A figure is the mean over the seeds, and in brackets the smallest and the largest seed's.",
    "A difference is the cell's minus the base's at the same stage: film by film, averaged over "
    "the seeds that both have. In square brackets its 95 % bootstrap interval over patients, given "
    "these trainings; in round ones the smallest and the largest seed's difference.",
    f"Bold: the interval and every seed, {LEAST_SEEDS} or more, lie on one side of 0. Nothing is "
    "corrected for the number of comparisons.",
    "Marks 0: stage 3 refuses to train without marks, so the base's row of stage 2 is that cell.",
)


@dataclass(frozen=True, slots=True)
class Level:
    """A figure over the seeds."""

    mean: float
    low: float
    high: float

    def text(self) -> str:
        spread = f" ({number(self.low)} to {number(self.high)})" if self.low < self.high else ""
        return number(self.mean) + spread


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference to the base: its interval over patients, its range over seeds."""

    value: float
    interval: tuple[float, float] | None
    seeds: tuple[float, float]
    count: int

    @property
    def clear(self) -> bool:
        """Whether interval and seeds, of which there are enough, all lie on one side of 0."""
        ends = [*(self.interval or (0.0,)), *self.seeds]
        return self.count >= LEAST_SEEDS and bool(min(ends) > 0 or max(ends) < 0)

    def text(self) -> str:
        mark = "**" if self.clear else ""
        interval = ", ".join(f"{end:+.3f}" for end in self.interval or ())
        low, high = self.seeds
        seeds = f" ({low:+.3f} to {high:+.3f})" if low < high else ""
        return f"{mark}{self.value:+.3f}{mark} [{interval or DASH}]{seeds}"


@dataclass(frozen=True, slots=True)
class Line:
    """A cell at one stage."""

    cell: Cell
    stage: int
    seeds: tuple[int, ...]
    levels: Mapping[str, Level]
    gains: Mapping[str, Gain]

    @property
    def name(self) -> str:
        return f"{self.cell.name}, stage {self.stage}"


Runs = Mapping[str, Mapping[int, Measured]]  # by cell's slug and seed


def write_tables(grid: Grid, done: Sequence[Job], out: Path) -> tuple[Path, Path]:
    """Write ablation.md and ablation.json of the finished runs into ``out``; their paths."""
    found = record.begin("ablation", torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    runs: dict[str, dict[int, Measured]] = {}
    for job in done:
        runs.setdefault(job.cell.slug, {})[job.seed] = read_run(job.folder, job.name)
    lines = {cell.slug: list(_lines(cell, runs)) for cell in grid.cells}
    for cell in grid.cells:
        found.rows.extend(row for line in lines[cell.slug] for row in _rows(line))
    path, json_file = out / "ablation.md", out / "ablation.json"
    record.write_json(found, json_file)
    notes = [*NOTES, *_provenance(runs), *_missing(grid, runs)]
    head = record.markdown(Record(**_head(found)), "Ablation", notes)
    write_text(path, head + "".join(_page(grid, lines)))
    return path, json_file


def _head(found: Record) -> dict[str, Any]:
    return {n: getattr(found, n) for n in ("device", "versions", "commit", "command")}


def _lines(cell: Cell, runs: Runs) -> Iterator[Line]:
    mine, base = runs.get(cell.slug, {}), runs.get(BASE, {})
    both = [seed for seed in mine if seed in base] if cell.slug != BASE else []
    for stage in cell.train if mine else ():
        levels = {name: _level(list(mine.values()), stage, keys) for name, keys in LEVELS.items()}
        gains = {
            name: _gain([mine[s] for s in both], [base[s] for s in both], stage, *place)
            for name, place in DIFFERENCES.items()
        }
        yield Line(
            cell,
            stage,
            tuple(mine),
            {name: level for name, level in levels.items() if level},
            {name: gain for name, gain in gains.items() if gain},
        )


def _level(runs: Sequence[Measured], stage: int, keys: Sequence[str]) -> Level | None:
    """None where the figure is undefined for any of the seeds."""
    values = []
    for run in runs:
        found: Any = run.report["stages"][str(stage)]
        for key in (*keys, "value"):
            found = found.get(key) if isinstance(found, dict) else None
        if found is None:
            return None
        values.append(float(found))
    return Level(fmean(values), min(values), max(values))


def _gain(
    ones: Sequence[Measured], firsts: Sequence[Measured], stage: int, name: str, key: str
) -> Gain | None:
    if not ones:
        return None
    place = (f"stage {stage}", name, key)
    found = difference([r.films for r in ones], [r.films for r in firsts], *place)
    single = [
        difference([one.films], [first.films], *place)
        for one, first in zip(ones, firsts, strict=True)
    ]
    values = [d.value for d in single if d is not None and d.value is not None]
    if found is None or found.value is None or len(values) != len(ones):
        return None
    low, high = found.low, found.high
    interval = None if low is None or high is None else (low, high)
    return Gain(found.value, interval, (min(values), max(values)), len(values))


def _rows(line: Line) -> Iterator[Row]:
    def row(metric: str, value: float) -> Row:
        return Row(line.cell.group, line.name, metric, value, "")

    yield row("seeds", len(line.seeds))
    for name, level in line.levels.items():
        yield row(name, level.mean)
        yield row(f"{name}, smallest seed", level.low)
        yield row(f"{name}, largest seed", level.high)
    for name, gain in line.gains.items():
        yield row(f"{name}, minus base", gain.value)
        if gain.interval:
            yield row(f"{name}, minus base, low", gain.interval[0])
            yield row(f"{name}, minus base, high", gain.interval[1])
        yield row(f"{name}, minus base, smallest seed", gain.seeds[0])
        yield row(f"{name}, minus base, largest seed", gain.seeds[1])


def _provenance(runs: Runs) -> Iterator[str]:
    """What the runs were measured and trained with; more than one of a kind is said."""
    reports = [run.report for seeds in runs.values() for run in seeds.values()]
    stages = [stage for report in reports for stage in report["stages"].values()]
    commits = [str(report.get("commit")) for report in reports]
    places = [f"{stage.get('device')} (ranks: {stage.get('ranks')})" for stage in stages]
    yield f"Evaluated at commit {', '.join(dict.fromkeys(commits))}."
    yield f"Trained on {', '.join(dict.fromkeys(places))}."


def _missing(grid: Grid, runs: Runs) -> Iterator[str]:
    lack = [
        f"{cell.name} ({', '.join(f'seed {s}' for s in left)})"
        for cell in grid.cells
        if (left := [s for s in grid.seeds if s not in runs.get(cell.slug, {})])
    ]
    if lack:
        yield f"Not finished, and not in these tables: {', '.join(lack)}."


def _page(grid: Grid, lines: Mapping[str, Sequence[Line]]) -> Iterator[str]:
    """A table of figures and one of differences for each group, the base's rows first."""
    base = {line.stage: line for line in lines[BASE]}
    groups = dict.fromkeys(cell.group for cell in grid.cells)
    for group in groups:
        own = [line for cell in grid.cells if cell.group == group for line in lines[cell.slug]]
        if not own:
            continue
        stages = sorted({line.stage for line in own}) if group != BASE else []
        shown = [*(base[stage] for stage in stages if stage in base), *own]
        yield f"\n## {group}\n\n"
        yield from _table(
            ("", "seeds"),
            LEVELS,
            [((line.name, str(len(line.seeds))), line.levels) for line in shown],
        )
        if gained := [((line.name,), line.gains) for line in own if line.gains]:
            yield "\n"
            yield from _table(("minus base",), DIFFERENCES, gained)


def _table(
    first: tuple[str, ...],
    columns: Mapping[str, object],
    lines: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]],
) -> Iterator[str]:
    """Rows of Markdown; a column that no line has a figure for is left out."""
    kept = [name for name in columns if any(name in figures for _, figures in lines)]
    rows = [[*first, *kept], ["---"] * (len(first) + len(kept))]
    for head, figures in lines:
        cells = (figures[name].text() if name in figures else DASH for name in kept)
        rows.append([*(text.replace("|", "\\|") for text in head), *cells])
    for row in rows:
        yield f"| {' | '.join(row)} |\n"
