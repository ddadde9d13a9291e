"""Officially released Kimodo weights in our modules: both stages of the denoiser and the statistics beside them.

Sizes are inferred from the tensors. What weights do not tell (heads, zero text slots, frame rate, the names of the joints)
has the release's values as defaults. Statistics are three folders of mean.npy and std.npy: global_root (5 channels),
local_root (4) and body (12 J + 4).

Shapes: as in `kinelib.kimodo.denoiser`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import LOCAL_ROOT, ROOT
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.official.layout import Renames, depth
from kinelib.official.reading import fill, read_state

# The released skeletons by their number of joints; weights hold nothing else about them.
SKELETONS = {22: "smplx22", 30: "soma30", 34: "g1_34"}

_RENAMES: Renames = (
    (r"^root_model\.", "root."),
    (r"^body_model\.", "body."),
    (r"\bembed_text\.", "text_in."),
    (r"\bembed_timestep\.time_embed\.", "step_in."),
    (r"\blinear_first_heading_angle\.", "heading_in."),
    (r"\boutput_linear\.", "features_out."),
    (r"\bseqTransEncoder\.layers\.", "layers."),
    (r"\bself_attn\.in_proj_", "query_key_value."),
    (r"\bself_attn\.out_proj\.", "out."),
    (r"\blinear1\.", "up."),
    (r"\blinear2\.", "down."),
    (r"\bnorm1\.", "attention_norm."),
    (r"\bnorm2\.", "feed_norm."),
)


def load_kimodo(
    source: str | Path | Mapping[str, Tensor],
    *,
    heads: int = 8,
    text_slots: int = 50,
    fps: float = 30.0,
    max_frames: int = 300,
    statistics: str | Path | tuple[Statistics, Statistics] | None = None,
) -> TwoStageDenoiser:
    """Builds our denoiser, in eval mode, from officially released weights.

    Args:
        source: a .safetensors, .pt or .ckpt file, or a state dict.
        heads: attention heads.
        text_slots: the sentence's place and the zero vectors beside it.
        fps: frames a second of the motion.
        max_frames: longest clip the weights were trained on.
        statistics: folder with the release's three folders, or statistics of the features (D,) and of the local root (4,);
            None leaves means 0 and deviations 1, with which no motion can be made.

    Raises:
        ValueError: when the state dict is not a two-stage denoiser; it names the tensors that do not fit.
        FileNotFoundError: when a file is missing.
    """
    if str(source) == "hub":
        raise ValueError("download Kimodo's weights with the release's own licence dialogue, then pass the file's path.")
    state = _own(read_state(source, ""))
    width, text_width = state["root_model.embed_text.weight"].shape
    body = len(state["body_model.output_linear.bias"])
    if (body - 4) % 12:
        raise ValueError(f"the body stage of these weights writes {body} channels, which is not 12 J + 4 for any J joints.")
    joints = (body - 4) // 12
    config = DenoiserConfig(
        skeleton=SKELETONS.get(joints, f"{joints} joints"),
        joints=joints,
        fps=fps,
        max_frames=max_frames,
        width=width,
        layers=depth(state, "root_model.seqTransEncoder.layers."),
        heads=heads,
        ffn=len(state["root_model.seqTransEncoder.layers.0.linear1.bias"]),
        text_width=text_width,
        registers=text_slots - 1,
        norm="post",
        patch=1,
        broadcast=False,
        modulate=False,
        ahead=False,
        skip=False,
        root_filter=0.0,
        body_filter=0.0,
        whiten_text=False,
        dropout=0.1,
    )
    model = TwoStageDenoiser(config).eval()
    if statistics is not None:
        given = statistics if isinstance(statistics, tuple) else read_statistics(statistics)
        model.set_statistics(*given)
    numbers = {name: values for name, values in model.state_dict().items() if "statistics." in name}
    fill(model, _converted(state, config.features) | numbers, "denoiser")
    return model


def read_statistics(folder: str | Path) -> tuple[Statistics, Statistics]:
    """The release's statistics of the features (D,) and of the local root (4,).

    Raises:
        FileNotFoundError: naming the file that is missing. ValueError: for files of another size.
    """
    import numpy as np

    def read(part: str, name: str) -> Tensor:
        path = Path(folder) / part / f"{name}.npy"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; the release keeps mean.npy and std.npy for {part} there.")
        return torch.from_numpy(np.load(path, allow_pickle=False)).float().flatten()

    found = {part: [read(part, name) for name in ("mean", "std")] for part in ("global_root", "local_root", "body")}
    for part, count in (("global_root", ROOT.stop), ("local_root", LOCAL_ROOT)):
        if len(found[part][0]) != count:
            raise ValueError(f"{Path(folder) / part} holds {len(found[part][0])} channels; expected {count}.")
    both = zip(found["global_root"], found["body"], strict=True)
    return Statistics(*(torch.cat(pair) for pair in both)), Statistics(*found["local_root"])


def _own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The two stages' tensors under their names in the denoiser, whatever module held it; stored codes are dropped."""
    marks = [name for name in state if name.endswith("root_model.embed_text.weight")]
    if len(marks) != 1:
        names = ", ".join(sorted(state)[:3])
        raise ValueError(
            f"this is not the state dict of one Kimodo denoiser (no root_model.embed_text.weight): {names}, ..."
        )
    outer = marks[0].removesuffix("root_model.embed_text.weight")
    stages = (f"{outer}root_model.", f"{outer}body_model.")
    own = {name.removeprefix(outer): tensor for name, tensor in state.items() if name.startswith(stages)}
    needed = ("embed_text.weight", "output_linear.bias", "input_linear.weight", "seqTransEncoder.layers.0.linear1.bias")
    missing = [
        f"{stage}_model.{name}" for stage in ("root", "body") for name in needed if f"{stage}_model.{name}" not in own
    ]
    if missing:
        raise ValueError(f"the official denoiser does not fit: missing {', '.join(missing)}.")
    # Positional codes are computed, not loaded.
    return {name: tensor for name, tensor in own.items() if not name.endswith(".pe")}


def _converted(state: dict[str, Tensor], features: int) -> dict[str, Tensor]:
    """Official tensors under our names; the input's map is split into that of the features and that of the mask, its end."""
    ours = {}
    for name, tensor in state.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith("input_linear.weight"):
            ours[name.replace("input_linear", "features_in")] = tensor[:, :-features].contiguous()
            ours[name.replace("input_linear", "mask_in")] = tensor[:, -features:].contiguous()
        else:
            ours[name.replace("input_linear", "features_in")] = tensor
    return ours
