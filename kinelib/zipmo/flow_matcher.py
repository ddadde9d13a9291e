"""`FlowMatcher`: draws latent motion grids from noise, given the first frame, any number of pokes, and a sentence or none.

Paper: the planner (stage two), rectified flow over the latents of a frozen autoencoder.
Departures, each a config field: the network predicts the clean latents and the velocity follows from them
(`objective`), because the clean motion of a scene lies on a thin sheet while noise fills the space; flow times are shifted
towards noise (`time_shift`), because a grid repeats the motion of few objects and shows its answer at mid noise already;
latents are cut into patches (`patch`); the clean estimate is also held to the poked points through the decoder
(`poke_weight`).

Shapes: latents (B, S, R, W, C) normalised, tokens (B, S * R/p * W/p, d), pokes (B, P, 5) with mask (B, P).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.learning.text import Text
from kinelib.notation import ShapeError, check_shape
from kinelib.tracks.timing import read_at_time
from kinelib.zipmo.blocks import FlowBlock, FlowTime
from kinelib.zipmo.conditions import RAW, ConditionEncoder, Conditions, check_pokes
from kinelib.zipmo.flow import STEPS, flow_path, over_batch, sample_time, solve


@dataclass(frozen=True)
class FlowMatcherConfig:
    """Sizes of a flow matcher; the defaults are the shipped small model."""

    latent_shape: tuple[int, int, int, int] = (1, 16, 16, 16)  # (S, R, W, C) of the autoencoder's latents
    frame_size: int = 64  # pixels of the square first frame; 4 a cell
    patch: int = 2  # cells a side merged into one token
    width: int = 160  # d of the tokens
    image_width: int = 64  # channels of the image features
    depth: int = 5  # blocks
    heads: int = 5  # attention heads
    max_pokes: int = 40  # most pokes seen in training
    text_width: int = 384  # channels of a sentence's tokens; 0 = the model reads no text
    finely: bool = True  # sentences are also read whitened, in units of the training captions' spread
    objective: str = "clean"  # what the network predicts: "clean" latents, or "velocity" as in the paper
    time_shift: float = 4.0  # moves training times towards noise; 1 = the paper's logit-normal
    least_time: float = 0.4  # flow time below which a clean prediction's error is not weighted up further
    poke_weight: float = 3.0  # of the end-point error of the decoded clean estimate, in frame units
    drop: float = 0.4  # share of training clips whose pokes are all dropped, which trains guidance and text alone
    text_drop: float = 0.3  # share of training clips whose sentence is dropped, which trains text guidance and pokes alone


class Prepared(tuple):
    """Conditions turned into cell features, per-block keys and values and a mask: once a sample, not once a step."""

    __slots__ = ()


class FlowMatcher(nn.Module):
    """Generates latents by rectified flow; see the module docstring.

    Args:
        config: sizes and training choices.

    Raises:
        ShapeError: when the grid, the patch and the frame size do not fit.
    """

    def __init__(self, config: FlowMatcherConfig | None = None) -> None:
        super().__init__()
        config = config or FlowMatcherConfig()
        self.config = config
        slices, rows, columns, channels = config.latent_shape
        if rows % config.patch or columns % config.patch:
            raise ShapeError(f"patch {config.patch} does not divide the latent grid {rows} x {columns}.")
        if (4 * rows, 4 * columns) != (config.frame_size, config.frame_size):
            raise ShapeError(f"the frame must have 4 pixels a cell: a {rows} x {columns} grid needs frame_size {4 * rows}.")
        if config.objective not in ("clean", "velocity"):
            raise ValueError(f'unknown objective {config.objective!r}: use "clean" or "velocity".')
        width, area = config.width, config.patch**2
        reads = dict(text_width=config.text_width, finely=config.finely)
        self.conditions = ConditionEncoder(width, config.image_width, rows, columns, **reads)
        self.time = FlowTime(width)
        self.latents_in = nn.Linear(area * channels, width)
        self.cells_in = nn.Linear(area * width, width)
        tokens = slices * rows * columns // area
        self.place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.blocks = nn.ModuleList(FlowBlock(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.latents_out = nn.Linear(width, area * channels)
        # Linear paths around the network, so that training only has to learn what they miss: the noisy latents themselves,
        # by a gain that depends on flow time, and the pokes' own displacements spread over the cells.
        self.keep_noisy = nn.Linear(width, channels)
        self.follow_pokes = nn.Linear(self.conditions.heads * RAW, slices * channels)
        nn.init.zeros_(self.keep_noisy.weight)
        nn.init.zeros_(self.keep_noisy.bias)
        nn.init.zeros_(self.follow_pokes.weight)
        nn.init.zeros_(self.follow_pokes.bias)

    def _to_tokens(self, grid: Tensor) -> Tensor:
        p = self.config.patch
        return rearrange(grid, "b s (r p) (w q) c -> b (s r w) (p q c)", p=p, q=p)

    def _to_grid(self, tokens: Tensor) -> Tensor:
        slices, rows, columns, _ = self.config.latent_shape
        p = self.config.patch
        sizes = dict(s=slices, r=rows // p, w=columns // p, p=p, q=p)
        return rearrange(tokens, "b (s r w) (p q c) -> b s (r p) (w q) c", **sizes)

    def prepare(
        self, frame: Tensor, pokes: Tensor, mask: Tensor, text: Text | None = None, guess: Tensor | None = None
    ) -> Prepared:
        """Everything about the conditions that does not depend on the noisy latents.

        Args:
            frame: (B, 3, S, S) in [-1, 1].
            pokes, mask: (B, P, 5) and (B, P); P may be 0.
            text: a sentence a clip; None = none.
            guess: (B, S, R, W, C) what the clean latents are thought to be beforehand; the network adds to it.
        """
        size = self.config.frame_size
        check_shape("frame", frame, f"B 3 {size} {size}")
        conditions: Conditions = self.conditions(frame, pokes, mask, text)
        slices, rows, columns, _ = self.config.latent_shape
        cells = repeat(conditions.cells, "b (r w) d -> b s r w d", r=rows, s=slices)
        cells = self.cells_in(self._to_tokens(cells)) + self.place
        follow = rearrange(self.follow_pokes(conditions.moves), "b (r w) (s c) -> b s r w c", r=rows, s=slices)
        if guess is not None:
            follow = follow + guess
        keep = rearrange(conditions.mask, "b m -> b 1 1 m")
        contexts = (tensor for block in self.blocks for tensor in block.context(conditions.tokens))
        return Prepared((cells, follow, keep, conditions.summary, *contexts))

    def clean(self, x_t: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        """Estimates the clean latents (B, S, R, W, C) behind noisy ones at flow times t (B,)."""
        cells, follow, keep, summary, *contexts = prepared
        tokens = self.latents_in(self._to_tokens(x_t)) + cells
        time = self.time(t) + summary
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, time, (contexts[2 * i], contexts[2 * i + 1]), keep)
        noisy = x_t * self.keep_noisy(time)[:, None, None, None]
        output = self._to_grid(self.latents_out(self.norm(tokens))) + follow + noisy
        return output if self.config.objective == "clean" else x_t - over_batch(t, x_t) * output

    def velocity(self, x_t: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        """The velocity noise - data at (x_t, t): (x_t - clean) / t."""
        return (x_t - self.clean(x_t, t, prepared)) / over_batch(t, x_t).clamp_min(1e-3)

    def loss(
        self,
        latents: Tensor,
        frame: Tensor,
        pokes: Tensor,
        mask: Tensor,
        decode_pokes=None,
        generator: torch.Generator | None = None,
        text: Text | None = None,
        guess: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Flow-matching loss on normalised latents.

        Args:
            latents: (B, S, R, W, C) clean, normalised.
            frame: (B, 3, S, S).
            pokes, mask: (B, P, 5), (B, P) drawn by `pokes.draw_pokes`; condition dropout happens here.
            decode_pokes: maps (clean estimate, start points (B, P, 2)) to tracks (B', P, T, 2), for all clips or the first
                B' of them; None leaves that term out.
            generator: draws times, noise and dropout.
            text: a sentence a clip; None = none.
            guess: of :meth:`prepare`.

        Returns:
            a dict: loss, flow (the velocity error, capped near t = 0), poke (end-point error of the clean estimate, in frame
            units).
        """
        check_pokes(pokes, mask, len(latents))
        device = latents.device
        kept = lambda share: torch.rand(len(latents), generator=generator, device=device)[:, None] >= share
        mask = mask & kept(self.config.drop)
        if text is not None:
            text = text._replace(mask=text.mask & kept(self.config.text_drop))
        t = sample_time(len(latents), generator, self.config.time_shift)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        x_t = flow_path(latents, noise, t).x_t
        clean = self.clean(x_t, t, self.prepare(frame, pokes, mask, text, guess))
        weight = over_batch(t, latents).clamp_min(self.config.least_time) ** -2
        flow = ((clean - latents).square() * weight).mean()
        poke = self.poke_error(clean, pokes, mask, decode_pokes)
        return {"loss": flow + self.config.poke_weight * poke, "flow": flow, "poke": poke}

    @staticmethod
    def poke_error(clean: Tensor, pokes: Tensor, mask: Tensor, decode_pokes) -> Tensor:
        """Mean L1 distance, frame units, between the goals and where the decoded clean estimate (B, S, R, W, C) gets."""
        if decode_pokes is None:
            return clean.new_zeros(())
        tracks = decode_pokes(clean, pokes[..., :2])
        pokes, mask = pokes[: len(tracks)], mask[: len(tracks)]
        miss = (read_at_time(tracks, pokes[..., 4]) - pokes[..., 2:4]).abs().sum(-1)
        return (miss * mask).sum() / mask.sum().clamp_min(1)

    @torch.no_grad()
    def sample(
        self,
        frame: Tensor,
        pokes: Tensor,
        mask: Tensor,
        text: Text | None = None,
        guess: Tensor | None = None,
        *,
        samples: int = 8,
        steps: int = STEPS,
        guidance: float = 1.0,
        text_guidance: float = 1.0,
        seed: int | torch.Generator = 0,
        solver: str = "euler",
        shift: float | None = None,
        correct=None,
    ) -> Tensor:
        """Draws K latent grids for every clip: (B, K, S, R, W, C), normalised.

        Args:
            frame: (B, 3, S, S).
            pokes, mask: (B, P, 5), (B, P); no poke at all is fine.
            text: a sentence a clip, None or empty ones for none.
            guess: of :meth:`prepare`, the same whatever is guided.
            samples: K; all are drawn in one batch and share the conditions' keys and values.
            steps: solver steps.
            guidance: s >= 0 in u + s (c - u), c with and u without pokes and text; 1 costs nothing extra, 0 ignores both.
            text_guidance: w >= 0 in the term (w - 1) (c - p) that is added, p with the pokes only; 1 costs nothing extra.
            seed: of the noise, or a generator.
            solver: "euler", "midpoint" or "heun".
            shift: of the time grid; default the training's.
            correct: maps a clean estimate (B * K, S, R, W, C) to a better one before each step (see `correction`).

        Raises:
            ShapeError: on malformed pokes or text, or more pokes than the model was trained with.
            ValueError: on fewer than 1 sample or step, a negative guidance, or an unknown solver.
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1; got {samples}.")
        for name, value in (("guidance", guidance), ("text_guidance", text_guidance)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more (1 = plain sampling); got {value}.")
        check_pokes(pokes, mask, len(frame), self.config.max_pokes)
        if not isinstance(seed, torch.Generator):
            seed = torch.Generator(frame.device).manual_seed(seed)
        noise = torch.randn((len(frame) * samples, *self.config.latent_shape), generator=seed, device=frame.device)
        more_text = 0.0 if text is None else text_guidance - 1
        silent = None if text is None else text._replace(mask=text.mask & False)
        # What each set of conditions contributes to the clean estimate; those that contribute nothing are never computed.
        branches = [(guidance + more_text, mask, text), (1 - guidance, mask & False, silent), (-more_text, mask, silent)]
        branches = [branch for branch in branches if branch[0] != 0]
        prepared = [self.prepare(frame, pokes, kept, said, guess) for _, kept, said in branches]
        # All branches run as one batch: row order (branch, clip, sample).
        prepared = Prepared(
            torch.cat([x.repeat_interleave(samples, 0) for x in parts]) for parts in zip(*prepared, strict=True)
        )

        def velocity(x_t: Tensor, t: Tensor) -> Tensor:
            copies = len(branches)
            parts = self.clean(x_t.repeat(copies, 1, 1, 1, 1), t.repeat(copies), prepared).chunk(copies)
            clean = sum(weight * part for (weight, *_), part in zip(branches, parts, strict=True))
            if correct is not None:
                clean = correct(clean)
            return (x_t - clean) / over_batch(t, x_t).clamp_min(1e-3)

        latents = solve(velocity, noise, steps, solver, self.config.time_shift if shift is None else shift)
        return rearrange(latents, "(b k) s r w c -> b k s r w c", k=samples)
