"""What an implementation of the operations is, and how to come by each.

Shapes as in `pcamx.ops`.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from pcamx.kernels import reference

Impl = Literal["auto", "triton", "reference"]


class Operations(Protocol):
    """What an implementation holds: each operation, for inputs that are known to fit."""

    def class_activation(
        self, features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, *, positive: bool
    ) -> Tensor:
        """Reduce as `reference.class_activation`."""
        ...

    def attend(
        self,
        features_BKhw: Tensor,
        weight_CK: Tensor,
        class_index_B: Tensor,
        image_B1HW: Tensor,
        omega: float,
        sigma: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend as `reference.attend`."""
        ...

    def gather_affine_normalise(
        self,
        canvas_N1HW: Tensor,
        row_B: Tensor,
        theta_B23: Tensor,
        gain_B: Tensor,
        mean: float,
        std: float,
        lesion_M1HW: Tensor | None,
        lesion_row_B: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Gather as `reference.gather_affine_normalise`."""
        ...


def _reference(device: torch.device) -> Operations:
    return reference


def _triton(device: torch.device) -> Operations:
    """Triton is imported here and no earlier, so that the reference also works without it."""
    try:
        from pcamx.kernels import fused
    except ImportError as error:
        raise ValueError(f"Triton: {error}; impl 'reference' does without") from error
    if not fused.runs_on(device):
        raise ValueError(
            f"impl 'triton' needs CUDA tensors, got {device.type}; on a CPU only Triton's "
            "interpreter runs it (TRITON_INTERPRET=1 before the start)"
        )
    return fused


IMPLEMENTATIONS: dict[str, Callable[[torch.device], Operations]] = {
    "triton": _triton,
    "reference": _reference,
}
"""How to come by each; raises ValueError where it cannot run on the device."""


def operations(impl: Impl, device: torch.device) -> Operations:
    """Return the implementation that runs on ``device``; auto is triton on CUDA, else reference.

    Raises ValueError where there is none of that name, or it cannot run there.
    """
    if impl == "auto":
        impl = "triton" if device.type == "cuda" else "reference"
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r}: there are 'auto', 'triton' and 'reference'")
    return IMPLEMENTATIONS[impl](device)
