"""The metrics on constructed forecasts whose scores follow from the definitions, and the intervals around them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinelib.learning.intervals import bootstrap, bootstrap_difference, markdown_table, summarize
from kinelib.notation import ShapeError
from kinelib.tracks.timing import resample_time
from kinelib.zipmo.baselines import linear, static
from kinelib.zipmo.benchmark import evaluate_generation, pokes_from_tracks
from kinelib.zipmo.protocol import (
    Protocol,
    generation_metrics,
    min_mse_curve,
    min_of_k_curve,
    pairwise_diversity,
    poke_error,
    reconstruction_metrics,
    reconstruction_table,
)


def random_case(seed=0, batch=3, samples=4, points=5, frames=16):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(batch, points, frames, 2, generator=generator) * 2 - 1
    forecasts = truth[:, None] + 0.1 * torch.randn(batch, samples, points, frames, 2, generator=generator)
    return forecasts, truth


@given(st.floats(-20, 20, allow_subnormal=False))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_constant_offset(pixels):
    _, truth = random_case()
    shifted = (truth.double() + pixels / 64)[:, None]
    metrics = generation_metrics(shifted, truth, torch.ones(3, 5, dtype=torch.bool))
    for name in ("min_mse", "mean_mse", "mean_track_mse"):
        torch.testing.assert_close(metrics[name], torch.full((3,), pixels**2).double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(metrics["epe"], torch.full((3,), abs(pixels) * math.sqrt(2)).double(), rtol=1e-6, atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_order_of_the_three_errors(seed, samples):
    metrics = generation_metrics(*random_case(seed, samples=samples))
    assert bool((metrics["min_mse"] <= metrics["mean_mse"]).all())
    # The mean of the samples is at least as good as a sample, on average (convexity).
    assert bool((metrics["mean_track_mse"] <= metrics["mean_mse"] + 1e-9).all())
    if samples == 1:
        for name in ("min_mse", "mean_track_mse"):
            torch.testing.assert_close(metrics[name], metrics["mean_mse"])
        assert metrics["diversity_std"].eq(0).all() and metrics["diversity_pairwise"].eq(0).all()
        assert metrics["end_spread"].eq(0).all()


def test_best_sample_is_one_for_the_whole_clip():
    truth = torch.zeros(1, 2, 4, 2)
    samples = torch.zeros(1, 2, 2, 4, 2)
    samples[0, 0, 0] += 10 / 64  # sample 0 misses track 0, sample 1 misses track 1
    samples[0, 1, 1] += 20 / 64
    metrics = generation_metrics(samples, truth)
    assert float(metrics["min_mse"]) == pytest.approx(50)  # a best per track would give 0
    assert float(metrics["mean_mse"]) == pytest.approx((50 + 200) / 2)


def test_normalization_divides_by_one_plus_path_length():
    truth = torch.zeros(1, 2, 3, 2)
    truth[0, 0, :, 0] = torch.tensor([0.0, 0.5, 0.0])  # 32 pixels out and 32 back
    metrics = generation_metrics((truth + 1 / 64)[:, None], truth)
    assert float(metrics["mean_mse"]) == pytest.approx(1)
    assert float(metrics["mean_mse_normalized"]) == pytest.approx((1 / 65 + 1) / 2)
    assert float(metrics["mean_track_mse_normalized"]) == pytest.approx((1 / 65 + 1) / 2)


@pytest.mark.parametrize("samples", [2, 4, 8])
def test_pairwise_diversity_counts_its_diagonal(samples):
    forecasts, truth = random_case(samples=samples)
    ours = generation_metrics(forecasts, truth, protocol=Protocol(unbiased_diversity=True))["diversity_pairwise"]
    official = generation_metrics(forecasts, truth)["diversity_pairwise"]
    assert bool((ours > 0).all())
    torch.testing.assert_close(official, ours * (samples - 1) / samples)


def test_pairwise_diversity_of_two_points():
    two = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])
    assert float(pairwise_diversity(two)) == pytest.approx(2.5)
    assert float(pairwise_diversity(two, unbiased=True)) == pytest.approx(5)


def test_std_and_end_spread():
    truth = torch.zeros(1, 1, 2, 2)
    samples = torch.zeros(1, 2, 1, 2, 2)
    samples[0, 0, 0, 1, 0], samples[0, 1, 0, 1, 0] = -8 / 64, 8 / 64
    metrics = generation_metrics(samples, truth)
    # Only one of four (frame, coordinate) cells spreads: std of -8 and 8 is 8 sqrt 2.
    assert float(metrics["diversity_std"]) == pytest.approx(8 * math.sqrt(2) / 4)
    assert float(metrics["end_spread"]) == pytest.approx(8)


def test_moving_and_static_apart():
    truth = torch.zeros(2, 4, 3, 2)
    samples = truth[:, None].clone()
    samples[:, :, :2] += 6 / 64
    moving = torch.tensor([[True, True, False, False], [False] * 4])
    metrics = generation_metrics(samples, truth, moving, moving)
    assert metrics["min_mse_moving"][0] == pytest.approx(36) and metrics["min_mse_static"][0] == 0
    assert metrics["min_mse"].tolist() == pytest.approx([18, 18])
    assert metrics["epe"][0] == pytest.approx(6 * math.sqrt(2))
    # Nothing moves and nothing is poked in the second clip: undefined, not zero.
    assert metrics["min_mse_moving"][1].isnan() and metrics["epe"][1].isnan()


def test_error_at_the_goal_time_differs_from_the_end():
    truth = torch.zeros(1, 1, 5, 2)
    samples = truth[:, None].clone()
    samples[..., 3:, :] += 10 / 64  # right until the middle, wrong afterwards
    poked = torch.ones(1, 1, dtype=torch.bool)
    metrics = generation_metrics(samples, truth, poked, goal_time=torch.tensor([[0.5]]))
    assert float(metrics["epe_goal"]) == pytest.approx(0)
    assert float(metrics["epe"]) == pytest.approx(10 * math.sqrt(2))
    halfway = generation_metrics(samples, truth, poked, goal_time=torch.tensor([[0.625]]))
    assert float(halfway["epe_goal"]) == pytest.approx(5 * math.sqrt(2))


def test_poke_error_reads_each_goal_at_its_time():
    path = torch.linspace(0, 0.8, 5)
    samples = torch.stack([path, torch.zeros(5)], dim=-1).expand(1, 2, 3, 5, 2)
    pokes = torch.tensor([[[0, 0, 0.4, 0, 0.5], [0, 0, 0.9, 0, 1.0], [math.nan] * 5]])
    mask = torch.tensor([[True, True, False]])
    assert float(poke_error(samples, pokes, mask)) == pytest.approx((0 + 0.1 * 64) / 2, abs=1e-5)
    assert poke_error(samples, pokes, torch.zeros_like(mask)).isnan().all()


@given(st.integers(2, 90), st.integers(2, 90))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_resampling_keeps_the_ends_of_a_straight_track(length, wanted):
    line = torch.stack([torch.linspace(-1, 1, length), torch.linspace(0.5, 0, length)], dim=-1).double()
    resampled = resample_time(line[None], wanted)[0]
    expected = torch.stack([torch.linspace(-1, 1, wanted), torch.linspace(0.5, 0, wanted)], dim=-1).double()
    torch.testing.assert_close(resampled, expected, atol=1e-6, rtol=0)


def test_official_resampling_misses_the_ends():
    frames = torch.arange(64.0).double()[:, None].expand(64, 2)[None]
    official = resample_time(frames, 16, exact_ends=False)[0, :, 0]
    torch.testing.assert_close(official, torch.arange(1.5, 64, 4).double())


def test_lengths_are_matched_to_the_shorter():
    long = torch.linspace(0, 1, 64)[:, None].expand(1, 1, 64, 2)
    short = torch.linspace(0, 1, 16)[:, None].expand(1, 1, 16, 2)
    for samples, truth in ((short[:, None], long), (long[:, None], short)):
        assert float(generation_metrics(samples, truth)["mean_mse"]) == pytest.approx(0, abs=1e-8)
        assert float(generation_metrics(samples, truth, protocol=Protocol.official())["mean_mse"]) > 0.1


def test_expected_minimum_over_subsets():
    forecasts, truth = random_case(samples=4)
    curve = min_mse_curve(forecasts, truth)
    metrics = generation_metrics(forecasts, truth)
    torch.testing.assert_close(curve[:, 0], metrics["mean_mse"])
    torch.testing.assert_close(curve[:, -1], metrics["min_mse"])
    pairs = [generation_metrics(forecasts[:, [i, j]], truth)["min_mse"] for i in range(4) for j in range(i)]
    torch.testing.assert_close(curve[:, 1], torch.stack(pairs).mean(dim=0))


def test_reconstruction_thresholds():
    truth = torch.zeros(1, 5, 2, 2)
    predicted = truth.clone()
    predicted[0, :, :, 0] = torch.tensor([0.5, 1.5, 3.0, 6.0, 30.0])[:, None] / 128
    metrics = reconstruction_metrics(predicted, truth)
    shares = [float(metrics[f"delta_{px}"]) for px in (1, 2, 4, 8, 16)]
    assert shares == pytest.approx([20, 40, 60, 80, 80])
    assert float(metrics["delta_avg"]) == pytest.approx(56)
    assert float(metrics["px"]) == pytest.approx(41 / 5)
    assert float(metrics["px_median"]) == pytest.approx(3)
    official = reconstruction_metrics(predicted, truth, protocol=Protocol.official())
    assert float(official["px"]) == pytest.approx(41 / 5 * 255 / 256)


def test_reconstruction_can_leave_hidden_positions_out():
    truth = torch.zeros(1, 1, 4, 2)
    predicted, visible = truth.clone(), torch.ones(1, 1, 4, dtype=torch.bool)
    predicted[:, :, -1], visible[:, :, -1] = 1.0, False
    assert float(reconstruction_metrics(predicted, truth)["px"]) > 40
    assert float(reconstruction_metrics(predicted, truth, visible=visible)["px"]) == 0


def test_bad_input_is_an_error():
    forecasts, truth = random_case()
    with pytest.raises(ShapeError, match="samples holds 1 of"):
        generation_metrics(forecasts.clone().index_put_(tuple(torch.zeros(5, 1).long()), torch.tensor(math.nan)), truth)
    with pytest.raises(ShapeError, match="truth holds"):
        reconstruction_metrics(truth, truth * math.inf)
    with pytest.raises(ShapeError, match="axis N"):
        generation_metrics(forecasts[:, :, :2], truth)
    with pytest.raises(ShapeError, match="must be bool"):
        generation_metrics(forecasts, truth, torch.ones(3, 5))
    with pytest.raises(ShapeError, match="no end to align"):
        generation_metrics(forecasts[..., :1, :], truth)
    with pytest.raises(ShapeError, match="nothing to score|at least one"):
        generation_metrics(forecasts[:, :0], truth)
    with pytest.raises(ShapeError, match="without poked"):
        generation_metrics(forecasts, truth, goal_time=torch.ones(3, 5))
    with pytest.raises(ShapeError, match="goal times must be"):
        generation_metrics(forecasts, truth, torch.ones(3, 5).bool(), goal_time=torch.full((3, 5), 1.2))


def test_pokes_follow_file_order_or_a_seed():
    _, truth = random_case(points=6)
    pokes, mask, poked = pokes_from_tracks(truth, 2)
    assert poked.tolist() == [[True, True, False, False, False, False]] * 3 and mask.all()
    torch.testing.assert_close(pokes[:, :, :4], torch.cat([truth[:, :2, 0], truth[:, :2, -1]], dim=-1))
    assert pokes[..., 4].eq(1).all()
    draw = lambda seed: pokes_from_tracks(truth, 3, generator=torch.Generator().manual_seed(seed))[2]
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    none, mask, poked = pokes_from_tracks(truth, 0)
    assert none.shape == (3, 1, 5) and not mask.any() and not poked.any()
    allowed = torch.tensor([[False, True, False, True, False, False]] * 3)
    _, mask, poked = pokes_from_tracks(truth, 3, allowed=allowed)
    assert torch.equal(poked, allowed) and mask.sum(dim=1).tolist() == [2, 2, 2]
    with pytest.raises(ShapeError, match="cannot poke 7 of 6"):
        pokes_from_tracks(truth, 7)


def test_benchmark_runs_forecasters_of_one_call():
    _, truth = random_case(batch=5, points=6)
    frame = torch.zeros(5, 3, 8, 8)
    still = evaluate_generation(static, frame, truth, (0, 2), batch=2)
    guided = evaluate_generation(linear, frame, truth, (0, 2), batch=2)
    whole = evaluate_generation(linear, frame, truth, (2,), batch=64)
    assert still[2]["k"].tolist() == [1.0] * 5
    torch.testing.assert_close(still[0]["min_mse"], guided[0]["min_mse"])
    assert bool(guided[2]["epe"].max() < 1e-3) and bool((still[2]["epe"] > 1).all()) and still[0]["epe"].isnan().all()
    torch.testing.assert_close(whole[2]["min_mse"], guided[2]["min_mse"])


def test_benchmark_averages_noise_seeds():
    _, truth = random_case(points=2)

    def noisy(frame, pokes, mask, query_points, *, num_frames, samples, seed):
        future = query_points[:, None, :, None].repeat(1, samples, 1, num_frames, 1)
        return future + 0.1 * torch.randn(future.shape, generator=torch.Generator().manual_seed(seed))

    run = lambda *seeds: evaluate_generation(noisy, torch.zeros(3, 3, 8, 8), truth, (1,), seeds=seeds)[1]["mean_mse"]
    torch.testing.assert_close(run(1, 2), (run(1) + run(2)) / 2)
    assert not torch.equal(run(1), run(2))


def test_bootstrap_matches_the_normal_interval():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) * 2 + 5
    interval = bootstrap(values)
    half = 1.96 * float(values.std()) / 20
    assert interval.value == pytest.approx(float(values.mean()), abs=1e-6)
    assert interval.low == pytest.approx(interval.value - half, abs=0.03)
    assert interval.high == pytest.approx(interval.value + half, abs=0.03)
    assert interval == bootstrap(values) and interval.count == 400
    narrow = bootstrap(values, level=0.5)
    assert interval.low < narrow.low < narrow.high < interval.high


def test_bootstrap_covers():
    generator = np.random.default_rng(1)
    hits = [b.low <= 1 <= b.high for b in (bootstrap(generator.exponential(size=60), resamples=400) for _ in range(200))]
    assert 0.87 <= np.mean(hits) <= 0.99


def test_pairing_finds_a_small_steady_difference():
    hard = torch.randn(100, generator=torch.Generator().manual_seed(0)) * 50
    ours, theirs = hard - 1, hard + 0.1 * torch.sin(torch.arange(100.0))
    assert bootstrap(ours).high > bootstrap(theirs).low
    assert bootstrap_difference(ours, theirs).high < 0
    with pytest.raises(ShapeError, match="same clips"):
        bootstrap_difference(ours, theirs[:50])


def test_seeds_are_averaged_before_clips_are_resampled():
    values = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert bootstrap(values) == bootstrap(values.double().mean(dim=0))


def test_undefined_clips_are_left_out_and_counted():
    table = summarize({"a": torch.tensor([1.0, math.nan, 3.0]), "b": torch.tensor([math.nan, math.nan, 1.0])})
    assert table["a"].value == 2 and table["a"].count == 2 and "b" not in table
    for bad in ([1.0, math.nan], [1.0], [[[1.0, 2.0]]]):
        with pytest.raises(ShapeError):
            bootstrap(torch.tensor(bad))
    with pytest.raises(ValueError, match="level"):
        bootstrap([1.0, 2.0], level=95)


def test_reconstruction_table_prints():
    _, truth = random_case()
    table = reconstruction_table({"exact": truth, "off": truth + 1 / 128}, truth, torch.ones(3, 5).bool())
    assert table["exact"]["px"].value == 0 and table["off"]["px_moving"].value == pytest.approx(math.sqrt(2), abs=1e-4)
    assert "px_static" not in table["off"]  # nothing is static
    lines = markdown_table(table, ["px", "delta_avg"]).splitlines()
    assert lines[0] == "| method | px | delta_avg |" and lines[2].startswith("| exact | 0.00 [0.00, 0.00] | 100.00")
    with pytest.raises(ValueError, match="no row has a column 'pix'"):
        markdown_table(table, ["pix"])


def test_expected_minimum_by_enumeration():
    from itertools import combinations

    errors = torch.rand(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = min_of_k_curve(errors)
    for k in range(1, 7):
        brute = [[min(chosen) for chosen in combinations(row, k)] for row in errors.tolist()]
        torch.testing.assert_close(curve[:, k - 1], torch.tensor(brute, dtype=torch.float64).mean(dim=1))
    large = torch.rand(3, 128, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(min_of_k_curve(large)[:, [0, -1]], torch.stack([large.mean(1), large.amin(1)], dim=1))
    assert bool((min_of_k_curve(large).diff(dim=1) < 0).all())
    for bad in (torch.ones(2, 0), torch.tensor([[1.0, math.nan]]), torch.ones(3)):
        with pytest.raises(ShapeError):
            min_of_k_curve(bad)


def test_official_settings():
    official = Protocol.official()
    assert official.accuracy_canvas == 255 and official.same_noise and not official.exact_ends
    assert official.canvas == 128 and not official.unbiased_diversity  # its diagonal of zeros counts


def test_same_noise_asks_for_one_clip_at_a_time():
    _, truth = random_case(batch=3, points=4)
    frame, sizes = torch.zeros(3, 3, 8, 8), []

    def noisy(frame, pokes, mask, query_points, *, num_frames, samples, seed):
        sizes.append(len(frame))
        shape = (len(frame), samples, query_points.shape[1], num_frames, 2)
        return query_points[:, None, :, None] + torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    same = torch.cat([truth[:1]] * 3)
    spread = lambda **options: evaluate_generation(noisy, frame, same, (1,), **options)[1]["mean_mse"]
    assert len(set(spread(protocol=Protocol.official()).tolist())) == 1 and sizes == [1, 1, 1]
    assert len(set(spread().tolist())) == 3 and sizes[3:] == [3]


def test_benchmark_adds_the_curve_as_far_as_there_are_samples():
    forecasts, truth = random_case()
    replay = lambda *arguments, **options: forecasts
    table = evaluate_generation(replay, torch.zeros(3, 3, 8, 8), truth, (1,), curve=(1, 2, 4, 8))[1]
    curve = min_mse_curve(forecasts, truth)
    assert [name for name in table if "_of_" in name] == ["min_mse_of_1", "min_mse_of_2", "min_mse_of_4"]
    torch.testing.assert_close(table["min_mse_of_2"], curve[:, 1])


def test_clips_of_one_video_are_resampled_together():
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(30, generator=generator).repeat_interleave(10) + 0.1 * torch.randn(300, generator=generator)
    names = [f"video {i // 10}" for i in range(300)]
    alone, together = bootstrap(video), bootstrap(video, groups=names)
    assert together.clusters == 30 and alone.clusters is None and together.value == alone.value
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert 2.5 < ratio < 3.7  # the square root of 10 clips a video
    assert bootstrap(video, groups=list(map(str, range(300)))).low == pytest.approx(alone.low, abs=0.02)
    # Of two videos of unequal size: the range between their means.
    two = bootstrap([1.0, 1.0, 1.0, 5.0], groups=["a", "a", "a", "b"])
    assert (two.value, two.low, two.high) == (2.0, 1.0, 5.0)
    left_out = summarize({"epe": torch.tensor([1.0, math.nan, 2.0])}, groups=["a", "b", "a"])
    assert left_out == {}  # one video is left
    for names in (["a"] * 3, ["a", "b"]):
        with pytest.raises(ShapeError, match="group"):
            bootstrap([1.0, 2.0, 3.0], groups=names)
