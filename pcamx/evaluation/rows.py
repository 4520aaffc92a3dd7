"""Rows that grow batch by batch: narrow ones in memory, wide ones in a file without a name.

What is kept of a film and map is 9 kB, nearly all of it counts for two measures: of 40,000 films
gigabytes, of which a part of one map's is looked at at a time.
"""

import math
import os
import tempfile
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcamx.errors import PcamxError
from pcamx.metrics import Table

WIDE = 64
"""Bytes above which a row goes to the disk."""


class Rows:
    """Tensors [B, ...] of one shape and dtype, put one behind the other."""

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._count = 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def add(self, rows: Tensor) -> None:
        """Append rows; raises PcamxError where the disk is full."""
        rows = rows.detach().cpu().contiguous()
        try:
            if self._first is None:
                self._first = rows[:0].clone()
                if rows.element_size() * math.prod(rows.shape[1:]) > WIDE:
                    self._file = tempfile.TemporaryFile()  # gone with this process, however it ends
            self._count += len(rows)
            if self._file is not None:
                self._file.write(rows.numpy().tobytes())
                self._file.flush()
            else:
                self._memory += rows.numpy().tobytes()
        except OSError as error:
            raise PcamxError(
                f"{tempfile.gettempdir()}: {error.strerror}; point TMPDIR to a folder with room"
            ) from None

    def read(self) -> Tensor:
        """Return all rows [N, ...]; of a file they are mapped, and leave memory with the tensor."""
        assert self._first is not None, "no batch was scored"
        first = self._first.numpy()
        shape = (self._count, *first.shape[1:])
        if self._count == 0:
            return self._first
        if self._file is None:
            return torch.from_numpy(np.frombuffer(self._memory, first.dtype).reshape(shape).copy())
        mapped = np.memmap(self._file, first.dtype, mode="c", shape=shape)
        return torch.from_numpy(np.asarray(mapped))

    def table(self) -> Table:
        """Return all rows [N, ...], of a file as one that is read where it is asked."""
        if self._file is None or self._first is None:
            return self.read().numpy()
        return _OnDisk(self._file, (self._count, *self._first.shape[1:]), self._first.numpy().dtype)


class _OnDisk:
    """Rows of a file, a slice of which is read when it is asked for: no more is ever held."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file, self.shape, self._dtype = file, shape, dtype

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        width = math.prod(self.shape[1:]) * self._dtype.itemsize
        read = os.pread(self._file.fileno(), (stop - start) * width, start * width)
        return np.frombuffer(read, self._dtype).reshape(-1, *self.shape[1:])
