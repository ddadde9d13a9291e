"""How good the point trackers are, told by a simulator that knows: shares within 1 to 16 pixels, moving and static apart.

Points that move are few and are what matters; a tracker that holds every point still is right about the rest. So the two are
never averaged here. Only positions that are visible in truth count, and not the first frame, which the tracker was given.

Shapes: pictures (T, S, S, 3) uint8; tracks (1, N, T, 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinelib.learning.intervals import Interval, summarize
from kinelib.notation import ShapeError
from kinelib.tracks.trackers import PixelTracker, track_points
from kinelib.tracks.tracks import Tracks
from kinelib.zipmo.protocol import THRESHOLDS, Protocol, reconstruction_metrics

SUBSETS = ("moving", "static")
MOVING = 4.0  # pixels of 256 from its start that make a point a moving one


def score_tracks(estimated: Tracks, exact: Tracks, *, canvas: float = 256.0) -> dict[str, Tensor]:
    """Compares estimated tracks with exact ones of the same points.

    Args:
        estimated, exact: B clips of the same N points, which are visible in the first frame, and T >= 2 frames.
        canvas: pixels that a frame is taken to have along each axis.

    Returns:
        Name -> (B,), NaN where a clip has no such point: `within_1_moving` ... `within_16_static` in percent,
        `delta_moving` and `delta_static` their means, and `lost_moving`, `lost_static`: the percentage of positions
        visible in truth that the tracker had given up.

    Raises:
        ShapeError: when the two differ in shape, or there is but one frame.
    """
    if estimated.xy.shape != exact.xy.shape or exact.num_frames < 2:
        raise ShapeError(
            f"tracks to compare have the same shape and at least 2 frames; got {tuple(estimated.xy.shape)} and "
            f"{tuple(exact.xy.shape)}."
        )
    moving, length = exact.moving(MOVING), exact.num_frames - 1
    guess, truth = estimated.window(1, length), exact.window(1, length)
    protocol = Protocol(accuracy_canvas=canvas)
    found = reconstruction_metrics(guess.xy, truth.xy, moving, truth.visible, protocol=protocol)
    scores = {}
    for subset, chosen in zip(SUBSETS, (moving, ~moving), strict=True):
        scores |= {f"within_{pixels}_{subset}": found[f"delta_{pixels}_{subset}"] for pixels in THRESHOLDS}
        scores[f"delta_{subset}"] = found[f"delta_avg_{subset}"]
        counted = chosen[..., None] & truth.visible
        given_up = (counted & ~guess.visible).sum((1, 2)) / counted.sum((1, 2)).double()
        scores[f"lost_{subset}"] = 100 * given_up
    return scores


def tracker_table(
    clips: Iterable[tuple[NDArray[np.uint8], Tracks]], trackers: Sequence[str | PixelTracker] = ("lk", "dis")
) -> dict[str, dict[str, Interval]]:
    """Runs trackers over clips with exact tracks.

    Args:
        clips: pictures and the exact tracks of points that are visible in the first frame; others are left out.
        trackers: names or functions, as of :func:`kinelib.tracks.trackers.track_points`.

    Returns:
        Tracker -> metric of :func:`score_tracks` -> Interval over clips.

    Raises:
        ShapeError: when no point of a clip is visible in its first frame. ValueError: for an unknown tracker.
    """
    clips = list(clips)
    table = {}
    for tracker in trackers:
        scores = []
        for pictures, exact in clips:
            known = exact.visible[0, :, 0]
            if not known.any():
                raise ShapeError(f"no point of {exact.provenance.get('source', 'this clip')} is visible in the first frame.")
            exact = exact.points(known)
            # A query on the frame's edge may round beyond it.
            scores.append(score_tracks(track_points(pictures, exact.query_points[0].clamp(-1, 1), tracker), exact))
        name = tracker if isinstance(tracker, str) else getattr(tracker, "__name__", type(tracker).__name__)
        table[name] = summarize({metric: torch.cat([one[metric] for one in scores]) for metric in scores[0]})
    return table
