"""A whole set of demonstrations as tensors in memory: what a planner and a policy are trained on.

A moment is a frame of a demonstration: its pictures, proprioception, sentence, and the chunk of the expert's answers that
begins there. A window begins at every `stride`-th moment of a demonstration and looks `window` actions ahead; its exact
tracks, encoded by the frozen autoencoder, are what a planner learns to foresee. Beyond a demonstration's end everything
stands still, as it does in the world. A moment belongs to the window that began last: plans are used until the next one.

Shapes: M moments, W windows, V views, S side of the pictures, P numbers of proprioception, H actions of a chunk, A numbers
of an action; latents (W, V, 1, R, C, D) raw, as the autoencoder's posterior mean, with D channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinelib.learning.files import written_whole
from kinelib.learning.image import shrink, to_model_frame
from kinelib.robots.colour_glance import model_frames
from kinelib.robots.demonstration_shards import Demonstration, DemonstrationError, Demonstrations
from kinelib.zipmo.autoencoder import TrackAutoencoder

POINTS = 64  # tracks of a window that are encoded, visible ones first
BATCH = 16  # windows encoded at once


@dataclass(frozen=True)
class RobotSet:
    """Moments and windows of demonstrations."""

    views: tuple[str, ...]  # V names
    every: int  # actions from moment to moment
    window: int  # actions a plan looks ahead
    pictures: Tensor  # (M, V, S, S, 3) uint8
    proprio: Tensor  # (M, P)
    chunks: Tensor  # (M, H, A) expert's answers; anything where not valid
    valid: Tensor  # (M, H) False beyond the end
    window_of: Tensor  # (M,) row of the window in use
    starts: Tensor  # (W,) moment at which a window begins
    sentences: tuple[str, ...]  # U different ones
    said: Tensor  # (M,) which sentence
    tasks: tuple[str, ...]  # task of a moment, M of them
    latents: Tensor | None = None  # (W, V, 1, R, C, D) of exact tracks

    def __len__(self) -> int:
        return len(self.pictures)

    def frames(self, rows: Tensor) -> Tensor:
        """(B, V, 3, S, S) pictures of moments in [-1, 1]."""
        return model_frames(self.pictures[rows])

    def texts(self, rows: Tensor) -> list[str]:
        """The sentences of moments."""
        return [self.sentences[number] for number in self.said[rows].tolist()]


def model_pictures(pictures: np.ndarray, size: int) -> Tensor:
    """(N, S, S, 3) uint8 pictures as a network reads them, (N, 3, size, size) in [-1, 1]."""
    if pictures.shape[1:3] == (size, size):
        return rearrange(torch.from_numpy(np.ascontiguousarray(pictures)), "n h w c -> n c h w").float() / 127.5 - 1
    return to_model_frame(np.array(pictures), size)


def load_set(
    folder: str | Path,
    *,
    tasks: Iterable[str] | None = None,
    per_task: int | None = None,
    skip: int = 0,
    split: str = "train",
    horizon: int = 16,
    window: int = 64,
    stride: int = 8,
    size: int | None = None,
) -> RobotSet:
    """Reads demonstrations into memory, without latents.

    Args:
        folder, tasks, split, per_task, skip: as of :class:`Demonstrations`.
        horizon: H.
        window: actions a plan looks ahead.
        stride: actions from the start of a window to that of the next, rounded to whole moments.
        size: S; default: as the demonstrations were drawn.

    Raises:
        FileNotFoundError, DemonstrationError: from the shards, or when they differ in views or in steps between frames.
    """
    demonstrations = Demonstrations(folder, tasks=tasks, split=split, per_task=per_task, skip=skip)
    parts: dict[str, list] = {name: [] for name in ("pictures", "proprio", "chunks", "valid", "window_of", "starts", "said")}
    sentences: dict[str, int] = {}
    names, moments, windows, first = [], 0, 0, None
    for one in demonstrations:
        first = first or one
        if (one.views, one.every) != (first.views, first.every):
            raise DemonstrationError(
                f"{one.name} has views {one.views} every {one.every} steps and {first.name} has {first.views} every "
                f"{first.every}; train on demonstrations of one kind."
            )
        steps = one.frame_steps[one.frame_steps < len(one.actions)]
        count, hop = len(steps), max(1, stride // one.every)
        ahead = torch.from_numpy(steps)[:, None] + torch.arange(horizon)
        pictures = one.pictures[:, :count]
        size = size or pictures.shape[2]
        if pictures.shape[2] != size:
            flat = model_pictures(rearrange(pictures, "v t h w c -> (v t) h w c"), size)
            pictures = rearrange(((flat + 1) * 127.5).round().byte().numpy(), "(v t) c h w -> v t h w c", v=len(one.views))
        parts["pictures"].append(torch.from_numpy(rearrange(pictures, "v t h w c -> t v h w c").copy()))
        parts["proprio"].append(torch.tensor(one.proprioception[steps]))
        parts["chunks"].append(torch.tensor(one.actions)[ahead.clamp_max(len(one.actions) - 1)])
        parts["valid"].append(ahead < len(one.actions))
        parts["window_of"].append(windows + torch.arange(count) // hop)
        parts["starts"].append(moments + torch.arange(0, count, hop))
        parts["said"].append(torch.full((count,), sentences.setdefault(one.text, len(sentences))))
        names += [one.task] * count
        moments, windows = moments + count, windows + len(parts["starts"][-1])
    joined = {name: torch.cat(values) for name, values in parts.items()}
    return RobotSet(first.views, first.every, window, sentences=tuple(sentences), tasks=tuple(names), **joined)


def window_tracks(
    one: Demonstration, frame: int, offsets: Sequence[int], points: int = POINTS, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Tracks (V, points, F, 2) around a frame, and which of them to look at.

    Args:
        one: the demonstration; before its first frame and after its last one everything stands still.
        frame: which.
        offsets: F frames, counted from it.
        points: how many tracks, those visible in it first.
        seed: draws them.

    Returns:
        tracks, and keep (V, points): visible in the frame (all, in a view that sees none).
    """
    span = np.clip(frame + np.asarray(offsets), 0, one.tracks.shape[2] - 1)
    seen = one.visible[:, :, frame]
    order = np.argsort(~seen + np.random.default_rng(seed).random(seen.shape) / 2, axis=1)[:, :points]
    tracks = np.take_along_axis(one.tracks[:, :, span], order[:, :, None, None], axis=1).astype(np.float32)
    keep = np.take_along_axis(seen, order, axis=1)
    return torch.from_numpy(tracks), torch.from_numpy(keep | ~keep.any(1, keepdims=True))


def moment_tracks(
    folder: str | Path,
    offsets: Sequence[int],
    *,
    points: int = POINTS,
    tasks: Iterable[str] | None = None,
    per_task: int | None = None,
    skip: int = 0,
    split: str = "train",
) -> tuple[Tensor, Tensor]:
    """Exact tracks around every moment of a set, (M, V, points, F, 2) float16, and which to look at, (M, V, points).

    Args:
        folder, tasks, per_task, skip, split: as of :func:`load_set`, whose moments these are.
        offsets, points: as of :func:`window_tracks`.
    """
    tracks, keep = [], []
    for one in Demonstrations(folder, tasks=tasks, split=split, per_task=per_task, skip=skip):
        for frame in range(one.moments):
            around, kept = window_tracks(one, frame, offsets, points, seed=len(tracks))
            tracks.append(around.half())
            keep.append(kept)
    return torch.stack(tracks), torch.stack(keep)


def joined(first: RobotSet, second: RobotSet) -> RobotSet:
    """Two sets as one, without latents.

    Raises:
        DemonstrationError: when they differ in views, in steps between frames or in how far plans look ahead.
    """
    if (first.views, first.every, first.window) != (second.views, second.every, second.window):
        raise DemonstrationError(
            f"a set with views {first.views} every {first.every} steps and one with {second.views} every {second.every} "
            "cannot be joined; train on demonstrations of one kind."
        )
    sentences = tuple(dict.fromkeys(first.sentences + second.sentences))
    said = torch.tensor([sentences.index(sentence) for sentence in second.sentences])[second.said]
    both = {
        name: torch.cat([getattr(first, name), getattr(second, name)]) for name in ("pictures", "proprio", "chunks", "valid")
    }
    return replace(
        first,
        **both,
        window_of=torch.cat([first.window_of, second.window_of + len(first.starts)]),
        starts=torch.cat([first.starts, second.starts + len(first)]),
        sentences=sentences,
        said=torch.cat([first.said, said]),
        tasks=first.tasks + second.tasks,
        latents=None,
    )


@torch.no_grad()
def encode_windows(tracks: Tensor, keep: Tensor, frames: Tensor, autoencoder: TrackAutoencoder) -> Tensor:
    """Raw latents (N, 1, R, C, D) of N windows: tracks (N, Q, T, 2), keep (N, Q), first frames (N, 3, S, S)."""
    frames = shrink(frames, autoencoder.config.frame_size)
    # Points are followed beyond the picture's edge; far outside they say nothing and would stretch the latents.
    return autoencoder.encode(tracks.clamp(-1.5, 1.5), frames, keep=keep).mean


def with_latents(
    data: RobotSet,
    folder: str | Path,
    autoencoder: TrackAutoencoder,
    *,
    tasks: Iterable[str] | None = None,
    per_task: int | None = None,
    skip: int = 0,
    split: str = "train",
    cache: Path | None = None,
) -> RobotSet:
    """Adds the latents of every window's exact tracks; `cache` (a folder) keeps them for the next run."""
    tasks = None if tasks is None else list(tasks)
    path = cache and cache / f"latents-{_fingerprint(data, folder, autoencoder)}.safetensors"
    if path and path.is_file():
        return replace(data, latents=load_file(path)["latents"])
    made: list[Tensor] = []
    waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def encode_waiting() -> None:
        if waiting:
            made.append(encode_windows(*(torch.cat(part) for part in zip(*waiting, strict=True)), autoencoder).half())
            waiting.clear()

    window, ahead = 0, range(data.window // data.every + 1)
    for one in Demonstrations(folder, tasks=tasks, split=split, per_task=per_task, skip=skip):
        begin = data.starts[window].item()
        while window < len(data.starts) and data.starts[window] - begin < one.moments:
            row = data.starts[window]
            tracks, keep = window_tracks(one, int(row) - begin, ahead, seed=window)
            waiting.append((tracks, keep, data.frames(row[None])[0]))
            window += 1
            if len(waiting) * len(data.views) >= BATCH:
                encode_waiting()
    encode_waiting()
    latents = rearrange(torch.cat(made), "(w v) ... -> w v ...", v=len(data.views))
    if path:
        with written_whole(path) as sibling:
            save_file({"latents": latents}, sibling)
    return replace(data, latents=latents)


def demonstrated_tasks(data: RobotSet) -> tuple[str, ...]:
    """The different tasks of a set, in order."""
    return tuple(dict.fromkeys(data.tasks))


def _fingerprint(data: RobotSet, folder: str | Path, autoencoder: TrackAutoencoder) -> str:
    """Of everything that decides the latents: the moments, the windows, and the autoencoder's weights."""
    digest = hashlib.sha256(f"{Path(folder).name} {data.window} {data.every} {POINTS}".encode())
    weights: Sequence[Tensor] = list(autoencoder.state_dict().values())
    for tensor in (data.starts, data.proprio, *weights):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
