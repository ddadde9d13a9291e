"""The evaluation: an oracle that returns the held-out clips has no error, an untrained network has; tables and bad input."""

import json
import math
from dataclasses import replace

import pytest
import torch

from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.truth import TRUTH_PROMPTS
from kinelib.kimodo import evaluate
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.evaluate import KINDS, Extent, asked_of, constraint_rows, feet, solver_rows, tables, text_rows
from kinelib.learning import checkpoints

EXTENT = Extent(samples=1, clips=3, solver_clips=2, ddim_steps=6)


@pytest.fixture(scope="module")
def clips():
    return procedural_clips(24, 5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TwoStageDenoiser(DenoiserConfig(width=32, layers=1, ffn=32, heads=2)).eval().requires_grad_(False)


def value(rows, **where):
    return next(one.value for one in rows if all(getattr(one, name) == wanted for name, wanted in where.items()))


def test_an_oracle_meets_every_constraint_and_an_untrained_network_none(clips, model, monkeypatch):
    untrained = constraint_rows(model, clips, EXTENT)
    chosen = [evaluate.shortened(clip, model.config.max_frames) for clip in evaluate.spread_over(clips, EXTENT.clips)]
    monkeypatch.setattr(evaluate, "generate", lambda *given, **named: [clip.motion for clip in chosen])
    oracle = constraint_rows(model, clips, EXTENT)
    for kind in KINDS:
        judged, _ = evaluate.JUDGED[kind]
        for way in ("as published", "pulled"):
            assert value(oracle, what=kind, metric=f"{judged} error, raw, {way}") < 0.1, "centimetres"
        raw = value(untrained, what=kind, metric=f"{judged} error, raw, as published")
        # Arms of a body that is nowhere near its target cannot reach it.
        within = 0.1 * raw if kind == "hands and feet" else 1.0
        assert raw > 5 and value(untrained, what=kind, metric=f"{judged} error, cleaned") < within


def test_truth_of_the_right_motion_and_of_the_wrong_one(clips, model, monkeypatch):
    many = {clip.content: clip.motion for clip in procedural_clips(400, 3)}
    contents = [content for _, content in TRUTH_PROMPTS]
    known = [content for content in contents if content in many]
    assert len(known) >= 15
    motions = [many.get(content, many["stand"]) for content in contents]
    monkeypatch.setattr(evaluate, "generate", lambda *given, **named: motions)
    right = text_rows(model, clips, EXTENT)
    monkeypatch.setattr(evaluate, "generate", lambda *given, **named: motions[7:] + motions[:7])
    wrong = text_rows(model, clips, EXTENT)
    share = dict(what="all prompts", metric="geometric truth")
    assert value(right, **share) >= 100 * (len(known) - 2) / len(contents)
    assert value(wrong, **share) < 30 and value(right, metric="chance") < 30
    assert value(right, what="held-out clips", metric="foot skate") < 6


def test_solvers_agree_with_the_finest_at_equal_steps(clips, model):
    rows = solver_rows(model, clips, EXTENT)
    far = {one.what: one.value for one in rows if one.metric.startswith("distance")}
    assert far["ddim, 6 steps"] == 0 and all(error >= 0 for error in far.values())


def test_constraints_are_those_of_the_clip(clips):
    for kind in KINDS:
        (first,) = asked_of(clips[0], kind, torch.Generator().manual_seed(1))
        (again,) = asked_of(clips[0], kind, torch.Generator().manual_seed(1))
        assert first.frames == again.frames and max(first.frames) < len(clips[0].motion)
    with pytest.raises(ValueError, match="at least 20 frames"):
        evaluate.spread_over([], 4)


def test_clips_are_spread_and_cut_and_their_headings_known(clips):
    some = evaluate.spread_over(clips, 5)
    assert len(some) == 5 and len({id(clip) for clip in some}) == 5
    assert len(evaluate.shortened(some[0], 21).motion) == 21 and evaluate.shortened(some[0], 10_000) is some[0]
    turned = [replace(clip, motion=clip.motion.rotated(1.0)) for clip in some]
    pairs = zip(evaluate.first_headings(some), evaluate.first_headings(turned), strict=True)
    assert all(math.isclose(after, before + 1.0, abs_tol=1e-4) for before, after in pairs)


def test_feet_of_procedural_clips_stand(clips):
    found = feet([clip.motion for clip in clips])
    assert float(found["foot skate"].nanmean()) < 6 and float(found["contact accuracy"].mean()) > 90


def test_everything_is_written(clips, model, tmp_path, monkeypatch):
    checkpoints.save(tmp_path / "denoiser", model, card="a test")
    monkeypatch.setattr(evaluate, "held_out_clips", lambda captured=None: clips)
    monkeypatch.setitem(evaluate.EXTENTS, evaluate.Profile.SMOKE, EXTENT)
    text = evaluate.evaluate_kimodo(tmp_path / "out.json", profile_name="smoke", checkpoint=tmp_path)
    saved = json.loads((tmp_path / "out.json").read_text())
    assert {one["table"] for one in saved["rows"]} == {"text", "constraints", "solver"}
    assert "### constraints" in text and "| all prompts | geometric truth |" in text
    assert tables([]) == ""
    with pytest.raises(FileNotFoundError, match="holds denoiser"):
        evaluate.evaluate_kimodo(profile_name="smoke", stage="procedural", checkpoint=tmp_path)
