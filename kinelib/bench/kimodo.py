"""Speed of Kimodo's sampler: ours against a plain transcription of the published loop, with the same weights and noise.

One motion of 6 seconds at 30 frames a second by the paper's smaller sizes (8 layers of 512 a stage), 100 steps of DDIM with
separated guidance, and 20 of the higher-order solver. A whole plain draw takes minutes on a CPU and every solver step costs
the same, so that a few steps of each are measured, in turn, and their time is multiplied.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kinelib.learning.files import write_text_whole

STEPS, FAST_STEPS = 100, 20
SECONDS = 6.0


def bench_kimodo(threads: int = 2, json_path: str | Path | None = None, rounds: int = 3) -> str:
    """Measures our sampler against the plain one and returns a Markdown table.

    Args:
        threads: CPU threads.
        json_path: where the numbers go as well; None writes nothing.
        rounds: measurements of each pair.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = measure_kimodo(rounds)
    finally:
        torch.set_num_threads(before)
    if json_path is not None:
        write_text_whole(Path(json_path), json.dumps({"threads": threads, "rows": rows}, indent=1) + "\n")
    return kimodo_table(rows)


@torch.no_grad()
def measure_kimodo(rounds: int = 3, steps: int = 2) -> list[dict]:
    """Measures our sampler against the plain one, without constraints and with some.

    Args:
        rounds: measurements of each pair, after a warm-up.
        steps: solver steps measured a round, at least 2.

    Returns:
        a row for each of "text" and "text and constraints": what, seconds of 100 DDIM steps of ours and of the plain
        loop, their ratio, seconds of 20 steps of the higher-order solver and the ratio of that, how many predictions ours
        makes a step (the plain loop makes 3), and the largest relative difference of the results of the measured steps.

    Raises:
        ValueError: for fewer than 1 round or 2 steps.
    """
    from kinelib.kimodo.denoiser import PAPER_S, TwoStageDenoiser
    from kinelib.kimodo.diffusion import ddim, dpm_solver
    from kinelib.kimodo.guidance import GuidedDenoiser
    from kinelib.kimodo.plain_sampler import plain_sample

    if rounds < 1 or steps < 2:
        raise ValueError(f"rounds must be at least 1 and steps at least 2; got {rounds} and {steps}.")
    # Speed does not depend on the weights, so that the measurement needs no checkpoint.
    torch.manual_seed(0)
    model = TwoStageDenoiser(PAPER_S).eval()
    frames, channels = round(SECONDS * PAPER_S.fps), PAPER_S.features
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, frames, channels, generator=generator)
    text = torch.randn(1, 1, PAPER_S.text_width, generator=generator)
    target = torch.randn(1, frames, channels, generator=generator)
    held = torch.zeros(1, frames, channels, dtype=torch.bool)
    held[:, [0, frames // 2, frames - 1]] = True  # three whole poses
    heading, lengths = torch.zeros(1), torch.tensor([frames])
    rows = []
    for name, mask in (("text", torch.zeros_like(held)), ("text and constraints", held)):
        conditions = (text, heading, mask, target, lengths)

        def ours(solver: Callable[..., Tensor] = ddim, count: int = steps) -> Tensor:
            return solver(GuidedDenoiser(model, frames, *conditions), noise, count)  # noqa: B023 - called within the iteration

        def plain(count: int = steps) -> Tensor:
            return plain_sample(model, noise, conditions, steps=count)  # noqa: B023

        ours(), plain()
        times: dict[str, list[float]] = {"ours": [], "plain": [], "fast": []}
        for _ in range(rounds):
            for key, run in (("ours", ours), ("plain", plain), ("fast", lambda: ours(dpm_solver))):
                start = time.perf_counter()
                run()
                times[key].append((time.perf_counter() - start) / steps)
        each = {key: statistics.median(values) for key, values in times.items()}
        seconds, plain_seconds, fast = each["ours"] * STEPS, each["plain"] * STEPS, each["fast"] * FAST_STEPS
        expected = plain()
        rows.append(
            {
                "what": name,
                "seconds": seconds,
                "plain_seconds": plain_seconds,
                "ratio": plain_seconds / seconds,
                "fast_seconds": fast,
                "fast_ratio": plain_seconds / fast,
                "predictions": GuidedDenoiser(model, frames, *conditions).predictions,
                "measured_steps": steps,
                "rounds": rounds,
                "largest_difference": float((ours() - expected).abs().max() / expected.abs().max()),
            }
        )
    return rows


def kimodo_table(rows: list[dict]) -> str:
    """The rows as a Markdown table with its caption."""
    lines = [
        f"Kimodo, one motion of {SECONDS:g} s, two stages of 8 layers of 512, separated guidance: ours and the plain loop",
        "",
        f"| given | plain, {STEPS} DDIM steps, s | ours, the same, s | ratio | ours, {FAST_STEPS} DPM steps, s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['what']} | {row['plain_seconds']:.0f} | {row['seconds']:.0f} | {row['ratio']:.2f}x "
        f"| {row['fast_seconds']:.0f} | {row['fast_ratio']:.1f}x |"
        for row in rows
    ]
    note = f"Medians of {rows[0]['rounds']} rounds of {rows[0]['measured_steps']} steps, multiplied by the steps."
    worst = max(row["largest_difference"] for row in rows)
    return "\n".join([*lines, "", f"{note} Largest relative difference of the results: {worst:.0e}."])
