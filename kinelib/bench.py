"""Side-by-side measurements of speed, all in one run: the function behind ``python -m kinelib bench zipmo``.

Generating motion in latents against generating trajectories directly, with the same blocks, conditions, solver steps and
threads; only what is generated differs. Each pair is measured in turn, several times, and the ratio of medians is given.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from kinelib.notation import cell_centres

STEPS = 6


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def side_by_side(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of both, measured in turn after one warm-up each.

    Raises:
        ValueError: for fewer than 1 round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1; got {rounds}.")
    ours(), theirs()
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


@torch.no_grad()
def bench_zipmo(threads: int = 2, json_path: str | Path | None = None, rounds: int = 3) -> str:
    """Measures latent generation against direct flow matching at 40 and at 1024 points and returns a Markdown table.

    Args:
        threads: CPU threads.
        json_path: where the numbers go as well; None writes nothing.
        rounds: measurements of each pair at 40 points; at 1024 points the direct model is asked for one solver step,
            once, and its time multiplied by the steps, because a whole sample takes minutes.
    """
    from kinelib.zipmo.autoencoder import TrackAutoencoder
    from kinelib.zipmo.direct import DirectFlowMatcher
    from kinelib.zipmo.flow_matcher import FlowMatcher
    from kinelib.zipmo.forecast import DirectForecast, LatentForecast

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # Speed does not depend on the weights, so that the measurement needs no checkpoint.
        torch.manual_seed(0)
        latent = LatentForecast(TrackAutoencoder().eval(), FlowMatcher().eval(), steps=STEPS)
        model = DirectFlowMatcher().eval()
        frame = torch.rand(1, 3, 64, 64) * 2 - 1
        pokes = torch.tensor([[[0.0, 0.0, 0.5, 0.2, 1.0], [-0.5, 0.1, -0.5, 0.1, 1.0]]])
        mask = torch.ones(1, 2, dtype=torch.bool)
        rows = []
        for points, samples, direct_steps in ((40, 8, STEPS), (1024, 1, 1)):
            queries = cell_centres(32, 32)[:: 1024 // points][:points][None]
            call = dict(samples=samples, seed=0)
            ours, theirs = side_by_side(
                lambda: latent(frame, pokes, mask, queries, **call),  # noqa: B023 - called within the iteration
                lambda: DirectForecast(model, direct_steps)(frame, pokes, mask, queries, **call),  # noqa: B023
                rounds if direct_steps == STEPS else 1,
            )
            theirs *= STEPS / direct_steps
            rows.append(
                {
                    "points": points,
                    "samples": samples,
                    "steps": STEPS,
                    "latent_seconds": ours,
                    "direct_seconds": theirs,
                    "ratio": theirs / ours,
                    "latent_timesteps_per_second": 64 * samples / ours,
                    "direct_measured_steps": direct_steps,
                }
            )
    finally:
        torch.set_num_threads(before)
    if json_path is not None:
        path = Path(json_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps({"threads": threads, "rows": rows}, indent=1) + "\n")
        os.replace(partial, path)
    lines = [
        f"Latent against direct flow matching, {STEPS} Euler steps, {threads} threads, medians of one run",
        "",
        "| points | samples | latent s | direct s | ratio | latent timesteps/s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        mark = "" if row["direct_measured_steps"] == STEPS else f" ({row['direct_measured_steps']} step x {STEPS})"
        lines.append(
            f"| {row['points']} | {row['samples']} | {row['latent_seconds']:.3f} | {row['direct_seconds']:.2f}{mark} "
            f"| {row['ratio']:.1f}x | {row['latent_timesteps_per_second']:.0f} |"
        )
    return "\n".join(lines)
