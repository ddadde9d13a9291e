"""The laws that the families of procedural scenes promise: lengths, rolling, bouncing, collisions, walls, labels."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from kinelib.tracks.scenes import sample_scenes


def draw(family: str, count: int = 48, seed: int = 2, **options):
    return sample_scenes(count, seed, families=(family,), **{"size": 16, "num_frames": 12, "num_points": 40, **options})


def test_arm_joints_keep_their_lengths_and_carry_the_points():
    scenes = draw("arm")
    joints, lengths = scenes.facts["joints"], scenes.facts["joint_lengths"]
    spans = (joints[:, 1:] - joints[:, :-1]).norm(dim=-1)
    real = lengths.isfinite()
    assert real[:, :2].all() and 0.2 < real[:, 2].float().mean() < 0.8
    assert torch.allclose(spans[real], lengths[real][:, None].expand(-1, spans.shape[-1]), atol=1e-5)
    assert torch.equal(joints[:, 0], joints[:, 0, :1].expand_as(joints[:, 0]))


def test_arm_label_names_the_joint_that_turns_most():
    scenes = draw("arm", 64, num_frames=33)
    joints = scenes.facts["joints"]
    bones = joints[:, 1:] - joints[:, :-1]
    angle = torch.atan2(bones[..., 1], bones[..., 0])
    bend = torch.cat([angle[:, :1], angle[:, 1:] - angle[:, :-1]], 1)
    change = torch.remainder(bend - bend[..., :1] + torch.pi, 2 * torch.pi) - torch.pi
    largest = change.abs().amax(-1).nan_to_num(0)
    names = ("shoulder", "elbow", "wrist")
    for index, label in enumerate(scenes.label):
        joint, sense = label.split("/")[1].rsplit("-", 1)
        most = int(largest[index].argmax())
        turned = change[index, most][change[index, most].abs().argmax()]
        assert joint == names[most] and (turned > 0) == (sense == "cw")


def test_wheels_roll_without_slipping():
    scenes = draw("roll", num_frames=401, num_points=4)
    centre, angle, radius = (scenes.facts[name] for name in ("centre", "angle", "radius"))
    downhill = scenes.facts["direction"]
    way = ((centre - centre[:, :1]) * downhill[:, None]).sum(-1)
    turned = angle - angle[:, :1]
    assert torch.allclose(turned * radius[:, None] * downhill[:, :1].sign(), way, atol=1e-5)
    # The point at the contact has no speed: speed of the centre and of the spin cancel.
    normal = torch.stack([downhill[:, 1], -downhill[:, 0]], -1) * downhill[:, :1].sign()
    assert (((centre - centre[:, :1]) * normal[:, None]).sum(-1)).abs().max() < 1e-5
    back = [label.endswith("up-and-back") for label in scenes.label]
    assert any(back) and ((way.amin(1) < -0.05).tolist() == back)


def test_balls_bounce_on_the_floor_and_lose_energy():
    scenes = draw("bounce", num_frames=801, num_points=4)
    centre, radius, floor, rest = (scenes.facts[name] for name in ("centre", "radius", "floor", "restitution"))
    height = floor[:, None] - radius[:, None] - centre[..., 1]
    assert height.min() > -1e-5
    speed = height.diff(dim=1) * 800
    for index in range(len(scenes)):
        hit = ((speed[index, :-1] < 0) & (speed[index, 1:] > 0)).nonzero().flatten()
        assert len(hit) >= 1
        before, after = speed[index, hit[0] - 2], speed[index, hit[0] + 3]
        # Gravity acts during the five frames between the two readings.
        assert abs(-after / before - rest[index]) < 0.06
    across = centre[..., 0].diff(dim=1)
    assert torch.allclose(across, across[:, :1].expand_as(across), atol=1e-5)
    bouncy = torch.tensor([label.endswith("bouncy") for label in scenes.label])
    assert rest[bouncy].min() > 0.7 > 0.55 > rest[~bouncy].max()


def test_billiard_collisions_are_elastic():
    scenes = draw("billiards", 64, num_frames=801, num_points=1, size=8)
    bodies, radius = scenes.facts["bodies"], scenes.facts["radius"]
    there = bodies[:, :, 0, 0].isfinite()
    gaps = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = there[:, a] & there[:, b]
        gaps.append(((bodies[:, a] - bodies[:, b]).norm(dim=-1).amin(1) - 2 * radius)[both])
    assert torch.cat(gaps).min() > -1e-4
    assert (torch.cat(gaps) < 4e-3).sum() > 20
    inside = (bodies.nan_to_num(0).abs().amax((1, 2, 3)) + radius) < 0.96  # no cushion was met
    hit = torch.tensor([not label.endswith("miss") for label in scenes.label]) & inside
    assert hit.sum() > 10
    velocity = bodies[hit].nan_to_num(0).double()[:, :, ::8].diff(dim=2)
    energy = (velocity**2).sum((1, 3)).log()
    # Drag alone takes energy, exponentially: but for the intervals in which a collision falls the logarithm is a line.
    steady = energy.diff(dim=1).median(dim=1).values
    assert torch.allclose(energy[:, -1] - energy[:, 0], steady * (energy.shape[1] - 1), atol=0.01)
    momentum = velocity.sum(1)
    along = momentum / momentum.norm(dim=-1, keepdim=True)
    assert (along - along[:, :1]).abs().max() < 1e-3


def test_billiard_labels_count_collisions():
    scenes = draw("billiards", 96)
    assert {label.split("/")[1] for label in scenes.label} == {"miss", "one-hit", "chain"}
    for index, label in enumerate(scenes.label):
        others = scenes.facts["bodies"][index, 1:].nan_to_num(0)
        pushed = (others[:, -1] - others[:, 0]).norm(dim=-1) > 0
        assert pushed.any() != label.endswith("miss")


def test_agents_never_touch_a_wall_and_take_the_gate_named():
    scenes = draw("maze", 64, num_frames=257, num_points=4)
    centre, walls, radius = (scenes.facts[name] for name in ("centre", "walls", "radius"))
    low, high = walls[:, None, :, :2], walls[:, None, :, 2:]
    outside = torch.maximum(torch.maximum(low - centre[:, :, None], centre[:, :, None] - high), torch.zeros(()))
    away = outside.norm(dim=-1).nan_to_num(9)
    assert (away.amin((1, 2)) - radius).min() > 0
    forward = scenes.facts["direction"]
    rightward = torch.stack([-forward[:, 1], forward[:, 0]], -1)
    for index, label in enumerate(scenes.label):
        # The first wall's place along the way, and on which hand the agent passes it.
        middle = (walls[index, 0, :2] + walls[index, 0, 2:]) / 2
        ahead = ((centre[index] - middle) * forward[index]).sum(-1)
        passing = centre[index, ahead.abs().argmin()]
        assert ahead[0] < 0 < ahead[-1]
        assert ((passing * rightward[index]).sum() > 0) == label.split("/")[1].startswith("right")


def test_vehicles_drive_along_their_nose_and_turn_as_labelled():
    scenes = draw("vehicle", 64, num_frames=101)
    centre, angle = scenes.facts["centre"], scenes.facts["angle"]
    step = centre.diff(dim=1)
    middle = (angle[:, 1:] + angle[:, :-1]) / 2
    nose = torch.stack([middle.cos(), middle.sin()], -1)
    assert torch.allclose(step / step.norm(dim=-1, keepdim=True), nose, atol=0.01)
    assert torch.allclose(scenes.facts["direction"], torch.stack([angle[:, 0].cos(), angle[:, 0].sin()], -1), atol=1e-5)
    turn = {"turn-left": -1, "straight": 0, "turn-right": 1}
    total = torch.rad2deg(angle[:, -1] - angle[:, 0])
    assert torch.equal(
        (total / 15).clamp(-1, 1).trunc(), torch.tensor([turn[x.split("/")[1]] for x in scenes.label]).float()
    )


@pytest.mark.parametrize("family", ["orbit", "spinner"])
def test_turning_sense_is_the_label_and_mostly_what_the_picture_says(family):
    scenes = draw(family, 128)
    turned = scenes.facts["angle"][:, -1] - scenes.facts["angle"][:, 0]
    clockwise = torch.tensor([label.endswith("/cw") for label in scenes.label])
    assert torch.equal(turned > 0, clockwise)
    assert 0.3 < clockwise.float().mean() < 0.7
    if family == "orbit":
        first = scenes.facts["centre"][:, 1] - scenes.facts["centre"][:, 0]
        told = (first * scenes.facts["direction"]).sum(-1) > 0
        assert 0.75 < told.float().mean() < 0.95


def test_soft_bodies_bend():
    scenes = draw("deform", 64)
    scenes = scenes[(~scenes.facts["camera"]).numpy()]
    bent = 0
    for index in range(len(scenes)):
        points = scenes.tracks.xy[index, scenes.on_object[index]].transpose(0, 1)
        apart = torch.cdist(points, points)
        bent += int((apart - apart[:1]).abs().max() > 0.03)
    assert bent > 0.8 * len(scenes)


def test_camera_modes_move_the_picture_as_named():
    scenes = draw("camera", 128)
    seen = Counter()
    for index, label in enumerate(scenes.label):
        mode, start, end = label.split("/")[1], scenes.tracks.query_points[index], scenes.tracks.xy[index, :, -1]
        linear = scenes.facts["view"][index, -1, :, :2]
        moved = (end - start).mean(0)
        says = {
            "pan-left": moved[0] > 0.3,
            "pan-right": moved[0] < -0.3,
            "pan-up": moved[1] > 0.3,
            "pan-down": moved[1] < -0.3,
            "zoom-in": torch.linalg.det(linear) > 1.5,
            "zoom-out": torch.linalg.det(linear) < 0.7,
            "roll-cw": linear[1, 0] > 0.3,
            "roll-ccw": linear[1, 0] < -0.3,
        }
        assert bool(says[mode]), label
        seen[mode] += 1
    assert len(seen) == 8
