"""The two closed-form parts of the small autoencoder: the temporal basis and the local affine fit."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from kinelib.notation import ShapeError
from kinelib.zipmo.local_fit import REACH, affine_fit
from kinelib.zipmo.temporal_basis import TemporalBasis

seeds = st.integers(0, 10_000)


def motion(count=6, seed=0, **options):
    return tiny.scenes(count, seed, **options).tracks.float()


def compressed(basis, tracks):
    """Displacements and what the basis keeps of them."""
    displacement = tracks - tracks[:, :, :1]
    return displacement, basis.displacement(basis.coefficients(displacement))


@given(seeds, st.sampled_from([(64, 64, 8), (64, 16, 4), (12, 12, 12), (8, 2, 2)]))
def test_curves_in_the_span_come_back_exactly(seed, sizes):
    frames, window, size = sizes
    basis = TemporalBasis(frames, window, size)
    windows = frames // window
    coefficients = torch.randn(3, 2, windows, basis.size, 2, generator=torch.Generator().manual_seed(seed))
    if window == frames:  # the last of as many functions as frames is the first frame alone, which is always zero
        coefficients[..., window - 1 :, :] = 0
    displacement = basis.displacement(coefficients)
    assert displacement.shape == (3, 2, frames, 2)
    assert displacement[..., 0, :].eq(0).all()
    back = basis.coefficients(displacement)
    settled = slice(0 if windows == 1 else 1, None)  # the first window loses its first frame
    assert torch.allclose(back[:, :, settled], coefficients[:, :, settled], atol=2e-4)


def test_displacement_is_zero_in_the_first_frame_before_and_after_measuring():
    basis = TemporalBasis(64, 64, 8)
    for _ in range(2):
        assert compressed(basis, motion())[1][..., 0, :].eq(0).all()
        assert float(basis.functions[0].abs().max()) < 1e-5
        basis.measure(motion(seed=1))


def test_a_measured_basis_beats_polynomials_on_other_scenes():
    measured, polynomial = TemporalBasis(64, 64, 4), TemporalBasis(64, 64, 4)
    measured.measure(motion(60, seed=1))
    errors = {}
    for name, basis in (("measured", measured), ("polynomial", polynomial)):
        displacement, kept = compressed(basis, motion(60, seed=2))
        errors[name] = float((displacement - kept).square().mean())
        assert errors[name] < 0.1 * float(displacement.square().mean())
    assert errors["measured"] < 0.8 * errors["polynomial"]


def test_measuring_is_the_best_fit_of_what_was_measured():
    tracks = motion(20)
    basis = TemporalBasis(64, 64, 3)
    basis.measure(tracks)
    displacement, kept = compressed(basis, tracks)
    values = torch.linalg.svdvals((displacement.double()).transpose(-1, -2).reshape(-1, 64))
    assert float((displacement - kept).square().sum()) == pytest.approx(float(values[3:].square().sum()), rel=1e-3)


def test_leading_coefficients_alone_give_a_coarser_curve_and_clips_of_other_lengths_can_be_measured():
    basis = TemporalBasis(64, 64, 8)
    basis.measure(motion(10, num_frames=24))
    displacement = motion() - motion()[:, :, :1]
    coefficients = basis.coefficients(displacement)
    errors = [float((basis.displacement(coefficients[..., :d, :]) - displacement).square().mean()) for d in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 10


def test_a_window_that_does_not_divide_is_refused():
    with pytest.raises(ShapeError, match="10 does not divide 64"):
        TemporalBasis(64, 10, 4)


def affine_case(seed, spread=0.1, sources=12):
    """Sources within `spread` of a centre that carry an affine field, arbitrary positive weights, and targets among them."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64) * 2 - 1
    centre, slopes, offset = draw(2, 1, 2), draw(2, 2, 3), draw(2, 1, 3)
    positions, targets = centre + spread * draw(2, sources, 2), centre + spread * draw(2, 5, 2)
    weights = (3 * draw(2, 4, 5, sources)).softmax(dim=-1)
    return weights, positions, positions @ slopes + offset, targets, slopes, offset


@given(seeds)
def test_affine_fields_are_fitted_exactly_whatever_the_weights(seed):
    weights, positions, values, targets, slopes, offset = affine_case(seed)
    fit = affine_fit(weights, positions, values, targets, torch.full((4,), 1e-9, dtype=torch.float64))
    expected = (targets @ slopes + offset)[:, None].expand(-1, 4, -1, -1)
    assert torch.allclose(fit.value, expected, atol=1e-4)
    assert torch.allclose(fit.slopes, slopes[:, None, None].expand_as(fit.slopes), atol=1e-2)


@given(seeds, st.floats(1.0, 1e4))
def test_extrapolation_ends_at_a_fixed_distance(seed, distance):
    weights, positions, values, _, slopes, _ = affine_case(seed)
    weights = weights[:, :, :1]
    ridge = torch.full((4,), 1e-9, dtype=torch.float64)
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)
    at = lambda length: affine_fit(weights, positions, values, (positions[:, :1] + length * direction), ridge).value
    centre = torch.einsum("bhmn,bnd->bhmd", weights, values)
    reach = REACH * slopes.flatten(1).norm(dim=1).amax()
    assert (at(distance) - centre).norm(dim=-1).max() <= reach + 1e-3
    assert torch.allclose(at(2e4), at(1e5), atol=1e-3)


def test_one_source_and_coinciding_sources_are_copied_with_finite_gradients():
    for positions in (torch.zeros(1, 1, 2), torch.zeros(1, 6, 2), torch.rand(1, 1, 2).expand(1, 6, 2)):
        count = positions.shape[1]
        values = torch.tensor([0.3, -0.2, 1.0]).expand(1, count, 3).clone().requires_grad_()
        moved = positions.clone().requires_grad_()
        weights = torch.full((1, 2, 3, count), 1 / count)
        fit = affine_fit(weights, moved, values, torch.rand(1, 3, 2), torch.full((2,), 1e-3))
        assert torch.allclose(fit.value, values[:, None, :1].expand_as(fit.value), atol=1e-3)
        sum(part.sum() for part in fit).backward()
        assert values.grad.isfinite().all() and moved.grad.isfinite().all()
