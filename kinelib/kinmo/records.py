"""`Record`: what one clip is said to do, as a whole, group by group and pair by pair (KinMo, Section 3).

    texts         the global descriptions, as a data set has them
    groups        six sentences, one a kinematic group, keys in the order of `GROUPS`
    interactions  fifteen sentences, one a pair of groups, keys "torso|neck", ... in the order of `PAIRS`
    keyframes     (frame, pose caption) of the frames whose poses tell the clip

The order of keys is fixed because it is the order of tokens in the aligner and in the reasoner. The paper's files are not
published, so the layout on disk is ours: one JSON object a line, with the version of its schema. Sentences come from
rules by default and not from GPT-4o-mini (assumption A12); `provenance` says which wrote them.

A mirrored clip says the mirrored things: `Record.mirrored` exchanges left and right in keys and in words, and gives what
the rules would say of the mirrored motion. `paraphrased` says the same in other words and `dropped` leaves sentences out,
both drawn from a seed, because a model trained on one wording a meaning learns the wording (both commute with mirroring).
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kinelib.bodies.procedural_words import mirrored_words
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.groups import PAIR_KEYS, PAIRS, pair_key
from kinelib.learning.files import written_whole

SCHEMA = "kinmo-record/1"
LONGEST = 200  # characters of a sentence: the aligner's text encoder reads about 30 word pieces
SAID_OF = {
    "torso": "the torso",
    "neck": "the head",
    "left_arm": "the left arm",
    "right_arm": "the right arm",
    "left_leg": "the left leg",
    "right_leg": "the right leg",
}


def _neutral() -> dict[str, str]:
    said = {group: f"{name[0].upper()}{name[1:]} keeps still." for group, name in SAID_OF.items()}
    for g, h in PAIRS:
        twins = mirrored_words(g) == h  # named without an order, so that the sentence is its own mirror image
        what = f"both {g.split('_')[1]}s" if twins else f"{SAID_OF[g]} and {SAID_OF[h]}"
        said[pair_key(g, h)] = f"Nothing changes between {what}."
    return said


NEUTRAL = _neutral()  # of groups and pairs that do nothing

# Phrases that mean the same; the rules use the first of each row. No row holds left or right, so that mirroring commutes.
WORDINGS: tuple[tuple[str, ...], ...] = (
    ("is raised", "goes up", "is lifted", "rises"),
    ("waves", "swings from side to side", "makes a waving movement"),
    ("hangs at the side", "stays down at the side", "rests beside the body"),
    ("swings back and forth", "swings to and fro", "moves back and forth"),
    ("stands still", "stays planted", "stays put"),
    ("takes", "makes"),
    ("moves forward", "goes forward", "travels forward"),
    ("moves backward", "goes backward", "travels backward"),
    ("turns", "rotates"),
    ("stays in place", "remains where it is", "keeps its place"),
    ("slowly", "at a slow pace"),
    ("quickly", "at a fast pace"),
    ("bends forward", "leans forward", "tips forward"),
    ("is held upright", "stays upright", "is kept straight"),
    ("looks down", "is lowered", "is bent down"),
    ("keeps still", "does nothing", "stays as it is"),
    ("Nothing changes", "Nothing happens", "There is no change"),
    ("in turn", "alternately", "one after the other"),
    ("at the same time", "together", "simultaneously"),
    ("comes closer to", "gets nearer to"),
    ("stays far below", "remains well below"),
    ("stays close to", "remains near"),
)


class RecordError(ValueError):
    """A record is not what the schema asks for; the message names the file, the line and the key."""


@dataclass(frozen=True)
class Record:
    """What a clip is said to do.

    Args:
        name: of the clip.
        fps: frames a second, above 0.
        start, end: the frames described, `end` not included.
        texts: global descriptions, any number.
        groups: group -> sentence, all of `GROUPS`; "" where nothing is said.
        interactions: pair key -> sentence, all of `PAIR_KEYS`; "" where nothing is said.
        keyframes: (frame, caption), frames rising and within `start` to `end` - 1.
        provenance: who wrote the sentences and from what; JSON values.

    Raises:
        RecordError: for missing or unknown keys, sentences that are not strings or too long, or frames out of range.
    """

    name: str
    fps: float
    start: int
    end: int
    texts: tuple[str, ...]
    groups: dict[str, str]
    interactions: dict[str, str]
    keyframes: tuple[tuple[int, str], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        of = f"record {self.name!r}"
        if not isinstance(self.name, str) or not (isinstance(self.fps, (int, float)) and 0 < self.fps < math.inf):
            raise RecordError(f"{of}: the name is a string and fps a number above 0; got {self.name!r} and {self.fps!r}.")
        if not (isinstance(self.start, int) and isinstance(self.end, int) and 0 <= self.start < self.end):
            raise RecordError(f"{of}: start and end are frames, 0 <= start < end; got {self.start!r} and {self.end!r}.")
        for what, table, keys in (("groups", self.groups, GROUPS), ("interactions", self.interactions, PAIR_KEYS)):
            check_keys(f"{of}, {what}", table, keys)
            for key in keys:
                check_sentence(f"{of}, {what}[{key!r}]", table[key])
            object.__setattr__(self, what, {key: table[key] for key in keys})
        if isinstance(self.texts, str):
            raise RecordError(f"{of}: texts are several descriptions; pass ({self.texts!r},).")
        object.__setattr__(self, "texts", tuple(self.texts))
        for text in self.texts:
            if not isinstance(text, str) or not text.strip():
                raise RecordError(f"{of}: a global text must be a sentence; got {text!r}.")
        object.__setattr__(self, "keyframes", tuple((frame, text) for frame, text in self.keyframes))
        frames = [frame for frame, _ in self.keyframes]
        if frames != sorted(set(frames)) or any(not self.start <= frame < self.end for frame in frames):
            raise RecordError(f"{of}: keyframes rise from {self.start} to {self.end - 1} at most; got {frames}.")

    @property
    def sentences(self) -> tuple[str, ...]:
        """The six and the fifteen sentences in their order."""
        return (*self.groups.values(), *self.interactions.values())

    def mirrored(self) -> Record:
        """The record of the clip as seen in a mirror; twice is the record itself."""
        return replace(
            self,
            texts=tuple(map(mirrored_words, self.texts)),
            groups={key: mirrored_words(self.groups[mirrored_words(key)]) for key in GROUPS},
            interactions={key: mirrored_words(self.interactions[mirrored_key(key)]) for key in PAIR_KEYS},
            keyframes=tuple((frame, mirrored_words(text)) for frame, text in self.keyframes),
            provenance={k: v for k, v in self.provenance.items() if k != "mirrored"}
            | ({} if self.provenance.get("mirrored") else {"mirrored": True}),
        )

    def paraphrased(self, seed: int) -> Record:
        """The same in other words of `WORDINGS`; texts and keyframes stay as they are.

        Args:
            seed: draws the wordings; equal seeds give equal records.
        """
        return self._with_sentences(lambda key, sentence: _reworded(sentence, seed))

    def dropped(self, share: float, seed: int) -> Record:
        """The record with sentences left out ("").

        Args:
            share: of the 21 sentences that is left out, on average, in [0, 1].
            seed: draws which.

        Raises:
            ValueError: for a share out of range.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"the share of sentences left out is in [0, 1]; got {share}.")
        # A sentence and its mirror image share a lot, so that dropping and mirroring commute.
        return self._with_sentences(lambda key, sentence: "" if _lot(seed, sentence, key) < share else sentence)

    def _with_sentences(self, change) -> Record:
        return replace(
            self,
            groups={key: change(key, sentence) for key, sentence in self.groups.items()},
            interactions={key: change(key, sentence) for key, sentence in self.interactions.items()},
        )

    def to_json(self) -> str:
        """One line of JSON."""
        content = {
            "schema": SCHEMA,
            "name": self.name,
            "fps": self.fps,
            "start": self.start,
            "end": self.end,
            "texts": list(self.texts),
            "groups": self.groups,
            "interactions": self.interactions,
            "keyframes": [{"frame": frame, "text": text} for frame, text in self.keyframes],
            "provenance": self.provenance,
        }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Reads what :meth:`to_json` wrote.

        Raises:
            RecordError: for anything else; the message names the key.
        """
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(f"a record is one JSON object a line; {error}.") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else type(content).__name__
            raise RecordError(f"this reads records of schema {SCHEMA!r}; found {found!r}. Write them again with annotate.")
        check_keys("a record", content, ("schema", *cls.__dataclass_fields__))
        del content["schema"]
        frames = content.pop("keyframes")
        if not isinstance(frames, list) or any(not isinstance(one, dict) or set(one) != {"frame", "text"} for one in frames):
            raise RecordError('keyframes are a list of {"frame": ..., "text": ...}.')
        return cls(**content, keyframes=tuple((one["frame"], one["text"]) for one in frames))


def check_keys(what: str, table: Any, keys: Iterable[str]) -> None:
    """Raises RecordError unless `table` is a mapping with exactly these keys; the message names those that differ."""
    if not isinstance(table, Mapping):
        raise RecordError(f"{what} must map keys to sentences; got {type(table).__name__}.")
    wanted = tuple(keys)
    missing, unknown = [k for k in wanted if k not in table], sorted(str(k) for k in table if k not in wanted)
    if missing or unknown:
        lacks = f" lacks {', '.join(missing)}" if missing else ""
        has = f" has unknown {', '.join(unknown)}" if unknown else ""
        raise RecordError(f"{what}:{lacks}{' and' if lacks and has else ''}{has}.")


def check_sentence(what: str, sentence: Any, *, empty: bool = True) -> None:
    """Raises RecordError unless `sentence` is a string of at most `LONGEST` characters on one line."""
    if not isinstance(sentence, str):
        raise RecordError(f"{what} must be a sentence; got {type(sentence).__name__}.")
    if len(sentence) > LONGEST or "\n" in sentence:
        raise RecordError(f"{what} must be one line of at most {LONGEST} characters; got {len(sentence)}.")
    if not empty and not sentence.strip():
        raise RecordError(f"{what} is empty.")


def mirrored_key(key: str) -> str:
    """The pair seen in a mirror: "torso|left_arm" gives "torso|right_arm"; the order of groups is kept."""
    return "|".join(sorted(map(mirrored_words, key.split("|")), key=GROUPS.index))


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records as lines of JSON, whole or not at all; a name that ends in .gz is compressed."""
    text = "".join(record.to_json() + "\n" for record in records)
    with written_whole(path) as sibling:
        packed = gzip.compress(text.encode(), mtime=0) if str(path).endswith(".gz") else text.encode()
        sibling.write_bytes(packed)


def read_records(path: str | Path) -> list[Record]:
    """Reads a file of records.

    Raises:
        FileNotFoundError: when there is none. RecordError: for a line that is no record; the message names it.
    """
    path = Path(path)
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                records.append(Record.from_json(line))
            except RecordError as error:
                raise RecordError(f"{path}, line {number}: {error}") from error
    return records


def shipped_records() -> list[Record]:
    """The records of 180 procedural clips (seed 7) that ship with the repository.

    Raises:
        FileNotFoundError: where the repository's data folder is not at hand.
    """
    return read_records(Path(__file__).resolve().parents[2] / "data" / "samples" / "kinmo_records.jsonl")


def _lot(seed: int | str, sentence: str, key: str = "") -> float:
    """A number in [0, 1) that depends on the seed, the words and the key, and is the same for their mirror image."""
    images = (f"{key}/{sentence}", f"{mirrored_key(key) if key else key}/{mirrored_words(sentence)}")
    return zlib.crc32(f"{seed}/{min(images)}".encode()) / 2**32


def _reworded(sentence: str, seed: int) -> str:
    for row in WORDINGS:
        if row[0] in sentence:
            sentence = sentence.replace(row[0], row[int(_lot(f"{seed}/{row[0]}", sentence) * len(row))])
    return sentence
