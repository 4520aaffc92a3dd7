"""`pcamx init`: write a first config for a data set on this machine."""

import argparse
import shlex
from importlib.resources import files
from pathlib import Path

from pcamx.cli.command import Commands, command
from pcamx.cli.options import add_words
from pcamx.errors import PcamxError

SHIPPED = ("demo", "fracatlas", "mura", "mura_densenet169", "mura_multinode", "paper")


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "init",
        run,
        "write a config that fits a data set and this machine, with a reason beside each value",
        "pcamx init films.csv --out films.yaml",
    )
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "source",
        type=Path,
        nargs="?",
        metavar="ROOT_OR_TABLE",
        help="a store of pcamx prepare, which knows most, or what prepare would take",
    )
    source.add_argument(
        "--copy", choices=SHIPPED, help="instead, one of the configs of pcamx's own experiments"
    )
    sub.add_argument("--out", type=Path, metavar="YAML", help="file to write (its name.yaml)")
    sub.add_argument("--replace", action="store_true", help="an earlier file there may go")
    add_words(sub)


def run(options: argparse.Namespace) -> None:
    source = options.source and options.source.resolve()
    name = options.copy or (source.name if source.is_dir() else source.stem)
    out = options.out or Path(f"{name}.yaml")
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise PcamxError(f"--out {out}: not a YAML file; name one such as {out.stem}.yaml")
    if out.exists() and not options.replace:
        raise PcamxError(f"{out} exists; choose another --out, or add --replace")
    if not options.copy:
        _fit(options, name, out)
    elif options.normal or options.abnormal:
        raise PcamxError("--copy: takes no --normal or --abnormal; pcamx prepare does")
    else:
        _copy(options.copy, out)


def _copy(name: str, out: Path) -> None:
    from pcamx import config as configs
    from pcamx.output import write_text

    write_text(out, files("pcamx").joinpath("configs", f"{name}.yaml").read_text("utf-8"))
    store = configs.load(out).data.store
    print(f"{out} is written; prepare its films with --out {store}, or change data.store")


def _fit(options: argparse.Namespace, name: str, out: Path) -> None:
    from pcamx import config as configs
    from pcamx.config.checks import is_path
    from pcamx.data.sets.table import label_words
    from pcamx.output import replacing_file
    from pcamx.training.first_config import films_of, first_config, machine

    for key, text in (("ROOT_OR_TABLE", options.source), ("ROOT_OR_TABLE", name), ("--out", out)):
        is_path(key, str(text))
    labels = label_words(options.normal, options.abnormal)
    films = films_of(options.source, Path("stores") / name, labels)
    text = first_config(films, machine(), name)
    with replacing_file(out) as draft:
        draft.write_text(text, encoding="utf-8")
        if configs.load(draft).data.store != films.store:
            raise PcamxError(f"{films.store}: a config cannot name it; rename it")
    print(f"{out} is written; next:")
    if films.root is not None:
        source = options.source
        what = [source] if source.is_dir() else [_short(films.root), "--table", source]
        words = ["--normal", options.normal, "--abnormal", options.abnormal]
        what += ["--out", films.store, *(words if options.normal else [])]
        print("  " + shlex.join(["pcamx", "prepare", *map(str, what)]))
    if films.root is not None and films.side is None:
        print(f"no film of it was found in {_short(films.root)}: write their folder there instead")
    print("  " + shlex.join(["pcamx", "train", str(out), "--stage", "all"]))


def _short(folder: Path) -> Path:
    """``folder`` from here, where it lies below."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
