"""The one sampling loop: fills in the motion tokens that are free, and leaves the others as they are (MoMask, Section 3.3).

All free tokens start hidden, or a share of them: those whose codes the network now finds least likely. In every step the
network tells what each hidden code may be, all of them are drawn at once, the draws it is surest of stay, and by the cosine
schedule fewer and fewer are hidden again. Then the further codebooks are drawn, one pass each.

Generation, in-betweening, exchanging a group and refining under other words (`coarse_to_fine`) are this loop with another
`free` mask. Tokens that are not free keep their codes in *all* layers (MoMask draws the residual layers of the whole clip
anew, which changes what was to be kept).

Every clip draws from a generator of its own, so that it is the same (up to rounding) whatever else is in the batch.
Guidance takes one pass: the batch and its twin without words together.

Shapes: B clips, L times, G streams, Q codebooks of K codes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinelib.kinmo.masked import Conditions, MaskedMotionGenerator
from kinelib.kinmo.masks import hidden_share, lowest, there


@dataclass(frozen=True)
class Sampler:
    """How tokens are drawn."""

    steps: int = 10  # passes of the base transformer when everything free is hidden
    guidance: float = 3.0  # weight of the words, 1 for none; MoMask: 4
    residual_guidance: float = 2.0  # of the further codebooks; MoMask: 2 to 5
    temperature: float = 1.0  # of all draws; 0 takes the likeliest
    residual_temperature: float = 0.0  # of the further codebooks, whose draws are details that need no variety
    kept: float = 0.1  # share of a codebook that is drawn from, the likeliest codes
    soft: bool = True  # what is decoded are mean code vectors under `believed`, not those of single codes as in MoMask

    def __post_init__(self) -> None:
        if self.steps < 1 or min(self.temperature, self.residual_temperature, self.guidance) < 0 or not 0 < self.kept <= 1:
            raise ValueError(f"steps are at least 1, temperatures and guidance at least 0, kept in (0, 1]; got {self}.")


def generators(seed: int, count: int) -> list[torch.Generator]:
    """One generator for each of `count` samples of a seed; sample k's does not depend on how many there are."""
    digests = (hashlib.sha256(f"kinmo {seed} {number}".encode()).digest() for number in range(count))
    return [torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1) for digest in digests]


@torch.no_grad()
def fill(
    model: MaskedMotionGenerator,
    codes: Tensor,
    free: Tensor,
    conditions: Conditions,
    lengths: Tensor,
    draws: Sequence[torch.Generator],
    sampler: Sampler,
    *,
    hidden: float = 1.0,
) -> Tensor:
    """Draws base codes where they are free.

    Args:
        model: in eval mode.
        codes: (B, L, G) base codes; those that are free count only with `hidden` below 1.
        free: (B, L, G) bool.
        conditions: the words.
        lengths: (B,) times of every clip.
        draws: B generators, on the CPU.
        sampler: how.
        hidden: share of the free tokens that is drawn anew, (0, 1]: those whose codes are least likely under the words. The
            number of steps shrinks with it.

    Returns:
        (B, L, G).
    """
    open_ = free = free & there(lengths, *codes.shape[1:])
    if not bool(free.any()):
        return codes
    if hidden < 1:
        judged = _likelihoods(_guided(model, codes, conditions, lengths, sampler.guidance), codes)
        open_ = lowest(judged, free, hidden)
    steps, total = max(1, round(sampler.steps * hidden)), open_.flatten(1).sum(1)
    for step in range(steps):
        logits = _guided(model, torch.where(open_, model.config.codes, codes), conditions, lengths, sampler.guidance)
        drawn = draw(logits, lengths, draws, sampler.temperature, sampler.kept)
        codes = torch.where(open_, drawn, codes)
        if step + 1 == steps:
            break
        left = (hidden_share((step + 1) / steps) * total).floor()
        share = left / open_.flatten(1).sum(1).clamp_min(1)
        open_ = lowest(_likelihoods(logits, codes), open_, share) & (left > 0)[:, None, None].to(open_.device)
    return codes


@torch.no_grad()
def fill_further(
    model: MaskedMotionGenerator,
    codes: Tensor,
    free: Tensor,
    conditions: Conditions,
    lengths: Tensor,
    draws: Sequence[torch.Generator],
    sampler: Sampler,
) -> Tensor:
    """Draws the codes of all layers above the base where they are free.

    Args:
        codes: (B, L, G, Q) with the base layer filled in; of the other layers those that are not free are kept.
        others: as of :func:`fill`.

    Returns:
        (B, L, G, Q).
    """
    codes = codes.clone()
    for layer in range(1, model.config.codebooks):
        logits = _guided(model, codes[..., :layer], conditions, lengths, sampler.residual_guidance, further=True)
        drawn = draw(logits, lengths, draws, sampler.residual_temperature, sampler.kept)
        codes[..., layer] = torch.where(free, drawn, codes[..., layer])
    return codes


@torch.no_grad()
def believed(model: MaskedMotionGenerator, codes: Tensor, free: Tensor, conditions: Conditions, lengths: Tensor) -> Tensor:
    """What the network believes of tokens once all are drawn: odds of the codes of each, the others given.

    Drawn codes of one pose held for a second change between neighbours, which decoded is a waver; a token's mean vector
    under these odds does not. `MotionTokenizer.embed` takes odds in the place of codes.

    Args:
        model: in eval mode.
        codes: (B, L, G, Q) of all layers.
        free: (B, L, G) bool; of tokens that are not free the odds are all on their code.
        conditions: the words. lengths: (B,) times.

    Returns:
        (B, L, G, Q, K).
    """
    free, lengths, conditions = free.to(codes.device), lengths.to(codes.device), conditions.to(codes.device)
    layers = [model(codes[..., 0], conditions, lengths)]
    layers += [model.next_layer(codes[..., :layer], conditions, lengths) for layer in range(1, model.config.codebooks)]
    odds = torch.stack(layers, -2).softmax(-1)
    sure = torch.nn.functional.one_hot(codes, model.config.codes).to(odds)
    return torch.where(free[..., None, None], odds, sure)


def draw(logits: Tensor, lengths: Tensor, draws: Sequence[torch.Generator], temperature: float, kept: float) -> Tensor:
    """Codes (B, L, G) drawn from logits (B, L, G, K), with the likeliest share `kept` of them; padding gets any."""
    if temperature == 0:
        return logits.argmax(-1)
    count = max(1, math.ceil(kept * logits.shape[-1]))
    edge = logits.topk(count, -1).values[..., -1:]
    # The largest of logits with Gumbel noise is a draw from their softmax. Each clip's noise has the clip's own length.
    noise = torch.zeros(logits.shape)
    for row, (length, generator) in enumerate(zip(lengths.tolist(), draws, strict=True)):
        lots = torch.rand((length, *logits.shape[2:]), generator=generator).clamp(1e-9, 1 - 1e-7)
        noise[row, :length] = -(-lots.log()).log()
    return (logits.masked_fill(logits < edge, -torch.inf) / temperature + noise.to(logits)).argmax(-1)


def _likelihoods(logits: Tensor, codes: Tensor) -> Tensor:
    """How likely (B, L, G) codes are, before temperature."""
    return logits.softmax(-1).gather(-1, codes[..., None].clamp(max=logits.shape[-1] - 1))[..., 0]


def _guided(
    model: MaskedMotionGenerator,
    codes: Tensor,
    conditions: Conditions,
    lengths: Tensor,
    weight: float,
    *,
    further: bool = False,
) -> Tensor:
    """Logits pushed away from what is said without words, `weight` times as far as the words push them."""
    predict = model.next_layer if further else model
    if weight == 1:
        return predict(codes, conditions, lengths)
    with_words, without = predict(
        torch.cat([codes, codes]), conditions.with_silent_twin(), torch.cat([lengths, lengths])
    ).chunk(2)
    return without + weight * (with_words - without)
