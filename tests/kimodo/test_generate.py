"""Motion from prompts: what is decoded, that seeds mean what they say, constraints on the way, and bad input."""

import math
from dataclasses import replace

import pytest
import torch

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import FeatureLayout
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kimodo import draw, generate
from kinelib.kimodo.conditions import compile_constraints
from kinelib.kimodo.constraints import ConstraintError, EndEffector, Heading, RootWaypoints
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.diffusion import dpm_solver
from kinelib.kimodo.guidance import GuidedDenoiser

CONFIG = DenoiserConfig(width=32, layers=1, heads=2, ffn=48, text_width=8, registers=1, max_frames=40)
LAYOUT = FeatureLayout(SMPLX22)


class Sentences:
    """A sentence encoder that needs no weights: a vector made of the letters."""

    def embed(self, sentences):
        vectors = [torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, one)))) for one in sentences]
        return torch.stack([vector * bool(one) for vector, one in zip(vectors, sentences, strict=True)])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = TwoStageDenoiser(CONFIG).eval().requires_grad_(False)
    for weight in model.parameters():
        weight += 0.05 * torch.randn_like(weight)
    model.set_statistics(Statistics(size=273), Statistics(size=4))
    return model


def drawn(model, prompts=("a person walks", ""), frames=24, **options):
    return generate.generate(model, prompts, frames=frames, encoder=Sentences(), **{"steps": 4, **options})


def same(first, second):
    # Global rotations and the root, not local rotations, which amplify rounding down the limbs.
    return torch.allclose(first.global_rotations(), second.global_rotations(), atol=1e-3) and torch.allclose(
        first.root, second.root, atol=1e-4
    )


# ---- what comes out


def test_motions_of_every_prompt_in_order(model):
    motions = drawn(model, frames=[24, 31], samples=2, seed=5)
    assert [len(motion) for motion in motions] == [24, 24, 31, 31]
    assert [motion.provenance["prompt"] for motion in motions] == ["a person walks"] * 2 + [""] * 2
    assert [motion.provenance["sample"] for motion in motions] == [0, 1, 0, 1]
    facts = motions[0].provenance
    assert (facts["seed"], facts["solver"], facts["steps"]) == (5, "dpm", 4)
    assert all(motion.fps == 20 and motion.skeleton is SMPLX22 and motion.contacts.shape[1] == 4 for motion in motions)


def test_seconds_are_frames_and_the_default_is_the_longest(model):
    given = dict(encoder=Sentences(), steps=2)
    assert len(generate.generate(model, ["a"], seconds=1.5, **given)[0]) == 30
    assert len(generate.generate(model, ["a"], **given)[0]) == 40


def test_the_same_seed_is_the_same_clip_whatever_the_batch(model):
    alone = drawn(model, ["a person walks"], seed=3, samples=2)
    crowd = drawn(model, ["jump", "a person walks", "", "turn"], frames=[40, 24, 30, 20], seed=3, samples=2)
    assert same(crowd[2], alone[0]) and same(crowd[3], alone[1])
    pieces = drawn(model, ["jump", "a person walks", "", "turn"], frames=[40, 24, 30, 20], seed=3, samples=2, batch=3)
    assert all(same(one, other) for one, other in zip(crowd, pieces, strict=True))
    assert not same(alone[0], alone[1])
    assert not same(drawn(model, ["a person walks"], seed=4)[0], alone[0])


def test_prompts_matter_and_an_empty_one_is_no_text(model):
    said, silent = drawn(model)
    assert not same(said, silent)
    features = draw.draw_features(model, [24], torch.zeros(1, 1, 8), seeds=[draw.noise_seed(0, 0)], steps=4)
    noise = torch.randn(24, 273, generator=torch.Generator().manual_seed(draw.noise_seed(0, 0)))
    expected = dpm_solver(GuidedDenoiser(model, 24, kind="none"), noise[None], 4)[0]
    assert torch.allclose(features[0], model.statistics.denormalize(expected), atol=1e-4)


def test_guidance_solver_and_heading_change_the_result(model):
    plain = drawn(model, ["walk"])[0]
    for options in ({"guidance": (4.0, 2.0)}, {"solver": "ddim"}, {"heading": 1.0}, {"kind": "none"}):
        assert not same(drawn(model, ["walk"], **options)[0], plain), options


def test_progress_counts_every_step_of_every_batch(model):
    told = []
    drawn(model, ["a", "b", "c"], batch=2, watch=lambda *done: told.append(done))
    assert told == [(number, 8) for number in range(1, 9)]


# ---- constraints


def conditions_seen(monkeypatch):
    """What the guided denoisers of a draw were given."""
    seen = []

    class Spy(GuidedDenoiser):
        def __init__(self, model, *given, **options):
            seen.append(given)
            super().__init__(model, *given, **options)

    monkeypatch.setattr(draw, "GuidedDenoiser", Spy)
    return seen


def test_constraints_reach_the_network_normalised(model, monkeypatch):
    seen = conditions_seen(monkeypatch)
    wishes = [RootWaypoints(frames=(5,), xz=torch.tensor([[1.0, 2.0]])), Heading(frames=(0,), angles=torch.tensor([0.7]))]
    drawn(model, constraints=[wishes, None])
    ((frames, _, headings, mask, target, _),) = seen
    assert frames == 24 and mask.shape == (2, 24, 273)
    assert mask[0].nonzero().tolist() == [[0, 3], [0, 4], [5, 0], [5, 2]] and not mask[1].any()
    expected = model.statistics.normalize(compile_constraints(wishes, LAYOUT, 24).target)
    assert torch.allclose(target[0][mask[0]], expected[mask[0]])
    # A constrained first heading is the first heading.
    assert headings.tolist() == pytest.approx([0.7, 0.0])


def test_compiled_conditions_do_as_well_as_constraints(model):
    wishes = [RootWaypoints(frames=(5, 20), xz=torch.tensor([[1.0, 2.0], [2.0, 2.0]]))]
    first = drawn(model, ["walk"], constraints=[wishes])[0]
    assert same(drawn(model, ["walk"], constraints=[compile_constraints(wishes, LAYOUT, 24)])[0], first)
    assert not same(drawn(model, ["walk"])[0], first)


def test_a_hand_in_the_world_is_placed_against_the_predicted_root(model, monkeypatch):
    place = torch.tensor([[[0.4, 1.2, 0.3]]])
    wish = EndEffector(frames=(10,), joints=("left_wrist",), positions=place)
    roots, aimed = [], []
    clean, aim = TwoStageDenoiser.clean, GuidedDenoiser.aim

    def watched(self, *given):
        result = clean(self, *given)
        roots.append(self.statistics.denormalize(result)[0, 10, [0, 2]])
        return result

    monkeypatch.setattr(TwoStageDenoiser, "clean", watched)
    monkeypatch.setattr(GuidedDenoiser, "aim", lambda self, target: aimed.append(target) or aim(self, target))
    drawn(model, [""], constraints=[[wish]], kind="none", steps=3)
    # One more pass than steps, for the first root; each aim follows the root of the pass before.
    assert (len(roots), len(aimed)) == (4, 3)
    wrist = LAYOUT.joint("positions", "left_wrist")
    for root, target in zip(roots, aimed, strict=False):
        at = model.statistics.denormalize(target)[0, 10, wrist]
        assert torch.allclose(at[[0, 2]] + root, place[0, 0, [0, 2]], atol=1e-4)
        assert float(at[1]) == pytest.approx(1.2, abs=1e-5)


# ---- bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompts": "walk"}, TypeError, "list of sentences"),
        ({"prompts": [3]}, TypeError, "list of sentences"),
        ({"prompts": []}, ValueError, "no prompts"),
        ({"samples": 0}, ValueError, "samples and batch must be at least 1"),
        ({"frames": 41}, ValueError, r"up to 2 s \(40 frames\); 41"),
        ({"frames": 1}, ValueError, "at least 2 frames"),
        ({"frames": -4}, ValueError, "above 0"),
        ({"frames": [24]}, ValueError, "one for each of 2 prompts; got 1"),
        ({"frames": None, "seconds": math.nan}, ValueError, "finite; got nan"),
        ({"seconds": 1.0}, ValueError, "in seconds or in frames"),
        ({"solver": "euler"}, ValueError, "unknown solver 'euler'"),
        ({"kind": "double"}, ValueError, "unknown guidance 'double'"),
        ({"steps": 1}, ValueError, "2..1000 steps"),
        ({"guidance": (math.nan, 1.0)}, ValueError, "two finite weights"),
        ({"constraints": [None]}, ValueError, "one entry for each of 2 prompts"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(model, options, error, message):
    with pytest.raises(error, match=message):
        drawn(model, **options)


def test_constraints_outside_the_motion_and_of_another_length_are_refused(model):
    late = [RootWaypoints(frames=(30,), xz=torch.zeros(1, 2))]
    with pytest.raises(ConstraintError, match="outside the motion"):
        drawn(model, ["walk"], constraints=[late])
    with pytest.raises(ValueError, match=r"prompt 0 are of shape \(40, 273\)"):
        drawn(model, ["walk"], constraints=[compile_constraints(late, LAYOUT, 40)])


def test_a_very_short_motion_is_drawn_with_a_warning(model):
    with pytest.warns(UserWarning, match="shorter than those the model knows"):
        assert len(drawn(model, ["walk"], frames=6)[0]) == 6


def test_a_model_in_training_or_with_broken_weights_is_refused(model):
    with pytest.raises(ValueError, match="call model.eval"):
        drawn(TwoStageDenoiser(CONFIG).train())
    broken = TwoStageDenoiser(CONFIG).eval()
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.body.features_out.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"clip 0 \(and 1 more\) came out as NaN"):
        drawn(broken)


def test_sentence_vectors_of_another_encoder_are_refused(model):
    other = TwoStageDenoiser(replace(CONFIG, text_width=16)).eval()
    with pytest.raises(ValueError, match="text must have shape .* 16"):
        drawn(other)
