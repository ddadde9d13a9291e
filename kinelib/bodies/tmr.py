"""TMR: texts and motions as points of one space, near where one describes the other (Petrovich et al., ICCV 2023).

Two encoders of the same kind (ACTOR's: a transformer with two learned tokens in front, which become mean and log-variance of
a Gaussian) read features of motion and embeddings of words; a decoder turns a point back into motion. Training pulls each
text to its motion and away from the others' (InfoNCE), without taking for a wrong answer what says nearly the same.

Kimodo and KinMo measure what they generate in such a space: R-precision and Frechet distance of the means.

Departures, each a field of the config: reconstruction is averaged over the frames that are there (the release counts padding
as reproduced perfectly), and may be learned from a share of each batch only. Log-variances are clamped where they are used,
which small data needs.

Shapes: motion (B, T, D) normalised features, text (B, L, C), masks (B, T) and (B, L) with True = there, latents (B, width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.notation import check_shape

LOG_VARIANCES = (-20.0, 10.0)  # clamped to this range


@dataclass(frozen=True)
class TMRConfig:
    """Sizes and loss weights; the defaults are the release's for HumanML3D."""

    motion_channels: int = 263  # D, features a frame
    text_channels: int = 768  # C, of a word's embedding
    width: int = 256  # of tokens and of the shared space
    layers: int = 6  # of each encoder and of the decoder
    heads: int = 4  # of attention
    feed_forward: int = 1024  # hidden channels
    dropout: float = 0.1  # in training
    temperature: float = 0.1  # of InfoNCE
    same_text: float = 0.8  # texts whose (cosine + 1) / 2 is above this are no wrong answers; 1 keeps all as wrong answers
    reconstruction_weight: float = 1.0  # of the decoded motion, once from its text and once from itself
    kl_weight: float = 1e-5  # of the four divergences
    latent_weight: float = 1e-5  # of the distance between both latents
    contrastive_weight: float = 0.1  # of InfoNCE
    padding_counts: bool = False  # official: padded frames are part of the mean of the reconstruction
    reconstructed: float = 1.0  # share of a batch that is reconstructed; the decoder costs more than both encoders


class Gaussian(NamedTuple):
    """Diagonal Gaussians: mean (B, width) and logarithm of the variance (B, width)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """(B, width)."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + noise * (self.log_variance.clamp(*LOG_VARIANCES) / 2).exp()


class SequenceEncoder(nn.Module):
    """A sequence of any length as two tokens: mean and log-variance.

    Args:
        channels: of the sequence.
        config: of everything else.
    """

    def __init__(self, channels: int, config: TMRConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, config.width)
        self.tokens = nn.Parameter(torch.randn(2, config.width))
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(*_layer_sizes(config), activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """(B, L, channels) and which of it is there (B, L) -> (B, 2, width)."""
        sizes = check_shape("sequence", sequence, "B L C", C=self.projection.in_features)
        check_shape("mask", mask, "B L", B=sizes["B"], L=sizes["L"])
        # What is not there may be NaN; attention leaves it out, but a masked NaN is still one.
        sequence = torch.where(mask[..., None], sequence, torch.zeros_like(sequence))
        x = torch.cat([repeat(self.tokens, "two c -> b two c", b=sizes["B"]), self.projection(sequence)], 1)
        hidden = ~F.pad(mask, (2, 0), value=True)
        x = self.dropout(x + positional_code(x.shape[1], x.shape[2]).to(x))
        return self.layers(x, src_key_padding_mask=hidden)[:, :2]


class MotionDecoder(nn.Module):
    """A point of the shared space as a motion of any length.

    Args:
        config: sizes.
    """

    def __init__(self, config: TMRConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerDecoderLayer(*_layer_sizes(config), activation="gelu", batch_first=True)
        self.layers = nn.TransformerDecoder(layer, config.layers)
        self.output = nn.Linear(config.width, config.motion_channels)

    def forward(self, latent: Tensor, mask: Tensor) -> Tensor:
        """Points (B, width) and which frames are wanted (B, T) -> (B, T, D), 0 in the others."""
        sizes = check_shape("latent", latent, "B C")
        check_shape("mask", mask, "B T", B=sizes["B"])
        times = self.dropout(positional_code(mask.shape[1], sizes["C"]).to(latent))
        queries = repeat(times, "t c -> b t c", b=sizes["B"])
        x = self.layers(queries, rearrange(latent, "b c -> b 1 c"), tgt_key_padding_mask=~mask)
        return torch.where(mask[..., None], self.output(x), 0.0)


class TMR(nn.Module):
    """Both encoders and the decoder.

    Args:
        config: sizes and loss weights.
    """

    def __init__(self, config: TMRConfig) -> None:
        super().__init__()
        self.config = config
        self.motion_encoder = SequenceEncoder(config.motion_channels, config)
        self.text_encoder = SequenceEncoder(config.text_channels, config)
        self.motion_decoder = MotionDecoder(config)

    def encode_motion(self, motion: Tensor, mask: Tensor) -> Gaussian:
        """Where motions (B, T, D) with frames (B, T) are in the shared space."""
        return Gaussian(*self.motion_encoder(motion, mask).unbind(1))

    def encode_text(self, text: Tensor, mask: Tensor) -> Gaussian:
        """Where texts (B, L, C) with words (B, L) are in the shared space."""
        return Gaussian(*self.text_encoder(text, mask).unbind(1))

    def loss(
        self,
        motion: Tensor,
        motion_mask: Tensor,
        text: Tensor,
        text_mask: Tensor,
        sentences: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The training loss of B pairs of motion and text.

        Args:
            motion, motion_mask: (B, T, D) normalised and (B, T).
            text, text_mask: (B, L, C) and (B, L).
            sentences: (B, S) sentence vectors, which tell texts that say the same; None: none do.
            generator: of the latents' noise.

        Returns:
            "loss", what is minimised, and its terms without their weights.
        """
        config = self.config
        of_motion, of_text = self.encode_motion(motion, motion_mask), self.encode_text(text, text_mask)
        latents = [of_text.sample(generator), of_motion.sample(generator)]
        few = max(1, round(config.reconstructed * len(motion)))
        motion, motion_mask = motion[:few], motion_mask[:few]
        motion = torch.where(motion_mask[..., None], motion, torch.zeros_like(motion))
        decoded = [self.motion_decoder(z[:few], motion_mask) for z in latents]
        counted = torch.ones_like(motion_mask) if config.padding_counts else motion_mask
        terms = {
            "reconstruction": sum(F.smooth_l1_loss(one[counted], motion[counted]) for one in decoded),
            "kl": kl_losses(of_text, of_motion),
            "latent": F.smooth_l1_loss(*latents),
            "contrastive": info_nce(of_text.mean, of_motion.mean, config.temperature, sentences, config.same_text),
        }
        weights = (config.reconstruction_weight, config.kl_weight, config.latent_weight, config.contrastive_weight)
        total = sum(weight * term for weight, term in zip(weights, terms.values(), strict=True))
        return {"loss": total} | terms


def info_nce(
    text: Tensor, motion: Tensor, temperature: float, sentences: Tensor | None = None, same_text: float = 0.8
) -> Tensor:
    """How badly the right one of B is found, from text to motion and back; symmetric InfoNCE on cosines.

    Args:
        text, motion: (B, C), row i of one belongs to row i of the other.
        temperature: the cosines are divided by it.
        sentences: (B, S) vectors of the texts. Where two differ by less than `same_text` says, neither is a wrong answer for
            the other. None: all others are wrong answers.
        same_text: (cosine + 1) / 2 of sentence vectors above which texts say the same.
    """
    logits = similarity(text, motion) / temperature
    if sentences is not None:
        same = similarity(sentences, sentences) > 2 * same_text - 1
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, -torch.inf)
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def similarity(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines (N, M) between vectors (N, C) and (M, C)."""
    return F.normalize(rows, dim=-1) @ F.normalize(columns, dim=-1).T


def kl(first: Gaussian, second: Gaussian | None = None) -> Tensor:
    """Mean divergence a channel of the first Gaussian from the second, or from the standard one."""
    if second is None:
        second = Gaussian(torch.zeros_like(first.mean), torch.zeros_like(first.mean))
    a, b = (one.log_variance.clamp(*LOG_VARIANCES) for one in (first, second))
    return 0.5 * (b - a + ((first.mean - second.mean).square() + a.exp()) / b.exp() - 1).mean()


def kl_losses(text: Gaussian, motion: Gaussian) -> Tensor:
    """Text from motion, motion from text, and each from the standard Gaussian."""
    return kl(text, motion) + kl(motion, text) + kl(motion) + kl(text)


def positional_code(length: int, width: int) -> Tensor:
    """(length, width) sines and cosines of the position, at wavelengths from 2 pi to 10,000 times that, alternating."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return rearrange(torch.stack([angles.sin(), angles.cos()], -1), "l half two -> l (half two)")


def _layer_sizes(config: TMRConfig) -> tuple[int, int, int, float]:
    return config.width, config.heads, config.feed_forward, config.dropout
