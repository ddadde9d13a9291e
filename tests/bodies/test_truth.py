"""Geometric truth: what is measured on bodies whose motion is known, and what captions ask of it."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural import CONTENTS, procedural_clips
from kinelib.bodies.rotations import about_y, from_axis_angle
from kinelib.bodies.skeletons import FPS, SMPLX22
from kinelib.bodies.truth import (
    TRUTH_PROMPTS,
    Thresholds,
    chance,
    confusion,
    content_of,
    expected,
    follows,
    measure,
    measure_all,
)

DATA = Path(os.environ.get("KINELIB_DATA", "no such folder"))
SINGLE = [content for content in CONTENTS if "+" not in content]


def body(frames: int = 60, arms: float = -1.4) -> tuple[torch.Tensor, torch.Tensor]:
    """A body with hanging arms (radians from the T-pose) that stands still."""
    rotations = torch.eye(3).repeat(frames, 22, 1, 1)
    for name, sense in (("left_shoulder", 1), ("right_shoulder", -1)):
        rotations[:, SMPLX22.index(name)] = from_axis_angle(torch.tensor([0.0, 0.0, sense * arms]))
    return rotations, SMPLX22.offsets[0].repeat(frames, 1)


@pytest.fixture(scope="module")
def measured():
    clips = procedural_clips(120, seed=12, contents=SINGLE)
    by_content = defaultdict(list)
    for clip, facts in zip(clips, measure_all([clip.motion for clip in clips]), strict=True):
        by_content[clip.content].append(facts)
    return dict(by_content)


@pytest.mark.parametrize("degrees", [-400.0, -90.0, 0.0, 45.0, 270.0])
def test_turns_are_counted_with_their_sense(degrees):
    rotations, root = body()
    angle = torch.linspace(0, math.radians(degrees), 60)
    rotations[:, 0] = about_y(angle)
    facts = measure(Motion(rotations, root, FPS, SMPLX22))
    assert facts.turn == pytest.approx(degrees, abs=0.06 * abs(degrees) + 0.1)  # both ends are averaged over 0.2 s
    assert facts.distance == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("heading", [0.0, 1.0, -2.5])
@pytest.mark.parametrize(
    "direction, straying", [((1.0, 0.0), 0.0), ((-1.0, 0.0), 180.0), ((0.0, 1.0), 90.0), ((1.0, -1.0), -45.0)]
)
def test_travel_is_measured_against_the_heading(heading, direction, straying):
    rotations, root = body()
    rotations[:, 0] = about_y(torch.tensor(heading))
    ahead, left = direction
    step = torch.tensor(
        [ahead * math.sin(heading) + left * math.cos(heading), 0, ahead * math.cos(heading) - left * math.sin(heading)]
    )
    root = root + torch.arange(60)[:, None] / FPS * 0.9 * step
    facts = measure(Motion(rotations, root, FPS, SMPLX22))
    off = (facts.straying - straying + 180) % 360 - 180
    assert off == pytest.approx(0, abs=0.1)
    assert facts.ahead == pytest.approx(0.9 * ahead, rel=0.05, abs=1e-4)
    assert facts.left == pytest.approx(0.9 * left, rel=0.05, abs=1e-4)


def test_hands_above_the_shoulders_and_only_those():
    rotations, root = body()
    rotations[15:45, SMPLX22.index("left_shoulder")] = from_axis_angle(torch.tensor([0.0, 0.0, math.pi / 2]))
    facts = measure(Motion(rotations, root, FPS, SMPLX22))
    reach = float(SMPLX22.offsets[[SMPLX22.index("left_elbow"), SMPLX22.index("left_wrist")]].norm(dim=-1).sum())
    assert facts.hand_height[0] == pytest.approx(reach, abs=0.02) and facts.hand_height[1] < -0.4
    assert follows(facts, "raise-up-left-hand") and not follows(facts, "raise-up-right-hand")
    assert not follows(facts, "raise-up-both-hands") and not follows(facts, "wave-left-hand")
    # A single frame with the hand up is a glitch, no gesture.
    rotations, root = body()
    rotations[30, SMPLX22.index("left_shoulder")] = from_axis_angle(torch.tensor([0.0, 0.0, math.pi / 2]))
    assert not follows(Motion(rotations, root, FPS, SMPLX22), "raise-up-left-hand")


@pytest.mark.parametrize("rate", [0.8, 1.5, 2.5])
def test_swings_of_a_raised_hand_are_counted(rate):
    rotations, root = body()
    times = torch.arange(60) / FPS
    angle = math.pi / 2 - 0.3 + 0.3 * torch.sin(2 * math.pi * rate * times)
    zero = torch.zeros_like(angle)
    rotations[:, SMPLX22.index("right_shoulder")] = from_axis_angle(torch.stack([zero, zero, -angle], -1))
    facts = measure(Motion(rotations, root, FPS, SMPLX22))
    assert abs(facts.swings[1] - 2 * rate * 3) <= 1.5 and facts.swings[0] == 0
    assert follows(facts, "wave-right-hand") and not follows(facts, "raise-up-right-hand")
    # The same swings of a hand that hangs down are no wave.
    rotations[:, SMPLX22.index("right_shoulder")] = from_axis_angle(torch.stack([zero, zero, 2.6 - angle], -1))
    assert measure(Motion(rotations, root, FPS, SMPLX22)).swings[1] == 0


def test_measuring_does_not_depend_on_company_frame_rate_or_place():
    clips = procedural_clips(6, seed=30)
    together, alone = measure_all([clip.motion for clip in clips]), [measure(clip.motion) for clip in clips]
    for a, b in zip(together, alone, strict=True):
        assert vars(a).keys() == vars(b).keys()
        for name, value in vars(a).items():
            assert value == pytest.approx(getattr(b, name), abs=1e-3), name
    for clip in clips:
        moved = clip.motion.rotated(2.0).translated((3.0, -8.0))
        assert follows(moved, clip.content) and follows(clip.motion.resampled(30.0), clip.content)


def test_procedural_clips_pass_their_own_test_and_hardly_any_other(measured):
    table = confusion(measured)
    own = [table[content][content] for content in measured]
    assert len(own) == len(SINGLE) and min(own) >= 0.7 and sum(own) / len(own) >= 0.97
    assert chance(measured) < 0.02


def test_combined_contents_ask_for_both():
    walk, wave = procedural_clips(1, 3, contents=["walk"])[0], procedural_clips(1, 3, contents=["wave-left-hand"])[0]
    both = procedural_clips(1, 3, contents=["walk+wave-left-hand"])[0]
    assert follows(both.motion, "walk+wave-left-hand")
    assert not follows(walk.motion, "walk+wave-left-hand") and not follows(wave.motion, "walk+wave-left-hand")
    assert follows(both.motion, "A person waves with the left hand while walking.")


def test_unknown_words_have_no_verdict():
    motion = procedural_clips(1, 0)[0].motion
    assert follows(motion, "dance-short") is None and expected("A person plays the violin.") is None
    assert follows(motion, "walk+dance-short") is None


@pytest.mark.parametrize(
    "sentence, content",
    [
        *TRUTH_PROMPTS,
        ("Someone raises the right arm.", "raise-up-right-hand"),
        ("A person walks, then turns to the left.", "walk-turn-left"),
        ("A person turns around to the right.", "turn-right"),
        ("A person sidesteps.", None),
        ("A person walks forward while waving both arms.", "walk+wave-both-hands"),
        ("A person sprints forward.", "dash"),
    ],
)
def test_sentences_are_understood(sentence, content):
    assert content_of(sentence) == content


def test_the_evaluation_has_twenty_prompts_that_can_all_be_judged():
    assert len(TRUTH_PROMPTS) == len(dict(TRUTH_PROMPTS)) == len({content for _, content in TRUTH_PROMPTS}) == 20
    assert all(expected(content) is not None for _, content in TRUTH_PROMPTS)


def test_thresholds_can_be_moved():
    run = procedural_clips(1, 0, contents=["run"])[0].motion
    assert follows(run, "run") and not follows(run, "run", replace(Thresholds(), run_speed=9.0, jog_speed=9.0))


def test_what_cannot_be_measured_is_named():
    motion = procedural_clips(1, 0)[0].motion
    with pytest.raises(ValueError, match="clip 1 has 2 frames"):
        measure_all([motion, motion.slice(0, 2)])
    with pytest.raises(ValueError, match="feet, hands"):
        measure(replace(motion, skeleton=replace(SMPLX22, name="stump", feet=(), hands=())))
    with pytest.raises(ValueError, match="at least two contents"):
        chance({"walk": [measure(motion)]})


@pytest.mark.slow
def test_real_clips_pass_their_own_test():
    if not (DATA / "bandai_namco.zip").is_file():
        pytest.skip("KINELIB_DATA holds no bandai_namco.zip")
    from kinelib.bodies.clips import bandai_namco_clips, split

    clips = [clip for clip in bandai_namco_clips(DATA) if split(clip) == "test" and expected(clip.content)]
    assert len(clips) > 100
    passed = [
        follows(facts, clip.content) for clip, facts in zip(clips, measure_all([c.motion for c in clips]), strict=True)
    ]
    assert sum(passed) / len(passed) >= 0.95
