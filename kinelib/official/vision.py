"""DINOv2's vision transformer with registers, built from its weights in a released checkpoint (ZipMo, image features).

Every released ZipMo checkpoint carries its image encoder, so that nothing has to be downloaded beside it. The network is
the public architecture: patches, a class token and registers in one sequence; pre-norm blocks with layer scale; positions
learned on a grid and resampled bicubically to the image's. Only the normed patch tokens are read.

Departures: none in what is computed; the mask token, which only pre-training needs, is kept so that the parameters are the
official ones.

Shapes: images (B, 3, 14 r, 14 c), normalised as DINOv2 wants them -> patch tokens (B, r * c, C), row by row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinelib.learning.image import DinoV2
from kinelib.notation import ShapeError, check_shape
from kinelib.official.reading import fill


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a vision transformer."""

    width: int = 768  # C, channels of a token
    depth: int = 12  # blocks
    heads: int = 12  # attention heads
    patch: int = 14  # pixels a side of a patch
    registers: int = 4  # tokens beside the class token that belong to no patch
    grid: int = 37  # rows and columns of the learned positions (518 pixels)


class _Block(nn.Module):
    """Attention and a GELU network, each behind a layer norm and scaled by a learned number a channel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.ones(width)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.attn["qkv"](self.norm1(x)), "b l (three h d) -> three b h l d", three=3, h=self.heads)
        seen = rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")
        x = x + self.ls1["gamma"] * self.attn["proj"](seen)
        return x + self.ls2["gamma"] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class VisionTransformer(nn.Module):
    """DINOv2's image encoder; parameters have its own names.

    Args:
        config: sizes; the default is ViT-B/14 with four registers.
    """

    def __init__(self, config: VisionConfig = VisionConfig()) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, config.patch, stride=config.patch)})
        self.blocks = nn.ModuleList(_Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), sides multiples of the patch -> (B, L, C).

        Raises:
            ShapeError: when a side is no multiple of the patch.
        """
        sizes = check_shape("image", image, "B 3 H W")
        if sizes["H"] % self.config.patch or sizes["W"] % self.config.patch:
            raise ShapeError(f"the image's sides must be multiples of {self.config.patch}; got {tuple(image.shape)}.")
        patches = self.patch_embed["proj"](image)
        rows, columns = patches.shape[-2:]
        first, places = self.pos_embed.split([1, self.config.grid**2], dim=1)
        if (rows, columns) != (self.config.grid, self.config.grid):
            square = rearrange(places, "1 (r c) d -> 1 d r c", r=self.config.grid)
            square = F.interpolate(square, size=(rows, columns), mode="bicubic", antialias=True)
            places = rearrange(square, "1 d r c -> 1 (r c) d")
        batch = len(image)
        tokens = [
            (self.cls_token + first).expand(batch, -1, -1),
            self.register_tokens.expand(batch, -1, -1),
            rearrange(patches, "b d r c -> b (r c) d") + places,
        ]
        x = torch.cat(tokens, dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1 + self.config.registers :]


def image_encoders(state: Mapping[str, Tensor]) -> tuple[DinoV2, DinoV2]:
    """The image encoders of a released checkpoint, of its autoencoder and of its planner (the same one where there is one).

    Args:
        state: their tensors as :class:`kinelib.official.Official` hands them on.

    Raises:
        ValueError: when there is none, or tensors are missing, unexpected or misshaped; by name.
    """
    places = sorted(name.removesuffix("cls_token") for name in state if re.search(r"(^|\.)cls_token$", name))
    if not places:
        raise ValueError(
            "this checkpoint holds no image encoder. Pass the frame's features instead (kinelib.learning.image.dinov2)."
        )
    inner = next((place for place in places if "vae." in place), places[0])
    outer = next((place for place in places if "vae." not in place), inner)
    own = _encoder({name.removeprefix(inner): tensor for name, tensor in state.items() if name.startswith(inner)})
    if outer == inner:
        return own, own
    return own, _encoder({name.removeprefix(outer): tensor for name, tensor in state.items() if name.startswith(outer)})


def _encoder(state: dict[str, Tensor]) -> DinoV2:
    # Chunked checkpoints number blocks twice: chunk, then block.
    state = {re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", name): tensor for name, tensor in state.items()}
    needed = ("patch_embed.proj.weight", "pos_embed", "register_tokens")
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(f"the official image encoder does not fit: missing {', '.join(missing)}.")
    width, _, _, patch = state["patch_embed.proj.weight"].shape
    config = VisionConfig(
        width=width,
        depth=1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1),
        heads=max(1, width // 64),
        patch=patch,
        registers=state["register_tokens"].shape[1],
        grid=round((state["pos_embed"].shape[1] - 1) ** 0.5),
    )
    network = VisionTransformer(config).eval().requires_grad_(False)
    fill(network, state, "image encoder")
    return DinoV2(network)
