"""The official planner for robots: text and two camera views to motion latents of both views (ZipMo; facts 1.9).

The noisy latents and the image tokens of all views form one sequence. Views share their positions and are told apart by
learned vectors; image tokens sit at time -1, before the latents. The task sentence, encoded by a small transformer of its
own, is read by cross-attention, which knows no positions. In the variant trained on Tra-MoE's data a second token
tells at which step of the episode the plan starts. In training the text is dropped now and then for a learned mask token,
so that guidance has an unconditional branch; the start step stays, unless `mask_start_step` drops it too.

Departures: positions are (t, x, y). The release also embeds dummy pokes and throws the result away, with 10.6 M parameters:
left out. It truncates the start-step embedding's frequencies to integers when the step is one, so that most of them
vanish: the switch `truncate_step_frequencies`, off by default.

Shapes: latents (B, V, S, R, W, C) in normalised space, features (B, V, L, F), text (B, M, D), start_step (B,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.func import functional_call

from kinelib.learning.fourier import FlowTimeEmbedder, FourierEmbedder
from kinelib.learning.layers import Transformer
from kinelib.notation import ShapeError, check_finite, check_shape
from kinelib.zipmo.guidance import Prepared, denormalize_latents, draw_latents, normalize_latents
from kinelib.zipmo.transformer_autoencoder import cell_times, grid_positions


@dataclass(frozen=True)
class LiberoPlannerConfig:
    """Sizes of a text-conditioned planner of several views, without its image encoder and autoencoder."""

    views: int = 2  # V: agent view, wrist
    width: int = 128  # of the tokens
    depth: int = 2  # layers
    heads: int = 2  # attention heads (paper: width / 64)
    grid: tuple[int, int] = (8, 8)  # rows R, columns W of a view's latents
    slots: int = 1  # S, time slots of the latents
    channels: int = 16  # C of a latent
    feature_width: int = 64  # F, channels of an image token
    feature_grid: tuple[int, int] = (8, 8)  # rows, columns of a view's image tokens
    text_width: int = 64  # D, channels of a text token
    text_depth: int = 1  # layers of the text encoder
    text_heads: int = 1  # its attention heads (paper: text_width / 64)
    time_width: int = 64  # channels of the flow-time conditioning vector
    rotary: str = "3d_40"  # rotary variant of self-attention
    text_dropout: float = 0.1  # share of training clips whose text is masked
    start_step: bool = False  # whether a token tells the episode step the plan starts at (Tra-MoE variant)
    step_theta: float = 10 * math.pi  # 95 % of the start step's Fourier frequencies lie below, radians a step
    truncate_step_frequencies: bool = False  # official fault: those frequencies lose their fractions
    mask_start_step: bool = False  # where the text is dropped, the start step is dropped as well
    latent_shift: float = 0.0  # mean of the autoencoder's latents
    latent_variance: float = 1.0  # their variance
    normalized_variance: float = 0.5  # variance in the space the planner works in


PAPER_ATM = LiberoPlannerConfig(
    width=1024,
    depth=24,
    heads=16,
    grid=(16, 16),
    feature_width=768,
    feature_grid=(16, 16),
    text_width=768,
    text_depth=6,
    text_heads=12,
    time_width=256,
    latent_shift=-0.175,
    latent_variance=11.6,
)
PAPER_TRAMOE = replace(PAPER_ATM, start_step=True)


class LiberoPlanner(nn.Module):
    """Velocity of the noisy latents of all views, given their start frames and a task sentence.

    Args:
        config: sizes; `PAPER_ATM` and `PAPER_TRAMOE` have the official ones.
    """

    def __init__(self, config: LiberoPlannerConfig) -> None:
        super().__init__()
        if not 0 <= config.text_dropout < 1:
            raise ValueError(f"text_dropout is a share of clips in [0, 1); got {config.text_dropout}.")
        self.config = config
        self.latents_in = nn.Linear(config.channels, config.width, bias=False)
        self.image_in = nn.Linear(config.feature_width, config.width, bias=False)
        self.latent_views = nn.Parameter(torch.randn(config.views, config.width) * 0.02)
        self.image_views = nn.Parameter(torch.randn(config.views, config.feature_width) * 0.02)
        self.text_encoder = Transformer(config.text_width, config.text_depth, config.text_heads, rotary_variant="1d")
        self.text_mask = nn.Parameter(torch.randn(config.text_width) * 0.02)
        if config.start_step:
            self.embed_step = FourierEmbedder(1, config.text_width, config.step_theta)
        self.embed_time = FlowTimeEmbedder(config.time_width)
        self.transformer = Transformer(
            config.width,
            config.depth,
            config.heads,
            context_dim=config.text_width,
            condition_dim=config.time_width,
            rotary_variant=config.rotary,
            cross_variant="none",
        )
        self.velocity_out = nn.Linear(config.width, config.channels, bias=False)

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """(V, S, R, W, C)."""
        return (self.config.views, self.config.slots, *self.config.grid, self.config.channels)

    def prepare(
        self, features: Tensor, text: Tensor, start_step: Tensor | None = None, dropped: Tensor | None = None
    ) -> Prepared:
        """Computes everything that does not depend on the flow time.

        Args:
            features: (B, V, L, F) image tokens of the start frame of every view.
            text: (B, M, D) embedding of the task sentence; officially M = 1, the pooled output of a language model.
            start_step: (B,) environment step the plan starts at, >= 0; for the variant that has such a token, and only it.
            dropped: (B,) bool, True where the mask token stands in for the text, as in training; None is nowhere.

        Raises:
            ShapeError: on wrong shapes, values that are not finite, and a start step that is missing or not wanted.
        """
        config = self.config
        rows, columns = config.feature_grid
        batch = check_shape("features", features, f"B {config.views} {rows * columns} {config.feature_width}")["B"]
        tokens = check_shape("text", text, f"B M {config.text_width}", B=batch)["M"]
        if tokens < 1:
            raise ShapeError("text holds no token; an empty sentence has an embedding too. To drop it, use guidance=0.")
        check_finite("features", features)
        check_finite("text", text)
        step = self._step_token(start_step, batch)

        index = torch.arange(tokens, dtype=torch.float32, device=text.device)
        encoded = self.text_encoder(text, self.text_encoder.tables(index[None, :, None]))
        context = torch.cat([encoded, *step], dim=1)
        kept = [] if config.mask_start_step else step
        masked = repeat(self.text_mask, "d -> b m d", b=batch, m=context.shape[1] - len(kept))
        masked = torch.cat([masked, *kept], dim=1)
        if dropped is not None:
            check_shape("dropped", dropped, "B", B=batch)
            context = torch.where(dropped.bool()[:, None, None], masked, context)

        device = features.device
        grids = [
            grid_positions(cell_times(config.slots, device), *config.grid).repeat(config.views, 1),
            grid_positions(torch.full((1,), -1.0, device=device), *config.feature_grid).repeat(config.views, 1),
        ]
        image = self.image_in(features + self.image_views[:, None, :])
        return Prepared(
            image=rearrange(image, "b v l c -> b (v l) c"),
            tables=self.transformer.tables(torch.cat(grids)[None]),
            condition=self.transformer.contexts(context),
            unconditional=self.transformer.contexts(masked),
        )

    def _step_token(self, start_step: Tensor | None, batch: int) -> list[Tensor]:
        """The start-step token as a list of one (B, 1, D), or an empty list."""
        if not self.config.start_step:
            if start_step is not None:
                raise ShapeError("this planner has no start-step token (the ATM variant); leave start_step out.")
            return []
        if start_step is None:
            raise ShapeError("this planner has a start-step token (the Tra-MoE variant); pass start_step (B,).")
        check_shape("start_step", start_step, "B", B=batch)
        values = rearrange(start_step.float(), "b -> b 1 1")
        check_finite("start_step", values)
        if (values < 0).any():
            raise ShapeError("start_step counts environment steps from 0; got a negative one.")
        if not self.config.truncate_step_frequencies:
            return [self.embed_step(values)]
        name = "features.frequencies"
        return [functional_call(self.embed_step, {name: self.embed_step.get_buffer(name).trunc()}, (values,))]

    def velocity(self, noisy: Tensor, time: Tensor, prepared: Prepared) -> Tensor:
        """One pass of the network.

        Args:
            noisy: (B, V, S, R, W, C) latents at flow time t, in normalised space.
            time: (B,) flow times, 1 = noise.
            prepared: from :meth:`prepare`, of the same batch.

        Returns:
            (B, V, S, R, W, C) velocity, noise - data.
        """
        views, slots, rows, columns, channels = self.latent_shape
        pattern = f"B {views} {slots} {rows} {columns} {channels}"
        batch = check_shape("latents", noisy, pattern, B=len(prepared.image))["B"]
        check_shape("time", time, "B", B=batch)
        latents = self.latents_in(rearrange(noisy, "b v s r w c -> b v (s r w) c")) + self.latent_views[:, None, :]
        latents = rearrange(latents, "b v l c -> b (v l) c")
        tokens = torch.cat([latents, prepared.image], dim=1)
        wanted = slice(latents.shape[1])
        x = self.transformer(tokens, prepared.tables, prepared.condition, condition=self.embed_time(time), keep=wanted)
        velocity = self.velocity_out(x)
        return rearrange(velocity, "b (v s r w) c -> b v s r w c", v=views, s=slots, r=rows)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        features: Tensor,
        text: Tensor,
        start_step: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The velocity (B, V, S, R, W, C) in one call; in training mode the text of some clips is dropped.

        Args: as of :meth:`prepare` and :meth:`velocity`; `generator` draws which texts are dropped.
        """
        dropped = None
        if self.training and self.config.text_dropout:
            device = text.device if generator is None else generator.device
            chance = torch.rand(len(text), generator=generator, device=device)
            dropped = (chance < self.config.text_dropout).to(text.device)
        return self.velocity(noisy, time, self.prepare(features, text, start_step, dropped))

    @torch.no_grad()
    def sample(
        self,
        features: Tensor,
        text: Tensor,
        start_step: Tensor | None = None,
        *,
        samples: int = 1,
        steps: int = 10,
        guidance: float = 1.0,
        solver: str = "euler",
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draws latents of all views.

        Args:
            features, text, start_step: as of :meth:`prepare`.
            samples, guidance, solver, generator: as of :func:`kinelib.zipmo.guidance.draw_latents`.
            steps: solver steps from t = 1 to 0 (paper: 10).
            noise: (B, K, V, S, R, W, C) instead of a draw.

        Returns:
            (B, K, V, S, R, W, C) in normalised space, as a policy head reads them; :meth:`denormalize` before decoding.
        """
        prepared = self.prepare(features, text, start_step)
        options = dict(samples=samples, steps=steps, guidance=guidance, solver=solver, generator=generator, noise=noise)
        return draw_latents(self.velocity, prepared, self.latent_shape, **options)

    def normalize(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents in the planner's space: one shift and one scale for all channels."""
        return normalize_latents(latents, self.config)

    def denormalize(self, latents: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return denormalize_latents(latents, self.config)
