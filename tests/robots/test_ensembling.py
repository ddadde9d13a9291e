"""Temporal ensembling: no error where chunks agree, stated weights where not, the release's fault behind a switch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinelib.notation import ShapeError
from kinelib.robots.ensembling import TemporalEnsemble


def counting_chunk(step, horizon=16):
    """The chunk of a policy that knows its future exactly: the action at step t is t."""
    return (step + np.arange(horizon))[:, None] * np.ones(7)


def errors(ensemble, steps, horizon=16):
    return [ensemble(counting_chunk(step, horizon))[0] - step for step in range(steps)]


@given(horizon=st.integers(1, 20), steps=st.integers(1, 50), discount=st.floats(0.05, 1.0))
def test_a_perfectly_predictable_policy_has_no_error_at_any_step(horizon, steps, discount):
    assert np.abs(errors(TemporalEnsemble(discount), steps, horizon)).max() < 1e-9


def test_the_release_is_ahead_of_the_truth_only_behind_the_switch():
    faulty = errors(TemporalEnsemble(official_index=True), 60)
    assert faulty[0] == 0
    assert all(6 < error < 9.1 for error in faulty[1:9])
    assert abs(faulty[15]) < 0.5 and all(error == pytest.approx(0.07, abs=0.01) for error in faulty[15:])


def test_weights_fall_with_age():
    ensemble, chunks = TemporalEnsemble(0.9), np.random.default_rng(0).normal(size=(6, 4, 2))
    for chunk in chunks:
        action = ensemble(chunk)
    weights = 0.9 ** np.arange(4)
    expected = sum(weights[age] * chunks[5 - age, age] for age in range(4)) / weights.sum()
    np.testing.assert_allclose(action, expected, rtol=1e-12)
    assert action.dtype == np.float64


def test_environments_are_independent_and_reset_forgets():
    rng, both = np.random.default_rng(1), TemporalEnsemble()
    chunks = rng.normal(size=(5, 3, 8, 7))
    single = [TemporalEnsemble() for _ in range(3)]
    for chunk in chunks:
        together = both(chunk)
        apart = [one(part) for one, part in zip(single, chunk, strict=True)]
        np.testing.assert_allclose(together, apart, rtol=1e-12)
    both.reset()
    np.testing.assert_allclose(both(chunks[0, 0]), chunks[0, 0, 0])


def test_what_is_taken_in_cannot_be_changed_from_outside():
    ensemble, chunk = TemporalEnsemble(), counting_chunk(0)
    ensemble(chunk)
    chunk[:] = 1000
    assert ensemble(counting_chunk(1))[0] == pytest.approx(1)


def test_bad_chunks_are_refused_and_not_taken_in():
    ensemble = TemporalEnsemble()
    ensemble(counting_chunk(0))
    for wrong, message in (
        (np.full((16, 7), np.nan), "NaN"),
        (np.where(counting_chunk(1) == 3, np.inf, 1.0), "infinite"),
        (np.zeros((8, 7)), "reset"),
        (np.zeros(7), "shape"),
        (np.zeros((0, 7)), "hold something"),
    ):
        with pytest.raises(ShapeError, match=message):
            ensemble(wrong)
    assert ensemble(counting_chunk(1))[0] == pytest.approx(1)
    for discount in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="discount"):
            TemporalEnsemble(discount)
