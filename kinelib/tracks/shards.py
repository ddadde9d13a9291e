"""Clips of point tracks on disk: Parquet shards with binary float16 tracks, packed visibility and one picture a clip.

The official release trains from tar files of videos and track arrays; rows of binary columns read two orders of
magnitude faster than nested lists, both at random and as a stream, and any Parquet tool can open them.

Precision: tracks are float16. On [-1, 1] its largest step is 2^-11, which is 1/4096 of the frame (0.06 pixels of 256);
between one and two half-frames from the centre, outside the frame, the step doubles.

Row: see COLUMNS. tracks holds (N, T, 2) little-endian float16 xy; visible holds N * T bits, numpy.packbits order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from kinelib.learning.files import written_whole
from kinelib.notation import ShapeError
from kinelib.tracks.shard_card import write_shard_card
from kinelib.tracks.tracks import Tracks

COLUMNS = {
    "clip_id": "string",
    "fps": "float",
    "height": "int32",
    "width": "int32",
    "num_points": "int32",
    "num_frames": "int32",
    "tracks": "binary",
    "visible": "binary",
    "first_frame": "binary",
    "caption": "string",
    "label": "string",
    "provenance": "string",
}


class ShardError(ValueError):
    """A shard or row cannot be read or written; the message names the file and what to do."""


@dataclass(frozen=True)
class Clip:
    """One clip: its tracks, its first frame, and what is known about it.

    Args:
        clip_id: unique name.
        tracks: Tracks with B = 1; `fps`, `size` and `provenance` (json-serialisable) are stored too.
        first_frame: (H, W, 3) uint8 RGB, any size; the picture of frame 0 of the tracks.
        caption: one sentence on what happens, or "".
        label: a class such as "vehicle/turn-left", or "".

    Raises:
        ShapeError: when the tracks are a batch of several clips or the frame is no uint8 RGB picture.
    """

    clip_id: str
    tracks: Tracks
    first_frame: np.ndarray
    caption: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        if len(self.tracks) != 1:
            raise ShapeError(f"a clip holds tracks with B = 1; {self.clip_id} has B = {len(self.tracks)}. Use tracks[i].")
        frame = self.first_frame
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ShapeError(f"first_frame of {self.clip_id} must be uint8 (H, W, 3); got {frame.dtype} {frame.shape}.")


def encode_row(clip: Clip, *, lossless: bool = False) -> dict:
    """One Parquet row of a clip; the first frame becomes a JPEG, or a PNG when `lossless`.

    Raises:
        ShardError: when a coordinate is too large for float16 or the picture cannot be encoded.
    """
    import cv2

    with np.errstate(over="ignore"):
        xy = clip.tracks.xy[0].cpu().numpy().astype("<f2")
    if not np.isfinite(xy).all():
        raise ShardError(
            f"{clip.clip_id} has coordinates beyond +-65504; they should be about [-1, 1]. Pixels? Use Tracks.from_pixels."
        )
    settings = [] if lossless else [cv2.IMWRITE_JPEG_QUALITY, 92]
    done, picture = cv2.imencode(".png" if lossless else ".jpg", np.ascontiguousarray(clip.first_frame[..., ::-1]), settings)
    if not done:
        raise ShardError(f"the first frame of {clip.clip_id} could not be encoded.")
    width, height = clip.tracks.size or (0, 0)
    return {
        "clip_id": clip.clip_id,
        "fps": clip.tracks.fps,
        "height": height,
        "width": width,
        "num_points": clip.tracks.num_points,
        "num_frames": clip.tracks.num_frames,
        "tracks": xy.tobytes(),
        "visible": np.packbits(clip.tracks.visible[0].cpu().numpy()).tobytes(),
        "first_frame": picture.tobytes(),
        "caption": clip.caption,
        "label": clip.label,
        "provenance": json.dumps(clip.tracks.provenance),
    }


def decode_row(row: dict, source: str | Path = "row") -> Clip:
    """The clip of one Parquet row; the inverse of :func:`encode_row` up to float16 and JPEG.

    Raises:
        ShardError: when a column is missing or the bytes do not fit the counts; names `source`.
    """
    import cv2

    if missing := sorted(set(COLUMNS) - set(row)):
        raise ShardError(f"{source} lacks the columns {', '.join(missing)}; it is not a track shard of this version.")
    points, frames = row["num_points"], row["num_frames"]
    if len(row["tracks"]) != points * frames * 4 or len(row["visible"]) != (points * frames + 7) // 8:
        raise ShardError(
            f"{source}, clip {row['clip_id']}: {len(row['tracks'])} bytes of tracks and {len(row['visible'])} of visibility "
            f"do not hold {points} points x {frames} frames. The shard is damaged: delete it and write it again."
        )
    xy = np.frombuffer(row["tracks"], "<f2").reshape(points, frames, 2).astype(np.float32)
    bits = np.unpackbits(np.frombuffer(row["visible"], np.uint8), count=points * frames)
    picture = cv2.imdecode(np.frombuffer(row["first_frame"], np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ShardError(
            f"{source}, clip {row['clip_id']}: the first frame is not a picture. Delete the shard and write it again."
        )
    tracks = Tracks(
        torch.from_numpy(xy)[None],
        torch.from_numpy(bits.reshape(1, points, frames).astype(bool)),
        fps=row["fps"],
        size=(row["width"], row["height"]) if row["width"] else None,
        provenance=json.loads(row["provenance"]),
    )
    return Clip(row["clip_id"], tracks, np.ascontiguousarray(picture[..., ::-1]), row["caption"], row["label"])


@dataclass(frozen=True)
class ShardCard:
    """The facts of a data set that its files cannot tell, for the card.

    Args:
        name: what it is called.
        licence: of the data, in words.
        origin: where the clips come from and who made the tracks.
        description: a paragraph for the reader.
    """

    name: str  # what the data set is called
    licence: str  # licence of the data, in words
    origin: str  # where the clips come from and how the tracks were made
    description: str = ""  # a paragraph for the reader
    facts: dict = field(default_factory=dict)  # further "name: value" lines


def write_shards(
    clips: Iterable[Clip | None] | Sequence[Clip | None],
    folder: str | Path,
    *,
    card: ShardCard,
    clips_per_shard: int = 256,
    shard_index: int = 0,
    num_shards: int = 1,
    lossless: bool = False,
) -> list[Path]:
    """Writes clips as Parquet shards with a data set card, keeping shards that are already complete.

    Args:
        clips: the clips, or None for a clip that was rejected. From an object with a length and indexing, the clips of
            a complete shard are not even made again; from an iterator they are made and dropped.
        folder: where to; made when missing.
        card: facts for README.md.
        clips_per_shard: clips in a file; a resumed run must use the same number.
        shard_index, num_shards: this worker's part, as in `--shard i/n`: worker i writes groups i, i + n, i + 2 n, ... of
            `clips_per_shard`, so n workers together write exactly the files that one would.
        lossless: PNG instead of JPEG first frames.

    Returns:
        The shard files of this worker, complete.

    Raises:
        ShardError: when an existing shard is damaged or was written with another `clips_per_shard`, or there is no clip.
    """
    if clips_per_shard < 1 or not 0 <= shard_index < num_shards:
        raise ShardError(
            f"clips_per_shard must be >= 1 and shard_index in 0..num_shards - 1; got {clips_per_shard}, "
            f"{shard_index} of {num_shards}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for group, members in enumerate(_groups(clips, clips_per_shard)):
        path = folder / f"tracks-{group:05d}.parquet"
        if group % num_shards != shard_index:
            continue
        if path.exists():
            recorded = open_shard(path).schema_arrow.metadata or {}
            if recorded.get(b"clips_per_shard") != str(clips_per_shard).encode():
                raise ShardError(f"{path} was written with another clips_per_shard; use that number, or another folder.")
        else:
            write_file([clip for clip in members() if clip is not None], path, clips_per_shard, lossless=lossless)
        written.append(path)
    if not written and num_shards == 1:
        raise ShardError(f"there was no clip to write to {folder}.")
    write_shard_card(folder, card, COLUMNS)
    return written


def write_clip(clip: Clip, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes one clip as a Parquet file of its own, atomically and with a lossless first frame.

    Raises:
        FileExistsError: when the file exists and `overwrite` is false.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or ask to overwrite it.")
    write_file([clip], path, 1, lossless=True)
    return path


def open_shard(path: str | Path):
    """Opens a shard (a pyarrow ParquetFile) after checking that it is whole and has the right columns.

    Raises:
        FileNotFoundError: when it does not exist. ShardError: when it is cut short, no Parquet, or has other columns.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no shard at {path}")
    try:
        shard = pyarrow.parquet.ParquetFile(path, memory_map=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise ShardError(f"{path} is cut short or no Parquet file ({error}). Delete it and write it again.") from error
    if missing := sorted(set(COLUMNS) - set(shard.schema_arrow.names)):
        raise ShardError(f"{path} lacks the columns {', '.join(missing)}; it is not a track shard of this version.")
    return shard


def shard_files(folder: str | Path) -> list[Path]:
    """The shard files of a folder (or the one file given), in order; raises FileNotFoundError when there is none."""
    folder = Path(folder)
    files = [folder] if folder.is_file() else sorted(folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"there are no *.parquet shards in {folder}; write_shards makes them.")
    return files


class TrackShards(Sequence):
    """A folder of shards as a sequence of clips; a shard is read into memory when one of its clips is first asked for.

    Raises:
        FileNotFoundError, ShardError: when there is no shard, or one is damaged (checked for all shards at once).
    """

    def __init__(self, folder: str | Path) -> None:
        self.files = shard_files(folder)
        self.ends = np.cumsum([open_shard(file).metadata.num_rows for file in self.files])
        self._tables: dict[int, object] = {}

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Clip:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        shard = int(np.searchsorted(self.ends, index, side="right"))
        row = index - (int(self.ends[shard - 1]) if shard else 0)
        if shard not in self._tables:
            self._tables[shard] = _read(self.files[shard])
        return decode_row(self._tables[shard].slice(row, 1).to_pylist()[0], self.files[shard])

    @cached_property
    def clip_ids(self) -> list[str]:
        """The names of all clips, without decoding them."""
        return [name for file in self.files for name in _read(file, ["clip_id"])["clip_id"].to_pylist()]


def stream_shards(folder: str | Path, shard_index: int = 0, num_shards: int = 1) -> Iterator[Clip]:
    """Reads clips one after the other without holding a shard in memory, through `datasets` where it is installed.

    Args:
        folder: a folder of shards.
        shard_index, num_shards: this process's part; whole files when there are enough, else every n-th clip, so that
            the parts are always disjoint and complete.

    Raises:
        ShardError: when num_shards does not hold shard_index, or a shard is damaged.
    """
    if not 0 <= shard_index < num_shards:
        raise ShardError(f"shard_index must be in 0..{num_shards - 1}; got {shard_index}.")
    files = shard_files(folder)
    for file in files:
        open_shard(file)
    by_file = len(files) >= num_shards
    files = files[shard_index::num_shards] if by_file else files
    rows = _stream_rows(files)
    yield from (decode_row(row, folder) for row in (rows if by_file else islice(rows, shard_index, None, num_shards)))


def _stream_rows(files: list[Path]) -> Iterator[dict]:
    try:
        from datasets import load_dataset
    except ImportError:
        for file in files:
            for batch in open_shard(file).iter_batches(batch_size=64, columns=list(COLUMNS)):
                yield from batch.to_pylist()
        return
    yield from load_dataset("parquet", data_files=[str(file) for file in files], split="train", streaming=True)


def _read(file: Path, columns: list[str] | None = None):
    import pyarrow

    try:
        return open_shard(file).read(columns=columns or list(COLUMNS))
    except (pyarrow.ArrowException, OSError) as error:
        raise ShardError(f"{file} is damaged ({error}). Delete it and write it again.") from error


def _groups(clips: Iterable, size: int) -> Iterator:
    """A function for each successive group of `size` clips; of a sequence, clips that nobody asks for are never made."""
    if hasattr(clips, "__len__") and hasattr(clips, "__getitem__"):
        for start in range(0, len(clips), size):
            yield lambda start=start: [clips[i] for i in range(start, min(start + size, len(clips)))]
        return
    iterator = iter(clips)
    while group := list(islice(iterator, size)):
        yield lambda group=group: group


def write_file(clips: Sequence[Clip], path: Path, clips_per_shard: int, *, lossless: bool = False) -> None:
    """Writes clips as one shard file, complete or not at all; `clips_per_shard` is recorded for resumed runs."""
    import pyarrow
    import pyarrow.parquet

    fields = [(name, getattr(pyarrow, {"float": "float32"}.get(kind, kind))()) for name, kind in COLUMNS.items()]
    schema = pyarrow.schema(fields, metadata={"clips_per_shard": str(clips_per_shard), "format": "kinelib track shard 1"})
    table = pyarrow.Table.from_pylist([encode_row(clip, lossless=lossless) for clip in clips], schema=schema)
    with written_whole(path) as partial:
        # Small row groups: a streaming reader holds one group in memory, not the file.
        pyarrow.parquet.write_table(table, partial, row_group_size=64, compression="zstd")
