"""Loads trained denoisers: those that are shipped, or those of a folder."""

from __future__ import annotations

from pathlib import Path

from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.learning import checkpoints

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "kimodo"


def load_denoiser(stage: str = "denoiser", folder: str | Path | None = None) -> TwoStageDenoiser:
    """A trained denoiser, in eval mode and without gradients.

    Args:
        stage: "denoiser", trained on captured and procedural motion (its card tells the licence), "procedural", trained on
            procedural motion alone and free to use, or an ablation that was trained into `folder`.
        folder: holds one checkpoint a stage; default: the shipped ones.

    Raises:
        FileNotFoundError: when the folder does not hold it; the message lists those it holds.
        CheckpointError: when what it holds is another network, or damaged.
    """
    folder = Path(folder or SHIPPED)
    if not (folder / stage).is_dir():
        held = sorted(path.parent.name for path in folder.glob("*/config.json"))
        raise FileNotFoundError(f"there is no checkpoint {stage!r} in {folder}, which holds {', '.join(held) or 'none'}.")
    return checkpoints.load(folder / stage, TwoStageDenoiser, DenoiserConfig).requires_grad_(False)
