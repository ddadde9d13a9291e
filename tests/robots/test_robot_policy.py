"""A policy looks when it should, executes what was planned for that very step, and needs its parts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kinelib.learning.text import Text
from kinelib.robots.action_net import ActionNet, ActionNetConfig
from kinelib.robots.motion_guess import MotionGuessConfig
from kinelib.robots.policy import RobotPolicy
from kinelib.robots.policy_head import PolicyHeadConfig
from kinelib.robots.robot_planner import RobotPlanner, RobotPlannerConfig
from kinelib.robots.worlds import Observation
from kinelib.zipmo.flow_matcher import FlowMatcherConfig

HORIZON = 8


class Foreteller:
    """A network whose answers are exactly right: the action of a step is its number. It counts the plans it is shown."""

    def __init__(self, plans: bool = False) -> None:
        head, reads = SimpleNamespace(horizon=HORIZON), "latents" if plans else "glance"
        self.config = SimpleNamespace(head=head, reads=reads, plans=plans, looks=False, views=("front",), frame_size=8)
        self.plans: list[float] = []

    def read(self, latents, planner):
        return latents

    def __call__(self, proprio, *, plan=None, seen=None, words=None):
        if plan is not None:
            self.plans.append(plan.item())
        return (proprio[:, :1, None] + torch.arange(float(HORIZON))[:, None]).repeat(1, 1, 2)


def observation(step: int, looked: list | None = None) -> Observation:
    def look(view: str, side: int):
        if looked is not None:
            looked.append((step, view))
        return np.zeros((side, side, 3), np.uint8)

    return Observation(look, np.array([step], np.float32), "go", step)


@pytest.mark.parametrize("replan", [1, 2, 4, 8])
def test_what_was_foretold_for_a_step_is_done_at_that_step(replan):
    policy = RobotPolicy(Foreteller(), replan=replan)
    done = [policy(observation(step)) for step in range(30)]
    assert np.allclose(done, np.arange(30)[:, None].repeat(2, axis=1))


def test_an_episode_leaves_nothing_to_the_next():
    policy = RobotPolicy(Foreteller(), replan=4)
    for step in range(6):
        policy(observation(step))
    policy.reset()
    assert policy(observation(0)).tolist() == [0, 0]


@pytest.mark.parametrize(("closed_loop", "plans"), [(True, [0, 4, 8]), (False, [0, 0, 0])])
def test_plans_are_drawn_at_every_look_or_once(closed_loop, plans):
    network, looked = Foreteller(plans=True), []
    told = lambda seen, frames: torch.tensor(float(seen.step)).reshape(1, 1)
    policy = RobotPolicy(network, replan=4, closed_loop=closed_loop, plans=told)
    for step in range(12):
        policy(observation(step, looked))
    assert network.plans == plans
    assert {step for step, _ in looked} == {0, 4, 8}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="must divide"):
        RobotPolicy(Foreteller(), replan=3)
    with pytest.raises(ValueError, match="give a planner"):
        RobotPolicy(Foreteller(plans=True))
    with pytest.raises(ValueError, match="kind 'policy'"):
        RobotPolicy(Foreteller()).plan(observation(0))


def test_a_broken_answer_stops_the_rollout_with_a_reason():
    network = Foreteller()
    network.__class__ = type("Broken", (Foreteller,), {"__call__": lambda *_, **__: torch.full((1, HORIZON, 2), torch.nan)})
    with pytest.raises(ValueError, match="NaN"):
        RobotPolicy(network)(observation(0))


def parts(reads: str) -> tuple[ActionNet, RobotPlanner]:
    """An untrained network of a kind for two views, and a planner of the same grid."""
    head = PolicyHeadConfig(views=2, grid=(4, 4), channels=16, proprio=1, horizon=8, actions=3, depth=1)
    sizes = dict(views=("front", "top"), frame_size=32, width=32, colours=3, components=5)
    network = ActionNet(ActionNetConfig(head=head, reads=reads, **sizes)).eval()
    flow = FlowMatcherConfig(latent_shape=(1, 8, 8, 4), frame_size=32, patch=4, width=20, image_width=8, depth=1, heads=2)
    guess = MotionGuessConfig(("front", "top"), flow.latent_shape, 32, colours=3, components=8, width=16)
    return network, RobotPlanner(RobotPlannerConfig(("front", "top"), 4, 16, flow, guess)).eval()


class Still:
    """Stands where the autoencoder is: every point stays where it was asked for, moved by the latents' mean."""

    def decode(self, latents, frames, points, num_frames):
        return points[:, :, None].repeat(1, 1, num_frames, 1) + latents.mean()


ENCODER = SimpleNamespace(
    embed=lambda sentences: torch.zeros(len(sentences), 384),
    encode=lambda sentences: Text(torch.zeros(len(sentences), 2, 384), torch.ones(len(sentences), 2, dtype=torch.bool)),
)


@pytest.mark.parametrize("reads", ["latents", "glance", "components"])
def test_a_networks_parts_are_put_together(reads):
    """Pictures of both views, the sentence and the plan reach the network in the shapes it wants."""
    network, planner = parts(reads)
    given = {} if reads == "glance" else {"planner": planner, "autoencoder": Still()}
    policy = RobotPolicy(network, **given, encoder=ENCODER)
    looked: list = []
    assert policy(observation(0, looked)).shape == (3,)
    assert [view for _, view in looked] == ["front", "top"]


def test_components_cannot_be_read_without_the_planner_that_knows_them():
    network, planner = parts("components")
    with pytest.raises(ValueError, match="give the planner that knows them"):
        RobotPolicy(network, plans=lambda observation, frames: None)
    plain = RobotPlanner(replace(planner.config, guess=None))
    with pytest.raises(ValueError, match="has no guess"):
        plain.components(torch.zeros(1, 2, 1, 8, 8, 4))
