"""Point tracking in real video: Lucas-Kanade and dense optical flow built in, CoTracker3 if the user has it.

The paper trains on pseudo-labels of a large learnt tracker (TAPNext; CoTracker3 for robots). The built-in trackers need
nothing but OpenCV and follow background and textured objects well, but cannot recover a point once it was hidden.

Shapes: query_points (N, 2) xy in [-1, 1] at frame 0; result Tracks with B = 1. Inside this file and for a callable tracker,
pixels count as OpenCV and CoTracker count them: the *centre* of the first pixel is (0, 0), so its corner is (-0.5, -0.5).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape, from_pixels, to_pixels
from kinelib.tracks.cotracker import cotracker
from kinelib.tracks.tracks import Tracks
from kinelib.tracks.video import Video, VideoError

# Given frames (T, H, W, 3) uint8 and points (N, 2) float32 pixels: positions (N, T, 2) in pixels and visible (N, T) bool.
PixelTracker = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
# Moves points from one grey frame to another: (from, to, points (N, 2)) -> (moved (N, 2), found (N,) bool).
Step = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def track_points(
    video: Video | np.ndarray,
    query_points: Tensor | np.ndarray,
    tracker: str | PixelTracker = "lk",
    *,
    max_side: int = 512,
) -> Tracks:
    """Follows points from the first frame of a video through all its frames.

    Args:
        video: a Video or its (T, H, W, 3) uint8 RGB frames, T >= 2.
        query_points: (N, 2) xy in [-1, 1] at frame 0.
        tracker: "lk" (pyramidal Lucas-Kanade), "dis" (dense inverse search flow; keeps more points, bleeds at outlines),
            "cotracker", "cotracker-online", or a PixelTracker function.
        max_side: the video is shrunk so that its longer side is at most this many pixels before tracking.

    Returns:
        Tracks with B = 1, `size` being the video's own; a lost point keeps its last position and is invisible from then on.

    Raises:
        VideoError: when the video has a single frame.
        ShapeError: for points of another shape, not finite or outside the frame.
        ValueError: for an unknown tracker name.
    """
    video = video if isinstance(video, Video) else Video(video)
    if len(video) < 2:
        raise VideoError(
            f"{video.path or 'this video'} has one frame; tracking needs at least two. A still picture has no motion."
        )
    points = torch.as_tensor(query_points, dtype=torch.float32)
    if not check_shape("query_points", points, "N 2")["N"]:
        raise ShapeError("query_points is empty; give at least one point, for example grid_points(20, 20).")
    check_finite("query_points", points)
    if (outside := int((points.abs() > 1).any(-1).sum())) > 0:
        raise ShapeError(
            f"{outside} query points lie outside the frame; x and y must be in [-1, 1] (pixels? use from_pixels)."
        )
    built_in = {
        "lk": partial(follow, step=lucas_kanade_step),
        "dis": partial(follow, step=dense_flow_step),
        "cotracker": partial(cotracker, mode="offline"),
        "cotracker-online": partial(cotracker, mode="online"),
    }
    if not callable(tracker) and tracker not in built_in:
        raise ValueError(f"there is no tracker {tracker!r}; choose one of {', '.join(built_in)}, or give a function.")
    small = video.resized(max_side)
    start = to_pixels(points, *small.size).numpy() - 0.5
    pixels, visible = (tracker if callable(tracker) else built_in[tracker])(small.frames, start)
    xy = from_pixels(torch.as_tensor(pixels, dtype=torch.float32) + 0.5, *small.size)
    xy, visible = rearrange(xy, "n t c -> 1 n t c"), rearrange(torch.as_tensor(visible), "n t -> 1 n t")
    name = tracker if isinstance(tracker, str) else getattr(tracker, "__name__", type(tracker).__name__)
    return Tracks(xy, visible, fps=video.fps, size=video.size, provenance={"source": Path(video.path).name, "tracker": name})


def follow(frames: np.ndarray, points: np.ndarray, *, step: Step, round_trip: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Moves points from frame to frame and gives up a point whose way there and back does not close.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        points: (N, 2) float32 pixels at frame 0.
        step: how points get from one frame to the next.
        round_trip: pixels a point may be off after going one frame forward and back; a point that is off, or leaves
            the frame, is lost for good, because neither tracker can know when it is seen again.

    Returns:
        positions (N, T, 2) float32 in pixels, visible (N, T) bool.
    """
    import cv2

    height, width = frames.shape[1:3]
    positions = np.repeat(points[:, None].astype(np.float32), len(frames), axis=1)
    visible = np.zeros(positions.shape[:2], bool)
    visible[:, 0] = True
    alive = np.arange(len(points))
    grey = cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
    for time in range(1, len(frames)):
        following = cv2.cvtColor(frames[time], cv2.COLOR_RGB2GRAY)
        if len(alive):
            before = positions[alive, time - 1]
            after, found = step(grey, following, before)
            back, found_back = step(following, grey, after)
            inside = (after > -0.5).all(-1) & (after < (width - 0.5, height - 0.5)).all(-1)
            kept = found & found_back & inside & (np.linalg.norm(back - before, axis=-1) <= round_trip)
            alive = alive[kept]
            # Written to the end of time, so that a point lost later keeps its last position.
            positions[alive, time:] = after[kept][:, None]
            visible[alive, time] = True
        grey = following
    return positions, visible


def lucas_kanade_step(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pyramidal Lucas-Kanade for a set of points between two grey frames."""
    import cv2

    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        np.ascontiguousarray(points[:, None], np.float32),
        None,
        winSize=(15, 15),
        maxLevel=3,
        # Above OpenCV's 1e-4: on blank walls and table tops points would be dragged along by whatever passes.
        minEigThreshold=3e-4,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02),
    )
    return moved[:, 0], found[:, 0].astype(bool)


def dense_flow_step(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense inverse search flow between two grey frames, read bilinearly at the points."""
    import cv2

    height, width = first.shape
    if min(height, width) < 32:
        raise VideoError(f"dense flow needs frames of at least 32 x 32 pixels; got {width} x {height}. Use tracker='lk'.")
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)
    inside = np.clip(points, 0, (width - 1, height - 1)).astype(np.float32)
    sampled = cv2.remap(flow, inside[:, None, 0], inside[:, None, 1], cv2.INTER_LINEAR)
    return points + sampled[:, 0], np.isfinite(sampled[:, 0]).all(-1)


def grid_points(rows: int, columns: int) -> Tensor:
    """The (rows * columns, 2) xy centres of a regular grid over the frame."""
    if rows < 1 or columns < 1:
        raise ShapeError(f"a grid needs at least one row and column; got {rows} x {columns}.")
    return cell_centres(rows, columns)


def random_points(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) xy uniform over the frame."""
    if count < 1:
        raise ShapeError(f"count must be at least 1; got {count}.")
    return torch.rand(count, 2, generator=generator) * 2 - 1


def corner_points(video: Video | np.ndarray, count: int, *, max_side: int = 512) -> Tensor:
    """The strongest corners of the first frame, which trackers follow best: at most `count`, as (N, 2) xy.

    Raises:
        VideoError: when the frame has no corner at all (a blank wall, a black frame).
    """
    import cv2

    video = video if isinstance(video, Video) else Video(video)
    first = Video(video.frames[:1]).resized(max_side)
    grey = cv2.cvtColor(first.frames[0], cv2.COLOR_RGB2GRAY)
    # The distance spreads the corners: a grid of `count` cells would have sides of sqrt(area / count).
    distance = max(3.0, 0.5 * (grey.size / max(count, 1)) ** 0.5)
    corners = cv2.goodFeaturesToTrack(grey, maxCorners=count, qualityLevel=0.01, minDistance=distance)
    if corners is None or not len(corners):
        raise VideoError(
            f"the first frame of {video.path or 'this video'} has no corners to track; use grid_points instead."
        )
    return from_pixels(torch.from_numpy(corners[:, 0]) + 0.5, *first.size).clamp(-1, 1)
