"""Moves motion from one body to another by the directions of its bones: the target keeps its own bone lengths.

Mocap rigs disagree on everything but where joints are: rest poses, local axes, bone lengths. So positions are trusted.
Every limb bone of the target points where the source's points; pelvis and chest, each with a line across (hips, collars) and
a line up, are turned as frames; the spine between them turns by shares.

A direction leaves one angle open, the twist about the bone. It follows the source's own rotation of that joint through a
constant turn between the two rigs' axes. Where the source's rest pose is a standing person, that constant is read off it;
elsewhere (Bandai-Namco's and Character Creator's rigs have bones along local axes, so that "all zero" is no pose at all) it
is the mean over many frames, in which people's twists are near neutral. Give many clips at once, or a `Calibration` of many.

Feet are the exception: rigs put ankle and toe joints at other heights above the same sole, so that a foot which
points exactly as the source's would stand on its tip. The slope of the source's resting foot becomes the target's at rest.

The path of the hips is scaled by the ratio of leg lengths, then lifted so that the feet stand on the floor.

Shapes: N frames of all clips together, S source joints, J target joints; positions (N, S, 3) m, rotations (N, S, 3, 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinelib.bodies.joint_names import human_parts
from kinelib.bodies.kinematics import local_from_global, positions_from_global
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import between, from_6d, from_axis_angle, slerp
from kinelib.bodies.skeleton import Skeleton

SIDES = ("left", "right")
LIMBS = (("chest", "collar", "shoulder", "elbow", "wrist"), ("pelvis", "hip", "knee", "ankle", "toe"))
OPTIONAL = ("collar", "toe")
FLOOR_SHARE = 0.05  # of all frames: feet deeper than in the rest are stray markers, not the ground

RESTING = 0.005  # metres from frame to frame: a foot that moves less rests


class RetargetError(ValueError):
    """A skeleton lacks the parts of a person that retargeting needs; the message names them."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What differs between the axes of two rigs' joints.

    Args:
        turns: part of the body to the (3, 3) turn C with source rotation @ C = target rotation at a neutral twist; and under
            "left_sole" and "right_sole" the turn between the slopes of two flat feet.
        frames: over how many frames the turns were averaged; 1 when they were read off the source's rest pose.
    """

    turns: dict[str, Tensor]
    frames: int


@dataclass(frozen=True, eq=False)
class _Rig:
    """A skeleton with its parts found."""

    skeleton: Skeleton
    parts: dict[str, int] = field(init=False)
    spine: list[int] = field(init=False)  # joints from pelvis to chest, both included

    def __post_init__(self) -> None:
        skeleton = self.skeleton
        parts = human_parts(skeleton.joints, skeleton.parents)
        needed = ["pelvis", "chest", "neck", "head"]
        needed += [f"{side}_{part}" for side in SIDES for limb in LIMBS for part in limb[1:] if part not in OPTIONAL]
        if missing := [part for part in needed if part not in parts]:
            raise RetargetError(
                f"skeleton {skeleton.name!r} has no joint recognised as {', '.join(missing)}; rename its joints as SMPL-X, "
                f"Mixamo or Bandai-Namco do. It has {', '.join(skeleton.joints[:12])} ..."
            )
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "spine", _path(parts["pelvis"], parts["chest"], skeleton.parents))

    def at(self, points: Tensor, part: str) -> Tensor:
        """Positions (..., 3) of a part among (..., J, 3)."""
        return points[..., self.parts[part], :]

    def middle(self, points: Tensor, part: str) -> Tensor:
        """Positions (..., 3) half-way between a left and a right part."""
        return (self.at(points, f"left_{part}") + self.at(points, f"right_{part}")) / 2

    def leg(self, rest: Tensor) -> Tensor:
        """The length of thigh and shin in metres, the mean of both legs."""
        bones = [(f"{side}_{a}", f"{side}_{b}") for side in SIDES for a, b in (("hip", "knee"), ("knee", "ankle"))]
        return sum((self.at(rest, a) - self.at(rest, b)).norm() for a, b in bones) / 2

    def stands(self) -> bool:
        """Whether the rest pose is a person upright facing +z, so that "no rotation" means a pose."""
        rest = self.skeleton.rest()
        across = self.at(rest, "left_hip") - self.at(rest, "right_hip")
        order = [[f"{side}_ankle", f"{side}_knee", f"{side}_hip", "chest", "head"] for side in SIDES]
        rises = all(
            self.at(rest, a)[1] < self.at(rest, b)[1] for chain in order for a, b in zip(chain, chain[1:], strict=False)
        )
        return bool(rises and across[0] > 0.9 * across.norm())


def retarget(motion: Motion, skeleton: Skeleton, calibration: Calibration | None = None) -> Motion:
    """The same motion on another skeleton, its feet on the floor.

    Args:
        motion: on any skeleton whose joints have names that people use.
        skeleton: the target, at rest standing upright facing +z.
        calibration: of `calibrate`, from many clips of the same rig; None: from this clip alone.

    Raises:
        RetargetError: when either skeleton lacks a part of a person.
    """
    return retarget_all([motion], skeleton, calibration)[0]


def calibrate(motions: Sequence[Motion], skeleton: Skeleton) -> Calibration:
    """The constant turns between the axes of the joints of the clips' rig and of the target.

    Args:
        motions: one or more clips of one rig; the more poses, the nearer to neutral is their mean.
        skeleton: the target.
    """
    source = _Rig(motions[0].skeleton)
    if source.stands():
        points, turned = motions[0].skeleton.rest()[None], torch.eye(3).expand(1, len(motions[0].skeleton), 3, 3)
    else:
        points = torch.cat([motion.positions() for motion in motions])
        turned = torch.cat([motion.global_rotations() for motion in motions])
    found: dict[str, Tensor] = {}
    _turns(points, turned, source, _Rig(skeleton), found)
    return Calibration(found, len(points))


def retarget_all(motions: Sequence[Motion], skeleton: Skeleton, calibration: Calibration | None = None) -> list[Motion]:
    """Retargets clips of one rig at once, faster and calibrated on all of them; see `retarget`.

    Bone lengths may differ from clip to clip, joints may not.

    Raises:
        RetargetError: when a skeleton lacks a part of a person, or the clips have different joints.
    """
    if not motions:
        return []
    rig = motions[0].skeleton
    if other := next((motion for motion in motions if motion.skeleton.joints != rig.joints), None):
        raise RetargetError(f"clips of one call share a rig; {rig.name!r} and {other.skeleton.name!r} differ in joints.")
    source, target = _Rig(rig), _Rig(skeleton)
    points = torch.cat([motion.positions() for motion in motions])
    turned = torch.cat([motion.global_rotations() for motion in motions])
    if calibration is None and source.stands():
        calibration = calibrate(motions, skeleton)
    # Without a calibration one is found on the way, from all the frames at hand.
    turns = _turns(points, turned, source, target, {} if calibration is None else dict(calibration.turns))
    local = local_from_global(turns, skeleton.parents)
    placed = positions_from_global(turns, torch.zeros_like(turns[:, 0, 0]), skeleton)
    leg = target.leg(skeleton.rest())
    scale = torch.cat([(leg / source.leg(one.skeleton.rest())).expand(len(one)) for one in motions])
    root = scale[:, None] * source.middle(points, "hip") - target.middle(placed, "hip")
    lowest = (root[:, None] + placed)[..., 1].amin(-1)
    moved, start = [], 0
    for motion in motions:
        here = slice(start, start := start + len(motion))
        lift = skeleton.rest()[:, 1].min() - lowest[here].quantile(FLOOR_SHARE)
        path = root[here] + torch.stack([torch.zeros(()), lift, torch.zeros(())])
        facts = motion.provenance | {"retargeted_from": motion.skeleton.name}
        moved.append(Motion(local[here], path, motion.fps, skeleton, motion.contacts, facts))
    return moved


def direction_errors(source: Motion, moved: Motion) -> dict[str, Tensor]:
    """The angle (T,) in radians between the limb bones of two bodies in the same motion, by the part at the lower end."""
    one, two = _Rig(source.skeleton), _Rig(moved.skeleton)
    a, b = source.positions(), moved.positions()
    errors = {}
    for upper, lower, _ in _bones(one.parts.keys() & two.parts.keys()):
        if lower:
            here, there = one.at(a, lower) - one.at(a, upper), two.at(b, lower) - two.at(b, upper)
            errors[lower] = torch.atan2(torch.linalg.cross(here, there).norm(dim=-1), (here * there).sum(-1))
    return errors


def _bones(parts: Iterable[str]) -> list[tuple[str, str | None, str]]:
    """(part, the part it points to, the part it hangs on), from the trunk outwards; nothing to point to at a limb's end."""
    bones: list[tuple[str, str | None, str]] = [("neck", "head", "chest"), ("head", None, "neck")]
    for side in SIDES:
        for trunk, *limb in LIMBS:
            there = [trunk, *(f"{side}_{part}" for part in limb if f"{side}_{part}" in parts), None]
            bones += [(part, lower, upper) for upper, part, lower in zip(there, there[1:-1], there[2:], strict=False)]
    return bones


def _turns(points: Tensor, turned: Tensor, source: _Rig, target: _Rig, calibration: dict[str, Tensor]) -> Tensor:
    """Global rotations (N, J, 3, 3) of all joints of the target; parts that `calibration` lacks are added to it."""
    skeleton, rest = target.skeleton, target.skeleton.rest().to(points)
    frames = zip(("pelvis", "chest"), _trunk(points, source), _trunk(rest, target), strict=True)
    turns = {part: there @ here.transpose(-1, -2) for part, there, here in frames}
    for part, lower, upper in _bones(source.parts.keys() & target.parts.keys()):
        own = turned[:, source.parts[part]]
        wanted = bone = None
        if lower:
            wanted, bone = source.at(points, lower) - source.at(points, part), target.at(rest, lower) - target.at(rest, part)
        if part not in calibration:
            plain = _swung(turns[upper], bone, wanted)  # the shortest turn from what it hangs on: a neutral twist
            calibration[part] = _nearest_rotation((own.transpose(-1, -2) @ plain).mean(0))
        turns[part] = _swung(own @ calibration[part], bone, wanted)
        if lower and lower.endswith("toe"):
            sole = lower.replace("toe", "sole")
            if sole not in calibration:
                calibration[sole] = _slope(source.at(points, part), source.at(points, lower), bone)
            turns[part] = turns[part] @ calibration[sole]
    joints: dict[int, Tensor] = {target.parts[part]: turn for part, turn in turns.items()}
    for at, joint in enumerate(target.spine[1:-1], start=1):
        share = torch.full(points.shape[:1], at / (len(target.spine) - 1), dtype=points.dtype)
        joints[joint] = slerp(turns["pelvis"], turns["chest"], share)
    for joint, parent in enumerate(skeleton.parents):  # whatever is left goes along with what it hangs on
        if joint not in joints:
            joints[joint] = joints[parent] if parent in joints else turns["pelvis"]
    return torch.stack([joints[joint] for joint in range(len(skeleton))], dim=1)


def _swung(turns: Tensor, bone: Tensor | None, wanted: Tensor | None) -> Tensor:
    """Rotations (N, 3, 3) turned on by the shortest way so that `bone` (3,) points along `wanted` (N, 3)."""
    return turns if bone is None else between(turns @ bone, wanted) @ turns


def _slope(ankle: Tensor, toe: Tensor, bone: Tensor) -> Tensor:
    """The (3, 3) turn of the target's foot, against its own rest, by which the source's flat foot is less steep than it."""
    moved = torch.stack([(joint[1:] - joint[:-1]).norm(dim=-1) for joint in (ankle, toe)]).amax(0)
    flat = torch.cat([moved < RESTING, torch.zeros(1, dtype=torch.bool)])  # a foot at rest is on the floor
    foot = (toe - ankle)[flat if flat.sum() >= 10 else slice(None)]
    drop = torch.atan2(foot[:, 1], foot[:, [0, 2]].norm(dim=-1)).median() - torch.atan2(bone[1], bone[[0, 2]].norm())
    across = torch.linalg.cross(bone.new_tensor([0.0, 1.0, 0.0]), bone)
    return from_axis_angle(across / across.norm() * drop)


def _nearest_rotation(matrix: Tensor) -> Tensor:
    """The (3, 3) rotation nearest to a mean of rotations."""
    u, _, v = torch.linalg.svd(matrix)
    signs = torch.ones(3, dtype=matrix.dtype)
    signs[2] = torch.linalg.det(u @ v).sign()
    return u * signs @ v


def _path(top: int, bottom: int, parents: Sequence[int]) -> list[int]:
    """Joints from `top` down to `bottom`, both included."""
    path = [bottom]
    while path[-1] != top:
        path.append(parents[path[-1]])
    return path[::-1]


def _trunk(points: Tensor, rig: _Rig) -> tuple[Tensor, Tensor]:
    """Frames (..., 3, 3) of pelvis and chest: x to the left, y along the spine."""
    # The first joint of the spine is rigid with the pelvis, as the chest need not be.
    pelvis = (
        rig.at(points, "left_hip") - rig.at(points, "right_hip"),
        points[..., rig.spine[1], :] - rig.middle(points, "hip"),
    )
    line = "collar" if "left_collar" in rig.parts else "shoulder"
    chest = (
        rig.at(points, f"left_{line}") - rig.at(points, f"right_{line}"),
        rig.at(points, "neck") - rig.at(points, "chest"),
    )
    return tuple(from_6d(torch.cat(pair, -1)) for pair in (pelvis, chest))
