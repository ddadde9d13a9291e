"""What the runner refuses before anything runs: each rule that papermill does not have."""

from __future__ import annotations

import pytest

from kinelib.course.notebooks import (
    NotebookError,
    check_overrides,
    find_notebooks,
    literal_parameters,
    read_notebook,
    with_solutions,
)


def test_literals_of_every_kind_are_read():
    source = """
'Set these.'
profile: str = "smoke"  # size
seed: int = 0
rate = -1e-3
steps: int | None = None
names = ["a", "b"]"""
    expected = {"profile": "smoke", "seed": 0, "rate": -1e-3, "steps": None, "names": ["a", "b"]}
    assert literal_parameters(source, "x") == expected


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("batch = steps * 2", "derived"),
        ("batch = int('2')", "derived"),
        ("batch: int = steps", "derived"),
        ("batch: int", "derived"),
        ("import os", "name = literal"),
        ("print(1)", "name = literal"),
        ("a = b = 1", "name = literal"),
        ("a, b = 1, 2", "name = literal"),
        ("steps += 1", "name = literal"),
        ("steps = 2", "twice"),
    ],
)
def test_derived_parameters_and_other_code_are_refused(line, word):
    with pytest.raises(NotebookError, match=word):
        literal_parameters(f"steps = 1\n{line}", "x")


def test_exactly_one_parameters_cell(tmp_path, write_notebook):
    with pytest.raises(NotebookError, match="has 0 cells tagged 'parameters'"):
        read_notebook(write_notebook(tmp_path / "00_a.ipynb", "x = 1", parameters=None))
    twice = write_notebook(tmp_path / "01_b.ipynb", ('profile = "smoke"', {"tags": ["parameters"]}))
    with pytest.raises(NotebookError, match="has 2 cells"):
        read_notebook(twice)
    with pytest.raises(NotebookError, match='no parameter "profile"'):
        read_notebook(write_notebook(tmp_path / "02_c.ipynb", parameters="seed = 0"))


def test_code_that_is_not_python_is_named_by_cell(tmp_path, write_notebook):
    with pytest.raises(NotebookError, match=r"00_a.ipynb, cell 3, line 2"):
        read_notebook(write_notebook(tmp_path / "00_a.ipynb", "x = 1", "y = 1\nz ="))
    good = write_notebook(tmp_path / "00_a.ipynb", "%matplotlib inline\nif True:\n    !ls", "%%bash\nls -l", "await thing()")
    assert "matplotlib" not in read_notebook(good).code


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', '{"cells": [{}]}'])
def test_a_file_that_is_no_notebook(tmp_path, text):
    path = tmp_path / "00_a.ipynb"
    path.write_text(text)
    with pytest.raises(NotebookError, match="not a notebook"):
        read_notebook(path)


def test_overrides_are_checked_by_name_and_type(tmp_path, write_notebook):
    parameters = 'profile = "smoke"\nsteps = 5\nrate = 0.1\nwidth = None\nshow = False'
    notebook = read_notebook(write_notebook(tmp_path / "00_a.ipynb", parameters=parameters))
    checked = check_overrides(notebook, {"steps": 3, "rate": 1, "width": [1], "show": True})
    assert checked == {"steps": 3, "rate": 1.0, "width": [1], "show": True} and isinstance(checked["rate"], float)
    with pytest.raises(NotebookError, match=r"no parameter 'step'\. Did you mean 'steps'\?"):
        check_overrides(notebook, {"step": 3})
    with pytest.raises(NotebookError, match="It has: profile, steps, rate, width, show"):
        check_overrides(notebook, {"zzz": 3})
    for bad in ({"steps": "3"}, {"steps": 3.5}, {"steps": True}, {"rate": "x"}, {"show": 1}, {"profile": 1}):
        with pytest.raises(NotebookError, match="the parameter"):
            check_overrides(notebook, bad)


def test_names_pick_notebooks(tmp_path, write_notebook):
    for name in ("00_start", "03_codec", "10_mocap"):
        write_notebook(tmp_path / f"{name}.ipynb")
    stems = lambda *names: [path.stem for path in find_notebooks(tmp_path, names)]
    assert stems() == ["00_start", "03_codec", "10_mocap"]
    assert stems("10", "3") == stems("10_mocap", "03_codec.ipynb", "03") == ["03_codec", "10_mocap"]
    assert stems("0") == ["00_start"]
    for name in ("7", "codec", "../00_start.py"):
        with pytest.raises(NotebookError, match="there are: 00_start, 03_codec, 10_mocap"):
            stems(name)
    write_notebook(tmp_path / "03_other.ipynb")
    with pytest.raises(NotebookError, match="2 notebooks"):
        stems("03")
    write_notebook(tmp_path / "Untitled.ipynb")
    with pytest.raises(NotebookError, match="NN_slug"):
        stems()
    with pytest.raises(NotebookError, match="no notebooks"):
        find_notebooks(tmp_path / "empty")


def exercise(name, source):
    return (source, {"tags": ["exercise"], "exercise": name})


def test_solutions_take_the_place_of_exercises(tmp_path, write_notebook):
    asked = write_notebook(tmp_path / "00_a.ipynb", "x = 1", exercise("1", "a = None"), "y = 2", exercise("2", "b = None"))
    solved = write_notebook(tmp_path / "s" / "00_a.ipynb", exercise("2", "b = 22"), exercise("1", "a = 11"))
    merged = with_solutions(read_notebook(asked), read_notebook(solved))
    assert [cell["source"] for cell in merged["cells"]][1:] == ["x = 1", "a = 11", "y = 2", "b = 22"]
    assert "a = None" in read_notebook(asked).code


def test_solutions_and_exercises_must_agree(tmp_path, write_notebook):
    asked = read_notebook(write_notebook(tmp_path / "00_a.ipynb", exercise("1", "a = None")))
    for cells in ([], [exercise("2", "a = 1")], [exercise("1", "a = 1"), exercise("2", "b = 1")]):
        answers = read_notebook(write_notebook(tmp_path / "s" / "00_a.ipynb", *cells))
        with pytest.raises(NotebookError, match="asks exercises 1"):
            with_solutions(asked, answers)
    for cells in ([("a = 1", {"tags": ["exercise"]})], [exercise("1", ""), exercise("1", "")]):
        with pytest.raises(NotebookError, match="its own name"):
            _ = read_notebook(write_notebook(tmp_path / "01_b.ipynb", *cells)).exercises
