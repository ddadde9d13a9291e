"""Meta-World as a world: seeds decide, states go back exactly, experts succeed, and what is missing is said."""

import sys

import numpy as np
import pytest

from kinelib.robots import rendering
from kinelib.robots.demonstrations import SPLITS
from kinelib.robots.metaworld_world import MARKER, SHARED_SCENES, TASKS, TEN, VIEWS, MetaWorld
from kinelib.robots.rendering import RendererError, choose_backend
from kinelib.robots.suites import find_suite
from kinelib.robots.worlds import WorldError

TRIED = ("drawer-open", "pick-place", "faucet-close")


def test_the_ten_tasks_and_the_shared_scenes_exist():
    assert len(TASKS) == 50 and len(set(TEN)) == 10 and set(TEN) <= set(TASKS)
    assert {task for pair in SHARED_SCENES for task in pair} <= set(TEN)


def test_an_unknown_task_is_answered_with_the_closest():
    with pytest.raises(WorldError, match="no Meta-World task 'open-drawer'.*did you mean"):
        MetaWorld("open-drawer")


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    pytest.importorskip("mujoco", reason="mujoco is not installed; run: make install")
    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.delitem(sys.modules, "metaworld.env_dict", raising=False)
    with pytest.raises(WorldError, match=r"Meta-World cannot be imported .*pip install metaworld==3.1.1"):
        MetaWorld("reach")


def test_missing_mujoco_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(RendererError, match="pip install mujoco==3.3.0"):
        rendering.import_mujoco()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems draw with a library of their own")
def test_a_missing_renderer_is_said_with_what_to_install(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering, "_egl_answers", lambda: False)
    monkeypatch.setattr(rendering, "_osmesa_is_there", lambda: False)
    with pytest.raises(RendererError, match="neither EGL nor OSMesa.*apt-get install libosmesa6"):
        choose_backend()
    monkeypatch.setattr(rendering, "_osmesa_is_there", lambda: True)
    assert choose_backend() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(RendererError, match="MUJOCO_GL=egl, but that library was not found"):
        choose_backend()
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(RendererError, match="cannot draw without a screen"):
        choose_backend()


def test_before_a_reset_there_is_nothing_to_ask(metaworld):
    world = MetaWorld("reach")
    for ask in (world.state, world.proprioception, world.expert, lambda: world.step(np.zeros(4))):
        with pytest.raises(WorldError, match="was not reset yet"):
            ask()
    with pytest.raises(WorldError, match="seed is 0 or more"):
        world.reset(-1)


def test_a_seed_decides_the_scene_whatever_was_done_before(metaworld):
    world = metaworld("drawer-open")
    world.reset(3)
    first = world.state().physics, world.scene.poses().positions.copy()
    for _ in range(10):
        world.step(world.expert())
    world.reset(4)
    other = world.scene.poses().positions.copy()
    world.reset(3)
    assert np.array_equal(world.state().physics, first[0])
    assert np.array_equal(world.scene.poses().positions, first[1]) and np.abs(other - first[1]).max() > 0.01
    held_out = SPLITS["held-out"][3]
    world.reset(held_out)
    assert np.abs(world.scene.poses().positions - first[1]).max() > 0.001


@pytest.mark.parametrize("task", TRIED)
def test_a_state_goes_back_exactly(metaworld, task):
    world = metaworld(task)
    world.reset(5)
    for _ in range(25):
        world.step(world.expert())
    state, seen, actions = world.state(), [], []
    state.physics.flags.writeable = False  # as states of a file are
    for _ in range(12):
        actions.append(world.expert())
        world.step(actions[-1])
        seen.append((world.state().physics, world.proprioception(), world.success))
    world.reset(6)
    for _ in range(7):
        world.step(world.expert())
    world.restore(state)
    assert world.step_number == 25 and np.array_equal(world.state().physics, state.physics)
    for action, (physics, senses, success) in zip(actions, seen, strict=True):
        # The expert answers the same too: nothing that it looks at was left behind.
        assert np.array_equal(world.expert(), action)
        world.step(action)
        assert np.array_equal(world.state().physics, physics)
        assert np.array_equal(world.proprioception(), senses) and world.success == success


def test_states_of_another_task_are_refused(metaworld):
    reach = metaworld("reach")
    reach.reset(0)
    with pytest.raises(WorldError, match="it is of another task"):
        metaworld("drawer-open").restore(reach.state())


@pytest.mark.parametrize("task", TRIED)
def test_experts_succeed_and_say_so_once_it_is_done(metaworld, task):
    world = metaworld(task)
    world.reset(SPLITS["held-out"][0])
    assert not world.success
    while not world.success and world.step_number < 200:
        assert np.abs(world.expert()).max() <= 1
        world.step(world.expert())
    assert world.success and world.language() and world.note == ""


def test_demonstrations_go_on_from_where_reaching_counts_to_the_goal_itself(metaworld):
    """Policies that learnt from experts stopped 8 actions after success halted five centimetres from goals."""
    world, hold = metaworld("reach"), find_suite("metaworld").demos.hold
    for seed in range(3):
        world.reset(seed)
        while not world.success:
            world.step(world.expert())
        hands = [world.proprioception()[:3]]
        for _ in range(hold):
            world.step(world.expert())
            hands.append(world.proprioception()[:3])
        assert np.linalg.norm(hands[-1] - hands[0]) > 0.02, "metres; half of what was left and more"
        assert np.linalg.norm(hands[-1] - hands[-5]) < 0.0045, "nearly there"


def test_an_action_that_is_no_number_is_not_taken(metaworld):
    world = metaworld("reach")
    world.reset(0)
    world.step([0, 0, 1, 0])
    before = world.state().physics
    with pytest.raises(WorldError, match="reach, seed 0, step 1: the action's hand z is NaN"):
        world.step([0, 0, np.nan, 0])
    with pytest.raises(WorldError, match="an action is 4 numbers"):
        world.step([0, 0, 0])
    assert np.array_equal(world.state().physics, before)


def test_an_action_moves_the_hand_the_way_it_says(metaworld):
    world = metaworld("reach")
    for axis in range(3):
        for sign in (-1, 1):
            world.reset(0)
            start = world.proprioception()
            for _ in range(8):
                world.step(sign * np.eye(4)[axis])
            moved = (world.proprioception() - start)[:3]
            assert np.abs(moved).argmax() == axis and np.sign(moved[axis]) == sign and 0.01 < abs(moved[axis]) < 0.1


def test_tasks_of_one_scene_begin_with_one_picture(metaworld, renderer):
    pictures = {}
    for pair in SHARED_SCENES:
        for task in pair:
            world = metaworld(task)
            world.reset(11)
            pictures[task] = world.render("front", 48).astype(int)
    assert np.array_equal(pictures["reach"], pictures["pick-place"])
    # The package draws the faucet's place from ranges of different widths; all else is alike.
    assert (np.abs(pictures["faucet-open"] - pictures["faucet-close"]).max(-1) > 20).mean() < 0.05
    assert (np.abs(pictures["faucet-open"] - pictures["reach"]).max(-1) > 20).mean() > 0.02


def test_pictures_are_of_the_asked_size_and_every_view_sees_something_else(metaworld, renderer):
    world = metaworld("drawer-open")
    world.reset(0)
    pictures = [world.render(view, 48) for view in VIEWS]
    for picture in pictures:
        assert picture.shape == (48, 48, 3) and picture.dtype == np.uint8 and picture.std() > 15
    assert all(np.abs(a.astype(int) - b).mean() > 5 for a, b in zip(pictures, pictures[1:], strict=False))
    again = metaworld("pick-place")
    again.reset(0)
    again.render("front", 48)  # another model: the renderer of the first is closed for it, and opened again
    assert np.array_equal(world.render("front", 48), pictures[0])
    with pytest.raises(WorldError, match="no view 'fornt'; did you mean front"):
        world.render("fornt", 48)
    with pytest.raises(ValueError, match="side of 1 to 1024"):
        world.render("front", 2000)


def test_goals_are_marked_in_one_colour(metaworld):
    model = metaworld("reach").scene.model
    goals = [site for site in range(model.nsite) if "goal" in model.site(site).name.lower()]
    assert goals and all(np.allclose(model.site_rgba[site, :3], MARKER) for site in goals)
