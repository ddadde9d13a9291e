"""Figures of tracks over frames: paths, film strips, several futures, contact sheets, where a point may end up.

Source: the figures of ZipMo's paper and project page. Every function returns a matplotlib figure and changes nothing
else. Positions that are not visible are drawn thin and pale, never dropped silently.

Shapes: frame uint8 (H, W, 3) or float (3, H, W) in [-1, 1]; tracks of one clip (N, T, 2) xy in [-1, 1] or a `Tracks`
with one clip; visible (N, T) bool; samples (K, N, T, 2); pokes (P, 5) with mask (P,).
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from kinelib.notation import ShapeError, check_finite, check_shape, to_pixels
from kinelib.show.theme import SAMPLE_COLOURS, TIME_MAP, draw_frame, new_figure, themed
from kinelib.tracks.tracks import Tracks

Frame = np.ndarray | torch.Tensor


@themed
def show_tracks(
    frame: Frame,
    tracks: Tracks | torch.Tensor,
    visible: torch.Tensor | None = None,
    *,
    colour: str = "time",
    size: float = 4.0,
    title: str = "",
) -> Figure:
    """Tracks over a frame; a dot marks where each one ends.

    Args:
        frame: usually the first frame.
        tracks: one clip, (N, T, 2) or `Tracks`.
        visible: (N, T) bool, for plain tensors.
        colour: "time" (dark = first frame, bright = last) or "point" (a hue for each start position).
        size: inches.
        title: text above.
    """
    xy, seen = one_clip(tracks, visible)
    figure, axes = new_figure(1, 1, size * 1.15 if colour == "time" else size, size, "compressed")
    place = draw_frame(axes[0, 0], frame, dim=0.25)
    draw_paths(axes[0, 0], xy, seen, place, colour)
    axes[0, 0].set_title(title)
    if colour == "time":
        _time_bar(figure, axes, xy.shape[1])
    return figure


@themed
def film_strip(
    frames: np.ndarray | torch.Tensor,
    tracks: Tracks | torch.Tensor,
    visible: torch.Tensor | None = None,
    *,
    count: int = 6,
    tail: int = 12,
    size: float = 2.0,
) -> Figure:
    """A clip at `count` moments, each with its points and the last `tail` frames of their paths.

    Args:
        frames: uint8 (T, H, W, 3), or one frame that stays behind all panels.
        tracks: one clip, (N, T, 2) or `Tracks`.
        visible: (N, T) bool, for plain tensors.
        count: panels, first and last frame included.
        tail: frames of path drawn behind a point.
        size: inches of a panel.
    """
    xy, seen = one_clip(tracks, visible)
    length = xy.shape[1]
    moving_picture = np.ndim(frames) == 4
    if moving_picture and len(frames) != length:
        raise ShapeError(f"the film has {len(frames)} frames and its tracks have {length}.")
    moments = np.unique(np.linspace(0, length - 1, count).round().astype(int))
    figure, axes = new_figure(1, len(moments), size, size * 1.1, "compressed")
    for panel, moment in zip(axes[0], moments, strict=True):
        place = draw_frame(panel, frames[moment] if moving_picture else frames)
        start = max(0, moment - tail)
        draw_paths(panel, xy[:, start : moment + 1], seen[:, start : moment + 1], place, "point", hue_from=xy[:, 0])
        panel.set_title(f"frame {moment}")
    return figure


@themed
def show_futures(
    frame: Frame,
    samples: torch.Tensor,
    pokes: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    *,
    truth: Tracks | torch.Tensor | None = None,
    panels: int = 4,
    size: float = 2.6,
) -> Figure:
    """Several futures of one frame: all of them together in a colour a sample, then some one by one, coloured by time.

    Args:
        frame: the first frame.
        samples: (K, N, T, 2).
        pokes: (P, 5), drawn as arrows from start to goal; a poke that holds still is drawn as a ring.
        mask: (P,) bool, which pokes are real; default all.
        truth: what happened, one clip; drawn last when given.
        panels: how many samples get a panel of their own.
        size: inches of a panel.
    """
    sizes = check_shape("samples", samples, "K N T 2")
    samples = samples.detach().cpu()
    check_finite("samples", samples)
    panels = min(panels, sizes["K"])
    figure, axes = new_figure(1, 1 + panels + (truth is not None), size, size * 1.1, "compressed")
    everything = torch.ones(sizes["N"], sizes["T"], dtype=torch.bool)

    together, *single = axes[0]
    place = draw_frame(together, frame, dim=0.25)
    for index, sample in enumerate(samples):
        draw_paths(together, sample, everything, place, SAMPLE_COLOURS[index % len(SAMPLE_COLOURS)])
    together.set_title(f"{sizes['K']} samples")
    for index in range(panels):
        place = draw_frame(single[index], frame, dim=0.25)
        draw_paths(single[index], samples[index], everything, place, "time")
        single[index].set_title(f"sample {index + 1}")
    if truth is not None:
        place = draw_frame(single[-1], frame, dim=0.25)
        draw_paths(single[-1], *one_clip(truth), place, "time")
        single[-1].set_title("what happened")
    if pokes is not None:
        for panel in axes[0]:
            draw_pokes(panel, pokes, mask, place)
    _time_bar(figure, axes, sizes["T"])
    return figure


@themed
def contact_sheet(
    frames: np.ndarray | torch.Tensor,
    tracks: Tracks | torch.Tensor,
    visible: torch.Tensor | None = None,
    *,
    labels: Sequence[str] = (),
    columns: int = 6,
    count: int = 18,
    size: float = 1.7,
) -> Figure:
    """Many clips at a glance: first frames with their tracks coloured by time.

    Args:
        frames: (B, H, W, 3) uint8 or (B, 3, H, W) float.
        tracks: (B, N, T, 2) or `Tracks` of the same B clips.
        visible: (B, N, T) bool, for plain tensors.
        labels: a title a clip.
        columns: clips a row.
        count: clips drawn at most.
        size: inches of a clip.
    """
    tracks = tracks if isinstance(tracks, Tracks) else Tracks(tracks, visible)
    if len(frames) != len(tracks) or (labels and len(labels) != len(tracks)):
        raise ShapeError(f"got {len(frames)} frames, {len(tracks)} clips of tracks and {len(labels)} labels.")
    count = min(count, len(tracks))
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, size, size * 1.12, "compressed")
    for index, panel in enumerate(axes.flat):
        if index >= count:
            panel.set_axis_off()
            continue
        place = draw_frame(panel, frames[index], dim=0.15)
        draw_paths(panel, *one_clip(tracks[index]), place, "time", width=0.9)
        panel.set_title(labels[index] if labels else f"clip {index}", fontsize=7.5)
    _time_bar(figure, axes, tracks.num_frames)
    return figure


@themed
def show_density(
    frame: Frame,
    paths: torch.Tensor,
    times: Sequence[float] = (0.25, 0.5, 1.0),
    *,
    pokes: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    blur: float = 0.04,
    size: float = 3.0,
) -> Figure:
    """Where one point may be at some times: a smoothed density of its sampled positions over the frame.

    Args:
        frame: the first frame.
        paths: (K, T, 2) the same point in K samples.
        times: moments in [0, 1], one panel each.
        pokes, mask: as in :func:`show_futures`.
        blur: standard deviation of the smoothing in units of half a frame.
        size: inches of a panel.
    """
    sizes = check_shape("paths", paths, "K T 2")
    check_finite("paths", paths)
    if not all(0 <= time <= 1 for time in times):
        raise ShapeError(f"times must be in [0, 1], 1 being the last frame; got {tuple(times)}.")
    moments = [round(time * (sizes["T"] - 1)) for time in times]
    maps = [_density(paths[:, moment].detach().cpu().double(), blur) for moment in moments]
    figure, axes = new_figure(1, len(maps), size, size, "compressed")
    for panel, time, moment, density in zip(axes[0], times, moments, maps, strict=True):
        width, height = draw_frame(panel, frame, dim=0.35)
        share = density / density.max()  # each panel to its own maximum: late densities are flat
        tint = matplotlib.colormaps["inferno"](share)
        tint[..., 3] = np.clip(1.6 * share, 0, 0.9)
        panel.imshow(tint, extent=(0, width, height, 0), interpolation="bilinear")
        points = to_pixels(paths[:, moment].detach().cpu(), width, height)
        panel.plot(*points.T, ".", color="white", markersize=2, markeredgewidth=0, alpha=0.7)
        panel.set_title(f"time {time:g} (frame {moment}), {sizes['K']} samples")
        if pokes is not None:
            draw_pokes(panel, pokes, mask, (width, height))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "inferno"), ax=list(axes.flat), shrink=0.75, aspect=25)
    bar.set_label("density / its maximum")
    return figure


def one_clip(tracks: Tracks | torch.Tensor, visible: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The (N, T, 2) positions and (N, T) visibility of a single clip, on the CPU.

    Raises:
        ShapeError: when there is more than one clip, or the tracks are not sound.
    """
    if isinstance(tracks, Tracks):
        if len(tracks) != 1:
            raise ShapeError(f"this figure shows one clip and got {len(tracks)}: index the tracks first, tracks[0].")
    else:
        check_shape("tracks", tracks, "N T 2")
        tracks = Tracks(tracks[None], None if visible is None else visible[None])
    return tracks.xy[0].detach().cpu().float(), tracks.visible[0].cpu()


def draw_paths(
    axes: Axes,
    xy: torch.Tensor,
    visible: torch.Tensor,
    place: tuple[int, int],
    colour: str = "time",
    *,
    width: float = 1.3,
    hue_from: torch.Tensor | None = None,
) -> None:
    """Draws paths and end points into axes that show a frame.

    Args:
        axes: prepared by `draw_frame`.
        xy: (N, T, 2), visible (N, T).
        place: the frame's (width, height).
        colour: "time", "point", or any single colour.
        width: of lines, in points.
        hue_from: (N, 2) positions that give the hues of "point"; default the first positions.
    """
    points = to_pixels(xy, *place).numpy()
    number, length = points.shape[:2]
    if colour == "time":
        ramp = matplotlib.colormaps[TIME_MAP](np.linspace(0, 0.95, length))
        colours = np.broadcast_to(ramp[None], (number, length, 4)).copy()
    else:
        single = point_colours(xy[:, 0] if hue_from is None else hue_from) if colour == "point" else to_rgba(colour)
        colours = np.broadcast_to(np.reshape(single, (-1, 1, 4)), (number, length, 4)).copy()
    seen = visible.numpy()
    if length > 1:
        segments = np.stack([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 2, 2)
        shown = (seen[:, :-1] & seen[:, 1:]).reshape(-1)
        shades = colours[:, 1:].reshape(-1, 4).copy()
        shades[~shown, 3] = 0.35
        axes.add_collection(LineCollection(segments, colors=shades, linewidths=np.where(shown, width, width / 2)))
    ends = colours[:, -1].copy()
    ends[~seen[:, -1], 3] = 0.35
    # Points that hardly move would otherwise be the loudest thing in the picture.
    still = (xy - xy[:, :1]).norm(dim=-1).amax(dim=-1).numpy() < 0.03
    sizes = np.where(still, 1.8 * width, 3 * width) ** 2
    axes.scatter(*points[:, -1].T, s=sizes, c=ends, edgecolors="white", linewidths=np.where(still, 0, 0.4), zorder=3)


def point_colours(xy: torch.Tensor) -> np.ndarray:
    """(N, 4) colours by position: hue from the angle around the frame's centre, lighter towards the edge."""
    x, y = xy.double().numpy().T
    hue = (np.arctan2(y, x) / (2 * np.pi)) % 1
    saturation = 0.45 + 0.5 * np.clip(np.hypot(x, y), 0, 1)
    rgb = matplotlib.colors.hsv_to_rgb(np.stack([hue, saturation, np.full_like(hue, 0.95)], axis=-1))
    return np.concatenate([rgb, np.ones((len(rgb), 1))], axis=-1)


def draw_pokes(
    axes: Axes, pokes: torch.Tensor, mask: torch.Tensor | None, place: tuple[int, int], colour: str = "#FFFFFF"
) -> None:
    """Draws pokes (P, 5) as arrows with a dark outline; a ring marks a point that is to hold still."""
    check_shape("pokes", pokes, "P 5")
    pokes = pokes.detach().cpu() if mask is None else pokes.detach().cpu()[mask.cpu()]
    outline = withStroke(linewidth=3.2, foreground="black" if sum(to_rgb(colour)) > 1 else "white")
    for poke in pokes:
        start, goal = to_pixels(poke[:4].reshape(2, 2), *place).tolist()
        if np.hypot(goal[0] - start[0], goal[1] - start[1]) < 0.01 * place[0]:
            ring = {"markersize": 8, "markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.3}
            axes.plot(*start, "o", **ring, path_effects=[outline], zorder=6)
        else:
            arrow = FancyArrowPatch(
                start, goal, arrowstyle="-|>,head_width=3,head_length=5", shrinkA=0, shrinkB=0, color=colour,
                linewidth=1.4, path_effects=[outline], clip_on=False, zorder=5,
            )  # fmt: skip
            axes.add_patch(arrow)
            axes.plot(*start, "o", markersize=4.5, color=colour, path_effects=[outline], zorder=6)
        if poke[4] < 1:
            label = {"fontsize": 7.5, "weight": "bold", "color": colour, "path_effects": [outline], "zorder": 7}
            axes.annotate(f"t = {poke[4]:.2g}", goal, (5, -10), textcoords="offset points", **label)


def _density(points: torch.Tensor, blur: float, cells: int = 96) -> np.ndarray:
    """A sum of Gaussians at points (K, 2), read at cells x cells centres: separable, so two matrix products do it."""
    centres = (2 * torch.arange(cells, dtype=torch.float64) + 1) / cells - 1
    x, y = (torch.exp(-((points[:, axis, None] - centres) ** 2) / (2 * blur**2)) for axis in (0, 1))
    return (y.T @ x).clamp_min(1e-12).numpy()


def _time_bar(figure: Figure, axes: np.ndarray, num_frames: int) -> None:
    shades = matplotlib.colormaps[TIME_MAP](np.linspace(0, 0.95, 256))
    mappable = ScalarMappable(Normalize(0, max(num_frames - 1, 1)), matplotlib.colors.ListedColormap(shades))
    figure.colorbar(mappable, ax=list(axes.flat), shrink=0.75, aspect=25).set_label("time (frames)")
