"""One bit of a file changed, or bytes of an input: refused in a line, harmless, or a fault."""

import multiprocessing
import random
import resource
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.lib.torture.inputs import FUZZ, Use, draw_inputs, markers
from bench.lib.torture.runs import materials
from pcamx import from_pretrained
from pcamx.catalogue import STAGE_1
from pcamx.compare.measured import read_run
from pcamx.config import Data
from pcamx.data.canvas.provider import Decoded
from pcamx.data.files.file_content import UnfitError
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.evaluation.twins import read_twins
from pcamx.export import check_copy, export
from pcamx.run import checkpoints
from pcamx.run.folder import RunFolder
from pcamx.run.history import read_history
from pcamx.run.pretrained import save_pretrained
from pcamx.training.preflight import binding_digest

LIMIT = 20.0
"""Seconds of a processor that a reader may take; ten times that of the clock of a busy machine."""
MEMORY = 2 << 30
"""Bytes of its own that the worker may take, PyTorch and the decoder included."""
_SIDE = 32


@dataclass(frozen=True)
class Damage:
    """What is damaged: a prepared store, a run with a checkpoint, exports, inputs to fuzz."""

    folder: Path

    @property
    def sound(self) -> Path:
        """Never written to after it was made."""
        return self.folder / "sound"


def make(folder: Path) -> Damage:
    """Draw, prepare, train and export once; a later call finds it."""
    damage = Damage(folder)
    if not (damage.sound / "made").is_file():
        shutil.rmtree(damage.sound, ignore_errors=True)
        materials(damage.sound)
        (damage.sound / "export").mkdir()
        save_pretrained(
            from_pretrained(damage.sound / "run", device="cpu"), damage.sound / "export"
        )
        export(damage.sound / "run", damage.sound / "whole")
        draw_inputs(damage.sound / "inputs")
        (damage.sound / "made").write_text("")
    return damage


def _checkpoint(folder: Path) -> Any:
    run = RunFolder(folder / "run")
    return checkpoints.latest(
        run.stage(STAGE_1.key), binding_digest(run.read_config(), STAGE_1.key)
    )


def _weights(folder: Path) -> Any:
    weights = RunFolder(folder / "run").load_weights(STAGE_1.key)
    return {name: value.tolist() for name, value in weights.state.items()}, weights.accuracy


def _export(folder: Path) -> Any:
    model = from_pretrained(folder / "export", device="cpu")
    facts = model.stage, model.canvas, model.mean, model.std, dict(model.thresholds)
    return facts, [value.tolist() for value in model.network.state_dict().values()]


def _store(folder: Path) -> Any:
    store = read_store(folder / "store")
    for film in store.films:
        if film.mark:
            store.check_mark(film)
    # Another time of a file has its digest looked at again, no more.
    contents = {path: one._replace(modified_ns=0) for path, one in store.contents.items()}
    return store.films, store.mean, store.std, contents


def _measured(folder: Path) -> Any:
    found = read_run(folder / "run", "")
    return found.report, found.films


def _twins(folder: Path) -> Any:
    films, twins = read_store(folder / "store"), read_store(folder / "twins")
    return read_twins(twins, films.split("valid"), twins.split("valid"), films.contents)


def _canvases(folder: Path) -> Any:
    store, data = read_store(folder / "store"), Data(store="", canvas=_SIDE, threads=1)
    rows = np.arange(len(store.split("train")))
    ((canvas, row),) = Decoded(data, store, torch.device("cpu")).split("train")([rows])
    return canvas[row].tolist()


_RUN = RunFolder(Path("run"))
# What is made of the folder with the changed file: equal where it means the same.
FLIPS: Mapping[str, Use] = {
    str(_RUN.weights(STAGE_1.key)): _weights,
    str(_RUN.config_file): _weights,
    str(_RUN.origin_file): lambda folder: RunFolder(folder / "run").id(),
    f"{_RUN.checkpoints(STAGE_1.key)}/*/*": _checkpoint,
    "export/config.json": _export,
    "export/model.safetensors": _export,
    "whole/**/*": lambda folder: sorted(check_copy(folder / "whole")),
    str(_RUN.report_file): _measured,
    str(_RUN.films_file): _measured,
    "store/store.json": _store,
    "store/manifest.csv": _store,
    "store/content.csv": _store,
    "store/marks/**/*.png": _store,
    "store/cache/*.canvases": _canvases,
    "films/MURA-v1.1/train/**/*.png": _canvases,
}

# What a person may write as well has no digest: any change that can be read is what it says.
OPEN: Mapping[str, Use] = {
    str(_RUN.history_file): lambda folder: read_history(RunFolder(folder / "run")),
    str(_RUN.config_file): lambda folder: RunFolder(folder / "run").read_config(),
    "films/MURA-v1.1/markers.csv": lambda folder: markers(folder / "films/MURA-v1.1/markers.csv"),
    "films/twins/twins.csv": _twins,
}

_ODD = (b"1e999", b"-1", b"0", b"9" * 400, b"\xff\xfe", b"null", b"[" * 2000, b"NaN", b"\0" * 8)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Make a few random edits: bits, slices cut, doubled or zeroed, numbers made extreme."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        start = rng.randrange(len(data) or 1)
        length = rng.choice((1, 4, 64, 1000))
        piece = bytes(data[start : start + length])
        new = rng.choice((b"", piece * 2, bytes(len(piece)), rng.randbytes(length), *_ODD))
        if rng.random() < 0.4 and data:
            data[start] ^= 1 << rng.randrange(8)
        else:
            data[start : start + len(piece)] = new
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)


def _trial(sound: Path, work: Path, seed: int, trial: int, kind: str) -> dict[str, str]:
    rng = random.Random(f"{seed} {trial}")
    table = {**FLIPS, **OPEN} if kind == "flip" else FUZZ
    pattern = rng.choice(sorted(table))
    path = rng.choice(sorted(p for p in work.glob(pattern) if p.is_file()))
    content = path.read_bytes()
    if kind == "fuzz":
        changed = mutate(content, rng)
    else:
        hurt, place = bytearray(content), rng.randrange(len(content))
        hurt[place] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:  # as a bad disk leaves a block
            hurt[place : place + 65536] = bytes(len(hurt[place : place + 65536]))
        changed = bytes(hurt)
    what, begun = f"{path.relative_to(work)}, {len(content)} bytes", time.process_time()
    try:
        path.write_bytes(changed)
        found = table[pattern](work if kind == "flip" else path)
        if kind == "flip" and changed != content and found != table[pattern](sound):
            if pattern in OPEN:
                return {"came": "taken as it says", "what": what, "said": ""}
            return {"came": "fault", "what": what, "said": "used without a word"}
        return {"came": "read", "what": what, "said": ""}
    except (PcamxError, UnfitError) as error:
        fine = "\n" not in str(error) and time.process_time() - begun < LIMIT
        return {"came": "refused" if fine else "fault", "what": what, "said": str(error)}
    except Exception:
        return {"came": "fault", "what": what, "said": traceback.format_exc()}
    finally:
        path.write_bytes(content)


def _worker(damage: Damage, seed: int, trials: Sequence[tuple[int, str]], pipe: Any) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    work = damage.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(damage.sound, work, symlinks=True)
    for trial, kind in trials:
        pipe.send(trial)
        pipe.send(_trial(damage.sound, work, seed, trial, kind))


def in_a_worker(
    damage: Damage, seed: int, trials: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Do the trials in a process of their own; one that it dies or hangs on is a fault."""
    left = list(trials)
    while left:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_worker, args=(damage, seed, left, theirs))
        process.start()
        theirs.close()
        try:
            while left:
                ours.recv()  # which it begins; the first only after its imports
                if not ours.poll(10 * LIMIT):
                    process.kill()
                    yield (
                        *left.pop(0),
                        {"came": "fault", "what": f"over {10 * LIMIT:g} s", "said": ""},
                    )
                    break
                yield (*left.pop(0), ours.recv())
        except EOFError:
            process.join()
            code = process.exitcode
            yield (*left.pop(0), {"came": "fault", "what": f"died with {code}", "said": ""})
        process.join()
