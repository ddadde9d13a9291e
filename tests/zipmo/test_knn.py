"""Nearest neighbours: the vote on paper, chance on counts, features against their definitions, a class that can be told."""

import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.zipmo import knn
from tests.zipmo.tiny import AUTOENCODER, autoencoder

POINTS = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
NAMES = ["right", "right", "up", "up", "up"]


def test_the_nearest_by_angle_wins_and_length_does_not_matter():
    probes = torch.tensor([[100.0, 1.0], [0.01, 0.2]])
    assert knn.nearest_labels(POINTS, NAMES, probes, 1) == ["right", "up"]
    assert knn.nearest_labels(POINTS, NAMES, -probes, 1) == ["up", "right"], "the opposite direction is the farthest"
    assert knn.nearest_labels(POINTS, NAMES, probes, 5) == ["up", "up"], "with every neighbour the larger class wins"


def test_ties_go_to_the_closer_class():
    reference, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), ["right", "up"]
    assert knn.nearest_labels(reference, labels, torch.tensor([[0.6, 0.5], [0.5, 0.6]]), 2) == ["right", "up"]


def test_a_vote_outweighs_any_similarity():
    reference = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    assert knn.nearest_labels(reference, ["right", "up", "up"], torch.tensor([[1.0, 0.0]]), 3) == ["up"]


def test_accuracy_is_in_percent():
    probes = torch.tensor([[1.0, 0.05], [0.0, 2.0], [1.0, 0.0], [2.0, 0.1]])
    assert knn.knn_accuracy(POINTS, NAMES, probes, ["right", "up", "up", "right"], (1,)) == {1: 75.0}


@pytest.mark.parametrize("k", [0, 6])
def test_k_must_fit(k):
    with pytest.raises(ValueError, match="between 1 and the 5"):
        knn.nearest_labels(POINTS, NAMES, POINTS, k)


def test_misfits_are_refused():
    with pytest.raises(ShapeError):
        knn.nearest_labels(POINTS, NAMES[:3], POINTS, 1)
    with pytest.raises(ShapeError):
        knn.nearest_labels(POINTS, NAMES, torch.full((1, 2), torch.nan), 1)
    with pytest.raises(ShapeError, match="one class a probe"):
        knn.knn_accuracy(POINTS, NAMES, POINTS, NAMES[:2])


def test_chance_counts():
    guess = knn.chance(["a", "a", "a", "b"], ["a", "b", "b", "c"])
    assert guess == {"draw": pytest.approx(100 * (0.75 + 0.25 + 0.25) / 4), "majority": 25.0}


def test_noise_is_at_chance():
    draw = torch.Generator().manual_seed(0)
    labels = ["a", "b", "c", "d"] * 200
    noise = lambda: torch.randn(800, 8, generator=draw)
    said = knn.knn_accuracy(noise(), labels, noise(), labels, (1,))[1]
    assert said == pytest.approx(knn.chance(labels, labels)["draw"], abs=5)


def test_latent_features_pool_and_flatten():
    latents = torch.randn(3, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    found = knn.latent_features(latents)
    torch.testing.assert_close(found["pooled"], latents.mean((1, 2, 3)))
    assert torch.equal(found["flat"], latents.reshape(3, -1))


def test_track_features_do_not_depend_on_the_order_of_tracks():
    scenes = knn.labelled_scenes(4, 5, size=16)
    tracks = scenes.clips.tracks.float()
    order = torch.randperm(tracks.shape[1], generator=torch.Generator().manual_seed(0))
    ours, theirs = knn.track_features(tracks, (4, 4)), knn.track_features(tracks[:, order], (4, 4))
    for name, width in (("pooled", 128), ("flat", 4 * 4 * 128)):
        assert ours[name].shape == (4, width)
        torch.testing.assert_close(ours[name], theirs[name])


def test_a_moving_camera_is_the_same_curve_in_every_cell():
    tracks = torch.rand(1, 30, 1, 2) * 2 - 1 + torch.linspace(0, 1, 64)[:, None] * torch.tensor([0.5, -0.2])
    field = knn.track_features(tracks, (4, 4))["flat"].reshape(16, 64, 2)
    torch.testing.assert_close(field[:, -1], torch.tensor([0.5, -0.2]).expand(16, 2))


def test_scenes_are_labelled_by_family_and_mode():
    scenes = knn.labelled_scenes(6, 3, size=16, families=("spinner",))
    assert len(scenes.clips) == len(scenes.labels) == 6
    assert set(scenes.labels) <= {"spinner/cw", "spinner/ccw"}


def test_random_encoders_repeat_and_a_silent_one_is_the_fit():
    weights = lambda **options: knn.random_encoder(AUTOENCODER, 3, **options).codec.posterior[-1].weight
    assert torch.equal(weights(), weights()) and weights().abs().max() > 0
    assert not weights(silent=True).any()
    before = torch.random.get_rng_state()
    weights()
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random numbers do not shift"


def test_the_sense_of_rotation_can_be_told_from_latents_and_from_tracks():
    make = lambda count, seed: knn.labelled_scenes(count, seed, size=16, families=("spinner",))
    reference, probes = make(48, 1), make(24, 2)
    model = autoencoder()
    shift = model.latent_shift.clone()
    ours, raw = knn.encoder_accuracy(model, reference, probes), knn.track_accuracy(reference, probes, (4, 4))
    guess = knn.chance(reference.labels, probes.labels)
    assert max(guess.values()) < 65
    assert max(ours["flat"].values()) > 75 and max(raw["flat"].values()) > 75
    assert set(ours) == {"flat", "pooled"} and set(ours["flat"]) == set(knn.NEIGHBOURS)
    assert torch.equal(model.latent_shift, shift), "measuring leaves the autoencoder's statistics alone"
