"""Mean and spread of features, with which networks see numbers of about unit size; part of every checkpoint.

The official formula: z = (x - mean) / sqrt(std^2 + 1e-5), for every channel, contacts and headings included (Kimodo's code).
The 1e-5 is on the variance, in squared units of the channel.

How the release measured its statistics is not published. Ours are those of clips turned in every direction with equal
odds, as they are in training, worked out and not sampled: turning leaves no mean to a vector on the floor and shares its
squared length between x and z.

Shapes: features (B, T, D), lengths (B,), mean and std (D,).
"""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor, nn

from kinelib.notation import check_finite, check_shape

EPSILON = 1e-5  # added to the variance


class Statistics(nn.Module):
    """Normalises D channels; the numbers are buffers, so that they travel with weights.

    Args:
        mean, std: (D,) of the channels, or None for 0 and 1.
        size: D, where there are no numbers yet (a checkpoint will bring them, or `set`).

    Raises:
        ValueError: when neither numbers nor a size are given, or a std is negative.
    """

    def __init__(self, mean: Tensor | None = None, std: Tensor | None = None, *, size: int | None = None) -> None:
        super().__init__()
        if mean is None and size is None:
            raise ValueError("Statistics need a mean and std, or the number of channels: Statistics(size=273).")
        self.register_buffer("mean", torch.zeros(size) if mean is None else mean.detach().clone().float())
        self.register_buffer("std", torch.ones_like(self.mean) if std is None else std.detach().clone().float())
        self._check()

    def _check(self) -> None:
        sizes = check_shape("mean", self.mean, "D")
        check_shape("std", self.std, "D", D=sizes["D"])
        if bool((self.std < 0).any()):
            raise ValueError(f"a standard deviation is not negative; channel {int(self.std.argmin())} has {self.std.min()}.")

    @classmethod
    def measure(
        cls, features: Tensor, lengths: Tensor | None = None, *, turning: tuple[list[int], list[int]] | None = None
    ) -> Statistics:
        """The statistics of clips.

        Args:
            features: (B, T, D) unnormalised.
            lengths: (B,) frames of every clip; None means T.
            turning: channels (of x, of z) that are vectors on the floor, for the statistics of the clips turned in every
                direction: `FeatureLayout.turning` or `features.LOCAL_TURNING`. None: as they are.

        Raises:
            ShapeError: for NaN. ValueError: when there is no frame.
        """
        sizes = check_shape("features", features, "B T D")
        frames = features.detach().double().flatten(0, 1)
        if lengths is not None:
            there = repeat(torch.arange(sizes["T"]), "t -> b t", b=sizes["B"]) < lengths.cpu()[:, None]
            frames = frames[there.flatten().to(frames.device)]
        if not len(frames):
            raise ValueError("there are no frames to measure statistics of.")
        check_finite("features", frames)
        mean, std = frames.mean(0), frames.std(0, correction=0)
        if turning is not None:
            xs, zs = turning
            spread = ((frames[:, xs].square() + frames[:, zs].square()).mean(0) / 2).sqrt()
            mean[xs], mean[zs], std[xs], std[zs] = 0, 0, spread, spread
        return cls(mean.float(), std.float())

    def set(self, other: Statistics) -> None:
        """Takes over the numbers of other statistics of the same size."""
        check_shape("mean", other.mean, "D", D=len(self.mean))
        self.mean.copy_(other.mean)
        self.std.copy_(other.std)

    def part(self, channels: slice | list[int]) -> Statistics:
        """The statistics of some of the channels."""
        return Statistics(self.mean[channels], self.std[channels])

    @property
    def scale(self) -> Tensor:
        """(D,) what differences are divided by."""
        return (self.std.square() + EPSILON).sqrt()

    def normalize(self, x: Tensor) -> Tensor:
        """(..., D) features -> the same in units of their spread."""
        return (x - self.mean) / self.scale

    def denormalize(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return z * self.scale + self.mean
