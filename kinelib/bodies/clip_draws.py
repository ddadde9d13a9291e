"""Draws clips for batches: sources as often as they should be, clips of like length together, so that little is padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

CLASSES = 8  # of clips by length


class ClipDraws:
    """Rows of clips, all of a draw from one class of lengths.

    Args:
        lengths: (N,) frames of every clip, as far as they are used.
        sources: of every clip.
        shares: source -> share of all draws, see :func:`clip_odds`.
    """

    def __init__(self, lengths: Tensor, sources: Sequence[str], shares: dict[str, float] | None = None) -> None:
        odds = clip_odds(sources, shares or {})
        order = lengths.argsort(stable=True)
        parts = [part for part in order.tensor_split(min(CLASSES, len(order))) if odds[part].sum() > 0]
        self.classes, self.within = parts, [odds[part].cumsum(0) / odds[part].sum() for part in parts]
        weights = torch.stack([odds[part].sum() for part in parts])
        self.between = weights.cumsum(0) / weights.sum()

    def rows(self, size: int, rand: Callable[[int], Tensor]) -> Tensor:
        """(size,) rows; `rand(count)` gives float64 lots in [0, 1), first one for the class, then one a clip."""
        chosen = _choose(self.between, rand(1)).item()
        return self.classes[chosen][_choose(self.within[chosen], rand(size))]


def clip_odds(sources: Sequence[str], shares: dict[str, float]) -> Tensor:
    """(N,) float64 odds with which the clips are drawn.

    Args:
        sources: of every clip.
        shares: source -> share of all draws; the other sources divide the rest by their numbers of clips.

    Raises:
        ValueError: for shares that are not shares, or of a source without clips.
    """
    if any(not 0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise ValueError(f"shares of sources are in [0, 1] and sum to at most 1; got {shares}.")
    counts = {source: sources.count(source) for source in dict.fromkeys(sources)}
    if unknown := sorted(set(shares) - set(counts)):
        raise ValueError(f"there is no clip of {', '.join(unknown)}; there are clips of {', '.join(counts)}.")
    others = sum(count for source, count in counts.items() if source not in shares)
    rest = 1 - sum(shares.values())
    odds = {s: shares[s] / count if s in shares else rest / others for s, count in counts.items()}
    return torch.tensor([odds[source] for source in sources], dtype=torch.float64)


def _choose(cumulative: Tensor, lots: Tensor) -> Tensor:
    """Indices whose cumulative odds hold the lots."""
    return torch.searchsorted(cumulative, lots, right=True).clamp(max=len(cumulative) - 1)
