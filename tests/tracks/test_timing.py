"""Resampling and reading tracks in time, on curves whose values between frames are known."""

import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.tracks.timing import read_at_time, resample_time


def line(frames, lead=(2, 3)):
    """Tracks (*lead, T, 2) that go from (-1, 0) to (1, 0.5)."""
    time = torch.linspace(0, 1, frames, dtype=torch.float64)[:, None]
    return (torch.tensor([-1.0, 0.0]) + time * torch.tensor([2.0, 0.5])).expand(*lead, frames, 2)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize(("frames", "wanted"), [(2, 7), (64, 16), (16, 64), (5, 5)])
def test_straight_tracks_stay_straight_whatever_the_leading_axes(lead, frames, wanted):
    assert torch.allclose(resample_time(line(frames, lead), wanted), line(wanted, lead), atol=1e-12)


def test_one_frame_holds_still_and_one_of_many_is_the_first():
    one = line(9)[..., 3:4, :]
    assert torch.equal(resample_time(one, 5), one.expand(2, 3, 5, 2))
    assert torch.equal(resample_time(line(9), 1), line(9)[..., :1, :])


def test_the_release_reads_half_a_cell_inside():
    frames = torch.arange(64.0)[None, :, None]
    assert resample_time(frames, 16, exact_ends=False)[0, :, 0].tolist() == [1.5 + 4 * i for i in range(16)]
    assert torch.allclose(resample_time(frames, 16)[0, [0, -1], 0], torch.tensor([0.0, 63.0]))


@pytest.mark.parametrize("wanted", [0, -3])
def test_no_frames_are_refused(wanted):
    with pytest.raises(ShapeError, match="num_frames must be at least 1"):
        resample_time(line(4), wanted)
    with pytest.raises(ShapeError, match="no frame"):
        resample_time(line(4)[..., :0, :], 4)


def test_reading_between_frames_is_linear_and_exact_at_them():
    tracks = torch.randn(2, 3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for frame in range(5):
        assert torch.equal(read_at_time(tracks, torch.full((2, 3), frame / 4)), tracks[:, :, frame])
    between = read_at_time(tracks, torch.full((2, 3), 0.3125))
    assert torch.allclose(between, 0.75 * tracks[:, :, 1] + 0.25 * tracks[:, :, 2])
    single = tracks[:, :, :1]
    assert torch.equal(read_at_time(single, torch.full((2, 3), 0.7)), single[:, :, 0])


@pytest.mark.parametrize("time", [-0.01, 1.01, float("nan")])
def test_times_outside_the_clip_are_refused(time):
    with pytest.raises(ShapeError, match="goal times"):
        read_at_time(line(4), torch.full((2, 3), time))
