"""What to do, in words: for each of Meta-World's 50 tasks one sentence and three paraphrases, all written by us.

The package names its tasks and says no more. Sentences speak of what is to be moved and where to, as seen from the robot
(its right is +x), and not of how. The last paraphrase of each task is held out: no demonstration carries it, so that a
policy can be asked in words it was not trained with.
"""

from __future__ import annotations

import numpy as np

from kinelib.robots.worlds import check_known

# task -> (the sentence, paraphrase, paraphrase, held-out paraphrase)
SENTENCES: dict[str, tuple[str, str, str, str]] = {
    "assembly": (
        "put the ring over the peg",
        "place the nut onto the upright peg",
        "pick up the ring and thread it onto the peg",
        "assemble the ring and the peg",
    ),
    "basketball": (
        "drop the ball through the hoop",
        "pick up the basketball and put it in the basket",
        "carry the ball to the hoop and let it fall in",
        "score a basket",
    ),
    "bin-picking": (
        "move the block from one bin to the other",
        "pick the block out of its bin and put it in the other bin",
        "carry the block over to the second bin",
        "transfer the block between the bins",
    ),
    "box-close": (
        "put the lid on the box",
        "close the box with its lid",
        "pick up the cover and place it on the box",
        "cover the open box",
    ),
    "button-press": (
        "press the button on the front of the box",
        "push the button in",
        "press the button that faces the robot",
        "push the front button",
    ),
    "button-press-topdown": (
        "press the button down from above",
        "push down the button on top of the box",
        "press the red button downward",
        "push the top button",
    ),
    "button-press-topdown-wall": (
        "press the button down from above, behind the wall",
        "reach over the wall and push down the top button",
        "press the button downward that stands behind the wall",
        "go over the wall and push the top button",
    ),
    "button-press-wall": (
        "press the front button of the box behind the wall",
        "reach around the wall and push the button in",
        "press the button that the wall hides",
        "go past the wall and push the front button",
    ),
    "coffee-button": (
        "press the button of the coffee machine",
        "start the coffee machine",
        "push the coffee machine's button",
        "switch the coffee maker on",
    ),
    "coffee-pull": (
        "pull the mug away from the coffee machine",
        "take the cup from the coffee machine to the marker",
        "drag the mug back from under the coffee machine",
        "bring the cup away from the coffee maker",
    ),
    "coffee-push": (
        "push the mug under the coffee machine",
        "move the cup to the coffee machine",
        "slide the mug under the coffee machine's spout",
        "bring the cup under the coffee maker",
    ),
    "dial-turn": (
        "turn the dial",
        "rotate the dial half way round",
        "twist the round knob",
        "give the dial a turn",
    ),
    "disassemble": (
        "take the ring off the peg",
        "lift the nut from the upright peg",
        "pull the ring up and off the peg",
        "separate the ring from the peg",
    ),
    "door-close": (
        "close the door",
        "push the door shut",
        "shut the open door of the safe",
        "swing the door closed",
    ),
    "door-lock": (
        "lock the door",
        "turn the lock of the door down",
        "rotate the latch so that the door is locked",
        "secure the door with its lock",
    ),
    "door-open": (
        "open the door",
        "pull the door open by its handle",
        "open the door of the safe",
        "swing the door open",
    ),
    "door-unlock": (
        "unlock the door",
        "turn the lock of the door sideways",
        "rotate the latch so that the door is unlocked",
        "release the door's lock",
    ),
    "drawer-close": (
        "close the drawer",
        "push the drawer shut",
        "slide the open drawer back in",
        "shut the drawer",
    ),
    "drawer-open": (
        "open the drawer",
        "pull the drawer open by its handle",
        "slide the drawer out",
        "draw the drawer out towards the robot",
    ),
    "faucet-close": (
        "turn the faucet handle to the left",
        "close the faucet by pushing its handle left",
        "rotate the tap to the left",
        "shut the tap by turning it left",
    ),
    "faucet-open": (
        "turn the faucet handle to the right",
        "open the faucet by pushing its handle right",
        "rotate the tap to the right",
        "turn the tap on by moving it right",
    ),
    "hammer": (
        "drive the nail in with the hammer",
        "pick up the hammer and hit the nail",
        "hammer the nail into the wall of the box",
        "use the hammer to knock the nail in",
    ),
    "hand-insert": (
        "put the gripper into the hole",
        "insert the hand into the opening of the table",
        "lower the gripper into the hole in the table",
        "stick the hand into the hole",
    ),
    "handle-press": (
        "press the handle down",
        "push the lever in front of the robot down",
        "move the handle downward",
        "put the handle down",
    ),
    "handle-press-side": (
        "press the handle at the side down",
        "push down the lever that points sideways",
        "move the sideways handle downward",
        "put the side handle down",
    ),
    "handle-pull": (
        "pull the handle up",
        "lift the lever in front of the robot",
        "move the handle upward",
        "raise the handle",
    ),
    "handle-pull-side": (
        "pull the handle at the side up",
        "lift the lever that points sideways",
        "move the sideways handle upward",
        "raise the side handle",
    ),
    "lever-pull": (
        "pull the lever up",
        "swing the lever upward",
        "raise the hanging lever",
        "lift the lever to the top",
    ),
    "peg-insert-side": (
        "insert the peg into the hole in the side of the box",
        "pick up the peg and push it into the box sideways",
        "put the peg into the hole at the side",
        "plug the peg into the box",
    ),
    "peg-unplug-side": (
        "pull the peg out of the side of the box",
        "unplug the peg sideways",
        "take the peg out of the hole at the side",
        "remove the plug from the box",
    ),
    "pick-out-of-hole": (
        "pick the block out of the hole",
        "lift the block out of the hole to the marker",
        "take the block out of the opening in the table",
        "get the block out of the hole",
    ),
    "pick-place": (
        "pick up the block and carry it to the marker",
        "lift the block and place it at the ball that hangs in the air",
        "grasp the block and bring it to the target",
        "take the block up to the goal",
    ),
    "pick-place-wall": (
        "carry the block over the wall to the marker",
        "pick up the block, lift it over the wall and bring it to the target",
        "grasp the block and place it behind the wall",
        "take the block across the wall to the goal",
    ),
    "plate-slide": (
        "slide the plate forward into the goal",
        "push the puck away from the robot into the net",
        "move the plate ahead into the cabinet",
        "shoot the puck forward into the goal",
    ),
    "plate-slide-back": (
        "slide the plate back out of the goal",
        "pull the puck towards the robot out of the net",
        "drag the plate back from the cabinet",
        "bring the puck back from the goal",
    ),
    "plate-slide-back-side": (
        "slide the plate sideways out of the goal",
        "drag the puck to the right out of the net",
        "move the plate out of the cabinet at its side",
        "bring the puck out of the goal sideways",
    ),
    "plate-slide-side": (
        "slide the plate sideways into the goal",
        "push the puck to the left into the net",
        "move the plate into the cabinet from its side",
        "shoot the puck sideways into the goal",
    ),
    "push": (
        "push the block along the table to the marker",
        "slide the block over the table to the target",
        "move the block forward on the table to the spot",
        "shove the block to the goal",
    ),
    "push-back": (
        "pull the block back towards the robot to the marker",
        "slide the block backward over the table to the target",
        "drag the block back to the spot near the robot",
        "bring the block back to the goal",
    ),
    "push-wall": (
        "push the block around the wall to the marker",
        "slide the block past the wall to the target",
        "move the block on the table to the spot behind the wall",
        "shove the block around the wall to the goal",
    ),
    "reach": (
        "move the gripper to the marker",
        "reach the ball that hangs in the air with the empty gripper",
        "bring the hand to the target and leave the block alone",
        "touch the goal with the gripper",
    ),
    "reach-wall": (
        "move the gripper over the wall to the marker",
        "reach the ball behind the wall with the empty gripper",
        "bring the hand past the wall to the target",
        "touch the goal beyond the wall with the gripper",
    ),
    "shelf-place": (
        "put the block on the shelf",
        "pick up the block and place it on the shelf",
        "lift the block onto the shelf",
        "shelve the block",
    ),
    "soccer": (
        "push the ball into the goal",
        "kick the soccer ball into the net",
        "roll the ball into the goal",
        "score a goal with the ball",
    ),
    "stick-pull": (
        "pull the jug with the stick",
        "pick up the stick and drag the thermos by its handle",
        "use the stick to pull the container to the marker",
        "hook the jug with the stick and bring it closer",
    ),
    "stick-push": (
        "push the jug with the stick",
        "pick up the stick and shove the thermos with it",
        "use the stick to push the container to the marker",
        "shift the jug to the goal with the stick",
    ),
    "sweep": (
        "sweep the block off to the right of the table",
        "move the block sideways to the marker at the right",
        "wipe the block over to the right",
        "sweep the block to the edge of the table",
    ),
    "sweep-into": (
        "sweep the block into the hole",
        "push the block over the table into the opening",
        "wipe the block into the hole in the table",
        "make the block fall into the hole",
    ),
    "window-close": (
        "close the window",
        "slide the window shut to the left",
        "push the window's handle to the left",
        "shut the window",
    ),
    "window-open": (
        "open the window",
        "slide the window open to the right",
        "push the window's handle to the right",
        "open up the sliding window",
    ),
}


def sentence(task: str, seed: int | None = None) -> str:
    """A sentence for a task: the first one, or of those for training the one that a seed draws.

    Raises:
        WorldError: for an unknown task.
    """
    known = SENTENCES[check_known("Meta-World task", task, SENTENCES)]
    return known[0] if seed is None else known[int(np.random.default_rng(seed).integers(len(known) - 1))]


def held_out_sentence(task: str) -> str:
    """The paraphrase that no demonstration carries; raises WorldError for an unknown task."""
    return SENTENCES[check_known("Meta-World task", task, SENTENCES)][-1]
