"""What a step of each robot training is given: batches drawn from a set in memory.

A draw takes a generator and gives the keyword arguments of a network's own loss. Planner and guess take windows, every one
as likely; policy, cloning and inverse dynamics take moments, every task as likely.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinelib.learning.text import TextTable
from kinelib.robots.demonstration_shards import DemonstrationError
from kinelib.robots.robot_data import RobotSet, demonstrated_tasks
from kinelib.robots.robot_planner import RobotPlanner


def guess_draw(data: RobotSet, words: Tensor, seen: Tensor, wanted: Tensor, batch: int):
    """Batches for the guess: windows, every one as likely."""

    def draw(generator: torch.Generator) -> dict:
        windows = torch.randint(len(data.starts), (batch,), generator=generator)
        rows = data.starts[windows]
        return {"seen": seen[rows], "words": words[data.said[rows]], "wanted": wanted[windows]}

    return draw


def planner_draw(planner: RobotPlanner, data: RobotSet, table: TextTable, seen: Tensor, batch: int):
    """Batches for the planner: windows, every one as likely."""

    def draw(generator: torch.Generator) -> dict:
        windows = torch.randint(len(data.starts), (batch,), generator=generator)
        rows = data.starts[windows]
        shift, scale = planner.latent_shift.cpu(), planner.latent_scale.cpu()
        latents = (data.latents[windows].float() - shift) / scale
        return {"latents": latents, "frames": data.frames(rows), "text": table.pick(data.texts(rows)), "seen": seen[rows]}

    return draw


def inverse_draw(data: RobotSet, tracks: Tensor, keep: Tensor, seen: Tensor, batch: int):
    """Batches for the inverse dynamics: moments, every task as likely."""
    choose = moments_evenly(data, batch)

    def draw(generator: torch.Generator) -> dict:
        rows = choose(generator)
        done = {"actions": data.chunks[rows, : data.every], "valid": data.valid[rows, : data.every]}
        felt = {"seen": seen[rows], "proprio": data.proprio[rows]}
        return {"tracks": tracks[rows].float(), "keep": keep[rows], **felt, **done}

    return draw


def affordance_draw(data: RobotSet, words: Tensor, places: Tensor, known: Tensor, batch: int):
    """Batches for the affordances: moments in which some place is known, every one as likely."""
    told = known.flatten(1).any(1).nonzero()[:, 0]
    if not len(told):
        raise DemonstrationError(
            "nothing but the arm moves in these demonstrations: there are no affordances to learn. Take other tasks, or "
            "train the stage policy, which does without where there is no affordance."
        )

    def draw(generator: torch.Generator) -> dict:
        rows = told[torch.randint(len(told), (batch,), generator=generator)]
        frames, said = data.frames(rows), words[data.said[rows]]
        return {"frames": frames, "words": said, "places": places[rows], "known": known[rows]}

    return draw


def moments_evenly(data: RobotSet, batch: int, labelled: int | None = None):
    """Draws rows of moments, every task as likely, and half of them from the first `labelled` rows where that is given."""
    parts = [range(len(data))] if labelled is None else [range(labelled), range(labelled, len(data))]
    rows_of = [
        [torch.tensor([row for row in part if data.tasks[row] == one]) for one in demonstrated_tasks(data)] for part in parts
    ]

    def choose(generator: torch.Generator) -> Tensor:
        task = torch.randint(len(rows_of[0]), (batch,), generator=generator).tolist()
        place = torch.rand(batch, generator=generator).tolist()
        among = [rows_of[number * len(parts) // batch][one] for number, one in enumerate(task)]
        return torch.stack([rows[int(share * len(rows))] for rows, share in zip(among, place, strict=True)])

    return choose


def action_draw(
    data: RobotSet,
    words: Tensor,
    seen: Tensor | None,
    plans: Tensor | None,
    batch: int,
    labelled: int | None = None,
    found: Tensor | None = None,
):
    """Batches for policy and cloning: moments as of :func:`moments_evenly`, with the plan that is in use then."""
    choose = moments_evenly(data, batch, labelled)

    def draw(generator: torch.Generator) -> dict:
        rows = choose(generator)
        return {
            "proprio": data.proprio[rows],
            "chunks": data.chunks[rows],
            "valid": data.valid[rows],
            "plan": None if plans is None else plans[data.window_of[rows]],
            "seen": None if seen is None else seen[rows],
            "found": None if found is None else found[rows],
            "words": words[data.said[rows]],
        }

    return draw


def own_loss(model: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
    """A network's own loss on a drawn batch."""
    return getattr(model, "module", model).loss(**batch, generator=generator)
