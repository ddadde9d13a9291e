"""Control: the root, or any joint, follows a given path (KinMo, Section 5; joint trajectory control).

Three helps, each of which may be left out. A trained branch (`control_branch`) tells the frozen generator of the path. While
tokens are drawn, their logits are moved by a few steps of gradient descent so that the motion they would decode to on
average comes closer to the path (`pull`). And when all are drawn, the code vectors themselves are moved a little, through
the frozen decoder, so that what is decoded follows (`finish`); feet that stand are asked to go on standing, and leaving the
codes costs. The paper trains a ControlNet and defers all details; optimising at test time is known from MaskControl.

Targets are places in metres in the motion's own frame: it begins with its root above the origin and faces +z. A number that
is NaN is free, so waypoints are paths with gaps, and a path on the floor has free heights.

Shapes: B motions, T frames, J = 22 joints, L times of four frames, G streams, K codes, C channels of a code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from kinelib.bodies.humanml3d import CONTACTS, FPS, SLICES, recover
from kinelib.bodies.motion import Motion
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kinmo.coarse_to_fine import KinMo, draw_codes
from kinelib.kinmo.codec import decode_clips
from kinelib.kinmo.editing import check_length
from kinelib.kinmo.masked import Conditions, MaskedMotionGenerator
from kinelib.kinmo.sampling import Sampler, generators
from kinelib.kinmo.tokens import STRIDE, MotionTokenizer
from kinelib.notation import ShapeError, check_shape

if TYPE_CHECKING:
    from kinelib.kinmo.control_branch import ControlBranch

BATCH = 32


@dataclass(frozen=True)
class Pull:
    """How hard motion is led onto its targets without training."""

    steps: int = 5  # of gradient descent on the logits in every step of sampling; 0: none
    rate: float = 0.5  # of these steps, in logits
    finish: int = 150  # steps on the code vectors once all are drawn; 0: none
    finish_rate: float = 0.03  # of these steps, in spreads of the code vectors
    feet: float = 0.1  # metres of error that a standing foot's 1 m/s of sliding counts as
    leave: float = 0.02  # metres of error that leaving the codes by their whole spread counts as

    def __post_init__(self) -> None:
        if min(self.steps, self.finish, self.rate, self.finish_rate, self.feet, self.leave) < 0:
            raise ValueError(f"steps, rates and weights of a pull are not negative; got {self}.")


OFF = Pull(steps=0, finish=0)


def root_path(xz: Tensor) -> dict[str, Tensor]:
    """Targets for the root's path on the floor (T, 2) = (x, z), one point a frame, NaN where it is free."""
    check_shape("path", xz, "T 2")
    return {"pelvis": torch.stack([xz[:, 0], torch.full_like(xz[:, 0], torch.nan), xz[:, 1]], -1)}


def follow(
    model: KinMo,
    prompts: Sequence[str],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    groups: Sequence[Mapping[str, str] | None] | None = None,
    branch: ControlBranch | None = None,
    pull: Pull | None = None,
    seed: int = 0,
    sampler: Sampler | None = None,
    remask: float = 0.5,
) -> list[Motion]:
    """Draws motion for every prompt that leads its joints along given paths.

    Args:
        model: the trained parts.
        prompts: N, "" for none.
        targets: N tables: joint of SMPLX22 -> (T, 3) metres, NaN where free; T is the length of the motion, at most the
            generator's. See :func:`root_path`.
        groups: sentences by group, as of `generate`.
        branch: trained; None: without.
        pull: what is done without training; None: the defaults, `OFF`: nothing.
        seed, sampler, remask: as of `generate`; codes are decoded as drawn (not `soft`), since pull and finish act on them.

    Raises:
        ShapeError: for targets of different lengths, or none that is a number. KeyError: for a joint that is not there.
        ValueError: when there is not one table a prompt, or a motion would be too long.
    """
    if len(targets) != len(prompts) or not prompts:
        raise ValueError(f"give one table of targets for each of {len(prompts)} prompts, at least one; got {len(targets)}.")
    pull, sampler = Pull() if pull is None else pull, Sampler() if sampler is None else sampler
    wanted = [packed(table, number) for number, table in enumerate(targets)]
    for number, one in enumerate(wanted):
        check_length(len(one), model.generator.config.longest, f"path {number}")
    words, device = model.conditions(list(prompts), groups), model.generator.bias.device
    motions: list[Motion] = []
    for first in range(0, len(wanted), BATCH):
        some = wanted[first : first + BATCH]
        frames = torch.tensor([len(one) for one in some])
        times = -(-frames // STRIDE)
        goal = torch.full((len(some), STRIDE * int(times.max()), *some[0].shape[1:]), torch.nan)
        for row, one in enumerate(some):
            goal[row, : len(one)] = one
        goal = goal.to(device)
        steered = Steered(model.generator, model.tokenizer, goal, frames.to(device), pull, branch)
        draws = [generators(seed, 1)[0] for _ in some]
        rows = slice(first, first + BATCH)
        codes = draw_codes(steered, words.pick(rows), times, draws, sampler, remask=remask)
        features = finished(model.tokenizer, codes, frames, goal, pull).cpu()
        motions += decode_clips([one[:length] for one, length in zip(features, frames.tolist(), strict=True)])
    return [motion.with_facts(prompt=prompt, seed=seed) for motion, prompt in zip(motions, prompts, strict=True)]


def control_error(motions: Sequence[Motion], targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Mean distance (N,), metres, of joints and their targets over frames that have one; free coordinates do not count."""
    errors = []
    for number, (motion, table) in enumerate(zip(motions, targets, strict=True)):
        goal = packed(table, number)
        apart, there = _apart(motion.positions()[None].to(goal), goal[None])
        errors.append(apart[there].mean())
    return torch.stack(errors)


def packed(table: Mapping[str, Tensor], number: int = 0) -> Tensor:
    """Targets of one motion as (T, J, 3), NaN where free."""
    if unknown := sorted(set(table) - set(SMPLX22.joints)):
        raise KeyError(f"targets {number}: {unknown[0]!r} is no joint; there are {', '.join(SMPLX22.joints)}.")
    lengths = {len(one) for one in table.values()}
    if len(lengths) != 1 or not any(bool(torch.isfinite(one).any()) for one in table.values()):
        raise ShapeError(f"targets {number}: give (T, 3) of one length for at least one joint, not all NaN; got {lengths}.")
    goal = torch.full((lengths.pop(), len(SMPLX22), 3), torch.nan)
    for joint, places in table.items():
        check_shape(f"targets {number}, {joint}", places, "T 3")
        goal[:, SMPLX22.index(joint)] = places.float()
    return goal


class Steered:
    """A generator that knows where the motion shall go; `draw_codes` takes it in place of the generator itself.

    Args:
        generator, tokenizer: frozen.
        goal: (B, T, J, 3) metres, NaN where free, T whole tokens.
        frames: (B,) of every motion.
        pull: how logits are moved. branch: what else tells of the goal.
    """

    def __init__(
        self,
        generator: MaskedMotionGenerator,
        tokenizer: MotionTokenizer,
        goal: Tensor,
        frames: Tensor,
        pull: Pull,
        branch: ControlBranch | None = None,
    ) -> None:
        self.generator, self.tokenizer, self.goal, self.frames, self.pull = generator, tokenizer, goal, frames, pull
        self.config, self.bias, self.next_layer = generator.config, generator.bias, generator.next_layer
        self.branch = branch

    def __call__(self, codes: Tensor, conditions: Conditions, lengths: Tensor) -> Tensor:
        """Logits (B, L, G, K), or of B motions and their twins without words, which are moved alike."""
        twice = len(codes) // len(self.goal)
        links = None
        if self.branch is not None:
            links = self.branch(codes, torch.cat([self.goal] * twice), conditions, lengths)
        logits = self.generator(codes, conditions, lengths, links)
        if not self.pull.steps:
            return logits
        count = len(self.goal)
        return logits + torch.cat([self._shift(logits[:count], codes[:count])] * twice)

    @torch.enable_grad()
    def _shift(self, logits: Tensor, codes: Tensor) -> Tensor:
        """By how much hidden tokens' logits are moved."""
        hidden = (codes == self.config.codes)[..., None]
        known = F.one_hot(codes.clamp(max=self.config.codes - 1), self.config.codes).to(logits)
        shift = torch.zeros_like(logits, requires_grad=True)
        optimizer = torch.optim.Adam([shift], lr=self.pull.rate)
        for _ in range(self.pull.steps):
            optimizer.zero_grad()
            odds = torch.where(hidden, (logits.detach() + shift).softmax(-1), known)
            latents = self.tokenizer.embed(odds[..., None, :])
            features = self.tokenizer.decode_latents(latents, self.frames)
            error = _path_error(recover(features), self.goal)
            error.sum().backward()
            optimizer.step()
        return shift.detach() * hidden


def finished(tokenizer: MotionTokenizer, codes: Tensor, frames: Tensor, goal: Tensor, pull: Pull) -> Tensor:
    """Features (B, 4 L, 263) of codes (B, L, G, Q) whose vectors are moved until the motion follows `goal`.

    Args:
        tokenizer: frozen.
        codes: drawn. frames: (B,) of every motion.
        goal: (B, 4 L, J, 3) metres, NaN where free.
        pull: how far.
    """
    with torch.no_grad():
        latents = tokenizer.embed(codes)
        first = tokenizer.decode_latents(latents, frames)
    if not pull.finish:
        return first
    spread = latents.std(dim=(0, 1), keepdim=True).clamp_min(1e-4)
    there = torch.arange(first.shape[1], device=codes.device) < frames.to(codes.device)[:, None]
    planted = (first[..., SLICES["contacts"]] > 0.5) & there[..., None]
    planted = (planted[:, 1:] & planted[:, :-1]).float()
    with torch.enable_grad():
        off = torch.zeros_like(latents, requires_grad=True)
        optimizer = torch.optim.Adam([off], lr=pull.finish_rate)
        for step in range(pull.finish):
            optimizer.param_groups[0]["lr"] = pull.finish_rate * (1 - step / pull.finish)
            optimizer.zero_grad()
            joints = recover(tokenizer.decode_latents(latents + off * spread, frames))
            speed = FPS * joints[:, :, CONTACTS].diff(dim=1)[..., [0, 2]].square().sum(-1).add(1e-8).sqrt()
            sliding = (speed * planted).sum((1, 2)) / planted.sum((1, 2)).clamp_min(1)
            left = off.square().mean((1, 2, 3))
            (_path_error(joints, goal) + pull.feet * sliding + pull.leave * left).sum().backward()
            optimizer.step()
    with torch.no_grad():
        return tokenizer.decode_latents(latents + off * spread, frames)


def _path_error(joints: Tensor, goal: Tensor) -> Tensor:
    """Mean distance (B,) in metres of joints (B, T, J, 3) and their targets."""
    apart, there = _apart(joints, goal)
    return (apart * there).sum((1, 2)) / there.sum((1, 2)).clamp_min(1)


def _apart(joints: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B, T, J) over the coordinates that are not free, and where there is a target at all."""
    given = torch.isfinite(goal)
    off = torch.where(given, joints - goal.nan_to_num(), torch.zeros_like(joints))
    return off.square().sum(-1).add(1e-12).sqrt(), given.any(-1)
