"""Kimodo's own constraint files, and the `meta.json` beside them, read and written with every value checked.

A constraint file is a list of objects with `type` and `frame_indices`:

    root2d       smooth_root_2d [[x, z], ...], maybe global_root_heading [[cos, sin], ...]
    fullbody     local_joints_rot [[[axis times angle] of every joint] of every frame], root_positions [[x, y, z], ...],
                 maybe smooth_root_2d; what is pinned are the positions that follow
    left-hand, right-hand, left-foot, right-foot    the same fields; pins the limb's end, the root and the heading
    end-effector the same with joint_names, of LeftHand, RightHand, LeftFoot, RightFoot, Hips

It says neither skeleton nor frame rate: the caller must. The release accepts negative and repeated frames, and reads a
three-column root as (x, y); here frames are checked, and three columns are (x, y, z).

`meta.json` holds text and duration (or texts and durations, seconds), num_samples, seed, diffusion_steps, and cfg.

Shapes: K frames, J joints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinelib.bodies.features import heading
from kinelib.bodies.kinematics import forward, local_from_global
from kinelib.bodies.rotations import axis_angle, from_axis_angle
from kinelib.bodies.skeleton import Skeleton
from kinelib.kimodo.constraint_files import array, frame_numbers, read_json
from kinelib.kimodo.constraints import Constraint, ConstraintError, EndEffector, FullBody, Pose, RootPath, RootWaypoints
from kinelib.learning.files import write_text_whole

LIMBS = {"left-hand": "LeftHand", "right-hand": "RightHand", "left-foot": "LeftFoot", "right-foot": "RightFoot"}
POSED = ("fullbody", *LIMBS, "end-effector")
FIELDS = {
    "root2d": ("smooth_root_2d", "global_root_heading"),
    **dict.fromkeys(POSED, ("local_joints_rot", "root_positions", "smooth_root_2d")),
}


@dataclass(frozen=True)
class Request:
    """What `meta.json` asks for."""

    texts: tuple[str, ...]  # one prompt a segment
    durations: tuple[float, ...]  # seconds of each
    samples: int = 1
    seed: int = 0
    steps: int = 100  # of DDIM
    guided: bool = True  # whether classifier-free guidance is on
    text_weight: float = 2.0
    constraint_weight: float = 2.0


def load_official(path: str | Path, skeleton: Skeleton) -> list[Constraint]:
    """Reads a constraint file of the release.

    Args:
        path: the JSON file.
        skeleton: whose joints it holds; the file does not say.

    Raises:
        ConstraintError: naming the file, the constraint's number, the field, what is wrong and what to do.
    """
    name, content = Path(path).name, read_json(path)
    if not isinstance(content, list):
        remedy = "Read it with kinelib.kimodo.constraint_files.load_constraints." if _ours(content) else "Write a list."
        raise ConstraintError("Kimodo's constraint files are lists of objects.", field="", remedy=remedy, file=name)
    constraints = []
    for number, entry in enumerate(content):
        kind = entry.get("type") if isinstance(entry, dict) else None
        try:
            constraints.append(_read(entry, kind, skeleton))
        except ConstraintError as error:
            raise error.located(number, str(kind), name) from error
    return constraints


def save_official(path: str | Path, constraints: Sequence[Constraint], skeleton: Skeleton) -> None:
    """Writes constraints as the release does, where it can say them.

    Args:
        path: the JSON file.
        constraints: keyframes with rotations, end effectors with root and pose, root waypoints and paths.
        skeleton: whose joints they are.

    Raises:
        ConstraintError: for a constraint that the format cannot hold; the message says what to turn it into.
    """
    entries = []
    for number, constraint in enumerate(constraints):
        try:
            entries.append(_written(constraint, skeleton))
        except ConstraintError as error:
            raise error.located(number, type(constraint).__name__) from error
    write_text_whole(path, json.dumps(entries))


def load_request(path: str | Path) -> Request:
    """Reads a `meta.json`.

    Raises:
        ConstraintError: naming file, field, what is wrong and what to do.
    """
    name, content = Path(path).name, read_json(path)
    fail = lambda problem, field, remedy: ConstraintError(problem, field=field, remedy=remedy, file=name)
    if not isinstance(content, dict):
        raise fail("is no object.", "", 'Write {"text": "...", "duration": 5.0}.')
    many = "texts" in content
    if many == ("text" in content):
        raise fail("there must be either text or texts.", "text", "Keep one of them.")
    text_field, duration_field = ("texts", "durations") if many else ("text", "duration")
    texts, durations = content[text_field], content.get(duration_field)
    texts, durations = (texts, durations) if many else ([texts], [durations])
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise fail("is no prompt.", text_field, "Write a sentence, or a list of them.")
    if not isinstance(durations, list) or len(durations) != len(texts):
        raise fail(f"there are {len(texts)} prompts.", duration_field, "Give as many numbers of seconds.")
    if bad := [one for one in durations if isinstance(one, bool) or not isinstance(one, int | float) or not one > 0]:
        raise fail(f"{bad[0]!r} is no duration.", duration_field, "Write seconds above 0.")
    guidance = content.get("cfg") or {}
    if not isinstance(guidance, dict):
        raise fail("is no object.", "cfg", 'Write {"enabled": true, "text_weight": 2.0, "constraint_weight": 2.0}.')
    known = {"num_samples": (1, 1), "seed": (0, 0), "diffusion_steps": (100, 2)}
    whole = {}
    for field, (default, least) in known.items():
        value = content.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise fail(f"{value!r} is not possible.", field, f"Write a whole number from {least}.")
        whole[field] = value
    weights = [guidance.get(field, 2.0) for field in ("text_weight", "constraint_weight")]
    if bad := [one for one in weights if isinstance(one, bool) or not isinstance(one, int | float)]:
        raise fail(f"{bad[0]!r} is no weight.", "cfg", "Write numbers, 2.0 by default.")
    enabled = guidance.get("enabled", True)
    if not isinstance(enabled, bool):
        raise fail(f"enabled is {enabled!r}.", "cfg", "Write true or false.")
    return Request(tuple(texts), tuple(map(float, durations)), *whole.values(), enabled, *map(float, weights))


def save_request(path: str | Path, request: Request) -> None:
    """Writes a `meta.json`: text and duration for one prompt, texts and durations for several."""
    if len(request.texts) != len(request.durations) or not request.texts:
        raise ConstraintError("one duration for each text.", field="durations", remedy="Give as many.", kind="Request")
    one = len(request.texts) == 1
    what = {"text": request.texts[0], "duration": request.durations[0]} if one else {}
    what |= {} if one else {"texts": list(request.texts), "durations": list(request.durations)}
    what |= {"num_samples": request.samples, "seed": request.seed, "diffusion_steps": request.steps}
    weights = {"text_weight": request.text_weight, "constraint_weight": request.constraint_weight}
    write_text_whole(path, json.dumps(what | {"cfg": {"enabled": request.guided, **weights}}, indent=2))


# ---- reading


def _ours(content: Any) -> bool:
    return isinstance(content, dict) and "format" in content


def _read(entry: Any, kind: str | None, skeleton: Skeleton) -> Constraint:
    if kind not in FIELDS:
        raise ConstraintError(f"there is no type {kind!r}.", field="type", remedy=f"Use one of {', '.join(FIELDS)}.")
    # smooth_root_2d of poses and headings of roots may be left out; everything else is needed.
    needed = ["frame_indices", *FIELDS[kind][: 1 if kind == "root2d" else 2]]
    needed += ["joint_names"] if kind == "end-effector" else []
    if missing := [field for field in needed if entry.get(field) is None]:
        raise ConstraintError("is missing.", field=missing[0], remedy=f"A {kind} needs {', '.join(needed)}.")
    frames = frame_numbers(entry["frame_indices"], "frame_indices")
    smooth = entry.get("smooth_root_2d")
    smooth = None if smooth is None else _rows(smooth, "smooth_root_2d", frames, (2, 3))[:, [0, -1]]
    try:
        if kind == "root2d":
            pair = entry.get("global_root_heading")
            angle = None
            if pair is not None:
                pair = _rows(pair, "global_root_heading", frames, (2,))
                if float(pair.norm(dim=-1).min()) < 1e-6:
                    raise ConstraintError(
                        "holds (0, 0), which is no direction.", field="global_root_heading", remedy="Write (cos, sin)."
                    )
                angle = torch.atan2(pair[:, 1], pair[:, 0])
            return RootWaypoints(frames, smooth, angle)
        return _posed(entry, kind, frames, smooth, skeleton)
    except ConstraintError as error:
        # Our classes name their own fields; the file has others.
        other = {"frames": "frame_indices", "xz": "smooth_root_2d", "root": "smooth_root_2d", "joints": "joint_names"}
        if error.field in other:
            raise ConstraintError(error.problem, field=other[error.field], remedy=error.remedy) from error
        raise


def _posed(entry: dict, kind: str, frames: tuple[int, ...], smooth: Tensor | None, skeleton: Skeleton) -> Constraint:
    vectors, root = (
        array(entry["local_joints_rot"], "local_joints_rot"),
        _rows(entry["root_positions"], "root_positions", frames),
    )
    if tuple(vectors.shape) != (len(frames), len(skeleton), 3):
        extra = ""
        if vectors.ndim == 3 and vectors.shape[1] == 77:
            extra = " These are the release's 77-joint output: convert it to the 30 joints of the model first."
        raise ConstraintError(
            f"has shape {tuple(vectors.shape)}.",
            field="local_joints_rot",
            remedy=f"{skeleton.name} needs ({len(frames)}, {len(skeleton)}, 3): frames, joints, axis times angle.{extra}",
        )
    if not torch.isfinite(vectors).all():
        raise ConstraintError("holds NaN or infinity.", field="local_joints_rot", remedy="Give finite numbers.")
    local = from_axis_angle(vectors)
    positions, turned = forward(local, root, skeleton)
    if kind == "fullbody":
        return FullBody(frames, positions, smooth, turned)
    groups = entry["joint_names"] if kind == "end-effector" else [LIMBS[kind]]
    if not isinstance(groups, list) or not groups:
        raise ConstraintError("is no list of names.", field="joint_names", remedy='Write for example ["LeftHand"].')
    parts = [_group(group, skeleton) for group in groups]
    joints = tuple(dict.fromkeys(sum(parts, ())))
    bases = tuple(dict.fromkeys(part[0] for part in parts))
    xz = root[:, [0, 2]] if smooth is None else smooth
    return EndEffector(
        frames,
        joints,
        positions[:, skeleton.indices(joints)],
        turned[:, skeleton.indices(bases)],
        bases,
        torch.stack([xz[:, 0], root[:, 1], xz[:, 1]], -1),
        heading(positions, skeleton),
        pose=Pose(local, root),
    )


def _rows(value: Any, field: str, frames: tuple[int, ...], widths: tuple[int, ...] = (3,)) -> Tensor:
    rows = array(value, field)
    if rows.ndim != 2 or rows.shape[1] not in widths or len(rows) != len(frames):
        wide = " or ".join(map(str, widths))
        raise ConstraintError(
            f"has shape {tuple(rows.shape)}.", field=field, remedy=f"Write one row of {wide} numbers for each frame."
        )
    return rows


def _groups(skeleton: Skeleton) -> dict[str, tuple[str, ...]]:
    """Joints of the release's groups of end effectors, the one whose rotation is pinned first."""
    groups = {"Hips": (skeleton.joints[0],)}
    for part, sides in (("Hand", skeleton.hands), ("Foot", skeleton.feet)):
        groups |= {f"{side}{part}": joints for side, joints in zip(("Left", "Right"), sides, strict=False)}
    return groups


def _group(name: Any, skeleton: Skeleton) -> tuple[str, ...]:
    groups = _groups(skeleton)
    if name not in groups:
        raise ConstraintError(f"there is no group {name!r}.", field="joint_names", remedy=f"Use {', '.join(groups)}.")
    return groups[name]


# ---- writing


def _written(constraint: Constraint, skeleton: Skeleton) -> dict[str, Any]:
    plain = lambda values: values.double().tolist()
    entry: dict[str, Any] = {"frame_indices": list(constraint.frames)}
    no = lambda field, problem, remedy: ConstraintError(problem, field=field, remedy=remedy)
    if isinstance(constraint, RootWaypoints | RootPath):
        entry |= {"type": "root2d", "smooth_root_2d": plain(constraint.xz)}
        if constraint.heading is not None:
            angle = constraint.heading
            entry["global_root_heading"] = plain(torch.stack([angle.cos(), angle.sin()], -1))
        return entry
    if isinstance(constraint, FullBody):
        if constraint.rotations is None:
            raise no("rotations", "Kimodo's files hold rotations.", "Take the keyframe from a motion, or give rotations.")
        if constraint.pin_rotations:
            raise no("pin_rotations", "Kimodo's keyframes pin positions only.", "Set pin_rotations to false.")
        local = local_from_global(constraint.rotations, skeleton.parents)
        entry |= {"type": "fullbody", **_pose(local, constraint.positions[:, 0])}
        return entry if constraint.root is None else entry | {"smooth_root_2d": plain(constraint.root)}
    if not isinstance(constraint, EndEffector):
        raise no("type", "Kimodo's files have no such type.", "Leave it out, or use kinelib.kimodo.constraint_files.")
    if constraint.root is None or constraint.pose is None or constraint.positions is None or constraint.rotations is None:
        name = next(one for one in ("root", "pose", "positions", "rotations") if getattr(constraint, one) is None)
        raise no(name, f"Kimodo's end effectors always have their {name}.", "Make it with constraint_makers.end_effectors.")
    found, left = [], set(constraint.joints)
    for group, joints in _groups(skeleton).items():
        if joints[0] in constraint.turned and set(joints) <= left:
            found.append(group)
            left -= set(joints)
    if left or not found:
        raise no("joints", f"{sorted(left)} are no whole group.", f"Use {', '.join(_groups(skeleton))}.")
    single = {group: kind for kind, group in LIMBS.items()}
    kind = single.get(found[0], "end-effector") if len(found) == 1 else "end-effector"
    entry |= {"type": kind, **_pose(constraint.pose.local, constraint.pose.root)}
    entry["smooth_root_2d"] = plain(constraint.root[:, [0, 2]])
    return entry if kind != "end-effector" else entry | {"joint_names": found}


def _pose(local: Tensor, root: Tensor) -> dict[str, Any]:
    return {"local_joints_rot": axis_angle(local.double()).tolist(), "root_positions": root.double().tolist()}
