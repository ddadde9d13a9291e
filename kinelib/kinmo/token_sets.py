"""What the generator is trained on: the codes of every clip and its mirror image, and its words as the aligner reads them.

Tokenizer and aligner are frozen, so both are worked out once, and a training step is the transformer alone. Of every clip a
few *readings* are kept: a wording, in the mirror or not, with the sentences of the annotator or those of the reasoner (which
is what it will read later), some of them left out. To the clips some exchanges can be added (`exchange`).

Shapes: N clips, R readings of each, B clips of a batch, L times, G streams, Q codebooks, V levels, C channels; U sentences
of S numbers.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.coarse_to_fine import read_texts
from kinelib.kinmo.codec import mirrored
from kinelib.kinmo.data import Batches, MotionTexts
from kinelib.kinmo.exchange import draw_exchanges, exchanged_codes, exchanged_slots
from kinelib.kinmo.masked import Conditions, conditions
from kinelib.kinmo.sentences import SentenceBank
from kinelib.kinmo.tokens import STRIDE, MotionTokenizer
from kinelib.learning.files import written_whole

if TYPE_CHECKING:
    from kinelib.kinmo.aligner import HierarchicalAligner

AT_ONCE = 256  # clips encoded together
CLASSES = 8  # of clips by length
LAYOUT = 2  # of the cached tensors; what an earlier one cached is made again


@dataclass(frozen=True, eq=False)
class TokenSet:
    """N clips as tokens with R readings each; those with an odd number are of the mirror image."""

    codes: Tensor  # (2 N, L, G, Q) int16, clips and then their mirror images, 0 beyond the end
    lengths: Tensor  # (N,) times
    means: Tensor  # (N, R, V, C) float16
    states: Tensor  # (N, R, V - 1, 6, C) float16
    said: Tensor  # (N, R, 7) int32, rows of `sentences`, what is said of the whole and of every group
    sentences: Tensor  # (U, S) float16, the last row zeros; S = 0 without an aligner
    odds: Tensor  # (N,) float64, how often a clip is drawn

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: Tensor, readings: Tensor) -> dict:
        """A batch of clips (B,) in readings (B,): "codes" (B, L, G, Q), "lengths" (B,), "words" of the last level."""
        lengths = self.lengths[rows]
        codes = self.codes[rows + len(self) * (readings % 2), : int(lengths.max())].long()
        said = self.sentences[self.said[rows, readings].long()].float()
        words = conditions(self.means[rows, readings].float(), self.states[rows, readings].float(), said=said)
        return {"codes": codes, "lengths": lengths, "words": words}


def token_set(
    motions: MotionTexts,
    bank: SentenceBank,
    tokenizer: MotionTokenizer,
    aligner: HierarchicalAligner | None,
    *,
    predicted: Tensor | None = None,
    predicted_share: float = 0.5,
    dropped: float = 0.1,
    readings: int = 8,
    captured_share: float | None = None,
    exchanges: int = 0,
    exchanged_share: float = 0.25,
    seed: int = 0,
    cache: str | Path | None = None,
) -> TokenSet:
    """Encodes clips and words.

    Args:
        motions: N clips, of which the first five seconds count. bank: with their sentences.
        tokenizer, aligner: trained; without an aligner the one level is the flat sentence vector itself.
        predicted: (N, W, 21) rows of the bank, what the reasoner says of every wording; None: the annotator alone.
        predicted_share: of readings with the reasoner's sentences.
        dropped: share of group and interaction sentences left out.
        readings: R, at least 2.
        captured_share: of draws from clips that are not procedural, where there are both; None: as there are clips.
        exchanges: how many clips with another clip's arms are added, at most; they are of single groups' streams only.
        exchanged_share: of draws from these.
        seed: of the readings and exchanges.
        cache: folder of what is made already, named by all of this; None keeps nothing.
    """
    if readings < 2:
        raise ValueError(f"a clip needs two readings at least, one of its mirror image; got {readings}.")
    if exchanges and (aligner is None or len(tokenizer.config.groups) == 1):
        raise ValueError("exchanges need an aligner that reads groups' sentences, and a tokenizer with streams='groups'.")
    drawn = draw_exchanges(motions, exchanges, torch.Generator().manual_seed(seed))
    make = lambda: _make(motions, bank, tokenizer, aligner, predicted, predicted_share, dropped, readings, seed, drawn)
    name = [LAYOUT, _digest(motions.frames), _digest(bank.vectors), _weights(tokenizer), aligner and _weights(aligner)]
    name += [predicted is not None and _digest(predicted), predicted_share, dropped, readings, seed, *map(_digest, drawn)]
    parts = make() if cache is None else _cached(Path(cache), json.dumps(name), make)
    odds = _odds(motions.sources, captured_share)
    if more := len(drawn[0]):
        odds = torch.cat([(1 - exchanged_share) * odds, odds.new_full((more,), exchanged_share / more)])
    return TokenSet(**parts, odds=odds)


def draw_tokens(motions: TokenSet, batch: int) -> Callable[[torch.Generator], dict]:
    """What `fit` draws: clips of similar lengths, each in one of its readings."""
    order = motions.lengths.argsort(stable=True)
    classes = [part for part in order.tensor_split(min(CLASSES, len(order))) if motions.odds[part].sum() > 0]
    weights = torch.stack([motions.odds[part].sum() for part in classes])

    def draw(generator: torch.Generator) -> dict:
        part = classes[int(torch.multinomial(weights, 1, generator=generator))]
        rows = part[torch.multinomial(motions.odds[part], batch, replacement=True, generator=generator)]
        return motions.take(rows, torch.randint(motions.means.shape[1], (batch,), generator=generator))

    return draw


@torch.no_grad()
def _make(
    motions: MotionTexts,
    bank: SentenceBank,
    tokenizer: MotionTokenizer,
    aligner: HierarchicalAligner | None,
    predicted: Tensor | None,
    predicted_share: float,
    dropped: float,
    readings: int,
    seed: int,
    exchanges: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:
    every = torch.arange(len(motions)).split(AT_ONCE)
    lengths = -(-motions.padded(torch.arange(len(motions)))[1] // STRIDE)
    codes = []
    for flip in (False, True):
        for rows in every:
            features, frames = motions.padded(rows)
            own = tokenizer.encode(mirrored(features) if flip else features, frames)
            codes.append(torch.nn.functional.pad(own, (0, 0, 0, 0, 0, int(lengths.max()) - own.shape[1])).short())
        whole, (bodies, arms) = torch.cat(codes[-len(every) :]), exchanges
        codes.append(exchanged_codes(whole[bodies], whole[arms], lengths[bodies], tokenizer.config.groups))
    tables = Batches(motions, bank, size=1, predicted=predicted, predicted_share=predicted_share)
    generator = torch.Generator().manual_seed(seed)
    words, rows_said = [], []
    for reading in range(readings):
        pairs = [(rows, None) for rows in every] + [*zip(*(part.split(AT_ONCE) for part in exchanges), strict=True)]
        own = [_read(tables, aligner, *pair, reading % 2 == 1, dropped, generator) for pair in pairs if len(pair[0])]
        words.append([one for one, _ in own])
        rows_said.append(torch.cat([rows for _, rows in own]).int())
    join = lambda part: torch.stack([torch.cat([getattr(one, part) for one in own]).half() for own in words], 1)
    sentences = bank.vectors.half() if aligner is not None else torch.zeros(len(bank.vectors), 0).half()
    return {
        "codes": torch.cat(codes),
        "lengths": torch.cat([lengths, lengths[exchanges[0]]]),
        "means": join("means"),
        "states": join("states"),
        "said": torch.stack(rows_said, 1),
        "sentences": sentences,
    }


def _read(
    tables: Batches,
    aligner: HierarchicalAligner | None,
    rows: Tensor,
    arms: Tensor | None,
    flip: bool,
    dropped: float,
    generator: torch.Generator,
) -> tuple[Conditions, Tensor]:
    """One reading of clips `rows`, with the arms of clips `arms`, and the bank's rows (B, 7) of the whole and of groups."""
    bank, rand = tables.bank, lambda *shape: torch.rand(*shape, generator=generator)
    wording = (rand(len(rows)) * tables.choices[rows]).long()
    said, slots = tables.wordings[rows, wording], tables.slots[rows]
    guessed = (rand(len(rows)) < tables.predicted_share)[:, None]
    if tables.predicted is not None:
        slots = torch.where(guessed, tables.predicted[rows, wording], slots)
    if arms is not None:  # no sentence is known of the whole
        theirs = tables.slots[arms]
        if tables.predicted is not None:
            theirs = torch.where(guessed, tables.predicted[arms, 0], theirs)
        said, slots = torch.full_like(said, bank.nothing), exchanged_slots(slots, theirs, bank.nothing)
    if flip:
        said, slots = bank.reflected[said], bank.reflected[slots[:, tables.partners]]
    slots = torch.where(rand(*slots.shape) < dropped, bank.nothing, slots)
    text, others = bank.vectors[said], bank.vectors[slots]
    own = torch.cat([said[:, None], slots[:, : len(GROUPS)]], 1)
    if aligner is None:
        return conditions(text[:, None]), own
    inner, outer = others[:, : len(GROUPS)], others[:, len(GROUPS) :]
    return read_texts(aligner, {"text": text, "groups": inner, "interactions": outer}), own


def _odds(sources: tuple[str, ...], captured_share: float | None) -> Tensor:
    captured = torch.tensor([source != "procedural" for source in sources])
    count = int(captured.sum())
    if captured_share is None or count in (0, len(sources)):
        return torch.full((len(sources),), 1 / len(sources), dtype=torch.float64)
    shares = torch.where(captured, captured_share / count, (1 - captured_share) / (len(sources) - count))
    return shares.double()


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def _weights(model: torch.nn.Module) -> str:
    return hashlib.sha256("".join(_digest(tensor) for tensor in model.state_dict().values()).encode()).hexdigest()[:16]


def _cached(folder: Path, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = folder / f"kinmo-tokens-{hashlib.sha256(name.encode()).hexdigest()[:20]}.safetensors"
    if path.is_file():
        try:
            found = load_file(path)
            if set(found) == {one.name for one in fields(TokenSet)} - {"odds"}:
                return found
            warnings.warn(f"{path} is not what it should be; its tokens are made again.", stacklevel=3)
        except (SafetensorError, OSError) as error:
            warnings.warn(f"{path} is damaged ({error}); its tokens are made again.", stacklevel=3)
    made = make()
    with written_whole(path) as writing:
        save_file(made, writing)
    return made
