"""What the launchers of the kernels share."""

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether the kernels were built for Triton's interpreter, which runs them on the CPU."""


def runs_on(device: torch.device) -> bool:
    """Tell whether the kernels can run on tensors of ``device``."""
    return device.type == "cuda" or (device.type == "cpu" and INTERPRETED)


def device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's device the current one, on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def power_of_two(number: int) -> int:
    """Return the least power of two that is not below ``number``."""
    return 1 << (number - 1).bit_length()


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """Make it contiguous; None stays None: a kernel is built without it."""
    return None if tensor is None else tensor.contiguous()


def map_dtype(features_BKhw: Tensor) -> torch.dtype:
    """Return the dtype of maps and of every sum: float32, or float64 for float64 features."""
    return torch.promote_types(features_BKhw.dtype, torch.float32)


def empty_map(features_BKhw: Tensor) -> Tensor:
    """Return an uninitialised map [B, h, w] of the features."""
    B, _, h, w = features_BKhw.shape
    return features_BKhw.new_empty(B, h, w, dtype=map_dtype(features_BKhw))


def by_strides(features_BKhw: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Return features that kernels can read, and the strides of an image, a channel and a cell.

    A copy unless they are contiguous or channels_last. No view, which would cost the host time.
    """
    _, K, h, w = features_BKhw.shape
    if features_BKhw.is_contiguous(memory_format=torch.channels_last):
        return features_BKhw, (K * h * w, 1, K)
    return features_BKhw.contiguous(), (K * h * w, h * w, 1)


def empty_like_map(features_BKhw: Tensor) -> Tensor:
    """Return memory with the strides of `by_strides`."""
    if features_BKhw.is_contiguous(memory_format=torch.channels_last):
        return torch.empty_like(features_BKhw, memory_format=torch.channels_last)
    return torch.empty_like(features_BKhw, memory_format=torch.contiguous_format)


@triton.jit
def arrived_last(counter_ptr, programs):
    """Count this program in; true for the one that finds the results of all others written.

    That one adds up partial sums in a fixed order, so that no result depends on who came first.
    """
    tl.debug_barrier()  # every thread's stores, before one thread releases them
    return tl.atomic_add(counter_ptr, 1, sem="acq_rel", scope="gpu") == programs - 1
