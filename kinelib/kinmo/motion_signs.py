"""What clips show, in numbers that words are chosen by: `Signs`, measured for many clips at once.

Geometric facts that `kinelib.bodies.truth_measures` knows already are taken from there; here is added what words need
beyond: start, end and extremes of every joint's bend and of every hand's height, steps, swings and their coupling, distances
between parts of the body and how they change. No section of the paper: KinMo asks a language model (assumption A12).

Left and right are measured by the same operations, and what has a sense is positive to the left; the signs of a mirrored
clip are therefore those of the clip with sides exchanged and senses reversed, to the last bit.

Shapes: B clips of T frames, 2 sides (left, right); metres, degrees, seconds, in the scale of `pose_words`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from kinelib.bodies.skeleton import Skeleton
from kinelib.bodies.truth_measures import Facts, measure_positions
from kinelib.kinmo.pose_words import DEFAULT, Limits, Parts, signals

Two = tuple[float, float]  # left, right
DETREND = 1.2  # seconds; slower movement than this is no swing


@dataclass(frozen=True)
class Course:
    """How one number goes through a clip; lists of (left, right) where there are sides."""

    first: float | Two
    last: float | Two
    low: float | Two
    high: float | Two
    mean: float | Two


@dataclass(frozen=True)
class Signs:
    """Everything known of one clip."""

    facts: Facts
    height: Course  # of the wrists over their shoulders
    ahead: Two  # of the wrists from their shoulders when they are highest
    outward: Two  # the same outward
    swings: Two  # turns of the hands' swing along the heading
    swing: Two  # size of that swing
    thrusts: Two  # turns of it while the hand is up
    thrust: Two  # its size while the hand is up
    wave: Two  # size of the swing outward and inward while the hand is up
    hand_speed: Two  # m/s of the hands against the chest, mean
    elbow: Course
    shoulder: Course
    knee: Course
    hip: Course
    foot: Course  # height over the floor
    steps: Two  # how many
    stride: Two  # the longest of them, metres; 0 without steps
    kicks: Two  # how many
    jumps: float  # how many
    sinks: float  # how often the pelvis goes down
    drop: Course  # of the pelvis below its height when standing
    tilt: Course
    sway: Course
    nod: Course
    nods: float  # turns of a nodding head
    to_head: Course  # wrists
    hands: Course  # wrist to wrist
    to_thigh: Course  # wrists to the thighs of their own side
    to_other_thigh: Course
    to_foot: Course  # head to ankles
    arms_together: float  # correlation of the hands' swings
    legs_together: float  # of the ankles'
    same_side: Two  # of every hand's swing with that of the ankle of its side
    crosswise: Two  # with that of the other ankle
    rising: float  # of the heights of the two hands


def measure_signs(
    positions: Tensor, lengths: Tensor, fps: float, skeleton: Skeleton, limits: Limits = DEFAULT
) -> list[Signs]:
    """Measures clips given as joint positions.

    Args:
        positions: (B, T, J, 3) metres; frames from `lengths` on repeat the last pose.
        lengths: (B,) at least 3.
        fps: frames a second.
        skeleton: whose joints these are.
        limits: of what counts as a step or a swing.
    """
    raw = signals(positions, lengths, fps, skeleton)
    found = signals(smoothed(positions, lengths, limits.smooth * fps), lengths, fps, skeleton)
    facts = measure_positions(raw.positions, lengths, fps, skeleton)
    valid = torch.arange(positions.shape[1]) < lengths[:, None]
    course = lambda values: _course(values, valid, max(1, round(limits.ends * fps)), lengths)
    height = found.wrist[..., 1]
    top = torch.where(valid[..., None], height, -torch.inf).argmax(1, keepdim=True)  # (B, 1, 2)
    when_high = lambda axis: found.wrist[..., axis].gather(1, top)[:, 0]
    # Swings: what is quicker than the window along the heading, of hands and ankles.
    quick = lambda values: (values - smoothed(values, lengths, DETREND * fps)) * valid[..., None]
    hand, ankle, rise = quick(found.wrist[..., 0]), quick(found.ankle[..., 0]), quick(height)
    up = valid[..., None] & (height > limits.hand_heights[1])
    size = lambda values, when: ((values.square() * when).sum(1) / when.sum(1).clamp_min(1)).sqrt() * 2**0.5
    nod = quick(found.nod[..., None])
    pace = torch.tensor([fact.speed for fact in facts])
    steps, stride = _steps(smoothed(raw.positions, lengths, 0.1 * fps), fps, pace, Parts.of(skeleton), valid, limits)
    standing = torch.nanquantile(torch.where(valid, found.pelvis[..., 1], torch.nan), 0.8, dim=1, keepdim=True)
    drop = standing - found.pelvis[..., 1]
    deepest = torch.where(valid, drop, -torch.inf).amax(1, keepdim=True)
    kicked = (raw.knee < 60) & (raw.ankle[..., 0] > 0.25) & (raw.foot > 0.2) & valid[..., None]
    airborne = (raw.foot.amin(-1) > 0.06) & valid
    speed = (found.wrist[:, 1:] - found.wrist[:, :-1]).norm(dim=-1).sum(1) / lengths[:, None] * fps
    columns = {
        "height": course(height),
        "ahead": when_high(0),
        "outward": when_high(2),
        "swings": turns(hand, limits.swing),
        "swing": size(hand, valid[..., None].expand_as(hand)),
        "thrusts": turns(hand * up, limits.swing),
        "thrust": size(hand, up),
        "wave": size(quick(found.wrist[..., 2]), up),
        "hand_speed": speed,
        "elbow": course(found.elbow),
        "shoulder": course(found.shoulder),
        "knee": course(found.knee),
        "hip": course(found.hip),
        "foot": course(found.foot),
        "steps": steps,
        "stride": stride,
        "kicks": starts(kicked),
        "jumps": starts(airborne[..., None])[..., 0],
        "sinks": starts(((drop > 0.6 * deepest) & valid)[..., None])[..., 0],
        "drop": course(drop),
        "tilt": course(found.tilt),
        "sway": course(found.sway),
        "nod": course(found.nod),
        "nods": turns(nod, limits.nods)[..., 0],
        "to_head": course(found.to_head),
        "hands": course(found.hands),
        "to_thigh": course(found.to_thigh.diagonal(dim1=-2, dim2=-1)),
        "to_other_thigh": course(found.to_thigh.flip(-1).diagonal(dim1=-2, dim2=-1)),
        "to_foot": course(found.to_foot),
        "arms_together": correlation(hand[..., 0], hand[..., 1]),
        "legs_together": correlation(ankle[..., 0], ankle[..., 1]),
        "same_side": correlation(hand, ankle),
        "crosswise": correlation(hand, ankle.flip(-1)),
        "rising": correlation(rise[..., 0], rise[..., 1]),
    }
    rows = [_rows(columns[field.name], len(facts)) for field in fields(Signs)[1:]]
    return [Signs(fact, *values) for fact, values in zip(facts, zip(*rows, strict=True), strict=True)]


def smoothed(values: Tensor, lengths: Tensor, frames: float) -> Tensor:
    """Averages (B, T, ...) over a centred window of about `frames`, an odd number; ends held, padding kept."""
    half = round(frames / 2)
    if not half:
        return values
    flat = values.flatten(2)
    around = torch.cat([flat[:, :1].expand(-1, half, -1), flat, flat[:, -1:].expand(-1, half, -1)], 1)
    sums = functional.pad(around.cumsum(1, dtype=torch.float64), (0, 0, 1, 0))
    mean = ((sums[:, 2 * half + 1 :] - sums[:, : -2 * half - 1]) / (2 * half + 1)).to(values)
    hold = torch.minimum(torch.arange(values.shape[1]), lengths[:, None] - 1)[..., None]
    return mean.gather(1, hold.expand_as(mean)).reshape(values.shape)


def turns(values: Tensor, least: float) -> Tensor:
    """How often (B, S) signals (B, T, S) about zero pass from beyond `least` on one side to beyond it on the other."""
    side = (values > least).long() - (values < -least).long()
    frames = torch.arange(values.shape[1])[:, None]
    latest = torch.where(side != 0, frames, 0).cummax(1).values  # where the signal last was beyond
    side = side.gather(1, latest)
    return ((side[:, 1:] * side[:, :-1]) < 0).sum(1)


def starts(mask: Tensor) -> Tensor:
    """How many stretches of True (B, S) there are in (B, T, S)."""
    return (mask[:, 1:] & ~mask[:, :-1]).sum(1) + mask[:, 0].long()


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of signals (B, T, ...) about zero, over time, in [-1, 1]; 0 for signals that rest."""
    return (a * b).sum(1) / ((a.square().sum(1) * b.square().sum(1)).sqrt() + 1e-6)


def _steps(
    positions: Tensor, fps: float, pace: Tensor, parts: Parts, valid: Tensor, limits: Limits
) -> tuple[Tensor, Tensor]:
    """Numbers (B, 2) and greatest lengths (B, 2) of steps: stretches in which an ankle goes along the floor."""
    place = positions[:, :, [leg[2] for leg in parts.legs]][..., [0, 2]]
    far = functional.pad((place[:, 1:] - place[:, :-1]).norm(dim=-1), (0, 0, 1, 0)) * valid[..., None]
    least = (limits.stepping[1] * pace).clamp_min(limits.stepping[0])[:, None, None]
    going = (far * fps > least) & valid[..., None]
    along = (far * going).cumsum(1)
    begins = going & ~functional.pad(going[:, :-1], (0, 0, 1, 0))
    ends = going & ~functional.pad(going[:, 1:], (0, 0, 0, 1))
    frames = torch.arange(far.shape[1])[:, None]
    began = torch.where(begins, frames, 0).cummax(1).values
    length = (along - along.gather(1, began)) * ends
    counted = length > limits.step
    return counted.sum(1), (length * counted).amax(1)


def _course(values: Tensor, valid: Tensor, ends: int, lengths: Tensor) -> Course:
    mask = valid.reshape(*valid.shape, *[1] * (values.ndim - 2))
    rows = torch.arange(len(values))
    index = (lengths[:, None] - 1 - torch.arange(ends)).clamp_min(0)
    return Course(
        values[:, :ends].mean(1),
        values[rows[:, None], index].mean(1),
        torch.where(mask, values, torch.inf).amin(1),
        torch.where(mask, values, -torch.inf).amax(1),
        (values * mask).sum(1) / lengths.reshape(-1, *[1] * (values.ndim - 2)),
    )


def _rows(column: Tensor | Course, count: int) -> list:
    """One clip's share of a column a row, as floats, tuples of two floats, or courses of these."""
    plain = lambda values: [tuple(value) if isinstance(value, list) else value for value in values.tolist()]
    if isinstance(column, Tensor):
        return plain(column)
    parts = [plain(getattr(column, field.name)) for field in fields(Course)]
    return [Course(*(part[row] for part in parts)) for row in range(count)]
