"""Generates motion files from sentences and constraints: the function behind ``python -m kinelib generate motion``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kinelib.bodies.motion import Motion
from kinelib.bodies.motion_files import sample_files, save_motion
from kinelib.bodies.skeletons import named
from kinelib.kimodo.cleanup import Cleaned, clean
from kinelib.kimodo.constraint_files import load_constraints
from kinelib.kimodo.draw import noise_seed
from kinelib.kimodo.generate import PUBLISHED
from kinelib.kimodo.pretrained import load_denoiser
from kinelib.kimodo.sequencing import sampler, sequence

SECONDS = 4.0  # of a prompt that says no duration


def generate_motions(
    prompts: Sequence[str],
    seconds: Sequence[float] = (),
    *,
    constraints: str | Path | None = None,
    samples: int = 1,
    seed: int = 0,
    steps: int = 20,
    solver: str = "dpm",
    guidance: tuple[float, float] | None = None,
    published: bool = False,
    cleanup: bool = True,
    stage: str = "denoiser",
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    say=lambda line: None,
) -> list[Motion]:
    """Samples motions of one prompt after another.

    Args:
        prompts: one or more sentences.
        seconds: one number for all prompts, one each, or none for 4 seconds each.
        constraints: JSON file of constraints, counted in frames and metres of the whole motion.
        samples: K motions.
        seed: of the noise.
        steps, solver: see `kinelib.kimodo.generate.generate`.
        guidance: weights of sentence and constraints; None: 2 and 1, or as published 2 and 2.
        published: sample as the paper does, with separated guidance and constraints that are not pulled.
        cleanup: lock standing feet and meet the constraints.
        stage, checkpoint: which network, see `load_denoiser`.
        out: .npz, .bvh or .glb to write, numbered when there are several samples; None writes nothing.
        overwrite: replace existing files.
        say: called with a line a motion.

    Raises:
        FileExistsError: when a file exists and `overwrite` is off; nothing is generated then.
        ValueError: for an unknown kind of file, durations that do not fit the prompts, or numbers out of range.
        ConstraintError: for a constraint file that is wrong; the message names the file, the constraint and the field.
    """
    seconds = list(seconds) or [SECONDS]
    if len(seconds) not in (1, len(prompts)):
        raise ValueError(f"give one duration for all prompts or one each; got {len(seconds)} for {len(prompts)} prompts.")
    files = sample_files(out, samples, overwrite)
    model = load_denoiser(stage, checkpoint)
    fps, longest = model.config.fps, model.config.max_frames
    given = load_constraints(constraints, named(model.config.skeleton)) if constraints else None
    wanted = list(given.constraints) if given else []
    how = (PUBLISHED if published else {}) | ({} if guidance is None else {"guidance": guidance})
    draw = sampler(model, steps=steps, solver=solver, **how)
    frames = [round(one * fps) for one in seconds]
    motions = []
    for number in range(samples):
        made = sequence(
            draw,
            list(prompts),
            frames if len(frames) > 1 else frames[0],
            longest=longest,
            constraints=wanted,
            seed=noise_seed(seed, number),
        )
        motion = made.motion.with_facts(prompt=" ".join(prompts), seed=seed, sample=number)
        if cleanup:
            cleaned = clean(motion, wanted)
            motion = cleaned.motion
            say(_said(number, motion, cleaned))
        if files:
            save_motion(motion, files[number])
        motions.append(motion)
    return motions


def _said(number: int, motion: Motion, cleaned: Cleaned) -> str:
    return f"sample {number}: {motion.seconds:.1f} s, cleaned up (before -> after):\n{cleaned.report()}"
