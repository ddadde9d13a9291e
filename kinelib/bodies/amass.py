"""AMASS npz files: SMPL-X body parameters of mocap (Mahmood et al., 2019, "AMASS"), as Blender add-ons read them.

Only the body travels: hands, jaw and eyes are written as zeros and ignored on reading, and so is the shape. The world of
these files is z up and, as Kimodo writes them, faces +y; ours is y up and faces +z, so x changes its sign between the two.

`trans` is not where the pelvis is but where the body model's origin is; the pelvis lies PELVIS from it in the model's own
frame. That number belongs to the body model, whose files are not free: the rounded one here stands for an average body, and
heights of another are off by a few centimetres (`floor` puts them right). Written and read here, motion is exact.

Shapes: poses (T, 55 or 52, 3) axis times angle; body joints are SMPL-X's first 22, the root included.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import axis_angle, from_axis_angle
from kinelib.bodies.skeletons import SMPLX22
from kinelib.learning.files import written_whole

TO_AMASS = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
PELVIS = (0.0, -0.35, 0.01)  # metres from the model's origin to its pelvis, in the model's frame (y up)
BODY = len(SMPLX22)


class AmassError(ValueError):
    """A file is no AMASS motion, or a motion cannot be one; the message names the key."""


def write_amass(motion: Motion, path: str | Path) -> None:
    """Writes a motion of SMPL-X's joints with the keys of AMASS's SMPL-X files; nothing in them is pickled.

    Raises:
        AmassError: for a skeleton with other joints; retarget the motion to `SMPLX22` first.
    """
    if motion.skeleton.joints != SMPLX22.joints:
        raise AmassError(f"AMASS holds SMPL-X bodies; retarget this motion of {motion.skeleton.name!r} to SMPLX22 first.")
    frames = len(motion)
    turns = motion.rotations.clone()
    turns[:, 0] = TO_AMASS.to(turns) @ turns[:, 0]
    angles = axis_angle(turns)
    trans = motion.root @ TO_AMASS.to(motion.root).T - motion.root.new_tensor(PELVIS)
    zeros = lambda width: np.zeros((frames, width), np.float32)
    with written_whole(path) as sibling, sibling.open("wb") as file:
        np.savez_compressed(
            file,
            trans=trans.float().numpy(),
            root_orient=angles[:, 0].float().numpy(),
            pose_body=rearrange(angles[:, 1:], "t j c -> t (j c)").float().numpy(),
            pose_hand=zeros(90),
            pose_jaw=zeros(3),
            pose_eye=zeros(6),
            betas=np.zeros(16, np.float32),
            gender=np.array("neutral"),
            surface_model_type=np.array("smplx"),
            mocap_frame_rate=np.array(motion.fps, np.float32),
            mocap_time_length=np.array(motion.seconds, np.float32),
        )


def read_amass(path: str | Path, floor: bool = False) -> Motion:
    """Reads an AMASS motion of any of its body models (SMPL, SMPL-H, SMPL-X) onto `SMPLX22`.

    Args:
        path: of the npz file.
        floor: put the lowest joint of the clip on the floor; for files whose body differs from the average.

    Raises:
        AmassError: when keys are missing, have other shapes, or hold NaN.
    """
    with np.load(path, allow_pickle=False) as file:
        get = lambda *names: next((np.asarray(file[name]) for name in names if name in file.files), None)
        poses, fps, trans = get("poses"), get("mocap_frame_rate", "mocap_framerate"), get("trans")
        if poses is None and (body := get("pose_body")) is not None and (root := get("root_orient")) is not None:
            poses = np.concatenate([root, body], axis=-1)
    for key, value in (("trans", trans), ("poses, or root_orient and pose_body", poses), ("mocap_frame_rate", fps)):
        if value is None:
            raise AmassError(f"{path}: has no {key}; is it an AMASS motion (and not a shape or a marker file)?")
    if poses.ndim != 2 or poses.shape[1] < 3 * BODY or trans.shape != (len(poses), 3):
        raise AmassError(f"{path}: poses {poses.shape} and trans {trans.shape} must be (T, at least {3 * BODY}) and (T, 3).")
    for key, value in (("poses", poses), ("trans", trans)):
        if bad := np.flatnonzero(~np.isfinite(value).all(1)).tolist():
            raise AmassError(f"{path}: {key} of frame {bad[0]} (and {len(bad) - 1} more) hold NaN or infinity.")
    angles = rearrange(torch.from_numpy(poses[:, : 3 * BODY]).double(), "t (j c) -> t j c", c=3)
    turns = from_axis_angle(angles)
    turns[:, 0] = TO_AMASS.double().T @ turns[:, 0]
    root = (torch.from_numpy(trans).double() + torch.tensor(PELVIS)) @ TO_AMASS.double()
    motion = Motion(turns.float(), root.float(), float(fps), SMPLX22, provenance={"source": str(path)})
    return _on_floor(motion) if floor else motion


def _on_floor(motion: Motion) -> Motion:
    """Lifted so that the lowest joint of the clip is as high as at rest."""
    lift: Tensor = motion.skeleton.rest()[:, 1].min() - motion.positions()[..., 1].min()
    return replace(motion, root=motion.root + torch.stack([torch.zeros(()), lift, torch.zeros(())]))
