"""What a notebook calls around its lesson, from ``start`` in its first cell to ``record`` in its last.

    from kinelib import course
    cfg = course.start("03_track_autoencoder", profile, seed, steps=steps)
    ...
    course.expect(error, between=(0, 3.0), why="pixels between decoded and true tracks")
    course.save_figure(fig, "reconstruction")
    course.record({"error_px": error})

Importing it is instant. The runner (``kinelib.course.runner``) and the environment check (``kinelib.course.check``)
are separate.
"""

from kinelib.course.artefacts import load_or_train
from kinelib.course.expectations import ExpectationError, exercise, expect
from kinelib.course.figures import save_figure
from kinelib.course.lesson import Lesson, current, metrics_of, record, start
from kinelib.course.reading import show_source

__all__ = [
    "ExpectationError",
    "Lesson",
    "current",
    "exercise",
    "expect",
    "load_or_train",
    "metrics_of",
    "record",
    "save_figure",
    "show_source",
    "start",
]
