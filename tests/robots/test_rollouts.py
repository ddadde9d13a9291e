"""Rollouts: what a policy is shown and told, a ledger that survives an interruption, and intervals that are known."""

import json

import numpy as np
import pytest

from kinelib.robots.demonstrations import SPLITS
from kinelib.robots.rollouts import (
    Episode,
    RolloutError,
    Watch,
    read_ledger,
    run_episode,
    run_rollouts,
    success_difference,
    success_rate,
    success_table,
)
from kinelib.robots.worlds import WorldError

SEEDS = [0, 1, 2, 3]  # of the seed 2 the toy's expert makes nothing


class ByWords:
    """Pushes the square to the side that its sentence names, and remembers what it saw."""

    def __init__(self):
        self.begun, self.steps = 0, []

    def reset(self):
        self.begun += 1

    def __call__(self, seen):
        self.steps.append(seen.step)
        away = (-1.0 if "left" in seen.text else 1.0) - seen.proprioception[0]
        return [np.clip(10 * away, -1, 1), 0, 0]


def episodes(outcomes, task="left"):
    return [Episode("toy", task, seed, "go", bool(done), 9, 0.1) for seed, done in enumerate(outcomes)]


def test_an_episode_ends_with_its_success_and_is_filmed_to_its_last_state(toy):
    world = toy("left")
    episode, frames = run_episode(world, None, 0, limit=40, watch=Watch("above", 32, 4))
    assert episode.success and episode.steps == world.step_number < 40 and episode.note == "a toy"
    assert (episode.suite, episode.task, episode.seed, episode.text) == ("toy", "left", 0, "move the square to the left")
    assert frames.shape == (-(-episode.steps // 4) + 1, 32, 32, 3)
    assert np.array_equal(frames[-1], world.render("above", 32)) and not np.array_equal(frames[0], frames[-1])


def test_time_runs_out(toy):
    episode, frames = run_episode(toy("left"), None, 2, limit=7)
    assert (episode.success, episode.steps, frames) == (False, 7, None)
    assert run_episode(toy("left"), None, 2, limit=500)[0].steps == toy.limit


def test_a_policy_is_reset_told_and_asked_once_a_step(toy):
    policy = ByWords()
    run_episode(toy("left"), policy, 0, limit=5)
    run_episode(toy("left"), policy, 0, limit=5, text="to the right")
    assert policy.begun == 2 and policy.steps == [0, 1, 2, 3, 4] * 2


def test_the_sentence_decides(toy):
    world = toy("left")
    run_episode(world, ByWords(), 0, limit=15, text="to the right")
    assert world.scene.centre[0] > 0.9
    run_episode(world, ByWords(), 0, limit=15)
    assert world.scene.centre[0] < -0.9


def test_a_bad_action_stops_the_run_by_name(toy):
    with pytest.raises(WorldError, match=r"left, seed 3, step 2: the action's y is NaN"):
        run_episode(toy("left"), lambda seen: [0, np.nan if seen.step == 2 else 0, 0], 3, limit=5)


def test_an_interrupted_run_goes_on_where_it_stopped(toy, tmp_path):
    book = tmp_path / "book.jsonl"
    expected = run_rollouts(toy, None, ["left", "right"], SEEDS, name="expert", limit=40)
    run = []

    def stop_at_the_sixth(episode, frames):
        run.append(episode)
        if len(run) == 5:
            raise KeyboardInterrupt

    options = dict(name="expert", limit=40, ledger=book, watch=Watch("above", 16))
    with pytest.raises(KeyboardInterrupt):
        run_rollouts(toy, None, ["left", "right"], SEEDS, filmed=stop_at_the_sixth, **options)
    # A run killed while it writes leaves half a line.
    with book.open("a") as file:
        file.write('{"suite": "toy", "ta')
    assert len(read_ledger(book)) == 5
    run.clear()
    outcome = run_rollouts(
        toy, None, ["left", "right"], SEEDS, filmed=lambda episode, frames: run.append(episode), **options
    )
    assert [(one.task, one.seed) for one in run] == [("right", 1), ("right", 2), ("right", 3)]
    facts = [(one.task, one.seed, one.success, one.steps) for one in outcome]
    assert facts == [(one.task, one.seed, one.success, one.steps) for one in expected]
    assert [one.success for one in outcome] == [True, True, False, True] * 2
    assert read_ledger(book) == outcome


def test_held_out_seeds_are_the_default(toy):
    outcome = run_rollouts(toy, None, ["left"], name="expert", limit=1)
    assert [one.seed for one in outcome] == list(SPLITS["held-out"][:20])


def test_a_ledger_belongs_to_one_policy_and_one_limit(toy, tmp_path):
    book = tmp_path / "book.jsonl"
    run_rollouts(toy, None, ["left"], [0], name="expert", limit=5, ledger=book)
    before = book.read_bytes()
    with pytest.raises(RolloutError, match="book.jsonl is the ledger of .*expert"):
        run_rollouts(toy, ByWords(), ["left"], [0], name="words", limit=5, ledger=book)
    with pytest.raises(RolloutError, match="name another file"):
        run_rollouts(toy, None, ["left"], [0], name="expert", limit=6, ledger=book)
    assert book.read_bytes() == before


def test_other_words_are_another_episode(toy, tmp_path):
    book = tmp_path / "book.jsonl"
    for words in ("go left", "go right"):
        run_rollouts(toy, ByWords(), ["left"], [0], name="words", limit=15, ledger=book, texts=lambda task, seed, w=words: w)
    assert [(one.text, one.success) for one in read_ledger(book)] == [("go left", False), ("go right", False)]


def test_what_is_no_ledger_is_said(tmp_path):
    with pytest.raises(RolloutError, match="there is no ledger"):
        read_ledger(tmp_path / "none")
    (tmp_path / "other").write_text(json.dumps({"format": "else"}) + "\n")
    with pytest.raises(RolloutError, match="is the ledger of"):
        read_ledger(tmp_path / "other")
    (tmp_path / "bad").write_text("{]\n")
    with pytest.raises(RolloutError, match="bad is damaged .*delete it"):
        read_ledger(tmp_path / "bad")


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # Wilson's score interval at 95 %, worked out by hand from its formula with z = 1.96.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (15, 20, 0.5313, 0.8881), (1, 1, 0.2065, 1.0)],
)
def test_the_interval_of_a_rate_is_wilsons(successes, count, low, high):
    rate = success_rate(episodes([True] * successes + [False] * (count - successes)))
    assert rate.value == successes / count and rate.count == count
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=2e-4)


def test_a_rate_needs_episodes_and_a_level():
    with pytest.raises(RolloutError, match="no episode"):
        success_rate([])
    with pytest.raises(ValueError, match="level must be in"):
        success_rate(episodes([True]), level=95)


def test_the_table_has_every_task_and_all():
    table = success_table(episodes([True, True, False, False], "left") + episodes([True, True], "right"))
    assert {name: (rate.value, rate.count) for name, rate in table.items()} == {
        "left": (0.5, 4),
        "right": (1.0, 2),
        "all": (pytest.approx(4 / 6), 6),
    }


def test_two_policies_are_compared_on_the_same_episodes():
    better, worse = episodes([True] * 30 + [False] * 10), episodes([True] * 10 + [False] * 30)
    apart = success_difference(better, worse[::-1])
    assert apart.value == 0.5 and 0.3 < apart.low < 0.5 < apart.high < 0.7
    assert success_difference(worse, worse).high == 0
    with pytest.raises(RolloutError, match="1 are not in both"):
        success_difference(better, worse[:-1])
    with pytest.raises(RolloutError, match="more than once"):
        success_difference([*better, better[0]], worse)
