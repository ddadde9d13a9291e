"""How a correction at a few frames spreads over a whole clip, as a matrix; and a root pulled onto what is given of it.

A denoiser that is given a place at one frame answers with a path that passes it by. Moving that one frame onto the place
would tear the path; the least smooth change that meets it (`trajectory.correct`) moves the neighbours along. That change is
linear in what is missed, and its matrix depends on the frames alone, so it is made once a draw and costs a product a step.

Shapes: B clips, T frames, C channels; lengths (B,) frames of every clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kinelib.kimodo.trajectory import correct

PATH = (1e-3, 1.0, 10.0)  # weights of position, velocity and acceleration for the root's path: long and even
STRAIGHT = (1e-7, 1e-4, 1.0)  # for a bridge: as little bent as can be
SOON = 10  # frames; a place given that early may move the first one
POSE = (1e-2, 1.0, 1.0)  # for everything else: it dies away within a second


def spreading(pinned: Tensor, lengths: Sequence[int], weights: tuple[float, float, float] = POSE) -> Tensor:
    """The matrices (B, T, T) that spread what is missed at pinned frames; zero for a clip without any.

    Args:
        pinned: (B, T) bool.
        lengths: of the clips; nothing spreads beyond them.
        weights: of position, velocity and acceleration, see :func:`trajectory.correct`.

    Returns:
        on the CPU, float32; times (B, T, C) of what is missed it gives a correction of every frame, which at pinned frames
        is what is missed there.
    """
    batch, frames = pinned.shape
    matrices = torch.zeros(batch, frames, frames)
    for clip, length in enumerate(lengths):
        flags = tuple(pinned[clip, : int(length)].tolist())
        if any(flags):
            matrices[clip, :length, :length] = _matrix(flags, weights)
    return matrices


@lru_cache(maxsize=512)
def _matrix(pinned: tuple[bool, ...], weights: tuple[float, float, float]) -> Tensor:
    position, velocity, acceleration = weights
    count = len(pinned)
    options = dict(position=position, velocity=velocity, acceleration=acceleration)
    # Column k is the answer to missing 1 at frame k and nothing elsewhere.
    return torch.from_numpy(correct(np.zeros((count, count)), np.array(pinned), np.eye(count), **options)).float()


class Part(NamedTuple):
    """Channels of a root that are given together."""

    channels: slice
    given: Tensor  # (B, T) bool, where
    bridges: Tensor  # (B, T, T) the prediction without what only repeats the given numbers
    matrices: Tensor  # (B, T, T) of :func:`spreading`


class RootPull(NamedTuple):
    """What moves a predicted root onto the given one.

    A network that reads a place at one frame repeats it there, whatever it makes of the frames around: a spike, from which
    nothing can be told about what is missed. So the prediction is bridged over such frames first, from those beside them.
    """

    parts: tuple[Part, ...]

    def __call__(self, root: Tensor, target: Tensor) -> Tensor:
        """The root (B, T, 5) on its targets (B, T, D >= 5), both normalised or neither."""
        moved = root.clone()
        for channels, given, bridges, matrices in self.parts:
            own = bridges @ root[..., channels]
            moved[..., channels] = own + matrices @ torch.where(given[..., None], target[..., channels] - own, 0.0)
        return moved


def root_pull(mask: Tensor, lengths: Sequence[int]) -> RootPull | None:
    """What pulls a root whose given channels are (B, T, D) `mask`; None where no root is given.

    x and z of the path are one part and so are both numbers of the heading: they are given together or not at all.
    """
    parts = []
    for channels, weights, reach in ((slice(0, 3, 2), PATH, 4), (slice(1, 2), POSE, 2), (slice(3, 5), POSE, 2)):
        given = mask[..., channels].all(-1)
        if given.any():
            flags = given.cpu()
            still = flags.clone()
            # Clips begin above the origin: what is missed later stretches the way and does not shift its beginning.
            still[:, 0] |= (channels == slice(0, 3, 2)) & ~flags[:, :SOON].any(1)
            matrices = bridging(flags, lengths, reach), spreading(still, lengths, weights)
            parts.append(Part(channels, given, *(one.to(mask.device) for one in matrices)))
    return RootPull(tuple(parts)) if parts else None


def bridging(pinned: Tensor, lengths: Sequence[int], reach: int) -> Tensor:
    """The matrices (B, T, T) that replace a curve at pinned frames, and up to `reach` beside them, by what leads up to them.

    Args:
        pinned: (B, T) bool.
        lengths: of the clips.
        reach: frames beside a pinned one that cannot be trusted either; what is read through a filter spreads.

    Returns:
        on the CPU, float32; the identity for clips with fewer than two frames to trust, such as those on a given path.
    """
    batch, frames = pinned.shape
    matrices = torch.eye(frames).repeat(batch, 1, 1)
    near = torch.nn.functional.max_pool1d(pinned[:, None].float(), 2 * reach + 1, 1, reach)[:, 0] > 0
    for clip, length in enumerate(lengths):
        flags = tuple((~near[clip, : int(length)]).tolist())
        if not all(flags) and sum(flags) >= 2:
            matrices[clip, :length, :length] = _matrix(flags, STRAIGHT)
    return matrices
