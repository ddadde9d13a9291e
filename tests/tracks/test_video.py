"""Videos survive a round trip, and files that are no videos are refused with a reason."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kinelib.tracks.video import Video, VideoError, list_videos, read_video, write_video

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


def ramp(frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame t is flat grey 10 + 15 t, red in its left half only: tells frames, channels and sides apart."""
    video = np.zeros((frames, height, width, 3), np.uint8)
    video[:] = (10 + 15 * np.arange(frames))[:, None, None, None]
    video[:, :, : width // 2, 1:] = 0
    return video


def write_with_opencv(path: Path, frames: np.ndarray, code: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, frames.shape[2:0:-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


@pytest.fixture
def mp4(tmp_path) -> Path:
    return write_video(tmp_path / "ramp.mp4", ramp(), 12.5)


def test_mp4_round_trip_keeps_frames_order_colour_and_rate(mp4):
    video = read_video(mp4)
    assert video.frames.shape == (12, 48, 64, 3)
    assert video.fps == pytest.approx(12.5)
    assert video.size == (64, 48)
    levels = video.frames[:, 20, 50].astype(int)  # grey half
    assert np.abs(levels - (10 + 15 * np.arange(12))[:, None]).max() <= 6
    left = video.frames[-1, 20, 10].astype(int)  # red half: RGB order
    assert left[0] > 120
    assert left[2] < 60


@pytest.mark.parametrize(("suffix", "code"), [(".avi", "MJPG"), (".avi", "XVID"), (".webm", "VP80")])
def test_other_containers(tmp_path, suffix, code):
    video = read_video(write_with_opencv(tmp_path / f"ramp{suffix}", ramp(), code))
    assert len(video) == 12
    assert np.abs(video.frames[:, 20, 50, 0].astype(int) - (10 + 15 * np.arange(12))).max() <= 12


def test_gif(tmp_path):
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(
        str(tmp_path / "ramp.gif"), (64, 48), fps=10, codec="gif", pix_fmt_out="rgb8", quality=None, macro_block_size=1
    )
    writer.send(None)
    for frame in ramp():
        writer.send(frame)
    writer.close()
    video = read_video(tmp_path / "ramp.gif")
    assert video.frames.shape == (12, 48, 64, 3)
    assert (np.diff(video.frames[:, 20, 50, 0].astype(int)) >= 0).all()


def test_folder_of_frames_in_natural_order(tmp_path):
    for index in (0, 1, 2, 9, 10, 11):
        picture = np.full((8, 10, 3), 20 * index, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"frame{index}.png"), picture)
    (tmp_path / "notes.txt").write_text("not a frame")
    video = read_video(tmp_path)
    assert video.frames[:, 0, 0, 0].tolist() == [0, 20, 40, 180, 200, 220]
    assert video.fps is None
    assert read_video(tmp_path, start=1, stride=2, max_frames=2).frames[:, 0, 0, 0].tolist() == [20, 180]


def test_start_stride_and_length_select_frames(mp4):
    whole, part = read_video(mp4), read_video(mp4, start=3, stride=2, max_frames=4)
    assert np.array_equal(part.frames, whole.frames[3:11:2])
    assert part.fps == pytest.approx(12.5 / 2)
    window = whole.window(3, 4, 2)
    assert np.array_equal(window.frames, part.frames)
    assert window.fps == part.fps


@pytest.mark.parametrize(("size", "expected"), [(32, (32, 24)), ((20, 30), (20, 30)), (4000, (64, 48))])
def test_resizing(mp4, size, expected):
    video = read_video(mp4, size=size)
    assert video.size == expected
    assert np.array_equal(video.frames, read_video(mp4).resized(size).frames)


def test_odd_sizes_are_padded_not_scaled(tmp_path):
    frames = np.random.default_rng(0).integers(0, 2, (3, 9, 11, 1), np.uint8).repeat(3, -1) * 255
    frames = frames.repeat(4, 1).repeat(4, 2)[:, :33, :43]
    video = read_video(write_video(tmp_path / "odd.mp4", frames, 10, crf=5))
    assert video.size == (44, 34)
    assert np.abs(video.frames[:, :33, :43].astype(int) - frames).mean() < 8


def test_one_frame_video_can_be_read(tmp_path):
    assert read_video(write_video(tmp_path / "one.mp4", ramp(1), 10)).frames.shape == (1, 48, 64, 3)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no video at"):
        read_video(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"this is not a video " * 100, "is not a video OpenCV can read"),
        ("noise.avi", bytes(range(256)) * 64, "is not a video OpenCV can read"),
        ("table.parquet", b"PAR1" + bytes(1000) + b"PAR1", "is not a video OpenCV can read"),
    ],
)
def test_foreign_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoError, match=message) as caught:
        read_video(path)
    assert name in str(caught.value)


def test_a_picture_is_not_a_video(tmp_path):
    assert cv2.imwrite(str(tmp_path / "frame01.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(VideoError, match="is a picture, not a video; put the frames in a folder"):
        read_video(tmp_path / "frame01.png")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_videos_are_refused(tmp_path, share):
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    sources = {
        "mp4": write_video(tmp_path / "whole.mp4", noise, 10),
        "avi": write_with_opencv(tmp_path / "whole.avi", noise, "MJPG"),
    }
    for kind, source in sources.items():
        content = source.read_bytes()
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(content[: int(len(content) * share)])
        if share < 0.9:
            with pytest.raises(VideoError, match="cut short") as caught:
                read_video(path)
            assert path.name in str(caught.value)
        else:
            # Nearly whole: either refused or all that is there, never an empty result.
            try:
                assert len(read_video(path)) >= 24
            except VideoError as error:
                assert "cut short" in str(error)


def test_cut_video_can_still_be_read_on_purpose(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    content = write_video(tmp_path / "whole.mp4", noise, 10).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    assert len(read_video(tmp_path / "cut.mp4", max_frames=5)) == 5


def test_bad_folders(tmp_path):
    with pytest.raises(VideoError, match="holds no frames"):
        read_video(tmp_path)
    assert cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(VideoError, match=r"2\.png is not a picture"):
        read_video(tmp_path)
    assert cv2.imwrite(str(tmp_path / "2.png"), np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(VideoError, match="make them one size"):
        read_video(tmp_path)


@pytest.mark.parametrize("options", [{"start": -1}, {"stride": 0}, {"max_frames": 0}])
def test_bad_options(mp4, options):
    with pytest.raises(VideoError, match="must be >= 0"):
        read_video(mp4, **options)


def test_start_behind_the_end(mp4):
    with pytest.raises(VideoError, match="no frame at or after frame 50"):
        read_video(mp4, start=50)
    with pytest.raises(VideoError, match="has 12 frames; a window needs frames 4 to 13"):
        read_video(mp4).window(4, 10)


@pytest.mark.parametrize("frames", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3))])
def test_bad_arrays_are_refused(frames):
    with pytest.raises(VideoError):
        Video(frames)


def test_failed_writing_leaves_the_old_file_and_no_partial(tmp_path, mp4):
    before = mp4.read_bytes()
    with pytest.raises(VideoError):
        write_video(mp4, ramp().astype(float), 10)
    with pytest.raises(VideoError, match="fps must be a positive"):
        write_video(mp4, ramp(), float("nan"))
    with pytest.raises(VideoError, match="crf runs from 0"):
        write_video(mp4, ramp(), 10, crf=999)
    assert mp4.read_bytes() == before
    assert list(tmp_path.iterdir()) == [mp4]
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match="could not write"):
        write_video(tmp_path / "folder.mp4", ramp(), 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mp4", "ramp.mp4"]
    with pytest.raises(VideoError, match=r"must end in \.mp4"):
        write_video(tmp_path / "a.avi", ramp(), 10)


def test_shipped_samples_are_small_and_whole():
    samples = list_videos(SAMPLES)
    assert [path.name for path in samples] == ["box.mp4", "cup.mp4"]
    for path in samples:
        assert path.stat().st_size <= 1_000_000
        assert read_video(path).frames.shape == (64, 288, 384, 3)
