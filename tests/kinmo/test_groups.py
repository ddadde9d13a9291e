"""Equations 1 to 3 on every body: means are means, pairs have one order, and what is seen from the body stays so."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.rotations import about_y, from_axis_angle
from kinelib.bodies.skeleton import GROUPS, Skeleton
from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30
from kinelib.kinmo.groups import (
    PAIR_KEYS,
    PAIRS,
    connecting_joints,
    differences,
    group_features,
    group_means,
    interactions,
    joint_features,
    pair_key,
)
from kinelib.notation import ShapeError

BODIES = pytest.mark.parametrize("skeleton", [SMPLX22, SOMA30, G1_34, BANDAI22], ids=lambda body: body.name)


def moving(skeleton: Skeleton, frames: int = 12, seed: int = 0) -> Motion:
    """A body whose joints turn and whose root wanders, in float64."""
    draw = torch.Generator().manual_seed(seed)
    angles = 0.3 * torch.randn(frames, len(skeleton), 3, generator=draw, dtype=torch.float64)
    root = torch.randn(frames, 3, generator=draw, dtype=torch.float64)
    return Motion(from_axis_angle(angles), root, 20.0, skeleton)


@pytest.fixture(scope="module")
def walk() -> Motion:
    return procedural_clips(1, 0, contents=["walk"], styles=["normal"])[0].motion


def test_fifteen_pairs_stand_in_one_order():
    assert len(PAIRS) == len(set(map(frozenset, PAIRS))) == 15
    assert tuple(combinations(GROUPS, 2)) == PAIRS
    assert PAIR_KEYS[:2] == ("torso|neck", "torso|left_arm") and PAIR_KEYS[-1] == "left_leg|right_leg"
    assert all(pair_key(g, h) == pair_key(h, g) for g, h in PAIRS)


@pytest.mark.parametrize(("pair", "message"), [(("torso", "head"), "'head'"), (("neck", "neck"), "twice")])
def test_a_pair_is_of_two_groups(pair, message):
    with pytest.raises(ValueError, match=message):
        pair_key(*pair)


def test_five_pairs_of_a_person_are_connected():
    joints = {pair_key(*pair): SMPLX22.joints[joint] for pair, joint in connecting_joints(SMPLX22).items()}
    assert joints == {
        "torso|neck": "neck",
        "torso|left_arm": "left_collar",
        "torso|right_arm": "right_collar",
        "torso|left_leg": "left_hip",
        "torso|right_leg": "right_hip",
    }
    assert [*connecting_joints(SMPLX22).values()] == [12, 13, 14, 1, 2]


@BODIES
def test_connecting_joints_hold_the_groups_together(skeleton):
    joints = connecting_joints(skeleton)
    assert len(joints) == 5, "six connected parts of a tree hang on each other at five places"
    owner = {name: group for group, names in skeleton.groups.items() for name in names}
    for pair, joint in joints.items():
        ends = owner[skeleton.joints[joint]], owner[skeleton.joints[skeleton.parents[joint]]]
        assert set(ends) == set(pair)


def test_the_robots_arms_hang_on_what_stands_for_its_neck():
    assert {pair_key(*pair) for pair in connecting_joints(G1_34)} > {"torso|neck", "neck|left_arm", "neck|right_arm"}


@BODIES
def test_features_are_the_papers_equations(skeleton):
    joints = joint_features(moving(skeleton))
    groups, between = group_features(joints, skeleton), interactions(joints, skeleton)
    for number, group in enumerate(GROUPS):
        members = skeleton.indices(skeleton.groups[group])
        for means, values in ((groups.positions, joints.positions), (groups.velocities, joints.velocities)):
            expected = sum(values[:, joint] for joint in members) / len(members)
            torch.testing.assert_close(means[:, number], expected, rtol=0, atol=1e-12)
        assert torch.equal(groups.angles[group], joints.angles[:, members])
    for number, (g, h) in enumerate(PAIRS):
        here, there = GROUPS.index(g), GROUPS.index(h)
        assert torch.equal(between.positions[:, number], groups.positions[:, there] - groups.positions[:, here])
        assert torch.equal(between.velocities[:, number], groups.velocities[:, there] - groups.velocities[:, here])
    assert list(between.angles) == list(between.joint_velocities) == list(connecting_joints(skeleton))
    for pair, joint in connecting_joints(skeleton).items():
        assert torch.equal(between.angles[pair], joints.angles[:, joint])
        assert torch.equal(between.joint_velocities[pair], joints.velocities[:, joint])


@BODIES
def test_where_the_body_goes_and_faces_changes_nothing(skeleton):
    motion = moving(skeleton)
    turn = about_y(torch.tensor(2.1, dtype=torch.float64))
    rotations = torch.cat([turn @ motion.rotations[:, :1], motion.rotations[:, 1:]], 1)
    elsewhere = replace(motion, rotations=rotations, root=motion.root @ turn.T + torch.tensor([3.0, 0.0, -4.0]))
    joints, moved = joint_features(motion), joint_features(elsewhere)
    for name in ("positions", "angles", "velocities"):
        torch.testing.assert_close(getattr(moved, name), getattr(joints, name), rtol=0, atol=1e-10)


def test_a_known_step_forward():
    still = torch.eye(3, dtype=torch.float64).expand(3, 22, 3, 3).clone()
    east = about_y(torch.tensor(torch.pi / 2, dtype=torch.float64))  # from +z to +x
    still[:, 0] = east
    root = torch.tensor([[0.0, 0.94, 0.0], [0.1, 0.94, 0.0], [0.4, 0.94, 0.0]], dtype=torch.float64)
    motion = Motion(still, root, 10.0, SMPLX22)
    joints = joint_features(motion)
    ahead = torch.tensor([1.0, 3.0, 3.0], dtype=torch.float64)  # m/s along the body's own front; the last step is repeated
    torch.testing.assert_close(joints.velocities[..., 2], ahead[:, None].expand(3, 22))
    assert float(joints.velocities[..., :2].abs().max()) < 1e-7 and float(joints.angles.abs().max()) < 1e-6
    rest = SMPLX22.rest().double() - torch.tensor([0.0, SMPLX22.rest()[0, 1] - 0.94, 0.0], dtype=torch.float64)
    torch.testing.assert_close(joints.positions, rest.expand(3, 22, 3), rtol=0, atol=1e-6)


def test_left_is_left_in_a_mirror(walk):
    flip = walk.root.new_tensor([-1.0, 1.0, 1.0])
    groups = group_features(joint_features(walk), SMPLX22)
    mirrored = group_features(joint_features(walk.mirrored()), SMPLX22)
    partner = [0, 1, 3, 2, 5, 4]
    torch.testing.assert_close(mirrored.positions, groups.positions[:, partner] * flip, rtol=0, atol=1e-5)
    torch.testing.assert_close(mirrored.velocities, groups.velocities[:, partner] * flip, rtol=0, atol=1e-4)


def test_a_walk_goes_forward_and_its_legs_take_turns(walk):
    between = interactions(joint_features(walk), SMPLX22)
    apart = between.positions[:, PAIRS.index(("left_leg", "right_leg")), 2]
    assert float(apart.max()) > 0.1 and float(apart.min()) < -0.1
    assert float(group_features(joint_features(walk), SMPLX22).velocities[..., 2].mean()) > 0.3


def test_a_clip_of_one_frame_rests(walk):
    joints = joint_features(walk.slice(0, 1))
    assert joints.velocities.shape == (1, 22, 3) and not joints.velocities.any()


def test_gradients_pass():
    values = torch.randn(2, 22, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda points: differences(group_means(points, SMPLX22)), values)


@pytest.mark.parametrize("call", [lambda x: group_means(x, SMPLX22), differences])
def test_other_numbers_of_rows_are_refused(call):
    with pytest.raises(ShapeError, match=r"must be \(\.\.\."):
        call(torch.zeros(4, 7, 3))
    with pytest.raises(ShapeError, match=r"must be \(\.\.\."):
        call(torch.zeros(6))


def test_groups_that_leave_a_joint_out_are_refused():
    groups = SMPLX22.groups | {"neck": ("neck",)}
    with pytest.raises(ShapeError, match="every joint exactly once"):
        connecting_joints(replace(SMPLX22, groups=groups))
