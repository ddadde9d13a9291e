"""`MotionGuess`: the motion latents of every view as a regression from where colours are and a sentence.

What a planner starts from. In a scene that a glance describes (`colour_glance`), words nearly settle what happens, and a
perceptron on a few hundred numbers learns in a minute where an arm goes, to within what small convolutions and a flow
matcher do not reach in ten. It answers with the latents' principal components, which hold nearly all of their variance.

Shapes: B clips, V views, seen (B, F) what the glance gives, words (B, 384), latents (B, V, S, R, W, C) raw, Q components.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from kinelib.notation import ShapeError
from kinelib.robots.colour_glance import ColourGlance, noisy
from kinelib.robots.perceptron import SentencePerceptron


@dataclass(frozen=True)
class MotionGuessConfig:
    """Sizes of a guess."""

    views: tuple[str, ...] = ("front", "top")  # V cameras, in order
    latent_shape: tuple[int, int, int, int] = (1, 16, 16, 16)  # (S, R, W, C) of a view's latents
    frame_size: int = 128  # pixels of the square pictures
    colours: int = 48  # that the glance tells apart
    components: int = 128  # Q
    width: int = 256  # of the perceptron
    noise: float = 0.1  # on what is seen in training, in standard deviations


class MotionGuess(nn.Module):
    """See the module docstring.

    Args:
        config: sizes.
    """

    def __init__(self, config: MotionGuessConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = (len(config.views), *config.latent_shape)
        self.glance = ColourGlance(len(config.views), config.frame_size, config.colours)
        self.perceptron = SentencePerceptron(self.glance.features, config.width)
        self.answer = nn.Linear(config.width, config.components)
        # Measured on training data. The basis is not learnt by descent, but a matrix of weights to a checkpoint, which keeps
        # those in half precision.
        self.register_buffer("channel_scale", torch.ones(config.latent_shape[-1]))
        self.register_buffer("middle", torch.zeros(self.shape))
        self.basis = nn.Parameter(torch.zeros(prod(self.shape), config.components), requires_grad=False)
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
    def measure(self, latents: Tensor) -> Tensor:
        """Finds the principal components of raw latents (M, V, S, R, W, C), and returns what is to be answered (M, Q).

        Raises:
            ShapeError: for latents of another shape, or fewer than there are components.
        """
        if tuple(latents.shape[1:]) != self.shape or len(latents) < self.config.components:
            raise ShapeError(
                f"components need {self.config.components} or more latents {self.shape}; got {tuple(latents.shape)}."
            )
        self.middle.copy_(latents.mean(0))
        self.channel_scale.copy_(latents.sub(self.middle).square().mean((0, 1, 2, 3, 4)).sqrt().clamp_min(1e-6))
        normal = ((latents - self.middle) / self.channel_scale).flatten(1)
        self.basis.copy_(torch.pca_lowrank(normal, self.config.components, center=False, niter=3)[2])
        self.spread.copy_((normal @ self.basis).std())
        return self.components(latents)

    def components(self, latents: Tensor) -> Tensor:
        """The principal components (B, Q) of raw latents (B, V, S, R, W, C), largest first."""
        return ((latents - self.middle) / self.channel_scale).flatten(1) @ self.basis / self.spread

    def forward(self, seen: Tensor, words: Tensor) -> Tensor:
        """Raw latents (B, V, S, R, W, C)."""
        normal = (self.answer(self.perceptron(seen, words)) * self.spread) @ self.basis.T
        return normal.reshape(len(seen), *self.shape) * self.channel_scale + self.middle

    def loss(
        self, seen: Tensor, words: Tensor, wanted: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The squared error of the components.

        Args:
            seen, words: (B, F) and (B, 384); noise is added to what is seen.
            wanted: (B, Q) of :meth:`measure`.
            generator: of the noise.
        """
        guessed = self.answer(self.perceptron(noisy(seen, self.config.noise, generator), words))
        return {"loss": (guessed - wanted).square().mean()}
