"""Kimodo's motion features: a clip as D = 12 J + 9 numbers a frame, and back (Section 3.1 of the paper; order of the code).

    block        channels   what
    root         3          x, z of the smoothed root (`smoothing`) and y, the height of the pelvis itself
    heading      2          cos and sin of the heading
    positions    3 J        joints: x, z against the smoothed root, y above the floor; not turned into the heading
    rotations    6 J        the first two columns of every joint's global rotation
    velocities   3 J        m/s, forward difference of global positions
    contacts     4          1 where left ankle, left toe, right ankle, right toe stand on the floor

The first two blocks are the *root* (5 channels), the rest is the *body*. The released code, unlike the paper's text, stores
rotations before velocities; so do we.

The heading is 0 when facing +z, grows towards +x, and is measured between the hip joints. Since every quantity is global,
turning a clip about the vertical, moving it on the floor and looking at it in a mirror are linear maps of its features:
`turned`, `moved`, `mirrored`, `placed`.

Departures: where a forward difference has nothing to look at, which is in clips of one frame, it is 0 by definition; what
stands beyond the end of a clip in a batch repeats its last frame instead of being undefined.

Shapes: rotations (B, T, J, 3, 3) local, root and joints in metres, features (B, T, D), lengths (B,), angles in radians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kinelib.bodies import kinematics
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import from_6d, rotation_6d
from kinelib.bodies.skeleton import Skeleton
from kinelib.bodies.smoothing import smooth_root
from kinelib.notation import ShapeError, check_shape

CONTACT_SPEED = 0.15  # m/s; a foot's joint that is slower ...
CONTACT_HEIGHT = 0.10  # metres; ... and lower than this touches the floor
ROOT = slice(0, 5)  # root position and heading
LOCAL_ROOT = 4  # channels of :func:`local_root`


@dataclass(frozen=True)
class FeatureLayout:
    """Which channel holds what.

    Args:
        skeleton: whose joints these are, or only their number where nothing is to be decoded.
    """

    skeleton: Skeleton | int

    @property
    def joints(self) -> int:
        """J."""
        return self.skeleton if isinstance(self.skeleton, int) else len(self.skeleton)

    @property
    def size(self) -> int:
        """D."""
        return 12 * self.joints + 9

    @property
    def blocks(self) -> dict[str, slice]:
        """The channels of every block, in order."""
        ends, start = {}, 0
        for name, width in zip(BLOCKS, (3, 2, 3 * self.joints, 6 * self.joints, 3 * self.joints, 4), strict=True):
            ends[name] = slice(start, start + width)
            start += width
        return ends

    @property
    def root(self) -> slice:
        """Root position and heading, 5 channels: what the first stage of the denoiser predicts."""
        return ROOT

    @property
    def body(self) -> slice:
        """Everything else, D - 5 channels."""
        return slice(5, self.size)

    @property
    def turning(self) -> tuple[list[int], list[int]]:
        """Channels (of x, of z) that turn like vectors on the floor; the heading's pair is (sin, cos)."""
        vectors = range(5, self.blocks["contacts"].start, 3)
        return [0, 4, *vectors], [2, 3, *(first + 2 for first in vectors)]

    def joint(self, block: str, joint: int | str) -> slice:
        """The channels of one joint in the block of positions, rotations or velocities.

        Raises:
            ValueError: for a block without joints, or a joint that is not there.
        """
        widths = {"positions": 3, "rotations": 6, "velocities": 3}
        if block not in widths:
            raise ValueError(f"only {', '.join(widths)} have channels for single joints; got {block!r}.")
        number = self.known_skeleton().index(joint) if isinstance(joint, str) else joint
        if not 0 <= number < self.joints:
            raise ValueError(f"joint {joint} is not one of {self.joints}.")
        start = self.blocks[block].start + widths[block] * number
        return slice(start, start + widths[block])

    def known_skeleton(self) -> Skeleton:
        """The skeleton.

        Raises:
            ValueError: when the layout only knows how many joints there are.
        """
        if isinstance(self.skeleton, int):
            raise ValueError("this layout only knows its number of joints; make it with FeatureLayout(skeleton).")
        return self.skeleton


BLOCKS = ("root", "heading", "positions", "rotations", "velocities", "contacts")


def encode(motion: Motion) -> Tensor:
    """The features (T, D) of one clip."""
    return encode_batch(motion.rotations[None], motion.root[None], None, motion.fps, motion.skeleton)[0]


def encode_batch(
    rotations: Tensor,
    root: Tensor,
    lengths: Tensor | None,
    fps: float,
    skeleton: Skeleton,
    *,
    smoothed: Tensor | None = None,
) -> Tensor:
    """The features of a padded batch; differentiable but for the smoothed root.

    Args:
        rotations: (B, T, J, 3, 3) local.
        root: (B, T, 3) pelvis, metres, the floor at y = 0.
        lengths: (B,) frames of every clip, 1..T; None means T.
        fps: frames a second.
        skeleton: with hips and feet.
        smoothed: (B, T, 2) the root's smoothed x, z where it is known already; None smooths it here.

    Returns:
        (B, T, D); frames beyond a clip's end repeat its last one.

    Raises:
        ShapeError: for shapes that do not fit or lengths out of range. ValueError: for a skeleton without hips or feet.
    """
    sizes = check_shape("rotations", rotations, "B T J 3 3", J=len(skeleton))
    check_shape("root", root, "B T 3", B=sizes["B"], T=sizes["T"])
    lengths = checked_lengths(lengths, root)
    if smoothed is None:
        smoothed = smooth_root(root[..., [0, 2]], lengths)
    check_shape("smoothed", smoothed, "B T 2", B=sizes["B"], T=sizes["T"])
    positions, turns = kinematics.forward(rotations, root, skeleton)
    angle = heading(positions, skeleton)
    velocities = rates(positions, lengths, fps)
    x, z = smoothed.unbind(-1)
    origin = torch.stack([x, torch.zeros_like(x), z], -1)
    blocks = [
        torch.stack([x, root[..., 1], z], -1),
        torch.stack([angle.cos(), angle.sin()], -1),
        rearrange(positions - origin[:, :, None], "b t j xyz -> b t (j xyz)"),
        rearrange(rotation_6d(turns), "b t j six -> b t (j six)"),
        rearrange(velocities, "b t j xyz -> b t (j xyz)"),
        _contacts(positions, velocities, skeleton),
    ]
    return hold_last(torch.cat(blocks, -1), lengths)


def encode_motions(motions: Sequence[Motion], *, chunk: int = 256) -> tuple[Tensor, Tensor]:
    """The features of clips of any lengths.

    Args:
        motions: of one skeleton and frame rate.
        chunk: clips encoded at a time, so that memory stays flat.

    Returns:
        features (B, T, D), T the longest clip, each padded with its last frame, and lengths (B,).

    Raises:
        ValueError: without motions, or naming the first one of another skeleton or frame rate.
    """
    if not motions:
        raise ValueError("there are no motions to encode.")
    first = motions[0]
    for number, motion in enumerate(motions):
        if motion.skeleton.joints != first.skeleton.joints or motion.fps != first.fps:
            raise ValueError(
                f"motion {number} is {motion.skeleton.name} at {motion.fps:g} fps, the first one {first.skeleton.name} at "
                f"{first.fps:g}; bring them together with bodies.retarget and Motion.resampled."
            )
    lengths = torch.tensor([len(motion) for motion in motions])
    done = []
    for rows in torch.arange(len(motions)).split(chunk):
        some = [motions[row] for row in rows.tolist()]
        padded = [pad_sequence([getattr(one, part) for one in some], batch_first=True) for part in ("rotations", "root")]
        done.append(encode_batch(*padded, lengths[rows], first.fps, first.skeleton))
    longest = int(lengths.max())
    wide = [torch.cat([some, some[:, -1:].expand(-1, longest - some.shape[1], -1)], 1) for some in done]
    return torch.cat(wide), lengths


def heading(positions: Tensor, skeleton: Skeleton) -> Tensor:
    """Where bodies face: angles (...) of joint positions (..., J, 3), 0 along +z, growing towards +x, from the hips.

    Raises:
        ValueError: when the skeleton does not say which joints are its hips.
    """
    if skeleton.hips is None:
        raise ValueError(f"skeleton {skeleton.name!r} does not say which joints are its hips; give it `hips`.")
    right, left = skeleton.indices(skeleton.hips)
    across = positions[..., right, :] - positions[..., left, :]
    return torch.atan2(across[..., 2], -across[..., 0])


def contacts(positions: Tensor, fps: float, skeleton: Skeleton, lengths: Tensor | None = None) -> Tensor:
    """Which feet stand on the floor: 0 or 1 (B, T, 4) of joint positions (B, T, J, 3), by speed and height."""
    lengths = checked_lengths(lengths, positions[:, :, 0])
    return _contacts(positions, rates(positions, lengths, fps), skeleton)


def _contacts(positions: Tensor, velocities: Tensor, skeleton: Skeleton) -> Tensor:
    feet = skeleton.contact_joints
    slow = velocities[:, :, feet].norm(dim=-1) < CONTACT_SPEED
    return (slow & (positions[:, :, feet, 1] < CONTACT_HEIGHT)).to(positions.dtype)


def local_root(root: Tensor, fps: float, lengths: Tensor | None = None) -> Tensor:
    """What the body stage sees of the root: how it moves instead of where it is.

    Args:
        root: (B, T, 5) unnormalised root block; its heading pair may have any length.
        fps: frames a second.
        lengths: (B,) frames of every clip; None means T.

    Returns:
        (B, T, 4): heading rate (rad/s), velocity along x and z (m/s, axes of the world), height (m).
    """
    check_shape("root", root, "B T 5")
    lengths = checked_lengths(lengths, root)
    angle = torch.atan2(root[..., 4], root[..., 3])
    change = differences(angle, lengths)
    rate = torch.atan2(change.sin(), change.cos()) * fps
    velocity = rates(root[..., [0, 2]], lengths, fps)
    return torch.cat([rate[..., None], velocity, root[..., 1:2]], -1)


LOCAL_TURNING = ([1], [2])  # as FeatureLayout.turning, for local roots


def differences(values: Tensor, lengths: Tensor) -> Tensor:
    """Forward differences (B, T, ...); a clip's last frame, and what is beyond, repeats the one before; 0 for one frame."""
    if values.shape[1] == 1:
        return torch.zeros_like(values)
    steps = values[:, 1:] - values[:, :-1]
    steps = _at(steps, torch.minimum(torch.arange(values.shape[1]), lengths.cpu()[:, None] - 2).clamp_min(0))
    moving = (lengths > 1).to(values.device)
    return torch.where(moving.reshape(-1, *[1] * (values.ndim - 1)), steps, torch.zeros_like(steps))


def rates(values: Tensor, lengths: Tensor, fps: float) -> Tensor:
    """:func:`differences` a second instead of a frame."""
    return differences(values, lengths) * fps


def hold_last(values: Tensor, lengths: Tensor) -> Tensor:
    """Values (B, T, ...) with everything beyond a clip's end replaced by its last frame."""
    return _at(values, torch.minimum(torch.arange(values.shape[1]), lengths.cpu()[:, None] - 1))


def _at(values: Tensor, frames: Tensor) -> Tensor:
    """values[b, frames[b, t]] as (B, T, ...)."""
    return values[torch.arange(len(values))[:, None], frames]


def checked_lengths(lengths: Tensor | None, batch: Tensor) -> Tensor:
    """Lengths (B,) on the CPU for a batch (B, T, ...), all T where there are none.

    Raises:
        ShapeError: for lengths outside 1..T.
    """
    if lengths is None:
        return torch.full((batch.shape[0],), batch.shape[1])
    lengths = lengths.detach().cpu().long()
    check_shape("lengths", lengths, "B", B=batch.shape[0])
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= batch.shape[1]:
        raise ShapeError(f"lengths must be 1..{batch.shape[1]}, the frames of the batch; got {lengths.tolist()}.")
    return lengths


class Decoded(NamedTuple):
    """What features say, each as (..., T, ...)."""

    positions: Tensor  # (..., T, J, 3) metres, by forward kinematics from the rotations
    root: Tensor  # (..., T, 3) pelvis, metres
    local_rotations: Tensor  # (..., T, J, 3, 3)
    global_rotations: Tensor  # (..., T, J, 3, 3)
    contacts: Tensor  # (..., T, 4) bool
    smoothed: Tensor  # (..., T, 2) x, z of the smoothed root
    heading: Tensor  # (..., T) as predicted


def decode(features: Tensor, layout: FeatureLayout) -> Decoded:
    """Bodies from unnormalised features (..., T, D); differentiable but for the contacts.

    The pelvis is where the block of positions has it, the joints follow by forward kinematics; velocities are not used.

    Raises:
        ShapeError: for another number of channels.
    """
    skeleton = layout.known_skeleton()
    if features.shape[-1] != layout.size:
        raise ShapeError(f"features of {skeleton.name} have {layout.size} channels; got {tuple(features.shape)}.")
    block = {name: features[..., channels] for name, channels in layout.blocks.items()}
    smoothed = block["root"][..., [0, 2]]
    sway = block["positions"][..., :3]
    root = torch.stack([smoothed[..., 0] + sway[..., 0], sway[..., 1], smoothed[..., 1] + sway[..., 2]], -1)
    turns = from_6d(rearrange(block["rotations"], "... (j six) -> ... j six", six=6))
    return Decoded(
        positions=kinematics.positions_from_global(turns, root, skeleton),
        root=root,
        local_rotations=kinematics.local_from_global(turns, skeleton.parents),
        global_rotations=turns,
        contacts=block["contacts"] > 0.5,
        smoothed=smoothed,
        heading=torch.atan2(block["heading"][..., 1], block["heading"][..., 0]),
    )


def decode_motion(features: Tensor, layout: FeatureLayout, fps: float, provenance: dict | None = None) -> Motion:
    """The clip that unnormalised features (T, D) describe."""
    check_shape("features", features, "T D", D=layout.size)
    found = decode(features.detach(), layout)
    facts = dict(provenance or {})
    return Motion(found.local_rotations, found.root, fps, layout.known_skeleton(), found.contacts.to(features.dtype), facts)


def turned(features: Tensor, angle: Tensor | float, layout: FeatureLayout) -> Tensor:
    """Unnormalised features (B, T, D) of the clips turned about the vertical through the origin by (B,) or one angle."""
    angle = torch.as_tensor(angle, dtype=features.dtype, device=features.device).reshape(-1, 1, 1)
    xs, zs = layout.turning
    x, z = features[..., xs], features[..., zs]
    result = features.clone()
    result[..., xs] = x * angle.cos() + z * angle.sin()
    result[..., zs] = z * angle.cos() - x * angle.sin()
    return result


def moved(features: Tensor, xz: Tensor) -> Tensor:
    """Unnormalised features (B, T, D) of the clips moved along the floor by (B, 2) or (2,) metres."""
    result = features.clone()
    result[..., [0, 2]] = features[..., [0, 2]] + (xz if xz.ndim == 1 else rearrange(xz, "b xz -> b 1 xz"))
    return result


def mirrored(features: Tensor, layout: FeatureLayout) -> Tensor:
    """Unnormalised features (..., D) of the clips seen in the mirror x = 0: left is right."""
    channels, signs = mirror_map(layout)
    return features[..., channels] * signs.to(features)


def mirror_map(layout: FeatureLayout) -> tuple[Tensor, Tensor]:
    """Channels (D,) to take and signs (D,) to give them for the motion in the mirror."""
    channels, signs = torch.arange(layout.size), torch.ones(layout.size)
    # A rotation R becomes F R F with F = diag(-1, 1, 1): of its first column y and z change their sign, of its second x.
    senses = {"positions": [-1, 1, 1], "rotations": [1, -1, -1, -1, 1, 1], "velocities": [-1, 1, 1]}
    for joint, partner in enumerate(layout.known_skeleton().mirror):
        for block, sense in senses.items():
            theirs = layout.joint(block, partner)
            channels[layout.joint(block, joint)] = torch.arange(theirs.start, theirs.stop)
            signs[layout.joint(block, joint)] = torch.tensor(sense, dtype=signs.dtype)
    signs[[0, 4]] = -1  # the root's x and the heading's sine
    feet = layout.blocks["contacts"].start
    channels[feet:] = feet + torch.tensor([2, 3, 0, 1])
    return channels, signs


def placed(
    features: Tensor, layout: FeatureLayout, *, heading: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Clips as Kimodo trains on them: the first smoothed root above the origin, the first heading any.

    Args:
        features: (B, T, D) unnormalised.
        layout: of the features.
        heading: (B,) first headings wanted; None draws them evenly from the circle.
        generator: of the draw.

    Returns:
        features (B, T, D) and first headings (B,).

    Raises:
        ValueError: when headings are to be drawn and there is no generator.
    """
    check_shape("features", features, "B T D", D=layout.size)
    if heading is None:
        if generator is None:
            raise ValueError("pass `heading`, or a `generator` to draw headings from.")
        heading = (torch.rand(len(features), generator=generator, device=generator.device) * 2 - 1) * torch.pi
    heading = heading.to(features)
    now = torch.atan2(features[:, 0, 4], features[:, 0, 3])
    return turned(moved(features, -features[:, 0, [0, 2]]), heading - now, layout), heading


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """(B, T) bool, True at the frames of the clips."""
    return repeat(torch.arange(frames, device=lengths.device), "t -> b t", b=len(lengths)) < lengths[:, None]
