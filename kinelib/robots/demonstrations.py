"""Demonstrations: scripted experts act, only successes are kept, and what was seen is drawn afterwards from stored states.

Seeds below 100,000 are for training and the next 100,000 are held out, so that no policy is tested on a scene it has seen. A
task's demonstrations are its first successful seeds, cut into shards; a shard that is there and whole is kept, one that is
missing or cut short is made, so an interrupted run continues where it stopped and gives the same files.

An expert that never errs shows no way back from an error. `noise` disturbs what is executed, a few steps at a time, while
the expert's own answer is stored (as in DART, Laskey et al. 2017): the answers a policy needs where it went astray.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kinelib.learning.files import write_text_whole
from kinelib.robots.demonstration_shards import (
    Demonstration,
    DemonstrationError,
    ShardCutShort,
    open_demonstrations,
    write_demonstrations,
)
from kinelib.robots.robot_tracks import Footage, exact_tracks, film
from kinelib.robots.worlds import World, WorldState, check_known

SPLITS = {"train": range(0, 100_000), "held-out": range(100_000, 200_000)}
GUST = 8  # steps for which one disturbance lasts
PATIENCE = 10  # seeds tried for every demonstration before an expert is given up


@dataclass(frozen=True)
class DemonstrationConfig:
    """How demonstrations are made."""

    demos: int = 20  # of each task; a multiple of per_shard
    per_shard: int = 5  # demonstrations in a file
    split: str = "train"  # or "held-out": which seeds
    views: tuple[str, ...] = ("front", "top")  # cameras
    side: int = 96  # pixels of the pictures
    detail: int = 256  # pixels of the pictures from which tracks are read
    every: int = 2  # steps from frame to frame
    hold: int = 8  # steps the expert goes on after the task is first done
    limit: int = 300  # steps after which an episode is given up
    points: int = 256  # tracks a view
    references: int = 4  # frames from which points are taken
    moving_share: float = 0.75  # of the points on what can move
    noise: float = 0.0  # standard deviation of the disturbance, in units of an action

    def __post_init__(self) -> None:
        check_known("split", self.split, SPLITS)
        if self.per_shard < 1 or self.demos < 1 or self.demos % self.per_shard:
            raise DemonstrationError(
                f"demos ({self.demos}) must be a multiple of per_shard ({self.per_shard}), both 1 or more."
            )
        if min(self.every, self.limit, self.points, self.references) < 1 or self.hold < 0 or self.noise < 0:
            raise DemonstrationError("every, limit, points and references must be 1 or more, hold and noise 0 or more.")


def make_demonstrations(
    make_world: Callable[[str], World],
    tasks: Iterable[str],
    folder: str | Path,
    config: DemonstrationConfig | None = None,
    *,
    texts: Callable[[str, int], str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Makes the shards of some tasks that are not there yet, and the folder's card.

    Args:
        make_world: a task's world, such as :class:`~kinelib.robots.metaworld_world.MetaWorld`.
        tasks: which; several processes can share a folder if each has its own tasks.
        folder: where to; made when missing.
        config: default :class:`DemonstrationConfig`.
        texts: (task, seed) -> the sentence of a demonstration; default: the world's own.
        tell: is told of every shard, in words.

    Returns:
        The shards of these tasks, complete.

    Raises:
        DemonstrationError: when a shard was made with other settings, or an expert fails nearly always.
        WorldError, RendererError: from the worlds.
    """
    config, folder, tell, made = config or DemonstrationConfig(), Path(folder), tell or (lambda words: None), []
    settings = {name: value for name, value in asdict(config).items() if name != "demos"} | {"views": list(config.views)}
    for task in tasks:
        world, seed = None, SPLITS[config.split].start
        try:
            for number in range(config.demos // config.per_shard):
                path = folder / f"{task}-{config.split}-{number:03d}.parquet"
                facts = _facts_if_whole(path, tell)
                if facts is None:
                    world = world or make_world(task)
                    kept, following = _successes(world, seed, config, texts)
                    facts = {
                        "task": task,
                        "first_seed": seed,
                        "next_seed": following,
                        "kept": len(kept),
                        "settings": settings,
                    }
                    write_demonstrations(kept, path, facts)
                    tell(f"{path.name}: {len(kept)} of {following - seed} episodes succeeded")
                other = [name for name in settings if facts["settings"].get(name) != settings[name]]
                if other or facts["first_seed"] != seed:
                    named = ", ".join(other) or "the seed it begins with"
                    raise DemonstrationError(f"{path} was made with other settings ({named}); use those, or another folder.")
                seed = facts["next_seed"]
                made.append(path)
        finally:
            if world is not None:
                world.close()
    _write_card(folder)
    return made


def demonstrate(world: World, seed: int, config: DemonstrationConfig, text: str | None = None) -> Demonstration | None:
    """Lets the expert do a task once; None when it does not succeed within the limit."""
    world.reset(seed)
    gusts = np.random.default_rng([_number(world.task), seed])
    states, senses, answers, executed = [world.state()], [world.proprioception()], [], []
    disturbed = np.array([not name.startswith("gripper") for name in world.actions])
    success_step, gust = None, np.zeros(len(world.actions))
    while len(answers) < min(config.limit, world.limit):
        if len(answers) % GUST == 0:
            gust = gusts.normal(0, 1, len(world.actions)) * config.noise * disturbed
        answer = world.expert()
        done = np.clip(answer + gust, -1, 1).astype(np.float32) if success_step is None else answer
        if world.step(done) and success_step is None:
            success_step = world.step_number
        answers.append(answer)
        executed.append(done)
        states.append(world.state())
        senses.append(world.proprioception())
        if success_step is not None and world.step_number >= success_step + config.hold:
            break
    if success_step is None:
        return None
    footage = film(
        world,
        states[:: config.every],
        views=config.views,
        side=config.side,
        detail=config.detail,
        fps=world.hertz / config.every,
    )
    options = dict(count=config.points, moving_share=config.moving_share, references=min(config.references, len(footage)))
    tracks = [exact_tracks(footage, view, seed=seed, **options) for view in config.views]
    return Demonstration(
        world.suite,
        world.task,
        config.split,
        seed,
        text or world.language(),
        tuple(config.views),
        config.every,
        world.hertz,
        success_step,
        footage.pictures,
        np.concatenate([one.xy.numpy() for one in tracks]).astype(np.float16),
        np.concatenate([one.visible.numpy() for one in tracks]),
        np.stack(senses),
        np.stack(answers),
        np.stack(executed),
        np.stack([state.physics for state in states]),
    )


def film_again(
    world: World,
    demonstration: Demonstration,
    *,
    views: Sequence[str] | None = None,
    side: int = 96,
    every: int | None = None,
) -> Footage:
    """Draws a stored demonstration anew, in other views, another size or at other steps.

    Args:
        world: of the demonstration's task; left at the last state that was drawn.
        views: default: all the world has.
        side: pixels of the pictures.
        every: steps from frame to frame; default: as the demonstration was drawn.

    Raises:
        WorldError: for a world of another task, or an unknown view. RendererError: when the machine cannot draw.
    """
    check_known("demonstration's task", world.task, [demonstration.task])
    every = every or demonstration.every
    steps = range(0, len(demonstration.states), every)
    states = [WorldState(demonstration.seed, step, demonstration.states[step]) for step in steps]
    return film(world, states, views=views, side=side, fps=world.hertz / every)


def expert_success(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Task -> (successes, episodes tried) over the shards of a folder."""
    table: dict[str, tuple[int, int]] = {}
    for path in sorted(Path(folder).glob("*.parquet")):
        facts = open_demonstrations(path)[1]
        kept, tried = table.get(facts["task"], (0, 0))
        table[facts["task"]] = (kept + facts["kept"], tried + facts["next_seed"] - facts["first_seed"])
    return table


def _successes(world, seed: int, config: DemonstrationConfig, texts) -> tuple[list[Demonstration], int]:
    """`per_shard` demonstrations from `seed` on, and the seed after the last that was tried."""
    kept, first = [], seed
    while len(kept) < config.per_shard:
        if seed - first >= PATIENCE * config.per_shard or seed not in SPLITS[config.split]:
            raise DemonstrationError(
                f"the expert of {world.task} succeeded in {len(kept)} of {seed - first} episodes of {config.limit} steps; "
                "raise the limit, lower the noise, or leave the task out."
            )
        one = demonstrate(world, seed, config, texts(world.task, seed) if texts else None)
        kept += [one] if one is not None else []
        seed += 1
    return kept, seed


def _facts_if_whole(path: Path, tell) -> dict | None:
    try:
        return open_demonstrations(path)[1]
    except FileNotFoundError:
        return None
    except ShardCutShort:
        tell(f"{path.name} is cut short and is made again")
        return None


def _number(name: str) -> int:
    """A number that a name always gives (Python's own hash differs from run to run)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _write_card(folder: Path) -> None:
    lines = [
        "# Demonstrations of scripted experts",
        "",
        "Successful episodes with pictures, exact point tracks, proprioception, actions, sentences and simulator states.",
        "Read them with `Demonstrations(folder)` of `kinelib.robots.demonstration_shards`. Made from simulation alone.",
        "",
        "| task | demonstrations | episodes tried |",
        "|---|---|---|",
        *(f"| {task} | {kept} | {tried} |" for task, (kept, tried) in sorted(expert_success(folder).items())),
        "",
    ]
    write_text_whole(folder / "README.md", "\n".join(lines))
