"""`VideoFlowMatcher`: a small pixel-space video model, given the first and the last frame; the rival of motion latents.

Paper: section 4 compares with video models (Wan 14B, Veo 3) that are given start *and* end frame; their videos are then
tracked. This is that rival in miniature, trained on the same procedural scenes as our planner: rectified flow over the
pixels of 16 frames, tokens of 4 frames x 8 x 8 pixels (the temporal compression of today's video latents), the blocks and
the flow times of our planner. It is thousands of times smaller than Wan: what it shows is how to compare.

What is generated is the residual to the linear blend of both frames, so that everything still is right from the start.
With `warp`, the network answers with a displacement into each of the two frames, a mix of the two and a correction,
from which the clean frames are painted: the way of frame interpolation, so that textures need not be invented. Off, it
answers with pixels.

Shapes: video (B, F, 3, S, S) in [-1, 1] with F frames, the first and last of them given; tokens (B, f * r * w, d).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate

from kinelib.learning.image import PatchEncoder
from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape, frame_times
from kinelib.zipmo.blocks import FlowBlock, FlowTime
from kinelib.zipmo.flow import flow_path, over_batch, sample_time, solve


@dataclass(frozen=True)
class VideoConfig:
    """Sizes of the video model; the defaults are the shipped one."""

    num_frames: int = 16  # F, over the same time as the 64 frames of a scene's tracks
    frame_size: int = 64  # S, pixels
    span: int = 4  # frames a token; divides num_frames
    patch: int = 8  # pixels a side of a token, a power of two
    width: int = 128  # d of the tokens
    depth: int = 5  # blocks
    heads: int = 4  # attention heads
    warp: bool = True  # paint frames by moving the given ones; off: predict pixels only
    residual_scale: float = 0.12  # frames differ from the blend by this much (root mean square over training scenes)
    time_shift: float = 4.0  # of training and sampling times, as of the planner
    least_time: float = 0.4  # flow time below which an error is not weighted up further, as of the planner


class VideoFlowMatcher(nn.Module):
    """Draws videos between a first and a last frame; see the module docstring.

    Args:
        config: sizes.

    Raises:
        ShapeError: when span or patch do not divide the video, or it has no frame in between.
    """

    def __init__(self, config: VideoConfig | None = None) -> None:
        super().__init__()
        config = config or VideoConfig()
        self.config = config
        if config.num_frames < 3 or config.num_frames % config.span:
            raise ShapeError(f"{config.num_frames} frames: there must be 3 or more, in tokens of {config.span} each.")
        width, cells = config.width, (config.frame_size // config.patch) ** 2
        spans, pixels = config.num_frames // config.span, config.span * config.patch**2
        self.see = PatchEncoder(config.frame_size, config.patch, width)
        self.time = FlowTime(width)
        self.noisy_in = nn.Linear(3 * pixels, width)
        self.ends_in = nn.Linear(2 * width, width)
        self.where = nn.Parameter(torch.randn(cells, width) * 0.02)
        self.when = nn.Parameter(torch.randn(spans, width) * 0.02)
        self.which = nn.Parameter(torch.randn(2, width) * 0.02)  # first or last frame
        self.blocks = nn.ModuleList(FlowBlock(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.pixels_out = nn.Linear(width, 3 * pixels)
        # Moves at half the resolution: 2 + 2 displacements; the mix decides about outlines and is as fine as the pixels.
        self.moves_out = nn.Linear(width, pixels if config.warp else 1)
        self.mix_out = nn.Linear(width, pixels if config.warp else 1)
        for layer in (self.pixels_out, self.moves_out, self.mix_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _tokens(self, video: Tensor) -> Tensor:
        p, s = self.config.patch, self.config.span
        return rearrange(video, "b (f s) c (r p) (w q) -> b (f r w) (s c p q)", s=s, p=p, q=p)

    def _video(self, tokens: Tensor, patch: int) -> Tensor:
        side = self.config.frame_size // self.config.patch
        sizes = dict(s=self.config.span, r=side, w=side, p=patch, q=patch)
        return rearrange(tokens, "b (f r w) (s c p q) -> b (f s) c (r p) (w q)", **sizes)

    def prepare(self, first: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        """What the noise does not change: both frames, what every token knows, and the blocks' keys and values.

        Args:
            first, last: (B, 3, S, S) in [-1, 1].
        """
        size = self.config.frame_size
        batch = check_shape("first", first, f"B 3 {size} {size}")["B"]
        check_shape("last", last, f"B 3 {size} {size}", B=batch)
        seen = self.see(torch.cat([first, last])).unflatten(0, (2, batch)).transpose(0, 1) + self.where  # (B, 2, r w, d)
        ends = self.ends_in(rearrange(seen, "b e l d -> b l (e d)"))
        tokens = rearrange(ends[:, None] + self.when[:, None], "b f l d -> b (f l) d")
        context = rearrange(seen + self.which[:, None], "b e l d -> b (e l) d")
        return (first, last, tokens, *(tensor for block in self.blocks for tensor in block.context(context)))

    def blend(self, first: Tensor, last: Tensor) -> Tensor:
        """The linear blend of both frames: (B, F, 3, S, S)."""
        share = frame_times(self.config.num_frames, first.device)[:, None, None, None]
        return (1 - share) * first[:, None] + share * last[:, None]

    def clean(self, x_t: Tensor, t: Tensor, prepared: tuple[Tensor, ...]) -> Tensor:
        """Estimates the clean residual (B, F, 3, S, S) behind a noisy one at flow times t (B,)."""
        first, last, tokens, *contexts = prepared
        tokens = tokens + self.noisy_in(self._tokens(x_t))
        time = self.time(t)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, time, (contexts[2 * i], contexts[2 * i + 1]), None)
        tokens = self.norm(tokens)
        residual = self._video(self.pixels_out(tokens), self.config.patch)
        if self.config.warp:
            moves = self._video(self.moves_out(tokens), self.config.patch // 2)
            mix = self._video(self.mix_out(tokens), self.config.patch)
            residual = (
                residual + (self.paint(first, last, moves, mix) - self.blend(first, last)) / self.config.residual_scale
            )
        inside = torch.ones(self.config.num_frames, device=x_t.device)
        inside[0] = inside[-1] = 0  # these frames are given
        return residual * inside[:, None, None, None]

    def paint(self, first: Tensor, last: Tensor, moves: Tensor, mix: Tensor) -> Tensor:
        """Frames (B, F, 3, S, S) made of moved copies of the two given ones.

        Args:
            first, last: (B, 3, S, S).
            moves: (B, F, 4, S / 2, S / 2), where in the first (x, y) and the last (x, y) frame a pixel comes from, relative
                to itself, in half frames.
            mix: (B, F, 1, S, S), logit of the last frame's share, relative to time's. All zero paints the blend.
        """
        frames, size = mix.shape[1], self.config.frame_size
        flat = interpolate(rearrange(moves, "b f c h w -> (b f) c h w"), size=size, mode="bilinear")
        here = rearrange(cell_centres(size, size, mix.device), "(h w) c -> h w c", h=size)
        from_first, from_last = (
            grid_sample(
                repeat(end, "b c h w -> (b f) c h w", f=frames),
                here + rearrange(move, "m c h w -> m h w c"),
                padding_mode="border",
                align_corners=False,
            )
            for end, move in zip((first, last), flat.chunk(2, dim=1), strict=True)
        )
        share = torch.sigmoid(mix + frame_times(frames, mix.device).logit(1e-4)[:, None, None, None])
        share = rearrange(share, "b f c h w -> (b f) c h w")
        return rearrange((1 - share) * from_first + share * from_last, "(b f) c h w -> b f c h w", f=frames)

    def loss(self, video: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Flow-matching loss on videos (B, F, 3, S, S) in [-1, 1].

        Returns:
            a dict: loss, flow (the velocity error, capped near t = 0), pixel (root mean square error of the clean estimate
            in units of the frame's range [-1, 1]).
        """
        size = self.config.frame_size
        check_shape("video", video, f"B {self.config.num_frames} 3 {size} {size}")
        first, last = video[:, 0], video[:, -1]
        data = (video - self.blend(first, last)) / self.config.residual_scale
        t = sample_time(len(video), generator, self.config.time_shift)
        noise = torch.randn(data.shape, generator=generator, device=video.device)
        error = (self.clean(flow_path(data, noise, t).x_t, t, self.prepare(first, last)) - data).square()
        flow = (error * over_batch(t, data).clamp_min(self.config.least_time) ** -2).mean()
        return {"loss": flow, "flow": flow, "pixel": error.mean().sqrt() * self.config.residual_scale}

    @torch.no_grad()
    def sample(
        self, first: Tensor, last: Tensor, *, samples: int = 8, steps: int = 6, seed: int | torch.Generator = 0
    ) -> Tensor:
        """Draws K videos for every pair of frames: (B, K, F, 3, S, S) in [-1, 1].

        Args:
            first, last: (B, 3, S, S) in [-1, 1]; they are the first and last frame of every video.
            samples: K.
            steps: Euler steps.
            seed: of the noise, or a generator.

        Raises:
            ValueError: on fewer than 1 sample or step.
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1; got {samples}.")
        check_finite("first", first)
        check_finite("last", last)
        if not isinstance(seed, torch.Generator):
            seed = torch.Generator(first.device).manual_seed(seed)
        prepared = tuple(x.repeat_interleave(samples, 0) for x in self.prepare(first, last))
        shape = (len(first) * samples, self.config.num_frames, *first.shape[1:])
        noise = torch.randn(shape, generator=seed, device=first.device)
        velocity = lambda x_t, t: (x_t - self.clean(x_t, t, prepared)) / over_batch(t, x_t).clamp_min(1e-3)
        residual = solve(velocity, noise, steps, "euler", self.config.time_shift)
        video = self.blend(*prepared[:2]) + self.config.residual_scale * residual
        # The solver leaves rounding errors in the frames that are given.
        video[:, 0], video[:, -1] = prepared[0], prepared[1]
        return rearrange(video.clamp(-1, 1), "(b k) f c h w -> b k f c h w", k=samples)


def scene_videos(count: int, seed: int, *, size: int = 64, num_frames: int = 16, families=None) -> Tensor:
    """Videos of procedural scenes: uint8 (M, F, 3, S, S), the first and last frame included.

    Args:
        count: M; 64-pixel videos of 16 frames take 11 ms and 197 kB each.
        seed: of the scenes; the same as of their tracks (`sample_scenes`), whatever F.
        size, num_frames: S and F.
        families: scene families; None means all.
    """
    from kinelib.tracks.scenes import FAMILIES, sample_scenes

    videos = torch.empty(count, num_frames, 3, size, size, dtype=torch.uint8)
    for index, start in enumerate(range(0, count, 512)):  # drawn as float32 inside, so that memory stays flat
        some = min(512, count - start)
        options = dict(families=tuple(families or FAMILIES), size=size, num_frames=num_frames, num_points=1)
        frames = sample_scenes(some, seed + index, all_frames=True, **options).frames
        videos[start : start + some] = rearrange(torch.from_numpy(frames), "m f h w c -> m f c h w")
    return videos


def video_draw(videos: Tensor, batch: int):
    """Batches of uint8 videos for `fit`, half of them mirrored left to right: no scene knows which side is which."""

    def draw(generator: torch.Generator) -> Tensor:
        some = videos[torch.randint(len(videos), (batch,), generator=generator)]
        return torch.where((torch.rand(batch, generator=generator) < 0.5)[:, None, None, None, None], some.flip(-1), some)

    return draw


def video_loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """The video model's loss on a drawn batch of uint8 videos."""
    return getattr(model, "module", model).loss(batch.float() / 127.5 - 1, generator)
