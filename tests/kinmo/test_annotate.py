"""Sentences say what clips show, the same of a mirrored clip with sides exchanged, and the cache follows the motion."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.skeletons import SOMA30
from kinelib.kinmo.annotate import annotate, annotate_clips, annotate_motions, signs_of
from kinelib.kinmo.motion_signs import correlation, starts, turns
from tests.kinmo.posing import between, standing


@pytest.fixture(scope="module")
def clips():
    return procedural_clips(64, 21)


@pytest.fixture(scope="module")
def records(clips):
    return annotate_clips(clips)


def one(content: str, seed: int = 3):
    return annotate_clips(procedural_clips(1, seed, contents=[content], styles=["normal"]))[0]


def test_mirrored_motion_has_the_mirrored_sentences_word_for_word(clips, records):
    mirrored = annotate_motions([clip.motion.mirrored() for clip in clips])
    for record, other in zip(records, mirrored, strict=True):
        expected = record.mirrored()
        assert expected.groups == other.groups and expected.interactions == other.interactions, record.name


def test_sentences_do_not_depend_on_where_a_clip_happens_and_where_it_faces(clips):
    motions = [clip.motion for clip in clips[:24]]
    moved = annotate_motions([motion.rotated(2.0).translated((3.0, -1.0)) for motion in motions])
    same = [a.sentences == b.sentences for a, b in zip(annotate_motions(motions), moved, strict=True)]
    assert sum(same) >= 22  # a number may lie on a limit


def test_sentences_do_not_depend_on_the_clips_measured_alongside(clips, records):
    for row in (0, 17, 60):
        assert annotate(clips[row].motion).sentences == records[row].sentences


def test_a_raised_arm_is_said_to_be_raised():
    record = annotate(between(standing(), standing(left_shoulder=(0, 0, 80))))
    assert record.groups["left_arm"].startswith("The left arm is raised") and "above the head" in record.groups["left_arm"]
    assert "stays there" in record.groups["left_arm"]
    assert record.groups["right_arm"] == "The right arm hangs at the side."
    assert record.interactions["left_arm|right_arm"] == "The left arm is raised while the right arm stays down."
    assert record.interactions["neck|left_arm"] == "The left hand is raised above the head."
    lowered = annotate(between(standing(left_shoulder=(0, 0, 80)), standing()))
    assert "comes down" in lowered.groups["left_arm"] or "lowered" in lowered.groups["left_arm"]


def test_who_stands_does_nothing():
    record = annotate(standing())
    assert record.groups["torso"] == "The torso stays in place and is held upright."
    assert record.groups["left_leg"] == "The left leg stands still."
    assert record.interactions["left_arm|left_leg"] == "Nothing changes between the left arm and the left leg."


@pytest.mark.parametrize(
    ("content", "key", "words"),
    [
        ("walk", "torso", "moves forward"),
        ("walk", "left_leg", "steps forward"),
        ("walk", "left_arm|right_leg", "at the same time"),
        ("walk", "left_arm|left_leg", "when the left leg goes back"),
        ("walk-back", "torso", "moves backward"),
        ("walk-left", "torso", "to the left"),
        ("run", "torso", "at a run"),
        ("turn-right", "torso", "turns right by about"),
        ("walk-turn-left", "torso", "turns left by about"),
        ("wave-right-hand", "right_arm", "waves"),
        ("wave-both-hands", "left_arm|right_arm", "Both arms wave at the same time"),
        ("squat", "left_leg|right_leg", "Both legs bend at the same time and stretch again"),
        ("jump", "torso", "jumps up"),
        ("kick-left", "left_leg", "kicks forward"),
        ("kick-left", "right_leg", "stands still and carries the body"),
        ("sit-down", "torso", "stays low"),
        ("bow", "torso", "bends forward"),
        ("bow", "torso|neck", "together with the torso"),
        ("walk+wave-left-hand", "left_arm|right_leg", "The left arm waves while the right leg steps"),
    ],
)
def test_what_was_planned_is_said(content, key, words):
    said = [one(content, seed) for seed in (3, 4, 5)]
    assert sum(words in (record.groups | record.interactions)[key] for record in said) >= 2


def test_counts_follow_the_plan():
    squats = procedural_clips(12, 8, contents=["squat"])
    for clip, record in zip(squats, annotate_clips(squats), strict=True):
        times = clip.motion.provenance["facts"]["times"]
        assert ("twice" in record.groups["torso"]) == (times == 2), record.groups["torso"]


def test_prompts_become_the_global_texts(clips, records):
    assert records[0].texts == clips[0].prompts
    assert records[0].end == len(clips[0].motion) and records[0].provenance["annotator"] == "rules"


def test_the_cache_is_read_and_follows_the_motion(clips, tmp_path, monkeypatch):
    first = annotate_clips(clips[:4], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("kinelib.kinmo.annotate.annotate_motions", None)  # not called again
    assert annotate_clips(clips[:4], cache=tmp_path) == first
    monkeypatch.undo()
    other = replace(clips[0], motion=clips[0].motion.translated((0.5, 0.0)))
    annotate_clips([other, *clips[1:4]], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_cache_is_made_again(clips, tmp_path):
    first = annotate_clips(clips[:2], cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"damaged")
    assert annotate_clips(clips[:2], cache=tmp_path) == first


def test_motions_of_different_rates_and_skeletons_keep_their_places(clips):
    short = clips[0].motion.resampled(10.0)
    other = standing(12)
    soma = type(other)(torch.eye(3).repeat(12, len(SOMA30), 1, 1), SOMA30.rest()[:1].repeat(12, 1), 30.0, SOMA30)
    mixed = annotate_motions([clips[0].motion, soma, short, clips[1].motion])
    assert mixed[0].sentences == annotate(clips[0].motion).sentences
    assert mixed[1].fps == 30.0 and mixed[2].end == len(short)


def test_a_clip_that_is_too_short_is_named(clips):
    with pytest.raises(ValueError, match="motion 1 .*2 frames"):
        signs_of([clips[0].motion, clips[1].motion.slice(0, 2)])


def test_turns_starts_and_correlation_of_known_signals():
    time = torch.linspace(0, 4, 200)
    swing = torch.sin(2 * torch.pi * time)[None, :, None]  # four periods
    assert turns(swing, 0.5).item() == 7 and turns(0.1 * swing, 0.5).item() == 0
    assert turns(-swing, 0.5).item() == 7
    assert starts(swing > 0.5).item() == 4
    assert correlation(swing, swing).item() == pytest.approx(1, abs=1e-4)
    assert correlation(swing, -swing).item() == pytest.approx(-1, abs=1e-4)
    assert correlation(swing, torch.zeros_like(swing)).item() == 0
