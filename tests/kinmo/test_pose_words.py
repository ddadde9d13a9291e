"""Poses in words: known poses fall into known categories, and a mirror exchanges the names of the sides."""

from __future__ import annotations

import pytest
import torch

from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.procedural_words import mirrored_words
from kinelib.bodies.skeleton import Skeleton
from kinelib.kinmo.keyframes import pose_captions
from kinelib.kinmo.pose_words import Parts, angle, padded, signals, to_segment, unwrapped
from tests.kinmo.posing import standing


def measured(motion):
    positions, lengths = padded([motion])
    return signals(positions, lengths, motion.fps, motion.skeleton)


def test_who_stands_has_arms_down_and_knees_straight():
    found = measured(standing())
    assert found.elbow.max() < 10 and found.knee.max() < 8 and found.tilt.abs().max() < 3
    assert (found.wrist[..., 1] < -0.4).all()
    assert set(pose_captions(standing())) == {"Standing, both arms down."}


@pytest.mark.parametrize("turn", [0.0, 1.2, 3.0, -2.5])
def test_directions_are_those_of_the_body_wherever_it_faces(turn):
    ahead = standing(left_shoulder=(0, -85, 0), right_shoulder=(0, 85, 0)).rotated(turn)  # both arms straight ahead
    found = measured(ahead)
    assert (found.wrist[..., 0] > 0.35).all() and (found.wrist[..., 1].abs() < 0.05).all()
    assert "in front" in pose_captions(ahead)[0]


def test_an_arm_above_the_head_is_said_to_be():
    up = standing(left_shoulder=(0, 0, 80))
    assert pose_captions(up)[0] == "Standing, the left hand above the head."
    assert pose_captions(up.mirrored())[0] == "Standing, the right hand above the head."


def test_elbow_and_knee_bend_as_far_as_they_were_turned():
    found = measured(standing(left_elbow=(0, -70, 0), right_knee=(60, 0, 0)))
    assert found.elbow[0, 0].tolist() == pytest.approx([70, 0], abs=8)
    assert found.knee[0, 0].tolist() == pytest.approx([0, 60], abs=8)


def test_a_bent_back_is_measured_and_said():
    bow = standing(spine1=(50, 0, 0))
    assert measured(bow).tilt.mean() > 30
    assert "bent far forward" in pose_captions(bow)[0] or "leaning forward" in pose_captions(bow)[0]


def test_words_mean_the_same_for_a_child():
    motion = procedural_clips(1, 4, contents=["wave-left-hand"])[0].motion
    half = Skeleton(
        **{**vars(motion.skeleton), "name": "child", "offsets": motion.skeleton.offsets / 2},
    )
    child = type(motion)(motion.rotations, motion.root / 2, motion.fps, half)
    assert pose_captions(child) == pose_captions(motion)


def test_captions_of_mirrored_clips_are_the_mirrored_captions():
    for clip in procedural_clips(12, 11):
        mirrored = pose_captions(clip.motion.mirrored())
        assert [mirrored_words(caption) for caption in pose_captions(clip.motion)] == mirrored


def test_angles_distances_and_unwrapping():
    assert angle(torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 2, 0])).item() == pytest.approx(90)
    point, start, end = torch.tensor([[0.5, 1, 0], [3.0, 0, 0]]), torch.zeros(3), torch.tensor([1.0, 0, 0])
    assert to_segment(point, start, end).tolist() == pytest.approx([1.0, 2.0])
    turning = torch.linspace(0, 12, 50)
    wrapped = torch.atan2(turning.sin(), turning.cos())[None]
    assert torch.allclose(unwrapped(wrapped)[0], turning, atol=1e-4)


def test_a_skeleton_without_hands_is_refused_by_name():
    skeleton = procedural_clips(1, 0)[0].motion.skeleton
    bare = Skeleton(**{**vars(skeleton), "hands": ()})
    with pytest.raises(ValueError, match="hands"):
        Parts.of(bare)
