"""Training the generator at a size of seconds: it learns what words say, resumes, refuses, and writes an honest card."""

from dataclasses import replace

import pytest
import torch
from toy_tokens import TINY, loud, told_tokens

from kinelib.kinmo.coarse_to_fine import draw_codes
from kinelib.kinmo.generator_training import LossConfig, generator_loss, held_out_loss, residual_loss, train_generator
from kinelib.kinmo.masked import GeneratorConfig, MaskedMotionGenerator
from kinelib.kinmo.sampling import Sampler, generators
from kinelib.learning import checkpoints
from kinelib.notation import ShapeError

OPTIONS = {"codes": 8, "config": replace(TINY, streams=1, codes=4, levels=9), "batch": 8, "steps": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    model, result = train_generator(
        told_tokens(), told_tokens(8, seed=1), out, **OPTIONS | {"steps": 120, "learning_rate": 1e-2}, source="told tokens"
    )
    return model, result, out


def test_it_learns_to_do_what_it_is_told(trained):
    model, result, _ = trained
    assert result.losses[-1]["base"] < 0.3 * result.losses[0]["base"]
    batch = told_tokens(8, seed=2).take(torch.arange(8), torch.zeros(8, dtype=torch.long))
    for levels in (1, 3):
        drawn = draw_codes(model, batch["words"], batch["lengths"], generators(0, 8), Sampler(steps=4), levels=levels)
        assert float((drawn == batch["codes"]).float().mean()) > 0.95


def test_sizes_are_those_of_tokens_and_words(trained):
    config = trained[0].config
    assert (config.streams, config.codes, config.levels, config.longest, config.text_width) == (6, 8, 3, 6, 8)


def test_the_card_says_what_was_measured(trained):
    _, result, out = trained
    card = (out / "generator" / "card.md").read_text()
    assert "told tokens" in card and "8 were held out" in card and "interaction, 50% hidden" in card and "residual" in card
    again = checkpoints.load(out / "generator", MaskedMotionGenerator, GeneratorConfig)
    assert again.config == trained[0].config
    measured = held_out_loss(told_tokens(8, seed=1))(again.requires_grad_(False))
    assert measured["residual"] == pytest.approx(result.validations[-1]["residual"], abs=0.01)


def test_a_checkpoint_is_not_overwritten_unasked(trained):
    with pytest.raises(FileExistsError, match="overwrite=True"):
        train_generator(told_tokens(), told_tokens(8), trained[2], **OPTIONS)


def test_it_starts_from_earlier_weights(trained, tmp_path):
    model, result = train_generator(
        told_tokens(), told_tokens(8), tmp_path, start=trained[0], **OPTIONS | {"steps": 1, "learning_rate": 1e-9}
    )
    assert result.losses[0]["base"] < 0.5
    assert torch.allclose(model.table, trained[0].table, atol=1e-3)


def test_the_flat_baseline_trains_too(tmp_path):
    flat = replace(TINY, levels=1)
    sets = told_tokens(8, config=flat), told_tokens(4, config=flat, seed=1)
    model, result = train_generator(*sets, tmp_path, name="flat", **OPTIONS)
    assert model.config.levels == 1 and "global, 100% hidden" in result.validations[-1]
    assert "aligner" not in (tmp_path / "flat" / "card.md").read_text()


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    model, motions = loud(MaskedMotionGenerator(TINY)), told_tokens()
    measure, generator = generator_loss(LossConfig()), torch.Generator().manual_seed(0)
    for seed in range(6):  # levels, silence and layers are drawn
        batch = motions.take(torch.arange(16), torch.full((16,), seed % 2))
        measure(model, batch, generator)["loss"].backward()
    learned = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    without = [name for name, one in learned if one.grad is None or not one.grad.any()]
    assert not without


def test_a_sure_residual_transformer_has_no_loss():
    motions = told_tokens()

    class Sure:
        def next_layer(self, codes, words, lengths):
            return 20.0 * torch.nn.functional.one_hot(codes[..., 0], 8).float()

    batch = motions.take(torch.arange(16), torch.zeros(16, dtype=torch.long))
    assert float(residual_loss(Sure(), batch, 1)) < 1e-3


def test_clips_of_another_tokenizer_are_refused(tmp_path):
    with pytest.raises(ShapeError, match="another tokenizer"):
        train_generator(told_tokens(), told_tokens(8, config=replace(TINY, codebooks=2)), tmp_path, **OPTIONS)


@pytest.mark.parametrize("wrong", [{"levels": (0.0, 0.0)}, {"silent": 1.5}, {"residual": 0.0}])
def test_odds_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="odds"):
        LossConfig(**wrong)
