"""Rotations: every form leads back to the matrix, the angles are those one draws on paper, and odd input gives no NaN."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from kinelib.bodies import rotations


@pytest.fixture
def turns():
    quaternions = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rotations.from_quaternion(quaternions)


def near(first, second, within=1e-9):
    assert float((first - second).abs().max()) < within


def test_every_form_leads_back(turns):
    near(rotations.from_6d(rotations.rotation_6d(turns)), turns)
    near(rotations.from_quaternion(rotations.quaternion(turns)), turns)
    near(rotations.from_axis_angle(rotations.axis_angle(turns)), turns, 1e-7)


def test_agrees_with_scipy(turns):
    scipy = Rotation.from_matrix(turns.numpy())
    near(rotations.axis_angle(turns), torch.from_numpy(scipy.as_rotvec()), 1e-7)
    near(rotations.quaternion(turns).abs(), torch.from_numpy(scipy.as_quat()[:, [3, 0, 1, 2]]).abs(), 1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, math.pi - 1e-4, math.pi])
def test_axis_angle_at_the_ends(angle):
    vector = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64) * angle
    turn = rotations.from_axis_angle(vector)
    near(turn, torch.from_numpy(Rotation.from_rotvec(vector.numpy()).as_matrix()), 1e-9)
    assert float(rotations.axis_angle(turn).norm()) == pytest.approx(angle, abs=1e-6)


def test_gradients_are_finite_at_no_turn():
    vector = torch.zeros(4, 3, requires_grad=True)
    rotations.from_axis_angle(vector).sum().backward()
    assert torch.isfinite(vector.grad).all()


@pytest.mark.parametrize("six", [[0] * 6, [1, 2, 3, 2, 4, 6], [0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]])
def test_six_numbers_that_say_no_rotation_still_give_one(six):
    turn = rotations.from_6d(torch.tensor(six, dtype=torch.float32))
    near(turn @ turn.T, torch.eye(3), 1e-5)
    assert float(torch.linalg.det(turn)) == pytest.approx(1, abs=1e-5)


def test_first_two_columns_in_order():
    six = rotations.rotation_6d(rotations.about_y(torch.tensor(0.3)))
    assert six.tolist() == pytest.approx([math.cos(0.3), 0, -math.sin(0.3), 0, 1, 0], abs=1e-6)


def test_headings_grow_from_forward_to_the_left():
    assert (rotations.about_y(torch.tensor(math.pi / 2)) @ torch.tensor([0.0, 0, 1])).tolist() == pytest.approx(
        [1, 0, 0], abs=1e-6
    )


def test_geodesic_and_slerp(turns):
    first, second = turns[:100], turns[100:]
    angle = rotations.geodesic(first, second)
    half = rotations.slerp(first, second, torch.full((100,), 0.25, dtype=torch.float64))
    near(rotations.geodesic(first, half), angle / 4, 1e-6)
    near(rotations.geodesic(half, second), angle * 3 / 4, 1e-6)


def test_between_turns_one_direction_into_another():
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    second[0], second[1], first[2] = first[0], -first[1], torch.tensor([0.0, 1.0, 0.0])
    turn = rotations.between(first, second)
    unit = lambda v: v / v.norm(dim=-1, keepdim=True)
    near((turn @ unit(first)[..., None])[..., 0], unit(second), 1e-6)
    cosine = (unit(first) * unit(second)).sum(-1).clamp(-1, 1)
    near(rotations.axis_angle(turn).norm(dim=-1), cosine.acos(), 1e-6)  # the least turn, no twist
