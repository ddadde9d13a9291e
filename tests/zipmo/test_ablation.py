"""The compression sweep at a size at which it runs in seconds: budgets, order, resuming, rows, the shipped file."""

import json
from dataclasses import replace

import pytest
import torch

from kinelib.zipmo import ablation, knn
from kinelib.zipmo.ablation import AblationConfig, Cell

TINY = AblationConfig(
    factors=(64, 16), seeds=(0,), pivot=16, autoencoder_steps=2, planner_steps=2, grid=4, channels=8, width=16,
    planner_width=12, planner_depth=1, batch=2, scenes=8, held_out=2, reconstructed=2, samples=2, reference=24, probes=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep of two t_c in both modes, and what it said."""
    folder, lines = tmp_path_factory.mktemp("runs") / "sweep", []
    return folder, ablation.sweep(folder, TINY, say=lines.append), lines


def test_whole_seeds_come_first_and_compute_before_steps():
    order = ablation.cells(AblationConfig())
    assert len(order) == len(set(order)) == 42
    assert [cell.seed for cell in order] == sorted(cell.seed for cell in order)
    assert [cell.mode for cell in order[:14]] == ["compute"] * 7 + ["steps"] * 7
    assert [cell.t_c for cell in order[:7]] == [64, 32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize("factors", [(3,), (0, 64), (128,)])
def test_a_factor_must_divide_the_frames(factors):
    with pytest.raises(ValueError, match="divide 64"):
        AblationConfig(factors=factors)


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="unknown modes"):
        AblationConfig(modes=("time",))


def test_less_compression_costs_more_operations_a_step():
    costs = [ablation.step_flops(TINY, t_c) for t_c in (64, 16, 4)]
    for name in ("autoencoder", "planner"):
        few, some, many = (cost[name] for cost in costs)
        assert 0 < few < some < many
    assert costs[2]["planner"] > 2 * costs[0]["planner"], "16 times the tokens, and what does not depend on them"


def test_attention_is_counted():
    from torch.nn.functional import scaled_dot_product_attention as attend
    from torch.utils.flop_counter import FlopCounterMode

    queries = torch.randn(2, 3, 10, 8)
    with ablation.sdpa_kernel(ablation.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        attend(queries, queries, queries)
    assert counter.get_total_flops() == 2 * (2 * 3 * 10 * 10 * 8) * 2


def test_operations_are_counted_at_the_mean_number_of_encoded_tracks():
    draw = ablation.autoencoder_draw(ablation.Sources(ablation.scene_clips(2, 1, size=16), None, 0.0), 1)
    generator = torch.Generator().manual_seed(0)
    counts = [draw(generator)["encoded"] for _ in range(300)]
    assert sum(counts) / len(counts) == pytest.approx(ablation.MEAN_ENCODED, abs=2)


def test_equal_compute_spends_the_pivots_operations():
    config = replace(TINY, autoencoder_steps=200, planner_steps=300)
    spent = {}
    for t_c in (64, 16, 4):
        steps = ablation.planned_steps(config, Cell("compute", t_c, 0))
        spent[t_c] = {name: n * ablation.step_flops(config, t_c)[name] for name, n in steps.items()}
        assert ablation.planned_steps(config, Cell("steps", t_c, 0)) == {"autoencoder": 200, "planner": 300}
    for name, budget in spent[16].items():
        assert spent[64][name] == pytest.approx(budget, rel=0.02)
        assert spent[4][name] == pytest.approx(budget, rel=0.05)


@pytest.mark.parametrize("t_c", AblationConfig().factors)
def test_networks_of_every_factor_fit_together(t_c):
    config = AblationConfig()
    with torch.device("meta"):
        shape = config.autoencoder(t_c), config.planner(t_c)
        planner = ablation.FlowMatcher(shape[1])
    assert shape[1].latent_shape == (64 // t_c, 8, 8, 16) and len(planner.place) == 16 * 64 // t_c
    model = ablation.TrackAutoencoder(shape[0])
    assert model.latent_shape == shape[1].latent_shape


@pytest.mark.parametrize("t_c", [1, 2])
def test_the_smallest_windows_describe_any_motion_exactly(t_c):
    basis = ablation.TrackAutoencoder(AblationConfig().autoencoder(t_c)).codec.basis
    draw = torch.Generator().manual_seed(0)
    tracks = torch.randn(2, 3, 64, 2, generator=draw)
    basis.measure(tracks)
    moves = tracks - tracks[:, :, :1]
    torch.testing.assert_close(basis.displacement(basis.coefficients(moves)), moves, atol=1e-4, rtol=0)


def test_rows_hold_what_is_measured(swept):
    folder, rows, lines = swept
    assert [(row["mode"], row["t_c"]) for row in rows] == [("compute", 64), ("compute", 16), ("steps", 64), ("steps", 16)]
    assert len(lines) == 4 and "Min-MSE" in lines[0]
    for row in rows:
        assert row["tokens"] == 4 * row["slices"] == 4 * 64 // row["t_c"]
        assert row["static_mse"] > 0 and 0 < row["min_mse"] <= row["mean_mse"] and row["sample_gflops"] > 0
        assert 0 <= row["delta_avg"] <= 100 and row["sample_seconds"] > 0
        for feature in row["knn"]["trained"].values():
            assert all(0 <= value <= 100 for value in feature.values()) and set(feature) == {"1", "5", "20"}
    assert {"raw", "random", "untrained"} <= rows[0]["knn"].keys() and "raw" not in rows[2]["knn"]
    assert rows[1]["sample_gflops"] > rows[0]["sample_gflops"]


def test_the_modes_meet_at_the_pivot(swept):
    _, rows, _ = swept
    assert rows[3] == {**rows[1], "mode": "steps", "shared": True, "cell_seconds": 0.0}
    assert rows[0]["planner_steps"] > rows[2]["planner_steps"] == 2


def test_a_finished_sweep_does_nothing(swept):
    folder, rows, _ = swept
    before = (folder / ablation.ROWS).stat().st_mtime_ns
    lines = []
    assert ablation.sweep(folder, TINY, say=lines.append) == rows
    assert not lines and (folder / ablation.ROWS).stat().st_mtime_ns == before


def test_a_sweep_goes_on_where_it_stopped(swept, tmp_path):
    _, rows, _ = swept
    (tmp_path / ablation.ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    lines = []
    assert ablation.sweep(tmp_path, TINY, say=lines.append) == rows
    assert len(lines) == 1


def test_rows_of_another_config_are_not_mixed(swept):
    folder, _, _ = swept
    with pytest.raises(ValueError, match="another config"):
        ablation.sweep(folder, replace(TINY, width=18))
    with pytest.raises(ValueError, match="another config"):
        ablation.ship(folder, folder / "x.json", replace(TINY, width=18))
    assert replace(TINY, seeds=(0, 1)).digest == TINY.digest, "more seeds go on in the same folder"


def test_training_repeats_with_its_seed():
    clips = ablation.scene_clips(8, 1, size=16)
    run = lambda seed: ablation.train_cell(TINY, Cell("steps", 64, seed), clips).planner.place
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_the_shipped_file_says_what_made_it(swept, tmp_path):
    folder, rows, _ = swept
    about, read = ablation.load_shipped(ablation.ship(folder, tmp_path / "deep" / "compression.json", TINY))
    assert about["cells"] == "4 of 4" and about["config"]["planner_steps"] == 2 and about["torch"] == torch.__version__
    assert [row["min_mse"] for row in read] == pytest.approx([row["min_mse"] for row in rows], rel=1e-4)
    assert read[0]["knn"].keys() == rows[0]["knn"].keys()
    assert not list(tmp_path.rglob(".*")), "no partial file stays behind"


def test_nothing_measured_cannot_be_shipped(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the sweep"):
        ablation.ship(tmp_path, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_held_out_seeds_are_apart():
    assert len({ablation.TRAIN_SEED, ablation.TEST_SEED, knn.REFERENCE_SEED, knn.PROBE_SEED}) == 4
