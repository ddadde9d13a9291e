"""Motions and kinematics: positions move as the body is mirrored, turned, moved and resampled; broken clips are refused."""

import math

import pytest
import torch

from kinelib.bodies import kinematics
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, from_axis_angle
from kinelib.bodies.skeletons import SMPLX22


@pytest.fixture
def motion():
    generator = torch.Generator().manual_seed(0)
    rotations = from_axis_angle(0.5 * torch.randn(13, 22, 3, generator=generator))
    contacts = torch.rand(13, 4, generator=generator)
    return Motion(rotations, torch.randn(13, 3, generator=generator), 30.0, SMPLX22, contacts, {"prompt": "a person falls"})


def near(first, second, within=1e-5):
    assert float((first - second).abs().max()) < within


def test_no_turn_is_the_rest_pose():
    still = torch.eye(3).expand(1, 22, 3, 3)
    positions, turned = kinematics.forward(still, SMPLX22.offsets[:1], SMPLX22)
    near(positions[0], SMPLX22.rest())
    near(turned, still)


def test_a_bent_elbow_moves_the_wrist_alone():
    bent = torch.eye(3).repeat(22, 1, 1)
    bent[SMPLX22.index("left_elbow")] = from_axis_angle(torch.tensor([0.0, -math.pi / 2, 0.0]))
    positions, _ = kinematics.forward(bent, SMPLX22.offsets[0], SMPLX22)
    moved = (positions - SMPLX22.rest()).norm(dim=-1) > 1e-6
    assert moved.nonzero().tolist() == [[SMPLX22.index("left_wrist")]]
    reach = positions[SMPLX22.index("left_wrist")] - positions[SMPLX22.index("left_elbow")]
    assert reach.tolist() == pytest.approx(
        [-0.01, 0, 0.25], abs=1e-6
    )  # the forearm, which pointed to the left, now points ahead


def test_local_global_and_positions_agree(motion):
    positions, turned = kinematics.forward(motion.rotations, motion.root, SMPLX22)
    near(kinematics.local_from_global(turned, SMPLX22.parents), motion.rotations)
    near(kinematics.positions_from_global(turned, motion.root, SMPLX22), positions)
    bones = torch.stack([(positions[:, b] - positions[:, a]).norm(dim=-1) for a, b in SMPLX22.bones()])
    near(bones, SMPLX22.offsets[1:].norm(dim=-1)[:, None].expand_as(bones))


def test_mirror_turn_and_move(motion):
    positions = motion.positions()
    near(motion.mirrored().positions(), positions[:, SMPLX22.mirror] * torch.tensor([-1.0, 1, 1]))
    near(motion.mirrored().mirrored().rotations, motion.rotations)
    assert torch.equal(motion.mirrored().contacts, motion.contacts[:, [2, 3, 0, 1]])
    near(motion.rotated(0.7).positions(), positions @ about_y(torch.tensor(0.7)).T)
    near(motion.translated((1.0, -2.0)).positions(), positions + torch.tensor([1.0, 0, -2]))


def test_resampling_keeps_frames_that_fall_on_frames(motion):
    slow = motion.resampled(15)
    assert len(slow) == 7
    near(slow.positions(), motion.positions()[::2])
    near(motion.resampled(60).positions()[::2], motion.positions())
    assert motion.resampled(60).seconds == pytest.approx(25 / 60)
    middle = motion.resampled(60).positions()[1::2]
    assert float((middle - motion.positions()[:-1]).norm(dim=-1).mean()) > 0.01


def test_slice_and_facts(motion):
    part = motion.slice(2, 5)
    assert len(part) == 3 and torch.equal(part.root, motion.root[2:5]) and torch.equal(part.contacts, motion.contacts[2:5])
    assert part.with_facts(seed=3).provenance == {"prompt": "a person falls", "seed": 3}
    for start, stop in ((0, 14), (3, 3), (-1, 2)):
        with pytest.raises(ValueError, match="motion of 13 frames"):
            motion.slice(start, stop)


def broken(motion, **changes):
    fields = {"rotations": motion.rotations, "root": motion.root, "fps": 30.0, "skeleton": SMPLX22, "contacts": None}
    return Motion(**fields | changes)


def test_broken_motions_are_refused(motion):
    scaled, missing = motion.rotations.clone(), motion.root.clone()
    scaled[3, 4] *= 1.1
    missing[5] = torch.nan
    cases = [
        ({"rotations": scaled}, "frame 3, joint left_knee"),
        ({"rotations": motion.rotations * torch.tensor([-1.0, 1, 1])}, "no rotation matrix"),  # a reflection
        ({"root": missing}, "root of frame 5"),
        ({"root": motion.root[:4]}, "axis T is 4"),
        ({"rotations": motion.rotations[:, :21]}, "axis J is 21"),
        ({"rotations": motion.rotations[:0], "root": motion.root[:0]}, "at least one frame"),
        ({"fps": 0.0}, "frame rate"),
        ({"fps": math.nan}, "frame rate"),
        ({"contacts": torch.zeros(13, 2)}, "contacts must have shape"),
    ]
    for changes, said in cases:
        with pytest.raises(ValueError, match=said):
            broken(motion, **changes)
    with pytest.raises(ValueError, match="frame rate"):
        motion.resampled(-1)
