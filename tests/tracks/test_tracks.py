"""Tracks and pokes: what they promise, what they refuse, and the filling of invisible steps."""

import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.tracks import Poke, Tracks, pack_pokes
from kinelib.tracks.tracks import fill_invisible


@pytest.fixture
def tracks() -> Tracks:
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(3, 5, 8, 2, generator=generator) * 2 - 1
    return Tracks(xy, torch.rand(3, 5, 8, generator=generator) > 0.3, fps=25.0, size=(640, 480), provenance={"source": "a"})


def test_visible_defaults_to_all_and_sizes_are_reported(tracks):
    plain = Tracks(tracks.xy)
    assert plain.visible.dtype == torch.bool
    assert plain.visible.all()
    assert (len(plain), plain.num_points, plain.num_frames) == (3, 5, 8)
    assert torch.equal(plain.query_points, tracks.xy[:, :, 0])


def test_pixels_round_trip_through_the_video_size(tracks):
    again = Tracks.from_pixels(tracks.pixels(), tracks.visible, size=(640, 480))
    assert torch.allclose(again.xy, tracks.xy, atol=1e-6)
    assert again.size == (640, 480)
    with pytest.raises(ShapeError, match="give width and height"):
        Tracks(tracks.xy).pixels()


@pytest.mark.parametrize("index", [0, 2, -1])
def test_one_clip_keeps_the_batch_axis_and_the_facts(tracks, index):
    clip = tracks[index]
    assert torch.equal(clip.xy, tracks.xy[index][None])
    assert torch.equal(clip.visible, tracks.visible[index][None])
    assert (clip.fps, clip.size, clip.provenance) == (25.0, (640, 480), {"source": "a"})


def test_slices_points_and_windows_agree_with_indexing(tracks):
    assert torch.equal(tracks[1:].xy, tracks.xy[1:])
    assert torch.equal(tracks[torch.tensor([2, 0])].visible, tracks.visible[[2, 0]])
    mask = torch.tensor([True, False, True, False, False])
    assert torch.equal(tracks.points(mask).xy, tracks.xy[:, mask])
    assert torch.equal(tracks.window(2, 4).visible, tracks.visible[:, :, 2:6])


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, 0), (5, 4)])
def test_windows_that_do_not_fit_are_refused(tracks, start, length):
    with pytest.raises(ShapeError, match="does not fit a clip of 8 frames"):
        tracks.window(start, length)


def test_moving_is_measured_on_the_canvas():
    xy = torch.zeros(1, 2, 3, 2)
    xy[0, 1, 1, 0] = 5 * 2 / 256  # five pixels of 256 away in the middle, back at the end
    assert Tracks(xy).moving().tolist() == [[False, True]]
    assert Tracks(xy).moving(pixels=5.5).tolist() == [[False, False]]


@pytest.mark.parametrize(
    ("xy", "visible", "message"),
    [
        (torch.zeros(5, 8, 2), None, "3 axes, not 4"),
        (torch.zeros(1, 5, 8, 3), None, "axis 2 is 3"),
        (torch.zeros(1, 0, 8, 2), None, "at least one point and one frame; got N=0, T=8"),
        (torch.zeros(1, 5, 0, 2), None, "N=5, T=0"),
        (torch.zeros(1, 5, 8, 2, dtype=torch.int64), None, "Use Tracks.from_pixels"),
        (torch.full((1, 5, 8, 2), float("nan")), None, "80 of 80 values"),
        (torch.zeros(1, 5, 8, 2), torch.ones(1, 5, 8), "Use visible > 0.5"),
        (torch.zeros(1, 5, 8, 2), torch.ones(1, 4, 8, dtype=torch.bool), "axis N is 4, expected 5"),
    ],
)
def test_bad_tracks_are_refused(xy, visible, message):
    with pytest.raises(ShapeError, match=message):
        Tracks(xy, visible)


def test_one_point_and_one_frame_are_tracks():
    assert Tracks(torch.zeros(1, 1, 1, 2)).num_frames == 1


def test_invisible_steps_are_interpolated_and_held_at_the_ends():
    truth = torch.stack([torch.linspace(0, 0.7, 8), torch.linspace(0.7, 0, 8)], dim=-1)[None, None]
    visible = torch.tensor([0, 0, 1, 0, 0, 1, 1, 0], dtype=torch.bool)[None, None]
    broken = truth.clone()
    broken[~visible] = 99.0
    filled = Tracks(broken, visible).filled()
    assert torch.allclose(filled.xy[0, 0, 2:7], truth[0, 0, 2:7], atol=1e-6)
    assert torch.allclose(filled.xy[0, 0, :2], truth[0, 0, 2].expand(2, 2))
    assert torch.allclose(filled.xy[0, 0, 7], truth[0, 0, 6])
    assert torch.equal(filled.visible, visible)


def test_filling_equals_numpy_interpolation_and_never_reads_invisible_values(tracks):
    np = pytest.importorskip("numpy")
    broken = tracks.xy.clone()
    broken[~tracks.visible] = float("nan")
    broken[0, 0], never = 0.25, tracks.visible.clone()
    never[0, 0] = False  # a point nobody ever saw keeps what it has
    filled = fill_invisible(broken, never)
    assert torch.equal(filled[0, 0], torch.full((8, 2), 0.25))
    checked = 0
    for clip, point in ((b, n) for b in range(3) for n in range(5) if never[b, n].any()):
        seen = np.flatnonzero(never[clip, point].numpy())
        for axis in range(2):
            expected = np.interp(np.arange(8), seen, tracks.xy[clip, point, seen, axis].numpy())
            assert np.allclose(filled[clip, point, :, axis].numpy(), expected, atol=1e-6)
            checked += 1
    assert checked > 10


def test_filling_visible_tracks_changes_nothing(tracks):
    assert torch.equal(Tracks(tracks.xy).filled().xy, tracks.xy)


@pytest.mark.parametrize(
    ("poke", "message"),
    [
        (((1.2, 0), (0, 0)), "outside the frame"),
        (((0, float("nan")), (0, 0)), "NaN"),
        (((0, 0), (float("inf"), 0)), "infinite"),
        (((0, 0), (0, 0), 0.0), r"goal time 0.0; it must be in \(0, 1\]"),
        (((0, 0), (0, 0), 1.5), "goal time 1.5"),
        (((0, 0, 0), (0, 0)), "two points and a time"),
    ],
)
def test_bad_pokes_are_refused(poke, message):
    with pytest.raises(ShapeError, match=message):
        Poke(*poke)


def test_pokes_may_leave_the_frame_and_may_hold_still():
    assert Poke((0.9, 0), (1.4, 0)).goal_time == 1.0
    assert Poke((0.1, 0.2), (0.1, 0.2)).start_xy == (0.1, 0.2)


def test_packing_pads_and_marks_real_pokes():
    one, two = Poke((0, 0), (0.5, 0)), Poke((0.1, 0.2), (0.3, 0.4), 0.5)
    packed, mask = pack_pokes([[one, two], [], [two]])
    assert packed.shape == (3, 2, 5)
    assert mask.tolist() == [[True, True], [False, False], [True, False]]
    assert torch.allclose(packed[2, 0], torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert not packed[~mask].any()


def test_packing_nothing_and_one_flat_list():
    packed, mask = pack_pokes([])
    assert packed.shape == (1, 1, 5)
    assert not mask.any()
    assert pack_pokes([Poke((0, 0), (1, 1))], slots=4)[0].shape == (1, 4, 5)


def test_too_many_pokes_are_refused():
    with pytest.raises(ShapeError, match="3 pokes were given and this model takes at most 2; drop 1"):
        pack_pokes([Poke((0, 0), (0, 0))] * 3, slots=2)
