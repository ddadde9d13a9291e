"""Clips held in memory for training and evaluation: first frames, tracks, and batches drawn from them.

Sources: procedural scenes (generated once and kept on disk as safetensors) and tracks of real video (Parquet shards).
Shapes: frames uint8 (M, 3, S, S), tracks float16 (M, N, T, 2), latents float16 (M, S, R, W, C).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import current_process, get_context
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinelib.learning.files import written_whole
from kinelib.learning.image import to_model_frame

CHUNK = 2048  # scenes generated at a time, so that memory stays flat
TRAIN_SEED, TEST_SEED = 1_000, 9_000_000  # training and held-out scenes never share a seed


@dataclass(frozen=True)
class Clips:
    """Clips of equal size in memory.

    Args:
        frames: uint8 (M, 3, S, S) first frames.
        tracks: float16 (M, N, T, 2).
        latents: float16 (M, S, R, W, C) normalised posterior means, once an autoencoder has encoded them.
        captions: M sentences, empty where nothing is known; None: nowhere.
    """

    frames: Tensor
    tracks: Tensor
    latents: Tensor | None = None
    captions: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def pick(self, rows: Tensor) -> Clips:
        """The clips at the given row numbers."""
        latents = None if self.latents is None else self.latents[rows]
        captions = None if self.captions is None else tuple(self.captions[row] for row in rows.tolist())
        return Clips(self.frames[rows], self.tracks[rows], latents, captions)

    def model_frames(self) -> Tensor:
        """(M, 3, S, S) float in [-1, 1]."""
        return self.frames.float() / 127.5 - 1

    def join(self, other: Clips) -> Clips:
        """Both sets of clips, this one first."""
        latents = None if self.latents is None else torch.cat([self.latents, other.latents])
        captions = (self.captions or ("",) * len(self)) + (other.captions or ("",) * len(other))
        return Clips(torch.cat([self.frames, other.frames]), torch.cat([self.tracks, other.tracks]), latents, captions)


def as_clips(frames, tracks: Tensor, size: int, captions: Sequence[str] | None = None) -> Clips:
    """(M, H, W, 3) uint8 frames and (M, N, T, 2) tracks as `Clips` with S = `size`."""
    pictures = ((to_model_frame(frames, size) + 1) * 127.5).round().clamp(0, 255).byte()
    return Clips(pictures.contiguous(), tracks.half().contiguous(), None, captions and tuple(captions))


def scene_clips(count: int, seed: int, *, size: int = 64, cache: Path | None = None, families=None) -> Clips:
    """Procedural scenes as clips, read from `cache` (a folder) when they were made before.

    Args:
        count: M.
        seed: of the first chunk; chunk i uses seed + i.
        size: S, pixels.
        cache: folder for the generated scenes; None keeps nothing.
        families: scene families; None means all.
    """
    from kinelib.tracks.scenes import FAMILIES

    families = tuple(families or FAMILIES)
    path = cache and cache / f"clips-{count}-{seed}-{size}-{scene_version(families)}.safetensors"
    if path and path.exists():
        with safe_open(path, "pt") as file:
            captions = tuple(json.loads(file.metadata()["captions"]))
        return Clips(**load_file(path), captions=captions)
    sizes = [min(CHUNK, count - first) for first in range(0, count, CHUNK)]
    jobs = [(n, seed + i, size, families) for i, n in enumerate(sizes)]
    if len(jobs) < 4:
        chunks = [_scene_chunk(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
            chunks = list(pool.map(_scene_chunk, *zip(*jobs, strict=True)))
    captions = tuple(caption for chunk in chunks for caption in chunk.captions)
    clips = Clips(torch.cat([c.frames for c in chunks]), torch.cat([c.tracks for c in chunks]), None, captions)
    if path:
        _save_whole({"frames": clips.frames, "tracks": clips.tracks}, path, {"captions": json.dumps(captions)})
    return clips


def _scene_chunk(count: int, seed: int, size: int, families: tuple[str, ...]) -> Clips:
    from kinelib.tracks.scenes import sample_scenes

    if current_process().name != "MainProcess":
        torch.set_num_threads(1)  # one process a core is already there
    scenes = sample_scenes(count, seed, size=size, families=families)
    return as_clips(scenes.first_frame, scenes.tracks.xy, size, scenes.captions)


def scene_version(families: tuple[str, ...]) -> str:
    """A short hash of the code that makes scenes, so that a cache never outlives it."""
    import kinelib.tracks

    sources = sorted(Path(kinelib.tracks.__file__).parent.glob("scene*.py"))
    return hashlib.sha256(b"".join(s.read_bytes() for s in sources) + repr(families).encode()).hexdigest()[:10]


def shard_clips(
    folder: str | Path,
    *,
    size: int = 64,
    points: int = 96,
    frames: int = 64,
    most: int | None = None,
    keep=lambda clip: True,
) -> Clips:
    """Clips of a shard folder that have at least `points` tracks of `frames` frames and pass `keep`.

    Args:
        folder: of Parquet shards.
        size: S of the first frames.
        points, frames: N and T of the clips; longer ones are cut.
        most: clips a video, drawn at random, so that a long video does not outweigh the others; None: all.
        keep: which clips are wanted.

    Raises:
        ValueError: when there is none.
    """
    from kinelib.tracks.shards import TrackShards

    pictures, tracks, sources = [], [], []
    for clip in TrackShards(folder):
        if clip.tracks.num_points >= points and clip.tracks.num_frames >= frames and keep(clip):
            pictures.append(to_model_frame(clip.first_frame[None], size))
            tracks.append(clip.tracks.xy[0, :points, :frames])
            sources.append(clip.tracks.provenance.get("source"))
    if not tracks:
        raise ValueError(f"{folder} holds no clip with {points} tracks of {frames} frames; track more points or videos.")
    pictures = ((torch.cat(pictures) + 1) * 127.5).round().clamp(0, 255).byte()
    clips = Clips(pictures, torch.stack(tracks).half())
    if most is None:
        return clips
    order, seen = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0)).tolist(), Counter()
    rows = []
    for row in order:
        seen[sources[row]] += 1
        rows += [row] * (seen[sources[row]] <= most)
    return clips.pick(torch.tensor(sorted(rows)))


def real_count(count: int, real: Clips | None, share: float) -> int:
    """How many of `count` clips that :func:`draw_clips` draws are real; they are the last ones."""
    return 0 if real is None else round(count * share)


def draw_clips(
    clips: Clips, count: int, generator: torch.Generator, real: Clips | None = None, real_share: float = 0.0
) -> Clips:
    """Draws `count` random clips, about `real_share` of them from `real`; point order is shuffled clip by clip."""
    few = real_count(count, real, real_share)
    batch = clips.pick(torch.randint(len(clips), (count - few,), generator=generator))
    if few:
        batch = batch.join(real.pick(torch.randint(len(real), (few,), generator=generator)))
    order = torch.rand(batch.tracks.shape[:2], generator=generator).argsort(dim=1)
    tracks = torch.take_along_dim(batch.tracks, order[:, :, None, None], dim=1)
    return replace(batch, tracks=tracks)


@torch.no_grad()
def encode_clips(clips: Clips, autoencoder, *, encoded: int = 48, batch: int = 16, cache: Path | None = None) -> Clips:
    """Adds normalised latents (posterior means of the first `encoded` tracks), one pass over the clips.

    Args:
        clips: what to encode.
        autoencoder: a `TrackAutoencoder` with measured statistics.
        encoded: tracks it sees.
        batch: clips at a time.
        cache: folder where latents are kept, by a hash of weights and clips; None keeps nothing.
    """
    path = cache and cache / f"latents-{_fingerprint(clips, autoencoder, encoded)}.safetensors"
    if path and path.exists():
        return replace(clips, latents=load_file(path)["latents"])
    device = next(autoencoder.parameters()).device
    latents = []
    for rows in torch.arange(len(clips)).split(batch):
        some = clips.pick(rows)
        mean = autoencoder.encode(some.tracks[:, :encoded].float().to(device), some.model_frames().to(device)).mean
        latents.append(autoencoder.normalize(mean).half().cpu())
    clips = replace(clips, latents=torch.cat(latents))
    if path:
        _save_whole({"latents": clips.latents}, path)
    return clips


def _fingerprint(clips: Clips, autoencoder, encoded: int) -> str:
    parts = [*autoencoder.state_dict().values(), clips.tracks[:: max(len(clips) // 64, 1)], clips.frames[:1]]
    digest = hashlib.sha256(f"{len(clips)} {encoded}".encode())
    for part in parts:
        digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _save_whole(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    with written_whole(path) as sibling:
        save_file(tensors, sibling, metadata)


@torch.no_grad()
def raw_latents(clips: Clips, autoencoder, *, encoded: int = 48, batch: int = 64) -> Tensor:
    """(M, S, R, W, C) posterior means before normalisation, from which the statistics are measured."""
    device = next(autoencoder.parameters()).device
    means = [
        autoencoder.encode(some.tracks[:, :encoded].float().to(device), some.model_frames().to(device)).mean.cpu()
        for some in map(clips.pick, torch.arange(len(clips)).split(batch))
    ]
    return torch.cat(means)
