"""What a clip shows, measured on joint positions alone: how far it turns and travels, what hands and feet do.

No network judges here; every number is geometry that a reader can check with a ruler, and means the same for captured,
procedural and generated motion. `truth` compares the numbers with what a caption says. The Kimodo paper judges text by
retrieval in a learned space; this measure is our addition.

Shapes: B clips padded to T frames by holding their last pose, J joints, sides (left, right); metres, seconds, degrees.
Left is positive for turns and travel. Heading as in Kimodo's features: across the hips, 0 along +z, growing to the left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import Skeleton

SMOOTH = 0.2  # seconds over which joints are averaged, so that one shaky frame is no gesture
HELD = 0.4  # seconds a hand has to be up for
SWING = 0.03  # metres a hand must come back by for a turn of its swing to count
RAISED = -0.10  # metres above the shoulder from which on swings count as waving


@dataclass(frozen=True)
class Facts:
    """Measurements of one clip.

    Args:
        seconds: from the first frame to the last.
        turn: degrees from the first heading to the last, whole turns counted; left is positive.
        speed: m/s along the floor, mean over the clip.
        ahead, left: m/s along and across the heading, means with sign.
        straying: degrees between the mean direction of travel and the heading; left is positive.
        distance: metres between first and last place on the floor.
        hand_height: (left, right) highest place of the wrist above its shoulder, metres, held for 0.4 seconds.
        swings: (left, right) turns of a hand's sideways swing while it is raised.
        drop: how far the pelvis comes below its highest place, metres.
        end_drop: how far below that it is at the end, metres.
        seat: at the end, how far the hips are behind the ankles, metres.
        thigh: at the end, degrees between the thighs and the vertical, the lesser of the two.
        flight: share of frames with both feet off the floor.
        air: greatest height of the lower foot above its usual lowest place, metres.
        kick: (left, right) greatest height of an ankle that is stretched out ahead of its hip, metres; 0 for none.
        tilt: greatest angle of the back against the vertical, degrees.
        bend: how far that angle changes, degrees.
        stir: m/s, mean speed of all joints.
    """

    seconds: float
    turn: float
    speed: float
    ahead: float
    left: float
    straying: float
    distance: float
    hand_height: tuple[float, float]
    swings: tuple[float, float]
    drop: float
    end_drop: float
    seat: float
    thigh: float
    flight: float
    air: float
    kick: tuple[float, float]
    tilt: float
    bend: float
    stir: float


def measure(motion: Motion) -> Facts:
    """Measures one clip; see `measure_all`."""
    return measure_all([motion])[0]


def measure_all(motions: Sequence[Motion]) -> list[Facts]:
    """Measures clips of any lengths, those of one skeleton and frame rate together.

    Raises:
        ValueError: for a clip of less than three frames, or a skeleton that does not say what its hips, feet, hands and
            neck are.
    """
    groups: dict[tuple, list[int]] = {}
    for number, motion in enumerate(motions):
        if len(motion) < 3:
            raise ValueError(f"clip {number} has {len(motion)} frames; measuring motion needs at least 3.")
        groups.setdefault((motion.skeleton.name, motion.fps), []).append(number)
    found: dict[int, Facts] = {}
    for rows in groups.values():
        longest = max(len(motions[row]) for row in rows)
        stacked = []
        for row in rows:
            positions = motions[row].positions().detach().float().cpu()
            stacked.append(torch.cat([positions, positions[-1:].expand(longest - len(positions), -1, -1)]))
        lengths = torch.tensor([len(motions[row]) for row in rows])
        first = motions[rows[0]]
        found |= zip(rows, measure_positions(torch.stack(stacked), lengths, first.fps, first.skeleton), strict=True)
    return [found[row] for row in range(len(motions))]


def measure_positions(positions: Tensor, lengths: Tensor, fps: float, skeleton: Skeleton) -> list[Facts]:
    """Measures clips given as joint positions.

    Args:
        positions: (B, T, J, 3) metres; frames from `lengths` on are ignored.
        lengths: (B,) ints, 3 to T.
        fps: frames a second.
        skeleton: whose joints these are.
    """
    frames = torch.arange(positions.shape[1])
    valid = frames < lengths[:, None]
    last = lengths - 1
    # Holding the last pose leaves every extreme as it is and adds no movement; only means need the lengths.
    hold = torch.minimum(frames, last[:, None])[..., None, None]
    held = torch.take_along_dim(positions, hold, 1)
    smooth = torch.take_along_dim(_smoothed(held, fps), hold, 1)
    joints = _joints(skeleton)
    seconds = last / fps
    at_end = lambda values: values[torch.arange(len(values)), last]

    # Heading and travel.
    across = smooth[:, :, joints.right_hip] - smooth[:, :, joints.left_hip]
    heading = _unwrapped(torch.atan2(across[..., 2], -across[..., 0]))
    root = smooth[:, :, 0]
    step = root[:, 1:] - root[:, :-1]
    facing = heading[:, :-1]
    ahead = step[..., 0] * facing.sin() + step[..., 2] * facing.cos()
    left = step[..., 0] * facing.cos() - step[..., 2] * facing.sin()
    far = step[..., [0, 2]].norm(dim=-1).sum(1)
    mean_ahead, mean_left = ahead.sum(1) / seconds, left.sum(1) / seconds

    # Hands.
    heights, swings = [], []
    # Sideways is along the shoulders, so that the chest's own turning, as in walking, is no wave.
    line = held[:, :, joints.arms[0][0]] - held[:, :, joints.arms[1][0]]
    line = functional.normalize(line[..., [0, 2]], dim=-1)
    for shoulder, wrist in joints.arms:
        arm = smooth[:, :, wrist] - smooth[:, :, shoulder]
        heights.append(torch.where(valid, _kept(arm[..., 1], fps), -torch.inf).amax(1))
        quick = held[:, :, wrist] - held[:, :, shoulder]
        aside = (quick[..., [0, 2]] * line).sum(-1)
        swings.append(_reversals(aside, quick[..., 1] > RAISED, SWING))

    # Pelvis and legs.
    tall = root[..., 1].amax(1)
    feet = held[:, :, joints.feet]  # (B, T, 2 sides, ankle and toe, 3)
    lowest = feet[..., 1].amin(-1)
    lower = lowest.amin(-1)
    floor = torch.nanquantile(torch.where(valid, lower, torch.nan), 0.1, dim=1)
    off = _smoothed(lower[..., None, None], fps, 0.1)[..., 0, 0] - floor[:, None]
    flight = ((lower - floor[:, None] > 0.04) & valid).sum(1) / lengths
    kicks, backs, thighs = [], [], []
    for side, (hip, knee, ankle) in enumerate(joints.legs):
        leg = held[:, :, ankle] - held[:, :, hip]
        out = leg[..., 0] * heading.sin() + leg[..., 2] * heading.cos()
        stretched = leg.norm(dim=-1) > 0.85 * sum(float(skeleton.offsets[j].norm()) for j in (knee, ankle))
        high = feet[:, :, side, 0, 1] - floor[:, None]
        kicked = stretched & (out > 0.25) & (high > 0.2)
        kicks.append(torch.where(kicked, high, 0.0).amax(1))
        backs.append(at_end(out))
        thigh = smooth[:, :, knee] - smooth[:, :, hip]
        thighs.append(at_end(torch.rad2deg(torch.atan2(thigh[..., [0, 2]].norm(dim=-1), -thigh[..., 1]))))

    back = smooth[:, :, joints.neck] - smooth[:, :, 0]
    tilt = torch.rad2deg(torch.atan2(back[..., [0, 2]].norm(dim=-1), back[..., 1]))
    # Positions are smoothed before speeds are taken, so that the noise of a sensor or a sampler is not stir.
    stir = (smooth[:, 1:] - smooth[:, :-1]).norm(dim=-1).mean(-1).sum(1) / seconds
    pair = lambda values: torch.stack(list(values), -1)
    columns = {
        "seconds": seconds,
        "turn": torch.rad2deg(at_end(heading) - heading[:, 0]),
        "speed": far / seconds,
        "ahead": mean_ahead,
        "left": mean_left,
        "straying": torch.rad2deg(torch.atan2(mean_left, mean_ahead)),
        "distance": (at_end(root) - root[:, 0])[:, [0, 2]].norm(dim=-1),
        "hand_height": pair(heights),
        "swings": pair(swings),
        "drop": tall - root[..., 1].amin(1),
        "end_drop": tall - at_end(root)[:, 1],
        "seat": pair(backs).amin(-1),
        "thigh": pair(thighs).amin(-1),
        "flight": flight,
        "air": off.amax(1),
        "kick": pair(kicks),
        "tilt": tilt.amax(1),
        "bend": tilt.amax(1) - tilt.amin(1),
        "stir": stir,
    }
    rows = [columns[column.name].tolist() for column in fields(Facts)]
    as_field = lambda value: tuple(value) if isinstance(value, list) else value
    return [Facts(*map(as_field, values)) for values in zip(*rows, strict=True)]


@dataclass(frozen=True)
class _Joints:
    right_hip: int
    left_hip: int
    arms: list[tuple[int, int]]  # (shoulder, wrist) of the left and the right side
    legs: list[tuple[int, int, int]]  # (hip, knee, ankle)
    feet: list[list[int]]  # (ankle, toe)
    neck: int


def _joints(skeleton: Skeleton) -> _Joints:
    missing = [name for name in ("hips", "feet", "hands") if not getattr(skeleton, name)]
    if missing or not skeleton.groups.get("neck"):
        missing += [] if skeleton.groups.get("neck") else ["groups['neck']"]
        raise ValueError(f"skeleton {skeleton.name!r} does not say which joints are its {', '.join(missing)}.")
    up = lambda joint: skeleton.parents[joint]
    wrists = [skeleton.index(hand[0]) for hand in skeleton.hands]
    feet = [skeleton.indices(foot[:2]) for foot in skeleton.feet]
    right, left = skeleton.indices(skeleton.hips)
    legs = [(up(up(ankle)), up(ankle), ankle) for ankle, _ in feet]
    return _Joints(
        right, left, [(up(up(wrist)), wrist) for wrist in wrists], legs, feet, skeleton.index(skeleton.groups["neck"][0])
    )


def _smoothed(values: Tensor, fps: float, seconds: float = SMOOTH) -> Tensor:
    """Averages (B, T, N, C) over a window of time, an odd number of frames, ends held."""
    half = max(round(seconds * fps / 2), 0)
    if not half:
        return values
    padded = torch.cat([values[:, :1].expand(-1, half, -1, -1), values, values[:, -1:].expand(-1, half, -1, -1)], 1)
    sums = functional.pad(padded.cumsum(1, dtype=torch.float64), (0, 0, 0, 0, 1, 0))
    return ((sums[:, 2 * half + 1 :] - sums[:, : -2 * half - 1]) / (2 * half + 1)).to(values)


def _kept(values: Tensor, fps: float) -> Tensor:
    """The least (B, T) of the values around each moment: what is kept up for `HELD` seconds, ends held."""
    half = round(HELD * fps / 2)
    padded = functional.pad(values[:, None], (half, half), mode="replicate")
    return -functional.max_pool1d(-padded, 2 * half + 1, stride=1)[:, 0]


def _unwrapped(angles: Tensor) -> Tensor:
    """Angles (B, T) without jumps of whole turns."""
    step = angles[:, 1:] - angles[:, :-1]
    step = step - 2 * math.pi * torch.round(step / (2 * math.pi))
    return torch.cat([angles[:, :1], angles[:, :1] + step.cumsum(1)], 1)


def _reversals(values: Tensor, counted: Tensor, least: float) -> Tensor:
    """How often (B,) a signal (B, T) turns back by at least `least`, among the counted frames (B, T) only."""
    count = torch.zeros(len(values))
    high, low = values[:, 0].clone(), values[:, 0].clone()
    sense = torch.zeros(len(values))  # +1 on the way up, -1 down, 0 not known yet
    for value, on in zip(values.unbind(1), counted.unbind(1), strict=True):
        # A hand that is down starts anew.
        high, low = torch.where(on, torch.maximum(high, value), value), torch.where(on, torch.minimum(low, value), value)
        sense = torch.where(on, sense, torch.zeros_like(sense))
        fell, rose = (high - value >= least) & (sense >= 0), (value - low >= least) & (sense <= 0)
        count += ((fell & (sense > 0)) | (rose & (sense < 0))).float()
        sense = torch.where(fell, -1.0, torch.where(rose, 1.0, sense))
        high, low = torch.where(fell, value, high), torch.where(rose, value, low)
        high, low = torch.where(rose, value, high), torch.where(fell, value, low)
    return count
