"""Transformer blocks of the small flow models: time-modulated self-attention, cross-attention with reusable keys and values.

Departures from the paper's layers (`learning.layers`), for two cores: LayerNorm and ReLU instead of RMSNorm and SwiGLU,
plain dot-product attention without rotary positions, gain *and* gate from the flow time.
Shapes: tokens (B, L, d), context (B, M, d), time conditioning (B, d).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import layer_norm, relu_, scaled_dot_product_attention


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, L, h * c) to (B, h, L, c)."""
    return rearrange(tokens, "b l (h c) -> b h l c", h=heads)


class FlowBlock(nn.Module):
    """Self-attention, cross-attention to the conditions, feed-forward; each pre-normed, residual, modulated by flow time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.self_in, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.cross_q, self.cross_kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def context(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the conditions, to be computed once and used in every solver step."""
        k, v = self.cross_kv(conditions).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, tokens: Tensor, time: Tensor, context: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """`mask` (B, 1, 1, M) is True where the condition exists."""
        width = tokens.shape[-1:]
        gain1, gate1, gain2, gate2, gain3, gate3 = (1 + self.modulation(time)[:, None]).chunk(6, dim=-1)
        q, k, v = (split_heads(x, self.heads) for x in self.self_in(layer_norm(tokens, width) * gain1).chunk(3, dim=-1))
        attended = rearrange(scaled_dot_product_attention(q, k, v), "b h l c -> b l (h c)")
        tokens = tokens + gate1 * self.self_out(attended)
        q = split_heads(self.cross_q(layer_norm(tokens, width) * gain2), self.heads)
        attended = scaled_dot_product_attention(q, *context, attn_mask=mask)
        tokens = tokens + gate2 * self.cross_out(rearrange(attended, "b h l c -> b l (h c)"))
        # In place: a fresh tensor of the widest activations costs more in page faults than the comparison.
        return tokens + gate3 * self.shrink(relu_(self.grow(layer_norm(tokens, width) * gain3)))


class FlowTime(nn.Module):
    """Embeds flow times (B,) in [0, 1] into (B, width); sines up to half a period in 1/64 of the range."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(65, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.logspace(0, 2.3, 32, device=t.device)
        return self.mix(torch.cat([t[:, None], angles.sin(), angles.cos()], dim=-1))
