"""Does a motion do what its caption says? Geometric truth of text, without any learned evaluator.

`measure` (see `truth_measures`) turns a clip into numbers; `expected` turns a caption or a content label into a test of
these numbers; `follows` does both. The tests hold on captured clips too: their thresholds were set on procedural clips and
on training takes of the Bandai-Namco set, and are the same for every source. Which contents a test lets through besides
its own is part of the measure: `chance` says how often a motion made for another caption passes.

Contents joined by "+" are done at once, each has to be true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kinelib.bodies.motion import Motion
from kinelib.bodies.truth_measures import Facts, measure, measure_all

__all__ = ["Facts", "Thresholds", "TRUTH_PROMPTS", "chance", "content_of", "expected", "follows", "measure", "measure_all"]

Test = Callable[[Facts], bool]


@dataclass(frozen=True)
class Thresholds:
    """Where a test says yes."""

    raised: float = -0.08  # metres above its shoulder from which on a hand is raised (old people do not get it higher)
    lowered: float = -0.12  # metres; "only the left hand" asks the other one to stay below this
    other_share: float = 0.15  # metres by which the raised hand gets above the other one
    swings: int = 3  # turns of a hand's swing that make a wave
    turned: float = 35.0  # degrees from which on a body has turned
    straight: float = 30.0  # degrees up to which it goes straight ahead
    travels: float = 0.25  # m/s from which on a body goes somewhere
    stays: float = 0.25  # m/s up to which it stays where it is
    forward: float = 30.0  # degrees of direction off the heading that are still forwards (or backwards)
    ahead: float = 12.0  # degrees up to which a walk is one straight ahead, not one to the side
    aside: float = 8.0  # degrees from which on it goes to the side
    run_speed: float = 1.6  # m/s from which on it is a run; of the real training walks 98 % are slower, of the runs none
    jog_speed: float = 1.0  # m/s from which on it is a run if both feet leave the floor
    jog_flight: float = 0.08  # share of frames in the air that is needed for that
    dash: float = 2.2  # m/s that a dash reaches
    squat: float = 0.18  # metres the pelvis comes down in a squat
    seat: float = 0.15  # metres the hips of one who sits are behind the ankles
    thigh: float = 60.0  # degrees of the thighs against the vertical of one who sits
    jump: float = 0.08  # metres both feet get off the floor in a jump
    kick: float = 0.25  # metres above the floor a stretched leg's foot reaches in a kick
    bow: float = 24.0  # degrees the back comes down in a bow
    bend: float = 15.0  # degrees by which the back's angle changes in a bow
    stir: float = 0.12  # m/s, mean speed of all joints up to which somebody stands still


DEFAULT = Thresholds()
SIDES = ("left", "right")


def follows(motion: Motion | Facts, what: str, limits: Thresholds = DEFAULT) -> bool | None:
    """Whether a motion does what a content label or a prompt says; None where no test for it is known.

    Args:
        motion: a clip, or its measurements where they are known already.
        what: a content label such as "walk+wave-left-hand", or a sentence.
        limits: thresholds.
    """
    test = expected(what, limits)
    if test is None:
        return None
    return test(motion if isinstance(motion, Facts) else measure(motion))


def expected(what: str, limits: Thresholds = DEFAULT) -> Test | None:
    """The test that a content label or a prompt stands for; None where there is none."""
    content = content_of(what) if " " in what.strip() else what  # labels are one word
    if content is None or not _known(content):
        return None
    parts = [_TESTS[part] for part in content.split("+")]
    return lambda facts: all(test(facts, limits) for test in parts)


def _known(content: str) -> bool:
    return all(part in _TESTS for part in content.split("+"))


def _up(facts: Facts, limits: Thresholds, side: int) -> bool:
    """One hand is up, and only that one."""
    mine, other = facts.hand_height[side], facts.hand_height[1 - side]
    return mine > limits.raised and other < limits.lowered and mine - other > limits.other_share


def _raises(side: int) -> Callable[[Facts, Thresholds], bool]:
    # Who waves raises a hand too, but "raises a hand" is not what one would say of it.
    return lambda facts, limits: _up(facts, limits, side) and facts.swings[side] < limits.swings


def _waves(side: int) -> Callable[[Facts, Thresholds], bool]:
    return lambda facts, limits: _up(facts, limits, side) and facts.swings[side] >= limits.swings


def _raises_both(facts: Facts, limits: Thresholds) -> bool:
    return min(facts.hand_height) > limits.raised and min(facts.swings) < limits.swings


def _waves_both(facts: Facts, limits: Thresholds) -> bool:
    return min(facts.hand_height) > limits.raised and min(facts.swings) >= limits.swings


def _flies(facts: Facts, limits: Thresholds) -> bool:
    return facts.speed > limits.run_speed or (facts.speed > limits.jog_speed and facts.flight > limits.jog_flight)


def _ahead(facts: Facts, limits: Thresholds) -> bool:
    return facts.ahead > 0 and abs(facts.straying) < limits.forward


def _walks(facts: Facts, limits: Thresholds) -> bool:
    walks = facts.speed > limits.travels and not _flies(facts, limits)
    return walks and facts.ahead > 0 and abs(facts.straying) < limits.ahead and abs(facts.turn) < limits.straight


def _walks_back(facts: Facts, limits: Thresholds) -> bool:
    return facts.speed > limits.travels and facts.ahead < 0 and 180 - abs(facts.straying) < limits.forward


def _walks_aside(sense: float) -> Callable[[Facts, Thresholds], bool]:
    def test(facts: Facts, limits: Thresholds) -> bool:
        goes = facts.speed > limits.travels and abs(facts.turn) < limits.straight and not _flies(facts, limits)
        return goes and limits.aside < sense * facts.straying < 180 - limits.forward

    return test


def _runs(facts: Facts, limits: Thresholds) -> bool:
    return _flies(facts, limits) and _ahead(facts, limits)


def _dashes(facts: Facts, limits: Thresholds) -> bool:
    return _runs(facts, limits) and facts.speed > limits.dash


def _turns(sense: float, walking: bool) -> Callable[[Facts, Thresholds], bool]:
    def test(facts: Facts, limits: Thresholds) -> bool:
        goes = facts.speed > limits.travels if walking else facts.speed < limits.stays
        return goes and sense * facts.turn > limits.turned

    return test


def _walks_and_turns(sense: float) -> Callable[[Facts, Thresholds], bool]:
    return _turns(sense, walking=True)


def _squats(facts: Facts, limits: Thresholds) -> bool:
    rises = facts.end_drop < 0.6 * facts.drop
    return facts.drop > limits.squat and rises and facts.speed < 2 * limits.stays and facts.air < limits.jump


def _jumps(facts: Facts, limits: Thresholds) -> bool:
    return facts.air > limits.jump and facts.speed < 1.5


def _kicks(side: int) -> Callable[[Facts, Thresholds], bool]:
    def test(facts: Facts, limits: Thresholds) -> bool:
        return facts.kick[side] > limits.kick > facts.kick[1 - side] and facts.speed < limits.jog_speed

    return test


def _sits(facts: Facts, limits: Thresholds) -> bool:
    return facts.end_drop > limits.squat and facts.thigh > limits.thigh and facts.seat > limits.seat


def _bows(facts: Facts, limits: Thresholds) -> bool:
    upright = facts.drop < limits.squat and max(facts.hand_height) < 0.2
    return facts.tilt > limits.bow and facts.bend > limits.bend and upright and facts.speed < limits.stays


def _stands(facts: Facts, limits: Thresholds) -> bool:
    low = max(facts.hand_height) < limits.lowered and facts.bend < limits.bend
    low = low and max(facts.kick) < limits.kick
    return facts.stir < limits.stir and low and facts.drop < 0.1 and abs(facts.turn) < limits.straight


_TESTS: dict[str, Callable[[Facts, Thresholds], bool]] = {
    "stand": _stands,
    "walk": _walks,
    "walk-back": _walks_back,
    "walk-left": _walks_aside(1),
    "walk-right": _walks_aside(-1),
    "run": _runs,
    "dash": _dashes,
    "walk-turn-left": _walks_and_turns(1),
    "walk-turn-right": _walks_and_turns(-1),
    "turn-left": _turns(1, walking=False),
    "turn-right": _turns(-1, walking=False),
    "raise-up-left-hand": _raises(0),
    "raise-up-right-hand": _raises(1),
    "raise-up-both-hands": _raises_both,
    "wave-left-hand": _waves(0),
    "wave-right-hand": _waves(1),
    "wave-both-hands": _waves_both,
    "squat": _squats,
    "jump": _jumps,
    "kick-left": _kicks(0),
    "kick-right": _kicks(1),
    "sit-down": _sits,
    "bow": _bows,
}

# The prompts of the evaluation, each with the content it has to show. The first fourteen are in both sets of clips, the
# last six in the procedural one only. What a blind generator would reach on them is `chance`.
TRUTH_PROMPTS: tuple[tuple[str, str], ...] = (
    ("A person walks forward.", "walk"),
    ("A person walks backwards.", "walk-back"),
    ("A person walks to the left.", "walk-left"),
    ("A person walks to the right.", "walk-right"),
    ("A person is running.", "run"),
    ("A person walks forward and turns left.", "walk-turn-left"),
    ("A person walks forward and turns right.", "walk-turn-right"),
    ("A person raises the left hand.", "raise-up-left-hand"),
    ("A person raises the right hand.", "raise-up-right-hand"),
    ("A person raises both hands.", "raise-up-both-hands"),
    ("A person waves with the left hand.", "wave-left-hand"),
    ("A person waves with the right hand.", "wave-right-hand"),
    ("A person waves with both hands.", "wave-both-hands"),
    ("A person bows.", "bow"),
    ("A person stands still.", "stand"),
    ("A person squats.", "squat"),
    ("A person jumps up.", "jump"),
    ("A person kicks with the left foot.", "kick-left"),
    ("A person turns right on the spot.", "turn-right"),
    ("A person sits down.", "sit-down"),
)


def content_of(prompt: str) -> str | None:
    """The content label that a sentence describes, found by its words; None where it names nothing that can be tested."""
    text = " " + re.sub(r"[^a-z]+", " ", prompt.lower()) + " "
    has = lambda *patterns: any(re.search(rf" (?:{pattern}) ", text) for pattern in patterns)
    side = "left" if has("left") else "right" if has("right") else None
    going = None
    moves = has("walk(?:s|ing)?", "steps?", "moves?")
    turn = has("turn(?:s|ing)?(?: around)?")
    if has("run(?:s|ning)?", "jogs?", "jogging"):
        going = "run"
    elif has("dash(?:es|ing)?", "sprints?"):
        going = "dash"
    elif turn and _turn_side(text):
        on_foot = moves and not has("without walking(?: away)?", "on the spot", "in place")
        going = f"{'walk-' if on_foot else ''}turn-{_turn_side(text)}"
    elif moves and has("back", "backwards?"):
        going = "walk-back"
    elif moves and (aside := re.search(r" to the (left|right)(?: side)? | sideways (left|right) ", text)):
        going = f"walk-{aside.group(1) or aside.group(2)}"
    elif moves:
        going = "walk"
    elif has("squat(?:s|ting)?"):
        going = "squat"
    elif has("jump(?:s|ing)?", "leaps?"):
        going = "jump"
    elif has("kick(?:s|ing)?") and side:
        going = f"kick-{side}"
    elif has("sit(?:s|ting)?", "takes a seat"):
        going = "sit-down"
    elif has("bow(?:s|ing)?"):
        going = "bow"
    gesture = _gesture(text, has)
    if not going and not gesture and has("stands?", "standing"):
        going = "stand"
    return "+".join(part for part in (going, gesture) if part) or None


def _turn_side(text: str) -> str | None:
    match = re.search(r" turn(?:s|ing)?(?: around)?(?: to the)? (left|right) ", text)
    return match.group(1) if match else None


def _gesture(text: str, has: Callable[..., bool]) -> str | None:
    verb = "wave" if has("wav(?:es?|ing)") else None
    if verb is None and has("rais(?:es?|ing)", "lifts?", "lifting", "puts?"):
        verb = "raise-up"
    limb = re.search(r" (left and(?: the)? right|both|left|right) (?:hands?|arms?) ", text)
    if verb is None or limb is None:
        return None
    which = limb.group(1)
    return f"{verb}-{'both-hands' if which.startswith(('both', 'left and')) else f'{which}-hand'}"


def confusion(measured: Mapping[str, Sequence[Facts]], limits: Thresholds = DEFAULT) -> dict[str, dict[str, float]]:
    """Share of the clips of every content (outer keys) that pass the test of every testable content (inner keys)."""
    tests = {content: expected(content, limits) for content in measured if _known(content)}
    return {
        content: {name: sum(map(test, facts)) / len(facts) for name, test in tests.items()}
        for content, facts in measured.items()
        if facts
    }


def chance(measured: Mapping[str, Sequence[Facts]], limits: Thresholds = DEFAULT) -> float:
    """The chance level: how often a motion made for another of the prompts passes, mean over prompts and others alike.

    Args:
        measured: by content, measurements of clips that were made for that content; at least two contents with a test.

    Raises:
        ValueError: with fewer contents.
    """
    table = confusion({name: facts for name, facts in measured.items() if _known(name)}, limits)
    pairs = [table[other][name] for name in table for other in table if other != name]
    if not pairs:
        raise ValueError(f"chance needs clips of at least two contents with a test; got {', '.join(measured) or 'none'}.")
    return sum(pairs) / len(pairs)
