"""Reads Biovision hierarchies (BVH), the text files that most motion capture travels in, as they come from any tool.

Nothing is promised by the format, so nothing is assumed: joints and channels in any order, End Sites, position channels
on any joint, turns about fewer than three axes, wrapper joints above the hips, centimetres or metres. What a file leaves
open is decided here once, each decision an argument:
- unit: a body's longest chain of bones tells centimetres from metres;
- position channels *replace* a joint's offset, unless that puts a body well below the floor that adding puts it on;
- a wrapper that stands still above one moving joint (Bandai-Namco's `joint_Root`) is folded into that joint.

Shapes: offsets (J, 3) and values (T, C) are in the file's own unit and degrees; a `Motion` has metres and matrices.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from kinelib.bodies.joint_names import human_skeleton
from kinelib.bodies.motion import Motion

CHANNELS = {f"{axis.lower()}{kind}": (kind, index) for kind in ("position", "rotation") for index, axis in enumerate("XYZ")}
UNITS = {1.0: (0.5, 4.0), 0.01: (50.0, 400.0), 0.001: (500.0, 4000.0)}  # metres a unit: chains of bones, in units, of people


class BvhError(ValueError):
    """A BVH file cannot be read; the message names the file, the line and what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Bvh:
    """A BVH file, as it is written.

    Args:
        name: of the file, for messages.
        joints: J names, parents first.
        parents: index of every joint's parent, -1 for the root.
        offsets: (J, 3) in file units.
        channels: for every joint its channels in file order, lower case, such as "xposition" or "zrotation".
        end_sites: joint number to the (3,) offset of the End Site that hangs on it.
        values: (T, C) numbers of the motion section, angles in degrees.
        seconds_a_frame: above 0.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    end_sites: dict[int, np.ndarray]
    values: np.ndarray
    seconds_a_frame: float

    @property
    def fps(self) -> float:
        """Frames a second; a whole number where the file, which rounds 1/30 to 0.033333, can only mean that."""
        rate = 1 / self.seconds_a_frame
        return float(round(rate)) if abs(rate - round(rate)) < 1e-4 * rate else rate

    def unit(self) -> float:
        """Metres a file unit, judged by the longest chain of bones from the root down, which in people is about a metre.

        Raises:
            BvhError: when the chain fits a body in no unit; pass `scale` then.
        """
        reach = np.zeros(len(self.joints))
        for joint, parent in enumerate(self.parents):
            if parent > 0 or (parent == 0 and self.parents.count(0) > 1):
                reach[joint] = reach[parent] + np.linalg.norm(self.offsets[joint])
        for metres, (low, high) in UNITS.items():
            if low <= reach.max() <= high:
                return metres
        raise BvhError(
            f"{self.name}: the longest chain of bones measures {reach.max():.4g} units, which is a body's size in neither "
            "metres, centimetres nor millimetres; say how many metres a unit is: scale=..."
        )

    def local(self, positions: str = "auto") -> tuple[np.ndarray, np.ndarray]:
        """Where every joint is against its parent: translations (T, J, 3) in file units and turns (T, J, 3, 3).

        Args:
            positions: "replace" or "add": what position channels do to a joint's offset; "auto" decides for every joint.
        """
        if positions not in ("auto", "replace", "add"):
            raise ValueError(f"positions must be 'auto', 'replace' or 'add'; got {positions!r}.")
        frames = len(self.values)
        places = np.broadcast_to(self.offsets, (frames, len(self.joints), 3)).copy()
        turns = np.broadcast_to(np.eye(3), (frames, len(self.joints), 3, 3)).copy()
        column, orders, moving = 0, {}, []
        for joint, channels in enumerate(self.channels):
            kinds = [CHANNELS[channel] for channel in channels]
            order = "".join("XYZ"[axis] for kind, axis in kinds if kind == "rotation")
            if order:
                columns = [column + at for at, (kind, _) in enumerate(kinds) if kind == "rotation"]
                orders.setdefault(order, []).append((joint, columns))
            if where := {axis: column + at for at, (kind, axis) in enumerate(kinds) if kind == "position"}:
                places[:, joint, list(where)] = self.values[:, list(where.values())]
                moving.append((joint, list(where)))
            column += len(channels)
        for order, users in orders.items():
            joints, columns = [joint for joint, _ in users], [columns for _, columns in users]
            turns[:, joints] = _matrices(order, np.deg2rad(self.values[:, columns]))
        for joint, axes in moving:
            if positions == "add" or (positions == "auto" and self._adds(joint, axes, places, turns)):
                places[:, joint, axes] += self.offsets[joint, axes]
        return places, turns

    def _adds(self, joint: int, axes: list[int], places: np.ndarray, turns: np.ndarray) -> bool:
        """Whether position channels are meant to be added to the offset, of which replacing makes no sense."""
        offset, found = np.zeros(3), places[:, joint, axes]
        offset[axes] = self.offsets[joint, axes]
        if not np.abs(offset).max() > 1e-6:
            return False
        if joint > 1 or (joint == 1 and (self.parents.count(0) > 1 or not _still(places, turns))):
            # A bone, which keeps its length: its channels repeat the offset, or are about zero.
            middle = np.median(found, axis=0)
            return bool(np.linalg.norm(middle) < np.linalg.norm(middle - offset[axes]))
        # The top of the body wanders through space, and only the floor can tell: how deep below it does the body reach?
        points, above = _placed(places, turns, self.parents)
        hanging = [False] * joint + [True]
        for parent in self.parents[joint + 1 :]:
            hanging.append(hanging[parent] if parent >= joint else False)
        low = np.percentile(points[:, hanging, 1].min(1), 5)
        lift = offset[1] if joint == 0 else float(np.median((above[:, self.parents[joint]] @ offset)[:, 1]))
        return bool(low < -0.25 * abs(lift) and abs(low + lift) < 0.5 * abs(low))

    def motion(self, scale: float | None = None, positions: str = "auto", stretch: float = 0.01, drop: int = 0) -> Motion:
        """The clip as a `Motion` on a skeleton made from the file.

        Args:
            scale: metres a file unit; None: `unit()`.
            positions: what position channels do to offsets; see `local`.
            stretch: metres by which a bone may change its length with time before the file is refused, since a `Motion`
                has bones of one length (the median over the clip).
            drop: frames left out at the beginning; the CMU clips begin with a stray pose.

        Raises:
            BvhError: for a bone that stretches more, or when fewer than one frame is left.
        """
        scale = self.unit() if scale is None else scale
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be above 0 metres a unit; got {scale}.")
        if not 0 <= drop < len(self.values):
            raise BvhError(f"{self.name}: has {len(self.values)} frames, of which {drop} were to be dropped.")
        places, turns = self.local(positions)
        places, turns = places[drop:] * scale, turns[drop:]
        joints, parents = list(self.joints), list(self.parents)
        folded = []
        while self._wraps(joints, parents, places, turns):
            places[:, 1] = places[:, 0] + (turns[:, 0] @ places[:, 1, :, None])[..., 0]
            turns[:, 1] = turns[:, 0] @ turns[:, 1]
            folded.append(joints.pop(0))
            places, turns = places[:, 1:], turns[:, 1:]
            parents = [-1, *(parent - 1 for parent in parents[2:])]
        offsets = np.median(places, axis=0)
        # The root's own offset is its height at rest: the file's, where it says one (where on the floor means nothing).
        told = float(self.offsets[len(folded), 1]) * scale
        hangs = (
            told <= 0 and _placed(offsets[None], np.eye(3) + 0 * turns[:1], tuple(parents))[0][..., 1].min() < offsets[0, 1]
        )
        offsets[0] = 0.0, offsets[0, 1] if hangs else told, 0.0
        change = np.linalg.norm(places[:, 1:] - offsets[1:], axis=-1).max(0, initial=0)
        if len(change) and change.max() > stretch:
            raise BvhError(
                f"{self.name}: the bone to joint {joints[1 + int(change.argmax())]} changes by {change.max():.3g} m in the "
                f"clip; a body's bones keep their lengths. Pass stretch={change.max() * 1.01:.3g} to take their medians."
            )
        skeleton = human_skeleton(Path(self.name).stem, joints, parents, torch.from_numpy(offsets).float())
        facts = {"source": self.name, "scale": scale} | ({"folded": folded} if folded else {})
        to = lambda array: torch.from_numpy(np.ascontiguousarray(array)).float()
        return Motion(to(turns), to(places[:, 0]), self.fps, skeleton, provenance=facts)

    def _wraps(self, joints: list[str], parents: list[int], places: np.ndarray, turns: np.ndarray) -> bool:
        """Whether the top joint only holds another one that moves by itself."""
        if len(parents) < 2 or parents.count(0) != 1:
            return False
        child = self.channels[self.joints.index(joints[1])]
        if not any(channel.endswith("position") for channel in child):
            return False
        return bool(_still(places, turns) or np.ptp(places[:, 1], axis=0).max() > 1e-3)


def read_bvh(path: str | Path) -> Bvh:
    """Reads a BVH file.

    Raises:
        BvhError: for a file that is no BVH, is cut short, or holds numbers that are none; file and line are named.
    """
    return parse_bvh(Path(path).read_bytes().decode("utf-8-sig", errors="replace"), str(path))


def parse_bvh(text: str, name: str) -> Bvh:
    """Reads the text of a BVH file; `name` stands in messages."""
    start = re.search(r"^\s*MOTION\b[^\n]*\n?", text, re.MULTILINE)
    if not re.match(r"\s*HIERARCHY\b", text):
        raise BvhError(f"{name}, line 1: is not a BVH file; those begin with the word HIERARCHY.")
    if start is None:
        raise BvhError(f"{name}, line {text.count(chr(10)) + 1}: ends before its MOTION section; the file is cut short.")
    joints, parents, offsets, channels, ends = _hierarchy(text[: start.start()], name)
    line = 1 + text.count("\n", 0, start.end())
    head = re.match(r"\s*Frames:\s*(\d+)\s+Frame\s+Time:\s*([^\s]+)[^\n]*(\n|$)", text[start.end() :])
    if head is None:
        raise BvhError(f"{name}, line {line}: after MOTION come 'Frames: N' and 'Frame Time: S'; they are not there.")
    frames, seconds = int(head[1]), _number(head[2], name, line + 1)
    if not 0 < seconds < float("inf") or not frames:
        raise BvhError(f"{name}, line {line}: {frames} frames of {head[2]} seconds each are no motion.")
    line += head[0].count("\n")
    values = _numbers(text[start.end() + head.end() :], frames, sum(map(len, channels)), name, line)
    return Bvh(name, tuple(joints), tuple(parents), np.array(offsets), tuple(channels), ends, values, seconds)


def _hierarchy(text: str, name: str) -> tuple:
    """Joints, parents, offsets, channels and End Sites of the first section."""
    joints, parents, offsets, channels, ends = [], [], [], [], {}
    stack: list[int] = []  # joints whose brace is open; an End Site stands as -1 - its joint
    waiting = None  # what the next brace opens
    rows = ((line, one) for line, row in enumerate(text.split("\n"), 1) for one in re.findall(r"[{}]|[^{}]+", row))
    for line, row in rows:
        words = row.split()
        if not words or words == ["HIERARCHY"]:
            continue
        wrong = lambda what, line=line: BvhError(f"{name}, line {line}: {what}")
        word = words[0]
        if word in ("ROOT", "JOINT"):
            if len(words) < 2:
                raise wrong(f"{word} has no name.")
            if (word == "ROOT") != (not joints):
                raise wrong("a file holds one ROOT, and it comes first.")
            if word == "JOINT" and (not stack or stack[-1] < 0):
                raise wrong(f"JOINT {words[1]} stands inside no joint.")
            if " ".join(words[1:]) in joints:
                raise wrong(f"joint {' '.join(words[1:])} is there twice.")
            joints.append(" ".join(words[1:]))
            parents.append(stack[-1] if stack else -1)
            offsets.append(None)
            channels.append(())
            waiting = len(joints) - 1
        elif word == "End":
            if not stack or stack[-1] < 0:
                raise wrong("an End Site stands inside no joint.")
            waiting = -1 - stack[-1]
        elif word == "{":
            if waiting is None:
                raise wrong("a brace opens nothing.")
            stack.append(waiting)
            waiting = None
        elif word == "}":
            if not stack:
                raise wrong("a brace closes nothing.")
            if (joint := stack.pop()) >= 0 and offsets[joint] is None:
                raise wrong(f"joint {joints[joint]} has no OFFSET.")
        elif word == "OFFSET" and stack:
            if len(words) != 4:
                raise wrong("OFFSET takes three numbers.")
            offset = np.array([_number(one, name, line) for one in words[1:]])
            if stack[-1] < 0:
                ends[-1 - stack[-1]] = offset
            else:
                offsets[stack[-1]] = offset
        elif word == "CHANNELS" and stack and stack[-1] >= 0:
            listed = tuple(one.lower() for one in words[2:])
            if len(words) < 2 or not words[1].isdigit() or int(words[1]) != len(listed):
                raise wrong(f"CHANNELS says {words[1] if len(words) > 1 else 'nothing'} and lists {len(listed)}.")
            if unknown := [one for one in words[2:] if one.lower() not in CHANNELS]:
                raise wrong(f"unknown channel {unknown[0]}; there are Xposition ... Zrotation.")
            turns = [one for one in listed if one.endswith("rotation")]
            if len(turns) > 3 or any(len(list(run)) > 1 for _, run in groupby(turns)):
                raise wrong("a joint turns about at most three axes, no two the same in a row.")
            channels[stack[-1]] = listed
        else:
            raise wrong(f"{word!r} is not expected here.")
    if stack or not joints or offsets[-1] is None:
        raise BvhError(f"{name}, line {text.count(chr(10)) + 1}: the hierarchy ends before its braces close.")
    return joints, parents, offsets, channels, ends


def _number(word: str, name: str, line: int) -> float:
    """A number of the file."""
    try:
        number = float(word)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise BvhError(f"{name}, line {line}: {word!r} is not a number.")
    return number


def _numbers(text: str, frames: int, width: int, name: str, line: int) -> np.ndarray:
    """The (T, C) numbers of the motion section, read in one go; only a file with a fault is read line by line to find it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values = np.fromstring(text, sep=" ")  # ten times as fast as splitting; stops, with a warning, at a word
        except (DeprecationWarning, ValueError):
            values = np.empty(0)
    if values.size == frames * width and np.isfinite(values).all():
        return values.reshape(frames, width)
    rows = [(number, row.split()) for number, row in enumerate(text.split("\n"), start=line) if row.strip()]
    for frame, (number, words) in enumerate(rows):
        for word in words:
            _number(word, name, number)
        if len(words) != width:
            last = "; the file is cut short" if len(words) < width and frame == len(rows) - 1 else ""
            raise BvhError(f"{name}, line {number}: frame {frame} has {len(words)} numbers, not {width}{last}.")
    end = rows[-1][0] if rows else line
    raise BvhError(f"{name}, line {end}: ends after {len(rows)} frames; its header promises {frames}.")


def _still(places: np.ndarray, turns: np.ndarray) -> bool:
    """Whether the first joint neither moves nor turns."""
    return bool(np.ptp(places[:, 0], axis=0).max() < 1e-6 and np.ptp(turns[:, 0], axis=0).max() < 1e-6)


def _placed(places: np.ndarray, turns: np.ndarray, parents: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, J, 3) and global turns (T, J, 3, 3) of joints whose translations may change with time."""
    points, above = [places[:, 0]], [turns[:, 0]]
    for joint, parent in enumerate(parents[1:], start=1):
        points.append(points[parent] + (above[parent] @ places[:, joint, :, None])[..., 0])
        above.append(above[parent] @ turns[:, joint])
    return np.stack(points, 1), np.stack(above, 1)


def _matrices(order: str, angles: np.ndarray) -> np.ndarray:
    """Rotations (T, J, 3, 3) that turn about the axes in `order` one after the other, each about the turned axes."""
    product = None
    for at, axis in enumerate(order):
        cosine, sine = np.cos(angles[..., at]), np.sin(angles[..., at])
        first, second = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[axis]
        turn = np.zeros((*cosine.shape, 3, 3))
        turn[..., 3 - first - second, 3 - first - second] = 1
        turn[..., first, first] = turn[..., second, second] = cosine
        turn[..., first, second], turn[..., second, first] = -sine, sine
        product = turn if product is None else product @ turn
    return product
