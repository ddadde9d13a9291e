"""The video model: it starts as the blend, keeps the given frames, moves textures where it says, and learns."""

import pytest
import tiny
import torch

from kinelib.learning import checkpoints
from kinelib.learning.fit import FitConfig, fit
from kinelib.notation import ShapeError
from kinelib.tracks.scenes import sample_scenes
from kinelib.zipmo.video_model import VideoConfig, VideoFlowMatcher, scene_videos, video_draw, video_loss

CONFIG = VideoConfig(num_frames=4, frame_size=16, span=2, patch=4, width=32, depth=2, heads=2)


def small(noise=0.0, **changes):
    torch.manual_seed(0)
    return tiny.disturbed(VideoFlowMatcher(VideoConfig(**{**CONFIG.__dict__, **changes})), noise)


def noise_like(model, count=2, seed=0):
    config = model.config
    shape = (count, config.num_frames, 3, config.frame_size, config.frame_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("warp", [True, False])
def test_an_untrained_model_answers_with_the_linear_blend(warp):
    model, first, last = small(warp=warp), tiny.frames(2), tiny.frames(2, seed=1)
    videos = model.sample(first, last, samples=3, steps=2)
    assert videos.shape == (2, 3, 4, 3, 16, 16)
    share = torch.tensor([0, 1 / 3, 2 / 3, 1])[:, None, None, None]
    blend = first[:, None] * (1 - share) + last[:, None] * share
    torch.testing.assert_close(videos, blend[:, None].expand_as(videos), atol=1e-5, rtol=0)


def test_the_given_frames_stay_and_the_rest_differs_between_samples():
    model, first, last = small(0.1), tiny.frames(2), tiny.frames(2, seed=1)
    videos = model.sample(first, last, samples=3, steps=3, seed=5)
    assert torch.equal(videos[:, :, 0], first[:, None].expand(-1, 3, -1, -1, -1))
    assert torch.equal(videos[:, :, -1], last[:, None].expand(-1, 3, -1, -1, -1))
    assert (videos[:, 0, 1] - videos[:, 1, 1]).abs().max() > 0.01 and videos.abs().max() <= 1
    assert torch.equal(videos, model.sample(first, last, samples=3, steps=3, seed=5))
    assert not torch.equal(videos, model.sample(first, last, samples=3, steps=3, seed=6))


def test_tokens_and_videos_are_inverse_to_each_other():
    model = small()
    video = noise_like(model)
    tokens = model._tokens(video)
    assert tokens.shape == (2, 2 * 4 * 4, 2 * 3 * 16)
    assert torch.equal(model._video(tokens, 4), video)


def test_moves_say_where_a_pixel_comes_from():
    model = small()
    first = tiny.frames(1)
    moves, mix = torch.zeros(1, 4, 4, 8, 8), torch.full((1, 4, 1, 16, 16), -40.0)  # only the first frame
    moves[:, 1, 0], moves[:, 2, 1] = 2 / 16 * 3, -2 / 16 * 2  # three pixels from the right, two from above
    painted = model.paint(first, torch.zeros_like(first), moves, mix)
    torch.testing.assert_close(painted[:, 0], first, atol=1e-4, rtol=0)
    torch.testing.assert_close(painted[:, 1, :, :, :13], first[:, :, :, 3:], atol=1e-4, rtol=0)
    torch.testing.assert_close(painted[:, 2, :, 2:], first[:, :, :-2], atol=1e-4, rtol=0)
    last = tiny.frames(1, seed=3)
    torch.testing.assert_close(model.paint(first, last, 0 * moves, -mix)[:, 2], last, atol=1e-4, rtol=0)


@pytest.mark.parametrize("warp", [True, False])
def test_every_parameter_that_is_used_gets_a_gradient(warp):
    model = small(0.1, warp=warp).requires_grad_(True)
    model.loss(noise_like(model).clamp(-1, 1), torch.Generator().manual_seed(0))["loss"].backward()
    silent = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert silent == (set() if warp else {"moves_out", "mix_out"})


def test_the_loss_of_the_blend_is_the_residual_itself():
    model = small(residual_scale=0.5, least_time=1.0)  # no error is weighted up
    video = noise_like(model).clamp(-1, 1)
    residual = video - model.blend(video[:, 0], video[:, -1])
    terms = model.loss(video, torch.Generator().manual_seed(0))
    torch.testing.assert_close(terms["pixel"], residual.square().mean().sqrt(), rtol=1e-3, atol=0)
    torch.testing.assert_close(terms["loss"], (residual / 0.5).square().mean(), rtol=1e-3, atol=0)


def test_it_learns_the_videos_it_is_shown(tmp_path):
    videos = scene_videos(4, 5, size=16, num_frames=4, families=("camera",))
    model = small().requires_grad_(True)

    @torch.no_grad()
    def error():
        return model.loss(videos.float() / 127.5 - 1, torch.Generator().manual_seed(1))["pixel"].item()

    before = error()
    fit(model, video_draw(videos, 4), video_loss, FitConfig(steps=60, learning_rate=4e-3, ema_decay=0.8), tmp_path)
    assert error() < 0.8 * before


def test_a_checkpoint_brings_back_the_same_videos(tmp_path):
    model, first, last = small(0.1), tiny.frames(1), tiny.frames(1, seed=1)
    checkpoints.save(tmp_path / "video", model, card="a test")
    again = checkpoints.load(tmp_path / "video", VideoFlowMatcher, VideoConfig)
    assert torch.equal(model.sample(first, last, samples=2, steps=2), again.sample(first, last, samples=2, steps=2))


def test_scene_videos_show_the_scenes_of_the_same_seed():
    videos = scene_videos(3, 7, size=16, num_frames=4)
    scenes = sample_scenes(3, 7, size=16, num_frames=10, num_points=5, all_frames=True)
    assert videos.shape == (3, 4, 3, 16, 16) and videos.dtype == torch.uint8
    for ours, theirs in ((0, 0), (1, 3), (2, 6), (3, 9)):  # the same times of 10 frames
        frames = torch.from_numpy(scenes.frames[:, theirs]).permute(0, 3, 1, 2).int()
        assert (videos[:, ours].int() - frames).abs().max() <= 1
    assert torch.equal(videos[:2], scene_videos(2, 7, size=16, num_frames=4))


def test_batches_repeat_and_are_mirrored_half_of_the_time():
    videos = torch.zeros(5, 4, 3, 16, 16, dtype=torch.uint8)
    videos[..., 0] = 255
    draw = video_draw(videos, 200)
    batch = draw(torch.Generator().manual_seed(0))
    assert batch.shape == (200, 4, 3, 16, 16) and torch.equal(batch, draw(torch.Generator().manual_seed(0)))
    assert 70 < (batch[:, 0, 0, 0, 15] == 255).sum() < 130


def test_bad_input_is_refused():
    with pytest.raises(ShapeError, match="tokens of 3"):
        small(span=3)
    with pytest.raises(ShapeError, match="patch"):
        small(patch=5)
    model = small()
    with pytest.raises(ShapeError, match="last"):
        model.sample(tiny.frames(2), tiny.frames(1))
    with pytest.raises(ValueError, match="at least 1"):
        model.sample(tiny.frames(1), tiny.frames(1), samples=0)
    with pytest.raises(ShapeError, match="first holds"):
        model.sample(tiny.frames(1) / 0, tiny.frames(1))
    with pytest.raises(ShapeError, match="video"):
        model.loss(torch.zeros(2, 5, 3, 16, 16))
