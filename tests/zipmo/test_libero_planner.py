"""The LIBERO planner: official outputs and sizes, what views, text, start step and guidance promise, and bad input."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from libero_transcription import actions, random_policy, sample, velocity
from safetensors import safe_open
from safetensors.torch import save_file

from kinelib.learning.fourier import FourierEmbedder
from kinelib.notation import ShapeError
from kinelib.official import load_official, parity, parity_report
from kinelib.zipmo.libero_planner import PAPER_ATM, PAPER_TRAMOE, LiberoPlanner, LiberoPlannerConfig

REFERENCE = Path(os.environ.get("KINELIB_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
OUTPUTS = {"velocity", "velocity_uncond", "sampled_latents", "actions"}
DINO = 86_583_552  # parameters of DINOv2 ViT-B/14 with registers at 224 pixels
SMALL = LiberoPlannerConfig(
    width=64, depth=2, heads=2, grid=(2, 3), channels=4, feature_width=16, feature_grid=(2, 2), text_width=32, time_width=16
)


def millions(module):
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def awake(module):
    """Fills the zero-initialised parameters, without which every test would pass."""
    rng = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if not parameter.any():
            parameter.data = torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5
    return module.eval()


def made(**changes):
    torch.manual_seed(0)
    return awake(LiberoPlanner(replace(SMALL, **changes)))


@pytest.fixture
def inputs():
    rng = torch.Generator().manual_seed(0)
    return {
        "noisy": torch.randn(2, 2, 1, 2, 3, 4, generator=rng),
        "time": torch.tensor([0.2, 0.8]),
        "features": torch.randn(2, 2, 4, 16, generator=rng),
        "text": torch.randn(2, 3, 32, generator=rng),
    }


def write_case(folder, name, grid, words, start_step=False, truncated=False, cfg_scale=1.0):
    """Writes a pair of files of a random policy, with outputs computed by the transcription."""
    weights = random_policy(grid=grid, start_step=start_step)
    rng = torch.Generator().manual_seed(1)
    step = torch.tensor([7, 130]) if start_step else None
    features, text = torch.randn(4, *grid, 64, generator=rng), torch.randn(2, words, 64, generator=rng)
    noise, time = torch.randn(2, 2 * grid[0] * grid[1], 8, generator=rng), torch.tensor([0.3, 0.9])
    proprio = torch.randn(2, 9, generator=rng)
    given = (features, text, step, truncated)
    drawn = sample(weights, noise, *given, 3, cfg_scale)
    recorded = {
        "image_features": features,
        "text": text,
        "noise": noise,
        "time": time,
        "proprio": proprio,
        "velocity": velocity(weights, noise, time, *given),
        "velocity_uncond": velocity(weights, noise, time, *given, masked=True),
        "sampled_latents": drawn,
        "actions": actions(weights, drawn, proprio, grid),
    }
    if start_step:
        recorded["start_step"] = step
    config = {"views": 2, "latent_grid": [1, *grid], "start_step_token": start_step, "sample_steps": 3}
    config |= {"cfg_scale": cfg_scale, "action_horizon": 16}
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"{name}_weights.safetensors")
    save_file(recorded, folder / f"{name}_io.safetensors", metadata={"config": json.dumps(config)})


@pytest.mark.parametrize(
    "case",
    [
        {"grid": (4, 4), "words": 1},
        {"grid": (2, 3), "words": 3, "cfg_scale": 2.5},
        {"grid": (2, 3), "words": 1, "start_step": True, "cfg_scale": 1.5},
        {"grid": (2, 3), "words": 2, "start_step": True, "truncated": True},
    ],
    ids=["atm", "guided", "start-step", "truncated"],
)
def test_every_output_equals_a_plain_transcription(case, tmp_path):
    write_case(tmp_path, "zipmo_libero_case", **case)
    rows = parity(tmp_path)
    assert {row.output for row in rows} == OUTPUTS
    assert all(not row.note and row.passes(1e-5) for row in rows), parity_report(tmp_path)[0]


@pytest.mark.skipif(
    not (REFERENCE / "zipmo_libero_atm_io.safetensors").is_file(),
    reason="no reference folder; set KINELIB_REFERENCE to one to compare with recorded outputs of the release",
)
def test_reference_pairs_agree_with_recorded_outputs(tmp_path):
    for path in REFERENCE.glob("zipmo_libero_*.safetensors"):
        (tmp_path / path.name).symlink_to(path)
    rows = parity(tmp_path)
    assert {row.output for row in rows} >= OUTPUTS
    assert all(not row.note and row.passes(1e-5) for row in rows), parity_report(tmp_path)[0]


def test_a_start_step_that_was_not_recorded_fails_by_name(tmp_path):
    write_case(tmp_path, "zipmo_libero_case", (2, 3), 1, start_step=True)
    with safe_open(tmp_path / "zipmo_libero_case_io.safetensors", "pt") as file:
        metadata, kept = file.metadata(), {key: file.get_tensor(key) for key in file.keys() if key != "start_step"}  # noqa: SIM118
    save_file(kept, tmp_path / "zipmo_libero_case_io.safetensors", metadata=metadata)
    text, good = parity_report(tmp_path)
    assert not good and "pass start_step" in text


def test_released_sizes_are_inferred_and_misfits_refused_by_name():
    weights = random_policy(grid=(2, 3), start_step=True)
    found = load_official(weights)
    assert found.planner.config.start_step and not found.planner.config.truncate_step_frequencies
    assert found.planner.latent_shape == (2, 1, 2, 3, 8) and found.planner.config.text_depth == 2
    assert found.policy.config.horizon == 16 and not found.policy.training
    alone = {k.removeprefix("track_predictor."): v for k, v in weights.items() if k.startswith("track_predictor.")}
    assert load_official(alone).policy is None and isinstance(load_official(alone).planner, LiberoPlanner)
    for change, message in (
        (lambda w: w.pop("track_predictor.ca_mask_token"), "missing ca_mask_token"),
        (lambda w: w.pop("policy_net.1.ff.norm.scale"), "policy head does not fit: missing transformer.layers.1.feed_norm"),
        (lambda w: w.pop("track_embedder.weight"), "missing track_embedder.weight"),
        (lambda w: w.update({"track_predictor.text_encoder.0.new": torch.zeros(1)}), "unexpected text_encoder.layers.0.new"),
    ):
        wrong = dict(weights)
        change(wrong)
        with pytest.raises(ValueError, match=message):
            load_official(wrong)


def test_paper_sizes_have_the_papers_parameter_counts():
    with torch.device("meta"):
        atm, tramoe = LiberoPlanner(PAPER_ATM), LiberoPlanner(PAPER_TRAMOE)
        unused = FourierEmbedder(3, 768, 1.0)  # the release's embedder of pokes that it throws away
    assert (millions(atm) + millions(unused) + DINO / 1e6) == pytest.approx(579.43, abs=0.005)
    assert millions(atm.text_encoder) == pytest.approx(46.0, abs=0.05)
    assert millions(tramoe) - millions(atm) == pytest.approx(10.6, abs=0.05)
    assert atm.latent_shape == (2, 1, 16, 16, 16) and PAPER_ATM.feature_grid == (16, 16)


def test_views_text_and_start_step_all_matter(inputs):
    planner = made()
    base = planner(**inputs)
    assert base.shape == inputs["noisy"].shape
    swapped = {key: value.flip(1) if key in ("noisy", "features") else value for key, value in inputs.items()}
    assert not torch.allclose(planner(**swapped), base.flip(1), atol=1e-3)
    assert not torch.allclose(planner(**inputs | {"text": inputs["text"] * 2 + 1}), base, atol=1e-3)
    stepped = made(start_step=True)
    early, late = (stepped(**inputs, start_step=torch.tensor([step, step])) for step in (0, 40))
    assert not torch.allclose(early, late, atol=1e-3)


def test_the_fault_of_the_start_step_is_only_behind_its_switch(inputs):
    exact, faulty = made(start_step=True), made(start_step=True, truncate_step_frequencies=True)
    faulty.load_state_dict(exact.state_dict())
    step = torch.tensor([3, 50])
    assert not torch.allclose(exact(**inputs, start_step=step), faulty(**inputs, start_step=step), atol=1e-4)
    # Integer steps are no different from the same numbers as floats.
    assert torch.equal(exact(**inputs, start_step=step), exact(**inputs, start_step=step.float()))
    whole = exact.embed_step.features.frequencies.round()
    for planner in (exact, faulty):
        planner.embed_step.features.frequencies.copy_(whole)
    assert torch.equal(exact(**inputs, start_step=step), faulty(**inputs, start_step=step))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_sampling_with_caches_and_batched_guidance_equals_separate_passes(inputs, guidance):
    planner, steps = made(start_step=True), 3
    given = (inputs["features"], inputs["text"], torch.tensor([4, 9]))
    noise = torch.randn(2, 3, *planner.latent_shape, generator=torch.Generator().manual_seed(2))
    drawn = planner.sample(*given, samples=3, steps=steps, guidance=guidance, noise=noise)
    x = noise[:, 1]
    with torch.no_grad():
        for step in range(steps):
            time = torch.full((2,), 1 - step / steps)
            masked = planner.prepare(*given, dropped=torch.tensor([True, True]))
            text, free = planner(x, time, *given), planner.velocity(x, time, masked)
            x = x - (free + guidance * (text - free)) / steps
    assert torch.allclose(drawn[:, 1], x, atol=1e-4)


def test_text_is_dropped_for_its_share_of_clips_in_training_only(inputs):
    planner = made(text_dropout=0.3)
    masked = planner.prepare(inputs["features"], inputs["text"], dropped=torch.tensor([True, False]))
    half = planner.velocity(inputs["noisy"], inputs["time"], masked)
    whole = planner(**inputs)
    assert torch.allclose(half[1], whole[1], atol=1e-6) and not torch.allclose(half[0], whole[0], atol=1e-3)
    rng = torch.Generator().manual_seed(0)
    planner.train()
    draws = [planner(**inputs, generator=rng) for _ in range(60)]
    changed = sum(int(not torch.allclose(draw[clip], whole[clip], atol=1e-4)) for draw in draws for clip in range(2))
    assert 0.2 < changed / 120 < 0.4
    draws[-1].square().mean().backward()
    # Reproducible from the same generator.
    again = [planner(**inputs, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*again)


def test_normalising_and_back():
    planner = made(latent_shift=-0.175, latent_variance=11.6)
    latents = -0.175 + 11.6**0.5 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert planner.normalize(latents).var().item() == pytest.approx(0.5, rel=0.05)
    assert torch.allclose(planner.denormalize(planner.normalize(latents)), latents, atol=1e-5)


def test_planner_refuses_bad_input(inputs):
    planner, stepped = made(), made(start_step=True)
    features, text = inputs["features"], inputs["text"]
    for call, message in (
        (lambda: planner.prepare(features[:, :1], text), "features must have shape"),
        (lambda: planner.prepare(features, text[:, :, :5]), "text must have shape"),
        (lambda: planner.prepare(features, text[:, :0]), "holds no token"),
        (lambda: planner.prepare(features, text * float("nan")), "text holds"),
        (lambda: planner.prepare(features, text, torch.tensor([1, 2])), "no start-step token"),
        (lambda: stepped.prepare(features, text), "pass start_step"),
        (lambda: stepped.prepare(features, text, torch.tensor([1, -2])), "from 0"),
        (lambda: stepped.prepare(features, text, torch.tensor([1])), "start_step must have shape"),
        (lambda: planner.velocity(inputs["noisy"][:1], inputs["time"][:1], planner.prepare(features, text)), "latents"),
        (lambda: planner.sample(features, text, noise=torch.zeros(2, 1, 2)), "noise must be"),
    ):
        with pytest.raises(ShapeError, match=message):
            call()
    with pytest.raises(ValueError, match="text_dropout"):
        made(text_dropout=1.0)
    for wrong in ({"guidance": float("nan")}, {"samples": 0}, {"steps": 0}, {"solver": "magic"}):
        with pytest.raises(ValueError, match="guidance|samples|step|solver"):
            planner.sample(features, text, **wrong)
