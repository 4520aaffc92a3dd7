"""Who works in a folder: one process at a time, by the kernel's lock on a file (flock).

The lock goes with the last process that holds the file open, however that process ended, so a
killed run leaves nothing that blocks.
"""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Self

from pcamx.errors import PcamxError

NAME = ".lock"
"""The file in a run's folder."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system says that was mounted without them, as clusters do; it can still train."""


class Lock:
    """A lock on ``path``; ``holder`` is None where it was got, else the process that has it.

    ``file`` is the descriptor that holds it; a process that inherits it holds the lock as well.
    A file system without locks refuses nobody. Raises OSError where the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder: str | None = None
        self.file = -1

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.holder = (
                    os.pread(self.file, 300, 0).decode(errors="replace").strip() or "unknown"
                )
                return self
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(self.file)
                    raise
            if self._is_at_its_place():
                self._sign()
                return self
            os.close(self.file)  # its holder removed it meanwhile

    def _sign(self) -> None:
        """Write who has it; where there is no room even for that, nothing is left."""
        try:
            os.ftruncate(self.file, 0)
            os.pwrite(self.file, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError:
            self.path.unlink()
            os.close(self.file)
            raise

    def _is_at_its_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def __exit__(self, *_: object) -> None:
        # Not LOCK_UN: a training that outlives this process keeps it.
        os.close(self.file)


class FolderLock(Lock):
    """The lock of a run's folder, held while a command writes there.

    Raises PcamxError, one line, where another process has it. The folder is made, and goes again
    if it is left empty; so does the file.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / NAME)
        self.folder = folder

    def __enter__(self) -> Self:
        try:
            super().__enter__()
        except OSError as error:
            with suppress(OSError):
                self.folder.rmdir()
            raise PcamxError(
                f"cannot lock {self.folder}: {error.strerror}; make it a folder with room that may "
                "be written to, or take another"
            ) from None
        if self.holder is not None:
            os.close(self.file)
            raise PcamxError(
                f"{self.folder} is in use by process {self.holder}, which trains or evaluates "
                "there; wait for its end, or train another run in a run.folder of its own"
            )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.path.unlink()  # while it is still locked: whoever waits for this file sees it go
        super().__exit__()
        with suppress(OSError):
            self.folder.rmdir()  # which an empty folder alone lets happen
