"""Which motion tokens are hidden in training, and how the hidden ones look to the network (MoMask's masks, and ours).

Some tokens of a clip are *free*, the others given; of the free ones a share is hidden, drawn from the cosine schedule on
their true number (MoMask counts padding). Everything is free for generation; all of some groups, for editing a group and for
composing; a span of time, for in-betweening. So every state that the sampling loop passes through occurs in training, be it
of generation or of inpainting. The paper trains with scattered masks alone, and edits by text alone.

Hidden tokens look as in BERT: a tenth of them is another code, 88 % of the rest is the mask, the remainder is as it was,
so that the network also learns to judge codes that it sees.

Shapes: B clips, L times, G streams; True = free, or hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kinelib.notation import check_shape


@dataclass(frozen=True)
class MaskConfig:
    """Shares of what is hidden in training."""

    groups: float = 0.25  # of clips of which some groups are free, the others given
    spans: float = 0.15  # of clips of which a span of time is free; the rest of the clips is free altogether
    wrong: float = 0.1  # of the hidden tokens that look like another code
    masked: float = 0.88  # of the other hidden tokens that look masked
    slips: float = 0.02  # of the given tokens that look like another code, as a model's own slips would (assumption A9)

    def __post_init__(self) -> None:
        shares = (self.groups, self.spans, self.wrong, self.masked, self.slips)
        if not all(0 <= share <= 1 for share in shares) or self.groups + self.spans > 1:
            raise ValueError(f"shares of masks are in [0, 1], and groups and spans sum to at most 1; got {self}.")


def hidden_share(progress: Tensor | float) -> Tensor:
    """The cosine schedule: 1 at progress 0, 0 at progress 1."""
    return torch.cos(torch.as_tensor(progress) * (math.pi / 2))


def there(lengths: Tensor, times: int, streams: int) -> Tensor:
    """(B, L, G) bool, True where a clip of `lengths` (B,) times has a token."""
    check_shape("lengths", lengths, "B")
    return (torch.arange(times, device=lengths.device) < lengths[:, None])[:, :, None].expand(-1, -1, streams).clone()


def draw_free(lengths: Tensor, times: int, streams: int, config: MaskConfig, generator: torch.Generator) -> Tensor:
    """Draws what is free of every clip.

    Args:
        lengths: (B,) times of every clip. times: L. streams: G; with one stream no groups are drawn.
        config: shares. generator: of the draw, on the device of `lengths`.

    Returns:
        (B, L, G), at least one token a clip.
    """
    rand = lambda *shape: torch.rand(*shape, generator=generator, device=lengths.device)
    batch, kind = len(lengths), rand(len(lengths))
    free = there(lengths, times, streams)
    # From one group to all but one: those with the smallest lots.
    lots, count = rand(batch, streams), 1 + (rand(batch) * max(streams - 1, 1)).long()
    chosen = lots.argsort(1).argsort(1) < count[:, None]
    some = (kind < config.groups) & (streams > 1)
    free &= chosen[:, None] | ~some[:, None, None]
    # A span of a quarter of the clip to all of it, anywhere in it: also its beginning or its end.
    width = (lengths * (0.25 + 0.75 * rand(batch))).ceil().long().clamp(min=1)
    start = (rand(batch) * (lengths - width + 1)).long()
    at = torch.arange(times, device=lengths.device)
    within = (at >= start[:, None]) & (at < (start + width)[:, None])
    span = (kind >= config.groups) & (kind < config.groups + config.spans)
    return free & (within | ~span[:, None])[:, :, None]


def draw_hidden(free: Tensor, generator: torch.Generator) -> Tensor:
    """Hides a share of the free tokens (B, L, G), drawn for every clip by the cosine schedule; at least one."""
    batch = len(free)
    share = hidden_share(torch.rand(batch, generator=generator, device=free.device))
    return lowest(torch.rand(free.shape, generator=generator, device=free.device), free, share)


def lowest(scores: Tensor, among: Tensor, share: Tensor | float) -> Tensor:
    """The tokens with the lowest scores.

    Args:
        scores: (B, L, G).
        among: (B, L, G) bool, of which they are taken.
        share: (B,) or one, of them; rounded, and at least one where there is any.

    Returns:
        (B, L, G) bool.
    """
    total = among.flatten(1).sum(1)
    count = torch.minimum((total * share).round().long().clamp_min(1), total)
    order = scores.masked_fill(~among, torch.inf).flatten(1).argsort(dim=1, stable=True).argsort(1)
    return (order < count[:, None]).view_as(among) & among


def disguised(codes: Tensor, hidden: Tensor, count: int, config: MaskConfig, generator: torch.Generator) -> Tensor:
    """Codes (B, L, G) as the network sees them: the hidden ones masked, wrong or as they are.

    Args:
        codes: true ones. hidden: (B, L, G) bool.
        count: K; also the number that stands for the mask.
        config: shares. generator: of the draw.
    """
    rand = lambda: torch.rand(codes.shape, generator=generator, device=codes.device)
    others = torch.randint(count, codes.shape, generator=generator, device=codes.device)
    lots = rand()
    wrong = torch.where(hidden, lots < config.wrong, lots < config.slips)
    masked = hidden & ~wrong & (rand() < config.masked)
    return torch.where(masked, count, torch.where(wrong, others, codes))
