"""Refined latents: what an encoder says at once, corrected until the decoder answers the tracks that were encoded.

An encoder pays for its speed: it was trained to do well on the average clip, and on pictures unlike its training's it errs
over wide areas at once, while the latents that would have been right exist. A few steps of gradient descent on the latents
themselves close much of this *amortization gap* (Cremer et al. 2018; "semi-amortized" in Kim et al. 2018). Only encoded
tracks are looked at. A correction that follows each of them is no help between them, so it is asked to be smooth over the
grid: the penalty is on differences between the corrections of neighbouring cells, not on the latents'.

The paper encodes in one pass, as `TrackAutoencoder.encode` does; nothing here is used unless it is called.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinelib.notation import check_finite, check_shape
from kinelib.tracks.timing import resample_time
from kinelib.zipmo.autoencoder import TrackAutoencoder

PIXELS = 128.0  # of half a canvas of 256: errors are weighed in pixels


@dataclass(frozen=True)
class Refinement:
    """How latents are refined."""

    steps: int = 40  # of Adam
    rate: float = 0.05  # at the first step, falling to nothing; in normalised latents
    smoothness: float = 100.0  # weight of squared differences between neighbouring cells' corrections
    pull: float = 0.1  # weight of squared corrections

    def __post_init__(self) -> None:
        if self.steps < 0 or self.rate <= 0 or self.smoothness < 0 or self.pull < 0:
            raise ValueError(f"a refinement needs rate > 0 and steps, smoothness and pull of 0 or more; got {self}.")


def refine_latents(
    autoencoder: TrackAutoencoder,
    latents: Tensor,
    tracks: Tensor,
    frame: Tensor,
    *,
    how: Refinement | None = None,
    keep: Tensor | None = None,
    features=None,
) -> Tensor:
    """Corrects latents so that the decoder answers the encoded tracks.

    Args:
        autoencoder: a trained one; its weights stay as they are.
        latents: (B, S, R, W, C) raw, such as a posterior's mean.
        tracks: (B, N, T, 2) those that were encoded, xy in [-1, 1].
        frame: (B, 3, S, S) first frame in [-1, 1].
        how: steps and weights.
        keep: (B, N) bool, the tracks that count; None: all.
        features: what `autoencoder.features(frame)` returned.

    Returns:
        (B, S, R, W, C) raw latents, without gradients.

    Raises:
        ShapeError: on wrong shapes or values that are not finite.
    """
    how = how or Refinement()
    sizes = check_shape("tracks", tracks, "B N T 2")
    check_shape("latents", latents, "B S R W C", B=sizes["B"])
    check_finite("tracks", tracks)
    if keep is not None:
        check_shape("keep", keep, "B N", B=sizes["B"], N=sizes["N"])
    weight = torch.ones(tracks.shape[:2], device=tracks.device) if keep is None else keep.float()
    weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(1) / len(weight)
    frames = autoencoder.config.num_frames
    with torch.no_grad():
        features = autoencoder.features(frame) if features is None else features
        wanted, begun = resample_time(tracks, frames), autoencoder.normalize(latents)
    correction = torch.zeros_like(begun, requires_grad=True)
    optimizer = torch.optim.Adam([correction], lr=how.rate)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=max(how.steps - 1, 1))
    with torch.enable_grad():
        for _ in range(how.steps):
            answer = autoencoder.decode(
                autoencoder.denormalize(begun + correction), frame, tracks[:, :, 0], frames, features
            )
            missed = ((answer - wanted).abs().sum(-1).mean(-1) * weight).sum() * PIXELS
            rough = correction.diff(dim=2).square().mean() + correction.diff(dim=3).square().mean()
            loss = missed + how.smoothness * rough + how.pull * correction.square().mean()
            (gradient,) = torch.autograd.grad(loss, correction)
            correction.grad = gradient
            optimizer.step()
            falling.step()
    return autoencoder.denormalize(begun + correction.detach())
