"""The rows of an evaluation: numbers with everything one needs to read them, as JSON and as Markdown tables.

Three kinds of rows (`Row.table`): "reconstruction" and "generation" are the mean of a metric over clips; "difference" is
the mean over the same clips of a method's metric minus ours, so that an interval above zero says that ours has the smaller
error. Neither the paper nor its release gives intervals or differences.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kinelib.learning.files import write_text_whole
from kinelib.learning.intervals import Interval
from kinelib.zipmo.evaluation_data import SCORED

# Stated before training, for scenes; see RESULTS.md.
TARGETS = {
    ("reconstruction", "zipmo", "px_moving", 40): 3.0,
    ("reconstruction", "zipmo", "delta_avg", 40): 85.0,
    ("reconstruction", "zipmo", "delta_avg_moving", 40): 80.0,
    **{("generation", "zipmo", "epe", pokes): 4.0 for pokes in (1, 2, 4, 8)},
    **{("generation", "zipmo, snap", "epe", pokes): 1.5 for pokes in (1, 2, 4, 8)},
}
# What the tables for people show; the JSON has every metric.
SHOWN = {
    "reconstruction": ("px", "px_moving", "px_static", "delta_avg", "delta_avg_moving"),
    "generation": ("min_mse", "mean_mse", "mean_track_mse", "min_mse_moving", "min_mse_static", "epe", "diversity_std"),
    "difference": ("min_mse", "mean_mse", "mean_track_mse", "min_mse_moving", "epe"),
}
UNITS = {
    "reconstruction": "pixels at 256, held-out query points",
    "generation": "pixels at 128",
    "difference": "method minus zipmo on the same clips, pixels at 128; above zero: zipmo is better",
}


@dataclass(frozen=True)
class Row:
    """One measured number: how it was measured, its interval, and its target if it has one."""

    table: str  # "reconstruction", "generation" or "difference"
    method: str  # "zipmo", "zipmo, VARIANT" or a baseline
    setting: int  # encoded tracks, or pokes asked for; 40 pokes are dense, every scored track
    metric: str
    value: float
    low: float  # 95 % bootstrap interval
    high: float
    n: int  # clips
    seeds: int  # of the sampler's noise, averaged clip by clip
    k: int = 1  # samples drawn of each clip
    given: int | None = None  # pokes the method got; fewer than asked when it takes no more
    dataset: str = "scenes"  # or "real video", or "real video: SOURCE"
    clusters: int | None = None  # videos (or windows) that the interval resamples; None: the clips themselves
    target: float | None = None


def make_rows(intervals: Mapping[str, Interval], **shared) -> list[Row]:
    """A row for each metric -> interval; `shared` are the other fields, targets are looked up."""
    on_scenes = shared.get("dataset", "scenes") == "scenes"
    place = (shared["table"], shared["method"], shared["setting"])
    return [
        Row(
            metric=metric,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            n=interval.count,
            clusters=interval.clusters,
            target=TARGETS.get((*place[:2], metric, place[2])) if on_scenes else None,
            **shared,
        )
        for metric, interval in intervals.items()
    ]


def with_baselines(rows: Iterable[Row]) -> list[dict]:
    """Rows as dicts; zipmo's carry the baselines' values of the same table, dataset, setting and metric, with their n."""
    rows = list(rows)
    theirs: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        if not row.method.startswith("zipmo"):
            found = theirs.setdefault((row.table, row.dataset, row.setting, row.metric), {})
            # A method may be measured on all clips and again on the first few: take the larger set.
            if row.n > found.get(row.method, {"n": 0})["n"]:
                found[row.method] = {"value": row.value, "n": row.n, "given": row.given}
    return [
        asdict(row)
        | (
            {"baselines": theirs.get((row.table, row.dataset, row.setting, row.metric), {})}
            if row.method.startswith("zipmo") and row.table != "difference"
            else {}
        )
        for row in rows
    ]


def save_results(path: str | Path, rows: Iterable[Row], **facts) -> None:
    """Writes the JSON file: the given facts, and one line a row; complete or not at all."""
    head = json.dumps(facts, indent=1)[:-2]  # up to the last value, so that the rows can follow
    lines = ",\n".join("  " + json.dumps(row, allow_nan=False) for row in with_baselines(rows))
    write_text_whole(path, f'{head},\n "rows": [\n{lines}\n ]\n}}\n')


def card_metrics(rows: list[dict], stage: str) -> dict[str, str]:
    """What the card of a stage says it reaches: name -> value with interval, from the rows of an evaluation's JSON."""
    wanted = {
        "autoencoder": ("reconstruction", "zipmo", ("px_moving", "delta_avg", "delta_avg_moving")),
        "planner": ("generation", "zipmo", ("min_mse", "mean_mse", "epe")),
        "regression": ("generation", "regression", ("min_mse", "epe")),
        "direct": ("generation", "direct", ("min_mse", "mean_mse", "epe")),
        "autoregressive": ("generation", "autoregressive", ("min_mse", "mean_mse", "epe")),
    }
    table, method, metrics = wanted[stage]
    what = "encoded tracks" if table == "reconstruction" else "pokes"
    units = {"scenes": "held-out scenes", "real video": "held-out windows of real video"}
    return {
        f"{row['metric']}, {row['setting']} {what}, {row['n']} {units[row['dataset']]}": (
            f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        )
        for row in rows
        if (row["table"], row["method"]) == (table, method) and row["metric"] in metrics and row["dataset"] in units
    }


def tables(rows: Iterable[Row]) -> str:
    """Markdown for people: a table for each kind of row and dataset, and one of the best of k samples."""
    rows = list(rows)
    blocks = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        for table, metrics in SHOWN.items():
            some = [row for row in rows if (row.dataset, row.table) == (dataset, table)]
            if some:
                blocks.append(_table(f"{table.title()}, {dataset}", UNITS[table], some, metrics))
        curve = [row for row in rows if row.dataset == dataset and row.metric.startswith("min_mse_of_")]
        if curve:
            metrics = sorted({row.metric for row in curve}, key=lambda name: int(name.rsplit("_", 1)[1]))
            what = "expected smallest error of k of the K samples, pixels at 128"
            blocks.append(_table(f"Best of k, {dataset}", what, curve, metrics))
    return "\n\n".join(blocks)


def _table(title: str, unit: str, rows: list[Row], metrics: Iterable[str]) -> str:
    """One Markdown table; a row of it is what was measured in one go."""
    metrics = [name for name in metrics if any(row.metric == name for row in rows)]
    what = "encoded tracks" if rows[0].table == "reconstruction" else "pokes"
    found: dict[tuple, dict[str, str]] = {}
    for row in rows:
        key = (row.setting, row.given, row.method, row.seeds, row.k)
        cells = found.setdefault(key, {"n": str(row.n)})
        cells[row.metric] = f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
        cells["n"] = str(max(int(cells["n"]), row.n))
        if row.clusters is not None:
            cells["clusters"] = f" in {row.clusters}"
    lines = [f"**{title}** ({unit}; mean over n clips with 95 % bootstrap interval)", ""]
    lines += [f"| {what} | method | n x seeds | K | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 4) + "|"]
    for (setting, given, method, seeds, k), cells in sorted(found.items(), key=lambda item: item[0][0]):
        dense = "dense" if what == "pokes" and setting == SCORED else str(setting)
        asked = dense if given in (None, setting) else f"{dense} ({given} given)"
        size = f"{cells['n']}{cells.get('clusters', '')} x {seeds}"
        lines.append(f"| {asked} | {method} | {size} | {k} | " + " | ".join(cells.get(m, "-") for m in metrics) + " |")
    return "\n".join(lines)
