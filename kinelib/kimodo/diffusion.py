"""Diffusion over motion features: the cosine schedule, noising, and two deterministic solvers (Kimodo, diffusion).

A clean x becomes x_t = sqrt(a_t) x + sqrt(1 - a_t) noise at step t = 0..999; a denoiser answers with the clean features it
expects behind x_t. `ddim` (Song et al., 2021, eta = 0) is the official solver. `dpm_solver` is DPM-Solver++ 2M (Lu et al.,
2022): the same first-order step in the log signal-to-noise ratio, corrected by the change since the last prediction, at
steps spaced evenly in that ratio, so that 20 come as close as 100 of the other. Both end with the prediction at step 0 and
depend on nothing but the start noise.

Departures: none. Coefficients are Python floats, from float64 tables that are made once.

Shapes: features (B, T, D), steps (B,) ints; any shape behind B works.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from kinelib.notation import ShapeError, check_shape

STEPS = 1000  # T of the paper, length of the schedule
OFFSET, LARGEST_BETA = 0.008, 0.999
FIRST_RATIO = -3.0  # half the logarithm of signal to noise variance at the second step of the higher-order solver

Denoise = Callable[[Tensor, Tensor], Tensor]  # (noisy (B, ...), steps (B,)) -> clean (B, ...)
Watch = Callable[[int, int], None]  # called with how many solver steps are done and how many there are


@lru_cache(maxsize=8)
def signal_levels(steps: int = STEPS) -> tuple[float, ...]:
    """The share a_t of the clean signal's variance left at every step, of the cosine schedule.

    Raises:
        ValueError: for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"a diffusion has at least 2 steps; got {steps}.")

    def level(time: float) -> float:
        return math.cos((time + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2

    levels, signal = [], 1.0
    for step in range(steps):
        signal *= 1 - min(1 - level((step + 1) / steps) / level(step / steps), LARGEST_BETA)
        levels.append(signal)
    return tuple(levels)


def signal_amplitude(steps: Tensor) -> Tensor:
    """The factor sqrt(a_t) of the clean signal at steps (B,), float32; without the cut that the last step has."""
    return torch.cos(((steps.float() + 1) / STEPS + OFFSET) / (1 + OFFSET) * (math.pi / 2)) / math.cos(
        OFFSET / (1 + OFFSET) * math.pi / 2
    )


def q_sample(clean: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
    """The noisy features at diffusion steps.

    Args:
        clean, noise: (B, ...).
        steps: (B,) ints, 0..999.

    Raises:
        ShapeError: when shapes differ or a step is outside the schedule.
    """
    if clean.shape != noise.shape:
        raise ShapeError(f"noise must have the shape of the clean features {tuple(clean.shape)}; got {tuple(noise.shape)}.")
    check_shape("steps", steps, "B", B=len(clean))
    if len(steps) and not 0 <= int(steps.min()) <= int(steps.max()) < STEPS:
        raise ShapeError(f"diffusion steps are 0..{STEPS - 1}; got {int(steps.min())} to {int(steps.max())}.")
    level = torch.tensor(signal_levels(), dtype=torch.float64, device=clean.device)[steps]
    level = level.reshape(-1, *[1] * (clean.ndim - 1))
    return level.sqrt().to(clean.dtype) * clean + (1 - level).sqrt().to(clean.dtype) * noise


def even_steps(count: int) -> list[int]:
    """Which of the 1000 steps a solver of `count` steps visits, from 999 to 0, evenly spaced and rounded.

    Raises:
        ValueError: for fewer than 2 or more than 1000 steps.
    """
    _check_count(count)
    return [round(i * (STEPS - 1) / (count - 1)) for i in reversed(range(count))]


def log_steps(count: int) -> list[int]:
    """Steps from 999 to 0 that are, after the first, evenly spaced in the logarithm of signal to noise.

    Even spacing leaves a solver of few steps long strides in that logarithm near the end; where there is less signal than
    exp(-6) of the noise, a prediction is the mean of all motion whatever the step, and the first stride jumps over it.

    Raises:
        ValueError: for fewer than 2 or more than 1000 steps.
    """
    _check_count(count)
    ratios = [_log_ratio(level) for level in signal_levels()]
    visited = [STEPS - 1]
    for number in range(1, count):
        wanted = FIRST_RATIO + (ratios[0] - FIRST_RATIO) * number / (count - 1)
        nearest = min(range(STEPS), key=lambda step: abs(ratios[step] - wanted))
        # Every step once, and enough of them left for those to come.
        visited.append(max(min(nearest, visited[-1] - 1), count - 1 - number))
    return visited


def _check_count(count: int) -> None:
    if not 2 <= count <= STEPS:
        raise ValueError(f"a solver takes 2..{STEPS} steps; got {count}.")


def ddim(denoise: Denoise, noise: Tensor, steps: int = 100, watch: Watch | None = None) -> Tensor:
    """Draws clean features by DDIM without fresh noise.

    Args:
        denoise: predicts the clean features.
        noise: (B, ...) normal, the start.
        steps: how many times `denoise` is asked (paper: 100).
        watch: told after every step.

    Raises:
        ValueError: for steps outside 2..1000.
    """
    levels, visited, x = signal_levels(), even_steps(steps), noise
    for number, step in enumerate(visited):
        clean = denoise(x, torch.full((len(x),), step, device=x.device))
        if number + 1 < steps:
            here, there = levels[step], levels[visited[number + 1]]
            # The noise that is left, sqrt(1 - there) (x - sqrt(here) clean) / sqrt(1 - here), and the clean part on top.
            ratio = math.sqrt((1 - there) / (1 - here))
            x = (math.sqrt(there) - ratio * math.sqrt(here)) * clean + ratio * x
        if watch is not None:
            watch(number + 1, steps)
    return clean


def dpm_solver(denoise: Denoise, noise: Tensor, steps: int = 20, watch: Watch | None = None) -> Tensor:
    """Draws clean features by DPM-Solver++ of second order with two predictions in memory.

    Args: as of :func:`ddim`.

    Raises:
        ValueError: for steps outside 2..1000.
    """
    levels, visited, x = signal_levels(), log_steps(steps), noise
    before, width_before = None, 0.0
    for number, step in enumerate(visited):
        clean = denoise(x, torch.full((len(x),), step, device=x.device))
        if number + 1 < steps:
            here, there = levels[step], levels[visited[number + 1]]
            width = _log_ratio(there) - _log_ratio(here)
            ahead = clean
            if before is not None:
                ahead = clean + width / (2 * width_before) * (clean - before)
            ratio = math.sqrt((1 - there) / (1 - here))
            x = ratio * x - math.sqrt(there) * math.expm1(-width) * ahead
            before, width_before = clean, width
        if watch is not None:
            watch(number + 1, steps)
    return clean


SOLVERS: dict[str, Callable[..., Tensor]] = {"ddim": ddim, "dpm": dpm_solver}


def _log_ratio(level: float) -> float:
    """Half the logarithm of signal to noise variance."""
    return 0.5 * math.log(level / (1 - level))
