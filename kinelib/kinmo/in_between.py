"""Filling a span of time, and nothing else: inpainting within a motion, and the way from one motion to another.

Tokens wholly outside the span are read from each side alone, so that nothing of what is replaced leaks into them, and keep
their codes in every layer; those inside are drawn. MoMask's users complain that the kept part changes: the decoder looks
some tokens around, and further codebooks are drawn again. Here frames outside the span are those that were given, exactly.

What was drawn leads somewhere, and what follows stands elsewhere. Within the span the path is bent to meet it: turned a
little more from frame to frame, and shifted likewise (`meet`); or else what follows is carried to where the path leads. At
both ends the pose is eased into the given one over a few frames.

The paper mentions in-betweening without saying how; all of this is ours.

Shapes: T frames, L times of four frames, a span of frames [start, stop).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kinelib.bodies.humanml3d import FPS
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, slerp
from kinelib.kinmo.coarse_to_fine import KinMo, draw_decodable
from kinelib.kinmo.editing import carried, check_length, decoded, tokens_of, yaw_between
from kinelib.kinmo.sampling import Sampler, generators
from kinelib.kinmo.tokens import STRIDE

CONTEXT = 2.0  # seconds of both motions that a way between them is drawn from
EASE = 4  # frames over which a pose is eased into the given one


def inpaint(
    model: KinMo,
    motion: Motion,
    span: tuple[float, float],
    prompt: str = "",
    *,
    groups: Mapping[str, str] | None = None,
    meet: bool = True,
    seed: int = 0,
    sampler: Sampler | None = None,
    remask: float = 0.5,
) -> Motion:
    """Draws a span of a motion anew; every frame outside of it stays exactly as it is.

    Args:
        model: the trained parts.
        motion: of SMPLX22 at 20 frames a second, up to the generator's length.
        span: (start, stop) seconds, not the whole motion.
        prompt: what happens in the span, or in all of the motion. groups: sentences by group, as of `generate`.
        meet: True: the new path is bent to lead to what follows; False: what follows is moved to where the path leads.
        seed: of the draw. sampler: how tokens are drawn. remask: as of `generate`.

    Raises:
        ValueError: for a span that is empty, outside the motion or all of it, or a motion that is too long.
    """
    start, stop = (round(seconds * FPS) for seconds in span)
    if not 0 <= start < stop <= len(motion) or stop - start == len(motion):
        raise ValueError(
            f"a span is a part of the motion's {motion.seconds:g} s, at least {1 / FPS:g} s and not all of it; got {span}."
        )
    made = _drawn(model, motion, start, stop, prompt, groups, seed, sampler, remask)
    found = _joined(made, motion, start, stop, meet)
    return found.with_facts(inpainted=[start / FPS, stop / FPS], inpainted_with=prompt)


def in_between(
    model: KinMo,
    before: Motion,
    after: Motion,
    seconds: float,
    prompt: str = "",
    *,
    groups: Mapping[str, str] | None = None,
    meet: bool = False,
    seed: int = 0,
    sampler: Sampler | None = None,
    remask: float = 0.5,
) -> Motion:
    """The way from the last pose of one motion to the first of another.

    Args:
        model: the trained parts.
        before, after: the two, of any lengths; the last and the first `CONTEXT` seconds of them are looked at.
        seconds: between the two, above 0.
        prompt, groups, seed, sampler, remask: as of :func:`inpaint`.
        meet: True: `after` stays where it is, and the path is bent to lead there; False: it is moved to where the path
            leads.

    Returns:
        `before`, the new frames, and `after`.
    """
    gap = round(seconds * FPS)
    if gap < 1:
        raise ValueError(f"there must be at least {1 / FPS:g} s between two motions; got {seconds:g}.")
    context = round(CONTEXT * FPS)
    early, late = max(0, len(before) - context), min(len(after), context)
    near = before.slice(early, len(before))
    whole = end_to_end([near, _held(near, gap), after.slice(0, late)])
    span = len(near), len(near) + gap
    made = _drawn(model, whole, *span, prompt, groups, seed, sampler, remask)
    parts = [_joined(made, whole, *span, meet)]
    if early:
        parts = [before.slice(0, early), *parts]
    if late < len(after):
        rest = after if meet else _along(after, late - 1, parts[-1])
        parts.append(rest.slice(late, len(after)))
    facts = {"in_between": [(early + one) / FPS for one in span], "prompt": prompt}
    return end_to_end(parts).with_facts(**facts)


def end_to_end(motions: Sequence[Motion]) -> Motion:
    """Motions of one skeleton and frame rate one after the other, each where it is; contacts where all have them."""
    contacts = None if any(one.contacts is None for one in motions) else torch.cat([one.contacts for one in motions])
    rotations, root = (torch.cat([getattr(one, name) for one in motions]) for name in ("rotations", "root"))
    return replace(motions[0], rotations=rotations, root=root, contacts=contacts)


def _held(motion: Motion, frames: int) -> Motion:
    """The last pose for so many frames."""
    last = motion.slice(len(motion) - 1, len(motion))
    return end_to_end([last] * frames)


def _along(motion: Motion, frame: int, leader: Motion) -> Motion:
    """A motion moved so that its pose at `frame` is where the last one of `leader` is."""
    here, there = motion.positions()[frame], leader.positions()[-1]
    return carried(motion, yaw_between(here, there), here[0], there[0])


def _drawn(
    model: KinMo,
    motion: Motion,
    start: int,
    stop: int,
    prompt: str,
    groups: Mapping[str, str] | None,
    seed: int,
    sampler: Sampler | None,
    remask: float,
) -> Motion:
    """T frames of which the tokens that touch [start, stop) are drawn and the others read."""
    frames, config = len(motion), model.generator.config
    check_length(frames, config.longest, "the motion, what is filled in included,")
    times = -(-frames // STRIDE)
    first, last = start // STRIDE, -(-stop // STRIDE)
    codes = torch.zeros(1, times, config.streams, config.codebooks, dtype=torch.long)
    if first:
        codes[0, :first] = tokens_of(model.tokenizer, [motion.slice(0, STRIDE * first)])[0].codes
    if last * STRIDE < frames:
        codes[0, last:] = tokens_of(model.tokenizer, [motion.slice(STRIDE * last, frames)])[0].codes
    free = torch.zeros(1, times, config.streams, dtype=torch.bool)
    free[:, first : min(last, times)] = True
    words = model.conditions([prompt], [groups] if groups else None)
    sampler, lengths = Sampler() if sampler is None else sampler, torch.tensor([times])
    how = dict(remask=remask, given=codes, free=free)
    found = draw_decodable(model.generator, words, lengths, generators(seed, 1), sampler, **how)
    return decoded(model.tokenizer, found, [frames])[0]


def _joined(made: Motion, motion: Motion, start: int, stop: int, meet: bool) -> Motion:
    """Frames [start, stop) of `made` between those of `motion` outside of them."""
    anchor = start - 1 if start else stop
    ours, theirs = made.positions(), motion.positions()
    made = carried(made, yaw_between(ours[anchor], theirs[anchor]), ours[anchor, 0], theirs[anchor, 0])
    if start and stop < len(motion):
        ours = made.positions()
        turn = yaw_between(ours[stop], theirs[stop])
        if meet:
            made = _bent(made, start - 1, stop, turn, motion.root[stop])
        else:
            after = carried(motion, -turn, motion.root[stop], made.root[stop])
            height = motion.root[:, 1:2]  # who is carried stays on the floor
            after = replace(after, root=torch.cat([after.root[:, :1], height, after.root[:, 2:]], 1))
            motion = end_to_end([motion.slice(0, stop), after.slice(stop, len(after))])
    inside = slice(start, stop)
    rotations, root = motion.rotations.clone(), motion.root.clone()
    rotations[inside], root[inside] = _eased(made, motion, start, stop)
    contacts = motion.contacts
    if contacts is not None and made.contacts is not None:
        contacts = contacts.clone()
        contacts[inside] = made.contacts[inside]
    return replace(motion, rotations=rotations, root=root, contacts=contacts)


def _bent(made: Motion, first: int, last: int, turn: float, goal: Tensor) -> Motion:
    """A path turned by `turn` radians and led to `goal` (3,) at frame `last`, a little more in every frame from `first`."""
    share = ((torch.arange(len(made)) - first) / (last - first)).clamp(0, 1).to(made.root)
    turns = about_y(share * turn)
    steps = made.root.diff(dim=0, prepend=made.root[:1])
    path = made.root[:1] + torch.einsum("tab,tb->ta", turns, steps).cumsum(0)
    path = path + share[:, None] * (goal.to(path) - path[last])
    return replace(made, rotations=torch.cat([turns[:, None] @ made.rotations[:, :1], made.rotations[:, 1:]], 1), root=path)


def _eased(made: Motion, motion: Motion, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Rotations and root of frames [start, stop), near both ends led over from the poses given beside them."""
    rotations, root = made.rotations[start:stop].clone(), made.root[start:stop].clone()
    count = torch.arange(stop - start)
    for beside, away in ((start - 1, count), (stop, count.flip(0))):
        if not 0 <= beside < len(motion):
            continue
        weight = (1 - (away + 1) / (EASE + 1)).clamp_min(0).to(root)
        # The difference beside the seam, fading out.
        off = motion.rotations[beside] @ made.rotations[beside].mT
        still = torch.eye(3).to(off).expand_as(off)
        fading = slerp(still.expand(len(count), *off.shape), off.expand(len(count), *off.shape), weight[:, None])
        rotations = fading @ rotations
        root = root + weight[:, None] * (motion.root[beside] - made.root[beside])
    return rotations, root
