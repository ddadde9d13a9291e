"""The regression baseline: one answer instead of samples, from the same conditions and a network of the flow matcher's size.

It minimises squared error in latent space, so where the future is open it answers with the mean of the possible ones.
Shapes as in `flow_matcher`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from kinelib.zipmo.conditions import check_pokes
from kinelib.zipmo.flow_matcher import FlowMatcher, FlowMatcherConfig


@dataclass(frozen=True)
class RegressionConfig(FlowMatcherConfig):
    """Sizes as of the flow matcher; its flow settings have no effect, and it reads no text."""

    text_width: int = 0
    finely: bool = False


class Regression(nn.Module):
    """Predicts the latents of the mean future: the flow matcher's network asked once, at pure noise that is set to zero."""

    def __init__(self, config: RegressionConfig | None = None) -> None:
        super().__init__()
        self.config = config or RegressionConfig()
        self.network = FlowMatcher(
            FlowMatcherConfig(**{f.name: getattr(self.config, f.name) for f in fields(FlowMatcherConfig)})
        )

    def forward(self, frame: Tensor, pokes: Tensor, mask: Tensor) -> Tensor:
        """(B, S, R, W, C) normalised latents."""
        check_pokes(pokes, mask, len(frame), self.config.max_pokes)
        blank = frame.new_zeros(len(frame), *self.config.latent_shape)
        return self.network.clean(blank, frame.new_ones(len(frame)), self.network.prepare(frame, pokes, mask))

    def loss(self, latents: Tensor, frame: Tensor, pokes: Tensor, mask: Tensor, decode_pokes=None, generator=None) -> dict:
        """Squared latent error plus end-point error of the decoded answer at the pokes; arguments as of the flow matcher."""
        keep = torch.rand(len(latents), generator=generator, device=latents.device) >= self.config.drop
        mask = mask & keep[:, None]
        answer = self(frame, pokes, mask)
        flow = (answer - latents).square().mean()
        poke = self.network.poke_error(answer, pokes, mask, decode_pokes)
        return {"loss": flow + self.config.poke_weight * poke, "flow": flow, "poke": poke}
