"""The motion tokenizer: shapes, padding that has no influence, groups that keep to themselves, reach, losses, bad input."""

from dataclasses import replace

import pytest
import torch

from kinelib.bodies.low_pass import filter_matrix
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo import codec
from kinelib.kinmo.tokens import MotionTokenizer, TokenizerConfig
from kinelib.learning import checkpoints
from kinelib.notation import ShapeError

SMALL = {"width": 12, "blocks": 1, "layers": 2, "codes": 8, "code_width": 6}


@pytest.fixture(scope="module")
def clips():
    """Features (6, T, 263) of clips of different lengths, padded with nonsense, and lengths (6,)."""
    features = codec.encode_clips([clip.motion for clip in procedural_clips(6, seed=1)])
    lengths = torch.tensor([len(one) for one in features])
    padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True, padding_value=1e3)
    return padded, lengths


def tokenizer(clips, streams="groups", **changes):
    """A tokenizer whose codebooks have seen the clips once, in eval mode."""
    torch.manual_seed(0)
    model = MotionTokenizer(TokenizerConfig(streams=streams, **(SMALL | changes)))
    features, lengths = clips
    there = torch.arange(features.shape[1]) < lengths[:, None]
    model.statistics.set(codec.block_statistics(features[there]))
    model.train().loss(features, lengths, torch.Generator().manual_seed(3))
    return model.eval()


@pytest.mark.parametrize("streams", ["groups", "body"])
def test_codes_and_features_have_their_shapes(clips, streams):
    model, (features, lengths) = tokenizer(clips, streams), clips
    codes = model.encode(features, lengths)
    tokens, groups = -(-features.shape[1] // 4), {"groups": 6, "body": 1}[streams]
    assert codes.shape == (6, tokens, groups, 2) and codes.dtype == torch.long
    assert model.decode(codes, lengths).shape == (6, 4 * tokens, 263)
    assert model.config.groups == (GROUPS if streams == "groups" else ("body",))
    beyond = torch.arange(tokens) * 4 >= lengths[:, None]
    assert beyond.any() and not codes[beyond].any() and codes[~beyond].any()


@pytest.mark.parametrize("streams", ["groups", "body"])
def test_padding_and_neighbours_in_the_batch_have_no_influence(clips, streams):
    model, (features, lengths) = tokenizer(clips, streams), clips
    codes = model.encode(features, lengths)
    together = model.decode(codes, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model.encode(features[row : row + 1, :length])
        assert torch.equal(codes[row, : alone.shape[1]], alone[0])
        own = model.decode(alone, torch.tensor([length]))[0, :length]  # the filter ends where the clip does
        assert torch.allclose(together[row, :length], own, atol=1e-4)


@pytest.mark.parametrize("group", GROUPS)
def test_a_groups_tokens_change_its_own_channels_alone(clips, group):
    model, (features, lengths) = tokenizer(clips), clips
    codes = model.encode(features, lengths)
    other = codes.clone()
    other[:, :, GROUPS.index(group)] = (other[:, :, GROUPS.index(group)] + 1) % 8
    changed = (model.decode(codes, lengths) - model.decode(other, lengths)).abs().amax((0, 1)) > 0
    assert set(changed.nonzero().flatten().tolist()) == set(codec.GROUP_CHANNELS[group])


def test_a_groups_channels_are_all_that_its_codes_depend_on(clips):
    model, (features, lengths) = tokenizer(clips), clips
    other = features.clone()
    other[..., list(codec.GROUP_CHANNELS["left_arm"])] += 0.5
    changed = (model.encode(features, lengths) != model.encode(other, lengths)).any(-1).any(1).any(0)
    assert changed.tolist() == [name == "left_arm" for name in GROUPS]


@pytest.mark.parametrize("blocks", [1, 3])
def test_reach_is_how_far_a_token_is_felt(clips, blocks):
    model = tokenizer(clips, blocks=blocks)
    latents = torch.randn(1, 41, 6, 6, generator=torch.Generator().manual_seed(0))
    moved = latents.clone()
    moved[:, 20] += 1
    felt = (model.decode_latents(latents) - model.decode_latents(moved)).abs().amax((0, 2)).view(41, 4).amax(1) > 0
    assert felt.nonzero().flatten().tolist() == list(range(20 - model.reach, 21 + model.reach))


def test_soft_codes_are_the_hard_ones_at_the_corners_and_pass_gradients(clips):
    model, (features, lengths) = tokenizer(clips), clips
    codes = model.encode(features, lengths)
    soft = torch.nn.functional.one_hot(codes, 8).float().requires_grad_()
    made = model.decode_latents(model.embed(soft), lengths)
    assert torch.allclose(made, model.decode(codes, lengths), atol=1e-4)
    made.sum().backward()
    assert soft.grad.abs().sum() > 0


def test_fewer_layers_may_be_decoded(clips):
    model, (features, lengths) = tokenizer(clips), clips
    codes = model.encode(features, lengths)
    assert model.decode(codes[..., :1], lengths).shape == model.decode(codes, lengths).shape


def test_padding_is_not_in_the_loss_and_every_weight_learns(clips):
    features, lengths = clips
    terms = []
    for fill in (1e3, -7.0):
        model = tokenizer(clips).train()
        padded = torch.where((torch.arange(features.shape[1]) < lengths[:, None])[..., None], features, fill)
        terms.append(model.loss(padded, lengths, torch.Generator().manual_seed(0)))
    assert all(torch.equal(terms[0][name], terms[1][name]) for name in terms[0])
    terms[1]["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_perfect_reconstruction_costs_nothing_but_commitment(clips, monkeypatch):
    model, (features, lengths) = tokenizer(clips), clips
    monkeypatch.setattr(model, "decode_latents", lambda *_: features)
    terms = model.loss(features, lengths)
    assert all(float(terms[name]) == 0 for name in ("features", "positions", "joints", "feet"))
    assert torch.isclose(terms["loss"], model.config.commitment_weight * terms["commitment"])


def test_a_root_that_drifts_costs_more_the_further_it_goes(clips, monkeypatch):
    model, (features, lengths) = tokenizer(clips), clips
    costs = []
    for frame in (0, 30):
        drifting = features.clone()
        drifting[:, frame, 2] += 0.3  # one wrong step: everything after it is in the wrong place
        monkeypatch.setattr(model, "decode_latents", lambda *_, made=drifting: made)
        costs.append(float(model.loss(features, lengths)["joints"]))
    assert costs[0] > 1.5 * costs[1] > 0


def test_it_learns(clips):
    model, features, lengths = tokenizer(clips, width=24, codes=32).train(), clips[0][:1, :40], clips[1][:1].clamp(max=40)
    costs = []
    for step in range(40):
        terms = model.loss(features, lengths, torch.Generator().manual_seed(step))
        for parameter, slope in zip(
            model.parameters(), torch.autograd.grad(terms["loss"], [*model.parameters()]), strict=True
        ):
            parameter.data -= 3e-3 * slope.sign()  # the plainest descent there is
        costs.append(terms["features"].item())
    assert sum(costs[-5:]) < 0.7 * sum(costs[:5])


def test_a_checkpoint_gives_the_same_codes(clips, tmp_path):
    model, (features, lengths) = tokenizer(clips), clips
    checkpoints.save(tmp_path / "tokenizer", model, card="a card")
    loaded = checkpoints.load(tmp_path / "tokenizer", MotionTokenizer, TokenizerConfig)
    assert torch.equal(model.encode(features, lengths), loaded.encode(features, lengths))
    assert torch.equal(model.statistics.mean, loaded.statistics.mean)


def test_bad_input_is_refused(clips):
    model, (features, lengths) = tokenizer(clips), clips
    with pytest.raises(ShapeError, match="features"):
        model.encode(features[..., :259])
    with pytest.raises(ValueError, match="lengths are 1 to"):
        model.encode(features, lengths + 100)
    with pytest.raises(ShapeError, match="codes"):
        model.decode(torch.zeros(1, 5, 1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="a mask is no code"):
        model.decode(torch.full((1, 5, 6, 2), 8))
    with pytest.raises(ValueError, match="streams is one of groups, body"):
        TokenizerConfig(streams="limbs")
    with pytest.raises(ValueError, match="at least 1"):
        TokenizerConfig(width=0)


def test_smoothing_is_the_low_pass_filter_of_each_clip(clips):
    model = tokenizer(clips)
    rough = MotionTokenizer(replace(model.config, smoothing=0.0))
    rough.load_state_dict(model.state_dict())
    latents = torch.randn(2, 12, 6, 6, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([48, 31])
    jitter = lambda made: made[1, :31].diff(n=3, dim=0).norm(dim=-1).mean()
    smooth, plain = model.decode_latents(latents, lengths), rough.decode_latents(latents, lengths)
    assert jitter(smooth) < 0.4 * jitter(plain)
    assert torch.allclose(smooth[1, :31], (filter_matrix(31, 48, 1.0) @ plain[1])[:31], atol=1e-4)
    with pytest.raises(ValueError, match="smoothing is 0 frames or more"):
        TokenizerConfig(smoothing=-1.0)
