"""Files of constraints come back as they were, ours and the release's, and anything wrong is named with its remedy."""

import json
import math

import pytest
import torch
from moving import swaying

from kinelib.bodies.features import FeatureLayout, encode
from kinelib.bodies.kinematics import forward
from kinelib.bodies.rotations import axis_angle
from kinelib.bodies.skeletons import SMPLX22, SOMA30
from kinelib.kimodo.conditions import compile_constraints
from kinelib.kimodo.constraint_files import load_constraints, save_constraints
from kinelib.kimodo.constraint_makers import end_effectors, keyframes
from kinelib.kimodo.constraints import (
    ConstraintError,
    Contacts,
    EndEffector,
    FromClip,
    FullBody,
    Heading,
    RootPath,
    RootWaypoints,
)
from kinelib.kimodo.official_constraints import Request, load_official, load_request, save_official, save_request

MOTION = swaying(50)
PATH = encode(MOTION)[:, [0, 2]]
LAYOUT = FeatureLayout(SMPLX22)
EVERY = [
    keyframes(MOTION, (3, 30), rotations=True),
    end_effectors(MOTION, (10,)),
    end_effectors(MOTION, (12,), ("left_foot",), rooted=False, space="root"),
    RootWaypoints((5,), PATH[[5]], torch.tensor([0.5])),
    RootPath(20, PATH[20:25]),
    Heading((40,), torch.tensor([1.0])),
    Contacts((44,), torch.tensor([[True, False]]), ("left_toe", "right_toe")),
    FromClip(MOTION.slice(0, 8), 42, 2, 6),
]


def compiled(constraints, frames=50):
    return compile_constraints(constraints, LAYOUT, frames, 20.0)


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# ---- ours


def test_every_type_comes_back(tmp_path):
    save_constraints(tmp_path / "all.json", EVERY, SMPLX22, 20.0, 50)
    found = load_constraints(tmp_path / "all.json")
    assert (found.skeleton.name, found.fps, found.frames) == ("smplx22", 20.0, 50)
    assert [type(one) for one in found.constraints] == [type(one) for one in EVERY]
    here, there = compiled(EVERY), compiled(found.constraints)
    assert torch.equal(here.mask, there.mask) and torch.equal(here.floating, there.floating)
    torch.testing.assert_close(here.target, there.target, atol=2e-4, rtol=0)
    torch.testing.assert_close(found.constraints[1].pose.local, EVERY[1].pose.local, atol=1e-5, rtol=0)


def test_the_file_says_what_it_is(tmp_path):
    save_constraints(tmp_path / "one.json", EVERY[3:4], SMPLX22, 20.0)
    content = json.loads((tmp_path / "one.json").read_text())
    assert content["version"] == 1 and content["skeleton"] == "smplx22" and content["units"]["length"] == "metres"
    assert content["constraints"][0]["type"] == "root-waypoints" and content["constraints"][0]["frames"] == [5]


def test_a_list_that_does_not_fit_is_not_written(tmp_path):
    with pytest.raises(ConstraintError, match="frame 30 is outside"):
        save_constraints(tmp_path / "bad.json", EVERY, SMPLX22, 20.0, 20)
    assert not (tmp_path / "bad.json").exists()


HEAD = {"format": "kinelib constraints", "version": 1, "skeleton": "smplx22", "fps": 20, "frames": 50, "constraints": []}
WAYPOINT = {"type": "root-waypoints", "frames": [5], "xz": [[0.0, 1.0]]}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"format": "other"}, "format", "no file of constraints"),
        ({"version": 9}, "version", "Update kinelib"),
        ({"version": None}, "version", "is not 1"),
        ({"skeleton": "octopus"}, "skeleton", "unknown skeleton 'octopus'"),
        ({"fps": 0}, "fps", "no frame rate"),
        ({"fps": "fast"}, "fps", "no frame rate"),
        ({"units": {"length": "centimetres", "angle": "radians"}}, "units", "Convert"),
        ({"frames": -2}, "frames", "no number of frames"),
        ({"constraints": {}}, "constraints", "no list"),
    ],
)
def test_a_wrong_head_is_named(tmp_path, change, field, words):
    with pytest.raises(ConstraintError, match=words) as caught:
        load_constraints(written(tmp_path / "it.json", HEAD | change))
    assert caught.value.field == field and str(caught.value).startswith("it.json")


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"type": "teleport"}, "type", "no type 'teleport'.*full-body"),
        ({"xz": None}, "xz", "is missing"),
        ({"xz": [[0.0, 1.0, 2.0]]}, "xz", r"got \(1, 3\)"),
        ({"xz": [[0.0, 1.0], [2.0]]}, "xz", "no array of numbers"),
        ({"xz": [["a", "b"]]}, "xz", "no array of numbers"),
        ({"xz": [[math.nan, 0.0]]}, "xz", "NaN"),
        ({"frames": [2.5]}, "frames", "not whole"),
        ({"frames": 5}, "frames", "no list of frames"),
        ({"frames": [-5]}, "frames", "negative"),
        ({"frames": [70]}, "frames", "outside the motion"),
        ({"colour": "red"}, "colour", "no such field"),
    ],
)
def test_a_wrong_constraint_is_named_with_its_number(tmp_path, change, field, words):
    content = HEAD | {"constraints": [WAYPOINT, WAYPOINT | change]}
    with pytest.raises(ConstraintError, match=words) as caught:
        load_constraints(written(tmp_path / "it.json", content))
    error = caught.value
    assert (error.field, error.index, error.file) == (field, 1, "it.json") and error.remedy
    assert str(error).startswith("it.json, constraint 1")


def test_files_that_are_cut_off_or_foreign(tmp_path):
    save_constraints(tmp_path / "all.json", EVERY, SMPLX22, 20.0, 50)
    text = (tmp_path / "all.json").read_text()
    for length in (0, 1, 50, len(text) // 2, len(text) - 1):
        with pytest.raises(ConstraintError, match="cut.json"):
            load_constraints(written(tmp_path / "cut.json", text[:length]))
    with pytest.raises(ConstraintError, match="load_official"):
        load_constraints(written(tmp_path / "list.json", []))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConstraintError, match="no text"):
        load_constraints(tmp_path / "bytes.json")
    with pytest.raises(ConstraintError, match="for 'smplx22', not for 'soma30'"):
        load_constraints(tmp_path / "all.json", SOMA30)
    with pytest.raises(FileNotFoundError):
        load_constraints(tmp_path / "none.json")


# ---- the release's

POSED = [
    keyframes(MOTION, (3, 30)),
    end_effectors(MOTION, (10, 11), ("left_hand",)),
    end_effectors(MOTION, (12,), ("left_foot", "right_hand", "pelvis")),
    RootWaypoints((5, 6), PATH[[5, 6]], torch.tensor([0.5, -3.0])),
    RootPath(20, PATH[20:25]),
]


def test_the_release_s_types_come_back(tmp_path):
    save_official(tmp_path / "c.json", POSED, SMPLX22)
    content = json.loads((tmp_path / "c.json").read_text())
    assert [one["type"] for one in content] == ["fullbody", "left-hand", "end-effector", "root2d", "root2d"]
    assert sorted(content[2]["joint_names"]) == ["Hips", "LeftFoot", "RightHand"]
    here, there = compiled(POSED), compiled(load_official(tmp_path / "c.json", SMPLX22))
    assert torch.equal(here.mask, there.mask)
    torch.testing.assert_close(here.target, there.target, atol=2e-4, rtol=0)


def test_a_hand_written_file_pins_what_the_release_pins(tmp_path):
    local, root = MOTION.rotations[[7]], MOTION.root[[7]]
    pose = {"frame_indices": [9], "local_joints_rot": axis_angle(local).tolist(), "root_positions": root.tolist()}
    entries = [
        {"type": "fullbody", **pose},
        {"type": "root2d", "frame_indices": [2], "smooth_root_2d": [[1.0, 9.0, 2.0]], "global_root_heading": [[0.0, 2.0]]},
    ]
    body, waypoint = load_official(written(tmp_path / "c.json", entries), SMPLX22)
    torch.testing.assert_close(body.positions, forward(local, root, SMPLX22)[0], atol=1e-5, rtol=0)
    assert isinstance(body, FullBody) and body.root is None and not body.pin_rotations
    assert waypoint.xz.tolist() == [[1.0, 2.0]], "three columns are x, y, z"
    assert float(waypoint.heading) == pytest.approx(math.pi / 2)
    (hand,) = load_official(written(tmp_path / "c.json", [{"type": "right-hand", **pose}]), SMPLX22)
    assert hand.joints == ("right_wrist",) and hand.turned == ("right_wrist",) and hand.root is not None


@pytest.mark.parametrize(
    ("entry", "field", "words"),
    [
        ({"type": "root3d"}, "type", "no type 'root3d'"),
        ({"type": "root2d", "frame_indices": [1]}, "smooth_root_2d", "is missing"),
        ({"type": "root2d", "frame_indices": [-1], "smooth_root_2d": [[0, 0]]}, "frame_indices", "negative"),
        ({"type": "root2d", "frame_indices": [1, 1], "smooth_root_2d": [[0, 0]] * 2}, "frame_indices", "listed twice"),
        ({"type": "root2d", "frame_indices": [1, 2], "smooth_root_2d": [[0, 0]]}, "smooth_root_2d", "one row"),
        (
            {"type": "root2d", "frame_indices": [1], "smooth_root_2d": [[0, 0]], "global_root_heading": [[0, 0]]},
            "global_root_heading",
            "no direction",
        ),
        (
            {
                "type": "fullbody",
                "frame_indices": [1],
                "local_joints_rot": [[[0, 0, 0]] * 77],
                "root_positions": [[0, 1, 0]],
            },
            "local_joints_rot",
            "77-joint output",
        ),
        (
            {
                "type": "end-effector",
                "frame_indices": [1],
                "local_joints_rot": [[[0, 0, 0]] * 22],
                "root_positions": [[0, 1, 0]],
                "joint_names": ["Tail"],
            },
            "joint_names",
            "no group 'Tail'",
        ),
    ],
)
def test_what_the_release_would_swallow_is_named(tmp_path, entry, field, words):
    with pytest.raises(ConstraintError, match=words) as caught:
        load_official(written(tmp_path / "c.json", [entry]), SMPLX22)
    assert (caught.value.field, caught.value.index, caught.value.file) == (field, 0, "c.json")


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        (Heading((1,), torch.zeros(1)), "type"),
        (EVERY[0], "pin_rotations"),
        (FullBody((1,), torch.zeros(1, 22, 3)), "rotations"),
        (end_effectors(MOTION, (1,), rooted=False), "root"),
        (EndEffector((1,), ("left_wrist",), torch.zeros(1, 1, 3), root=torch.zeros(1, 3)), "pose"),
        (end_effectors(MOTION, (1,), ("left_hand", "head")), "joints"),
    ],
)
def test_what_the_release_cannot_hold_is_not_written(tmp_path, constraint, field):
    with pytest.raises(ConstraintError) as caught:
        save_official(tmp_path / "c.json", [constraint], SMPLX22)
    assert caught.value.field == field and caught.value.index == 0 and not (tmp_path / "c.json").exists()


def test_our_files_and_the_release_s_are_told_apart(tmp_path):
    save_constraints(tmp_path / "ours.json", EVERY, SMPLX22, 20.0)
    with pytest.raises(ConstraintError, match="load_constraints"):
        load_official(tmp_path / "ours.json", SMPLX22)


@pytest.mark.parametrize(
    "request_", [Request(("A person walks.",), (5.0,)), Request(("a", "b"), (2.0, 3.5), 4, 7, 50, False, 1.0, 3.0)]
)
def test_meta_comes_back(tmp_path, request_):
    save_request(tmp_path / "meta.json", request_)
    assert load_request(tmp_path / "meta.json") == request_


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ([], ""),
        ({"duration": 3.0}, "text"),
        ({"text": "a", "texts": ["a"], "duration": 1.0}, "text"),
        ({"text": 5, "duration": 1.0}, "text"),
        ({"text": "a"}, "duration"),
        ({"text": "a", "duration": -1.0}, "duration"),
        ({"texts": ["a", "b"], "durations": [1.0]}, "durations"),
        ({"text": "a", "duration": 1.0, "num_samples": 0}, "num_samples"),
        ({"text": "a", "duration": 1.0, "diffusion_steps": "many"}, "diffusion_steps"),
        ({"text": "a", "duration": 1.0, "cfg": {"text_weight": "big"}}, "cfg"),
        ({"text": "a", "duration": 1.0, "cfg": 2}, "cfg"),
    ],
)
def test_a_wrong_meta_is_named(tmp_path, content, field):
    with pytest.raises(ConstraintError) as caught:
        load_request(written(tmp_path / "meta.json", content))
    assert caught.value.field == field and caught.value.file == "meta.json"
