"""`pcamx marks suggest --to TOOL`: the films worth marking, as a folder that the tool imports.

FOLDER/README.txt                      what to do with it
FOLDER/to_mark.csv, to_mark.png        the list and its contact sheet, as without --to
FOLDER/...                             what `pcamx.marking.tool_files` writes for the tool

Shapes: H W the film.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcamx.catalogue import best_map, resolve, trainable
from pcamx.data.canvas.decode import decode_whole
from pcamx.data.marks.names import stem
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.explain.maps import answer
from pcamx.explain.messages import Job
from pcamx.explain.read_film import Reading
from pcamx.marking.suggest import Suggestion, choose, opened
from pcamx.marking.tool_files import ToMark
from pcamx.marking.tools import TOOLS
from pcamx.output import refuse_anything, replacing_folder
from pcamx.progress import Say, Track, mute, silent
from pcamx.report.viewer.pictures import eight_bits
from pcamx.run.pretrained import Pretrained

LIST = "to_mark.csv"
_POINTS = 40
"""Of an outline, at most: each is one to drag."""


def suggest_to(
    tool: str,
    run: Path,
    count: int,
    out: Path,
    *,
    data: Path | None = None,
    track: Track = silent,
    say: Say = mute,
) -> list[Suggestion]:
    """Write the new folder ``out`` for ``tool``, a key of `TOOLS`; return what is to be marked.

    The candidates of the model's best map, whose peaks reach its level, are drawn in. Raises
    PcamxError as `pcamx.marking.suggest.suggest` does, where ``out`` is not empty, where a film
    cannot be decoded, two films differ by their suffixes alone, or a name is none for the tool.
    """
    with replacing_folder(out, refuse_anything) as draft:
        model, store = opened(run, data, say)
        chosen = choose(run, model, store, count, draft / LIST, track, say)
        films = list(track(_to_mark(model, store, chosen), "drawing films", len(chosen)))
        resolve(TOOLS[tool])(films, draft)
    return chosen


def _to_mark(model: Pretrained, store: Store, chosen: Sequence[Suggestion]) -> Iterator[ToMark]:
    threshold = model.thresholds[best_map(trainable(model.stage)).key]
    _check_names([film.path for film in store.films], [one.film.path for one in chosen])
    films = [one.film for one in chosen]
    # By the store's decoder: a store may hold what only that reads, as HTJ2K.
    decoded = decode_whole(store.root, films, device=model.device, threads=2)
    for one, grey_HW in zip(chosen, decoded, strict=True):
        reading = _reading(store, one.film, grey_HW)
        (found,) = answer(model, [reading], best_map(trainable(model.stage)))
        candidates = Job(reading, *found).candidates(threshold.value, threshold.level)
        yield ToMark(
            _name(one.film.path),
            reading.width,
            reading.height,
            _png(reading.shown_HW),
            [_thinned(candidate.outline.tolist()) for candidate in candidates],
            {"part": one.film.part, "reason": one.reason},
        )


def _check_names(films: Sequence[str], chosen: Sequence[str]) -> None:
    """Of two films of one name one would be written over the other, or its marks be nobody's."""
    named: dict[str, str] = {}
    for film in films:
        first = named.setdefault(_name(film), film)
        if first != film and not {first, film}.isdisjoint(chosen):
            raise PcamxError(
                f"{first} and {film} would have one name, as their suffixes alone differ; rename "
                "one of them and prepare again"
            )


def _name(film: str) -> str:
    path = PurePosixPath(film)
    return path.with_name(f"{stem(path.name)}.png").as_posix()


def _reading(store: Store, film: Film, grey_HW: NDArray[Any]) -> Reading:
    """What the manifest says of a film, with all its pixels to be drawn."""
    # Decoded beside a deeper film, an 8-bit film's 255 is 65535.
    white = 65535 if film.white == 255 else film.white
    return Reading(
        path=store.root / film.path,
        name=film.path,
        kind="",
        width=film.width,
        height=film.height,
        white=film.white,
        turn=1,
        sha256="",
        uids={},
        shown_HW=eight_bits(grey_HW, white),
        grey_HW=None,
    )


def _png(shown_HW: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(shown_HW).save(buffer, format="PNG")
    return buffer.getvalue()


def _thinned(closed: list[list[float]]) -> list[tuple[float, float]]:
    """A closed outline without its last point, and with few enough to be moved by hand."""
    step = -(-(len(closed) - 1) // _POINTS)
    return [(round(x, 2), round(y, 2)) for x, y in closed[:-1:step]]
