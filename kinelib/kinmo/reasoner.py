"""`Reasoner`: from a global text to what each group and each pair does; the texts of the finer levels at test time.

KinMo fine-tunes LLaMA-3 for this (Section 3, Motion Reasoner). Ours retrieves and edits: it looks up the training prompts
nearest to a text, by whitened sentence vectors, and lets the training clips of their labels vote, sentence by sentence. A
text that is near no prompt and has two clauses ("raises the right hand while walking") is looked up clause by clause; every
group and every pair then takes the clause that says more about it: what one would not say of somebody who stands still,
times how rarely it is said at all, so that an arm that is raised wins over one that swings, and legs that walk over legs
that stand. `kinelib.kinmo.reasoner_lora` adapts a causal language model instead.

A reasoner knows training clips only. Asked about one of them, it can leave that clip out of the vote; so what a network
reads in training is what it will read later: a guess that is right about as often.

Shapes: Q texts, M prompts, L labels, 21 slots (six groups, fifteen pairs), V different sentences a slot at most.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import einsum, reduce
from torch import Tensor

from kinelib.bodies.procedural_words import mirrored_words
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.data import SLOT_KEYS, MotionTexts, mirrored_slots
from kinelib.kinmo.sentences import SentenceBank
from kinelib.learning.files import written_whole
from kinelib.learning.text import TextEncoder
from kinelib.learning.whitening import Whitening

NEIGHBOURS = 8  # prompts that vote
SHARPNESS = 20.0  # of the votes: weights are exp(SHARPNESS * cosine)
NEAR = 0.85  # whitened cosine from which a prompt says the same as the text
STANDING = "A person stands still."  # what saying nothing about a group looks like
LITTLE = 4.0  # log odds of a prompt after which all that is not asked for is still, over one after which nothing is
PLAIN = 1.0  # log odds that a prompt is of the style "normal", where sentences do not say otherwise
SMOOTH = 1e-3  # added to shares before their logarithm
AT_ONCE = 64  # texts looked up together
VERB = r"(?:is\s|[a-z]+s\s|[a-z]+s$)"  # third person


@dataclass(frozen=True)
class Reasoned:
    """What a text says of every group and pair."""

    groups: dict[str, str]  # in the order of `GROUPS`
    interactions: dict[str, str]  # in the order of `PAIR_KEYS`

    @property
    def sentences(self) -> tuple[str, ...]:
        """The six and the fifteen sentences in their order."""
        return (*self.groups.values(), *self.interactions.values())


class Reasoner:
    """Guesses group and interaction texts from global ones.

    Args:
        prompts: M sentences. vectors: (M, C) of them. labels: (M,) number of the label of each.
        names: L labels content/style.
        slots: 21 tuples of different sentences.
        counts: (L, 21, V) how many clips of a label say each sentence of a slot; 0 beyond a slot's last.
        encoder: of texts that are not among the prompts; None: MiniLM, at its first use.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        vectors: Tensor,
        labels: Tensor,
        names: Sequence[str],
        slots: Sequence[Sequence[str]],
        counts: Tensor,
        encoder: TextEncoder | None = None,
    ) -> None:
        self.prompts, self.vectors, self.labels = tuple(prompts), vectors.float(), labels
        self.names = tuple(names)
        self.slots, self.counts = tuple(map(tuple, slots)), counts.float()
        self.encoder = TextEncoder() if encoder is None else encoder
        self.whitening = Whitening(vectors.shape[1])
        self.whitening.measure(self.vectors)
        self.sizes = self.counts[:, 0].sum(-1)  # clips a label
        self._heard = dict(zip(self.prompts, self.vectors, strict=True))  # text -> vector
        self.keys = self._keys(self.prompts)
        self.base = reduce(self.counts, "l s v -> s v", "sum") / self.sizes.sum()

    @classmethod
    def learn(
        cls, motions: MotionTexts, bank: SentenceBank, encoder: TextEncoder | None = None, *, per_label: int = 24
    ) -> Reasoner:
        """A reasoner that knows a training set and its mirror image.

        Args:
            motions: the training set. bank: with vectors of its sentences.
            encoder: of other texts.
            per_label: different prompts kept of a label.
        """
        names = dict.fromkeys(name for label in motions.labels for name in (label, mirrored_words(label)))
        numbers = {name: number for number, name in enumerate(names)}
        heard: list[dict[str, None]] = [{} for _ in numbers]
        partners = mirrored_slots().tolist()
        said = []  # (label, 21 sentences) of every clip and its mirror image
        rows = zip(motions.labels, motions.prompts, motions.groups, motions.interactions, strict=True)
        for label, prompts, inner, outer in rows:
            own = (*inner, *outer)
            said += [(numbers[label], own)]
            said += [(numbers[mirrored_words(label)], tuple(mirrored_words(own[slot]) for slot in partners))]
            for prompt in prompts:
                heard[numbers[label]].setdefault(prompt)
                heard[numbers[mirrored_words(label)]].setdefault(mirrored_words(prompt))
        kept = [(prompt, label) for label, own in enumerate(heard) for prompt in list(own)[:per_label]]
        slots = [sorted({own[slot] for _, own in said}) for slot in range(len(SLOT_KEYS))]
        counts = torch.zeros(len(numbers), len(slots), max(map(len, slots)))
        places = [{sentence: place for place, sentence in enumerate(one)} for one in slots]
        for label, own in said:
            for slot, sentence in enumerate(own):
                counts[label, slot, places[slot][sentence]] += 1
        prompts = [prompt for prompt, _ in kept]
        labels = torch.tensor([label for _, label in kept])
        return cls(prompts, bank.vectors[bank.rows(prompts)], labels, [*numbers], slots, counts, encoder)

    def reason(self, texts: Sequence[str]) -> list[Reasoned]:
        """Six and fifteen sentences for every text.

        Args:
            texts: Q global texts, not empty.

        Raises:
            ValueError: for an empty text.
        """
        if empty := [number for number, text in enumerate(texts) if not text.strip()]:
            raise ValueError(f"text {empty[0]} is empty; there is nothing to reason from.")
        found = []
        for first in range(0, len(texts), AT_ONCE):
            found += self._sentences(self._votes(list(texts[first : first + AT_ONCE])))
        return found

    def reason_left_out(self, motions: MotionTexts, bank: SentenceBank) -> Tensor:
        """What is said of every wording of training clips when the clip itself and its mirror image have no vote.

        Args:
            motions: clips this reasoner was made from. bank: with its sentences.

        Returns:
            (N, W, 21) rows of the bank; wordings beyond a clip's last are repeated from its first on.
        """
        told = {text for said in motions.prompts for one in said for text in (one, mirrored_words(one))}
        self._heard |= {text: bank.vectors[bank.numbers[text]] for text in told}
        numbers = {name: number for number, name in enumerate(self.names)}
        homes = torch.tensor([[numbers[label], numbers[mirrored_words(label)]] for label in motions.labels])
        partners = mirrored_slots().tolist()
        own = []
        for inner, outer in zip(motions.groups, motions.interactions, strict=True):
            said = (*inner, *outer)
            own.append([self._places(said), self._places([mirrored_words(said[slot]) for slot in partners])])
        own = torch.tensor(own)  # (N, 2, 21)
        asked = [(row, text) for row, said in enumerate(motions.prompts) for text in said]
        rows = torch.stack([F.pad(bank.rows(one), (0, self.counts.shape[-1] - len(one))) for one in self.slots])  # (21, V)
        found = []
        for first in range(0, len(asked), AT_ONCE):
            chunk = asked[first : first + AT_ONCE]
            clips = torch.tensor([row for row, _ in chunk])
            votes = self._votes([text for _, text in chunk], (homes[clips], own[clips]))
            found.append(rows.gather(1, votes.argmax(-1).T).T)
        each = torch.cat(found).split([len(said) for said in motions.prompts])
        most = max(map(len, each))
        return torch.stack([one[torch.arange(most) % len(one)] for one in each])

    def prompt_for(self, sentences: Mapping[str, str]) -> str:
        """The way back: a training prompt of clips of which these sentences are true, and otherwise as little as can be.

        Args:
            sentences: by group or pair, at least one; one that nobody said counts as the nearest that somebody did.

        Raises:
            KeyError: for a name that is no group or pair. ValueError: without sentences.
        """
        if not sentences:
            raise ValueError("give a sentence of at least one group or pair to find a prompt for.")
        if unknown := sorted(set(sentences) - set(SLOT_KEYS)):
            raise KeyError(f"{unknown[0]!r} is no group or pair; there are {', '.join(SLOT_KEYS)}.")
        shares = self.counts / self.sizes[:, None, None].clamp_min(1)  # (L, 21, V)
        still = self._ballot(self._keys([STANDING]), None)
        fits = LITTLE * reduce(torch.minimum(shares, still), "l s v -> l", "sum") / len(SLOT_KEYS)
        fits = fits + PLAIN * torch.tensor([name.endswith("/normal") for name in self.names])
        for name, sentence in sentences.items():
            slot = SLOT_KEYS.index(name)
            fits = fits + (shares[:, slot, self._nearest(slot, sentence)] + SMOOTH).log()
        return self.prompts[int((self.labels == fits.argmax()).nonzero()[0])]

    def _nearest(self, slot: int, sentence: str) -> int:
        """The place of a sentence among those of a slot, or of the one nearest to it."""
        own = self.slots[slot]
        if sentence in own:
            return own.index(sentence)
        vectors = self.encoder.embed([sentence, *own]).cpu()
        return int((vectors[1:] @ vectors[0]).argmax())

    def _places(self, sentences: Sequence[str]) -> list[int]:
        return [slot.index(sentence) for slot, sentence in zip(self.slots, sentences, strict=True)]

    def _votes(self, texts: list[str], left_out: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Shares (Q, 21, V) of the votes for every sentence."""
        keys = self._keys(texts)
        votes = self._ballot(keys, left_out)
        near = (keys @ self.keys.T).amax(1) >= NEAR
        split = {row: parts for row in (~near).nonzero().flatten().tolist() if len(parts := clauses(texts[row])) > 1}
        if split:
            rows = torch.tensor([row for row, parts in split.items() for _ in parts])
            own = None if left_out is None else (left_out[0][rows], left_out[1][rows])
            parts = self._ballot(self._keys([part for parts in split.values() for part in parts]), own)
            for row, said in zip(split, parts.split([*map(len, split.values())]), strict=True):
                votes[row] = self._edited(said)
        return votes

    def _keys(self, texts: Sequence[str]) -> Tensor:
        """Keys (Q, 2 C) of length 1: whitened vectors of the texts and of their mirror images, so that sides are alike."""
        both = [*texts, *map(mirrored_words, texts)]
        if new := [text for text in dict.fromkeys(both) if text not in self._heard]:
            self._heard |= dict(zip(new, self.encoder.embed(new).cpu().float(), strict=True))
        white = F.normalize(self.whitening(torch.stack([self._heard[text] for text in both])), dim=-1)
        return torch.cat(white.chunk(2), 1) / 2**0.5

    def _ballot(self, keys: Tensor, left_out: tuple[Tensor, Tensor] | None) -> Tensor:
        """Shares (Q, 21, V) of the votes, without those of clips of labels (Q, 2) that say sentences (Q, 2, 21)."""
        cosines, rows = (keys @ self.keys.T).topk(min(NEIGHBOURS, len(self.prompts)), dim=1)
        labels = self.labels[rows]  # (Q, neighbours)
        weights = (SHARPNESS * (cosines - cosines[:, :1])).exp() / self.sizes[labels]
        votes = einsum(weights, self.counts[labels], "q n, q n s v -> q s v")
        for home, own in zip(*(one.unbind(1) for one in left_out or ()), strict=True):
            mine = (weights * (labels == home[:, None])).sum(1)
            votes.scatter_add_(2, own[..., None], -mine[:, None, None].expand(*own.shape, 1))
        votes = votes.clamp_min(0)
        # Where nobody but the clip itself had a vote, the frequent sentences win.
        votes = votes + 1e-6 * self.base
        return votes / votes.sum(-1, keepdim=True)

    def _edited(self, votes: Tensor) -> Tensor:
        """Votes (21, V) in which every slot takes the clause, of votes (clauses, 21, V), that says more about it."""
        still = self._ballot(self._keys([STANDING]), None)
        moving = 1 - reduce(torch.minimum(votes, still), "c s v -> c s", "sum")
        surprise = einsum(votes, -(self.base + SMOOTH).log(), "c s v, s v -> c s")
        chosen = (moving * surprise).argmax(0)
        return votes[chosen, torch.arange(votes.shape[1])]

    def _sentences(self, votes: Tensor) -> list[Reasoned]:
        found = []
        for row in votes.argmax(-1).tolist():
            said = [slot[place] for slot, place in zip(self.slots, row, strict=True)]
            keyed = dict(zip(SLOT_KEYS, said, strict=True))
            found.append(Reasoned({g: keyed.pop(g) for g in GROUPS}, keyed))
        return found

    def save(self, path: str | Path) -> None:
        """Writes everything into one safetensors file; vectors and counts as float16."""
        from safetensors.torch import save_file

        words = {"prompts": self.prompts, "names": self.names, "slots": self.slots}
        used = self.counts.nonzero()
        tensors = {
            "vectors": self.vectors.half(),
            "labels": self.labels.int(),
            "places": used.int().contiguous(),
            "counts": self.counts[used.unbind(1)].half(),
        }
        with written_whole(path) as writing:
            save_file(tensors, writing, metadata={"words": json.dumps(words)})

    @classmethod
    def load(cls, path: str | Path, encoder: TextEncoder | None = None) -> Reasoner:
        """Reads what :meth:`save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            words = json.loads(file.metadata()["words"])
            tensors = {name: file.get_tensor(name) for name in ("vectors", "labels", "places", "counts")}
        labels, places = tensors["labels"].long(), tensors["places"].long()
        counts = torch.zeros(len(words["names"]), len(words["slots"]), max(map(len, words["slots"])))
        counts[places.unbind(1)] = tensors["counts"].float()
        return cls(words["prompts"], tensors["vectors"], labels, words["names"], words["slots"], counts, encoder)


def clauses(text: str) -> list[str]:
    """The clauses of "A person Xs while Y-ing" or "A person Xs and Ys" as sentences of their own; [text] for one clause."""
    body = text.strip().rstrip(".")
    if matched := re.fullmatch(r"(.+?)\s+while\s+(?!being\b)(\w+ing\b.*)", body, re.IGNORECASE):
        first, second = matched.groups()
        return [f"{first}.", f"{_subject(first)} is {second}."]
    if matched := re.fullmatch(rf"(.+?)\s+and\s+(?:then\s+)?({VERB}.*)", body, re.IGNORECASE):
        first, second = matched.groups()
        return [f"{first}.", f"{_subject(first)} {second}."]
    return [text]


def _subject(clause: str) -> str:
    """The words before the verb, "A person" where that cannot be told."""
    matched = re.match(rf"((?:\w+\s+)?\w+?)\s+{VERB}", clause)
    return matched.group(1) if matched else "A person"


def accuracy(reasoner: Reasoner, motions: MotionTexts) -> dict[str, float]:
    """How right the reasoner is about clips it does not know, against what the annotator says of their motion.

    Args:
        reasoner: trained on other clips.
        motions: held-out clips, of which the first prompt is asked.

    Returns:
        "groups" and "interactions": shares of sentences that are the oracle's; the same for always saying the most frequent
        sentence ("..., most frequent"); "valid": share with every key there and not empty; "mirrored": share of texts
        whose mirror image gets the mirrored sentences.
    """
    asked = [said[0] for said in motions.prompts]
    found, reflected = reasoner.reason(asked), reasoner.reason([mirrored_words(text) for text in asked])
    usual = [slot[int(place)] for slot, place in zip(reasoner.slots, reasoner.base.argmax(-1), strict=True)]
    oracle = [(*inner, *outer) for inner, outer in zip(motions.groups, motions.interactions, strict=True)]
    right = torch.tensor(
        [[a == b for a, b in zip(one.sentences, own, strict=True)] for one, own in zip(found, oracle, strict=True)]
    )
    guessed = torch.tensor([[a == b for a, b in zip(usual, own, strict=True)] for own in oracle])
    partners, split = mirrored_slots().tolist(), len(GROUPS)
    pairs = zip(found, reflected, strict=True)
    same = [tuple(mirrored_words(b.sentences[slot]) for slot in partners) == a.sentences for a, b in pairs]
    share = lambda table: float(table.double().mean())
    return {
        "groups": share(right[:, :split]),
        "interactions": share(right[:, split:]),
        "groups, most frequent": share(guessed[:, :split]),
        "interactions, most frequent": share(guessed[:, split:]),
        "valid": share(torch.tensor([all(one.sentences) and len(one.sentences) == len(SLOT_KEYS) for one in found])),
        "mirrored": share(torch.tensor(same)),
    }
