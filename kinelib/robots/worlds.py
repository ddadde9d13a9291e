"""What a robot world is to the rest of this room: reset, step, see, read the task, know when it is done.

One small interface for every simulator, so that tracks, demonstrations and rollouts are written once. A world holds one
task; a seed decides where things stand. It can be stepped without a renderer; pictures are drawn when somebody looks.

A state is a seed, a step and the simulator's own numbers. The seed rebuilds the scene (where the drawer stands), the numbers
put its parts where they were, so that an episode is stored in a few kilobytes and drawn later: any view, any size.

Shapes: actions (A,) in [-1, 1]; proprioception (P,); pictures (S, S, 3) uint8, S the side in pixels.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class WorldError(ValueError):
    """A world cannot do what it was asked for; the message says what it can do."""


@dataclass(frozen=True)
class WorldState:
    """Everything that is needed to stand at this point of an episode again."""

    seed: int  # decides the scene; :meth:`World.reset` makes it again
    step: int  # actions taken since the reset
    physics: NDArray[np.float64]  # (D,) positions, velocities, controls and what else the simulator integrates


@dataclass(frozen=True)
class Observation:
    """What a policy is shown at one step; a view is drawn when it is asked for and not before."""

    look: Callable[[str, int], NDArray[np.uint8]]  # (view, side in pixels) -> (S, S, 3)
    proprioception: NDArray[np.float32]  # (P,)
    text: str  # what to do
    step: int  # actions taken since the reset


class World(Protocol):
    """One task in one simulator."""

    suite: str  # whose tasks these are, such as "metaworld"
    note: str  # what must stand beside every number that is measured here, such as "substituted visuals"; "" for nothing
    task: str  # its name in the suite
    views: tuple[str, ...]  # cameras that :meth:`render` knows
    actions: tuple[str, ...]  # what the A numbers of an action are
    senses: tuple[str, ...]  # what the P numbers of proprioception are
    hertz: float  # actions a second
    limit: int  # actions after which the suite ends an episode
    scene: object  # MujocoScene: cameras, surfaces and poses, from which exact tracks are made
    success: bool  # whether the task is done as things stand
    step_number: int  # actions taken since the reset

    def reset(self, seed: int) -> None:
        """Starts the episode of a seed; the same seed gives the same scene, whatever was done before."""

    def step(self, action: ArrayLike) -> bool:
        """Takes one action and says whether the task is done now."""

    def render(self, view: str, side: int) -> NDArray[np.uint8]:
        """Draws a view as (side, side, 3)."""

    def language(self) -> str:
        """One sentence that says what to do."""

    def proprioception(self) -> NDArray[np.float32]:
        """What the robot knows of itself."""

    def expert(self) -> NDArray[np.float32]:
        """The scripted expert's action as things stand; it may know what a policy cannot see."""

    def state(self) -> WorldState:
        """Where the episode stands."""

    def restore(self, state: WorldState) -> None:
        """Goes back to a state of this task."""

    def close(self) -> None:
        """Frees the renderer, if this world has one open."""


def observe(world: World, text: str | None = None) -> Observation:
    """What a policy is shown of a world now; `text` replaces the world's own sentence."""
    return Observation(world.render, world.proprioception(), text or world.language(), world.step_number)


def check_action(action: ArrayLike, names: Sequence[str], where: str) -> NDArray[np.float64]:
    """An action as (A,) float64 clipped to [-1, 1].

    Raises:
        WorldError: for another shape, NaN or infinity; names the numbers that are bad and `where` it happened.
    """
    values = np.asarray(action, dtype=np.float64)
    if values.shape != (len(names),):
        raise WorldError(f"{where}: an action is {len(names)} numbers ({', '.join(names)}); got shape {values.shape}.")
    bad = [name for name, value in zip(names, values, strict=True) if not np.isfinite(value)]
    if bad:
        raise WorldError(
            f"{where}: the action's {', '.join(bad)} is NaN or infinite; the world was not stepped. Look at the policy's "
            "output and its normalisation."
        )
    return values.clip(-1, 1)


def check_known(kind: str, name: str, known: Iterable[str]) -> str:
    """The name itself if it is known; else a WorldError that offers the closest names."""
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:8]
        raise WorldError(f"there is no {kind} {name!r}; did you mean {', '.join(near)}? ({len(known)} are known)")
    return name
