"""Random flips, turns, zooms, shifts and gains of a training film, on the film's device.

Shapes: B batch, H W the canvas (square, so normalised coordinates need no aspect). Coordinates
are those of `torch.nn.functional.grid_sample`, align_corners=False: the canvas spans [-1, 1],
x to the right, y down.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from pcamx.config import Augment
from pcamx.data.order import Stream, generator

FloatArray = npt.NDArray[np.float64]


class Warp(NamedTuple):
    """What happens to each film of a batch; float32, on the CPU.

    ``theta_B23`` takes a point of the output to the point of the canvas whose grey it shows.
    """

    theta_B23: Tensor
    gain_B: Tensor

    def columns(self, part: slice) -> "Warp":
        """The share of one rank."""
        return Warp(self.theta_B23[part], self.gain_B[part])


def identity(batch_size: int) -> Warp:
    """The warp that changes nothing."""
    return Warp(torch.eye(2, 3).repeat(batch_size, 1, 1), torch.ones(batch_size))


def compose(
    flip_B: FloatArray, angle_B: FloatArray, zoom_B: FloatArray, shift_B2: FloatArray
) -> FloatArray:
    """theta [B, 2, 3] that mirrors left and right (flip -1, else 1), zooms, turns, then shifts.

    The film's point p goes to q = R(angle) zoom diag(flip, 1) p + shift, so theta is the inverse,
    p = A (q - shift) with A = diag(flip, 1) R(-angle) / zoom. Angles in radians, clockwise as
    seen (y points down); shift in normalised coordinates, 2 is the side of the canvas.
    """
    cos, sin = np.cos(angle_B) / zoom_B, np.sin(angle_B) / zoom_B
    A_B22 = np.stack([flip_B * cos, flip_B * sin, -sin, cos], -1).reshape(-1, 2, 2)
    return np.concatenate([A_B22, -A_B22 @ shift_B2[:, :, None]], -1)


def draw(augment: Augment, batch_size: int, *, seed: int, epoch: int, step: int) -> Warp:
    """The random warp of a global batch: a pure function of its arguments."""
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


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the CPU without waiting for the device: only pinned memory allows that."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@torch.no_grad()
def augment(
    canvas_B1HW: Tensor, lesion_B1HW: Tensor | None, warp: Warp, mean: float, std: float
) -> tuple[Tensor, Tensor]:
    """Warp uint8 films and their uint8 {0, 1} lesion masks alike, then standardise the films.

    One bilinear resampling serves both; outside the film is black, a mask is lesion from 1/2 on.
    Grey levels times the gain are clipped to [0, 255], then (grey - mean) / std; the identity
    warp gives exactly (grey - mean) / std. Without masks the lesions come back as zeros that
    share one element (`expand`): read them, do not write into them.

    Returns (image_B1HW, lesion_B1HW in {0, 1}), both float32 on the films' device.
    """
    planes = canvas_B1HW if lesion_B1HW is None else torch.cat([canvas_B1HW, lesion_B1HW], 1)
    planes_BPHW = planes.float()
    # The warp lies on the CPU, so this look costs no wait for the device.
    if not torch.equal(warp.theta_B23, identity(len(planes)).theta_B23):
        grid_BHW2 = _grid(to_device(warp.theta_B23, planes.device), planes.shape[-1])
        planes_BPHW = grid_sample(planes_BPHW, grid_BHW2, align_corners=False)
    gain_B = to_device(warp.gain_B, planes.device)
    grey_B1HW = (planes_BPHW[:, :1] * gain_B[:, None, None, None]).clamp_(0, 255)
    image_B1HW = grey_B1HW.sub_(mean).div_(std)
    if lesion_B1HW is None:
        return image_B1HW, image_B1HW.new_zeros(()).expand(image_B1HW.shape)
    return image_B1HW, (planes_BPHW[:, 1:] >= 0.5).float()


def _grid(theta_B23: Tensor, side: int) -> Tensor:
    """`affine_grid` element by element: a matrix product may round by batch size, or to TF32."""
    centre = (2 * torch.arange(side, device=theta_B23.device) + 1) / side - 1
    x, y = centre[None, None, :], centre[None, :, None]
    t = theta_B23[:, :, :, None, None]
    return torch.stack([t[:, i, 0] * x + t[:, i, 1] * y + t[:, i, 2] for i in (0, 1)], -1)
