"""The reasoner: votes, clauses that never stood together, what a clip knows of itself, mirror images, and files."""

from dataclasses import replace

import pytest
import torch
from toy_tokens import Letters

from kinelib.bodies.procedural_words import mirrored_words
from kinelib.kinmo.data import SLOT_KEYS, MotionTexts, mirrored_slots
from kinelib.kinmo.reasoner import Reasoner, accuracy, clauses
from kinelib.kinmo.sentences import sentence_bank

STILL = {key: f"{key.replace('_', ' ').replace('|', ' and ')} still." for key in SLOT_KEYS} | {
    "left_arm|right_arm": "both arms still.",
    "left_leg|right_leg": "both legs still.",
}
DOES = {
    "stand": {},
    "walk": {
        "left_leg": "left leg steps.",
        "right_leg": "right leg steps.",
        "left_arm": "left arm swings.",
        "right_arm": "right arm swings.",
    },
    "raise-left-hand": {"left_arm": "left arm goes up.", "neck|left_arm": "left arm passes the neck."},
    "raise-right-hand": {"right_arm": "right arm goes up.", "neck|right_arm": "right arm passes the neck."},
}
SAYS = {
    "stand": ("A person stands still.", "Someone stands still."),
    "walk": ("A person walks.", "Someone walks."),
    "raise-left-hand": ("A person raises the left hand.", "Someone raises the left hand."),
    "raise-right-hand": ("A person raises the right hand.", "Someone raises the right hand."),
}


class Bag(Letters):
    """Sentence vectors that are sums of their words', so that sentences of like words are near each other."""

    def _one(self, sentence):
        words = sentence.lower().rstrip(".").replace("walking", "walks").split()
        total = sum(Letters._one(self, word) for word in words if word not in ("a", "person", "someone", "is", "the"))
        return torch.nn.functional.normalize(total, dim=0)


def clips(contents, odd=()):
    """Clips that all do what their content does; those numbered in `odd` have a torso that says something else."""
    said = [
        {**STILL, **DOES[content]} | ({"torso": "torso spins."} if i in odd else {}) for i, content in enumerate(contents)
    ]
    texts = [tuple(one[key] for key in SLOT_KEYS) for one in said]
    return MotionTexts(
        torch.zeros(len(contents), 263),
        torch.ones(len(contents), dtype=torch.long),
        prompts=tuple(SAYS[content] for content in contents),
        groups=tuple(one[:6] for one in texts),
        interactions=tuple(one[6:] for one in texts),
        labels=tuple(f"{content}/normal" for content in contents),
        sources=("procedural",) * len(contents),
        names=tuple(map(str, range(len(contents)))),
    )


def learned(motions):
    bank = sentence_bank(motions.sentences(), Bag())
    return Reasoner.learn(motions, bank, Bag()), bank


ALL = [content for content in DOES for _ in range(6 if content == "walk" else 3)]  # walking is common


@pytest.fixture(scope="module")
def reasoner():
    return learned(clips(ALL))[0]


def test_a_known_prompt_gets_what_its_clips_say(reasoner):
    found = reasoner.reason(["A person raises the left hand."])[0]
    assert found.groups["left_arm"] == "left arm goes up." and found.groups["right_arm"] == STILL["right_arm"]
    assert [*found.groups, *found.interactions] == [*SLOT_KEYS] and len(found.sentences) == 21


def test_the_majority_of_clips_wins():
    found = learned(clips(ALL, odd=(0,)))[0].reason(["A person stands still."])[0]
    assert found.groups["torso"] == STILL["torso"]
    found = learned(clips(ALL, odd=(0, 1)))[0].reason(["A person stands still."])[0]
    assert found.groups["torso"] == "torso spins."


def test_the_way_back_finds_a_prompt_of_clips_that_do_that_and_little_else(reasoner):
    assert reasoner.prompt_for({"left_arm": "left arm goes up."}) in SAYS["raise-left-hand"]
    assert reasoner.prompt_for({"left_arm": STILL["left_arm"]}) in SAYS["stand"], "not one of the hands that are raised"
    assert reasoner.prompt_for({"left_leg": "left leg steps.", "right_leg": "right leg steps."}) in SAYS["walk"]
    assert reasoner.prompt_for({"left_arm": "left arm goes up now."}) in SAYS["raise-left-hand"], "nearly what was said"
    with pytest.raises(KeyError, match="tail"):
        reasoner.prompt_for({"tail": "wags."})
    with pytest.raises(ValueError, match="at least one group"):
        reasoner.prompt_for({})


@pytest.mark.parametrize(
    "text", ["A person walks and raises the right hand.", "Someone raises the right hand while walking."]
)
def test_clauses_that_never_stood_together_are_put_together(reasoner, text):
    found = reasoner.reason([text])[0]
    assert found.groups["right_arm"] == "right arm goes up." and found.groups["left_arm"] == "left arm swings."
    assert found.groups["left_leg"] == "left leg steps." and found.interactions["neck|right_arm"].endswith(
        "passes the neck."
    )


def test_the_mirror_image_of_a_text_gets_the_mirrored_sentences(reasoner):
    partners = mirrored_slots().tolist()
    for text in ("A person raises the left hand.", "Someone raises the left hand while walking."):
        found, other = (reasoner.reason([one])[0].sentences for one in (text, mirrored_words(text)))
        assert tuple(mirrored_words(other[slot]) for slot in partners) == found


def test_a_clip_has_no_vote_about_itself():
    motions = clips(ALL, odd=(0, 1))
    reasoner, bank = learned(motions)
    found = reasoner.reason_left_out(motions, bank)
    assert found.shape == (15, 2, 21)
    said = lambda clip: bank.sentences[int(found[clip, 0, 0])]
    # Of three standing clips two spin, so that each of these two hears one voice against one, the third two.
    assert said(2) == "torso spins." and said(3) == STILL["torso"]
    lonely = clips(["stand", "walk", "walk"], odd=(0,))
    reasoner, bank = learned(lonely)
    assert bank.sentences[int(reasoner.reason_left_out(lonely, bank)[0, 0, 0])] != "torso spins."


@pytest.mark.parametrize(
    "text, parts",
    [
        (
            "A person raises the right hand while walking backward.",
            ["A person raises the right hand", "A person is walking backward"],
        ),
        ("Someone walks forward and raises the right hand.", ["Someone walks forward", "Someone raises the right hand"]),
        ("The person walks and then turns left.", ["The person walks", "The person turns left"]),
        ("A person raises the left and the right hand.", None),
        ("A person waves while being tired.", None),
        ("A person bows", None),
    ],
)
def test_clauses(text, parts):
    assert clauses(text) == ([text] if parts is None else [f"{part}." for part in parts])


def test_accuracy_on_clips_it_does_not_know(reasoner):
    right = accuracy(reasoner, clips(["walk", "raise-left-hand"]))
    assert right["groups"] == 1 == right["interactions"] == right["valid"] == right["mirrored"]
    assert right["groups, most frequent"] < 1
    wrong = replace(clips(["walk"]), prompts=(("A person stands still.",),))
    assert accuracy(reasoner, wrong)["groups"] == pytest.approx(2 / 6)


def test_an_empty_text_is_refused(reasoner):
    with pytest.raises(ValueError, match="text 1 is empty"):
        reasoner.reason(["A person walks.", " "])


def test_files_bring_the_same_answers_back(reasoner, tmp_path):
    reasoner.save(tmp_path / "reasoner.safetensors")
    found = Reasoner.load(tmp_path / "reasoner.safetensors", Bag())
    asked = ["A person walks.", "Someone raises the left hand while walking.", "A person hops."]
    assert found.reason(asked) == reasoner.reason(asked)
