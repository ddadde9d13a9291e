"""BVH files in and out: every order of joints and channels, faults by file and line, and all the real files there are."""

from __future__ import annotations

import math
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from kinelib.bodies.bvh import BvhError, parse_bvh, read_bvh
from kinelib.bodies.bvh_write import bvh_text, write_bvh
from kinelib.bodies.joint_names import human_parts
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, from_axis_angle
from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30

DATA = Path(os.environ.get("KINELIB_DATA", "no such folder"))


def archive(name: str) -> zipfile.ZipFile:
    if not (DATA / name).is_file():
        pytest.skip(f"KINELIB_DATA holds no {name}")
    return zipfile.ZipFile(DATA / name)


def clips_of(file: zipfile.ZipFile) -> list[str]:
    return [name for name in file.namelist() if name.endswith(".bvh")]


ARM = """HIERARCHY
ROOT hip
{{
    OFFSET 0 1 0
    CHANNELS 6 {root}
    JOINT elbow
    {{
        OFFSET 0 1 0
        CHANNELS {joint}
        End Site
        {{
            OFFSET 0 0.5 0
        }}
    }}
}}
MOTION
Frames: {frames}
Frame Time: 0.05
{rows}
"""
ROOT = "Xposition Yposition Zposition Zrotation Xrotation Yrotation"


def arm(rows: str, root: str = ROOT, joint: str = "3 Zrotation Xrotation Yrotation", frames: int | None = None) -> str:
    return ARM.format(root=root, joint=joint, rows=rows, frames=rows.count("\n") + 1 if frames is None else frames)


def random_motion(skeleton=SMPLX22, frames: int = 7, seed: int = 0) -> Motion:
    draw = torch.Generator().manual_seed(seed)
    turns = from_axis_angle(torch.randn(frames, len(skeleton), 3, generator=draw))
    return Motion(turns, 3 + 0.3 * torch.randn(frames, 3, generator=draw), 20.0, skeleton)


# ---- what numbers mean


@pytest.mark.parametrize("axis", "XYZ")
@pytest.mark.parametrize("angle", [90.0, -30.0])
def test_one_turn_about_each_axis(axis, angle):
    motion = parse_bvh(arm(f"0 1 0 0 0 0 {angle}", joint=f"1 {axis}rotation"), "arm").motion(scale=1)
    vector = torch.zeros(3)
    vector["XYZ".index(axis)] = math.radians(angle)
    torch.testing.assert_close(motion.rotations[0, 1], from_axis_angle(vector))
    torch.testing.assert_close(motion.positions()[0], torch.tensor([[0.0, 1, 0], [0, 2, 0]]))


@pytest.mark.parametrize("order", ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX", "ZXZ"])
def test_turns_are_made_one_after_the_other_about_turned_axes(order):
    scipy = pytest.importorskip("scipy.spatial.transform")
    angles = [25.0, -70.0, 130.0]
    channels = "3 " + " ".join(f"{axis}rotation" for axis in order)
    motion = parse_bvh(arm("0 1 0 0 0 0 " + " ".join(map(str, angles)), joint=channels), "arm").motion(scale=1)
    expected = scipy.Rotation.from_euler(order, angles, degrees=True).as_matrix()
    np.testing.assert_allclose(motion.rotations[0, 1].numpy(), expected, atol=1e-6)


def test_channels_come_in_any_order():
    plain = parse_bvh(arm("0.1 1.2 0.3 10 20 30 40 50 60"), "a").motion(scale=1)
    mixed = "Zrotation Yposition Xrotation Zposition Yrotation Xposition"
    other = parse_bvh(arm("10 1.2 20 0.3 30 0.1 40 50 60", root=mixed), "b").motion(scale=1)
    torch.testing.assert_close(plain.positions(), other.positions())
    torch.testing.assert_close(plain.rotations, other.rotations)


def test_layout_is_free():
    text = arm("0 1 0 0 0 0 5 6 7")
    dense = "\ufeff" + re.sub(r"\n\s*\{", " {", text).replace("\n", "\r\n")
    a, b = parse_bvh(text, "a").motion(scale=1), parse_bvh(dense.removeprefix("\ufeff"), "b").motion(scale=1)
    torch.testing.assert_close(a.rotations, b.rotations)


def test_a_position_channel_replaces_the_offset_of_a_bone_or_repeats_zero():
    joint = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
    replaced = parse_bvh(arm("0 1 0 0 0 0 0 1 0 0 0 0\n0 2 0 0 0 0 0 1 0 0 0 0", joint=joint), "a")
    added = parse_bvh(arm("0 1 0 0 0 0 0 0 0 0 0 0\n0 2 0 0 0 0 0 0 0 0 0 0", joint=joint), "a")
    torch.testing.assert_close(replaced.motion(scale=1).positions(), added.motion(scale=1).positions())
    told = added.motion(scale=1, positions="replace")
    torch.testing.assert_close(told.positions()[1], torch.tensor([[0.0, 2, 0], [0, 2, 0]]))


def test_a_body_whose_root_channels_add_to_its_height_stands_on_the_floor():
    turns = torch.eye(3).repeat(5, len(SMPLX22), 1, 1)
    text = bvh_text(Motion(turns, torch.zeros(5, 3) + 0.94 * torch.tensor([0, 1.0, 0]), 20.0, SMPLX22))
    added = text.replace("0.000000 94.000000 0.000000 ", "0.000000 0.000000 0.000000 ")  # under an offset of 94 cm
    assert added.count("94.000000") == 1
    torch.testing.assert_close(parse_bvh(added, "a").motion().root, torch.tensor([0.0, 0.94, 0]).expand(5, 3))
    turns[:, 0] = from_axis_angle(torch.tensor([math.pi / 2, 0, 0]))  # on the face, the pelvis 15 cm up
    text = bvh_text(Motion(turns, torch.tensor([0.0, 0.15, 0]).expand(5, 3), 20.0, SMPLX22))
    torch.testing.assert_close(parse_bvh(text, "b").motion().root[:, 1], torch.full((5,), 0.15))


def test_a_bone_that_stretches_is_refused_and_can_be_had():
    joint = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
    rows = "0 1 0 0 0 0 0 1 0 0 0 0\n0 2 0 0 0 0 0 1 0 0 0 0\n0 3 0 0 0 0 0 1.0005 0 0 0 0"
    file = parse_bvh(arm(rows, joint=joint), "rubber.bvh")
    with pytest.raises(BvhError, match=r"rubber.bvh: the bone to joint elbow changes by 0.0005 m .* stretch=0.000505"):
        file.motion(scale=1, stretch=1e-4)
    assert float(file.motion(scale=1).skeleton.offsets[1, 1]) == 1.0


def test_a_wrapper_that_stands_still_is_folded_into_what_moves():
    joint = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
    rows = "1 0 0 0 0 90 0 1 0 0 0 0\n1 0 0 0 0 90 0 1 3 0 0 0"
    motion = parse_bvh(arm(rows, joint=joint).replace("OFFSET 0 1 0", "OFFSET 0 0 0", 1), "a").motion(scale=1)
    assert motion.skeleton.joints == ("elbow",) and motion.provenance["folded"] == ["hip"]
    # The wrapper turns +z towards +x: three metres ahead of it are three metres along x.
    torch.testing.assert_close(motion.root, torch.tensor([[1.0, 1, 0], [4.0, 1, 0]]))
    torch.testing.assert_close(motion.rotations[0, 0], about_y(torch.tensor(math.pi / 2)))


@pytest.mark.parametrize(("unit", "scale"), [(1.0, 1.0), (0.01, 0.01), (0.001, 0.001)])
def test_the_unit_is_told_by_the_size_of_the_body(unit, scale):
    assert parse_bvh(bvh_text(random_motion(), unit), "a").unit() == scale


def test_a_body_of_no_size_asks_for_the_scale():
    with pytest.raises(BvhError, match=r"tiny.bvh: .* 0\.02126 units.* scale="):
        parse_bvh(bvh_text(random_motion(SMPLX22), 50.0), "tiny.bvh").motion()


def test_frame_rates_that_a_file_rounds_are_whole_again():
    text = arm("0 1 0 0 0 0 0 0 0")
    rates = {"0.0333333": 30.0, "0.016667": 60.0, "0.008333": 120.0, "0.03336670": 1 / 0.0333667}
    for seconds, fps in rates.items():
        assert parse_bvh(text.replace("0.05", seconds), "a").motion(scale=1).fps == pytest.approx(fps, rel=1e-12)


# ---- faults


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("solid cube\nfacet", "line 1: is not a BVH file"),
        ("", "line 1: is not a BVH file"),
        (arm("0 1 0 0 0 0 0 0 0").split("MOTION")[0], "line 16: ends before its MOTION"),
        (arm("0 1 0 0 0 0 0 0 0\n0 1 0 0 0"), "line 20: frame 1 has 5 numbers, not 9; the file is cut short"),
        (arm("0 1 0 0 0 0 0 0 0", frames=4), "line 19: ends after 1 frames; its header promises 4"),
        (arm("0 1 0 0 0 0 0 0 0\n0 1 0 0 nan 0 0 0 0"), "line 20: 'nan' is not a number"),
        (arm("0 1 0 0 0 0 0 0 0\n0 1 0 0 oops 0 0 0 0"), "line 20: 'oops' is not a number"),
        (arm("0 1 0 0 0 0 0 0 0 0"), "line 19: frame 0 has 10 numbers, not 9"),
        (arm("0 1 0 0 0 0 0 0 0").replace("0.05", "0"), "line 17: 1 frames of 0 seconds"),
        (arm("0 1 0 0 0 0 0 0 0").replace("Frame Time", "Time"), "line 17: after MOTION come"),
        (arm("0 1 0 0 0 0 0 0 0").replace("0 0.5 0", "0 x 0"), "line 12: 'x' is not a number"),
        (arm("0 1 0 0 0 0 0 0 0").replace("0 0.5 0", "0 0.5"), "line 12: OFFSET takes three"),
        (arm("0 1 0 0 0 0 0 0 0").replace("3 Z", "2 Z"), "line 9: CHANNELS says 2 and lists 3"),
        (arm("0 1 0 0 0 0 0 0 0").replace("3 Zrot", "3 Wrot"), "line 9: unknown channel Wrotation"),
        (arm("0 1 0 0 0 0 0 0 0").replace("JOINT elbow", "JOINT hip"), "line 6: joint hip is there twice"),
        (arm("0 1 0 0 0 0 0 0 0").replace("JOINT elbow", "ROOT elbow"), "line 6: a file holds one ROOT"),
        (arm("0 1 0 0 0 0 0 0 0").replace("}\nMOTION", "MOTION"), "the hierarchy ends before its braces close"),
        (arm("0 1 0 0 0 0 0 0 0").replace("OFFSET 0 1 0", "", 1), "joint hip has no OFFSET"),
    ],
)
def test_faults_name_the_file_and_the_line(text, words):
    with pytest.raises(BvhError, match=r"bad\.bvh") as error:
        parse_bvh(text, "bad.bvh")
    assert words in str(error.value)


def test_arguments_out_of_range_are_refused():
    file = parse_bvh(arm("0 1 0 0 0 0 0 0 0"), "a")
    with pytest.raises(ValueError, match="scale must be above 0"):
        file.motion(scale=0)
    with pytest.raises(ValueError, match="'auto', 'replace' or 'add'"):
        file.motion(scale=1, positions="maybe")
    with pytest.raises(BvhError, match="has 1 frames, of which 1 were to be dropped"):
        file.motion(scale=1, drop=1)


# ---- there and back


@pytest.mark.parametrize("skeleton", [SMPLX22, SOMA30, G1_34, BANDAI22], ids=lambda one: one.name)
def test_written_and_read_again_a_motion_is_the_same(skeleton, tmp_path):
    motion = random_motion(skeleton)
    write_bvh(motion, tmp_path / "a.bvh")
    again = read_bvh(tmp_path / "a.bvh").motion()
    order = [again.skeleton.index(joint) for joint in skeleton.joints]
    torch.testing.assert_close(again.positions()[:, order], motion.positions(), atol=1e-4, rtol=0)
    torch.testing.assert_close(again.global_rotations()[:, order], motion.global_rotations(), atol=1e-5, rtol=0)
    torch.testing.assert_close(again.skeleton.offsets[order], skeleton.offsets, atol=1e-6, rtol=0)
    assert again.fps == motion.fps and again.skeleton.hips == skeleton.hips


def test_a_body_far_below_the_floor_stays_there():
    """Whatever the height: what is written never looks like a root that is to be added to its rest height."""
    for height in (-3.0, -1.9, -0.94, -0.5, -0.2, 0.0, 0.3, 0.94, 5.0):
        motion = Motion(torch.eye(3).repeat(4, 22, 1, 1), torch.tensor([0.0, height, 1.0]).repeat(4, 1), 20.0, SMPLX22)
        again = parse_bvh(bvh_text(motion), "a").motion()
        torch.testing.assert_close(again.root, motion.root, atol=1e-5, rtol=0)


def test_written_angles_have_no_jumps():
    turns = from_axis_angle(torch.linspace(0, 12, 100)[:, None, None] * torch.tensor([0.0, 1, 0]))
    motion = Motion(turns.expand(-1, len(SMPLX22), 3, 3), torch.zeros(100, 3), 20.0, SMPLX22)
    assert np.abs(np.diff(parse_bvh(bvh_text(motion), "a").values, axis=0)).max() < 10


def test_names_that_the_format_cannot_hold_are_refused(tmp_path):
    from dataclasses import replace

    odd = replace(SMPLX22, joints=("pel{vis", *SMPLX22.joints[1:]), groups={})
    with pytest.raises(ValueError, match=r"joint name 'pel\{vis'"):
        write_bvh(random_motion(odd), tmp_path / "a.bvh")
    assert not (tmp_path / "a.bvh").exists()


# ---- whose joints these are

MIXAMO = """
mixamorig:Hips - mixamorig:Spine 0 mixamorig:Spine2 1 mixamorig:Neck 2 mixamorig:Head 3 mixamorig:HeadTop_End 4
mixamorig:LeftShoulder 2 mixamorig:LeftArm 6 mixamorig:LeftForeArm 7 mixamorig:LeftHand 8 mixamorig:LeftHandThumb1 9
mixamorig:RightShoulder 2 mixamorig:RightArm 11 mixamorig:RightForeArm 12 mixamorig:RightHand 13
mixamorig:LeftUpLeg 0 mixamorig:LeftLeg 15 mixamorig:LeftFoot 16 mixamorig:LeftToeBase 17
mixamorig:RightUpLeg 0 mixamorig:RightLeg 19 mixamorig:RightFoot 20 mixamorig:RightToeBase 21
"""


def test_parts_are_found_under_many_names():
    words = MIXAMO.split()
    joints, parents = words[::2], [-1 if word == "-" else int(word) for word in words[1::2]]
    parts = {part: joints[joint].removeprefix("mixamorig:") for part, joint in human_parts(joints, parents).items()}
    assert parts["left_hip"] == "LeftUpLeg" and parts["left_knee"] == "LeftLeg" and parts["right_toe"] == "RightToeBase"
    assert parts["left_collar"] == "LeftShoulder" and parts["left_shoulder"] == "LeftArm"
    assert parts["right_wrist"] == "RightHand" and parts["chest"] == "Spine2" and parts["head"] == "Head"
    assert human_parts(SMPLX22.joints, SMPLX22.parents)["left_toe"] == SMPLX22.index("left_foot")
    assert human_parts(("a", "b"), (-1, 0)) == {}


# ---- real files


def standing(motion: Motion) -> float:
    """How high above the floor the lower foot joint is when it is at its lowest."""
    return float(motion.positions()[:, motion.skeleton.contact_joints, 1].amin(1).quantile(0.05))


def test_people_of_bandai_namco_stand_on_the_floor():
    file = archive("bandai_namco.zip")
    names = clips_of(file)[::40]
    assert len(names) > 25
    for name in names:
        motion = parse_bvh(file.read(name).decode(), name).motion()
        assert motion.fps == 30 and motion.skeleton.joints[0] == "Hips" and motion.provenance["folded"] == ["joint_Root"]
        assert 0.03 < standing(motion) < 0.08, name
        assert 1.2 < float(motion.positions()[:, motion.skeleton.index("Head"), 1].max()) < 1.6, name
        assert motion.skeleton.check_groups()


def test_people_of_cmu_stand_on_the_floor_whichever_root_they_have():
    file = archive("cmu.zip")
    roots = set()
    for name in clips_of(file):
        motion = parse_bvh(file.read(name).decode(), name).motion(drop=1)
        roots.add(motion.skeleton.joints[0])
        assert motion.fps == 60 and len(motion.skeleton) in (100, 101)
        # One of the eighteen walks up and down on uneven ground.
        assert 0 < standing(motion) < (0.25 if name.startswith("003_") else 0.1), name
    assert roots == {"RL_BoneRoot", "CC_Base_Hip"}


def test_a_real_file_written_and_read_again_is_the_same():
    file = archive("bandai_namco.zip")
    name = "dataset-2_walk_normal_001.bvh"
    motion = parse_bvh(file.read(name).decode(), name).motion()
    again = parse_bvh(bvh_text(motion), "again.bvh").motion()
    assert again.skeleton.joints == motion.skeleton.joints
    torch.testing.assert_close(again.positions(), motion.positions(), atol=1e-4, rtol=0)


def test_half_a_real_file_is_refused():
    file = archive("bandai_namco.zip")
    text = file.read("dataset-2_walk_normal_001.bvh").decode()
    with pytest.raises(BvhError, match=r"half.bvh, line \d+: frame \d+ has \d+ numbers, not 132; the file is cut short"):
        parse_bvh(text[: len(text) // 2], "half.bvh")


@pytest.mark.slow
def test_every_real_file_loads_in_reasonable_time():
    import time

    start, count = time.process_time(), 0
    for name, drop in (("bandai_namco.zip", 0), ("cmu.zip", 1)):
        file = archive(name)
        for clip in clips_of(file):
            motion = parse_bvh(file.read(clip).decode(), clip).motion(drop=drop)
            count += 1
            assert len(motion) > 10 and standing(motion) < 0.25, clip  # the shortest take less than a second
    assert count == 1154 + 18
    assert time.process_time() - start < 120
