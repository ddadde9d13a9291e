"""Trains the evaluator of `kinelib.bodies.evaluator` on the clips of the denoisers, and measures it on held-out ones.

python -m kinelib train kimodo --stage evaluator
"""

from __future__ import annotations

from pathlib import Path

from kinelib.bodies.evaluator_training import EvaluatorData, train_evaluator
from kinelib.kimodo.data import TRAIN_SEED, MotionSet
from kinelib.learning.fit import FitResult


def train_evaluator_stage(train: MotionSet, test: MotionSet, out: Path, *, cache: Path | None, **options) -> FitResult:
    """Trains an evaluator and saves its checkpoint in `out`/evaluator.

    Args:
        train, test: clips to learn from, and clips to measure on.
        out: folder of the checkpoints.
        cache: folder of embedded prompts.
        options: steps, seconds, seed, resume, overwrite, as of `train_evaluator`.
    """
    own = sorted({source for source in train.sources if source != "procedural"})
    made = train.sources.count("procedural")
    counts = [f"{train.sources.count(source)} clips of {source}" for source in own]
    source = " and ".join([*counts, f"{made} procedural clips (kinelib.bodies.procedural, seed {TRAIN_SEED})"])
    licence = "CC BY-NC 4.0, since the captured clips are under it." if own else "MIT."
    data = lambda motions: EvaluatorData(motions.frames, motions.lengths, motions.prompts, motions.labels)
    _, result = train_evaluator(data(train), data(test), out, source=source, licence=licence, cache=cache, **options)
    return result
