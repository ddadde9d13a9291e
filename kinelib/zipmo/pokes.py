"""Drawing training pokes from tracks.

The released training code keeps nine or more of 16 end-point pokes almost always; here the kept count covers 0 to the
maximum, goal times vary, and a track may be poked several times, as the paper describes.
Shapes: tracks (B, N, T, 2), pokes (B, P, 5), mask (B, P).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinelib.notation import ShapeError, check_shape


def pokes_at(tracks: Tensor, points: Tensor, frames: Tensor) -> Tensor:
    """Pokes (B, P, 5) that ask the tracks (B, N, T, 2) numbered `points` (B, P) to be where they are at `frames` (B, P)."""
    picked = torch.take_along_dim(tracks, points[:, :, None, None], dim=1)
    goal = torch.take_along_dim(picked, frames[:, :, None, None], dim=2)[:, :, 0]
    time = (frames / max(tracks.shape[2] - 1, 1)).unsqueeze(-1).to(tracks.dtype)
    return torch.cat([picked[:, :, 0], goal, time], dim=-1)


def blank_empty_slots(pokes: Tensor, mask: Tensor) -> Tensor:
    """The pokes (B, P, 5), with every slot where `mask` is False set to a harmless one: the centre holds still."""
    harmless = pokes.new_tensor([0.0, 0.0, 0.0, 0.0, 1.0])
    return torch.where(mask[..., None], pokes, harmless)


def draw_pokes(tracks: Tensor, slots: int, generator: torch.Generator, usual: int = 8) -> tuple[Tensor, Tensor]:
    """Draws training pokes from tracks in random order.

    The count is uniform on 0..`usual` for four clips in five and on 0..`slots` for the rest; three goals in ten lie before
    the last frame; one poke in five goes to a track that is poked already, at another time. Starts lie inside the frame.

    Args:
        tracks: (B, N, T, 2), N >= `slots`, in random order.
        slots: P.
        generator: the only randomness.

    Returns:
        pokes (B, P, 5) and mask (B, P).
    """
    sizes = check_shape("tracks", tracks, "B N T 2")
    batch, last = sizes["B"], sizes["T"] - 1
    if sizes["N"] < slots or last < 1:
        raise ShapeError(f"drawing {slots} pokes needs as many tracks of two frames or more; got {tuple(tracks.shape)}.")
    draw = lambda *shape: torch.rand(*shape, generator=generator)
    most = torch.where(draw(batch) < 0.2, slots, min(usual, slots))
    count = (draw(batch) * (most + 1)).long()
    points = torch.arange(slots).expand(batch, -1).clone()
    frames = torch.full((batch, slots), last)
    early = draw(batch, slots) < 0.3
    frames[early] = 1 + ((0.1 + 0.9 * draw(int(early.sum()))) * (last - 1)).long()
    again = (draw(batch, slots) < 0.2) & (points > 0)
    points = torch.where(again, points - 1, points)
    frames = torch.where(again & (frames == frames.roll(1, 1)), (frames // 2).clamp_min(1), frames)
    pokes = pokes_at(tracks, points, frames)
    inside = pokes[..., :2].abs().amax(-1) <= 1
    return pokes, (torch.arange(slots) < count[:, None]) & inside
