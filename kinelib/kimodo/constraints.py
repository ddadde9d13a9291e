"""What a motion must do at which frames: keyframes, hands and feet, root waypoints and paths, headings, contacts, clips.

Kimodo is steered by kinematic constraints (Section 3.4 of the paper): some channels of some frames are given, the denoiser
fills in the rest. This file holds what a person says. `kinelib.kimodo.conditions` turns a list of it into a target and a
mask of features, `constraint_makers` takes constraints from clips and moves them, `constraint_files` reads and writes them.
A keyframe holds at its frame only: to hold a pose for a while, repeat it at several frames.

Departures from the release: hands and feet without the root, and relative to it; rotations of keyframes can be pinned;
contacts; frames of a clip with all their channels, velocities included.

Frames count from 0. Positions are metres, world, y up, floor at 0; rotations are (3, 3) and against the world; headings are
radians, 0 along +z, growing towards +x. "Root" on the floor means Kimodo's *smoothed* root, within 6 cm of the pelvis.

Shapes: K constrained frames, J joints, n named joints.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kinelib.bodies.features import BLOCKS, encode
from kinelib.bodies.motion import Motion

CONTACTS = ("left_ankle", "left_toe", "right_ankle", "right_toe")


class ConstraintError(ValueError):
    """A constraint that cannot be meant: the message names it, the field, what is wrong and what to do.

    Args:
        problem: what is wrong.
        field: of which field.
        remedy: what to do about it.
        kind: the constraint's type.
        index: its number in its list, once that is known.
        file: the file it came from, once that is known.
    """

    def __init__(
        self, problem: str, *, field: str, remedy: str, kind: str = "", index: int | None = None, file: str = ""
    ) -> None:
        self.problem, self.field, self.remedy, self.kind, self.index, self.file = problem, field, remedy, kind, index, file
        number = "" if index is None else f"constraint {index}"
        who = f"{number} ({kind})" if number and kind else number or kind
        where = ", ".join(part for part in (file, who, f"field {field}" if field else "") if part)
        super().__init__(f"{where}: {problem} {remedy}".strip(": "))

    def located(self, index: int | None = None, kind: str = "", file: str = "") -> ConstraintError:
        """The same error, saying where in which file."""
        return ConstraintError(
            self.problem,
            field=self.field,
            remedy=self.remedy,
            kind=self.kind or kind,
            index=self.index if index is None else index,
            file=self.file or file,
        )


@dataclass(frozen=True, eq=False)
class Pose:
    """The whole body that a constraint on a part of it was taken from; the official files cannot do without.

    Args:
        local: (K, J, 3, 3) rotations against the parents.
        root: (K, 3) pelvis, metres.
    """

    local: Tensor
    root: Tensor


@dataclass(frozen=True, eq=False)
class FullBody:
    """Whole poses at some frames.

    Args:
        frames: K frames.
        positions: (K, J, 3) of all joints.
        root: (K, 2) smoothed root x, z; None: the pelvis.
        rotations: (K, J, 3, 3) of all joints; None: not known.
        pin_rotations: whether the rotations are conditions too. The release pins positions only.
    """

    frames: tuple[int, ...]
    positions: Tensor
    root: Tensor | None = None
    rotations: Tensor | None = None
    pin_rotations: bool = False

    def __post_init__(self) -> None:
        _frames(self, self.frames)
        joints = _check(self, "positions", "K J 3")[1]
        _check(self, "root", "K 2", optional=True)
        _check(self, "rotations", f"K {joints} 3 3", optional=True)
        if self.pin_rotations and self.rotations is None:
            raise ConstraintError(
                "there are no rotations to pin.",
                field="pin_rotations",
                remedy="Give `rotations`, or set pin_rotations to false.",
                kind="FullBody",
            )


@dataclass(frozen=True, eq=False)
class EndEffector:
    """Hands, feet or any joints at some frames; the root is given with them, or stays free.

    Args:
        frames: K frames.
        joints: n joint names whose positions are given.
        positions: (K, n, 3) metres; None: only rotations are given.
        rotations: (K, m, 3, 3) against the world, of the joints of `rotated`.
        rotated: m joint names; None: those of `joints`.
        root: (K, 3) smoothed root x, pelvis height, smoothed root z; None: free.
        heading: (K,) radians; None: free.
        space: "world", or "root": x and z of positions are measured from the smoothed root along the world's axes.
        pose: the whole body it was taken from, which official files need.
    """

    frames: tuple[int, ...]
    joints: tuple[str, ...]
    positions: Tensor | None = None
    rotations: Tensor | None = None
    rotated: tuple[str, ...] | None = None
    root: Tensor | None = None
    heading: Tensor | None = None
    space: Literal["world", "root"] = "world"
    pose: Pose | None = None

    def __post_init__(self) -> None:
        _frames(self, self.frames)
        _named(self, "joints", self.joints)
        _named(self, "rotated", self.turned)
        if self.space not in ("world", "root"):
            raise ConstraintError(
                f"{self.space!r} is no space.", field="space", remedy='Use "world" or "root".', kind="EndEffector"
            )
        _check(self, "positions", f"K {len(self.joints)} 3", optional=True)
        _check(self, "rotations", f"K {len(self.turned)} 3 3", optional=True)
        _check(self, "root", "K 3", optional=True)
        _check(self, "heading", "K", optional=True)
        if self.positions is None and self.rotations is None:
            raise ConstraintError(
                "nothing is asked of the joints.",
                field="positions",
                remedy="Give positions, rotations or both.",
                kind="EndEffector",
            )

    @property
    def turned(self) -> tuple[str, ...]:
        """The joints whose rotations `rotations` holds."""
        return self.joints if self.rotated is None else self.rotated


@dataclass(frozen=True, eq=False)
class RootWaypoints:
    """Where the smoothed root is at some frames, and optionally which way the body faces.

    Args:
        frames: K frames.
        xz: (K, 2) metres.
        heading: (K,) radians; None: free.
    """

    frames: tuple[int, ...]
    xz: Tensor
    heading: Tensor | None = None

    def __post_init__(self) -> None:
        _frames(self, self.frames)
        _check(self, "xz", "K 2")
        _check(self, "heading", "K", optional=True)


@dataclass(frozen=True, eq=False)
class RootPath:
    """Where the smoothed root is at every frame of a stretch.

    Args:
        start: the first frame.
        xz: (K, 2) metres, one a frame.
        heading: (K,) radians; None: free.
    """

    start: int
    xz: Tensor
    heading: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.xz, Tensor) or self.xz.ndim != 2 or not len(self.xz):
            raise ConstraintError("must be a (K, 2) tensor.", field="xz", remedy="Give (x, z) rows.", kind="RootPath")
        _frames(self, self.frames, "start")
        _check(self, "xz", "K 2")
        _check(self, "heading", "K", optional=True)

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames it covers."""
        return tuple(range(self.start, self.start + len(self.xz)))


@dataclass(frozen=True, eq=False)
class Heading:
    """Which way the body faces at some frames, wherever it is.

    Args:
        frames: K frames.
        angles: (K,) radians.
    """

    frames: tuple[int, ...]
    angles: Tensor

    def __post_init__(self) -> None:
        _frames(self, self.frames)
        _check(self, "angles", "K")


@dataclass(frozen=True, eq=False)
class Contacts:
    """Which parts of the feet stand on the floor at some frames.

    Args:
        frames: K frames.
        on: (K, n) bool, True: stands.
        parts: n of left_ankle, left_toe, right_ankle, right_toe.
    """

    frames: tuple[int, ...]
    on: Tensor
    parts: tuple[str, ...] = CONTACTS

    def __post_init__(self) -> None:
        _frames(self, self.frames)
        _named(self, "parts", self.parts)
        if unknown := [part for part in self.parts if part not in CONTACTS]:
            raise ConstraintError(
                f"there is no part {unknown[0]!r}.",
                field="parts",
                remedy=f"Use {', '.join(CONTACTS)}.",
                kind="Contacts",
            )
        _check(self, "on", f"K {len(self.parts)}")


@dataclass(frozen=True, eq=False)
class FromClip:
    """Frames of a clip that must appear in the result: to go on from a clip, or to fill in between two.

    Args:
        motion: the whole clip; its smoothed root and velocities are worked out before frames are cut from it.
        at: where in the result the first of them goes.
        start: the first frame taken from the clip.
        stop: the first frame no longer taken; None: up to the end.
        blocks: which channels are pinned. Velocities are left out at the clip's last frame, after which nothing is known.
    """

    motion: Motion
    at: int = 0
    start: int = 0
    stop: int | None = None
    blocks: tuple[str, ...] = BLOCKS
    features: Tensor | None = field(default=None, repr=False)  # (frames taken, D); worked out where it is not given

    def __post_init__(self) -> None:
        stop = len(self.motion) if self.stop is None else self.stop
        if not 0 <= self.start < stop <= len(self.motion):
            raise ConstraintError(
                f"frames {self.start} to {stop} are not in a clip of {len(self.motion)} frames.",
                field="start",
                remedy="Choose 0 <= start < stop <= frames of the clip.",
                kind="FromClip",
            )
        _frames(self, range(self.at, self.at + stop - self.start), "at")
        _named(self, "blocks", self.blocks)
        if unknown := [block for block in self.blocks if block not in BLOCKS]:
            raise ConstraintError(
                f"there is no block {unknown[0]!r}.", field="blocks", remedy=f"Use {', '.join(BLOCKS)}.", kind="FromClip"
            )
        object.__setattr__(self, "stop", stop)
        if self.features is None:
            object.__setattr__(self, "features", encode(self.motion)[self.start : stop])

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames of the result that it covers."""
        return tuple(range(self.at, self.at + self.stop - self.start))


Constraint = FullBody | EndEffector | RootWaypoints | RootPath | Heading | Contacts | FromClip
KINDS: tuple[type, ...] = (FullBody, EndEffector, RootWaypoints, RootPath, Heading, Contacts, FromClip)


# ---- checks


def _frames(constraint: object, frames, name: str = "frames") -> None:
    kind, frames = type(constraint).__name__, list(frames)
    fail = lambda problem, remedy: ConstraintError(problem, field=name, remedy=remedy, kind=kind)
    if not frames:
        raise fail("there are no frames.", "Name at least one.")
    if bad := [frame for frame in frames if isinstance(frame, bool) or not isinstance(frame, int | np.integer)]:
        raise fail(f"{bad[0]!r} is no frame number.", "Frames are whole numbers from 0; seconds times fps, rounded.")
    if min(frames) < 0:
        raise fail(f"frame {min(frames)} is negative.", "Frames count from 0; count from the end as length - n.")
    if twice := [frame for frame, next_ in zip(sorted(frames), sorted(frames)[1:], strict=False) if frame == next_]:
        raise fail(f"frame {twice[0]} is listed twice.", "Keep one of the two.")


def _named(constraint: object, name: str, names: tuple[str, ...]) -> None:
    if not names or len(set(names)) < len(names) or isinstance(names, str):
        raise ConstraintError(
            "must be a tuple of different names.", field=name, remedy="List each once.", kind=type(constraint).__name__
        )


def _check(constraint: object, name: str, pattern: str, optional: bool = False) -> tuple[int, ...]:
    value, kind = getattr(constraint, name), type(constraint).__name__
    fail = lambda problem, remedy: ConstraintError(problem, field=name, remedy=remedy, kind=kind)
    if value is None and optional:
        return ()
    if not isinstance(value, Tensor):
        raise fail(f"must be a tensor; got {type(value).__name__}.", "Wrap it in torch.tensor.")
    sizes = [str(len(constraint.frames)) if axis == "K" else axis for axis in pattern.split()]
    shape = tuple(value.shape)
    if len(shape) != len(sizes) or any(a.isdigit() and int(a) != b for a, b in zip(sizes, shape, strict=True)):
        wanted = ", ".join(sizes)
        raise fail(f"must have shape ({wanted}); got {shape}.", f"One row for each of the {len(constraint.frames)} frames.")
    if value.is_floating_point() and not torch.isfinite(value).all():
        row = int((~torch.isfinite(value.reshape(shape[0], -1))).any(1).nonzero()[0])
        raise fail(f"holds NaN or infinity at frame {constraint.frames[row]}.", "Drop that frame or give its value.")
    if name == "rotations":
        off = (value @ value.transpose(-1, -2) - torch.eye(3).to(value)).abs().amax((-1, -2))
        off = torch.maximum(off, (torch.linalg.det(value) - 1).abs())
        if float(off.max()) > 1e-2:
            row = int(off.reshape(shape[0], -1).amax(1).argmax())
            raise fail(
                f"holds matrices at frame {constraint.frames[row]} that are no rotations (off by {float(off.max()):.2g}).",
                "Make them with kinelib.bodies.rotations.from_6d or from_axis_angle.",
            )
    return shape
