"""Speed side by side: fair turns, and the numbers that are written."""

import json
import time

import pytest
import torch

import kinelib.bench.zipmo as bench
from kinelib.bench import bench_official, bench_zipmo, matmul_flops_per_second, side_by_side


def test_both_sides_are_warmed_up_and_measured_in_turn():
    calls = []
    first, second = side_by_side(
        lambda: (calls.append("a"), time.sleep(0.001)), lambda: (calls.append("b"), time.sleep(0.03)), 3
    )
    assert calls == ["a", "b"] * 4
    assert 0.001 <= first < 0.03 <= second < 1


def test_medians_ignore_one_slow_round():
    pauses = iter([0, 0, 0.2, 0, 0])
    assert side_by_side(lambda: time.sleep(next(pauses)), lambda: None, 4)[0] < 0.1


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        side_by_side(lambda: pytest.fail("was run"), lambda: None, 0)


@pytest.mark.slow
def test_latents_are_faster_than_trajectories_and_the_numbers_are_written(tmp_path):
    before = torch.get_num_threads()
    text = bench_zipmo(threads=1, json_path=tmp_path / "new" / "bench.json", rounds=1, official=False)
    assert torch.get_num_threads() == before
    content = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert content["threads"] == 1 and [row["points"] for row in content["rows"]] == [40, 1024]
    for row in content["rows"]:
        assert row["ratio"] == pytest.approx(row["direct_seconds"] / row["latent_seconds"]) and row["ratio"] > 1
        assert row["latent_timesteps_per_second"] == pytest.approx(64 * row["samples"] / row["latent_seconds"])
    assert text.count("\n| ") == 4 - 1 and "1 step x 6" in text


@pytest.fixture
def tiny(monkeypatch):
    """The second table's sizes, small enough for a test."""
    planner = {"width": 64, "depth": 1, "heads": 1, "feature_width": 64, "poke_width": 32, "time_width": 16}
    decoder = {"width": 64, "encoder_depth": 1, "decoder_depth": 1, "heads": 1, "feature_width": 64}
    for name, value in (("SAMPLER_SIZE", planner), ("DECODER_SIZE", decoder)):
        monkeypatch.setattr(bench, name, value)
    for name, value in (("SAMPLER_STEPS", 3), ("DENSE_SIDE", 16), ("DENSE_FRAMES", 2)):
        monkeypatch.setattr(bench, name, value)


def test_the_official_layout_is_measured_at_equal_results(tiny):
    rows = bench_official()
    assert [row["what"] for row in rows] == [
        "3 steps, no guidance", "3 steps, guidance 2", "dense 16 x 16, official", "dense 16 x 16, independent queries"
    ]  # fmt: skip
    for row in rows:
        assert row["largest_difference"] < 1e-4 and row["flops"] < row["plain_flops"]
        assert row["ratio"] == pytest.approx(row["plain_seconds"] / row["seconds"])
        assert row["floor_seconds"] == pytest.approx(row["flops"] / row["matmul_flops_per_second"])
    table = "\n".join(bench._official_table(rows))
    assert table.count("\n| ") == 1 + len(rows) and "GFLOP/s" in table


def test_matrix_speed_is_a_speed():
    assert 1e8 < matmul_flops_per_second(64, tries=2) < 1e15
