"""Motion files: every format there and back, files of others, what viewers need, and readable refusals."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from kinelib import __version__
from kinelib.bodies.amass import AmassError, read_amass, write_amass
from kinelib.bodies.g1 import HINGES, G1Error, hinge_angles, read_g1, write_g1
from kinelib.bodies.kinematics import forward
from kinelib.bodies.motion import Motion
from kinelib.bodies.motion_files import MotionFileError, load_motion, sample_files, save_motion
from kinelib.bodies.rotations import about_y, from_axis_angle, from_quaternion
from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30


def random_motion(skeleton=SMPLX22, frames: int = 9, **facts) -> Motion:
    draw = torch.Generator().manual_seed(0)
    turns = from_axis_angle(torch.randn(frames, len(skeleton), 3, generator=draw))
    return Motion(turns, torch.randn(frames, 3, generator=draw), 20.0, skeleton, provenance=facts)


def hinged(frames: int = 6) -> tuple[Motion, torch.Tensor]:
    """A motion that the robot's hinges can make, and its angles."""
    draw = torch.Generator().manual_seed(1)
    angles = torch.rand(frames, len(HINGES), generator=draw) * 2 - 1
    turns = torch.eye(3).repeat(frames, len(G1_34), 1, 1)
    axes = {"roll": [0.0, 0, 1], "yaw": [0.0, 1, 0]}
    for at, name in enumerate(HINGES):
        axis = torch.tensor(axes.get(name.split("_")[-1], [1.0, 0, 0]))
        turns[:, G1_34.index(name)] = from_axis_angle(angles[:, at, None] * axis)
    turns[:, 0] = from_axis_angle(torch.randn(frames, 3, generator=draw))
    return Motion(turns, torch.randn(frames, 3, generator=draw), 30.0, G1_34), angles


@pytest.mark.parametrize("suffix", [".npz", ".bvh", ".amass.npz"])
def test_there_and_back(suffix, tmp_path):
    motion = random_motion(prompt="A person waves.", seed=3)
    again = load_motion(save_motion(motion, tmp_path / f"a{suffix}"))
    assert again.skeleton.joints == SMPLX22.joints and again.fps == 20.0 and len(again) == len(motion)
    torch.testing.assert_close(again.positions(), motion.positions(), atol=1e-4, rtol=0)
    torch.testing.assert_close(again.rotations, motion.rotations, atol=1e-5, rtol=0)


# ---- npz


@pytest.mark.parametrize("skeleton", [SMPLX22, SOMA30, G1_34, BANDAI22], ids=lambda one: one.name)
def test_npz_carries_the_whole_motion(skeleton, tmp_path):
    motion = random_motion(skeleton, prompt="A person waves.", seed=3, licence="MIT")
    again = load_motion(save_motion(motion, tmp_path / "a.npz"))
    assert again.provenance == motion.provenance and again.contacts is None
    for field in ("name", "joints", "parents", "hips", "feet", "hands", "groups"):
        assert getattr(again.skeleton, field) == getattr(skeleton, field), field
    assert torch.equal(again.skeleton.offsets, skeleton.offsets)


def test_npz_has_kimodo_s_keys_and_what_they_lack(tmp_path):
    motion = random_motion(prompt="A person waves.", seed=3)
    with np.load(save_motion(motion, tmp_path / "a.npz"), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    shapes = {"posed_joints": (9, 22, 3), "global_rot_mats": (9, 22, 3, 3), "local_rot_mats": (9, 22, 3, 3)}
    shapes |= {"foot_contacts": (9, 4), "smooth_root_pos": (9, 3), "root_positions": (9, 3), "global_root_heading": (9, 2)}
    assert {name: arrays[name].shape for name in shapes} == shapes
    np.testing.assert_allclose(np.linalg.norm(arrays["global_root_heading"], axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(arrays["smooth_root_pos"][:, 1], arrays["root_positions"][:, 1])
    assert (str(arrays["prompt"]), str(arrays["seed"]), str(arrays["version"])) == ("A person waves.", "3", __version__)
    assert float(arrays["fps"]) == 20 and str(arrays["skeleton"]) == "smplx22"


def test_known_contacts_are_kept(tmp_path):
    from dataclasses import replace

    known = replace(random_motion(), contacts=torch.arange(36.0).reshape(9, 4) / 36)
    assert torch.equal(load_motion(save_motion(known, tmp_path / "a.npz")).contacts, known.contacts)


def test_files_of_kimodo_load_with_bone_lengths_of_their_own(tmp_path):
    """They hold arrays alone: no frame rate, no skeleton, and joints of a body whose bones are not quite ours."""
    motion = random_motion(SOMA30)
    joints, turned = forward(motion.rotations, motion.root, SOMA30)
    longer = motion.root[:, None] + 1.1 * (joints - motion.root[:, None])
    np.savez(
        tmp_path / "k.npz", posed_joints=longer.numpy(), global_rot_mats=turned.numpy(), root_positions=motion.root.numpy()
    )
    with pytest.raises(MotionFileError, match="does not say its frame rate.* make 30"):
        load_motion(tmp_path / "k.npz")
    again = load_motion(tmp_path / "k.npz", fps=30)
    assert again.skeleton.name == "soma30" and again.fps == 30
    torch.testing.assert_close(again.positions(), longer, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"posed_joints": np.zeros((4, 22, 3))}, "neither local_rot_mats nor global_rot_mats; it has posed_joints"),
        ({"local_rot_mats": np.zeros((4, 22, 3, 3)), "fps": 20}, "neither root_positions nor posed_joints"),
        ({"local_rot_mats": np.zeros((4, 9)), "root_positions": np.zeros((4, 3))}, r"shape \(T, J, 3, 3\)"),
        (
            {"local_rot_mats": np.zeros((4, 5, 3, 3)), "root_positions": np.zeros((4, 3)), "fps": 20},
            "has 5 joints; known are 22",
        ),
        ({"local_rot_mats": np.array([["a"]]), "fps": 20}, "local_rot_mats holds no numbers"),
        ({"local_rot_mats": np.array([{}], dtype=object)}, "no .npz file of plain arrays"),
    ],
)
def test_npz_faults_are_named(arrays, words, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(MotionFileError, match=f"bad.npz: .*{words}"):
        load_motion(tmp_path / "bad.npz", fps=20)


def test_half_a_file_and_wrong_names_are_refused(tmp_path):
    whole = save_motion(random_motion(), tmp_path / "a.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MotionFileError, match=r"half.npz: is no .npz"):
        load_motion(tmp_path / "half.npz")
    with pytest.raises(MotionFileError, match=r"a.fbx: motion is saved as .npz"):
        save_motion(random_motion(), tmp_path / "a.fbx")
    with pytest.raises(MotionFileError, match=r"a.glb: motion is loaded from"):
        load_motion(tmp_path / "a.glb")
    with pytest.raises(FileNotFoundError, match="none.npz"):
        load_motion(tmp_path / "none.npz")


def test_a_failed_write_keeps_the_older_file(tmp_path):
    save_motion(hinged()[0], tmp_path / "a.csv")
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(G1Error):
        save_motion(random_motion(G1_34), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["a.csv"]


# ---- AMASS


def test_amass_is_z_up_and_faces_y(tmp_path):
    turns = torch.eye(3).repeat(2, 22, 1, 1)
    path = torch.tensor([[0.0, 0.94, 0.0], [0.5, 0.94, 2.0]])
    write_amass(Motion(turns, path, 30.0, SMPLX22), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["pose_body"].shape == (2, 63) and file["pose_hand"].shape == (2, 90) and file["betas"].shape == (16,)
        assert str(file["gender"]) == "neutral" and str(file["surface_model_type"]) == "smplx"
        moved = file["trans"][1] - file["trans"][0]
        np.testing.assert_allclose(moved, [-0.5, 2.0, 0.0], atol=1e-6)  # left is -x, ahead is +y
        # The model itself is y up: standing up in a z-up world is its root's turn.
        up = from_axis_angle(torch.from_numpy(file["root_orient"][0])) @ torch.tensor([0.0, 1, 0])
        torch.testing.assert_close(up, torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)


def test_older_amass_files_load(tmp_path):
    motion = random_motion()
    write_amass(motion, tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as file:
        poses = np.concatenate([file["root_orient"], file["pose_body"], np.zeros((9, 90))], axis=1)
        np.savez(tmp_path / "old.npz", poses=poses, trans=file["trans"], mocap_framerate=120.0, gender=np.array("male"))
    again = load_motion(tmp_path / "old.npz")
    assert again.fps == 120
    torch.testing.assert_close(again.positions(), motion.positions(), atol=1e-5, rtol=0)
    lifted = read_amass(tmp_path / "old.npz", floor=True)
    assert float(lifted.positions()[..., 1].min()) == pytest.approx(0.01, abs=1e-5)


def test_amass_faults_are_named(tmp_path):
    with pytest.raises(AmassError, match="retarget this motion of 'soma30'"):
        write_amass(random_motion(SOMA30), tmp_path / "a.npz")
    np.savez(tmp_path / "shape.npz", trans=np.zeros((3, 3)), betas=np.zeros(10))
    with pytest.raises(AmassError, match="has no poses, or root_orient and pose_body"):
        read_amass(tmp_path / "shape.npz")
    np.savez(tmp_path / "nan.npz", trans=np.full((3, 3), np.nan), poses=np.zeros((3, 156)), mocap_framerate=60)
    with pytest.raises(AmassError, match="trans of frame 0 .and 2 more"):
        read_amass(tmp_path / "nan.npz")
    np.savez(tmp_path / "thin.npz", trans=np.zeros((3, 3)), poses=np.zeros((3, 10)), mocap_framerate=60)
    with pytest.raises(AmassError, match="at least 66"):
        read_amass(tmp_path / "thin.npz")


# ---- G1


def test_g1_there_and_back(tmp_path):
    motion, angles = hinged()
    found, off = hinge_angles(motion)
    torch.testing.assert_close(found, angles, atol=1e-5, rtol=0)
    assert float(off.max()) < 1e-3
    again = load_motion(save_motion(motion, tmp_path / "a.csv"))
    torch.testing.assert_close(again.positions(), motion.positions(), atol=1e-5, rtol=0)
    rows = np.loadtxt(tmp_path / "a.csv", delimiter=",")
    assert rows.shape == (6, 36) and again.fps == 30
    np.testing.assert_allclose(rows[:, 7:], angles, atol=1e-5)


def test_the_robot_is_z_up_and_faces_x(tmp_path):
    turns = torch.eye(3).repeat(1, len(G1_34), 1, 1)
    turns[0, 0] = about_y(torch.tensor(0.5))  # to the left
    write_g1(Motion(turns, torch.tensor([[0.3, 0.8, 2.0]]), 30.0, G1_34), tmp_path / "a.csv")
    row = np.loadtxt(tmp_path / "a.csv", delimiter=",")
    np.testing.assert_allclose(row[:3], [2.0, 0.3, 0.8], atol=1e-6)  # ahead x, left y, up z
    np.testing.assert_allclose(row[3:7], [np.cos(0.25), 0, 0, np.sin(0.25)], atol=1e-6)


def test_another_zero_pose_is_subtracted_and_added_again(tmp_path):
    motion, angles = hinged()
    zero = torch.linspace(-1, 1, 29)
    write_g1(motion, tmp_path / "a.csv", zero=zero)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "a.csv", delimiter=",")[:, 7:], angles - zero, atol=1e-5)
    torch.testing.assert_close(read_g1(tmp_path / "a.csv", zero=zero).rotations, motion.rotations, atol=1e-5, rtol=0)


def test_g1_faults_are_named(tmp_path):
    with pytest.raises(G1Error, match="this one is of 'smplx22'"):
        write_g1(random_motion(), tmp_path / "a.csv")
    with pytest.raises(G1Error, match=r"frame \d+: \w+ turns .* pass a tolerance of"):
        write_g1(random_motion(G1_34), tmp_path / "a.csv")
    good = ",".join(["0", "0", "1", "1", *["0"] * 32])
    for text, words in {
        f"{good}\n{good},7\n": "line 2: has 37",
        f"{good}\n\n{good.replace('1', 'x', 1)}\n": "line 3: could not convert",
        good.replace("1", "nan", 1): "line 1: has 36",
        good.replace("1,1", "1,0"): "line 1: numbers 4 to 7",
        "\n": "holds no frames",
    }.items():
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(G1Error, match=f"bad.csv.*{words}"):
            read_g1(tmp_path / "bad.csv")


# ---- GLB


def parts_of(path) -> tuple[dict, bytes]:
    """The two chunks of a GLB file, checked as the format's specification says."""
    content = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON" and size % 4 == 0
    document = json.loads(content[20 : 20 + size])
    binary_size, kind = struct.unpack_from("<I4s", content, 20 + size)
    assert kind == b"BIN\0" and binary_size % 4 == 0 and 28 + size + binary_size == length
    assert document["buffers"] == [{"byteLength": binary_size}]
    return document, content[28 + size :]


def array(document: dict, binary: bytes, number: int) -> np.ndarray:
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    kind = {5126: "<f4", 5123: "<u2"}[accessor["componentType"]]
    assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= len(binary)
    values = np.frombuffer(binary, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)
    assert values.nbytes == view["byteLength"]
    if "min" in accessor:
        np.testing.assert_allclose([accessor["min"], accessor["max"]], [values.min(0), values.max(0)], atol=1e-6)
    return values


def test_a_player_of_glb_sees_the_motion(tmp_path):
    """Plays the file as the specification says, node by node, and finds every joint where the motion has it."""
    motion = random_motion(prompt="A person waves.")
    document, binary = parts_of(save_motion(motion, tmp_path / "a.glb"))
    assert document["asset"]["version"] == "2.0" and document["asset"]["extras"]["prompt"] == "A person waves."
    nodes, (animation,) = document["nodes"], document["animations"]
    assert document["scenes"][document["scene"]]["nodes"] == [0]
    moving = {}
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        times = array(document, binary, sampler["input"])[:, 0]
        np.testing.assert_allclose(times, np.arange(9) / 20, atol=1e-6)
        moving[channel["target"]["node"], channel["target"]["path"]] = array(document, binary, sampler["output"])
    assert len(moving) == 1 + 22
    places, seen = {}, []

    def visit(node: int, place: torch.Tensor, turn: torch.Tensor) -> None:
        seen.append(node)
        shift = moving.get((node, "translation"))
        shift = torch.from_numpy(shift) if shift is not None else torch.tensor(nodes[node].get("translation", [0.0, 0, 0]))
        place = place + (turn @ shift.expand(9, 3)[..., None])[..., 0]
        q = moving.get((node, "rotation"))
        q = (
            torch.from_numpy(q.copy())
            if q is not None
            else torch.tensor(nodes[node].get("rotation", [0.0, 0, 0, 1])).expand(9, 4)
        )
        np.testing.assert_allclose(q.norm(dim=-1), 1, atol=1e-5)
        turn = turn @ from_quaternion(q[:, [3, 0, 1, 2]])
        places[nodes[node]["name"]] = place if "mesh" not in nodes[node] else place + turn[..., 1] * nodes[node]["scale"][1]
        for child in nodes[node].get("children", []):
            visit(child, place, turn)

    visit(0, torch.zeros(9, 3), torch.eye(3).expand(9, 3, 3))
    assert sorted(seen) == list(range(len(nodes))), "every node hangs on the root, once"
    joints = motion.positions()
    for joint, name in enumerate(SMPLX22.joints):
        torch.testing.assert_close(places[name], joints[:, joint], atol=1e-5, rtol=0)
    for parent, joint in SMPLX22.bones():  # the tip of every bone is at the joint it leads to
        tip = places[f"{SMPLX22.joints[parent]} to {SMPLX22.joints[joint]}"]
        torch.testing.assert_close(tip, joints[:, joint], atol=1e-4, rtol=0)


def test_the_mesh_of_a_bone_is_closed_and_faces_outwards(tmp_path):
    document, binary = parts_of(save_motion(random_motion(), tmp_path / "a.glb"))
    ((primitive,),) = (mesh["primitives"] for mesh in document["meshes"])
    corners = array(document, binary, primitive["attributes"]["POSITION"])
    normals = array(document, binary, primitive["attributes"]["NORMAL"])
    numbers = array(document, binary, primitive["indices"])[:, 0]
    faces = corners[numbers].reshape(-1, 3, 3)
    made = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    np.testing.assert_allclose(made / np.linalg.norm(made, axis=1, keepdims=True), normals[numbers[::3]], atol=1e-5)
    outwards = faces.mean(1) - np.array([0, 0.4, 0])
    assert ((made * outwards).sum(1) > 0).all()
    edges = {tuple(map(tuple, edge)) for face in faces for edge in (face[[0, 1]], face[[1, 2]], face[[2, 0]])}
    assert all((there, here) in edges for here, there in edges)


def test_neighbouring_quaternions_lie_on_the_same_side(tmp_path):
    turns = from_axis_angle(torch.linspace(0, 7, 40)[:, None, None] * torch.tensor([0.0, 1, 0])).expand(-1, 22, 3, 3)
    motion = Motion(turns, torch.zeros(40, 3), 20.0, SMPLX22)
    document, binary = parts_of(save_motion(motion, tmp_path / "a.glb"))
    for sampler in document["animations"][0]["samplers"][1:]:
        q = array(document, binary, sampler["output"])
        assert (q[1:] * q[:-1]).sum(1).min() > 0.9


def test_samples_have_their_files_before_anything_is_generated(tmp_path):
    out = tmp_path / "walk.bvh"
    assert sample_files(None, 3, False) == [] and sample_files(out, 1, False) == [out]
    assert [file.name for file in sample_files(str(out), 2, False)] == ["walk-0.bvh", "walk-1.bvh"]
    (tmp_path / "walk-1.bvh").touch()
    assert sample_files(out, 1, False) == [out] and len(sample_files(out, 2, True)) == 2
    with pytest.raises(FileExistsError, match=r"walk-1\.bvh exists"):
        sample_files(out, 2, False)
    with pytest.raises(ValueError, match="at least 1"):
        sample_files(None, 0, False)
    with pytest.raises(ValueError, match=r"written as \.npz, \.bvh, \.glb; got '\.mp4'"):
        sample_files("walk.mp4", 1, False)
