"""`RobotPolicy`: looks, plans, and acts; what rollouts call (ZipMo, robot policy).

Every `replan` actions the policy looks at the world again. It makes a plan (motion latents of every view), its network
answers with a chunk of actions, and what this chunk and the older ones say about the next `replan` actions is blended by
temporal ensembling. The release looks and plans at every action; so does this with replan = 1. It draws plans in ten Euler
steps; a plan that is acted on takes one here, which is the mean of all plans (`ACTING_STEPS`).

Open loop means that the plan is drawn once, when the episode begins; pictures and proprioception are still looked at.
Instead of the planner's, plans may come from anywhere (`plans`): random latents and the expert's own future are baselines.

Shapes: V views, S side of a picture; latents (1, V, 1, R, W, C) normalised; a chunk (H, A).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinelib.learning.text import TextEncoder
from kinelib.notation import cell_centres
from kinelib.robots.action_net import ActionNet
from kinelib.robots.ensembling import TemporalEnsemble
from kinelib.robots.robot_data import model_pictures
from kinelib.robots.robot_planner import ACTING_STEPS, STEPS, RobotPlanner
from kinelib.robots.worlds import Observation
from kinelib.tracks.tracks import Tracks
from kinelib.zipmo.autoencoder import TrackAutoencoder

Plans = Callable[[Observation, Tensor], Tensor]  # (observation, frames (1, V, 3, S, S)) -> latents


class RobotPolicy:
    """Acts in a world; see the module docstring.

    Args:
        network: answers with chunks.
        planner: draws plans; needed where the network reads them and `plans` does not provide them.
        autoencoder: decodes plans into tracks, for :meth:`plan`.
        replan: actions from look to look, 1 to H and a divisor of H.
        closed_loop: plan at every look; False plans once an episode.
        steps: Euler steps of a plan that is acted on.
        plans: provides latents instead of the planner.
        discount: of temporal ensembling.
        seed: of the planner's noise; an episode always begins with it.
        encoder: of sentences; default: the one the networks were trained with.

    Raises:
        ValueError: when `replan` does not divide H, or a network that reads plans has nobody to make them.
    """

    def __init__(
        self,
        network: ActionNet,
        planner: RobotPlanner | None = None,
        autoencoder: TrackAutoencoder | None = None,
        *,
        replan: int = 8,
        closed_loop: bool = True,
        steps: int = ACTING_STEPS,
        plans: Plans | None = None,
        discount: float = 0.99,
        seed: int = 0,
        encoder: TextEncoder | None = None,
    ) -> None:
        horizon = network.config.head.horizon
        if not 1 <= replan <= horizon or horizon % replan:
            raise ValueError(f"replan must divide the {horizon} actions of a chunk; got {replan}.")
        if network.config.plans and planner is None and plans is None:
            raise ValueError("this network reads plans; give a planner, or `plans`.")
        if network.config.plans and network.config.looks and planner is None:
            raise ValueError("this network reads the principal components of plans; give the planner that knows them.")
        self.network, self.planner, self.autoencoder = network, planner, autoencoder
        self.replan, self.closed_loop, self.steps, self.plans, self.seed = replan, closed_loop, steps, plans, seed
        self.views = network.config.views
        encoder = encoder or TextEncoder()
        # A sentence is told at every step and encoded once.
        self._tokens = lru_cache(maxsize=256)(lambda sentence: encoder.encode([sentence]))
        self._vector = lru_cache(maxsize=256)(lambda sentence: encoder.embed([sentence]))
        # A chunk of H actions is one of H / replan looks with `replan` actions each: looks are what is blended.
        self._ensemble = TemporalEnsemble(discount**replan)
        self.reset()

    def reset(self) -> None:
        """Forgets the episode: its chunks, its plan, and the state of the noise."""
        self._ensemble.reset()
        self._pending: list[NDArray[np.float64]] = []
        self._plan: Tensor | None = None  # as the network reads it
        self._noise = torch.Generator().manual_seed(self.seed)

    @torch.no_grad()
    def __call__(self, observation: Observation) -> NDArray[np.float64]:
        """The action (A,) to take now."""
        if not self._pending:
            chunk = self.chunk(observation)
            looks = rearrange(chunk.numpy(), "(l r) a -> l (r a)", r=self.replan)
            self._pending = list(rearrange(self._ensemble(looks), "(r a) -> r a", r=self.replan))
        return self._pending.pop(0)

    @torch.no_grad()
    def chunk(self, observation: Observation) -> Tensor:
        """The chunk (H, A) that the network answers to an observation, with a plan as of :meth:`latents`."""
        network, config, frames = self.network, self.network.config, self.frames(observation)
        proprio = torch.from_numpy(np.asarray(observation.proprioception, np.float32))[None]
        if config.plans and (self._plan is None or self.closed_loop):
            self._plan = network.read(self.latents(observation, frames), self.planner)
        looks = {"frames": frames, "words": self.sentence_vector(observation.text)} if config.looks else {}
        return network(proprio, plan=self._plan, **looks)[0]

    def sentence_vector(self, sentence: str) -> Tensor:
        """A sentence as a network reads it, (1, 384)."""
        return self._vector(sentence)

    def frames(self, observation: Observation) -> Tensor:
        """The pictures a network reads, (1, V, 3, S, S)."""
        size = self.network.config.frame_size
        pictures = np.stack([observation.look(view, size) for view in self.views])
        return model_pictures(pictures, size)[None]

    @torch.no_grad()
    def latents(self, observation: Observation, frames: Tensor | None = None, steps: int | None = None) -> Tensor:
        """A plan, (1, V, 1, R, W, C) normalised; raises ValueError where there is no planner.

        Args:
            observation: of the world now.
            frames: of it, where they are known already.
            steps: instead of the policy's own.
        """
        frames = self.frames(observation) if frames is None else frames
        if self.plans is not None:
            return self.plans(observation, frames)
        if self.planner is None:
            raise ValueError("this policy does not plan; load one of kind 'policy'.")
        return self.planner.plan(frames, self._tokens(observation.text), steps=steps or self.steps, seed=self._noise)

    @torch.no_grad()
    def plan(
        self, observation: Observation, *, side: int = 16, num_frames: int = 17, steps: int = STEPS
    ) -> dict[str, Tracks]:
        """What the policy means to happen, as tracks of a grid of points in every view; draws a plan anew.

        Args:
            observation: of the world now.
            side: side x side points.
            num_frames: T, evenly over the actions a plan looks ahead.
            steps: Euler steps: 1 is the mean of all plans, more draw one of them.

        Returns:
            view -> Tracks with B = 1.

        Raises:
            ValueError: for a policy without a planner or an autoencoder.
        """
        if self.planner is None or self.autoencoder is None:
            raise ValueError("plans are decoded by a planner and its autoencoder; load a policy of kind 'policy'.")
        frames = self.frames(observation)
        latents = self.latents(observation, frames, steps)
        xy = self.planner.decode(latents, frames, cell_centres(side, side), self.autoencoder, num_frames)
        facts = {"source": observation.text, "tracker": "planner"}
        return {view: Tracks(xy[:, number], provenance=facts | {"view": view}) for number, view in enumerate(self.views)}
