"""Chaining windows: the warped frame, carried velocity, seams, and what leaves the frame."""

import pytest
import tiny
import torch

from kinelib.notation import ShapeError, cell_centres
from kinelib.zipmo import baselines
from kinelib.zipmo.forecast import LatentForecast
from kinelib.zipmo.long_motion import carry_pokes, extend, seam_jumps, warp_frame, window_ends, windows_for

NONE = torch.zeros(1, 1, 5), torch.zeros(1, 1, dtype=torch.bool)


def rest(size, batch=1):
    return cell_centres(size, size).reshape(1, size, size, 2).expand(batch, -1, -1, -1).clone()


def poke(start, goal, time=1.0):
    return torch.tensor([[[*start, *goal, time]]]), torch.ones(1, 1, dtype=torch.bool)


def test_nothing_moves_nothing_changes():
    frames = tiny.frames(3)
    assert torch.allclose(warp_frame(frames, rest(16, 3)), frames, atol=1e-5)


def test_a_shift_by_whole_pixels_is_exact_and_the_uncovered_edge_takes_its_neighbours_colour():
    frame = tiny.frames(1)
    warped = warp_frame(frame, rest(16) + torch.tensor([2 * 2 / 16, 0.0]))
    assert torch.allclose(warped[..., 2:], frame[..., :-2], atol=1e-5)
    assert warped[..., :2].isfinite().all() and warped.abs().max() <= 1


def test_a_moving_thing_lies_in_front_and_uncovers_what_was_around_it():
    frame = torch.full((1, 3, 16, 16), -0.5)
    frame[:, :, 6:10, 2:6] = 1.0
    end = rest(16)
    end[:, 6:10, 2:6] += torch.tensor([8 * 2 / 16, 0.0])
    warped = warp_frame(frame, end)
    assert torch.allclose(warped[:, :, 6:10, 10:14], torch.ones(1, 3, 4, 4), atol=1e-2), "in front"
    assert torch.allclose(warped[:, :, 6:10, 2:6], torch.full((1, 3, 4, 4), -0.5), atol=1e-4), "uncovered"
    assert torch.allclose(warped[:, :, :6], frame[:, :, :6], atol=1e-5)


def test_a_thing_that_leaves_is_gone():
    frame = torch.full((1, 3, 16, 16), -1.0)
    frame[:, :, :, 14:] = 1.0
    end = rest(16)
    end[:, :, 14:] += torch.tensor([1.0, 0.0])
    assert warp_frame(frame, end).max() == -1


def test_constant_velocity_chains_without_a_jump():
    points = torch.tensor([[[-0.8, -0.2], [-0.7, 0.3]]])
    given = (tiny.frames(1), *poke((-0.8, -0.2), (-0.3, 0.0)), points)
    motion = extend(baselines.constant_velocity, *given, windows=3, num_frames=17, fps=8, carry=1)
    assert motion.tracks.shape == (1, 1, 2, 49, 2) and motion.seams == (16, 32) and motion.seconds == 6
    assert torch.equal(window_ends(motion), torch.tensor([16, 32, 48]))
    expected = points[:, :, None] + torch.arange(49)[:, None] / 16 * torch.tensor([0.5, 0.2])
    assert torch.allclose(motion.tracks[:, 0], expected, atol=1e-4) and motion.inside.all()
    jumps = seam_jumps(motion)
    assert jumps["seam"] < 1e-3 and jumps["inside"] < 1e-3 and jumps["points"] == 2
    assert jumps["speed"] == pytest.approx((0.5**2 + 0.2**2) ** 0.5 / 16 * 64, rel=1e-3)
    # Without carried velocity the second window has no poke, and everything stops: the seam is where it shows.
    stopped = extend(baselines.constant_velocity, *given, windows=2, num_frames=17, carry=0)
    jumps = seam_jumps(stopped)
    assert jumps["seam"] == pytest.approx(jumps["speed"] * 2, rel=1e-3) and jumps["inside"] < 1e-4
    assert torch.allclose(stopped.tracks[..., 16:, :], stopped.tracks[..., 16:17, :].expand(-1, -1, -1, 17, -1))


def test_the_picture_follows_the_points():
    frame = torch.full((1, 3, 16, 16), -1.0)
    frame[:, :, 7:9, 2:4] = 1.0
    start = [2 * 3 / 16 - 1, 0.0]
    given = (frame, *poke(start, [start[0] + 0.5, 0.0]), torch.tensor([[start]]))
    motion = extend(baselines.linear_local, *given, windows=3, num_frames=9, carry=0)
    pictures = motion.first_frames[0, 0]
    assert pictures.shape == (3, 3, 16, 16) and torch.equal(pictures[0], frame[0])
    assert pictures[1, :, 7:9, 6:8].min() > 0.9 and pictures[1, :, 7:9, 2:4].max() < -0.9
    assert torch.allclose(pictures[2], pictures[1], atol=1e-4), "the second window stands still"


def test_steering_adds_pokes_to_later_windows():
    seen = []

    def steer(window, position):
        seen.append((window, position.clone()))
        return torch.tensor([[[*position[0, 0].tolist(), 0.0, 0.5, 1.0]]]), torch.ones(1, 1, dtype=torch.bool)

    given = (tiny.frames(1), *poke((0.0, 0.0), (0.5, 0.0)), torch.zeros(1, 1, 2))
    motion = extend(baselines.linear, *given, windows=2, num_frames=9, carry=0, steer=steer)
    assert [window for window, _ in seen] == [2] and torch.allclose(seen[0][1], torch.tensor([[[0.5, 0.0]]]))
    assert torch.allclose(motion.tracks[0, 0, 0, -1], torch.tensor([0.0, 0.5]), atol=1e-6)


def test_a_point_that_left_stays_where_it_left_and_is_said_to_be_outside():
    given = (tiny.frames(1), *poke((0.8, 0.0), (1.3, 0.0)), torch.tensor([[[0.8, 0.0], [-0.9, 0.0]]]))
    motion = extend(baselines.linear_local, *given, windows=2, num_frames=9, carry=2)
    assert motion.inside[0, 0, 0, :8].all() and not motion.inside[0, 0, 0, 8:].any() and motion.inside[0, 0, 1].all()
    assert torch.allclose(motion.tracks[0, 0, 0, 8:], torch.tensor([1.3, 0.0]).expand(9, 2))


def test_carried_pokes_are_fast_points_apart_from_each_other_that_stay_inside():
    time = torch.arange(9)[:, None] / 8
    go = lambda start, by: torch.tensor(start) + time * torch.tensor(by)
    tracks = torch.stack(
        [go([0.0, 0.0], [0.4, 0.0]), go([0.01, 0.0], [0.4, 0.0]), go([-0.5, 0.5], [0.3, 0.0]),
         go([0.0, -0.5], [0.0, 0.0]), go([0.5, 0.0], [0.49, 0.0])]
    )[None]  # fmt: skip
    pokes, mask = carry_pokes(tracks, 4, look_back=4, ahead=4)
    starts = pokes[0][mask[0]][:, :2]
    assert mask[0, :2].all() and pokes.shape == (1, 4, 5)
    assert torch.allclose(starts[0], torch.tensor([0.4, 0.0])) and torch.allclose(starts[1], torch.tensor([-0.2, 0.5]))
    assert torch.allclose(pokes[0, 0, 2:], torch.tensor([0.6, 0.0, 0.5]))
    assert not any(torch.allclose(start, torch.tensor([0.99, 0.0])) for start in starts), "its goal lies outside"
    still = carry_pokes(torch.zeros(2, 3, 5, 2), 2)
    assert not still[1].any() and still[0].isfinite().all()
    assert carry_pokes(tracks, 0)[0].shape == (1, 1, 5)


def test_samples_of_a_model_go_their_own_ways_and_a_seed_repeats_them():
    forecast = LatentForecast(tiny.autoencoder(noise=0.1), tiny.planner(), steps=2)
    given = (tiny.frames(2), *tiny.pokes(2), tiny.starts(2, 5))
    follow = lambda seed: extend(forecast, *given, windows=2, num_frames=9, samples=3, seed=seed)
    motion = follow(1)
    assert motion.tracks.shape == (2, 3, 5, 17, 2) and motion.first_frames.shape == (2, 3, 2, 3, 16, 16)
    assert torch.equal(motion.tracks, follow(1).tracks) and not torch.equal(motion.tracks, follow(2).tracks)
    assert not torch.equal(motion.tracks[:, 0], motion.tracks[:, 1])
    assert torch.allclose(motion.tracks[..., 0, :], given[-1][:, None].expand(-1, 3, -1, -1), atol=1e-6)
    first = forecast(*given, num_frames=9, samples=3, seed=1)
    assert torch.allclose(motion.tracks[..., :9, :], first, atol=1e-5), "the first window is a plain forecast"


def test_ten_seconds_are_four_windows():
    assert windows_for(10, 24, 64) == 4 and windows_for(63 / 24, 24, 64) == 1 and windows_for(63 / 24 + 0.01, 24, 64) == 2
    motion = extend(baselines.static, tiny.frames(1), *NONE, torch.zeros(1, 1, 2))
    assert motion.seconds >= 10 and motion.tracks.shape[3] == 253


def test_bad_input_is_refused():
    frame, points = tiny.frames(1), torch.zeros(1, 1, 2)
    with pytest.raises(ShapeError, match="inside the frame"):
        extend(baselines.static, frame, *NONE, points + 2)
    with pytest.raises(ValueError, match="start at 1"):
        extend(baselines.static, frame, *NONE, points, windows=0)
    with pytest.raises(ShapeError, match="samples=1"):
        extend(baselines.static, frame, *NONE, points, windows=1, samples=2)
    with pytest.raises(ValueError, match="positive"):
        windows_for(0)
    with pytest.raises(ShapeError, match="seam"):
        seam_jumps(extend(baselines.static, frame, *NONE, points, windows=1))
    with pytest.raises(ShapeError, match="end"):
        warp_frame(frame, torch.zeros(1, 8, 8, 2))
