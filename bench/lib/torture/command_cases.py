"""The commands that write, as torture starts them: on a small set, many over an earlier result."""

from dataclasses import dataclass
from pathlib import Path

from pcamx.catalogue import STAGE_3
from pcamx.marking.tools import TOOLS
from pcamx.run.folder import RunFolder

_DATED = ("content.csv", "films.zip")
"""What holds the times of files."""


@dataclass(frozen=True)
class Case:
    """A command on a small set; {sound} and {trial} in its words are the folders' paths."""

    words: str
    copied: tuple[str, ...] = ()
    """Of the sound folder, what it works in; a:b copies a as b."""
    earlier: str = ""
    """The command that wrote what is there before."""
    without: tuple[str, ...] = ()
    """What of the copied goes first."""
    processors: int = 1
    one_by_one: bool = False
    """Whether files may be replaced one after the other: then readers refuse a mixture."""
    often: int = 4
    """Among the trials; less for what takes long."""
    dated: tuple[str, ...] = ()
    """Files that hold times, even where the clock stands still; they are not looked at."""


def _cases() -> dict[str, Case]:
    films, out = "{sound}/films/MURA-v1.1", "--out {trial}/out"
    phantom = "phantom {trial}/out --size 32 --seed 3 --twins --temptation plate letter"
    prepare = f"prepare {films} {out}"
    suggest = "marks suggest {trial}/run --data {sound}/unmarked"
    explain = f"explain {{sound}}/run {{sound}}/inputs/plain.dcm {{sound}}/inputs/a.png {out}"
    runs = ("run", "run:other")
    compare = f"compare {{trial}}/run {{trial}}/other {out}"
    ours = RunFolder(Path("run"))
    measured = (ours.report_file, ours.page_file, ours.films_file, ours.all_films_file)
    bare = tuple(map(str, (*measured, ours.figure_file, ours.pictures)))
    new = RunFolder(Path("out"))
    dated = (f"{new.path}/*.*", f"{new.comparison}/*", f"{new.checkpoints(STAGE_3.key)}/*/*")
    figure = "figure {sound}/run patient60005/study1_positive/image1.png --out {trial}/figure.pdf"
    sheet = "--data {sound}/store --out {trial}/sheet.png"
    check = f"marks check {{sound}}/films/marks {sheet}"
    some = f"marks check {{sound}}/films/marks/valid {sheet}"
    evaluate = "evaluate {trial}/run"
    cases = {
        "phantom": Case(f"{phantom} --train 12 --valid 6"),
        "phantom, two processes": Case(f"{phantom} --train 150 --valid 6", processors=2),
        "prepare": Case(f"{prepare} --marks {{sound}}/films/marks"),
        "prepare again": Case(
            f"{prepare} --marks {{sound}}/films/marks", ("unmarked:out",), processors=2
        ),
        "prepare jpeg again": Case(f"{prepare} --transcode jpeg", ("store:out",), dated=_DATED),
        "prepare htj2k": Case(f"{prepare} --transcode htj2k", processors=2, dated=_DATED),
        "init": Case("init {sound}/store --out {trial}/films.yaml"),
        "init again": Case(
            "init {sound}/store --replace --out {trial}/films.yaml",
            earlier="init --copy demo --out {trial}/films.yaml",
        ),
        "marks check": Case(check),
        "marks check again": Case(check, earlier=some),
        "marks suggest": Case(suggest, ("run",)),
        "marks suggest again": Case(
            suggest, ("run",), earlier=f"{suggest} --count 3", one_by_one=True
        ),
        "explain": Case(explain),
        "explain again": Case(
            f"explain {{sound}}/run {films}/valid --replace {out}", earlier=explain, processors=2
        ),
        "export": Case("export {trial}/run", ("run",), often=1),
        "evaluate": Case(evaluate, ("run",), without=bare, one_by_one=True),
        "evaluate again": Case(f"{evaluate} --twins {{sound}}/twins", ("run",), one_by_one=True),
        "evaluate a store": Case(
            f"{evaluate} --store {{trial}}/store",
            ("run", "store", "films"),
            without=("store/cache",),
            one_by_one=True,
        ),
        "figure again": Case(figure, earlier=figure.replace("image1", "image2")),
        "compare": Case(compare, runs),
        "compare again": Case(
            compare, runs, earlier=f"compare {{trial}}/other {{trial}}/run {out}"
        ),
        "continue": Case(
            f"continue {{trial}}/run --marks {{sound}}/films/marks {out}",
            ("run",),
            often=1,
            one_by_one=True,
            dated=dated,
        ),
    }
    return cases | {
        f"marks suggest {tool}": Case(f"{suggest} --to {tool} {out}", ("run",), dated=_DATED)
        for tool in TOOLS
    }


CASES = _cases()
