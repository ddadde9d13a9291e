"""A MuJoCo scene as geometry: pinhole cameras, the surfaces they see, and the poses of everything that has a surface.

Objects are numbered as the renderer numbers them: geoms first, then sites (the coloured markers of goals). All pictures are
square, so that a field of view is the same in x and y; x right and y down in [-1, 1] as in all of kinelib.

Shapes: O objects; points (..., 3) metres in the world; xy (..., 2); depth (...) metres along the camera's axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kinelib.robots.rendering import close_renderer, import_mujoco, renderer_for
from kinelib.robots.worlds import WorldError, check_known


@dataclass(frozen=True)
class View:
    """Where a camera stands: one of the model's own, or one that looks at a point from outside."""

    camera: str = ""  # the model's camera of this name; "" for a camera of ours, placed by the next four
    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)  # the point in the middle of the picture, metres
    distance: float = 1.0  # metres from there to the camera
    azimuth: float = 90.0  # degrees the camera's horizontal heading is turned from +x towards +y
    elevation: float = -45.0  # degrees the camera looks up


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at one moment."""

    position: NDArray[np.float64]  # (3,)
    axes: NDArray[np.float64]  # (3, 3) rows: right, up, backward, in world coordinates
    slope: float  # tangent of half the field of view

    def project(self, points: NDArray) -> tuple[NDArray, NDArray]:
        """Where points are seen: xy (..., 2) and depth (...); behind the camera depth is negative and xy has no meaning."""
        local = (points - self.position) @ self.axes.T
        depth = -local[..., 2]
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        return local[..., :2] * (1, -1) / (safe[..., None] * self.slope), depth

    def unproject(self, xy: NDArray, depth: NDArray) -> NDArray:
        """The world points (..., 3) at xy (..., 2) and depth (...); the inverse of :meth:`project`."""
        depth = np.asarray(depth, np.float64)[..., None]
        local = np.concatenate([np.asarray(xy) * (1, -1) * self.slope * depth, -depth], axis=-1)
        return local @ self.axes + self.position


class Poses(NamedTuple):
    """Where every object stands."""

    positions: NDArray[np.float64]  # (O, 3)
    rotations: NDArray[np.float64]  # (O, 3, 3), from the object's frame to the world


class MujocoScene:
    """The geometry of a model and its data.

    Args:
        model, data: MuJoCo's own, shared with whoever steps them.
        views: name -> View.
    """

    def __init__(self, model, data, views: Mapping[str, View]) -> None:
        self.model, self.data, self.views = model, data, dict(views)
        self._mujoco = import_mujoco()
        spec = self._mujoco.mjtState
        self._integrated = int(
            spec.mjSTATE_FULLPHYSICS | spec.mjSTATE_WARMSTART | spec.mjSTATE_CTRL | spec.mjSTATE_MOCAP_POS
            | spec.mjSTATE_MOCAP_QUAT
        )  # fmt: skip

    def picture(self, view: str, side: int) -> NDArray[np.uint8]:
        """Draws a view, (side, side, 3)."""
        return renderer_for(self.model).picture(self.data, self._gl_camera(view), side)

    def surfaces(self, view: str, side: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The object (-1 for none) and the depth behind the centre of every pixel of a view."""
        return renderer_for(self.model).surfaces(self.data, self._gl_camera(view), side)

    def camera(self, view: str) -> Camera:
        """The camera of a view as it stands now; no renderer is needed."""
        chosen = self.views[check_known("view", view, self.views)]
        if chosen.camera:
            own = self.data.camera(chosen.camera)
            slope = np.tan(np.deg2rad(self.model.camera(chosen.camera).fovy.item()) / 2)
            return Camera(own.xpos.copy(), own.xmat.reshape(3, 3).T.copy(), float(slope))
        turn, rise = np.deg2rad([chosen.azimuth, chosen.elevation])
        forward = np.array([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)])
        right = np.array([np.sin(turn), -np.cos(turn), 0.0])
        axes = np.stack([right, np.cross(right, forward), -forward])
        slope = np.tan(np.deg2rad(self.model.vis.global_.fovy) / 2)
        return Camera(np.array(chosen.lookat) - chosen.distance * forward, axes, float(slope))

    def poses(self) -> Poses:
        """Where every object stands now."""
        data = self.data
        positions = np.concatenate([data.geom_xpos, data.site_xpos])
        return Poses(positions, np.concatenate([data.geom_xmat, data.site_xmat]).reshape(-1, 3, 3))

    def movers(self) -> NDArray[np.int32]:
        """(O,) the kinematic tree each object moves with (the number of its root body), or 0 for what cannot move."""
        model = self.model
        body = np.concatenate([model.geom_bodyid, model.site_bodyid])
        return np.where(model.body_weldid[body] == 0, 0, model.body_rootid[body]).astype(np.int32)

    def numbers(self) -> NDArray[np.float64]:
        """(D,) all that the simulator integrates: time, positions, velocities, controls, and where its solver begins."""
        numbers = np.empty(self._mujoco.mj_stateSize(self.model, self._integrated))
        self._mujoco.mj_getState(self.model, self.data, numbers, self._integrated)
        return numbers

    def set_numbers(self, numbers: NDArray[np.float64]) -> None:
        """Goes back to what :meth:`numbers` gave; raises WorldError for numbers of another scene."""
        size = self._mujoco.mj_stateSize(self.model, self._integrated)
        if numbers.shape != (size,):
            raise WorldError(f"a state of this scene has {size} numbers; got shape {numbers.shape}: it is of another task.")
        # A copy, since MuJoCo wants to be able to write, and numbers read from a file cannot be written to.
        numbers = np.array(numbers, np.float64)
        self._mujoco.mj_setState(self.model, self.data, numbers, self._integrated)
        self._mujoco.mj_forward(self.model, self.data)
        # The solver's warm start was overwritten by that; it belongs to the state.
        self._mujoco.mj_setState(self.model, self.data, numbers, self._integrated)

    def close(self) -> None:
        """Frees the renderer if it is this scene's."""
        close_renderer(self.model)

    def _gl_camera(self, view: str):
        chosen, camera = self.views[check_known("view", view, self.views)], self._mujoco.MjvCamera()
        if chosen.camera:
            camera.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = self.model.camera(chosen.camera).id
        else:
            camera.type = self._mujoco.mjtCamera.mjCAMERA_FREE
            camera.lookat[:] = chosen.lookat
            camera.distance, camera.azimuth, camera.elevation = chosen.distance, chosen.azimuth, chosen.elevation
        return camera
