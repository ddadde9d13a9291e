"""Rows of the evaluation's tables: one number with its interval and everything that is needed to read it.

A number says how many clips or motions it rests on (`n`), among how many something was looked for (`gallery`), what
guessing reaches (`chance`), how often everything was drawn (`seeds`), and the target that was set before training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinelib.learning.intervals import Interval, bootstrap


@dataclass(frozen=True)
class Row:
    """One measured number."""

    table: str  # heading it stands under
    what: str  # system, prompt, kind of edit, ...
    metric: str
    value: float
    low: float  # 95 % interval: of a bootstrap over clips, or of the mean over repetitions
    high: float
    n: int  # clips or motions
    unit: str = ""
    target: float | None = None
    gallery: int | None = None  # to choose from, for retrieval
    chance: float | None = None  # what guessing, or doing nothing, reaches
    seeds: int = 1  # times that all was drawn


def over_clips(
    table: str, what: str, metric: str, values: Tensor, unit: str = "", *, groups: Sequence[str] | None = None, **more
) -> list[Row]:
    """The mean of values (N,), one a clip, with its interval; none when nothing is defined (NaN).

    Args:
        groups: N names; clips of one name are resampled together.
        more: other fields of the row.
    """
    known = torch.isfinite(values)
    if not known.any():
        return []
    own = values[known].double()
    names = None if groups is None else [name for name, there in zip(groups, known.tolist(), strict=True) if there]
    if len(own) < 2 or (names is not None and len(set(names)) < 2):
        return [Row(table, what, metric, float(own.mean()), float(own.mean()), float(own.mean()), len(own), unit, **more)]
    return [of_interval(table, what, metric, bootstrap(own, groups=names), unit, **more)]


def of_interval(table: str, what: str, metric: str, found: Interval, unit: str = "", **more) -> Row:
    """A row of an interval that is known already."""
    return Row(table, what, metric, found.value, found.low, found.high, found.count, unit, **more)


def over_repetitions(table: str, what: str, metric: str, values: Sequence[float], unit: str = "", *, n: int, **more) -> Row:
    """The mean over repetitions with Guo et al.'s interval, 1.96 spreads of the mean; `n` motions in each."""
    own = torch.tensor(list(values), dtype=torch.float64)
    half = 1.96 * float(own.std(correction=0)) / math.sqrt(len(own))
    mean = float(own.mean())
    return Row(table, what, metric, mean, mean - half, mean + half, n, unit, seeds=len(own), **more)


def plain(table: str, what: str, metric: str, value: float, n: int, unit: str = "", **more) -> Row:
    """A number without an interval."""
    return Row(table, what, metric, float(value), float(value), float(value), n, unit, **more)


def tables(rows: Sequence[Row]) -> str:
    """Markdown, a table for each heading, in the order of the rows."""
    parts = []
    for table in dict.fromkeys(one.table for one in rows):
        parts += [
            f"### {table}",
            "| what | metric | value [95 %] | n | gallery | chance | seeds | target |",
            "|---" * 8 + "|",
        ]
        for one in rows:
            if one.table == table:
                interval = f" [{one.low:.3g}, {one.high:.3g}]" if one.low < one.high else ""
                value = f"{one.value:.3g}{interval} {one.unit}".strip()
                rest = " | ".join("" if field is None else f"{field:.3g}" for field in (one.gallery, one.chance))
                goal = "" if one.target is None else f"{one.target:.3g}"
                parts.append(f"| {one.what} | {one.metric} | {value} | {one.n} | {rest} | {one.seeds} | {goal} |")
        parts.append("")
    return "\n".join(parts)
