"""Loads trained robot policies: those that are shipped, or those of a folder."""

from __future__ import annotations

from pathlib import Path

from kinelib.learning import checkpoints
from kinelib.robots.action_net import ActionNet, ActionNetConfig
from kinelib.robots.affordance import Affordance, AffordanceConfig
from kinelib.robots.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from kinelib.robots.policy import RobotPolicy
from kinelib.robots.robot_planner import RobotPlanner, RobotPlannerConfig
from kinelib.robots.worlds import check_known
from kinelib.zipmo.pretrained import load_stage

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "robots"
KINDS = ("policy", "cloning")


def load_robot_policy(checkpoint: str | Path | None = None, kind: str = "policy", **options) -> RobotPolicy:
    """A trained policy, ready to act: call it with an observation, `reset()` it when an episode begins.

    Args:
        checkpoint: folder with planner, policy and cloning; default: the shipped one.
        kind: "policy", which plans first, or "cloning", the baseline that does not.
        options: of :class:`RobotPolicy`, such as replan=8 or closed_loop=False.

    Raises:
        WorldError: for an unknown kind. FileNotFoundError: when the folder lacks a part.
        CheckpointError: when one is damaged.
    """
    folder = Path(checkpoint or SHIPPED)
    network = checkpoints.load(folder / check_known("kind of policy", kind, KINDS), ActionNet, ActionNetConfig)
    planner = autoencoder = None
    if network.config.plans:
        planner = load_planner(folder)
        autoencoder = load_stage("autoencoder")
    return RobotPolicy(network.requires_grad_(False), planner, autoencoder, **options)


def load_planner(checkpoint: str | Path | None = None) -> RobotPlanner:
    """A trained robot planner, in eval mode and without gradients; errors as of :func:`load_robot_policy`."""
    folder = Path(checkpoint or SHIPPED)
    return checkpoints.load(folder / "planner", RobotPlanner, RobotPlannerConfig).requires_grad_(False)


def load_affordance(checkpoint: str | Path) -> Affordance | None:
    """What finds things to be moved, of a folder of trainings; None where it was not trained. A policy has it inside."""
    folder = Path(checkpoint) / "affordance"
    return checkpoints.load(folder, Affordance, AffordanceConfig).requires_grad_(False) if folder.is_dir() else None


def load_inverse_dynamics(checkpoint: str | Path | None = None) -> InverseDynamics:
    """What reads actions off exact tracks, in eval mode and without gradients; errors as of :func:`load_robot_policy`."""
    folder = Path(checkpoint or SHIPPED)
    return checkpoints.load(folder / "inverse", InverseDynamics, InverseDynamicsConfig).requires_grad_(False)
