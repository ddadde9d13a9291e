"""Side-by-side measurements of speed, all in one run: the function behind ``python -m kinelib bench zipmo``.

First, generating motion in latents against generating trajectories directly, with the same blocks, conditions, solver steps
and threads; only what is generated differs. Second, the official layout: our sampler and dense decode against a plain
transcription of the published algorithm with the same weights and equal results (`kinelib.zipmo.plain_sampler`), and the
arithmetic floor of each, its matrix products at the speed this machine multiplies large matrices. Each pair is measured in
turn and the ratio of medians is given.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kinelib.learning.files import write_text_whole
from kinelib.notation import cell_centres

STEPS = 6
# The second table: the paper's grids and tokens at widths and depths that a laptop runs in seconds.
SAMPLER_SIZE = {"width": 256, "depth": 6, "heads": 4, "feature_width": 192, "poke_width": 192, "time_width": 128}
DECODER_SIZE = {"width": 128, "encoder_depth": 1, "decoder_depth": 2, "heads": 2, "feature_width": 128}
SAMPLER_STEPS, DENSE_SIDE, DENSE_FRAMES = 50, 64, 32


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


def matmul_flops_per_second(side: int = 1024, tries: int = 5) -> float:
    """The best speed at which this machine multiplies two float32 matrices, with the threads that are set."""
    a, b = torch.randn(2, side, side, generator=torch.Generator().manual_seed(0))
    a @ b
    return 2 * side**3 / min(_seconds(lambda: a @ b) for _ in range(tries))


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # Fused attention on CPUs is not counted; as matrix products it is.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def _awake(network: nn.Module) -> nn.Module:
    """The network, frozen, with no parameter all zero, so that the two results can be told from trivial ones."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def bench_official(rounds: int = 1, compile: bool = False) -> list[dict]:
    """Measures our sampler and dense decode of the official layout against the plain transcription.

    Args:
        rounds: measurements of each pair, after a warm-up.
        compile: measure our sampler through torch.compile as well (needs a C++ compiler; takes a minute to compile).

    Returns:
        a row for each pair: what, seconds of ours and of the plain one, ratio, FLOPs and arithmetic floor of both in
        seconds, and the largest difference of the results.
    """
    from kinelib.zipmo.plain_sampler import plain_sample
    from kinelib.zipmo.transformer_planner import PAPER_SPARSE, TransformerPlanner

    torch.manual_seed(0)
    speed = matmul_flops_per_second()
    planner = _awake(TransformerPlanner(replace(PAPER_SPARSE, **SAMPLER_SIZE)))
    features, pokes = torch.randn(1, 256, SAMPLER_SIZE["feature_width"]), torch.rand(1, 4, 5)
    noise = torch.randn(1, *planner.latent_shape)
    rows = []

    def sampler(name: str, guidance: float) -> None:
        def ours(steps: int = SAMPLER_STEPS) -> Tensor:
            return planner.sample(features, pokes, steps=steps, guidance=guidance, noise=noise[:, None])[:, 0]

        def plain(steps: int = SAMPLER_STEPS) -> Tensor:
            return plain_sample(planner, features, pokes, noise, steps=steps, guidance=guidance)

        # What is done once and what is done at every step, from one step and two.
        flops = []
        for run in (ours, plain):
            one, two = (count_flops(lambda: run(steps)) for steps in (1, 2))  # noqa: B023 - called within the iteration
            flops.append(one + (SAMPLER_STEPS - 1) * (two - one))
        rows.append(_row(name, ours, plain, lambda: ours(1), lambda: plain(1), flops, speed, rounds))

    sampler(f"{SAMPLER_STEPS} steps, no guidance", 1.0)
    sampler(f"{SAMPLER_STEPS} steps, guidance 2", 2.0)
    rows += [_dense(independent, speed, rounds) for independent in (False, True)]
    if compile:
        planner.compile_velocity()
        for guidance in (1.0, 2.0):
            planner.sample(features, pokes, steps=1, guidance=guidance, noise=noise[:, None])
        sampler(f"{SAMPLER_STEPS} steps, no guidance, compiled", 1.0)
        sampler(f"{SAMPLER_STEPS} steps, guidance 2, compiled", 2.0)
    return rows


def _dense(independent: bool, speed: float, rounds: int) -> dict:
    """The row of the dense decode, with queries that see each other (official) or not."""
    from kinelib.learning.image import DinoV2
    from kinelib.official.vision import VisionConfig, VisionTransformer
    from kinelib.zipmo.plain_sampler import plain_decode_dense
    from kinelib.zipmo.transformer_autoencoder import PAPER, TransformerCodec

    config = replace(PAPER, **DECODER_SIZE, num_frames=DENSE_FRAMES, temporal_compression=DENSE_FRAMES)
    codec = _awake(TransformerCodec(replace(config, independent_queries=independent)))
    # As in the paper, the image encoder is about as deep and wide as the decoder.
    width, depth, heads = (DECODER_SIZE[key] for key in ("width", "decoder_depth", "heads"))
    encode = DinoV2(VisionTransformer(VisionConfig(width=width, depth=depth, heads=heads)).eval())
    frame, latents = torch.rand(1, 3, 224, 224) * 2 - 1, torch.randn(1, *codec.latent_shape)

    def ours(side: int = DENSE_SIDE) -> Tensor:
        return codec.decode_dense(latents, encode(frame), side, side)

    def plain(side: int = DENSE_SIDE) -> Tensor:
        return plain_decode_dense(codec, latents, frame, encode, side)

    # What is done once and what for each chunk, from one chunk and from four.
    flops = []
    for run in (ours, plain):
        one, four = (count_flops(lambda: run(side)) for side in (8, 16))  # noqa: B023 - called within the iteration
        flops.append(one + ((DENSE_SIDE // 8) ** 2 - 1) * (four - one) // 3)
    name = f"dense {DENSE_SIDE} x {DENSE_SIDE}, " + ("independent queries" if independent else "official")
    return _row(name, ours, plain, lambda: ours(16), lambda: plain(16), flops, speed, rounds)


def _row(
    name: str,
    ours: Callable[[], Tensor],
    plain: Callable[[], Tensor],
    warm_ours: Callable[[], object],
    warm_plain: Callable[[], object],
    flops: list[int],
    speed: float,
    rounds: int,
) -> dict:
    """Measures a pair in turn after short warm-ups."""
    warm_ours(), warm_plain()
    pairs, results = [], {}

    def timed(key: str, run: Callable[[], Tensor]) -> float:
        return _seconds(lambda: results.update({key: run()}))

    for _ in range(rounds):
        pairs.append((timed("ours", ours), timed("plain", plain)))
    seconds, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "what": name,
        "seconds": seconds,
        "plain_seconds": other,
        "ratio": other / seconds,
        "flops": flops[0],
        "plain_flops": flops[1],
        "floor_seconds": flops[0] / speed,
        "plain_floor_seconds": flops[1] / speed,
        "matmul_flops_per_second": speed,
        "largest_difference": float((results["ours"] - results["plain"]).abs().max()),
    }


def _official_table(rows: list[dict]) -> list[str]:
    lines = [
        "Official layout at a middle size: ours against a plain transcription, same weights, equal results",
        "",
        "| what | ours s | plain s | ratio | floor of ours s | floor of plain s | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['what']} | {row['seconds']:.2f} | {row['plain_seconds']:.2f} | {row['ratio']:.2f}x "
        f"| {row['floor_seconds']:.2f} | {row['plain_floor_seconds']:.2f} | {row['largest_difference']:.0e} |"
        for row in rows
    ]
    speed = rows[0]["matmul_flops_per_second"] / 1e9
    return [*lines, "", f"Floor: the matrix products of each at {speed:.0f} GFLOP/s, this machine's speed for large ones."]


@torch.no_grad()
def bench_zipmo(
    threads: int = 2, json_path: str | Path | None = None, rounds: int = 3, official: bool = True, compile: bool = False
) -> str:
    """Measures latent against direct generation, and our official layout against a plain one: two Markdown tables.

    Args:
        threads: CPU threads.
        json_path: where the numbers go as well; None writes nothing.
        rounds: measurements of each pair at 40 points; at 1024 points the direct model is asked for one solver step,
            once, and its time multiplied by the steps, because a whole sample takes minutes. Pairs of the second table
            are measured once.
        official: whether to measure the second table.
        compile: whether to measure our sampler through torch.compile as well.
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
        official_rows = bench_official(compile=compile) if official else []
    finally:
        torch.set_num_threads(before)
    if json_path is not None:
        content = {"threads": threads, "rows": rows, "official": official_rows}
        write_text_whole(json_path, json.dumps(content, indent=1) + "\n")
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
    return "\n".join([*lines, "", *_official_table(official_rows)] if official_rows else lines)
