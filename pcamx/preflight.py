"""What must hold before a run's first step: said at once, not after the hours of stage 1."""

from importlib.util import find_spec
from pathlib import Path

import torch

from pcamx import checkpoint, engine
from pcamx import config as configs
from pcamx.config import Config
from pcamx.data.order import by_class, choose_marked, steps_per_epoch
from pcamx.data.store import Store, fingerprint
from pcamx.errors import PcamxError
from pcamx.types import ABNORMAL

_FREE = (
    "data.threads",
    "data.feed",
    "data.cache",
    "runtime.log_every",
    "runtime.save_every",
    "deepspeed.",
)
"""Keys that change no figure, and so may change within a run."""
STORE_SEEN = "store.sha256"
"""In the run's folder: fingerprint of the store it is trained on."""


def check(config: Config, store: Store, numbers: list[int], *, world: int, resume: bool) -> None:
    """Check the run's folder, the batch, the films and the starting weights; writes nothing.

    Raises PcamxError for what stands in the way of stages ``numbers`` on ``world`` ranks.
    """
    _check_folder(config, numbers, resume)
    check_store(Path(config.run.folder), store.folder)
    engine.deepspeed_config(config, world)
    if config.deepspeed.tensorboard.enabled and find_spec("tensorboard") is None:
        raise PcamxError(
            "deepspeed.tensorboard.enabled: the package tensorboard is missing; "
            "pip install 'pcamx[tensorboard]'"
        )
    if config.attention.impl == "triton" and not torch.cuda.is_available():
        raise PcamxError("attention.impl: triton needs an NVIDIA GPU; set it to auto")
    _check_films(config, store, numbers)
    for number in numbers:
        folder = checkpoint.stage_folder(config, number)
        if resume and ((folder / "weights.pt").is_file() or checkpoint.latest(folder)):
            continue
        path = start_weights(config, number)
        trained_first = [checkpoint.stage_folder(config, n) for n in numbers if n < number]
        if path is not None and path.parent not in trained_first:
            checkpoint.load_start(path, config, number)


def check_store(run: Path, store: Path) -> None:
    """Refuse a store that was prepared anew since the run began: its splits may be others."""
    seen = run / STORE_SEEN
    if seen.is_file() and seen.read_text(encoding="utf-8").strip() != fingerprint(store):
        raise PcamxError(
            f"{store} was prepared anew since {run} began; set run.folder to a new folder"
        )


def binding_differences(config: Config, other: Config) -> list[str]:
    """Dotted keys, with both values, in which two configs differ and may not within one run."""
    return [line for line in configs.differences(config, other) if not line.startswith(_FREE)]


def start_weights(config: Config, number: int) -> Path | None:
    """The weights.pt that a stage starts from, None where it starts from scratch."""
    start: str = getattr(config.stages, f"stage{number}").init_from
    if start == "scratch":
        return None
    if start in ("stage1", "stage2"):
        return checkpoint.stage_folder(config, int(start[-1])) / "weights.pt"
    return Path(start)


def _check_folder(config: Config, numbers: list[int], resume: bool) -> None:
    """Refuse to mix runs: another config in the same folder, or a stage begun without --resume."""
    folder = Path(config.run.folder)
    if folder.exists() and not folder.is_dir():
        raise PcamxError(f"run.folder: {folder} is a file; set it to a new folder")
    there = [n for n in (1, 2, 3) if checkpoint.stage_folder(config, n).exists()]
    if there and (folder / "config.yaml").is_file():
        changed = binding_differences(config, configs.load(folder / "config.yaml"))
        if changed:
            raise PcamxError(
                f"{folder} holds a run with another config ({'; '.join(changed[:3])}); "
                "set run.folder to a new folder"
            )
    begun = [n for n in numbers if n in there]
    if begun and not resume:
        raise PcamxError(
            f"{folder} already holds stage {begun[0]}: add --resume to continue it, or set "
            "run.folder to a new folder"
        )
    if resume and not begun:
        asked = ", ".join(map(str, numbers))
        raise PcamxError(
            f"{folder} holds nothing of stage {asked} to resume; leave out --resume to start"
        )


def _check_films(config: Config, store: Store, numbers: list[int]) -> None:
    train, objective = store.split("train"), config.objective
    for split in ("train", "valid"):
        if not store.split(split):
            raise PcamxError(f"{store.folder}: no film is in the {split} split; prepare it anew")
    if config.data.balanced and (lacking := [n for n, i in by_class(train).items() if not i]):
        raise PcamxError(
            f"{store.folder}: data.balanced needs films of both classes, and no training film is "
            f"{'abnormal' if lacking == [ABNORMAL] else 'normal'}; set it to false"
        )
    for number in numbers:
        marked = objective.marked_per_batch if number == 3 else 0
        steps_per_epoch(len(train), config.runtime.batch_size, marked)
    if 3 in numbers and not choose_marked(train, config.data.marked, seed=config.run.seed):
        raise PcamxError(
            "data.marked: 0 leaves stage 3 no lesion to learn from; raise it"
            if config.data.marked == 0
            else f"{store.folder}: stage 3 needs an abnormal training film with a lesion mark, "
            "and there is none; run pcamx prepare with --marks"
        )
