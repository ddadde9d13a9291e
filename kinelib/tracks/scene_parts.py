"""What procedural scenes are made of: parts with a shape, a pose over time and an optional bend.

A part is a rounded box (a disc when its corner radius is its half size, a wedge when it tapers) in a local frame. The
chain *local -> bend -> pose -> camera* puts it on the frame and can be inverted exactly, so that the same functions
draw the pictures, move the points and decide what hides what. There is no such module in the ZipMo paper, which
learns from real video only; scenes are what has a known answer.

Shapes: n scenes of one family, T frames, float32 numpy. Angles in radians; as y points down, positive is clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Pose:
    """Where a local frame is: centre (n, T, 2), angle (n, T), scale (n, T, 2) along the local axes or None for 1."""

    centre: Array
    angle: Array
    scale: Array | None = None

    def matrix(self) -> Array:
        """The (n, T, 2, 2) map from local directions to world directions."""
        matrix = rotation(self.angle)
        return matrix if self.scale is None else matrix * self.scale[..., None, :]

    def carry(self, offset: Array, angle: Array | float = 0.0) -> Pose:
        """The pose of something fixed to this one at a local offset (n, 2), turned by `angle` (n,) against it."""
        centre = self.centre + apply(self.matrix(), offset[:, None])
        turned = np.broadcast_to(np.asarray(angle, np.float32), self.angle.shape[:1])
        return Pose(centre, self.angle + turned[:, None], self.scale)


@dataclass(frozen=True)
class Warp:
    """A bend across the local x axis: y += curve * x^2 + swing * grip(x) * sin(wave * x + phase).

    As x is untouched the inverse is exact. `grip` is 1, or for `held` parts grows from 0 at the left end to 1.
    """

    curve: Array  # (n, T) curvature, 1/unit
    swing: Array  # (n, T) height of the wave
    phase: Array  # (n, T) radians
    wave: Array  # (n,) radians a unit
    held: Array  # (n,) bool: the left end does not move
    half: Array  # (n,) half length of the part

    def shift(self, x: Array, rows: Array, frames: Array) -> Array:
        """How far points at local x are pushed along y; rows and frames are indices that broadcast against x."""
        grip = np.where(self.held[rows], (x / self.half[rows] + 1) / 2, 1)
        wave = np.sin(self.wave[rows] * x + self.phase[rows, frames])
        return self.curve[rows, frames] * x * x + self.swing[rows, frames] * grip * wave


@dataclass(frozen=True)
class Part:
    """One visible thing; parts later in a world's list lie in front of earlier ones.

    Args:
        name: what it is, for the facts of a scene.
        pose: its local frame over time, in the world (before the camera).
        half: (n, 2) half length and half width.
        corner: (n,) corner radius; min(half) makes a disc or a capsule.
        colour: (n, 3) red, green, blue in 0..255.
        texture: (n, 5) two frequencies, two phases, one contrast.
        taper: (n,) how much narrower the right end is: 0 a box, 1 a triangle.
        offset: (n, 2) where the shape sits in its local frame (for parts that bend together).
        warp: a bend, or None for rigid parts.
        actor: False for scenery, which never moves by itself.
        present: (n,) bool, in which of the scenes the part exists.
    """

    name: str
    pose: Pose
    half: Array
    corner: Array
    colour: Array
    texture: Array
    taper: Array | None = None
    offset: Array | None = None
    warp: Warp | None = None
    actor: bool = True
    present: Array | None = None

    def rows(self) -> Array:
        """The scenes (indices) in which the part exists."""
        return np.arange(len(self.half)) if self.present is None else np.flatnonzero(self.present)

    def area(self) -> Array:
        """(n,) rough area, 0 where the part does not exist."""
        area = 4 * self.half.prod(-1) * (1 - 0.5 * self.taper if self.taper is not None else 1)
        if self.pose.scale is not None:
            area = area * self.pose.scale[:, 0].prod(-1)
        return area if self.present is None else area * self.present

    def distance(self, x: Array, y: Array, rows: Array) -> Array:
        """Signed distance (about, local units, negative inside) of unbent local points; rows broadcasts against them."""
        half_x, half_y, corner = self.half[rows, 0], self.half[rows, 1], self.corner[rows]
        if self.offset is not None:
            x, y = x - self.offset[rows, 0], y - self.offset[rows, 1]
        if self.taper is not None:
            y = y / np.maximum(1 - self.taper[rows] * np.clip((x / half_x + 1) / 2, 0, 1), 0.08)
        over_x, over_y = np.abs(x) - (half_x - corner), np.abs(y) - (half_y - corner)
        outside = np.sqrt(np.maximum(over_x, 0) ** 2 + np.maximum(over_y, 0) ** 2)
        return outside + np.minimum(np.maximum(over_x, over_y), 0) - corner


def box(
    name: str,
    pose: Pose,
    long: Array | float,
    wide: Array | float,
    colour: Array | tuple[float, float, float],
    texture: Array,
    *,
    corner: Array | float = 0.01,
    taper: Array | float | None = None,
    **rest,
) -> Part:
    """A part of half length `long` and half width `wide`; numbers stand for the same in all scenes."""
    n = len(pose.centre)
    column = lambda value: np.broadcast_to(np.asarray(value, np.float32), (n,))
    half, colour = np.stack([column(long), column(wide)], -1), np.broadcast_to(np.asarray(colour, np.float32), (n, 3))
    taper = None if taper is None else column(taper)
    return Part(name, pose, half, column(corner), colour, texture, taper=taper, **rest)


def disc(name: str, pose: Pose, radius: Array | float, colour: Array | tuple, texture: Array, **rest) -> Part:
    """A round part."""
    return box(name, pose, radius, radius, colour, texture, corner=radius, **rest)


@dataclass(frozen=True)
class World:
    """n scenes of one family: parts from back to front, what they mean, and a camera.

    Args:
        parts: from back to front.
        main: index of the part that the label and the facts speak about.
        modes: n names of what happens, for the class label.
        captions: n sentences.
        background: (n, 3, 3) three colours.
        direction: (n, 2) unit vector in which the first frame says the main part will go, 0 where there is none.
        facts: further arrays with n rows.
    """

    parts: list[Part]
    main: int
    modes: list[str]
    captions: list[str]
    background: Array
    direction: Array
    facts: dict[str, Array] = field(default_factory=dict)

    def take(self, rows: Array) -> World:
        """The same world with only some of its scenes."""
        return World(
            parts=[take(part, rows) for part in self.parts],
            main=self.main,
            modes=[self.modes[i] for i in rows],
            captions=[self.captions[i] for i in rows],
            background=self.background[rows],
            direction=self.direction[rows],
            facts={name: value[rows] for name, value in self.facts.items()},
        )


@dataclass(frozen=True)
class Camera:
    """Screen = zoom * rotation(angle) * (world - centre): matrix (n, T, 2, 2) and shift (n, T, 2)."""

    matrix: Array
    shift: Array

    @classmethod
    def moving(cls, pan: Array, zoom: Array, angle: Array) -> Camera:
        """A camera from pan (n, T, 2) in world units, zoom (n, T) and roll (n, T) of the picture, clockwise."""
        matrix = rotation(angle) * zoom[..., None, None]
        return cls(matrix, -apply(matrix, pan))


def take(thing, rows: Array):
    """Some scenes of a part, pose, warp or camera: every array in it begins with a scene axis."""
    arrays = {}
    for name, value in vars(thing).items():
        if isinstance(value, np.ndarray):
            arrays[name] = value[rows]
        elif isinstance(value, Pose | Warp):
            arrays[name] = take(value, rows)
    return replace(thing, **arrays)


def _matrix(a: Array, b: Array, c: Array, d: Array) -> Array:
    """(..., 2, 2) matrices [[a, b], [c, d]] from their entries."""
    matrix = np.empty((*a.shape, 2, 2), np.float32)
    matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1] = a, b, c, d
    return matrix


def rotation(angle: Array) -> Array:
    """(..., 2, 2) rotation matrices; positive angles turn clockwise on the screen."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return _matrix(cosine, -sine, sine, cosine)


def unit(angle: Array) -> Array:
    """(..., 2) unit vectors."""
    return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)


def apply(matrix: Array, points: Array) -> Array:
    """Matrices (..., 2, 2) times points (..., 2), broadcast; much faster than einsum on such small ones."""
    return matrix[..., 0] * points[..., :1] + matrix[..., 1] * points[..., 1:]


def screen_pose(part: Part, camera: Camera) -> tuple[Array, Array]:
    """The affine map from (bent) local coordinates to the screen: matrix (n, T, 2, 2), shift (n, T, 2)."""
    return camera.matrix @ part.pose.matrix(), apply(camera.matrix, part.pose.centre) + camera.shift


def invert(matrix: Array) -> Array:
    """Inverse of (..., 2, 2) matrices."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    scale = 1 / (a * d - b * c)
    return _matrix(d * scale, -b * scale, -c * scale, a * scale)


def signed_distance(part: Part, inverse: Array, shift: Array, x: Array, y: Array, rows: Array, frames: Array):
    """Distance of screen points to a part, and their local x and y.

    Args:
        part: the part.
        inverse: (n, T, 2, 2) inverse of its map to the screen.
        shift: (n, T, 2) of that map.
        x, y: screen coordinates, any shape.
        rows, frames: indices of scene and frame, broadcastable against x.
    """
    inverse, shift = inverse[rows, frames], shift[rows, frames]
    dx, dy = x - shift[..., 0], y - shift[..., 1]
    local_x = inverse[..., 0, 0] * dx + inverse[..., 0, 1] * dy
    local_y = inverse[..., 1, 0] * dx + inverse[..., 1, 1] * dy
    if part.warp is not None:
        local_y = local_y - part.warp.shift(local_x, rows, frames)
    return part.distance(local_x, local_y, rows), local_x, local_y


def reach(part: Part, matrix: Array) -> Array:
    """Radius (n, T) of a circle on the screen, around the part's shift, that holds it; matrix (n, T, 2, 2)."""
    extent = np.linalg.norm(part.half, axis=-1)[:, None]
    if part.offset is not None:
        extent = extent + np.linalg.norm(part.offset, axis=-1)[:, None]
    if part.warp is not None:
        extent = extent + np.abs(part.warp.curve) * extent**2 + np.abs(part.warp.swing)
    return extent * np.sqrt((matrix**2).sum(-2).max(-1))
