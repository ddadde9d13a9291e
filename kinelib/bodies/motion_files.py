"""Saves and loads motion by the file's suffix: .npz, .bvh, .glb (saved only), .csv (the G1 robot), .amass.npz.

Our .npz holds Kimodo's arrays under Kimodo's names, and what those files lack: frame rate, skeleton, prompt, seed, version.
Files that Kimodo itself wrote load too; they do not say how fast they are, so the caller does. No file is ever unpickled.

Shapes: posed_joints (T, J, 3), local_rot_mats and global_rot_mats (T, J, 3, 3), foot_contacts (T, 4), root_positions and
smooth_root_pos (T, 3) metres, global_root_heading (T, 2) cosine and sine.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinelib import __version__
from kinelib.bodies import skeletons
from kinelib.bodies.kinematics import local_from_global
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import from_6d, rotation_6d
from kinelib.bodies.skeleton import Skeleton
from kinelib.learning.files import written_whole

SAVED, LOADED = (".npz", ".amass.npz", ".bvh", ".glb", ".csv"), (".npz", ".amass.npz", ".bvh", ".csv")
GENERATED = (".npz", ".bvh", ".glb")  # what generated motion is written as
BY_COUNT = {len(skeleton): skeleton for skeleton in (skeletons.SMPLX22, skeletons.SOMA30, skeletons.G1_34)}


class MotionFileError(ValueError):
    """A motion cannot be saved or loaded; the message names the file, the key, and what to do."""


def save_motion(motion: Motion, path: str | Path) -> Path:
    """Writes a motion in the format of the suffix, complete or not at all, and returns the path.

    Raises:
        MotionFileError: for a suffix of no known format. The formats' own errors: for motion they cannot hold.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".amass.npz"):
        from kinelib.bodies.amass import write_amass as write
    elif name.endswith(".npz"):
        write = _write_npz
    elif name.endswith(".bvh"):
        from kinelib.bodies.bvh_write import write_bvh as write
    elif name.endswith(".glb"):
        from kinelib.bodies.glb import write_glb as write
    elif name.endswith(".csv"):
        from kinelib.bodies.g1 import write_g1 as write
    else:
        raise MotionFileError(f"{path}: motion is saved as {', '.join(SAVED)}; the suffix says which.")
    write(motion, path)
    return path


def sample_files(out: str | Path | None, samples: int, overwrite: bool) -> list[Path]:
    """Where each of several generated samples goes, before anything is generated: numbered when there is more than one.

    Args:
        out: .npz, .bvh or .glb; None writes nothing, and there are no files.
        samples: how many, at least 1.
        overwrite: replace existing files.

    Raises:
        ValueError: for another suffix, or less than one sample. FileExistsError: when a file exists and `overwrite` is off.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1; got {samples}.")
    if out is None:
        return []
    out = Path(out)
    if out.suffix not in GENERATED:
        raise ValueError(f"{out}: a motion is written as {', '.join(GENERATED)}; got {out.suffix or 'no suffix'!r}.")
    files = [out] if samples == 1 else [out.with_stem(f"{out.stem}-{number}") for number in range(samples)]
    for file in files:
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists; choose another name or allow overwriting.")
    return files


def load_motion(path: str | Path, fps: float | None = None) -> Motion:
    """Reads a motion by the suffix of its file.

    Args:
        path: .npz of ours, of Kimodo or of AMASS; .bvh; .csv of the G1 robot.
        fps: frames a second, for files that do not say it (Kimodo's .npz and .csv: the released models make 30).

    Raises:
        MotionFileError: for an unknown suffix, or arrays that are missing, pickled, or of another shape.
        FileNotFoundError: when there is no such file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.name.lower().endswith(LOADED):
        raise MotionFileError(f"{path}: motion is loaded from {', '.join(LOADED)}; the suffix says which.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if suffix == ".bvh":
        from kinelib.bodies.bvh import read_bvh

        return _in_known_order(read_bvh(path).motion())
    if suffix == ".csv":
        from kinelib.bodies.g1 import read_g1

        return read_g1(path) if fps is None else read_g1(path, fps)
    arrays = _arrays(path)
    if "trans" in arrays and "posed_joints" not in arrays:
        from kinelib.bodies.amass import read_amass

        return read_amass(path)
    return _from_arrays(path, arrays, fps)


def _in_known_order(motion: Motion) -> Motion:
    """The motion with its joints in the order of the known skeleton that has the same ones: BVH lists them limb by limb."""
    for known in BY_COUNT.values():
        if sorted(known.joints) == sorted(motion.skeleton.joints):
            order = [motion.skeleton.index(joint) for joint in known.joints]
            above = [motion.skeleton.parents[joint] for joint in order]
            if above == [order[parent] if parent >= 0 else -1 for parent in known.parents]:
                skeleton = replace(known, offsets=motion.skeleton.offsets[order])
                return replace(motion, rotations=motion.rotations[:, order], skeleton=skeleton)
    return motion


def _write_npz(motion: Motion, path: Path) -> None:
    """Kimodo's arrays and the facts that make them readable without this library."""
    from kinelib.bodies.features import contacts, heading
    from kinelib.bodies.smoothing import smooth_root

    positions, skeleton = motion.positions(), motion.skeleton
    arrays = {
        "posed_joints": positions,
        "local_rot_mats": motion.rotations,
        "global_rot_mats": motion.global_rotations(),
        "root_positions": motion.root,
    }
    smooth = smooth_root(motion.root[:, [0, 2]])
    arrays["smooth_root_pos"] = torch.stack([smooth[:, 0], motion.root[:, 1], smooth[:, 1]], dim=-1)
    if motion.contacts is not None:
        arrays["foot_contacts"] = motion.contacts
    elif len(skeleton.feet) == 2:
        arrays["foot_contacts"] = contacts(positions[None], motion.fps, skeleton)[0]
    if skeleton.hips is not None:
        angle = heading(positions, skeleton)
        arrays["global_root_heading"] = torch.stack([angle.cos(), angle.sin()], dim=-1)
    facts = {
        "fps": np.array(motion.fps),
        "skeleton": np.array(skeleton.name),
        "joints": np.array(skeleton.joints),
        "parents": np.array(skeleton.parents),
        "offsets": skeleton.offsets.numpy(),
        "roles": np.array(
            json.dumps({"hips": skeleton.hips, "feet": skeleton.feet, "hands": skeleton.hands, "groups": skeleton.groups})
        ),
        "contacts_known": np.array(motion.contacts is not None),
        "prompt": np.array(str(motion.provenance.get("prompt", ""))),
        "seed": np.array(str(motion.provenance.get("seed", ""))),
        "version": np.array(__version__),
        "provenance": np.array(json.dumps(motion.provenance, default=str)),
    }
    with written_whole(path) as sibling, sibling.open("wb") as file:
        np.savez_compressed(file, **{name: tensor.float().numpy() for name, tensor in arrays.items()}, **facts)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of an npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise MotionFileError(f"{path}: is no .npz file of plain arrays, or is cut short ({error}).") from None


def _from_arrays(path: Path, arrays: dict[str, np.ndarray], fps: float | None) -> Motion:
    """A motion of Kimodo's arrays, with or without our facts beside them."""
    for name in [name for name in ("posed_joints", "local_rot_mats", "global_rot_mats", "root_positions") if name in arrays]:
        if not np.issubdtype(arrays[name].dtype, np.number):
            raise MotionFileError(f"{path}: {name} holds no numbers.")
    get = lambda name: torch.from_numpy(np.asarray(arrays[name], dtype=np.float32)) if name in arrays else None
    joints, local, turned, root = map(get, ("posed_joints", "local_rot_mats", "global_rot_mats", "root_positions"))
    if local is None and turned is None:
        raise MotionFileError(
            f"{path}: has neither local_rot_mats nor global_rot_mats; it has {', '.join(arrays) or 'nothing'}."
        )
    rotations = local if local is not None else turned
    if rotations.ndim != 4 or rotations.shape[2:] != (3, 3):
        raise MotionFileError(f"{path}: rotations must have shape (T, J, 3, 3); got {tuple(rotations.shape)}.")
    if root is None and joints is None:
        raise MotionFileError(f"{path}: says by neither root_positions nor posed_joints where the body is.")
    rate = float(arrays["fps"]) if "fps" in arrays else fps
    if rate is None:
        raise MotionFileError(f"{path}: does not say its frame rate; pass fps=... (Kimodo's released models make 30).")
    skeleton = _skeleton(path, arrays, rotations.shape[1], joints, turned)
    if local is None:
        local = local_from_global(turned, skeleton.parents)
    facts = json.loads(str(arrays["provenance"])) if "provenance" in arrays else {"source": str(path)}
    known = bool(arrays.get("contacts_known", True))
    contacts = get("foot_contacts") if known else None
    contacts = None if contacts is None or contacts.shape[-1] != 4 else contacts
    return Motion(from_6d(rotation_6d(local)), root if root is not None else joints[:, 0], rate, skeleton, contacts, facts)


def _skeleton(path: Path, arrays: dict, count: int, joints: Tensor | None, turned: Tensor | None) -> Skeleton:
    """The file's own skeleton; else the known one of as many joints, with bone lengths as its joints stand."""
    if {"joints", "parents", "offsets", "skeleton"} <= arrays.keys():
        roles = json.loads(str(arrays["roles"])) if "roles" in arrays else {}
        pairs = {name: tuple(map(tuple, roles.get(name) or ())) for name in ("feet", "hands")}
        groups = {name: tuple(group) for name, group in (roles.get("groups") or {}).items()}
        hips = tuple(roles["hips"]) if roles.get("hips") else None
        names, parents = tuple(map(str, arrays["joints"])), tuple(map(int, arrays["parents"]))
        offsets = torch.from_numpy(np.asarray(arrays["offsets"], np.float32))
        return Skeleton(str(arrays["skeleton"]), names, parents, offsets, hips=hips, groups=groups, **pairs)
    if count not in BY_COUNT:
        known = ", ".join(f"{number} ({skeleton.name})" for number, skeleton in BY_COUNT.items())
        raise MotionFileError(f"{path}: names no skeleton and has {count} joints; known are {known}.")
    skeleton = BY_COUNT[count]
    if joints is None or turned is None or joints.shape[1] != count:
        return skeleton
    above = list(skeleton.parents[1:])
    bones = (turned[:, above].transpose(-1, -2) @ (joints[:, 1:] - joints[:, above])[..., None])[..., 0].mean(0)
    return replace(skeleton, offsets=torch.cat([skeleton.offsets[:1], bones]))
