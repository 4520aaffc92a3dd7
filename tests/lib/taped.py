"""A CUDA graph without a GPU: what operators do is noted, and done again on the same tensors.

As in a graph no Python runs in a replay, numbers are those of the recording, and whoever reads a
value on the host is refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed import Work
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2"}


def _tensors(anything: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(anything) if isinstance(leaf, Tensor)]


class _Tape(TorchDispatchMode):
    """Within: operators are done and noted; ``before`` is what lay in the memory they found."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.made: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.split("::")[1] in ASKS:
            raise RuntimeError(f"{func}: the host asks for a value")
        for tensor in _tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.before | self.made:
                self.before[storage.data_ptr()] = storage, storage.clone()
        found = func(*args, **kwargs)
        for tensor in _tensors(found):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.before:
                self.made[storage.data_ptr()] = storage  # held, so that none lies there later
        self.calls.append((func, args, kwargs, found))
        return found

    def undo(self) -> None:
        """Put back what lay there before."""
        for storage, content in self.before.values():
            storage.copy_(content)

    @torch.no_grad()
    def play(self) -> None:
        """Do all of it again, into the same memory."""
        for func, args, kwargs, found in self.calls:
            if func.is_view:
                continue
            again = func(*args, **kwargs)
            if func.namespace == "c10d":  # between ranks, with what tells its end
                Work.unbox(again[-1] if isinstance(again, tuple) else again).wait()
            for held, new in zip(_tensors(found), _tensors(again), strict=True):
                if held.data_ptr() != new.data_ptr():
                    held.copy_(new)


class Taped:
    """A `pcamx.engine.captured_step.Recorder` that counts what it was asked to do."""

    def __init__(self) -> None:
        self.warmed = self.recorded = self.played = 0

    def warm(self, work: Callable[[], Tensor]) -> Tensor:
        self.warmed += 1
        return work()

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1
        with _Tape() as tape:
            told = work()
        tape.undo()

        def play() -> Tensor:
            self.played += 1
            tape.play()
            return told

        return play
