"""Going places: standing, walking in four directions, running and turning, as scores for the body of `procedural_pose`.

Timing and posture follow what is known of human gait (Winter, 2009, "Biomechanics and Motor Control of Human Movement"):
the pelvis is highest over the standing foot and leans towards it, turns with the leg that swings forward while the chest
turns against it, arms swing against the legs, and steps get longer and quicker with speed. A `Style` bends all of this.

Shapes: one clip; T frames; metres, radians, seconds; float64 numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kinelib.bodies.procedural_pose import Controls
from kinelib.bodies.procedural_steps import Array, Gait, Path, Steps, ease, feet, grid, plateau, schedule, still, travel

STANDING = 0.935  # height of the pelvis of a person who stands relaxed, metres


@dataclass(frozen=True)
class Style:
    """How somebody moves.

    Args:
        name: the label.
        speed: factor on the speed of travel.
        tempo: factor on how quickly gestures are made.
        bend: forward bend of the spine, radians.
        head: the head's nod against the world, radians, downwards.
        swing: factor on the arms' swing.
        elbow: extra bend of the elbows, radians.
        crouch: how much lower the pelvis is, metres.
        bounce: factor on the pelvis' bob and sway.
        reach: factor on how far gestures go, at most 1.1.
    """

    name: str
    speed: float = 1.0
    tempo: float = 1.0
    bend: float = 0.04
    head: float = 0.05
    swing: float = 1.0
    elbow: float = 0.0
    crouch: float = 0.0
    bounce: float = 1.0
    reach: float = 1.0


STYLES = {
    style.name: style
    for style in (
        Style("normal"),
        Style("tired", 0.78, 0.8, bend=0.20, head=0.35, swing=0.55, crouch=0.02, bounce=1.1, reach=0.9),
        Style("old", 0.65, 0.7, bend=0.36, head=0.12, swing=0.5, elbow=0.3, crouch=0.05, bounce=0.8, reach=0.85),
        Style("active", 1.2, 1.25, bend=0.03, head=0.0, swing=1.35, elbow=0.3, bounce=1.3, reach=1.05),
        Style("proud", 1.0, 0.9, bend=-0.08, head=-0.12, swing=1.0, bounce=0.9),
        Style("childish", 0.95, 1.15, bend=0.0, head=-0.05, swing=1.7, elbow=0.1, crouch=0.01, bounce=1.7, reach=1.05),
    )
}


def body(
    times: Array, path: Path, steps: Steps, gait: Gait, style: Style, rng, *, speed: float = 0.0, run: bool = False
) -> Controls:
    """A body that follows a path with the given steps, arms swinging, and breathes where it stands.

    Args:
        times: (T,) seconds.
        path, steps, gait: of `procedural_steps`.
        style: how.
        rng: the generator that draws what no caption says.
        speed: m/s at full pace, from which the size of the swing follows.
        run: whether it runs.
    """
    track = feet(times, path, steps, gait)
    x, z, heading = path.at(times)
    going = _going(times, steps, gait)  # 0 standing, 1 in full stride
    beat = 2 * np.pi * steps.phase(times)
    # At a left landing (beat 0) the left foot is in front; the left stance is half over a quarter stride later.
    across = going * np.sin(beat) if not run else 0.3 * going * np.sin(beat)
    ahead = going * np.cos(beat)
    pace = min(abs(speed), 3.5)
    idle = _idle(times, rng)
    sway = 0.022 * style.bounce * across + 0.006 * idle[0]
    if run:
        bob = -0.045 * style.bounce * np.cos(2 * (beat - 2 * np.pi * gait.duty / 2)) * going
        low = 0.035 * going
    else:
        bob = -0.014 * style.bounce * min(pace + 0.3, 1.3) * np.cos(2 * beat) * going
        low = 0.022 * going
    pelvis = np.stack(
        [
            x + sway * np.cos(heading) + 0.005 * idle[1] * np.sin(heading),
            STANDING - style.crouch - low + bob + 0.001 * idle[2],
            z - sway * np.sin(heading) + 0.005 * idle[1] * np.cos(heading),
        ],
        axis=-1,
    )
    hips = 0.10 * min(pace, 1.5) * ahead
    lean = (0.10 + 0.03 * pace if run else 0.02 * pace) * going
    turn = np.stack([heading - hips, 0.3 * (style.bend + lean), -0.05 * across], axis=-1)
    bend = 0.7 * (style.bend + lean)
    spine = np.stack([1.9 * hips, bend + 0.004 * idle[2], 0.03 * across], axis=-1)
    nod = style.head - style.bend - lean
    head = np.stack([-0.9 * hips + 0.05 * idle[1], nod + 0.02 * idle[0], 0.02 * idle[2]], axis=-1)

    size = style.swing * (0.45 + 0.05 * pace if run else 0.12 + 0.24 * min(pace, 1.6))
    elbow = (1.45 if run else 0.22 + 0.12 * min(pace, 1.6)) * going + 0.2 * (1 - going) + style.elbow * (0.3 if run else 1.0)
    arms = np.empty((len(times), 2, 4))
    for side, sense in ((0, 1.0), (1, -1.0)):
        swing = -sense * size * ahead
        arms[:, side, 0] = swing + 0.05 * going - bend * 0.5 + 0.02 * idle[side]
        arms[:, side, 1] = 0.14 + 0.1 * going * run
        arms[:, side, 2] = -0.2
        arms[:, side, 3] = np.clip(elbow + 0.35 * swing * (1 - 0.5 * run) + 0.03 * idle[1], 0.08, 2.4)
    return Controls(pelvis, turn, spine, head, arms, track.ankles, track.yaw, track.pitch, track.planted)


def _going(times: Array, steps: Steps, gait: Gait) -> Array:
    if not len(steps.beats):
        return np.zeros_like(times)
    swing = (1 - gait.duty) * gait.period
    start, stop = steps.beats[0] - swing, steps.beats[-1]
    return plateau(times, start, start + 0.5 * gait.period, stop - 0.3 * gait.period, stop + 0.2 * gait.period)


def _idle(times: Array, rng) -> Array:
    """Three slow wanderings (3, T) in about [-1, 1]: breathing and balance."""
    rates, offsets = rng.uniform(0.15, 0.45, (3, 2, 1)), rng.uniform(0, 2 * np.pi, (3, 2, 1))
    return np.sin(2 * np.pi * rates * times + offsets).mean(1)


def standing(times: Array, style: Style, rng, width: float | None = None) -> Controls:
    """A body that stands where it is."""
    gait = Gait(width=width if width is not None else rng.uniform(0.08, 0.13))
    path = travel(grid(times[-1]), 0.0, 0.0, 0.0)
    return body(times, path, still(), gait, style, rng)


def stand(times: Array, style: Style, rng) -> tuple[Controls, dict]:
    """Standing still for the whole clip."""
    return standing(times, style, rng), {"travel": "none", "speed": 0.0, "turn_degrees": 0.0, "steps": 0}


def turning(times: Array, style: Style, rng, sense: int) -> tuple[Controls, dict]:
    """Turning on the spot by 45 to 180 degrees, to the left for sense 1, to the right for -1."""
    seconds = times[-1]
    degrees = rng.uniform(45, 180)
    period = np.clip(rng.uniform(0.9, 1.2) / style.tempo, 0.75, 1.4)
    gait = Gait(
        period=period, duty=0.6, lift=0.07, width=rng.uniform(0.08, 0.12), strike=0.05, push=0.25, curl=0.15, centre=0.5
    )
    # About 40 degrees a step, as many steps as there is time for, both feet moved at least once.
    count = int(np.clip(np.ceil(degrees / 40) + 1, 2, (seconds - 0.3) / (period / 2)))
    length = (count - 1) * period / 2 + (1 - gait.duty) * period
    start = rng.uniform(0.1, max(seconds - length - 0.15, 0.12))
    steps = schedule(gait, start, start + length + 1e-3, 0 if sense > 0 else 1)
    times_of_path = grid(seconds)
    heading = sense * np.radians(degrees) * ease(times_of_path, start, start + length)
    path = travel(times_of_path, 0.0, 0.0, heading)
    score = body(times, path, steps, gait, style, rng, speed=0.3)
    score.head[:, 0] += np.clip(
        sense * np.radians(degrees) * ease(times, start - 0.15, start + length - 0.25) - path.at(times)[2], -0.6, 0.6
    )
    facts = {"travel": "none", "speed": 0.0, "turn_degrees": float(sense * degrees), "steps": len(steps.beats)}
    return score, facts


def walking(
    times: Array, style: Style, rng, direction: str = "forward", turn: int = 0, run: bool = False, whole: bool | None = None
) -> tuple[Controls, dict]:
    """Walking or running.

    Args:
        times, style, rng: as everywhere.
        direction: forward, backward, left or right, against the heading.
        turn: 1 turns left on the way, -1 right, 0 goes straight.
        run: run instead of walking.
        whole: walk from the first frame to the last; otherwise one start or stop may fall into the clip. None: drawn.
    """
    seconds = times[-1]
    low, high = {"forward": (0.75, 1.45), "backward": (0.5, 0.95)}.get(direction, (0.45, 0.8))
    speed = rng.uniform(2.2, 3.3) * style.speed**0.5 if run else rng.uniform(low, high) * style.speed
    speed = max(speed, 2.0) if run else np.clip(speed, 0.35, 1.5)
    aside = {"left": 1.0, "right": -1.0}.get(direction, 0.0)
    # Sideways is either across the heading or, as people do who keep an eye on where they go, diagonally forwards.
    angle = {"backward": np.pi}.get(direction, 0.0)
    if aside:
        angle = aside * (np.pi / 2 if rng.random() < 0.5 else rng.uniform(0.45, 0.9))
    sideways = abs(angle) == np.pi / 2
    speed *= 1.4 if aside and not sideways else 1.0
    width = rng.uniform(0.07, 0.10) + 0.02 * (style.name == "old")
    if run:
        gait = Gait(
            *(rng.uniform(0.66, 0.74), 0.36, rng.uniform(0.2, 0.3), 0.05),
            **{"strike": 0.1, "push": 0.7, "curl": 0.75, "centre": 0.42, "arch": 1.3},
        )
    elif sideways:
        gait = Gait(np.clip(0.55 / speed, 0.75, 1.1), 0.6, 0.08, 0.17, strike=0.0, push=0.2, curl=0.1, centre=0.5)
    elif direction == "backward":
        gait = Gait(1.05 / style.speed**0.3, 0.64, 0.09, width, strike=0.0, push=0.25, curl=0.25, centre=0.52)
    else:
        period = rng.uniform(0.98, 1.08) * (1.2 / speed) ** 0.4
        width = max(width, 0.12) if aside else width
        gait = Gait(period, 0.61, rng.uniform(0.07, 0.10), width, strike=0.28 * min(speed, 1.2), push=0.75 * min(speed, 1.1))
    if style.name in ("old", "tired"):
        gait = replace(gait, lift=0.7 * gait.lift)
    mode = "whole" if whole or run or seconds < 3 else rng.choice(["whole", "start", "stop"], p=[0.6, 0.2, 0.2])
    start = rng.uniform(0.3, 0.8) if mode == "start" else -1.3 - rng.uniform(0, gait.period)
    stop = seconds - rng.uniform(0.2, 0.6) if mode == "stop" else seconds + 2.0
    first = int(rng.integers(2)) if not aside else int(aside < 0)  # the foot on the side it goes to
    steps = schedule(gait, start, stop, first)
    stop = steps.beats[-1]
    clock = grid(seconds)
    pace = speed * plateau(clock, start, start + 0.7 * gait.period, stop - 0.75 * gait.period, stop - 0.05)
    degrees, heading = 0.0, rng.uniform(-0.05, 0.05) * clock / seconds
    if turn:
        degrees = rng.uniform(50, 130) if seconds > 2.6 else rng.uniform(50, 90)
        last = min(seconds, rng.uniform(1.1, 1.9) * degrees / 90 + 0.3)
        begin = rng.uniform(0, max(seconds - last, 0.01))
        heading = heading + turn * np.radians(degrees) * ease(clock, begin, begin + last)
        pace = pace * (1 - 0.3 * plateau(clock, begin - 0.3, begin + 0.3, begin + last - 0.3, begin + last + 0.3))
    ahead = np.cos(angle)
    path = travel(clock, ahead * pace, np.sin(angle) * pace, heading)
    score = body(times, path, steps, gait, style, rng, speed=speed * max(abs(ahead), 0.3) * np.sign(ahead + 1e-6), run=run)
    shown = (steps.beats > 0) & (steps.beats < seconds)
    facts = {"travel": direction, "speed": float(speed), "turn_degrees": float(turn * degrees), "steps": int(shown.sum())}
    return score, facts | {"gait": "run" if run else "walk", "path": str(mode), "degrees_left": float(np.degrees(angle))}
