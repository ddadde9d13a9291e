"""What an affordance must be: read off tracks by hand-checked rules, and learnt from pictures and a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.robots.action_net import ActionNet, ActionNetConfig
from kinelib.robots.affordance import Affordance, AffordanceConfig, here_and_there
from kinelib.robots.batches import affordance_draw
from kinelib.robots.demonstration_shards import Demonstration, DemonstrationError
from kinelib.robots.policy_head import PolicyHeadConfig

FRAMES = 12
SMALL = AffordanceConfig(("front",), 32, 8)


def recording(thing: bool = True, visible: float = 1.0) -> Demonstration:
    """An arm that moves from the first frame on, a table that never does, and perhaps a thing that waits for frame 8."""
    along = np.linspace(0, 0.5, FRAMES)
    late = np.r_[np.zeros(8), np.linspace(0, 0.3, FRAMES - 8)]
    arm = np.stack([np.stack([-0.5 + along, np.full(FRAMES, y)], -1) for y in (-0.2, 0.0, 0.2, 0.4)])
    table = np.tile(np.array([[[0.5, 0.5]], [[0.6, 0.6]], [[0.7, 0.7]], [[0.2, 0.8]]]), (1, FRAMES, 1))
    puck = np.stack([np.stack([x + late, np.full(FRAMES, 0.1)], -1) for x in (-0.02, 0.0, 0.02, 0.04)])
    tracks = np.concatenate([arm, table, puck if thing else table])[None].astype(np.float16)
    seen = np.ones(tracks.shape[:3], bool)
    seen[:, 8:, :4] = np.arange(4)[:, None] < 4 * visible
    empty = np.zeros((FRAMES, 2), np.float32)
    pictures = np.zeros((1, FRAMES, 32, 32, 3), np.uint8)
    return Demonstration(
        "toy", "push", "train", 0, "push it", ("front",), 1, 20.0, 11, pictures, tracks, seen, empty, empty, empty, empty
    )  # fmt: skip


def test_a_thing_stands_while_the_arm_comes_and_later_moves():
    places, known = here_and_there(recording())
    assert places.shape == (FRAMES, 1, 2, 2)
    assert known.all()
    assert np.allclose(places[:9, 0, 0], [0.01, 0.1], atol=1e-3), "here: where the puck waits, not the arm, not the table"
    assert np.allclose(places[-1, 0, 0], [0.31, 0.1], atol=1e-3)
    assert np.allclose(places[:, 0, 1], [0.31, 0.1], atol=1e-3), "there: where it ends, known from the beginning"


def test_what_is_hidden_is_not_here_but_may_be_there():
    known = here_and_there(recording(visible=0.0))[1]
    assert not known[:4, 0, 0].any()
    assert known[4:, 0, 0].all()
    assert known[:, 0, 1].all()


def test_where_only_the_arm_moves_nothing_is_known_and_training_says_so():
    assert not here_and_there(recording(thing=False))[1].any()
    with pytest.raises(DemonstrationError, match="nothing but the arm moves"):
        affordance_draw(None, None, torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, dtype=torch.bool), 2)


def scenes(count: int):
    """A grey square and a white one; the sentence says which is to be taken, and it is to be put on the other."""
    draw = torch.Generator().manual_seed(count)
    corners = torch.randint(0, 13, (count, 2, 2), generator=draw) * 2
    corners[:, 1, 0] = (corners[:, 0, 0] + 8 + torch.randint(0, 5, (count,), generator=draw) * 2) % 28
    frames = torch.full((count, 1, 3, 32, 32), -1.0)
    for row, (grey, white) in enumerate(corners.tolist()):
        for (x, y), light in ((grey, 0.2), (white, 1.0)):
            frames[row, :, :, y : y + 4, x : x + 4] = light
    which = torch.randint(0, 2, (count,), generator=draw)
    centres = (corners + 2) / 16 - 1
    places = torch.stack([centres[torch.arange(count), which], centres[torch.arange(count), 1 - which]], 1)[:, None]
    words = torch.nn.functional.normalize(torch.randn(2, 384, generator=torch.Generator().manual_seed(0)), dim=1)[which]
    return frames, words, places


def test_the_sentence_says_which_of_two_things_is_found():
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    net, (frames, words, places) = Affordance(SMALL), scenes(512)
    optimizer, known = torch.optim.Adam(net.parameters(), 5e-3), torch.ones(32, 1, 2, dtype=torch.bool)
    for _ in range(250):
        rows = torch.randint(0, 512, (32,), generator=draw)
        loss = net.loss(frames[rows], words[rows], places[rows], known, draw)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frames, words, places = scenes(64)
    with torch.no_grad():
        x, y, sure = net.eval().find(frames, words).reshape(64, 1, 2, 3).unbind(-1)
    error = (torch.stack([x, y], -1) - places).norm(dim=-1)
    assert error.median() < 1 / 16, "half a pixel of sixteen to a side"
    assert (error < 0.2).float().mean() > 0.9, "the squares are 0.5 apart and more"
    assert ((sure > 0) & (sure <= 1.0001)).all()


def test_many_pictures_are_looked_at_as_one_is():
    net = Affordance(SMALL).eval()
    pictures = torch.randint(0, 256, (40, 1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    words = torch.randn(40, 384)
    alone = net.find(pictures[:1].permute(0, 1, 4, 2, 3).float() / 127.5 - 1, words[:1])
    looked = net.look(pictures, words)
    assert looked.shape == (40, SMALL.features)
    assert torch.allclose(looked[:1], alone, atol=1e-5)


def test_misshaped_pictures_and_words_are_refused():
    with pytest.raises(ShapeError, match="multiple of 8; got 100"):
        Affordance(AffordanceConfig(frame_size=100))
    net = Affordance(SMALL)
    with pytest.raises(ShapeError, match="frames"):
        net(torch.zeros(2, 2, 3, 32, 32), torch.zeros(2, 384))
    with pytest.raises(ShapeError, match="words"):
        net(torch.zeros(2, 1, 3, 32, 32), torch.zeros(2, 300))


def test_a_policy_reads_what_is_found():
    torch.manual_seed(0)
    head = PolicyHeadConfig(views=1, grid=(4, 4), channels=16, proprio=3, horizon=4, actions=2, width=64, depth=1)
    sizes = dict(head=head, views=("front",), frame_size=32, colours=2, components=6, width=32)
    net, (frames, words, _) = ActionNet(ActionNetConfig(**sizes, affordance=SMALL)).eval(), scenes(8)
    proprio = torch.zeros(8, 3)
    seen, found = net.glance(frames), net.affordance.find(frames, words)
    answer = net(proprio, frames=frames, words=words)
    assert torch.equal(answer, net(proprio, words=words, seen=seen, found=found))
    assert not torch.allclose(answer, net(proprio, words=words, seen=seen, found=found.flip(0)))
    assert not any(weight.requires_grad for weight in net.affordance.parameters()), "it is not trained with the policy"
    with pytest.raises(ValueError, match="looks for what will be moved"):
        net(proprio, words=words, seen=seen)
