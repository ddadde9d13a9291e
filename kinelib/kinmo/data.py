"""What KinMo's networks are trained on: clips as HumanML3D's 263 numbers a frame, with sentences at three levels.

A clip has several wordings of its global text, a sentence for each of the six groups and one for each of the fifteen pairs
(Section 3 of the paper; written by `kinelib.kinmo.annotate`, assumption A12: by rules and not by GPT). Captured clips are
cut to five seconds *before* they are annotated, so that every sentence is about what is seen; of longer ones the training
set holds the last five seconds as well.

Held out: "test" are takes nobody trained on. "unseen" are whole pairs of content and style of the captured clips, and nine
of the procedural combinations of a way of going and a gesture, closed under mirroring; each part of every one of them occurs
in other combinations that are trained on.

Motion and words are mirrored when a batch is drawn: in 263 numbers the mirror image is a permutation with signs, and a
sentence's mirror image is another row of the :class:`SentenceBank`, in which every sentence stands once.

Shapes: F frames in all, N clips, B clips of a batch, T frames, U different sentences, C = 384 channels of a sentence.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from kinelib.bodies.clip_draws import ClipDraws
from kinelib.bodies.clips import Clip
from kinelib.bodies.procedural_words import mirrored_words
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.codec import encode_clips, mirrored
from kinelib.kinmo.groups import PAIR_KEYS, PAIRS
from kinelib.kinmo.records import mirrored_key
from kinelib.kinmo.sentences import SentenceBank
from kinelib.learning.code_version import code_hash
from kinelib.learning.files import written_whole

TRAIN_SEED, TEST_SEED = 1000, 7  # of procedural clips
FRAMES = 100  # rows of features a clip has at most: 101 frames, five seconds
HELD_OUT_COMBINATIONS = (
    "walk+raise-up-left-hand",
    "walk+raise-up-right-hand",
    "walk+wave-both-hands",
    "walk-back+wave-left-hand",
    "walk-back+wave-right-hand",
    "walk-turn-left+raise-up-both-hands",
    "walk-turn-right+raise-up-both-hands",
    "walk-turn-left+wave-right-hand",
    "walk-turn-right+wave-left-hand",
)
SLOT_KEYS = (*GROUPS, *PAIR_KEYS)  # what the 21 sentences below the global one are about
PARTS = ("train", "test", "unseen")


@dataclass(frozen=True, eq=False)
class MotionTexts:
    """N clips as features, with their sentences.

    Args:
        frames: (F, 263) unnormalised features, one clip after the other.
        lengths: (N,) rows of every clip.
        prompts: N tuples of global sentences, the plainest first.
        groups: N tuples of 6 sentences, in the order of `GROUPS`.
        interactions: N tuples of 15 sentences, in the order of `PAIRS`.
        labels: N strings content/style; clips of one label may be described alike.
        sources: N strings, the data set every clip comes from.
        names: N strings that tell the clips apart.

    Raises:
        ValueError: when these are not of the same clips, or a clip lacks a sentence.
    """

    frames: Tensor
    lengths: Tensor
    prompts: tuple[tuple[str, ...], ...]
    groups: tuple[tuple[str, ...], ...]
    interactions: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = {len(self.lengths), *(len(getattr(self, column)) for column in COLUMNS)}
        if len(counts) != 1 or int(self.lengths.sum()) != len(self.frames):
            raise ValueError(f"the parts of a set do not fit: {sorted(counts)} clips, {len(self.frames)} frames.")
        for name, said, inner, outer in zip(self.names, self.prompts, self.groups, self.interactions, strict=True):
            if not said or len(inner) != len(GROUPS) or len(outer) != len(PAIRS):
                raise ValueError(
                    f"clip {name!r} has {len(said)} global, {len(inner)} group and {len(outer)} interaction sentences; "
                    f"it needs at least one, {len(GROUPS)} and {len(PAIRS)}."
                )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> Tensor:
        """(N,) index of every clip's first row."""
        return self.lengths.cumsum(0) - self.lengths

    def join(self, other: MotionTexts) -> MotionTexts:
        """These clips, then those of `other`."""
        columns = {column: getattr(self, column) + getattr(other, column) for column in COLUMNS}
        frames, lengths = torch.cat([self.frames, other.frames]), torch.cat([self.lengths, other.lengths])
        return MotionTexts(frames, lengths, **columns)

    def pick(self, rows: Sequence[int]) -> MotionTexts:
        """Some of the clips, at least one."""
        rows, starts = list(rows), self.starts.tolist()
        frames = torch.cat([self.frames[starts[row] : starts[row] + int(self.lengths[row])] for row in rows])
        columns = {column: tuple(getattr(self, column)[row] for row in rows) for column in COLUMNS}
        return MotionTexts(frames, self.lengths[rows], **columns)

    def padded(self, rows: Tensor, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
        """The first rows of some clips: features (B, T, 263), the last row repeated beyond the end, and lengths (B,)."""
        lengths = self.lengths[rows].clamp(max=frames)
        at = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
        return self.frames[self.starts[rows][:, None] + at], lengths

    def sentences(self) -> list[str]:
        """All different sentences of all levels and their mirror images, sorted."""
        said = {one for column in (self.prompts, self.groups, self.interactions) for texts in column for one in texts}
        return sorted(said | {mirrored_words(one) for one in said})


COLUMNS = ("prompts", "groups", "interactions", "labels", "sources", "names")


def training_set(
    captured: str | Path | None, clips: int, cache: str | Path | None = None, part: str = "train"
) -> MotionTexts:
    """The clips of a part, annotated and encoded, captured ones first.

    Args:
        captured: folder of Bandai-Namco's clips; None: procedural clips alone.
        clips: procedural clips to draw, of which those are left out that belong to another part.
        cache: folder of what is made already, named by these numbers and the code that makes it; None keeps nothing.
        part: "train", "test" or "unseen".

    Raises:
        ValueError: for an unknown part, or when there is no clip at all.
    """
    if part not in PARTS:
        raise ValueError(f"there is no part {part!r}; choose one of {', '.join(PARTS)}.")
    sets = []
    if captured is not None:
        sets.append(_cached(f"captured-{part}", lambda: motion_texts(captured_clips(captured, part)), cache))
    if clips:
        seed = TRAIN_SEED if part == "train" else TEST_SEED
        made = lambda: motion_texts(combined_clips(clips, seed, unseen=part == "unseen"))
        sets.append(_cached(f"procedural-{clips}-{seed}{'-unseen' * (part == 'unseen')}", made, cache))
    if not sets:
        raise ValueError("there are no clips to learn from: give a folder of captured clips or a number of procedural ones.")
    return sets[0] if len(sets) == 1 else sets[0].join(sets[1])


def combined_clips(count: int, seed: int, *, unseen: bool = False) -> list[Clip]:
    """Procedural clips with none of the held-out combinations, or with nothing else.

    Args:
        count: drawn; without `unseen` about a fourteenth of them is left out.
        seed: of the draw.
        unseen: True: held-out combinations only.
    """
    from kinelib.bodies.procedural import procedural_clips

    drawn = procedural_clips(count, seed, contents=HELD_OUT_COMBINATIONS if unseen else None)
    return [clip for clip in drawn if unseen or clip.content not in HELD_OUT_COMBINATIONS]


def captured_clips(folder: str | Path, part: str) -> list[Clip]:
    """Bandai-Namco's clips of a part, cut to five seconds; in training also the last five seconds of clips over six."""
    from kinelib.bodies.clips import bandai_namco_clips, split

    found = []
    for clip in (one for one in bandai_namco_clips(folder) if split(one) == part):
        frames = len(clip.motion)
        starts = [0, frames - FRAMES - 1] if part == "train" and frames > 1.2 * FRAMES else [0]
        for start in starts:
            window = clip.motion.slice(start, min(frames, start + FRAMES + 1))
            found.append(replace(clip, motion=window, take=f"{clip.take}@{start}" if start else clip.take))
    return found


def motion_texts(clips: Sequence[Clip], cache: str | Path | None = None) -> MotionTexts:
    """Annotates and encodes clips of SMPL-X's 22 joints at 20 frames a second.

    Args:
        clips: at least one.
        cache: folder of records, see `annotate_clips`.

    Raises:
        ValueError: without clips, or as of the encoder and the annotator.
    """
    from kinelib.kinmo.annotate import annotate_clips

    if not clips:
        raise ValueError("there are no clips to annotate.")
    records, features = annotate_clips(clips, cache=cache), encode_clips([clip.motion for clip in clips])
    return MotionTexts(
        torch.cat([one.float() for one in features]),
        torch.tensor([len(one) for one in features]),
        prompts=tuple(clip.prompts for clip in clips),
        groups=tuple(tuple(record.groups.values()) for record in records),
        interactions=tuple(tuple(record.interactions.values()) for record in records),
        labels=tuple(f"{clip.content}/{clip.style}" for clip in clips),
        sources=tuple(clip.source for clip in clips),
        names=tuple(f"{clip.content}/{clip.style}/{clip.take}" for clip in clips),
    )


class Batch(TypedDict):
    """What :class:`Batches` draws; sentence vectors are of length 1, or 0 where nothing is said."""

    features: Tensor  # (B, T, 263) unnormalised
    lengths: Tensor  # (B,)
    text: Tensor  # (B, C) a wording of the global text
    groups: Tensor  # (B, 6, C)
    interactions: Tensor  # (B, 15, C)
    labels: Tensor  # (B,) numbers of the labels, those of mirrored clips mirrored
    sentences: Tensor  # (B,) rows of the bank, of the global texts


class Batches:
    """Draws batches of clips of similar lengths, half of them in the mirror, with sentences at all levels.

    Args:
        motions: the clips.
        bank: vectors of `motions.sentences()`, and of those of `predicted`.
        size: B.
        shares: source -> share of all draws; sources that are not named keep the odds of their number.
        predicted: (N, W, 21) rows of the bank: what a reasoner says of wording w of clip n, six groups and fifteen pairs.
            Wordings beyond a clip's last are repeated from its first on. None: oracle texts only.
        predicted_share: of clips whose group and interaction texts are the reasoner's.
        silent: share of clips without any text.
        dropped: share of group and interaction sentences left out, so that no single one is relied on.
        mirrored: share of clips seen in the mirror.

    Raises:
        ValueError: when a share is out of range or names a source without clips, or a sentence has no vector.
    """

    def __init__(
        self,
        motions: MotionTexts,
        bank: SentenceBank,
        *,
        size: int,
        shares: dict[str, float] | None = None,
        predicted: Tensor | None = None,
        predicted_share: float = 0.5,
        silent: float = 0.0,
        dropped: float = 0.1,
        mirrored: float = 0.5,
    ) -> None:
        odds = {"predicted_share": predicted_share, "silent": silent, "dropped": dropped, "mirrored": mirrored}
        if size < 1 or not all(0 <= share <= 1 for share in odds.values()):
            raise ValueError(f"size is at least 1 and shares are in [0, 1]; got {size}, {odds}.")
        self.motions, self.bank, self.size = motions, bank, size
        self.predicted, self.predicted_share = predicted, predicted_share if predicted is not None else 0.0
        self.silent, self.dropped, self.mirrored = silent, dropped, mirrored
        self.partners = mirrored_slots()
        most = max(map(len, motions.prompts))
        self.wordings = torch.stack([bank.rows([said[i % len(said)] for i in range(most)]) for said in motions.prompts])
        self.choices = torch.tensor([len(said) for said in motions.prompts])
        slots = [(*inner, *outer) for inner, outer in zip(motions.groups, motions.interactions, strict=True)]
        self.slots = bank.rows([one for texts in slots for one in texts]).view(len(motions), -1)
        names = dict.fromkeys(name for label in motions.labels for name in (label, mirrored_words(label)))
        numbers = {name: number for number, name in enumerate(names)}
        self.labels = torch.tensor([[numbers[label], numbers[mirrored_words(label)]] for label in motions.labels])
        self.clips = ClipDraws(motions.lengths, motions.sources, shares)

    def draw(self, generator: torch.Generator) -> Batch:
        """One batch; the generator, on the CPU, is the only source of randomness."""
        rand = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)
        rows = self.clips.rows(self.size, rand)
        features, lengths = self.motions.padded(rows)
        wording = (rand(self.size) * self.choices[rows]).long()
        said, slots = self.wordings[rows, wording], self.slots[rows]
        if self.predicted is not None:
            guessed = (rand(self.size) < self.predicted_share)[:, None]
            slots = torch.where(guessed, self.predicted[rows, wording], slots)
        flip = rand(self.size) < self.mirrored
        features[flip] = mirrored(features[flip])
        said = torch.where(flip, self.bank.reflected[said], said)
        slots = torch.where(flip[:, None], self.bank.reflected[slots[:, self.partners]], slots)
        quiet = rand(self.size) < self.silent
        said = torch.where(quiet, self.bank.nothing, said)
        slots = torch.where(quiet[:, None] | (rand(*slots.shape) < self.dropped), self.bank.nothing, slots)
        groups, interactions = self.bank.vectors[slots].split([len(GROUPS), len(PAIRS)], 1)
        return Batch(
            features=features,
            lengths=lengths,
            text=self.bank.vectors[said],
            groups=groups,
            interactions=interactions,
            labels=self.labels[rows, flip.long()],
            sentences=said,
        )


def belongs(slot: str, groups: Sequence[str]) -> bool | None:
    """Whether a group, or a pair with both its groups, is one of some groups; None: a pair across these and the others."""
    inside = {name in groups for name in slot.split("|")}
    return inside.pop() if len(inside) == 1 else None


def mirrored_slots() -> Tensor:
    """(21,) for every group and pair the one it becomes in the mirror."""
    return torch.tensor([SLOT_KEYS.index(mirrored_key(key)) for key in SLOT_KEYS])


MADE_BY = {
    "bodies": ("procedural*", "clips", "captions", "bvh", "retarget", "humanml3d", "kinematics", "rotations", "skeletons"),
    "kinmo": ("codec", "groups", "records", "pose_words", "motion_signs", "motion_words", "pair_words", "annotate"),
}


def code_version() -> str:
    """A short hash of the code that makes, encodes and annotates clips; comments and docstrings do not count."""
    room = Path(__file__).parents[1]
    paths = (
        path
        for folder, patterns in MADE_BY.items()
        for path in sorted({path for name in patterns for path in (room / folder).glob(f"{name}.py")})
    )
    return code_hash(paths)


def _cached(name: str, make: Callable[[], MotionTexts], cache: str | Path | None) -> MotionTexts:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    if cache is None:
        return make()
    path = Path(cache) / f"texts-{name}-{code_version()}.safetensors"
    if path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                words = json.loads(file.metadata()["words"])
                frames, lengths = file.get_tensor("frames"), file.get_tensor("lengths")
            lists = {key: tuple(tuple(v) if isinstance(v, list) else v for v in words[key]) for key in COLUMNS}
            return MotionTexts(frames, lengths, **lists)
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            warnings.warn(f"{path} is damaged ({error}); its clips are made again.", stacklevel=2)
    made = make()
    words = {column: getattr(made, column) for column in COLUMNS}
    with written_whole(path) as writing:
        save_file({"frames": made.frames, "lengths": made.lengths}, writing, metadata={"words": json.dumps(words)})
    return made
