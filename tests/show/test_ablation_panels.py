"""Verdicts on made-up sweeps whose answer is known, and the panels."""

import math

import pytest

from kinelib.show import ablation
from kinelib.show.ablation import APPEARS, OPPOSITE, UNCLEAR

FACTORS = (1, 2, 4, 8, 16, 32, 64)


def row(mode, t_c, seed, error, accuracy=30.0, controls=True):
    by = lambda value: {"flat": {"1": value, "5": value, "20": value}, "pooled": {"1": value, "5": value, "20": value}}
    others = {"raw": by(20.0 + seed), "random": by(10.0), "untrained": by(accuracy)} if controls else {}
    return {
        "mode": mode, "t_c": t_c, "seed": seed, "min_mse": error, "delta_avg": 95 - math.log2(t_c) - 0.1 * seed,
        "sample_seconds": 2.0 / t_c, "sample_gflops": 64.0 / t_c, "knn": {"trained": by(accuracy), **others},
        "chance": {"draw": 3.0, "majority": 6.0},
    }  # fmt: skip


def sweep(curve, seeds=3, mode="compute", **options):
    return [row(mode, t_c, seed, curve(t_c, seed), **options) for seed in range(seeds) for t_c in FACTORS]


falls = lambda t_c, seed: 50 + 50 / t_c + seed
rises = lambda t_c, seed: 50 + t_c + seed
humps = lambda t_c, seed: 50 + 10 * abs(math.log2(t_c) - 3) + seed


@pytest.mark.parametrize(("curve", "verdict"), [(falls, APPEARS), (rises, OPPOSITE), (humps, UNCLEAR)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_numbers(curve, verdict, seeds):
    found = ablation.verdicts(sweep(curve, seeds), "compute")[0]
    assert found.verdict == verdict and found.seeds == seeds
    assert found.change == pytest.approx(curve(64, 0) - curve(1, 0))
    assert math.isnan(found.low) == (seeds == 1)


def test_p_of_one_seed_is_what_counting_gives():
    values = {0: dict(zip(FACTORS[:4], (4.0, 3.0, 2.0, 1.0), strict=True))}
    found = ablation.trend(values, "falls", -1)
    assert found.p == pytest.approx(1 / 24, abs=0.005)
    assert ablation.trend(values, "rises", 1).p == pytest.approx(1.0)


def test_ties_are_no_trend():
    found = ablation.trend({seed: dict.fromkeys(FACTORS, 5.0) for seed in range(3)}, "falls", -1)
    assert found.verdict == UNCLEAR and found.change == 0


def test_noise_seldom_appears():
    import numpy as np

    draw = np.random.default_rng(0)
    tables = [{s: dict(zip(FACTORS, draw.normal(size=7), strict=True)) for s in range(3)} for _ in range(60)]
    said = [ablation.trend(table, "falls", -1, draws=1000).verdict for table in tables]
    assert said.count(APPEARS) <= 8 and said.count(UNCLEAR) >= 45


def test_a_trend_needs_three_factors_and_a_direction():
    with pytest.raises(ValueError, match="3 t_c"):
        ablation.trend({0: {1: 2.0, 2: 3.0}}, "x", 1)
    with pytest.raises(ValueError, match="direction"):
        ablation.trend({0: {1: 1.0, 2: 2.0, 4: 3.0}}, "x", 2)


def test_differences_are_judged_by_their_interval():
    assert ablation.difference([1.0, 1.1, 0.9], "x").verdict == APPEARS
    assert ablation.difference([-1.0, -1.1, -0.9], "x").verdict == OPPOSITE
    assert ablation.difference([1.0, -1.0, 0.5], "x").verdict == UNCLEAR
    assert ablation.difference([5.0], "x").verdict == UNCLEAR
    one = ablation.difference([1.0, 3.0], "x")
    assert one.change == 2 and one.high - 2 == pytest.approx(12.706 * 2**0.5 / 2**0.5, rel=1e-3)


def test_flattening_and_controls():
    found = {one.claim: one for one in ablation.verdicts(sweep(falls), "compute")}
    flat = next(one for claim, one in found.items() if "flattens" in claim)
    assert flat.verdict == APPEARS
    assert flat.change == pytest.approx((50 - 50 / 32) / 5 - (50 / 32 - 50 / 64))
    raw = next(one for claim, one in found.items() if "raw tracks" in claim)
    assert raw.change == pytest.approx(30 - 21) and raw.verdict == APPEARS
    untrained = next(one for claim, one in found.items() if "untrained" in claim)
    assert untrained.change == 0 and untrained.verdict == UNCLEAR


def test_controls_are_shared_between_modes():
    rows = sweep(falls) + sweep(rises, mode="steps", controls=False)
    assert all("raw" in one["knn"] for one in ablation.with_controls(rows))
    assert "raw" not in rows[-1]["knn"], "the rows given stay as they are"
    assert len(ablation.verdicts(rows, "steps")) == len(ablation.verdicts(rows, "compute")) == 8


def test_an_unfinished_seed_is_left_out():
    rows = sweep(falls)[:-2]
    assert set(ablation.by_seed(rows, "compute", "min_mse")) == {0, 1}
    assert ablation.verdicts(rows, "compute")[0].seeds == 2
    assert "(2 seeds)" in ablation.verdict_table(rows, ("compute",))


def test_what_is_absent_is_named():
    with pytest.raises(KeyError, match=r"knn.trained.flat.7.*'7'"):
        ablation.value_of(row("compute", 1, 0, 1.0), "knn.trained.flat.7")
    with pytest.raises(ValueError, match="no row of mode 'steps'"):
        ablation.by_seed(sweep(falls), "steps", "min_mse")


def test_the_best_factor():
    assert ablation.best_factor(sweep(humps), "compute") == 8
    assert ablation.best_factor(sweep(falls), "compute") == 64


def test_the_table_says_both_modes():
    lines = ablation.verdict_table(sweep(falls) + sweep(rises, mode="steps")).splitlines()
    assert len(lines) == 2 + 8 and "equal compute (3 seeds)" in lines[0]
    assert "**appears**" in lines[2] and "**the opposite**" in lines[2]


def test_panels_show_every_factor_with_its_name():
    figure = ablation.ablation_panels(sweep(falls) + sweep(rises, mode="steps", controls=False))
    assert len(figure.axes) == 6
    for panel in (figure.axes[0], figure.axes[1]):
        assert {text.get_text() for text in panel.texts} == {str(t_c) for t_c in FACTORS}
    curve = figure.axes[0].lines[0].get_xydata()
    assert curve[0] == pytest.approx([1, falls(1, 1)]) and curve[-1] == pytest.approx([64, falls(64, 1)])
    assert len(figure.axes[2].get_legend().get_texts()) == 5
    figure.canvas.draw()


def test_one_mode_is_one_row_of_panels():
    assert len(ablation.ablation_panels(sweep(falls, seeds=1), ("compute",), knn="pooled.20").axes) == 3


def test_neighbours_beside_their_controls_share_one_legend():
    figure = ablation.neighbour_panels(sweep(falls))
    assert [panel.get_legend() is not None for panel in figure.axes] == [False, True]
    assert ["flat" in figure.axes[0].get_ylabel(), "pooled" in figure.axes[1].get_ylabel()] == [True, True]
