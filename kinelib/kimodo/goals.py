"""What constraints ask of a body, gathered frame by frame, as clean-up needs it.

Constraints are lists of frames of many types; clean-up works on curves over all frames. Here a list of constraints becomes
targets with flags: whole poses, the root's path, headings, and places and turns of single joints. Where two constraints ask
for the same thing the one that stands earlier counts, as in :mod:`kinelib.kimodo.conditions`.

A keyframe of positions alone gets rotations that fit: bone by bone, the least turn of the motion's own pose towards it, so
that twists, which positions leave open, stay as they are.

Shapes: T frames, J joints; all arrays in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinelib.bodies.features import heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import between
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
from kinelib.notation import ShapeError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(eq=False)
class Part:
    """What is asked of one joint."""

    placed: Flags  # (T,) whether a place is asked
    place: Array  # (T, 3) metres
    relative: Flags  # (T,) whether x and z are measured from the smoothed root
    turned: Flags  # (T,) whether a rotation is asked
    turn: Array  # (T, 3, 3) in the world


@dataclass(eq=False)
class Goals:
    """What is asked of a body, frame by frame; each target counts where its flag is set."""

    posed: Flags  # (T,) whole poses
    pose: Array  # (T, J, 3, 3) global rotations
    pelvis: Array  # (T, 3) where the pelvis of those poses is
    rooted: Flags  # (T,) smoothed root on the floor
    root: Array  # (T, 2)
    tall: Flags  # (T,) height of the pelvis
    height: Array  # (T,)
    faced: Flags  # (T,) heading
    facing: Array  # (T,) radians
    standing: Flags  # (T, 4) contacts that are given
    stands: Flags  # (T, 4) what they are
    parts: dict[int, Part] = field(default_factory=dict)  # by joint

    def at(self, joints: Sequence[int]) -> Flags:
        """Frames (T,) at which anything is asked of one of these joints, or of the whole body."""
        flags = self.posed.copy()
        for joint in joints:
            if joint in self.parts:
                flags |= self.parts[joint].placed | self.parts[joint].turned
        return flags


def gather(constraints: Sequence[Constraint], motion: Motion) -> Goals:
    """The goals of constraints for a motion.

    Raises:
        ShapeError: when a constraint's frame is outside the motion.
    """
    count, joints = len(motion), len(motion.skeleton)
    no = lambda *shape: np.zeros((count, *shape), bool)
    zero = lambda *shape: np.zeros((count, *shape))
    goals = Goals(
        *(no(), zero(joints, 3, 3), zero(3), no(), zero(2), no(), zero(), no(), zero(), no(4), no(4)),
    )
    for number, constraint in enumerate(constraints):
        if late := [frame for frame in constraint.frames if frame >= count]:
            kind = type(constraint).__name__
            raise ShapeError(
                f"constraint {number} ({kind}) asks for frame {late[0]} of a motion of {count} frames; use those "
                "that the motion was generated with, or cut them with kinelib.kimodo.constraint_makers.within."
            )
        _add(goals, constraint, motion)
    return goals


def _add(goals: Goals, constraint: Constraint, motion: Motion) -> None:
    at, skeleton = np.asarray(constraint.frames), motion.skeleton
    if isinstance(constraint, FullBody):
        known = constraint.rotations
        if known is None:
            known = rotations_to(constraint.positions, motion.global_rotations()[torch.from_numpy(at)], skeleton)
        _pose(goals, at, known, constraint.positions[:, 0])
        _set(goals.faced, goals.facing, at, heading(constraint.positions, skeleton))
    elif isinstance(constraint, FromClip):
        clip = constraint.motion.slice(constraint.start, constraint.stop)
        # Clips pinned in part are asked for no more than that part: a path without its poses, for example.
        if {"positions", "rotations"} & set(constraint.blocks):
            _pose(goals, at, clip.global_rotations(), clip.root)
        elif "root" in constraint.blocks:
            _set(goals.rooted, goals.root, at, constraint.features[:, [0, 2]])
            _set(goals.tall, goals.height, at, constraint.features[:, 1])
    elif isinstance(constraint, EndEffector):
        if constraint.root is not None:
            _set(goals.rooted, goals.root, at, constraint.root[:, [0, 2]])
            _set(goals.tall, goals.height, at, constraint.root[:, 1])
        if constraint.heading is not None:
            _set(goals.faced, goals.facing, at, constraint.heading)
        for column, joint in enumerate(skeleton.indices(constraint.joints) if constraint.positions is not None else ()):
            part = _part(goals, joint)
            fresh = at[~part.placed[at]]
            part.relative[fresh] = constraint.space == "root"
            _set(part.placed, part.place, at, constraint.positions[:, column])
        for column, joint in enumerate(skeleton.indices(constraint.turned) if constraint.rotations is not None else ()):
            part = _part(goals, joint)
            _set(part.turned, part.turn, at, constraint.rotations[:, column])
    elif isinstance(constraint, RootWaypoints | RootPath):
        _set(goals.rooted, goals.root, at, constraint.xz)
        if constraint.heading is not None:
            _set(goals.faced, goals.facing, at, constraint.heading)
    elif isinstance(constraint, Heading):
        _set(goals.faced, goals.facing, at, constraint.angles)
    elif isinstance(constraint, Contacts):
        for column, part in enumerate(constraint.parts):
            channel = CONTACTS.index(part)
            _set(goals.standing[:, channel], goals.stands[:, channel], at, constraint.on[:, column] > 0.5)


def _part(goals: Goals, joint: int) -> Part:
    count = len(goals.posed)
    no = lambda: np.zeros(count, bool)
    return goals.parts.setdefault(joint, Part(no(), np.zeros((count, 3)), no(), no(), np.zeros((count, 3, 3))))


def _pose(goals: Goals, at: NDArray[np.int64], turned: Tensor, pelvis: Tensor) -> None:
    before = goals.posed.copy()
    _set(goals.posed, goals.pose, at, turned)
    _set(before, goals.pelvis, at, pelvis)


def _set(flags: Flags, values: Array, at: NDArray[np.int64], given: Tensor) -> None:
    """Writes values at frames that nobody has claimed yet, and claims them."""
    fresh = ~flags[at]
    values[at[fresh]] = given.detach().cpu().double().numpy()[fresh] if given.dtype != torch.bool else given.numpy()[fresh]
    flags[at] = True


def rotations_to(positions: Tensor, turned: Tensor, skeleton: Skeleton) -> Tensor:
    """Global rotations (K, J, 3, 3) that take a pose to positions (K, J, 3), by the least turn of every bone.

    Args:
        positions: of a body with the skeleton's bone lengths; other lengths keep the directions.
        turned: (K, J, 3, 3) global rotations of the pose to start from.
        skeleton: of both.
    """
    positions, turned = positions.double(), turned.double()
    offsets, result = skeleton.offsets.double(), turned.clone()
    turns: dict[int, Tensor] = {}
    for joint in range(len(skeleton)):
        children = [child for child, parent in enumerate(skeleton.parents) if parent == joint]
        above = turns.get(skeleton.parents[joint], torch.eye(3).double().expand(len(positions), 3, 3))
        # What hangs on a turned bone goes along with it; from there its own bones are aimed.
        base = above @ turned[:, joint]
        aims = [(base @ offsets[child], positions[:, child] - positions[:, joint]) for child in children]
        if len(children) == 1:
            turn = between(*aims[0])
        elif children:
            was, now = (torch.stack(side, 1) for side in zip(*aims, strict=True))
            turn = _best_turn(was, now)
        else:
            turn = torch.eye(3).double().expand(len(positions), 3, 3)
        turns[joint] = turn @ above
        result[:, joint] = turn @ base
    return result


def _best_turn(was: Tensor, now: Tensor) -> Tensor:
    """Rotations (K, 3, 3) that carry vectors (K, n, 3) nearest to others (Kabsch, 1976)."""
    u, _, v = torch.linalg.svd(now.transpose(-1, -2) @ was)
    signs = torch.ones(len(was), 3, dtype=was.dtype)
    signs[:, 2] = torch.linalg.det(u @ v).sign()
    return (u * signs[:, None]) @ v
