"""The device that a command works on, and what float32 means there."""

import torch


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
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
