"""Residual vector quantisation of several streams at once: a vector becomes the numbers of a few codes that sum to it.

Every stream has its own Q codebooks of K codes. The first code is the nearest to the vector, the second the nearest to what
the first leaves over, and so on. Codes are not trained by gradients: each is the moving average of the vectors that chose it
(counts and sums are buffers, so that an interrupted training goes on with the same codebooks). Codes begin as vectors of the
first batch; a code that is chosen far less than its fair share is dead, and begins anew as a vector of the present batch.
Gradients pass the quantiser as if it were not there (straight-through). Where several processes train, the codebooks are
those of the first one, which torch hands to the others at every step.

Source: MoMask (Guo et al., CVPR 2024), which KinMo's generator rests on. Departures: codes are never drawn at random in
training, streams replace the one vector a token, and a revived code gets a fair share of counts: time to prove itself.

Shapes: G streams, N vectors of C channels, Q layers, K codes: vectors (G, N, C), codes (G, N, Q), codebooks (Q, G, K, C).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from kinelib.notation import check_shape


@dataclass(frozen=True)
class QuantizerConfig:
    """Sizes and habits of a residual quantiser."""

    streams: int  # G, with codebooks of their own
    layers: int = 3  # Q, codes a vector
    codes: int = 256  # K, in every codebook
    width: int = 48  # C, channels of a vector
    decay: float = 0.98  # of counts and sums, a step
    dead: float = 0.1  # share of a fair count below which a code is revived
    dropout: float = 0.2  # share of the batches in training that use only some of the layers

    def __post_init__(self) -> None:
        if min(self.streams, self.layers, self.codes, self.width) < 1:
            raise ValueError(f"streams, layers, codes and width are at least 1; got {self}.")
        if not (0 <= self.decay < 1 and 0 <= self.dead < 1 and 0 <= self.dropout <= 1):
            raise ValueError(f"decay and dead are in [0, 1), dropout in [0, 1]; got {self}.")


class ResidualQuantizer(nn.Module):
    """Codebooks that learn from what passes through them in training mode.

    Args:
        config: sizes.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        size = (config.layers, config.streams, config.codes)
        self.register_buffer("codebooks", torch.zeros(*size, config.width))
        self.register_buffer("sums", torch.zeros(*size, config.width))
        self.register_buffer("counts", torch.zeros(size))  # a layer without any counts has not seen a batch yet

    def codes(self, vectors: Tensor) -> Tensor:
        """The codes (G, N, Q) of vectors (G, N, C), all layers."""
        check_shape("vectors", vectors, "G N C", G=self.config.streams, C=self.config.width)
        left, chosen = vectors.detach(), []
        for book in self.codebooks:
            chosen.append(nearest(left, book))
            left = left - _looked_up(book, chosen[-1])
        return torch.stack(chosen, -1)

    def vectors(self, codes: Tensor) -> Tensor:
        """The vectors (G, N, C) that codes (G, N, Q) stand for; the first q layers alone may be given.

        Raises:
            ValueError: for more layers than there are, or codes that no codebook has.
        """
        sizes = check_shape("codes", codes, "G N Q", G=self.config.streams)
        if not 1 <= sizes["Q"] <= self.config.layers or codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()):
            raise ValueError(f"codes have 1 to {self.config.layers} layers and are not negative; got {tuple(codes.shape)}.")
        if codes.numel() and int(codes.max()) >= self.config.codes:
            raise ValueError(f"code {int(codes.max())} is in no codebook of {self.config.codes}; a mask is no code.")
        return sum(_looked_up(book, codes[..., layer]) for layer, book in enumerate(self.codebooks[: sizes["Q"]]))

    def expected(self, probabilities: Tensor) -> Tensor:
        """The mean vectors (G, N, C) of codes drawn with probabilities (G, N, Q, K); differentiable."""
        books = self.codebooks[: probabilities.shape[2]]
        return torch.einsum("gnqk,qgkc->gnc", probabilities, books)

    def forward(self, vectors: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantises vectors; in training mode the codebooks learn from them, and some batches use fewer layers.

        Args:
            vectors: (G, N, C), without padding.
            generator: of dropout and revival, in training mode.

        Returns:
            what the codes stand for (G, N, C), with the gradient of `vectors`; codes (G, N, q) of the layers used; and the
            commitment, the mean squared distance of the vectors from their codes, over layers.
        """
        check_shape("vectors", vectors, "G N C", G=self.config.streams, C=self.config.width)
        used = self._layers_used(generator, vectors.device) if self.training else self.config.layers
        left, total, chosen, commitment = vectors, torch.zeros_like(vectors), [], vectors.new_zeros(())
        for layer in range(used):
            if self.training:
                self._begin(layer, left.detach(), generator)
            codes = nearest(left.detach(), self.codebooks[layer])
            found = _looked_up(self.codebooks[layer], codes)
            if self.training:
                self._learn(layer, left.detach(), codes, generator)
            commitment = commitment + (left - found).square().mean() / used
            left, total = left - found, total + found
            chosen.append(codes)
        return vectors + (total - vectors).detach(), torch.stack(chosen, -1), commitment

    def _layers_used(self, generator: torch.Generator | None, device: torch.device) -> int:
        drop, cut = torch.rand(2, generator=generator, device=device).tolist()
        return 1 + int(cut * self.config.layers) if drop < self.config.dropout else self.config.layers

    @torch.no_grad()
    def _begin(self, layer: int, vectors: Tensor, generator: torch.Generator | None) -> None:
        """Fills a codebook that has never learned with vectors of the batch."""
        if not bool(self.counts[layer].any()):
            self.codebooks[layer] = self._drawn(vectors, generator)
            self.counts[layer] = vectors.shape[1] / self.config.codes
            self.sums[layer] = self.codebooks[layer] * self.counts[layer][..., None]

    @torch.no_grad()
    def _learn(self, layer: int, vectors: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        """Moves counts, sums and codes towards those of the batch, and revives the dead."""
        decay, streams, size = self.config.decay, self.config.streams, self.config.codes
        flat = (codes + size * torch.arange(streams, device=codes.device)[:, None]).flatten()
        counts = torch.bincount(flat, minlength=streams * size).to(vectors.dtype)
        sums = vectors.new_zeros(streams * size, vectors.shape[-1]).index_add_(
            0, flat, rearrange(vectors, "g n c -> (g n) c")
        )
        self.counts[layer].lerp_(rearrange(counts, "(g k) -> g k", g=streams), 1 - decay)
        self.sums[layer].lerp_(rearrange(sums, "(g k) c -> g k c", g=streams), 1 - decay)
        fair = vectors.shape[1] / size
        dead = self.counts[layer] < self.config.dead * fair
        if bool(dead.any()):
            self.counts[layer][dead] = fair
            self.sums[layer][dead] = self._drawn(vectors, generator)[dead] * fair
        self.codebooks[layer] = self.sums[layer] / self.counts[layer][..., None]

    def _drawn(self, vectors: Tensor, generator: torch.Generator | None) -> Tensor:
        """K vectors (G, K, C) of every stream, drawn anew for each; a little noise sets equal ones apart."""
        streams, count, width = vectors.shape
        rows = torch.randint(count, (streams, self.config.codes), generator=generator, device=vectors.device)
        noise = torch.randn(streams, self.config.codes, width, generator=generator, device=vectors.device)
        spread = vectors.std(dim=1, keepdim=True, correction=0)
        return vectors.gather(1, repeat(rows, "g k -> g k c", c=width)) + 0.01 * spread * noise


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The number (G, N) of the code of (G, K, C) nearest to each of the vectors (G, N, C)."""
    # |v - c|^2 without |v|^2, which is the same for all codes.
    return torch.baddbmm(codebook.square().sum(-1)[:, None], vectors, codebook.mT, alpha=-2).argmin(-1)


def use(codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How many codes are in use: their share and their perplexity as a share, (G, Q) each, in (0, 1].

    Args:
        codes: (G, N, Q) of many tokens.
        size: K.
    """
    counts = F.one_hot(codes, size).sum(1).double()
    odds = counts / counts.sum(-1, keepdim=True)
    perplexity = torch.exp(-(odds * odds.clamp_min(1e-12).log()).sum(-1))
    return (counts > 0).double().mean(-1), perplexity / size


def _looked_up(codebook: Tensor, codes: Tensor) -> Tensor:
    return codebook.gather(1, repeat(codes, "g n -> g n c", c=codebook.shape[-1]))
