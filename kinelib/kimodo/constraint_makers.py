"""Constraints taken from clips and drawn paths, and constraints moved in time and space.

A keyframe comes from a pose of a clip, a path from a few waypoints, the start of a motion from the end of another (Sections
3.4 and 3.6 of the paper). Moving constraints is what long sequences need: every window sees the part that falls into it,
measured from where the window starts.

Departures: dense paths are natural splines through their waypoints; the release's tool interpolates linearly and smooths.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Literal

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from kinelib.bodies.features import BLOCKS, encode, heading
from kinelib.bodies.motion import Motion
from kinelib.kimodo.constraints import (
    Constraint,
    ConstraintError,
    EndEffector,
    FromClip,
    FullBody,
    Pose,
    RootPath,
    RootWaypoints,
)


def keyframes(motion: Motion, frames: tuple[int, ...], at: tuple[int, ...] | None = None, *, rotations=False) -> FullBody:
    """Poses of a clip as keyframes.

    Args:
        motion: the clip.
        frames: which of its frames.
        at: where they go in the result; None: the same frames.
        rotations: whether the joints' rotations are conditions too.
    """
    chosen = _inside(motion, frames)
    return FullBody(
        tuple(frames if at is None else at),
        motion.positions()[chosen],
        encode(motion)[chosen][:, [0, 2]],
        motion.global_rotations()[chosen],
        rotations,
    )


def end_effectors(
    motion: Motion,
    frames: tuple[int, ...],
    parts: tuple[str, ...] = ("left_hand", "right_hand"),
    at: tuple[int, ...] | None = None,
    *,
    rotations: bool = True,
    rooted: bool = True,
    space: Literal["world", "root"] = "world",
) -> EndEffector:
    """Hands and feet of a clip, as the release pins them: every joint's position, the first joint's rotation.

    Args:
        motion: the clip.
        frames: which of its frames.
        parts: of left_hand, right_hand, left_foot, right_foot, or names of joints.
        at: where they go in the result; None: the same frames.
        rotations: whether rotations are pinned.
        rooted: whether root and heading are pinned with them, as the release always does.
        space: of the positions; see `EndEffector`.
    """
    chosen, skeleton, sides = _inside(motion, frames), motion.skeleton, ("left", "right")
    known = {f"{side}_hand": joints for side, joints in zip(sides, skeleton.hands, strict=False)}
    known |= {f"{side}_foot": joints for side, joints in zip(sides, skeleton.feet, strict=False)}
    # On SMPL-X "left_foot" is also a joint (the toe); the part is meant, and the toe belongs to it.
    groups = [known.get(part, (part,)) for part in parts]
    joints, bases = tuple(dict.fromkeys(sum(groups, ()))), tuple(dict.fromkeys(group[0] for group in groups))
    positions, smooth = motion.positions()[chosen], encode(motion)[chosen][:, :3]
    asked = positions[:, skeleton.indices(joints)]
    if space == "root":
        asked = asked - smooth[:, None] * smooth.new_tensor([1, 0, 1])
    return EndEffector(
        tuple(frames if at is None else at),
        joints,
        asked,
        motion.global_rotations()[chosen][:, skeleton.indices(bases)] if rotations else None,
        bases if rotations else None,
        smooth if rooted else None,
        heading(positions, skeleton) if rooted else None,
        space,
        Pose(motion.rotations[chosen], motion.root[chosen]),
    )


def continue_from(motion: Motion, overlap: int = 5, tail: int = 1, blocks: tuple[str, ...] = BLOCKS) -> FromClip:
    """The start of a result that goes on from a clip: its last frames but `tail`, at frame 0.

    Args:
        motion: the clip.
        overlap: frames that the result shares with it.
        tail: frames at the very end that are left to be made anew, so that the velocity of every shared frame is known.
        blocks: which channels are pinned.
    """
    return FromClip(motion, 0, max(len(motion) - overlap - tail, 0), max(len(motion) - tail, 1), blocks)


def in_between(before: Motion, after: Motion, frames: int) -> list[FromClip]:
    """A result of `frames` frames that begins as one clip and ends as another."""
    if len(before) + len(after) > frames:
        raise ConstraintError(
            f"the clips have {len(before)} + {len(after)} frames, the result {frames}.",
            field="frames",
            remedy="Make the result longer or the clips shorter.",
            kind="FromClip",
        )
    return [FromClip(before), FromClip(after, frames - len(after))]


def path_through(waypoints: RootWaypoints, *, facing: Literal["along", "given"] | None = None) -> RootPath:
    """The path of least acceleration through waypoints (a natural cubic spline).

    Args:
        waypoints: 2 or more, in any order.
        facing: "along" faces the way the path goes, "given" interpolates the waypoints' headings, None leaves it open.

    Raises:
        ConstraintError: for one waypoint, or no headings where they are to be interpolated.
    """
    if len(waypoints.frames) < 2 or (facing == "given" and waypoints.heading is None):
        raise ConstraintError(
            "a path needs two waypoints (and their headings, to face them).",
            field="frames" if len(waypoints.frames) < 2 else "heading",
            remedy="Add one.",
            kind="RootWaypoints",
        )
    order = np.argsort(waypoints.frames)
    frames = np.asarray(waypoints.frames)[order]
    spline = CubicSpline(frames, waypoints.xz.double().numpy()[order], bc_type="natural")
    at = np.arange(frames[0], frames[-1] + 1)
    angles = None
    if facing == "along":
        velocity = spline(at, 1)
        angles = np.arctan2(velocity[:, 0], velocity[:, 1])
    elif facing == "given":
        angles = np.interp(at, frames, np.unwrap(waypoints.heading.double().numpy()[order]))
    tensor = lambda values: torch.as_tensor(values, dtype=waypoints.xz.dtype)
    return RootPath(int(frames[0]), tensor(spline(at)), None if angles is None else tensor(angles))


# ---- moving in time and space


def within(constraint: Constraint, start: int, stop: int) -> Constraint | None:
    """The part of a constraint in frames `start` to `stop` - 1, counted from `start`; None when there is none."""
    keep = [number for number, frame in enumerate(constraint.frames) if start <= frame < stop]
    if not keep:
        return None
    first = constraint.frames[keep[0]] - start
    if isinstance(constraint, FromClip):
        begin = constraint.start + keep[0]
        cut = constraint.features[keep[0] : keep[-1] + 1]
        return replace(constraint, at=first, start=begin, stop=begin + len(keep), features=cut)
    chosen = {
        one.name: value[keep] for one in fields(constraint) if isinstance(value := getattr(constraint, one.name), Tensor)
    }
    if isinstance(constraint, RootPath):
        return replace(constraint, start=first, **chosen)
    if isinstance(constraint, EndEffector) and constraint.pose is not None:
        chosen["pose"] = Pose(constraint.pose.local[keep], constraint.pose.root[keep])
    return replace(constraint, frames=tuple(constraint.frames[number] - start for number in keep), **chosen)


def translated(constraint: Constraint, xz: tuple[float, float]) -> Constraint:
    """The constraint moved along the floor by (x, z) metres; what is relative to the root stays."""
    flat, tall = torch.tensor(xz), torch.tensor([xz[0], 0.0, xz[1]])
    add = lambda values, by: None if values is None else values + by.to(values)
    if isinstance(constraint, FullBody):
        return replace(constraint, positions=add(constraint.positions, tall), root=add(constraint.root, flat))
    if isinstance(constraint, EndEffector):
        pose = constraint.pose and Pose(constraint.pose.local, add(constraint.pose.root, tall))
        positions = constraint.positions if constraint.space == "root" else add(constraint.positions, tall)
        return replace(constraint, positions=positions, root=add(constraint.root, tall), pose=pose)
    if isinstance(constraint, RootWaypoints | RootPath):
        return replace(constraint, xz=add(constraint.xz, flat))
    if isinstance(constraint, FromClip):
        features = constraint.features.clone()
        features[:, :3] += tall.to(features)
        return replace(constraint, motion=constraint.motion.translated(xz), features=features)
    return constraint


def _inside(motion: Motion, frames: tuple[int, ...]) -> list[int]:
    if bad := [frame for frame in frames if not 0 <= frame < len(motion)]:
        raise ConstraintError(
            f"frame {bad[0]} is not in a clip of {len(motion)} frames.",
            field="frames",
            remedy=f"Choose frames 0 to {len(motion) - 1}.",
        )
    return list(frames)
