"""Trains the networks of KinMo: aligner and its ablations, tokenizer, generator with its baseline, control branch.

    python -m kinelib train kinmo --profile lab --resume

    stage               what it is
    aligner             motion and texts at three levels in one space; writes the reasoner beside its checkpoint
    aligner-...         the aligner with a part left out, for the paper's Table 4 (see `align_training`)
    tokenizer           motion as codes of six groups
    generator           codes from the aligner's levels, coarse to fine
    flat                the same generator from one sentence vector: no levels, no alignment, no groups
    control             a branch that leads the generator along a path

Later stages use the tokenizer, aligner and generator of the same output folder, frozen. Data: Bandai-Namco's clips, where
they are, and procedural ones; combinations of movements are held out (`kinelib.kinmo.data`). Sizes of the profile "paper"
are those of TMR and MoMask, which the paper takes over (assumption A11).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinelib.kinmo.align_training import ABLATIONS, AlignmentData, alignment_data, train_aligner
from kinelib.kinmo.aligner import AlignerConfig
from kinelib.kinmo.control_branch import train_branch
from kinelib.kinmo.data import TRAIN_SEED, MotionTexts, training_set
from kinelib.kinmo.generator_training import LossConfig, train_generator
from kinelib.kinmo.masked import GeneratorConfig
from kinelib.kinmo.masks import MaskConfig
from kinelib.kinmo.pretrained import load_aligner, load_generator, load_tokenizer
from kinelib.kinmo.reasoner import Reasoner
from kinelib.kinmo.sentences import SentenceBank
from kinelib.kinmo.token_sets import TokenSet, token_set
from kinelib.kinmo.tokenizer_training import train_tokenizer
from kinelib.learning import checkpoints
from kinelib.learning.fit import FitResult
from kinelib.learning.profiles import Profile, profile
from kinelib.learning.schedule import CONTINUED
from kinelib.learning.text import TextEncoder

GENERATORS = ("generator", "flat")
STAGES = (*ABLATIONS, "tokenizer", *GENERATORS, "control")
SHIPPED_STAGES = ("aligner", "tokenizer", *GENERATORS, "control")  # what a training without a stage makes, in order


@dataclass(frozen=True)
class Size:
    """How much of everything a profile trains; the tokenizer's sizes are in `tokenizer_training`."""

    clips: int  # procedural clips
    aligner: AlignerConfig  # sizes
    generator: GeneratorConfig  # sizes
    seconds: dict[str, float]  # of training by stage; "aligner" is that of each ablation as well
    aligner_batch: int = 64  # clips a step
    generator_batch: int = 48
    aligner_rate: float = 1e-3  # peak learning rates
    generator_rate: float = 2e-3
    readings: int = 8  # of every clip that the generator sees, see `token_sets`
    loss: LossConfig = LossConfig()  # of the generators
    captured_share: float = 0.5  # of every batch from captured motion, where there is any
    exchanges: int = 0  # clips with another clip's arms that the generator sees as well, see `exchange`


_PAPER_LOSS = LossConfig(MaskConfig(groups=0.0, spans=0.0, slips=0.0), levels=(1.0, 1.0, 1.0), silent=0.1, residual=1.0)
SIZES = {
    Profile.SMOKE: Size(
        192,
        AlignerConfig(width=64, feed_forward=128),
        GeneratorConfig(width=96, depth=2, residual_depth=1, feed_forward=192, code_width=32),
        {"aligner": 20.0, "tokenizer": 15.0, "generator": 20.0, "flat": 10.0, "control": 8.0},
        readings=4,
    ),
    Profile.LAB: Size(
        3072,
        AlignerConfig(),
        GeneratorConfig(),
        {"aligner": 720.0, "tokenizer": 600.0, "generator": 1500.0, "flat": 600.0, "control": 300.0},
        exchanges=3072,
    ),
    Profile.PAPER: Size(
        100_000,
        AlignerConfig(patch=1, width=256, layers=6, feed_forward=1024, contrastive_weight=0.1, reconstructed=1.0),
        GeneratorConfig(
            width=384,
            depth=8,
            residual_depth=8,
            feed_forward=1024,
            code_width=512,
            dropout=0.2,
            cumulative=False,
            states=False,
            sentence_width=0,
            modulate=False,
        ),
        dict.fromkeys(SHIPPED_STAGES, 5 * 86_400.0),
        aligner_batch=32,
        generator_batch=64,
        aligner_rate=1e-4,
        generator_rate=2e-4,
        loss=_PAPER_LOSS,
    ),
}


def captured_folder(given: str | Path | None) -> Path | None:
    """Where captured motion is: as given, or what KINELIB_DATA points at; None without either.

    Raises:
        FileNotFoundError: when a folder is given and not there.
    """
    if given is not None and not Path(given).exists():
        raise FileNotFoundError(f"there is no folder {given} of captured clips.")
    found = given or os.environ.get("KINELIB_DATA")
    return Path(found) if found else None


def cache_folder(out: Path) -> Path:
    """Where features, sentences and codes are kept: `data` in the folder "runs" around `out`, or else beside `out`."""
    return next((parent for parent in out.absolute().parents if parent.name == "runs"), out.parent) / "data"


def clip_sets(size: Size, captured: Path | None, cache: Path | None) -> tuple[MotionTexts, MotionTexts]:
    """The clips of a profile to train on, and those that are held out to measure the training by."""
    held_out = max(8, size.clips // 16)
    return training_set(captured, size.clips, cache), training_set(captured, held_out, cache, part="test")


def reasoned_rows(reasoner: Reasoner, motions: MotionTexts, bank: SentenceBank) -> Tensor:
    """(N, W, 21) rows of the bank: what a reasoner says of every wording of clips that it does not know.

    Args:
        motions: the clips; wordings beyond a clip's last are repeated from its first on.
        bank: with the sentences of the clips the reasoner was made from.
    """
    most = max(map(len, motions.prompts))
    asked = [said[number % len(said)] for said in motions.prompts for number in range(most)]
    found = {text: bank.rows(one.sentences) for text, one in zip(asked, reasoner.reason(asked), strict=True)}
    return torch.stack([found[text] for text in asked]).unflatten(0, (len(motions), most))


def train_stage(
    stage: str,
    profile_name: str = "lab",
    out: str | Path = "runs/lab/kinmo",
    *,
    resume: bool = False,
    overwrite: bool = False,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    captured: str | Path | None = None,
    start: str | Path | None = None,
    size: Size | None = None,
    encoder: TextEncoder | None = None,
    **changes: Any,
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
        start: generators only: folder of earlier checkpoints; every tensor of `start`/<stage> that fits is where training
            begins, at `CONTINUED` of the peak learning rate.
        size: instead of the profile's.
        encoder: of sentences; None: MiniLM.
        changes: other arguments of the stage's own training function, for a study.

    Raises:
        ValueError: for an unknown stage or profile, both steps and seconds, or a `start` that a stage has no use for.
        FileNotFoundError: when captured clips, the tokenizer, the aligner or the checkpoint to start from are missing.
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; choose one of: {', '.join(STAGES)}.")
    if start is not None and stage not in GENERATORS:
        raise ValueError(f"only {' and '.join(GENERATORS)} can start from earlier weights; {stage!r} begins afresh.")
    name, out = profile(profile_name), Path(out)
    size = size or SIZES[name]
    if steps is None and seconds is None:
        seconds = size.seconds["aligner" if stage in ABLATIONS else stage]
    options = dict(steps=steps, seconds=seconds, seed=seed, resume=resume, overwrite=overwrite, **changes)
    cache = cache_folder(out)
    train, held_out = clip_sets(size, captured_folder(captured), cache)
    if stage == "tokenizer":
        return train_tokenizer(train, held_out, out, size=name, **_facts(train, stage, name), **options)[1]
    if stage in ABLATIONS:
        data = alignment_data(train, held_out, encoder=encoder, cache=cache)
        own = dict(config=size.aligner, batch=size.aligner_batch, learning_rate=size.aligner_rate)
        return train_aligner(data, out, stage=stage, captured_share=size.captured_share, **own | options)[1]
    data = alignment_data(train, held_out, encoder=encoder, cache=cache)
    if stage == "control":
        return _train_control(name, out, size, data, cache, options)
    return _train_generator(stage, name, out, size, data, start, cache, options)


def _tokens(stage: str, out: Path, size: Size, data: AlignmentData, cache: Path) -> TokenSet:
    """The training set as a generator reads it, through the tokenizer and the aligner of `out`."""
    return token_set(
        data.train,
        data.bank,
        load_tokenizer(folder=out),
        None if stage == "flat" else load_aligner(folder=out),
        predicted=data.predicted,
        readings=size.readings,
        captured_share=size.captured_share,
        exchanges=size.exchanges if stage == "generator" else 0,
        cache=cache,
    )


def _train_generator(
    stage: str,
    name: Profile,
    out: Path,
    size: Size,
    data: AlignmentData,
    start: str | Path | None,
    cache: Path,
    options: dict[str, Any],
) -> FitResult:
    tokenizer, aligner = load_tokenizer(folder=out), None if stage == "flat" else load_aligner(folder=out)
    # Held-out clips are read as they will be: the reasoner's sentences, all of them.
    guessed = reasoned_rows(data.reasoner, data.held_out, data.bank)
    alone = dict(predicted=guessed, predicted_share=1.0, dropped=0.0, readings=2)
    held_out = token_set(data.held_out, data.bank, tokenizer, aligner, **alone)
    earlier = start and load_generator(stage, start)
    rate = size.generator_rate * (CONTINUED if earlier else 1)
    own = dict(config=size.generator, loss=size.loss, batch=size.generator_batch, learning_rate=rate)
    facts = _facts(data.train, stage, name)
    facts["licence"] = checkpoints.inherited_licence(facts["licence"], start and Path(start) / stage)
    own |= dict(codes=tokenizer.config.codes, name=stage, start=earlier, **facts)
    return train_generator(_tokens(stage, out, size, data, cache), held_out, out, **own | options)[1]


def _train_control(
    name: Profile, out: Path, size: Size, data: AlignmentData, cache: Path, options: dict[str, Any]
) -> FitResult:
    facts = _facts(data.train, "control", name)
    own = dict(batch=size.generator_batch, licence=facts["licence"], command=facts["command"])
    tokens = _tokens("control", out, size, data, cache)
    return train_branch(load_generator(folder=out), tokens, data.train, out, **own | options)[1]


def _facts(motions: MotionTexts, stage: str, name: Profile) -> dict[str, str]:
    """What a card says of the data, the licence and the command."""
    counts = {source: motions.sources.count(source) for source in dict.fromkeys(motions.sources)}
    said = [f"{count} clips of {source}" for source, count in counts.items() if source != "procedural"]
    if "procedural" in counts:
        said.append(f"{counts['procedural']} procedural clips (kinelib.bodies.procedural, seed {TRAIN_SEED})")
    licence = "MIT." if set(counts) == {"procedural"} else "CC BY-NC 4.0, since the captured clips are under it."
    command = f"python -m kinelib train kinmo --stage {stage} --profile {name}"
    return {"source": " and ".join(said), "licence": licence, "command": command}
