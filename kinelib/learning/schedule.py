"""The learning rate as a function of progress, and the clock that measures progress in training seconds.

Progress runs from 0 to 1, over a number of steps or over a time budget; the rate is a plain function of it, set by
`fit` before every update. There is no scheduler object to be stepped, so nothing is multiplied by the number of
processes (a scheduler prepared by Accelerate advances once a process) and a resumed run needs no scheduler state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

CONTINUED = 0.3  # of the peak, where training starts from earlier weights: the whole peak first undoes what they learnt


def learning_rate_factor(progress: float, warmup: float, final: float) -> float:
    """Linear warm-up from 0 to 1, then half a cosine from 1 down to ``final``.

    Args:
        progress: share of the training that is done; values outside [0, 1] are clamped.
        warmup: share of the training spent warming up, in [0, 1).
        final: the factor at progress 1, in [0, 1].

    Returns:
        the number to multiply the peak learning rate with, in [0, 1].
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return progress / warmup
    descent = (progress - warmup) / (1 - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * descent))


class Stopwatch:
    """Seconds of training: a monotonic clock that continues across resumes and stands still while paused."""

    def __init__(self, seconds: float = 0.0):
        """Starts at ``seconds``, the training time a resumed run has already used."""
        self._before = seconds
        self._started: float | None = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training seconds so far, those before a resume included."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves whatever happens inside (validation, saving) out of the training time."""
        self._before, self._started = self.seconds, None
        try:
            yield
        finally:
            self._started = time.monotonic()
