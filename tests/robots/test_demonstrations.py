"""Demonstrations: successes only, train and held-out apart, and a run that was stopped goes on where it stopped."""

from dataclasses import replace

import numpy as np
import pytest

from kinelib.robots import demonstrations as making
from kinelib.robots.demonstration_shards import (
    DemonstrationError,
    Demonstrations,
    ShardCutShort,
    open_demonstrations,
    write_demonstrations,
)
from kinelib.robots.demonstrations import (
    SPLITS,
    DemonstrationConfig,
    demonstrate,
    expert_success,
    film_again,
    make_demonstrations,
)
from kinelib.robots.worlds import WorldError

CONFIG = DemonstrationConfig(
    demos=4, per_shard=2, views=("above", "beside"), side=32, detail=48, hold=2, limit=30, points=12, references=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy):
    """Four demonstrations of both toy tasks."""
    folder = tmp_path_factory.mktemp("demos")
    make_demonstrations(toy, ["left", "right"], folder, CONFIG)
    return folder


def test_train_and_held_out_seeds_are_apart():
    assert not set(SPLITS["train"]) & set(SPLITS["held-out"])


def test_only_successes_are_kept_and_the_card_counts_the_rest(folder):
    # The toy's expert makes nothing of the seeds 2, 5, 8, ...
    for task in ("left", "right"):
        kept = Demonstrations(folder, tasks=[task])
        assert [one.seed for one in kept] == [0, 1, 3, 4]
    assert expert_success(folder) == {"left": (4, 5), "right": (4, 5)}
    assert "| left | 4 | 5 |" in (folder / "README.md").read_text()


def test_a_demonstration_ends_after_its_success(folder):
    for one in Demonstrations(folder):
        steps = len(one.actions)
        assert steps == one.success_step + CONFIG.hold and len(one.states) == len(one.proprioception) == steps + 1
        assert one.pictures.shape == (2, steps // 2 + 1, 32, 32, 3) and one.frame_steps[-1] <= steps
        # The toy senses where its square is, and that is its state too: what is stored belongs together.
        assert np.allclose(one.proprioception, one.states, atol=1e-6)
        moved = one.states[:-1] + 0.1 * one.executed[:, :2]
        assert np.allclose(moved, one.states[1:], atol=1e-6)
        assert np.array_equal(one.actions, one.executed)


def test_tracks_follow_what_the_states_say(folder):
    one = Demonstrations(folder, tasks=["right"])[0]
    tracks = one.tracks_of("above")
    assert tracks.fps == 10 and tracks.size == (32, 32)
    riding = tracks.moving()[0]
    assert 0 < riding.sum() < 12
    # 4 m below a camera that sees half a metre a metre to each side.
    travelled = (one.states[one.frame_steps][-1] - one.states[0]) * (1, -1) / (4 * 0.5)
    assert np.allclose(tracks.displacement()[0, riding, -1].numpy(), travelled, atol=2e-3)
    with pytest.raises(WorldError, match="view of this demonstration 'below'"):
        one.tracks_of("below")


def test_an_interrupted_run_goes_on_and_gives_the_same_files(toy, folder, tmp_path, monkeypatch):
    made, write = [], making.write_demonstrations

    def stop_at_the_third(demonstrations, path, facts):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path.name)
        return write(demonstrations, path, facts)

    monkeypatch.setattr(making, "write_demonstrations", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        make_demonstrations(toy, ["left", "right"], tmp_path, CONFIG)
    monkeypatch.undo()
    told, before = [], toy.made
    make_demonstrations(toy, ["left", "right"], tmp_path, CONFIG, tell=told.append)
    assert [words.split(":")[0] for words in told] == ["right-train-000.parquet", "right-train-001.parquet"]
    assert toy.made == before + 1  # none for the task that was complete
    for path in folder.glob("*.parquet"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_shard_cut_short_is_named_and_made_again(toy, folder, tmp_path):
    for path in folder.glob("left*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "left-train-001.parquet"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardCutShort, match=r"left-train-001.parquet is cut short.*robots demos"):
        Demonstrations(tmp_path)
    told = []
    make_demonstrations(toy, ["left"], tmp_path, CONFIG, tell=told.append)
    assert told[0] == "left-train-001.parquet is cut short and is made again" and broken.read_bytes() == whole


def test_more_demonstrations_are_added_to_those_there_are(toy, tmp_path):
    make_demonstrations(toy, ["left"], tmp_path, CONFIG)
    told = []
    make_demonstrations(toy, ["left"], tmp_path, replace(CONFIG, demos=6), tell=told.append)
    assert [words.split(":")[0] for words in told] == ["left-train-002.parquet"]
    assert [one.seed for one in Demonstrations(tmp_path)] == [0, 1, 3, 4, 6, 7]


def test_other_settings_do_not_mix_with_what_is_there(toy, folder):
    with pytest.raises(DemonstrationError, match=r"other settings \(side\)"):
        make_demonstrations(toy, ["left"], folder, replace(CONFIG, side=24))


def test_held_out_demonstrations_have_seeds_of_their_own(toy, tmp_path):
    make_demonstrations(toy, ["left"], tmp_path, replace(CONFIG, demos=2, split="held-out"))
    kept = Demonstrations(tmp_path, split="held-out")
    assert all(one.seed in SPLITS["held-out"] and one.split == "held-out" for one in kept)
    with pytest.raises(FileNotFoundError, match="no train demonstrations"):
        Demonstrations(tmp_path)


def test_an_expert_that_never_succeeds_is_given_up(toy, tmp_path):
    with pytest.raises(DemonstrationError, match="expert of left succeeded in 0 of 20 episodes of 1 steps"):
        make_demonstrations(toy, ["left"], tmp_path, replace(CONFIG, limit=1))
    assert not list(tmp_path.glob("*.parquet"))


def test_noise_disturbs_what_is_done_and_not_what_is_taught(toy):
    world = toy("left")
    one = demonstrate(world, 0, replace(CONFIG, noise=0.3), "go left")
    before = slice(0, one.success_step)
    apart = np.abs(one.actions - one.executed)[before]
    assert one.text == "go left" and apart[:, :2].max() > 0.05 and apart[:, 2].max() == 0
    assert np.array_equal(one.actions[one.success_step :], one.executed[one.success_step :])
    again = demonstrate(world, 0, replace(CONFIG, noise=0.3), "go left")
    assert np.array_equal(one.executed, again.executed)


def test_an_episode_is_drawn_again_in_another_size(toy, folder):
    one = Demonstrations(folder, tasks=["left"])[0]
    footage = film_again(toy("left"), one, views=("above",), side=32)
    assert np.array_equal(footage.pictures[0], one.pictures[0])
    assert film_again(toy("left"), one, side=20, every=1).pictures.shape[:3] == (2, len(one.states), 20)
    with pytest.raises(WorldError, match="no demonstration's task 'right'"):
        film_again(toy("right"), one)


def test_so_many_of_every_task(folder):
    few = Demonstrations(folder, per_task=2)
    assert few.tasks == ("left", "right") and [one.seed for one in few] == [0, 1, 0, 1]
    assert [one.name for one in few[1:3]] == ["toy/left/1", "toy/right/0"]
    with pytest.raises(DemonstrationError, match="fewer than 5 train demonstrations of left, right"):
        Demonstrations(folder, per_task=5)
    with pytest.raises(DemonstrationError, match="fewer than 1 train demonstrations of up"):
        Demonstrations(folder, tasks=["left", "up"])


def test_what_is_no_number_is_not_written(folder, tmp_path):
    one = Demonstrations(folder)[0]
    actions = one.actions.copy()
    actions[3, 1] = np.nan
    with pytest.raises(DemonstrationError, match="toy/left/0: actions holds values that are NaN"):
        write_demonstrations([replace(one, actions=actions)], tmp_path / "a.parquet", {})
    with pytest.raises(DemonstrationError, match="toy/left/0: executed must be"):
        write_demonstrations([replace(one, actions=one.actions[1:])], tmp_path / "a.parquet", {})
    assert not list(tmp_path.iterdir())


def test_another_file_is_no_shard(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DemonstrationError, match="other.parquet is not a shard"):
        open_demonstrations(tmp_path / "other.parquet")
    with pytest.raises(FileNotFoundError, match="no demonstrations at"):
        open_demonstrations(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"demos": 5}, r"demos \(5\) must be a multiple of per_shard \(2\)"),
        ({"split": "test"}, "no split 'test'"),
        ({"every": 0}, "must be 1 or more"),
        ({"noise": -0.1}, "0 or more"),
    ],
)
def test_settings_without_meaning_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(CONFIG, **change)
