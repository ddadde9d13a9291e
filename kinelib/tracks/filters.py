"""Which clips have a moving camera, which hardly move at all: filters for building a training set from video.

The paper keeps clips of a static camera. The official rule looks at each step alone (below 1 % of the frame), so a slow
pan across 60 % of the frame passes; it is here for comparison as `official_static_camera`. The filters of this file look
at the *total* motion since the first frame, fitted over all points, and so do what their names say.

Shapes: tracks (B, N, T, 2) in [-1, 1]; motions are fractions of the frame's longer side. Invisible steps are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor

from kinelib.notation import cell_centres
from kinelib.tracks.tracks import Tracks


@dataclass(frozen=True)
class CameraMotion:
    """The similarity transform that explains most points, frame 0 to frame t, for every frame.

    In coordinates that share one unit (x in [-1, 1] times `aspect`), a point p goes to `matrix @ p + shift`.
    """

    matrix: Tensor  # (B, T, 2, 2) rotation times scale
    shift: Tensor  # (B, T, 2)
    magnitude: Tensor  # (B, T) mean motion over the frame, as a fraction of its longer side
    explained: Tensor  # (B, T) share of the visible points that follow the transform
    aspect: tuple[float, float]  # half width and half height of the frame; the longer one is 1

    def move(self, points: Tensor) -> Tensor:
        """Where the camera motion alone takes points (B, N, 2) xy: (B, N, T, 2) xy."""
        unit = points.new_tensor(self.aspect)
        moved = einsum(self.matrix, points * unit, "b t i j, b n j -> b n t i") + rearrange(self.shift, "b t i -> b 1 t i")
        return moved / unit


def camera_motion(tracks: Tracks, *, tolerance: float = 0.01, hypotheses: int = 96, seed: int = 0) -> CameraMotion:
    """Fits the global similarity (pan, zoom, roll) of every frame robustly: random pairs of points vote, then least squares.

    A camera is what most points agree on; an object that covers most of the points is indistinguishable from it, so
    take points spread over the frame (grid_points, random_points), not corners. Frames in which fewer than two points
    are visible repeat the fit of the frame before.

    Args:
        tracks: (B, N, T, 2); `size`, when known, sets the aspect ratio.
        tolerance: a point agrees when it is within this fraction of the frame's longer side.
        hypotheses: random pairs tried in each clip.
        seed: of the pairs.
    """
    width, height = tracks.size or (1, 1)
    aspect = (width / max(width, height), height / max(width, height))
    xy = tracks.xy * tracks.xy.new_tensor(aspect)
    fits = [
        _fit_clip(clip, visible, 2 * tolerance, hypotheses, seed) for clip, visible in zip(xy, tracks.visible, strict=True)
    ]
    matrix, shift, explained = (torch.stack(parts) for parts in zip(*fits, strict=True))
    frame = cell_centres(5, 5, xy.device).to(xy.dtype) * xy.new_tensor(aspect)
    moved = einsum(matrix, frame, "b t i j, p j -> b t p i") + rearrange(shift, "b t i -> b t 1 i")
    magnitude = reduce((moved - frame).norm(dim=-1), "b t p -> b t", "mean") / 2
    return CameraMotion(matrix, shift, magnitude, explained, aspect)


def has_moving_camera(tracks: Tracks, threshold: float = 0.02, **fit) -> Tensor:
    """(B,) bool: the camera's total motion exceeds `threshold` (a fraction of the longer side) in some frame."""
    return camera_motion(tracks, **fit).magnitude.amax(dim=1) > threshold


def is_static(tracks: Tracks, threshold: float = 0.01, share: float = 0.98) -> Tensor:
    """(B,) bool: nothing happens; at least `share` of the points never get further than `threshold` from their start.

    Args:
        threshold: a fraction of the frame's longer side; 0.01 is 2.6 pixels of 256.
        share: the rest are allowed to be tracking errors.
    """
    return reduce((total_displacement(tracks) <= threshold).float(), "b n -> b", "mean") >= share


def total_displacement(tracks: Tracks) -> Tensor:
    """(B, N) largest distance of each point from its start while visible, as a fraction of the frame's longer side."""
    width, height = tracks.size or (1, 1)
    unit = tracks.xy.new_tensor([width / max(width, height), height / max(width, height)]) / 2
    distance = (tracks.displacement() * unit).norm(dim=-1)
    return distance.masked_fill(~tracks.visible, 0).amax(dim=-1)


def without_camera(tracks: Tracks, **fit) -> Tracks:
    """The tracks as a camera that holds still would see them: what objects do by themselves."""
    camera = camera_motion(tracks, **fit)
    unit = tracks.xy.new_tensor(camera.aspect)
    centred = tracks.xy * unit - rearrange(camera.shift, "b t i -> b 1 t i")
    still = einsum(torch.linalg.inv(camera.matrix), centred, "b t i j, b n t j -> b n t i") / unit
    return Tracks(still, tracks.visible, tracks.fps, tracks.size, tracks.provenance)


def official_static_camera(tracks: Tracks) -> Tensor:
    """(B,) bool: the official release's rule for keeping a clip, for comparison only; slow pans pass.

    More than half of the tracks are static: more than 95 % of their steps are below 1 % of the frame.
    """
    steps = tracks.xy.diff(dim=2).norm(dim=-1) / 2
    static = (steps < 0.01).float().mean(dim=-1) > 0.95
    return static.float().mean(dim=-1) > 0.5


def _fit_clip(xy: Tensor, visible: Tensor, tolerance: float, hypotheses: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """matrix (T, 2, 2), shift (T, 2), explained (T,) of one clip (N, T, 2)."""
    points, frames = xy.shape[:2]
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(hypotheses, points, generator=generator).to(xy.device)
    # As complex numbers a similarity is z -> a z + b: two points determine it, and least squares is a ratio of sums.
    start = torch.view_as_complex(xy[:, 0].contiguous().double())
    matrix, shift, explained = [], [], []
    a, b = start.new_ones(()), start.new_zeros(())
    for time in range(frames):
        seen = visible[:, time]
        agree = seen
        if int(seen.sum()) >= 2:
            end = torch.view_as_complex(xy[:, time].contiguous().double())
            first, second = weights.masked_fill(~seen, -1).topk(2, dim=1).indices.T
            gap = start[first] - start[second]
            scale = torch.where(gap.abs() > 0.02, (end[first] - end[second]) / gap.where(gap.abs() > 0.02, 1 + 0j), 1 + 0j)
            # Pure translations are candidates too: they are what a few noisy points support best.
            scale = torch.cat([scale, torch.ones_like(scale)])
            offset = repeat(end[first], "k -> (two k)", two=2) - scale * repeat(start[first], "k -> (two k)", two=2)
            error = (rearrange(scale, "k -> k 1") * start + rearrange(offset, "k -> k 1") - end).abs()
            cost = (error.clamp(max=tolerance) * seen).sum(dim=1)
            best = int(cost.argmin())
            a, b = scale[best], offset[best]
            for _ in range(3):
                agree = seen & ((a * start + b - end).abs() <= tolerance)
                a, b = _least_squares(start[agree], end[agree]) if int(agree.sum()) >= 2 else (a, b)
            agree = seen & ((a * start + b - end).abs() <= tolerance)
        matrix.append(torch.stack([torch.stack([a.real, -a.imag]), torch.stack([a.imag, a.real])]))
        shift.append(torch.view_as_real(b))
        explained.append(agree.sum() / seen.sum().clamp(min=1))
    return torch.stack(matrix).to(xy.dtype), torch.stack(shift).to(xy.dtype), torch.stack(explained).to(xy.dtype)


def _least_squares(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The similarity z -> a z + b closest to end, as complex numbers; a pure shift when the points coincide."""
    centred = start - start.mean()
    spread = (centred.conj() * centred).sum()
    a = (centred.conj() * (end - end.mean())).sum() / spread if spread.abs() > 1e-9 else start.new_ones(())
    return a, end.mean() - a * start.mean()
