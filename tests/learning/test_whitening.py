"""Whitening: uncorrelated vectors, no text stays no text, nearly equal sentences come apart, checkpoints keep it."""

import pytest
import torch

from kinelib.learning.whitening import Whitening
from kinelib.notation import ShapeError


def test_whitened_vectors_are_uncorrelated_and_no_text_stays_no_text():
    vectors = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.tensor([9.0, 4, 2, 1, 1, 1])
    )
    whitening = Whitening(6)
    whitening.measure(vectors)
    found = whitening(vectors)
    assert found.mean(0).abs().max() < 1e-4
    assert torch.allclose(torch.cov(found.T), torch.eye(6), atol=0.2)
    assert whitening(torch.zeros(2, 3, 6)).abs().max() == 0
    with pytest.raises(ShapeError, match="at least two"):
        whitening.measure(vectors[:1])


def test_whitening_pulls_nearly_equal_sentences_apart():
    generator = torch.Generator().manual_seed(1)
    side = torch.zeros(16)
    side[0] = 0.1
    vectors = torch.randn(400, 16, generator=generator) * torch.tensor([0.0] + [1.0] * 15) + 3.0
    vectors = torch.cat([vectors + side, vectors - side])
    whitening = Whitening(16)
    whitening.measure(vectors)
    cosine = lambda a, b: float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    left, right = vectors[0], vectors[400]
    assert cosine(left, right) > 0.99 > 0.95 > cosine(whitening(left), whitening(right))


def test_a_higher_floor_blows_small_directions_up_less():
    vectors = torch.randn(400, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 1.0, 0.01])
    low, high = Whitening(4), Whitening(4)
    low.measure(vectors)
    high.measure(vectors, floor=0.5)
    assert low.map[3, 3] > 2 * high.map[3, 3]


def test_it_is_not_learned_and_travels_with_the_weights():
    one, other = Whitening(4), Whitening(4)
    one.measure(torch.randn(50, 4))
    assert not any(weight.requires_grad for weight in one.parameters())
    other.load_state_dict(one.state_dict())
    vectors = torch.randn(3, 4)
    assert torch.equal(one(vectors), other(vectors))


def test_other_widths_are_refused():
    with pytest.raises(ShapeError, match="C"):
        Whitening(4).measure(torch.randn(50, 5))


def test_directions_have_one_length_however_strange_the_vector():
    narrow = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) @ torch.eye(3, 6)
    whitening = Whitening(6)
    whitening.measure(narrow)
    strange = torch.ones(1, 6)
    assert whitening(strange).norm() > 3 * whitening(narrow).norm(dim=-1).max()
    for vectors in (narrow, strange):
        assert torch.allclose(whitening.directions(vectors).norm(dim=-1), torch.tensor(6**0.5))
    assert not whitening.directions(torch.zeros(2, 6)).any()
