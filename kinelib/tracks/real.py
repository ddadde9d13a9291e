"""Training clips from real video: overlapping windows of it, tracked twice, cropped, mirrored and reversed.

The paper (ZipMo, data section) takes 64-frame windows of web video, tracks them with a learnt tracker and drops
uncertain tracks. Here the built-in tracker does it and two checks replace the certainty: a point must survive the round
trip between every two frames, and a second pass from the last frame back must end where the first pass began.

Departs from the paper: overlapping windows, strides, crops, mirroring and time reversal stretch a handful of videos.
Shapes: tracks (1, N, T, 2) in [-1, 1]; first frame (size, size, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinelib.notation import from_pixels
from kinelib.tracks.shards import Clip
from kinelib.tracks.trackers import corner_points, grid_points, track_points
from kinelib.tracks.tracks import Tracks
from kinelib.tracks.video import Video, VideoError, list_videos, read_video


@dataclass(frozen=True)
class Windows:
    """How a video is cut into training clips."""

    frames: int = 64  # T of a clip
    strides: tuple[int, ...] = (1, 2)  # every frame, every second frame
    hop: int = 8  # frames between the starts of two windows
    crops: int = 2  # random crops of each window besides the whole frame
    smallest_crop: float = 0.5  # side of a crop as a share of the frame's
    reverse: bool = True  # also backwards in time
    mirror: bool = True  # a coin decides for each clip


def real_clips(folders: Iterable[str | Path], **options) -> Iterator[Clip]:
    """Training clips from every video of some folders, missing ones being empty; options as of :func:`video_clips`."""
    for path in [path for folder in folders for path in list_videos(folder)]:
        yield from video_clips(path, **options)


def video_clips(
    path: str | Path,
    *,
    num_points: int = 256,
    least_points: int = 96,
    frames: int = 64,
    windows: Windows | None = None,
    grid: int = 24,
    working_side: int = 384,
    frame_size: int = 256,
    closing: float = 2.0,
    held_out: Iterable[str] = (),
    seed: int = 0,
) -> Iterator[Clip]:
    """Makes training clips from one video; its name decides the random draws, so other videos do not change its clips.

    Args:
        path: a video file.
        num_points: tracks kept in a clip, at most; moving ones are preferred for half of them.
        least_points: windows and crops with fewer surviving tracks are dropped.
        frames: T, when `windows` is not given.
        windows: how videos are cut.
        working_side: longer side of the video while tracking, in pixels.
        grid: query points are a grid x grid lattice plus as many corners.
        frame_size: the first frame is stored square at this size.
        closing: pixels a track may miss its start by, after coming back from the last frame.
        held_out: names of videos (without suffix) whose clips are marked split "test"; all others are "train".
        seed: of crops, mirroring and the choice of tracks.

    Yields:
        Clips whose points are visible throughout; provenance names the source video, window, crop and tracker.

    Raises:
        VideoError: when the file cannot be read.
    """
    windows, path = windows or Windows(frames=frames), Path(path)
    split = "test" if path.stem in held_out else "train"
    video = read_video(path, size=working_side)
    rng = np.random.default_rng([seed, *path.stem.encode()])
    for stride in windows.strides:
        span = (windows.frames - 1) * stride + 1
        for start in range(0, len(video) - span + 1, windows.hop):
            window = video.window(start, windows.frames, stride)
            tracks = closed_tracks(window, grid, closing)
            if tracks is None or tracks.num_points < least_points:
                continue
            for clip in _augmented(window, tracks, windows, rng, num_points, least_points, frame_size):
                clip.tracks.provenance.update(start=start, stride=stride, split=split)
                yield clip


def closed_tracks(video: Video, grid: int, closing: float) -> Tracks | None:
    """Tracks that are visible in every frame and come back to their start when tracked backwards; None when none do."""
    queries = grid_points(grid, grid)
    with suppress(VideoError):  # a frame without corners still has its lattice
        queries = torch.cat([queries, corner_points(video, grid * grid)])
    there = track_points(video, queries)
    stayed = there.visible[0].all(-1) & (there.xy[0, :, -1].abs() <= 1).all(-1)
    if not stayed.any():
        return None
    there = there.points(stayed)
    back = track_points(Video(video.frames[::-1].copy(), video.fps, video.path), there.xy[0, :, -1])
    unit = 2 / max(video.size)
    closes = back.visible[0, :, -1] & ((back.xy[0, :, -1] - there.query_points[0]).norm(dim=-1) <= closing * unit)
    return there.points(closes) if closes.any() else None


def _augmented(
    video: Video, tracks: Tracks, windows: Windows, rng: np.random.Generator, num_points: int, least_points: int, size: int
) -> Iterator[Clip]:
    """The whole frame and random crops of a window, forwards and backwards, some of them mirrored."""
    directions = (False, True) if windows.reverse else (False,)
    for number, backwards in ((n, d) for d in directions for n in range(windows.crops + 1)):
        frame = video.frames[-1 if backwards else 0]
        left, top, right, bottom = _crop(video.size, rng, windows.smallest_crop) if number else (0, 0, *video.size)
        pixels = tracks.pixels(*video.size).flip(2) if backwards else tracks.pixels(*video.size)
        cropped = from_pixels(pixels[0] - pixels.new_tensor([left, top]), right - left, bottom - top)
        inside = (cropped[:, 0].abs() < 1).all(-1)
        if int(inside.sum()) < least_points:
            continue
        cropped = cropped[inside]
        xy = cropped[_choose(cropped, num_points, rng)]
        picture = Video(frame[None, top:bottom, left:right]).resized((size, size)).frames[0]
        mirrored = windows.mirror and bool(rng.integers(2))
        if mirrored:
            xy, picture = xy * torch.tensor([-1.0, 1.0]), np.ascontiguousarray(picture[:, ::-1])
        facts = dict(tracks.provenance, backwards=backwards, mirrored=mirrored, crop=[left, top, right, bottom])
        kept = Tracks(xy[None], fps=video.fps, size=(right - left, bottom - top), provenance=facts)
        yield Clip(f"{Path(video.path).stem}-{rng.integers(2**40):010x}", kept, picture)


def _crop(size: tuple[int, int], rng: np.random.Generator, smallest: float) -> tuple[int, int, int, int]:
    """A random (left, top, right, bottom) of the frame's shape, in whole pixels so that picture and tracks agree."""
    width, height = (
        max(2, round(side * share)) for side, share in zip(size, [rng.uniform(smallest, 0.95)] * 2, strict=True)
    )
    left, top = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
    return left, top, left + width, top + height


def _choose(xy: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Indices of at most `count` tracks in random order, so that the first n of a clip are a fair sample of it.

    When there are more, half are drawn in favour of movers and half evenly from the rest.
    """
    total = len(xy)
    if total <= count:
        return torch.from_numpy(rng.permutation(total))
    travel = (xy - xy[:, :1]).norm(dim=-1).amax(-1).numpy().astype(float)
    weights = np.clip(travel, 0.005, 0.1)
    movers = rng.choice(total, count // 2, replace=False, p=weights / weights.sum())
    others = rng.choice(np.setdiff1d(np.arange(total), movers), count - len(movers), replace=False)
    return torch.from_numpy(rng.permutation(np.concatenate([movers, others])))
