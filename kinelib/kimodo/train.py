"""Trains Kimodo's denoiser: on captured and procedural motion, on procedural motion alone, and with parts left out.

    python -m kinelib train kimodo --stage denoiser --profile lab --resume

One call of `fit` a stage, in the two phases of `curriculum`: text alone, then text and constraints. What is kept is the
moving average of the weights (Section 5.1 of the paper), with statistics measured on the training set.

    stage           data                         what differs
    denoiser        captured, if any + procedural
    procedural      procedural                   half the weights, which are free to use
    one-stage       as denoiser                  one transformer of as many layers for root and body
    global-root     as denoiser                  the second stage reads the root as it is, not how it moves
    no-curriculum   as denoiser                  constraints from the first step, all of them at once
    no-smooth-root  as denoiser                  the pelvis itself instead of the smoothed root
    no-extra-tokens as denoiser                  no register tokens
    evaluator       as denoiser                  not a denoiser: see `kinelib.bodies.evaluator`

Departures of the small sizes, chosen for short trainings and not compared one by one: AdamW with a cosine schedule instead
of Adam-atan2 at a constant rate, more of the training in phase two, no dropout, noisier steps drawn more often, and three
more weights in `LOSS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinelib.bodies.features import FeatureLayout
from kinelib.bodies.skeletons import FPS, SMPLX22
from kinelib.kimodo.curriculum import Curriculum, draw_masks
from kinelib.kimodo.data import (
    TEST_SEED,
    TRAIN_SEED,
    Batches,
    MotionSet,
    captured_set,
    procedural_set,
    sentence_vectors,
    statistics,
)
from kinelib.kimodo.denoiser import PAPER_L, DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.diffusion import STEPS, q_sample
from kinelib.kimodo.losses import LossConfig, MotionLoss
from kinelib.kimodo.train_evaluator import train_evaluator_stage
from kinelib.learning import checkpoints, state
from kinelib.learning.fit import FitConfig, FitResult, fit
from kinelib.learning.profiles import Profile, profile
from kinelib.learning.schedule import CONTINUED
from kinelib.learning.text import TextEncoder, text_table

STAGES = (
    "denoiser",
    "procedural",
    "one-stage",
    "global-root",
    "no-curriculum",
    "no-smooth-root",
    "no-extra-tokens",
    "evaluator",
)
SHIPPED_STAGES = ("denoiser", "procedural", "evaluator")  # what a training without a stage makes
PROCEDURAL = {"width": 192, "ffn": 384, "layers": 3}  # simpler motion, and a file that is shipped beside the larger one
SMALL = Curriculum(text_only=0.25, rootless=0.15, dropout=(0.0, 0.0))
LOSS = LossConfig(pinned=1.0, motion=0.5, standing=0.5)


@dataclass(frozen=True)
class Size:
    """How much of everything a profile trains."""

    clips: int  # procedural clips
    batch: int  # clips a step
    seconds: float  # of training
    learning_rate: float = 1e-3  # peak
    optimizer: str = "adamw"
    ema_decay: float = 0.998  # of the weights that are kept
    final_learning_rate: float = 0.02  # share of the peak at the end
    curriculum: Curriculum = SMALL
    loss: LossConfig = LOSS
    captured_share: float = 0.5  # of every batch from captured motion, where there is any
    noise_bias: float = 1.7  # diffusion steps are drawn with odds step^(bias - 1); 1 is even, as published


SIZES = {
    Profile.SMOKE: Size(192, 32, 25.0),
    Profile.LAB: Size(3072, 32, 3600.0),
    # Constant rate, EMA 0.995 every 10 steps (here 0.9995 every step), half of the training each phase, as published.
    Profile.PAPER: Size(
        100_000, 128, 14 * 86_400.0, 2e-5, "adam-atan2", 0.9995, 1.0, Curriculum(), LossConfig(), noise_bias=1.0
    ),
}


def build(stage: str, size: Profile, **changes: Any) -> TwoStageDenoiser:
    """An untrained network of a stage at a profile's size.

    Args:
        stage: one of `STAGES`.
        size: profile.
        changes: fields of `DenoiserConfig` to set, for a study of sizes.
    """
    paper = replace(PAPER_L, skeleton=SMPLX22.name, joints=len(SMPLX22), fps=FPS, max_frames=200, text_width=384)
    config = paper if size is Profile.PAPER else DenoiserConfig()
    parts = {
        "procedural": {} if size is Profile.PAPER else PROCEDURAL,
        "one-stage": {"stages": 1},
        "global-root": {"stage2_root": "global"},
        "no-extra-tokens": {"registers": 0},
    }
    return TwoStageDenoiser(replace(config, **(parts.get(stage, {}) | changes)))


def stage_curriculum(stage: str, curriculum: Curriculum) -> Curriculum:
    """The phases of a stage: the profile's own, or none."""
    return replace(curriculum, text_only=0.0, first_cap=curriculum.last_cap) if stage == "no-curriculum" else curriculum


def training_set(stage: str, clips: int, captured: Path | None, cache: Path | None = None, part: str = "train") -> MotionSet:
    """The clips of a stage.

    Args:
        stage: one of `STAGES`.
        clips: procedural ones.
        captured: folder of Bandai-Namco's clips; None: procedural motion alone.
        cache: folder of features that are made already.
        part: "train", or "test" for clips that are held out.
    """
    smooth = stage != "no-smooth-root"
    motions = procedural_set(clips, TRAIN_SEED if part == "train" else TEST_SEED, smooth=smooth, cache=cache)
    if captured is None or stage == "procedural":
        return motions
    return captured_set(captured, part, smooth=smooth, cache=cache).join(motions)


def draws(batches: Batches, curriculum: Curriculum) -> Callable[[torch.Generator, float], dict]:
    """What `fit` draws: a batch, and from phase two on which of its features are given."""

    def draw(generator: torch.Generator, progress: float) -> dict:
        batch = dict(batches.draw(generator))
        constrained = curriculum.constrained(progress)
        frames, cap = batch["features"].shape[1], curriculum.cap(progress)
        batch["mask"] = (
            draw_masks(batch["lengths"], frames, batches.layout, curriculum, cap, generator) if constrained else None
        )
        batch["dropout"] = curriculum.dropout[int(constrained)]
        return batch

    return draw


def denoising_loss(
    loss: MotionLoss, noise_bias: float = 1.0
) -> Callable[[nn.Module, dict, torch.Generator], dict[str, Tensor]]:
    """The loss of one drawn batch: noised, its given features written over, and made clean again.

    Args:
        loss: of the clean estimate.
        noise_bias: steps are drawn with odds step^(bias - 1). What a sentence asks for is decided while there is little
            but noise; a short training gains from seeing that more often than evenly (1).
    """

    def measure(model: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
        model.set_dropout(batch["dropout"])
        clean = model.statistics.normalize(batch["features"])
        device = clean.device
        lots = torch.rand(len(clean), generator=generator, device=device) ** (1 / noise_bias)
        steps = (lots * STEPS).long().clamp(max=STEPS - 1)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        conditions = batch["text"], batch["heading"], batch["mask"], clean, batch["lengths"]
        prediction = model(q_sample(clean, steps, noise), steps, *conditions)
        return loss(prediction, clean, batch["lengths"], model.statistics, batch["mask"])

    return measure


def held_out(batches: Batches, curriculum: Curriculum, loss: MotionLoss, count: int = 4) -> Callable[[nn.Module], dict]:
    """A validation for `fit`: loss on held-out clips, the same draws every time; with text alone, and with constraints."""
    measure = denoising_loss(loss)
    draw = draws(batches, replace(curriculum, text_only=0.5))

    def validate(model: nn.Module) -> dict[str, float]:
        device = model.statistics.mean.device
        found = {}
        for name, progress in (("text", 0.0), ("constrained", 0.75)):
            total = 0.0
            for seed in range(count):
                batch = draw(torch.Generator().manual_seed(seed), progress)
                batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
                total += float(measure(model, batch, torch.Generator(device).manual_seed(seed))["loss"])
            found[name] = total / count
        return found

    return validate


def captured_folder(stage: str, given: str | Path | None) -> Path | None:
    """Where captured motion is: as given, or what KINELIB_DATA points at; None for a stage that wants none.

    Raises:
        FileNotFoundError: when a folder is given and not there.
    """
    if stage == "procedural":
        return None
    if given is not None and not Path(given).exists():
        raise FileNotFoundError(f"there is no folder {given} of captured clips.")
    found = given or os.environ.get("KINELIB_DATA")
    return Path(found) if found else None


def cache_folder(out: Path) -> Path:
    """Where features and embedded prompts are kept: `data` in the folder "runs" around `out`, or else beside `out`."""
    return next((parent for parent in out.absolute().parents if parent.name == "runs"), out.parent) / "data"


def train_stage(
    stage: str,
    profile_name: str = "lab",
    out: str | Path = "runs/lab/kimodo",
    *,
    resume: bool = False,
    overwrite: bool = False,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    captured: str | Path | None = None,
    start: str | Path | None = None,
    data_share: float = 1.0,
    network: dict[str, Any] | None = None,
    size: Size | None = None,
) -> FitResult:
    """Trains one stage and saves its checkpoint in `out`/<stage>.

    Args:
        stage: one of `STAGES`.
        profile_name: "smoke", "lab" or "paper".
        out: output folder; states and logs go to `out`/<stage>-training.
        resume: go on with an interrupted training, if there is one.
        overwrite: start afresh and replace an older checkpoint.
        steps, seconds: instead of the profile's budget.
        seed: of weights, data order and noise.
        captured: folder of Bandai-Namco's clips; default: what KINELIB_DATA points at. None there: procedural motion alone.
        start: folder of earlier checkpoints; every tensor of `start`/<stage> that fits is where training begins, at
            `CONTINUED` of the peak learning rate, and its statistics are kept.
        data_share: part of the clips that is trained on, (0, 1].
        network: fields of `DenoiserConfig` to set.
        size: instead of the profile's.

    Raises:
        ValueError: for an unknown stage or profile, both steps and seconds, or a share out of range.
        FileNotFoundError: when the folder `captured` or the checkpoint to start from is missing.
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; choose one of: {', '.join(STAGES)}.")
    if not 0 < data_share <= 1:
        raise ValueError(f"data_share is in (0, 1]; got {data_share}.")
    name, out = profile(profile_name), Path(out)
    size = size or SIZES[name]
    if steps is None and seconds is None:
        seconds = size.seconds
    config = FitConfig(
        steps=steps,
        seconds=seconds,
        learning_rate=size.learning_rate * (1 if start is None else CONTINUED),
        optimizer=size.optimizer,
        final_learning_rate=size.final_learning_rate,
        ema_decay=size.ema_decay,
        seed=seed,
    )
    state.check_free(out / stage, out / f"{stage}-training", resume=resume, overwrite=overwrite)
    folder, cache = captured_folder(stage, captured), cache_folder(out)
    if stage == "evaluator":
        sets = [training_set("denoiser", count, folder, cache, part) for count, part in _parts(size.clips)]
        own = dict(
            resume=resume, overwrite=overwrite, steps=steps, seconds=None if steps else min(seconds, 400.0), seed=seed
        )
        return train_evaluator_stage(*sets, out, cache=cache, **own)
    torch.manual_seed(seed)
    model = build(stage, name, **(network or {}))
    earlier = start and checkpoints.load(Path(start) / stage, TwoStageDenoiser, DenoiserConfig)
    motions = training_set(stage, size.clips, folder, cache)
    if data_share < 1:
        # Every so-manieth clip: the shares of contents and sources stay.
        motions = motions.pick(sorted({int(i / data_share) for i in range(max(1, round(len(motions) * data_share)))}))
    tests = training_set(stage, _parts(size.clips)[1][0], folder, cache, part="test")
    model.set_statistics(*statistics(motions, frames=model.config.max_frames))
    if earlier:
        fitting = {
            k: v
            for k, v in earlier.state_dict().items()
            if k in model.state_dict() and model.state_dict()[k].shape == v.shape
        }
        model.load_state_dict(model.state_dict() | fitting)
    sentences = sorted({*motions.sentences(), *tests.sentences()})
    vectors = sentence_vectors(text_table(sentences, TextEncoder(), cache), sentences)
    if not (earlier and earlier.config.whiten_text):  # otherwise its statistics are part of the weights it starts from
        heard = set(motions.sentences())
        model.set_text_statistics(vectors[[sentence in heard and sentence != "" for sentence in sentences]])
    own = {source for source in motions.sources if source != "procedural"}
    options = dict(
        frames=model.config.max_frames,
        shares=dict.fromkeys(own, size.captured_share) if "procedural" in motions.sources else {},
    )
    curriculum = stage_curriculum(stage, size.curriculum)
    loss = MotionLoss(FeatureLayout(SMPLX22), FPS, size.loss)
    result = fit(
        model,
        draws(Batches(motions, sentences, vectors, size=size.batch, **options), curriculum),
        denoising_loss(loss, size.noise_bias),
        config,
        out / f"{stage}-training",
        tell_progress=True,
        resume=resume,
        overwrite=overwrite,
        validate=held_out(Batches(tests, sentences, vectors, size=size.batch, **options), curriculum, loss),
        validate_every=1000,
        description=f"kimodo {stage}",
    )
    if not result.stopped_early and int(os.environ.get("RANK", 0)) == 0:
        budget = {"steps": steps, "seconds": config.seconds, "seed": seed, "start": start and "DIR"}
        card = stage_card(stage, name, motions, result, budget, None if start is None else Path(start) / stage)
        extra = {"smooth_root": stage != "no-smooth-root", "data_share": data_share}
        checkpoints.save(out / stage, model, card=card, extra=extra, overwrite=True, half=True)
    return result


def _parts(clips: int) -> tuple[tuple[int, str], tuple[int, str]]:
    """How many procedural clips are trained on, and how many are held out."""
    return (clips, "train"), (max(8, clips // 16), "test")


def stage_card(
    stage: str, name: Profile, motions: MotionSet, result: FitResult, options: dict, begun: Path | None = None
) -> str:
    """The checkpoint's card.

    Args:
        stage, name: what was trained, at which profile.
        motions: the training set.
        result: of the training.
        options: of the command; None = not given.
        begun: folder of the checkpoint that training began with.
    """
    counts = {source: motions.sources.count(source) for source in dict.fromkeys(motions.sources)}
    said = [f"{count} clips of {source}" for source, count in counts.items() if source != "procedural"]
    if "procedural" in counts:
        said.append(f"{counts['procedural']} procedural clips (kinelib.bodies.procedural, seed {TRAIN_SEED})")
    free = set(counts) == {"procedural"}
    licence = "MIT." if free else "CC BY-NC 4.0, since the captured clips are under it."
    given = "".join(f" --{key} {value}" for key, value in options.items() if value is not None)
    minutes = len(motions.frames) / FPS / 60
    metrics = {"steps": float(result.steps), "seconds": result.seconds, "final loss": float(result.losses[-1]["loss"])}
    if result.validations:
        metrics |= {f"held-out loss, {key}": result.validations[-1][key] for key in ("text", "constrained")}
    start = " It starts from an earlier checkpoint of this stage (see LOG.md)." if options.get("start") else ""
    return checkpoints.write_card(
        f"Kimodo {stage} ({name})",
        data=f"{' and '.join(said)}; {minutes:.0f} minutes at {FPS:g} frames a second, mirrored and turned.{start}",
        licence=checkpoints.inherited_licence(licence, begun),
        command=f"python -m kinelib train kimodo --stage {stage} --profile {name}{given}",
        metrics=metrics,
    )
