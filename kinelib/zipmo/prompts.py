"""Do prompts steer motion? Sentences about held-out scenes, and the share of samples that do what they say.

The futures of a scene are open given its first frame, and each future has its caption. The forecaster gets frame and
sentence, no pokes; the judge (`prompt_judge`) answers a question from the forecast tracks, and a sample follows the prompt
when the answer is the captioned one. Prompts are drawn evenly over the options that the same first frame allows, so the
picture alone cannot answer; two controls measure that: no text, and the caption of a future with another answer (whoever
still gives the first answer then did not read). Chance is one over the number of options.

The paper conditions on text for robots only and measures their success; this measurement is ours.
Shapes as in `prompt_judge`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinelib.learning.files import write_text_whole
from kinelib.learning.image import to_model_frame
from kinelib.learning.intervals import Interval, bootstrap
from kinelib.learning.profiles import Profile, profile
from kinelib.learning.text import Text, TextEncoder, text_table
from kinelib.tracks.scene_looks import COLOURS
from kinelib.tracks.scenes import CHUNK, Scenes, sample_scenes
from kinelib.zipmo.data import TEST_SEED
from kinelib.zipmo.forecast import TEXT_GUIDANCE
from kinelib.zipmo.pretrained import load_latent
from kinelib.zipmo.prompt_judge import QUESTIONS, PromptCase, answers, judge
from kinelib.zipmo.prompt_words import WORDINGS

FUTURES = 10  # futures of a first frame among which options are looked for
DRIFT_SHARE = 0.2  # of the scenes that can be asked about the camera, how many are
COUNTS = {Profile.SMOKE: 32, Profile.LAB: 400, Profile.PAPER: 1600}  # cases in the generator's wording
SHARES = {"generator": 1, "free": 4, "blind": 1}  # of these cases in each wording: all of them, a quarter, all


def prompt_cases(
    count: int, seed: int = TEST_SEED, *, wording: str = "generator", size: int = 64, futures: int = FUTURES
) -> list[PromptCase]:
    """Held-out first frames with a prompt each, drawn evenly over the answers that futures of that frame give.

    Args:
        count: cases, from all families in turn; the first k of them do not depend on it.
        seed: of the scenes; TEST_SEED and above are held out.
        wording: "generator" for the captions of the futures, "free" or "blind" for sentences that training never uses.
        size: pixels of the first frame.
        futures: how many of a first frame are looked at; a frame whose futures all agree gives no case.

    Raises:
        ValueError: for an unknown wording, no cases, or fewer than 2 futures.
    """
    if wording not in WORDINGS or count < 1 or futures < 2:
        raise ValueError(
            f"wording is one of {', '.join(WORDINGS)}, count >= 1, futures >= 2; got {wording!r}, {count}, {futures}."
        )
    cases: list[PromptCase] = []
    while len(cases) < count:
        # Frames too small to look at: only tracks and captions of the futures are needed.
        later = [sample_scenes(CHUNK, seed, size=8, future_seed=10 * TEST_SEED + futures * seed + k) for k in range(futures)]
        frames = to_model_frame(sample_scenes(CHUNK, seed, size=size, num_frames=1).first_frame, size)
        made = (_case(later, frames[row], row, np.random.default_rng([seed, row]), wording) for row in range(CHUNK))
        cases += [case for case in made if case]
        seed += 1
    return cases[:count]


def _case(later: list[Scenes], frame: Tensor, row: int, chance: np.random.Generator, wording: str) -> PromptCase | None:
    known, family = later[0].facts, later[0].family[row]
    three = bool(known["joint_lengths"][row, 2].isfinite())
    said = [answers(family, scenes.label[row], bool(scenes.facts["camera"][row]), three) for scenes in later]
    open_to = [question for question in said[0] if len({answer[question] for answer in said}) > 1]
    # Every scene but the camera's could be asked about drift; a fixed share of them is.
    drift = "drift" in open_to and chance.random() < DRIFT_SHARE
    open_to = [question for question in open_to if (question == "drift") == drift]
    if not open_to:
        return None
    question = QUESTIONS[name := open_to[chance.integers(len(open_to))]]
    found = [option for option in question.options if any(answer[name] == option for answer in said)]
    pair = chance.permutation(found)[:2]
    picked = [chance.choice([k for k, answer in enumerate(said) if answer[name] == option]) for option in pair]
    prompts = [later[k].captions[row] for k in picked]
    right, other = (question.options.index(option) for option in pair)
    if wording != "generator":
        colour = next(word for word in prompts[0].split() if word in COLOURS)
        prompts = [str(chance.choice(question.said[wording][option])).format(c=colour) for option in (right, other)]
    facts = {key: known[key][row].double().numpy() for key in ("direction", "walls", "joint_lengths", "radius")}
    facts |= {key: known[key][row, 0].double().numpy() for key in ("centre", "angle")} | {"main": int(known["main"][row])}
    truths = [later[k].tracks.xy[row] for k in picked]
    part, scenery = later[0].object_index[row].numpy(), ~later[0].on_object[row].numpy()
    return PromptCase(family, name, wording, right, other, *prompts, frame, *truths, part, scenery, facts)


@dataclass(frozen=True)
class PromptRow:
    """The share of samples whose motion gives the prompt's answer, for one kind of question."""

    category: str
    wording: str
    count: int  # cases
    chance: float  # mean over cases of 1 / options
    followed: Interval  # with the prompt
    no_text: Interval  # the prompt's answer without the prompt
    swapped: Interval  # the prompt's answer after a prompt with another answer


@torch.no_grad()
def prompts_followed(
    forecast: Callable[..., Tensor],
    cases: Sequence[PromptCase],
    *,
    samples: int = 4,
    seed: int = 0,
    batch: int = 16,
    encoder: TextEncoder | None = None,
) -> list[PromptRow]:
    """Measures how many samples do what the prompt says, with both controls at the same noise.

    Args:
        forecast: see `forecast`; called with `text` and without pokes.
        cases: from :func:`prompt_cases`, of one or both wordings.
        samples: K a case.
        seed: of the noise.
        batch: cases at a time.
        encoder: of the sentences; None: the standard one.

    Returns:
        A row for each wording and category with at least 2 cases, and one for all categories of the wording together.
        Intervals are bootstrapped over cases.
    """
    prompts, others = [case.prompt for case in cases], [case.other_prompt for case in cases]
    table = text_table(prompts + others, encoder or TextEncoder())
    said = table.pick(prompts)
    texts = {"followed": said, "no_text": Text.empty(len(cases), said.tokens.shape[-1]), "swapped": table.pick(others)}
    shares = {}
    for name, text in texts.items():
        share = []
        for rows in torch.arange(len(cases)).split(batch):
            some = [cases[row] for row in rows.tolist()]
            frame, points = torch.stack([case.frame for case in some]), torch.stack([case.truth[:, 0] for case in some])
            nothing = torch.zeros(len(some), 1, 5), torch.zeros(len(some), 1, dtype=torch.bool)
            options = dict(num_frames=some[0].truth.shape[1], samples=samples, text=text.pick(rows))
            tracks = forecast(frame, *nothing, points, seed=seed + int(rows[0]), **options)
            share += [(judge(own, case) == case.right).float().mean() for own, case in zip(tracks, some, strict=True)]
        shares[name] = torch.stack(share)
    rows = []
    for wording in dict.fromkeys(case.wording for case in cases):
        of_wording = [i for i, case in enumerate(cases) if case.wording == wording]
        for category in [*dict.fromkeys(question.category for question in QUESTIONS.values()), "all"]:
            mine = [i for i in of_wording if category in ("all", cases[i].category)]
            if len(mine) >= 2:
                chance = float(np.mean([1 / len(cases[i].options) for i in mine]))
                measured = {name: bootstrap(share[mine]) for name, share in shares.items()}
                rows.append(PromptRow(category, wording, len(mine), chance, **measured))
    return rows


def prompt_table(rows: Sequence[PromptRow]) -> str:
    """A Markdown table in per cent, one row a kind of question, with 95 % intervals for the prompts."""
    lines = ["| asked about | wording | n | chance | followed | no text | other prompt |", "|---|---" + "|---:" * 5 + "|"]
    for row in rows:
        shown = [format(100 * x, ".0f") for x in (row.chance, row.followed.value, row.no_text.value, row.swapped.value)]
        shown[1] += f" [{100 * row.followed.low:.0f}, {100 * row.followed.high:.0f}]"
        lines.append("| " + " | ".join([row.category, row.wording, str(row.count), *shown]) + " |")
    return "\n".join(lines)


def evaluate_prompts(
    json_path: str | Path,
    *,
    profile_name: str = "lab",
    checkpoint: str | Path | None = None,
    text_guidance: float = TEXT_GUIDANCE,
) -> str:
    """Measures how many prompts the shipped or a given planner follows; behind ``python -m kinelib evaluate prompts``.

    Args:
        json_path: where the rows go.
        profile_name: how many cases, see `COUNTS`.
        checkpoint: folder with autoencoder and planner; default: the shipped ones.
        text_guidance: of the sampler.

    Returns:
        The table as Markdown.

    Raises:
        ValueError: for an unknown profile, or a planner that reads no text.
    """
    name = profile(profile_name)
    latent = load_latent(checkpoint, text_guidance=text_guidance)
    if not latent.takes_text:
        raise ValueError(
            "this planner reads no text (text_width = 0); train one that does: kinelib train zipmo --stage planner"
        )
    cases = [case for wording in WORDINGS for case in prompt_cases(COUNTS[name] // SHARES[wording], wording=wording)]
    rows = prompts_followed(latent, cases)
    content = {"text_guidance": text_guidance, "samples": 4, "seed": 0, "rows": [asdict(row) for row in rows]}
    write_text_whole(json_path, json.dumps(content, indent=1) + "\n")
    return prompt_table(rows)
