"""Trackers are scored by what is known: shares within pixels of a constructed error, moving and static points apart."""

import numpy as np
import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.robots.robot_tracks import exact_tracks, film
from kinelib.robots.tracker_scores import score_tracks, tracker_table
from kinelib.tracks.tracks import Tracks

PIXEL = 2 / 256  # of the 256 canvas, in units of half a frame


def tracks(xy, visible=None):
    xy = torch.as_tensor(xy, dtype=torch.float32)
    return Tracks(xy, torch.ones(xy.shape[:3], dtype=torch.bool) if visible is None else visible, fps=10, size=(64, 64))


@pytest.fixture
def exact():
    """Four points over five frames: two move 10 pixels a frame, two stand."""
    xy = torch.zeros(1, 4, 5, 2)
    xy[0, :, :, 1] = torch.linspace(-0.5, 0.5, 4)[:, None]
    xy[0, :2, :, 0] = torch.arange(5) * 10 * PIXEL
    return tracks(xy)


@pytest.fixture(scope="module")
def clip(toy):
    """The toy's square crosses the picture, 3 pixels of 96 a frame."""
    world = toy("right")
    world.reset(0)
    states = [world.state()]
    for _ in range(8):
        world.step([0.6, 0, 0])
        states.append(world.state())
    footage = film(world, states, views=("above",), side=96, detail=128)
    return footage.pictures[0], exact_tracks(footage, "above", count=60, moving_share=0.5, seed=0)


def test_a_known_error_falls_between_the_thresholds(exact):
    guess = exact.xy.clone()
    guess[0, :2] += torch.tensor([3 * PIXEL, 4 * PIXEL])  # 5 pixels: within 8 and 16
    scores = score_tracks(tracks(guess), exact)
    assert [scores[f"within_{pixels}_moving"].item() for pixels in (1, 2, 4, 8, 16)] == [0, 0, 0, 100, 100]
    assert scores["delta_moving"].item() == pytest.approx(40) and scores["delta_static"].item() == pytest.approx(100)
    assert scores["lost_moving"].item() == scores["lost_static"].item() == 0


def test_a_tracker_that_holds_still_is_right_about_the_rest_only(exact):
    still = exact.xy[:, :, :1].expand_as(exact.xy)
    scores = score_tracks(tracks(still), exact)
    # 10, 20, 30 and 40 pixels off in the four frames that count.
    assert scores["within_16_moving"].item() == 25 and scores["within_8_moving"].item() == 0
    assert scores["delta_static"].item() == 100


def test_hidden_positions_do_not_count_and_lost_ones_are_told(exact):
    hidden = exact.visible.clone()
    hidden[0, 0, 2:] = False
    guess = exact.xy.clone()
    guess[0, 0, 2:] += 1
    seen = torch.ones_like(hidden)
    seen[0, 1, 3:] = False
    scores = score_tracks(tracks(guess, seen), tracks(exact.xy, hidden))
    assert scores["delta_moving"].item() == 100
    # Of the 1 + 4 positions of moving points that are visible in truth, the tracker gave up two.
    assert scores["lost_moving"].item() == pytest.approx(40)


def test_a_subset_without_points_has_no_score(exact):
    standing = tracks(exact.xy[:, 2:])
    scores = score_tracks(standing, standing)
    assert scores["delta_moving"].isnan().all() and scores["delta_static"].item() == 100


def test_shapes_that_differ_are_refused(exact):
    with pytest.raises(ShapeError, match="same shape"):
        score_tracks(exact.points(torch.arange(3)), exact)
    with pytest.raises(ShapeError, match="at least 2 frames"):
        score_tracks(exact.window(0, 1), exact.window(0, 1))


def test_the_table_ranks_trackers_as_they_deserve(clip):
    pictures, exact = clip

    def standing_still(frames, points):
        positions = np.repeat(points[:, None], len(frames), axis=1)
        return positions, np.ones(positions.shape[:2], bool)

    table = tracker_table([clip, clip], ["lk", "dis", standing_still])
    assert list(table) == ["lk", "dis", "standing_still"]
    assert table["lk"]["delta_static"].value > 90 and table["standing_still"]["delta_static"].value == 100
    # 4 pixels of 256 a frame: within 16 for four of the eight frames, within 8 for two, within 4 for one.
    assert table["standing_still"]["delta_moving"].value == pytest.approx(17.5, abs=3)
    assert table["lk"]["delta_moving"].value > 50
    assert table["dis"]["delta_moving"].value > 30 and table["lk"]["delta_moving"].count == 2


def test_points_that_cannot_be_asked_for_are_left_out_or_named(clip):
    pictures, exact = clip
    hidden = exact.visible.clone()
    hidden[0, :30, 0] = False
    some = Tracks(exact.xy, hidden, exact.fps, exact.size)
    assert tracker_table([(pictures, some)] * 2, ["lk"])["lk"]["delta_static"].count == 2
    none = Tracks(exact.xy, torch.zeros_like(hidden), exact.fps, exact.size, {"source": "toy/7"})
    with pytest.raises(ShapeError, match="no point of toy/7 is visible"):
        tracker_table([(pictures, none)])
    with pytest.raises(ValueError, match="no tracker 'sift'"):
        tracker_table([clip], ["sift"])
