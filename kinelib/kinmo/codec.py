"""Motions as rows of HumanML3D's 263 numbers, the form that KinMo's networks read and write, and back to turning joints.

The features are those of `bodies.humanml3d` with its correct heading (`CLEAN`: no swapped hips, no lost sign, arms against
the spine), worked out for many clips at once. One thing differs: the body is turned so that its *smoothed* heading begins at
+z, where the release turns the first frame's own. In a clip that begins turning the two differ by some degrees (2 on
average, 16 at most in 256 procedural clips), and the release writes all of it into the first row's yaw velocity, a jump on
which a tokenizer would spend codes. A clip that `decode` has made is encoded as it stands.

The way back takes joints from the position block. Rotations are not those of the 6-D block, which hold no twist and turn
other frames than a skeleton's: pelvis and chest are fitted to their three bones, the spine turns by shares between them, and
every other joint makes the least turn from the one it hangs on that sends its bone where the features say. Joints come back
exactly; a twist about a limb's own axis is a neutral one.

Channels by group (assumption A1: LGTM's partition): torso 43, with the root; neck 24; arms 48 each; legs 50, with contacts.

Shapes: T frames give R = T - 1 rows of D = 263 features; N frames of all clips together; joints (..., 22, 3) metres, y up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from einops import einsum, rearrange
from torch import Tensor

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.humanml3d import (
    CHAINS,
    CLEAN,
    CONTACTS,
    FPS,
    HEADING_SIGMA,
    L_HIP,
    L_SHOULDER,
    R_HIP,
    R_SHOULDER,
    SIZE,
    SLICES,
    STILL,
    recover,
    recover_from_rotations,
)
from kinelib.bodies.kinematics import forward, local_from_global
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, between, from_6d, rotation_6d, slerp
from kinelib.bodies.skeletons import SMPLX22
from kinelib.notation import ShapeError, check_finite, check_shape

FEET_BIAS = 5.0  # how much louder the root and the contacts are than their spread says (the release's feat_bias)
CLIPS_AT_ONCE = 64
_RADIUS = int(4 * HEADING_SIGMA + 0.5)  # frames to either side over which the heading is smoothed
_HANGS_ON = {joint: parent for chain in CHAINS for parent, joint in zip(chain, chain[1:], strict=False)}
_BEFORE = torch.tensor([0, *(_HANGS_ON[joint] for joint in range(1, 22))])  # collars hang on the spine's top
_PELVIS, _CHEST, _SPINE = 0, 9, (3, 6)
_LOUD = ("yaw_velocity", "root_velocity", "height", "contacts")


def _joint_channels(joint: int) -> list[int]:
    """Channels of one joint's position, rotation and step; the root has a step only."""
    step = [*range(193 + 3 * joint, 196 + 3 * joint)]
    at = joint - 1
    return step if joint == 0 else [*range(4 + 3 * at, 7 + 3 * at), *range(67 + 6 * at, 73 + 6 * at), *step]


def _group_channels() -> dict[str, tuple[int, ...]]:
    extra = {"torso": [0, 1, 2, 3], "left_leg": [259, 260], "right_leg": [261, 262]}
    joints = SMPLX22.check_groups()
    return {
        name: tuple(sorted(extra.get(name, []) + [channel for joint in own for channel in _joint_channels(joint)]))
        for name, own in joints.items()
    }


GROUP_CHANNELS = _group_channels()  # group -> its channels, in the order of `bodies.skeleton.GROUPS`


def encode(motion: Motion) -> Tensor:
    """The features (T - 1, 263) of one motion; see :func:`encode_clips`."""
    return encode_clips([motion])[0]


def encode_clips(motions: Sequence[Motion]) -> list[Tensor]:
    """The features of many motions at once.

    Args:
        motions: of SMPLX22, its bone lengths included, at 20 frames a second, at least 2 frames each.

    Returns:
        for every motion (T - 1, 263), float32, unnormalised.

    Raises:
        ShapeError: for another skeleton, frame rate, or a single frame; the message names the clip and what to do.
    """
    for number, motion in enumerate(motions):
        _check(motion, number)
    chunks = [motions[first : first + CLIPS_AT_ONCE] for first in range(0, len(motions), CLIPS_AT_ONCE)]
    return [features for chunk in chunks for features in _encode_chunk(chunk)]


def decode(features: Tensor) -> Motion:
    """The motion of features; see :func:`decode_clips`.

    Args:
        features: (R, 263) unnormalised.

    Returns:
        R frames.
    """
    check_shape("features", features, "R 263")
    return decode_clips([features])[0]


def decode_clips(features: Sequence[Tensor]) -> list[Motion]:
    """Motions of SMPLX22 at 20 frames a second, the root above the origin at first, contacts included.

    Args:
        features: (R, 263) unnormalised of every clip, R at least 1, on any device.

    Raises:
        ShapeError: for other shapes, or NaN.
    """
    for number, one in enumerate(features):
        check_shape(f"features of clip {number}", one, f"R {SIZE}")
        check_finite(f"features of clip {number}", one)
    if not features:
        return []
    lengths = [len(one) for one in features]
    joints = torch.cat([recover(one.detach().cpu().float()) for one in features])
    rotations = rotations_of(joints).split(lengths)
    contacts = [one[:, SLICES["contacts"]].detach().cpu().float().clamp(0, 1) for one in features]
    parts = zip(rotations, joints[:, 0].split(lengths), contacts, strict=True)
    return [Motion(turns, root, FPS, SMPLX22, feet) for turns, root, feet in parts]


def rotations_of(joints: Tensor) -> Tensor:
    """Local rotations (N, 22, 3, 3) of SMPLX22 whose bones point as those of joints (N, 22, 3) do.

    Raises:
        ShapeError: for another number of joints.
    """
    check_shape("joints", joints, "N 22 3")
    rest = SMPLX22.rest().to(joints)
    up = ((3, (L_HIP, R_HIP)), (12, (_CHEST, _CHEST)))  # a joint above, and two whose middle is below
    trunk = []
    for across, (top, bottom) in zip(((L_HIP, R_HIP), (13, 14)), up, strict=True):
        here, there = (_frame(points, across, top, bottom) for points in (joints, rest))
        trunk.append(here @ there.mT)
    turns = {_PELVIS: trunk[0], _CHEST: trunk[1]}
    for share, joint in enumerate(_SPINE, start=1):
        part = torch.full(joints.shape[:1], share / (len(_SPINE) + 1)).to(joints)
        turns[joint] = _swung(slerp(*trunk, part), joints, rest, joint)
    for joint, parent in enumerate(SMPLX22.parents):
        if joint not in turns:
            turns[joint] = _swung(turns[parent], joints, rest, joint)
    return local_from_global(torch.stack([turns[joint] for joint in range(22)], 1), SMPLX22.parents)


def mirrored(features: Tensor) -> Tensor:
    """Features (..., 263) of the same motion seen in a mirror, left and right exchanged; exact, as the heading is clean."""
    channels, signs = _mirror_map()
    return features[..., channels.to(features.device)] * signs.to(features)


def block_statistics(frames: Tensor, bias: float = FEET_BIAS) -> Statistics:
    """Mean of every channel, and a spread averaged over each of the seven blocks, as the release normalises.

    A spread of its own would make a channel that hardly moves in a small set as loud as a hand. Root and contacts are only
    four of 263 channels each; dividing their spread by `bias` makes them louder. (`Statistics` adds 1e-5 to every variance,
    so that the yaw velocity, the smallest, gets about three of the five.)

    Args:
        frames: (N, 263) of all clips.
        bias: above 0.
    """
    check_shape("frames", frames, f"N {SIZE}")
    check_finite("frames", frames)
    spread, mean = torch.std_mean(frames.double(), dim=0, correction=0)
    for name, block in SLICES.items():
        spread[block] = spread[block].mean() / (bias if name in _LOUD else 1.0)
    return Statistics(mean.float(), spread.float())


def _check(motion: Motion, number: int) -> None:
    own = motion.skeleton
    alike = own.joints == SMPLX22.joints and torch.allclose(own.offsets[1:].cpu(), SMPLX22.offsets[1:], atol=1e-4)
    if not alike:
        raise ShapeError(
            f"clip {number} is of skeleton {own.name!r}; the features are of {SMPLX22.name} with its own bone lengths. "
            "Retarget it first: kinelib.bodies.retarget.retarget(motion, SMPLX22)."
        )
    if abs(motion.fps - FPS) > 1e-6:
        raise ShapeError(f"clip {number} has {motion.fps:g} frames a second; make it motion.resampled({FPS:g}) first.")
    if len(motion) < 2:
        raise ShapeError(f"clip {number} has one frame; HumanML3D's features are made of steps between frames.")


def _encode_chunk(motions: Sequence[Motion]) -> list[Tensor]:
    lengths = torch.tensor([len(motion) for motion in motions])
    turned = torch.cat([motion.rotations.detach().cpu().float() for motion in motions])
    joints = forward(turned, torch.cat([motion.root.detach().cpu().float() for motion in motions]), SMPLX22)[0]
    first = lengths.cumsum(0) - lengths
    yaw = _smoothed_yaw(joints, lengths, first)
    # Placed: floor at 0, the first root above the origin, the smoothed heading along +z at first.
    start, clip = joints[first, 0], torch.arange(len(motions)).repeat_interleave(lengths)
    start[:, 1] = torch.stack([part.min() for part in joints[..., 1].split(lengths.tolist())])
    joints = einsum(about_y(-yaw[first])[clip], joints - start[clip, None], "n a b, n j b -> n j a")
    yaw = yaw - yaw[first][clip]
    back = about_y(-yaw)
    steps = joints.roll(-1, 0) - joints  # of the last frame of a clip they are nonsense, and cut off below
    around = einsum(back, joints - joints[:, :1] * joints.new_tensor([1.0, 0.0, 1.0]), "n a b, n j b -> n j a")
    half = -(torch.remainder(yaw.roll(-1, 0) - yaw + torch.pi, 2 * torch.pi) - torch.pi) / 2
    rows = [
        half[:, None],
        einsum(back.roll(-1, 0), steps[:, 0], "n a b, n b -> n a")[:, [0, 2]],
        joints[:, 0, 1:2],
        rearrange(around[:, 1:], "n j xyz -> n (j xyz)"),
        rearrange(rotation_6d(_bone_rotations(joints, back)), "n j six -> n (j six)"),
        rearrange(einsum(back, steps, "n a b, n j b -> n j a"), "n j xyz -> n (j xyz)"),
        (steps[:, CONTACTS].square().sum(-1) < STILL).float(),
    ]
    return [features[:-1].clone() for features in torch.cat(rows, 1).split(lengths.tolist())]


def _smoothed_yaw(joints: Tensor, lengths: Tensor, first: Tensor) -> Tensor:
    """The heading (N,) in radians of hips and shoulders, smoothed within every clip."""
    across = joints[:, R_HIP] - joints[:, L_HIP] + joints[:, R_SHOULDER] - joints[:, L_SHOULDER]
    across = across / across.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    ahead = torch.stack([across[:, 2], -across[:, 0]], -1)
    # Beyond its ends a clip goes on as it began and ended.
    at = torch.arange(-_RADIUS, int(lengths.max()) + _RADIUS).clamp_min(0)
    at = first[:, None] + torch.minimum(at, lengths[:, None] - 1)
    bell = torch.exp(-0.5 * (torch.arange(-_RADIUS, _RADIUS + 1) / HEADING_SIGMA).square())
    padded = rearrange(ahead[at], "clip t xz -> (clip xz) 1 t")
    smooth = torch.nn.functional.conv1d(padded, (bell / bell.sum())[None, None])
    smooth = rearrange(smooth, "(clip xz) 1 t -> xz clip t", xz=2)
    yaw = torch.atan2(*smooth)
    return torch.cat([own[:length] for own, length in zip(yaw, lengths.tolist(), strict=True)])


def _bone_rotations(joints: Tensor, back: Tensor) -> Tensor:
    """Rotations (N, 21, 3, 3) of the bones from rest against those of the bones before them; against `back` at first."""
    bones = joints[:, 1:] - joints[:, _BEFORE[1:]]
    turns = torch.cat([back[:, None], between(_rest_directions().expand_as(bones), bones)], 1)
    return turns[:, _BEFORE[1:]].mT @ turns[:, 1:]


@cache
def _rest_directions() -> Tensor:
    """Directions (21, 3) of the bones at rest, read off the joints of features whose rotations are none."""
    features = torch.zeros(1, SIZE)
    features[:, SLICES["rotations"]] = rotation_6d(torch.eye(3)).repeat(21)
    joints = recover_from_rotations(features, torch.ones(22), quirks=CLEAN)[0]
    return joints[1:] - joints[_BEFORE[1:]]


def _frame(points: Tensor, across: tuple[int, int], top: int, bottom: tuple[int, int]) -> Tensor:
    """Frames (..., 3, 3) of three bones: x from right to left, y upwards."""
    left, right = (points[..., joint, :] for joint in across)
    middle = (points[..., bottom[0], :] + points[..., bottom[1], :]) / 2
    return from_6d(torch.cat([left - right, points[..., top, :] - middle], -1))


def _swung(turns: Tensor, joints: Tensor, rest: Tensor, joint: int) -> Tensor:
    """Rotations (N, 3, 3) turned on by the shortest way until the joint's bone points as in `joints`; ends stay."""
    if joint not in SMPLX22.parents:
        return turns
    child = SMPLX22.parents.index(joint)
    bone = turns @ (rest[child] - rest[joint])
    return between(bone, joints[:, child] - joints[:, joint]) @ turns


@cache
def _mirror_map() -> tuple[Tensor, Tensor]:
    """Channels (263,) and signs (263,) of the mirror image: a rotation R becomes F R F with F = diag(-1, 1, 1)."""
    channels, signs = torch.arange(SIZE), torch.ones(SIZE)
    signs[[0, 1]] = -1  # the turn, and the step to the side
    pattern = torch.tensor([-1.0, 1, 1, 1, -1, -1, -1, 1, 1, -1, 1, 1])  # position, two columns of a rotation, step
    for joint, other in enumerate(SMPLX22.mirror):
        own = _joint_channels(joint)
        channels[own], signs[own] = torch.tensor(_joint_channels(other)), pattern[-len(own) :]
    channels[SLICES["contacts"]] = torch.tensor([261, 262, 259, 260])
    return channels, signs
