"""Random Fourier features of a few real numbers, and the two embedders built on them (ZipMo; facts 1.4).

The frequencies are drawn once and are buffers: they travel in the checkpoint, so another seed changes nothing after
loading. Phases are computed in float32 whatever the model's precision, because frequencies reach 125 radians a unit.

Departure: the buffer holds one frequency vector for every feature, (groups, features, inputs), where the paper keeps
one list of numbers used for each input in turn; at construction both are the same function. In this form the order
of the inputs (x, y or y, x) is a permutation of columns.

Shapes: values (..., D inputs) -> (..., dim).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.learning.layers import ResidualSwiGLU, RMSNorm
from kinelib.notation import ShapeError


class FourierFeatures(nn.Module):
    """Sines and cosines of `inputs` numbers at random frequencies, zero-padded to `dim`.

    Args:
        inputs: how many numbers are embedded.
        dim: channels out; each input gets dim // (2 inputs) frequencies.
        theta: frequencies are normal with standard deviation theta / 1.96, so 95 % lie within +-theta radians a unit.
        generator: draws the frequencies; None uses torch's global one.
    """

    def __init__(self, inputs: int, dim: int, theta: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        count = dim // (2 * inputs)
        if count < 1:
            raise ShapeError(
                f"{dim} channels cannot hold a sine and a cosine of {inputs} inputs; use at least {2 * inputs}."
            )
        self.dim = dim
        drawn = torch.randn(count, generator=generator) * (theta / 1.96)
        self.register_buffer("frequencies", axis_aligned(drawn, inputs))

    def forward(self, values: Tensor) -> Tensor:
        """(..., inputs) -> (..., dim), float32."""
        inputs = self.frequencies.shape[-1]
        if values.shape[-1] != inputs:
            raise ShapeError(f"this embedder takes {inputs} numbers on the last axis; got shape {tuple(values.shape)}.")
        # Multiply and add instead of a matrix product, which some devices round to ten bits.
        phases = (values.float()[..., None, None, :] * self.frequencies.float()).sum(dim=-1)
        features = rearrange([phases.sin(), phases.cos()], "wave ... group count -> ... (group wave count)")
        return F.pad(features, (0, self.dim - features.shape[-1]))


def axis_aligned(frequencies: Tensor, inputs: int) -> Tensor:
    """Spreads a list of F frequencies to (inputs, F, inputs): group i reads input i only."""
    eye = torch.eye(inputs, dtype=frequencies.dtype, device=frequencies.device)
    return repeat(frequencies, "count -> group count inputs", group=inputs, inputs=inputs) * eye[:, None, :]


class FourierEmbedder(nn.Module):
    """Fourier features followed by two residual SwiGLU blocks, which are the identity at the start.

    Args: as of :class:`FourierFeatures`.
    """

    def __init__(self, inputs: int, dim: int, theta: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.features = FourierFeatures(inputs, dim, theta, generator)
        self.blocks = nn.Sequential(ResidualSwiGLU(dim), ResidualSwiGLU(dim))

    def forward(self, values: Tensor) -> Tensor:
        """(..., inputs) -> (..., dim)."""
        return self.blocks(self.features(values).to(self.blocks[0].norm.scale.dtype))


class FlowTimeEmbedder(nn.Module):
    """The conditioning vector of a flow time: random Fourier features, a linear map and a small mapping network.

    Args:
        dim: channels of the features and of the vector.
        generator: draws the frequencies; None uses torch's global one.
    """

    def __init__(self, dim: int = 256, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if dim % 2:
            raise ShapeError(f"the flow-time embedding has as many sines as cosines; its width {dim} must be even.")
        self.register_buffer("frequencies", torch.randn(dim // 2, generator=generator))
        self.linear = nn.Linear(dim, dim, bias=False)
        self.mapping = nn.Sequential(RMSNorm(dim), ResidualSwiGLU(dim), ResidualSwiGLU(dim), RMSNorm(dim))

    def forward(self, time: Tensor) -> Tensor:
        """Flow times (B,) in [0, 1] -> (B, dim)."""
        phases = 2 * math.pi * time.float()[:, None] * self.frequencies.float()
        features = torch.cat([phases.cos(), phases.sin()], dim=-1)
        return self.mapping(self.linear(features.to(self.linear.weight.dtype)))
