"""Tensors that say cuda:0, lie on the CPU, and hold to a GPU's rules.

Mixing devices raises. What makes the host wait for the device, and copies from memory that is not
pinned, are counted by the line of pcamx that asked; so is every kernel that would be launched.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PROJECT = f"{Path(__file__).resolve().parents[3]}/"
TESTS = f"{PROJECT}tests/"
DEVICE = torch.device("cuda", 0)
EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
NO_KERNEL = EMPTY | {
    "detach",
    "lift_fresh",
    "alias",
    "_unsafe_view",
    "_reshape_alias",
    "_local_scalar_dense",
}
ASKS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
"""Operators whose answer, or its size, the host has to know."""
ASKS |= {"bincount", "repeat_interleave"}
WHOLE = {"to", "cpu", "contiguous", "reshape", "flatten", "type_as", "item"}
"""Operators that inference mode hands over before it takes them apart."""


class Counts:
    """What was counted since the last `clear`."""

    def __init__(self) -> None:
        self.waits, self.unpinned, self.kernels = Counter[str](), Counter[str](), Counter[str]()

    def clear(self) -> None:
        """Begin anew."""
        for counter in (self.waits, self.unpinned, self.kernels):
            counter.clear()


counts = Counts()
_pinned: dict[int, torch.UntypedStorage] = {}  # by address; held, so that none is used again


def asked_by() -> str:
    """The innermost line of pcamx that is being run."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PROJECT) and not file.startswith(TESTS):
            return f"{file.removeprefix(PROJECT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside pcamx"


class OnDevice(Tensor):
    """A tensor of the pretended GPU; ``held`` is where its values lie."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    def __init__(self, held: Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as a tensor of the CPU: there would be no device to load it on."""
        return self.held.detach().clone().__reduce_ex__(protocol)

    def record_stream(self, stream: object) -> None:
        """There is one stream, of another kind than C++ takes."""

    @property
    def data(self) -> Tensor:
        """As every tensor's, which C++ sets without a look at ``held``."""
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: "OnDevice") -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def data_ptr(self) -> int:
        """Address of the values."""
        return self.held.data_ptr()

    def tolist(self) -> Any:
        """A copy, for which the host waits."""
        counts.waits[asked_by()] += 1
        return self.held.tolist()

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_listed(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_listed(index), value)


def _listed(index: Any) -> Any:
    """A list becomes an index on the device, in C++ and unseen: a copy from memory not pinned."""
    return torch.tensor(index).to(DEVICE) if isinstance(index, list) else index


class Pretend(TorchDispatchMode):
    """Within: the pretended GPU is there."""

    def __enter__(self) -> "Pretend":
        # torch.tensor and torch.as_tensor make their tensors on the CPU, and then copy.
        self.before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self.before)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def values(anything: Any) -> Any:
    """Where the values of a tensor lie, and everything else as it is."""
    return anything.held if isinstance(anything, OnDevice) else anything


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operator as a GPU would run it: refused, counted, and computed on the CPU."""
    name = func._schema.name.split("::")[1]
    if name in WHOLE:
        with Pretend():  # which is not there while an operator of its own runs
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
    if name in _SPECIAL and not isinstance(result := _SPECIAL[name](func, args, kwargs), _Other):
        return result
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, OnDevice)]
    asked = kwargs.get("device")
    on_device = bool(there) if asked is None else torch.device(asked).type == "cuda"
    if asked is not None and on_device:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if there:
        _check(func, name, tensors)
        if name in ASKS:
            counts.waits[asked_by()] += 1
    if on_device and name not in NO_KERNEL and not func.is_view:
        counts.kernels[name] += 1
    found = func(*tree_map(values, args), **tree_map(values, kwargs))
    if not on_device:
        return found
    if name in EMPTY:
        found.zero_()  # the kernels that would fill it do not run
    known = {id(t.held): t for t in there}
    return tree_map(lambda one: _wrapped(one, known), found)


def _wrapped(one: Any, known: dict[int, OnDevice]) -> Any:
    """What an operator has made; an argument that it has written into stays the same tensor."""
    if not isinstance(one, Tensor) or isinstance(one, OnDevice):
        return one
    return known[id(one)] if id(one) in known else OnDevice(one)


def _check(func: Any, name: str, tensors: list[Tensor]) -> None:
    """Raise for tensors of both devices, as CUDA does; a CPU's numbers and indices may come."""
    strict = name.startswith("_fused_adam")  # takes even a number's address for the device's
    strange = [t for t in tensors if not isinstance(t, OnDevice) and (t.dim() or strict)]
    if name.startswith(("index", "_index_put", "_unsafe_index")):
        if any(isinstance(t, OnDevice) and t.dtype == torch.bool for t in tensors[1:]):
            counts.waits[asked_by()] += 1
        if isinstance(tensors[0], OnDevice) and strange:
            counts.unpinned[asked_by()] += 1
            return
    if strange:
        shapes = [list(t.shape) for t in strange]
        raise RuntimeError(f"{func}: tensors on cuda:0 and on the CPU, {shapes}, at {asked_by()}")


class _Other:
    """Said by a rule for a call that it is not for."""


def _copied(source: Tensor, to_device: bool, non_blocking: bool) -> None:
    """Count what a copy between the devices costs."""
    counts.kernels["copy"] += 1
    host_side = values(source)
    pinned = host_side.untyped_storage().data_ptr() in _pinned or host_side.numel() == 0
    if to_device and not pinned:
        counts.unpinned[asked_by()] += 1
    if not (non_blocking and to_device):
        counts.waits[asked_by()] += 1


def _to_copy(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    source, asked = args[0], kwargs.get("device")
    was = isinstance(source, OnDevice)
    will = was if asked is None else torch.device(asked).type == "cuda"
    if not (was or will):
        return _Other()
    if was != will:
        _copied(source, will, kwargs.get("non_blocking", False))
    else:
        counts.kernels["_to_copy"] += 1
    if will:
        kwargs = kwargs | {"device": torch.device("cpu")}
    made = func(values(source), **kwargs)
    return OnDevice(made) if will else made


def _copy_(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    target, source, *rest = args
    was, will = isinstance(source, OnDevice), isinstance(target, OnDevice)
    if not (was or will):
        return _Other()
    if was == will:
        counts.kernels["copy_"] += 1
    else:
        non_blocking = rest[0] if rest else kwargs.get("non_blocking", False)
        _copied(source, will, non_blocking)
    values(target).copy_(values(source))
    return target


def _is_pinned(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    return values(args[0]).untyped_storage().data_ptr() in _pinned


def _pin(tensor: Tensor) -> Tensor:
    storage = tensor.untyped_storage()
    _pinned[storage.data_ptr()] = storage
    return tensor


def _pin_memory(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    return _pin(args[0].clone())


def _empty(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if not kwargs.get("pin_memory"):
        return _Other()
    return _pin(func(*args, **(kwargs | {"pin_memory": False})))


_SPECIAL: dict[str, Callable[[Any, Any, dict[str, Any]], Any]] = {
    "_to_copy": _to_copy,
    "copy_": _copy_,
    "is_pinned": _is_pinned,
    "_pin_memory": _pin_memory,
    "empty": _empty,
    "empty_strided": _empty,
}
