"""Transformer layers: RMS norms, gated feed-forward, cosine attention (ZipMo's shared layer; facts 1.2).

A layer is self-attention, cross-attention where there is a context, and a gated feed-forward; each has a norm before it
and is added to its input. Output matrices start at zero, so a new stack is the identity. There are no biases, no
dropout, no final norm.

Everything that depends on a context only is separated from the pass over the tokens: `Transformer.contexts` gives the
keys and values of all layers and `Transformer.tables` the rotary tables, and both can be handed in again, for example at
every step of a solver.

Departures, each off unless asked for: masked context tokens and a fixed distance bias (`DistanceBias`), which at small
sizes trains faster than rotation.

Shapes: tokens (B, L, width), context (B, S, context width), keys and values (B, heads, S, head width).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinelib.learning.rotary import RotaryTable, rotary
from kinelib.notation import ShapeError, check_shape


class RMSNorm(nn.Module):
    """Divides by the root mean square over channels, in float32, and scales each channel by a learned number."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return _rms_normalize(x, self.scale, self.eps)


class AdaRMSNorm(nn.Module):
    """An RMS norm whose scale is 1 + a linear map of a conditioning vector; no shift and no output gate.

    Args:
        dim: channels of the tokens.
        condition_dim: channels of the conditioning vector. Its linear map starts at zero.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, condition_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.linear = _zero_linear(condition_dim, dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, L, dim) and a condition (B, condition_dim) -> (B, L, dim)."""
        return _rms_normalize(x, 1 + self.linear(condition)[:, None, :], self.eps)


class SwiGLU(nn.Module):
    """value * SiLU(gate), both linear in the input, then a linear map that starts at zero.

    Args:
        dim: channels in and out.
        hidden: channels of value and gate; default 3 x dim.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = 3 * dim if hidden is None else hidden
        self.up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = _zero_linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(value * F.silu(gate))


class ResidualSwiGLU(nn.Module):
    """x + SwiGLU(RMSNorm(x)); the identity at the start."""

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.feed_forward = SwiGLU(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return x + self.feed_forward(self.norm(x))


class KeysValues(NamedTuple):
    """What attention needs to know of a context: normalised, rotated keys, and values, each (B, heads, S, head width).

    `mask` (B, S) is True where a context token may be seen; None means everywhere. Every clip must see one token.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None

    def repeat(self, copies: int) -> KeysValues:
        """Every clip `copies` times in a row, as for several samples of each."""
        return KeysValues(*(None if part is None else part.repeat_interleave(copies, dim=0) for part in self))

    def joined(self, other: KeysValues) -> KeysValues:
        """Both batches one after the other, as for guidance; both or neither must have a mask."""
        pairs = zip(self, other, strict=True)
        return KeysValues(*(None if first is None else torch.cat([first, second]) for first, second in pairs))


class CosineAttention(nn.Module):
    """Attention whose logits are a learned multiple of the cosine between query and key.

    Queries and keys are divided by their norms and multiplied by sqrt(s), s learned for every head from 10, then rotated;
    the softmax itself has scale 1. A key of zero stays zero.

    Args:
        dim: channels of the tokens.
        heads: number of heads; must divide dim.
        context_dim: channels of the context; default dim.
        rotary_variant: name of a variant of :func:`kinelib.learning.rotary.rotary`.
    """

    def __init__(self, dim: int, heads: int, context_dim: int | None = None, rotary_variant: str = "none") -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ShapeError(f"{heads} heads do not divide a width of {dim}.")
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim if context_dim is None else context_dim, 2 * dim, bias=False)
        self.out = _zero_linear(dim, dim)
        self.scale = nn.Parameter(torch.full((heads,), 10.0))
        self.rotary = rotary(rotary_variant, heads, dim // heads)

    def table(self, positions: Tensor | None) -> RotaryTable | None:
        """The rotary table of positions (B, L, A); None for attention without rotation.

        Raises:
            ShapeError: when rotation needs positions and there are none.
        """
        if self.rotary is None:
            return None
        if positions is None:
            raise ShapeError("this attention rotates by position; pass the positions of the tokens and of their context.")
        return self.rotary(positions)

    def keys_values(self, context: Tensor, table: RotaryTable | None = None, mask: Tensor | None = None) -> KeysValues:
        """The keys and values of a context (B, S, context_dim) seen through a mask (B, S)."""
        keys, values = rearrange(self.key_value(context), "b s (two h d) -> two b h s d", two=2, h=self.heads)
        return KeysValues(self._normalize(keys, table), values, mask)

    def forward(
        self, x: Tensor, context: KeysValues, table: RotaryTable | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Attends from tokens (B, L, dim) to a context.

        Args:
            x: the tokens, normalised by the caller.
            context: from :meth:`keys_values`.
            table: rotary table of the tokens.
            bias: added to the logits (float) or allowing them (bool), broadcast to (B, heads, L, S).

        Returns:
            (B, L, dim).
        """
        queries = self._normalize(rearrange(self.query(x), "b l (h d) -> b h l d", h=self.heads), table)
        keys, values, mask = context
        allowed = _combined(mask, bias if bias is None or bias.dtype == torch.bool else bias.to(queries.dtype))
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed, scale=1.0)
        return self.out(rearrange(out, "b h l d -> b l (h d)"))

    def _normalize(self, x: Tensor, table: RotaryTable | None) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        wide = wide * (self.scale.float().sqrt()[:, None, None] * torch.rsqrt(length.square() + 1e-6))
        return (wide if table is None else table.rotate(wide)).to(x.dtype)


class DistanceBias(nn.Module):
    """A fixed attention bias -a d^2 for every head, d the distance between two positions.

    Args:
        heads: number of heads.
        slopes: a for every head, in 1 / unit^2; default 0 for the first head, then 3 to 40 spaced evenly in log.
    """

    def __init__(self, heads: int, slopes: Sequence[float] | None = None) -> None:
        super().__init__()
        if slopes is None:
            # In plain floats, so that a network can be built on the meta device.
            slopes = [0.0, *(3 * (40 / 3) ** (i / max(heads - 2, 1)) for i in range(heads - 1))]
        if len(slopes) != heads or min(slopes) < 0:
            raise ShapeError(f"a distance bias needs one slope >= 0 for each of {heads} heads; got {list(slopes)}.")
        self.register_buffer("slopes", torch.tensor(slopes, dtype=torch.float32))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions (B, L, A) and (B, S, A) -> (B, heads, L, S)."""
        sizes = check_shape("queries", queries, "B L A")
        check_shape("keys", keys, "B S A", B=sizes["B"], A=sizes["A"])
        squared = (queries[:, :, None, :] - keys[:, None, :, :]).square().sum(dim=-1)
        return -self.slopes[:, None, None] * squared[:, None]


class LayerTables(NamedTuple):
    """The rotary tables of a layer's tokens, in its self-attention and in its cross-attention."""

    own: RotaryTable | None
    cross: RotaryTable | None


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention (with `context_dim`) and SwiGLU, each behind a norm (adaptive with `condition_dim`).

    Args: as of :class:`Transformer`.
    """

    def __init__(
        self, dim: int, heads: int, context_dim: int | None, condition_dim: int | None, variant: str, cross_variant: str
    ) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return RMSNorm(dim) if condition_dim is None else AdaRMSNorm(dim, condition_dim)

        self.self_norm, self.self_attention = norm(), CosineAttention(dim, heads, rotary_variant=variant)
        self.has_context = context_dim is not None
        if self.has_context:
            self.cross_norm, self.context_norm = norm(), RMSNorm(context_dim)
            self.cross_attention = CosineAttention(dim, heads, context_dim, cross_variant)
        self.feed_norm, self.feed_forward = norm(), SwiGLU(dim)

    def forward(
        self,
        x: Tensor,
        tables: LayerTables,
        context: KeysValues | None = None,
        condition: Tensor | None = None,
        bias: Tensor | None = None,
        visible: Tensor | None = None,
        context_bias: Tensor | None = None,
        keep: slice | None = None,
    ) -> Tensor:
        """One layer; arguments as of :meth:`Transformer.forward`. Of the tokens in `keep` only is the result computed."""
        given = () if condition is None else (condition,)
        normed = self.self_norm(x, *given)
        own = self.self_attention.keys_values(normed, tables.own, visible)
        if keep is not None:
            x, normed, tables = x[:, keep], normed[:, keep], LayerTables(*(_rows(table, keep) for table in tables))
            bias, context_bias = _kept(bias, keep), _kept(context_bias, keep)
        x = x + self.self_attention(normed, own, tables.own, bias)
        return self.after_self(x, tables, context, condition, context_bias)

    def after_self(
        self,
        x: Tensor,
        tables: LayerTables,
        context: KeysValues | None = None,
        condition: Tensor | None = None,
        context_bias: Tensor | None = None,
    ) -> Tensor:
        """The part of the layer that follows self-attention, in which tokens do not meet."""
        given = () if condition is None else (condition,)
        if self.has_context and context is not None:
            x = self._read(x, given, context, tables.cross, context_bias)
        return x + self.feed_forward(self.feed_norm(x, *given))

    def _read(
        self, x: Tensor, given: tuple[Tensor, ...], context: KeysValues, table: RotaryTable | None, bias: Tensor | None
    ) -> Tensor:
        """Cross-attention of the clips that have a context, which come first; the others stay as they are."""
        some = len(context.keys)
        if some == len(x):
            return x + self.cross_attention(self.cross_norm(x, *given), context, table, bias)
        first, given = x[:some], tuple(part[:some] for part in given)
        table = table if table is None or len(table.cosine) == 1 else RotaryTable(*(part[:some] for part in table))
        return torch.cat([first + self.cross_attention(self.cross_norm(first, *given), context, table, bias), x[some:]])


class Transformer(nn.Module):
    """A stack of layers over one sequence of tokens.

    Args:
        dim: width of the tokens.
        depth: number of layers.
        heads: number of heads.
        context_dim: width of the cross-attention context; None for no cross-attention.
        condition_dim: width of the vector that scales every norm; None for plain norms.
        rotary_variant: rotation in self-attention ("3d_40", "3d_10", "2d", "1d", "none").
        cross_variant: rotation in cross-attention; default the same.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        *,
        context_dim: int | None = None,
        condition_dim: int | None = None,
        rotary_variant: str = "none",
        cross_variant: str | None = None,
    ) -> None:
        super().__init__()
        cross = rotary_variant if cross_variant is None else cross_variant
        layers = (TransformerLayer(dim, heads, context_dim, condition_dim, rotary_variant, cross) for _ in range(depth))
        self.layers = nn.ModuleList(layers)

    def tables(self, positions: Tensor | None) -> list[LayerTables]:
        """The rotary tables of every layer for token positions (B or 1, L, A)."""
        return [
            LayerTables(
                layer.self_attention.table(positions),
                layer.cross_attention.table(positions) if layer.has_context else None,
            )
            for layer in self.layers
        ]

    def contexts(self, context: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> list[KeysValues]:
        """The keys and values of every layer for a context (B, S, context_dim) at positions (B or 1, S, A)."""
        made = []
        for layer in self.layers:
            attention = layer.cross_attention
            made.append(attention.keys_values(layer.context_norm(context), attention.table(positions), mask))
        return made

    def forward(
        self,
        x: Tensor,
        tables: list[LayerTables],
        contexts: list[KeysValues] | None = None,
        *,
        condition: Tensor | None = None,
        bias: Tensor | None = None,
        visible: Tensor | None = None,
        context_bias: Tensor | None = None,
        keep: slice | None = None,
    ) -> Tensor:
        """Runs the tokens through all layers.

        Args:
            x: (B, L, dim).
            tables: from :meth:`tables`.
            contexts: from :meth:`contexts`, where the stack has cross-attention; None for nothing to read. Contexts of fewer
                clips than B are those of the first clips; the others have nothing to read.
            condition: (B, condition_dim), where the norms are adaptive.
            bias: of self-attention: float added or bool allowing, broadcast to (B, heads, L, L).
            visible: (B, L) bool, tokens that may be attended to by others; None means all.
            context_bias: of cross-attention, broadcast to (B, heads, L, S).
            keep: which tokens are wanted; the last layer computes no others. None means all.

        Returns:
            (B, L, dim), or as many tokens as are kept.
        """
        contexts = [None] * len(self.layers) if contexts is None else contexts
        last = len(self.layers) - 1
        for index, (layer, table, context) in enumerate(zip(self.layers, tables, contexts, strict=True)):
            wanted = keep if index == last else None
            x = layer(x, table, context, condition, bias, visible, context_bias, wanted)
        return x if self.layers or keep is None else x[:, keep]


def compile_stack(stack: Transformer) -> None:
    """Compiles a stack in place (torch.compile), after seeing on a small example that this machine can.

    Raises:
        RuntimeError: when it cannot; the message says why.
    """
    try:
        torch.compile(lambda x: x.sin() + x.cos())(torch.zeros(8))
    except Exception as error:  # Dynamo, the C++ compiler and the file system each raise their own kinds
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise RuntimeError(
            f"torch.compile does not work on this machine ({type(error).__name__}: {reason}). It needs a C++ compiler (on "
            "Debian: apt install g++) and a writable temporary folder. Without it everything works, only slower."
        ) from error
    stack.compile()


def _rms_normalize(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    wide = x.float()
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return (wide * torch.rsqrt(length.square() / x.shape[-1] + eps) * scale.float()).to(x.dtype)


def _rows(table: RotaryTable | None, keep: slice) -> RotaryTable | None:
    return None if table is None else RotaryTable(*(part[:, :, keep] for part in table))


def _kept(bias: Tensor | None, keep: slice) -> Tensor | None:
    """The rows of an attention bias (..., L, S) that belong to kept tokens; one row serves all."""
    return bias if bias is None or bias.shape[-2] == 1 else bias[..., keep, :]


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


def _combined(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    if mask is None:
        return bias
    mask = mask[:, None, None, :]
    if bias is None:
        return mask
    return bias & mask if bias.dtype == torch.bool else bias.masked_fill(~mask, float("-inf"))
