"""Metrics give the numbers that are known beforehand, clip by clip, whatever stands in the padding."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import standing, swaying

from kinelib.bodies.features import encode
from kinelib.bodies.rotations import about_y
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kimodo.constraint_makers import end_effectors, keyframes
from kinelib.kimodo.constraints import Contacts, EndEffector, FromClip, Heading, RootPath, RootWaypoints
from kinelib.kimodo.metrics import (
    constraint_errors,
    contact_accuracy,
    foot_skate,
    hit_rate,
    jerk,
    penetration,
    pooled_percentile,
    seam_jerk,
    skate_from_height,
    skate_ratio,
    worst_skate,
)
from kinelib.notation import ShapeError

SLIDING = standing(41, (0.3, 0.4)).positions()[None]  # half a metre a second
STILL = standing(41).positions()[None]
ON = torch.ones(1, 41, 4)


def test_a_foot_that_slides_at_a_known_speed():
    for metric in (foot_skate, worst_skate):
        assert metric(SLIDING, ON, 20.0, SMPLX22).item() == pytest.approx(0.5, rel=1e-4)
        assert metric(STILL, ON, 20.0, SMPLX22).item() == pytest.approx(0, abs=1e-5)
    assert skate_from_height(SLIDING, 20.0, SMPLX22).item() == pytest.approx(0.5, rel=1e-4)
    assert skate_ratio(SLIDING, 20.0, SMPLX22).item() == 1.0
    assert skate_ratio(STILL, 20.0, SMPLX22).item() == 0.0


def test_only_what_stands_counts():
    contacts = torch.zeros(1, 41, 4)
    contacts[:, :10, 1] = 1
    half = torch.cat([SLIDING[:, :11], SLIDING[:, 10:11].expand(-1, 30, -1, -1)], 1)
    assert foot_skate(half, contacts, 20.0, SMPLX22).item() == pytest.approx(0.5, rel=1e-4)
    contacts[:, :20, 1] = 1
    assert foot_skate(half, contacts, 20.0, SMPLX22).item() == pytest.approx(0.25, rel=1e-4)
    assert worst_skate(half, contacts, 20.0, SMPLX22).item() == pytest.approx(0.5, rel=1e-4)
    assert foot_skate(half, torch.zeros(1, 41, 4), 20.0, SMPLX22).isnan().all()
    raised = SLIDING + torch.tensor([0.0, 0.2, 0.0])
    assert skate_from_height(raised, 20.0, SMPLX22).isnan().all() and skate_ratio(raised, 20.0, SMPLX22).isnan().all()


def test_each_clip_by_itself_and_padding_does_not_count():
    batch = torch.cat([SLIDING, STILL, SLIDING])
    lengths = torch.tensor([41, 41, 20])
    batch[2, 20:] = 1e3
    on = torch.ones(3, 41, 4)
    np.testing.assert_allclose(foot_skate(batch, on, 20.0, SMPLX22, lengths), [0.5, 0, 0.5], atol=1e-4)
    np.testing.assert_allclose(worst_skate(batch, on, 20.0, SMPLX22, lengths), [0.5, 0, 0.5], atol=1e-4)
    np.testing.assert_allclose(skate_from_height(batch, 20.0, SMPLX22, lengths), [0.5, 0, 0.5], atol=1e-4)
    np.testing.assert_allclose(contact_accuracy(on, batch, 20.0, SMPLX22, lengths), [0, 1, 0], atol=1e-6)
    batch[2, 20:] = -1e3
    assert penetration(batch, lengths)[1].max() == 0


def test_contact_accuracy_counts_channels():
    wrong = ON.clone()
    wrong[:, :, 0] = 0
    assert contact_accuracy(wrong, STILL, 20.0, SMPLX22).item() == pytest.approx(0.75)
    assert contact_accuracy(1 - ON, SLIDING, 20.0, SMPLX22).item() == 1.0


def test_penetration_is_the_depth_of_the_lowest_joint():
    lowest = float(STILL[..., 1].min())
    mean, worst = penetration(STILL - torch.tensor([0.0, lowest + 0.02, 0.0]))
    assert mean.item() == pytest.approx(0.02, abs=1e-5) and worst.item() == pytest.approx(0.02, abs=1e-5)
    assert penetration(STILL)[0].item() == 0


def test_a_motion_meets_its_own_constraints():
    motion = swaying(40)
    path = encode(motion)[:, [0, 2]]
    constraints = [
        *(
            keyframes(motion, (3, 30)),
            end_effectors(motion, (10,)),
            end_effectors(motion, (12,), rooted=False, space="root"),
        ),
        *(RootPath(0, path), RootWaypoints((5,), path[[5]]), FromClip(motion, 0, 0, 5)),
    ]
    errors = constraint_errors(motion, constraints)
    assert max(errors.worst()[name] for name in ("keyframe", "effector", "root")) < 1e-5
    assert errors.worst()["effector_rotation"] < 0.1
    assert 0 < errors.means()["pelvis"] <= 0.0601, "the pelvis sways about the smoothed root"
    assert len(errors.keyframe) == 2 * 22 + 5 * 22 and len(errors.effector) == 4 and len(errors.root) == 1 + 40 + 1


def test_known_errors_are_measured():
    motion = standing(30)
    off = motion.translated((0.03, 0.04))
    frames, facing = (4, 9), torch.tensor([0.5])
    constraints = [
        *(keyframes(motion, frames), end_effectors(motion, frames, rooted=False)),
        *(RootWaypoints((7,), torch.zeros(1, 2)), Heading((3,), facing)),
    ]
    means = constraint_errors(off, constraints).means()
    assert [means[name] for name in ("keyframe", "effector", "root", "pelvis")] == pytest.approx([0.05] * 4, abs=1e-5)
    assert means["heading"] == pytest.approx(math.degrees(0.5), abs=1e-3) and means["effector_rotation"] < 0.1
    turned = EndEffector((2,), ("head",), rotations=about_y(torch.tensor([[math.radians(30)]])))
    assert constraint_errors(motion, [turned]).means()["effector_rotation"] == pytest.approx(30, abs=0.01)


def test_headings_are_compared_across_the_turn():
    motion = standing(20).rotated(math.pi - 0.05)
    errors = constraint_errors(motion, [Heading((3,), torch.tensor([-math.pi + 0.05]))])
    assert errors.means()["heading"] == pytest.approx(math.degrees(0.1), abs=1e-2)


def test_contacts_that_differ_are_counted():
    motion = replace(standing(20), contacts=torch.ones(20, 4))
    asked = Contacts((3, 4), torch.tensor([[True, False], [True, True]]), ("left_toe", "right_toe"))
    assert constraint_errors(motion, [asked]).means()["contact"] == 0.25


def test_nothing_asked_is_nan_and_frames_outside_are_refused():
    errors = constraint_errors(standing(10), [])
    assert all(math.isnan(value) for value in errors.means().values())
    with pytest.raises(ShapeError, match="frame 30 of a motion of 10"):
        constraint_errors(standing(10), [RootWaypoints((30,), torch.zeros(1, 2))])


def test_the_percentile_is_of_points_not_of_clips():
    # 90 clips of one small error each and one clip of 900 large ones: clip means would call 95 % of them small.
    points = [torch.tensor([0.01])] * 99 + [torch.full((901,), 0.5)]
    found = pooled_percentile(points, 95)
    assert found.value == 0.5 and found.points == 1000 and found.clips == 100
    assert np.percentile([float(clip.mean()) for clip in points], 95) < 0.02
    even = pooled_percentile([torch.arange(0, 101).double()], 95)
    assert even.value == pytest.approx(95) and math.isnan(even.low)


def test_its_interval_covers_and_repeats():
    generator = torch.Generator().manual_seed(0)
    clips = [torch.rand(30, generator=generator) for _ in range(60)]
    found = pooled_percentile(clips, 50, resamples=300)
    assert found.low < 0.5 < found.high and found.high - found.low < 0.1
    assert found == pooled_percentile(clips, 50, resamples=300)
    with pytest.raises(ShapeError, match="at least one point"):
        pooled_percentile([torch.zeros(0)])
    with pytest.raises(ValueError, match="level between"):
        pooled_percentile(clips, level=1.5)


def test_hit_rate():
    assert hit_rate(torch.tensor([0.05, 0.2])) == 0.5 and math.isnan(hit_rate(torch.zeros(0)))


def test_jerk_of_a_cubic_is_constant():
    time = torch.arange(30).double() / 20
    positions = (time**3 / 6)[:, None, None].expand(30, 2, 3) * torch.tensor([1.0, 2.0, 2.0])
    assert jerk(positions, 20.0).numpy() == pytest.approx(3.0, rel=1e-6)
    with pytest.raises(ShapeError, match="4 frames"):
        jerk(positions[:3], 20.0)


def test_a_jump_shows_at_its_seam_only():
    time = torch.arange(40).double() / 20
    positions = torch.zeros(40, 1, 3, dtype=torch.float64)
    positions[:, 0, 0] = time
    positions[20:, 0, 0] += 0.01
    found = seam_jerk(positions, [20], 20.0)
    assert found.seam == pytest.approx(2 * 0.01 * 20**3) and found.inside_99 < 1e-6
    assert found.worst == found.seam
    assert seam_jerk(positions, [10], 20.0).inside_99 > 100
    with pytest.raises(ShapeError, match="inside the motion"):
        seam_jerk(positions, [40], 20.0)
