"""Motion in, record out: the default annotator, by rules, deterministic and free (assumption A12).

    record = annotate(motion, texts=("A person waves.",))
    records = annotate_clips(clips, cache="runs/records")

Clips are measured together, those of like length side by side; sentences are then a matter of microseconds. Keyframes need
the sentence encoder and are made where they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from kinelib.bodies.clips import Clip
from kinelib.bodies.motion import Motion
from kinelib.kinmo.motion_signs import Signs, measure_signs
from kinelib.kinmo.motion_words import group_sentences
from kinelib.kinmo.pair_words import pair_sentences
from kinelib.kinmo.pose_words import DEFAULT, Limits, padded
from kinelib.kinmo.records import Record, RecordError, read_records, write_records
from kinelib.learning.code_version import code_hash

AT_ONCE = 64  # clips measured together
MADE_BY = ("groups", "records", "pose_words", "motion_signs", "motion_words", "pair_words", "keyframes", "annotate")
MEASURED_BY = ("truth", "truth_measures", "kinematics", "skeleton", "procedural_words")


def annotate(
    motion: Motion, texts: Sequence[str] = (), *, name: str = "", keyframes=None, limits: Limits = DEFAULT
) -> Record:
    """Puts one motion into words.

    Args:
        motion: at least 3 frames, of a skeleton that names hips, feet, hands and groups.
        texts: global descriptions that come with it.
        name: of the record; "" takes the motion's own name or seed from its provenance.
        keyframes: a `keyframes.KeyframeFinder`; None leaves keyframes out.
        limits: where one word ends and the next begins.

    Raises:
        ValueError: for a motion that is too short, or a skeleton that lacks parts.
    """
    return annotate_motions([motion], [tuple(texts)], names=[name], keyframes=keyframes, limits=limits)[0]


def annotate_clips(
    clips: Sequence[Clip], cache: str | Path | None = None, *, keyframes=None, limits: Limits = DEFAULT
) -> list[Record]:
    """Puts clips into words; their prompts are the records' global texts.

    Args:
        clips: any number.
        cache: folder of a file of records, named after the motions and the code that describes them; None keeps nothing.
        keyframes, limits: as for :func:`annotate`.

    Raises:
        ValueError: as :func:`annotate`; the message names the clip.
    """
    motions, texts = [clip.motion for clip in clips], [clip.prompts for clip in clips]
    names = [f"{clip.content}/{clip.style}/{clip.take}" for clip in clips]
    if cache is None or not clips:
        return annotate_motions(motions, texts, names=names, keyframes=keyframes, limits=limits)
    digest = hashlib.sha256(repr((code_version(), limits, repr(keyframes), names, texts)).encode())
    for motion in motions:
        digest.update(motion.rotations.detach().cpu().contiguous().numpy().tobytes())
        digest.update(motion.root.detach().cpu().contiguous().numpy().tobytes())
    path = Path(cache) / f"records-{digest.hexdigest()[:16]}.jsonl.gz"
    if path.is_file():
        try:
            return read_records(path)
        except (RecordError, OSError, EOFError, UnicodeDecodeError):
            path.unlink()  # damaged; made again below
    records = annotate_motions(motions, texts, names=names, keyframes=keyframes, limits=limits)
    write_records(path, records)
    return records


def annotate_motions(
    motions: Sequence[Motion],
    texts: Sequence[Sequence[str]] | None = None,
    *,
    names: Sequence[str] | None = None,
    keyframes=None,
    limits: Limits = DEFAULT,
) -> list[Record]:
    """Puts motions into words, as :func:`annotate` does one.

    Args:
        motions: of any lengths, skeletons and frame rates.
        texts: global descriptions of each; None: none.
        names: of the records; None or "": taken from the motions' provenance.
        keyframes, limits: as for :func:`annotate`.
    """
    measured = signs_of(motions, limits)
    found = keyframes.find(motions) if keyframes is not None else [()] * len(motions)
    provenance = {"annotator": "rules", "code": code_version()}
    return [
        Record(
            name=(names[row] if names else "") or _name(motion),
            fps=float(motion.fps),
            start=0,
            end=len(motion),
            texts=tuple(texts[row]) if texts else (),
            groups=group_sentences(measured[row], limits),
            interactions=pair_sentences(measured[row], limits),
            keyframes=tuple(found[row]),
            provenance=dict(provenance),
        )
        for row, motion in enumerate(motions)
    ]


def signs_of(motions: Sequence[Motion], limits: Limits = DEFAULT) -> list[Signs]:
    """What motions show, in their order; those of one skeleton, frame rate and like length are measured together.

    Raises:
        ValueError: for a motion of less than 3 frames, or a skeleton that lacks parts.
    """
    for number, motion in enumerate(motions):
        if len(motion) < 3:
            raise ValueError(f"motion {number} ({_name(motion)}) has {len(motion)} frames; words for it need at least 3.")
    order = sorted(range(len(motions)), key=lambda row: (motions[row].skeleton.name, motions[row].fps, len(motions[row])))
    found: dict[int, Signs] = {}
    while order:
        first = motions[order[0]]
        alike = lambda row, first=first: motions[row].skeleton.name == first.skeleton.name and motions[row].fps == first.fps
        rows = [row for row in order[:AT_ONCE] if alike(row)]
        order = order[len(rows) :]
        with torch.no_grad():
            positions, lengths = padded([motions[row] for row in rows])
            found |= zip(rows, measure_signs(positions, lengths, first.fps, first.skeleton, limits), strict=True)
    return [found[row] for row in range(len(motions))]


def _name(motion: Motion) -> str:
    facts = motion.provenance
    return str(facts.get("name") or facts.get("seed") or "motion")


@lru_cache(maxsize=1)
def code_version() -> str:
    """A short hash of the rules and of what they measure with; comments and docstrings do not count."""
    import kinelib.bodies

    here, bodies = Path(__file__).parent, Path(kinelib.bodies.__file__).parent
    return code_hash([*(here / f"{name}.py" for name in MADE_BY), *(bodies / f"{name}.py" for name in MEASURED_BY)])
