"""A small walker for the tests of what shows bodies: known steps, known contacts, no data needed."""

from __future__ import annotations

import math

import torch

from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import about_y, from_axis_angle
from kinelib.bodies.skeletons import SMPLX22


def walk(seconds=3.0, fps=20.0, speed=1.1, turn=0.0, wave=False, lift=0.0, skeleton=SMPLX22):
    """A person who walks from the origin, at first along +z.

    Args:
        seconds, fps: length and frame rate.
        speed: metres a second.
        turn: radians turned in all, positive towards +x, the body's left.
        wave: whether the left hand is raised and waves.
        lift: metres that the whole body floats.
    """
    frames = round(seconds * fps)
    time = torch.arange(frames) / fps
    phase = 2 * math.pi * 0.9 * time
    angles = torch.zeros(frames, len(skeleton), 3)
    joint = skeleton.index
    for side, start in (("left", 0.0), ("right", math.pi)):
        swing = torch.sin(phase + start)
        angles[:, joint(f"{side}_hip"), 0] = -0.45 * swing * min(1.0, speed)
        angles[:, joint(f"{side}_knee"), 0] = 0.15 + 0.75 * torch.relu(torch.cos(phase + start)) * min(1.0, speed)
        angles[:, joint(f"{side}_ankle"), 0] = -0.1 + 0.1 * swing
        angles[:, joint(f"{side}_shoulder"), 2] = -1.25 if side == "left" else 1.25
        angles[:, joint(f"{side}_elbow"), 1] = -0.35 if side == "left" else 0.35
    arms = from_axis_angle(angles)
    for side, start in (("left", math.pi), ("right", 0.0)):
        forth = torch.zeros(frames, 3)
        forth[:, 0] = -0.45 * torch.sin(phase + start) * min(1.0, speed)
        arms[:, joint(f"{side}_shoulder")] = from_axis_angle(forth) @ arms[:, joint(f"{side}_shoulder")]
    if wave:
        raised = torch.zeros(frames, 3)
        raised[:, 2] = 1.0
        arms[:, joint("left_shoulder")] = from_axis_angle(raised)
        raised[:, 2] = 0.7 + 0.5 * torch.sin(2 * math.pi * 2 * time)
        arms[:, joint("left_elbow")] = from_axis_angle(raised)
    facing = turn * time / max(seconds, 1e-6)
    arms[:, 0] = about_y(facing) @ arms[:, 0]
    steps = torch.stack([torch.sin(facing), torch.zeros(frames), torch.cos(facing)], -1) * speed / fps
    root = steps.cumsum(0) - steps[:1]
    # The lower foot carries the body.
    heights = Motion(arms, root, fps, skeleton).positions()[:, skeleton.contact_joints, 1]
    heights = heights - heights.amin(-1, keepdim=True)
    lowest = Motion(arms, root, fps, skeleton).positions()[:, skeleton.contact_joints, 1].amin(-1)
    root[:, 1] += 0.01 - lowest + lift
    return Motion(arms, root, fps, skeleton, (heights < 0.03).float())
