"""The official layout: the papers' sizes, and what masks, switches, caches and guidance promise."""

from dataclasses import replace

import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder
from kinelib.zipmo.transformer_autoencoder import PAPER, TransformerCodec, TransformerCodecConfig, cell_times, grid_positions
from kinelib.zipmo.transformer_planner import PAPER_DENSE, PAPER_SPARSE, TransformerPlanner, TransformerPlannerConfig

DINO = 86_583_552  # parameters of DINOv2 ViT-B/14 with registers at 224 pixels, counted by the papers' totals
CODEC = TransformerCodecConfig(
    width=64, encoder_depth=1, decoder_depth=1, feature_width=16, feature_grid=(2, 2), grid=(2, 3), channels=4, num_frames=8,
    temporal_compression=4,
)  # fmt: skip
PLANNER = TransformerPlannerConfig(
    width=64, depth=2, grid=(2, 3), slots=2, channels=4, feature_width=16, feature_grid=(2, 2), poke_width=32, time_width=16,
    poke_slots=3, rotary="3d_10",
)  # fmt: skip


def millions(module):
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def awake(module, seed=0):
    """Fills the zero-initialised parameters, without which every test would pass."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if not parameter.any():
            parameter.data = torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5
    return module.eval()


@pytest.fixture
def inputs():
    rng = torch.Generator().manual_seed(0)
    return {
        "tracks": torch.rand(2, 5, 8, 2, generator=rng) * 2 - 1,
        "features": torch.randn(2, 4, 16, generator=rng),
        "pokes": torch.rand(2, 2, 5, generator=rng),
        "noisy": torch.randn(2, 2, 2, 3, 4, generator=rng),
        "time": torch.tensor([0.2, 0.8]),
    }


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return awake(TransformerCodec(CODEC))


@pytest.fixture
def planner():
    torch.manual_seed(0)
    return awake(TransformerPlanner(PLANNER))


def test_paper_sizes_have_the_papers_parameter_counts():
    with torch.device("meta"):
        codec, planner, dense = (TransformerCodec(PAPER), TransformerPlanner(PAPER_SPARSE), TransformerPlanner(PAPER_DENSE))
    assert millions(dense) == millions(planner)
    assert millions(codec.encoder) == pytest.approx(131.01, abs=0.005)
    assert millions(codec.decoder) == pytest.approx(121.57, abs=0.005)
    assert millions(codec) + DINO / 1e6 == pytest.approx(339.16, abs=0.005)
    assert millions(planner.transformer) == pytest.approx(434.15, abs=0.005)
    assert millions(planner) + DINO / 1e6 == pytest.approx(533.42, abs=0.005)


def test_paper_sizes_give_the_papers_shapes():
    with torch.device("meta"):
        codec, planner = TransformerCodec(PAPER), TransformerPlanner(PAPER_DENSE)
        tracks, features = torch.zeros(1, 40, 64, 2), torch.zeros(1, 256, 768)
        tokens, _, _ = planner.poke_context(torch.zeros(1, 40, 5), torch.ones(1, 40, dtype=torch.bool))
    assert tokens.shape == (1, 40, 768)
    mean, logvar = codec.encoder(tracks, features)
    assert mean.shape == logvar.shape == (1, 1, 16, 16, 16)
    decoded = codec.decoder(mean, codec.decoder.contexts(features), torch.zeros(1, 80, 2, device="meta"), 64)
    assert decoded.shape == (1, 80, 64, 2)
    assert PAPER_SPARSE.poke_slots == 16 and PAPER_DENSE.poke_slots == 40


def test_positions_are_cell_centres_in_order_time_row_column():
    assert cell_times(1).tolist() == [0] and cell_times(64)[[0, -1]].tolist() == [-0.984375, 0.984375]
    grid = grid_positions(cell_times(2), 16, 16)
    assert grid[0].tolist() == [-0.5, -0.9375, -0.9375]
    assert grid[1].tolist() == [-0.5, -0.8125, -0.9375]  # the next column: x grows first
    assert grid[256].tolist() == [0.5, -0.9375, -0.9375]


def test_encoding_does_not_depend_on_the_order_of_tracks(codec, inputs):
    mean, logvar = codec.encode(inputs["tracks"], inputs["features"])
    assert mean.shape == (2, 2, 2, 3, 4)
    order = torch.tensor([4, 2, 0, 1, 3])
    again, _ = codec.encode(inputs["tracks"][:, order], inputs["features"])
    assert torch.allclose(again, mean, atol=1e-5)
    assert not torch.allclose(mean[0], mean[1], atol=1e-2)


def test_invisible_points_are_not_looked_at(codec, inputs):
    visible = torch.ones(2, 5, 8, dtype=torch.bool)
    visible[:, 1, 3:] = False
    mean, _ = codec.encode(inputs["tracks"], inputs["features"], visible)
    changed = inputs["tracks"].clone()
    changed[:, 1, 3:] = 0.5
    assert torch.allclose(codec.encode(changed, inputs["features"], visible)[0], mean, atol=1e-6)
    assert not torch.allclose(codec.encode(changed, inputs["features"])[0], mean, atol=1e-3)


def test_decoding_follows_its_queries_and_takes_any_number_of_frames(codec, inputs):
    latents, queries = torch.randn(2, 2, 2, 3, 4), torch.rand(2, 6, 2) * 2 - 1
    decoded = codec.decode(latents, inputs["features"], queries)
    assert decoded.shape == (2, 6, 8, 2)
    assert torch.allclose(codec.decode(latents, inputs["features"], queries.flip(1)), decoded.flip(1), atol=1e-5)
    assert codec.decode(latents, inputs["features"], queries, 1).shape == (2, 6, 1, 2)
    contexts = codec.decoder.contexts(inputs["features"])
    assert torch.equal(codec.decode(latents, inputs["features"], queries, contexts=contexts), decoded)


@pytest.mark.parametrize("independent", [False, True])
def test_co_queries_matter_only_in_the_official_layout(codec, inputs, independent):
    config = replace(CODEC, independent_queries=independent)
    other = TransformerCodec(config).eval()
    other.load_state_dict(codec.state_dict())
    latents, queries = torch.randn(2, 2, 2, 3, 4), torch.rand(2, 6, 2) * 2 - 1
    alone = other.decode(latents, inputs["features"], queries[:, :1])
    crowd = other.decode(latents, inputs["features"], queries)[:, :1]
    assert torch.allclose(alone, crowd, atol=1e-5) == independent
    dense = [other.decode_dense(latents, inputs["features"], 3, 5, chunk=chunk) for chunk in (4, 100)]
    assert dense[0].shape == (2, 3, 5, 8, 2)
    assert torch.allclose(*dense, atol=1e-5) == independent


def test_dense_decoding_answers_at_the_cell_centres(codec, inputs):
    latents = torch.randn(2, 2, 2, 3, 4)
    dense = codec.decode_dense(latents, inputs["features"], 2, 3, chunk=6)
    queries = grid_positions(torch.zeros(1), 2, 3)[None, :, 1:].expand(2, -1, -1)
    assert torch.allclose(dense.flatten(1, 2), codec.decode(latents, inputs["features"], queries), atol=1e-5)


def test_displacement_output_starts_at_the_query_point_before_training(inputs):
    torch.manual_seed(0)
    plain, moved = (TransformerCodec(replace(CODEC, displacement=flag)) for flag in (False, True))
    moved.load_state_dict(plain.state_dict())
    latents, queries = torch.randn(2, 2, 2, 3, 4), torch.rand(2, 6, 2)
    one, other = (net.decode(latents, inputs["features"], queries) for net in (plain, moved))
    assert torch.allclose(other - one, queries[:, :, None].expand_as(one), atol=1e-6)


def test_codec_refuses_bad_input(codec, inputs):
    features, tracks = inputs["features"], inputs["tracks"]
    for call, message in (
        (lambda: codec.encode(tracks[:, :0], features), "at least one track"),
        (lambda: codec.encode(tracks * float("nan"), features), "NaN"),
        (lambda: codec.encode(tracks, features[:, :3]), "features must have shape"),
        (lambda: codec.encode(tracks, features, torch.ones(2, 5)), "visible"),
        (lambda: codec.decode(torch.zeros(2, 1, 2, 3, 4), features, tracks[:, :, 0]), "latents must have shape"),
        (lambda: codec.decode(torch.zeros(2, 2, 2, 3, 4), features, tracks[:, :0, 0]), "at least one query"),
        (lambda: TransformerCodec(replace(CODEC, temporal_compression=3)), "must divide"),
    ):
        with pytest.raises(ShapeError, match=message):
            call()


def test_masked_pokes_are_the_same_as_no_pokes_and_slots_do_not_matter(planner, inputs):
    noisy, time, features, pokes = (inputs[key] for key in ("noisy", "time", "features", "pokes"))
    mask = torch.tensor([[True, False], [True, False]])
    one = planner(noisy, time, features, pokes[:, :1])
    pokes = pokes.clone()
    pokes[:, 1] = float("nan")
    assert torch.allclose(planner(noisy, time, features, pokes, mask), one, atol=1e-6)
    none = planner(noisy, time, features, pokes[:, :0])
    assert torch.allclose(planner(noisy, time, features, pokes, mask & False), none, atol=1e-6)
    assert not torch.allclose(one, none, atol=1e-3)
    free = planner.prepare(features, pokes[:, :1]).without_condition()
    assert torch.allclose(planner.velocity(noisy, time, free), none, atol=1e-6)


def test_zero_slots_soak_up_attention_only_behind_their_switch(inputs):
    outputs = {}
    for sinks in (False, True):
        for slots in (2, 3):
            torch.manual_seed(0)
            net = awake(TransformerPlanner(replace(PLANNER, zero_slot_sinks=sinks, poke_slots=slots)))
            outputs[sinks, slots] = net(inputs["noisy"], inputs["time"], inputs["features"], inputs["pokes"])
            assert hasattr(net, "null_poke") != sinks
    assert torch.allclose(outputs[False, 2], outputs[False, 3], atol=1e-6)
    assert not torch.allclose(outputs[True, 2], outputs[True, 3], atol=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
def test_sampling_with_caches_and_batched_guidance_equals_separate_passes(planner, inputs, guidance):
    features, pokes, steps = inputs["features"], inputs["pokes"], 3
    noise = torch.randn(2, 4, *planner.latent_shape)
    drawn = planner.sample(features, pokes, samples=4, steps=steps, guidance=guidance, noise=noise)
    x = noise[:, 2]
    with torch.no_grad():
        for step in range(steps):
            time = torch.full((2,), 1 - step / steps)
            free, poked = planner(x, time, features, pokes[:, :0]), planner(x, time, features, pokes)
            x = x - (free + guidance * (poked - free)) / steps
    assert torch.allclose(drawn[:, 2], x, atol=1e-4)


def test_samples_follow_their_generator_and_differ_from_each_other(planner, inputs):
    def draw(seed):
        rng = torch.Generator().manual_seed(seed)
        return planner.sample(inputs["features"], inputs["pokes"], samples=2, steps=2, generator=rng)

    assert torch.equal(draw(5), draw(5)) and not torch.equal(draw(5), draw(6))
    assert not torch.allclose(draw(5)[:, 0], draw(5)[:, 1], atol=1e-2)


def test_normalising_gives_the_promised_variance_and_back():
    with torch.device("meta"):
        planner = TransformerPlanner(PAPER_SPARSE)
    latents = -0.175 + 11.6**0.5 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert planner.normalize(latents).var().item() == pytest.approx(0.5, rel=0.05)
    assert torch.allclose(planner.denormalize(planner.normalize(latents)), latents, atol=1e-5)


def test_planner_refuses_bad_input(planner, inputs):
    features, pokes = inputs["features"], inputs["pokes"]
    for call, message in (
        (lambda: planner.prepare(features, torch.zeros(2, 4, 5)), "at most 3 pokes; got 4"),
        (lambda: planner.prepare(features, pokes * float("inf")), "infinite"),
        (lambda: planner.prepare(features[:, :1], pokes), "features must have shape"),
        (lambda: planner.prepare(features, pokes, torch.ones(2, 1)), "mask"),
        (lambda: planner(inputs["noisy"][:1], inputs["time"], features, pokes), "latents"),
        (lambda: planner.sample(features, pokes, noise=torch.zeros(2, 2, 2, 3, 4)), "noise must be"),
    ):
        with pytest.raises(ShapeError, match=message):
            call()
    for wrong in ({"guidance": float("nan")}, {"samples": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match="guidance|samples|step"):
            planner.sample(features, pokes, **wrong)


def test_the_layout_is_a_configuration_of_the_track_autoencoder():
    config = AutoencoderConfig(
        layout="transformer", num_frames=8, temporal_compression=8, grid=(4, 4), frame_size=16, width=32
    )
    torch.manual_seed(0)
    net = TrackAutoencoder(config)
    tracks, frame = torch.rand(2, 3, 8, 2), torch.rand(2, 3, 16, 16)
    posterior = net.encode(tracks, frame)
    assert posterior.mean.shape == (2, 1, 4, 4, 16)
    assert net.decode(posterior.mean, frame, tracks[:, :, 0]).shape == tracks.shape
    awake(net.codec)
    dense = [net.decode_dense(posterior.mean, frame, 3, 3, chunk=chunk) for chunk in (2, 9)]
    assert torch.allclose(*dense, atol=1e-5)
    losses = net.loss(tracks, frame, encoded=2)
    losses["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)
