"""Nearest neighbours in latent space: does a motion embedding put motions of one kind next to each other?

Paper: the kNN accuracy of its compression ablation. The paper names neither k, pooling, distance nor split, and releases
no code for it, so this protocol is ours: scenes of two unrelated seeds are the reference and the test set; the class is
the scene's motion, "family/mode" (where things stand is drawn at random, so places do not give it away); cosine similarity
of normalised latents; k = 1, 5, 20 with a majority vote. Two features: "flat", every number in its place, and "pooled",
the mean over slices and cells, which forgets where *and* (where there are several slices) when.

Controls, without which an accuracy says nothing: "raw" (the tracks themselves, interpolated to the latent grid, or averaged
over points), "untrained" (the encoder as training finds it; the local layout then is its closed-form fit of the tracks),
"random" (every weight random, the output head too, so that the fit is drowned in noise but still there), and chance.

Shapes: latents (M, S, R, W, C), tracks (M, N, T, 2), features (M, D).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape
from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder
from kinelib.zipmo.data import TEST_SEED, Clips, as_clips, raw_latents

NEIGHBOURS = (1, 5, 20)
# Neither trained on nor used in other measurements.
REFERENCE_SEED, PROBE_SEED = TEST_SEED + 5_000, TEST_SEED + 6_000


@dataclass(frozen=True)
class LabelledClips:
    """Clips and the motion class of each."""

    clips: Clips
    labels: list[str]


def labelled_scenes(count: int, seed: int, *, size: int = 64, families: Sequence[str] | None = None) -> LabelledClips:
    """Procedural scenes with their motion class "family/mode".

    Args:
        count: M.
        seed: of the scenes.
        size: S, pixels of the first frames.
        families: scene families; None means all.
    """
    from kinelib.tracks.scenes import FAMILIES, sample_scenes

    scenes = sample_scenes(count, seed, size=size, families=tuple(families or FAMILIES))
    return LabelledClips(as_clips(scenes.first_frame, scenes.tracks.xy, size), list(scenes.label))


def nearest_labels(reference: Tensor, labels: Sequence[str], probes: Tensor, k: int) -> list[str]:
    """The class that most of the k nearest references have, for every probe; ties go to the larger summed similarity.

    Args:
        reference: (M, D) features of known class.
        labels: their M classes.
        probes: (P, D).
        k: neighbours, 1 to M.

    Raises:
        ShapeError: when sizes do not fit or values are not finite.
        ValueError: for a k out of range.
    """
    sizes = check_shape("reference", reference, "M D", M=len(labels))
    check_shape("probes", probes, "P D", D=sizes["D"])
    check_finite("reference", reference)
    check_finite("probes", probes)
    if not 1 <= k <= len(labels):
        raise ValueError(f"k must be between 1 and the {len(labels)} reference clips; got {k}.")
    names = sorted(set(labels))
    classes = nn.functional.one_hot(torch.tensor([names.index(label) for label in labels]), len(names)).double()
    unit = lambda features: nn.functional.normalize(features.double(), dim=-1)
    near = (unit(probes) @ unit(reference).T).topk(k, dim=1)
    picked = classes[near.indices]
    # Similarities are at most 1: an extra vote always outweighs them.
    votes = picked.sum(1) + (picked * near.values[..., None]).sum(1) / (2 * k + 1)
    return [names[i] for i in votes.argmax(1).tolist()]


def knn_accuracy(
    reference: Tensor, labels: Sequence[str], probes: Tensor, truth: Sequence[str], ks: Sequence[int] = NEIGHBOURS
) -> dict[int, float]:
    """Share of probes, in percent, whose class the neighbours name: k -> accuracy.

    Args:
        reference, labels, probes: as in :func:`nearest_labels`.
        truth: the probes' classes.
        ks: numbers of neighbours.

    Raises:
        ShapeError, ValueError: as :func:`nearest_labels`, and when there is not one class a probe.
    """
    if len(truth) != len(probes) or not len(truth):
        raise ShapeError(f"accuracy needs one class a probe; got {len(probes)} probes and {len(truth)} classes.")
    right = lambda said: sum(a == b for a, b in zip(said, truth, strict=True))
    return {k: 100 * right(nearest_labels(reference, labels, probes, k)) / len(truth) for k in ks}


def chance(labels: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """What ignoring the features gives, in percent.

    Args:
        labels: classes of the reference clips.
        truth: classes of the probes.

    Returns:
        "draw", a random reference clip's class, which is kNN on noise with k = 1; "majority", always the most frequent one.
    """
    counts, total = Counter(labels), len(labels)
    most = counts.most_common(1)[0][0]
    draw = sum(counts[label] / total for label in truth) / len(truth)
    return {"draw": 100 * draw, "majority": 100 * sum(label == most for label in truth) / len(truth)}


def latent_features(latents: Tensor) -> dict[str, Tensor]:
    """ "pooled" (M, C) and "flat" (M, S * R * W * C) features of (M, S, R, W, C) latents."""
    check_shape("latents", latents, "M S R W C")
    return {"pooled": reduce(latents, "m s r w c -> m c", "mean"), "flat": rearrange(latents, "m s r w c -> m (s r w c)")}


def track_features(tracks: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
    """The raw-track control: displacement curves of (M, N, T, 2) tracks.

    Args:
        tracks: in any order; the features do not depend on it.
        grid: (rows, columns) to which "flat" interpolates: every cell takes the curve of the track that starts nearest.

    Returns:
        "pooled" (M, T * 2), the mean over tracks, and "flat" (M, R * W * T * 2).
    """
    check_shape("tracks", tracks, "M N T 2")
    moves = tracks - tracks[:, :, :1]
    nearest = torch.cdist(cell_centres(*grid).expand(len(tracks), -1, -1), tracks[:, :, 0]).argmin(-1)
    field = torch.take_along_dim(moves, nearest[:, :, None, None], dim=1)
    return {"pooled": rearrange(moves.mean(1), "m t c -> m (t c)"), "flat": rearrange(field, "m p t c -> m (p t c)")}


def random_encoder(config: AutoencoderConfig, seed: int, *, silent: bool = False) -> TrackAutoencoder:
    """An autoencoder nobody trained, in eval mode.

    Args:
        config: its sizes.
        seed: of the weights.
        silent: leave the output head at zero, as training finds it: the local layout then is its closed-form fit. Otherwise
            that head is random like the rest.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TrackAutoencoder(config)
        if not silent and config.layout == "local":
            model.codec.posterior[-1].reset_parameters()
    return model.eval().requires_grad_(False)


def encoder_accuracy(
    autoencoder: TrackAutoencoder, reference: LabelledClips, probes: LabelledClips, *, batch: int = 16
) -> dict[str, dict[int, float]]:
    """kNN accuracy in an encoder's latent space: feature -> k -> percent.

    Latents are normalised by statistics of the reference clips, so that trained and random encoders are treated alike; the
    autoencoder's own statistics stay as they are.
    """
    raw = [raw_latents(some.clips, autoencoder, batch=batch) for some in (reference, probes)]
    over = (0, 1, 2, 3)
    shift, scale = raw[0].mean(over), raw[0].std(over).clamp_min(1e-4)
    known, asked = (latent_features((latents - shift) / scale) for latents in raw)
    return {name: knn_accuracy(known[name], reference.labels, asked[name], probes.labels) for name in known}


def track_accuracy(reference: LabelledClips, probes: LabelledClips, grid: tuple[int, int]) -> dict[str, dict[int, float]]:
    """The raw-track control: feature -> k -> percent."""
    known, asked = (track_features(some.clips.tracks.float(), grid) for some in (reference, probes))
    return {name: knn_accuracy(known[name], reference.labels, asked[name], probes.labels) for name in known}
