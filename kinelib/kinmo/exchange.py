"""Clips that never were: one clip's body with another's arms, in tokens and in words.

Arms have tokens and sentences of their own, so an exchange of both is a clip that says what it shows, of a combination that
nobody captured. Trained on these, a generator learns that arms do what the sentences of arms say, whatever the legs do. This
is ours; the paper composes at test time only. Combinations that are held out (`data.HELD_OUT_COMBINATIONS`) are never made:
what the arms of a clip do is read from its arms' sentences, whatever the clip is called.

Shapes: N clips, M exchanges, 21 sentences of groups and pairs in the order of `data.SLOT_KEYS`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.data import HELD_OUT_COMBINATIONS, SLOT_KEYS, MotionTexts, belongs

ARMS = ("left_arm", "right_arm")
DEEDS = {"wave": ("waves",), "raise-up": ("raised", "held above", "held at", "held in front", "held sideways")}


def deeds(motions: MotionTexts) -> list[tuple[str, str]]:
    """What the left and the right arm of N clips do, by their sentences: "wave", "raise-up" or ""."""
    return [tuple(_deed(said[GROUPS.index(arm)]) for arm in ARMS) for said in motions.groups]


def _deed(sentence: str) -> str:
    return next((deed for deed, words in DEEDS.items() if any(word in sentence for word in words)), "")


def forbidden() -> set[tuple[str, tuple[str, str]]]:
    """Ways of going with what the arms must not do then, as that is held out."""
    found = set()
    for content in HELD_OUT_COMBINATIONS:
        going, gesture = content.split("+")
        verb = next(deed for deed in DEEDS if gesture.startswith(deed))
        found.add((going, tuple(verb if f"-{side}-" in gesture or "both" in gesture else "" for side in ("left", "right"))))
    return found


def draw_exchanges(motions: MotionTexts, count: int, generator: torch.Generator, tries: int = 4) -> tuple[Tensor, Tensor]:
    """Draws whose arms go to whom.

    Args:
        motions: the clips. count: how many exchanges are aimed at; those that are held out, or for which the clip with the
            arms is too short, are left out. generator: of the draw. tries: clips with arms tried for every exchange.

    Returns:
        rows of the bodies (M,), and of the arms (M,), M <= count.
    """
    acts, banned = deeds(motions), forbidden()
    goings = [label.split("/")[0].split("+")[0] for label in motions.labels]
    # Arms that do something are rare, and what this is for.
    busy = torch.tensor([4.0 if any(deed) else 1.0 for deed in acts])
    bodies, arms = [], []
    fits = lambda body, other: other != body and bool(motions.lengths[other] >= motions.lengths[body])
    for body in torch.randint(len(motions), (count,), generator=generator).tolist():
        for other in torch.multinomial(busy, tries, replacement=True, generator=generator).tolist():
            if fits(body, other) and (goings[body], acts[other]) not in banned:
                bodies.append(body)
                arms.append(other)
                break
    return torch.tensor(bodies, dtype=torch.long), torch.tensor(arms, dtype=torch.long)


def exchanged_slots(body: Tensor, arms: Tensor, nothing: int) -> Tensor:
    """Sentences (M, 21) of exchanges, as rows of a bank, whose row of no text is `nothing`.

    Groups and pairs keep the sentence of the clip that they come from; of pairs across the two nothing is said.
    """
    whose = [belongs(key, ARMS) for key in SLOT_KEYS]
    of_arms, across = (torch.tensor([one is which for one in whose]) for which in (True, None))
    return torch.where(of_arms, arms, body).masked_fill(across, nothing)


def exchanged_codes(body: Tensor, arms: Tensor, lengths: Tensor, streams: tuple[str, ...]) -> Tensor:
    """Codes (M, L, G, Q) of bodies with the arms' streams of other clips, 0 beyond the bodies' `lengths` (M,) times."""
    own = torch.tensor([name in ARMS for name in streams])[:, None]
    there = (torch.arange(body.shape[1]) < lengths[:, None])[..., None, None]
    return torch.where(own & there, arms, body)
