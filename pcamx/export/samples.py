"""Two drawn films with what the exported network answers to them, and their check on a copy.

FOLDER/samples/normal.png, abnormal.png   of the canvas's size, drawn: no patient's
FOLDER/samples/expected.npz               probability, map and lesion, float32, in that order
FOLDER/samples/sha256.json                digests of the other files of FOLDER

Shapes: B the films, H W the canvas.
"""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pcamx.data.phantom.film import draw_film
from pcamx.data.phantom.plan import plan_films
from pcamx.errors import MismatchError, PcamxError
from pcamx.export.graph import ONNX, Graph
from pcamx.run.exported import CONFIG, SAFETENSORS
from pcamx.run.pretrained import Pretrained, from_pretrained
from pcamx.seals import sealed, unsealed

SAMPLES = "samples"
FILMS = ("normal.png", "abnormal.png")
_EXPECTED, _DIGESTS = "expected.npz", "sha256.json"
_SEED, _DRAWN, _LEAST = 0, 32, 256
TOLERANCE = 1e-3
"""Largest difference on another machine, relative to an output's largest expected value."""

Answers = dict[str, NDArray[np.float32]]


def write_samples(model: Pretrained, folder: Path) -> None:
    """Draw the films and write the answers of ``model``, which is on the CPU, and all digests.

    Call it when the other files of ``folder`` are written.
    """
    samples = folder / SAMPLES
    samples.mkdir()
    plans = plan_films(_SEED, "valid", _DRAWN, ())
    for positive, name in enumerate(FILMS):
        plan = next(plan for plan in plans if plan.positive == bool(positive))
        film = Image.fromarray(draw_film(plan, max(_LEAST, model.canvas)).film)
        # Kept at the canvas's size: what reduces films on another machine has no part in it.
        square = (model.canvas, model.canvas)
        ImageOps.pad(film, square, Image.Resampling.BILINEAR).save(samples / name)
    np.savez(samples / _EXPECTED, **_ours(model, _read_films(samples)))  # type: ignore[arg-type]
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in _files(folder)}
    (samples / _DIGESTS).write_text(json.dumps(sealed(digests), indent=1) + "\n", encoding="utf-8")


def check_copy(folder: Path) -> dict[str, float]:
    """Hold a copy of an export against what it said where it was made.

    Digests of all files first, then the answers of the safetensors, and of the ONNX file where
    onnxruntime is installed, to the two films. Returns the largest difference of each, relative to
    the output's largest value. Raises MismatchError with what is missing, changed or differs by
    more than TOLERANCE.
    """
    _check_digests(folder)
    samples = folder / SAMPLES
    model = from_pretrained(folder, device="cpu")
    expected, image_B1HW = _read_expected(samples), _read_films(samples)
    answers = {SAFETENSORS: _ours(model, image_B1HW)}
    if find_spec("onnxruntime") is not None:
        answers[ONNX] = _theirs(folder / ONNX, image_B1HW)
    return {name: _difference(folder / name, one, expected) for name, one in answers.items()}


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _DIGESTS)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_digests(folder: Path) -> None:
    path = folder / SAMPLES / _DIGESTS
    try:
        digests = unsealed(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PcamxError(
            f"{path}: {error.strerror}; name the folder of a pcamx export with sample films"
        ) from None
    except ValueError as error:
        raise MismatchError(f"{path}: damaged ({error}); copy the export again") from None
    if not {CONFIG, SAFETENSORS, ONNX} <= digests.keys():
        raise MismatchError(f"{path}: damaged, names no model; copy the export again")
    known = {p.relative_to(folder).as_posix(): p for p in _files(folder)}
    for name, digest in digests.items():
        if name not in known:
            raise MismatchError(f"{folder / name}: missing; copy the export again")
        if _digest(known[name]) != digest:
            raise MismatchError(f"{folder / name}: changed, its SHA-256 is another; copy it again")


def _read_films(samples: Path) -> NDArray[np.float32]:
    films = [np.asarray(Image.open(samples / name), np.float32) for name in FILMS]
    return np.stack(films)[:, None]


def _read_expected(samples: Path) -> Answers:
    try:
        with np.load(samples / _EXPECTED, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        if not all(isinstance(one, np.ndarray) for one in found.values()):
            raise ValueError("no arrays")
        return found
    except (ValueError, BadZipFile) as error:
        raise MismatchError(f"{samples / _EXPECTED}: damaged ({error}); copy it again") from None


def _ours(model: Pretrained, image_B1HW: NDArray[np.float32]) -> Answers:
    graph = Graph(model).eval()
    with torch.no_grad():
        answers = graph(torch.from_numpy(image_B1HW))
    return {name: one.numpy() for name, one in zip(graph.outputs, answers, strict=True)}


def _theirs(path: Path, image_B1HW: NDArray[np.float32]) -> Answers:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image_B1HW}), strict=True))


def _difference(path: Path, found: Answers, expected: Answers) -> float:
    largest = 0.0
    for name, ours in expected.items():
        if name not in found or found[name].shape != ours.shape:
            raise MismatchError(f"{path}: gives no {name!r} as it was exported; export it again")
        difference = float(np.abs(found[name] - ours).max() / max(float(np.abs(ours).max()), 1e-12))
        if not difference <= TOLERANCE:
            raise MismatchError(
                f"{path}: {name!r} differs by {difference:.2g} of its largest value from what was "
                f"exported, more than {TOLERANCE:g}; try the versions that config.json names"
            )
        largest = max(largest, difference)
    return largest
