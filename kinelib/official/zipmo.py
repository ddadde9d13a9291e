"""Officially released ZipMo weights in our modules: the autoencoder, the open-domain planner, and what carries them.

A released state dict is an autoencoder; or a planner with its autoencoder under `vae.`; or a policy head with both under
`track_predictor.`. Every size is inferred from the tensors (`kinelib.official.zipmo_libero` for robots).

Shapes: as in `kinelib.zipmo.transformer_autoencoder` and `transformer_planner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from kinelib.official.layout import Renames, converted, depth
from kinelib.official.reading import fill, read_state, take_image_encoders, take_prefixed
from kinelib.official.zipmo_libero import (
    carries_policy,
    is_libero_planner,
    load_libero_planner,
    load_policy_head,
)
from kinelib.robots.policy_head import PolicyHead
from kinelib.zipmo.libero_planner import LiberoPlanner
from kinelib.zipmo.transformer_autoencoder import TransformerCodec, TransformerCodecConfig
from kinelib.zipmo.transformer_planner import TransformerPlanner, TransformerPlannerConfig

HUB_REPOSITORY = "CompVis/ZipMo"
# Mean and variance of the released autoencoder's latents; constants of the release that its checkpoints do not hold.
LATENT_SHIFT, LATENT_VARIANCE = -0.175, 11.6

_CODEC_RENAMES: Renames = (
    (r"\bbackbone\.", "transformer.layers."),
    (r"\btrajs_in\.", "embed."),
    (r"\btrajs_out\.", "head."),
    (r"\bto_(mean|logvar)\.", r"\1."),
    (r"\bquery_token$", "cell"),
    (r"\breg_token$", "register"),
    (r"\bdecode_token$", "query"),
)
_PLANNER_RENAMES: Renames = (
    (r"\bbackbone\.", "transformer.layers."),
    (r"\btrack_cond_emb\.", "embed_goal."),
    (r"\blearnable_emb_dino$", "start_frame"),
    (r"\bin_proj\.cond_proj\.", "image_in."),
    (r"\bin_proj\.proj\.", "latents_in."),
    (r"\bout_proj\.proj\.", "velocity_out."),
)


@dataclass(frozen=True)
class Official:
    """What was found in a state dict."""

    codec: TransformerCodec  # the autoencoder without its image encoder
    planner: TransformerPlanner | LiberoPlanner | None  # None when the state dict is an autoencoder only
    image_encoder: dict[str, Tensor] = field(default_factory=dict)  # tensors of the image encoders, under official names
    policy: PolicyHead | None = None  # of a policy's state dict


def load_official(
    source: str | Path | Mapping[str, Tensor],
    *,
    poke_slots: int = 16,
    num_frames: int = 64,
    latent_shift: float = LATENT_SHIFT,
    latent_variance: float = LATENT_VARIANCE,
    truncate_step_frequencies: bool = False,
    filename: str | None = None,
) -> Official:
    """Builds our modules from officially released weights.

    Args:
        source: a .safetensors, .pt or .ckpt file, a state dict, or "hub" to download `filename` from CompVis/ZipMo.
        poke_slots: 16 for the sparse planner, 40 for the dense one; the weights do not tell.
        num_frames: frames of a window the weights were trained with.
        latent_shift, latent_variance: statistics of the autoencoder's latents, which the weights do not hold either.
        truncate_step_frequencies: keep the release's fault in the LIBERO planner's start-step token.
        filename: which file of the hub repository.

    Returns:
        modules in eval mode that take and give (x, y). An open-domain planner keeps the release's zero slots
        (`zero_slot_sinks`).

    Raises:
        ValueError: when a tensor is missing, unexpected or misshaped, or positions are not those of a grid; by name.
        FileNotFoundError: when there is no such file.
    """
    state = read_state(source, HUB_REPOSITORY, filename)
    images = take_image_encoders(state)
    head_state = None
    if carries_policy(state):
        head_state, state = state, take_prefixed(state, "track_predictor.", strip="track_predictor.")
    inner = take_prefixed(state, "vae.", "encoder.", "decoder.", strip="vae.")
    if "encoder.query_pos" not in inner:
        raise ValueError("this is not a ZipMo state dict: it has no encoder.query_pos or vae.encoder.query_pos.")
    config = _codec_config(inner, num_frames)
    codec = TransformerCodec(config)
    fill(codec, _converted_codec(codec, inner), "autoencoder")
    statistics = {"latent_shift": latent_shift, "latent_variance": latent_variance}
    planner: TransformerPlanner | LiberoPlanner | None = None
    if is_libero_planner(state):
        switches = {"truncate_step_frequencies": truncate_step_frequencies}
        planner = load_libero_planner(state, config, **statistics, **switches).eval()
    elif state:
        planner = TransformerPlanner(replace(_planner_config(state, config), poke_slots=poke_slots, **statistics)).eval()
        fill(planner, converted(state, _PLANNER_RENAMES, {"track_cond_emb": (1, 0, 2)}), "planner")
    policy = None
    if head_state is not None:
        views = planner.config.views if isinstance(planner, LiberoPlanner) else 2
        policy = load_policy_head(head_state, config, views).eval()
    return Official(codec.eval(), planner, images, policy)


def _codec_config(state: dict[str, Tensor], num_frames: int) -> TransformerCodecConfig:
    slots, *grid = (len(axis.unique()) for axis in state["encoder.query_pos"].reshape(-1, 3).T)
    _, *feature_grid = (len(axis.unique()) for axis in state["encoder.pos_cross"].T)
    if num_frames % slots:
        raise ValueError(f"these weights have {slots} latent time slots, which do not divide num_frames={num_frames}.")
    first = "encoder.backbone.0."
    return TransformerCodecConfig(
        width=state["encoder.query_token"].shape[-1],
        encoder_depth=depth(state, "encoder.backbone."),
        decoder_depth=depth(state, "decoder.backbone."),
        heads=len(state[first + "self_attn.scale"]),
        feature_width=state[first + "cross_attn.kv_proj.weight"].shape[1],
        feature_grid=tuple(feature_grid),
        grid=tuple(grid),
        channels=len(state["encoder.to_mean.bias"]),
        num_frames=num_frames,
        temporal_compression=num_frames // slots,
    )


def _planner_config(state: dict[str, Tensor], codec: TransformerCodecConfig) -> TransformerPlannerConfig:
    if "learnable_emb_dino" not in state or "backbone.0.cross_attn.pos_emb.t_freqs" not in state:
        names = ", ".join(sorted(state)[:3])
        raise ValueError(f"beside the autoencoder there is no open-domain planner in this state dict but {names}, ...")
    width, channels = state["in_proj.proj.weight"].shape
    return TransformerPlannerConfig(
        width=width,
        depth=depth(state, "backbone."),
        heads=len(state["backbone.0.self_attn.scale"]),
        grid=codec.grid,
        slots=codec.slots,
        channels=channels,
        feature_width=state["in_proj.cond_proj.weight"].shape[1],
        feature_grid=codec.feature_grid,
        poke_width=state["backbone.0.cross_attn.kv_proj.weight"].shape[1],
        time_width=len(state["time_in_proj.weight"]),
        zero_slot_sinks=True,
    )


def _converted_codec(codec: TransformerCodec, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The converted autoencoder with its stored positions, after seeing that they are those of our grids."""
    state = dict(state)
    stored = {
        "encoder.grid_positions": state.pop("encoder.query_pos"),
        "encoder.feature_positions": state.pop("encoder.pos_cross"),
        "decoder.feature_positions": state.pop("decoder.pos_cross"),
    }
    stored = {name: positions.reshape(-1, 3)[:, [0, 2, 1]] for name, positions in stored.items()}  # (t, y, x) -> (t, x, y)
    stored["decoder.grid_positions"] = stored["encoder.grid_positions"]
    for name, positions in stored.items():
        ours = codec.get_buffer(name)
        if positions.shape != ours.shape or not torch.allclose(positions, ours, atol=2e-3):
            raise ValueError(f"the official positions for {name} are not the cell centres of a grid, row by row.")
    if state.pop("encoder.reg_pos").any():
        raise ValueError("encoder.reg_pos is not zero; our register sits at the origin.")
    for name in [name for name in state if ".trajs_out.5." in "." + name]:
        state[name] = state[name].flip(0)  # the last layer writes (y, x)
    return converted(state, _CODEC_RENAMES, {"encoder.trajs_in": (1, 0)}) | stored
