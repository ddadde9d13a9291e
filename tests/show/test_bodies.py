"""What is drawn of bodies: figures of every skeleton, the eye, capsules, strips, maps, scenes and films."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from walks import walk

from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30
from kinelib.notation import ShapeError
from kinelib.show.bodies import compare_strips, motion_strip, root_paths, show_skeleton
from kinelib.show.body_scene import CONTACT, Body, draw_scene, write_words
from kinelib.show.motion_export import film_bodies, save_film
from kinelib.show.stick_figures import LEFT, RIGHT, Eye, capsules, figure_of, headings
from kinelib.tracks.video import read_video

SKELETONS = [SMPLX22, SOMA30, G1_34, BANDAI22]


def rendered(figure):
    """A matplotlib figure as uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def share_of(image, colour, within=10):
    """How much of a picture has a colour."""
    wanted = 255 * np.array(to_rgb(colour))
    return float((np.abs(image.astype(int) - wanted).max(-1) < within).mean())


# ---- figures


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda one: one.name)
def test_a_figure_is_whole_and_the_same_on_both_sides(skeleton):
    figure = figure_of(skeleton)
    count = len(skeleton) + len(figure.extras)
    assert figure.segments.min() >= 0 and figure.segments.max() < count
    assert figure.radii.min() > 0.005 and figure.radii.max() < 0.15
    left, right = (np.sort(figure.radii[figure.sides == side].sum(1)) for side in (1, -1))
    assert len(left) > 4
    np.testing.assert_allclose(left, right, atol=1e-6)
    rest = skeleton.rest().numpy()
    for (a, b), side in zip(figure.segments, figure.sides, strict=True):
        if side and max(a, b) < len(skeleton):
            assert side * (rest[a, 0] + rest[b, 0]) > 0, "the left is +x"
    assert figure_of(skeleton) is figure, "worked out once"


def test_what_hangs_on_the_floor_is_not_drawn():
    figure, root = figure_of(BANDAI22), BANDAI22.parents.index(-1)
    assert not (figure.segments == root).any() and figure.middle == BANDAI22.index("Hips")


def test_points_are_the_joints_and_turn_with_the_body():
    motion = walk(1.0, turn=0.7, wave=True)
    figure = figure_of(SMPLX22)
    points = figure.points(motion)
    np.testing.assert_allclose(points[:, : len(SMPLX22)], motion.positions().numpy(), atol=1e-6)
    angle = 1.1
    turned = figure.points(motion.rotated(angle))
    matrix = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    np.testing.assert_allclose(turned, points @ matrix.T, atol=2e-5)
    # The nose is where the body faces.
    facing = headings(points, SMPLX22)
    ahead = points[:, len(SMPLX22) + 2] - points[:, SMPLX22.index("head")]
    assert (ahead[:, 0] * np.sin(facing) + ahead[:, 2] * np.cos(facing) > 0.09).all()
    np.testing.assert_allclose(facing, 0.7 * np.arange(20) / 20, atol=1e-5)


# ---- the eye


def test_an_eye_sees_the_left_on_the_right_from_ahead_and_near_things_larger():
    eye = Eye((0, 1, 0), azimuth=0.0, elevation=0.0, distance=4.0)
    places, nearness, scale = eye.see(np.array([[0, 1, 0], [0.5, 1, 0], [0, 1.5, 0], [0, 1, 1]]))
    np.testing.assert_allclose(places[0], 0, atol=1e-12)
    assert places[1][0] > 0 and abs(places[1][1]) < 1e-12 and places[2][1] > 0
    assert nearness[3] == pytest.approx(1) and scale[3] / scale[0] == pytest.approx(4 / 3)
    side, _, _ = Eye((0, 1, 0), math.pi / 2, 0.0, 4.0).see(np.array([[0, 1, 1.0]]))
    assert side[0, 0] < 0, "from the left, ahead is to the left"
    flat = Eye((0, 0, 0), 0.3, 0.2, zoom=0.5)
    assert flat.see(np.array([[1.0, 0, 5], [1, 0, -5]]))[2].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("zoom", [None, 1.0])
def test_a_fitted_eye_fills_the_picture(zoom):
    cloud = np.random.default_rng(0).normal(size=(200, 3)) * (2, 0.6, 1)
    places, _, _ = Eye(azimuth=0.7, elevation=0.4, zoom=zoom).fitted(cloud, aspect=1.5, margin=0.1).see(cloud)
    half = np.array([0.75, 0.5]) * 0.8
    assert (np.abs(places) <= half * 1.02).all()
    assert (np.abs(places).max(0) / half).max() > 0.97


def test_capsules_touch_both_discs():
    starts, ends = np.zeros((3, 2)), np.array([[2.0, 1.0], [0.1, 0.0], [-1.0, 0.0]])
    radii = np.array([[0.5, 0.3], [0.5, 0.2], [0.2, 0.2]])
    outlines = capsules(starts, ends, radii, corners=17)
    for outline, start, end, (one, other) in zip(outlines, starts, ends, radii, strict=True):
        off = np.minimum(np.abs(np.hypot(*(outline - start).T) - one), np.abs(np.hypot(*(outline - end).T) - other))
        assert off.max() < 1e-9
        inside = (np.hypot(*(outline - start).T) < one - 1e-6) | (np.hypot(*(outline - end).T) < other - 1e-6)
        assert not inside.any(), "an outline runs outside of both discs"
    assert np.hypot(*outlines[1].T).max() == pytest.approx(0.5), "a disc in a disc is the larger one"


# ---- strips and maps


def test_a_strip_shows_poses_in_order_with_both_sides_and_contacts():
    image = rendered(motion_strip(walk(2.0), poses=5, title="A person walks."))
    assert share_of(image, LEFT) > 0.005 and share_of(image, RIGHT) > 0.005 and share_of(image, CONTACT) > 0.0005
    axes = motion_strip(walk(2.0), poses=5).axes[0]
    words = [text for text in axes.texts if text.get_text().endswith(" s")]
    places = [text.get_position()[0] for text in words]
    assert [text.get_text() for text in words] == ["0.0 s", "0.5 s", "1.0 s", "1.4 s", "1.9 s"]
    assert np.diff(places).min() > 0.3


def test_poses_stand_as_far_apart_as_was_walked():
    axes = motion_strip(walk(1.0, speed=2.0), frames=[0, 14]).axes[0]
    (apart,) = np.diff([text.get_position()[0] for text in axes.texts])
    assert apart == pytest.approx(1.4 * math.cos(0.55), abs=0.01), "seen from the side, half turned to the front"


def test_poses_of_one_who_stays_do_not_overlap():
    axes = motion_strip(walk(1.0, speed=0.0, wave=True), poses=4).axes[0]
    bodies = [one for one in axes.collections if isinstance(one, PolyCollection) and one.get_zorder() == 2]
    spans = [np.concatenate([path.vertices for path in one.get_paths()])[:, 0] for one in bodies]
    assert len(spans) == 4
    assert all(a.max() < b.min() for a, b in zip(spans, spans[1:], strict=False))


def test_rows_have_one_scale_and_their_captions():
    figure = compare_strips(
        [("the same", walk(1.0)), ("the same", walk(1.0, speed=0.0))], poses=3, title="Two", colours=["", "#000000"]
    )
    scales = [np.ptp(axes.get_xlim()) / axes.get_position().width for axes in figure.axes]
    assert len(figure.axes) == 2 and scales[0] == pytest.approx(scales[1])
    assert [text.get_text() for text in figure.texts] == ["Two", "the same", "the same"]
    heights = [np.ptp(axes.get_ylim()) / (axes.get_position().height * figure.get_figheight()) for axes in figure.axes]
    widths = [np.ptp(axes.get_xlim()) / (axes.get_position().width * figure.get_figwidth()) for axes in figure.axes]
    np.testing.assert_allclose(heights, widths, rtol=0.01)


@pytest.mark.parametrize("wrong", [dict(frames=[60]), dict(frames=[-1]), dict(frames=[]), dict(poses=0)])
def test_frames_that_are_not_there_are_refused(wrong):
    with pytest.raises(ShapeError, match="frames must lie in 0 to 19|at least one pose"):
        motion_strip(walk(1.0), **wrong)
    with pytest.raises(ShapeError, match="one colour for each"):
        compare_strips({"a": walk(1.0)}, colours=["", ""])


def test_one_frame_and_no_contacts_can_be_drawn():
    still = walk(1.0).slice(3, 4)
    assert len(motion_strip(still).axes[0].texts) == 1
    bare = type(still)(still.rotations, still.root, still.fps, still.skeleton)
    assert share_of(rendered(motion_strip(bare)), CONTACT) == 0


def test_a_left_turn_goes_left_on_the_map():
    left = walk(3.0, turn=1.4)
    assert left.root[-1, 0] > 0.5
    figure = root_paths(
        {"left": left, "right": walk(3.0, turn=-1.4)},
        targets=[{"x": 0, "z": 1, "heading": 0.3}, {"points": [[0, 0], [1, 2]]}],
    )
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert low > high, "x grows leftwards"
    assert axes.transData.transform((1.0, 0))[0] < axes.transData.transform((0.0, 0))[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["left", "right"]
    with pytest.raises(ValueError, match="at least one motion"):
        root_paths({})


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda one: one.name)
def test_a_skeleton_is_drawn_with_its_names(skeleton):
    figure = show_skeleton(skeleton)
    named = {text.get_text() for axes in figure.axes for text in axes.texts}
    partners = skeleton.mirror
    wanted = {skeleton.joints[j] for j in range(len(skeleton)) if partners[j] == j}
    assert wanted <= named and any("eft" in name or "_L" in name for name in named)
    assert share_of(rendered(figure), "#FFFFFF") < 0.97


# ---- scenes and films


def test_a_scene_shows_bodies_shadows_contacts_and_names():
    motion = walk(1.0)
    figure = figure_of(SMPLX22)
    points = figure.points(motion)[0]
    eye = Eye(azimuth=0.4).fitted(points, 1.5)
    draw = lambda **more: draw_scene([Body(figure, points, **more)], eye, width=240, height=160)
    plain = draw()
    assert plain.shape == (160, 240, 3) and share_of(plain, LEFT) > 0.004 and share_of(plain, RIGHT) > 0.004
    assert share_of(draw(contacts=np.ones(4)), CONTACT) > share_of(draw(contacts=np.zeros(4)), CONTACT) == 0
    assert share_of(draw(colour="#E69F00"), "#E69F00") > 0.02 and share_of(draw(colour="#E69F00"), LEFT) == 0
    assert np.abs(draw(alpha=0.2).astype(int) - plain).mean() > 1
    assert np.abs(draw(label="walks").astype(int) - plain).sum() > 0
    asked = draw_scene([Body(figure, points)], eye, width=240, height=160, targets=[{"x": 0.3, "z": 0.2, "heading": 1.0}])
    assert share_of(asked, "#F0B429", 25) > share_of(plain, "#F0B429", 25)
    # The one in front hides the one behind.
    behind, front = Body(figure, points - [0, 0, 0.8], "#009E73"), Body(figure, points, "#CC79A7")
    ahead = Eye(azimuth=0.0, elevation=0.0).fitted(points, 1.5)
    for order in ([behind, front], [front, behind]):
        image = draw_scene(order, ahead, width=240, height=160)
        assert share_of(image, "#CC79A7") > share_of(image, "#009E73")


def test_words_stay_inside_the_picture():
    image = np.full((40, 120, 3), 247, np.uint8)
    for place in ((-50, -50), (500, 500), (60, 20)):
        write_words(image, "a name — é", place)
    assert image.min() < 120


def test_a_film_follows_its_bodies_and_plays_at_their_speed(tmp_path):
    motion = walk(2.0, speed=1.5)
    film = film_bodies([motion, walk(1.0, fps=30.0)], fps=10.0, width=160)
    assert film.shape == (20, 100, 160, 3)
    assert np.abs(film[0].astype(int) - film[9]).mean() > 0.5
    followed = film_bodies(motion, fps=10.0, width=160, azimuth=math.pi / 2)
    middle = lambda image: np.argwhere(np.abs(image.astype(int) - 255 * np.array(to_rgb(LEFT))).max(-1) < 25)[:, 1].mean()
    assert abs(middle(followed[2]) - middle(followed[-3])) < 30
    ahead = film_bodies(motion, fps=10.0, width=160, azimuth=math.pi / 2, follow=False)
    assert abs(middle(ahead[1]) - middle(ahead[-2])) > 45
    path = save_film(motion.slice(0, 20), tmp_path / "walk.mp4", width=160)
    video = read_video(path)
    assert len(video) == 20 and video.fps == pytest.approx(20) and video.size == (160, 100)
    with pytest.raises(ValueError, match="at least 64 pixels"):
        film_bodies(motion, width=10)


def test_figures_leave_the_motion_and_the_settings_alone():
    import matplotlib

    motion = walk(1.0)
    before, settings = motion.rotations.clone(), dict(matplotlib.rcParams)
    motion_strip(motion, poses=3)
    root_paths(motion)
    assert torch.equal(before, motion.rotations) and dict(matplotlib.rcParams) == settings


def test_a_rest_pose_in_which_nobody_stands_changes_neither_size_nor_sides():
    from dataclasses import replace

    lengths = SMPLX22.offsets.norm(dim=-1, keepdim=True)
    folded = replace(SMPLX22, name="folded", offsets=lengths * torch.tensor([0.0, 0.0, 1.0]))
    wanted, figure = figure_of(SMPLX22), figure_of(folded)
    assert figure.height == pytest.approx(wanted.height, rel=1e-3) and wanted.height == pytest.approx(1.55, abs=0.01)
    # All but the nose, of which such a rest pose says nothing.
    np.testing.assert_array_equal(np.sort(figure.sides), np.sort(np.delete(wanted.sides, wanted.radii.argmin() // 2)))
    assert len(figure.extras) == len(wanted.extras) - 1
