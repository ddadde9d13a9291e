"""Suites of tasks: what training and evaluation need to know of a simulator, and nothing else.

metaworld                                  fifty tasks; the ten of the shipped checkpoint come first
libero_spatial, libero_object, libero_goal ten tasks each of LIBERO; protocols of ATM and Tra-MoE: at most 600 actions,
                                           20 rollouts a task from stored initial states, two views, 10 demonstrations
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kinelib.robots.demonstrations import DemonstrationConfig
from kinelib.robots.worlds import World, check_known


@dataclass(frozen=True)
class Suite:
    """Tasks of one simulator."""

    make_world: Callable[[str], World]  # of a task
    tasks: tuple[str, ...]  # in order of their use
    texts: Callable[[str, int], str] | None  # (task, seed) -> a sentence for training; None: the world's own
    demos: DemonstrationConfig  # how demonstrations are made
    sentence: Callable[[str], str]  # task -> its sentence in tests
    shared_scenes: tuple[tuple[str, str], ...] = ()  # pairs of tasks that no picture tells apart
    limit: int = 200  # actions after which an episode has failed
    replan: int = 8  # actions from look to look of a policy; officially 1
    discount: float = 0.99  # of temporal ensembling: what a chunk counts relative to one that is an action younger


def metaworld_suite() -> Suite:
    """Meta-World; demonstrations are slightly disturbed, since a policy must learn its way back too."""
    from kinelib.robots.metaworld_world import SHARED_SCENES, TASKS, TEN, MetaWorld
    from kinelib.robots.sentences import sentence

    # Reaching counts from five centimetres on. Experts stopped soon after that never show the goal itself, and policies that
    # learnt from them halt before it.
    config = DemonstrationConfig(every=4, side=128, detail=128, points=128, limit=200, hold=24, noise=0.2)
    order = (*TEN, *(task for task in TASKS if task not in TEN))
    return Suite(MetaWorld, order, sentence, config, sentence, SHARED_SCENES)


def libero_suite(name: str) -> Suite:
    """A suite of LIBERO; raises WorldError where its packages are missing."""
    from kinelib.robots.libero_world import VIEWS, Libero, libero_tasks, task_sentence

    config = DemonstrationConfig(views=tuple(VIEWS), every=4, side=128, detail=128, points=128, limit=300, noise=0.15)
    # Two actions last as long as eight of Meta-World's. A hand that is not looked at for longer overshoots its goal, and so
    # does one that still follows what was answered a second ago.
    return Suite(
        partial(Libero, suite=name), libero_tasks(name), None, config, task_sentence, limit=600, replan=2, discount=0.5
    )


SUITES: dict[str, Callable[[], Suite]] = {
    "metaworld": metaworld_suite,
    **{name: partial(libero_suite, name) for name in ("libero_spatial", "libero_object", "libero_goal")},
}


def find_suite(suite: str | Suite) -> Suite:
    """A suite by its name, or the one that is given; raises WorldError for an unknown name."""
    return suite if isinstance(suite, Suite) else SUITES[check_known("suite", suite, SUITES)]()
