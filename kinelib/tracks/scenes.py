"""Procedural scenes: a drawn first frame, exact point tracks and visibility, a class label, a caption and the facts.

Every scene is a textured background with a few analytic parts (`scene_parts`) whose poses are curves of time; a family
(`scene_families`, `scene_physics`) says which. Tracks are exact: a point is fixed to a part's local frame. Visibility is
exact: a point is seen while it is inside the frame and no part in front covers it. The first frame fixes what can move
and mostly which way; the future stays open, and `future_seed` draws another one for the same first frame.

ZipMo trains on tracks of real video; scenes are our addition, the place where the true distribution is known.

Shapes: B scenes, N points, T frames, H = W = size; xy in [-1, 1]; frames uint8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from kinelib.notation import frame_times
from kinelib.tracks import scene_families, scene_physics
from kinelib.tracks.scene_looks import Chance
from kinelib.tracks.scene_parts import Array, Camera, World, take
from kinelib.tracks.scene_points import choose_points, follow_points, movable
from kinelib.tracks.scene_render import draw_worlds, ground_waves
from kinelib.tracks.tracks import Tracks

BUILDERS: dict[str, Callable[..., World]] = {
    "vehicle": scene_families.vehicle,
    "rigid": scene_families.rigid,
    "arm": scene_families.arm,
    "bounce": scene_physics.bounce,
    "roll": scene_physics.roll,
    "orbit": scene_families.orbit,
    "spinner": scene_families.spinner,
    "maze": scene_physics.maze,
    "camera": scene_families.camera,
    "deform": scene_families.deform,
    "billiards": scene_physics.billiards,
}
FAMILIES = tuple(BUILDERS)
CHUNK = 64  # scenes made together; part of what a seed means
SHAKEN = 0.15  # fraction of the other families that get a mild camera motion
VIEWS = (
    ("pan-left", "the camera pans left over"),
    ("pan-right", "the camera pans right over"),
    ("pan-up", "the camera pans up over"),
    ("pan-down", "the camera pans down over"),
    ("zoom-in", "the camera zooms in on"),
    ("zoom-out", "the camera zooms out from"),
    ("roll-cw", "the picture rotates clockwise, showing"),
    ("roll-ccw", "the picture rotates counter-clockwise, showing"),
)


@dataclass(frozen=True)
class Scenes:
    """B scenes with everything that is known about them; index with an int, slice or index array to get fewer.

    Args:
        first_frame: (B, H, W, 3) uint8.
        frames: (B, T, H, W, 3) uint8, or None where only first frames were drawn.
        tracks: xy (B, N, T, 2) and visible (B, N, T); all points are visible in the first frame, points in random order.
        on_object: (B, N) bool: the point is on something that may move by itself (in "camera": on one of the things).
        object_index: (B, N) int, the part it is fixed to, scenery included; -1 is the background.
        family: B names from FAMILIES.
        label: B class names "family/mode".
        captions: B sentences.
        facts: tensors with B rows; in world coordinates (before the camera), NaN where a family lacks them:
            direction (B, 2) in which the first frame says the main part goes, 0 for none; centre (B, T, 2) and angle (B, T)
            of the main part; main (B,) its index; camera (B,) bool and view (B, T, 2, 3), the affine map world -> screen;
            walls (B, 6, 4) boxes x0 y0 x1 y1; joints (B, 4, T, 2); joint_lengths (B, 3); bodies (B, 3, T, 2) ball centres;
            radius, floor, restitution (B,).
    """

    first_frame: Array
    frames: Array | None
    tracks: Tracks
    on_object: Tensor
    object_index: Tensor
    family: list[str]
    label: list[str]
    captions: list[str]
    facts: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.family)

    def __getitem__(self, index) -> Scenes:
        rows = np.atleast_1d(np.arange(len(self))[np.asarray(index) if isinstance(index, Sequence | Tensor) else index])
        picked = torch.from_numpy(rows)
        return Scenes(
            first_frame=self.first_frame[rows],
            frames=None if self.frames is None else self.frames[rows],
            tracks=self.tracks[picked],
            on_object=self.on_object[picked],
            object_index=self.object_index[picked],
            family=[self.family[i] for i in rows],
            label=[self.label[i] for i in rows],
            captions=[self.captions[i] for i in rows],
            facts={name: value[picked] for name, value in self.facts.items()},
        )


def concatenate(batches: Sequence[Scenes]) -> Scenes:
    """Joins scenes of equal size, point and frame count; raises ValueError when they differ or there are none."""
    if not batches:
        raise ValueError("concatenate needs at least one Scenes.")
    shapes = {(b.first_frame.shape[1:], tuple(b.tracks.xy.shape[1:]), b.frames is not None) for b in batches}
    if len(shapes) > 1:
        raise ValueError(
            f"scenes differ in (frame shape, (N, T, 2), have frames): {sorted(map(str, shapes))}; draw them alike."
        )
    return _assemble([_columns(batch) for batch in batches])


def _columns(scenes: Scenes) -> dict:
    columns = {field.name: getattr(scenes, field.name) for field in fields(Scenes)}
    tracks = columns.pop("tracks")
    return columns | {"xy": tracks.xy, "visible": tracks.visible}


def _assemble(pieces: Sequence[dict], order: Sequence[int] | None = None) -> Scenes:
    """One Scenes from columns of arrays, tensors, lists and a dict of them, in another order of scenes if given."""

    def join(values: list):
        first = values[0]
        if first is None:
            return None
        if isinstance(first, dict):
            return {name: join([value[name] for value in values]) for name in first}
        if isinstance(first, list):
            joined = [item for value in values for item in value]
            return joined if order is None else [joined[i] for i in order]
        joined = torch.cat(values) if isinstance(first, Tensor) else np.concatenate(values)
        return joined if order is None else joined[order]

    columns = {name: join([piece[name] for piece in pieces]) for name in pieces[0]}
    return Scenes(tracks=Tracks(columns.pop("xy"), columns.pop("visible")), **columns)


def sample_scenes(
    count: int,
    seed: int,
    *,
    families: Sequence[str] = FAMILIES,
    size: int = 64,
    num_frames: int = 64,
    num_points: int = 96,
    all_frames: bool = False,
    future_seed: int | None = None,
) -> Scenes:
    """Draws procedural scenes; the same seed gives the same scenes, and the first k of them whatever the count.

    Args:
        count: B >= 1.
        seed: what the first frames show, where the points are and, unless `future_seed` is given, what happens.
        families: names from FAMILIES; scenes are spread over them evenly, in random order.
        size: edge of the square frames in pixels, >= 8; geometry does not depend on it.
        num_frames: T >= 1; time runs from 0 to 1 whatever T.
        num_points: N >= 1, of which about two thirds on objects.
        all_frames: also draw all T frames.
        future_seed: another seed for what happens after the same first frame.

    Raises:
        ValueError: for an unknown family (the message lists those there are) or a number out of range.
    """
    families = (families,) if isinstance(families, str) else tuple(dict.fromkeys(families))
    unknown = [name for name in families if name not in BUILDERS]
    if unknown or not families:
        raise ValueError(f"unknown scene families {unknown}; choose some of {', '.join(FAMILIES)}.")
    smallest = {"count": (count, 1), "size": (size, 8), "num_frames": (num_frames, 1), "num_points": (num_points, 1)}
    for name, (value, least) in smallest.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}.")
    if seed < 0 or (future_seed is not None and future_seed < 0):
        raise ValueError(f"seeds must be >= 0; got seed={seed}, future_seed={future_seed}.")
    recipe = _Recipe(size, frame_times(num_frames).numpy(), num_points, all_frames)
    future_seed = seed if future_seed is None else future_seed
    pieces, places = [], []
    for chunk in range(-(-count // CHUNK)):
        # Scenes are made family by family, all of a chunk at once, and then put where the chunk's order says.
        order = np.random.default_rng([seed, chunk]).permutation(np.resize(np.arange(len(families)), CHUNK))
        for index, family in enumerate(families):
            rows = np.flatnonzero(order == index)
            kept = np.flatnonzero(rows + chunk * CHUNK < count)
            if len(kept):
                stream = [chunk, FAMILIES.index(family)]
                look, future = np.random.default_rng([seed, 1, *stream]), np.random.default_rng([future_seed, 2, *stream])
                pieces.append(_family(family, len(rows), kept, look, future, recipe))
                places.append(rows[kept] + chunk * CHUNK)
    return _assemble(pieces, np.argsort(np.concatenate(places)))


@dataclass(frozen=True)
class _Recipe:
    size: int
    time: Array
    num_points: int
    all_frames: bool


def _family(
    family: str, n: int, kept: Array, look: np.random.Generator, future: np.random.Generator, recipe: _Recipe
) -> dict:
    """The columns of the kept ones of n scenes; chance is drawn for all n, pictures and tracks are made of these only."""
    time = recipe.time
    world = BUILDERS[family](Chance(look, n), Chance(future, n), time)
    moved, camera, view = _camera(Chance(future, n), time, strong=family == "camera")
    waves = ground_waves(look, n)
    local, owner = choose_points(world, look, n, recipe.num_points)
    world, camera = world.take(kept), take(camera, kept)
    moved, view, waves, local, owner = (values[kept] for values in (moved, view, waves, local, owner))
    modes, captions = world.modes, world.captions
    if family == "camera":
        modes = [VIEWS[k][0] for k in view]
        captions = [f"{VIEWS[k][1]} {caption}" for k, caption in zip(view, captions, strict=True)]
    else:
        captions = [f"{c} while the camera drifts" if m else c for c, m in zip(captions, moved, strict=True)]
    drawn = draw_worlds(world, camera, waves, recipe.size, np.arange(len(time)) if recipe.all_frames else np.zeros(1, int))
    xy, visible = follow_points(world, camera, local, owner)
    main = world.parts[world.main].pose
    facts = {
        "direction": world.direction,
        "centre": main.centre,
        "angle": main.angle,
        "main": np.full(len(kept), world.main),
        "camera": moved,
        "view": np.concatenate([camera.matrix, camera.shift[..., None]], -1),
        **_absent(len(kept), len(time)),
        **world.facts,
    }
    tensor = lambda value: torch.from_numpy(value.astype(np.float32) if value.dtype == np.float64 else value)
    return {
        "first_frame": drawn[:, 0],
        "frames": drawn if recipe.all_frames else None,
        "xy": torch.from_numpy(xy),
        "visible": torch.from_numpy(visible),
        "on_object": torch.from_numpy(movable(world)[owner]),
        "object_index": torch.from_numpy(owner),
        "family": [family] * len(kept),
        "label": [f"{family}/{mode}" for mode in modes],
        "captions": [re.sub(r"\ba (?=orange)", "an ", caption) for caption in captions],
        "facts": {name: tensor(value) for name, value in facts.items()},
    }


def _absent(n: int, num_frames: int) -> dict[str, Array]:
    shapes = {"walls": (6, 4), "joints": (4, num_frames, 2), "joint_lengths": (3,), "bodies": (3, num_frames, 2)}
    shapes |= {"radius": (), "floor": (), "restitution": ()}
    return {name: np.full((n, *shape), np.nan, np.float32) for name, shape in shapes.items()}


def _camera(future: Chance, time: Array, strong: bool) -> tuple[Array, Camera, Array]:
    """Which scenes have a moving camera (n,), the camera, and for the camera family the index into VIEWS (n,)."""
    view, blend = future.pick(len(VIEWS)), future.progress(time)
    if strong:
        moved = np.ones(future.n, bool)
        toward = np.float32([[-1, 0], [1, 0], [0, -1], [0, 1]] + [[0, 0]] * 4)[view]
        pan = toward * future.uniform(0.35, 0.8)[:, None]
        zoom = np.select([view == 4, view == 5], [1, -1], 0) * future.uniform(0.3, 0.6)
        roll = np.select([view == 6, view == 7], [1, -1], 0) * future.uniform(25, 70)
    else:
        moved = future.flag(SHAKEN)
        pan, zoom, roll = future.uniform(-0.2, 0.2, 2), future.uniform(-0.1, 0.1), future.uniform(-7, 7)
        pan, zoom, roll = pan * moved[:, None], zoom * moved, roll * moved
    curve = lambda amount: (amount[:, None] * blend).astype(np.float32)
    return moved, Camera.moving(pan[:, None] * blend[..., None], np.exp(curve(zoom)), curve(roll * np.pi / 180)), view
