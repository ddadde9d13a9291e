"""A glance says where things of each colour are, and nothing of what never changes."""

from __future__ import annotations

import torch

from kinelib.robots.colour_glance import FACTS, ColourGlance, k_means

RED, GREEN = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, 1.0, -1.0])


def scenes(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (M, 1, 32, 32, 3) of a red and a green square on a striped ground, and their middles (M, 2, 2) in xy."""
    draw = torch.Generator().manual_seed(seed)
    ground = torch.where(torch.arange(32)[:, None, None] % 8 < 4, 60, 140).expand(32, 32, 3)
    pictures = ground.repeat(count, 1, 1, 1).byte()
    corners = torch.randint(0, 14, (count, 2, 2), generator=draw) + torch.tensor([[0, 0], [14, 14]])
    for row, ((x1, y1), (x2, y2)) in enumerate(corners.tolist()):
        pictures[row, y1 : y1 + 4, x1 : x1 + 4] = ((RED + 1) * 127.5).byte()
        pictures[row, y2 : y2 + 4, x2 : x2 + 4] = ((GREEN + 1) * 127.5).byte()
    return pictures[:, None], (corners + 2) / 16 - 1


def glance() -> tuple[ColourGlance, torch.Tensor, torch.Tensor]:
    pictures, middles = scenes(200)
    made = ColourGlance(1, 32, 2)
    return made, made.measure(pictures, torch.Generator().manual_seed(0)), middles


def test_places_of_colours_are_found_and_the_ground_is_not_seen():
    made, features, middles = glance()
    assert features.shape == (200, 2 * FACTS)
    order = [int((made.colours - colour).square().sum(1).argmin()) for colour in (RED, GREEN)]
    assert sorted(order) == [0, 1], "one centre a colour"
    facts = (features * made.scale + made.shift).reshape(200, 2, FACTS)[:, order]
    # The middle is drawn towards that of the picture by one pixel's weight among sixteen.
    assert (facts[..., 1:3] - middles * 16 / 17).abs().max() < 1e-2
    # A pixel over which squares lie in most of the pictures is taken for ground.
    assert (facts[..., 0].exp() - 17).abs().max() < 2
    assert (facts[..., 0].exp() - 17).abs().median() < 0.01


def test_features_are_standardised_and_the_same_when_looked_at_again():
    made, features, _ = glance()
    assert features.mean(0).abs().max() < 1e-3
    pictures, _ = scenes(200)
    frames = pictures[:5].permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    assert torch.allclose(made(frames), features[:5], atol=1e-4)
    assert torch.allclose(made.look(pictures[:21]), features[:21], atol=1e-4), "however many are looked at together"


def test_an_empty_scene_gives_finite_numbers():
    made, _, _ = glance()
    assert torch.isfinite(made(made.background[None])).all()


def test_k_means_finds_clusters_far_apart():
    draw = torch.Generator().manual_seed(2)
    truth = torch.tensor([[0.0, 0, 0], [5, 0, 0], [0, 5, 0]])
    points = truth.repeat(50, 1) + 0.1 * torch.randn(150, 3, generator=draw)
    found = k_means(points, 3, draw)
    assert torch.cdist(truth, found).amin(1).max() < 0.1
