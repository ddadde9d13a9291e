"""Demonstrations become moments and windows without a step going astray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kinelib.robots.demonstration_shards import Demonstration, DemonstrationError, write_demonstrations
from kinelib.robots.robot_data import encode_windows, load_set, window_tracks, with_latents

EVERY, STEPS = 4, 18


def demonstration(seed: int, task: str = "left", steps: int = STEPS, side: int = 16) -> Demonstration:
    """Two views; action h of the episode is (h, -h), and point n moves by n hundredths a frame, seen from frame n % 3 on."""
    frames = steps // EVERY + 1
    draw = np.random.default_rng(seed)
    pictures = draw.integers(0, 255, (2, frames, side, side, 3)).astype(np.uint8)
    shift = 0.01 * np.arange(8)[:, None] * np.arange(frames)
    tracks = np.broadcast_to(np.stack([shift, -shift], axis=-1), (2, 8, frames, 2)).astype(np.float16)
    visible = np.broadcast_to(np.arange(frames) >= (np.arange(8) % 3)[:, None], (2, 8, frames))
    h = np.arange(steps + 1, dtype=np.float32)
    answers = np.stack([h[:-1], -h[:-1]], axis=1)
    return Demonstration(
        "toy", task, "train", seed, f"go {task}", ("above", "beside"), EVERY, 20.0, steps, pictures, tracks, visible,
        np.stack([h, h, h], axis=1), answers, answers, np.zeros((steps + 1, 2)),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_demonstrations([demonstration(0), demonstration(1)], tmp_path / "left-train-000.parquet", {})
    write_demonstrations([demonstration(0, "right", 9)], tmp_path / "right-train-000.parquet", {})
    return tmp_path


def test_moments_are_frames_and_chunks_begin_there(folder):
    data = load_set(folder, horizon=6, window=16, stride=8, size=16)
    assert data.views == ("above", "beside")
    assert len(data) == 5 + 5 + 3
    assert data.tasks.count("right") == 3
    assert torch.equal(data.proprio[:5, 0], torch.tensor([0.0, 4, 8, 12, 16]))
    assert torch.equal(data.chunks[1, :, 0], torch.arange(4.0, 10))
    assert torch.equal(data.chunks[1, :, 1], -torch.arange(4.0, 10))
    assert data.valid[3].all(), "step 17 is the last"
    assert torch.equal(data.valid[4], torch.tensor([True, True, False, False, False, False]))
    expected = demonstration(1).pictures[:, 2]
    assert torch.equal(data.pictures[7], torch.from_numpy(expected))
    assert data.texts(torch.tensor([0, 12])) == ["go left", "go right"]


def test_a_moment_belongs_to_the_window_that_began_last(folder):
    data = load_set(folder, stride=8, size=16)
    assert data.starts.tolist() == [0, 2, 4, 5, 7, 9, 10, 12]
    assert data.window_of[:5].tolist() == [0, 0, 1, 1, 2]
    begun = data.starts[data.window_of]
    now = torch.arange(len(data))
    assert ((now - begun >= 0) & (now - begun < 2)).all()


def test_pictures_are_brought_to_size(folder):
    data = load_set(folder, size=8)
    assert data.pictures.shape[1:] == (2, 8, 8, 3)
    frames = data.frames(torch.tensor([0, 3]))
    assert frames.shape == (2, 2, 3, 8, 8)
    assert frames.abs().max() <= 1
    mean = demonstration(0).pictures[0, 0].mean() / 127.5 - 1
    assert abs(frames[0, 0].mean() - mean) < 0.05


def test_windows_stand_still_beyond_the_end_and_take_visible_points_first():
    one = demonstration(0)
    tracks, keep = window_tracks(one, 3, range(5), points=5)
    assert tracks.shape == (2, 5, 5, 2)
    assert torch.equal(tracks[:, :, 1], tracks[:, :, 4]), "frame 4 is the last there is"
    assert not torch.equal(tracks[:, :, 0], tracks[:, :, 1])
    assert keep.all()
    first, keep = window_tracks(one, 0, range(3), points=8)
    assert keep.sum(1).tolist() == [3, 3], "points 0, 3 and 6 are visible in the first frame"
    assert keep[:, :3].all()
    blind = replace(one, visible=np.zeros_like(one.visible))
    assert window_tracks(blind, 0, range(3))[1].all()


def test_latents_are_those_of_each_window_and_are_kept(folder, tmp_path_factory):
    from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder

    torch.manual_seed(0)
    small = AutoencoderConfig(
        num_frames=8, temporal_compression=8, grid=(4, 4), frame_size=16, channels=4, width=16, basis_size=8
    )
    autoencoder = TrackAutoencoder(small).eval()
    data = load_set(folder, window=16, stride=8, size=16)
    cache = tmp_path_factory.mktemp("cache")
    full = with_latents(data, folder, autoencoder, cache=cache)
    assert full.latents.shape == (8, 2, 1, 4, 4, 4)
    # The fifth window begins at frame 2 of the second demonstration.
    tracks, keep = window_tracks(demonstration(1), 2, range(5), seed=4)
    alone = encode_windows(tracks, keep, data.frames(torch.tensor([7]))[0], autoencoder)
    assert torch.allclose(full.latents[4].float(), alone, atol=2e-3)
    (file,) = cache.glob("latents-*.safetensors")
    before = file.stat().st_mtime_ns
    again = with_latents(data, folder, autoencoder, cache=cache)
    assert torch.equal(again.latents, full.latents)
    assert file.stat().st_mtime_ns == before


def test_demonstrations_of_two_kinds_are_refused(folder):
    other = replace(demonstration(5), views=("above", "wrist"))
    write_demonstrations([other], folder / "left-train-001.parquet", {})
    with pytest.raises(DemonstrationError, match="one kind"):
        load_set(folder, size=16)
