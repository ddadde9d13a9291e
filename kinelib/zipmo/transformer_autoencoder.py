"""The official transformer layout of the track autoencoder (ZipMo, stage one; facts 1.5 to 1.7).

Encoder: one token for every cell of the latent grid, one for every track at every frame, one register, in one
sequence; a track token embeds where the point is and carries, as its rotary position, the time and where the point
*started*. Decoder: the latents and one token for every queried point and frame, in one sequence. Both read the image
features by cross-attention.

Departures: positions are (t, x, y), the release has (t, y, x) (`kinelib.official` converts weights, nothing is flipped
at run time). Named switches, off by default: `independent_queries` stops queried points from seeing each other, so that
the answer does not depend on which others are asked for; `displacement` predicts the way from the query point.

Shapes: tracks (B, N, T, 2) xy, features (B, L, F) row by row over the feature grid, latents (B, S, R, W, C) with
S = num_frames / temporal_compression time slots.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.learning.fourier import FourierEmbedder
from kinelib.learning.image import PatchEncoder
from kinelib.learning.layers import KeysValues, LayerTables, RMSNorm, Transformer
from kinelib.learning.rotary import RotaryTable
from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape

if TYPE_CHECKING:
    from kinelib.zipmo.autoencoder import AutoencoderConfig


@dataclass(frozen=True)
class TransformerCodecConfig:
    """Sizes of the transformer autoencoder without its image encoder."""

    width: int = 128  # of the tokens
    encoder_depth: int = 2  # layers
    decoder_depth: int = 2  # layers
    heads: int = 2  # attention heads (paper: width / 64)
    feature_width: int = 64  # F, channels of an image token
    feature_grid: tuple[int, int] = (8, 8)  # rows, columns of the image tokens
    grid: tuple[int, int] = (8, 8)  # rows R, columns W of the latents
    channels: int = 16  # C of a latent
    num_frames: int = 64  # frames a window was trained with; any number can be encoded and decoded
    temporal_compression: int = 64  # t_c, frames merged into one time slot; divides num_frames
    theta: float = 40 * math.pi  # 95 % of the Fourier frequencies of positions lie below, radians a unit
    rotary: str = "3d_40"  # rotary variant of all attention; "none" leaves only contents
    independent_queries: bool = False  # queried points do not see each other (departure)
    displacement: bool = False  # the head's output is added to the query point (departure)

    @property
    def slots(self) -> int:
        """S, time slots of the latent grid."""
        return self.num_frames // self.temporal_compression


PAPER = TransformerCodecConfig(
    width=768, encoder_depth=12, decoder_depth=12, heads=12, feature_width=768, feature_grid=(16, 16), grid=(16, 16)
)


def cell_times(count: int, device: torch.device | str | None = None) -> Tensor:
    """The (count,) centres of [-1, 1] split into cells: how these networks tell the time (a single frame is at 0)."""
    return (2 * torch.arange(count, device=device) + 1) / count - 1


def grid_positions(times: Tensor, rows: int, columns: int) -> Tensor:
    """The (S * rows * columns, 3) positions (t, x, y) of a grid, ordered time, row, column."""
    cells = cell_centres(rows, columns, times.device)
    when = repeat(times, "s -> (s l) 1", l=len(cells))
    return torch.cat([when, repeat(cells, "l xy -> (s l) xy", s=len(times))], dim=-1)


def track_positions(starts: Tensor, num_frames: int) -> Tensor:
    """The (B, N * T, 3) positions of track tokens: the frame's time, and where the point starts (B, N, 2)."""
    batch, points, _ = starts.shape
    when = repeat(cell_times(num_frames, starts.device), "t -> b n t 1", b=batch, n=points)
    where = repeat(starts.float(), "b n xy -> b n t xy", t=num_frames)
    return rearrange(torch.cat([when, where], dim=-1), "b n t p -> b (n t) p")


class TransformerEncoder(nn.Module):
    """Tracks and image features to the mean and log-variance of a latent grid."""

    def __init__(self, config: TransformerCodecConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cell = nn.Parameter(torch.randn(width) * 0.02)
        self.register = nn.Parameter(torch.randn(width) * 0.02)
        self.embed = FourierEmbedder(2, width, config.theta)
        _keep_positions(self, config)
        self.transformer = _transformer(config, config.encoder_depth)
        self.mean = nn.Linear(width, config.channels)
        self.logvar = nn.Linear(width, config.channels)

    def forward(self, tracks: Tensor, features: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Arguments and results as of :meth:`TransformerCodec.encode`."""
        batch, _, frames, _ = tracks.shape
        grid = self.grid_positions
        cells = len(grid)
        tokens = [
            repeat(self.cell, "c -> b l c", b=batch, l=cells),
            rearrange(self.embed(tracks), "b n t c -> b (n t) c"),
            repeat(self.register, "c -> b 1 c", b=batch),
        ]
        positions = [grid.expand(batch, -1, -1), track_positions(tracks[:, :, 0], frames), grid.new_zeros(batch, 1, 3)]
        seen = None
        if visible is not None:
            always = visible.new_ones(batch, 1)
            seen = [always.expand(-1, cells), rearrange(visible, "b n t -> b (n t)"), always]
            seen = torch.cat(seen, dim=1)
        x = self.transformer(
            torch.cat(tokens, dim=1),
            self.transformer.tables(torch.cat(positions, dim=1)),
            self.transformer.contexts(features, self.feature_positions[None]),
            visible=seen,
            keep=slice(cells),
        )
        return _to_grid(self.mean(x), self.config), _to_grid(self.logvar(x), self.config)


class TransformerDecoder(nn.Module):
    """Latents, image features and query points to tracks."""

    def __init__(self, config: TransformerCodecConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.latents_in = nn.Linear(config.channels, width)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        _keep_positions(self, config)
        self.transformer = _transformer(config, config.decoder_depth)
        self.head = nn.Sequential(
            RMSNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def contexts(self, features: Tensor) -> list[KeysValues]:
        """The keys and values of the image features, which every chunk of a dense decode can share."""
        return self.transformer.contexts(features, self.feature_positions[None])

    def grid_contexts(self, latents: Tensor, contexts: list[KeysValues]) -> list[KeysValues]:
        """Every layer's keys and values of the latents, for queries that do not see each other.

        Latents then see latents only, so that one row of them serves all points and every chunk of a dense decode.
        """
        x, layers = self.latents_in(rearrange(latents, "b s r w c -> b (s r w) c")), self.transformer.layers
        made = []
        for layer, table, context in zip(layers, self.transformer.tables(self.grid_positions[None]), contexts, strict=True):
            attention, normed = layer.self_attention, layer.self_norm(x)
            made.append(attention.keys_values(normed, table.own))
            if layer is not layers[-1]:
                x = layer.after_self(x + attention(normed, made[-1], table.own), table, context)
        return made

    def forward(
        self,
        latents: Tensor,
        contexts: list[KeysValues],
        query_points: Tensor,
        num_frames: int,
        grid_contexts: list[KeysValues] | None = None,
    ) -> Tensor:
        """Arguments and results as of :meth:`TransformerCodec.decode`, with contexts in place of features."""
        config, (batch, points, _) = self.config, query_points.shape
        queries = repeat(self.query, "c -> b l c", b=batch, l=points * num_frames)
        grid, places = self.grid_positions, track_positions(query_points, num_frames)
        if config.independent_queries:
            shared = self.grid_contexts(latents, contexts) if grid_contexts is None else grid_contexts
            x = self._apart(shared, queries, self.transformer.tables(places), contexts, points)
        else:
            tokens = self.latents_in(rearrange(latents, "b s r w c -> b (s r w) c"))
            tables = self.transformer.tables(torch.cat([grid.expand(batch, -1, -1), places], dim=1))
            x = self.transformer(torch.cat([tokens, queries], dim=1), tables, contexts, keep=slice(len(grid), None))
        tracks = rearrange(self.head(x), "b (n t) xy -> b n t xy", t=num_frames)
        return query_points[:, :, None] + tracks if config.displacement else tracks

    def _apart(
        self,
        grid_contexts: list[KeysValues],
        queries: Tensor,
        places: list[LayerTables],
        contexts: list[KeysValues],
        points: int,
    ) -> Tensor:
        """The stack where a query token sees the latents and its own point's tokens.

        The same as one sequence under a mask, but a point looks at cells + T tokens instead of cells + Q * T.
        """
        for layer, shared, table, context in zip(self.transformer.layers, grid_contexts, places, contexts, strict=True):
            attention, normed = layer.self_attention, layer.self_norm(queries)
            own = attention.keys_values(normed, table.own)
            seen = (
                torch.cat(
                    [
                        repeat(ours, "b h l d -> (b q) h l d", q=points),
                        rearrange(theirs, "b h (q t) d -> (b q) h t d", q=points),
                    ],
                    dim=2,
                )
                for ours, theirs in zip(shared[:2], own[:2], strict=True)
            )
            turn = table.own and RotaryTable(
                *(rearrange(part, "b h (q t) s -> (b q) h t s", q=points) for part in table.own)
            )
            answer = attention(rearrange(normed, "b (q t) c -> (b q) t c", q=points), KeysValues(*seen), turn)
            queries = layer.after_self(queries + rearrange(answer, "(b q) t c -> b (q t) c", q=points), table, context)
        return queries


class TransformerCodec(nn.Module):
    """The track autoencoder on given image features.

    Args:
        config: sizes; `PAPER` has the official ones.

    Raises:
        ShapeError: when the temporal compression does not divide the number of frames.
    """

    def __init__(self, config: TransformerCodecConfig) -> None:
        super().__init__()
        if config.num_frames % config.temporal_compression:
            raise ShapeError(
                f"temporal_compression {config.temporal_compression} must divide num_frames {config.num_frames}."
            )
        self.config = config
        self.encoder = TransformerEncoder(config)
        self.decoder = TransformerDecoder(config)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(S, R, W, C)."""
        return (self.config.slots, *self.config.grid, self.config.channels)

    def encode(self, tracks: Tensor, features: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encodes tracks.

        Args:
            tracks: (B, N, T, 2) xy; any N and T of at least 1.
            features: (B, L, F) tokens of the first frame.
            visible: (B, N, T) bool, points the encoder may look at; None means all (paper).

        Returns:
            mean and log-variance, each (B, S, R, W, C).

        Raises:
            ShapeError: on wrong shapes or values that are not finite.
        """
        sizes = check_shape("tracks", tracks, "B N T 2")
        if not sizes["N"] or not sizes["T"]:
            raise ShapeError(f"encoding needs at least one track of one frame; got N={sizes['N']}, T={sizes['T']}.")
        check_finite("tracks", tracks)
        self._check_features(features, sizes["B"])
        if visible is not None:
            check_shape("visible", visible, "B N T", **{axis: sizes[axis] for axis in "BNT"})
        return self.encoder(tracks, features, visible)

    def decode(
        self,
        latents: Tensor,
        features: Tensor,
        query_points: Tensor,
        num_frames: int | None = None,
        *,
        contexts: list[KeysValues] | None = None,
        grid_contexts: list[KeysValues] | None = None,
    ) -> Tensor:
        """Says where points go that start at the query points.

        The queried points see each other (official), so the answer depends a little on how many there are and which.

        Args:
            latents: (B, S, R, W, C).
            features: (B, L, F) tokens of the first frame.
            query_points: (B, Q, 2) xy, at least one.
            num_frames: T of the answer, spread over the same stretch of time; default the config's.
            contexts: `decoder.contexts(features)` of an earlier call, to avoid computing them twice.
            grid_contexts: `decoder.grid_contexts(latents, contexts)` likewise, where queries do not see each other.

        Returns:
            (B, Q, T, 2) positions.
        """
        slots, rows, columns, channels = self.latent_shape
        sizes = check_shape("latents", latents, f"B {slots} {rows} {columns} {channels}")
        queries = check_shape("query_points", query_points, "B Q 2", B=sizes["B"])["Q"]
        frames = self.config.num_frames if num_frames is None else num_frames
        if not queries or frames < 1:
            raise ShapeError(f"decoding needs at least one query point and one frame; got Q={queries}, T={frames}.")
        check_finite("query_points", query_points)
        if contexts is None:
            self._check_features(features, sizes["B"])
            contexts = self.decoder.contexts(features)
        return self.decoder(latents, contexts, query_points, frames, grid_contexts)

    def decode_dense(
        self, latents: Tensor, features: Tensor, rows: int, columns: int, num_frames: int | None = None, chunk: int = 64
    ) -> Tensor:
        """Decodes a grid of start points in interleaved chunks that each span the whole frame: (B, rows, columns, T, 2).

        At most `chunk` points are decoded together, a square of every a-th row and e-th column (release: 8 x 8). The image's
        keys and values are computed once, and so are the latents' where queries do not see each other.
        """
        points = rearrange(cell_centres(rows, columns, latents.device), "(r w) xy -> r w xy", r=rows)
        side = math.isqrt(chunk)
        apart = (1, 1) if rows * columns <= chunk else (math.ceil(rows / side), math.ceil(columns / side))
        contexts = self.decoder.contexts(features)
        shared = self.decoder.grid_contexts(latents, contexts) if self.config.independent_queries else None
        frames = self.config.num_frames if num_frames is None else num_frames
        answer = latents.new_empty(len(latents), rows, columns, frames, 2)
        for row, column in itertools.product(*(range(step) for step in apart)):
            part = points[row :: apart[0], column :: apart[1]]
            queries = repeat(part, "r w xy -> b (r w) xy", b=len(latents))
            decoded = self.decode(latents, features, queries, frames, contexts=contexts, grid_contexts=shared)
            answer[:, row :: apart[0], column :: apart[1]] = rearrange(decoded, "b (r w) t xy -> b r w t xy", r=len(part))
        return answer

    def _check_features(self, features: Tensor, batch: int) -> None:
        rows, columns = self.config.feature_grid
        check_shape("features", features, f"B {rows * columns} {self.config.feature_width}", B=batch)


class FrameTransformerCodec(nn.Module):
    """A small trainable image encoder and a :class:`TransformerCodec`, as `TrackAutoencoder` calls a codec.

    Queried points do not see each other, so that a dense decode does not depend on how it is cut into chunks.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.image = PatchEncoder(config.frame_size, config.patch, config.width)
        side = config.frame_size // config.patch
        self.codec = TransformerCodec(
            TransformerCodecConfig(
                width=config.width,
                encoder_depth=config.encoder_depth,
                decoder_depth=config.decoder_depth,
                heads=config.heads,
                feature_width=config.width,
                feature_grid=(side, side),
                grid=config.grid,
                channels=config.channels,
                num_frames=config.num_frames,
                temporal_compression=config.temporal_compression,
                independent_queries=True,
                displacement=not config.absolute,
            )
        )

    def features(self, frame: Tensor) -> Tensor:
        """Image tokens of a frame (B, 3, H, W): (B, L, width)."""
        return self.image(frame)

    def encode(self, tracks: Tensor, features: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of tracks (B, N, T, 2); `keep` (B, N) chooses the tracks that are looked at."""
        visible = None if keep is None else repeat(keep, "b n -> b n t", t=tracks.shape[2])
        return self.codec.encode(tracks, features, visible)

    def decode(self, latents: Tensor, features: Tensor, query_points: Tensor) -> Tensor:
        """Displacements (B * K, Q, T, 2) from the (B, Q, 2) query points, for K latents a clip."""
        samples = len(latents) // len(query_points)
        contexts = [context.repeat(samples) for context in self.codec.decoder.contexts(features)]
        query_points = repeat(query_points, "b q c -> (b k) q c", k=samples)
        return self.codec.decode(latents, features, query_points, contexts=contexts) - query_points[:, :, None]


def _keep_positions(module: nn.Module, config: TransformerCodecConfig) -> None:
    """Gives a network the (L, 3) positions of its latents and, at time -1, before the first frame, of its image tokens."""
    before = torch.full((1,), -1.0)
    module.register_buffer("grid_positions", grid_positions(cell_times(config.slots), *config.grid))
    module.register_buffer("feature_positions", grid_positions(before, *config.feature_grid))


def _transformer(config: TransformerCodecConfig, depth: int) -> Transformer:
    return Transformer(config.width, depth, config.heads, context_dim=config.feature_width, rotary_variant=config.rotary)


def _to_grid(x: Tensor, config: TransformerCodecConfig) -> Tensor:
    rows, columns = config.grid
    return rearrange(x, "b (s r w) c -> b s r w c", s=config.slots, r=rows, w=columns)
