"""The six kinematic groups and their fifteen interactions: Equations 1 to 3 of KinMo (Section 3.1 of the paper).

Every joint j has a place p_j, a turn r_j against its parent and a velocity v_j. Of a group g of joints J_g:

    Eq. 1   P_g = mean of p_j          where the group is
    Eq. 2   angles_g = all r_j         how its joints are bent: a selection, no mean
            V_g = mean of v_j          how it moves
    Eq. 3   P_h - P_g                  of a pair of groups: where one is against the other
            r at the connecting joint  only where the two hang on each other
            V_h - V_g, and v there     how one moves against the other, and the joint between them

The paper is silent in three places. Its group sets are not given: ours are a partition of the joints, LGTM's, which is
`Skeleton.groups` (assumption A1). Sets of a partition share no joint, though the paper writes of their intersection: the
connecting joint is the one of the two groups whose parent is in the other, and pairs have no order, so there are 15 of them
and five are connected (A2; on SMPL's body at the neck, both collars and both hips). What it calls an angular velocity is the
linear velocity of HumanML3D's features, in the axes of the body (A3).

All is seen from the body, as in HumanML3D: x and z against the root, y above the floor, turned back by the heading between
the hips. Departure: that heading is the hips' own in every frame, not one smoothed over four seconds, and velocities are in
metres a second; the last frame repeats the velocity before it, and a clip of one frame rests.

Shapes: G = 6 groups in the order of `GROUPS`, 15 pairs in that of `PAIRS`; of J joints, (..., T, J, 3) places in metres,
angles as axis times radians, velocities in m/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from einops import einsum
from torch import Tensor

from kinelib.bodies.features import heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, axis_angle
from kinelib.bodies.skeleton import GROUPS, Skeleton
from kinelib.notation import ShapeError

PAIRS: tuple[tuple[str, str], ...] = tuple(combinations(GROUPS, 2))  # the order of records, tokens and tensors
FIRST = [GROUPS.index(g) for g, _ in PAIRS]
SECOND = [GROUPS.index(h) for _, h in PAIRS]


def pair_key(g: str, h: str) -> str:
    """What files call a pair of groups, ``"torso|neck"``, whichever of the two is named first.

    Raises:
        ValueError: for a name that is no group, or the same group twice.
    """
    if unknown := [name for name in (g, h) if name not in GROUPS]:
        raise ValueError(f"unknown group {', '.join(map(repr, unknown))}; there are {', '.join(GROUPS)}.")
    if g == h:
        raise ValueError(f"an interaction is of two different groups; got {g!r} twice.")
    return "|".join(sorted((g, h), key=GROUPS.index))


PAIR_KEYS = tuple(pair_key(g, h) for g, h in PAIRS)


@dataclass(frozen=True, eq=False)
class JointFeatures:
    """What is known of every joint, seen from the body."""

    positions: Tensor  # (..., T, J, 3) metres: x, z against the root, y above the floor
    angles: Tensor  # (..., T, J, 3) axis times radians, against the parent
    velocities: Tensor  # (..., T, J, 3) m/s over the floor, in the axes of the body


@dataclass(frozen=True, eq=False)
class GroupFeatures:
    """Equations 1 and 2: every group by itself."""

    positions: Tensor  # (..., T, 6, 3) metres
    angles: dict[str, Tensor]  # group -> (..., T, n, 3) of its n joints, in the order of the skeleton's group
    velocities: Tensor  # (..., T, 6, 3) m/s


@dataclass(frozen=True, eq=False)
class Interactions:
    """Equation 3: every pair of groups; the dicts hold the connected pairs alone."""

    positions: Tensor  # (..., T, 15, 3) metres from the first group of the pair to the second
    angles: dict[tuple[str, str], Tensor]  # pair -> (..., T, 3) of the connecting joint
    velocities: Tensor  # (..., T, 15, 3) m/s of the second group against the first
    joint_velocities: dict[tuple[str, str], Tensor]  # pair -> (..., T, 3) m/s of the connecting joint


def connecting_joints(skeleton: Skeleton) -> dict[tuple[str, str], int]:
    """The joint at which two groups hang on each other, of every pair where they do: the upper end of the outer group.

    Where a pair touches more than once (no body of ours does), it is the joint that stands first.

    Args:
        skeleton: with six groups that hold every joint once.

    Raises:
        ShapeError: when the groups are no partition of the joints.
    """
    owner = {joint: group for group, joints in skeleton.check_groups().items() for joint in joints}
    found: dict[tuple[str, str], int] = {}
    for parent, joint in skeleton.bones():
        if owner[parent] != owner[joint]:
            g, h = sorted((owner[parent], owner[joint]), key=GROUPS.index)
            found.setdefault((g, h), joint)
    return {pair: found[pair] for pair in PAIRS if pair in found}


def joint_features(motion: Motion) -> JointFeatures:
    """Places, angles and velocities of all joints of a motion, seen from the body.

    Raises:
        ValueError: when the skeleton does not say which joints are its hips, between which the heading is measured.
    """
    places = motion.positions()
    back = about_y(-heading(places, motion.skeleton))
    steps = (places[1:] - places[:-1]) * motion.fps
    steps = torch.cat([steps, steps[-1:] if len(steps) else torch.zeros_like(places)])
    around = places - places[:, :1] * places.new_tensor([1.0, 0.0, 1.0])
    # Only the root turns against the world; taking the heading back leaves how the pelvis leans.
    rotations = torch.cat([back[:, None] @ motion.rotations[:, :1], motion.rotations[:, 1:]], dim=1)
    from_body = lambda vectors: einsum(back, vectors, "t a b, t j b -> t j a")
    return JointFeatures(from_body(around), axis_angle(rotations), from_body(steps))


def group_means(values: Tensor, skeleton: Skeleton) -> Tensor:
    """Means (..., 6, D) over the joints of each group, of anything (..., J, D) that joints have: P_g and V_g.

    Raises:
        ShapeError: for another number of joints, or groups that are no partition of them.
    """
    groups = skeleton.check_groups()
    _check_joints(values, skeleton)
    return torch.stack([values[..., joints, :].mean(-2) for joints in groups.values()], dim=-2)


def differences(means: Tensor) -> Tensor:
    """Second group minus first, (..., 15, D), of every pair of groups with means (..., 6, D).

    Raises:
        ShapeError: for another number of groups.
    """
    if means.ndim < 2 or means.shape[-2] != len(GROUPS):
        raise ShapeError(f"means must be (..., 6, D), a row a group: {', '.join(GROUPS)}; got {tuple(means.shape)}.")
    return means[..., SECOND, :] - means[..., FIRST, :]


def group_features(joints: JointFeatures, skeleton: Skeleton) -> GroupFeatures:
    """Equations 1 and 2: where the six groups are, how they are bent, how they move.

    Args:
        joints: of :func:`joint_features`, or a network's own numbers.
        skeleton: with six groups that hold every joint once.

    Raises:
        ShapeError: for another number of joints, or groups that are no partition of them.
    """
    _check_joints(joints.angles, skeleton)
    angles = {group: joints.angles[..., members, :] for group, members in skeleton.check_groups().items()}
    return GroupFeatures(group_means(joints.positions, skeleton), angles, group_means(joints.velocities, skeleton))


def interactions(joints: JointFeatures, skeleton: Skeleton) -> Interactions:
    """Equation 3: how the fifteen pairs of groups stand and move against each other, and the joints between them.

    Args:
        joints: of :func:`joint_features`, or a network's own numbers.
        skeleton: with six groups that hold every joint once.

    Raises:
        ShapeError: for another number of joints, or groups that are no partition of them.
    """
    groups, between = group_features(joints, skeleton), connecting_joints(skeleton)
    return Interactions(
        differences(groups.positions),
        {pair: joints.angles[..., joint, :] for pair, joint in between.items()},
        differences(groups.velocities),
        {pair: joints.velocities[..., joint, :] for pair, joint in between.items()},
    )


def _check_joints(values: Tensor, skeleton: Skeleton) -> None:
    if values.ndim < 2 or values.shape[-2] != len(skeleton):
        raise ShapeError(
            f"values of the joints of {skeleton.name!r} must be (..., {len(skeleton)}, D); got {tuple(values.shape)}."
        )
