"""From what a body should do to the turns of its joints: two-bone legs on planned feet, arms from four angles a shoulder.

`Controls` is the score of one clip: where pelvis and feet are, how far the spine bends, how the arms are held. `solve`
plays a batch of them on SMPLX22. The pelvis gives way where a foot would be out of reach, smoothly and never upwards, so
planted feet are met exactly. Knees bend forwards and elbows as elbows do, because their hinges are given, not guessed.

Shapes: B clips, T frames; sides (left, right); metres, radians. Rotations are columns, y up, +z forward, left is +x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kinelib.bodies.skeletons import SMPLX22

Array = np.ndarray
SIDES = ("left", "right")
STRAIGHT = 0.988  # share of the whole leg that a leg may span, so that no knee locks
REACH = 5  # frames over which the pelvis gives way before and after a far foot


@dataclass
class Controls:
    """The score of one clip.

    Args:
        pelvis: (T, 3) metres, where the pelvis would be if the feet let it.
        turn: (T, 3) radians: yaw, pitch (forwards) and roll (left side up) of the pelvis.
        spine: (T, 3) radians: twist to the left, bend forwards, bend to the right, spread over three joints.
        head: (T, 3) radians, likewise, spread over neck and head.
        arms: (T, 2, 4) radians: flexion (forwards and up), abduction (sideways and up), outward twist, elbow.
        ankles: (T, 2, 3) metres.
        yaw: (T, 2) radians, heading of the feet.
        pitch: (T, 2) radians, positive with the toes down.
        planted: (T, 2) bool: the foot stands.
    """

    pelvis: Array
    turn: Array
    spine: Array
    head: Array
    arms: Array
    ankles: Array
    yaw: Array
    pitch: Array
    planted: Array


def stack(controls: Sequence[Controls]) -> dict[str, Tensor]:
    """Scores of different lengths as (B, T, ...) float32 tensors; shorter ones hold their last frame."""
    longest = max(len(score.pelvis) for score in controls)
    batch = {}
    for column in fields(Controls):
        first = getattr(controls[0], column.name)
        values = np.empty((len(controls), longest, *first.shape[1:]), np.float32)
        for row, score in zip(values, controls, strict=True):
            array = getattr(score, column.name)
            row[: len(array)], row[len(array) :] = array, array[-1]
        batch[column.name] = torch.from_numpy(values)
    return batch


def solve(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Local rotations (B, T, J, 3, 3) on SMPLX22 and pelvis positions (B, T, 3) of stacked scores."""
    joint = SMPLX22.index
    turned = {"pelvis": euler(*batch["turn"].unbind(-1))}
    local: dict[int, Tensor] = {0: turned["pelvis"]}
    twist, bend, lean = (batch["spine"] / 3).unbind(-1)
    for name in ("spine1", "spine2", "spine3"):
        local[joint(name)] = euler(twist, bend, lean)
    twist, bend, lean = (batch["head"] / 2).unbind(-1)
    for name in ("neck", "head"):
        local[joint(name)] = euler(twist, bend, lean)
    for side, name in enumerate(SIDES):
        for part, rotation in _arm(batch["arms"][:, :, side], 1.0 if side == 0 else -1.0).items():
            local[joint(f"{name}_{part}")] = rotation
    root = _lowered(batch, turned["pelvis"])
    for side, name in enumerate(SIDES):
        for part, rotation in _leg(batch, turned["pelvis"], root, side).items():
            local[joint(f"{name}_{part}")] = rotation
    one = torch.eye(3).expand_as(turned["pelvis"])
    return torch.stack([local.get(number, one) for number in range(len(SMPLX22))], dim=2), root


def euler(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Rotations (..., 3, 3): first roll about z, then pitch about x, then yaw about y."""
    cy, sy, cx, sx, cz, sz = (f(a) for a in (yaw, pitch, roll) for f in (torch.cos, torch.sin))
    rows = [
        torch.stack([cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx], -1),
        torch.stack([cx * sz, cx * cz, -sx], -1),
        torch.stack([cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx], -1),
    ]
    return torch.stack(rows, -2)


def _arm(angles: Tensor, sense: float) -> dict[str, Tensor]:
    flex, abduct, twist, elbow = angles.unbind(-1)
    zero = torch.zeros_like(flex)
    # The shoulder girdle rises with an arm that goes above the horizontal.
    rise = 0.2 * (torch.maximum(flex, abduct) - np.pi / 3).clamp_min(0)
    hang = euler(zero, zero, zero - sense * np.pi / 2)  # from the T-pose to an arm along the side
    swing = euler(zero, -flex, sense * abduct) @ euler(sense * twist, zero, zero)
    return {
        "collar": euler(zero, zero, sense * rise),
        "shoulder": swing @ hang,
        "elbow": euler(-sense * elbow, zero, zero),
    }


def _bones(side: int) -> tuple[Tensor, Tensor, Tensor]:
    names = [f"{SIDES[side]}_{part}" for part in ("hip", "knee", "ankle")]
    return tuple(SMPLX22.offsets[SMPLX22.index(name)] for name in names)


def _lowered(batch: dict[str, Tensor], pelvis: Tensor) -> Tensor:
    """The pelvis (B, T, 3), lowered where a leg would not reach its foot."""
    root, excess = batch["pelvis"], []
    for side in (0, 1):
        hip, thigh, shin = _bones(side)
        place = root + pelvis @ hip
        ankle = batch["ankles"][:, :, side]
        span = STRAIGHT * (thigh.norm() + shin.norm())
        apart = (place - ankle)[..., [0, 2]].square().sum(-1)
        highest = ankle[..., 1] + (span**2 - apart).clamp_min(1e-4).sqrt()
        excess.append((place[..., 1] - highest).clamp_min(0))
    excess = torch.maximum(*excess)[:, None]
    # Both ends are held, far enough for both windows, so that a clip does not depend on the padding behind it.
    around = functional.pad(excess, (REACH - 1, REACH - 1), mode="replicate")
    worst = functional.max_pool1d(around, REACH, stride=1)
    # Averaging over as many frames as the maximum was taken over never falls below the excess itself.
    kernel = torch.tensor([[[1.0, 4.0, 6.0, 4.0, 1.0]]]) / 16
    drop = functional.conv1d(worst, kernel)[:, 0]
    return root - functional.pad(drop[..., None], (1, 1))


def _frames(along: Tensor, hinge: Tensor) -> Tensor:
    """Rotations (..., 3, 3) with columns: the hinge made perpendicular to the bone, the bone upwards, their product."""
    up = -functional.normalize(along, dim=-1)
    x = functional.normalize(hinge - (hinge * up).sum(-1, keepdim=True) * up, dim=-1)
    return torch.stack([x, up, torch.linalg.cross(x, up)], dim=-1)


def _leg(batch: dict[str, Tensor], pelvis: Tensor, root: Tensor, side: int) -> dict[str, Tensor]:
    hip_offset, thigh, shin = _bones(side)
    yaw, pitch = batch["yaw"][:, :, side], batch["pitch"][:, :, side]
    hip, ankle = root + pelvis @ hip_offset, batch["ankles"][:, :, side]
    reach = ankle - hip
    a, b = thigh.norm(), shin.norm()
    span = reach.norm(dim=-1, keepdim=True).clamp(abs(a - b) + 1e-3, a + b - 1e-4)
    along = functional.normalize(reach, dim=-1)
    # The hinge of the knee is the body's left-right axis, turned half way towards the foot's heading.
    foot_yaw = torch.stack([yaw.cos(), torch.zeros_like(yaw), -yaw.sin()], -1)
    hinge = functional.normalize(foot_yaw + pelvis[..., 0], dim=-1)
    hinge = functional.normalize(hinge - (hinge * along).sum(-1, keepdim=True) * along, dim=-1)
    ahead = torch.linalg.cross(along, hinge)
    lengthwise = (a**2 - b**2 + span**2) / (2 * span)
    knee = hip + along * lengthwise + ahead * (a**2 - lengthwise**2).clamp_min(0).sqrt()
    rest = torch.eye(3)[0]
    upper = _frames(knee - hip, hinge) @ _frames(thigh, rest).T
    lower = _frames(ankle - knee, hinge) @ _frames(shin, rest).T
    zero = torch.zeros_like(pitch)
    foot = euler(yaw, pitch, zero)
    # Toes stay flat on the floor while the heel rises.
    toes = euler(zero, torch.where(batch["planted"][:, :, side] > 0.5, -pitch.clamp_min(0), zero), zero)
    back = lambda first, second: first.transpose(-1, -2) @ second
    return {"hip": back(pelvis, upper), "knee": back(upper, lower), "ankle": back(lower, foot), "foot": toes}
