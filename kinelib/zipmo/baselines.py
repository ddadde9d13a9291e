"""Forecasts without learning: what any learned model has to beat, behind the call that the learned ones answer to.

All are called ``forecaster(frame, pokes, mask, query_points, *, num_frames=64, samples=8, seed=0) -> (B, K, Q, T, 2)``.
These five are deterministic: they ignore the frame, `samples` and `seed`, and return K = 1. They differ in two ways only:

| forecaster          | which poke moves a query point                                      | after the goal time  |
|---------------------|---------------------------------------------------------------------|----------------------|
| `static`            | none                                                                | -                    |
| `copy_nearest`      | the nearest one, at any distance                                    | stays at the goal    |
| `constant_velocity` | the nearest one, at any distance                                    | keeps its velocity   |
| `linear`            | all, weighted by 1 / distance^2                                     | stays at the goal    |
| `linear_local`      | those within a radius, weighted by 1 / distance^2; none: stands still | stays at the goal  |

A poke's displacement grows linearly in time from zero at the first frame to goal - start at its goal time. Pokes that
start at the same point are one track: its displacement is piecewise linear through their goals in order of time, and
it counts once, however many pokes it has. Without pokes every baseline is `static`.

Not part of the paper; each table needs them, because trivial answers look good on mostly static points. On the poked
points all but `static` have an end-point error of zero by construction.

Shapes: frame (B, 3, H, W); pokes (B, P, 5) = (x, y, goal x, goal y, time in (0, 1]); mask (B, P); query_points (B, Q, 2).
"""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from torch import Tensor

from kinelib.notation import ShapeError, check_finite, check_shape, frame_times

# Pokes closer than this (an eighth of a pixel on a 256-pixel canvas) start on the same track.
SAME_TRACK = 1e-3


def static(
    frame: Tensor,
    pokes: Tensor,
    mask: Tensor,
    query_points: Tensor,
    *,
    num_frames: int = 64,
    samples: int = 8,
    seed: int = 0,
) -> Tensor:
    """Every point stays where it starts; returns (B, 1, Q, T, 2)."""
    _check(pokes, mask, query_points, num_frames)
    return rearrange(query_points, "B Q xy -> B 1 Q 1 xy").repeat(1, 1, 1, num_frames, 1)


def copy_nearest(
    frame: Tensor,
    pokes: Tensor,
    mask: Tensor,
    query_points: Tensor,
    *,
    num_frames: int = 64,
    samples: int = 8,
    seed: int = 0,
) -> Tensor:
    """Every point copies the displacement of the poke whose start is nearest; returns (B, 1, Q, T, 2)."""
    _check(pokes, mask, query_points, num_frames)
    curves = poke_displacements(pokes, mask, num_frames)
    return _move(query_points, _nearest_weights(pokes, mask, query_points), curves)


def constant_velocity(
    frame: Tensor,
    pokes: Tensor,
    mask: Tensor,
    query_points: Tensor,
    *,
    num_frames: int = 64,
    samples: int = 8,
    seed: int = 0,
) -> Tensor:
    """As :func:`copy_nearest`, but motion goes on after the last goal at its last velocity; returns (B, 1, Q, T, 2).

    The two agree when every poke's goal time is 1.
    """
    _check(pokes, mask, query_points, num_frames)
    curves = poke_displacements(pokes, mask, num_frames, hold=False)
    return _move(query_points, _nearest_weights(pokes, mask, query_points), curves)


def linear(
    frame: Tensor,
    pokes: Tensor,
    mask: Tensor,
    query_points: Tensor,
    *,
    num_frames: int = 64,
    samples: int = 8,
    seed: int = 0,
) -> Tensor:
    """Every point moves by the average of all pokes, weighted by 1 / distance^2; returns (B, 1, Q, T, 2)."""
    _check(pokes, mask, query_points, num_frames)
    curves = poke_displacements(pokes, mask, num_frames)
    return _move(query_points, _spread_weights(pokes, mask, query_points), curves)


def linear_local(
    frame: Tensor,
    pokes: Tensor,
    mask: Tensor,
    query_points: Tensor,
    *,
    num_frames: int = 64,
    samples: int = 8,
    seed: int = 0,
    radius: float = 0.3,
) -> Tensor:
    """As :func:`linear` among pokes that start within `radius` (0.3 = 15 % of the frame); others do not move the point.

    Raises:
        ValueError: when the radius is not positive.
    """
    if not radius > 0:
        raise ValueError(f"radius must be positive, in units of half a frame; got {radius}.")
    _check(pokes, mask, query_points, num_frames)
    curves = poke_displacements(pokes, mask, num_frames)
    return _move(query_points, _spread_weights(pokes, mask, query_points, radius), curves)


def copy_nearest_track(tracks: Tensor, query_points: Tensor, visible: Tensor | None = None) -> Tensor:
    """Reconstruction without a model: every query point copies the displacement of the nearest encoded track.

    Args:
        tracks: (B, N, T, 2) the tracks an autoencoder would see.
        query_points: (B, Q, 2) where points start.
        visible: (B, N, T) bool; tracks that are hidden in the first frame are not copied (unless all of a clip's are).

    Returns:
        (B, Q, T, 2).
    """
    sizes = check_shape("tracks", tracks, "B N T 2")
    check_shape("query_points", query_points, "B Q 2", B=sizes["B"])
    if not sizes["N"] or not sizes["T"]:
        raise ShapeError(f"copying needs at least one track of one frame; got N={sizes['N']}, T={sizes['T']}.")
    check_finite("tracks", tracks)
    check_finite("query_points", query_points)
    distance = _distance(query_points, tracks[:, :, 0])
    if visible is not None:
        check_shape("visible", visible, "B N T", B=sizes["B"], N=sizes["N"], T=sizes["T"])
        hidden = ~visible[:, :, 0]
        distance = distance + 1e6 * rearrange(hidden, "B N -> B 1 N")
    nearest = distance.argmin(dim=-1)
    displacement = tracks - tracks[:, :, :1]
    copied = displacement.gather(1, nearest[:, :, None, None].expand(-1, -1, sizes["T"], 2))
    return rearrange(query_points, "B Q xy -> B Q 1 xy") + copied


def poke_displacements(pokes: Tensor, mask: Tensor, num_frames: int, *, hold: bool = True) -> Tensor:
    """The displacement each poke's track has over time: (B, P, T, 2), piecewise linear, zero at the first frame.

    Args:
        pokes: (B, P, 5); pokes that start at the same point share one curve through all their goals. Of several goals
            for the same point at the same time, the first in slot order counts.
        mask: (B, P) bool; the curve of an empty slot is zero.
        num_frames: T.
        hold: stay at the last goal after its time; otherwise continue with the last segment's velocity.
    """
    if not pokes.shape[1]:
        return pokes.new_zeros(pokes.shape[0], 0, num_frames, 2)
    times, goals = pokes[..., 4], pokes[..., 2:4] - pokes[..., :2]
    same = _same_track(pokes, mask)
    frames = frame_times(num_frames, pokes.device).to(pokes)
    knot = rearrange(times, "B P -> B 1 1 P")  # the last axis runs over the pokes of poke p's track
    member = rearrange(same, "B P R -> B P 1 R")

    # The segment of a frame ends at the first goal that is not before it, or at the last goal of all.
    ahead = member & (knot >= rearrange(frames, "T -> T 1") - 1e-6)
    first_ahead = torch.where(ahead, knot, torch.inf).argmin(dim=-1)
    last = torch.where(member, knot, -torch.inf).argmax(dim=-1)
    end = torch.where(ahead.any(dim=-1), first_ahead, last)
    end_time = _pick(times, end)

    # It begins at the latest goal before that, or at rest in the first frame.
    before = member & (knot < rearrange(end_time, "B P T -> B P T 1") - 1e-6)
    start = torch.where(before, knot, -torch.inf).argmax(dim=-1)
    has_start = before.any(dim=-1)
    start_time = torch.where(has_start, _pick(times, start), 0.0)
    start_goal = _pick(goals, start) * has_start[..., None]

    share = (frames - start_time) / (end_time - start_time).clamp_min(1e-6)
    share = share.clamp(max=1.0) if hold else share
    curves = start_goal + share[..., None] * (_pick(goals, end) - start_goal)
    return torch.where(mask[:, :, None, None], curves, 0.0)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """values (B, R) or (B, R, 2) read at index (B, P, T)."""
    flat = rearrange(index, "B P T -> B (P T)")
    if values.ndim == 3:
        flat = flat[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, flat).unflatten(1, index.shape[1:])


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """(B, Q, P) distances between points; the matrix-product shortcut of cdist is too coarse for points this close."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _same_track(pokes: Tensor, mask: Tensor) -> Tensor:
    """(B, P, P) bool: both pokes are real and start at the same point."""
    starts = pokes[..., :2]
    close = (starts[:, :, None] - starts[:, None]).abs().amax(dim=-1) < SAME_TRACK
    return close & mask[:, :, None] & mask[:, None]


def _nearest_weights(pokes: Tensor, mask: Tensor, query_points: Tensor) -> Tensor:
    """(B, Q, P) weights: 1 for the nearest real poke, all 0 for clips without pokes."""
    if not pokes.shape[1]:
        return query_points.new_zeros(*query_points.shape[:2], 0)
    distance = _distance(query_points, pokes[..., :2]).masked_fill(~mask[:, None], torch.inf)
    weights = torch.nn.functional.one_hot(distance.argmin(dim=-1), pokes.shape[1]).to(query_points)
    return weights * mask[:, None]


def _spread_weights(pokes: Tensor, mask: Tensor, query_points: Tensor, radius: float = torch.inf) -> Tensor:
    """(B, Q, P) weights that sum to 1 over the tracks within the radius, or are all 0 where there is none."""
    distance = _distance(query_points, pokes[..., :2])
    # A track with several pokes counts once. The floor keeps a query that starts on a poke finite and on that poke.
    pokes_of_track = _same_track(pokes, mask).sum(dim=-1).clamp_min(1)
    weights = 1 / distance.square().clamp_min(1e-12) / pokes_of_track[:, None]
    weights = torch.where(mask[:, None] & (distance <= radius), weights, 0.0)
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)


def _move(query_points: Tensor, weights: Tensor, curves: Tensor) -> Tensor:
    """Query points moved by a weighted sum of displacement curves: (B, 1, Q, T, 2)."""
    displacement = einsum(weights, curves, "B Q P, B P T xy -> B Q T xy")
    return rearrange(rearrange(query_points, "B Q xy -> B Q 1 xy") + displacement, "B Q T xy -> B 1 Q T xy")


def _check(pokes: Tensor, mask: Tensor, query_points: Tensor, num_frames: int) -> None:
    """Raises ShapeError for anything a forecaster cannot answer."""
    sizes = check_shape("pokes", pokes, "B P 5")
    check_shape("mask", mask, "B P", B=sizes["B"], P=sizes["P"])
    check_shape("query_points", query_points, "B Q 2", B=sizes["B"])
    if mask.dtype != torch.bool:
        raise ShapeError(f"mask must be bool, True for a real poke; got {mask.dtype}.")
    if num_frames < 1:
        raise ShapeError(f"a forecast needs at least one frame; got num_frames={num_frames}.")
    check_finite("query_points", query_points)
    check_finite("pokes", pokes[mask])
    times = pokes[mask][:, 4]
    if times.numel() and not (times.min() > 0 and times.max() <= 1):
        raise ShapeError(
            f"goal times must be in (0, 1], 1 being the last frame; got {times.min():.4g} to {times.max():.4g}."
        )
