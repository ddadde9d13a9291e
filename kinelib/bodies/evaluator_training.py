"""How the evaluator is trained: captioned clips as features, batches of them, and a checkpoint with a card.

Every second clip is seen in the mirror, with left and right exchanged in its words and in its label, so that what the
network knows of sides it must have seen in the motion. One of a clip's wordings is drawn every time.

Shapes: F frames in all, N clips, D features, B clips of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from kinelib.bodies.evaluator import EvaluatorConfig, MotionEvaluator
from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import mirrored, placed
from kinelib.bodies.procedural_words import mirrored_words
from kinelib.bodies.retrieval import Retrieval, with_threshold
from kinelib.learning import checkpoints, state
from kinelib.learning.fit import FitConfig, FitResult, fit
from kinelib.learning.text import TextEncoder, TextTable, text_table
from kinelib.notation import ShapeError

NAME = "evaluator"  # of the checkpoint's folder
MEASURED_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class EvaluatorData:
    """Captioned clips as features, one after the other.

    Args:
        frames: (F, D) unnormalised Kimodo features at the evaluator's frame rate.
        lengths: (N,) frames of every clip.
        prompts: N tuples of sentences.
        labels: N strings; clips with the same label may be described alike.

    Raises:
        ShapeError: when these are not of the same clips, or there is none.
    """

    frames: Tensor
    lengths: Tensor
    prompts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    numbers: dict[str, int] = field(init=False, repr=False)  # of every label and its mirror image

    def __post_init__(self) -> None:
        counts = {len(self.lengths), len(self.prompts), len(self.labels)}
        if counts == {0} or len(counts) != 1 or int(self.lengths.sum()) != len(self.frames):
            raise ShapeError(
                f"{len(self.frames)} frames, {len(self.lengths)} lengths, {len(self.prompts)} prompts and "
                f"{len(self.labels)} labels are not those of the same clips, at least one."
            )
        names = dict.fromkeys(name for label in self.labels for name in (label, mirrored_words(label)))
        object.__setattr__(self, "numbers", {name: number for number, name in enumerate(names)})

    def __len__(self) -> int:
        return len(self.lengths)

    def sentences(self) -> list[str]:
        """All different prompts and their mirror images, sorted."""
        said = {sentence for wordings in self.prompts for sentence in wordings}
        return sorted(said | {mirrored_words(sentence) for sentence in said})

    def padded(self, rows: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """The first `frames` frames at most of some clips: features (B, T, D) and lengths (B,)."""
        lengths, starts = self.lengths[rows].clamp(max=frames), self.lengths.cumsum(0) - self.lengths
        at = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
        return self.frames[starts[rows][:, None] + at], lengths


def measured_statistics(data: EvaluatorData, model: MotionEvaluator, clips: int = 2048) -> Statistics:
    """Statistics of the channels the evaluator reads, of clips (an even selection) and their mirror images."""
    rows = torch.arange(0, len(data), max(1, len(data) // clips))
    features, lengths = data.padded(rows, model.config.frames)
    both = torch.cat([features, mirrored(features, model.layout)])
    ahead, _ = placed(both, model.layout, heading=torch.zeros(len(both)))
    return Statistics.measure(ahead[..., model.channels], lengths.repeat(2))


def evaluator_draw(data: EvaluatorData, sentences: TextTable, model: MotionEvaluator, batch: int) -> Callable:
    """Batches of clips, half of them in the mirror, with a wording and the number of the label of each."""

    def draw(generator: torch.Generator) -> dict:
        rows = torch.randint(len(data), (batch,), generator=generator)
        features, lengths = data.padded(rows, model.config.frames)
        flip = torch.rand(batch, generator=generator) < 0.5
        features[flip] = mirrored(features[flip], model.layout)
        lots, said, labels = torch.rand(batch, generator=generator).tolist(), [], []
        for row, other, lot in zip(rows.tolist(), flip.tolist(), lots, strict=True):
            words, label = data.prompts[row][int(lot * len(data.prompts[row]))], data.labels[row]
            said.append(mirrored_words(words) if other else words)
            labels.append(data.numbers[mirrored_words(label) if other else label])
        text = sentences.pick(said)
        return {"features": features, "lengths": lengths, "text": text, "labels": torch.tensor(labels)}

    return draw


def evaluator_loss(model: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
    """The evaluator's loss on a drawn batch."""
    model = getattr(model, "module", model)
    return model.loss(batch["features"], batch["lengths"], batch["text"], batch["labels"], generator)


@torch.no_grad()
def measure(model: MotionEvaluator, data: EvaluatorData, sentences: TextTable) -> Retrieval:
    """Retrieval among the clips by their first prompts; a motion with the same label counts as found."""
    device = model.statistics.mean.device
    motions, texts = [], []
    for rows in torch.arange(len(data)).split(MEASURED_AT_ONCE):
        features, lengths = data.padded(rows, model.config.frames)
        motions.append(model.embed_features(features.to(device), lengths))
        text = sentences.pick([data.prompts[row][0] for row in rows.tolist()]).to(device)
        texts.append(nn.functional.normalize(model.tmr.encode_text(*text).mean, dim=-1))
    numbers = torch.tensor([data.numbers[label] for label in data.labels])
    one_hot = nn.functional.one_hot(numbers, len(data.numbers)).double()
    return with_threshold((torch.cat(texts) @ torch.cat(motions).T).cpu(), one_hot, right_ties_count=False)


def train_evaluator(
    data: EvaluatorData,
    held_out: EvaluatorData,
    out: str | Path = "runs/lab/kimodo",
    *,
    config: EvaluatorConfig | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    batch: int = 96,
    learning_rate: float = 1e-3,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    source: str = "captioned clips",
    licence: str = "MIT",
    command: str = "python -m kinelib train kimodo --stage evaluator",
    encoder: TextEncoder | None = None,
    cache: str | Path | None = None,
) -> tuple[MotionEvaluator, FitResult]:
    """Trains an evaluator and saves its checkpoint in `out`/evaluator.

    Args:
        data: what it is trained on.
        held_out: clips it is measured on, none of them in `data`.
        out: output folder; state and log go to `out`/evaluator-training.
        config: sizes.
        seconds, steps: one of them; by default 300 seconds.
        batch: clips a step.
        learning_rate: peak.
        seed: of weights, batches and noise.
        resume: go on with an interrupted training, if there is one.
        overwrite: start afresh and replace an older checkpoint.
        source: what the clips are, for the card.
        licence: of the weights, for the card.
        command: what reproduces them, for the card.
        encoder: of the prompts. cache: folder of their embeddings; None keeps none.

    Returns:
        the evaluator, in eval mode, and how its training went.

    Raises:
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
    """
    out = Path(out)
    training = out / f"{NAME}-training"
    state.check_free(out / NAME, training, resume=resume, overwrite=overwrite)
    seconds = 300.0 if seconds is None and steps is None else seconds
    torch.manual_seed(seed)
    model = MotionEvaluator(config)
    model.statistics.set(measured_statistics(data, model))
    table = text_table(data.sentences() + held_out.sentences(), encoder or TextEncoder(), cache)
    result = fit(
        model,
        evaluator_draw(data, table, model, batch),
        evaluator_loss,
        FitConfig(steps=steps, seconds=seconds, learning_rate=learning_rate, ema_decay=0.995, seed=seed, log_every=20),
        training,
        resume=resume,
        overwrite=overwrite,
        description="motion evaluator",
    )
    if not result.stopped_early and int(os.environ.get("RANK", 0)) == 0:
        card = evaluator_card(model, data, held_out, measure(model, held_out, table), result, source, licence, command)
        checkpoints.save(out / NAME, model, card=card, overwrite=True, half=True)
    return model, result


def evaluator_card(
    model: MotionEvaluator,
    data: EvaluatorData,
    held_out: EvaluatorData,
    found: Retrieval,
    result: FitResult,
    source: str,
    licence: str,
    command: str,
) -> str:
    """The checkpoint's card, with retrieval among held-out clips beside what guessing reaches."""
    metrics: dict[str, float | str] = {"steps": float(result.steps), "seconds": result.seconds}
    for way, numbers in (("text to motion", found.text_to_motion), ("motion to text", found.motion_to_text)):
        for name in ("R@1", "R@3", "MedR"):
            metrics[f"{name}, {way}, {found.gallery} held-out clips"] = numbers[name]
    metrics |= {f"{name} by chance": found.chance[name] for name in ("R@1", "R@3", "MedR")}
    return checkpoints.write_card(
        "Evaluator of motion and text",
        data=f"{len(data)} clips ({source}) and their mirror images; {len(held_out)} others were held out.",
        licence=licence,
        command=command,
        metrics=metrics,
        notes=f"Embeds {model.config.skeleton} at {model.config.fps:g} fps. A motion counts as found when its label is the "
        "query's. What is measured with this evaluator is not comparable with what is measured with another, nor across "
        "sizes of galleries.",
    )


def load_evaluator(folder: str | Path) -> MotionEvaluator:
    """The evaluator of a checkpoint folder, in eval mode; errors as of `checkpoints.load`."""
    return checkpoints.load(folder, MotionEvaluator, EvaluatorConfig)
