"""The shape checks say what is wrong, and the coordinate maps agree with the conventions of the README."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape, frame_times, from_pixels, to_pixels

COORDINATE = st.floats(-2, 2, allow_subnormal=False)


def test_check_shape_returns_sizes_and_carries_them_over():
    sizes = check_shape("tracks", torch.zeros(2, 5, 64, 2), "B N T 2")
    assert (sizes["B"], sizes["N"], sizes["T"]) == (2, 5, 64)
    with pytest.raises(ShapeError, match=r"visible.*axis N is 6, expected 5"):
        check_shape("visible", torch.zeros(2, 6, 64), "B N T", **{axis: sizes[axis] for axis in "BNT"})


@pytest.mark.parametrize(
    ("shape", "pattern", "message"),
    [
        ((2, 5, 64), "B N T 2", r"tracks must have shape \(B, N, T, 2\); got \(2, 5, 64\), which has 3 axes, not 4"),
        ((2, 5, 64, 3), "B N T 2", "axis 2 is 3, expected 2"),
        ((3, 4), "N N", "axis N is 4, expected 3"),
    ],
)
def test_check_shape_names_what_is_wrong(shape, pattern, message):
    with pytest.raises(ShapeError, match=message):
        check_shape("tracks", torch.zeros(shape), pattern)


def test_check_finite_counts_bad_values():
    values = torch.zeros(3, 4)
    check_finite("tracks", values)
    values[0, 0], values[1, 2] = float("nan"), float("inf")
    with pytest.raises(ShapeError, match="tracks holds 2 of 12 values"):
        check_finite("tracks", values)


def test_frame_edges_are_plus_and_minus_one():
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    assert torch.equal(to_pixels(corners, 640, 480), torch.tensor([[0.0, 0.0], [640.0, 480.0], [320.0, 240.0]]))
    # The centre of the first pixel is half a pixel inside the frame.
    assert torch.allclose(from_pixels(torch.tensor([0.5, 0.5]), 4, 2), torch.tensor([-0.75, -0.5]))


@settings(max_examples=50, deadline=None)
@given(COORDINATE, COORDINATE, st.integers(1, 4000), st.integers(1, 4000))
def test_pixels_round_trip(x, y, width, height):
    xy = torch.tensor([x, y], dtype=torch.float64)
    assert torch.allclose(from_pixels(to_pixels(xy, width, height), width, height), xy, atol=1e-9)


def test_cell_centres_run_row_by_row_in_xy_order():
    centres = cell_centres(2, 4)
    assert centres.shape == (8, 2)
    assert torch.allclose(centres[:4, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    assert torch.allclose(centres[:4, 1], torch.full((4,), -0.5))
    assert torch.allclose(to_pixels(centres, 4, 2) - 0.5, torch.tensor([[x, y] for y in range(2) for x in range(4)]).float())


def test_frame_times_span_zero_to_one():
    assert torch.allclose(frame_times(5), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert frame_times(1).tolist() == [0.0]
