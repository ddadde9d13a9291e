"""Meta-World 3 as a world: 50 tasks of one robot arm on a table, with scripted experts; all of it comes in one wheel.

A Sawyer arm whose hand follows a commanded point: an action moves that point by up to a centimetre along each axis and sets
the gripper's effort; 80 actions a second. A seed draws where things and goals stand, uniformly over the task's own ranges.

Departures from the package as it is used elsewhere: the expert, and nobody else, sees the goal's coordinates; goals are seen
as markers, and all markers have one colour, so that the scenes of two tasks look alike (SHARED_SCENES) and the sentence
decides; and the cameras are ours, closer than the package's, whose objects are few pixels wide in small pictures.

Shapes: action (4,) = x, y, z of the hand and gripper effort, in [-1, 1]; proprioception (4,) = hand x, y, z in metres and
the gripper's opening in [0, 1]; +x is the robot's right, +y ahead of it, +z up.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kinelib.robots.mujoco_scene import MujocoScene, View
from kinelib.robots.rendering import import_mujoco
from kinelib.robots.sentences import SENTENCES, sentence
from kinelib.robots.worlds import WorldError, WorldState, check_action, check_known

TASKS = tuple(SENTENCES)
# Reliable experts, and scenes that only the sentence or a glance tells apart; the tasks of the shipped checkpoint.
TEN = (
    "reach",
    "push",
    "pick-place",
    "drawer-open",
    "drawer-close",
    "window-open",
    "window-close",
    "faucet-open",
    "faucet-close",
    "button-press-topdown",
)
# Tasks of one scene. The first pictures of reach and pick-place are the same to the bit. Those of the faucet tasks are alike
# but not the same: the package lets one faucet stand farther from the middle, and hangs a marker elsewhere. So whether words
# decide is only shown by a scene in which the other task's sentence is told.
SHARED_SCENES = (("reach", "pick-place"), ("faucet-open", "faucet-close"))
VIEWS = {
    "front": View(lookat=(0.0, 0.66, 0.12), distance=1.15, azimuth=150.0, elevation=-35.0),
    "top": View(lookat=(0.0, 0.66, 0.1), distance=1.2, azimuth=90.0, elevation=-89.0),
    "wrist": View(camera="gripperPOV"),
}
MARKER = (0.1, 0.85, 0.2)  # the colour of goals


class MetaWorld:
    """One Meta-World task; see :class:`kinelib.robots.worlds.World`.

    Args:
        task: a name such as "drawer-open" (the package's "drawer-open-v3").
        markers: give all goal markers one colour.

    Raises:
        WorldError: for an unknown task, or when Meta-World is not installed.
    """

    suite = "metaworld"
    note = ""
    views = tuple(VIEWS)
    actions = ("hand x", "hand y", "hand z", "gripper effort")
    senses = ("hand x", "hand y", "hand z", "gripper opening")
    hertz = 80.0
    limit = 500

    def __init__(self, task: str, *, markers: bool = True) -> None:
        self.task = check_known("Meta-World task", task.removesuffix("-v3"), TASKS)
        self._mujoco = import_mujoco()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from metaworld.env_dict import ALL_V3_ENVIRONMENTS
                from metaworld.policies import ENV_POLICY_MAP
        except ImportError as error:
            raise WorldError(
                f"Meta-World cannot be imported ({error}); run: make install (or: pip install metaworld==3.1.1)"
            ) from error
        self._environment = ALL_V3_ENVIRONMENTS[f"{self.task}-v3"]()
        self._expert = ENV_POLICY_MAP[f"{self.task}-v3"]()
        # The package draws scenes from its own fixed list of tasks unless told that one is set.
        self._environment._set_task_called = True
        self._environment._freeze_rand_vec = False
        self._environment.seeded_rand_vec = True
        self._environment._partially_observable = False
        # Its bounds, to which observations are clipped, were worked out with the goal hidden.
        del self._environment.sawyer_observation_space
        self._environment.max_path_length = self.limit + 1
        self.scene = MujocoScene(self._environment.model, self._environment.data, VIEWS)
        model = self.scene.model
        if markers:
            for site in range(model.nsite):
                if "goal" in model.site(site).name.lower():
                    model.site_rgba[site, :3] = MARKER
        # What a reset moves in the model itself; put back before the next, so that a scene depends on its seed alone.
        self._untouched = {name: getattr(model, name).copy() for name in ("body_pos", "body_quat", "site_pos")}
        self.seed: int | None = None
        self.success = False

    @property
    def step_number(self) -> int:
        """Actions taken since the reset."""
        return self._environment.curr_path_length

    def reset(self, seed: int) -> None:
        """Starts the episode of a seed, >= 0."""
        if seed < 0:
            raise WorldError(f"a seed is 0 or more; got {seed}.")
        for name, values in self._untouched.items():
            getattr(self.scene.model, name)[:] = values
        self._mujoco.mj_resetData(self.scene.model, self.scene.data)
        self._mujoco.mj_forward(self.scene.model, self.scene.data)
        self._environment.seed(int(seed))
        self._privileged, _ = self._environment.reset()
        self._mujoco.mj_forward(self.scene.model, self.scene.data)
        self.seed, self.success = int(seed), False

    def step(self, action: ArrayLike) -> bool:
        """Takes one action, (4,) in [-1, 1], larger values clipped, and says whether the task is done now.

        Raises:
            WorldError: before a reset, after `limit` actions, and for an action that is not four finite numbers.
        """
        self._check_standing()
        where = f"{self.task}, seed {self.seed}, step {self.step_number}"
        if self.step_number >= self.limit:
            raise WorldError(f"{where}: an episode has at most {self.limit} actions; call reset(seed).")
        action = check_action(action, self.actions, where)
        self._privileged, _, _, _, told = self._environment.step(action.astype(np.float32))
        self.success = bool(told["success"])
        return self.success

    def render(self, view: str, side: int) -> NDArray[np.uint8]:
        """Draws "front", "top" or "wrist" as (side, side, 3)."""
        return self.scene.picture(view, side)

    def language(self) -> str:
        """One sentence that says what to do."""
        return sentence(self.task)

    def proprioception(self) -> NDArray[np.float32]:
        """(4,) hand position in metres and the gripper's opening; raises WorldError before a reset."""
        self._check_standing()
        return self._privileged[:4].astype(np.float32)

    def expert(self) -> NDArray[np.float32]:
        """(4,) the scripted expert's action, clipped to [-1, 1]; it sees the goal's coordinates.

        Raises:
            WorldError: before a reset.
        """
        self._check_standing()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.clip(self._expert.get_action(self._privileged), -1, 1).astype(np.float32)

    def state(self) -> WorldState:
        """Where the episode stands; raises WorldError before a reset."""
        self._check_standing()
        return WorldState(self.seed, self.step_number, self.scene.numbers())

    def restore(self, state: WorldState) -> None:
        """Goes back to a state of this task; raises WorldError when it is one of another."""
        if self.seed != state.seed:
            self.reset(state.seed)
        self.scene.set_numbers(state.physics)
        environment = self._environment
        environment.curr_path_length = state.step
        environment._prev_obs = environment._get_curr_obs_combined_no_goal()
        self._privileged = environment._get_obs()
        self.success = bool(environment.evaluate_state(self._privileged, np.zeros(4, np.float32))[1]["success"])

    def close(self) -> None:
        """Frees the renderer, if it is this world's."""
        self.scene.close()

    def _check_standing(self) -> None:
        if self.seed is None:
            raise WorldError(f"{self.task} was not reset yet; call reset(seed) first.")
