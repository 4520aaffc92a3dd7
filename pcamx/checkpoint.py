"""What a run's folder holds of each stage: checkpoints to resume from, weights to start from.

RUN/config.yaml                  as resolved
RUN/metrics.jsonl                one line per logged step and per validation
RUN/stage1/checkpoints/latest    name of the newest whole checkpoint
RUN/stage1/checkpoints/<tag>/    DeepSpeed's files, rank_<r>.pt, progress.json
RUN/stage1/weights.pt            the finished stage: network weights, P and what made them
"""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pcamx.config import Config
from pcamx.engine import Ranks
from pcamx.errors import PcamxError

_KEEP = 2


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A finished stage."""

    stage: int
    layout: str
    canvas: int
    accuracy: float
    seconds: float
    epochs: int
    world: int
    device: str
    state: dict[str, Tensor]


def stage_folder(config: Config, number: int) -> Path:
    """Folder of one stage inside the run's."""
    return Path(config.run.folder) / f"stage{number}"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PcamxError(f"cannot write {path}: {error.strerror}") from None


def save(engine: Any, folder: Path, progress: Progress, ranks: Ranks) -> None:
    """Write a checkpoint of model, optimizer, schedule, P, statistics and RNG; all ranks call it.

    ``latest`` names it only when every file is there; older ones go, the newest two stay.
    Raises PcamxError where the disk refuses; the earlier checkpoint is then intact.
    """
    tag = f"step{progress.done:08d}"
    root = folder / "checkpoints"
    try:
        if ranks.rank == 0:
            shutil.rmtree(root / tag, ignore_errors=True)
        dist.barrier()
        engine.save_checkpoint(str(root), tag=tag, save_latest=False)
        torch.save(_rank_state(engine, ranks), root / tag / f"rank_{ranks.rank}.pt")
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise PcamxError(f"cannot write checkpoint {root / tag}: {reason}") from None
    dist.barrier()
    if ranks.rank == 0:
        facts = dataclasses.asdict(progress) | {"world": ranks.world}
        write_text(root / tag / "progress.json", json.dumps(facts))
        write_text(root / "latest", tag)
        for old in sorted(p for p in root.iterdir() if p.is_dir())[:-_KEEP]:
            shutil.rmtree(old)


def _rank_state(engine: Any, ranks: Ranks) -> dict[str, Any]:
    """What differs between ranks and is not DeepSpeed's: buffers and random generators."""
    state = {
        "buffers": dict(engine.module.named_buffers()),
        "rng": torch.get_rng_state(),
    }
    if ranks.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state(ranks.device)
    return state


def latest(folder: Path) -> tuple[str, Progress, int] | None:
    """Tag, progress and number of ranks of the newest whole checkpoint, None without one."""
    root = folder / "checkpoints"
    if not (root / "latest").is_file():
        return None
    tag = (root / "latest").read_text().strip()
    try:
        facts = json.loads((root / tag / "progress.json").read_text())
        world = facts.pop("world")
        return tag, Progress(**facts), world
    except (OSError, ValueError, KeyError, TypeError):
        raise PcamxError(
            f"{root / tag}: not a whole checkpoint; name another one in {root / 'latest'}"
        ) from None


def restore(engine: Any, folder: Path, tag: str, ranks: Ranks) -> None:
    """Load checkpoint ``tag`` into a fresh engine; all ranks call it.

    Raises PcamxError for a checkpoint of another model.
    """
    root = folder / "checkpoints"
    try:
        loaded, _ = engine.load_checkpoint(str(root), tag=tag)
    except (RuntimeError, KeyError, AssertionError) as error:
        raise PcamxError(
            f"{root / tag}: does not fit this model ({str(error).splitlines()[0]})"
        ) from None
    if loaded is None:
        raise PcamxError(f"{root / tag}: DeepSpeed found no checkpoint there")
    # After a change in the number of ranks there is no file of this rank's own; rank 0's statistics
    # came with the model.
    own = root / tag.removesuffix("_universal") / f"rank_{ranks.rank}.pt"
    if tag.endswith("_universal") or not own.is_file():
        return
    state = torch.load(own, map_location="cpu", weights_only=True)
    buffers = dict(engine.module.named_buffers())
    for name, value in state["buffers"].items():
        buffers[name].copy_(value)
    torch.set_rng_state(state["rng"])
    if ranks.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"], ranks.device)


def save_weights(path: Path, weights: Weights) -> None:
    """Write a finished stage's weights whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    facts = {f.name: getattr(weights, f.name) for f in dataclasses.fields(weights)}
    try:
        torch.save(facts, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise PcamxError(f"cannot write {path}: {str(error).splitlines()[0]}") from None


def load_weights(path: Path) -> Weights:
    """Read what `save_weights` wrote, tensors and plain values only.

    Raises PcamxError where the file is missing or something else.
    """
    try:
        return Weights(**torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise PcamxError(f"{path}: no such weights; train that stage first") from None
    except Exception as error:
        # torch.load raises pickle, zip, runtime and key errors alike for a foreign file.
        raise PcamxError(
            f"{path}: not a stage's weights ({type(error).__name__}); expected a weights.pt"
        ) from None


def fill(network: nn.Module, weights: Weights, path: Path, *, layout: str) -> list[str]:
    """Put ``weights`` into ``network``; returns the parameters that they do not hold.

    Raises PcamxError where they belong to another layout.
    """
    if weights.layout != layout:
        raise PcamxError(
            f"{path}: weights of the {weights.layout} layout, the config says {layout}; "
            "set model.layout or start from another run"
        )
    known = network.state_dict()
    state = {name: value for name, value in weights.state.items() if name in known}
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys
    except RuntimeError:
        raise PcamxError(f"{path}: weights of another model") from None
    return list(missing)
