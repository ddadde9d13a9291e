"""Files that are complete or not there at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Gives a temporary sibling to write to, and renames it to `path` when the block ends without an error.

    Args:
        path: the target; its folder is made. The sibling keeps the suffix, from which writers tell the format.

    Raises:
        OSError: when the folder cannot be made or the sibling was not written; an older file at `path` is kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sibling = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield sibling
        os.replace(sibling, path)
    finally:
        sibling.unlink(missing_ok=True)


def write_text_whole(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file, complete or not at all."""
    with written_whole(path) as sibling:
        sibling.write_text(text, encoding="utf-8")
