"""The aligner: shapes of its levels, what each depends on, masks, losses, ablations, and that it learns."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange

from kinelib.bodies.tmr import SequenceEncoder
from kinelib.kinmo.aligner import AlignerConfig, HierarchicalAligner
from kinelib.learning import checkpoints
from kinelib.notation import ShapeError

TINY = AlignerConfig(width=16, layers=1, heads=2, feed_forward=32, dropout=0.0, frames=24)


def batch(count=8, frames=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=generator)
    return {
        "features": rand(count, frames, 263),
        "lengths": torch.tensor([frames, frames - 7] * (count // 2)),
        "text": rand(count, 384),
        "groups": rand(count, 6, 384),
        "interactions": rand(count, 15, 384),
        "labels": torch.arange(count),
    }


def aligner(**changes):
    torch.manual_seed(0)
    return HierarchicalAligner(replace(TINY, **changes)).eval()


# ---- levels


def test_every_level_has_a_mean_and_a_state_a_sentence():
    levels = aligner().encode_texts(batch())
    assert [*levels] == ["global", "group", "interaction"]
    assert all(level.mean.shape == (8, 16) for level in levels.values())
    assert [level.states.shape for level in levels.values()] == [(8, 1, 16), (8, 6, 16), (8, 15, 16)]


def test_a_level_depends_on_the_ones_before_and_not_on_the_ones_after():
    model, one = aligner(), batch()
    for changed, touched in (
        ("text", {"global", "group", "interaction"}),
        ("groups", {"group", "interaction"}),
        ("interactions", {"interaction"}),
    ):
        other = one | {changed: one[changed] + 1}
        before, after = model.encode_texts(one), model.encode_texts(other)
        moved = {name for name in before if not torch.allclose(before[name].mean, after[name].mean, atol=1e-6)}
        assert moved == touched


def test_without_cross_attention_every_level_stands_alone():
    model, one = aligner(cross=False), batch()
    before, after = model.encode_texts(one), model.encode_texts(one | {"text": one["text"] + 1})
    assert torch.equal(before["group"].mean, after["group"].mean)
    assert not torch.allclose(before["global"].mean, after["global"].mean)


def test_a_flat_aligner_has_one_level_that_reads_everything():
    model, one = aligner(flat=True), batch()
    levels = model.encode_texts(one)
    assert [*levels] == ["flat"] == [*model.names] and levels["flat"].states.shape == (8, 22, 16)
    for changed in ("text", "groups", "interactions"):
        other = model.encode_texts(one | {changed: one[changed] + 1})
        assert not torch.allclose(levels["flat"].mean, other["flat"].mean)


def test_groups_are_told_apart_by_their_place():
    model, one = aligner(), batch()
    swapped = one | {"groups": one["groups"][:, [0, 1, 3, 2, 4, 5]]}
    assert not torch.allclose(model.encode_texts(one)["group"].mean, model.encode_texts(swapped)["group"].mean, atol=1e-4)


def test_a_sentence_that_is_not_there_has_no_influence_but_its_absence():
    model, one = aligner(), batch()
    silent = one | {"groups": one["groups"].clone()}
    silent["groups"][:, 2] = 0
    level = model.encode_texts(silent)["group"]
    assert level.mask[:, 2].logical_not().all() and level.mask[:, [0, 1, 3, 4, 5]].all()
    with torch.no_grad():
        model.text_encoders["group"].places[2] += 5.0
    assert torch.allclose(model.encode_texts(silent)["group"].mean, level.mean, atol=1e-5)
    nothing = {name: torch.zeros_like(one[name]) for name in ("text", "groups", "interactions")}
    assert all(torch.isfinite(level.mean).all() for level in model.encode_texts(nothing).values())


def test_missing_texts_are_named():
    one = batch()
    del one["interactions"]
    with pytest.raises(KeyError, match="interactions"):
        aligner().encode_texts(one)
    assert [*aligner(levels=("global", "group")).encode_texts(one)] == ["global", "group"]


# ---- motion


def test_what_is_beyond_a_clips_end_does_not_matter():
    model, one = aligner(), batch()
    other = one["features"].clone()
    other[1, 13:] = 100.0
    found, again = (model.encode_motion(features, one["lengths"]).mean for features in (one["features"], other))
    assert torch.allclose(found, again, atol=1e-5)
    cut = model.encode_motion(one["features"][1:2, :13], torch.tensor([13])).mean
    assert torch.allclose(cut, found[1:2], atol=1e-5)


def test_long_clips_are_read_from_their_beginning():
    model, one = aligner(), batch(2, frames=40)
    lengths = torch.tensor([40, 40])
    other = one["features"].clone()
    other[:, 24:] += 1
    assert torch.equal(model.encode_motion(one["features"], lengths).mean, model.encode_motion(other, lengths).mean)
    with pytest.raises(ShapeError, match="features"):
        model.encode_motion(torch.zeros(1, 10, 200), torch.tensor([10]))


def test_the_motion_encoder_is_tmrs():
    model, one = aligner(), batch()
    assert type(model.motion_encoder) is SequenceEncoder
    tokens, mask = model.tokens(one["features"], one["lengths"])
    assert tokens.shape == (8, 5, 4 * 263) and mask.sum(1).tolist() == [5, 4] * 4
    rows = rearrange(tokens, "b t (p c) -> b (t p) c", p=4)
    assert torch.allclose(rows[0], model.statistics.normalize(one["features"][0]), atol=1e-5)


# ---- scores and losses


def test_the_score_is_the_mean_of_cosines_and_that_of_joined_unit_vectors():
    model = aligner()
    means = {name: torch.randn(5, 16) for name in model.names}
    motions = torch.randn(7, 16)
    unit = lambda x: torch.nn.functional.normalize(x, dim=-1)
    joined = torch.cat([unit(means[name]) for name in model.names], -1)
    thrice = unit(motions).repeat(1, 3)
    expected = torch.nn.functional.cosine_similarity(joined[:, None], thrice[None], dim=-1)
    assert torch.allclose(model.similarities(means, motions), expected, atol=1e-6)
    last = aligner(score="last").similarities(means, motions)
    assert torch.allclose(last, unit(means["interaction"]) @ unit(motions).T, atol=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    model = aligner(temperature=0.2)
    terms = model.loss(batch(), torch.Generator().manual_seed(0))
    total = terms["reconstruction"] + 1e-5 * terms["kl"] + 1e-5 * terms["latent"] + terms["contrastive"]
    assert torch.allclose(terms["loss"], total)
    levels = [terms[f"contrastive, {name}"] for name in model.names]
    assert torch.allclose(terms["contrastive"], torch.stack(levels).mean())


def test_clips_of_one_label_are_no_wrong_answers_for_each_other():
    model, one = aligner(), batch()
    same = one | {"labels": torch.zeros(8, dtype=torch.long)}
    assert model.loss(same)["contrastive"].abs() < 1e-6 < model.loss(one)["contrastive"]
    by_text = aligner(same="sentences")
    alike = one | {"text": one["text"][:1].expand(8, -1)}
    assert by_text.loss(alike)["contrastive"].abs() < 1e-6 < by_text.loss(one)["contrastive"]


@pytest.mark.parametrize("changes", [{}, {"flat": True}, {"cross": False}, {"levels": ("global",)}])
def test_gradients_reach_every_parameter(changes):
    model = aligner(**changes).train()
    model.loss(batch(), torch.Generator().manual_seed(0))["loss"].backward()
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    unreached = [name for name, p in learned if p.grad is None or not p.grad.abs().sum() > 0]
    assert not unreached


def test_it_learns_which_text_belongs_to_which_motion():
    torch.manual_seed(0)
    model, one = HierarchicalAligner(replace(TINY, reconstructed=0.1)).train(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(one, torch.Generator().manual_seed(0))["loss"].backward()
        optimizer.step()
    model.eval()
    means = {name: level.mean for name, level in model.encode_texts(one).items()}
    scores = model.similarities(means, model.encode_motion(one["features"], one["lengths"]).mean)
    assert scores.argmax(1).tolist() == list(range(8)) == scores.argmax(0).tolist()


def test_unknown_settings_are_refused():
    for bad in ({"levels": ("group",)}, {"levels": ("group", "global")}, {"score": "best"}, {"same": "words"}):
        with pytest.raises(ValueError, match="levels are|score is"):
            AlignerConfig(**bad)


def test_a_checkpoint_brings_everything_back(tmp_path):
    model, one = aligner(), batch()
    model.whitening["group"].measure(torch.randn(50, 384))
    checkpoints.save(tmp_path / "aligner", model, card="# Card\n")
    found = checkpoints.load(tmp_path / "aligner", HierarchicalAligner, AlignerConfig)
    before, after = model.encode_texts(one), found.encode_texts(one)
    assert found.config == model.config
    assert all(torch.equal(before[name].mean, after[name].mean) for name in before)
