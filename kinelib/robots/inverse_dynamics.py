"""`InverseDynamics`: what a robot did and felt, read off the tracks of a recording (after VPT, Baker et al. 2022).

As in ATM's protocol, which the paper follows, most demonstrations are recordings: pictures and tracks, no actions. The
planner learns from them what will move. But tracks also say what was *done*: two calibrated views and the motion of an arm's
points fix where the hand is and where it goes. So a small network learns from the few demonstrations with actions to read
actions and proprioception off exact tracks, past and future ones, and labels the recordings with them; the policy then
learns from all. Behaviour cloning, which has no tracks, cannot. A departure: in the paper recordings reach the policy
through plans alone (`train robots --no-recordings`).

Every point of a view is embedded with its path; each of a few learned scores says which points matter (the fingertips, say)
and picks the mean of their embeddings and paths. What it answers is short, the actions until the next frame: chunks are put
together from the answers at successive frames.

Shapes: B moments, V views, N points, F frames around a moment, of which `before` come earlier; tracks (B, V, N, F, 2) in
[-1, 1], keep (B, V, N) bool, proprio (B, P), actions (B, E, A) with E actions from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.notation import check_finite, check_shape
from kinelib.robots.robot_data import RobotSet

HIDDEN_SHARE = 0.25  # of the points are hidden from the network in training
STEP_SCALE = 8.0  # an arm moves by about an eighth of the half-frame in a few frames: brings displacements to about 1


@dataclass(frozen=True)
class InverseDynamicsConfig:
    """Sizes of an inverse dynamics model."""

    views: tuple[str, ...] = ("front", "top")  # V cameras, in order
    before: int = 3  # frames before the moment
    after: int = 5  # and after it
    proprio: int = 4  # P
    every: int = 4  # E
    actions: int = 4  # A
    width: int = 96  # of a point's embedding
    scores: int = 4  # ways of picking points
    hidden: int = 256  # of the perceptron behind them
    dropout: float = 0.1  # in it

    @property
    def frames(self) -> int:
        """F."""
        return self.before + 1 + self.after


class InverseDynamics(nn.Module):
    """See the module docstring.

    Args:
        config: sizes.
    """

    def __init__(self, config: InverseDynamicsConfig) -> None:
        super().__init__()
        self.config = config
        path, views = 2 * config.frames, len(config.views)
        self.point = nn.Sequential(
            nn.Linear(path + views, config.width), nn.GELU(), nn.Linear(config.width, config.width), nn.GELU()
        )
        self.score = nn.Linear(config.width, config.scores)
        answers = config.proprio + config.every * config.actions
        self.answer = nn.Sequential(
            nn.Linear(views * config.scores * (config.width + path), config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, answers),
        )
        # Measured on training data; identity until then.
        self.register_buffer("proprio_shift", torch.zeros(config.proprio))
        self.register_buffer("proprio_scale", torch.ones(config.proprio))

    @torch.no_grad()
    def measure_statistics(self, proprio: Tensor) -> None:
        """Sets shift and scale of proprioception from (M, P)."""
        self.proprio_shift.copy_(proprio.mean(0))
        self.proprio_scale.copy_(proprio.std(0).clamp_min(1e-3))

    def forward(self, tracks: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Proprioception (B, P) as the world gives it, and the actions (B, E, A) that follow.

        Args:
            tracks: (B, V, N, F, 2).
            keep: (B, V, N) which points to look at; none at all in a view is an answer from the others.

        Raises:
            ShapeError: on wrong shapes, or a kept track that is not finite.
        """
        felt, actions = self._answers(tracks, keep)
        return felt * self.proprio_scale + self.proprio_shift, actions

    def loss(
        self,
        tracks: Tensor,
        keep: Tensor,
        proprio: Tensor,
        actions: Tensor,
        valid: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The absolute error of proprioception, standardised, and actions.

        Args:
            tracks, keep: as of :meth:`forward`; a quarter of the points is hidden here.
            proprio: (B, P) as the world gives it.
            actions, valid: (B, E, A) and (B, E), False beyond a demonstration's end.
            generator: decides what is hidden.

        Returns:
            "loss", and "felt" and "done", the errors of proprioception and actions by themselves.
        """
        hidden = torch.rand(keep.shape, generator=generator, device=keep.device) < HIDDEN_SHARE
        felt, predicted = self._answers(tracks, keep & ~hidden)
        wrong_felt = (felt - (proprio - self.proprio_shift) / self.proprio_scale).abs()
        wrong_done = (predicted - actions).abs() * valid[:, :, None]
        count = wrong_felt.numel() + valid.sum() * actions.shape[2]
        return {
            "loss": (wrong_felt.sum() + wrong_done.sum()) / count,
            "felt": wrong_felt.mean().detach(),
            "done": (wrong_done.sum() / (valid.sum() * actions.shape[2]).clamp_min(1)).detach(),
        }

    def _answers(self, tracks: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        views = len(config.views)
        sizes = check_shape("tracks", tracks, f"B {views} N {config.frames} 2")
        check_shape("keep", keep, f"B {views} N", **sizes)
        # What is not kept may hold anything.
        tracks = tracks.where(keep[..., None, None], 0.0)
        check_finite("kept tracks", tracks)
        here = tracks[..., config.before, :]
        steps = (tracks - here[..., None, :]) * STEP_SCALE
        steps[..., config.before, :] = here
        paths = rearrange(steps, "b v n f xy -> b v n (f xy)")
        which = repeat(torch.eye(views, device=tracks.device), "v u -> b v n u", b=sizes["B"], n=sizes["N"])
        points = self.point(torch.cat([paths, which], dim=-1))
        weight = self.score(points).masked_fill(~keep[..., None], -1e4).softmax(2)
        picked = torch.einsum("bvnk,bvnc->bvkc", weight, torch.cat([points, paths], dim=-1))
        answers = self.answer(rearrange(picked, "b v k c -> b (v k c)"))
        actions = rearrange(answers[:, config.proprio :], "b (e a) -> b e a", e=config.every)
        return answers[:, : config.proprio], actions


@torch.no_grad()
def label_recordings(data: RobotSet, tracks: Tensor, keep: Tensor, model: InverseDynamics) -> RobotSet:
    """Recordings with the proprioception and the actions that their tracks tell, instead of those they were made with.

    Args:
        data: the recordings' moments; of its actions only where they end is used.
        tracks, keep: (M, V, N, F, 2) and (M, V, N) around every moment, as of `robot_data.moment_tracks`.
        model: trained.

    Raises:
        ShapeError: when tracks are of other moments, views or frames.
    """
    check_shape("tracks", tracks, "M V N F 2", M=len(data))
    horizon, every = data.chunks.shape[1], model.config.every
    read = [model(tracks[rows].float(), keep[rows]) for rows in torch.arange(len(data)).split(256)]
    felt, done = (torch.cat(part) for part in zip(*read, strict=True))
    # The actions of a chunk are those of successive moments; beyond a demonstration's end `valid` says that none count.
    ahead = torch.arange(len(data))[:, None] + torch.arange(ceil(horizon / every))
    chunks = rearrange(done[ahead.clamp_max(len(data) - 1)], "m k e a -> m (k e) a")[:, :horizon]
    return replace(data, proprio=felt, chunks=chunks.clamp(-1, 1))
