"""A small orthogonal basis over time in which displacement curves are written.

Departs from the paper, which feeds one token a frame: a track of T frames becomes a few coefficients, so the small
autoencoder needs one token a track (switch: ``layout="local"``). The basis is measured on training tracks (an uncentred
SVD shared by x and y), so that smooth motion needs 8 numbers an axis. Displacements are zero in the first frame, hence so is
every basis function of the first window.

Shapes: displacement (..., T, 2) <-> coefficients (..., S, D, 2) for S = T / t_c windows of t_c frames, D components.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.notation import ShapeError
from kinelib.tracks.timing import resample_time

SCALE = 0.3  # a typical displacement in [-1, 1] units, so that leading coefficients are of order one


class TemporalBasis(nn.Module):
    """Writes displacement curves in a measured basis, window by window.

    Args:
        num_frames: T, the number of frames the basis covers.
        window: t_c, frames a window (temporal compression); divides `num_frames`.
        size: D, components a window (at most `window`).
    """

    def __init__(self, num_frames: int, window: int, size: int) -> None:
        super().__init__()
        if num_frames % window:
            raise ShapeError(f"temporal compression {window} does not divide {num_frames} frames.")
        self.num_frames, self.window, self.size = num_frames, window, min(size, window)
        # Until measured: polynomials, orthonormalised. Enough for tests and toy data.
        powers = torch.linspace(0, 1, window)[:, None] ** torch.arange(1 if window == num_frames else 0, self.size + 1)
        functions = torch.linalg.qr(powers.double())[0][:, : self.size].float()
        self.register_buffer("functions", functions * SCALE * window**0.5)  # (t_c, D)

    @torch.no_grad()
    def measure(self, tracks: Tensor) -> None:
        """Replaces the basis by the leading singular vectors of the displacements of (M, N, T, 2) tracks."""
        displacement = resample_time(tracks - tracks[..., :1, :], self.num_frames)
        curves = rearrange(displacement, "m n (s w) c -> (m n s c) w", w=self.window).double()
        vectors = torch.linalg.eigh(curves.T @ curves)[1].flip(-1)[:, : self.size]
        self.functions.copy_(vectors * SCALE * self.window**0.5)

    def coefficients(self, displacement: Tensor) -> Tensor:
        """(..., T, 2) displacement from the first frame to (..., S, D, 2) coefficients, by least squares."""
        windows = rearrange(displacement, "... (s w) c -> ... s w c", w=self.window)
        dual = self.functions / (SCALE**2 * self.window)
        return torch.einsum("...wc,wd->...dc", windows, dual)

    def displacement(self, coefficients: Tensor) -> Tensor:
        """(..., S, D', 2) coefficients, D' <= D, to (..., T, 2) displacement; exactly zero in the first frame."""
        used = self.functions[:, : coefficients.shape[-2]]
        curve = rearrange(torch.einsum("...dc,wd->...wc", coefficients, used), "... s w c -> ... (s w) c")
        return torch.cat([torch.zeros_like(curve[..., :1, :]), curve[..., 1:, :]], dim=-2)
