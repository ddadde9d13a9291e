"""Retrieval measured: predicted and oracle texts, all protocols, and what a difference of two systems is."""

import pytest
import torch
from toy_tokens import said_motions

from kinelib.bodies.retrieval import everything
from kinelib.kinmo import retrieve
from kinelib.kinmo.aligner import AlignerConfig, HierarchicalAligner
from kinelib.kinmo.reasoner import Reasoner
from kinelib.kinmo.retrieve import Report, compare, embed_motions, embed_texts, finer_texts, per_clip, protocols, report
from kinelib.notation import ShapeError


@pytest.fixture(scope="module")
def said():
    return said_motions(6)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return HierarchicalAligner(AlignerConfig(width=16, layers=1, heads=2, feed_forward=32)).eval()


def made(scores, names=None, texts="predicted"):
    names = tuple(map(str, range(len(scores)))) if names is None else names
    return Report(texts, {"a": everything(scores)}, scores, names)


# ---- what is embedded


def test_texts_and_motions_are_embedded_as_the_model_does(said, model, monkeypatch):
    motions, bank = said
    finer = finer_texts(motions, None)
    means = embed_texts(model, [said[0] for said in motions.prompts], finer, bank)
    whole = {
        "text": bank.vectors[bank.rows([said[0] for said in motions.prompts])],
        "groups": torch.stack([bank.vectors[bank.rows(groups)] for groups in motions.groups]),
        "interactions": torch.stack([bank.vectors[bank.rows(pairs)] for pairs in motions.interactions]),
    }
    levels = model.encode_texts(whole)
    assert all(torch.allclose(means[name], levels[name].mean, atol=1e-5) for name in model.names)
    together = embed_motions(model, motions)
    monkeypatch.setattr(retrieve, "MEASURED_AT_ONCE", 1)
    assert torch.allclose(embed_motions(model, motions), together, atol=1e-4)


def test_predicted_texts_come_from_the_prompt_and_not_from_the_motion(said):
    motions, bank = said
    known = motions.pick([0, 1, 2])
    reasoner = Reasoner.learn(known, bank)
    found = finer_texts(motions.pick([4]), reasoner)
    said_before = {sentence for texts in (*known.groups, *known.interactions) for sentence in texts}
    mirrored = {bank.sentences[int(row)] for row in bank.reflected[bank.rows(sorted(said_before))]}
    assert set(found[0]) <= said_before | mirrored and set(found[0]) != {*motions.groups[4], *motions.interactions[4]}
    assert finer_texts(motions, None)[4] == (*motions.groups[4], *motions.interactions[4])


def test_a_report_says_where_its_texts_came_from_and_how_large_the_gallery_is(said, model):
    motions, bank = said
    oracle, predicted = report(model, motions, bank), report(model, motions, bank, Reasoner.learn(motions, bank))
    assert (oracle.texts, predicted.texts) == ("oracle", "predicted")
    assert set(oracle.protocols) == {"a", "b", "label"}  # six clips are too few for 100, and for 32
    rows = predicted.rows(("R@1",), ("a",))
    assert set(rows) == {
        "(a) R@1 of 6, text to motion, predicted",
        "(a) R@1 of 6, motion to text, predicted",
        "(a) R@1 of 6, chance, predicted",
    }
    assert rows["(a) R@1 of 6, chance, predicted"] == pytest.approx(100 / 6)
    with pytest.raises(ShapeError, match="at least 2"):
        report(model, motions.pick([0]), bank)


# ---- protocols


def test_perfect_scores_are_perfect_in_every_protocol_there_is(said):
    motions, _ = said
    many = motions.pick([row % 6 for row in range(120)])
    found = protocols(torch.eye(120), torch.randn(120, 8, generator=torch.Generator().manual_seed(0)), many)
    assert set(found) == {"a", "b", "c", "d", "label"}
    assert {name: one.gallery for name, one in found.items()} == {"a": 120, "b": 120, "label": 120, "c": 100, "d": 32}
    assert all(one.text_to_motion["R@1"] == 100 == one.motion_to_text["R@1"] for one in found.values())


def test_a_motion_of_the_same_label_counts_as_found_by_label_only(said):
    motions, _ = said
    pair = motions.pick([0, 0])  # two clips of one label, mistaken for each other
    found = protocols(torch.eye(2).flip(0), torch.eye(2), pair)
    assert found["a"].text_to_motion["R@1"] == 0 and found["label"].text_to_motion["R@1"] == 100
    assert found["label"].chance["R@1"] == 100 and found["a"].chance["R@1"] == 50


# ---- differences


def test_a_system_is_no_better_than_itself_and_better_than_a_blind_one():
    generator = torch.Generator().manual_seed(0)
    good, blind = torch.eye(60) * 2 + torch.rand(60, 60, generator=generator), torch.rand(60, 60, generator=generator)
    alike = compare(made(good), made(good))
    assert all(one.value == one.low == one.high == 0 for one in alike.values())
    found = compare(made(good), made(blind))
    assert set(found) == {f"{n}, {w}" for n in ("R@1", "R@3", "R@10", "MRR") for w in ("text to motion", "motion to text")}
    assert all(one.low > 0 and one.count == 60 for one in found.values())
    both = everything(good).text_to_motion["R@1"] - everything(blind).text_to_motion["R@1"]
    assert found["R@1, text to motion"].value == pytest.approx(both)


def test_differences_by_label_forgive_mistakes_within_a_label():
    right, swapped = torch.eye(4), torch.eye(4)[[1, 0, 3, 2]]
    labels = ["x", "x", "y", "y"]
    assert compare(made(right), made(swapped))["R@1, text to motion"].value == 100
    assert compare(made(right), made(swapped), labels=labels)["R@1, text to motion"].value == 0


def test_systems_are_compared_on_the_same_clips_only():
    with pytest.raises(ShapeError, match="same clips"):
        compare(made(torch.eye(3)), made(torch.eye(3), names=("0", "1", "x")))


def test_what_a_clip_adds():
    found = per_clip(torch.tensor([0.0, 0.5, 2.0, 10.0]))
    assert found["R@1"].tolist() == [100, 100, 0, 0] and found["R@3"].tolist() == [100, 100, 100, 0]
    assert found["R@10"].tolist() == [100, 100, 100, 0] and found["MRR"][2] == pytest.approx(100 / 3)
