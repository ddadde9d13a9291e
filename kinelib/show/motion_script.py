"""What an author asks of a motion: sentences one after the other, places on the floor, drawn paths, poses taken from clips.

A `Script` is plain data that never changes; the authoring widget keeps a list of them, which is its history. What a model is
given is made from it by :func:`constraints_of`: plain dicts in the vocabulary of the project's constraint files
(`kinelib.kimodo.constraint_files` reads them), so that this room need not know any model.

Times are seconds; metres, y up; headings are radians, 0 along +z, growing towards +x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch

from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, axis_angle
from kinelib.bodies.skeleton import Skeleton
from kinelib.bodies.smoothing import smooth_root

SHORTEST, LONGEST = 2.0, 10.0  # seconds of one sentence, as in Kimodo's tool
PARTS = ("full_body", "left_hand", "right_hand", "left_foot", "right_foot")
FARTHEST = 200.0  # metres from the origin


@dataclass(frozen=True)
class Prompt:
    """A sentence and how long it lasts."""

    text: str
    seconds: float


@dataclass(frozen=True)
class Waypoint:
    """Where the body is on the floor at a time, and, if told, which way it faces."""

    x: float
    z: float
    seconds: float
    heading: float | None = None


@dataclass(frozen=True)
class Path:
    """A way over the floor walked at even speed from one time to another."""

    points: tuple[tuple[float, float], ...]
    start: float
    stop: float


@dataclass(frozen=True)
class Key:
    """A pose of a clip, or one hand or foot of it, at a time.

    Args:
        part: of `PARTS`.
        clip: name of the clip.
        frame: of the clip.
        at: seconds of the result.
        x, z: where its root shall be; None: where it is in the clip.
        turn: radians by which the pose is turned about its root.
    """

    part: str
    clip: str
    frame: int
    at: float
    x: float | None = None
    z: float | None = None
    turn: float = 0.0


@dataclass(frozen=True)
class Script:
    """Everything that is asked for."""

    prompts: tuple[Prompt, ...] = ()
    waypoints: tuple[Waypoint, ...] = ()
    paths: tuple[Path, ...] = ()
    keys: tuple[Key, ...] = ()

    @property
    def seconds(self) -> float:
        """How long the motion will be."""
        return round(sum(prompt.seconds for prompt in self.prompts), 3)

    def plain(self) -> dict:
        """Lists and numbers, as a page or a file takes them."""
        plain = {name: [asdict(one) for one in getattr(self, name)] for name in KINDS}
        for path in plain["paths"]:
            path["points"] = [list(point) for point in path["points"]]
        return plain

    def with_one(self, kind: str, one: Prompt | Waypoint | Path | Key) -> Script:
        """With one more of a kind, in the order of time; a key takes the place of one of the same part at its time."""
        listed = list(getattr(self, kind))
        if kind == "keys":
            listed = [key for key in listed if key.part != one.part or abs(key.at - one.at) > 1e-6]
        listed.append(one)
        order = {"waypoints": lambda it: it.seconds, "paths": lambda it: it.start, "keys": lambda it: it.at}.get(kind)
        return replace(self, **{kind: tuple(sorted(listed, key=order) if order else listed)})

    def without(self, kind: str, index: int) -> Script:
        """Without one of a kind.

        Raises:
            ValueError: when there is no such one.
        """
        listed = list(getattr(self, kind)) if kind in KINDS else []
        if not 0 <= index < len(listed):
            raise ValueError(f"there are {len(listed)} {kind}; {index} is none of them.")
        del listed[index]
        return replace(self, **{kind: tuple(listed)})


KINDS = {"prompts": Prompt, "waypoints": Waypoint, "paths": Path, "keys": Key}


def read_script(plain: Mapping, clips: Mapping[str, Motion]) -> Script:
    """A script from plain data, checked.

    Args:
        plain: as :meth:`Script.plain` makes it; what is missing is empty.
        clips: what keys may be taken from, by name.

    Raises:
        ValueError: for anything that cannot be meant; the message names the kind, its number, the field and the remedy.
    """
    if unknown := sorted(set(plain) - set(KINDS)):
        raise ValueError(f"a script has {', '.join(KINDS)}; {', '.join(map(str, unknown))} is unknown.")
    read: dict[str, tuple] = {}
    for kind, made in KINDS.items():
        known = {field.name for field in fields(made)}
        found = []
        for index, given in enumerate(plain.get(kind, ())):
            who = f"{kind[:-1]} {index + 1}"
            given = dict(given)
            if extra := sorted(set(given) - known):
                raise ValueError(f"{who}: there is no field {extra[0]!r}; use {', '.join(sorted(known))}.")
            try:
                one = made(**given)
            except TypeError as error:
                raise ValueError(f"{who}: {error}.") from error
            found.append(_CHECKS[kind](one, who, clips))
        read[kind] = tuple(found)
    return Script(**read)


def constraints_of(script: Script, clips: Mapping[str, Motion], fps: float) -> list[dict]:
    """The constraints as plain dicts, in the vocabulary of the project's constraint files.

    Args:
        script: what is asked for.
        clips: what its keys are taken from.
        fps: frames a second of the result; times become frames.

    Raises:
        ValueError: for something asked for beyond the end, or two waypoints at one frame.
    """
    last = max(round(script.seconds * fps) - 1, 0)

    def frame(seconds: float, who: str) -> int:
        # The end itself is the last frame.
        if seconds > script.seconds + 1e-6:
            raise ValueError(
                f"{who} is at {seconds:.2f} s, after the end at {script.seconds:.2f} s; move it or add a prompt."
            )
        return min(round(seconds * fps), last)

    found: list[dict] = []
    for given in (False, True):  # one constraint without headings, one with
        chosen = [one for one in script.waypoints if (one.heading is not None) == given]
        if not chosen:
            continue
        at = [frame(one.seconds, f"the waypoint at x {one.x:.2f}, z {one.z:.2f}") for one in chosen]
        if twice := sorted({one for one in at if at.count(one) > 1}):
            raise ValueError(f"two waypoints are at {twice[0] / fps:.2f} s; move one of them by a frame or more.")
        one = {"type": "root-waypoints", "frames": at, "xz": [[w.x, w.z] for w in chosen]}
        found.append(one | ({"heading": [w.heading for w in chosen]} if given else {}))
    for index, path in enumerate(script.paths):
        first, stop = (frame(seconds, f"path {index + 1}") for seconds in (path.start, path.stop))
        rows = evenly(path.points, stop - first + 1)
        found.append({"type": "root-path", "start": first, "xz": np.round(rows, 4).tolist()})
    for key in script.keys:
        at = frame(key.at, f"the {key.part.replace('_', ' ')} key from {key.clip}")
        found.append(_key_constraint(key, clips[key.clip], placed_pose(key, clips), at))
    return found


def placed_pose(key: Key, clips: Mapping[str, Motion]) -> Motion:
    """The one frame that a key asks for, turned and moved to where it shall be."""
    clip = clips[key.clip]
    pose = clip.slice(key.frame, key.frame + 1)
    x, _, z = pose.root[0].tolist()
    pose = pose.translated((-x, -z)).rotated(key.turn)
    return pose.translated((x if key.x is None else key.x, z if key.z is None else key.z))


def part_joints(part: str, motion: Motion) -> tuple[str, ...]:
    """The joints of a part; all of them for the full body.

    Raises:
        ValueError: when the skeleton does not name its hands or feet.
    """
    if part == "full_body":
        return motion.skeleton.joints
    side, limb = part.split("_")
    pairs = motion.skeleton.hands if limb == "hand" else motion.skeleton.feet
    if len(pairs) != 2:
        raise ValueError(f"skeleton {motion.skeleton.name!r} does not say which joints are its {limb}s.")
    return pairs[0 if side == "left" else 1]


def evenly(points: Sequence[Sequence[float]], count: int) -> np.ndarray:
    """A polyline walked at even speed: (count, 2) places from its start to its end."""
    line = np.asarray(points, float)
    steps = np.hypot(*np.diff(line, axis=0).T)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    if way[-1] < 1e-9:
        return np.repeat(line[:1], count, axis=0)
    at = np.linspace(0, way[-1], count)
    return np.stack([np.interp(at, way, line[:, axis]) for axis in (0, 1)], -1)


def constraint_file(script: Script, clips: Mapping[str, Motion], fps: float, skeleton: Skeleton) -> dict:
    """The whole content of a constraint file, which `kinelib.kimodo.constraint_files.load_constraints` reads.

    Args:
        script, clips, fps: as those of :func:`constraints_of`.
        skeleton: of the result; keys of clips on another one cannot be asked for.

    Raises:
        ValueError: as :func:`constraints_of`, and for a key from a clip on another skeleton.
    """
    for index, key in enumerate(script.keys):
        if clips[key.clip].skeleton.joints != skeleton.joints:
            raise ValueError(
                f"key {index + 1}: clip {key.clip} is on skeleton {clips[key.clip].skeleton.name!r}, the result on "
                f"{skeleton.name!r}; retarget it first (kinelib.bodies.retarget)."
            )
    return {
        "format": "kinelib constraints",
        "version": 1,
        "skeleton": skeleton.name,
        "fps": fps,
        "frames": max(round(script.seconds * fps), 1),
        "units": {"length": "metres", "angle": "radians"},
        "axes": "right-handed, y up, z forward",
        "constraints": constraints_of(script, clips, fps),
    }


def _key_constraint(key: Key, clip: Motion, pose: Motion, at: int) -> dict:
    """A key as the release pins it: the whole body's positions and smoothed root, or one hand's or foot's place and turn."""
    numbers = lambda tensor: np.round(tensor.double().numpy(), 6).tolist()
    turned = axis_angle(pose.global_rotations())
    if key.part == "full_body":
        # The smoothed root stands beside the pelvis as it does in the clip, turned with the pose.
        aside = smooth_root(clip.root[:, [0, 2]])[key.frame] - clip.root[key.frame, [0, 2]]
        away = about_y(torch.tensor(float(key.turn))).to(clip.root) @ torch.stack([aside[0], aside.new_zeros(()), aside[1]])
        smooth = (pose.root[0] + away)[None, [0, 2]]
        facts = {"positions": numbers(pose.positions()), "root": numbers(smooth), "rotations": numbers(turned)}
        return {"type": "full-body", "frames": [at], **facts}
    joints = part_joints(key.part, pose)
    chosen = pose.skeleton.indices(joints)
    facts = {"positions": numbers(pose.positions()[:, chosen]), "rotations": numbers(turned[:, chosen[:1]])}
    return {"type": "end-effector", "frames": [at], "joints": list(joints), "rotated": [joints[0]], **facts}


# ---- checks


def _number(value, who: str, field: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer) or not math.isfinite(value):
        raise ValueError(f"{who}, field {field}: {value!r} is no number.")
    if not low <= value <= high:
        raise ValueError(f"{who}, field {field}: {value:g} is out of range; use {low:g} to {high:g}.")
    return round(float(value), 4)


def _place(value, who: str, field: str) -> float:
    return _number(value, who, field, -FARTHEST, FARTHEST)


def _check_prompt(one: Prompt, who: str, clips: Mapping) -> Prompt:
    if not isinstance(one.text, str):
        raise ValueError(f"{who}, field text: {one.text!r} is no sentence.")
    return Prompt(one.text.strip(), _number(one.seconds, who, "seconds", SHORTEST, LONGEST))


def _check_waypoint(one: Waypoint, who: str, clips: Mapping) -> Waypoint:
    heading = None if one.heading is None else _number(one.heading, who, "heading", -100, 100)
    seconds = _number(one.seconds, who, "seconds", 0, 3600)
    return Waypoint(_place(one.x, who, "x"), _place(one.z, who, "z"), seconds, heading)


def _check_path(one: Path, who: str, clips: Mapping) -> Path:
    points = [list(point) for point in one.points]
    if len(points) < 2 or any(len(point) != 2 for point in points):
        raise ValueError(f"{who}, field points: give two or more [x, z]; got {len(points)}.")
    start, stop = (_number(getattr(one, name), who, name, 0, 3600) for name in ("start", "stop"))
    if stop <= start:
        raise ValueError(f"{who}, field stop: {stop:g} s is not after its start at {start:g} s.")
    return Path(tuple((_place(x, who, "points"), _place(z, who, "points")) for x, z in points), start, stop)


def _check_key(one: Key, who: str, clips: Mapping[str, Motion]) -> Key:
    if one.part not in PARTS:
        raise ValueError(f"{who}, field part: there is no {one.part!r}; use {', '.join(PARTS)}.")
    if one.clip not in clips:
        raise ValueError(f"{who}, field clip: there is no clip {one.clip!r}; there are {', '.join(clips) or 'none'}.")
    if isinstance(one.frame, bool) or not isinstance(one.frame, int) or not 0 <= one.frame < len(clips[one.clip]):
        raise ValueError(f"{who}, field frame: {one.frame!r} is not in {one.clip}, which has {len(clips[one.clip])} frames.")
    part_joints(one.part, clips[one.clip])
    x, z = (None if getattr(one, name) is None else _place(getattr(one, name), who, name) for name in ("x", "z"))
    at, turn = _number(one.at, who, "at", 0, 3600), _number(one.turn, who, "turn", -100, 100)
    return Key(one.part, one.clip, one.frame, at, x, z, turn)


_CHECKS = {"prompts": _check_prompt, "waypoints": _check_waypoint, "paths": _check_path, "keys": _check_key}
