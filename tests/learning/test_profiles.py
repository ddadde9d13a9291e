"""Profiles are three words; a misspelt one must not silently become another."""

import pytest

from kinelib.learning.profiles import Profile, profile


@pytest.mark.parametrize("name", ["smoke", "lab", "paper"])
def test_each_name_gives_its_profile_and_reads_as_a_string(name):
    assert profile(name) == name
    assert f"{profile(name)}" == name


def test_choose_returns_the_argument_of_the_profile():
    assert [p.choose(smoke=1, lab=2, paper=3) for p in Profile] == [1, 2, 3]


@pytest.mark.parametrize(("wrong", "guess"), [("smok", "smoke"), ("LAB", "lab"), ("papers", "paper")])
def test_a_misspelling_names_the_three_and_guesses(wrong, guess):
    with pytest.raises(ValueError, match=f"'smoke', 'lab' or 'paper'.*{guess}"):
        profile(wrong)


@pytest.mark.parametrize("wrong", ["", "gpu", None, 3])
def test_anything_else_is_refused(wrong):
    with pytest.raises(ValueError, match="'smoke', 'lab' or 'paper'"):
        profile(wrong)
