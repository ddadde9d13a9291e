"""State dicts: reading a file of released weights, and filling a module with converted ones.

Files are read without unpickling code (safetensors, or torch with `weights_only`). Wrappers' prefixes and the image
encoder's tensors are taken off, so that what is left are the networks' own names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

# The image encoder's own tensors (DINOv2, a vision transformer): handed on, not loaded.
_IMAGE_ENCODER = re.compile(
    r"(^|\.)(cls_token|register_tokens|mask_token|pos_embed|patch_embed\..+|norm\.(weight|bias)"
    r"|blocks\.\d+(\.\d+)?\.(norm1|attn|ls1|norm2|mlp|ls2)\..+)$"
)

# The module that holds an image encoder: the first one below those of our networks.
_WRAPPER = re.compile(r"(track_predictor\.)?(vae\.)?((en|de)coder\.)?(?!vae\.|encoder\.|decoder\.|track_predictor\.)[^.]+\.")


def read_state(
    source: str | Path | Mapping[str, Tensor], hub_repository: str, filename: str | None = None
) -> dict[str, Tensor]:
    """The float32 tensors of a .safetensors, .pt or .ckpt file, of a state dict, or of a file on the hub.

    Args:
        source: a path, a state dict, or "hub" to download `filename`.
        hub_repository: where to download from.
        filename: which file of it.

    Raises:
        FileNotFoundError: when there is no such file. ValueError: for "hub" without a file name.
    """
    state = _read(source, hub_repository, filename)
    return {name.replace("_orig_mod.", "").removeprefix("module."): tensor.float() for name, tensor in state.items()}


def _read(source: str | Path | Mapping[str, Tensor], hub_repository: str, filename: str | None) -> dict[str, Tensor]:
    if isinstance(source, Mapping):
        return dict(source)
    if str(source) == "hub":
        if not filename:
            raise ValueError(f"say which file of {hub_repository} to download: load_official('hub', filename=...).")
        from huggingface_hub import hf_hub_download

        source = hf_hub_download(hub_repository, filename)
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


def take_image_encoders(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes the image encoders' tensors from a state dict and returns them.

    They are known by their own names, and whatever else lies in a module that holds such an encoder goes with them.
    """
    places = {name.removesuffix("cls_token") for name in state if _IMAGE_ENCODER.search(name) and name.endswith("cls_token")}
    wrappers = tuple(match.group() for place in places if (match := _WRAPPER.match(place)))
    return {
        name: state.pop(name)
        for name in list(state)
        if _IMAGE_ENCODER.search(name) or (wrappers and name.startswith(wrappers))
    }


def take_prefixed(state: dict[str, Tensor], *prefixes: str, strip: str = "") -> dict[str, Tensor]:
    """Removes the tensors whose names start with one of the prefixes and returns them without the prefix `strip`."""
    return {name.removeprefix(strip): state.pop(name) for name in list(state) if name.startswith(prefixes)}


def fill(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Loads a converted state dict into a module called `what`.

    Raises:
        ValueError: naming the tensors that are missing, unexpected or misshaped.
    """
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
