"""`pcamx evaluate`: measure a run and write its report."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pcamx.cli.command import Commands, command

if TYPE_CHECKING:
    from pcamx.evaluation.measured_run import Split


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "evaluate",
        run,
        "measure a run on films it was not trained on; write report.json, films.csv and "
        "report.html into it",
        "pcamx evaluate runs/demo",
    )
    sub.add_argument("run", type=Path, metavar="RUN", help="run.folder of the config")
    sub.add_argument(
        "--store",
        type=Path,
        metavar="STORE",
        help="measure on another store's films, for example a transcoded one; the report goes to "
        "RUN/on_STORE, the AUROC on the run's own store beside",
    )
    sub.add_argument(
        "--split",
        choices=["valid", "test"],
        default="valid",
        help="the films to measure on (%(default)s); test, for the end, when nothing is chosen "
        "any more, goes to on_test in there",
    )
    sub.add_argument(
        "--twins",
        type=Path,
        metavar="STORE",
        help="a store of the same films with one thing changed each, which pcamx phantom --twins "
        "draws: what do the decisions rest on?",
    )
    sub.add_argument(
        "--faithful",
        type=_films,
        default=0,
        metavar="FILMS",
        help="try so many abnormal films by deletion, insertion and patch by patch as well; slow "
        "(%(default)s)",
    )


def _films(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of films")
    return int(text)


def run(options: argparse.Namespace) -> None:
    measure(options.run, options.store, options.split, options.twins, options.faithful)


def measure(
    folder: Path,
    other: Path | None = None,
    split: "Split" = "valid",
    twins: Path | None = None,
    faithful: int = 0,
) -> None:
    """Measure as `pcamx.evaluation.evaluate.evaluate` does, and say what was found and where."""
    from pcamx.catalogue import AUROC, key_of, trainable
    from pcamx.evaluation.evaluate import evaluate
    from pcamx.report.console import say, track
    from pcamx.report.tables import print_results
    from pcamx.run.folder import RunFolder

    report = evaluate(
        folder, other=other, split=split, twins=twins, faithful=faithful, track=track, say=say
    )
    print(f"measured on the {split} split of {report['data']['store']}")
    print_results(report)
    for stage in report["unfinished"]:
        print(
            f"{trainable(stage).title} is not finished and not measured; train it on with --resume"
        )
    own = report.get("own", {})
    for number, before in own.get(AUROC.key, {}).items():
        here = report["stages"][number]["classification"][AUROC.key]["value"]
        if before is not None and here is not None:
            change = f"{here:.4f} here, {before:.4f} on {own['store']}: {here - before:+.4f}"
            print(f"{trainable(key_of(number)).title}: {AUROC.title} {change}")
    out = RunFolder(folder).measured_on(other, split)
    print(f"{out.page_file} is the report for people, {out.report_file.name} for programs")
