"""The baselines on pokes whose spread can be worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinelib.notation import ShapeError
from kinelib.tracks.tracks import Poke, pack_pokes
from kinelib.zipmo.baselines import (
    constant_velocity,
    copy_nearest,
    copy_nearest_track,
    linear,
    linear_local,
    poke_displacements,
    static,
)

FRAME = torch.zeros(1, 3, 8, 8)
FOLLOWING = [copy_nearest, constant_velocity, linear, linear_local]
ALL = [static, *FOLLOWING]


def run(forecaster, pokes, queries, num_frames=5, **options):
    packed, mask = pack_pokes(pokes, slots=4)
    queries = torch.tensor([queries], dtype=torch.float32)
    return forecaster(FRAME, packed, mask, queries, num_frames=num_frames, **options)[0, 0]


@pytest.mark.parametrize("forecaster", ALL)
def test_one_call_one_shape(forecaster):
    pokes, mask = pack_pokes([[Poke((0, 0), (0.5, 0))], []])
    queries = torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    future = forecaster(FRAME.expand(2, -1, -1, -1), pokes, mask, queries, num_frames=9, samples=8, seed=3)
    assert future.shape == (2, 1, 7, 9, 2)
    torch.testing.assert_close(future[:, 0, :, 0], queries)
    # The second clip has no poke: nothing moves.
    torch.testing.assert_close(future[1, 0], queries[1, :, None].expand(-1, 9, -1))


@pytest.mark.parametrize("forecaster", FOLLOWING)
def test_a_poked_point_goes_straight_to_its_goal(forecaster):
    pokes = [Poke((-0.5, 0.1), (0.3, 0.5)), Poke((0.6, -0.2), (0.6, -0.2)), Poke((0.7, 0.9), (-0.9, 0.8))]
    future = run(forecaster, pokes, [poke.start_xy for poke in pokes])
    for poke, path in zip(pokes, future, strict=True):
        share = torch.linspace(0, 1, 5)[:, None]
        torch.testing.assert_close(path, torch.tensor(poke.start_xy) * (1 - share) + torch.tensor(poke.goal_xy) * share)


@pytest.mark.parametrize("forecaster", ALL)
def test_slots_without_a_poke_may_hold_anything(forecaster):
    queries = torch.tensor([[[0.1, 0.2], [-0.9, 0.9]]])
    pokes, mask = pack_pokes([Poke((0, 0), (0.5, 0), 0.7)], slots=3)
    wild = torch.where(mask[..., None], pokes, math.nan)
    expected = forecaster(FRAME, pokes[:, :1], mask[:, :1], queries, num_frames=6)
    torch.testing.assert_close(forecaster(FRAME, wild, mask, queries, num_frames=6), expected)
    nothing = forecaster(FRAME, torch.zeros(1, 0, 5), torch.zeros(1, 0, dtype=torch.bool), queries, num_frames=6)
    torch.testing.assert_close(nothing, static(FRAME, pokes, mask, queries, num_frames=6))


def test_what_spreads_where():
    pokes = [Poke((-0.5, 0), (-0.5, 0.4)), Poke((0.5, 0), (0.5, -0.4))]
    ends = lambda forecaster, query, **options: (
        run(forecaster, pokes, [query], **options)[0, -1] - torch.tensor(query)
    ).tolist()
    middle, left, far = (0.0, 0.0), (-0.4, 0.0), (-0.5, -0.9)
    assert ends(copy_nearest, left) == pytest.approx([0, 0.4])
    assert ends(copy_nearest, far) == pytest.approx([0, 0.4])
    assert ends(linear, middle) == pytest.approx([0, 0], abs=1e-6)  # both pokes at equal distance cancel
    near, away = 1 / 0.1**2, 1 / 0.9**2
    assert ends(linear, left) == pytest.approx([0, 0.4 * (near - away) / (near + away)], abs=1e-5)
    assert ends(linear_local, left) == pytest.approx([0, 0.4])  # the other poke is out of reach
    assert ends(linear_local, far) == pytest.approx([0, 0])
    assert ends(linear_local, middle) == pytest.approx([0, 0])
    assert ends(linear_local, far, radius=0.95) == pytest.approx([0, 0.4])


def test_after_the_goal_time():
    pokes = [Poke((0, 0), (0.2, 0), 0.5)]
    for forecaster in (copy_nearest, linear, linear_local):
        assert run(forecaster, pokes, [(0, 0)])[0, :, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.2, 0.2])
    assert run(constant_velocity, pokes, [(0, 0)])[0, :, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_several_pokes_on_one_track_are_piecewise_linear():
    pokes = [Poke((0, 0), (0.4, 0.2), 1.0), Poke((0, 0), (0.4, 0), 0.5)]  # not in order of time
    path = run(copy_nearest, pokes, [(0, 0)])[0]
    assert path[:, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.4, 0.4])
    assert path[:, 1].tolist() == pytest.approx([0, 0, 0, 0.1, 0.2])
    early = [Poke((0, 0), (0.4, 0), 0.25), Poke((0, 0), (0.4, 0.2), 0.5)]
    assert run(constant_velocity, early, [(0, 0)])[0, :, 1].tolist() == pytest.approx([0, 0, 0.2, 0.4, 0.6])
    assert run(copy_nearest, early, [(0, 0)])[0, :, 1].tolist() == pytest.approx([0, 0, 0.2, 0.2, 0.2])


def test_a_track_counts_once_however_many_pokes_it_has():
    once = [Poke((-0.5, 0), (-0.5, 0.4)), Poke((0.5, 0), (0.5, -0.4))]
    thrice = [Poke((-0.5, 0), (-0.5, 0.2), 0.5), Poke((-0.5, 0), (-0.5, 0.3), 0.75), *once]
    torch.testing.assert_close(run(linear, once, [(0.1, 0.3)]), run(linear, thrice, [(0.1, 0.3)]))


@given(st.permutations(range(4)))
@settings(max_examples=24, deadline=None, derandomize=True)
def test_order_of_pokes_does_not_matter(order):
    pokes = [
        Poke((-0.5, 0), (0, 0.4), 0.5),
        Poke((-0.5, 0), (0.1, 0.4)),
        Poke((0.5, 0.2), (0.5, 0.2)),
        Poke((0.1, 0.9), (0, 0), 0.3),
    ]
    queries = [(-0.45, 0.1), (0.3, 0.3), (0.2, 0.8)]
    for forecaster in FOLLOWING:
        shuffled = run(forecaster, [pokes[i] for i in order], queries, num_frames=11)
        torch.testing.assert_close(shuffled, run(forecaster, pokes, queries, num_frames=11))


def test_one_frame_and_curve_ends():
    pokes, mask = pack_pokes([Poke((0, 0), (0.5, 0))])
    assert copy_nearest(FRAME, pokes, mask, torch.zeros(1, 2, 2), num_frames=1).abs().max() == 0
    curve = poke_displacements(pokes, mask, 64)
    torch.testing.assert_close(curve[0, 0, [0, -1]], torch.tensor([[0.0, 0.0], [0.5, 0.0]]))


def test_copying_the_nearest_track():
    tracks = torch.zeros(1, 2, 3, 2)
    tracks[0, 0, :, 0] = torch.tensor([-0.5, -0.4, -0.3])
    tracks[0, 1, :, 1] = torch.tensor([0.5, 0.5, 0.9])
    queries = torch.tensor([[[-0.6, 0.0], [0.0, 0.6]]])
    copied = copy_nearest_track(tracks, queries)
    torch.testing.assert_close(copied[0, 0, :, 0], torch.tensor([-0.6, -0.5, -0.4]))
    torch.testing.assert_close(copied[0, 1, :, 1], torch.tensor([0.6, 0.6, 1.0]))
    torch.testing.assert_close(copy_nearest_track(tracks, tracks[:, :, 0]), tracks)
    visible = torch.ones(1, 2, 3, dtype=torch.bool)
    visible[0, 1, 0] = False
    assert copy_nearest_track(tracks, queries, visible)[0, 1, -1, 0] == pytest.approx(0.2)


@pytest.mark.parametrize("forecaster", ALL)
def test_bad_input_is_refused(forecaster):
    pokes, mask = pack_pokes([Poke((0, 0), (0.5, 0))])
    queries = torch.zeros(1, 2, 2)
    late, nowhere = pokes.clone(), pokes.clone()
    late[..., 4], nowhere[..., 2] = 1.5, math.nan
    with pytest.raises(ShapeError, match="goal times"):
        forecaster(FRAME, late, mask, queries)
    with pytest.raises(ShapeError, match="NaN"):
        forecaster(FRAME, nowhere, mask, queries)
    with pytest.raises(ShapeError, match="mask must be bool"):
        forecaster(FRAME, pokes, mask.float(), queries)
    with pytest.raises(ShapeError, match="axis B"):
        forecaster(FRAME, pokes, mask, queries.repeat(2, 1, 1))
    with pytest.raises(ShapeError, match="at least one frame"):
        forecaster(FRAME, pokes, mask, queries, num_frames=0)
    with pytest.raises(ShapeError, match="query_points holds"):
        forecaster(FRAME, pokes, mask, queries * math.nan)


def test_radius_must_be_positive():
    pokes, mask = pack_pokes([Poke((0, 0), (0.5, 0))])
    with pytest.raises(ValueError, match="radius"):
        linear_local(FRAME, pokes, mask, torch.zeros(1, 2, 2), radius=0)
