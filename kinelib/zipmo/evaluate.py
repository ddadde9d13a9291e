"""Measures a trained ZipMo on held-out data beside its baselines; behind ``python -m kinelib evaluate zipmo``.

Reconstruction: 5 to 40 tracks are encoded, 40 others are decoded and scored in pixels at 256 (the release's protocol,
exact canvas). Generation: K = 8 samples, and K = 128 of fewer clips, for 1, 2, 4, 8 and 16 end-point pokes and for dense
ones, the first tracks in file order, 40 tracks scored in pixels at 128 (paper, section 4). On scenes and on real video;
moving and static points apart; intervals are bootstrapped over clips, or over videos.

Dense means that all 40 scored tracks are poked. A network that was trained on fewer pokes gets as many as it takes (the
first ones), and its rows say so (`Row.given`); the other methods of that row got all 40.
Each measurement is kept beside the JSON file as soon as it is done, and an interrupted evaluation goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kinelib.learning.intervals import bootstrap_difference, summarize
from kinelib.learning.profiles import Profile, profile
from kinelib.zipmo import baselines, benchmark, protocol
from kinelib.zipmo.autoencoder import TrackAutoencoder
from kinelib.zipmo.data import Clips
from kinelib.zipmo.evaluation_data import SCORED, Benchmark, moving_points, real_benchmark, scene_benchmark
from kinelib.zipmo.forecast import LatentForecast
from kinelib.zipmo.ledger import Ledger
from kinelib.zipmo.pretrained import SHIPPED, load_baselines, load_latent
from kinelib.zipmo.protocol import Protocol, reconstruction_metrics
from kinelib.zipmo.refine import Refinement, refine_latents
from kinelib.zipmo.results import SHOWN, Row, make_rows, save_results, tables

DENSE = SCORED  # pokes: every scored track has one
OFFICIAL = "zipmo, official settings"
MANY = "zipmo, many samples"
REFINED = "zipmo, refined"
# The direct and the autoregressive model cost an order of magnitude more than the latent one, the gradient correction
# decodes at every solver step, and many samples and 50 solver steps cost what their names say: they get fewer clips and
# one seed. Snapping only edits what the raw row measures.
DEAR = {
    "zipmo, gradient": "dear_clips",
    "zipmo, snap": "dear_clips",
    "direct": "dear_clips",
    "autoregressive": "dear_clips",
    MANY: "few_clips",
    OFFICIAL: "few_clips",
}
CURVE = (1, 2, 4, 8, 16, 32, 64, 128)  # k of the expected best of k, measured with many samples


@dataclass(frozen=True)
class Extent:
    """How much an evaluation measures."""

    clips: int  # held-out scenes
    seeds: int  # of the sampler's noise
    pokes: tuple[int, ...] = (1, 2, 4, 8, 16, DENSE)  # poke counts
    encoded: tuple[int, ...] = (5, 10, 20, 40)  # tracks the autoencoder sees
    samples: int = 8  # K
    many: int = 128  # K of "zipmo, many samples"
    dear_clips: int = 32  # clips of the methods in `DEAR`, with one seed
    few_clips: int = 16  # clips of the dearest of them
    real_clips: int = 128  # held-out windows of real video, at most
    official_steps: int = 50  # solver steps of the official settings
    batch: int = 32  # clips at a time


EXTENTS = {
    Profile.SMOKE: Extent(32, 1, (1, 4, DENSE), (10, 40), many=32, dear_clips=8, few_clips=4, real_clips=24),
    Profile.LAB: Extent(256, 3),
    Profile.PAPER: Extent(1024, 3, dear_clips=256, few_clips=128),
}


@dataclass(frozen=True)
class Scores:
    """What one method did at one poke count, clip by clip."""

    method: str
    setting: int  # pokes asked for
    given: int  # pokes it got
    samples: int  # K
    seeds: int
    metrics: dict[str, Tensor]  # name -> (n,), the first n clips of the benchmark
    seconds: float  # the forecasts and their scoring took

    @property
    def n(self) -> int:
        """Clips it was measured on."""
        return len(self.metrics["min_mse"])


@torch.no_grad()
def reconstruct(
    autoencoder: TrackAutoencoder,
    clips: Clips,
    encoded: int,
    batch: int = 32,
    *,
    decoded: int = SCORED,
    sampled: torch.Generator | None = None,
    refined: Refinement | None = None,
) -> Tensor:
    """Decodes the last tracks of every clip from the first `encoded`.

    Args:
        autoencoder: a trained one.
        clips: M of them.
        encoded: tracks the encoder sees.
        batch: clips at a time.
        decoded: tracks that are decoded, the last ones; officially 80, half of which the encoder saw.
        sampled: draws latents from the posterior, as officially; None decodes its mean.
        refined: how latents are corrected before they are decoded; None: not at all, as in the paper.

    Returns:
        (M, decoded, T, 2).
    """
    parts = []
    for rows in torch.arange(len(clips)).split(batch):
        some = clips.pick(rows)
        tracks, frame = some.tracks.float(), some.model_frames()
        features = autoencoder.features(frame)
        posterior = autoencoder.encode(tracks[:, :encoded], frame, features=features)
        latents = posterior.mean if sampled is None else posterior.sample(sampled)
        if refined is not None:
            latents = refine_latents(autoencoder, latents, tracks[:, :encoded], frame, how=refined, features=features)
        parts.append(autoencoder.decode(latents, frame, tracks[:, -decoded:, 0], tracks.shape[2], features))
    return torch.cat(parts)


def reconstruction_rows(autoencoder: TrackAutoencoder, clips: Clips | Benchmark, extent: Extent) -> list[Row]:
    """Ours, static and copy-nearest-track at every number of encoded tracks; on real video also by source.

    At the largest number there are also ours with refined latents, which cost fifty times as much; and at 40 the release's
    way: latents drawn instead of their mean, 80 tracks scored of which the encoder saw half, and a canvas of 255 pixels.
    """
    held_out = _benchmark(clips)
    tracks = held_out.clips.tracks.float()
    truth = tracks[:, -SCORED:]
    rows = []
    for encoded in extent.encoded:
        answers = {
            "zipmo": (reconstruct(autoencoder, held_out.clips, encoded, extent.batch), truth, None),
            "static": (truth[:, :, :1].expand_as(truth), truth, None),
            "copy_nearest_track": (baselines.copy_nearest_track(tracks[:, :encoded], truth[:, :, 0]), truth, None),
        }
        if encoded == max(extent.encoded):
            answer = reconstruct(autoencoder, held_out.clips, encoded, extent.batch, refined=Refinement())
            answers[REFINED] = (answer, truth, None)
        if encoded == 40 and tracks.shape[1] >= 80:
            both, generator = tracks[:, :80], torch.Generator().manual_seed(43)
            first = replace(held_out.clips, tracks=held_out.clips.tracks[:, :80])
            answer = reconstruct(autoencoder, first, encoded, extent.batch, decoded=80, sampled=generator)
            answers[OFFICIAL] = (answer, both, Protocol.official())
        for method, (answer, right, how) in answers.items():
            metrics = reconstruction_metrics(answer, right, moving_points(right), protocol=how)
            shared = dict(table="reconstruction", method=method, setting=encoded, seeds=1)
            rows += _rows_by_source(metrics, held_out, shared)
    return rows


def forecasters(latent: LatentForecast, folder: str | Path | None, official_steps: int = 50) -> dict[str, Callable]:
    """Ours with and without corrections, and every baseline, by the name tables use; the dearest ones last."""
    simple = ("static", "copy_nearest", "linear", "linear_local", "constant_velocity")
    return {
        **{name: getattr(baselines, name) for name in simple},
        "zipmo": latent,
        **load_baselines(folder),
        "zipmo, snap": replace(latent, correction="snap"),
        "zipmo, gradient": replace(latent, correction="gradient"),
        OFFICIAL: replace(latent, steps=official_steps),
        MANY: latent,
    }


def most_pokes(forecast: Callable) -> int | None:
    """The most pokes a forecaster takes: the smallest `max_pokes` of its networks' configs; None when there is no limit."""
    parts = [forecast, *getattr(forecast, "__dict__", {}).values()]
    configs = [part.config for part in parts if isinstance(part, nn.Module) and hasattr(part, "config")]
    return min((config.max_pokes for config in configs if hasattr(config, "max_pokes")), default=None)


def measure_generation(
    methods: Mapping[str, Callable],
    held_out: Benchmark,
    extent: Extent,
    ledger: Ledger | None = None,
    say=lambda line: None,
) -> list[Scores]:
    """Every method at every poke count, clip by clip; forecasters with one answer are asked with one seed.

    Args:
        methods: name -> forecaster; names in `DEAR` get fewer clips.
        held_out: what they are measured on, its first clips when there are fewer.
        extent: how much.
        ledger: keeps finished measurements; None keeps none.
        say: called with a line a measurement.
    """
    ledger = ledger or Ledger()
    scores = []
    for method, forecast in methods.items():
        count = min(len(held_out), getattr(extent, DEAR[method]) if method in DEAR else len(held_out))
        clips = held_out.clips.pick(torch.arange(count))
        truth, frame = clips.tracks[:, :SCORED].float(), clips.model_frames()
        samples = extent.many if method == MANY else extent.samples
        options = dict(
            samples=samples,
            seeds=[43 + i for i in range(extent.seeds if method == "zipmo" else 1)],
            batch=max(1, extent.batch * 8 // max(samples, 8)),  # memory goes with clips times samples
            curve=CURVE if method == MANY else (),
            protocol=Protocol.official() if method == OFFICIAL else Protocol(),
        )
        limit = most_pokes(forecast)
        for setting in extent.pokes:
            if not setting and method in ("zipmo, gradient", "zipmo, snap"):
                continue  # there is nothing to correct
            given = setting if limit is None else min(setting, limit)

            def work(given=given, forecast=forecast, frame=frame, truth=truth, options=options):
                start, moving = time.perf_counter(), moving_points(truth)
                table = benchmark.evaluate_generation(forecast, frame, truth, (given,), moving=moving, **options)
                return table[given], time.perf_counter() - start

            rules = (benchmark.evaluate_generation, protocol.generation_metrics, moving_points)
            inputs = [forecast, frame, truth, given, {name: options[name] for name in sorted(options)}, rules]
            metrics, seconds = ledger.measure(inputs, work)
            drawn = int(metrics["k"].max())
            scores.append(Scores(method, setting, given, drawn, len(options["seeds"]), metrics, seconds))
            shown = {name: metrics[name].nanmean() for name in ("min_mse", "mean_mse", "epe") if name in metrics}
            values = ", ".join(f"{name} {float(value):.1f}" for name, value in shown.items())
            say(f"{held_out.name}: {method}, {given} pokes: {values} ({count} clips, {seconds:.0f} s)")
    return scores


def score_rows(scores: list[Scores], held_out: Benchmark) -> list[Row]:
    """The rows of measured scores, every metric; on real video also by source."""
    rows = []
    for each in scores:
        metrics = {name: values for name, values in each.metrics.items() if name != "k"}
        rows += _rows_by_source(metrics, held_out, _shared(each))
    return rows


def comparison_rows(scores: list[Scores], held_out: Benchmark) -> list[Row]:
    """Methods beside ours on the very same clips.

    For every method: the interval of its error minus ours on the clips both were measured on, at equal K and pokes asked
    for. Where a method was measured on fewer clips than ours: our own row on those, "zipmo, first n clips".
    """
    ours = {each.setting: each for each in scores if each.method == "zipmo"}
    rows, sizes = [], set()
    for each in scores:
        mine = ours.get(each.setting)
        if mine is None or each is mine or each.samples > mine.samples:
            continue
        n = min(each.n, mine.n)
        if n < mine.n and (each.setting, n) not in sizes:
            sizes.add((each.setting, n))
            metrics = {name: mine.metrics[name][:n] for name in SHOWN["generation"] if name in mine.metrics}
            intervals = summarize(metrics, groups=held_out.groups(torch.arange(n)))
            rows += make_rows(intervals, **_shared(mine) | {"method": f"zipmo, first {n} clips", "dataset": held_out.name})
        intervals = {}
        for name in SHOWN["difference"]:
            if name in each.metrics and name in mine.metrics:
                theirs, own = each.metrics[name][:n], mine.metrics[name][:n]
                defined = (~torch.isnan(theirs) & ~torch.isnan(own)).nonzero()[:, 0]
                groups = held_out.groups(defined) if len(defined) else None
                if (len(defined) if groups is None else len(set(groups))) >= 2:
                    intervals[name] = bootstrap_difference(theirs[defined], own[defined], groups=groups)
        rows += make_rows(intervals, **_shared(each) | {"table": "difference", "dataset": held_out.name})
    return rows


def generation_rows(
    methods: Mapping[str, Callable], clips: Clips | Benchmark, extent: Extent, say=lambda line: None
) -> list[Row]:
    """Every method at every poke count, as rows; see :func:`measure_generation`."""
    held_out = _benchmark(clips)
    return score_rows(measure_generation(methods, held_out, extent, say=say), held_out)


def evaluate(
    json_path: str | Path | None = None,
    *,
    profile_name: str = "lab",
    checkpoint: str | Path | None = None,
    real: str | Path | None = None,
    only: Sequence[str] | None = None,
    say=lambda line: None,
) -> str:
    """Measures everything and returns the tables as Markdown.

    Args:
        json_path: where the rows go; None writes nothing. Finished measurements are kept in `.NAME.partial.jsonl` beside
            it until it is complete, and used again when the evaluation is started again.
        profile_name: how much is measured, see `EXTENTS`.
        checkpoint: folder with the trained stages; default: the shipped ones.
        real: folder of shards of real video with held-out clips; None: scenes only.
        only: methods of generation to measure, see :func:`forecasters`; None: all.
        say: called with a line of progress.

    Raises:
        ValueError: for an unknown profile or method, or when no real clip is held out.
        FileNotFoundError: when the checkpoint folder lacks the autoencoder or the planner, or `real` has no shards.
    """
    extent = EXTENTS[profile(profile_name)]
    latent = load_latent(checkpoint)
    size = latent.autoencoder.config.frame_size
    methods = forecasters(latent, checkpoint, extent.official_steps)
    if unknown := sorted(set(only or ()) - set(methods)):
        raise ValueError(f"there is no method {unknown[0]!r}; there are {'; '.join(methods)}.")
    methods = {name: one for name, one in methods.items() if only is None or name in only}
    held_out = [] if real is None else [real_benchmark(real, extent.real_clips, size=size)]
    held_out = [scene_benchmark(extent.clips, size=size), *held_out]
    path = None if json_path is None else Path(json_path)
    ledger = Ledger(path and path.with_name(f".{path.name}.partial.jsonl"))
    if ledger.entries:
        say(f"going on: {len(ledger.entries)} measurements are in {ledger.path}")
    rows, costs = [], []
    for each in held_out:
        rows += reconstruction_rows(latent.autoencoder, each, extent)
        scores = measure_generation(methods, each, extent, ledger, say)
        rows += score_rows(scores, each) + comparison_rows(scores, each)
        costs += [_cost(one, each.name) for one in scores]
    if path is not None:
        facts = {each.name: each.facts() for each in held_out}
        named = str(checkpoint or SHIPPED.name)
        save_results(path, rows, checkpoint=named, extent=asdict(extent), datasets=facts, costs=costs)
        ledger.close()
    return tables(rows)


def _benchmark(clips: Clips | Benchmark) -> Benchmark:
    return clips if isinstance(clips, Benchmark) else Benchmark("scenes", clips)


def _shared(scores: Scores) -> dict:
    return dict(
        table="generation",
        method=scores.method,
        setting=scores.setting,
        given=scores.given,
        seeds=scores.seeds,
        k=scores.samples,
    )


def _rows_by_source(metrics: Mapping[str, Tensor], held_out: Benchmark, shared: dict) -> list[Row]:
    """Rows over all clips measured, then (fewer metrics) over those of each video."""
    n = len(next(iter(metrics.values())))
    rows = make_rows(summarize(metrics, groups=held_out.groups(torch.arange(n))), dataset=held_out.name, **shared)
    for source, members in held_out.parts().items():
        members = members[members < n]
        if len(members):
            shown = {name: metrics[name][members] for name in SHOWN[shared["table"]] if name in metrics}
            intervals = summarize(shown, groups=held_out.groups(members))
            rows += make_rows(intervals, dataset=f"{held_out.name}: {source}", **shared)
    return rows


def _cost(scores: Scores, dataset: str) -> dict:
    """Seconds of a measurement on this machine; forecasts of all seeds and their scoring."""
    facts = dict(dataset=dataset, method=scores.method, pokes=scores.given, n=scores.n, k=scores.samples, seeds=scores.seeds)
    return facts | {"seconds": scores.seconds}
