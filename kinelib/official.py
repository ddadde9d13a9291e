"""Officially released weights in our modules, and the check that both compute the same numbers.

`load_official` reads a ZipMo state dict (an autoencoder, or a planner that carries one under `vae.`) and infers every size
from its tensors. The release orders positions (y, x) and (t, y, x), we (x, y) and (t, x, y): here, and nowhere else, the
columns that read positions, the rows that write them, and the rotated channels of queries and keys are permuted, so that
the loaded network takes and gives (x, y) without any flip at run time.

`parity` runs recorded inputs of the official implementation through our modules (see the README of the reference folder).

Shapes: as in `kinelib.zipmo.transformer_autoencoder` and `transformer_planner`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.learning.fourier import axis_aligned
from kinelib.zipmo.transformer_autoencoder import (
    TransformerCodec,
    TransformerCodecConfig,
)
from kinelib.zipmo.transformer_planner import TransformerPlanner, TransformerPlannerConfig

HUB_REPOSITORY = "CompVis/ZipMo"
# Mean and variance of the released autoencoder's latents; constants of the release that its checkpoints do not hold.
LATENT_SHIFT, LATENT_VARIANCE = -0.175, 11.6

# The image encoder's own tensors (DINOv2, a vision transformer): handed on, not loaded.
_IMAGE_ENCODER = re.compile(
    r"(^|\.)(cls_token|register_tokens|mask_token|pos_embed|patch_embed\..+|norm\.(weight|bias)"
    r"|blocks\.\d+(\.\d+)?\.(norm1|attn|ls1|norm2|mlp|ls2)\..+)$"
)

# Official name -> ours; every pattern is applied, in this order.
_RENAMES = (
    (r"\bbackbone\.", "transformer.layers."),
    (r"\bself_attn\.norm\.", "self_norm."),
    (r"\bcross_attn\.norm_cross\.", "context_norm."),
    (r"\bcross_attn\.norm\.", "cross_norm."),
    (r"_attn\.q_proj\.", "_attention.query."),
    (r"_attn\.kv_proj\.", "_attention.key_value."),
    (r"_attn\.out_proj\.", "_attention.out."),
    (r"_attn\.pos_emb\.", "_attention.rotary."),
    (r"_attn\.", "_attention."),
    (r"\bff\.norm\.", "feed_norm."),
    (r"\bff\.(up|down)_proj\.", r"feed_forward.\1."),
    (r"\b(trajs_in|track_cond_emb)\.coeffs", r"\1.features.frequencies"),
    (r"\b(trajs_in|track_cond_emb)\.mlp\.", r"\1.blocks."),
    (r"\btrajs_in\.", "embed."),
    (r"\btrack_cond_emb\.", "embed_goal."),
    (r"\btrajs_out\.", "head."),
    (r"\bto_(mean|logvar)\.", r"\1."),
    (r"\bquery_token$", "cell"),
    (r"\breg_token$", "register"),
    (r"\bdecode_token$", "query"),
    (r"\blearnable_emb_dino$", "start_frame"),
    (r"\bin_proj\.cond_proj\.", "image_in."),
    (r"\bin_proj\.proj\.", "latents_in."),
    (r"\bout_proj\.proj\.", "velocity_out."),
    (r"\btime_in_proj\.", "embed_time.linear."),
    (r"\btime_emb\.weight", "embed_time.frequencies"),
    (r"\bmapping\.in_norm\.", "embed_time.mapping.0."),
    (r"\bmapping\.blocks\.0\.", "embed_time.mapping.1."),
    (r"\bmapping\.blocks\.1\.", "embed_time.mapping.2."),
    (r"\bmapping\.out_norm\.", "embed_time.mapping.3."),
    (r"\.(up|down)_proj\.", r".feed_forward.\1."),
)


@dataclass(frozen=True)
class Official:
    """What was found in a state dict."""

    codec: TransformerCodec  # the autoencoder without its image encoder
    planner: TransformerPlanner | None  # None when the state dict is an autoencoder only
    image_encoder: dict[str, Tensor] = field(default_factory=dict)  # tensors of the image encoders, under official names


def load_official(
    source: str | Path | Mapping[str, Tensor],
    *,
    poke_slots: int = 16,
    num_frames: int = 64,
    latent_shift: float = LATENT_SHIFT,
    latent_variance: float = LATENT_VARIANCE,
    filename: str | None = None,
) -> Official:
    """Builds our modules from officially released weights.

    Args:
        source: a .safetensors, .pt or .ckpt file, a state dict, or "hub" to download `filename` from CompVis/ZipMo.
        poke_slots: 16 for the sparse planner, 40 for the dense one; the weights do not tell.
        num_frames: frames of a window the weights were trained with.
        latent_shift, latent_variance: statistics of the autoencoder's latents, which the weights do not hold either.
        filename: which file of the hub repository.

    Returns:
        modules in eval mode that take and give (x, y). The planner keeps the release's zero slots (`zero_slot_sinks`).

    Raises:
        ValueError: when a tensor is missing, unexpected or misshaped, or positions are not those of a grid; by name.
        FileNotFoundError: when there is no such file.
    """
    state = _read(source, filename)
    state = {name.replace("_orig_mod.", "").removeprefix("module."): tensor.float() for name, tensor in state.items()}
    images = {name: state.pop(name) for name in list(state) if _IMAGE_ENCODER.search(name)}
    parts = ("vae.", "encoder.", "decoder.")
    inner = {name.removeprefix("vae."): state.pop(name) for name in list(state) if name.startswith(parts)}
    if "encoder.query_pos" not in inner:
        raise ValueError("this is not a ZipMo state dict: it has no encoder.query_pos or vae.encoder.query_pos.")
    config = _codec_config(inner, num_frames)
    codec = TransformerCodec(config)
    _fill(codec, _with_positions(codec, inner), "autoencoder")
    planner = None
    if state:
        statistics = {"latent_shift": latent_shift, "latent_variance": latent_variance}
        planner = TransformerPlanner(replace(_planner_config(state, config), poke_slots=poke_slots, **statistics))
        _fill(planner, _converted(state), "planner")
    return Official(codec.eval(), planner if planner is None else planner.eval(), images)


def _read(source: str | Path | Mapping[str, Tensor], filename: str | None) -> dict[str, Tensor]:
    if isinstance(source, Mapping):
        return dict(source)
    if str(source) == "hub":
        if not filename:
            raise ValueError(f"say which file of {HUB_REPOSITORY} to download: load_official('hub', filename=...).")
        from huggingface_hub import hf_hub_download

        source = hf_hub_download(HUB_REPOSITORY, filename)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Pass a file of released weights, a state dict, or 'hub'.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("model", "state_dict"):
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    return dict(loaded)


def _codec_config(state: dict[str, Tensor], num_frames: int) -> TransformerCodecConfig:
    slots, *grid = (len(axis.unique()) for axis in state["encoder.query_pos"].reshape(-1, 3).T)
    _, *feature_grid = (len(axis.unique()) for axis in state["encoder.pos_cross"].T)
    if num_frames % slots:
        raise ValueError(f"these weights have {slots} latent time slots, which do not divide num_frames={num_frames}.")
    first = "encoder.backbone.0."
    return TransformerCodecConfig(
        width=state["encoder.query_token"].shape[-1],
        encoder_depth=_depth(state, "encoder.backbone."),
        decoder_depth=_depth(state, "decoder.backbone."),
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
        depth=_depth(state, "backbone."),
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


def _depth(state: dict[str, Tensor], prefix: str) -> int:
    return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix))


def _with_positions(codec: TransformerCodec, state: dict[str, Tensor]) -> dict[str, Tensor]:
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
    return _converted(state) | stored


def _converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors under our names, in our layout and axis order."""
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer = name.rpartition("attn.")[0] + "attn."
        if name.endswith("yx_freqs"):
            continue  # taken together with t_freqs
        if name.endswith("t_freqs"):
            y, x = state[name.replace("t_freqs", "yx_freqs")]
            ours[_renamed(name.replace("t_freqs", "frequencies"))] = torch.stack([tensor, x, y])
        elif name.endswith("qkv_proj.weight"):
            query, key, value = tensor.chunk(3)
            query, key = _swap_rotated(query, state, layer), _swap_rotated(key, state, layer)
            ours[_renamed(layer + "q_proj.weight")] = query
            ours[_renamed(layer + "kv_proj.weight")] = torch.cat([key, value])
        elif name.endswith("attn.q_proj.weight"):
            ours[_renamed(name)] = _swap_rotated(tensor, state, layer)
        elif name.endswith("kv_proj.weight"):
            key, value = tensor.chunk(2)
            ours[_renamed(name)] = torch.cat([_swap_rotated(key, state, layer), value])
        elif name.endswith("trajs_in.coeffs"):
            ours[_renamed(name)] = axis_aligned(tensor, 2)[..., [1, 0]]
        elif name.endswith("track_cond_emb.coeffs"):
            ours[_renamed(name)] = axis_aligned(tensor, 3)[..., [1, 0, 2]]
        elif ".trajs_out.5." in name:
            ours[_renamed(name)] = tensor.flip(0)  # the last layer writes (y, x)
        elif name.endswith(("_token", "time_emb.weight")):
            ours[_renamed(name)] = tensor.flatten()
        else:
            ours[_renamed(name)] = tensor
    return ours


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _swap_rotated(weight: Tensor, state: dict[str, Tensor], layer: str) -> Tensor:
    """Reorders the rotated rows of a query or key matrix from (t, y, x) to (t, x, y)."""
    heads, slots = state[layer + "pos_emb.t_freqs"].shape
    by_head = rearrange(weight, "(h d) c -> h d c", h=heads)
    rotated, rest = by_head[:, : 6 * slots], by_head[:, 6 * slots :]
    pairs = rearrange(rotated, "h (half a slot) c -> half h a slot c", half=2, a=3)[:, :, [0, 2, 1]]
    rotated = rearrange(pairs, "half h a slot c -> h (half a slot) c")
    return rearrange(torch.cat([rotated, rest], dim=1), "h d c -> (h d) c")


def _fill(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Loads a converted state dict, refusing by name what does not fit."""
    own = module.state_dict()
    wrong = [f"missing {name}" for name in own if name not in state]
    wrong += [f"unexpected {name}" for name in state if name not in own]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"the official {what} does not fit: {'; '.join(wrong[:5])}{more}.")
    module.load_state_dict(state)


@dataclass(frozen=True)
class ParityRow:
    """One output of one reference case."""

    case: str  # name of the pair of files
    output: str  # name of the recorded tensor
    absolute: float  # largest absolute difference
    relative: float  # the same, divided by the largest absolute value recorded
    note: str = ""  # why nothing was compared, where nothing was
    failed: bool = False  # whether the note means a failure

    def passes(self, tolerance: float) -> bool:
        """Whether the difference is at most `tolerance` relative (a NaN does not pass)."""
        return not self.failed and (bool(self.note) or self.relative <= tolerance)


def parity(folder: str | Path) -> list[ParityRow]:
    """Compares every NAME_weights / NAME_io pair of a folder with our modules.

    Raises:
        FileNotFoundError: when the folder holds no such pair.
    """
    folder = Path(folder)
    names = sorted({re.sub(r"_(io|weights)$", "", path.stem) for path in folder.glob("*_[iw]*.safetensors")})
    if not names:
        raise FileNotFoundError(f"{folder} holds no NAME_weights.safetensors / NAME_io.safetensors pairs.")
    return [row for name in names for row in _case(folder, name)]


def _case(folder: Path, name: str) -> list[ParityRow]:
    from safetensors import SafetensorError, safe_open

    files = {part: folder / f"{name}_{part}.safetensors" for part in ("io", "weights")}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        return [ParityRow(name, "-", 0, 0, f"{missing[0]} is missing", failed=True)]
    check = next((check for prefix, check in _CHECKS.items() if name.startswith(prefix)), None)
    if check is None:
        return [ParityRow(name, "-", 0, 0, "not built yet")]
    try:
        with safe_open(files["io"], "pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            recorded = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        computed = check(files["weights"], config, recorded)
    except (ValueError, KeyError, SafetensorError) as error:
        return [ParityRow(name, "-", 0, 0, f"{type(error).__name__}: {error}", failed=True)]
    unchecked = recorded.keys() - computed.keys() - _INPUTS
    rows = [_compared(name, output, ours, recorded[output]) for output, ours in computed.items()]
    return rows + [ParityRow(name, output, 0, 0, "recorded, but nothing computes it", failed=True) for output in unchecked]


def _compared(case: str, output: str, ours: Tensor, theirs: Tensor) -> ParityRow:
    if ours.shape != theirs.shape:
        return ParityRow(case, output, 0, 0, f"shape {tuple(ours.shape)}, recorded {tuple(theirs.shape)}", failed=True)
    worst = float((ours.double() - theirs.double()).abs().max())
    return ParityRow(case, output, worst, worst / max(float(theirs.double().abs().max()), 1e-12))


_INPUTS = {"image_features", "tracks_yx", "query_yx", "pokes_yx", "noise", "time", "text", "proprio"}


@torch.no_grad()
def _check_zipmo(weights: Path, config: dict, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our answers for an autoencoder and, where there is one, its open-domain planner."""
    tracks = recorded["tracks_yx"].flip(-1)
    pokes = recorded.get("pokes_yx")
    slots = 16 if pokes is None else config["poke_slots"] if config.get("padded") else pokes.shape[1]
    statistics = {key: config[key] for key in ("latent_shift", "latent_variance") if key in config}
    window = _window(tracks.shape[2], config["latent_grid"][0])
    found = load_official(weights, poke_slots=slots, num_frames=window, **statistics)
    codec, features, starts = found.codec, recorded["image_features"], tracks[:, :, 0]
    shape = dict(zip("srw", config["latent_grid"], strict=True))
    frames = tracks.shape[2]

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
        conditions = planner.prepare(features, pokes)
        drawn = planner.sample(
            features, pokes, steps=config["sample_steps"], guidance=config["cfg_scale"], noise=noise[:, None]
        )[:, 0]
        ours |= {
            "velocity": flat(planner.velocity(noise, recorded["time"], conditions)),
            "velocity_uncond": flat(planner.velocity(noise, recorded["time"], conditions.without_pokes())),
            "sampled_latents": flat(drawn),
            "sampled_tracks": codec.decode(planner.denormalize(drawn), features, starts, frames).flip(-1),
        }
    return {name: value for name, value in ours.items() if name in recorded}


def _window(frames: int, slots: int) -> int:
    """The recorded number of frames, or the least number of at least as many that the time slots divide."""
    return -(-frames // slots) * slots


# Systems in order of their prefix; None is a system whose networks are not built yet.
_CHECKS: dict[str, Callable | None] = {"zipmo_libero": None, "zipmo": _check_zipmo, "kimodo": None, "tmr": None}


def parity_report(folder: str | Path, tolerance: float = 1e-4) -> tuple[str, bool]:
    """The parity table of a folder as text, and whether everything compared agrees to `tolerance` relative.

    A system that is not built yet has a line that says so and does not fail; that nothing was compared does.
    """
    rows = parity(folder)
    compared = [row for row in rows if not row.note]
    lines = [f"{'case':<22}{'output':<22}{'max abs':>10}{'relative':>10}  result"]
    for row in rows:
        verdict = row.note or ("ok" if row.passes(tolerance) else f"above {tolerance:g}")
        numbers = f"{'-':>10}{'-':>10}" if row.note else f"{row.absolute:>10.1e}{row.relative:>10.1e}"
        lines.append(f"{row.case:<22}{row.output:<22}{numbers}  {verdict}")
    good = bool(compared) and all(row.passes(tolerance) for row in rows)
    built = sum(row.passes(tolerance) for row in compared)
    lines.append(f"{built} of {len(compared)} outputs agree to {tolerance:g}; relative to the largest recorded value.")
    return "\n".join(lines), good
