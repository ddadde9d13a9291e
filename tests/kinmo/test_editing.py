"""Edits: one group changes and nothing else, in its place; what is bad is refused by name."""

from dataclasses import replace

import pytest
import torch
from toy_model import QUICK, kinmo

from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.rotations import from_axis_angle
from kinelib.bodies.skeleton import GROUPS
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kinmo import editing
from kinelib.kinmo.codec import decode_clips
from kinelib.kinmo.editing import (
    carried,
    changed_groups,
    composed,
    edit_action,
    edit_groups,
    joined,
    laid_over,
    shoulder_yaw,
    tokens_of,
)
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.sampling import Sampler

JOINTS = SMPLX22.check_groups()
WAVES = {"left_arm": "The left arm waves."}


@pytest.fixture(scope="module")
def clips():
    return procedural_clips(3, 3, contents=("walk",), seconds=(2.0, 3.0))


@pytest.fixture(scope="module")
def model(clips):
    return kinmo(clips)


@pytest.fixture(scope="module")
def motions(clips):
    """Not where features begin."""
    return [clip.motion.rotated(1.0 + number).translated((2.0, -3.0)) for number, clip in enumerate(clips)]


def test_a_motion_read_as_features_comes_back_whole_and_in_its_place(model, motions):
    for motion, read in zip(motions, tokens_of(model.tokenizer, motions), strict=True):
        assert read.features.shape == (len(motion), 263) and read.codes.shape == (-(-len(motion) // 4), 6, 3)
        back = editing.placed(decode_clips([read.features])[0], motion, read.features)
        assert torch.allclose(back.positions(), motion.positions(), atol=1e-4)


def test_one_arm_is_drawn_and_every_other_joint_stays(model, motions):
    made = edit_groups(model, motions, WAVES, sampler=QUICK)
    for before, after in zip(motions, made, strict=True):
        apart = (before.positions() - after.positions()).norm(dim=-1).mean(0)
        others = [joint for name in GROUPS if name != "left_arm" for joint in JOINTS[name]]
        assert apart[JOINTS["left_arm"][1:]].mean() > 0.02 and apart[others].max() == 0
        assert torch.equal(before.root, after.root) and len(before) == len(after)
        assert after.provenance["edited"] == WAVES


def test_only_tokens_of_the_group_are_free(model, motions, monkeypatch):
    seen = {}

    def spy(generator, words, lengths, draws, sampler, **given):
        seen.update(given, lengths=lengths)
        return given["given"]

    monkeypatch.setattr(editing, "draw_decodable", spy)
    edit_groups(model, motions, [WAVES, {"torso": "Bows."}, {"left_leg": "Kicks.", "right_leg": "Stands."}], seen=1.0)
    free = [[name for number, name in enumerate(GROUPS) if row[:, number].any()] for row in seen["free"]]
    assert free == [["left_arm"], ["torso"], ["left_leg", "right_leg"]]
    assert seen["levels"] == 2, "of pairs nothing has been said"
    for row, length in zip(seen["free"], seen["lengths"], strict=True):
        assert not row[length:].any() and bool(row[:length].any(1).all())


@pytest.mark.parametrize("seen", [0.0, 0.5])
def test_what_is_not_seen_while_drawing_is_kept_all_the_same(model, motions, monkeypatch, seen):
    shares = []

    def spy(generator, words, lengths, draws, sampler, **given):
        others = (torch.arange(given["given"].shape[1]) < lengths[:, None])[..., None].expand_as(given["free"]).clone()
        others[..., GROUPS.index("left_arm")] = False
        shares.append(float((given["free"] & others).sum() / others.sum()))
        return torch.zeros_like(given["given"])

    monkeypatch.setattr(editing, "draw_decodable", spy)
    made = edit_groups(model, motions, WAVES, seen=seen, sampler=Sampler(soft=False))
    assert shares[0] == pytest.approx(1 - seen, abs=0.15)
    others = [joint for name in GROUPS if name != "left_arm" for joint in JOINTS[name]]
    for own, before in zip(made, motions, strict=True):
        assert torch.equal(own.rotations[:, others], before.rotations[:, others]) and torch.equal(own.root, before.root)


def test_an_arm_keeps_its_place_on_a_chest_that_leans(clips):
    standing, leaning = clips[0].motion, clips[0].motion
    spine, rolls = SMPLX22.index("spine2"), 0.3 * torch.sin(torch.arange(len(leaning)) / 3)
    zero = torch.zeros_like(rolls)
    rotations = leaning.rotations.clone()
    rotations[:, spine] = from_axis_angle(torch.stack([zero, zero, rolls], -1)) @ rotations[:, spine]
    leaning = replace(leaning, rotations=rotations)
    made = laid_over(standing, leaning, ("left_arm",))
    shoulder, wrist, hip = (SMPLX22.index(f"left_{name}") for name in ("shoulder", "wrist", "hip"))

    def reach(motion):
        return (shoulder_yaw(motion).mT @ (motion.positions()[:, wrist] - motion.positions()[:, shoulder])[..., None])[
            ..., 0
        ]

    assert (reach(leaning) - reach(standing)).norm(dim=-1).max() > 0.1, "on a stick the hand would sway"
    assert torch.allclose(reach(made), reach(standing), atol=1e-4)
    assert torch.equal(made.rotations[:, hip], leaning.rotations[:, hip])


def test_a_share_that_is_seen_is_a_share(model, motions):
    with pytest.raises(ValueError, match="seen is a share"):
        edit_groups(model, motions, WAVES, seen=1.5)


def test_the_same_words_and_seed_are_the_same_edit_alone_and_among_others(model, motions):
    alone = edit_groups(model, motions[1:2], WAVES, seed=4, sampler=QUICK)[0]
    among = edit_groups(model, motions, WAVES, seed=4, sampler=QUICK)[1]
    assert torch.allclose(alone.positions(), among.positions(), atol=1e-4)


def test_the_torso_takes_the_root_along_and_limbs_keep_their_turns(model, motions):
    made = edit_groups(model, motions[:1], {"torso": "The torso bows."}, sampler=QUICK)[0]
    limbs = [joint for name in GROUPS if name != "torso" for joint in JOINTS[name]]
    assert torch.equal(made.rotations[:, limbs], motions[0].rotations[:, limbs])
    assert not torch.equal(made.root, motions[0].root)
    assert (made.root[0] - motions[0].root[0])[[0, 2]].norm() < 0.3, "it begins where the motion began"


def test_contacts_go_with_the_legs(clips):
    motion = clips[0].motion
    other = motion.mirrored()
    made = laid_over(other, motion, ("left_leg",))
    assert torch.equal(made.contacts[:, :2], other.contacts[:, :2]) and torch.equal(
        made.contacts[:, 2:], motion.contacts[:, 2:]
    )


def test_another_action_draws_what_it_says_something_else_of(model, motions):
    told = [motion.with_facts(prompt="A person walks.") for motion in motions]
    raise_hand = "A person raises the left hand."
    assert changed_groups(model, "A person walks.", raise_hand) == ("left_arm",)
    assert changed_groups(model, "", raise_hand) == GROUPS == changed_groups(model, "A person walks.", "A person runs.")
    made = edit_action(model, told, raise_hand, sampler=QUICK)
    assert all(torch.equal(a.root, b.root) for a, b in zip(made, told, strict=True)), "the torso stays"
    assert made[0].provenance["prompt"] == raise_hand
    anew = edit_action(model, motions[:1], raise_hand, sampler=QUICK)[0]
    assert not torch.equal(anew.root, motions[0].root)


def test_texts_of_two_prompts_are_put_together(model):
    prompt, said = composed(model, "A person walks forward.", "A person raises the left hand.", ["left_arm"])
    assert prompt == "A person walks forward and raises the left hand."
    assert list(said) == [*GROUPS, *PAIR_KEYS] and said["left_arm"].endswith("raises the left hand.")
    assert said["right_arm"] == "The right_arm." and said["torso|left_arm"] == "" and said["torso|neck"] == "torso|neck."
    with pytest.raises(KeyError, match="tail"):
        composed(model, "A person walks.", "A person waves.", ["tail"])


def test_sentences_of_other_people_are_joined_whole():
    assert joined("A man walks", "A person waves.") == "A man walks and A person waves."


def test_carrying_turns_about_the_start(clips):
    motion = clips[0].motion
    start, goal = motion.root[0], torch.tensor([1.0, 0.5, 2.0])
    made = carried(motion, 0.7, start, goal)
    assert torch.allclose(made.root[0], goal, atol=1e-6)
    assert editing.yaw_between(motion.positions()[5], made.positions()[5]) == pytest.approx(0.7, abs=1e-5)


@pytest.mark.parametrize(
    ("groups", "kind", "said"),
    [
        ({}, ValueError, "none empty"),
        ([WAVES], ValueError, "each of 3 motions"),
        ({"tail": "wags"}, KeyError, "left_arm"),
    ],
)
def test_bad_edits_are_refused(model, motions, groups, kind, said):
    with pytest.raises(kind, match=said):
        edit_groups(model, motions, groups)


def test_what_cannot_be_edited_is_refused(model, motions, clips):
    long = procedural_clips(1, 2, contents=("walk",), seconds=(6.0, 6.0))[0].motion
    with pytest.raises(ValueError, match="motion 1 has 120 frames; this generator was trained on up to 100"):
        edit_groups(model, [motions[0], long], WAVES)
    with pytest.raises(ValueError, match="one stream"):
        edit_groups(kinmo(clips, streams="body"), motions, WAVES)
    with pytest.raises(ValueError, match="one for each of 3"):
        edit_action(model, motions, ["A person runs."])
