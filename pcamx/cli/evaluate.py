"""`pcamx evaluate`: measure a run and write its report."""

import argparse
from pathlib import Path

from pcamx.cli.command import Commands, command


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "evaluate",
        run,
        "measure a run on the validation split; write report.json and report.html into it",
        "pcamx evaluate runs/demo",
    )
    sub.add_argument("run", type=Path, metavar="RUN", help="run.folder of the config")


def run(options: argparse.Namespace) -> None:
    from pcamx.evaluate import evaluate
    from pcamx.report.console import print_results, track

    report = evaluate(options.run, track=track)
    print_results(report)
    for number in report["unfinished"]:
        print(f"stage {number} is not finished and not measured; train it on with --resume")
    print(f"{options.run / 'report.html'} is the report for people, report.json for programs")
