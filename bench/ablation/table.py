"""The tables of an ablation: every cell beside the base, over the seeds that are finished."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.ablation.figures import (
    Gain,
    Level,
    basis_gain,
    correct,
    gain,
    gain_rows,
    level,
    level_rows,
)
from bench.ablation.grid import BASE, LEAST_SEEDS, Cell, Grid, Job
from bench.ablation.segmenter import against_segmenter, rival_rows
from bench.lib import record
from bench.lib.record import Record, Row
from pcamx.catalogue import (
    AUROC,
    CAM,
    DECODER,
    ENERGY,
    MIOU,
    ON_MARKER,
    ON_MARKER_ABNORMAL,
    POINTING,
    POSITIVE_CAM,
    STAGE_1,
    STAGE_2,
    STAGE_3,
    MapKind,
    Trainable,
    measures,
)
from pcamx.compare.differences import out_of_reach
from pcamx.compare.measured import Measured, read_run
from pcamx.output import write_text
from pcamx.report.comparison_rows import SURE
from pcamx.report.numbers import DASH

_FROM_DECODER = f"{DECODER.title}: "
BASIS = {measure.title: measure for measure in measures("basis") if measure.shown == "first"}
LEVELS: dict[str, tuple[str, ...]] = {  # name: where report.json's stage has it
    **{title: ("basis", measure.key) for title, measure in BASIS.items()},
    AUROC.title: ("classification", AUROC.key),
    **{m.title: ("localization", POSITIVE_CAM.key, m.key) for m in (POINTING, MIOU, ENERGY)},
    **{_FROM_DECODER + m.title: ("localization", DECODER.key, m.key) for m in (POINTING, MIOU)},
    **{m.title: ("localization", POSITIVE_CAM.key, m.key) for m in (ON_MARKER, ON_MARKER_ABNORMAL)},
}
DIFFERENCES = {  # of maps; BASIS has the decisions'
    **{m.title: (POSITIVE_CAM.key, m.column) for m in (POINTING, MIOU)},
    **{_FROM_DECODER + m.title: (DECODER.key, m.column) for m in (POINTING, MIOU)},
}


def _place(entry: Trainable, kind: MapKind) -> tuple[str, str]:
    return entry.title, kind.key


STEPS = {  # of the base: a network and its map, and those that it is compared with
    f"{STAGE_1.title}: {POSITIVE_CAM.title}, minus {CAM.title}": (
        _place(STAGE_1, POSITIVE_CAM),
        _place(STAGE_1, CAM),
    ),
    **{
        f"{POSITIVE_CAM.title}: {one.title}, minus {other.title}": (
            _place(one, POSITIVE_CAM),
            _place(other, POSITIVE_CAM),
        )
        for one, other in ((STAGE_2, STAGE_1), (STAGE_3, STAGE_1), (STAGE_3, STAGE_2))
    },
    f"{STAGE_3.title}: {DECODER.title}, minus {POSITIVE_CAM.title}": (
        _place(STAGE_3, DECODER),
        _place(STAGE_3, POSITIVE_CAM),
    ),
}
KEYS = {m.column: m.title for m in measures("map") if m.shown == "first"}
"""Columns of films.csv whose differences are shown, and their names."""
NOTES = (
    "Every figure is of the validation films. Pointing, mIoU, energy and peak on marker are of the "
    "positive CAM of the full film unless the decoder is named; higher is better but for peak on "
    "marker, the share of maps that peak on a letter or a plate, of all films with one and of the "
    "abnormal ones.",
    "Flips, share and falls of p say what the decision rests on: of films drawn twice, the lesion "
    "taken away or put in, a temptation toggled; of marked films, the lesion erased, less another "
    "patch. The temptation's flips and share are better low.",
    "A figure is the mean over the seeds, and in brackets the smallest and the largest seed's.",
    "A difference is the cell's minus the base's at the same stage: film by film, averaged over "
    "the seeds that both have. In square brackets its 95 % bootstrap interval over patients, given "
    "these trainings; in round ones the smallest and the largest seed's difference.",
    f"Bold: every seed, {LEAST_SEEDS} or more, lies on one side of 0, and p over patients is at "
    f"most {SURE} after Holm's correction for all differences of these tables.",
    "Marks 0: stage 3 refuses to train without marks, so the base's row of stage 2 is that cell.",
)


@dataclass(frozen=True, slots=True)
class Line:
    """A cell at one stage."""

    cell: Cell
    stage: Trainable
    seeds: tuple[int, ...]
    levels: Mapping[str, Level]
    gains: dict[str, Gain]

    @property
    def name(self) -> str:
        return f"{self.cell.name}, {self.stage.title}"


Runs = Mapping[str, Mapping[int, Measured]]  # by cell's slug and seed


def write_tables(grid: Grid, done: Sequence[Job], out: Path) -> tuple[Path, Path]:
    """Write ablation.md and ablation.json of the finished runs into ``out``; their paths."""
    found = record.begin("ablation", torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    runs: dict[str, dict[int, Measured]] = {}
    for job in done:
        runs.setdefault(job.cell.slug, {})[job.seed] = read_run(job.folder, job.name)
    lines = {cell.slug: list(_lines(cell, runs)) for cell in grid.cells}
    steps = _steps(list(runs.get(BASE, {}).values()))
    rivals = [
        (cell, rival)
        for cell in grid.cells
        if (rival := against_segmenter(cell, list(runs.get(cell.slug, {}).values())))
    ]
    tests = correct(
        [
            *(line.gains for found_lines in lines.values() for line in found_lines),
            *(gains for _, gains in steps),
            *(rival for _, rival in rivals),
        ]
    )
    for cell in grid.cells:
        found.rows.extend(row for line in lines[cell.slug] for row in _rows(line))
    path, json_file = out / "ablation.md", out / "ablation.json"
    found.rows.extend(row for name, gains in steps for row in gain_rows(BASE, name, gains))
    found.rows.extend(row for cell, rival in rivals for row in rival_rows(cell, rival))
    record.write_json(found, json_file)
    notes = [*NOTES, *out_of_reach(tests), *_provenance(runs), *_missing(grid, runs)]
    head = record.markdown(Record(**_head(found)), "Ablation", notes)
    pages = [*_base_page(lines[BASE], steps), *_rival_page(rivals), *_page(grid, lines)]
    write_text(path, head + "".join(pages))
    return path, json_file


def _steps(base: Sequence[Measured]) -> list[tuple[str, dict[str, Gain]]]:
    """What each step of the method adds, of the base run."""
    found = []
    for name, (place, minus) in STEPS.items():
        gains = {title: gain(base, base, place, key, minus) for key, title in KEYS.items()}
        if kept := {title: gain for title, gain in gains.items() if gain}:
            found.append((name, kept))
    return found


def _rival_page(rivals: Sequence[tuple[Cell, Mapping[str, Level | Gain]]]) -> Iterator[str]:
    """What stage 3's decoder gains by the labels of all films and by the attention."""
    if rivals:
        yield "\n## Stage 3's decoder against a segmenter trained on the same marks alone\n\n"
        columns = dict.fromkeys(name for _, found in rivals for name in found)
        yield from _table(("",), columns, [((cell.name,), found) for cell, found in rivals])


def _head(found: Record) -> dict[str, Any]:
    return {n: getattr(found, n) for n in ("device", "versions", "commit", "command")}


def _lines(cell: Cell, runs: Runs) -> Iterator[Line]:
    mine, base = runs.get(cell.slug, {}), runs.get(BASE, {})
    both = [seed for seed in mine if seed in base] if cell.slug != BASE else []
    for stage in cell.stages if mine else ():
        levels = {
            name: level(list(mine.values()), ("stages", str(stage.key), *keys))
            for name, keys in LEVELS.items()
        }
        ones, firsts = ([of[seed] for seed in both] for of in (mine, base))
        gains = {
            name: basis_gain(ones, firsts, stage.title, measure) for name, measure in BASIS.items()
        } | {
            name: gain(ones, firsts, (stage.title, where), key)
            for name, (where, key) in DIFFERENCES.items()
        }
        yield Line(
            cell,
            stage,
            tuple(mine),
            {name: level for name, level in levels.items() if level},
            {name: gain for name, gain in gains.items() if gain},
        )


def _rows(line: Line) -> Iterator[Row]:
    yield Row(line.cell.group, line.name, "seeds", len(line.seeds), "")
    yield from level_rows(line.cell.group, line.name, line.levels)
    gains = {f"{name}, minus base": gain for name, gain in line.gains.items()}
    yield from gain_rows(line.cell.group, line.name, gains)


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


def _base_page(lines: Sequence[Line], steps: list[tuple[str, dict[str, Gain]]]) -> Iterator[str]:
    """The base's stages, and what each adds to the one before."""
    if not lines:
        return
    yield "\n## The stages\n\n"
    heads = [((line.name, str(len(line.seeds))), line.levels) for line in lines]
    yield from _table(("", "seeds"), LEVELS, heads)
    yield "\n"
    titles = dict.fromkeys(KEYS.values())
    yield from _table(("difference",), titles, [((name,), gains) for name, gains in steps])


def _page(grid: Grid, lines: Mapping[str, Sequence[Line]]) -> Iterator[str]:
    """A table of figures and one of differences for each group, the base's rows first."""
    base = {line.stage.title: line for line in lines[BASE]}
    groups = dict.fromkeys(cell.group for cell in grid.cells if cell.slug != BASE)
    for group in groups:
        own = [line for cell in grid.cells if cell.group == group for line in lines[cell.slug]]
        if not own:
            continue
        stages = sorted({line.stage.title for line in own})
        shown = [*(base[stage] for stage in stages if stage in base), *own]
        yield f"\n## {group}\n\n"
        yield from _table(
            ("", "seeds"),
            LEVELS,
            [((line.name, str(len(line.seeds))), line.levels) for line in shown],
        )
        if gained := [((line.name,), line.gains) for line in own if line.gains]:
            yield "\n"
            yield from _table(("minus base",), [*BASIS, *DIFFERENCES], gained)


def _table(
    first: tuple[str, ...],
    columns: Iterable[str],
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
