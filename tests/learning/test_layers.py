"""Layers against what they promise: analytic cases, invariances, equality of cached and uncached passes, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinelib.learning.fourier import FlowTimeEmbedder, FourierEmbedder, FourierFeatures, axis_aligned
from kinelib.learning.layers import AdaRMSNorm, CosineAttention, DistanceBias, KeysValues, RMSNorm, SwiGLU, Transformer
from kinelib.learning.rotary import VARIANTS, rotary
from kinelib.notation import ShapeError


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def awake(module, rng):
    """Fills a module with random weights, because zero-initialised outputs make every test pass."""
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5
    for name, parameter in module.named_parameters():
        if name.endswith("scale"):
            parameter.data = 1 + parameter.data.abs()
    return module


def test_rms_norm_sets_the_root_mean_square(rng):
    x = 7 * torch.randn(3, 5, 16, generator=rng)
    assert torch.allclose(RMSNorm(16)(x).square().mean(-1).sqrt(), torch.ones(3, 5), atol=1e-5)


def test_adaptive_norm_starts_plain_and_scales_by_one_plus_the_condition(rng):
    x, condition = torch.randn(2, 3, 4, generator=rng), torch.tensor([[1.0], [2.0]])
    norm = AdaRMSNorm(4, 1)
    assert torch.equal(norm(x, condition), RMSNorm(4)(x))
    norm.linear.weight.data.fill_(0.5)
    assert torch.allclose(norm(x, condition), RMSNorm(4)(x) * torch.tensor([1.5, 2.0])[:, None, None])


def test_swiglu_is_value_times_silu_of_gate():
    layer = SwiGLU(1, 1)
    assert layer(torch.tensor([[3.0]])).item() == 0
    layer.up.weight.data = torch.tensor([[2.0], [5.0]])
    layer.down.weight.data = torch.tensor([[1.0]])
    gate = torch.tensor(15.0)
    assert layer(torch.tensor([[3.0]])).item() == pytest.approx(6 * (gate * gate.sigmoid()).item())
    assert SwiGLU(8).down.weight.shape == (8, 24)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "none"])
def test_rotation_keeps_lengths_and_depends_on_differences_only(variant, rng):
    embedding = rotary(variant, heads=2, head_width=32)
    axes = embedding.frequencies.shape[0]
    here, there, shift = (torch.randn(1, 6, axes, generator=rng) for _ in range(3))
    shift = shift[:, :1]
    q, k = torch.randn(2, 1, 2, 6, 32, generator=rng)
    assert torch.allclose(embedding(here).rotate(q).norm(dim=-1), q.norm(dim=-1), rtol=1e-5)
    plain = (embedding(here).rotate(q) * embedding(there).rotate(k)).sum(-1)
    moved = (embedding(here + shift).rotate(q) * embedding(there + shift).rotate(k)).sum(-1)
    assert torch.allclose(plain, moved, atol=2e-3)
    assert not torch.allclose(plain, (embedding(here + shift).rotate(q) * embedding(there).rotate(k)).sum(-1), atol=0.1)


@pytest.mark.parametrize(("variant", "rotated"), [("3d_40", 48), ("3d_10", 48), ("2d", 32), ("1d", 32)])
def test_only_a_part_of_a_64_channel_head_is_rotated(variant, rotated, rng):
    embedding = rotary(variant, heads=4, head_width=64)
    x = torch.randn(1, 4, 3, 64, generator=rng)
    turned = embedding(torch.rand(1, 3, embedding.frequencies.shape[0], generator=rng) + 1).rotate(x)
    assert torch.equal(turned[..., rotated:], x[..., rotated:])
    assert (turned[..., :rotated] != x[..., :rotated]).float().mean() > 0.9
    assert bool(list(embedding.parameters())) == (variant != "1d")


def test_rotary_frequencies_run_from_1_to_below_the_highest_and_reach_every_head():
    frequencies = rotary("3d_40", heads=12, head_width=64).frequencies
    assert frequencies.shape == (3, 12, 8)
    assert frequencies.min().item() == pytest.approx(1)
    for axis, highest in enumerate((10 * math.pi, 40 * math.pi, 40 * math.pi)):
        assert 0.9 * highest < frequencies[axis].max() < highest
    assert (frequencies[1].amax(dim=1) > 60).all() and (frequencies[1].amin(dim=1) < 2).all()


def test_an_unknown_rotary_variant_names_the_known_ones():
    with pytest.raises(ValueError, match="3d_40"):
        rotary("3d", 2, 64)
    with pytest.raises(ShapeError, match="at least 8 channels"):
        rotary("3d_10", 2, 4)


def test_fourier_features_group_sines_then_cosines_for_every_input_and_pad(rng):
    features = FourierFeatures(2, 10, theta=5, generator=rng)
    x = torch.tensor([[0.3, -0.7]])
    first, second = (features.frequencies[i, :, i] for i in range(2))
    parts = [(0.3 * first).sin(), (0.3 * first).cos(), (-0.7 * second).sin(), (-0.7 * second).cos(), torch.zeros(2)]
    assert torch.allclose(features(x)[0], torch.cat(parts), atol=1e-6)
    assert torch.equal(first, second)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5))
def test_axis_aligned_frequencies_read_one_input_each(inputs, count):
    spread = axis_aligned(torch.arange(1.0, count + 1), inputs)
    assert spread.shape == (inputs, count, inputs)
    assert torch.equal(spread.sum(dim=-1), torch.arange(1.0, count + 1).expand(inputs, count))
    assert (spread != 0).sum() == inputs * count


def test_fourier_frequencies_have_the_promised_spread_and_survive_reloading(rng):
    features = FourierFeatures(2, 4096, theta=40 * math.pi, generator=rng)
    drawn = features.frequencies[0, :, 0]
    assert drawn.std().item() == pytest.approx(40 * math.pi / 1.96, rel=0.1)
    other = FourierFeatures(2, 4096, theta=1.0)
    other.load_state_dict(features.state_dict())
    x = torch.rand(3, 2, generator=rng)
    assert torch.equal(other(x), features(x))


def test_embedders_start_as_their_features_and_refuse_other_inputs(rng):
    embedder = FourierEmbedder(3, 12, theta=2, generator=rng)
    x = torch.rand(2, 4, 3, generator=rng)
    assert torch.equal(embedder(x), embedder.features(x))
    with pytest.raises(ShapeError, match="takes 3 numbers"):
        embedder(x[..., :2])
    with pytest.raises(ShapeError, match="at least 6"):
        FourierFeatures(3, 5, theta=1)
    assert FlowTimeEmbedder(16)(torch.rand(5)).shape == (5, 16)
    with pytest.raises(ShapeError, match="even"):
        FlowTimeEmbedder(15)


def test_cosine_attention_is_the_formula(rng):
    attention = awake(CosineAttention(8, 2, context_dim=6), rng)
    x, context = torch.randn(1, 3, 8, generator=rng), torch.randn(1, 5, 6, generator=rng)
    got = attention(x, attention.keys_values(context))
    key, value = (context @ attention.key_value.weight.T).split(8, dim=-1)
    query, heads = x @ attention.query.weight.T, []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        cosine = torch.cosine_similarity(query[0, :, None, part], key[0, None, :, part], dim=-1)
        heads.append((attention.scale[head] * cosine).softmax(-1) @ value[0, :, part])
    assert torch.allclose(got[0], torch.cat(heads, dim=-1) @ attention.out.weight.T, atol=1e-4)


def test_attention_does_not_care_how_long_queries_and_keys_are(rng):
    attention = awake(CosineAttention(8, 2), rng)
    x = torch.randn(1, 3, 8, generator=rng)
    before = attention(x, attention.keys_values(x))
    attention.query.weight.data *= 9
    attention.key_value.weight.data[:8] *= 0.2
    assert torch.allclose(attention(x, attention.keys_values(x)), before, atol=1e-3)


def test_masked_context_tokens_do_not_exist(rng):
    attention = awake(CosineAttention(8, 2), rng)
    x, context = torch.randn(2, 3, 8, generator=rng), torch.randn(2, 5, 8, generator=rng)
    mask = torch.tensor([[True, True, False, False, False]]).expand(2, 5)
    short = attention(x, attention.keys_values(context[:, :2]))
    assert torch.allclose(attention(x, attention.keys_values(context, mask=mask)), short, atol=1e-6)
    bias = torch.randn(1, 2, 3, 5, generator=rng)
    biased = attention(x, attention.keys_values(context, mask=mask), bias=bias)
    assert torch.allclose(biased, attention(x, attention.keys_values(context[:, :2]), bias=bias[..., :2]), atol=1e-6)
    assert not torch.allclose(biased, short, atol=1e-3)


def test_distance_bias_falls_with_the_square_of_distance():
    points = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])
    bias = DistanceBias(2, slopes=(0.0, 2.0))(points, points)
    assert torch.equal(bias[0, 0], torch.zeros(2, 2))
    assert torch.equal(bias[0, 1], torch.tensor([[0.0, -50.0], [-50.0, 0.0]]))
    slopes = DistanceBias(6).slopes
    assert (
        slopes[0] == 0
        and slopes[1].item() == pytest.approx(3, rel=1e-3)
        and slopes[-1].item() == pytest.approx(40, rel=1e-3)
    )
    for wrong in ((1.0,), (1.0, -1.0)):
        with pytest.raises(ShapeError, match="one slope"):
            DistanceBias(2, slopes=wrong)


def stack(rng, **options):
    return awake(Transformer(32, 2, 2, context_dim=16, rotary_variant="3d_40", **options), rng)


def test_a_new_stack_is_the_identity_and_its_outputs_learn_first(rng):
    net = Transformer(32, 2, 2, context_dim=16, condition_dim=8, rotary_variant="3d_10")
    x, context, where = torch.randn(2, 4, 32), torch.randn(2, 3, 16), torch.rand(1, 4, 3)
    out = net(x, net.tables(where), net.contexts(context, where[:, :3]), condition=torch.randn(2, 8))
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert net.layers[0].feed_forward.down.weight.grad.abs().sum() > 0


def test_cached_keys_and_tables_give_the_same_as_fresh_ones_at_every_condition(rng):
    net = stack(rng, condition_dim=8)
    context, where = torch.randn(2, 3, 16, generator=rng), torch.rand(2, 4, 3, generator=rng)
    tables, contexts = net.tables(where), net.contexts(context, where[:, :3])
    outs = []
    for _ in range(2):
        x, condition = torch.randn(2, 4, 32, generator=rng), torch.randn(2, 8, generator=rng)
        outs.append(net(x, tables, contexts, condition=condition))
        fresh = net(x, net.tables(where), net.contexts(context, where[:, :3]), condition=condition)
        assert torch.equal(outs[-1], fresh)
    assert not torch.allclose(outs[0], outs[1])


def test_repeated_and_joined_keys_are_those_of_repeated_and_joined_contexts(rng):
    net = stack(rng)
    one, two = torch.randn(2, 2, 3, 16, generator=rng)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    where = torch.rand(1, 3, 3, generator=rng)

    def make(context, mask):
        return net.contexts(context, where, mask)[0]

    cases = (
        (make(one, mask).repeat(3), make(one.repeat_interleave(3, 0), mask.repeat_interleave(3, 0))),
        (make(one, mask).joined(make(two, mask)), make(torch.cat([one, two]), mask.repeat(2, 1))),
    )
    for got, expected in cases:
        assert isinstance(got, KeysValues)
        # Products of other batch sizes round differently on some processors.
        assert all(torch.allclose(left, right, atol=1e-6) for left, right in zip(got, expected, strict=True))


def test_tokens_without_context_are_permutation_equivariant_and_hidden_ones_have_no_say(rng):
    net = awake(Transformer(32, 2, 2, rotary_variant="2d"), rng)
    x, where = torch.randn(1, 5, 32, generator=rng), torch.rand(1, 5, 2, generator=rng)
    order = torch.tensor([3, 0, 4, 1, 2])
    out = net(x, net.tables(where))
    assert torch.allclose(net(x[:, order], net.tables(where[:, order])), out[:, order], atol=1e-4)
    visible = torch.tensor([[True, True, True, False, True]])
    hidden = net(x, net.tables(where), visible=visible)
    changed = x.clone()
    changed[:, 3] += 5
    kept = [0, 1, 2, 4]
    assert torch.allclose(net(changed, net.tables(where), visible=visible)[:, kept], hidden[:, kept], atol=1e-6)
    assert not torch.allclose(net(changed, net.tables(where))[:, kept], out[:, kept], atol=1e-3)


def test_clear_errors_for_heads_and_positions(rng):
    with pytest.raises(ShapeError, match="3 heads do not divide"):
        CosineAttention(32, 3)
    with pytest.raises(ShapeError, match="pass the positions"):
        stack(rng).contexts(torch.randn(1, 3, 16))
    with pytest.raises(ShapeError, match="axis A is 2, expected 3"):
        stack(rng).tables(torch.rand(1, 4, 2))


def test_rotation_and_norms_stay_in_float32_when_the_model_is_bfloat16(rng):
    net = stack(rng)
    x, context, where = (torch.randn(1, 4, size, generator=rng) for size in (32, 16, 3))
    exact = net(x, net.tables(where), net.contexts(context, where))
    net = net.bfloat16()
    tables = net.tables(where)
    assert tables[0].own.cosine.dtype == torch.float32
    coarse = net(x.bfloat16(), tables, net.contexts(context.bfloat16(), where))
    assert coarse.dtype == torch.bfloat16
    assert (coarse.float() - exact).abs().mean() < 0.15 * exact.abs().mean()
