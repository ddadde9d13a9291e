"""Rows of a study: kept one JSON object a line while it runs, and shipped as one small JSON file with what made them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from kinelib.learning.files import write_text_whole

ROWS = "rows.jsonl"


def read_rows(folder: str | Path) -> list[dict]:
    """The rows measured so far; an empty list before the first."""
    path = Path(folder) / ROWS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write_rows(folder: str | Path, rows: Iterable[dict]) -> None:
    """Writes all rows, complete or not at all."""
    write_text_whole(Path(folder) / ROWS, "".join(json.dumps(one) + "\n" for one in rows))


def rows_to_ship(folder: str | Path, digest: str) -> list[dict]:
    """The rows of a study, all measured with the config of a digest.

    Raises:
        FileNotFoundError: when the folder holds no rows. ValueError: when they were measured with another config.
    """
    rows, path = read_rows(folder), Path(folder) / ROWS
    if not rows:
        raise FileNotFoundError(f"{path} holds no rows; run the sweep first.")
    if any(row["config"] != digest for row in rows):
        raise ValueError(f"{path} was measured with another config; pass the one it was measured with.")
    return rows


def ship_rows(path: str | Path, about: dict, rows: Iterable[dict], digits: int) -> Path:
    """Writes what made the rows, and the rows, their numbers rounded to significant `digits`."""
    lines = ",\n".join("  " + json.dumps(_rounded(row, digits)) for row in rows)
    write_text_whole(path, f'{{"about": {json.dumps(about, indent=1)},\n"rows": [\n{lines}\n]}}\n')
    return Path(path)


def load_shipped(path: str | Path) -> tuple[dict, list[dict]]:
    """What made a shipped file, and its rows."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    return content["about"], content["rows"]


def _rounded(value, digits: int):
    if isinstance(value, dict):
        return {name: _rounded(one, digits) for name, one in value.items()}
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
