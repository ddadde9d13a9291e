"""Motion of the Unitree G1 robot as the CSV files its tools exchange: a row a frame, no header, 36 numbers.

Each row: x y z, quaternion w x y z of the pelvis, then 29 hinge angles in radians in the order of the robot's description;
z up, facing +x. Ours is y up, facing +z: the axes change places in turn. Each hinge turns about one of them (pitch about the
left, roll about the front, yaw about the vertical); toes and hands do not turn.

Angles are measured from the skeleton's rest pose. The robot's own zero pose has its arms down; whoever drives a robot passes
`zero`, the angles of its zero pose measured from ours.

Shapes: rows (T, 36), angles (T, 29).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import from_axis_angle, from_quaternion, geodesic, quaternion
from kinelib.bodies.skeletons import G1_34
from kinelib.learning.files import write_text_whole

TO_ROBOT = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
HINGES = (
    *(f"left_{joint}" for joint in LEG),
    *(f"right_{joint}" for joint in LEG),
    *("waist_yaw", "waist_roll", "waist_pitch"),
    *(f"left_{joint}" for joint in ARM),
    *(f"right_{joint}" for joint in ARM),
)
COLUMNS = 7 + len(HINGES)


class G1Error(ValueError):
    """A file is no G1 motion, or a motion is not one that the robot's hinges can make."""


def hinge_angles(motion: Motion) -> tuple[Tensor, Tensor]:
    """The hinge angles nearest to a motion, and how far the joints' rotations are from what hinges can do.

    Returns:
        angles (T, 29) radians in -pi..pi, and (T, 29) radians of rotation that no angle of the hinge expresses.

    Raises:
        G1Error: for a skeleton with other joints.
    """
    if motion.skeleton.joints != G1_34.joints:
        raise G1Error(f"G1 files hold motion of the robot's joints; this one is of {motion.skeleton.name!r}.")
    turns = motion.rotations[:, G1_34.indices(HINGES)]
    q = quaternion(turns)
    along = (q[..., 1:] * _axes().to(q)).sum(-1)  # the twist about the hinge's axis
    angles = 2 * torch.atan2(along, q[..., 0])
    angles = torch.remainder(angles + torch.pi, 2 * torch.pi) - torch.pi
    return angles, geodesic(turns, from_axis_angle(angles[..., None] * _axes().to(q)))


def write_g1(motion: Motion, path: str | Path, zero: Tensor | None = None, tolerance: float = 0.1) -> None:
    """Writes a motion of the robot's joints as CSV.

    Args:
        motion: on the joints of `G1_34`.
        path: of the file.
        zero: (29,) radians, the robot's zero pose measured from the skeleton's rest; None: they are the same.
        tolerance: radians by which a joint may turn about other axes than its hinge's before the motion is refused;
            a generated motion wants more than one that was read.

    Raises:
        G1Error: for other joints, or a joint further off than the tolerance; frame and joint are named.
    """
    angles, off = hinge_angles(motion)
    if float(off.max()) > tolerance:
        frame, hinge = divmod(int(off.argmax()), len(HINGES))
        raise G1Error(
            f"frame {frame}: {HINGES[hinge]} turns {float(off.max()):.3g} rad about other axes than its hinge's; pass a "
            f"tolerance of {float(off.max()) * 1.01:.3g} to drop that."
        )
    change = TO_ROBOT.to(motion.root)
    pose = quaternion(change @ motion.rotations[:, 0] @ change.T)
    ahead = torch.cat([torch.ones(1), torch.where((pose[1:] * pose[:-1]).sum(-1) < 0, -1.0, 1.0)]).cumprod(0)
    rows = torch.cat([motion.root @ change.T, pose * ahead[:, None], angles - (0 if zero is None else zero)], dim=1)
    write_text_whole(path, "".join(",".join(f"{number:.8f}" for number in row) + "\n" for row in rows.tolist()))


def read_g1(path: str | Path, fps: float = 30.0, zero: Tensor | None = None) -> Motion:
    """Reads a CSV file of the robot.

    Args:
        path: of the file.
        fps: frames a second, which the file does not say; Kimodo writes 30.
        zero: as in `write_g1`.

    Raises:
        G1Error: for rows of another width or words that are no numbers; the line is named.
    """
    rows = []
    for line, text in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            rows.append([float(word) for word in text.split(",")])
        except ValueError as error:
            raise G1Error(f"{path}, line {line}: {error}.") from None
        if len(rows[-1]) != COLUMNS or not np.isfinite(rows[-1]).all():
            raise G1Error(
                f"{path}, line {line}: has {len(rows[-1])} finite or other numbers; a row is {COLUMNS} finite ones."
            )
        if sum(number**2 for number in rows[-1][3:7]) < 1e-6:
            raise G1Error(f"{path}, line {line}: numbers 4 to 7, the pelvis's quaternion, are zero.")
    if not rows:
        raise G1Error(f"{path}: holds no frames.")
    table = torch.tensor(rows, dtype=torch.float64)
    change = TO_ROBOT.double()
    turns = torch.eye(3, dtype=torch.float64).expand(len(table), len(G1_34), 3, 3).clone()
    turns[:, 0] = change.T @ from_quaternion(table[:, 3:7]) @ change
    angles = table[:, 7:] + (0 if zero is None else zero)
    turns[:, G1_34.indices(HINGES)] = from_axis_angle(angles[..., None] * _axes().double())
    root = table[:, :3] @ change
    return Motion(turns.float(), root.float(), fps, G1_34, provenance={"source": str(path)})


def _axes() -> Tensor:
    """The axis (29, 3) of every hinge in our frame: x to the left for pitch, z to the front for roll, y up for yaw."""
    axis = {"roll": (0.0, 0.0, 1.0), "yaw": (0.0, 1.0, 0.0)}
    return torch.tensor([axis.get(name.rsplit("_", 1)[-1], (1.0, 0.0, 0.0)) for name in HINGES])
