"""Shards keep clips to float16, resume, stream in disjoint parts, and damaged ones are named."""

import builtins

import numpy as np
import pyarrow.parquet
import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.tracks import Tracks
from kinelib.tracks.shards import (
    COLUMNS,
    Clip,
    ShardCard,
    ShardError,
    TrackShards,
    decode_row,
    encode_row,
    open_shard,
    stream_shards,
    write_clip,
    write_shards,
)

CARD = ShardCard("Test tracks", "CC0", "random numbers", "Made by a test.", {"Seed": 0})


def make_clip(number: int, points: int = 7, frames: int = 9) -> Clip:
    generator = torch.Generator().manual_seed(number)
    xy = torch.rand(1, points, frames, 2, generator=generator) * 2 - 1
    visible = torch.rand(1, points, frames, generator=generator) > 0.2
    picture = np.full((24, 32, 3), (number % 200, 100, 50), np.uint8)
    facts = {"source": f"video{number % 3}.mp4", "tracker": "lk", "start": number}
    tracks = Tracks(xy, visible, fps=12.5, size=(640, 480), provenance=facts)
    return Clip(f"clip-{number:03d}", tracks, picture, f"caption é {number}", "vehicle/turn-left")


@pytest.fixture
def folder(tmp_path):
    write_shards(map(make_clip, range(22)), tmp_path / "set", card=CARD, clips_per_shard=5)
    return tmp_path / "set"


def assert_same(clip: Clip, expected: Clip) -> None:
    assert (clip.clip_id, clip.caption, clip.label) == (expected.clip_id, expected.caption, expected.label)
    assert (clip.tracks.fps, clip.tracks.size) == (expected.tracks.fps, expected.tracks.size)
    assert clip.tracks.provenance == expected.tracks.provenance
    assert clip.tracks.xy.dtype == torch.float32
    assert (clip.tracks.xy - expected.tracks.xy).abs().max() <= 2**-12
    assert torch.equal(clip.tracks.visible, expected.tracks.visible)
    assert clip.first_frame.shape == expected.first_frame.shape
    assert np.abs(clip.first_frame.astype(int) - expected.first_frame).max() <= 4


@pytest.mark.parametrize(("points", "frames"), [(1, 1), (7, 9), (8, 8), (256, 64)])
def test_a_row_round_trips(points, frames):
    clip = make_clip(3, points, frames)
    assert_same(decode_row(encode_row(clip)), clip)
    assert np.array_equal(decode_row(encode_row(clip, lossless=True)).first_frame, clip.first_frame)


def test_unknown_rate_and_size_stay_unknown():
    clip = Clip("plain", Tracks(torch.zeros(1, 2, 3, 2)), np.zeros((4, 4, 3), np.uint8))
    again = decode_row(encode_row(clip))
    assert again.tracks.fps is None
    assert again.tracks.size is None
    assert again.tracks.provenance == {}


def test_float16_step_inside_the_frame_is_a_4096th_of_the_frame():
    inside = np.linspace(-1, 1, 200_001, dtype=np.float32)
    stored = inside.astype("<f2")
    frame = 2.0  # the frame is two units wide
    assert np.diff(np.unique(stored).astype(np.float64)).max() == frame / 4096
    assert np.abs(stored.astype(np.float64) - inside).max() <= frame / 8192 + 1e-9


def test_a_shard_set_is_a_sequence(folder):
    shards = TrackShards(folder)
    assert len(shards) == 22
    assert len(shards.files) == 5
    for number in (0, 4, 5, 13, 21):
        assert_same(shards[number], make_clip(number))
    assert shards[-1].clip_id == "clip-021"
    assert [clip.clip_id for clip in shards[4:6]] == ["clip-004", "clip-005"]
    assert shards.clip_ids == [f"clip-{number:03d}" for number in range(22)]
    assert sum(1 for _ in shards) == 22
    with pytest.raises(IndexError):
        shards[22]


@pytest.fixture(params=["datasets", "pyarrow"])
def reader(request, monkeypatch):
    """Streams once through `datasets` and once as on a machine without it."""
    if request.param == "pyarrow":
        real = builtins.__import__

        def without_datasets(name, *args, **kwargs):
            if name.split(".")[0] == "datasets":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_datasets)
    return request.param


def test_streaming_reads_everything_in_order(folder, reader):
    clips = list(stream_shards(folder))
    assert [clip.clip_id for clip in clips] == [f"clip-{number:03d}" for number in range(22)]
    assert_same(clips[17], make_clip(17))


@pytest.mark.parametrize("parts", [2, 5, 7])
def test_parts_are_disjoint_and_complete(folder, reader, parts):
    names = [[clip.clip_id for clip in stream_shards(folder, part, parts)] for part in range(parts)]
    assert all(names)
    assert sorted(sum(names, [])) == [f"clip-{number:03d}" for number in range(22)]


def test_workers_together_write_what_one_writes(folder, tmp_path):
    for worker in (2, 0, 1):
        write_shards(
            map(make_clip, range(22)), tmp_path / "many", card=CARD, clips_per_shard=5, shard_index=worker, num_shards=3
        )
    files = sorted(file.name for file in folder.glob("*.parquet"))
    assert sorted(file.name for file in (tmp_path / "many").glob("*.parquet")) == files
    for name in files:
        assert pyarrow.parquet.read_table(folder / name).equals(pyarrow.parquet.read_table(tmp_path / "many" / name))
    assert (tmp_path / "many" / "README.md").read_text() == (folder / "README.md").read_text()


class CountingClips:
    """A sequence of clips that counts how many it had to make; number 3 is rejected."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.made, self.fail_at = [], fail_at

    def __len__(self):
        return 12

    def __getitem__(self, number):
        if number == self.fail_at:
            raise RuntimeError("power cut")
        self.made.append(number)
        return None if number == 3 else make_clip(number)


def test_an_interrupted_run_resumes_at_the_shard(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        write_shards(CountingClips(fail_at=9), tmp_path, card=CARD, clips_per_shard=4)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tracks-00000.parquet", "tracks-00001.parquet"]
    kept = (tmp_path / "tracks-00000.parquet").stat().st_mtime_ns
    clips = CountingClips()
    assert len(write_shards(clips, tmp_path, card=CARD, clips_per_shard=4)) == 3
    assert clips.made == [8, 9, 10, 11]  # complete shards are not even made again
    assert (tmp_path / "tracks-00000.parquet").stat().st_mtime_ns == kept
    assert TrackShards(tmp_path).clip_ids == [f"clip-{number:03d}" for number in range(12) if number != 3]


def test_another_shard_size_is_not_mixed_in(folder):
    with pytest.raises(ShardError, match="another clips_per_shard"):
        write_shards(map(make_clip, range(22)), folder, card=CARD, clips_per_shard=6)


def test_the_card_counts_and_explains(folder):
    card = (folder / "README.md").read_text()
    for words in (
        "# Test tracks",
        "CC0",
        "random numbers",
        "22 clips in 5 shards, 154 tracks; 9 frames (22 clips)",
        "1/4096 of the frame",
        "**Seed**: 0",
        "| video0.mp4, tracks by lk | 8 |",
    ):
        assert words in card
    for column, kind in COLUMNS.items():
        assert f"| {column} | {kind} |" in card


@pytest.mark.parametrize("share", [0.0, 0.4, 0.98])
def test_a_shard_cut_short_is_named(folder, share):
    victim = folder / "tracks-00002.parquet"
    content = victim.read_bytes()
    victim.write_bytes(content[: int(share * len(content))])
    for use in (
        lambda: TrackShards(folder),
        lambda: list(stream_shards(folder)),
        lambda: write_shards(map(make_clip, range(22)), folder, card=CARD, clips_per_shard=5),
    ):
        with pytest.raises(ShardError, match=r"tracks-00002\.parquet is cut short.*Delete it and write it again"):
            use()
    victim.unlink()
    write_shards(map(make_clip, range(22)), folder, card=CARD, clips_per_shard=5)
    assert len(TrackShards(folder)) == 22


def test_damage_inside_a_shard_is_an_error_not_garbage(folder):
    victim = folder / "tracks-00001.parquet"
    content = bytearray(victim.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    victim.write_bytes(content)
    with pytest.raises(ShardError, match=r"tracks-00001\.parquet"):
        TrackShards(folder)[5]


def test_wrong_columns_and_lengths_are_refused(folder):
    file = folder / "tracks-00000.parquet"
    table = pyarrow.parquet.read_table(file)
    pyarrow.parquet.write_table(table.drop_columns(["visible", "fps"]), file)
    with pytest.raises(ShardError, match=r"tracks-00000\.parquet lacks the columns fps, visible"):
        open_shard(file)
    row = encode_row(make_clip(0))
    with pytest.raises(ShardError, match="clip-000.*do not hold 8 points x 9 frames"):
        decode_row({**row, "num_points": 8})
    with pytest.raises(ShardError, match="not a picture"):
        decode_row({**row, "first_frame": b"\xff\xd8nonsense"})


def test_nothing_to_read_or_write(tmp_path):
    with pytest.raises(FileNotFoundError, match="no \\*.parquet shards"):
        TrackShards(tmp_path)
    with pytest.raises(FileNotFoundError):
        next(stream_shards(tmp_path / "missing"))
    with pytest.raises(ShardError, match="no clip to write"):
        write_shards([], tmp_path / "empty", card=CARD)
    with pytest.raises(ShardError, match="shard_index"):
        write_shards([make_clip(0)], tmp_path, card=CARD, shard_index=2, num_shards=2)
    with pytest.raises(ShardError, match=r"0\.\.1; got 2"):
        next(stream_shards(tmp_path, 2, 2))


def test_bad_clips_are_refused():
    with pytest.raises(ShapeError, match="B = 2"):
        Clip("two", Tracks(torch.zeros(2, 3, 4, 2)), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ShapeError, match="must be uint8"):
        Clip("float", Tracks(torch.zeros(1, 3, 4, 2)), np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ShardError, match=r"huge.*Use Tracks.from_pixels"):
        encode_row(Clip("huge", Tracks(torch.full((1, 3, 4, 2), 1e6)), np.zeros((4, 4, 3), np.uint8)))


def test_one_clip_file_is_not_overwritten_by_accident(tmp_path):
    path = write_clip(make_clip(1), tmp_path / "new" / "one.parquet")
    assert_same(TrackShards(path)[0], make_clip(1))
    with pytest.raises(FileExistsError, match="ask to overwrite"):
        write_clip(make_clip(2), path)
    assert TrackShards(path)[0].clip_id == "clip-001"
    write_clip(make_clip(2), path, overwrite=True)
    assert TrackShards(path)[0].clip_id == "clip-002"
    assert list(path.parent.iterdir()) == [path]
