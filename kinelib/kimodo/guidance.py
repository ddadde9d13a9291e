"""Guidance: how strongly a draw follows its sentence and its constraints, one pass of the network a step (Kimodo, model).

- "none": the prediction given both.
- "regular": u + w (both - u), with u the prediction without sentence and constraints.
- "separated": u + w_text (text - u) + w_constraint (constraint - u), with predictions given one of them only.
- "nested": u + w_constraint (constraint - u) + w_text (both - constraint). With w_constraint = 1 all that is left knows the
  constraints: only the sentence is exaggerated, not what the network misses its constraints by.

Each is a weighted sum of predictions under some of the conditions. For every clip those that are equal are made once (a clip
without constraints needs two with separated guidance, not three; a clip without a sentence and without constraints one) and
those of weight 0 not at all; what is left runs as one batch. The first heading stays given in all of them.

Departures: "nested" is not in the paper, whose default is "separated" with 2 and 2.

Shapes: as in `kinelib.kimodo.denoiser`; R rows, the predictions of all clips.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.notation import check_shape

KINDS = ("none", "regular", "separated", "nested")


class GuidedDenoiser:
    """A denoiser with its conditions and guidance; called by a solver with noisy features (B, T, D) and steps (B,).

    Args:
        model: predicts clean features; in eval mode.
        frames, text, first_heading, mask, target, lengths: of :meth:`TwoStageDenoiser.prepare`.
        kind: "none", "regular", "separated" or "nested".
        weights: of the sentence and of the constraints; "regular" has one weight for both, the first.
        pull: of :meth:`TwoStageDenoiser.prepare`.

    Raises:
        ValueError: for an unknown kind or a weight that is not finite. ShapeError: as `prepare`.
    """

    def __init__(
        self,
        model: TwoStageDenoiser,
        frames: int,
        text: Tensor | None = None,
        first_heading: Tensor | None = None,
        mask: Tensor | None = None,
        target: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        kind: str = "separated",
        weights: tuple[float, float] = (2.0, 2.0),
        pull: bool = False,
    ) -> None:
        given = next((tensor for tensor in (text, first_heading, mask, lengths) if tensor is not None), None)
        self.batch = 1 if given is None else len(given)
        said, held = _any("text", text, self.batch), _any("mask", mask, self.batch)
        rows = [(clip, *row) for clip in range(self.batch) for row in _predictions(kind, weights, said[clip], held[clip])]
        device = model.statistics.mean.device
        clips, reads, keeps, shares = (torch.tensor(column, device=device) for column in zip(*rows, strict=True))
        self.model, self.clips, self.shares = model, clips, shares[:, None, None]

        if text is None:
            text = model.statistics.mean.new_zeros(len(rows), 1, model.config.text_width)
        else:
            text = torch.where(reads[:, None, None], text[clips], 0.0)
        if keeps.any():
            check_shape("mask", mask, f"B {frames} {model.config.features}")
            mask, target = mask[clips].bool() & keeps[:, None, None], None if target is None else target[clips]
        else:
            mask = target = None
        heading, lengths = (None if part is None else part[clips.to(part.device)] for part in (first_heading, lengths))
        self.prepared = model.prepare(frames, text, heading, mask, target, lengths, pull)

    @property
    def predictions(self) -> int:
        """R, how many predictions the network makes at every step."""
        return len(self.clips)

    def aim(self, target: Tensor) -> None:
        """Gives the constrained features other values (B, T, D) from the next step on."""
        self.prepared = self.model.aim(self.prepared, target[self.clips])

    def __call__(self, noisy: Tensor, steps: Tensor) -> Tensor:
        """Clean features (B, T, D)."""
        if self.predictions == self.batch and bool((self.shares == 1).all()):
            return self.model.clean(noisy, steps, self.prepared)
        clean = self.model.clean(noisy[self.clips], steps[self.clips], self.prepared)
        return torch.zeros_like(noisy).index_add_(0, self.clips, self.shares * clean)


def _any(name: str, condition: Tensor | None, batch: int) -> list[bool]:
    """Which clips have a condition that is not all zeros."""
    if condition is None:
        return [False] * batch
    check_shape(name, condition, "B T C", B=batch)
    return condition.flatten(1).any(dim=1).tolist()


def _predictions(kind: str, weights: tuple[float, float], said: bool, held: bool) -> list[tuple[bool, bool, float]]:
    """The (sentence given, constraints given, weight) of the predictions that one clip needs.

    Args:
        kind, weights: of :class:`GuidedDenoiser`.
        said: whether the clip has a sentence.
        held: whether it has constraints.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown guidance {kind!r}: use one of {', '.join(map(repr, KINDS))}.")
    if len(weights) != 2 or not all(math.isfinite(weight) for weight in weights):
        raise ValueError(f"guidance has two finite weights, of the sentence and of the constraints; got {weights}.")
    first, second = weights
    terms = {
        "none": [(True, True, 1.0)],
        "regular": [(True, True, first), (False, False, 1 - first)],
        "separated": [(True, False, first), (False, True, second), (False, False, 1 - first - second)],
        "nested": [(True, True, first), (False, True, second - first), (False, False, 1 - second)],
    }[kind]
    sums: dict[tuple[bool, bool], float] = {}
    for reads, keeps, weight in terms:
        same = (reads and said, keeps and held)
        sums[same] = sums.get(same, 0.0) + weight
    return [(*same, weight) for same, weight in sums.items() if weight]
