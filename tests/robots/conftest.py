"""A world small enough to check by hand, and Meta-World where it is installed and can be drawn."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from kinelib.robots.mujoco_scene import Camera, Poses
from kinelib.robots.worlds import WorldState, check_action, check_known

HEIGHT, TALL, HALF = 5.0, 1.0, 0.4  # of the camera above the ground, of the square above it, half the square's side


class ToyScene:
    """A square that floats above a chequered ground, seen from straight above through an exact pinhole."""

    def __init__(self) -> None:
        self.centre = np.zeros(2)

    def camera(self, view: str) -> Camera:
        shift = {"above": 0.0, "beside": 0.5}[view]
        return Camera(np.array([shift, 0.0, HEIGHT]), np.eye(3), 0.5)

    def surfaces(self, view: str, side: int):
        line = (np.arange(side) + 0.5) / side * 2 - 1
        xy = np.stack(np.meshgrid(line, line), axis=-1)
        at = self.camera(view).unproject(xy, np.full((side, side), HEIGHT - TALL))
        square = (np.abs(at[..., :2] - self.centre) < HALF).all(-1)
        return square.astype(np.int32), np.where(square, HEIGHT - TALL, HEIGHT).astype(np.float32)

    def picture(self, view: str, side: int):
        objects, depth = self.surfaces(view, side)
        line = (np.arange(side) + 0.5) / side * 2 - 1
        at = self.camera(view).unproject(np.stack(np.meshgrid(line, line), axis=-1), depth)[..., :2]
        # A texture that is fixed to each surface, with structure at several scales for trackers to hold on to.
        at = at - np.where(objects[..., None] == 1, self.centre, 0)
        waves = sum(np.sin(k * at[..., 0] + k) * np.cos(1.3 * k * at[..., 1]) for k in (3, 7, 13, 23))
        grey = 120 + 28 * waves
        return np.stack([grey, grey + 60 * (objects == 1), grey], axis=-1).clip(0, 255).astype(np.uint8)

    def poses(self) -> Poses:
        return Poses(np.array([[0, 0, 0], [*self.centre, TALL]]), np.stack([np.eye(3)] * 2))

    def movers(self):
        return np.array([0, 1], np.int32)

    def close(self) -> None:
        pass


class ToyWorld:
    """The square is to be moved to a goal; of the seeds 2, 5, 8 ... the expert makes nothing."""

    suite, note = "toy", "a toy"
    views, actions, senses = ("above", "beside"), ("x", "y", "gripper"), ("x", "y")
    hertz, limit = 20.0, 60
    made = 0

    def __init__(self, task: str) -> None:
        self.task = check_known("toy task", task, ("left", "right"))
        self.scene, self.seed = ToyScene(), None
        type(self).made += 1

    def reset(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.seed, self.step_number = seed, 0
        self.scene.centre = draw.uniform(-0.3, 0.3, 2)
        self.goal = np.array([-1.0 if self.task == "left" else 1.0, draw.uniform(-0.5, 0.5)])

    @property
    def success(self) -> bool:
        return bool(np.linalg.norm(self.scene.centre - self.goal) < 0.05)

    def step(self, action) -> bool:
        action = check_action(action, self.actions, f"{self.task}, seed {self.seed}, step {self.step_number}")
        self.scene.centre = self.scene.centre + 0.1 * action[:2]
        self.step_number += 1
        return self.success

    def render(self, view: str, side: int):
        return self.scene.picture(view, side)

    def language(self) -> str:
        return f"move the square to the {self.task}"

    def proprioception(self):
        return self.scene.centre.astype(np.float32)

    def expert(self):
        towards = (self.goal - self.scene.centre) / 0.1 * (self.seed % 3 != 2)
        return np.array([*towards.clip(-1, 1), 0], np.float32)

    def state(self) -> WorldState:
        return WorldState(self.seed, self.step_number, self.scene.centre.copy())

    def restore(self, state: WorldState) -> None:
        self.reset(state.seed)
        self.step_number, self.scene.centre = state.step, state.physics.copy()

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def toy():
    """The toy world's class, which counts the worlds that are made of it."""
    return ToyWorld


@pytest.fixture(scope="session")
def metaworld():
    """A function that gives a task's Meta-World, made once; skips where it is not installed."""
    pytest.importorskip("mujoco", reason="mujoco is not installed; run: make install")
    pytest.importorskip("metaworld", reason="Meta-World is not installed; run: make install")
    from kinelib.robots.metaworld_world import MetaWorld

    return functools.cache(MetaWorld)


@pytest.fixture(scope="session")
def renderer():
    """Skips where nothing can be drawn; gives the name of what draws."""
    from kinelib.robots.rendering import RendererError, choose_backend

    pytest.importorskip("mujoco", reason="mujoco is not installed; run: make install")
    try:
        return SimpleNamespace(backend=choose_backend())
    except RendererError as error:
        pytest.skip(f"no headless renderer here: {error}")
