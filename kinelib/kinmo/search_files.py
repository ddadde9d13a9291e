"""Looks clips up by words or by a motion file: the function behind ``python -m kinelib retrieve``."""

from __future__ import annotations

from pathlib import Path

from kinelib.bodies.humanml3d import FPS
from kinelib.bodies.motion_files import load_motion, save_motion
from kinelib.bodies.retarget import retarget
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kinmo.data import training_set
from kinelib.kinmo.pretrained import load_aligner, load_reasoner
from kinelib.kinmo.search import Hit, MotionIndex

GALLERY = 192  # procedural clips that no training saw


def retrieve_motions(
    text: str = "",
    *,
    motion: str | Path | None = None,
    count: int = 5,
    captured: str | Path | None = None,
    cache: str | Path | None = None,
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> tuple[list[Hit], int]:
    """The clips nearest to a sentence or to a motion, among held-out procedural clips and, if given, held-out captured ones.

    Args:
        text: what is looked for in words, or
        motion: a motion file; exactly one of the two.
        count: clips to return, at least 1.
        captured: folder of Bandai-Namco's clips; None leaves them out.
        cache: folder of the clips' features, made once; None makes them anew.
        checkpoint: folder of an aligner and its reasoner; default: the shipped ones.
        out: .npz, .bvh or .glb of the nearest clip; None writes nothing.
        overwrite: replace an existing file.

    Returns:
        the clips, nearest first, and how many were searched.

    Raises:
        ValueError: with both a text and a motion, or neither. FileExistsError: when `out` exists and `overwrite` is off.
    """
    if bool(text.strip()) == (motion is not None):
        raise ValueError("say what you are looking for, or name a motion file: exactly one of the two.")
    if out is not None and Path(out).exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another name or allow overwriting.")
    asked = None if motion is None else retarget(load_motion(motion), SMPLX22).resampled(FPS)
    clips = training_set(captured, GALLERY, cache, part="test")
    index = MotionIndex.of(load_aligner(folder=checkpoint), clips, load_reasoner(checkpoint))
    hits = index.by_text(text, count) if asked is None else index.by_motion(asked, count)
    if out is not None:
        save_motion(index.motion(hits[0].row), out)
    return hits, len(clips)
