"""Charts of numbers: how a training went, and methods side by side with their intervals.

Whatever has `value`, `low` and `high` can be drawn (`kinelib.learning.intervals.Interval` has). Axes carry units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kinelib.show.theme import BLUE, method_style, new_figure, themed


class HasInterval(Protocol):
    """A number with an interval around it."""

    value: float
    low: float
    high: float


@themed
def training_curve(
    log: str | Path | Sequence[Mapping[str, float]],
    keys: Sequence[str] = ("loss",),
    *,
    against: str = "step",
    smooth: int = 15,
    logarithmic: bool = True,
    title: str = "",
) -> Figure:
    """Losses over a training: every logged value pale, a running median on top.

    Args:
        log: a `log.jsonl` (or the folder that holds it), or its records.
        keys: one panel each.
        against: the record's key on the horizontal axis, "step" or "seconds".
        smooth: logged values in the running median.
        logarithmic: vertical scale, where all values are positive.
        title: text above the first panel.

    Raises:
        FileNotFoundError: when there is no log.
        ValueError: when no record has one of the keys.
    """
    records = read_log(log) if isinstance(log, str | Path) else list(log)
    units = {"step": "training step", "seconds": "training time (s)"}
    figure, axes = new_figure(1, len(keys), 4.2, 2.9)
    for panel, key in zip(axes[0], keys, strict=True):
        pairs = np.array(
            [(record[against], record[key]) for record in records if key in record and against in record], float
        )
        if not len(pairs):
            known = sorted({name for record in records for name in record})
            raise ValueError(f"the log has no {key!r} against {against!r}; it has: {', '.join(known) or 'no records'}.")
        x, y = pairs.T
        panel.plot(x, y, color=BLUE, alpha=0.25, linewidth=0.8)
        panel.plot(x, _running_median(y, smooth), color=BLUE, linewidth=1.6)
        panel.set(xlabel=units.get(against, against), ylabel=key)
        if logarithmic and (y > 0).all():
            panel.set_yscale("log")
            _plain_numbers(panel.yaxis)
    axes[0, 0].set_title(title)
    return figure


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The records of a `log.jsonl`, or of the folder that holds one; a half-written last line is left out."""
    path = Path(path)
    path = path / "log.jsonl" if path.is_dir() else path
    lines = path.read_text().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error
    return records


@themed
def compare_bars(
    results: Mapping[str, HasInterval],
    unit: str,
    *,
    title: str = "",
    target: float | None = None,
    digits: int = 2,
    logarithmic: bool = False,
) -> Figure:
    """One bar a method with its interval, in the order given; markers on a logarithmic axis, which has no zero.

    Args:
        results: method -> interval.
        unit: label of the value axis, for example "min MSE (px^2 at 128)".
        title: text above.
        target: a line to reach.
        digits: decimals of the printed values.
        logarithmic: value axis.
    """
    figure, axes = new_figure(1, 1, 5.2, 0.7 + 0.36 * len(results))
    panel = axes[0, 0]
    for row, (method, result) in enumerate(results.items()):
        colour, marker = method_style(method)
        panel.plot([result.low, result.high], [row, row], color="black", linewidth=1.4, solid_capstyle="butt", zorder=3)
        if logarithmic:
            panel.plot(result.value, row, color=colour, marker=marker, markersize=8, zorder=4)
        else:
            panel.barh(row, result.value, color=colour, height=0.62)
        panel.annotate(
            f"{result.value:.{digits}f}", (max(result.high, result.value), row), (4, 0), textcoords="offset points",
            va="center", fontsize=8.5,
        )  # fmt: skip
    if logarithmic:
        panel.set_xscale("log")
        _plain_numbers(panel.xaxis)
    if target is not None:
        panel.axvline(target, color="black", linestyle=":", linewidth=1.2)
        panel.annotate(
            f"target {target:g}",
            (target, 0),
            (3, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=8,
        )
    panel.set_yticks(range(len(results)), list(results))
    panel.invert_yaxis()
    panel.margins(x=0.14)
    panel.grid(False, axis="y")
    panel.set(xlabel=unit, title=title)
    return figure


@themed
def compare_lines(
    results: Mapping[str, Mapping[float, HasInterval]],
    unit: str,
    along: str,
    *,
    title: str = "",
    target: float | None = None,
    logarithmic: tuple[bool, bool] = (False, False),
) -> Figure:
    """One line a method over a setting such as the number of pokes, with intervals.

    Args:
        results: method -> setting -> interval.
        unit: label of the vertical axis.
        along: label of the horizontal axis, for example "pokes".
        title: text above.
        target: a line to reach.
        logarithmic: horizontal, vertical.
    """
    figure, axes = new_figure(1, 1, 5.4, 3.3)
    panel = axes[0, 0]
    if logarithmic[0]:
        panel.set_xscale("log", base=2)
    if logarithmic[1]:
        panel.set_yscale("log")
        _plain_numbers(panel.yaxis)
    settings = sorted({setting for line in results.values() for setting in line})
    for method, line in results.items():
        colour, marker = method_style(method)
        x = sorted(line)
        middle, low, high = ([getattr(line[at], end) for at in x] for end in ("value", "low", "high"))
        panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.plot(x, middle, color=colour, marker=marker, markersize=5.5, linewidth=1.5, label=method)
    if target is not None:
        panel.axhline(target, color="black", linestyle=":", linewidth=1.2, label=f"target {target:g}")
    panel.set_xticks(settings, [f"{setting:g}" for setting in settings])
    panel.xaxis.minorticks_off()
    panel.set(xlabel=along, ylabel=unit, title=title)
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _plain_numbers(axis: Axis) -> None:
    """Logarithmic ticks as 1, 2, 5, 10 instead of powers of ten, about as many as can be read."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Median over a centred window that shrinks at the ends."""
    half = max(window, 1) // 2
    return np.array([np.median(values[max(0, at - half) : at + half + 1]) for at in range(len(values))])
