"""The official planner: a transformer that predicts the flow-matching velocity of motion latents (ZipMo; facts 1.8).

Noisy latents and the image tokens of the start frame form one sequence; pokes are read by cross-attention, a poke's goal
and goal time as content and its start as rotary position. The flow time scales every norm. Everything that does not
depend on the flow time is computed once for a draw (`prepare`): image tokens, rotary tables, keys and values of the
pokes; with and without guidance the network runs once a step.

Departures: positions are (t, x, y) and pokes (x, y, goal x, goal y, goal time); unused poke slots are masked and a
learned null token stands in for "no poke", so that any number of pokes, 0 included, has a meaning. The release instead
fills unused slots with zeros, which soak up attention, so that the answer depends on the number of slots: that is
the switch `zero_slot_sinks`.

Shapes: latents (B, S, R, W, C) in normalised space, features (B, L, F), pokes (B, P, 5), mask (B, P) True = a real poke.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.learning.fourier import FlowTimeEmbedder, FourierEmbedder
from kinelib.learning.layers import Transformer, compile_stack
from kinelib.notation import ShapeError, check_finite, check_shape
from kinelib.zipmo.guidance import Prepared, denormalize_latents, draw_latents, normalize_latents
from kinelib.zipmo.transformer_autoencoder import cell_times, grid_positions


@dataclass(frozen=True)
class TransformerPlannerConfig:
    """Sizes of a planner without its image encoder and autoencoder."""

    width: int = 128  # of the tokens
    depth: int = 2  # layers
    heads: int = 2  # attention heads (paper: width / 64)
    grid: tuple[int, int] = (8, 8)  # rows R, columns W of the latents
    slots: int = 1  # S, time slots of the latents
    channels: int = 16  # C of a latent
    feature_width: int = 64  # F, channels of an image token
    feature_grid: tuple[int, int] = (8, 8)  # rows, columns of the image tokens
    poke_width: int = 64  # channels of a poke token
    poke_slots: int = 16  # most pokes a clip can have
    time_width: int = 64  # channels of the flow-time conditioning vector
    theta: float = 10 * 3.14  # 95 % of the Fourier frequencies of pokes lie below, radians a unit
    rotary: str = "3d_10"  # rotary variant of all attention
    image_time: float | None = 0.0  # when the start frame is on the latents' clock; None puts it where the latents are
    zero_slot_sinks: bool = False  # official behaviour: unused poke slots are zeros that soak up attention
    latent_shift: float = 0.0  # mean of the autoencoder's latents
    latent_variance: float = 1.0  # their variance
    normalized_variance: float = 0.5  # variance in the space the planner works in


PAPER_SPARSE = TransformerPlannerConfig(
    width=1024,
    depth=24,
    heads=16,
    grid=(16, 16),
    feature_width=768,
    feature_grid=(16, 16),
    poke_width=768,
    poke_slots=16,
    time_width=256,
    zero_slot_sinks=True,
    latent_shift=-0.175,
    latent_variance=11.6,
)
PAPER_DENSE = replace(PAPER_SPARSE, poke_slots=40)


class TransformerPlanner(nn.Module):
    """Velocity of noisy latents, given the start frame and pokes.

    Args:
        config: sizes; `PAPER_SPARSE` and `PAPER_DENSE` have the official ones.

    Raises:
        ShapeError: when image tokens shall be where the latents are and there are more or fewer of them.
    """

    def __init__(self, config: TransformerPlannerConfig) -> None:
        super().__init__()
        rows, columns = config.feature_grid
        if config.image_time is None and rows * columns != config.slots * config.grid[0] * config.grid[1]:
            raise ShapeError("image_time=None needs as many image tokens as latents; give the start frame a time, e.g. 0.")
        self.config = config
        self.latents_in = nn.Linear(config.channels, config.width, bias=False)
        self.image_in = nn.Linear(config.feature_width, config.width, bias=False)
        self.start_frame = nn.Parameter(torch.randn(config.feature_width) * 0.02)
        self.embed_goal = FourierEmbedder(3, config.poke_width, config.theta)
        self.embed_time = FlowTimeEmbedder(config.time_width)
        if not config.zero_slot_sinks:
            self.null_poke = nn.Parameter(torch.randn(config.poke_width) * 0.02)
        self.transformer = Transformer(
            config.width,
            config.depth,
            config.heads,
            context_dim=config.poke_width,
            condition_dim=config.time_width,
            rotary_variant=config.rotary,
        )
        self.velocity_out = nn.Linear(config.width, config.channels, bias=False)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(S, R, W, C)."""
        return (self.config.slots, *self.config.grid, self.config.channels)

    def prepare(self, features: Tensor, pokes: Tensor, mask: Tensor | None = None) -> Prepared:
        """Computes everything that does not depend on the flow time.

        Args:
            features: (B, L, F) image tokens of the start frame.
            pokes: (B, P, 5) = start x, y, goal x, y in [-1, 1] and goal time in [0, 1]; P may be 0.
            mask: (B, P) bool, True = a real poke; None means all are.

        Raises:
            ShapeError: on wrong shapes, more than `poke_slots` pokes, or real pokes that are not finite.
        """
        config = self.config
        rows, columns = config.feature_grid
        sizes = check_shape("features", features, f"B {rows * columns} {config.feature_width}")
        count = check_shape("pokes", pokes, "B P 5", B=sizes["B"])["P"]
        if count > config.poke_slots:
            raise ShapeError(
                f"this planner takes at most {config.poke_slots} pokes; got {count}. Drop {count - config.poke_slots} "
                "of them, or use the dense planner."
            )
        mask = torch.ones(pokes.shape[:2], dtype=torch.bool, device=pokes.device) if mask is None else mask.bool()
        check_shape("mask", mask, "B P", B=sizes["B"], P=count)
        pokes = torch.where(mask[:, :, None], pokes, 0.0)
        check_finite("pokes", pokes)

        device = features.device
        positions = grid_positions(cell_times(config.slots, device), *config.grid)
        when = config.image_time
        image = positions if when is None else grid_positions(torch.full((1,), when, device=device), *config.feature_grid)
        positions = torch.cat([positions, image])
        empty = self.poke_context(pokes, torch.zeros_like(mask))
        return Prepared(
            image=self.image_in(features + self.start_frame),
            tables=self.transformer.tables(positions[None]),
            condition=self.transformer.contexts(*self.poke_context(pokes, mask)),
            # Zero slots only: keys and values are zero, and so is what cross-attention adds.
            unconditional=None if config.zero_slot_sinks else self.transformer.contexts(*empty),
        )

    def poke_context(self, pokes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Poke tokens (B, S, poke_width) for cross-attention, their positions (B, S, 3) and which may be seen (B, S)."""
        tokens = self.embed_goal(pokes[:, :, 2:]) * mask[:, :, None]
        positions = F.pad(pokes[:, :, :2].float() * mask[:, :, None], (1, 0))
        if self.config.zero_slot_sinks:
            missing = (0, 0, 0, self.config.poke_slots - pokes.shape[1])
            return F.pad(tokens, missing), F.pad(positions, missing), None
        null = repeat(self.null_poke, "c -> b 1 c", b=len(pokes))
        return torch.cat([null, tokens], dim=1), F.pad(positions, (0, 0, 1, 0)), F.pad(mask, (1, 0), value=True)

    def velocity(self, noisy: Tensor, time: Tensor, prepared: Prepared) -> Tensor:
        """One pass of the network.

        Args:
            noisy: (B, S, R, W, C) latents at flow time t, in normalised space.
            time: (B,) flow times, 1 = noise.
            prepared: from :meth:`prepare`, of the same batch.

        Returns:
            (B, S, R, W, C) velocity, noise - data.
        """
        slots, rows, columns, channels = self.latent_shape
        batch = check_shape("latents", noisy, f"B {slots} {rows} {columns} {channels}", B=len(prepared.image))["B"]
        check_shape("time", time, "B", B=batch)
        latents = self.latents_in(rearrange(noisy, "b s r w c -> b (s r w) c"))
        tokens = torch.cat([latents, prepared.image], dim=1)
        wanted = slice(latents.shape[1])
        x = self.transformer(tokens, prepared.tables, prepared.condition, condition=self.embed_time(time), keep=wanted)
        velocity = self.velocity_out(x)
        return rearrange(velocity, "b (s r w) c -> b s r w c", s=slots, r=rows)

    def compile_velocity(self) -> None:
        """Has torch.compile fuse the layers from the next call on; results stay equal up to rounding.

        Compiling takes about a minute for every new shape of input, guidance and number of samples.

        Raises:
            RuntimeError: where torch.compile cannot work, for example without a C++ compiler.
        """
        compile_stack(self.transformer)

    def forward(self, noisy: Tensor, time: Tensor, features: Tensor, pokes: Tensor, mask: Tensor | None = None) -> Tensor:
        """The velocity (B, S, R, W, C) in one call, as in training; arguments of :meth:`prepare` and :meth:`velocity`."""
        return self.velocity(noisy, time, self.prepare(features, pokes, mask))

    @torch.no_grad()
    def sample(
        self,
        features: Tensor,
        pokes: Tensor,
        mask: Tensor | None = None,
        *,
        samples: int = 1,
        steps: int = 50,
        guidance: float = 1.0,
        solver: str = "euler",
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draws latents.

        Args:
            features, pokes, mask: as of :meth:`prepare`.
            samples, guidance, solver, generator: as of :func:`kinelib.zipmo.guidance.draw_latents`.
            steps: solver steps from t = 1 to 0 (paper: 50).
            noise: (B, K, S, R, W, C) instead of a draw.

        Returns:
            (B, K, S, R, W, C) in normalised space; :meth:`denormalize` before decoding.

        Raises:
            ShapeError: on wrong shapes. ValueError: when guidance is not finite or fewer than one sample is asked for.
        """
        prepared = self.prepare(features, pokes, mask)
        options = dict(samples=samples, steps=steps, guidance=guidance, solver=solver, generator=generator, noise=noise)
        return draw_latents(self.velocity, prepared, self.latent_shape, **options)

    def normalize(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents in the planner's space: one shift and one scale for all channels."""
        return normalize_latents(latents, self.config)

    def denormalize(self, latents: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return denormalize_latents(latents, self.config)
