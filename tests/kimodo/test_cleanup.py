"""Clean-up meets every kind of constraint within a centimetre, without worse skating and without jumps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import as_generated, smooth_noise, standing, swaying

from kinelib.bodies import features
from kinelib.bodies.features import encode, heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.skeletons import G1_34, SMPLX22
from kinelib.kimodo.cleanup import Cleaning, clean
from kinelib.kimodo.constraint_makers import end_effectors, keyframes
from kinelib.kimodo.constraints import Contacts, EndEffector, FromClip, Heading, RootPath, RootWaypoints
from kinelib.kimodo.goals import gather, rotations_to
from kinelib.kimodo.metrics import jerk
from kinelib.notation import ShapeError

CLIP = procedural_clips(1, 3, contents=["walk"], seconds=(3.0, 3.0))[0].motion
ROUGH = as_generated(CLIP)
PATH = encode(CLIP)[:, [0, 2]]
TRUE_CONTACTS = features.contacts(CLIP.positions()[None], 20.0, SMPLX22)[0]
FLAT = torch.tensor([1.0, 0.0, 1.0])
FACING = heading(CLIP.positions(), SMPLX22)
AT = (8, 25, 50)
EVERY = {
    "keyframes": [keyframes(CLIP, AT)],
    "keyframes of positions": [replace(keyframes(CLIP, AT), rotations=None)],
    "hands and feet": [end_effectors(CLIP, AT, ("left_hand", "right_foot"))],
    "hands about a free root": [end_effectors(CLIP, AT, rooted=False)],
    "hands against the root": [end_effectors(CLIP, AT, rooted=False, space="root", rotations=False)],
    "waypoints and headings": [RootWaypoints(AT, PATH[list(AT)], FACING[list(AT)]), Heading((40,), FACING[[40]])],
    "path": [RootPath(0, PATH)],
    "clip": [FromClip(CLIP, 0, 0, 6), FromClip(CLIP, 50, 50)],
    "mixed": [keyframes(CLIP, (10,)), RootPath(20, PATH[20:]), end_effectors(CLIP, (30,), ("left_hand",))],
}


@pytest.mark.parametrize("name", EVERY)
def test_constraints_are_met(name):
    cleaned = clean(ROUGH, EVERY[name])
    before, after, worst = cleaned.before.means(), cleaned.after.means(), cleaned.after.worst()
    missed = [field for field in ("keyframe", "effector", "root") if before[field] > 0.01]
    assert missed, "there is something to correct"
    for field in missed:
        assert after[field] < 0.005 and worst[field] < 0.02, field
    for field in ("effector_rotation", "heading"):
        assert not after[field] > 0.5, field
    assert cleaned.skate[1] <= cleaned.skate[0]
    assert jerk(cleaned.motion.positions(), 20.0).mean() < 2 * jerk(ROUGH.positions(), 20.0).mean()


def test_without_constraints_the_upper_body_goes_along_with_the_root_and_nothing_else():
    cleaned = clean(ROUGH)
    assert cleaned.skate[1] < 0.02 < cleaned.skate[0] and cleaned.depth[1] <= cleaned.depth[0]
    upper = SMPLX22.indices(("left_wrist", "right_wrist", "head"))
    moved = cleaned.motion.positions() - ROUGH.positions()
    assert (moved[:, upper] - moved[:, :1]).abs().max() < 1e-4
    assert moved[:, 0, 1].abs().max() <= 0.0501, "the pelvis may come down"
    assert moved[:, 0].norm(dim=-1).max() < 0.15
    untouched = clean(ROUGH, how=Cleaning(lock=False))
    assert untouched.moved < 1e-5


def sped_up(motion, factor):
    """The motion with its root faster than its legs walk."""
    path = motion.root * torch.tensor([factor, 1.0, factor]) - motion.root[:1] * torch.tensor([factor - 1, 0, factor - 1])
    return replace(motion, root=path, contacts=TRUE_CONTACTS)


def shaken(motion, metres):
    """The motion with a root that wanders about its path."""
    return replace(motion, root=motion.root + smooth_noise((len(motion), 3), metres, 5) * FLAT, contacts=TRUE_CONTACTS)


@pytest.mark.parametrize("sliding", [sped_up(CLIP, 1.2), shaken(CLIP, 0.02)], ids=["20 % too fast", "2 cm of noise"])
def test_a_sliding_walk_stands_where_it_stands(sliding):
    cleaned = clean(sliding)
    true = cleaned.motion.positions()[:, SMPLX22.contact_joints].diff(dim=0).norm(dim=-1) * 20
    kept = (cleaned.motion.contacts > 0.5) & (TRUE_CONTACTS > 0.5)
    assert cleaned.skate[0] > 0.05 and cleaned.skate[1] <= 0.02
    assert kept.sum() > 0.9 * (TRUE_CONTACTS > 0.5).sum(), "feet are kept, not just declared to swing"
    assert true[TRUE_CONTACTS[:-1] > 0.5].mean() < 0.3 * cleaned.skate[0]
    assert (cleaned.motion.root - CLIP.root).norm(dim=-1).mean() < (sliding.root - CLIP.root).norm(dim=-1).mean()
    assert jerk(cleaned.motion.positions(), 20.0).mean() < 1.3 * jerk(sliding.positions(), 20.0).mean()


def test_a_clean_walk_stays_within_a_centimetre():
    cleaned = clean(replace(CLIP, contacts=TRUE_CONTACTS))
    assert (cleaned.motion.positions() - CLIP.positions()).norm(dim=-1).mean() < 0.01
    assert cleaned.skate[1] <= cleaned.skate[0]


def test_a_burst_of_the_root_is_taken_out_and_waypoints_are_met():
    burst = CLIP.root.clone()
    burst[40:, 0] += torch.linspace(0, 1, len(CLIP) - 40).clamp(max=0.2) * 4
    wild = replace(CLIP, root=burst, contacts=TRUE_CONTACTS)
    cleaned = clean(wild, [RootWaypoints(AT, PATH[list(AT)])])
    step = lambda motion: float(motion.root[:, [0, 2]].diff(dim=0).norm(dim=-1).max() * 20)
    assert step(wild) > 2.5 and step(cleaned.motion) < 2.0
    assert cleaned.after.means()["root"] < 0.005 and cleaned.skate[1] < 0.02 < cleaned.skate[0]


def test_what_cannot_stand_is_no_contact():
    flying = replace(standing(40, (2.0, 0.0)), contacts=torch.ones(40, 4))
    path = RootPath(0, encode(flying)[:, [0, 2]])
    cleaned = clean(flying, [path])
    assert not cleaned.motion.contacts.any() and np.isnan(cleaned.skate[1])
    asked = clean(flying, [path, Contacts(tuple(range(40)), torch.ones(40, 4) > 0)])
    assert asked.after.means()["contact"] > 0.5, "a contact that is asked but cannot be is an error, not a claim"


def test_a_clean_motion_stays():
    cleaned = clean(standing(40), [keyframes(standing(40), (5,)), RootPath(0, torch.zeros(40, 2))])
    assert cleaned.moved < 1e-3
    assert cleaned.motion.provenance["cleaned"] and len(cleaned.motion) == 40


def test_a_margin_leaves_the_root_within_it():
    target = [RootWaypoints((30,), PATH[[30]] + 0.2)]
    near = clean(ROUGH, target, Cleaning(margin=0.04))
    assert float(near.after.root) == pytest.approx(0.04, abs=0.01) and float(clean(ROUGH, target).after.root) < 0.005


def test_bones_keep_their_length_and_turns_stay_rotations():
    positions = clean(ROUGH, EVERY["mixed"]).motion.positions()
    for parent, joint in SMPLX22.bones():
        length = (positions[:, joint] - positions[:, parent]).norm(dim=-1)
        assert (length - SMPLX22.offsets[joint].norm()).abs().max() < 1e-4


def test_an_unreachable_hand_brings_a_free_root_nearer_but_not_a_pinned_one():
    far = torch.tensor([[[0.5, 1.2, 1.5]]])
    body = standing(60)
    hand = EndEffector((30,), ("left_wrist",), far)
    free = clean(body, [hand], Cleaning(lock=False))
    assert float(free.after.effector) < 0.01
    held = clean(body, [replace(hand, root=torch.tensor([[0.0, 0.94, 0.0]]))], Cleaning(lock=False))
    assert float(held.after.root) < 0.005 and 0.3 < float(held.after.effector) < float(held.before.effector)


def test_the_spine_leans_for_a_hand_that_is_almost_in_reach():
    body = standing(60)
    wrist = body.positions()[30, SMPLX22.index("left_wrist")]
    hand = EndEffector(
        (30,), ("left_wrist",), (wrist + torch.tensor([0.03, 0.0, 0.05]))[None, None], root=torch.tensor([[0, 0.94, 0]])
    )
    cleaned = clean(body, [hand], Cleaning(lock=False))
    assert float(cleaned.before.effector) > 0.05 and float(cleaned.after.effector) < 0.01
    legs = SMPLX22.indices(SMPLX22.groups["left_leg"])
    assert (cleaned.motion.positions() - body.positions())[:, legs].abs().max() < 1e-5


def test_given_contacts_replace_predicted_ones():
    sliding = replace(standing(40, (0.4, 0.0)), contacts=torch.zeros(40, 4))
    free, held = clean(sliding), clean(sliding, [Contacts(tuple(range(40)), torch.ones(40, 4) > 0)])
    feet = SMPLX22.contact_joints
    drift = lambda cleaned: float(
        (cleaned.motion.positions()[30, feet] - cleaned.motion.positions()[10, feet]).norm(dim=-1).max()
    )
    assert drift(free) > 0.35 and drift(held) < 0.01 * drift(free)
    assert held.after.means()["contact"] == 0 and held.motion.contacts.min() == 1


def test_what_is_not_corrected_is_said():
    head = EndEffector((5,), ("head",), torch.zeros(1, 1, 3))
    assert clean(standing(20), [head]).left == ("head is not corrected",)


def test_the_report_names_every_error_before_and_after():
    cleaned = clean(ROUGH, EVERY["hands and feet"])
    names = {row[0] for row in cleaned.rows()}
    assert {"effector", "effector_rotation", "root", "heading", "foot skate"} <= names and "keyframe" not in names
    assert "effector" in cleaned.report() and "->" in cleaned.report() and "cm" in cleaned.report()


def test_earlier_goals_count():
    first, second = keyframes(CLIP, (10,)), keyframes(CLIP.translated((1.0, 0.0)), (10, 20))
    goals = gather([first, second], CLIP)
    assert np.flatnonzero(goals.posed).tolist() == [10, 20]
    np.testing.assert_allclose(
        goals.pelvis[20] - goals.pelvis[10], CLIP.root[20] - CLIP.root[10] + torch.tensor([1.0, 0, 0]), atol=1e-5
    )


def test_rotations_are_found_for_positions():
    body = swaying(12, degrees=20)
    rough = as_generated(body, degrees=8.0)
    found = rotations_to(body.positions(), rough.global_rotations(), SMPLX22)
    turns = torch.linalg.det(found)
    assert (turns - 1).abs().max() < 1e-6
    from kinelib.bodies.kinematics import positions_from_global

    reached = positions_from_global(found, body.root.double(), SMPLX22)
    assert (reached - body.positions()).norm(dim=-1).max() < 1e-5


def test_bad_input_is_refused():
    with pytest.raises(ShapeError, match="frame 90 of a motion of 60"):
        clean(ROUGH, [RootWaypoints((90,), torch.zeros(1, 2))])
    robot = Motion(torch.eye(3).expand(5, 34, 3, 3), torch.zeros(5, 3), 20.0, G1_34)
    with pytest.raises(ValueError, match="two-bone"):
        clean(robot)


def test_contacts_are_read_off_a_motion_that_has_none():
    bare = replace(ROUGH, contacts=None)
    given = replace(ROUGH, contacts=features.contacts(ROUGH.positions()[None], 20.0, SMPLX22)[0])
    assert torch.equal(clean(bare).motion.root, clean(given).motion.root)
