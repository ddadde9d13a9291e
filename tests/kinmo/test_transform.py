"""The group transform loses nothing, on any body and any partition; the paper's own features alone would lose most."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinelib.bodies.humanml3d import CLEAN, SLICES, encode_motion, recover_root
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.rotations import from_axis_angle
from kinelib.bodies.skeleton import GROUPS, Skeleton
from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30
from kinelib.kinmo.groups import PAIRS, differences, group_features, group_means, joint_features
from kinelib.kinmo.transform import (
    feature_means,
    features_from_groups,
    features_to_groups,
    from_groups,
    group_matrix,
    groups_from_interactions,
    helmert,
    incidence,
    means_of,
    measured_rows,
    positions_from_groups,
    rank,
    to_groups,
)
from kinelib.notation import ShapeError

ALL = [SMPLX22, SOMA30, G1_34, BANDAI22]
BODIES = pytest.mark.parametrize("skeleton", ALL, ids=lambda body: body.name)
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}
TYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
seeds = st.integers(0, 2**31)


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def near(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def regrouped(skeleton: Skeleton, seed: int) -> Skeleton:
    """The same body with its joints dealt out to the six groups at random, none of them empty."""
    order = torch.randperm(len(skeleton), generator=torch.Generator().manual_seed(seed)).tolist()
    cuts = sorted(
        1 + cut for cut in torch.randperm(len(skeleton) - 1, generator=torch.Generator().manual_seed(seed + 1))[:5].tolist()
    )
    edges = [0, *cuts, len(skeleton)]
    parts = [tuple(skeleton.joints[joint] for joint in order[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    return replace(skeleton, groups=dict(zip(GROUPS, parts, strict=True)))


# ---- the lossless transform


@given(n=st.integers(1, 40))
def test_a_helmert_matrix_is_orthogonal_and_begins_with_the_mean(n):
    matrix = helmert(n)
    near(matrix @ matrix.T, torch.eye(n, dtype=torch.float64), 1e-12)
    near(matrix.sum(1), torch.tensor([n**0.5] + [0.0] * (n - 1), dtype=torch.float64), 1e-12)


def test_a_helmert_matrix_by_hand():
    half, sixth = 0.5**0.5, 6**-0.5
    by_hand = torch.tensor([[3**-0.5] * 3, [half, -half, 0.0], [sixth, sixth, -2 * sixth]], dtype=torch.float64)
    near(helmert(3), by_hand, 1e-15)
    with pytest.raises(ValueError, match="at least one"):
        helmert(0)


@BODIES
@TYPES
@settings(max_examples=20)
@given(seed=seeds)
def test_joints_come_back(skeleton, dtype, seed):
    points = drawn(seed, 5, len(skeleton), 3, dtype=dtype)
    there = to_groups(points, skeleton)
    assert there.dtype == dtype
    near(from_groups(there, skeleton), points, TOLERANCES[dtype] * 4)  # of values up to 4
    near(means_of(there, skeleton), group_means(points, skeleton), TOLERANCES[dtype] * 4)
    near(there.square().sum((-2, -1)) / points.square().sum((-2, -1)), torch.ones(5, dtype=dtype), TOLERANCES[dtype] * 4)


@given(seed=seeds, body=st.sampled_from(ALL))
def test_any_partition_will_do(seed, body):
    skeleton = regrouped(body, seed % 1000)
    matrix, points = group_matrix(skeleton), drawn(seed, len(skeleton), 3)
    near(matrix @ matrix.T, torch.eye(len(skeleton), dtype=torch.float64), 1e-12)
    near(from_groups(to_groups(points, skeleton), skeleton), points, 1e-12)
    near(means_of(to_groups(points, skeleton), skeleton), group_means(points, skeleton), 1e-12)


@BODIES
def test_the_transform_is_as_well_conditioned_as_can_be(skeleton):
    assert abs(float(torch.linalg.cond(group_matrix(skeleton))) - 1) < 1e-12


def test_moving_one_joint_moves_its_group_alone():
    points = drawn(0, 22, 3)
    moved = points.clone()
    moved[SMPLX22.index("left_wrist")] += 1.0
    change = (to_groups(moved, SMPLX22) - to_groups(points, SMPLX22)).abs().amax(-1)
    sizes = [len(joints) for joints in SMPLX22.check_groups().values()]
    touched = [bool(part.max() > 1e-9) for part in change.split(sizes)]
    assert touched == [group == "left_arm" for group in GROUPS]


# ---- what the paper's own features know


def test_the_papers_features_alone_cannot_be_inverted():
    assert rank(SMPLX22) == 6 < len(SMPLX22)
    assert rank(SMPLX22, connecting=True) == 11
    assert rank(SMPLX22, connecting=True, parents=True) == 13 < len(SMPLX22)
    assert measured_rows(SMPLX22, connecting=True, parents=True).shape == (13, 22)
    # The robot's neck is one joint and connects: it is its own mean.
    assert (rank(G1_34), rank(G1_34, connecting=True), rank(G1_34, connecting=True, parents=True)) == (6, 10, 12)


@BODIES
def test_two_bodies_share_everything_that_is_measured(skeleton):
    rows = measured_rows(skeleton, connecting=True, parents=True)
    hidden = torch.linalg.svd(rows).Vh[rank(skeleton, connecting=True, parents=True) :]  # what no row sees
    assert len(hidden) >= 9
    points = drawn(1, len(skeleton), 3)
    other = points + hidden[0][:, None]
    near(rows @ other, rows @ points, 1e-12)
    assert float((other - points).norm(dim=-1).max()) > 0.1
    assert float((to_groups(other, skeleton) - to_groups(points, skeleton)).abs().max()) > 0.1, "the transform sees it"


# ---- interactions and groups


@TYPES
@settings(max_examples=20)
@given(seed=seeds)
def test_interactions_give_the_groups_back(dtype, seed):
    means = drawn(seed, 4, 6, 3, dtype=dtype)
    near(groups_from_interactions(differences(means), means.mean(-2)), means, TOLERANCES[dtype] * 4)


def test_differences_are_the_incidence_of_all_pairs():
    matrix, means = incidence(), drawn(0, 6, 3)
    near(matrix @ means, differences(means), 1e-12)
    near(matrix.T @ matrix, 6 * torch.eye(6, dtype=torch.float64) - 1, 1e-12)
    assert int(torch.linalg.matrix_rank(matrix)) == 5, "the centre is what differences lose"
    near(torch.linalg.pinv(matrix), matrix.T / 6, 1e-12)


@settings(max_examples=20)
@given(seed=seeds)
def test_edits_that_contradict_each_other_are_settled_by_least_squares(seed):
    between, centre = drawn(seed, 15, 3), drawn(seed + 1, 3)
    answer = groups_from_interactions(between, centre)
    near(answer.mean(-2), centre, 1e-12)
    best = torch.linalg.lstsq(incidence(), between, driver="gelsd").solution  # of least norm: centred on zero
    near(answer - centre, best, 1e-12)


# ---- groups and angles


@BODIES
@TYPES
@settings(max_examples=20)
@given(seed=seeds)
def test_bones_and_angles_give_every_joint_back(skeleton, dtype, seed):
    from kinelib.bodies.kinematics import forward

    skeleton = replace(skeleton, offsets=skeleton.offsets.to(dtype))
    rotations = from_axis_angle(drawn(seed, 3, len(skeleton), 3, dtype=dtype))
    points, _ = forward(rotations, drawn(seed + 1, 3, 3, dtype=dtype), skeleton)
    near(positions_from_groups(group_means(points, skeleton), rotations, skeleton), points, TOLERANCES[dtype] * 4)


def test_the_kinematic_inverse_holds_on_a_real_walk_seen_from_the_body():
    motion = procedural_clips(1, 0, contents=["walk"])[0].motion
    joints = joint_features(motion)
    means = group_features(joints, SMPLX22).positions
    near(positions_from_groups(means, from_axis_angle(joints.angles), SMPLX22), joints.positions, 5e-6)


def test_a_group_that_is_moved_goes_as_a_whole():
    rotations = from_axis_angle(0.3 * drawn(0, 22, 3))
    means = drawn(1, 6, 3)
    moved = means.clone()
    moved[GROUPS.index("right_leg"), 1] += 0.2
    change = positions_from_groups(moved, rotations, SMPLX22) - positions_from_groups(means, rotations, SMPLX22)
    legs = torch.tensor([joint in SMPLX22.check_groups()["right_leg"] for joint in range(22)])
    near(change, torch.tensor([0.0, 0.2, 0.0], dtype=torch.float64) * legs[:, None], 1e-12)


# ---- HumanML3D's 263 numbers


@TYPES
@settings(max_examples=20)
@given(seed=seeds)
def test_features_come_back(dtype, seed):
    features = drawn(seed, 3, 263, dtype=dtype)
    near(features_from_groups(features_to_groups(features)), features, TOLERANCES[dtype] * 8)


def test_features_keep_lengths_and_everything_that_is_no_place_or_step():
    features = drawn(0, 7, 263)
    there = features_to_groups(features)
    near(there.norm(dim=-1), features.norm(dim=-1), 1e-12)
    for block in ("yaw_velocity", "root_velocity", "rotations", "contacts"):
        assert torch.equal(there[:, SLICES[block]], features[:, SLICES[block]]), block
    for block in ("height", "positions", "velocities"):
        assert float((there[:, SLICES[block]] - features[:, SLICES[block]]).abs().max()) > 0.1, block


def test_every_number_stays_with_its_group():
    from kinelib.kinmo.codec import GROUP_CHANNELS

    for group, channels in GROUP_CHANNELS.items():
        features = torch.zeros(263, dtype=torch.float64)
        features[list(channels)] = drawn(0, len(channels))
        outside = [channel for channel in range(263) if channel not in channels]
        assert not features_to_groups(features)[outside].any(), group


def test_features_hold_the_papers_means():
    features = encode_motion(procedural_clips(1, 3, contents=["kick-left"])[0].motion, quirks=CLEAN).double()
    _, root = recover_root(features)
    pelvis = torch.stack([torch.zeros_like(root[:, 1]), root[:, 1], torch.zeros_like(root[:, 1])], -1)
    places = torch.cat([pelvis[:, None], features[:, SLICES["positions"]].reshape(-1, 21, 3)], 1)
    steps = features[:, SLICES["velocities"]].reshape(-1, 22, 3)
    means, speeds = feature_means(features_to_groups(features))
    near(means, group_means(places, SMPLX22), 1e-12)
    near(speeds, group_means(steps, SMPLX22), 1e-12)


# ---- gradients and refusals


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda x: to_groups(x, SMPLX22), (2, 22, 1)),
        (lambda x: from_groups(x, SMPLX22), (2, 22, 1)),
        (lambda x: means_of(x, SMPLX22), (22, 2)),
        (lambda x: groups_from_interactions(x[..., 1:, :], x[..., 0, :]), (16, 2)),
        (lambda x: positions_from_groups(x[:6], from_axis_angle(x[6:]), SMPLX22), (28, 3)),
        (lambda x: features_from_groups(features_to_groups(x) ** 2), (1, 263)),
    ],
    ids=["to", "from", "means", "interactions", "kinematic", "features"],
)
def test_gradients_pass(call, shape):
    assert torch.autograd.gradcheck(call, drawn(0, *shape).requires_grad_())


@pytest.mark.parametrize(
    "call",
    [
        lambda: to_groups(torch.zeros(2, 21, 3), SMPLX22),
        lambda: from_groups(torch.zeros(22), SMPLX22),
        lambda: means_of(torch.zeros(2, 6, 3), SMPLX22),
        lambda: groups_from_interactions(torch.zeros(2, len(PAIRS) - 1, 3), torch.zeros(2, 3)),
        lambda: positions_from_groups(torch.zeros(5, 3), torch.eye(3).expand(22, 3, 3), SMPLX22),
        lambda: positions_from_groups(torch.zeros(6, 3), torch.eye(3).expand(21, 3, 3), SMPLX22),
        lambda: features_to_groups(torch.zeros(2, 262)),
        lambda: feature_means(torch.zeros(2, 262)),
    ],
)
def test_other_shapes_are_refused(call):
    with pytest.raises(ShapeError, match=r"must have shape|263 channels"):
        call()
