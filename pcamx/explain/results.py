"""What is written of one film: picture, map, facts and, if asked for, a DICOM Segmentation.

Imports no torch, so that the processes that draw start fast.
"""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pcamx.data.files.file_content import one_line
from pcamx.data.files.image_header import UPRIGHT
from pcamx.errors import PcamxError
from pcamx.explain.candidates import Points, as_stored
from pcamx.explain.dicom_seg import MOST, write_segmentation
from pcamx.explain.drawing import picture
from pcamx.explain.messages import CALLED, Job, Row, Scored, Settings
from pcamx.explain.read_film import Reading
from pcamx.output import readable
from pcamx.report.figures.explained_film import draw
from pcamx.report.viewer.pictures import THUMB, write_film, write_maps

FORMAT = 1
FILMS, PICTURES = "films", "page"
_CELL = 4  # canvas pixels of one pixel of the map on index.html
_MEAN = Image.Resampling.BOX
FRAME = (
    "x, y in pixels of the upright film, 0 0 at its top left corner: the first pixel's centre is "
    "0.5 0.5"
)


def finish(folder: Path, settings: Settings, job: Job | Row) -> Row:
    """Write a film's files below ``folder``/films, the facts last; the row of one skipped is kept.

    One whose name leaves no room for what theirs end in is skipped. Raises OSError where the disk
    refuses.
    """
    if isinstance(job, Row):
        return job
    film = job.film
    stem, shown = folder / FILMS / film.name, folder / PICTURES / film.name
    if not _has_room(folder, _beside(shown, THUMB)):  # of all, it ends in the most letters
        return Row(film.name, f"its name is too long to end in {THUMB}, too; shorten it")
    candidates = job.candidates(settings.threshold, settings.level)
    stem.parent.mkdir(parents=True, exist_ok=True)
    _beside(stem, ".png").write_bytes(draw(picture(settings, job, candidates)))
    np.save(_beside(stem, ".npy"), job.map_HW)
    scored = tuple(Scored(job.score(one), one) for one in candidates)
    _draw_for_page(shown, job)
    segmentation = _beside(stem, ".seg.dcm")
    wanted = settings.dicom_seg and film.kind == "DICOM" and bool(candidates)
    reason = _segment(film.path, scored, segmentation) if wanted else ""
    facts = _facts(settings, job, scored)
    facts["segmentation"] = segmentation.name if wanted and not reason else None
    text = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)
    _beside(stem, ".json").write_text(text + "\n", encoding="utf-8")
    return Row(film.name, reason, film.width, film.height, job.probability, job.called(), scored)


def _has_room(folder: Path, path: Path) -> bool:
    """Tell whether the system takes such a path, whose folders may not be there yet."""
    for tried in (path, folder / path.name):
        try:
            tried.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return False
    return True


def _draw_for_page(stem: Path, job: Job) -> None:
    """What index.html shows: the film, and the map scaled over it, nothing where it is flat."""
    write_film(stem, job.film.shown_HW)
    width, height = (max(1, -(-side // _CELL)) for side in (job.place().width, job.place().height))
    share_hw = np.zeros((height, width), np.float32) if job.flat() else job.on_film()
    image = Image.fromarray(share_hw.astype(np.float32)).resize((width, height), _MEAN)
    write_maps(stem, [np.rint(255 * np.asarray(image)).clip(0, 255).astype(np.uint8)])


def _beside(stem: Path, ending: str) -> Path:
    """The film's own suffix stays: a.jpg and a.png may lie side by side."""
    return stem.with_name(stem.name + ending)


def _segment(film: Path, scored: tuple[Scored, ...], path: Path) -> str:
    """Write the DICOM Segmentation; why it could not be, if it could not."""
    scores, candidates = zip(*scored[:MOST], strict=True)
    try:
        write_segmentation(film, candidates, scores, path)
    except OSError:
        raise
    except PcamxError as error:
        return f"no segmentation: {error}"
    except Exception as error:  # highdicom raises many kinds of what it makes nothing of
        return f"no segmentation: highdicom makes nothing of the film ({one_line(error)})"
    return ""


def _facts(settings: Settings, job: Job, scored: tuple[Scored, ...]) -> dict[str, Any]:
    film, (low, high) = job.film, job.ends()
    name = Path(film.name).name
    stored = (film.width, film.height) if film.turn in UPRIGHT else (film.height, film.width)
    return {
        "format": FORMAT,
        "film": readable(str(film.path)),
        "name": film.name,
        "kind": film.kind,
        "sha256": film.sha256,
        "dicom": film.uids or None,
        "width": film.width,
        "height": film.height,
        "white": film.white,
        "exif_orientation": film.turn,
        "stored_size": stored,
        "probability": {"normal": 1 - job.probability, "abnormal": job.probability},
        "called": job.called(),
        "called_abnormal_from": CALLED,
        "map": {
            "of": settings.map,
            "class": "abnormal",
            "file": f"{name}.npy",
            "shape": job.map_HW.shape,
            "film_on_map": job.place()._asdict(),
            "low": low,
            "high": high,
            "flat": job.flat(),
        },
        "threshold": {"value": settings.threshold, "tuned": settings.tuned, "of": "scaled map"},
        "level": {"value": settings.level, "from": settings.level_from, "of": "map"},
        "frame": FRAME,
        "candidates": [_describe(film, low, high, one) for one in scored],
        "picture": f"{name}.png",
        **settings.about,
    }


def _describe(film: Reading, low: float, high: float, scored: Scored) -> dict[str, Any]:
    one = scored.candidate
    described: dict[str, Any] = {
        "score": scored.score,
        "map_value": low + one.value * (high - low),
        "scaled_value": one.value,
        "peak": _rounded(np.array(one.peak)),
        "box": _rounded(np.array(one.box)),
        "area": round(one.area, 2),
        "contour": _rounded(one.outline),
        "holes": [_rounded(hole) for hole in one.holes],
    }
    if film.turn != 1:
        stored = as_stored(one.outline, film.turn, film.width, film.height)
        corner, size = stored.min(0), np.ptp(stored, axis=0)
        described["as_stored"] = {
            "box": _rounded(np.concatenate([corner, size])),
            "contour": _rounded(stored),
        }
    return described


def _rounded(numbers: Points) -> list[Any]:
    """To hundredths of a pixel."""
    return list(numbers.round(2).tolist())
