"""Foot locking: what stands on the floor stays where it is.

A generated foot slides while it is said to stand (Kimodo, Section 3.5). Three steps take that out:

    planted       which feet stand when: predicted contacts and slow low feet, with hysteresis and without flicker
    steady_root   the pelvis' path changed so that planted feet are still in the sense of least squares
    lock_feet     a place for every stance, the leg onto it by two-bone inverse kinematics

The second step matters most. A whole body that goes too fast for its legs carries its standing foot along; no leg can undo
that for long, but one banded solve for the path does. What is left is a few centimetres, which the leg takes.

A *stance* is a run of frames in which ankle or toe stands. Its place is the mean over its frames:

    flat (ankle and toe)   the ankle at its place, the foot aimed so that the toe is at its own
    heel only              the ankle at its place, the toe free to come down
    toe only               the toe at its place, the ankle turns about it

A contact at frame t says that nothing moves from t to t + 1, so a place is kept one frame longer than its contact lasts.
Between stances corrections die away smoothly, through the banded corrector. Where a place is out of reach the pelvis comes
down a little; frames that are too far from their place even then are let go, and are no contact any more.

Departures: the release counts the ankle as standing whenever the toe does, which holds a heel that should rise, lets the
toe slide, keeps the path of the pelvis, and says of feet it had to let go that they stand.

Shapes: T frames, J joints; sides are left, right; contacts (T, 4): left ankle, left toe, right ankle, right toe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, binary_propagation, gaussian_filter1d, maximum_filter1d, median_filter

from kinelib.bodies.features import CONTACT_HEIGHT, CONTACT_SPEED
from kinelib.bodies.skeleton import Skeleton
from kinelib.kimodo.limbs import Limb, aim, between, limbs, place, reach
from kinelib.kimodo.trajectory import correct, follow, matrices_of, vectors_of
from kinelib.notation import ShapeError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
LEVEL = [0, 2]  # x and z
UP = np.array([0.0, 1.0, 0.0])
TRIMS = 6  # rounds in which frames that cannot keep their place are let go


@dataclass(frozen=True)
class FootLocking:
    """How feet are locked."""

    fastest: float = 0.8  # m/s; what moves faster does not stand, whatever its contact says
    slow: float = 0.3  # m/s; what is slower stands if it stands just before or after
    rising: float = 0.4  # m/s upwards or downwards; what rises or falls faster does not stand
    highest: float = 0.1  # metres above its height at rest; what is higher does not stand
    shortest: int = 2  # frames; a contact that is shorter is noise
    gap: int = 2  # frames; an interruption up to this is noise, if ...
    same: float = 0.12  # metres; ... the foot is no further off after it than this
    farthest: float = 0.2  # metres on the floor; a frame further from the place of its stance is let go
    stretch: float = 0.995  # share of the leg's length up to which the pelvis stays as high as it is
    lowest: float = 0.05  # metres by which the pelvis may come down
    position: float = 0.01  # w_p of the corrector: how soon corrections die away after a stance
    velocity: float = 1.0  # w_v
    acceleration: float = 1.0  # w_a


@dataclass(frozen=True)
class Steadying:
    """How the path of the pelvis follows its feet."""

    rounds: int = 3  # of choosing contacts and solving for the path
    doubt: float = 0.5  # m/s; a contact this fast counts a quarter
    calm: float = 0.05  # m/s; slower feet are left to the legs, and a clean motion as it is
    own: float = 0.5  # weight of the path's own velocity beside that of a planted foot, 1
    burst: float = 1.0  # m/s by which a step may differ from the median of the steps around it
    around: float = 0.75  # seconds that these are
    position: float = 1e-4  # of its own place
    acceleration: float = 5.0  # of its own acceleration; the higher, the slower it changes


# ---- which feet stand


def planted(contacts: Flags, positions: Array, fps: float, skeleton: Skeleton, how: FootLocking) -> Flags:
    """Which feet stand (T, 4).

    A foot stands where it is low and either said to stand without being fast, or as slow as a foot in contact is; from
    there on it stands before and after as long as it stays low and slow (hysteresis). Short interruptions of a foot that
    comes back to where it was are closed, and contacts that are too short dropped.

    Args:
        contacts: (T, 4) bool as predicted.
        positions: (T, J, 3) metres.
        fps: frames a second.
        skeleton: with feet.
        how: thresholds.
    """
    joints = skeleton.contact_joints
    points = positions[:, joints]
    speed = speeds(points, fps)
    low = points[..., 1] < skeleton.rest()[joints, 1].numpy() + how.highest
    rising = np.abs(np.diff(points[..., 1], axis=0, append=points[-1:, :, 1])) * fps > how.rising
    low &= ~rising
    said = contacts & (speed < how.fastest) & low
    seen = (speed < CONTACT_SPEED) & (points[..., 1] < CONTACT_HEIGHT)
    loose = said | seen | ((speed < how.slow) & low)
    stands = binary_propagation(said | seen, np.ones((3, 1)), loose)
    for channel in range(4):
        found = runs(stands[:, channel])
        for (_, stop), (start, _) in zip(found[:-1], found[1:], strict=True):
            apart = np.linalg.norm(points[start, channel, LEVEL] - points[stop, channel, LEVEL])
            if start - stop <= how.gap and apart < how.same and low[stop:start, channel].all():
                stands[stop:start, channel] = True
    return _without_flicker(stands, how)


def speeds(points: Array, fps: float) -> Array:
    """Speed (T, ...) in m/s of points (T, ..., 3) from each frame to the next; the last frame repeats the one before."""
    if len(points) < 2:
        return np.zeros(points.shape[:-1])
    speed = np.linalg.norm(np.diff(points, axis=0), axis=-1) * fps
    return np.concatenate([speed, speed[-1:]])


def runs(flags: Flags) -> list[tuple[int, int]]:
    """The first frame, and the first frame after, of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _without_flicker(contacts: Flags, how: FootLocking) -> Flags:
    padded = np.pad(contacts, ((how.shortest, how.shortest), (0, 0)), mode="edge")
    return binary_opening(padded, np.ones((how.shortest, 1)))[how.shortest : len(padded) - how.shortest]


# ---- the path of the pelvis


def steady_root(
    turned: Array,
    root: Array,
    skeleton: Skeleton,
    contacts: Flags,
    fps: float,
    *,
    how: FootLocking | None = None,
    steadying: Steadying | None = None,
) -> tuple[Array, Flags, Array]:
    """Changes the path of the pelvis on the floor so that planted feet stand still, in the least-squares sense.

    Contacts are chosen and the path is solved for in turns, for a foot that is fast because its body is too fast is only
    known as planted once the path is better. A contact counts the less the faster it still is.

    Args:
        turned: (T, J, 3, 3) global rotations.
        root: (T, 3) pelvis, metres.
        skeleton: of the body, with feet.
        contacts: (T, 4) bool as predicted.
        fps: frames a second.
        how: which contacts are believed.
        steadying: weights.

    Returns:
        (T, 3) the root, its height as it was, (T, 4) which feet are planted then, and (T - 1,) the weights of velocity of
        the solve, with which pins are best met later (see `trajectory.follow`).
    """
    how, steadying = how or FootLocking(), steadying or Steadying()
    if len(root) < 2:
        return root.copy(), planted(contacts, place(turned, root, skeleton), fps, skeleton, how), np.zeros(0)
    root = _without_bursts(root, fps, steadying)
    points = place(turned, root, skeleton)
    feet = np.diff(points[:, skeleton.contact_joints][..., LEVEL], axis=0)
    speed = np.linalg.norm(feet, axis=-1, keepdims=True) * fps
    feet = feet * np.maximum(1 - steadying.calm / np.maximum(speed, 1e-9), 0)
    shift = np.zeros_like(root)
    for _ in range(steadying.rounds):
        moved = points + shift[:, None]
        stands = planted(contacts, moved, fps, skeleton, how)
        fast = speeds(moved[:, skeleton.contact_joints], fps)[:-1]
        trust = 0.5 * stands[:-1] / (1 + (fast / steadying.doubt) ** 2) ** 2
        weight = steadying.own + trust.sum(1)
        steps = -(trust[..., None] * feet).sum(1) / weight[:, None]
        smooth = dict(position=steadying.position, acceleration=steadying.acceleration)
        shift[:, LEVEL] = follow(np.zeros_like(root[:, LEVEL]), steps, weight, **smooth)
    return root + shift, planted(contacts, points + shift[:, None], fps, skeleton, how), weight


def _without_bursts(root: Array, fps: float, how: Steadying) -> Array:
    """The root without steps on the floor that differ from the median of their neighbourhood by more than a body can."""
    steps = np.diff(root[:, LEVEL], axis=0)
    window = min(2 * round(0.5 * how.around * fps) + 1, 2 * len(steps) - 1)
    usual = median_filter(steps, (window, 1), mode="reflect")
    excess = steps - usual
    size = np.linalg.norm(excess, axis=-1, keepdims=True) * fps
    cut = excess * np.maximum(1 - how.burst / np.maximum(size, 1e-9), 0)
    calm = root.copy()
    calm[1:, LEVEL] -= np.cumsum(cut, axis=0)
    return calm


# ---- the legs


@dataclass(frozen=True, eq=False)
class Stance:
    """A run of frames in which a foot stands, and where."""

    start: int  # first frame
    stop: int  # first frame in which it need not be there any more
    ankle: Array  # (stop - start, 3) metres; the same in all frames but between constraints that disagree
    toe: Array  # (stop - start, 3)


def stances(ankle: Flags, toe: Flags, places: Array, held: Flags | None = None) -> list[Stance]:
    """The stances of one foot.

    Args:
        ankle, toe: (T,) bool contacts.
        places: (T, 2, 3) where ankle and toe are.
        held: (T,) bool frames in which a constraint says where the foot is. A stance that holds or touches such frames is
            placed by them; any other at the mean of its flat frames, or, without, of those on the toe, or on the heel.
    """
    count = len(ankle)
    held = np.zeros(count, bool) if held is None else held
    length = np.linalg.norm(places[0, 1] - places[0, 0])
    found = []
    for start, stop in runs(_longer(ankle | toe)):
        frames = np.arange(start, stop)
        first = max(start - 1, 0)
        near = np.flatnonzero(held[first : stop + 1]) + first
        if len(near):
            spots = places[near].reshape(len(near), 6)
            spots = np.stack([np.interp(frames, near, column) for column in spots.T], -1).reshape(-1, 2, 3)
        else:
            best = next(flags for flags in (ankle & toe, toe, ankle) if flags[start:stop].any())
            spots = np.repeat(places[start:stop][best[start:stop]].mean(0)[None], len(frames), 0)
        # A mean of turned feet is shorter than a foot.
        sole = spots[:, 1] - spots[:, 0]
        sole = sole * (length / np.maximum(np.linalg.norm(sole, axis=-1, keepdims=True), 1e-9))
        heel = spots[:, 1] - sole if toe[start:stop].any() else spots[:, 0]
        found.append(Stance(start, stop, heel, heel + sole))
    return found


def _longer(flags: Flags) -> Flags:
    """Flags with the frame after each run: a contact says that the foot is in the same place one frame later."""
    longer = flags.copy()
    longer[1:] |= flags[:-1]
    return longer


def lock_feet(
    turned: Array,
    root: Array,
    skeleton: Skeleton,
    contacts: Flags,
    *,
    held: Flags | None = None,
    still: Flags | None = None,
    how: FootLocking | None = None,
) -> tuple[Array, Array, Flags]:
    """Keeps planted feet where they stand.

    Args:
        turned: (T, J, 3, 3) global rotations.
        root: (T, 3) pelvis, metres.
        skeleton: of the body, with feet.
        contacts: (T, 4) bool, see `planted`.
        held: (T, 2) bool, frames in which the left, the right foot is where a constraint wants it and must stay.
        still: (T,) bool, further frames in which the pelvis must stay as high as it is.
        how: thresholds and weights.

    Returns:
        (T, J, 3, 3) global rotations and (T, 3) root, both new, and (T, 4) the contacts that were kept.
    """
    how = how or FootLocking()
    count = len(root)
    if contacts.shape != (count, 4) or contacts.dtype != bool:
        raise ShapeError(f"contacts must be ({count}, 4) bool; got {contacts.shape} {contacts.dtype}.")
    held = np.zeros((count, 2), bool) if held is None else held
    still = held.any(axis=1) if still is None else held.any(axis=1) | still
    positions, contacts = place(turned, root, skeleton), contacts.copy()
    legs = [limbs(skeleton)[name] for name in ("left_foot", "right_foot")]
    sides = [
        (leg, skeleton.contact_joints[2 * side : 2 * side + 2], contacts[:, 2 * side : 2 * side + 2], held[:, side])
        for side, leg in enumerate(legs)
    ]
    # The flags of each side are a view of the contacts: what is let go below leaves both.
    for _ in range(TRIMS):
        plans = [
            (leg, *_plan(turned, positions, skeleton, joints, flags, frozen, how)) for leg, joints, flags, frozen in sides
        ]
        drop = _drop(positions, plans, skeleton, still, how)
        lost = False
        for (leg, target, _, standing), (_, _, flags, frozen) in zip(plans, sides, strict=True):
            hip = positions[:, leg.upper] - drop[:, None] * UP
            off = np.linalg.norm((target - positions[:, leg.end])[:, LEVEL], axis=-1) > how.farthest
            now = np.linalg.norm(positions[:, leg.end] - positions[:, leg.upper], axis=-1)
            short = np.linalg.norm(target - hip, axis=-1) > np.maximum(now, 0.999 * _length(skeleton, leg)) + 1e-3
            out = (off | short) & standing & ~frozen
            # The place is kept one frame longer than the contact; letting that frame go lets the contact before it go.
            out[:-1] |= out[1:]
            lost |= (flags & out[:, None]).any()
            flags &= ~out[:, None]
        if not lost:
            break
    if not contacts.any():
        return turned.copy(), root.copy(), contacts
    root = root - drop[:, None] * UP
    for leg, target, orientation, standing in plans:
        positions = place(turned, root, skeleton)
        # What is out of reach between stances fades out: a leg at full stretch would snap.
        far = np.linalg.norm(target - positions[:, leg.upper], axis=-1) / _length(skeleton, leg)
        now = np.linalg.norm(positions[:, leg.end] - positions[:, leg.upper], axis=-1) / _length(skeleton, leg)
        fade = np.exp(-2 * (np.maximum(far - np.maximum(now, 0.999), 0) / 0.01) ** 4)[:, None]
        goal = positions[:, leg.end] + fade * (target - positions[:, leg.end])
        turned = reach(turned, positions, skeleton, leg, goal, orientation)[0]
        turned = _lift_toe(turned, root, skeleton, leg.end, standing)
    return turned, root, contacts


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
    down, tip = _longer(contacts[:, 0]), _longer(contacts[:, 1])
    weights = dict(position=how.position, velocity=how.velocity, acceleration=how.acceleration)
    sole = positions[:, toe] - positions[:, ankle]
    heel, ball = positions[:, ankle].copy(), positions[:, toe].copy()
    for stance in stances(*contacts.T, positions[:, [ankle, toe]], held):
        heel[stance.start : stance.stop], ball[stance.start : stance.stop] = stance.ankle, stance.toe
    # A foot in the floor is lifted to how it stands at rest; one above it is left there.
    heel[:, 1], ball[:, 1] = np.maximum(heel[:, 1], rest[0]), np.maximum(ball[:, 1], rest[1])
    flat = down & tip & ~held
    turn = np.where(flat[:, None], vectors_of(between(sole, ball - heel)), 0)
    orientation = matrices_of(correct(np.zeros_like(turn), flat | held, turn, **weights)) @ turned[:, ankle]
    pins = (down | tip) & ~held
    target = np.where(down[:, None], heel, ball - orientation @ skeleton.offsets[toe].double().numpy())
    offset = np.where(pins[:, None], target - positions[:, ankle], 0)
    return positions[:, ankle] + correct(np.zeros_like(offset), pins | held, offset, **weights), orientation, pins | held


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
