"""Saving what a canvas shows: films (MP4, GIF), a picture (PNG), and the tracks themselves (NPZ, Parquet).

Shapes: picture uint8 (H, W, 3), futures (K, N, T, 2) xy in [-1, 1], pokes (P, 5).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from kinelib.learning.files import written_whole
from kinelib.show.animation import render_tracks
from kinelib.show.pictures import encode_png
from kinelib.show.snapshot import draw_pokes_on, draw_snapshot, ground, moving_points
from kinelib.tracks.video import write_video

FORMATS = {
    "mp4": "video/mp4",
    "gif": "image/gif",
    "png": "image/png",
    "npz": "application/octet-stream",
    "parquet": "application/octet-stream",
}
SIZE = 448  # pixels of a film's longer side
REST = 10  # frames for which a film rests at its end


@dataclass(frozen=True)
class Shown:
    """What a canvas shows.

    Args:
        picture: uint8 (H, W, 3).
        futures: (K, N, T, 2).
        pokes: (P, 5).
        settings: what made the futures (seed, guidance, ...); travels with NPZ and Parquet.
        focus: the only sample that films and pictures draw; -1 is all.
    """

    picture: np.ndarray
    futures: torch.Tensor
    pokes: torch.Tensor
    settings: dict = field(default_factory=dict)
    focus: int = -1


def save(shown: Shown, path: str | Path) -> Path:
    """Writes what is shown in the format of the path's suffix; an existing file is replaced once the new one is whole.

    Args:
        shown: picture, futures and pokes.
        path: ends in .mp4, .gif, .png, .npz or .parquet.

    Raises:
        ValueError: for another suffix.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ValueError(f"{path.name}: choose a name that ends in one of {', '.join('.' + name for name in FORMATS)}.")
    with written_whole(path) as partial:
        {"mp4": _mp4, "gif": _gif, "png": _png, "npz": _npz, "parquet": _parquet}[kind](shown, partial)
    return path


def as_bytes(shown: Shown, kind: str) -> bytes:
    """The bytes of the file that :func:`save` would write; `kind` is one of FORMATS."""
    with tempfile.TemporaryDirectory() as folder:
        return save(shown, Path(folder, f"futures.{kind}")).read_bytes()


def film(shown: Shown, size: int = SIZE) -> np.ndarray:
    """The frames of the film: points over the veiled picture, their tails, and the pokes; uint8 (T + rest, H, W, 3)."""
    samples = shown.futures if shown.focus < 0 else shown.futures[shown.focus : shown.focus + 1]
    height, width = shown.picture.shape[:2]
    base = ground(shown.picture, round(size * width / max(height, width)))
    # Points that stand still would be the loudest thing in the picture; each sample keeps as many as its liveliest.
    kept = [moving_points(sample) for sample in samples]
    most = max((len(points) for points in kept), default=0)
    if not most:
        frames = np.repeat(base[None], samples.shape[2], axis=0)
    elif shown.focus >= 0:
        frames = render_tracks(base, kept[0], size=size, tail=24)
    else:
        moved = torch.stack([_padded(points, most, sample) for points, sample in zip(kept, samples, strict=True)])
        frames = render_tracks(base, moved, size=size, tail=24)
    frames = np.ascontiguousarray(frames)
    for frame in frames:
        draw_pokes_on(frame, shown.pokes)
    return np.concatenate([frames, np.repeat(frames[-1:], REST, axis=0)])


def _padded(points: torch.Tensor, most: int, sample: torch.Tensor) -> torch.Tensor:
    """(most, T, 2): the points, the last one repeated; a sample in which nothing moves shows its first point."""
    points = points if len(points) else sample[:1]
    return torch.cat([points, points[-1:].expand(most - len(points), -1, -1)])


def _mp4(shown: Shown, path: Path) -> None:
    write_video(path, film(shown), fps=25)


def _gif(shown: Shown, path: Path) -> None:
    """A GIF with a palette of its own, made by the ffmpeg that comes with imageio-ffmpeg."""
    import imageio_ffmpeg

    frames = film(shown, size=384)[::2]
    height, width = frames.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", "12.5", "-i", "-", "-filter_complex"]
    command += ["split[a][b];[a]palettegen=max_colors=128[p];[b][p]paletteuse=dither=none", "-loop", "0", str(path)]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True)
    if done.returncode:
        raise OSError(f"ffmpeg could not write the GIF: {done.stderr.decode(errors='replace').strip()}")


def _png(shown: Shown, path: Path) -> None:
    path.write_bytes(encode_png(draw_snapshot(shown.picture, shown.futures, shown.pokes, focus=shown.focus, width=640)))


def _npz(shown: Shown, path: Path) -> None:
    facts = {"tracks": shown.futures.numpy(), "query_points": shown.futures[0, :, 0].numpy(), "pokes": shown.pokes.numpy()}
    with path.open("wb") as file:
        np.savez_compressed(file, **facts, picture=shown.picture, settings=np.array(json.dumps(shown.settings)))


def _parquet(shown: Shown, path: Path) -> None:
    """One row a sample, point and frame: what a table program or a data frame reads without knowing about us."""
    import pyarrow
    import pyarrow.parquet

    samples, points, frames, _ = shown.futures.shape
    sample, point, frame = (axis.ravel() for axis in np.indices((samples, points, frames), dtype=np.int32))
    columns = {"sample": sample, "point": point, "frame": frame, "time": (frame / max(frames - 1, 1)).astype(np.float32)}
    columns |= {name: shown.futures[..., axis].numpy().ravel() for axis, name in enumerate("xy")}
    facts = {"kinelib": json.dumps({"pokes": shown.pokes.tolist(), **shown.settings, "xy": "in [-1, 1], y down"})}
    pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(facts), path)
