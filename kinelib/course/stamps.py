"""Stamps: what an executed notebook depended on, so that running the series again costs seconds.

A stamp is a dict of parts, each a name and a hash or value. Two stamps are compared part by part, so the runner can say
*what* changed. The stamp is taken before the notebook runs and written only after it has succeeded.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from kinelib.course.notebooks import Notebook, NotebookError
from kinelib.course.sources import hash_large, hash_path, hash_text, library_hashes

EXTERNAL = "$KINELIB_DATA/"


def fingerprint(notebook: Notebook, parameters: dict[str, Any], root: Path) -> dict[str, str]:
    """Everything that decides what a notebook's results are.

    Args:
        notebook: the notebook.
        parameters: the values it will be run with (its defaults count through its code).
        root: the repository.

    Returns:
        parts by name: code and parameters, Python and torch, each kinelib file it imports, each input.

    Raises:
        NotebookError: when a declared input is missing.
    """
    parts = {
        "the notebook's code": hash_text(json.dumps([cell["source"] for cell in notebook.code_cells])),
        "its parameters": json.dumps(parameters, sort_keys=True),
        "Python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
    }
    parts.update(library_hashes(notebook.code, root))
    # A notebook that declares nothing may read anything that is shipped.
    for need in notebook.needs if notebook.needs is not None else _shipped(root):
        if need.startswith(EXTERNAL):
            outside = os.environ.get("KINELIB_DATA")
            parts[need] = hash_large(Path(outside) / need.removeprefix(EXTERNAL)) if outside else "missing"
            continue
        parts[need] = hash_path(root / need)
        if parts[need] == "missing":
            raise NotebookError(
                f"{notebook.path.name} needs {need}, which is not there. Fetch or train it, "
                "or correct needs in the notebook's metadata."
            )
    return parts


def changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """The names of the parts in which two stamps differ."""
    return [name for name in {**new, **old} if old.get(name) != new.get(name)]


def _shipped(root: Path) -> list[str]:
    return [f"data/{name}" for name in ("checkpoints", "samples") if (root / "data" / name).is_dir()]
