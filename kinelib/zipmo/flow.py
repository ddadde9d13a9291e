"""Rectified flow: the straight path from data to noise, how its times are drawn, and the solvers that walk it back.

Source: ZipMo section 3.2 (flow matching of motion latents). Conventions of this repository:

    x_t = (1 - t) * data + t * noise,   velocity = noise - data,   t = 0 is data, t = 1 is noise,

so that  data = x_t - t * velocity  wherever the velocity is known. The paper's text runs t the other way and draws it
uniformly; its released code runs t as here and draws it logit-normally. We follow the code.

Departures: times can be *shifted* towards noise, t' = s t / (1 + (s - 1) t), in training, sampling or both. A grid of
latents repeats the motion of a few objects, so at middle noise levels x_t already gives the future away; only near
t = 1 does a model have to look at its conditions. The release has Euler on a uniform grid only (shift 1 here).

Shapes: B samples with any trailing axes; times are (B,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kinelib.notation import ShapeError, check_finite

Velocity = Callable[[Tensor, Tensor], Tensor]

# Evaluations of the velocity a step of each solver costs; Heun's last step is an Euler step.
EVALUATIONS_A_STEP = {"euler": 1, "midpoint": 2, "heun": 2}
STEPS = 3  # of the small planners: the best of 8 is as good as with 6, the mean better, the spread smaller (LOG.md)


@dataclass(frozen=True)
class PathSample:
    """A point on the path between data and noise, and the velocity a model should predict there."""

    x_t: Tensor  # (B, ...) mixture of data and noise
    velocity: Tensor  # (B, ...) noise - data, the regression target
    t: Tensor  # (B,) time in [0, 1], 1 = noise


def flow_path(data: Tensor, noise: Tensor, t: Tensor) -> PathSample:
    """Mixes data with noise at time t.

    Args:
        data: (B, ...) clean latents.
        noise: (B, ...) standard normal draws of the same shape.
        t: (B,) times in [0, 1].

    Raises:
        ShapeError: when shapes disagree or a time is outside [0, 1].
    """
    if data.shape != noise.shape:
        raise ShapeError(f"data {tuple(data.shape)} and noise {tuple(noise.shape)} must have one shape.")
    if t.shape != data.shape[:1]:
        raise ShapeError(f"t must hold one time a sample, ({data.shape[0]},); got {tuple(t.shape)}.")
    check_finite("t", t)
    if t.numel() and not (t.min() >= 0 and t.max() <= 1):
        raise ShapeError(f"t must be in [0, 1]; got values from {t.min():.4g} to {t.max():.4g}.")
    mix = over_batch(t, data)
    return PathSample(x_t=(1 - mix) * data + mix * noise, velocity=noise - data, t=t)


def over_batch(t: Tensor, like: Tensor) -> Tensor:
    """Appends singleton axes to times (B,) so that they broadcast over `like` (B, ...)."""
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def estimate_data(x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Where the straight line through x_t (B, ...) with this velocity meets t = 0: the clean-data estimate."""
    return x_t - over_batch(t, x_t) * velocity


def estimate_noise(x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Where the same line meets t = 1: the noise estimate."""
    return x_t + over_batch(1 - t, x_t) * velocity


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Moves times towards noise: t' = shift t / (1 + (shift - 1) t), keeping 0 and 1 (shift 1 changes nothing).

    Raises:
        ValueError: when shift is not positive and finite.
    """
    if not (math.isfinite(shift) and shift > 0):
        raise ValueError(f"shift must be a positive number (1 = none, above 1 = more noise); got {shift}.")
    return shift * t / (1 + (shift - 1) * t)


def sample_time(count: int, generator: torch.Generator | None, shift: float = 1.0) -> Tensor:
    """Draws (count,) training times: logit-normal, sigmoid of a standard normal, then shifted towards noise.

    Args:
        count: how many times.
        generator: the source of randomness; the times live on its device.
        shift: as in :func:`shift_time`.
    """
    device = generator.device if generator is not None else None
    return shift_time(torch.randn(count, generator=generator, device=device).sigmoid(), shift)


def time_grid(steps: int, shift: float = 1.0) -> Tensor:
    """The (steps + 1,) times a solver visits, falling from 1 (noise) to 0 (data).

    Raises:
        ValueError: when steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"a solver needs at least 1 step; got {steps}.")
    grid = shift_time(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift)
    return grid.float()


def count_evaluations(method: str, steps: int) -> int:
    """The number of velocity evaluations (NFE) of a solver; report this, not steps, when comparing solvers.

    Raises:
        ValueError: for an unknown solver, naming the known ones.
    """
    if method not in EVALUATIONS_A_STEP:
        raise ValueError(f"unknown solver {method!r}; choose one of: {', '.join(EVALUATIONS_A_STEP)}.")
    return EVALUATIONS_A_STEP[method] * steps - (method == "heun")


def integrate(
    velocity_fn: Velocity, noise: Tensor, steps: int, method: str = "euler", shift: float = 1.0
) -> Iterator[tuple[float, Tensor]]:
    """Yields (t, x_t) from noise at t = 1 to data at t = 0, so that a caller may watch or draw the whole path.

    Args:
        velocity_fn: called as ``velocity_fn(x_t (B, ...), t (B,)) -> (B, ...)``.
        noise: (B, ...) the starting point.
        steps: number of solver steps.
        method: "euler" (first order), "midpoint" or "heun" (second order, two evaluations a step;
            Heun's last step is Euler's).
        shift: spends more of the steps near noise when above 1.

    Raises:
        ValueError: for an unknown solver or fewer than 1 step.
        ShapeError: when the velocity has another shape than the state, or is not finite.
    """
    count_evaluations(method, steps)
    grid = time_grid(steps, shift).tolist()

    def velocity_at(x: Tensor, t: float) -> Tensor:
        velocity = velocity_fn(x, x.new_full(x.shape[:1], t))
        if velocity.shape != x.shape:
            raise ShapeError(f"velocity_fn returned {tuple(velocity.shape)} for a state of {tuple(x.shape)}.")
        check_finite(f"the velocity at t = {t:.3f}", velocity)
        return velocity

    x = noise
    yield grid[0], x
    for now, then in zip(grid, grid[1:], strict=False):
        stride = then - now
        velocity = velocity_at(x, now)
        if method == "midpoint":
            velocity = velocity_at(x + stride / 2 * velocity, now + stride / 2)
        elif method == "heun" and then > 0:
            # Not at t = 0, where (x_t - clean) / t is undefined; one Euler step costs no order (Karras et al. 2022).
            velocity = (velocity + velocity_at(x + stride * velocity, then)) / 2
        x = x + stride * velocity
        yield then, x


def solve(velocity_fn: Velocity, noise: Tensor, steps: int, method: str = "euler", shift: float = 1.0) -> Tensor:
    """Carries noise (B, ...) to data (B, ...) along the velocity field; arguments and errors as in :func:`integrate`."""
    x = noise
    for _, x in integrate(velocity_fn, noise, steps, method, shift):  # noqa: B007 - only the last state is wanted
        pass
    return x
