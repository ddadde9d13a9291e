"""The loss terms: zero at the truth, the paper's weights, means over real frames, and what each one sees."""

import pytest
import torch

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import FeatureLayout, encode_batch
from kinelib.bodies.rotations import about_y, from_axis_angle
from kinelib.bodies.skeletons import FPS, SMPLX22
from kinelib.kimodo.losses import LossConfig, MotionLoss
from kinelib.notation import ShapeError

LAYOUT = FeatureLayout(SMPLX22)
LENGTHS = torch.tensor([12, 7])


@pytest.fixture(scope="module")
def clips():
    """Two clips of random poses on a curved path, their statistics and normalised features."""
    generator = torch.Generator().manual_seed(0)
    angles = 0.3 * torch.randn(2, 12, 22, 3, generator=generator)
    path = torch.randn(2, 12, 3, generator=generator).cumsum(1) * 0.05 + torch.tensor([0.0, 0.9, 0.0])
    features = encode_batch(from_axis_angle(angles), path, LENGTHS, FPS, SMPLX22)
    statistics = Statistics.measure(features, LENGTHS)
    return statistics.normalize(features), statistics


def measure(prediction, clips, mask=None, **config):
    return MotionLoss(LAYOUT, FPS, LossConfig(**config))(prediction, clips[0], LENGTHS, clips[1], mask)


def test_the_truth_costs_nothing_and_padding_is_never_looked_at(clips):
    clean = clips[0].clone()
    clean[1, 7:] = float("nan")
    prediction = clean.clone().requires_grad_()
    terms = MotionLoss(LAYOUT, FPS, LossConfig(motion=1, standing=1))(prediction, torch.nan_to_num(clean), LENGTHS, clips[1])
    assert set(terms) == {"loss", *LAYOUT.blocks, "kinematics", "motion", "standing"}
    # Float rounding of joints, a few 1e-7 m, is all that is left; "loss" and speeds multiply it.
    assert {name: float(term.detach()) for name, term in terms.items()} == pytest.approx(dict.fromkeys(terms, 0.0), abs=1e-5)
    terms["loss"].backward()
    assert torch.isfinite(prediction.grad).all() and (prediction.grad[1, 7:] == 0).all()


def test_direct_terms_are_means_over_channels_and_all_real_frames(clips):
    prediction = clips[0].clone()
    prediction[0, 3, LAYOUT.blocks["velocities"]] += 0.4  # inside the parabola
    prediction[1, 2, LAYOUT.blocks["heading"]] += 3.0  # outside
    prediction[1, 9:] += 100.0  # padding
    terms = measure(prediction, clips)
    assert float(terms["velocities"]) == pytest.approx(0.5 * 0.4**2 / 19, rel=1e-4)
    assert float(terms["heading"]) == pytest.approx((3.0 - 0.5) / 19, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(3 * 0.5 * 0.4**2 / 19 + 2 * 2.5 / 19, rel=1e-4)


def test_the_weights_are_the_papers():
    paper = LossConfig()
    weights = [getattr(paper, name) for name in (*LAYOUT.blocks, "kinematics", "motion", "standing", "pinned")]
    assert weights == [10, 2, 10, 10, 3, 4, 5, 0, 0, 0]


def test_kinematics_measures_metres_from_the_true_pelvis(clips):
    # Moving the predicted root and pelvis changes nothing; turning the whole body by a known angle moves joints as far.
    prediction = clips[0].clone()
    prediction[..., :5] += 1.0
    prediction[..., LAYOUT.joint("positions", 0)] += 1.0
    assert float(measure(prediction, clips)["kinematics"]) == pytest.approx(0.0, abs=1e-7)
    physical = clips[1].denormalize(clips[0]).clone()
    turn = about_y(torch.tensor(0.02))
    six = physical[..., LAYOUT.blocks["rotations"]].reshape(2, 12, 22, 2, 3)
    physical[..., LAYOUT.blocks["rotations"]] = (six @ turn.T).reshape(2, 12, -1)
    found = measure(clips[1].normalize(physical), clips, metres_bend=1e9)["kinematics"]
    truth = clips[1].denormalize(clips[0])[..., LAYOUT.blocks["positions"]].reshape(2, 12, 22, 3)
    truth = truth - truth[:, :, :1]
    square = 0.5 * (truth @ turn.T - truth).square().mean((-2, -1)) / 1e9
    assert float(found) == pytest.approx(float((square[0].sum() + square[1, :7].sum()) / 19), rel=1e-3)


def test_motion_sees_what_the_direct_terms_do_not(clips):
    # A pelvis that trembles by +-1 cm: the direct terms see a small error, the decoded joints shake at 20 frames a second.
    physical = clips[1].denormalize(clips[0]).clone()
    physical[:, ::2, 0] += 0.01
    physical[:, 1::2, 0] -= 0.01
    terms = measure(clips[1].normalize(physical), clips, motion=1, standing=1)
    scale = clips[1].scale[LAYOUT.blocks["velocities"]].reshape(22, 3)[:, 0]
    speed = torch.tensor(0.02 * FPS)
    ratio = speed / scale
    expected = torch.where(ratio < 1, 0.5 * ratio**2, ratio - 0.5).mean() / 3
    assert float(terms["motion"]) == pytest.approx(float(expected), rel=1e-3)
    still = clips[1].normalize(physical)
    assert float(measure(still, clips)["loss"]) == pytest.approx(10 * float(terms["root"]), rel=1e-4)


def test_standing_counts_only_feet_on_the_floor(clips):
    clean = clips[1].denormalize(clips[0]).clone()
    clean[..., LAYOUT.blocks["contacts"]] = 0
    clean[0, 4, LAYOUT.blocks["contacts"].start] = 1
    moved = clean.clone()
    moved[0, 5, 2] += 0.05  # the root jumps by 5 cm after frame 4, and back
    loss = MotionLoss(LAYOUT, FPS, LossConfig(standing=1))
    normalised = [clips[1].normalize(x) for x in (moved, clean)]
    assert float(loss(*normalised, LENGTHS, clips[1])["standing"]) == pytest.approx((0.05 * FPS - 0.05) / 3, rel=1e-3)
    clean[0, 4, LAYOUT.blocks["contacts"].start] = 0
    normalised = [clips[1].normalize(x) for x in (moved, clean)]
    assert float(loss(*normalised, LENGTHS, clips[1])["standing"]) == 0.0


def test_given_features_weigh_more_where_asked(clips):
    prediction = clips[0] + 0.5
    mask = torch.zeros_like(prediction, dtype=torch.bool)
    mask[0, 2, LAYOUT.blocks["positions"]] = True
    plain, same, heavy = (
        measure(prediction, clips, given, pinned=weight) for given, weight in ((None, 3.0), (mask, 0.0), (mask, 3.0))
    )
    assert float(plain["positions"]) == float(same["positions"])
    assert float(heavy["positions"]) == pytest.approx(0.125 * (1 + 3 / 19), rel=1e-4)
    assert float(heavy["rotations"]) == float(plain["rotations"])


def test_physical_terms_are_in_units_of_the_features(clips):
    physical = clips[1].denormalize(clips[0]).clone()
    physical[..., 1] += 0.1
    terms = measure(clips[1].normalize(physical), clips, physical=True)
    assert float(terms["root"]) == pytest.approx(0.5 * 0.1**2 / 3, rel=1e-3)


def test_every_channel_gets_a_gradient(clips):
    prediction = (clips[0] + 0.3).requires_grad_()
    measure(prediction, clips)["loss"].backward()
    assert (prediction.grad[0].abs().sum(0) > 0).all()


def test_bad_input_is_named(clips):
    with pytest.raises(ValueError, match="LossConfig.root = -1"):
        LossConfig(root=-1)
    with pytest.raises(ValueError, match="LossConfig.bend = 0 must be above"):
        LossConfig(bend=0)
    with pytest.raises(ShapeError, match="prediction"):
        measure(clips[0][..., :-1], clips)
    with pytest.raises(ValueError, match="FeatureLayout"):
        MotionLoss(FeatureLayout(22), FPS)
