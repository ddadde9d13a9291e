"""The constraint patterns pin exactly the channels they should, as often as they should, and grow as they should."""

import pytest
import torch

from kinelib.bodies.features import FeatureLayout
from kinelib.bodies.skeletons import SMPLX22, SOMA30
from kinelib.kimodo.curriculum import PATTERNS, Curriculum, draw_masks, limb_channels

LAYOUT = FeatureLayout(SMPLX22)
BLOCKS = LAYOUT.blocks
FRAMES, BATCH = 60, 400
LENGTHS = torch.arange(BATCH) % 50 + 11


def only(name, **changes):
    """A curriculum that draws one pattern for every clip."""
    shares = tuple(float(pattern == name) for pattern in PATTERNS)
    return Curriculum(shares=shares, nothing=0, mixed=0, **changes)


def draw(curriculum, cap=20, seed=0, layout=LAYOUT):
    return draw_masks(LENGTHS, FRAMES, layout, curriculum, cap, torch.Generator().manual_seed(seed))


def channels(*names):
    found = torch.zeros(LAYOUT.size, dtype=torch.bool)
    for name in names:
        found[BLOCKS[name]] = True
    return found


def frames_of(mask):
    return mask.any(2)


def rows_of(mask):
    """The different sets of channels that occur at constrained frames, each as a tuple of numbers."""
    given = mask[frames_of(mask)]
    return {tuple(row.nonzero().flatten().tolist()) for row in given.unique(dim=0)}


def numbers(*names):
    return tuple(channels(*names).nonzero().flatten().tolist())


def test_poses_pin_root_heading_and_all_positions_but_no_rotation():
    mask = draw(only("pose"))
    assert mask.dtype == torch.bool and mask.shape == (BATCH, FRAMES, 273)
    assert rows_of(mask) == {numbers("root", "heading", "positions")}
    counts = frames_of(mask).sum(1)
    assert counts.min() == 1 and (counts[LENGTHS >= 20].max() == 20)
    assert (counts <= LENGTHS).all()


def test_limbs_pin_their_joints_the_rotation_of_the_first_and_the_root():
    ends = {"left_wrist": ("left_wrist",), "right_wrist": ("right_wrist",)}
    ends |= {"left_ankle": ("left_ankle", "left_foot"), "right_ankle": ("right_ankle", "right_foot")}
    expected = set()
    for code in range(1, 16):
        row = channels("root", "heading")
        for bit, (base, joints) in enumerate(ends.items()):
            if code >> bit & 1:
                row[LAYOUT.joint("rotations", base)] = True
                for joint in joints:
                    row[LAYOUT.joint("positions", joint)] = True
        expected.add(tuple(row.nonzero().flatten().tolist()))
    mask = draw(only("limbs"))
    assert rows_of(mask) == expected
    # One clip keeps its limbs over all its keyframes.
    assert all(len(rows_of(clip[None])) == 1 for clip in mask[:40])
    free = draw(only("limbs", rootless=1.0))
    assert not free[..., :5].any() and free[..., 5:].equal(draw(only("limbs"))[..., 5:])
    half = draw(only("limbs", rootless=0.5))[..., :5].any(2).any(1).float().mean()
    assert 0.4 < half < 0.6


def test_hands_with_ends_pin_the_ends_positions_too():
    layout = FeatureLayout(SOMA30)
    left, *_ = limb_channels(layout)
    assert int(left.sum()) == 3 * 3 + 6
    assert left[layout.joint("positions", "LeftHandMiddleEnd")].all()
    assert left[layout.joint("rotations", "LeftHand")].all()
    with pytest.raises(ValueError, match="feet"):
        limb_channels(FeatureLayout(type(SMPLX22)("bare", SMPLX22.joints, SMPLX22.parents, SMPLX22.offsets)))


@pytest.mark.parametrize("name", ["waypoints", "path"])
def test_waypoints_and_paths_pin_the_floor_and_half_of_the_time_the_heading(name):
    mask = draw(only(name))
    assert rows_of(mask) == {(0, 2), (0, 2, 3, 4)}
    assert 0.4 < mask[..., 3].any(1).float().mean() < 0.6
    assert rows_of(draw(only(name, heading=0.0))) == {(0, 2)}


def test_a_path_is_one_span_of_a_fifth_to_all_of_the_clip():
    given = frames_of(draw(only("path")))
    share = given.sum(1) / LENGTHS
    assert 0.15 < share.min() < 0.3 and share.max() == 1.0
    padded = torch.nn.functional.pad(given.int(), (1, 1))
    assert ((padded[:, 1:] - padded[:, :-1]) == 1).sum(1).eq(1).all()
    # It may lie anywhere.
    assert given[:, 0].any() and given[torch.arange(BATCH), LENGTHS - 1].any()


def test_contacts_pin_either_foot_or_both():
    first = BLOCKS["contacts"].start
    assert rows_of(draw(only("contacts"))) == {(first, first + 1), (first + 2, first + 3), tuple(range(first, first + 4))}


def test_between_pins_both_ends_and_start_pins_everything():
    mask = draw(only("between"))
    assert rows_of(mask) == {numbers("root", "heading", "positions")}
    given, clip = frames_of(mask), torch.arange(BATCH)
    assert given[:, 0].all() and given[clip, LENGTHS - 1].all() and given.sum(1).max() == 10
    start = draw(only("start"))
    assert rows_of(start) == {tuple(range(273))}
    counts = frames_of(start).sum(1)
    assert set(counts.tolist()) == set(range(1, 11))
    assert torch.equal(frames_of(start), torch.arange(FRAMES) < counts[:, None])


def test_nothing_is_given_beyond_the_end_of_a_clip():
    mask = draw(Curriculum())
    assert not mask[torch.arange(FRAMES) >= LENGTHS[:, None]].any()


def test_a_tenth_has_nothing_and_a_quarter_two_patterns():
    lengths = torch.full((4000,), 20)
    curriculum = Curriculum(shares=(1, 0, 1, 0, 0, 0, 0), heading=0.0)
    mask = draw_masks(lengths, 20, LAYOUT, curriculum, 3, torch.Generator().manual_seed(1))
    pose, waypoint = mask[..., 10].any(1), (mask[..., 0] & ~mask[..., 1]).any(1)
    assert 0.085 < float((~mask.any(2).any(1)).float().mean()) < 0.115
    # Two patterns at the same frames are seen as one, which is rare.
    assert 0.18 < float((pose & waypoint).float().mean()) < 0.27
    assert abs(float(pose.float().mean()) - float(waypoint.float().mean())) < 0.09


def test_few_sparse_frames_are_likelier_than_many_and_the_cap_grows():
    curriculum = Curriculum(text_only=0.4)
    assert [curriculum.cap(progress) for progress in (0.0, 0.4, 0.7, 1.0)] == [1, 1, 10, 20]
    assert [curriculum.constrained(progress) for progress in (0.0, 0.39, 0.4, 1.0)] == [False, False, True, True]
    assert Curriculum(text_only=0.0, first_cap=20).cap(0.0) == 20 and Curriculum(text_only=1.0).cap(1.0) == 1
    assert frames_of(draw(only("pose"), cap=1)).sum(1).eq(1).all()
    lengths = torch.full((6000,), 40)
    mask = draw_masks(lengths, 40, LAYOUT, only("waypoints"), 4, torch.Generator().manual_seed(2))
    shares = torch.bincount(frames_of(mask).sum(1), minlength=5)[1:] / 6000
    expected = torch.tensor([1, 1 / 2, 1 / 3, 1 / 4]) / (1 + 1 / 2 + 1 / 3 + 1 / 4)
    assert torch.allclose(shares, expected, atol=0.025)
    # And any frame is as likely as another.
    at = frames_of(mask).float().mean(0)
    assert at.min() > 0.7 * at.mean() and at.max() < 1.3 * at.mean()


def test_the_generator_decides_everything():
    assert torch.equal(draw(Curriculum(), seed=3), draw(Curriculum(), seed=3))
    assert not torch.equal(draw(Curriculum(), seed=3), draw(Curriculum(), seed=4))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shares": (1.0,)}, "7 odds of pose"),
        ({"shares": (0.0,) * 7}, "not all 0"),
        ({"shares": (1.0, *(0.0,) * 6)}, "set mixed=0"),
        ({"text_only": 1.5}, "text_only is a share"),
        ({"nothing": 0.9}, "shares of one whole"),
        ({"first_cap": 0}, "caps are"),
    ],
)
def test_bad_numbers_are_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        Curriculum(**wrong)
    with pytest.raises(ValueError, match="cap of sparse frames"):
        draw(Curriculum(), cap=0)
