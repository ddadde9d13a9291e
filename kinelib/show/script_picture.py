"""A script as a picture: the timeline with its marks, and the floor from above; what an executed notebook keeps of it.

Shapes: pictures uint8 (H, W, 3); x grows leftwards on the floor, as in `show.bodies`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture
from matplotlib.patches import FancyBboxPatch

from kinelib.bodies.motion import Motion
from kinelib.show.motion_export import BODY_COLOURS
from kinelib.show.motion_script import PARTS, Script, placed_pose
from kinelib.show.stick_figures import LEFT, MIDDLE, RIGHT, figure_of
from kinelib.show.theme import RC

AMBER, BROWN = "#F0B429", "#7A5A00"
PROMPT_COLOURS = ("#CFE4F3", "#D9ECDF")
ROWS = ("prompts", "root", *PARTS)
INCH = 100  # pixels


def draw_script(script: Script, clips: Mapping[str, Motion], ways: Sequence[Motion] = (), *, width: int = 720) -> np.ndarray:
    """The timeline on the left, the floor on the right.

    Args:
        script: what is asked for.
        clips: what its keys are taken from.
        ways: motions whose ways over the floor are drawn too.
        width: pixels.
    """
    with rc_context(RC):
        picture = Picture(figsize=(width / INCH, 0.42 * width / INCH), dpi=INCH, layout="constrained")
        FigureCanvasAgg(picture)
        timeline, floor = picture.subplots(1, 2, width_ratios=(1.75, 1))
        _draw_timeline(timeline, script)
        _draw_floor(floor, script, clips, ways)
        picture.canvas.draw()
        return np.asarray(picture.canvas.buffer_rgba())[..., :3].copy()


def _draw_timeline(axes: Axes, script: Script) -> None:
    span = max(script.seconds, 4.0)
    start = 0.0
    for index, prompt in enumerate(script.prompts):
        corner, size = (start + 0.01 * span, -0.38), (prompt.seconds - 0.02 * span, 0.76)
        round_ = dict(boxstyle="round,pad=0,rounding_size=0.1", mutation_aspect=2)
        box = FancyBboxPatch(corner, *size, color=PROMPT_COLOURS[index % 2], **round_)
        axes.add_patch(box)
        letters = max(int(52 * prompt.seconds / span), 6)
        words = textwrap.wrap(prompt.text, letters)
        if len(words) > 2:
            words = [words[0], textwrap.shorten(" ".join(words[1:]), letters, placeholder=" …")]
        axes.text(start + 0.02 * span, 0, "\n".join(words), va="center", fontsize=7, color="#0B2C42", clip_on=True)
        start += prompt.seconds
    for path in script.paths:
        axes.plot([path.start, path.stop], [1, 1], color=AMBER, lw=6, alpha=0.6, solid_capstyle="round")
    for one in script.waypoints:
        axes.plot(one.seconds, 1, "o", color=AMBER, mec=BROWN, ms=8)
    for key in script.keys:
        axes.plot(key.at, ROWS.index(key.part), "D", color=_colour(key.part), mec="white", ms=8)
    axes.set(xlim=(0, span), ylim=(len(ROWS) - 0.5, -0.6), xlabel="seconds")
    axes.set_yticks(range(len(ROWS)), [row.replace("_", " ") for row in ROWS])
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _draw_floor(axes: Axes, script: Script, clips: Mapping[str, Motion], ways: Sequence[Motion]) -> None:
    for index, motion in enumerate(ways):
        way = figure_of(motion.skeleton).points(motion)[:, figure_of(motion.skeleton).middle]
        axes.plot(way[:, 0], way[:, 2], color=BODY_COLOURS[index % len(BODY_COLOURS)], lw=1.6)
    for path in script.paths:
        axes.plot(*np.array(path.points).T, color=AMBER, lw=6, alpha=0.5, solid_capstyle="round", zorder=1)
    for key in script.keys:
        x, _, z = placed_pose(key, clips).root[0].tolist()
        axes.plot(x, z, "D", color=_colour(key.part), mec="white", ms=7, zorder=4)
    for index, one in enumerate(script.waypoints):
        if one.heading is not None:
            tip = (one.x + 0.5 * math.sin(one.heading), one.z + 0.5 * math.cos(one.heading))
            axes.annotate("", tip, (one.x, one.z), arrowprops=dict(arrowstyle="-|>", color=BROWN, lw=1.5), zorder=5)
        axes.plot(one.x, one.z, "o", color=AMBER, mec=BROWN, ms=11, zorder=6)
        axes.text(one.x, one.z, str(index + 1), ha="center", va="center", fontsize=7, weight="bold", zorder=7)
    axes.plot(0, 0, "+", color="#8A8A8A", ms=8)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    half = max(right - left, top - bottom, 2.0) / 2 + 0.4
    axes.set_xlim((left + right) / 2 + half, (left + right) / 2 - half)
    axes.set_ylim((bottom + top) / 2 - half, (bottom + top) / 2 + half)
    axes.set(aspect="equal", xlabel="x (m)", ylabel="z (m), forward")


def _colour(part: str) -> str:
    return LEFT if part.startswith("left") else RIGHT if part.startswith("right") else MIDDLE
