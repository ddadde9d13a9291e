"""Fifteen sentences a clip: what every pair of kinematic groups does together (KinMo, Equation 3 in words).

An interaction is a relative place, a relative movement and, where two groups are connected, the angle at the joint between
them; each pair has a short list of meanings and says the first that applies. Nothing depends on which side is meant but its
name; pairs of twins (both arms, both legs) name the one that does something first, so that a mirror exchanges the names.
"""

from __future__ import annotations

from kinelib.kinmo.groups import PAIRS, pair_key
from kinelib.kinmo.motion_signs import Signs
from kinelib.kinmo.motion_words import TRUTH, action, goes, is_raised, is_up, moves, on_thigh, swings, turning, waves
from kinelib.kinmo.pose_words import DEFAULT, SIDES, Limits

COUPLED = 0.45  # correlation from which on two swings belong together


def pair_sentences(signs: Signs, limits: Limits = DEFAULT) -> dict[str, str]:
    """The fifteen sentences, in the order of `PAIR_KEYS`.

    Args:
        signs: of one clip.
        limits: where one word ends and the next begins.
    """
    return {pair_key(g, h): f"{_of(g, h, signs, limits)}." for g, h in PAIRS}


def _of(g: str, h: str, signs: Signs, limits: Limits) -> str:
    (first, limb), (second, other) = _split(g), _split(h)
    if g == "torso":
        if h == "neck":
            return _torso_head(signs, limits)
        return (_torso_arm if other == "arm" else _torso_leg)(signs, SIDES.index(second), limits)
    if g == "neck":
        return (_head_arm if other == "arm" else _head_leg)(signs, SIDES.index(second), limits)
    if limb == other:
        return (_arms if limb == "arm" else _legs)(signs, limits)
    return _arm_leg(signs, SIDES.index(first), SIDES.index(second), limits)


def _split(group: str) -> tuple[str, str]:
    side, _, limb = group.partition("_")
    return side, limb


def _torso_head(signs: Signs, limits: Limits) -> str:
    bends = signs.tilt.high - min(signs.tilt.first, signs.tilt.mean) > limits.tips and signs.tilt.high > limits.lean[0]
    nods = signs.nod.high - signs.nod.first > limits.head_down
    if bends and nods:
        return "The head bends forward together with the torso"
    if bends:
        return "The torso bends forward while the head stays up"
    if nods or signs.nod.mean - max(signs.tilt.mean, 0) > limits.head_down:
        return "The head is bent forward against the torso"
    if signs.tilt.mean > limits.lean[0]:
        return "The head is carried in front of the torso, which is bent forward"
    if turning(signs, limits):
        return "The head turns with the torso and stays above it"
    return "The head stays straight above the torso"


def _angle(degrees: float) -> int:
    return 30 * max(1, round(degrees / 30))


def _torso_arm(signs: Signs, side: int, limits: Limits) -> str:
    name, open_to = SIDES[side], signs.shoulder.high[side]
    body = "moves" if goes(signs, limits) in ("walks", "runs") else "turns" if goes(signs, limits) else "stays in place"
    if is_raised(signs, side, limits):
        opened = f"is raised from the torso to an angle of about {_angle(open_to)} degrees"
        return f"The {name} arm {opened} while the torso {body}"
    if is_up(signs, side, limits):
        return f"The {name} arm is held away from the torso at an angle of about {_angle(open_to)} degrees"
    if swings(signs, side):
        return f"The {name} arm swings past the torso{' at every step' if goes(signs, limits) else ''}"
    if open_to > 40:
        return f"The {name} arm moves away from the torso to an angle of about {_angle(open_to)} degrees"
    return f"The {name} arm stays close to the torso"


def _torso_leg(signs: Signs, side: int, limits: Limits) -> str:
    name, doing, bend = SIDES[side], action(signs, limits), _angle(signs.hip.high[side])
    if doing == "jumps":
        return f"The {name} leg throws the torso up and catches it"
    if doing == "kicks" and signs.facts.kick[side] > TRUTH.kick:
        return f"The {name} leg is kicked out in front of the torso, bent at the hip by about {bend} degrees"
    if doing in ("squats", "sits", "sinks"):
        end = "and opens again" if doing == "squats" else "and stays folded"
        return f"The {name} hip folds to about {bend} degrees {end}"
    if signs.steps[side] and goes(signs, limits) in ("walks", "runs"):
        return f"The {name} leg swings ahead of and behind the torso"
    if goes(signs, limits) == "steps":
        return f"The {name} leg steps round as the torso turns"
    if signs.tilt.high > limits.lean[0] and signs.tilt.high - signs.tilt.first > limits.tips:
        return f"The torso bends over the {name} leg"
    return f"The {name} leg stays under the torso"


def _head_arm(signs: Signs, side: int, limits: Limits) -> str:
    name, near = SIDES[side], signs.to_head.low[side]
    top = signs.facts.hand_height[side]
    place = "above" if top > limits.hand_heights[3] else "beside" if top > limits.hand_heights[2] else "below"
    if waves(signs, side, limits):
        return f"The {name} hand waves {'near' if near < limits.near_head else place} the head"
    if near < limits.near_head:
        return f"The {name} hand comes near the head"
    if is_up(signs, side, limits):
        verb = "is raised" if is_raised(signs, side, limits) else "is held"
        return f"The {name} hand {verb} {place} the head"
    closer = signs.to_head.first[side] - near
    if closer > limits.apart and not swings(signs, side):
        return f"The {name} hand comes closer to the head and stays below it"
    return f"The {name} hand stays far below the head"


def _head_leg(signs: Signs, side: int, limits: Limits) -> str:
    name, doing = SIDES[side], action(signs, limits)
    closer = signs.to_foot.first[side] - signs.to_foot.low[side]
    if doing == "kicks" and signs.facts.kick[side] > TRUTH.kick:
        return f"The {name} foot is kicked up in front and stays below the head"
    if closer > limits.apart and not goes(signs, limits):
        back = signs.to_foot.last[side] - signs.to_foot.low[side] > limits.apart / 2
        return f"The head comes closer to the {name} foot{' and moves away again' if back else ' and stays there'}"
    if goes(signs, limits):
        return f"The head is carried along above the {name} leg"
    return f"The head stays above the {name} leg"


def _arms(signs: Signs, limits: Limits) -> str:
    up = [not on_thigh(signs, s, s, limits) and (is_up(signs, s, limits) or is_raised(signs, s, limits)) for s in (0, 1)]
    wave = [waves(signs, side, limits) for side in (0, 1)]
    swing = [swings(signs, side) for side in (0, 1)]
    if all(wave):
        return "Both arms wave at the same time"
    if signs.hands.low < limits.together:
        come = signs.hands.first - signs.hands.low > limits.apart
        return f"The hands {'come' if come else 'are held'} together"
    if all(up) and not any(wave):
        higher = signs.facts.hand_height[0] - signs.facts.hand_height[1]
        if abs(higher) > 2 * limits.apart:
            one, other = ("left", "right") if higher > 0 else ("right", "left")
            return f"Both arms are raised, the {one} hand higher than the {other}"
        return "Both arms are raised at the same time" if signs.rising > 0.3 else "Both arms are raised"
    for mine in (0, 1):
        one, other = SIDES[mine], SIDES[1 - mine]
        if up[mine] and not up[1 - mine] or wave[mine]:
            rest = "swings" if swing[1 - mine] else "is raised too" if up[1 - mine] else "stays down"
            return f"The {one} arm {'waves' if wave[mine] else 'is raised'} while the {other} arm {rest}"
    if all(swing):
        if signs.arms_together < -COUPLED:
            return "The arms swing in turn, one forward while the other goes back"
        return "Both arms swing at the same time" if signs.arms_together > COUPLED else "Both arms swing"
    for mine in (0, 1):
        if swing[mine]:
            return f"The {SIDES[mine]} arm swings while the {SIDES[1 - mine]} arm does not"
    thighs = [on_thigh(signs, side, side, limits) for side in (0, 1)]
    if all(thighs):
        return "Both hands rest on the thighs"
    if min(signs.elbow.mean) > limits.elbow[1] - 10:
        return "Both arms are held bent"
    busy = [moves(signs, side, limits) for side in (0, 1)]
    if all(busy):
        return "Both arms move"
    for mine in (0, 1):
        if busy[mine]:
            return f"The {SIDES[mine]} arm moves while the {SIDES[1 - mine]} arm stays down"
    return "Both arms stay down, apart from each other"


def _legs(signs: Signs, limits: Limits) -> str:
    doing, going = action(signs, limits), goes(signs, limits)
    if doing == "jumps":
        return "Both legs leave the floor and land at the same time"
    if doing == "kicks":
        kicks = [height > TRUTH.kick for height in signs.facts.kick]
        if all(kicks):
            return "Both legs kick in turn"
        return f"The {SIDES[not kicks[0]]} leg kicks while the {SIDES[kicks[0]]} leg stands"
    if doing in ("squats", "sits", "sinks"):
        return f"Both legs bend at the same time{' and stretch again' if doing == 'squats' else ' and stay bent'}"
    if going == "runs":
        return "The legs run in turn, with both feet off the floor in between"
    if going == "walks":
        return "The legs step in turn, one forward while the other goes back"
    if going:
        return "The legs step in turn on the spot"
    lifted = [height > limits.lift for height in signs.foot.high]
    if lifted[0] != lifted[1]:
        return f"The {SIDES[lifted[1]]} leg is lifted while the {SIDES[lifted[0]]} leg stands"
    if all(signs.steps) or all(lifted):
        return "The legs shift in turn with small steps"
    if any(signs.steps):
        one = int(not signs.steps[0])
        return f"The {SIDES[one]} leg takes small steps while the {SIDES[1 - one]} leg stands"
    return "Both legs stand side by side"


def _arm_leg(signs: Signs, hand: int, foot: int, limits: Limits) -> str:
    arm, leg = f"{SIDES[hand]} arm", f"{SIDES[foot]} leg"
    doing, going = action(signs, limits), goes(signs, limits)
    if on_thigh(signs, hand, foot, limits):
        return f"The {SIDES[hand]} hand rests on the {SIDES[foot]} thigh"
    gesture = "waves" if waves(signs, hand, limits) else "is raised" if is_raised(signs, hand, limits) else ""
    gesture = gesture or ("is held up" if is_up(signs, hand, limits) else "")
    stepping = bool(signs.steps[foot]) and going
    acts = {"jumps": "jumps", "squats": "bends and stretches", "sits": "bends", "sinks": "bends"}.get(doing, "")
    if doing == "kicks":
        acts = "kicks" if signs.facts.kick[foot] > TRUTH.kick else "stands"
    acts = acts or ("runs" if going == "runs" else "steps" if stepping or going == "steps" else "stands")
    if not gesture and swings(signs, hand) and stepping:
        linked = (signs.same_side if hand == foot else signs.crosswise)[hand]
        if linked > COUPLED:
            return f"The {arm} and the {leg} swing forward at the same time"
        if linked < -COUPLED:
            return f"The {arm} swings forward when the {leg} goes back"
        return f"The {arm} swings while the {leg} {acts}"
    if not gesture and not swings(signs, hand) and moves(signs, hand, limits):
        gesture = "moves"
    if gesture:
        return f"The {arm} {gesture} while the {leg} {acts}"
    if acts != "stands":
        return f"The {leg} {acts} while the {arm} {'swings' if swings(signs, hand) else 'does not take part'}"
    return f"Nothing changes between the {arm} and the {leg}"
