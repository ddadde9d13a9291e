"""Figures are checked by what they draw and where; whether they look right was judged by eye."""

import json
import math

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

from kinelib.learning.intervals import Interval
from kinelib.notation import ShapeError
from kinelib.show import (
    animate_tracks,
    compare_bars,
    compare_lines,
    contact_sheet,
    film_strip,
    method_style,
    render_tracks,
    show_density,
    show_futures,
    show_tracks,
    stamp,
    theme,
    training_curve,
)
from kinelib.show.theme import METHODS, SPARE_STYLES, as_image
from kinelib.tracks.tracks import Poke, Tracks, pack_pokes
from kinelib.tracks.video import VideoError, read_video

FRAME = np.full((20, 40, 3), 90, np.uint8)
LINE = torch.stack([torch.linspace(-0.5, 0.5, 8), torch.zeros(8)], dim=-1)[None]  # left to right through the middle


def pixels_of(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def lines(axes):
    return next(child for child in axes.collections if isinstance(child, LineCollection))


def test_paths_lie_where_the_frame_has_them():
    panel = show_tracks(FRAME, LINE).axes[0]
    segments = np.array(lines(panel).get_segments())
    assert segments.shape == (7, 2, 2)
    np.testing.assert_allclose(segments[0, 0], [10, 10], atol=1e-4)  # x = -0.5 of 40 pixels, y = 0 of 20
    np.testing.assert_allclose(segments[-1, 1], [30, 10], atol=1e-4)
    assert panel.images[0].get_extent() == [0, 40, 20, 0]


def test_time_gives_the_colour_and_the_bar_its_unit():
    figure = show_tracks(FRAME, LINE)
    colours = lines(figure.axes[0]).get_colors()
    assert len(np.unique(colours.round(3), axis=0)) == 7
    assert figure.axes[1].get_ylabel() == "time (frames)"
    assert len(show_tracks(FRAME, LINE, colour="point").axes) == 1


def test_hidden_stretches_are_pale_not_gone():
    visible = torch.ones(1, 8, dtype=torch.bool)
    visible[0, 3] = False
    drawn = lines(show_tracks(FRAME, Tracks(LINE[None], visible[None])).axes[0])
    alpha = drawn.get_colors()[:, 3]
    assert alpha.tolist() == pytest.approx([1, 1, 0.35, 0.35, 1, 1, 1])
    assert drawn.get_linewidths()[2] < drawn.get_linewidths()[0]


def test_film_strip_shows_the_first_and_last_frame():
    film = np.stack([np.full((20, 40, 3), 10 * index, np.uint8) for index in range(8)])
    figure = film_strip(film, LINE, count=3, tail=2)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["frame 0", "frame 4", "frame 7"]
    assert [int(panel.images[0].get_array()[0, 0, 0]) for panel in figure.axes] == [0, 40, 70]
    assert len(lines(figure.axes[1]).get_segments()) == 2
    with pytest.raises(ShapeError, match="film has 7"):
        film_strip(film[:7], LINE)


def test_futures_have_all_samples_pokes_and_truth():
    samples = torch.stack([LINE, LINE + 0.1, LINE - 0.1])
    pokes, mask = pack_pokes([Poke((-0.5, 0), (0.5, 0), 0.5), Poke((0, 0.5), (0, 0.5))], slots=4)
    figure = show_futures(FRAME, samples, pokes[0], mask[0], truth=LINE, panels=2)
    titles = [panel.get_title(loc="left") for panel in figure.axes[:4]]
    assert titles == ["3 samples", "sample 1", "sample 2", "what happened"]
    together = [child for child in figure.axes[0].collections if isinstance(child, LineCollection)]
    assert len(together) == 3
    assert len({tuple(child.get_colors()[0].round(3)) for child in together}) == 3
    assert [text.get_text() for text in figure.axes[0].texts] == ["t = 0.5"]
    arrows = figure.axes[1].patches
    assert len(arrows) == 1  # the other poke holds still: a ring
    rings = [child for child in figure.axes[1].lines if child.get_markerfacecolor() == "none"]
    np.testing.assert_allclose([rings[0].get_xdata()[0], rings[0].get_ydata()[0]], [20, 15])
    assert pixels_of(figure).std() > 0


def test_contact_sheet_labels_every_clip():
    clips = Tracks(LINE[None].repeat(5, 1, 1, 1))
    figure = contact_sheet(np.stack([FRAME] * 5), clips, labels=list("abcde"), columns=3)
    assert [panel.get_title(loc="left") for panel in figure.axes[:5]] == list("abcde")
    assert not figure.axes[5].axison
    assert len(contact_sheet(np.stack([FRAME] * 5), clips, count=2, columns=2).axes) == 3
    with pytest.raises(ShapeError, match="4 frames, 5 clips"):
        contact_sheet(np.stack([FRAME] * 4), clips)


def test_density_peaks_where_the_point_is():
    paths = LINE.repeat(50, 1, 1) + 0.02 * torch.randn(50, 8, 2, generator=torch.Generator().manual_seed(0))
    figure = show_density(FRAME, paths, times=(0.0, 1.0))
    for panel, x in zip(figure.axes[:2], (-0.5, 0.5), strict=True):
        tint = panel.images[1].get_array()
        row, column = np.unravel_index(tint[..., :3].sum(axis=-1).argmax(), tint.shape[:2])
        assert (2 * column + 1) / tint.shape[1] - 1 == pytest.approx(x, abs=0.06)
        assert (2 * row + 1) / tint.shape[0] - 1 == pytest.approx(0, abs=0.06)
    with pytest.raises(ShapeError, match="times must be"):
        show_density(FRAME, paths, times=(2.0,))


def test_animation_follows_the_points(tmp_path):
    steady = torch.tensor([[0.0, 0.5]])[:, None].expand(1, 8, 2)
    both = torch.cat([LINE, steady])
    pictures = render_tracks(FRAME, both, size=200, tail=0)
    assert pictures.shape == (8, 100, 200, 3) and pictures.dtype == np.uint8
    for moment, x in ((0, 50), (7, 150)):
        changed = np.argwhere((pictures[moment] != 90).any(axis=-1))
        mover = changed[changed[:, 0] < 65]
        assert mover.mean(axis=0) == pytest.approx([49.5, x - 0.5], abs=1)
    path = animate_tracks(FRAME, both, tmp_path / "out" / "tracks.mp4", size=200)
    video = read_video(path)
    assert video.frames.shape == (8, 100, 200, 3)
    assert np.abs(video.frames.astype(float) - render_tracks(FRAME, both, size=200)).mean() < 6
    assert [child.name for child in path.parent.iterdir()] == ["tracks.mp4"]


def test_animation_of_samples_film_and_hidden_points():
    samples = torch.stack([LINE, LINE + 0.3])
    futures = render_tracks(FRAME, samples, size=100)
    assert len(np.unique(futures[4].reshape(-1, 3), axis=0)) > 3
    film = np.stack([np.full((20, 40, 3), 20 * index, np.uint8) for index in range(8)])
    assert [int(picture[0, 0, 0]) for picture in render_tracks(film, LINE, size=100)] == list(range(0, 160, 20))
    hidden = torch.zeros(1, 8, dtype=torch.bool)
    painted = [(render_tracks(FRAME, LINE, visible=seen, size=100, tail=0) != 90).sum() for seen in (hidden, ~hidden)]
    assert 0 < painted[0] < painted[1]
    wild = render_tracks(FRAME, LINE * 1e6, size=100)
    assert wild.shape == (8, 50, 100, 3)


def test_training_curve_reads_a_log_that_is_still_being_written(tmp_path):
    records = [{"step": step, "seconds": step / 10, "loss": 1 / (1 + step)} for step in range(0, 100, 10)]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(record) for record in records) + '\n{"step": 100, "lo')
    panel = training_curve(tmp_path, smooth=1).axes[0]
    np.testing.assert_allclose(panel.lines[1].get_ydata(), [record["loss"] for record in records])
    assert panel.get_xlabel() == "training step" and panel.get_yscale() == "log"
    assert training_curve(records, against="seconds").axes[0].get_xlabel() == "training time (s)"
    with pytest.raises(ValueError, match="no 'px'.*loss, seconds, step"):
        training_curve(records, ("px",))
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss"\n{"step": 2, "loss": 1}\n')
    with pytest.raises(ValueError, match="line 1, is not JSON"):
        training_curve(tmp_path)
    with pytest.raises(FileNotFoundError):
        training_curve(tmp_path / "nowhere")


def test_comparisons_show_values_and_intervals():
    results = {"zipmo": Interval(2.0, 1.5, 2.5, 9), "static": Interval(5.0, 4.0, 6.5, 9)}
    panel = compare_bars(results, "error (px)", target=3).axes[0]
    assert [bar.get_width() for bar in panel.patches] == [2, 5]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["zipmo", "static"]
    assert panel.get_xlabel() == "error (px)"
    assert list(panel.lines[1].get_xdata()) == [4.0, 6.5]
    curves = {method: {1: value, 8: value} for method, value in results.items()}
    panel = compare_lines(curves, "error (px)", "pokes").axes[0]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["zipmo", "static"]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1", "8"]


def test_methods_keep_their_colour_and_marker():
    styles = [method_style(name) for name in METHODS]
    assert len({colour for colour, _ in styles}) == len({marker for _, marker in styles}) == len(METHODS)
    assert method_style("something new") == method_style("something new") in SPARE_STYLES


def test_stamp_is_visible_and_stays_in_its_corner():
    figure = compare_bars({"zipmo": Interval(2.0, 1.5, 2.5, 9)}, "error (px)")
    pixels_of(figure)  # the first drawing settles the layout
    before = pixels_of(figure).copy()
    assert stamp(figure, "smoke") is figure
    changed = np.argwhere((pixels_of(figure) != before).any(axis=-1))
    assert len(changed) > 50
    assert (changed.min(axis=0) > 0.6 * np.array(before.shape[:2])).all()


def test_figures_leave_the_settings_of_others_alone():
    before = dict(matplotlib.rcParams)
    show_tracks(FRAME, LINE)
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context():
        theme()
        assert matplotlib.rcParams["legend.frameon"] is False


def test_model_frames_and_pictures_are_the_same():
    picture = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3) * 10
    model_frame = torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1
    np.testing.assert_array_equal(as_image(model_frame), picture)


def test_bad_input_says_what_to_do(tmp_path):
    with pytest.raises(ShapeError, match="one clip at a time"):
        show_tracks(np.stack([FRAME, FRAME]), LINE)
    with pytest.raises(ShapeError, match=r"tracks\[0\]"):
        show_tracks(FRAME, Tracks(LINE[None].repeat(2, 1, 1, 1)))
    with pytest.raises(ShapeError, match="NaN"):
        show_tracks(FRAME, LINE * math.nan)
    with pytest.raises(ShapeError, match="NaN"):
        show_futures(FRAME, LINE[None] * math.nan)
    with pytest.raises(ShapeError, match=r"in \[-1, 1\]"):
        show_tracks(torch.full((3, 8, 8), 90.0), LINE)
    with pytest.raises(ShapeError, match="size must be"):
        render_tracks(FRAME, LINE, size=4)
    with pytest.raises(ShapeError, match="samples are drawn as visible"):
        render_tracks(FRAME, LINE[None], visible=torch.ones(1, 8, dtype=torch.bool))
    with pytest.raises(VideoError, match="mp4"):
        animate_tracks(FRAME, LINE, tmp_path / "tracks.gif")
    assert not list(tmp_path.iterdir())
