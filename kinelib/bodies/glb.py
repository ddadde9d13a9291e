"""Writes a motion as one binary glTF 2.0 file (GLB), which browsers, Blender and game engines open and play.

The file holds a node a joint, with its rotation animated (the root's translation too), and a slim bone from every joint to
each of its children, so that viewers without a skeleton display have something to show. One shared mesh serves all bones:
each bone node turns it, stretches it and hangs on its joint. Nothing but JSON and packed numbers is written.

Axes and unit are glTF's own: right-handed, y up, +z forward, metres. Shapes: T frames, J joints.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch

from kinelib.bodies.motion import Motion
from kinelib.bodies.rotations import between, quaternion
from kinelib.learning.files import written_whole

FLOAT, UNSIGNED_SHORT = 5126, 5123
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
THICKNESS = 0.025  # metres, half of a bone's width


def write_glb(motion: Motion, path: str | Path) -> None:
    """Writes a motion as GLB, complete or not at all; frame rate and provenance go into the asset's extras."""
    skeleton = motion.skeleton
    parts = _Buffer()
    corners, faces = _bone_mesh()
    normals = np.cross(corners[1::3] - corners[0::3], corners[2::3] - corners[0::3])
    normals = np.repeat(normals / np.linalg.norm(normals, axis=1, keepdims=True), 3, axis=0)
    attributes = {"POSITION": parts.add(corners, ARRAY_BUFFER, bounds=True), "NORMAL": parts.add(normals, ARRAY_BUFFER)}
    primitive = {"attributes": attributes, "indices": parts.add(faces, ELEMENT_ARRAY_BUFFER), "material": 0}
    times = parts.add(np.arange(len(motion)) / motion.fps, None, bounds=True)

    nodes = [
        {"name": name, "translation": offset}
        for name, offset in zip(skeleton.joints, skeleton.offsets.tolist(), strict=True)
    ]
    for joint in range(len(skeleton)):
        if children := [child for child, parent in enumerate(skeleton.parents) if parent == joint]:
            nodes[joint]["children"] = children
    for parent, joint in skeleton.bones():
        if (length := float(skeleton.offsets[joint].norm())) > 1e-4:
            nodes[parent]["children"].append(len(nodes))
            nodes.append(
                _bone_node(f"{skeleton.joints[parent]} to {skeleton.joints[joint]}", skeleton.offsets[joint], length)
            )

    samplers, channels = [], []

    def animate(joint: int, path: str, values: np.ndarray) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": joint, "path": path}})
        samplers.append({"input": times, "output": parts.add(values, None), "interpolation": "LINEAR"})

    animate(0, "translation", motion.root.numpy())
    for joint, values in enumerate(_quaternions(motion)):
        animate(joint, "rotation", values)
    facts = json.loads(json.dumps({"fps": motion.fps, "skeleton": skeleton.name} | motion.provenance, default=str))
    document = {
        "asset": {"version": "2.0", "generator": "kinelib", "extras": facts},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
        "meshes": [{"name": "bone", "primitives": [primitive]}],
        "materials": [
            {"name": "bone", "pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.8, 0.8, 1.0], "metallicFactor": 0.0}}
        ],
        "animations": [{"name": str(motion.provenance.get("prompt", "motion")), "samplers": samplers, "channels": channels}],
        "accessors": parts.accessors,
        "bufferViews": parts.views,
        "buffers": [{"byteLength": len(parts.content)}],
    }
    with written_whole(path) as sibling:
        sibling.write_bytes(_container(document, bytes(parts.content)))


class _Buffer:
    """The binary chunk, with the views and accessors that say what lies where in it."""

    def __init__(self) -> None:
        self.content, self.views, self.accessors = bytearray(), [], []

    def add(self, values: np.ndarray, target: int | None, bounds: bool = False) -> int:
        """Appends an array and returns the number of its accessor; `bounds` notes least and greatest, where glTF asks."""
        whole = np.issubdtype(values.dtype, np.integer)
        values = np.ascontiguousarray(values, dtype="<u2" if whole else "<f4")
        table = values.reshape(len(values), -1)
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": values.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": UNSIGNED_SHORT if whole else FLOAT,
            "count": len(values),
            "type": KINDS[table.shape[1]],
        }
        if bounds:
            accessor |= {"min": table.min(0).tolist(), "max": table.max(0).tolist()}
        self.accessors.append(accessor)
        self.content += values.tobytes() + bytes(-values.nbytes % 4)
        return len(self.accessors) - 1


def _container(document: dict, binary: bytes) -> bytes:
    """The file: a 12-byte header, the JSON chunk padded with spaces, the binary chunk padded with zeros."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    chunks = b""
    for kind, content, filler in ((b"JSON", text, b" "), (b"BIN\0", binary, b"\0")):
        content += filler * (-len(content) % 4)
        chunks += struct.pack("<I4s", len(content), kind) + content
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _quaternions(motion: Motion) -> np.ndarray:
    """Unit quaternions (J, T, 4), x y z w as glTF has them, each on the near side of the one before."""
    q = quaternion(motion.rotations)[..., [1, 2, 3, 0]]
    flips = torch.where((q[1:] * q[:-1]).sum(-1) < 0, -1.0, 1.0)
    q = torch.cat([q[:1], q[1:] * flips.cumprod(0)[..., None]])
    return q.transpose(0, 1).numpy()


def _bone_node(name: str, offset: torch.Tensor, length: float) -> dict:
    """A node that turns the upright bone mesh along an offset and gives it its length."""
    turn = quaternion(between(torch.tensor([0.0, 1.0, 0.0]), offset / length))[[1, 2, 3, 0]].tolist()
    width = min(THICKNESS, length / 4)
    return {"name": name, "mesh": 0, "rotation": turn, "scale": [width, length, width]}


def _bone_mesh() -> tuple[np.ndarray, np.ndarray]:
    """A spindle from y = 0 to y = 1: corners (24, 3), each face's own so that faces look flat, and their numbers (24,)."""
    ring = [(1.0, 0.2, 0.0), (0.0, 0.2, -1.0), (-1.0, 0.2, 0.0), (0.0, 0.2, 1.0)]
    faces = []
    for here, there in zip(ring, ring[1:] + ring[:1], strict=True):
        faces += [(here, there, (0.0, 1.0, 0.0)), (there, here, (0.0, 0.0, 0.0))]
    corners = np.array(faces, dtype=np.float64).reshape(-1, 3)
    return corners, np.arange(len(corners))
