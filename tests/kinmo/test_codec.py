"""Motions to 263 numbers and back: against the plain encoder clip by clip, round trips, mirrors, groups and bad input."""

import math
from dataclasses import replace

import pytest
import torch

from kinelib.bodies import humanml3d
from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.rotations import about_y, from_axis_angle, geodesic
from kinelib.bodies.skeleton import GROUPS
from kinelib.bodies.skeletons import BANDAI22, SMPLX22
from kinelib.kinmo import codec
from kinelib.notation import ShapeError


@pytest.fixture(scope="module")
def motions():
    """Twelve procedural clips, the first of them turning while walking."""
    turning = procedural_clips(2, seed=3, contents=("walk-turn-left", "turn-right"))
    return [clip.motion for clip in (*turning, *procedural_clips(10, seed=4))]


@pytest.fixture(scope="module")
def features(motions):
    return codec.encode_clips(motions)


def turned_over(first, second):
    """The angle about the vertical, and the distance left, that put `first` (T, J, 3) onto `second`."""
    a, b = (points[0] - points[0, :1] for points in (first, second))
    angle = torch.atan2((a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]).sum(), (a[:, 0] * b[:, 0] + a[:, 2] * b[:, 2]).sum())
    on_floor = first - first[:1, :1] * torch.tensor([1.0, 0.0, 1.0])
    return float(angle), float((on_floor @ about_y(angle).T - second).norm(dim=-1).max())


def spin(frames=90, turns=1.5):
    """Someone who turns about on the spot, across the back, hands and feet moving."""
    t = torch.linspace(0, 1, frames)
    axes = 0.3 * torch.randn(22, 3, generator=torch.Generator().manual_seed(0))
    rotations = from_axis_angle(axes * torch.sin(8 * t[:, None, None] + torch.arange(22.0)[:, None]))
    rotations[:, 0] = about_y(2 * math.pi * turns * t)
    return Motion(rotations, torch.stack([t, 0.95 + 0 * t, -t], -1), 20.0, SMPLX22)


# ---- groups


def test_every_channel_belongs_to_one_group_and_widths_are_lgtms():
    widths = {name: len(channels) for name, channels in codec.GROUP_CHANNELS.items()}
    assert tuple(widths) == GROUPS
    assert widths == {"torso": 43, "neck": 24, "left_arm": 48, "right_arm": 48, "left_leg": 50, "right_leg": 50}
    assert sorted(sum(codec.GROUP_CHANNELS.values(), ())) == list(range(263))
    assert {0, 1, 2, 3} < set(codec.GROUP_CHANNELS["torso"]) and 259 in codec.GROUP_CHANNELS["left_leg"]


def test_moving_one_arm_changes_its_group_alone():
    still = Motion(torch.eye(3).repeat(30, 22, 1, 1), torch.tensor([0.0, 0.95, 0.0]).repeat(30, 1), 20.0, SMPLX22)
    waving = still.rotations.clone()
    waving[:, 18] = from_axis_angle(torch.linspace(0, 1, 30)[:, None] * torch.tensor([0.0, 0.0, 1.0]))  # the left elbow
    one, two = codec.encode_clips([still, replace(still, rotations=waving)])
    changed = {int(channel) for channel in ((one - two).abs() > 1e-5).any(0).nonzero()}
    assert changed and changed <= set(codec.GROUP_CHANNELS["left_arm"])


# ---- encoding


def test_many_clips_at_once_are_the_plain_encoder_clip_by_clip(motions, features):
    for motion, ours in zip([*motions, spin()], [*features, codec.encode(spin())], strict=True):
        # The plain encoder takes any placing as it is: give it ours, in which the smoothed heading begins at zero.
        joints = codec.recover(ours)
        angle, gap = turned_over(
            motion.positions()[:-1] - motion.positions()[..., 1].min() * torch.tensor([0.0, 1, 0]), joints
        )
        assert gap < 1e-4
        placed = motion.positions() - motion.root[0] * torch.tensor([1.0, 0.0, 1.0])
        placed = (placed - placed[..., 1].min() * torch.tensor([0.0, 1.0, 0.0])) @ about_y(torch.tensor(angle)).T
        theirs = humanml3d.encode(placed, quirks=humanml3d.CLEAN)
        assert float((ours - theirs).abs().max()) < 2e-4


def test_a_clip_that_begins_turning_has_no_jump_in_its_first_row():
    ours = codec.encode(spin())
    release = humanml3d.encode_motion(spin(), quirks=humanml3d.CLEAN)
    assert float(release[0, 0].abs()) > 5 * float(release[1:20, 0].abs().max())
    assert float(ours[0, 0].abs()) < 2 * float(ours[1:20, 0].abs().max())


def test_batches_do_not_mix_clips(motions, features):
    for motion, together in zip(motions, features, strict=True):
        assert float((codec.encode(motion) - together).abs().max()) < 1e-5
        assert together.shape == (len(motion) - 1, 263)
    assert codec.encode_clips([]) == [] and codec.decode_clips([]) == []


def test_the_mirror_image_is_a_permutation_with_signs(motions, features):
    for motion, ours in zip(motions, features, strict=True):
        assert float((codec.mirrored(ours) - codec.encode(motion.mirrored())).abs().max()) < 2e-4
        assert torch.equal(codec.mirrored(codec.mirrored(ours)), ours)


# ---- and back


def test_joints_come_back_within_a_millimetre_and_facing_up_to_the_start(motions, features):
    for motion, ours, back in zip(motions, features, codec.decode_clips(features), strict=True):
        assert len(back) == len(motion) - 1 and back.fps == 20 and back.skeleton is SMPLX22
        assert float((back.positions() - codec.recover(ours)).norm(dim=-1).max()) < 1e-3
        lifted = motion.positions()[:-1] - motion.positions()[..., 1].min() * torch.tensor([0.0, 1.0, 0.0])
        assert turned_over(lifted, back.positions())[1] < 1e-3
        assert torch.equal(back.contacts, ours[:, 259:])


def test_a_decoded_clip_starts_at_the_origin_and_comes_back_as_it_was(features):
    decoded = codec.decode_clips(features)
    for once, back, twice in zip(features, decoded, codec.decode_clips(codec.encode_clips(decoded)), strict=True):
        assert torch.equal(back.root[0, [0, 2]], torch.zeros(2))
        # The last row is cut off, and with it a little of what the heading is smoothed over.
        angle, gap = turned_over(back.positions()[:-1], twice.positions())
        assert abs(angle) < 0.01 and gap < 2e-3, len(once)


def test_rotations_of_trunk_and_legs_are_those_of_the_motion(motions, features):
    errors = [
        geodesic(motion.rotations[:-1, 1:], back.rotations[:, 1:]).mean(0)
        for motion, back in zip(motions, codec.decode_clips(features), strict=True)
    ]
    degrees = torch.rad2deg(torch.stack(errors).mean(0))
    legs = [joint - 1 for joint in (1, 2, 4, 5, 7, 8)]
    assert float(degrees[legs].max()) < 10  # arms' own twists are not in the joints


def test_rotations_of_impossible_joints_are_rotations():
    joints = torch.zeros(4, 22, 3)
    assert Motion(codec.rotations_of(joints), joints[:, 0], 20.0, SMPLX22).positions().isfinite().all()


# ---- statistics


def test_statistics_average_blocks_and_make_the_root_louder(features):
    frames = torch.cat(features)
    plain, loud = (codec.block_statistics(frames, bias=bias) for bias in (1.0, 5.0))
    assert plain.std[4:67].unique().numel() == 1 and torch.allclose(
        plain.std[4], frames[:, 4:67].std(0, correction=0).mean()
    )
    assert torch.allclose(loud.std[:4], plain.std[:4] / 5) and torch.equal(loud.std[4:259], plain.std[4:259])
    assert torch.allclose(loud.denormalize(loud.normalize(frames)), frames, atol=1e-5)


# ---- bad input


def test_other_skeletons_rates_and_lengths_are_refused_by_clip(motions):
    other = Motion(torch.eye(3).repeat(3, 22, 1, 1), torch.zeros(3, 3), 20.0, BANDAI22)
    with pytest.raises(ShapeError, match="clip 1 is of skeleton.*retarget"):
        codec.encode_clips([motions[0], other])
    taller = replace(SMPLX22, offsets=SMPLX22.offsets * 1.1)
    with pytest.raises(ShapeError, match="bone lengths"):
        codec.encode(replace(motions[0], skeleton=taller))
    with pytest.raises(ShapeError, match=r"resampled\(20\)"):
        codec.encode(replace(motions[0], fps=30.0))
    with pytest.raises(ShapeError, match="one frame"):
        codec.encode(motions[0].slice(0, 1))
    with pytest.raises(ShapeError, match="features"):
        codec.decode(torch.zeros(5, 262))
    with pytest.raises(ShapeError, match="NaN"):
        codec.decode(torch.full((5, 263), math.nan))
