"""The comparison with the video model: its tracks, its costs, its two ways of matching, and its controls."""

import json
import time

import pytest
import tiny
import torch
from torch import nn

from kinelib.learning.profiles import Profile
from kinelib.notation import ShapeError
from kinelib.tracks.scenes import sample_scenes
from kinelib.zipmo import video_comparison
from kinelib.zipmo.forecast import LatentForecast
from kinelib.zipmo.video_comparison import (
    Settings,
    compare,
    fitting_samples,
    operations_of,
    scene_pairs,
    seconds_of,
    track_videos,
    trackable_points,
)
from kinelib.zipmo.video_model import VideoConfig, VideoFlowMatcher

SETTINGS = Settings(samples=3, pokes=2, cap=5, steps=1, side=64, rounds=1, batch=2)


@pytest.fixture(scope="module")
def measured():
    """A comparison of tiny networks on three scenes."""
    torch.manual_seed(0)
    video = VideoConfig(num_frames=8, frame_size=16, span=2, patch=4, width=32, depth=1, heads=2)
    model = tiny.disturbed(VideoFlowMatcher(video), 0.02)
    latent = LatentForecast(tiny.autoencoder(noise=0.02), tiny.planner(), steps=1)
    pair = scene_pairs(3, 11, size=16, video_frames=8)
    return compare(latent, model, pair, SETTINGS), pair


def test_all_methods_stand_in_one_table(measured):
    comparison, _ = measured
    found = {(row.comparison, row.method): row.samples for row in comparison.rows}
    many = min(comparison.fitting, 5)
    assert found == {
        ("sample-matched", "video model"): 3,
        ("sample-matched", "zipmo"): 3,
        ("time-matched", "video model"): 1,
        ("time-matched", "zipmo"): many,
        ("control", "true video, tracked"): 1,
        ("control", "blend, tracked"): 1,
        ("control", "static"): 1,
        ("control", "linear"): 1,
    }
    text = comparison.table()
    for part in ("3 held-out scenes", "noise seed 43", "GFLOP", "true video, tracked", "min_mse_trackable"):
        assert part in text, part
    for row in comparison.rows:
        assert row.metrics["min_mse"].value <= row.metrics["mean_mse"].value + 1e-9 and row.metrics["min_mse"].count == 3
    with pytest.raises(KeyError, match="no row"):
        comparison.row("control", "zipmo")


def test_one_sample_has_min_equal_to_mean_and_is_the_first_of_the_many(measured):
    comparison, _ = measured
    one = comparison.row("time-matched", "video model").metrics
    assert one["min_mse"].value == pytest.approx(one["mean_mse"].value)
    many = comparison.row("sample-matched", "video model").metrics
    assert many["min_mse"].value <= one["min_mse"].value + 1e-9


def test_simple_baselines_score_what_they_must(measured):
    comparison, pair = measured
    truth = pair.tracks[:, :40]
    still = (64 * (truth - truth[:, :, :1])).square().mean((1, 2, 3)).double()
    torch.testing.assert_close(comparison.per_clip["control", "static"]["min_mse"], still, rtol=1e-4, atol=1e-6)
    assert comparison.row("control", "linear").metrics["epe"].value == pytest.approx(0, abs=1e-4)


def test_costs_are_those_of_the_models(measured):
    comparison, _ = measured
    assert all(cost.alone > 0 and cost.batched > 0 and cost.operations > 0 for cost in comparison.costs.values())
    assert comparison.tracking_seconds > 0 and 0 <= comparison.trackable <= 1


def test_operations_are_counted_as_matrix_products_and_attention():
    linear = nn.Linear(30, 20)
    assert operations_of(lambda: linear(torch.zeros(7, 30))) == 2 * 7 * 30 * 20
    q = torch.zeros(2, 3, 5, 8)
    attention = lambda: nn.functional.scaled_dot_product_attention(q, q, q)
    assert operations_of(attention) == 2 * (2 * (2 * 3) * 5 * 5 * 8)


def test_samples_fit_along_a_line():
    assert fitting_samples(1.05, 0.2, 0.2 + 7 * 0.1, 8) == 9
    assert fitting_samples(0.1, 0.2, 0.9, 8) == 1
    assert fitting_samples(1.0, 0.2, 0.2, 8) > 100  # more samples at no cost: bounded, not infinite


def test_the_fastest_round_is_measured():
    assert 0.009 < seconds_of(lambda: time.sleep(0.01), 3) < 0.5
    with pytest.raises(ValueError, match="at least 1"):
        seconds_of(lambda: None, 0)


def test_a_sliding_texture_is_followed_and_resampled():
    wide = torch.nn.functional.interpolate(
        torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)), scale_factor=4, mode="bicubic"
    ).clamp(0, 1)
    video = torch.stack([2 * wide[0, :, :, 3 * i : 3 * i + 64] - 1 for i in range(6)])  # content moves 3 px to the left
    points = torch.tensor([[[0.3, 0.1], [0.0, -0.4], [0.5, 0.5]]])
    tracks = track_videos(video[None, None].expand(1, 2, -1, -1, -1, -1), points, 11, side=128)
    assert tracks.shape == (1, 2, 3, 11, 2)
    moved = tracks - points[:, None, :, None]
    wanted = torch.linspace(0, -15 / 32, 11)
    torch.testing.assert_close(moved[..., 0], wanted.expand(1, 2, 3, 11), atol=0.02, rtol=0)
    assert moved[..., 1].abs().max() < 0.02


def test_a_still_video_gives_still_tracks():
    video = tiny.frames(2)[:, None, None].expand(-1, 1, 4, -1, -1, -1)
    points = tiny.starts(2, 5)
    tracks = track_videos(video, points, 9)
    torch.testing.assert_close(tracks, points[:, None, :, None].expand(-1, 1, -1, 9, -1), atol=1e-3, rtol=0)


def test_pairs_show_and_track_the_same_scenes():
    pair = scene_pairs(4, 21, size=32, video_frames=4, num_frames=10)
    scenes = sample_scenes(4, 21, size=32, num_frames=10, all_frames=True)
    assert torch.equal(pair.tracks, scenes.tracks.xy)
    frames = torch.from_numpy(scenes.frames[:, [0, 3, 6, 9]]).permute(0, 1, 4, 2, 3)
    assert (pair.videos.int() - frames.int()).abs().max() <= 1
    assert pair.frames.min() >= -1 and pair.frames.max() <= 1
    with pytest.raises(ValueError, match="512"):
        scene_pairs(513, 0)


def test_trackable_means_followed_in_the_true_video():
    truth = torch.zeros(1, 3, 4, 2)
    tracked = truth.clone()
    tracked[0, 1, 2:, 0] = 2 * video_comparison.TRACKABLE / 64 * 1.1  # lost half-way: off by just too much on average
    tracked[0, 2, 3, 0] = 2 * video_comparison.TRACKABLE / 64
    assert trackable_points(tracked, truth).tolist() == [[True, False, True]]


def test_bad_input_is_refused(measured):
    _, pair = measured
    model = VideoFlowMatcher(VideoConfig(num_frames=4, frame_size=16, span=2, patch=4, width=32, depth=1, heads=2))
    with pytest.raises(ShapeError, match="videos"):
        compare(lambda *_: None, model, pair)
    with pytest.raises(ShapeError, match="query_points"):
        track_videos(torch.zeros(2, 1, 4, 3, 16, 16), torch.zeros(1, 5, 2))


@pytest.mark.slow
def test_the_command_compares_the_shipped_models(tmp_path, monkeypatch):
    monkeypatch.setitem(video_comparison.SCENES, Profile.SMOKE, 4)
    table = video_comparison.evaluate_video(tmp_path / "video.json", profile_name="smoke")
    content = json.loads((tmp_path / "video.json").read_text())
    methods = {(row["comparison"], row["method"]): row for row in content["rows"]}
    assert content["clips"] == 4 and "4 held-out scenes" in table and len(methods) == 8
    true, blend = (methods["control", f"{name}, tracked"]["metrics"]["min_mse"]["value"] for name in ("true video", "blend"))
    assert 0 < true < blend
