"""Cohen's kappa on tables that can be checked by hand, and the agreement of rules with truth and labels."""

from __future__ import annotations

import math

import pytest

from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.truth import measure_all
from kinelib.kinmo.agreement import QUESTIONS, agreement, cohens_kappa, compare, label_says, words_say
from kinelib.kinmo.annotate import annotate_clips


def test_kappa_of_a_table_known_by_hand():
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    agreed, chance, kappa = cohens_kappa(first, second)
    assert (agreed, chance, kappa) == pytest.approx((0.7, 0.5, 0.4))


def test_kappa_ends_of_the_scale():
    assert cohens_kappa("abab", "abab")[2] == 1
    assert cohens_kappa("abab", "baba")[2] == -1
    assert cohens_kappa("aabb", "abab")[2] == 0
    assert math.isnan(cohens_kappa("aaaa", "aaaa")[2])
    with pytest.raises(ValueError, match="as many"):
        cohens_kappa("aa", "a")


def test_questions_nobody_answers_are_left_out_and_confusion_is_named():
    first = [dict.fromkeys(QUESTIONS, "x"), dict.fromkeys(QUESTIONS, "y")]
    second = [dict.fromkeys(QUESTIONS, "x") | {"bow": None}, dict.fromkeys(QUESTIONS, "x") | {"bow": None}]
    table = {row.question: row for row in agreement(first, second)}
    assert "bow" not in table and table["turn"].clips == 2
    assert table["turn"].confused == (("y", "x", 1),)


def test_words_agree_with_geometry_and_with_what_was_planned():
    clips = procedural_clips(100, 77)
    records, facts = annotate_clips(clips), measure_all([clip.motion for clip in clips])
    for other in ("truth", "label"):
        table = compare(clips, records, facts, other)
        assert len(table) == len(QUESTIONS)
        for row in table:
            assert row.kappa > 0.8 or row.agreed > 0.98, row
            assert row.chance < 1 and row.clips > 40
    with pytest.raises(ValueError, match="truth or label"):
        compare(clips, records, facts, "people")


def test_words_of_a_mirrored_record_answer_with_the_other_side():
    clip = procedural_clips(1, 1, contents=["wave-left-hand"])[0]
    record = annotate_clips([clip])[0]
    assert words_say(record)["waving arm"] == "left" and words_say(record.mirrored())["waving arm"] == "right"
    assert label_says(clip)["waving arm"] == "left"
