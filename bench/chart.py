"""`python -m bench.chart RECORD.json`: times by size as a picture, drawn from a record alone.

For machines without matplotlib: the record of a bench is drawn elsewhere.
"""

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.lib.record import Record, Row, read_json
from pcamx.errors import PcamxError
from pcamx.output import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = "counted bytes at the copy's speed"
HOW = "python -m bench.chart RECORD.json"
COLOURS = ("#D55E00", "#0072B2", "#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of Okabe and Ito's colour-blind safe palette, in the order of the impls."""


def draw(record: Record) -> "Figure":
    """Draw a panel an operation: median time by size with the middle 60 %, a line an impl.

    The dashed line is the counted bytes at the copy's bandwidth. Raises ImportError without
    matplotlib, PcamxError where the record has no times.
    """
    from matplotlib.figure import Figure

    times = [row for row in record.rows if row.metric == "time p50"]
    if not times:
        raise PcamxError("the record holds no times to draw")
    operations = list(dict.fromkeys(row.case.split(", ")[0] for row in times))
    colours = dict(zip(dict.fromkeys(row.impl for row in times), COLOURS, strict=False))
    columns = min(3, len(operations))
    rows = -(-len(operations) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.9), layout="constrained")
    for i, operation in enumerate(operations):
        axes = figure.add_subplot(rows, columns, i + 1)
        of_it = [row for row in record.rows if row.case.split(", ")[0] == operation]
        _panel(axes, operation, of_it, colours)
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    figure.legend(
        list(lines.values()), list(lines), loc="outside lower center", ncols=4, fontsize=8
    )
    figure.suptitle(f"{record.device}\ncommit {(record.commit or 'unknown')[:12]}", fontsize=9)
    return figure


def write(record: Record, path: Path) -> Path:
    """Write `draw`'s figure as PNG, whole or not at all. Raises as `draw`."""
    figure = draw(record)

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_bytes(path, buffer.getvalue())
    return path


def _panel(axes: "Axes", operation: str, rows: Sequence[Row], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    cases = list(dict.fromkeys(row.case for row in rows))
    found = {(row.case, row.impl, row.metric, row.ratio_to): row.value for row in rows}
    floor = {
        i: found[case, impl, "time p50", None] * found[case, impl, "bandwidth", "copy"]
        for i, case in enumerate(cases)
        for impl in colours
        if (case, impl, "bandwidth", "copy") in found
    }
    axes.plot(list(floor), list(floor.values()), "_--", color="#888888", ms=12, lw=1, label=FLOOR)
    for impl, colour in colours.items():
        at = [i for i, case in enumerate(cases) if (case, impl, "time p50", None) in found]
        if at:
            low, middle, high = (
                [found[cases[i], impl, f"time p{q}", None] for i in at] for q in (20, 50, 80)
            )
            axes.plot(at, middle, "o-", color=colour, ms=3, lw=1.2, label=impl)
            axes.vlines(at, low, high, color=colour, lw=3, alpha=0.35)
    axes.set_xticks(range(len(cases)), [_label(case) for case in cases])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("ms", fontsize=8)
    axes.set_title(operation, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", alpha=0.25)


def _label(case: str) -> str:
    """Batch and pixels, the second and third part of a case's name, on two lines."""
    return "\n".join(case.split(", ")[1:3])


def main() -> int:
    """Draw the record that is named."""
    made = argparse.ArgumentParser(prog="python -m bench.chart", description=__doc__)
    made.add_argument("record", type=Path, metavar="RECORD.json")
    path = made.parse_args().record
    try:
        print(write(read_json(path), path.with_suffix(".png")))
    except PcamxError as error:
        print(f"bench.chart: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
