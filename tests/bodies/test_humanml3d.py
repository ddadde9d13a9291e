"""HumanML3D's features: the released clip within its tolerances, quirk by quirk, and round trips of made-up clips."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kinelib.bodies.humanml3d import (
    CLEAN,
    OFFICIAL,
    SIZE,
    SLICES,
    bone_lengths,
    canonical,
    encode,
    encode_motion,
    recover,
    recover_from_rotations,
    recover_root,
    with_bones,
)
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, from_axis_angle
from kinelib.bodies.skeletons import BANDAI22, SMPLX22
from kinelib.notation import ShapeError

FOLDER = Path(os.environ.get("KINELIB_DATA", Path(__file__).parents[3] / "shared" / "data")) / "humanml3d"


@pytest.fixture(scope="module")
def clip():
    """Features (170, 263) and joints (170, 22, 3) of the reference clip."""
    if not (FOLDER / "new_joints" / "012314.npy").is_file():
        pytest.skip("no humanml3d/ with clip 012314; set KINELIB_DATA to the folder that holds it")
    return [torch.from_numpy(np.load(FOLDER / part / "012314.npy")) for part in ("new_joint_vecs", "new_joints")]


def spinning(frames=120, turns=1.5, seed=0):
    """A body that wanders, sways and turns: 1.5 times round, across its back."""
    rng = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, frames, dtype=torch.float64)
    axes = 0.4 * torch.randn(22, 3, generator=rng, dtype=torch.float64)
    rotations = from_axis_angle(axes * torch.sin(9 * t[:, None, None] + torch.arange(22.0)[:, None]))
    rotations[:, 0] = about_y(2 * math.pi * turns * t)
    root = torch.stack([2 * t, 0.9 + 0.1 * (5 * t).sin(), t**2], -1)
    return Motion(rotations, root, 20.0, SMPLX22)


def gap(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


# ---- the released clip


def test_joints_come_back_from_the_released_features(clip):
    features, joints = clip
    assert gap(recover(features), joints) < 1.2e-6
    assert gap(recover_from_rotations(features, bone_lengths(joints), quirks=OFFICIAL), joints) < 2e-6
    assert gap(canonical(joints), joints) < 1e-6


def test_encoding_gives_the_released_features(clip):
    features, joints = clip
    ours = encode(joints, quirks=OFFICIAL)
    theirs = features[: len(ours)]
    early, whole = ours[:80] - theirs[:80], ours - theirs
    for name, channels in SLICES.items():
        assert float(early[:, channels].abs().max()) < (8e-6 if name == "rotations" else 4e-7), name
    # The released clip was cut one frame later, and the heading is smoothed over 80 frames to either side.
    assert float(whole[:, SLICES["positions"]].abs().max()) < 6.9e-3
    assert float(whole[:, SLICES["rotations"]].abs().max()) < 1.4e-2
    assert not whole[:, SLICES["contacts"]].any() and not whole[:, SLICES["height"]].any()


@pytest.mark.parametrize(
    ("quirk", "block", "least"), [("hips_swapped", "positions", 0.4), ("arms_from_root", "rotations", 1.0)]
)
def test_without_a_quirk_the_released_features_are_missed(clip, quirk, block, least):
    features, joints = clip
    ours = encode(joints, quirks=replace(OFFICIAL, **{quirk: False}))
    assert gap(ours[:, SLICES[block]], features[: len(ours), SLICES[block]]) > least


# ---- clips of our own


def test_clean_features_come_back_whatever_way_the_body_faces():
    joints = canonical(spinning().positions())
    features = encode(joints, quirks=CLEAN)
    assert features.shape == (119, SIZE) and features.dtype == torch.float64
    assert gap(recover(features), joints[:-1]) < 1e-9
    assert gap(recover_from_rotations(features, bone_lengths(joints), quirks=CLEAN), joints[:-1]) < 1e-6
    batch = torch.stack([features, features.flip(0)])
    assert torch.equal(recover(batch)[0], recover(features))


def test_the_lost_sign_turns_the_rest_of_the_clip():
    joints = canonical(spinning().positions())
    lost = encode(joints, quirks=replace(CLEAN, yaw_sign_lost=True))
    clean = encode(joints, quirks=CLEAN)
    wrong = (lost[:, 0] - clean[:, 0]).abs() > 1e-9
    assert 1 <= int(wrong.sum()) <= 3  # once for each time that the heading crosses the back
    assert torch.allclose(lost[wrong, 0], -clean[wrong, 0])
    first = int(wrong.nonzero()[0])
    assert gap(recover(lost)[: first + 1], joints[: first + 1]) < 1e-9
    assert gap(recover(lost)[first + 2 :], joints[first + 2 : -1]) > 0.02


def test_the_yaw_velocity_is_half_an_angle():
    still = Motion(torch.eye(3).expand(200, 22, 3, 3).clone(), torch.tensor([0.0, 0.94, 0.0]).expand(200, 3), 20.0, SMPLX22)
    turning = replace(still, rotations=still.rotations.clone())
    turning.rotations[:, 0] = about_y(torch.arange(200) * 0.02)
    yaw = encode_motion(turning, quirks=CLEAN)[:, 0]
    # Away from the ends, where smoothing sees nothing but the turn.
    assert torch.allclose(yaw[85:110], torch.full((25,), -0.01), atol=1e-4)
    back, _ = recover_root(encode_motion(turning, quirks=CLEAN))
    assert torch.allclose(back[110] @ about_y(torch.tensor(0.02 * 25)), back[85], atol=1e-3)


def test_contacts_look_at_speed_alone():
    joints = SMPLX22.rest().expand(4, 22, 3).clone()
    joints[2:, 7, 0] += 0.05  # the left ankle jumps by 5 cm, more than the square root of 0.002
    joints[2:, 11, 0] += 0.04
    joints[:, 8, 1] += 1.0  # high above the floor, but still
    assert encode(joints, quirks=CLEAN)[:, SLICES["contacts"]].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]


def test_canonical_clips_begin_above_the_origin_facing_ahead():
    joints = spinning().rotated(2.0).translated((4.0, -3.0)).positions()
    placed = canonical(joints)
    assert float(placed[..., 1].min()) == 0
    assert float(placed[0, 0, [0, 2]].abs().max()) < 1e-12
    across = placed[0, 2] - placed[0, 1] + placed[0, 17] - placed[0, 16]
    assert abs(float(across[2])) < 1e-6 and float(across[0]) < 0
    moved = canonical(joints @ about_y(torch.tensor(1.0, dtype=torch.float64)).T + 5)
    assert gap(placed, moved) < 1e-7


def test_bones_can_be_exchanged():
    joints = spinning().positions()
    lengths = bone_lengths(joints) * 1.5
    longer = with_bones(joints, lengths)
    assert gap(bone_lengths(longer), lengths) < 1e-6
    assert gap(longer[:, 0], joints[:, 0] * 1.5) < 1e-6
    assert gap(with_bones(joints, bone_lengths(joints)), joints) < 1e-6
    direction = lambda one: torch.nn.functional.normalize(one[:, 18] - one[:, 16], dim=-1)
    assert gap(direction(longer), direction(joints)) < 1e-6


def test_motions_are_resampled_to_20_frames_a_second():
    motion = spinning()
    assert len(encode_motion(replace(motion, fps=60.0), quirks=CLEAN)) == 39
    assert encode_motion(motion, quirks=OFFICIAL).shape == (119, SIZE)


def test_what_cannot_be_encoded_is_refused():
    with pytest.raises(ShapeError, match="only one frame"):
        encode(torch.zeros(1, 22, 3), quirks=CLEAN)
    with pytest.raises(ShapeError, match="joints must have shape"):
        encode(torch.zeros(5, 21, 3), quirks=CLEAN)
    with pytest.raises(ShapeError, match="NaN"):
        canonical(torch.full((5, 22, 3), float("nan")))
    with pytest.raises(ShapeError, match="heading"):
        canonical(torch.zeros(5, 22, 3))
    with pytest.raises(ShapeError, match="bandai22. Retarget"):
        encode_motion(replace(spinning(), skeleton=BANDAI22), quirks=CLEAN)
    with pytest.raises(ShapeError, match="263"):
        recover(torch.zeros(5, 262))
