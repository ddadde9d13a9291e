"""The poke benchmark: which points are poked, and a forecaster run over poke counts and noise seeds.

Source: ZipMo section 4, in the detail of its released evaluation script: the first n tracks of a clip are poked from their
first to their last true position with goal time 1, K = 8 samples, the same noise seed (43) for every clip and count.

Departures: each clip of a batch has its own draw of noise (`Protocol.same_noise` gives all the same, as the release); pokes
can be drawn at random among allowed tracks, and several noise seeds averaged. Only the N scored points are queried; the
release adds 40 unseeded random ones, on which its decoded tracks depend.

Shapes: frame (B, 3, H, W), truth (B, N, T, 2), pokes (B, P, 5), mask (B, P); metrics per clip, (B,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kinelib.notation import ShapeError, check_shape
from kinelib.zipmo.protocol import Protocol, check_flags, generation_metrics, min_mse_curve


def pokes_from_tracks(
    truth: Tensor, count: int, *, allowed: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The benchmark's pokes: `count` tracks from their first to their last true position, goal time 1.

    Args:
        truth: (B, N, T, 2).
        count: pokes a clip, 0 to N.
        allowed: (B, N) bool, tracks that may be poked (starts inside the frame, moving, ...); a clip with fewer gets fewer.
        generator: picks tracks at random; None takes the first ones in file order, as officially.

    Returns:
        pokes (B, P, 5) with P = max(count, 1), mask (B, P), poked (B, N).

    Raises:
        ShapeError: when count is outside 0 ... N.
    """
    sizes = check_shape("truth", truth, "B N T 2")
    batch, points = sizes["B"], sizes["N"]
    if not 0 <= count <= points:
        raise ShapeError(f"cannot poke {count} of {points} tracks.")
    allowed = (
        torch.ones(batch, points, dtype=torch.bool)
        if allowed is None
        else check_flags("allowed", allowed, {"B": batch, "N": points})
    )
    order = torch.arange(points).expand(batch, -1).double()
    if generator is not None:
        order = torch.rand(batch, points, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    chosen = (order + 2 * points * ~allowed).argsort(dim=1)[:, : max(count, 1)]
    mask = allowed.gather(1, chosen) & (torch.arange(chosen.shape[1]) < count)
    poked = torch.zeros(batch, points, dtype=torch.bool).scatter(1, chosen, mask)
    picked = truth.cpu().gather(1, chosen[:, :, None, None].expand(-1, -1, sizes["T"], 2))
    pokes = torch.cat([picked[:, :, 0], picked[:, :, -1], torch.ones_like(picked[:, :, 0, :1])], dim=-1)
    pokes = torch.where(mask[..., None], pokes, 0.0)
    return pokes.to(truth), mask.to(truth.device), poked.to(truth.device)


def evaluate_generation(
    forecaster: Callable[..., Tensor],
    frame: Tensor,
    truth: Tensor,
    counts: Sequence[int] = (1, 2, 4, 8, 16),
    *,
    moving: Tensor | None = None,
    allowed: Tensor | None = None,
    samples: int = 8,
    seeds: Sequence[int] = (43,),
    batch: int = 32,
    poke_seed: int | None = None,
    curve: Sequence[int] = (),
    protocol: Protocol | None = None,
) -> dict[int, dict[str, Tensor]]:
    """Runs a forecaster through the poke benchmark.

    Args:
        forecaster: called as ``forecaster(frame, pokes, mask, query_points, num_frames=, samples=, seed=)``.
        frame: (B, 3, H, W) first frames; truth (B, N, T, 2); moving, allowed (B, N) bool.
        counts: numbers of pokes to try.
        samples: K.
        seeds: noise seeds; metrics are averaged over them clip by clip. One seed serves every clip, as officially (43).
        batch: clips a call. Sampled noise depends on it; with the protocol's `same_noise` it is 1.
        poke_seed: pokes random tracks; None pokes the first ones.
        curve: numbers of samples k for which the expected best error `min_mse_of_k` is added, as far as k <= K.
        protocol: default :class:`Protocol`.

    Returns:
        Poke count -> metric -> (B,); give a metric to `intervals.bootstrap`, or the inner dict to `summarize`. Besides
        :func:`generation_metrics` it holds `k`, the number of samples scored.
    """
    if not seeds:
        raise ValueError("give at least one noise seed.")
    batch = 1 if protocol is not None and protocol.same_noise else batch
    table: dict[int, dict[str, Tensor]] = {}
    for count in counts:
        generator = None if poke_seed is None else torch.Generator().manual_seed(poke_seed)
        pokes, mask, poked = pokes_from_tracks(truth, count, allowed=allowed, generator=generator)
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(truth), batch):
            rows = slice(start, start + batch)
            runs = []
            for seed in seeds:
                forecast = forecaster(
                    frame[rows],
                    pokes[rows],
                    mask[rows],
                    truth[rows, :, 0],
                    num_frames=truth.shape[2],
                    samples=samples,
                    seed=seed,
                )
                flags = None if moving is None else moving[rows]
                run = generation_metrics(forecast, truth[rows], poked[rows], flags, protocol=protocol)
                run["k"] = torch.full((len(forecast),), float(forecast.shape[1]), dtype=torch.float64)
                if curve:
                    expected = min_mse_curve(forecast, truth[rows], protocol=protocol)
                    run |= {f"min_mse_of_{k}": expected[:, k - 1] for k in curve if k <= forecast.shape[1]}
                runs.append(run)
            parts.append({name: torch.stack([run[name] for run in runs]).mean(dim=0) for name in runs[0]})
        table[count] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return table
