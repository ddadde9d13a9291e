"""`RobotPlanner`: from a robot's pictures and a sentence to motion latents, one grid a camera view (ZipMo, robot planner).

The flow matcher of the open domain, without pokes: what is to happen is said in words. Ten Euler steps; the sentence's and
the picture's part of every block (keys and values among it) is computed once a plan and reused in each step.

Departures from the release, for two cores: latents are merged 4 x 4 cells a token; a sentence is a token a word piece (the
release: one pooled vector); views go through the network one by one, as a batch (the release: one sequence with learned
view vectors), since in simulation the words and a picture nearly settle what happens. Statistics of the latents are
measured on the robot's own tracks: those of the open domain would leave them a tenth of the noise. And the flow matcher
adds to a *guess* (`motion_guess`), which is trained before it: small convolutions learn in minutes to say roughly how an arm
moves, not where a goal of a few pixels stands.

Shapes: B clips, V views, frames (B, V, 3, S, S), latents (B, V, 1, R, W, C) normalised, points (Q, 2) or (B, V, Q, 2), seen
(B, F) what the guess's glance at the frames gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.learning.image import shrink
from kinelib.learning.text import Text
from kinelib.notation import check_shape
from kinelib.robots.colour_glance import noisy
from kinelib.robots.motion_guess import MotionGuess, MotionGuessConfig
from kinelib.zipmo.autoencoder import TrackAutoencoder
from kinelib.zipmo.flow_matcher import FlowMatcher, FlowMatcherConfig

STEPS = 10  # Euler steps of a plan, as in the release
# Euler steps of a plan that is acted on. One from noise is the mean of all plans, nearer to what happens than any of them.
ACTING_STEPS = 1
# Blocks as wide as those of the shipped open-domain planner, so that its weights are a beginning.
SMALL = FlowMatcherConfig(patch=4, depth=2, drop=0.0, text_drop=0.1, poke_weight=0.0, finely=False)


@dataclass(frozen=True)
class RobotPlannerConfig:
    """What a robot planner is."""

    views: tuple[str, ...] = ("front", "top")  # V cameras it was trained with
    every: int = 4  # actions between two frames of its demonstrations
    window: int = 64  # actions a plan looks ahead
    flow: FlowMatcherConfig = field(default_factory=lambda: SMALL)  # the network
    guess: MotionGuessConfig | None = None  # of the guess that is added to; None = none, as in the release
    noise: float = 0.3  # on what the guess sees in training, in standard deviations: it errs more on pictures that are new

    @property
    def frame_size(self) -> int:
        """S: pixels of the pictures it is given."""
        return self.flow.frame_size if self.guess is None else self.guess.frame_size


class RobotPlanner(nn.Module):
    """Plans motion in every view from pictures and a sentence.

    Args:
        config: sizes.
    """

    def __init__(self, config: RobotPlannerConfig) -> None:
        super().__init__()
        self.config = config
        self.flow = FlowMatcher(config.flow)
        channels = config.flow.latent_shape[-1]
        self.first = None if config.guess is None else MotionGuess(config.guess).requires_grad_(False)
        # Measured on training data; identity until then.
        self.register_buffer("latent_shift", torch.zeros(channels))
        self.register_buffer("latent_scale", torch.ones(channels))

    @torch.no_grad()
    def measure_statistics(self, latents: Tensor, autoencoder: TrackAutoencoder) -> None:
        """Sets shift and scale from raw latents (M, ..., R, W, C), as the autoencoder does for its own."""
        own = (autoencoder.latent_shift.clone(), autoencoder.latent_scale.clone())
        autoencoder.measure_statistics(latents.reshape(-1, *autoencoder.latent_shape))
        self.latent_shift.copy_(autoencoder.latent_shift)
        self.latent_scale.copy_(autoencoder.latent_scale)
        autoencoder.latent_shift.copy_(own[0])
        autoencoder.latent_scale.copy_(own[1])

    def normalize(self, latents: Tensor) -> Tensor:
        """Raw latents to the space the planner works in."""
        return (latents - self.latent_shift) / self.latent_scale

    def denormalize(self, latents: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return latents * self.latent_scale + self.latent_shift

    def guess(self, frames: Tensor, text: Text, seen: Tensor | None = None) -> Tensor | None:
        """What the latents are thought to be before any is drawn, (B V, 1, R, W, C) normalised; None without a guess.

        Args:
            frames, text: as of :meth:`plan`.
            seen: (B, F) instead of looking.
        """
        if self.first is None:
            return None
        seen = self.first.glance(frames) if seen is None else seen
        return rearrange(self.normalize(self.first(seen, text.pooled())), "b v ... -> (b v) ...")

    def loss(
        self,
        latents: Tensor,
        frames: Tensor,
        text: Text,
        generator: torch.Generator | None = None,
        seen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Flow-matching loss.

        Args:
            latents: (B, V, 1, R, W, C) normalised, of exact tracks.
            frames: (B, V, 3, S, S) in [-1, 1].
            text: a sentence a clip.
            generator: draws times, noise and dropped sentences.
            seen: (B, F) instead of looking.

        Returns:
            "loss", and "clean": the squared error of the estimate of the clean latents at the drawn times.
        """
        views = check_shape("frames", frames, "B V 3 S S")["V"]
        pokes, mask = _no_pokes(len(frames) * views, frames.device)
        flat = rearrange(latents, "b v ... -> (b v) ...")
        if self.first is not None:
            seen = noisy(self.first.glance(frames) if seen is None else seen, self.config.noise, generator)
        guess = self.guess(frames, text, seen)
        terms = self.flow.loss(flat, self._flat(frames), pokes, mask, None, generator, text.repeat(views), guess)
        return {"loss": terms["flow"]}

    @torch.no_grad()
    def plan(self, frames: Tensor, text: Text, *, steps: int = STEPS, seed: int | torch.Generator = 0) -> Tensor:
        """Draws one plan a clip.

        Args:
            frames: (B, V, 3, S, S) in [-1, 1].
            text: a sentence a clip.
            steps: Euler steps.
            seed: of the noise.

        Returns:
            (B, V, 1, R, W, C) normalised latents, undecoded: what a policy head reads.
        """
        views = check_shape("frames", frames, "B V 3 S S")["V"]
        pokes, mask = _no_pokes(len(frames) * views, frames.device)
        guess, text = self.guess(frames, text), text.repeat(views)
        latents = self.flow.sample(self._flat(frames), pokes, mask, text, guess, samples=1, steps=steps, seed=seed)
        return rearrange(latents, "(b v) 1 ... -> b v ...", v=views)

    @torch.no_grad()
    def components(self, latents: Tensor) -> Tensor:
        """Plans (B, V, 1, R, W, C) as the principal components (B, Q) that the guess knows, largest first.

        Raises:
            ValueError: for a planner without a guess.
        """
        if self.first is None:
            raise ValueError("this planner has no guess, and so no principal components; train one with a guess.")
        return self.first.components(self.denormalize(latents))

    @torch.no_grad()
    def decode(
        self, latents: Tensor, frames: Tensor, points: Tensor, autoencoder: TrackAutoencoder, num_frames: int = 17
    ) -> Tensor:
        """Where points of the pictures, (Q, 2) in all or (B, V, Q, 2), go by a plan: (B, V, Q, num_frames, 2)."""
        batch, views = frames.shape[:2]
        raw = rearrange(self.denormalize(latents), "b v ... -> (b v) ...")
        points = rearrange(points.expand(batch, views, -1, -1), "b v q xy -> (b v) q xy")
        tracks = autoencoder.decode(raw, self._flat(frames), points, num_frames)
        return rearrange(tracks, "(b v) ... -> b v ...", v=views)

    def _flat(self, frames: Tensor) -> Tensor:
        """Pictures of all views as the flow matcher and the autoencoder see them, (B V, 3, S', S')."""
        return shrink(rearrange(frames, "b v ... -> (b v) ..."), self.config.flow.frame_size)


def _no_pokes(batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.zeros(batch, 0, 5, device=device), torch.zeros(batch, 0, dtype=torch.bool, device=device)
