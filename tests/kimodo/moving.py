"""Bodies whose motion is known, for tests of constraints and clean-up."""

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from kinelib.bodies import features
from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import from_axis_angle
from kinelib.bodies.skeletons import SMPLX22


def standing(frames: int = 60, drift: tuple[float, float] = (0.0, 0.0), fps: float = 20.0) -> Motion:
    """A body at rest that slides along the floor at `drift` metres a second."""
    turns = torch.eye(3).expand(frames, 22, 3, 3).clone()
    time = torch.arange(frames) / fps
    root = torch.stack([drift[0] * time, torch.full((frames,), float(SMPLX22.offsets[0, 1])), drift[1] * time], -1)
    return Motion(turns, root, fps, SMPLX22, torch.ones(frames, 4))


def swaying(frames: int = 60, seed: int = 0, degrees: float = 12.0, speed: float = 0.8) -> Motion:
    """A body whose joints all turn smoothly while it travels along a curve."""
    time = torch.arange(frames) / 20
    root = torch.stack([speed * time, 0.9 + 0.02 * (3 * time).sin(), 0.3 * time.sin()], -1)
    turns = from_axis_angle(smooth_noise((frames, 22, 3), np.deg2rad(degrees), seed))
    return Motion(turns, root, 20.0, SMPLX22)


def smooth_noise(shape: tuple[int, ...], size: float, seed: int) -> torch.Tensor:
    """Noise along the first axis that changes over about half a second, of standard deviation `size`."""
    noise = gaussian_filter1d(np.random.default_rng(seed).normal(size=shape), 6, axis=0, mode="reflect")
    return torch.from_numpy(noise / noise.std() * size).float()


def as_generated(motion: Motion, seed: int = 0, degrees: float = 3.0, metres: float = 0.04) -> Motion:
    """The motion as a denoiser might give it: near, but off by a few degrees and centimetres, its feet sliding."""
    turns = motion.rotations @ from_axis_angle(smooth_noise((len(motion), 22, 3), np.deg2rad(degrees), seed))
    shift = smooth_noise((len(motion), 3), metres, seed + 1) * torch.tensor([1.0, 0.3, 1.0])
    contacts = features.contacts(motion.positions()[None], motion.fps, motion.skeleton)[0]
    return replace(motion, rotations=turns, root=motion.root + shift, contacts=contacts)
