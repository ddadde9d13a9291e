"""A scripted expert for LIBERO tasks that pick up one thing and place it; the package has none.

It looks at nothing but the simulator's state as it stands and keeps no memory, so that it can be asked anywhere: after a
disturbance, after a state was restored, in the middle of a policy's episode. Bodies are boxes around the geoms of their
contacts. A thing that is narrow enough is taken across its narrowest width; a wider one (bowls, plates) by its rim, on a
side that leaves room for the fingers and asks for little turning. Where the hand happens to be does not decide between
sides: who learns from a teacher that takes one bowl here and the next one there learns the middle.

Shapes: G geoms; boxes (G, 8, 3) their corners in the world, metres; action (7,) as in :mod:`~kinelib.robots.libero_world`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kinelib.robots.worlds import WorldError

STEP, TURN = 0.05, 0.5  # metres and radians that the largest action asks for
GAIN = 2.5  # asked for per metre and radian that is missing: with 1, the arm's friction stops it a centimetre short
WIDEST = 0.07  # metres the fingers can close around
RIM = 0.004  # metres from the outline of a wide thing to the middle of its rim
DEPTH = 0.03  # metres below the top at which a narrow thing is taken; a rim is taken at half of that
NEAR = 0.12  # metres around the hand in which things are to be cleared
CLEARANCE = 0.04  # metres above them
REACH = 0.75  # metres from the arm's base, along the table, beyond which the elbow locks over a place
ASIDE = (0.45, -0.1)  # metres from the arm's base; of two sides the one towards it, so that all bowls have the same
TURNING = 0.4  # metres of way that a radian is worth
OPEN = 0.04  # metres from the middle at which open fingers are
PARTED = 0.02  # the same where there is no room to come down on a rim with open fingers, such as in a drawer
FINGER = 0.008  # metres from there to the middle of a finger
PALM = (0.1, 0.11)  # metres from between the finger tips to an end of the palm: along the fingers' opening, and up
PALM_WIDTH = 0.03  # half of it
ROOM = 0.015  # metres that a finger is to have around it
AT = 0.008  # metres that count as being there
SIDES = np.linspace(0, 2 * np.pi, 16, endpoint=False)  # where a rim may be taken
CORNERS = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T


class Grasp(NamedTuple):
    """How a thing is to be taken."""

    place: NDArray[np.float64]  # (3,) between the finger tips
    yaw: float  # direction in which the fingers open, up to half a turn
    parted: float  # metres from the middle at which the fingers come down


class PickAndPlace:
    """The expert of one task.

    Args:
        environment: robosuite's, of a LIBERO task.

    Raises:
        WorldError: when the task's goal is not one thing on or in one place.
    """

    def __init__(self, environment) -> None:
        goals = environment.parsed_problem["goal_state"]
        if len(goals) != 1 or goals[0][0] not in ("on", "in") or goals[0][1] not in environment.objects_dict:
            raise WorldError(f"the scripted expert picks up one thing and places it; this task's goal is {goals}.")
        relation, self._thing, place = goals[0]
        self._environment, self._robot = environment, environment.robots[0]
        self._model, self._data = environment.sim.model._model, environment.sim.data._data
        # Between the finger tips. The controller knows it too, but asking the controller would disturb the solver.
        self._hand = self._data.site(self._robot.controller.eef_name)
        self._inside = relation == "in"
        self._site = place if place in environment.object_sites_dict else ""
        holder = environment.object_sites_dict[place].parent_name if self._site else place
        if holder is None or (self._inside and "cabinet" in holder):
            raise WorldError(f"the scripted expert cannot reach into {place}.")
        self._target = holder
        roots = {name: self._model.body_rootid[body] for name, body in environment.obj_body_id.items()}
        touching = (self._model.geom_contype > 0) | (self._model.geom_conaffinity > 0)
        owner = self._model.body_rootid[self._model.geom_bodyid]
        # The table is not among them: a hand never goes below what lies on it.
        self._geoms = np.flatnonzero(touching & np.isin(owner, list(roots.values())))
        self._is_thing, self._is_target = (owner[self._geoms] == roots[name] for name in (self._thing, self._target))

    def action(self, *, done: bool) -> NDArray[np.float32]:
        """(7,) what to do as things stand; `done` says whether the task's own test is met."""
        hand, boxes = self._hand.xpos.copy(), self._boxes()
        thing = boxes[self._is_thing].reshape(-1, 3)
        origin = self._data.xpos[self._environment.obj_body_id[self._thing]]
        goal, support = self._goal(boxes)
        missing = goal - origin[:2]
        bottom, room, short = thing[:, 2].min(), np.linalg.norm(missing), GAIN * missing
        touched = self._environment._check_grasp(self._robot.gripper, self._environment.get_object(self._thing))
        placed = room < 0.02 and (bottom < support + (0.06 if self._inside else 0.015) or self._rests())
        if done or placed:
            # Open first, and leave upwards when the fingers hold nothing.
            return self._move(np.array([0, 0, 0.0 if touched else STEP]), None, grip=-1)
        if touched:
            cleared = self._top(boxes[~self._is_thing], origin[:2], support if room < NEAR else -np.inf) + CLEARANCE
            height = cleared - bottom
            if room > 0.015:
                return self._move(np.array([*(short if height < 0.01 else (0, 0)), max(height, -STEP)]), None, grip=1)
            return self._move(np.array([*short, min(max(height, -STEP), -0.02)]), None, grip=1)
        grasp = self._grasp(thing, missing)
        error, turned = grasp.place - hand, self._turn(grasp.yaw)
        apart = np.abs(self._data.qpos[self._robot._ref_gripper_joint_pos_indexes]).mean() - grasp.parted
        # Only the sign of what a gripper is told counts. A network that learns from this cannot say 0, which keeps fingers
        # where they are, so that they come down wide open where they can.
        ready = -1.0 if grasp.parted == OPEN else 0.0 if abs(apart) < 0.004 else np.sign(apart)
        if np.linalg.norm(error[:2]) > 2 * AT or np.linalg.norm(turned) > 0.15:
            hover = max(self._top(boxes, hand[:2], -np.inf), thing[:, 2].max()) + CLEARANCE - hand[2]
            ahead = GAIN * error[:2] if hover < 0.02 else np.zeros(2)
            return self._move(np.array([*ahead, hover if hover > 0 else max(hover, -0.02)]), turned, grip=ready)
        return self._move(GAIN * error, turned, grip=1 if abs(error[2]) < 1.5 * AT else ready)

    def _boxes(self) -> NDArray[np.float64]:
        """(G, 8, 3) corners of the boxes around all geoms of contact but the robot's and the table's."""
        middle, half = np.split(self._model.geom_aabb[self._geoms], 2, axis=-1)
        corners = middle[:, None] + half[:, None] * CORNERS
        turned = np.einsum("gij,gkj->gki", self._data.geom_xmat[self._geoms].reshape(-1, 3, 3), corners)
        return turned + self._data.geom_xpos[self._geoms][:, None]

    def _goal(self, boxes: NDArray) -> tuple[NDArray, float]:
        """Where the thing's origin is to be, (2,), and the height of what it is put on."""
        top = boxes[self._is_target][..., 2].max()
        if not self._site:
            return self._data.xpos[self._environment.obj_body_id[self._target]][:2], top
        site = self._data.site(self._site).xpos
        return site[:2], top if self._inside else site[2]

    def _rests(self) -> bool:
        named = [self._environment.get_object(name) for name in (self._thing, self._target)]
        return self._environment.check_contact(*named)

    def _top(self, boxes: NDArray, xy: NDArray, least: float) -> float:
        """The height of the highest box within NEAR of a place, at least `least`."""
        gap = np.maximum(boxes[..., :2].min(1) - xy, xy - boxes[..., :2].max(1)).clip(0)
        around = np.linalg.norm(gap, axis=-1) < NEAR
        return max(boxes[around][..., 2].max(initial=-10.0), least)

    def _grasp(self, thing: NDArray, missing: NDArray) -> Grasp:
        low, high = thing[:, 2].min(), thing[:, 2].max()
        along = np.stack([np.cos(SIDES), np.sin(SIDES)], axis=-1)
        spans = thing[:, :2] @ along.T
        widths, middles = np.ptp(spans, axis=0), (spans.max(0) + spans.min(0)) / 2
        across = int(widths.argmin())
        # The middle of the box around it, from its extent along two directions at right angles.
        quarter = (across + len(SIDES) // 4) % len(SIDES)
        centre = along[across] * middles[across] + along[quarter] * middles[quarter]
        if widths[across] < WIDEST:
            return Grasp(np.array([*centre, max(high - DEPTH, low + 0.01)]), SIDES[across], OPEN)
        # Few sides, so that things a centimetre apart are taken at the same one.
        sides, along, widths = SIDES[::2], along[::2], widths[::2]
        places = centre + along * (widths[:, None] / 2 - RIM)
        base = self._robot.base_pos[:2]
        turns = np.abs(sides % np.pi - np.pi / 2)  # the arm begins with fingers that open to its sides
        far = np.maximum(*(np.linalg.norm(way - base, axis=-1) for way in (places, places + missing)))
        effort = np.linalg.norm(places - base - ASIDE, axis=-1) + TURNING * turns + 10 * (far - REACH).clip(0)
        height = high - DEPTH / 2
        ends = [self._room(places + sign * along * PALM[0], height + PALM[1]) - PALM_WIDTH for sign in (-1, 1)]
        for parted in (OPEN, PARTED):
            room = np.minimum(self._room(places + along * (parted + FINGER), height), np.minimum(*ends))
            best = int((effort + 40 * (ROOM - room).clip(0)).argmin())
            if room[best] >= ROOM:
                break
        return Grasp(np.array([*places[best], height]), sides[best], parted)

    def _room(self, places: NDArray, height: float) -> NDArray[np.float64]:
        """How far (N, 2) places at a height are from the nearest box but the thing's own, (N,)."""
        points = np.concatenate([places, np.full((len(places), 1), height)], axis=1)
        geoms = self._geoms[~self._is_thing]
        middle, half = np.split(self._model.geom_aabb[geoms], 2, axis=-1)
        offset = points[:, None] - self._data.geom_xpos[geoms]
        local = np.einsum("gji,kgj->kgi", self._data.geom_xmat[geoms].reshape(-1, 3, 3), offset) - middle
        return np.linalg.norm((np.abs(local) - half).clip(0), axis=-1).min(axis=1, initial=1.0)

    def _half_turn(self, yaw: float) -> float:
        """From where the fingers open now to `yaw`, the shorter way; which finger is which does not matter."""
        left, right = (
            np.mean([self._data.geom(name).xpos for name in self._robot.gripper.important_geoms[pad]], axis=0)
            for pad in ("left_fingerpad", "right_fingerpad")
        )
        now = np.arctan2(*(left - right)[1::-1])
        return (yaw - now + np.pi / 2) % np.pi - np.pi / 2

    def _turn(self, yaw: float | None) -> NDArray:
        """(3,) the rotation that points the hand straight down and its fingers along `yaw`."""
        tilt = np.cross(self._hand.xmat.reshape(3, 3)[:, 2], [0, 0, -1])
        return tilt + [0, 0, 0 if yaw is None else self._half_turn(yaw)]

    def _move(self, shift: NDArray, turn: NDArray | None, *, grip: float) -> NDArray[np.float32]:
        turn = self._turn(None) if turn is None else turn
        return np.array([*shift / STEP, *GAIN * turn / TURN, grip]).clip(-1, 1).astype(np.float32)
