"""One worker thread that always does the newest wish: what a canvas needs while a hand moves faster than a model samples.

Wishes have a kind and a rising number. A waiting wish is replaced by a newer one of its kind, and whatever a wish has to
report after a newer one of its kind came in is dropped. Reports are collected on the thread that owns the canvas, so that
nothing but the model ever runs here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """What one wish had to say: a value, or the error it ended with."""

    kind: str
    number: int
    value: Any = None
    error: Exception | None = None


class Latest:
    """Runs jobs on a thread of its own, the newest of each kind only.

    Args:
        wake: called on the worker thread when there is something to collect, or the last job has ended.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._changed = threading.Condition()
        self._waiting: dict[str, tuple[int, Callable]] = {}
        self._newest: dict[str, int] = {}
        self._running: str | None = None
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.dropped = 0  # wishes that never ran, or whose report came too late

    def submit(self, kind: str, number: int, job: Callable[[Callable[[Any], bool]], None]) -> None:
        """Asks for a job; returns at once.

        Args:
            kind: jobs of one kind replace each other; different kinds run in the order in which they came.
            number: of the wish; a number that is not above the newest of its kind is dropped.
            job: called with `report(value)`, which hands over a value and says whether the wish is still the newest.
        """
        with self._changed:
            if number <= self._newest.get(kind, -1):
                self.dropped += 1
                return
            self.dropped += kind in self._waiting
            self._newest[kind] = number
            self._waiting[kind] = (number, job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kinelib-latest", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def cancel(self, kind: str, number: int) -> None:
        """Forgets the wishes of a kind up to a number: one that waits never runs, one that runs reports to nobody."""
        with self._changed:
            self._newest[kind] = max(number, self._newest.get(kind, -1))
            self.dropped += self._waiting.pop(kind, None) is not None

    @property
    def busy(self) -> bool:
        """Whether a job waits or runs."""
        with self._changed:
            return bool(self._waiting) or self._running is not None

    def collect(self, timeout: float | None = None) -> list[Report]:
        """The reports so far that are still wanted; with a timeout, waits for the first one or for a job to end."""
        found: list[Report | None] = []
        if timeout is not None and (self.busy or not self._reports.empty()):
            try:
                found.append(self._reports.get(timeout=timeout))
            except queue.Empty:
                return []
        while True:
            try:
                found.append(self._reports.get_nowait())
            except queue.Empty:
                break
        with self._changed:
            wanted = [one for one in found if one is not None and one.number >= self._newest.get(one.kind, -1)]
            self.dropped += sum(one is not None for one in found) - len(wanted)
        return wanted

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                kind = next(iter(self._waiting))
                number, job = self._waiting.pop(kind)
                self._running = kind
            try:
                job(lambda value, kind=kind, number=number: self._report(Report(kind, number, value)))
            except Exception as error:  # whatever a model raises belongs to whoever asked, not to this thread
                self._report(Report(kind, number, error=error))
            with self._changed:
                self._running = None
            self._reports.put(None)
            self._wake()

    def _report(self, report: Report) -> bool:
        with self._changed:
            current = report.number >= self._newest.get(report.kind, -1)
            self.dropped += not current
        if current:
            self._reports.put(report)
            self._wake()
        return current
