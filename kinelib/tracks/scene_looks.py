"""Chance, colours, words and time curves shared by the scene families.

Shapes: n scenes of one family, T frames, float32 numpy; `time` is (T,) in [0, 1], first frame 0.
"""

from __future__ import annotations

import numpy as np

from kinelib.tracks.scene_parts import Array, Pose, unit

COLOURS = {
    "red": (215, 45, 45),
    "blue": (50, 85, 215),
    "green": (45, 165, 70),
    "yellow": (235, 205, 55),
    "orange": (240, 130, 35),
    "purple": (140, 65, 180),
    "cyan": (60, 195, 210),
    "pink": (240, 125, 180),
    "white": (225, 225, 225),
    "black": (45, 45, 50),
}
GROUNDS = np.array(
    [(120, 120, 120), (165, 160, 150), (185, 170, 140), (110, 130, 105), (135, 150, 160), (150, 125, 110), (90, 100, 115)],
    np.float32,
)
ASPHALT = np.array([(105, 105, 108), (125, 122, 120), (140, 138, 135), (90, 94, 98), (118, 112, 104)], np.float32)
FELT = np.array([(60, 110, 85), (75, 125, 95), (85, 115, 110), (95, 120, 85)], np.float32)
COMPASS = ("right", "down and right", "down", "down and left", "left", "up and left", "up", "up and right")
STEPS = 256  # intervals of the fixed grid on which paths are integrated, so that they do not depend on the frame count


class Chance:
    """Random draws for n scenes at once, all float32."""

    def __init__(self, generator: np.random.Generator, n: int):
        self.generator, self.n = generator, n

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """(n, *shape) uniform numbers."""
        return self.generator.uniform(low, high, (self.n, *shape)).astype(np.float32)

    def angle(self) -> Array:
        """(n,) directions."""
        return self.uniform(-np.pi, np.pi)

    def flag(self, probability: float) -> Array:
        """(n,) bool."""
        return self.generator.random(self.n) < probability

    def sign(self, probability: float = 0.5) -> Array:
        """(n,) +1 with the given probability, else -1."""
        return np.where(self.flag(probability), 1, -1).astype(np.float32)

    def pick(self, count: int, weights: tuple[float, ...] | None = None) -> Array:
        """(n,) integers below count."""
        return self.generator.choice(count, self.n, p=weights)

    def texture(self, contrast: float = 1.0) -> Array:
        """(n, 5) texture parameters of a part."""
        waves, phases = self.uniform(9, 19, 2), self.uniform(-np.pi, np.pi, 2)
        return np.concatenate([waves, phases, self.uniform(20, 32, 1) * contrast], 1)

    def paints(self, count: int) -> tuple[list[list[str]], list[Array]]:
        """`count` different colours a scene: their names [count][n] and values [count] of (n, 3)."""
        names, values = list(COLOURS), np.array(list(COLOURS.values()), np.float32)
        order = np.argsort(self.generator.random((self.n, len(names))), 1)[:, :count]
        shades = values[order] + self.uniform(-10, 10, count, 3)
        return [[names[i] for i in order[:, k]] for k in range(count)], [shades[:, k] for k in range(count)]

    def ground(self, tones: Array = GROUNDS) -> Array:
        """(n, 3, 3) background colours, different ones where there are enough."""
        order = np.argsort(self.generator.random((self.n, len(tones))), 1)[:, :3]
        return tones[order] + self.uniform(-12, 12, 3, 1)

    def start(self, nominal: Array, limit: float = 0.62) -> Array:
        """(n, 2) start points from which the nominal way (n, 2) stays inside the frame; blind to what will happen."""
        low = np.minimum(-limit - np.minimum(nominal, 0), 0)
        high = np.maximum(limit - np.maximum(nominal, 0), 0)
        return low + (high - low) * self.uniform(0, 1, 2)

    def progress(self, time: Array) -> Array:
        """(n, T) smooth curves from 0 to 1, between even speed and a soft start and stop."""
        blend = self.uniform(0, 1)[:, None]
        return (1 - blend) * time + blend * smooth(time)

    def words(self, templates: tuple[str, ...], **words: list[str]) -> list[str]:
        """One of the templates a scene, filled with the scene's words."""
        chosen = self.pick(len(templates))
        return [templates[k].format(**{name: values[i] for name, values in words.items()}) for i, k in enumerate(chosen)]


def smooth(time: Array) -> Array:
    """Smooth step from 0 to 1, flat outside."""
    time = np.clip(time, 0, 1)
    return time * time * (3 - 2 * time)


def still(time: Array, centre: Array, angle: Array | float = 0.0) -> Pose:
    """The pose of something at rest at `centre` (n, 2), turned by `angle` (n,) or one number."""
    angle = np.broadcast_to(np.asarray(angle, np.float32), centre.shape[:1])
    repeat = lambda value: np.repeat(value[:, None].astype(np.float32), len(time), 1)
    return Pose(repeat(centre), repeat(angle))


def constant(n: int, *values: float) -> Array:
    """The same value or vector for n scenes: (n,) or (n, len(values))."""
    array = np.tile(np.array(values, np.float32), (n, 1))
    return array[:, 0] if len(values) == 1 else array


def stack(*columns: Array | float) -> Array:
    """Columns (n,) or numbers as an (n, k) array."""
    return np.stack(np.broadcast_arrays(*columns), -1).astype(np.float32)


def at_times(path: Array, time: Array) -> Array:
    """Reads curves given on the fixed grid (n, STEPS + 1, ...) at the frames' times, linearly in between."""
    place = time * STEPS
    before = np.minimum(place.astype(int), STEPS - 1)
    part = (place - before).astype(np.float32).reshape(-1, *[1] * (path.ndim - 2))
    return path[:, before] * (1 - part) + path[:, before + 1] * part


def drive(time: Array, start: Array, heading: Array, length: Array, turn: Array, begin: Array, blend: Array) -> Pose:
    """The way of something that moves along its heading and turns by `turn` from time `begin` on; all arguments (n, ...)."""
    grid = np.linspace(0, 1, STEPS + 1, dtype=np.float32)
    angle = heading[:, None] + turn[:, None] * smooth((grid - begin[:, None]) / (1 - begin[:, None]))
    speed = length[:, None] * (1 - blend[:, None] + blend[:, None] * 6 * grid * (1 - grid))
    velocity = speed[..., None] * unit(angle)
    steps = (velocity[:, 1:] + velocity[:, :-1]) / (2 * STEPS)
    path = np.concatenate([np.zeros_like(steps[:, :1]), np.cumsum(steps, 1)], 1) + start[:, None]
    return Pose(at_times(path, time), at_times(angle, time))


def compass(angle: Array) -> list[str]:
    """Directions in words, eight of them; y points down."""
    return [COMPASS[k] for k in np.round(angle / (np.pi / 4)).astype(int) % 8]


def choose(index: Array, *words: str) -> list[str]:
    """The word of each index."""
    return [words[int(k)] for k in index]
