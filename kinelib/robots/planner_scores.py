"""How far plans are from what happens: decoded tracks of held-out demonstrations beside two yardsticks.

A plan is drawn at the first picture of a window and decoded at the exact tracks' own start points. Scored are points that
were visible there and move (further than `MOVES` during the window), by the mean distance over the window's frames:
    planned        what the planner foresees
    encoded        the autoencoder's own reconstruction of the exact tracks: the best a planner can do
    standing still what somebody says who foresees nothing
A plan is one draw of a distribution, so its error has a floor where words and picture leave a choice.

Shapes: V views, N points, F frames; distances as a share of the picture's width, in per cent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinelib.learning.image import shrink
from kinelib.learning.intervals import Interval, bootstrap
from kinelib.learning.text import TextEncoder
from kinelib.robots.demonstration_shards import Demonstration
from kinelib.robots.robot_data import encode_windows, model_pictures, window_tracks
from kinelib.robots.robot_planner import STEPS, RobotPlanner
from kinelib.zipmo.autoencoder import TrackAutoencoder

MOVES = 0.05  # half-frames a point must get away from where it started


@torch.no_grad()
def planner_scores(
    planner: RobotPlanner,
    autoencoder: TrackAutoencoder,
    demonstrations: Sequence[Demonstration],
    *,
    stride: int = 4,
    steps: int = STEPS,
    seed: int = 0,
    encoder: TextEncoder | None = None,
) -> dict[str, Interval]:
    """Errors of plans and of the yardsticks, one mean a window, with intervals over demonstrations.

    Args:
        planner, autoencoder: trained together.
        demonstrations: two or more that the planner has not seen.
        stride: frames from window to window.
        steps: Euler steps of a plan.
        seed: of its noise.
        encoder: of sentences.

    Raises:
        ValueError: when nothing moves in any window. ShapeError: with a single demonstration, which has no interval.
    """
    encoder, size = encoder or TextEncoder(), planner.config.frame_size
    frames_ahead, noise = planner.config.window // planner.config.every, torch.Generator().manual_seed(seed)
    errors: dict[str, list[float]] = {"planned": [], "encoded": [], "standing still": []}
    groups = []
    for one in demonstrations:
        text = encoder.encode([one.text])
        for begin in range(0, one.pictures.shape[1] - 1, stride):
            tracks, keep = window_tracks(one, begin, range(frames_ahead + 1), seed=begin)
            moves = keep & ((tracks - tracks[:, :, :1]).norm(dim=-1).amax(-1) > MOVES)
            if not moves.any():
                continue
            frames = model_pictures(one.pictures[:, begin], size)
            small = shrink(frames, autoencoder.config.frame_size)
            read = lambda raw: autoencoder.decode(raw, small, tracks[:, :, 0].clamp(-1, 1), tracks.shape[2])  # noqa: B023
            plan = planner.denormalize(planner.plan(frames[None], text, steps=steps, seed=noise))[0]
            answers = {
                "planned": read(plan),
                "encoded": read(encode_windows(tracks, keep, small, autoencoder)),
                "standing still": tracks[:, :, :1].expand_as(tracks),
            }
            for name, answer in answers.items():
                errors[name].append(50 * _distance(answer, tracks)[moves].mean().item())
            groups.append(one.name)
    if not groups:
        raise ValueError("nothing moves in these demonstrations; take others, or lower MOVES.")
    return {name: bootstrap(values, groups=groups) for name, values in errors.items()}


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean over frames of the distance between tracks (V, N, F, 2): (V, N)."""
    return (one - other).norm(dim=-1).mean(-1)
