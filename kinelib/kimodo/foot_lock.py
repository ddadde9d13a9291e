"""Foot locking: what stands on the floor stays where it is.

A generated foot slides a little while it is said to stand (Kimodo, Section 3.5). Each *stance*, a run of frames with
contact, gets one place for ankle and toe, taken from one frame of it, and the leg follows by two-bone inverse kinematics:

    flat (ankle and toe)   the ankle at its place, the foot aimed so that the toe is at its own
    heel only              the ankle at its place, the toe free to come down
    toe only               the toe at its place, the ankle turns about it

Between stances corrections die away smoothly, through the banded corrector. Where a place is out of reach the pelvis comes
down a little first; what is still missing fades the lock out instead of stretching the leg.

Departures: the release counts the ankle as standing whenever the toe does, which holds a heel that should rise, lets the
toe slide, and keeps the pelvis. It also trusts every contact; here a foot that flies or runs past is no stance.

Shapes: T frames, J joints; sides are left, right; contacts (T, 4): left ankle, left toe, right ankle, right toe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_opening, gaussian_filter1d, maximum_filter1d

from kinelib.bodies.skeleton import Skeleton
from kinelib.kimodo.limbs import Limb, aim, between, limbs, place, reach
from kinelib.kimodo.trajectory import correct, matrices_of, vectors_of
from kinelib.notation import ShapeError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class FootLocking:
    """How feet are locked."""

    fastest: float = 0.8  # m/s; what moves faster does not stand, whatever its contact says
    highest: float = 0.15  # metres above its height at rest; what is higher does not stand
    shortest: int = 2  # frames; a contact that is shorter is noise
    gap: int = 1  # frames; an interruption up to this is noise
    stretch: float = 0.995  # share of the leg's length up to which the pelvis stays as high as it is
    lowest: float = 0.05  # metres by which the pelvis may come down
    position: float = 0.01  # w_p of the corrector: how soon corrections die away after a stance
    velocity: float = 1.0  # w_v
    acceleration: float = 1.0  # w_a


@dataclass(frozen=True)
class Stance:
    """A run of frames in which a foot stands."""

    start: int  # first frame
    stop: int  # first frame in which it stands no more
    anchor: int  # the frame whose place the foot keeps


def stances(ankle: Flags, toe: Flags, held: Flags | None = None) -> list[Stance]:
    """The stances of one foot.

    Args:
        ankle, toe: (T,) bool contacts.
        held: (T,) bool frames in which a constraint says where the foot is. A stance that holds or touches such a frame
            is anchored there, any other in the middle of its flat part.
    """
    held = np.zeros(len(ankle), bool) if held is None else held
    found = []
    for start, stop in runs(ankle | toe):
        near = np.flatnonzero(held[max(start - 1, 0) : stop + 1]) + max(start - 1, 0)
        flat = np.flatnonzero((ankle & toe)[start:stop]) + start
        middle = flat[len(flat) // 2] if len(flat) else (start + stop - 1) // 2
        found.append(Stance(start, stop, int(near[np.abs(near - middle).argmin()] if len(near) else middle)))
    return found


def runs(flags: Flags) -> list[tuple[int, int]]:
    """The first frame, and the first frame after, of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def believed(contacts: Flags, positions: Array, fps: float, skeleton: Skeleton, how: FootLocking) -> Flags:
    """Contacts (T, 4) without those of feet that fly or run past, and without flicker."""
    joints = skeleton.contact_joints
    place = positions[:, joints]
    speed = np.linalg.norm(np.gradient(place, axis=0), axis=-1) * fps if len(place) > 1 else np.zeros(place.shape[:2])
    low = place[..., 1] < skeleton.rest()[joints, 1].numpy() + how.highest
    contacts = contacts & (speed < how.fastest) & low
    if how.gap:
        # Padding keeps the ends of the clip from being taken for gaps.
        padded = np.pad(contacts, ((how.gap, how.gap), (0, 0)))
        contacts = binary_closing(padded, np.ones((how.gap + 1, 1)))[how.gap : len(padded) - how.gap] | contacts
    padded = np.pad(contacts, ((how.shortest, how.shortest), (0, 0)), mode="edge")
    return binary_opening(padded, np.ones((how.shortest, 1)))[how.shortest : len(padded) - how.shortest]


def lock_feet(
    turned: Array,
    root: Array,
    skeleton: Skeleton,
    contacts: Flags,
    fps: float,
    *,
    held: Flags | None = None,
    still: Flags | None = None,
    how: FootLocking | None = None,
) -> tuple[Array, Array]:
    """Keeps standing feet where they stand.

    Args:
        turned: (T, J, 3, 3) global rotations.
        root: (T, 3) pelvis, metres.
        skeleton: of the body, with feet.
        contacts: (T, 4) bool.
        fps: frames a second.
        held: (T, 2) bool, frames in which the left, the right foot is where a constraint wants it and must stay.
        still: (T,) bool, further frames in which the pelvis must stay as high as it is.
        how: thresholds and weights.

    Returns:
        (T, J, 3, 3) global rotations and (T, 3) root, both new.
    """
    how = how or FootLocking()
    count = len(root)
    if contacts.shape != (count, 4) or contacts.dtype != bool:
        raise ShapeError(f"contacts must be ({count}, 4) bool; got {contacts.shape} {contacts.dtype}.")
    held = np.zeros((count, 2), bool) if held is None else held
    positions = place(turned, root, skeleton)
    contacts = believed(contacts, positions, fps, skeleton, how)
    legs = limbs(skeleton)
    plans = []
    for side, name in enumerate(("left_foot", "right_foot")):
        ankle, toe = skeleton.contact_joints[2 * side : 2 * side + 2]
        plan = _plan(turned, positions, skeleton, (ankle, toe), contacts[:, 2 * side : 2 * side + 2], held[:, side], how)
        plans.append((legs[name], *plan))
    if not contacts.any():
        return turned.copy(), root.copy()
    still = held.any(axis=1) if still is None else held.any(axis=1) | still
    root = root - _drop(positions, plans, skeleton, still, how)[:, None] * np.array([0.0, 1.0, 0.0])
    for leg, target, orientation, standing in plans:
        positions = place(turned, root, skeleton)
        # A place that is out of reach fades the lock out: a leg at full stretch would snap.
        far = np.linalg.norm(target - positions[:, leg.upper], axis=-1) / _length(skeleton, leg)
        now = np.linalg.norm(positions[:, leg.end] - positions[:, leg.upper], axis=-1) / _length(skeleton, leg)
        fade = np.exp(-2 * (np.maximum(far - np.maximum(now, 0.995), 0) / 0.01) ** 4)[:, None]
        goal = positions[:, leg.end] + fade * (target - positions[:, leg.end])
        turned = reach(turned, positions, skeleton, leg, goal, orientation)[0]
        turned = _lift_toe(turned, root, skeleton, leg.end, standing)
    return turned, root


def _plan(
    turned: Array,
    positions: Array,
    skeleton: Skeleton,
    joints: tuple[int, int],
    contacts: Flags,
    held: Flags,
    how: FootLocking,
) -> tuple[Array, Array, Flags]:
    """Where the ankle should be (T, 3), how the foot should be turned (T, 3, 3), and whether it stands (T,)."""
    ankle, toe = joints
    rest = skeleton.rest()[[ankle, toe], 1].double().numpy()
    down, tip = contacts.T
    pins = held.copy()
    turn, offset = np.zeros((len(held), 3)), np.zeros((len(held), 3))
    found = stances(down, tip, held)
    weights = dict(position=how.position, velocity=how.velocity, acceleration=how.acceleration)
    sole = positions[:, toe] - positions[:, ankle]
    spots = []
    for stance in found:
        frames = np.arange(stance.start, stance.stop)
        spot = positions[stance.anchor, [ankle, toe]].copy()
        # A foot in the floor is lifted to how it stands at rest; one above it is left there.
        spot[:, 1] = np.maximum(spot[:, 1], rest)
        spots.append(spot)
        flat = frames[(down & tip)[frames] & ~held[frames]]
        wanted = np.broadcast_to(spot[1] - spot[0], (len(flat), 3))
        turn[flat] = vectors_of(between(sole[flat], wanted)) if len(flat) else turn[flat]
        pins[flat] = True
    orientation = matrices_of(correct(np.zeros_like(turn), pins, turn, **weights)) @ turned[:, ankle]
    offset_of_toe = skeleton.offsets[toe].double().numpy()
    pins = held.copy()
    for stance, spot in zip(found, spots, strict=True):
        frames = np.arange(stance.start, stance.stop)
        frames = frames[~held[frames]]
        target = np.where(down[frames, None], spot[0], spot[1] - orientation[frames] @ offset_of_toe)
        offset[frames] = target - positions[frames, ankle]
        pins[frames] = True
    return positions[:, ankle] + correct(np.zeros_like(offset), pins, offset, **weights), orientation, pins


def _length(skeleton: Skeleton, limb: Limb) -> float:
    return float(skeleton.offsets[[limb.middle, limb.end]].norm(dim=-1).sum())


def _drop(positions: Array, plans: list, skeleton: Skeleton, held: Flags, how: FootLocking) -> Array:
    """How far the pelvis comes down (T,) so that standing feet are in reach; nowhere that a constraint holds a foot."""
    need = np.zeros(len(positions))
    for leg, target, _, standing in plans:
        away = positions[:, leg.upper] - target
        now = np.linalg.norm(positions[:, leg.upper] - positions[:, leg.end], axis=-1)
        radius = np.maximum(how.stretch * _length(skeleton, leg), now)
        flat = np.minimum((away[:, [0, 2]] ** 2).sum(-1), radius**2)
        need = np.maximum(need, standing * (away[:, 1] - np.sqrt(radius**2 - flat)))
    need = np.clip(np.where(held, 0, need), 0, how.lowest)
    if not need.any():
        return need
    # The widest need of a neighbourhood, softened: never less than what a frame itself needs, and no jump.
    smooth = gaussian_filter1d(maximum_filter1d(need, 7), 1.5, mode="nearest")
    if held.any():
        smooth -= correct(np.zeros((len(need), 1)), held, smooth[:, None], position=0.05)[:, 0]
    return np.maximum(smooth, 0)


def _lift_toe(turned: Array, root: Array, skeleton: Skeleton, ankle: int, standing: Flags) -> Array:
    """Turns feet whose toe is in the floor up about the ankle, where no place is kept."""
    toe = skeleton.feet[0 if skeleton.feet[0][0] == skeleton.joints[ankle] else 1][1]
    toe = skeleton.index(toe)
    positions, floor = place(turned, root, skeleton), float(skeleton.rest()[toe, 1])
    sole = positions[:, toe] - positions[:, ankle]
    deep = (positions[:, toe, 1] < floor - 1e-4) & ~standing
    if not deep.any():
        return turned
    length = np.linalg.norm(sole, axis=-1)
    rise = np.clip(floor - positions[:, ankle, 1], -0.99 * length, 0.99 * length)
    level = sole[:, [0, 2]] / np.maximum(np.linalg.norm(sole[:, [0, 2]], axis=-1, keepdims=True), 1e-9)
    level = level * np.sqrt(length**2 - rise**2)[:, None]
    lifted = np.stack([level[:, 0], rise, level[:, 1]], -1)
    return aim(turned, skeleton, ankle, sole, np.where(deep[:, None], lifted, sole))
