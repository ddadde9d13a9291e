"""Sentences for motion that comes with labels only: a content ("walk-turn-left") and a style ("elderly") make prompts.

Bandai-Namco's clips have no text. A sentence is drawn from a small grammar: who, does what, in which manner, in one of
several orders, so that a model meets each label in many words. The phrasing follows Kimodo's advice to its users
(Section 3: "A person ..." and one or two actions). What is said is only what the labels and the checked motion say.
"""

from __future__ import annotations

import random

from kinelib.bodies.procedural_words import mirrored_words

WHO = ("A person", "A person", "A person", "Someone", "The person", "A character")

# Content: what the person does, third person singular; several ways to say it, all true of the clips.
ACTIONS: dict[str, tuple[str, ...]] = {
    "walk": ("walks forward", "walks straight ahead", "is walking forward", "takes steps forward", "walks"),
    "run": ("runs forward", "runs straight ahead", "is running forward", "runs", "jogs forward"),
    "dash": ("runs fast", "sprints forward", "dashes ahead", "rushes forward"),
    "walk-back": ("walks backwards", "walks back", "steps backwards", "is walking backwards"),
    "walk-left": ("walks to the left", "walks off to the left", "walks left", "is walking to the left"),
    "walk-right": ("walks to the right", "walks off to the right", "walks right", "is walking to the right"),
    "walk-turn-left": (
        *("walks forward and turns left", "walks, then turns to the left", "turns left while walking"),
        *("walks and then turns left", "walks on and turns left"),
    ),
    "walk-turn-right": (
        *("walks forward and turns right", "walks, then turns to the right", "turns right while walking"),
        *("walks and then turns right", "walks on and turns right"),
    ),
    "raise-up-left-hand": ("raises the left hand", "lifts the left hand up", "puts the left arm up", "raises the left arm"),
    "raise-up-right-hand": (
        *("raises the right hand", "lifts the right hand up", "puts the right arm up", "raises the right arm"),
    ),
    "raise-up-both-hands": (
        *("raises both hands", "lifts both hands up", "puts both arms up", "raises the left and the right arm"),
    ),
    "wave-left-hand": (
        "waves the left hand",
        "waves with the left hand",
        "is waving the left arm",
        "greets by waving the left hand",
    ),
    "wave-right-hand": (
        *("waves the right hand", "waves with the right hand", "is waving the right arm", "greets by waving the right hand"),
    ),
    "wave-both-hands": (
        "waves both hands",
        "waves with both hands",
        "is waving both arms",
        "waves the left and the right hand",
    ),
    "bow": ("bows", "takes a bow", "bends forward to bow", "makes a bow"),
    "bye": ("waves goodbye", "says goodbye with the hand", "waves farewell"),
    "byebye": ("waves goodbye", "waves bye-bye", "says bye-bye with a wave"),
    "call": ("calls somebody over", "beckons somebody", "calls out to somebody"),
    "dance-short": ("dances", "does a short dance", "is dancing"),
    "guide": ("shows somebody the way", "guides somebody with a gesture", "points the way with an arm"),
    "kick": ("fights with punches and a kick", "kicks and punches", "does a fighting combination"),
    "punch": ("punches", "throws punches", "throws a punch"),
    "respond": ("responds to somebody", "reacts to somebody with a gesture"),
    "slash": ("slashes", "slashes with an invisible sword", "swings a sword"),
}

# Style: how it is done; an adverb after the action, or a kind of person. The empty string says nothing.
MANNERS: dict[str, tuple[str, ...]] = {
    "normal": ("", "", "normally", "in a normal way", "at ease"),
    "active": ("actively", "energetically", "with a lot of energy", "in a lively way"),
    "angry": ("angrily", "in an angry way", "while being angry"),
    "childish": ("like a child", "in a childish way", "playfully like a kid"),
    "chimpira": ("like a hoodlum", "with a swagger", "like a street thug"),
    "elderly": ("like an elderly person", "like an old person", "slowly like an old man", "in an elderly way"),
    "exhausted": ("while being exhausted", "exhaustedly", "like someone worn out", "very tiredly"),
    "feminine": ("in a feminine way", "like a woman", "femininely", "gracefully like a lady"),
    "giant": ("like a giant", "heavily like a giant", "with the weight of a giant"),
    "happy": ("happily", "in a happy way", "cheerfully"),
    "masculine": ("in a masculine way", "like a tough man", "in a manly way", "broadly like a strong man"),
    "musical": ("as in a musical", "like an actor in a musical", "in a theatrical way"),
    "not-confident": ("without confidence", "timidly", "in an unsure way"),
    "old": ("like an old person", "like an old man", "in the manner of the old"),
    "proud": ("proudly", "in a proud way", "with pride"),
    "sad": ("sadly", "in a sad way", "while being sad"),
    "tired": ("tiredly", "in a tired way", "while being tired"),
    "youthful": ("youthfully", "like a young person", "in a youthful way", "briskly like a youth"),
}
MANNERS["masculinity"] = MANNERS["masculine"]


class CaptionError(ValueError):
    """A label that no sentence is known for; the message lists those there are."""


def prompts(content: str, style: str = "normal", count: int = 8, seed: int | str = 0) -> tuple[str, ...]:
    """Different sentences for one pair of labels, the plainest first.

    Args:
        content: a key of ACTIONS.
        style: a key of MANNERS.
        count: at most so many; fewer where the grammar has fewer.
        seed: the same seed gives the same sentences in the same order.

    Raises:
        CaptionError: for a label that is not in the tables.
    """
    for what, label, table in (("content", content, ACTIONS), ("style", style, MANNERS)):
        if label not in table:
            raise CaptionError(f"no words for {what} {label!r}; there are {', '.join(sorted(table))}.")
    draw = random.Random(f"{content}/{style}/{seed}")
    plain = _sentence("A person", ACTIONS[content][0], MANNERS[style][0], 0)
    every = {plain: None}
    for _ in range(20 * count):  # draws repeat themselves; small grammars end before `count`
        if len(every) >= count:
            break
        who, action, manner = draw.choice(WHO), draw.choice(ACTIONS[content]), draw.choice(MANNERS[style])
        every[_sentence(who, action, manner, draw.randrange(4))] = None
    return tuple(every)[:count]


def mirrored(prompt: str) -> str:
    """The sentence, or the content label, for the mirrored motion: left and right exchanged, capitals where they were."""
    return mirrored_words(prompt)


def _sentence(who: str, action: str, manner: str, order: int) -> str:
    """One sentence; order 3 puts the manner first."""
    if not manner:
        return f"{who} {action}."
    if order == 3:
        return f"{manner[0].upper()}{manner[1:]}, {who[0].lower()}{who[1:]} {action}."
    return f"{who} {action} {manner}."
