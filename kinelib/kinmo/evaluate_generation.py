"""Generation measured: Guo et al.'s numbers with our own evaluator, and numbers that need none (KinMo, Tables 2 and 5).

Beside each other stand the flat baseline, which reads one sentence vector, and the same coarse-to-fine generator stopped
after each level; then shares `rho` of tokens drawn anew at a level, of which 1 forgets the levels before; held-out clips as
they are and after tokenizing, which is what the generator could reach at best.

    evaluator   captions of held-out clips, one motion each: R-precision among 32, FID, MM-Dist, Diversity, several times
    truth       fixed prompts, several samples each: geometric truth (`bodies.truth`), MModality, sliding feet, jerk

The evaluator is our own (`bodies.evaluator`), of 128 channels: no number of it can be compared with the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinelib.bodies.evaluator import MotionEvaluator
from kinelib.bodies.frechet import frechet_distance
from kinelib.bodies.humanml3d import FPS
from kinelib.bodies.motion import Motion
from kinelib.bodies.retrieval import mm_distance, r_precision
from kinelib.bodies.truth import TRUTH_PROMPTS, chance, follows, measure_all
from kinelib.kinmo.coarse_to_fine import KinMo, generate
from kinelib.kinmo.codec import decode_clips
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.rows import Row, of_interval, over_clips, over_repetitions
from kinelib.kinmo.tokens import MotionTokenizer
from kinelib.learning.intervals import bootstrap_difference
from kinelib.learning.text import TextEncoder

SECONDS = 4.0  # of every motion for a prompt
POOL = 32  # motions that a text chooses from
LOW = 0.05  # metres above the floor up to which a toe is on it
FLAT, BEST = "flat baseline", "+ interaction, rho 0.5"
TABLES = ("generation by evaluator", "generation without evaluator")


@dataclass(frozen=True)
class System:
    """One way to make motion from prompts."""

    model: KinMo
    options: dict = field(default_factory=dict)  # of `generate`

    def __call__(self, prompts: Sequence[str], seconds: float | Sequence[float], **more) -> list[Motion]:
        """Motions of prompts; see `generate`."""
        return generate(self.model, prompts, seconds, **self.options, **more)


def systems(model: KinMo, flat: KinMo | None) -> dict[str, System]:
    """Everything that is compared, by name."""
    found = {} if flat is None else {FLAT: System(flat)}
    levels = model.generator.config.levels
    names = ("global", "+ group", BEST)
    found |= {name: System(model, {"levels": level}) for level, name in enumerate(names[:levels], start=1)}
    if levels > 1:
        found |= {f"+ interaction, rho {rho:g}": System(model, {"remask": rho}) for rho in (0.16, 1.0)}
    return found


# ---- with the evaluator


def evaluator_rows(
    made: dict[str, System],
    tokenizer: MotionTokenizer,
    held_out: MotionTexts,
    evaluator: MotionEvaluator,
    *,
    captions: int,
    repetitions: int,
    seed: int = 0,
    encoder: TextEncoder | None = None,
    say: Callable = lambda line: None,
) -> list[Row]:
    """Guo et al.'s numbers for captions of held-out clips.

    Args:
        made: systems by name.
        tokenizer: of the reconstructed clips.
        held_out: clips, at least `POOL`.
        evaluator: trained on none of them.
        captions: clips of a repetition, at most all; whole pools of them.
        repetitions: draws of clips, wordings and motions.
        seed: of everything. encoder: of the evaluator's sentences. say: called with a line of progress.
    """
    count = min(captions, len(held_out)) // POOL * POOL
    if not count or repetitions < 1:
        raise ValueError(f"R-precision needs at least {POOL} held-out clips and one repetition; got {len(held_out)}.")
    longest = next(iter(made.values())).model.generator.config.longest
    found: dict[str, list[dict[str, float]]] = {}
    real = decode_clips([one[: 4 * longest] for one in held_out.frames.split(held_out.lengths.tolist())])
    true = evaluator.embed_motions(real)
    for repetition in range(repetitions):
        lots = torch.Generator().manual_seed(1000 * seed + repetition)
        rows = torch.randperm(len(held_out), generator=lots)[:count].tolist()
        said = [held_out.prompts[row] for row in rows]
        prompts = [one[int(torch.randint(len(one), (), generator=lots))] for one in said]
        seconds = [len(real[row]) / FPS for row in rows]
        texts = evaluator.embed_texts(prompts, encoder)
        others = true[torch.randperm(len(true), generator=lots)[:count]]
        tokenized = [reconstructed(tokenizer, held_out, row, longest) for row in rows]
        spaces = {"held-out clips": true[rows], "held-out clips, tokenized": evaluator.embed_motions(tokenized)}
        for name, system in made.items():
            spaces[name] = evaluator.embed_motions(system(prompts, seconds, seed=1000 * seed + repetition))
        for name, own in spaces.items():
            against = others if name == "held-out clips" else true[rows]
            found.setdefault(name, []).append(guo(texts, own, against, lots))
        say(f"repetition {repetition + 1} of {repetitions}: {len(made)} systems, {count} captions each")
    table, rows = TABLES[0], []
    for name, each in found.items():
        for metric in each[0]:
            ranked = metric.startswith("R@")
            more = {"gallery": POOL, "chance": int(metric[2:]) / POOL} if ranked else {}
            rows.append(over_repetitions(table, name, metric, [one[metric] for one in each], n=count, **more))
    if FLAT in found and BEST in found:
        for metric in ("R@1", "R@2", "R@3", "FID"):
            off = [ours[metric] - theirs[metric] for ours, theirs in zip(found[BEST], found[FLAT], strict=True)]
            rows.append(over_repetitions(table, f"{BEST} minus {FLAT}", metric, off, n=count, target=0.0))
    return rows


def guo(texts: Tensor, motions: Tensor, real: Tensor, generator: torch.Generator) -> dict[str, float]:
    """R-precision among 32, FID, MM-Dist and Diversity of embeddings (N, C); real ones (M, C) for the FID."""
    shares = r_precision(texts, motions, size=POOL)
    return {f"R@{depth}": share for depth, share in enumerate(shares, start=1)} | {
        "FID": frechet_distance(real, motions),
        "MM-Dist": mm_distance(texts, motions),
        "Diversity": diversity(motions, generator),
    }


def diversity(motions: Tensor, generator: torch.Generator, pairs: int = 300) -> float:
    """Mean distance between two random draws of up to `pairs` of N embeddings (N, C), at most half of them."""
    count = min(pairs, len(motions) // 2)
    draws = [torch.randperm(len(motions), generator=generator)[:count] for _ in range(2)]
    return float((motions[draws[0]] - motions[draws[1]]).double().norm(dim=-1).mean())


def multimodality(motions: Tensor) -> Tensor:
    """Mean distance (S,) of pairs of motions for one text, of embeddings (S, K, C): each with the one K / 2 further on."""
    half = motions.shape[1] // 2
    return (motions[:, :half] - motions[:, half : 2 * half]).double().norm(dim=-1).mean(1)


@torch.no_grad()
def reconstructed(tokenizer: MotionTokenizer, motions: MotionTexts, row: int, longest: int) -> Motion:
    """A clip after tokenizing."""
    start = int(motions.starts[row])
    features = motions.frames[start : start + int(motions.lengths[row])][None, : 4 * longest]
    made = tokenizer.decode(tokenizer.encode(features), torch.tensor([features.shape[1]]))
    return decode_clips([made[0, : features.shape[1]]])[0]


# ---- without an evaluator


def truth_rows(
    made: dict[str, System],
    held_out: MotionTexts,
    *,
    samples: int,
    seed: int = 0,
    evaluator: MotionEvaluator | None = None,
    say: Callable = lambda line: None,
) -> list[Row]:
    """Geometric truth, sliding feet and jerk of motions for `TRUTH_PROMPTS`; MModality where there is an evaluator.

    Args:
        made: systems by name.
        held_out: clips; those with a content of the prompts stand beside.
        samples: of every prompt. seed: of the draws.
        evaluator: for MModality. say: called with a line of progress.
    """
    table, rows = TABLES[1], []
    prompts, contents = zip(*TRUTH_PROMPTS, strict=True)
    of = [content for content in contents for _ in range(samples)]
    passed: dict[str, Tensor] = {}
    for name, system in made.items():
        motions = system(prompts, SECONDS, samples=samples, seed=seed)
        facts = measure_all(motions)
        passed[name] = torch.tensor([100.0 * bool(follows(one, what)) for one, what in zip(facts, of, strict=True)])
        by_content = {what: [one for one, own in zip(facts, of, strict=True) if own == what] for what in contents}
        more = dict(groups=of, target=90.0 if name == BEST else None, chance=100 * chance(by_content))
        rows += over_clips(table, name, "geometric truth", passed[name], "%", **more)
        if name == BEST:
            for prompt, content in TRUTH_PROMPTS:
                own = passed[name][torch.tensor([one == content for one in of])]
                rows += over_clips(table, f"{name}: {prompt}", "geometric truth", own, "%")
        for metric, (values, unit) in quality(motions).items():
            rows += over_clips(table, name, metric, values, unit, groups=of)
        if evaluator is not None and samples > 1:
            spaces = evaluator.embed_motions(motions).unflatten(0, (len(prompts), samples))
            rows += over_clips(table, name, "MModality", multimodality(spaces))
        say(f"{name}: geometric truth {float(passed[name].mean()):.0f} %")
    if FLAT in passed and BEST in passed:
        found = bootstrap_difference(passed[BEST], passed[FLAT], groups=of)
        rows.append(of_interval(table, f"{BEST} minus {FLAT}", "geometric truth", found, "points", target=0.0))
    chosen = [row for row, label in enumerate(held_out.labels) if label.split("/")[0] in contents]
    if chosen:
        kept = held_out.pick(chosen)
        real, names = decode_clips(kept.frames.split(kept.lengths.tolist())), [one.split("/")[0] for one in kept.labels]
        pairs = zip(measure_all(real), names, strict=True)
        right = torch.tensor([100.0 * bool(follows(one, what)) for one, what in pairs])
        rows += over_clips(table, "held-out clips", "geometric truth", right, "%", groups=names)
        for metric, (values, unit) in quality(real).items():
            rows += over_clips(table, "held-out clips", metric, values, unit, groups=names)
    return rows


def quality(motions: Sequence[Motion]) -> dict[str, tuple[Tensor, str]]:
    """How fast toes on the floor slide, and jerk, of every motion (N,); NaN where no toe is ever down."""
    slides, jerks = [], []
    for motion in motions:
        joints, skeleton = motion.positions(), motion.skeleton
        toes = joints[:, skeleton.contact_joints[1::2]]
        low = toes[..., 1] - toes[..., 1].amin() < LOW
        speed = 100 * motion.fps * toes.diff(dim=0)[..., [0, 2]].norm(dim=-1)
        down = low[1:] & low[:-1]
        slides.append(speed[down].mean() if down.any() else torch.tensor(torch.nan))
        enough = len(joints) > 3
        jerks.append(joints.diff(n=3, dim=0).norm(dim=-1).mean() * motion.fps**3 if enough else torch.tensor(torch.nan))
    return {"slide of toes on the floor": (torch.stack(slides), "cm/s"), "jerk": (torch.stack(jerks), "m/s^3")}
