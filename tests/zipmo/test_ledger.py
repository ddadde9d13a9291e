"""Finished measurements are found again by what they depend on, and by nothing else."""

import math
from dataclasses import dataclass
from functools import partial

import tiny
import torch

from kinelib.zipmo.baselines import linear, linear_local
from kinelib.zipmo.ledger import Ledger, fingerprint


@dataclass(frozen=True)
class Forecast:
    """Something with a network and a setting."""

    network: object
    steps: int = 6


def test_fingerprints_tell_weights_settings_functions_and_clips_apart():
    things = [
        tiny.planner(),
        tiny.planner(seed=1),
        Forecast(tiny.planner()),
        Forecast(tiny.planner(), steps=7),
        linear,
        linear_local,
        partial(linear_local, radius=0.2),
        partial(linear_local, radius=0.3),
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(2, 3, dtype=torch.float64),
        torch.tensor(1.0),
        {"a": 1},
        {"a": 2},
        (1, 2),
        (1, (2,)),
        (12,),
        1,
        1.0,
        "1",
        None,
        True,
    ]
    assert len({fingerprint(thing) for thing in things}) == len(things)
    assert fingerprint(Forecast(tiny.planner())) == fingerprint(Forecast(tiny.planner()))


def test_closures_differ_by_what_they_hold():
    make = lambda value: lambda: value
    assert fingerprint(make(1)) == fingerprint(make(1)) != fingerprint(make(2))


def test_a_measurement_is_made_once_and_read_back_exactly(tmp_path):
    path, calls = tmp_path / "deep" / "kept.jsonl", []
    values = torch.tensor([1 / 3, math.nan, 1e-300], dtype=torch.float64)

    def work():
        calls.append(1)
        return {"epe": values}, 1.5

    first = Ledger(path).measure(["inputs", 1], work)
    again = Ledger(path)
    second = again.measure(["inputs", 1], work)
    for metrics, seconds in (first, second):
        assert seconds == 1.5 and metrics["epe"][1].isnan() and torch.equal(metrics["epe"][[0, 2]], values[[0, 2]])
    assert len(calls) == 1
    again.measure(["inputs", 2], work)
    assert len(calls) == 2 and len(Ledger(path).entries) == 2
    again.close()
    assert not path.exists()


def test_a_line_that_was_cut_short_is_dropped(tmp_path):
    path = tmp_path / "kept.jsonl"
    ledger = Ledger(path)
    for number in range(3):
        ledger.measure(number, lambda: ({"epe": torch.ones(2)}, 0.0))
    path.write_text(path.read_text()[:-10])
    assert len(Ledger(path).entries) == 2
    assert path.read_text().endswith("}\n") and len(path.read_text().splitlines()) == 2


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = Ledger()
    ledger.measure("x", lambda: ({"epe": torch.ones(2)}, 0.0))
    ledger.close()
    assert len(ledger.entries) == 1 and not list(tmp_path.iterdir())
