"""Retrieval between texts and motions, measured: TMR's protocols (a) to (d), both ways, with predicted or oracle texts.

Group and interaction texts written from the very motion that is looked for give the answer away, so at test time they come
from a reasoner that reads the global text alone ("predicted"). The same with the annotator's texts ("oracle") says what
perfect reasoning would bring, and stands apart: the two are never in one table column.

    a      among all N                                    b      the same, texts whose sentence vectors agree count as right
    c      among 100 clips that differ most               d      among 32 at a time, averaged
    label  as (a), but clips of one content and style count as right: by sentence vectors (b) cannot tell left from right

Two systems are compared clip by clip on the same gallery, with a bootstrap interval of the difference over clips.

Shapes: N clips, W channels of an embedding, scores (N, N): rows texts, columns motions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinelib.bodies.retrieval import Retrieval, everything, most_different, on_subset, ranks, small_batches, with_threshold
from kinelib.kinmo.aligner import HierarchicalAligner
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.reasoner import Reasoner
from kinelib.kinmo.sentences import SentenceBank
from kinelib.learning.intervals import Interval, bootstrap_difference
from kinelib.notation import ShapeError

TEXTS = ("predicted", "oracle")
SUBSET = 100  # clips of protocol (c)
BATCH = 32  # of protocol (d)
MEASURED_AT_ONCE = 256


@dataclass(frozen=True)
class Report:
    """What retrieval among N clips gave, by protocol."""

    texts: str  # where group and interaction texts came from: "predicted" or "oracle"
    protocols: dict[str, Retrieval]  # "a", "b", "c", "d", "label"; (c) and (d) only where there are enough clips
    scores: Tensor  # (N, N)
    names: tuple[str, ...]  # of the clips

    def rows(
        self,
        numbers: Sequence[str] = ("R@1", "R@3", "R@10", "MedR"),
        protocols: Sequence[str] = ("a", "b", "c", "d", "label"),
    ) -> dict[str, float]:
        """As a flat table: every number with the size of its gallery, and chance beside it."""
        table = {}
        for name in (one for one in protocols if one in self.protocols):
            found = self.protocols[name]
            ways = {"text to motion": found.text_to_motion, "motion to text": found.motion_to_text, "chance": found.chance}
            for way, values in ways.items():
                table |= {f"({name}) {key} of {found.gallery}, {way}, {self.texts}": values[key] for key in numbers}
        return table


@torch.no_grad()
def embed_motions(model: HierarchicalAligner, motions: MotionTexts) -> Tensor:
    """Means (N, W) of clips, on the CPU."""
    device, found = model.statistics.mean.device, []
    for rows in torch.arange(len(motions)).split(MEASURED_AT_ONCE):
        features, lengths = motions.padded(rows, model.config.frames)
        found.append(model.encode_motion(features.to(device), lengths).mean.cpu())
    return torch.cat(found)


@torch.no_grad()
def embed_texts(
    model: HierarchicalAligner, prompts: Sequence[str], finer: Sequence[Sequence[str]], bank: SentenceBank
) -> dict[str, Tensor]:
    """Means (N, W) of texts at every level of the model, on the CPU.

    Args:
        model: trained.
        prompts: N global texts.
        finer: for each 21 sentences, six of groups and fifteen of pairs.
        bank: with all of these sentences.
    """
    device, found = model.statistics.mean.device, {name: [] for name in model.names}
    said, slots = bank.rows(prompts), torch.stack([bank.rows(one) for one in finer])
    for rows in torch.arange(len(said)).split(MEASURED_AT_ONCE):
        text, below = bank.vectors[said[rows]], bank.vectors[slots[rows]]
        texts = {"text": text, "groups": below[:, :6], "interactions": below[:, 6:]}
        for name, level in model.encode_texts({key: value.to(device) for key, value in texts.items()}).items():
            found[name].append(level.mean.cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def finer_texts(motions: MotionTexts, reasoner: Reasoner | None) -> list[tuple[str, ...]]:
    """The 21 sentences of every clip: the reasoner's, from its first prompt; without a reasoner the annotator's."""
    if reasoner is None:
        return [(*inner, *outer) for inner, outer in zip(motions.groups, motions.interactions, strict=True)]
    return [reasoned.sentences for reasoned in reasoner.reason([said[0] for said in motions.prompts])]


def report(model: HierarchicalAligner, motions: MotionTexts, bank: SentenceBank, reasoner: Reasoner | None = None) -> Report:
    """Measures retrieval among clips by their first prompts.

    Args:
        model: trained on other clips, in eval mode.
        motions: N clips.
        bank: with the sentences of the clips and of the reasoner.
        reasoner: which the finer texts come from; None: oracle texts, which give the answer away.

    Raises:
        ShapeError: for fewer than 2 clips.
    """
    if len(motions) < 2:
        raise ShapeError("retrieval needs at least 2 clips to choose from.")
    prompts = [said[0] for said in motions.prompts]
    means = embed_texts(model, prompts, finer_texts(motions, reasoner), bank)
    scores = model.similarities(means, embed_motions(model, motions))
    vectors = bank.vectors[bank.rows(prompts)]
    return Report(TEXTS[reasoner is None], protocols(scores, vectors, motions), scores, motions.names)


def protocols(scores: Tensor, vectors: Tensor, motions: MotionTexts) -> dict[str, Retrieval]:
    """All protocols of one table of similarities.

    Args:
        scores: (N, N), rows texts, columns motions.
        vectors: (N, C) sentence vectors of the texts.
        motions: the N clips, whose labels and names are used.
    """
    numbers = {label: number for number, label in enumerate(dict.fromkeys(motions.labels))}
    one_hot = torch.nn.functional.one_hot(torch.tensor([numbers[label] for label in motions.labels])).double()
    found = {
        "a": everything(scores),
        "b": with_threshold(scores, vectors),
        "label": with_threshold(scores, one_hot, right_ties_count=False),
    }
    if len(scores) >= SUBSET:
        found["c"] = on_subset(scores, most_different(vectors, SUBSET))
    if len(scores) >= BATCH:
        found["d"] = small_batches(scores, motions.names, size=BATCH)
    return found


def compare(ours: Report, theirs: Report, *, labels: Sequence[str] | None = None, seed: int = 0) -> dict[str, Interval]:
    """How far one system is above another on the same clips, with 95 % bootstrap intervals over clips.

    Args:
        ours, theirs: of the same clips in the same order.
        labels: of the clips, to count a motion of the text's label as found; None: protocol (a).
        seed: of the bootstrap.

    Returns:
        for "R@1", "R@3", "R@10" (points of percentage) and "MRR" (mean reciprocal rank times 100), both ways, the mean
        difference. It is above zero for sure where the interval is.

    Raises:
        ShapeError: when the clips are not the same.
    """
    if ours.names != theirs.names:
        raise ShapeError(
            f"two systems are compared on the same clips; got {len(ours.names)} and {len(theirs.names)} others."
        )
    right = None if labels is None else torch.tensor([[a == b for b in labels] for a in labels])
    table = {}
    for way, turn in (("text to motion", lambda scores: scores), ("motion to text", lambda scores: scores.T)):
        values = [per_clip(ranks(turn(one.scores), right, right_ties_count=right is None)) for one in (ours, theirs)]
        for name, mine in values[0].items():
            table[f"{name}, {way}"] = bootstrap_difference(mine, values[1][name], seed=seed)
    return table


def per_clip(found: Tensor) -> Mapping[str, Tensor]:
    """What each clip adds to R@1, R@3, R@10 and MRR, in percent, from its rank (N,) counted from 0."""
    hits = {f"R@{depth}": 100.0 * (found < depth).double() for depth in (1, 3, 10)}
    return hits | {"MRR": 100.0 / (1 + found.double())}
