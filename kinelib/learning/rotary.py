"""Rotary position embeddings over continuous positions (ZipMo, section on architecture; facts 1.2, 1.3).

Only a part of every head is rotated and the rest passes through, so that attention may lean on content as well as on
position. The frequencies of 2-D and 3-D positions are learned. Positions are real numbers, for example (t, x, y) in
[-1, 1], not indices; tables of cosines and sines are made once for a set of positions and used again.

Shapes: positions (B, L, A) for A axes; a table is a pair of (B, heads, L, A * slots); queries and keys (B, heads, L, D).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.notation import ShapeError, check_shape

# Highest frequency of every axis, in radians a unit of position; the lowest is 1. Axes are (t, x, y) or (x, y).
# The planner's 10 * 3.14 is the release's rounding of 10 pi.
HIGHEST: dict[str, tuple[float, ...]] = {
    "3d_40": (10 * math.pi, 40 * math.pi, 40 * math.pi),
    "3d_10": (10 * math.pi, 10 * 3.14, 10 * 3.14),
    "2d": (40 * math.pi, 40 * math.pi),
}
VARIANTS = ("none", "1d", *HIGHEST)


class RotaryTable(NamedTuple):
    """Cosines and sines of the angles at a set of positions, each (B, heads, L, slots of all axes)."""

    cosine: Tensor
    sine: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotates channel pairs (i, i + S) of x (B, heads, L, D), S = slots of all axes; channels from 2 S on pass."""
        slots = self.cosine.shape[-1]
        first, second, rest = x.float().split([slots, slots, x.shape[-1] - 2 * slots], dim=-1)
        turned = (
            torch.addcmul(first * self.cosine, second, self.sine, value=-1),
            torch.addcmul(second * self.cosine, first, self.sine),
            rest,
        )
        return torch.cat(turned, dim=-1).to(x.dtype)


class RotaryEmbedding(nn.Module):
    """Angles = position * frequency; every slot of a head belongs to one axis.

    Args:
        lowest, highest: the frequency range of every axis, in radians a unit; spread logarithmically over all heads and
            slots, the upper end left out, interleaved so that every head gets low and high ones.
        heads: number of attention heads.
        slots: rotated channel pairs of one head for each axis.
        learned: whether the frequencies are parameters (else a buffer).
    """

    def __init__(
        self, lowest: tuple[float, ...], highest: tuple[float, ...], heads: int, slots: int, learned: bool = True
    ) -> None:
        super().__init__()
        if slots < 1:
            raise ShapeError("a rotary embedding needs heads of at least 8 channels; use wider or fewer heads.")
        ranges = [
            rearrange(_log_spaced(low, high, heads * slots), "(slot head) -> head slot", head=heads)
            for low, high in zip(lowest, highest, strict=True)
        ]
        frequencies = torch.stack(ranges)  # (axes, heads, slots)
        if learned:
            self.frequencies = nn.Parameter(frequencies)
        else:
            self.register_buffer("frequencies", frequencies)

    def forward(self, positions: Tensor) -> RotaryTable:
        """The table of positions (B, L, A), in float32 whatever the model's precision."""
        axes = self.frequencies.shape[0]
        check_shape("positions", positions, "B L A", A=axes)
        angles = positions.float()[:, :, :, None, None] * self.frequencies.float()
        # Heads stay beside their channels in memory, as in the queries and keys that are to be rotated: half the time.
        angles = rearrange(angles, "b l a head slot -> b l head (a slot)")
        return RotaryTable(*(rearrange(part, "b l head s -> b head l s") for part in (angles.cos(), angles.sin())))


def rotary(variant: str, heads: int, head_width: int) -> RotaryEmbedding | None:
    """The embedding called `variant`, for heads of `head_width` channels.

    Args:
        variant: "3d_40" (autoencoder), "3d_10" (planner), "2d" (policy head), "1d" (text; fixed), "none".
        heads: number of heads.
        head_width: channels of a head; 64 gives the paper's 8 slots an axis.

    Raises:
        ValueError: for another name; it lists the names.
    """
    if variant == "none":
        return None
    if variant == "1d":
        return RotaryEmbedding((1e-3,), (1.0,), heads, head_width // 4, learned=False)
    if variant not in HIGHEST:
        raise ValueError(f"no rotary variant is called {variant!r}; there are {', '.join(VARIANTS)}.")
    highest = HIGHEST[variant]
    return RotaryEmbedding((1.0,) * len(highest), highest, heads, head_width // 8)


def _log_spaced(low: float, high: float, count: int) -> Tensor:
    return torch.linspace(math.log(low), math.log(high), count + 1)[:-1].exp()
