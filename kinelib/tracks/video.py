"""Reading and writing short videos: mp4, avi, webm, mov, gif, or a folder of numbered frames.

Decoding is OpenCV's, encoding (H.264 in mp4, playable in every browser) is the ffmpeg binary that imageio-ffmpeg ships.
Shapes: frames (T, H, W, 3) uint8 RGB. The paper (ZipMo, section on data) starts from 64-frame windows of such videos.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

VIDEO_SUFFIXES = (".mp4", ".avi", ".gif", ".webm", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg")
FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class VideoError(ValueError):
    """A file or folder cannot be used as a video; the message says why and what to do."""


@dataclass(frozen=True)
class Video:
    """The frames of a video.

    Args:
        frames: (T, H, W, 3) uint8 RGB, T >= 1.
        fps: frames a second of these frames (a stride divides it); None where nobody knows, as for a folder of frames.
        path: where it was read from, "" for frames made in memory.

    Raises:
        VideoError: when the array is not uint8 RGB frames, or there is none.
    """

    frames: np.ndarray
    fps: float | None = None
    path: str = ""

    def __post_init__(self) -> None:
        shape, kind = np.shape(self.frames), getattr(self.frames, "dtype", type(self.frames))
        if len(shape) != 4 or shape[-1] != 3 or kind != np.uint8:
            raise VideoError(f"frames must be uint8 RGB of shape (T, H, W, 3); got {kind} of shape {shape}.")
        if 0 in shape:
            raise VideoError(f"a video needs at least one frame and one pixel; got shape {shape}.")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.shape[2], self.frames.shape[1]

    def window(self, start: int, length: int, stride: int = 1) -> Video:
        """Keeps `length` frames from `start`, every `stride`-th; raises VideoError when the video is too short."""
        stop = start + (length - 1) * stride + 1
        if start < 0 or length < 1 or stride < 1 or stop > len(self):
            raise VideoError(
                f"{self.path or 'this video'} has {len(self)} frames; a window needs frames {start} to {stop - 1}."
            )
        return replace(self, frames=self.frames[start:stop:stride], fps=self.fps and self.fps / stride)

    def resized(self, size: int | tuple[int, int]) -> Video:
        """Area-resizes: a (width, height) is taken exactly, one number bounds the longer side and never enlarges."""
        width, height = _target_size(self.size, size)
        if (width, height) == self.size:
            return self
        return replace(self, frames=np.stack([_resize(frame, width, height) for frame in self.frames]))


def read_video(
    path: str | Path,
    *,
    max_frames: int | None = None,
    start: int = 0,
    stride: int = 1,
    size: int | tuple[int, int] | None = None,
) -> Video:
    """Reads a video file, or a folder whose pictures are the frames in natural order (2.png before 10.png).

    Args:
        path: a file OpenCV can decode, or a folder of png/jpg frames.
        max_frames: frames to return at most; None reads to the end.
        start: first frame to return, counted before striding.
        stride: keep every stride-th frame.
        size: (width, height), or one number that bounds the longer side; None keeps the video's own.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        VideoError: when it is empty, cut short, not a video, or has no frame after `start`.
    """
    path = Path(path)
    if start < 0 or stride < 1 or (max_frames is not None and max_frames < 1):
        raise VideoError(f"start must be >= 0, stride and max_frames >= 1; got {start}, {stride}, {max_frames}.")
    if not path.exists():
        raise FileNotFoundError(f"there is no video at {path}")
    decoded, fps = _folder_frames(path) if path.is_dir() else _file_frames(path)
    kept: list[np.ndarray] = []
    first_shape: tuple[int, ...] = ()
    for index, frame in enumerate(decoded):
        if index < start or (index - start) % stride:
            continue
        if first_shape and frame.shape != first_shape:
            raise VideoError(f"{path}: frame {index} is {frame.shape[:2]}, the first {first_shape[:2]}; make them one size.")
        first_shape = first_shape or frame.shape
        target = _target_size((frame.shape[1], frame.shape[0]), size) if size else None
        kept.append(_resize(frame, *target) if target else frame)
        if len(kept) == max_frames:
            break
    if not kept:
        raise VideoError(f"{path} has no frame at or after frame {start}; choose a smaller start.")
    return Video(np.ascontiguousarray(np.stack(kept)[..., ::-1]), fps and fps / stride, str(path))


def write_video(path: str | Path, frames: np.ndarray, fps: float, *, crf: int = 20) -> Path:
    """Writes frames as H.264 mp4 (yuv420p, plays in browsers); the file appears only once it is complete.

    Args:
        path: where to write; must end in .mp4. Its folder is made when missing.
        frames: (T, H, W, 3) uint8 RGB; an odd width or height is padded by one repeated pixel, as H.264 needs.
        fps: frames a second, > 0.
        crf: quality from 0 (lossless) to 51; 20 looks right, 30 is small.

    Raises:
        VideoError: on frames of another kind, a bad fps or crf, or when the file cannot be written.
    """
    import imageio_ffmpeg

    path = Path(path)
    frames = Video(np.asarray(frames)).frames
    if path.suffix.lower() != ".mp4":
        raise VideoError(f"{path} must end in .mp4; that is the only format written here.")
    if not (math.isfinite(fps) and fps > 0):
        raise VideoError(f"fps must be a positive number; got {fps}.")
    if not 0 <= crf <= 51:
        raise VideoError(f"crf runs from 0 (lossless) to 51 (worst); got {crf}.")
    odd_height, odd_width = frames.shape[1] % 2, frames.shape[2] % 2
    frames = np.pad(frames, ((0, 0), (0, odd_height), (0, odd_width), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.mp4")
    writer = imageio_ffmpeg.write_frames(
        str(partial),
        (frames.shape[2], frames.shape[1]),
        fps=fps,
        codec="libx264",
        quality=None,
        macro_block_size=1,
        ffmpeg_log_level="error",
        output_params=["-crf", str(crf), "-movflags", "+faststart"],
    )
    try:
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        if not partial.exists() or not partial.stat().st_size:
            raise VideoError(f"ffmpeg wrote nothing to {path}; check the disk and crf={crf}.")
        os.replace(partial, path)
    except OSError as error:
        raise VideoError(f"ffmpeg could not write {path}: {error}") from error
    finally:
        writer.close()
        partial.unlink(missing_ok=True)
    return path


def list_videos(folder: str | Path) -> list[Path]:
    """The video files directly in a folder, in natural order; a missing folder has none."""
    folder = Path(folder)
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted((file for file in files if file.suffix.lower() in VIDEO_SUFFIXES), key=_natural)


def _file_frames(path: Path) -> tuple[Iterator[np.ndarray], float | None]:
    """BGR frames of a video file and its frame rate."""
    # FFmpeg prints each damaged packet to the terminal; what matters reaches the reader as a VideoError.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    if not path.stat().st_size:
        raise VideoError(f"{path} is empty (0 bytes); copy or download it again.")
    if path.suffix.lower() in FRAME_SUFFIXES:
        raise VideoError(f"{path} is a picture, not a video; put the frames in a folder and give the folder.")
    # Only FFmpeg: OpenCV's other readers take picture.png for the first of a numbered series and text for a device.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise VideoError(f"{path} is not a video OpenCV can read: it is another kind of file, or it was cut short.")
    fps = capture.get(cv2.CAP_PROP_FPS)
    promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)

    def decode() -> Iterator[np.ndarray]:
        count = 0
        try:
            while True:
                arrived, frame = capture.read()
                if not arrived:
                    break
                count += 1
                yield frame
        finally:
            capture.release()
        if not count:
            raise VideoError(f"{path} is not a video OpenCV can read: it holds no frame that decodes.")
        # Containers may promise a frame or two that the stream does not have; a tenth less is a cut file.
        if math.isfinite(promised) and count < 0.9 * promised - 2:
            raise VideoError(
                f"{path} is cut short: its header promises {promised:.0f} frames and only {count} can be read. "
                f"Copy it again, or read what is there with max_frames={count}."
            )

    return decode(), fps if math.isfinite(fps) and fps > 0 else None


def _folder_frames(path: Path) -> tuple[Iterator[np.ndarray], None]:
    """BGR frames of a folder of pictures."""
    import cv2

    files = sorted((file for file in path.iterdir() if file.suffix.lower() in FRAME_SUFFIXES), key=_natural)
    if not files:
        raise VideoError(f"{path} holds no frames; a folder video needs {', '.join(FRAME_SUFFIXES)} files.")

    def decode() -> Iterator[np.ndarray]:
        for file in files:
            frame = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR) if file.stat().st_size else None
            if frame is None:
                raise VideoError(f"{file} is not a picture OpenCV can read; delete it or save it again.")
            yield frame

    return decode(), None


def _natural(path: Path) -> list:
    """Sort key under which 2.png comes before 10.png."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", path.name) if part]


def _target_size(size: tuple[int, int], wanted: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) after resizing."""
    if isinstance(wanted, int):
        scale = min(1.0, wanted / max(size))
        wanted = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    if min(wanted) < 1:
        raise VideoError(f"size must be positive; got {wanted}.")
    return int(wanted[0]), int(wanted[1])


def _resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area averaging when shrinking (no aliasing), bilinear when enlarging."""
    import cv2

    shrinking = width * height < frame.shape[0] * frame.shape[1]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
