"""Edits measured: does a changed sentence take effect, and does the rest of the body stay? (issue of editing, Section 5)

    group edits   held-out clips; one arm is told to rise, to wave or to hang, one leg to kick. An edit takes effect when the
                  motion passes the geometric test of what was said (and chance is how many clips pass it unedited). How far
                  the other groups' joints move, as a share of how far the edited group's do.
    unseen        ways of going and gestures that never occurred together in training: as one prompt, as group texts of two
                  prompts, and as a way of going whose arms are edited; a motion has to show both.

Beside a group edit stands the paper's: the same words, and the whole body drawn again.

Shapes: N motions, T frames, J joints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinelib.bodies.features import heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.rotations import about_y
from kinelib.bodies.skeleton import GROUPS
from kinelib.bodies.truth import DEFAULT, TRUTH_PROMPTS, Facts, chance, expected, measure_all
from kinelib.kinmo.coarse_to_fine import KinMo, generate
from kinelib.kinmo.codec import decode_clips
from kinelib.kinmo.data import HELD_OUT_COMBINATIONS, TEST_SEED, MotionTexts
from kinelib.kinmo.editing import composed, edit_groups, redraw
from kinelib.kinmo.rows import Row, over_clips

PROMPT_OF = {content: prompt for prompt, content in TRUTH_PROMPTS}
SECONDS = 4.0  # of every composed motion
ON_FOOT = ("stand", "walk", "walk-back", "walk-turn-left", "walk-turn-right")


@dataclass(frozen=True)
class Kind:
    """One kind of edit."""

    name: str
    group: str  # whose sentence changes
    prompt: str  # of which the reasoner tells that group's sentence
    sources: tuple[str, ...]  # contents of the clips that are edited
    passes: Callable[[Facts], bool]  # whether it took effect


def _lowered(side: int) -> Callable[[Facts], bool]:
    return lambda facts: facts.hand_height[side] < DEFAULT.lowered


def kinds() -> tuple[Kind, ...]:
    """All kinds of edits, left and right."""
    found = []
    for number, side in enumerate(("left", "right")):
        for verb in ("raise-up", "wave"):
            content = f"{verb}-{side}-hand"
            name = f"{side} arm: {'raise' if verb == 'raise-up' else verb}"
            found.append(Kind(name, f"{side}_arm", PROMPT_OF[content], ON_FOOT, expected(content)))
        up = (f"raise-up-{side}-hand", f"wave-{side}-hand")
        found.append(Kind(f"{side} arm: hang", f"{side}_arm", "A person stands still.", up, _lowered(number)))
        kick = f"A person kicks with the {side} foot."
        found.append(Kind(f"{side} leg: kick", f"{side}_leg", kick, ("stand",), expected(f"kick-{side}")))
    return tuple(found)


def sources_of(kind: Kind, held_out: MotionTexts, count: int) -> list[tuple[Motion, str]]:
    """Held-out motions to edit with a prompt each: half captured, where there are such, half procedural."""
    chosen = [
        row
        for row, label in enumerate(held_out.labels)
        if label.split("/")[0] in kind.sources and held_out.sources[row] != "procedural"
    ]
    chosen = (
        [chosen[int(i * len(chosen) / (count // 2))] for i in range(count // 2)] if len(chosen) >= count // 2 else chosen
    )
    found = []
    if chosen:
        kept = held_out.pick(chosen)
        motions = decode_clips(kept.frames.split(kept.lengths.tolist()))
        found = [(motion, said[0]) for motion, said in zip(motions, kept.prompts, strict=True)]
    drawn = procedural_clips(count - len(found), TEST_SEED, contents=kind.sources, seconds=(3.0, 5.0))
    return found + [(clip.motion, clip.prompts[0]) for clip in drawn]


def edit_rows(
    model: KinMo, held_out: MotionTexts, *, count: int, seed: int = 0, say: Callable = lambda line: None
) -> list[Row]:
    """Group edits of `count` held-out clips of each kind, beside drawing the whole body again under the same words.

    Raises:
        ValueError: when the model has no reasoner to tell the sentences of edits.
    """
    if model.reasoner is None:
        raise ValueError("group edits are told by the reasoner's sentences, and this model has none.")
    table, rows = "group edits", []
    found: dict[str, list[tuple[Tensor, ...]]] = {"group edit": [], "whole body drawn again": []}
    names = []
    for kind in kinds():
        clips = sources_of(kind, held_out, count)
        motions, prompts = [list(part) for part in zip(*clips, strict=True)]
        said = {kind.group: model.reasoner.reason([kind.prompt])[0].groups[kind.group]}
        before = _passed(kind, motions)
        edited = {  # one by one: a seed's draws are the same for every clip, and every clip shall have its own
            "group edit": [edit_groups(model, [one], said, seed=seed + n)[0] for n, one in enumerate(motions)],
            "whole body drawn again": [
                redraw(model, [one], [prompt], [said], [GROUPS], seed=seed + n)[0]
                for n, (one, prompt) in enumerate(zip(motions, prompts, strict=True))
            ],
        }
        for way, made in edited.items():
            effect, (own, others) = _passed(kind, made), changes(motions, made, kind.group)
            found[way].append((effect, own, others, before))
            if way == "group edit":
                at_first = float(before.mean())
                rows += over_clips(
                    table, f'{kind.name} ("{said[kind.group]}")', "takes effect", effect, "%", chance=at_first
                )
        names += [kind.name] * len(motions)
        say(f"{kind.name}: {float(found['group edit'][-1][0].mean()):.0f} % of {len(motions)} edits take effect")
    total = []
    for way, parts in found.items():
        effect, own, others, before = (torch.cat(list(part)) for part in zip(*parts, strict=True))
        goals = (90.0, 0.25) if way == "group edit" else (None, None)
        more = dict(groups=names, chance=float(before.mean()))
        total += over_clips(table, way, "takes effect", effect, "%", target=goals[0], **more)
        total += over_clips(table, way, "mean change of the edited group's joints", 100 * own, "cm", groups=names)
        share = others / own.mean()
        total += over_clips(table, way, "change of other joints over that", share, groups=names, target=goals[1])
    return total + rows


def changes(before: Sequence[Motion], after: Sequence[Motion], group: str) -> tuple[Tensor, Tensor]:
    """Mean change (N,) of the joints of a group and of all others, metres, the root and its heading put in one place."""
    joints = before[0].skeleton.check_groups()
    inside = joints[group]
    outside = [joint for name, own in joints.items() for joint in own if name != group]
    found = []
    for old, new in zip(before, after, strict=True):
        apart = (in_place(new) - in_place(old)).norm(dim=-1).mean(0)
        found.append(torch.stack([apart[inside].mean(), apart[outside].mean()]))
    return tuple(torch.stack(found).unbind(1))


def in_place(motion: Motion) -> Tensor:
    """Joints (T, J, 3) with the root above the origin and the hips' heading along +z."""
    joints = motion.positions()
    back = about_y(-heading(joints, motion.skeleton))
    here = joints - joints[:, :1] * joints.new_tensor([1.0, 0.0, 1.0])
    return torch.einsum("tab,tjb->tja", back, here)


def unseen_rows(
    model: KinMo,
    unseen: MotionTexts,
    flat: KinMo | None = None,
    *,
    count: int,
    seed: int = 0,
    say: Callable = lambda line: None,
) -> list[Row]:
    """Combinations that training never had, `count` motions of each.

    Args:
        model: the trained parts, with a reasoner.
        unseen: clips of these combinations, whose prompts are asked for.
        flat: the baseline; None: without.
        count: of each combination. seed: of the draws. say: called with a line of progress.
    """
    table, rows = "unseen combinations", []
    wordings, joints, tables, goings, arms_said = [], [], [], [], []
    for content in HELD_OUT_COMBINATIONS:
        own = [unseen.prompts[row][0] for row, label in enumerate(unseen.labels) if label.split("/")[0] == content]
        going, gesture = (PROMPT_OF[part] for part in content.split("+"))
        arms = tuple(f"{side}_arm" for side in ("left", "right") if f"{side}-hand" in content or "both" in content)
        joint, groups = composed(model, going, gesture, arms)
        wordings.append(own or [joint])
        joints.append(joint)
        tables.append(groups)
        goings.append(going)
        arms_said.append({arm: groups[arm] for arm in arms})
    made: dict[str, list[Motion]] = {}
    for number in range(count):
        asked, draw = [own[number % len(own)] for own in wordings], seed + number
        own = {
            "one prompt": generate(model, asked, SECONDS, seed=draw),
            "group texts of two prompts": generate(model, joints, SECONDS, groups=tables, seed=draw),
            "the going, then its arms edited": edit_groups(
                model, generate(model, goings, SECONDS, seed=draw), arms_said, seed=draw
            ),
        }
        if flat is not None:
            own["flat baseline, one prompt"] = generate(flat, asked, SECONDS, seed=draw)
        for way, motions in own.items():
            made.setdefault(way, []).extend(motions)
    contents = [*HELD_OUT_COMBINATIONS] * count
    for way, motions in made.items():
        facts = measure_all(motions)
        by_content = {one: [f for f, own in zip(facts, contents, strict=True) if own == one] for one in set(contents)}
        goal = None if way.startswith("flat") else 70.0
        right = {
            "both parts": [expected(content) for content in contents],
            "the way of going": [expected(content.split("+")[0]) for content in contents],
            "the gesture": [expected(content.split("+")[1]) for content in contents],
        }
        for metric, tests in right.items():
            passed = torch.tensor([100.0 * bool(test(one)) for test, one in zip(tests, facts, strict=True)])
            more = dict(target=goal, chance=100 * chance(by_content)) if metric == "both parts" else {}
            rows += over_clips(table, way, metric, passed, "%", groups=contents, **more)
        say(f"unseen combinations, {way}: {rows[-3].value:.0f} % show both parts")
    return rows + _captured(table, unseen)


def _captured(table: str, unseen: MotionTexts) -> list[Row]:
    """The clips of the combinations themselves under the same test."""
    rows = [row for row, label in enumerate(unseen.labels) if label.split("/")[0] in HELD_OUT_COMBINATIONS]
    if not rows:
        return []
    kept = unseen.pick(rows)
    names = [label.split("/")[0] for label in kept.labels]
    facts = measure_all(decode_clips(kept.frames.split(kept.lengths.tolist())))
    passed = torch.tensor([100.0 * bool(expected(name)(one)) for name, one in zip(names, facts, strict=True)])
    return over_clips(table, "clips of these combinations", "both parts", passed, "%", groups=names)


def _passed(kind: Kind, motions: Sequence[Motion]) -> Tensor:
    return torch.tensor([100.0 * bool(kind.passes(one)) for one in measure_all(motions)])
