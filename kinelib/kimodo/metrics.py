"""How well a motion stands, meets its constraints and joins its windows (Kimodo, Section 4), one number a clip.

    skate from contacts   mean speed of what is said to stand (the paper's foot skate), and the fastest of it
    skate from height     mean speed of toes below 5 cm; its ratio: the share of those frames above 0.2 m/s
    contact accuracy      agreement of predicted contacts with speed below 0.15 m/s and height below 0.10 m
    keyframe, effector    distances over joints and frames that were pinned; rotations as geodesic angles
    root                  distance of the *smoothed* root from its target, and of the pelvis, which sways about it
    seam jerk             third derivative of positions where windows meet, beside inside them
    penetration           how deep joints are below the floor

Departures: the release has no error of rotations or of the smoothed root, no seams and no floor, and it takes the 95th
percentile of clip means where the paper means that of points, which is `pooled_percentile`. Undefined is NaN (no contact, no
such constraint), never 0. Lengths are metres, angles degrees. Measure without clean-up, as the paper does.

Shapes: positions (B, T, J, 3) metres, contacts (B, T, 4), lengths (B,) valid frames; results (B,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kinelib.bodies import features
from kinelib.bodies.features import checked_lengths, encode, frame_mask
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import geodesic
from kinelib.bodies.skeleton import Skeleton
from kinelib.kimodo.constraints import (
    CONTACTS,
    Constraint,
    Contacts,
    EndEffector,
    FromClip,
    FullBody,
    Heading,
    RootPath,
    RootWaypoints,
)
from kinelib.notation import ShapeError, check_shape

TOE_HEIGHT = 0.05  # metres; a toe that is lower is on the ground, whatever contacts say
SLIDING = 0.2  # m/s; a toe on the ground that is faster slides
HIT = 0.10  # metres; a root closer than this hits its waypoint
NAN = float("nan")


# ---- feet


def foot_skate(positions: Tensor, contacts: Tensor, fps: float, skeleton: Skeleton, lengths: Tensor | None = None) -> Tensor:
    """Mean speed (B,) in m/s of the parts of feet that are said to stand; NaN where none ever does."""
    speed, valid = _foot_speed(positions, fps, skeleton, lengths)
    standing = (contacts[:, :-1] > 0.5) & valid[..., None]
    return _ratio((speed * standing).sum((1, 2)), standing.sum((1, 2)))


def worst_skate(
    positions: Tensor, contacts: Tensor, fps: float, skeleton: Skeleton, lengths: Tensor | None = None
) -> Tensor:
    """Highest speed (B,) in m/s of a part that is said to stand; NaN where none ever does."""
    speed, valid = _foot_speed(positions, fps, skeleton, lengths)
    standing = (contacts[:, :-1] > 0.5) & valid[..., None]
    return torch.where(standing.any(2).any(1), (speed * standing).amax((1, 2)), NAN)


def skate_from_height(positions: Tensor, fps: float, skeleton: Skeleton, lengths: Tensor | None = None) -> Tensor:
    """Mean speed (B,) in m/s of toes lower than `TOE_HEIGHT`; NaN where no toe ever is."""
    speed, valid = _foot_speed(positions, fps, skeleton, lengths)
    low = (positions[:, :-1, skeleton.contact_joints[1::2], 1] < TOE_HEIGHT) & valid[..., None]
    return _ratio((speed[..., 1::2] * low).sum((1, 2)), low.sum((1, 2)))


def skate_ratio(positions: Tensor, fps: float, skeleton: Skeleton, lengths: Tensor | None = None) -> Tensor:
    """Share (B,) of steps between frames with a toe on the ground in which it moves faster than `SLIDING`."""
    speed, valid = _foot_speed(positions, fps, skeleton, lengths)
    low = positions[:, :, skeleton.contact_joints[1::2], 1] < TOE_HEIGHT
    ground = low[:, :-1] & low[:, 1:] & valid[..., None]
    return _ratio(((speed[..., 1::2] > SLIDING) & ground).sum((1, 2)), ground.sum((1, 2)))


def contact_accuracy(
    contacts: Tensor, positions: Tensor, fps: float, skeleton: Skeleton, lengths: Tensor | None = None
) -> Tensor:
    """Share (B,) of contacts (B, T, 4) that agree with what speed and height of the same motion say."""
    check_shape("contacts", contacts, "B T 4", B=len(positions), T=positions.shape[1])
    lengths = checked_lengths(lengths, positions)
    truth = features.contacts(positions, fps, skeleton, lengths) > 0.5
    valid = frame_mask(lengths, positions.shape[1]).to(positions.device)[..., None]
    return (((contacts > 0.5) == truth) & valid).sum((1, 2)) / (4 * lengths.to(positions.device))


def penetration(positions: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean over frames and worst (B,) of how far the lowest joint is below the floor, metres; 0 where none is."""
    check_shape("positions", positions, "B T J 3")
    lengths = checked_lengths(lengths, positions)
    valid = frame_mask(lengths, positions.shape[1]).to(positions.device)
    depth = (-positions[..., 1].amin(-1)).clamp_min(0) * valid
    return depth.sum(1) / lengths.to(depth), depth.amax(1)


def _foot_speed(positions: Tensor, fps: float, skeleton: Skeleton, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Speeds (B, T - 1, 4) of the feet from each frame to the next, and which of them (B, T - 1) are inside the clip."""
    check_shape("positions", positions, "B T J 3", J=len(skeleton))
    lengths = checked_lengths(lengths, positions).to(positions.device)
    speed = positions[:, :, skeleton.contact_joints].diff(dim=1).norm(dim=-1) * fps
    return speed, torch.arange(speed.shape[1], device=positions.device) < (lengths - 1)[:, None]


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    return torch.where(count > 0, total / count.clamp_min(1), NAN)


# ---- constraints


class Errors(NamedTuple):
    """Errors of one motion, a value for every constrained joint or frame; empty where nothing of the kind is asked."""

    keyframe: Tensor  # metres, every joint of every keyframe and of every frame of a clip
    effector: Tensor  # metres, every pinned position of hands, feet and other joints
    effector_rotation: Tensor  # degrees, every pinned rotation
    root: Tensor  # metres, smoothed root against its target on the floor
    pelvis: Tensor  # metres, pelvis against the same target; not 0 for real motion, which sways
    heading: Tensor  # degrees
    contact: Tensor  # 0 where a contact is as asked, 1 where not

    def means(self) -> dict[str, float]:
        """The mean of each; NaN where nothing of the kind is asked."""
        return {name: float(values.mean()) if len(values) else NAN for name, values in self._asdict().items()}

    def worst(self) -> dict[str, float]:
        """The largest of each; NaN where nothing of the kind is asked."""
        return {name: float(values.max()) if len(values) else NAN for name, values in self._asdict().items()}


def constraint_errors(motion: Motion, constraints: Sequence[Constraint], smoothed: Tensor | None = None) -> Errors:
    """By how much a motion misses its constraints.

    Args:
        motion: T frames.
        constraints: whose frames lie inside the motion.
        smoothed: (T, 2) the root's path as predicted; None works it out from the pelvis, as for any motion.
    """
    found: dict[str, list[Tensor]] = {name: [torch.zeros(0)] for name in Errors._fields}
    vector = encode(motion)
    path = vector[:, [0, 2]] if smoothed is None else smoothed
    body = motion, motion.positions(), motion.global_rotations(), path, vector
    for constraint in constraints:
        if late := [frame for frame in constraint.frames if frame >= len(motion)]:
            raise ShapeError(f"{type(constraint).__name__} asks for frame {late[0]} of a motion of {len(motion)} frames.")
        for name, values in _errors_of(constraint, *body):
            found[name].append(values.detach().flatten().float())
    return Errors(**{name: torch.cat(values) for name, values in found.items()})


def _errors_of(constraint, motion, positions, turned, path, vector):
    """Pairs of a field of `Errors` and its values."""
    at, skeleton = list(constraint.frames), motion.skeleton
    facing = features.heading(positions, skeleton)[at]
    apart = lambda angle: torch.atan2((facing - angle).sin(), (facing - angle).cos()).abs().rad2deg()
    root = lambda xz: (("root", (path[at] - xz).norm(dim=-1)), ("pelvis", (motion.root[at][:, [0, 2]] - xz).norm(dim=-1)))
    if isinstance(constraint, FullBody):
        yield "keyframe", (positions[at] - constraint.positions).norm(dim=-1)
    elif isinstance(constraint, FromClip):
        if "positions" in constraint.blocks:
            clip = constraint.motion.slice(constraint.start, constraint.stop)
            yield "keyframe", (positions[at] - clip.positions()).norm(dim=-1)
    elif isinstance(constraint, EndEffector):
        if constraint.positions is not None:
            here = positions[at][:, skeleton.indices(constraint.joints)]
            if constraint.space == "root":
                here = here - torch.stack([path[at][:, 0], torch.zeros(len(at)), path[at][:, 1]], -1)[:, None]
            yield "effector", (here - constraint.positions).norm(dim=-1)
        if constraint.rotations is not None:
            here = turned[at][:, skeleton.indices(constraint.turned)]
            yield "effector_rotation", geodesic(here, constraint.rotations).rad2deg()
        if constraint.root is not None:
            yield from root(constraint.root[:, [0, 2]])
        if constraint.heading is not None:
            yield "heading", apart(constraint.heading)
    elif isinstance(constraint, RootWaypoints | RootPath):
        yield from root(constraint.xz)
        if constraint.heading is not None:
            yield "heading", apart(constraint.heading)
    elif isinstance(constraint, Heading):
        yield "heading", apart(constraint.angles)
    elif isinstance(constraint, Contacts):
        here = vector[:, -4:] if motion.contacts is None else motion.contacts
        parts = [CONTACTS.index(part) for part in constraint.parts]
        yield "contact", ((here[at][:, parts] > 0.5) != (constraint.on > 0.5)).float()


def hit_rate(distances: Tensor, radius: float = HIT) -> float:
    """Share of distances within `radius`; NaN of none."""
    return float((distances <= radius).float().mean()) if distances.numel() else NAN


# ---- many points


class Percentile(NamedTuple):
    """A percentile over all points, with a bootstrap interval over clips."""

    value: float
    low: float
    high: float
    points: int
    clips: int


def pooled_percentile(
    points: Sequence[Tensor], q: float = 95.0, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Percentile:
    """The percentile of the points of all clips together, not of clip means.

    Args:
        points: the errors of each clip, of any length; clips without any are left out.
        q: 0 to 100.
        level: coverage of the interval; clips are resampled whole, since points of one clip err together.
        resamples: of the bootstrap.
        seed: of the draws.

    Raises:
        ShapeError: when no clip has a point. ValueError: for a level or q out of range.
    """
    if not (0 < level < 1 and 0 <= q <= 100 and resamples >= 1):
        raise ValueError(f"q is 0 to 100, level between 0 and 1, resamples at least 1; got {q}, {level}, {resamples}.")
    clips = [np.sort(np.asarray(values.detach().cpu().double()).ravel()) for values in points if values.numel()]
    if not clips:
        raise ShapeError("a percentile needs at least one point; no clip has any.")
    everything = np.concatenate(clips)
    order = np.argsort(everything, kind="stable")
    member = np.repeat(np.arange(len(clips)), [len(clip) for clip in clips])[order]
    everything = everything[order]
    value = float(np.percentile(everything, q))
    if len(clips) < 2:
        return Percentile(value, NAN, NAN, len(everything), 1)
    draws = np.random.default_rng(seed).multinomial(len(clips), np.full(len(clips), 1 / len(clips)), size=resamples)
    # A resample is a weighting of the sorted points: its percentile is where the running weight passes the share.
    values = []
    for counts in draws:
        running = np.cumsum(counts[member])
        values.append(everything[np.searchsorted(running, q / 100 * running[-1], side="left").clip(0, len(everything) - 1)])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Percentile(value, float(low), float(high), len(everything), len(clips))


# ---- seams


def jerk(positions: Tensor, fps: float) -> Tensor:
    """Size of the third derivative (..., T - 3), m/s^3, mean over joints, of positions (..., T, J, 3).

    Number i is worked out from frames i to i + 3.

    Raises:
        ShapeError: for fewer than 4 frames.
    """
    if positions.shape[-3] < 4:
        raise ShapeError(f"jerk needs 4 frames or more; got {positions.shape[-3]}.")
    return positions.diff(n=3, dim=-3).norm(dim=-1).mean(-1) * fps**3


class SeamJerk(NamedTuple):
    """Jerk where windows meet and elsewhere, m/s^3."""

    seam: float  # mean over seams of the largest at each
    inside: float  # mean elsewhere
    inside_99: float  # 99th percentile elsewhere
    worst: float  # the largest at any seam


def seam_jerk(positions: Tensor, seams: Sequence[int], fps: float, *, around: int = 0) -> SeamJerk:
    """Jerk of a motion of several windows.

    Args:
        positions: (T, J, 3) metres.
        seams: the first frame of every window but the first.
        fps: frames a second.
        around: frames beside a seam that belong to it too, where windows were blended.

    Raises:
        ShapeError: when there is no seam, or one is not inside the motion.
    """
    check_shape("positions", positions, "T J 3")
    if not seams or not all(0 < seam < len(positions) for seam in seams):
        raise ShapeError(f"seams are frames inside the motion, 1 to {len(positions) - 1}; got {list(seams)}.")
    values = jerk(positions, fps)
    # Differences over frames i .. i + 3 see the seam when they hold frames of both sides.
    spans = [(max(seam - 3 - around, 0), min(seam + around, len(values))) for seam in seams]
    at_seam = torch.zeros(len(values), dtype=torch.bool)
    for start, stop in spans:
        at_seam[start:stop] = True
    peaks = torch.stack([values[start:stop].amax() for start, stop in spans if start < stop])
    inside = values[~at_seam]
    if not len(inside):
        return SeamJerk(float(peaks.mean()), math.nan, math.nan, float(peaks.max()))
    return SeamJerk(float(peaks.mean()), float(inside.mean()), float(inside.quantile(0.99)), float(peaks.max()))
