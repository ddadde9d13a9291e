"""Uses of the shared space: looking clips up by words and by motion, neighbours, and ways between two motions.

A text is read as in retrieval: the reasoner tells its groups and pairs, the aligner where it is at each level, and a clip is
as near as the mean of the levels' cosines (assumption A7). A motion is looked up by the cosine with the clips.

Between two motions there are two ways. Through the tokenizer's vectors, time by time: both motions are seen in every frame
of what lies between, as in a cross-fade that keeps bones whole. Through the shared space: the aligner's decoder makes one
motion of a point between the two meanings, coarse, as it was trained to keep meaning and not detail.

Shapes: N clips, C channels of the shared space, T frames, L times, G streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.aligner import HierarchicalAligner
from kinelib.kinmo.codec import decode_clips, encode
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.retrieve import embed_motions
from kinelib.kinmo.tokens import MotionTokenizer
from kinelib.learning.text import TextEncoder
from kinelib.notation import check_shape

if TYPE_CHECKING:
    from kinelib.kinmo.coarse_to_fine import SentenceEncoder
    from kinelib.kinmo.reasoner import Reasoner


@dataclass(frozen=True)
class Hit:
    """A clip that was found."""

    row: int  # of the clip
    score: float  # cosine, in [-1, 1]
    title: str  # its label and first prompt


@dataclass(frozen=True, eq=False)
class MotionIndex:
    """Clips by where they are in the aligner's space; made by :meth:`of`."""

    aligner: HierarchicalAligner
    motions: MotionTexts
    places: Tensor  # (N, C)
    reasoner: Reasoner | None = None  # of queries in words
    encoder: SentenceEncoder = field(default_factory=TextEncoder)

    @classmethod
    def of(
        cls,
        aligner: HierarchicalAligner,
        motions: MotionTexts,
        reasoner: Reasoner | None = None,
        encoder: SentenceEncoder | None = None,
    ) -> MotionIndex:
        """Embeds clips once.

        Args:
            aligner: trained.
            motions: N clips.
            reasoner: of queries in words; None: their global text alone is heard.
            encoder: of sentences; None: MiniLM at its first use.
        """
        own = {} if encoder is None else {"encoder": encoder}
        return cls(aligner, motions, embed_motions(aligner, motions), reasoner, **own)

    @torch.no_grad()
    def by_text(self, text: str, count: int = 5) -> list[Hit]:
        """The clips nearest to a sentence.

        Args:
            text: what is looked for. count: at least 1; all clips if there are no more.

        Raises:
            ValueError: for an empty text.
        """
        if not text.strip():
            raise ValueError("say what you are looking for: the text is empty.")
        finer = ("",) * 21 if self.reasoner is None else self.reasoner.reason([text])[0].sentences
        said = [one for one in dict.fromkeys([text, *finer]) if one]
        known = dict(zip(said, self.encoder.embed(said).cpu().float(), strict=True))
        known[""] = torch.zeros_like(known[text])
        below, split = torch.stack([known[one] for one in finer])[None], len(GROUPS)
        texts = {"text": known[text][None], "groups": below[:, :split], "interactions": below[:, split:]}
        device = self.aligner.statistics.mean.device
        levels = self.aligner.encode_texts({key: value.to(device) for key, value in texts.items()})
        means = {name: level.mean.cpu() for name, level in levels.items()}
        return self._nearest(self.aligner.similarities(means, self.places)[0], count)

    @torch.no_grad()
    def by_motion(self, motion: Motion, count: int = 5) -> list[Hit]:
        """The clips nearest to a motion of SMPLX22 at 20 frames a second, of which the first five seconds count."""
        features = encode(motion)[None].to(self.aligner.statistics.mean.device)
        place = self.aligner.encode_motion(features, torch.tensor([features.shape[1]])).mean.cpu()
        return self._nearest(F.cosine_similarity(place, self.places), count)

    def neighbours(self, row: int, count: int = 5) -> list[Hit]:
        """The clips nearest to clip `row`, itself left out."""
        scores = F.cosine_similarity(self.places[row][None], self.places)
        scores[row] = -torch.inf
        return self._nearest(scores, min(count, len(self.motions) - 1))

    def motion(self, row: int) -> Motion:
        """Clip `row` as joints that turn."""
        start = int(self.motions.starts[row])
        made = decode_clips([self.motions.frames[start : start + int(self.motions.lengths[row])]])[0]
        return made.with_facts(prompt=self.motions.prompts[row][0], name=self.motions.names[row])

    def search(self, text: str, count: int = 4) -> list[tuple[str, Motion]]:
        """What a search box shows: titles with scores, and motions."""
        return [(f"{hit.title} ({hit.score:.2f})", self.motion(hit.row)) for hit in self.by_text(text, count)]

    def _nearest(self, scores: Tensor, count: int) -> list[Hit]:
        if count < 1:
            raise ValueError(f"ask for at least one clip; got {count}.")
        values, rows = scores.topk(min(count, len(scores)))
        titles = (f"{self.motions.labels[row]}: {self.motions.prompts[row][0]}" for row in rows.tolist())
        return [Hit(*one) for one in zip(rows.tolist(), values.tolist(), titles, strict=True)]


@torch.no_grad()
def between_motions(tokenizer: MotionTokenizer, first: Motion, second: Motion, shares: Sequence[float]) -> list[Motion]:
    """Motions a share of the way from one to another, through the tokenizer's vectors.

    Args:
        tokenizer: trained.
        first, second: of SMPLX22 at 20 frames a second; what one has beyond the other's end is left out.
        shares: 0 is the first, 1 the second, both as the tokenizer keeps them without rounding to codes.
    """
    frames = min(len(first), len(second)) - 1
    features = torch.stack([encode(one)[:frames] for one in (first, second)])
    latents, _ = tokenizer.latents(features.to(tokenizer.statistics.mean.device))
    mixed = torch.stack([torch.lerp(latents[0], latents[1], float(share)) for share in shares])
    made = tokenizer.decode_latents(mixed, torch.full((len(mixed),), frames)).cpu()
    return decode_clips([one[:frames] for one in made])


@torch.no_grad()
def between_meanings(
    aligner: HierarchicalAligner, first: Tensor, second: Tensor, shares: Sequence[float], frames: int = 80
) -> list[Motion]:
    """Motions of points between two of the shared space, by the aligner's decoder.

    Args:
        aligner: trained.
        first, second: (C,) means of motions or texts.
        shares: 0 is the first, 1 the second.
        frames: of the motions; rounded up to the aligner's patches.
    """
    check_shape("second", second, "C", C=check_shape("first", first, "C")["C"])
    patch, device = aligner.config.patch, aligner.statistics.mean.device
    mixed = torch.stack([torch.lerp(first, second, float(share)) for share in shares]).to(device)
    mask = torch.ones(len(mixed), -(-frames // patch), dtype=torch.bool, device=device)
    tokens = rearrange(aligner.motion_decoder(mixed, mask), "b t (p c) -> b (t p) c", p=patch)
    return decode_clips([*aligner.statistics.denormalize(tokens).cpu()[:, :frames]])
