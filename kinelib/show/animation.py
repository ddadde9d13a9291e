"""MP4 animations of tracks: points that move over a still first frame or over the film itself.

Drawn with OpenCV, for matplotlib is too slow for film: 64 pictures of 96 points take 0.3 s of one core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import to_rgb

from kinelib.notation import ShapeError, check_finite, check_shape, to_pixels
from kinelib.show.theme import SAMPLE_COLOURS, as_image
from kinelib.show.tracks import one_clip, point_colours
from kinelib.tracks.tracks import Tracks
from kinelib.tracks.video import write_video


def animate_tracks(
    frames: np.ndarray | torch.Tensor,
    tracks: Tracks | torch.Tensor,
    path: str | Path,
    *,
    visible: torch.Tensor | None = None,
    fps: float = 16,
    tail: int = 12,
    size: int = 384,
) -> Path:
    """Writes an MP4 of tracks, or of several futures at once, moving over a frame.

    Args:
        frames: one frame that stays still, uint8 (H, W, 3) or float (3, H, W); or a film, uint8 (T, H, W, 3).
        tracks: one clip as `Tracks` or (N, T, 2), coloured by start position; or K samples (K, N, T, 2), a colour each.
        path: where to write; must end in .mp4.
        visible: (N, T) bool for plain (N, T, 2) tracks; hidden points are drawn as thin rings.
        fps: frames a second.
        tail: frames of path drawn behind a point.
        size: pixels of the longer side; frames are enlarged to it.

    Returns:
        The path.

    Raises:
        ShapeError: when film and tracks differ in length, or the tracks are not sound.
        VideoError: when the file cannot be written.
    """
    pictures = render_tracks(frames, tracks, visible=visible, tail=tail, size=size)
    return write_video(path, pictures, fps)


def render_tracks(
    frames: np.ndarray | torch.Tensor,
    tracks: Tracks | torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    tail: int = 12,
    size: int = 384,
) -> np.ndarray:
    """The pictures of :func:`animate_tracks`: uint8 (T, height, width, 3)."""
    import cv2

    xy, seen, colours = _points(tracks, visible)
    length = xy.shape[1]
    film = np.ndim(frames) == 4
    if film and len(frames) != length:
        raise ShapeError(f"the film has {len(frames)} frames and its tracks have {length}.")
    if size < 16 or tail < 0:
        raise ShapeError(f"size must be at least 16 pixels and tail at least 0; got size={size}, tail={tail}.")
    images = [as_image(frame) for frame in frames] if film else [as_image(frames)]
    height, width = images[0].shape[:2]
    scale = size / max(height, width)
    # Even sides, as video encoders need.
    wide, high = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    images = [cv2.resize(image, (wide, high), interpolation=cv2.INTER_NEAREST) for image in images]

    # OpenCV takes fixed-point integers: four fractional bits keep slow points from jumping pixel by pixel. Far-away
    # points are clipped so that they cannot overflow.
    bits = 4
    pixels = (to_pixels(xy, wide, high) - 0.5).clamp(-4 * size, 4 * size)
    fixed = np.round(pixels.numpy() * 2**bits).astype(np.int32)
    radius = round(max(2.0, size / 130) * 2**bits)
    groups = {colour: [point for point, other in enumerate(colours) if other == colour] for colour in set(colours)}
    pictures = np.empty((length, high, wide, 3), np.uint8)
    for moment in range(length):
        picture = images[moment if film else 0].copy()
        start = max(0, moment - tail)
        together = seen[:, start:moment] & seen[:, start + 1 : moment + 1]
        segments = np.stack([fixed[:, start:moment], fixed[:, start + 1 : moment + 1]], axis=2)
        for colour, members in groups.items():  # one call a colour: most of the time would go into calls
            lines = segments[members][together[members]]
            if len(lines):
                cv2.polylines(picture, list(lines), False, colour, 1, cv2.LINE_AA, bits)
        for point, colour in enumerate(colours):
            centre = fixed[point, moment].tolist()
            if seen[point, moment]:
                cv2.circle(picture, centre, radius + 2**bits, (255, 255, 255), -1, cv2.LINE_AA, bits)
                cv2.circle(picture, centre, radius, colour, -1, cv2.LINE_AA, bits)
            else:
                cv2.circle(picture, centre, radius, colour, 1, cv2.LINE_AA, bits)
        pictures[moment] = picture
    return pictures


def _points(
    tracks: Tracks | torch.Tensor, visible: torch.Tensor | None
) -> tuple[torch.Tensor, np.ndarray, list[tuple[int, int, int]]]:
    """All points as (M, T, 2), their visibility (M, T) and 8-bit RGB colours."""
    if isinstance(tracks, torch.Tensor) and tracks.ndim == 4:
        sizes = check_shape("samples", tracks, "K N T 2")
        check_finite("samples", tracks)
        if visible is not None:
            raise ShapeError("visible belongs to one clip (N, T, 2); samples are drawn as visible throughout.")
        palette = [to_rgb(SAMPLE_COLOURS[index % len(SAMPLE_COLOURS)]) for index in range(sizes["K"])]
        rgb = np.repeat(np.array(palette), sizes["N"], axis=0)
        xy = tracks.detach().cpu().float().flatten(0, 1)
        seen = np.ones(xy.shape[:2], bool)
    else:
        xy, shown = one_clip(tracks, visible)
        rgb, seen = point_colours(xy[:, 0])[:, :3], shown.numpy()
    return xy, seen, [tuple(int(round(255 * part)) for part in colour) for colour in rgb]
