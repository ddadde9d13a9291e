"""The three sizes in which everything here can be run."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import TypeVar

Value = TypeVar("Value")


class Profile(StrEnum):
    """How much to spend; a string, so it can be printed, compared and written to JSON."""

    SMOKE = "smoke"  # every notebook end to end on a laptop: trains a little, shows the shipped checkpoint
    LAB = "lab"  # trains the shipped checkpoints from scratch: half an hour on a GPU or a night on a CPU
    PAPER = "paper"  # the papers' sizes and batches, for several GPUs

    def choose(self, *, smoke: Value, lab: Value, paper: Value) -> Value:
        """Returns the argument that belongs to this profile, so that the three sizes stand side by side in the code."""
        return {Profile.SMOKE: smoke, Profile.LAB: lab, Profile.PAPER: paper}[self]


def profile(name: str) -> Profile:
    """Returns the profile of that name.

    Args:
        name: ``"smoke"``, ``"lab"`` or ``"paper"``, in lower case.

    Raises:
        ValueError: for any other name; the message lists the three and guesses which was meant.
    """
    names = [member.value for member in Profile]
    if name in names:
        return Profile(name)
    close = difflib.get_close_matches(str(name).lower().strip(), names, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"There is no profile {name!r}; choose 'smoke', 'lab' or 'paper'.{guess}")
