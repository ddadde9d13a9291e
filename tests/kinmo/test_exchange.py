"""One clip's body with another's arms: what is never made, sentences and codes that fit."""

from dataclasses import replace

import pytest
import torch
from toy_tokens import said_motions

from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.data import HELD_OUT_COMBINATIONS, SLOT_KEYS
from kinelib.kinmo.exchange import deeds, draw_exchanges, exchanged_codes, exchanged_slots, forbidden

HANGS = "The {} arm hangs at the side."


def acting(*acts):
    """Clips of equal length called so, whose arms do what their sentences say."""
    motions, _ = said_motions(len(acts))
    length = int(motions.lengths.min())
    frames = torch.cat([own[:length] for own in motions.frames.split(motions.lengths.tolist())])
    groups = []
    for own, (_, left, right) in zip(motions.groups, acts, strict=True):
        said = dict(zip(GROUPS, own, strict=True))
        groups.append(tuple((said | {"left_arm": left, "right_arm": right}).values()))
    labels = tuple(f"{label}/normal" for label, *_ in acts)
    return replace(motions, frames=frames, lengths=torch.full((len(acts),), length), groups=tuple(groups), labels=labels)


WALK = ("walk", HANGS.format("left"), HANGS.format("right"))
UP = ("raise-up-left-hand", "The left arm is raised above the head, then comes down.", HANGS.format("right"))
WAVE = ("bye", HANGS.format("left"), "The right arm is held at shoulder height and waves twice.")


def test_arms_are_read_by_their_sentences():
    assert deeds(acting(WALK, UP, WAVE, WALK)) == [("", ""), ("raise-up", ""), ("", "wave"), ("", "")]


def test_every_held_out_combination_is_forbidden():
    assert len(forbidden()) == len(HELD_OUT_COMBINATIONS)
    assert ("walk", ("raise-up", "")) in forbidden() and ("walk", ("", "wave")) not in forbidden()


def test_what_is_held_out_is_never_made():
    bodies, arms = draw_exchanges(acting(WALK, UP, WAVE, WALK), 400, torch.Generator().manual_seed(0))
    made = set(zip(bodies.tolist(), arms.tolist(), strict=True))
    assert not {(0, 1), (3, 1)} & made, "who walks raises no left hand"
    assert {(0, 2), (3, 2), (1, 0), (1, 2), (2, 1)} <= made and all(a != b for a, b in made)


def test_arms_of_shorter_clips_are_not_taken():
    motions = acting(WALK, WAVE)
    few = int(motions.lengths[0]) - 4
    shorter = replace(motions, frames=motions.frames[:-4], lengths=torch.tensor([few + 4, few]))
    bodies, arms = draw_exchanges(shorter, 50, torch.Generator().manual_seed(0))
    assert set(zip(bodies.tolist(), arms.tolist(), strict=True)) == {(1, 0)}
    none = draw_exchanges(motions, 0, torch.Generator())
    assert all(len(part) == 0 and part.dtype == torch.long for part in none)


def test_sentences_come_with_what_they_are_about():
    body, arms = torch.arange(21)[None], 100 + torch.arange(21)[None]
    found = dict(zip(SLOT_KEYS, exchanged_slots(body, arms, -1)[0].tolist(), strict=True))
    assert found["left_arm"] >= 100 and found["left_arm|right_arm"] >= 100
    assert found["torso"] < 100 and 0 <= found["left_leg|right_leg"] < 100
    assert found["torso|left_arm"] == -1 and found["right_arm|left_leg"] == -1


@pytest.mark.parametrize("length", [2, 4])
def test_codes_are_taken_up_to_the_end_of_the_body(length):
    body, arms = torch.zeros(1, 4, 6, 2), torch.ones(1, 4, 6, 2)
    found = exchanged_codes(body, arms, torch.tensor([length]), GROUPS)
    wanted = torch.zeros(1, 4, 6, 2)
    wanted[:, :length, 2:4] = 1
    assert torch.equal(found, wanted)
