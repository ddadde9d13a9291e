"""`Motion`: one clip of one body, as turns of its joints and the path of its root.

Shapes: rotations (T, J, 3, 3) local, root (T, 3) metres, contacts (T, 4) in [0, 1] where they are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kinelib.bodies import kinematics
from kinelib.bodies.rotations import about_y, slerp
from kinelib.bodies.skeleton import Skeleton
from kinelib.notation import ShapeError, check_finite, check_shape

# A reflection in the plane x = 0 turns a rotation R into F R F: the two axes in the plane change their sense.
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Motion:
    """T frames of a body.

    Args:
        rotations: (T, J, 3, 3) float, every joint against its parent; the root's is against the world.
        root: (T, 3) metres, where the root is; y up, the floor at y = 0.
        fps: frames a second, above 0.
        skeleton: whose J joints these are.
        contacts: (T, 4) in [0, 1]: left ankle, left toe, right ankle, right toe on the floor; None: not known.
        provenance: facts that travel with the clip (prompt, seed, source, licence).

    Raises:
        ShapeError: for wrong shapes, values that are not finite, no frames, or matrices that are no rotations.
        ValueError: for a frame rate that is not above zero.
    """

    rotations: Tensor
    root: Tensor
    fps: float
    skeleton: Skeleton
    contacts: Tensor | None = None
    provenance: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = check_shape("rotations", self.rotations, "T J 3 3", J=len(self.skeleton))
        if not sizes["T"]:
            raise ShapeError("a motion needs at least one frame; got rotations of none.")
        check_shape("root", self.root, "T 3", T=sizes["T"])
        if self.contacts is not None:
            check_shape("contacts", self.contacts, "T 4", T=sizes["T"])
            check_finite("contacts", self.contacts)
        for name, tensor in (("rotations", self.rotations), ("root", self.root)):
            bad = torch.isfinite(tensor).flatten(1).all(1).logical_not().nonzero()
            if len(bad):
                raise ShapeError(
                    f"{name} of frame {int(bad[0])} (and {len(bad) - 1} more) hold NaN or infinity; repair them first."
                )
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"a motion's frame rate must be above 0 frames a second; got {self.fps}.")
        off = (
            (self.rotations @ self.rotations.transpose(-1, -2) - torch.eye(3, device=self.rotations.device))
            .abs()
            .amax((-1, -2))
        )
        x, y, z = self.rotations.unbind(-1)
        off = torch.maximum(off, ((torch.linalg.cross(x, y) * z).sum(-1) - 1).abs())  # the determinant: no reflections
        if float(off.max()) > 1e-2:
            frame, joint = divmod(int(off.argmax()), sizes["J"])
            raise ShapeError(
                f"rotations of frame {frame}, joint {self.skeleton.joints[joint]} are no rotation matrix (off by "
                f"{float(off.max()):.2g}); make them with kinelib.bodies.rotations.from_6d, which repairs any numbers."
            )

    def __len__(self) -> int:
        return len(self.root)

    def __repr__(self) -> str:
        return f"Motion({len(self)} frames at {self.fps:g} fps, {self.skeleton.name}, {self.provenance})"

    @property
    def seconds(self) -> float:
        """How long the clip lasts, the last frame's own time included."""
        return len(self) / self.fps

    def positions(self) -> Tensor:
        """Where every joint is: (T, J, 3) metres."""
        return kinematics.forward(self.rotations, self.root, self.skeleton)[0]

    def global_rotations(self) -> Tensor:
        """Rotations (T, J, 3, 3) of the joints against the world."""
        return kinematics.global_from_local(self.rotations, self.skeleton.parents)

    def slice(self, start: int, stop: int) -> Motion:
        """Frames `start` to `stop` - 1.

        Raises:
            ValueError: when there are no such frames.
        """
        if not 0 <= start < stop <= len(self):
            raise ValueError(f"frames {start} to {stop} are not in a motion of {len(self)} frames.")
        contacts = None if self.contacts is None else self.contacts[start:stop]
        return replace(self, rotations=self.rotations[start:stop], root=self.root[start:stop], contacts=contacts)

    def resampled(self, fps: float) -> Motion:
        """The same motion at another frame rate: turns along the shortest way, everything else linearly.

        The first frame stays; the last one is the last that falls inside the clip.

        Raises:
            ValueError: for a frame rate that is not above zero.
        """
        if not 0 < fps < float("inf"):
            raise ValueError(f"a frame rate must be above 0 frames a second; got {fps}.")
        if fps == self.fps:
            return self
        count = int((len(self) - 1) / self.fps * fps + 1e-6) + 1
        at = torch.arange(count, dtype=torch.float64) * (self.fps / fps)
        before = at.floor().long().clamp(max=len(self) - 1)
        after = (before + 1).clamp(max=len(self) - 1)
        share = (at - before).to(self.root)
        rotations = slerp(self.rotations[before], self.rotations[after], share[:, None].expand(-1, len(self.skeleton)))
        mix = lambda values: values[before] + share[:, None] * (values[after] - values[before])
        contacts = None if self.contacts is None else mix(self.contacts)
        return replace(self, rotations=rotations, root=mix(self.root), fps=fps, contacts=contacts)

    def mirrored(self) -> Motion:
        """Left and right exchanged, as seen in a mirror; prompts in the provenance are not rewritten."""
        flip = FLIP.to(self.root)
        rotations = self.rotations[:, self.skeleton.mirror] * flip[:, None] * flip
        contacts = None if self.contacts is None else self.contacts[:, [2, 3, 0, 1]]
        return replace(self, rotations=rotations, root=self.root * flip, contacts=contacts)

    def rotated(self, angle: float) -> Motion:
        """Turned about the vertical through the origin by `angle` radians, positive from +z towards +x."""
        turn = about_y(torch.as_tensor(float(angle))).to(self.root)
        rotations = torch.cat([turn @ self.rotations[:, :1], self.rotations[:, 1:]], dim=1)
        return replace(self, rotations=rotations, root=self.root @ turn.T)

    def translated(self, xz: tuple[float, float]) -> Motion:
        """Moved along the floor by (x, z) metres."""
        return replace(self, root=self.root + self.root.new_tensor([xz[0], 0.0, xz[1]]))

    def with_facts(self, **facts) -> Motion:
        """The same motion with more in its provenance."""
        return replace(self, provenance=self.provenance | facts)
