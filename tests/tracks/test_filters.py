"""The filters do what their names say on clips whose camera and object motion is known."""

import math

import pytest
import torch
from einops import rearrange

from kinelib.tracks import Tracks
from kinelib.tracks.filters import (
    camera_motion,
    has_moving_camera,
    is_static,
    official_static_camera,
    total_displacement,
    without_camera,
)

POINTS, FRAMES = 160, 64
RAMP = torch.linspace(0, 1, FRAMES)


def clip(
    *, pan=(0.0, 0.0), zoom=1.0, roll=0.0, objects=0.0, object_travel=0.8, noise=0.0, size=(640, 360), seed=0
) -> Tracks:
    """Random points on a far background under a camera that pans (fractions of the width), zooms and rolls steadily.

    A share `objects` of the points moves by itself to the left; points outside the frame are invisible.
    """
    generator = torch.Generator().manual_seed(seed)
    unit = torch.tensor([1.0, size[1] / size[0]])
    start = (torch.rand(POINTS, 2, generator=generator) * 2 - 1) * unit
    angle, scale = RAMP * roll, 1 + RAMP * (zoom - 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1) * scale[:, None]
    turn = rearrange(turn, "t (i j) -> t i j", i=2)
    moved = torch.einsum("tij,nj->nti", turn, start) + 2 * RAMP[None, :, None] * torch.tensor(pan)
    moved[: int(objects * POINTS), :, 0] -= object_travel * RAMP
    moved += noise * torch.randn(moved.shape, generator=generator) * (RAMP > 0)[None, :, None]
    xy = moved / unit
    visible = (xy.abs() <= 1).all(dim=-1)
    visible = visible.cummin(dim=1).values  # as of a tracker: lost is lost
    xy = torch.where(visible[..., None], xy, xy[:, :1])  # what invisible steps hold must not matter
    return Tracks(xy[None], visible[None], size=size)


@pytest.mark.parametrize(
    "options",
    [
        {"pan": (0.6, 0.0)},
        {"pan": (-0.05, 0.02)},
        {"zoom": 1.3},
        {"zoom": 0.8},
        {"roll": math.radians(10)},
        {"pan": (0.2, 0.1), "zoom": 1.2, "roll": 0.1, "objects": 0.3},
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_moving_cameras_are_found(options, noise):
    assert has_moving_camera(clip(**options, noise=noise)).tolist() == [True]


@pytest.mark.parametrize("options", [{}, {"objects": 0.3}, {"objects": 0.4, "object_travel": 0.2}, {"pan": (0.005, 0.0)}])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_still_cameras_are_left_alone(options, noise):
    assert has_moving_camera(clip(**options, noise=noise)).tolist() == [False]


def test_the_official_rule_lets_a_slow_pan_pass_and_ours_does_not():
    slow = clip(pan=(0.6, 0.0))
    everywhere = Tracks(
        slow.query_points[:, :, None] + 1.2 * RAMP[None, None, :, None] * torch.tensor([1.0, 0.0]), size=slow.size
    )
    assert official_static_camera(everywhere).tolist() == [True]
    assert has_moving_camera(everywhere).tolist() == [True]
    assert has_moving_camera(slow).tolist() == [True]
    fast = Tracks(slow.query_points[:, :, None] + 1.4 * RAMP[None, None, :, None] * torch.tensor([1.0, 0.0]), size=slow.size)
    assert official_static_camera(fast).tolist() == [False]


def test_the_fit_recovers_the_transform_in_the_presence_of_objects():
    fit = camera_motion(clip(pan=(0.1, -0.05), zoom=1.2, roll=0.2, objects=0.3, noise=0.001))
    angle = torch.atan2(fit.matrix[0, -1, 1, 0], fit.matrix[0, -1, 0, 0])
    assert angle.item() == pytest.approx(0.2, abs=0.005)
    assert torch.linalg.det(fit.matrix[0, -1]).sqrt().item() == pytest.approx(1.2, abs=0.005)
    assert fit.shift[0, -1].tolist() == pytest.approx([0.2, -0.1], abs=0.005)
    assert 0.55 < fit.explained[0, -1] < 0.85
    assert fit.explained[0, 0] == 1
    assert fit.magnitude[0, 0] < 1e-6


def test_magnitude_of_a_pan_is_its_share_of_the_frame():
    magnitude = camera_motion(clip(pan=(0.25, 0.0))).magnitude[0]
    assert torch.allclose(magnitude, 0.25 * RAMP, atol=1e-4)
    upright = camera_motion(clip(pan=(0.25, 0.0), size=(360, 360))).magnitude[0]
    assert torch.allclose(upright, 0.25 * RAMP, atol=1e-4)


def test_moving_background_points_follow_the_fit():
    tracks = clip(pan=(0.2, 0.1), zoom=1.1)
    predicted = camera_motion(tracks).move(tracks.query_points)
    assert torch.allclose(predicted[tracks.visible], tracks.xy[tracks.visible], atol=1e-3)


def test_without_camera_leaves_what_objects_do():
    tracks = clip(pan=(0.15, 0.0), zoom=1.1, objects=0.25)
    still = without_camera(tracks)
    background = still.displacement()[0, 40:][tracks.visible[0, 40:]]
    assert background.norm(dim=-1).max() < 0.01
    # 0.8 half-frames to the left on the picture, seen at the zoom of 1.1.
    seen = tracks.visible[0, :40, -1]
    assert seen.any()
    assert torch.allclose(still.displacement()[0, :40, -1][seen], torch.tensor([-0.8 / 1.1, 0.0]), atol=0.01)


def test_a_scene_where_points_die_keeps_the_last_fit():
    tracks = clip(pan=(0.3, 0.0))
    visible = tracks.visible.clone()
    visible[:, :, 40:] = False
    fit = camera_motion(Tracks(tracks.xy, visible, size=tracks.size))
    assert torch.equal(fit.shift[0, 63], fit.shift[0, 39])
    assert torch.isfinite(fit.magnitude).all()
    assert fit.explained[0, 63] == 0


def test_nothing_visible_and_a_single_point_are_no_motion():
    dark = Tracks(torch.rand(1, 5, 8, 2), torch.zeros(1, 5, 8, dtype=torch.bool))
    assert has_moving_camera(dark).tolist() == [False]
    assert has_moving_camera(Tracks(torch.rand(1, 1, 8, 2))).tolist() == [False]
    assert has_moving_camera(Tracks(torch.rand(1, 5, 1, 2))).tolist() == [False]


def test_static_clips():
    batch = [clip(), clip(noise=0.001), clip(objects=0.3), clip(pan=(0.6, 0.0)), clip(zoom=1.2)]
    assert [is_static(tracks).item() for tracks in batch] == [True, True, False, False, False]


def test_displacement_ignores_invisible_steps_and_uses_the_longer_side():
    xy = torch.zeros(1, 2, 4, 2)
    xy[0, 0, 2] = torch.tensor([0.0, 1.0])  # half a height
    xy[0, 1, 2] = torch.tensor([0.9, 0.9])
    visible = torch.ones(1, 2, 4, dtype=torch.bool)
    visible[0, 1, 2] = False
    assert total_displacement(Tracks(xy, visible, size=(200, 100))).tolist() == [[0.25, 0.0]]


def test_batches_equal_single_clips_and_repeat():
    batch = Tracks(
        torch.cat([clip(pan=(0.1, 0)).xy, clip(zoom=1.3).xy]),
        torch.cat([clip(pan=(0.1, 0)).visible, clip(zoom=1.3).visible]),
        size=(640, 360),
    )
    together = camera_motion(batch)
    for index in range(2):
        assert torch.equal(camera_motion(batch[index]).shift[0], together.shift[index])
    assert torch.equal(camera_motion(batch).matrix, together.matrix)
