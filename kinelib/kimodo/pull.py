"""Constraints pulled inside the sampler: at every step the clean estimate is moved smoothly onto what is given.

The network is shown what is given and mostly heeds it, but it has no way to be exact, and guidance may multiply what it
misses by (`kinelib.kimodo.guidance`). Here, before a solver step goes on, the estimate is changed as little and as smoothly
as can be so that it meets its constraints; the next steps then fit the rest of the body to that, which correcting a finished
motion cannot do. In the order of what rests on what:

    root       path, height and heading, twice: in every prediction between its two stages, so that the body is made for the
               path as corrected (`spreading.RootPull`), and here, after guidance
    positions  of joints; velocities follow
    rotations  given ones, then the least turns that bring the bones where positions are given (`least_turns`)

After the last prediction nothing is moved but that prediction's own root: the body is the network's own, and misses its
constraints by what the network finds plausible. Clean-up makes it exact.

Not in the paper, whose sampler writes given features over the noisy ones and leaves it at that; `correction="none"`.

Shapes: B clips, T frames, D features, K constrained frames, J joints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kinelib.bodies.features import FeatureLayout, decode, rates
from kinelib.bodies.rotations import axis_angle, from_6d, from_axis_angle
from kinelib.bodies.skeletons import named
from kinelib.kimodo.conditions import Conditions
from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.kimodo.least_turns import least_turns
from kinelib.kimodo.spreading import root_pull, spreading

CORRECTIONS = ("none", "pull")


class Pull:
    """Moves clean estimates of a batch onto its constraints.

    Args:
        model: whose features these are.
        given: of every clip.
        lengths: frames of every clip.
    """

    def __init__(self, model: TwoStageDenoiser, given: Sequence[Conditions], lengths: Sequence[int]) -> None:
        own = model.statistics.mean.device
        stack = lambda name: pad_sequence([getattr(one, name) for one in given], batch_first=True)
        mask, floating = stack("mask"), stack("floating")
        self.model, self.layout = model, FeatureLayout(named(model.config.skeleton))
        self.lengths = torch.tensor(list(lengths))
        blocks, self.joints = self.layout.blocks, self.layout.joints
        self.root = root_pull(mask, lengths)
        known = mask | floating
        # Channels that are given at the same frames of all clips share their matrices.
        groups: dict[bytes, list[int]] = {}
        for channel in range(blocks["positions"].start, blocks["positions"].stop):
            if known[..., channel].any():
                groups.setdefault(known[..., channel].numpy().tobytes(), []).append(channel)
        self.positions = [(torch.tensor(c), spreading(known[..., c[0]], lengths).to(own)) for c in groups.values()]
        split = lambda flags, name, width: rearrange(flags[..., blocks[name]], "b t (j c) -> b t j c", c=width).all(-1)
        placed, turned = split(known, "positions", 3), split(mask, "rotations", 6)
        placed[..., 0] = False  # the pelvis is where the root and its own position have it
        at = (placed | turned).any(-1)
        self.clips, self.frames = torch.nonzero(at).unbind(1)
        self.placed, self.turned = (flags[at].to(own) for flags in (placed, turned))
        self.turning = spreading(at, lengths).to(own) if at.any() else None
        self.target, self.known = stack("target").to(own), known.to(own)
        self.floating = floating[..., blocks["positions"]].to(own)
        self.free = ~mask[..., blocks["velocities"]].to(own)

    def __call__(self, clean: Tensor, steps: Tensor) -> Tensor:
        """The estimate (B, T, D), normalised, on its constraints; as it is at the last step (B,), which is 0."""
        if not int(steps[0]):
            return clean
        place, blocks = self.model.statistics, self.layout.blocks
        before = place.denormalize(clean)
        x = before.clone()
        if self.root is not None:
            x[..., self.layout.root] = self.root(before[..., self.layout.root], self.target)
        # What floats is given in the world; positions are measured from the root.
        target = self.target.clone()
        target[..., blocks["positions"]] -= self._origin(x) * self.floating
        for channels, matrices in self.positions:
            missed = torch.where(self.known[..., channels], target[..., channels] - x[..., channels], 0.0)
            x[..., channels] += matrices @ missed
        change = x - before
        moved = rates(change[..., blocks["positions"]] + self._origin(change), self.lengths, self.model.config.fps)
        x[..., blocks["velocities"]] += moved * self.free
        if self.turning is not None:
            x[..., blocks["rotations"]] = self._turned(x, target)
        return place.normalize(x)

    def _origin(self, x: Tensor) -> Tensor:
        """The floor under the root (..., 3 J), once for every joint: what positions are measured from."""
        return (x[..., :3] * x.new_tensor([1, 0, 1])).repeat(*[1] * (x.ndim - 1), self.joints)

    def _turned(self, x: Tensor, target: Tensor) -> Tensor:
        """The block of rotations (B, T, 6 J) with given rotations, and bones turned to given positions."""
        blocks, skeleton = self.layout.blocks, self.layout.known_skeleton()
        six = lambda features: rearrange(features[..., blocks["rotations"]], "... (j c) -> ... j c", c=6)
        some, wanted = x[self.clips, self.frames], target[self.clips, self.frames]
        was = decode(some, self.layout)
        places = rearrange(wanted[:, blocks["positions"]] + self._origin(some), "k (j c) -> k j c", c=3)
        given = from_6d(torch.where(self.turned[..., None], six(wanted), six(some)))
        now = torch.where(self.turned[..., None, None], given, was.global_rotations)
        now = least_turns(now, was.root, places, self.placed, self.turned, skeleton)
        vectors = x.new_zeros(*x.shape[:2], 3 * self.joints)
        vectors[self.clips, self.frames] = axis_angle(now @ was.global_rotations.mT).flatten(1)
        spread = rearrange(self.turning @ vectors, "b t (j c) -> b t j c", c=3)
        # The six numbers are two vectors; turned as they are, those of a clip that asks for nothing do not change at all.
        pairs = rearrange(x[..., blocks["rotations"]], "b t (j two c) -> b t j c two", two=2, c=3)
        return rearrange(from_axis_angle(spread) @ pairs, "b t j c two -> b t (j two c)")
