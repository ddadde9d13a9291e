"""Bootstrap intervals over clips, so that every number of a table says how far it may be trusted.

The unit of resampling is the clip: tracks of one clip move together, so resampling tracks would give intervals that are
far too narrow. Clips cut from one video move together too: `groups` names each clip's video, and then whole videos are
resampled (a cluster bootstrap). Few clusters make a coarse interval: of two videos it is the range between them. Neither
the paper nor its release reports intervals; this is ours.

Shapes: per-clip values (B,), or (S, B) for S seeds of the same clips, which are averaged over seeds first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kinelib.notation import ShapeError

# Resamples are drawn as counts (rows, clips); this bounds the memory of one block to 32 MB.
BLOCK_VALUES = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean over clips with a bootstrap interval."""

    value: float  # mean over clips
    low: float  # lower end of the interval
    high: float  # upper end of the interval
    count: int  # clips the value rests on
    level: float = 0.95  # coverage of the interval
    clusters: int | None = None  # groups of clips that were resampled; None: the clips themselves

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]" if spec else str(self)


def bootstrap(
    values: Tensor | Sequence[float],
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean over clips and its percentile bootstrap interval.

    Args:
        values: (B,) one number a clip, or (S, B) for S seeds of the same B clips.
        groups: B names; clips of one name are resampled together. None: every clip by itself.
        level: coverage in (0, 1).
        resamples: bootstrap resamples.
        seed: the same seed gives the same interval.

    Raises:
        ShapeError: for fewer than 2 clips or groups, values that are not finite, another rank, or not one name a clip.
        ValueError: for a level outside (0, 1) or no resamples.
    """
    clips = _per_clip("values", values)
    sums, counts = (clips, None) if groups is None else _by_group(clips, groups)
    low, high = np.quantile(_resampled_means(sums, counts, resamples, seed), _tails(level))
    clusters = None if groups is None else sums.size
    return Interval(float(clips.mean()), float(low), float(high), clips.size, level, clusters)


def bootstrap_difference(
    ours: Tensor | Sequence[float],
    theirs: Tensor | Sequence[float],
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The interval of mean(ours - theirs) over the *same* clips in the same order.

    Pairing removes what makes a clip hard for everyone, so two methods whose own intervals overlap can still differ
    clearly: they do when this interval excludes 0.

    Raises:
        ShapeError: as :func:`bootstrap`, and when the numbers of clips differ.
    """
    a, b = _per_clip("ours", ours), _per_clip("theirs", theirs)
    if a.size != b.size:
        raise ShapeError(f"a paired comparison needs the same clips on both sides; got {a.size} and {b.size}.")
    return bootstrap(a - b, groups=groups, level=level, resamples=resamples, seed=seed)


def summarize(
    metrics: Mapping[str, Tensor],
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Turns per-clip metrics into intervals, leaving out clips for which a metric is undefined.

    Args:
        metrics: name -> (B,) values; NaN marks a clip where the metric has no meaning (no poked or no moving track).
            The interval's `count` says how many clips remain.
        groups: as in :func:`bootstrap`.

    Returns:
        Name -> Interval; a metric that is defined on fewer than 2 clips (or groups of clips) is left out.
    """
    table = {}
    for name, values in metrics.items():
        defined = ~torch.isnan(values)
        names = None if groups is None else [name for name, here in zip(groups, defined.tolist(), strict=True) if here]
        if (int(defined.sum()) if names is None else len(set(names))) >= 2:
            options = dict(groups=names, level=level, resamples=resamples, seed=seed)
            table[name] = bootstrap(values[defined], **options)
    return table


def markdown_table(rows: Mapping[str, Mapping[str, Interval]], columns: Sequence[str], *, digits: int = 2) -> str:
    """A Markdown table, one row a method, `value [low, high]` a cell, and a dash where a method lacks a column.

    Raises:
        ValueError: when no row has one of the columns, which is most likely a misspelling.
    """
    for column in columns:
        if not any(column in row for row in rows.values()):
            known = sorted({name for row in rows.values() for name in row})
            raise ValueError(f"no row has a column {column!r}; the columns are: {', '.join(known)}.")
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method, row in rows.items():
        cells = [format(row[column], f".{digits}f") if column in row else "-" for column in columns]
        lines.append("| " + " | ".join([method, *cells]) + " |")
    return "\n".join(lines)


def _per_clip(name: str, values: Tensor | Sequence[float]) -> np.ndarray:
    array = torch.as_tensor(values).detach().cpu().double().numpy()
    if array.ndim == 2:
        array = array.mean(axis=0)
    if array.ndim != 1 or array.size < 2:
        raise ShapeError(f"{name} must hold one number for each of at least 2 clips, (B,) or (S, B); got {array.shape}.")
    if not np.isfinite(array).all():
        raise ShapeError(
            f"{name} holds {int((~np.isfinite(array)).sum())} of {array.size} clips that are NaN or infinite. "
            "If the metric is undefined there (no poked or no moving track), use summarize(), which leaves them out."
        )
    return array


def _by_group(clips: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of clips of each group."""
    if len(groups) != clips.size:
        raise ShapeError(f"groups must name the group of each of {clips.size} clips; got {len(groups)} names.")
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ShapeError(f"all {clips.size} clips belong to {names[0]!r}; an interval over groups needs at least 2 of them.")
    return np.bincount(member, clips), np.bincount(member).astype(float)


def _resampled_means(sums: np.ndarray, counts: np.ndarray | None, resamples: int, seed: int) -> np.ndarray:
    """Means of resampled units: clips, or groups with the sums and counts of their clips."""
    if resamples < 1:
        raise ValueError(f"a bootstrap needs at least 1 resample; got {resamples}.")
    rows = max(1, BLOCK_VALUES // sums.size)
    # How often each unit is drawn is multinomial: one matrix product replaces a loop over resamples.
    blocks = [_draws(sums.size, resamples, seed)] if resamples <= rows else _drawn_blocks(sums.size, resamples, seed, rows)
    means = [draws @ sums / (sums.size if counts is None else draws @ counts) for draws in blocks]
    return np.concatenate(means)


@lru_cache(maxsize=2)
def _draws(units: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, units) how often each is drawn; a table asks for the same draws again for every metric."""
    return next(_drawn_blocks(units, resamples, seed, resamples))


def _drawn_blocks(units: int, resamples: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    generator, chances = np.random.default_rng(seed), np.full(units, 1 / units)
    for done in range(0, resamples, rows):
        yield generator.multinomial(units, chances, size=min(rows, resamples - done)).astype(float)


def _tails(level: float) -> list[float]:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), for example 0.95; got {level}.")
    return [(1 - level) / 2, (1 + level) / 2]
