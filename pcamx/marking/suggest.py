"""`pcamx marks suggest`: which abnormal training films are worth marking next.

The score is that of `pcamx.marking.wrong_attention`. Body parts take turns, each giving its
highest score first; ties go by path.

Shapes: B batch, H W the canvas.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pcamx import metrics
from pcamx.catalogue import POSITIVE_CAM
from pcamx.data.canvas.placement import fit, on_film
from pcamx.data.csv_files import csv_rows
from pcamx.data.store import Film, Store, read_store
from pcamx.devices import command_device
from pcamx.errors import PcamxError
from pcamx.marking import film_tiles
from pcamx.marking.ancestors import without_marked
from pcamx.marking.wrong_attention import Signs, measure
from pcamx.model.maps import explain
from pcamx.output import counted, replacing_files, safe_cell, write_text
from pcamx.progress import Say, Track, mute, silent
from pcamx.report.figures.contact_sheet import FILMS, check_place, save_sheet
from pcamx.report.figures.film_figure import Panel
from pcamx.run.folder import RunFolder
from pcamx.run.pretrained import Pretrained, from_pretrained
from pcamx.types import ABNORMAL

SHEET = ".png"
COLUMNS = ("path", "part", "probability", "score", "reason")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One row of the list."""

    film: Film
    signs: Signs
    score: float
    reason: str


def suggest(
    run: Path,
    count: int,
    out: Path,
    *,
    data: Path | None = None,
    track: Track = silent,
    say: Say = mute,
) -> list[Suggestion]:
    """Write the csv ``out`` and its contact sheet; the films to mark, the most worth it first.

    ``run`` is measured by its last finished stage, on the store it was trained on or on ``data``.
    A store that was prepared anew since, with more marks as it may be, is taken as it is, and said.
    Films that were marked for a run which ``run`` goes on from are passed over, and counted.
    Raises PcamxError where there is no trained network, no store, or no film left to mark.
    """
    return choose(run, *opened(run, data, say), count, out, track, say)


def choose(
    run: Path, model: Pretrained, store: Store, count: int, out: Path, track: Track, say: Say
) -> list[Suggestion]:
    """Do as `suggest` with what `opened` has returned of ``run``."""
    if count < 1:
        raise PcamxError(f"--count {count}: ask for 1 film or more")
    check_place(out, ".csv")
    check_place(out.with_suffix(SHEET), SHEET)
    if out.exists() and next(csv_rows(out), (0, []))[1] != list(COLUMNS):
        raise PcamxError(f"{out} is no list of films to mark; choose another --out")
    films = _without_mark(run, store, say)
    signs = measure(model, store, films, track)
    chosen = [
        Suggestion(films[i], signs[i], signs[i].score(), signs[i].reason())
        for i in in_turn(films, [sign.score() for sign in signs])[:count]
    ]
    panels = _panels(model, store, chosen[:FILMS], track)
    with replacing_files(out.parent, seen=[out.with_suffix(SHEET).name]) as draft:
        save_sheet(
            panels,
            draft / out.with_suffix(SHEET).name,
            f"{run}: the first {min(FILMS, len(chosen))} of {len(chosen)} films to mark, "
            f"P(abnormal) in brackets; on top the {POSITIVE_CAM.title} of stage {model.stage}, "
            "min-max per film",
        )
        write_text(draft / out.name, _csv(chosen))
    return chosen


def _without_mark(run: Path, store: Store, say: Say) -> list[Film]:
    """The films to choose from; those that were marked for an earlier run are not."""
    films = [film for film in store.split("train") if film.label == ABNORMAL and not film.mark]
    left = without_marked(films, store, RunFolder(run), say)
    if passed := len(films) - len(left):
        say(
            f"{counted(passed, 'film')} passed over: marked for a run that {run} goes on from, "
            "which did not learn from those marks"
        )
    if not left:
        raise PcamxError(f"{store.folder}: every abnormal training film has a mark already")
    return left


def opened(run: Path, data: Path | None, say: Say) -> tuple[Pretrained, Store]:
    """Return the run's last finished stage and the store that it was trained on, or ``data``."""
    return from_pretrained(run, device=command_device()), read_store(data or _store(run, say))


def _store(run: Path, say: Say) -> Path:
    folder = RunFolder(run)
    if not folder.is_run():
        raise PcamxError(f"{run}: an export names no films; say where they are with --data STORE")
    store = folder.find_store(folder.read_config(), anew=True)
    if not folder.is_of(store):
        say(f"{store} was prepared anew since {run} began; its films are taken as they are now")
    return store


def in_turn(films: Sequence[Film], score: Sequence[float]) -> list[int]:
    """Return the indices of the films: parts take turns, each with its highest score first."""
    order = sorted(range(len(films)), key=lambda i: (-score[i], films[i].path))
    turn: dict[str, int] = {}
    turns = []
    for place, i in enumerate(order):
        part = films[i].part
        turn[part] = turn.get(part, -1) + 1
        turns.append((turn[part], place, i))
    return [i for _, _, i in sorted(turns)]


@torch.no_grad()
def _panels(
    model: Pretrained, store: Store, chosen: Sequence[Suggestion], track: Track
) -> list[Panel]:
    panels: list[Panel] = []
    films = [one.film for one in chosen]
    for batch, canvas_B1HW in film_tiles.batches(
        store, films, model.canvas, model.device, track, "drawing films"
    ):
        _, maps = explain(model.network, model.standardise(canvas_B1HW), [POSITIVE_CAM])
        map_BHW = metrics.minmax(maps[POSITIVE_CAM.key]).float()
        for k, film in enumerate(batch):
            one = chosen[len(panels)]
            place = fit(film.width, film.height, model.canvas)
            panels.append(
                Panel(
                    title=film.path,
                    caption=f"{film.part} ({one.signs.probability:.2f}), {one.reason}".lstrip(),
                    image_HW=on_film(canvas_B1HW[k, 0], place).cpu().numpy(),
                    maps={POSITIVE_CAM.title: on_film(map_BHW[k], place).cpu().numpy()},
                )
            )
    return panels


def _csv(chosen: Sequence[Suggestion]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in chosen:
        figures = (f"{one.signs.probability:.4f}", f"{one.score:.4f}")
        film = map(safe_cell, (one.film.path, one.film.part))
        rows.writerow((*film, *figures, one.reason))
    return text.getvalue()
