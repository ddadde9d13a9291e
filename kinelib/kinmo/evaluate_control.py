"""Trajectory control measured: the root's path of held-out clips, asked for under the clips' own captions.

Ways of control stand beside the caption alone, which knows nothing of the path. The error is raw: of what is decoded, with
no clean-up. A path must not be paid for with sliding feet, so these stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from kinelib.bodies.humanml3d import recover_root
from kinelib.kinmo.coarse_to_fine import KinMo
from kinelib.kinmo.control import OFF, Pull, control_error, follow, root_path
from kinelib.kinmo.control_branch import ControlBranch
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.evaluate_generation import quality
from kinelib.kinmo.rows import Row, over_clips

TABLE = "trajectory control"
FEWEST = 40  # frames of a clip whose path is asked for
MET = 0.1  # metres, the target


def control_rows(
    model: KinMo,
    held_out: MotionTexts,
    branch: ControlBranch | None = None,
    *,
    count: int,
    seed: int = 0,
    say: Callable = lambda line: None,
) -> list[Row]:
    """Errors of `count` held-out paths by every way of control there is.

    Args:
        model: the trained parts.
        held_out: clips; those of at least `FEWEST` frames are spread over evenly.
        branch: trained; None: without its rows.
        count: paths. seed: of the draws. say: called with a line of progress.
    """
    longest = 4 * model.generator.config.longest
    long = (held_out.lengths >= FEWEST).nonzero().flatten().tolist()
    chosen = [long[int(i * len(long) / count)] for i in range(count)] if count < len(long) else long
    if not chosen:
        raise ValueError(f"there is no held-out clip of at least {FEWEST} frames whose path could be asked for.")
    kept = held_out.pick(chosen)
    clips = [one[:longest] for one in kept.frames.split(kept.lengths.tolist())]
    prompts = [said[0] for said in kept.prompts]
    targets = [root_path(recover_root(one)[1][:, [0, 2]]) for one in clips]
    ways = {
        "the caption alone": dict(pull=OFF),
        "logits pulled": dict(pull=Pull(finish=0)),
        "logits pulled, code vectors finished": dict(pull=Pull()),
    }
    if branch is not None:
        ways["trained branch"] = dict(pull=OFF, branch=branch)
        ways["trained branch, logits pulled, code vectors finished"] = dict(pull=Pull(), branch=branch)
    rows = []
    for way, options in ways.items():
        made = follow(model, prompts, targets, seed=seed, **options)
        errors = control_error(made, targets)
        goal = 100 * MET if "finished" in way else None
        rows += over_clips(TABLE, way, "mean error of the root's path, raw", 100 * errors, "cm", target=goal)
        rows += over_clips(TABLE, way, f"paths within {100 * MET:g} cm", 100.0 * (errors <= MET).double(), "%")
        for metric, (values, unit) in quality(made).items():
            rows += over_clips(TABLE, way, metric, values, unit)
        say(f"{way}: {100 * float(errors.mean()):.1f} cm over {len(made)} paths")
    reach = torch.stack([one["pelvis"][:, [0, 2]].norm(dim=-1).mean() for one in targets])
    return rows + over_clips(TABLE, "standing still at the start", "mean error of the root's path, raw", 100 * reach, "cm")
