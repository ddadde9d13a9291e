"""The corrector finds the minimum it promises, meets pins exactly and radii closely, and leaves alone what it may."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from kinelib.kimodo.trajectory import correct, correct_rotations, follow, matrices_of, speed_weights, vectors_of
from kinelib.notation import ShapeError


def path(frames=60, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(frames, 2)) * 0.02, axis=0)


def cost(y, position=1e-3, velocity=1.0, acceleration=10.0):
    steps = np.diff(y, axis=0)
    return position * (y**2).sum() + velocity * (steps**2).sum() + acceleration * (np.diff(steps, axis=0) ** 2).sum()


def flags(frames, *at):
    found = np.zeros(frames, bool)
    found[list(at)] = True
    return found


def test_pins_are_met_exactly_and_ends_are_carried_along():
    x = path()
    pinned = flags(60, 10, 40)
    result = correct(x, pinned, x + [0.3, -0.1])
    assert np.array_equal(result[pinned], (x + [0.3, -0.1])[pinned])
    moved = (result - x)[:, 0]
    assert 0.2 < moved[25] < 0.31 and 0.05 < moved[0] < 0.3, "frames near a pin move with it"
    assert np.abs(np.diff(moved)).max() < 0.03, "and the correction does not jump"


def test_one_linear_system_agrees_with_a_dense_solve():
    x, pinned = path(30), flags(30, 0, 7, 29)
    target = x + np.random.default_rng(1).normal(size=x.shape)
    weights = np.linspace(0.5, 2, 29)
    first, second = np.diff(np.eye(30), axis=0), np.diff(np.eye(30), 2, axis=0)
    matrix = 0.02 * np.eye(30) + first.T @ (weights[:, None] * first) + 3 * second.T @ second
    y = np.zeros_like(x)
    y[pinned] = (target - x)[pinned]
    y[~pinned] = np.linalg.solve(matrix[np.ix_(~pinned, ~pinned)], -matrix[np.ix_(~pinned, pinned)] @ y[pinned])
    result = correct(x, pinned, target, position=0.02, velocity=weights, acceleration=3.0)
    np.testing.assert_allclose(result, x + y, atol=1e-10)


def test_radii_hold_and_reach_the_least_cost():
    x = path(14)
    centre, radius = x + [0.3, 0.0], np.full(14, np.nan)
    radius[4:9] = 0.04
    result = correct(x, np.zeros(14, bool), centre, radius=radius)
    away = np.linalg.norm(result - centre, axis=1)[4:9]
    assert away.max() <= 0.04 + 2e-6
    inside = lambda y: 0.04**2 - ((y.reshape(14, 2) + x - centre)[4:9] ** 2).sum(1)
    of = lambda y: 100 * cost(y.reshape(14, 2))
    best = minimize(of, (result - x).ravel(), constraints={"type": "ineq", "fun": inside}, options={"maxiter": 15})
    assert of(result - x) <= best.fun * 1.002


def test_what_is_within_its_radius_stays():
    x = path()
    np.testing.assert_allclose(correct(x, np.zeros(60, bool), x, radius=np.full(60, 0.05)), x, atol=1e-7)


def test_pins_win_over_radii_and_nothing_asked_changes_nothing():
    x = path()
    assert np.array_equal(correct(x, np.zeros(60, bool), np.full((60, 2), np.nan)), x)
    result = correct(x, flags(60, 5), x + 0.2, radius=np.full(60, 0.5))
    assert np.allclose(result[5], x[5] + 0.2)


def test_free_frames_are_not_pulled_back():
    x, pinned = np.zeros((101, 1)), flags(101, 50)
    pulled = correct(x, pinned, np.ones((101, 1)))
    free = correct(x, pinned, np.ones((101, 1)), free=np.arange(101) > 50)
    assert free[100, 0] > 0.95 > pulled[100, 0]
    assert free[0, 0] == pytest.approx(pulled[0, 0], abs=0.02)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_short_clips(frames):
    result = correct(np.zeros((frames, 2)), flags(frames, 0), np.ones((frames, 2)))
    assert np.allclose(result[0], 1) and np.isfinite(result).all()


def test_slow_frames_are_protected():
    x = np.concatenate([np.zeros(30), np.linspace(0, 3, 30)])[:, None]
    pinned = flags(60, 0, 59)
    moved = correct(x, pinned, x + np.linspace(0, 0.2, 60)[:, None], velocity=speed_weights(x)) - x
    assert np.abs(np.diff(moved[:28, 0])).max() < 1e-3 < np.abs(np.diff(moved[32:, 0])).max()


def test_rotations_reach_their_pins_and_stay_rotations():
    generator = np.random.default_rng(3)
    turns = matrices_of(np.cumsum(generator.normal(size=(40, 5, 3)) * 0.05, axis=0))
    targets = matrices_of(generator.normal(size=(40, 5, 3))) @ turns
    pinned = flags(40, 4, 20)
    result = correct_rotations(turns, pinned, targets)
    assert np.array_equal(result[pinned], targets[pinned])
    np.testing.assert_allclose(result @ result.swapaxes(-1, -2), np.broadcast_to(np.eye(3), result.shape), atol=1e-9)
    assert np.array_equal(correct_rotations(turns, np.zeros(40, bool), targets), turns)


def test_a_single_pinned_turn_is_carried_by_its_neighbours():
    turns, quarter = np.tile(np.eye(3), (41, 1, 1)), Rotation.from_rotvec([0, np.pi / 2, 0]).as_matrix()
    result = correct_rotations(turns, flags(41, 20), np.tile(quarter, (41, 1, 1)))
    angle = vectors_of(result)
    assert angle[20, 1] == pytest.approx(np.pi / 2) and np.abs(angle[:, [0, 2]]).max() < 1e-9
    assert (np.diff(angle[:21, 1]) > 0).all() and (np.diff(angle[20:, 1]) < 0).all()


def test_bad_input_is_named():
    x = path()
    with pytest.raises(ShapeError, match="pinned must be"):
        correct(x, np.zeros(59, bool), x)
    with pytest.raises(ShapeError, match="must be finite"):
        correct(x, flags(60, 3), np.full_like(x, np.nan))
    with pytest.raises(ValueError, match="frame 4 has one"):
        correct(x, np.zeros(60, bool), x, radius=np.where(np.arange(60) == 4, -1.0, np.nan))
    with pytest.raises(ValueError, match="undetermined"):
        correct(x, flags(60, 3), x, position=0.0, velocity=0.0)
    with pytest.raises(ValueError, match="negative"):
        correct(x, flags(60, 3), x, position=-1.0)


def dense_follow(x, steps, weights, position, acceleration, pins=(), values=None):
    """The same minimum by normal equations with the pins as Lagrange multipliers."""
    count = len(x)
    first = np.diff(np.eye(count), axis=0)
    second = np.diff(first, axis=0)
    matrix = position * np.eye(count) + first.T @ np.diag(weights) @ first + acceleration * second.T @ second
    right = first.T @ (weights[:, None] * steps)
    rows = np.eye(count)[list(pins)]
    system = np.block([[matrix, rows.T], [rows, np.zeros((len(pins), len(pins)))]])
    given = (values - x)[list(pins)] if len(pins) else np.zeros((0, x.shape[1]))
    return x + np.linalg.solve(system, np.concatenate([right, given]))[:count]


def test_following_steps_agrees_with_a_dense_solve():
    x, random = path(30), np.random.default_rng(2)
    steps, weights = random.normal(size=(29, 2)) * 0.02, random.uniform(0.2, 2, size=29)
    found = follow(x, steps, weights, position=1e-3, acceleration=5.0)
    np.testing.assert_allclose(found, dense_follow(x, steps, weights, 1e-3, 5.0), atol=1e-9)
    np.testing.assert_allclose(follow(x, 0 * steps, weights), x, atol=1e-12)
    even = follow(x, np.full((29, 2), 0.01), 1.0, position=1e-9, acceleration=5.0)
    np.testing.assert_allclose(np.diff(even - x, axis=0), 0.01, atol=1e-4)


def test_following_and_then_pinning_is_one_joint_problem():
    x, random = path(30), np.random.default_rng(3)
    steps, weights = random.normal(size=(29, 2)) * 0.02, random.uniform(0.2, 2, size=29)
    given = dict(position=1e-3, acceleration=5.0)
    target = x + 0.3
    pinned = correct(follow(x, steps, weights, **given), flags(30, 4, 20), target, velocity=weights, **given)
    np.testing.assert_allclose(pinned, dense_follow(x, steps, weights, 1e-3, 5.0, (4, 20), target), atol=1e-9)


def test_wrong_steps_are_refused():
    with pytest.raises(ShapeError, match="steps must be"):
        follow(path(10), np.zeros((10, 2)), 1.0)
