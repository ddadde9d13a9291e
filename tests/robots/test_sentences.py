"""The sentences of the tasks: one for each, none for two, and opposite ones for opposite tasks."""

import pytest

from kinelib.robots.sentences import SENTENCES, held_out_sentence, sentence
from kinelib.robots.worlds import WorldError


def test_there_are_fifty_tasks_and_no_sentence_means_two_of_them():
    assert len(SENTENCES) == 50 and list(SENTENCES) == sorted(SENTENCES)
    everything = [text for texts in SENTENCES.values() for text in texts]
    assert all(len(texts) == 4 for texts in SENTENCES.values())
    assert len(set(everything)) == len(everything) == 200
    assert all(text == text.strip().lower() and 2 <= len(text.split()) <= 15 for text in everything)


def test_the_held_out_paraphrase_is_never_drawn():
    for task, texts in SENTENCES.items():
        drawn = {sentence(task, seed) for seed in range(40)}
        assert drawn == set(texts[:3]) and held_out_sentence(task) == texts[3]
        assert sentence(task) == texts[0] and sentence(task, 7) == sentence(task, 7)


def test_opposite_tasks_say_opposite_things():
    for task, word, other in (
        ("faucet-open", "right", "left"),
        ("faucet-close", "left", "right"),
        ("handle-press", "down", "up"),
        ("handle-pull", "up", "down"),
    ):
        # By the start of a word: "downward" says down.
        words = " ".join(SENTENCES[task]).split()
        assert any(one.startswith(word) for one in words) and not any(one.startswith(other) for one in words)


def test_an_unknown_task_has_no_sentence():
    with pytest.raises(WorldError, match="Meta-World task 'fly'"):
        sentence("fly")
