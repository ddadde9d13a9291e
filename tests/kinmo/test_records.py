"""Records: order of keys, mirroring, JSON, wordings, and what a bad one says."""

from __future__ import annotations

import json

import pytest

from kinelib.bodies.procedural_words import mirrored_words
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.records import (
    NEUTRAL,
    WORDINGS,
    Record,
    RecordError,
    mirrored_key,
    read_records,
    shipped_records,
    write_records,
)

SIDES = {"left", "right"}


def a_record(**changes) -> Record:
    groups = {key: NEUTRAL[key] for key in reversed(GROUPS)} | {"left_arm": "The left arm waves twice."}
    pairs = {key: NEUTRAL[key] for key in PAIR_KEYS} | {
        "left_arm|right_leg": "The left arm waves while the right leg stands."
    }
    facts = {"name": "a clip", "fps": 20.0, "start": 0, "end": 40, "texts": ("A person waves the left hand.",)}
    facts |= {"groups": groups, "interactions": pairs, "keyframes": ((0, "Standing."), (39, "The left hand up."))}
    return Record(**(facts | {"provenance": {"annotator": "rules"}} | changes))


def test_keys_stand_in_their_fixed_order_however_they_were_given():
    record = a_record()
    assert tuple(record.groups) == GROUPS and tuple(record.interactions) == PAIR_KEYS
    assert len(record.sentences) == 21 and record.sentences[2] == "The left arm waves twice."


def test_a_mirror_exchanges_keys_and_words():
    mirrored = a_record().mirrored()
    assert mirrored.groups["right_arm"] == "The right arm waves twice."
    assert mirrored.interactions["right_arm|left_leg"] == "The right arm waves while the left leg stands."
    assert mirrored.texts == ("A person waves the right hand.",)
    assert mirrored.keyframes[1] == (39, "The right hand up.")


def test_mirroring_twice_changes_nothing():
    assert a_record().mirrored().mirrored() == a_record()


def test_a_mirrored_pair_keeps_the_order_of_groups():
    assert mirrored_key("left_arm|right_leg") == "right_arm|left_leg"
    assert mirrored_key("left_arm|right_arm") == "left_arm|right_arm"
    assert {mirrored_key(key) for key in PAIR_KEYS} == set(PAIR_KEYS)


def test_neutral_sentences_are_each_others_mirror_images():
    assert set(NEUTRAL) == {*GROUPS, *PAIR_KEYS}
    for key in PAIR_KEYS:
        assert mirrored_words(NEUTRAL[key]) == NEUTRAL[mirrored_key(key)]


def test_json_gives_the_record_back():
    assert Record.from_json(a_record().to_json()) == a_record()


def test_files_of_records_are_read_back_compressed_or_not(tmp_path):
    records = [a_record(name=str(number)) for number in range(3)]
    for name in ("records.jsonl", "records.jsonl.gz"):
        write_records(tmp_path / name, records)
        assert read_records(tmp_path / name) == records


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    content = json.loads(a_record().to_json())
    del content["groups"]["neck"]
    path.write_text(a_record().to_json() + "\n" + json.dumps(content) + "\n")
    with pytest.raises(RecordError, match=r"records.jsonl, line 2: .*groups: lacks neck"):
        read_records(path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"groups": dict.fromkeys((*GROUPS, "tail"), "x")}, "tail"),
        ({"interactions": dict.fromkeys(PAIR_KEYS[1:], "x")}, r"torso\|neck"),
        ({"groups": dict.fromkeys(GROUPS, 3)}, r"groups\['torso'\]"),
        ({"groups": dict.fromkeys(GROUPS, "x" * 300)}, "at most 200"),
        ({"end": 0}, "start < end"),
        ({"fps": 0.0}, "fps"),
        ({"texts": "A person waves."}, "several"),
        ({"keyframes": ((3, "a"), (3, "b"))}, "keyframes"),
        ({"keyframes": ((50, "a"),)}, "keyframes"),
    ],
)
def test_what_is_no_record_is_refused_by_name(changes, named):
    with pytest.raises(RecordError, match=named):
        a_record(**changes)


def test_another_schema_is_refused():
    content = json.loads(a_record().to_json()) | {"schema": "kinmo-record/0"}
    with pytest.raises(RecordError, match="kinmo-record/0"):
        Record.from_json(json.dumps(content))
    with pytest.raises(RecordError, match="one JSON object"):
        Record.from_json("not json")


def test_a_paraphrase_keeps_the_sides_and_depends_on_the_seed_alone():
    record = shipped_records()[0]
    said = {record.paraphrased(seed).sentences for seed in range(12)}
    assert len(said) > 6
    assert record.paraphrased(5) == record.paraphrased(5)
    for sentence, other in zip(record.sentences, record.paraphrased(1).sentences, strict=True):
        assert SIDES & set(sentence.split()) == SIDES & set(other.split())


def test_paraphrasing_and_dropping_commute_with_the_mirror():
    for record in shipped_records()[:40]:
        assert record.paraphrased(3).mirrored() == record.mirrored().paraphrased(3)
        assert record.dropped(0.4, 3).mirrored() == record.mirrored().dropped(0.4, 3)


def test_wordings_hold_no_side_and_are_all_in_use():
    said = " ".join(sentence for record in shipped_records() for sentence in record.sentences)
    said += " ".join(NEUTRAL.values())
    for row in WORDINGS:
        assert not SIDES & set(" ".join(row).split())
        assert row[0] in said, f"no sentence says {row[0]!r}"


def test_sentences_are_dropped_at_the_asked_rate():
    records = shipped_records()[:60]
    empty = sum(sentence == "" for number, r in enumerate(records) for sentence in r.dropped(0.25, number).sentences)
    assert 0.2 < empty / (21 * len(records)) < 0.3
    assert records[0].dropped(0.0, 1) == records[0]
    assert set(records[0].dropped(1.0, 1).sentences) == {""}
    with pytest.raises(ValueError, match="share"):
        records[0].dropped(1.5, 0)


def test_the_shipped_records_are_small_and_whole():
    records = shipped_records()
    assert len(records) == 180
    assert all(record.keyframes[0][0] == 0 and record.keyframes[-1][0] == record.end - 1 for record in records)
    assert all(sentence for record in records for sentence in record.sentences)
