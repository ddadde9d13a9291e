"""Poses in words: geometry of every frame, its categories, and one caption a frame (KinMo, Section 3, step 1).

The paper captions frames with PoseScript's tools; these are our own rules (assumption A12). A pose is measured in the
body's own frame (ahead, up, outward: away from the middle of the body), every number is sorted into a category, and a
caption names the categories that are not those of somebody who stands. Left and right are the subject's own, and a mirrored
pose has the mirrored caption exactly: whatever is measured of a side is measured alike of the other.

Shapes: B clips of T frames, J joints, 2 sides (left, right), K categories; metres and degrees. Bodies are scaled to a pelvis
0.94 m above the floor at rest, so that the limits in `Limits` mean the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from kinelib.bodies.kinematics import forward
from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import Skeleton

PELVIS_AT_REST = 0.94  # metres, of the body that limits are meant for
SIDES = ("left", "right")


@dataclass(frozen=True)
class Limits:
    """Where one word ends and the next begins; metres, degrees, seconds unless said otherwise."""

    # Heights of the wrist over its own shoulder at which a hand is at the chest, shoulder, head, and above the head.
    hand_heights: tuple[float, float, float, float] = (-0.36, -0.12, 0.10, 0.25)
    ahead: float = 0.22  # of the wrist from the shoulder, from which a hand is in front
    behind: float = 0.15  # the same behind
    aside: float = 0.30  # outward of the shoulder, from which a hand is out to the side
    across: float = 0.18  # inward of the shoulder, from which a hand is in front of the other half of the body
    elbow: tuple[float, float] = (35.0, 75.0)  # flexion of a slightly bent and of a bent elbow
    knee: tuple[float, float, float] = (28.0, 55.0, 95.0)  # of a slightly bent, a bent and a deeply bent knee
    lean: tuple[float, float] = (14.0, 35.0)  # of the back against the vertical: forward, far forward
    lean_back: float = 9.0  # backward
    lean_aside: float = 12.0  # to a side
    head_down: float = 18.0  # of the neck against the vertical, against its angle at rest
    head_back: float = 16.0  # backward
    foot_up: float = 0.10  # height of a foot that is off the floor
    foot_ahead: float = 0.22  # by which one foot is in front of the other
    feet_wide: float = 0.40  # between the ankles across the body
    near_head: float = 0.26  # from wrist to head
    together: float = 0.20  # between the wrists
    on_thigh: float = 0.30  # from wrist to thigh
    folded: float = 55.0  # between thigh and trunk, from which a hand there lies on the thigh instead of hanging beside it
    # Of motion.
    smooth: float = 0.2  # seconds over which joints are averaged
    ends: float = 0.15  # seconds at either end that count as the start and the end
    raised: float = 0.22  # by which a hand has to rise (or sink) to be raised (lowered)
    swing: float = 0.05  # by which a hand that swings passes the middle of its swing, either way
    wide_swing: float = 0.14  # the same of a wide swing
    wave: int = 3  # turns of a raised hand that make a wave
    thrust: float = 0.10  # size of the forth and back of a raised hand that is worth a word
    strays: float = 0.12  # rise of a hand that leaves the side
    busy: float = 0.45  # m/s of a hand against the chest, mean, that is neither raised nor swinging but moves about
    bends: float = 30.0  # change of an elbow that bends or stretches
    step: float = 0.10  # length of a step
    stepping: tuple[float, float] = (0.35, 0.8)  # speed of a foot that steps: m/s, and against the speed of the body
    stride: tuple[float, float] = (0.55, 1.15)  # of a medium and of a long step
    lift: float = 0.16  # height of a foot that is lifted without a step
    knee_bends: tuple[float, float, float] = (25.0, 50.0, 85.0)  # change of a knee that bends slightly, bends, bends deeply
    travels: float = 0.15  # m/s of a body that goes somewhere
    displaced: float = 0.2  # metres between first and last place of a body that went somewhere
    slow: float = 0.7  # m/s below which one goes slowly
    quick: float = 1.25  # m/s from which one goes quickly
    turn: float = 25.0  # degrees from which a body turns
    sinks: float = 0.12  # drop of a pelvis that is lowered
    deep: float = 0.30  # drop of a pelvis that is lowered far
    tips: float = 14.0  # change of the back's angle in bending forward
    nods: float = 5.0  # by which a head that nods passes the middle of its nod, either way
    apart: float = 0.15  # change of a distance that is worth a word


DEFAULT = Limits()


@dataclass(frozen=True)
class Signals:
    """Geometry of every frame. Directions are (ahead, up, outward) in the frame of the hips."""

    fps: float
    lengths: Tensor  # (B,) frames; later ones repeat the last pose
    positions: Tensor  # (B, T, J, 3) metres, scaled
    heading: Tensor  # (B, T) radians, without jumps; left is positive
    pelvis: Tensor  # (B, T, 3) metres
    tilt: Tensor  # (B, T) degrees of the back against the vertical, forward is positive
    sway: Tensor  # (B, T) degrees of the back to the left
    nod: Tensor  # (B, T) degrees of the neck, forward is positive, against the rest pose
    wrist: Tensor  # (B, T, 2, 3) metres from the shoulder of the side
    elbow: Tensor  # (B, T, 2) degrees of flexion, 0 stretched
    shoulder: Tensor  # (B, T, 2) degrees between upper arm and hanging trunk, 0 down, 180 up
    ankle: Tensor  # (B, T, 2, 3) metres from the hip of the side
    knee: Tensor  # (B, T, 2) degrees of flexion
    hip: Tensor  # (B, T, 2) degrees between thigh and trunk, 0 standing
    foot: Tensor  # (B, T, 2) height over the floor of the lower of ankle and toe, metres
    to_head: Tensor  # (B, T, 2) wrist to head, metres
    hands: Tensor  # (B, T) wrist to wrist, metres
    to_thigh: Tensor  # (B, T, 2 hands, 2 legs) wrist to the line from hip to knee, metres
    to_foot: Tensor  # (B, T, 2) head to ankle, metres
    spread: Tensor  # (B, T) from ankle to ankle across the body, metres


@dataclass(frozen=True)
class Parts:
    """The joints that words are about, by number."""

    hips: tuple[int, int]
    arms: tuple[tuple[int, int, int], ...]  # shoulder, elbow, wrist of the left and the right side
    legs: tuple[tuple[int, int, int, int], ...]  # hip, knee, ankle, toe
    neck: int
    head: int

    @classmethod
    def of(cls, skeleton: Skeleton) -> Parts:
        """Finds them.

        Raises:
            ValueError: for a skeleton that does not say what its hips, feet, hands and neck are.
        """
        necks = skeleton.groups.get("neck", ())
        missing = [name for name in ("hips", "feet", "hands") if not getattr(skeleton, name)]
        if missing or len(necks) < 2:
            missing += ["groups['neck'], two joints or more"] if len(necks) < 2 else []
            raise ValueError(f"skeleton {skeleton.name!r} cannot be put into words: it lacks {', '.join(missing)}.")
        up = lambda joint: skeleton.parents[joint]
        wrists = [skeleton.index(hand[0]) for hand in skeleton.hands]
        feet = [skeleton.indices(foot[:2]) for foot in skeleton.feet]
        right, left = skeleton.indices(skeleton.hips)
        head = next((name for name in necks if name.lower() == "head"), necks[-1])
        return cls(
            (left, right),
            tuple((up(up(wrist)), up(wrist), wrist) for wrist in wrists),
            tuple((up(up(ankle)), up(ankle), ankle, toe) for ankle, toe in feet),
            skeleton.index(necks[0]),
            skeleton.index(head),
        )


def padded(motions: Sequence[Motion]) -> tuple[Tensor, Tensor]:
    """Positions (B, T, J, 3) of motions of one skeleton, the last pose of each repeated to the longest, and lengths (B,)."""
    lengths = torch.tensor([len(motion) for motion in motions])
    longest = int(lengths.max())
    held = lambda values: torch.cat([values, values[-1:].expand(longest - len(values), *values.shape[1:])])
    stacked = lambda name: torch.stack([held(getattr(motion, name).detach().float().cpu()) for motion in motions])
    return forward(stacked("rotations"), stacked("root"), motions[0].skeleton)[0], lengths


def signals(positions: Tensor, lengths: Tensor, fps: float, skeleton: Skeleton) -> Signals:
    """Measures every frame.

    Args:
        positions: (B, T, J, 3) metres, y up; frames from `lengths` on repeat the last pose.
        lengths: (B,) at least 1.
        fps: frames a second.
        skeleton: whose joints these are.
    """
    parts = Parts.of(skeleton)
    rest = skeleton.rest().to(positions)
    p = positions * (PELVIS_AT_REST / float(rest[0, 1]))
    at = lambda joints: p[:, :, list(joints)]
    arms = [at(column) for column in zip(*parts.arms, strict=True)]  # shoulders, elbows, wrists: (B, T, 2, 3) each
    legs = [at(column) for column in zip(*parts.legs, strict=True)]
    across = p[:, :, parts.hips[1]] - p[:, :, parts.hips[0]]
    heading = unwrapped(torch.atan2(across[..., 2], -across[..., 0]))

    outward = p.new_tensor([1.0, -1.0])  # the left side's outward is left, +x when facing +z

    def seen(v: Tensor) -> Tensor:
        """Vectors (B, T, 2, 3) of the two sides as (ahead, up, outward)."""
        sin, cos = heading.sin()[..., None], heading.cos()[..., None]
        ahead, left = v[..., 0] * sin + v[..., 2] * cos, v[..., 0] * cos - v[..., 2] * sin
        return torch.stack([ahead, v[..., 1], left * outward], dim=-1)

    back = p[:, :, parts.neck] - p[:, :, 0]
    trunk = functional.normalize(-back, dim=-1)[:, :, None]
    level = seen(torch.stack([back, p[:, :, parts.head] - p[:, :, parts.neck]], dim=2))  # outward of row 0 is left
    tilts = torch.rad2deg(torch.atan2(level[..., 0], level[..., 1]))
    neck_at_rest = rest[parts.head] - rest[parts.neck]
    feet = torch.stack(legs[2:], dim=-2)[..., 1].amin(-1)  # (B, T, 2)
    valid = torch.arange(p.shape[1]) < lengths[:, None]
    floor = torch.nanquantile(torch.where(valid, feet.amin(-1), torch.nan), 0.1, dim=1)
    head = p[:, :, None, parts.head]
    ankles = seen(legs[2] - p[:, :, None, 0])
    thighs = to_segment(arms[2][:, :, :, None], legs[0][:, :, None], legs[1][:, :, None])
    return Signals(
        fps=fps,
        lengths=lengths,
        positions=p,
        heading=heading,
        pelvis=p[:, :, 0],
        tilt=tilts[..., 0],
        sway=torch.rad2deg(torch.atan2(level[..., 0, 2], level[..., 0, 1])),
        nod=tilts[..., 1] - math.degrees(math.atan2(float(neck_at_rest[2]), float(neck_at_rest[1]))),
        wrist=seen(arms[2] - arms[0]),
        elbow=angle(arms[1] - arms[0], arms[2] - arms[1]),
        shoulder=angle(arms[1] - arms[0], trunk),
        ankle=seen(legs[2] - legs[0]),
        knee=angle(legs[1] - legs[0], legs[2] - legs[1]),
        hip=angle(legs[1] - legs[0], trunk),
        foot=feet - floor[:, None, None],
        to_head=(arms[2] - head).norm(dim=-1),
        hands=(arms[2][:, :, 0] - arms[2][:, :, 1]).norm(dim=-1),
        to_thigh=thighs,
        to_foot=(legs[2] - head).norm(dim=-1),
        spread=ankles[..., 2].sum(-1),
    )


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Degrees (...) between vectors (..., 3), stable for parallel ones."""
    return torch.rad2deg(torch.atan2(torch.linalg.cross(*torch.broadcast_tensors(a, b)).norm(dim=-1), (a * b).sum(-1)))


def to_segment(point: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Distance (...) of points (..., 3) from the lines between two others."""
    along = end - start
    share = ((point - start) * along).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True).clamp_min(1e-9)
    return (point - start - share.clamp(0, 1) * along).norm(dim=-1)


def unwrapped(angles: Tensor) -> Tensor:
    """Angles (B, T) in radians without jumps of whole turns."""
    step = angles[:, 1:] - angles[:, :-1]
    step = step - 2 * math.pi * torch.round(step / (2 * math.pi))
    return torch.cat([angles[:, :1], angles[:, :1] + step.cumsum(1)], 1)


# Every category: its words, "" for what needs no saying. {side} and {other} are filled in.
HEIGHT = ("down", "at chest height", "at shoulder height", "at head height", "above the head")
PLACE = ("", "in front", "behind the back", "out to the side", "across the body")
KNEE = ("straight", "slightly bent", "bent", "deeply bent")
LEAN = ("", "leaning forward", "bent far forward", "leaning back")
HEAD = ("", "the head lowered", "the head tilted back")


def categories(found: Signals, limits: Limits = DEFAULT) -> Tensor:
    """Categories (B, T, K) of every pose as small integers.

    Columns: height, place, elbow, near the head, on the thigh, knee, foot off the floor of the left side, the same of the
    right, then lean, lean aside (0 no, 1 left, 2 right), head, foot in front (0 none, 1 left, 2 right), feet wide, hands
    together.
    """
    ahead, up, out = found.wrist.unbind(-1)
    at = lambda values, bounds: torch.bucketize(values.contiguous(), values.new_tensor(bounds))
    place = torch.zeros_like(up, dtype=torch.long)
    for number, there in (
        (4, (out < -limits.across) & (ahead > 0)),
        (2, (ahead < -limits.behind) & (up < 0)),
        (1, ahead > limits.ahead),
        (3, (out > limits.aside) & (out > ahead)),
    ):
        place = torch.where(there, number, place)
    lifted = found.foot > limits.foot_up
    sides = [
        at(up, limits.hand_heights),
        place,
        at(found.elbow, limits.elbow),
        (found.to_head < limits.near_head).long(),
        ((found.to_thigh.diagonal(dim1=-2, dim2=-1) < limits.on_thigh) & (found.hip > limits.folded) & ~lifted).long(),
        at(found.knee, limits.knee),
        lifted.long(),
    ]
    either = lambda left, right: left.long() + 2 * right.long()
    lean = at(found.tilt, limits.lean)
    front = found.ankle[..., 0, 0] - found.ankle[..., 1, 0]
    body = [
        torch.where(found.tilt < -limits.lean_back, 3, lean),
        either(found.sway > limits.lean_aside, found.sway < -limits.lean_aside),
        either(found.nod > limits.head_down, found.nod < -limits.head_back),
        either(front > limits.foot_ahead, front < -limits.foot_ahead),
        (found.spread > limits.feet_wide).long(),
        (found.hands < limits.together).long(),
    ]
    return torch.cat([rearrange(torch.stack(sides, -1), "b t s k -> b t (s k)"), torch.stack(body, -1)], dim=-1)


def captions(found: Signals, limits: Limits = DEFAULT) -> list[list[str]]:
    """One caption a frame, clip by clip; equal poses have equal captions.

    Args:
        found: of :func:`signals`.
        limits: of the categories.
    """
    table = categories(found, limits)
    rows, which = table.flatten(0, 1).unique(dim=0, return_inverse=True)
    said = [caption(row) for row in rows.tolist()]
    which = which.reshape(table.shape[:2]).tolist()
    return [[said[i] for i in row[:length]] for row, length in zip(which, found.lengths.tolist(), strict=True)]


def caption(row: Sequence[int]) -> str:
    """The caption of one row of :func:`categories`."""
    left, right, (lean, aside, head, front, wide, hands) = row[:7], row[7:14], row[14:]
    parts = [_stance(left, right, front, wide), *_back(lean, aside, head)]
    if left[:5] == right[:5]:
        arms = [_arm(left, "both", "s")]
    else:  # the higher hand first: an order that does not depend on the side
        ordered = sorted(((left, "left"), (right, "right")), key=lambda one: one[0][:5], reverse=True)
        arms = [_arm(own, f"the {side}", "") for own, side in ordered]
    parts += arms if any(arms) or len(parts) > 1 else ["both arms down"]
    if hands:
        parts.append("the hands together")
    text = ", ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."


def _arm(own: Sequence[int], whose: str, plural: str) -> str:
    """What is worth saying of an arm; nothing of one that hangs."""
    height, place, elbow, near, thigh = own[:5]
    if near:
        return f"{whose} hand{plural} near the head"
    if thigh:
        return f"{whose} hand{plural} on the thigh{plural}"
    if not height and place in (0, 4):
        return f"{whose} arm{plural} down and bent" if elbow == 2 else ""
    where = f"{'low' if not height else HEIGHT[height]}{f' {PLACE[place]}' if place else ''}"
    return f"{whose} hand{plural} {where}{' with the elbow bent' if elbow == 2 and not plural else ''}"


def _stance(left: Sequence[int], right: Sequence[int], front: int, wide: int) -> str:
    if left[6] and right[6]:
        return "both feet off the floor"
    if left[6] or right[6]:
        side, up = ("left", left) if left[6] else ("right", right)
        return f"the {side} foot off the floor with the knee {KNEE[up[5]]}"
    knees = min(left[5], right[5])  # the knee of a swinging leg is bent by itself
    how = ("standing", "standing", "with the knees bent", "with the knees deeply bent")[knees]
    if front:
        return f"{how}, the {SIDES[front - 1]} foot in front"
    return how + (" with the feet wide apart" if wide else "")


def _back(lean: int, aside: int, head: int) -> list[str]:
    words = LEAN[lean] if not aside else f"leaning to the {SIDES[aside - 1]}"
    return [part for part in (words, HEAD[head]) if part]
