"""Sentences by number: mirror images and the file of vectors."""

import pytest
import torch
from toy_tokens import Letters

from kinelib.kinmo.sentences import SentenceBank, sentence_bank
from kinelib.notation import ShapeError


def test_a_bank_holds_mirror_images_and_finds_rows():
    bank = sentence_bank(["The left arm waves.", "", "The head nods.", "The head nods."], Letters())
    assert bank.sentences == ("The head nods.", "The left arm waves.", "The right arm waves.")
    rows = bank.rows(["The left arm waves.", "The head nods.", ""])
    assert bank.reflected[rows].tolist() == [2, 0, bank.nothing]
    assert bank.vectors[bank.nothing].abs().sum() == 0 and torch.allclose(bank.vectors[:3].norm(dim=1), torch.ones(3))


def test_a_sentence_without_a_vector_is_named():
    bank = SentenceBank(["The left arm waves."], torch.ones(1, 4))
    with pytest.raises(ValueError, match="The head nods"):
        bank.rows(["The head nods."])
    with pytest.raises(ValueError, match="mirror image"):
        bank.rows(["The left arm waves."])
    with pytest.raises(ValueError, match="twice"):
        SentenceBank(["a", "a"], torch.ones(2, 4))
    with pytest.raises(ShapeError, match="U"):
        SentenceBank(["a"], torch.ones(2, 4))


def test_the_file_grows_and_nothing_is_embedded_twice(tmp_path):
    first, second = Letters(), Letters()
    sentence_bank(["One.", "Two."], first, tmp_path)
    bank = sentence_bank(["Two.", "Three."], second, tmp_path)
    assert sorted(first.asked) == ["One.", "Two."] and second.asked == ["Three."]
    assert torch.equal(bank.vectors[: len(bank)], Letters().embed(list(bank.sentences)))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_made_again(tmp_path):
    sentence_bank(["One."], Letters(), tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"no tensors")
    with pytest.warns(UserWarning, match="damaged"):
        bank = sentence_bank(["One."], Letters(), tmp_path)
    assert torch.equal(bank.vectors[:1], Letters().embed(["One."]))
