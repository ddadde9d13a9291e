"""Retargeting: directions kept, lengths the target's, twists followed, feet on the floor; on made and on real motion."""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from kinelib.bodies.bvh import parse_bvh
from kinelib.bodies.features import contacts, heading
from kinelib.bodies.kinematics import local_from_global
from kinelib.bodies.motion import Motion
from kinelib.bodies.retarget import RetargetError, calibrate, direction_errors, retarget, retarget_all
from kinelib.bodies.rotations import from_axis_angle, geodesic
from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30

DATA = Path(os.environ.get("KINELIB_DATA", "no such folder"))


def posed(skeleton=SMPLX22, frames: int = 40, seed: int = 0, size: float = 0.4) -> Motion:
    """Smooth random poses around the rest pose, standing."""
    draw = torch.Generator().manual_seed(seed)
    waves = torch.randn(3, len(skeleton), 3, generator=draw) * size
    time = torch.linspace(0, 6, frames)[:, None, None]
    turns = from_axis_angle(waves[0] * (time + waves[1]).sin())
    root = torch.stack([time[:, 0, 0] * 0.2, 0.9 + 0 * time[:, 0, 0], time[:, 0, 0] * 0.1], -1)
    return Motion(turns, root, 20.0, skeleton)


@cache
def bandai(*names: str) -> tuple[Motion, ...]:
    if not (DATA / "bandai_namco.zip").is_file():
        pytest.skip("KINELIB_DATA holds no bandai_namco.zip")
    with zipfile.ZipFile(DATA / "bandai_namco.zip") as file:
        every = sorted(name for name in file.namelist() if name.endswith(".bvh"))
        chosen = [f"dataset-2_{name}.bvh" for name in names] or every[::40]
        return tuple(parse_bvh(file.read(name).decode(), name).motion().resampled(20.0) for name in chosen)


def test_a_body_onto_itself_is_the_same_motion():
    motion = posed()
    again = retarget(motion, SMPLX22)
    angle = geodesic(motion.global_rotations(), again.global_rotations())
    shared = ("spine1", "spine2")  # which turn by shares of what the whole spine turns
    known = [joint for joint, name in enumerate(SMPLX22.joints) if name not in shared]
    assert float(angle[:, known].max()) < 5e-3
    lift = (again.root - motion.root)[:, 1]
    assert float(lift.std()) < 1e-3


@pytest.mark.parametrize("source", [SMPLX22, SOMA30, BANDAI22], ids=lambda one: one.name)
@pytest.mark.parametrize("target", [SMPLX22, SOMA30, BANDAI22], ids=lambda one: one.name)
def test_limbs_keep_their_directions_and_the_target_its_lengths(source, target):
    motion = posed(source)
    moved = retarget(motion, target)
    errors = direction_errors(motion, moved)
    assert len(errors) == 13
    for part, error in errors.items():
        if not part.endswith("toe"):  # feet keep their slope against the floor instead
            assert float(error.max()) < 1e-3, part
    lengths = (moved.positions()[:, 1:] - moved.positions()[:, list(target.parents[1:])]).norm(dim=-1)
    torch.testing.assert_close(lengths, target.offsets[1:].norm(dim=-1).expand_as(lengths), atol=1e-5, rtol=0)


def test_twist_about_a_bone_is_followed():
    turns = torch.eye(3).expand(30, len(SMPLX22), 3, 3).clone()
    angle = torch.linspace(-0.8, 0.8, 30)
    turns[:, SMPLX22.index("left_elbow")] = from_axis_angle(angle[:, None] * torch.tensor([1.0, 0, 0]))  # along the arm
    moved = retarget(Motion(turns, torch.zeros(30, 3), 20.0, SMPLX22), SOMA30)
    # The two bodies' arms are not equally straight at rest, so what is compared is how far the forearms turn.
    left, right = (moved.rotations[:, SOMA30.index(joint)] for joint in ("LeftForeArm", "RightForeArm"))
    torch.testing.assert_close(geodesic(left[:1], left), angle - angle[0], atol=2e-2, rtol=0)
    assert float(geodesic(right[:1], right).max()) < 1e-3


def test_local_axes_of_the_source_do_not_matter():
    """The same body with every joint's axes turned at random, as Maya rigs have them, gives the same motion."""
    motion = posed(frames=60)
    draw = torch.Generator().manual_seed(3)
    axes = from_axis_angle(torch.randn(len(SMPLX22), 3, generator=draw) * 2)
    turned = motion.global_rotations() @ axes
    offsets = SMPLX22.offsets.clone()
    parents = list(SMPLX22.parents[1:])
    offsets[1:] = (axes[parents].transpose(-1, -2) @ offsets[1:, :, None])[..., 0]
    odd = Motion(local_from_global(turned, SMPLX22.parents), motion.root, 20.0, replace(SMPLX22, offsets=offsets))
    torch.testing.assert_close(odd.positions(), motion.positions(), atol=1e-5, rtol=0)
    plain, moved = retarget(motion, SMPLX22), retarget(odd, SMPLX22)
    for part, error in direction_errors(motion, moved).items():
        if not part.endswith("toe"):
            assert float(error.max()) < 1e-3, part
    # Twists are known up to a constant, which is the mean over the clip: small here, where poses vary around the rest.
    assert float(geodesic(plain.rotations, moved.rotations).mean()) < 0.15


def test_a_taller_body_takes_longer_steps():
    motion = posed()
    tall = replace(SMPLX22, name="tall", offsets=SMPLX22.offsets * 1.5)
    moved = retarget(motion, tall)
    torch.testing.assert_close(moved.root[:, [0, 2]], 1.5 * motion.root[:, [0, 2]], atol=1e-2, rtol=0)
    assert float(moved.positions()[..., 1].amin(1).quantile(0.05)) == pytest.approx(1.5 * 0.01, abs=2e-3)


def test_a_calibration_is_of_the_rig_and_can_be_used_again():
    clips = [posed(seed=seed) for seed in range(3)]
    calibration = calibrate(clips, SOMA30)
    assert calibration.frames == 1  # read off the rest pose
    together = retarget_all(clips, SOMA30)
    for clip, moved in zip(clips, together, strict=True):
        alone = retarget(clip, SOMA30, calibration)
        torch.testing.assert_close(alone.rotations, moved.rotations, atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.root, moved.root, atol=1e-5, rtol=0)
    assert retarget_all([], SOMA30) == []


def test_bodies_without_the_parts_of_a_person_are_refused():
    with pytest.raises(RetargetError, match="g1_34.*neck, head"):
        retarget(posed(), G1_34)
    with pytest.raises(RetargetError, match="differ in joints"):
        retarget_all([posed(SMPLX22), posed(SOMA30)], SMPLX22)


# ---- real motion


def test_real_directions_are_kept():
    clips = bandai()
    moved = retarget_all(clips, SMPLX22)
    assert len(moved) == len(clips) > 25
    errors = [direction_errors(*pair) for pair in zip(clips, moved, strict=True)]
    limbs = torch.cat([error for one in errors for part, error in one.items() if not part.endswith("toe")])
    feet = torch.cat([error for one in errors for part, error in one.items() if part.endswith("toe")])
    assert math.degrees(float(limbs.mean())) < 0.01 and math.degrees(float(limbs.max())) < 0.1
    # Bandai-Namco's ankle stands higher over its toe: one constant slope, which leaves flat feet flat.
    assert math.degrees(float(feet.mean())) < 16 and math.degrees(float(feet.std())) < 0.5
    for one in moved:
        joints = one.positions()
        assert 0 < float(joints[..., 1].amin(1).quantile(0.05)) < 0.02
        assert 1.4 < float(joints[:, SMPLX22.index("head"), 1].max()) < 1.65
        # Knees and elbows bend one way: about one axis, forwards.
        knees = one.rotations[:, [SMPLX22.index("left_knee"), SMPLX22.index("right_knee")]]
        assert float((knees[..., 2, 1] > -0.2).float().mean()) > 0.99


def test_walking_looks_like_walking():
    (walk,) = retarget_all(bandai("walk_normal_001"), SMPLX22)
    joints = walk.positions()
    facing = heading(joints, SMPLX22)
    velocity = (walk.root[1:] - walk.root[:-1]) * walk.fps
    speed = velocity[:, [0, 2]].norm(dim=-1)
    ahead = velocity[:, 0] * facing[:-1].sin() + velocity[:, 2] * facing[:-1].cos()
    assert 0.9 < float(speed.mean()) < 1.6
    assert float(ahead.sum() / speed.sum()) > 0.97  # the body travels where it faces
    touching = contacts(joints[None], walk.fps, SMPLX22)[0].bool()
    assert 0.3 < float(touching.float().mean()) < 0.7
    feet = [SMPLX22.index(joint) for joint in ("left_foot", "right_foot")]
    apart = (joints[:, feet[0]] - joints[:, feet[1]])[:, [0, 2]]
    along = apart[:, 0] * facing.sin() + apart[:, 1] * facing.cos()
    steps = int((along[1:].sign() != along[:-1].sign()).sum())
    assert 10 <= steps <= 30 and float(along.abs().max()) > 0.4  # nine seconds of it
    sliding = (joints[1:, feet] - joints[:-1, feet]).norm(dim=-1) * walk.fps
    assert float(sliding[touching[:-1][:, [1, 3]]].mean()) < 0.08


def test_the_left_hand_is_the_left_hand_and_left_turns_turn_left():
    names = ("raise-up-left-hand_normal_001", "walk-turn-left_normal_001", "walk-turn-right_normal_001")
    hand, left, right = retarget_all(bandai(*names), SMPLX22)
    heights = hand.positions()[..., 1].amax(0)
    assert float(heights[SMPLX22.index("left_wrist")]) > 1.5 > 1.1 > float(heights[SMPLX22.index("right_wrist")])
    assert abs(float(heading(hand.positions(), SMPLX22)[0])) < 0.3  # these clips begin facing +z
    for clip, sign in ((left, 1), (right, -1)):
        angle = heading(clip.positions(), SMPLX22)
        turn = torch.remainder(angle.diff() + math.pi, 2 * math.pi) - math.pi
        assert 60 < sign * math.degrees(float(turn.sum())) < 120
