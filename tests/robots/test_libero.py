"""LIBERO as worlds: what is missing is said with its cure; where it is installed, seeds, states and the expert hold."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from kinelib.robots import libero_world
from kinelib.robots.demonstrations import SPLITS
from kinelib.robots.libero_world import STORED, SUBSTITUTED, SUITES, Libero, has_stand_ins, libero_tasks, task_sentence
from kinelib.robots.worlds import WorldError

ASSETS = Path(os.environ.get("KINELIB_DATA", "")) / "libero_assets"
TASK = "pick_up_the_black_bowl_from_table_center_and_place_it_on_the_plate"


@pytest.fixture(scope="session")
def libero():
    """One task of libero_spatial; skips without the packages or the assets."""
    for package in ("mujoco", "libero", "robosuite", "bddl", "numba"):
        # Looked for and not imported: libero asks questions on the keyboard when it is.
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (optional); run: {libero_world.INSTALL}")
    if not os.environ.get("KINELIB_DATA") or not ASSETS.is_dir():
        pytest.skip("LIBERO's assets are not in KINELIB_DATA")
    return Libero(TASK)


def test_an_unknown_suite_is_answered_with_the_closest():
    with pytest.raises(WorldError, match="no LIBERO suite 'libero_spacial'; did you mean libero_spatial"):
        libero_tasks("libero_spacial")


def test_missing_packages_are_named_with_their_cure(monkeypatch):
    pytest.importorskip("mujoco", reason="mujoco is not installed; run: make install")
    libero_world._package.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WorldError, match=r"LIBERO needs libero, robosuite.*pip install --no-deps hf-libero==0.1.4"):
        Libero(TASK)


def test_missing_assets_are_said(monkeypatch, tmp_path):
    monkeypatch.delenv("KINELIB_DATA", raising=False)
    with pytest.raises(WorldError, match="not at a folder libero_assets of KINELIB_DATA.*Put the folder"):
        libero_world._assets(None)
    with pytest.raises(WorldError, match=str(tmp_path)):
        libero_world._assets(tmp_path)


def test_a_texture_of_one_colour_is_a_stand_in(tmp_path):
    import cv2

    (tmp_path / "bowl").mkdir()
    picture = np.full((8, 8, 3), 90, np.uint8)
    picture[3, 3] = 200
    cv2.imwrite(str(tmp_path / "bowl" / "texture.png"), picture)
    assert not has_stand_ins(tmp_path)
    cv2.imwrite(str(tmp_path / "bowl" / "plain.png"), np.full((8, 8, 3), 90, np.uint8))
    assert has_stand_ins(tmp_path)


def test_stored_states_are_held_out():
    assert SPLITS["held-out"].start == STORED and STORED not in SPLITS["train"]


def test_suites_have_their_tasks(libero):
    assert {suite: len(libero_tasks(suite)) for suite in SUITES} == {
        "libero_spatial": 10,
        "libero_object": 10,
        "libero_goal": 10,
        "libero_10": 10,
        "libero_90": 90,
    }
    with pytest.raises(WorldError, match="no task of libero_goal 'fly'"):
        Libero("fly", "libero_goal")


def test_numbers_of_stand_ins_say_so(libero):
    assert libero.substituted_visuals == has_stand_ins(ASSETS)
    assert libero.note == (SUBSTITUTED if libero.substituted_visuals else "")


def test_the_stored_states_are_the_last_seeds(libero):
    with pytest.raises(WorldError, match="50 stored initial states"):
        libero.reset(STORED + 50)
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.get_state()[1].copy()  # noqa: NPY002
    libero.reset(STORED)
    assert np.array_equal(np.random.get_state()[1], expected)  # noqa: NPY002
    felt = libero.proprioception()
    assert felt.shape == (len(libero.senses),) and not libero.success
    # The hand's place is the arm's kinematics: 25 cm above the table and near the middle of its edge.
    assert np.abs(felt[-3:] - [-0.2, 0, 1.17]).max() < 0.06
    assert libero.language() == "pick up the black bowl from table center and place it on the plate"


def test_a_sentence_is_its_task_without_the_scene():
    assert task_sentence("KITCHEN_SCENE10_close_the_top_drawer") == "close the top drawer"
    assert task_sentence("put_the_bowl_on_the_stove") == "put the bowl on the stove"


def test_what_is_on_the_stove_stands_there_in_every_episode(libero):
    world = Libero("pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate")
    bowl, places = world._environment.obj_body_id["akita_black_bowl_1"], []
    for seed in (STORED, 0, 1, 2):
        world.reset(seed)
        places.append(world.scene.data.xpos[bowl].copy())
    world.close()
    # The suite draws places within some centimetres of each other; a bowl that falls from the sky is a metre away.
    assert np.abs(np.array(places[1:]) - places[0]).max() < 0.06 and np.ptp(places, axis=0)[:2].min() > 0


def test_the_arm_begins_elsewhere_in_every_episode_as_in_the_stored_states(libero):
    def spread(seeds):
        begun = []
        for seed in seeds:
            libero.reset(seed)
            begun.append(libero.proprioception()[:7])
        return np.std(begun, axis=0).mean()

    drawn, stored = spread(range(8)), spread(range(STORED, STORED + 8))
    assert 0.5 < drawn / stored < 2 and stored > 0.005
    libero.reset(3)
    before = libero.proprioception()
    libero.reset(4)
    libero.reset(3)
    assert np.array_equal(libero.proprioception(), before)


def test_a_state_goes_back_exactly(libero):
    libero.reset(4)
    for _ in range(6):
        libero.step(libero.expert())
    state, actions, seen = libero.state(), [], []
    for number in range(4):
        # Without a turn the controller holds the orientation that was wanted last.
        actions.append(libero.expert() * ([1, 1, 1, 0, 0, 0, 1] if number % 2 else 1))
        libero.step(actions[-1])
        seen.append(libero.state().physics)
    libero.reset(STORED + 1)
    libero.restore(state)
    assert libero.step_number == 6 and np.array_equal(libero.state().physics, state.physics)
    for action, physics in zip(actions, seen, strict=True):
        libero.step(action)
        assert np.allclose(libero.state().physics, physics, atol=1e-9)


def test_a_bad_action_is_named(libero):
    libero.reset(0)
    with pytest.raises(WorldError, match=r"seed 0, step 0: the action's gripper is NaN"):
        libero.step([0, 0, 0, 0, 0, 0, np.nan])


@pytest.mark.slow
def test_the_expert_puts_the_bowl_on_the_plate(libero):
    for seed in (0, STORED):
        libero.reset(seed)
        while not libero.success and libero.step_number < 150:
            answer = libero.expert()
            # Anything between would be a gripper's command that no network can repeat: only its sign counts.
            assert abs(answer[-1]) == 1
            libero.step(answer)
        assert libero.success


def test_where_the_hand_is_does_not_decide_how_a_thing_is_taken(libero):
    yaws = []
    for seed in range(STORED, STORED + 3):
        libero.reset(seed)
        for move in ((0, 0), (0, 1), (1, -1)):
            for _ in range(12):
                libero.step([*move, 0, 0, 0, 0, -1])
            libero.expert()
            expert = libero._expert
            thing = expert._boxes()[expert._is_thing].reshape(-1, 3)
            goal, _ = expert._goal(expert._boxes())
            yaws.append(expert._grasp(thing, goal - thing[:, :2].mean(0)).yaw)
    # One side, in scenes a centimetre apart too: an expert that changes sides teaches the middle between them.
    assert len(set(yaws)) == 1


@pytest.mark.slow
def test_collision_shapes_are_not_drawn(libero, renderer):
    libero.reset(0)
    objects, depth = libero.scene.surfaces("agent", 64)
    drawn = np.unique(objects[objects >= 0])
    assert len(drawn) > 8 and drawn.max() < libero.scene.model.ngeom
    assert (libero.scene.model.geom_group[drawn] == 1).all() and 0.2 < np.median(depth) < 3
    assert libero.render("wrist", 48).std() > 15
