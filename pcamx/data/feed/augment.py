"""Random flips, turns, zooms, shifts and gains of training films, drawn on the CPU.

`ops.gather_affine_normalise` carries them out. Shapes: B batch. Coordinates are those of
`torch.nn.functional.grid_sample`, align_corners=False: the canvas, a square, spans [-1, 1], x to
the right, y down.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pcamx.config import Augment
from pcamx.data.feed.order import Stream, generator
from pcamx.devices import to_device

FloatArray = npt.NDArray[np.float64]


class Warp(NamedTuple):
    """What happens to each film of a batch; float32.

    ``theta_B23`` takes a point of the output to the point of the canvas whose grey it shows.
    """

    theta_B23: Tensor
    gain_B: Tensor

    def columns(self, part: slice) -> "Warp":
        """Return the share of one rank."""
        return Warp(self.theta_B23[part], self.gain_B[part])

    def on(self, device: torch.device) -> "Warp":
        """Return the same on ``device``, without waiting for it."""
        return Warp(to_device(self.theta_B23, device), to_device(self.gain_B, device))


def identity(batch_size: int) -> Warp:
    """Return the warp that changes nothing."""
    return Warp(torch.eye(2, 3).repeat(batch_size, 1, 1), torch.ones(batch_size))


def compose(
    flip_B: FloatArray, angle_B: FloatArray, zoom_B: FloatArray, shift_B2: FloatArray
) -> FloatArray:
    """Return theta [B, 2, 3] that mirrors left and right (flip -1, else 1), zooms, turns, then
    shifts.

    The film's point p goes to q = R(angle) zoom diag(flip, 1) p + shift, so theta is the inverse,
    p = A (q - shift) with A = diag(flip, 1) R(-angle) / zoom. Angles in radians, clockwise as
    seen (y points down); shift in normalised coordinates, 2 is the side of the canvas.
    """
    cos, sin = np.cos(angle_B) / zoom_B, np.sin(angle_B) / zoom_B
    A_B22 = np.stack([flip_B * cos, flip_B * sin, -sin, cos], -1).reshape(-1, 2, 2)
    return np.concatenate([A_B22, -A_B22 @ shift_B2[:, :, None]], -1)


def draw(augment: Augment, batch_size: int, *, seed: int, epoch: int, step: int) -> Warp:
    """Draw the random warp of a global batch: a pure function of its arguments."""
    u = generator(Stream.WARP, seed, epoch, step).random((6, batch_size))
    spread = 2 * u - 1
    theta_B23 = compose(
        np.where(augment.flip & (u[0] < 0.5), -1.0, 1.0),
        np.deg2rad(augment.rotate) * spread[1],
        1 + augment.scale * spread[2],
        2 * augment.shift * spread[3:5].T,
    )
    gain_B = 1 + augment.brightness * spread[5]
    return Warp(torch.from_numpy(theta_B23).float(), torch.from_numpy(gain_B).float())
