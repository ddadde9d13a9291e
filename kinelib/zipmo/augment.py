"""What real pictures can teach beyond their few videos: other light, and smooth motions whose tracks are exact.

A small autoencoder that has seen scenes and a handful of videos reads too much into unfamiliar pictures: on held-out video
it did worse than its own untrained fit (LOG.md). Two remedies, for the autoencoder's training alone: pictures under other
light, and real pictures whose points follow a camera that we draw, so that tracks decide and not the look.

Not in the paper, which trains on millions of videos.
Shapes: pictures (B, 3, S, S) in [-1, 1]; points (B, N, 2); tracks (B, N, T, 2).
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

JITTERED = 0.7  # share of pictures under other light
FILMED = 0.4  # share of real pictures that a drawn camera looks at
WAVES = 4  # half waves of a camera's path, at most


def other_light(frames: Tensor, generator: torch.Generator, share: float = JITTERED) -> Tensor:
    """Pictures with another contrast, brightness, cast of colour and grain; (B, 3, S, S) in [-1, 1].

    Args:
        frames: (B, 3, S, S) in [-1, 1].
        generator: of every draw.
        share: of the pictures that are changed, in [0, 1].
    """
    count = len(frames)
    draw = lambda *shape: torch.rand(count, *shape, 1, 1, generator=generator)
    middle = frames.mean(dim=(1, 2, 3), keepdim=True)
    changed = (frames - middle) * (0.5 + draw(1)) + middle  # contrast
    grey = changed.mean(dim=1, keepdim=True)
    changed = grey + (changed - grey) * 1.4 * draw(1)  # saturation
    changed = changed * (0.8 + 0.4 * draw(3)) + 0.5 * (draw(1) - 0.5) + 0.2 * (draw(3) - 0.5)  # cast and brightness
    changed = changed + 0.08 * draw(1) * torch.randn(frames.shape, generator=generator)  # grain
    return torch.where(draw(1) < share, changed.clamp(-1, 1), frames)


def camera_tracks(points: Tensor, num_frames: int, generator: torch.Generator) -> Tensor:
    """Tracks of points that a drawn camera sees over a drawn, smooth depth; (B, N, T, 2), the first frame at `points`.

    The camera turns, zooms and shears the picture slowly and shifts it by an amount that depends on depth, which is a plane
    and a few waves across the picture.

    Args:
        points: (B, N, 2) xy in the first frame.
        num_frames: T, at least 2.
        generator: of every draw.
    """
    count = len(points)
    time = torch.linspace(0, 1, num_frames)
    half = range(1, WAVES + 1)
    # Curves that begin at zero, ever less of the faster ones: a drift and half waves.
    swings = [curve / k for k in half for curve in ((1 - torch.cos(math.pi * k * time)) / 2, torch.sin(math.pi * k * time))]
    curves = torch.stack([time, *swings])
    slow = torch.randn(count, 6, len(curves), generator=generator) * torch.rand(count, 6, 1, generator=generator).square()
    paths = slow @ curves  # (B, 6, T)
    shift, linear = paths[:, :2] * 0.5, paths[:, 2:] * 0.25
    waves = torch.randn(count, 3, 2, generator=generator) * 2
    phases = 2 * math.pi * torch.rand(count, 1, 3, generator=generator)
    steep = torch.randn(count, 2, 1, generator=generator) * 0.3
    depth = 1 + (points @ steep)[..., 0] + 0.15 * torch.sin(torch.einsum("bnc,bwc->bnw", points, waves) + phases).sum(-1)
    shifts = torch.einsum("bn,bct->bntc", depth.clamp_min(0.2), shift)
    turned = torch.einsum("bnc,bdct->bntd", points, rearrange(linear, "b (d c) t -> b d c t", c=2))
    return points[:, :, None] + shifts + turned


def filmed_tracks(tracks: Tensor, generator: torch.Generator, share: float = FILMED) -> Tensor:
    """Clips of (B, N, T, 2) tracks, a share of them replaced by what a drawn camera sees at N random points."""
    count, points, frames, _ = tracks.shape
    drawn = torch.rand(count, points, 2, generator=generator) * 1.9 - 0.95
    filmed = camera_tracks(drawn, frames, generator)
    return torch.where(torch.rand(count, 1, 1, 1, generator=generator) < share, filmed, tracks)
