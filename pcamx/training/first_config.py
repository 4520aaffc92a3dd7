"""A first config for a data set on this machine: `pcamx init`; every value says why it is so."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pcamx.catalogue import STAGE_1, STAGE_2, STAGE_3
from pcamx.config import Data, quoted
from pcamx.data.prepare.verify import Facts, verify
from pcamx.data.sets.entry import Entry
from pcamx.data.sets.listing import list_films
from pcamx.data.store import HEAD, Film, read_store
from pcamx.errors import PcamxError

_PAPER = Data(store="-")
"""Whose defaults are the paper's."""
_LOOKED_AT = 16
"""Films of a data folder that are opened for their size; a store knows all sizes."""
_STEPS = 60
"""Steps that an epoch should have at least; `configs/mura.yaml` has 143."""
_WATCHED = 5, 20
"""Marked films that are kept apart, at least and at most; fewer tell nothing."""
_UPDATES = 1200
"""Steps of stage 1; `configs/mura.yaml` has 4300, the ablation on drawn films 666."""


@dataclass(frozen=True, slots=True)
class Films:
    """What a first config depends on of the data."""

    store: str
    """Where the store is, or is to be."""
    train: int
    abnormal: int
    """Of the training films."""
    marked: int | None
    """Training films with a mark; None where the set was not prepared."""
    side: int | None
    """Median of the films' longer sides in pixels; None where none could be opened."""
    root: Path | None = None
    """The folder that the films' paths begin in; None of a store."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a first config depends on of the machine."""

    gpus: int
    cores: int
    bf16: str
    """What computes bf16 fast, or ""."""


def films_of(source: Path, store: Path, words: Mapping[str, int]) -> Films:
    """Look at a store, a data folder or a table; films of the last two are to go into ``store``.

    ``words`` are a table's labels. Raises PcamxError where it is none of them, and as `list_films`
    does.
    """
    if not source.exists():
        raise PcamxError(f"{source}: no such file or folder; name a store, a data folder or a csv")
    if (source / HEAD).is_file():
        films = read_store(source).films
        sides = [max(film.width, film.height) for film in films]
        marked = sum(bool(film.mark) and film.split == "train" for film in films)
        return _films(source, str(source), films, sides, marked)
    if source.is_dir():
        root, table = source.resolve(), None
    elif source.suffix.lower() in (".csv", ".tsv", ".txt"):
        root, table = source.parent.resolve(), source
    else:
        raise PcamxError(f"{source}: not a csv; name a store, a data folder or a csv of films")
    entries = list_films(root, table, words).entries
    paths = [entry.path for entry in entries[:: len(entries) // _LOOKED_AT + 1]]
    if table is not None:
        root = _folder_of(root, paths)
    looked = [verify(root / path) for path in paths]
    sides = [max(fact.width, fact.height) for fact in looked if isinstance(fact, Facts)]
    return replace(_films(source, str(store), entries, sides, None), root=root)


def _folder_of(beside: Path, paths: Sequence[str]) -> Path:
    """The folder in which a table's films lie: that of the table, or one just below it."""
    below = sorted(path for path in beside.iterdir() if path.is_dir())
    found = (folder for folder in (beside, *below) if any((folder / p).is_file() for p in paths))
    return next(found, beside)


def _films(
    source: Path,
    store: str,
    films: Sequence[Film | Entry],
    sides: Sequence[int],
    marked: int | None,
) -> Films:
    labels = [film.label for film in films if film.split == "train"]
    if len(labels) < 4 or len(set(labels)) < 2:
        raise PcamxError(
            f"{len(labels)} training films, {sum(labels)} of them abnormal: training needs four at "
            "least, and both classes"
        )
    if not any(film.split == "valid" for film in films):
        raise PcamxError(f"{source}: no film is in the valid split; training needs train and valid")
    return Films(store, len(labels), sum(labels), marked, int(median(sides)) if sides else None)


def machine() -> Machine:
    """Look at this machine."""
    import torch

    gpus = torch.cuda.device_count()
    if gpus:
        bf16 = "this GPU" if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    else:
        bf16 = next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in _cpu_flags()), "")
    return Machine(gpus, len(os.sched_getaffinity(0)), bf16)


def _cpu_flags() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []  # not Linux: nothing is known, and fp32 runs everywhere
    return next((line.split() for line in text.splitlines() if line.startswith("flags")), [])


_Line = tuple[str, str]
"""A line of YAML, and why its value is so; a section has no reason."""


def first_config(films: Films, here: Machine, name: str) -> str:
    """Return the YAML of a run ``name``, a reason beside each value.

    `pcamx.config.load` reads it.
    """
    ranks = max(1, here.gpus)
    batch = _batch(films.train, ranks)
    steps = films.train // batch
    head = (
        f"# For {films.train} training films, {films.abnormal} of them abnormal, and a machine "
        f"with {_machine_words(here)}.\n# Written by pcamx init.\n"
    )
    lines = [
        ("run:", ""),
        (f"  folder: {quoted(f'runs/{name}')}", "checkpoints, metrics and reports of this run"),
        *_data(films, here, ranks),
        *_stages(steps, batch),
        *_runtime(films, here, ranks, batch, steps),
    ]
    return head + "".join(f"{line:<34}  # {why}\n" if why else f"{line}\n" for line, why in lines)


def _data(films: Films, here: Machine, ranks: int) -> list[_Line]:
    share = films.abnormal / films.train
    balanced = share < 1 / 3
    rule = "under a third, so half of each batch is" if balanced else "a third or more: no need"
    each = f"{here.cores} CPU cores for {ranks} {'process' if ranks == 1 else 'processes'}"
    return [
        ("data:", ""),
        (f"  store: {quoted(films.store)}", "what pcamx prepare wrote, or is to write"),
        _canvas(films.side),
        (f"  balanced: {'on' if balanced else 'off'}", f"{share:.0%} are abnormal; {rule}"),
        *_marked(films.marked),
        (f"  threads: {max(1, here.cores // ranks)}", each),
    ]


def _stages(steps: int, batch: int) -> list[_Line]:
    epochs = min(30, max(4, math.ceil(_UPDATES / steps)))
    later = max(1, epochs // 3)
    first, second, third = (entry.section for entry in (STAGE_1, STAGE_2, STAGE_3))
    return [
        ("stages:", ""),
        (
            f"  {first}: {{epochs: {epochs}, lr: 2.0e-3}}",
            f"{epochs * steps} steps of {batch} films",
        ),
        (
            f"  {second}: {{epochs: {later}, lr: 1.0e-3, init_from: {first}}}",
            "a third as long at half the step size: it goes on from stage 1",
        ),
        (
            f"  {third}: {{epochs: {later}, lr: 1.0e-3, init_from: {second}}}",
            "as stage 2; the only one that needs marks",
        ),
    ]


def _runtime(films: Films, here: Machine, ranks: int, batch: int, steps: int) -> list[_Line]:
    # Of films that are not marked yet, nothing is known.
    marked = films.marked - _watched(films.marked) if films.marked else 16
    zero, why = (1, "shares the optimizer among GPUs") if ranks > 1 else (0, "nothing to share")
    fast = f"{here.bf16} computes bf16 fast" if here.bf16 else "nothing here computes bf16 fast"
    return [
        ("objective:", ""),
        (
            f"  marked_per_batch: {max(1, min(16, batch // 4, marked))}",
            "of a batch of stage 3: at most a quarter, 16, and all there are",
        ),
        ("runtime:", ""),
        (f"  batch_size: {batch}", f"of all processes together; {steps} steps an epoch"),
        (f"  zero_stage: {zero}", why),
        (f"  precision: {'bf16' if here.bf16 else 'fp32'}", fast),
        (f"  log_every: {max(1, steps // 6)}", "steps; some six lines an epoch"),
    ]


def _batch(films: int, ranks: int) -> int:
    """Of each rank a power of two from 8 to 256, that leaves an epoch its steps if it can."""
    each = 8  # batch norm wants as many, however few steps that leaves
    while each < 256 and 2 * each * ranks <= films / _STEPS:
        each *= 2
    while each > 1 and each * ranks > films // 2:
        each //= 2
    if each * ranks > films:
        raise PcamxError(f"{films} training films are fewer than the {ranks} GPUs that are here")
    return each * ranks


def _canvas(side: int | None) -> _Line:
    """The side of the canvas: that of the films, the paper's at most."""
    most = _PAPER.canvas
    if side is None:
        return f"  canvas: {most}", "pixels; the paper's, since no film could be opened"
    canvas = min(most, max(32, side // 16 * 16))
    why = f"the paper's {most} at most" if side >= most else "no larger than they are"
    return f"  canvas: {canvas}", f"pixels, a multiple of 16; the films have {side}: {why}"


def _marked(marked: int | None) -> list[_Line]:
    if not marked:
        most = _PAPER.marked
        why = "none is marked yet; --stage all leaves stage 3 out until some are"
        paper = f"marked films that stage 3 may use; {most} is the paper's"
        return [(f"  marked: {most}", paper if marked is None else why)]
    if not (watched := _watched(marked)):
        return [(f"  marked: {marked}", "marked films that stage 3 may use: all there are")]
    return [
        (f"  marked: {marked - watched}", f"marked films that stage 3 may use, of {marked}"),
        (f"  watched: {watched}", "the others show after each epoch whether maps find lesions"),
    ]


def _watched(marked: int) -> int:
    """How many of the marked films nothing learns from: a tenth, where that is enough to tell."""
    found = min(_WATCHED[1], marked // 10)
    return found if found >= _WATCHED[0] else 0


def _machine_words(here: Machine) -> str:
    gpus = f"{here.gpus} GPU{'s' if here.gpus > 1 else ''}" if here.gpus else "no GPU"
    return f"{gpus}, {here.cores} CPU cores"
