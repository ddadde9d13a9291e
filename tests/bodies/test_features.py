"""Kimodo's features: the release's numbers, a round trip, the meaning of every block, and linear turning and moving."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from kinelib.bodies.feature_statistics import EPSILON, Statistics
from kinelib.bodies.features import (
    LOCAL_TURNING,
    FeatureLayout,
    contacts,
    decode,
    decode_motion,
    encode,
    encode_batch,
    encode_motions,
    frame_mask,
    heading,
    local_root,
    mirrored,
    moved,
    placed,
    turned,
)
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, from_axis_angle, geodesic
from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30
from kinelib.notation import ShapeError

REFERENCE = Path(os.environ.get("KINELIB_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
LAYOUT = FeatureLayout(SMPLX22)
BLOCKS = LAYOUT.blocks


def dance(frames=40, seed=0, skeleton=SMPLX22, fps=20.0):
    """A clip in which every joint sways and the root wanders and turns all the way round."""
    rng = torch.Generator().manual_seed(seed)
    t = torch.arange(frames)[:, None, None] / fps
    joints = len(skeleton)
    axes, speed, phase = torch.randn(3, joints, 3, generator=rng)
    angles = 0.5 * axes * torch.sin((speed + 3) * t + phase)
    rotations = from_axis_angle(angles)
    rotations[:, 0] = about_y(torch.linspace(-2, 5, frames)) @ rotations[:, 0]
    t = t[:, 0, 0]
    root = torch.stack([t + 0.05 * (7 * t).sin(), 0.9 + 0.05 * (3 * t).cos(), 0.3 * t**2 - 2], -1)
    return Motion(rotations, root, fps, skeleton)


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape
    assert float((a - b).detach().abs().max()) <= tolerance


# ---- against the release


@pytest.fixture(scope="module")
def recorded():
    path = REFERENCE / "kimodo_smplx22_io.safetensors"
    if not path.is_file():
        pytest.skip("no reference folder; set KINELIB_REFERENCE to one to compare with recorded outputs of the release")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        config = json.loads(file.metadata()["config"])
    rest, parents = tensors["neutral_joints"], tensors["parents"].tolist()
    offsets = torch.stack([rest[j] - (rest[p] if p >= 0 else 0) for j, p in enumerate(parents)])
    assert tuple(config["names"]) == SMPLX22.joints and tuple(parents) == SMPLX22.parents
    return tensors, replace(SMPLX22, offsets=offsets), float(config["fps"])


def relative(ours, theirs):
    return float((ours.float() - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize("block", list(BLOCKS))
def test_every_block_is_the_releases(recorded, block):
    tensors, skeleton, fps = recorded
    theirs, lengths = tensors["features"], tensors["lengths"]
    rotations, root = tensors["local_rotations"], tensors["root_positions"]
    ours = encode_batch(rotations, root, lengths, fps, skeleton, smoothed=theirs[..., [0, 2]])
    valid = frame_mask(lengths, ours.shape[1])
    assert relative(ours[valid][:, BLOCKS[block]], theirs[valid][:, BLOCKS[block]]) <= 1e-5


def test_the_local_root_is_the_releases(recorded):
    tensors, _, fps = recorded
    valid = frame_mask(tensors["lengths"], tensors["features"].shape[1])
    ours = local_root(tensors["features"][..., :5], fps, tensors["lengths"])
    assert relative(ours[valid], tensors["local_root"][valid]) <= 1e-5


def test_decoding_is_the_releases(recorded):
    tensors, skeleton, _ = recorded
    found = decode(tensors["features"], FeatureLayout(skeleton))
    valid = frame_mask(tensors["lengths"], tensors["features"].shape[1])
    for ours, name in ((found.positions, "joints"), (found.root, "root"), (found.contacts, "contacts")):
        assert relative(ours[valid], tensors[f"decoded_{name}"][valid]) <= 1e-5


def test_our_smoothed_root_is_near_the_releases(recorded):
    # Theirs is half a frame early and may leave the margin (by up to 5 cm at a run); ours may not.
    tensors, skeleton, fps = recorded
    ours = encode_batch(tensors["local_rotations"], tensors["root_positions"], tensors["lengths"], fps, skeleton)
    valid = frame_mask(tensors["lengths"], ours.shape[1])
    away = (ours - tensors["features"])[..., [0, 2]].norm(dim=-1)[valid]
    assert 0 < float(away.max()) < 0.12


# ---- what the channels mean


@pytest.mark.parametrize(("skeleton", "size"), [(SMPLX22, 273), (SOMA30, 369), (G1_34, 417), (27, 333)])
def test_there_are_twelve_channels_a_joint_and_nine(skeleton, size):
    layout = FeatureLayout(skeleton)
    assert layout.size == size
    covered = [channel for block in layout.blocks.values() for channel in range(size)[block]]
    assert covered == list(range(size))
    assert [*range(size)[layout.root], *range(size)[layout.body]] == covered
    assert sorted(sum(layout.turning, [])) == sorted(set(sum(layout.turning, [])))


def test_blocks_hold_what_their_names_say():
    motion = dance()
    features, positions = encode(motion), motion.positions()
    root = features[:, BLOCKS["root"]]
    close(root[:, 1], motion.root[:, 1])
    assert float((root - motion.root)[:, [0, 2]].norm(dim=-1).max()) <= 0.06 + 1e-6
    joint = "left_elbow"
    where = positions[:, SMPLX22.index(joint)]
    close(features[:, LAYOUT.joint("positions", joint)] + root * torch.tensor([1.0, 0, 1]), where)
    turns = motion.global_rotations()[:, SMPLX22.index(joint)]
    close(features[:, LAYOUT.joint("rotations", joint)], torch.cat([turns[..., 0], turns[..., 1]], -1))
    velocity = features[:, LAYOUT.joint("velocities", joint)]
    close(velocity[:-1], (where[1:] - where[:-1]) * 20, 1e-4)
    assert torch.equal(velocity[-1], velocity[-2])
    close(features[:, BLOCKS["heading"]].norm(dim=-1), torch.ones(40))


@pytest.mark.parametrize("angle", [-3.0, -1.0, 0.0, 0.5, 3.1])
def test_the_heading_grows_from_z_towards_x(angle):
    rotations = torch.eye(3).expand(1, 22, 3, 3).clone()
    rotations[:, 0] = about_y(torch.tensor(angle))
    features = encode(Motion(rotations, torch.tensor([[0.0, 0.94, 0.0]]), 20, SMPLX22))[0]
    close(features[3:5], torch.tensor([math.cos(angle), math.sin(angle)]))
    # The left toe is ahead of the left ankle, in the direction of the heading.
    ankle, toe = (features[LAYOUT.joint("positions", name)] for name in ("left_ankle", "left_foot"))
    ahead = (toe - ankle)[[0, 2]] @ torch.tensor([math.sin(angle), math.cos(angle)])
    assert float(ahead) > 0.1


def test_feet_touch_the_floor_when_they_are_slow_and_low():
    positions = torch.zeros(1, 4, 22, 3)
    feet = SMPLX22.contact_joints
    positions[0, :, feet[0], 0] = torch.tensor([0.0, 0.0, 0.02, 0.02])  # 0.4 m/s in the second frame
    positions[0, :, feet[1], 1] = 0.101  # too high
    positions[0, :, feet[2], 1] = 0.099
    positions[0, :, feet[3], 0] = torch.arange(4) * 0.0074  # 0.148 m/s
    found = contacts(positions, 20.0, SMPLX22)[0]
    assert found.T.tolist() == [[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_padding_is_never_looked_at():
    clips = [dance(frames, seed) for seed, frames in enumerate((30, 1, 2, 17))]
    rotations, root = torch.full((4, 30, 22, 3, 3), float("nan")), torch.full((4, 30, 3), float("nan"))
    for row, clip in enumerate(clips):
        rotations[row, : len(clip)], root[row, : len(clip)] = clip.rotations, clip.root
    lengths = torch.tensor([len(clip) for clip in clips])
    features = encode_batch(rotations, root, lengths, 20.0, SMPLX22)
    local = local_root(features[..., :5], 20.0, lengths)
    for row, clip in enumerate(clips):
        alone = encode(clip)
        close(features[row, : len(clip)], alone, 1e-5)
        assert torch.equal(features[row, len(clip) :], features[row, len(clip) - 1].expand(30 - len(clip), -1))
        close(local[row, : len(clip)], local_root(alone[None, :, :5], 20.0)[0], 1e-4)


def test_motions_of_several_lengths_become_one_padded_batch():
    clips = [dance(frames, seed) for seed, frames in enumerate((9, 1, 30, 12))]
    features, lengths = encode_motions(clips, chunk=2)
    assert lengths.tolist() == [9, 1, 30, 12] and features.shape == (4, 30, 273)
    for row, clip in zip(features, clips, strict=True):
        close(row[: len(clip)], encode(clip))
        assert torch.equal(row[len(clip) :], row[len(clip) - 1].expand(30 - len(clip), -1))
    with pytest.raises(ValueError, match="motion 1 .*30"):
        encode_motions([clips[0], dance(4, fps=30.0)])
    with pytest.raises(ValueError, match="motion 1 .*soma30"):
        encode_motions([clips[0], dance(4, skeleton=SOMA30)])
    with pytest.raises(ValueError, match="no motions"):
        encode_motions([])


def test_a_clip_of_one_frame_stands_still():
    motion = dance(1)
    features = encode(motion)
    assert not features[:, BLOCKS["velocities"]].any()
    close(features[0, [0, 2]], motion.root[0, [0, 2]])
    assert not local_root(features[None, :, :5], 20.0)[..., :3].any()


# ---- back again


@pytest.mark.parametrize("skeleton", [SMPLX22, SOMA30, G1_34, BANDAI22], ids=lambda skeleton: skeleton.name)
def test_decoding_undoes_encoding(skeleton):
    motion = dance(12, skeleton=skeleton)
    again = decode_motion(encode(motion), FeatureLayout(skeleton), 20.0, {"prompt": "a dance"})
    close(again.root, motion.root)
    close(again.positions(), motion.positions(), 1e-5)
    assert float(geodesic(again.rotations, motion.rotations).max()) < 2e-3
    assert again.provenance == {"prompt": "a dance"} and again.skeleton is skeleton
    assert torch.equal(again.contacts, contacts(motion.positions()[None], 20.0, skeleton)[0])


def test_any_numbers_decode_to_a_body():
    wild = torch.randn(3, 10, 273, generator=torch.Generator().manual_seed(0))
    wild[0, 0, BLOCKS["rotations"]] = 0  # no rotation at all
    wild[0, 1, BLOCKS["rotations"]] = 1  # two columns that are the same
    found = decode(wild.requires_grad_(), LAYOUT)
    close(found.local_rotations @ found.local_rotations.mT, torch.eye(3).expand(3, 10, 22, 3, 3), 1e-4)
    bones = torch.stack([found.positions[..., j, :] - found.positions[..., p, :] for p, j in SMPLX22.bones()], -2)
    close(bones.norm(dim=-1), SMPLX22.offsets[1:].norm(dim=-1).expand(3, 10, 21), 1e-4)
    found.positions[0, 2:].sum().backward()
    assert torch.isfinite(wild.grad).all() and wild.grad.any()


def test_the_predicted_heading_and_velocities_do_not_move_the_body():
    features = encode(dance())
    changed = features.clone()
    changed[:, BLOCKS["heading"]] *= -3
    changed[:, BLOCKS["velocities"]] += 5
    assert torch.equal(decode(features, LAYOUT).positions, decode(changed, LAYOUT).positions)
    angle = heading(decode(features, LAYOUT).positions, SMPLX22)
    close(torch.cos(decode(features, LAYOUT).heading - angle), torch.ones(40))


def test_gradients_reach_the_rotations():
    motion = dance(6)
    rotations = motion.rotations.clone().requires_grad_()
    encode_batch(rotations[None], motion.root[None], None, 20.0, SMPLX22)[..., BLOCKS["velocities"]].sum().backward()
    assert torch.isfinite(rotations.grad).all() and rotations.grad.any()


# ---- turning, moving, placing


@pytest.mark.parametrize("angle", [-2.5, 0.7, math.pi])
def test_turning_features_is_turning_the_motion(angle):
    motion = dance()
    close(turned(encode(motion)[None], angle, LAYOUT)[0], encode(motion.rotated(angle)), 2e-4)


def test_moving_features_is_moving_the_motion():
    motion = dance()
    close(moved(encode(motion)[None], torch.tensor([3.0, -8.0]))[0], encode(motion.translated((3.0, -8.0))), 1e-4)


@pytest.mark.parametrize("skeleton", [SMPLX22, SOMA30, G1_34], ids=lambda skeleton: skeleton.name)
def test_mirroring_features_is_mirroring_the_motion(skeleton):
    # The rest pose of a skeleton is symmetric, so that the mirror image has the same bones.
    motion, layout = dance(skeleton=skeleton), FeatureLayout(skeleton)
    features = encode(motion)
    image = mirrored(features, layout)
    close(image, encode(motion.mirrored()), 2e-4)
    assert torch.equal(mirrored(image, layout), features)


def test_placed_clips_begin_above_the_origin_with_any_heading():
    batch = torch.stack([encode(dance(seed=seed)) for seed in range(3)])
    features, first = placed(batch, LAYOUT, generator=torch.Generator().manual_seed(3))
    assert float(features[:, 0, [0, 2]].abs().max()) < 1e-6
    close(features[:, 0, 3:5], torch.stack([first.cos(), first.sin()], -1))
    close(features[..., 1], batch[..., 1])
    again, _ = placed(batch, LAYOUT, generator=torch.Generator().manual_seed(3))
    assert torch.equal(features, again)
    ahead, _ = placed(batch, LAYOUT, heading=torch.zeros(3))
    close(ahead[:, 0, 3:5], torch.tensor([1.0, 0.0]).expand(3, 2))
    # The same dance: only where it is has changed.
    root = lambda one: decode(one, LAYOUT).positions - decode(one, LAYOUT).positions[:, :1]
    close(root(features).norm(dim=-1), root(batch).norm(dim=-1), 1e-4)


def test_headings_of_placed_clips_are_spread_evenly():
    batch = encode(dance(2)).expand(4000, 2, 273)
    _, first = placed(batch, LAYOUT, generator=torch.Generator().manual_seed(0))
    counts = torch.histc(first, 8, -math.pi, math.pi)
    assert float((counts / 500 - 1).abs().max()) < 0.2


def test_the_local_root_of_a_walk_in_a_circle():
    t = torch.arange(80) / 20
    angle = t * 1.5 + 2  # past a half turn, where the angle wraps
    root = torch.stack([-angle.cos(), torch.full_like(t, 0.9), angle.sin(), 3 * angle.cos(), 3 * angle.sin()], -1)
    local = local_root(root[None], 20.0)[0]
    close(local[:, 0], torch.full((80,), 1.5), 1e-3)
    close(local[:, 1:3].norm(dim=-1), torch.full((80,), 1.5), 2e-3)
    close(local[:, 3], root[:, 1])
    # It walks where it faces: velocity along (sin, cos) of the heading half a frame on.
    middle = angle[:-1] + 1.5 / 40
    close(local[:-1, 1:3], 1.5 * torch.stack([middle.sin(), middle.cos()], -1), 2e-3)


# ---- statistics


def test_normalising_is_the_official_formula_and_comes_back():
    batch = encode(dance())[None]
    statistics = Statistics.measure(batch)
    z = statistics.normalize(batch)
    close(z, (batch - batch.mean((0, 1))) / (batch.std((0, 1), correction=0) ** 2 + 1e-5).sqrt(), 1e-4)
    close(statistics.denormalize(z), batch)
    assert EPSILON == 1e-5


def test_turning_statistics_are_those_of_many_turned_clips():
    batch = encode(dance())[None]
    angles = torch.arange(360) / 180 * math.pi
    many = turned(batch.expand(360, -1, -1), angles, LAYOUT)
    sampled, exact = Statistics.measure(many), Statistics.measure(batch, turning=LAYOUT.turning)
    close(sampled.mean, exact.mean, 1e-4)
    close(sampled.std, exact.std, 1e-4)
    local = Statistics.measure(local_root(batch[..., :5], 20.0), turning=LOCAL_TURNING)
    assert local.mean[1] == local.mean[2] == 0 and local.std[1] == local.std[2]


def test_statistics_leave_padding_out_and_travel_with_weights():
    batch = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    batch[1, 4:] = 1e6
    statistics = Statistics.measure(batch, torch.tensor([9, 4]))
    close(statistics.mean, torch.cat([batch[0], batch[1, :4]]).mean(0))
    other = Statistics(size=5)
    other.load_state_dict(statistics.state_dict())
    assert torch.equal(other.std, statistics.std)
    third = Statistics(size=5)
    third.set(statistics)
    assert torch.equal(third.normalize(batch), statistics.normalize(batch))
    assert torch.equal(statistics.part(slice(1, 3)).mean, statistics.mean[1:3])


# ---- bad input


def test_what_cannot_be_encoded_is_refused():
    motion = dance(5)
    args = motion.rotations[None], motion.root[None]
    with pytest.raises(ShapeError, match="1..5"):
        encode_batch(*args, torch.tensor([6]), 20.0, SMPLX22)
    with pytest.raises(ShapeError, match="rotations"):
        encode_batch(*args, None, 20.0, SOMA30)
    with pytest.raises(ValueError, match="hips"):
        encode_batch(*args, None, 20.0, replace(SMPLX22, hips=None))
    with pytest.raises(ValueError, match="feet"):
        encode_batch(*args, None, 20.0, replace(SMPLX22, feet=()))
    with pytest.raises(ShapeError, match="273 channels"):
        decode(torch.zeros(2, 369), LAYOUT)
    with pytest.raises(ValueError, match="FeatureLayout\\(skeleton\\)"):
        decode(torch.zeros(2, 273), FeatureLayout(22))
    with pytest.raises(ValueError, match="generator"):
        placed(encode(motion)[None], LAYOUT)
    with pytest.raises(ValueError, match="contacts"):
        LAYOUT.joint("contacts", 0)
    with pytest.raises(ValueError, match="no joint 'tail'"):
        LAYOUT.joint("positions", "tail")
    with pytest.raises(ValueError, match="size=273"):
        Statistics()
    with pytest.raises(ValueError, match="channel 1"):
        Statistics(torch.zeros(2), torch.tensor([1.0, -1.0]))
    with pytest.raises(ShapeError, match="NaN"):
        Statistics.measure(torch.full((1, 2, 3), float("nan")))
