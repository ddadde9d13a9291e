"""Pulled constraints: corrections that spread smoothly, bones that reach, estimates and motions that meet what is given."""

import pytest
import torch
from moving import swaying

from kinelib.bodies import features
from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import FeatureLayout, decode, encode
from kinelib.bodies.kinematics import positions_from_global
from kinelib.bodies.rotations import from_axis_angle
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kimodo.conditions import compile_constraints
from kinelib.kimodo.constraint_makers import end_effectors, keyframes
from kinelib.kimodo.constraints import EndEffector, RootWaypoints
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.generate import PUBLISHED, generate
from kinelib.kimodo.least_turns import least_turns
from kinelib.kimodo.metrics import constraint_errors
from kinelib.kimodo.pull import Pull
from kinelib.kimodo.spreading import PATH, bridging, root_pull, spreading

LAYOUT = FeatureLayout(SMPLX22)


@pytest.fixture(scope="module")
def clip():
    return swaying(40)


@pytest.fixture(scope="module")
def model(clip):
    torch.manual_seed(0)
    network = TwoStageDenoiser(DenoiserConfig(width=32, layers=1, ffn=32, heads=2, root_filter=0.0, body_filter=0.0))
    vectors = encode(clip)[None]
    network.statistics.set(Statistics(vectors.mean((0, 1)), vectors.std((0, 1)).clamp_min(0.05)))
    return network.eval().requires_grad_(False)


def shaken(clip, seed=0, size=0.05):
    """The clip's features, all wrong by a little; not the pelvis, so that legs that are nearly straight can reach."""
    right = encode(clip)
    vector = right + size * torch.randn(right.shape, generator=torch.Generator().manual_seed(seed))
    pelvis = [0, 1, 2, *range(*LAYOUT.joint("positions", 0).indices(LAYOUT.size))]
    vector[:, pelvis] = right[:, pelvis]
    return vector


def pulled(model, clip, constraints, vector, step=500):
    conditions = compile_constraints(constraints, LAYOUT, len(clip), clip.fps)
    normal = model.statistics.normalize(vector)[None]
    moved = Pull(model, [conditions], [len(clip)])(normal, torch.full((1,), step))
    return conditions, model.statistics.denormalize(moved)[0]


def test_a_correction_meets_its_pins_and_is_smooth_between_them():
    pinned = torch.zeros(2, 30, dtype=torch.bool)
    pinned[0, [4, 20]] = True
    missed = torch.zeros(2, 30, 1)
    missed[0, 4], missed[0, 20] = 0.3, -0.1
    change = spreading(pinned, [25, 30], PATH) @ missed
    assert torch.allclose(change[0, [4, 20], 0], torch.tensor([0.3, -0.1]), atol=1e-5)
    assert change[0, :, 0].diff(n=2)[:22].abs().max() < 0.02, "no kink"
    assert (change[0, 25:] == 0).all() and (change[1] == 0).all(), "neither beyond the end nor without a pin"


def test_a_root_goes_where_it_is_given_and_headings_alone_move_no_path():
    mask = torch.zeros(1, 20, 273, dtype=torch.bool)
    assert root_pull(mask, [20]) is None
    mask[:, 7, 3:5] = True
    root, target = torch.zeros(1, 20, 5), torch.ones(1, 20, 273)
    moved = root_pull(mask, [20])(root, target)
    assert torch.allclose(moved[0, 7], torch.tensor([0.0, 0, 0, 1, 1])) and (root == 0).all(), "the input stays"


def test_a_place_that_the_network_only_repeats_pulls_the_way_along():
    mask, root = torch.zeros(1, 40, 273, dtype=torch.bool), torch.zeros(1, 40, 5)
    mask[:, 20, [0, 2]] = True
    target = torch.ones(1, 40, 273)
    root[:, 20, [0, 2]] = 1.0  # a spike: the given place, and the rest of the path a metre away
    moved = root_pull(mask, [40])(root, target)[0, :, 0]
    assert moved[20] == pytest.approx(1.0, abs=1e-4) and moved[18:23].min() > 0.9, "its neighbours have come along"
    assert moved.diff(n=2).abs().max() < 0.03 and moved[0] == pytest.approx(0.0, abs=1e-4), "and the beginning stays"


def test_a_bridge_is_straight_and_given_paths_have_none():
    pinned = torch.zeros(2, 20, dtype=torch.bool)
    pinned[0, 8], pinned[1] = True, True
    line = torch.linspace(1, 3, 20)[None, :, None].expand(2, -1, -1).clone()
    line[0, 8] += 5
    bridged = bridging(pinned, [20, 20], 2) @ line
    assert torch.allclose(bridged[0, :, 0], torch.linspace(1, 3, 20), atol=0.02)
    assert torch.equal(bridged[1], line[1]), "nothing to trust beside a path that is given everywhere"


@pytest.mark.parametrize("wanted", [("left_wrist",), ("left_ankle", "left_foot", "right_wrist"), SMPLX22.joints[1:]])
def test_bones_reach_what_a_body_of_the_same_size_shows(clip, wanted):
    truth = clip.global_rotations()
    vectors = 0.15 * torch.randn(len(clip), len(SMPLX22), 3, generator=torch.Generator().manual_seed(1))
    wrong = from_axis_angle(vectors) @ truth
    flags = torch.zeros(len(clip), len(SMPLX22), dtype=torch.bool)
    flags[:, SMPLX22.indices(wanted)] = True
    found = least_turns(wrong, clip.root, clip.positions(), flags, torch.zeros_like(flags), SMPLX22)
    apart = lambda turned: (positions_from_global(turned, clip.root, SMPLX22) - clip.positions())[flags].norm(dim=-1)
    assert apart(wrong).mean() > 0.02 and apart(found).max() < 2e-3
    assert torch.allclose(found @ found.mT, torch.eye(3).expand_as(found), atol=1e-4), "still rotations"


def test_held_joints_keep_their_rotation_and_far_places_break_nothing(clip):
    turned = clip.global_rotations()
    wanted = torch.zeros(len(clip), len(SMPLX22), dtype=torch.bool)
    wanted[:, SMPLX22.index("left_wrist")] = True
    held = torch.zeros_like(wanted)
    held[:, SMPLX22.index("left_elbow")] = True
    found = least_turns(turned, clip.root, clip.positions() + 5.0, wanted, held, SMPLX22)
    assert torch.isfinite(found).all() and torch.equal(found[held], turned[held])
    nothing = torch.zeros_like(wanted)
    assert least_turns(turned, clip.root, clip.positions(), nothing, nothing, SMPLX22) is turned


def test_an_estimate_meets_keyframes_hands_and_waypoints(clip, model):
    vector, at = shaken(clip), (3, 22)
    wishes = {
        "keyframe": keyframes(clip, at),
        "effector": end_effectors(clip, at, ("left_hand", "right_hand", "left_foot", "right_foot")),
        "root": RootWaypoints(at, encode(clip)[list(at)][:, [0, 2]] + torch.tensor([0.3, -0.2])),
    }
    for name, wish in wishes.items():
        _, found = pulled(model, clip, [wish], vector)
        body = decode(found, LAYOUT)
        missed = constraint_errors(features.decode_motion(found, LAYOUT, clip.fps), [wish], body.smoothed).means()[name]
        was = constraint_errors(features.decode_motion(vector, LAYOUT, clip.fps), [wish], vector[:, [0, 2]]).means()[name]
        assert was > 0.015 and missed < 5e-3, name
        turned = (found - vector)[..., LAYOUT.blocks["rotations"]].norm(dim=-1)
        assert turned[38] < 0.4 * turned[22] or name == "root", "it dies away"


def test_velocities_follow_what_is_moved(clip, model):
    vector = encode(clip)
    path = vector[[5, 35]][:, [0, 2]] + torch.tensor([[0.0, 0.0], [1.5, 0.0]])
    _, found = pulled(model, clip, [RootWaypoints((5, 35), path)], vector)
    aside = (found - vector)[6:34, LAYOUT.joint("velocities", "head")][:, 0]
    assert abs(aside.mean() - 1) < 0.05 and aside.min() > 0.5 and aside.max() < 1.3, "1.5 metres in 1.5 seconds"


def test_a_hand_in_the_world_is_reached_over_a_free_root(clip, model):
    place = clip.positions()[10, SMPLX22.index("left_wrist")] + torch.tensor([0.1, 0.05, 0.0])
    wish = EndEffector((10,), ("left_wrist",), place[None, None])
    conditions, found = pulled(model, clip, [wish], encode(clip))
    assert conditions.floating.any()
    assert (decode(found, LAYOUT).positions[10, SMPLX22.index("left_wrist")] - place).norm() < 1e-2


def test_the_last_word_is_the_networks(clip, model):
    vector = shaken(clip)
    assert torch.allclose(pulled(model, clip, [keyframes(clip, (3,))], vector, step=0)[1], vector, atol=1e-5)


def test_motion_meets_constraints_that_published_sampling_misses(clip, model):
    wishes = [keyframes(clip, (5, 30))]
    ask = dict(frames=[len(clip), 25], constraints=[wishes, None], steps=4, encoder=_Silent())
    error = lambda made: constraint_errors(made[0], wishes).means()["keyframe"]
    ours, theirs = generate(model, ["", ""], **ask), generate(model, ["", ""], **ask, **PUBLISHED)
    assert error(ours) < 0.6 * error(theirs)
    assert torch.allclose(ours[1].positions(), theirs[1].positions(), atol=1e-4), "a clip without constraints is the same"
    assert ours[0].provenance["correction"] == "pull" and theirs[0].provenance["correction"] == "none"


def test_bad_input_says_what_to_use(clip, model):
    with pytest.raises(ValueError, match="unknown correction 'push'"):
        generate(model, [""], frames=20, correction="push", encoder=_Silent())
    with pytest.raises(ValueError, match="heading is one number or one for each of 2 prompts"):
        generate(model, ["", ""], frames=20, heading=[0.0], encoder=_Silent())


class _Silent:
    def embed(self, sentences):
        return torch.zeros(len(sentences), 384)
