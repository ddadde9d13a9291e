"""Per-clip scores kept on disk as they are measured, so that an interrupted evaluation goes on where it stopped.

A ledger is a file of JSON lines, one finished measurement a line, found again by a hash of everything that decides its
outcome: weights, settings, the source files of the forecaster and of the metrics, and the clips. A measurement whose
inputs changed is simply not found, so an old file never gives a wrong number. A line that an interruption cut short is
measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kinelib.learning.files import write_text_whole

Measured = tuple[dict[str, Tensor], float]  # per-clip metrics, name -> (B,), and the seconds they took


class Ledger:
    """Finished measurements by the hash of what they depend on.

    Args:
        path: of the file; None keeps measurements in memory only.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.entries: dict[str, dict] = {}
        if self.path is not None and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").split("\n")
            whole = lines[:-1]  # what follows the last newline is empty, or was cut short
            for line in whole:
                entry = json.loads(line)
                self.entries[entry["key"]] = entry
            if lines[-1]:
                self._rewrite(whole)

    def measure(self, inputs: object, work: Callable[[], Measured]) -> Measured:
        """The result of `work`, from the ledger when it was finished before with the same inputs.

        Args:
            inputs: everything the result depends on; hashed by :func:`fingerprint`.
            work: returns per-clip metrics, name -> (B,), and the seconds they took.
        """
        key = fingerprint(inputs)
        if key not in self.entries:
            metrics, seconds = work()
            values = {name: [None if math.isnan(x) else x for x in each.tolist()] for name, each in metrics.items()}
            self.entries[key] = {"key": key, "seconds": round(seconds, 3), "metrics": values}
            self._append(self.entries[key])
        entry = self.entries[key]
        as_tensor = lambda values: torch.tensor([math.nan if x is None else x for x in values], dtype=torch.float64)
        return {name: as_tensor(values) for name, values in entry["metrics"].items()}, entry["seconds"]

    def close(self) -> None:
        """Removes the file, once its measurements are in the results."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _append(self, entry: dict) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, lines: list[str]) -> None:
        write_text_whole(self.path, "".join(line + "\n" for line in lines))


def fingerprint(thing: object) -> str:
    """A hash of a value: tensors by content, networks by weights and config, functions and objects by code and fields."""
    digest = hashlib.sha256()
    _feed(digest, thing)
    return digest.hexdigest()[:20]


def _feed(digest, thing: object) -> None:
    if isinstance(thing, Tensor):
        digest.update(f"{thing.dtype}{tuple(thing.shape)}".encode())
        digest.update(thing.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(thing, nn.Module):
        digest.update(_code(type(thing)))
        _feed(digest, [getattr(thing, "config", None), dict(thing.state_dict())])
    elif isinstance(thing, dict):
        for name, value in thing.items():
            digest.update(f"{name}=".encode())
            _feed(digest, value)
        digest.update(b"}")
    elif isinstance(thing, list | tuple):
        for value in thing:
            _feed(digest, value)
        digest.update(f"]{len(thing)}".encode())
    elif thing is None or isinstance(thing, str | bytes | int | float):
        digest.update(f"{type(thing).__name__}:{thing!r};".encode())
    elif isinstance(thing, partial):
        _feed(digest, [thing.func, thing.args, thing.keywords])
    elif hasattr(thing, "__qualname__"):
        digest.update(_code(thing))
        cells = getattr(thing, "__closure__", None) or ()
        _feed(digest, [getattr(thing, "__defaults__", None), *(cell.cell_contents for cell in cells)])
    else:
        digest.update(_code(type(thing)))
        _feed(digest, vars(thing))


def _code(thing) -> bytes:
    """The name of a class or function and the source file that defines it."""
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    source = Path(file).read_bytes() if file and Path(file).exists() else b""
    return f"{thing.__module__}.{thing.__qualname__}".encode() + hashlib.sha256(source).digest()
