"""The official policy head: motion latents of the camera views and proprioception to a chunk of actions (ZipMo; facts 1.10).

The latents come from the planner as they are, in its normalised space and undecoded; no image and no text reaches
the head. One learned query for every step of the chunk goes through a small transformer that reads the latents and one
token of proprioception by cross-attention. Views share their positions and are told apart by learned vectors.

Training: squared error against a demonstrated chunk, weighted by 0.99^h at step h of the chunk, averaged.

Departures: positions are (x, y). The release has six of those learned vectors and uses three; we have three. Steps beyond
the end of a demonstration can be left out of the loss (`valid`).

Shapes: latents (B, V, 1, R, W, C), proprio (B, P), actions (B, H, A).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.learning.layers import Transformer
from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape


@dataclass(frozen=True)
class PolicyHeadConfig:
    """Sizes of a policy head."""

    views: int = 2  # V, camera views the planner speaks of
    grid: tuple[int, int] = (8, 8)  # rows R, columns W of a view's latents
    channels: int = 16  # C of a latent
    proprio: int = 9  # P numbers the robot knows of itself: 7 joint angles, 2 gripper fingers
    horizon: int = 16  # H, actions of a chunk
    actions: int = 7  # A numbers of an action
    width: int = 64  # of the tokens
    depth: int = 2  # layers
    heads: int = 1  # attention heads (paper: width / 64)
    rotary: str = "2d"  # rotary variant of all attention
    discount: float = 0.99  # weight of a step of the chunk in the loss, relative to the step before


PAPER = PolicyHeadConfig(grid=(16, 16), width=768, depth=6, heads=12)


class PolicyHead(nn.Module):
    """A chunk of actions from motion latents and proprioception.

    Args:
        config: sizes; `PAPER` has the official ones.

    Raises:
        ValueError: when the discount is not in (0, 1].
    """

    def __init__(self, config: PolicyHeadConfig) -> None:
        super().__init__()
        if not 0 < config.discount <= 1:
            raise ValueError(f"the discount must be above 0 and at most 1; got {config.discount}.")
        self.config = config
        width = config.width
        self.latents_in = nn.Linear(config.channels, width)
        self.proprio_in = nn.Linear(config.proprio, width)
        self.view_vectors = nn.Parameter(torch.randn(config.views, width) * 0.02)
        self.proprio_vector = nn.Parameter(torch.randn(width) * 0.02)
        self.queries = nn.Parameter(torch.randn(config.horizon, width) * 0.02)
        self.queries_in = nn.Linear(width, width, bias=False)
        self.transformer = Transformer(width, config.depth, config.heads, context_dim=width, rotary_variant=config.rotary)
        self.actions_out = nn.Linear(width, config.actions, bias=False)

    def forward(self, latents: Tensor, proprio: Tensor) -> Tensor:
        """Predicts a chunk.

        Args:
            latents: (B, V, 1, R, W, C) in the planner's normalised space, one draw of a clip.
            proprio: (B, P), normalised as in training.

        Returns:
            (B, H, A).

        Raises:
            ShapeError: on wrong shapes and values that are not finite.
        """
        config = self.config
        rows, columns = config.grid
        pattern = f"B {config.views} 1 {rows} {columns} {config.channels}"
        batch = check_shape("latents", latents, pattern)["B"]
        check_shape("proprio", proprio, f"B {config.proprio}", B=batch)
        check_finite("latents", latents)
        check_finite("proprio", proprio)

        seen = self.latents_in(rearrange(latents, "b v 1 r w c -> b v (r w) c")) + self.view_vectors[:, None, :]
        felt = self.proprio_in(proprio) + self.proprio_vector
        context = torch.cat([rearrange(seen, "b v l c -> b (v l) c"), rearrange(felt, "b c -> b 1 c")], dim=1)
        cells = cell_centres(rows, columns, latents.device)
        places = torch.cat([cells.repeat(config.views, 1), cells.new_zeros(1, 2)])

        queries = self.queries_in(repeat(self.queries, "h c -> b h c", b=batch))
        tables = self.transformer.tables(cells.new_zeros(1, config.horizon, 2))
        return self.actions_out(self.transformer(queries, tables, self.transformer.contexts(context, places[None])))

    def loss(self, latents: Tensor, proprio: Tensor, actions: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """The discounted error of the predicted chunk.

        Args:
            latents, proprio: as of :meth:`forward`.
            actions: (B, H, A) demonstrated chunk; steps that are not valid may hold anything.
            valid: (B, H) bool, False beyond the end of the demonstration; None means all are valid.

        Returns:
            "loss", the discounted squared error, and "error", the mean absolute error in the units of the actions.

        Raises:
            ShapeError: on wrong shapes, a valid action that is not finite, and a batch without a valid step.
        """
        return chunk_loss(self(latents, proprio), actions, self.config.discount, valid)


def chunk_loss(predicted: Tensor, actions: Tensor, discount: float = 0.99, valid: Tensor | None = None) -> dict[str, Tensor]:
    """Squared error of a chunk (B, H, A), weighted by discount^h and averaged; arguments as of :meth:`PolicyHead.loss`."""
    batch, horizon, size = predicted.shape
    check_shape("actions", actions, f"B {horizon} {size}", B=batch)
    valid = torch.ones(batch, horizon, dtype=torch.bool, device=actions.device) if valid is None else valid.bool()
    check_shape("valid", valid, f"B {horizon}", B=batch)
    if not valid.any():
        raise ShapeError("no step of these chunks is valid; draw chunks that start inside their demonstrations.")
    check_finite("actions", actions[valid])
    difference = predicted - torch.where(valid[:, :, None], actions, predicted.detach())
    weight = discount ** torch.arange(horizon, device=actions.device)
    counted = valid.sum() * size
    weighted = difference.square() * weight[:, None]
    return {"loss": weighted.sum() / counted, "error": difference.detach().abs().sum() / counted}
