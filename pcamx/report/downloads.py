"""A page's tables as csv and LaTeX: links that hold the file, since a page loads nothing."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from pcamx.data.csv_files import csv_text
from pcamx.output import readable
from pcamx.report.comparison_rows import Gap
from pcamx.report.rows import Group, Row

_NUMBERS = ("value", "low", "high", "n")
_TESTS = ("p", "p_of_all")
_THRESHOLD = "threshold"
_ESCAPED = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
}


def csv_link(
    first: str, columns: Mapping[str, str], groups: Sequence[Group], threshold: bool
) -> str:
    """Return a table as a data URI of csv, a line for each figure, with all its digits.

    ``first`` is the title of the rows' names and ``columns`` are the figures' titles by key. A
    group's title stands before each of its rows; that of a single nameless group does not.
    """
    compares = any(isinstance(f, Gap) for _, row in _rows(groups) for f in row.figures.values())
    numbers = (*_NUMBERS, *_TESTS) if compares else _NUMBERS
    named = any(group.title for group in groups)
    lines = []
    for group, row in _rows(groups):
        start = [group.title, row.name] if named else [row.name]
        for key, title in columns.items():
            figure = row.figures[key]
            if figure.value is not None:
                found = (getattr(figure, name) for name in numbers)
                lines.append([*start, title, *("" if x is None else x for x in found)])
        if threshold and row.threshold is not None:
            lines.append([*start, _THRESHOLD, row.threshold, *[""] * (len(numbers) - 1)])
    head = [*(["group"] if named else []), first, "figure", *numbers]
    return _link("text/csv", csv_text(head, lines))


def latex_link(
    first: str, columns: Mapping[str, str], groups: Sequence[Group], threshold: bool
) -> str:
    """Return a table as a data URI of LaTeX, as the page shows it; needs booktabs.

    Parameters as those of `csv_link`.
    """
    titles = [first, *columns.values(), *([_THRESHOLD] if threshold else [])]
    lines = [_line(map(_escaped, titles)), r"\midrule"]
    for group in groups:
        if group.title:
            wide = rf"\multicolumn{{{len(titles)}}}{{l}}{{{_escaped(group.title)}}} \\"
            lines += [*([r"\addlinespace"] if len(lines) > 2 else []), wide]
        for row in group.rows:
            figures = (row.figures[key] for key in columns)
            cells = [f"{figure.text()} {figure.interval()}".strip() for figure in figures]
            if threshold:
                cells.append("" if row.threshold is None else f"{row.threshold:.2f}")
            start = (r"\quad " if group.title else "") + _escaped(row.name)
            lines.append(_line([start, *map(_figure, cells)]))
    places = "l" + "r" * (len(titles) - 1)
    body = "\n".join([r"\toprule", *lines, r"\bottomrule"])
    return _link("text/x-tex", f"\\begin{{tabular}}{{{places}}}\n{body}\n\\end{{tabular}}\n")


def _rows(groups: Sequence[Group]) -> Iterator[tuple[Group, Row]]:
    yield from ((group, row) for group in groups for row in group.rows)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _figure(text: str) -> str:
    """Of a figure's cell; in a name a hyphen before a digit is no minus sign."""
    return re.sub(r"-(?=\d)", "$-$", _escaped(text))


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def _link(kind: str, text: str) -> str:
    return f"data:{kind};charset=utf-8,{quote(readable(text))}"
