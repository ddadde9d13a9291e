"""The Frechet distance: how far the Gaussian of generated embeddings is from that of real ones (FID, Heusel et al., 2017).

    |mu_a - mu_b|^2 + Tr(A + B - 2 (A B)^(1/2))

The trace of the root is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric and has no negative
ones: two symmetric eigenproblems, no general matrix root, no imaginary parts to drop, and nothing to add where a covariance
is singular, which it is whenever there are fewer clips than channels.

The value falls with the number of clips and depends on the embedding: never compare it across either.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinelib.notation import ShapeError, check_finite, check_shape


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """The distance of two sets of embeddings (N, C) and (M, C), computed in float64.

    Raises:
        ShapeError: when channels differ, a set has fewer than 2 embeddings, or one is NaN.
    """
    sizes = check_shape("real", real, "N C")
    check_shape("generated", generated, "M C", C=sizes["C"])
    for name, embeddings in (("real", real), ("generated", generated)):
        if len(embeddings) < 2:
            raise ShapeError(f"a covariance needs at least 2 embeddings; {name} has {len(embeddings)}.")
        check_finite(name, embeddings)
    return gaussian_distance(*moments(real), *moments(generated))


def moments(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C), with N - 1, of embeddings (N, C), in float64."""
    embeddings = embeddings.detach().double().cpu()
    mean = embeddings.mean(0)
    centred = embeddings - mean
    return mean, centred.T @ centred / (len(embeddings) - 1)


def gaussian_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """The distance of two Gaussians; symmetric, and 0 for two that are equal."""
    root = _symmetric_root(covariance_a)
    product = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp_min(0)
    spread = covariance_a.trace() + covariance_b.trace() - 2 * product.sqrt().sum()
    # Rounding may leave a tiny negative number where two Gaussians are equal.
    return max(float((mean_a - mean_b).square().sum() + spread), 0.0)


def _symmetric_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
