"""Whitening: vectors in units of their own spread, so that rare differences are as large as common ones.

Sentences that differ in one word lie close together in an encoder's space - "the left hand" and "the right hand" at a cosine
of 0.98 in MiniLM's - so networks read their vectors along the axes of the training sentences' covariance, each axis scaled
to unit variance. That is the symmetric ("ZCA") whitening, which turns no axis more than it has to.

Shapes: N vectors of C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinelib.notation import ShapeError, check_shape

FLOOR = 1e-2


class Whitening(nn.Module):
    """Decorrelates vectors; its numbers are measured, not learned, and travel with the weights.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # On the CPU by name: numbers that are not learned exist even when a network is built on the meta device.
        self.register_buffer("mean", torch.zeros(channels, device="cpu"))
        # Not learned, but a matrix of weights to a checkpoint, which keeps those as float16.
        self.map = nn.Parameter(torch.eye(channels, device="cpu"), requires_grad=False)

    @torch.no_grad()
    def measure(self, vectors: Tensor, floor: float = FLOOR) -> None:
        """Takes mean and covariance from vectors of different training sentences.

        Args:
            vectors: (N, C), N >= 2.
            floor: share of the mean variance that is added to every direction's, so that the least ones are not blown up.

        Raises:
            ShapeError: for vectors of another width, or a single one.
        """
        count = check_shape("vectors", vectors, "N C", C=len(self.mean))["N"]
        if count < 2:
            raise ShapeError("a covariance needs the vectors of at least two different sentences; got one.")
        vectors = vectors.double()
        variances, axes = torch.linalg.eigh(torch.cov(vectors.T))
        scales = (variances.clamp_min(0) + floor * variances.mean()).rsqrt()
        self.mean.copy_(vectors.mean(0))
        self.map.copy_(axes * scales @ axes.T)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., C) -> (..., C); zeros, which are no text, stay zeros."""
        said = (vectors != 0).any(-1, keepdim=True)
        return torch.where(said, (vectors - self.mean) @ self.map, 0.0)

    def directions(self, vectors: Tensor) -> Tensor:
        """The same, all of one length, sqrt(C).

        A sentence that training never had lies outside the few directions that its sentences span, where whitening blows up
        what it finds: a hundred sentences of annotators have lengths near 7, a user's own ones 70 to 280.
        """
        return nn.functional.normalize(self(vectors), dim=-1) * len(self.mean) ** 0.5
