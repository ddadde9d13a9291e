"""load_or_train: takes the shipped model when it is the one asked for, the kept one when nothing changed, else trains."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from kinelib import course
from kinelib.course.artefacts import describe, duration
from kinelib.learning import checkpoints


@dataclass(frozen=True)
class ToyConfig:
    width: int = 3  # inputs


class Toy(nn.Module):
    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        self.layer = nn.Linear(config.width, 1)


class Other(Toy):
    pass


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """Starts a lesson and returns the list to which every training of the tests adds a line."""
    monkeypatch.setenv("KINELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("KINELIB_HEADLESS", raising=False)
    course.start("00_a", "smoke", 0)
    return deque()  # not a list: load_or_train would see that it grows, and train again


def trained(trainings, tmp_path, width=3, kind=Toy, **options):
    def train(model):
        trainings.append(width)
        nn.init.constant_(model.layer.weight, 7.0)

    build = lambda: kind(ToyConfig(width))
    return course.load_or_train("toy", build, train, checkpoint_folder=tmp_path / "shipped", **options)


def test_trains_once_and_then_loads(trainings, tmp_path, capsys):
    first = trained(trainings, tmp_path)
    again = trained(trainings, tmp_path)
    said = capsys.readouterr().out
    assert list(trainings) == [3] and "trained in" in said and "loaded from cache, trained in" in said
    assert not first.training and not again.training
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_takes_the_shipped_checkpoint_in_smoke_only(trainings, tmp_path, capsys):
    shipped = Toy(ToyConfig())
    checkpoints.save(tmp_path / "shipped" / "toy", shipped, card="# toy")
    assert torch.equal(trained(trainings, tmp_path).layer.weight, shipped.layer.weight)
    assert not trainings and "loaded the shipped checkpoint" in capsys.readouterr().out
    assert trained(trainings, tmp_path, use_shipped=False).layer.weight.mean().item() == 7
    course.start("00_a", "lab", 0)
    trained(trainings, tmp_path)
    assert len(trainings) == 2


def test_a_shipped_checkpoint_of_another_size_or_class_is_not_taken(trainings, tmp_path, capsys):
    checkpoints.save(tmp_path / "shipped" / "toy", Toy(ToyConfig()), card="# toy")
    assert trained(trainings, tmp_path, width=5).layer.weight.shape == (1, 5)
    assert "has width 3, not 5" in capsys.readouterr().out
    trained(trainings, tmp_path, kind=Other)
    assert "is a Toy, not a Other" in capsys.readouterr().out and list(trainings) == [5, 3]


def test_a_damaged_shipped_checkpoint_is_an_error_and_not_a_training(trainings, tmp_path):
    folder = checkpoints.save(tmp_path / "shipped" / "toy", Toy(ToyConfig()), card="# toy")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        trained(trainings, tmp_path)
    assert not trainings


def test_a_new_seed_setting_or_config_trains_again(trainings, tmp_path):
    trained(trainings, tmp_path)
    trained(trainings, tmp_path, settings={"batch": 8})
    trained(trainings, tmp_path, width=4)
    course.start("00_a", "smoke", 1)
    trained(trainings, tmp_path)
    assert len(trainings) == 4
    trained(trainings, tmp_path)
    assert len(trainings) == 4


def test_an_interrupted_training_leaves_nothing_behind(trainings, tmp_path):
    def train(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        course.load_or_train("toy", lambda: Toy(ToyConfig()), train, checkpoint_folder=tmp_path / "shipped")
    assert not list((tmp_path / "runs").rglob("toy-*"))


def test_later_draws_do_not_depend_on_whether_the_model_was_trained(trainings, tmp_path):
    drawn = []
    for _ in range(2):
        course.start("00_a", "smoke", 0)
        trained(trainings, tmp_path)
        drawn.append(float(torch.rand(())))
    assert len(trainings) == 1 and drawn[0] == drawn[1]


def make(steps, helper=None):
    def train(model):
        return (helper or abs)(steps)

    return train


def test_describe_sees_code_values_and_helpers_but_not_layout():
    namespace: dict = {}
    exec("def a(x):\n    return x + 1", namespace)
    assert describe(make(3)) == describe(make(3)) != describe(make(4))
    assert describe(make(3, helper=duration)) == describe(make(3, helper=duration))
    one, two = (lambda m: m), (lambda m: m + 1)
    assert describe(one) != describe(two)
    assert describe(namespace["a"])


def test_duration_reads_well():
    assert [duration(seconds) for seconds in (8.24, 192, 7500)] == ["8.2 s", "3 min 12 s", "2 h 5 min"]
