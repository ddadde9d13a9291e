"""Feet that stand stay where they stand; feet that do not are left to their motion."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import standing

from kinelib.bodies.rotations import from_axis_angle
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kimodo.foot_lock import FootLocking, Stance, believed, lock_feet, runs, stances
from kinelib.kimodo.limbs import place, pose
from kinelib.notation import ShapeError

FEET = SMPLX22.contact_joints


def crouched(frames=60, drift=(0.06, 0.0)):
    """A body with bent knees, so that legs have room to stretch, whose feet slide with it."""
    motion = standing(frames, drift)
    turns = motion.rotations.clone()
    for side in ("left", "right"):
        for joint, angle in (("hip", -0.5), ("knee", 1.0), ("ankle", -0.5)):
            turns[:, SMPLX22.index(f"{side}_{joint}")] = from_axis_angle(torch.tensor([angle, 0.0, 0.0]))
    lowest = replace(motion, rotations=turns).positions()[0, FEET[1], 1] - SMPLX22.rest()[FEET[1], 1]
    return replace(motion, rotations=turns, root=motion.root - torch.tensor([0.0, float(lowest), 0.0]))


def locked(motion, contacts, **options):
    root = motion.root.double().numpy()
    turned = pose(motion.rotations, motion.root, SMPLX22)[1]
    turned, root = lock_feet(turned, root, SMPLX22, contacts, motion.fps, **options)
    return place(turned, root, SMPLX22)


def slide(positions, joints, frames=slice(None)):
    return np.linalg.norm(np.diff(positions[frames][:, joints], axis=0), axis=-1).max() * 20


def test_sliding_feet_stand_still():
    motion = crouched(drift=(0.06, 0.0))
    before, after = motion.positions().numpy(), locked(motion, np.ones((60, 4), bool))
    assert slide(before, FEET) == pytest.approx(0.06, rel=1e-3)
    assert slide(after, FEET) < 1e-3
    # Anchored in the middle, the ends of the stance are corrected by half of the way slid.
    assert np.abs(after - before)[:, FEET].max() == pytest.approx(0.06 * 1.5, rel=0.05)
    np.testing.assert_allclose(after[:, 0, [0, 2]], before[:, 0, [0, 2]], atol=1e-6)


def test_a_foot_without_contact_is_not_held():
    motion = crouched()
    contacts = np.ones((60, 4), bool)
    contacts[:, :2] = False
    before, after = motion.positions().numpy(), locked(motion, contacts)
    assert slide(after, FEET[2:]) < 1e-3
    np.testing.assert_allclose(after[:, FEET[:2]] - before[:, FEET[:2]], 0, atol=1e-5)


def test_a_stance_ends_without_a_jump():
    motion = crouched(100)
    contacts = np.ones((100, 4), bool)
    contacts[40:] = False
    after = locked(motion, contacts)
    assert slide(after, FEET, slice(0, 40)) < 1e-3
    assert slide(after, FEET) < 0.2, "the correction dies away over many frames"


def test_a_heel_that_rises_turns_about_a_toe_that_stays():
    motion = crouched(40, (0.05, 0.0))
    turns = motion.rotations.clone()
    rise = torch.linspace(0, 0.6, 20)
    for joint in ("left_ankle", "right_ankle"):
        turns[20:, SMPLX22.index(joint)] = (
            from_axis_angle(torch.stack([rise, 0 * rise, 0 * rise], -1)) @ turns[0, SMPLX22.index(joint)]
        )
    contacts = np.ones((40, 4), bool)
    contacts[20:, [0, 2]] = False
    after = locked(replace(motion, rotations=turns), contacts)
    assert slide(after, FEET[1::2]) < 5e-3
    assert (after[-1, FEET[0::2], 1] > after[0, FEET[0::2], 1] + 0.02).all()


def test_a_constrained_frame_is_the_anchor_and_does_not_move():
    motion = crouched()
    held = np.zeros((60, 2), bool)
    held[50] = True
    before, after = motion.positions().numpy(), locked(motion, np.ones((60, 4), bool), held=held)
    np.testing.assert_allclose(after[50], before[50], atol=1e-6)
    assert slide(after, FEET) < 1e-3


def test_a_foot_in_the_floor_comes_out_of_it():
    motion = crouched(40, (0.0, 0.0))
    motion = replace(motion, root=motion.root - torch.tensor([0.0, 0.03, 0.0]))
    after = locked(motion, np.ones((40, 4), bool))
    np.testing.assert_allclose(after[:, FEET[1::2], 1], SMPLX22.rest()[FEET[1::2], 1].expand(40, 2), atol=2e-3)
    swinging = locked(motion, np.zeros((40, 4), bool))
    np.testing.assert_allclose(swinging, motion.positions().numpy(), atol=1e-5)


def test_a_foot_that_runs_or_flies_is_no_stance():
    fast = standing(40, (2.0, 0.0)).positions().numpy()
    assert not believed(np.ones((40, 4), bool), fast, 20.0, SMPLX22, FootLocking()).any()
    high = standing(40).positions().numpy() + [0, 0.4, 0]
    assert not believed(np.ones((40, 4), bool), high, 20.0, SMPLX22, FootLocking()).any()


def test_flicker_of_contacts_is_repaired():
    still = standing(30).positions().numpy()
    contacts = np.ones((30, 4), bool)
    contacts[10] = False
    contacts[:, 3] = np.arange(30) == 15
    kept = believed(contacts, still, 20.0, SMPLX22, FootLocking())
    assert kept[:, :3].all() and not kept[:, 3].any()


def test_anchors():
    flags = lambda *at: np.isin(np.arange(20), at)
    assert runs(flags(0, 1, 5, 6, 7, 19)) == [(0, 2), (5, 8), (19, 20)]
    heel, toe = flags(*range(4, 12)), flags(*range(8, 16))
    assert stances(heel, toe) == [Stance(4, 16, 10)], "the middle of the flat part"
    assert stances(heel, toe, flags(16)) == [Stance(4, 16, 16)], "a constrained frame beside it"
    assert stances(flags(), flags()) == []


def test_wrong_contacts_are_refused():
    with pytest.raises(ShapeError, match="contacts must be"):
        locked(crouched(10), np.ones((10, 4)))
