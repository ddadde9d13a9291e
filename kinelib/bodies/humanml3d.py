"""HumanML3D's 263 numbers a frame, and back: the format of most text-to-motion work, KinMo's among them.

    channels   what (22 joints in the order of `skeletons.SMPLX22`, 20 frames a second, T frames give T - 1 rows)
    0          yaw velocity of the root: *half* of the angle by which the yaw is taken back from this frame to the next
    1:3        x, z of the root's step to the next frame, in the axes of the body at the next frame
    3          height of the root, metres
    4:67       joints 1..21: x, z against the root, in the axes of the body; y above the floor
    67:193     rotations of joints 1..21, first two columns: see below
    193:259    steps of all joints to the next frame, metres, in the axes of the body
    259:263    1 where left ankle, left foot, right ankle, right foot move by less than 4.5 cm a frame

The axes of the body turn with its heading, which is smoothed over about four seconds to either side; the last rows of a clip
therefore depend on where it was cut. The rotations are neither those of a body model nor of a BVH file: along five chains of
bones, each bone's least rotation from a fixed rest direction is written against the one before it, the first against the
matrix that *takes back* the yaw. They return the joints exactly but hold no twist, and are not independent of the yaw.

The released features have three oddities, which whoever uses data or networks made with them must reproduce and whoever
begins anew need not. `Quirks` are switches for them, with `OFFICIAL` and `CLEAN` settings; nothing is assumed silently.

Source: Guo et al., "Generating Diverse and Natural 3D Human Motions from Text", CVPR 2022. Shapes: joints (T, 22, 3) metres,
y up; features (R, 263).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum, rearrange
from torch import Tensor

from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, between, from_6d, rotation_6d
from kinelib.bodies.skeletons import SMPLX22
from kinelib.notation import ShapeError, check_finite, check_shape

FPS = 20.0
SIZE = 263
SLICES = {
    "yaw_velocity": slice(0, 1),
    "root_velocity": slice(1, 3),
    "height": slice(3, 4),
    "positions": slice(4, 67),
    "rotations": slice(67, 193),
    "velocities": slice(193, 259),
    "contacts": slice(259, 263),
}
CONTACTS = (7, 10, 8, 11)  # left ankle, left foot, right ankle, right foot
STILL = 0.002  # squared metres a frame below which a foot is in contact, whatever its height
HEADING_SIGMA = 20.0  # frames over which the heading is smoothed
L_HIP, R_HIP, L_SHOULDER, R_SHOULDER = 1, 2, 16, 17
# Bones are followed along these chains; the arms begin at joint 9, the topmost of the spine that they share.
CHAINS = ((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20))
_REST = {(1, 0, 0): (1, 13), (-1, 0, 0): (2, 14), (0, 1, 0): (3, 6, 9, 12), (0, 0, 1): (10, 11, 15)}  # others point down


@dataclass(frozen=True)
class Quirks:
    """Oddities of the released features that are reproduced."""

    hips_swapped: bool  # the heading adds shoulders and *swapped* hips, which makes it wander by some degrees
    yaw_sign_lost: bool  # a step of the heading across the back (180 degrees) gets the wrong sign
    arms_from_root: bool  # the arms' first bones are written against the root instead of the spine


OFFICIAL = Quirks(hips_swapped=True, yaw_sign_lost=True, arms_from_root=True)
CLEAN = Quirks(hips_swapped=False, yaw_sign_lost=False, arms_from_root=False)


def canonical(joints: Tensor) -> Tensor:
    """Joints (T, 22, 3) with the lowest point on the floor and, in the first frame, the root above the origin, facing +z.

    Raises:
        ShapeError: for other joints, NaN, or a first frame in which hips and shoulders say nothing of where it faces.
    """
    _check_joints(joints)
    floor = joints[..., 1].min()
    start = torch.stack([joints[0, 0, 0], floor, joints[0, 0, 2]])
    ahead = _facing(joints[:1], swapped=False)[0]
    if float(ahead.norm()) < 1e-6:
        raise ShapeError("in the first frame hips and shoulders lie above each other, so that no heading can be told.")
    turn = about_y(-torch.atan2(ahead[0], ahead[2]))
    return (joints - start) @ turn.T


def with_bones(joints: Tensor, lengths: Tensor) -> Tensor:
    """The same motion on a body with other bones: directions stay, and the root's path is scaled with the legs.

    Args:
        joints: (T, 22, 3) metres.
        lengths: (22,) metres of the bone that leads to each joint, such as :func:`bone_lengths` gives; the first is unused.

    Returns:
        (T, 22, 3).
    """
    _check_joints(joints)
    check_shape("lengths", lengths, "22")
    own = bone_lengths(joints[:1])
    legs = (lengths[5] + lengths[8]) / (own[5] + own[8])
    placed = {0: joints[:, 0] * legs}
    for chain in CHAINS:
        for parent, joint in zip(chain, chain[1:], strict=False):
            bone = joints[:, joint] - joints[:, parent]
            placed[joint] = placed[parent] + bone / bone.norm(dim=-1, keepdim=True).clamp_min(1e-9) * lengths[joint]
    return torch.stack([placed[joint] for joint in range(22)], 1)


def bone_lengths(joints: Tensor) -> Tensor:
    """(22,) metres of the bone that leads to each joint, averaged over frames; 0 for the root."""
    lengths = joints.new_zeros(22)
    for chain in CHAINS:
        for parent, joint in zip(chain, chain[1:], strict=False):
            lengths[joint] = (joints[:, joint] - joints[:, parent]).norm(dim=-1).mean()
    return lengths


def encode(joints: Tensor, *, quirks: Quirks) -> Tensor:
    """The features of a clip that is placed as :func:`canonical` places it.

    Args:
        joints: (T, 22, 3) metres at 20 frames a second, T at least 2.
        quirks: `OFFICIAL` for what others made, `CLEAN` for a new beginning.

    Returns:
        (T - 1, 263), of the type of `joints`; computed in float64.

    Raises:
        ShapeError: for other joints, fewer than 2 frames, or NaN.
    """
    _check_joints(joints)
    if len(joints) < 2:
        raise ShapeError("HumanML3D's features are made of steps between frames; this clip has only one frame.")
    given, joints = joints.dtype, joints.double()
    yaw = _yaw(joints, quirks)
    back = about_y(-yaw)  # takes the yaw back
    steps = joints[1:] - joints[:-1]
    own_steps = einsum(back[:-1], steps, "t a b, t j b -> t j a")
    root_steps = einsum(back[1:], steps[:, 0], "t a b, t b -> t a")
    around = joints - joints[:, :1] * joints.new_tensor([1.0, 0.0, 1.0])
    around = einsum(back, around, "t a b, t j b -> t j a")
    rotations = rotation_6d(_local_rotations(joints, back, quirks)[:-1, 1:])
    rows = [
        _half_turns(yaw, quirks)[:, None],
        root_steps[:, [0, 2]],
        joints[:-1, 0, 1:2],
        rearrange(around[:-1, 1:], "t j xyz -> t (j xyz)"),
        rearrange(rotations, "t j six -> t (j six)"),
        rearrange(own_steps, "t j xyz -> t (j xyz)"),
        (steps[:, CONTACTS].square().sum(-1) < STILL).double(),
    ]
    return torch.cat(rows, 1).to(given)


def encode_motion(motion: Motion, *, quirks: Quirks) -> Tensor:
    """The features (T - 1, 263) of a motion of SMPL-X's 22 joints, resampled to 20 frames a second and placed.

    Raises:
        ShapeError: for a skeleton with other joints.
    """
    if motion.skeleton.joints != SMPLX22.joints:
        raise ShapeError(
            f"HumanML3D's features are of the joints of {SMPLX22.name}, in that order; this motion is of "
            f"{motion.skeleton.name}. Retarget it first: kinelib.bodies.retarget."
        )
    return encode(canonical(motion.resampled(FPS).positions()), quirks=quirks)


def recover(features: Tensor) -> Tensor:
    """Joints (R, 22, 3) from the positions in features (R, 263), or (..., R, 22, 3) of several clips.

    Raises:
        ShapeError: for another number of channels.
    """
    back, root = recover_root(features)
    around = rearrange(features[..., SLICES["positions"]], "... (j xyz) -> ... j xyz", xyz=3)
    flat = root * root.new_tensor([1.0, 0.0, 1.0])
    others = einsum(back, around, "... b a, ... j b -> ... j a") + flat[..., None, :]
    return torch.cat([root[..., None, :], others], -2)


def recover_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices (..., R, 3, 3) that take back the yaw, and the root (..., R, 3) in metres."""
    if features.shape[-1] != SIZE:
        raise ShapeError(f"HumanML3D's features have {SIZE} channels; got {tuple(features.shape)}.")
    back = about_y(2 * _since_start(features[..., 0]))
    x, z = features[..., 1], features[..., 2]
    # A step is written in the axes of the frame it leads to, and the first frame has had none.
    led_to = torch.stack([x, torch.zeros_like(x), z], -1).roll(1, dims=-2)
    steps = einsum(back, led_to, "... b a, ... b -> ... a")
    steps = torch.cat([torch.zeros_like(steps[..., :1, :]), steps[..., 1:, :]], -2)
    path = steps.cumsum(-2)
    return back, torch.stack([path[..., 0], features[..., 3], path[..., 2]], -1)


def recover_from_rotations(features: Tensor, lengths: Tensor, *, quirks: Quirks) -> Tensor:
    """Joints (..., R, 22, 3) from the rotations in features instead of the positions: bones keep their lengths.

    Args:
        features: (..., R, 263).
        lengths: (22,) metres of the bone that leads to each joint.
        quirks: with which the features were made.
    """
    back, root = recover_root(features)
    local = from_6d(rearrange(features[..., SLICES["rotations"]], "... (j six) -> ... j six", six=6))
    turns, placed = {0: back}, {0: root}
    bones = _rest_directions(features) * lengths.to(features)[:, None]
    for chain in CHAINS:
        turn = back if quirks.arms_from_root else turns[chain[0]]
        for parent, joint in zip(chain, chain[1:], strict=False):
            turn = turn @ local[..., joint - 1, :, :]
            turns[joint] = turn
            placed[joint] = placed[parent] + turn @ bones[joint]
    return torch.stack([placed[joint] for joint in range(22)], -2)


def _check_joints(joints: Tensor) -> None:
    check_shape("joints", joints, "T 22 3")
    check_finite("joints", joints)


def _since_start(velocity: Tensor) -> Tensor:
    """Sums (..., R) of the values before each frame."""
    return torch.cat([torch.zeros_like(velocity[..., :1]), velocity[..., :-1]], -1).cumsum(-1)


def _facing(joints: Tensor, *, swapped: bool) -> Tensor:
    """Directions (T, 3) on the floor, of length one where there are any, in which hips and shoulders face."""
    hips = joints[:, R_HIP] - joints[:, L_HIP]
    across = joints[:, R_SHOULDER] - joints[:, L_SHOULDER] + (-hips if swapped else hips)
    across = across / across.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.stack([across[:, 2], torch.zeros_like(across[:, 0]), -across[:, 0]], -1)


def _yaw(joints: Tensor, quirks: Quirks) -> Tensor:
    """The smoothed heading (T,) in radians, 0 along +z; that of the first frame is 0 by definition."""
    from scipy.ndimage import gaussian_filter1d

    ahead = _facing(joints, swapped=quirks.hips_swapped).cpu().numpy()
    ahead = gaussian_filter1d(ahead, HEADING_SIGMA, axis=0, mode="nearest")
    yaw = np.arctan2(ahead[:, 0], ahead[:, 2])
    yaw[0] = 0
    return torch.from_numpy(yaw).to(joints)


def _half_turns(yaw: Tensor, quirks: Quirks) -> Tensor:
    """Half of how far the yaw is taken back from each frame to the next, (T - 1,)."""
    change = yaw[1:] - yaw[:-1]
    if quirks.yaw_sign_lost:
        # The sine of half an angle does not tell a step across the back from one of the opposite sense.
        return -torch.arcsin((change / 2).sin())
    return -(torch.remainder(change + math.pi, 2 * math.pi) - math.pi) / 2


def _local_rotations(joints: Tensor, back: Tensor, quirks: Quirks) -> Tensor:
    """Rotations (T, 22, 3, 3) of the bones against those before them; `back` for the root."""
    rest, turns, local = _rest_directions(joints), {0: back}, {0: back}
    for chain in CHAINS:
        before = back if quirks.arms_from_root else turns[chain[0]]
        for parent, joint in zip(chain, chain[1:], strict=False):
            bone = joints[:, joint] - joints[:, parent]
            turns[joint] = between(rest[joint].expand_as(bone), bone)
            local[joint] = before.mT @ turns[joint]
            before = turns[joint]
    return torch.stack([local[joint] for joint in range(22)], 1)


def _rest_directions(like: Tensor) -> Tensor:
    """Directions (22, 3) of the bones at rest."""
    rest = like.new_tensor([0.0, -1.0, 0.0]).repeat(22, 1)
    for direction, joints in _REST.items():
        rest[list(joints)] = like.new_tensor(direction)
    rest[0] = 0
    return rest
