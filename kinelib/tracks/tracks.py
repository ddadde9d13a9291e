"""`Tracks` (where points go) and `Poke` (where a user wants one to go).

Shapes: xy (B, N, T, 2) in [-1, 1] across the frame, visible (B, N, T) bool, query_points (B, N, 2) = frame 0.
Pokes travel as a tensor (B, P, 5) = (x, y, goal x, goal y, goal time) plus a mask (B, P), True = a real poke.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange, repeat
from torch import Tensor

from kinelib.notation import ShapeError, check_finite, check_shape, from_pixels, to_pixels


@dataclass(frozen=True)
class Tracks:
    """Positions of N points over T frames for a batch of B clips.

    Args:
        xy: (B, N, T, 2) float, xy in [-1, 1] across the frame; points may leave the frame.
        visible: (B, N, T) bool; None means all visible.
        fps: frames a second, where it is known.
        size: (width, height) of the video in pixels, where there is one.
        provenance: free facts that travel with the tracks (source, tracker, licence).

    Raises:
        ShapeError: on a wrong rank or type, no points, no frames, or values that are not finite.
    """

    xy: Tensor
    visible: Tensor | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    provenance: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = check_shape("tracks", self.xy, "B N T 2")
        if not self.xy.is_floating_point():
            raise ShapeError(
                f"tracks must be floating point in [-1, 1]; got {self.xy.dtype}. Pixels? Use Tracks.from_pixels."
            )
        if not sizes["N"] or not sizes["T"]:
            raise ShapeError(f"tracks need at least one point and one frame; got N={sizes['N']}, T={sizes['T']}.")
        check_finite("tracks", self.xy)
        if self.visible is None:
            object.__setattr__(self, "visible", torch.ones(self.xy.shape[:3], dtype=torch.bool, device=self.xy.device))
        check_shape("visible", self.visible, "B N T", **{axis: sizes[axis] for axis in "BNT"})
        if self.visible.dtype != torch.bool:
            raise ShapeError(f"visible must be bool (B, N, T); got {self.visible.dtype}. Use visible > 0.5.")

    @classmethod
    def from_pixels(cls, pixels: Tensor, visible: Tensor | None = None, *, size: tuple[int, int], **facts) -> Tracks:
        """Builds tracks from (B, N, T, 2) pixels measured from the frame's corner; `size` is (width, height)."""
        return cls(from_pixels(pixels.float(), *size), visible, size=tuple(size), **facts)

    def pixels(self, width: int | None = None, height: int | None = None) -> Tensor:
        """The (B, N, T, 2) positions in pixels of a width x height canvas (default: the video's own size)."""
        if width is None or height is None:
            if self.size is None:
                raise ShapeError("these tracks do not know their video's size; give width and height.")
            width, height = self.size
        return to_pixels(self.xy, width, height)

    @property
    def query_points(self) -> Tensor:
        """Where the points start: (B, N, 2)."""
        return self.xy[:, :, 0]

    @property
    def num_points(self) -> int:
        """N."""
        return self.xy.shape[1]

    @property
    def num_frames(self) -> int:
        """T."""
        return self.xy.shape[2]

    def __len__(self) -> int:
        return self.xy.shape[0]

    def __getitem__(self, index) -> Tracks:
        """Clips by integer, slice or index tensor; the batch axis stays."""
        index = slice(index, index + 1 or None) if isinstance(index, int) else index
        return replace(self, xy=self.xy[index], visible=self.visible[index])

    def points(self, index) -> Tracks:
        """Keeps some points: an index list, slice or bool mask (N,) shared by the batch."""
        return replace(self, xy=self.xy[:, index], visible=self.visible[:, index])

    def window(self, start: int, length: int) -> Tracks:
        """Keeps the `length` frames from `start`; raises ShapeError when the clip is too short."""
        if start < 0 or length < 1 or start + length > self.num_frames:
            raise ShapeError(f"window {start}..{start + length} does not fit a clip of {self.num_frames} frames.")
        stop = start + length
        return replace(self, xy=self.xy[:, :, start:stop], visible=self.visible[:, :, start:stop])

    def displacement(self) -> Tensor:
        """(B, N, T, 2) displacement from the first frame."""
        return self.xy - self.xy[:, :, :1]

    def moving(self, pixels: float = 4.0, canvas: int = 256) -> Tensor:
        """(B, N) bool: points that are at some time more than `pixels` from their start on a `canvas`-pixel frame."""
        return self.displacement().norm(dim=-1).amax(dim=-1) * canvas / 2 > pixels

    def filled(self) -> Tracks:
        """The same tracks with invisible steps interpolated in time (:func:`fill_invisible`); `visible` stays as it is."""
        return replace(self, xy=fill_invisible(self.xy, self.visible))

    def to(self, device) -> Tracks:
        """The same tracks on another device."""
        return replace(self, xy=self.xy.to(device), visible=self.visible.to(device))


def fill_invisible(xy: Tensor, visible: Tensor) -> Tensor:
    """Replaces invisible steps by linear interpolation between the visible ones before and after, held at the ends.

    Works on raw arrays too, before they become Tracks: what invisible steps hold, NaN included, is never read.

    Args:
        xy: (B, N, T, 2).
        visible: (B, N, T) bool.

    Returns:
        (B, N, T, 2); a point that is never visible keeps its values.
    """
    check_shape("visible", visible, "B N T", **check_shape("tracks", xy, "B N T 2"))
    last = xy.shape[2] - 1
    time = torch.arange(last + 1, device=xy.device).expand(visible.shape)
    # The nearest visible step at or before, and at or after, every step; -1 and T where there is none.
    before = time.masked_fill(~visible, -1).cummax(dim=2).values
    after = time.masked_fill(~visible, last + 1).flip(2).cummin(dim=2).values.flip(2)
    held = torch.where(before < 0, after, before).clamp(max=last)
    reached = torch.where(after > last, before, after).clamp(min=0)
    share = ((time - held) / (reached - held).clamp(min=1)).to(xy.dtype)
    at = lambda steps: xy.gather(2, repeat(steps, "b n t -> b n t c", c=2))
    filled = at(held) + rearrange(share, "b n t -> b n t 1") * (at(reached) - at(held))
    keep = visible | ~visible.any(dim=2, keepdim=True)
    return torch.where(rearrange(keep, "b n t -> b n t 1"), xy, filled)


@dataclass(frozen=True)
class Poke:
    """The wish that the point at `start_xy` be at `goal_xy` at `goal_time` (0 = first frame, 1 = last).

    A poke whose goal equals its start asks the point to hold still. The start lies inside the frame, the goal may not.

    Raises:
        ShapeError: when a coordinate is not finite, the start is outside [-1, 1], or the time is outside (0, 1].
    """

    start_xy: tuple[float, float]
    goal_xy: tuple[float, float]
    goal_time: float = 1.0

    def __post_init__(self) -> None:
        values = torch.tensor([*self.start_xy, *self.goal_xy, self.goal_time], dtype=torch.float32)
        if values.numel() != 5:
            raise ShapeError(f"a poke is two points and a time; got {self.start_xy}, {self.goal_xy}, {self.goal_time}.")
        check_finite("poke", values)
        if values[:2].abs().max() > 1:
            raise ShapeError(f"poke starts at {self.start_xy}, outside the frame: x and y must be in [-1, 1].")
        if not 0 < self.goal_time <= 1:
            raise ShapeError(f"poke has goal time {self.goal_time}; it must be in (0, 1], 1 being the last frame.")


def pack_pokes(pokes: Sequence[Poke] | Sequence[Sequence[Poke]], slots: int | None = None) -> tuple[Tensor, Tensor]:
    """Packs pokes into a tensor (B, P, 5) and a mask (B, P).

    Args:
        pokes: the pokes of one clip, or one list of pokes a clip; empty lists are fine.
        slots: P; default: the longest list, at least 1.

    Raises:
        ShapeError: when a clip has more pokes than slots.
    """
    clips = [list(pokes)] if not pokes or isinstance(pokes[0], Poke) else [list(clip) for clip in pokes]
    longest = max(len(clip) for clip in clips)
    slots = max(longest, 1) if slots is None else slots
    if longest > slots:
        raise ShapeError(f"{longest} pokes were given and this model takes at most {slots}; drop {longest - slots} of them.")
    packed, mask = torch.zeros(len(clips), slots, 5), torch.zeros(len(clips), slots, dtype=torch.bool)
    for row, clip in enumerate(clips):
        for slot, poke in enumerate(clip):
            packed[row, slot] = torch.tensor([*poke.start_xy, *poke.goal_xy, poke.goal_time])
            mask[row, slot] = True
    return packed, mask
