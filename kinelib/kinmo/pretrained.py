"""Loads the trained parts of KinMo: those that are shipped, or those of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from kinelib.kinmo.coarse_to_fine import KinMo
from kinelib.kinmo.masked import GeneratorConfig, MaskedMotionGenerator
from kinelib.kinmo.tokens import MotionTokenizer, TokenizerConfig
from kinelib.learning import checkpoints

if TYPE_CHECKING:
    from kinelib.kinmo.aligner import HierarchicalAligner
    from kinelib.kinmo.control_branch import ControlBranch
    from kinelib.kinmo.reasoner import Reasoner
    from kinelib.learning.text import TextEncoder

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "kinmo"
REASONER = "reasoner.safetensors"  # a file beside the checkpoints


def load_tokenizer(stage: str = "tokenizer", folder: str | Path | None = None) -> MotionTokenizer:
    """The trained tokenizer, in eval mode and without gradients; errors as of :func:`load_generator`."""
    return _load(stage, folder, MotionTokenizer, TokenizerConfig)


def load_aligner(stage: str = "aligner", folder: str | Path | None = None) -> HierarchicalAligner:
    """A trained aligner, "aligner" or an ablation, in eval mode, without gradients; errors as of :func:`load_generator`."""
    from kinelib.kinmo.aligner import AlignerConfig, HierarchicalAligner

    return _load(stage, folder, HierarchicalAligner, AlignerConfig)


def load_reasoner(folder: str | Path | None = None, encoder: TextEncoder | None = None) -> Reasoner:
    """The reasoner of a folder.

    Raises:
        FileNotFoundError: when the folder does not hold one.
    """
    from kinelib.kinmo.reasoner import Reasoner

    path = Path(folder or SHIPPED) / REASONER
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; train the aligner, which writes it: python -m kinelib train kinmo.")
    return Reasoner.load(path, encoder)


def load_generator(stage: str = "generator", folder: str | Path | None = None) -> MaskedMotionGenerator:
    """A trained generator, in eval mode and without gradients.

    Args:
        stage: "generator", or "flat", the baseline that reads one sentence vector.
        folder: holds one checkpoint a stage; default: the shipped ones.

    Raises:
        FileNotFoundError: when the folder does not hold it; the message lists those it holds.
        CheckpointError: when what it holds is another network, or damaged.
    """
    return _load(stage, folder, MaskedMotionGenerator, GeneratorConfig)


def load_control(folder: str | Path | None = None) -> ControlBranch:
    """The trained control branch, in eval mode and without gradients; errors as of :func:`load_generator`."""
    from kinelib.kinmo.control_branch import BranchConfig, ControlBranch

    return _load("control", folder, ControlBranch, BranchConfig)


def load_kinmo(stage: str = "generator", folder: str | Path | None = None, encoder: TextEncoder | None = None) -> KinMo:
    """Everything that makes motion from words: a generator with the tokenizer, aligner and reasoner of the same folder.

    Args:
        stage, folder: as of :func:`load_generator`.
        encoder: of sentences; None: MiniLM at its first use.
    """
    generator, tokenizer = load_generator(stage, folder), load_tokenizer(folder=folder)
    own = {} if encoder is None else {"encoder": encoder}
    if generator.config.levels == 1:
        return KinMo(generator, tokenizer, **own)
    return KinMo(generator, tokenizer, load_aligner(folder=folder), load_reasoner(folder, encoder), **own)


def _load(stage: str, folder: str | Path | None, network: type[nn.Module], config: type) -> nn.Module:
    folder = Path(folder or SHIPPED)
    if not (folder / stage).is_dir():
        held = sorted(path.parent.name for path in folder.glob("*/config.json"))
        raise FileNotFoundError(f"there is no checkpoint {stage!r} in {folder}, which holds {', '.join(held) or 'none'}.")
    return checkpoints.load(folder / stage, network, config).requires_grad_(False)
