"""Our cached sampler and dense decode against the plain transcription: equal results, fewer operations."""

from dataclasses import replace

import pytest
import torch

from kinelib.bench import count_flops
from kinelib.learning import layers
from kinelib.notation import ShapeError
from kinelib.zipmo.plain_sampler import plain_decode_dense, plain_sample
from kinelib.zipmo.transformer_autoencoder import TransformerCodec, TransformerCodecConfig
from kinelib.zipmo.transformer_planner import TransformerPlanner, TransformerPlannerConfig

CODEC = TransformerCodecConfig(
    width=64, encoder_depth=1, decoder_depth=2, feature_width=16, feature_grid=(2, 2), grid=(2, 3), channels=4, num_frames=8,
    temporal_compression=4,
)  # fmt: skip
PLANNER = TransformerPlannerConfig(
    width=64, depth=2, grid=(2, 3), slots=2, channels=4, feature_width=16, feature_grid=(3, 4), poke_width=32, time_width=16,
    poke_slots=5, zero_slot_sinks=True,
)  # fmt: skip


def awake(network):
    rng = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.data = torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5
    return network.eval().requires_grad_(False)


def drawing(**changes):
    """A planner, and what both samplers are given."""
    torch.manual_seed(0)
    planner = awake(TransformerPlanner(replace(PLANNER, **changes)))
    rng = torch.Generator().manual_seed(1)
    features, pokes = torch.randn(2, 12, 16, generator=rng), torch.rand(2, 3, 5, generator=rng)
    return planner, features, pokes, torch.randn(2, *planner.latent_shape, generator=rng)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(
    "changes", [{}, {"zero_slot_sinks": False}, {"image_time": None}], ids=["official", "null", "shared"]
)
def test_the_cached_sampler_equals_the_plain_one(changes, guidance):
    planner, features, pokes, noise = drawing(**changes)
    drawn = planner.sample(features, pokes, steps=4, guidance=guidance, noise=noise[:, None])[:, 0]
    plain = plain_sample(planner, features, pokes, noise, steps=4, guidance=guidance)
    assert torch.allclose(drawn, plain, atol=1e-5)
    assert not torch.allclose(drawn, noise, atol=1e-1)


@pytest.mark.parametrize(
    "changes", [{}, {"independent_queries": True}, {"displacement": True}], ids=["official", "apart", "moved"]
)
def test_the_dense_decode_equals_the_plain_one(changes):
    torch.manual_seed(0)
    codec = awake(TransformerCodec(replace(CODEC, **changes)))
    rng = torch.Generator().manual_seed(1)
    latents, frame = torch.randn(2, 2, 2, 3, 4, generator=rng), torch.rand(2, 3, 4, 4, generator=rng)
    encoder = torch.nn.Conv2d(3, 16, 2, stride=2).requires_grad_(False)
    encode = lambda frame: encoder(frame).flatten(2).transpose(1, 2)
    plain = plain_decode_dense(codec, latents, frame, encode, 6, chunk_side=2)
    ours = codec.decode_dense(latents, encode(frame), 6, 6, chunk=4)
    assert ours.shape == (2, 6, 6, 8, 2)
    assert torch.allclose(ours, plain, atol=1e-5)
    with pytest.raises(ShapeError, match="must divide"):
        plain_decode_dense(codec, latents, frame, encode, 6, chunk_side=4)


def test_chunks_of_a_dense_decode_span_the_whole_frame():
    torch.manual_seed(0)
    codec, asked = awake(TransformerCodec(CODEC)), []
    decode = codec.decode
    codec.decode = lambda latents, features, points, *rest, **more: (
        asked.append(points) or decode(latents, features, points, *rest, **more)
    )
    codec.decode_dense(torch.zeros(1, 2, 2, 3, 4), torch.zeros(1, 4, 16), 8, 8, chunk=16)
    assert len(asked) == 4 and all(points.shape == (1, 16, 2) for points in asked)
    assert all(float(points[..., axis].max() - points[..., axis].min()) == 1.5 for points in asked for axis in (0, 1))


def test_fewer_operations_than_the_plain_sampler():
    planner, features, pokes, noise = drawing()
    for guidance, share in ((1.0, 0.9), (2.0, 0.85)):
        ours = count_flops(lambda: planner.sample(features, pokes, steps=3, guidance=guidance, noise=noise[:, None]))  # noqa: B023
        plain = count_flops(lambda: plain_sample(planner, features, pokes, noise, steps=3, guidance=guidance))  # noqa: B023
        assert ours < share * plain


def test_operations_are_counted():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    q = torch.zeros(1, 2, 4, 8)
    assert count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)) == 2 * 2 * (2 * 4 * 4 * 8)


def test_where_compiling_is_impossible_the_error_says_what_is_missing(monkeypatch):
    def broken(*_, **__):
        raise OSError("no compiler found\nlong story")

    monkeypatch.setattr(layers.torch, "compile", broken)
    with pytest.raises(RuntimeError, match=r"OSError: no compiler found\). It needs a C\+\+ compiler"):
        drawing()[0].compile_velocity()
