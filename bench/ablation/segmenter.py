"""Stage 3's decoder beside a segmenter that had the same marks and nothing else."""

from collections.abc import Iterator, Mapping, Sequence

from bench.ablation.figures import Gain, Level, gain, gain_rows, level, level_rows
from bench.ablation.grid import Cell
from bench.lib.record import Row
from pcamx.catalogue import DECODER, MIOU, POINTING, SEGMENTER, STAGE_3
from pcamx.compare.measured import Measured


def against_segmenter(cell: Cell, runs: Sequence[Measured]) -> dict[str, Level | Gain]:
    """Return both decoders' figures and paired difference; empty unless the cell trains both."""
    if not runs or not {STAGE_3.key, SEGMENTER.key} <= set(cell.train):
        return {}
    found: dict[str, Level | Gain | None] = {}
    for measure in (POINTING, MIOU):
        place = ("localization", DECODER.key, measure.key)
        one, other = STAGE_3, SEGMENTER
        found[f"{one.title}: {measure.title}"] = level(runs, ("stages", str(one.key), *place))
        found[f"{other.title}: {measure.title}"] = level(
            runs, ("baselines", str(other.key), *place)
        )
        found[f"{measure.title}, difference"] = gain(
            runs, runs, (one.title, DECODER.key), measure.column, (other.title, DECODER.key)
        )
    return {name: figure for name, figure in found.items() if figure}


def rival_rows(cell: Cell, found: Mapping[str, Level | Gain]) -> Iterator[Row]:
    """Return the rows of a record that say what `against_segmenter` found."""
    case = f"{STAGE_3.title} against the {SEGMENTER.title}"
    levels = {name: figure for name, figure in found.items() if isinstance(figure, Level)}
    gains = {name: figure for name, figure in found.items() if isinstance(figure, Gain)}
    yield from level_rows(case, cell.name, levels)
    yield from gain_rows(case, cell.name, gains)
