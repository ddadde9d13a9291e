"""`InverseDynamics`: what a robot felt and did, read off a recording's pictures and tracks (after VPT, Baker et al. 2022).

As in ATM's protocol, which the paper follows, most demonstrations are recordings: pictures and tracks, no actions. The
planner learns from them what will move. But tracks also say what was *done*: two views of an arm's points fix where the hand
goes. So a small network learns from the few demonstrations with actions to read actions off exact tracks, past and future
ones, and proprioception off the pictures, and labels the recordings with them; the policy then learns from all. Behaviour
cloning, which has no tracks, cannot. A departure: in the paper recordings reach the policy through plans alone
(`train robots --no-recordings`).

Every point of a view is embedded with its path; each of a few learned scores says which points matter (the fingertips, say)
and picks the mean of their embeddings and paths. What it answers is short, the actions until the next frame: chunks are put
together from the answers at successive frames. Paths reach far ahead, since what an expert wants now shows in where it ends:
one that is pushed away stands still where it leans against the push, and only later goes back.

Shapes: B moments, V views, N points, F frames around a moment; tracks (B, V, N, F, 2) in [-1, 1], keep (B, V, N) bool,
seen (B, Q) what a glance at the pictures gives, proprio (B, P), actions (B, E, A) with E actions from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.notation import check_finite, check_shape
from kinelib.robots.colour_glance import ColourGlance, noisy
from kinelib.robots.robot_data import RobotSet

HIDDEN_SHARE = 0.25  # of the points are hidden from the network in training
STEP_SCALE = 8.0  # an arm moves by about an eighth of the half-frame in a few frames: brings displacements to about 1


@dataclass(frozen=True)
class InverseDynamicsConfig:
    """Sizes of an inverse dynamics model."""

    views: tuple[str, ...] = ("front", "top")  # V cameras, in order
    offsets: tuple[int, ...] = (-3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 24)  # F frames, counted from the moment's
    proprio: int = 4  # P
    every: int = 4  # E
    actions: int = 4  # A
    frame_size: int = 128  # pixels of the square pictures
    colours: int = 48  # that the glance tells apart
    width: int = 96  # of a point's embedding
    scores: int = 4  # ways of picking points
    hidden: int = 256  # of the perceptrons
    dropout: float = 0.1  # in them
    noise: float = 0.1  # on what is seen in training, in standard deviations


class InverseDynamics(nn.Module):
    """See the module docstring.

    Args:
        config: sizes.

    Raises:
        ValueError: when the moment itself is not among the frames.
    """

    def __init__(self, config: InverseDynamicsConfig) -> None:
        super().__init__()
        if 0 not in config.offsets:
            raise ValueError(f"offsets must hold 0, the moment itself; got {config.offsets}.")
        self.config = config
        path, views, width = 2 * len(config.offsets), len(config.views), config.width
        self.glance = ColourGlance(views, config.frame_size, config.colours)
        self.feel = self._perceptron(self.glance.features, config.proprio)
        self.point = nn.Sequential(nn.Linear(path + views, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.score = nn.Linear(width, config.scores)
        self.act = self._perceptron(views * config.scores * (width + path), config.every * config.actions)
        # Measured on training data; identity until then.
        self.register_buffer("proprio_shift", torch.zeros(config.proprio))
        self.register_buffer("proprio_scale", torch.ones(config.proprio))

    def _perceptron(self, inputs: int, outputs: int) -> nn.Sequential:
        hidden = self.config.hidden
        return nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.GELU(),
            nn.Dropout(self.config.dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, outputs),
        )

    @torch.no_grad()
    def measure_statistics(self, proprio: Tensor) -> None:
        """Sets shift and scale of proprioception from (M, P)."""
        self.proprio_shift.copy_(proprio.mean(0))
        self.proprio_scale.copy_(proprio.std(0).clamp_min(1e-3))

    def forward(self, tracks: Tensor, keep: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Proprioception (B, P) as the world gives it, and the actions (B, E, A) that follow.

        Args:
            tracks: (B, V, N, F, 2).
            keep: (B, V, N) which points to look at; a view may have none.
            seen: (B, Q) what `glance(frames)` gives.

        Raises:
            ShapeError: on wrong shapes, or a kept track that is not finite.
        """
        check_shape("seen", seen, f"B {self.glance.features}", B=len(tracks))
        return self.feel(seen) * self.proprio_scale + self.proprio_shift, self._actions(tracks, keep)

    def loss(
        self,
        tracks: Tensor,
        keep: Tensor,
        seen: Tensor,
        proprio: Tensor,
        actions: Tensor,
        valid: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The absolute error of proprioception, standardised, and of actions.

        Args:
            tracks, keep, seen: as of :meth:`forward`; a quarter of the points is hidden here, and noise added to what is
                seen.
            proprio: (B, P) as the world gives it.
            actions, valid: (B, E, A) and (B, E), False beyond a demonstration's end.
            generator: decides what is hidden, and draws the noise.

        Returns:
            "loss", and its parts "felt" and "done", of proprioception and of actions.
        """
        hidden = torch.rand(keep.shape, generator=generator, device=keep.device) < HIDDEN_SHARE
        felt = self.feel(noisy(seen, self.config.noise, generator)) * self.proprio_scale + self.proprio_shift
        felt = ((felt - proprio) / self.proprio_scale).abs().mean()
        wrong = (self._actions(tracks, keep & ~hidden) - actions).abs() * valid[:, :, None]
        done = wrong.sum() / (valid.sum() * actions.shape[2]).clamp_min(1)
        return {"loss": felt + done, "felt": felt.detach(), "done": done.detach()}

    def _actions(self, tracks: Tensor, keep: Tensor) -> Tensor:
        config = self.config
        views = len(config.views)
        sizes = check_shape("tracks", tracks, f"B {views} N {len(config.offsets)} 2")
        check_shape("keep", keep, f"B {views} N", **sizes)
        # What is not kept may hold anything.
        tracks = tracks.where(keep[..., None, None], 0.0)
        check_finite("kept tracks", tracks)
        moment = config.offsets.index(0)
        here = tracks[..., moment, :]
        steps = (tracks - here[..., None, :]) * STEP_SCALE
        steps[..., moment, :] = here
        paths = rearrange(steps, "b v n f xy -> b v n (f xy)")
        which = repeat(torch.eye(views, device=tracks.device), "v u -> b v n u", b=sizes["B"], n=sizes["N"])
        points = self.point(torch.cat([paths, which], dim=-1))
        weight = self.score(points).masked_fill(~keep[..., None], -1e4).softmax(2)
        picked = torch.einsum("bvnk,bvnc->bvkc", weight, torch.cat([points, paths], dim=-1))
        return rearrange(self.act(rearrange(picked, "b v k c -> b (v k c)")), "b (e a) -> b e a", e=config.every)


@torch.no_grad()
def label_recordings(data: RobotSet, tracks: Tensor, keep: Tensor, model: InverseDynamics) -> RobotSet:
    """Recordings with the proprioception and the actions that are read off them, instead of those they were made with.

    Args:
        data: the recordings' moments; of its actions only where they end is used.
        tracks, keep: (M, V, N, F, 2) and (M, V, N) around every moment, as of `robot_data.moment_tracks`.
        model: trained.

    Raises:
        ShapeError: when tracks are of other moments, views or frames.
    """
    check_shape("tracks", tracks, "M V N F 2", M=len(data))
    horizon, every = data.chunks.shape[1], model.config.every
    seen = model.glance.look(data.pictures)
    read = [model(tracks[rows].float(), keep[rows], seen[rows]) for rows in torch.arange(len(data)).split(256)]
    felt, done = (torch.cat(part) for part in zip(*read, strict=True))
    # The actions of a chunk are those of successive moments; beyond a demonstration's end `valid` says that none count.
    ahead = torch.arange(len(data))[:, None] + torch.arange(ceil(horizon / every))
    chunks = rearrange(done[ahead.clamp_max(len(data) - 1)], "m k e a -> m (k e) a")[:, :horizon]
    return replace(data, proprio=felt, chunks=chunks.clamp(-1, 1))
