"""Tables of the pages as csv and LaTeX, read back."""

import csv
import html
import io
import re
from typing import Any
from urllib.parse import unquote

import pytest

from pcamx.report.comparison_page import render as render_comparison
from pcamx.report.comparison_rows import Comparison, Gap
from pcamx.report.downloads import csv_link, latex_link
from pcamx.report.page import render
from pcamx.report.rows import Estimate, Group, Row

COLUMNS = {"a": "pointing", "b": "50 % & more_"}
GROUPS = [
    Group("stage 1", (Row("positive CAM", {"a": Estimate(0.5, 0.25, 0.75, 8), "b": Estimate()}),)),
    Group("=cmd", (Row("CAM", {"a": Estimate(-0.125), "b": Estimate(1 / 3, n=2)}, 0.15),)),
]


def read(link: str) -> str:
    kind, _, text = html.unescape(link).partition(",")
    assert kind in ("data:text/csv;charset=utf-8", "data:text/x-tex;charset=utf-8")
    return unquote(text)


def test_csv_by_hand() -> None:
    lines = list(csv.reader(io.StringIO(read(csv_link("map", COLUMNS, GROUPS, True)))))
    assert lines == [
        ["group", "map", "figure", "value", "low", "high", "n"],
        ["stage 1", "positive CAM", "pointing", "0.5", "0.25", "0.75", "8"],
        ["'=cmd", "CAM", "pointing", "-0.125", "", "", ""],
        ["'=cmd", "CAM", "50 % & more_", str(1 / 3), "", "", "2"],
        ["'=cmd", "CAM", "threshold", "0.15", "", "", ""],
    ]
    nameless = [Group("", GROUPS[0].rows)]
    head, line = csv.reader(io.StringIO(read(csv_link("map", {"a": "x"}, nameless, False))))
    assert head[:2] == ["map", "figure"] and line[:3] == ["positive CAM", "x", "0.5"]


def test_latex_by_hand() -> None:
    assert read(latex_link("map", COLUMNS, GROUPS, True)).splitlines() == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"map & pointing & 50 \% \& more\_ & threshold \\",
        r"\midrule",
        r"\multicolumn{4}{l}{stage 1} \\",
        r"\quad positive CAM & 0.500 [0.250, 0.750] & -- &  \\",
        r"\addlinespace",
        r"\multicolumn{4}{l}{=cmd} \\",
        r"\quad CAM & $-$0.125 & 0.333 & 0.15 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_hyphen_in_a_name_is_no_minus_sign() -> None:
    row = Row("demo-2026-11_a", {"a": Estimate(-0.5, -0.75, -0.25, 8)})
    text = read(latex_link("run-1", {"a": "top-5"}, [Group("of-3", (row,))], False))
    assert text.splitlines()[2:7] == [
        r"run-1 & top-5 \\",
        r"\midrule",
        r"\multicolumn{2}{l}{of-3} \\",
        r"\quad demo-2026-11\_a & $-$0.500 [$-$0.750, $-$0.250] \\",
        r"\bottomrule",
    ]


def links(page: str) -> dict[str, str]:
    return {n: read(link) for n, link in re.findall(r'download="([^"]+)" href="([^"]+)"', page)}


def test_every_table_of_the_page_can_be_taken_along() -> None:
    figure = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    maps: dict[str, Any] = {"positive_cam": {"pointing": figure, "threshold": 0.5}}
    classes = {"auroc": figure, "kappa_by_part": {"<&> wrist": figure}}
    stage = {"localization": maps, "classification": classes}
    page = render({"stages": {"1": stage}, "baselines": {}}, [], [])
    found = links(page)
    assert page.count("<table") == page.count('class="take"') == len(found) // 2 > 2
    assert "stage 1,positive CAM,pointing,0.5,0.25,0.75,8" in found["localization.csv"]
    assert "stage 1,AUROC,0.5,0.25,0.75,8" in found["classification.csv"]
    assert "<&> wrist" in found["parts.csv"] and r"<\&> wrist" in found["parts.tex"]


def test_tables_of_twins_and_of_erased_films_have_names_of_their_own() -> None:
    figure = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    basis = dict.fromkeys(("lesion_flips", "erase_blur", "lesion_effect"), figure)
    report: dict[str, Any] = {"stages": {"1": {"basis": basis}}, "baselines": {}}
    compared = render_comparison(Comparison({"one": report, "two": report}, {}), [])
    for page in (render(report, [], []), compared):
        found = links(page)
        assert "lesion" in found["basis-twins.csv"] and "blurred" in found["basis-marked.tex"]
        assert page.count('class="take"') == len(found) // 2


def test_differences_have_their_test() -> None:
    gap = Gap(0.1, -0.05, 0.2, 4, p=0.03, p_of_all=0.5)
    stages: dict[str, Any] = {"stages": {}, "baselines": {}}
    page = render_comparison(
        Comparison({"one": stages, "two": stages}, {"two": {"stage 1": {"auroc": gap}}}), []
    )
    lines = [*csv.DictReader(io.StringIO(links(page)["differences.csv"]))]
    assert lines == [
        {"group": "stage 1", "run": "two", "figure": "AUROC", "value": "0.1", "low": "-0.05"}
        | {"high": "0.2", "n": "4", "p": "0.03", "p_of_all": "0.5"}
    ]
    assert r"+0.100 [$-$0.050, +0.200]" in links(page)["differences.tex"]


@pytest.mark.parametrize(("p", "said"), [(0.0001, "p &lt; 0.001"), (0.0312, "p 0.031")])
def test_p_is_never_0(p: float, said: str) -> None:
    stages: dict[str, Any] = {"stages": {}, "baselines": {}}
    gaps = {"two": {"stage 1": {"auroc": Gap(0.1, 0.0, 0.2, 4, p=p)}}}
    assert said in render_comparison(Comparison({"one": stages, "two": stages}, gaps), [])
