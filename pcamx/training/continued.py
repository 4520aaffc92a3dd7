"""A run that goes on from another with more marks: its folder, ready for stage 3's training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pcamx import config as configs
from pcamx.catalogue import STAGE_3, StageId, trainable
from pcamx.config import Config, ConfigError
from pcamx.data.feed.order import choose_marked
from pcamx.data.prepare.more_marks import MoreMarks, add_marks
from pcamx.data.store import CACHE, Store, read_store
from pcamx.errors import PcamxError
from pcamx.output import refuse_anything, replacing_folder, write_text
from pcamx.progress import Track, silent
from pcamx.run.folder import RunFolder
from pcamx.run.report import read_report_of

_OWN = (
    *("run.folder", "data.store", "data.cache", "data.marked", "data.watched"),
    f"stages.{STAGE_3.section}.init_from",
)
"""What makes it this run, and not another of the parent's config."""


@dataclass(frozen=True, slots=True)
class Continued:
    """A run that is ready to be trained."""

    run: RunFolder
    start: StageId
    """Whose weights stage 3 starts from, in the parent."""
    marks: MoreMarks


def begin(
    parent: Path,
    out: Path,
    marks: Sequence[Path],
    *,
    labels: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    track: Track = silent,
) -> Continued:
    """Make the run folder ``out``: config.yaml, origin.json and a store with the marks of both.

    Stage 3 of it starts from the last finished stage of ``parent`` and learns from the films that
    the parent's may learn from or watched, and from those of ``marks`` (`add_marks` says which
    marks win). ``labels``: the classes of marks that are lesions. ``changes``: keys of the parent's
    config that this run has otherwise. The parent and its store stay as they are; their films and
    decoded canvases are shared.

    Raises PcamxError where ``parent`` has nothing finished or evaluated, its store is gone or
    changed, ``marks`` cannot be used, ``out`` exists, or a change is of what is decided here.
    """
    before = RunFolder(parent)
    theirs = before.read_config()
    config = _changed(theirs, changes or {})
    start = before.last_finished()
    _check_evaluated(before, start)
    store = read_store(before.find_store(theirs))
    before.check_store(store.folder)
    run = RunFolder(out)
    train = store.split("train")
    # What it watched is learned from now: nothing watches it any more.
    known = theirs.data.marked + theirs.data.watched
    chosen = choose_marked(train, known, seed=theirs.run.seed)
    with replacing_folder(out, partial(_refuse, parent=parent)) as draft:
        new = RunFolder(draft)
        new.store.mkdir()
        earlier = {train[i].path for i in chosen}
        found = add_marks(store, earlier, marks, new.store, labels=labels, track=track)
        own = _own(run, config, store, before.weights(start), found.films)
        write_text(new.config_file, configs.dump(configs.changed(config, own)))
        new.write_origin(new.store, before, becomes=out)  # without it nothing takes it for a run
    return Continued(run, start, found)


def _refuse(out: Path, parent: Path) -> None:
    """Refuse anything, and say how to go on with a run that is there: one that was killed."""
    run = RunFolder(out)
    if run.is_run():
        how = "name a new folder with --out"
        if not run.weights(STAGE_3.key).is_file() and out.resolve() != parent.resolve():
            again = f"pcamx train {run.config_file} --stage {STAGE_3.key} --resume"
            how = f"go on with it by {again}, or {how}"
        raise PcamxError(f"{out}: there is a run already; {how}")
    refuse_anything(out)


def _check_evaluated(before: RunFolder, start: StageId) -> None:
    """Raise PcamxError unless the weights are sound and evaluated."""
    if read_report_of(before, before.load_weights(start)) is None:
        raise PcamxError(
            f"{before.path}: {trainable(start).title} is not evaluated, so there would be nothing "
            f"to compare with; run pcamx evaluate {before.path}"
        )


def _own(
    run: RunFolder, config: Config, store: Store, weights: Path, marked: int
) -> dict[str, Any]:
    """The values of `_OWN`."""
    cache = config.data.cache or str(store.folder / CACHE)
    values = (str(run.path), str(run.store), cache, marked, 0, str(weights))
    return dict(zip(_OWN, values, strict=True))


def _changed(config: Config, changes: Mapping[str, Any]) -> Config:
    for own in _OWN:
        if own in changes and own != "data.cache":
            raise ConfigError(f"{own}: pcamx continue decides it; leave it out")
        if around := [key for key in changes if own.startswith(f"{key}.")]:
            raise ConfigError(
                f"{around[0]}: pcamx continue decides {own} in it; set other keys one by one"
            )
    return configs.changed(config, changes)
