"""What is written of all films together: films.csv, coco.json and explain.json."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcamx.explain.messages import Row
from pcamx.explain.results import FILMS, FRAME
from pcamx.output import safe_cell

TABLE, COCO, HEAD = "films.csv", "coco.json", "explain.json"
COLUMNS = (
    *("film", "skipped", "probability", "called", "candidates"),
    *("score", "left", "top", "width", "height", "picture"),
)


def write_summary(folder: Path, rows: Sequence[Row], head: dict[str, Any]) -> None:
    """Write the three files into ``folder``; ``head`` goes into explain.json."""
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(map(_line, rows))
    _write(folder / COCO, coco(rows, head))
    _write(folder / HEAD, head)


def _line(row: Row) -> list[object]:
    """A row of films.csv: score and box are those of the film's first candidate."""
    if row.probability is None:
        return [safe_cell(row.film), row.reason, *[""] * 9]
    first: list[object] = [""] * 5
    if row.candidates:
        score, best = row.candidates[0]
        first = [round(score, 4), *(round(side, 2) for side in best.box)]
    return [
        safe_cell(row.film),
        row.reason,
        round(row.probability, 4),
        row.called,
        len(row.candidates),
        *first,
        f"{FILMS}/{row.film}.png",
    ]


def coco(rows: Sequence[Row], head: dict[str, Any]) -> dict[str, Any]:
    """Return the candidates as a COCO data set; `COCO.loadRes` takes its annotations as results,
    too.

    Frame and files are those of the upright film. A hole, which a COCO polygon cannot have, counts
    as filled.
    """
    seen = [row for row in rows if row.probability is not None]
    images = [
        {"id": i, "file_name": row.film, "width": row.width, "height": row.height}
        for i, row in enumerate(seen, 1)
    ]
    pairs = [(i, *scored) for i, row in enumerate(seen, 1) for scored in row.candidates]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "bbox": [round(side, 2) for side in one.box],
            "segmentation": [one.outline[:-1].round(2).ravel().tolist()],
            "area": round(one.area, 2),
            "iscrowd": 0,
            "score": score,
        }
        for number, (image, score, one) in enumerate(pairs, 1)
    ]
    return {
        "info": {"description": "lesion candidates of pcamx explain", "frame": FRAME, **head},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "lesion"}],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
