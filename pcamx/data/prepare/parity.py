"""Transcoding, and what it has changed: measured on every film through DALI, with a report."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pcamx.data.canvas.decode import decode_batches, decode_whole
from pcamx.data.prepare.transcode import Kind, to_8_bits, write_films
from pcamx.data.store import FILMS, REPORT, Film
from pcamx.errors import PcamxError
from pcamx.progress import Track

Grey = npt.NDArray[Any]
CANVAS = 320
"""Side on which JPEG's error is measured beside the films' own size; the config's default."""
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Difference:
    """In grey levels on 0..255, over all pixels of all films."""

    mean: float
    p999: int
    """99.9 % of the pixels differ by no more."""
    max: int


@dataclass(frozen=True, slots=True)
class Parity:
    """What a format costs in bytes and changes in grey levels."""

    format: Kind
    films: int
    deeper_than_8_bits: int
    """Films that were so before; JPEG holds 8, HTJ2K all of them."""
    bytes_before: int
    bytes_after: int
    decoder: str
    """Where DALI decoded: cpu, or the GPU's name."""
    on_films: Difference | None
    """In the films' own size; None for htj2k, whose films are the same to the bit."""
    on_canvas: Difference | None
    """Reduced to CANVAS, as training sees them; None as above."""

    def summary(self) -> str:
        """Return one line for people."""
        ratio = self.bytes_after / self.bytes_before
        size = f"{self.films} films as {self.format}, {ratio:.0%} of their bytes"
        if self.on_films is None:
            return f"{size}, the same to the bit"
        return f"{size}, grey levels {self.on_films.mean:.2f} of 255 apart on average"


def transcode_films(
    root: Path,
    draft: Path,
    films: Sequence[Film],
    kind: Kind,
    workers: int | None,
    track: Track,
) -> tuple[list[Film], Parity]:
    """Write the films below ``draft``, compare each with what it was, and report.

    Returns them as the manifest is to have them. Raises as `write_films` and `compare`.
    """
    new = write_films(root, draft, films, kind, workers=workers, track=track)
    before, after = _Films(root, films), _Films(draft / FILMS, new)
    parity = compare(before, after, kind, track)
    _write_report(draft, parity)
    return new, parity


class _Films(NamedTuple):
    """Films and the folder that they lie in."""

    root: Path
    films: Sequence[Film]


def compare(before: _Films, after: _Films, kind: Kind, track: Track) -> Parity:
    """Decode every film of both folders and compare; ``after`` holds them transcoded, in order.

    Raises PcamxError where an HTJ2K film is not the same to the bit, or DALI cannot read one.
    """
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    threads = len(os.sched_getaffinity(0))
    pairs = zip(
        decode_whole(before.root, before.films, device=device, threads=threads),
        decode_whole(after.root, after.films, device=device, threads=threads),
        strict=True,
    )
    shown = track(pairs, "comparing films", len(before.films))
    on_films = on_canvas = None
    if kind == "htj2k":
        _check_exact(shown, before)
    else:
        on_films = _difference(_levels(shown, before, after))
        canvases = zip(*(_canvases(s, device, threads) for s in (before, after)), strict=True)
        steps = -(-len(before.films) // _BATCH)
        on_canvas = _difference(track(canvases, "comparing canvases, 32 at a time", steps))
    return Parity(
        format=kind,
        films=len(before.films),
        deeper_than_8_bits=sum(film.white != 255 for film in before.films),
        bytes_before=_bytes(before),
        bytes_after=_bytes(after),
        decoder=torch.cuda.get_device_name() if gpu else "cpu",
        on_films=on_films,
        on_canvas=on_canvas,
    )


def _check_exact(pairs: Iterable[tuple[Grey, Grey]], before: _Films) -> None:
    for film, (ours, theirs) in zip(before.films, pairs, strict=True):
        if not np.array_equal(ours, theirs):
            raise PcamxError(
                f"{before.root / film.path}: DALI decodes other grey levels from its HTJ2K copy; "
                "leave out --transcode, and report this film"
            )


def _levels(
    pairs: Iterable[tuple[Grey, Grey]], before: _Films, after: _Films
) -> Iterator[tuple[Grey, Grey]]:
    """The same in 8 bits."""
    for old, new, (ours, theirs) in zip(before.films, after.films, pairs, strict=True):
        yield _eight_bits(ours, old), _eight_bits(theirs, new)


def _eight_bits(grey_HW: Grey, film: Film) -> Grey:
    if grey_HW.dtype == np.uint8:
        return grey_HW
    return to_8_bits(grey_HW, 65535 if film.white == 255 else film.white)


def _canvases(store: _Films, device: torch.device, threads: int) -> Iterator[Grey]:
    count = len(store.films)
    batches = [range(i, min(i + _BATCH, count)) for i in range(0, count, _BATCH)]
    decoded = decode_batches(
        store.root, store.films, batches, CANVAS, device=device, threads=threads
    )
    return (canvas_B1HW.cpu().numpy() for canvas_B1HW in decoded)


def _difference(pairs: Iterable[tuple[Grey, Grey]]) -> Difference:
    pixels = np.zeros(256, np.int64)  # by their difference
    for ours, theirs in pairs:
        apart = np.abs(ours.astype(np.int16) - theirs)
        pixels += np.bincount(apart.ravel(), minlength=256)
    share = pixels.cumsum() / pixels.sum()
    return Difference(
        mean=float(pixels @ np.arange(256) / pixels.sum()),
        p999=int(np.searchsorted(share, 0.999)),
        max=int(pixels.nonzero()[0][-1]),
    )


def _bytes(store: _Films) -> int:
    return sum((store.root / film.path).stat().st_size for film in store.films)


def _write_report(folder: Path, parity: Parity) -> None:
    """Write transcode_report.json and .md into ``folder``."""
    tree = asdict(parity) | {"canvas": CANVAS}
    (folder / f"{REPORT}.json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    (folder / f"{REPORT}.md").write_text(_page(parity), encoding="utf-8")


def _page(parity: Parity) -> str:
    ratio = parity.bytes_after / parity.bytes_before
    lines = [
        f"# Films written as {parity.format}",
        "",
        f"{parity.films} films, decoded by DALI ({parity.decoder}) before and after.",
        "",
        "| | |",
        "|---|---|",
        f"| bytes before | {parity.bytes_before:,} |",
        f"| bytes after | {parity.bytes_after:,} ({ratio:.0%}) |",
    ]
    if parity.on_films is None:
        lines.append("| grey levels | the same to the bit in every film |")
    for where, found in (
        ("in the films' own size", parity.on_films),
        (f"on canvases of {CANVAS} px", parity.on_canvas),
    ):
        if found is not None:
            levels = f"mean {found.mean:.3f}, 99.9 % of pixels {found.p999}, largest {found.max}"
            lines.append(f"| grey levels of 255 apart, {where} | {levels} |")
    if parity.format == "jpeg" and parity.deeper_than_8_bits:
        lines += ["", f"{parity.deeper_than_8_bits} films deeper than 8 bits were scaled to 8."]
    if parity.format == "jpeg":
        lines += ["", "What this does to a trained network: `pcamx evaluate RUN --store STORE`."]
    return "\n".join(lines) + "\n"
