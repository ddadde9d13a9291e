"""`Affordance`: which place of a picture will be moved by hand, and where it will end; learnt from tracks without actions.

A recording's tracks say what is worth taking hold of: points that stand still while the hand is on its way, and later go
somewhere (after VRB, Bahl et al. 2023, who find them in videos of people). Where they are now and where they will be at the
end are two places in every view. A small U-Net that knows the sentence learns to see both, as heat maps. A puck that is a
few pixels wide and as red as the arm is found to half a pixel, from sixty recordings of a task; twenty demonstrations and
where colours are (`colour_glance`) put it a pixel and more off. The policy reads both places; behaviour cloning, which has
no tracks, cannot. Tasks in which nothing but the arm moves teach nothing here.

Shapes: B moments, V views, frames (B, V, 3, S, S) in [-1, 1], words (B, 384), heat (B, V, 2, S/2, S/2) logits, places
(B, V, 2, 2) as (x, y), known (B, V, 2) bool; the two are *here* and *there*; found (B, V * 2 * 3) x, y and sureness.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kinelib.learning.text import WIDTH
from kinelib.notation import ShapeError, cell_centres, check_shape
from kinelib.robots.colour_glance import model_frames
from kinelib.robots.demonstration_shards import Demonstration, Demonstrations

STANDS = 0.012  # of [-1, 1]: who moves less while the hand is on its way stands still
APPROACH = 5  # frames it is on its way at least
MOVES = 0.06  # who goes farther in the end is moved
FEWEST = 3  # points that make a thing
SEEN = 0.3  # share of its points that must be visible for a thing to be looked for
SPREAD = 1.0  # of the heat that is to be answered, in its pixels
NEAR = 3  # pixels around the hottest one from which a place is read
AT_ONCE = 32  # pictures looked at together
LIGHT = 0.1  # by which brightness, contrast and tint of a training picture change, standard deviation


@dataclass(frozen=True)
class AffordanceConfig:
    """Sizes of an affordance network."""

    views: tuple[str, ...] = ("front", "top")  # V cameras, in order
    frame_size: int = 128  # S, a multiple of 8
    width: int = 16  # channels at half resolution; twice and three times as many below

    @property
    def features(self) -> int:
        """How many numbers it finds."""
        return len(self.views) * 6


class Affordance(nn.Module):
    """See the module docstring.

    Args:
        config: sizes.

    Raises:
        ShapeError: for pictures whose side is not a multiple of 8.
    """

    def __init__(self, config: AffordanceConfig) -> None:
        super().__init__()
        if config.frame_size % 8:
            raise ShapeError(
                f"pictures are halved three times: their side must be a multiple of 8; got {config.frame_size}."
            )
        self.config = config
        views, width, size = len(config.views), config.width, config.frame_size
        conv = lambda inputs, outputs, stride=1: nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.down = nn.ModuleList([conv(5 + views, width, 2), conv(width, 2 * width, 2), conv(2 * width, 3 * width, 2)])
        self.level = nn.ModuleList([conv(width * k, width * k) for k in (1, 2, 3)])
        self.heed = nn.Linear(WIDTH, 6 * width)
        self.deep = conv(3 * width, 3 * width)
        self.up = nn.ModuleList([nn.Conv2d(3 * width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)])
        self.joined = nn.ModuleList([conv(2 * width, 2 * width), conv(width, width)])
        self.answer = nn.Conv2d(width, 2, 1)
        # A convolution does not know where it is, nor through which camera it looks.
        place = rearrange(cell_centres(size, size), "(h w) xy -> xy h w", h=size)
        which = repeat(torch.eye(views), "v u -> v u h w", h=size, w=size)
        self.register_buffer("where", torch.cat([repeat(place, "c h w -> v c h w", v=views), which], 1), persistent=False)
        self.register_buffer("centres", cell_centres(size // 2, size // 2), persistent=False)

    def forward(self, frames: Tensor, words: Tensor) -> Tensor:
        """Heat (B, V, 2, S/2, S/2), whose soft-max over pixels says where here and there are.

        Raises:
            ShapeError: on wrong shapes.
        """
        views, size = len(self.config.views), self.config.frame_size
        batch = check_shape("frames", frames, f"B {views} 3 {size} {size}")["B"]
        check_shape("words", words, f"B {WIDTH}", B=batch)
        inputs = torch.cat([frames, self.where.expand(batch, -1, -1, -1, -1)], dim=2)
        x = rearrange(inputs, "b v c h w -> (b v) c h w")
        kept = []
        for down, level in zip(self.down, self.level, strict=True):
            x = F.gelu(down(x))
            x = F.gelu(x + level(x))
            kept.append(x)
        gain, shift = repeat(self.heed(words * WIDTH**0.5), "b c -> (b v) c 1 1", v=views).chunk(2, dim=1)
        x = F.gelu(x + self.deep(x * (1 + gain) + shift))
        for up, joined, fine in zip(self.up, self.joined, reversed(kept[:2]), strict=True):
            x = F.gelu(fine + F.interpolate(up(x), scale_factor=2, mode="bilinear"))
            x = F.gelu(x + joined(x))
        return rearrange(self.answer(x), "(b v) k h w -> b v k h w", v=views)

    def loss(
        self, frames: Tensor, words: Tensor, places: Tensor, known: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropy between the heat and a small Gaussian around each known place.

        Args:
            frames, words: as of :meth:`forward`; light is changed here.
            places, known: (B, V, 2, 2) and (B, V, 2).
            generator: of the light.
        """
        draw = lambda *shape: LIGHT * torch.randn(shape, generator=generator, device=frames.device)
        lit = frames * (1 + draw(len(frames), 1, 1, 1, 1)) + draw(len(frames), 1, 3, 1, 1) / 2
        heat = rearrange(self(lit, words), "b v k h w -> b v k (h w)")
        pixel = 4 / self.config.frame_size  # side of a heat pixel in [-1, 1]
        away = (self.centres - places[..., None, :]).square().sum(-1)
        wanted = (-away / (2 * (SPREAD * pixel) ** 2)).softmax(-1)
        wrong = -(wanted * heat.log_softmax(-1)).sum(-1)
        return {"loss": (wrong * known).sum() / known.sum().clamp_min(1)}

    def find(self, frames: Tensor, words: Tensor) -> Tensor:
        """(B, V * 2 * 3): x and y of here and there in every view, and how sure they are, in [0, 1].

        A place is the middle of the heat around its hottest pixel, to a fraction of one; sureness is its share of the heat.

        Args:
            frames, words: as of :meth:`forward`.
        """
        share = rearrange(self(frames, words), "b v k h w -> b v k (h w)").softmax(-1)
        hottest = self.centres[share.argmax(-1)]
        pixel = 4 / self.config.frame_size
        near = (self.centres - hottest[..., None, :]).abs().amax(-1) < (NEAR + 0.5) * pixel
        share = share * near
        sure = share.sum(-1, keepdim=True)
        return rearrange(torch.cat([share @ self.centres / sure, sure], dim=-1), "b v k f -> b (v k f)")

    @torch.no_grad()
    def look(self, pictures: Tensor, words: Tensor) -> Tensor:
        """:meth:`find` for many pictures (M, V, S, S, 3) uint8 with words (M, 384)."""
        parts = zip(pictures.split(AT_ONCE), words.split(AT_ONCE), strict=True)
        return torch.cat([self.find(model_frames(some), said) for some, said in parts])


def here_and_there(one: Demonstration) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where what is moved by hand is and ends, (T, V, 2, 2), and whether that is known, (T, V, 2); T frames.

    *Here* is known where the thing is visible, *there* wherever there is a thing; both where they are in the picture.
    """
    tracks = one.tracks.astype(np.float32)
    away = np.abs(tracks - tracks[:, :, :1]).max(-1)
    stands = away[:, :, : APPROACH + 1].max(2) < STANDS
    thing = stands & (away.max(2) > MOVES)
    views, _, frames, _ = tracks.shape
    places = np.zeros((frames, views, 2, 2), np.float32)
    known = np.zeros((frames, views, 2), bool)
    for view in range(views):
        if thing[view].sum() < FEWEST:
            continue
        paths = tracks[view, thing[view]].mean(0)
        places[:, view, 0], places[:, view, 1] = paths, paths[-1]
        known[:, view, 0] = one.visible[view, thing[view]].mean(0) > SEEN
        known[:, view, 1] = True
    return places, known & (np.abs(places) < 1).all(-1)


def moment_affordances(
    folder: str | Path,
    *,
    tasks: Iterable[str] | None = None,
    per_task: int | None = None,
    skip: int = 0,
    split: str = "train",
) -> tuple[Tensor, Tensor]:
    """Places (M, V, 2, 2) and known (M, V, 2) of every moment of `robot_data.load_set`, whose arguments these are."""
    parts = []
    for one in Demonstrations(folder, tasks=tasks, split=split, per_task=per_task, skip=skip):
        parts.append([part[: one.moments] for part in here_and_there(one)])
    places, known = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    return places, known
