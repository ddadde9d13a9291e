"""Kimodo's two-stage denoiser: clean features from noisy ones, first the root's path, then the body on it (Kimodo, model).

At every diffusion step constrained features are written over the noisy ones; a first transformer predicts the five clean
root channels; these become differential ones (turning rate, planar velocity, height), on which a second transformer predicts
the clean body. The prediction is the clean motion itself. What depends on the conditions only is computed once a draw
(`prepare`).

Departures, each a config field that is off in the official sizes: pre-norm, `patch`, `broadcast`, `modulate` (see
`kinelib.kimodo.encoder`), and two more. `skip`: the result is a correction of the noisy features, each channel of which is
passed on times a gain that falls with the noise and is itself corrected for every channel and step; constrained features are
passed on whole. `ahead`: clips are turned so that they begin looking along +z, and what the network answers is turned back:
a turned question has exactly the turned answer, and no training is spent on what a turn of the floor settles.

For the paper's ablations: `stages=1`, one transformer of as many layers for all channels; `stage2_root="global"`, the second
stage reads the root as predicted; `registers=0`. One known fault is not copied: padded frames are zeros here, not whatever
the caller left there.

Shapes: features (B, T, D), D = 12 J + 9, normalised; text (B, S, text_width) sentence vectors; first_heading (B,) radians.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import LOCAL_ROOT, ROOT, FeatureLayout, checked_lengths, frame_mask, local_root, turned
from kinelib.bodies.low_pass import filter_matrices
from kinelib.kimodo.diffusion import signal_amplitude
from kinelib.kimodo.encoder import EncoderLayer, Stage, StageConditions, sinusoids
from kinelib.kimodo.spreading import RootPull, root_pull
from kinelib.learning.whitening import Whitening
from kinelib.notation import ShapeError, check_shape

FLOOR = 0.1  # of the mean variance of sentence vectors, added to every direction's before it is divided by
SKIP_WIDTH = 64  # channels of the step's code from which the skip's gains are read


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of a denoiser; the defaults are the small model."""

    skeleton: str = "smplx22"  # name of the skeleton whose motion it generates
    joints: int = 22  # J
    fps: float = 20.0  # frames a second
    max_frames: int = 100  # longest clip it is trained on
    width: int = 256  # channels of a token
    layers: int = 4  # of each stage; a one-stage model has twice as many
    heads: int = 4  # attention heads
    ffn: int = 512  # hidden channels of the feed-forward
    text_width: int = 384  # channels of a sentence vector
    registers: int = 4  # zero vectors beside the sentence (paper: 49; 0 is its ablation without extra tokens)
    norm: str = "pre"  # "pre", or "post" as in the paper
    patch: int = 4  # frames in a token (paper: 1)
    broadcast: bool = True  # sentence, step and heading are also added to every pose (paper: no)
    modulate: bool = True  # sentence and step scale and shift what every layer reads (paper: no)
    ahead: bool = True  # the network sees every clip turned so that it begins looking along +z (paper: no)
    skip: bool = True  # predict a correction of the noisy features (paper: no)
    root_filter: float = 2.0  # frames, deviation of the low-pass filter over the predicted root's path (paper: 0, none)
    body_filter: float = 0.8  # the same for heading, height and body, contacts apart (paper: 0, none)
    whiten_text: bool = True  # sentence vectors are decorrelated by the training prompts' statistics (paper: no)
    stages: int = 2  # 1: one transformer for root and body, the paper's ablation
    stage2_root: str = "local"  # what the second stage reads of the root: "local", or "global" for the paper's ablation
    stop_gradient: bool = True  # in training, the body's loss does not reach the root stage (official code)
    dropout: float = 0.0  # in training (paper: 0.1 in phase one, 0 in phase two)

    @property
    def features(self) -> int:
        """D, channels of a frame."""
        return FeatureLayout(self.joints).size


PAPER_L = DenoiserConfig(
    skeleton="soma30",
    joints=30,
    fps=30.0,
    max_frames=300,
    width=1024,
    layers=16,
    heads=8,
    ffn=2048,
    text_width=4096,
    registers=49,
    norm="post",
    patch=1,
    broadcast=False,
    modulate=False,
    ahead=False,
    skip=False,
    root_filter=0.0,
    body_filter=0.0,
    whiten_text=False,
    dropout=0.1,
)
PAPER_M = replace(PAPER_L, layers=8)
PAPER_S = replace(PAPER_L, layers=8, width=512)


@dataclass(frozen=True)
class Prepared:
    """What a denoiser knows before the first solver step, of B clips of T frames."""

    stages: list[StageConditions]
    mask: Tensor | None  # (B, T, D) bool, constrained features; None for none
    target: Tensor | None  # (B, T, D) their normalised values
    valid: Tensor | None  # (B, T) bool; None when no frame is padding
    lengths: Tensor  # (B,) frames of every clip, on the CPU
    root_filter: Tensor | None = None  # (B or 1, T, T); None for no filter
    body_filter: Tensor | None = None  # likewise
    root_pull: RootPull | None = None  # moves the root between the stages onto what is given of it; None for not
    facing: Tensor | None = None  # (B,) radians by which clips are turned back afterwards; None where there is no need


class TwoStageDenoiser(nn.Module):
    """Predicts clean motion features; see the module docstring.

    Args:
        config: sizes; `PAPER_L`, `PAPER_M` and `PAPER_S` have the official ones.

    Raises:
        ValueError: for a `norm`, `stages` or `stage2_root` that is not known, or sizes below 1.
    """

    def __init__(self, config: DenoiserConfig | None = None) -> None:
        super().__init__()
        config = config or DenoiserConfig()
        _check_config(config)
        self.config, self.layout = config, FeatureLayout(config.joints)
        features, root = config.features, ROOT.stop
        body = features - root
        options = dict(
            width=config.width,
            heads=config.heads,
            ffn=config.ffn,
            norm=config.norm,
            dropout=config.dropout,
            text_width=config.text_width,
            registers=config.registers,
            patch=config.patch,
            broadcast=config.broadcast,
            modulate=config.modulate,
        )
        if config.stages == 1:
            self.whole = Stage(features, features, features, layers=2 * config.layers, **options)
        else:
            given = LOCAL_ROOT if config.stage2_root == "local" else root
            self.root = Stage(features, features, root, layers=config.layers, **options)
            self.body = Stage(given + body, features, body, layers=config.layers, **options)
        if config.skip:
            self.gains = nn.Linear(SKIP_WIDTH, features)
            nn.init.zeros_(self.gains.weight)
            nn.init.zeros_(self.gains.bias)
            # A new network corrects nothing: it is the best denoiser that looks at one channel of one frame at a time.
            for stage in self.children():
                if isinstance(stage, Stage):
                    nn.init.zeros_(stage.features_out.weight)
                    nn.init.zeros_(stage.features_out.bias)
        self.whitening = Whitening(config.text_width) if config.whiten_text else None
        # On the CPU by name: numbers that are not learned exist even when the network is built on the meta device.
        self.statistics = Statistics(torch.zeros(features, device="cpu"), torch.ones(features, device="cpu"))
        self.local_statistics = Statistics(torch.zeros(LOCAL_ROOT, device="cpu"), torch.ones(LOCAL_ROOT, device="cpu"))

    def set_statistics(self, features: Statistics, local: Statistics) -> None:
        """Takes over the statistics of the training features (D,) and of their local roots (4,); a checkpoint holds them.

        Raises:
            ShapeError: for another number of channels. ValueError: for a network with `ahead`, when the statistics are not
                those of clips turned in every direction.
        """
        xs, zs = self.layout.turning
        if self.config.ahead and (features.mean[[*xs, *zs]].any() or not torch.equal(features.std[xs], features.std[zs])):
            raise ValueError("clips are turned after normalising; measure statistics with turning=FeatureLayout.turning.")
        self.statistics.set(features)
        self.local_statistics.set(local)

    def set_text_statistics(self, vectors: Tensor) -> None:
        """Measures how sentence vectors are to be decorrelated; nothing for a network that takes them as they are.

        Args:
            vectors: (N, text_width) of the different training prompts, N >= 2.

        Raises:
            As :meth:`Whitening.measure`.
        """
        if self.whitening is not None:
            self.whitening.measure(vectors, FLOOR)

    def set_dropout(self, share: float) -> None:
        """Changes the share dropped in training, which the paper does between its phases."""
        for module in self.modules():
            if isinstance(module, Stage | EncoderLayer):
                module.dropout = share

    def prepare(
        self,
        frames: int,
        text: Tensor | None = None,
        first_heading: Tensor | None = None,
        mask: Tensor | None = None,
        target: Tensor | None = None,
        lengths: Tensor | None = None,
        pull: bool = False,
    ) -> Prepared:
        """Computes everything that depends neither on the noisy features nor on the diffusion step.

        Args:
            frames: T.
            text: (B, S, text_width) sentence vectors, S from 1 to 1 + registers; zeros or None are no text.
            first_heading: (B,) radians, 0 looks along +z; None means 0.
            mask: (B, T, D) bool, True for constrained features; None for none.
            target: (B, T, D) normalised values of constrained features; needed with a mask.
            lengths: (B,) frames of every clip, 1..T; None means T.
            pull: whether the predicted root is moved onto what is given of it before the body is predicted (paper: no; see
                `kinelib.kimodo.pull`). A network of one stage knows no such moment.

        Raises:
            ShapeError: for wrong shapes, more sentences than places, lengths outside 1..T, or constrained features that are
                not finite.
        """
        config, own = self.config, self.statistics.mean
        given = next((tensor for tensor in (text, first_heading, mask, lengths) if tensor is not None), None)
        batch = 1 if given is None else len(given)
        text = own.new_zeros(batch, 1, config.text_width) if text is None else text
        sentences = check_shape("text", text, f"B S {config.text_width}", B=batch)["S"]
        if not 1 <= sentences <= 1 + config.registers:
            raise ShapeError(f"this denoiser has places for 1 to {1 + config.registers} sentence vectors; got {sentences}.")
        first_heading = own.new_zeros(batch) if first_heading is None else first_heading
        check_shape("first_heading", first_heading, "B", B=batch)
        lengths = torch.full((batch,), frames) if lengths is None else lengths
        check_shape("lengths", lengths, "B", B=batch)
        # On the CPU and checked once, so that no solver step waits for a device.
        lengths = checked_lengths(lengths, own.new_empty(batch, frames))
        valid = None if int(lengths.min()) == frames else frame_mask(lengths, frames).to(own.device)
        if mask is not None:
            mask, target = self._checked_constraints(mask, target, batch, frames, valid)
        facing = first_heading if config.ahead and first_heading.any() else None
        if facing is not None:
            first_heading = torch.zeros_like(facing)
            target = None if mask is None else turned(target, -facing, self.layout)
        stages = [self.whole] if config.stages == 1 else [self.root, self.body]
        text = text if self.whitening is None else self.whitening(text)
        conditions = [stage.prepare(text, first_heading, frames, mask, valid) for stage in stages]
        matrices = lambda width: filter_matrices(lengths, frames, width).to(own) if width else None
        filters = matrices(config.root_filter), matrices(config.body_filter)
        pulled = root_pull(mask, lengths.tolist()) if pull and mask is not None else None
        return Prepared(conditions, mask, target if mask is not None else None, valid, lengths, *filters, pulled, facing)

    def _checked_constraints(
        self, mask: Tensor, target: Tensor | None, batch: int, frames: int, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if target is None:
            raise ShapeError("a mask of constrained features needs their values; pass target.")
        for name, tensor in (("mask", mask), ("target", target)):
            check_shape(name, tensor, f"B {frames} {self.config.features}", B=batch)
        mask = mask.bool() if valid is None else mask.bool() & valid[..., None]
        bad = int((mask & ~torch.isfinite(target)).sum())
        if bad:
            raise ShapeError(f"{bad} constrained features have no finite target; unset them in the mask or give a value.")
        xs, zs = self.layout.turning
        if self.config.ahead and not torch.equal(mask[..., xs], mask[..., zs]):
            raise ShapeError("a vector on the floor is constrained in x and z or in neither; complete the mask.")
        return mask, target

    def clean(self, noisy: Tensor, steps: Tensor, prepared: Prepared) -> Tensor:
        """The clean features behind noisy ones.

        Args:
            noisy: (B, T, D) normalised.
            steps: (B,) diffusion steps, 0 (nearly clean) to 999 (noise).
            prepared: from :meth:`prepare`, of the same clips.

        Returns:
            (B, T, D) normalised; frames at or beyond a clip's length are of no meaning.
        """
        x = noisy if prepared.facing is None else turned(noisy, -prepared.facing, self.layout)
        if prepared.mask is not None:
            x = torch.where(prepared.mask, prepared.target, x)
        if prepared.valid is not None:
            x = torch.where(prepared.valid[..., None], x, 0.0)
        kept = self._kept(x, steps, prepared.mask)
        if self.config.stages == 1:
            out = self.whole(x, steps, prepared.stages[0])
            return self._back(_smoothed(out if kept is None else out + kept, prepared), prepared)
        root = self.root(x, steps, prepared.stages[0])
        if kept is not None:
            root = root + kept[..., ROOT]
        root = _smoothed(root, prepared)
        if prepared.root_pull is not None:
            root = prepared.root_pull(root, prepared.target)
        given = self.bridge(root.detach() if self.training and self.config.stop_gradient else root, prepared.lengths)
        if prepared.valid is not None:
            given = torch.where(prepared.valid[..., None], given, 0.0)
        body = self.body(torch.cat([given, x[..., ROOT.stop :]], dim=-1), steps, prepared.stages[1])
        if kept is not None:
            body = body + kept[..., ROOT.stop :]
        return self._back(torch.cat([root, _smoothed_body(body, prepared)], dim=-1), prepared)

    def aim(self, prepared: Prepared, target: Tensor) -> Prepared:
        """The same conditions with other values (B, T, D), normalised, of the constrained features."""
        return replace(prepared, target=target if prepared.facing is None else turned(target, -prepared.facing, self.layout))

    def _back(self, features: Tensor, prepared: Prepared) -> Tensor:
        """Features (B, T, D) as the clips were turned before."""
        return features if prepared.facing is None else turned(features, prepared.facing, self.layout)

    def forward(
        self,
        noisy: Tensor,
        steps: Tensor,
        text: Tensor | None = None,
        first_heading: Tensor | None = None,
        mask: Tensor | None = None,
        target: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """The clean features (B, T, D) in one call, as in training; arguments of :meth:`prepare` and :meth:`clean`.

        Raises:
            ShapeError: as :meth:`prepare`, or when noisy features or steps have another shape.
        """
        sizes = check_shape("noisy", noisy, f"B T {self.config.features}")
        check_shape("steps", steps, "B", B=sizes["B"])
        text = noisy.new_zeros(sizes["B"], 1, self.config.text_width) if text is None else text
        return self.clean(noisy, steps, self.prepare(sizes["T"], text, first_heading, mask, target, lengths))

    def bridge(self, root: Tensor, lengths: Tensor) -> Tensor:
        """What the second stage reads of the first one's normalised root (B, T, 5): (B, T, 4), or 5 with a global root."""
        if self.config.stage2_root == "global":
            return root
        metres = root * self.statistics.scale[ROOT] + self.statistics.mean[ROOT]
        return self.local_statistics.normalize(local_root(metres, self.config.fps, lengths))

    def _kept(self, x: Tensor, steps: Tensor, mask: Tensor | None) -> Tensor | None:
        """The share of the (imputed) noisy features that is passed on to the result."""
        if not self.config.skip:
            return None
        # For channels of unit variance that tell nothing about each other the best gain is the signal's share of amplitude.
        gains = signal_amplitude(steps)[:, None] + self.gains(sinusoids(steps, SKIP_WIDTH))
        gains = gains.to(x.dtype)[:, None]
        return x * (gains if mask is None else torch.where(mask, 1.0, gains))


def _smoothed(x: Tensor, prepared: Prepared) -> Tensor:
    """Root channels, and the body's where there are any, after their filters: (B, T, 5) or (B, T, D)."""
    root, rest = x[..., : ROOT.stop], x[..., ROOT.stop :]
    if prepared.body_filter is not None:
        root = torch.cat(
            [root[..., :1], prepared.body_filter @ root[..., 1:2], root[..., 2:3], prepared.body_filter @ root[..., 3:]], -1
        )
    if prepared.root_filter is not None:
        path = prepared.root_filter @ root[..., [0, 2]]
        root = torch.cat([path[..., :1], root[..., 1:2], path[..., 1:], root[..., 3:]], -1)
    return torch.cat([root, _smoothed_body(rest, prepared)], -1) if rest.shape[-1] else root


def _smoothed_body(body: Tensor, prepared: Prepared) -> Tensor:
    """Body channels after their filter; the four contacts, which switch, pass as they are."""
    if prepared.body_filter is None:
        return body
    return torch.cat([prepared.body_filter @ body[..., :-4], body[..., -4:]], -1)


def _check_config(config: DenoiserConfig) -> None:
    for name, known in (("norm", ("pre", "post")), ("stages", (1, 2)), ("stage2_root", ("local", "global"))):
        if getattr(config, name) not in known:
            raise ValueError(f"unknown {name} {getattr(config, name)!r}: use one of {', '.join(map(repr, known))}.")
    for name in ("joints", "layers", "heads", "ffn", "patch", "text_width", "max_frames"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {getattr(config, name)}.")
    if min(config.root_filter, config.body_filter) < 0:
        raise ValueError(f"filters are 0 frames or wider; got {config.root_filter} and {config.body_filter}.")
    if config.registers < 0 or not 0 <= config.dropout < 1:
        raise ValueError(f"registers must be 0 or more and dropout in [0, 1); got {config.registers} and {config.dropout}.")
