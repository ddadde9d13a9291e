"""Rollouts: a policy acts in a world until it succeeds or time is up; success rates with intervals.

Every finished episode is a line of a ledger, written at once, so that an interrupted run continues where it stopped. A
ledger belongs to one policy and one protocol; another is refused. Seeds are those held out from demonstrations unless given.

A rate's interval is Wilson's (1927), which is honest where a bootstrap is not: of 20 successes in 20 episodes every resample
is perfect too. Two policies are compared on the same episodes by paired bootstrap.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from kinelib.learning.files import write_text_whole
from kinelib.learning.intervals import Interval, bootstrap_difference
from kinelib.robots.demonstrations import SPLITS
from kinelib.robots.worlds import Observation, World, observe

FORMAT = "kinelib rollouts 1"


class RolloutError(ValueError):
    """Rollouts cannot be run or read; the message names the ledger and what to do."""


class Policy(Protocol):
    """Anything that answers an observation with an action; `reset()`, if it has one, is called when an episode begins."""

    def __call__(self, observation: Observation) -> ArrayLike:
        """The action (A,) to take now."""


@dataclass(frozen=True)
class Episode:
    """How one episode ended."""

    suite: str  # such as "metaworld"
    task: str  # the task's name
    seed: int  # of the episode
    text: str  # what the policy was told
    success: bool  # whether the task was done within the limit
    steps: int  # actions taken, up to the success
    seconds: float  # wall time
    note: str = ""  # what must stand beside a number made of it


@dataclass(frozen=True)
class Watch:
    """What of an episode is filmed."""

    view: str = "front"  # camera
    side: int = 192  # pixels
    every: int = 4  # steps from frame to frame


def run_episode(
    world: World,
    policy: Policy | None,
    seed: int,
    *,
    limit: int = 200,
    text: str | None = None,
    watch: Watch | None = None,
) -> tuple[Episode, NDArray[np.uint8] | None]:
    """Lets a policy act until the task is done or `limit` actions were taken.

    Args:
        world: reset here with `seed`.
        policy: None for the world's scripted expert.
        text: what the policy is told; default: the world's own sentence.
        watch: film the episode.

    Returns:
        how it ended, and frames (T, S, S, 3), the first and the last state among them, or None.

    Raises:
        WorldError: for an action that is NaN or of another shape; it names task, seed and step.
    """
    began, frames = time.monotonic(), []
    world.reset(seed)
    if hasattr(policy, "reset"):
        policy.reset()
    text = text or world.language()
    limit = min(limit, world.limit)
    while True:
        over = world.success or world.step_number >= limit
        if watch and (over or world.step_number % watch.every == 0):
            frames.append(world.render(watch.view, watch.side))
        if over:
            break
        world.step(world.expert() if policy is None else policy(observe(world, text)))
    seconds = round(time.monotonic() - began, 3)
    episode = Episode(world.suite, world.task, seed, text, bool(world.success), world.step_number, seconds, world.note)
    return episode, np.stack(frames) if frames else None


def run_rollouts(
    make_world: Callable[[str], World],
    policy: Policy | None,
    tasks: Iterable[str],
    seeds: Iterable[int] | None = None,
    *,
    name: str,
    limit: int = 200,
    ledger: str | Path | None = None,
    texts: Callable[[str, int], str] | None = None,
    watch: Watch | None = None,
    filmed: Callable[[Episode, NDArray[np.uint8]], None] | None = None,
) -> list[Episode]:
    """Runs every seed of every task, except what the ledger has already.

    Args:
        make_world: a task's world, such as :class:`~kinelib.robots.metaworld_world.MetaWorld`.
        policy: None for the scripted experts.
        tasks: which.
        seeds: which episodes of each; default: the first 20 that are held out.
        name: of the policy, for the ledger: give its checkpoint's name or hash.
        limit: actions after which an episode has failed.
        ledger: a file of finished episodes; None keeps none.
        texts: (task, seed) -> what the policy is told; default: the world's own sentence.
        watch, filmed: `filmed` is called with every episode that was run now and its frames.

    Returns:
        The episodes of these tasks and seeds, in order.

    Raises:
        RolloutError: when the ledger is of another policy or limit. WorldError: as :func:`run_episode`.
    """
    seeds = list(SPLITS["held-out"][:20] if seeds is None else seeds)
    book = _Ledger(ledger, {"format": FORMAT, "policy": name, "limit": limit}) if ledger else None
    done = {} if book is None else {(one.task, one.seed, one.text): one for one in book.episodes}
    outcome = []
    for task in tasks:
        world = None
        try:
            for seed in seeds:
                text = texts(task, seed) if texts else None
                # Without sentences of the caller's own, a world is needed to know what the policy is told.
                if text is None:
                    world = world or make_world(task)
                    text = world.language()
                episode = done.get((task, seed, text))
                if episode is None:
                    world = world or make_world(task)
                    episode, frames = run_episode(world, policy, seed, limit=limit, text=text, watch=watch)
                    if book is not None:
                        book.add(episode)
                    if filmed is not None and frames is not None:
                        filmed(episode, frames)
                outcome.append(episode)
        finally:
            if world is not None:
                world.close()
    return outcome


def read_ledger(path: str | Path) -> list[Episode]:
    """The finished episodes of a ledger; raises RolloutError when it is none."""
    return _Ledger(path, None).episodes


def success_rate(episodes: Sequence[Episode], level: float = 0.95) -> Interval:
    """The share of successes with Wilson's score interval.

    Raises:
        RolloutError: without an episode. ValueError: for a level outside (0, 1).
    """
    if not episodes:
        raise RolloutError("there is no episode to take a success rate of.")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), for example 0.95; got {level}.")
    count, rate = len(episodes), sum(one.success for one in episodes) / len(episodes)
    z = norm.ppf((1 + level) / 2)
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return Interval(rate, max(0.0, float(middle - reach)), min(1.0, float(middle + reach)), count, level)


def success_table(episodes: Sequence[Episode]) -> dict[str, Interval]:
    """Success rate of every task, and of all under "all"."""
    tasks = dict.fromkeys(one.task for one in episodes)
    table = {task: success_rate([one for one in episodes if one.task == task]) for task in tasks}
    return table | {"all": success_rate(episodes)}


def success_difference(ours: Sequence[Episode], theirs: Sequence[Episode]) -> Interval:
    """How much more often `ours` succeeds, over the tasks and seeds that both ran once each, by paired bootstrap.

    Raises:
        RolloutError: when the two did not run the same episodes, or one ran an episode twice.
    """
    mine = {(one.task, one.seed): float(one.success) for one in ours}
    other = {(one.task, one.seed): float(one.success) for one in theirs}
    if len(mine) < len(ours) or len(other) < len(theirs):
        raise RolloutError("an episode (task and seed) is there more than once; compare one sentence at a time.")
    if mine.keys() != other.keys():
        apart = len(mine.keys() ^ other.keys())
        raise RolloutError(f"the two policies ran different episodes ({apart} are not in both); run the missing ones.")
    order = sorted(mine)
    return bootstrap_difference([mine[key] for key in order], [other[key] for key in order])


class _Ledger:
    """Lines of JSON: what was run, then an episode each."""

    def __init__(self, path: str | Path, header: dict | None) -> None:
        self.path, self.episodes = Path(path), []
        if header is None and not self.path.is_file():
            raise RolloutError(f"there is no ledger at {path}")
        lines = self.path.read_text(encoding="utf-8").split("\n") if self.path.is_file() else []
        if not lines or not lines[0]:
            write_text_whole(self.path, json.dumps(header) + "\n")
            return
        # A line is whole once its end is written; a run that was stopped within one leaves half a line, which is dropped.
        whole = lines[:-1]
        try:
            found = json.loads(whole[0]) if whole else {}
            self.episodes = [Episode(**json.loads(line)) for line in whole[1:]]
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise RolloutError(f"{self.path} is damaged ({error}); delete it and run again.") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT or (header is not None and found != header):
            raise RolloutError(f"{self.path} is the ledger of {found}, not of {header or FORMAT}; name another file.")
        if lines[-1] and header is not None:
            write_text_whole(self.path, "\n".join([*whole, ""]))

    def add(self, episode: Episode) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(episode)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.episodes.append(episode)
