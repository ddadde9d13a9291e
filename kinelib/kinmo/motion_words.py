"""Six sentences a clip: what every kinematic group does (KinMo, Section 3; our own rules, assumption A12).

Every sentence is made of the first that applies of a short list of meanings, and says no more than what was measured.
Phrases are those that `records.WORDINGS` knows other words for. Nothing depends on which side is meant but its name.
"""

from __future__ import annotations

from kinelib.bodies.skeleton import GROUPS
from kinelib.bodies.truth import Thresholds
from kinelib.kinmo.motion_signs import Signs
from kinelib.kinmo.pose_words import DEFAULT, SIDES, Limits

TRUTH = Thresholds()
COUNTS = ("", "once", "twice", "three times", "four times", "five times")
NUMBERS = ("no", "one", "two", "three", "four", "five")
LEVELS = ("down", "to chest height", "to shoulder height", "to head height", "above the head")


def group_sentences(signs: Signs, limits: Limits = DEFAULT) -> dict[str, str]:
    """The six sentences, in the order of `GROUPS`.

    Args:
        signs: of one clip.
        limits: where one word ends and the next begins.
    """
    said = {"torso": torso(signs, limits), "neck": head(signs, limits)}
    for side, name in enumerate(SIDES):
        said[f"{name}_arm"] = f"The {name} arm {arm(signs, side, limits)}."
        said[f"{name}_leg"] = f"The {name} leg {leg(signs, side, limits)}."
    return {group: said[group] for group in GROUPS}


def goes(signs: Signs, limits: Limits = DEFAULT) -> str:
    """How the body travels: "runs", "walks", "steps" (round on the spot) or "" for a body that stays."""
    facts = signs.facts
    if facts.speed > TRUTH.run_speed or (facts.speed > TRUTH.jog_speed and facts.flight > TRUTH.jog_flight):
        return "runs"
    if facts.speed > limits.travels and facts.distance > limits.displaced and sum(signs.steps) > 0 and not action(signs):
        return "walks"
    return "steps" if abs(facts.turn) > limits.turn and not action(signs) else ""


def action(signs: Signs, limits: Limits = DEFAULT) -> str:
    """What the legs do other than to go: "jumps", "kicks", "sits", "squats" or ""."""
    facts = signs.facts
    if facts.speed > TRUTH.jog_speed:
        return ""
    if facts.air > TRUTH.jump and signs.jumps:
        return "jumps"
    if max(facts.kick) > TRUTH.kick:
        return "kicks"
    if signs.drop.high > limits.sinks + 0.03 and min(change(signs.knee, side) for side in (0, 1)) > limits.knee_bends[0]:
        rises = signs.drop.last < 0.6 * signs.drop.high
        return "squats" if rises else "sits" if facts.thigh > TRUTH.thigh and facts.seat > TRUTH.seat else "sinks"
    return ""


def change(course, side: int) -> float:
    """How far a number of one side changes."""
    return course.high[side] - course.low[side]


def direction(signs: Signs) -> str:
    """Where the body travels against its own heading."""
    astray = abs(signs.facts.straying)
    side = "left" if signs.facts.straying > 0 else "right"
    if astray <= 15 or astray >= 155:
        return "forward" if astray <= 15 else "backward"
    if 65 <= astray <= 115:
        return f"to the {side}"
    return f"{'forward' if astray < 90 else 'backward'} and to the {side}"


def turning(signs: Signs, limits: Limits = DEFAULT) -> str:
    """The sense and the size of the body's turn, or ""."""
    degrees = abs(signs.facts.turn)
    if degrees < limits.turn:
        return ""
    side = "left" if signs.facts.turn > 0 else "right"
    if degrees >= 337:
        return f"turns {side} all the way round"
    return f"turns {side} by about {45 * max(1, round(degrees / 45))} degrees"


def times(count: float) -> str:
    """A count in words: "once" to "five times", "many times"; nothing for none."""
    return COUNTS[round(count)] if count < len(COUNTS) - 0.5 else "many times"


def torso(signs: Signs, limits: Limits = DEFAULT) -> str:
    """What the torso does: travel, turn, height and bend."""
    going, doing = goes(signs, limits), action(signs, limits)
    clauses = []
    if going == "runs":
        clauses.append(f"moves {direction(signs)} at a run")
    elif going == "walks":
        speed = signs.facts.speed
        pace = " slowly" if speed < limits.slow else " quickly" if speed > limits.quick else ""
        clauses.append(f"moves {direction(signs)}{pace}")
    turn = turning(signs, limits)
    if turn:
        clauses.append(turn if going in ("runs", "walks") else f"{turn} on the spot")
    depth = "far " if signs.drop.high > limits.deep else ""
    if doing == "jumps":
        clauses.append(f"jumps up {times(signs.jumps)}")
    elif doing == "squats":
        clauses.append(f"sinks {depth}down and rises again{repeated(signs.sinks)}")
    elif doing in ("sits", "sinks"):
        clauses.append(f"is lowered {depth}and stays low")
    if not clauses:
        clauses.append("stays in place")
    clauses.append(back(signs, limits, doing))
    return sentence("The torso", clauses)


def repeated(count: float) -> str:
    """ " twice" and so on; nothing for what happens once."""
    return f" {times(count)}" if count > 1 else ""


def back(signs: Signs, limits: Limits, doing: str) -> str:
    """What the back does."""
    tilt = signs.tilt
    if tilt.high > limits.lean[0] and tilt.high - min(tilt.first, tilt.mean) > limits.tips:
        far = " deeply" if tilt.high > limits.lean[1] else ""
        again = " and straightens again" if tilt.high - tilt.last > limits.tips / 2 else " and stays bent"
        return f"bends forward{far}{again}"
    if tilt.mean > limits.lean[0]:
        return "is held bent forward"
    if tilt.mean < -limits.lean_back:
        return "leans back"
    for side, most in (("left", signs.sway.high), ("right", -signs.sway.low)):
        if most > limits.lean_aside:
            return f"leans to the {side}"
    return "is held upright"


def head(signs: Signs, limits: Limits = DEFAULT) -> str:
    """What the head does."""
    nod = signs.nod
    if signs.nods >= 4 and not goes(signs, limits):
        said = f"nods {times(signs.nods / 2)}"
    elif nod.high - nod.first > limits.head_down and nod.high > limits.head_down:
        up = nod.high - nod.last > limits.head_down / 2
        said = f"bends down{' and comes up again' if up else ' and stays down'}"
    elif nod.mean > limits.head_down:
        said = "looks down"
    elif nod.mean < -limits.head_back:
        said = "is tilted back"
    else:
        said = "is held upright"
    clauses = [said]
    doing, turn = action(signs, limits), turning(signs, limits)
    if doing in ("jumps", "squats"):
        clauses.append("goes up and down with the body")
    elif doing in ("sits", "sinks"):
        clauses.append("goes down with the body")
    elif turn:
        clauses.append(f"turns {turn.split()[1]} with the body")
    elif goes(signs, limits):
        clauses.append(f"moves {direction(signs)} with the body")
    return sentence("The head", clauses)


def is_raised(signs: Signs, side: int, limits: Limits = DEFAULT) -> bool:
    """Whether a hand rises to its chest or higher (and is not merely swung there)."""
    top = signs.facts.hand_height[side]
    return top > limits.hand_heights[0] + 0.1 and top - signs.height.first[side] > limits.raised and not swings(signs, side)


def is_up(signs: Signs, side: int, limits: Limits = DEFAULT) -> bool:
    """Whether a hand is at its shoulder or higher for a while."""
    return signs.facts.hand_height[side] > limits.hand_heights[1] and not swings(signs, side)


def waves(signs: Signs, side: int, limits: Limits = DEFAULT) -> bool:
    """Whether a raised hand swings sideways often enough for a wave."""
    sideways = signs.wave[side] > 0.6 * signs.thrust[side]  # and not forth and back, as in punches
    return is_up(signs, side, limits) and signs.facts.swings[side] >= limits.wave and sideways


def swings(signs: Signs, side: int) -> bool:
    """Whether an arm swings along the heading without being raised."""
    top = signs.facts.hand_height[side]
    if goes(signs) or action(signs) == "jumps":
        return signs.swings[side] >= 2 and top < 0.0 and signs.height.mean[side] < -0.15
    return signs.swings[side] >= 3 and top < -0.3  # who stands and lifts a hand higher reaches for something


def on_thigh(signs: Signs, side: int, leg: int, limits: Limits = DEFAULT) -> bool:
    """Whether a hand lies on a thigh at the end."""
    distance = (signs.to_thigh if side == leg else signs.to_other_thigh).last[side]
    return distance < limits.on_thigh and signs.hip.last[leg] > limits.folded


def moves(signs: Signs, side: int, limits: Limits = DEFAULT) -> bool:
    """Whether an arm does anything at all besides hanging."""
    bent = signs.elbow.high[side] - signs.elbow.low[side] > limits.bends
    return is_up(signs, side, limits) or is_raised(signs, side, limits) or bent or signs.hand_speed[side] > limits.busy


def arm(signs: Signs, side: int, limits: Limits = DEFAULT) -> str:
    """What one arm does, without its name."""
    if on_thigh(signs, side, side, limits):
        return "comes to rest on the thigh" if signs.hip.first[side] < limits.folded else "rests on the thigh"
    height, top = signs.height, signs.facts.hand_height[side]
    level = LEVELS[sum(top > bound for bound in limits.hand_heights)]
    down_again = top - height.last[side] > limits.raised
    if is_raised(signs, side, limits) or (is_up(signs, side, limits) and height.first[side] > limits.hand_heights[0]):
        start = f"is raised {way(signs, side, limits)}{level}" if is_raised(signs, side, limits) else f"is held {at(level)}"
        wave = f" and waves {times(signs.facts.swings[side] / 2)}" if waves(signs, side, limits) else ""
        if not wave and signs.thrusts[side] >= limits.wave and signs.thrust[side] > limits.thrust:
            wave = f" and moves forth and back {times(signs.thrusts[side] / 2)}"
        end = ", then comes down" if down_again else "" if wave or not is_raised(signs, side, limits) else " and stays there"
        return f"{start}{wave}{end}"
    if swings(signs, side):
        size = " widely" if signs.swing[side] > limits.wide_swing else ""
        bent = " with the elbow bent" if signs.elbow.mean[side] > limits.elbow[1] - 10 else ""
        return f"swings back and forth{size}{bent}"
    if height.first[side] - height.last[side] > limits.raised and height.first[side] > limits.hand_heights[0]:
        return "is lowered to the side"
    if signs.hand_speed[side] > limits.busy:
        return "moves about"
    bend = signs.elbow.last[side] - signs.elbow.first[side]
    if abs(bend) > limits.bends:
        return "bends at the elbow" if bend > 0 else "stretches at the elbow"
    if signs.elbow.high[side] - signs.elbow.low[side] > limits.bends:
        return "bends and stretches at the elbow"
    if signs.elbow.mean[side] > limits.elbow[1] - 10:
        return "is held bent at the elbow"
    if signs.height.high[side] - signs.height.first[side] > limits.strays:
        return "moves a little away from the side"
    return "hangs at the side" + (" slightly bent" if signs.elbow.mean[side] > limits.elbow[0] else "")


def way(signs: Signs, side: int, limits: Limits) -> str:
    """By which way a hand is raised."""
    ahead, outward = signs.ahead[side], signs.outward[side]
    if outward > limits.aside and outward > ahead:
        return "sideways "
    return "in front " if ahead > limits.ahead else ""


def at(level: str) -> str:
    """ "to head height" as a place: "at head height"."""
    return level.replace("to ", "at ", 1) if level.startswith("to ") else level


def leg(signs: Signs, side: int, limits: Limits = DEFAULT) -> str:
    """What one leg does, without its name."""
    going, doing = goes(signs, limits), action(signs, limits)
    if doing == "jumps":
        return f"bends, pushes off and jumps {times(signs.jumps)}"
    if doing == "kicks":
        high = signs.facts.kick[side]
        if high > TRUTH.kick:
            level = "knee" if high < 0.55 else "hip" if high < 1.0 else "chest"
            return f"kicks forward to {level} height{repeated(signs.kicks[side])}"
        return "stands still and carries the body" if signs.foot.high[side] < limits.lift else "is lifted off the floor"
    bend = change(signs.knee, side)
    how = "slightly" if bend < limits.knee_bends[1] else "deeply" if bend > limits.knee_bends[2] else ""
    if doing == "squats":
        return f"bends{f' {how}' if how else ''} at the knee and stretches again{repeated(signs.sinks)}"
    if doing in ("sits", "sinks"):
        return f"bends{f' {how}' if how else ''} at the knee and stays bent{', as in sitting' if doing == 'sits' else ''}"
    count = round(signs.steps[side])
    number = NUMBERS[count] if count < len(NUMBERS) else "many"
    if going == "steps":
        return "steps round on the spot"
    if going and count:
        stride = signs.stride[side]
        size = "short " if stride < limits.stride[0] else "long " if stride > limits.stride[1] else ""
        verb = "takes" if going == "walks" else "runs and takes"
        return f"{verb} {number} {size}step{'s' * (count > 1)} {direction(signs)}"
    if signs.foot.high[side] > limits.lift:
        return "is lifted off the floor" + (" and put down again" if signs.foot.last[side] < limits.foot_up else "")
    if count:
        return f"takes {'a small step' if count == 1 else 'small steps'}"
    if bend > limits.knee_bends[0]:
        return f"bends {how} at the knee".replace("  ", " ")
    return "stands still" + (" with the knee bent" if signs.knee.mean[side] > limits.knee[0] + 8 else "")


def sentence(subject: str, clauses: list[str]) -> str:
    """ "The torso" and what it does as one sentence."""
    comma = "," if any(" and " in clause for clause in clauses) and len(clauses) > 1 else ""
    return f"{subject} {', '.join(clauses[:-1])}{comma}{' and ' if len(clauses) > 1 else ''}{clauses[-1]}."
