"""Procedural clips: seeds, words, and bodies that stand on their feet, bend the right way and do what the facts say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kinelib.bodies.procedural import CONTENTS, GOING, LICENCE, SHARES, STYLES, mirrored_clip, procedural_clips
from kinelib.bodies.procedural_pose import euler
from kinelib.bodies.procedural_steps import ANKLE, Gait, ease, feet, grid, plateau, schedule, still, travel
from kinelib.bodies.procedural_words import mirrored_words, prompts
from kinelib.bodies.rotations import from_axis_angle
from kinelib.bodies.skeletons import FPS, SMPLX22
from kinelib.bodies.truth import content_of, follows, measure

FEET = SMPLX22.contact_joints


@pytest.fixture(scope="module")
def clips():
    return procedural_clips(80, seed=3)


@pytest.fixture(scope="module")
def one_of_each():
    return {name: procedural_clips(1, seed=21, contents=[name], styles=["normal"])[0] for name in GOING}


def test_ease_is_minimum_jerk():
    times = np.linspace(0, 1, 10001)
    share = ease(times, 0.0, 1.0)
    speed = np.gradient(share, times)
    assert share[0] == 0 and share[-1] == 1 and ease(np.array([0.5]), 0, 1)[0] == pytest.approx(0.5)
    assert speed.max() == pytest.approx(15 / 8, abs=1e-3)  # the known peak of a minimum-jerk profile
    assert speed[0] == pytest.approx(0, abs=1e-3) and speed[-1] == pytest.approx(0, abs=1e-3)
    held = plateau(times, 0.1, 0.3, 0.6, 0.8)
    assert held[0] == 0 and held[-1] == 0 and np.all(held[(times > 0.3) & (times < 0.6)] == 1)


def test_a_path_turns_and_travels_as_asked():
    times = grid(4.0)
    ahead = travel(times, 1.5, 0.0, 0.0).at(np.array([0.0, 2.0]))
    assert [values[1] for values in ahead] == pytest.approx([0, 3.0, 0])
    left = travel(times, 0.0, 1.0, 0.0).at(np.array([2.0]))
    assert left[0][0] == pytest.approx(2.0) and left[1][0] == pytest.approx(0)  # left is +x
    facing_left = travel(times, 1.0, 0.0, math.pi / 2).at(np.array([2.0]))
    assert facing_left[0][0] == pytest.approx(2.0)
    # A full circle leads back.
    circle = travel(times, 1.0, 0.0, times * math.pi / 2).at(np.array([0.0, 4.0]))
    assert abs(circle[0][1] - circle[0][0]) < 1e-3 and abs(circle[1][1] - circle[1][0]) < 1e-3


def test_planted_feet_do_not_move_and_swinging_ones_clear_the_floor():
    times, gait = np.arange(0, 4, 0.01), Gait()
    steps = schedule(gait, 0.5, 3.5, first=0)
    track = feet(times, travel(grid(4.0), 0.8, 0.0, 0.0), steps, gait)
    flat = track.planted & (np.abs(track.pitch) < 1e-9)
    both = flat[1:] & flat[:-1]
    moved = np.linalg.norm(np.diff(track.ankles, axis=0), axis=-1)
    assert both.sum() > 200 and moved[both].max() < 1e-9
    swinging = ~track.planted
    assert 0.2 < swinging[:, 0].mean() < 0.5 and track.ankles[..., 1].min() >= ANKLE - 1e-9
    assert track.ankles[..., 1][swinging].max() > ANKLE + 0.05
    # Never both feet off the floor in a walk; always one of them once in a run's stride.
    assert not swinging.all(1).any()
    run = Gait(period=0.7, duty=0.36)
    track = feet(times, travel(grid(4.0), 2.5, 0.0, 0.0), schedule(run, -1.0, 6.0, 0), run)
    assert (~track.planted).all(1).mean() == pytest.approx(1 - 2 * run.duty, abs=0.03)


def test_steps_alternate_and_count_strides():
    gait = Gait(period=1.0, duty=0.6)
    steps = schedule(gait, 0.0, 3.0, first=1)
    assert steps.lifts[1][0] == 0 and steps.lifts[0][0] == pytest.approx(0.5)
    assert steps.phase(steps.lands[1]) % 1 == pytest.approx(0.5) and steps.phase(steps.lands[0]) % 1 == pytest.approx(0)
    assert len(still().beats) == 0 and np.all(still().phase(np.arange(3)) == 0)


def test_euler_is_yaw_after_pitch_after_roll():
    y, x, z = (from_axis_angle(torch.eye(3)[axis] * angle) for axis, angle in ((1, 0.4), (0, -0.7), (2, 1.1)))
    assert torch.allclose(euler(*torch.tensor([0.4, -0.7, 1.1])), y @ x @ z, atol=1e-6)


def test_a_longer_list_begins_with_the_shorter_one():
    short, long = procedural_clips(3, seed=5), procedural_clips(70, seed=5)
    for a, b in zip(short, long, strict=False):
        assert a.prompts == b.prompts and torch.allclose(a.motion.root, b.motion.root, atol=1e-5)
        assert torch.allclose(a.motion.rotations, b.motion.rotations, atol=1e-4)
    other = procedural_clips(3, seed=6)
    assert any(a.content != b.content or len(a.motion) != len(b.motion) for a, b in zip(short, other, strict=True))
    assert procedural_clips(0, seed=1) == []


def test_clips_carry_words_labels_and_facts(clips):
    assert {clip.licence for clip in clips} == {LICENCE} and {clip.source for clip in clips} == {"procedural"}
    assert len({clip.take for clip in clips}) == len(clips)
    for clip in clips:
        assert clip.motion.fps == FPS and 2.0 <= clip.motion.seconds <= 5.0 and clip.motion.skeleton is SMPLX22
        assert clip.content in CONTENTS and clip.style in STYLES
        assert len(set(clip.prompts)) == len(clip.prompts) >= 1 and all(text.endswith(".") for text in clip.prompts)
        assert all(content_of(text) == clip.content for text in clip.prompts), clip.prompts
        facts = clip.motion.provenance["facts"]
        assert {"torso", "left_arm", "right_arm", "left_leg", "right_leg", "speed", "turn_degrees"} <= set(facts)
        hands = [hand for hand in ("left", "right") if facts[f"{hand}_arm"]["action"] in ("raise", "wave")]
        said = clip.content.partition("+")[2] or clip.content
        wanted = {"left-hand": ["left"], "right-hand": ["right"], "both-hands": ["left", "right"]}
        assert hands == next((sides for name, sides in wanted.items() if said.endswith(name)), [])


def test_nobody_sinks_skates_or_jumps_about(clips):
    skates = []
    for clip in clips:
        positions = clip.motion.positions()
        ground = positions[:, FEET]
        assert ground[..., 1].min() > -0.005, clip.content
        speed = (ground[1:] - ground[:-1]).norm(dim=-1) * FPS
        contact = (speed < 0.15) & (ground[:-1, :, 1] < 0.10)
        skates.append(float((speed * contact).sum() / contact.sum().clamp_min(1)))
        assert skates[-1] < 0.04, (clip.content, clip.style)
        assert (positions[1:] - positions[:-1]).norm(dim=-1).max() * FPS < 14, clip.content
    assert np.mean(skates) < 0.015  # m/s; captured motion has 0.02


def test_planned_contacts_agree_with_the_ones_positions_show(clips):
    shares = []
    for clip in clips:
        ground = clip.motion.positions()[:, FEET]
        speed = (ground[1:] - ground[:-1]).norm(dim=-1) * FPS
        shown = (speed < 0.15) & (ground[:-1, :, 1] < 0.10)
        shares.append(float((shown == (clip.motion.contacts[:-1] > 0.5)).float().mean()))
    assert np.mean(shares) > 0.92


def test_knees_bend_forwards_and_legs_reach_their_feet(clips):
    for clip in clips:
        positions, turned = clip.motion.positions(), clip.motion.global_rotations()
        for side in ("left", "right"):
            hip, knee, ankle = (positions[:, SMPLX22.index(f"{side}_{name}")] for name in ("hip", "knee", "ankle"))
            along = torch.nn.functional.normalize(ankle - hip, dim=-1)
            bend = knee - hip - ((knee - hip) * along).sum(-1, keepdim=True) * along
            hinge = turned[:, SMPLX22.index(f"{side}_knee"), :, 0]
            ahead = torch.linalg.cross(along, hinge)
            assert ((bend * ahead).sum(-1) > -1e-4).all(), clip.content
            assert ((ankle - hip).norm(dim=-1) < 0.99 * (0.401 + 0.412)).all(), clip.content


def test_speeds_turns_and_depths_are_the_ones_planned(one_of_each):
    for name, clip in one_of_each.items():
        planned, shown = clip.motion.provenance["facts"], measure(clip.motion)
        assert shown.turn == pytest.approx(planned["turn_degrees"], abs=15), name
        if planned.get("path") == "whole" and not planned["turn_degrees"]:
            assert shown.speed == pytest.approx(planned["speed"], rel=0.12), name
        assert follows(shown, name), name
    squat, jump = one_of_each["squat"].motion, one_of_each["jump"].motion
    assert measure(squat).drop == pytest.approx(squat.provenance["facts"]["depth"], abs=0.05)
    assert measure(jump).air == pytest.approx(jump.provenance["facts"]["height"], abs=0.08)


def test_a_jump_falls_as_things_do():
    jump = procedural_clips(1, seed=2, contents=["jump"])[0].motion
    height, air = jump.root[:, 1], jump.positions()[:, FEET][..., 1].amin(-1) > 0.06
    inside = air[:-2] & air[1:-1] & air[2:]
    pull = (height[2:] - 2 * height[1:-1] + height[:-2]) * FPS**2
    assert inside.sum() >= 3 and pull[inside].median() == pytest.approx(-9.81, abs=0.5)


def test_arms_swing_against_the_legs():
    walk = procedural_clips(1, seed=8, contents=["walk"], styles=["normal"], seconds=(5, 5))[0].motion
    positions = walk.positions()
    ahead = lambda name: positions[:, SMPLX22.index(name), 2] - positions[:, 0, 2]
    swing = torch.stack([ahead("left_wrist") - ahead("right_wrist"), ahead("left_ankle") - ahead("right_ankle")])
    assert torch.corrcoef(swing)[0, 1] < -0.8


@pytest.mark.parametrize("content", ["wave-left-hand", "walk-turn-right", "kick-left", "walk+raise-up-right-hand"])
def test_mirrored_clips_are_true(content):
    clip = procedural_clips(1, seed=4, contents=[content])[0]
    other = mirrored_clip(clip)
    assert other.content == mirrored_words(content) != content
    assert follows(other.motion, other.content) and not follows(other.motion, content)
    assert all(content_of(text) == other.content for text in other.prompts)
    facts, mirrored = clip.motion.provenance["facts"], other.motion.provenance["facts"]
    assert mirrored["left_arm"] == facts["right_arm"] and mirrored["turn_degrees"] == -facts["turn_degrees"]
    assert mirrored_clip(other).motion.provenance["facts"] == facts


def test_mirrored_words_keep_capitals_and_other_words():
    assert (
        mirrored_words("Left, right and the LEFT one: bright leftover") == "Right, left and the RIGHT one: bright leftover"
    )
    assert mirrored_words("walk-turn-left+wave-right-hand") == "walk-turn-right+wave-left-hand"
    assert mirrored_words("left_arm") == "right_arm"


def test_styles_are_seen_in_speed_and_posture():
    drawn = {style: procedural_clips(4, seed=1, contents=["walk"], styles=[style]) for style in ("old", "active")}
    speed, tilt = (
        {style: np.mean([getattr(measure(clip.motion), name) for clip in some]) for style, some in drawn.items()}
        for name in ("speed", "tilt")
    )
    assert speed["old"] < 0.8 * speed["active"] and tilt["old"] > tilt["active"] + 8


def test_every_content_has_words_and_can_be_drawn():
    rng = np.random.default_rng(0)
    for content in SHARES:
        assert len(prompts(content, "old", {}, rng, 4)) == 4, content
    assert "twice" in " ".join(prompts("squat", "normal", {"times": 2}, rng, 12))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"contents": ["fly"]}, "unknown content 'fly'; choose some of stand"),
        ({"contents": []}, "at least one content"),
        ({"styles": ["drunk"]}, "unknown style 'drunk'; choose some of normal"),
        ({"seconds": (1, 4)}, "between 2 and 10"),
        ({"seconds": (4, 3)}, "in order"),
        ({"captions": 0}, "captions >= 1"),
        ({"count": -1}, "count and seed must be >= 0"),
        ({"seed": -1}, "count and seed must be >= 0"),
    ],
)
def test_bad_wishes_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        procedural_clips(**({"count": 1, "seed": 0} | wrong))
