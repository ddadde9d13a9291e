"""The measurements of the paper: how good generated futures are, how good reconstructed tracks are.

Source: ZipMo section 4 (open-domain evaluation), in the detail of its release. Positions are
measured on a 128-pixel canvas, p(u) = 128 (u + 1) / 2 on both axes whatever the true aspect ratio:

- MSE_k is the mean over tracks, frames *and the two coordinates* of the squared error of sample k (so half the mean
  squared distance). **min_mse** takes the best k of a clip for all its tracks together, **mean_mse** the mean over k,
  **mean_track_mse** scores the sample-averaged trajectory. First frames and static background count.
- **epe**: distance at the last frame, mean over samples and *poked* tracks only.
- **diversity_std**: standard deviation over samples (unbiased), mean over tracks, frames, coordinates.
  **diversity_pairwise**: mean of the K x K matrix of distances between flattened samples, its zero diagonal included.
- `*_normalized`: the error of each track divided by (1 + its true path length in pixels) before averaging.
- **delta_avg**: share of points within 1, 2, 4, 8, 16 pixels on a 256-pixel canvas, mean over the five.

Departures, each a field of `Protocol` whose paper value is in `Protocol.official()`: tracks of different lengths are
resampled with exact end points (officially half a cell inside, which never sees the end); the 256-pixel canvas has the
scale 256 (officially 255); each clip of a batch has noise of its own (officially all clips share one draw, which
correlates what intervals take for independent); diversity can leave the diagonal out. NaN is always an error
(officially it can be filled forward). Additions: every error also over moving and static tracks apart, the spread of
end points, and errors at the pokes' own goals and goal times.

Shapes: samples (B, K, N, T, 2), truth (B, N, T, 2), poked and moving (B, N) bool; every metric is per clip, (B,) in
float64, NaN where it is undefined (no poked or no moving track), so that `intervals.summarize` can resample clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import Tensor

from kinelib.learning.intervals import Interval, summarize
from kinelib.notation import ShapeError, check_finite, check_shape
from kinelib.tracks.timing import read_at_time, resample_time

THRESHOLDS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Protocol:
    """How to measure; the defaults are ours, `Protocol.official()` is what the release does."""

    canvas: float = 128.0  # pixels an axis for errors of generation
    accuracy_canvas: float = 256.0  # pixels an axis for reconstruction; officially 255
    exact_ends: bool = True  # resampling in time keeps the first and last frame; officially False
    unbiased_diversity: bool = False  # leave the zero diagonal out of the pairwise mean; officially False
    same_noise: bool = False  # every clip gets the same draw of noise, one clip a call; officially True

    @classmethod
    def official(cls) -> Protocol:
        """The released evaluation's settings, for numbers that stand beside the paper's."""
        return cls(accuracy_canvas=255.0, exact_ends=False, same_noise=True)


def generation_metrics(
    samples: Tensor,
    truth: Tensor,
    poked: Tensor | None = None,
    moving: Tensor | None = None,
    *,
    goal_time: Tensor | None = None,
    protocol: Protocol | None = None,
) -> dict[str, Tensor]:
    """Scores K sampled futures of each clip against what happened.

    Args:
        samples: (B, K, N, T, 2) forecasts, xy in [-1, 1]; a deterministic forecaster has K = 1 and diversity 0.
        truth: (B, N, T', 2); the longer of T and T' is resampled to the shorter.
        poked: (B, N) bool, tracks that carried a poke; adds `epe`.
        moving: (B, N) bool, for example ``Tracks.moving()``; adds `*_moving` and `*_static` values.
        goal_time: (B, N) in (0, 1]; adds `epe_goal`, the error of poked tracks at their goal time.
        protocol: default :class:`Protocol`.

    Returns:
        Name -> (B,) float64 on the CPU. The best sample for `min_mse_moving` is chosen on the moving tracks.

    Raises:
        ShapeError: on wrong shapes or values that are not finite.
    """
    protocol = protocol or Protocol()
    truth, samples = _on_canvas(truth, samples, protocol.canvas, protocol.exact_ends, "samples", "B K N T 2")
    sizes = check_shape("samples", samples, "B K N T 2")
    if not sizes["K"] or not sizes["N"]:
        raise ShapeError(f"scoring needs at least one sample and one track; got K={sizes['K']}, N={sizes['N']}.")
    track_sizes = {"B": sizes["B"], "N": sizes["N"]}

    squared = reduce((samples - truth[:, None]).square(), "B K N T xy -> B K N", "mean")
    average = samples.mean(dim=1)
    squared_average = reduce((average - truth).square(), "B N T xy -> B N", "mean")
    path = truth.diff(dim=2).norm(dim=-1).sum(dim=-1)
    spread = _spread(samples)

    def subset(suffix: str, chosen: Tensor) -> dict[str, Tensor]:
        per_sample = _mean_over(squared, chosen[:, None])
        normalized = _mean_over(squared / (1 + path)[:, None], chosen[:, None])
        return {
            f"min_mse{suffix}": per_sample.amin(dim=1),
            f"mean_mse{suffix}": per_sample.mean(dim=1),
            f"mean_track_mse{suffix}": _mean_over(squared_average, chosen),
            f"min_mse_normalized{suffix}": normalized.amin(dim=1),
            f"mean_mse_normalized{suffix}": normalized.mean(dim=1),
            f"mean_track_mse_normalized{suffix}": _mean_over(squared_average / (1 + path), chosen),
            f"diversity_std{suffix}": _mean_over(spread["std"], chosen),
            f"end_spread{suffix}": _mean_over(spread["end"], chosen),
        }

    metrics = subset("", torch.ones(sizes["B"], sizes["N"], dtype=torch.bool))
    metrics["diversity_pairwise"] = pairwise_diversity(samples, unbiased=protocol.unbiased_diversity)
    if moving is not None:
        moving = check_flags("moving", moving, track_sizes)
        metrics |= subset("_moving", moving) | subset("_static", ~moving)
    if poked is not None:
        poked = check_flags("poked", poked, track_sizes)
        end = (samples - truth[:, None])[..., -1, :].norm(dim=-1)
        metrics["epe"] = _mean_over(reduce(end, "B K N -> B N", "mean"), poked)
        if goal_time is not None:
            check_shape("goal_time", goal_time, "B N", **track_sizes)
            goal_time = goal_time.detach().cpu().double()
            asked = read_at_time(samples, goal_time[:, None].expand(-1, sizes["K"], -1))
            distance = (asked - read_at_time(truth, goal_time)[:, None]).norm(dim=-1)
            metrics["epe_goal"] = _mean_over(reduce(distance, "B K N -> B N", "mean"), poked)
    elif goal_time is not None:
        raise ShapeError("goal_time was given without poked: say which tracks carry a poke, (B, N) bool.")
    return metrics


def poke_error(samples: Tensor, pokes: Tensor, mask: Tensor, *, protocol: Protocol | None = None) -> Tensor:
    """How far the poked points are from where they were asked to be, when they were asked to be there.

    Unlike `epe` this needs no truth and holds for several pokes on a track and for pokes a user drew.

    Args:
        samples: (B, K, P, T, 2) forecasts queried at the pokes' start points.
        pokes: (B, P, 5), mask (B, P) bool.
        protocol: default :class:`Protocol`.

    Returns:
        (B,) mean distance in canvas pixels; NaN for clips without pokes.
    """
    protocol = protocol or Protocol()
    sizes = check_shape("samples", samples, "B K P T 2")
    check_shape("pokes", pokes, "B P 5", B=sizes["B"], P=sizes["P"])
    mask = check_flags("mask", mask, {"B": sizes["B"], "N": sizes["P"]})
    check_finite("samples", samples)
    samples, pokes = samples.detach().cpu().double(), pokes.detach().cpu().double()
    pokes = torch.where(mask[..., None], pokes, 0.0)  # empty slots may hold anything
    check_finite("pokes", pokes)
    reached = read_at_time(samples, pokes[:, None, :, 4].expand(-1, sizes["K"], -1))
    distance = (reached - pokes[:, None, :, 2:4]).norm(dim=-1) * protocol.canvas / 2
    return _mean_over(reduce(distance, "B K P -> B P", "mean"), mask)


def pairwise_diversity(samples: Tensor, *, unbiased: bool = False) -> Tensor:
    """Mean distance between the flattened samples of a clip: (B, K, ...) -> (B,).

    With the zero diagonal (the paper's way) the value shrinks by (K - 1) / K, so it grows with K by itself;
    `unbiased` leaves the diagonal out. One sample has diversity 0.
    """
    flat = samples.flatten(2)
    count = flat.shape[1]
    total = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=(1, 2))
    return total / (max(count * (count - 1), 1) if unbiased else count**2)


def min_mse_curve(samples: Tensor, truth: Tensor, *, protocol: Protocol | None = None) -> Tensor:
    """The expected min_mse of k of the K samples, for k = 1 ... K: (B, K), entry k - 1 for k samples.

    Min over K falls with K by itself, so numbers compare only at equal K; this is the exact mean over all subsets of
    size k. Its first entry is mean_mse, its last is min_mse.
    """
    protocol = protocol or Protocol()
    truth, samples = _on_canvas(truth, samples, protocol.canvas, protocol.exact_ends, "samples", "B K N T 2")
    return min_of_k_curve(reduce((samples - truth[:, None]).square(), "B K N T xy -> B K", "mean"))


def min_of_k_curve(errors: Tensor) -> Tensor:
    """The expected smallest of k of a clip's K errors, over all subsets of size k: (B, K) -> (B, K), entry k - 1 for k.

    Unbiased for the minimum of k fresh samples, which the running minimum of one order of the samples is only on
    average and with more noise.

    Args:
        errors: (B, K), one error a sample; any unit.

    Raises:
        ShapeError: when there is no sample, or an error is not finite.
    """
    if not check_shape("errors", errors, "B K")["K"]:
        raise ShapeError("the expected minimum needs at least one sample; got K=0.")
    check_finite("errors", errors)
    errors = errors.detach().cpu().double().sort(dim=1).values
    count = errors.shape[1]
    rank = torch.arange(count, dtype=torch.float64)
    size = rank[:, None] + 1
    # The i-th best of K is the best of a k-subset when the other k - 1 come from the K - 1 - i worse ones.
    worse = count - 1 - rank
    log_share = _log_choose(worse, size - 1) - _log_choose(torch.tensor(float(count), dtype=torch.float64), size)
    share = torch.where(worse >= size - 1, log_share.exp(), 0.0)
    return errors @ share.T


def reconstruction_metrics(
    predicted: Tensor,
    truth: Tensor,
    moving: Tensor | None = None,
    visible: Tensor | None = None,
    *,
    protocol: Protocol | None = None,
) -> dict[str, Tensor]:
    """Scores decoded tracks against the truth.

    Args:
        predicted: (B, N, T, 2), xy in [-1, 1].
        truth: (B, N, T', 2); the longer is resampled to the shorter.
        moving: (B, N) bool; adds `*_moving` and `*_static`.
        visible: (B, N, T) bool; hidden positions do not count (officially all do). Needs T = T'.
        protocol: default :class:`Protocol`.

    Returns:
        Name -> (B,): `px` mean distance in canvas pixels (256), `px_median`, `delta_1` ... `delta_16` and `delta_avg`
        in percent.

    Raises:
        ShapeError: on wrong shapes or values that are not finite.
    """
    protocol = protocol or Protocol()
    frames = (predicted.shape[-2:-1], truth.shape[-2:-1])
    truth, predicted = _on_canvas(truth, predicted, protocol.accuracy_canvas, protocol.exact_ends, "predicted", "B N T 2")
    sizes = check_shape("predicted", predicted, "B N T 2")
    track_sizes = {"B": sizes["B"], "N": sizes["N"]}
    if visible is None:
        visible = torch.ones(predicted.shape[:3], dtype=torch.bool)
    elif frames[0] != frames[1]:
        raise ShapeError(f"visible cannot be used when lengths differ ({frames[0][0]} and {frames[1][0]} frames).")
    else:
        check_shape("visible", visible, "B N T", T=sizes["T"], **track_sizes)
        visible = visible.detach().cpu().bool()
    distance = (predicted - truth).norm(dim=-1)

    def subset(suffix: str, chosen: Tensor) -> dict[str, Tensor]:
        counted = rearrange(chosen[..., None] & visible, "B N T -> B (N T)")
        flat = rearrange(distance, "B N T -> B (N T)")
        shares = {f"delta_{px}{suffix}": 100 * _mean_over((flat < px).double(), counted) for px in THRESHOLDS}
        return {
            f"px{suffix}": _mean_over(flat, counted),
            f"px_median{suffix}": torch.where(counted, flat, torch.nan).nanmedian(dim=1).values,
            f"delta_avg{suffix}": torch.stack(list(shares.values())).mean(dim=0),
            **shares,
        }

    metrics = subset("", torch.ones(sizes["B"], sizes["N"], dtype=torch.bool))
    if moving is not None:
        moving = check_flags("moving", moving, track_sizes)
        metrics |= subset("_moving", moving) | subset("_static", ~moving)
    return metrics


def reconstruction_table(
    predictions: Mapping[str, Tensor],
    truth: Tensor,
    moving: Tensor | None = None,
    visible: Tensor | None = None,
    *,
    protocol: Protocol | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
    """Reconstruction of several methods on the same clips: method -> metric -> interval over clips.

    Args:
        predictions: method -> (B, N, T, 2); the other arguments as in :func:`reconstruction_metrics`.
        seed: of the bootstrap.
    """
    return {
        method: summarize(reconstruction_metrics(predicted, truth, moving, visible, protocol=protocol), seed=seed)
        for method, predicted in predictions.items()
    }


def _on_canvas(
    truth: Tensor, other: Tensor, canvas: float, exact_ends: bool, name: str, pattern: str
) -> tuple[Tensor, Tensor]:
    """Both as float64 pixels of one length on the CPU, after checking shapes and values."""
    known = {axis: size for axis, size in check_shape(name, other, pattern).items() if axis in "BN"}
    sizes = check_shape("truth", truth, "B N T 2", **known)
    if not sizes["B"] or not sizes["T"] or not other.shape[-2]:
        raise ShapeError(f"nothing to score: truth is {tuple(truth.shape)}, {name} is {tuple(other.shape)}.")
    check_finite("truth", truth)
    check_finite(name, other)
    length, longer = sorted((truth.shape[-2], other.shape[-2]))
    if length == 1 < longer:
        raise ShapeError(f"tracks of {longer} frames cannot be compared with 1: a single frame has no end to align.")
    truth, other = (
        resample_time(tracks.detach().cpu().double(), length, exact_ends=exact_ends) for tracks in (truth, other)
    )
    return (truth + 1) / 2 * canvas, (other + 1) / 2 * canvas


def check_flags(name: str, flags: Tensor, sizes: Mapping[str, int]) -> Tensor:
    """The (B, N) flags on the CPU; raises ShapeError on another shape or type."""
    check_shape(name, flags, "B N", **sizes)
    if flags.dtype != torch.bool:
        raise ShapeError(f"{name} must be bool; got {flags.dtype}.")
    return flags.detach().cpu()


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the last axis where `chosen`; NaN where nothing is chosen."""
    total = torch.where(chosen, values, 0.0).sum(dim=-1)
    return total / chosen.sum(dim=-1)


def _spread(samples: Tensor) -> dict[str, Tensor]:
    """Per-track spread over samples: `std` of positions, and mean distance of `end` points from their centre."""
    end = samples[..., -1, :]
    distance = (end - end.mean(dim=1, keepdim=True)).norm(dim=-1)
    if samples.shape[1] == 1:  # one sample cannot spread; torch would call its deviation NaN
        std = torch.zeros_like(distance[:, 0])
    else:
        std = reduce(samples.std(dim=1), "B N T xy -> B N", "mean")
    return {"std": std, "end": reduce(distance, "B K N -> B N", "mean")}


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
