"""Errors of plans stand between those of knowing everything and of foreseeing nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.robots.demonstration_shards import Demonstration
from kinelib.robots.planner_scores import planner_scores

FRAMES, MOVE = 5, 0.4


def demonstration(move: float = MOVE, seed: int = 1) -> Demonstration:
    """Four points that go to the right at an even pace, four that stand."""
    shift = np.where(np.arange(8) < 4, move, 0)[:, None] * np.linspace(0, 1, FRAMES)
    tracks = np.stack([shift, np.zeros_like(shift)], axis=-1)[None].astype(np.float16)
    seen, steps = np.ones((1, 8, FRAMES), bool), 4 * (FRAMES - 1)
    numbers = np.zeros((steps + 1, 2), np.float32)
    pictures = np.zeros((1, FRAMES, 16, 16, 3), np.uint8)
    return Demonstration(
        "toy", "left", "held-out", seed, "go", ("front",), 4, 20.0, steps, pictures, tracks, seen,
        numbers, numbers[:-1], numbers[:-1], numbers.astype(float),
    )  # fmt: skip


class Perfect:
    """An autoencoder whose latent is the distance covered: what is encoded comes out exactly."""

    config = SimpleNamespace(frame_size=8)

    def encode(self, tracks, frames, keep):
        return SimpleNamespace(mean=(tracks[:, :, -1, 0] - tracks[:, :, 0, 0])[:, None, :, None, None])

    def decode(self, latents, frames, points, num_frames):
        pace = torch.linspace(0, 1, num_frames)[:, None] * torch.tensor([1.0, 0.0])
        return points[:, :, None] + latents.reshape(len(points), -1, 1, 1) * pace


class Half:
    """A planner that foresees half of the distance for every point."""

    config = SimpleNamespace(window=16, every=4, frame_size=16)

    def plan(self, frames, text, steps, seed):
        return torch.full((1, 1, 1, 1, 1, 1), MOVE / 2)

    def denormalize(self, latents):
        return latents


ENCODER = SimpleNamespace(encode=lambda sentences: None)


def test_errors_are_shares_of_the_picture_over_points_that_move():
    found = planner_scores(Half(), Perfect(), [demonstration(), demonstration(seed=2)], stride=8, encoder=ENCODER)
    # Mean over five frames of an even motion: half of the way; 0.4 of a picture that is 2 wide.
    still = 100 * MOVE / 2 / 2
    assert found["standing still"].value == pytest.approx(still, rel=2e-3)
    assert found["planned"].value == pytest.approx(still / 2, rel=2e-3)
    assert found["encoded"].value == pytest.approx(0, abs=1e-2)


def test_a_scene_in_which_nothing_moves_is_refused_and_one_scene_has_no_interval():
    with pytest.raises(ShapeError, match="at least 2"):
        planner_scores(Half(), Perfect(), [demonstration()], encoder=ENCODER)
    with pytest.raises(ValueError, match="nothing moves"):
        planner_scores(Half(), Perfect(), [demonstration(0.01)], encoder=ENCODER)
