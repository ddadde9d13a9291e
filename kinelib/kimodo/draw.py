"""Draws motion features: clips of several lengths in one batch, each from a noise of its own (Kimodo, inference).

The noise of a clip comes from its own generator, so that a clip is the same (up to rounding) whatever else is in the batch;
the release draws one noise for the whole padded batch.

Departures: a hand or foot pinned in the world over a free root is placed, at every step, against the root as predicted in
the step before (`Conditions.anchored`); the first root is predicted without it, which costs one more pass. Nested guidance
and pulled constraints (`kinelib.kimodo.pull`) unless others are asked for.

Shapes: N clips, T frames, D features; normalised inside, unnormalised outside.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kinelib.kimodo.conditions import Conditions
from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.kimodo.diffusion import SOLVERS
from kinelib.kimodo.guidance import GuidedDenoiser
from kinelib.kimodo.pull import CORRECTIONS, Pull


@torch.no_grad()
def draw_features(
    model: TwoStageDenoiser,
    lengths: Sequence[int],
    text: Tensor,
    conditions: Sequence[Conditions | None] | None = None,
    *,
    seeds: Sequence[int],
    headings: Sequence[float] | None = None,
    solver: str = "dpm",
    steps: int = 20,
    guidance: tuple[float, float] = (2.0, 1.0),
    kind: str = "nested",
    correction: str = "pull",
    batch: int = 16,
    watch: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Draws the features of N clips.

    Args:
        model: trained, with its statistics; in eval mode.
        lengths: frames of every clip.
        text: (N, S, C) sentence vectors, zeros for none.
        conditions: what is given of every clip, or None.
        seeds: of every clip's noise.
        headings: first headings, radians; None is 0; a constrained first heading counts more.
        solver: "dpm" or "ddim".
        steps: of the solver, 2..1000.
        guidance: weights of the sentence and of the constraints.
        kind: of guidance, "nested", "separated", "regular" or "none".
        correction: "pull" moves estimates onto their constraints at every step, "none" leaves that to the network.
        batch: clips drawn at once.
        watch: told how many of how many solver steps of all batches are done.

    Returns:
        N tensors (T, D), unnormalised.

    Raises:
        ValueError: for an unknown solver or correction, a model in training mode, or features that come out not finite.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: use one of {', '.join(map(repr, SOLVERS))}.")
    if correction not in CORRECTIONS:
        raise ValueError(f"unknown correction {correction!r}: use one of {', '.join(map(repr, CORRECTIONS))}.")
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before drawing from it.")
    count = len(lengths)
    conditions = [None] * count if conditions is None else conditions
    headings = [0.0] * count if headings is None else headings
    drawn: list[Tensor] = []
    chunks = [range(start, min(start + batch, count)) for start in range(0, count, batch)]
    for number, chunk in enumerate(chunks):
        given = [conditions[clip] for clip in chunk]
        # Every clip's own length of noise, then padding.
        size = model.config.features
        start = pad_sequence([_noise(seeds[clip], lengths[clip], size) for clip in chunk], batch_first=True)
        facing = torch.tensor([_first_heading(one, headings[clip]) for clip, one in zip(chunk, given, strict=True)])
        how = dict(kind=kind, weights=guidance, pull=correction == "pull")
        denoise = _denoiser(model, given, [lengths[clip] for clip in chunk], text[list(chunk)], facing, how)

        def done(here: int, of: int, number: int = number) -> None:
            if watch is not None:
                watch(number * of + here, len(chunks) * of)

        clean = SOLVERS[solver](denoise, start.to(model.statistics.mean.device), steps, done)
        clean = model.statistics.denormalize(clean).cpu()
        drawn += [clean[row, : lengths[clip]] for row, clip in enumerate(chunk)]
    if bad := [number for number, clip in enumerate(drawn) if not torch.isfinite(clip).all()]:
        raise ValueError(
            f"clip {bad[0]} (and {len(bad) - 1} more) came out as NaN or infinity: the model's weights are broken, or a "
            f"guidance of {guidance} is far too strong."
        )
    return drawn


def noise_seed(seed: int, sample: int) -> int:
    """The seed of one sample's own generator."""
    return int.from_bytes(hashlib.sha256(f"{seed} {sample}".encode()).digest()[:4], "big")


def _noise(seed: int, frames: int, channels: int) -> Tensor:
    # On the CPU, so that the clip does not depend on the device.
    return torch.randn(frames, channels, generator=torch.Generator().manual_seed(seed))


def _denoiser(
    model: TwoStageDenoiser,
    given: list[Conditions | None],
    lengths: list[int],
    text: Tensor,
    headings: Tensor,
    guidance: dict,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The guided denoiser of a batch; with floating constraints one that places them before every step."""
    device, frames = model.statistics.mean.device, max(lengths)
    text, headings, spans = text.to(device), headings.to(device), torch.tensor(lengths)

    def build(masks: list[Tensor], targets: list[Tensor]) -> GuidedDenoiser:
        mask = pad_sequence(masks, batch_first=True).to(device)
        target = model.statistics.normalize(pad_sequence(targets, batch_first=True).to(device))
        return GuidedDenoiser(model, frames, text, headings, mask, target, spans, **guidance)

    if all(one is None for one in given):
        return GuidedDenoiser(model, frames, text, headings, lengths=spans, **guidance)
    size = model.config.features
    free = [Conditions(*(torch.zeros(length, size, dtype=kind) for kind in (None, bool, bool))) for length in lengths]
    held = [one or nothing for one, nothing in zip(given, free, strict=True)]
    firm = build([one.mask for one in held], [one.target for one in held])
    finish = Pull(model, held, lengths) if guidance["pull"] else lambda clean, steps: clean
    if not any(one.floating.any() for one in held):
        return lambda noisy, steps: finish(firm(noisy, steps), steps)
    loose = build([one.mask | one.floating for one in held], [one.target for one in held])
    last: list[Tensor] = []

    def denoise(noisy: Tensor, steps: Tensor) -> Tensor:
        """Predicts with what floats placed against the last prediction's root; the first root is predicted without."""
        known = last.pop() if last else firm(noisy, steps)
        known = model.statistics.denormalize(known).cpu()
        placed = [one.anchored(known[row, : len(one.target)])[0] for row, one in enumerate(held)]
        loose.aim(model.statistics.normalize(pad_sequence(placed, batch_first=True).to(device)))
        last.append(finish(loose(noisy, steps), steps))
        return last[0]

    return denoise


def _first_heading(conditions: Conditions | None, otherwise: float) -> float:
    """The heading (radians) that constraints pin at the first frame, or another."""
    if conditions is None or not bool(conditions.mask[0, 3:5].all()):
        return otherwise
    cosine, sine = conditions.target[0, 3:5].tolist()
    return math.atan2(sine, cosine)
