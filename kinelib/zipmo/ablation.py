"""The compression ablation: one small autoencoder and planner for every t_c, at equal compute and at equal steps.

Paper: the ablation of temporal compression. t_c frames become one latent slice, so the planner works on T / t_c slices; the
paper trained every t_c with one compute budget. Here everything is tiny (32-pixel frames, an 8 x 8 grid, 16 channels a slice
as in the paper) and runs on one CPU core. Two modes:
    "compute"  every network gets the same number of floating point operations. Those of one training step (forward and
               backward, matrix products and convolutions) are counted, so the budget does not depend on the machine.
    "steps"    every network gets the same number of steps, whatever they cost.
The modes meet at t_c = `pivot`, whose equal-compute cell is also its equal-steps cell and is trained once. Autoencoder
and planner of a cell both follow its mode. Departures: t_c = 1 is added, and the networks have the local layout.

A cell is one (mode, t_c, seed). Its row is written as soon as it is measured, and a cell that has its row is skipped, so a
sweep can be stopped at any time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kinelib.learning import study_rows
from kinelib.learning.fit import FitConfig, fit
from kinelib.learning.study_rows import ROWS, read_rows, write_rows
from kinelib.zipmo import knn
from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder
from kinelib.zipmo.benchmark import evaluate_generation, pokes_from_tracks
from kinelib.zipmo.data import TEST_SEED, TRAIN_SEED, Clips, encode_clips, raw_latents, scene_clips
from kinelib.zipmo.evaluate import SCORED, moving_points, reconstruct
from kinelib.zipmo.flow_matcher import FlowMatcher, FlowMatcherConfig
from kinelib.zipmo.forecast import LatentForecast
from kinelib.zipmo.protocol import reconstruction_metrics
from kinelib.zipmo.train import Sources, autoencoder_draw, autoencoder_loss, data_folder, latent_loss, planner_draw

MODES = ("compute", "steps")
MEAN_ENCODED = 29  # tracks that `autoencoder_draw` lets the encoder see, on average; operations are linear in it
SHIPPED = Path(__file__).resolve().parents[2] / "data" / "ablation" / "compression.json"


@dataclass(frozen=True)
class AblationConfig:
    """A sweep; the defaults are the shipped one."""

    factors: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)  # t_c
    seeds: tuple[int, ...] = (0, 1, 2)  # of weights, batches and noise
    modes: tuple[str, ...] = MODES  # in this order within a seed
    pivot: int = 4  # t_c at which both modes coincide
    autoencoder_steps: int = 48  # of mode "steps"; mode "compute" spends what they cost at the pivot
    planner_steps: int = 100  # likewise
    grid: int = 8  # rows and columns of the latent grid
    channels: int = 16  # of a latent, a slice
    width: int = 32  # of the autoencoder
    planner_width: int = 48
    planner_depth: int = 3
    batch: int = 8  # clips a step
    scenes: int = 1024  # training scenes
    held_out: int = 32  # scenes that generation is measured on
    reconstructed: int = 64  # scenes that reconstruction is measured on
    pokes: int = 2  # end-point pokes of the measured futures
    samples: int = 8  # K
    reference: int = 512  # clips the neighbours are looked for in
    probes: int = 256  # clips whose class is asked
    learning_rate: float = 2e-3  # peak, of both networks

    def __post_init__(self) -> None:
        if unknown := set(self.modes) - set(MODES):
            raise ValueError(f"unknown modes {sorted(unknown)}; choose some of {', '.join(MODES)}.")
        if wrong := [t_c for t_c in (*self.factors, self.pivot) if t_c < 1 or 64 % t_c]:
            raise ValueError(f"temporal compression must divide 64 frames; got {wrong}.")

    def autoencoder(self, t_c: int) -> AutoencoderConfig:
        """The autoencoder of a t_c."""
        sizes = dict(grid=(self.grid, self.grid), channels=self.channels, frame_size=4 * self.grid, width=self.width)
        return AutoencoderConfig(temporal_compression=t_c, heads=2, encoder_depth=1, decoder_depth=1, basis_size=16, **sizes)

    def planner(self, t_c: int) -> FlowMatcherConfig:
        """The planner of a t_c."""
        sizes = dict(width=self.planner_width, image_width=24, depth=self.planner_depth, heads=3, finely=False)
        shape = (64 // t_c, self.grid, self.grid, self.channels)
        return FlowMatcherConfig(latent_shape=shape, frame_size=4 * self.grid, **sizes)

    @property
    def digest(self) -> str:
        """Names what a row depends on besides its own cell."""
        fixed = {name: value for name, value in asdict(self).items() if name not in ("factors", "seeds", "modes")}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Cell:
    """One training of the sweep."""

    mode: str  # "compute" or "steps"
    t_c: int  # temporal compression
    seed: int


def cells(config: AblationConfig) -> list[Cell]:
    """All cells, one seed after the other, so that an interrupted sweep holds whole seeds."""
    return [Cell(m, t_c, seed) for seed in config.seeds for m in config.modes for t_c in sorted(config.factors)[::-1]]


def step_flops(config: AblationConfig, t_c: int) -> dict[str, float]:
    """Floating point operations of one training step of both networks: "autoencoder" and "planner".

    Matrix products, attention and convolutions, forward and backward, at the mean number of encoded tracks.
    """
    return dict(_counted(config.autoencoder(t_c), config.planner(t_c), config.batch))


@cache
def _counted(autoencoder: AutoencoderConfig, planner: FlowMatcherConfig, batch: int) -> dict[str, float]:
    size = autoencoder.frame_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec, matcher = TrackAutoencoder(autoencoder), FlowMatcher(planner)
        frames, tracks = torch.randint(256, (batch, 3, size, size)).byte(), torch.rand(batch, 96, 64, 2).half()
        clips = Clips(frames, tracks, torch.randn(batch, *codec.latent_shape).half())

    def count(model: nn.Module, drawn: dict, loss) -> float:
        # The fused attention of a CPU is not counted; written out, it has the same products.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            loss(model, drawn, torch.Generator().manual_seed(0))["loss"].backward()
        return float(counter.get_total_flops())

    seen = {"tracks": tracks[:, : MEAN_ENCODED + 40].float(), "frame": clips.model_frames(), "encoded": MEAN_ENCODED}
    flops = {"autoencoder": count(codec, seen, autoencoder_loss)}
    drawn = planner_draw(Sources(clips, None, 0.0), batch, 16)(torch.Generator().manual_seed(0))
    return flops | {"planner": count(matcher, drawn, latent_loss(codec.requires_grad_(False)))}


def planned_steps(config: AblationConfig, cell: Cell) -> dict[str, int]:
    """Training steps of both networks of a cell, at least 1."""
    steps = {"autoencoder": config.autoencoder_steps, "planner": config.planner_steps}
    if cell.mode == "steps" or cell.t_c == config.pivot:
        return steps
    cost, budget = step_flops(config, cell.t_c), step_flops(config, config.pivot)
    return {name: max(round(n * budget[name] / cost[name]), 1) for name, n in steps.items()}


def train_cell(config: AblationConfig, cell: Cell, clips: Clips) -> LatentForecast:
    """Trains the autoencoder and then the planner of a cell on `clips`.

    Raises:
        KeyboardInterrupt: when a signal stopped a training.
    """
    steps = planned_steps(config, cell)

    def trained(model: nn.Module, draw, loss, name: str) -> nn.Module:
        options = dict(learning_rate=config.learning_rate, ema_decay=0.99, seed=cell.seed, log_every=20)
        with tempfile.TemporaryDirectory() as folder:
            text = f"t_c {cell.t_c}, equal {cell.mode}, seed {cell.seed}: {name}"
            done = fit(model, draw, loss, FitConfig(steps=steps[name], **options), folder, description=text)
        if done.stopped_early:  # by a signal: what is trained by half must not be measured
            raise KeyboardInterrupt(f"stopped in the middle of {text}")
        return model.cpu().requires_grad_(False)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        autoencoder, planner = TrackAutoencoder(config.autoencoder(cell.t_c)), FlowMatcher(config.planner(cell.t_c))
    autoencoder.codec.basis.measure(clips.tracks[:512].float())
    trained(autoencoder, autoencoder_draw(Sources(clips, None, 0.0), config.batch), autoencoder_loss, "autoencoder")
    autoencoder.measure_statistics(raw_latents(clips.pick(torch.arange(min(len(clips), 128))), autoencoder, batch=8))
    # Long latents are slow to encode, and no more clips are needed than are drawn.
    few = min(len(clips), steps["planner"] * config.batch)
    encoded = encode_clips(clips.pick(torch.arange(few)), autoencoder, batch=8)
    trained(planner, planner_draw(Sources(encoded, None, 0.0), config.batch, 16), latent_loss(autoencoder), "planner")
    return LatentForecast(autoencoder, planner)


@torch.no_grad()
def sampling_cost(pair: LatentForecast, frame: Tensor, tracks: Tensor, *, samples: int = 8, rounds: int = 2) -> dict:
    """What K futures of one clip cost, drawn and decoded at its points, in CPU "seconds" and in "gflops".

    Seconds are those of one thread, the least of some rounds; operations do not depend on the machine.

    Args:
        pair: the forecaster.
        frame: (1, 3, S, S).
        tracks: (1, N, T, 2), of which two are poked and all are decoded.
        samples: K.
        rounds: measurements.
    """
    pokes, mask, _ = pokes_from_tracks(tracks, 2)
    run = lambda: pair(frame, pokes, mask, tracks[:, :, 0], samples=samples)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spent = []
        for _ in range(rounds + 1):  # the first is a warm-up
            start = time.process_time()
            run()
            spent.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return {"seconds": min(spent[1:]), "gflops": counter.get_total_flops() / 1e9}


def measure_cell(config: AblationConfig, pair: LatentForecast, *, controls: bool = True, seed: int = 0) -> dict:
    """Every number of a cell: generation, reconstruction, sampling cost and kNN accuracy (percent, by feature and k).

    Args:
        config: the sweep.
        pair: a trained autoencoder and planner.
        controls: also measure what nobody trained: "raw" tracks, "random" and "untrained" encoders.
        seed: of the untrained networks.
    """
    size, autoencoder = 4 * config.grid, pair.autoencoder
    clips = scene_clips(max(config.held_out, config.reconstructed), TEST_SEED, size=size)
    held, frame = clips.tracks[: config.held_out, :SCORED].float(), clips.model_frames()[: config.held_out]
    options = dict(samples=config.samples, batch=4, moving=moving_points(held))
    scores = evaluate_generation(pair, frame, held, (config.pokes,), **options)[config.pokes]
    still = evaluate_generation(_static, frame, held, (config.pokes,), **options)[config.pokes]
    some = clips.pick(torch.arange(config.reconstructed))
    truth = some.tracks[:, -SCORED:].float()
    fine = reconstruction_metrics(reconstruct(autoencoder, some, 40, batch=8), truth, moving_points(truth))
    reference = knn.labelled_scenes(config.reference, knn.REFERENCE_SEED, size=size)
    probes = knn.labelled_scenes(config.probes, knn.PROBE_SEED, size=size)
    accuracy = {"trained": knn.encoder_accuracy(autoencoder, reference, probes)}
    if controls:
        accuracy["raw"] = knn.track_accuracy(reference, probes, autoencoder.config.grid)
        for name, silent in (("random", False), ("untrained", True)):
            other = knn.random_encoder(autoencoder.config, seed, silent=silent)
            other.codec.basis.functions.copy_(autoencoder.codec.basis.functions)  # measured on data before any training
            accuracy[name] = knn.encoder_accuracy(other, reference, probes)
    cost = sampling_cost(pair, frame[:1], held[:1], samples=config.samples)
    return {
        **{name: float(scores[name].mean()) for name in ("min_mse", "mean_mse", "epe")},
        "min_mse_moving": float(scores["min_mse_moving"].nanmean()),
        "static_mse": float(still["min_mse"].mean()),
        **{name: float(fine[name].nanmean()) for name in ("delta_avg", "delta_avg_moving", "px_moving")},
        "sample_seconds": cost["seconds"],
        "sample_gflops": cost["gflops"],
        "knn": {who: {what: {str(k): v for k, v in by.items()} for what, by in a.items()} for who, a in accuracy.items()},
        "chance": knn.chance(reference.labels, probes.labels),
    }


def _static(frame: Tensor, pokes: Tensor, mask: Tensor, query_points: Tensor, *, num_frames=64, samples=8, seed=0) -> Tensor:
    return query_points[:, None, :, None].expand(-1, 1, -1, num_frames, -1)


def sweep(
    folder: str | Path,
    config: AblationConfig | None = None,
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Trains and measures every cell that has no row yet, and returns all rows.

    Args:
        folder: holds `rows.jsonl`; generated scenes are cached in :func:`train.data_folder`.
        config: default: the shipped sweep's.
        seconds: begin no further cell after this long; None finishes the sweep.
        say: called with a line a cell.

    Raises:
        ValueError: when the folder holds rows of another config.
    """
    config, folder = config or AblationConfig(), Path(folder)
    begun = time.monotonic()
    for row in sweep_rows(folder, config):
        say(
            f"{row['mode']:<8} t_c {row['t_c']:>2} seed {row['seed']}: Min-MSE {row['min_mse']:.1f} px^2, "
            f"delta_avg {row['delta_avg']:.1f} %, kNN {row['knn']['trained']['flat']['5']:.1f} %, "
            f"{row['autoencoder_steps']} + {row['planner_steps']} steps, {row['cell_seconds']:.0f} s"
        )
        if seconds is not None and time.monotonic() - begun > seconds:
            break
    return read_rows(folder)


def sweep_rows(folder: Path, config: AblationConfig) -> Iterator[dict]:
    """Works through the missing cells in order, yielding each row once it is on disk."""
    rows = {Cell(row["mode"], row["t_c"], row["seed"]): row for row in read_rows(folder)}
    if any(row["config"] != config.digest for row in rows.values()):
        raise ValueError(f"{folder / ROWS} was measured with another config; choose another folder or remove that file.")
    clips = None
    for cell in cells(config):
        if cell in rows:
            continue
        start = time.monotonic()
        twin = rows.get(replace(cell, mode="compute"))
        if cell.mode == "steps" and cell.t_c == config.pivot and twin:
            row = {**twin, "mode": "steps", "shared": True, "cell_seconds": 0.0}
        else:
            if clips is None:
                clips = scene_clips(config.scenes, TRAIN_SEED, size=4 * config.grid, cache=data_folder(folder))
            pair, steps = train_cell(config, cell, clips), planned_steps(config, cell)
            flops = step_flops(config, cell.t_c)
            row = {**asdict(cell), "config": config.digest, "shared": False, "slices": 64 // cell.t_c}
            row |= {"tokens": len(pair.planner.place)}
            row |= {f"{name}_steps": n for name, n in steps.items()}
            row |= {f"{name}_gflops": n * flops[name] / 1e9 for name, n in steps.items()}
            # Controls depend on t_c and seed only: the first mode's serve the other.
            row |= measure_cell(config, pair, controls=twin is None, seed=cell.seed)
            row["cell_seconds"] = time.monotonic() - start
        rows[cell] = row
        write_rows(folder, rows.values())
        yield row


def ship(folder: str | Path, path: str | Path = SHIPPED, config: AblationConfig | None = None) -> Path:
    """Writes the rows of a sweep, rounded, with what made them, as the small file that notebook 07 reads.

    Args:
        folder: of the sweep.
        path: of the JSON file.
        config: of the sweep; default: the shipped one's.

    Raises:
        FileNotFoundError: when the folder holds no rows.
        ValueError: when they were measured with another config.
    """
    import kinelib

    config = config or AblationConfig()
    rows = study_rows.rows_to_ship(folder, config.digest)
    about = {
        "made_by": "python -m kinelib evaluate ablation",
        "data": f"procedural scenes, seeds {TRAIN_SEED} (training), {TEST_SEED} and above (held out)",
        "kinelib": kinelib.__version__,
        "torch": torch.__version__,
        "device": "cpu, one thread",
        "cells": f"{len(rows)} of {len(cells(config))}",
        "config": asdict(config),
    }
    return study_rows.ship_rows(path, about, rows, digits=5)


def load_shipped(path: str | Path = SHIPPED) -> tuple[dict, list[dict]]:
    """What made the shipped file, and its rows."""
    return study_rows.load_shipped(path)
