"""What our ZipMo networks answer to the recorded inputs of a reference pair (see the README of the reference folder).

Recorded tensors whose names end in `_yx` are in the release's axis order; latents are flat, ordered
(view, time, row, column). Sizes come from the weights; of a recording's config only what weights cannot tell is needed.
Any of the outputs may be left out.

Where the release allows two readings that weights do not tell apart, the first reading that gives the recorded velocities
is used: whether the start step lost its frequencies' fractions (it depends on the number type it was given in) and
whether it was masked together with the text; and, since the release's planner has no time axis, where the image tokens were
put on the clock of latents that have one. Ours come first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange, repeat
from torch import Tensor

from kinelib.official.reading import read_state
from kinelib.official.zipmo import HUB_REPOSITORY, LATENT_SHIFT, LATENT_VARIANCE, Official, load_official
from kinelib.zipmo.libero_planner import LiberoPlanner
from kinelib.zipmo.transformer_planner import TransformerPlanner

Outputs = dict[str, Callable[[], Tensor]]  # how to compute an output, by name

_INPUTS = {"image_features", "tracks_yx", "query_yx", "pokes_yx", "noise", "time", "text", "proprio"}
_OUTPUTS = {
    "latent_mean", "latent_logvar", "decoded_at_starts", "decoded_at_queries", "velocity", "velocity_uncond",
    "sampled_latents", "sampled_tracks", "actions",
}  # fmt: skip
_START_STEP = re.compile("(^|_)(start|step)s?(_|$)")  # what the recorded start step is called
_VELOCITIES = ("velocity", "velocity_uncond")


def is_input(name: str, recorded: dict[str, Tensor]) -> bool:
    """Whether a recorded tensor is an input: one by its name, or the start step of a robot's plan."""
    return name in _INPUTS or name == start_step_name(recorded)


def start_step_name(recorded: dict[str, Tensor]) -> str | None:
    """The name of the recorded start step: one that says so, or else the only unknown tensor with one number a clip."""
    if "text" not in recorded:
        return None
    batch = len(recorded["text"])
    unknown = [name for name in recorded if name not in _INPUTS | _OUTPUTS and recorded[name].numel() == batch]
    named = [name for name in unknown if _START_STEP.search(name)]
    found = named or unknown
    return found[0] if len(found) == 1 else None


@torch.no_grad()
def open_domain_outputs(weights: Path, config: dict, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our answers for an autoencoder and, where there is one, its open-domain planner.

    Args:
        weights: the file of weights.
        config: of the recording.
        recorded: its tensors.

    Returns:
        our value of every recorded output that we can compute, by name.

    Raises:
        ValueError: when the weights do not fit. KeyError: when an output was recorded without the inputs it needs.
    """
    pokes = recorded.get("pokes_yx")
    given = 0 if pokes is None else pokes.shape[1]
    slots = config.get("poke_slots", max(given, 16)) if config.get("padded", True) else max(given, 1)
    state = read_state(weights, HUB_REPOSITORY)
    frames = recorded["tracks_yx"].shape[2] if "tracks_yx" in recorded else config.get("num_frames", 64)
    found = load_official(state, poke_slots=slots, num_frames=_window(frames, state), **_statistics(config))
    if not isinstance(found.planner, TransformerPlanner):
        return _computed(_autoencoder_outputs(found, recorded, frames), recorded)
    images: tuple[float | None, ...] = (0.0,)
    if found.codec.config.slots > 1:
        images += (-1.0, float(found.codec.encoder.grid_positions[0, 0]))
        images += (None,) if len(found.codec.encoder.grid_positions) == len(found.codec.encoder.feature_positions) else ()
    readings = ({"image_time": time} for time in images)
    return _first_that_fits(found, readings, recorded, lambda reading: _open_domain(reading, config, recorded, frames))


def _autoencoder_outputs(found: Official, recorded: dict[str, Tensor], frames: int) -> Outputs:
    codec, features = found.codec, _flat_features(recorded["image_features"])

    def encoded() -> tuple[Tensor, Tensor]:
        return codec.encode(recorded["tracks_yx"].flip(-1), features)

    def decoded(where_yx: Tensor) -> Tensor:
        return codec.decode(encoded()[0], features, where_yx.flip(-1), frames).flip(-1)

    return {
        "latent_mean": lambda: _flat(encoded()[0]),
        "latent_logvar": lambda: _flat(encoded()[1]),
        "decoded_at_starts": lambda: decoded(recorded["tracks_yx"][:, :, 0]),
        "decoded_at_queries": lambda: decoded(recorded["query_yx"]),
    }


def _open_domain(found: Official, config: dict, recorded: dict[str, Tensor], frames: int) -> Outputs:
    planner, features = found.planner, _flat_features(recorded["image_features"])
    pokes = recorded.get("pokes_yx", features.new_zeros(len(features), 0, 5))[..., [1, 0, 3, 2, 4]]
    prepared = planner.prepare(features, pokes)

    def noise() -> Tensor:
        slots, rows, columns, _ = planner.latent_shape
        return rearrange(recorded["noise"], "b (s r w) c -> b s r w c", s=slots, r=rows, w=columns)

    def drawn() -> Tensor:
        return planner.sample(features, pokes, **_sampling(config, noise()))[:, 0]

    def tracks() -> Tensor:
        starts = recorded["tracks_yx"][:, :, 0].flip(-1)
        return found.codec.decode(planner.denormalize(drawn()), features, starts, frames).flip(-1)

    free = prepared.without_condition()
    return _autoencoder_outputs(found, recorded, frames) | {
        "velocity": lambda: _flat(planner.velocity(noise(), recorded["time"], prepared)),
        "velocity_uncond": lambda: _flat(planner.velocity(noise(), recorded["time"], free)),
        "sampled_latents": lambda: _flat(drawn()),
        "sampled_tracks": tracks,
    }


@torch.no_grad()
def libero_outputs(weights: Path, config: dict, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our answers for a LIBERO planner and its policy head; arguments, result, errors as of :func:`open_domain_outputs`."""
    state = read_state(weights, HUB_REPOSITORY)
    found = load_official(state, num_frames=_window(64, state), **_statistics(config))
    if not isinstance(found.planner, LiberoPlanner):
        raise ValueError("these weights hold no LIBERO planner.")
    switches = ((False, False), (True, False), (False, True), (True, True)) if found.planner.config.start_step else ((),)
    names = ("truncate_step_frequencies", "mask_start_step")
    readings = (dict(zip(names, values, strict=False)) for values in switches)
    return _first_that_fits(found, readings, recorded, lambda reading: _libero(reading, config, recorded))


def _libero(found: Official, config: dict, recorded: dict[str, Tensor]) -> Outputs:
    planner = found.planner
    views, slots, rows, columns, _ = planner.latent_shape
    features = rearrange(_flat_features(recorded["image_features"]), "(b v) l c -> b v l c", v=views)
    step = _start_step(config, recorded, len(features))
    prepared = planner.prepare(features, recorded["text"], step)

    def grids(latents: Tensor) -> Tensor:
        return rearrange(latents, "b (v s r w) c -> b v s r w c", v=views, s=slots, r=rows, w=columns)

    def drawn() -> Tensor:
        options = _sampling(config, grids(recorded["noise"]))
        return planner.sample(features, recorded["text"], step, **options)[:, 0]

    def actions() -> Tensor:
        # The head's own input is the recorded one where there is one, so that its error is its own.
        latents = grids(recorded["sampled_latents"]) if "sampled_latents" in recorded else drawn()
        return found.policy(latents, recorded["proprio"])

    free = prepared.without_condition()
    outputs = {
        "velocity": lambda: _flat(planner.velocity(grids(recorded["noise"]), recorded["time"], prepared)),
        "velocity_uncond": lambda: _flat(planner.velocity(grids(recorded["noise"]), recorded["time"], free)),
        "sampled_latents": lambda: _flat(drawn()),
    }
    return outputs if found.policy is None else outputs | {"actions": actions}


def _start_step(config: dict, recorded: dict[str, Tensor], batch: int) -> Tensor | None:
    """The recorded start step (B,): a tensor, or a number in the config."""
    name = start_step_name(recorded)
    if name is not None:
        return recorded[name].flatten()
    values = [value for key, value in config.items() if _START_STEP.search(key) and key != "sample_steps"]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return repeat(torch.tensor(numbers), "1 -> b", b=batch) if len(numbers) == 1 else None


def _first_that_fits(
    found: Official, readings: Iterable[dict], recorded: dict[str, Tensor], outputs: Callable[[Official], Outputs]
) -> dict[str, Tensor]:
    """The outputs of the first reading (changes of the planner's config) with the recorded velocities; else of the first."""
    first: Outputs | None = None
    for reading in readings:
        planner = type(found.planner)(replace(found.planner.config, **reading)).eval()
        planner.load_state_dict(found.planner.state_dict())
        computable = outputs(replace(found, planner=planner))
        first = computable if first is None else first
        if all(_close(computable[name](), recorded[name]) for name in _VELOCITIES if name in recorded):
            return _computed(computable, recorded)
    return _computed(first, recorded)


def _computed(outputs: Outputs, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: compute() for name, compute in outputs.items() if name in recorded}


def _flat(latents: Tensor) -> Tensor:
    return rearrange(latents, "b ... c -> b (...) c")


def _flat_features(features: Tensor) -> Tensor:
    return rearrange(features, "b r w c -> b (r w) c") if features.ndim == 4 else features


def _sampling(config: dict, noise: Tensor) -> dict:
    """Options of a recorded draw. The release ignores a guidance of at most 1."""
    return {"steps": config["sample_steps"], "guidance": max(1.0, config.get("cfg_scale", 1.0)), "noise": noise[:, None]}


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max())


def _statistics(config: dict) -> dict[str, float]:
    return {
        "latent_shift": config.get("latent_shift", LATENT_SHIFT),
        "latent_variance": config.get("latent_variance", LATENT_VARIANCE),
    }


def _window(frames: int, state: dict[str, Tensor]) -> int:
    """The recorded number of frames, or the least number of at least as many that the latents' time slots divide."""
    positions = next((tensor for name, tensor in state.items() if name.endswith("encoder.query_pos")), None)
    slots = 1 if positions is None else len(positions.reshape(-1, 3)[:, 0].unique())
    return -(-frames // slots) * slots
