"""start, expect, exercise, record and save_figure: what a lesson promises, and how it says that a promise is broken."""

from __future__ import annotations

import hashlib
import json
import math
import random

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from kinelib import course
from kinelib.course import figures, lesson
from kinelib.course.reading import without_docstrings


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("KINELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("KINELIB_HEADLESS", raising=False)
    monkeypatch.setattr(lesson, "_current", None)
    return tmp_path / "runs"


def read(path):
    return json.loads(path.read_text())


def test_start_makes_the_folder_and_says_what_it_settled(runs, capsys):
    cfg = course.start("03_track_autoencoder", "lab", 7, steps=None, width=5)
    said = capsys.readouterr().out.splitlines()
    assert cfg.out == runs / "lab" / "03_track_autoencoder" and cfg.out.is_dir()
    assert cfg.overrides == {"width": 5} and cfg.interactive and cfg.device in ("cpu", "cuda")
    assert len(said) == 4 and "torch" in said[0] and "profile lab, seed 7, width 5" in said[1] and cfg.device in said[2]


def test_start_seeds_everything(runs):
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    course.start("00_a", seed=3)
    first = draw()
    course.start("00_a", seed=3)
    assert draw() == first
    course.start("00_a", seed=4)
    assert draw() != first


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("track_autoencoder",), "03_track_autoencoder"),
        (("03_a.ipynb",), "without .ipynb"),
        (("03_a", "smok"), "smoke"),
        (("03_a", "smoke", -1), "seed"),
        (("03_a", "smoke", 1.5), "seed"),
        (("03_a", "smoke", True), "seed"),
    ],
)
def test_start_refuses_and_says_what_to_write(runs, arguments, word):
    with pytest.raises(ValueError, match=word):
        course.start(*arguments)
    assert not runs.exists()


def test_pick_prefers_the_override_then_the_profile(runs):
    cfg = course.start("00_a", "smoke", steps=3, width=None)
    assert cfg.pick("steps", smoke=1, lab=2) == 3
    assert cfg.pick("width", smoke=1, lab=2) == 1
    with pytest.raises(KeyError, match="depth has no value for profile 'smoke'"):
        cfg.pick("depth", lab=2, paper=3)


def test_nothing_works_before_start(runs):
    for call in (lambda: course.expect(1, (0, 2), "w"), lambda: course.record({"a": 1}), course.current):
        with pytest.raises(RuntimeError, match="course.start"):
            call()


def test_expect_counts_and_bands_include_their_ends(runs, capsys):
    cfg = course.start("00_a")
    for value in (0, 1, 0.5, np.float32(0.25), torch.tensor(1.0), torch.tensor([0.5])):
        assert course.expect(value, between=(0, 1), why="a share") == float(value)
    course.expect(1e9, between=(0, math.inf), why="a count")
    assert capsys.readouterr().out.count("ok: a share") == 6
    assert len(cfg.expectations) == 7 and all(one["met"] for one in cfg.expectations)
    assert read(cfg.out / "run.json")["expectations"] == cfg.expectations


@pytest.mark.parametrize("value", [1.01, -0.01, math.nan, math.inf, -math.inf, torch.tensor(math.nan), np.float64("nan")])
def test_expect_fails_outside_the_band_and_for_nan(runs, value):
    cfg = course.start("00_a")
    with pytest.raises(course.ExpectationError, match="a share: between 0 and 1, but it is"):
        course.expect(value, between=(0, 1), why="a share")
    assert [one["met"] for one in read(cfg.out / "run.json")["expectations"]] == [False]


def test_nan_is_outside_even_an_open_band(runs):
    course.start("00_a")
    with pytest.raises(course.ExpectationError):
        course.expect(math.nan, between=(-math.inf, math.inf), why="anything")


def test_expect_refuses_a_band_that_can_say_nothing(runs):
    course.start("00_a")
    for between in [(1, 0), (math.nan, 1), (0, math.nan)]:
        with pytest.raises(ValueError, match="lowest, highest"):
            course.expect(0.5, between=between, why="a share")
    with pytest.raises(ValueError, match="Say why"):
        course.expect(0.5, between=(0, 1), why=" ")
    with pytest.raises(TypeError, match="mean"):
        course.expect(torch.ones(3), between=(0, 1), why="a vector")


def test_exercises_never_stop_a_reader(runs, capsys):
    cfg = course.start("00_a")
    assert not course.exercise("1", None, lambda answer: True)
    assert not course.exercise("2", 4, lambda answer: answer == 5)
    assert not course.exercise("3", lambda x: x, lambda answer: 1 / 0)
    assert course.exercise("4", 5, lambda answer: answer == 5)
    said = capsys.readouterr().out
    assert (
        "1: still open" in said and "2: not yet" in said and "3: not yet: ZeroDivisionError" in said and "4: solved" in said
    )
    assert cfg.exercises == {"1": "open", "2": "wrong", "3": "wrong", "4": "solved"}


@pytest.mark.parametrize("answer", [None, 4])
def test_an_open_or_wrong_solution_is_an_error_when_solutions_run(runs, monkeypatch, answer):
    monkeypatch.setenv("KINELIB_HEADLESS", "solutions")
    cfg = course.start("00_a")
    assert cfg.out == runs / "smoke" / "solutions" / "00_a" and not cfg.interactive
    with pytest.raises(course.ExpectationError, match="solution of exercise 1"):
        course.exercise("1", answer, lambda value: value == 5)


def test_record_writes_scalars_of_every_kind(runs):
    cfg = course.start("00_a", seed=2, steps=3)
    course.expect(1, between=(0, 2), why="one")
    course.record({"a": 1, "b": np.float32(0.5), "c": torch.tensor(2), "d": "text", "e": None, "f": True})
    written = read(cfg.out / "metrics.json")
    assert written["metrics"] == {"a": 1, "b": 0.5, "c": 2, "d": "text", "e": None, "f": True}
    assert (written["seed"], written["overrides"], written["expectations_met"]) == (2, {"steps": 3}, 1)
    assert lesson.metrics_of("00_a") == written["metrics"] and lesson.metrics_of("01_b") == {}


@pytest.mark.parametrize(
    ("metrics", "error"),
    [
        ({"a": [1, 2]}, TypeError),
        ({"a": torch.ones(2)}, TypeError),
        ({"a": {"b": 1}}, TypeError),
        ({"a": object()}, TypeError),
        ({1: 2}, TypeError),
        ({"a": math.nan}, ValueError),
        ({"a": torch.tensor(math.inf)}, ValueError),
        ({}, ValueError),
    ],
)
def test_record_refuses_what_is_no_number_and_keeps_the_older_file(runs, metrics, error):
    cfg = course.start("00_a")
    course.record({"good": 1})
    before = (cfg.out / "metrics.json").read_bytes()
    with pytest.raises(error):
        course.record(metrics)
    assert (cfg.out / "metrics.json").read_bytes() == before
    assert sorted(path.name for path in cfg.out.iterdir()) == ["metrics.json", "run.json"]


def draw_line(value):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, value])
    return fig


def test_save_figure_lists_what_made_it_and_is_repeatable(runs):
    cfg = course.start("00_a", seed=5)
    path = course.save_figure(draw_line(1), "a-line", made_by=draw_line)
    first = path.read_bytes()
    assert path.name == "00_a-a-line.png" and first.startswith(b"\x89PNG")
    assert course.save_figure(draw_line(1), "a-line", made_by=draw_line).read_bytes() == first
    (entry,) = read(cfg.out / "figures.json")["figures"]
    assert entry["sha256"] == hashlib.sha256(first).hexdigest()
    assert (entry["notebook"], entry["profile"], entry["seed"]) == ("00_a", "smoke", 5)
    assert entry["function"].endswith("draw_line")


def test_a_smoke_figure_is_marked_and_the_figure_itself_is_not_changed(runs):
    course.start("00_a", "smoke")
    fig = draw_line(1)
    smoke = course.save_figure(fig, "line").read_bytes()
    assert fig.texts == []
    course.start("00_a", "paper")
    assert course.save_figure(fig, "line").read_bytes() != smoke


def test_save_figure_refuses_names_and_things(runs):
    course.start("00_a")
    with pytest.raises(ValueError, match="joined by hyphens"):
        course.save_figure(draw_line(1), "../line")
    with pytest.raises(TypeError, match="matplotlib figure"):
        course.save_figure(np.zeros((2, 2)), "line")


def test_publish_fills_the_gallery_and_takes_out_what_is_gone(runs, tmp_path):
    gallery = tmp_path / "gallery"
    cfg = course.start("00_a")
    course.save_figure(draw_line(1), "one")
    course.save_figure(draw_line(2), "two")
    assert figures.publish(["00_a"], "smoke", gallery) == ["00_a-one.png", "00_a-two.png"]
    (cfg.out / "figures.json").unlink()
    course.save_figure(draw_line(3), "two")
    assert figures.publish(["00_a"], "smoke", gallery) == ["00_a-two.png"]
    assert sorted(path.name for path in gallery.iterdir()) == ["00_a-two.png", "manifest.json"]
    with pytest.raises(FileNotFoundError, match="run 01"):
        figures.publish(["01_b"], "smoke", gallery)
    assert len(read(gallery / "manifest.json")["figures"]) == 1


def test_show_source_shows_code_without_docstrings(runs, capsys):
    course.show_source(course.expect)
    said = capsys.readouterr().out
    assert said.startswith("# kinelib/course/expectations.py, line ") and "def expect(" in said and "Args:" not in said
    course.show_source(course.expect, docstring=True)
    assert "Args:" in capsys.readouterr().out
    with pytest.raises(TypeError, match="show_source takes"):
        course.show_source(3)


def test_a_body_that_is_only_a_docstring_survives():
    source = 'class A:\n    """Nothing."""\n\n    def f(self):\n        """Says."""\n        return 1'
    shown = without_docstrings(source)
    assert shown == "class A:\n\n    def f(self):\n        return 1"
    assert without_docstrings('def f():\n    """Only."""') == 'def f():\n    """Only."""'
