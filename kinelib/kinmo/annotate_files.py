"""Puts motion files into words: the function behind ``python -m kinelib annotate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kinelib.bodies.motion_files import load_motion
from kinelib.kinmo.annotate import annotate_motions
from kinelib.kinmo.keyframes import KeyframeFinder
from kinelib.kinmo.records import Record, write_records


def annotate_files(
    sources: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    texts: Sequence[str] = (),
    keyframes: bool = False,
    overwrite: bool = False,
) -> list[Record]:
    """Describes motion files by rules: six groups, fifteen pairs and, if wanted, keyframes of each.

    Args:
        sources: .npz, .bvh or a robot's .csv files, of any skeleton that names its groups.
        out: .jsonl (or .jsonl.gz) file of records, a line each; None writes nothing.
        texts: global descriptions, the same for all files.
        keyframes: find them too; needs the sentence encoder.
        overwrite: replace an existing file.

    Raises:
        ValueError: without a file, for a motion of less than 3 frames, or a skeleton that lacks parts.
        FileExistsError: when `out` exists and `overwrite` is off; nothing is read then.
        FileNotFoundError: when there is no such motion.
    """
    if not sources:
        raise ValueError("name at least one motion file to put into words.")
    if out is not None and Path(out).exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another name or allow overwriting.")
    motions = [load_motion(source) for source in sources]
    names, finder = [Path(source).stem for source in sources], KeyframeFinder() if keyframes else None
    records = annotate_motions(motions, [tuple(texts)] * len(motions), names=names, keyframes=finder)
    if out is not None:
        write_records(out, records)
    return records
