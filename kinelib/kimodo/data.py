"""What Kimodo's networks are trained on: features and embedded prompts of many clips, and batches drawn from them.

All frames lie in one tensor, encoded once and cached, so that a batch is an indexed copy. Whatever can be had by linear maps
of features is drawn anew every time instead of being stored: the mirror image, with left and right exchanged in its words,
and the first heading, which is any, with the first root above the origin (Section 5.1 of the paper). Prompts are sentence
vectors; one of a clip's wordings is drawn, and a tenth of the clips are drawn without any.

Clips of a batch have similar lengths, because padding costs as much as motion: clips are sorted into eight classes of
length, a batch comes from one of them, and every clip keeps its odds.

Shapes: F frames in all, N clips, B clips of a batch, T frames, D features, U different sentences.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from kinelib.bodies.clip_draws import ClipDraws
from kinelib.bodies.clips import Clip
from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import LOCAL_TURNING, FeatureLayout, encode_batch, local_root, mirror_map, moved, placed
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.procedural_words import mirrored_words
from kinelib.bodies.skeletons import FPS, SMPLX22
from kinelib.learning.code_version import code_hash
from kinelib.learning.files import written_whole
from kinelib.learning.text import TextTable

TRAIN_SEED, TEST_SEED = 1000, 7  # of procedural clips
ENCODED_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class MotionSet:
    """N captioned clips as features.

    Args:
        frames: (F, D) unnormalised features, one clip after the other.
        lengths: (N,) frames of every clip.
        prompts: N tuples of sentences.
        labels: N strings content/style, for evaluation.
        sources: N strings, the data set every clip comes from.
    """

    frames: Tensor
    lengths: Tensor
    prompts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = {len(self.lengths), len(self.prompts), len(self.labels), len(self.sources)}
        if len(counts) != 1 or int(self.lengths.sum()) != len(self.frames):
            raise ValueError(f"the parts of a motion set do not fit: {counts} clips, {len(self.frames)} frames.")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> Tensor:
        """(N,) index of every clip's first frame."""
        return self.lengths.cumsum(0) - self.lengths

    def join(self, other: MotionSet) -> MotionSet:
        """These clips, then those of `other`."""
        return MotionSet(
            torch.cat([self.frames, other.frames]),
            torch.cat([self.lengths, other.lengths]),
            self.prompts + other.prompts,
            self.labels + other.labels,
            self.sources + other.sources,
        )

    def pick(self, rows: Sequence[int]) -> MotionSet:
        """Some of the clips."""
        rows = list(rows)
        starts = self.starts.tolist()
        parts = [self.frames[starts[row] : starts[row] + int(self.lengths[row])] for row in rows]
        columns = [tuple(column[row] for row in rows) for column in (self.prompts, self.labels, self.sources)]
        return MotionSet(torch.cat(parts), self.lengths[rows], *columns)

    def padded(self, rows: Tensor, frames: int, offsets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (B, T, D), the last frame of a clip repeated beyond its end, and lengths (B,).

        Args:
            rows: (B,) clips.
            frames: T at most; longer clips are cut.
            offsets: (B,) frames to leave out at the start; None: none.
        """
        offsets = torch.zeros_like(rows) if offsets is None else offsets
        lengths = (self.lengths[rows] - offsets).clamp(max=frames)
        at = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
        return self.frames[(self.starts[rows] + offsets)[:, None] + at], lengths

    def sentences(self) -> list[str]:
        """All different prompts and their mirror images, sorted."""
        said = {sentence for wordings in self.prompts for sentence in wordings}
        return sorted(said | {mirrored_words(sentence) for sentence in said})


def motion_set(clips: Sequence[Clip], *, smooth: bool = True) -> MotionSet:
    """Encodes clips of SMPLX22 at 20 frames a second.

    Args:
        clips: at least one.
        smooth: False puts the pelvis itself in the place of the smoothed root, the paper's ablation.

    Raises:
        ValueError: without clips, or for another skeleton or frame rate.
    """
    if not clips:
        raise ValueError("there are no clips to train on.")
    for clip in clips:
        if clip.motion.skeleton.name != SMPLX22.name or abs(clip.motion.fps - FPS) > 1e-6:
            raise ValueError(
                f"clip {clip.take!r} is {clip.motion.skeleton.name} at {clip.motion.fps:g} frames a second; retarget and "
                f"resample it to {SMPLX22.name} at {FPS:g} first."
            )
    lengths = torch.tensor([len(clip.motion) for clip in clips])
    features: list[Tensor] = [torch.empty(0)] * len(clips)
    order = lengths.argsort().tolist()  # clips of like length together: little padding
    for first in range(0, len(order), ENCODED_AT_ONCE):
        rows = order[first : first + ENCODED_AT_ONCE]
        pad = lambda name, rows=rows: torch.nn.utils.rnn.pad_sequence(
            [getattr(clips[row].motion, name).float() for row in rows], batch_first=True
        )
        rotations, root = pad("rotations"), pad("root")
        # Frames beyond the end are cut off again below; identities keep them finite.
        own = lengths[rows]
        beyond = torch.arange(rotations.shape[1]) >= own[:, None]
        rotations[beyond] = torch.eye(3)
        smoothed = None if smooth else root[..., [0, 2]]
        encoded = encode_batch(rotations, root, own, FPS, SMPLX22, smoothed=smoothed)
        for row, values, length in zip(rows, encoded, own.tolist(), strict=True):
            features[row] = values[:length]
    return MotionSet(
        torch.cat(features),
        lengths,
        tuple(clip.prompts for clip in clips),
        tuple(f"{clip.content}/{clip.style}" for clip in clips),
        tuple(clip.source for clip in clips),
    )


def procedural_set(count: int, seed: int = TRAIN_SEED, *, smooth: bool = True, cache: Path | None = None) -> MotionSet:
    """Procedural clips as features, from the cache where they are there already.

    Args:
        count: clips. seed: of all of them.
        smooth: as for :func:`motion_set`.
        cache: folder of files that are named by these numbers and the code that makes the clips.
    """
    name = f"procedural-{count}-{seed}-{'smooth' if smooth else 'pelvis'}"
    return _cached(name, ("procedural*",), lambda: motion_set(procedural_clips(count, seed), smooth=smooth), cache)


def captured_set(folder: Path, part: str = "train", *, smooth: bool = True, cache: Path | None = None) -> MotionSet:
    """Bandai-Namco's clips as features, from the cache where they are there already.

    Args:
        folder: with the archive or the unpacked clips.
        part: "train", "test" or "unseen", see `kinelib.bodies.clips.split`.
        smooth, cache: as for :func:`procedural_set`.
    """
    from kinelib.bodies.clips import bandai_namco_clips, split

    def make() -> MotionSet:
        return motion_set([clip for clip in bandai_namco_clips(folder) if split(clip) == part], smooth=smooth)

    name = f"captured-{part}-{'smooth' if smooth else 'pelvis'}"
    return _cached(name, ("clips", "captions", "bvh", "retarget"), make, cache)


def statistics(motions: MotionSet, *, frames: int = 100, clips: int = 2048) -> tuple[Statistics, Statistics]:
    """Statistics of features and of local roots, of clips placed as in training and turned in every direction.

    Args:
        motions: the training set; an even selection of at most `clips` is measured.
        frames: longest clip in training; longer ones are measured up to there.
    """
    rows = torch.arange(0, len(motions), max(1, len(motions) // clips))
    layout = FeatureLayout(SMPLX22)
    features, lengths = motions.padded(rows, frames)
    features = moved(features, -features[:, 0, [0, 2]])
    local = local_root(features[..., layout.root], FPS, lengths)
    return (
        Statistics.measure(features, lengths, turning=layout.turning),
        Statistics.measure(local, lengths, turning=LOCAL_TURNING),
    )


def sentence_vectors(table: TextTable, sentences: Sequence[str]) -> Tensor:
    """(U, C) one vector of length 1 a sentence, as `TextEncoder.embed` gives, from word pieces that a table holds."""
    return torch.cat([table.pick(list(sentences[first : first + 512])).pooled() for first in range(0, len(sentences), 512)])


class Batch(TypedDict):
    """What :class:`Batches` draws."""

    features: Tensor  # (B, T, D) unnormalised
    lengths: Tensor  # (B,)
    heading: Tensor  # (B,) radians, of the first frame
    text: Tensor  # (B, 1, C)


class Batches:
    """Draws batches of placed, turned, mirrored clips with a wording each.

    Args:
        motions: the clips.
        sentences: U sentences that :meth:`MotionSet.sentences` gave. vectors: (U, C) what they are embedded as.
        size: B.
        frames: most frames of a clip; a window of longer ones is drawn.
        shares: source -> share of all draws; sources that are not named keep the odds of their number.
        silent: share of clips without text.
        mirrored: share of clips seen in the mirror.

    Raises:
        ValueError: when a share is out of range or names a source without clips, or a sentence has no vector.
    """

    def __init__(
        self,
        motions: MotionSet,
        sentences: Sequence[str],
        vectors: Tensor,
        *,
        size: int,
        frames: int = 100,
        shares: dict[str, float] | None = None,
        silent: float = 0.1,
        mirrored: float = 0.5,
    ) -> None:
        if size < 1 or frames < 1 or not 0 <= silent <= 1 or not 0 <= mirrored <= 1:
            raise ValueError(
                f"size and frames are at least 1, silent and mirrored in [0, 1]; got {size, frames, silent, mirrored}."
            )
        self.motions, self.size, self.frames, self.silent, self.mirrored = motions, size, frames, silent, mirrored
        self.layout = FeatureLayout(SMPLX22)
        self.partner, self.sign = mirror_map(self.layout)
        rows = {sentence: row for row, sentence in enumerate(sentences)}
        said = {sentence for wordings in motions.prompts for sentence in wordings}
        if missing := sorted(s for s in said if s not in rows or mirrored_words(s) not in rows):
            raise ValueError(f"{missing[0]!r} or its mirror image has no vector; embed all of motions.sentences().")
        # The last row is no text.
        self.vectors = torch.cat([vectors.float(), torch.zeros(1, vectors.shape[1])])
        self.reflected = torch.tensor([rows.get(mirrored_words(s), -1) for s in sentences] + [len(sentences)])
        most = max(map(len, motions.prompts))
        self.wordings = torch.tensor([[rows[w[i % len(w)]] for i in range(most)] for w in motions.prompts])
        self.choices = torch.tensor([len(w) for w in motions.prompts])
        self.clips = ClipDraws(motions.lengths.clamp(max=frames), motions.sources, shares)

    def draw(self, generator: torch.Generator) -> Batch:
        """One batch; the generator, on the CPU, is the only source of randomness."""
        rand = lambda count: torch.rand(count, generator=generator, dtype=torch.float64)
        rows = self.clips.rows(self.size, rand)
        spare = (self.motions.lengths[rows] - self.frames).clamp_min(0)
        features, lengths = self.motions.padded(rows, self.frames, (rand(self.size) * (spare + 1)).long())
        flip = rand(self.size) < self.mirrored
        features[flip] = features[flip][..., self.partner] * self.sign
        features, heading = placed(features, self.layout, generator=generator)
        words = self.wordings[rows, (rand(self.size) * self.choices[rows]).long()]
        words = torch.where(flip, self.reflected[words], words)
        words = torch.where(rand(self.size) < self.silent, len(self.vectors) - 1, words)
        return Batch(features=features, lengths=lengths, heading=heading, text=self.vectors[words][:, None])


ENCODED_BY = ("features", "smoothing", "kinematics", "rotations", "skeletons")


def code_version(*made_by: str) -> str:
    """A short hash of the code that makes and encodes clips, so that a cache never outlives it; comments do not count.

    Args:
        made_by: patterns of modules of `kinelib.bodies`, beside those that encode.
    """
    import kinelib.bodies

    folder = Path(kinelib.bodies.__file__).parent
    return code_hash(sorted({path for name in (*ENCODED_BY, *made_by) for path in folder.glob(f"{name}.py")}))


def _cached(name: str, made_by: tuple[str, ...], make: Callable[[], MotionSet], cache: Path | None) -> MotionSet:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    if cache is None:
        return make()
    path = Path(cache) / f"motions-{name}-{code_version(*made_by)}.safetensors"
    if path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                words = json.loads(file.metadata()["words"])
                tensors = {key: file.get_tensor(key) for key in ("frames", "lengths")}
            return MotionSet(
                **tensors, **{k: tuple(tuple(v) if isinstance(v, list) else v for v in words[k]) for k in words}
            )
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            warnings.warn(f"{path} is damaged ({error}); its clips are made again.", stacklevel=2)
    made = make()
    words = {"prompts": made.prompts, "labels": made.labels, "sources": made.sources}
    with written_whole(path) as writing:
        save_file({"frames": made.frames, "lengths": made.lengths}, writing, metadata={"words": json.dumps(words)})
    return made
