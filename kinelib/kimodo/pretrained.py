"""Loads trained denoisers: those that are shipped, or those of a folder."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.learning import checkpoints, int8_rows
from kinelib.learning.files import written_whole

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


# What bytes are too coarse for: the map that decorrelates sentences, whose rows span magnitudes, and two small ones.
EXACT = ("whitening.map", "gains.weight", "root.features_out.weight")


def compress_denoiser(folder: str | Path) -> None:
    """Rewrites a denoiser's weights as bytes (`kinelib.learning.int8_rows`), all but `EXACT`; what is packed stays as it is.

    Raises:
        FileNotFoundError: when the folder holds no weights.
    """
    path = Path(folder) / checkpoints.WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights {path} to compress.")
    tensors = load_file(path)
    loose = {name: tensor for name, tensor in tensors.items() if name not in EXACT}
    if not any(name.endswith(int8_rows.SCALE) for name in tensors):
        with written_whole(path) as sibling:
            save_file({name: tensors[name] for name in EXACT if name in tensors} | int8_rows.pack(loose), sibling)
