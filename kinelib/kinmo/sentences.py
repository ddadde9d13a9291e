"""A bank of sentences: each different one embedded once, with the row of its mirror image.

KinMo reads frozen features of its texts (Section 4 of the paper: RoBERTa or DistilBERT). Here every sentence is one vector
of MiniLM, which networks read whitened (`learning/whitening.py`).

Shapes: U different sentences, C = 384 channels.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kinelib.bodies.procedural_words import mirrored_words
from kinelib.learning.files import written_whole
from kinelib.learning.text import WIDTH, TextEncoder
from kinelib.notation import check_shape

AT_ONCE = 128  # sentences embedded together


class SentenceBank:
    """Sentences by number.

    Args:
        sentences: U different ones.
        vectors: (U, C) of length 1.

    Raises:
        ShapeError: when there is not one vector a sentence. ValueError: when a sentence repeats.
    """

    def __init__(self, sentences: Sequence[str], vectors: Tensor) -> None:
        check_shape("vectors", vectors, "U C", U=len(sentences))
        self.sentences = tuple(sentences)
        self.numbers = {sentence: row for row, sentence in enumerate(self.sentences)}
        if len(self.numbers) != len(self.sentences):
            raise ValueError("a sentence stands twice in the bank.")
        self.nothing = len(self.sentences)  # the row of no text, a vector of zeros
        self.vectors = torch.cat([vectors.float(), torch.zeros(1, vectors.shape[1])])
        mirrored = [self.numbers.get(mirrored_words(one), self.nothing) for one in self.sentences]
        self.reflected = torch.tensor([*mirrored, self.nothing])  # (U + 1,) rows of the mirror images

    def __len__(self) -> int:
        return len(self.sentences)

    def rows(self, sentences: Sequence[str]) -> Tensor:
        """Numbers of sentences that are in the bank together with their mirror images; "" is no text.

        Raises:
            ValueError: for a sentence, or the mirror image of one, that is not in the bank.
        """
        known = self.numbers | {"": self.nothing}
        for sentence in dict.fromkeys(sentences):
            if sentence not in known or mirrored_words(sentence) not in known:
                raise ValueError(f"{sentence!r} or its mirror image has no vector; embed it first (`sentence_bank`).")
        return torch.tensor([known[sentence] for sentence in sentences], dtype=torch.long)


def sentence_bank(
    sentences: Sequence[str], encoder: TextEncoder | None = None, cache: str | Path | None = None
) -> SentenceBank:
    """A bank of sentences and their mirror images.

    Args:
        sentences: any number, repetitions allowed; "" is left out.
        encoder: what embeds them; None: MiniLM.
        cache: folder with one file of everything embedded so far, to which new sentences are added; None keeps nothing.
    """
    encoder = TextEncoder() if encoder is None else encoder
    different = sorted({one for said in sentences if said for one in (said, mirrored_words(said))})
    path = None if cache is None else Path(cache) / f"sentences-{encoder.sha256[:12]}.safetensors"
    known, vectors = _read(path)
    numbers = {sentence: row for row, sentence in enumerate(known)}
    new = sorted((one for one in different if one not in numbers), key=len)  # of like length together: little padding
    if new:
        found = [encoder.embed(new[first : first + AT_ONCE]).cpu() for first in range(0, len(new), AT_ONCE)]
        known, vectors = [*known, *new], torch.cat([vectors.to(found[0]), *found])
        numbers |= {sentence: row for row, sentence in enumerate(known)}
        if path is not None:
            _write(path, known, vectors)
    return SentenceBank(different, vectors[[numbers[one] for one in different]])


def _read(path: Path | None) -> tuple[list[str], Tensor]:
    from safetensors import SafetensorError, safe_open

    if path is not None and path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                known, vectors = json.loads(file.metadata()["sentences"]), file.get_tensor("vectors")
            if len(known) == len(vectors):
                return known, vectors
            warnings.warn(f"{path} is damaged; its sentences are embedded again.", stacklevel=3)
        except (SafetensorError, ValueError, KeyError) as error:
            warnings.warn(f"{path} is damaged ({error}); its sentences are embedded again.", stacklevel=3)
    return [], torch.zeros(0, WIDTH)


def _write(path: Path, known: list[str], vectors: Tensor) -> None:
    from safetensors.torch import save_file

    with written_whole(path) as writing:
        save_file({"vectors": vectors.contiguous()}, writing, metadata={"sentences": json.dumps(known)})
