"""From one motion to another: straight lines between latents, great circles between noises, and how smooth the way is.

ZipMo's project page moves between two futures of a frame in latent space. Two ways to do so:
    latents  (1 - s) a + s b, decoded: the average of two motions, so a poked point goes to the average place;
    noises   along the great circle from one normal draw to another, each carried to a latent by the planner: every step is a
             sample of the model, at the price of one solve each. A straight line would leave the shell normal draws live on.

Measures (ours): detour, the length of the way over the distance of its ends, 1 for a straight way; largest_jump, the longest
step over the mean step, 1 for an even way. Both are taken over all decoded positions together.

Shapes: A steps of the way; latents and noises (..., S, R, W, C); tracks (A, N, T, 2).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor

from kinelib.learning.text import Text
from kinelib.notation import ShapeError, check_finite, check_shape
from kinelib.zipmo.flow import solve
from kinelib.zipmo.forecast import LatentForecast

PARALLEL = 1e-6  # radians below which a great circle is a straight line


def straight_way(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """The way (A, ...) of `steps` even steps from `first` (...) to `last` (...), ends included, along a straight line."""
    share = _shares(first, last, steps)
    return torch.lerp(first.expand(steps, *first.shape), last.expand(steps, *last.shape), share)


def great_circle(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """The way (A, ...) from `first` to `last` by even turns of the direction; the length changes evenly with it.

    Raises:
        ShapeError: on different shapes, values that are not finite, fewer than 2 steps, or a zero or opposite end.
    """
    share = _shares(first, last, steps)
    sizes = first.norm(), last.norm()
    if not (sizes[0] > 0 and sizes[1] > 0):
        raise ShapeError("a great circle needs two ends that are not zero; take straight_way.")
    one, other = first / sizes[0], last / sizes[1]
    # From the chord, because the arc cosine is inexact for close directions.
    angle = 2 * torch.atan2((one - other).norm(), (one + other).norm())
    if angle > torch.pi - 1e-3:
        raise ShapeError("the two ends point in opposite directions, so the great circle between them is not unique.")
    if angle < PARALLEL:
        return straight_way(first, last, steps)
    direction = (((1 - share) * angle).sin() * one + (share * angle).sin() * other) / angle.sin()
    return direction * ((1 - share) * sizes[0] + share * sizes[1])


def _shares(first: Tensor, last: Tensor, steps: int) -> Tensor:
    if first.shape != last.shape:
        raise ShapeError(f"both ends must have one shape; got {tuple(first.shape)} and {tuple(last.shape)}.")
    if steps < 2:
        raise ShapeError(f"a way has at least its 2 ends; got steps={steps}.")
    check_finite("first", first)
    check_finite("last", last)
    return torch.linspace(0, 1, steps, device=first.device).reshape(-1, *[1] * first.ndim).to(first)


@torch.no_grad()
def sample_from_noise(
    forecast: LatentForecast, frame: Tensor, pokes: Tensor, mask: Tensor, noise: Tensor, text: Text | None = None
) -> Tensor:
    """Carries given noises to latents, without guidance or correction: (B, K, S, R, W, C) to the same, normalised.

    Args:
        forecast: whose planner, steps and solver are used.
        frame: (B, 3, S, S).
        pokes, mask: (B, P, 5), (B, P).
        noise: (B, K, S, R, W, C) standard normal draws.
        text: a sentence a clip.
    """
    planner = forecast.planner
    check_shape("noise", noise, "B K S R W C", B=len(frame), **dict(zip("SRWC", planner.config.latent_shape, strict=True)))
    samples = noise.shape[1]
    prepared = planner.prepare(frame, pokes, mask, text)
    prepared = type(prepared)(repeat(part, "b ... -> (b k) ...", k=samples) for part in prepared)
    flat = rearrange(noise, "b k ... -> (b k) ...")
    velocity = lambda x_t, t: planner.velocity(x_t, t, prepared)
    latents = solve(velocity, flat, forecast.steps, forecast.solver, planner.config.time_shift)
    return rearrange(latents, "(b k) ... -> b k ...", k=samples)


class Smoothness(NamedTuple):
    """How straight and how even a way through motions is; see the module docstring."""

    detour: float  # length of the way / distance of its ends, 1 or more
    largest_jump: float  # longest step / mean step, 1 or more
    distance: float  # of the ends, root mean square over points, frames and coordinates, pixels at 128


def smoothness(tracks: Tensor) -> Smoothness:
    """Measures a way of A decoded motions (A, N, T, 2).

    Raises:
        ShapeError: for fewer than 2 steps, or ends that are the same motion.
    """
    sizes = check_shape("tracks", tracks, "A N T 2")
    if sizes["A"] < 2:
        raise ShapeError("a way has at least its 2 ends; got 1 motion.")
    check_finite("tracks", tracks)
    flat = tracks.detach().cpu().double().flatten(1) * 64
    steps, ends = flat.diff(dim=0).norm(dim=-1), (flat[-1] - flat[0]).norm()
    if not ends > 0:
        raise ShapeError("both ends of the way are the same motion; there is nothing to compare its length with.")
    return Smoothness(
        detour=float(steps.sum() / ends),
        largest_jump=float(steps.max() / steps.mean()),
        distance=float(ends / flat.shape[1] ** 0.5),
    )
