"""Control: motion is led onto paths and waypoints through frozen networks; errors are what a ruler says."""

from dataclasses import replace

import pytest
import torch
from toy_model import QUICK, kinmo
from toy_tokens import told_tokens

from kinelib.bodies.humanml3d import recover
from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo import control
from kinelib.kinmo.control import OFF, Pull, control_error, follow, packed, root_path
from kinelib.notation import ShapeError

NAN = float("nan")


@pytest.fixture(scope="module")
def clips():
    return procedural_clips(4, 3, contents=("walk", "squat"), seconds=(2.0, 2.4))


@pytest.fixture(scope="module")
def model(clips):
    made = kinmo(clips)
    made.tokenizer.decoder.last.weight.mul_(10)  # an untrained decoder hardly moves
    return made


def straight(frames, speed, x=0.0):
    return root_path(torch.stack([torch.linspace(0, x, frames), torch.arange(frames) * speed / 20], -1))


def test_the_error_of_a_motion_on_its_own_path_is_nothing(clips):
    motion = clips[0].motion
    own = root_path(motion.root[:, [0, 2]])
    aside = {"pelvis": own["pelvis"] + torch.tensor([0.3, 0.0, 0.4])}
    assert control_error([motion, motion], [own, aside]).tolist() == pytest.approx([0.0, 0.5], abs=1e-4)


def test_free_numbers_do_not_count(clips):
    motion = clips[0].motion
    some = torch.full((len(motion), 3), NAN)
    some[10] = motion.positions()[10, 20] + torch.tensor([0.0, 0.2, 0.0])
    assert float(control_error([motion], [{"left_wrist": some}])) == pytest.approx(0.2, abs=1e-5)
    some[10, 1] = NAN
    assert float(control_error([motion], [{"left_wrist": some}])) == pytest.approx(0.0, abs=1e-5)


def test_paths_are_followed_once_vectors_are_finished(model):
    prompts, targets = ["A person walks.", ""], [straight(40, 0.6), straight(30, 0.3, x=0.3)]
    errors = [
        control_error(follow(model, prompts, targets, pull=pull, sampler=QUICK), targets)
        for pull in (OFF, Pull(steps=0, finish=60, finish_rate=0.2))
    ]
    assert bool((errors[1] < 0.85 * errors[0]).all())


def test_logits_are_pulled_towards_the_path(model):
    goal = packed(straight(40, 0.6))[None]
    steered = control.Steered(model.generator, model.tokenizer, goal, torch.tensor([40]), Pull(steps=20))
    codes = torch.full((1, 10, 6), model.generator.config.codes)
    logits = torch.randn(1, 10, 6, 8, generator=torch.Generator().manual_seed(0))

    def error(of):
        features = model.tokenizer.decode_latents(model.tokenizer.embed(of.softmax(-1)[..., None, :]))
        return float(control._path_error(recover(features), goal))

    shift = steered._shift(logits, codes)
    assert error(logits + shift) < 0.95 * error(logits)
    assert not shift[:, :, 1:].any(), "the root lives in the torso's stream"


def test_without_help_it_is_generation(model):
    from kinelib.kinmo.coarse_to_fine import generate

    made = follow(model, ["A person walks."], [straight(40, 1.0)], pull=OFF, seed=3, sampler=QUICK)[0]
    plain = generate(model, ["A person walks."], 2.0, seed=3, sampler=replace(QUICK, soft=False))[0]
    assert torch.allclose(made.positions(), plain.positions(), atol=1e-5)


def test_tokens_that_are_known_are_not_moved(model):
    goal = packed(straight(8, 1.0))[None]
    steered = control.Steered(model.generator, model.tokenizer, goal, torch.tensor([8]), Pull(steps=3))
    codes = torch.zeros(1, 2, 6, dtype=torch.long)
    codes[0, 1, 0] = model.generator.config.codes  # one token of the torso is hidden
    shift = steered._shift(torch.zeros(1, 2, 6, 8), codes)
    assert shift[0, 1, 0].abs().sum() > 0
    shift[0, 1, 0] = 0
    assert not shift.any()


def test_a_branch_begins_as_nothing_and_learns(model):
    from kinelib.kinmo.control_branch import ControlBranch, branch_loss

    branch = ControlBranch.of(model.generator)
    same = dict(pull=OFF, sampler=QUICK)
    with_it = follow(model, [""], [straight(20, 1.0)], branch=branch.eval().requires_grad_(False), **same)[0]
    assert torch.equal(with_it.positions(), follow(model, [""], [straight(20, 1.0)], **same)[0].positions())

    torch.manual_seed(0)
    tokens = told_tokens(8, config=model.generator.config)
    sign = (torch.arange(8) % 2 * 2.0 - 1)[:, None]
    goal = torch.full((8, 24, 1, 3), NAN)
    goal[:, :, 0, 0], goal[:, :, 0, 2] = sign * torch.arange(24) / 20, 0.0
    branch = ControlBranch.of(model.generator)
    optimizer = torch.optim.Adam(branch.parameters(), lr=2e-2)
    draws, measure = torch.Generator().manual_seed(0), branch_loss(model.generator)
    batch = tokens.take(torch.arange(8), torch.zeros(8, dtype=torch.long))
    batch["words"] = batch["words"]._replace(silent=torch.ones(8, dtype=torch.bool))
    for _ in range(40):
        loss = measure(branch, batch | {"goal": goal}, draws)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    at = lambda path: float(measure(branch, batch | {"goal": path}, torch.Generator().manual_seed(1))["loss"].detach())
    mirrored = goal * torch.tensor([-1.0, 1.0, 1.0])
    assert at(goal) < at(mirrored) - 0.2, "the words say nothing: it is the path that tells the codes"
    assert all(weight.grad is None for weight in model.generator.parameters())


def test_paths_of_clips_are_mirrored_with_them(clips):
    from toy_tokens import said_motions

    from kinelib.kinmo.control_branch import paths_of, thinned

    motions, _ = said_motions(3)
    paths = paths_of(motions, 12)
    assert paths.shape == (3, 48, 1, 3) and bool(paths[..., 1].isnan().all())
    for path, length in zip(paths, motions.lengths.tolist(), strict=True):
        assert torch.equal(path[0, 0, [0, 2]], torch.zeros(2)) and bool(path[length:].isnan().all())
    lots = torch.tensor([0.9, 0.1, 0.9])
    few = thinned(paths, lots, torch.Generator().manual_seed(0)).isfinite()[..., 0, 0].sum(1)
    assert few[0] == motions.lengths[0] and few[1] < 8


@pytest.mark.parametrize(
    ("targets", "kind", "said"),
    [
        ([], ValueError, "each of 1 prompts"),
        ([{"tail": torch.zeros(8, 3)}], KeyError, "tail"),
        ([{"pelvis": torch.full((8, 3), NAN)}], ShapeError, "not all NaN"),
        ([{"pelvis": torch.zeros(8, 3), "head": torch.zeros(9, 3)}], ShapeError, "of one length"),
        ([{"pelvis": torch.zeros(8, 2)}], ShapeError, r"shape \(T, 3\); got \(8, 2\)"),
        ([{"pelvis": torch.zeros(160, 3)}], ValueError, "path 0 has 160 frames"),
    ],
)
def test_bad_targets_are_refused(model, targets, kind, said):
    with pytest.raises(kind, match=said):
        follow(model, ["A person walks."], targets)


def test_a_pull_is_not_negative():
    with pytest.raises(ValueError, match="not negative"):
        Pull(feet=-1.0)
