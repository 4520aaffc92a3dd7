"""Bytes of device memory that an operation cannot do without: what GB/s are counted by.

The formulas of kernels/README.md. Each input is read once and each output written once, with what
the backward pass needs in between; caches are taken to hold a small map. Shapes: B batch, K
channels, h w the map, H W the image; s bytes of a feature, t bytes of a pixel.
"""

from typing import NamedTuple

MAP = 4  # bytes of a map's cell: float32


class Shape(NamedTuple):
    """Sizes of one call."""

    B: int
    K: int
    h: int
    w: int
    H: int
    W: int


def class_activation_bytes(shape: Shape, s: int) -> int:
    """Count features in, map out."""
    return shape.B * (s * shape.K + MAP) * shape.h * shape.w


def attend_forward_bytes(shape: Shape, s: int, t: int) -> int:
    """Count features and image in, masked image out; the map written, scaled, read again."""
    cells = shape.h * shape.w
    return shape.B * (s * shape.K * cells + 2 * t * shape.H * shape.W + 4 * MAP * cells)


def attend_backward_bytes(shape: Shape, s: int, t: int) -> int:
    """Count image, gradient, features and map in; gradients to the map (and again in), features
    out.
    """
    cells = shape.h * shape.w
    return shape.B * (2 * s * shape.K * cells + 2 * t * shape.H * shape.W + 3 * MAP * cells)


def gather_affine_normalise_bytes(shape: Shape) -> int:
    """Count uint8 film and lesion mask in, image and lesion out in float32."""
    return shape.B * shape.H * shape.W * (1 + 1 + 4 + 4)
