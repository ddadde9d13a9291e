"""The least turns of bones that bring joints where they should be: damped least squares over global rotations.

Kimodo's features hold *global* rotations, under which turning one joint moves the joints after it and turns none of them. A
joint's place is its root plus one bone a joint on the way, so that a small turn w of joint i moves it by w x bone. The
turns of least sum of squares that move all wanted joints by what they miss solve one small linear system a frame; a few
rounds make up for turns not being small. Any joints may be wanted: hands, feet, a knee, or all of them.

Shapes: K frames, J joints, E wanted joints; rotations (K, J, 3, 3) global.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from kinelib.bodies.kinematics import positions_from_global
from kinelib.bodies.rotations import from_axis_angle, skew
from kinelib.bodies.skeleton import Skeleton

LARGEST_TURN = 0.6  # radians of a joint in one round; beyond that a turn is not small


def least_turns(
    turned: Tensor,
    root: Tensor,
    places: Tensor,
    wanted: Tensor,
    held: Tensor,
    skeleton: Skeleton,
    *,
    rounds: int = 3,
    damping: float = 1e-3,
) -> Tensor:
    """Turns bones so that joints come to their places.

    Args:
        turned: (K, J, 3, 3) global rotations.
        root: (K, 3) where the pelvis is, metres.
        places: (K, J, 3) where joints should be; read where `wanted`.
        wanted: (K, J) bool.
        held: (K, J) bool, joints whose rotation must stay.
        skeleton: J joints.
        rounds: of linear systems.
        damping: square metres a radian squared; keeps a limb that is too short from spinning.

    Returns:
        (K, J, 3, 3) global rotations. What cannot be reached is approached.
    """
    joints = torch.nonzero(wanted.any(0)).flatten()
    if not len(joints) or not len(turned):
        return turned
    child = _ways(skeleton.parents).to(turned.device)[joints]  # (E, J)
    moves = (child >= 0) & wanted[:, joints, None] & ~held[:, None, :]
    offsets = skeleton.offsets.to(turned)
    system = damping * torch.eye(3 * len(joints), dtype=turned.dtype, device=turned.device)
    for _ in range(rounds):
        missed = (places - positions_from_global(turned, root, skeleton))[:, joints]
        missed = torch.where(wanted[:, joints, None], missed, 0.0)
        # The bone that leaves joint i on the way to wanted joint e.
        bones = (turned[:, None] @ offsets[child.clamp_min(0)][None, ..., None])[..., 0]
        change = rearrange(-skew(bones) * moves[..., None, None], "k e j a b -> k (e a) (j b)")
        weights = torch.linalg.solve(change @ change.mT + system, rearrange(missed, "k e a -> k (e a) 1"))
        turns = rearrange(change.mT @ weights, "k (j b) 1 -> k j b", b=3)
        turns = turns * (LARGEST_TURN / turns.norm(dim=-1, keepdim=True).clamp_min(LARGEST_TURN))
        turned = from_axis_angle(turns) @ turned
    return turned


@lru_cache(maxsize=8)
def _ways(parents: tuple[int, ...]) -> Tensor:
    """(J, J): the child of joint i on the way from the root to joint e, or -1 where the way does not pass i."""
    ways = torch.full((len(parents), len(parents)), -1)
    for end in range(len(parents)):
        joint = end
        while parents[joint] >= 0:
            ways[end, parents[joint]] = joint
            joint = parents[joint]
    return ways
