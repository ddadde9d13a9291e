"""Prompts from labels: every label of the data has words, many of them, the same each time, and mirrored when asked."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from kinelib.bodies.captions import ACTIONS, MANNERS, CaptionError, mirrored, prompts
from kinelib.bodies.truth import content_of

DATA = Path(os.environ.get("KINELIB_DATA", "no such folder"))


def test_every_pair_of_labels_has_several_different_sentences():
    for content in ACTIONS:
        for style in MANNERS:
            sentences = prompts(content, style)
            assert len(set(sentences)) == len(sentences) >= 3, (content, style)
            for sentence in sentences:
                assert sentence[0].isupper() and sentence.endswith(".") and "  " not in sentence and " ." not in sentence


def test_the_plainest_comes_first_and_the_seed_decides_the_rest():
    assert prompts("walk-turn-left", "elderly", 1) == ("A person walks forward and turns left like an elderly person.",)
    assert prompts("walk", "normal", 1) == ("A person walks forward.",)
    assert prompts("walk", "sad", 6, seed=1) == prompts("walk", "sad", 6, seed=1)
    assert prompts("walk", "sad", 6, seed=1) != prompts("walk", "sad", 6, seed=2)
    assert len({sentence for seed in range(20) for sentence in prompts("walk", "sad", 8, seed)}) > 30


def test_a_sentence_names_the_side_of_its_label_and_no_other():
    for content in ACTIONS:
        for sentence in prompts(content, "angry", 12):
            words = sentence.lower().replace(".", "").split()
            if "both" in content:
                assert ("left" in words) == ("right" in words)
            else:
                assert ("left" in words) == ("left" in content) and ("right" in words) == ("right" in content), sentence


@pytest.mark.parametrize("content", [one for one in ACTIONS if one.startswith(("raise", "wave", "walk-turn"))])
def test_sentences_are_understood_as_their_label(content):
    """The evaluator-free test of generated motion reads prompts; it must read ours as what they were made from."""
    for style in ("normal", "elderly", "angry"):
        for sentence in prompts(content, style, 10):
            assert content_of(sentence) == content, sentence


def test_mirrored_words_are_those_of_the_other_label():
    for content in ("wave-left-hand", "walk-turn-right", "walk-left", "raise-up-both-hands", "bow"):
        other = mirrored(content)
        assert other in ACTIONS and mirrored(other) == content
        if "both" not in content:
            assert {mirrored(action) for action in ACTIONS[content]} == set(ACTIONS[other])
        for sentence in prompts(content, "sad", 12):
            assert mirrored(mirrored(sentence)) == sentence
            assert (mirrored(sentence) == sentence) == (
                content in ("bow", "raise-up-both-hands") and " left" not in sentence
            ), sentence
    assert mirrored("Left of the bright, leftover light") == "Right of the bright, leftover light"


def test_unknown_labels_are_refused_with_the_known_ones():
    with pytest.raises(CaptionError, match=r"content 'swim'.*walk-turn-left"):
        prompts("swim")
    with pytest.raises(CaptionError, match=r"style 'purple'.*youthful"):
        prompts("walk", "purple")


def test_every_label_of_the_data_has_words():
    if not (DATA / "bandai_namco.zip").is_file():
        pytest.skip("KINELIB_DATA holds no bandai_namco.zip")
    with zipfile.ZipFile(DATA / "bandai_namco.zip") as file:
        labels = {tuple(name.split("_")[1:3]) for name in file.namelist() if name.endswith(".bvh")}
    assert len(labels) > 200
    for content, style in labels:
        assert prompts(content, style)
