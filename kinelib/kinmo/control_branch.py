"""The control branch: a small trainable copy of the base transformer that knows the path (KinMo, Section 5; ControlNet).

It reads the tokens as far as they are known, the words, and of every four frames where the root shall be, how it shall move,
and which numbers are free. After each of its layers a linear map that begins at zero adds to the frozen generator's times;
so before the first step the generator is as it was.

Trained on the loss of hidden tokens, with the path of the clip itself. The paper's loss on joints through the soft decoder
is left to test time (`control.Pull`), which costs no training. Departures: the root alone, a linear map of patches instead
of a convolutional encoder, and half of the clips with waypoints instead of a path.

Shapes: B clips, T = 4 L frames, L times, G streams, W channels of the transformer; goal (B, T, J, 3) metres, NaN where free.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.bodies.humanml3d import recover_root
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.masked import Conditions, GeneratorConfig, MaskedMotionGenerator, Trunk, masked_loss
from kinelib.kinmo.masks import MaskConfig, disguised, draw_free, draw_hidden
from kinelib.kinmo.token_sets import TokenSet
from kinelib.kinmo.tokens import STRIDE
from kinelib.learning import checkpoints, state
from kinelib.learning.fit import FitConfig, FitResult, fit

NAME = "control"  # of the checkpoint's folder
METRES = 0.5  # what a path's places are divided by
STEP = 0.05  # metres a frame, what its steps are divided by
WAYPOINTS = 0.5  # share of training clips that are told a few places instead of the path
READ = 5  # numbers of a frame: place and step on the floor, and whether there is one


@dataclass(frozen=True)
class BranchConfig:
    """What the branch is built from: the sizes of the generator it helps."""

    generator: GeneratorConfig = GeneratorConfig()


class ControlBranch(nn.Module):
    """Turns a path into what is added to the generator's times after each layer.

    Args:
        config: sizes.
    """

    def __init__(self, config: BranchConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BranchConfig()
        sizes = config.generator
        side_by_side = sizes.streams * sizes.code_width
        self.table = nn.Parameter(torch.zeros(sizes.streams, sizes.codes + 1, sizes.code_width))
        self.read_codes = nn.Linear(side_by_side, sizes.width)
        self.read_path = nn.Sequential(nn.Linear(STRIDE * READ, sizes.width), nn.SiLU(), nn.Linear(sizes.width, sizes.width))
        self.trunk = Trunk(sizes, sizes.depth)
        self.links = nn.ModuleList(nn.Linear(sizes.width, sizes.width) for _ in range(sizes.depth))
        for link in self.links:
            nn.init.zeros_(link.weight)
            nn.init.zeros_(link.bias)

    @classmethod
    def of(cls, generator: MaskedMotionGenerator) -> ControlBranch:
        """A branch that begins as a copy of a generator's base."""
        branch = cls(BranchConfig(generator.config))
        branch.trunk.layers.load_state_dict(generator.base.layers.state_dict())
        branch.table.data.copy_(generator.table[0].detach())
        branch.read_codes.load_state_dict(generator.read_base.state_dict())
        return branch.requires_grad_(True)

    def forward(self, codes: Tensor, goal: Tensor, conditions: Conditions, lengths: Tensor) -> list[Tensor]:
        """What is added to the generator's times, (B, L, W) a layer.

        Args:
            codes: (B, L, G) base codes, K where hidden.
            goal: (B, 4 L, J, 3) metres; of the root's x and z, NaN where free.
            conditions: not read; the words are the frozen generator's affair. lengths: (B,) times.
        """
        streams = torch.arange(codes.shape[2], device=codes.device)
        vectors = self.table[streams, codes] * self.config.generator.code_width**0.5
        x = self.read_codes(rearrange(vectors, "b l g d -> b l (g d)"))
        x = x + self.read_path(rearrange(path_numbers(goal[:, :, 0][..., [0, 2]]), "b (l s) c -> b l (s c)", s=STRIDE))
        visible = torch.arange(codes.shape[1], device=codes.device) < lengths[:, None].to(codes.device)
        found: list[Tensor] = []
        for layer, link in zip(self.trunk.layers, self.links, strict=True):
            x = layer(x, ~visible)
            found.append(link(x))
        return found


def path_numbers(path: Tensor) -> Tensor:
    """What is read of a path (B, T, 2): place, step and whether it is given, (B, T, 5); zeros where it is free."""
    given = torch.isfinite(path).all(-1, keepdim=True)
    place = torch.where(given, path, 0.0)
    step = torch.zeros_like(place)
    both = given[:, 1:] & given[:, :-1]
    step[:, 1:] = torch.where(both, place[:, 1:] - place[:, :-1], 0.0)
    return torch.cat([place / METRES, step / STEP, given.to(place)], -1)


def branch_loss(generator: MaskedMotionGenerator, masks: MaskConfig | None = None, silent: float = 0.1) -> Callable:
    """The loss of a drawn batch: hidden base tokens, in nats, from the words and the path."""
    masks = masks or MaskConfig()

    def measure(model: nn.Module, batch: dict, draws: torch.Generator) -> dict[str, Tensor]:
        codes, lengths, words = batch["codes"][..., 0], batch["lengths"], batch["words"]
        lots = lambda: torch.rand(len(codes), generator=draws, device=codes.device)
        words = words._replace(silent=words.silent | (lots() < silent))
        hidden = draw_hidden(draw_free(lengths, *codes.shape[1:], masks, draws), draws)
        seen = disguised(codes, hidden, generator.config.codes, masks, draws)
        links = model(seen, thinned(batch["goal"], lots(), draws), words, lengths)
        loss, right = masked_loss(generator(seen, words, lengths, links), codes, hidden)
        return {"loss": loss, "right": right.detach()}

    return measure


def thinned(goal: Tensor, lots: Tensor, generator: torch.Generator) -> Tensor:
    """Goals (B, T, J, 3) of which a share, told by lots (B,), keeps a twentieth of its frames and the last one."""
    kept = torch.rand(goal.shape[:2], generator=generator, device=goal.device) < 0.05
    kept[:, -1] = True
    kept = kept | (lots >= WAYPOINTS)[:, None]
    return torch.where(kept[..., None, None], goal, torch.nan)


def paths_of(motions: MotionTexts, times: int) -> Tensor:
    """Root targets (N, 4 L, 1, 3) of clips, height and frames beyond the end free."""
    rows = torch.arange(len(motions))
    features, lengths = motions.padded(rows, STRIDE * times)
    root = recover_root(features)[1]
    root[..., 1] = torch.nan
    root[torch.arange(root.shape[1]) >= lengths[:, None]] = torch.nan
    return torch.nn.functional.pad(root, (0, 0, 0, STRIDE * times - root.shape[1]), value=torch.nan)[:, :, None]


def train_branch(
    generator: MaskedMotionGenerator,
    tokens: TokenSet,
    motions: MotionTexts,
    out: str | Path = "runs/lab/kinmo",
    *,
    seconds: float | None = None,
    steps: int | None = None,
    batch: int = 48,
    learning_rate: float = 1e-3,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    licence: str = "MIT",
    command: str = "python -m kinelib train kinmo --stage control",
) -> tuple[ControlBranch, FitResult]:
    """Trains a branch on top of a frozen generator and saves its checkpoint in `out`/control.

    Args:
        generator: trained; it stays as it is.
        tokens: codes and words of the clips, see `token_sets`. motions: the same clips, for their paths.
        out: output folder; state and log go to `out`/control-training.
        seconds, steps: one of them; by default 300 seconds.
        batch: clips a step. learning_rate: peak. seed: of batches and masks.
        resume: go on with an interrupted training, if there is one. overwrite: start afresh.
        licence, command: for the card.

    Raises:
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
        ValueError: when tokens and clips are not the same.
    """
    if len(tokens) != len(motions):
        raise ValueError(f"tokens of {len(tokens)} clips do not fit {len(motions)} clips.")
    out, training = Path(out), Path(out) / f"{NAME}-training"
    state.check_free(out / NAME, training, resume=resume, overwrite=overwrite)
    seconds = 300.0 if seconds is None and steps is None else seconds
    torch.manual_seed(seed)
    model = ControlBranch.of(generator)
    generator.requires_grad_(False)
    goals, readings = paths_of(motions, tokens.codes.shape[1]), tokens.means.shape[1]

    def draw(lots: torch.Generator) -> dict:
        rows = torch.multinomial(tokens.odds, batch, replacement=True, generator=lots)
        chosen = torch.randint(readings, (batch,), generator=lots)
        found = tokens.take(rows, chosen)
        flip = torch.where(chosen % 2 == 1, -1.0, 1.0)[:, None, None]  # mirrored clips walk mirrored paths
        goal = goals[rows, : STRIDE * found["codes"].shape[1]]
        return found | {"goal": torch.cat([goal[..., :1] * flip[..., None], goal[..., 1:]], -1)}

    config = FitConfig(steps=steps, seconds=seconds, learning_rate=learning_rate, ema_decay=0.99, seed=seed)
    result = fit(
        model,
        draw,
        branch_loss(generator),
        config,
        training,
        resume=resume,
        overwrite=overwrite,
        description="kinmo control",
    )
    if not result.stopped_early and int(os.environ.get("RANK", 0)) == 0:
        last = result.losses[-1]
        metrics = {"steps": float(result.steps), "seconds": result.seconds, "final loss, nats a token": float(last["loss"])}
        card = checkpoints.write_card(
            "KinMo control",
            data=f"{len(tokens)} clips and their mirror images with the paths of their roots.",
            licence=licence,
            command=command,
            metrics=metrics,
            notes="Helps the generator of the same folder, which it was trained with and does not contain.",
        )
        checkpoints.save(out / NAME, model, card=card, overwrite=True, half=True)
    return model, result


def load_branch(folder: str | Path) -> ControlBranch:
    """The branch of a checkpoint folder, in eval mode and without gradients; errors as of `checkpoints.load`."""
    return checkpoints.load(folder, ControlBranch, BranchConfig).requires_grad_(False)
