"""The seven parts of MURA as bones and flesh, each in the pose of a usual film.

Lengths are in units of the film's long side, the origin is the middle of the film, y points down.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pcamx.data.phantom.anatomy.bones import Bone, Point, Rng

PARTS = ("ELBOW", "FINGER", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST")
# Long bones come more often than in MURA: a small set must show the plain cases often enough.
SHARES = (0.13, 0.15, 0.21, 0.07, 0.21, 0.12, 0.11)


@dataclass(frozen=True, slots=True)
class Body:
    """What lies on the cassette: bones, and flesh as solid tubes that do not add up."""

    bones: tuple[Bone, ...]
    flesh: tuple[Bone, ...]
    aspects: tuple[float, ...]  # film width / height that suit it
    upright: bool = False  # the film is never turned


def body(part: str, rng: Rng) -> Body:
    """Draw one person's elbow, finger, ... by chance."""
    young = rng.random() < 0.25
    slim = rng.uniform(0.88, 1.14)
    made = _MAKERS[part](rng)
    bones = tuple(_personal(bone, rng, young=young, slim=slim) for bone in made.bones)
    stout = rng.uniform(0.85, 1.25)
    flesh = tuple(replace(tube, waist=tube.waist * stout) for tube in made.flesh)
    return replace(made, bones=bones, flesh=flesh)


def _personal(bone: Bone, rng: Rng, *, young: bool, slim: float) -> Bone:
    plates: tuple[float, ...] = ()
    if young and bone.site and bone.length > 4 * bone.waist:
        depth = 1.5 * bone.waist / bone.length
        ends = ((depth,), (1 - depth,), (depth, 1 - depth))
        plates = ends[rng.integers(3)]
    bumps = (rng.uniform(0.005, 0.02), rng.uniform(0, 6), rng.uniform(0, 6))
    return replace(
        bone,
        waist=bone.waist * slim * rng.uniform(0.95, 1.05),
        bow=bone.bow + rng.normal(0, 0.006),
        cortex=bone.cortex * rng.uniform(0.8, 1.25),
        dense=bone.dense * rng.uniform(0.92, 1.08),
        plates=plates,
        bumps=bumps,
    )


def _flesh(p: Point, q: Point, waist: float, ends: Point = (1.0, 1.0), blunt: float = 0.6) -> Bone:
    return Bone(p, q, waist, heads=ends, reach=(0.5, 0.5), blunt=(blunt, blunt), cortex=0.0)


def _toward(start: Point, angle: float, length: float) -> Point:
    """The point that far from start; angle 0 is up, positive to the right."""
    return start[0] + length * math.sin(angle), start[1] - length * math.cos(angle)


def _ray(
    start: Point, angle: float, parts: tuple[float, ...], waist: float, rng: Rng, gap: float
) -> tuple[list[Bone], Point]:
    """Phalanges (or metacarpal and phalanges) one after the other, with joint gaps."""
    bones: list[Bone] = []
    at = start
    for index, length in enumerate(parts):
        angle += rng.normal(0, 0.04)
        end = _toward(at, angle, length)
        last = index == len(parts) - 1
        heads = (1.75, 1.15) if last else (1.6, 1.4)
        bones.append(Bone(at, end, waist, heads, (0.24, 0.2), blunt=(0.45, 0.8), site=index < 2))
        at = _toward(end, angle, gap)
        waist *= 0.84
    return bones, at


def _finger(rng: Rng) -> Body:
    waist = rng.uniform(0.042, 0.052)
    start = (0.0, 0.33)
    bones, tip = _ray(start, rng.normal(0, 0.04), (0.35, 0.22, 0.15), waist, rng, 0.014)
    knuckle = Bone((0.0, 0.72), (0.0, 0.315), waist * 1.1, (1.5, 1.55), (0.2, 0.22))
    flesh = [_flesh((0.0, 0.6), tip, waist * 2.0, (1.5, 0.75))]
    if rng.random() < 0.5:
        side = rng.choice((-1.0, 1.0)) * rng.uniform(0.22, 0.27)
        more, far = _ray((side, 0.4), side * 0.5, (0.33, 0.2, 0.13), waist * 0.95, rng, 0.014)
        bones += [replace(bone, site=False) for bone in more]
        flesh.append(_flesh((side, 0.6), far, waist * 1.9, (1.5, 0.75)))
    return Body((knuckle, *bones), tuple(flesh), (0.55, 0.65, 0.75, 0.85))


def _carpus(centre: Point, size: float, rng: Rng) -> list[Bone]:
    """Two rows of small round bones."""
    bones = []
    rows = ((-0.95, 0.55), (-0.3, 0.62), (0.38, 0.55), (-1.0, -0.4), (-0.42, -0.5), (0.2, -0.6))
    for x, y in (*rows, (0.85, -0.45)):
        at = centre[0] + x * size * 1.05, centre[1] + y * size * 0.95
        angle, half = rng.uniform(0, math.pi), size * rng.uniform(0.4, 0.48)
        p, q = _toward(at, angle, -half * 1.1), _toward(at, angle, half * 1.1)
        heads = (rng.uniform(0.85, 1.1), rng.uniform(0.85, 1.1))
        stone = Bone(p, q, half * 0.88, heads, blunt=(1.0, 1.0), cortex=0.3, flat=0.6, site=False)
        bones.append(stone)
    return bones


def _hand(rng: Rng) -> Body:
    spread = rng.uniform(0.75, 1.25)
    waist = 0.021
    bones = _carpus((0.0, 0.255), 0.06, rng)
    flesh = [_flesh((0.0, 0.9), (0.0, 0.2), 0.12, (0.95, 1.0))]
    plan = ((-0.075, -0.2, 0.215, 0.80), (-0.03, -0.07, 0.23, 0.95), (0.022, 0.05, 0.22, 0.9))
    for x, angle, meta, size in (*plan, (0.07, 0.17, 0.2, 0.74)):
        turn = angle * spread
        lengths = (meta, 0.165 * size, 0.105 * size, 0.07 * size)
        ray, tip = _ray((x, 0.18), turn, lengths, waist, rng, 0.008)
        bones += [
            replace(ray[0], heads=(1.45, 1.35)),
            *(replace(bone, site=False) for bone in ray[1:]),
        ]
        flesh.append(_flesh(ray[1].p, tip, waist * 2.1, (1.15, 0.75)))
        flesh.append(_flesh((x * 0.8, 0.26), ray[1].p, waist * 3.0, (1.2, 1.2)))
    thumb, tip = _ray((-0.115, 0.22), -0.75 * spread, (0.13, 0.095, 0.07), waist * 1.05, rng, 0.008)
    bones += thumb
    flesh += [_flesh((-0.04, 0.24), tip, waist * 2.6, (1.8, 0.8))]
    bones.append(
        Bone((-0.03, 0.9), (-0.04, 0.335), 0.03, (1.2, 1.75), (0.2, 0.13), (0, -0.2), (0.6, 0.3))
    )
    bones.append(Bone((0.06, 0.9), (0.065, 0.325), 0.02, (1.2, 1.5), (0.2, 0.08), blunt=(0.6, 0.4)))
    return Body(tuple(bones), tuple(flesh), (0.75, 0.8, 0.85, 1.0))


def _wrist(rng: Rng) -> Body:
    bones = _carpus((0.0, -0.1), 0.105, rng)
    flesh = [_flesh((0.0, 0.9), (0.0, -0.2), 0.21, (1.05, 1.0)), _flesh((0, 0), (0, -0.9), 0.25)]
    for x, angle in ((-0.125, -0.13), (-0.05, -0.04), (0.04, 0.06), (0.12, 0.16)):
        end = _toward((x, -0.215), angle * rng.uniform(0.7, 1.3), 0.5)
        bones.append(Bone((x, -0.215), end, 0.033, (1.45, 1.3), (0.16, 0.2), blunt=(0.4, 0.6)))
    end = _toward((-0.16, -0.17), -0.75, 0.4)
    bones.append(Bone((-0.16, -0.17), end, 0.036, (1.4, 1.3), (0.2, 0.2)))
    flesh.append(_flesh((-0.1, -0.1), end, 0.1))
    bones.append(
        Bone((-0.03, 0.95), (-0.06, 0.02), 0.055, (1.1, 1.85), (0.2, 0.16), (0, -0.2), (0.6, 0.28))
    )
    bones.append(Bone((0.11, 0.95), (0.13, 0.0), 0.038, (1.1, 1.45), (0.2, 0.08), blunt=(0.6, 0.4)))
    return Body(tuple(bones), tuple(flesh), (0.6, 0.7, 0.8, 0.95))


def _forearm(rng: Rng) -> Body:
    apart = rng.uniform(0.85, 1.15) * 0.055
    radius = Bone((-apart, -0.31), (-apart - 0.01, 0.34), 0.027, (1.35, 1.9), (0.04, 0.12))
    ulna = Bone((apart * 0.7, -0.36), (apart, 0.33), 0.027, (1.8, 1.2), (0.17, 0.08), (-0.4, 0.0))
    radius, ulna = replace(radius, bow=-0.03, blunt=(0.3, 0.3)), replace(ulna, bow=0.012)
    humerus = Bone((0.0, -0.95), (-0.01, -0.335), 0.04, (1.1, 2.0), (0.2, 0.12), blunt=(0.6, 0.3))
    bones = [radius, ulna, humerus, *_carpus((-0.01, 0.41), 0.055, rng)]
    for x, angle in ((-0.06, 0.12), (-0.02, 0.04), (0.025, -0.05), (0.06, -0.14)):
        bones.append(Bone((x, 0.475), _toward((x, 0.475), angle, -0.25), 0.017, site=False))
    flesh = (_flesh((0.0, -0.9), (0.0, 0.45), 0.1, (1.6, 0.85)), _flesh((0, 0.38), (0, 0.9), 0.11))
    return Body(tuple(bones), flesh, (0.5, 0.6, 0.7, 0.8))


def _elbow(rng: Rng) -> Body:
    if rng.random() < 0.5:  # from the front, stretched
        humerus = Bone((0.0, -0.9), (0.0, 0.03), 0.06, (1.1, 2.05), (0.2, 0.13), (0.0, 0.1))
        humerus = replace(humerus, blunt=(0.6, 0.3))
        ulna = Bone((0.035, -0.06), (0.12, 0.85), 0.046, (1.25, 1.0), (0.25, 0.1), blunt=(0.9, 1))
        ulna = replace(ulna, cortex=0.26, dense=0.7)
        radius = Bone((-0.065, 0.055), (-0.05, 0.85), 0.04, (1.4, 1.1), (0.05, 0.2), bow=-0.02)
        radius = replace(radius, blunt=(0.25, 0.6))
        flesh: tuple[Bone, ...] = (_flesh((0.0, -0.9), (0.03, 0.9), 0.19, (0.9, 0.95)),)
        joint: tuple[Bone, ...] = ()
        shapes: tuple[float, ...] = (0.65, 0.75, 0.85)
    else:  # from the side, bent
        bend = rng.uniform(1.2, 1.75)
        humerus = Bone((-0.12, -0.85), (-0.14, 0.17), 0.056, (1.1, 1.35), (0.2, 0.1), (0, -0.2))
        humerus = replace(humerus, blunt=(0.6, 1.0))
        pivot = (-0.22, 0.225)
        end = _toward(pivot, bend, 1.1)
        ulna = Bone(pivot, end, 0.046, (1.45, 1.0), (0.14, 0.1), blunt=(0.4, 0.6))
        hook = Bone(
            (-0.232, 0.26),
            (-0.236, 0.1),
            0.03,
            (1.4, 0.9),
            blunt=(1.0, 1.0),
            site=False,
            dense=0.55,
        )
        start = _toward((-0.07, 0.15), bend, 0.03)
        radius = Bone(start, _toward(start, bend, 1.0), 0.04, (1.35, 1.1), (0.05, 0.2))
        radius = replace(radius, blunt=(0.25, 0.6))
        joint = (hook,)
        flesh = (
            _flesh((-0.12, -0.9), (-0.14, 0.26), 0.16, (1.1, 0.95)),
            _flesh((-0.22, 0.18), end, 0.15, (1.05, 0.8)),
        )
        shapes = (0.8, 1.0, 1.2)
    return Body((humerus, ulna, radius, *joint), flesh, shapes)


def _humerus(rng: Rng) -> Body:
    shaft = Bone((0.02, -0.4), (0.0, 0.37), 0.042, (2.0, 1.95), (0.11, 0.11), (-0.55, 0.1))
    shaft = replace(shaft, blunt=(1.0, 0.3), bow=rng.normal(0, 0.01))
    glenoid = Bone((-0.15, -0.43), (-0.14, -0.25), 0.035, (1.1, 1.2), flat=0.8, cortex=0.2)
    glenoid = replace(glenoid, dense=0.6, site=False)
    scapula = Bone(
        (-0.16, -0.36), (-0.36, 0.0), 0.1, (0.8, 0.6), flat=1.0, cortex=0.1, dense=0.4, site=False
    )
    clavicle = Bone((-0.5, -0.4), (-0.02, -0.485), 0.024, (1.3, 1.2), bow=0.04, site=False)
    radius = Bone((-0.045, 0.395), (-0.03, 0.9), 0.03, (1.4, 1.0), (0.08, 0.2), site=False)
    ulna = Bone((0.03, 0.36), (0.05, 0.9), 0.034, (1.3, 1.0), (0.3, 0.2), site=False)
    flesh = (
        _flesh((0.03, -0.47), (0.0, 0.9), 0.14, (1.25, 0.85), 0.8),
        replace(_flesh((-0.9, -0.3), (0.0, -0.3), 0.24, (1.3, 0.8), 0.9), site=False),
    )
    bones = (shaft, glenoid, scapula, clavicle, radius, ulna)
    return Body(bones, flesh, (0.55, 0.65, 0.75), upright=True)


def _shoulder(rng: Rng) -> Body:
    drop = rng.uniform(0.9, 1.1)
    shaft = Bone((0.135, -0.19), (0.25, 0.8), 0.066, (2.0, 1.1), (0.16, 0.2), (0.55, 0.0))
    shaft = replace(shaft, blunt=(1.0, 0.6))
    glenoid = Bone((-0.025, -0.17), (-0.035, 0.1), 0.04, (1.1, 1.3), flat=0.8, cortex=0.3)
    glenoid = replace(glenoid, dense=0.6, site=False)
    blade = Bone(
        (-0.03, -0.1), (-0.3, 0.45), 0.14, (0.7, 0.5), flat=1.0, cortex=0.08, dense=0.4, site=False
    )
    border = Bone((-0.03, 0.05), (-0.2, 0.48), 0.02, (1.8, 0.8), cortex=0.6, dense=0.7, site=False)
    spine = Bone((-0.5, -0.08), (0.03, -0.2), 0.022, (1.0, 1.5), dense=0.5, bow=0.03, site=False)
    clavicle = Bone((-0.8, -0.15), (0.03, -0.3 * drop), 0.038, (1.2, 1.3), bow=0.04)
    acromion = Bone((0.03, -0.29 * drop), (0.2, -0.25 * drop), 0.04, (1.0, 1.0), site=False)
    ribs = []
    for step in range(5):
        y = -0.12 + 0.14 * step + rng.normal(0, 0.01)
        rib = Bone((-0.75, y - 0.1), (-0.18 - 0.02 * step, y + 0.1), 0.024, (1.0, 1.0), bow=-0.09)
        ribs.append(replace(rib, dense=0.55, site=False))
    flesh = (
        replace(_flesh((-0.9, 0.2), (0.1, 0.1), 0.5, (1.0, 0.65), 0.9), site=False),
        _flesh((0.12, -0.28), (0.25, 0.9), 0.2, (1.15, 0.85), 0.9),
    )
    bones = (shaft, glenoid, blade, border, spine, clavicle, acromion, *ribs)
    return Body(bones, flesh, (0.85, 1.0, 1.15, 1.3), upright=True)


_MAKERS: dict[str, Callable[[Rng], Body]] = {
    "ELBOW": _elbow,
    "FINGER": _finger,
    "FOREARM": _forearm,
    "HAND": _hand,
    "HUMERUS": _humerus,
    "SHOULDER": _shoulder,
    "WRIST": _wrist,
}
