"""The search box: what is found is shown, mistakes are told in the page and raised in Python."""

import pytest
from walks import walk

from kinelib.show.motion_search import MotionSearch

FOUND = {"walk": walk(1.0), "wave": walk(1.0, wave=True)}


def look(text):
    if text == "broken":
        raise OSError("no index <there>")
    return [(f"{name}!", motion) for name, motion in FOUND.items() if name in text]


@pytest.fixture
def box():
    return MotionSearch(look, "walk", examples=["wave"])


def test_the_first_query_is_shown(box):
    assert box.titles == ("walk!",) and box.player.motions == [FOUND["walk"]] and box.player.title == "walk"
    assert "walk!" in repr(box)


def test_queries_from_python_return_what_is_shown(box):
    assert box.query("walk and wave") == [FOUND["walk"], FOUND["wave"]] == box.player.motions
    assert "2 motions" in box.status.value


def test_typing_and_clicking_search_as_well(box):
    box.box.value = "wave"
    assert box.player.motions == [FOUND["wave"]]
    box.box.value = "walk"
    box._buttons[0].click()
    assert box.box.value == "wave" and box.titles == ("wave!",)


def test_mistakes_of_a_reader_are_told_and_leave_what_is_shown(box):
    for typed, told in (("fly", "nothing was found"), ("  ", "empty"), ("broken", "no index &lt;there&gt;")):
        box.box.value = typed
        assert told in box.status.value and box.player.motions == [FOUND["walk"]]


def test_mistakes_in_python_are_raised(box):
    with pytest.raises(LookupError, match="'fly'"):
        box.query("fly")
    with pytest.raises(ValueError, match="empty"):
        box.query(" ")
    with pytest.raises(TypeError, match="callable"):
        MotionSearch([("walk", FOUND["walk"])])


def test_an_executed_notebook_keeps_a_picture(box, monkeypatch):
    live = box._repr_mimebundle_()
    assert "image/png" in live and "application/vnd.jupyter.widget-view+json" in live
    monkeypatch.setenv("KINELIB_HEADLESS", "1")
    assert set(box._repr_mimebundle_()) == {"text/plain", "image/png"}
