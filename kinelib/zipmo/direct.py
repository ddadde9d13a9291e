"""The direct baseline: flow matching on trajectories themselves, without latents.

The same blocks, conditions and flow settings as the planner; only what is generated differs: the displacements of the
queried points, cut into pieces of `piece` frames, one token each. All tokens attend to all, so cost grows with the square
of the number of points, which is what the latents avoid.
Shapes: tracks (B, N, T, 2), tokens (B, N * T / piece, d).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.notation import ShapeError, check_finite, check_shape
from kinelib.zipmo.blocks import FlowBlock, FlowTime
from kinelib.zipmo.conditions import ConditionEncoder, check_pokes
from kinelib.zipmo.flow import flow_path, over_batch, sample_time, solve
from kinelib.zipmo.point_features import position_features, sample_map
from kinelib.zipmo.temporal_basis import SCALE


@dataclass(frozen=True)
class DirectConfig:
    """Sizes of the direct baseline; the defaults equal the shipped planner's where they can."""

    num_frames: int = 64  # T
    piece: int = 4  # frames a token; divides num_frames
    frame_size: int = 64  # pixels of the square first frame
    width: int = 160  # d of the tokens
    image_width: int = 64  # channels of the image features
    depth: int = 5  # blocks
    heads: int = 5  # attention heads
    max_pokes: int = 16  # most pokes seen in training
    time_shift: float = 4.0  # as of the flow matcher
    least_time: float = 0.4  # as of the flow matcher
    drop: float = 0.1  # as of the flow matcher


class DirectFlowMatcher(nn.Module):
    """Generates the trajectories of the queried points by rectified flow.

    Raises:
        ShapeError: when `piece` does not divide `num_frames`.
    """

    def __init__(self, config: DirectConfig | None = None) -> None:
        super().__init__()
        config = config or DirectConfig()
        self.config = config
        if config.num_frames % config.piece:
            raise ShapeError(f"pieces of {config.piece} frames do not divide {config.num_frames} frames.")
        cells, width = config.frame_size // 4, config.width
        self.conditions = ConditionEncoder(width, config.image_width, cells, cells)
        self.time = FlowTime(width)
        where = position_features(torch.zeros(1, 2)).shape[-1]
        self.tracks_in = nn.Linear(2 * config.piece, width)
        self.place = nn.Linear(width + where, width)
        self.when = nn.Parameter(torch.randn(config.num_frames // config.piece, width) * 0.02)
        self.blocks = nn.ModuleList(FlowBlock(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.tracks_out = nn.Linear(width, 2 * config.piece)

    def prepare(self, frame: Tensor, pokes: Tensor, mask: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        """What does not depend on the noisy tracks: token features, mask, keys and values of every block."""
        size = self.config.frame_size
        check_shape("frame", frame, f"B 3 {size} {size}")
        conditions = self.conditions(frame, pokes, mask)
        rows = self.conditions.rows
        seen = sample_map(rearrange(conditions.cells, "b (r w) d -> b d r w", r=rows), points.clamp(-1, 1))
        place = self.place(torch.cat([seen, position_features(points)], dim=-1))
        tokens = rearrange(place[:, :, None] + self.when, "b n p d -> b (n p) d")
        contexts = [tensor for block in self.blocks for tensor in block.context(conditions.tokens)]
        return (tokens, rearrange(conditions.mask, "b m -> b 1 1 m"), *contexts)

    def clean(self, x_t: Tensor, t: Tensor, prepared: tuple[Tensor, ...]) -> Tensor:
        """Clean scaled displacements (B, N, T, 2) behind noisy ones."""
        place, keep, *contexts = prepared
        tokens = self.tracks_in(rearrange(x_t, "b n (p f) c -> b (n p) (f c)", f=self.config.piece)) + place
        time = self.time(t)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, time, (contexts[2 * i], contexts[2 * i + 1]), keep)
        sizes = dict(n=x_t.shape[1], f=self.config.piece)
        return rearrange(self.tracks_out(self.norm(tokens)), "b (n p) (f c) -> b n (p f) c", **sizes)

    def loss(self, tracks: Tensor, frame: Tensor, pokes: Tensor, mask: Tensor, generator=None) -> dict[str, Tensor]:
        """Flow-matching loss on the displacements of (B, N, T, 2) tracks, poked ones among them; the rest as there."""
        check_shape("tracks", tracks, f"B N {self.config.num_frames} 2")
        device = tracks.device
        mask = mask & (torch.rand(len(tracks), generator=generator, device=device) >= self.config.drop)[:, None]
        data = (tracks - tracks[:, :, :1]) / SCALE
        t = sample_time(len(tracks), generator, self.config.time_shift)
        noise = torch.randn(data.shape, generator=generator, device=device)
        clean = self.clean(flow_path(data, noise, t).x_t, t, self.prepare(frame, pokes, mask, tracks[:, :, 0]))
        flow = ((clean - data).square() * over_batch(t, data).clamp_min(self.config.least_time) ** -2).mean()
        return {"loss": flow, "flow": flow}

    @torch.no_grad()
    def sample(
        self,
        frame: Tensor,
        pokes: Tensor,
        mask: Tensor,
        query_points: Tensor,
        *,
        samples: int = 8,
        steps: int = 6,
        seed: int = 0,
    ) -> Tensor:
        """Draws K futures of the queried points: (B, K, Q, T, 2); arguments and errors as of the flow matcher."""
        if samples < 1:
            raise ValueError(f"samples must be at least 1; got {samples}.")
        check_pokes(pokes, mask, len(frame), self.config.max_pokes)
        sizes = check_shape("query_points", query_points, "B Q 2", B=len(frame))
        check_finite("query_points", query_points)
        generator = torch.Generator(frame.device).manual_seed(seed)
        shape = (len(frame) * samples, sizes["Q"], self.config.num_frames, 2)
        noise = torch.randn(shape, generator=generator, device=frame.device)
        prepared = [x.repeat_interleave(samples, 0) for x in self.prepare(frame, pokes, mask, query_points)]
        velocity = lambda x_t, t: (x_t - self.clean(x_t, t, prepared)) / over_batch(t, x_t).clamp_min(1e-3)
        displacement = SCALE * solve(velocity, noise, steps, "euler", self.config.time_shift)
        displacement = rearrange(displacement, "(b k) q t c -> b k q t c", k=samples)
        return repeat(query_points, "b q c -> b k q 1 c", k=samples) + displacement - displacement[..., :1, :]
