"""`ActionNet`: a chunk of actions from a plan, or from a look at the pictures, or from both.

The release's policy reads the planner's latents and proprioception and nothing else (`policy_head`). A planner that learnt
from two hundred demonstrations on two cores foresees motion to within a few pixels, which says where a hand is going but
not to a centimetre where a handle is. So there can be a *glance* beside the head: where things of each colour are
(`colour_glance`), and a small perceptron that also knows the sentence. The chunk is the sum of both. Three networks come of
two switches:

    plan  glance
    yes   no      the paper's head alone
    no    yes     behaviour cloning from pictures, words and proprioception: the baseline
    yes   yes     the policy that is shipped

Departures: 2 x 2 latent cells are one token of the head; plans are left out of a share of a batch (`plan_drop`) in
training, so that the glance learns to act by itself and a wrong plan does not lead it astray; and the discounted error is
absolute, not squared: experts move at full speed or not at all, and the mean of the two is a crawl.

Shapes: frames (B, V, 3, S, S) in [-1, 1], words (B, 384) one vector a sentence, proprio (B, P), latents
(B, V, 1, R, W, C) normalised, chunks (B, H, A), seen (B, F) what a glance at the frames gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.learning.text import WIDTH
from kinelib.notation import check_finite, check_shape
from kinelib.robots.colour_glance import ColourGlance, noisy
from kinelib.robots.policy_head import PolicyHead, PolicyHeadConfig


@dataclass(frozen=True)
class ActionNetConfig:
    """Sizes of an action network; A, P, H and V stand in `head`."""

    head: PolicyHeadConfig = field(
        default_factory=lambda: PolicyHeadConfig(grid=(8, 8), channels=64, proprio=4, horizon=16, actions=4)
    )  # the paper's part; its sizes of actions and proprioception hold for both parts
    merge: int = 2  # latent cells a side that the head reads as one; its grid and channels are those after merging
    views: tuple[str, ...] = ("front", "top")  # V cameras, in order
    plan: bool = True  # read latents
    glance: bool = True  # look at the pictures, and read the sentence
    frame_size: int = 64  # S
    colours: int = 24  # that a glance tells apart
    width: int = 256  # of the perceptron
    heed: int = 32  # numbers a sentence is brought down to
    noise: float = 0.1  # on what is seen and felt in training, in standard deviations
    dropout: float = 0.1  # in the perceptron
    plan_drop: float = 0.3  # share of training examples without a plan, where there is a glance


class ActionNet(nn.Module):
    """Answers a moment with a chunk of actions.

    Args:
        config: sizes, and which of the two parts there are.

    Raises:
        ValueError: for a network without both parts.
    """

    def __init__(self, config: ActionNetConfig) -> None:
        super().__init__()
        if not (config.plan or config.glance):
            raise ValueError("an action network reads plans, pictures, or both; set plan or glance.")
        self.config = config
        head = config.head
        # Measured on training data; identity until then.
        self.register_buffer("proprio_shift", torch.zeros(head.proprio))
        self.register_buffer("proprio_scale", torch.ones(head.proprio))
        self.head = PolicyHead(head) if config.plan else None
        if config.glance:
            width = config.width
            self.glance = ColourGlance(len(config.views), config.frame_size, config.colours)
            self.first = nn.Linear(self.glance.features + head.proprio, width)
            self.second, self.third = nn.Linear(width, width), nn.Linear(width, width)
            self.heed = nn.Sequential(nn.Linear(WIDTH, config.heed), nn.Linear(config.heed, 4 * width))
            self.drop = nn.Dropout(config.dropout)
            self.answer = nn.Linear(width, head.horizon * head.actions)

    @torch.no_grad()
    def measure_statistics(self, proprio: Tensor) -> None:
        """Sets shift and scale of proprioception from (M, P)."""
        self.proprio_shift.copy_(proprio.mean(0))
        self.proprio_scale.copy_(proprio.std(0).clamp_min(1e-3))

    def forward(
        self,
        proprio: Tensor,
        *,
        latents: Tensor | None = None,
        frames: Tensor | None = None,
        words: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """The chunk (B, H, A).

        Args:
            proprio: (B, P) as the world gives it.
            latents: (B, V, 1, R, W, C), for a network that reads plans; None acts by the glance alone.
            frames, words: (B, V, 3, S, S) and (B, 384), for a network that glances.
            seen: (B, F) what `glance(frames)` gave, instead of frames.

        Raises:
            ShapeError: on wrong shapes or values that are not finite. ValueError: when what the network needs is missing.
        """
        return self._answer(proprio, latents, frames, words, seen, None)

    def loss(
        self,
        proprio: Tensor,
        chunks: Tensor,
        valid: Tensor,
        *,
        latents: Tensor | None = None,
        frames: Tensor | None = None,
        words: Tensor | None = None,
        seen: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The discounted absolute error of the predicted chunk; plans are dropped here.

        Args:
            proprio, latents, frames, words, seen: as of :meth:`forward`.
            chunks, valid: (B, H, A) and (B, H), as of :func:`policy_head.chunk_loss`.
            generator: decides whose plans are dropped, and draws noise.

        Returns:
            "loss", and "error", the same without discount.
        """
        planned = None
        if self.config.plan and self.config.glance and latents is not None:
            planned = torch.rand(len(proprio), generator=generator, device=proprio.device) >= self.config.plan_drop
        predicted = self._answer(proprio, latents, frames, words, seen, planned, self.config.noise, generator)
        discount = self.config.head.discount ** torch.arange(chunks.shape[1], device=chunks.device)
        difference = ((predicted - chunks).abs() * valid[:, :, None]).sum((0, 2)) / (valid.sum() * chunks.shape[2])
        return {"loss": (difference * discount).sum(), "error": difference.sum().detach()}

    def _answer(self, proprio, latents, frames, words, seen, planned, noise: float = 0.0, generator=None) -> Tensor:
        config, chunk = self.config, 0
        batch = check_shape("proprio", proprio, f"B {config.head.proprio}")["B"]
        check_finite("proprio", proprio)
        felt = (proprio - self.proprio_shift) / self.proprio_scale
        if config.plan and latents is not None:
            merged = rearrange(latents, "b v s (r p) (w q) c -> b v s r w (p q c)", p=config.merge, q=config.merge)
            chunk = self.head(merged, felt)
            if planned is not None:
                chunk = chunk * planned[:, None, None]
        elif not config.glance:
            raise ValueError("this network reads plans and nothing else; give it latents.")
        if config.glance:
            if (frames is None and seen is None) or words is None:
                raise ValueError("this network looks at pictures and reads a sentence; give it frames and words.")
            check_shape("words", words, f"B {WIDTH}", B=batch)
            if seen is None:
                size = config.frame_size
                check_shape("frames", frames, f"B {len(config.views)} 3 {size} {size}", B=batch)
                seen = self.glance(frames)
            if noise:
                seen, felt = noisy(seen, noise, generator), noisy(felt, noise / 2, generator)
            # From length 1 to numbers of about 1.
            gain1, shift1, gain2, shift2 = self.heed(words * WIDTH**0.5).chunk(4, dim=-1)
            hidden = torch.relu(self.first(torch.cat([seen, felt], dim=-1)) * (1 + gain1) + shift1)
            hidden = hidden + torch.relu(self.second(self.drop(hidden)) * (1 + gain2) + shift2)
            hidden = hidden + torch.relu(self.third(self.drop(hidden)))
            chunk = chunk + rearrange(self.answer(hidden), "b (h a) -> b h a", h=config.head.horizon)
        return chunk
