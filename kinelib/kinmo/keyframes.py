"""Keyframes: the frames whose poses tell a clip, chosen by how much their captions differ (KinMo, Section 3, step 2).

Every frame has a caption (`pose_words`), every caption a sentence vector. A frame becomes a keyframe when the cosine with
the last keyframe falls below a threshold; the paper leaves open whether it means that or the previous frame (assumption A4:
the last keyframe, so that slow changes are found too). The first and the last frame are always kept.

Shapes: T frames, C channels, U different captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from kinelib.bodies.motion import Motion
from kinelib.kinmo.pose_words import DEFAULT, Limits, captions, padded, signals
from kinelib.learning.text import TextEncoder
from kinelib.notation import check_shape

LONGEST = 96  # word pieces of a caption that are read
THRESHOLD = 0.8  # cosine; the value that is reported of the authors' appendix


def select(vectors: Tensor, threshold: float = THRESHOLD, min_gap: int = 4) -> list[int]:
    """The keyframes of one clip.

    Args:
        vectors: (T, C) of length 1, a caption's each.
        threshold: cosine with the last keyframe below which a frame is a keyframe, in [-1, 1]; lower keeps fewer.
        min_gap: least number of frames between two keyframes, >= 1; the last frame keeps it too: it takes the place of a
            keyframe that is closer.

    Returns:
        frames in rising order, the first and the last among them.

    Raises:
        ValueError: for a threshold or a gap out of range.
    """
    check_shape("vectors", vectors, "T C")
    if not -1 <= threshold <= 1 or min_gap < 1:
        raise ValueError(f"threshold is a cosine in [-1, 1] and min_gap at least 1; got {threshold} and {min_gap}.")
    last = len(vectors) - 1
    found = [0]
    while True:  # one round a keyframe
        start = found[-1] + min_gap
        differs = (vectors[start:] @ vectors[found[-1]] < threshold).nonzero()
        if not len(differs):
            break
        found.append(start + int(differs[0]))
    if last - found[-1] < min_gap and len(found) > 1:
        found.pop()
    return found + [last] * (last > found[-1])


class KeyframeFinder:
    """Finds keyframes of motions; every different caption is embedded once in its life.

    Args:
        encoder: of sentences; None: the shipped MiniLM, loaded at its first use.
        threshold, min_gap: as for :func:`select`.
        limits: of the categories of poses.
    """

    def __init__(
        self,
        encoder: TextEncoder | None = None,
        *,
        threshold: float = THRESHOLD,
        min_gap: int = 4,
        limits: Limits = DEFAULT,
    ) -> None:
        self.encoder, self.threshold, self.min_gap, self.limits = encoder or TextEncoder(), threshold, min_gap, limits
        self._vectors: dict[str, Tensor] = {}

    def __repr__(self) -> str:
        return f"KeyframeFinder(threshold={self.threshold}, min_gap={self.min_gap}, {self.limits})"

    def find(self, motions: Sequence[Motion]) -> list[tuple[tuple[int, str], ...]]:
        """The (frame, caption) of every keyframe of every motion."""
        said = [pose_captions(motion, self.limits) for motion in motions]
        self._embed([caption for captions_of_one in said for caption in captions_of_one])
        found = []
        for captions_of_one in said:
            vectors = torch.stack([self._vectors[caption] for caption in captions_of_one])
            frames = select(vectors, self.threshold, self.min_gap)
            found.append(tuple((frame, captions_of_one[frame]) for frame in frames))
        return found

    def similarities(self, motion: Motion) -> Tensor:
        """(T, T) cosines between the captions of any two frames."""
        said = pose_captions(motion, self.limits)
        self._embed(said)
        vectors = torch.stack([self._vectors[caption] for caption in said])
        return vectors @ vectors.T

    def _embed(self, said: Sequence[str], batch: int = 128) -> None:
        new = sorted({caption for caption in said if caption not in self._vectors}, key=len)
        for first in range(0, len(new), batch):
            chunk = new[first : first + batch]
            self._vectors |= zip(chunk, self.encoder.embed(chunk, longest=LONGEST).cpu(), strict=True)


def pose_captions(motion: Motion, limits: Limits = DEFAULT) -> list[str]:
    """The caption of every frame of a motion."""
    positions, lengths = padded([motion])
    with torch.no_grad():
        return captions(signals(positions, lengths, motion.fps, motion.skeleton), limits)[0]


def changes(keyframes: Sequence[tuple[int, str]], fps: float) -> str:
    """Keyframes as lines of text with their times: what a language model is given to describe the motion between them."""
    lines = [f"{frame / fps:.2f} s: {caption}" for frame, caption in keyframes]
    spans = [f"{(after - before) / fps:.2f}" for (before, _), (after, _) in pairwise(keyframes)]
    return "\n".join(lines) + (f"\nSeconds between them: {', '.join(spans)}" if spans else "")
