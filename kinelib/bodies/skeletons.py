"""The skeletons that Kimodo and KinMo are written for, and the one our real clips come on.

Joint names, order and parents are those of the systems, since released weights depend on them. The proportions are our
own rounded ones of an adult of 1.7 m standing with the arms out (T-pose), not those of any body model; whoever loads
released weights replaces the offsets by the release's own (`dataclasses.replace(SMPLX22, offsets=...)`).

Each row below is: joint, parent, then where the joint is at rest: x (its left is +), y above the floor, z (forward), metres.
"""

from __future__ import annotations

import torch

from kinelib.bodies.skeleton import Skeleton

FPS = 20.0  # frames a second of the clips our small models are trained on; the released models have 30


def skeleton_from_rows(name: str, rows: str, **facts) -> Skeleton:
    """A skeleton of one line a joint: ``joint parent x y z``, in the order of the network's channels.

    Args:
        name: of the skeleton.
        rows: the table; a dash as parent marks the root.
        facts: hips, feet, hands and groups, as `Skeleton` takes them.
    """
    table = [line.split() for line in rows.strip().splitlines()]
    names = tuple(row[0] for row in table)
    parents = tuple(-1 if row[1] == "-" else names.index(row[1]) for row in table)
    places = torch.tensor([[float(number) for number in row[2:]] for row in table])
    offsets = torch.stack(
        [place - (places[parent] if parent >= 0 else 0) for place, parent in zip(places, parents, strict=True)]
    )
    return Skeleton(name, names, parents, offsets, **facts)


SMPLX22 = skeleton_from_rows(
    "smplx22",
    """
    pelvis          -               0.00  0.94  0.00
    left_hip        pelvis          0.09  0.88  0.00
    right_hip       pelvis         -0.09  0.88  0.00
    spine1          pelvis          0.00  1.05 -0.02
    left_knee       left_hip        0.10  0.48  0.01
    right_knee      right_hip      -0.10  0.48  0.01
    spine2          spine1          0.00  1.19 -0.02
    left_ankle      left_knee       0.10  0.07 -0.02
    right_ankle     right_knee     -0.10  0.07 -0.02
    spine3          spine2          0.00  1.25  0.00
    left_foot       left_ankle      0.11  0.01  0.11
    right_foot      right_ankle    -0.11  0.01  0.11
    neck            spine3          0.00  1.43 -0.02
    left_collar     spine3          0.06  1.35 -0.01
    right_collar    spine3         -0.06  1.35 -0.01
    head            neck            0.00  1.57  0.01
    left_shoulder   left_collar     0.17  1.39 -0.02
    right_shoulder  right_collar   -0.17  1.39 -0.02
    left_elbow      left_shoulder   0.43  1.39 -0.04
    right_elbow     right_shoulder -0.43  1.39 -0.04
    left_wrist      left_elbow      0.68  1.39 -0.03
    right_wrist     right_elbow    -0.68  1.39 -0.03
    """,
    hips=("right_hip", "left_hip"),
    feet=(("left_ankle", "left_foot"), ("right_ankle", "right_foot")),
    hands=(("left_wrist",), ("right_wrist",)),
    groups={
        "torso": ("pelvis", "spine1", "spine2", "spine3"),
        "neck": ("neck", "head"),
        "left_arm": ("left_collar", "left_shoulder", "left_elbow", "left_wrist"),
        "right_arm": ("right_collar", "right_shoulder", "right_elbow", "right_wrist"),
        "left_leg": ("left_hip", "left_knee", "left_ankle", "left_foot"),
        "right_leg": ("right_hip", "right_knee", "right_ankle", "right_foot"),
    },
)

SOMA30 = skeleton_from_rows(
    "soma30",
    """
    Hips                -                0.00  0.99  0.00
    Spine1              Hips             0.00  1.04  0.00
    Spine2              Spine1           0.00  1.13  0.00
    Chest               Spine2           0.00  1.24  0.00
    Neck1               Chest            0.00  1.46  0.00
    Neck2               Neck1            0.00  1.51  0.01
    Head                Neck2            0.00  1.56  0.02
    Jaw                 Head             0.00  1.57  0.05
    LeftEye             Head             0.03  1.64  0.10
    RightEye            Head            -0.03  1.64  0.10
    LeftShoulder        Chest            0.03  1.41  0.02
    LeftArm             LeftShoulder     0.18  1.41  0.00
    LeftForeArm         LeftArm          0.46  1.41  0.00
    LeftHand            LeftForeArm      0.72  1.41  0.00
    LeftHandThumbEnd    LeftHand         0.80  1.39  0.06
    LeftHandMiddleEnd   LeftHand         0.90  1.41  0.00
    RightShoulder       Chest           -0.03  1.41  0.02
    RightArm            RightShoulder   -0.18  1.41  0.00
    RightForeArm        RightArm        -0.46  1.41  0.00
    RightHand           RightForeArm    -0.72  1.41  0.00
    RightHandThumbEnd   RightHand       -0.80  1.39  0.06
    RightHandMiddleEnd  RightHand       -0.90  1.41  0.00
    LeftLeg             Hips             0.10  0.93  0.00
    LeftShin            LeftLeg          0.10  0.50  0.00
    LeftFoot            LeftShin         0.10  0.05 -0.02
    LeftToeBase         LeftFoot         0.10  0.00  0.12
    RightLeg            Hips            -0.10  0.93  0.00
    RightShin           RightLeg        -0.10  0.50  0.00
    RightFoot           RightShin       -0.10  0.05 -0.02
    RightToeBase        RightFoot       -0.10  0.00  0.12
    """,
    hips=("RightLeg", "LeftLeg"),
    feet=(("LeftFoot", "LeftToeBase"), ("RightFoot", "RightToeBase")),
    hands=(("LeftHand", "LeftHandThumbEnd", "LeftHandMiddleEnd"), ("RightHand", "RightHandThumbEnd", "RightHandMiddleEnd")),
    groups={
        "torso": ("Hips", "Spine1", "Spine2", "Chest"),
        "neck": ("Neck1", "Neck2", "Head", "Jaw", "LeftEye", "RightEye"),
        "left_arm": ("LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand", "LeftHandThumbEnd", "LeftHandMiddleEnd"),
        "right_arm": ("RightShoulder", "RightArm", "RightForeArm", "RightHand", "RightHandThumbEnd", "RightHandMiddleEnd"),
        "left_leg": ("LeftLeg", "LeftShin", "LeftFoot", "LeftToeBase"),
        "right_leg": ("RightLeg", "RightShin", "RightFoot", "RightToeBase"),
    },
)

# The G1 robot's hinges as a tree of single-axis joints: the structure is what the released layout fixes (34 joints).
ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw", "hand")
LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll", "toe")
G1_34 = skeleton_from_rows(
    "g1_34",
    """
    pelvis                -                       0.00  0.79  0.00
    left_hip_pitch        pelvis                  0.06  0.69  0.00
    left_hip_roll         left_hip_pitch          0.12  0.66  0.00
    left_hip_yaw          left_hip_roll           0.12  0.56  0.00
    left_knee             left_hip_yaw            0.12  0.38  0.00
    left_ankle_pitch      left_knee               0.12  0.08  0.00
    left_ankle_roll       left_ankle_pitch        0.12  0.06  0.00
    left_toe              left_ankle_roll         0.12  0.01  0.12
    right_hip_pitch       pelvis                 -0.06  0.69  0.00
    right_hip_roll        right_hip_pitch        -0.12  0.66  0.00
    right_hip_yaw         right_hip_roll         -0.12  0.56  0.00
    right_knee            right_hip_yaw          -0.12  0.38  0.00
    right_ankle_pitch     right_knee             -0.12  0.08  0.00
    right_ankle_roll      right_ankle_pitch      -0.12  0.06  0.00
    right_toe             right_ankle_roll       -0.12  0.01  0.12
    waist_yaw             pelvis                  0.00  0.79  0.00
    waist_roll            waist_yaw               0.00  0.83  0.00
    waist_pitch           waist_roll              0.00  0.84  0.00
    left_shoulder_pitch   waist_pitch             0.10  1.08  0.00
    left_shoulder_roll    left_shoulder_pitch     0.14  1.07  0.00
    left_shoulder_yaw     left_shoulder_roll      0.22  1.07  0.00
    left_elbow            left_shoulder_yaw       0.30  1.07  0.02
    left_wrist_roll       left_elbow              0.40  1.07  0.02
    left_wrist_pitch      left_wrist_roll         0.44  1.07  0.02
    left_wrist_yaw        left_wrist_pitch        0.48  1.07  0.02
    left_hand             left_wrist_yaw          0.58  1.07  0.02
    right_shoulder_pitch  waist_pitch            -0.10  1.08  0.00
    right_shoulder_roll   right_shoulder_pitch   -0.14  1.07  0.00
    right_shoulder_yaw    right_shoulder_roll    -0.22  1.07  0.00
    right_elbow           right_shoulder_yaw     -0.30  1.07  0.02
    right_wrist_roll      right_elbow            -0.40  1.07  0.02
    right_wrist_pitch     right_wrist_roll       -0.44  1.07  0.02
    right_wrist_yaw       right_wrist_pitch      -0.48  1.07  0.02
    right_hand            right_wrist_yaw        -0.58  1.07  0.02
    """,
    hips=("right_hip_pitch", "left_hip_pitch"),
    feet=(("left_ankle_roll", "left_toe"), ("right_ankle_roll", "right_toe")),
    hands=(("left_wrist_yaw", "left_hand"), ("right_wrist_yaw", "right_hand")),
    groups={
        "torso": ("pelvis", "waist_yaw", "waist_roll"),
        "neck": ("waist_pitch",),  # the robot has no neck; the joint that tilts its head end stands in
        **{f"{side}_arm": tuple(f"{side}_{joint}" for joint in ARM) for side in ("left", "right")},
        **{f"{side}_leg": tuple(f"{side}_{joint}" for joint in LEG) for side in ("left", "right")},
    },
)

BANDAI22 = skeleton_from_rows(
    "bandai22",
    """
    joint_Root   -            0.00  0.00  0.00
    Hips         joint_Root   0.00  0.88  0.00
    Spine        Hips         0.00  1.04  0.00
    Chest        Spine        0.00  1.13  0.00
    Neck         Chest        0.00  1.29  0.00
    Head         Neck         0.00  1.36  0.00
    Shoulder_L   Chest        0.05  1.26  0.00
    UpperArm_L   Shoulder_L   0.10  1.26  0.00
    LowerArm_L   UpperArm_L   0.35  1.26  0.00
    Hand_L       LowerArm_L   0.57  1.26  0.00
    Shoulder_R   Chest       -0.05  1.26  0.00
    UpperArm_R   Shoulder_R  -0.10  1.26  0.00
    LowerArm_R   UpperArm_R  -0.35  1.26  0.00
    Hand_R       LowerArm_R  -0.57  1.26  0.00
    UpperLeg_L   Hips         0.06  0.86  0.00
    LowerLeg_L   UpperLeg_L   0.06  0.47  0.00
    Foot_L       LowerLeg_L   0.06  0.06  0.00
    Toes_L       Foot_L       0.06  0.01  0.11
    UpperLeg_R   Hips        -0.06  0.86  0.00
    LowerLeg_R   UpperLeg_R  -0.06  0.47  0.00
    Foot_R       LowerLeg_R  -0.06  0.06  0.00
    Toes_R       Foot_R      -0.06  0.01  0.11
    """,
    hips=("UpperLeg_R", "UpperLeg_L"),
    feet=(("Foot_L", "Toes_L"), ("Foot_R", "Toes_R")),
    hands=(("Hand_L",), ("Hand_R",)),
    groups={
        "torso": ("joint_Root", "Hips", "Spine", "Chest"),
        "neck": ("Neck", "Head"),
        "left_arm": ("Shoulder_L", "UpperArm_L", "LowerArm_L", "Hand_L"),
        "right_arm": ("Shoulder_R", "UpperArm_R", "LowerArm_R", "Hand_R"),
        "left_leg": ("UpperLeg_L", "LowerLeg_L", "Foot_L", "Toes_L"),
        "right_leg": ("UpperLeg_R", "LowerLeg_R", "Foot_R", "Toes_R"),
    },
)


def named(name: str) -> Skeleton:
    """The skeleton of that name.

    Raises:
        ValueError: for a name that is none of them; the message lists them.
    """
    every = {skeleton.name: skeleton for skeleton in (SMPLX22, SOMA30, G1_34, BANDAI22)}
    if name not in every:
        raise ValueError(f"unknown skeleton {name!r}; there are {', '.join(every)}, and any BVH file brings its own.")
    return every[name]
