"""`TrackAutoencoder`: point tracks and a first frame in, a grid of latents out, and back at any point and any T.

Paper: the motion autoencoder (stage one). Two layouts behind one interface:
    "local"        the small design of `local_codec` (default; departures are listed there)
    "transformer"  the official layout, `transformer_autoencoder`, for released weights and GPU-sized training
Shapes: tracks (B, N, T, 2) xy, frame (B, 3, S, S) in [-1, 1], latents (B, T / t_c, R, W, C), query points (B, Q, 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape
from kinelib.tracks.timing import resample_time
from kinelib.zipmo.local_codec import LocalCodec


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of a track autoencoder; the defaults are the shipped small model."""

    layout: str = "local"  # "local" (small) or "transformer" (official)
    num_frames: int = 64  # T the model works at; other lengths are resampled
    temporal_compression: int = 64  # t_c, frames merged into one latent slice; divides num_frames
    grid: tuple[int, int] = (16, 16)  # rows, columns of the latent grid
    channels: int = 16  # C of a latent
    frame_size: int = 64  # S, pixels of the square first frame
    width: int = 96  # of tokens and of image features
    heads: int = 4  # attention heads
    encoder_depth: int = 1  # blocks after the fit (local) or layers (transformer)
    decoder_depth: int = 2  # likewise
    basis_size: int = 24  # D, temporal components of a track token (local only)
    patch: int = 8  # pixels a side of an image patch (transformer only)
    absolute: bool = False  # transformer only: predict positions (paper) instead of displacements


class Posterior(NamedTuple):
    """Gaussian over latents: mean and log-variance, each (B, S, R, W, C)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean + (0.5 * self.logvar).exp() * noise

    def kl(self) -> Tensor:
        """KL divergence to N(0, I), summed over channels and averaged over tokens and batch (the paper's convention)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).sum(-1).mean()


class TrackAutoencoder(nn.Module):
    """Encodes any number of tracks and decodes them at any query points.

    Args:
        config: sizes and layout.

    Raises:
        ValueError: for an unknown layout, or fewer than 2 channels in the local one.
    """

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        config = config or AutoencoderConfig()
        self.config = config
        if config.layout == "local":
            if config.channels < 2:
                raise ValueError(f"the local layout needs at least 2 channels, x and y; got {config.channels}.")
            self.codec = LocalCodec(config)
        elif config.layout == "transformer":
            from kinelib.zipmo.transformer_autoencoder import FrameTransformerCodec

            self.codec = FrameTransformerCodec(config)
        else:
            raise ValueError(f'unknown layout {config.layout!r}: use "local" or "transformer".')
        # Measured on training data after training; identity until then.
        self.register_buffer("latent_shift", torch.zeros(config.channels))
        self.register_buffer("latent_scale", torch.ones(config.channels))

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(T / t_c, rows, columns, C)."""
        config = self.config
        return (config.num_frames // config.temporal_compression, *config.grid, config.channels)

    def _check_frame(self, frame: Tensor, batch: int) -> None:
        size = self.config.frame_size
        check_shape("frame", frame, f"B 3 {size} {size}", B=batch)
        check_finite("frame", frame)

    def encode(
        self, tracks: Tensor, frame: Tensor, visible: Tensor | None = None, features=None, keep: Tensor | None = None
    ) -> Posterior:
        """Encodes tracks and their first frame.

        Args:
            tracks: (B, N, T, 2) xy in [-1, 1], any N and T of at least 1.
            frame: (B, 3, S, S) first frame in [-1, 1].
            visible: (B, N, T) bool; those invisible in half of the frames or more are left out, unless a clip has no others.
            features: what `features(frame)` returned, to avoid computing it twice.
            keep: (B, N) bool, an explicit choice of tracks instead of `visible`; at least one a clip.

        Raises:
            ShapeError: on wrong shapes or values that are not finite.
        """
        sizes = check_shape("tracks", tracks, "B N T 2")
        if not sizes["N"] or not sizes["T"]:
            raise ShapeError(f"encoding needs at least one track of one frame; got N={sizes['N']}, T={sizes['T']}.")
        check_finite("tracks", tracks)
        self._check_frame(frame, sizes["B"])
        if visible is not None and keep is None:
            check_shape("visible", visible, "B N T", **{axis: sizes[axis] for axis in "BNT"})
            keep = visible.float().mean(-1) > 0.5
            keep = keep | ~keep.any(dim=1, keepdim=True)
        if keep is not None:
            check_shape("keep", keep, "B N", B=sizes["B"], N=sizes["N"])
            if keep.dtype != torch.bool or not keep.any(dim=1).all():
                raise ShapeError("keep must be bool and leave every clip at least one track.")
        features = self.codec.features(frame) if features is None else features
        return Posterior(*self.codec.encode(resample_time(tracks, self.config.num_frames), features, keep))

    def features(self, frame: Tensor):
        """Image features of (B, 3, S, S) frames, to be passed to `encode` and `decode` so that they are computed once."""
        self._check_frame(frame, len(frame))
        return self.codec.features(frame)

    def decode(
        self, latents: Tensor, frame: Tensor, query_points: Tensor, num_frames: int | None = None, features=None
    ) -> Tensor:
        """Says where points go: (B * K, Q, T, 2) positions of points that start at `query_points`.

        Args:
            latents: (B * K, S, R, W, C); the K samples of a clip follow each other and share its frame and points.
            frame: (B, 3, S, S).
            query_points: (B, Q, 2) xy.
            num_frames: T of the answer; default the model's own. Time is resampled linearly, ends exact.
            features: as in `encode`.

        Raises:
            ShapeError: on wrong shapes, points that are not finite, or fewer than 1 frame.
        """
        check_shape("latents", latents, "B S R W C")
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ShapeError(f"latents must be (B, {', '.join(map(str, self.latent_shape))}); got {tuple(latents.shape)}.")
        clips = check_shape("query_points", query_points, "B Q 2")["B"]
        if not clips or len(latents) % clips:
            raise ShapeError(f"{len(latents)} latents are not a whole number of samples of {clips} clips.")
        check_finite("query_points", query_points)
        self._check_frame(frame, clips)
        features = self.features(frame) if features is None else features
        starts = repeat(query_points, "b q c -> (b k) q 1 c", k=len(latents) // clips)
        tracks = starts + self.codec.decode(latents, features, query_points)
        return resample_time(tracks, self.config.num_frames if num_frames is None else num_frames)

    def decode_dense(
        self, latents: Tensor, frame: Tensor, rows: int, columns: int, num_frames: int | None = None, chunk: int = 1024
    ) -> Tensor:
        """Decodes a whole grid of start points, `chunk` at a time: (B * K, rows, columns, T, 2)."""
        points = cell_centres(rows, columns, device=latents.device).expand(len(frame), -1, -1)
        features = self.features(frame)
        pieces = [self.decode(latents, frame, piece, num_frames, features) for piece in points.split(chunk, dim=1)]
        return rearrange(torch.cat(pieces, dim=1), "b (r w) t c -> b r w t c", r=rows)

    def normalize(self, latents: Tensor) -> Tensor:
        """Latents to the space the flow matcher works in."""
        return (latents - self.latent_shift) / self.latent_scale

    def denormalize(self, latents: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return latents * self.latent_scale + self.latent_shift

    @torch.no_grad()
    def measure_statistics(self, latents: Tensor) -> None:
        """Sets shift and scale from (M, S, R, W, C) latents.

        Each channel is divided by the geometric mean of its own and the largest standard deviation, then all by one number
        so that the mean variance is 1: leading temporal components, which matter most in pixels, stay larger than fine ones.
        """
        shift = latents.mean(dim=(0, 1, 2, 3))
        std = latents.std(dim=(0, 1, 2, 3)).clamp_min(1e-4)
        scale = (std * std.max()).sqrt()
        self.latent_shift.copy_(shift)
        self.latent_scale.copy_(scale * (std / scale).square().mean().sqrt())

    def loss(
        self,
        tracks: Tensor,
        frame: Tensor,
        encoded: int,
        *,
        seen: int = 8,
        kl_weight: float = 1e-5,
        moving_weight: float = 1.0,
        visible: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Reconstruction loss: the first `encoded` tracks are encoded; some of them and all others are decoded.

        Args:
            tracks: (B, N, T, 2), N > `encoded`.
            frame: (B, 3, S, S).
            encoded: how many tracks the encoder sees; the others are held out.
            seen: how many of the encoded tracks are decoded too (paper: all, 40 of 80; held-out ones teach more).
            kl_weight: of the KL term (paper: 1e-7 with the sum over channels).
            moving_weight: extra weight of tracks that move, in [0, inf).
            visible: (B, N, T) bool: steps that count in the loss; None = all (paper).
            generator: draws the posterior sample.

        Returns:
            a dict: loss, position (mean L1), velocity (L1 of 4-frame differences), kl.

        Raises:
            ShapeError: when no track is left to hold out, or there is no second frame.
        """
        sizes = check_shape("tracks", tracks, "B N T 2")
        if not 1 <= encoded < sizes["N"] or sizes["T"] < 2:
            raise ShapeError(f"the loss needs 1 <= encoded < N and T >= 2; got encoded={encoded}, {tuple(tracks.shape)}.")
        features = self.features(frame)
        posterior = self.encode(tracks[:, :encoded], frame, features=features)
        tracks = tracks[:, max(encoded - seen, 0) :]
        decoded = self.decode(posterior.sample(generator), frame, tracks[:, :, 0], tracks.shape[2], features)
        error = (decoded - tracks).abs().sum(-1)
        # Differences over four frames keep curves curved; position alone is content with chords.
        gap = min(4, tracks.shape[2] - 1)
        step = ((decoded[:, :, gap:] - decoded[:, :, :-gap]) - (tracks[:, :, gap:] - tracks[:, :, :-gap])).abs().sum(-1)
        moves = (tracks - tracks[:, :, :1]).norm(dim=-1).amax(-1) > 0.03
        weight = (1 + moving_weight * moves)[:, :, None].expand_as(error)
        if visible is not None:
            weight = weight * visible[:, max(encoded - seen, 0) :]
        position = (error * weight).sum() / weight.sum().clamp_min(1e-6)
        velocity = (step * weight[:, :, gap:]).sum() / weight[:, :, gap:].sum().clamp_min(1e-6)
        kl = posterior.kl()
        return {"loss": position + velocity + kl_weight * kl, "position": position, "velocity": velocity, "kl": kl}
