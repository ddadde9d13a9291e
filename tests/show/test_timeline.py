"""The authoring widget from Python: scripts, their history, constraints that the model's room reads, runs on a thread."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from walks import walk

from kinelib.kimodo.constraint_files import load_constraints
from kinelib.show.motion_script import Script, Waypoint, evenly, read_script
from kinelib.show.timeline import MotionAuthor

CLIPS = {"a walk": walk(2.0, turn=0.8), "a wave": walk(1.5, speed=0.0, wave=True)}


def generate(prompts, seconds, constraints, *, samples, seed, watch):
    """A model that walks, whatever it is told."""
    watch(1, 2)
    return [walk(sum(seconds), turn=0.3 * (seed + sample)) for sample in range(samples)]


@pytest.fixture
def author():
    author = MotionAuthor(generate, CLIPS)
    author.prompt("A person walks.", 4.0)
    author.prompt("A person waves.", 3.0)
    return author


# ---- scripts


def test_everything_a_hand_can_do_can_be_said(author):
    author.waypoint(1.0, 2.0, 3.0, heading=0.5)
    author.waypoint(0.2, 0.5, 1.0)
    author.path([(1, 2), (1, 3), (2, 3)], start=4.0)
    author.keyframe("a walk", 10, 2.0)
    author.keyframe(CLIPS["a wave"], 5, 5.0, "left_hand", x=2.0, z=3.0, turn=0.4)
    script = author.script
    assert [one["text"] for one in script["prompts"]] == ["A person walks.", "A person waves."]
    assert [one["seconds"] for one in script["waypoints"]] == [1.0, 3.0], "in the order of time"
    assert script["paths"][0]["stop"] == pytest.approx(4.0 + 2 / 1.1, abs=1e-3)
    assert [key["clip"] for key in script["keys"]] == ["a walk", "a wave"]
    assert author.seconds == [4.0, 3.0] and repr(author) == "MotionAuthor(2 prompts, 2 waypoints, 1 paths, 2 keys, 7 s)"
    author.remove("waypoints", 0)
    assert len(author.script["waypoints"]) == 1
    author.keyframe(walk(1.0), 3, 6.0)
    assert author.script["keys"][-1]["clip"] == "clip" and len(author.clips["samples"]) == 3


def test_history_goes_back_and_forth(author):
    author.waypoint(1.0, 2.0, 3.0)
    assert author.can_undo and not author.can_redo
    assert author.undo() and not author.script["waypoints"] and author.can_redo
    assert author.redo() and len(author.script["waypoints"]) == 1
    author.undo()
    author.clear()
    assert not author.can_redo and not author.script["prompts"]
    while author.undo():
        pass
    assert author.script == Script().plain() and not author.undo()
    for _ in range(2):
        author.redo()
    assert len(author.script["prompts"]) == 2
    before = len(author._past)
    author.remove("prompts", 1)
    author.undo()
    assert len(author._past) == before


def test_a_key_takes_the_place_of_one_of_its_part_at_its_time(author):
    for frame in (1, 2):
        author.keyframe("a walk", frame, 2.0, "left_foot")
    author.keyframe("a walk", 3, 2.0, "right_foot")
    assert [(key["part"], key["frame"]) for key in author.script["keys"]] == [("left_foot", 2), ("right_foot", 3)]


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda it: it.prompt("x", 1.0), "prompt 3, field seconds: 1 is out of range; use 2 to 10"),
        (lambda it: it.prompt(None), "prompt 3, field text"),
        (lambda it: it.waypoint(math.nan, 0, 1), "waypoint 1, field x: nan is no number"),
        (lambda it: it.waypoint(900, 0, 1), "waypoint 1, field x: 900 is out of range"),
        (lambda it: it.waypoint(0, 0, -1), "field seconds"),
        (lambda it: it.path([(0, 0)]), "two or more"),
        (lambda it: it.path([(0, 0), (0, 1)], start=3, stop=2), "not after its start"),
        (lambda it: it.keyframe("a dance", 0, 1), "there is no clip 'a dance'; there are a walk, a wave"),
        (lambda it: it.keyframe("a walk", 99, 1), "is not in a walk, which has 40 frames"),
        (lambda it: it.keyframe("a walk", 1, 1, "tail"), "there is no 'tail'; use full_body"),
        (lambda it: it.remove("prompts", 7), "there are 2 prompts; 7 is none"),
        (lambda it: it.remove("dances", 0), "0 dances"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(author, do, words):
    before = dict(author.script)
    with pytest.raises(ValueError, match=words):
        do(author)
    assert author.script == before and len(author._past) == 2


def test_what_is_no_motion_or_callable_is_refused(author):
    with pytest.raises(TypeError, match="clip's name"):
        author.keyframe(3, 0, 1.0)
    with pytest.raises(TypeError, match="must be a callable"):
        MotionAuthor("kimodo")
    with pytest.raises(TypeError, match="clip 'a' is a str"):
        MotionAuthor(generate, {"a": "walk.npz"})
    for plain, words in (({"dances": []}, "dances is unknown"), ({"prompts": [{"text": "x"}]}, "prompt 1"),
                         ({"waypoints": [{"x": 0, "z": 0, "seconds": 1, "y": 2}]}, "no field 'y'")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            read_script(plain, {})


def test_scripts_are_kept_as_files(author, tmp_path):
    author.keyframe("a walk", 10, 2.0, x=1.0, z=0.5)
    author.path([(0, 0), (0, 1)])
    path = author.save_script(tmp_path / "script.json")
    other = MotionAuthor(generate, CLIPS)
    other.load_script(path)
    assert other.script == author.script and other.undo()


# ---- constraints


def test_constraints_are_what_the_models_room_reads(author, tmp_path):
    author.waypoint(0.4, 1.8, 1.8, heading=0.4)
    author.waypoint(1.2, 3.2, 3.6)
    author.path([(1.2, 3.2), (2.4, 4.5)], start=4.2, stop=6.0)
    author.keyframe("a walk", 20, 1.0)
    author.keyframe("a wave", 12, 6.5, "left_hand", x=2.4, z=4.5)
    author.keyframe("a walk", 30, 3.0, "right_foot")
    kinds = [one["type"] for one in author.constraints]
    assert kinds == ["root-waypoints", "root-waypoints", "root-path", "full-body", "end-effector", "end-effector"]
    assert json.loads(json.dumps(author.constraints)) == author.constraints, "plain data"
    read = load_constraints(author.save_constraints(tmp_path / "asked.json"))
    assert (read.skeleton.name, read.fps, read.frames) == ("smplx22", 20.0, 140)
    free, turned, path, pose, foot, hand = read.constraints
    assert turned.frames == (36,) and free.frames == (72,) and free.heading is None
    torch.testing.assert_close(turned.heading, torch.tensor([0.4]))
    assert path.frames == tuple(range(84, 121))
    torch.testing.assert_close(path.xz[[0, -1]], torch.tensor([[1.2, 3.2], [2.4, 4.5]]))
    assert pose.frames == (20,) and foot.frames == (60,) and hand.frames == (130,)
    torch.testing.assert_close(pose.positions[0], CLIPS["a walk"].positions()[20], atol=1e-5, rtol=0)
    torch.testing.assert_close(pose.rotations[0], CLIPS["a walk"].global_rotations()[20], atol=1e-4, rtol=0)
    assert (pose.root - CLIPS["a walk"].root[20:21, [0, 2]]).norm() < 0.061
    assert (
        hand.joints == ("left_wrist",) and foot.joints == ("right_ankle", "right_foot") and foot.turned == ("right_ankle",)
    )
    pelvis, wrist = CLIPS["a wave"].root[12], CLIPS["a wave"].positions()[12, 20]
    torch.testing.assert_close(hand.positions[0, 0], wrist - pelvis * torch.tensor([1, 0, 1]) + torch.tensor([2.4, 0, 4.5]))


def test_a_key_is_turned_about_its_root(author):
    author.keyframe("a walk", 20, 1.0, x=3.0, z=-1.0, turn=math.pi / 2)
    (pose,) = author.constraints
    points, clip = np.array(pose["positions"][0]), CLIPS["a walk"].positions()[20].numpy()
    away = clip - clip[0]
    np.testing.assert_allclose(points[0, [0, 2]], [3.0, -1.0], atol=1e-5)
    np.testing.assert_allclose(points - points[0], np.stack([away[:, 2], away[:, 1], -away[:, 0]], -1), atol=1e-5)
    smooth = np.hypot(*(np.array(pose["root"][0]) - [3.0, -1.0]))
    assert smooth < 0.061


def test_the_end_is_the_last_frame_and_nothing_is_asked_after_it(author):
    author.waypoint(0, 1, 7.0)
    assert author.constraints[0]["frames"] == [139]
    author.waypoint(0, 2, 8.0)
    with pytest.raises(ValueError, match="at 8.00 s, after the end at 7.00 s"):
        author.constraints  # noqa: B018
    author.undo()
    author.waypoint(0, 2, 6.99)
    with pytest.raises(ValueError, match="two waypoints are at"):
        author.generate()


def test_paths_are_walked_at_even_speed():
    rows = evenly([(0, 0), (0, 1), (3, 1)], 9)
    np.testing.assert_allclose(np.hypot(*np.diff(rows, axis=0).T), 0.5, atol=1e-12)
    np.testing.assert_allclose(evenly([(1, 2), (1, 2)], 3), [[1, 2]] * 3)


# ---- generating


def test_generating_runs_elsewhere_and_shows_what_comes(author):
    where = []

    def model(prompts, seconds, constraints, *, samples, seed):
        where.append((threading.current_thread().name, prompts, seconds, constraints, samples, seed))
        return [walk(2.0) for _ in range(samples)]

    author = MotionAuthor(model, CLIPS, samples=2, seed=5)
    with pytest.raises(ValueError, match="nothing has been generated"):
        author.result  # noqa: B018
    with pytest.raises(ValueError, match="there is no prompt"):
        author.generate()
    author.prompt("A person walks.", 2.0)
    author.waypoint(0.0, 1.0, 1.0, heading=0.2)
    author.keyframe("a walk", 3, 1.5)
    author.keyframe("a walk", 3, 1.5, "left_hand")
    motions = author.generate()
    ((name, prompts, seconds, constraints, samples, seed),) = where
    assert name == "kinelib-latest" and (prompts, seconds, samples, seed) == (["A person walks."], [2.0], 2, 5)
    assert constraints == author.constraints and len(motions) == 2
    assert len(author.scene["samples"]) == 2 and author.frames == 40 and not author.busy and "2 motions" in author.status
    kinds = [sorted(target) for target in author.targets]
    assert kinds == [["at", "heading", "x", "z"], ["at", "pose"], ["at", "x", "y", "z"]]
    assert len(author.targets[1]["pose"]) == 3 * author.scene["samples"][0]["points"]


def test_progress_and_errors_are_told():
    go = threading.Event()

    def model(prompts, seconds, constraints, *, samples, seed, watch):
        watch(1, 4)
        go.wait(10)
        raise RuntimeError("the model is out of sorts") if seed else ValueError("this prompt is too long")

    author = MotionAuthor(model)
    author.prompt("A person walks.", 2.0)
    author.generate(wait=False)
    ends = time.monotonic() + 10
    while author.progress != 0.25 and time.monotonic() < ends:
        author._collect(0.05)
    assert author.progress == 0.25 and author.busy
    go.set()
    with pytest.raises(ValueError, match="too long"):
        author.result  # noqa: B018
    assert author.error == "this prompt is too long" and not author.busy
    author.seed = 1
    with pytest.raises(RuntimeError):
        author.generate()
    assert author.error == "RuntimeError: the model is out of sorts"
    author.prompt("Again.", 2.0)
    assert author.error == ""


def test_what_is_no_motion_is_told_too():
    author = MotionAuthor(lambda *args, samples, seed: ["no motion"])
    author.prompt("A person walks.", 2.0)
    with pytest.raises(TypeError, match="motion 0 is a str"):
        author.generate()
    assert "motion 0 is a str" in author.error


def test_a_newer_run_takes_the_place_of_an_older_one():
    first = threading.Event()

    def model(prompts, seconds, constraints, *, samples, seed):
        if seed == 0:
            first.wait(10)
        return [walk(1.0 + seed)]

    author = MotionAuthor(model)
    author.prompt("A person walks.", 2.0)
    author.generate(wait=False)
    author.seed = 1
    author.generate(wait=False)
    first.set()
    assert len(author.result[0]) == 40


def test_an_author_can_be_awaited(author):
    async def ask():
        author.generate(wait=False)
        return await author.settled()

    # In a thread of its own: browser tests that ran before leave a running loop in this one.
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(lambda: asyncio.run(ask())).result(30)[0]) == 140


# ---- from the page


def test_edits_of_the_page_count_when_they_are_sound(author):
    edit = lambda **changes: author._handle_custom_msg({"kind": "edit", "script": author.script | changes}, [])
    edit(waypoints=[{"x": 1, "z": 2, "seconds": 3, "heading": None}])
    assert author._script.waypoints == (Waypoint(1.0, 2.0, 3.0, None),) and author.can_undo
    edit(prompts=[{"text": "A person walks.", "seconds": 30}])
    assert "out of range" in author.error and author.seconds == [4.0, 3.0]
    author._handle_custom_msg({"kind": "edit"}, [])
    assert author.prompts == [] and author.error == ""
    for kind in ("undo", "undo", "redo"):
        author._handle_custom_msg({"kind": kind}, [])
    assert len(author.script["waypoints"]) == 1 and author.error == ""
    author._handle_custom_msg({"kind": "generate"}, [])
    assert len(author.result) == 1
    author.clear()
    author._handle_custom_msg({"kind": "generate"}, [])
    assert "there is no prompt" in author.error
    author._handle_custom_msg({"kind": "nonsense"}, [])


def test_the_picture_shows_what_is_asked_and_what_came(author):
    asked = author.snapshot(480)
    author.waypoint(1.0, 2.0, 3.0, heading=0.5)
    author.keyframe("a walk", 10, 2.0)
    author.path([(1, 2), (1, 3)], start=4.0)
    more = author.snapshot(480)
    assert asked.shape == more.shape and np.abs(asked.astype(int) - more).mean() > 0.3
    author.generate()
    both = author.snapshot(480, poses=4)
    assert both.shape[0] > 2 * more.shape[0] and both[more.shape[0] :].std() > 15
