"""Pictures to poke: arrays, films, files, functions that draw another one each time, and what a reader uploads.

A picture is uint8 (H, W, 3) RGB, a film is uint8 (T, H, W, 3) of which one frame is poked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kinelib.tracks.video import FRAME_SUFFIXES, VIDEO_SUFFIXES, Video, VideoError, read_video

Picture = np.ndarray  # uint8 (H, W, 3)
Source = np.ndarray | Video | str | Path | Callable[[int], np.ndarray]
LONGEST_FILM = 240  # frames of a video that are offered
SHOWN_SIDE = 640  # pixels; what is shown is not larger, whatever was uploaded


class PictureError(ValueError):
    """Something cannot be used as a picture; the message says why and what to do."""


def check_picture(picture: np.ndarray) -> Picture:
    """A picture or film as it is, for use; raises PictureError where it is neither."""
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape:
        raise PictureError(
            f"a picture is uint8 (H, W, 3) RGB, a film (T, H, W, 3); got {array.dtype} of shape {array.shape}. "
            "A float picture in [0, 1]? Use (picture * 255).astype('uint8')."
        )
    height, width = array.shape[-3:-1]
    if min(height, width) < 8 or max(height, width) > 8 * min(height, width):
        raise PictureError(f"this picture is {width} x {height} pixels; give one of at least 8 pixels and no ribbon.")
    return array


def open_source(source: Source, draw: int = 0) -> np.ndarray:
    """The picture or film behind one entry of a canvas's list.

    Args:
        source: an array, a `Video`, a path of a picture or video, or a function from a number to one of the arrays.
        draw: which one, for a function that has many.

    Raises:
        PictureError: when it is not a picture or film.
        FileNotFoundError: when a path leads nowhere.
    """
    if callable(source):
        return check_picture(source(draw))
    if isinstance(source, Video):
        return source.frames
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"there is no picture or video at {path}")
        return read_upload(path.name, path.read_bytes())
    return check_picture(source)


def read_upload(name: str, data: bytes) -> np.ndarray:
    """Decodes what a reader gave: a picture, or the frames of a short video.

    Args:
        name: of the file, for its suffix and for messages.
        data: its bytes.

    Raises:
        PictureError: when it is neither, is empty, or is damaged; the message names the file and what would do.
    """
    import cv2

    accepted = "Give a PNG, JPEG, WebP, BMP or TIFF picture, or a short MP4, WebM, MOV, AVI or GIF video."
    if not data:
        raise PictureError(f"{name} is empty. {accepted}")
    suffix = Path(name).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"upload{suffix}")
            path.write_bytes(data)
            try:
                return read_video(path, max_frames=LONGEST_FILM, size=SHOWN_SIDE).frames
            except VideoError as error:
                raise PictureError(f"{name} is not a video that can be read. {accepted}") from error
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None:
        damaged = "is damaged, or not the picture its name says" if suffix in FRAME_SUFFIXES else "is not a picture"
        raise PictureError(f"{name} {damaged}. {accepted}")
    return check_picture(np.ascontiguousarray(picture[..., ::-1]))


def shown(picture: Picture, side: int = SHOWN_SIDE) -> Picture:
    """The picture, shrunk where its longer side is above `side` pixels."""
    return Video(picture[None]).resized(side).frames[0]


def encode_jpeg(picture: Picture, quality: int = 92) -> bytes:
    """The bytes of a JPEG, which every browser reads."""
    import cv2

    return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def encode_png(picture: Picture) -> bytes:
    """The bytes of a PNG."""
    import cv2

    return cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
