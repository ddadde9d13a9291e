"""How the generator is trained: the loss of a batch of tokens, what it is measured by, and a checkpoint with a card.

One network learns three things at once. The base transformer predicts hidden tokens, scattered, of whole groups or of a span
(`kinelib.kinmo.masks`), reading the words up to a level that is drawn for every clip (assumption A9) or none at all. The
residual transformer predicts the codes of one layer, drawn for every step, of a share of the batch, where all lower layers
are the true ones. A11: optimiser and lengths of trainings are our own, for minutes on one core.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kinelib.kinmo.masked import LEVELS, GeneratorConfig, MaskedMotionGenerator, masked_loss
from kinelib.kinmo.masks import MaskConfig, disguised, draw_free, draw_hidden, lowest, there
from kinelib.kinmo.token_sets import TokenSet, draw_tokens
from kinelib.learning import checkpoints, state
from kinelib.learning.fit import FitConfig, FitResult, fit
from kinelib.notation import ShapeError

MEASURED = 256  # held-out clips at most
HIDDEN = (1.0, 0.5)  # shares of tokens that are hidden when it is measured


@dataclass(frozen=True)
class LossConfig:
    """What is learned how often."""

    masks: MaskConfig = MaskConfig()  # which tokens are hidden
    levels: tuple[float, ...] = (0.3, 0.3, 0.4)  # odds of the levels up to which words are seen
    silent: float = 0.1  # share of clips without words, for guidance
    residual: float = 0.5  # share of the batch that the residual transformer learns from

    def __post_init__(self) -> None:
        if min(self.levels) < 0 or sum(self.levels) <= 0 or not 0 <= self.silent <= 1 or not 0 < self.residual <= 1:
            raise ValueError(f"odds are not negative, silent is in [0, 1], residual in (0, 1]; got {self}.")


def generator_loss(config: LossConfig) -> Callable[[nn.Module, dict, torch.Generator], dict[str, Tensor]]:
    """The loss of a drawn batch: "base" and "residual" cross-entropy, nats a token, and how often the base is right."""

    def measure(model: MaskedMotionGenerator, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
        codes, lengths, words = batch["codes"], batch["lengths"], batch["words"]
        sizes, device = model.config, codes.device
        odds = torch.tensor(config.levels[: sizes.levels], device=device)
        level = torch.multinomial(odds, len(codes), replacement=True, generator=generator)
        silent = torch.rand(len(codes), generator=generator, device=device) < config.silent
        words = words._replace(level=level, silent=words.silent | silent)
        free = draw_free(lengths, codes.shape[1], sizes.streams, config.masks, generator)
        hidden = draw_hidden(free, generator)
        seen = disguised(codes[..., 0], hidden, sizes.codes, config.masks, generator)
        base, right = masked_loss(model(seen, words, lengths), codes[..., 0], hidden)
        terms = {"loss": base, "base": base, "right": right}
        if sizes.codebooks > 1:
            layer = int(torch.randint(1, sizes.codebooks, (1,), generator=generator, device=device))
            terms["residual"] = residual_loss(model, batch | {"words": words}, layer, config.residual)
            terms["loss"] = base + terms["residual"]
        return terms

    return measure


def residual_loss(model: MaskedMotionGenerator, batch: dict, layer: int, share: float = 1.0) -> Tensor:
    """Cross-entropy of a layer's codes, from the true ones below, of the first part of a batch."""
    few = max(1, round(share * len(batch["codes"])))
    codes, lengths = batch["codes"][:few], batch["lengths"][:few]
    logits = model.next_layer(codes[..., :layer], batch["words"].pick(slice(few)), lengths)
    return masked_loss(logits, codes[..., layer], there(lengths, *codes.shape[1:3]))[0]


def held_out_loss(motions: TokenSet, seed: int = 0) -> Callable[[nn.Module], dict[str, float]]:
    """A validation for `fit`: nats a base token by level and by share that is hidden, and of the further layers."""
    rows = torch.linspace(0, len(motions) - 1, min(MEASURED, len(motions))).round().long()
    batch = motions.take(rows, torch.arange(len(rows)) % motions.means.shape[1])

    def validate(model: MaskedMotionGenerator) -> dict[str, float]:
        device = model.bias.device
        codes, lengths, words = (batch[key].to(device) for key in ("codes", "lengths", "words"))
        all_of_them, found = there(lengths, *codes.shape[1:3]), {}
        for share in HIDDEN:
            scores = torch.rand(all_of_them.shape, generator=torch.Generator().manual_seed(seed)).to(device)
            hidden = lowest(scores, all_of_them, share)
            seen = torch.where(hidden, model.config.codes, codes[..., 0])
            for level in range(model.config.levels):
                loss, _ = masked_loss(model(seen, words.at(level), lengths), codes[..., 0], hidden)
                found[f"{LEVELS[level]}, {share:.0%} hidden"] = float(loss)
        given = {"codes": codes, "lengths": lengths, "words": words}
        layers = [float(residual_loss(model, given, layer)) for layer in range(1, model.config.codebooks)]
        return found | ({"residual": sum(layers) / len(layers)} if layers else {})

    return validate


def fitting(config: GeneratorConfig, motions: TokenSet, codes: int) -> GeneratorConfig:
    """The config with the numbers that tokens and words dictate.

    Args:
        config: everything else.
        motions: the training set.
        codes: K of the tokenizer.
    """
    _, times, streams, codebooks = motions.codes.shape
    levels, width = motions.means.shape[2:]
    dictated = {"streams": streams, "codebooks": codebooks, "codes": codes, "levels": levels, "text_width": width}
    if config.sentence_width:
        dictated["sentence_width"] = motions.sentences.shape[1]
    return replace(config, **dictated, longest=times)


def train_generator(
    motions: TokenSet,
    held_out: TokenSet,
    out: str | Path = "runs/lab/kinmo",
    *,
    codes: int,
    name: str = "generator",
    config: GeneratorConfig | None = None,
    loss: LossConfig | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    batch: int = 48,
    learning_rate: float = 2e-3,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    start: MaskedMotionGenerator | None = None,
    source: str = "captioned clips",
    licence: str = "MIT",
    command: str = "python -m kinelib train kinmo --stage generator",
) -> tuple[MaskedMotionGenerator, FitResult]:
    """Trains a generator and saves its checkpoint in `out`/`name`.

    Args:
        motions: what it is trained on. held_out: clips it is measured on, none of them in `motions`.
        out: output folder; state and log go to `out`/`name`-training.
        codes: K of the tokenizer.
        name: of the checkpoint.
        config: sizes; what tokens and words dictate is set.
        loss: what is learned how often.
        seconds, steps: one of them; by default 1500 seconds.
        batch: clips a step.
        learning_rate: peak.
        seed: of weights, batches and noise.
        resume: go on with an interrupted training, if there is one.
        overwrite: start afresh and replace an older checkpoint.
        start: every weight of it that fits is where training begins, and its text statistics are kept.
        source: what the clips are, licence: of the weights, command: what reproduces them; for the card.

    Returns:
        the generator, in eval mode, and how its training went.

    Raises:
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
        ShapeError: when the held-out clips have other streams, codebooks or levels.
    """
    out = Path(out)
    training = out / f"{name}-training"
    state.check_free(out / name, training, resume=resume, overwrite=overwrite)
    if motions.codes.shape[2:] != held_out.codes.shape[2:] or motions.means.shape[2:] != held_out.means.shape[2:]:
        raise ShapeError("the held-out clips were encoded by another tokenizer or aligner than the training set.")
    seconds = 1500.0 if seconds is None and steps is None else seconds
    torch.manual_seed(seed)
    model = MaskedMotionGenerator(fitting(config or GeneratorConfig(), motions, codes))
    parts = [motions.sentences[part.unique().long()] for part in (motions.said[..., 1:], motions.said[..., :1])]
    of_groups, of_wholes = (part[(part != 0).any(-1)] for part in parts)  # no text is no sentence
    model.set_text_statistics(motions.means.flatten(0, 1), motions.states.flatten(0, 1), of_groups, of_wholes)
    if start is not None:
        own = model.state_dict()
        earlier = {key: one for key, one in start.state_dict().items() if key in own and own[key].shape == one.shape}
        model.load_state_dict(own | earlier)
    result = fit(
        model,
        draw_tokens(motions, batch),
        generator_loss(loss or LossConfig()),
        FitConfig(
            steps=steps, seconds=seconds, learning_rate=learning_rate, ema_decay=0.995, final_learning_rate=0.02, seed=seed
        ),
        training,
        resume=resume,
        overwrite=overwrite,
        validate=held_out_loss(held_out),
        validate_every=1000,
        description=f"kinmo {name}",
    )
    if not result.stopped_early and int(os.environ.get("RANK", 0)) == 0:
        metrics = {"steps": float(result.steps), "seconds": result.seconds, "final loss": float(result.losses[-1]["loss"])}
        last = {key: one for key, one in result.validations[-1].items() if key not in ("step", "seconds")}
        metrics |= {f"held-out nats a token, {key}": one for key, one in last.items()}
        card = checkpoints.write_card(
            f"KinMo {name}",
            data=f"{len(motions)} clips ({source}) and their mirror images as motion tokens; {len(held_out)} were held out.",
            licence=licence,
            command=command,
            metrics=metrics,
            notes="Needs the tokenizer and the aligner of the same folder." if model.config.levels > 1 else "",
        )
        checkpoints.save(out / name, model, card=card, overwrite=True, half=True)
    return model, result
