"""What an entry says of a measure."""

from dataclasses import dataclass
from typing import Literal

Films = Literal[
    "marked", "normal", "with marker", "abnormal with marker", "every", "abnormal tried", "twins"
]
"""Films that a figure is about; a marker is a letter or a plate."""


Judged = Literal["map", "decision", "faithfulness", "basis"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A figure of report.json with its interval."""

    key: str
    title: str
    meaning: str
    of: Judged
    """What it judges: one map; the classification; one map by the network's own answers; what the
    decision rests on, by films and their twins or with a patch erased."""
    function: str
    """map: (maps [M, H, W], lesions or markers [M, H, W]) > [M, ...], or where ``films`` is normal
    (maps, where the films lie on the canvas). decision: of a `pcamx.metrics.Decisions`.
    faithfulness: see `pcamx.metrics.deletion`. basis: of `pcamx.metrics.basis.Pairs` where
    ``films`` is twins, else of `pcamx.metrics.basis.Erased` by fill; a value per pair or film."""
    value: str = ""
    """map: (what ``function`` gave [M, ...], `pcamx.evaluation.scoring.Tuning`) > [M], or None
    where undefined; left out, the function's own [M]."""
    whole: bool = False
    """map: whether ``value`` is a Statistic of the whole set instead, and takes a
    `pcamx.metrics.Table` of what ``function`` gave."""
    films: Films = "marked"
    unit: str = "share"
    better: Literal["higher", "lower"] = "higher"
    column: str = ""
    """Of films.csv; a figure of the whole set has none."""
    made_of: tuple[str, ...] = ()
    """basis: columns that ``function`` makes a Statistic of the whole set from, instead."""
    shown: Literal["first", "console", "page"] = "page"
    """first: in every table. console: in the terminal's second table. page: in report.html."""
