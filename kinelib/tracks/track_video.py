"""Track one video and keep the result: what `python -m kinelib track VIDEO --out tracks.parquet` does.

The file is a shard of one clip (see shards.py): float16 tracks, packed visibility, the first frame without loss.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kinelib.notation import ShapeError
from kinelib.tracks.shards import Clip, write_clip
from kinelib.tracks.trackers import corner_points, grid_points, random_points, track_points
from kinelib.tracks.tracks import Tracks
from kinelib.tracks.video import Video, VideoError, read_video


def track_video(
    video_path: str | Path,
    out_path: str | Path,
    *,
    tracker: str = "lk",
    points: int = 256,
    grid: int | None = None,
    start: int = 0,
    frames: int | None = 64,
    stride: int = 1,
    seed: int = 0,
    caption: str = "",
    overwrite: bool = False,
) -> Tracks:
    """Tracks one video and writes a one-clip Parquet file (see shards.py).

    Args:
        video_path: a video file or a folder of frames.
        out_path: the Parquet file to write.
        tracker: see track_points.
        points: query points in the first frame: half of them on corners, the rest at random.
        grid: follow the lattice of grid x grid points instead.
        start, frames, stride: which frames; a video with fewer gives a shorter clip, frames=None takes all.
        seed: of the random points.
        caption: what the video shows, in words.
        overwrite: replace an existing file (only once the new one is complete).

    Returns:
        The tracks, B = 1.

    Raises:
        FileExistsError: when the output exists and `overwrite` is false; checked before any work.
        VideoError, ShapeError, ValueError: as read_video and track_points.
    """
    out_path = Path(out_path)
    if out_path.exists() and not overwrite:
        raise FileExistsError(f"{out_path} exists; choose another name or ask to overwrite it.")
    if points < 1 or (frames is not None and frames < 2):
        raise ShapeError(f"tracking needs at least one point and two frames; got points={points}, frames={frames}.")
    video = read_video(video_path, start=start, stride=stride, max_frames=frames)
    queries = grid_points(grid, grid) if grid is not None else query_points(video, points, seed)
    tracks = track_points(video, queries, tracker)
    tracks.provenance.update(start=start, stride=stride, seed=seed)
    clip = Clip(f"{Path(video_path).stem}-{start:05d}", tracks, video.frames[0], caption)
    write_clip(clip, out_path, overwrite=overwrite)
    return tracks


def query_points(video: Video, count: int, seed: int = 0) -> Tensor:
    """(count, 2) xy for tracking: corners for up to half of them (they survive), the rest uniform (they are fair)."""
    try:
        corners = corner_points(video, count // 2) if count > 1 else torch.empty(0, 2)
    except VideoError:
        corners = torch.empty(0, 2)
    return torch.cat([corners, random_points(count - len(corners), torch.Generator().manual_seed(seed))])
