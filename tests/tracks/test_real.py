"""Clips from real video: the shipped samples give moving tracks, and augmentation keeps picture and tracks together."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.tracks.filters import has_moving_camera, is_static
from kinelib.tracks.real import Windows, real_clips
from kinelib.tracks.shards import ShardError, TrackShards
from kinelib.tracks.track_video import query_points, track_video
from kinelib.tracks.trackers import grid_points, track_points
from kinelib.tracks.video import Video, VideoError, read_video, write_video
from kinelib.tracks.video_shards import write_video_shards

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


def marker_video(frames: int = 8) -> np.ndarray:
    """Red, green and blue blobs on a textured plane that slides right by two pixels a frame."""
    noise = np.random.default_rng(0).uniform(60, 140, (96, 160, 1)).repeat(3, -1).astype(np.float32)
    plane = cv2.GaussianBlur(noise, (0, 0), 1.2)
    for channel, (x, y) in enumerate([(60, 30), (100, 48), (80, 70)]):
        cv2.circle(plane, (x, y), 6, [255.0 if c == channel else 0.0 for c in range(3)], -1)
    shifts = (np.float32([[1, 0, 2 * t - 20], [0, 1, 0]]) for t in range(frames))
    return np.stack([cv2.warpAffine(plane, shift, (128, 96)) for shift in shifts]).clip(0, 255).astype(np.uint8)


def test_augmented_tracks_stay_on_what_they_were_on(tmp_path):
    write_video(tmp_path / "markers.mp4", marker_video(), 10, crf=2)
    windows = Windows(frames=8, strides=(1,), hop=8, crops=4, smallest_crop=0.6)
    clips = list(
        real_clips([tmp_path], windows=windows, least_points=20, num_points=2000, grid=24, frame_size=192, held_out=["x"])
    )
    assert len(clips) >= 6
    assert {clip.tracks.provenance["backwards"] for clip in clips} == {False, True}
    assert {clip.tracks.provenance["mirrored"] for clip in clips} == {False, True}
    assert {clip.tracks.provenance["split"] for clip in clips} == {"train"}
    assert len({clip.clip_id for clip in clips}) == len(clips)
    coloured = 0
    for clip in clips:
        facts = clip.tracks.provenance
        left, top, right, bottom = facts["crop"]
        # The same points, found in the source picture through the recorded crop, have the same colours.
        start = clip.tracks.query_points[0] * torch.tensor([-1.0 if facts["mirrored"] else 1.0, 1.0])
        x, y = ((start[:, 0] + 1) / 2 * (right - left) + left, (start[:, 1] + 1) / 2 * (bottom - top) + top)
        source = marker_video()[-1 if facts["backwards"] else 0]
        expected = source[y.long().clamp(0, 95), x.long().clamp(0, 127)].astype(int)
        pixel = clip.tracks.pixels(192, 192)[0, :, 0].long().clamp(0, 191)
        found = clip.first_frame[pixel[:, 1], pixel[:, 0]].astype(int)
        vivid = np.ptp(expected, axis=1) > 200
        coloured += vivid.sum()
        assert (found[vivid].argmax(1) == expected[vivid].argmax(1)).mean() > 0.9
        # The plane slides by two pixels a frame, and the other way when seen backwards or in the mirror.
        slide = clip.tracks.displacement()[0, :, -1, 0].median() * (right - left) / 2
        sign = (-1 if facts["backwards"] else 1) * (-1 if facts["mirrored"] else 1)
        assert slide.item() == pytest.approx(14 * sign, abs=0.5)
        # Tracks come in random order: the first few already spread over the picture.
        assert (clip.tracks.query_points[0, :20].amax(0) - clip.tracks.query_points[0, :20].amin(0)).min() > 0.8
    assert coloured > 20


@pytest.mark.parametrize("name", ["box", "cup"])
def test_shipped_samples_hold_motion_that_the_tracker_follows(name):
    tracks = track_points(read_video(SAMPLES / f"{name}.mp4"), query_points(read_video(SAMPLES / f"{name}.mp4"), 300))
    survivors = tracks.points(tracks.visible[0].all(-1))
    assert survivors.num_points >= 40
    assert survivors.moving(8.0).sum() >= 30
    assert is_static(tracks).tolist() == [False]


def test_the_box_is_filmed_by_a_still_camera():
    tracks = track_points(read_video(SAMPLES / "box.mp4", max_frames=16), grid_points(16, 16))
    assert has_moving_camera(tracks).tolist() == [False]


def test_videos_too_short_or_without_texture_give_no_clips(tmp_path):
    write_video(tmp_path / "short.mp4", marker_video(6), 10)
    write_video(tmp_path / "grey.mp4", np.full((10, 64, 64, 3), 99, np.uint8), 10)
    assert list(real_clips([tmp_path, tmp_path / "missing"], frames=8, grid=6)) == []


def test_track_video_writes_one_clip(tmp_path):
    out = tmp_path / "deep" / "tracks.parquet"
    tracks = track_video(SAMPLES / "box.mp4", out, points=40, start=4, frames=6, stride=2, caption="a box is turned")
    clip = TrackShards(out)[0]
    assert clip.tracks.xy.shape == (1, 40, 6, 2)
    assert (clip.tracks.xy - tracks.xy).abs().max() <= 2**-12
    assert torch.equal(clip.tracks.visible, tracks.visible)
    assert np.array_equal(clip.first_frame, read_video(SAMPLES / "box.mp4", start=4, max_frames=1).frames[0])
    assert clip.tracks.fps == 7.5
    assert clip.caption == "a box is turned"
    assert clip.tracks.provenance == {"source": "box.mp4", "tracker": "lk", "start": 4, "stride": 2, "seed": 0}
    assert str(tmp_path) not in str(clip.tracks.provenance)
    again = track_video(SAMPLES / "box.mp4", tmp_path / "again.parquet", points=40, start=4, frames=6, stride=2)
    assert torch.equal(again.xy, tracks.xy)
    assert track_video(SAMPLES / "box.mp4", tmp_path / "grid.parquet", grid=3, frames=3).num_points == 9


def test_track_video_keeps_a_good_file_when_it_fails_or_is_not_asked(tmp_path):
    out = tmp_path / "tracks.parquet"
    track_video(SAMPLES / "cup.mp4", out, points=8, frames=3)
    before = out.read_bytes()
    with pytest.raises(FileExistsError, match="ask to overwrite"):
        track_video(SAMPLES / "cup.mp4", out, points=8, frames=4)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match="not a video OpenCV can read"):
        track_video(tmp_path / "bad.mp4", out, overwrite=True)
    with pytest.raises(VideoError, match="has one frame"):
        track_video(write_video(tmp_path / "one.mp4", marker_video(1), 10), out, overwrite=True)
    with pytest.raises(ShapeError, match="at least one point and two frames"):
        track_video(SAMPLES / "cup.mp4", out, points=0, overwrite=True)
    assert out.read_bytes() == before
    track_video(SAMPLES / "cup.mp4", out, points=8, frames=4, overwrite=True)
    assert TrackShards(out)[0].tracks.num_frames == 4


def test_query_points_mix_corners_and_random_ones_to_the_asked_number():
    video = Video(marker_video())
    assert query_points(video, 50).shape == (50, 2)
    assert query_points(video, 1).shape == (1, 2)
    assert query_points(Video(np.zeros((2, 32, 32, 3), np.uint8)), 20).shape == (20, 2)
    assert torch.equal(query_points(video, 50, seed=4), query_points(video, 50, seed=4))
    assert not torch.equal(query_points(video, 50, seed=4), query_points(video, 50, seed=5))


def test_a_shard_a_video_is_kept_held_out_and_shared_among_workers(tmp_path):
    videos, said = tmp_path / "videos", []
    videos.mkdir()
    for name in ("cat", "dog", "owl"):
        write_video(videos / f"{name}.mp4", marker_video(), 10, crf=2)
    options = dict(windows=Windows(frames=8, strides=(1,), crops=0), held_out=["dog"], say=said.append)
    make = lambda folder, **more: write_video_shards([videos], tmp_path / folder, **options, **more)
    parts = make("two", shard_index=0, num_shards=2) + make("two", shard_index=1, num_shards=2)
    assert sorted(path.name for path in parts) == ["tracks-cat.parquet", "tracks-dog.parquet", "tracks-owl.parquet"]
    whole = make("one")
    for a, b in zip(sorted(parts), whole, strict=True):
        assert a.read_bytes() == b.read_bytes(), "workers together write what one would"
    clips = TrackShards(tmp_path / "one")
    splits = {Path(clip.tracks.provenance["source"]).stem: clip.tracks.provenance["split"] for clip in clips}
    assert splits == {"cat": "train", "dog": "test", "owl": "train"}
    (tmp_path / "one" / "tracks-owl.parquet").unlink()
    before = whole[0].stat().st_mtime_ns
    said.clear()
    assert make("one") == whole and whole[0].stat().st_mtime_ns == before
    assert "are in" in said[0] and said[2] == "owl.mp4: 2 clips"


def test_videos_that_make_no_shards_are_told(tmp_path):
    with pytest.raises(VideoError, match="no video to track"):
        write_video_shards([tmp_path], tmp_path / "out")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "cat.mp4", marker_video(), 10)
    with pytest.raises(VideoError, match="several videos are called cat"):
        write_video_shards([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with pytest.raises(ValueError, match="no video is called cow; there are cat"):
        write_video_shards([tmp_path / "a"], tmp_path / "out", held_out=["cow"])
    with pytest.raises(ValueError, match="part 2 of 2 does not exist"):
        write_video_shards([tmp_path / "a"], tmp_path / "out", shard_index=2, num_shards=2)
    with pytest.raises(ShardError, match="no video gives a clip"):
        write_video_shards([tmp_path / "a"], tmp_path / "out")  # eight frames where a window wants 64
    assert not list((tmp_path / "out").glob("*.parquet"))
