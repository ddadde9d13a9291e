"""From joints to groups without loss, and back: what the paper calls linear and invertible, made so.

The paper (Section 3.1) states that its group features can be inverted and leaves how to an appendix that we could not read.
Equations 1 to 3 alone cannot: the six means are six numbers for each axis, the body has as many as joints. `rank` counts: on
SMPL's 22 joints the means know 6, with the five connecting joints 11, with the joints that those hang on 13. An orthogonal
transform adds the rest, and two more inverses say what can be had from interactions and from angles.

1. `to_groups`: Z = W X. In each group a Helmert matrix turns the places of n joints into sqrt(n) times their mean and n - 1
   numbers that say how the joints stand around it. W is a permutation and six orthogonal blocks, hence orthogonal: X = W' Z,
   condition number 1, and squared lengths are kept. The same for velocities, since means are linear.
2. `groups_from_interactions`: differences E = B P know everything about six means but their centre. With B'B = 6 I - 11',
   P = centre + B' E / 6, which for differences that contradict each other is the least-squares answer.
3. `positions_from_groups`: the bones are rigid, so that angles alone say how each group looks; its mean says where it is.

`features_to_groups` is the first on HumanML3D's 263 numbers, one orthogonal map of positions and velocities that leaves
everything else as it is. The pelvis has no x and z among the 263, being the origin of both; along those axes the torso's
block is of its other joints. Every number stays in a channel of its own group: `codec.GROUP_CHANNELS` holds for both.

Matrices are made in float64 and take the type and device of what they act on.

Shapes: J joints, values (..., J, D), six means (..., 6, D), fifteen differences (..., 15, D), features (..., 263).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from einops import einsum
from torch import Tensor

from kinelib.bodies.humanml3d import SIZE, SLICES
from kinelib.bodies.kinematics import forward
from kinelib.bodies.skeleton import GROUPS, Skeleton
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kinmo.groups import FIRST, PAIRS, SECOND, connecting_joints, group_means
from kinelib.notation import ShapeError


def helmert(n: int) -> Tensor:
    """The orthogonal (n, n) matrix whose first row takes the mean, times sqrt(n), and whose other rows sum to zero.

    Row k compares the first k values with the next one.

    Raises:
        ValueError: for n below 1.
    """
    if n < 1:
        raise ValueError(f"a Helmert matrix is of at least one value; got {n}.")
    matrix = torch.zeros(n, n, dtype=torch.float64)
    matrix[0] = 1 / math.sqrt(n)
    for k in range(1, n):
        matrix[k, :k] = 1 / math.sqrt(k * (k + 1))
        matrix[k, k] = -k / math.sqrt(k * (k + 1))
    return matrix


# ---- the lossless transform of joints


def group_matrix(skeleton: Skeleton) -> Tensor:
    """The orthogonal (J, J) matrix W, in float64: the joints of each group together, a Helmert matrix on each.

    Raises:
        ShapeError: when the groups are no partition of the joints.
    """
    groups = skeleton.check_groups()
    blocks = torch.block_diag(*(helmert(len(joints)) for joints in groups.values()))
    order = sum(groups.values(), [])
    return blocks @ torch.eye(len(skeleton), dtype=torch.float64)[order]


def to_groups(values: Tensor, skeleton: Skeleton) -> Tensor:
    """Means and what is left of values of joints: Z = W X, group by group, each group's mean first.

    Args:
        values: (..., J, D), places or velocities.
        skeleton: with six groups that hold every joint once.

    Returns:
        (..., J, D); rows are no longer joints.

    Raises:
        ShapeError: for another number of joints, or groups that are no partition of them.
    """
    return _times(group_matrix(skeleton), values)


def from_groups(transformed: Tensor, skeleton: Skeleton) -> Tensor:
    """The inverse of :func:`to_groups`: values (..., J, D) of the joints.

    Raises:
        ShapeError: for another number of rows, or groups that are no partition of the joints.
    """
    return _times(group_matrix(skeleton).T, transformed)


def means_of(transformed: Tensor, skeleton: Skeleton) -> Tensor:
    """The six means (..., 6, D) of Equations 1 and 2, read off what :func:`to_groups` returns.

    Raises:
        ShapeError: for another number of rows, or groups that are no partition of the joints.
    """
    sizes = [len(joints) for joints in skeleton.check_groups().values()]
    _check_rows("transformed", transformed, len(skeleton))
    first = [sum(sizes[:group]) for group in range(len(sizes))]
    return transformed[..., first, :] / transformed.new_tensor(sizes).sqrt()[:, None]


# ---- how much the paper's own features know


def measured_rows(skeleton: Skeleton, *, connecting: bool = False, parents: bool = False) -> Tensor:
    """What Equations 1 to 3 measure of J values, one row a number: (M, J) in float64.

    Args:
        skeleton: with six groups that hold every joint once.
        connecting: with the five connecting joints.
        parents: with the joints that those hang on.

    Raises:
        ShapeError: when the groups are no partition of the joints.
    """
    one = torch.eye(len(skeleton), dtype=torch.float64)
    joints = list(connecting_joints(skeleton).values())
    above = sorted({skeleton.parents[joint] for joint in joints})
    rows = [group_means(one, skeleton), one[joints if connecting else []], one[above if parents else []]]
    return torch.cat(rows)


def rank(skeleton: Skeleton, *, connecting: bool = False, parents: bool = False) -> int:
    """How many of the J values of an axis are known once :func:`measured_rows` are; below J, no linear map inverts them.

    Raises:
        ShapeError: when the groups are no partition of the joints.
    """
    return int(torch.linalg.matrix_rank(measured_rows(skeleton, connecting=connecting, parents=parents)))


# ---- interactions and groups


def incidence() -> Tensor:
    """The (15, 6) matrix B of float64 with E = B P: each pair's second group minus its first, in the order of `PAIRS`."""
    matrix = torch.zeros(len(PAIRS), len(GROUPS), dtype=torch.float64)
    rows = torch.arange(len(PAIRS))
    matrix[rows, SECOND], matrix[rows, FIRST] = 1.0, -1.0
    return matrix


def groups_from_interactions(between: Tensor, centre: Tensor) -> Tensor:
    """The six means that fifteen differences leave: exactly where they agree with each other, else in least squares.

    Args:
        between: (..., 15, D), second group minus first, in the order of `PAIRS`.
        centre: (..., D), the plain mean of the six means, of which differences know nothing.

    Returns:
        (..., 6, D).

    Raises:
        ShapeError: for another number of pairs.
    """
    _check_rows("between", between, len(PAIRS))
    return centre[..., None, :] + _times(incidence().T / len(GROUPS), between)


# ---- groups and angles


def positions_from_groups(means: Tensor, rotations: Tensor, skeleton: Skeleton) -> Tensor:
    """Where every joint is, from where each group is and how the joints are bent: the bones do the rest.

    Args:
        means: (..., 6, 3) metres, Equation 1.
        rotations: (..., J, 3, 3) of the joints against their parents, the root's against the axes that `means` are in.
        skeleton: whose rigid bones these are.

    Returns:
        (..., J, 3) metres. Means that disagree with the bones tear the body at its connecting joints: nothing is averaged.

    Raises:
        ShapeError: for other shapes, or groups that are no partition of the joints.
    """
    _check_rows("means", means, len(GROUPS))
    if rotations.shape[-3:] != (len(skeleton), 3, 3):
        raise ShapeError(f"rotations must have shape (..., {len(skeleton)}, 3, 3); got {tuple(rotations.shape)}.")
    pose = forward(rotations, torch.zeros_like(rotations[..., 0, :, 0]), skeleton)[0]
    shift = means - group_means(pose, skeleton)
    owner = {joint: group for group, joints in enumerate(skeleton.check_groups().values()) for joint in joints}
    return pose + shift[..., [owner[joint] for joint in range(len(skeleton))], :]


# ---- HumanML3D's 263 numbers


def features_to_groups(features: Tensor) -> Tensor:
    """HumanML3D's features (..., 263) with means and residuals of groups in place of joints; orthogonal.

    Means, times the root of the number of joints, stand in the channels of each group's first joint.

    Raises:
        ShapeError: for another number of channels.
    """
    return _times_last(_feature_matrix(), features)


def features_from_groups(transformed: Tensor) -> Tensor:
    """The inverse of :func:`features_to_groups`, (..., 263).

    Raises:
        ShapeError: for another number of channels.
    """
    return _times_last(_feature_matrix().T, transformed)


def feature_means(transformed: Tensor) -> tuple[Tensor, Tensor]:
    """P_g (..., 6, 3) in metres and V_g (..., 6, 3) in metres a frame, of what :func:`features_to_groups` returns.

    Raises:
        ShapeError: for another number of channels.
    """
    _check_channels(transformed)
    means = []
    for block in ("positions", "velocities"):
        axes = []
        for axis in range(3):
            channels = _channels(block, axis)
            # Where the pelvis is the origin, a sum over the n - 1 others is still divided by n.
            scale = [math.sqrt(len(own)) / len(joints) for own, joints in zip(channels, _members(), strict=True)]
            axes.append(transformed[..., [own[0] for own in channels]] * transformed.new_tensor(scale))
        means.append(torch.stack(axes, dim=-1))
    return means[0], means[1]


def _members() -> list[list[int]]:
    return list(SMPLX22.check_groups().values())


def _channels(block: str, axis: int) -> list[list[int]]:
    """For each group the channels of its joints along one axis, joint by joint; none where the pelvis is the origin."""
    if block == "velocities":
        place = lambda joint: [SLICES[block].start + 3 * joint + axis]
    else:  # positions begin with joint 1; the pelvis' height stands by itself
        pelvis = [SLICES["height"].start] if axis == 1 else []
        place = lambda joint: [SLICES[block].start + 3 * (joint - 1) + axis] if joint else pelvis
    return [[channel for joint in joints for channel in place(joint)] for joints in _members()]


@cache
def _feature_matrix() -> Tensor:
    """The orthogonal (263, 263) matrix in float64."""
    matrix = torch.eye(SIZE, dtype=torch.float64)
    for block in ("positions", "velocities"):
        for axis in range(3):
            for own in _channels(block, axis):
                at = torch.tensor(own)
                matrix[at[:, None], at] = helmert(len(own))
    return matrix


def _times(matrix: Tensor, values: Tensor) -> Tensor:
    _check_rows("values", values, matrix.shape[1])
    return einsum(matrix.to(values), values, "a b, ... b d -> ... a d")


def _times_last(matrix: Tensor, features: Tensor) -> Tensor:
    _check_channels(features)
    return einsum(matrix.to(features), features, "a b, ... b -> ... a")


def _check_channels(features: Tensor) -> None:
    if features.shape[-1] != SIZE:
        raise ShapeError(f"HumanML3D's features have {SIZE} channels; got {tuple(features.shape)}.")


def _check_rows(name: str, values: Tensor, rows: int) -> None:
    if values.ndim < 2 or values.shape[-2] != rows:
        raise ShapeError(f"{name} must have shape (..., {rows}, D); got {tuple(values.shape)}.")
