"""What a healthy film shows that looks a little like a lesion: vessels, canals, folds of skin.

Shapes: H W the film. Lengths are in units of its long side.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pcamx.data.phantom.anatomy.bones import Array, Bone, coordinates, window


def carve_canals(bone_HW: Array, bones: Sequence[Bone], rng: np.random.Generator) -> None:
    """Carve nutrient canals, in place: short thin dark lines, nearly along a shaft."""
    height, width = bone_HW.shape
    long = [bone for bone in bones if bone.site and bone.length > 5 * bone.waist]
    for _ in range(int(rng.integers(0, 3))):
        bone = long[int(rng.integers(len(long)))]
        place, tilt = rng.uniform(0.3, 0.7), rng.choice((-1.0, 1.0)) * rng.uniform(0.1, 0.5)
        depth, reach = rng.uniform(0.1, 0.28), bone.waist * rng.uniform(0.5, 1.2)
        aside = rng.uniform(-0.5, 0.5) * bone.waist
        x = bone.p[0] + place * (bone.q[0] - bone.p[0])
        y = bone.p[1] + place * (bone.q[1] - bone.p[1])
        area = window([(x, y)], 2.5 * bone.waist, height, width)
        if area.empty:
            continue
        along, across = coordinates(bone, area, height, width)
        s, t = along - np.float32(place * bone.length), across - np.float32(aside)
        off = (t * math.cos(tilt) - s * math.sin(tilt)) / 0.0035
        far = (s * math.cos(tilt) + t * math.sin(tilt)) / reach
        bone_HW[area.at] *= 1 - np.float32(depth) * np.exp(-(off * off) - far**4)


def fold_skin(flesh_HW: Array, rng: np.random.Generator) -> None:
    """Add vessels and folds, in place: faint curved lines across bone and flesh alike."""
    height, width = flesh_HW.shape
    side = max(height, width)
    layer = Image.new("L", (width, height))
    pen = ImageDraw.Draw(layer)
    for _ in range(int(rng.integers(0, 6))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        angle, bend = rng.uniform(0, 2 * math.pi), rng.normal(0, 0.25)
        line = [(x, y)]
        for _ in range(6):
            x, y = x + 0.05 * side * math.cos(angle), y + 0.05 * side * math.sin(angle)
            angle += bend
            line.append((x, y))
        wide = max(1, round(side * rng.uniform(0.002, 0.012)))
        pen.line(line, fill=int(rng.integers(80, 256)), width=wide, joint="curve")
    layer = layer.filter(ImageFilter.GaussianBlur(side * 0.003))
    flesh_HW *= 1 + np.asarray(layer, np.float32) * np.float32(rng.choice((-0.13, 0.16)) / 255)
