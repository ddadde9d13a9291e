"""`ActionNet`: a chunk of actions from a plan, or from a look at the pictures, or from both.

The release's policy reads the planner's latents and proprioception and nothing else (`policy_head`). A planner that learnt
from a few hundred recordings on two cores foresees motion to within a few pixels, which says where a hand is going but not
to a centimetre where a handle is. So there can be a *glance* instead: where things of each colour are (`colour_glance`), and
a perceptron that also knows the sentence. A plan reaches it as motion: the latents are decoded at the middle of every colour
in every view, and what is read is how far those points will have moved at a few later moments. Three networks:

    reads     from                                                  what it is
    latents   undecoded latents, proprioception                     the paper's head
    glance    pictures, sentence, proprioception                    behaviour cloning, the baseline
    tracks    the same, and where the plan says that colours go     the policy that is shipped

Departures: 2 x 2 latent cells are one token of the head; plans are left out of a share of a batch (`plan_drop`) in training,
so that a policy can act without one; and the discounted error is absolute, not squared: experts move at full speed or not at
all, and the mean of the two is a crawl.

Shapes: frames (B, V, 3, S, S) in [-1, 1], words (B, 384) one vector a sentence, proprio (B, P), latents
(B, V, 1, R, W, C) normalised, chunks (B, H, A), seen (B, F) what a glance at the frames gives, moves (B, V, K, M, 2) how far
a plan moves the K colours in M moments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.notation import check_finite, check_shape
from kinelib.robots.colour_glance import ColourGlance, noisy
from kinelib.robots.perceptron import SentencePerceptron
from kinelib.robots.policy_head import PolicyHead, PolicyHeadConfig
from kinelib.robots.robot_planner import RobotPlanner
from kinelib.robots.worlds import check_known
from kinelib.zipmo.autoencoder import TrackAutoencoder

READS = ("latents", "glance", "tracks")


@dataclass(frozen=True)
class ActionNetConfig:
    """Sizes of an action network; A, P, H and V stand in `head`."""

    head: PolicyHeadConfig = field(
        default_factory=lambda: PolicyHeadConfig(grid=(8, 8), channels=64, proprio=4, horizon=16, actions=4)
    )  # the paper's part; its sizes of actions and proprioception hold for all three networks
    merge: int = 2  # latent cells a side that the head reads as one; its grid and channels are those after merging
    views: tuple[str, ...] = ("front", "top")  # V cameras, in order
    reads: str = "tracks"  # which of READS
    frame_size: int = 128  # S
    colours: int = 48  # K that a glance tells apart
    frames: int = 17  # into which a plan is decoded
    moments: tuple[int, ...] = (2, 4, 8, 16)  # M of those frames that are read
    width: int = 256  # of the perceptron
    heed: int = 32  # numbers a sentence is brought down to
    noise: float = 0.1  # on what is seen and felt in training, in standard deviations
    dropout: float = 0.1  # in the perceptron
    plan_drop: float = 0.1  # share of training examples without a plan, for a network that reads tracks

    @property
    def plans(self) -> bool:
        """Whether the network reads plans."""
        return self.reads != "glance"

    @property
    def looks(self) -> bool:
        """Whether the network reads pictures and sentences."""
        return self.reads != "latents"


class ActionNet(nn.Module):
    """Answers a moment with a chunk of actions.

    Args:
        config: sizes, and what is read.

    Raises:
        WorldError: for an unknown `reads`. ValueError: for moments that are not frames of a plan.
    """

    def __init__(self, config: ActionNetConfig) -> None:
        super().__init__()
        check_known("reads", config.reads, READS)
        if not config.moments or not all(0 < moment < config.frames for moment in config.moments):
            raise ValueError(f"moments are frames 1 to {config.frames - 1} of a plan; got {config.moments}.")
        self.config = config
        head = config.head
        # Measured on training data; identity until then.
        self.register_buffer("proprio_shift", torch.zeros(head.proprio))
        self.register_buffer("proprio_scale", torch.ones(head.proprio))
        if not config.looks:
            self.head = PolicyHead(head)
            return
        self.glance = ColourGlance(len(config.views), config.frame_size, config.colours)
        inputs = self.glance.features + head.proprio
        if config.plans:
            moves = len(config.views) * config.colours * len(config.moments) * 2
            self.register_buffer("moves_scale", torch.ones(moves))
            inputs += moves
        self.perceptron = SentencePerceptron(inputs, config.width, config.heed, config.dropout)
        self.answer = nn.Linear(config.width, head.horizon * head.actions)

    @torch.no_grad()
    def measure_statistics(self, proprio: Tensor, moves: Tensor | None = None) -> None:
        """Sets shift and scale of proprioception from (M, P), and the scale of planned moves from (M, V, K, M, 2)."""
        self.proprio_shift.copy_(proprio.mean(0))
        self.proprio_scale.copy_(proprio.std(0).clamp_min(1e-3))
        if moves is not None:
            self.moves_scale.copy_(moves.flatten(1).square().mean(0).sqrt().clamp_min(1e-2))

    @torch.no_grad()
    def planned_moves(
        self, latents: Tensor, frames: Tensor, seen: Tensor, planner: RobotPlanner, autoencoder: TrackAutoencoder
    ) -> Tensor:
        """How far a plan moves the colours that a glance at its first pictures sees, (B, V, K, M, 2)."""
        places = self.glance.middles(seen).clamp(-1, 1)
        tracks = planner.decode(latents, frames, places, autoencoder, self.config.frames)
        return tracks[..., list(self.config.moments), :] - tracks[..., :1, :]

    def forward(
        self,
        proprio: Tensor,
        *,
        latents: Tensor | None = None,
        moves: Tensor | None = None,
        frames: Tensor | None = None,
        words: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """The chunk (B, H, A).

        Args:
            proprio: (B, P) as the world gives it.
            latents: (B, V, 1, R, W, C), for a network that reads them.
            moves: (B, V, K, M, 2), for a network that reads tracks; None acts without a plan.
            frames, words: (B, V, 3, S, S) and (B, 384), for a network that glances.
            seen: (B, F) what `glance(frames)` gave, instead of frames.

        Raises:
            ShapeError: on wrong shapes or values that are not finite. ValueError: when what the network needs is missing.
        """
        return self._answer(proprio, latents, moves, frames, words, seen)

    def loss(
        self,
        proprio: Tensor,
        chunks: Tensor,
        valid: Tensor,
        *,
        latents: Tensor | None = None,
        moves: Tensor | None = None,
        frames: Tensor | None = None,
        words: Tensor | None = None,
        seen: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The discounted absolute error of the predicted chunk; plans are dropped here.

        Args:
            proprio, latents, moves, frames, words, seen: as of :meth:`forward`.
            chunks, valid: (B, H, A) and (B, H), as of :func:`policy_head.chunk_loss`.
            generator: decides whose plans are dropped, and draws noise.

        Returns:
            "loss", and "error", the same without discount.
        """
        if moves is not None:
            planned = torch.rand(len(proprio), generator=generator, device=proprio.device) >= self.config.plan_drop
            moves = moves * planned[:, None, None, None, None]
        predicted = self._answer(proprio, latents, moves, frames, words, seen, self.config.noise, generator)
        discount = self.config.head.discount ** torch.arange(chunks.shape[1], device=chunks.device)
        difference = ((predicted - chunks).abs() * valid[:, :, None]).sum((0, 2)) / (valid.sum() * chunks.shape[2])
        return {"loss": (difference * discount).sum(), "error": difference.sum().detach()}

    def _answer(self, proprio, latents, moves, frames, words, seen, noise: float = 0.0, generator=None) -> Tensor:
        config = self.config
        batch = check_shape("proprio", proprio, f"B {config.head.proprio}")["B"]
        check_finite("proprio", proprio)
        felt = (proprio - self.proprio_shift) / self.proprio_scale
        if not config.looks:
            if latents is None:
                raise ValueError("this network reads plans and nothing else; give it latents.")
            merged = rearrange(latents, "b v s (r p) (w q) c -> b v s r w (p q c)", p=config.merge, q=config.merge)
            return self.head(merged, felt)
        if (frames is None and seen is None) or words is None:
            raise ValueError("this network looks at pictures and reads a sentence; give it frames and words.")
        if seen is None:
            size = config.frame_size
            check_shape("frames", frames, f"B {len(config.views)} 3 {size} {size}", B=batch)
            seen = self.glance(frames)
        if noise:
            seen, felt = noisy(seen, noise, generator), noisy(felt, noise / 2, generator)
        inputs = [seen, felt]
        if config.plans and moves is None:
            inputs.append(seen.new_zeros(batch, len(self.moves_scale)))
        elif config.plans:
            check_shape("moves", moves, f"B {len(config.views)} {config.colours} {len(config.moments)} 2", B=batch)
            check_finite("moves", moves)
            inputs.append(moves.flatten(1) / self.moves_scale)
        hidden = self.perceptron(torch.cat(inputs, dim=-1), words)
        return rearrange(self.answer(hidden), "b (h a) -> b h a", h=config.head.horizon)
