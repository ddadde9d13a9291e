"""The built-in trackers follow known motion, lose points honestly, and the CoTracker adapter keeps the call contract."""

import sys
import types

import cv2
import numpy as np
import pytest
import torch

from kinelib.notation import ShapeError, cell_centres
from kinelib.tracks import cotracker as adapter
from kinelib.tracks.trackers import corner_points, grid_points, random_points, track_points
from kinelib.tracks.video import Video, VideoError

WIDTH, HEIGHT, FRAMES = 160, 120, 10


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random picture: has gradients everywhere, as real video that can be tracked."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def panned(step: tuple[float, float], frames: int = FRAMES) -> np.ndarray:
    """A textured plane that moves by `step` pixels a frame."""
    picture = texture(HEIGHT + 80, WIDTH + 80)
    shifts = (np.float32([[1, 0, step[0] * t - 40], [0, 1, step[1] * t - 40]]) for t in range(frames))
    return np.stack([cv2.warpAffine(picture, shift, (WIDTH, HEIGHT)) for shift in shifts])


INNER = cell_centres(6, 6) * 0.6


@pytest.mark.parametrize("tracker", ["lk", "dis"])
def test_trackers_follow_a_pan_to_a_fraction_of_a_pixel(tracker):
    step = (1.5, -0.75)
    tracks = track_points(Video(panned(step), fps=30.0, path="pan.mp4"), INNER, tracker)
    assert tracks.xy.shape == (1, 36, FRAMES, 2)
    assert tracks.visible.float().mean() > 0.9
    truth = torch.arange(FRAMES)[:, None] * torch.tensor(step)
    error = (tracks.pixels() - tracks.pixels()[:, :, :1] - truth).norm(dim=-1)
    assert error[tracks.visible].mean() < 0.25
    assert torch.allclose(tracks.query_points[0], INNER, atol=1e-6)
    assert (tracks.fps, tracks.size) == (30.0, (WIDTH, HEIGHT))
    assert tracks.provenance == {"source": "pan.mp4", "tracker": tracker}


def test_a_corner_is_found_at_the_centre_of_its_pixel():
    frame = np.zeros((1, HEIGHT, WIDTH, 3), np.float32)
    frame[0, 30, 50] = 255 * 20
    frame[0] = cv2.GaussianBlur(frame[0], (0, 0), 1.5)
    corner = corner_points(frame.clip(0, 255).astype(np.uint8), 1)
    assert torch.allclose(corner, torch.tensor([[(2 * 50 + 1) / WIDTH - 1, (2 * 30 + 1) / HEIGHT - 1]]), atol=1e-6)


def test_callable_tracker_gets_pixel_centres_and_is_named():
    seen = {}

    def recorder(frames, points):
        seen["points"] = points
        return np.repeat(points[:, None], len(frames), 1), np.ones((len(points), len(frames)), bool)

    # The centres of a grid as large as the frame are the pixels themselves, 0, 1, 2, ... in OpenCV's count.
    video = Video(np.zeros((3, 4, 6, 3), np.uint8))
    tracks = track_points(video, cell_centres(4, 6), recorder)
    assert np.allclose(seen["points"], [(x, y) for y in range(4) for x in range(6)], atol=1e-5)
    assert torch.allclose(tracks.xy[0, :, 2], cell_centres(4, 6), atol=1e-6)
    assert tracks.provenance["tracker"] == "recorder"


def test_large_videos_are_tracked_small_and_reported_in_their_own_size():
    large = np.stack([cv2.resize(frame, None, fx=5, fy=5, interpolation=cv2.INTER_NEAREST) for frame in panned((1.5, 0), 4)])
    seen = []

    def recorder(frames, points):
        seen.append(frames.shape)
        return np.repeat(points[:, None], len(frames), 1), np.ones((len(points), len(frames)), bool)

    assert track_points(large, INNER, recorder).size == (800, 600)
    assert seen == [(4, 384, 512, 3)]
    moved = track_points(large, INNER, "lk").displacement()[0, :, -1]
    assert torch.allclose(moved.median(dim=0).values, torch.tensor([4.5 * 2 / WIDTH, 0.0]), atol=0.004)


@pytest.mark.parametrize("tracker", ["lk", "dis"])
def test_lost_points_stay_where_they_were_and_never_come_back(tracker):
    frames = panned((0.5, 0), 12)
    frames[5:8] = texture(HEIGHT, WIDTH, seed=9)  # three frames of something else, then the old scene again
    tracks = track_points(frames, INNER, tracker)
    visible = tracks.visible[0]
    assert visible[:, 0].all()
    assert visible[:, 4].float().mean() > 0.9
    assert visible[:, 11].float().mean() < 0.2
    assert not (visible[:, 1:] & ~visible[:, :-1]).any()
    for point in torch.where(~visible[:, -1])[0]:
        last = int(visible[point].nonzero().max())
        assert torch.equal(tracks.xy[0, point, last:], tracks.xy[0, point, last].expand(12 - last, 2))


def test_points_that_leave_the_frame_are_invisible():
    tracks = track_points(panned((6, 0)), torch.tensor([[0.8, 0.0], [-0.8, 0.1]]))
    assert tracks.visible[0, :, -1].tolist() == [False, True]
    assert tracks.xy[0, 0].abs().max() <= 1


def test_one_point_and_a_blank_video_are_fine():
    tracks = track_points(np.full((3, 40, 40, 3), 90, np.uint8), torch.zeros(1, 2))
    assert torch.equal(tracks.xy, torch.zeros(1, 1, 3, 2))
    assert tracks.visible[0, 0, 0]


def test_one_frame_is_refused_with_the_file_name():
    with pytest.raises(VideoError, match=r"still\.png has one frame; tracking needs at least two"):
        track_points(Video(np.zeros((1, 8, 8, 3), np.uint8), path="still.png"), INNER)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(0, 2), "query_points is empty"),
        (torch.zeros(5, 3), "axis 2 is 3|axis 2"),
        (torch.tensor([[float("nan"), 0.0]]), "NaN"),
        (torch.tensor([[40.0, 30.0], [0.0, 0.0]]), "1 query points lie outside the frame"),
    ],
)
def test_bad_points_are_refused(points, message):
    with pytest.raises(ShapeError, match=message):
        track_points(panned((0, 0), 2), points)


def test_unknown_tracker_lists_the_names():
    with pytest.raises(ValueError, match="no tracker 'lucas'; choose one of lk, dis, cotracker, cotracker-online"):
        track_points(panned((0, 0), 2), INNER, "lucas")


def test_point_samplers():
    assert torch.equal(grid_points(3, 4), cell_centres(3, 4))
    first, again = (random_points(50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.abs().max() <= 1
    with pytest.raises(ShapeError):
        grid_points(0, 4)
    with pytest.raises(ShapeError):
        random_points(0, torch.Generator())


def test_corners_sit_on_the_corners_of_a_square():
    frame = np.zeros((1, 120, 160, 3), np.uint8)
    frame[0, 40:80, 60:120] = 255
    corners = corner_points(frame, 10)
    assert 4 <= len(corners) <= 10
    square = torch.tensor([[x * 2 / 160 - 1, y * 2 / 120 - 1] for x in (60, 120) for y in (40, 80)])
    assert torch.cdist(square, corners).min(dim=1).values.max() < 3 * 2 / 120
    with pytest.raises(VideoError, match="no corners"):
        corner_points(np.zeros((1, 40, 40, 3), np.uint8), 10)


class OfflineStandIn:
    """Answers like CoTrackerPredictor: every point moves one pixel right a frame and hides once it is past the middle."""

    def __call__(self, video, queries=None, grid_size=0):
        assert video.dtype == torch.float32
        assert video.shape[2] == 3
        assert video.max() > 1  # 0..255
        assert torch.equal(queries[..., 0], torch.zeros_like(queries[..., 0]))
        time = torch.arange(video.shape[1])
        tracks = queries[:, None, :, 1:] + torch.stack([time, 0 * time], -1)[None, :, None]
        return tracks, tracks[..., 0] < video.shape[-1] / 2


class OnlineStandIn(OfflineStandIn):
    """Answers like CoTrackerOnlinePredictor with step 8: stores the queries first, then takes whole overlapping windows."""

    step = 8

    def __init__(self):
        self.calls, self.queries, self.frames = [], None, 0

    def __call__(self, video_chunk, is_first_step=False, queries=None, grid_size=0):
        self.calls.append((video_chunk.shape[1], is_first_step, float(video_chunk[0, 0].mean())))
        assert video_chunk.shape[1] == 2 * self.step
        if is_first_step:
            self.queries = queries
            return None, None
        assert queries is None
        self.frames = self.frames + self.step if self.frames else 2 * self.step
        everything = torch.full((1, self.frames, 3, *video_chunk.shape[-2:]), 255.0)
        return super().__call__(everything, queries=self.queries)


def counting_video(frames: int) -> np.ndarray:
    """Frame t has the grey value 2 + t, so that a chunk shows where it starts."""
    return np.broadcast_to((2 + np.arange(frames, dtype=np.uint8))[:, None, None, None], (frames, 20, 40, 3)).copy()


@pytest.fixture
def no_hub(monkeypatch):
    """No test may reach the network."""

    def refuse(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(torch.hub, "load", refuse)
    monkeypatch.delenv(adapter.CHECKPOINT_VARIABLE, raising=False)


@pytest.mark.parametrize(("mode", "stand_in"), [("offline", OfflineStandIn), ("online", OnlineStandIn)])
@pytest.mark.parametrize("frames", [2, 8, 9, 16, 17, 24, 30])
def test_cotracker_contract_for_any_length(mode, stand_in, frames):
    points = np.array([[3.0, 5.0], [18.5, 7.25]], np.float32)
    positions, visible = adapter.cotracker(counting_video(frames), points, mode=mode, predictor=stand_in(), device="cpu")
    assert positions.shape == (2, frames, 2)
    assert visible.shape == (2, frames)
    assert visible.dtype == bool
    assert np.allclose(positions[:, :, 0], points[:, :1] + np.arange(frames))
    assert np.allclose(positions[:, :, 1], points[:, 1:])
    assert np.array_equal(visible, positions[..., 0] < 20)


def test_cotracker_online_windows_overlap_by_half():
    predictor = OnlineStandIn()
    adapter.cotracker(counting_video(30), np.zeros((1, 2), np.float32), mode="online", predictor=predictor, device="cpu")
    first, *windows = predictor.calls
    assert first == (16, True, 2.0)
    assert windows == [(16, False, 2.0), (16, False, 10.0), (16, False, 18.0)]


@pytest.mark.parametrize("name", ["cotracker", "cotracker-online"])
def test_installed_cotracker_is_used_through_track_points(monkeypatch, tmp_path, no_hub, name):
    # A stand-in for the user's package: it mimics the documented call contract, nothing else of CoTracker.
    package, module = types.ModuleType("cotracker"), types.ModuleType("cotracker.predictor")
    package.__spec__, package.__path__ = types.SimpleNamespace(name="cotracker"), []
    loaded = []
    module.CoTrackerPredictor = lambda checkpoint: loaded.append(checkpoint) or OfflineStandIn()
    module.CoTrackerOnlinePredictor = lambda checkpoint: loaded.append(checkpoint) or OnlineStandIn()
    monkeypatch.setitem(sys.modules, "cotracker", package)
    monkeypatch.setitem(sys.modules, "cotracker.predictor", module)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setenv(adapter.CHECKPOINT_VARIABLE, str(weights))
    tracks = track_points(Video(counting_video(20)), torch.tensor([[-0.5, 0.25]]), name)
    assert loaded == [str(weights)]
    assert torch.allclose(tracks.displacement()[0, 0, :, 0], torch.arange(20) * 2 / 40, atol=1e-5)
    assert torch.allclose(tracks.query_points, torch.tensor([[[-0.5, 0.25]]]), atol=1e-6)
    monkeypatch.setenv(adapter.CHECKPOINT_VARIABLE, str(tmp_path / "nothing.pth"))
    with pytest.raises(adapter.CoTrackerMissing, match=r"nothing\.pth, which is not a file"):
        track_points(Video(counting_video(20)), torch.zeros(1, 2), name)


@pytest.mark.skipif("cotracker" in sys.modules, reason="CoTracker is installed here")
def test_missing_cotracker_says_how_to_get_it_and_its_licence(no_hub):
    with pytest.raises(adapter.CoTrackerMissing, match=r"(?s)Install it from its public repository.*CC BY-NC 4\.0.*'lk'"):
        track_points(Video(counting_video(4)), torch.zeros(1, 2), "cotracker")


def test_hub_is_asked_for_the_right_entry(monkeypatch):
    asked = []
    monkeypatch.delenv(adapter.CHECKPOINT_VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "load", lambda *names, **_: asked.append(names) or OfflineStandIn())
    track_points(Video(counting_video(4)), torch.zeros(1, 2), "cotracker")
    assert asked == [("facebookresearch/co-tracker", "cotracker3_offline")]


def test_answers_that_break_the_contract_are_refused():
    swapped = lambda video, queries: (torch.zeros(1, 5, video.shape[1], 2), torch.ones(1, 5, video.shape[1]))
    with pytest.raises(ValueError, match=r"expected \(1, 7, 5, 2\)"):
        adapter.cotracker(counting_video(7), np.zeros((5, 2), np.float32), predictor=swapped, device="cpu")
    with pytest.raises(ValueError, match="'offline' or 'online'"):
        adapter.cotracker(counting_video(7), np.zeros((5, 2), np.float32), mode="live", predictor=swapped)
