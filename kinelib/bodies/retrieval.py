"""How well texts find their motions, and motions their texts: TMR's protocols (a) to (d), R-precision and MM-Dist.

`scores` (N, N) are similarities, row i a text and column i its own motion. Rank 0 is best; a query whose answer ties with
others gets the average of their ranks. R@k is the percentage of queries with a rank below k, MedR the median rank plus 1.

    (a) `everything`       among all N
    (b) `with_threshold`   the same, but a motion of a text that says nearly the same counts as found
    (c) `on_subset`        (a) on few clips that are as different as can be (`most_different` chooses some)
    (d) `small_batches`    (a) among 32 at a time, averaged

A gallery of 32 is an easier question than one of 4,384: every result carries the size of its gallery and what guessing would
reach there, and is not comparable with a result of another size.

Sources: Petrovich et al., "TMR", ICCV 2023, Section 4; R-precision and MM-Dist: Guo et al., CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinelib.bodies.tmr import similarity
from kinelib.notation import ShapeError, check_finite, check_shape

DEPTHS = (1, 2, 3, 5, 10)
THRESHOLD = 0.95  # of (cosine + 1) / 2, above which TMR takes two texts for the same
KIMODO_THRESHOLD = 0.98  # in Kimodo's benchmark, where the stated 0.99 is a cosine


@dataclass(frozen=True)
class Retrieval:
    """Numbers of one protocol; percentages, and ranks from 1."""

    text_to_motion: dict[str, float]  # R@1, R@2, R@3, R@5, R@10, MedR
    motion_to_text: dict[str, float]  # the same, the other way
    gallery: int  # how many there were to choose from
    queries: int  # how many were asked
    chance: dict[str, float]  # what guessing reaches in this gallery, both ways

    def rounded(self) -> dict[str, float]:
        """The release's table: names such as t2m/R01 and m2t/MedR, two decimals, and the gallery as t2m/len."""
        table = {}
        for way, numbers in (("t2m", self.text_to_motion), ("m2t", self.motion_to_text)):
            for name, value in numbers.items():
                table[f"{way}/{f'R{int(name[2:]):02d}' if name.startswith('R@') else name}"] = round(value, 2)
            table[f"{way}/len"] = float(self.gallery)
        return table


def everything(scores: Tensor) -> Retrieval:
    """Protocol (a): ranks among all N.

    Args:
        scores: (N, N) similarities, rows texts, columns motions.

    Raises:
        ShapeError: when scores are not square, empty, or NaN.
    """
    scores = _checked(scores)
    size = len(scores)
    return _summary(ranks(scores), ranks(scores.T), size, _guessing(torch.ones(size), size))


def with_threshold(
    scores: Tensor, texts: Tensor, threshold: float = THRESHOLD, *, right_ties_count: bool = True
) -> Retrieval:
    """Protocol (b): the best of all motions whose text says nearly the same counts.

    Args:
        scores: (N, N) similarities, rows texts, columns motions.
        texts: (N, C) sentence vectors of the texts, in the same order.
        threshold: (cosine + 1) / 2 of two texts above which they say the same. From motion to text it is used likewise.
        right_ties_count: as released, right answers that tie with each other share their ranks: where one sentence stands
            ten times, the best that a motion can do is rank 4.5. False: only wrong answers push a right one down.

    Raises:
        ShapeError: when the two do not fit each other.
    """
    scores = _checked(scores)
    check_shape("texts", texts, "N C", N=len(scores))
    same = similarity(texts.double(), texts.double()).to(scores.device) > 2 * threshold - 1
    same.fill_diagonal_(True)  # a vector of zeros, an empty text, is at least itself
    guessing = _guessing(same.sum(1), len(scores))
    found = [ranks(one, same, right_ties_count=right_ties_count) for one in (scores, scores.T)]
    return _summary(*found, len(scores), guessing)


def on_subset(scores: Tensor, rows: Sequence[int] | Tensor) -> Retrieval:
    """Protocol (c): protocol (a) among the given clips only, which should be different from each other.

    Raises:
        ShapeError: when a row repeats or is not there.
    """
    rows = torch.as_tensor(rows)
    if len(rows.unique()) != len(rows) or not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= len(scores):
        raise ShapeError(f"a subset names different rows among 0..{len(scores) - 1}; got {rows.tolist()[:10]}.")
    return everything(scores[rows][:, rows])


def most_different(texts: Tensor, count: int = 100) -> list[int]:
    """Rows of `count` texts (N, C) that differ much: each next one is farthest from its nearest chosen one.

    The first is the one farthest from the others on average. TMR's own list names 100 clips of HumanML3D; how it was made is
    not published.

    Raises:
        ValueError: when there are fewer than `count` texts.
    """
    if not 1 <= count <= len(texts):
        raise ValueError(f"{count} of {len(texts)} texts cannot be chosen.")
    cosine = similarity(texts, texts)
    chosen = [int(cosine.mean(1).argmin())]
    nearest = cosine[chosen[0]].clone()
    while len(chosen) < count:
        nearest[chosen] = torch.inf
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, cosine[chosen[-1]])
    return chosen


def small_batches(scores: Tensor, names: Sequence[str] | None = None, *, size: int = 32, seed: int = 0) -> Retrieval:
    """Protocol (d): protocol (a) in disjoint random batches, every number averaged over them; what is left over is dropped.

    Args:
        scores: (N, N) similarities, rows texts, columns motions.
        names: N names of the clips, by which they are sorted before they are shuffled; None: they are in order.
        size: clips a batch.
        seed: of the shuffle, which is the release's.

    Raises:
        ShapeError: when there are fewer clips than one batch has, or names do not fit.
    """
    scores = _checked(scores)
    if len(scores) < size:
        raise ShapeError(f"batches of {size} need at least {size} clips; got {len(scores)}.")
    if names is not None and len(names) != len(scores):
        raise ShapeError(f"{len(names)} names do not fit {len(scores)} clips.")
    order = np.arange(len(scores))
    np.random.RandomState(seed).shuffle(order)
    by_name = np.arange(len(scores)) if names is None else np.array(sorted(range(len(scores)), key=lambda i: names[i]))
    order = by_name[order]
    batches = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    results = [on_subset(scores, batch) for batch in batches]
    mean = lambda part: {key: float(np.mean([part(one)[key] for one in results])) for key in part(results[0])}
    return Retrieval(
        mean(lambda one: one.text_to_motion),
        mean(lambda one: one.motion_to_text),
        gallery=size,
        queries=size * len(batches),
        chance=results[0].chance,
    )


def ranks(scores: Tensor, right: Tensor | None = None, *, right_ties_count: bool = True) -> Tensor:
    """Ranks (N,) of the right answers, from 0; where several have the same score, the average of theirs.

    Args:
        scores: (N, M) similarities of queries (rows) and answers (columns).
        right: (N, M) which answers are right, of which the best counts; None: answer i of query i.
        right_ties_count: whether other right answers of the same score count among those that share ranks.
    """
    answers = scores.diag()[:, None] if right is None else scores.masked_fill(~right, -torch.inf)
    own = answers.amax(1, keepdim=True)
    better, equal = (scores > own).sum(1), scores == own
    if right is not None and not right_ties_count:
        return better + (equal & ~right).sum(1) / 2
    return better + (equal.sum(1) - 1) / 2


def r_precision(texts: Tensor, motions: Tensor, *, size: int = 32, depth: int = 3) -> tuple[float, ...]:
    """Shares of texts whose motion is among the 1, 2, ... `depth` nearest of `size` (Euclidean); Guo et al.

    Args:
        texts, motions: (N, C) embeddings in pairs; batches are cut in this order and what is left over is dropped.
        size: motions to choose from, 31 of them wrong ones.
        depth: how many shares.

    Raises:
        ShapeError: when there are fewer pairs than one batch has.
    """
    check_shape("motions", motions, "N C", N=len(texts), C=texts.shape[-1])
    if len(texts) < size:
        raise ShapeError(f"R-precision over {size} needs at least {size} pairs; got {len(texts)}.")
    batches = len(texts) // size
    split = lambda x: rearrange(x[: batches * size].double(), "(b n) c -> b n c", n=size)
    distance = torch.cdist(split(texts), split(motions), compute_mode="donot_use_mm_for_euclid_dist")
    found = torch.cat([ranks(-one) for one in distance])
    return tuple(float((found < k).double().mean()) for k in range(1, depth + 1))


def mm_distance(texts: Tensor, motions: Tensor) -> float:
    """Mean Euclidean distance of texts (N, C) and their motions (N, C)."""
    check_shape("motions", motions, "N C", N=len(texts), C=texts.shape[-1])
    return float((texts.double() - motions.double()).norm(dim=-1).mean())


def _checked(scores: Tensor) -> Tensor:
    check_shape("scores", scores, "N N", N=len(scores))
    if not len(scores):
        raise ShapeError("there is nothing to retrieve: scores are empty.")
    check_finite("scores", scores)
    return scores


def _summary(of_texts: Tensor, of_motions: Tensor, gallery: int, chance: dict[str, float]) -> Retrieval:
    return Retrieval(_numbers(of_texts), _numbers(of_motions), gallery, len(of_texts), chance)


def _numbers(found: Tensor) -> dict[str, float]:
    found = found.double()
    numbers = {f"R@{depth}": 100 * float((found < depth).double().mean()) for depth in DEPTHS}
    # The middle of an even number of ranks is between the two in the middle; torch's median takes the lower one.
    return numbers | {"MedR": float(found.quantile(0.5)) + 1}


def _guessing(right: Tensor, gallery: int) -> dict[str, float]:
    """What a random order reaches, on average over queries with so many right answers (N,) each."""
    right = right.double()
    missed, numbers = torch.ones_like(right), {}
    for place in range(max(DEPTHS)):
        # The next answer is wrong too: as many wrong ones are left as there are answers without the right ones.
        missed = missed * ((gallery - right - place) / max(gallery - place, 1)).clamp(0, 1)
        if place + 1 in DEPTHS:
            numbers[f"R@{place + 1}"] = 100 * float(1 - missed.mean())
    # The best of r right answers among N is on average the (N + 1) / (r + 1)-th.
    return numbers | {"MedR": float(((gallery + 1) / (right + 1)).quantile(0.5))}
