"""Sentences for what procedural clips show.

Every content has several wordings; style and repetition add words where the clip has them. No sentence says anything that
the clip does not show. Prompts are one sentence each, "A person ...", as Kimodo's users are asked to write them.
"""

from __future__ import annotations

import re

PEOPLE = ("A person", "A person", "Someone", "A man", "A woman", "The person")
HOW = {
    "normal": ("",),
    "tired": ("tiredly", "in a tired way", "wearily"),
    "old": ("like an old person", "in an elderly way", "slowly like an old person"),
    "active": ("energetically", "in an energetic way", "with a lot of energy"),
    "proud": ("proudly", "in a proud way", "with the head held high"),
    "childish": ("like a child", "in a childish way", "playfully"),
}
VERBS = {
    "stand": ("stands still", "is standing in place", "stands without moving", "stands and does nothing"),
    "walk": ("walks forward", "is walking", "walks straight ahead", "takes steps forward"),
    "walk-back": ("walks backward", "is walking backwards", "steps back", "moves backward on foot"),
    "walk-left": ("walks to the left", "moves to the left with the body facing ahead", "steps to the left side"),
    "walk-right": ("walks to the right", "moves to the right with the body facing ahead", "steps to the right side"),
    "run": ("runs forward", "is running", "jogs ahead", "runs straight ahead"),
    "walk-turn-left": ("walks and turns left", "walks forward, then turns to the left", "turns left while walking"),
    "walk-turn-right": ("walks and turns right", "walks forward, then turns to the right", "turns right while walking"),
    "turn-left": ("turns left on the spot", "turns around to the left", "turns to the left without walking away"),
    "turn-right": ("turns right on the spot", "turns around to the right", "turns to the right without walking away"),
    "squat": ("squats", "does a squat", "bends the knees and squats down", "squats and stands up again"),
    "jump": ("jumps", "jumps up", "jumps into the air", "jumps up with both feet"),
    "kick-left": ("kicks with the left foot", "kicks forward with the left leg", "lifts the left foot and kicks"),
    "kick-right": ("kicks with the right foot", "kicks forward with the right leg", "lifts the right foot and kicks"),
    "sit-down": ("sits down", "sits down on a chair", "takes a seat", "lowers the body and sits"),
    "bow": ("bows", "takes a bow", "bends forward and bows", "bows politely"),
}
for hand, name in (("left", "left-hand"), ("right", "right-hand")):
    VERBS[f"raise-up-{name}"] = tuple(
        pattern.format(hand)
        for pattern in ("raises the {} hand", "lifts the {} hand up", "puts the {} arm up", "raises the {} arm")
    )
    VERBS[f"wave-{name}"] = tuple(
        pattern.format(hand)
        for pattern in (
            "waves with the {} hand",
            "waves the {} hand",
            "is waving the {} arm",
            "raises the {} hand and waves",
        )
    )
VERBS["raise-up-both-hands"] = (
    "raises both hands",
    "lifts both hands up",
    "puts both arms up",
    "raises the left and the right hand",
)
VERBS["wave-both-hands"] = (
    "waves with both hands",
    "waves both hands",
    "is waving both arms",
    "raises both hands and waves",
)
GERUNDS = {
    "walk": "walking",
    "walk-back": "walking backward",
    "run": "running",
    "walk-turn-left": "walking and turning left",
    "walk-turn-right": "walking and turning right",
    "squat": "squatting",
}
COUNTS = {2: ("twice", "two times"), 3: ("three times", "3 times")}


def prompts(content: str, style: str, facts: dict, rng, count: int = 3) -> tuple[str, ...]:
    """Different sentences for a clip.

    Args:
        content: a key of `VERBS`, or two joined by "+", the way of going first.
        style: a key of `HOW`.
        facts: of the clip; `times` above 1 may be worded.
        rng: numpy generator.
        count: how many, fewer where there are not so many wordings.
    """
    pick = lambda options: options[int(rng.integers(len(options)))]
    found: dict[str, None] = {}
    for _ in range(6 * count):
        if "+" in content:
            going, gesture = content.split("+")
            first, second = pick(VERBS[gesture]), GERUNDS[going]
            verb = f"{first} while {second}" if rng.random() < 0.6 else f"{pick(VERBS[going])} and {first}"
        else:
            verb = pick(VERBS[content])
        repeated = pick(COUNTS[facts["times"]]) if facts.get("times", 1) in COUNTS and rng.random() < 0.5 else ""
        words = [pick(PEOPLE), verb, repeated if "a " not in verb else "", pick(HOW[style])]
        found.setdefault(" ".join(word for word in words if word) + ".")
        if len(found) == count:
            break
    return tuple(found)


def mirrored_words(text: str) -> str:
    """The text, or a content label, with left and right exchanged; capitals stay where they were."""

    def other(match: re.Match) -> str:
        word = match.group(0)
        swapped = "right" if word.lower() == "left" else "left"
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return re.sub(r"(?<![a-zA-Z])(left|right)(?![a-zA-Z])", other, text, flags=re.IGNORECASE)
