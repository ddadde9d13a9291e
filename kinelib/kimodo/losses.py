"""What Kimodo's denoiser is trained on: smooth-L1 of every block of clean features, and of the joints its rotations reach
(Section 4 of the paper, "training objective", with its weights).

Each term is a mean over the channels of its block and over all real frames of the batch: numerators are summed over clips
before dividing, so a short clip does not weigh as much as a long one. The term `kinematics` places the joints by the
predicted rotations from the true pelvis, in metres.

The paper leaves open whether direct terms are taken on normalised or physical features (`physical`), where smooth-L1 bends,
and which root carries the kinematics. If it bent at 1 m, an error of 5 cm in a joint would cost a four-hundredth of an error
of one standard deviation; ours bends at 10 cm.

Departures, all off by default: `pinned` weighs constrained features more (a small network without it reproduces what it was
given only roughly), `motion` compares the speed of the joints as decoded, which ties positions, rotations and root of
neighbouring frames together, and `standing` the same for feet on the floor only.

Shapes: features (B, T, D) normalised, lengths (B,), mask (B, T, D) bool, positions (B, T, J, 3) metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import FeatureLayout, frame_mask
from kinelib.bodies.rotations import from_6d
from kinelib.bodies.skeleton import Skeleton
from kinelib.notation import check_shape


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; the first seven are the paper's."""

    root: float = 10.0  # position of the smoothed root and height of the pelvis
    heading: float = 2.0
    positions: float = 10.0
    rotations: float = 10.0
    velocities: float = 3.0
    contacts: float = 4.0
    kinematics: float = 5.0  # joints placed by the predicted rotations, metres
    motion: float = 0.0  # speed of the decoded joints, in units of the velocity channels
    standing: float = 0.0  # speed of the decoded feet where they truly stand, m/s
    pinned: float = 0.0  # extra weight of constrained features in the direct terms
    bend: float = 1.0  # where smooth-L1 turns from a parabola into a line, direct terms
    metres_bend: float = 0.1  # the same for kinematics, metres, and standing, m/s
    physical: bool = False  # direct terms on metres, radians and so on instead of normalised features

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            fine = value > 0 if name.endswith("bend") else value >= 0
            if not fine:
                raise ValueError(
                    f"LossConfig.{name} = {value} must {'be above' if name.endswith('bend') else 'not be below'} 0."
                )


class MotionLoss:
    """The loss of one kind of body.

    Args:
        layout: of the features, with its skeleton.
        fps: frames a second.
        config: weights.
    """

    def __init__(self, layout: FeatureLayout, fps: float, config: LossConfig | None = None) -> None:
        self.layout, self.fps, self.config = layout, fps, config or LossConfig()
        self.chains = _chains(layout.known_skeleton())

    def __call__(
        self, prediction: Tensor, clean: Tensor, lengths: Tensor, statistics: Statistics, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """All terms, unweighted, and "loss", their weighted sum.

        Args:
            prediction: (B, T, D) normalised.
            clean: (B, T, D) normalised, the truth.
            lengths: (B,) frames of every clip.
            statistics: with which they were normalised.
            mask: (B, T, D) bool, True where features were given; None: nowhere.

        Raises:
            ShapeError: for shapes that do not fit.
        """
        config = self.config
        sizes = check_shape("prediction", prediction, f"B T {self.layout.size}")
        check_shape("clean", clean, "B T D", **sizes, D=self.layout.size)
        real = frame_mask(lengths.to(clean.device), sizes["T"])
        # Padding may hold anything; with the truth in its place it costs nothing and no NaN gets through.
        prediction = torch.where(real[..., None], prediction, clean)
        frames = real.sum()
        terms = self._direct(prediction, clean, statistics, mask, frames)
        bodies, pelvis = self._reached(prediction, statistics)
        truth = rearrange(statistics.denormalize(clean)[..., self.layout.blocks["positions"]], "b t (j c) -> b t j c", c=3)
        error = F.smooth_l1_loss(bodies + truth[:, :, :1], truth, beta=config.metres_bend, reduction="none")
        terms["kinematics"] = torch.where(real, error.mean((-2, -1)), 0.0).sum() / frames
        if config.motion or config.standing:
            terms |= self._speeds(bodies + pelvis[:, :, None], clean, real, statistics)
        loss = sum(getattr(config, name) * term for name, term in terms.items())
        return {"loss": loss, **terms}

    def _direct(
        self, prediction: Tensor, clean: Tensor, statistics: Statistics, mask: Tensor | None, frames: Tensor
    ) -> dict[str, Tensor]:
        if self.config.physical:
            prediction, clean = statistics.denormalize(prediction), statistics.denormalize(clean)
        error = F.smooth_l1_loss(prediction, clean, beta=self.config.bend, reduction="none")
        if mask is not None and self.config.pinned:
            error = error + self.config.pinned * torch.where(mask, error, 0.0)
        total = error.sum((0, 1)) / frames
        return {name: total[channels].mean() for name, channels in self.layout.blocks.items()}

    def _reached(self, prediction: Tensor, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Joints (B, T, J, 3) against their pelvis by the predicted rotations, and the pelvis (B, T, 3), in metres."""
        skeleton, blocks = self.layout.known_skeleton(), self.layout.blocks
        physical = statistics.denormalize(prediction)
        six = rearrange(physical[..., blocks["rotations"]], "b t (j six) -> b t j six", six=6)
        parents = list(skeleton.parents[1:])
        turns = from_6d(six)[:, :, parents]
        bones = (turns @ skeleton.offsets.to(six)[1:, :, None])[..., 0]
        # One product with who-hangs-on-whom instead of a walk down the tree.
        bodies = self.chains.to(six) @ bones
        pelvis = physical[..., blocks["positions"]][..., :3] + physical[..., :3] * physical.new_tensor([1.0, 0.0, 1.0])
        return bodies, pelvis

    def _speeds(self, joints: Tensor, clean: Tensor, real: Tensor, statistics: Statistics) -> dict[str, Tensor]:
        """Terms of how fast the decoded joints (B, T, J, 3) move from frame to frame."""
        config, channels = self.config, self.layout.blocks["velocities"]
        truth = statistics.denormalize(clean)
        wanted = rearrange(truth[:, :-1, channels], "b t (j c) -> b t j c", c=3)
        found = (joints[:, 1:] - joints[:, :-1]) * self.fps
        both = real[:, 1:] & real[:, :-1]
        count = both.sum().clamp_min(1)
        terms = {}
        if config.motion:
            scale = rearrange(statistics.scale[channels], "(j c) -> j c", c=3)
            error = F.smooth_l1_loss(found / scale, wanted / scale, beta=config.bend, reduction="none")
            terms["motion"] = (error.mean((-2, -1)) * both).sum() / count
        if config.standing:
            feet = self.layout.known_skeleton().contact_joints
            stands = (truth[:, :-1, self.layout.blocks["contacts"]] > 0.5) & both[..., None]
            error = F.smooth_l1_loss(found[:, :, feet], wanted[:, :, feet], beta=config.metres_bend, reduction="none")
            terms["standing"] = (error.mean(-1) * stands).sum() / stands.sum().clamp_min(1)
        return terms


def _chains(skeleton: Skeleton) -> Tensor:
    """(J, J - 1): 1 where a bone, numbered by the joint at its end less 1, lies between the root and a joint."""
    chains = torch.zeros(len(skeleton), len(skeleton))
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0:
            chains[joint] = chains[parent]
            chains[joint, joint] = 1
    return chains[:, 1:]
