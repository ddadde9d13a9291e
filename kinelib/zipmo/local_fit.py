"""Moving least squares by attention: the linear path of the small autoencoder.

Each target gives every source a weight (attention logits minus a distance term). From the weights' moments follows the
affine map position -> value that fits the sources best, in closed form; its value at the target is returned. An untrained
fit is a blurred copy of the neighbours that is already right for translation, rotation and zoom; training only has to
learn which neighbours belong together. Departs from the paper, whose encoder and decoder learn this from nothing.

Shapes: weights (B, h, M, N) over N sources for M targets and h heads; values (B, N, D).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

REACH = 0.35  # how far (in [-1, 1] units) a fit may be extrapolated from the centre of its sources
TINY = 1e-8  # under square roots, whose slope at zero is infinite


class AffineFit(NamedTuple):
    """value (B, h, M, D) at the target, slopes (B, h, M, 2, D), and spread (B, h, M, 3): distance, extent, misfit."""

    value: Tensor
    slopes: Tensor
    spread: Tensor


def affine_fit(weights: Tensor, positions: Tensor, values: Tensor, targets: Tensor, ridge: Tensor) -> AffineFit:
    """Fits value = affine(position) with the given weights and evaluates it at the targets.

    Args:
        weights: (B, h, M, N), non-negative, summing to 1 over N.
        positions: (B, N, 2) xy of the sources.
        values: (B, N, D) what is fitted.
        targets: (B, M, 2) xy where the fit is wanted.
        ridge: (h,) positive; pulls the slopes to zero where the sources are few or in line.
    """
    x, y = positions[..., :1], positions[..., 1:]
    energy = values.square().mean(-1, keepdim=True)
    moments = torch.cat([positions, x * x, x * y, y * y, values, x * values, y * values, energy], dim=-1)
    moments = torch.einsum("bhmn,bnk->bhmk", weights, moments)
    size = values.shape[-1]
    centre, square, mean, xv, yv, energy = moments.split([2, 3, size, size, size, 1], dim=-1)
    xx = square[..., 0] - centre[..., 0] ** 2
    xy = square[..., 1] - centre[..., 0] * centre[..., 1]
    yy = square[..., 2] - centre[..., 1] ** 2
    extra = rearrange(ridge, "h -> 1 h 1")
    a, d = xx.clamp_min(0) + extra, yy.clamp_min(0) + extra
    scale = (1 / (a * d - xy**2).clamp_min(1e-9))[..., None]
    cov_x, cov_y = xv - centre[..., :1] * mean, yv - centre[..., 1:] * mean
    slope_x = (d[..., None] * cov_x - xy[..., None] * cov_y) * scale
    slope_y = (a[..., None] * cov_y - xy[..., None] * cov_x) * scale
    offset = rearrange(targets, "b m c -> b 1 m c") - centre
    distance = (offset.square().sum(-1, keepdim=True) + TINY).sqrt()
    offset = offset * (REACH / distance.clamp_min(REACH))
    value = mean + offset[..., :1] * slope_x + offset[..., 1:] * slope_y
    misfit = (energy[..., 0] - mean.square().mean(-1)).clamp_min(0)
    spread = torch.stack([distance[..., 0], (a + d).sqrt(), (misfit + TINY).sqrt().clamp_max(3)], dim=-1)
    return AffineFit(value, torch.stack([slope_x, slope_y], dim=-2), spread)
