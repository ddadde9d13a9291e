"""What a transformer planner computes once for a draw, and the guided draw itself (ZipMo, planner; facts 1.8, 1.9).

A solver asks for the velocity at many flow times, but image tokens, rotary tables, and the keys and values of the condition
are the same at every one of them. `Prepared` holds them. With guidance, the network runs once a step on a batch twice
as long, and not twice.

Departures: guidance s below 1 works here; the release ignores it.

Shapes: image tokens (B, L, width), keys and values (B, heads, S, head width), noise (B, K, ...) in normalised space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from kinelib.learning.layers import KeysValues, LayerTables
from kinelib.notation import ShapeError
from kinelib.zipmo.flow import solve


@dataclass(frozen=True)
class Prepared:
    """What a planner knows before the first solver step."""

    image: Tensor  # (B, L, width) image tokens
    tables: list[LayerTables]  # rotary tables of the sequence, shared by the batch
    condition: list[KeysValues] | None  # of every layer: pokes, or text; of fewer clips than B: the first ones
    unconditional: list[KeysValues] | None  # of every layer, without them; None when there is nothing to read then

    def repeated(self, copies: int) -> Prepared:
        """Every clip `copies` times in a row."""
        return replace(
            self,
            image=self.image.repeat_interleave(copies, dim=0),
            condition=self.condition and [layer.repeat(copies) for layer in self.condition],
            unconditional=self.unconditional and [layer.repeat(copies) for layer in self.unconditional],
        )

    def guided(self) -> Prepared:
        """A batch twice as long: first with the condition, then without; where without it nothing is read, of half of it."""
        if self.unconditional is None:
            return replace(self, image=self.image.repeat(2, 1, 1))
        both = [one.joined(other) for one, other in zip(self.condition, self.unconditional, strict=True)]
        return replace(self, image=self.image.repeat(2, 1, 1), condition=both)

    def without_condition(self) -> Prepared:
        """The same start frame and no condition."""
        return replace(self, condition=self.unconditional)


class LatentStatistics(Protocol):
    """A config that knows the mean and variance of an autoencoder's latents."""

    latent_shift: float
    latent_variance: float
    normalized_variance: float


def normalize_latents(latents: Tensor, statistics: LatentStatistics) -> Tensor:
    """An autoencoder's latents in a planner's space: one shift and one scale for all channels."""
    return (latents - statistics.latent_shift) * _scale(statistics)


def denormalize_latents(latents: Tensor, statistics: LatentStatistics) -> Tensor:
    """The inverse of :func:`normalize_latents`."""
    return latents / _scale(statistics) + statistics.latent_shift


def draw_latents(
    velocity: Callable[[Tensor, Tensor, Prepared], Tensor],
    prepared: Prepared,
    latent_shape: tuple[int, ...],
    *,
    samples: int,
    steps: int,
    guidance: float,
    solver: str,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Draws K samples of latents for each of B clips.

    Args:
        velocity: called as ``velocity(noisy (B', ...), time (B',), prepared) -> (B', ...)``.
        prepared: of B clips.
        latent_shape: of one clip.
        samples: K.
        steps: solver steps from t = 1 to 0.
        guidance: s in u + s (c - u), with c and u the velocity with and without the condition; 1 is off, 0 drops it.
        solver: as of :func:`kinelib.zipmo.flow.solve`.
        generator: draws the noise.
        noise: (B, K, *latent_shape) instead of a draw.

    Returns:
        (B, K, *latent_shape).

    Raises:
        ShapeError: when the noise has another shape. ValueError: when guidance is not finite, or samples or steps below 1.
    """
    if not math.isfinite(guidance) or samples < 1:
        raise ValueError(f"guidance must be finite and samples at least 1; got {guidance} and {samples}.")
    shape = (len(prepared.image), samples, *latent_shape)
    if noise is None:
        device = prepared.image.device
        drawn_on = device if generator is None else generator.device
        noise = torch.randn(shape, generator=generator, device=drawn_on).to(device)
    elif tuple(noise.shape) != shape:
        raise ShapeError(f"noise must be (B, K, latents) = {shape}; got {tuple(noise.shape)}.")
    prepared = prepared.repeated(samples)
    if guidance == 0:
        prepared = prepared.without_condition()
    both = prepared.guided() if guidance not in (0, 1) else None

    def guided_velocity(x: Tensor, time: Tensor) -> Tensor:
        if both is None:
            return velocity(x, time, prepared)
        given, free = velocity(torch.cat([x, x]), torch.cat([time, time]), both).chunk(2)
        return free + guidance * (given - free)

    drawn = solve(guided_velocity, rearrange(noise, "b k ... -> (b k) ..."), steps, solver)
    return rearrange(drawn, "(b k) ... -> b k ...", k=samples)


def _scale(statistics: LatentStatistics) -> float:
    return math.sqrt(statistics.normalized_variance / statistics.latent_variance)
