"""The smoothed root: the straightest path on the floor that stays within 6 cm of the pelvis (Kimodo, Section 3.1).

A pelvis sways with every step. Kimodo describes where a body goes by a path without that sway, so that someone who draws
a smooth path on the floor asks for something that bodies do. The path minimises the sum of its squared second differences
while every point stays in a disc about the pelvis.

It is found by ADMM (Boyd et al., 2011), which alternates between two easy problems: the straightest path near some targets
(a banded linear system) and the nearest points inside the discs (a projection). The clips of a batch are laid end to end
in one system whose blocks do not touch, so that many clips cost one solve a round and each one's result is its own.

Departures from the release, whose solver works on coarse to fine copies of the path: one level only, so nothing is
interpolated and the path is not shifted by half a frame, ends are as good as the middle, and the 6 cm hold; a tiny pull
to the pelvis makes the result unique where a straight path would do anywhere in the discs; clips of one or two frames,
which have no second difference, keep their path.

Shapes: paths (T, 2) or (B, T, 2), (x, z) in metres; lengths (B,).
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinelib.notation import ShapeError, check_finite, check_shape

MARGIN = 0.06  # metres between the smoothed root and the pelvis, at most
PULL = 1e-7  # weight of the squared distance to the pelvis beside the squared second differences
PENALTY = 5e-4  # ADMM's rho; sways of a stride's length, about 40 frames, converge fastest
RELAXATION = 1.8  # of ADMM's steps, below 2


def smooth_root(path: Tensor, lengths: Tensor | None = None, *, margin: float = MARGIN, iterations: int = 500) -> Tensor:
    """Smooths the paths of roots on the floor; not differentiable.

    Args:
        path: (T, 2) or (B, T, 2) metres.
        lengths: (B,) valid frames of every path, 1..T; None means T. Frames beyond repeat the last valid one.
        margin: metres that a point may be moved, at least 0.
        iterations: rounds; 500 come within about 0.1 % of the least sum of squared second differences.

    Returns:
        smoothed paths in the shape, type and on the device of `path`.

    Raises:
        ShapeError: for other shapes, lengths out of range, or NaN. ValueError: for a negative margin or no iterations.
    """
    if margin < 0 or iterations < 1:
        raise ValueError(f"a root is smoothed within a margin >= 0 in >= 1 iterations; got {margin} and {iterations}.")
    if path.ndim == 2:
        check_shape("path", path, "T 2")
        return smooth_root(path[None], lengths, margin=margin, iterations=iterations)[0]
    sizes = check_shape("path", path, "B T 2")
    lengths = torch.full((sizes["B"],), sizes["T"]) if lengths is None else lengths.detach().cpu()
    check_shape("lengths", lengths, "B", B=sizes["B"])
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= sizes["T"]:
        raise ShapeError(f"lengths must be 1..{sizes['T']}, the frames of `path`; got {lengths.tolist()}.")
    if not len(lengths):
        return path.clone()
    frames = torch.arange(sizes["T"])
    valid = frames < lengths[:, None]
    wanted = path.detach().cpu().double()[valid]
    check_finite("path", wanted)
    smooth = torch.from_numpy(_admm(wanted.numpy(), lengths.tolist(), margin, iterations))
    # Where each frame of the batch is in the clips laid end to end; padding looks at its clip's last frame.
    starts = lengths.cumsum(0) - lengths
    where = starts[:, None] + torch.minimum(frames, lengths[:, None] - 1)
    return smooth[where].to(path)


def _admm(wanted: np.ndarray, lengths: list[int], margin: float, iterations: int) -> np.ndarray:
    """The smoothed paths (N, 2) of clips laid end to end."""
    from scipy.linalg import cholesky_banded
    from scipy.linalg.lapack import dpbtrs

    bands = _curvature_bands(lengths)
    bands[0] += PENALTY + PULL
    factor = cholesky_banded(bands, lower=True)
    pull = PULL * wanted
    inside, dual = wanted.copy(), np.zeros_like(wanted)
    for _ in range(iterations):
        straight = dpbtrs(factor, pull + PENALTY * (inside - dual), lower=1)[0]
        ahead = RELAXATION * straight + (1 - RELAXATION) * inside + dual
        inside = _into_discs(ahead, wanted, margin)
        dual = ahead - inside
    return _into_discs(straight, wanted, margin)


def _curvature_bands(lengths: list[int]) -> np.ndarray:
    """Diagonal and two lower diagonals (3, N) of A'A, A being the second differences inside every clip."""
    bands = np.zeros((3, sum(lengths)))
    starts = np.cumsum([0, *lengths[:-1]])
    inner = np.concatenate([np.arange(start + 1, start + length - 1) for start, length in zip(starts, lengths, strict=True)])
    for offset, weight in ((-1, 1), (0, 4), (1, 1)):
        np.add.at(bands[0], inner + offset, weight)
    for offset in (-1, 0):
        np.add.at(bands[1], inner + offset, -2)
    np.add.at(bands[2], inner - 1, 1)
    return bands


def _into_discs(points: np.ndarray, centres: np.ndarray, margin: float) -> np.ndarray:
    """The points (N, 2) of the discs of radius `margin` that are nearest to the given ones."""
    away = points - centres
    distance = np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-30)
    return centres + away * np.minimum(1, margin / distance)


def curvature_cost(path: Tensor, lengths: Tensor | None = None) -> Tensor:
    """What smoothing minimises: the sum of squared second differences (B,) of paths (B, T, 2), in square metres."""
    bends = (path[:, 2:] - 2 * path[:, 1:-1] + path[:, :-2]).square().sum(-1)
    if lengths is not None:
        bends = bends * (torch.arange(2, path.shape[1], device=path.device) < rearrange(lengths, "b -> b 1"))
    return bends.sum(-1)
