"""Constraints as JSON that says what it is: format, version, skeleton, frame rate, units, and every value checked.

    {"format": "kinelib constraints", "version": 1, "skeleton": "smplx22", "fps": 20, "frames": 100,
     "units": {"length": "metres", "angle": "radians"}, "axes": "right-handed, y up, z forward",
     "constraints": [{"type": "root-waypoints", "frames": [0, 60], "xz": [[0, 0], [1, 2]], "heading": null}, ...]}

Rotations are written as axis times angle. The fields of a constraint are those of its class in
:mod:`kinelib.kimodo.constraints`. Files of the release, which say none of this, are read and written by
`kinelib.kimodo.official_constraints`. Anything wrong is a `ConstraintError` naming file, constraint, field and remedy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinelib.bodies.features import FeatureLayout
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import axis_angle, from_axis_angle
from kinelib.bodies.skeleton import Skeleton
from kinelib.bodies.skeletons import named
from kinelib.kimodo.conditions import compile_constraints
from kinelib.kimodo.constraints import (
    Constraint,
    ConstraintError,
    Contacts,
    EndEffector,
    FromClip,
    FullBody,
    Heading,
    Pose,
    RootPath,
    RootWaypoints,
)
from kinelib.learning.files import write_text_whole

FORMAT, VERSION = "kinelib constraints", 1
UNITS = {"length": "metres", "angle": "radians"}
AXES = "right-handed, y up, z forward"
TYPES: dict[str, type] = {
    "full-body": FullBody,
    "end-effector": EndEffector,
    "root-waypoints": RootWaypoints,
    "root-path": RootPath,
    "heading": Heading,
    "contacts": Contacts,
    "clip": FromClip,
}
ROTATIONS = ("rotations", "local")  # fields written as axis times angle
DIGITS = 6  # a micrometre and a millionth of a radian


@dataclass(frozen=True, eq=False)
class ConstraintFile:
    """What a file says."""

    constraints: tuple[Constraint, ...]
    skeleton: Skeleton
    fps: float
    frames: int | None = None  # of the motion they are meant for, where that is known


def save_constraints(
    path: str | Path, constraints: Sequence[Constraint], skeleton: Skeleton, fps: float, frames: int | None = None
) -> None:
    """Writes constraints, complete or not at all.

    Args:
        path: of the JSON file.
        constraints: what to write.
        skeleton: whose joints they name.
        fps: which their frames count.
        frames: of the motion they are meant for, if any; then they are checked against it first.

    Raises:
        ConstraintError: when they do not fit the skeleton, the frame rate or the length.
    """
    last = max((max(one.frames) for one in constraints), default=0)
    compile_constraints(constraints, FeatureLayout(skeleton), last + 1 if frames is None else frames, fps)
    content = {
        **{"format": FORMAT, "version": VERSION, "skeleton": skeleton.name, "fps": fps, "frames": frames},
        **{"units": UNITS, "axes": AXES, "constraints": [_written(one) for one in constraints]},
    }
    write_text_whole(path, json.dumps(content))


def load_constraints(path: str | Path, skeleton: Skeleton | None = None) -> ConstraintFile:
    """Reads constraints and checks every value of them.

    Args:
        path: a file written by :func:`save_constraints`, or by hand.
        skeleton: whose joints they name; None: the one of that name. It must be the one the file names.

    Raises:
        ConstraintError: naming the file, the constraint's number, the field, what is wrong and what to do.
        FileNotFoundError: when there is no such file.
    """
    name = Path(path).name
    content = read_json(path)
    if isinstance(content, list):
        raise ConstraintError(
            "this is a list, as Kimodo's own files are, which say neither skeleton nor frame rate.",
            field="",
            remedy="Read it with kinelib.kimodo.official_constraints.load_official(path, skeleton).",
            file=name,
        )
    head = lambda problem, field, remedy: ConstraintError(problem, field=field, remedy=remedy, file=name)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise head("this is no file of constraints.", "format", f'It must be an object with "format": "{FORMAT}".')
    if content.get("version") != VERSION:
        newer = isinstance(content.get("version"), int) and content["version"] > VERSION
        raise head(
            f"version {content.get('version')!r} is not {VERSION}, which this kinelib reads.",
            "version",
            "Update kinelib." if newer else f"Write {VERSION} if the fields are those of this version.",
        )
    if content.get("units", UNITS) != UNITS:
        raise head(f"units {content['units']} are not {UNITS}.", "units", "Convert the values and say so.")
    fps, frames, listed = content.get("fps"), content.get("frames"), content.get("constraints")
    if not _is_number(fps) or not fps > 0:
        raise head(f"{fps!r} is no frame rate.", "fps", "Write the frames a second, for example 20.")
    if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames < 1):
        raise head(f"{frames!r} is no number of frames.", "frames", "Write a whole number from 1, or null.")
    if not isinstance(listed, list):
        raise head("there is no list of constraints.", "constraints", "Write a list, empty if there are none.")
    said = content.get("skeleton")
    try:
        body = named(said) if skeleton is None else skeleton
    except ValueError as error:
        raise head(str(error), "skeleton", "Pass the skeleton to load_constraints.") from error
    if body.name != said:
        raise head(f"the file is for {said!r}, not for {body.name!r}.", "skeleton", "Retarget, or pass that skeleton.")
    constraints = parse_constraints(listed, body, float(fps), file=name)
    last = max((max(one.frames) for one in constraints), default=0)
    try:
        compile_constraints(constraints, FeatureLayout(body), last + 1 if frames is None else frames, fps)
    except ConstraintError as error:
        raise error.located(file=name) from error
    return ConstraintFile(constraints, body, float(fps), frames)


def parse_constraints(entries: Sequence[Any], skeleton: Skeleton, fps: float, *, file: str = "") -> tuple[Constraint, ...]:
    """Constraints from the plain dicts of a file's list, which is also what the authoring widget gives.

    Args:
        entries: one dict a constraint, with its type.
        skeleton: whose joints they name.
        fps: frames a second.
        file: named by errors.

    Raises:
        ConstraintError: naming the constraint's number, the field, what is wrong and what to do.
    """
    return tuple(_read(one, number, skeleton, fps, file) for number, one in enumerate(entries))


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; raises ConstraintError for one that is cut off or no JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        text = path.read_text(encoding="utf-8")
        cut = error.pos >= len(text.rstrip()) - 1 or text.strip() == ""
        raise ConstraintError(
            f"the file {'ends' if cut else 'is no JSON'} at line {error.lineno}, column {error.colno} ({error.msg}).",
            field="",
            remedy="It was cut off while being written or copied; make it again." if cut else "Repair it there.",
            file=path.name,
        ) from error
    except UnicodeDecodeError as error:
        raise ConstraintError("this is no text.", field="", remedy="Give a JSON file.", file=path.name) from error


def array(value: Any, field: str, *, integer: bool = False) -> Tensor:
    """A tensor of nested lists of numbers; raises ConstraintError for text, gaps and rows of unequal length."""
    try:
        tensor = torch.tensor(value, dtype=torch.float64)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConstraintError(
            f"is no array of numbers ({error}).", field=field, remedy="Write nested lists, all rows equally long."
        ) from error
    if integer and not bool((tensor == tensor.round()).all()):
        raise ConstraintError("holds numbers that are not whole.", field=field, remedy="Frames are whole numbers from 0.")
    return tensor.long() if integer else tensor.float()


def frame_numbers(value: Any, field: str) -> tuple[int, ...]:
    """Frames of a JSON list; raises ConstraintError for anything but a flat list of whole numbers."""
    if not isinstance(value, list) or not value or not all(_is_number(one) for one in value):
        raise ConstraintError(f"{value!r:.60} is no list of frames.", field=field, remedy="Write for example [0, 12, 40].")
    return tuple(array(value, field, integer=True).tolist())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- one constraint


def _written(constraint: Constraint) -> dict[str, Any]:
    kind = next(name for name, one in TYPES.items() if isinstance(constraint, one))
    entry: dict[str, Any] = {"type": kind}
    for one in fields(constraint):
        # A clip's features follow from its motion.
        if one.name != "features":
            entry[one.name] = _plain(getattr(constraint, one.name), one.name)
    return entry


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Tensor):
        value = axis_angle(value) if name in ROTATIONS else value
        return value.tolist() if value.dtype == torch.bool else _rounded(value.double())
    if isinstance(value, Pose):
        return {"local": _plain(value.local, "local"), "root": _plain(value.root, "root")}
    if isinstance(value, Motion):
        return {"local": _plain(value.rotations, "local"), "root": _plain(value.root, "root"), "fps": value.fps}
    return list(value) if isinstance(value, tuple) else value


def _rounded(tensor: Tensor) -> list:
    scale = 10.0**DIGITS
    return ((tensor * scale).round() / scale).tolist()


def _read(entry: Any, number: int, skeleton: Skeleton, fps: float, file: str) -> Constraint:
    fail = lambda problem, field, remedy: ConstraintError(problem, field=field, remedy=remedy, index=number, file=file)
    if not isinstance(entry, dict) or entry.get("type") not in TYPES:
        said = entry.get("type") if isinstance(entry, dict) else type(entry).__name__
        raise fail(f"there is no type {said!r}.", "type", f"Use one of {', '.join(TYPES)}.")
    kind = TYPES[entry["type"]]
    known = {one.name: one for one in fields(kind) if one.name != "features"}
    if unknown := sorted(entry.keys() - known.keys() - {"type"}):
        raise fail(f"{entry['type']} has no such field.", unknown[0], f"Its fields are {', '.join(known)}.")
    needed = [name for name, one in known.items() if one.default is MISSING and entry.get(name) is None]
    if needed:
        raise fail("is missing.", needed[0], f"A {entry['type']} needs {', '.join(needed)}.").located(kind=kind.__name__)
    values: dict[str, Any] = {}
    try:
        for name in known:
            if entry.get(name) is not None:
                values[name] = _parsed(entry[name], name, kind, skeleton, fps)
        return kind(**values)
    except ConstraintError as error:
        raise error.located(number, kind.__name__, file) from error


def _parsed(value: Any, name: str, kind: type, skeleton: Skeleton, fps: float) -> Any:
    if name in ("frames", "at", "start", "stop"):
        return frame_numbers(value, name) if name == "frames" else frame_numbers([value], name)[0]
    if name in ("joints", "rotated", "parts", "blocks"):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ConstraintError(f"{value!r:.60} is no list of names.", field=name, remedy='Write for example ["head"].')
        return tuple(value)
    if name in ("pose", "motion"):
        if not isinstance(value, dict) or not {"local", "root"} <= value.keys():
            raise ConstraintError("is no pose.", field=name, remedy='Write an object with "local" and "root".')
        local, root = _turns(value["local"], f"{name}.local"), array(value["root"], f"{name}.root")
        if local.shape[1:-2] != (len(skeleton),) or root.shape != (len(local), 3):
            raise ConstraintError(
                f"has rotations {tuple(local.shape[:-2])} and root {tuple(root.shape)}.",
                field=name,
                remedy=f"Give (frames, {len(skeleton)}, 3) axis times angle and (frames, 3) metres.",
            )
        if name == "pose":
            return Pose(local, root)
        try:
            return Motion(local, root, float(value.get("fps", fps)), skeleton)
        except ValueError as error:
            raise ConstraintError(str(error), field=name, remedy="Repair the clip.") from error
    if name in ("space", "pin_rotations"):
        if not isinstance(value, bool if name == "pin_rotations" else str):
            raise ConstraintError(
                f"{value!r:.60} is not possible.", field=name, remedy='Write true or false, "world" or "root".'
            )
        return value
    if name in ROTATIONS:
        return _turns(value, name)
    return array(value, name) > 0.5 if kind is Contacts else array(value, name)


def _turns(value: Any, name: str) -> Tensor:
    vectors = array(value, name)
    if vectors.ndim < 2 or vectors.shape[-1] != 3:
        raise ConstraintError(
            f"has shape {tuple(vectors.shape)}.", field=name, remedy="Rotations are written as axis times angle, 3 numbers."
        )
    return from_axis_angle(vectors)
