"""Do different annotators say the same of the same clips? Cohen's kappa, question by question (KinMo, Section 3, step 5).

The paper refines its prompt until two people's judgements agree with kappa above 0.8. Here the annotators are

    words    the sentences of a record, read back: whoever wrote them, rules or a language model
    truth    geometry (`kinelib.bodies.truth`), of the motion alone
    label    the content that a clip was captured or planned as, which knows nothing of any measurement

Rules and truth share measurements of hands and turns, so that their agreement says that nothing is lost on the way into
words; agreement with the label is the independent one.

Kappa is (p - c) / (1 - c) with the share p of clips on which both agree and the share c on which they would by chance, each
keeping its habits (Cohen, 1960).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinelib.bodies.clips import Clip
from kinelib.bodies.truth import Facts, Thresholds, follows
from kinelib.kinmo.records import Record

LIMITS = Thresholds()
Answers = dict[str, str | None]  # question -> answer; None: this annotator cannot tell


@dataclass(frozen=True)
class Agreement:
    """How far two annotators agree on one question."""

    question: str
    clips: int  # on which both answered
    agreed: float  # share of these
    chance: float  # share that would agree by chance
    kappa: float  # not a number where both always give the same single answer
    confused: tuple[tuple[str, str, int], ...]  # the most frequent (first says, second says, clips) of disagreement


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> tuple[float, float, float]:
    """Share of agreement, share by chance, and kappa of two lists of answers to the same questions.

    Raises:
        ValueError: for lists of different lengths, or empty ones.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"kappa needs two lists of as many answers, at least one; got {len(first)} and {len(second)}.")
    count = len(first)
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / count
    one, other = Counter(first), Counter(second)
    chance = sum(one[answer] * other[answer] for answer in one) / count**2
    return agreed, chance, (agreed - chance) / (1 - chance) if chance < 1 else math.nan


def agreement(first: Sequence[Answers], second: Sequence[Answers]) -> list[Agreement]:
    """Cohen's kappa of two annotators on every question, over the clips on which both answer.

    Args:
        first, second: of every clip, in the same order.
    """
    if len(first) != len(second):
        raise ValueError(f"two annotators answer for the same clips; got {len(first)} and {len(second)}.")
    table = []
    for question in QUESTIONS:
        pairs = [(a[question], b[question]) for a, b in zip(first, second, strict=True)]
        pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
        if pairs:
            agreed, chance, kappa = cohens_kappa(*zip(*pairs, strict=True))
            wrong = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(3)
            confused = tuple((a, b, count) for (a, b), count in wrong)
            table.append(Agreement(question, len(pairs), agreed, chance, kappa, confused))
    return table


def words_say(record: Record) -> Answers:
    """The answers that stand in the sentences of a record, read without looking at the motion."""
    arms = {side: record.groups[f"{side}_arm"].lower() for side in ("left", "right")}
    legs = {side: record.groups[f"{side}_leg"].lower() for side in ("left", "right")}
    torso = record.groups["torso"].lower()
    up = r"(shoulder|head) height|above the head"
    turn = re.search(r"turns (left|right)", torso)
    kicking = [side for side, text in legs.items() if "kick" in text]
    legs_do = next((word for word, sign in _LEGS_SAY if all(re.search(sign, text) for text in legs.values())), "other")
    return {
        "raised arm": _sides({side: bool(re.search(up, text)) for side, text in arms.items()}),
        "waving arm": _sides({side: "wave" in text for side, text in arms.items()}),
        "turn": turn.group(1) if turn else "none",
        "going": "run" if "run" in torso else "walk" if "moves" in torso else "stay",
        "direction": _direction(torso) if "moves" in torso else "none",
        "legs": f"kick {kicking[0]}" if len(kicking) == 1 else legs_do,
        "bow": "yes" if "bends forward" in torso and legs_do == "other" and "moves" not in torso else "no",
    }


_LEGS_SAY = (("jump", r"jump"), ("sit", r"sitting"), ("squat", r"stretches again"))


def _direction(torso: str) -> str:
    travel = re.search(r"moves (forward|backward)?(?: and )?(?:to the (left|right))?", torso)
    ahead, aside = travel.groups()
    return aside or ahead or "none"


def _sides(does: dict[str, bool]) -> str:
    which = [side for side, yes in does.items() if yes]
    return "both" if len(which) == 2 else which[0] if which else "none"


def truth_says(facts: Facts, limits: Thresholds = LIMITS) -> Answers:
    """The answers of geometry, with the thresholds of `bodies.truth`."""
    tests = lambda *contents: next((content for content in contents if follows(facts, content, limits)), None)
    up = {side: facts.hand_height[i] > limits.raised for i, side in enumerate(("left", "right"))}
    waves = {side: up[side] and facts.swings[i] >= limits.swings for i, side in enumerate(("left", "right"))}
    flies = facts.speed > limits.run_speed or (facts.speed > limits.jog_speed and facts.flight > limits.jog_flight)
    going = "run" if flies else "walk" if facts.speed > limits.travels else "stay"
    side = "left" if facts.straying > 0 else "right"
    off = min(abs(facts.straying), 180 - abs(facts.straying))
    direction = side if off > limits.ahead else "forward" if facts.ahead > 0 else "backward"
    legs = tests("jump", "kick-left", "kick-right", "sit-down", "squat") if going != "run" else None
    return {
        "raised arm": _sides(up),
        "waving arm": _sides(waves),
        "turn": ("left" if facts.turn > 0 else "right") if abs(facts.turn) > limits.turned else "none",
        "going": going,
        "direction": direction if going != "stay" else "none",
        "legs": (legs or "other").replace("-down", "").replace("-", " "),
        "bow": "yes" if tests("bow") and not legs else "no",
    }


def label_says(clip: Clip) -> Answers:
    """The answers of a clip's content; None where the content leaves a question open, as "dance" does all of them."""
    going, gesture = None, None
    for part in clip.content.split("+"):
        if re.fullmatch(r"(raise-up|wave)-(left|right|both)-hands?", part):
            gesture = part
        elif part in _GOING:
            going = part
        else:
            return dict.fromkeys(QUESTIONS)
    moves, direction, turn, legs = _GOING[going or "stand"]
    limb = gesture.split("-")[-2] if gesture else "none"
    known = going in (None, "stand", "walk", "walk-back", "run", "dash") or gesture is not None
    return {
        "raised arm": limb if known else None,
        "waving arm": (limb if gesture and gesture.startswith("wave") else "none") if known else None,
        "turn": turn,
        "going": moves,
        "direction": direction,
        "legs": legs,
        "bow": "yes" if going == "bow" else "no" if legs == "other" else None,
    }


# Content: how it goes, where to, which way it turns, what the legs do; None where people differ.
_GOING: dict[str, tuple[str | None, str | None, str | None, str]] = {
    "stand": ("stay", "none", "none", "other"),
    "walk": ("walk", "forward", "none", "other"),
    "walk-back": ("walk", "backward", None, "other"),  # captured ones turn round first
    "walk-left": ("walk", "left", None, "other"),
    "walk-right": ("walk", "right", None, "other"),
    "run": ("run", "forward", "none", "other"),
    "dash": ("run", "forward", "none", "other"),
    "walk-turn-left": ("walk", None, "left", "other"),
    "walk-turn-right": ("walk", None, "right", "other"),
    "turn-left": ("stay", "none", "left", "other"),
    "turn-right": ("stay", "none", "right", "other"),
    "squat": ("stay", "none", "none", "squat"),
    "jump": ("stay", "none", "none", "jump"),
    "kick-left": ("stay", "none", "none", "kick left"),
    "kick-right": ("stay", "none", "none", "kick right"),
    "sit-down": ("stay", "none", "none", "sit"),
    "bow": ("stay", "none", "none", "other"),
}
QUESTIONS = ("raised arm", "waving arm", "turn", "going", "direction", "legs", "bow")


def compare(
    clips: Sequence[Clip], records: Sequence[Record], facts: Sequence[Facts], other: str = "truth"
) -> list[Agreement]:
    """Agreement of the words of records with geometry or with the labels of their clips.

    Args:
        clips, records, facts: of the same clips, in the same order.
        other: "truth" or "label".

    Raises:
        ValueError: for another annotator.
    """
    sources: dict[str, Callable[[], list[Answers]]] = {
        "truth": lambda: [truth_says(one) for one in facts],
        "label": lambda: [label_says(clip) for clip in clips],
    }
    if other not in sources:
        raise ValueError(f"words are compared with {' or '.join(sources)}; got {other!r}.")
    return agreement([words_say(record) for record in records], sources[other]())
