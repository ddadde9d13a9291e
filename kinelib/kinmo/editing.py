"""Edits of a motion by words: another sentence for one group, another action, two prompts in one body (KinMo, Section 5).

A motion is read as tokens; those of some groups are hidden and drawn again under the new words, all others keep their codes
in every layer. What comes back is laid over the motion that was given: only joints of the groups that were drawn anew take
new turns (the root is the torso's), so that every other joint turns exactly as before. A hand whose shoulder moved is
elsewhere, of course: turns are against the parent (an upper arm's against an upright chest, see `laid_over`).

    edit_groups   one group's sentence, or several
    edit_action   the whole sentence; drawn anew is every group of which it says something else than the old one did
    composed      sentences of some groups from a second prompt: texts for `generate`, of what was never seen together

The paper edits by text alone and draws the whole body again. The length is kept. Sentences of the groups are first heard
at the second level, so that by default nothing of the first level's draw is kept (`remask=1`, assumption A10); and there an
edit of groups ends, as nobody has said anything of the pairs they are in (`levels=2`).

What is kept speaks louder than words: from a body that walks with hanging arms the network concludes that arms hang, and a
global text that says so settles it. So an edit of groups reads a global text of what they *now* do (`Reasoner.prompt_for`),
and is drawn as part of a whole body of which the other groups are thrown away (`seen=0`). Where the new movement must fit
in time with the old one, let some of it be seen.

Shapes: T frames, R = T rows of 263 features, L times of four rows, G streams, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kinelib.bodies.kinematics import global_from_local
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.coarse_to_fine import KinMo, draw_decodable
from kinelib.kinmo.codec import decode_clips, encode_clips
from kinelib.kinmo.data import SLOT_KEYS, belongs
from kinelib.kinmo.exchange import ARMS
from kinelib.kinmo.sampling import Sampler, generators
from kinelib.kinmo.tokens import STRIDE, MotionTokenizer

LEGS = {"left_leg": [0, 1], "right_leg": [2, 3]}  # contacts of each
BATCH = 32  # motions drawn together


class Tokens(NamedTuple):
    """A motion as the networks read it."""

    features: Tensor  # (T, 263), one row a frame
    codes: Tensor  # (L, G, Q)


@torch.no_grad()
def tokens_of(tokenizer: MotionTokenizer, motions: Sequence[Motion]) -> list[Tokens]:
    """Motions of SMPLX22 at 20 frames a second as features and codes.

    Features are made of steps between frames; the last frame goes on as it came, so that it has a row too.

    Raises:
        ShapeError: for another skeleton or frame rate; the message says what to do.
    """
    features = encode_clips([_one_more(motion) for motion in motions])
    device = tokenizer.statistics.mean.device
    found = []
    for first in range(0, len(features), BATCH):
        chunk = features[first : first + BATCH]
        lengths = torch.tensor([len(one) for one in chunk])
        codes = tokenizer.encode(pad_sequence(chunk, batch_first=True).to(device), lengths).cpu()
        found += [Tokens(one, own[: -(-len(one) // STRIDE)]) for one, own in zip(chunk, codes, strict=True)]
    return found


def edit_groups(
    model: KinMo,
    motions: Sequence[Motion],
    groups: Mapping[str, str] | Sequence[Mapping[str, str]],
    prompts: Sequence[str] | None = None,
    *,
    seed: int = 0,
    sampler: Sampler | None = None,
    levels: int = 2,
    remask: float = 1.0,
    seen: float = 0.0,
) -> list[Motion]:
    """Gives some groups of every motion other sentences, and only them other movement.

    Args:
        model: with a tokenizer of group streams.
        motions: N, up to the generator's length.
        groups: sentences by group, the same for all motions or one table each, such as
            {"left_arm": "The left arm waves."}.
        prompts: whole sentences about somebody whose groups do that; None: as the reasoner finds them, or nothing.
        seed: of the draws.
        sampler: how tokens are drawn; None: the defaults.
        levels: stages, 1 to the generator's levels.
        remask: share of tokens that the second and third stage draw again, (0, 1].
        seen: share of the kept tokens that the network sees while it draws, [0, 1].

    Returns:
        N motions of the same lengths in the same places.

    Raises:
        ValueError: for a tokenizer of one stream, no sentence, or a motion that is too long. KeyError: for an unknown group.
    """
    tables = [groups] * len(motions) if isinstance(groups, Mapping) else list(groups)
    if len(tables) != len(motions) or not all(tables):
        raise ValueError(f"give one table of sentences by group, or one for each of {len(motions)} motions, none empty.")
    for own in tables:
        if unknown := sorted(set(own) - set(GROUPS)):
            raise KeyError(f"{unknown[0]!r} is no group; there are {', '.join(GROUPS)}.")
    if prompts is None:
        prompts = ["" if model.reasoner is None else model.reasoner.prompt_for(own) for own in tables]
    redrawn = [tuple(name for name in GROUPS if name in own) for own in tables]
    how = dict(seed=seed, sampler=sampler, levels=min(levels, model.generator.config.levels), remask=remask, seen=seen)
    made = redraw(model, motions, prompts, tables, redrawn, **how)
    return [motion.with_facts(edited=dict(own)) for motion, own in zip(made, tables, strict=True)]


def edit_action(
    model: KinMo,
    motions: Sequence[Motion],
    prompts: str | Sequence[str],
    *,
    seed: int = 0,
    sampler: Sampler | None = None,
    remask: float = 0.5,
) -> list[Motion]:
    """Gives every motion another action; groups of which both sentences say the same stay as they are.

    Args:
        model: the trained parts.
        motions: N; of one that does not carry the prompt it was made for, everything is drawn anew.
        prompts: the new sentence, one for all or one each.
        seed, sampler, remask: as of :func:`edit_groups`.

    Raises:
        ValueError: when there is not one prompt a motion, or a motion is too long.
    """
    prompts = [prompts] * len(motions) if isinstance(prompts, str) else list(prompts)
    if len(prompts) != len(motions):
        raise ValueError(f"give one prompt, or one for each of {len(motions)} motions; got {len(prompts)}.")
    whole = len(model.tokenizer.config.groups) == 1
    redrawn = [
        GROUPS if whole else changed_groups(model, _prompt_of(motion), prompt)
        for motion, prompt in zip(motions, prompts, strict=True)
    ]
    made = redraw(model, motions, prompts, [None] * len(motions), redrawn, seed=seed, sampler=sampler, remask=remask)
    return [motion.with_facts(prompt=prompt) for motion, prompt in zip(made, prompts, strict=True)]


def changed_groups(model: KinMo, before: str, after: str) -> tuple[str, ...]:
    """Groups of which two prompts say something else; all of them where that cannot be told, or is none."""
    if model.reasoner is None or not before.strip():
        return GROUPS
    old, new = model.sentences([before, after])
    return tuple(name for name in GROUPS if old[name] != new[name]) or GROUPS


def composed(model: KinMo, first: str, second: str, groups: Sequence[str]) -> tuple[str, dict[str, str]]:
    """One body that does two things: some groups as the second prompt says, the others as the first.

    Pairs within one part keep that part's sentences; of pairs across the two nothing is said, as nobody knows.

    Args:
        model: with a reasoner.
        first, second: prompts such as "A person walks forward." and "A person raises the right hand."
        groups: names of those that follow the second.

    Returns:
        the joint prompt, and sentences by group and pair: `generate(model, [prompt], groups=[sentences])`.

    Raises:
        KeyError: for an unknown group.
    """
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise KeyError(f"{unknown[0]!r} is no group; there are {', '.join(GROUPS)}.")
    ours, theirs = model.sentences([first, second])
    whose = {True: theirs, False: ours, None: dict.fromkeys(SLOT_KEYS, "")}
    said = {key: whose[belongs(key, groups)][key] for key in SLOT_KEYS}
    return joined(first, second), said


def joined(first: str, second: str) -> str:
    """Two sentences about one person as one: "A person walks." and "A person waves." are "A person walks and waves."."""
    a, b = first.strip().rstrip("."), second.strip().rstrip(".")
    subject = " ".join(b.split()[:2])
    same = a.lower().startswith(f"{subject.lower()} ")
    return f"{a} and {b[len(subject) :].strip() if same else b}."


def redraw(
    model: KinMo,
    motions: Sequence[Motion],
    prompts: Sequence[str],
    groups: Sequence[Mapping[str, str] | None],
    redrawn: Sequence[Sequence[str]],
    *,
    seed: int = 0,
    sampler: Sampler | None = None,
    levels: int | None = None,
    remask: float = 1.0,
    seen: float = 1.0,
) -> list[Motion]:
    """Draws the tokens of some groups of every motion anew, under new words, and lays them over the motion.

    Args:
        model: the trained parts.
        motions: N.
        prompts: N global texts, "" for none. groups: N tables of sentences, or None, as of `KinMo.conditions`.
        redrawn: of every motion the names of the groups.
        seed, sampler, remask, seen: as of :func:`edit_groups`. levels: stages; None: all.
    """
    if not 0 <= seen <= 1:
        raise ValueError(f"seen is a share of the kept tokens, in [0, 1]; got {seen}.")
    sampler = Sampler() if sampler is None else sampler
    streams = model.tokenizer.config.groups
    if len(streams) == 1 and any(set(own) != set(GROUPS) for own in redrawn):
        raise ValueError("this tokenizer has one stream for the whole body; single groups need streams='groups'.")
    longest = model.generator.config.longest
    for number, motion in enumerate(motions):
        check_length(len(motion), longest, f"motion {number}")
    read = tokens_of(model.tokenizer, motions)
    has_groups = model.aligner is not None
    levels = model.generator.config.levels if levels is None else levels
    words = model.conditions(list(prompts), list(groups) if has_groups else None)
    made: list[Motion] = []
    for first in range(0, len(read), BATCH):
        rows = slice(first, first + BATCH)
        codes = pad_sequence([one.codes for one in read[rows]], batch_first=True)
        lengths = torch.tensor([len(one.codes) for one in read[rows]])
        chosen = [[len(streams) == 1 or name in own for name in streams] for own in redrawn[rows]]
        present = (torch.arange(codes.shape[1]) < lengths[:, None])[..., None]
        free = torch.tensor(chosen)[:, None] & present
        draws = [generators(seed, 1)[0] for _ in range(len(codes))]
        # One clip's lots are the same whatever else is in the batch.
        lots = [torch.rand(longest, len(streams), generator=generators(seed, 2)[1]) for _ in range(len(codes))]
        unseen = (torch.stack(lots)[:, : codes.shape[1]] >= seen) & present
        how = dict(levels=levels, remask=remask, given=codes, free=free | unseen)
        found = draw_decodable(model.generator, words.pick(rows), lengths, draws, sampler, **how)
        made += decoded(model.tokenizer, found, [len(one.features) for one in read[rows]])
    pairs = zip(made, motions, read, redrawn, strict=True)
    return [laid_over(placed(new, motion, one.features), motion, own) for new, motion, one, own in pairs]


@torch.no_grad()
def decoded(tokenizer: MotionTokenizer, codes: Tensor, frames: Sequence[int]) -> list[Motion]:
    """Motions of codes (B, L, G, Q) or odds (B, L, G, Q, K) with so many frames each, where their features begin."""
    device = tokenizer.statistics.mean.device
    features = tokenizer.decode(codes.to(device), torch.tensor(list(frames))).cpu()
    return decode_clips([one[:length] for one, length in zip(features, frames, strict=True)])


def laid_over(made: Motion, motion: Motion, groups: Sequence[str]) -> Motion:
    """`motion`, of which joints of some groups turn as in `made`; the root goes with the torso, contacts with the legs.

    Turns are against the parent, but those of upper arms against a chest that only turns about the vertical: a hand that is
    up stays up, and does not sway with a chest which leans from step to step, as it would on a stick.

    Args:
        made: of the same length and skeleton.
        motion: what everything else is taken from.
        groups: names.
    """
    joints = motion.skeleton.check_groups()
    own = [joint for name in groups for joint in joints[name]]
    rotations, root = motion.rotations.clone(), motion.root
    rotations[:, own] = made.rotations[:, own].to(rotations)
    upper = [joints[name][1] for name in ARMS if name in groups]  # the first is the collar's, which the chest carries
    if upper and "torso" not in groups:
        parents = [motion.skeleton.parents[joint] for joint in upper]
        upright = shoulder_yaw(motion)[:, None] @ shoulder_yaw(made)[:, None].mT @ made.global_rotations()[:, upper]
        against = global_from_local(rotations, motion.skeleton.parents)[:, parents]
        rotations[:, upper] = against.mT @ upright.to(against)
    contacts = made.contacts if motion.contacts is None else motion.contacts.clone()
    if motion.contacts is not None and made.contacts is not None:
        feet = [foot for name in groups for foot in LEGS.get(name, [])]
        contacts[:, feet] = made.contacts[:, feet].to(contacts)
    if "torso" in groups:
        root = made.root.to(root)
    return replace(motion, rotations=rotations, root=root, contacts=contacts)


def shoulder_yaw(motion: Motion) -> Tensor:
    """The turn about the vertical (T, 3, 3) of the line between the shoulders."""
    left, right = (motion.skeleton.check_groups()[name][1] for name in ARMS)
    line = (joints := motion.positions())[:, left] - joints[:, right]
    return about_y(torch.atan2(-line[:, 2], line[:, 0]))


def placed(made: Motion, motion: Motion, features: Tensor) -> Motion:
    """`made`, which begins where features begin, moved to where `motion` is, whose features (T, 263) are given."""
    base = decode_clips([features[:1]])[0].positions()[0]
    own = motion.slice(0, 1).positions()[0].to(base)
    return carried(made, yaw_between(base, own), base[0], own[0])


def carried(motion: Motion, yaw: float, start: Tensor, goal: Tensor) -> Motion:
    """A motion turned by `yaw` radians about the vertical through `start` (3,), which is then moved to `goal` (3,)."""
    turn = about_y(torch.tensor(float(yaw))).to(motion.root)
    rotations = torch.cat([turn @ motion.rotations[:, :1], motion.rotations[:, 1:]], 1)
    return replace(motion, rotations=rotations, root=(motion.root - start.to(motion.root)) @ turn.T + goal.to(motion.root))


def yaw_between(points: Tensor, wanted: Tensor) -> float:
    """The turn about the vertical, radians, after which points (J, 3) fit those wanted (J, 3) best, however moved."""
    (x, z), (u, w) = ((one - one.mean(0))[:, [0, 2]].T.double() for one in (points, wanted))
    return float(torch.atan2((z * u - x * w).sum(), (x * u + z * w).sum()))


def check_length(frames: int, longest: int, what: str) -> None:
    """Raises ValueError when there are more frames than the generator was trained on."""
    if -(-frames // STRIDE) > longest:
        raise ValueError(
            f"{what} has {frames} frames; this generator was trained on up to {longest * STRIDE}. Cut it first: "
            "motion.slice(start, stop)."
        )


def _one_more(motion: Motion) -> Motion:
    """The motion and one more frame, in which the root goes on."""
    step = motion.root[-1] - motion.root[-2] if len(motion) > 1 else torch.zeros_like(motion.root[0])
    rotations = torch.cat([motion.rotations, motion.rotations[-1:]])
    return replace(motion, rotations=rotations, root=torch.cat([motion.root, motion.root[-1:] + step]), contacts=None)


def _prompt_of(motion: Motion) -> str:
    prompt = motion.provenance.get("prompt", "")
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
