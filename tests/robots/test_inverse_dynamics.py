"""Tracks tell what was done: learnt from a hand seen by two cameras, and put together into chunks for recordings."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from einops import einsum

from kinelib.notation import ShapeError
from kinelib.robots.demonstration_shards import write_demonstrations
from kinelib.robots.inverse_dynamics import InverseDynamics, InverseDynamicsConfig, label_recordings
from kinelib.robots.robot_data import joined, load_set, moment_tracks, window_tracks
from tests.robots.test_robot_data import demonstration

CONFIG = InverseDynamicsConfig(
    ("a", "b"), (-1, 0, 1, 2), proprio=3, every=2, actions=3, frame_size=16, colours=3, width=32, scores=2, hidden=64
)


def scene(batch: int, seed: int):
    """A hand of three points among five that stand still, in a random order, drawn by two cameras that see other axes."""
    draw = torch.Generator().manual_seed(seed)
    cameras = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(99)) / 2
    hand = torch.rand(batch, 3, generator=draw) - 0.5
    actions = torch.rand(batch, 2, 3, generator=draw) * 2 - 1
    # Frames before, here, after one interval and after two; a hand goes a hundredth an action, both of the first interval.
    moved = torch.stack([torch.zeros(batch, 3), torch.zeros(batch, 3), actions.mean(1) / 10, actions.mean(1) / 10], 1)
    rigid = torch.randn(3, 3, generator=torch.Generator().manual_seed(98)) / 20
    world = torch.rand(batch, 8, 1, 3, generator=draw).expand(-1, -1, 4, -1) - 0.5
    world = torch.cat([hand[:, None, None] + moved[:, None] + rigid[None, :, None], world[:, 3:]], dim=1)
    tracks = einsum(cameras, world, "v xy d, b n f d -> b v n f xy")
    order = torch.rand(batch, 1, 8, generator=draw).expand(-1, 2, -1).argsort(-1)
    tracks = tracks.gather(2, order[..., None, None].expand(-1, -1, -1, 4, 2))
    # A glance's thirty numbers, of which the first six know the hand.
    seen = torch.cat([hand, -hand, torch.randn(batch, 24, generator=draw)], 1)
    return tracks, torch.ones(batch, 2, 8, dtype=torch.bool), seen, hand, actions.mean(1, keepdim=True).expand(-1, 2, -1)


def test_where_a_hand_is_and_what_it_does_is_learnt_from_points_in_any_order():
    torch.manual_seed(0)
    model, draw = InverseDynamics(CONFIG).train(), torch.Generator().manual_seed(0)
    tracks, keep, seen, hand, actions = scene(4096, 1)
    model.measure_statistics(hand)
    optimizer, valid = torch.optim.Adam(model.parameters(), 3e-3), torch.ones(128, 2, dtype=torch.bool)
    for _ in range(400):
        rows = torch.randint(4096, (128,), generator=draw)
        losses = model.loss(tracks[rows], keep[rows], seen[rows], hand[rows], actions[rows], valid, draw)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    tracks, keep, seen, hand, actions = scene(512, 2)
    model.eval().requires_grad_(False)
    felt, done = model(tracks, keep, seen)
    assert felt.shape == (512, 3)
    assert done.shape == (512, 2, 3)
    assert (done - actions).abs().mean() < 0.4 * actions.abs().mean(), "1 is what saying nothing gets"
    assert (felt - hand).abs().mean() < 0.5 * hand.abs().mean()
    turned = tracks.flip(2)
    assert torch.allclose(model(turned, keep, seen)[1], done, atol=1e-5), "points have no order"


def test_points_that_are_not_kept_say_nothing():
    torch.manual_seed(0)
    model = InverseDynamics(CONFIG).eval().requires_grad_(False)
    tracks, keep, seen, *_ = scene(4, 0)
    keep[:, :, 5:] = False
    told = model(tracks, keep, seen)
    spoilt = tracks.clone()
    spoilt[:, :, 5:] = float("nan")
    for one, other in zip(told, model(spoilt, keep, seen), strict=True):
        assert torch.equal(one, other)
    assert torch.allclose(told[1], model(tracks[:, :, :5], keep[:, :, :5], seen)[1], atol=1e-6)
    blind = keep.clone()
    blind[:, 1] = False
    assert model(tracks, blind, seen)[1].isfinite().all(), "one view is enough for an answer"
    with pytest.raises(ShapeError, match="NaN or infinite"):
        model(spoilt, torch.ones_like(keep), seen)
    with pytest.raises(ShapeError, match="tracks"):
        model(tracks[:, :, :, :3], keep, seen)
    with pytest.raises(ShapeError, match="seen"):
        model(tracks, keep, seen[:, :5])
    with pytest.raises(ValueError, match="the moment itself"):
        InverseDynamics(replace(CONFIG, offsets=(1, 2, 3, 4)))


@pytest.fixture
def folder(tmp_path):
    write_demonstrations([demonstration(0), demonstration(1)], tmp_path / "left-train-000.parquet", {})
    write_demonstrations([demonstration(0, "right", 9)], tmp_path / "right-train-000.parquet", {})
    return tmp_path


def test_tracks_around_every_moment_are_those_of_its_demonstration(folder):
    offsets = (-2, -1, 0, 1, 3, 9)
    tracks, keep = moment_tracks(folder, offsets, points=5)
    assert tracks.shape == (len(load_set(folder, size=16)), 2, 5, 6, 2)
    assert keep.shape == tracks.shape[:3]
    expected, seen = window_tracks(demonstration(1), 2, offsets, 5, seed=7)
    assert torch.equal(tracks[7], expected.half())
    assert torch.equal(keep[7], seen)
    assert torch.equal(tracks[5, :, :, 0], tracks[5, :, :, 2]), "nothing moves before an episode begins"
    assert not torch.equal(tracks[5, :, :, 2], tracks[5, :, :, 3])
    assert torch.equal(tracks[8, :, :, 4], tracks[8, :, :, 5]), "nor after it has ended"


def test_a_recordings_chunks_are_put_together_from_successive_moments(folder):
    class Told:
        """Stands where the model is: moment m did 0.01 m, and felt m."""

        config = SimpleNamespace(every=4)

        glance = SimpleNamespace(look=lambda pictures: pictures.flatten(1))

        def __call__(self, tracks, keep, seen):
            moment = tracks[:, 0, 0, 0, 0]
            return moment[:, None].expand(-1, 3), (moment / 100)[:, None, None].expand(-1, 4, 2)

    data = load_set(folder, horizon=6, size=16)
    tracks = torch.arange(float(len(data)))[:, None, None, None, None].expand(-1, 2, 3, 4, 2)
    told = label_recordings(data, tracks, torch.ones(len(data), 2, 3, dtype=torch.bool), Told())
    assert torch.equal(told.proprio[:, 0], torch.arange(float(len(data))))
    assert torch.allclose(told.chunks[2, :, 0], torch.tensor([0.02] * 4 + [0.03] * 2))
    assert torch.equal(told.valid, data.valid), "where a demonstration ends is known"
    with pytest.raises(ShapeError, match="tracks"):
        label_recordings(data, tracks[1:], torch.ones(len(data) - 1, 2, 3, dtype=torch.bool), Told())


def test_two_sets_are_one(folder):
    whole, left, right = (load_set(folder, size=16, **which) for which in ({}, {"tasks": ["left"]}, {"tasks": ["right"]}))
    both = joined(left, right)
    for name in ("pictures", "proprio", "chunks", "valid", "window_of", "starts"):
        assert torch.equal(getattr(both, name), getattr(whole, name)), name
    assert both.tasks == whole.tasks
    rows = torch.arange(len(whole))
    assert both.texts(rows) == whole.texts(rows)
    assert joined(left, left).sentences == left.sentences, "a sentence is kept once"
