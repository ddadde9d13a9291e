"""The solvers on fields whose answers are known: from noise to one Gaussian, and to a mixture of two."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinelib.notation import ShapeError
from kinelib.zipmo.flow import (
    count_evaluations,
    estimate_data,
    estimate_noise,
    flow_path,
    integrate,
    sample_time,
    shift_time,
    solve,
    time_grid,
)

MEAN, DEVIATION = 0.7, 0.3


def gaussian_velocity(x, t):
    """E[noise - data | x_t = x] for data ~ N(MEAN, DEVIATION^2), noise ~ N(0, 1)."""
    t = t[:, None]
    variance = (1 - t) ** 2 * DEVIATION**2 + t**2
    return -MEAN + (t - (1 - t) * DEVIATION**2) / variance * (x - (1 - t) * MEAN)


def mixture_velocity(x, t):
    """The same for data ~ an equal mixture of N(MEAN, DEVIATION^2) and N(-MEAN, DEVIATION^2)."""
    t = t[:, None]
    variance = (1 - t) ** 2 * DEVIATION**2 + t**2
    upper = torch.sigmoid(2 * x * (1 - t) * MEAN / variance)
    gain = (t - (1 - t) * DEVIATION**2) / variance
    return upper * (-MEAN + gain * (x - (1 - t) * MEAN)) + (1 - upper) * (MEAN + gain * (x + (1 - t) * MEAN))


def mixture_data(noise):
    """On a line, flows keep the order of points: noise at a quantile ends at the same quantile of the data (bisection)."""
    wanted = torch.special.ndtr(noise)
    low, high = torch.full_like(noise, -5), torch.full_like(noise, 5)
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(torch.special.ndtr((middle - mean) / DEVIATION) for mean in (MEAN, -MEAN)) / 2 < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def error(method, steps, velocity=mixture_velocity):
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    calls = []

    def counted(x, t):
        calls.append(t)
        return velocity(x, t)

    data = solve(counted, noise, steps, method)
    assert len(calls) == count_evaluations(method, steps)
    truth = mixture_data(noise) if velocity is mixture_velocity else MEAN + DEVIATION * noise
    return float((data - truth).abs().mean())


@pytest.mark.parametrize(
    ("method", "velocity", "order"),
    [
        ("euler", gaussian_velocity, 1),
        ("heun", gaussian_velocity, 2),
        # Between Gaussians the midpoint rule's leading error vanishes identically, whatever the grid: order 3, a gift.
        ("midpoint", gaussian_velocity, 3),
        ("euler", mixture_velocity, 1),
        ("heun", mixture_velocity, 2),
        ("midpoint", mixture_velocity, 2),
    ],
)
def test_convergence_order(method, velocity, order):
    coarse, fine = error(method, 128, velocity), error(method, 256, velocity)
    assert fine > 1e-9
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("method", ["midpoint", "heun"])
def test_second_order_wins_at_equal_evaluations(method):
    assert count_evaluations(method, 16) <= count_evaluations("euler", 32)
    assert error(method, 16) < error("euler", 32) / 3


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_samples_have_the_data_distribution(method, shift):
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    data = solve(gaussian_velocity, noise, 200, method, shift)
    assert float(data.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(data.std()) == pytest.approx(DEVIATION, abs=0.02)


def test_path_ends_and_estimates():
    generator = torch.Generator().manual_seed(1)
    data, noise = torch.randn(4, 3, 2, generator=generator), torch.randn(4, 3, 2, generator=generator)
    assert torch.equal(flow_path(data, noise, torch.zeros(4)).x_t, data)
    assert torch.equal(flow_path(data, noise, torch.ones(4)).x_t, noise)
    t = torch.tensor([0.1, 0.4, 0.5, 0.9])
    sample = flow_path(data, noise, t)
    torch.testing.assert_close(sample.velocity, noise - data)
    torch.testing.assert_close(estimate_data(sample.x_t, sample.velocity, t), data)
    torch.testing.assert_close(estimate_noise(sample.x_t, sample.velocity, t), noise)


def test_velocity_is_the_time_derivative_of_the_path():
    data, noise, t = torch.tensor([[2.0]]).double(), torch.tensor([[-1.0]]).double(), torch.tensor([0.3]).double()
    ahead, behind = flow_path(data, noise, t + 1e-4).x_t, flow_path(data, noise, t - 1e-4).x_t
    torch.testing.assert_close((ahead - behind) / 2e-4, flow_path(data, noise, t).velocity)


def test_time_is_logit_normal_and_the_shift_moves_it_towards_noise():
    draw = lambda shift: sample_time(50_000, torch.Generator().manual_seed(3), shift)
    plain = draw(1.0)
    logits = plain.logit()
    assert float(logits.mean()) == pytest.approx(0, abs=0.02)
    assert float(logits.std()) == pytest.approx(1, abs=0.02)
    # t' = s t / (1 + (s - 1) t) adds log s to the logit.
    torch.testing.assert_close(draw(6.0).logit(), logits + math.log(6), atol=1e-3, rtol=1e-3)
    assert torch.equal(plain, draw(1.0))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(0.05, 20), st.integers(1, 40))
def test_grid_falls_from_one_to_zero(shift, steps):
    grid = time_grid(steps, shift)
    assert grid.shape == (steps + 1,)
    assert grid[0] == 1 and grid[-1] == 0
    assert bool((grid.diff() < 0).all())


def test_shift_has_an_inverse():
    t = torch.linspace(0, 1, 11)
    torch.testing.assert_close(shift_time(shift_time(t, 5.0), 1 / 5.0), t)


def test_integrate_shows_the_whole_path():
    noise = torch.ones(3, 1)
    states = list(integrate(gaussian_velocity, noise, 5, "heun"))
    assert [t for t, _ in states] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert torch.equal(states[0][1], noise)
    assert torch.equal(states[-1][1], solve(gaussian_velocity, noise, 5, "heun"))


def test_bad_input_is_refused_with_a_reason():
    noise = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="euler, midpoint, heun"):
        solve(gaussian_velocity, noise, 4, "rk4")
    with pytest.raises(ValueError, match="at least 1 step"):
        solve(gaussian_velocity, noise, 0)
    for shift in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="shift must be"):
            time_grid(4, shift)
    with pytest.raises(ShapeError, match="returned"):
        solve(lambda x, t: x[:, 0], noise, 4)
    with pytest.raises(ShapeError, match="velocity at t = 1.000"):
        solve(lambda x, t: x * math.nan, noise, 4)
    with pytest.raises(ShapeError, match="one shape"):
        flow_path(noise, torch.zeros(2, 2), torch.zeros(2))
    with pytest.raises(ShapeError, match="one time a sample"):
        flow_path(noise, noise, torch.zeros(3))
    with pytest.raises(ShapeError, match=r"\[0, 1\]"):
        flow_path(noise, noise, torch.tensor([0.0, 1.5]))
