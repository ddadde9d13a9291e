"""The noise schedule and the solvers, against denoisers that are known in closed form."""

import math

import pytest
import torch

from kinelib.kimodo.diffusion import STEPS, ddim, dpm_solver, even_steps, log_steps, q_sample, signal_levels
from kinelib.notation import ShapeError

LEVELS = torch.tensor(signal_levels(), dtype=torch.float64)
SPREAD = torch.tensor([1.5, 1.0, 0.5, 0.2, 0.05], dtype=torch.float64)
MEAN = torch.tensor([0.0, 0.5, -1.0, 1.0, 0.3], dtype=torch.float64)
MODES = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)


def gaussian(noisy, steps):
    """The exact denoiser of independent Gaussian channels."""
    level = LEVELS[steps][:, None]
    return MEAN + SPREAD**2 * level.sqrt() / (level * SPREAD**2 + 1 - level) * (noisy - level.sqrt() * MEAN)


def points(noisy, steps):
    """The exact denoiser of data that are one of three points."""
    level = LEVELS[steps][:, None, None]
    distance = (noisy[:, None] - level.sqrt() * MODES).square().sum(-1) / (2 * (1 - level[..., 0]))
    return (-distance).softmax(-1) @ MODES


def start(channels, count=500):
    return torch.randn(count, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


# ---- schedule


def test_the_schedule_is_a_cosine_until_its_end():
    curve = lambda step: math.cos((step / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2
    for step in (0, 10, 500, 990):
        assert LEVELS[step] == pytest.approx(curve(step + 1) / curve(0), rel=1e-6)
    assert LEVELS[-1] / LEVELS[-2] == pytest.approx(0.001)  # beta is cut off at 0.999
    assert (LEVELS[1:] < LEVELS[:-1]).all() and 0 < LEVELS[-1] < LEVELS[0] < 1


def test_noising_mixes_signal_and_noise_by_their_variance():
    clean, noise = torch.full((3, 2, 4), 2.0), torch.ones(3, 2, 4)
    steps = torch.tensor([0, 500, 999])
    out = q_sample(clean, steps, noise)
    expected = 2 * LEVELS[steps].sqrt() + (1 - LEVELS[steps]).sqrt()
    assert torch.allclose(out[:, 1, 3].double(), expected, atol=1e-6) and out.dtype == clean.dtype
    with pytest.raises(ShapeError, match="shape of the clean features"):
        q_sample(clean, steps, noise[:2])
    with pytest.raises(ShapeError, match=r"0..999; got 0 to 1000"):
        q_sample(clean, torch.tensor([0, 5, 1000]), noise)


def test_official_steps_of_the_first_solver():
    assert even_steps(5) == [999, 749, 500, 250, 0]
    assert even_steps(2) == [999, 0] and even_steps(1000) == list(range(999, -1, -1))


@pytest.mark.parametrize("count", [2, 3, 7, 20, 100, 700, 1000])
@pytest.mark.parametrize("spacing", [even_steps, log_steps])
def test_steps_fall_from_noise_to_data_without_repeating(spacing, count):
    visited = spacing(count)
    assert len(visited) == count and (visited[0], visited[-1]) == (999, 0)
    assert all(after < before for before, after in zip(visited, visited[1:], strict=False))


def test_the_second_solvers_strides_are_even_in_log_signal_to_noise():
    visited = log_steps(12)[1:]
    ratio = (LEVELS[visited] / (1 - LEVELS[visited])).log()
    strides = ratio.diff()
    assert strides[:-2].max() / strides[:-2].min() < 1.1


@pytest.mark.parametrize("count", [1, 0, 1001])
def test_a_number_of_steps_that_makes_no_sense_is_refused(count):
    for solver in (ddim, dpm_solver):
        with pytest.raises(ValueError, match=r"2..1000 steps"):
            solver(gaussian, start(5, 2), count)


# ---- solvers


def test_both_solvers_reach_the_distribution_of_gaussian_data():
    for solver, steps in ((ddim, 1000), (dpm_solver, 50)):
        drawn = solver(gaussian, start(5, 4000), steps)
        assert torch.allclose(drawn.mean(0), MEAN, atol=0.06)
        assert torch.allclose(drawn.std(0) / SPREAD, torch.ones(5, dtype=torch.float64), atol=0.05)


def test_gaussian_draws_are_the_noise_scaled_and_moved():
    # The probability flow of Gaussian data is linear: a draw is its mean plus its spread times the start noise.
    noise = start(5)
    drawn = dpm_solver(gaussian, noise, 100)
    assert torch.allclose(drawn, MEAN + SPREAD * noise, atol=0.02)


def test_draws_of_separate_points_are_those_points():
    for solver in (ddim, dpm_solver):
        drawn = solver(points, start(2), 20)
        nearest = torch.cdist(drawn, MODES).min(dim=1)
        assert (nearest.values < 1e-3).float().mean() > 0.99
        assert set(nearest.indices.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("denoise", "channels"), [(gaussian, 5), (points, 2)])
def test_twenty_second_order_steps_are_nearer_to_the_end_than_twenty_of_ddim(denoise, channels):
    noise = start(channels)
    limit = ddim(denoise, noise, 1000)
    error = lambda drawn: float((drawn - limit).square().mean().sqrt())
    assert error(dpm_solver(denoise, noise, 20)) < 0.75 * error(ddim(denoise, noise, 20))


def test_twenty_second_order_steps_are_nearer_to_the_end_than_a_hundred_of_ddim():
    noise = start(5)
    error = lambda drawn: float((drawn - (MEAN + SPREAD * noise)).square().mean().sqrt())
    assert error(dpm_solver(gaussian, noise, 20)) < error(ddim(gaussian, noise, 100))


def test_the_second_solver_is_of_second_order():
    noise = start(5)
    limit = MEAN + SPREAD * noise

    def error(solver, steps):
        return float((solver(gaussian, noise, steps)[:, :2] - limit[:, :2]).square().mean().sqrt())

    assert error(ddim, 10) / error(ddim, 20) == pytest.approx(2, rel=0.3)
    assert error(dpm_solver, 10) / error(dpm_solver, 20) > 3


@pytest.mark.parametrize("solver", [ddim, dpm_solver])
def test_a_draw_depends_on_its_own_start_only_and_ends_with_the_last_prediction(solver):
    noise = start(5, 6)
    drawn, calls = solver(gaussian, noise, 8), []
    assert torch.equal(solver(gaussian, noise, 8), drawn)
    assert torch.allclose(solver(gaussian, noise[2:3], 8)[0], drawn[2], atol=1e-12)
    told = []
    last = solver(lambda x, s: calls.append(s) or gaussian(x, s) * 0 + 4.0, noise, 8, lambda *done: told.append(done))
    assert (last == 4).all() and [int(s[0]) for s in calls][-1] == 0 and len(calls) == 8
    assert told == [(number, 8) for number in range(1, 9)]
