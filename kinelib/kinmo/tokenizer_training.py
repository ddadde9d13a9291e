"""How the motion tokenizer is trained and measured: windows of clips, half of them mirrored, and a checkpoint with a card.

Measured on whole held-out clips: the mean distance of joints from the original's (MPJPE) with the pelvis in the same place
and in the world, where the root's path has drifted; how far planted feet slide, beside the original's; and which share of
the codes is in use. Motions are those of the position block, which is what `codec.decode` reads.

    python -m kinelib train kinmo --stage tokenizer

Shapes: F frames in all, N clips, B windows of a batch, T frames of a window.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from kinelib.bodies.humanml3d import CONTACTS, FPS, recover
from kinelib.kinmo.codec import block_statistics, mirrored
from kinelib.kinmo.quantizer import use
from kinelib.kinmo.tokens import STRIDE, MotionTokenizer, TokenizerConfig
from kinelib.learning import checkpoints, state
from kinelib.learning.fit import FitConfig, FitResult, fit
from kinelib.learning.profiles import Profile
from kinelib.notation import ShapeError

NAME = "tokenizer"  # of the checkpoint's folder
WINDOW = 64  # frames, as MoMask's
PLANTED = 0.2  # metres a second below which the original's foot stands
MEASURED_AT_ONCE = 128
MEASURED_FRAMES = 50_000  # an even selection of about so many frames gives the statistics


class Clips(Protocol):
    """Clips as features, one after the other; `kinelib.kinmo.data.MotionTexts` is one."""

    frames: Tensor  # (F, 263) unnormalised
    lengths: Tensor  # (N,)


@dataclass(frozen=True)
class TokenizerSize:
    """How much a profile trains."""

    config: TokenizerConfig
    batch: int  # windows a step
    seconds: float  # of training
    learning_rate: float = 2e-3  # peak


SIZES = {
    Profile.SMOKE: TokenizerSize(TokenizerConfig(width=48, blocks=1, codes=64), 16, 15.0),
    Profile.LAB: TokenizerSize(TokenizerConfig(), 48, 600.0),
    # MoMask's: one stream, six codebooks of 512 codes and 512 channels, batches of 256, about 50 epochs of HumanML3D.
    Profile.PAPER: TokenizerSize(
        TokenizerConfig(streams="body", width=512, blocks=6, layers=6, codes=512, code_width=512, decay=0.99),
        256,
        86_400.0,
        2e-4,
    ),
}


@dataclass(frozen=True)
class Reconstruction:
    """What is left of held-out clips after tokenizing; metres become centimetres here."""

    clips: int
    local_cm: float  # MPJPE, the pelvis put where the original's is
    global_cm: float  # MPJPE in the world, from the same start
    skate_cm: float  # centimetres a second that planted feet slide
    original_skate_cm: float  # the same of the originals
    used: tuple[tuple[float, ...], ...]  # share of codes in use, by stream and layer
    perplexity: tuple[tuple[float, ...], ...]  # as a share of the codes, by stream and layer


def tokenizer_draw(data: Clips, batch: int, window: int = WINDOW) -> Callable:
    """Batches of windows of clips, shorter clips whole, half of them in the mirror."""
    starts = data.lengths.cumsum(0) - data.lengths

    def draw(generator: torch.Generator) -> dict:
        rows = torch.randint(len(data.lengths), (batch,), generator=generator)
        spare = (data.lengths[rows] - window).clamp_min(0)
        offsets = (torch.rand(batch, generator=generator) * (spare + 1)).long()
        lengths = data.lengths[rows].clamp(max=window)
        at = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
        features = data.frames[(starts[rows] + offsets)[:, None] + at]
        flip = torch.rand(batch, generator=generator) < 0.5
        features[flip] = mirrored(features[flip])
        return {"features": features, "lengths": lengths}

    return draw


def tokenizer_loss(model: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
    """The tokenizer's loss on a drawn batch."""
    return getattr(model, "module", model).loss(batch["features"], batch["lengths"], generator)


@torch.no_grad()
def measure(model: MotionTokenizer, data: Clips, layers: int | None = None) -> Reconstruction:
    """Tokenizes and decodes clips.

    Args:
        model: in eval mode.
        data: clips, whole.
        layers: how many of the codebooks are used; None: all.
    """
    device = model.statistics.mean.device
    clips, codes, local, world = data.frames.split(data.lengths.tolist()), [], [], []
    slid: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(clips), MEASURED_AT_ONCE):
        chunk = clips[first : first + MEASURED_AT_ONCE]
        lengths = torch.tensor([len(one) for one in chunk])
        features = nn.utils.rnn.pad_sequence(chunk, batch_first=True)
        found = model.encode(features.to(device), lengths)[..., :layers]
        made, found = model.decode(found, lengths).cpu()[:, : features.shape[1]], found.cpu()
        codes += [one[: -(-length // STRIDE)] for one, length in zip(found, lengths.tolist(), strict=True)]
        there = torch.arange(features.shape[1]) < lengths[:, None]
        own, wanted = recover(made), recover(features)
        world.append((own - wanted).norm(dim=-1)[there].mean(-1))
        local.append(((own - own[..., :1, :]) - (wanted - wanted[..., :1, :])).norm(dim=-1)[there].mean(-1))
        slid.append(_slides(own, wanted, there))
    shares = use(torch.cat(codes).permute(1, 0, 2), model.config.codes)
    mean = lambda parts: 100 * float(torch.cat(list(parts)).mean())
    return Reconstruction(
        len(clips),
        mean(local),
        mean(world),
        *(mean(parts) for parts in zip(*slid, strict=True)),
        *(tuple(tuple(row) for row in share.tolist()) for share in shares),
    )


def train_tokenizer(
    data: Clips,
    held_out: Clips,
    out: str | Path = "runs/lab/kinmo",
    *,
    size: Profile = Profile.LAB,
    config: TokenizerConfig | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    source: str = "captured and procedural clips",
    licence: str = "MIT",
    command: str = "python -m kinelib train kinmo --stage tokenizer",
) -> tuple[MotionTokenizer, FitResult]:
    """Trains a tokenizer and saves its checkpoint in `out`/tokenizer.

    Args:
        data: what it is trained on.
        held_out: clips it is measured on, none of them in `data`.
        out: output folder; state and log go to `out`/tokenizer-training.
        size: profile, whose sizes hold where nothing else is given.
        config: sizes of the network.
        seconds, steps: at most one of them.
        batch: windows a step.
        learning_rate: peak.
        seed: of weights, batches and revivals.
        resume: go on with an interrupted training, if there is one.
        overwrite: start afresh and replace an older checkpoint.
        source: what the clips are, for the card.
        licence: of the weights, for the card.
        command: what reproduces them, for the card.

    Returns:
        the tokenizer, in eval mode, and how its training went.

    Raises:
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
        ShapeError: when frames and lengths are not those of the same clips, or there is none.
    """
    for clips in (data, held_out):
        if not len(clips.lengths) or int(clips.lengths.sum()) != len(clips.frames):
            raise ShapeError(f"{len(clips.frames)} frames are not those of {len(clips.lengths)} clips, at least one.")
    out, sizes = Path(out), SIZES[size]
    training = out / f"{NAME}-training"
    state.check_free(out / NAME, training, resume=resume, overwrite=overwrite)
    seconds = sizes.seconds if seconds is None and steps is None else seconds
    torch.manual_seed(seed)
    model = MotionTokenizer(config or sizes.config)
    frames = data.frames[:: max(1, len(data.frames) // MEASURED_FRAMES)]
    model.statistics.set(block_statistics(torch.cat([frames, mirrored(frames)])))
    # No average of the weights: the codebooks are averages of what the present encoder says, and the rate falls to zero.
    settings = FitConfig(
        steps=steps,
        seconds=seconds,
        learning_rate=learning_rate or sizes.learning_rate,
        weight_decay=0.0,
        ema_decay=None,
        seed=seed,
        log_every=20,
    )
    result = fit(
        model,
        tokenizer_draw(data, batch or sizes.batch),
        tokenizer_loss,
        settings,
        training,
        resume=resume,
        overwrite=overwrite,
        description="motion tokenizer",
    )
    if not result.stopped_early and int(os.environ.get("RANK", 0)) == 0:
        found = measure(model, held_out)
        card = tokenizer_card(model, len(data.lengths), found, result, source, licence, command)
        checkpoints.save(out / NAME, model, card=card, overwrite=True, half=True)
    return model, result


def tokenizer_card(
    model: MotionTokenizer, clips: int, found: Reconstruction, result: FitResult, source: str, licence: str, command: str
) -> str:
    """The checkpoint's card, with what is left of held-out clips and how many codes are in use."""
    c = model.config
    metrics: dict[str, float | str] = {"steps": float(result.steps), "seconds": result.seconds}
    metrics |= {
        f"MPJPE, pelvis in place, cm, {found.clips} held-out clips": found.local_cm,
        "MPJPE in the world, cm": found.global_cm,
        "slide of planted feet, cm/s": found.skate_cm,
        "the same of the originals, cm/s": found.original_skate_cm,
    }
    for name, used, perplexity in zip(c.groups, found.used, found.perplexity, strict=True):
        numbers = [f"{100 * one:.0f} % ({100 * two:.0f} %)" for one, two in zip(used, perplexity, strict=True)]
        metrics[f"codes in use (perplexity), {name}"] = ", ".join(numbers)
    return checkpoints.write_card(
        "Tokenizer of motion",
        data=f"{clips} clips ({source}) and their mirror images; {found.clips} others were held out.",
        licence=licence,
        command=command,
        metrics=metrics,
        notes=f"{len(c.groups)} streams of {c.layers} codebooks with {c.codes} codes, a token every {STRIDE} frames at "
        f"{FPS:g} frames a second, HumanML3D's 263 numbers with the correct heading.",
    )


def load_tokenizer(folder: str | Path) -> MotionTokenizer:
    """The tokenizer of a checkpoint folder, in eval mode; errors as of `checkpoints.load`."""
    return checkpoints.load(folder, MotionTokenizer, TokenizerConfig)


def _slides(own: Tensor, wanted: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Speeds over the floor, metres a second, of feet that stand in the original: as decoded, and the original's."""
    speeds = [(joints[:, 1:, CONTACTS] - joints[:, :-1, CONTACTS]) * FPS for joints in (own, wanted)]
    planted = (speeds[1].norm(dim=-1) < PLANTED) & there[:, 1:, None]
    return tuple(speed[..., [0, 2]].norm(dim=-1)[planted] for speed in speeds)
