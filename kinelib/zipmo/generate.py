"""Generates futures of any picture from pokes and words: the function behind ``python -m kinelib generate tracks``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from kinelib.learning.files import written_whole
from kinelib.learning.image import to_model_frame
from kinelib.learning.text import TextEncoder
from kinelib.notation import cell_centres
from kinelib.tracks.tracks import Poke, pack_pokes
from kinelib.zipmo.flow import STEPS
from kinelib.zipmo.forecast import TEXT_GUIDANCE
from kinelib.zipmo.pretrained import load_latent


def read_picture(path: str | Path) -> np.ndarray:
    """Reads an image file as RGB uint8 (H, W, 3).

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not an image.
    """
    import cv2

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture {path}.")
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if picture is None:
        raise ValueError(f"{path} is not a picture that can be read; give a PNG, JPEG, BMP, TIFF or WebP file.")
    return np.ascontiguousarray(picture[..., ::-1])


def generate_tracks(
    frame_path: str | Path,
    pokes: Sequence[Poke],
    *,
    samples: int = 8,
    seed: int = 0,
    out: str | Path | None = None,
    checkpoint: str | Path | None = None,
    query_points: Tensor | None = None,
    grid: int = 16,
    num_frames: int = 64,
    steps: int = STEPS,
    guidance: float = 1.0,
    correction: str | None = None,
    text: str = "",
    text_guidance: float = TEXT_GUIDANCE,
    overwrite: bool = False,
) -> Tensor:
    """Samples futures of a picture: (K, Q, T, 2) positions, xy in [-1, 1].

    Args:
        frame_path: any picture; it is squashed to the model's square.
        pokes: none, one or several.
        samples: K futures.
        seed: of the noise.
        out: NPZ file to write (tracks, query_points, pokes, seed); None writes nothing.
        checkpoint: folder with autoencoder and planner; default: the shipped ones.
        query_points: (Q, 2) start points; default a `grid` x `grid` grid.
        grid: see above.
        num_frames: T.
        steps, guidance, text_guidance, correction: of the sampler, see `LatentForecast`.
        text: what shall happen, in a sentence; empty = nothing said.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: when `out` exists and `overwrite` is off.
        ShapeError: for too many pokes, or misshaped query points.
        ValueError: when the picture cannot be read, or a number is out of range.
    """
    if grid < 1:
        raise ValueError(f"grid must be at least 1 point a side; got {grid}.")
    if out is not None and Path(out).exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another name or allow overwriting.")
    picture = read_picture(frame_path)
    options = dict(steps=steps, guidance=guidance, text_guidance=text_guidance, correction=correction)
    forecast = load_latent(checkpoint, **options)
    said = TextEncoder().encode([text]) if text.strip() else None
    frame = to_model_frame(picture[None], forecast.autoencoder.config.frame_size)
    points = cell_centres(grid, grid) if query_points is None else query_points
    packed, mask = pack_pokes(list(pokes))
    tracks = forecast(frame, packed, mask, points[None], num_frames=num_frames, samples=samples, seed=seed, text=said)[0]
    if out is not None:
        with written_whole(out) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                tracks=tracks.numpy(),
                query_points=points.numpy(),
                pokes=packed[0][mask[0]].numpy(),
                seed=np.int64(seed),
                text=np.array(text),
                frame=np.array(str(frame_path)),
            )
    return tracks
