"""Windows join without a seam, go on from a clip, keep to constraints of the whole, and last as long as they say."""

import math
from dataclasses import replace

import pytest
import torch
from moving import standing, swaying

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import encode, heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kimodo.constraints import FromClip, RootWaypoints
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.sequencing import Overlap, sampler, sequence

SPEEDS = {"walks": 1.2, "runs": 3.0, "stands": 0.0}


class Walker:
    """A stiff body that goes on from its constraints at the speed its prompt names, missing them by `error` metres."""

    def __init__(self, error: float = 0.0):
        self.error, self.calls = error, []

    def __call__(self, prompt, frames, constraints, *, heading, seed) -> Motion:
        self.calls.append((prompt, frames, constraints, heading, seed))
        step = SPEEDS[prompt] / 20 * torch.tensor([math.sin(heading), 0.0, math.cos(heading)])
        body = standing(frames).rotated(heading)
        root = torch.tensor([0.0, body.root[0, 1], 0.0]) + torch.arange(frames)[:, None] * step
        shared = next((one for one in constraints if isinstance(one, FromClip)), None)
        if shared is not None:
            past = shared.motion.root[shared.start : shared.stop]
            count = len(past)
            root = torch.cat([past, past[-1] + torch.arange(1, frames - count + 1)[:, None] * step])
        return replace(body, root=root + self.error * torch.tensor([1.0, 0, 0]) * min(seed, 1))


def test_parts_are_as_long_as_asked_and_windows_fit():
    draw = Walker()
    long = sequence(draw, ["walks", "stands"], [150, 40], longest=100, overlap=Overlap(5, 2))
    assert len(long.motion) == 190
    assert [(one.prompt, one.start, one.stop) for one in long.segments] == [("walks", 0, 150), ("stands", 150, 190)]
    assert max(call[1] for call in draw.calls) <= 100 and len(long.seams) == len(draw.calls) - 1 == 2
    assert [call[4] for call in draw.calls] == [0, 1, 2], "each window has its own seed"


def test_a_minute():
    long = sequence(Walker(), ["walks", "runs", "stands"] * 4, 100, longest=100)
    assert long.motion.seconds == 60.0 and len(long.motion) == 1200
    travelled = float((long.motion.root[-1] - long.motion.root[0]).norm())
    # The tail of every part but the last is made anew at the next part's speed.
    assert travelled == pytest.approx(4 * 5 * (1.2 + 3.0), rel=0.05)


def test_windows_see_their_past_near_the_origin_with_all_channels():
    draw = Walker()
    sequence(draw, ["walks", "walks"], [80, 50], longest=100, heading=0.7, overlap=Overlap(5, 2))
    _, frames, constraints, facing, _ = draw.calls[1]
    shared = constraints[0]
    assert frames == 57 and shared.frames == (0, 1, 2, 3, 4) and facing == pytest.approx(0.7, abs=1e-5)
    assert shared.features[0, [0, 2]].norm() < 1e-5
    speed = shared.features[:, -4 - 66 : -4].reshape(5, 22, 3).norm(dim=-1)
    torch.testing.assert_close(speed, torch.full_like(speed, 1.2), atol=1e-3, rtol=0)


def test_a_straight_walk_has_no_seam_and_a_miss_is_blended():
    clean = sequence(Walker(), ["walks", "walks"], 60, longest=60, overlap=Overlap(5, 2))
    assert clean.jerk().worst < 1.0
    missed = [
        sequence(Walker(0.05), ["walks", "walks"], 60, longest=80, overlap=Overlap(5, 2, blend=on)) for on in (True, False)
    ]
    assert missed[0].jerk().worst < 0.5 * missed[1].jerk().worst
    rotations = missed[0].motion.rotations
    assert (rotations @ rotations.transpose(-1, -2) - torch.eye(3)).abs().max() < 1e-5


def test_crossing_over_turns_the_shortest_way():
    def draw(prompt, frames, constraints, *, heading, seed):
        return standing(frames).rotated(math.pi - 0.1 if not constraints else -math.pi + 0.1)

    long = sequence(draw, ["a", "b"], 30, longest=60)
    angles = heading(long.motion.positions(), SMPLX22)
    assert angles.abs().min() > math.pi - 0.11


def test_a_clip_is_continued_and_kept():
    start = swaying(50)
    long = sequence(Walker(), ["walks"], 60, longest=100, start=start, overlap=Overlap(4, 2))
    assert len(long.motion) == 110 and long.segments[0].start == 50
    torch.testing.assert_close(long.motion.rotations[:44], start.rotations[:44])
    torch.testing.assert_close(long.motion.root[:44], start.root[:44])
    step = (long.motion.root[52] - long.motion.root[51]).norm() * 20
    assert float(step) == pytest.approx(1.2, abs=1e-3)


def test_constraints_are_those_of_the_whole_sequence():
    draw = Walker()
    path = torch.tensor([[0.0, 1.0], [0.0, 7.0]])
    sequence(draw, ["walks", "walks"], 60, longest=60, constraints=[RootWaypoints((20, 110), path)], overlap=Overlap(5, 2))
    first = [one for one in draw.calls[0][2] if isinstance(one, RootWaypoints)]
    assert first[0].frames == (20,) and torch.equal(first[0].xz, path[:1])
    last_shared, waypoint = draw.calls[-1][2]
    begin = 120 - draw.calls[-1][1]
    assert waypoint.frames == (110 - begin,)
    origin = encode(last_shared.motion)[last_shared.start, [0, 2]]
    assert origin.norm() < 1e-4
    whole = sequence(Walker(), ["walks", "walks"], 60, longest=60, overlap=Overlap(5, 2)).motion
    torch.testing.assert_close(waypoint.xz[0] + encode(whole)[begin, [0, 2]], path[1], atol=2e-2, rtol=0)


def test_the_same_seed_gives_the_same_motion_and_progress_is_told():
    told = []
    one = sequence(Walker(0.02), ["walks", "runs"], 40, longest=60, watch=lambda *now: told.append(now))
    two = sequence(Walker(0.02), ["walks", "runs"], 40, longest=60)
    assert torch.equal(one.motion.root, two.motion.root) and told == [(40, 80), (80, 80)]
    assert one.motion.provenance["prompts"] == ["walks", "runs"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(prompts=[], frames=50), "list of prompts"),
        (dict(prompts="walks", frames=50), "list of prompts"),
        (dict(prompts=["walks"], frames=[50, 50]), "one number of frames"),
        (dict(prompts=["walks"], frames=0), "one number of frames"),
        (dict(prompts=["walks"], frames=50, longest=7), "share fewer"),
        (dict(prompts=["walks"], frames=50, start=standing(3)), "has 3 frames"),
    ],
)
def test_bad_input_says_what_to_do(options, words):
    with pytest.raises(ValueError, match=words):
        sequence(Walker(), **{"longest": 60, **options})
    with pytest.raises(ValueError, match="at least 1 frame"):
        Overlap(0)


def test_a_sampler_that_makes_another_length_is_named():
    with pytest.raises(ValueError, match="asked for 37 frames and made 10"):
        sequence(lambda prompt, frames, given, **_: standing(30 if not given else 10), ["a", "b"], 30, longest=60)


class Sentences:
    """A sentence encoder that needs no weights."""

    def embed(self, sentences):
        return torch.ones(len(sentences), 8) * torch.tensor([float(len(one)) for one in sentences])[:, None] / 10


def test_a_denoiser_as_sampler_hits_what_windows_share():
    torch.manual_seed(0)
    sizes = dict(width=32, layers=1, heads=2, ffn=48, text_width=8, registers=1, max_frames=40)
    model = TwoStageDenoiser(DenoiserConfig(**sizes)).eval().requires_grad_(False)
    model.set_statistics(Statistics(size=273), Statistics(size=4))
    draw = sampler(model, steps=3, encoder=Sentences())
    start = swaying(30)
    long = sequence(draw, ["a person walks", "a person stops"], 25, longest=40, start=start, overlap=Overlap(5, 2))
    assert len(long.motion) == 80 and long.motion.fps == 20.0 and len(long.seams) == 2
    torch.testing.assert_close(long.motion.root[:23], start.root[:23])
    assert torch.equal(
        long.motion.root, sequence(draw, ["a person walks", "a person stops"], 25, longest=40, start=start).motion.root
    )
