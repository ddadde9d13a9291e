"""Clean-up: a generated motion made to meet its constraints and to stand still where it stands (Kimodo, Section 3.5).

A denoiser misses its constraints and its feet slide. What is changed, in this order, each by the least smooth correction
(`trajectory`), so that no frame jumps:

    0. the path of the root, so that planted feet are still (`foot_lock.steady_root`)
    1. pelvis height, then the path onto its constraints: keyframes give the pelvis, everything else the *smoothed* root
    2. heading, the whole body about the pelvis
    3. keyframes, the local rotations of all joints
    4. feet that have targets, by two-bone inverse kinematics (`limbs`)
    5. feet that stand (`foot_lock`)
    6. hands that have targets; where an arm is too short the spine leans, or, if it is free, the root comes nearer

`Cleaned` holds the motion with the errors before and after. Departures: the release leaves the root 4 cm off its path by
default and never corrects its generic end-effector type; here the smoothed root meets its target, which leaves the sway of
the hips as it is, and every hand and foot is corrected. Constraints on other single joints (a knee, the head) are reported,
not corrected. Not for robots with hinges: two-bone kinematics does not exist there.

Shapes: T frames, J joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kinelib.bodies import features
from kinelib.bodies.features import heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import Skeleton
from kinelib.bodies.smoothing import smooth_root
from kinelib.kimodo.constraints import Constraint
from kinelib.kimodo.foot_lock import FootLocking, Steadying, lock_feet, speeds, steady_root
from kinelib.kimodo.goals import Flags, Goals, gather
from kinelib.kimodo.limbs import between, descendants, limbs, local_of, place, pose, reach
from kinelib.kimodo.metrics import Errors, constraint_errors, foot_skate, penetration
from kinelib.kimodo.trajectory import correct, correct_rotations, matrices_of, speed_weights, vectors_of

Array = NDArray[np.float64]
UP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Cleaning:
    """What is cleaned and how closely."""

    margin: float = 0.0  # metres by which the smoothed root may pass its targets (the release: 0.04)
    lock: bool = True  # whether standing feet are locked
    locking: FootLocking = FootLocking()  # how
    steadying: Steadying = Steadying()  # and how the path of the pelvis follows them
    rounds: int = 4  # of correcting the root and smoothing it again; each leaves a few per cent of the error


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A cleaned motion and what cleaning did."""

    motion: Motion  # cleaned; its contacts are those of the feet that do stand now
    before: Errors  # constraint errors of the motion as generated
    after: Errors  # and as cleaned
    skate: tuple[float, float]  # m/s, before and after, each from the motion's own contacts; NaN without contacts
    depth: tuple[float, float]  # metres below the floor, mean over frames, before and after
    moved: float  # metres, mean over joints and frames of how far cleaning moved them
    left: tuple[str, ...] = ()  # what is asked but not corrected

    def rows(self) -> list[tuple[str, float, float, str]]:
        """Name, before, after and unit of everything that was asked of the motion, in centimetres and degrees."""
        units = dict.fromkeys(("keyframe", "effector", "root", "pelvis"), ("cm", 100.0))
        units |= {"effector_rotation": ("degrees", 1.0), "heading": ("degrees", 1.0), "contact": ("%", 100.0)}
        was, now = self.before.means(), self.after.means()
        table = [(name, was[name] * unit[1], now[name] * unit[1], unit[0]) for name, unit in units.items()]
        table += [
            ("foot skate", *(100 * value for value in self.skate), "cm/s"),
            ("depth below the floor", *(100 * value for value in self.depth), "cm"),
        ]
        return [row for row in table if not np.isnan(row[1])]

    def report(self) -> str:
        """One line for everything that was asked: its error before and after."""
        return "\n".join(f"{name:>22}  {was:8.2f} -> {now:8.2f} {unit}" for name, was, now, unit in self.rows())


def clean(motion: Motion, constraints: Sequence[Constraint] = (), how: Cleaning | None = None) -> Cleaned:
    """Makes a motion meet its constraints and keeps its feet where they stand.

    Args:
        motion: with contacts as generated; without, they are read off the motion.
        constraints: the list it was generated with.
        how: what to clean.

    Raises:
        ShapeError: when a constraint's frame is outside the motion.
        ValueError: for a skeleton without two-bone limbs, such as a robot's.
    """
    how = how or Cleaning()
    skeleton, goals = motion.skeleton, gather(constraints, motion)
    contacts = motion.contacts
    if contacts is None:
        contacts = features.contacts(motion.positions()[None], motion.fps, skeleton)[0]
    standing = np.where(goals.standing, goals.stands, contacts.numpy() > 0.5)
    root, turned = motion.root.double().numpy(), pose(motion.rotations, motion.root, skeleton)[1]
    weights = None
    if how.lock:
        root, stands, weights = steady_root(
            turned, root, skeleton, standing, motion.fps, how=how.locking, steadying=how.steadying
        )
        standing = np.where(goals.standing, goals.stands, stands)
    root = _root(root, goals, how, weights)
    turned = _face(turned, root, goals, skeleton)
    turned = _keyframes(turned, goals, skeleton)
    root = _nearer(turned, root, goals, skeleton)
    feet = {name: limb for name, limb in limbs(skeleton).items() if name.endswith("foot")}
    hands = {name: limb for name, limb in limbs(skeleton).items() if name.endswith("hand")}
    for limb in feet.values():
        turned = _effector(turned, root, goals, skeleton, limb)
    if how.lock:
        held = np.stack([goals.at(descendants(skeleton, limb.end)) for limb in feet.values()], -1)
        # Whatever fixes the pelvis or a hand also forbids that the pelvis comes down there.
        others = goals.tall | goals.at([joint for limb in hands.values() for joint in descendants(skeleton, limb.end)])
        turned, root, standing = lock_feet(turned, root, skeleton, standing, held=held, still=others, how=how.locking)
    for _ in range(3):
        turned = _lean(turned, root, goals, skeleton)
        for limb in hands.values():
            turned = _effector(turned, root, goals, skeleton, limb)
    if how.lock:
        # What moves in spite of all is no contact, even where one is asked.
        slow = speeds(place(turned, root, skeleton)[:, skeleton.contact_joints], motion.fps) < features.CONTACT_SPEED
        standing = standing & slow & ~(goals.standing & ~goals.stands)
    tensor = lambda values: torch.from_numpy(values).to(motion.root)
    cleaned = replace(
        motion,
        rotations=tensor(local_of(turned, skeleton)),
        root=tensor(root),
        contacts=torch.from_numpy(standing).to(motion.root),
        provenance=motion.provenance | {"cleaned": True},
    )
    return _compared(motion, cleaned, constraints, contacts, goals, skeleton)


def _compared(motion, cleaned, constraints, contacts, goals, skeleton) -> Cleaned:
    def measured(one: Motion) -> tuple[Errors, float, float]:
        positions = one.positions()[None]
        stands = contacts if one.contacts is None else one.contacts
        skate = foot_skate(positions, stands[None].to(positions), one.fps, skeleton)
        return constraint_errors(one, constraints), float(skate), float(penetration(positions)[0])

    (before, skate, depth), (after, skate_after, depth_after) = measured(motion), measured(cleaned)
    moved = float((cleaned.positions() - motion.positions()).norm(dim=-1).mean())
    reachable = {0, *(joint for limb in limbs(skeleton).values() for joint in descendants(skeleton, limb.end))}
    left = tuple(f"{skeleton.joints[joint]} is not corrected" for joint in sorted(goals.parts.keys() - reachable))
    return Cleaned(cleaned, before, after, (skate, skate_after), (depth, depth_after), moved, left)


# ---- root


def _root(root: Array, goals: Goals, how: Cleaning, weights: Array | None) -> Array:
    """The root's path (T, 3): height at keyframes, then pelvis at keyframes and smoothed root elsewhere.

    `weights` (T - 1,) are those with which the path was made steady: with them again, standing feet and pins are met
    together as well as can be (`trajectory.follow`). None: not made steady; then slow frames keep their velocity.
    """
    root = root.copy()
    tall = goals.posed | goals.tall
    height = np.where(goals.posed, goals.pelvis[:, 1], goals.height)
    if 0 in goals.parts:
        pelvis = goals.parts[0]
        tall, height = tall | pelvis.placed, np.where(pelvis.placed & ~tall, pelvis.place[:, 1], height)
    root[:, 1] = correct(root[:, 1:2], tall, height[:, None], position=0.01, acceleration=1.0)[:, 0]
    exact, want = goals.posed.copy(), goals.pelvis[:, [0, 2]].copy()
    if 0 in goals.parts:
        placed = goals.parts[0].placed & ~goals.parts[0].relative & ~exact
        want[placed] = goals.parts[0].place[placed][:, [0, 2]]
        exact |= placed
    if not (exact | goals.rooted).any():
        return root
    # A keyframe on a drawn path says how far the pelvis sways off the path there. Its neighbours must follow that sway,
    # or the pelvis would jump to the keyframe and back.
    both, path = exact & goals.rooted, goals.rooted
    smooth = dict(position=how.steadying.position, velocity=weights, acceleration=how.steadying.acceleration)
    if weights is None:
        smooth = dict(velocity=speed_weights(root[:, [0, 2]]))
    for _ in range(how.rounds if path.any() else 1):
        straight = smooth_root(torch.from_numpy(root[:, [0, 2]])).numpy()
        if both.any():
            sway = np.where(both[:, None], (want - goals.root) - (root[:, [0, 2]] - straight), 0)
            root[:, [0, 2]] += correct(np.zeros_like(sway), both, sway, position=0.05)
        # Where the path is asked, the pelvis moves by what the smoothed root is off: its sway stays.
        off = np.where(path[:, None], goals.root - straight, 0)
        if np.linalg.norm(off, axis=1).max() < 1e-4 and not exact.any():
            break
        target = np.where((exact & ~path)[:, None], want, root[:, [0, 2]] + off)
        radius = np.where(path & (how.margin > 0), how.margin, np.nan)
        pins = (exact & ~path) | (path & (how.margin == 0))
        root[:, [0, 2]] = correct(root[:, [0, 2]], pins, target, radius=radius, **smooth)
    # What is left at keyframes on a path is millimetres.
    root[:, [0, 2]] = correct(root[:, [0, 2]], both, want, position=0.05)
    return root


def _nearer(turned: Array, root: Array, goals: Goals, skeleton: Skeleton) -> Array:
    """Moves a free root towards hands and feet that it is too far from."""
    free = ~(goals.rooted | goals.posed)
    for limb in limbs(skeleton).values():
        part = goals.parts.get(limb.end)
        if part is None or not (asked := part.placed & free & ~part.relative).any():
            continue
        target, _ = _target(turned, root, goals, skeleton, limb)
        positions = place(turned, root, skeleton)
        length = float(skeleton.offsets[[limb.middle, limb.end]].norm(dim=-1).sum())
        away = target - positions[:, limb.upper]
        flat = np.linalg.norm(away[:, [0, 2]], axis=-1)
        inside = np.sqrt(np.maximum((0.98 * length) ** 2 - away[:, 1] ** 2, 0))
        short = np.maximum(flat - inside, 0) * asked
        if short.any():
            step = away[:, [0, 2]] * (short / np.maximum(flat, 1e-9))[:, None]
            pins = asked | goals.rooted | goals.posed
            root = root.copy()
            root[:, [0, 2]] += correct(np.zeros_like(step), pins, step)
    return root


# ---- turns


def _face(turned: Array, root: Array, goals: Goals, skeleton: Skeleton) -> Array:
    """Turns the whole body about the vertical through the pelvis, to its headings."""
    faced = goals.faced & ~goals.posed
    if not faced.any():
        return turned
    now = heading(torch.from_numpy(place(turned, root, skeleton)), skeleton).numpy()
    off = np.where(faced, (goals.facing - now + np.pi) % (2 * np.pi) - np.pi, 0)
    if goals.posed.any():
        hips = heading(torch.from_numpy(place(goals.pose, root, skeleton)), skeleton).numpy()
        off = np.where(goals.posed, (hips - now + np.pi) % (2 * np.pi) - np.pi, off)
    # Unwrapped from pin to pin, so that a body turned by 170 and then by -170 degrees does not spin round in between.
    pins = faced | goals.posed
    off[pins] = np.unwrap(off[pins])
    angle = correct(np.zeros((len(off), 1)), pins, off[:, None], position=0.01)[:, 0]
    return matrices_of(angle[:, None] * UP)[:, None] @ turned


def _keyframes(turned: Array, goals: Goals, skeleton: Skeleton) -> Array:
    """Local rotations of all joints, onto the poses of keyframes."""
    if not goals.posed.any():
        return turned
    wanted = np.where(goals.posed[:, None, None, None], goals.pose, turned)
    local = correct_rotations(local_of(turned, skeleton), goals.posed, local_of(wanted, skeleton))
    return pose(local, np.zeros((len(turned), 3)), skeleton)[1]


# ---- hands and feet


def _target(turned: Array, root: Array, goals: Goals, skeleton: Skeleton, limb) -> tuple[Array, Array]:
    """Where the end of a limb should be (T, 3), and how it should be turned (T, 3, 3); as it is where nothing is asked.

    Fingers and toes that have places without their wrist or ankle move that instead.
    """
    positions = place(turned, root, skeleton)
    target, turn = positions[:, limb.end].copy(), turned[:, limb.end].copy()
    smooth = None
    whole = descendants(skeleton, limb.end)
    end = goals.parts.get(limb.end)
    if end is not None and end.turned.any():
        turn[end.turned] = end.turn[end.turned]
    settled = np.zeros(len(target), bool)
    for joint in whole:
        part = goals.parts.get(joint)
        if part is None or not part.placed.any():
            continue
        wanted = part.place.copy()
        if part.relative.any():
            smooth = smooth_root(torch.from_numpy(root[:, [0, 2]])).numpy() if smooth is None else smooth
            wanted[:, [0, 2]] += smooth * part.relative[:, None]
        if joint == limb.end:
            target[part.placed], settled = wanted[part.placed], settled | part.placed
            continue
        arm = (turned[:, limb.end].swapaxes(-1, -2) @ (positions[:, joint] - positions[:, limb.end])[..., None])[..., 0]
        free = part.placed & ~settled
        target[free] = (wanted - (turn @ arm[..., None])[..., 0])[free]
        # Wrist and finger given, the turn not: the hand points from one to the other.
        open_ = part.placed & settled & ~(end.turned if end is not None else False)
        if open_.any():
            was, now = (turn @ arm[..., None])[..., 0], wanted - target
            turn[open_] = (between(was, now) @ turn)[open_]
        settled |= free
    return target, turn


def _asked(goals: Goals, skeleton: Skeleton, limb) -> tuple[Flags, Flags]:
    """Frames (T,) at which the limb's end has a place, and at which it has a turn."""
    placed, turned = np.zeros(len(goals.posed), bool), np.zeros(len(goals.posed), bool)
    for joint in descendants(skeleton, limb.end):
        if joint in goals.parts:
            placed |= goals.parts[joint].placed
            turned |= goals.parts[joint].turned
    return placed & ~goals.posed, turned & ~goals.posed


def _effector(turned: Array, root: Array, goals: Goals, skeleton: Skeleton, limb) -> Array:
    """Moves one hand or foot onto its targets, and smoothly there and back."""
    placed, spun = _asked(goals, skeleton, limb)
    if not (placed | spun).any():
        return turned
    positions = place(turned, root, skeleton)
    target, turn = _target(turned, root, goals, skeleton, limb)
    offset = np.where(placed[:, None], target - positions[:, limb.end], 0)
    # Whole poses are met already: there the correction is pinned to nothing.
    path = positions[:, limb.end] + correct(np.zeros_like(offset), placed | goals.posed, offset, position=0.01)
    spin = vectors_of(turn @ turned[:, limb.end].swapaxes(-1, -2))
    pins = spun | goals.posed | placed
    smooth = matrices_of(correct(np.zeros_like(spin), pins, np.where((spun | placed)[:, None], spin, 0), position=0.01))
    return reach(turned, positions, skeleton, limb, path, smooth @ turned[:, limb.end])[0]


def _lean(turned: Array, root: Array, goals: Goals, skeleton: Skeleton) -> Array:
    """Turns the spine a little towards hands' targets that an arm alone cannot reach."""
    for name, limb in limbs(skeleton).items():
        placed, _ = _asked(goals, skeleton, limb)
        if not name.endswith("hand") or not placed.any():
            continue
        positions = place(turned, root, skeleton)
        target, _ = _target(turned, root, goals, skeleton, limb)
        away = target - positions[:, limb.upper]
        length = float(skeleton.offsets[[limb.middle, limb.end]].norm(dim=-1).sum())
        distance = np.linalg.norm(away, axis=-1, keepdims=True)
        short = np.where(placed[:, None], away * np.maximum(1 - 0.995 * length / np.maximum(distance, 1e-9), 0), 0)
        if not short.any():
            continue
        chain = [limb.upper]
        while skeleton.parents[chain[-1]] > 0:
            chain.append(skeleton.parents[chain[-1]])
        low = chain[-1]  # the joint of the spine right above the pelvis
        arm = positions[:, limb.upper] - positions[:, low]
        vectors = vectors_of(between(arm, arm + short))
        pins = placed | goals.posed
        turn = matrices_of(correct(np.zeros_like(vectors), pins, np.where(placed[:, None], vectors, 0), position=0.01))
        turned = turned.copy()
        above = descendants(skeleton, low)
        turned[:, above] = turn[:, None] @ turned[:, above]
    return turned
