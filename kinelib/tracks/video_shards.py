"""Folders of real video to shards of training clips: what `python -m kinelib track VIDEOS... --clips --out DIR` does.

One shard a video, so that an interrupted run goes on at the video where it stopped, and several workers share the videos
(`--shard i/n`) without talking to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kinelib.tracks.real import Windows, video_clips
from kinelib.tracks.shard_card import write_shard_card
from kinelib.tracks.shards import COLUMNS, ShardCard, ShardError, open_shard, write_file
from kinelib.tracks.video import VideoError, list_videos

CARD = ShardCard(
    name="Tracks of real video",
    licence="that of the videos; see where you took them from",
    origin="overlapping windows of real videos, tracked forwards and back again; `python -m kinelib track VIDEOS --clips`",
    description="Windows, crops, mirror images and time reversals of a few videos: good for training, far from independent.",
)


def write_video_shards(
    videos: Iterable[str | Path],
    folder: str | Path,
    *,
    held_out: Sequence[str] = (),
    shard_index: int = 0,
    num_shards: int = 1,
    windows: Windows | None = None,
    grid: int = 24,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Tracks videos and writes a shard of training clips for each; shards that are there already are kept.

    Args:
        videos: video files, and folders of them.
        folder: where shards and their card go.
        held_out: names of videos (without suffix) whose clips are for measuring only.
        shard_index, num_shards: this worker's part; worker i takes videos i, i + n, i + 2 n, ...
        windows: how videos are cut into clips.
        grid: lattice of query points, with as many corners; more keep enough tracks on plain objects, and take longer.
        seed: of crops, mirroring and the choice of tracks.
        say: called with a line a video.

    Returns:
        This worker's shards. A video without a usable clip has none.

    Raises:
        VideoError: when there is no video, two have one name, or one cannot be read.
        ValueError: for a held-out name that no video has, or a part that does not exist.
        ShardError: when a shard that is there is damaged, or no video gives a clip.
    """
    if not 0 <= shard_index < num_shards:
        raise ValueError(f"part {shard_index} of {num_shards} does not exist; it is counted from 0.")
    paths = [path for given in map(Path, videos) for path in (list_videos(given) if given.is_dir() else [given])]
    names = [path.stem for path in paths]
    if not paths:
        raise VideoError("there is no video to track; give video files, or folders that hold some.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise VideoError(f"several videos are called {', '.join(twice)}; a shard is named after its video, so rename them.")
    if unknown := sorted(set(held_out) - set(names)):
        raise ValueError(f"no video is called {', '.join(unknown)}; there are {', '.join(names)}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in paths[shard_index::num_shards]:
        shard = folder / f"tracks-{path.stem}.parquet"
        if shard.exists():
            say(f"{path.name}: {open_shard(shard).metadata.num_rows} clips are in {shard} already")
        elif clips := list(video_clips(path, held_out=held_out, windows=windows, grid=grid, seed=seed)):
            write_file(clips, shard, len(clips))
            say(f"{path.name}: {len(clips)} clips{', held out' if path.stem in held_out else ''}")
        else:
            say(f"{path.name}: no window keeps enough tracks")
            continue
        written.append(shard)
    if not written and num_shards == 1:
        raise ShardError("no video gives a clip: they are shorter than a window, or their tracks get lost.")
    if written:
        write_shard_card(folder, CARD, COLUMNS)
    return written
