"""Temporal ensembling: blends what the last chunks of actions say about the present step (ZipMo; facts 1.10).

The policy plans again at every step of the environment. A chunk that is `age` steps old has its word about the present
step at index `age`: with chunks as rows, oldest first, the entries lie on an anti-diagonal. They are averaged with weights
discount^age in float64, over as many chunks as there are, at most the length of one.

Departure: the release reads chunk i, oldest first, at index -i modulo the length, which is one step ahead of the present
for every chunk but the oldest, whose entry is its first; at the start of an episode the blend is up to nine steps ahead.
That is the switch `official_index`, off by default.

Shapes: a chunk (..., H, A); leading axes are environments that are reset together.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kinelib.notation import ShapeError


class TemporalEnsemble:
    """The running blend of one episode.

    Args:
        discount: weight of a chunk relative to one that is a step younger, in (0, 1].
        official_index: read the chunks at the release's wrong indices.

    Raises:
        ValueError: for another discount.
    """

    def __init__(self, discount: float = 0.99, *, official_index: bool = False) -> None:
        if not 0 < discount <= 1:
            raise ValueError(f"the discount must be above 0 and at most 1; got {discount}.")
        self.discount = discount
        self.official_index = official_index
        self._chunks: deque[NDArray[np.float64]] = deque()

    def reset(self) -> None:
        """Forgets every chunk; call it when an episode starts."""
        self._chunks.clear()

    def __call__(self, chunk: ArrayLike) -> NDArray[np.float64]:
        """Takes the chunk planned at the present step and gives the action to execute now.

        Args:
            chunk: (..., H, A), entry h for h steps from now; the same shape throughout an episode.

        Returns:
            (..., A) in float64.

        Raises:
            ShapeError: when the shape is not that of the episode's other chunks, or a value is NaN or infinite; the
                chunk is then not taken in.
        """
        chunk = np.array(chunk, dtype=np.float64)
        if chunk.ndim < 2 or 0 in chunk.shape:
            raise ShapeError(f"a chunk must have shape (..., H, A) and hold something; got {chunk.shape}.")
        if self._chunks and chunk.shape != self._chunks[-1].shape:
            raise ShapeError(
                f"this episode's chunks have shape {self._chunks[-1].shape}; got {chunk.shape}. "
                "Call reset() when another episode starts."
            )
        bad = int((~np.isfinite(chunk)).sum())
        if bad:
            raise ShapeError(f"the planned chunk holds {bad} of {chunk.size} values that are NaN or infinite.")
        horizon = chunk.shape[-2]
        self._chunks.append(chunk)
        if len(self._chunks) > horizon:
            self._chunks.popleft()

        ages = np.arange(len(self._chunks))[::-1]  # oldest first
        indices = -np.arange(len(self._chunks)) % horizon if self.official_index else ages
        entries = np.stack([one[..., index, :] for one, index in zip(self._chunks, indices, strict=True)])
        weights = self.discount ** ages.astype(np.float64)
        return np.tensordot(weights / weights.sum(), entries, axes=1)
