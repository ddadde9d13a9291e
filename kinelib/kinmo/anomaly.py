"""How far a gait is from normal ones, and how well that tells elderly and exhausted walkers apart.

A clip is described by a vector; its score is the mean distance to the nearest of a reference set of normal gaits, in units
of the reference's spread. No label but "normal" is learned from, and nothing is trained. Two descriptions:

    kinematic   mean and spread over time of the pose, the steps and the turning, of HumanML3D's features
    aligner     where the motion is in the shared space, which was trained with words about styles on other takes

An anomaly is not an illness: styles here are played by actors, few of them, and a threshold means nothing for other people.
How good a score is says the area under its ROC curve, with a bootstrap interval over takes; half is guessing. Walking speed
alone stands beside it, since whoever walks slowly is easily told.

Shapes: N clips, C channels of a description, M reference clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kinelib.bodies.humanml3d import FPS, SLICES
from kinelib.kinmo.aligner import HierarchicalAligner
from kinelib.kinmo.codec import mirrored
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.retrieve import embed_motions
from kinelib.kinmo.rows import Row
from kinelib.notation import ShapeError, check_shape

GAITS = ("walk", "walk-turn-left", "walk-turn-right")
NORMAL, OTHER = "normal", ("elderly", "exhausted", "old", "tired")  # styles
NEIGHBOURS = 3
FLOOR = 0.1  # of the mean spread, below which a channel's own spread is not believed


@dataclass(frozen=True)
class GaitReference:
    """Normal gaits, in units of their spread; made by :meth:`learn`."""

    mean: Tensor  # (C,)
    spread: Tensor  # (C,)
    vectors: Tensor  # (M, C) normalised
    neighbours: int = NEIGHBOURS

    @classmethod
    def learn(cls, vectors: Tensor, neighbours: int = NEIGHBOURS) -> GaitReference:
        """A reference of descriptions (M, C) of normal gaits.

        Raises:
            ShapeError: when there are not more clips than neighbours.
        """
        count = check_shape("vectors", vectors, "M C")["M"]
        if count <= neighbours:
            raise ShapeError(f"a reference needs more than {neighbours} clips of normal gait; got {count}.")
        spread, mean = torch.std_mean(vectors.double(), dim=0, correction=0)
        spread = spread.clamp_min(FLOOR * float(spread.mean())).clamp_min(1e-9)
        return cls(mean, spread, (vectors.double() - mean) / spread, neighbours)

    def score(self, vectors: Tensor) -> Tensor:
        """How far (N,) gaits of descriptions (N, C) are from the reference: per channel, in spreads."""
        check_shape("vectors", vectors, "N C", C=len(self.mean))
        apart = torch.cdist((vectors.double() - self.mean) / self.spread, self.vectors)
        return apart.topk(self.neighbours, largest=False).values.mean(1) / len(self.mean) ** 0.5


def kinematic_vectors(clips: Sequence[Tensor]) -> Tensor:
    """Descriptions (N, 2 * 67) of features (T, 263) of clips: of root and joint positions, the mean and spread over time."""
    found = []
    for features in clips:
        own = features[:, : SLICES["positions"].stop]
        spread, mean = torch.std_mean(own, dim=0, correction=0)
        found.append(torch.cat([mean, spread]))
    return torch.stack(found)


def speeds(clips: Sequence[Tensor]) -> Tensor:
    """Mean speed (N, 1) over the floor, m/s, of features (T, 263) of clips."""
    return torch.stack([FPS * features[:, 1:3].norm(dim=-1).mean() for features in clips])[:, None]


@dataclass(frozen=True)
class Roc:
    """How a score tells others from normal ones."""

    false_alarms: np.ndarray  # share of normal clips above each threshold, from the highest on
    found: np.ndarray  # share of the others
    area: float
    low: float  # 95 % bootstrap interval over takes
    high: float
    normal: int  # clips
    other: int


def roc(
    normal: Tensor, other: Tensor, takes: tuple[Sequence[str], Sequence[str]], *, resamples: int = 1000, seed: int = 0
) -> Roc:
    """The ROC curve of scores of normal (N,) and other (M,) clips.

    Args:
        takes: names of the takes the clips are from, of both; takes are resampled whole, normal and others apart.
        resamples, seed: of the bootstrap.

    Raises:
        ShapeError: when one of the two is empty, or names do not fit.
    """
    if not len(normal) or not len(other) or (len(takes[0]), len(takes[1])) != (len(normal), len(other)):
        raise ShapeError(
            f"a ROC needs clips of both kinds with a take each; got {len(normal)} normal and {len(other)} others."
        )
    a, b = (scores.double().numpy() for scores in (normal, other))
    # Wins of every other clip over every normal one; ties count half.
    wins = (b[:, None] > a[None]) + 0.5 * (b[:, None] == a[None])
    rng, areas = np.random.default_rng(seed), []
    for _ in range(resamples):
        weights = [_drawn(names, rng) for names in takes]
        areas.append(weights[1] @ wins @ weights[0] / (weights[0].sum() * weights[1].sum()))
    low, high = np.quantile(areas, [0.025, 0.975])
    edges = np.unique(np.concatenate([a, b]))[::-1]
    shares = [np.concatenate([[0.0], [(scores >= edge).mean() for edge in edges]]) for scores in (a, b)]
    return Roc(*shares, float(wins.mean()), float(low), float(high), len(a), len(b))


def _drawn(takes: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """How often each clip is in a resample of whole takes."""
    _, member = np.unique(np.asarray(takes), return_inverse=True)
    count = int(member.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count))[member].astype(float)


def gait_rows(train: MotionTexts, held_out: MotionTexts, aligner: HierarchicalAligner | None = None) -> list[Row]:
    """Areas under the ROC on held-out captured gaits, against a reference of normal gaits of the training takes.

    Args:
        train: clips, of which the normal gaits and their mirror images are the reference.
        held_out: clips of other takes. aligner: trained on `train`; None: without its rows.

    Returns:
        rows; none when there are not enough captured gaits.
    """
    reference = gaits(train, (NORMAL,))
    normal, other = gaits(held_out, (NORMAL,)), gaits(held_out, OTHER)
    if reference is None or len(reference) <= NEIGHBOURS or normal is None or other is None:
        return []
    ways: dict[str, Callable[[MotionTexts], Tensor]] = {
        "kinematic": lambda clips: kinematic_vectors(_features(clips)),
        "walking speed alone": lambda clips: speeds(_features(clips)),
    }
    if aligner is not None:
        ways["aligner"] = lambda clips: torch.nn.functional.normalize(embed_motions(aligner, clips), dim=-1)
    rows = []
    for way, describe in ways.items():
        known = GaitReference.learn(torch.cat([describe(one) for one in (reference, reflected(reference))]))
        scores = known.score(describe(normal)), known.score(describe(other))
        for styles in (OTHER, *((style,) for style in OTHER)):
            chosen = [row for row, label in enumerate(other.labels) if label.split("/")[1] in styles]
            if not chosen:
                continue
            takes = [_take(name) for name in normal.names], [_take(other.names[row]) for row in chosen]
            found = roc(scores[0], scores[1][chosen], takes)
            what = f"{way}: {', '.join(styles)} ({found.other}) against normal ({found.normal})"
            count = found.normal + found.other
            rows.append(
                Row("gait anomaly", what, "area under the ROC", found.area, found.low, found.high, count, chance=0.5)
            )
    return rows


def gaits(motions: MotionTexts, styles: Sequence[str]) -> MotionTexts | None:
    """Captured gaits of some styles; None when there are none."""
    parts = [label.split("/") for label in motions.labels]
    rows = [
        row
        for row, (content, style) in enumerate(parts)
        if content in GAITS and style in styles and motions.sources[row] != "procedural"
    ]
    return motions.pick(rows) if rows else None


def reflected(motions: MotionTexts) -> MotionTexts:
    """The same clips in the mirror; their words stay as they are."""
    columns = {name: getattr(motions, name) for name in ("prompts", "groups", "interactions", "labels", "sources", "names")}
    return MotionTexts(mirrored(motions.frames), motions.lengths, **columns)


def _features(motions: MotionTexts) -> list[Tensor]:
    return list(motions.frames.split(motions.lengths.tolist()))


def _take(name: str) -> str:
    """The take a window is from."""
    return name.split("@")[0]
