"""Constraints as the denoiser sees them: a target and a mask over motion features, and a report of what contradicts what.

Each constraint claims channels of frames (Kimodo, Section 3.4). A position of a joint is a feature *relative to the smoothed
root*, so roots are settled first, over all constraints together: a hand and a drawn path, each given alone, combine. Where
two constraints claim the same channel the one that stands earlier in the list counts, and what they disagree about is
reported: who, at which frame, about what, by how much. So is a root that would have to run faster than people do.

Departures: the release collapses double claims silently, and cannot pin a hand without the root. Here a hand in world space
over a free root has its height and rotation pinned, and its x, z *float*: at every step of the sampler `Conditions.anchored`
places them against the root as predicted so far.

Shapes: T frames, D features, K constrained frames of a constraint, C channels claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from kinelib.bodies.features import FeatureLayout, heading
from kinelib.bodies.rotations import from_6d, geodesic, rotation_6d
from kinelib.kimodo.constraints import (
    CONTACTS,
    Constraint,
    ConstraintError,
    Contacts,
    EndEffector,
    FromClip,
    FullBody,
    Heading,
    RootPath,
    RootWaypoints,
)

# Differences up to these are rounding (files hold six digits), not contradictions.
TOLERANCES = {"m": 1e-3, "degrees": 0.1, "m/s": 1e-2, "": 0.5}
TOP_SPEED = 8.0  # m/s; sprinters are faster, but not in any clip that we know of


@dataclass(frozen=True)
class Conflict:
    """Two constraints that cannot both hold."""

    frame: int  # where
    field: str  # about what: root, heading, position of a joint, ...
    amount: float  # by how much
    unit: str  # m, degrees, m/s or none
    first: int  # number of the constraint that counts
    second: int  # number of the one that does not, there
    kinds: tuple[str, str]  # their types

    def __str__(self) -> str:
        who = f"constraints {self.first} ({self.kinds[0]}) and {self.second} ({self.kinds[1]})"
        if self.field == "root speed":
            return (
                f"frame {self.frame}: {who} ask the root to move at {self.amount:.1f} m/s. Put them further apart in time."
            )
        return (
            f"frame {self.frame}: {who} disagree about the {self.field} by {self.amount:.3g} {self.unit}".rstrip()
            + f"; constraint {self.first} counts."
        )


@dataclass(frozen=True, eq=False)
class Conditions:
    """What of a motion is given.

    Args:
        target: (T, D) unnormalised; 0 where nothing is given.
        mask: (T, D) bool, True where `target` counts.
        floating: (T, D) bool, never where `mask` is: x and z of positions that are given in the world, but whose root is
            free; `target` holds the world's numbers there.
        conflicts: what contradicts what.
    """

    target: Tensor
    mask: Tensor
    floating: Tensor
    conflicts: tuple[Conflict, ...] = ()

    def anchored(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Target and mask (..., T, D) with floating positions placed against the roots of features (..., T, D)."""
        if not self.floating.any():
            return self.target.expand_as(features), self.mask.expand_as(features)
        joints = (features.shape[-1] - 9) // 12
        x, z = features[..., 0:1], features[..., 2:3]
        root = torch.cat([x, torch.zeros_like(x), z], -1).repeat(*[1] * (features.ndim - 1), joints)
        target = self.target.expand_as(features).clone()
        target[..., 5 : 5 + 3 * joints] -= root * self.floating[..., 5 : 5 + 3 * joints]
        return target, (self.mask | self.floating).expand_as(features)

    @property
    def report(self) -> str:
        """One line a conflict; empty when there is none."""
        return "\n".join(str(conflict) for conflict in self.conflicts)


@dataclass(frozen=True, eq=False)
class _Claim:
    """Values of some channels at some frames that one constraint asks for."""

    number: int
    frames: Tensor  # (K,)
    channels: Tensor  # (C,)
    values: Tensor  # (K, C)
    field: str
    unit: str
    world: bool = False  # positions whose x and z are still to be measured from the root


def compile_constraints(
    constraints: Sequence[Constraint], layout: FeatureLayout, frames: int, fps: float | None = None
) -> Conditions:
    """Turns constraints into a target and a mask of features.

    Args:
        constraints: any number of them, of any types; earlier ones count where two disagree.
        layout: of the features, with its skeleton.
        frames: T of the motion.
        fps: of the motion, against which clips are checked and speeds are measured; None: neither is.

    Raises:
        ConstraintError: for a frame outside the motion, a joint that is not there, another skeleton or frame rate; the
            message names the constraint's number, its type, the field and the remedy.
    """
    kinds = [type(constraint).__name__ for constraint in constraints]
    for number, constraint in enumerate(constraints):
        try:
            _check(constraint, layout, frames, fps)
        except ConstraintError as error:
            raise error.located(number, kinds[number]) from error
    conditions = Conditions(
        torch.zeros(frames, layout.size),
        torch.zeros(frames, layout.size, dtype=torch.bool),
        torch.zeros(frames, layout.size, dtype=torch.bool),
    )
    owner = torch.full((frames, layout.size), -1)
    conflicts: list[Conflict] = []
    claims = [claim for number, one in enumerate(constraints) for claim in _claims(number, one, layout)]
    # Roots first: where the root is decides which numbers the positions are.
    for claim in sorted(claims, key=lambda claim: claim.field not in ("root", "heading")):
        conflicts += _write(claim, conditions, owner, kinds)
    if fps is not None:
        conflicts += _too_fast(conditions, owner, kinds, fps)
    return replace(conditions, conflicts=tuple(sorted(conflicts, key=lambda one: (one.frame, one.first, one.second))))


def _check(constraint: Constraint, layout: FeatureLayout, frames: int, fps: float | None) -> None:
    skeleton = layout.known_skeleton()
    if late := [frame for frame in constraint.frames if frame >= frames]:
        seconds = "" if fps is None else f" ({(late[-1] + 1) / fps:.1f} s)"
        raise ConstraintError(
            f"frame {late[-1]} is outside the motion, whose frames are 0 to {frames - 1}.",
            field="start" if isinstance(constraint, RootPath) else "at" if isinstance(constraint, FromClip) else "frames",
            remedy=f"Drop it, or make the motion at least {late[-1] + 1} frames{seconds} long.",
        )
    if isinstance(constraint, FullBody) and constraint.positions.shape[1] != len(skeleton):
        raise ConstraintError(
            f"has {constraint.positions.shape[1]} joints; {skeleton.name} has {len(skeleton)}.",
            field="positions",
            remedy="Retarget the pose with kinelib.bodies.retarget first.",
        )
    if isinstance(constraint, EndEffector):
        for name, joints in (("joints", constraint.joints), ("rotated", constraint.turned)):
            if unknown := [joint for joint in joints if joint not in skeleton.joints]:
                raise ConstraintError(
                    f"{skeleton.name} has no joint {unknown[0]!r}.", field=name, remedy=f"Use {', '.join(skeleton.joints)}."
                )
    if isinstance(constraint, FromClip):
        motion = constraint.motion
        if motion.skeleton.joints != skeleton.joints:
            raise ConstraintError(
                f"the clip is on {motion.skeleton.name}, the motion on {skeleton.name}.",
                field="motion",
                remedy="Retarget the clip with kinelib.bodies.retarget first.",
            )
        if fps is not None and abs(motion.fps - fps) > 1e-6:
            raise ConstraintError(
                f"the clip has {motion.fps:g} frames a second, the motion {fps:g}.",
                field="motion",
                remedy=f"Use clip.resampled({fps:g}).",
            )


def _claims(number: int, constraint: Constraint, layout: FeatureLayout) -> Iterator[_Claim]:
    """What a constraint asks of which channels; positions in the world where `world` says so."""
    frames, blocks, skeleton = torch.tensor(constraint.frames), layout.blocks, layout.known_skeleton()

    def claim(channels: slice | Sequence[int], values: Tensor, field: str, unit: str, world: bool = False) -> _Claim:
        where = torch.arange(channels.start, channels.stop) if isinstance(channels, slice) else torch.tensor(channels)
        return _Claim(number, frames, where, values.reshape(len(frames), -1).float(), field, unit, world)

    def angle(radians: Tensor) -> _Claim:
        return claim(blocks["heading"], torch.stack([radians.cos(), radians.sin()], -1), "heading", "degrees")

    def joints(names: Sequence[str], block: str, values: Tensor, world: bool = False) -> Iterator[_Claim]:
        field, unit = {"positions": ("position", "m"), "rotations": ("rotation", "degrees")}[block]
        for column, name in enumerate(names):
            yield claim(layout.joint(block, name), values[:, column], f"{field} of {name}", unit, world)

    if isinstance(constraint, FullBody):
        positions = constraint.positions
        xz = positions[:, 0, [0, 2]] if constraint.root is None else constraint.root
        yield claim([0, 1, 2], torch.stack([xz[:, 0], positions[:, 0, 1], xz[:, 1]], -1), "root", "m")
        yield angle(heading(positions, skeleton))
        yield from joints(skeleton.joints, "positions", positions, True)
        if constraint.pin_rotations:
            yield from joints(skeleton.joints, "rotations", rotation_6d(constraint.rotations))
    elif isinstance(constraint, EndEffector):
        if constraint.root is not None:
            yield claim([0, 1, 2], constraint.root, "root", "m")
        if constraint.heading is not None:
            yield angle(constraint.heading)
        if constraint.positions is not None:
            yield from joints(constraint.joints, "positions", constraint.positions, constraint.space == "world")
        if constraint.rotations is not None:
            yield from joints(constraint.turned, "rotations", rotation_6d(constraint.rotations))
    elif isinstance(constraint, RootWaypoints | RootPath):
        yield claim([0, 2], constraint.xz, "root", "m")
        if constraint.heading is not None:
            yield angle(constraint.heading)
    elif isinstance(constraint, Heading):
        yield angle(constraint.angles)
    elif isinstance(constraint, Contacts):
        for column, part in enumerate(constraint.parts):
            channel = blocks["contacts"].start + CONTACTS.index(part)
            yield claim([channel], constraint.on[:, column], f"contact of {part}", "")
    else:
        yield from _clip_claims(number, constraint, layout)


def _clip_claims(number: int, clip: FromClip, layout: FeatureLayout) -> Iterator[_Claim]:
    """The clip's features, positions in the world, so that they hold against whatever root counts."""
    frames = torch.tensor(clip.frames)
    origin = clip.features[:, :3] * clip.features.new_tensor([1, 0, 1])
    units = {
        "root": "m",
        "heading": "degrees",
        "positions": "m",
        "rotations": "degrees",
        "velocities": "m/s",
        "contacts": "",
    }
    fields = {"positions": "position", "rotations": "rotation", "velocities": "velocity"}
    for block in clip.blocks:
        # After the clip's last frame nothing is known: the velocity that stands there repeats the one before.
        known = slice(0, len(frames) - (block == "velocities" and clip.stop == len(clip.motion)))
        if not len(frames[known]):
            continue
        channels = torch.arange(layout.size)[layout.blocks[block]]
        if block not in fields:
            yield _Claim(number, frames[known], channels, clip.features[known][:, channels], block, units[block])
            continue
        for joint in layout.known_skeleton().joints:
            where = torch.arange(layout.size)[layout.joint(block, joint)]
            values = clip.features[known][:, where] + (origin[known] if block == "positions" else 0)
            yield _Claim(
                number, frames[known], where, values, f"{fields[block]} of {joint}", units[block], block == "positions"
            )


def _write(claim: _Claim, conditions: Conditions, owner: Tensor, kinds: list[str]) -> Iterator[Conflict]:
    """Writes what nobody has claimed yet, and reports what somebody else has claimed differently."""
    where = (claim.frames[:, None], claim.channels[None, :])
    values, float_here = claim.values.clone(), torch.zeros_like(claim.values, dtype=torch.bool)
    if claim.world:
        root, known = conditions.target[claim.frames][:, [0, 2]], conditions.mask[claim.frames][:, [0, 2]]
        values[:, [0, 2]] -= root * known
        float_here[:, [0, 2]] = ~known
    claimed = conditions.mask[where] | conditions.floating[where]
    if claimed.any():
        standing = conditions.target[where]
        amounts = _difference(standing, values, claimed, claim)
        for row in torch.nonzero(amounts > TOLERANCES[claim.unit]).flatten().tolist():
            first = int(owner[where][row][claimed[row]].max())
            about = (int(claim.frames[row]), claim.field, float(amounts[row]), claim.unit)
            yield Conflict(*about, first, claim.number, (kinds[first], kinds[claim.number]))
    conditions.target[where] = torch.where(claimed, conditions.target[where], values)
    conditions.floating[where] |= float_here & ~claimed
    conditions.mask[where] |= ~float_here & ~claimed
    owner[where] = torch.where(claimed, owner[where], claim.number)


def _difference(standing: Tensor, values: Tensor, claimed: Tensor, claim: _Claim) -> Tensor:
    """How far two claims are apart at each frame (K,), in the claim's unit; 0 where nothing is claimed twice."""
    if claim.unit == "degrees" and claim.field == "heading":
        turn = torch.atan2(standing[:, 1], standing[:, 0]) - torch.atan2(values[:, 1], values[:, 0])
        apart = torch.atan2(turn.sin(), turn.cos()).abs().rad2deg()
    elif claim.unit == "degrees":
        six = lambda rows: from_6d(rearrange(rows, "k (j c) -> k j c", c=6))
        apart = geodesic(six(standing), six(values)).amax(-1).rad2deg()
    else:
        return ((standing - values) * claimed).norm(dim=-1)
    return apart * claimed.all(-1)


def _too_fast(conditions: Conditions, owner: Tensor, kinds: list[str], fps: float) -> Iterator[Conflict]:
    frames = torch.nonzero(conditions.mask[:, 0] & conditions.mask[:, 2]).flatten()
    if len(frames) < 2:
        return
    speed = conditions.target[frames][:, [0, 2]].diff(dim=0).norm(dim=-1) * fps / frames.diff()
    for step in torch.nonzero(speed > TOP_SPEED).flatten().tolist():
        first, second = int(owner[frames[step], 0]), int(owner[frames[step + 1], 0])
        about = (int(frames[step + 1]), "root speed", float(speed[step]), "m/s")
        yield Conflict(*about, first, second, (kinds[first], kinds[second]))
