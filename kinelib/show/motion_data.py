"""Motions packed for the browser: every point of every frame, computed here once, so that a page needs no kinematics.

The root path travels as float32, all points relative to it as float16 (within a body's reach of 2 m that is a millimetre),
contacts as bytes. `static/body_clips.js` reads it; :func:`unpack_scene` does the same for the tests and for other readers.

Shapes: T frames, P points, J joints; points (T, P, 3) metres; contacts (T, 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kinelib.bodies.motion import Motion
from kinelib.show.bodies import best_azimuth
from kinelib.show.stick_figures import Figure, figure_of, headings

APART = 1.45  # metres between two samples side by side, for a body of 1.7 m
MOST = 16  # motions of one player
ELEVATION = 0.22  # radians at first


def as_motions(
    motions: Motion | Sequence[Motion] | Mapping[str, Motion], labels: Sequence[str] | None = None
) -> tuple[list[Motion], list[str]]:
    """Motions and their labels, from one motion, several, or several by name.

    Args:
        motions: what to show.
        labels: one a motion; None: the names, or the prompts the motions carry.

    Raises:
        TypeError: for what is no motion; the message says what it is.
        ValueError: for none, too many, or labels that are not one a motion.
    """
    if isinstance(motions, Mapping):
        labels = list(motions) if labels is None else labels
        motions = list(motions.values())
    listed = [motions] if isinstance(motions, Motion) else list(motions)
    for index, motion in enumerate(listed):
        if not isinstance(motion, Motion):
            raise TypeError(f"motion {index} is a {type(motion).__name__}; give kinelib.bodies.motion.Motion objects.")
    if not 1 <= len(listed) <= MOST:
        raise ValueError(f"a player shows 1 to {MOST} motions at once; got {len(listed)}.")
    if labels is None:
        prompts = [motion.provenance.get("prompt", "") for motion in listed]
        labels = [prompt if isinstance(prompt, str) else "; ".join(map(str, prompt)) for prompt in prompts]
    labels = [str(label) for label in labels]
    if len(labels) != len(listed):
        raise ValueError(f"give one label a motion; got {len(labels)} labels for {len(listed)} motions.")
    return listed, labels


def pack_scene(motions: Sequence[Motion], labels: Sequence[str]) -> dict:
    """What goes to the browser: facts of every motion, where to look from at first, and one block of bytes.

    Args:
        motions: 1 to 16, of any skeletons and frame rates.
        labels: one each.

    Returns:
        {"samples": [...], "azimuth", "elevation", "facing" radians, "data" bytes}.
    """
    figures = [figure_of(motion.skeleton) for motion in motions]
    clouds = [figure.points(motion) for figure, motion in zip(figures, motions, strict=True)]
    azimuth = first_azimuth(clouds, figures)
    samples, blocks, at = [], [], 0
    for index, (motion, figure, points) in enumerate(zip(motions, figures, clouds, strict=True)):
        root = points[:, 0].astype("<f4")
        relative = (points - root[:, None]).astype("<f2")
        parts = [root.tobytes(), relative.tobytes()]
        contacts = motion.contacts is not None and len(figure.feet) == motion.contacts.shape[1]
        if contacts:
            parts.append((motion.contacts.clamp(0, 1) * 255).round().byte().cpu().numpy().tobytes())
        block = b"".join(parts)
        block += bytes(-len(block) % 4)
        samples.append(
            {
                "label": labels[index],
                "frames": len(motion),
                "fps": float(motion.fps),
                "points": points.shape[1],
                "joints": len(motion.skeleton),
                "segments": figure.segments.tolist(),
                "radii": np.round(figure.radii, 4).tolist(),
                "sides": figure.sides.tolist(),
                "feet": list(figure.feet),
                "middle": figure.middle,
                "height": round(figure.height, 3),
                "offset": [round(value, 4) for value in offset_of(index, len(motions), azimuth, figures)],
                "contacts": contacts,
                "start": at,
            }
        )
        blocks.append(block)
        at += len(block)
    facing = headings(clouds[0][:1], figures[0].skeleton)
    facts = {"azimuth": azimuth, "elevation": ELEVATION, "facing": 0.0 if facing is None else float(facing[0])}
    return {"samples": samples, **facts, "data": b"".join(blocks)}


def unpack_scene(scene: Mapping) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Points (T, P, 3) float32 and contacts (T, 4) in [0, 1] of every packed motion, as the browser has them."""
    found = []
    for facts in scene["samples"]:
        frames, points, at = facts["frames"], facts["points"], facts["start"]
        root = np.frombuffer(scene["data"], "<f4", 3 * frames, at).reshape(frames, 1, 3)
        relative = np.frombuffer(scene["data"], "<f2", 3 * frames * points, at + 12 * frames)
        placed = root + relative.astype(np.float32).reshape(frames, points, 3)
        contacts = None
        if facts["contacts"]:
            contacts = np.frombuffer(scene["data"], np.uint8, 4 * frames, at + 12 * frames + 6 * frames * points) / 255
            contacts = contacts.reshape(frames, 4)
        found.append((placed, contacts))
    return found


def first_azimuth(clouds: Sequence[np.ndarray], figures: Sequence[Figure]) -> float:
    """Where to look from at first, radians: one body as in a strip, several so that they come towards the reader."""
    if len(clouds) == 1:
        return best_azimuth(clouds[0], figures[0])
    ways = [points[:, figure.middle] for points, figure in zip(clouds, figures, strict=True)]
    way = np.mean([path[-1] - path[0] for path in ways], axis=0)
    if math.hypot(way[0], way[2]) > 0.8:
        return math.atan2(way[0], way[2]) + 0.3
    facing = headings(clouds[0], figures[0].skeleton)
    return (0.0 if facing is None else float(facing[0])) + 0.3


def offset_of(index: int, count: int, azimuth: float, figures: Sequence[Figure]) -> tuple[float, float]:
    """Metres (x, z) by which one of several samples is moved aside, along what is the picture's width at first."""
    gap = APART * max(figure.height for figure in figures) / 1.55
    along = (index - (count - 1) / 2) * gap
    turned = azimuth - 0.3 if count > 1 else azimuth  # square to their way, not to the eye, which looks a little askew
    return math.cos(turned) * along, -math.sin(turned) * along
