"""The X-ray tube and the detector: from attenuation to grey levels, and the noise.

Shapes: H W the film.
"""

import math

import numpy as np

from pcamx.data.phantom.anatomy.bones import Array, Rng


def develop(thick_HW: Array, usual: float, rng: Rng) -> Array:
    """Develop attenuation to grey levels, float32 [H, W]: exposure, gamma, blur.

    Exposed for the ``usual`` attenuation of bone, so that what is denser still shows.
    """
    height, width = thick_HW.shape
    speed = rng.uniform(0.35, 0.7) / usual
    scale = 1 - math.exp(-speed * usual)
    film = (1 - np.exp(-np.float32(speed) * thick_HW)) * np.float32(1 / scale)
    film = np.maximum(film, 0) ** np.float32(rng.uniform(0.9, 1.2))
    base, top = rng.uniform(4, 30), rng.uniform(115, 155)
    tilt = rng.normal(0, 0.06, 2)
    slope = 1 + np.linspace(-tilt[0], tilt[0], height)[:, None]
    slope = slope + np.linspace(-tilt[1], tilt[1], width)
    film = film * np.float32(top - base) * slope.astype(np.float32) + np.float32(base)
    soft = rng.integers(0, 2) if max(height, width) < 200 else rng.integers(1, 4)
    for _ in range(soft):
        film = soften(film)
    return np.asarray(film, np.float32)


def mottle(height: int, width: int, rng: Rng) -> Array:
    """Return the detector's noise in grey levels, float32 [H, W]."""
    noise = rng.standard_normal((height, width), dtype=np.float32)
    if rng.random() < 0.5:
        noise = soften(noise) * np.float32(2)
    return np.asarray(noise * np.float32(rng.uniform(1.0, 3.5)), np.float32)


def overexposed(film_HW: Array, rng: Rng) -> Array:
    """Return the same film of another machine: brighter, with less contrast; float32 [H, W]."""
    contrast, lift = rng.uniform(0.7, 0.8), rng.uniform(50, 65)
    return np.asarray(film_HW * np.float32(contrast) + np.float32(lift), np.float32)


def soften(image: Array) -> Array:
    """Blur by the binomial filter 1 2 1 both ways."""
    out = image.copy()
    out[1:-1] += (image[:-2] + image[2:] - 2 * image[1:-1]) * np.float32(0.25)
    across = out.copy()
    across[:, 1:-1] += (out[:, :-2] + out[:, 2:] - 2 * out[:, 1:-1]) * np.float32(0.25)
    return across
