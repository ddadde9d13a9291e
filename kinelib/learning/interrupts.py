"""Signals that ask a training to stop, turned into a wish it looks at between two steps.

Schedulers send SIGTERM before they take a machine away, and a reader presses Ctrl-C or the notebook's stop button
(SIGINT). Dying at once would lose the work since the last saved state.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
    """Yields a list that fills with the SIGTERM and SIGINT received; a second one of a kind acts as it usually does.

    Outside the main thread, where Python delivers no signals, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    # None stands for a handler that was not installed from Python and cannot be put back.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])

    try:
        for number in before:
            signal.signal(number, remember)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
