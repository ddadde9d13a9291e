"""Exact tracks are exact: against hand-made geometry, and against the pictures of objects that a simulator draws."""

import numpy as np
import pytest
import torch

from kinelib.robots.mujoco_scene import Camera
from kinelib.robots.robot_tracks import exact_tracks, film
from kinelib.robots.worlds import WorldError

STEP = 0.1  # metres the toy's square moves a step


@pytest.fixture
def footage(toy):
    """The square goes from x = 0 to x = 1.2 in 13 frames; 64 pixels see 5 m of ground, the square is 1 m nearer."""
    world = toy("right")
    world.reset(0)
    world.scene.centre = np.zeros(2)
    states = [world.state()]
    for _ in range(12):
        world.step([1, 0, 0])
        states.append(world.state())
    return film(world, states, side=64, detail=128)


def test_projection_and_its_inverse_agree():
    draw = np.random.default_rng(0)
    axes = np.linalg.qr(draw.normal(size=(3, 3)))[0]
    camera = Camera(draw.normal(size=3), axes, 0.7)
    xy, depth = draw.uniform(-1, 1, (50, 2)), draw.uniform(0.1, 4, 50)
    again, far = camera.project(camera.unproject(xy, depth))
    assert np.allclose(again, xy) and np.allclose(far, depth)


def test_right_is_right_and_up_is_up_in_the_picture():
    camera = Camera(np.array([0, 0, 5.0]), np.eye(3), 0.5)
    xy, depth = camera.project(np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 6.0]]))
    assert np.allclose(xy[:2], [[0.4, 0], [0, -0.4]]) and np.allclose(depth, [5, 5, -1])


def test_points_ride_on_their_object_and_stand_on_the_ground(footage):
    tracks = exact_tracks(footage, "above", count=80, moving_share=0.5, seed=1)
    assert tracks.xy.shape == (1, 80, 13, 2) and tracks.xy.dtype == torch.float32 and tracks.size == (64, 64)
    moved = tracks.displacement()[0]
    on_square = moved[:, -1].norm(dim=-1) > 1e-6
    assert on_square.sum() == 40
    # 0.1 m at 4 m from the camera, whose half field of view has the tangent 0.5: 0.05 of the half frame a step.
    expected = torch.arange(13) * STEP / (4 * 0.5)
    assert torch.allclose(moved[on_square][..., 0], expected.expand(40, 13), atol=1e-5)
    assert moved[on_square][..., 1].abs().max() < 1e-6
    assert moved[~on_square].abs().max() < 1e-6


def test_the_ground_is_hidden_while_the_square_is_above_it(footage):
    tracks = exact_tracks(footage, "above", count=400, moving_share=0.0, seed=0)
    assert tracks.visible[0, :, 0].all() and not tracks.moving().any()
    x, y = tracks.xy[0, :, 0].T * 0.5 * 4  # where the line of sight crosses the height of the square
    ahead = x[:, None] - torch.arange(13) * STEP
    depth_in = 0.4 - torch.maximum(ahead.abs(), y.abs()[:, None])  # metres inside the outline; below 0: outside
    sure = depth_in.abs() > 0.05  # a pixel and a half
    assert torch.equal(tracks.visible[0][sure], depth_in[sure] < 0)
    assert (~tracks.visible[0]).sum() > 100


def test_a_share_is_met_as_far_as_the_view_goes(footage):
    for share in (0.0, 0.25, 1.0):
        tracks = exact_tracks(footage, "beside", count=64, moving_share=share, seed=3)
        assert (tracks.displacement()[0, :, -1].norm(dim=-1) > 1e-6).sum() == 64 * share


def test_later_reference_frames_take_points_that_were_hidden_at_first(footage):
    one = exact_tracks(footage, "above", count=300, moving_share=0.0, seed=0)
    many = exact_tracks(footage, "above", count=300, moving_share=0.0, references=4, seed=0)
    assert one.visible[0, :, 0].all() and not many.visible[0, :, 0].all()
    assert many.provenance["references"] == [0, 3, 6, 9] and many.visible.any(-1).all()


def test_a_seed_draws_the_same_points(footage):
    first, again, other = (exact_tracks(footage, "above", count=50, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.xy, again.xy) and not torch.equal(first.xy, other.xy)


def test_what_cannot_be_tracked_is_said(footage, toy):
    with pytest.raises(WorldError, match="no filmed view 'below'"):
        exact_tracks(footage, "below")
    with pytest.raises(ValueError, match="count must be at least 1"):
        exact_tracks(footage, "above", count=0)
    with pytest.raises(ValueError, match="1 to the 13 frames"):
        exact_tracks(footage, "above", references=14)
    with pytest.raises(ValueError, match="no state to film"):
        film(toy("left"), [])
    with pytest.raises(WorldError, match="no view 'front'"):
        film(toy("left"), [None], views=("front",))
    footage.objects[:] = -1
    with pytest.raises(ValueError, match="shows no surface"):
        exact_tracks(footage, "above")


def test_points_on_a_robot_are_where_its_picture_says(metaworld, renderer):
    world = metaworld("button-press-topdown")
    world.reset(1)
    states = [world.state()]
    while not world.success:
        world.step(world.expert())
        states.append(world.state())
    states = states[::12]
    footage = film(world, states, views=("front", "wrist"), side=48, detail=256)
    for view in footage.views:
        tracks = exact_tracks(footage, view, count=200, seed=0)
        assert tracks.visible[0, :, 0].all() and tracks.moving().sum() > 80
        owner = footage.objects[footage.views.index(view), 0]
        start = ((tracks.xy[0, :, 0] + 1) / 2 * 256).floor().long().numpy()
        owners = owner[start[:, 1], start[:, 0]]
        # Drawn again at another size, so that no pixel is one that a point was taken from or tested with.
        world.restore(states[-1])
        drawn, _ = world.scene.surfaces(view, 391)
        end = ((tracks.xy[0, :, -1] + 1) / 2 * 391).floor().long().numpy()
        seen = tracks.visible[0, :, -1].numpy()
        assert seen.sum() > 30
        # Half a pixel beside an outline another object may be drawn: theirs is in the pixel or next to it.
        around = end[seen][:, None] + [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
        at = drawn[around[..., 1].clip(0, 390), around[..., 0].clip(0, 390)]
        assert (at == owners[seen, None]).any(-1).mean() > 0.97 and (at[:, 4] == owners[seen]).mean() > 0.9
        inside = ((end >= 0) & (end < 391)).all(-1) & ~seen
        hidden = drawn[end[inside, 1], end[inside, 0]]
        # From the front mostly something else is before a hidden point; the hand's own camera sees the hand before itself.
        assert view == "wrist" or (inside.sum() > 5 and (hidden != owners[inside]).mean() > 0.3)
