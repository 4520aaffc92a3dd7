"""Marked films with the lesion erased, and with the same patch erased elsewhere on the limb.

Shapes: B batch, M marked films of it, D draws, F films with a patch erased, H W the canvas.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcamx.metrics import Floats
from pcamx.metrics.basis import Erased, Fill
from pcamx.model.network import Network
from pcamx.training.losses.erasing import blurred, grown
from pcamx.types import ABNORMAL, NORMAL, Batch

MOST = 64
"""Marked films that are erased; each passes every network 9 times."""
DRAWS = 3
"""Other patches of each film."""
SEED = 0
"""Of films and patches: not the run's, so that two runs are compared on the same ones."""
_NEAREST = 0.02
"""Of all places where a patch fits, those most like the lesion's that it is drawn from."""
_RIM = 32
"""In-painting looks 1/32 of the canvas around: 4 px of 128."""


class Found(NamedTuple):
    """Margins of one network by fill, and which of all marked films they are of."""

    by_fill: dict[Fill, Erased]
    films: list[int]


@torch.no_grad()
def erase_lesions(networks: Mapping[str, Network], batches: Iterable[Batch]) -> dict[str, Found]:
    """Let every network judge marked films as they are, without the lesion, without other patches.

    A film is left out where its mark leaves no pixel on the canvas, or no place for `DRAWS` other
    patches. A patch is the lesion grown by 1/32 of the canvas, as in training's erase loss.
    """
    margin: dict[str, list[Floats]] = {name: [] for name in networks}
    films: list[int] = []
    count = 0
    for batch in batches:
        image_M1HW = batch.image_B1HW[batch.marked_B]
        patch_M1HW = grown(batch.lesion_B1HW[batch.marked_B])
        for number, (image_1HW, patch_1HW) in enumerate(zip(image_M1HW, patch_M1HW, strict=True)):
            image_HW, patch_HW = image_1HW[0].cpu().numpy(), patch_1HW[0].cpu().numpy() > 0
            generator = np.random.default_rng([SEED, count + number])
            moves = places_alike(image_HW, patch_HW, generator, DRAWS)
            if not moves:
                continue
            films.append(count + number)
            patches = [patch_HW, *(np.roll(patch_HW, move, (0, 1)) for move in moves)]
            erased_F1HW = _erased(image_1HW, patches)
            for name, network in networks.items():
                margin[name].append(_margins(network, erased_F1HW))
        count += len(image_M1HW)
    return {name: Found(_by_fill(parts), films) for name, parts in margin.items()}


def places_alike(
    image_HW: NDArray[np.float32],
    patch_HW: NDArray[np.bool_],
    generator: np.random.Generator,
    draws: int,
) -> list[tuple[int, int]]:
    """Draw moves, down and right, of a patch to other places of the film like its own.

    It lies on the canvas there and clear of itself. Of all such places the nearest in mean and
    standard deviation of the grey level are drawn from: a patch on bone goes to bone, one across
    the limb's edge to an edge. Empty where fewer than ``draws`` places are left.
    """
    rows, columns = (np.flatnonzero(patch_HW.any(axis)) for axis in (1, 0))
    if not len(rows):
        return []
    H, W = patch_HW.shape
    down = np.arange(-rows[0], H - rows[-1])
    right = np.arange(-columns[0], W - columns[-1])
    at = np.ix_(down % H, right % W)
    area = patch_HW.sum()
    image, patch = image_HW.astype(np.float64), patch_HW.astype(np.float64)
    spectrum = np.fft.rfft2(patch).conj()

    def moved(of_HW: Floats) -> Floats:
        """Mean of ``of_HW`` below the patch for each move: a correlation."""
        return np.asarray(np.fft.irfft2(np.fft.rfft2(of_HW) * spectrum, s=(H, W))[at] / area)

    mean = moved(image)
    deviation = np.sqrt(np.maximum(moved(image**2) - mean**2, 0))
    own = image[patch_HW]
    unlike = np.abs(mean - own.mean()) + np.abs(deviation - own.std())
    free = np.flatnonzero(moved(patch).ravel() * area < 0.5)
    if len(free) < draws:
        return []
    nearest = free[np.argsort(unlike.ravel()[free], kind="stable")]
    nearest = nearest[: max(draws, round(len(free) * _NEAREST))]
    chosen = generator.choice(nearest, size=draws, replace=False)
    return [(int(down[i // len(right)]), int(right[i % len(right)])) for i in chosen]


def _erased(image_1HW: Tensor, patches: Sequence[NDArray[np.bool_]]) -> Tensor:
    """The film as it is, then with each of the patches blurred, then in-painted: [F, 1, H, W]."""
    smooth_1HW = blurred(image_1HW[None])[0]
    films = [image_1HW]
    for patch_HW in patches:
        patch_1HW = torch.from_numpy(patch_HW)[None].to(image_1HW.device)
        films.append(torch.where(patch_1HW, smooth_1HW, image_1HW))
    films += [inpainted(image_1HW, patch_HW) for patch_HW in patches]
    return torch.stack(films)


def inpainted(image_1HW: Tensor, patch_HW: NDArray[np.bool_]) -> Tensor:
    """Return the film with a patch filled in from its rim by OpenCV's Navier-Stokes in-painting.

    Bertalmio et al. 2001: grey levels flow in along lines of equal grey.
    """
    import cv2

    image_HW = image_1HW[0].cpu().numpy()
    radius = image_HW.shape[-1] / _RIM
    filled_HW = cv2.inpaint(image_HW, patch_HW.astype(np.uint8), radius, cv2.INPAINT_NS)
    return torch.from_numpy(filled_HW)[None].to(image_1HW.device)


def _margins(network: Network, image_F1HW: Tensor) -> Floats:
    logits_FC = network(image_F1HW).double().cpu()
    return np.asarray((logits_FC[:, ABNORMAL] - logits_FC[:, NORMAL]).numpy())


def _by_fill(margins: Sequence[Floats]) -> dict[Fill, Erased]:
    """Take apart what `_erased` put together."""
    fills: tuple[Fill, ...] = get_args(Fill)
    margin_MF = np.array(margins).reshape(len(margins), 1 + len(fills) * (1 + DRAWS))
    parts = np.split(margin_MF[:, 1:], len(fills), axis=1)
    return {
        fill: Erased(margin_MF[:, 0], part[:, 0], part[:, 1:])
        for fill, part in zip(fills, parts, strict=True)
    }
