"""Bodies in poses that tests know by name: turns of single joints of a standing body."""

from __future__ import annotations

import math

import torch

from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import from_axis_angle
from kinelib.bodies.skeletons import FPS, SMPLX22

HANGING = {"left_shoulder": (0, 0, -80), "right_shoulder": (0, 0, 80)}  # from the T-pose, arms down


def standing(frames: int = 40, **turned: tuple[float, float, float]) -> Motion:
    """A body whose named joints are turned by (x, y, z) degrees (an axis and its angle), the arms hanging otherwise."""
    rotations = torch.eye(3).repeat(frames, len(SMPLX22), 1, 1)
    for joint, degrees in (HANGING | turned).items():
        rotations[:, SMPLX22.index(joint)] = from_axis_angle(torch.tensor(degrees, dtype=torch.float32).deg2rad())
    return Motion(rotations, torch.tensor([0.0, 0.94, 0.0]).repeat(frames, 1), FPS, SMPLX22)


def between(start: Motion, end: Motion, frames: int = 40) -> Motion:
    """Smoothly from one pose to another and staying there for the second half."""
    share = (1 - torch.cos(torch.linspace(0, 2 * math.pi, frames).clamp(max=math.pi))) / 2
    at = (share * (frames - 1)).round().long()
    both = torch.stack([start.rotations[0], end.rotations[0]])
    from kinelib.bodies.rotations import slerp

    turns = slerp(
        both[:1].expand(frames, -1, -1, -1),
        both[1:].expand(frames, -1, -1, -1),
        (at / (frames - 1))[:, None].expand(-1, len(SMPLX22)),
    )
    root = start.root[0] + share[:, None] * (end.root[0] - start.root[0])
    return Motion(turns, root, FPS, SMPLX22)
