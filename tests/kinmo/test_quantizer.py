"""Residual quantisation: lookups by hand, what layers leave over, learning by counts, the dead, and what resumes."""

import pytest
import torch

from kinelib.kinmo.quantizer import QuantizerConfig, ResidualQuantizer, nearest, use


def made(streams=2, layers=2, codes=4, width=3, **others):
    """A quantiser whose codebooks are drawn, in eval mode."""
    quantizer = ResidualQuantizer(QuantizerConfig(streams, layers, codes, width, **others))
    quantizer.codebooks.copy_(torch.randn(quantizer.codebooks.shape, generator=torch.Generator().manual_seed(0)))
    return quantizer.eval()


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_codes_are_the_nearest_ones_layer_by_layer():
    quantizer, vectors = made(), drawn(2, 50, 3)
    codes = quantizer.codes(vectors)
    for stream in range(2):
        for n in range(50):
            left = vectors[stream, n]
            for layer in range(2):
                book = quantizer.codebooks[layer, stream]
                assert int(codes[stream, n, layer]) == int((book - left).norm(dim=1).argmin())
                left = left - book[codes[stream, n, layer]]
    assert torch.equal(nearest(quantizer.codebooks[0], quantizer.codebooks[0]), torch.arange(4).expand(2, 4))


def test_vectors_are_sums_of_codes_and_probabilities_their_means():
    quantizer, codes = made(), torch.randint(4, (2, 7, 2), generator=torch.Generator().manual_seed(2))
    wanted = [[sum(quantizer.codebooks[q, g, codes[g, n, q]] for q in range(2)) for n in range(7)] for g in range(2)]
    assert torch.allclose(quantizer.vectors(codes), torch.stack([torch.stack(row) for row in wanted]))
    assert torch.allclose(quantizer.expected(torch.nn.functional.one_hot(codes, 4).float()), quantizer.vectors(codes))
    assert torch.equal(quantizer.vectors(codes[..., :1])[0, 0], quantizer.codebooks[0, 0, codes[0, 0, 0]])


def test_gradients_pass_as_if_nothing_had_been_rounded():
    quantizer, vectors = made(), drawn(2, 5, 3).requires_grad_()
    quantized, codes, commitment = quantizer(vectors)
    assert torch.allclose(quantized, quantizer.vectors(codes))
    (given,) = torch.autograd.grad((quantized * 3).sum(), vectors, retain_graph=True)
    assert torch.equal(given, torch.full_like(given, 3.0))
    (pull,) = torch.autograd.grad(commitment, vectors)
    assert float((pull * (vectors - quantized)).detach().sum()) > 0  # descending it brings vectors to their codes


def test_more_layers_leave_less_over_after_learning():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(QuantizerConfig(1, 4, 16, 4, dropout=0.0)).train()
    vectors, generator = drawn(1, 512, 4), torch.Generator().manual_seed(0)
    for _ in range(60):
        quantizer(vectors, generator)
    codes = quantizer.eval().codes(vectors)
    errors = [float((vectors - quantizer.vectors(codes[..., :q])).square().mean()) for q in (1, 2, 3, 4)]
    assert errors[0] < 0.5 and all(b < 0.75 * a for a, b in zip(errors, errors[1:], strict=False))


def test_a_code_becomes_the_mean_of_those_that_choose_it():
    quantizer = ResidualQuantizer(QuantizerConfig(1, 1, 2, 2, decay=0.5, dropout=0.0)).train()
    clouds = torch.cat([drawn(1, 100, 2) * 0.1, drawn(1, 100, 2, seed=5) * 0.1 + 4], 1)
    for step in range(30):
        quantizer(clouds, torch.Generator().manual_seed(step))
    found = quantizer.codebooks[0, 0][quantizer.codebooks[0, 0, :, 0].argsort()]
    assert torch.allclose(found, torch.stack([clouds[0, :100].mean(0), clouds[0, 100:].mean(0)]), atol=1e-3)
    assert torch.allclose(quantizer.counts[0, 0], torch.tensor([100.0, 100.0]), atol=1e-3)


def test_dead_codes_come_back_where_vectors_are():
    quantizer, generator = ResidualQuantizer(QuantizerConfig(1, 1, 8, 2, decay=0.8, dropout=0.0)).train(), torch.Generator()
    quantizer(drawn(1, 200, 2), generator)
    quantizer.codebooks[:, :, 1:] += 100  # seven codes that nobody will choose
    quantizer.sums.copy_(quantizer.codebooks * quantizer.counts[..., None])
    for seed in range(40):
        quantizer(drawn(1, 200, 2, seed=seed), generator)
    used, perplexity = use(quantizer.eval().codes(drawn(1, 200, 2)), 8)
    assert float(quantizer.codebooks.abs().max()) < 5 and float(used) == 1.0 and float(perplexity) > 0.7


def test_dropout_uses_the_first_layers_only_and_teaches_only_them():
    quantizer, vectors = ResidualQuantizer(QuantizerConfig(1, 3, 4, 2, dropout=1.0)).train(), drawn(1, 64, 2)
    layers = {quantizer(vectors, torch.Generator().manual_seed(seed))[1].shape[-1] for seed in range(20)}
    assert layers == {1, 2, 3}
    fresh = ResidualQuantizer(QuantizerConfig(1, 3, 4, 2, dropout=1.0)).train()
    seed = next(s for s in range(50) if fresh._layers_used(torch.Generator().manual_seed(s), vectors.device) == 1)
    fresh(vectors, torch.Generator().manual_seed(seed))
    assert fresh.counts[0].any() and not fresh.counts[1:].any()


def test_a_saved_quantiser_goes_on_exactly():
    one = ResidualQuantizer(QuantizerConfig(2, 2, 4, 3)).train()
    one(drawn(2, 40, 3), torch.Generator().manual_seed(0))
    two = ResidualQuantizer(QuantizerConfig(2, 2, 4, 3)).train()
    two.load_state_dict(one.state_dict())
    for step in range(3):
        made = [each(drawn(2, 40, 3, seed=step), torch.Generator().manual_seed(step))[0] for each in (one, two)]
        assert torch.equal(*made)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_use_counts_codes():
    used, perplexity = use(torch.tensor([[[0], [1], [0], [1]], [[2], [2], [2], [2]]]), 4)
    assert used.tolist() == [[0.5], [0.25]] and torch.allclose(perplexity, torch.tensor([[0.5], [0.25]]).double())


def test_bad_codes_and_configs_are_refused():
    quantizer = made()
    with pytest.raises(ValueError, match="a mask is no code"):
        quantizer.vectors(torch.full((2, 3, 2), 4))
    with pytest.raises(ValueError, match="1 to 2 layers"):
        quantizer.vectors(torch.zeros(2, 3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="not negative"):
        quantizer.vectors(torch.full((2, 3, 2), -1))
    with pytest.raises(ValueError, match="at least 1"):
        QuantizerConfig(0)
    with pytest.raises(ValueError, match="dropout"):
        QuantizerConfig(1, dropout=2.0)
