"""Stage 3's decoder beside a segmenter that had the same marks and nothing else."""

from collections.abc import Iterator, Mapping, Sequence

from bench.ablation.figures import Gain, Level, gain, gain_rows, level, level_rows
from bench.ablation.grid import Cell
from bench.lib.record import Row
from pcamx.compare.measured import Measured
from pcamx.types import SEGMENTER


def against_segmenter(cell: Cell, runs: Sequence[Measured]) -> dict[str, Level | Gain]:
    """Both decoders' figures and their paired difference; empty unless the cell trains both."""
    if not runs or not {3, SEGMENTER} <= set(cell.train):
        return {}
    found: dict[str, Level | Gain | None] = {}
    for key, name in (("pointing", "pointing"), ("miou", "mIoU")):
        place = ("localization", "decoder", key)
        found[f"stage 3: {name}"] = level(runs, ("stages", "3", *place))
        found[f"segmenter: {name}"] = level(runs, ("baselines", str(SEGMENTER), *place))
        found[f"{name}, difference"] = gain(
            runs, runs, ("stage 3", "decoder"), key, (str(SEGMENTER), "decoder")
        )
    return {name: figure for name, figure in found.items() if figure}


def rival_rows(cell: Cell, found: Mapping[str, Level | Gain]) -> Iterator[Row]:
    """The rows of a record that say what `against_segmenter` found."""
    case = "stage 3 against the segmenter"
    levels = {name: figure for name, figure in found.items() if isinstance(figure, Level)}
    gains = {name: figure for name, figure in found.items() if isinstance(figure, Gain)}
    yield from level_rows(case, cell.name, levels)
    yield from gain_rows(case, cell.name, gains)
