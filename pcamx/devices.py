"""The device that a command works on, and what float32 means there."""

import torch
from torch import Tensor

from pcamx.errors import PcamxError


def whole_float32() -> None:
    """Have convolutions on a GPU keep all 24 bits of float32, as PyTorch's products do.

    By default cuDNN's round their inputs to 11 (TF32). For a process of ours: it changes PyTorch's
    settings, which a library leaves alone.
    """
    # Not cudnn.conv.fp32_precision: torch.export raises where convolutions alone are set.
    torch.backends.cudnn.allow_tf32 = False


def command_device() -> torch.device:
    """Return the GPU if there is one, else the CPU, with `whole_float32`."""
    whole_float32()
    return usable_device(None)


def usable_device(device: torch.device | str | None) -> torch.device:
    """Return the device that is meant, by default the GPU if there is one.

    Raises PcamxError for one that torch does not know, or a GPU where there is none.
    """
    gpu = torch.cuda.is_available()
    try:
        found = torch.device(device or ("cuda" if gpu else "cpu"))
    except RuntimeError:  # a list of all that torch knows
        raise PcamxError(f"device {device!r}: torch knows none such; say cpu or cuda") from None
    if found.type == "cuda" and not gpu:
        raise PcamxError(f"device {device}: torch finds no GPU here; say device='cpu'")
    return found


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the CPU without waiting for the device: only pinned memory allows that."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
