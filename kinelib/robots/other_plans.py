"""Plans that no planner drew: noise, and the expert's own future. The baselines below and above a policy's planner.

Random latents tell how much of a policy's success is owed to its plans; a policy fed with the exact tracks of what the
expert is about to do (*oracle tracks*) tells what a perfect planner would be worth.

Shapes: frames (1, V, 3, S, S), latents (1, V, 1, R, W, C) normalised as the planner's.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from kinelib.robots.robot_data import POINTS, encode_windows
from kinelib.robots.robot_planner import RobotPlanner
from kinelib.robots.robot_tracks import exact_tracks, film
from kinelib.robots.worlds import Observation, World, WorldError
from kinelib.zipmo.autoencoder import TrackAutoencoder


class RandomPlans:
    """Standard normal latents.

    Args:
        planner: whose latents are imitated in shape.
        seed: of the noise.
    """

    def __init__(self, planner: RobotPlanner, seed: int = 0) -> None:
        self.shape = (1, len(planner.config.views), *planner.config.flow.latent_shape)
        self._noise = torch.Generator().manual_seed(seed)

    def __call__(self, observation: Observation, frames: Tensor) -> Tensor:
        return torch.randn(self.shape, generator=self._noise)


class ExpertPlans:
    """Latents of the exact tracks of what the expert would do from here; the world is put back afterwards.

    Args:
        planner: whose window, views and normalisation are used.
        autoencoder: encodes the tracks.
    """

    def __init__(self, planner: RobotPlanner, autoencoder: TrackAutoencoder) -> None:
        self.planner, self.autoencoder = planner, autoencoder
        self.world: World | None = None

    def watch(self, world: World) -> World:
        """Names the world whose future is told, and returns it."""
        self.world = world
        return world

    def __call__(self, observation: Observation, frames: Tensor) -> Tensor:
        """Raises WorldError when no world was named."""
        if self.world is None:
            raise WorldError("the expert's future needs a world; call watch(world) before the episode.")
        config, world = self.planner.config, self.world
        states = [world.state()]
        while len(states) <= config.window and world.step_number < world.limit:
            world.step(world.expert())
            states.append(world.state())
        footage = film(world, states[:: config.every], views=config.views, side=16, detail=128)
        world.restore(states[0])
        tracks = torch.cat([exact_tracks(footage, view, count=POINTS).xy for view in config.views])
        missing = config.window // config.every + 1 - tracks.shape[2]
        tracks = torch.cat([tracks, tracks[:, :, -1:].expand(-1, -1, missing, -1)], dim=2)
        keep = torch.ones(tracks.shape[:2], dtype=torch.bool)
        latents = encode_windows(tracks, keep, rearrange(frames, "1 v ... -> v ..."), self.autoencoder)
        return self.planner.normalize(latents)[None]
