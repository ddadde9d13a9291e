"""How a training shows itself: a bar in a terminal or notebook, plain lines where nobody watches, and a JSONL file.

Bars redraw themselves, which fills log files with noise, so runs without a terminal get one line at most every ten
seconds. The environment variable KINELIB_PROGRESS, "bar" or "plain", decides where the guess is wrong: a runner that
executes notebooks sets "plain", because nobody watches there either.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from kinelib.learning.files import write_text_whole

SECONDS_BETWEEN_LINES = 10.0


def say(line: str) -> None:
    """Prints one log line; the only place in the library that prints."""
    print(line, file=sys.stderr, flush=True)


def wants_bar() -> bool:
    """Whether someone watches: KINELIB_PROGRESS if it is set, otherwise a terminal or a live notebook."""
    choice = os.environ.get("KINELIB_PROGRESS", "")
    if choice not in ("", "bar", "plain"):
        raise ValueError(f"KINELIB_PROGRESS is {choice!r}; set it to 'bar' or 'plain', or leave it out.")
    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and hasattr(ipython.get_ipython(), "kernel")
    return choice == "bar" or (not choice and (sys.stderr.isatty() or in_notebook))


class Progress:
    """Shows how far a training is; silent in all processes but the first."""

    def __init__(self, description: str, *, start: float, total: float, unit: str, enabled: bool):
        """Opens the display.

        Args:
            description: name of the run.
            start: where a resumed run stands, in units.
            total: where it ends, in units.
            unit: "step" or "s".
            enabled: False shows nothing.
        """
        self.description, self.total, self.unit, self.enabled = description, total, unit, enabled
        self._bar = None
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        if enabled and wants_bar():
            # The text bar also in notebooks: a widget would leave its state in the saved file.
            from tqdm import tqdm

            layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} " + unit + " [{elapsed}<{remaining}{postfix}]"
            self._bar = tqdm(desc=description, initial=start, total=total, bar_format=layout)

    def update(self, done: float) -> None:
        """Moves a bar to ``done`` units."""
        if self._bar is not None:
            self._bar.update(min(done, self.total) - self._bar.n)

    def report(self, done: float, entry: dict[str, Any], *, last: bool = False) -> None:
        """Shows a logged entry: beside the bar, or as a line if the last one is long enough ago."""
        if not self.enabled:
            return
        numbers = {"loss": f"{entry['loss']:.4g}", "lr": f"{entry['learning_rate']:.2g}"}
        if self._bar is not None:
            self._bar.set_postfix(numbers, refresh=False)
        elif last or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            pairs = "  ".join(f"{name} {value}" for name, value in numbers.items())
            where = f"{100 * min(1.0, done / self.total):3.0f} %  step {entry['step']}  {entry['seconds']:.0f} s"
            say(f"{self.description}: {where}  {pairs}")

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


class Log:
    """An append-only JSONL file, cut back to the resumed step when a training goes on."""

    def __init__(self, path: Path, *, step: int, enabled: bool):
        """Opens the log and reads what it holds up to ``step``; a line cut short by a crash is dropped."""
        self.path, self.enabled = path, enabled
        self.entries: list[dict[str, Any]] = []
        if step and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                if entry["step"] <= step:
                    self.entries.append(entry)
        if enabled:
            write_text_whole(path, "".join(json.dumps(entry) + "\n" for entry in self.entries))

    def write(self, entry: dict[str, Any]) -> None:
        """Adds one line."""
        self.entries.append(entry)
        if self.enabled:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
