"""From frames to image tokens: a small trainable patch encoder, cached features, and optionally DINOv2.

The papers use a frozen DINOv2 ViT-B/14 with registers. It cannot be had offline, so the default is a few convolutions
trained together with the model, and DINOv2 is loaded only where it is asked for. Frames are squashed to a square
whatever their aspect ratio, as in the paper.

Shapes: frames (B, H, W, 3) uint8 RGB; model frames (B, 3, S, S) float32 in [-1, 1]; tokens (B, rows * columns, C).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinelib.learning.files import written_whole
from kinelib.notation import ShapeError, check_shape

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_model_frame(frames: np.ndarray | Tensor, size: int) -> Tensor:
    """Turns uint8 frames into what models take, resizing by area (bilinearly where it enlarges).

    Args:
        frames: (B, H, W, 3) uint8 RGB, numpy or torch.
        size: S, pixels of the square result.

    Returns:
        (B, 3, S, S) float32 in [-1, 1].

    Raises:
        ShapeError: on another type or shape, or an empty frame.
    """
    frames = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    if frames.dtype != torch.uint8:
        raise ShapeError(
            f"frames must be uint8 in 0..255; got {frames.dtype}. "
            "A float frame in [0, 1]? Use (frame * 255).astype('uint8')."
        )
    hint = " Add a batch axis: frame[None]." if frames.ndim == 3 else ""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ShapeError(f"frames must have shape (B, H, W, 3), RGB; got {tuple(frames.shape)}.{hint}")
    if not frames.shape[1] or not frames.shape[2] or size < 1:
        raise ShapeError(f"frames of {tuple(frames.shape)} cannot be resized to {size} x {size}.")
    image = rearrange(frames, "b h w c -> b c h w").float()
    # One axis at a time, because a frame may have to shrink along one and grow along the other.
    for axis in (0, 1):
        target = list(image.shape[-2:])
        shrinks, target[axis] = target[axis] > size, size
        image = F.interpolate(image, target, mode="area") if shrinks else F.interpolate(image, target, mode="bilinear")
    return image / 127.5 - 1


def shrink(frames: Tensor, size: int) -> Tensor:
    """Model frames for a network that sees less detail: each pixel the mean of those it covers.

    Args:
        frames: (B, 3, S, S).
        size: of the square result, at most S; at S the frames are returned as they are.

    Raises:
        ShapeError: when the frames are not square, or smaller than `size`.
    """
    side = check_shape("frames", frames, "B 3 S S")["S"]
    if side < size:
        raise ShapeError(f"frames of {side} x {side} pixels cannot be shrunk to {size} x {size}; give larger ones.")
    return frames if side == size else F.interpolate(frames, (size, size), mode="area")


class PatchEncoder(nn.Module):
    """A small trainable convolutional encoder: one token for every patch of a frame.

    Halves the frame until patches are one pixel, widening on the way; norms are over groups of channels, so nothing
    depends on the batch.

    Args:
        frame_size: S, pixels of the square frame.
        patch: pixels a side of a patch, a power of two that divides frame_size.
        width: C, channels of a token.

    Raises:
        ShapeError: when the patch does not fit.
    """

    def __init__(self, frame_size: int, patch: int, width: int) -> None:
        super().__init__()
        if patch < 2 or patch & (patch - 1) or frame_size % patch:
            raise ShapeError(f"patch must be a power of two from 2 that divides the frame's {frame_size}; got {patch}.")
        self.frame_size, self.patch = frame_size, patch
        halvings = patch.bit_length() - 1
        widths = [max(8, width // 2 ** (halvings - step)) for step in range(1, halvings)] + [width]
        layers: list[nn.Module] = []
        channels = 3
        for wide in widths:
            layers += [nn.Conv2d(channels, wide, 3, stride=2, padding=1), nn.GroupNorm(1, wide), nn.SiLU()]
            channels = wide
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 3, padding=1))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return (self.frame_size // self.patch,) * 2

    def map(self, frame: Tensor) -> Tensor:
        """A frame (B, 3, S, S) in [-1, 1] -> a feature map (B, C, rows, columns)."""
        check_shape("frame", frame, f"B 3 {self.frame_size} {self.frame_size}")
        return self.layers(frame)

    def forward(self, frame: Tensor) -> Tensor:
        """A frame (B, 3, S, S) in [-1, 1] -> tokens (B, rows * columns, C), row by row."""
        return rearrange(self.map(frame), "b c r w -> b (r w) c")


class CachedFeatures:
    """Encoder outputs remembered by key, in one safetensors file.

    Args:
        path: the file; read when it exists, written by :meth:`save`.
        encoder: maps frames (B, 3, S, S) to tokens (B, L, C).
        name: identifies the encoder and its weights; a file made by another one is refused.

    Raises:
        ValueError: when the file was made by another encoder.
    """

    def __init__(self, path: str | os.PathLike, encoder: Callable[[Tensor], Tensor], name: str) -> None:
        self.path, self.encoder, self.name = Path(path), encoder, name
        self._known: dict[str, Tensor] = {}
        if self.path.exists():
            from safetensors import safe_open

            with safe_open(self.path, "pt") as file:
                made_by = (file.metadata() or {}).get("encoder")
                if made_by != name:
                    raise ValueError(
                        f"{self.path} holds features of {made_by!r}, not of {name!r}. Delete it or choose another file."
                    )
                self._known = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping

    def __len__(self) -> int:
        return len(self._known)

    @torch.no_grad()
    def __call__(self, keys: list[str], frames: Tensor) -> Tensor:
        """The features of frames (B, 3, S, S), encoding only those whose key is new.

        Args:
            keys: one for each frame, for example "clip-12/0" or :func:`frame_key`.
            frames: the frames, in the same order.

        Raises:
            ShapeError: when keys and frames differ in number.
        """
        if len(keys) != len(frames) or not len(keys):
            raise ShapeError(f"each frame needs one key; got {len(keys)} keys for {len(frames)} frames.")
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            encoded = self.encoder(frames[list(new.values())]).cpu()
            self._known.update(zip(new, encoded.unbind(), strict=True))
        return torch.stack([self._known[key] for key in keys]).to(frames.device)

    def save(self) -> None:
        """Writes the file; an older one is replaced only when the new one is complete."""
        from safetensors.torch import save_file

        with written_whole(self.path) as sibling:
            save_file({key: value.clone() for key, value in self._known.items()}, sibling, metadata={"encoder": self.name})


def frame_key(frame: np.ndarray) -> str:
    """A key made from the contents of one uint8 frame (H, W, 3)."""
    frame = np.ascontiguousarray(frame)
    return hashlib.sha256(repr(frame.shape).encode() + frame.tobytes()).hexdigest()[:32]


class DinoV2(nn.Module):
    """A frozen DINOv2 ViT-B/14 with registers that takes frames in [-1, 1]: 16 x 16 tokens of 768 channels.

    Args:
        backbone: maps (B, 3, 224, 224) normalised images to the final patch tokens (B, 256, 768).
    """

    grid = (16, 16)
    width = 768

    def __init__(self, backbone: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD)[:, None, None], persistent=False)

    @torch.no_grad()
    def forward(self, frame: Tensor) -> Tensor:
        """A frame (B, 3, H, W) in [-1, 1] of any size -> (B, 256, 768)."""
        check_shape("frame", frame, "B 3 H W")
        # The release averages by the whole factor first, so that bilinear sampling never skips pixels.
        factor = max(1, min(frame.shape[-2:]) // 224)
        image = F.avg_pool2d(frame, factor) if factor > 1 else frame
        image = F.interpolate(image, size=(224, 224), mode="bilinear", align_corners=False)
        return self.backbone(((image + 1) / 2 - self.mean) / self.std)


def dinov2() -> DinoV2:
    """DINOv2 through timm, or through torch.hub where timm is missing; both download weights once.

    Raises:
        RuntimeError: when neither gives the network; the message says what to do.
    """
    reasons = []
    for source in (_dinov2_timm, _dinov2_hub):
        try:
            return DinoV2(source()).eval()
        except Exception as error:  # timm, torch.hub and the network each raise their own kinds
            reasons.append(f"{source.__name__[8:]}: {type(error).__name__}: {error}")
    raise RuntimeError(
        "DINOv2 is not available (" + "; ".join(reasons) + "). Run `pip install timm` and connect to the network once, "
        "or use PatchEncoder, the default, which needs neither."
    )


class _PatchTokens(nn.Module):
    """Keeps the patch tokens of a vision transformer, dropping class and register tokens."""

    def __init__(self, model: nn.Module, read: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.read = model.eval().requires_grad_(False), read

    def forward(self, image: Tensor) -> Tensor:
        return self.read(self.model, image)


def _dinov2_timm() -> nn.Module:
    import timm

    model = timm.create_model("vit_base_patch14_reg4_dinov2.lvd142m", pretrained=True, img_size=224)
    return _PatchTokens(model, lambda model, image: model.forward_features(image)[:, model.num_prefix_tokens :])


def _dinov2_hub() -> nn.Module:
    model = torch.hub.load("facebookresearch/dinov2", "dinov2_vitb14_reg")
    return _PatchTokens(model, lambda model, image: model.forward_features(image)["x_norm_patchtokens"])
