"""Exact point tracks of a simulated robot, one set a view: no tracker, no drift, and it is known what hides what.

The paper tracks its robot videos with CoTracker3. A simulator knows better: a pixel of a reference frame is on some object
at some depth, which is a point in that object's own frame; wherever the object goes, the point goes too. At every frame it
is put back into the world, projected, and seen if the picture shows that same object at that depth there.

Where points are taken decides what is learnt: of a regular grid hardly a point in twenty lies on something that moves. Here
a share of them is given to what can move, divided evenly among the kinematic trees (the arm, the drawer, the block), so
that a block of a few pixels is tracked as well as the arm.

Shapes: V views, T frames, S side of the pictures, R side of the pictures of objects and depth, O objects, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kinelib.robots.mujoco_scene import Camera
from kinelib.robots.worlds import World, WorldState, check_known
from kinelib.tracks.tracks import Tracks

TOLERANCE = 0.01  # a point is seen if the surface there is as far as it, up to this share of the distance
FAR_OUT = 8.0  # positions are held within this many half-frames; points beyond are invisible


@dataclass(frozen=True)
class Footage:
    """An episode drawn from stored states: pictures, and the geometry that exact tracks are read from."""

    task: str  # of the world that was filmed
    views: tuple[str, ...]  # V names
    fps: float  # frames a second of the episode
    pictures: NDArray[np.uint8]  # (V, T, S, S, 3)
    objects: NDArray[np.int16]  # (V, T, R, R) object behind every pixel, -1 for none
    depth: NDArray[np.float32]  # (V, T, R, R) metres
    cameras: tuple[tuple[Camera, ...], ...]  # V x T
    positions: NDArray[np.float64]  # (T, O, 3) of the objects
    rotations: NDArray[np.float64]  # (T, O, 3, 3)
    movers: NDArray[np.int32]  # (O,) kinematic tree of an object, 0 for what cannot move

    def __len__(self) -> int:
        return len(self.positions)


def film(
    world: World,
    states: Sequence[WorldState],
    *,
    views: Sequence[str] | None = None,
    side: int = 96,
    detail: int = 256,
    fps: float | None = None,
) -> Footage:
    """Draws stored states in every view; the world is left at the last of them.

    Args:
        world: of the task the states are from.
        states: T >= 1 of them.
        views: V names; default: all the world has.
        side: pixels of the pictures.
        detail: pixels of the pictures of objects and depth; finer than the pictures, because a point is no wider than one.
        fps: frames a second; default: the states are successive steps.

    Raises:
        WorldError: for an unknown view or states of another task. ValueError: without a state.
        RendererError: when the machine cannot draw.
    """
    if not states:
        raise ValueError("there is no state to film.")
    views = tuple(check_known("view", view, world.views) for view in (views or world.views))
    shape = (len(views), len(states))
    pictures = np.empty((*shape, side, side, 3), np.uint8)
    objects, depth = np.empty((*shape, detail, detail), np.int16), np.empty((*shape, detail, detail), np.float32)
    cameras, poses = [[] for _ in views], []
    for frame, state in enumerate(states):
        world.restore(state)
        poses.append(world.scene.poses())
        for number, view in enumerate(views):
            pictures[number, frame] = world.render(view, side)
            objects[number, frame], depth[number, frame] = world.scene.surfaces(view, detail)
            cameras[number].append(world.scene.camera(view))
    return Footage(
        world.task,
        views,
        fps or world.hertz,
        pictures,
        objects,
        depth,
        tuple(map(tuple, cameras)),
        np.stack([pose.positions for pose in poses]),
        np.stack([pose.rotations for pose in poses]),
        world.scene.movers(),
    )


def exact_tracks(
    footage: Footage,
    view: str,
    *,
    count: int = 256,
    moving_share: float = 0.75,
    references: int = 1,
    seed: int = 0,
) -> Tracks:
    """Takes points from reference frames of a view and follows each through all frames, before and after.

    Args:
        footage: what :func:`film` drew.
        view: one of its views.
        count: N points.
        moving_share: the share of them on what can move, as far as the view shows such.
        references: frames from which points are taken, evenly spread from the first; with one, all points are visible
            in the first frame. More are for windows that start later, and for cameras that move.
        seed: draws the points.

    Returns:
        Tracks with B = 1; a point's position is exact also where it is hidden.

    Raises:
        WorldError: for a view that was not filmed. ValueError: when the view shows no surface, or no point is asked for.
    """
    number = footage.views.index(check_known("filmed view", view, footage.views))
    if count < 1 or not 1 <= references <= len(footage) or not 0 <= moving_share <= 1:
        raise ValueError(
            f"count must be at least 1, references 1 to the {len(footage)} frames there are, and moving_share in [0, 1]; "
            f"got {count}, {references}, {moving_share}."
        )
    draw = np.random.default_rng(seed)
    frames = np.linspace(0, len(footage), references, endpoint=False).astype(int)
    owners, locals_ = [], []
    for order, frame in enumerate(frames):
        wanted = count * (order + 1) // references - count * order // references
        pixels = _choose(footage.objects[number, frame], footage.movers, wanted, moving_share, draw)
        owner = footage.objects[number, frame][pixels[:, 0], pixels[:, 1]].astype(int)
        xy = (pixels[:, ::-1] + 0.5) / footage.objects.shape[-1] * 2 - 1
        depth = footage.depth[number, frame][pixels[:, 0], pixels[:, 1]]
        world = footage.cameras[number][frame].unproject(xy, depth)
        offset = world - footage.positions[frame, owner]
        locals_.append(np.einsum("nij,ni->nj", footage.rotations[frame, owner], offset))
        owners.append(owner)
    xy, visible = _follow(footage, number, np.concatenate(owners), np.concatenate(locals_))
    facts = {"source": footage.task, "tracker": "mujoco", "view": view, "references": frames.tolist()}
    size = (footage.pictures.shape[3], footage.pictures.shape[2])
    return Tracks(torch.from_numpy(xy)[None], torch.from_numpy(visible)[None], footage.fps, size, facts)


def _choose(objects: NDArray, movers: NDArray, count: int, moving_share: float, draw: np.random.Generator) -> NDArray:
    """(count, 2) rows and columns of pixels: what can move gets its share, tree by tree, and the rest stands still."""
    tree = np.where(objects >= 0, movers[np.maximum(objects, 0)], -1)
    trees = [one for one in np.unique(tree) if one > 0]
    groups = [np.argwhere(tree == one) for one in trees]
    still = np.argwhere(tree == 0)
    if not len(still) and not groups:
        raise ValueError("this view shows no surface to take points from; choose another view.")
    wanted = [0] * len(groups)
    left = min(round(count * moving_share), sum(map(len, groups))) if len(still) else count
    # Smallest first, so that what a small tree cannot use goes to the larger ones.
    for rank, index in enumerate(sorted(range(len(groups)), key=lambda index: len(groups[index]))):
        wanted[index] = min(left // (len(groups) - rank), len(groups[index]))
        left -= wanted[index]
    wanted.append(count - sum(wanted))
    chosen = [
        # A pixel is used twice only where there are too few.
        group[draw.choice(len(group), share, replace=share > len(group))]
        for group, share in zip([*groups, still if len(still) else groups[-1]], wanted, strict=True)
        if share
    ]
    return draw.permutation(np.concatenate(chosen))


def _follow(footage: Footage, number: int, owner: NDArray, local: NDArray) -> tuple[NDArray, NDArray]:
    """Positions (N, T, 2) float32 and visible (N, T) of points given in their owners' frames."""
    side = footage.objects.shape[-1]
    xy, visible = np.empty((len(owner), len(footage), 2), np.float32), np.empty((len(owner), len(footage)), bool)
    near = np.array([(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)])
    for frame, camera in enumerate(footage.cameras[number]):
        world = np.einsum("nij,nj->ni", footage.rotations[frame, owner], local) + footage.positions[frame, owner]
        seen, depth = camera.project(world)
        inside = (np.abs(seen) < 1).all(-1) & (depth > 0)
        pixel = np.floor((seen[inside, ::-1] + 1) / 2 * side).astype(int)
        # A point half a pixel from an outline may be drawn in the next pixel: the object may be seen in any of nine.
        around = (pixel[:, None] + near).clip(0, side - 1)
        at = (number, frame, around[..., 0], around[..., 1])
        same = footage.objects[at] == owner[inside, None]
        close = np.abs(footage.depth[at] - depth[inside, None]) < TOLERANCE * depth[inside, None]
        xy[:, frame] = np.where(depth[:, None] > 0, seen, 0).clip(-FAR_OUT, FAR_OUT)
        visible[:, frame] = False
        visible[inside, frame] = (same & close).any(-1)
    return xy, visible
