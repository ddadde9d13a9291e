"""`Skeleton`: joints, who hangs on whom, and which of them are feet, hands and left-right partners. Data, not classes.

Everything that differs between bodies stands in its fields, so that no code ever asks which skeleton it has.

Shapes: offsets (J, 3) in metres. Right-handed axes, y up, the body looks along +z, its left is +x.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinelib.notation import ShapeError, check_finite, check_shape

GROUPS = ("torso", "neck", "left_arm", "right_arm", "left_leg", "right_leg")  # KinMo's six, in its order


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A body at rest.

    Args:
        name: what files call it.
        joints: J different names; the root comes first, parents before children.
        parents: index of every joint's parent, -1 for the root alone.
        offsets: (J, 3) metres from parent to joint at rest; the root's is its place above the floor y = 0.
        hips: names of the (right, left) hip joint, between which the heading is measured; None: a body without them.
        feet: names, (left ankle, left toe) and (right ankle, right toe); empty for a body without.
        hands: names, the left wrist and whatever hangs on it, and the right; empty for a body without.
        groups: KinMo's six groups of joint names; every joint in one of them, or empty.

    Raises:
        ValueError: for names that repeat, parents after children, more than one root, or a name that is no joint.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Tensor
    hips: tuple[str, str] | None = None
    feet: tuple[tuple[str, ...], ...] = ()
    hands: tuple[tuple[str, ...], ...] = ()
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.joints:
            raise ValueError(f"skeleton {self.name!r} has no joints.")
        if twice := sorted({name for name in self.joints if self.joints.count(name) > 1}):
            raise ValueError(f"skeleton {self.name!r} names {', '.join(twice)} more than once.")
        check_shape(f"offsets of skeleton {self.name!r}", self.offsets, "J 3", J=len(self.joints))
        check_finite(f"offsets of skeleton {self.name!r}", self.offsets)
        if len(self.parents) != len(self.joints):
            raise ValueError(f"skeleton {self.name!r} has {len(self.joints)} joints but {len(self.parents)} parents.")
        for joint, parent in enumerate(self.parents):
            if not (parent == -1 if joint == 0 else 0 <= parent < joint):
                raise ValueError(
                    f"skeleton {self.name!r}: joint {self.joints[joint]} has parent {parent}; the first joint is the only "
                    "root (parent -1) and every parent stands before its children."
                )
        named = [*(self.hips or ()), *sum(self.feet, ()), *sum(self.hands, ()), *sum(self.groups.values(), ())]
        if unknown := sorted(set(named) - set(self.joints)):
            raise ValueError(f"skeleton {self.name!r} has no joint {', '.join(unknown)}; it has {', '.join(self.joints)}.")

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """The number of a joint.

        Raises:
            ValueError: for a name that is no joint; the message lists those there are.
        """
        if joint not in self.joints:
            raise ValueError(f"skeleton {self.name!r} has no joint {joint!r}; it has {', '.join(self.joints)}.")
        return self.joints.index(joint)

    def indices(self, joints: tuple[str, ...]) -> list[int]:
        """The numbers of several joints."""
        return [self.index(joint) for joint in joints]

    @property
    def contact_joints(self) -> list[int]:
        """Numbers of the joints whose contacts features hold: left ankle, left toe, right ankle, right toe.

        Raises:
            ValueError: when the skeleton does not say which joints are its feet.
        """
        if len(self.feet) != 2:
            raise ValueError(f"skeleton {self.name!r} does not say which joints are its feet; give it `feet`.")
        return self.indices((*self.feet[0][:2], *self.feet[1][:2]))

    @property
    def mirror(self) -> list[int]:
        """For every joint the number of its left-right partner, itself where there is none."""
        return [self._partner(joint) for joint in self.joints]

    def _partner(self, joint: str) -> int:
        for here, there in (("left", "right"), ("Left", "Right"), ("_L", "_R"), ("L_", "R_"), ("_l_", "_r_")):
            for a, b in ((here, there), (there, here)):
                if a in joint and joint.replace(a, b, 1) in self.joints:
                    return self.joints.index(joint.replace(a, b, 1))
        return self.joints.index(joint)

    def rest(self) -> Tensor:
        """Positions (J, 3) of the joints at rest, metres above the floor."""
        positions = [self.offsets[0]]
        for joint, parent in enumerate(self.parents[1:], start=1):
            positions.append(positions[parent] + self.offsets[joint])
        return torch.stack(positions)

    def bones(self) -> list[tuple[int, int]]:
        """(parent, joint) of every bone."""
        return [(parent, joint) for joint, parent in enumerate(self.parents) if parent >= 0]

    def check_groups(self) -> dict[str, list[int]]:
        """Joint numbers of the six groups.

        Raises:
            ShapeError: when the groups are not a partition of the joints.
        """
        groups = {name: self.indices(self.groups.get(name, ())) for name in GROUPS}
        if sorted(sum(groups.values(), [])) != list(range(len(self))):
            raise ShapeError(
                f"the groups of skeleton {self.name!r} must hold every joint exactly once; see `bodies.skeletons`."
            )
        return groups
