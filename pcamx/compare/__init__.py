"""`pcamx compare RUN RUN...`: runs side by side, each against the first, film by film.

Folders that `pcamx evaluate` has filled come in (`measured`); compare.html, compare.json and
pictures go out, with intervals over the films' differences (`differences`). The command and
`pcamx continue` call it.
"""

import dataclasses
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcamx import config as configs
from pcamx import provenance
from pcamx.catalogue import AUROC, MAPS, TRAINABLES, classifiers, measures
from pcamx.compare import pictures
from pcamx.compare.all_films import read_pages, write_all_films
from pcamx.compare.differences import (
    auroc_difference,
    basis_difference,
    difference,
    other_films,
    out_of_reach,
)
from pcamx.compare.measured import Measured, read_runs
from pcamx.errors import PcamxError
from pcamx.evaluation.all_films import only_pictures
from pcamx.metrics import Difference, holm
from pcamx.output import replacing_folder
from pcamx.report import comparison_page
from pcamx.report.comparison_rows import Comparison, Gap
from pcamx.report.figures.film_figure import ordered, save
from pcamx.run.folder import RunFolder

PAGE, FACTS, FIGURE = "compare.html", "compare.json", "figure2.png"
ALL_FILMS, PICTURES = "films.html", "films"
FORMAT = 1
_DPI = 300


def compare(folders: Sequence[Path], out: Path) -> Comparison:
    """Compare evaluated runs with the first; ``out`` gets compare.html, .json and figure2.png.

    films.html, with a folder of pictures, shows every film under the maps of the runs that were
    measured on the first one's films. ``out`` is replaced as a whole. Raises PcamxError where a run
    is none, not evaluated, of another version or given twice, and where ``out`` holds anything
    else.
    """
    check_place(out)
    runs = read_runs(folders)
    gaps, remarks = _gaps(runs)
    alike = [runs[0], *(run for run in runs[1:] if run.name in gaps)]
    panels, undrawn = pictures.draw(alike, pictures.choose(alike))
    pages, unread = read_pages(alike)
    found = Comparison(
        reports={run.name: run.report for run in runs},
        gaps=gaps,
        remarks=[*remarks, *undrawn, *unread],
        settings={run.name: _settings(runs[0], run) for run in runs[1:]},
    )
    with replacing_folder(out, check_place) as draft:
        facts = json.dumps(_facts(runs, found), indent=1, allow_nan=False)
        (draft / FACTS).write_text(facts + "\n", encoding="utf-8")
        page = comparison_page.render(found, panels, ALL_FILMS if pages else "")
        (draft / PAGE).write_text(page, encoding="utf-8")
        if pages:
            write_all_films(pages, draft / ALL_FILMS, PAGE)
        if panels:
            save(ordered(panels), draft / FIGURE, dpi=_DPI)
    return found


def check_place(out: Path) -> None:
    """Raise PcamxError unless ``out`` is missing, empty, or an earlier comparison alone."""
    if out.exists() and not out.is_dir():
        raise PcamxError(f"{out} is a file; --out takes a folder")
    names = {item.name for item in out.iterdir()} if out.exists() else set()
    if names and (FACTS not in names or names - {PAGE, FACTS, FIGURE, ALL_FILMS, PICTURES}):
        raise PcamxError(f"{out} holds something other than a comparison; choose another --out")
    only_pictures(out / PICTURES)


def _gaps(runs: Sequence[Measured]) -> tuple[dict[str, dict[str, dict[str, Gap]]], list[str]]:
    """What each run exceeds the first by, and why where nothing can be said."""
    gaps: dict[str, dict[str, dict[str, Gap]]] = {}
    remarks = []
    for run in runs[1:]:
        why = other_films(run.films, runs[0].films)
        if not why and _other(run, runs[0], "content"):
            why = "films of the same name are others"
        if why:
            remarks.append(f"{run.name} and {runs[0].name} have no differences: {why}.")
            continue
        other_twins = _other(run, runs[0], "twins")
        gaps[run.name] = _gaps_of(run, runs[0], other_twins)
        if other_twins:
            remarks.append(
                f"{run.name} and {runs[0].name} have no differences of twins: they were measured "
                "on others."
            )
    tests = _correct([by_key for titles in gaps.values() for by_key in titles.values()])
    return gaps, [*remarks, *out_of_reach(tests)]


def _other(run: Measured, first: Measured, key: str) -> bool:
    """Whether they were measured on other "content" or "twins"; not where nobody knows of one."""
    found = [one.report["data"].get(key) for one in (run, first)]
    return None not in found and found[0] != found[1]


def _correct(gaps: Sequence[dict[str, Gap]]) -> int:
    """Put the p into every gap that holds for all of them together; how many have one."""
    places = [(by_key, key) for by_key in gaps for key in by_key]
    corrected = holm([by_key[key].p for by_key, key in places])
    for (by_key, key), p in zip(places, corrected, strict=True):
        by_key[key] = dataclasses.replace(by_key[key], p_of_all=p)
    return sum(p is not None for p in corrected)


def _gaps_of(run: Measured, first: Measured, other_twins: bool) -> dict[str, dict[str, Gap]]:
    found: dict[str, dict[str, Gap]] = {}
    for here, there in _pairs(run, first):
        title = here if here == there else f"{here} against {there}"
        auroc = auroc_difference(run.films, first.films, here, minus=there)
        basis = {
            measure.key: basis_difference([run.films], [first.films], here, measure, minus=there)
            for measure in measures("basis")
            if measure.shown == "first" and not (other_twins and measure.films == "twins")
        }
        decided = {AUROC.key: auroc} | basis
        found[title] = {k: _gap(d) for k, d in decided.items() if d and d.value is not None}
        for kind in MAPS:
            by_key = {
                measure.key: difference(
                    [run.films],
                    [first.films],
                    here,
                    kind.key,
                    measure.column,
                    minus=(there, kind.key),
                )
                for measure in measures("map")
                if measure.shown == "first"
            }
            found[f"{title}, {kind.title}"] = {k: _gap(d) for k, d in by_key.items() if d}
    return {title: by_key for title, by_key in found.items() if by_key}


def _pairs(run: Measured, first: Measured) -> list[tuple[str, str]]:
    """Titles of what is compared: what both have, and the last stage of each if they share none.

    A run that goes on from one without stage 3 shares none with it.
    """
    mine, theirs = (one.report["stages"].keys() for one in (run, first))
    pairs = [(entry.title, entry.title) for entry in TRAINABLES if str(entry.key) in mine & theirs]
    last = [[e.title for e in classifiers() if str(e.key) in keys][-1:] for keys in (mine, theirs)]
    if all(last) and not any(str(e.key) in mine & theirs for e in classifiers()):
        pairs.append((last[0][0], last[1][0]))
    return pairs


def _gap(found: Difference) -> Gap:
    return Gap(**found._asdict())


def _settings(first: Measured, run: Measured) -> list[str]:
    """Keys, with both values, in which the configs differ, but for the run's folder."""
    try:
        one, other = (RunFolder(r.folder).read_config() for r in (run, first))
    except PcamxError:
        return ["unknown: a config.yaml is missing or of another version"]
    lines = configs.differences(one, other)
    return [line for line in lines if not line.startswith("run.folder")]


def _facts(runs: Sequence[Measured], found: Comparison) -> dict[str, Any]:
    kept = ("created", "device", "versions", "commit", "data", "stages", "baselines")
    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "command": shlex.join(sys.argv),
        "first": found.first,
        "runs": {
            run.name: {"folder": str(run.folder)} | {k: run.report.get(k) for k in kept}
            for run in runs
        },
        "differences": {
            name: {
                title: {key: dataclasses.asdict(gap) for key, gap in by_key.items()}
                for title, by_key in titles.items()
            }
            for name, titles in found.gaps.items()
        },
        "settings": dict(found.settings),
        "remarks": list(found.remarks),
    }
