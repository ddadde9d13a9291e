"""The seven figures of the project page, from a forecaster that is small and untrained."""

import re
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from kinelib.course import project_page
from kinelib.tracks.scenes import sample_scenes
from kinelib.zipmo.forecast import LatentForecast

NAMES = ["path-finding", "rotation", "joints", "futures", "distributions", "interpolation", "long-motion"]


@pytest.fixture(scope="module")
def latent():
    sys.path.insert(0, str(Path(__file__).parents[1] / "zipmo"))
    try:
        import tiny
    finally:
        sys.path.pop(0)
    return LatentForecast(tiny.autoencoder(noise=0.05), tiny.planner(), steps=1)


def title(figure):
    return figure.get_suptitle()


def test_true_futures_share_the_first_frame_and_differ_later(latent):
    page = project_page.Page(latent, 0, 2)
    scenes = page.draw("vehicle")
    found = project_page._true_futures(page, scenes, 3)
    count = scenes.tracks.num_points
    assert found.shape == (2, 3, count + 1, 64, 2)
    assert torch.allclose(found[:, :, :count, 0], scenes.tracks.query_points[:, None].expand(-1, 3, -1, -1), atol=1e-4)
    assert (found[:, 0, -1, -1] - found[:, 1, -1, -1]).norm(dim=-1).min() > 1e-3
    # With the camera's motion undone, the background stands still in every future.
    ground = ~scenes.on_object
    moved = (found[:, :, :count, -1] - found[:, :, :count, 0]).norm(dim=-1)
    assert moved[ground[:, None].expand_as(moved)].max() < 1e-3


def test_a_body_is_led_around_a_square():
    scenes = sample_scenes(1, 0, families=("rigid",))
    bodies = torch.where(scenes.on_object, 0, -1)
    lead = project_page._around_a_square(bodies, half=0.5)
    middle = lambda xy: xy[0, bodies[0] == 0].mean(0)
    position, visited = scenes.tracks.query_points, []
    for window in range(1, 5):
        pokes, mask = lead(window, position)
        assert pokes.shape == (1, 3, 5) and mask.dtype == torch.bool
        position = position + (pokes[0, 0, 2:4] - pokes[0, 0, :2])
        visited.append(middle(position))
    visited = torch.stack(visited)
    assert torch.allclose(visited.abs(), torch.full((4, 2), 0.5), atol=1e-5)
    assert torch.allclose(visited.diff(dim=0).norm(dim=-1), torch.ones(3), atol=1e-5), "one side a window"


@pytest.mark.slow
def test_all_seven_figures_state_what_they_measured(latent):
    figures = project_page.project_page_figures(latent, seed=1, scenes=2)
    assert list(figures) == NAMES
    for name, figure in figures.items():
        assert isinstance(figure, Figure) and len(figure.axes) >= 2, name
        text = title(figure)
        assert re.search(r"\d", text) and "scene" in text, name
        figure.canvas.draw()
    for name in ("path-finding", "rotation", "joints"):
        assert all(word in title(figures[name]) for word in ("true 0", "linear", "ours")), name
    assert "10.5 s in 4 windows" in title(figures["long-motion"])


def test_a_measure_is_taken_once_and_is_zero_for_what_truly_moved(latent):
    page = project_page.Page(latent, 0, 2)
    found = project_page.compare(page, "arm", 1)
    assert list(found["link"]) == ["true", "reconstructed", "linear", "ours"]
    assert found["link"]["true"] < 0.01 and found["base"]["true"] < 0.01
    assert found["base"]["linear"] > 1, "one poke on a moving link carries the whole arm away"
    assert project_page.compare(project_page.Page(latent, 0, 2), "arm", 1) is found
    assert project_page.compare(project_page.Page(latent, 1, 2), "arm", 1) is not found


def test_both_ways_between_two_futures_share_their_ends(latent):
    straight, turned = project_page.ways(project_page.Page(latent, 0, 2), 3).values()
    assert straight.shape == turned.shape and straight.shape[0] == 3
    assert torch.allclose(straight[[0, -1]], turned[[0, -1]], atol=1e-4)
    assert (straight[0] - straight[-1]).abs().max() > 1e-3


def test_distributions_are_drawn_from_equally_many_samples(latent):
    rows = project_page.middles(project_page.Page(latent, 0, 2), 3)
    assert list(rows) == ["true", "ours, no poke", "ours, one poke"]
    assert all(paths.shape == (3, 64, 2) for paths in rows.values())
    starts = torch.stack([paths[:, 0] for paths in rows.values()])
    assert torch.allclose(starts[0], starts[0, :1].expand_as(starts[0]), atol=1e-5), "one picture, one place"
