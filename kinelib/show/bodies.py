"""Figures of bodies: film strips of stick figures, rows to compare, paths from above, skeletons with their names.

Every function returns a matplotlib figure and changes nothing else. Left limbs are blue, right ones vermilion. Strips are
drawn without perspective, all rows at one scale; each pose stands on the same line, as far from its neighbour as it has
walked, or as the two need not to touch. Maps show the floor as a bird sees it that flies along +z: a turn to the left goes
left, so x, which grows towards the body's left, grows leftwards.

Shapes: T frames, J joints, P points of a figure; positions in metres, y up, the floor at y = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Ellipse

from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import Skeleton
from kinelib.notation import ShapeError
from kinelib.show.stick_figures import LEFT, RIGHT, SIDE_COLOURS, Eye, Figure, capsules, figure_of, headings, mixed
from kinelib.show.theme import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, new_figure, themed

PATH_COLOURS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, "#4B3B8F", GREY)  # on white paper
WIDEST = 11.0  # inches
FARTHEST = 1.7  # metres between two poses of a strip; sprints are drawn closer together than they are
NEAR = 0.04  # metres between two poses that do not walk
TIMES, CAPTION = 0.26, 0.24  # inches for the times under a row and the words over it
FALL = np.array([0.30, 0.0, -0.30])  # metres that a shadow moves for a metre of height


@themed
def motion_strip(
    motion: Motion,
    *,
    poses: int = 8,
    frames: Sequence[int] | None = None,
    title: str = "",
    azimuth: float | None = None,
    colour: str = "",
) -> Picture:
    """Poses of one motion side by side, at even times; green under a foot that stands.

    Args:
        motion: the clip.
        poses: how many.
        frames: which frames, instead of even times.
        title: above.
        azimuth: radians from which the body is seen, 0 from +z; None: from the side of its way, a little from ahead.
        colour: of the whole body; "" colours left and right limbs.

    Raises:
        ShapeError: for frames that the motion does not have, or no poses.
    """
    return _strips([(title, motion, frames)], poses, azimuth, [colour])


@themed
def compare_strips(
    motions: Mapping[str, Motion] | Sequence[tuple[str, Motion]],
    *,
    poses: int = 8,
    azimuth: float | None = None,
    colours: Sequence[str] | None = None,
    title: str = "",
) -> Picture:
    """A row a motion with its caption, all at one scale: prompts and what came of them, a clip and its reconstruction.

    Args:
        motions: captions and motions, top row first; as pairs where captions repeat.
        poses: a row.
        azimuth: as :func:`motion_strip`, for all rows; None: each row from its own side.
        colours: one a row, "" for left and right limbs; None: left and right in all.
        title: above everything.

    Raises:
        ShapeError: when there are no motions, or not a colour for each.
    """
    rows = list(motions.items()) if isinstance(motions, Mapping) else list(motions)
    colours = [""] * len(rows) if colours is None else list(colours)
    if not rows or len(colours) != len(rows):
        raise ShapeError(f"give at least one motion, and one colour for each; got {len(rows)} and {len(colours)}.")
    return _strips([(caption, motion, None) for caption, motion in rows], poses, azimuth, colours, title)


@themed
def root_paths(
    motions: Mapping[str, Motion] | Motion,
    *,
    targets: Sequence[Mapping] = (),
    every: float = 0.5,
    size: float = 4.6,
    title: str = "",
) -> Picture:
    """The way of the root over the floor, seen from above, with an arrow where the body faces.

    Args:
        motions: one, or several by name.
        targets: what was asked for, drawn under the paths: {"x", "z"} a waypoint (with "heading", radians, an arrow too), or
            {"points": [[x, z], ...]} a path.
        every: seconds between two arrows.
        size: inches.
        title: above.

    Raises:
        ValueError: when there is no motion, or `every` is not above 0.
    """
    named = {"": motions} if isinstance(motions, Motion) else dict(motions)
    if not named or every <= 0:
        raise ValueError(f"give at least one motion and `every` above 0 seconds; got {len(named)} and {every}.")
    figure, panels = new_figure(1, 1, size, size)
    axes = panels[0, 0]
    clouds = [figure_of(motion.skeleton).points(motion) for motion in named.values()]
    ways = [cloud[:, figure_of(motion.skeleton).middle] for cloud, motion in zip(clouds, named.values(), strict=True)]
    reach = max(0.09 * max(float(np.ptp(way[:, [0, 2]], axis=0).max()) for way in ways), 0.18)
    for target in targets:
        _draw_target(axes, target, reach)
    for index, (name, motion) in enumerate(named.items()):
        colour, way = PATH_COLOURS[index % len(PATH_COLOURS)], ways[index][:, [0, 2]]
        axes.plot(*way.T, color=colour, lw=1.8, label=name or None, zorder=3)
        axes.plot(*way[0], "o", color="white", mec=colour, mew=1.6, ms=7, zorder=5)
        axes.plot(*way[-1], "s", color=colour, ms=6.5, zorder=5)
        facing = headings(clouds[index], motion.skeleton)
        if facing is not None:
            at = np.unique(np.round(np.arange(0, len(motion), every * motion.fps)).astype(int).clip(max=len(motion) - 1))
            for frame in at:
                _arrow(axes, way[frame], facing[frame], reach, colour)
    low, high = axes.get_xlim(), axes.get_ylim()
    half = max(np.ptp(low), np.ptp(high), 0.8) / 2 + reach
    axes.set_xlim(np.mean(low) + half, np.mean(low) - half)  # the body's left is to the left
    axes.set_ylim(np.mean(high) - half, np.mean(high) + half)
    axes.set(aspect="equal", xlabel="x (m), grows to the body's left", ylabel="z (m), forward", title=title)
    if any(named):
        axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none")
    return figure


@themed
def show_skeleton(skeleton: Skeleton, *, names: bool = True, title: str = "") -> Picture:
    """A skeleton at rest from ahead and from its left, with the names of its joints.

    Args:
        skeleton: any.
        names: write them; partners on the right are not named twice.
        title: above; "" for the skeleton's name and number of joints.
    """
    figure = figure_of(skeleton)
    rest = skeleton.rest().numpy()
    points = np.concatenate([rest, *[rest[base][None] + offset for base, offset in figure.extras]]).astype(float)
    drawing = Picture(figsize=(9.2, 5.4), layout="constrained")
    panels = drawing.subplots(1, 2, sharey=True, width_ratios=(2.1, 1.0))
    views = ((0.0, "from ahead, joints of the left named"), (math.pi / 2, "from its left"))
    for axes, (azimuth, view) in zip(panels, views, strict=True):
        eye = Eye((0, 0, 0), azimuth, 0.0, zoom=1.0)
        _draw_figure(axes, figure, points, eye, 0.0, "", alpha=0.3)
        places = eye.see(points)[0]
        for parent, joint in skeleton.bones():
            axes.plot(*places[[parent, joint]].T, color="#39424F", lw=1.1, zorder=4)
        axes.plot(*places[: len(skeleton)].T, "o", color="#39424F", ms=3.4, zorder=5)
        if names:
            _name_joints(axes, skeleton, places, left=azimuth == 0)
        axes.axhline(0, color="#9AA5B4", lw=1, zorder=0)
        axes.set(aspect="equal", xticks=[], title=view)
        axes.margins(0.06)
    panels[0].set_ylabel("metres")
    drawing.suptitle(title or f"{skeleton.name}: {len(skeleton)} joints", x=0.01, ha="left", fontsize=11, weight="bold")
    return drawing


# ---- strips


def _strips(rows: list, poses: int, azimuth: float | None, colours: Sequence[str], title: str = "") -> Picture:
    laid = [_lay_out(motion, frames, poses, azimuth) for _, motion, frames in rows]
    left = min(min(row.left) for row in laid) - 0.05
    right = max(max(row.right) for row in laid) + 0.05
    inch = min(WIDEST / (right - left), 1.35)  # a metre
    right = max(right, left + 3.0 / inch)  # room for a caption
    bounds = [(row.bottom - TIMES / inch, row.top + 0.05) for row in laid]
    captions = [CAPTION if caption else 0.0 for caption, *_ in rows]
    heights = [(top - bottom) * inch + caption for (bottom, top), caption in zip(bounds, captions, strict=True)]
    head = 0.3 if title else 0.0
    width, height = (right - left) * inch, sum(heights) + head
    picture = Picture(figsize=(width, height))
    if title:
        picture.text(0.06 / width, 1 - 0.08 / height, title, va="top", fontsize=11, weight="bold")
    down = head  # inches from the top: laid out by hand, for metres are to be equally long in all rows
    for row, (caption, *_), (bottom, top), space, tall, colour in zip(
        laid, rows, bounds, captions, heights, colours, strict=True
    ):
        if caption:
            picture.text(0.06 / width, 1 - (down + 0.06) / height, caption, va="top", fontsize=10)
        axes = picture.add_axes((0, 1 - (down + tall) / height, 1, (tall - space) / height))
        axes.set(xlim=(left, right), ylim=(bottom, top))
        axes.axis("off")
        row.draw(axes, colour)
        down += tall
    return picture


class _Row:
    """Where the poses of one strip stand."""

    def __init__(self, figure: Figure, motion: Motion, frames: np.ndarray, points: np.ndarray, eye: Eye) -> None:
        self.figure, self.motion, self.frames, self.eye = figure, motion, frames, eye
        ground = points[:, figure.middle] * (1, 0, 1)
        self.points = points - ground[:, None]
        places = eye.see(self.points)[0]
        thick = figure.radii.max()
        lefts, rights = places[..., 0].min(1) - thick, places[..., 0].max(1) + thick
        walked = np.diff(ground, axis=0) @ eye.axes()[0]
        slots = [0.0]
        for index, step in enumerate(walked):
            apart = max(min(float(step), FARTHEST), float(rights[index] - lefts[index + 1]) + NEAR)
            slots.append(slots[-1] + apart)
        self.slots = np.array(slots)
        self.left, self.right = self.slots + lefts, self.slots + rights
        self.top, self.bottom = float(places[..., 1].max()) + thick, min(float(places[..., 1].min()) - thick, -0.05)

    def draw(self, axes: Axes, colour: str) -> None:
        flat = math.sin(self.eye.elevation)
        axes.axhline(0, color="#C3CBD6", lw=0.8, zorder=0)
        for index, frame in enumerate(self.frames):
            x = self.slots[index]
            _draw_figure(axes, self.figure, self.points[index], self.eye, x, colour, floor=True)
            if self.motion.contacts is not None and self.figure.feet:
                for joint, standing in zip(self.figure.feet, self.motion.contacts[frame].tolist(), strict=True):
                    if standing > 0.5:
                        place = self.eye.see(self.points[index][joint] * (1, 0, 1))[0]
                        oval = Ellipse((x + place[0], place[1] - 0.02), 0.26, 0.26 * max(flat, 0.24), color=GREEN, zorder=1)
                        axes.add_patch(oval)
            axes.text(
                x, self.bottom - 0.02, f"{frame / self.motion.fps:.1f} s", ha="center", va="top", fontsize=8, color="#5A6577"
            )


def _lay_out(motion: Motion, frames: Sequence[int] | None, poses: int, azimuth: float | None) -> _Row:
    if poses < 1:
        raise ShapeError(f"a strip needs at least one pose; got poses={poses}.")
    chosen = np.linspace(0, len(motion) - 1, min(poses, len(motion))).round() if frames is None else np.array(list(frames))
    chosen = chosen.astype(int)
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(motion):
        raise ShapeError(f"frames must lie in 0 to {len(motion) - 1}, the frames of this motion; got {list(chosen)}.")
    figure = figure_of(motion.skeleton)
    points = figure.points(motion).astype(float)
    if azimuth is None:
        azimuth = best_azimuth(points, figure)
    return _Row(figure, motion, chosen, points[chosen], Eye((0, 0, 0), azimuth, 0.16, zoom=1.0))


def best_azimuth(points: np.ndarray, figure: Figure) -> float:
    """From where a motion is seen best, radians: the side of its way, turned half to the front; the front where it stays."""
    x, _, z = (points[-1, figure.middle] - points[0, figure.middle]).tolist()
    if math.hypot(x, z) > 0.8:
        return math.atan2(-z, x) + 0.55
    facing = headings(points, figure.skeleton)
    return (0.0 if facing is None else float(facing[0])) + 0.55


def _draw_figure(
    axes: Axes, figure: Figure, points: np.ndarray, eye: Eye, x: float, colour: str, *, alpha: float = 1, floor: bool = False
) -> None:
    """One body, as the player draws it: capsules from far to near with a dark rim and a light streak."""
    a, b = points[figure.segments[:, 0]], points[figure.segments[:, 1]]
    if floor:
        fallen = [end + end[:, 1:2] * (FALL - (0, 1, 0)) for end in (a, b)]
        outline = capsules(fallen[0][:, [0, 2]], fallen[1][:, [0, 2]], figure.radii, corners=6)
        outline = np.stack([outline[..., 0], np.zeros(outline.shape[:2]), outline[..., 1]], -1)
        shadow = eye.see(outline)[0] + (x, 0)
        axes.add_collection(PolyCollection(shadow, facecolor="#E2E6EC", edgecolor="none", zorder=0.5))
    order = np.argsort(eye.see((a + b) / 2)[1])
    starts, ends = eye.see(a)[0][order] + (x, 0), eye.see(b)[0][order] + (x, 0)
    radii = figure.radii[order]
    colours = [colour or SIDE_COLOURS[side] for side in figure.sides[order].tolist()]
    lit = 0.28 * radii.min(1, keepdims=True) * np.array([[-0.7, 1.0]])
    outlines, faces = [], []
    for body, streak, one in zip(
        zip(capsules(starts, ends, radii + 0.007), capsules(starts, ends, radii), strict=True),
        capsules(starts + lit, ends + lit, radii * 0.4),
        colours,
        strict=True,
    ):
        outlines += [*body, streak]
        faces += [mixed(one, "#0B1017", 0.6), to_rgb(one), mixed(one, "#FFFFFF", 0.32)]
    axes.add_collection(PolyCollection(outlines, facecolor=faces, edgecolor="none", alpha=alpha, zorder=2))


# ---- maps


def _arrow(axes: Axes, at: np.ndarray, heading: float, length: float, colour: str) -> None:
    tip = at + length * np.array([math.sin(heading), math.cos(heading)])
    style = dict(arrowstyle="-|>", color=colour, lw=1.4, mutation_scale=11, shrinkA=0, shrinkB=0)
    axes.annotate("", xy=tip, xytext=at, arrowprops=style, zorder=4)


def _draw_target(axes: Axes, target: Mapping, reach: float) -> None:
    if "points" in target:
        points = np.asarray(target["points"], float)
        axes.plot(points[:, 0], points[:, 1], color="#B9C2CE", lw=6, solid_capstyle="round", zorder=1)
        return
    at = np.array([target["x"], target["z"]], float)
    axes.plot(*at, "P", color="#F0B429", mec="#7A5A00", ms=11, zorder=2)
    if target.get("heading") is not None:
        _arrow(axes, at, float(target["heading"]), 1.6 * reach, "#7A5A00")


def _name_joints(axes: Axes, skeleton: Skeleton, places: np.ndarray, left: bool) -> None:
    """Names beside the joints, moved apart where two would overlap: slanted above an arm that is stretched out."""
    partners = skeleton.mirror
    whole = np.ptp(places[: len(skeleton), 1])
    ours = lambda j: places[j, 0] > places[partners[j], 0] + 1e-6 if left else partners[j] == j
    wanted = [j for j in range(len(skeleton)) if ours(j)]
    above = [j for j in wanted if left and places[j, 0] > 0.02 * whole and 0.7 * whole < places[j, 1] < 0.98 * whole]
    beside = [j for j in wanted if j not in above]
    style = dict(fontsize=7.5, color=LEFT if left else "#39424F", zorder=6)
    line = dict(arrowstyle="-", color=style["color"], lw=0.5, alpha=0.6, shrinkA=0, shrinkB=2)
    column = places[beside, 0].max() + 0.13 * whole if beside else 0.0
    y = math.inf
    for joint in sorted(beside, key=lambda j: -places[j, 1]):
        y = min(places[joint, 1], y - 0.042 * whole)
        axes.annotate(skeleton.joints[joint], places[joint], (column, y), va="center", arrowprops=line, **style)
    x = -math.inf
    for joint in sorted(above, key=lambda j: places[j, 0]):
        x = max(places[joint, 0], x + 0.06 * whole)
        at = (x, places[joint, 1] + 0.09 * whole)
        slant = dict(rotation=50, rotation_mode="anchor")
        axes.annotate(skeleton.joints[joint], places[joint], at, arrowprops=line, **slant, **style)


__all__ = ["LEFT", "RIGHT", "best_azimuth", "compare_strips", "motion_strip", "root_paths", "show_skeleton"]
