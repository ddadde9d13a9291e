"""Where the course keeps its files: the repository, its notebooks, shipped checkpoints, and the runs folder.

One layout for everybody: ``notebooks/NN_slug.ipynb`` is executed into ``runs/<profile>/NN_slug/``. Two environment
variables, both set by the runner in the kernels it starts, change how a lesson behaves:

    KINELIB_RUNS      a runs folder other than ``runs/`` in the repository
    KINELIB_HEADLESS  "1" when nobody watches (plain-text progress); "solutions" when exercises must be solved
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinelib.learning.files import write_text_whole


def repository() -> Path:
    """The folder that holds ``kinelib/`` and ``notebooks/``; the working folder when kinelib is installed without them."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def runs_folder() -> Path:
    """The folder under which every profile keeps its results."""
    return Path(os.environ.get("KINELIB_RUNS") or repository() / "runs")


def shipped_checkpoints() -> Path:
    """The folder of checkpoints that come with the repository."""
    return repository() / "data" / "checkpoints"


def lesson_folder(profile: str, notebook: str) -> Path:
    """Where one notebook's executed copy, figures and numbers land; executed solutions have a place of their own."""
    inner = Path("solutions", notebook) if os.environ.get("KINELIB_HEADLESS") == "solutions" else Path(notebook)
    return runs_folder() / profile / inner


def headless() -> bool:
    """True in a kernel or process that the runner started: nobody watches the progress bars."""
    return bool(os.environ.get("KINELIB_HEADLESS"))


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that a reader never sees half of it: to a temporary sibling first, then renamed.

    Raises:
        ValueError: when a value is NaN or infinite, which JSON has no word for.
    """
    write_text_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, or returns an empty one when the file is absent or was cut short."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def plain_scalar(name: str, value: Any) -> bool | int | float | str | None:
    """Turns a number of numpy or torch into Python's, and refuses what JSON cannot hold as one value.

    Args:
        name: what the value is called in the error.
        value: bool, int, float, str, None, or a numpy or torch array of one element.

    Raises:
        TypeError: for anything else, with what to do.
        ValueError: for NaN and infinity.
    """
    if hasattr(value, "item") and not isinstance(value, (bool, int, float, str)):
        if math.prod(getattr(value, "shape", ())) != 1:
            raise TypeError(f"{name} has shape {tuple(value.shape)}; give one number, for example its mean().")
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}. Find out where it became {value}, or leave it out.")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping) or hasattr(value, "__len__"):
        raise TypeError(f"{name} is a {type(value).__name__}; give each of its values a name of its own.")
    raise TypeError(f"{name} is a {type(value).__name__}; JSON holds only numbers, text, true/false and None.")
