"""Filling spans: what is outside stays exactly, what is inside joins it; ways between two motions."""

from dataclasses import replace

import pytest
import torch
from toy_model import QUICK, kinmo

from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo import in_between as module
from kinelib.kinmo.in_between import CONTEXT, EASE, end_to_end, in_between, inpaint


@pytest.fixture(scope="module")
def clips():
    return procedural_clips(2, 4, contents=("walk",), seconds=(3.0, 3.0))


@pytest.fixture(scope="module")
def model(clips):
    return kinmo(clips)


@pytest.fixture(scope="module")
def motion(clips):
    return clips[0].motion.rotated(0.8).translated((1.0, 2.0))


def test_frames_outside_a_span_stay_exactly(model, motion):
    for span in ((0.55, 1.3), (0.0, 1.0), (2.1, 3.0)):
        made = inpaint(model, motion, span, "A person walks.", sampler=QUICK)
        start, stop = (round(20 * one) for one in span)
        kept = [*range(start), *range(stop, len(motion))]
        assert torch.equal(made.root[kept], motion.root[kept]) and torch.equal(made.rotations[kept], motion.rotations[kept])
        assert not torch.equal(made.rotations[start:stop], motion.rotations[start:stop])
        assert made.provenance["inpainted"] == [start / 20, stop / 20]


def test_nothing_of_what_is_replaced_is_seen(model, motion, clips):
    other = end_to_end([motion.slice(0, 16), clips[1].motion.slice(16, 28), motion.slice(28, 60)])
    first, second = (inpaint(model, one, (0.8, 1.4), "A person walks.", sampler=QUICK) for one in (motion, other))
    assert torch.allclose(first.positions(), second.positions(), atol=1e-4)


def test_the_span_leads_to_what_follows_without_a_leap(model, motion):
    made = inpaint(model, motion, (1.0, 2.0), "A person walks.", sampler=QUICK)
    steps = made.root.diff(dim=0).norm(dim=-1)
    assert steps.max() < 0.25, "metres a frame; an untrained path may be anywhere"
    given = motion.root.diff(dim=0).norm(dim=-1).max()
    assert steps[18:20].max() < given + 0.15 and steps[39:41].max() < given + 0.15


def test_a_true_span_is_left_as_it_is(motion):
    made = module._joined(motion.rotated(0.4).translated((3.0, 0.0)), motion, 20, 40, meet=True)
    assert torch.allclose(made.positions(), motion.positions(), atol=1e-4)


def test_without_meeting_what_follows_is_carried_along(motion):
    elsewhere = end_to_end([motion.slice(0, 40), motion.rotated(0.5).translated((2.0, 2.0)).slice(40, 60)])
    made = module._joined(motion, elsewhere, 20, 40, meet=False)
    assert torch.allclose(made.positions(), motion.positions(), atol=1e-3)


def test_poses_are_eased_over_a_few_frames(motion):
    lifted = motion.rotations.clone()
    turned = torch.linalg.matrix_exp(torch.tensor([[0.0, 0.4, 0.0], [-0.4, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    lifted[:, 16] = lifted[:, 16] @ turned
    made = module._joined(replace(motion, rotations=lifted), motion, 20, 40, meet=True)
    off = (made.rotations[:, 16] - motion.rotations[:, 16]).flatten(1).norm(dim=-1)
    assert off[:20].max() == 0 == off[40:].max()
    assert off[20] < off[21] < off[22] < off[23] and off[20] < 0.3 * off[20 + EASE]
    assert torch.allclose(off[24:36], off[30], atol=1e-4)


def test_the_way_between_two_motions(model, clips):
    before, after = clips[0].motion, clips[1].motion.rotated(2.0)
    for meet in (False, True):
        made = in_between(model, before, after, 0.6, "A person walks.", meet=meet, sampler=QUICK)
        assert len(made) == len(before) + 12 + len(after)
        assert torch.equal(made.root[: len(before)], before.root)
        assert torch.allclose(made.rotations[-len(after) :, 1:], after.rotations[:, 1:])
        assert made.provenance["in_between"] == [3.0, 3.6] and CONTEXT < 3.0
        assert torch.allclose(made.root[-len(after) :], after.root) == meet
    # Carried, `after` is the same path, turned and moved.
    ours = in_between(model, before, after, 0.6, sampler=QUICK)
    steps = ours.root[-len(after) :].diff(dim=0).norm(dim=-1)
    assert torch.allclose(steps, after.root.diff(dim=0).norm(dim=-1), atol=1e-4)


@pytest.mark.parametrize("span", [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (1.0, 9.0), (0.0, 3.0)])
def test_spans_that_are_none_are_refused(model, motion, span):
    with pytest.raises(ValueError, match="a span is a part of the motion's 3 s"):
        inpaint(model, motion, span)


def test_a_way_needs_time_and_must_not_be_too_long(model, motion):
    with pytest.raises(ValueError, match="at least 0.05 s"):
        in_between(model, motion, motion, 0.0)
    with pytest.raises(ValueError, match="what is filled in included, has 120 frames"):
        in_between(model, motion, motion, 2.0)
