"""What people see: terminal, curves, pictures and the page."""

import copy
import json
import re
import resource
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from pcamx.catalogue import SEGMENTER, TRAINABLES, Loss
from pcamx.errors import PcamxError
from pcamx.metrics import temperature
from pcamx.report import console, html, numbers, pace, page, rows, sentences, tables
from pcamx.report.figures import curves, film_figure
from pcamx.report.figures.film_figure import Panel
from pcamx.run.folder import RunFolder
from pcamx.run.history import read_history

MORE = ("relevance_rank", "pxap", "maxboxacc_v2", "dice", "miou_otsu", "false_activation")
HOSTILE = 'hand/<script>alert("x")</script>&\'$_{1}.png'


def estimate(value: float | None, n: int = 97) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    return {"value": value, "low": value - 0.0123, "high": value + 0.0234, "n": n}


def localization(value: float | None) -> dict[str, Any]:
    figures = [None] * 3 if value is None else [value, value / 2, value / 3]
    names = ("pointing", "energy", "miou")
    found: dict[str, Any] = {n: estimate(f) for n, f in zip(names, figures, strict=True)}
    more = {n: estimate(value and value + i / 1000, 97) for i, n in enumerate(MORE, 1)}
    pointing = (None, value and value + 0.02, value and value + 0.03)
    sizes = zip(("small", "medium", "large"), pointing, strict=True)
    by_size = {size: {"pointing": estimate(f, 40), "energy": None} for size, f in sizes}
    thresholds = {"threshold": 0.35, "threshold_tuned": value is not None}
    return found | more | thresholds | {"by_size": by_size, "activation_threshold": 7.5}


@pytest.fixture
def report() -> dict[str, Any]:
    def classification(value: float) -> dict[str, Any]:
        kappas = {"WRIST": estimate(value - 0.2, 31), "": estimate(None)}
        figures = {"auroc": estimate(value, 612), "accuracy": estimate(value - 0.1, 612)}
        more = {"sensitivity": estimate(value - 0.15, 200), "brier": estimate(0.1, 612)}
        error = {"value": 0.04, "low": None, "high": None, "n": 612}
        figures |= {"kappa": estimate(value - 0.3, 402), "calibration_error": error}
        return figures | more | {"kappa_by_part": kappas}

    maps = {"cam": localization(0.2468), "positive_cam": localization(0.3579)}
    centre = localization(0.1111)
    return {
        "format": 1,
        "stages": {
            "1": {
                "classification": classification(0.8135),
                "localization": maps,
                "seconds": 412.4,
                "epochs": 30,
                "ranks": 2,
            },
            "3": {
                "classification": classification(0.8642),
                "localization": maps | {"decoder": localization(0.7531)},
                "seconds": 3725.0,
                "epochs": 40,
                "ranks": 2,
            },
        },
        "baselines": {
            "centre": {"localization": {m: centre for m in ("cam", "positive_cam", "decoder")}},
            "untrained": {
                "classification": classification(0.5031),
                "localization": {"cam": localization(None)},
            },
        },
        "device": "A device <b>",
        "commit": "0123abc",
        "data": {"store": "stores/<i>", "splits": {"valid": {"films": 612, "marked": 97}}},
        "versions": {"torch": "2.13.0"},
        "config": {"run": {"folder": "</pre><script>"}},
        "command": "pcamx evaluate runs/a",
        "created": "2026-01-02T03:04:05+00:00",
    }


@pytest.fixture
def metrics() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(0, 50, 10):
        losses = {"l1": 0.7 - step / 100, "l2": 0.6, "l3": 0.1, "loss": 1.2}
        shares = {"p": 0.6, "lam": 0.3, "area": 0.2, "flat": 0}
        line = {"stage": 3, "kind": "train", "epoch": 1, "step": step, **losses, **shares}
        lines.append(line)
    valid = {"stage": 3, "kind": "valid", "epoch": 1, "step": 50, "auroc": 0.8, "accuracy": None}
    return [*lines, valid]


def panel(title: str = "hand/a.png", *, hits: dict[str, bool] | None = None) -> Panel:
    rng = np.random.default_rng(0)
    image_HW = rng.integers(0, 256, (32, 48), dtype=np.uint8)
    map_HW = np.zeros((32, 48), np.float32)
    map_HW[5:9, 10:14] = 0.5
    map_HW[7, 12] = 1.0
    lesion_HW = np.zeros((32, 48), np.uint8)
    lesion_HW[20:26, 30:36] = 1
    flat_HW = np.ones((32, 48), np.float32)
    maps = {"CAM": map_HW, "decoder": flat_HW}
    hits = {"CAM": True, "decoder": False} if hits is None else hits
    return Panel(title, "hand", image_HW, maps, lesion_HW, hits, {"stage 1": 0.8125})


class Page(HTMLParser):
    """Tags with their attributes, text outside style, and whether tags are balanced."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        elif self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# The page


def test_hostile_names_stay_text(report: dict[str, Any], metrics: list[dict[str, Any]]) -> None:
    text = page.render(report, metrics, [panel(HOSTILE)])
    parsed = Page(text)
    assert not parsed.open
    assert not parsed.all("script") and all(set(bar) == {"style"} for bar in parsed.all("i"))
    assert HOSTILE in parsed.text
    assert "A device <b>" in parsed.text and "</pre><script>" in parsed.text
    assert any(HOSTILE in (image["alt"] or "") for image in parsed.all("img"))


def test_a_path_that_is_not_utf_8_is_written(report: dict[str, Any], tmp_path: Path) -> None:
    report["data"]["store"] = "stores/st_\udce9"
    report["stages"]["1"]["classification"]["kappa_by_part"]["H\udce9"] = estimate(0.5)
    page.write_page(report, [], [], tmp_path / "report.html")
    assert r"evaluation of stores/st_\udce9" in (tmp_path / "report.html").read_text("utf-8")


def test_page_needs_nothing_from_outside(
    report: dict[str, Any], metrics: list[dict[str, Any]]
) -> None:
    parsed = Page(page.render(report, metrics, [panel()]))
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            taken = ("#", "data:image/", "data:text/")
            assert (attributes.get(name) or "#").startswith(taken)
        assert not any(name.startswith("on") for name in attributes)
    styles = "".join(a.get("style") or "" for _, a in parsed.tags) + parsed.style
    assert all(target.startswith("#") for target in re.findall(r"url\((.)", styles))
    assert "@import" not in styles
    assert parsed.all("img") and all(image["alt"] for image in parsed.all("img"))
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_page_shows_the_reports_figures(
    report: dict[str, Any], metrics: list[dict[str, Any]]
) -> None:
    text = page.render(report, metrics, [panel()])
    shown = [float(value) for value in re.findall(r'<data value="([^"]*)">', text)]

    def values(part: Any) -> list[float]:
        if not isinstance(part, dict):
            return []
        own = [part["value"]] if part.get("value") is not None else []
        own += [part["threshold"]] if "threshold" in part else []
        return own + [value for below in part.values() for value in values(below)]

    expected = copy.deepcopy(report)
    maps = expected["baselines"]["centre"]["localization"]
    expected["baselines"]["centre"]["localization"] = {"cam": maps["cam"]}  # shown once
    wanted = values(expected["stages"]) + values(expected["baselines"])
    assert sorted(shown) == sorted(wanted)
    assert '<data value="0.7531">0.753</data>' in text
    assert "[0.741, 0.776]" in text
    parsed = Page(text)
    assert "612 films of 402 studies" in parsed.text
    assert "97 films with a marked lesion" in parsed.text
    assert "6 min 52 s for stage 1 and 1 h 02 min for stage 3, with 2 ranks" in parsed.text
    assert "0.111 for a centre Gaussian" in parsed.text


def test_bars_are_of_what_lies_on_their_scale() -> None:
    def bars(value: float) -> int:
        basis = {"erase_blur": estimate(value)}
        return page.render({"stages": {"1": {"basis": basis}}}, [], []).count('class="bar"')

    assert bars(0.5) == 1
    assert bars(-0.5) == bars(0.01) == bars(0.99) == bars(2.0) == 0


def test_columns_are_those_that_were_measured(report: dict[str, Any]) -> None:
    titles = re.findall(r'<th scope="col">(.*?)</th>', page.render(report, [], []))
    assert {"PxAP", "MaxBoxAccV2", "false activation", "Dice", "medium lesions"} <= set(titles)
    assert not {"small lesions", "peak on marker", "deletion"} & set(titles)
    for stage in report["stages"].values():
        for maps in stage["localization"].values():
            maps["on_marker"] = estimate(0.02, 12)
    titles = re.findall(r'<th scope="col">(.*?)</th>', page.render(report, [], []))
    assert "peak on marker" in titles


def test_a_report_from_before_these_figures_still_makes_a_page(report: dict[str, Any]) -> None:
    for part in (*report["stages"].values(), *report["baselines"].values()):
        for maps in part["localization"].values():
            for key in (*MORE, "by_size", "activation_threshold"):
                maps.pop(key, None)  # several maps of the fixture are one
        for key in ("sensitivity", "brier", "calibration_error"):
            part.get("classification", {}).pop(key, None)
    text = Page(page.render(report, [], [])).text
    for absent in ("PxAP", "by size", "Sensitivity"):
        assert absent not in text.partition("What the figures mean")[0]
    tables.print_results(report)


def test_undefined_figures_are_dashes(metrics: list[dict[str, Any]]) -> None:
    maps = {"cam": localization(None), "positive_cam": localization(0.5)}
    stage = {"localization": maps, "classification": {"auroc": None}}
    text = page.render({"stages": {"1": stage}}, metrics, [])
    assert "None" not in text and "nan" not in Page(text).text
    cells = re.findall(r"<td>(.*?)</td>", text, re.DOTALL)
    assert [cell.strip()[:1] for cell in cells[:3]] == ["–"] * 3
    assert "not tuned" in cells[3]


def test_a_map_without_a_threshold_has_a_dash() -> None:
    text = page.render({"stages": {"1": {"localization": {"cam": {"pointing": 0.5}}}}}, [], [])
    cells = [" ".join(cell.split()) for cell in re.findall(r"<td>(.*?)</td>", text, re.DOTALL)]
    assert cells == ['<data value="0.5">0.500</data>', "–", "–", "–"]


def test_a_value_that_a_page_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'runs' is undefined"):
        html.render("compare.html", {})


def test_empty_report_still_makes_a_page() -> None:
    parsed = Page(page.render({}, [], []))
    assert "Not measured" in parsed.text and "No step was logged" in parsed.text


def test_the_temperature_is_said_where_it_was_fitted(report: dict[str, Any]) -> None:
    assert "Temperature" not in page.render(report, [], [])
    report["stages"]["1"]["temperature"] = 1.4142
    report["stages"]["3"]["temperature"] = None  # training films of one class
    assert "Temperature, fitted on training films: 1.41 after stage 1." in page.render(
        report, [], []
    )
    report["stages"]["1"]["temperature"] = temperature([0.9, 0.1], [1, 0])
    report["stages"]["3"]["temperature"] = temperature([0.9, 0.1], [0, 1])
    assert sentences.calibrated(report).endswith(
        ": <= 0.01 after stage 1 and >= 100 after stage 3."
    )


def test_without_a_marked_film_there_is_no_table_of_dashes(
    report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for part in (*report["stages"].values(), *report["baselines"].values()):
        part["localization"] = {name: localization(None) for name in part["localization"]}
    text = page.render(report, [], [])
    assert "Not measured: no evaluated film has a marked lesion." in text
    assert 'id="localization"' in text and "with a marked lesion" not in sentences.measured(report)
    tables.print_results(report)
    said = capsys.readouterr().out
    assert "No evaluated film has a marked lesion" in said and "mIoU" not in said


def test_missed_is_said_in_words(report: dict[str, Any]) -> None:
    text = Page(page.render(report, [], [panel()])).text
    assert "missed by decoder" in text and "CAM:\nhit" in text
    assert "P(abnormal): stage 1 0.81" in text


def test_page_is_written_whole_or_not_at_all(report: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PcamxError, match=r"report\.html: File too large"):
            page.write_page(report, [], [], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]
    page.write_page(report, [], [], out)
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [out]


# Pictures


def test_overlay_keeps_the_grey_where_the_map_is_zero() -> None:
    shown = panel()
    map_HW = shown.maps["CAM"].copy()
    map_HW[0, 0] = np.nan
    blend_HW3 = film_figure.overlay(shown.image_HW, map_HW)
    zero_HW = ~(map_HW > 0)
    assert (blend_HW3[zero_HW] == shown.image_HW[zero_HW][:, None]).all()
    # The highest value: 0.65 of inferno's last colour (252, 255, 164) over 0.35 of the grey.
    grey = float(shown.image_HW[7, 12])
    expected = 0.35 * grey + 0.65 * np.array([252.0, 255.0, 164.0])
    assert np.abs(blend_HW3[7, 12] - expected).max() <= 1.0


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(PcamxError, match="resize"):
        film_figure.overlay(panel().image_HW, np.zeros((20, 20), np.float32))


def test_cross_lies_at_the_maximum() -> None:
    shown = panel()
    assert film_figure.peak(shown.maps["CAM"]) == (7, 12)
    assert film_figure.peak(shown.maps["decoder"]) is None
    text = page.render({}, [], [shown])
    cross = re.findall(r'class="peak" d="([^"]*)"', text)[-1]  # the first is the legend's
    strokes = re.findall(r"M([\d.]+) ([\d.]+)([hv])([\d.]+)", cross)
    ends = {(float(x), float(y), way, float(length)) for x, y, way, length in strokes}
    rows_of = [y for _, y, way, _ in ends if way == "h"]
    columns = [x for x, _, way, _ in ends if way == "v"]
    assert rows_of == [7.5, 7.5] and columns == [12.5, 12.5]
    left, right = sorted((x, x + arm) for x, _, way, arm in ends if way == "h")
    assert left[1] < 12.5 < right[0] and abs((left[0] + right[1]) / 2 - 12.5) <= 0.1


def test_outline_follows_the_mark_to_the_edge() -> None:
    lesion_HW = np.zeros((8, 8), np.uint8)
    lesion_HW[0:3, 4:8] = 255
    (line,) = film_figure.outlines(lesion_HW)
    assert (line[0] == line[-1]).all()
    assert line.min(axis=0).tolist() == [3.5, -0.5] and line.max(axis=0).tolist() == [7.5, 2.5]


def test_films_with_misses_come_first() -> None:
    hit = panel("hit", hits={"CAM": True, "decoder": True})
    one = panel("one", hits={"CAM": True, "decoder": False})
    two = panel("two", hits={"CAM": False, "decoder": False})
    unmarked = panel("unmarked", hits={})
    order = [p.title for p in film_figure.ordered([hit, unmarked, one, two])]
    assert order == ["two", "one", "hit", "unmarked"]


def test_png_has_print_resolution(tmp_path: Path) -> None:
    film_figure.save([panel("a $x_$ name")], tmp_path / "figure2.png", dpi=200)
    with Image.open(tmp_path / "figure2.png") as image:
        assert round(image.info["dpi"][0]) == 200
        assert image.width > 900
    assert [p.name for p in tmp_path.iterdir()] == ["figure2.png"]
    with pytest.raises(PcamxError, match="no films"):
        film_figure.save([], tmp_path / "none.png")


# Curves


def test_curves_draw_what_was_logged(metrics: list[dict[str, Any]]) -> None:
    losses, shares = curves.stage_curves(metrics, 3)
    assert "L1, full film 0.7 to 0.3" in losses.alt and "L3" in losses.alt
    assert "validation AUROC 0.8 to 0.8" in shares.alt and "validation accuracy" not in shares.alt
    assert losses.svg.startswith("<svg") and "http://purl" not in losses.svg
    assert curves.stage_curves(metrics, 2) == []
    assert curves.stage_curves(metrics, 3) == [losses, shares]  # the same bytes each time


def test_a_loss_of_its_own_has_a_line_and_a_name(
    metrics: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(SEGMENTER, key="new", losses=(Loss(key="own", name="O", title="O, its own"),))
    monkeypatch.setattr("pcamx.catalogue.trainables.TRAINABLES", [*TRAINABLES, entry])
    lines = [line | {"stage": "new", "own": 2.0} for line in metrics if line["kind"] == "train"]
    losses, *_ = curves.stage_curves(lines, "new")
    assert losses.alt.endswith("first to last: O, its own 2 to 2.")


def test_what_does_not_classify_has_its_own_title(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(SEGMENTER, key="new", title="a new one")
    monkeypatch.setattr(rows, "TRAINABLES", [*TRAINABLES, entry])
    report["baselines"]["new"] = report["baselines"]["untrained"]
    assert "a new one" in [group.title for group in rows.localization(report)]


def test_one_logged_step_is_seen(metrics: list[dict[str, Any]]) -> None:
    def dots(lines: list[dict[str, Any]]) -> int:
        losses, _ = curves.stage_curves(lines, 3)
        return len(re.findall("<use [^>]*#0072b2", losses.svg))  # L1's colour

    assert dots(metrics[:1]) == 2  # in the drawing and in its legend
    assert dots(metrics) == 0


def test_repeated_steps_count_once(metrics: list[dict[str, Any]]) -> None:
    again = [dict(metrics[-2], l1=0.25)]
    losses, _ = curves.stage_curves(metrics + again, 3)
    assert "L1, full film 0.7 to 0.25" in losses.alt


def test_metrics_file_cut_off_by_a_kill(tmp_path: Path) -> None:
    run, path = RunFolder(tmp_path), tmp_path / "metrics.jsonl"
    path.write_text('{"stage": 1, "step": 0}\n{"stage": 1, "st')
    assert read_history(run) == [{"stage": 1, "step": 0}]
    path.write_text('{"stage": 1\n{"stage": 1, "step": 0}\n')
    with pytest.raises(PcamxError, match=r"metrics\.jsonl: line 1 "):
        read_history(run)
    with pytest.raises(PcamxError, match="is this the folder of a run"):
        read_history(RunFolder(tmp_path / "missing"))


# The terminal


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    console._stderr.cache_clear()


def train(display: console.TrainingDisplay, epochs: int) -> None:
    for epoch in range(epochs):
        display.epoch_start(2, epoch, epochs, 3, 0)
        for step in range(3):
            scalars = {"l1": 0.4321, "l2": 0.5, "p": 0.8, "lam": 0.7, "area": 0.12, "flat": 0.0}
            display.step(step + 1, 16, scalars if step == 2 else None)
        display.epoch_end(epoch, {"auroc": 0.8765, "accuracy": None})


def test_log_has_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with console.TrainingDisplay() as display:
        train(display, 2)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2
    assert lines[0].startswith("stage 2  epoch 1/2  ")
    for said in ("L1 0.432", "L2 0.500", "P 0.800", "lambda 0.700", "mask area 0.120", "ETA 0:00:"):
        assert said in lines[0]
    assert lines[1].endswith("valid AUROC 0.876 accuracy –") and "images/s" in lines[1]
    assert "\x1b" not in err and "L3" not in err


def test_other_ranks_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.TrainingDisplay(enabled=False) as display:
        train(display, 1)
        display.warn("collapsed")
        display.note("finished")
    assert capsys.readouterr() == ("", "")


def test_warnings_come_once_and_markup_stays_text(capsys: pytest.CaptureFixture[str]) -> None:
    with console.TrainingDisplay() as display:
        display.warn("the mask [red]collapsed[/]")
        display.warn("the mask [red]collapsed[/]")
        display.note("film \x1b[2J.png " + "x" * 200)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: the mask [red]collapsed[/]"
    assert lines[1] == "film ?[2J.png " + "x" * 200 and len(lines) == 2


def test_time_left_counts_the_epochs_to_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))  # each look at the clock is ten seconds later
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with console.TrainingDisplay() as display:
        display.epoch_start(1, 1, 4, 2, 1)  # at 0; one step of this epoch was done before
        display.step(2, 64)  # at 10
        display.epoch_end(1, {})  # seconds at 20, time left at 30: one step took 30 s
    line = capsys.readouterr().err
    assert "epoch 2/4  20 s  6 images/s  ETA 0:02:00" in line  # 2 epochs of 2 steps: 4 x 30 s


def test_track_says_start_and_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(console.track(iter("abc"), "decoding", 3)) == ["a", "b", "c"]
    assert [x.split(" in ")[0] for x in capsys.readouterr().err.splitlines()] == [
        "decoding: 3 to do",
        "decoding: 3 done",
    ]
    clock = iter([0.0, 15.0, 30.0, 45.0, 55.0, 60.0])  # start, four items, end
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert len(list(console.track(range(4), "decoding", 4))) == 4
    between = capsys.readouterr().err.splitlines()[1:-1]
    assert between == ["decoding: 2/4, 0.1/s, ETA 0:00:30", "decoding: 4/4, 0.1/s, ETA 0:00:00"]


def test_track_says_nothing_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.track(iter(()), "tuning", 0)) == []
    assert capsys.readouterr() == ("", "")


def test_results_fit_80_columns(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_results(report)
    out = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert re.search(r"decoder +0\.75 \[0\.74, 0\.78\] +0\.38 \[.*0\.35 +97", out)
    assert re.search(r"CAM +– +– +– +0\.35\* +0", out)
    assert re.search(r"stage 3 +0\.86 \[0\.85, 0\.89\] .* 612/402", out)
    assert re.search(r"decoder +0\.76 \[0\.74, 0\.78\] +0\.76 \[.*\] +0\.76 \[.*\] +97", out)
    assert "\x1b" not in out


def test_rows_read_json_as_written(report: dict[str, Any]) -> None:
    groups = rows.localization(json.loads(json.dumps(report)))
    assert [g.title for g in groups] == [
        "stage 1",
        "stage 3",
        "centre Gaussian",
        "untrained network",
    ]
    assert [len(g.rows) for g in groups] == [2, 3, 1, 1]
    assert numbers.duration(7199.6) == "2 h 00 min" and numbers.duration(None) == "–"
