"""Skeletons: the four that are shipped are sound, and a wrong one is refused by name."""

import pytest
import torch

from kinelib.bodies.skeleton import GROUPS, Skeleton
from kinelib.bodies.skeletons import BANDAI22, G1_34, SMPLX22, SOMA30, named

EVERY = pytest.mark.parametrize("skeleton", [SMPLX22, SOMA30, G1_34, BANDAI22], ids=lambda s: s.name)


@EVERY
def test_stands_on_the_floor_with_its_left_at_plus_x(skeleton):
    rest = skeleton.rest()
    assert 0 <= float(rest[:, 1].min()) < 0.02 or skeleton.name == "bandai22"
    right, left = skeleton.indices(skeleton.hips)
    assert rest[left, 0] > 0 > rest[right, 0]
    toes = [skeleton.index(foot[1]) for foot in skeleton.feet]
    ankles = [skeleton.index(foot[0]) for foot in skeleton.feet]
    assert (rest[toes, 2] > rest[ankles, 2]).all(), "the body looks along +z"


@EVERY
def test_mirror_exchanges_the_sides(skeleton):
    mirror = skeleton.mirror
    assert [mirror[i] for i in mirror] == list(range(len(skeleton)))
    assert torch.allclose(skeleton.rest()[mirror] * torch.tensor([-1.0, 1, 1]), skeleton.rest(), atol=1e-6)
    assert sum(i != partner for i, partner in enumerate(mirror)) >= 16


@EVERY
def test_groups_hold_every_joint_once(skeleton):
    groups = skeleton.check_groups()
    assert tuple(groups) == GROUPS
    assert sorted(sum(groups.values(), [])) == list(range(len(skeleton)))


@EVERY
def test_found_by_name(skeleton):
    assert named(skeleton.name) is skeleton
    assert len(skeleton.contact_joints) == 4


def test_sizes_of_the_released_layouts():
    assert [len(s) for s in (SMPLX22, SOMA30, G1_34)] == [22, 30, 34]
    assert SMPLX22.check_groups()["left_arm"] == [13, 16, 18, 20]


def two(**changes):
    fields = {"name": "two", "joints": ("a", "b"), "parents": (-1, 0), "offsets": torch.zeros(2, 3)}
    return Skeleton(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"joints": ("a", "a")}, "names a more than once"),
        ({"joints": ()}, "has no joints"),
        ({"parents": (-1, 1)}, "joint b has parent 1"),
        ({"parents": (-1, -1)}, "only root"),
        ({"parents": (-1,)}, "1 parents"),
        ({"offsets": torch.zeros(3, 3)}, "must have shape"),
        ({"offsets": torch.full((2, 3), torch.nan)}, "NaN"),
        ({"hips": ("a", "c")}, "no joint c"),
    ],
)
def test_wrong_skeletons_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        two(**changes)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="it has a, b"):
        two().index("c")
    with pytest.raises(ValueError, match="smplx22, soma30"):
        named("smpl")
    with pytest.raises(ValueError, match="which joints are its feet"):
        _ = two().contact_joints
    with pytest.raises(ValueError, match="exactly once"):
        two().check_groups()
