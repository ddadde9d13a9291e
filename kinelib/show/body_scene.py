"""Bodies on a floor, seen by an eye, as pictures: what a player's snapshot and a film are made of.

Drawn with OpenCV, like `show.snapshot`: a film of ten seconds takes a few seconds of one core. The browser's player
(`static/body_paint.js`) draws the same scene with the same numbers: floor grid, shadows, capsules from far to near.

Shapes: points (P, 3) metres of one moment, picture uint8 (H, W, 3).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib import font_manager
from matplotlib.colors import to_rgb

from kinelib.show.stick_figures import SIDE_COLOURS, Eye, Figure, capsules, mixed
from kinelib.show.theme import GREEN

BACKGROUND, GRID, INK = "#F7F9FC", "#C9D2DE", "#1B2330"
CONTACT = GREEN
ASKED, ASKED_RIM = "#F0B429", "#7A5A00"
LIGHT = np.array([0.35, 1.0, 0.25])  # where the light comes from; shadows fall the other way
_BITS = 4  # fractional bits of OpenCV's fixed-point coordinates


@dataclass(frozen=True, eq=False)
class Body:
    """One body at one moment.

    Args:
        figure: how it is drawn.
        points: (P, 3) metres.
        colour: of the whole body; "" colours left and right limbs.
        alpha: 1 solid, towards 0 a ghost without shadow.
        contacts: (4,) which feet stand, None where nobody knows.
        trail: (M, 2) x and z where its root has been.
        label: written above its head.
    """

    figure: Figure
    points: np.ndarray
    colour: str = ""
    alpha: float = 1.0
    contacts: np.ndarray | None = None
    trail: np.ndarray | None = None
    label: str = ""

    def colours(self) -> list[str]:
        """A colour for every segment."""
        return [self.colour or SIDE_COLOURS[side] for side in self.figure.sides.tolist()]


def draw_scene(
    bodies: Sequence[Body],
    eye: Eye,
    *,
    width: int = 720,
    height: int = 480,
    floor: bool = True,
    targets: Sequence[Mapping] = (),
) -> np.ndarray:
    """The bodies on their floor.

    Args:
        bodies: any number, drawn from far to near.
        eye: where from.
        width, height: pixels.
        floor: draw the grid, one line every half metre, and shadows.
        targets: what was asked for, on the floor or in the air, as `MotionPlayer` takes it.

    Returns:
        uint8 (height, width, 3).
    """
    image = np.full((height, width, 3), _rgb(BACKGROUND), np.uint8)
    lens = _Lens(eye, width, height)
    if floor:
        _draw_grid(image, lens, bodies)
        _draw_shadows(image, lens, bodies)
    for body in bodies:
        if body.trail is not None and len(body.trail) > 1:
            path = np.stack([body.trail[:, 0], np.zeros(len(body.trail)), body.trail[:, 1]], -1)
            colour = _rgb(body.colour or "#6C7686")
            cv2.polylines(image, [_fixed(lens.pixels(path)[0])], False, colour, 2, cv2.LINE_AA, _BITS)
        _draw_contacts(image, lens, body)
    for target in targets:
        _draw_target(image, lens, target)
    # Ghosts lie behind what is solid; among the solid ones the farthest first.
    order = sorted(bodies, key=lambda body: (body.alpha >= 1, eye.see(body.points.mean(0))[1]))
    for body in order:
        if body.alpha >= 1:
            _draw_body(image, lens, body)
        else:
            over = image.copy()
            _draw_body(over, lens, body)
            cv2.addWeighted(over, body.alpha, image, 1 - body.alpha, 0, image)
    for body in order:
        if body.label:
            top = body.points[:, 1].argmax()
            (x, y), _ = lens.pixels(body.points[top] + (0, 0.22 * body.figure.height / 1.55, 0))
            write_words(image, body.label, (x, y), colour=body.colour or INK)
    return image


def write_words(
    image: np.ndarray, words: str, place: tuple[float, float], *, size: int = 15, colour: str = INK, centre: bool = True
) -> None:
    """Writes a line onto a picture, on a pale ground, its middle (or its left end) at pixels (x, y)."""
    from PIL import Image, ImageDraw

    font = _font(size)
    wide, high = font.getlength(words), sum(font.getmetrics())
    x = min(max(place[0] - (wide / 2 if centre else 0), 4), max(image.shape[1] - wide - 4, 4))
    y = min(max(place[1] - high / 2, 1), max(image.shape[0] - high - 1, 1))
    x0, y0 = max(int(x) - 4, 0), max(int(y) - 1, 0)
    patch = image[y0 : int(y) + high + 2, x0 : int(x + wide) + 5]
    patch[:] = (0.25 * patch + 0.75 * np.array(_rgb(BACKGROUND))).astype(np.uint8)
    drawn = Image.fromarray(patch)
    ink = tuple(round(255 * part) for part in mixed(colour, "#000000", 0.3))
    ImageDraw.Draw(drawn).text((x - x0, y - y0), words, font=font, fill=ink)
    patch[:] = np.asarray(drawn)


@functools.cache
def _font(size: int):
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


@dataclass(frozen=True)
class _Lens:
    eye: Eye
    width: int
    height: int

    def pixels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel places (..., 2) and pixels a metre (...) of points (..., 3)."""
        places, _, scale = self.eye.see(points)
        middle = np.array([self.width, self.height]) / 2
        return middle + places * (self.height, -self.height), scale * self.height


def _rgb(colour: str) -> tuple[int, int, int]:
    return tuple(round(255 * part) for part in to_rgb(colour))


def _fixed(pixels: np.ndarray) -> np.ndarray:
    return np.round(np.clip((np.asarray(pixels) - 0.5), -6000, 6000) * 2**_BITS).astype(np.int32)


def _draw_grid(image: np.ndarray, lens: _Lens, bodies: Sequence[Body]) -> None:
    """A line every half metre that pales with its distance; pieces of one shade are drawn in one call."""
    centre = np.round(np.array(lens.eye.target)[[0, 2]])
    spread = max([np.abs(body.points[:, [0, 2]] - centre).max() for body in bodies] + [0.0])
    reach = int(np.ceil(min(spread + 3, 14)))
    index = np.arange(-2 * reach, 2 * reach + 1)
    aside, start = (part.ravel() for part in np.meshgrid(index / 2, np.arange(-reach, reach), indexing="ij"))
    share = np.clip(1 - np.hypot(aside, start + 0.5) / reach, 0, 1) ** 1.2 * np.repeat(
        np.where(index % 2, 0.45, 1), 2 * reach
    )
    along = np.stack([np.stack([aside, start], -1), np.stack([aside, start + 1], -1)], 1) + centre
    ends = np.concatenate([along, along[..., ::-1] - centre[::-1] + centre])
    ends = np.stack([ends[..., 0], np.zeros(ends.shape[:2]), ends[..., 1]], -1)
    depth = lens.eye.distance - lens.eye.see(ends)[1].max(1)
    before = (lens.eye.zoom is not None) | (depth > 0.1 * lens.eye.distance)
    shade = np.round(np.tile(share, 2) * 9).astype(int) * before
    pixels = _fixed(lens.pixels(ends)[0])
    behind, ink = np.array(_rgb(BACKGROUND), float), np.array(_rgb(GRID), float)
    for level in np.unique(shade[shade > 0]):
        colour = (behind + (ink - behind) * level / 9).tolist()
        cv2.polylines(image, list(pixels[shade == level]), False, colour, 1, cv2.LINE_AA, _BITS)


def _draw_shadows(image: np.ndarray, lens: _Lens, bodies: Sequence[Body]) -> None:
    half = image.shape[0] // 2, image.shape[1] // 2  # soft edges need no more
    shade = np.zeros(half, np.uint8)
    for body in bodies:
        if body.alpha < 1:
            continue
        on_floor = body.points - np.maximum(body.points[:, 1:2], 0) * (LIGHT / LIGHT[1])
        a, b = (on_floor[body.figure.segments[:, end]][:, [0, 2]] for end in (0, 1))
        outline = capsules(a, b, body.figure.radii, corners=5)
        outline = np.stack([outline[..., 0], np.zeros(outline.shape[:2]), outline[..., 1]], -1)
        for polygon in _fixed(lens.pixels(outline)[0] / 2):
            cv2.fillConvexPoly(shade, polygon, 56, cv2.LINE_AA, _BITS)
    soft = cv2.resize(cv2.GaussianBlur(shade, (0, 0), max(half[0] / 260, 0.6)), image.shape[1::-1])
    dark = cv2.multiply(image, cv2.merge([soft] * 3), scale=1 / 255)
    image[:] = cv2.subtract(image, dark)


def _draw_contacts(image: np.ndarray, lens: _Lens, body: Body) -> None:
    if body.contacts is None or not body.figure.feet:
        return
    for joint, standing in zip(body.figure.feet, np.asarray(body.contacts), strict=True):
        if standing > 0.5:
            x, _, z = body.points[joint]
            turn = np.linspace(0, 2 * np.pi, 25)
            ring = np.stack([x + 0.085 * np.cos(turn), np.zeros_like(turn), z + 0.085 * np.sin(turn)], -1)
            cv2.fillConvexPoly(image, _fixed(lens.pixels(ring)[0]), _rgb(CONTACT), cv2.LINE_AA, _BITS)


def _draw_target(image: np.ndarray, lens: _Lens, target: Mapping) -> None:
    colour, rim = _rgb(ASKED), _rgb(ASKED_RIM)
    if "points" in target:
        way = np.insert(np.asarray(target["points"], float), 1, 0.0, axis=1)
        cv2.polylines(image, [_fixed(lens.pixels(way)[0])], False, colour, 3, cv2.LINE_AA, _BITS)
    elif "x" in target:
        at = np.array([target["x"], target.get("y", 0.0), target["z"]], float)
        if target.get("heading") is not None:
            tip = at + 0.42 * np.array([np.sin(target["heading"]), 0, np.cos(target["heading"])])
            cv2.polylines(image, [_fixed(lens.pixels(np.stack([at, tip]))[0])], False, rim, 2, cv2.LINE_AA, _BITS)
        place = _fixed(lens.pixels(at)[0]).tolist()
        for radius, shade in ((6, rim), (5, colour)):
            cv2.circle(image, place, radius << _BITS, shade, -1, cv2.LINE_AA, _BITS)


def _draw_body(image: np.ndarray, lens: _Lens, body: Body) -> None:
    """Capsules from far to near: a dark rim, the colour, and a light streak that makes them round."""
    pixels, scale = lens.pixels(body.points)
    nearness = lens.eye.see(body.points)[1]
    segments = body.figure.segments
    radii = body.figure.radii * scale[segments]
    starts, ends = pixels[segments[:, 0]], pixels[segments[:, 1]]
    rim = max(image.shape[0] / 420, 0.9)
    outer, inner = capsules(starts, ends, radii + rim), capsules(starts, ends, radii)
    lit = -0.28 * radii.min(1, keepdims=True) * np.array([[0.7, 1.0]])  # up and to the left on the screen
    streak = capsules(starts + lit, ends + lit, radii * 0.42)
    outlines = _fixed(np.stack([outer, inner, streak], 1))
    shades = [_shades(colour) for colour in body.colours()]
    for index in np.argsort(nearness[segments].mean(1)):
        for outline, shade in zip(outlines[index], shades[index], strict=True):
            cv2.fillConvexPoly(image, outline, shade, cv2.LINE_AA, _BITS)


@functools.cache
def _shades(colour: str) -> list[tuple[int, int, int]]:
    """Of the rim, the body and the streak."""
    parts = mixed(colour, "#0B1017", 0.6), to_rgb(colour), mixed(colour, "#FFFFFF", 0.32)
    return [tuple(round(255 * part) for part in one) for one in parts]
