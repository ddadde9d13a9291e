"""Measures a trained denoiser on held-out data: does motion do what its prompt says, and meet what is asked of it?

Three questions (Kimodo, Section 6), all without post-processing first, as there:
  text         samples of `TRUTH_PROMPTS` under the geometric test of `bodies.truth`, their feet, and, where an evaluator is
               trained, retrieval and Frechet distance. Held-out clips under the same tests stand beside them, and chance.
  constraints  poses, hands and feet, paths and waypoints taken from held-out clips, under the clips' own prompts and first
               headings: errors as sampled in the paper ("raw, as published"), as we sample, with nested guidance and
               constraints pulled at every step but the last ("raw, pulled"), of the latter cleaned up, and of motion
               generated from the prompt alone, which knows nothing of them.
  solver       the same constraints met by DPM-Solver++ in few steps and by DDIM in a hundred.

Numbers of our own evaluator and clips are not comparable with the paper's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kinelib.bodies.clips import Clip, bandai_namco_clips, split
from kinelib.bodies.evaluator import MotionEvaluator
from kinelib.bodies.evaluator import evaluate as evaluate_texts
from kinelib.bodies.evaluator_training import load_evaluator
from kinelib.bodies.features import contacts, encode, heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.truth import TRUTH_PROMPTS, chance, follows, measure_all
from kinelib.kimodo.cleanup import clean
from kinelib.kimodo.constraint_makers import end_effectors, keyframes
from kinelib.kimodo.constraints import Constraint, RootPath, RootWaypoints
from kinelib.kimodo.data import TEST_SEED
from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.kimodo.generate import PUBLISHED, generate
from kinelib.kimodo.metrics import Errors, constraint_errors, contact_accuracy, foot_skate, penetration
from kinelib.kimodo.pretrained import SHIPPED, load_denoiser
from kinelib.learning.files import write_text_whole
from kinelib.learning.intervals import bootstrap
from kinelib.learning.profiles import Profile, profile

SECONDS = 4.0  # of every motion generated for a prompt
KINDS = ("keyframes", "hands and feet", "root path", "waypoints")
# Which error each kind is judged by, and its target in metres, stated before training.
JUDGED = {
    "keyframes": ("keyframe", 0.08),
    "hands and feet": ("effector", 0.08),
    "root path": ("root", 0.06),
    "waypoints": ("root", 0.06),
}


@dataclass(frozen=True)
class Extent:
    """How much of everything is measured."""

    samples: int = 10  # of each prompt
    clips: int = 64  # held-out ones whose constraints are asked for
    solver_clips: int = 16  # of them, for the comparison of solvers
    ddim_steps: int = 100  # of the slower solver


EXTENTS = {Profile.SMOKE: Extent(2, 8, 4, 50), Profile.LAB: Extent(), Profile.PAPER: Extent(20, 256, 64)}


@dataclass(frozen=True)
class Row:
    """One measured number and what it takes to read it."""

    table: str  # "text", "constraints" or "solver"
    what: str  # prompt, kind of constraint, or solver
    metric: str
    value: float
    low: float  # 95 % bootstrap interval over motions (over prompts, for a mean of prompts)
    high: float
    n: int  # motions
    unit: str
    target: float | None = None


def row(table: str, what: str, metric: str, values: Tensor, unit: str, *, groups=None, target=None) -> list[Row]:
    """The mean of per-motion values with its interval; no row when nothing is defined."""
    known = torch.isfinite(values)
    if not known.any():
        return []
    groups = None if groups is None else [name for name, there in zip(groups, known.tolist(), strict=True) if there]
    if int(known.sum()) < 2:
        value = float(values[known].mean())
        return [Row(table, what, metric, value, value, value, 1, unit, target)]
    interval = bootstrap(values[known], groups=groups)
    return [Row(table, what, metric, interval.value, interval.low, interval.high, interval.count, unit, target)]


def feet(motions: Sequence[Motion]) -> dict[str, Tensor]:
    """Foot skate in cm/s, contact accuracy in % and depth below the floor in cm of every motion."""
    found: dict[str, list[Tensor]] = {"foot skate": [], "contact accuracy": [], "depth": []}
    for motion in motions:
        positions, skeleton = motion.positions()[None], motion.skeleton
        standing = contacts(positions, motion.fps, skeleton) if motion.contacts is None else motion.contacts[None]
        found["foot skate"].append(100 * foot_skate(positions, standing, motion.fps, skeleton))
        found["contact accuracy"].append(100 * contact_accuracy(standing, positions, motion.fps, skeleton))
        found["depth"].append(100 * penetration(positions)[0])
    return {name: torch.cat(values).double() for name, values in found.items()}


def text_rows(
    model: TwoStageDenoiser,
    held_out: Sequence[Clip],
    extent: Extent,
    evaluator: MotionEvaluator | None = None,
    say=lambda line: None,
) -> list[Row]:
    """What motions generated from prompts alone do.

    Args:
        model: a trained denoiser.
        held_out: clips it has not seen; those whose content is one of the prompts' stand beside the generated ones.
        extent: how many samples.
        evaluator: for retrieval and Frechet distance; None: without.
        say: called with a line of progress.
    """
    prompts = [prompt for prompt, _ in TRUTH_PROMPTS]
    contents = [content for _, content in TRUTH_PROMPTS]
    start = time.perf_counter()
    motions = generate(model, prompts, SECONDS, samples=extent.samples, seed=0)
    say(f"{len(motions)} motions for {len(prompts)} prompts in {time.perf_counter() - start:.0f} s")
    of = [content for content in contents for _ in range(extent.samples)]
    facts = measure_all(motions)
    right = torch.tensor([100.0 * bool(follows(one, content)) for one, content in zip(facts, of, strict=True)])
    rows = row("text", "all prompts", "geometric truth", right, "%", groups=of, target=90.0)
    for prompt, content in TRUTH_PROMPTS:
        chosen = torch.tensor([one == content for one in of])
        rows += row("text", prompt, "geometric truth", right[chosen], "%")
    by_content = {content: [one for one, name in zip(facts, of, strict=True) if name == content] for content in contents}
    rows.append(_plain("text", "all prompts", "chance", 100 * chance(by_content), len(motions), "%"))
    real = [clip for clip in held_out if clip.content in contents]
    names = [clip.content for clip in real]
    true = measure_all([clip.motion for clip in real])
    passed = torch.tensor([100.0 * bool(follows(one, name)) for one, name in zip(true, names, strict=True)])
    rows += row("text", "held-out clips", "geometric truth", passed, "%", groups=names)
    reference = feet([clip.motion for clip in real])
    twice = {"foot skate": 2 * float(reference["foot skate"].nanmean()), "contact accuracy": 90.0}
    cleaned = [clean(motion).motion for motion in motions]
    for what, bodies in (
        ("all prompts", feet(motions)),
        ("all prompts, cleaned", feet(cleaned)),
        ("held-out clips", reference),
    ):
        goals = twice if what == "all prompts" else {}
        for metric, values in bodies.items():
            unit = {"foot skate": "cm/s", "contact accuracy": "%", "depth": "cm"}[metric]
            rows += row("text", what, metric, values, unit, target=goals.get(metric))
    if evaluator is not None:
        rows += _evaluator_rows(model, held_out, evaluator)
    return rows


def _evaluator_rows(model: TwoStageDenoiser, held_out: Sequence[Clip], evaluator: MotionEvaluator) -> list[Row]:
    """One motion for the caption of every held-out clip, and the clips themselves, in the evaluator's space."""
    captions = [clip.prompts[0] for clip in held_out]
    real = [clip.motion for clip in held_out]
    longest = model.config.max_frames
    made = generate(model, captions, frames=[min(max(len(motion), 20), longest) for motion in real], seed=1)
    rows = []
    for what, motions in (("captions of held-out clips", made), ("held-out clips", real)):
        scores = evaluate_texts(evaluator, motions, captions, None if motions is real else real)
        rows += [_plain("text", what, name, value, len(motions), "") for name, value in scores.rows().items()]
    return rows


def asked_of(clip: Clip, kind: str, generator: torch.Generator) -> list[Constraint]:
    """Constraints of one kind taken from a clip.

    Args:
        clip: at least 20 frames.
        kind: one of `KINDS`: 1 to 5 whole poses; both hands and feet at 1 to 5 frames; the path of the root; 4 points of it.
        generator: draws the frames.
    """
    motion = clip.motion
    count = int(torch.randint(1, 6, (), generator=generator))
    frames = tuple(sorted(torch.randperm(len(motion), generator=generator)[:count].tolist()))
    if kind == "keyframes":
        return [keyframes(motion, frames)]
    if kind == "hands and feet":
        return [end_effectors(motion, frames, ("left_hand", "right_hand", "left_foot", "right_foot"))]
    path = encode(motion)[:, [0, 2]]
    if kind == "root path":
        return [RootPath(0, path)]
    at = torch.linspace(0, len(motion) - 1, 4).round().long()
    return [RootWaypoints(tuple(at.tolist()), path[at])]


def constraint_rows(model: TwoStageDenoiser, held_out: Sequence[Clip], extent: Extent, say=lambda line: None) -> list[Row]:
    """How closely constraints of every kind are met; see the module docstring."""
    clips = [shortened(clip, model.config.max_frames) for clip in spread_over(held_out, extent.clips)]
    prompts, contents = [clip.prompts[0] for clip in clips], [clip.content for clip in clips]
    given = dict(frames=[len(clip.motion) for clip in clips], heading=first_headings(clips), seed=2)
    free = generate(model, prompts, **given)
    rows = []
    for kind in KINDS:
        generator = torch.Generator().manual_seed(11)
        asked = [asked_of(clip, kind, generator) for clip in clips]
        ways = {
            "raw, as published": generate(model, prompts, constraints=asked, **given, **PUBLISHED),
            "raw, pulled": generate(model, prompts, constraints=asked, **given),
        }
        pulled = ways["raw, pulled"]
        ways["cleaned"] = [clean(motion, wanted).motion for motion, wanted in zip(pulled, asked, strict=True)]
        ways["prompt alone"] = free
        judged, target = JUDGED[kind]
        said = []
        for way, motions in ways.items():
            errors = [constraint_errors(motion, wanted) for motion, wanted in zip(motions, asked, strict=True)]
            goal = 0.01 if way == "cleaned" else target if way.startswith("raw") else None
            missed = _means(errors, judged)
            rows += row("constraints", kind, f"{judged} error, {way}", missed, "cm", target=goal and 100 * goal)
            said.append(f"{float(missed.nanmean()):.1f} cm {way}")
            if way == "prompt alone":
                continue
            if judged == "effector":
                turned = _means(errors, "effector_rotation", 1.0)
                rows += row("constraints", kind, f"rotation error, {way}", turned, "degrees")
            stood = feet(motions)
            rows += row("constraints", kind, f"foot skate, {way}", stood["foot skate"], "cm/s")
            rows += row("constraints", kind, f"contact accuracy, {way}", stood["contact accuracy"], "%")
            done = [follows(one, content) for one, content in zip(motions, contents, strict=True)]
            kept = torch.tensor([float("nan") if one is None else 100.0 * one for one in done], dtype=torch.float64)
            rows += row("constraints", kind, f"prompt followed, {way}", kept, "%")
        say(f"{kind}: {', '.join(said)} ({len(clips)} clips)")
    return rows


def solver_rows(model: TwoStageDenoiser, held_out: Sequence[Clip], extent: Extent, say=lambda line: None) -> list[Row]:
    """Keyframe errors and distance to the finest result of both solvers at several numbers of steps."""
    clips = [shortened(clip, model.config.max_frames) for clip in spread_over(held_out, extent.solver_clips)]
    generator = torch.Generator().manual_seed(13)
    asked = [asked_of(clip, "keyframes", generator) for clip in clips]
    given = dict(frames=[len(clip.motion) for clip in clips], constraints=asked, heading=first_headings(clips), seed=3)
    draw = lambda **how: generate(model, [clip.prompts[0] for clip in clips], **given, **how)
    finest = [motion.positions() for motion in draw(solver="ddim", steps=extent.ddim_steps)]
    rows = []
    for solver, steps in (("dpm", 10), ("dpm", 20), ("ddim", 10), ("ddim", 20), ("ddim", extent.ddim_steps)):
        start = time.perf_counter()
        made = draw(solver=solver, steps=steps)
        seconds, what = time.perf_counter() - start, f"{solver}, {steps} steps"
        errors = [constraint_errors(motion, wanted) for motion, wanted in zip(made, asked, strict=True)]
        rows += row("solver", what, "keyframe error", _means(errors, "keyframe"), "cm")
        apart = [100 * (motion.positions() - best).norm(dim=-1).mean() for motion, best in zip(made, finest, strict=True)]
        rows += row("solver", what, f"distance to ddim, {extent.ddim_steps} steps", torch.stack(apart).double(), "cm")
        rows.append(_plain("solver", what, "seconds", seconds, len(made), "s"))
        say(f"{what}: {float(_means(errors, 'keyframe').mean()):.1f} cm, {seconds:.1f} s")
    return rows


def _means(found: Sequence[Errors], name: str, scale: float = 100.0) -> Tensor:
    return torch.tensor([scale * one.means()[name] for one in found], dtype=torch.float64)


def _plain(table: str, what: str, metric: str, value: float, n: int, unit: str) -> Row:
    return Row(table, what, metric, float(value), float(value), float(value), n, unit)


def spread_over(clips: Sequence[Clip], count: int) -> list[Clip]:
    """`count` clips spread evenly over a set; those under 20 frames are left out.

    Raises:
        ValueError: when none is left.
    """
    long = [clip for clip in clips if len(clip.motion) >= 20]
    if not long:
        raise ValueError("there is no held-out clip of at least 20 frames to take constraints from.")
    return [long[int(i * len(long) / count)] for i in range(count)] if count < len(long) else long


def shortened(clip: Clip, longest: int) -> Clip:
    """The clip, or its first `longest` frames."""
    return clip if len(clip.motion) <= longest else replace(clip, motion=clip.motion.slice(0, longest))


def first_headings(clips: Sequence[Clip]) -> list[float]:
    """Where the bodies of clips face in their first frames, radians: what a denoiser is told of every clip in training."""
    return [float(heading(clip.motion.positions()[:1], clip.motion.skeleton)[0]) for clip in clips]


def held_out_clips(captured: str | Path | None = None, procedural: int = 160) -> list[Clip]:
    """Clips no training sees: takes held out of the captured set, where there is one, and procedural ones of another seed.

    Args:
        captured: folder of Bandai-Namco's clips; default: what KINELIB_DATA points at, or none.
        procedural: how many of these.
    """
    folder = captured or os.environ.get("KINELIB_DATA")
    found = [clip for clip in bandai_namco_clips(folder) if split(clip) == "test"] if folder else []
    return found + procedural_clips(procedural, TEST_SEED)


def evaluate_kimodo(
    json_path: str | Path | None = None,
    *,
    profile_name: str = "lab",
    stage: str = "denoiser",
    checkpoint: str | Path | None = None,
    captured: str | Path | None = None,
    say=lambda line: None,
) -> str:
    """Measures a denoiser and returns the tables as Markdown.

    Args:
        json_path: where the rows go; None writes nothing.
        profile_name: how much is measured, see `EXTENTS`.
        stage, checkpoint: which network, see `load_denoiser`.
        captured: folder of captured clips; see :func:`held_out_clips`.
        say: called with a line of progress.
    """
    extent = EXTENTS[profile(profile_name)]
    model = load_denoiser(stage, checkpoint)
    # What was trained on procedural motion alone is measured on that, wherever captured motion may be.
    held_out = procedural_clips(160, TEST_SEED) if stage == "procedural" else held_out_clips(captured)
    folder = Path(checkpoint or SHIPPED)
    evaluator = load_evaluator(folder / "evaluator") if (folder / "evaluator").is_dir() else None
    rows = text_rows(model, held_out, extent, evaluator, say)
    rows += constraint_rows(model, held_out, extent, say) + solver_rows(model, held_out, extent, say)
    if json_path is not None:
        sources = {clip.source: sum(other.source == clip.source for other in held_out) for clip in held_out}
        facts = {"stage": stage, "extent": asdict(extent), "held_out": sources}
        write_text_whole(Path(json_path), json.dumps(facts | {"rows": [asdict(one) for one in rows]}, indent=1) + "\n")
    return tables(rows)


def tables(rows: Sequence[Row]) -> str:
    """Markdown, one table of each kind."""
    parts = []
    for table in dict.fromkeys(one.table for one in rows):
        parts += [f"### {table}", "| what | metric | value [95 %] | n | target |", "|---|---|---|---|---|"]
        for one in rows:
            if one.table == table:
                interval = f" [{one.low:.3g}, {one.high:.3g}]" if one.low < one.high else ""
                goal = "" if one.target is None else f"{one.target:.3g}"
                parts.append(f"| {one.what} | {one.metric} | {one.value:.3g}{interval} {one.unit} | {one.n} | {goal} |")
        parts.append("")
    return "\n".join(parts)
