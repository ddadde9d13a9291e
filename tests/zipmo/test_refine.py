"""Refined latents: better between the encoded tracks too, smooth corrections, and nothing of the network touched."""

import pytest
import tiny
import torch

from kinelib.notation import ShapeError
from kinelib.zipmo.baselines import copy_nearest_track
from kinelib.zipmo.data import scene_clips
from kinelib.zipmo.evaluate import reconstruct
from kinelib.zipmo.evaluation_data import moving_points
from kinelib.zipmo.pretrained import load_stage
from kinelib.zipmo.refine import Refinement, refine_latents

UNSEEN = 777_000  # seeds that neither training nor the tables use


def error(answer, truth):
    """Mean pixels at 256 of moving points."""
    return float(((answer - truth).norm(dim=-1).mean(-1) * 128)[moving_points(truth)].mean())


def roughness(correction):
    return float(correction.diff(dim=2).square().mean() + correction.diff(dim=3).square().mean())


@pytest.fixture(scope="module")
def encoded():
    """The shipped autoencoder, twelve scenes, their tracks and the latents it encodes 40 of them to."""
    model, clips = load_stage("autoencoder"), scene_clips(12, UNSEEN, size=64)
    tracks, frame = clips.tracks.float(), clips.model_frames()
    with torch.no_grad():
        return model, clips, tracks, frame, model.encode(tracks[:, :40], frame).mean


def test_refined_latents_say_better_where_unseen_points_go(encoded):
    model, clips, tracks, _, _ = encoded
    truth = tracks[:, -40:]
    plain, refined = (error(reconstruct(model, clips, 40, refined=how), truth) for how in (None, Refinement()))
    assert refined < 0.92 * plain
    assert plain < 0.7 * error(copy_nearest_track(tracks[:, :40], truth[:, :, 0]), truth)


def test_corrections_are_as_smooth_as_is_asked(encoded):
    model, _, tracks, frame, latents = encoded
    some = slice(0, 4)
    found = {}
    for smoothness in (0.0, 1000.0):
        how = Refinement(steps=15, smoothness=smoothness)
        found[smoothness] = refine_latents(model, latents[some], tracks[some, :40], frame[some], how=how)
    rough = [roughness(model.normalize(one) - model.normalize(latents[some])) for one in found.values()]
    assert 0 < rough[1] < 0.5 * rough[0]


def test_no_steps_change_nothing(encoded):
    model, _, tracks, frame, latents = encoded
    same = refine_latents(model, latents[:2], tracks[:2, :40], frame[:2], how=Refinement(steps=0))
    assert torch.allclose(same, latents[:2], atol=1e-5)


def test_clips_do_not_mix_and_tracks_that_are_left_out_do_not_count():
    model, clips = tiny.autoencoder(noise=0.1), tiny.scenes(3)
    tracks, frame = clips.tracks.float()[:, :20], clips.model_frames()
    with torch.no_grad():
        latents = model.encode(tracks, frame).mean
    how = Refinement(steps=5)
    together = refine_latents(model, latents, tracks, frame, how=how)
    alone = refine_latents(model, latents[1:2], tracks[1:2], frame[1:2], how=how)
    assert torch.allclose(together[1:2], alone, atol=1e-3) and not torch.allclose(together, latents, atol=1e-3)
    keep = torch.arange(20).expand(3, -1) < 12
    nonsense = torch.where(
        keep[:, :, None, None], tracks, torch.rand(tracks.shape, generator=torch.Generator().manual_seed(0))
    )
    both = [refine_latents(model, latents, each, frame, how=how, keep=keep) for each in (tracks, nonsense)]
    assert torch.allclose(*both, atol=1e-5)


def test_the_network_stays_as_it_is_and_gradients_are_nobodys_business():
    model, clips = tiny.autoencoder(noise=0.1).train(), tiny.scenes(2)
    tracks, frame = clips.tracks.float()[:, :20], clips.model_frames()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        latents = model.encode(tracks, frame).mean
        refined = refine_latents(model, latents, tracks, frame, how=Refinement(steps=3))
    assert not refined.requires_grad and all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_mistakes_are_told():
    model, clips = tiny.autoencoder(), tiny.scenes(2)
    tracks, frame = clips.tracks.float()[:, :20], clips.model_frames()
    latents = model.encode(tracks, frame).mean
    with pytest.raises(ShapeError, match="latents"):
        refine_latents(model, latents[:1], tracks, frame)
    with pytest.raises(ShapeError, match="tracks"):
        refine_latents(model, latents, tracks[0], frame)
    with pytest.raises(ShapeError, match="keep"):
        refine_latents(model, latents, tracks, frame, keep=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ShapeError, match="finite"):
        refine_latents(model, latents, tracks * torch.nan, frame)
    with pytest.raises(ValueError, match="rate > 0"):
        Refinement(rate=0.0)
