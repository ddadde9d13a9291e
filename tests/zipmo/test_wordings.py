"""Other words for captions: every caption has some, they say the same, and prompts are tested with others."""

import re
from collections import Counter

import pytest
import torch

from kinelib.tracks.scene_looks import COLOURS
from kinelib.tracks.scenes import sample_scenes
from kinelib.zipmo import train
from kinelib.zipmo.prompt_words import WORDINGS, WORDS
from kinelib.zipmo.wordings import DRIFTS, STILL, reworded, rules


@pytest.fixture(scope="module")
def captions():
    return sorted(set(sample_scenes(3000, 5, size=8, num_frames=2).captions))


def test_every_caption_of_the_generator_has_other_wordings_and_every_rule_serves_some(captions):
    used = Counter()
    for caption in captions:
        others = reworded(caption)
        assert len(set(others)) >= 4 and caption not in others
        assert not any("{" in sentence or "None" in sentence for sentence in others)
        used[next(k for k, (pattern, _) in enumerate(rules()) if pattern.search(caption))] += 1
    assert set(used) == set(range(len(rules())))


def test_other_wordings_keep_sides_senses_colours_and_the_camera(captions):
    for caption in captions:
        colours = set(re.findall("|".join(COLOURS), caption))
        clockwise = re.search(r"(counter-)?clockwise", caption)
        for sentence in reworded(caption):
            assert set(re.findall(rf"\b({'|'.join(COLOURS)})\b", sentence)) <= colours
            if turned := re.search(r"(counter-?|anti-?)?clockwise", sentence):
                assert clockwise and bool(turned[1]) == bool(clockwise[1])
            # A side may be the way of going or of turning, never one that the caption does not name.
            for side in re.findall(r"\b(left|right)", sentence):
                assert re.search(rf"\b{side}", caption)
            if "camera drifts" in caption:
                assert re.search("camera|view|hand|filming|picture", sentence)


def test_examples_that_a_reader_can_check():
    says = lambda caption, words: any(words in sentence for sentence in reworded(caption))
    assert says(
        "a red robot takes the left gate and then the right gate to the blue flag", "the red robot goes left, then right"
    )
    assert says("a blue car heading up and right turns left", "steer the blue car to the left")
    assert not says("a blue car moves left, then turns left", "right")
    assert says("the green fan spins counter-clockwise", "anti") and says(
        "a red ball shot left hardly bounces", "a low bounce"
    )
    assert says("the camera zooms in on a red ball and a blue box", "the objects become larger")


def test_sentences_of_other_sources_are_left_alone():
    for sentence in ("", "someone walks a dog", "the kettle boils", "a red bicycle"):
        assert reworded(sentence) == ()
    generator = torch.Generator().manual_seed(0)
    assert train.say_otherwise(["", "a person walks"], generator, share=1.0) == ["", "a person walks"]


def test_a_share_of_the_captions_is_told_in_other_words(captions):
    told = train.say_otherwise(captions, torch.Generator().manual_seed(0), share=0.5)
    changed = [(a, b) for a, b in zip(captions, told, strict=True) if a != b]
    assert 0.4 < len(changed) / len(captions) < 0.6 and all(b in reworded(a) for a, b in changed)
    assert told == train.say_otherwise(captions, torch.Generator().manual_seed(0), share=0.5)
    assert captions == train.say_otherwise(captions, torch.Generator().manual_seed(0), share=0.0)


def test_no_sentence_that_prompts_are_tested_with_is_trained_on(captions):
    trained = {sentence for caption in captions for sentence in reworded(caption)} | set(captions)
    endings = "|".join((*DRIFTS, *STILL, "while the camera drifts"))
    trained |= {re.sub(f" ({endings})$", "", sentence) for sentence in trained}
    tested = {
        sentence.format(c=colour)
        for words in WORDS.values()
        for said in words.said.values()
        for sentences in said
        for sentence in sentences
        for colour in COLOURS
    }
    assert len(tested) > 1000 and not tested & trained


def test_every_question_has_its_wordings():
    assert set(next(iter(WORDS.values())).said) == set(WORDINGS) - {"generator"}
    for words in WORDS.values():
        assert all(len(said) == len(words.options) for said in words.said.values())
        every = [sentence for said in words.said.values() for sentences in said for sentence in sentences]
        assert len(set(every)) == len(every) >= 5 * len(words.options)
