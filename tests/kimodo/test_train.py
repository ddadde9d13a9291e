"""The training stages at a size of seconds: phases, gradients, resuming, cards, and what differs between them."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from kinelib.bodies.evaluator_training import load_evaluator
from kinelib.bodies.features import FeatureLayout
from kinelib.bodies.skeletons import FPS, SMPLX22
from kinelib.kimodo import data, train
from kinelib.kimodo.curriculum import Curriculum
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.losses import LossConfig, MotionLoss
from kinelib.learning import checkpoints
from kinelib.learning.profiles import Profile

NETWORK = {"width": 16, "layers": 1, "heads": 2, "ffn": 16, "text_width": 8}
SIZE = train.Size(10, 4, 1.0, learning_rate=1e-3)
CAPTURED = "Bandai-Namco Research Motiondataset"


class Words:
    """A sentence encoder of no weights: the vector of a sentence is drawn from its letters."""


def vectors(table, sentences):
    rows = [torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, s)))) for s in sentences]
    return torch.stack(rows)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder in which the clips of all tests are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(monkeypatch, tmp_path, cache):
    """Tiny networks, no sentence encoder, no captured motion unless a test brings some."""
    monkeypatch.delenv("KINELIB_DATA", raising=False)
    monkeypatch.setattr(train, "cache_folder", lambda out: cache)
    monkeypatch.setattr(train, "text_table", lambda *a: None)
    monkeypatch.setattr(train, "TextEncoder", Words)
    monkeypatch.setattr(train, "sentence_vectors", vectors)
    return {"profile_name": "smoke", "steps": 4, "size": SIZE, "network": NETWORK, "out": tmp_path / "runs" / "try"}


def load(folder):
    return checkpoints.load(folder, TwoStageDenoiser, DenoiserConfig)


def batch(motions, mask=True, seed=0):
    sentences = motions.sentences()
    drawing = data.Batches(motions, sentences, vectors(None, sentences), size=4)
    curriculum = Curriculum(text_only=0.0 if mask else 1.0, nothing=0.0, dropout=(0.0, 0.0))
    return train.draws(drawing, curriculum)(torch.Generator().manual_seed(seed), 0.5)


@pytest.fixture(scope="module")
def motions():
    return data.procedural_set(10)


# ---- one step


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("stage", ["denoiser", "one-stage", "no-extra-tokens"])
def test_gradients_reach_every_parameter_once_the_zero_matrices_have_moved(motions, stage, stop):
    torch.manual_seed(0)
    model = train.build(stage, Profile.LAB, **NETWORK, stop_gradient=stop).train()
    model.set_statistics(*data.statistics(motions))
    with torch.no_grad():  # matrices that start at zero let nothing through in the first step
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    loss = train.denoising_loss(MotionLoss(FeatureLayout(SMPLX22), FPS, train.LOSS))
    loss(model, batch(motions), torch.Generator().manual_seed(0))["loss"].backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert not without


def test_the_bodys_loss_reaches_the_root_stage_only_without_stop_gradient(motions):
    only_body = LossConfig(root=0, heading=0, positions=1, rotations=0, velocities=0, contacts=0, kinematics=0)
    reached = {}
    for stop in (True, False):
        torch.manual_seed(0)
        model = train.build("denoiser", Profile.LAB, **NETWORK, stop_gradient=stop, skip=False).train()
        model.set_statistics(*data.statistics(motions))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        loss = train.denoising_loss(MotionLoss(FeatureLayout(SMPLX22), FPS, only_body))
        loss(model, batch(motions), torch.Generator().manual_seed(0))["loss"].backward()
        reached[stop] = sum(float(p.grad.abs().sum()) for p in model.root.parameters() if p.grad is not None)
        assert sum(float(p.grad.abs().sum()) for p in model.body.parameters() if p.grad is not None) > 0
    assert reached[True] == 0 < reached[False]


def test_a_network_that_knows_the_truth_has_no_loss(motions):
    drawn = batch(motions)
    statistics = data.statistics(motions)

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.statistics = statistics[0]

        def set_dropout(self, share):
            assert share == 0.0

        def forward(self, noisy, steps, text, heading, mask, target, lengths):
            assert noisy.shape == target.shape == mask.shape and 0 <= steps.min() <= steps.max() < 1000
            assert not torch.allclose(noisy, target)
            return target

    loss = train.denoising_loss(MotionLoss(FeatureLayout(SMPLX22), FPS, train.LOSS))
    assert float(loss(Oracle(), drawn, torch.Generator())["loss"]) == pytest.approx(0.0, abs=1e-4)


def test_phases_follow_the_progress(motions):
    sentences = motions.sentences()
    drawing = data.Batches(motions, sentences, vectors(None, sentences), size=16)
    draw = train.draws(drawing, Curriculum(text_only=0.5, nothing=0.0))
    early, late, end = (draw(torch.Generator().manual_seed(1), progress) for progress in (0.49, 0.5, 0.99))
    assert early["mask"] is None and early["dropout"] == 0.1
    assert late["mask"].any(2).any(1).all() and late["dropout"] == 0.0
    assert late["mask"].float().mean() < end["mask"].float().mean()
    assert torch.equal(early["features"], late["features"])


# ---- stages

DENOISERS = [stage for stage in train.STAGES if stage != "evaluator"]


@pytest.mark.slow
def test_the_evaluator_is_a_stage_too(small):
    result = train.train_stage("evaluator", **small | {"steps": 3})
    card = (small["out"] / "evaluator" / "card.md").read_text()
    assert result.steps == 3 and "10 procedural clips" in card and "MIT." in card and "--stage evaluator" in card
    load_evaluator(small["out"] / "evaluator")


@pytest.mark.slow
def test_every_stage_trains_and_what_it_saves_can_be_used(small):
    for stage in DENOISERS:
        result = train.train_stage(stage, **small)
        assert result.steps == 4 and {"step", "seconds", "text", "constrained"} == set(result.validations[-1])
        model = load(small["out"] / stage)
        clean = model(torch.randn(2, 30, 273), torch.tensor([3, 900]))
        assert clean.shape == (2, 30, 273) and torch.isfinite(clean).all()
        assert not model.statistics.std.eq(1).all() and not model.local_statistics.std.eq(1).any()
        card = (small["out"] / stage / "card.md").read_text()
        assert "10 procedural clips" in card and "MIT." in card and f"--stage {stage}" in card and "held-out loss" in card
    config = lambda stage: load(small["out"] / stage).config
    assert config("one-stage").stages == 1 and config("no-extra-tokens").registers == 0
    assert config("global-root").stage2_root == "global" and config("denoiser").stages == 2
    extra = checkpoints.read_config(small["out"] / "no-smooth-root")["extra"]
    assert extra["smooth_root"] is False
    smooth, raw = (load(small["out"] / stage).statistics for stage in ("denoiser", "no-smooth-root"))
    sway = FeatureLayout(SMPLX22).joint("positions", 0).start
    assert smooth.std[sway] > 1e-3 > raw.std[sway]


def test_features_are_kept_in_the_folder_of_runs(tmp_path):
    assert train.cache_folder(tmp_path / "runs" / "smoke" / "kimodo") == tmp_path / "runs" / "data"


def test_training_lowers_the_loss(small):
    options = small | {"steps": 40, "network": NETWORK | {"width": 32, "ffn": 64}, "size": replace(SIZE, learning_rate=3e-3)}
    result = train.train_stage("procedural", **options)
    assert result.losses[-1]["loss"] < 0.9 * result.losses[0]["loss"]


def test_no_curriculum_constrains_from_the_first_step():
    changed = train.stage_curriculum("no-curriculum", train.SMALL)
    assert changed.constrained(0.0) and changed.cap(0.0) == changed.cap(1.0) == 20
    assert train.stage_curriculum("denoiser", train.SMALL) is train.SMALL


def test_an_interrupted_training_goes_on_where_it_was(small, monkeypatch):
    options = small | {"steps": 6}
    whole = train.train_stage("procedural", **options | {"out": small["out"] / "a"})
    draws = train.draws

    def interrupted(*given):
        inner, calls = draws(*given), []

        def once(generator, progress):
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return inner(generator, progress)

        return once

    options["out"] = small["out"] / "b"
    monkeypatch.setattr(train, "draws", interrupted)
    first = train.train_stage("procedural", **options)
    assert first.stopped_early and first.steps < 6 and not (options["out"] / "procedural").exists()
    monkeypatch.setattr(train, "draws", draws)
    result = train.train_stage("procedural", resume=True, **options)
    clockless = lambda lines: [{k: v for k, v in line.items() if k not in ("seconds", "items_per_second")} for line in lines]
    assert clockless(result.losses) == clockless(whole.losses)
    a, b = (load(small["out"] / name / "procedural").state_dict() for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_it_starts_from_earlier_weights_and_keeps_their_statistics(small):
    train.train_stage("procedural", **small)
    before = load(small["out"] / "procedural")
    other = small | {"out": small["out"] / "more", "steps": 1, "size": replace(SIZE, clips=5, learning_rate=1e-9)}
    train.train_stage("procedural", start=small["out"], **other)
    after = load(small["out"] / "more" / "procedural")
    pairs = zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in pairs)
    assert "--start DIR" in (other["out"] / "procedural" / "card.md").read_text()


def test_captured_motion_is_mixed_in_and_its_licence_kept(small, monkeypatch, tmp_path):
    captured = replace(data.procedural_set(4, 77), sources=(CAPTURED,) * 4)
    monkeypatch.setattr(train, "captured_set", lambda folder, part, **options: captured)
    monkeypatch.setenv("KINELIB_DATA", str(tmp_path))
    train.train_stage("denoiser", **small)
    train.train_stage("procedural", **small)
    card = (small["out"] / "denoiser" / "card.md").read_text()
    assert f"4 clips of {CAPTURED}" in card and "CC BY-NC 4.0" in card
    # Weights that begin with those carry their licence, whatever they are trained on afterwards.
    monkeypatch.delenv("KINELIB_DATA")
    later = small | {"out": small["out"] / "later"}
    train.train_stage("denoiser", start=small["out"], **later)
    card = (later["out"] / "denoiser" / "card.md").read_text()
    assert CAPTURED not in card and "**Licence.** CC BY-NC 4.0" in card
    free = (small["out"] / "procedural" / "card.md").read_text()
    assert "CC BY-NC" not in free and CAPTURED not in free


def test_a_share_of_the_data_is_an_even_choice(small, monkeypatch):
    seen = []
    batches = train.Batches

    def watching(motions, *given, **options):
        seen.append(motions.labels)
        return batches(motions, *given, **options)

    monkeypatch.setattr(train, "Batches", watching)
    train.train_stage("procedural", data_share=0.5, **small)
    labels = data.procedural_set(10).labels
    assert seen[0] == labels[::2]


def test_a_checkpoint_is_not_replaced_unless_asked(small):
    train.train_stage("procedural", **small)
    card = (small["out"] / "procedural" / "card.md").read_text()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        train.train_stage("procedural", **small | {"steps": 2})
    assert (small["out"] / "procedural" / "card.md").read_text() == card
    train.train_stage("procedural", overwrite=True, **small | {"steps": 2})
    assert json.loads((small["out"] / "procedural-training" / "log.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_mistakes_are_told_before_clips_are_made(small, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "training_set", lambda *a, **b: pytest.fail("clips were made"))
    calls = [
        (dict(stage="decoder"), ValueError, "choose one of: denoiser, procedural"),
        (dict(stage="denoiser", profile_name="large"), ValueError, "no profile 'large'"),
        (dict(stage="denoiser", seconds=2.0), ValueError, "exactly one of steps and seconds"),
        (dict(stage="denoiser", data_share=0.0), ValueError, "data_share is in"),
        (dict(stage="denoiser", captured=tmp_path / "nowhere"), FileNotFoundError, "no folder .*nowhere"),
        (dict(stage="denoiser", start=tmp_path), FileNotFoundError, "no checkpoint folder"),
    ]
    for options, kind, message in calls:
        with pytest.raises(kind, match=message):
            train.train_stage(**small | options)


@pytest.mark.parametrize("name", list(Profile))
def test_networks_of_all_profiles_can_be_built(name):
    with torch.device("meta"):
        models = {stage: train.build(stage, name) for stage in DENOISERS}
    assert models["denoiser"].config.joints == 22 and models["denoiser"].config.max_frames >= 100
    if name is Profile.PAPER:
        size = train.SIZES[name]
        assert models["denoiser"].config.layers == 16 and models["denoiser"].config.norm == "post"
        assert size.optimizer == "adam-atan2" and size.learning_rate == 2e-5 and size.loss == LossConfig()
