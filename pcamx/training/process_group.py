"""The ranks of a training meet, and have the run's folder to themselves."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pcamx import engine
from pcamx.distributed import HostRanks
from pcamx.engine import Ranks, Watch
from pcamx.errors import PcamxError
from pcamx.run.lock import FolderLock


@contextmanager
def joined(folder: Path, timeout: float) -> Iterator[tuple[Ranks, Watch]]:
    """Join the process group; inside, rank 0 holds the lock of ``folder``.

    The process ends when the ranks do not meet within ``timeout`` seconds, and later, by the watch,
    when one does not answer.

    Raises PcamxError, on every rank, where another process works there: a rank that only rank 0
    could tell would wait for it, on another host for as long as the launcher lets it. Also where a
    rank ends while they meet.
    """
    failure = ""
    with ExitStack() as held:
        if engine.is_first():
            try:
                held.enter_context(FolderLock(folder))
            except PcamxError as error:
                failure = str(error)
        engine.prepare()
        try:
            with engine.Meeting(timeout) as meeting:
                try:
                    # PyTorch, which knows less of who is missing, speaks after the meeting.
                    ranks = engine.start(meeting.timeout + 60)
                except PcamxError as error:
                    # Two runs of one launcher command want one port; the folder is the reason.
                    raise PcamxError(failure or str(error)) from None
                HostRanks().raise_together(failure)
                watch = Watch(timeout)
        except RuntimeError as error:
            if not engine.lost_rank(error):
                raise
            raise PcamxError(
                "another rank has ended before the training began; see what it said, then start "
                "again"
            ) from None
        with watch:
            yield ranks, watch
