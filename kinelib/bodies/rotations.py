"""Rotations as matrices, and the other forms they travel in: six numbers, axis times angle, turns about the vertical.

Matrices act on columns, x' = R x, right-handed, y up. The six-number form is the first two *columns* (Zhou et al., 2019,
"On the continuity of rotation representations"; Kimodo's feature block 4), the form networks predict, since it has no
jumps. Euler angles appear in BVH files only and are read there with SciPy.

Shapes: every function takes any leading axes.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

TINY = 1e-8  # below this length a direction is not a direction


def rotation_6d(matrices: Tensor) -> Tensor:
    """The first two columns of (..., 3, 3) rotations, one after the other: (..., 6)."""
    return rearrange(matrices[..., :2], "... row column -> ... (column row)")


def from_6d(six: Tensor) -> Tensor:
    """Rotations (..., 3, 3) whose first two columns are as near as possible to any (..., 6) numbers.

    Gram-Schmidt in Kimodo's order: x is normalised, z is perpendicular to x and the second column, y completes the frame.
    Where the two columns are parallel or zero, which leaves the rotation open, some rotation comes back and never a NaN.
    """
    x, y = rearrange(six, "... (column row) -> column ... row", column=2)
    axes = torch.eye(3, dtype=six.dtype, device=six.device)
    x = torch.where(x.norm(dim=-1, keepdim=True) > TINY, x, axes[0].expand_as(x))
    x = x / x.norm(dim=-1, keepdim=True)
    z = torch.linalg.cross(x, y)
    # Any direction off x's line will do where y does not say one: the axis that x leans on least.
    spare = torch.linalg.cross(x, axes[x.abs().argmin(-1)])
    parallel = z.norm(dim=-1, keepdim=True) <= 1e-6 * y.norm(dim=-1, keepdim=True) + TINY
    z = torch.where(parallel, spare, z)
    z = z / z.norm(dim=-1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


def skew(vectors: Tensor) -> Tensor:
    """The (..., 3, 3) matrices that take a cross product with (..., 3) vectors."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return rearrange(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1), "... (r c) -> ... r c", r=3)


def from_axis_angle(vectors: Tensor) -> Tensor:
    """Rotations (..., 3, 3) about (..., 3) axes whose length is the angle in radians (Rodrigues), smooth at zero."""
    angle = vectors.square().sum(-1, keepdim=True).clamp_min(TINY**2).sqrt()[..., None]
    k = skew(vectors)
    small = angle < 1e-3
    safe = torch.where(small, torch.ones_like(angle), angle)
    one = torch.where(small, 1 - angle**2 / 6, safe.sin() / safe)
    two = torch.where(small, 0.5 - angle**2 / 24, (1 - safe.cos()) / safe**2)
    return torch.eye(3, dtype=k.dtype, device=k.device) + one * k + two * (k @ k)


def axis_angle(matrices: Tensor) -> Tensor:
    """The axes times angles (..., 3), of length 0..pi, of (..., 3, 3) rotations."""
    q = quaternion(matrices)
    q = torch.where(q[..., :1] < 0, -q, q)
    length = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(length, q[..., :1])
    return q[..., 1:] * torch.where(length > TINY, angle / length.clamp_min(TINY), 2.0)


def quaternion(matrices: Tensor) -> Tensor:
    """Unit quaternions (..., 4), w first, of (..., 3, 3) rotations; the sign is the one of the largest component.

    All four classical formulas are worked out and the best conditioned one is kept (Shepperd, 1978).
    """
    r = rearrange(matrices, "... a b -> (a b) ...")
    xx, xy, xz, yx, yy, yz, zx, zy, zz = r
    rows = [
        torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], -1),
        torch.stack([zy - yz, 1 + xx - yy - zz, yx + xy, zx + xz], -1),
        torch.stack([xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz], -1),
        torch.stack([yx - xy, zx + xz, zy + yz, 1 - xx - yy + zz], -1),
    ]
    candidates = torch.stack(rows, -2)
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    q = torch.take_along_dim(candidates, best[..., None, None], -2)[..., 0, :]
    return q / q.norm(dim=-1, keepdim=True)


def from_quaternion(q: Tensor) -> Tensor:
    """Rotations (..., 3, 3) of (..., 4) quaternions, w first, of any length but zero."""
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return rearrange(torch.stack(rows, -1), "... (r c) -> ... r c", r=3)


def about_y(angle: Tensor) -> Tensor:
    """Rotations (..., 3, 3) by (...) radians about the vertical; positive turns +z towards +x, as headings grow."""
    zero = torch.zeros_like(angle)
    return from_axis_angle(torch.stack([zero, angle, zero], -1))


def geodesic(first: Tensor, second: Tensor) -> Tensor:
    """The angle (...) in radians, 0..pi, of the rotation that leads from one (..., 3, 3) rotation to another."""
    return axis_angle(first.transpose(-1, -2) @ second).norm(dim=-1)


def slerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """The rotation (..., 3, 3) a `share` (...) of the shortest way from `first` to `second`."""
    return first @ from_axis_angle(axis_angle(first.transpose(-1, -2) @ second) * share[..., None])


def between(first: Tensor, second: Tensor) -> Tensor:
    """The least rotation (..., 3, 3) that turns each direction (..., 3) of `first` into that of `second`.

    Opposite directions leave the axis open: a half turn about some perpendicular axis comes back.
    """
    a = first / first.norm(dim=-1, keepdim=True).clamp_min(TINY)
    b = second / second.norm(dim=-1, keepdim=True).clamp_min(TINY)
    cosine = (a * b).sum(-1, keepdim=True)
    axes = torch.eye(3, dtype=a.dtype, device=a.device)
    spare = torch.linalg.cross(a, axes[a.abs().argmin(-1)])
    axis = torch.linalg.cross(a, b)
    sine = axis.norm(dim=-1, keepdim=True)
    degenerate = sine < 1e-6
    axis = torch.where(degenerate, spare / spare.norm(dim=-1, keepdim=True).clamp_min(TINY), axis / sine.clamp_min(TINY))
    return from_axis_angle(axis * torch.atan2(torch.where(degenerate, torch.zeros_like(sine), sine), cosine))
