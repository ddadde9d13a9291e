"""The two-stage denoiser: the papers' sizes, what it may and may not look at, its switches, and bad input."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import FeatureLayout, turned
from kinelib.kimodo.denoiser import PAPER_L, PAPER_M, PAPER_S, DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.diffusion import signal_levels
from kinelib.kimodo.encoder import EncoderLayer, sinusoids
from kinelib.learning import checkpoints
from kinelib.notation import ShapeError

SMALL = DenoiserConfig(joints=4, width=32, layers=2, heads=2, ffn=48, text_width=12, registers=2, max_frames=12)
OFFICIAL = replace(SMALL, norm="post", patch=1, broadcast=False, modulate=False, ahead=False, skip=False)
XS, ZS = FeatureLayout(SMALL.joints).turning  # channels of vectors on the floor
VARIANTS = {
    "small": SMALL,
    "official": OFFICIAL,
    "patch-3": replace(SMALL, patch=3),
    "one-stage": replace(SMALL, stages=1),
    "global-root": replace(SMALL, stage2_root="global"),
    "no-extra-tokens": replace(SMALL, registers=0),
}


def network(config=SMALL, seed=0, noise=0.05):
    """A denoiser in eval mode none of whose parts is silent, with statistics that are not 0 and 1."""
    torch.manual_seed(seed)
    model = TwoStageDenoiser(config).eval().requires_grad_(False)
    for weight in model.parameters():
        weight += noise * torch.randn_like(weight)
    mean, std = torch.randn(config.features), torch.rand(config.features) + 0.5
    mean[[*XS, *ZS]], std[ZS] = 0, std[XS]
    model.set_statistics(Statistics(mean, std), Statistics(torch.randn(4), torch.rand(4) + 0.5))
    return model


def inputs(config=SMALL, batch=3, frames=11, seed=1):
    """noisy, steps, text, first heading, mask, target."""
    rng = torch.Generator().manual_seed(seed)
    noisy, target = (torch.randn(batch, frames, config.features, generator=rng) for _ in range(2))
    mask = torch.rand(batch, frames, config.features, generator=rng) < 0.2
    mask[..., ZS] = mask[..., XS]
    return {
        "noisy": noisy,
        "steps": torch.tensor([3, 500, 990])[:batch],
        "text": torch.randn(batch, 1, config.text_width, generator=rng),
        "first_heading": torch.rand(batch, generator=rng) * 6,
        "mask": mask,
        "target": target,
    }


# ---- sizes


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (replace(PAPER_L, joints=27), 283.1),
        (PAPER_L, 283.3),
        (replace(PAPER_M, joints=27), 148.7),
        (PAPER_M, 148.9),
        (replace(PAPER_S, joints=27), 56.5),
        (PAPER_S, 56.6),
        (replace(PAPER_S, joints=27, width=256, ffn=1024), 15.4),
        (replace(PAPER_S, joints=27, width=256, ffn=512, layers=4), 7.0),
    ],
)
def test_the_papers_sizes_have_the_papers_number_of_weights(config, millions):
    with torch.device("meta"):
        model = TwoStageDenoiser(config)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(("skeleton", "joints", "channels"), [("smplx22", 22, 273), ("soma30", 30, 369), ("g1_34", 34, 417)])
def test_every_released_skeleton_fits_the_official_layout(skeleton, joints, channels):
    with torch.device("meta"):
        model = TwoStageDenoiser(replace(PAPER_S, skeleton=skeleton, joints=joints))
    assert model.config.features == channels
    assert model.root.features_in.in_features + model.root.mask_in.in_features == 2 * channels
    assert model.body.features_in.in_features + model.body.mask_in.in_features == 4 + (channels - 5) + channels
    assert (model.root.features_out.out_features, model.body.features_out.out_features) == (5, channels - 5)


def test_one_stage_is_as_large_as_two():
    sizes = {}
    for stages in (1, 2):
        with torch.device("meta"):
            model = TwoStageDenoiser(DenoiserConfig(stages=stages, patch=1))
        sizes[stages] = sum(weight.numel() for weight in model.parameters())
    assert abs(sizes[1] / sizes[2] - 1) < 0.08


# ---- one layer, against torch's own


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_is_torchs_transformer_layer(norm):
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(
        16, 4, 24, 0.0, "gelu", norm_first=norm == "pre", batch_first=True
    ).requires_grad_(False)
    ours = EncoderLayer(16, 4, 24, norm)
    pairs = {
        "query_key_value.weight": theirs.self_attn.in_proj_weight,
        "query_key_value.bias": theirs.self_attn.in_proj_bias,
        **{f"out.{name}": weight for name, weight in theirs.self_attn.out_proj.named_parameters()},
        **{f"up.{name}": weight for name, weight in theirs.linear1.named_parameters()},
        **{f"down.{name}": weight for name, weight in theirs.linear2.named_parameters()},
        **{f"attention_norm.{name}": weight for name, weight in theirs.norm1.named_parameters()},
        **{f"feed_norm.{name}": weight for name, weight in theirs.norm2.named_parameters()},
    }
    ours.load_state_dict({name: weight + 0.1 * torch.randn_like(weight) for name, weight in pairs.items()})
    for name, weight in pairs.items():
        weight.copy_(ours.state_dict()[name])
    x, visible = torch.randn(2, 7, 16), torch.arange(7) < torch.tensor([[7], [5]])
    expected = theirs(x, src_key_padding_mask=~visible)
    assert torch.allclose(ours(x, visible)[visible], expected[visible], atol=1e-5)
    assert torch.allclose(ours(x, first=3), theirs(x)[:, 3:], atol=1e-5)


def test_a_new_layer_with_norms_before_is_the_identity():
    x = torch.randn(2, 5, 16)
    assert torch.equal(EncoderLayer(16, 4, 24, "pre")(x), x)


def test_codes_are_sines_and_cosines_in_turn():
    codes = sinusoids(torch.tensor([0, 3]), 6)
    assert torch.equal(codes[0], torch.tensor([0.0, 1, 0, 1, 0, 1]))
    rates = torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)])
    assert torch.allclose(codes[1, 0::2], (3 * rates).sin()) and torch.allclose(codes[1, 1::2], (3 * rates).cos())


# ---- what the answer depends on


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_input_matters_and_only_constrained_targets_do(config):
    model, given = network(config), inputs(config)
    out = model(**given)
    assert out.shape == given["noisy"].shape and out.isfinite().all()
    for name in ("noisy", "text", "first_heading", "target"):
        assert not torch.allclose(model(**given | {name: given[name] + 0.5}), out, atol=1e-4), name
    assert not torch.allclose(model(**given | {"steps": given["steps"] // 2}), out, atol=1e-4)
    assert not torch.allclose(model(**given | {"mask": None}), out, atol=1e-4)
    other = torch.where(given["mask"], given["target"], 7.0)
    assert torch.equal(model(**given | {"target": other}), out)
    # What is under a constraint is overwritten.
    noise = torch.where(given["mask"], 9.0, given["noisy"])
    assert torch.equal(model(**given | {"noisy": noise}), out)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_padding_changes_nothing(config):
    model, given = network(config), inputs(config)
    lengths = torch.tensor([11, 7, 2])
    out = model(**given, lengths=lengths)
    garbage = given["noisy"].clone()
    for clip, length in enumerate(lengths.tolist()):
        garbage[clip, length:] = float("nan")
    again = model(**given | {"noisy": garbage}, lengths=lengths)
    for clip, length in enumerate(lengths.tolist()):
        assert torch.equal(again[clip, :length], out[clip, :length])
        alone = {name: value[clip : clip + 1] for name, value in given.items()}
        alone |= {name: alone[name][:, :length] for name in ("noisy", "mask", "target")}
        assert torch.allclose(model(**alone)[0], out[clip, :length], atol=2e-5)


def test_no_conditions_are_zero_text_heading_zero_and_an_empty_mask():
    model, given = network(), inputs()
    noisy, steps = given["noisy"], given["steps"]
    explicit = model(noisy, steps, torch.zeros(3, 1, 12), torch.zeros(3), torch.zeros_like(given["mask"]), given["target"])
    assert torch.allclose(model(noisy, steps), explicit, atol=1e-6)


def test_fewer_sentences_are_filled_up_with_zero_vectors():
    model, given = network(), inputs()
    filled = F.pad(given["text"], (0, 0, 0, 2))
    assert torch.allclose(model(**given), model(**given | {"text": filled}), atol=1e-5)


def test_the_body_follows_how_the_root_moves_and_not_where_it_is():
    model, lengths = network(OFFICIAL), torch.tensor([6, 6])
    root = torch.randn(2, 6, 5)
    moved = root.clone()
    moved[..., [0, 2]] += 3.0
    assert torch.allclose(model.bridge(root, lengths), model.bridge(moved, lengths), atol=1e-5)
    raised = root.clone()
    raised[..., 1] += 1.0
    assert not torch.allclose(model.bridge(root, lengths), model.bridge(raised, lengths), atol=1e-2)
    everything = network(replace(OFFICIAL, stage2_root="global"))
    assert torch.equal(everything.bridge(root, lengths), root)


@pytest.mark.parametrize("stop", [True, False])
def test_the_bodys_loss_reaches_the_root_stage_only_when_it_may(stop):
    model = network(replace(SMALL, stop_gradient=stop)).requires_grad_(True).train()
    model(**inputs())[..., 5:].sum().backward()
    reached = any(weight.grad is not None and weight.grad.any() for weight in model.root.parameters())
    assert reached is not stop
    model.zero_grad()
    model.eval()(**inputs())[..., 5:].sum().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in model.root.parameters())


def test_a_new_small_model_passes_constraints_on_and_shrinks_the_noise():
    torch.manual_seed(0)
    model, given = TwoStageDenoiser(replace(SMALL, root_filter=0.0, body_filter=0.0)).eval(), inputs()
    out = model(**given)
    assert torch.allclose(out[given["mask"]], given["target"][given["mask"]], atol=1e-5)  # turned and turned back
    # Channels of unit variance on their own: the signal's amplitude times the noisy value is the best guess.
    amplitude = torch.tensor([signal_levels()[step] for step in given["steps"]]).sqrt()[:, None, None]
    assert torch.allclose(out[~given["mask"]], (amplitude * given["noisy"])[~given["mask"]], atol=1e-5)


def test_prepared_conditions_give_the_same_answer_at_every_step():
    model, given = network(), inputs()
    prepared = model.prepare(11, *(given[name] for name in ("text", "first_heading", "mask", "target")))
    for steps in (torch.tensor([1, 2, 3]), torch.tensor([999, 0, 40])):
        assert torch.equal(model.clean(given["noisy"], steps, prepared), model(**given | {"steps": steps}))


def test_it_learns():
    torch.manual_seed(0)
    model, given = TwoStageDenoiser(SMALL).train(), inputs()
    clean = torch.randn_like(given["noisy"])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = (model(**given) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_dropout_acts_in_training_only_and_can_be_changed():
    model, given = network(replace(SMALL, dropout=0.5)), inputs()
    assert torch.equal(model(**given), model(**given))
    model.train()
    assert not torch.allclose(model(**given), model(**given), atol=1e-3)
    model.set_dropout(0.0)
    assert torch.equal(model(**given), model(**given))


def test_statistics_travel_with_the_checkpoint(tmp_path):
    model, features = network(), torch.randn(2, 5, SMALL.features)
    assert torch.allclose(model.statistics.denormalize(model.statistics.normalize(features)), features, atol=1e-5)
    checkpoints.save(tmp_path / "model", model, card="a card")
    again = checkpoints.load(tmp_path / "model", TwoStageDenoiser, DenoiserConfig)
    assert torch.equal(again.statistics.mean, model.statistics.mean)
    assert torch.equal(again.local_statistics.std, model.local_statistics.std)
    # Not bit for bit: weights that are read from a file may lie elsewhere in memory, and sums be taken in another order.
    assert torch.allclose(again(**inputs()), model(**inputs()), atol=1e-5)


def test_a_turned_question_has_the_turned_answer():
    model, given = network(), inputs()
    by = torch.tensor([0.0, 2.5, -1.0])
    turn = lambda features: turned(features, by, model.layout)
    asked = given | {"noisy": turn(given["noisy"]), "target": turn(given["target"])}
    asked["first_heading"] = given["first_heading"] + by
    assert torch.allclose(model(**asked), turn(model(**given)), atol=1e-5)
    plain = network(replace(SMALL, ahead=False))
    assert not torch.allclose(plain(**asked), turn(plain(**given)), atol=1e-2)


def test_conditions_modulate_every_layer():
    """What sentence and step do to a layer is no sum: they scale what it reads."""
    model, given = network(), inputs()
    silent = network()
    for stage in (silent.root, silent.body):
        torch.nn.init.zeros_(stage.modulation.weight)
        torch.nn.init.zeros_(stage.modulation.bias)
    assert not torch.allclose(model(**given), silent(**given), atol=1e-3)
    fresh = TwoStageDenoiser(SMALL)
    assert not fresh.root.modulation.weight.any(), "a new network is not modulated"


def test_statistics_of_clips_that_were_not_turned_are_refused():
    model = network()
    lopsided = torch.ones(SMALL.features)
    lopsided[XS] = 2
    with pytest.raises(ValueError, match="turning=FeatureLayout.turning"):
        model.set_statistics(Statistics(torch.zeros(SMALL.features), lopsided), Statistics(size=4))


# ---- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "both"}, "unknown norm 'both'"),
        ({"stages": 3}, "unknown stages 3"),
        ({"stage2_root": "near"}, "unknown stage2_root"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"registers": -1}, "registers must be 0 or more"),
        ({"heads": 3}, "3 heads must divide the width 32"),
        ({"norm": "post"}, "modulate=False"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TwoStageDenoiser(replace(SMALL, **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.update(noisy=g["noisy"][..., :-1]), "noisy must have shape"),
        (lambda g: g.update(steps=g["steps"][:2]), "steps must have shape"),
        (lambda g: g.update(text=g["text"][..., :-1]), "text must have shape"),
        (lambda g: g.update(text=g["text"].repeat(1, 4, 1)), "places for 1 to 3 sentence vectors; got 4"),
        (lambda g: g.update(first_heading=g["first_heading"][:1]), "first_heading must have shape"),
        (lambda g: g.update(target=None), "pass target"),
        (lambda g: g.update(mask=g["mask"][:, :-1]), "mask must have shape"),
        (lambda g: g.update(target=g["target"] * float("nan")), "no finite target"),
        (lambda g: g["mask"].__setitem__((..., ZS), ~g["mask"][..., ZS]), "in x and z or in neither"),
        (lambda g: g.update(lengths=torch.tensor([11, 12, 1])), "lengths must be 1..11"),
        (lambda g: g.update(lengths=torch.tensor([11, 0, 1])), "lengths must be 1..11"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(change, message):
    given = inputs()
    change(given)
    with pytest.raises(ShapeError, match=message):
        network()(**given)


def test_a_target_may_be_anything_where_nothing_is_constrained():
    given = inputs()
    holes = torch.where(given["mask"], given["target"], float("nan"))
    assert torch.equal(network()(**given | {"target": holes}), network()(**given))
