"""One stage of Kimodo's denoiser: a plain transformer encoder over condition tokens and the poses of a clip (Kimodo,
model; sizes in its Table 2).

The sequence is `[sentence | registers | diffusion step | first heading | poses]`. Registers are zero vectors that go through
the sentence's linear map, so that each becomes that map's bias plus a positional code: fixed places in which the network can
keep what belongs to the clip as a whole. One additive sinusoidal code numbers the whole sequence. Attention is the ordinary
scaled dot product with biases, the feed-forward two linear maps around a GELU; `kinelib.learning.layers` has neither.

Departures, each a field of `DenoiserConfig` that is off in the official sizes: norms before instead of after
each part (`norm="pre"`), several frames in a token (`patch`), the conditions also added to every pose (`broadcast`),
and scaling and shifting what every layer reads (`modulate`; adaptive layer norm, as in DiT, Peebles and Xie 2023).

Shapes: tokens (B, L, width), features (B, T, C), pose tokens (B, T', width) with T' = ceil(T / patch).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinelib.notation import ShapeError

HEADING, STEP = 1, 1  # tokens of the first heading and of the diffusion step


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Codes of positions (...): sines on even channels and cosines on odd ones, wave lengths from 2 pi to 20000 pi.

    Returns:
        (..., width) float32.
    """
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10000.0) / width))
    phases = positions[..., None].float() * rates
    return rearrange([phases.sin(), phases.cos()], "wave ... c -> ... (c wave)")


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward, each added to its input, with layer norms after (official) or before.

    Args:
        width: channels of a token.
        heads: attention heads; must divide the width.
        ffn: hidden channels of the feed-forward.
        norm: "post" or "pre"; with "pre" the output matrices start at zero, so that a new layer is the identity.
        dropout: share of attention weights, hidden channels and outputs dropped in training.
    """

    def __init__(self, width: int, heads: int, ffn: int, norm: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.before, self.dropout = heads, norm == "pre", dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, ffn), nn.Linear(ffn, width)
        for linear in (self.query_key_value, self.up, self.down, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        if self.before:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, visible: Tensor | None = None, first: int = 0, modulation: Tensor | None = None) -> Tensor:
        """Runs the tokens through the layer.

        Args:
            x: (B, L, width).
            visible: (B, L) bool, tokens that others may attend to; None means all.
            first: tokens before this one are only attended to; their own results are not computed.
            modulation: (B, 1, 4 width) gains and shifts of what attention and feed-forward read, for norms before them;
                None means none.

        Returns:
            (B, L - first, width).
        """
        if self.before:
            gain, shift, feed_gain, feed_shift = (0, 0, 0, 0) if modulation is None else modulation.chunk(4, dim=-1)
            x = x[:, first:] + self._attend(self.attention_norm(x) * (1 + gain) + shift, visible, first)
            return x + self._feed(self.feed_norm(x) * (1 + feed_gain) + feed_shift)
        x = self.attention_norm(x[:, first:] + self._attend(x, visible, first))
        return self.feed_norm(x + self._feed(x))

    def _attend(self, x: Tensor, visible: Tensor | None, first: int) -> Tensor:
        width = x.shape[-1]
        if first:
            weights, biases = (part.split([width, 2 * width]) for part in self.query_key_value.parameters())
            query = rearrange(F.linear(x[:, first:], weights[0], biases[0]), "b l (h d) -> b h l d", h=self.heads)
            rest = F.linear(x, weights[1], biases[1])
            key, value = rearrange(rest, "b l (two h d) -> two b h l d", two=2, h=self.heads)
        else:
            together = self.query_key_value(x)
            query, key, value = rearrange(together, "b l (three h d) -> three b h l d", three=3, h=self.heads)
        mask = None if visible is None else visible[:, None, None, :]
        dropped = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
        return self._drop(self.out(rearrange(out, "b h l d -> b l (h d)")))

    def _feed(self, x: Tensor) -> Tensor:
        return self._drop(self.down(self._drop(F.gelu(self.up(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.training and self.dropout else x


class StageConditions(NamedTuple):
    """What one stage knows before the first solver step."""

    slots: Tensor  # (B, 1 + registers, width) sentence and registers, with positional codes
    step_code: Tensor  # (width,) positional code of the step's token
    heading: Tensor  # (B, 1, width) token of the first heading, with positional code
    poses: Tensor  # (B or 1, T', width) what is added to every pose: code, mask, conditions
    visible: Tensor | None  # (B, L) bool; None when no frame is padding
    sentence: Tensor  # (B, 1, width) the first sentence, without code


class Stage(nn.Module):
    """A transformer from features and conditions of a clip to clean features of it.

    Args:
        features: channels a frame of the input, without the mask.
        mask: channels a frame of the mask of constrained features.
        outputs: channels a frame of the output.
        layers: how many.
        width, heads, ffn, norm, dropout: of :class:`EncoderLayer`.
        text_width: channels of a sentence vector.
        registers: zero vectors beside the sentence.
        patch: frames in a token.
        broadcast: whether sentence, step and heading are also added to every pose.
        modulate: whether sentence and step also scale and shift what every layer reads; needs norms before the parts.

    Raises:
        ShapeError: when the heads do not divide the width, or the width is odd. ValueError: for `modulate` with norms after.
    """

    def __init__(
        self,
        features: int,
        mask: int,
        outputs: int,
        *,
        layers: int,
        width: int,
        heads: int,
        ffn: int,
        norm: str,
        dropout: float,
        text_width: int,
        registers: int,
        patch: int,
        broadcast: bool,
        modulate: bool = False,
    ) -> None:
        super().__init__()
        if modulate and norm != "pre":
            raise ValueError("only layers with norms before their parts can be modulated; set norm='pre' or modulate=False.")
        if width % heads or width % 2:
            raise ShapeError(f"{heads} heads must divide the width {width}, which must be even.")
        self.registers, self.patch, self.broadcast, self.dropout = registers, patch, broadcast, dropout
        self.text_in, self.heading_in = nn.Linear(text_width, width), nn.Linear(2, width)
        self.step_in = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        # One linear map of [features ; mask] in two parts, because the mask's part is the same at every solver step.
        self.features_in = nn.Linear(patch * features, width)
        self.mask_in = nn.Linear(patch * mask, width, bias=False)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, ffn, norm, dropout) for _ in range(layers))
        self.final_norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()
        self.features_out = nn.Linear(width, patch * outputs)
        if modulate:
            self.modulation = nn.Linear(width, layers * 4 * width)
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)
        self.modulate = modulate

    @property
    def prefix(self) -> int:
        """Tokens before the first pose."""
        return 1 + self.registers + STEP + HEADING

    def prepare(
        self, text: Tensor, first_heading: Tensor, frames: int, mask: Tensor | None, valid: Tensor | None
    ) -> StageConditions:
        """Computes everything that depends neither on the noisy features nor on the diffusion step.

        Args:
            text: (B, S, text_width), 1 to 1 + registers sentence vectors; zeros are no text.
            first_heading: (B,) radians.
            frames: T.
            mask: (B, T, D) bool, constrained features; None for none.
            valid: (B, T) bool, frames that are no padding; None for all.
        """
        width = self.text_in.out_features
        tokens = -(-frames // self.patch)
        codes = sinusoids(torch.arange(self.prefix + tokens, device=text.device), width).to(text.dtype)
        slots = 1 + self.registers
        sentence = self.text_in(text)
        empty = self.text_in.bias.expand(len(text), slots - text.shape[1], width)
        heading = self.heading_in(torch.stack([first_heading.cos(), first_heading.sin()], dim=-1).to(text.dtype))[:, None]
        poses = codes[None, self.prefix :]
        if mask is not None:
            poses = poses + self.mask_in(self._tokens(mask.to(text.dtype)))
        if self.broadcast:
            poses = poses + sentence[:, :1] + heading
        visible = None
        if valid is not None:
            seen = self._tokens(valid[..., None]).any(dim=-1)
            visible = F.pad(seen, (self.prefix, 0), value=True)
        return StageConditions(
            torch.cat([sentence, empty], dim=1) + codes[:slots],
            codes[slots],
            heading + codes[slots + STEP],
            poses,
            visible,
            sentence[:, :1],
        )

    def forward(self, features: Tensor, steps: Tensor, conditions: StageConditions) -> Tensor:
        """Features (B, T, C) at diffusion steps (B,) -> (B, T, outputs)."""
        frames = features.shape[1]
        step = self.step_in(sinusoids(steps, self.text_in.out_features).to(features.dtype))[:, None]
        poses = self.features_in(self._tokens(features)) + conditions.poses
        if self.broadcast:
            poses = poses + step
        x = torch.cat([conditions.slots, step + conditions.step_code, conditions.heading, poses], dim=1)
        if self.training and self.dropout:
            x = F.dropout(x, self.dropout)
        modulations = self._modulations(step, conditions)
        for layer, modulation in zip(self.layers[:-1], modulations, strict=False):
            x = layer(x, conditions.visible, modulation=modulation)
        x = self.layers[-1](x, conditions.visible, first=self.prefix, modulation=modulations[-1])
        out = rearrange(self.features_out(self.final_norm(x)), "b t (p c) -> b (t p) c", p=self.patch)
        return out[:, :frames]

    def _modulations(self, step: Tensor, conditions: StageConditions) -> list[Tensor | None]:
        """For every layer, (B, 1, 4 width) gains and shifts that sentence and step ask for, or None."""
        if not self.modulate:
            return [None] * len(self.layers)
        return list(self.modulation(F.silu(conditions.sentence + step)).chunk(len(self.layers), dim=-1))

    def _tokens(self, features: Tensor) -> Tensor:
        """(B, T, C) -> (B, T', patch * C); frames that are missing in the last token are zeros."""
        if self.patch == 1:
            return features
        missing = -features.shape[1] % self.patch
        return rearrange(F.pad(features, (0, 0, 0, missing)), "b (t p) c -> b t (p c)", p=self.patch)
