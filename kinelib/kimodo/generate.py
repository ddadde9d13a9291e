"""Motion from sentences and constraints: encodes prompts, draws features, decodes them into clips (Kimodo, inference).

The same seed gives the same clip, whatever else is generated with it (`kinelib.kimodo.draw`).

Departures: 20 steps of a second-order solver instead of 100 of DDIM; constraints are pulled inside the sampler
(`kinelib.kimodo.pull`) and guidance is nested. `PUBLISHED` turns the latter two off.

Shapes: T frames, D features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Real
from typing import Protocol

from torch import Tensor

from kinelib.bodies.features import FeatureLayout, decode_motion
from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import Skeleton
from kinelib.bodies.skeletons import named
from kinelib.kimodo.conditions import Conditions, compile_constraints
from kinelib.kimodo.constraints import Constraint
from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.kimodo.draw import draw_features, noise_seed
from kinelib.learning.text import TextEncoder

# How the paper samples, for comparisons: options of :func:`generate`.
PUBLISHED = {"kind": "separated", "guidance": (2.0, 2.0), "correction": "none"}
SHORTEST = 1.0  # seconds; a shorter clip is drawn, with a warning


class SentenceEncoder(Protocol):
    """Anything that turns sentences into vectors."""

    def embed(self, sentences: Sequence[str]) -> Tensor:
        """(N, C) vectors of N sentences, 0 for an empty one."""


def generate(
    model: TwoStageDenoiser,
    prompts: Sequence[str],
    seconds: float | Sequence[float] | None = None,
    frames: int | Sequence[int] | None = None,
    *,
    constraints: Sequence[Conditions | Sequence[Constraint] | None] | None = None,
    samples: int = 1,
    seed: int = 0,
    solver: str = "dpm",
    steps: int = 20,
    guidance: tuple[float, float] = (2.0, 1.0),
    kind: str = "nested",
    correction: str = "pull",
    heading: float | Sequence[float] = 0.0,
    skeleton: Skeleton | None = None,
    encoder: SentenceEncoder | None = None,
    batch: int = 16,
    watch: Callable[[int, int], None] | None = None,
) -> list[Motion]:
    """Draws motion for every prompt.

    Args:
        model: trained, with its statistics.
        prompts: one a motion; "" leaves it to the constraints, or to chance.
        seconds: length of all motions, or of each; or
        frames: the same in frames; neither: the longest clip the model was trained on.
        constraints: one entry a prompt: constraints, or what `compile_constraints` made of them, or None.
        samples: K motions of every prompt.
        seed: of the noise; sample k of any prompt starts from the same noise.
        solver: "dpm" or "ddim".
        steps: of the solver, 2..1000 (paper: 100 of DDIM).
        guidance: weights of the sentence and of the constraints.
        kind: of guidance, "nested", "separated", "regular" or "none".
        correction: of what misses its constraints, "pull" or "none".
        heading: radians the body faces at first, 0 along +z, growing towards +x, one number or one a prompt; a constrained
            first heading counts more.
        skeleton: of the motions; None is the model's by name.
        encoder: makes the sentence vectors; None is the sentence encoder of `kinelib.learning.text`.
        batch: motions drawn at once.
        watch: told how many of how many network calls are done.

    Returns:
        K motions of the first prompt, then K of the second, and so on.

    Raises:
        ValueError: for numbers that are out of range or a clip longer than the model was trained on.
        TypeError: when prompts are not a list of strings. ConstraintError: for constraints that do not fit.
        ShapeError: when the sentence vectors are not those the model reads.
    """
    prompts = _checked_prompts(prompts)
    if samples < 1 or batch < 1:
        raise ValueError(f"samples and batch must be at least 1; got {samples} and {batch}.")
    skeleton = named(model.config.skeleton) if skeleton is None else skeleton
    layout, lengths = FeatureLayout(skeleton), _frames(model, len(prompts), seconds, frames)
    conditions = _conditions(constraints, layout, lengths, model.config.fps)
    text = (_encoder() if encoder is None else encoder).embed(prompts)[:, None]
    facing = [float(heading)] * len(prompts) if isinstance(heading, Real) else list(heading)
    if len(facing) != len(prompts):
        raise ValueError(f"heading is one number or one for each of {len(prompts)} prompts; got {len(facing)}.")
    which = [prompt for prompt in range(len(prompts)) for _ in range(samples)]
    drawn = draw_features(
        model,
        [lengths[prompt] for prompt in which],
        text[which],
        [conditions[prompt] for prompt in which],
        seeds=[noise_seed(seed, number) for _ in prompts for number in range(samples)],
        headings=[facing[prompt] for prompt in which],
        solver=solver,
        steps=steps,
        guidance=guidance,
        kind=kind,
        correction=correction,
        batch=batch,
        watch=watch,
    )
    facts = {"seed": seed, "solver": solver, "steps": steps, "guidance": list(guidance), "guidance_kind": kind}
    facts |= {"correction": correction}
    return [
        decode_motion(one, layout, model.config.fps, {"prompt": prompts[prompt], "sample": number % samples, **facts})
        for number, (one, prompt) in enumerate(zip(drawn, which, strict=True))
    ]


def _checked_prompts(prompts: Sequence[str]) -> list[str]:
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise TypeError(f"prompts are a list of sentences ('' for none); got {prompts!r}.")
    if not len(prompts):
        raise ValueError("there are no prompts; pass at least one ('' to leave the motion to constraints or chance).")
    return list(prompts)


def _frames(
    model: TwoStageDenoiser, count: int, seconds: float | Sequence[float] | None, frames: int | Sequence[int] | None
) -> list[int]:
    """The number of frames of every prompt's motion."""
    config = model.config
    if seconds is not None and frames is not None:
        raise ValueError("give the length in seconds or in frames, not both.")
    if seconds is None and frames is None:
        return [config.max_frames] * count
    name, given = ("seconds", seconds) if frames is None else ("frames", frames)
    each = [given] * count if isinstance(given, Real) else list(given)
    if len(each) != count:
        raise ValueError(f"{name} must be one number or one for each of {count} prompts; got {len(each)}.")
    if bad := [one for one in each if not math.isfinite(one) or one <= 0]:
        raise ValueError(f"{name} must be above 0 and finite; got {bad[0]}.")
    lengths = [round(one * config.fps) if frames is None else int(one) for one in each]
    longest = config.max_frames
    if max(lengths) > longest:
        raise ValueError(
            f"this model was trained on clips of up to {longest / config.fps:g} s ({longest} frames); {max(lengths)} frames "
            "were asked for. Split the motion into several prompts with kinelib.kimodo.sequencing."
        )
    if min(lengths) < 2:
        raise ValueError(f"a motion needs at least 2 frames, {2 / config.fps:g} s; got {min(lengths)}.")
    if min(lengths) < SHORTEST * config.fps:
        warnings.warn(
            f"a motion of {min(lengths) / config.fps:g} s is shorter than those the model knows; expect less of it than of "
            f"{SHORTEST:g} s or more.",
            stacklevel=3,
        )
    return lengths


def _conditions(
    constraints: Sequence[Conditions | Sequence[Constraint] | None] | None,
    layout: FeatureLayout,
    lengths: list[int],
    fps: float,
) -> list[Conditions | None]:
    """The conditions of every prompt, compiled where they are constraints."""
    if constraints is None:
        return [None] * len(lengths)
    if len(constraints) != len(lengths):
        raise ValueError(
            f"constraints have one entry for each of {len(lengths)} prompts (None for none); got {len(constraints)}."
        )
    conditions = []
    for number, (one, length) in enumerate(zip(constraints, lengths, strict=True)):
        if not isinstance(one, Conditions):
            one = compile_constraints(one, layout, length, fps) if one else None
        elif tuple(one.target.shape) != (length, layout.size):
            raise ValueError(
                f"the conditions of prompt {number} are of shape {tuple(one.target.shape)}; its motion needs "
                f"{(length, layout.size)}."
            )
        conditions.append(one)
    return conditions


@lru_cache(maxsize=1)
def _encoder() -> TextEncoder:
    """The sentence encoder, loaded once."""
    return TextEncoder()
