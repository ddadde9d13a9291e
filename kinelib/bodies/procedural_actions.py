"""Things done on the spot: squatting, jumping, kicking, sitting down and bowing, as scores for `procedural_pose`.

Each starts from a standing score and moves pelvis, spine, arms and feet along minimum-jerk curves. A jump is a parabola
between take-off and landing, with the speed that its height asks for on either side of it.

Shapes: one clip; T frames; metres, radians, seconds; float64 numpy.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from kinelib.bodies.procedural_gaits import STANDING, Style, standing
from kinelib.bodies.procedural_pose import Controls
from kinelib.bodies.procedural_steps import ANKLE, TOE, Array, ease, plateau

GRAVITY = 9.81
ON_THE_SPOT = {"travel": "none", "speed": 0.0, "turn_degrees": 0.0, "steps": 0}


def squat(times: Array, style: Style, rng) -> tuple[Controls, dict]:
    """One to three squats, arms stretched forwards or hanging."""
    seconds = times[-1]
    score = standing(times, style, rng, width=rng.uniform(0.12, 0.16))
    depth = rng.uniform(0.28, 0.50) * min(style.reach, 1.0)
    down = rng.uniform(0.6, 0.9) / style.tempo**0.5
    hold = rng.uniform(0.1, 0.4)
    count = int(np.clip((seconds - 0.2) // (2 * down + hold + 0.15), 1, 3))
    down = min(down, (seconds - 0.4 - hold * count) / (2 * count + 0.2 * (count - 1)))
    share, start = np.zeros_like(times), rng.uniform(0.1, 0.25)
    for _ in range(count):
        share = share + plateau(times, start, start + down, start + down + hold, start + 2 * down + hold)
        start += 2 * down + hold + 0.15 * down
    deep = share * depth / 0.5
    _sink(score, share * depth, back=0.20 * deep, pitch=0.45 * deep, bend=0.30 * deep)
    forward = rng.random() < 0.7
    _hold_arms(score, share, [rng.uniform(1.2, 1.55), 0.1, -0.1, 0.15] if forward else [0.5 * depth / 0.5, 0.2, -0.1, 0.25])
    arms = {side: {"action": "reach forward" if forward else "hang"} for side in ("left_arm", "right_arm")}
    legs = {side: {"action": "bend", "times": count} for side in ("left_leg", "right_leg")}
    return score, ON_THE_SPOT | arms | legs | {"depth": float(depth), "times": count}


def sit_down(times: Array, style: Style, rng) -> tuple[Controls, dict]:
    """Sitting down on a seat that is not drawn, hands on the thighs at the end."""
    seconds = times[-1]
    score = standing(times, style, rng, width=rng.uniform(0.10, 0.14))
    start = rng.uniform(0.1, 0.2 * seconds)
    took = float(np.clip(rng.uniform(1.1, 1.6) / style.tempo, 0.9, 0.65 * seconds))
    share = ease(times, start, start + took)
    seat = rng.uniform(0.46, 0.54)
    lean = plateau(times, start - 0.1, start + 0.55 * took, start + 0.6 * took, start + 1.25 * took)
    drop = (STANDING - style.crouch - seat) * share
    # The hips go back first, then down.
    back = rng.uniform(0.33, 0.38) * ease(times, start - 0.05, start + 0.85 * took)
    _sink(score, drop, back=back, pitch=0.45 * lean - 0.12 * share, bend=0.35 * lean + 0.05 * share)
    _hold_arms(score, share, [rng.uniform(0.35, 0.5), 0.12, -0.15, rng.uniform(0.9, 1.1)])
    rest = {side: {"action": "rest on the thighs"} for side in ("left_arm", "right_arm")}
    legs = {side: {"action": "bend"} for side in ("left_leg", "right_leg")}
    return score, ON_THE_SPOT | rest | legs | {"seat": float(seat), "start": float(start), "end": float(start + took)}


def bow(times: Array, style: Style, rng) -> tuple[Controls, dict]:
    """A bow from the hips, and up again."""
    seconds = times[-1]
    score = standing(times, style, rng, width=rng.uniform(0.07, 0.10))
    depth = rng.uniform(0.65, 1.15) * min(style.reach, 1.0)
    took = float(np.clip(rng.uniform(0.7, 1.1) / style.tempo, 0.6, 0.35 * seconds))
    start = rng.uniform(0.1, 0.2)
    down = min(start + took + rng.uniform(0.2, 0.9), seconds - took - 0.1)
    share = plateau(times, start, start + took, max(down, start + took), max(down, start + took) + took)
    _sink(score, 0.02 * share, back=0.10 * depth * share, pitch=0.55 * depth * share, bend=0.45 * depth * share)
    score.head[:, 1] += 0.25 * share + 0.5 * depth * share  # unlike in a squat the eyes go down too
    arms = [0.75 * depth, 0.1, -0.2, 0.2]
    _hold_arms(score, share, arms)
    return score, ON_THE_SPOT | {"torso": {"action": "bow", "degrees": float(np.degrees(depth))}}


def jump(times: Array, style: Style, rng) -> tuple[Controls, dict]:
    """One or two jumps upwards, both feet together."""
    seconds = times[-1]
    score = standing(times, style, rng, width=rng.uniform(0.09, 0.13))
    height = rng.uniform(0.18, 0.42) * style.tempo**0.5
    crouch, rising, absorb = rng.uniform(0.18, 0.28), 0.24, rng.uniform(0.20, 0.26)
    speed = np.sqrt(2 * GRAVITY * height)
    flight = 2 * speed / GRAVITY
    low, high = STANDING - style.crouch - crouch, STANDING + 0.05  # take-off is from the toes
    once = 0.45 + rising + flight + absorb + 0.6
    count = 2 if seconds > 2 * once + 0.3 and rng.random() < 0.5 else 1
    start = rng.uniform(0.1, max(seconds - count * once, 0.12))
    knots, values, slopes = [-9.0], [STANDING - style.crouch], [0.0]
    air, tuck, fall = np.zeros_like(times), np.zeros_like(times), np.zeros_like(times)
    bent, rise = np.zeros_like(times), np.zeros_like(times)
    for _ in range(count):
        off = start + 0.45 + rising
        land = off + flight
        knots += [start, start + 0.45, off, land, land + absorb, land + absorb + 0.5]
        values += [STANDING - style.crouch, low, high, high, low + 0.05, STANDING - style.crouch]
        slopes += [0.0, 0.0, speed, -speed, 0.0, 0.0]
        t = np.clip(times - off, 0, flight)
        air = air + speed * t - GRAVITY * t * t / 2
        # The heels rise before the feet leave; in the air the legs are drawn up a little; toes first at landing.
        tuck = tuck + 0.06 * plateau(times, off, off + 0.4 * flight, off + 0.6 * flight, land)
        fall = fall + plateau(times, off - 0.12, off, land, land + 0.10)
        bent = bent + plateau(times, start, start + 0.45, start + 0.5, off + 0.05)
        bent = bent + 0.8 * plateau(times, land - 0.05, land + absorb, land + absorb, land + absorb + 0.5)
        rise = rise + plateau(times, start + 0.4, off + 0.1, off + 0.5 * flight, land + 0.2)
        start += once
    curve = CubicHermiteSpline([*knots, 99.0], [*values, STANDING - style.crouch], [*slopes, 0.0])(times)
    score.pelvis[:, 1] = np.where(air > 0, high + air, curve)
    lag = crouch / 0.5 * bent
    _sink(score, 0 * bent, back=0.18 * lag, pitch=0.5 * lag, bend=0.45 * lag)
    point = 0.55 * fall  # heels up
    score.pitch += point[:, None]
    lift = -(np.cos(point) * TOE[1] - np.sin(point) * TOE[2]) + TOE[1]
    ahead = TOE[2] - (np.sin(point) * TOE[1] + np.cos(point) * TOE[2])
    score.ankles[:, :, 1] = ANKLE + (lift + air + tuck * (air > 0))[:, None]
    score.ankles[:, :, 0] += ahead[:, None] * np.sin(score.yaw)
    score.ankles[:, :, 2] += ahead[:, None] * np.cos(score.yaw)
    score.planted &= (air <= 0)[:, None]
    score.arms[:, :, 0] += (-0.6 * bent + rng.uniform(0.5, 1.2) * rise)[:, None]
    score.arms[:, :, 3] += 0.5 * np.maximum(bent, rise)[:, None]
    legs = {side: {"action": "jump", "times": count} for side in ("left_leg", "right_leg")}
    return score, ON_THE_SPOT | legs | {"height": float(height), "times": count}


def kick(times: Array, style: Style, rng, side: int) -> tuple[Controls, dict]:
    """One or two kicks forwards with the left foot (side 0) or the right one (side 1)."""
    seconds = times[-1]
    width = rng.uniform(0.08, 0.11)
    score = standing(times, style, rng, width=width)
    sense = 1.0 if side == 0 else -1.0
    height = rng.uniform(0.35, 0.85) * style.reach
    once = float(np.clip(rng.uniform(1.5, 1.9) / style.tempo, 1.3, seconds - 0.2))
    count = 2 if seconds > 2 * once + 0.2 and rng.random() < 0.5 else 1
    start = rng.uniform(0.05, max(seconds - count * once, 0.06))
    shift, away, back, front = (np.zeros_like(times) for _ in range(4))
    for _ in range(count):
        part = start + once * np.array([0.0, 0.22, 0.45, 0.60, 0.66, 0.90, 1.0])
        shift = shift + plateau(times, part[0] - 0.1, part[1], part[5], part[6] + 0.1)
        away = away + plateau(times, part[1] - 0.05, part[1] + 0.15, part[5] - 0.15, part[5])
        back = back + plateau(times, part[1] - 0.05, part[2], part[2], part[3])
        front = front + plateau(times, part[2], part[3], part[4], part[5])
        start += once
    x = sense * width
    score.pelvis[:, 0] -= 0.9 * x * shift  # over the standing leg
    score.pelvis[:, 1] -= 0.025 * shift + 0.01 * front
    score.pelvis[:, 2] -= 0.03 * front
    forward = np.sqrt(max(0.78**2 - (0.86 - ANKLE - height) ** 2, 0.1)) * rng.uniform(0.92, 1.0)
    score.ankles[:, side, 0] -= 0.3 * x * front
    score.ankles[:, side, 1] += 0.06 * away + 0.16 * back * (1 - front) + (height - 0.06) * front
    score.ankles[:, side, 2] += -0.32 * back * (1 - front) + (forward - 0.03) * front
    score.pitch[:, side] += 0.5 * back * (1 - front) - 0.35 * front
    score.planted[:, side] &= away + back + front < 1e-4
    # The pelvis tips back and turns with the leg, the arm of the other side comes forwards.
    score.turn[:, 0] -= sense * (0.18 * front - 0.12 * back)
    score.turn[:, 1] -= 0.16 * front
    score.spine[:, 1] += 0.22 * front
    score.spine[:, 0] += sense * 0.2 * front
    score.arms[:, 1 - side, 0] += 0.7 * front - 0.3 * back
    score.arms[:, side, 0] += -0.5 * front + 0.3 * back
    score.arms[:, :, 1] += 0.25 * shift[:, None]
    score.arms[:, :, 3] += 0.4 * shift[:, None]
    name, other = ("left_leg", "right_leg") if side == 0 else ("right_leg", "left_leg")
    legs = {name: {"action": "kick", "times": count, "height": float(height)}, other: {"action": "stand"}}
    return score, ON_THE_SPOT | legs | {"times": count}


def _sink(score: Controls, drop: Array, back: Array, pitch: Array, bend: Array) -> None:
    """Lowers the pelvis, moves it back and bends the body forwards at hips and spine, the eyes staying ahead."""
    score.pelvis[:, 1] -= drop
    score.pelvis[:, 2] -= back
    score.turn[:, 1] += pitch
    score.spine[:, 1] += bend
    score.head[:, 1] -= 0.7 * (pitch + bend)


def _hold_arms(score: Controls, share: Array, pose: list[float]) -> None:
    score.arms += share[:, None, None] * (np.asarray(pose) - score.arms)
