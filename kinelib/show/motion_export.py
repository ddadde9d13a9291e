"""Films and pictures of bodies in motion: MP4 for slides and reports, and what a player's snapshot is put together from.

Shapes: pictures uint8 (T, height, width, 3); scenes as packed by `show.motion_data`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb

from kinelib.bodies.motion import Motion
from kinelib.show.body_scene import BACKGROUND, INK, Body, draw_scene, write_words
from kinelib.show.motion_data import as_motions, pack_scene, unpack_scene
from kinelib.show.stick_figures import Eye, figure_of
from kinelib.show.theme import BLUE, GREEN, ORANGE, PINK, SKY, VERMILION
from kinelib.tracks.video import write_video

BODY_COLOURS = (BLUE, ORANGE, GREEN, PINK, VERMILION, SKY, "#7A6A00", "#6B4FA0")  # as in static/motion_stage.js
CALM = 0.5  # seconds before and after over which the eye's way is averaged


def save_film(
    motions: Motion | Sequence[Motion] | Mapping[str, Motion],
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    fps: float | None = None,
    width: int = 720,
    **look_options,
) -> Path:
    """Writes an MP4 of one or several motions on a floor, played at their own speed.

    Args:
        motions, labels: as those of `MotionPlayer`.
        path: ends in .mp4; the file appears once it is whole.
        fps: frames a second of the film; None: the highest among the motions.
        width: pixels.
        look_options: as those of :func:`film_bodies`.

    Raises:
        ValueError: for no motions, or labels that are not one a motion.
        VideoError: when the file cannot be written.
    """
    listed, names = as_motions(motions, labels)
    fps = fps or max(motion.fps for motion in listed)
    return write_video(path, film_bodies(listed, labels=names, fps=fps, width=width, **look_options), fps)


def film_bodies(
    motions: Motion | Sequence[Motion] | Mapping[str, Motion],
    *,
    labels: Sequence[str] | None = None,
    fps: float = 20.0,
    width: int = 720,
    height: int | None = None,
    apart: bool = True,
    colour: str = "",
    contacts: bool = True,
    follow: bool = True,
    azimuth: float | None = None,
    elevation: float = 0.22,
    tail: float = 1.5,
) -> np.ndarray:
    """The pictures of :func:`save_film`, uint8 (T, height, width, 3).

    Args:
        motions, labels: as those of `MotionPlayer`.
        fps: pictures a second.
        width, height: pixels; None: 16 to 10.
        apart: side by side; False: all in one place.
        colour: "sides", "samples", or "" for what suits their number.
        contacts: green under a foot that stands.
        follow: the eye goes along with the bodies.
        azimuth, elevation: radians from where they are seen; None: from where the player would.
        tail: seconds of path drawn behind a body.
    """
    listed, names = as_motions(motions, labels)
    if fps <= 0 or width < 64:
        raise ValueError(f"fps must be above 0 and width at least 64 pixels; got {fps} and {width}.")
    scene = pack_scene(listed, names)
    colours = sample_colours(len(listed), colour or ("sides" if len(listed) == 1 else "samples"))
    height = height or round(width / 1.6)
    count = 1 + int(max((len(motion) - 1) / motion.fps for motion in listed) * fps + 1e-6)
    options = dict(apart=apart, colours=colours, names=names, contacts=contacts, tail=tail, unpacked=unpack_scene(scene))
    moments = [bodies_at(scene, listed, tick / fps, **options) for tick in range(count)]
    middles = np.array([np.mean([body.points[body.figure.middle] for body in bodies], 0) for bodies in moments]) * (1, 0, 1)
    drift = _evened(middles, round(CALM * fps)) if follow else np.zeros_like(middles)
    every = max(1, count // 24)
    cloud = np.concatenate([body.points - drift[tick] for tick in range(0, count, every) for body in moments[tick]])
    azimuth = scene["azimuth"] if azimuth is None else azimuth
    eye = Eye(azimuth=azimuth, elevation=elevation).fitted(cloud, width / height, 0.1)
    pictures = np.empty((count, height, width, 3), np.uint8)
    for tick, bodies in enumerate(moments):
        here = Eye(tuple(eye.target + drift[tick]), eye.azimuth, eye.elevation, eye.distance)
        pictures[tick] = draw_scene(bodies, here, width=width, height=height)
    return pictures


def bodies_at(
    scene: Mapping,
    motions: Sequence[Motion],
    seconds: float,
    *,
    apart: bool = True,
    colours: Sequence[str] = (),
    names: Sequence[str] | None = None,
    contacts: bool = True,
    ghosts: bool = False,
    shown: Iterable[int] | None = None,
    tail: float = math.inf,
    unpacked: Sequence | None = None,
) -> list[Body]:
    """The bodies of a scene at a time, with the way each has come.

    Args:
        scene: packed by `pack_scene`.
        motions: what it was packed from.
        seconds: since the start; a motion that is over stays at its last frame.
        apart: side by side.
        colours: one a motion, "" for left and right limbs.
        names: written above the heads; None for none.
        contacts: mark the feet that stand.
        ghosts: earlier poses faintly too, where a body has moved away from them.
        shown: numbers of the motions wanted; None: all.
        tail: seconds of path behind a body.
        unpacked: the scene, where it has been unpacked already.
    """
    bodies = []
    unpacked = unpack_scene(scene) if unpacked is None else unpacked
    for index in range(len(motions)) if shown is None else shown:
        (points, standing), facts, figure = unpacked[index], scene["samples"][index], figure_of(motions[index].skeleton)
        frame = min(round(seconds * facts["fps"]), len(points) - 1)
        aside = np.array([facts["offset"][0], 0.0, facts["offset"][1]]) * apart
        colour = colours[index] if colours else ""
        way = points[:, figure.middle][:, [0, 2]] + aside[[0, 2]]
        if ghosts:
            bodies += [Body(figure, points[at] + aside, colour, 0.16) for at in _ghosts(way, frame)]
        first = 0 if math.isinf(tail) else max(0, frame - round(tail * facts["fps"]))
        marks = standing[frame] if contacts and standing is not None else None
        label = names[index] if names else ""
        bodies.append(Body(figure, points[frame] + aside, colour, 1.0, marks, way[first : frame + 1], label))
    return _numbered(bodies)


def look(bodies: Sequence[Body], azimuth: float, elevation: float, distance: float, aspect: float) -> Eye:
    """An eye on bodies: as far away as told, or, for a distance of 0, so that all of them fit."""
    cloud = np.concatenate([body.points for body in bodies])
    eye = Eye(azimuth=azimuth, elevation=elevation).fitted(cloud, aspect, 0.1)
    return Eye(eye.target, azimuth, elevation, distance) if distance else eye


def pose_rows(
    scene: Mapping,
    motions: Sequence[Motion],
    poses: int,
    width: int,
    colours: Sequence[str],
    names: Sequence[str],
    *,
    shown: Iterable[int],
    azimuth: float,
) -> np.ndarray:
    """A row of small poses over time for every motion, all at one scale: uint8 (H, width, 3)."""
    rows = []
    unpacked = unpack_scene(scene)
    side = width // poses
    high, above, below = round(min(side * 1.35, 150)), 22, 18
    tall = max(float(unpacked[index][0][..., 1].max()) for index in shown)
    for index in shown:
        points, _ = unpacked[index]
        figure, facts = figure_of(motions[index].skeleton), scene["samples"][index]
        row = np.empty((above + high + below, width, 3), np.uint8)
        row[:] = np.round(255 * np.array(to_rgb(BACKGROUND)))
        for number, frame in enumerate(np.linspace(0, len(points) - 1, poses).round().astype(int)):
            x, _, z = points[frame, figure.middle]
            zoom = 0.9 / (tall + 0.2)
            eye = Eye((x, tall / 2 + 0.02, z), azimuth, 0.1, zoom=zoom)
            body = Body(figure, points[frame], colours[index])
            tile = draw_scene([body], eye, width=side, height=high, floor=False)
            row[above:-below, number * side : (number + 1) * side] = tile
            moment = f"{frame / facts['fps']:.1f} s"
            write_words(row, moment, ((number + 0.5) * side, above + high + 8), size=10, colour="#5A6577")
        if len(unpacked) > 1 or names[index]:
            words, colour = names[index] or f"motion {index + 1}", colours[index] or INK
            write_words(row, words, (8, 11), size=12, colour=colour, centre=False)
        rows.append(row)
    return np.concatenate(rows)


def sample_colours(count: int, colour: str) -> list[str]:
    """A colour a motion: "samples" gives each its own, "sides" gives "", which colours left and right limbs."""
    return [BODY_COLOURS[index % len(BODY_COLOURS)] if colour == "samples" else "" for index in range(count)]


def _ghosts(way: np.ndarray, frame: int, apart: float = 0.75, most: int = 4) -> list[int]:
    """Earlier frames whose bodies stand clear of each other and of the present one, newest first."""
    found, last = [], way[frame]
    for at in range(frame - 1, -1, -1):
        if np.hypot(*(way[at] - last)) >= apart and len(found) < most:
            found.append(at)
            last = way[at]
    return found


def _numbered(bodies: list[Body], longest: int = 26) -> list[Body]:
    """Long names become numbers where several bodies stand side by side; the rows below say which is which."""
    named = [body for body in bodies if body.label]
    if len(named) < 2 or max(len(body.label) for body in named) * len(named) <= 3 * longest:
        return bodies
    numbers = {id(body): str(index + 1) for index, body in enumerate(named)}
    return [
        Body(body.figure, body.points, body.colour, body.alpha, body.contacts, body.trail, numbers.get(id(body), ""))
        for body in bodies
    ]


def _evened(path: np.ndarray, reach: int) -> np.ndarray:
    """A path (T, 3) averaged over as many frames before as after, fewer at its ends, measured from its start."""
    count = len(path)
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(path, axis=0)])
    at = np.arange(count)
    side = np.minimum(np.minimum(at, count - 1 - at), reach)
    even = (sums[at + side + 1] - sums[at - side]) / (2 * side + 1)[:, None]
    return even - even[0]
