"""Checkpoints to resume a stage from; RUN/<stage>/checkpoints/, see `pcamx.run.paths`."""

import dataclasses
import hashlib
import json
import pickle
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pcamx.engine import (
    Ranks,
    frozen_state,
    load,
    load_failure,
    load_unoptimised,
    lost_rank,
    to_universal,
)
from pcamx.errors import PcamxError
from pcamx.output import folder_to_disk, refusal, refused, write_text
from pcamx.run.folder import RunFolder
from pcamx.run.paths import CHECKPOINTS
from pcamx.seals import sealed, unsealed

_KIND = "checkpoint"
_FROZEN = "frozen.pt"
"""Frozen parameters: a universal checkpoint has none, and the ranks' files would repeat them."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """Where a stage stands."""

    epoch: int = 0
    step: int = 0
    """Steps done within the epoch."""
    done: int = 0
    """Steps done since the stage began."""
    seconds: float = 0.0
    """Wall-clock time spent, summed over resumes."""


def save(engine: Any, folder: Path, progress: Progress, ranks: Ranks, config: str) -> None:
    """Write a checkpoint of model, optimizer, schedule, P, statistics and RNG; all ranks call it.

    ``folder`` is the stage's, in its run's, and ``config`` the digest of what may not change. The
    files are on the disk, not in the system's memory alone, before ``latest`` names them; the
    checkpoint it named before stays, others go.
    Raises PcamxError where the disk refuses; the earlier checkpoint is then intact.
    """
    tag = f"step{progress.done:08d}"
    root = folder / CHECKPOINTS
    try:
        if ranks.rank == 0:
            previous = _named(root)
            shutil.rmtree(root / tag, ignore_errors=True)
        dist.barrier()
        engine.save_checkpoint(str(root), tag=tag, save_latest=False)
        torch.save(_rank_state(engine, ranks), root / tag / f"rank_{ranks.rank}.pt")
        frozen = frozen_state(engine)
        if frozen and ranks.rank == 0:
            torch.save(frozen, root / tag / _FROZEN)
        dist.barrier()
        if ranks.rank == 0:
            facts = dataclasses.asdict(progress) | {"world": ranks.world} | _origin(folder, config)
            text = json.dumps(sealed(facts | {"files": _digests(root / tag)}), indent=1)
            folder_to_disk(root / tag)
            write_text(root / tag / "progress.json", text)
            write_text(root / "latest", tag)
    except (OSError, RuntimeError, PcamxError) as error:
        if not (refused(error) or isinstance(error, PcamxError)):
            raise  # another rank has gone, or something that more room would not mend
        with suppress(OSError):
            if _named(root) != tag:
                shutil.rmtree(root / tag, ignore_errors=True)
        raise PcamxError(
            f"cannot write checkpoint {root / tag}: {refusal(error)}; make room, then --resume"
        ) from None
    if ranks.rank == 0:
        _clear(root, (tag, previous))


def _clear(root: Path, kept: Collection[str]) -> None:
    """Remove other checkpoints; one that a disk holds on to goes another time."""
    with suppress(OSError):
        for old in root.iterdir():
            if old.is_dir() and old.name not in kept:
                shutil.rmtree(old, ignore_errors=True)


def _origin(folder: Path, config: str) -> dict[str, str | None]:
    """What tells a checkpoint from those of other stages, runs and settings."""
    run = RunFolder(folder.parent).id()
    return {"kind": _KIND, "stage": folder.name, "run": run, "config": config}


def _named(root: Path) -> str:
    """The checkpoint that ``latest`` names, "" without one."""
    latest = root / "latest"
    return latest.read_text(encoding="utf-8").strip() if latest.is_file() else ""


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` but progress.json."""
    found = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name != "progress.json"):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _rank_state(engine: Any, ranks: Ranks) -> dict[str, Any]:
    """What differs between ranks and is not DeepSpeed's: buffers and random generators."""
    state = {
        "buffers": dict(engine.module.named_buffers()),
        "rng": torch.get_rng_state(),
    }
    if ranks.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state(ranks.device)
    return state


def latest(
    folder: Path, config: str, earlier: Collection[str] = ()
) -> tuple[str, Progress, int] | None:
    """Return tag, progress and number of ranks of the newest whole checkpoint, None without one.

    Raises PcamxError where a file of it is missing or has changed since it was written, and where
    it is of another stage, run or ``config`` (as for `save`; ``earlier``: what an earlier pcamx may
    have had for it).
    """
    root = folder / CHECKPOINTS
    if not (root / "latest").is_file():
        return None
    tag = "unreadable"
    try:
        tag = _named(root)
        text = (root / tag / "progress.json").read_text(encoding="utf-8")
        facts = unsealed(json.loads(text))
        world, files, found = facts.pop("world"), facts.pop("files"), _digests(root / tag)
        bad = [name for name in files if files[name] != found.get(name)]
        why = f"{bad[0]} is {'damaged' if bad[0] in found else 'missing'}" if bad else ""
        if facts.get("config") in earlier:
            facts["config"] = config
        for key, ours in _origin(folder, config).items():
            # Not in those of an earlier pcamx; nor is the run known where its origin.json is gone.
            if facts.pop(key, ours) != ours is not None:
                why = why or f"it is of another {key}"
        progress = Progress(**facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        why = "its progress.json cannot be read"
    if why:
        others = sorted(p.parent.name for p in root.glob("*/progress.json") if p.parent.name != tag)
        mend = f"write {others[-1]} into" if others else f"remove {root}, or restore"
        raise PcamxError(f"checkpoint {root / tag}: {why}; {mend} {root / 'latest'}")
    return tag, progress, world


def for_any_ranks(folder: Path, tag: str) -> str:
    """Turn checkpoint ``tag`` into one that any number of ranks loads, and return its tag.

    All ranks call it. Raises PcamxError where DeepSpeed's tool cannot.
    """
    return to_universal(folder / CHECKPOINTS, tag)


def restore(engine: Any, folder: Path, tag: str, ranks: Ranks) -> None:
    """Load checkpoint ``tag`` into a fresh engine; all ranks call it.

    Raises PcamxError for a checkpoint of another model, and for a file that could run code.
    """
    root = folder / CHECKPOINTS
    try:
        loaded = load(engine, root, tag)
        if loaded:
            universal = tag.endswith("_universal")
            _restore_rank(engine, root / tag.removesuffix("_universal"), ranks, universal=universal)
    except PcamxError:
        raise
    except Exception as error:
        # DeepSpeed and torch raise pickle, zip, key, shape and assertion errors alike.
        if isinstance(error, RuntimeError) and lost_rank(error):
            raise
        if isinstance(error, pickle.UnpicklingError):
            raise PcamxError(
                f"{root / tag}: {load_failure(error)}; restore it, or remove {root}"
            ) from None
        raise PcamxError(f"{root / tag}: does not fit this model ({load_failure(error)})") from None
    if not loaded:
        raise PcamxError(f"{root / tag}: DeepSpeed found no checkpoint there")
    if tag.endswith("_universal"):
        dist.barrier()
        if ranks.rank == 0:
            shutil.rmtree(root / tag)


def _restore_rank(engine: Any, checkpoint: Path, ranks: Ranks, *, universal: bool) -> None:
    """Statistics, P and random state of this rank; of rank 0 for a rank that was not there.

    Always: a universal checkpoint holds what is optimised alone, no buffers, nothing frozen.
    """
    own = checkpoint / f"rank_{ranks.rank}.pt"
    file = own if own.is_file() else checkpoint / "rank_0.pt"
    state = torch.load(file, map_location="cpu", weights_only=True)
    kept = state["buffers"]
    if universal:
        kept |= _read_frozen(engine, checkpoint)
    load_unoptimised(engine, kept, frozen=universal)
    torch.set_rng_state(state["rng"])
    # A run that was begun on CPUs has none.
    if ranks.device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], ranks.device)


def _read_frozen(engine: Any, checkpoint: Path) -> dict[str, Tensor]:
    """The frozen parameters; PcamxError where an earlier pcamx did not keep them by themselves."""
    file = checkpoint / _FROZEN
    if file.is_file():
        frozen: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        return frozen
    if all(parameter.requires_grad for parameter in engine.module.parameters()):
        return {}
    world = len(list(checkpoint.glob("rank_*.pt")))
    raise PcamxError(
        f"{checkpoint}: an earlier pcamx kept no frozen parameters in it for another number of "
        f"ranks; resume it on {world}, as it was written"
    )
