"""Which points of a scene are followed, where they go, and when they are seen.

A point belongs to the topmost part at its place in the first frame and is fixed to that part's local frame, so its track
is exact. It is seen while it is inside the frame and no part in front of its own covers it, so its visibility is exact too.

Shapes: n scenes of one family, N points, T frames, K candidates; xy in [-1, 1], float32.
"""

from __future__ import annotations

import numpy as np

from kinelib.tracks.scene_parts import Array, Camera, World, apply, invert, reach, screen_pose, signed_distance

INSET = 0.0075  # how far inside a part its points start, so that a picture shows them
ON_OBJECTS = (0.62, 0.72)  # share of the points that lies on things that can move


def movable(world: World) -> Array:
    """(P + 1,) bool by part index: can it move by itself? The last entry, index -1, is the background."""
    return np.array([part.actor for part in world.parts] + [False])


def choose_points(world: World, look: np.random.Generator, n: int, count: int) -> tuple[Array, Array]:
    """Draws points that the first frame shows, in random order.

    Returns:
        local (n, N, 2): local coordinates at rest; world coordinates for points on scenery and background.
        part (n, N): the part each is fixed to, -1 for the background.
    """
    tries, field = int(1.5 * count) + 8, 4 * count + 32
    area = np.stack([part.area() * part.actor for part in world.parts], 1)
    # By area, but small parts get enough to be followed too.
    weight = np.maximum(area, 0.12 * area.sum(1, keepdims=True)) * (area > 0)
    local = [look.uniform(-1, 1, (n, field, 2)).astype(np.float32)]
    owner, race, screen = [np.full((n, field), -1)], [look.exponential(size=(n, field))], [local[0]]
    rows = np.arange(n)[:, None]
    for index, part in enumerate(world.parts):
        if not part.actor:
            continue
        spot = look.uniform(-1, 1, (n, tries, 2)).astype(np.float32) * part.half[:, None]
        spot = spot if part.offset is None else spot + part.offset[:, None]
        inside = part.distance(spot[..., 0], spot[..., 1], rows) < -INSET
        bent = spot.copy()
        if part.warp is not None:
            bent[..., 1] += part.warp.shift(spot[..., 0], rows, np.zeros_like(rows))
        screen.append(apply(part.pose.matrix()[:, :1], bent) + part.pose.centre[:, :1])
        local.append(spot)
        owner.append(np.full((n, tries), index))
        key = look.exponential(size=(n, tries))
        # An exponential race: the first k to finish are a draw of k without replacement, by weight.
        with np.errstate(divide="ignore"):
            race.append(np.where(inside, key / weight[:, index, None], np.inf))
    local, owner, race, screen = (np.concatenate(items, 1) for items in (local, owner, race, screen))
    top = _topmost(world, screen)
    # A background candidate belongs to whatever scenery it falls on; an object's candidate must not be hidden.
    ground = (owner == -1) & ~movable(world)[top]
    ready = (owner >= 0) & (top == owner) & (np.abs(screen).max(-1) < 1 - 2 * INSET) & np.isfinite(race)
    owner = np.where(ground, top, owner)
    share = np.round(look.uniform(*ON_OBJECTS, n) * count)[:, None]
    rank = lambda pool: np.argsort(np.argsort(np.where(pool, race, np.inf), 1), 1)
    place = np.where(ready, rank(ready), rank(ground))
    # Those within their pool's share go first; the rest wait in case the other pool is short.
    late = place >= np.where(ready, share, count - share)
    queue = place + np.where(late, 1 << 20, 0) + np.where(ready | ground, 0, 1 << 21)
    chosen = np.argsort(queue, 1)[:, :count]
    if (np.take_along_axis(queue, chosen, 1) >= 1 << 21).any():
        raise RuntimeError("a scene shows too little of itself to place its points; this is a fault of its family.")
    chosen = np.take_along_axis(chosen, np.argsort(look.random(chosen.shape), 1), 1)
    return np.take_along_axis(local, chosen[..., None], 1), np.take_along_axis(owner, chosen, 1)


def _topmost(world: World, screen: Array) -> Array:
    """(n, K) index of the part seen at screen points (n, K, 2) in the first frame, -1 for the background."""
    top = np.full(screen.shape[:2], -1)
    for index, part in enumerate(world.parts):
        rows = part.rows()
        place = rows[:, None]
        x, y = screen[rows, :, 0], screen[rows, :, 1]
        inverse = invert(part.pose.matrix()[:, :1])
        distance = signed_distance(part, inverse, part.pose.centre, x, y, place, np.zeros_like(place))[0]
        top[rows] = np.where(distance < INSET, index, top[rows])
    return top


def follow_points(world: World, camera: Camera, local: Array, owner: Array) -> tuple[Array, Array]:
    """Exact tracks (n, N, T, 2) and visibility (n, N, T) of points given as `choose_points` returns them."""
    poses = [screen_pose(part, camera) for part in world.parts]
    frames = np.arange(camera.matrix.shape[1])
    xy = np.empty((*owner.shape, len(frames), 2), np.float32)
    # Scenery and background points are given in world coordinates, so that only the camera moves them.
    scene, point = np.nonzero(~movable(world)[owner])
    xy[scene, point] = apply(camera.matrix[scene], local[scene, point, None]) + camera.shift[scene]
    for index, (part, (matrix, shift)) in enumerate(zip(world.parts, poses, strict=True)):
        if not part.actor:
            continue
        scene, point = np.nonzero(owner == index)
        spots = np.repeat(local[scene, point, None], len(frames), 1)
        if part.warp is not None:
            spots[..., 1] += part.warp.shift(spots[..., 0], scene[:, None], frames)
        xy[scene, point] = apply(matrix[scene], spots) + shift[scene]
    x, y = np.ascontiguousarray(xy[..., 0]), np.ascontiguousarray(xy[..., 1])
    visible = (np.abs(x) <= 1) & (np.abs(y) <= 1)
    for index, (part, (matrix, shift)) in enumerate(zip(world.parts, poses, strict=True)):
        radius, centre = reach(part, matrix)[:, None], shift[:, None]
        near = visible & (owner < index)[..., None]
        near &= (x - centre[..., 0]) ** 2 + (y - centre[..., 1]) ** 2 < radius**2
        if part.present is not None:
            near &= part.present[:, None, None]
        # The exact test only where a point in view lies behind the part and close to it: a few per cent of all.
        found = scene, point, frame = np.nonzero(near)
        distance = signed_distance(part, invert(matrix), shift, x[found], y[found], scene, frame)[0]
        visible[found] = distance > 0
    return xy, visible
