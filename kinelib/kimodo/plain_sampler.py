"""Sampling as published, nothing remembered from step to step: what our sampler is measured against (Kimodo, inference).

The same network, weights and noise as `draw_features`, in the order a plain reading of the algorithm gives: DDIM with
separated guidance, always three predictions in one batch; at every step the tables of the noise schedule are made, all zero
vectors beside the sentence go through its linear map, the constraints are written over the noisy features and their mask
through the input's map, padding is masked whether there is any or not, and every layer computes all tokens. Attention is
torch's fused one here too, so that the comparison is of what is computed, not of how attention is written.

Departures: none. Equal to our sampler up to rounding (tests: 1e-5 relative).

Shapes: as in `kinelib.kimodo.denoiser`, whose two-stage form in the official layout is taken; inference only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinelib.bodies.features import local_root
from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.kimodo.encoder import EncoderLayer, Stage

Conditions = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # text, first heading, mask, target, lengths


@torch.no_grad()
def plain_sample(
    model: TwoStageDenoiser,
    noise: Tensor,
    conditions: Conditions,
    *,
    steps: int = 100,
    weights: tuple[float, float] = (2.0, 2.0),
) -> Tensor:
    """Draws normalised features by DDIM with separated guidance.

    Args:
        model: in the official layout (post-norm, one frame a token, two stages).
        noise: (B, T, D).
        conditions: text (B, 1, C), first heading (B,), mask (B, T, D), target (B, T, D), lengths (B,).
        steps: of the solver.
        weights: of the sentence and of the constraints.

    Returns:
        (B, T, D).
    """
    x = noise
    for number in range(steps):
        tables = _tables(steps)
        step = int(tables["steps"][number])
        clean = plain_guided(model, x, torch.full((len(x),), step), conditions, weights)
        level, after = _tables(steps)["levels"][number], _tables(steps)["after"][number]
        left = (x - level.sqrt() * clean) / (1 - level).sqrt()
        x = (after.sqrt() * clean + (1 - after).sqrt() * left).to(noise.dtype)
    return x


@torch.no_grad()
def plain_guided(
    model: TwoStageDenoiser, noisy: Tensor, steps: Tensor, conditions: Conditions, weights: tuple[float, float]
) -> Tensor:
    """Clean features (B, T, D): three predictions in one batch, and their weighted sum."""
    text, heading, mask, target, lengths = conditions
    nothing, free = torch.zeros_like(text), torch.zeros_like(mask)
    predictions = plain_clean(
        model,
        torch.cat([noisy] * 3),
        torch.cat([steps] * 3),
        (
            torch.cat([text, nothing, nothing]),
            torch.cat([heading] * 3),
            torch.cat([free, mask, free]),
            torch.cat([target] * 3),
            torch.cat([lengths] * 3),
        ),
    )
    said, held, none = predictions.chunk(3)
    return none + weights[0] * (said - none) + weights[1] * (held - none)


@torch.no_grad()
def plain_clean(model: TwoStageDenoiser, noisy: Tensor, steps: Tensor, conditions: Conditions) -> Tensor:
    """One pass of both stages (B, T, D), everything from its inputs; arguments as of :func:`plain_sample`."""
    text, heading, mask, target, lengths = conditions
    given = mask.to(noisy.dtype)
    x = given * target + (1 - given) * noisy
    conditioned = (steps, text, heading, lengths)
    root = _stage(model.root, torch.cat([x, given], dim=-1), *conditioned)
    place, local = model.statistics, model.local_statistics
    metres = root * (place.std[:5] ** 2 + 1e-5).sqrt() + place.mean[:5]
    moves = (local_root(metres, model.config.fps, lengths) - local.mean) / (local.std**2 + 1e-5).sqrt()
    body = _stage(model.body, torch.cat([moves, x[..., 5:], given], dim=-1), *conditioned)
    return torch.cat([root, body], dim=-1)


def _stage(stage: Stage, features: Tensor, steps: Tensor, text: Tensor, heading: Tensor, lengths: Tensor) -> Tensor:
    batch, frames, _ = features.shape
    empty = text.new_zeros(batch, stage.registers + 1 - text.shape[1], text.shape[2])
    slots = stage.text_in(torch.cat([text, empty], dim=1))
    width = slots.shape[-1]
    step = stage.step_in(_table(1000, width)[steps])[:, None]
    facing = stage.heading_in(torch.stack([heading.cos(), heading.sin()], dim=-1))[:, None]
    poses = F.linear(features, torch.cat([stage.features_in.weight, stage.mask_in.weight], dim=1), stage.features_in.bias)
    x = torch.cat([slots, step, facing, poses], dim=1)
    x = x + _table(x.shape[1], width)
    prefix = x.shape[1] - frames
    visible = torch.cat([torch.ones(batch, prefix, dtype=torch.bool), torch.arange(frames)[None] < lengths[:, None]], dim=1)
    for layer in stage.layers:
        x = _layer(layer, x, visible)
    return stage.features_out(x[:, prefix:])


def _layer(layer: EncoderLayer, x: Tensor, visible: Tensor) -> Tensor:
    query, key, value = rearrange(layer.query_key_value(x), "b l (three h d) -> three b h l d", three=3, h=layer.heads)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None, None, :])
    x = layer.attention_norm(x + layer.out(rearrange(out, "b h l d -> b l (h d)")))
    return layer.feed_norm(x + layer.down(F.gelu(layer.up(x))))


def _table(rows: int, width: int) -> Tensor:
    """Sines on even and cosines on odd channels, one row a position."""
    phases = torch.arange(rows)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([phases.sin(), phases.cos()], dim=-1).flatten(1)


def _tables(steps: int) -> dict[str, Tensor]:
    """The steps that a solver visits, the signal's share of variance at each and after each."""
    at = torch.arange(1001, dtype=torch.float64) / 1000
    curve = ((at + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    levels = (1 - (1 - curve[1:] / curve[:-1]).clamp(max=0.999)).cumprod(0)
    visited = torch.linspace(999, 0, steps, dtype=torch.float64).round().long()
    levels = levels[visited]
    return {"steps": visited, "levels": levels, "after": torch.cat([levels[1:], torch.ones(1, dtype=torch.float64)])}
