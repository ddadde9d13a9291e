"""The banded corrector: the smallest smooth change of a curve that makes it meet its constraints.

Kimodo's clean-up (Section 3.5 of the paper) rests on one primitive. With y = x - reference it minimises

    sum_t  w_p y_t^2  +  w_v (y_{t+1} - y_t)^2  +  w_a (y_{t-1} - 2 y_t + y_{t+1})^2

subject to frames that are pinned (x_t given) and frames that are held within a radius of a centre; at frames called *free*
w_p is zero. The matrix has five diagonals, so a solve costs a few microseconds a frame with SciPy's banded Cholesky.
Differences are per frame, as in the release, whose weights were chosen at 30 frames a second.

Departures: radii are solved by the same ADMM, and then *polished*: frames that touch their disc become pins and the system
is solved once more, until every disc holds to `TOLERANCE`. Rotations are corrected through the vectors of the rotations that
lead from the reference to the pins, instead of six axis channels followed by a look-at.

Shapes: T frames, C channels that share their pins (x and z of a root, or 3 J numbers of a pose).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_solve_banded, cholesky_banded
from scipy.spatial.transform import Rotation

from kinelib.notation import ShapeError

Array = NDArray[np.float64]
TOLERANCE = 1e-6  # metres by which a frame may leave its disc
ROUNDS = 300  # of ADMM; it converges long before on human paths
POLISHES = 20  # rounds in which frames that left their disc become pins


def correct(
    reference: ArrayLike,
    pinned: ArrayLike,
    values: ArrayLike,
    *,
    radius: ArrayLike | None = None,
    free: ArrayLike | None = None,
    position: float = 1e-3,
    velocity: float | ArrayLike = 1.0,
    acceleration: float = 10.0,
) -> Array:
    """Moves a curve onto its constraints and the rest of it as little and as smoothly as possible.

    Args:
        reference: (T, C) the curve as it is.
        pinned: (T,) bool, the frames that must equal `values`.
        values: (T, C) where pinned frames go and the centres of the discs; ignored elsewhere (NaN is fine there).
        radius: (T,) the frame must end within this of `values`, over all C channels together; NaN: not held. Pins win.
        free: (T,) bool, frames without the pull towards the reference.
        position: w_p, above 0 lets corrections die away from the constraints.
        velocity: w_v, a number or (T - 1,); large where the curve should keep its velocity.
        acceleration: w_a.

    Returns:
        (T, C) the corrected curve.

    Raises:
        ShapeError: for shapes that do not match, or values that are not finite where they count.
        ValueError: for negative weights or radii, or weights that leave the curve undetermined.
    """
    x = np.asarray(reference, float)
    if x.ndim != 2:
        raise ShapeError(f"reference must have shape (T, C); got {x.shape}.")
    pins = _flags("pinned", pinned, len(x))
    goal = np.broadcast_to(np.asarray(values, float), x.shape)
    discs = np.full(len(x), np.nan) if radius is None else np.asarray(radius, float)
    if discs.shape != (len(x),):
        raise ShapeError(f"radius must have shape ({len(x)},), one number a frame or NaN; got {discs.shape}.")
    held = ~np.isnan(discs) & ~pins
    if (discs[held] < 0).any():
        raise ValueError(f"a radius cannot be negative; frame {int(np.flatnonzero(held & (discs < 0))[0])} has one.")
    if not np.isfinite(x).all() or not np.isfinite(goal[pins | held]).all():
        raise ShapeError("the reference and the values of pinned or held frames must be finite.")
    if not (pins | held).any():
        return x.copy()
    weight = np.where(_flags("free", np.zeros(len(x), bool) if free is None else free, len(x)), 0.0, position)
    system = _bands(len(x), weight, velocity, acceleration)
    wanted = np.where((pins | held)[:, None], goal, 0.0) - np.where((pins | held)[:, None], x, 0.0)
    if not held.any():
        return x + _solve(system, pins, wanted)
    return x + _within(system, pins, held, wanted, np.where(held, discs, 0.0))


def correct_rotations(
    reference: ArrayLike,
    pinned: ArrayLike,
    targets: ArrayLike,
    *,
    position: float = 1e-2,
    velocity: float | ArrayLike = 1.0,
    acceleration: float = 10.0,
) -> Array:
    """Turns a sequence of rotations onto its pins, and its neighbourhood smoothly with it.

    Args:
        reference: (T, ..., 3, 3) rotations.
        pinned: (T,) bool.
        targets: (T, ..., 3, 3); only pinned frames are read.
        position, velocity, acceleration: weights as in :func:`correct`.

    Returns:
        (T, ..., 3, 3): exactly `targets` at pinned frames.
    """
    turns = np.asarray(reference, float)
    pins = _flags("pinned", pinned, len(turns))
    if not pins.any():
        return turns.copy()
    shape = turns.shape[:-2]
    offsets = np.zeros((*shape, 3))
    here, there = turns[pins], np.asarray(targets, float)[pins]
    offsets[pins] = vectors_of(there @ here.swapaxes(-1, -2))
    weights = dict(position=position, velocity=velocity, acceleration=acceleration)
    smooth = correct(np.zeros((len(turns), offsets[0].size)), pins, offsets.reshape(len(turns), -1), **weights)
    result = matrices_of(smooth.reshape(offsets.shape)) @ turns
    result[pins] = there
    return result


def follow(
    reference: ArrayLike,
    steps: ArrayLike,
    velocity: float | ArrayLike,
    *,
    position: float = 1e-3,
    acceleration: float = 10.0,
) -> Array:
    """Changes the steps of a curve towards wanted ones by least squares, and the curve itself little and smoothly.

    With y = x - reference it minimises what :func:`correct` does, without pins and with w_v (y_{t+1} - y_t - s_t)^2 for the
    velocity. Because both are quadratic with one matrix, `correct` with the same weights on the result gives the least cost
    of the two together: first `follow`, then pins, is one joint problem solved in two steps.

    Args:
        reference: (T, C) the curve as it is.
        steps: (T - 1, C) by how much each step from a frame to the next should change.
        velocity: w_v, a number or (T - 1,): how much that is wanted.
        position, acceleration: w_p, above 0, and w_a.

    Raises:
        ShapeError: when there is not one step fewer than frames. ValueError: as :func:`correct`.
    """
    x, wanted = np.asarray(reference, float), np.asarray(steps, float)
    if x.ndim != 2 or wanted.shape != (max(len(x) - 1, 0), x.shape[1]):
        raise ShapeError(f"steps must be (T - 1, C) for a reference (T, C); got {wanted.shape} for {x.shape}.")
    system = _bands(len(x), np.full(len(x), float(position)), velocity, acceleration)
    pulled = np.broadcast_to(np.asarray(velocity, float), (len(wanted),))[:, None] * wanted
    push = -np.diff(pulled, axis=0, prepend=0, append=0) if len(wanted) else np.zeros_like(x)
    return x + _solve(system, np.zeros(len(x), bool), np.zeros_like(x), push)


def speed_weights(path: ArrayLike, still: float = 0.05) -> Array:
    """Weights (T - 1,) of velocity that keep slow frames of a (T, C) path from drifting: 1 / max(step / still, 0.001).

    Args:
        path: metres.
        still: the step in metres a frame whose weight is one.
    """
    step = np.linalg.norm(np.diff(np.asarray(path, float), axis=0), axis=-1)
    return 1 / np.maximum(step / still, 1e-3)


def vectors_of(matrices: ArrayLike) -> Array:
    """Rotation vectors (..., 3), axis times angle in radians, of (..., 3, 3) rotations, through SciPy."""
    matrices = np.asarray(matrices, float)
    return Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec().reshape(*matrices.shape[:-2], 3)


def matrices_of(vectors: ArrayLike) -> Array:
    """Rotations (..., 3, 3) of (..., 3) rotation vectors."""
    vectors = np.asarray(vectors, float)
    return Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(*vectors.shape, 3)


def _flags(name: str, flags: ArrayLike, count: int) -> NDArray[np.bool_]:
    flags = np.asarray(flags)
    if flags.shape != (count,) or flags.dtype != bool:
        raise ShapeError(f"{name} must be ({count},) bool, one flag a frame; got {flags.shape} {flags.dtype}.")
    return flags


def _bands(count: int, weight: Array, velocity: float | ArrayLike, acceleration: float) -> Array:
    """The matrix as SciPy's upper bands (3, T): row 2 the diagonal, row 1 one above it, row 0 two above it."""
    steps = np.broadcast_to(np.asarray(velocity, float), (max(count - 1, 0),))
    if (weight < 0).any() or (steps < 0).any() or acceleration < 0:
        raise ValueError("the weights of position, velocity and acceleration cannot be negative.")
    bands = np.zeros((3, count))
    bands[2] = weight
    bands[2, :-1] += steps
    bands[2, 1:] += steps
    bands[1, 1:] -= steps
    if count > 2:
        bands[2, :-2] += acceleration
        bands[2, 1:-1] += 4 * acceleration
        bands[2, 2:] += acceleration
        bands[1, 1:-1] -= 2 * acceleration
        bands[1, 2:] -= 2 * acceleration
        bands[0, 2:] += acceleration
    return bands


def _times(bands: Array, y: Array) -> Array:
    result = bands[2][:, None] * y
    for row, reach in ((1, 1), (0, 2)):
        if len(y) > reach:
            band = bands[row, reach:, None]
            result[:-reach] += band * y[reach:]
            result[reach:] += band * y[:-reach]
    return result


def _without(bands: Array, pins: NDArray[np.bool_]) -> tuple[Array, bool]:
    """The Cholesky factor with the pinned frames taken out (their rows become the identity)."""
    bands = bands.copy()
    bands[2, pins] = 1
    for row, reach in ((1, 1), (0, 2)):
        if len(pins) > reach:
            bands[row, reach:][pins[reach:] | pins[:-reach]] = 0
    try:
        factor = cholesky_banded(bands)
    except LinAlgError:
        factor = np.zeros_like(bands)
    # Rounding lets the factor of a singular matrix through; its smallest pivot gives it away.
    if factor[-1].min() <= 1e-7 * factor[-1].max():
        raise ValueError(
            "these weights leave the curve undetermined: give `position` a small weight, pin more frames, or free fewer."
        )
    return factor, False


def _solve(bands: Array, pins: NDArray[np.bool_], wanted: Array, push: Array | float = 0.0) -> Array:
    """The y of least cost with y = wanted at pins; `push` is added to the right-hand side elsewhere."""
    known = np.where(pins[:, None], wanted, 0.0)
    right = np.where(pins[:, None], wanted, push - _times(bands, known))
    return cho_solve_banded(_without(bands, pins), right)


def _within(bands: Array, pins: NDArray[np.bool_], held: NDArray[np.bool_], centre: Array, radius: Array) -> Array:
    """ADMM over discs, then frames that touch or leave theirs become pins on the edge until none does."""
    weight = 0.5 * np.sqrt(bands[2].max())
    augmented = bands.copy()
    augmented[2, held] += weight
    factor, shift = _without(augmented, pins), _times(bands, np.where(pins[:, None], centre, 0.0))
    mask = held[:, None]
    z = dual = np.zeros_like(centre)
    y = _solve(bands, pins, centre) if pins.any() else np.zeros_like(centre)
    for _ in range(ROUNDS):
        z = np.where(mask, _onto(y + dual, centre, radius), 0.0)
        dual = np.where(mask, dual + y - z, 0.0)
        right = np.where(pins[:, None], centre, np.where(mask, weight * (z - dual), 0.0) - shift)
        last, y = y, cho_solve_banded(factor, right)
        if max(np.abs(y - last).max(), np.abs(np.where(mask, y - z, 0.0)).max()) < 0.1 * TOLERANCE:
            break
    # A frame whose dual is not zero is pressed against the edge of its disc: that is where the minimum has it.
    edge = held & (np.abs(dual).max(axis=1) > TOLERANCE)
    fixed = np.where(edge[:, None], z, centre)
    for _ in range(POLISHES):
        y = _solve(bands, pins | edge, fixed) if (pins | edge).any() else np.zeros_like(centre)
        out = held & (np.linalg.norm(y - centre, axis=1) > radius + TOLERANCE)
        if not out.any():
            return y
        fixed = np.where(out[:, None], _onto(y, centre, radius), fixed)
        edge |= out
    return np.where(mask, _onto(y, centre, radius), y)


def _onto(y: Array, centre: Array, radius: Array) -> Array:
    """The nearest points of the discs."""
    away = y - centre
    length = np.linalg.norm(away, axis=1)
    return centre + away * np.minimum(1.0, radius / np.maximum(length, 1e-12))[:, None]
