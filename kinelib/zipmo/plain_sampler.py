"""Sampling and dense decoding as published, nothing remembered from step to step: what our sampler is measured against.

The same networks, weights and noise as `TransformerPlanner.sample` and `TransformerCodec.decode_dense`, in the
order a plain reading of the algorithm gives (ZipMo, planner and motion autoencoder): guidance is two passes a step; every
layer embeds the positions of its tokens and the keys and values of its context anew at every step; a dense decode
repeats the frame for every chunk, encodes each copy, and decodes all chunks in one batch. Attention is torch's fused one
here too, so that the comparison is of what is computed, not of how attention is written.

Departures: none. Equal to our sampler up to rounding (tests: 1e-5).

Shapes: as in `transformer_planner` and `transformer_autoencoder`; inference only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from kinelib.learning.layers import AdaRMSNorm, CosineAttention, Transformer
from kinelib.learning.rotary import RotaryEmbedding
from kinelib.notation import ShapeError, cell_centres
from kinelib.zipmo.transformer_autoencoder import TransformerCodec, cell_times, grid_positions, track_positions
from kinelib.zipmo.transformer_planner import TransformerPlanner


@torch.no_grad()
def plain_sample(
    planner: TransformerPlanner, features: Tensor, pokes: Tensor, noise: Tensor, *, steps: int = 50, guidance: float = 1.0
) -> Tensor:
    """Draws latents with Euler steps from t = 1 to 0.

    Args:
        planner: in the official layout.
        features: (B, L, F) image tokens.
        pokes: (B, P, 5), all real.
        noise: (B, S, R, W, C).
        steps: Euler steps.
        guidance: s in u + s (c - u); 1 runs the network once a step.

    Returns:
        (B, S, R, W, C) in normalised space.
    """
    x = noise
    for step in range(steps):
        time = torch.full((len(x),), 1 - step / steps, device=x.device)
        velocity = plain_velocity(planner, x, time, features, pokes)
        if guidance != 1:
            free = plain_velocity(planner, x, time, features, pokes[:, :0])
            velocity = free + guidance * (velocity - free)
        x = x - velocity / steps
    return x


@torch.no_grad()
def plain_velocity(planner: TransformerPlanner, noisy: Tensor, time: Tensor, features: Tensor, pokes: Tensor) -> Tensor:
    """One pass of the network (B, S, R, W, C), everything from its inputs; arguments as of :func:`plain_sample`."""
    config, (batch, slots, rows, _, _) = planner.config, noisy.shape
    mask = torch.ones(pokes.shape[:2], dtype=torch.bool, device=pokes.device)
    context, context_places, seen = planner.poke_context(pokes, mask)
    latents = planner.latents_in(rearrange(noisy, "b s r w c -> b (s r w) c"))
    tokens = torch.cat([latents, planner.image_in(features + planner.start_frame)], dim=1)
    places = grid_positions(cell_times(config.slots, noisy.device), *config.grid)
    if config.image_time is None:
        image_places = places
    else:
        when = torch.full((1,), config.image_time, device=noisy.device)
        image_places = grid_positions(when, *config.feature_grid)
    places = repeat(torch.cat([places, image_places]), "l p -> b l p", b=batch)
    x = _layers(planner.transformer, tokens, places, context, context_places, seen, planner.embed_time(time))
    velocity = planner.velocity_out(x[:, : latents.shape[1]])
    return rearrange(velocity, "b (s r w) c -> b s r w c", s=slots, r=rows)


@torch.no_grad()
def plain_decode_dense(
    codec: TransformerCodec,
    latents: Tensor,
    frame: Tensor,
    encode: Callable[[Tensor], Tensor],
    side: int,
    chunk_side: int = 8,
    num_frames: int | None = None,
) -> Tensor:
    """Decodes a square grid of points in interleaved square chunks, each with a copy of the frame.

    Args:
        codec: in the official layout.
        latents: (B, S, R, W, C).
        frame: (B, 3, H, W).
        encode: the image encoder, (B, 3, H, W) -> (B, L, F).
        side: rows and columns of the grid; a multiple of `chunk_side`.
        chunk_side: rows and columns of a chunk (release: 8).
        num_frames: T; default the config's.

    Returns:
        (B, side, side, T, 2).

    Raises:
        ShapeError: when the chunk's side does not divide the grid's.
    """
    if side % chunk_side:
        raise ShapeError(f"chunk_side {chunk_side} must divide the grid's side {side}.")
    config, apart, batch = codec.config, side // chunk_side, len(latents)
    frames = config.num_frames if num_frames is None else num_frames
    points = rearrange(
        cell_centres(side, side, latents.device), "(r a c e) p -> (a e) (r c) p", a=apart, c=chunk_side, e=apart
    )
    chunks = len(points)
    points = repeat(points, "n q p -> (b n) q p", b=batch)
    features = encode(repeat(frame, "b c h w -> (b n) c h w", n=chunks))
    latents = repeat(latents, "b s r w c -> (b n) (s r w) c", n=chunks)

    decoder = codec.decoder
    queries = repeat(decoder.query, "c -> b l c", b=len(points), l=points.shape[1] * frames)
    tokens = torch.cat([decoder.latents_in(latents), queries], dim=1)
    grid = repeat(decoder.grid_positions, "l p -> b l p", b=len(points))
    places = torch.cat([grid, track_positions(points, frames)], dim=1)
    image_places = repeat(decoder.feature_positions, "l p -> b l p", b=len(points))
    owner = None
    if config.independent_queries:
        of_point = torch.arange(points.shape[1], device=latents.device).repeat_interleave(frames)
        owner = torch.cat([of_point.new_full((latents.shape[1],), -1), of_point])
        owner = (owner[None, :] == -1) | (owner[:, None] == owner[None, :])
    x = _layers(decoder.transformer, tokens, places, features, image_places, own=owner)
    tracks = rearrange(decoder.head(x[:, latents.shape[1] :]), "b (q t) xy -> b q t xy", t=frames)
    tracks = tracks + points[:, :, None] if config.displacement else tracks
    return rearrange(tracks, "(b a e) (r c) t xy -> b (r a) (c e) t xy", a=apart, e=apart, r=chunk_side)


def _layers(
    stack: Transformer,
    x: Tensor,
    places: Tensor,
    context: Tensor,
    context_places: Tensor,
    seen: Tensor | None = None,
    condition: Tensor | None = None,
    own: Tensor | None = None,
) -> Tensor:
    for layer in stack.layers:
        normed = _norm(layer.self_norm, x, condition)
        x = x + _attend(layer.self_attention, normed, normed, places, places, own)
        normed, read = _norm(layer.cross_norm, x, condition), _norm(layer.context_norm, context)
        mask = None if seen is None else seen[:, None, None]
        x = x + _attend(layer.cross_attention, normed, read, places, context_places, mask)
        value, gate = layer.feed_forward.up(_norm(layer.feed_norm, x, condition)).chunk(2, dim=-1)
        x = x + layer.feed_forward.down(value * F.silu(gate))
    return x


def _norm(norm: torch.nn.Module, x: Tensor, condition: Tensor | None = None) -> Tensor:
    scale = 1 + norm.linear(condition)[:, None] if isinstance(norm, AdaRMSNorm) else norm.scale
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + norm.eps) * scale


def _attend(
    attention: CosineAttention, x: Tensor, context: Tensor, places: Tensor, context_places: Tensor, mask: Tensor | None
) -> Tensor:
    def prepared(part: Tensor, where: Tensor) -> Tensor:
        part = part * torch.rsqrt(part.square().sum(dim=-1, keepdim=True) + 1e-6)
        part = part * attention.scale.sqrt()[:, None, None]
        return part if attention.rotary is None else _rotate(attention.rotary, part, where)

    query = rearrange(attention.query(x), "b l (h d) -> b h l d", h=attention.heads)
    key, value = rearrange(attention.key_value(context), "b s (two h d) -> two b h s d", two=2, h=attention.heads)
    query, key = prepared(query, places), prepared(key, context_places)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
    return attention.out(rearrange(out, "b h l d -> b l (h d)"))


def _rotate(rotary: RotaryEmbedding, x: Tensor, places: Tensor) -> Tensor:
    angles = rearrange(places[..., None, None] * rotary.frequencies, "b l a head slot -> b head l (a slot)")
    slots = angles.shape[-1]
    first, second, rest = x.split([slots, slots, x.shape[-1] - 2 * slots], dim=-1)
    turned = (first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos(), rest)
    return torch.cat(turned, dim=-1)
