"""The small autoencoder's two halves: tracks to a grid of cells, and cells to any query point.

ZipMo sections on the motion autoencoder, in a local design that two cores can train. Departures from the paper, all
under ``layout="local"``: one token a track (a temporal basis instead of a token a frame), a closed-form local affine
fit as the linear path, distance-biased attention instead of RoPE, displacement output, queries that never see
each other (so a decoded point does not depend on which other points are asked for, nor on the chunking).

Shapes: tracks (B, N, T, 2), latents (B, S, R, W, C) with S = T / t_c, query points (B, Q, 2) -> (B, Q, T, 2).
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import softplus

from kinelib.notation import cell_centres
from kinelib.zipmo.local_fit import AffineFit, affine_fit
from kinelib.zipmo.point_features import CellFeatures, ConvBlock, ImageMapper, ImageMaps, PointFeatures
from kinelib.zipmo.temporal_basis import TemporalBasis

# Sharp attention makes weights like 1e-40; unless such denormal numbers count as zero, every product with them is six times
# slower on a CPU (measured on the batched products of one training step).
torch.set_flush_denormal(True)


def _inverse_softplus(values: Tensor) -> Tensor:
    return values + torch.log(-torch.expm1(-values))


class FitAttention(nn.Module):
    """Distance-biased attention whose weights serve twice: an affine fit of `values` and a sum of features.

    Args:
        width: of targets and sources.
        heads: h.
        reach: (sharpest, widest) initial factor of squared distance over the heads.
        ridge: initial ridge of the fits.
    """

    def __init__(self, width: int, heads: int, reach: tuple[float, float], ridge: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.gate = nn.Sequential(nn.Linear(2 * width + 3 * heads, width), nn.ReLU(), nn.Linear(width, heads))
        bias = torch.logspace(*(torch.tensor(reach).log10().tolist()), heads)
        self.bias = nn.Parameter(_inverse_softplus(bias / 10))  # a_h / 10, so that one learning rate suits it
        self.ridge = nn.Parameter(_inverse_softplus(torch.full((heads,), ridge) * 100))

    def forward(
        self, targets: Tensor, target_xy: Tensor, sources: Tensor, source_xy: Tensor, values: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, AffineFit]:
        """Returns attended features (B, M, width) and the gated fit, heads mixed: value (B, M, D), slopes (B, M, 2, D)."""
        heads = dict(h=self.heads)
        q = rearrange(self.query(targets), "b m (h c) -> b h m c", **heads) * (targets.shape[-1] // self.heads) ** -0.5
        k = rearrange(self.key(sources), "b n (h c) -> b h n c", **heads)
        v = rearrange(self.value(sources), "b n (h c) -> b h n c", **heads).contiguous()
        # -a |target - source|^2, less what softmax cancels, is a product too: three more channels instead of four passes.
        sharpness = rearrange(10 * softplus(self.bias), "h -> 1 h 1 1")
        where = torch.cat([2 * target_xy, -torch.ones_like(target_xy[..., :1])], dim=-1)[:, None] * sharpness
        there = torch.cat([source_xy, source_xy.square().sum(-1, keepdim=True)], dim=-1)[:, None]
        q = torch.cat([q, where], dim=-1)
        k = torch.cat([k, there.expand(-1, self.heads, -1, -1)], dim=-1)
        logits = q @ k.mT
        if keep is not None:
            logits = logits.masked_fill(~keep[:, None, None, :], -1e9)
        weights = logits.softmax(dim=-1)
        fit = affine_fit(weights, source_xy, values, target_xy, softplus(self.ridge) / 100)
        attended = rearrange(weights @ v, "b h m c -> b m (h c)")
        spread = rearrange(fit.spread, "b h m c -> b m (h c)")
        gate = self.gate(torch.cat([targets, attended, spread], dim=-1)).softmax(dim=-1)
        value = torch.einsum("bmh,bhmd->bmd", gate, fit.value)
        slopes = torch.einsum("bmh,bhmcd->bmcd", gate, fit.slopes)
        return attended, AffineFit(value, slopes, spread)


class LocalCodec(nn.Module):
    """Encodes tracks into a grid of locally fitted motion coefficients, decodes it anywhere; `config` as in the wrapper."""

    def __init__(self, config) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.grid
        width, heads, channels = config.width, config.heads, config.channels
        self.basis = TemporalBasis(config.num_frames, config.temporal_compression, config.basis_size)
        self.linear = min(channels // 2, self.basis.size)  # components the latent holds directly, per axis
        fitted, coefficients = 2 * self.linear, 2 * self.basis.size
        self.image = ImageMapper(width)
        self.register_buffer("cells_xy", cell_centres(rows, columns), persistent=False)

        self.track_token = PointFeatures(width, extra=coefficients)
        self.encoder_cell = CellFeatures(width, rows, columns)
        self.gather = FitAttention(width, heads, reach=(10.0, 300.0), ridge=2e-3)
        self.encoder_mix = nn.Sequential(nn.Linear(2 * width + 3 * fitted + 3 * heads, width), nn.ReLU())
        self.encoder_blocks = nn.Sequential(*(ConvBlock(width, rows, columns) for _ in range(config.encoder_depth)))
        self.posterior = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * channels))

        self.decoder_cell = CellFeatures(width, rows, columns)
        self.decoder_mix = nn.Sequential(nn.Linear(width + channels, width), nn.ReLU())
        self.decoder_blocks = nn.Sequential(*(ConvBlock(width, rows, columns) for _ in range(config.decoder_depth)))
        self.query_token = PointFeatures(width)
        self.spread = FitAttention(width, heads, reach=(50.0, 400.0), ridge=5e-4)
        self.query_mix = nn.Sequential(nn.Linear(2 * width + 3 * fitted + 3 * heads, width), nn.ReLU())
        self.query_refine = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
            for _ in range(2)
        )
        self.residual = nn.Linear(width, coefficients)
        with torch.no_grad():  # start as the pure fit, with a small posterior spread
            for head in (self.posterior[-1], self.residual):
                head.weight.zero_()
                head.bias.zero_()
            self.posterior[-1].bias[channels:] = -6.0

    def features(self, frame: Tensor) -> ImageMaps:
        """(B, 3, S, S) frame to image maps, computed once and shared by encoding and decoding."""
        return self.image(frame)

    def encode(self, tracks: Tensor, maps: ImageMaps, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, N, T, 2) tracks to mean and log-variance, each (B, S, R, W, C); `keep` (B, N) leaves tracks out."""
        start = tracks[:, :, 0]
        coefficients = self.basis.coefficients(tracks - tracks[:, :, :1])
        windows = coefficients.shape[2]
        coefficients = rearrange(coefficients, "b n s d c -> (b s) n (d c)")
        if windows > 1:  # every window of frames is encoded on its own, with the image of the first frame
            start, maps = repeat(start, "b n c -> (b s) n c", s=windows), maps.repeat(windows)
            keep = None if keep is None else repeat(keep, "b n -> (b s) n", s=windows)
        tokens = self.track_token(maps, start, coefficients)
        cells = self.encoder_cell(maps)
        cells_xy = self.cells_xy.expand(len(cells), -1, -1)
        attended, fit = self.gather(cells, cells_xy, tokens, start, coefficients[..., : 2 * self.linear], keep)
        cells = self.encoder_mix(torch.cat([cells, attended, fit.value, fit.slopes.flatten(-2), fit.spread], dim=-1))
        mean, logvar = self.posterior(self.encoder_blocks(cells)).chunk(2, dim=-1)
        # Channels beyond the fitted ones (odd counts, short windows) are free.
        mean = mean + nn.functional.pad(fit.value, (0, mean.shape[-1] - fit.value.shape[-1]))
        rows = self.config.grid[0]
        grid = lambda cells: rearrange(cells, "(b s) (r w) c -> b s r w c", s=windows, r=rows)
        return grid(mean), grid(logvar.clamp(-12, 4))

    def decode(self, latents: Tensor, maps: ImageMaps, query_points: Tensor) -> Tensor:
        """(B * K, S, R, W, C) latents to displacements (B * K, Q, T, 2) of points that start at `query_points` (B, Q, 2)."""
        windows = latents.shape[1]
        values = rearrange(latents, "b s r w c -> (b s) (r w) c")
        # What only the frame decides is computed once a clip, and shared by its samples and windows.
        again = lambda x: repeat(x, "b ... -> (b k) ...", k=len(values) // len(query_points))
        cells = torch.cat([again(self.decoder_cell(maps)), values], dim=-1)
        cells = self.decoder_blocks(self.decoder_mix(cells))
        cells_xy = self.cells_xy.expand(len(cells), -1, -1)
        tokens = again(self.query_token(maps, query_points))
        fitted = values[..., : 2 * self.linear]
        attended, fit = self.spread(tokens, again(query_points), cells, cells_xy, fitted, None)
        tokens = self.query_mix(torch.cat([tokens, attended, fit.value, fit.slopes.flatten(-2), fit.spread], dim=-1))
        for refine in self.query_refine:
            tokens = tokens + refine(tokens)
        residual = rearrange(self.residual(tokens), "b q (d c) -> b q d c", c=2)
        linear = rearrange(fit.value, "b q (d c) -> b q d c", c=2)
        coefficients = residual + nn.functional.pad(linear, (0, 0, 0, residual.shape[2] - linear.shape[2]))
        return self.basis.displacement(rearrange(coefficients, "(b s) q d c -> b q s d c", s=windows))
