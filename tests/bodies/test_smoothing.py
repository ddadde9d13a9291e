"""The smoothed root: straight lines stay, circles shrink by 6 cm, nobody is moved further, and a batch changes nothing."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from kinelib.bodies.smoothing import MARGIN, curvature_cost, smooth_root
from kinelib.notation import ShapeError


def walk(frames=100, seed=0, sway=0.03):
    """A pelvis that wanders at 1.2 m/s and sways to both sides with every stride, at 20 fps."""
    rng = np.random.default_rng(seed)
    angle = np.cumsum(rng.normal(0, 0.05, frames))
    ahead = np.stack([np.sin(angle), np.cos(angle)], 1)
    aside = np.stack([np.cos(angle), -np.sin(angle)], 1) * sway * np.sin(np.arange(frames) * 0.3)[:, None]
    return torch.from_numpy(np.cumsum(ahead * 1.2 / 20, 0) + aside)


def distances(path, smooth):
    return (smooth - path).norm(dim=-1)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 100, 300])
def test_a_straight_line_stays_as_it_is(frames):
    line = torch.arange(frames, dtype=torch.float64)[:, None] * torch.tensor([0.05, 0.09], dtype=torch.float64) + 3
    assert distances(line, smooth_root(line)).max() < 1e-7


def test_a_circle_shrinks_to_one_that_is_smaller_by_the_margin():
    # By symmetry the straightest closed path within the margin is the concentric circle on the inner edge of the discs.
    angle = torch.arange(400, dtype=torch.float64) * (2 * math.pi / 80)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    radius = smooth_root(circle, iterations=1500).norm(dim=-1)
    assert (radius[100:300] - (1 - MARGIN)).abs().max() < 5e-4


def test_swaying_inside_the_margin_becomes_the_line_of_least_squares():
    # Many straight lines stay within the margin; the pull to the pelvis chooses the one that is nearest to it.
    angle = torch.arange(100, dtype=torch.float64) * (2 * math.pi / 40)
    path = torch.stack([angle.cos(), angle.sin()], -1) * 0.04
    line = torch.from_numpy(np.stack([np.polyval(np.polyfit(np.arange(100), one, 1), np.arange(100)) for one in path.T], -1))
    smooth = smooth_root(path)
    assert distances(smooth, line).max() < 1e-3 < distances(path, line).max() / 20
    assert curvature_cost(smooth[None]) < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_no_point_is_moved_by_more_than_the_margin_and_bends_become_few(seed):
    path = walk(seed=seed)
    smooth = smooth_root(path)
    assert distances(path, smooth).max() <= MARGIN + 1e-12
    assert curvature_cost(smooth[None]) < 0.05 * curvature_cost(path[None])


def test_it_is_the_least_that_a_general_solver_finds():
    path = walk(24, sway=0.08).numpy()
    bends = np.diff(np.eye(len(path)), 2, axis=0)
    hessian = 2e4 * np.kron(bends.T @ bends, np.eye(2))
    cost = lambda x: 0.5 * x @ hessian @ x
    away = lambda x: x.reshape(-1, 2) - path
    # Derivatives are given: with differences for them the solver wanders around the minimum until its steps are used up.
    slopes = lambda x: -2 * (np.eye(len(path))[:, :, None] * away(x)[:, None]).reshape(len(path), -1)
    limits = {"type": "ineq", "fun": lambda x: MARGIN**2 - np.square(away(x)).sum(1), "jac": slopes}
    options = {"maxiter": 500, "ftol": 1e-10}
    found = minimize(cost, path.ravel(), method="SLSQP", jac=lambda x: hessian @ x, constraints=[limits], options=options)
    assert found.success
    smooth = smooth_root(torch.from_numpy(path))
    assert float(curvature_cost(smooth[None])) * 1e4 == pytest.approx(found.fun, rel=5e-3, abs=1e-5)


def test_there_is_no_shift_in_time():
    # A walk along x whose speed changes: were the result late or early, it would be off along the direction of walking.
    t = torch.arange(200, dtype=torch.float64) / 20
    path = torch.stack([3 * t, 0.03 * (6 * t).sin()], -1)
    assert (smooth_root(path) - path)[:, 0].abs().max() < 1e-6
    forwards, backwards = smooth_root(walk()), smooth_root(walk().flip(0)).flip(0)
    assert distances(forwards, backwards).max() < 1e-9


def test_turning_and_moving_a_path_turns_and_moves_the_result():
    path = walk()
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    there = torch.tensor([100.0, -7.0], dtype=torch.float64)
    assert distances(smooth_root(path @ turn + there), smooth_root(path) @ turn + there).max() < 1e-7


def test_every_clip_of_a_batch_is_smoothed_as_if_it_were_alone():
    clips = [walk(frames, seed) for seed, frames in enumerate((60, 1, 2, 41, 3))]
    batch = torch.full((5, 60, 2), float("nan"), dtype=torch.float64)
    for row, clip in enumerate(clips):
        batch[row, : len(clip)] = clip
    smooth = smooth_root(batch, torch.tensor([len(clip) for clip in clips]))
    for row, clip in zip(smooth, clips, strict=True):
        assert torch.equal(row[: len(clip)], smooth_root(clip))
        assert torch.equal(row[len(clip) :], row[len(clip) - 1].expand(60 - len(clip), 2))


def test_type_and_margin_are_kept():
    path = walk(30).float()
    assert smooth_root(path).dtype == torch.float32
    assert torch.equal(smooth_root(path, margin=0.0), path)
    assert smooth_root(torch.zeros(0, 5, 2)).shape == (0, 5, 2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"path": torch.zeros(5, 3)}, ShapeError, "path must have shape"),
        ({"path": torch.zeros(2, 5, 2), "lengths": torch.tensor([6, 1])}, ShapeError, "1..5"),
        ({"path": torch.zeros(2, 5, 2), "lengths": torch.tensor([0, 1])}, ShapeError, "1..5"),
        ({"path": torch.full((5, 2), float("nan"))}, ShapeError, "NaN"),
        ({"path": torch.zeros(5, 2), "margin": -1.0}, ValueError, "margin"),
        ({"path": torch.zeros(5, 2), "iterations": 0}, ValueError, "iterations"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        smooth_root(**options)
