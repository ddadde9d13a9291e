"""Measures of what is possible: analytic bodies, walls and joints, and true scenes, which break no rule."""

import math

import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.zipmo import baselines
from kinelib.zipmo.plausibility import (
    bodies_of,
    body_pokes,
    crosses_walls,
    evaluate_plausibility,
    fit_rigid,
    link_length_error,
    measure,
    measure_truth,
    questions,
    rigidity_error,
    still_camera_scenes,
    turning_consistency,
)

SQUARE = torch.tensor([[-0.2, -0.2], [0.2, -0.2], [0.2, 0.2], [-0.2, 0.2]], dtype=torch.float64)
NAN = float("nan")


def turned(degrees, shift=(0.0, 0.0), scale=None):
    """The square turned by (T,) degrees about the origin, scaled by (T,) and shifted evenly: (1, 1, 4, T, 2)."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(-1, 2, 2)
    tracks = torch.einsum("tij,nj->nti", matrix, SQUARE)
    if scale is not None:
        tracks = tracks * torch.tensor(scale, dtype=torch.float64)[:, None]
    return (tracks + torch.linspace(0, 1, len(degrees), dtype=torch.float64)[:, None] * torch.tensor(shift))[None, None]


def path(*points):
    return torch.tensor(points)[None, None, None]


def test_a_turning_sliding_square_is_rigid_and_its_angle_is_found_beyond_a_half_turn():
    tracks = turned([0, 90, 170, 250, 400], shift=(0.3, -0.1))
    fit = fit_rigid(tracks, torch.ones(1, 4, dtype=torch.bool))
    assert torch.allclose(fit.angle[0, 0], torch.tensor([0, 90, 170, 250, 400.0], dtype=torch.float64), atol=1e-6)
    assert fit.residual.abs().max() < 1e-9
    assert fit.size.item() == pytest.approx(0.2 * math.sqrt(2) * 64)


def test_a_growing_square_bends_by_exactly_what_it_grows():
    pixels, percent = rigidity_error(turned([0, 0], scale=[1.0, 1.5]), torch.zeros(1, 4, dtype=torch.long))
    # Half of the frames are off by half the size.
    assert percent.item() == pytest.approx(25)
    assert pixels.item() == pytest.approx(0.25 * 0.2 * math.sqrt(2) * 64)


def test_bodies_are_judged_apart_and_too_small_ones_are_left_out():
    one, other = turned([0, 60]), turned([0, -60], shift=(0.5, 0.5))
    both = torch.cat([one, other], dim=2)
    apart = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    assert rigidity_error(both, apart)[0].item() < 1e-9
    assert rigidity_error(both, torch.zeros_like(apart))[0].item() > 1
    assert rigidity_error(both, torch.tensor([[0, 0, 0, 0, 1, 1, -1, -1]]))[0].item() < 1e-9
    assert torch.isnan(rigidity_error(both, torch.full((1, 8), -1))[0]).all()
    assert torch.isnan(fit_rigid(both, apart == 2).residual).all()


def test_turning_back_is_told_from_turning_on():
    angles = torch.tensor([[[0, 20, 40.0], [0, 40, 20.0], [0, 40, 0.0], [0, 1, 2.0]]])
    found = turning_consistency(angles)[0]
    assert found[:3].tolist() == pytest.approx([100, 100 / 3, 0]) and torch.isnan(found[3])


def test_a_path_through_a_wall_is_caught_even_between_frames():
    walls = torch.tensor([[[-0.05, -1.0, 0.05, 0.3], [NAN] * 4]])
    through = path([-0.5, 0.0], [0.5, 0.0])  # no frame is inside the wall
    around = path([-0.5, 0.0], [-0.5, 0.5], [0.5, 0.5], [0.5, 0.0])
    inside = path([0.0, 0.0], [0.0, 0.0])
    along = path([-0.06, -1.0], [-0.06, 1.0])
    corner = path([-0.5, 0.31], [0.5, 0.31])
    found = [crosses_walls(one, walls).item() for one in (through, around, inside, along, corner)]
    assert found == [True, False, True, False, False]
    graze = path([-0.5, 0.295], [0.5, 0.295])
    assert not crosses_walls(graze, walls).item() and crosses_walls(graze, walls, graze=0).item()
    assert not crosses_walls(through, torch.full((1, 2, 4), NAN)).any()
    assert crosses_walls(inside[..., :1, :], walls).item(), "one frame is a path too"


def test_a_stretched_link_is_measured_in_percent_and_absent_links_are_not():
    joints = torch.zeros(1, 1, 4, 2, 2)
    joints[0, 0, 1, :, 0], joints[0, 0, 2, :, 0] = 0.4, 0.8
    lengths = torch.tensor([[0.4, 0.4, NAN]])
    assert link_length_error(joints, lengths).item() == pytest.approx(0, abs=1e-5)
    joints[0, 0, 2, 1, 0] = 0.6  # half as long in one of two frames, one of two links
    assert link_length_error(joints, lengths).item() == pytest.approx(12.5, abs=1e-4)
    assert torch.isnan(link_length_error(joints, torch.full((1, 3), NAN))).all()


@pytest.mark.parametrize("family", ["maze", "rigid", "spinner", "arm", "vehicle", "orbit", "roll", "billiards"])
def test_true_motion_breaks_no_rule(family):
    scenes = still_camera_scenes(6, 11, family)
    assert len(scenes) == 6 and not scenes.facts["camera"].any()
    truth = measure_truth(scenes)
    assert truth["rigidity"].nan_to_num().max() < 1e-3 and truth["moved"].mean() > 3
    if family in ("rigid", "spinner"):
        assert truth["turning"].nan_to_num(100).min() > 99.9
    if family == "maze":
        assert truth["crossed"].max() == 0 and truth["touched"].max() == 0 and truth["passed"].mean() > 80
    else:
        assert torch.isnan(truth["crossed"]).all()
    if family == "arm":
        assert truth["link"].max() < 1e-3
    else:
        assert torch.isnan(truth["link"]).all()


def test_the_linear_baseline_runs_into_walls_and_static_gets_nowhere():
    scenes = still_camera_scenes(16, 3, "maze")
    line = evaluate_plausibility(baselines.linear, scenes, (0, 1), batch=5)
    still = evaluate_plausibility(baselines.static, scenes, (1,))[1]
    assert line[0]["crossed"].max() == 0 and line[0]["passed"].max() == 0
    assert line[1]["crossed"].mean() > 40 and line[1]["moved"].mean() > 30
    assert torch.equal(line[1]["crossed"] + line[1]["passed"] > 0, line[1]["moved"] > 30)
    assert still["crossed"].max() == 0 and still["passed"].max() == 0 and still["moved"].max() == 0


def test_pokes_lie_on_moving_bodies_and_true_goals():
    scenes = still_camera_scenes(8, 5, "arm")
    pokes, mask = body_pokes(scenes, 2)
    assert pokes.shape == (8, 2, 5) and mask.all()
    tracks = scenes.tracks.xy
    for row in range(8):
        for poke in pokes[row]:
            which = (tracks[row, :, 0] - poke[:2]).norm(dim=-1).argmin()
            assert bodies_of(scenes)[row, which] >= 0
            assert torch.allclose(tracks[row, which, -1], poke[2:4], atol=1e-6)
    assert not body_pokes(scenes, 0)[1].any()


def test_bad_input_is_refused():
    scenes = still_camera_scenes(2, 1, "rigid")
    with pytest.raises(ShapeError, match="samples"):
        measure(scenes.tracks.xy[:, None], scenes)
    scenes.facts["camera"][0] = True
    with pytest.raises(ShapeError, match="still_camera_scenes"):
        measure(questions(scenes).truth[:, None], scenes)
    with pytest.raises(ValueError, match="always moves"):
        still_camera_scenes(2, 1, "camera")
    with pytest.raises(ShapeError, match="bool"):
        fit_rigid(turned([0, 1]), torch.ones(1, 4))
