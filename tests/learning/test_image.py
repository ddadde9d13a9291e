"""Frames to model frames, the patch encoder, the feature cache and the way to DINOv2."""

import numpy as np
import pytest
import torch

from kinelib.learning import image
from kinelib.learning.image import CachedFeatures, DinoV2, PatchEncoder, dinov2, frame_key, shrink, to_model_frame
from kinelib.notation import ShapeError


def test_black_and_white_are_minus_one_and_one_at_any_size():
    frames = np.stack([np.zeros((30, 50, 3), np.uint8), np.full((30, 50, 3), 255, np.uint8)])
    for size in (16, 30, 40, 64):
        out = to_model_frame(frames, size)
        assert out.shape == (2, 3, size, size) and out.dtype == torch.float32
        assert torch.allclose(out[0], torch.tensor(-1.0)) and torch.allclose(out[1], torch.tensor(1.0))


def test_shrinking_averages_areas_and_keeps_channels_apart():
    frame = np.zeros((1, 4, 4, 3), np.uint8)
    frame[0, :2, :2, 0] = [[0, 100], [100, 200]]
    frame[0, 2:, :, 2] = 255
    out = (to_model_frame(frame, 2) + 1) * 127.5
    assert torch.allclose(out[0, 0], torch.tensor([[100.0, 0], [0, 0]]), atol=1e-4)
    assert torch.allclose(out[0, 2], torch.tensor([[0.0, 0], [255, 255]]), atol=1e-4)
    assert torch.equal(to_model_frame(torch.from_numpy(frame), 2), to_model_frame(frame, 2))


def test_a_frame_of_the_right_size_is_not_resampled():
    frame = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    back = ((to_model_frame(frame, 8) + 1) * 127.5).round().to(torch.uint8)
    assert np.array_equal(back.permute(0, 2, 3, 1).numpy(), frame)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 4, 4, 3), np.float32), "uint8"),
        (np.zeros((4, 4, 3), np.uint8), r"frame\[None\]"),
        (np.zeros((1, 3, 4, 4), np.uint8), r"\(B, H, W, 3\)"),
        (np.zeros((1, 0, 4, 3), np.uint8), "cannot be resized"),
    ],
)
def test_other_frames_are_refused_with_advice(frames, message):
    with pytest.raises(ShapeError, match=message):
        to_model_frame(frames, 8)


def test_patch_tokens_are_the_map_row_by_row_and_look_where_they_are():
    torch.manual_seed(0)
    encoder = PatchEncoder(32, 8, 24)
    frame = torch.rand(2, 3, 32, 32) * 2 - 1
    tokens, grid = encoder(frame), encoder.map(frame)
    assert encoder.grid == (4, 4) and tokens.shape == (2, 16, 24)
    assert torch.equal(tokens[:, 4 * 2 + 1], grid[:, :, 2, 1])
    changed = frame.clone()
    changed[:, :, :8, :8] = 0
    moved = (encoder.map(changed) - grid).abs().sum(dim=1)[0]
    assert moved.argmax() == 0 and moved[0, 0] > 3 * moved[3, 3]
    tokens.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert torch.allclose(encoder(frame[:1]), encoder(frame)[:1], atol=1e-5)


@pytest.mark.parametrize("patch", [1, 3, 5, 64])
def test_a_patch_that_does_not_fit_is_refused(patch):
    with pytest.raises(ShapeError, match="power of two"):
        PatchEncoder(32, patch, 16)
    with pytest.raises(ShapeError, match="frame"):
        PatchEncoder(32, 8, 16)(torch.zeros(1, 3, 16, 16))


def test_the_cache_encodes_each_key_once_and_survives_the_disk(tmp_path):
    calls = []

    def encoder(frames):
        calls.append(len(frames))
        return frames.mean(dim=(2, 3))[:, None]

    frames = torch.rand(3, 3, 4, 4)
    cache = CachedFeatures(tmp_path / "deep" / "features.safetensors", encoder, "mean")
    first = cache(["a", "b"], frames[:2])
    assert torch.equal(cache(["b", "c", "a"], frames[[1, 2, 0]])[[2, 0]], first)
    assert calls == [2, 1] and len(cache) == 3
    cache.save()
    again = CachedFeatures(cache.path, encoder, "mean")
    assert torch.equal(again(["a", "b"], frames[:2]), first) and calls == [2, 1]
    assert [path.name for path in cache.path.parent.iterdir()] == ["features.safetensors"]
    with pytest.raises(ValueError, match="'mean', not of 'other'"):
        CachedFeatures(cache.path, encoder, "other")
    with pytest.raises(ShapeError, match="one key"):
        cache(["a"], frames)


def test_frame_keys_tell_contents_and_shapes_apart():
    frame = np.zeros((4, 8, 3), np.uint8)
    other = frame.copy()
    other[1, 2, 0] = 1
    assert frame_key(frame) == frame_key(frame.copy())
    assert len({frame_key(frame), frame_key(other), frame_key(frame.reshape(8, 4, 3))}) == 3


def test_dinov2_gets_normalised_224_pixel_images():
    seen = []
    net = DinoV2(lambda picture: seen.append(picture) or torch.zeros(len(picture), 256, 768))
    assert net(torch.zeros(2, 3, 500, 640)).shape == (2, 256, 768)
    assert seen[0].shape == (2, 3, 224, 224)
    assert torch.allclose(seen[0][0, :, 5, 5], (0.5 - net.mean[:, 0, 0]) / net.std[:, 0, 0])


def test_dinov2_says_what_to_do_where_it_cannot_be_had(monkeypatch):
    def missing():
        raise ImportError("No module named 'timm'")

    def offline():
        raise OSError("no network")

    monkeypatch.setattr(image, "_dinov2_timm", missing)
    monkeypatch.setattr(image, "_dinov2_hub", offline)
    with pytest.raises(RuntimeError, match=r"pip install timm.*PatchEncoder"):
        dinov2()


def test_shrinking_means_over_what_a_pixel_covers():
    frames = torch.arange(2 * 3 * 16, dtype=torch.float32).reshape(2, 3, 4, 4)
    small = shrink(frames, 2)
    assert torch.equal(small[1, 2, 0, 1], frames[1, 2, :2, 2:].mean())
    assert shrink(frames, 4) is frames
    assert torch.allclose(shrink(frames, 3).mean(), frames.mean()), "sizes that do not divide keep the mean too"
    with pytest.raises(ShapeError, match="cannot be shrunk to 5 x 5"):
        shrink(frames, 5)
