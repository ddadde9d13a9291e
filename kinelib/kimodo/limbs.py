"""Two-bone inverse kinematics: an arm or a leg turned so that its end is where it should be, all frames at once.

Kimodo's clean-up (Section 3.5 of the paper) moves hands and feet onto their targets this way. Two bones reach a target in
closed form: the law of cosines gives the bend, and the *pole*, a direction in which the middle joint points, chooses one of
the circle of solutions. Here the pole is where the elbow or knee points already, so a correction changes the look of
a limb as little as possible; a straight limb does not point anywhere, and then a hint counts (elbows back, knees forward).

A target beyond the limb's reach is approached up to `REACH` of its length; how much is missing is returned. Turns are
returned as the rotations of each bone in the world: the frame of bone and hinge before is carried to the frame after, so
a limb that is already there is not turned at all, and twist about the bones survives.

Departures: the release takes the hint always (10 cm behind the elbow, 10 cm before the knee), which bends limbs anew.

Shapes: T frames; points (..., 3) metres in the world; rotations (..., 3, 3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from kinelib.bodies.kinematics import forward, local_from_global
from kinelib.bodies.skeleton import Skeleton

Array = NDArray[np.float64]
REACH = 0.999  # share of a limb's length up to which it is stretched; a straight limb has no knee that could bend
STRAIGHT = 0.02  # share of the limb's length; a middle joint that is less off the line points nowhere reliably


class Limb(NamedTuple):
    """Joints of an arm or a leg, as numbers, and the way its middle joint points when nothing else says so."""

    upper: int  # shoulder or hip
    middle: int  # elbow or knee
    end: int  # wrist or ankle
    hint: tuple[float, float, float]  # in the axes of the joint above the limb at rest


class Bend(NamedTuple):
    """What inverse kinematics found."""

    upper: Array  # (..., 3, 3) to multiply the upper joint's global rotation with, from the left
    middle: Array  # (..., 3, 3) the same for the middle joint
    reached: Array  # (..., 3) where the end is now
    missing: Array  # (...) metres from there to the target


def limbs(skeleton: Skeleton) -> dict[str, Limb]:
    """The two-bone limbs of a skeleton: left_hand, right_hand, left_foot, right_foot.

    Raises:
        ValueError: when a hand or foot does not hang on two bones with a branch above, as on robots whose joints are hinges.
    """
    found = {}
    children = np.bincount([parent for parent in skeleton.parents if parent >= 0], minlength=len(skeleton))
    for part, sides, hint in (("hand", skeleton.hands, (0.0, 0.0, -1.0)), ("foot", skeleton.feet, (0.0, 0.0, 1.0))):
        for side, joints in zip(("left", "right"), sides, strict=False):
            end = skeleton.index(joints[0])
            middle = skeleton.parents[end]
            upper = skeleton.parents[middle] if middle >= 0 else -1
            lengths = skeleton.offsets[[middle, end]].norm(dim=-1) if upper >= 0 else torch.zeros(2)
            # On a hinged robot the "bones" above the ankle are links of a gimbal: short, and of one axis each.
            if upper < 1 or children[middle] > 1 or float(lengths.min()) < 0.5 * float(lengths.max()):
                raise ValueError(
                    f"skeleton {skeleton.name!r}: {joints[0]} does not hang on two bones of a limb, so it cannot be moved "
                    "by two-bone inverse kinematics; clean-up works on human skeletons such as smplx22 and soma30."
                )
            found[f"{side}_{part}"] = Limb(upper, middle, end, hint)
    return found


def two_bone(upper: ArrayLike, middle: ArrayLike, end: ArrayLike, target: ArrayLike, hint: ArrayLike) -> Bend:
    """Turns two bones so that their end comes to a target.

    Args:
        upper, middle, end: (..., 3) where the joints are.
        target: (..., 3) where the end should be.
        hint: (..., 3) where the middle joint points if the limb is straight.

    Returns:
        the turns, see `Bend`.
    """
    a, b, c, goal, hint = (np.asarray(points, float) for points in (upper, middle, end, target, hint))
    first, second = _length(b - a), _length(c - b)
    wanted = _length(goal - a)
    distance = np.clip(wanted, np.abs(first - second) + 1e-6, REACH * (first + second))
    # Below that, only what already was further out stays so: a limb that is there is not pulled in.
    distance = np.where((wanted <= first + second) & (wanted > distance), np.maximum(distance, _length(c - a)), distance)
    distance = np.minimum(distance, np.maximum(wanted, np.abs(first - second) + 1e-6))
    along = _unit(goal - a, _unit(c - a, np.broadcast_to([0.0, -1.0, 0.0], a.shape)))
    # The middle joint keeps pointing as it did, seen along the limb as it was; that is carried to the limb as it will be.
    before = _unit(c - a, along)
    bent = _across(b - a, before)
    # Only a limb that is straight and must bend asks for the hint: it might have been straight by way of a stiff knee.
    straight = 1 - np.clip(_length(bent) / (STRAIGHT * (first + second)), 0, 1)
    bending = np.clip(np.abs(distance - _length(c - a)) / (STRAIGHT * (first + second)), 0, 1)
    nowhere = np.zeros_like(bent)
    hinted = straight * bending
    pole = (1 - hinted) * _unit(bent, nowhere) + hinted * _unit(_across(hint, before), nowhere)
    pole = _unit(pole, _unit(_across(hint, before), _any_across(before)))
    carried = _unit(_across(_carry(before, along, pole), along), _any_across(along))
    cosine = np.clip((first**2 + distance**2 - second**2) / np.maximum(2 * first * distance, 1e-12), -1, 1)
    elbow = a + first * (cosine * along + np.sqrt(1 - cosine**2) * carried)
    reached = a + distance * along
    # Hinges: perpendicular to the plane of the bend, before and after.
    old, new = np.cross(before, pole), np.cross(along, carried)
    turn = lambda was, now: _frame(_unit(now, along), new) @ _frame(_unit(was, before), old).swapaxes(-1, -2)
    return Bend(turn(b - a, elbow - a), turn(c - b, reached - elbow), reached, _length(goal - reached)[..., 0])


def reach(
    turned: Array,
    positions: Array,
    skeleton: Skeleton,
    limb: Limb,
    target: Array,
    end_rotation: Array | None = None,
) -> tuple[Array, Array]:
    """Global rotations of a body whose limb reaches for targets.

    Args:
        turned: (T, J, 3, 3) global rotations.
        positions: (T, J, 3) metres.
        skeleton: of the body.
        limb: which limb.
        target: (T, 3) of its end.
        end_rotation: (T, 3, 3) of its end in the world; None: as it was, so that a lifted foot stays level.

    Returns:
        (T, J, 3, 3) global rotations, and (T,) metres by which targets are out of reach.
    """
    above = turned[:, skeleton.parents[limb.upper]]
    bend = two_bone(*(positions[:, joint] for joint in limb[:3]), target, above @ np.asarray(limb.hint))
    result = turned.copy()
    result[:, limb.upper] = bend.upper @ turned[:, limb.upper]
    result[:, limb.middle] = bend.middle @ turned[:, limb.middle]
    if end_rotation is not None:
        # Fingers and toes keep their angle against the end they hang on.
        change = end_rotation @ turned[:, limb.end].swapaxes(-1, -2)
        for joint in descendants(skeleton, limb.end):
            result[:, joint] = change @ turned[:, joint]
    return result, bend.missing


def descendants(skeleton: Skeleton, joint: int) -> list[int]:
    """A joint and everything that hangs on it."""
    found = [joint]
    for other in range(joint + 1, len(skeleton)):
        if skeleton.parents[other] in found:
            found.append(other)
    return found


def pose(local: ArrayLike, root: ArrayLike, skeleton: Skeleton) -> tuple[Array, Array]:
    """Positions (T, J, 3) and global rotations (T, J, 3, 3) of local ones, as arrays of double precision."""
    positions, turned = forward(
        torch.as_tensor(np.asarray(local)).double(), torch.as_tensor(np.asarray(root)).double(), skeleton
    )
    return positions.numpy(), turned.numpy()


def place(turned: Array, root: Array, skeleton: Skeleton) -> Array:
    """Positions (T, J, 3) of global rotations and a root."""
    offsets = skeleton.offsets.double().numpy()
    positions = [root]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        positions.append(positions[parent] + turned[:, parent] @ offsets[joint])
    return np.stack(positions, axis=1)


def local_of(turned: Array, skeleton: Skeleton) -> Array:
    """Local rotations (T, J, 3, 3) of global ones."""
    return local_from_global(torch.from_numpy(turned), skeleton.parents).numpy()


def aim(turned: Array, skeleton: Skeleton, joint: int, direction: Array, target: Array) -> Array:
    """Turns one joint, and what hangs on it, the shortest way from a direction (T, 3) in the world to another."""
    turn = between(direction, target)
    result = turned.copy()
    for other in descendants(skeleton, joint):
        result[:, other] = turn @ turned[:, other]
    return result


def between(was: Array, now: Array) -> Array:
    """The least rotations (..., 3, 3) from directions (..., 3) to others; none where either has no length."""
    start = _unit(was, np.broadcast_to([0.0, 1.0, 0.0], was.shape))
    return _turn(start, _unit(now, start))


def _length(vectors: Array) -> Array:
    return np.linalg.norm(vectors, axis=-1, keepdims=True)


def _unit(vectors: Array, spare: Array) -> Array:
    length = _length(vectors)
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), spare)


def _across(vectors: Array, axis: Array) -> Array:
    """The part of vectors that is perpendicular to a unit axis."""
    return vectors - (vectors * axis).sum(-1, keepdims=True) * axis


def _any_across(axis: Array) -> Array:
    """Some unit vector perpendicular to a unit axis."""
    spare = np.eye(3)[np.abs(axis).argmin(-1)]
    return _across(spare, axis) / np.maximum(_length(_across(spare, axis)), 1e-9)


def _frame(axis: Array, hinge: Array) -> Array:
    """Rotations (..., 3, 3) whose columns are a bone's axis, the hinge made perpendicular to it, and what completes them."""
    hinge = _unit(_across(hinge, axis), _any_across(axis))
    return np.stack([axis, hinge, np.cross(axis, hinge)], -1)


def _turn(was: Array, now: Array) -> Array:
    """The least rotations (..., 3, 3) between unit directions; a half turn about some axis between opposite ones."""
    axis, cosine = np.cross(was, now), (was * now).sum(-1)[..., None, None]
    opposite = cosine < -1 + 1e-9
    zero = np.zeros_like(axis[..., 0])
    x, y, z = np.moveaxis(axis, -1, 0)
    cross = np.stack([np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)], -2)
    turn = np.eye(3) + cross + cross @ cross / np.where(opposite, 1.0, 1 + cosine)
    half = _any_across(was)
    return np.where(opposite, 2 * half[..., :, None] * half[..., None, :] - np.eye(3), turn)


def _carry(was: Array, now: Array, vectors: Array) -> Array:
    return (_turn(was, now) @ vectors[..., None])[..., 0]
