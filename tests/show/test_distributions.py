"""Densities of where a point may be: their integral, their regions, and the figure."""

import math

import numpy as np
import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.show.distributions import position_density, region_area, region_level, show_distributions

FRAME = np.full((32, 32, 3), 120, np.uint8)


def paths(count=20, seed=0):
    steps = torch.randn(count, 16, 2, generator=torch.Generator().manual_seed(seed)) * 0.05
    steps[:, 0] = 0
    return steps.cumsum(1)


def test_a_density_integrates_to_the_share_that_lies_in_the_frame():
    cell = (2 / 128) ** 2
    assert position_density(torch.zeros(3, 2)).sum() * cell == pytest.approx(1, abs=1e-4)
    half = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    assert position_density(half).sum() * cell == pytest.approx(0.5, abs=1e-4)
    assert position_density(torch.tensor([[1.0, 0.0]])).sum() * cell == pytest.approx(0.5, abs=1e-2)


def test_a_point_up_and_to_the_right_is_there_in_the_density():
    row, column = np.unravel_index(position_density(torch.tensor([[0.5, -0.5]])).argmax(), (128, 128))
    assert abs(row - 31.5) <= 0.5 and abs(column - 95.5) <= 0.5


def test_the_region_of_one_gaussian_has_its_known_area():
    blur = 0.1
    density = position_density(torch.zeros(1, 2), blur, cells=400)
    for mass in (0.5, 0.9):
        exact = 100 * math.pi * blur**2 * -2 * math.log(1 - mass) / 4
        assert region_area(density, mass) == pytest.approx(exact, rel=0.02)
    assert region_level(density, 0.5) > region_level(density, 0.9)
    assert region_area(np.ones((10, 10)), 0.25) == 100, "cells of one density are not told apart"


def test_more_spread_takes_more_area():
    areas = [region_area(position_density(paths()[:, time])) for time in (1, 8, 15)]
    assert areas[0] < areas[1] < areas[2]


def test_the_figure_has_a_panel_for_every_row_and_moment_and_says_who_left():
    gone = paths(8)
    gone[:3, -1] = 2.0
    poke = torch.tensor([[0.0, 0.0, 0.5, 0.5, 1.0]]), None
    rows = {"true": paths(12), "ours": gone}
    figure = show_distributions(FRAME, rows, (0.5, 1.0), pokes={"ours": poke}, title="of a point")
    panels = [axes for axes in figure.axes if axes.get_images()]
    assert len(panels) == 4 and "12 samples" in panels[0].get_ylabel() and "time 1" in panels[1].get_title(loc="left")
    assert "3 left it" in panels[3].get_xlabel() and "left" not in panels[2].get_xlabel()
    figure.canvas.draw()


def test_bad_input_is_refused():
    good = {"ours": paths()}
    for bad in (
        dict(rows={}),
        dict(rows=good, times=(2.0,)),
        dict(rows={"ours": paths()[0]}),
        dict(rows=good, pokes={"x": 0}),
    ):
        with pytest.raises(ShapeError):
            show_distributions(FRAME, **bad)
    with pytest.raises(ShapeError):
        position_density(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="share"):
        region_level(np.ones((2, 2)), 0.0)
