"""An exponential moving average of a network's weights, which generative models are sampled with.

The decay warms up, ``min(decay, (1 + step) / (10 + step))``, so that the random weights of the first steps are soon
forgotten: a short run gets a short average and a long one approaches ``decay``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """A moving average of the trainable parameters; buffers are not averaged, the live ones are used."""

    def __init__(self, model: nn.Module, decay: float):
        """Starts at the present weights.

        Args:
            model: the network that is being trained.
            decay: the decay reached after the warm-up, in [0, 1); 0.999 averages about a thousand steps.
        """
        self.decay = decay
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the live weights after update number ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live = [p.detach() for p in self._live.values()]
        # One fused call for all tensors: a Python loop would cost more than a small network's backward pass.
        torch._foreach_lerp_(list(self.weights.values()), live, 1 - decay)

    @torch.no_grad()
    def write_to_model(self) -> None:
        """Overwrites the live weights by the average."""
        torch._foreach_copy_([p.detach() for p in self._live.values()], list(self.weights.values()))

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Lends the average to the model, and puts the live weights back afterwards, errors included."""
        live = [p.detach().clone() for p in self._live.values()]
        self.write_to_model()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_([p.detach() for p in self._live.values()], live)
