"""The training loop: it learns what it should, logs what it did, and explains what it cannot do."""

import json
import math
import time
from dataclasses import replace

import pytest
import torch
from small_training import CONFIG, curve, draw, loss, new_net, same_weights
from torch import nn

from kinelib.learning import state
from kinelib.learning.ema import WeightAverage
from kinelib.learning.fit import FitConfig, fit
from kinelib.learning.progress import wants_bar
from kinelib.learning.schedule import Stopwatch, learning_rate_factor

# Learning and logging


def test_it_learns_and_logs_means_of_every_step(tmp_path):
    seen = []

    def watched(model, batch, generator):
        terms = loss(model, batch, generator)
        seen.append(float(terms["loss"].detach()))
        return terms

    config = replace(CONFIG, steps=150, log_every=50)
    result = fit(new_net(), draw, watched, config, tmp_path)
    assert result.steps == 150 and not result.stopped_early
    assert [entry["step"] for entry in result.losses] == [1, 50, 100, 150]
    assert result.losses[-1]["loss"] < 0.7 * result.losses[0]["loss"]
    assert result.losses[0]["loss"] == pytest.approx(seen[0], rel=1e-6)
    assert result.losses[1]["loss"] == pytest.approx(sum(seen[1:50]) / 49, rel=1e-6)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == result.losses
    assert result.losses[-1].keys() == {
        "step",
        "seconds",
        "loss",
        "worst",
        "gradient_norm",
        "learning_rate",
        "items_per_second",
    }
    seconds = result.losses[2]["seconds"] - result.losses[1]["seconds"]
    assert result.losses[2]["items_per_second"] == pytest.approx(50 * 32 / seconds, rel=0.2)


def test_the_same_seed_gives_the_same_training_and_another_seed_another(tmp_path):
    nets, seeds = [new_net() for _ in range(3)], (5, 5, 6)
    results = [fit(nets[i], draw, loss, replace(CONFIG, seed=seeds[i]), tmp_path / str(i)) for i in range(3)]
    assert curve(results[0]) == curve(results[1]) != curve(results[2])
    assert same_weights(nets[0], nets[1]) and not same_weights(nets[0], nets[2])


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    torch.manual_seed(8)
    expected = torch.rand(4)
    net = new_net()
    torch.manual_seed(8)
    fit(net, draw, loss, CONFIG, tmp_path)
    assert torch.equal(torch.rand(4), expected)


def test_accumulating_two_halves_equals_one_whole_batch(tmp_path):
    data = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    halves = iter([data[:4], data[4:]] * 5)
    config = FitConfig(steps=5, ema_decay=None, clip_norm=None)
    objective = lambda model, x, generator: {"loss": (model(x) - 1).square().mean()}
    torch.manual_seed(0)
    whole, parts = nn.Linear(3, 1), nn.Linear(3, 1)
    parts.load_state_dict(whole.state_dict())
    fit(whole, lambda generator: data, objective, config, tmp_path / "whole")
    fit(parts, lambda generator: next(halves), objective, replace(config, accumulate=2), tmp_path / "parts")
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-5, atol=1e-6)


def test_only_matrices_decay(tmp_path):
    net = new_net()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    # A zero gradient leaves weight decay as the only force.
    still = lambda model, batch, generator: {"loss": 0 * sum(p.sum() for p in model.parameters())}
    config = replace(CONFIG, weight_decay=0.5, learning_rate=0.1, ema_decay=None)
    fit(net, draw, still, config, tmp_path)
    for name, p in net.named_parameters():
        if p.ndim == 1:
            assert torch.equal(p, before[name]), name
        else:
            ratio = (p / before[name]).detach()
            assert 0.3 < ratio.mean() < 0.9 and ratio.std() < 1e-4, name


def test_gradients_are_clipped_and_the_norm_before_clipping_is_logged(tmp_path):
    net = nn.Linear(1, 1, bias=False)
    steep = lambda model, batch, generator: {"loss": 1000 * model.weight.sum()}
    config = FitConfig(steps=1, clip_norm=0.5, ema_decay=None)
    assert fit(net, draw, steep, config, tmp_path).losses[0]["gradient_norm"] == pytest.approx(1000)
    assert net.weight.grad.norm() == pytest.approx(0.5, rel=1e-4)


def test_bfloat16_runs_the_loss_under_autocast(tmp_path):
    seen = set()

    def watched(model, batch, generator):
        seen.add(model.inward(batch["x"]).dtype)
        return loss(model, batch, generator)

    net = new_net()
    fit(net, draw, watched, replace(CONFIG, steps=2, mixed_precision="bf16"), tmp_path)
    assert seen == {torch.bfloat16} and net.inward.weight.dtype == torch.float32


def test_frozen_parameters_stay(tmp_path):
    net = new_net()
    net.inward.requires_grad_(False)
    frozen, moving = net.inward.weight.clone(), net.outward.weight.clone()
    fit(net, draw, loss, CONFIG, tmp_path)
    assert torch.equal(net.inward.weight, frozen) and not torch.equal(net.outward.weight, moving)


# Schedule, clock, moving average


def test_learning_rate_warms_up_and_falls_along_a_cosine():
    factor = lambda progress: learning_rate_factor(progress, warmup=0.1, final=0.2)
    assert [factor(p) for p in (0, 0.05, 0.1, 0.55, 1)] == pytest.approx([0, 0.5, 1, 0.6, 0.2])
    assert factor(-1) == 0 and factor(2) == pytest.approx(0.2)
    assert learning_rate_factor(0, warmup=0, final=0) == 1


def test_the_logged_rate_follows_the_schedule(tmp_path):
    result = fit(new_net(), draw, loss, replace(CONFIG, log_every=1, warmup=0.25), tmp_path)
    wanted = [1e-2 * learning_rate_factor((step + 0.5) / 20, 0.25, 0.0) for step in range(20)]
    assert [entry["learning_rate"] for entry in result.losses] == pytest.approx(wanted)


def test_the_clock_continues_and_stands_still_while_paused(monkeypatch):
    now = 5.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Stopwatch(100.0)
    now += 2
    with clock.paused():
        now += 40
        assert clock.seconds == 102
    now += 3
    assert clock.seconds == 105


def test_the_average_warms_up_then_follows_its_decay():
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average, expected = WeightAverage(net, decay=0.5), 0.0
    for step in range(20):
        nn.init.constant_(net.weight, step + 1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
    assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(RuntimeError, match="inside"), average.in_model():
        assert net.weight.item() == pytest.approx(expected, rel=1e-6)
        raise RuntimeError("inside")
    assert net.weight.item() == 20


def test_the_network_ends_with_the_averaged_weights_in_eval_mode(tmp_path):
    plain, averaged = new_net(), new_net()
    fit(plain, draw, loss, replace(CONFIG, ema_decay=None), tmp_path / "plain")
    fit(averaged, draw, loss, replace(CONFIG, ema_decay=0.999), tmp_path / "averaged")
    assert not averaged.training
    assert not same_weights(plain, averaged)
    # Averaging does not touch the training: the live weights in the state are those of the run without it.
    tensors = state.checkpoints.read_tensors(tmp_path / "averaged" / "state" / "step_20.safetensors")
    assert all(torch.equal(tensors[f"model.{name}"], value) for name, value in plain.state_dict().items())


def test_validation_sees_the_average_and_costs_no_training_time(tmp_path):
    seen = []

    def validate(model):
        time.sleep(0.1)
        assert not model.training and not torch.is_grad_enabled()
        seen.append(model.outward.weight.clone())
        return {"error": float(len(seen))}

    net = new_net()
    began = time.monotonic()
    result = fit(net, draw, loss, CONFIG, tmp_path / "with", validate=validate, validate_every=5)
    assert result.seconds <= time.monotonic() - began - 4 * 0.1
    assert [(v["step"], v["error"]) for v in result.validations] == [(5, 1.0), (10, 2.0), (15, 3.0), (20, 4.0)]
    assert torch.equal(seen[-1], net.outward.weight) and not torch.equal(seen[0], seen[1])
    assert curve(result) == curve(fit(new_net(), draw, loss, CONFIG, tmp_path / "without"))


def test_a_time_budget_ends_on_time_and_spends_the_whole_schedule(tmp_path):
    result = fit(new_net(), draw, loss, FitConfig(seconds=1.0, log_every=1), tmp_path)
    # It ends with the first step that reaches the budget.
    assert result.losses[-2]["seconds"] <= 1.0 <= result.seconds
    rates = [entry["learning_rate"] for entry in result.losses]
    assert max(rates) > 0.7e-3 and rates[-1] < 0.3e-3


# Refusing


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(()), "dict of scalar tensors"),
        ({"error": torch.zeros(())}, "'loss'"),
        ({"loss": torch.zeros(3)}, "scalar"),
        ({"loss": torch.zeros(()), "step": torch.zeros(())}, "'step'"),
    ],
)
def test_a_loss_of_the_wrong_form_is_explained(tmp_path, returned, message):
    with pytest.raises(ValueError, match=message):
        fit(new_net(), draw, lambda *_: returned, CONFIG, tmp_path)


def test_terms_may_not_change_on_the_way(tmp_path):
    count = iter(range(100))
    changing = lambda m, b, g: loss(m, b, g) | ({"extra": torch.zeros(())} if next(count) > 2 else {})
    with pytest.raises(ValueError, match=r"same terms.*\['loss', 'worst'\].*extra"):
        fit(new_net(), draw, changing, CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", 0), ("warmup", 1.0), ("ema_decay", 1.0), ("accumulate", 0), ("mixed_precision", "fp8"), ("steps", 0)]
    + [("learning_rate", math.nan), ("clip_norm", 0), ("log_every", 0), ("final_learning_rate", 2), ("seed", -1)],
)
def test_a_config_out_of_range_is_refused_by_field(field, value):
    with pytest.raises(ValueError, match=rf"FitConfig\.{field}"):
        replace(CONFIG, **{field: value})


@pytest.mark.parametrize("budget", [{}, {"steps": 3, "seconds": 3}])
def test_steps_or_seconds_but_not_both(budget):
    with pytest.raises(ValueError, match="exactly one of steps and seconds"):
        FitConfig(**budget)


def test_headless_runs_print_plain_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KINELIB_PROGRESS", "plain")
    fit(new_net(), draw, loss, replace(CONFIG, accumulate=2), tmp_path, description="toy")
    first, last = capsys.readouterr().err.splitlines()
    assert "97 parameters" in first and "1 process(es) x batch 32 x accumulation 2; 20 steps" in first
    assert last.startswith("toy: 100 %  step 20") and "\r" not in last
    monkeypatch.setenv("KINELIB_PROGRESS", "bar")
    fit(new_net(), draw, loss, CONFIG, tmp_path, overwrite=True)
    assert "100%|" in capsys.readouterr().err
    monkeypatch.setenv("KINELIB_PROGRESS", "bars")
    with pytest.raises(ValueError, match="'bar' or 'plain'"):
        wants_bar()
