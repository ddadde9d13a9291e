"""Constraints claim the right channels with the right values, mix, report what contradicts, and refuse what cannot be."""

import math

import pytest
import torch
from moving import standing, swaying

from kinelib.bodies.features import FeatureLayout, encode, heading
from kinelib.bodies.rotations import about_y
from kinelib.bodies.skeletons import G1_34, SMPLX22
from kinelib.kimodo.conditions import compile_constraints
from kinelib.kimodo.constraint_makers import (
    continue_from,
    end_effectors,
    in_between,
    keyframes,
    path_through,
    translated,
    within,
)
from kinelib.kimodo.constraints import (
    ConstraintError,
    Contacts,
    EndEffector,
    FromClip,
    FullBody,
    Heading,
    RootPath,
    RootWaypoints,
)

LAYOUT = FeatureLayout(SMPLX22)
MOTION = swaying(50)
FEATURES = encode(MOTION)
PATH = FEATURES[:, [0, 2]]
HEADING = heading(MOTION.positions(), SMPLX22)
BLOCKS = LAYOUT.blocks


def compiled(*constraints, frames=50):
    return compile_constraints(constraints, LAYOUT, frames, 20.0)


def given(conditions, frame):
    """Which blocks are given at a frame, and how many channels of each."""
    counts = {name: int(conditions.mask[frame, channels].sum()) for name, channels in BLOCKS.items()}
    return {name: count for name, count in counts.items() if count}


EVERY = {
    "keyframe": (keyframes(MOTION, (20,)), {"root": 3, "heading": 2, "positions": 66}),
    "keyframe with rotations": (
        keyframes(MOTION, (20,), rotations=True),
        {"root": 3, "heading": 2, "positions": 66, "rotations": 132},
    ),
    "hands": (end_effectors(MOTION, (20,)), {"root": 3, "heading": 2, "positions": 6, "rotations": 12}),
    "feet": (
        end_effectors(MOTION, (20,), ("left_foot", "right_foot")),
        {"root": 3, "heading": 2, "positions": 12, "rotations": 12},
    ),
    "hands about a free root": (
        end_effectors(MOTION, (20,), rooted=False, space="root", rotations=False),
        {"positions": 6},
    ),
    "waypoint": (RootWaypoints((20,), PATH[[20]]), {"root": 2}),
    "waypoint with heading": (RootWaypoints((20,), PATH[[20]], HEADING[[20]]), {"root": 2, "heading": 2}),
    "path": (RootPath(10, PATH[10:40]), {"root": 2}),
    "heading": (Heading((20,), HEADING[[20]]), {"heading": 2}),
    "contacts": (Contacts((20,), FEATURES[[20], -4:] > 0.5), {"contacts": 4}),
    "clip": (FromClip(MOTION, 18, 18, 24), {name: slice_.stop - slice_.start for name, slice_ in BLOCKS.items()}),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_motion_is_its_own_target(name):
    constraint, blocks = EVERY[name]
    conditions = compiled(constraint)
    assert given(conditions, 20) == blocks
    assert not conditions.conflicts and not conditions.floating.any()
    assert ((conditions.target - FEATURES) * conditions.mask).abs().max() < 1e-5
    assert (conditions.target * ~conditions.mask).abs().max() == 0
    constrained = conditions.mask.any(1).nonzero().flatten().tolist()
    assert constrained == sorted(constraint.frames)


def test_the_velocity_after_a_clips_last_frame_is_not_known():
    whole = compiled(FromClip(MOTION))
    assert given(whole, 48)["velocities"] == 66 and "velocities" not in given(whole, 49)
    assert given(compiled(continue_from(MOTION, overlap=5, tail=1)), 4)["velocities"] == 66


def test_a_hand_over_a_free_root_floats_until_a_root_is_known():
    hand = end_effectors(MOTION, (20,), ("left_hand",), rooted=False, rotations=False)
    conditions = compiled(hand)
    assert given(conditions, 20) == {"positions": 1}, "its height"
    assert int(conditions.floating.sum()) == 2
    target, mask = conditions.anchored(FEATURES.expand(3, -1, -1))
    assert mask.shape == (3, 50, LAYOUT.size) and int(mask[0].sum()) == 3
    assert ((target - FEATURES) * mask).abs().max() < 1e-5
    shifted = FEATURES.clone()
    shifted[:, 0] += 1
    moved, _ = conditions.anchored(shifted)
    assert float((moved - target[0])[20, LAYOUT.joint("positions", "left_wrist")][0]) == pytest.approx(-1)


def test_a_hand_and_a_path_combine_in_any_order():
    hand, path = end_effectors(MOTION, (20,), rooted=False), RootPath(0, PATH)
    for order in ((hand, path), (path, hand)):
        conditions = compiled(*order)
        assert not conditions.floating.any() and not conditions.conflicts
        assert ((conditions.target - FEATURES) * conditions.mask).abs().max() < 1e-5


def test_the_earlier_constraint_counts_and_the_conflict_is_reported():
    elsewhere = RootWaypoints((20,), PATH[[20]] + torch.tensor([[0.3, 0.4]]))
    for order, root in (((keyframes(MOTION, (20,)), elsewhere), 0.0), ((elsewhere, keyframes(MOTION, (20,))), 0.5)):
        conditions = compiled(*order)
        (conflict,) = conditions.conflicts
        assert (conflict.frame, conflict.field, conflict.first, conflict.second) == (20, "root", 0, 1)
        assert conflict.amount == pytest.approx(0.5, abs=1e-5)
        assert "frame 20" in conditions.report and "0.5 m" in conditions.report
        apart = (conditions.target[20, [0, 2]] - PATH[20]).norm()
        assert float(apart) == pytest.approx(root, abs=1e-5)
        # Joints stay where the keyframe has them in the world, against whichever root counts.
        joints = conditions.target[20, BLOCKS["positions"]].reshape(22, 3) + conditions.target[20, :3] * torch.tensor(
            [1, 0, 1]
        )
        torch.testing.assert_close(joints, MOTION.positions()[20], atol=1e-5, rtol=0)


def test_conflicts_of_every_kind_have_their_unit():
    turned = EndEffector((20,), ("head",), rotations=about_y(torch.tensor([[0.0]])))
    other = EndEffector((20,), ("head",), rotations=about_y(torch.tensor([[math.radians(30)]])))
    cases = [
        ((Heading((20,), torch.tensor([3.1])), Heading((20,), torch.tensor([-3.1]))), "heading", 4.77, "degrees"),
        ((turned, other), "rotation of head", 30.0, "degrees"),
        (
            (Contacts((20,), torch.ones(1, 4) > 0), Contacts((20,), torch.zeros(1, 1) > 0, ("left_toe",))),
            "contact of left_toe",
            1.0,
            "",
        ),
        (
            (
                FromClip(standing(50), blocks=("velocities",)),
                FromClip(standing(50, (1.0, 0.0)), 20, 20, 21, ("velocities",)),
            ),
            "velocity of pelvis",
            1.0,
            "m/s",
        ),  # fmt: skip
    ]
    for constraints, field, amount, unit in cases:
        conflict = compiled(*constraints).conflicts[0]
        assert (conflict.field, conflict.unit) == (field, unit) and conflict.amount == pytest.approx(amount, abs=0.02)


def test_a_root_faster_than_people_is_reported():
    (conflict,) = compiled(RootWaypoints((10, 20), torch.tensor([[0.0, 0.0], [10.0, 0.0]]))).conflicts
    assert conflict.field == "root speed" and conflict.amount == pytest.approx(20) and "further apart" in str(conflict)
    assert not compiled(RootWaypoints((0, 40), torch.tensor([[0.0, 0.0], [10.0, 0.0]]))).conflicts


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        (lambda: RootWaypoints((-1,), torch.zeros(1, 2)), "frames", "negative"),
        (lambda: RootWaypoints((3, 3), torch.zeros(2, 2)), "frames", "listed twice"),
        (lambda: RootWaypoints((1.5,), torch.zeros(1, 2)), "frames", "no frame number"),
        (lambda: RootWaypoints((), torch.zeros(0, 2)), "frames", "no frames"),
        (lambda: RootWaypoints((1,), torch.zeros(1, 3)), "xz", r"shape \(1, 2\); got \(1, 3\)"),
        (lambda: RootWaypoints((1, 2), torch.tensor([[0.0, 0], [math.nan, 0]])), "xz", "NaN or infinity at frame 2"),
        (lambda: RootWaypoints((1,), [[0.0, 0.0]]), "xz", "must be a tensor"),
        (lambda: FullBody((1,), torch.zeros(1, 22, 3), pin_rotations=True), "pin_rotations", "no rotations"),
        (lambda: FullBody((1,), torch.zeros(1, 22, 3), None, torch.ones(1, 22, 3, 3)), "rotations", "no rotations"),
        (lambda: EndEffector((1,), ("head",)), "positions", "nothing is asked"),
        (lambda: EndEffector((1,), ("head", "head"), torch.zeros(1, 2, 3)), "joints", "different names"),
        (lambda: EndEffector((1,), ("head",), torch.zeros(1, 1, 3), space="moon"), "space", "no space"),
        (lambda: Contacts((1,), torch.ones(1, 1), ("nose",)), "parts", "no part 'nose'"),
        (lambda: FromClip(MOTION, 0, 40, 60), "start", "not in a clip of 50"),
        (lambda: FromClip(MOTION, blocks=("root", "hair")), "blocks", "no block 'hair'"),
        (lambda: keyframes(MOTION, (70,)), "frames", "not in a clip of 50"),
        (lambda: path_through(RootWaypoints((1,), torch.zeros(1, 2))), "frames", "two waypoints"),
        (lambda: in_between(MOTION, MOTION, 60), "frames", "50 \\+ 50"),
    ],
)
def test_what_cannot_be_is_refused_by_field_with_a_remedy(make, field, words):
    with pytest.raises(ConstraintError, match=words) as caught:
        make()
    assert caught.value.field == field and len(caught.value.remedy) > 5


@pytest.mark.parametrize(
    ("constraint", "field", "words"),
    [
        (RootWaypoints((50,), torch.zeros(1, 2)), "frames", "frames are 0 to 49.*at least 51 frames"),
        (RootPath(40, torch.zeros(20, 2)), "start", "frame 59"),
        (EndEffector((1,), ("tail",), torch.zeros(1, 1, 3)), "joints", "no joint 'tail'.*pelvis"),
        (FullBody((1,), torch.zeros(1, 30, 3)), "positions", "has 30 joints; smplx22 has 22"),
        (FromClip(MOTION.resampled(10.0), 0, 0, 10), "motion", r"resampled\(20\)"),
    ],
)
def test_what_does_not_fit_the_motion_names_its_number(constraint, field, words):
    with pytest.raises(ConstraintError, match=words) as caught:
        compiled(Heading((1,), torch.zeros(1)), constraint)
    assert caught.value.index == 1 and caught.value.field == field
    assert str(caught.value).startswith(f"constraint 1 ({type(constraint).__name__}), field {field}")


def test_a_robot_has_constraints_too():
    layout = FeatureLayout(G1_34)
    conditions = compile_constraints([FullBody((0,), G1_34.rest()[None])], layout, 5)
    assert int(conditions.mask.sum()) == 5 + 3 * 34


@pytest.mark.parametrize("name", EVERY)
def test_moving_in_time_and_space_moves_the_target(name):
    constraint = EVERY[name][0]
    moved = compiled(translated(constraint, (1.0, -2.0)))
    expected = compiled(constraint)
    assert torch.equal(moved.mask, expected.mask)
    change = moved.target - expected.target
    assert change[:, 1].abs().max() < 1e-6 and change[:, 3:].abs().max() < 1e-5
    torch.testing.assert_close(change[:, 0], 1.0 * expected.mask[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(change[:, 2], -2.0 * expected.mask[:, 2], atol=1e-5, rtol=0)
    cut = within(constraint, 15, 30)
    later = compiled(cut, frames=15)
    assert torch.equal(later.mask, expected.mask[15:30])
    torch.testing.assert_close(later.target, expected.target[15:30], atol=1e-6, rtol=0)
    assert within(constraint, 45, 50) is None


def test_paths_go_through_their_waypoints_and_face_along():
    waypoints = RootWaypoints((30, 0, 10), torch.tensor([[3.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), torch.tensor([0.2, 0.0, 0.1]))
    path = path_through(waypoints, facing="along")
    assert path.frames == tuple(range(31))
    torch.testing.assert_close(path.xz[[30, 0, 10]], waypoints.xz)
    torch.testing.assert_close(path.xz[:, 0], torch.linspace(0, 3, 31), atol=1e-5, rtol=0)
    torch.testing.assert_close(path.heading, torch.full((31,), math.pi / 2))
    assert float(path_through(waypoints, facing="given").heading[20]) == pytest.approx(0.15)


def test_in_between_pins_both_ends():
    before, after = MOTION.slice(0, 5), MOTION.slice(40, 50)
    conditions = compiled(*in_between(before, after, 50))
    assert conditions.mask.any(1).nonzero().flatten().tolist() == [*range(5), *range(40, 50)]
