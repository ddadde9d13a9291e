"""Rolls policies out in held-out scenes: success with its interval, baselines beside it, and whether the sentence decides.

    python -m kinelib evaluate robots --suite metaworld --json robots.json

    way            what acts
    policy         plans at every look, reads the plan and the pictures
    cloning        pictures, sentence and proprioception; no plan; same demonstrations, batches and steps
    open loop      the policy, which plans once an episode
    random latents the policy, whose plans are noise
    oracle tracks  the policy, whose plans are the exact tracks of what the expert would do from there
    expert         the script that made the demonstrations, which sees what no policy is shown

"Right task": in scenes that look alike, the policy is told the scene's own sentence and that of the other task; with the
first it should succeed, with the second it should not. Finished episodes stand in ledgers beside the JSON file, so that an
interrupted evaluation continues. Rates have Wilson's interval; differences are over the same episodes (paired bootstrap).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from kinelib.learning.files import write_text_whole
from kinelib.learning.intervals import Interval
from kinelib.learning.profiles import Profile, profile
from kinelib.learning.text import WIDTH, Text
from kinelib.robots.demonstrations import SPLITS
from kinelib.robots.other_plans import ExpertPlans, RandomPlans
from kinelib.robots.policy import RobotPolicy
from kinelib.robots.pretrained import SHIPPED, load_robot_policy
from kinelib.robots.robot_planner import STEPS
from kinelib.robots.rollouts import Episode, run_rollouts, success_difference, success_table
from kinelib.robots.suites import Suite, find_suite
from kinelib.robots.worlds import World, check_known

WAYS = ("policy", "cloning", "open loop", "random latents", "oracle tracks", "expert")
TARGETS = {"policy": 75.0}  # per cent, over all tasks
RIGHT_TARGET = 80.0  # per cent of the scenes' own sentences followed
PLANNING_TARGET = 100.0  # milliseconds a plan of two views in ten steps, on two cores


@dataclass(frozen=True)
class Extent:
    """How much is rolled out."""

    tasks: int  # of the suite's list, from its beginning
    episodes: dict[str, int]  # of every task, for each way of acting; 0 leaves it out


EXTENTS = {
    Profile.SMOKE: Extent(2, dict(zip(WAYS, (2, 2, 0, 0, 0, 0), strict=True))),
    Profile.LAB: Extent(10, dict(zip(WAYS, (40, 40, 10, 10, 2, 10), strict=True))),
    Profile.PAPER: Extent(50, dict(zip(WAYS, (50, 50, 20, 20, 20, 20), strict=True))),
}


@dataclass(frozen=True)
class Row:
    """One measured number and what it takes to read it."""

    table: str  # "success", "difference", "right task" or "planning"
    what: str  # way of acting, or what is compared
    task: str  # or "all"
    value: float
    low: float  # 95 % interval
    high: float
    n: int  # episodes (or plans)
    unit: str  # "%" or "ms"
    target: float | None = None


def evaluate_robots(
    suite: str | Suite = "metaworld",
    json_path: str | Path | None = None,
    *,
    profile_name: str = "lab",
    checkpoint: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    ways: Sequence[str] = WAYS,
    episodes: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Rolls out every way of acting and returns the tables as Markdown.

    Args:
        suite: a name of `suites.SUITES`, or a Suite of your own.
        json_path: where the rows go, with a folder of ledgers beside it; None writes nothing and cannot be resumed.
        profile_name: how much is rolled out, see `EXTENTS`.
        checkpoint: folder of planner, policy and cloning; default: the shipped one.
        tasks: which; default: the profile's number of the suite's.
        ways: which of `WAYS`.
        episodes: of every task and way, instead of the profile's.
        say: called with a line of progress.

    Raises:
        WorldError: for an unknown suite, task or way. FileNotFoundError: without a checkpoint. RolloutError: when a ledger
            is of other weights.
    """
    extent = EXTENTS[profile(profile_name)]
    suite = find_suite(suite)
    tasks = tuple(check_known("task", task, suite.tasks) for task in (tasks or suite.tasks[: extent.tasks]))
    ways = tuple(check_known("way of acting", way, WAYS) for way in ways)
    folder = Path(checkpoint or SHIPPED)
    ledgers = None if json_path is None else Path(json_path).with_suffix("")
    # Given here, so that no world has to be made to know what is said where a ledger is complete.
    own_words = lambda task, seed: suite.sentence(task)
    found: dict[str, list[Episode]] = {}
    rows: list[Row] = []
    for way in ways:
        count = extent.episodes[way] if episodes is None else episodes
        if not count:
            continue
        seeds, options = SPLITS["held-out"][:count], dict(name=_name(way, folder, suite), limit=suite.limit)
        policy, make_world = acting(way, folder, suite)
        found[way] = run_rollouts(make_world, policy, tasks, seeds, texts=own_words, ledger=_ledger(ledgers, way), **options)
        for task, rate in success_table(found[way]).items():
            rows.append(_rate("success", way, task, rate, TARGETS.get(way) if task == "all" else None))
        say(f"{way}: {rows[-1].value:.0f} % of {rows[-1].n} episodes")
        if way == "policy":
            rows += right_task_rows(policy, make_world, suite, tasks, found[way], count, options, ledgers)
            rows.append(planning_row(policy))
    if {"policy", "cloning"} <= found.keys() and len(found["policy"]) == len(found["cloning"]):
        gap = success_difference(found["policy"], found["cloning"])
        rows.append(_rate("difference", "policy - cloning", "all", gap))
    if json_path is not None:
        facts = {
            "tasks": tasks,
            "limit": suite.limit,
            "threads": torch.get_num_threads(),
            "weights": weights_hash(folder, "policy"),
        }
        facts["notes"] = sorted({one.note for group in found.values() for one in group if one.note})
        write_text_whole(Path(json_path), json.dumps(facts | {"rows": [asdict(one) for one in rows]}, indent=1) + "\n")
    return tables(rows)


def acting(way: str, folder: Path, suite: Suite) -> tuple[RobotPolicy | None, Callable[[str], World]]:
    """The policy of a way of acting (None for the expert), and how worlds are made for it."""
    if way == "expert":
        return None, suite.make_world
    kind = "cloning" if way == "cloning" else "policy"
    looks = {"replan": suite.replan, "discount": suite.discount}
    policy = load_robot_policy(folder, kind, closed_loop=way != "open loop", **looks)
    if way == "random latents":
        policy.plans = RandomPlans(policy.planner)
    if way == "oracle tracks":
        policy.plans = ExpertPlans(policy.planner, policy.autoencoder)
        return policy, lambda task: policy.plans.watch(suite.make_world(task))
    return policy, suite.make_world


def _name(way: str, folder: Path, suite: Suite) -> str:
    """What a ledger says acted: a way, its weights, and how it looks where that is not as usual."""
    unusual = way != "expert" and (suite.replan, suite.discount) != (Suite.replan, Suite.discount)
    looks = f", a look every {suite.replan} actions, discount {suite.discount}" if unusual else ""
    return f"{way}, {weights_hash(folder, way)}{looks}"


def right_task_rows(
    policy, make_world, suite: Suite, tasks, own: Sequence[Episode], count: int, options, ledgers
) -> list[Row]:
    """Success in scenes that tasks share, with the scene's own sentence and with that of the other task."""
    pairs = [pair for pair in suite.shared_scenes if set(pair) <= set(tasks)]
    if not pairs:
        return []
    other = {one: two for pair in pairs for one, two in (pair, pair[::-1])}
    told = lambda task, seed: suite.sentence(other[task])
    crossed = run_rollouts(
        make_world,
        policy,
        list(other),
        SPLITS["held-out"][:count],
        texts=told,
        ledger=_ledger(ledgers, "crossed"),
        **options,
    )
    alike = [one for one in own if one.task in other]
    rows = []
    for what, group, target in (("own sentence", alike, RIGHT_TARGET), ("the other's sentence", crossed, None)):
        for task, rate in success_table(group).items():
            rows.append(_rate("right task", what, task, rate, target if task == "all" else None))
    return rows


def planning_row(policy: RobotPolicy, repeats: int = 20) -> Row:
    """The median time of a plan, with the middle half of the times; what is planned does not matter for it."""
    views, size = len(policy.views), policy.network.config.frame_size
    frames, text = torch.zeros(1, views, 3, size, size), Text(torch.zeros(1, 12, WIDTH), torch.ones(1, 12, dtype=torch.bool))
    milliseconds = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        policy.planner.plan(frames, text, steps=STEPS)
        milliseconds.append(1000 * (time.perf_counter() - began))
    low, middle, high = np.percentile(milliseconds[2:], [25, 50, 75])
    what = f"{STEPS} steps, {views} views"
    return Row("planning", what, "all", middle, low, high, repeats, "ms", PLANNING_TARGET)


def weights_hash(folder: Path, way: str) -> str:
    """A short hash of the weights that act, which a ledger is tied to."""
    parts = {"expert": (), "cloning": ("cloning",)}.get(way, ("planner", "policy"))
    digest = hashlib.sha256()
    for part in parts:
        path = folder / part / "model.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {part}; train it (train robots --stage {part}) or leave {way!r} out."
            )
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def tables(rows: Sequence[Row]) -> str:
    """Markdown: success of every task with the ways of acting side by side, then the rest."""
    success = [one for one in rows if one.table == "success"]
    ways = list(dict.fromkeys(one.what for one in success))
    cells = {(one.task, one.what): one for one in success}
    lines = ["### success, % [95 %], n", f"| task | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    for task in dict.fromkeys(one.task for one in success):
        lines.append(f"| {task} | {' | '.join(_cell(cells.get((task, way))) for way in ways)} |")
    rest = [one for one in rows if one.table != "success"]
    if rest:
        lines += ["", "### the rest", "| table | what | task | value [interval] | target |", "|---|---|---|---|---|"]
        for one in rest:
            goal = "" if one.target is None else f"{one.target:g}"
            lines.append(f"| {one.table} | {one.what} | {one.task} | {_cell(one)} {one.unit} | {goal} |")
    return "\n".join([*lines, ""])


def _cell(row: Row | None) -> str:
    return "" if row is None else f"{row.value:.0f} [{row.low:.0f}, {row.high:.0f}], {row.n}"


def _rate(table: str, what: str, task: str, rate: Interval, target: float | None = None) -> Row:
    return Row(table, what, task, 100 * rate.value, 100 * rate.low, 100 * rate.high, rate.count, "%", target)


def _ledger(folder: Path | None, way: str) -> Path | None:
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{way.replace(' ', '-')}.jsonl"
