"""One call for everything that forecasts: the latent flow matcher, the direct one, regression, and the simple baselines.

    forecast(frame (B, 3, S, S), pokes (B, P, 5), mask (B, P), query_points (B, Q, 2), *, num_frames, samples, seed)
        -> (B, K, Q, T, 2)

K is 1 for forecasters that have one answer. The latent one reads a sentence too (`text=`), where its planner was trained to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from kinelib.learning.text import Text
from kinelib.notation import check_shape
from kinelib.tracks.timing import resample_time
from kinelib.zipmo.autoencoder import TrackAutoencoder
from kinelib.zipmo.correction import CORRECTIONS, gradient_correction, snap_to_pokes
from kinelib.zipmo.direct import DirectFlowMatcher
from kinelib.zipmo.flow import STEPS
from kinelib.zipmo.flow_matcher import FlowMatcher
from kinelib.zipmo.regression import Regression

TEXT_GUIDANCE = 3.0  # more prompts are followed than with 1 or 2, at 4 cameras run off (LOG.md); free where nothing is said


@dataclass(frozen=True)
class LatentForecast:
    """Samples latents with the flow matcher and decodes them at the query points.

    Args:
        autoencoder, planner: trained together.
        steps, guidance, text_guidance, solver: of the sampler.
        correction: None (raw), "gradient", "snap", or "gradient+snap"; see `correction`.
    """

    autoencoder: TrackAutoencoder
    planner: FlowMatcher
    steps: int = STEPS
    guidance: float = 1.0
    text_guidance: float = TEXT_GUIDANCE
    solver: str = "euler"
    correction: str | None = None

    def __post_init__(self) -> None:
        unknown = set((self.correction or "").split("+")) - {"", *CORRECTIONS}
        if unknown:
            raise ValueError(f"unknown correction {self.correction!r}; use None or a sum of {', '.join(CORRECTIONS)}.")
        if self.autoencoder.latent_shape != tuple(self.planner.config.latent_shape):
            raise ValueError(
                f"the planner makes latents {self.planner.config.latent_shape}, "
                f"the autoencoder reads {self.autoencoder.latent_shape}; load the pair that was trained together."
            )

    @property
    def takes_text(self) -> bool:
        """Whether the planner reads sentences."""
        return self.planner.config.text_width > 0

    def latents(
        self, frame: Tensor, pokes: Tensor, mask: Tensor, *, samples: int = 8, seed: int = 0, text: Text | None = None
    ) -> Tensor:
        """K latent grids a clip, normalised: (B, K, S, R, W, C)."""
        correct = None
        if "gradient" in (self.correction or ""):
            correct = gradient_correction(self.autoencoder, frame, pokes, mask, samples)
        options = dict(steps=self.steps, guidance=self.guidance, text_guidance=self.text_guidance, solver=self.solver)
        return self.planner.sample(frame, pokes, mask, text, samples=samples, seed=seed, correct=correct, **options)

    @torch.no_grad()
    def decode(self, latents: Tensor, frame: Tensor, points: Tensor, num_frames: int | None = None) -> Tensor:
        """Decodes (B, K, S, R, W, C) latents at (B, Q, 2) points: (B, K, Q, T, 2); image features once a clip."""
        flat = self.autoencoder.denormalize(rearrange(latents, "b k ... -> (b k) ..."))
        tracks = self.autoencoder.decode(flat, frame, points, num_frames)
        return rearrange(tracks, "(b k) q t c -> b k q t c", k=latents.shape[1])

    @torch.no_grad()
    def __call__(
        self,
        frame: Tensor,
        pokes: Tensor,
        mask: Tensor,
        query_points: Tensor,
        *,
        num_frames: int = 64,
        samples: int = 8,
        seed: int = 0,
        text: Text | None = None,
    ) -> Tensor:
        """(B, K, Q, T, 2); `text` holds a sentence a clip."""
        check_shape("query_points", query_points, "B Q 2", B=len(frame))
        latents = self.latents(frame, pokes, mask, samples=samples, seed=seed, text=text)
        tracks = self.decode(latents, frame, query_points, num_frames)
        if "snap" in (self.correction or ""):
            tracks = snap_to_pokes(tracks, lambda starts: self.decode(latents, frame, starts, num_frames), pokes, mask)
        return tracks


@dataclass(frozen=True)
class RegressionForecast:
    """The regression baseline's one answer, decoded: K = 1."""

    autoencoder: TrackAutoencoder
    regression: Regression

    @torch.no_grad()
    def __call__(
        self, frame: Tensor, pokes: Tensor, mask: Tensor, query_points: Tensor, *, num_frames: int = 64, samples=8, seed=0
    ) -> Tensor:
        """(B, 1, Q, T, 2)."""
        latents = self.autoencoder.denormalize(self.regression(frame, pokes, mask))
        return self.autoencoder.decode(latents, frame, query_points, num_frames)[:, None]


@dataclass(frozen=True)
class DirectForecast:
    """The direct baseline: flow matching on the queried trajectories themselves."""

    direct: DirectFlowMatcher
    steps: int = 6

    @torch.no_grad()
    def __call__(
        self, frame: Tensor, pokes: Tensor, mask: Tensor, query_points: Tensor, *, num_frames: int = 64, samples=8, seed=0
    ) -> Tensor:
        """(B, K, Q, T, 2)."""
        tracks = self.direct.sample(frame, pokes, mask, query_points, samples=samples, steps=self.steps, seed=seed)
        return resample_time(tracks, num_frames)
