"""How the aligner is trained: batches of clips with texts at three levels, one checkpoint, one reasoner beside it.

In training the finer texts are the annotator's ("oracle") for a part of the clips and a reasoner's guess for the others,
made without the clip's own vote: at test time there are guesses only, and a network that has never seen one trusts them too
much.

    stage               what is left out (the paper's Table 4)
    aligner             nothing
    aligner-global      group and interaction texts
    aligner-group       interaction texts
    aligner-no-cross    the look of each level at the one before
    aligner-flat        the hierarchy: all sentences in one sequence for one encoder

Departures, for trainings of minutes (A11): AdamW with a cosine schedule and larger steps, a moving average of the weights,
batches of clips of like length, half of them in the mirror.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kinelib.kinmo.aligner import FIELDS, AlignerConfig, HierarchicalAligner
from kinelib.kinmo.codec import block_statistics
from kinelib.kinmo.data import TRAIN_SEED, Batches, MotionTexts
from kinelib.kinmo.reasoner import Reasoner
from kinelib.kinmo.retrieve import Report, report
from kinelib.kinmo.sentences import SentenceBank, sentence_bank
from kinelib.learning import checkpoints, state
from kinelib.learning.fit import FitConfig, FitResult, fit
from kinelib.learning.text import TextEncoder

ABLATIONS = {
    "aligner": {},
    "aligner-global": {"levels": ("global",)},
    "aligner-group": {"levels": ("global", "group")},
    "aligner-no-cross": {"cross": False},
    "aligner-flat": {"flat": True},
}
REASONER = "reasoner.safetensors"  # beside the checkpoint


@dataclass(frozen=True)
class AlignmentData:
    """Everything an aligner learns from, made once for all ablations."""

    train: MotionTexts  # clips to learn from
    held_out: MotionTexts  # clips to measure on
    bank: SentenceBank  # sentences of both, and of the reasoner
    reasoner: Reasoner  # made from `train` alone
    predicted: Tensor  # (N, W, 21) rows of the bank: what it says of every wording without the clip's own vote


def alignment_data(
    train: MotionTexts, held_out: MotionTexts, *, encoder: TextEncoder | None = None, cache: str | Path | None = None
) -> AlignmentData:
    """Embeds the sentences and makes the reasoner.

    Args:
        train, held_out: clips, none in both.
        encoder: of sentences; None: MiniLM.
        cache: folder of embedded sentences; None keeps none.
    """
    bank = sentence_bank(train.sentences() + held_out.sentences(), encoder, cache)
    reasoner = Reasoner.learn(train, bank, encoder)
    return AlignmentData(train, held_out, bank, reasoner, reasoner.reason_left_out(train, bank))


def build(data: AlignmentData, config: AlignerConfig | None = None) -> HierarchicalAligner:
    """An untrained aligner with statistics of the training set: of features, and of every level's different sentences."""
    model = HierarchicalAligner(config)
    train, bank = data.train, data.bank
    model.statistics.set(block_statistics(train.frames))
    columns = {"text": train.prompts, "groups": train.groups, "interactions": train.interactions}
    for level in model.config.levels:
        rows = bank.rows(sorted({sentence for texts in columns[FIELDS[level]] for sentence in texts if sentence}))
        model.whitening[level].measure(bank.vectors[torch.cat([rows, bank.reflected[rows]]).unique()])
    return model


def aligner_loss(model: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
    """The aligner's loss on a drawn batch."""
    model = getattr(model, "module", model)
    return model.loss(batch, generator)


def aligner_draw(data: AlignmentData, batch: int, *, predicted_share: float, captured_share: float) -> Callable:
    """Batches of the training set.

    Args:
        batch: clips.
        predicted_share: of clips whose finer texts are the reasoner's.
        captured_share: of captured clips, where there are any beside procedural ones.
    """
    own = {source for source in data.train.sources if source != "procedural"}
    mixed = own and "procedural" in data.train.sources
    shares = {source: captured_share / len(own) for source in own} if mixed else {}
    return Batches(
        data.train, data.bank, size=batch, shares=shares, predicted=data.predicted, predicted_share=predicted_share
    ).draw


def train_aligner(
    data: AlignmentData,
    out: str | Path = "runs/lab/kinmo",
    *,
    stage: str = "aligner",
    config: AlignerConfig | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    batch: int = 64,
    learning_rate: float = 1e-3,
    predicted_share: float = 0.5,
    captured_share: float = 0.5,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> tuple[HierarchicalAligner, FitResult]:
    """Trains an aligner and saves its checkpoint in `out`/<stage>, and for the stage "aligner" the reasoner beside it.

    Args:
        data: see :func:`alignment_data`.
        out: output folder; state and log go to `out`/<stage>-training.
        stage: a key of `ABLATIONS`, what is left out.
        config: sizes, to which the stage's changes are made.
        seconds, steps: one of them; by default 720 seconds.
        batch: clips a step.
        learning_rate: peak.
        predicted_share: of clips whose finer texts are the reasoner's, in [0, 1].
        captured_share: of draws that are captured clips, where there are both kinds, in [0, 1].
        seed: of weights, batches and noise.
        resume: go on with an interrupted training, if there is one.
        overwrite: start afresh and replace an older checkpoint.

    Returns:
        the aligner, in eval mode, and how its training went.

    Raises:
        ValueError: for an unknown stage, or a share out of range.
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
    """
    if stage not in ABLATIONS:
        raise ValueError(f"there is no stage {stage!r}; choose one of {', '.join(ABLATIONS)}.")
    out = Path(out)
    training = out / f"{stage}-training"
    state.check_free(out / stage, training, resume=resume, overwrite=overwrite)
    seconds = 720.0 if seconds is None and steps is None else seconds
    torch.manual_seed(seed)
    model = build(data, replace(config or AlignerConfig(), **ABLATIONS[stage]))
    result = fit(
        model,
        aligner_draw(data, batch, predicted_share=predicted_share, captured_share=captured_share),
        aligner_loss,
        FitConfig(steps=steps, seconds=seconds, learning_rate=learning_rate, ema_decay=0.995, seed=seed, log_every=20),
        training,
        resume=resume,
        overwrite=overwrite,
        description=f"kinmo {stage}",
    )
    if not result.stopped_early and int(os.environ.get("RANK", 0)) == 0:
        found = report(model, data.held_out, data.bank, data.reasoner)
        checkpoints.save(out / stage, model, card=aligner_card(stage, data, found, result), overwrite=True, half=True)
        if stage == "aligner":
            data.reasoner.save(out / REASONER)
    return model, result


def aligner_card(stage: str, data: AlignmentData, found: Report, result: FitResult) -> str:
    """The checkpoint's card, with retrieval among held-out clips beside what guessing reaches.

    Args:
        stage, data, result: of the training.
        found: with predicted texts.
    """
    sources = {source: data.train.sources.count(source) for source in dict.fromkeys(data.train.sources)}
    said = [f"{count} clips of {source}" for source, count in sources.items() if source != "procedural"]
    if "procedural" in sources:
        said.append(f"{sources['procedural']} procedural clips (kinelib.bodies.procedural, seed {TRAIN_SEED})")
    free = set(sources) == {"procedural"}
    metrics = {"steps": float(result.steps), "seconds": result.seconds} | found.rows(("R@1", "R@3", "MedR"), ("a", "label"))
    return checkpoints.write_card(
        f"KinMo {stage}",
        data=f"{' and '.join(said)}, and their mirror images; {len(data.held_out)} other clips were held out.",
        licence="MIT." if free else "CC BY-NC 4.0, since the captured clips are under it.",
        command=f"python -m kinelib train kinmo --stage {stage}",
        metrics=metrics,
        notes="Group and interaction texts of held-out clips are the reasoner's, made from the global text; they never saw "
        "the motion. Numbers of one gallery are not comparable with those of another size, nor with the paper's.",
    )


def load_aligner(folder: str | Path) -> HierarchicalAligner:
    """The aligner of a checkpoint folder, in eval mode; errors as of `checkpoints.load`."""
    return checkpoints.load(folder, HierarchicalAligner, AlignerConfig)
