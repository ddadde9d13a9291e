"""What hands do besides swinging: rise and be held up, or wave. Laid over the arms of any score.

An arm is four angles at shoulder and elbow (`procedural_pose`); a gesture is a pose of these, reached and left along a
minimum-jerk curve, and for a wave an oscillation on top while it is held.

Shapes: one clip; T frames; sides (left, right); radians, seconds; float64 numpy.
"""

from __future__ import annotations

import numpy as np

from kinelib.bodies.procedural_gaits import Style
from kinelib.bodies.procedural_pose import SIDES, Controls
from kinelib.bodies.procedural_steps import Array, plateau

HANDS = {"left": (0,), "right": (1,), "both": (0, 1)}


def raise_hands(score: Controls, times: Array, style: Style, rng, hands: str) -> dict:
    """Raises left, right or both hands, in place; returns what each arm does."""
    pose = _raised(rng, style)
    window = _window(times, style, rng, hold=rng.uniform(0.3, 1.2))
    return _gesture(score, times, window, dict.fromkeys(HANDS[hands], pose), rng, "raise")


def wave_hands(score: Controls, times: Array, style: Style, rng, hands: str) -> dict:
    """Waves left, right or both hands, in place; returns what each arm does."""
    window = _window(times, style, rng, hold=10.0, least=1.3)
    shown = min(window[2], times[-1]) - window[1]
    rate = max(np.clip(rng.uniform(1.2, 2.0) * style.tempo, 0.9, 2.4), 2.2 / shown)  # at least twice to and fro
    size = rng.uniform(0.35, 0.6) * style.reach
    if rng.random() < 0.65:  # the upper arm out to the side, the forearm up: it swings about the elbow
        pose = [rng.uniform(-0.2, 0.3), rng.uniform(1.2, 1.7) * style.reach, rng.uniform(1.35, 1.6), rng.uniform(1.15, 1.45)]
        moves = np.array([0.0, 0.18, 0.0, 0.95])
    else:  # the whole arm overhead
        pose = [rng.uniform(0.0, 0.25), rng.uniform(2.2, 2.45) * min(style.reach, 1), 1.0, rng.uniform(0.3, 0.6)]
        moves = np.array([0.0, 0.7, 0.0, 0.45])
    facts = _gesture(score, times, window, dict.fromkeys(HANDS[hands], pose), rng, "wave")
    up, top, down, over = window
    beat = np.sin(2 * np.pi * rate * (times - top)) * plateau(times, top - 0.15, top + 0.2, down - 0.2, down + 0.1)
    # Two hands wave as mirror images or in parallel.
    parallel = hands == "both" and rng.random() < 0.4
    for side in HANDS[hands]:
        sense = -1.0 if parallel and side == 1 else 1.0
        score.arms[:, side] += sense * size * beat[:, None] * moves
        facts[f"{SIDES[side]}_arm"] |= {"rate": float(rate), "times": round(float(rate * shown), 1)}
    return facts


def _raised(rng, style: Style) -> list[float]:
    way = rng.choice(["front", "side", "bent"])
    reach = min(style.reach, 1.0)
    if way == "front":
        return [rng.uniform(2.5, 3.0) * reach, rng.uniform(0.08, 0.3), 0.0, rng.uniform(0.08, 0.4)]
    if way == "side":
        return [rng.uniform(0.0, 0.2), rng.uniform(2.4, 2.85) * reach, rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.5)]
    return [rng.uniform(-0.1, 0.4), rng.uniform(1.2, 1.6) * reach, rng.uniform(1.2, 1.55), rng.uniform(1.2, 1.6)]


def _window(times: Array, style: Style, rng, hold: float, least: float = 0.5) -> tuple[float, float, float, float]:
    """When a gesture begins, has arrived, begins to end and is over; the hand may stay up at the end of a short clip."""
    seconds = times[-1]
    rise = np.clip(rng.uniform(0.5, 0.8) / style.tempo, 0.4, 0.3 * seconds)
    start = rng.uniform(0.05, 0.12 * seconds)
    top = start + rise
    down = min(top + hold, seconds - rise - 0.1)
    if down - top < least or rng.random() < 0.12:
        down = seconds + 1.0
    return start, top, down, down + rise


def _gesture(score: Controls, times: Array, window: tuple, poses: dict[int, list[float]], rng, action: str) -> dict:
    facts = {}
    for side, pose in poses.items():
        late = rng.uniform(0, 0.06) if len(poses) > 1 else 0.0
        up, top, down, over = (moment + late for moment in window)
        share = plateau(times, up, top, down, over)[:, None]
        own = np.asarray(pose) + rng.normal(0, 0.03, 4)
        own[3] = max(own[3], 0.05)
        score.arms[:, side] = (1 - share) * score.arms[:, side] + share * own
        end = min(over, times[-1])
        facts[f"{SIDES[side]}_arm"] = {
            "action": action,
            "start": float(up),
            "end": float(end),
            "held_until": float(min(down, times[-1])),
        }
    if len(poses) == 1:  # the body gives way a little to the other side, and the eyes follow the hand
        (side,) = poses
        share = plateau(times, *window)
        score.spine[:, 2] += (0.05 if side == 0 else -0.05) * share
        score.head[:, 0] += (0.1 if side == 0 else -0.1) * share
    return facts
