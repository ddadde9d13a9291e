"""What demonstrations are worth: success against how many were learnt from, from the ledgers of finished evaluations.

    python -m kinelib evaluate robots --curve 5=runs/robots-5 --curve 20=runs/robots --json curve.json

Every folder holds the ledgers of one evaluation (`evaluate robots --json`), of networks that learnt the actions of so many
demonstrations of each task (`train robots --labelled`). Nothing is rolled out here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kinelib.learning.files import write_text_whole
from kinelib.robots.rollouts import Episode, read_ledger, success_difference, success_rate

COMPARED = ("policy", "cloning")


@dataclass(frozen=True)
class Point:
    """One point of the curve, per cent with its 95 % interval."""

    what: str  # way of acting, or what is compared
    demos: int  # of each task, whose actions were learnt
    value: float
    low: float
    high: float
    n: int  # episodes


def curve(folders: Mapping[int, str | Path], json_path: str | Path | None = None) -> list[Point]:
    """Success of policy and cloning, and by how much the policy is above, for every number of demonstrations.

    Args:
        folders: of each number of demonstrations, the folder with the ledgers `policy.jsonl` and `cloning.jsonl`. Of each
            number, the episodes that both ran count.
        json_path: where the points go; None writes nothing.

    Raises:
        RolloutError: for a missing or damaged ledger. ValueError: without a folder, or for numbers below 1.
    """
    if not folders or min(folders) < 1:
        raise ValueError(f"give at least one folder, of 1 or more demonstrations each; got {dict(folders)}.")
    points: list[Point] = []
    for demos, folder in sorted(folders.items()):
        found = [read_ledger(Path(folder) / f"{way}.jsonl") for way in COMPARED]
        ours, theirs = _shared(*found)
        rates = (success_rate(ours), success_rate(theirs), success_difference(ours, theirs))
        named = zip((*COMPARED, "policy - cloning"), rates, strict=True)
        points += [Point(what, demos, 100 * r.value, 100 * r.low, 100 * r.high, r.count) for what, r in named]
    if json_path is not None:
        write_text_whole(Path(json_path), json.dumps([asdict(one) for one in points], indent=1) + "\n")
    return points


def read_curve(path: str | Path) -> list[Point]:
    """The points that :func:`curve` wrote."""
    return [Point(**one) for one in json.loads(Path(path).read_text(encoding="utf-8"))]


def curve_table(points: Sequence[Point]) -> str:
    """Markdown: a row for every number of demonstrations."""
    cells = {(one.demos, one.what): f"{one.value:.0f} [{one.low:.0f}, {one.high:.0f}], {one.n}" for one in points}
    names = list(dict.fromkeys(one.what for one in points))
    lines = [f"| demonstrations a task | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for demos in sorted({one.demos for one in points}):
        lines.append(f"| {demos} | {' | '.join(cells[demos, name] for name in names)} |")
    return "\n".join([*lines, "success, % [95 %], episodes", ""])


def _shared(ours: Sequence[Episode], theirs: Sequence[Episode]) -> tuple[list[Episode], list[Episode]]:
    """Of two lists of episodes those of tasks and seeds that are in both."""
    keys = {(one.task, one.seed) for one in ours} & {(one.task, one.seed) for one in theirs}
    return tuple([one for one in group if (one.task, one.seed) in keys] for group in (ours, theirs))
