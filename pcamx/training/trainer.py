"""The stages of a run, one after the other, in this process's share of the ranks."""

import os
from pathlib import Path

from pcamx import engine
from pcamx.catalogue import StageId, trainable
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.store import HEAD, Store
from pcamx.engine import Ranks, Watch
from pcamx.errors import PcamxError
from pcamx.progress import silent
from pcamx.report.console import TrainingDisplay, track
from pcamx.run.films import read_films
from pcamx.run.folder import RunFolder
from pcamx.training import preflight
from pcamx.training.process_group import joined
from pcamx.training.pulse import watched
from pcamx.training.stage_run import StageRun
from pcamx.training.stopping import Interrupted, StopSignal


def train(config: Config, stages: list[StageId] | None, *, resume: bool) -> None:
    """Train ``stages`` one after the other in this process's share of the ranks.

    None is all that the config has settings for, but for those that learn from marks where no
    training film has one.
    Raises PcamxError for what a user can mend and Interrupted after Ctrl-C.
    """
    store = read_films(_store_of(config), config.model)
    if stages is None:
        stages = _possible(config, store)
    preflight.check(config, store, stages, world=engine.world_size(), resume=resume)
    run = RunFolder(Path(config.run.folder))
    try:
        with joined(run.path, config.runtime.timeout) as (ranks, watch):
            _train(config, store, stages, ranks, watch, resume=resume)
    except KeyboardInterrupt:
        if set(stages).isdisjoint(run.begun()):
            raise  # there is nothing to go on with
        raise Interrupted("stopped") from None


def _possible(config: Config, store: Store) -> list[StageId]:
    stages = config.trained()
    if any(film.mark for film in store.split("train")):
        return stages
    left_out = [trainable(stage).title for stage in stages if trainable(stage).learns_marks]
    if engine.is_first():
        print(
            f"no training film of {store.folder} is marked, so {' and '.join(left_out)} must wait: "
            "pcamx marks suggest chooses films to mark, pcamx continue goes on with the marks"
        )
    return [stage for stage in stages if not trainable(stage).learns_marks]


def _store_of(config: Config) -> Path:
    """The store that data.store names, or that of the run which has begun, where it has moved."""
    named, run = Path(config.data.store), RunFolder(Path(config.run.folder))
    # Another store in that place was named on purpose: the run's checks refuse it.
    if run.id() is None or os.path.isfile(named / HEAD):
        return named
    return run.find_store(config)


def _train(
    config: Config, store: Store, stages: list[StageId], ranks: Ranks, watch: Watch, *, resume: bool
) -> None:
    stop = StopSignal()
    try:
        with TrainingDisplay(enabled=ranks.rank == 0) as display:
            shown = watched(track if ranks.rank == 0 else silent, watch)
            decoded = Decoded(config.data, store, ranks.device, shown, display.note)
            for stage in stages:
                if RunFolder(Path(config.run.folder)).weights(stage).is_file():
                    display.note(f"{trainable(stage).title} is finished")
                    continue
                watch.doing(f"making {trainable(stage).title} ready", long=True)
                run = StageRun(config, stage, decoded, ranks, display, stop, watch, resume=resume)
                run.fit()
    except RuntimeError as error:
        if engine.lost_rank(error):
            raise PcamxError(
                "another rank has ended; see what it said, then continue with --resume"
            ) from None
        if failure := engine.compiler_failure(error):
            raise PcamxError(f"runtime.compile: {failure}; set it to off") from None
        raise
    # Not after an error: the others would see this rank leave before it has said why.
    engine.stop()
