"""Matrices as bytes: every row in 255 steps of a scale of its own, half the size of float16.

For weights that are shipped to be compared with, such as baselines: rounding moves a weight by at most 1/254 of the largest
of its row. `compress` rewrites a checkpoint folder's weights once; `checkpoints.load` unpacks them as it reads.

Shapes: a matrix (R, ...) becomes int8 (R, ...) and a float32 scale (R,) beside it, named after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinelib.learning.files import written_whole

SCALE = "::scale"  # after the name of a matrix; no module can be called that
WEIGHTS = "model.safetensors"


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating tensors of two dimensions or more as int8 with a scale a row; all else as it is.

    Raises:
        ValueError: for NaN or infinity, which bytes cannot hold.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.ndim < 2:
            packed[name] = tensor
            continue
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity; bytes cannot hold that.")
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * 127) / 127
        packed[name] = (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape)
        packed[name + SCALE] = scale
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`pack`, as float32; tensors that were never packed come through as they are."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALE)}
    for name in found:
        if (scale := tensors.get(name + SCALE)) is not None:
            found[name] = (found[name].float().flatten(1) * scale[:, None]).view(found[name].shape)
    return found


def compress(folder: str | Path) -> None:
    """Rewrites the weights of a checkpoint folder as bytes; one that is packed already stays as it is.

    Raises:
        FileNotFoundError: when the folder holds no weights.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights {path} to compress.")
    tensors = load_file(path)
    if any(name.endswith(SCALE) for name in tensors):
        return
    with written_whole(path) as sibling:
        save_file(pack(tensors), sibling)
