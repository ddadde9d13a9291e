"""CoTracker3 as a tracker: an adapter over the user's own copy, offline (whole clip) or online (sliding window).

CoTracker (facebookresearch/co-tracker) is not on the package index and its licence is CC BY-NC 4.0, so it is neither
installed nor copied here. The adapter uses, in this order: a predictor object handed to it; an installed `cotracker`
package with the checkpoint file named by COTRACKER_CHECKPOINT; torch.hub, which downloads code and weights.

Call contract of the predictors: a float video (B, T, 3, H, W) in 0..255 and queries (B, N, 3) = (frame, x, y) in pixels,
centre of the first pixel (0, 0); returns positions (B, T, N, 2) in pixels and visible (B, T, N) bool.
The online predictor stores the queries at a first call (which returns (None, None)); then every call takes 2 * step
frames that overlap the last ones by half, and returns everything so far.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

log = logging.getLogger(__name__)

HUB_REPOSITORY = "facebookresearch/co-tracker"
CHECKPOINT_VARIABLE = "COTRACKER_CHECKPOINT"


class CoTrackerMissing(ImportError):
    """CoTracker is not on this machine; the message says how to get it."""


def cotracker(
    frames: np.ndarray,
    points: np.ndarray,
    *,
    mode: str = "offline",
    predictor: Callable | None = None,
    device: torch.device | str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Tracks points with CoTracker3.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        points: (N, 2) pixels at frame 0, centre of the first pixel (0, 0).
        mode: "offline" (sees the whole clip) or "online" (sliding window, any length).
        predictor: a CoTracker predictor of that mode; default: found as the module says.
        device: where to run; default: a GPU if there is one.

    Returns:
        positions (N, T, 2) float32 in pixels, visible (N, T) bool.

    Raises:
        CoTrackerMissing: when there is no CoTracker. ValueError: for another mode, or an answer that breaks the contract.
    """
    if mode not in ("offline", "online"):
        raise ValueError(f"CoTracker runs 'offline' or 'online'; got mode={mode!r}.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    predictor = predictor or load_predictor(mode)
    predictor = predictor.to(device) if isinstance(predictor, torch.nn.Module) else predictor
    video = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> 1 t c h w").to(device, torch.float32)
    xy = torch.as_tensor(points, dtype=torch.float32, device=device)
    queries = rearrange(torch.cat([torch.zeros_like(xy[:, :1]), xy], dim=-1), "n c -> 1 n c")
    with torch.no_grad():
        positions, visible = (_offline if mode == "offline" else _online)(predictor, video, queries)
    expected = (1, len(frames), len(points), 2)
    if tuple(positions.shape) != expected or tuple(visible.shape[:3]) != expected[:3]:
        raise ValueError(
            f"CoTracker answered positions {tuple(positions.shape)} and visibility {tuple(visible.shape)}; "
            f"expected {expected} and {expected[:3]}. This adapter was written for CoTracker3; check the installed version."
        )
    positions = rearrange(positions[0], "t n c -> n t c").float().cpu().numpy()
    # Version 3 has already put its threshold on the visibility; older ones return probabilities.
    visible = visible if visible.dtype == torch.bool else visible > 0.5
    return positions, rearrange(visible.reshape(expected[:3])[0], "t n -> n t").cpu().numpy()


def load_predictor(mode: str) -> Callable:
    """Finds a CoTracker3 predictor: the installed package with a checkpoint, else torch.hub.

    Raises:
        CoTrackerMissing: when neither works, with how to install it and under which licence.
    """
    checkpoint = os.environ.get(CHECKPOINT_VARIABLE)
    installed = importlib.util.find_spec("cotracker") is not None
    if installed and checkpoint:
        if not os.path.isfile(checkpoint):
            raise CoTrackerMissing(
                f"{CHECKPOINT_VARIABLE} names {checkpoint}, which is not a file. " + _how_to_install(mode)
            )
        module = importlib.import_module("cotracker.predictor")
        return (module.CoTrackerPredictor if mode == "offline" else module.CoTrackerOnlinePredictor)(checkpoint=checkpoint)
    try:
        log.info("loading CoTracker3 (%s) through torch.hub; its licence is CC BY-NC 4.0", mode)
        # The caller asked for this repository by name; without this torch.hub would wait for an answer at the keyboard.
        return torch.hub.load(HUB_REPOSITORY, f"cotracker3_{mode}", trust_repo=True)
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        found = f"The cotracker package is installed but {CHECKPOINT_VARIABLE} is not set. " if installed else ""
        raise CoTrackerMissing(f"CoTracker is not available ({error}). {found}{_how_to_install(mode)}") from error


def _offline(predictor: Callable, video: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    return predictor(video, queries=queries)


def _online(predictor: Callable, video: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    frames, step = video.shape[1], int(predictor.step)
    # Whole windows only: the last frame is repeated to the end of the last window and its answers are cut off.
    windows = max(1, -(-(frames - step) // step))
    missing = (windows + 1) * step - frames
    video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
    predictor(video_chunk=video[:, : 2 * step], is_first_step=True, queries=queries)
    positions = visible = None
    for window in range(windows):
        positions, visible = predictor(video_chunk=video[:, window * step : (window + 2) * step], is_first_step=False)
    if positions is None or positions.shape[1] < frames:
        raise ValueError(
            "CoTracker's online predictor returned fewer frames than it was given; check the installed version."
        )
    return positions[:, :frames], visible[:, :frames]


def _how_to_install(mode: str) -> str:
    return (
        f"Install it from its public repository ({HUB_REPOSITORY}: pip install from the git address), download the "
        f"'{mode}' checkpoint of CoTracker3 and set {CHECKPOINT_VARIABLE} to the file; or connect to the network once so "
        "that torch.hub can fetch it. Its licence is CC BY-NC 4.0: no commercial use. tracker='lk' needs none of this."
    )
