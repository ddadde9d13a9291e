"""Officially released TMR weights in our modules, and what they answer to the recorded inputs of a reference pair.

The release keeps one file of weights for each of its three modules, or all of them in one with the modules' names in front.
Sizes are inferred from the tensors; only the number of attention heads cannot be.

A recording holds tensors (see the README of the reference folder) and, in its config, numbers: retrieval by protocols,
R-precision, MM-Dist and the Frechet distance, which are checked like tensors. Any of them may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from kinelib.bodies.frechet import frechet_distance
from kinelib.bodies.retrieval import everything, mm_distance, r_precision, small_batches, with_threshold
from kinelib.bodies.tmr import TMR, Gaussian, TMRConfig, info_nce, kl
from kinelib.official.layout import Renames
from kinelib.official.reading import fill, read_state

MODULES = ("motion_encoder", "text_encoder", "motion_decoder")

_RENAMES: Renames = ((r"\bseqTrans(En|De)coder\.", "layers."), (r"\bfinal_layer\.", "output."))
_INPUTS = {
    "motion", "motion_mask", "text", "text_mask", "sentence", "sims", "text_embeddings", "fid_real", "fid_generated",
    "precision_text", "precision_motion", "mmdist_text",
}  # fmt: skip
_THRESHOLD = re.compile(r"protocol_threshold_0?(\d+)$")  # 095 is 0.95


def load_tmr(source: str | Path | Mapping[str, Tensor], *, heads: int = 4) -> TMR:
    """Builds TMR from released weights, in eval mode.

    Args:
        source: a folder with motion_encoder.pt, text_encoder.pt and motion_decoder.pt; or one file or state dict with all.
        heads: attention heads, which the weights do not tell.

    Raises:
        FileNotFoundError: when a file is missing. ValueError: naming the tensors that are missing, unexpected or misshaped.
    """
    state = _state(source)
    if "motion_encoder.projection.weight" not in state or "text_encoder.projection.weight" not in state:
        raise ValueError("this is not a TMR state dict: it has no motion_encoder. and text_encoder.projection.weight.")
    width, motion = state["motion_encoder.projection.weight"].shape
    layers = {int(found[1]) for name in state if (found := re.match(r"motion_encoder\.layers\.layers\.(\d+)\.", name))}
    model = TMR(
        TMRConfig(
            motion_channels=motion,
            text_channels=state["text_encoder.projection.weight"].shape[1],
            width=width,
            layers=len(layers),
            heads=heads,
            feed_forward=len(state.get("motion_encoder.layers.layers.0.linear1.bias", ())),
        )
    )
    fill(model, state, "TMR")
    return model.eval()


def _state(source: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names."""
    if not isinstance(source, Mapping) and Path(source).is_dir():
        parts = {name: read_state(Path(source) / f"{name}.pt", "") for name in MODULES}
        source = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}
    state = {}
    for name, tensor in read_state(source, "").items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        if not name.endswith(".pe"):  # the table of positions, which is worked out
            state[name] = tensor
    return state


def is_tmr_input(name: str, recorded: dict[str, Tensor]) -> bool:
    """Whether a recorded tensor is an input."""
    return name in _INPUTS


def tmr_numbers(config: dict) -> dict[str, Tensor]:
    """The numbers of a recording's config as outputs: protocols in the order of their sorted names."""
    numbers = {}
    for name, value in config.items():
        if isinstance(value, dict):
            numbers[name] = torch.tensor([value[key] for key in sorted(value)], dtype=torch.float64)
        elif name in ("fid", "mm_dist") or name.startswith("r_precision_"):
            numbers[name] = torch.tensor(value, dtype=torch.float64).reshape(-1)
    return numbers


@torch.no_grad()
def tmr_outputs(weights: Path, config: dict, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our answers for encoders, decoder and losses, and our numbers for the metrics of the config.

    Args:
        weights: the file of weights.
        config: of the recording.
        recorded: its tensors.

    Returns:
        our value of every recorded output and number that we can compute, by name.

    Raises:
        ValueError: when the weights do not fit. KeyError: when an output was recorded without the inputs it needs.
    """
    model = load_tmr(weights, heads=config.get("heads", 4))

    def encoded(kind: str) -> Gaussian:
        encode = {"motion": model.encode_motion, "text": model.encode_text}[kind]
        return encode(recorded[kind], recorded[f"{kind}_mask"].bool())

    def contrast(**filtering) -> Tensor:
        means = encoded("text").mean, encoded("motion").mean
        return info_nce(*means, config.get("temperature", 0.1), **filtering).reshape(1)

    outputs: dict[str, Callable[[], Tensor]] = {
        "motion_tokens": lambda: torch.stack(encoded("motion"), 1),
        "text_tokens": lambda: torch.stack(encoded("text"), 1),
        "reconstruction": lambda: model.motion_decoder(encoded("motion").mean, recorded["motion_mask"].bool()),
        "infonce": contrast,
        "infonce_filtered": lambda: contrast(sentences=recorded["sentence"], same_text=config.get("filter_threshold", 0.8)),
        "kl": lambda: kl(encoded("text"), encoded("motion")).reshape(1),
    }
    answers = {name: compute() for name, compute in outputs.items() if name in recorded}
    return answers | {name: _number(name, config, recorded) for name in tmr_numbers(config)}


def _number(name: str, config: dict, recorded: dict[str, Tensor]) -> Tensor:
    """One metric of the config; protocols in the order of :func:`tmr_numbers`."""
    if name == "fid":
        value = frechet_distance(recorded["fid_real"], recorded["fid_generated"])
    elif name == "mm_dist":
        value = mm_distance(recorded["mmdist_text"], recorded["precision_motion"])
    elif name.startswith("r_precision_"):
        value = r_precision(recorded["precision_text"], recorded["precision_motion"], depth=len(config[name]))
    else:
        table = _protocol(name, recorded)
        value = [table[key] for key in sorted(config[name])]
    return torch.tensor(value, dtype=torch.float64).reshape(-1)


def _protocol(name: str, recorded: dict[str, Tensor]) -> dict[str, float]:
    found = _THRESHOLD.match(name)
    if found:
        threshold = float(f"0.{found[1]}")
        return with_threshold(recorded["sims"], recorded["text_embeddings"], threshold).rounded()
    if name in ("protocol_all", "protocol_normal"):
        return everything(recorded["sims"]).rounded()
    if name in ("protocol_guo", "protocol_batches"):
        return small_batches(recorded["sims"]).rounded()
    raise KeyError(f"{name} is no protocol that this check knows")
