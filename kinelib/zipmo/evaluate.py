"""Measures a trained ZipMo on held-out scenes beside its baselines; behind ``python -m kinelib evaluate zipmo``.

Reconstruction: 5 to 40 tracks are encoded, 40 others are decoded and scored in pixels at 256 (protocol section 3.2 of the
paper's release, exact canvas). Generation: K = 8 samples for 1, 2, 4 and 8 end-point pokes, the first tracks in file
order, 40 tracks scored in pixels at 128 (section 3.1). Moving and static points apart; intervals are bootstrapped over
clips; every number stands beside those of the baselines, and beside its target where it has one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from kinelib.learning.profiles import Profile, profile
from kinelib.zipmo import baselines
from kinelib.zipmo.autoencoder import TrackAutoencoder
from kinelib.zipmo.benchmark import evaluate_generation
from kinelib.zipmo.data import TEST_SEED, Clips, scene_clips
from kinelib.zipmo.forecast import LatentForecast
from kinelib.zipmo.intervals import Interval, summarize
from kinelib.zipmo.pretrained import SHIPPED, load_baselines, load_latent
from kinelib.zipmo.protocol import reconstruction_metrics

SCORED = 40  # tracks a clip, as in the paper's benchmark
MOVING = 4.0  # pixels at 256 a point must leave its start by, at some time, to count as moving


@dataclass(frozen=True)
class Extent:
    """How much an evaluation measures."""

    clips: int  # held-out scenes
    seeds: int  # of the sampler's noise
    pokes: tuple[int, ...] = (1, 2, 4, 8)  # poke counts
    encoded: tuple[int, ...] = (5, 10, 20, 40)  # tracks the autoencoder sees
    samples: int = 8  # K
    dear_clips: int = 32  # scenes of the methods in `DEAR`, with one seed
    batch: int = 32  # clips at a time


EXTENTS = {
    Profile.SMOKE: Extent(32, 1, (1, 4), (10, 40)),
    Profile.LAB: Extent(256, 3),
    Profile.PAPER: Extent(1024, 3),
}
# The direct model costs an order of magnitude more, the gradient correction decodes at every solver step, and snapping only
# edits what the raw row measures.
DEAR = ("zipmo, gradient", "zipmo, snap", "direct")
# Stated before training; see the README's table of results.
TARGETS = {
    ("reconstruction", "px_moving", 40): 3.0,
    ("reconstruction", "delta_avg", 40): 85.0,
    ("reconstruction", "delta_avg_moving", 40): 80.0,
    **{("zipmo", "epe", pokes): 4.0 for pokes in (1, 2, 4, 8)},
    **{("zipmo, snap", "epe", pokes): 1.5 for pokes in (1, 2, 4, 8)},
}


@dataclass(frozen=True)
class Row:
    """One measured number: how it was measured, its interval, and its target if it has one."""

    table: str  # "reconstruction" or "generation"
    method: str  # "zipmo", "zipmo, CORRECTION" or a baseline
    setting: int  # encoded tracks, or pokes
    metric: str
    value: float
    low: float
    high: float
    n: int
    seeds: int
    target: float | None = None


def moving_points(tracks: Tensor) -> Tensor:
    """(B, N) bool: points that leave their start by more than `MOVING` pixels at 256."""
    return (tracks - tracks[:, :, :1]).norm(dim=-1).amax(-1) * 128 > MOVING


@torch.no_grad()
def reconstruct(autoencoder: TrackAutoencoder, clips: Clips, encoded: int, batch: int = 32) -> Tensor:
    """Decodes the last 40 tracks of every clip from the first `encoded`: (M, 40, T, 2)."""
    decoded = []
    for rows in torch.arange(len(clips)).split(batch):
        some = clips.pick(rows)
        tracks, frame = some.tracks.float(), some.model_frames()
        features = autoencoder.features(frame)
        mean = autoencoder.encode(tracks[:, :encoded], frame, features=features).mean
        decoded.append(autoencoder.decode(mean, frame, tracks[:, -SCORED:, 0], tracks.shape[2], features))
    return torch.cat(decoded)


def reconstruction_rows(autoencoder: TrackAutoencoder, clips: Clips, extent: Extent) -> list[Row]:
    """Ours, static and copy-nearest-track at every number of encoded tracks."""
    tracks = clips.tracks.float()
    truth, moving = tracks[:, -SCORED:], moving_points(tracks[:, -SCORED:])
    rows = []
    for encoded in extent.encoded:
        answers = {
            "zipmo": reconstruct(autoencoder, clips, encoded, extent.batch),
            "static": truth[:, :, :1].expand_as(truth),
            "copy_nearest_track": baselines.copy_nearest_track(tracks[:, :encoded], truth[:, :, 0]),
        }
        for method, answer in answers.items():
            intervals = summarize(reconstruction_metrics(answer, truth, moving))
            targets = {m: TARGETS.get(("reconstruction", m, encoded)) if method == "zipmo" else None for m in intervals}
            rows += [_row("reconstruction", method, encoded, m, i, 1, targets[m]) for m, i in intervals.items()]
    return rows


def forecasters(latent: LatentForecast, folder: str | Path | None) -> dict[str, Callable]:
    """Ours with and without corrections, and every baseline, by the name tables use."""
    from dataclasses import replace

    simple = ("static", "copy_nearest", "linear", "linear_local", "constant_velocity")
    return {
        "zipmo": latent,
        "zipmo, gradient": replace(latent, correction="gradient"),
        "zipmo, snap": replace(latent, correction="snap"),
        **{name: getattr(baselines, name) for name in simple},
        **load_baselines(folder),
    }


def generation_rows(methods: Mapping[str, Callable], clips: Clips, extent: Extent, say=lambda line: None) -> list[Row]:
    """Every method at every poke count; forecasters with one answer are asked with one seed."""
    rows = []
    for method, forecast in methods.items():
        few = extent.dear_clips if method in DEAR else len(clips)
        truth = clips.tracks[:few, :SCORED].float()
        frame, moving = clips.pick(torch.arange(len(truth))).model_frames(), moving_points(truth)
        seeds = [43 + i for i in range(extent.seeds if method == "zipmo" else 1)]
        counts = [n for n in extent.pokes if n or method not in ("zipmo, gradient", "zipmo, snap")]
        options = {"samples": extent.samples, "seeds": seeds, "batch": extent.batch}
        scores = evaluate_generation(forecast, frame, truth, counts, moving=moving, **options)

        for pokes, metrics in scores.items():
            intervals = summarize(metrics)
            targets = {name: TARGETS.get((method, name, pokes)) for name in intervals}
            rows += [_row("generation", method, pokes, m, i, len(seeds), targets[m]) for m, i in intervals.items()]
            shown = [name for name in ("min_mse", "mean_mse", "epe") if name in intervals]
            say(f"{method}, {pokes} pokes: " + ", ".join(f"{name} {intervals[name].value:.1f}" for name in shown))
    return rows


def _row(table: str, method: str, setting: int, metric: str, interval: Interval, seeds: int, target: float | None) -> Row:
    return Row(table, method, setting, metric, interval.value, interval.low, interval.high, interval.count, seeds, target)


def evaluate(
    json_path: str | Path | None = None,
    *,
    profile_name: str = "lab",
    checkpoint: str | Path | None = None,
    say=lambda line: None,
) -> str:
    """Measures everything and returns the tables as Markdown.

    Args:
        json_path: where the rows go; None writes nothing.
        profile_name: how much is measured, see `EXTENTS`.
        checkpoint: folder with the trained stages; default: the shipped ones.
        say: called with a line of progress.

    Raises:
        ValueError: for an unknown profile.
        FileNotFoundError: when the checkpoint folder lacks the autoencoder or the planner.
    """
    extent = EXTENTS[profile(profile_name)]
    latent = load_latent(checkpoint)
    clips = scene_clips(extent.clips, TEST_SEED, size=latent.autoencoder.config.frame_size)
    rows = reconstruction_rows(latent.autoencoder, clips, extent)
    rows += generation_rows(forecasters(latent, checkpoint), clips, extent, say)
    if json_path is not None:
        path = Path(json_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        content = {"checkpoint": str(checkpoint or SHIPPED.name), "extent": asdict(extent), "rows": with_baselines(rows)}
        partial.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(partial, path)
    return tables(rows, extent)


def with_baselines(rows: list[Row]) -> list[dict]:
    """Rows as dicts; zipmo's carry the baselines' values of the same table, setting and metric."""
    theirs: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        if not row.method.startswith("zipmo"):
            theirs.setdefault((row.table, row.setting, row.metric), {})[row.method] = {"value": row.value, "n": row.n}
    return [
        asdict(row)
        | ({"baselines": theirs.get((row.table, row.setting, row.metric), {})} if row.method.startswith("zipmo") else {})
        for row in rows
    ]


def card_metrics(rows: list[dict], stage: str) -> dict[str, str]:
    """What the card of a stage says it reaches: name -> value with interval, from the rows of an evaluation's JSON."""
    wanted = {
        "autoencoder": ("reconstruction", "zipmo", ("px_moving", "delta_avg", "delta_avg_moving")),
        "planner": ("generation", "zipmo", ("min_mse", "mean_mse", "epe")),
        "regression": ("generation", "regression", ("min_mse", "epe")),
        "direct": ("generation", "direct", ("min_mse", "mean_mse", "epe")),
    }
    table, method, metrics = wanted[stage]
    what = "encoded tracks" if table == "reconstruction" else "pokes"
    return {
        f"{row['metric']}, {row['setting']} {what}, {row['n']} held-out scenes": (
            f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        )
        for row in rows
        if (row["table"], row["method"]) == (table, method) and row["metric"] in metrics
    }


def tables(rows: list[Row], extent: Extent) -> str:
    """The two tables people look at, as Markdown."""
    shown = {
        "reconstruction": ("px", "px_moving", "px_static", "delta_avg", "delta_avg_moving"),
        "generation": ("min_mse", "mean_mse", "mean_track_mse", "min_mse_moving", "epe", "diversity_std"),
    }
    lines = []
    for table, metrics in shown.items():
        unit = (
            "pixels at 256, held-out query points" if table == "reconstruction" else f"pixels at 128, K = {extent.samples}"
        )
        what = "encoded tracks" if table == "reconstruction" else "pokes"
        lines += ["", f"**{table.title()}** ({unit}; held-out scenes, 95 % intervals over them)", ""]
        lines += [f"| {what} | method | n x seeds | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 3) + "|"]
        found: dict[tuple[int, str], dict[str, str]] = {}
        for row in rows:
            if row.table == table:
                cells = found.setdefault((row.setting, row.method), {"n": f"{row.n} x {row.seeds}"})
                cells[row.metric] = f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for (setting, method), cells in sorted(found.items(), key=lambda item: item[0][0]):
            lines.append(f"| {setting} | {method} | " + " | ".join(cells.get(m, "-") for m in ("n", *metrics)) + " |")
    return "\n".join(lines[1:])
