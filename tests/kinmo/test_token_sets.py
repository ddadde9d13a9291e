"""What the generator is trained on: codes of clips and their mirror images, readings of their words, batches, the cache."""

import pytest
import torch
from toy_tokens import said_motions, told_tokens

from kinelib.bodies.procedural_words import mirrored_words
from kinelib.kinmo.aligner import AlignerConfig, HierarchicalAligner
from kinelib.kinmo.codec import mirrored
from kinelib.kinmo.exchange import draw_exchanges
from kinelib.kinmo.token_sets import draw_tokens, token_set
from kinelib.kinmo.tokens import MotionTokenizer, TokenizerConfig


@pytest.fixture(scope="module")
def clips():
    return said_motions()


@pytest.fixture(scope="module")
def tokenizer(clips):
    torch.manual_seed(0)
    model = MotionTokenizer(TokenizerConfig(width=8, blocks=1, codes=8, code_width=4)).eval()
    torch.nn.init.normal_(model.quantizer.codebooks, std=0.3)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def aligner():
    torch.manual_seed(0)
    return HierarchicalAligner(AlignerConfig(width=16, layers=1, heads=2, feed_forward=16)).eval().requires_grad_(False)


def test_odd_readings_are_of_the_mirror_image(clips, tokenizer):
    motions, bank = clips
    made = token_set(motions, bank, tokenizer, None, readings=4)
    rows = torch.arange(4)
    features, frames = motions.padded(rows)
    straight, flipped = tokenizer.encode(features, frames), tokenizer.encode(mirrored(features), frames)
    assert torch.equal(made.take(rows, torch.tensor([0, 2, 0, 2]))["codes"], straight)
    assert torch.equal(made.take(rows, torch.tensor([1, 3, 1, 3]))["codes"], flipped)
    assert made.lengths.tolist() == [-(-int(length) // 4) for length in motions.lengths]
    for row, said in enumerate(motions.prompts):
        for reading in range(4):
            texts = [mirrored_words(text) for text in said] if reading % 2 else list(said)
            own = made.means[row, reading, 0].float()
            assert any(torch.allclose(own, bank.vectors[bank.numbers[text]], atol=1e-3) for text in texts)


def test_words_are_read_by_the_aligner_at_three_levels(clips, tokenizer, aligner):
    motions, bank = clips
    made = token_set(motions, bank, tokenizer, aligner, readings=2, dropped=0.0)
    assert made.means.shape == (4, 2, 3, 16) and made.states.shape == (4, 2, 2, 6, 16)
    said = motions.prompts[0]
    slots = bank.rows([*motions.groups[0], *motions.interactions[0]])
    found = []
    for text in said:
        given = bank.vectors[bank.numbers[text]][None], bank.vectors[slots][None]
        levels = aligner.encode_texts({"text": given[0], "groups": given[1][:, :6], "interactions": given[1][:, 6:]})
        found.append(torch.stack([level.mean[0] for level in levels.values()]))
        groups = levels["group"].states[0]
        if torch.allclose(made.means[0, 0].float(), found[-1], atol=2e-2):
            assert torch.allclose(made.states[0, 0, 0].float(), groups, atol=2e-2)
            pairs = levels["interaction"].states[0]
            assert torch.allclose(made.states[0, 0, 1, 0].float(), pairs[:5].mean(0), atol=2e-2), "the torso's five pairs"
            break
    else:
        pytest.fail("no wording of the clip was read")


def test_the_reasoners_sentences_take_the_place_of_the_annotators(clips, tokenizer, aligner):
    motions, bank = clips
    most = max(map(len, motions.prompts))
    nothing = torch.full((4, most, 21), bank.nothing)
    all_of_them = token_set(
        motions, bank, tokenizer, aligner, predicted=nothing, predicted_share=1.0, dropped=0.0, readings=2
    )
    assert not all_of_them.states.any() and all_of_them.means.any()
    none = token_set(motions, bank, tokenizer, aligner, predicted=nothing, predicted_share=0.0, dropped=0.0, readings=2)
    assert (none.states != 0).any(-1).all()


def test_what_is_made_once_is_read_again(clips, tokenizer, aligner, tmp_path):
    make = lambda **more: token_set(*clips, tokenizer, aligner, readings=2, cache=tmp_path, **more)
    first = make()
    (path,) = tmp_path.iterdir()
    again = make()
    assert torch.equal(first.states, again.states) and torch.equal(first.codes, again.codes)
    make(seed=1)
    assert len(list(tmp_path.iterdir())) == 2
    path.write_bytes(b"no tensors")
    with pytest.warns(UserWarning, match="made again"):
        assert torch.equal(make().codes, first.codes)


def test_odds_give_captured_clips_their_share(clips, tokenizer):
    made = token_set(*clips, tokenizer, None, readings=2, captured_share=0.8)
    assert made.odds.tolist() == pytest.approx([0.4, 0.1, 0.4, 0.1])
    assert token_set(*clips, tokenizer, None, readings=2).odds.tolist() == pytest.approx([0.25] * 4)


def test_batches_hold_clips_of_like_length():
    motions = told_tokens(16, times=8)
    motions.lengths[:] = torch.arange(16) % 8 + 1
    draw = draw_tokens(motions, 12)
    for seed in range(5):
        batch = draw(torch.Generator().manual_seed(seed))
        assert batch["codes"].shape == (12, int(batch["lengths"].max()), 6, 3)
        assert batch["lengths"].max() - batch["lengths"].min() <= 1
    again = draw(torch.Generator().manual_seed(4))
    assert torch.equal(again["codes"], batch["codes"]) and torch.equal(again["words"].means, batch["words"].means)


def test_groups_own_sentences_stand_beside_the_aligners_words(clips, tokenizer, aligner):
    motions, bank = clips
    made = token_set(motions, bank, tokenizer, aligner, readings=2, dropped=0.0)
    rows = torch.arange(4)
    said = made.take(rows, torch.zeros(4, dtype=torch.long))["words"].said
    wanted = torch.stack([bank.vectors[bank.rows(own)] for own in motions.groups])
    assert said.shape == (4, 7, 384) and torch.allclose(said[:, 1:], wanted, atol=1e-3)
    for row, wordings in enumerate(motions.prompts):
        assert any(torch.allclose(said[row, 0], one, atol=1e-3) for one in bank.vectors[bank.rows(list(wordings))])
    flat = token_set(motions, bank, tokenizer, None, readings=2)
    assert flat.take(rows, torch.zeros(4, dtype=torch.long))["words"].said.shape == (4, 7, 0)


def test_exchanges_have_one_clips_body_and_anothers_arms(clips, tokenizer, aligner):
    motions, bank = clips
    made = token_set(motions, bank, tokenizer, aligner, readings=2, dropped=0.0, exchanges=6, exchanged_share=0.5)
    bodies, arms = draw_exchanges(motions, 6, torch.Generator().manual_seed(0))
    assert 0 < len(bodies) == len(made) - 4 and float(made.odds[4:].sum()) == pytest.approx(0.5)
    for flip in (0, 1):
        found = made.take(torch.arange(4, len(made)), torch.full((len(bodies),), flip))
        own, theirs = (made.take(rows, torch.full((len(rows),), flip)) for rows in (bodies, arms))
        for row, length in enumerate(found["lengths"].tolist()):
            assert torch.equal(found["codes"][row, :length, [0, 1, 4, 5]], own["codes"][row, :length, [0, 1, 4, 5]])
            assert torch.equal(found["codes"][row, :length, 2:4], theirs["codes"][row, :length, 2:4])
        said, ours, others = (one["words"].said for one in (found, own, theirs))
        assert (said[:, 0] == 0).all(), "nobody has said anything of the whole"
        assert torch.allclose(said[:, [1, 2, 5, 6]], ours[:, [1, 2, 5, 6]])
        assert torch.allclose(said[:, 3:5], others[:, 3:5])
        across = aligner.encode_texts(
            {"text": torch.zeros(1, 384), "groups": torch.zeros(1, 6, 384), "interactions": torch.zeros(1, 15, 384)}
        )["global"].mean
        assert torch.allclose(found["words"].means[:, 0], across.expand(len(bodies), -1), atol=1e-2), "nothing of the whole"
    with pytest.raises(ValueError, match="exchanges need"):
        token_set(motions, bank, tokenizer, None, readings=2, exchanges=2)


def test_a_single_reading_is_refused(clips, tokenizer):
    with pytest.raises(ValueError, match="two readings"):
        token_set(*clips, tokenizer, None, readings=1)
