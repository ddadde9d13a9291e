"""Long motion: one sentence after another, each window going on from the end of what is there (Kimodo, Section 3.6).

A denoiser makes clips of a few seconds. A sequence is made of *windows*: the first frames of each are pinned to the last
frames of what exists, placed about the origin as in training, with all their channels; the rest is drawn under the next
sentence. In the shared frames the result crosses over from old to new, rotations along the shortest way. A sentence that
is to last longer than a window holds gets several windows.

      what exists   . . . . . . . . [shared] tail
      next window                   [shared] new frames . . . . . .     the tail is made anew

Departures: the release pins poses only, and open issues there report that the motion right after them goes elsewhere; here
velocities are pinned too. That is why there is a *tail*: the velocity of the last shared frame is known from the frame
after it. A given clip can be continued. Constraints count frames and metres of the whole sequence.

Shapes: F frames of the sequence, S seams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kinelib.bodies.features import BLOCKS, encode, heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import slerp
from kinelib.kimodo.constraint_makers import continue_from, translated, within
from kinelib.kimodo.constraints import Constraint
from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.kimodo.metrics import SeamJerk, seam_jerk

CONTEXT = 40  # frames before a seam from which the smoothed root of the shared frames is worked out


class Sampler(Protocol):
    """Anything that makes one clip: a trained model (:func:`sampler`), or a rule in a test."""

    def __call__(self, prompt: str, frames: int, constraints: Sequence[Constraint], *, heading: float, seed: int) -> Motion:
        """A clip of that many frames that starts near the origin, facing `heading` radians."""


@dataclass(frozen=True)
class Overlap:
    """How windows are joined."""

    frames: int = 5  # shared by two windows
    tail: int = 2  # at the end of a window that the next one makes anew
    blocks: tuple[str, ...] = BLOCKS  # channels pinned in shared frames; the release's: root, heading, positions
    blend: bool = True  # cross over in the shared frames; False: jump where the new frames begin

    def __post_init__(self) -> None:
        if self.frames < 1 or self.tail < 0:
            raise ValueError(f"windows share at least 1 frame, with a tail of 0 or more; got {self.frames}, {self.tail}.")


@dataclass(frozen=True, eq=False)
class Segment:
    """What one sentence made."""

    prompt: str
    start: int  # first frame
    stop: int  # first frame after it


@dataclass(frozen=True, eq=False)
class LongMotion:
    """A motion made of several windows."""

    motion: Motion  # F frames
    segments: tuple[Segment, ...]
    seams: tuple[int, ...]  # the frame in the middle of every stretch that two windows share
    overlap: Overlap

    def jerk(self) -> SeamJerk:
        """Jerk where windows meet and elsewhere; raises ShapeError when there is one window only."""
        around = math.ceil(self.overlap.frames / 2)
        return seam_jerk(self.motion.positions(), self.seams, self.motion.fps, around=around)


def sampler(model: TwoStageDenoiser, **options) -> Sampler:
    """A trained model as a sampler of windows.

    Args:
        model: trained, with its statistics.
        options: of `kinelib.kimodo.generate.generate`, for example steps=20 or encoder=...
    """
    from kinelib.kimodo.generate import generate

    def draw(prompt: str, frames: int, constraints: Sequence[Constraint], *, heading: float, seed: int) -> Motion:
        given = [list(constraints) or None]
        return generate(model, [prompt], frames=frames, constraints=given, heading=heading, seed=seed, **options)[0]

    return draw


def sequence(
    draw: Sampler,
    prompts: Sequence[str],
    frames: int | Sequence[int],
    *,
    longest: int,
    constraints: Sequence[Constraint] = (),
    start: Motion | None = None,
    overlap: Overlap | None = None,
    heading: float = 0.0,
    seed: int = 0,
    watch: Callable[[int, int], None] | None = None,
) -> LongMotion:
    """Makes a motion of any length.

    Args:
        draw: makes one window.
        prompts: one or more sentences.
        frames: of each sentence's part, or one number for all. Shared frames come on top: a part is as long as it says.
        longest: frames of a window, which is what the model was trained on.
        constraints: in frames and metres of the whole sequence, `start` included.
        start: a clip to go on from; it opens the result. None: from nothing.
        overlap: how windows are joined.
        heading: radians, at first; a `start` has its own.
        seed: window w uses seed + w.
        watch: told how many of how many frames are made.

    Raises:
        ValueError: for no prompts, numbers that do not match, or windows too short for what they share.
    """
    overlap = overlap or Overlap()
    each = [frames] * len(prompts) if isinstance(frames, int) else list(frames)
    if isinstance(prompts, str) or not len(prompts) or len(each) != len(prompts) or min(each) < 1:
        raise ValueError(
            f"a sequence needs a list of prompts and one number of frames for all or for each; got {prompts!r}, {frames}."
        )
    room = longest - overlap.frames - overlap.tail
    if room < 1:
        raise ValueError(
            f"windows of {longest} frames cannot share {overlap.frames} frames with a tail of {overlap.tail}; share fewer."
        )
    if start is not None and len(start) < overlap.frames + overlap.tail:
        raise ValueError(
            f"the clip to go on from has {len(start)} frames; windows share {overlap.frames} with a tail of {overlap.tail}."
        )
    made, seams, segments, window = start, [], [], 0
    total = sum(each) + (0 if start is None else len(start))
    for prompt, count in zip(prompts, each, strict=True):
        first = 0 if made is None else len(made)
        for part in _parts(count, longest if made is None else room, room):
            if made is None:
                given = [one for one in (within(one, 0, part) for one in constraints) if one is not None]
                made = draw(prompt, part, given, heading=heading, seed=seed + window)
            else:
                seams.append(len(made) - overlap.tail - overlap.frames // 2)
                made = _go_on(draw, made, prompt, part, constraints, overlap, seed + window)
            window += 1
            if watch is not None:
                watch(len(made), total)
        segments.append(Segment(prompt, first, len(made)))
    facts = {"prompts": list(prompts), "frames": each, "seed": seed, "windows": window}
    return LongMotion(made.with_facts(**facts), tuple(segments), tuple(seams), overlap)


def _parts(count: int, first: int, room: int) -> list[int]:
    """Lengths of windows that together make `count` frames, as equal as may be."""
    if count <= first:
        return [count]
    windows = 1 + math.ceil((count - first) / room)
    size, more = divmod(count, windows)
    return [size + (number < more) for number in range(windows)]


def _go_on(
    draw: Sampler,
    made: Motion,
    prompt: str,
    count: int,
    constraints: Sequence[Constraint],
    overlap: Overlap,
    seed: int,
) -> Motion:
    """What exists, and `count` frames more."""
    begin = len(made) - overlap.frames - overlap.tail
    length = overlap.frames + overlap.tail + count
    context = made.slice(max(begin - CONTEXT, 0), len(made))
    features = encode(context)
    x, z = features[len(context) - overlap.frames - overlap.tail, [0, 2]].tolist()
    shared = continue_from(context.translated((-x, -z)), overlap.frames, overlap.tail, overlap.blocks)
    # What was given to the window before counts first: it cannot be changed any more.
    given: list[Constraint] = [shared]
    for one in constraints:
        cut = within(one, begin, begin + length)
        given += [] if cut is None else [translated(cut, (-x, -z))]
    facing = float(heading(made.slice(begin, begin + 1).positions(), made.skeleton)[0])
    new = draw(prompt, length, given, heading=facing, seed=seed).translated((x, z))
    if len(new) != length:
        raise ValueError(f"the sampler was asked for {length} frames and made {len(new)}.")
    return _joined(made, new, begin, overlap)


def _joined(made: Motion, new: Motion, begin: int, overlap: Overlap) -> Motion:
    """The old frames, the shared ones crossing over, the new ones."""
    old, shared = made.slice(begin, begin + overlap.frames), new.slice(0, overlap.frames)
    rise = torch.arange(1, overlap.frames + 1, dtype=made.root.dtype) / (overlap.frames + 1)
    # Flat at both ends, so that velocity does not jump where the crossing begins and ends.
    share = rise**2 * (3 - 2 * rise) if overlap.blend else torch.zeros_like(rise)
    rotations = slerp(old.rotations, shared.rotations, share[:, None].expand(-1, len(made.skeleton)))
    mix = lambda a, b: a + share[:, None] * (b - a)
    root, contacts = mix(old.root, shared.root), None
    before, after = made.slice(0, begin) if begin else None, new.slice(overlap.frames, len(new))
    pieces: Callable[[Callable[[Motion], Tensor], Tensor], Tensor] = lambda of, middle: torch.cat(
        [*([] if before is None else [of(before)]), middle, of(after)]
    )
    if made.contacts is not None and new.contacts is not None:
        contacts = pieces(lambda one: one.contacts, mix(old.contacts, shared.contacts))
    return replace(
        new,
        rotations=pieces(lambda one: one.rotations, rotations),
        root=pieces(lambda one: one.root, root),
        contacts=contacts,
    )
