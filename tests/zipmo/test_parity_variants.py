"""The parity check on every kind of recording that could be made of a ZipMo network: slots, time axes, guidance, gaps."""

import json

import libero_transcription as robots
import pytest
import torch
from safetensors.torch import save_file
from transcription import decode, encode, random_state, sample, velocity

from kinelib.official import parity, parity_report

SIZES = {"width": 128, "heads": 2, "cross": 64, "channels": 8, "time_width": 32}
SHIFT, VARIANCE = -0.175, 11.6


def save(folder, name, weights, recorded, config):
    # As in the reference folder: weights in half precision, exact in it.
    halves = {key: value.half().contiguous() for key, value in weights.items()}
    save_file(halves, folder / f"{name}_weights.safetensors")
    recorded = {key: value.contiguous() for key, value in recorded.items()}
    save_file(recorded, folder / f"{name}_io.safetensors", metadata={"config": json.dumps(config)})


def recording(grid, feature_grid, slots, given, scale=1.0, image_time=0.0, depth=1, padded=True):
    """Weights, recorded tensors and config of an open-domain planner, by the transcription."""
    weights = random_state(grid=grid, feature_grid=feature_grid, depth=depth, **SIZES)
    weights = {key: value.half().float() for key, value in weights.items()}
    rng = torch.Generator().manual_seed(1)
    tracks, queries = torch.rand(2, 3, 5, 2, generator=rng) * 2 - 1, torch.rand(2, 4, 2, generator=rng) * 2 - 1
    pokes = torch.rand(2, given, 5, generator=rng) * 2 - 1
    features = torch.randn(2, feature_grid[0] * feature_grid[1], 64, generator=rng)
    noise, time = torch.randn(2, grid[0] * grid[1] * grid[2], 8, generator=rng), torch.tensor([0.2, 0.7])
    mean, logvar = encode(weights, tracks, features)
    where = (slots if padded else given, grid, feature_grid)
    drawn = sample(weights, noise, features, pokes, *where, 2, scale, image_time)
    recorded = {
        "image_features": features,
        "tracks_yx": tracks,
        "query_yx": queries,
        "pokes_yx": pokes,
        "noise": noise,
        "time": time,
        "latent_mean": mean,
        "latent_logvar": logvar,
        "decoded_at_starts": decode(weights, mean, features, tracks[:, :, 0], 5),
        "decoded_at_queries": decode(weights, mean, features, queries, 5),
        "velocity": velocity(weights, noise, time, features, pokes, *where, image_time),
        "velocity_uncond": velocity(weights, noise, time, features, pokes[:, :0], *where, image_time),
        "sampled_latents": drawn,
        "sampled_tracks": decode(weights, drawn / (0.5 / VARIANCE) ** 0.5 + SHIFT, features, tracks[:, :, 0], 5),
    }
    config = {"latent_grid": grid, "feature_grid": feature_grid, "poke_slots": slots, "pokes_given": given}
    config |= {"padded": padded, "sample_steps": 2, "cfg_scale": scale, "latent_shift": SHIFT, "latent_variance": VARIANCE}
    return weights, recorded, config


def checked(folder, outputs):
    """The parity rows of a folder, after seeing that they are of these outputs and all agree to 1e-5."""
    rows = parity(folder)
    assert {row.output for row in rows} == set(outputs)
    assert all(not row.note and row.passes(1e-5) for row in rows), parity_report(folder)[0]


OUTPUTS = [
    "latent_mean", "latent_logvar", "decoded_at_starts", "decoded_at_queries", "velocity", "velocity_uncond",
    "sampled_latents", "sampled_tracks",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("zipmo_sparse", {"grid": (1, 4, 4), "feature_grid": (4, 4), "slots": 16, "given": 16}),
        ("zipmo_dense", {"grid": (1, 4, 4), "feature_grid": (4, 4), "slots": 40, "given": 40}),
        ("zipmo_dense", {"grid": (1, 2, 3), "feature_grid": (3, 2), "slots": 40, "given": 7, "padded": False, "scale": 3.0}),
        ("zipmo_time4", {"grid": (4, 4, 4), "feature_grid": (4, 4), "slots": 5, "given": 3}),
        ("zipmo_time4", {"grid": (4, 3, 2), "feature_grid": (4, 4), "slots": 5, "given": 1, "scale": 2.0, "depth": 2}),
        ("zipmo_time4", {"grid": (4, 1, 1), "feature_grid": (1, 2), "slots": 2, "given": 0}),
    ],
    ids=["full", "dense", "unpadded", "time", "guided-time", "one-cell"],
)
def test_any_grid_slots_and_guidance(name, options, tmp_path):
    save(tmp_path, name, *recording(**options))
    checked(tmp_path, OUTPUTS)


@pytest.mark.parametrize("image_time", [0.0, -1.0, -0.75, None])
def test_a_time_axis_wherever_the_start_frame_was_put_on_its_clock(image_time, tmp_path):
    grid = (4, 2, 2)
    save(tmp_path, "zipmo_time4", *recording(grid, (4, 4), 5, 3, 1.5, image_time))
    checked(tmp_path, OUTPUTS)


def test_without_a_time_axis_the_start_frame_is_at_zero_only(tmp_path):
    save(tmp_path, "zipmo_sparse", *recording((1, 2, 3), (2, 3), 5, 3, image_time=-1.0))
    assert not parity_report(tmp_path)[1]


@pytest.mark.parametrize("missing", [OUTPUTS[4:], OUTPUTS[:4], ["sampled_latents", "sampled_tracks"]])
def test_outputs_that_were_not_recorded_are_not_asked_for(missing, tmp_path):
    weights, recorded, config = recording((1, 2, 3), (2, 3), 5, 3)
    recorded = {key: value for key, value in recorded.items() if key not in missing}
    if "sampled_latents" in missing:
        config = {key: value for key, value in config.items() if key not in ("sample_steps", "cfg_scale", "pokes_given")}
    save(tmp_path, "zipmo_sparse", weights, recorded, config)
    checked(tmp_path, [name for name in OUTPUTS if name not in missing])


@pytest.mark.parametrize("prefix", ["", "vae."])
def test_an_autoencoder_with_a_time_axis_alone(prefix, tmp_path):
    weights, recorded, config = recording((4, 2, 3), (2, 3), 5, 3)
    weights = {prefix + key.removeprefix("vae."): value for key, value in weights.items() if key.startswith("vae.")}
    recorded = {
        key: value for key, value in recorded.items() if key in [*OUTPUTS[:4], "image_features", "tracks_yx", "query_yx"]
    }
    save(tmp_path, "zipmo_time4", weights, recorded, {"latent_grid": config["latent_grid"], "feature_grid": [2, 3]})
    checked(tmp_path, OUTPUTS[:4])


def test_guidance_below_one_is_ignored_as_in_the_release(tmp_path):
    save(tmp_path, "zipmo_sparse", *recording((1, 2, 3), (2, 3), 5, 3, scale=0.5))
    checked(tmp_path, OUTPUTS)


def test_an_output_without_its_inputs_fails_by_name(tmp_path):
    weights, recorded, config = recording((1, 2, 3), (2, 3), 5, 3)
    del recorded["query_yx"]
    save(tmp_path, "zipmo_sparse", weights, recorded, config)
    text, good = parity_report(tmp_path)
    assert not good and "KeyError: 'query_yx'" in text


ROBOT_OUTPUTS = ["velocity", "velocity_uncond", "sampled_latents", "actions"]


def robot_recording(step_name="start_t", truncated=False, lost=False, scale=2.0, integer=True):
    """Weights, recorded tensors and config of a LIBERO policy with a start step, by the transcription."""
    grid = (2, 3)
    weights = {key: value.half().float() for key, value in robots.random_policy(grid=grid, start_step=True).items()}
    rng = torch.Generator().manual_seed(1)
    features, text = torch.randn(4, *grid, 64, generator=rng), torch.randn(2, 1, 64, generator=rng)
    noise, time = torch.randn(2, 12, 8, generator=rng), torch.tensor([0.3, 0.9])
    proprio, step = torch.randn(2, 9, generator=rng), torch.tensor([12, 12])
    given = (features, text, step, truncated)
    drawn = robots.sample(weights, noise, *given, 2, scale, lost)
    recorded = {
        "image_features": features,
        "text": text,
        "noise": noise,
        "time": time,
        "proprio": proprio,
        "velocity": robots.velocity(weights, noise, time, *given),
        "velocity_uncond": robots.velocity(weights, noise, time, *given, masked=True, lost=lost),
        "sampled_latents": drawn,
        "actions": robots.actions(weights, drawn, proprio, grid),
    }
    config = {"latent_grid": [1, *grid], "start_step_token": True, "sample_steps": 2, "cfg_scale": scale}
    if step_name:
        recorded[step_name] = step if integer else step.float()[:, None]
    else:
        config["start_step"] = 12
    return weights, recorded, config


@pytest.mark.parametrize(
    "options",
    [
        {"truncated": True},
        {"lost": True},
        {"truncated": True, "lost": True, "scale": 1.0},
        {"step_name": "timestep", "integer": False},
        {"step_name": "episode_start", "truncated": True},
        {"step_name": ""},
    ],
    ids=["truncated", "lost", "both", "other-name", "column", "config"],
)
def test_the_start_step_however_it_was_recorded_truncated_and_masked(options, tmp_path):
    save(tmp_path, "zipmo_libero_tramoe", *robot_recording(**options))
    checked(tmp_path, ROBOT_OUTPUTS)


def test_a_robots_recording_with_gaps(tmp_path):
    weights, recorded, config = robot_recording()
    for name in ("velocity_uncond", "sampled_latents"):
        del recorded[name]
    save(tmp_path, "zipmo_libero_tramoe", weights, recorded, config)
    checked(tmp_path, ["velocity", "actions"])
