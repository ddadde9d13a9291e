"""Loads the trained networks of the ZipMo part from one folder: autoencoder, planner, and the trained baselines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from kinelib.learning import checkpoints
from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder
from kinelib.zipmo.autoregressive import AutoregressiveConfig, AutoregressiveForecast, AutoregressiveModel
from kinelib.zipmo.direct import DirectConfig, DirectFlowMatcher
from kinelib.zipmo.flow_matcher import FlowMatcher, FlowMatcherConfig
from kinelib.zipmo.forecast import DirectForecast, LatentForecast, RegressionForecast
from kinelib.zipmo.regression import Regression, RegressionConfig
from kinelib.zipmo.video_model import VideoConfig, VideoFlowMatcher

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "zipmo"
STAGES = {
    "autoencoder": (TrackAutoencoder, AutoencoderConfig),
    "planner": (FlowMatcher, FlowMatcherConfig),
    "regression": (Regression, RegressionConfig),
    "direct": (DirectFlowMatcher, DirectConfig),
    "autoregressive": (AutoregressiveModel, AutoregressiveConfig),
    "video": (VideoFlowMatcher, VideoConfig),
}


def load_stage(stage: str, folder: str | Path | None = None) -> nn.Module:
    """A trained network of a stage, in eval mode and without gradients.

    Args:
        stage: one of `STAGES`.
        folder: holds one checkpoint a stage; default: the shipped ones.

    Raises:
        ValueError: for an unknown stage.
        FileNotFoundError: when the folder does not hold it.
        CheckpointError: when what it holds is another network, or damaged.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; choose one of: {', '.join(STAGES)}.")
    model_class, config_class = STAGES[stage]
    return checkpoints.load(Path(folder or SHIPPED) / stage, model_class, config_class).requires_grad_(False)


def load_latent(folder: str | Path | None = None, **options) -> LatentForecast:
    """The latent forecaster (autoencoder and planner); options as of `LatentForecast`."""
    return LatentForecast(load_stage("autoencoder", folder), load_stage("planner", folder), **options)


def load_baselines(folder: str | Path | None = None, steps: int = 6) -> dict[str, Callable]:
    """The trained baselines the folder holds, by name; each states its training on its card."""
    folder = Path(folder or SHIPPED)
    found = {}
    if (folder / "regression").is_dir():
        found["regression"] = RegressionForecast(load_stage("autoencoder", folder), load_stage("regression", folder))
    if (folder / "direct").is_dir():
        found["direct"] = DirectForecast(load_stage("direct", folder), steps)
    if (folder / "autoregressive").is_dir():
        found["autoregressive"] = AutoregressiveForecast(load_stage("autoregressive", folder))
    return found
