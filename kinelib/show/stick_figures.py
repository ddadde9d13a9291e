"""What is drawn of a body, wherever it is drawn: capsules between points, and the eye that looks at them.

A `Figure` is a list of capsules between points. Its points are the skeleton's joints and a few more that a skeleton does not
have but a reader looks for: the skull, a nose that says where the body faces, fingertips, the tips of the shoes. Positions
of all points are computed once, so that the browser, a strip and a film draw the same body without any kinematics.

Shapes: points (T, P, 3) in metres, y up, J joints first; segments (S, 2) point numbers, radii (S, 2) metres, sides (S,) with
1 left, 0 middle, -1 right; screen places (..., 2) in units of the picture's height, x right and y up, 0 in its middle.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.colors import to_rgb

from kinelib.bodies.skeleton import Skeleton
from kinelib.show.theme import BLUE, VERMILION

LEFT, MIDDLE, RIGHT = BLUE, "#555E6D", VERMILION
SIDE_COLOURS = {1: LEFT, 0: MIDDLE, -1: RIGHT}
TALL = 1.55  # metres from floor to head joint of the body whose radii are written below
REACH = 1.063  # metres along its bones from between the hips to a wrist

# Metres, at the two ends of a limb; what lies between is in proportion to the way along it.
ARM, LEG, CHEST, TRUNK, NECK = (0.058, 0.029), (0.080, 0.032), 0.118, 0.104, 0.048
FINGERS, SHOE, SKULL, NOSE = 0.085, 0.075, 0.088, 0.020
FOCAL = 1.6  # distance from the eye to a picture of height 1: a field of view of 35 degrees


@dataclass(frozen=True, eq=False)
class Figure:
    """How one kind of body is drawn.

    Args:
        skeleton: whose joints come first among the points.
        segments: (S, 2) point numbers of the capsules.
        radii: (S, 2) metres at both ends.
        sides: (S,) 1 left, 0 middle, -1 right.
        extras: for every further point (base joint, rest offset from it in metres); it turns with its base.
        feet: point numbers of the contacts, in their order; empty for a body without.
        middle: point number of the joint between the hips, whose way over the floor is the body's.
        height: metres from floor to head joint of a body of such limbs.
    """

    skeleton: Skeleton
    segments: np.ndarray
    radii: np.ndarray
    sides: np.ndarray
    extras: tuple[tuple[int, tuple[float, float, float]], ...]
    feet: tuple[int, ...]
    middle: int
    height: float

    def points(self, motion) -> np.ndarray:
        """Positions (T, P, 3) float32 of all points of a `Motion` of this skeleton."""
        positions, turned = motion.positions(), motion.global_rotations()
        if self.extras:
            bases = [base for base, _ in self.extras]
            offsets = positions.new_tensor([offset for _, offset in self.extras])
            more = positions[:, bases] + (turned[:, bases] @ offsets[..., None])[..., 0]
            positions = torch.cat([positions, more], dim=1)
        return positions.detach().cpu().numpy().astype(np.float32)


@functools.lru_cache(maxsize=32)
def figure_of(skeleton: Skeleton) -> Figure:
    """What to draw of a skeleton, from its shape and names alone.

    Args:
        skeleton: any; limbs are found by the left-right partners, hands and feet by its fields, the skull by its name.
    """
    rest = skeleton.rest().double().numpy()
    partners, parents = skeleton.mirror, skeleton.parents
    middle = parents[skeleton.index(skeleton.hips[0])] if skeleton.hips else 0
    # By the length of its longest limb: files may have a rest pose in which no body stands.
    scale = max(_reach(rest, skeleton, middle), 0.1) / REACH
    height = scale * TALL
    sides = [_side(skeleton, rest, joint, partners[joint]) for joint in range(len(skeleton))]
    heads = [j for j, name in enumerate(skeleton.joints) if "head" in name.lower() and not sides[j]]
    head = heads[0] if heads else None
    radius = _radii(skeleton, rest, sides, head, scale)

    segments, radii, flanks = [], [], []
    hidden = set(_below(parents, head))  # jaw and eyes lie inside the skull
    # Some files hang the body on a point of the floor, which is no part of it.
    if parents.count(0) == 1 and rest[0, 1] < 0.2 * height:
        hidden.add(parents.index(0))

    def capsule(a: int, b: int, thick_a: float, thick_b: float, side: int) -> None:
        segments.append((a, b))
        radii.append((thick_a, thick_b))
        flanks.append(side)

    for parent, joint in skeleton.bones():
        if joint in hidden or np.linalg.norm(rest[joint] - rest[parent]) < 1e-4:
            continue
        # From the trunk to a limb: still trunk.
        leaves_trunk = sides[parent] != sides[joint]
        capsule(parent, joint, radius[joint] if leaves_trunk else radius[parent], radius[joint], sides[parent])

    extras: list[tuple[int, tuple[float, float, float]]] = []

    def extra(base: int, offset: np.ndarray) -> int:
        extras.append((base, tuple(float(value) for value in offset)))
        return len(skeleton) + len(extras) - 1

    if head is not None:
        neck = rest[head] - rest[max(parents[head], 0)]
        upright = neck[1] > 0.7 * np.linalg.norm(neck) or not neck.any()
        up = np.array([0.0, 1.0, 0.0]) if upright else neck / np.linalg.norm(neck)
        ahead = np.array([0.0, 0.0, 1.0])
        low, high = extra(head, (0.06 * up + 0.015 * ahead) * scale), extra(head, (0.125 * up + 0.02 * ahead) * scale)
        capsule(low, high, SKULL * scale, SKULL * scale * 0.97, 0)
        if upright:  # otherwise the rest pose does not say where the face is
            nose = extra(head, (0.075 * up + 0.112 * ahead) * scale)
            capsule(nose, nose, NOSE * scale, NOSE * scale, 0)
    leaves = set(range(len(skeleton))) - set(parents)
    for hand in skeleton.hands:
        wrist = skeleton.index(hand[0])
        if wrist in leaves:
            along = rest[wrist] - rest[parents[wrist]]
            tip = extra(wrist, FINGERS * scale * along / np.linalg.norm(along))
            capsule(wrist, tip, radius[wrist] * 1.15, radius[wrist] * 0.75, sides[wrist])
    for foot in skeleton.feet:
        ankle, toe = skeleton.indices(foot[:2])
        if toe in leaves:
            along = (rest[toe] - rest[ankle]) * (1, 0, 1)
            tip = extra(toe, SHOE * scale * along / max(np.linalg.norm(along), 1e-6))
            capsule(toe, tip, radius[toe], radius[toe] * 0.8, sides[toe])
    feet = tuple(skeleton.contact_joints) if len(skeleton.feet) == 2 else ()
    shapes = np.array(segments).reshape(-1, 2), np.array(radii).reshape(-1, 2), np.array(flanks, int)
    while sides[middle]:
        middle = parents[middle]
    return Figure(skeleton, *shapes, tuple(extras), feet, middle, height)


def _radii(skeleton: Skeleton, rest: np.ndarray, sides: list[int], head: int | None, scale: float) -> list[float]:
    """Metres at every joint: limbs taper from the trunk to their last joint."""
    parents = skeleton.parents
    reach = [0.0] * len(parents)  # way from where the limb leaves the trunk
    for joint, parent in enumerate(parents):
        if parent >= 0 and sides[joint] and sides[parent] == sides[joint]:
            reach[joint] = reach[parent] + float(np.linalg.norm(rest[joint] - rest[parent]))
    foot_joints = set(skeleton.indices(sum(skeleton.feet, ())))
    legs = {above for joint in foot_joints for above in _above(parents, joint)} | foot_joints
    radii = []
    for joint, side in enumerate(sides):
        if not side:
            carries_arms = any(sides[child] and child not in legs for child, up in enumerate(parents) if up == joint)
            carries_limbs = any(sides[below] for below in _below(parents, joint))
            radii.append((CHEST if carries_arms else TRUNK if carries_limbs and joint != head else NECK) * scale)
            continue
        root = joint
        while sides[parents[root]] == side:
            root = parents[root]
        whole = max([reach[one] for one in (*_below(parents, root), root)] + [1e-6])
        start, end = LEG if joint in legs else ARM
        radii.append((start + (end - start) * reach[joint] / whole) * scale)
    return radii


def _side(skeleton: Skeleton, rest: np.ndarray, joint: int, partner: int) -> int:
    """1 left, 0 middle, -1 right: by the place at rest, by the name where a rest pose has both in one place."""
    if partner == joint:
        return 0
    apart = float(rest[joint, 0] - rest[partner, 0])
    if abs(apart) > 1e-3:
        return 1 if apart > 0 else -1
    name, other = skeleton.joints[joint], skeleton.joints[partner]
    own = next(a for a, b in zip(name, other, strict=False) if a != b)
    return 1 if own in "lL" else -1


def _reach(rest: np.ndarray, skeleton: Skeleton, start: int) -> float:
    """The longest way along bones from a joint to one below it, fingers not counted."""
    fingers = set(skeleton.indices(sum((hand[1:] for hand in skeleton.hands), ())))
    far = {start: 0.0}
    for joint, parent in enumerate(skeleton.parents):
        if parent in far and joint != start and joint not in fingers:
            far[joint] = far[parent] + float(np.linalg.norm(rest[joint] - rest[parent]))
    return max(far.values())


def _below(parents: tuple[int, ...], joint: int | None) -> list[int]:
    found = {joint}
    return [j for j, parent in enumerate(parents) if joint is not None and parent in found and not found.add(j)]


def _above(parents: tuple[int, ...], joint: int) -> list[int]:
    found = []
    while parents[joint] >= 0:
        joint = parents[joint]
        found.append(joint)
    return found


@dataclass(frozen=True)
class Eye:
    """Where a picture is taken from; the browser's player has the same numbers.

    Args:
        target: the point looked at, metres.
        azimuth: radians; 0 looks from +z, so that a body facing +z looks at the reader; it grows towards +x.
        elevation: radians above the horizon.
        distance: metres from the target.
        zoom: picture heights that one metre fills, for a picture without perspective; None: with perspective.
    """

    target: tuple[float, float, float] = (0.0, 0.9, 0.0)
    azimuth: float = 0.6
    elevation: float = 0.25
    distance: float = 4.5
    zoom: float | None = None

    def axes(self) -> np.ndarray:
        """Rows: right, up and towards the eye, (3, 3)."""
        a, e = self.azimuth, self.elevation
        right = (math.cos(a), 0.0, -math.sin(a))
        up = (-math.sin(a) * math.sin(e), math.cos(e), -math.cos(a) * math.sin(e))
        back = (math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e))
        return np.array([right, up, back])

    def see(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Looks at points (..., 3): screen places (..., 2), nearness (...) along the view, and scale (...) a metre."""
        seen = (np.asarray(points, float) - self.target) @ self.axes().T
        nearness = seen[..., 2]
        if self.zoom is not None:
            scale = np.full(nearness.shape, float(self.zoom))
        else:
            scale = FOCAL / np.maximum(self.distance - nearness, 0.05 * self.distance)
        return seen[..., :2] * scale[..., None], nearness, scale

    def fitted(self, points: np.ndarray, aspect: float = 1.0, margin: float = 0.08) -> Eye:
        """The eye moved, with its directions kept, so that points (..., 3) just fill a picture of this width to height."""
        cloud = np.asarray(points, float).reshape(-1, 3)
        eye = replace(self, target=tuple((cloud.min(0) + cloud.max(0)) / 2))
        half = np.array([aspect, 1.0]) / 2 * (1 - 2 * margin)
        for _ in range(4):  # how far, then how much aside; the one changes the other a little
            seen = (cloud - eye.target) @ eye.axes().T
            if eye.zoom is None:
                eye = replace(eye, distance=float((seen[:, 2:] + FOCAL * np.abs(seen[:, :2]) / half).max()))
            else:
                eye = replace(eye, zoom=float((half / np.abs(seen[:, :2]).max(0).clip(1e-6)).min()))
            places, _, _ = eye.see(cloud)
            off = (places.min(0) + places.max(0)) / 2 * (eye.distance / FOCAL if eye.zoom is None else 1 / eye.zoom)
            eye = replace(eye, target=tuple(eye.target + off @ eye.axes()[:2]))
        return eye


def capsules(starts: np.ndarray, ends: np.ndarray, radii: np.ndarray, corners: int = 9) -> np.ndarray:
    """Outlines (S, 2 * corners, 2) of discs joined to discs, which is what capsules look like from afar.

    Args:
        starts, ends: (S, 2) centres.
        radii: (S, 2) of both discs.
        corners: points an arc.
    """
    along = ends - starts
    length = np.hypot(*along.T)
    thin, thick = radii.min(1), radii.max(1)
    # One disc inside the other: the larger one alone.
    inside = length <= thick - thin + 1e-9
    swallowed = inside & (radii[:, 0] >= radii[:, 1])
    ends = np.where(swallowed[:, None], starts, ends)
    starts = np.where((inside & ~swallowed)[:, None], ends, starts)
    radii = np.where(inside[:, None], thick[:, None], radii)
    turn = np.arctan2(along[:, 1], along[:, 0])
    tangent = np.arccos(np.clip((radii[:, 0] - radii[:, 1]) / np.maximum(length, 1e-9), -1, 1))
    tangent = np.where(inside, np.pi / 2, tangent)
    share = np.linspace(-1, 1, corners)
    front = turn[:, None] + tangent[:, None] * share
    back = turn[:, None] + np.pi + (np.pi - tangent)[:, None] * share
    arc = lambda angles, centres, radius: (
        centres[:, None] + radius[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    )
    return np.concatenate([arc(front, ends, radii[:, 1]), arc(back, starts, radii[:, 0])], axis=1)


@functools.lru_cache(maxsize=256)
def mixed(colour: str, other: str, share: float) -> tuple[float, float, float]:
    """A colour with a share of another one, as RGB in [0, 1]."""
    return tuple(a + (b - a) * share for a, b in zip(to_rgb(colour), to_rgb(other), strict=True))


def headings(points: np.ndarray, skeleton: Skeleton) -> np.ndarray | None:
    """Where bodies face, radians (T,): 0 along +z, growing towards +x; None for a skeleton without named hips."""
    if skeleton.hips is None:
        return None
    right, left = skeleton.indices(skeleton.hips)
    across = points[:, right] - points[:, left]
    return np.arctan2(across[:, 2], -across[:, 0])
