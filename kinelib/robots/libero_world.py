"""LIBERO as worlds: suites of table-top tasks for a Panda arm, on which the paper reports its robot results.

Not in the default install: the packages' own requirements replace torch, so they are installed without them (see INSTALL).
Physics, task files, tests of success and stored initial states come from the wheel `hf-libero`; meshes and textures (the
assets) do not, and are looked for in KINELIB_DATA. Some copies of the assets hold plain stand-ins for some objects: the
physics is then the benchmark's and the pictures are not, and :attr:`Libero.note` says so beside every number.

Seeds: from STORED on, a seed is one of the suite's stored initial states, with which the ATM and Tra-MoE protocols evaluate;
below it, the task's own ranges are drawn from. So demonstrations of training seeds never show an episode of the evaluation.

Departures from the official evaluation: fixtures (the cabinet, the stove), whose places no stored state holds, are placed by
the seed rather than by what ran before; the views are drawn by our renderer, without shadows; a policy is told where the
hand is beside the angles of the joints (the benchmark's data sets hold both): ten demonstrations do not teach kinematics.

Shapes: action (7,) = hand translation and rotation, gripper (1 closes), in [-1, 1]; proprioception (12,) = joint angles, the
fingers' positions, and where the hand is, which is the arm's kinematics of these angles; 20 actions a second.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
import os
import random
import re
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kinelib.robots.libero_expert import PickAndPlace
from kinelib.robots.mujoco_scene import MujocoScene, View
from kinelib.robots.rendering import import_mujoco
from kinelib.robots.worlds import WorldError, WorldState, check_action, check_known

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
INSTALL = (
    "pip install --no-deps hf-libero==0.1.4 robosuite==1.4.0 bddl==1.0.1 && "
    "pip install numba==0.68.1 termcolor==3.3.0 easydict==1.14 pyyaml==6.0.3 future==1.0.0"
)
STORED = 100_000  # the first seed that is a stored initial state; demonstrations hold such seeds out
SETTLING = 5  # actions without motion after a reset, as the official evaluation takes them
SUBSTITUTED = "substituted visuals"  # the note of a world whose assets hold stand-ins
VIEWS = {"agent": View(camera="agentview"), "wrist": View(camera="robot0_eye_in_hand")}
HIDDEN = 4  # a group of geoms and sites that is not drawn


class Libero:
    """One LIBERO task; see :class:`kinelib.robots.worlds.World`.

    Args:
        task: a name of :func:`libero_tasks`.
        suite: one of SUITES.
        assets: LIBERO's folder of meshes and textures; default: libero_assets in KINELIB_DATA.

    Raises:
        WorldError: for an unknown suite or task, without the packages, and without the assets a task needs.
    """

    views = tuple(VIEWS)
    actions = ("hand x", "hand y", "hand z", "turn x", "turn y", "turn z", "gripper")
    senses = (
        *(f"joint {number}" for number in range(1, 8)),
        *("gripper finger 1", "gripper finger 2"),
        *("hand x", "hand y", "hand z"),
    )
    hertz = 20.0
    limit = 600

    def __init__(self, task: str, suite: str = "libero_spatial", *, assets: str | Path | None = None) -> None:
        self.suite, self.task = suite, check_known(f"task of {suite}", task, libero_tasks(suite))
        package, folder = _package(), _assets(assets)
        import_mujoco()
        from libero.libero.envs.env_wrapper import ControlEnv

        package._assets_path_cache = str(folder)
        files = Path(package.__file__).parent
        self._stored_states = files / "init_files" / suite / f"{task}.pruned_init"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._wrapper = ControlEnv(
                    bddl_file_name=str(files / "bddl_files" / suite / f"{task}.bddl"),
                    use_camera_obs=False,
                    has_offscreen_renderer=False,
                    hard_reset=False,
                    ignore_done=True,
                    initialization_noise="default",  # joints begin a little elsewhere, as they do in the stored states
                )
        except (FileNotFoundError, ValueError) as error:
            raise WorldError(f"{folder} lacks a file that {task} needs ({error}). Complete the folder of assets.") from error
        self._environment = self._wrapper.env
        # Observations of the package are not read here, and cost as much as the physics.
        self._environment._update_observables = lambda force=False: None
        model = self._environment.sim.model._model
        # Shapes for contacts are drawn by nobody, and neither are sites.
        model.geom_group[model.geom_group == 0] = HIDDEN
        model.site_group[:] = HIDDEN
        self.scene = MujocoScene(model, self._environment.sim.data._data, VIEWS)
        self.substituted_visuals = has_stand_ins(folder)
        self.note = SUBSTITUTED if self.substituted_visuals else ""
        self.seed: int | None = None
        self.step_number, self.success = 0, False
        self._text = task_sentence(task)
        self._expert: PickAndPlace | None = None

    def reset(self, seed: int) -> None:
        """Starts the episode of a seed, >= 0; from STORED on, of a stored initial state.

        Raises:
            WorldError: for a seed below 0 or beyond the stored states.
        """
        if seed < 0:
            raise WorldError(f"a seed is 0 or more; got {seed}.")
        stored = _stored_states(self._stored_states)
        if seed - STORED >= len(stored):
            raise WorldError(f"{self.task} has {len(stored)} stored initial states, from seed {STORED} on; got {seed}.")
        # The package draws from the global generators, which are put back afterwards.
        kept = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            self._put_fixtures_back()
            self._wrapper.reset()
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])  # noqa: NPY002
        if seed >= STORED:
            self._environment.sim.set_state_from_flattened(stored[seed - STORED])
            self._environment.sim.forward()
        self.seed, self.step_number = int(seed), 0
        for _ in range(SETTLING):
            self._environment.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))
        self._settle()

    def step(self, action: ArrayLike) -> bool:
        """Takes one action, (7,) in [-1, 1], larger values clipped, and says whether the task is done now.

        Raises:
            WorldError: before a reset, after `limit` actions, and for an action that is not seven finite numbers.
        """
        self._check_standing()
        where = f"{self.task}, seed {self.seed}, step {self.step_number}"
        if self.step_number >= self.limit:
            raise WorldError(f"{where}: an episode has at most {self.limit} actions; call reset(seed).")
        self._environment.step(check_action(action, self.actions, where))
        self.step_number += 1
        self._settle()
        return self.success

    def render(self, view: str, side: int) -> NDArray[np.uint8]:
        """Draws "agent" or "wrist" as (side, side, 3)."""
        return self.scene.picture(view, side)

    def language(self) -> str:
        """The benchmark's own sentence."""
        return self._text

    def proprioception(self) -> NDArray[np.float32]:
        """(12,) seven joint angles in radians, the two fingers' positions and the hand's place in metres.

        Raises:
            WorldError: before a reset.
        """
        self._check_standing()
        robot, data = self._environment.robots[0], self.scene.data
        joints = data.qpos[[*robot._ref_joint_pos_indexes, *robot._ref_gripper_joint_pos_indexes]]
        return np.concatenate([joints, data.site_xpos[robot.eef_site_id]]).astype(np.float32)

    def expert(self) -> NDArray[np.float32]:
        """(7,) the action of our scripted expert for tasks that pick up one thing and place it.

        Raises:
            WorldError: before a reset, and for tasks that ask for something else.
        """
        self._check_standing()
        self._expert = self._expert or PickAndPlace(self._environment)
        return self._expert.action(done=self.success)

    def state(self) -> WorldState:
        """Where the episode stands; raises WorldError before a reset."""
        self._check_standing()
        robot = self._environment.robots[0]
        # The controller holds its last wanted orientation, and the gripper where its fingers are to be.
        held = [robot.controller.goal_ori.ravel(), robot.gripper.current_action]
        return WorldState(self.seed, self.step_number, np.concatenate([self.scene.numbers(), *held]))

    def restore(self, state: WorldState) -> None:
        """Goes back to a state of this task; raises WorldError when it is one of another."""
        if self.seed != state.seed:
            self.reset(state.seed)
        robot = self._environment.robots[0]
        fingers = len(robot.gripper.current_action)
        physics, wanted, fingers_at = np.split(state.physics, [-9 - fingers, -fingers])
        self.scene.set_numbers(physics)
        robot.controller.new_update = True
        robot.controller.goal_ori = wanted.reshape(3, 3).copy()
        robot.gripper.current_action = fingers_at.copy()
        self.step_number = state.step
        self._settle()

    def close(self) -> None:
        """Frees the renderer, if it is this world's."""
        self.scene.close()

    def _settle(self) -> None:
        """Brings poses and contacts, which a step leaves a little behind, up to the state; looks whether it is done."""
        self.scene.set_numbers(self.scene.numbers())
        self.success = bool(self._environment._check_success())

    def _put_fixtures_back(self) -> None:
        """Puts the fixtures where a freshly loaded model has them.

        The package adds where a fixture stands to where it will stand: what is to be on the stove or in the cabinet would
        fall from the sky in every episode but a model's first.
        """
        model = self._environment.sim.model
        for fixture in self._environment.fixtures_dict.values():
            body = model.body_name2id(fixture.root_body)
            model.body_pos[body], model.body_quat[body] = 0.0, (1.0, 0.0, 0.0, 0.0)

    def _check_standing(self) -> None:
        if self.seed is None:
            raise WorldError(f"{self.task} was not reset yet; call reset(seed) first.")


def libero_tasks(suite: str) -> tuple[str, ...]:
    """The names of a suite's tasks, in the benchmark's order.

    Raises:
        WorldError: for an unknown suite, or without the package.
    """
    check_known("LIBERO suite", suite, SUITES)
    _package()
    with contextlib.redirect_stdout(io.StringIO()):
        from libero.libero.benchmark.libero_suite_task_map import libero_task_map
    return tuple(libero_task_map[suite])


def task_sentence(task: str) -> str:
    """What the benchmark tells a policy: a task's name without its scene's.

    The task files hold a sentence too, which in part of the suites is another ("pick the akita black bowl ...").
    """
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", task).replace("_", " ")


def has_stand_ins(assets: str | Path) -> bool:
    """Whether a folder of assets holds plain stand-ins: a texture of a single colour, which no original has."""
    import cv2

    # One colour compresses to next to nothing, so larger files need not be opened.
    small = [path for path in Path(assets).rglob("*.png") if path.stat().st_size < 4096]
    pictures = [picture for path in small if (picture := cv2.imread(str(path))) is not None]
    return any(bool((picture == picture[:1, :1]).all()) for picture in pictures)


@functools.cache
def _package():
    """The module libero.libero, imported so that it asks nothing on the keyboard and draws nothing."""
    import_mujoco()
    missing = [name for name in ("libero", "robosuite", "bddl", "numba") if importlib.util.find_spec(name) is None]
    if missing:
        raise WorldError(f"LIBERO needs {', '.join(missing)}, which is not installed; run: {INSTALL}")
    import yaml

    # The package reads its own paths from a file, and asks on standard input when there is none.
    places = tempfile.TemporaryDirectory(prefix="libero-")
    files = Path(next(iter(importlib.util.find_spec("libero").submodule_search_locations))) / "libero"
    paths = {"benchmark_root": "", "bddl_files": "bddl_files", "init_states": "init_files", "datasets": "../datasets"}
    config = {name: str(files / under) for name, under in (paths | {"assets": "assets"}).items()}
    (Path(places.name) / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    before = os.environ.get("LIBERO_CONFIG_PATH")
    os.environ["LIBERO_CONFIG_PATH"] = places.name
    # It says on import that an optional file of settings is missing.
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import libero.libero
            import libero.libero.benchmark
            import libero.libero.envs
    except ImportError as error:
        raise WorldError(f"LIBERO cannot be imported ({error}); run: {INSTALL}") from error
    finally:
        os.environ.pop("LIBERO_CONFIG_PATH") if before is None else os.environ.update(LIBERO_CONFIG_PATH=before)
    libero.libero._kinelib_places = places  # lives as long as the module that reads it
    return libero.libero


def _assets(folder: str | Path | None) -> Path:
    """The folder of assets, checked."""
    data = os.environ.get("KINELIB_DATA")
    folder = Path(folder) if folder else Path(data) / "libero_assets" if data else None
    if folder is None or not (folder / "scenes").is_dir() or not (folder / "stable_scanned_objects").is_dir():
        place = folder or "a folder libero_assets of KINELIB_DATA"
        raise WorldError(
            f"LIBERO's assets (meshes and textures) are not at {place}; the package lacks them. Put the folder `assets` "
            "of the LIBERO repository at KINELIB_DATA/libero_assets, or name it."
        )
    return folder


@functools.cache
def _stored_states(path: Path) -> NDArray[np.float64]:
    """(50, D) the stored initial states of a task; read without running anything the file may hold."""
    import torch
    from numpy._core import multiarray

    allowed = [(multiarray._reconstruct, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, type(np.dtype("f8"))]
    with torch.serialization.safe_globals(allowed):
        return np.asarray(torch.load(path, weights_only=True), np.float64)
