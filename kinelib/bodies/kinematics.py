"""Forward kinematics: from the turn of every joint to where every joint is, and back.

A joint's local rotation turns its children about it; its global rotation is the product along the chain from the root.
In the rest pose every rotation is the identity, in the convention of Kimodo's skeletons (Section 3.1 of the paper).

Shapes: local and global rotations (..., J, 3, 3), root (..., 3) in metres, positions (..., J, 3) in metres.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinelib.bodies.skeleton import Skeleton


def forward(local: Tensor, root: Tensor, skeleton: Skeleton) -> tuple[Tensor, Tensor]:
    """Places every joint of a body.

    Args:
        local: (..., J, 3, 3) rotations of the joints against their parents.
        root: (..., 3) position of the first joint, metres.
        skeleton: whose bones these are.

    Returns:
        positions (..., J, 3) in metres and global rotations (..., J, 3, 3).
    """
    offsets = skeleton.offsets.to(local)
    turned = global_from_local(local, skeleton.parents)
    positions = [root]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        positions.append(positions[parent] + turned[..., parent, :, :] @ offsets[joint])
    return torch.stack(positions, dim=-2), turned


def global_from_local(local: Tensor, parents: tuple[int, ...]) -> Tensor:
    """Global rotations (..., J, 3, 3) of local ones."""
    turned = [local[..., 0, :, :]]
    for joint, parent in enumerate(parents[1:], start=1):
        turned.append(turned[parent] @ local[..., joint, :, :])
    return torch.stack(turned, dim=-3)


def local_from_global(turned: Tensor, parents: tuple[int, ...]) -> Tensor:
    """Local rotations (..., J, 3, 3) of global ones: each against its parent's, the root's as it is."""
    above = turned[..., list(parents[1:]), :, :].transpose(-1, -2) @ turned[..., 1:, :, :]
    return torch.cat([turned[..., :1, :, :], above], dim=-3)


def positions_from_global(turned: Tensor, root: Tensor, skeleton: Skeleton) -> Tensor:
    """Positions (..., J, 3) of bodies whose *global* rotations are known, which is what Kimodo's features hold."""
    offsets = skeleton.offsets.to(turned)
    parents = list(skeleton.parents[1:])
    bones = (turned[..., parents, :, :] @ offsets[1:, :, None])[..., 0]
    positions = [root]
    for joint, parent in enumerate(parents):
        positions.append(positions[parent] + bones[..., joint, :])
    return torch.stack(positions, dim=-2)
