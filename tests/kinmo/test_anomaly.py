"""Gait anomaly: scores, ROC curves that can be worked out by hand, takes that are resampled whole, rows."""

from dataclasses import replace

import pytest
import torch

from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo.anomaly import GaitReference, gait_rows, gaits, kinematic_vectors, reflected, roc, speeds
from kinelib.kinmo.codec import encode_clips
from kinelib.kinmo.data import MotionTexts
from kinelib.notation import ShapeError

names = lambda letter, count: [f"{letter}{number}" for number in range(count)]


def walkers(count, seed, style, source="captured"):
    clips = procedural_clips(count, seed, contents=("walk",), styles=(style,), seconds=(3.0, 3.0))
    features = encode_clips([clip.motion for clip in clips])
    return MotionTexts(
        torch.cat(features),
        torch.tensor([len(one) for one in features]),
        prompts=tuple(clip.prompts for clip in clips),
        groups=(("",) * 6,) * count,
        interactions=(("",) * 15,) * count,
        labels=(f"walk/{style}",) * count,
        sources=(source,) * count,
        names=tuple(f"walk/{style}/{clip.take}" for clip in clips),
    )


def test_what_is_in_the_reference_is_nearer_than_what_is_not():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 5, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0])
    reference = GaitReference.learn(vectors)
    near, far = reference.score(vectors), reference.score(vectors + 8 * vectors.std(0))
    assert near.max() < far.min()
    assert torch.allclose(reference.score(vectors), GaitReference.learn(vectors * 3.0).score(vectors * 3.0))
    with pytest.raises(ShapeError, match="more than 3 clips"):
        GaitReference.learn(vectors[:3])


def test_roc_of_four_clips_by_hand():
    found = roc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]), (names("n", 2), names("o", 2)))
    assert found.area == 0.75 and (found.normal, found.other) == (2, 2)
    assert found.false_alarms.tolist() == [0, 0, 0.5, 0.5, 1] and found.found.tolist() == [0, 0.5, 0.5, 1, 1]
    area = float(((found.found[1:] + found.found[:-1]) / 2 * (found.false_alarms[1:] - found.false_alarms[:-1])).sum())
    assert area == pytest.approx(found.area)


def test_ties_are_half_and_a_perfect_score_is_one():
    assert roc(torch.ones(4), torch.ones(5), (names("n", 4), names("o", 5))).area == 0.5
    best = roc(torch.zeros(4), torch.ones(5), (names("n", 4), names("o", 5)))
    assert (best.low, best.area, best.high) == (1.0, 1.0, 1.0)


def test_clips_of_one_take_are_resampled_together():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(6, generator=generator), torch.randn(6, generator=generator) + 1
    alone = roc(*scores, (names("n", 6), names("o", 6)))
    many = tuple(one.repeat_interleave(5) for one in scores)
    whole = roc(*many, tuple([name for name in names(letter, 6) for _ in range(5)] for letter in "no"))
    apart = roc(*many, (names("n", 30), names("o", 30)))
    assert whole.area == pytest.approx(alone.area)
    assert whole.high - whole.low > 1.5 * (apart.high - apart.low)


def test_descriptions_know_speed_and_do_not_see_length():
    clips = encode_clips([clip.motion for clip in procedural_clips(3, 2, contents=("walk",), seconds=(3.0, 3.0))])
    assert kinematic_vectors(clips).shape == (3, 134)
    twice = [torch.cat([clip, clip]) for clip in clips]
    assert torch.allclose(kinematic_vectors(twice), kinematic_vectors(clips), atol=1e-5)
    assert 0.3 < float(speeds(clips).min()) < float(speeds(clips).max()) < 2.5


def test_rows_tell_styles_apart_and_stay_silent_without_gaits():
    train = walkers(8, 1, "normal")
    held_out = walkers(4, 2, "normal").join(walkers(5, 3, "old"))
    rows = gait_rows(train, held_out)
    assert {row.metric for row in rows} == {"area under the ROC"} and all(row.chance == 0.5 for row in rows)
    kinematic = next(row for row in rows if row.what.startswith("kinematic: old"))
    assert kinematic.value > 0.8 and kinematic.n == 9 and kinematic.low <= kinematic.value <= kinematic.high
    assert gait_rows(walkers(8, 1, "normal", source="procedural"), held_out) == []
    assert gaits(held_out, ("tired",)) is None


def test_mirrored_reference_is_the_mirror_image():
    clips = walkers(2, 1, "normal")
    assert torch.allclose(reflected(reflected(clips)).frames, clips.frames)
    assert not torch.allclose(reflected(clips).frames, clips.frames)


def test_both_kinds_are_needed():
    with pytest.raises(ShapeError, match="clips of both kinds"):
        roc(torch.zeros(0), torch.ones(2), ([], names("o", 2)))


def test_a_window_counts_to_its_take():
    held_out = walkers(2, 2, "normal").join(walkers(2, 3, "old"))
    windows = replace(held_out, names=tuple(f"{name}@{number}" for number, name in enumerate(held_out.names)))
    assert [row.value for row in gait_rows(walkers(8, 1, "normal"), windows)]
