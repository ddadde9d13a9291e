"""Two-bone inverse kinematics reaches what is in reach, keeps bones, bends knees forward, and leaves settled limbs alone."""

import numpy as np
import pytest
import torch
from moving import swaying

from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30
from kinelib.kimodo.limbs import REACH, aim, descendants, limbs, local_of, pose, reach, two_bone
from kinelib.kimodo.trajectory import matrices_of, vectors_of

MOTION = swaying(80, degrees=25)
# Rotations in single precision are off by 1e-7; made good, so that errors of the kinematics itself show.
LOCAL = matrices_of(vectors_of(MOTION.rotations.numpy()))
POSITIONS, TURNED = pose(LOCAL, MOTION.root, SMPLX22)


def moved(turned):
    return pose(local_of(turned, SMPLX22), MOTION.root, SMPLX22)[0]


@pytest.mark.parametrize("part", ["left_hand", "right_hand", "left_foot", "right_foot"])
def test_ends_reach_targets_or_say_what_is_missing(part):
    limb = limbs(SMPLX22)[part]
    target = POSITIONS[:, limb.end] + np.random.default_rng(0).normal(size=(80, 3)) * 0.15
    turned, missing = reach(TURNED, POSITIONS, SMPLX22, limb, target)
    now = moved(turned)
    np.testing.assert_allclose(np.linalg.norm(now[:, limb.end] - target, axis=1), missing, atol=1e-9)
    assert 20 < (missing < 1e-9).sum() < 80, "some are in reach, some are not"
    untouched = [joint for joint in range(22) if joint not in descendants(SMPLX22, limb.upper)]
    assert np.array_equal(turned[:, untouched], TURNED[:, untouched])
    assert np.array_equal(turned[:, limb.end], TURNED[:, limb.end]), "the end keeps its turn in the world"


def test_a_limb_that_is_there_is_not_turned():
    for limb in limbs(SMPLX22).values():
        turned, missing = reach(TURNED, POSITIONS, SMPLX22, limb, POSITIONS[:, limb.end].copy())
        assert np.abs(turned - TURNED).max() < 1e-9 and missing.max() < 1e-9


def test_a_straight_leg_bends_its_knee_forward_and_a_straight_arm_its_elbow_back():
    positions, turned = pose(torch.eye(3).expand(1, 22, 3, 3), SMPLX22.offsets[:1], SMPLX22)
    for part, way in (("left_foot", 1), ("right_foot", 1), ("left_hand", -1)):
        limb = limbs(SMPLX22)[part]
        toward = positions[:, limb.upper] - positions[:, limb.end]
        bent, missing = reach(turned, positions, SMPLX22, limb, positions[:, limb.end] + 0.2 * toward)
        now = pose(local_of(bent, SMPLX22), SMPLX22.offsets[:1], SMPLX22)[0]
        assert missing.max() < 1e-9
        assert way * (now[0, limb.middle, 2] - positions[0, limb.middle, 2]) > 0.1


def test_out_of_reach_stretches_to_the_limit_towards_the_target():
    upper, middle, end = np.array([0.0, 1, 0]), np.array([0.3, 1, 0.1]), np.array([0.5, 1, 0])
    length = np.linalg.norm(middle - upper) + np.linalg.norm(end - middle)
    bend = two_bone(upper, middle, end, np.array([0.0, 1, 5]), np.array([0.0, 0, -1]))
    np.testing.assert_allclose(bend.reached, [0, 1, REACH * length], atol=1e-9)
    assert bend.missing == pytest.approx(5 - REACH * length)


def test_too_near_and_at_the_shoulder_give_rotations():
    upper, middle, end = np.array([0.0, 1, 0]), np.array([0.3, 1, 0.1]), np.array([0.5, 1, 0])
    for target in (upper, upper + 0.01, 2 * upper - end):
        bend = two_bone(upper, middle, end, target, np.array([0.0, 0, -1]))
        for turn in (bend.upper, bend.middle):
            np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
            assert np.linalg.det(turn) == pytest.approx(1)


def test_the_law_of_cosines():
    # Two bones of one metre whose end comes to one metre: an equilateral triangle, in the plane of the old bend.
    first, end = np.array([1.0, 0.2, 0]) / np.hypot(1, 0.2), np.array([2.0, 0, 0]) / np.hypot(1, 0.2)
    bend = two_bone(np.zeros(3), first, end, np.array([1.0, 0, 0]), np.array([0.0, 0, 1]))
    np.testing.assert_allclose(bend.upper @ first, [0.5, np.sqrt(0.75), 0], atol=1e-9)


def test_an_end_rotation_is_taken_and_fingers_follow():
    limb = limbs(SOMA30)["left_hand"]
    positions, turned = pose(torch.eye(3).expand(2, 30, 3, 3), SOMA30.offsets[:1].expand(2, 3), SOMA30)
    wanted = np.tile(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), (2, 1, 1))
    result, _ = reach(turned, positions, SOMA30, limb, positions[:, limb.end], wanted)
    for joint in descendants(SOMA30, limb.end):
        np.testing.assert_allclose(result[:, joint], wanted, atol=1e-12)


def test_aim_turns_the_shortest_way():
    direction, target = np.tile([0.0, 0, 1], (80, 1)), np.tile([0.0, 1, 1], (80, 1))
    result = aim(TURNED, SMPLX22, SMPLX22.index("left_ankle"), direction, target)
    turn = result[:, 7] @ TURNED[:, 7].swapaxes(-1, -2)
    np.testing.assert_allclose((turn @ [0, 0, 1]), np.tile([0, 0.5**0.5, 0.5**0.5], (80, 1)), atol=1e-9)
    np.testing.assert_allclose(turn[:, 0], np.tile([1.0, 0, 0], (80, 1)), atol=1e-9)


def test_every_human_skeleton_has_four_limbs_and_a_robot_none():
    for skeleton in (SMPLX22, SOMA30, BANDAI22):
        assert set(limbs(skeleton)) == {"left_hand", "right_hand", "left_foot", "right_foot"}
    with pytest.raises(ValueError, match="g1_34.*does not hang on two bones"):
        limbs(G1_34)
