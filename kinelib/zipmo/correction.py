"""Two named corrections that hold samples to their pokes; both are off unless asked for, tables show raw numbers beside.

"gradient": during sampling, the clean estimate is moved along the decoder's gradient until the decoded poked points come
            close to their goals. The sample stays a latent, so everything decoded from it agrees.
"snap":     after decoding, tracks are displaced by a kernel interpolation of what is missing at the pokes, growing
            linearly to each goal time. Exact at the pokes by construction, an edit rather than a sample.

Shapes: latents (B * K, S, R, W, C) normalised, tracks (B, K, Q, T, 2), pokes (B, P, 5) with mask (B, P).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange, repeat
from torch import Tensor

from kinelib.notation import check_shape, frame_times
from kinelib.tracks.timing import read_at_time
from kinelib.zipmo.conditions import check_pokes
from kinelib.zipmo.pokes import blank_empty_slots

CORRECTIONS = ("gradient", "snap")


def gradient_correction(autoencoder, frame: Tensor, pokes: Tensor, mask: Tensor, samples: int, rounds: int = 3) -> Callable:
    """A function for `FlowMatcher.sample(correct=...)` that pulls clean estimates towards the pokes through the decoder.

    Each round is one step along the gradient, as long as reduces the error most where the decoder is locally linear.

    Args:
        autoencoder: decodes the latents.
        frame: (B, 3, S, S).
        pokes, mask: (B, P, 5), (B, P).
        samples: K, rows of one clip being consecutive.
        rounds: steps for each clean estimate.
    """
    pokes = blank_empty_slots(pokes, mask)
    with torch.no_grad():
        features = autoencoder.features(frame)
    again = lambda x: repeat(x, "b ... -> (b k) ...", k=samples)
    goals, times, given = again(pokes[..., 2:4]), again(pokes[..., 4]), again(mask)[..., None]

    def missing(clean: Tensor) -> Tensor:
        tracks = autoencoder.decode(autoencoder.denormalize(clean), frame, pokes[..., :2], features=features)
        return (read_at_time(tracks, times) - goals) * given

    def correct(clean: Tensor) -> Tensor:
        for _ in range(rounds):
            with torch.enable_grad():
                moved = clean.detach().requires_grad_()
                error = missing(moved)
                (slope,) = torch.autograd.grad(0.5 * error.square().sum(), moved)
            # |J^T e|^2 of the descent direction against |J J^T e|^2, the latter by a finite step.
            size = slope.flatten(1).square().sum(1)
            probe = 1e-2 / size.sqrt().clamp_min(1e-8)
            shape = (-1, *[1] * (clean.ndim - 1))
            with torch.no_grad():
                change = (missing(moved - probe.reshape(shape) * slope) - error) / probe[:, None, None]
                length = size / change.flatten(1).square().sum(1).clamp_min(1e-12)
            clean = (moved - length.clamp_max(1e3).reshape(shape) * slope).detach()
        return clean

    return correct if mask.any() else lambda clean: clean


def snap_to_pokes(
    tracks: Tensor,
    decode: Callable[[Tensor], Tensor],
    pokes: Tensor,
    mask: Tensor,
    radius: float = 0.3,
    affinity: float = 0.1,
) -> Tensor:
    """Displaces sampled tracks so that the poked points meet their goals.

    Args:
        tracks: (B, K, Q, T, 2) sampled tracks.
        decode: maps (B, P, 2) start points to the sample's tracks (B, K, P, T, 2).
        pokes, mask: (B, P, 5), (B, P).
        radius: reach of a poke in the frame, [-1, 1] units.
        affinity: how different (mean distance of displacement curves) two motions may be and still be corrected together.

    Returns:
        (B, K, Q, T, 2).

    Raises:
        ShapeError: on wrong shapes or goal times outside (0, 1].
    """
    sizes = check_shape("tracks", tracks, "B K Q T 2")
    check_pokes(pokes, mask, sizes["B"])
    if not mask.any():
        return tracks
    pokes = blank_empty_slots(pokes, mask)
    starts, time = pokes[..., :2], pokes[..., 4]
    own = decode(starts)
    samples = tracks.shape[1]
    wide = lambda x: repeat(x, "b ... -> b k ...", k=samples)
    miss = (wide(pokes[..., 2:4]) - read_at_time(own, wide(time))) * wide(mask)[..., None]

    curves = lambda x: x - x[..., :1, :]
    start_of = lambda x: x[..., 0, :]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        near = torch.cdist(start_of(a), start_of(b)).square() / (2 * radius**2)
        flat = lambda x: rearrange(curves(x), "b k n t c -> b k n (t c)")
        alike = torch.cdist(flat(a), flat(b)) / a.shape[-2] ** 0.5 / affinity
        return torch.exp(-near - 0.5 * alike.square())

    both = wide(mask)
    # What a poke adds grows linearly until its goal time, then holds. min(t, t_p) is a kernel too (of Brownian motion), so
    # that pokes of one track at several times bend it piecewise linearly, each met at its own time.
    ramp = torch.minimum(frame_times(tracks.shape[-2], tracks.device), time[..., None]) / time[..., None]
    overlap = read_at_time(rearrange(ramp, "b q t -> b 1 t q").expand(-1, ramp.shape[1], -1, -1), time)
    gram = kernel(own, own) * wide(overlap) * both[..., None] * both[..., None, :]
    gram = gram + torch.diag_embed((~both).to(gram) + 1e-5)
    weights = torch.linalg.solve(gram, miss)
    moved = torch.einsum("bkqp,bkpc,bpt->bkqtc", kernel(tracks, own) * both[..., None, :], weights, ramp)
    return tracks + moved
