"""Sets of clips with sentences at three levels: what is held out, how batches are drawn and mirrored, and the cache."""

from dataclasses import replace

import pytest
import torch
from toy_tokens import Letters, said_clips, said_motions

from kinelib.bodies.procedural import COMBINED, mirrored_clip
from kinelib.bodies.procedural_words import mirrored_words
from kinelib.kinmo import data
from kinelib.kinmo.codec import encode
from kinelib.kinmo.data import HELD_OUT_COMBINATIONS, SLOT_KEYS, Batches, combined_clips, mirrored_slots, motion_texts
from kinelib.kinmo.sentences import sentence_bank


@pytest.fixture(scope="module")
def said():
    return said_motions(6)


@pytest.fixture(scope="module")
def annotated():
    return motion_texts(said_clips(4))


def draw(batches, seed=0):
    return batches.draw(torch.Generator().manual_seed(seed))


# ---- what is held out


def test_held_out_combinations_are_a_third_closed_under_mirroring_and_made_of_known_parts():
    held = set(HELD_OUT_COMBINATIONS)
    assert held <= set(COMBINED) and {mirrored_words(name) for name in held} == held
    assert 0.3 <= len(held) / len(COMBINED) <= 0.4
    left = [name.split("+") for name in COMBINED if name not in held]
    for part, where in ((0, {going for going, _ in left}), (1, {gesture for _, gesture in left})):
        assert {name.split("+")[part] for name in held} <= where


def test_training_never_sees_a_held_out_combination():
    train, unseen = combined_clips(300, 3), combined_clips(20, 3, unseen=True)
    assert any("+" in clip.content for clip in train)
    assert not {clip.content for clip in train} & set(HELD_OUT_COMBINATIONS)
    assert {clip.content for clip in unseen} <= set(HELD_OUT_COMBINATIONS) and len(unseen) == 20


def test_captured_clips_are_cut_before_they_are_annotated(monkeypatch):
    from kinelib.bodies import clips as bodies

    short, long = said_clips(1)[0], said_clips(1)[0]
    motion = long.motion
    twice = replace(motion, rotations=motion.rotations.repeat(5, 1, 1, 1), root=motion.root.repeat(5, 1), contacts=None)
    monkeypatch.setattr(bodies, "bandai_namco_clips", lambda folder: [short, replace(long, motion=twice)])
    monkeypatch.setattr(bodies, "split", lambda clip: "train")
    found = data.captured_clips("anywhere", "train")
    assert [len(clip.motion) for clip in found] == [len(short.motion), 101, 101]
    assert torch.equal(found[2].motion.root[-1], twice.root[-1]) and found[2].take != found[1].take
    monkeypatch.setattr(bodies, "split", lambda clip: "test")
    assert [len(clip.motion) for clip in data.captured_clips("anywhere", "test")] == [len(short.motion), 101]


# ---- sets


def test_clips_are_encoded_and_annotated(annotated):
    clips = said_clips(4)
    features, lengths = annotated.padded(torch.tensor([2]))
    assert int(lengths) == len(clips[2].motion) - 1
    assert torch.allclose(features[0], encode(clips[2].motion), atol=1e-4)
    assert all(
        len(inner) == 6 and len(outer) == 15 for inner, outer in zip(annotated.groups, annotated.interactions, strict=True)
    )
    assert annotated.labels[1] == f"{clips[1].content}/{clips[1].style}" and annotated.prompts[3] == clips[3].prompts


def test_sets_are_joined_picked_and_padded(said):
    motions, _ = said
    twice = motions.join(motions).pick([1, 7, 3])
    assert twice.names == (motions.names[1], motions.names[1], motions.names[3])
    features, lengths = twice.padded(torch.tensor([0, 1]))
    assert torch.equal(features[0], features[1]) and lengths[0] == lengths[1]
    cut, lengths = twice.padded(torch.tensor([2, 0]), frames=10)
    assert cut.shape == (2, 10, 263) and lengths.tolist() == [10, 10]


def test_parts_of_a_set_must_fit(said):
    motions, _ = said
    with pytest.raises(ValueError, match="do not fit"):
        replace(motions, labels=motions.labels[:-1])
    with pytest.raises(ValueError, match=r"clip '0' has .* 5 group"):
        replace(motions, groups=(motions.groups[0][:5], *motions.groups[1:]))
    with pytest.raises(ValueError, match="no part 'valid'"):
        data.training_set(None, 4, part="valid")
    with pytest.raises(ValueError, match="no clips"):
        data.training_set(None, 0)
    with pytest.raises(ValueError, match="no clips"):
        motion_texts([])


def test_the_cache_gives_back_what_was_made(tmp_path, monkeypatch):
    made = data.training_set(None, 4, tmp_path)
    monkeypatch.setattr(data, "motion_texts", lambda clips: pytest.fail("made again"))
    found = data.training_set(None, 4, tmp_path)
    assert torch.equal(found.frames, made.frames) and torch.equal(found.lengths, made.lengths)
    assert all(getattr(found, column) == getattr(made, column) for column in data.COLUMNS)


# ---- batches


def test_a_batch_has_vectors_of_its_clips_own_sentences(said):
    motions, bank = said
    batch = draw(Batches(motions, bank, size=32, dropped=0.0, mirrored=0.0))
    assert batch["features"].shape[2] == 263 and batch["groups"].shape == (32, 6, 384)
    own = {motions.names[row]: row for row in range(len(motions))}
    columns = [batch[name] for name in ("text", "groups", "interactions", "sentences")]
    for text, groups, pairs, number in zip(*columns, strict=True):
        clips = [row for row in own.values() if bank.sentences[int(number)] in motions.prompts[row]]
        assert torch.equal(text, bank.vectors[number])
        assert any(torch.equal(groups, bank.vectors[bank.rows(motions.groups[row])]) for row in clips)
        assert any(torch.equal(pairs, bank.vectors[bank.rows(motions.interactions[row])]) for row in clips)


def test_mirrored_clips_say_mirrored_things_about_mirrored_motion():
    clips = said_clips(1)
    motions, flipped = motion_texts(clips), motion_texts([mirrored_clip(clips[0])])
    bank = sentence_bank(motions.sentences() + flipped.sentences(), Letters())
    batch = draw(Batches(motions, bank, size=1, dropped=0.0, mirrored=1.0))
    assert torch.allclose(batch["features"][0], flipped.frames, atol=1e-3)
    assert bank.sentences[int(batch["sentences"])] in flipped.prompts[0]
    assert torch.equal(batch["groups"][0], bank.vectors[bank.rows(flipped.groups[0])])
    assert torch.equal(batch["interactions"][0], bank.vectors[bank.rows(flipped.interactions[0])])


def test_slots_mirror_onto_each_other():
    partners = mirrored_slots()
    assert partners[partners].tolist() == list(range(21))
    named = {SLOT_KEYS[i]: SLOT_KEYS[int(j)] for i, j in enumerate(partners)}
    assert named["left_arm"] == "right_arm" and named["neck"] == "neck"
    assert named["torso|left_leg"] == "torso|right_leg" and named["left_arm|right_leg"] == "right_arm|left_leg"
    assert named["left_arm|right_arm"] == "left_arm|right_arm"


def test_predicted_texts_take_the_place_of_the_clips_own(said):
    motions, bank = said
    guess = bank.rows(motions.groups[0] + motions.interactions[0])
    predicted = guess.expand(len(motions), 1, 21)
    with_wordings = predicted.expand(-1, max(map(len, motions.prompts)), -1)
    batch = draw(Batches(motions, bank, size=16, predicted=with_wordings, predicted_share=1.0, dropped=0.0, mirrored=0.0))
    assert torch.equal(batch["groups"], bank.vectors[guess[:6]].expand(16, 6, -1))
    batch = draw(Batches(motions, bank, size=64, predicted=with_wordings, predicted_share=0.5, dropped=0.0, mirrored=0.0))
    share = (batch["groups"] == bank.vectors[guess[:6]]).all(-1).all(-1).float().mean()
    assert 0.3 < share < 0.9


def test_silence_and_dropped_sentences(said):
    motions, bank = said
    quiet = draw(Batches(motions, bank, size=8, silent=1.0))
    assert quiet["text"].abs().sum() == 0 and quiet["groups"].abs().sum() == 0
    some = draw(Batches(motions, bank, size=64, dropped=0.3))
    gone = (some["interactions"] == 0).all(-1).float().mean()
    assert 0.2 < gone < 0.4 and (some["text"] != 0).any(-1).all()


def test_labels_of_mirrored_clips_are_mirrored_and_draws_repeat(said):
    motions, bank = said
    heard = []
    for mirrored in (0.0, 1.0):
        batches = Batches(motions, bank, size=16, mirrored=mirrored)
        drawn = [draw(batches, seed) for seed in range(40)]
        assert all(torch.equal(draw(batches, 5)[key], drawn[5][key]) for key in drawn[5])
        heard.append({int(number) for batch in drawn for number in batch["labels"]})
    names = dict.fromkeys(name for label in motions.labels for name in (label, mirrored_words(label)))
    numbers = {name: number for number, name in enumerate(names)}
    assert heard[0] == {numbers[label] for label in motions.labels} != heard[1]
    assert heard[1] == {numbers[mirrored_words(label)] for label in motions.labels}


def test_shares_of_sources(said):
    motions, bank = said
    batches = Batches(motions, bank, size=64, shares={"captured": 1.0})
    captured = [said for said, source in zip(motions.prompts, motions.sources, strict=True) if source == "captured"]
    heard = {bank.sentences[int(number)] for number in draw(batches)["sentences"]}
    known = {one for said in captured for sentence in said for one in (sentence, mirrored_words(sentence))}
    assert heard <= known
    with pytest.raises(ValueError, match="no clip of nobody"):
        Batches(motions, bank, size=4, shares={"nobody": 0.5})
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        Batches(motions, bank, size=4, dropped=1.5)
