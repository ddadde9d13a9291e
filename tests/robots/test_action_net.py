"""What an action network must do: learn what a glance can see, and use or ignore plans as it is built."""

from __future__ import annotations

import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.robots.action_net import ActionNet, ActionNetConfig
from kinelib.robots.policy_head import PolicyHeadConfig

HEAD = PolicyHeadConfig(views=1, grid=(4, 4), channels=16, proprio=3, horizon=4, actions=2, width=64, depth=1)


def config(**changes) -> ActionNetConfig:
    plain = {"head": HEAD, "merge": 2, "views": ("front",), "frame_size": 32, "colours": 2, "components": 6}
    return ActionNetConfig(**{**plain, "width": 32, **changes})


def moment(reads: str = "components", batch: int = 3, seed: int = 0) -> dict:
    """What a network of that kind is given beside proprioception."""
    draw = torch.Generator().manual_seed(seed)
    found = {
        "frames": torch.rand(batch, 1, 3, 32, 32, generator=draw) * 2 - 1,
        "words": torch.randn(batch, 384, generator=draw) / 20,
        "plan": torch.randn((batch, 1, 1, 8, 8, 4) if reads == "latents" else (batch, 6), generator=draw) / 4,
    }
    wanted = {"latents": ("plan",), "glance": ("frames", "words"), "components": ("frames", "words", "plan")}[reads]
    return {name: found[name] for name in wanted}


PROPRIO = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.5, 0.1], [0.2, 0.2, 0.2]])


def test_plans_matter_to_a_policy_and_it_can_act_without():
    torch.manual_seed(0)
    net, given = ActionNet(config()).eval(), moment()
    planned = net(PROPRIO, **given)
    assert planned.shape == (3, 4, 2)
    assert not torch.allclose(planned, net(PROPRIO, **{**given, "plan": given["plan"].flip(0)})), "the plan must matter"
    without = net(PROPRIO, **{**given, "plan": None})
    assert torch.equal(without, net(PROPRIO, **{**given, "plan": 0 * given["plan"]})), "no plan is the mean plan"


def test_cloning_takes_no_notice_of_plans():
    net, given = ActionNet(config(reads="glance")).eval(), moment("glance")
    assert torch.equal(net(PROPRIO, **given), net(PROPRIO, **given, plan=moment()["plan"]))


def test_the_papers_head_takes_no_notice_of_pictures_and_words():
    net, given = ActionNet(config(reads="latents")).eval(), moment("latents")
    assert torch.equal(net(PROPRIO, **given), net(PROPRIO, **given, **moment("glance")))
    with pytest.raises(ValueError, match="give it one"):
        net(PROPRIO, **moment("glance"))


class Longest:
    """Stands where a planner is: a plan's components are its numbers."""

    def components(self, latents):
        return latents.flatten(1)


def test_as_many_components_of_a_plan_are_read_as_there_are_places_for():
    latents = torch.randn(3, 1, 1, 8, 8, 4)
    assert torch.equal(ActionNet(config()).read(latents, Longest()), latents.flatten(1)[:, :6])
    assert ActionNet(config(reads="latents")).read(latents, Longest()) is latents


def test_what_was_seen_before_may_be_given_instead_of_pictures():
    net, given = ActionNet(config(reads="glance")).eval(), moment("glance")
    seen = net.glance(given["frames"])
    assert torch.equal(net(PROPRIO, **given), net(PROPRIO, words=given["words"], seen=seen))


def test_a_glance_and_a_sentence_decide_what_is_done():
    """Words name a side, a picture shows where the square is; both are needed for the answer."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(1)
    net = ActionNet(config(reads="glance", noise=0.02, felt_noise=0.0, dropout=0.0))
    corner = torch.randint(0, 28, (256, 2), generator=draw)
    along = torch.arange(32) - corner[..., None]
    x, y = ((along >= 0) & (along < 4)).float().unbind(1)
    pictures = (y[:, :, None] * x[:, None, :] * 255)[:, None, :, :, None].expand(-1, 1, -1, -1, 3).byte()
    seen = net.glance.measure(pictures, draw)
    side = torch.randint(0, 2, (256,), generator=draw) * 2.0 - 1
    words = torch.nn.functional.normalize(torch.randn(2, 384, generator=draw))[((side + 1) / 2).long()]
    target = (side[:, None] * ((corner + 2) / 16 - 1))[:, None].expand(-1, 4, -1)
    optimizer, valid = torch.optim.Adam(net.parameters(), 3e-3), torch.ones(256, 4, dtype=torch.bool)
    for _ in range(150):
        loss = net.loss(torch.zeros(256, 3), target, valid, words=words, seen=seen, generator=draw)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (net.eval()(torch.zeros(256, 3), words=words, seen=seen) - target).abs().mean()
    assert error < 0.05, "chance is 0.44"


def test_invalid_steps_do_not_count_and_the_error_is_absolute():
    net, given = ActionNet(config(reads="glance", noise=0.0, felt_noise=0.0, dropout=0.0)), moment("glance")
    valid = torch.tensor([[True, False, False, False]] * 3)
    with torch.no_grad():
        said = net(PROPRIO, **given)
        chunks = said + 0.5
        chunks[:, 1:] = 1e6
        found = net.loss(PROPRIO, chunks, valid, **given)
    assert found["error"].item() == pytest.approx(0.5, rel=1e-4)
    assert found["loss"].item() == pytest.approx(0.5, rel=1e-4)


def test_dropped_plans_leave_the_glance_alone():
    net, given = ActionNet(config(plan_drop=1.0, noise=0.0, felt_noise=0.0, dropout=0.0)), moment()
    chunks, valid = torch.zeros(3, 4, 2), torch.ones(3, 4, dtype=torch.bool)
    dropped = net.loss(PROPRIO, chunks, valid, generator=torch.Generator().manual_seed(0), **given)
    alone = net.loss(PROPRIO, chunks, valid, **{**given, "plan": None})
    assert torch.allclose(dropped["loss"], alone["loss"])


def test_what_is_felt_and_planned_is_normalised():
    net, plans = ActionNet(config()), moment(batch=64)["plan"]
    net.measure_statistics(PROPRIO, plans)
    felt = (PROPRIO - net.proprio_shift) / net.proprio_scale
    assert felt.mean(0).abs().max() < 1e-5
    assert torch.allclose(felt.std(0), torch.ones(3), atol=1e-4)
    # Zero stays zero, the mean of plans: it is what a plan that is left out looks like.
    assert torch.allclose((plans / net.plan_scale).square().mean(0), torch.ones(6), atol=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="did you mean components"):
        ActionNet(config(reads="component"))
    net, given = ActionNet(config()), moment()
    with pytest.raises(ShapeError, match="proprio"):
        net(PROPRIO[:, :2], **given)
    with pytest.raises(ShapeError, match="proprio"):
        net(PROPRIO * float("nan"), **given)
    with pytest.raises(ShapeError, match="frames"):
        net(PROPRIO, **{**given, "frames": given["frames"][..., :16]})
    with pytest.raises(ShapeError, match="plan"):
        net(PROPRIO, **{**given, "plan": given["plan"][:, :1]})
    with pytest.raises(ShapeError, match="plan"):
        net(PROPRIO, **{**given, "plan": given["plan"] * float("nan")})
    with pytest.raises(ValueError, match="frames and words"):
        net(PROPRIO, plan=given["plan"])
