"""Captioned motion without motion capture: people who walk, run, turn, raise and wave hands, squat, jump, kick, sit and bow.

Every clip is drawn from a seed: what is done, how (style), how fast, how far, when. Feet are planted by planned steps and
legs solved onto them (`procedural_steps`, `procedural_pose`), gestures laid over whatever the legs do. As everything is
planned, what each limb does is known, which no captured clip offers: it stands in `clip.motion.provenance["facts"]`.
This is the data of the checkpoints that carry a free licence, and the embedded default where no motion capture is at hand.

Shapes: T frames; metres, 20 frames a second, SMPLX22; the first pose is near the origin and faces +z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from kinelib.bodies import procedural_actions as actions
from kinelib.bodies import procedural_gaits as gaits
from kinelib.bodies.clips import Clip
from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural_arms import raise_hands, wave_hands
from kinelib.bodies.procedural_gaits import STYLES
from kinelib.bodies.procedural_pose import Controls, solve, stack
from kinelib.bodies.procedural_words import mirrored_words, prompts
from kinelib.bodies.skeletons import FPS, SMPLX22

SOURCE, LICENCE = "procedural", "MIT"
CHUNK = 64  # clips solved together; no part of what a seed means
# What the legs do. The number says how often a content is drawn against the others.
GOING = {
    "stand": (gaits.stand, 1.0),
    "walk": (gaits.walking, 2.5),
    "walk-back": (partial(gaits.walking, direction="backward"), 1.5),
    "walk-left": (partial(gaits.walking, direction="left"), 1.0),
    "walk-right": (partial(gaits.walking, direction="right"), 1.0),
    "run": (partial(gaits.walking, run=True), 2.0),
    "walk-turn-left": (partial(gaits.walking, turn=1), 1.5),
    "walk-turn-right": (partial(gaits.walking, turn=-1), 1.5),
    "turn-left": (partial(gaits.turning, sense=1), 1.5),
    "turn-right": (partial(gaits.turning, sense=-1), 1.5),
    "squat": (actions.squat, 1.5),
    "jump": (actions.jump, 1.5),
    "kick-left": (partial(actions.kick, side=0), 1.5),
    "kick-right": (partial(actions.kick, side=1), 1.5),
    "sit-down": (actions.sit_down, 1.5),
    "bow": (actions.bow, 1.0),
}
# What the hands do on top.
GESTURES = {
    **{
        f"raise-up-{hand}": (partial(raise_hands, hands=hand.split("-")[0]), 1.5)
        for hand in ("left-hand", "right-hand", "both-hands")
    },
    **{
        f"wave-{hand}": (partial(wave_hands, hands=hand.split("-")[0]), 1.5)
        for hand in ("left-hand", "right-hand", "both-hands")
    },
}
TOGETHER = ("walk", "walk-back", "walk-turn-left", "walk-turn-right")  # ways of going on which gestures are laid
COMBINED = {f"{going}+{gesture}": 0.25 for going in TOGETHER for gesture in GESTURES} | {"squat+raise-up-both-hands": 0.4}
SHARES = {name: share for name, (_, share) in (GOING | GESTURES).items()} | COMBINED
CONTENTS = tuple(SHARES)


def procedural_clips(
    count: int,
    seed: int,
    *,
    contents: Sequence[str] | None = None,
    styles: Sequence[str] | None = None,
    seconds: tuple[float, float] = (2.0, 5.0),
    captions: int = 3,
) -> list[Clip]:
    """Draws captioned clips; clip i depends on the seed and i alone, so a longer list begins with the shorter one.

    Args:
        count: how many, >= 0.
        seed: >= 0.
        contents: labels from CONTENTS to draw from, evenly; None: all of them in the proportions of SHARES.
        styles: names from STYLES, drawn evenly; None: half of the clips "normal", the others evenly.
        seconds: shortest and longest clip, within 2 to 10 seconds; whole frames at 20 a second.
        captions: prompts a clip, >= 1.

    Returns:
        clips whose `motion.provenance` holds "facts", a dict: style, travel, speed (m/s), turn_degrees (left is positive)
        of the whole body, and for torso, left_arm, right_arm, left_leg, right_leg what that limb does and when (seconds).

    Raises:
        ValueError: for an unknown content or style (the message lists those there are) or a number out of range.
    """
    shares = _shares(contents, SHARES, "content")
    styled = _shares(styles, {name: 5.0 if name == "normal" else 1.0 for name in STYLES}, "style")
    if count < 0 or seed < 0 or captions < 1:
        raise ValueError(f"count and seed must be >= 0 and captions >= 1; got {count}, {seed}, {captions}.")
    if not 2 <= seconds[0] <= seconds[1] <= 10:
        raise ValueError(f"seconds must be two numbers in order between 2 and 10; got {seconds}.")
    clips: list[Clip] = []
    for start in range(0, count, CHUNK):
        drawn = [_draw([seed, i], shares, styled, seconds, captions) for i in range(start, min(start + CHUNK, count))]
        batch = stack([score for score, *_ in drawn])
        rotations, root = solve(batch)
        for row, (score, content, style, facts, words, stream) in enumerate(drawn):
            frames = len(score.pelvis)
            motion = Motion(
                rotations[row, :frames].clone(),
                root[row, :frames].clone(),
                FPS,
                SMPLX22,
                contacts=_contacts(score),
                provenance={"source": SOURCE, "licence": LICENCE, "seed": stream, "facts": facts},
            )
            take = "-".join(map(str, stream))
            clips.append(Clip(motion, words, content, style, take, SOURCE, LICENCE))
    return clips


def mirrored_clip(clip: Clip) -> Clip:
    """The clip as seen in a mirror: motion, prompts, content and facts with left and right exchanged."""
    provenance = dict(clip.motion.provenance)
    if "facts" in provenance:
        provenance["facts"] = _mirrored_facts(provenance["facts"])
    return replace(
        clip,
        motion=replace(clip.motion.mirrored(), provenance=provenance),
        prompts=tuple(map(mirrored_words, clip.prompts)),
        content=mirrored_words(clip.content),
        take=f"{clip.take}-mirrored",
    )


def _mirrored_facts(facts: dict) -> dict:
    flipped = {}
    for name, value in facts.items():
        value = mirrored_words(value) if isinstance(value, str) else value
        flipped[mirrored_words(name)] = -value if name in ("turn_degrees", "degrees_left") else value
    return flipped


def _shares(chosen: Sequence[str] | None, known: dict[str, float], what: str) -> tuple[list[str], np.ndarray]:
    chosen = (chosen,) if isinstance(chosen, str) else chosen
    if unknown := [name for name in chosen or () if name not in known]:
        raise ValueError(f"unknown {what} {', '.join(map(repr, unknown))}; choose some of {', '.join(known)}.")
    if chosen is not None and not chosen:
        raise ValueError(f"give at least one {what} of {', '.join(known)}, or None for all.")
    names = list(dict.fromkeys(chosen)) if chosen else list(known)
    weights = np.array([1.0 if chosen else known[name] for name in names])
    return names, np.cumsum(weights / weights.sum())


def _draw(stream: list[int], shares, styled, seconds: tuple[float, float], captions: int):
    rng = np.random.default_rng(stream)
    pick = lambda table: table[0][min(int(np.searchsorted(table[1], rng.random())), len(table[0]) - 1)]
    content, style = pick(shares), STYLES[pick(styled)]
    shortest, longest = (round(FPS * limit) for limit in seconds)
    times = np.arange(int(rng.integers(shortest, longest + 1))) / FPS
    score, facts = _perform(content, times, style, rng)
    facts = {"style": style.name, "seconds": float(len(times) / FPS)} | facts
    return score, content, style.name, facts, prompts(content, style.name, facts, rng, captions), stream


def _perform(content: str, times: np.ndarray, style, rng) -> tuple[Controls, dict]:
    going, _, gesture = content.partition("+")
    if going in GESTURES:
        going, gesture = "stand", going
    score, facts = GOING[going][0](times, style, rng)
    action = "swing" if facts["steps"] else "hang"
    limbs = {"torso": {"action": "stay"}, "left_arm": {"action": action}, "right_arm": {"action": action}}
    legs = "step" if facts["steps"] else "stand"
    facts = limbs | {"left_leg": {"action": legs}, "right_leg": {"action": legs}} | facts
    if gesture:
        facts = facts | GESTURES[gesture][0](score, times, style, rng)
    return score, facts


def _contacts(score: Controls) -> torch.Tensor:
    """Planned contacts (T, 4): the heel while the foot is flat, the toe as long as it stands and its heel may rise."""
    heel = score.planted & (np.abs(score.pitch) < 0.05)
    toe = score.planted & (score.pitch > -0.05)
    both = np.stack([heel, toe], axis=-1).reshape(len(heel), 4)
    both[:-1] &= both[1:]  # a foot that leaves before the next frame is moving already
    return torch.from_numpy(both.astype(np.float32))
