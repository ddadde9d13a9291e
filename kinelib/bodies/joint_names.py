"""Which joint of any skeleton is which part of a person, judged by names and by who hangs on whom.

Limbs are found by their names (Mixamo, Biovision, Character Creator, SMPL, SOMA, Bandai-Namco and their like); the trunk
by structure: the pelvis is where the two legs meet, the chest where the two arms meet.

Parts: pelvis, chest, neck, head; with left_ or right_ before them collar, shoulder, elbow, wrist, hip, knee, ankle, toe.
"""

from __future__ import annotations

import re

from torch import Tensor

from kinelib.bodies.skeleton import Skeleton

# Words that say which part a joint is, best first; a word list of (a, b) means "a, where the skeleton also has a b".
LIMBS: dict[str, tuple] = {
    "hip": ("upperleg", "upleg", "thigh", "femur", "hippitch", "hip", ("leg", "shin")),
    "knee": ("lowerleg", "lowleg", "shin", "calf", "tibia", "knee", ("leg", "upleg")),
    "ankle": ("ankle", "anklepitch", "foot"),
    "toe": ("toebase", "toes", "toe", "toe0", "ball", ("foot", "ankle")),
    "shoulder": ("upperarm", "uparm", "humerus", ("arm", "forearm"), ("shoulder", "elbow"), "shoulderpitch"),
    "elbow": ("forearm", "lowerarm", "lowarm", "elbow", "radius"),
    "wrist": ("wrist", "wristroll", "hand"),
    "collar": ("collar", "clavicle", ("shoulder", "forearm"), ("shoulder", "lowerarm")),
}
SIDES = {"left": "left", "l": "left", "lft": "left", "right": "right", "r": "right", "rgt": "right"}
NOISE = {"cc", "base", "bip", "bip01", "b", "mixamorig", "def", "jnt", "bone", "joint"}


def human_parts(joints: tuple[str, ...] | list[str], parents: tuple[int, ...] | list[int]) -> dict[str, int]:
    """Joint numbers of the parts of a person that a skeleton has; empty when it has no two legs.

    Args:
        joints: J names.
        parents: index of every joint's parent, -1 for the root.
    """
    read = [_side_and_word(name) for name in joints]
    parts: dict[str, int] = {}
    for side in ("left", "right"):
        words = {}  # the first joint of a name is the one nearest to the trunk
        for joint, (where, word) in enumerate(read):
            if where == side:
                words.setdefault(word, joint)
        for part, wanted in LIMBS.items():
            for one in wanted:
                word, companion = one if isinstance(one, tuple) else (one, None)
                if word in words and (companion is None or companion in words) and words[word] not in parts.values():
                    parts[f"{side}_{part}"] = words[word]
                    break
    parents = list(parents)
    if not {"left_hip", "right_hip"} <= parts.keys():
        return {}
    # The hips may hang on a pelvis of their own beside the spine: the part that carries everything is where all meet.
    pelvis = _meeting(parts["left_hip"], parts["right_hip"], parents)
    if {"left_shoulder", "right_shoulder"} <= parts.keys():
        chest = _meeting(parts["left_shoulder"], parts["right_shoulder"], parents)
        pelvis = _meeting(pelvis, chest, parents)
        parts |= {"pelvis": pelvis, "chest": chest}
    else:
        parts["pelvis"] = pelvis
    middle = [(joint, word) for joint, (side, word) in enumerate(read) if side is None]
    for part in ("neck", "head"):
        if found := [joint for joint, word in middle if word.startswith(part) and not word.endswith(("end", "nub", "top"))]:
            parts[part] = found[0]
    return parts


def human_skeleton(name: str, joints: list[str], parents: list[int], offsets: Tensor) -> Skeleton:
    """A `Skeleton` whose hips, feet, hands and groups are filled in where the names tell them.

    Args:
        name: of the skeleton.
        joints: J names, parents first.
        parents: index of every joint's parent.
        offsets: (J, 3) metres.
    """
    parts = human_parts(joints, parents)
    at = lambda part: joints[parts[part]]
    both = lambda *names: all(f"{side}_{one}" in parts for side in ("left", "right") for one in names)
    facts = {}
    if both("hip"):
        facts["hips"] = (at("right_hip"), at("left_hip"))
    if both("ankle", "toe"):
        facts["feet"] = tuple((at(f"{side}_ankle"), at(f"{side}_toe")) for side in ("left", "right"))
    if both("wrist"):
        facts["hands"] = tuple((at(f"{side}_wrist"),) for side in ("left", "right"))
    if both("hip", "shoulder") and "neck" in parts:
        facts["groups"] = _groups(joints, parents, parts)
    return Skeleton(name, tuple(joints), tuple(parents), offsets, **facts)


def _groups(joints: list[str], parents: list[int], parts: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """KinMo's six groups: every joint belongs to the limb it hangs on, whatever hangs on none to the torso."""
    tops = {parts["neck"]: "neck"}
    for side in ("left", "right"):
        tops[parts.get(f"{side}_collar", parts[f"{side}_shoulder"])] = f"{side}_arm"
        tops[parts[f"{side}_hip"]] = f"{side}_leg"
    group: list[str] = []
    for joint, parent in enumerate(parents):
        group.append(tops.get(joint, group[parent] if parent >= 0 else "torso"))
    names = ("torso", "neck", "left_arm", "right_arm", "left_leg", "right_leg")
    return {name: tuple(joint for joint, one in zip(joints, group, strict=True) if one == name) for name in names}


def _side_and_word(name: str) -> tuple[str | None, str]:
    """The side a joint is on, if any, and the rest of its name without case, marks and what tools put before it."""
    name = re.split(r"[:|]", name)[-1]
    tokens = [token.lower() for token in re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+", name)]
    sides = [token for token in tokens if token in SIDES]
    rest = [token for token in tokens if token not in SIDES and token not in NOISE]
    return (SIDES[sides[0]] if sides else None), "".join(rest)


def _meeting(first: int, second: int, parents: list[int]) -> int:
    """The joint nearest to both on which both hang (one of them, when the other hangs on it)."""
    line = []
    while first >= 0:
        line.append(first)
        first = parents[first]
    while second not in line:
        second = parents[second]
    return second
