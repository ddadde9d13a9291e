"""Which features are given in training: Kimodo's two phases and its constraint patterns (Section 5.1 of the paper).

Phase one trains on text alone. Phase two gives some features of most clips: 10 % nothing, 25 % two patterns at once, the
rest one. The number of sparse frames is drawn with odds 1/k up to a cap that grows from 1 to 20 over phase two.

    pattern    frames                  channels
    pose       sparse                  root, heading, positions of all joints
    limbs      sparse                  root, heading, positions of some hands and feet, rotation of their wrist or ankle
    waypoints  sparse                  root x and z, heading half of the time
    path       a span, 20 to 100 %     root x and z, heading half of the time
    contacts   sparse or a span        contacts of one or both feet
    between    first 1-5, last 1-5     as pose
    start      first 1-10              everything, as when a clip is to go on

Departures: the paper names the first five families and not their odds; `between` and `start` are our own, since filling in
between two poses and going on with a clip are what people do with it. In a share `rootless` of `limbs` the root stays free.

Shapes: B clips, T frames, D features, P patterns; masks (B, T, D) bool, True = given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from kinelib.bodies.features import FeatureLayout, frame_mask

PATTERNS = ("pose", "limbs", "waypoints", "path", "contacts", "between", "start")


@dataclass(frozen=True)
class Curriculum:
    """The phases and what phase two draws."""

    text_only: float = 0.5  # share of the training that is phase one
    shares: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5)  # odds of PATTERNS
    nothing: float = 0.10  # share of clips without constraints in phase two
    mixed: float = 0.25  # share with two patterns
    first_cap: int = 1  # most sparse frames when phase two starts
    last_cap: int = 20  # and when it ends
    heading: float = 0.5  # share of waypoints and paths with headings
    rootless: float = 0.0  # share of limbs without the root
    dropout: tuple[float, float] = (0.1, 0.0)  # of the network, in either phase: an imputed input must not be dropped

    def __post_init__(self) -> None:
        if len(self.shares) != len(PATTERNS) or min(self.shares) < 0 or not sum(self.shares) > 0:
            raise ValueError(f"shares are {len(PATTERNS)} odds of {', '.join(PATTERNS)}, not all 0; got {self.shares}.")
        if sum(share > 0 for share in self.shares) < 2 and self.mixed:
            raise ValueError("mixing two patterns needs two with odds above 0; set mixed=0.")
        for name in ("text_only", "nothing", "mixed", "heading", "rootless"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Curriculum.{name} is a share in [0, 1]; got {getattr(self, name)}.")
        if self.nothing + self.mixed > 1:
            raise ValueError(f"nothing and mixed are shares of one whole; got {self.nothing} + {self.mixed}.")
        if not 1 <= self.first_cap <= self.last_cap:
            raise ValueError(f"caps are 1 <= first_cap <= last_cap; got {self.first_cap} and {self.last_cap}.")

    def constrained(self, progress: float) -> bool:
        """Whether a training that is `progress` (0..1) done is in phase two."""
        return progress >= self.text_only

    def cap(self, progress: float) -> int:
        """The most sparse frames at a point of the training, growing linearly over phase two."""
        phase = min(max((progress - self.text_only) / max(1 - self.text_only, 1e-9), 0.0), 1.0)
        return round(self.first_cap + (self.last_cap - self.first_cap) * phase)


def draw_masks(
    lengths: Tensor, frames: int, layout: FeatureLayout, curriculum: Curriculum, cap: int, generator: torch.Generator
) -> Tensor:
    """Which features of a batch are given: (B, T, D) bool.

    Args:
        lengths: (B,) frames of every clip; nothing beyond is given.
        frames: T.
        layout: of the features, with its skeleton.
        curriculum: what is drawn how often.
        cap: most sparse frames, >= 1.
        generator: on the CPU.

    Raises:
        ValueError: for a cap below 1.
    """
    if cap < 1:
        raise ValueError(f"the cap of sparse frames must be at least 1; got {cap}.")
    lengths = lengths.cpu()
    batch = len(lengths)
    rand = lambda *shape: torch.rand(*shape, generator=generator)
    # Two different patterns are drawn for every clip; how many of them count is another draw.
    odds = torch.tensor(curriculum.shares, dtype=torch.float32).expand(batch, -1)
    several = 2 if curriculum.mixed else 1
    order = torch.multinomial(odds, several, generator=generator)
    luck = rand(batch)
    counts = (luck >= curriculum.nothing).long() + (luck >= 1 - curriculum.mixed)
    active = torch.zeros(batch, len(PATTERNS)).scatter_(1, order, (torch.arange(several) < counts[:, None]).float())
    when = _frames(lengths, frames, cap, rand)
    what = _channels(batch, layout, curriculum, rand)
    # Who is active, when and what meet in one product; a clip of several patterns gets the union.
    given = torch.bmm((when & frame_mask(lengths, frames)[:, None]).float().transpose(1, 2), what * active[..., None])
    return given > 0


def _frames(lengths: Tensor, frames: int, cap: int, rand) -> Tensor:
    """(B, P, T) bool: frames at which every pattern would give something."""
    batch, at = len(lengths), torch.arange(frames)
    real = frame_mask(lengths, frames)

    def sparse() -> Tensor:
        odds = 1 / torch.arange(1, cap + 1)
        count = 1 + torch.searchsorted(odds.cumsum(0) / odds.sum(), rand(batch, 1)).clamp(max=cap - 1)
        # The frames with the `count` best lots, of those the clip has.
        lots = torch.where(real, rand(batch, frames), -1.0)
        return (lots.argsort(1, descending=True).argsort(1) < count) & real

    def span() -> Tensor:
        length = (lengths[:, None] * (0.2 + 0.8 * rand(batch, 1))).round().clamp_min(1)
        first = ((lengths[:, None] - length + 1) * rand(batch, 1)).floor()
        return (at >= first) & (at < first + length)

    first = at < 1 + (5 * rand(batch, 1)).floor()
    last = at >= lengths[:, None] - 1 - (5 * rand(batch, 1)).floor()
    contacts = torch.where(rand(batch, 1) < 0.5, sparse(), span())
    start = at < 1 + (10 * rand(batch, 1)).floor()
    return torch.stack([sparse(), sparse(), sparse(), span(), contacts, first | last, start], 1)


def _channels(batch: int, layout: FeatureLayout, curriculum: Curriculum, rand) -> Tensor:
    """(B, P, D) float, 1 where a pattern gives a channel."""
    blocks = layout.blocks
    what = torch.zeros(batch, len(PATTERNS), layout.size)
    pose, limbs, waypoints, path, contacts, between, start = what.unbind(1)
    for whole in (pose, between):
        whole[:, blocks["root"]] = whole[:, blocks["heading"]] = whole[:, blocks["positions"]] = 1
    start[:] = 1
    parts = limb_channels(layout)
    some = _subset(batch, len(parts), rand)
    limbs += (some @ parts.float()).clamp(max=1)
    rooted = (rand(batch, 1) >= curriculum.rootless).float()
    limbs[:, layout.root] = rooted
    for line in (waypoints, path):
        line[:, 0] = line[:, 2] = 1
        line[:, blocks["heading"]] = (rand(batch, 1) < curriculum.heading).float()
    feet = _subset(batch, 2, rand)
    contacts[:, blocks["contacts"]] = rearrange(feet[..., None].expand(-1, -1, 2), "b foot part -> b (foot part)")
    return what


def limb_channels(layout: FeatureLayout) -> Tensor:
    """(4, D) bool: positions of left hand, right hand, left foot, right foot, and rotations of their first joint.

    Raises:
        ValueError: for a skeleton without hands and feet.
    """
    skeleton = layout.known_skeleton()
    limbs = (*skeleton.hands, *skeleton.feet)
    if not limbs:
        raise ValueError(f"skeleton {skeleton.name!r} does not say which joints are its hands and feet.")
    channels = torch.zeros(len(limbs), layout.size, dtype=torch.bool)
    for row, joints in enumerate(limbs):
        for joint in joints:
            channels[row, layout.joint("positions", joint)] = True
        channels[row, layout.joint("rotations", joints[0])] = True
    return channels


def _subset(batch: int, members: int, rand) -> Tensor:
    """(B, members) of 0 and 1: all subsets but the empty one, with equal odds."""
    code = 1 + (rand(batch, 1) * (2**members - 1)).floor().long()
    return ((code >> torch.arange(members)) & 1).float()
