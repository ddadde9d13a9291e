"""Image features at the cells of a grid and at any point of the frame, from a small U-Net.

Stands in for the paper's frozen DINOv2 tokens at a scale two cores can train (measured in the course's third notebook).
Shapes: frame (B, 3, S, S) -> maps at S/2 and S/4; points (B, M, 2) xy -> (B, M, features).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, relu

from kinelib.notation import cell_centres

OCTAVES = 5  # of the sine and cosine position features


class ImageMaps(NamedTuple):
    """frame (B, 3, S, S), fine (B, c, S/2, S/2) and coarse (B, d, S/4, S/4) features of it."""

    frame: Tensor
    fine: Tensor
    coarse: Tensor

    def repeat(self, samples: int) -> ImageMaps:
        """Every image `samples` times in a row, for K samples of one frame."""
        return ImageMaps(*(repeat(level, "b c h w -> (b k) c h w", k=samples) for level in self))


class ImageMapper(nn.Module):
    """A three-level U-Net; `width` is the channel count at a quarter of the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.down2 = nn.Conv2d(3, half, 6, stride=2, padding=2)
        self.at2 = nn.Conv2d(half, half, 3, padding=1)
        self.down4 = nn.Conv2d(half, width, 3, stride=2, padding=1)
        self.at4 = nn.Conv2d(width, width, 3, padding=1)
        self.down8 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.at8 = nn.Conv2d(width, width, 3, padding=1)
        self.up4 = nn.Conv2d(width, width, 3, padding=1)
        self.lateral2 = nn.Conv2d(width, half, 1)
        self.up2 = nn.Conv2d(half, half, 3, padding=1)

    def forward(self, frame: Tensor) -> ImageMaps:
        frame = frame.contiguous(memory_format=torch.channels_last)
        fine = relu(self.at2(relu(self.down2(frame))))
        coarse = relu(self.at4(relu(self.down4(fine))))
        deep = relu(self.at8(relu(self.down8(coarse))))
        coarse = relu(self.up4(coarse + interpolate(deep, size=coarse.shape[-2:], mode="nearest")))
        fine = relu(self.up2(fine + self.lateral2(interpolate(coarse, size=fine.shape[-2:], mode="nearest"))))
        return ImageMaps(frame, fine, coarse)


def position_features(xy: Tensor) -> Tensor:
    """(..., 2) to (..., 4 * OCTAVES + 2): the position and its sines and cosines at octaves of half the frame."""
    angles = xy[..., None] * (torch.pi * 2.0 ** torch.arange(OCTAVES, device=xy.device) / 2)
    return torch.cat([xy, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)


def sample_map(image: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of (B, c, H, W) at (B, M, 2) xy in [-1, 1] (edges of the frame), clamped at the border."""
    picked = grid_sample(image, points[:, :, None], align_corners=False, padding_mode="border")
    return rearrange(picked, "b c m 1 -> b m c")


class PointFeatures(nn.Module):
    """Embeds points by what the image shows there: both maps, the 3x3 pixels around, and where it is."""

    def __init__(self, width: int, extra: int = 0) -> None:
        super().__init__()
        inputs = width + width // 2 + 27 + 4 * OCTAVES + 2 + extra
        self.mix = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, maps: ImageMaps, points: Tensor, extra: Tensor | None = None) -> Tensor:
        """(B, M, 2) points and optional (B, M, extra) numbers known about them, to (B, M, width)."""
        pixel = 2 / maps.frame.shape[-1]
        around = cell_centres(3, 3, device=points.device) * 1.5 * pixel
        patch = sample_map(maps.frame, rearrange(points[:, :, None] + around, "b m p c -> b (m p) c"))
        parts = [
            sample_map(maps.coarse, points),
            sample_map(maps.fine, points),
            rearrange(patch, "b (m p) c -> b m (p c)", p=9),
            position_features(points),
        ]
        return self.mix(torch.cat(parts if extra is None else [*parts, extra], dim=-1))


class CellFeatures(nn.Module):
    """Embeds the cells of a rows x columns grid: the maps averaged over the cell, and where it is."""

    def __init__(self, width: int, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.mix = nn.Linear(width + width // 2 + 4 * OCTAVES + 2, width)

    def forward(self, maps: ImageMaps) -> Tensor:
        """(B, rows * columns, width)."""
        pooled = [interpolate(level, size=(self.rows, self.columns), mode="area") for level in (maps.coarse, maps.fine)]
        cells = rearrange(torch.cat(pooled, dim=1), "b c r w -> b (r w) c")
        where = position_features(cell_centres(self.rows, self.columns, device=cells.device))
        return self.mix(torch.cat([cells, where.expand(len(cells), -1, -1)], dim=-1))


class ConvBlock(nn.Module):
    """Depthwise 5x5 convolution over the cells, then a feed-forward: neighbours agree before each is refined."""

    def __init__(self, width: int, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.spread = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.refine = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, cells: Tensor) -> Tensor:
        grid = rearrange(cells, "b (r w) c -> b c r w", r=self.rows)
        spread = rearrange(self.spread(grid), "b c r w -> b (r w) c")
        return cells + self.refine(self.norm(spread))
