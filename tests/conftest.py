"""What every test shares: figures without a screen, repeatable property tests, and small notebooks made to order."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: were each to start a thread a core, they would wait for one another. Set before torch is read.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts background jobs with interrupts ignored, and their children inherit that; tests of interrupts cannot use it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples each time, and no deadline: a shared machine may pause anywhere.
settings.register_profile("kinelib", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("kinelib")

PARAMETERS = 'profile = "smoke"\nseed = 0\nsteps = None'


@pytest.fixture
def repository() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def write_notebook():
    """A function that writes a notebook from cells, each a source or a pair of source and metadata."""

    def write(path: Path, *cells: str | tuple[str, dict], parameters: str | None = PARAMETERS, needs=None) -> Path:
        pairs = [cell if isinstance(cell, tuple) else (cell, {}) for cell in cells]
        if parameters is not None:
            pairs.insert(0, (parameters, {"tags": ["parameters"]}))
        content = {
            "cells": [
                {
                    "cell_type": "code",
                    "id": f"cell-{number}",
                    "metadata": metadata,
                    "source": source,
                    "outputs": [],
                    "execution_count": None,
                }
                for number, (source, metadata) in enumerate(pairs)
            ],
            "metadata": {
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                **({} if needs is None else {"kinelib": {"needs": needs}}),
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write
