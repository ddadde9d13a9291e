"""What our ZipMo networks answer to the recorded inputs of a reference pair (see the README of the reference folder).

Recorded tensors whose names end in `_yx` are in the release's axis order; latents are flat, ordered
(view, time, row, column).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from kinelib.official.zipmo import LATENT_SHIFT, LATENT_VARIANCE, load_official
from kinelib.zipmo.libero_planner import LiberoPlanner

START_STEP = re.compile("(^|_)(start|step)(_|$)")  # what the recorded start step is called


@torch.no_grad()
def open_domain_outputs(weights: Path, config: dict, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our answers for an autoencoder and, where there is one, its open-domain planner.

    Args:
        weights: the file of weights.
        config: of the recording.
        recorded: its tensors.

    Returns:
        our value of every recorded output, by name.
    """
    tracks = recorded["tracks_yx"].flip(-1)
    pokes = recorded.get("pokes_yx")
    slots = 16 if pokes is None else config["poke_slots"] if config.get("padded") else pokes.shape[1]
    frames = tracks.shape[2]
    window = _window(frames, config["latent_grid"][0])
    found = load_official(weights, poke_slots=slots, num_frames=window, **_statistics(config))
    codec, features, starts = found.codec, recorded["image_features"], tracks[:, :, 0]
    shape = dict(zip("srw", config["latent_grid"], strict=True))

    def flat(latents: Tensor) -> Tensor:
        return rearrange(latents, "b s r w c -> b (s r w) c")

    mean, logvar = codec.encode(tracks, features)
    ours = {
        "latent_mean": flat(mean),
        "latent_logvar": flat(logvar),
        "decoded_at_starts": codec.decode(mean, features, starts, frames).flip(-1),
        "decoded_at_queries": codec.decode(mean, features, recorded["query_yx"].flip(-1), frames).flip(-1),
    }
    if found.planner is not None:
        planner = found.planner
        pokes = pokes[..., [1, 0, 3, 2, 4]]
        noise = rearrange(recorded["noise"], "b (s r w) c -> b s r w c", **shape)
        prepared = planner.prepare(features, pokes)
        options = {"steps": config["sample_steps"], "guidance": config["cfg_scale"], "noise": noise[:, None]}
        drawn = planner.sample(features, pokes, **options)[:, 0]
        ours |= {
            "velocity": flat(planner.velocity(noise, recorded["time"], prepared)),
            "velocity_uncond": flat(planner.velocity(noise, recorded["time"], prepared.without_condition())),
            "sampled_latents": flat(drawn),
            "sampled_tracks": codec.decode(planner.denormalize(drawn), features, starts, frames).flip(-1),
        }
    return {name: value for name, value in ours.items() if name in recorded}


@torch.no_grad()
def libero_outputs(weights: Path, config: dict, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our answers for a LIBERO planner and its policy head; arguments and result as of :func:`open_domain_outputs`.

    A recording of the start-step variant does not say whether the release's fault was in effect (it depends on the step's
    number type at the embedder): the fault's switch is on when the recorded velocity agrees with nothing else.
    """
    ours = _libero_outputs(weights, config, recorded, truncate=False)
    if config.get("start_step_token") and not _close(ours["velocity"], recorded["velocity"]):
        faulty = _libero_outputs(weights, config, recorded, truncate=True)
        ours = faulty if _close(faulty["velocity"], recorded["velocity"]) else ours
    return {name: value for name, value in ours.items() if name in recorded}


def _libero_outputs(weights: Path, config: dict, recorded: dict[str, Tensor], truncate: bool) -> dict[str, Tensor]:
    window = _window(64, config["latent_grid"][0])
    found = load_official(weights, num_frames=window, truncate_step_frequencies=truncate, **_statistics(config))
    planner = found.planner
    if not isinstance(planner, LiberoPlanner):
        raise ValueError("these weights hold no LIBERO planner.")
    shape = dict(zip("vsrw", (config["views"], *config["latent_grid"]), strict=True))
    features = rearrange(recorded["image_features"], "(b v) r w c -> b v (r w) c", v=config["views"])
    noise = rearrange(recorded["noise"], "b (v s r w) c -> b v s r w c", **shape)
    step = next((tensor.flatten() for name, tensor in recorded.items() if START_STEP.search(name)), None)

    def flat(latents: Tensor) -> Tensor:
        return rearrange(latents, "b v s r w c -> b (v s r w) c")

    prepared = planner.prepare(features, recorded["text"], step)
    options = {"steps": config["sample_steps"], "guidance": config.get("cfg_scale", 1.0), "noise": noise[:, None]}
    drawn = planner.sample(features, recorded["text"], step, **options)[:, 0]
    ours = {
        "velocity": flat(planner.velocity(noise, recorded["time"], prepared)),
        "velocity_uncond": flat(planner.velocity(noise, recorded["time"], prepared.without_condition())),
        "sampled_latents": flat(drawn),
    }
    if found.policy is not None:
        # The head's own input is the recorded one, so that its error is its own.
        latents = rearrange(recorded["sampled_latents"], "b (v s r w) c -> b v s r w c", **shape)
        ours["actions"] = found.policy(latents, recorded["proprio"])
    return ours


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max())


def _statistics(config: dict) -> dict[str, float]:
    return {
        "latent_shift": config.get("latent_shift", LATENT_SHIFT),
        "latent_variance": config.get("latent_variance", LATENT_VARIANCE),
    }


def _window(frames: int, slots: int) -> int:
    """The recorded number of frames, or the least number of at least as many that the time slots divide."""
    return -(-frames // slots) * slots
