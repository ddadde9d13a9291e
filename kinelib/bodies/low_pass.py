"""A low-pass filter in time as a matrix, so that a network's prediction is as smooth as bodies are.

A small network's clean estimate is wrong by a little in every frame independently; differences of neighbouring frames turn
a centimetre of that into feet that slide at 20 cm/s. A Gaussian over neighbouring frames takes it out, and since the network
is trained through the filter it learns to make up for what the filter weakens. Not in the paper.

Kimodo's denoiser and KinMo's tokenizer both end in it. Beyond both ends a clip goes on as its own point reflection, so that
straight lines pass unchanged (in clips of fewer frames than the Gaussian reaches, it goes on as its last reflected frame).
All of that is linear and depends on the number of frames only: one (T, T) matrix.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

REACH = 3  # deviations to either side


@lru_cache(maxsize=512)
def filter_matrix(length: int, frames: int, deviation: float) -> Tensor:
    """The filter of a clip of `length` frames that is padded to `frames`; padding passes as it is.

    Args:
        length: 1..frames.
        frames: T.
        deviation: of the Gaussian, in frames; above 0.

    Returns:
        (T, T), rows sum to one. Shared: do not write into it.
    """
    reach = max(1, round(REACH * deviation))
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / deviation) ** 2)
    weights = (weights / weights.sum()).repeat(length, 1)
    at = torch.arange(length)[:, None] + offsets
    last = length - 1
    edge = at.clamp(0, last)
    mirrored = (2 * edge - at).clamp(0, last)
    outside = at != edge
    matrix = torch.eye(frames)
    part = torch.zeros(length, length)
    # x beyond an end is 2 x(end) - x(reflected).
    part.scatter_add_(1, torch.where(outside, mirrored, at), torch.where(outside, -weights, weights))
    part.scatter_add_(1, edge, torch.where(outside, 2 * weights, 0.0))
    matrix[:length, :length] = part
    return matrix


def filter_matrices(lengths: Tensor, frames: int, deviation: float) -> Tensor:
    """The filters of several clips: (B, T, T), or (1, T, T) when all lengths (B,) are equal."""
    each = lengths.tolist()
    each = each[:1] if len(set(each)) == 1 else each
    return torch.stack([filter_matrix(length, frames, deviation) for length in each])
