"""Adam-atan2 against its formula, what follows from the formula, and its place in `fit`."""

import math
from dataclasses import replace

import pytest
import torch
from small_training import CONFIG, curve, draw, loss, new_net, same_weights, stop_at
from torch import nn

from kinelib.learning import state
from kinelib.learning.adam_atan2 import AdamAtan2
from kinelib.learning.fit import FitConfig, fit
from kinelib.learning.optimizer import build_optimizer


def parameter(*values):
    return nn.Parameter(torch.tensor(values))


def steps_of(optimizer, weights, gradients):
    for gradient in gradients:
        weights.grad = torch.tensor(gradient)
        optimizer.step()
    return weights.detach().clone()


def test_every_step_follows_the_formula():
    rate, first, second, decay, scale = 0.01, 0.8, 0.95, 0.1, 3.0
    gradients = [[0.3, -2.0, 0.0], [-0.1, -1.0, 0.0], [5.0, 0.2, 0.0], [0.0, 0.0, 0.0]]
    weights = parameter(1.0, -2.0, 3.0)
    found = steps_of(AdamAtan2([weights], rate, (first, second), decay, scale), weights, gradients)
    for i, value in enumerate((1.0, -2.0, 3.0)):
        mean = square = 0.0
        for step, row in enumerate(gradients, start=1):
            mean, square = first * mean + (1 - first) * row[i], second * square + (1 - second) * row[i] ** 2
            m, root = mean / (1 - first**step), math.sqrt(square / (1 - second**step))
            value = value * (1 - rate * decay) - rate * 4 / math.pi * scale * math.atan2(m, scale * root)
        assert found[i] == pytest.approx(value, rel=1e-5)


def test_the_size_of_gradients_does_not_matter_and_no_gradient_moves_nothing():
    gradients = [[0.3, -2.0], [-0.1, 1.0], [5.0, 0.2]]
    moved = []
    for factor in (1.0, 2.0**-40, 2.0**30):
        weights = parameter(1.0, 1.0)
        moved.append(steps_of(AdamAtan2([weights]), weights, [[factor * g for g in row] for row in gradients]))
    assert torch.equal(moved[0], moved[1]) and torch.equal(moved[0], moved[2])
    weights = parameter(1.0)
    assert steps_of(AdamAtan2([weights]), weights, [[0.0]] * 3).item() == 1.0


def test_steps_are_bounded_and_large_scales_are_adam():
    # One step from rest: m equals the root of v, so that Adam's step is the learning rate itself.
    for scale in (1.0, 8.0, 1000.0):
        weights = parameter(0.0)
        moved = steps_of(AdamAtan2([weights], lr=0.1, scale=scale), weights, [[123.0]]).item()
        assert moved == pytest.approx(-0.1 * 4 / math.pi * scale * math.atan(1 / scale), rel=1e-5)
    assert moved == pytest.approx(-0.1 * 4 / math.pi, rel=1e-5)


def test_a_badly_scaled_quadratic_is_minimised():
    target, curvature = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1e-4, 1.0, 1e4])
    weights = parameter(0.0, 0.0, 0.0)
    optimizer = AdamAtan2([weights], lr=0.05)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        optimizer.zero_grad()
        value = optimizer.step(lambda: _backward((curvature * (weights - target) ** 2).sum()))
    assert torch.allclose(weights.detach(), target, atol=1e-2) and float(value.detach()) < 1.0


def _backward(value):
    value.backward()
    return value


def test_parameters_that_rest_keep_their_place_and_groups_their_own_numbers():
    moving, resting, decaying = parameter(1.0), parameter(2.0), parameter(4.0)
    groups = [{"params": [moving, resting]}, {"params": [decaying], "weight_decay": 0.5, "lr": 0.1}]
    optimizer = AdamAtan2(groups, lr=0.01)
    moving.grad, decaying.grad = torch.ones(1), torch.zeros(1)
    optimizer.step()
    assert resting.item() == 2.0 and moving.item() < 1.0 and decaying.item() == pytest.approx(4 * 0.95)
    # One that starts later is corrected by its own count of steps, not by the others'.
    moving.grad, resting.grad = None, torch.ones(1)
    optimizer.step()
    assert 2.0 - resting.item() == pytest.approx(1.0 - moving.item(), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"betas": (0.9, 1.0)}, {"weight_decay": -1.0}, {"scale": 0.0}])
def test_numbers_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} = "):
        AdamAtan2([parameter(1.0)], **wrong)
    embedding = nn.Embedding(3, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse=False"):
        AdamAtan2(embedding.parameters()).step()


# ---- in fit


def test_fit_trains_with_it_and_resumes_exactly(tmp_path):
    config = replace(CONFIG, optimizer="adam-atan2")
    whole, parts, other = new_net(), new_net(), new_net()
    expected = fit(whole, draw, loss, config, tmp_path / "whole")
    assert fit(parts, stop_at(7), loss, config, tmp_path / "parts").stopped_early
    assert curve(fit(parts, draw, loss, config, tmp_path / "parts", resume=True)) == curve(expected)
    assert same_weights(whole, parts)
    fit(other, draw, loss, CONFIG, tmp_path / "adamw")
    assert not same_weights(whole, other)
    with pytest.raises(state.ResumeError, match="optimizer was 'adam-atan2'"):
        fit(new_net(), draw, loss, CONFIG, tmp_path / "whole", resume=True)


def test_states_from_before_there_was_a_choice_still_resume(tmp_path):
    fit(new_net(), draw, loss, CONFIG, tmp_path)
    assert "optimizer" not in state.read(tmp_path).config
    assert fit(new_net(), draw, loss, CONFIG, tmp_path, resume=True).steps == CONFIG.steps


def test_unknown_optimizers_are_refused():
    with pytest.raises(ValueError, match="FitConfig.optimizer = 'sgd'"):
        FitConfig(steps=1, optimizer="sgd")
    with pytest.raises(ValueError, match="choose one of: adamw, adam-atan2"):
        build_optimizer("sgd", [parameter(1.0)], learning_rate=1.0, betas=(0.9, 0.99), weight_decay=0.0)


@pytest.mark.parametrize("kind", ["adamw", "adam-atan2"])
def test_only_matrices_decay(kind):
    net = nn.Linear(3, 2)
    optimizer = build_optimizer(kind, list(net.parameters()), learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {net.weight: 0.5, net.bias: 0.0}


def test_a_curriculum_is_told_how_far_the_training_is(tmp_path):
    told = []

    def watching(generator, progress):
        told.append(progress)
        return draw(generator)

    fit(new_net(), watching, loss, CONFIG, tmp_path, tell_progress=True)
    assert told == [pytest.approx(i / CONFIG.steps) for i in range(CONFIG.steps)]
