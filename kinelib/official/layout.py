"""Official names and axis orders of ZipMo's layers turned into ours.

The release orders positions (y, x) and (t, y, x), we (x, y) and (t, x, y): here, and nowhere else, the columns that read
positions, the rows that write them, and the rotated channels of queries and keys are permuted, so that a loaded network
takes and gives (x, y) without any flip at run time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from kinelib.learning.fourier import axis_aligned

Renames = Sequence[tuple[str, str]]  # pattern and replacement; every one is applied, in order

# The parts that several networks share; a network's own names come before these.
_SHARED: Renames = (
    (r"\bself_attn\.norm\.", "self_norm."),
    (r"\bcross_attn\.norm_cross\.", "context_norm."),
    (r"\bcross_attn\.norm\.", "cross_norm."),
    (r"_attn\.q_proj\.", "_attention.query."),
    (r"_attn\.kv_proj\.", "_attention.key_value."),
    (r"_attn\.out_proj\.", "_attention.out."),
    (r"_attn\.pos_emb\.freqs", "_attention.rotary.frequencies"),
    (r"_attn\.pos_emb\.", "_attention.rotary."),
    (r"_attn\.", "_attention."),
    (r"\bff\.norm\.", "feed_norm."),
    (r"\bff\.(up|down)_proj\.", r"feed_forward.\1."),
    (r"\.coeffs$", ".features.frequencies"),
    (r"\.mlp\.", ".blocks."),
    (r"\btime_in_proj\.", "embed_time.linear."),
    (r"\btime_emb\.weight", "embed_time.frequencies"),
    (r"\bmapping\.in_norm\.", "embed_time.mapping.0."),
    (r"\bmapping\.blocks\.0\.", "embed_time.mapping.1."),
    (r"\bmapping\.blocks\.1\.", "embed_time.mapping.2."),
    (r"\bmapping\.out_norm\.", "embed_time.mapping.3."),
    (r"\.(up|down)_proj\.", r".feed_forward.\1."),
)


def depth(state: dict[str, Tensor], prefix: str) -> int:
    """How many layers a state dict has under a prefix such as "backbone."."""
    return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix))


def converted(
    state: dict[str, Tensor], renames: Renames, inputs: dict[str, Sequence[int]] | None = None
) -> dict[str, Tensor]:
    """Official tensors of a network under our names, in our layout and axis order.

    Args:
        state: the network's tensors.
        renames: the network's own names.
        inputs: for every Fourier embedder, by official name, the official index of each of our inputs.
    """
    ours: dict[str, Tensor] = {}
    renames = (*renames, *_SHARED)
    inputs = {} if inputs is None else inputs
    for name, tensor in state.items():
        layer = name.rpartition("attn.")[0] + "attn."
        head, _, last = name.rpartition(".")
        if last == "yx_freqs":
            continue  # taken together with t_freqs
        if last == "t_freqs":
            y, x = state[name.replace("t_freqs", "yx_freqs")]
            ours[_renamed(head + ".freqs", renames)] = torch.stack([tensor, x, y])
        elif last == "freqs":
            ours[_renamed(name, renames)] = tensor.flip(0)  # (y, x) -> (x, y); a single axis stays
        elif name.endswith("qkv_proj.weight"):
            query, key, value = tensor.chunk(3)
            query, key = _swap_rotated(query, state, layer), _swap_rotated(key, state, layer)
            ours[_renamed(layer + "q_proj.weight", renames)] = query
            ours[_renamed(layer + "kv_proj.weight", renames)] = torch.cat([key, value])
        elif name.endswith("attn.q_proj.weight"):
            ours[_renamed(name, renames)] = _swap_rotated(tensor, state, layer)
        elif name.endswith("kv_proj.weight"):
            key, value = tensor.chunk(2)
            ours[_renamed(name, renames)] = torch.cat([_swap_rotated(key, state, layer), value])
        elif last == "coeffs" and head in inputs:
            order = list(inputs[head])
            ours[_renamed(name, renames)] = axis_aligned(tensor, len(order))[..., order]
        elif name.endswith(("_token", "time_emb.weight")):
            ours[_renamed(name, renames)] = tensor.flatten()
        else:
            ours[_renamed(name, renames)] = tensor
    return ours


def _renamed(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _swap_rotated(weight: Tensor, state: dict[str, Tensor], layer: str) -> Tensor:
    """Reorders the rotated rows of a query or key matrix from (t, y, x) to (t, x, y), or from (y, x) to (x, y)."""
    if layer + "pos_emb.t_freqs" in state:
        (heads, slots), order = state[layer + "pos_emb.t_freqs"].shape, [0, 2, 1]
    elif layer + "pos_emb.freqs" in state:
        axes, heads, slots = state[layer + "pos_emb.freqs"].shape
        order = list(range(axes))[::-1]
    else:
        return weight  # no rotation
    by_head = rearrange(weight, "(h d) c -> h d c", h=heads)
    rotated, rest = by_head[:, : 2 * len(order) * slots], by_head[:, 2 * len(order) * slots :]
    pairs = rearrange(rotated, "h (half a slot) c -> half h a slot c", half=2, a=len(order))[:, :, order]
    rotated = rearrange(pairs, "half h a slot c -> h (half a slot) c")
    return rearrange(torch.cat([rotated, rest], dim=1), "h d c -> (h d) c")
