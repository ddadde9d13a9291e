"""Writes a motion as a BVH file that animation tools open: centimetres, one End Site a chain, translation on the root alone.

The rest pose goes into the offsets as it is (a T-pose for our skeletons), so that "all angles zero" is the rest pose.
Position channels hold the root's place itself and replace its offset, which is how most tools read them. Angles are Z, X, Y
turns, continuous in time, so that curve editors show no jumps.

Shapes: a `Motion` of T frames and J joints becomes T rows of 3 + 3 J numbers.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from einops import rearrange

from kinelib.bodies.motion import Motion
from kinelib.learning.files import write_text_whole

ORDER = "ZXY"  # of the turns: about the vertical last, so that headings never come near the order's singular poses
CENTIMETRE = 0.01


def write_bvh(motion: Motion, path: str | Path, unit: float = CENTIMETRE) -> None:
    """Writes a motion as BVH, complete or not at all.

    Args:
        motion: any.
        path: of the file.
        unit: metres a file unit; 0.01 writes centimetres, the custom of the format.

    Raises:
        ValueError: for a unit that is not above zero, or a joint name that the format cannot hold.
    """
    write_text_whole(path, bvh_text(motion, unit))


def bvh_text(motion: Motion, unit: float = CENTIMETRE) -> str:
    """The text of a BVH file; see `write_bvh`."""
    if not 0 < unit < float("inf"):
        raise ValueError(f"unit must be above 0 metres; got {unit}.")
    skeleton = motion.skeleton
    if bad := [name for name in skeleton.joints if set(name) & set("{}\n\r") or not name.strip()]:
        raise ValueError(f"skeleton {skeleton.name!r}: BVH cannot hold the joint name {bad[0]!r}; rename it.")
    children: dict[int, list[int]] = {}
    for joint, parent in enumerate(skeleton.parents):
        children.setdefault(parent, []).append(joint)
    rows, order = ["HIERARCHY"], []
    offsets = skeleton.offsets.clone()
    if float(motion.positions()[..., 1].amin(1).quantile(0.05)) < -0.2 * abs(float(offsets[0, 1])):
        # Far below the floor, readers (ours too) may take the root's place for something to add to its height at rest.
        offsets[0] = 0
    _joint(0, 0, children, (offsets / unit).tolist(), skeleton.joints, rows, order)
    numbers = np.concatenate(
        [motion.root.double().numpy() / unit, _angles(motion)[:, order].reshape(len(motion), -1)], axis=1
    )
    rows += ["MOTION", f"Frames: {len(motion)}", f"Frame Time: {1 / motion.fps:.9f}"]
    rows += [" ".join(f"{number:.6f}" for number in row) for row in numbers]
    return "\n".join(rows) + "\n"


def _joint(joint: int, depth: int, children: dict, offsets: list, names: tuple, rows: list[str], order: list[int]) -> None:
    """Adds a joint and what hangs on it to the rows; a file lists its numbers in the order it lists its joints."""
    order.append(joint)
    tab, turns = "\t" * depth, " ".join(f"{axis}rotation" for axis in ORDER)
    rows += [f"{tab}{'JOINT' if depth else 'ROOT'} {names[joint]}", f"{tab}{{", _offset(offsets[joint], depth + 1)]
    moves = "" if depth else "Xposition Yposition Zposition "
    rows.append(f"{tab}\tCHANNELS {3 if depth else 6} {moves}{turns}")
    for child in children.get(joint, ()):
        _joint(child, depth + 1, children, offsets, names, rows, order)
    if joint not in children:
        rows += [f"{tab}\tEnd Site", f"{tab}\t{{", _offset([0.0, 0.0, 0.0], depth + 2), f"{tab}\t}}"]
    rows.append(f"{tab}}}")


def _offset(offset: list[float], depth: int) -> str:
    return "\t" * depth + "OFFSET " + " ".join(f"{number:.6f}" for number in offset)


def _angles(motion: Motion) -> np.ndarray:
    """Degrees (T, J, 3) in the order of ORDER, without jumps of a full circle."""
    from scipy.spatial.transform import Rotation

    matrices = rearrange(motion.rotations.double().numpy(), "t j a b -> (t j) a b")
    with warnings.catch_warnings():
        # In a singular pose two of the three turns share an axis; SciPy says so and picks one of the equal answers.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles = Rotation.from_matrix(matrices).as_euler(ORDER, degrees=True)
    return np.unwrap(rearrange(angles, "(t j) c -> t j c", t=len(motion)), period=360, axis=0)
