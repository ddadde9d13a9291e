"""The compression ablation in three panels, and a verdict on every trend the paper reports, computed from the rows.

Paper: the figure of the compression ablation: generation against speed, generation against reconstruction, and kNN
accuracy, each over the temporal compression t_c. A verdict is a test, not an opinion: a trend over t_c is tested by
permuting t_c within every seed (Page's statistic, by simulation), a difference by its t interval over seeds. Seeds share
scenes, so both speak about training again, not about other scenes.

Rows are plain dicts, one a training: "mode", "t_c", "seed", "min_mse", "delta_avg", "sample_seconds", "sample_gflops",
"knn" (control -> feature -> k -> percent) and "chance" ("draw", "majority").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata
from scipy.stats import t as student

from kinelib.show.theme import BLUE, GREEN, GREY, ORANGE, new_figure, themed

APPEARS, OPPOSITE, UNCLEAR = "appears", "the opposite", "not clear"
TITLES = {"compute": "equal compute", "steps": "equal steps"}
CONTROLS = {
    "trained": (BLUE, "o", "trained encoder"),
    "untrained": (ORANGE, "s", "untrained (fit only)"),
    "random": (GREY, "v", "random encoder"),
    "raw": (GREEN, "^", "raw tracks"),
}


@dataclass(frozen=True)
class Trend:
    """A statement of the paper and what our rows say about it."""

    claim: str  # in words
    change: float  # mean over seeds: from the least to the most compression, or of the difference
    low: float  # 95 % t interval of it over seeds; NaN for a single seed
    high: float
    p: float  # of the permutation test in the claim's direction; NaN where the interval decides
    seeds: int  # complete seeds
    verdict: str  # "appears", "the opposite" or "not clear"


def value_of(row: Mapping, name: str) -> float:
    """A number of a row, nested ones by dotted names such as "knn.trained.flat.5"."""
    for part in name.split("."):
        if part not in row:
            raise KeyError(f"rows have no {name!r}: {part!r} is not among {', '.join(map(str, row))}.")
        row = row[part]
    return float(row)


def with_controls(rows: Iterable[Mapping]) -> list[dict]:
    """The rows, each with the kNN controls that any row of the same t_c and seed measured: they need no training."""
    rows = [dict(row) for row in rows]
    known: dict[tuple, dict] = {}
    for row in rows:
        known.setdefault((row["t_c"], row["seed"]), {}).update({w: a for w, a in row["knn"].items() if w != "trained"})
    return [row | {"knn": {**known[row["t_c"], row["seed"]], **row["knn"]}} for row in rows]


def by_seed(rows: Iterable[Mapping], mode: str, name: str) -> dict[int, dict[int, float]]:
    """seed -> t_c -> value, for the seeds of a mode that have every t_c which any of its seeds has.

    Raises:
        ValueError: when the mode has no row.
    """
    table: dict[int, dict[int, float]] = {}
    for row in rows:
        if row["mode"] == mode:
            table.setdefault(row["seed"], {})[row["t_c"]] = value_of(row, name)
    if not table:
        raise ValueError(f"there is no row of mode {mode!r}.")
    factors = set().union(*table.values())
    return {seed: dict(sorted(line.items())) for seed, line in sorted(table.items()) if set(line) == factors}


def trend(table: Mapping[int, Mapping[int, float]], claim: str, direction: int, *, draws: int = 20_000) -> Trend:
    """Tests whether values rise (direction 1) or fall (-1) with t_c.

    Args:
        table: seed -> t_c -> value, as from :func:`by_seed`.
        claim: in words.
        direction: 1 or -1.
        draws: random permutations behind p.

    Raises:
        ValueError: for fewer than 1 complete seed or 3 t_c, or another direction.
    """
    if direction not in (1, -1):
        raise ValueError(f"direction is 1 (rises) or -1 (falls); got {direction}.")
    values = np.array([list(line.values()) for line in table.values()], float)
    if values.ndim != 2 or values.shape[1] < 3:
        raise ValueError(f"a trend needs at least one complete seed of 3 t_c; got {values.shape} (seeds, t_c).")
    ranks = direction * rankdata(values, axis=1)
    order = np.arange(1, values.shape[1] + 1)
    seen = (ranks @ order).sum()
    shuffled = np.random.default_rng(0).permuted(np.broadcast_to(ranks, (draws, *ranks.shape)), axis=2)
    chance = (shuffled @ order).sum(1)
    p = (1 + (chance >= seen - 1e-9).sum()) / (1 + draws)
    against = (1 + (chance <= seen + 1e-9).sum()) / (1 + draws)
    verdict = APPEARS if p < 0.05 else OPPOSITE if against < 0.05 else UNCLEAR
    return Trend(claim, *_interval(values[:, -1] - values[:, 0]), float(p), len(values), verdict)


def difference(values: Sequence[float], claim: str) -> Trend:
    """Tests whether a difference, one value a seed, is above zero, by its t interval; a single seed is never clear."""
    middle, low, high = _interval(np.asarray(values, float))
    verdict = APPEARS if low > 0 else OPPOSITE if high < 0 else UNCLEAR
    return Trend(claim, middle, low, high, float("nan"), len(values), verdict)


def verdicts(rows: Iterable[Mapping], mode: str, knn: str = "flat.5") -> list[Trend]:
    """Every trend of the paper's figure, and three comparisons that give its kNN curve a meaning.

    Args:
        rows: of the sweep.
        mode: "compute" or "steps".
        knn: feature and k of the accuracy.
    """
    rows = with_controls(rows)
    table = lambda name: by_seed(rows, mode, name)
    error, accuracy = table("min_mse"), table(f"knn.trained.{knn}")
    found = [
        trend(error, "Min-MSE falls with t_c (px^2)", -1),
        trend(table("sample_gflops"), "sampling gets cheaper (GFLOP a clip)", -1),
        trend(table("delta_avg"), "reconstruction gets worse (delta_avg, points)", -1),
        trend(accuracy, "motion classes come together (kNN, points)", 1),
    ]
    factors = sorted(next(iter(error.values())))
    if len(factors) > 3:
        falls = [-np.diff([line[t_c] for t_c in factors]) for line in error.values()]
        found.append(
            difference([f[:-1].mean() - f[-1] for f in falls], "Min-MSE flattens: the last doubling gains less (px^2)")
        )
    most = factors[-1]
    for control in ("raw", "random", "untrained"):
        other = table(f"knn.{control}.{knn}")
        over = [accuracy[seed][most] - other[seed][most] for seed in accuracy]
        found.append(difference(over, f"kNN at t_c {most}: trained above {CONTROLS[control][2]} (points)"))
    return found


def verdict_table(rows: Iterable[Mapping], modes: Sequence[str] = ("compute", "steps"), knn: str = "flat.5") -> str:
    """The verdicts of every mode side by side, as Markdown."""
    rows = list(rows)
    columns = [verdicts(rows, mode, knn) for mode in modes]
    seeds = [
        f"{TITLES[mode]} ({column[0].seeds} seed{'s' * (column[0].seeds != 1)})"
        for mode, column in zip(modes, columns, strict=True)
    ]
    lines = ["| statement | " + " | ".join(seeds) + " |", "|---" * (len(modes) + 1) + "|"]
    for same in zip(*columns, strict=True):
        lines.append(f"| {same[0].claim} | " + " | ".join(_said(one) for one in same) + " |")
    return "\n".join(lines)


def best_factor(rows: Iterable[Mapping], mode: str, name: str = "min_mse") -> int:
    """The t_c whose mean over complete seeds is least."""
    table = by_seed(rows, mode, name)
    factors = next(iter(table.values()))
    return min(factors, key=lambda t_c: np.mean([line[t_c] for line in table.values()]))


@themed
def ablation_panels(rows: Iterable[Mapping], modes: Sequence[str] = ("compute", "steps"), *, knn: str = "flat.5") -> Figure:
    """The paper's three panels, a row of them a mode: means over seeds, bars from the least to the largest seed.

    Args:
        rows: of the sweep; seeds that lack a t_c are left out.
        modes: "compute", "steps".
        knn: feature and k of the accuracy, such as "pooled.1".
    """
    rows = with_controls(rows)
    figure, axes = new_figure(len(modes), 3, 4.1, 2.8)
    for line, mode in zip(axes, modes, strict=True):
        error, fine = by_seed(rows, mode, "min_mse"), by_seed(rows, mode, "delta_avg")
        seconds = by_seed(rows, mode, "sample_seconds")
        faster = {seed: {t_c: cost[min(cost)] / cost[t_c] for t_c in cost} for seed, cost in seconds.items()}
        _labelled_path(line[0], faster, error)
        least = min(next(iter(error.values())))
        line[0].set(xlabel=f"sampling speed, times that of t_c {least}", ylabel="Min-MSE of 8 (px² at 128)")
        line[0].set_xscale("log")
        speeds = [speed for one in faster.values() for speed in one.values()]
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= 1.3 * max(speeds)]
        line[0].set_xticks(ticks, [f"{tick}x" for tick in ticks])
        line[0].xaxis.minorticks_off()
        line[0].set_title(f"{TITLES[mode]}: generation and speed")
        _labelled_path(line[1], fine, error)
        line[1].set(xlabel="reconstruction, delta_avg (%)", ylabel="Min-MSE of 8 (px² at 128)")
        line[1].set_title("generation and reconstruction")
        _accuracies(line[2], rows, mode, knn)
    return figure


@themed
def neighbour_panels(
    rows: Iterable[Mapping], modes: Sequence[str] = ("compute",), *, knn: Sequence[str] = ("flat.5", "pooled.5")
) -> Figure:
    """kNN accuracy over t_c beside its controls: a row of panels a mode, a column a feature and k."""
    rows = with_controls(rows)
    figure, axes = new_figure(len(modes), len(knn), 4.6, 2.8)
    for line, mode in zip(axes, modes, strict=True):
        for panel, name in zip(line, knn, strict=True):
            _accuracies(panel, rows, mode, name)
            panel.set_title(f"{TITLES[mode]}, {name.split('.')[0]} features")
        for panel in line[:-1]:
            panel.get_legend().remove()
    return figure


def _labelled_path(panel: Axes, across: Mapping, up: Mapping) -> None:
    """Seed means joined in the order of t_c, each with its t_c beside it."""
    factors = list(next(iter(up.values())))
    spread = lambda table: np.array([[line[t_c] for line in table.values()] for t_c in factors])
    x, y = spread(across), spread(up)
    bars = lambda values: np.stack([values.mean(1) - values.min(1), values.max(1) - values.mean(1)])
    panel.errorbar(
        x.mean(1), y.mean(1), bars(y), bars(x), color=BLUE, marker="o", markersize=5, linewidth=1.3, elinewidth=0.8
    )
    for t_c, a, b in zip(factors, x.mean(1), y.mean(1), strict=True):
        panel.annotate(f"{t_c}", (a, b), (5, 4), textcoords="offset points", fontsize=8.5, weight="bold")
    panel.margins(0.12, 0.15)


def _accuracies(panel: Axes, rows: Sequence[Mapping], mode: str, knn: str) -> None:
    """kNN accuracy over t_c, of the trained encoder and of what nobody trained."""
    for control, (colour, marker, label) in CONTROLS.items():
        table = by_seed(rows, mode, f"knn.{control}.{knn}")
        factors = list(next(iter(table.values())))
        values = np.array([[line[t_c] for line in table.values()] for t_c in factors])
        style = dict(color=colour, marker=marker, markersize=5, label=label, linewidth=1.6 if control == "trained" else 1.0)
        panel.plot(factors, values.mean(1), **style)
        panel.fill_between(factors, values.min(1), values.max(1), color=colour, alpha=0.15, linewidth=0)
    guess = max(value_of(rows[0], f"chance.{name}") for name in ("draw", "majority"))
    panel.axhline(guess, color="black", linestyle=":", linewidth=1.2, label="most frequent class")
    panel.set_xscale("log", base=2)
    panel.set_xticks(factors, [f"{t_c}" for t_c in factors])
    panel.xaxis.minorticks_off()
    feature, k = knn.split(".")
    panel.set(xlabel="temporal compression t_c", ylabel=f"accuracy (%), {feature}, k = {k}", ylim=(0, None))
    panel.set_title("motion class by nearest neighbours")
    panel.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % t interval; NaN ends for a single value."""
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def _said(one: Trend) -> str:
    interval = "" if np.isnan(one.low) else f" [{one.low:.1f}, {one.high:.1f}]"
    p = "" if np.isnan(one.p) else f", p = {one.p:.2g}"
    return f"**{one.verdict}**: {one.change:+.1f}{interval}{p}"
