"""Generates motion files from sentences: the function behind ``python -m kinelib generate motion --system kinmo``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kinelib.bodies.motion import Motion
from kinelib.bodies.motion_files import sample_files, save_motion
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.coarse_to_fine import generate
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.in_between import in_between
from kinelib.kinmo.pretrained import load_kinmo
from kinelib.kinmo.sampling import Sampler

SECONDS = 4.0  # of a prompt that says no duration
WAY = 0.6  # seconds between two prompts


def generate_motions(
    prompts: Sequence[str],
    seconds: Sequence[float] = (),
    *,
    groups: Sequence[str] = (),
    samples: int = 1,
    seed: int = 0,
    steps: int = 10,
    guidance: float = 3.0,
    remask: float = 0.5,
    levels: int | None = None,
    stage: str = "generator",
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    say=lambda line: None,
) -> list[Motion]:
    """Samples motions of one prompt after another; the ways between prompts are filled in.

    Args:
        prompts: one or more sentences.
        seconds: one number for all prompts, one each, or none for 4 seconds each.
        groups: sentences for single groups or pairs, "left_arm=The left arm waves.", which count in all prompts.
        samples: K motions.
        seed: of the draws.
        steps, guidance: of the sampler. remask, levels: see `kinelib.kinmo.coarse_to_fine.generate`.
        stage, checkpoint: which network, see `load_kinmo`.
        out: .npz, .bvh or .glb to write, numbered when there are several samples; None writes nothing.
        overwrite: replace existing files.
        say: called with a line a motion.

    Raises:
        FileExistsError: when a file exists and `overwrite` is off; nothing is generated then.
        FileNotFoundError: when there is no such checkpoint.
        ValueError: for an unknown kind of file, durations that do not fit the prompts, or numbers out of range.
        KeyError: for a name that is no group or pair.
    """
    seconds = list(seconds) or [SECONDS]
    if len(seconds) not in (1, len(prompts)):
        raise ValueError(f"give one duration for all prompts or one each; got {len(seconds)} for {len(prompts)} prompts.")
    seconds = seconds * len(prompts) if len(seconds) == 1 else seconds
    files, table = sample_files(out, samples, overwrite), group_table(groups)
    model, sampler = load_kinmo(stage, checkpoint), Sampler(steps=steps, guidance=guidance)
    how = dict(seed=seed, sampler=sampler, remask=remask)
    tables = [table] * len(prompts) if table else None
    drawn = generate(model, list(prompts), seconds, groups=tables, samples=samples, levels=levels, **how)
    motions = []
    for number in range(samples):
        motion = drawn[number]
        for later in range(1, len(prompts)):
            after = drawn[later * samples + number]
            motion = in_between(model, motion, after, WAY, prompts[later], groups=table or None, **how)
        motion = motion.with_facts(prompt=" ".join(prompts), seed=seed, sample=number)
        say(f"sample {number}: {motion.seconds:.1f} s")
        if files:
            save_motion(motion, files[number])
        motions.append(motion)
    return motions


def group_table(groups: Sequence[str]) -> dict[str, str]:
    """Sentences by group or pair of lines such as "left_arm=The left arm waves."

    Raises:
        ValueError: for a line without "=". KeyError: for a name that is no group or pair.
    """
    table = {}
    for line in groups:
        name, sign, sentence = line.partition("=")
        if not sign:
            raise ValueError(f'say "GROUP=SENTENCE", for example "left_arm=The left arm waves."; got {line!r}.')
        if name.strip() not in (*GROUPS, *PAIR_KEYS):
            raise KeyError(f"{name.strip()!r} is no group or pair; there are {', '.join((*GROUPS, *PAIR_KEYS))}.")
        table[name.strip()] = sentence.strip()
    return table
