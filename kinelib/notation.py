"""Shape legend, coordinates, and shape checks whose errors can be read.

Legend, the same in every docstring of the repository:
    B batch, N points, T frames, L latent tokens, C channels, H W rows and columns, J joints, G groups,
    P pokes, Q query points, K samples, D features.

Coordinates: positions are (x, y) in [-1, 1] across the frame, x right and y down, whatever the aspect ratio;
-1 and 1 are the *edges* of the frame, so the centre of pixel column i of W lies at x = (2 i + 1) / W - 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


class ShapeError(ValueError):
    """A tensor does not have the shape, type or range its caller promised."""


def check_shape(name: str, tensor: Tensor, pattern: str, **sizes: int) -> dict[str, int]:
    """Checks a tensor against a pattern such as ``"B N T 2"`` and returns the size of every letter.

    Args:
        name: what the tensor is called in the error.
        tensor: any tensor.
        pattern: axis names and literal sizes separated by spaces.
        sizes: sizes already known, for example ``B=4``.

    Raises:
        ShapeError: when the rank, a literal size or a known size differs; the message names the axis.
    """
    axes = pattern.split()
    shape = tuple(tensor.shape)
    wanted = "(" + ", ".join(axes) + ")"
    if len(shape) != len(axes):
        raise ShapeError(f"{name} must have shape {wanted}; got {shape}, which has {len(shape)} axes, not {len(axes)}.")
    known = dict(sizes)
    for axis, size in zip(axes, shape, strict=True):
        expected = int(axis) if axis.isdigit() else known.setdefault(axis, size)
        if size != expected:
            raise ShapeError(f"{name} must have shape {wanted}; got {shape}: axis {axis} is {size}, expected {expected}.")
    return known


def check_finite(name: str, tensor: Tensor) -> None:
    """Raises ShapeError when a tensor holds NaN or infinity, and says how many values are bad."""
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ShapeError(
            f"{name} holds {bad} of {tensor.numel()} values that are NaN or infinite. "
            "Drop those points, or mark them invisible and fill them with kinelib.tracks.tracks.fill_invisible first."
        )


def to_pixels(xy: Tensor, width: float, height: float) -> Tensor:
    """Maps (..., 2) xy in [-1, 1] to pixels measured from the frame's top left corner, edges at 0 and width/height.

    The centre of the first pixel is at 0.5; subtract 0.5 for OpenCV, whose pixel centres are integers.
    """
    return (xy + 1) / 2 * xy.new_tensor([width, height])


def from_pixels(pixels: Tensor, width: float, height: float) -> Tensor:
    """The inverse of :func:`to_pixels`: pixels from the corner to xy in [-1, 1]."""
    return pixels / pixels.new_tensor([width, height]) * 2 - 1


def cell_centres(rows: int, columns: int, device: torch.device | str | None = None) -> Tensor:
    """The (rows * columns, 2) xy centres of a grid over the frame, row by row."""
    y = (2 * torch.arange(rows, device=device) + 1) / rows - 1
    x = (2 * torch.arange(columns, device=device) + 1) / columns - 1
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 2)


def frame_times(num_frames: int, device: torch.device | str | None = None) -> Tensor:
    """The (T,) times of frames in [0, 1], first frame 0 and last frame 1 (a single frame is at 0)."""
    return torch.linspace(0, 1, num_frames, device=device) if num_frames > 1 else torch.zeros(num_frames, device=device)
