"""The poke playground in one line: the shipped model, pictures to choose from, and a canvas to drag on.

    from kinelib.course.playground import playground
    playground()

The room `show` draws and asks; it knows no model. Here the shipped one is wired in: solver steps, guidance and, where the
planner reads sentences, text become keyword arguments of one callable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinelib.course.places import repository

if TYPE_CHECKING:
    import numpy as np

    from kinelib.show.poke_canvas import PokeCanvas
    from kinelib.zipmo.forecast import LatentForecast

SCENE_SIDE = 384  # pixels of a drawn scene
BASELINE_POKES = 16  # most pokes the baselines were trained with
PLAYGROUND_SEED = 9_100_000  # of the scenes offered; training never draws from here


def playground(
    picture: Any = None,
    checkpoint: str | Path | None = None,
    *,
    against: dict[str, Any] | str | None = None,
    **options: Any,
) -> PokeCanvas:
    """A canvas with the shipped model.

    Args:
        picture: uint8 (H, W, 3), the path of a picture or video, or a name of the list; default: a drawn scene.
        checkpoint: folder with an autoencoder and a planner; default: the shipped ones.
        against: compare with the same model under other settings, `{"guidance": 3.0}`, with another one,
            `{"checkpoint": folder}`, or with a shipped baseline by name: "direct" (flow matching on trajectories,
            no latents), "autoregressive" or "regression"; the same pokes go to both.
        options: as of `PokeCanvas`: samples, seed, grid, num_frames, ...

    Returns:
        the canvas; let it be the last value of a cell, or `display` it.

    Raises:
        ValueError: for a baseline that is not there.
    """
    from kinelib.show.poke_canvas import PokeCanvas
    from kinelib.zipmo.pretrained import load_baselines, load_latent

    latent = load_latent(checkpoint)
    forecasts: dict[str, Callable] = {"zipmo": steerable(latent)}
    most_pokes = latent.planner.config.max_pokes
    if isinstance(against, str):
        baselines = load_baselines(checkpoint)
        if against not in baselines:
            raise ValueError(f"there is no baseline {against!r} to compare with; choose one of {', '.join(baselines)}.")
        forecasts[against] = baselines[against]
        most_pokes = min(most_pokes, BASELINE_POKES)
    elif against:
        settings = dict(against)
        other = load_latent(settings.pop("checkpoint")) if "checkpoint" in settings else latent
        name = ", ".join(f"{name} {value}" for name, value in settings.items()) or Path(against["checkpoint"]).name
        forecasts[name] = partial(steerable(other), **settings)
    pictures = offered_pictures()
    if isinstance(picture, (str, Path)) and str(picture) not in pictures:
        pictures = {Path(picture).name: Path(picture)} | pictures
        picture = Path(picture).name
    usual = dict(frame_size=latent.autoencoder.config.frame_size, most_pokes=most_pokes)
    usual |= dict(steps=latent.steps, guidance=latent.guidance)
    chosen = "scene: vehicle" if picture is None else picture
    return PokeCanvas(chosen, forecasts, pictures=pictures, **usual | options)


def steerable(latent: LatentForecast) -> Callable:
    """The forecaster as a canvas calls it: steps and guidance, and a sentence where it reads one, are keywords."""

    def forecast(*ask, steps=latent.steps, guidance=latent.guidance, **sampling):
        return replace(latent, steps=steps, guidance=guidance)(*ask, **sampling)

    if not latent.takes_text:
        return forecast

    from kinelib.learning.text import TextEncoder

    encoder = TextEncoder()

    def forecast_told(*ask, steps=latent.steps, guidance=latent.guidance, text=None, **sampling):
        return forecast(*ask, steps=steps, guidance=guidance, text=encoder.encode([text]) if text else None, **sampling)

    return forecast_told


def offered_pictures() -> dict[str, Any]:
    """What a canvas's list offers, by name: a scene of each family, and the frames of the sample videos."""
    from kinelib.tracks.scenes import FAMILIES
    from kinelib.tracks.video import list_videos

    scenes = {f"scene: {family}": partial(_scene, family) for family in FAMILIES}
    videos = {f"video: {path.stem}": path for path in list_videos(repository() / "data" / "samples")}
    return scenes | videos


def _scene(family: str, draw: int) -> np.ndarray:
    from kinelib.tracks.scenes import sample_scenes

    drawn = sample_scenes(1, PLAYGROUND_SEED + draw, families=(family,), size=SCENE_SIDE, num_points=1, num_frames=2)
    return drawn.first_frame[0]
