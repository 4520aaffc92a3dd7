"""`pcamx marks check` and `pcamx marks suggest`: a person's lesion marks."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcamx.cli.command import Commands, command
from pcamx.cli.options import FORMATS, MERGING, add_labels
from pcamx.marking.tools import TOOLS
from pcamx.output import counted, printable

if TYPE_CHECKING:
    from pcamx.marking.check import Checked

_NAMED = 10  # of each kind


def add(commands: Commands) -> None:
    """Add the two commands and their options."""
    text = "check lesion marks before they are used; name the films worth marking next"
    marks = commands.add_parser("marks", help=text, description=text)
    parts = marks.add_subparsers(required=True, metavar="WHAT")
    _add_check(parts)
    _add_suggest(parts)


def _add_check(parts: Commands) -> None:
    sub = command(
        parts,
        "check",
        run_check,
        "count the marks of a file or folder on the films of a store, name what is odd, and draw "
        "a contact sheet to look at",
        "pcamx marks check marks.json --data stores/mura",
    )
    sub.add_argument("paths", type=Path, nargs="+", metavar="PATH", help=f"{FORMATS}; {MERGING}")
    add_labels(sub)
    sub.add_argument("--data", type=Path, required=True, metavar="STORE", help="the prepared store")
    sub.add_argument(
        "--out",
        type=Path,
        default=Path("marks_check.png"),
        metavar="FILE.png",
        help="the contact sheet (%(default)s)",
    )


def _add_suggest(parts: Commands) -> None:
    sub = command(
        parts,
        "suggest",
        run_suggest,
        "list the abnormal training films without a mark that are worth marking next: those first "
        "that seem wrongly attended, body parts in turn",
        "pcamx marks suggest runs/mura --count 100",
    )
    sub.add_argument("run", type=Path, metavar="RUN", help="run.folder of the config")
    sub.add_argument("--count", type=int, default=100, help="how many films (%(default)s)")
    sub.add_argument(
        "--data",
        type=Path,
        metavar="STORE",
        help="another store than the run's: one with more marks",
    )
    sub.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="the list, the contact sheet beside it as .png (RUN/to_mark.csv); with --to the new "
        "folder to write (RUN/to_mark)",
    )
    sub.add_argument(
        "--to",
        choices=TOOLS,
        help="write a folder that this tool imports: the films, with lesion candidates drawn in",
    )


def run_check(options: argparse.Namespace) -> None:
    from pcamx.errors import PcamxError
    from pcamx.marking.check import check
    from pcamx.report.console import track

    found = check(options.paths, options.data, options.out, labels=options.labels, track=track)
    _print(found)
    if found.shown:
        print(f"{options.out} shows {found.shown} of them; look at it")
    if not found.usable:
        named = ", ".join(map(str, options.paths))
        raise PcamxError(
            f"{named}: no mark lies on an abnormal film of {options.data}; "
            "training has nothing to learn from"
        )


def _print(found: "Checked") -> None:
    from pcamx.data.marks.parse import line

    shapes = ", ".join(counted(n, kind) for kind, n in sorted(found.marks.shapes().items()))
    labels = ", ".join(f"{line(label)} {n}" for label, n in sorted(found.labels.items()))
    print(f"{found.marks.kind}: {shapes} on {counted(len(found.share), 'film')}")
    print(f"labels: {labels or 'none'}; images without a mark: {found.marks.unmarked}")
    if found.marks.left_out:
        print(found.marks.left_out_note())
    if found.share:
        path, largest = max(found.share.items(), key=lambda item: item[1])
        middle = sorted(found.share.values())[len(found.share) // 2]
        print(f"marked share of a film: median {middle:.2%}, largest {largest:.1%} ({path})")
    splits = ", ".join(f"{split} {n}" for split, n in found.splits.items())
    print(
        f"usable: {counted(len(found.usable), 'abnormal film')}"
        + (f" ({splits})" if splits else "")
    )
    width = max(len(part.name) for part in found.parts)
    print(f"\n{'part':{width}}  films  abnormal  marked  marks")
    for p in found.parts:
        print(f"{p.name:{width}}  {p.films:5}  {p.abnormal:8}  {p.marked:6}  {p.marks:5}")
    print()
    for words, items in _odd(found).items():
        print(f"{len(items)} {words}")
        for item in items[:_NAMED]:
            print(f"    {item}")
        if len(items) > _NAMED:
            print(f"    and {len(items) - _NAMED} more")


def _odd(found: "Checked") -> dict[str, list[str]]:
    """What is to be looked at, in words, with the items; what there is none of is left out."""
    from pcamx.data.marks import PROBLEMS

    odd = {
        words: [p.text for p in found.marks.problems if p.kind == kind]
        for kind, words in PROBLEMS.items()
    }
    odd |= {
        "films labelled normal, their marks not used": list(found.normal),
        "films whose marks are empty, not used": list(found.empty),
        "films in the quarantine, their marks not used": list(found.quarantined),
        "films turned by EXIF; look whether their marks are turned too": list(found.turned),
    }
    return {words: items for words, items in odd.items() if items}


def run_suggest(options: argparse.Namespace) -> None:
    from pcamx.marking.package import suggest_to
    from pcamx.marking.suggest import SHEET, suggest
    from pcamx.report.console import say, track
    from pcamx.run.folder import RunFolder

    given: dict[str, Any] = {"data": options.data, "track": track, "say": say}
    if options.to:
        out = options.out or RunFolder(options.run).to_mark
        found = suggest_to(options.to, options.run, options.count, out, **given)
    else:
        out = options.out or RunFolder(options.run).to_mark_file
        found = suggest(options.run, options.count, out, **given)
    for one in found[:_NAMED]:
        print(printable(f"{one.score:.2f}  {one.film.path}  {one.reason}"))
    if len(found) > _NAMED:
        print(f"and {len(found) - _NAMED} more")
    if len(found) < options.count:
        print(
            f"{counted(len(found), 'film')}, not {options.count}: no other abnormal training "
            "film is without a mark"
        )
    if options.to:
        print(f"{out} is for {options.to}; {out / 'README.txt'} says how")
        return
    print(f"{out} lists them, {out.with_suffix(SHEET)} shows the first with the map on top")
