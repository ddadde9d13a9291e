"""Feet that stand stay where they stand; feet that do not are left to their motion."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import standing

from kinelib.bodies.rotations import from_axis_angle
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kimodo.foot_lock import FootLocking, lock_feet, planted, runs, stances, steady_root
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
    turned, root, _ = lock_feet(turned, root, SMPLX22, contacts, **options)
    return place(turned, root, SMPLX22)


def slide(positions, joints, frames=slice(None)):
    return np.linalg.norm(np.diff(positions[frames][:, joints], axis=0), axis=-1).max() * 20


def test_sliding_feet_stand_still():
    motion = crouched(drift=(0.06, 0.0))
    before, after = motion.positions().numpy(), locked(motion, np.ones((60, 4), bool))
    assert slide(before, FEET) == pytest.approx(0.06, rel=1e-3)
    assert slide(after, FEET) < 1e-3
    # Its place is the mean of where it slid: the ends of the stance are corrected by half of the way.
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


def planted_in(motion_or_points, contacts):
    points = motion_or_points if isinstance(motion_or_points, np.ndarray) else motion_or_points.positions().numpy()
    return planted(contacts, points, 20.0, SMPLX22, FootLocking())


def test_a_foot_that_runs_or_flies_is_no_stance():
    everything = np.ones((40, 4), bool)
    still = standing(40).positions().numpy()
    assert not planted_in(standing(40, (2.0, 0.0)), everything).any()
    assert not planted_in(still + [0, 0.4, 0], everything).any()
    rising = still + np.linspace(0, 1.2, 40)[:, None, None] * [0, 1, 0]
    assert not planted_in(rising, everything).any()
    assert planted_in(standing(40, (0.5, 0.0)), everything).all(), "sliding, but said to stand"


def test_flicker_of_contacts_is_repaired():
    slides = standing(30, (0.4, 0.0)).positions().numpy()
    contacts = np.ones((30, 4), bool)
    contacts[10:12] = False
    contacts[:, 3] = np.arange(30) == 15
    kept = planted_in(slides, contacts)
    assert kept[:, :3].all() and not kept[:, 3].any()


def test_a_gap_after_which_the_foot_is_elsewhere_stays_a_gap():
    points = standing(30).positions().numpy()
    points[15:, :, 0] += 0.3
    assert not planted_in(points, np.ones((30, 4), bool))[14].any()


def test_contacts_grow_to_where_the_foot_is_still_slow_and_low():
    slow = standing(30, (0.2, 0.0))
    contacts = np.zeros((30, 4), bool)
    assert not planted_in(slow, contacts).any(), "nothing to grow from"
    contacts[12:16, :2] = True
    kept = planted_in(slow, contacts)
    assert kept[:, :2].all() and not kept[:, 2:].any()


def test_places_of_stances():
    places = np.zeros((20, 2, 3))
    places[:, 1, 2] = 0.15
    places[..., 0] += np.arange(20)[:, None] * 0.01
    flags = lambda *at: np.isin(np.arange(20), at)
    assert runs(flags(0, 1, 5, 6, 7, 19)) == [(0, 2), (5, 8), (19, 20)]
    heel, toe = flags(*range(4, 12)), flags(*range(8, 16))
    (stance,) = stances(heel, toe, places)
    assert (stance.start, stance.stop) == (4, 17), "the place is kept a frame longer than the contact"
    np.testing.assert_allclose(stance.ankle, np.tile([0.095, 0, 0], (13, 1)), atol=1e-12)
    np.testing.assert_allclose(stance.toe - stance.ankle, np.tile([0, 0, 0.15], (13, 1)), atol=1e-12)
    (beside,) = stances(heel, toe, places, flags(17))
    np.testing.assert_allclose(beside.ankle[:, 0], 0.17, atol=1e-12)
    (between,) = stances(heel, toe, places, flags(6, 14))
    np.testing.assert_allclose(between.ankle[[0, 2, 6, 10, 12], 0], [0.06, 0.06, 0.10, 0.14, 0.14], atol=1e-12)
    assert stances(flags(), flags(), places) == []


def test_what_is_too_far_from_its_place_is_let_go():
    motion = crouched(60, (0.4, 0.0))
    turned = pose(motion.rotations, motion.root, SMPLX22)[1]
    turned, root, kept = lock_feet(turned, motion.root.double().numpy(), SMPLX22, np.ones((60, 4), bool))
    after = place(turned, root, SMPLX22)[:, FEET]
    assert 8 < kept[:, 0].sum() < 40
    assert np.linalg.norm(np.diff(after, axis=0), axis=-1)[kept[:-1]].max() * 20 < 1e-3


def steadied(motion, contacts):
    turned = pose(motion.rotations, motion.root, SMPLX22)[1]
    return steady_root(turned, motion.root.double().numpy(), SMPLX22, contacts, motion.fps)


def test_a_root_that_carries_standing_feet_along_is_slowed():
    drifting = standing(60, (0.4, 0.0))
    root, stands, weights = steadied(drifting, np.ones((60, 4), bool))
    assert stands.all() and weights.shape == (59,) and (weights > 0.5).all()
    travel = root[50] - root[10]
    assert 0 < travel[0] < 0.45 * 0.4 * 2 and np.abs(root[:, 1] - drifting.root.numpy()[:, 1]).max() < 1e-6
    free, none, _ = steadied(standing(60, (1.0, 0.0)), np.zeros((60, 4), bool))
    np.testing.assert_allclose(free, standing(60, (1.0, 0.0)).root, atol=1e-6)
    assert not none.any()


def test_a_burst_of_the_root_is_cut_and_a_steady_start_is_not():
    motion = standing(60, (1.0, 0.0))
    jump = motion.root.clone()
    jump[30:, 2] += 1.0
    root, _, _ = steadied(replace(motion, root=jump), np.zeros((60, 4), bool))
    assert np.abs(np.diff(root[:, 2])).max() * 20 <= 1.0 + 1e-6
    start = motion.root.clone()
    start[:, 0] = torch.linspace(0.5, 3, 60) ** 2 / 2
    root, _, _ = steadied(replace(motion, root=start), np.zeros((60, 4), bool))
    np.testing.assert_allclose(root, start, atol=1e-5)


def test_one_frame_is_left_alone():
    motion = standing(1)
    root, stands, weights = steadied(motion, np.ones((1, 4), bool))
    np.testing.assert_array_equal(root, motion.root.double().numpy())
    assert stands.all() and weights.shape == (0,)


def test_wrong_contacts_are_refused():
    with pytest.raises(ShapeError, match="contacts must be"):
        locked(crouched(10), np.ones((10, 4)))
