"""Tracks in time: other lengths, and positions between frames.

A clip's first frame is at time 0 and its last at time 1, however many frames it has (`notation.frame_times`).
The paper's release resamples with frames as cells, so that the ends move inwards; here that is `exact_ends=False`.
Shapes: tracks (..., T, C), C = 2 for positions; times (...).
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from kinelib.notation import ShapeError


def resample_time(tracks: Tensor, num_frames: int, *, exact_ends: bool = True) -> Tensor:
    """Resamples tracks (..., T, C) linearly in time to (..., num_frames, C).

    A single frame says nothing about motion: resampled to more frames it holds still, and one frame of many is the first.

    Args:
        tracks: positions over T frames.
        num_frames: the wanted length, at least 1.
        exact_ends: the first and last frame are kept; otherwise frames are cells and the ends move half a new cell
            inwards (64 -> 16 reads frames 1.5, 5.5, ..., 61.5), as in the release.

    Raises:
        ShapeError: when there is no frame, or none is wanted.
    """
    *batch, frames, channels = tracks.shape
    if num_frames < 1:
        raise ShapeError(f"num_frames must be at least 1; got {num_frames}.")
    if frames < 1:
        raise ShapeError(f"tracks of shape {tuple(tracks.shape)} have no frame to resample.")
    if frames == num_frames:
        return tracks
    if frames == 1 or num_frames == 1:
        return tracks[..., :1, :].expand(*batch, num_frames, channels)
    flat = rearrange(tracks.reshape(-1, frames, channels), "m t c -> m c t")
    flat = interpolate(flat, size=num_frames, mode="linear", align_corners=exact_ends)
    return rearrange(flat, "m c t -> m t c").reshape(*batch, num_frames, channels)


def read_at_time(tracks: Tensor, time: Tensor) -> Tensor:
    """Positions (..., C) of tracks (..., T, C) at times (...) in [0, 1], linear between frames.

    Raises:
        ShapeError: when a time is outside [0, 1].
    """
    if not bool(((time >= 0) & (time <= 1)).all()):
        raise ShapeError("goal times must be in [0, 1], 1 being the last frame.")
    place = time.to(tracks) * (tracks.shape[-2] - 1)
    low = place.floor().long()
    high = (low + 1).clamp_max(tracks.shape[-2] - 1)
    share = (place - low)[..., None]

    def at(index: Tensor) -> Tensor:
        return tracks.gather(-2, index[..., None, None].expand(*index.shape, 1, tracks.shape[-1])).squeeze(-2)

    return (1 - share) * at(low) + share * at(high)
