"""Futures of a frame from pokes, with officially released weights (ZipMo, sampling and decoding).

The image encoder in the checkpoint turns the frame into tokens, the planner draws latents, the autoencoder says where the
asked points go. Its decoder lets queried points see each other and was trained with 80 of them: points are decoded in chunks
of 80, the last one filled up with random points.

Departures: the fillers are drawn from the seed, so that the same call gives the same tracks; the release's are not. Any
number of points may be asked for. Positions are (x, y).

Shapes: frame (B, 3, H, W), pokes (B, P, 5), query points (B, Q, 2), tracks (B, K, Q, T, 2).
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor

from kinelib.notation import check_shape
from kinelib.official.vision import image_encoders
from kinelib.official.zipmo import Official
from kinelib.zipmo.transformer_planner import TransformerPlanner

DECODED_TOGETHER = 80  # points the released decoder was trained with


@torch.no_grad()
def generate_tracks(
    released: Official,
    frame: Tensor,
    pokes: Tensor,
    query_points: Tensor,
    *,
    mask: Tensor | None = None,
    samples: int = 8,
    steps: int = 50,
    guidance: float = 1.0,
    num_frames: int = 64,
    seed: int = 0,
    features: Tensor | None = None,
) -> Tensor:
    """Draws K futures of each frame and says where the query points go in them.

    Args:
        released: from :func:`kinelib.official.load_official`, of an open-domain planner.
        frame: (B, 3, H, W) in [-1, 1], any size; resized as in the release.
        pokes: (B, P, 5) = start x, y, goal x, y in [-1, 1] and goal time in [0, 1]; P may be 0.
        query_points: (B, Q, 2) xy.
        mask: (B, P) bool, True = a real poke; None means all are.
        samples: K.
        steps: Euler steps (release: 50).
        guidance: 1 is off (release).
        num_frames: T (release: 64).
        seed: of the noise and of the filler points.
        features: (B, L, F) image tokens, instead of those of the checkpoint's own image encoder.

    Returns:
        (B, K, Q, T, 2) xy.

    Raises:
        ValueError: when the checkpoint has no open-domain planner, or no image encoder and no features were given.
        ShapeError: on wrong shapes.
    """
    planner, codec = released.planner, released.codec
    if not isinstance(planner, TransformerPlanner):
        raise ValueError(
            "pokes need an open-domain planner, and this checkpoint has none; load the sparse or the dense one."
        )
    batch = check_shape("frame", frame, "B 3 H W")["B"]
    points = check_shape("query_points", query_points, "B Q 2", B=batch)["Q"]
    if features is None:
        own, planners = image_encoders(released.image_encoder)
        features = own(frame)
        planner_features = features if planners is own else planners(frame)
    else:
        planner_features = features
    generator = torch.Generator().manual_seed(seed)
    options = {"samples": samples, "steps": steps, "guidance": guidance, "generator": generator}
    latents = planner.denormalize(planner.sample(planner_features, pokes, mask, **options))
    latents = rearrange(latents, "b k s r w c -> (b k) s r w c")
    contexts = [context.repeat(samples) for context in codec.decoder.contexts(features)]
    shared = repeat(features, "b l f -> (b k) l f", k=samples)
    fill = torch.rand(1, -points % DECODED_TOGETHER, 2, generator=generator).expand(batch, -1, -1) * 2 - 1
    queries = torch.cat([query_points, fill.to(query_points)], dim=1)
    decoded = [
        codec.decode(latents, shared, repeat(part, "b q c -> (b k) q c", k=samples), num_frames, contexts=contexts)
        for part in queries.split(DECODED_TOGETHER, dim=1)
    ]
    return rearrange(torch.cat(decoded, dim=1)[:, :points], "(b k) q t c -> b k q t c", k=samples)
