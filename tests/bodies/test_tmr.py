"""TMR: the release's numbers, what masks and losses do, and an evaluator that learns to tell left from right."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kinelib.bodies.evaluator import EvaluatorConfig, MotionEvaluator, evaluate, evaluated_channels
from kinelib.bodies.evaluator_training import EvaluatorData, load_evaluator, train_evaluator
from kinelib.bodies.features import FeatureLayout, encode_motions
from kinelib.bodies.motion import Motion
from kinelib.bodies.retrieval import everything
from kinelib.bodies.rotations import about_y, from_axis_angle
from kinelib.bodies.skeletons import G1_34, SMPLX22, SOMA30
from kinelib.bodies.tmr import TMR, Gaussian, TMRConfig, info_nce, kl, kl_losses, positional_code, similarity
from kinelib.learning.text import Text
from kinelib.notation import ShapeError
from kinelib.official.tmr import MODULES, is_tmr_input, load_tmr, tmr_numbers, tmr_outputs

REFERENCE = Path(os.environ.get("KINELIB_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
SMALL = TMRConfig(motion_channels=7, text_channels=5, width=16, layers=2, heads=2, feed_forward=24, dropout=0.0)
OUTPUTS = {
    "motion_tokens", "text_tokens", "reconstruction", "infonce", "infonce_filtered", "kl", "protocol_all",
    "protocol_threshold_095", "fid", "r_precision_top123", "mm_dist",
}  # fmt: skip


def batch(count=4, frames=9, words=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    motion, text = torch.randn(count, frames, 7, generator=rng), torch.randn(count, words, 5, generator=rng)
    lengths = torch.arange(count) % 4
    return motion, torch.arange(frames) < frames - lengths[:, None], text, torch.arange(words) < words - lengths[:, None]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TMR(SMALL).eval()


# ---- against the release


@pytest.fixture(scope="module")
def recording():
    path = REFERENCE / "tmr_io.safetensors"
    if not path.is_file():
        pytest.skip("no reference folder; set KINELIB_REFERENCE to one to compare with recorded outputs of the release")
    with safe_open(path, "pt") as file:
        recorded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        config = json.loads(file.metadata()["config"])
    return config, recorded, REFERENCE / "tmr_weights.safetensors"


def test_every_output_and_number_is_the_releases(recording):
    config, recorded, weights = recording
    ours, theirs = tmr_outputs(weights, config, recorded), recorded | tmr_numbers(config)
    assert set(ours) == OUTPUTS == {name for name in theirs if not is_tmr_input(name, theirs)}
    for name, tensor in ours.items():
        worst = (tensor.double() - theirs[name].double()).abs().max()
        assert float(worst) <= 1e-5 * float(theirs[name].abs().max()), name


def test_released_weights_may_lie_in_three_files(recording, tmp_path):
    state = load_file(recording[2])
    for module in MODULES:
        own = {name.removeprefix(f"{module}."): tensor for name, tensor in state.items() if name.startswith(module)}
        torch.save(own | {"sequence_pos_encoding.pe": torch.zeros(3)}, tmp_path / f"{module}.pt")
    together, apart = load_tmr(recording[2]), load_tmr(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(together.state_dict().values(), apart.state_dict().values(), strict=True))
    assert together.config == TMRConfig(21, 18, 32, 2, 4, 64)
    (tmp_path / "text_encoder.pt").unlink()
    with pytest.raises(FileNotFoundError, match="text_encoder"):
        load_tmr(tmp_path)


def test_weights_that_do_not_fit_are_refused_by_name(recording, tmp_path):
    config, recorded, weights = recording
    state = load_file(weights)
    with pytest.raises(ValueError, match="not a TMR state dict"):
        load_tmr({"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="missing motion_decoder.output.bias"):
        load_tmr({name: tensor for name, tensor in state.items() if name != "motion_decoder.final_layer.bias"})
    with pytest.raises(KeyError, match="protocol_nsim"):
        tmr_outputs(weights, config | {"protocol_nsim": {"t2m/R01": 1.0}}, recorded)


# ---- networks


def test_padding_is_never_looked_at(model):
    motion, there, text, said = batch()
    encoded = model.encode_motion(motion, there), model.encode_text(text, said)
    motion[~there], text[~said] = math.nan, math.nan
    for before, after in zip(encoded, (model.encode_motion(motion, there), model.encode_text(text, said)), strict=True):
        assert torch.equal(before.mean, after.mean) and torch.equal(before.log_variance, after.log_variance)
    alone = model.encode_motion(motion[2:3, : int(there[2].sum())], there[2:3, : int(there[2].sum())])
    assert torch.allclose(alone.mean, encoded[0].mean[2:3], atol=1e-5)


def test_the_decoder_gives_the_frames_that_are_asked_for(model):
    _, there, _, _ = batch()
    out = model.motion_decoder(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), there)
    assert out.shape == (4, 9, 7) and not out[~there].any() and out[there].abs().min() > 0
    assert not torch.equal(out[0, 0], out[0, 1])


def test_the_order_of_frames_matters(model):
    motion, there, _, _ = batch(1)
    assert not torch.allclose(model.encode_motion(motion, there).mean, model.encode_motion(motion.flip(1), there).mean)


def test_positional_codes_alternate_sines_and_cosines():
    code = positional_code(50, 8)
    assert torch.allclose(code[:, 0], torch.arange(50.0).sin()) and torch.allclose(code[:, 1], torch.arange(50.0).cos())
    assert torch.allclose(code[:, 6], (torch.arange(50.0) / 1000).sin(), atol=1e-6)


# ---- losses


def test_info_nce_is_the_logarithm_of_how_many_there_are_to_choose_from():
    same = torch.ones(6, 3)
    assert float(info_nce(same, same, 0.1)) == pytest.approx(math.log(6))
    assert float(info_nce(torch.eye(6), torch.eye(6), 0.01)) == pytest.approx(0, abs=1e-6)
    assert float(info_nce(torch.eye(6) * 50, torch.eye(6), 0.5)) == pytest.approx(math.log(1 + 5 * math.exp(-2)), abs=1e-6)


def test_texts_that_say_the_same_are_no_wrong_answers():
    text = torch.eye(4)
    motion = text[[1, 0, 2, 3]]  # the first two are mistaken for each other
    sentences = torch.eye(4)[[0, 0, 2, 3]]
    assert float(info_nce(text, motion, 0.1)) > 4
    assert float(info_nce(text, motion, 0.1, sentences)) < 1.3
    assert float(info_nce(text, motion, 0.1, torch.eye(4))) == pytest.approx(float(info_nce(text, motion, 0.1)))
    near = torch.tensor([[1.0, 0, 0, 0], [0.61, 0.7924, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # cosine 0.61
    assert float(info_nce(text, motion, 0.1, near, 0.8)) < 1.3 < 4 < float(info_nce(text, motion, 0.1, near, 0.81))


def test_divergences_of_gaussians():
    one = Gaussian(torch.ones(2, 3), torch.zeros(2, 3))
    wide = Gaussian(torch.zeros(2, 3), torch.full((2, 3), math.log(4.0)))
    assert float(kl(one)) == pytest.approx(0.5)
    assert float(kl(one, one)) == 0
    assert float(kl(wide)) == pytest.approx(0.5 * (4 - 1 - math.log(4)))
    assert float(kl_losses(one, wide)) == pytest.approx(float(kl(one, wide) + kl(wide, one) + kl(one) + kl(wide)))
    draws = Gaussian(torch.ones(1, 2), torch.full((1, 2), 2.0)).sample
    many = torch.cat([draws(torch.Generator().manual_seed(seed)) for seed in range(2000)])
    assert float(many.mean()) == pytest.approx(1, abs=0.2) and float(many.std()) == pytest.approx(math.e, rel=0.1)


def test_the_loss_is_the_weighted_sum_of_its_terms(model):
    terms = model.loss(*batch(), generator=torch.Generator().manual_seed(0))
    assert list(terms) == ["loss", "reconstruction", "kl", "latent", "contrastive"]
    weighted = terms["reconstruction"] + 1e-5 * terms["kl"] + 1e-5 * terms["latent"] + 0.1 * terms["contrastive"]
    assert terms["loss"].item() == pytest.approx(weighted.item(), rel=1e-6)
    again = model.loss(*batch(), generator=torch.Generator().manual_seed(0))
    assert torch.equal(terms["loss"], again["loss"])
    terms["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@torch.no_grad()
def test_reconstruction_counts_the_frames_that_are_there(model):
    motion, there, text, said = batch()
    noise = lambda: torch.Generator().manual_seed(0)
    ours = float(model.loss(motion, there, text, said, generator=noise())["reconstruction"])
    longer = F.pad(motion, (0, 0, 0, 20), value=math.nan), F.pad(there, (0, 20))
    assert float(model.loss(*longer, text, said, generator=noise())["reconstruction"]) == pytest.approx(ours, rel=1e-5)
    official = TMR(replace(SMALL, padding_counts=True)).eval()
    official.load_state_dict(model.state_dict())
    diluted = float(official.loss(motion, there, text, said, generator=noise())["reconstruction"])
    assert diluted == pytest.approx(ours * float(there.float().mean()), rel=1e-5)


def test_it_learns_which_text_belongs_to_which_motion():
    torch.manual_seed(0)
    model = TMR(replace(SMALL, contrastive_weight=1.0))
    pairs = batch(12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(30):
        optimizer.zero_grad()
        model.loss(*pairs, generator=rng)["loss"].backward()
        optimizer.step()
    motion, there, text, said = pairs
    model.eval()
    found = everything(similarity(model.encode_text(text, said).mean, model.encode_motion(motion, there).mean).detach())
    assert found.text_to_motion["R@1"] >= 90 and found.motion_to_text["R@1"] >= 90 > 20 > found.chance["R@1"]


# ---- the evaluator

TINY = EvaluatorConfig(width=32, layers=1, heads=2, feed_forward=48, dropout=0.0)
WORDS = {"left": 0, "right": 1, "raises": 2, "hand": 3, "turns": 4, "A": 5, "person": 6, "the": 7}


class Dictionary:
    """Stands in for the sentence encoder: one direction a word."""

    sha256 = "dictionary"

    def encode(self, sentences, *, longest=32):
        pieces = [sentence.replace(".", "").split() for sentence in sentences]
        mask = torch.arange(max(map(len, pieces))) < torch.tensor([len(p) for p in pieces])[:, None]
        tokens = torch.zeros(*mask.shape, 384)
        for row, words in enumerate(pieces):
            for place, word in enumerate(words):
                tokens[row, place, WORDS[word]] = 3
        return Text(tokens, mask)

    def embed(self, sentences, *, longest=32):
        return F.normalize(self.encode(sentences).tokens.sum(1), dim=-1)


def act(side, what, frames, seed):
    """A person who raises one hand or turns to one side."""
    rng = torch.Generator().manual_seed(seed)
    rise = torch.linspace(0, 1, frames) * (1 + 0.2 * torch.randn((), generator=rng))
    sign = 1.0 if side == "left" else -1.0
    rotations = torch.eye(3).expand(frames, 22, 3, 3).clone()
    if what == "raises":
        axis = torch.tensor([0.0, 0.0, sign]) * rise[:, None]
        rotations[:, SMPLX22.index(f"{side}_shoulder")] = from_axis_angle(axis)
    else:
        rotations[:, 0] = about_y(sign * rise)
    rotations = from_axis_angle(0.02 * torch.randn(frames, 22, 3, generator=rng)) @ rotations
    return Motion(rotations, torch.tensor([0.0, 0.94, 0.0]).expand(frames, 3).clone(), 20.0, SMPLX22)


def acts(count, seed):
    """(motions, sentences, labels)."""
    kinds = [(side, what) for side in ("left", "right") for what in ("raises", "turns")]
    rows = [(*kinds[i % 4], 12 + (7 * i) % 20, 1000 * seed + i) for i in range(count)]
    sentence = {"raises": "A person raises the {} hand.", "turns": "A person turns {}."}
    return [act(*row) for row in rows], [sentence[w].format(s) for s, w, *_ in rows], [f"{w}-{s}" for s, w, *_ in rows]


def as_data(count, seed):
    motions, sentences, labels = acts(count, seed)
    features, lengths = encode_motions(motions)
    frames = torch.cat([row[:length] for row, length in zip(features, lengths.tolist(), strict=True)])
    return EvaluatorData(frames, lengths, tuple((sentence,) for sentence in sentences), tuple(labels))


@pytest.mark.parametrize(("skeleton", "channels"), [(SMPLX22, 138), (SOMA30, 186), (G1_34, 210)])
def test_the_evaluator_reads_root_heading_positions_velocities_and_contacts(skeleton, channels):
    joints = len(skeleton)
    assert len(evaluated_channels(FeatureLayout(skeleton))) == channels == 3 + 2 + 3 * (joints - 1) + 3 * joints + 4


def test_where_a_clip_happens_and_what_lies_beyond_its_end_do_not_matter():
    torch.manual_seed(0)
    evaluator = MotionEvaluator(TINY).eval()
    motions = acts(3, 0)[0]
    here = evaluator.embed_motions(motions)
    there = evaluator.embed_motions([motion.rotated(2.0).translated((5.0, -3.0)) for motion in motions])
    assert torch.allclose(here, there, atol=1e-3)
    assert torch.allclose(evaluator.embed_motions(motions[1:2]), here[1:2], atol=1e-4)
    assert torch.allclose(here.norm(dim=-1), torch.ones(3), atol=1e-5)
    with pytest.raises(ShapeError, match="motion 0 is smplx22 at 10 fps"):
        evaluator.embed_motions([motions[0].resampled(10.0)])


def test_the_evaluator_learns_sides_from_motions_and_comes_back_from_disk(tmp_path):
    data, held_out = as_data(32, 1), as_data(16, 2)
    options = {"config": TINY, "steps": 40, "batch": 24, "learning_rate": 4e-3, "encoder": Dictionary()}
    evaluator, result = train_evaluator(data, held_out, tmp_path, **options)
    assert result.losses[-1]["contrastive"] < result.losses[0]["contrastive"]
    card = (tmp_path / "evaluator" / "card.md").read_text()
    assert "R@1, text to motion, 16 held-out clips" in card and "by chance" in card
    motions, sentences, _ = acts(16, 3)
    loaded = load_evaluator(tmp_path / "evaluator")
    assert torch.equal(loaded.statistics.mean, evaluator.statistics.mean)
    scores = evaluate(loaded, motions, sentences, acts(16, 4)[0], encoder=Dictionary())
    found = scores.retrieval
    assert found.gallery == 16 and found.chance["R@1"] == pytest.approx(25)
    assert found.text_to_motion["R@1"] >= 60 and found.motion_to_text["R@1"] >= 60
    others = acts(16, 4)[0]
    still = [motion.slice(0, 1) for motion in others]
    assert scores.frechet < 0.2 * evaluate(loaded, still, sentences, others, encoder=Dictionary()).frechet
    assert scores.rows()["R@1 of 16"] == found.text_to_motion["R@1"] and "FID to 16" in scores.rows()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        train_evaluator(data, held_out, tmp_path, **options)


def test_mirror_images_have_their_own_words_and_labels():
    data = as_data(4, 1)
    assert data.sentences() == sorted({"A person raises the left hand.", "A person raises the right hand.",
                                       "A person turns left.", "A person turns right."})  # fmt: skip
    assert set(data.numbers) == {"raises-left", "raises-right", "turns-left", "turns-right"}
    with pytest.raises(ShapeError, match="same clips"):
        EvaluatorData(torch.zeros(5, 273), torch.tensor([3, 1]), (("a",), ("b",)), ("a", "b"))


def test_motions_and_sentences_come_in_pairs():
    motions, sentences, _ = acts(3, 0)
    with pytest.raises(ShapeError, match="3 motions do not fit 2 sentences"):
        evaluate(MotionEvaluator(TINY).eval(), motions, sentences[:2], encoder=Dictionary())


def test_weights_survive_a_safetensors_file(recording, tmp_path):
    save_file(load_file(recording[2]), tmp_path / "tmr_weights.safetensors")
    assert load_tmr(tmp_path / "tmr_weights.safetensors").config.width == 32
