"""Ways between two motions: ends, evenness, the shell of the normal draws, and the measure of smoothness."""

import pytest
import tiny
import torch

from kinelib.notation import ShapeError
from kinelib.zipmo.forecast import LatentForecast
from kinelib.zipmo.interpolation import great_circle, sample_from_noise, smoothness, straight_way


def draws(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tiny.LATENT, generator=generator), torch.randn(tiny.LATENT, generator=generator)


@pytest.mark.parametrize("way", [straight_way, great_circle])
def test_a_way_begins_and_ends_where_it_should(way):
    first, last = draws()
    steps = way(first, last, 5)
    assert steps.shape == (5, *first.shape)
    assert torch.allclose(steps[0], first, atol=1e-5) and torch.allclose(steps[-1], last, atol=1e-5)


def test_a_quarter_circle_is_walked_in_even_turns_and_a_chord_cuts_it():
    first, last = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    circle = great_circle(first, last, 4)
    angles = torch.atan2(circle[:, 1], circle[:, 0]).rad2deg()
    assert torch.allclose(angles, torch.tensor([0, 30, 60, 90.0]), atol=1e-4)
    assert torch.allclose(circle.norm(dim=-1), torch.linspace(1, 2, 4), atol=1e-5)
    noise = draws()
    size = lambda way: 2 * way(*noise, 3)[1].norm() / (noise[0].norm() + noise[1].norm())
    assert size(straight_way) < 0.8 and size(great_circle) == pytest.approx(1, abs=1e-4)


def test_ends_that_are_the_same_or_opposite():
    first, _ = draws()
    assert torch.allclose(great_circle(first, first, 3), first.expand(3, *first.shape))
    for bad in (-first, torch.zeros_like(first)):
        with pytest.raises(ShapeError):
            great_circle(first, bad, 3)
    for bad in (dict(last=first[0], steps=3), dict(last=first, steps=1), dict(last=first * float("nan"), steps=2)):
        with pytest.raises(ShapeError):
            straight_way(first, **bad)


def test_given_noise_leads_where_the_sampler_leads_from_it():
    forecast = LatentForecast(tiny.autoencoder(), tiny.planner(), steps=3)
    (pokes, mask), frames = tiny.pokes(), tiny.frames()
    noise = torch.randn((2 * 3, *tiny.LATENT), generator=torch.Generator().manual_seed(4)).unflatten(0, (2, 3))
    assert torch.allclose(
        sample_from_noise(forecast, frames, pokes, mask, noise),
        forecast.latents(frames, pokes, mask, samples=3, seed=4),
        atol=1e-5,
    )
    with pytest.raises(ShapeError, match="noise"):
        sample_from_noise(forecast, frames, pokes, mask, noise[:, :, 0])


def test_a_straight_even_way_has_no_detour_and_no_jump():
    first, last = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
    found = smoothness(straight_way(first, last, 6))
    assert (
        found.detour == pytest.approx(1) and found.largest_jump == pytest.approx(1) and found.distance == pytest.approx(64)
    )
    there_and_back = torch.stack([first, last, first + 0.5])
    assert smoothness(there_and_back).detour == pytest.approx(3)
    late = torch.stack([first, first, first, last])
    assert smoothness(late).largest_jump == pytest.approx(3) and smoothness(late).detour == pytest.approx(1)
    with pytest.raises(ShapeError, match="same motion"):
        smoothness(torch.stack([first, last, first]))
    with pytest.raises(ShapeError, match="2 ends"):
        smoothness(first[None])
