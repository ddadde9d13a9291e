"""Where feet stand: the body's path over the floor, a schedule of steps, and the track of each foot that follows from both.

A foot stands at its home under the hip, at the place and heading the path has in the middle of the stance; between two
stances it swings along a minimum-jerk curve (Flash and Hogan, 1985, "The coordination of arm movements"). So a standing
foot does not move at all, whatever the body does, and the legs are solved afterwards (`procedural_pose`). The foot rolls:
it lands on the heel (toes up) and leaves over the toe, which stays where it is while the heel rises.

The papers learn from captured motion; procedural clips are our addition, the place where the truth of a caption is known.

Shapes: one clip; T frames, feet (left, right); metres, radians, seconds; float64 numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
EVER = 99.0  # seconds: longer than any clip
GRID = 1 / 50  # seconds between the points of a path
MARGIN = 2.5  # seconds a path goes on before and after the clip, for feet whose stance reaches over its ends
ANKLE = 0.07  # height of the ankle of a flat foot, metres (SMPLX22 at rest)
TOE = np.array([0.0, -0.06, 0.13])  # from the ankle to the ball of the foot, about which the heel rises
HEEL = np.array([0.0, -0.07, -0.04])  # from the ankle to the heel, about which the toes rise


def ease(times: Array, start: float, stop: float) -> Array:
    """Minimum-jerk passage from 0 at `start` to 1 at `stop` seconds: speed and acceleration vanish at both ends."""
    u = np.clip((times - start) / np.maximum(stop - start, 1e-9), 0, 1)
    return u * u * u * (10 + u * (6 * u - 15))


def plateau(times: Array, up: float, top: float, down: float, over: float) -> Array:
    """0, then 1 from `top` to `down`, then 0 again after `over` seconds, with minimum-jerk flanks."""
    return ease(times, up, top) - ease(times, down, over)


@dataclass(frozen=True)
class Path:
    """The way of a body over the floor, known at times on a grid that reaches beyond the clip.

    Args:
        times: (N,) seconds.
        x, z: (N,) metres.
        heading: (N,) radians, 0 along +z, growing towards +x, that is to the body's left.
    """

    times: Array
    x: Array
    z: Array
    heading: Array

    def at(self, times: Array) -> tuple[Array, Array, Array]:
        """x, z and heading at any times."""
        return tuple(np.interp(times, self.times, values) for values in (self.x, self.z, self.heading))


def grid(seconds: float) -> Array:
    """The times (N,) of a path for a clip of so many seconds."""
    return np.arange(-MARGIN, seconds + MARGIN + GRID, GRID)


def travel(times: Array, forward: Array | float, left: Array | float, heading: Array | float) -> Path:
    """The path of a body with given speeds (m/s) along and across its heading (radians); at the origin at time 0."""
    heading = np.broadcast_to(np.asarray(heading, float), times.shape)
    speed_x = forward * np.sin(heading) + left * np.cos(heading)
    speed_z = forward * np.cos(heading) - left * np.sin(heading)
    x, z = (np.concatenate([[0], np.cumsum((s[1:] + s[:-1]) / 2 * GRID)]) for s in (speed_x, speed_z))
    return Path(times, x - np.interp(0, times, x), z - np.interp(0, times, z), heading)


@dataclass(frozen=True)
class Gait:
    """How steps are made.

    Args:
        period: seconds of one stride, that is of two steps.
        duty: share of the stride that a foot stands; below 0.5 is a run.
        lift: height in metres of the ankle in mid-swing.
        width: half the distance between the feet, metres.
        strike: how far the toes point up at landing, radians.
        push: how far the heel has turned up when the foot leaves, radians.
        curl: how far the toes hang down in mid-swing, radians.
        centre: where in the stance, 0 to 1, the body passes over the foot.
        arch: shape of the swing's height, a parabola to this power; the smaller, the sooner the foot is off the floor.
    """

    period: float = 1.1
    duty: float = 0.62
    lift: float = 0.10
    width: float = 0.10
    strike: float = 0.25
    push: float = 0.55
    curl: float = 0.3
    centre: float = 0.45
    arch: float = 2.0


@dataclass(frozen=True)
class Steps:
    """Swings of the two feet, by time.

    Args:
        lifts, lands: per foot (left, right), (n,) seconds, in order.
        beats: (m,) landing times of both feet, in order.
        first: which foot the first beat belongs to, 0 left, 1 right.
    """

    lifts: tuple[Array, Array]
    lands: tuple[Array, Array]
    beats: Array
    first: int

    def phase(self, times: Array) -> Array:
        """Strides done (T,): whole numbers are landings of the left foot, halves are landings of the right one."""
        if len(self.beats) < 2:
            return np.zeros_like(times)
        count = np.arange(len(self.beats)) / 2 + self.first / 2
        return np.interp(times, self.beats, count)


def schedule(gait: Gait, start: float, stop: float, first: int) -> Steps:
    """Steps of alternating feet, the first swing beginning at `start`, the last ending by `stop` seconds.

    Args:
        gait: period and duty factor.
        start, stop: seconds; before and after, both feet stand.
        first: the foot that swings first, 0 left, 1 right.
    """
    swing = (1 - gait.duty) * gait.period
    count = max(int((stop - start - swing) / (gait.period / 2) + 1e-6) + 1, 0)
    lifts = start + np.arange(count) * gait.period / 2
    # Whose foot: even swings are the first foot's.
    mine = [lifts[(side != first) :: 2] for side in (0, 1)]
    return Steps((mine[0], mine[1]), (mine[0] + swing, mine[1] + swing), lifts + swing, first)


def still() -> Steps:
    """No steps: both feet stand for ever."""
    none = np.zeros(0)
    return Steps((none, none), (none, none), none, 0)


@dataclass(frozen=True)
class Feet:
    """Tracks of both feet.

    Args:
        ankles: (T, 2, 3) metres.
        yaw: (T, 2) radians, heading of the feet.
        pitch: (T, 2) radians, positive with the toes down.
        planted: (T, 2) bool: the foot stands.
    """

    ankles: Array
    yaw: Array
    pitch: Array
    planted: Array


def feet(times: Array, path: Path, steps: Steps, gait: Gait, splay: float = 0.12) -> Feet:
    """Tracks of both feet along a path.

    Args:
        times: (T,) seconds of the frames.
        path: where the body goes.
        steps: when the feet swing.
        gait: how they do.
        splay: radians by which the toes point outwards.
    """
    tracks = [_foot(times, path, steps.lifts[side], steps.lands[side], gait, side, splay) for side in (0, 1)]
    return Feet(*(np.stack(values, axis=1) for values in zip(*tracks, strict=True)))


def _foot(times: Array, path: Path, lifts: Array, lands: Array, gait: Gait, side: int, splay: float):
    sense = 1.0 if side == 0 else -1.0
    # Stance i lies between landing i - 1 and lift i; the first began long ago, the last goes on for ever.
    began = np.concatenate([[-EVER], lands])
    ends = np.concatenate([lifts, [EVER]])
    centre = began + gait.centre * (ends - began)
    if len(lifts):
        centre[0], centre[-1] = path.times[0], path.times[-1]
    x, z, heading = path.at(centre)
    x, z = x + sense * gait.width * np.cos(heading), z - sense * gait.width * np.sin(heading)
    yaw = heading + sense * splay

    index = np.searchsorted(lifts, times, side="right")  # stance before or at this frame's swing
    before = np.maximum(index - 1, 0)
    swinging = index > 0
    u = np.zeros_like(times)
    if len(lifts):
        u = np.where(swinging, (times - lifts[before]) / (lands[before] - lifts[before]), 0.0)
    in_swing = swinging & (u < 1)
    share = np.where(swinging, ease(u, 0, 1), 1.0)
    mix = lambda values: np.where(
        swinging, values[before] + share * (values[np.minimum(before + 1, len(values) - 1)] - values[before]), values[0]
    )
    # Roll: toes up just after landing, heel up before leaving, in between flat.
    since, left = times - began[index], ends[index] - times
    stance = np.minimum(ends[index] - began[index], 3.0)
    strike = -gait.strike * (1 - ease(since, 0, 0.16 * stance))
    push = gait.push * (1 - ease(left, 0, 0.42 * stance))
    v = np.clip(u, 0, 1)
    air = gait.push + (-gait.strike - gait.push) * ease(v, 0, 1) + gait.curl * 6.75 * v * (1 - v) ** 2
    pitch = np.where(in_swing, air, strike + push)
    height = np.where(in_swing, gait.lift * (4 * v * (1 - v)) ** gait.arch, 0.0)
    turned = mix(yaw)
    ankle = np.stack([mix(x), ANKLE + height, mix(z)], axis=-1) + _roll(pitch, turned)
    return ankle, turned, pitch, ~in_swing


def _roll(pitch: Array, yaw: Array) -> Array:
    """How far (T, 3) the ankle moves when the foot turns by `pitch` about its toe (heel up) or heel (toes up)."""
    pivot = np.where((pitch > 0)[:, None], TOE, HEEL)
    c, s = np.cos(pitch), np.sin(pitch)
    up = pivot[:, 1] - (c * pivot[:, 1] - s * pivot[:, 2])
    ahead = pivot[:, 2] - (s * pivot[:, 1] + c * pivot[:, 2])
    return np.stack([ahead * np.sin(yaw), up, ahead * np.cos(yaw)], axis=-1)
