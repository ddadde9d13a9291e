"""Pictures of procedural scenes: pixels are mapped back into each part's own frame, back to front, with soft edges.

A point keeps its colour for as long as it is seen, because textures live in the parts' local frames and there is no light.

Shapes: n scenes of one family, F frames drawn at once, uint8 pictures (n, F, size, size, 3).
"""

from __future__ import annotations

import numpy as np

from kinelib.tracks.scene_parts import Array, Camera, Part, World, invert, reach, screen_pose, signed_distance

BLOCK = 1 << 21  # pixels drawn at once, which bounds memory


def ground_waves(look: np.random.Generator, n: int) -> Array:
    """(n, 6, 3) waves of a background: wave vector and phase; the last two are fine grain."""
    angle, phase = look.uniform(-np.pi, np.pi, (2, n, 6))
    number = np.concatenate([look.uniform(2.5, 8, (n, 4)), look.uniform(14, 26, (n, 2))], 1)
    return np.stack([number * np.cos(angle), number * np.sin(angle), phase], -1).astype(np.float32)


def draw_worlds(world: World, camera: Camera, waves: Array, size: int, frames: Array) -> Array:
    """Draws frames (indices) of all scenes of a world.

    Args:
        world: n scenes.
        camera: their cameras.
        waves: (n, 6, 3) background waves.
        size: edge of the square picture in pixels.
        frames: (F,) frame indices.

    Returns:
        (n, F, size, size, 3) uint8.
    """
    n = len(waves)
    poses = [screen_pose(part, camera) for part in world.parts]
    pictures = np.empty((n, len(frames), size, size, 3), np.uint8)
    step = max(1, BLOCK // (n * size * size))
    for first in range(0, len(frames), step):
        chosen = frames[first : first + step]
        canvas = _ground(world, camera, waves, size, chosen)
        for part, (matrix, shift) in zip(world.parts, poses, strict=True):
            _paint(canvas, part, matrix, shift, chosen)
        pictures[:, first : first + step] = np.clip(canvas + 0.5, 0, 255)
    return pictures


def _centres(size: int) -> Array:
    return ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)


def _ground(world: World, camera: Camera, waves: Array, size: int, frames: Array) -> Array:
    """(n, F, size, size, 3) float32 background."""
    centres = _centres(size)
    inverse, shift = invert(camera.matrix[:, frames]), camera.shift[:, frames]
    # A wave of an affine map is a wave: its argument is linear in the pixel's column and row.
    numbers = waves[:, None, :, :2] @ inverse
    phase = waves[:, None, :, 2] - (numbers * shift[:, :, None]).sum(-1)
    across = numbers[..., 0, None] * centres + phase[..., None]  # (n, F, 6, W)
    down = numbers[..., 1, None] * centres  # (n, F, 6, H)
    # sin(a + b) = sin a cos b + cos a sin b: sines of rows and columns only, not of every pixel.
    rows = np.stack([np.cos(down), np.sin(down)], -1)  # (n, F, 6, H, 2)
    columns = np.stack([np.sin(across), np.cos(across)], -2)  # (n, F, 6, 2, W)
    paired = lambda a, b: (
        np.concatenate([rows[:, :, a], rows[:, :, b]], -1) @ np.concatenate([columns[:, :, a], columns[:, :, b]], -2)
    )
    first, second, grain = paired(0, 1), paired(2, 3), paired(4, 5)  # (n, F, H, W), each in -2..2
    colours = world.background[:, None, None, None]  # (n, 1, 1, 1, 3 tones, 3)
    one, two = colours[..., 1, :] - colours[..., 0, :], colours[..., 2, :] - colours[..., 0, :]
    # A soft threshold of the first field gives patches with edges; the second shades them.
    patch = np.clip(0.5 + 1.5 * first, 0, 1)
    canvas = patch[..., None] * one
    canvas += np.clip(0.25 + 0.25 * second, 0, 1)[..., None] * two
    canvas += colours[..., 0, :]
    canvas += (7 * grain)[..., None]
    return canvas


def _paint(canvas: Array, part: Part, matrix: Array, shift: Array, frames: Array) -> None:
    """Blends one part over the canvas (n, F, size, size, 3), looking only at a window of pixels around it."""
    size, rows = canvas.shape[2], part.rows()
    if not len(rows):
        return
    here = np.ix_(rows, frames)
    edge = min(size, int(np.ceil(reach(part, matrix)[here].max() * size)) + 3)
    corner = np.floor((shift[here] + 1) / 2 * size - edge / 2).astype(int)  # (rows, F, 2), may hang over the frame's edge
    if edge == size:
        corner[:] = 0
    column, row = (corner[..., axis, None] + np.arange(edge) for axis in (0, 1))
    to_xy = lambda index: ((2 * index + 1) / size - 1).astype(np.float32)
    scene, frame = (index[..., None, None] for index in here)  # broadcast against (rows, F, edge, edge)
    x, y = to_xy(column)[..., None, :], to_xy(row)[..., :, None]
    distance, local_x, local_y = signed_distance(part, invert(matrix), shift, x, y, scene, frame)
    stretch = np.sqrt(np.abs(np.linalg.det(matrix[here])))[..., None, None]
    cover = np.clip(0.5 - distance * (stretch * size / 2), 0, 1)
    inside = lambda index: (index >= 0) & (index < size)
    cover *= inside(row)[..., :, None] & inside(column)[..., None, :]
    found = np.nonzero(cover)
    scene, frame, down, across = found
    waves = part.texture[rows[scene]]
    pattern = np.sin(waves[:, 0] * local_x[found] + waves[:, 2]) + np.sin(waves[:, 1] * local_y[found] + waves[:, 3])
    paint = part.colour[rows[scene]] + (waves[:, 4] * pattern * 0.5)[:, None]
    place = (rows[scene], frame, row[scene, frame, down], column[scene, frame, across])
    canvas[place] += cover[found][:, None] * (paint - canvas[place])
