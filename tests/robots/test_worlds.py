"""What every world is held to: actions that are numbers, names that exist, views that are drawn when looked at."""

import numpy as np
import pytest

from kinelib.robots.sentences import SENTENCES
from kinelib.robots.worlds import WorldError, check_action, check_known, observe

NAMES = ("hand x", "hand y", "gripper")


def test_actions_are_clipped_to_their_range():
    assert check_action([0.5, -3, 9], NAMES, "here").tolist() == [0.5, -1, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_action_is_named_with_its_place(bad):
    with pytest.raises(WorldError, match=r"drawer-open, seed 3, step 17.*hand y is NaN or infinite"):
        check_action([0, bad, 0], NAMES, "drawer-open, seed 3, step 17")


@pytest.mark.parametrize("shape", [(), (2,), (4,), (1, 3)])
def test_an_action_of_another_shape_is_refused(shape):
    with pytest.raises(WorldError, match=r"3 numbers \(hand x, hand y, gripper\)"):
        check_action(np.zeros(shape), NAMES, "here")


def test_an_unknown_name_is_answered_with_the_closest():
    assert check_known("task", "push", SENTENCES) == "push"
    with pytest.raises(WorldError, match="no task 'draw-open'; did you mean drawer-open"):
        check_known("task", "draw-open", SENTENCES)


def test_a_view_is_drawn_only_when_it_is_looked_at(toy):
    world = toy("left")
    world.reset(0)
    drawn = []
    world.render = lambda view, side: drawn.append((view, side))
    seen = observe(world, "go")
    assert (seen.text, seen.step, drawn) == ("go", 0, [])
    assert seen.proprioception.tolist() == world.scene.centre.astype(np.float32).tolist()
    seen.look("above", 32)
    assert drawn == [("above", 32)]
