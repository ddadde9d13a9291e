"""A canvas as a still picture: what executed and exported notebooks show, and the ground on which films are drawn.

Drawn with OpenCV like `show.animation`: a snapshot is made whenever a notebook displays a canvas, and must be quick.
Shapes: picture uint8 (H, W, 3), futures (K, N, T, 2) xy in [-1, 1], pokes (P, 5).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from matplotlib.colors import to_rgb

from kinelib.notation import to_pixels
from kinelib.show.theme import SAMPLE_COLOURS, as_image

STILL = 0.06  # half frames: a point that never gets farther from its start is not drawn, as in the browser
QUIET = 0.2  # and one that gets less far than this share of its sample's farthest has no head
_BITS = 4  # fractional bits of OpenCV's fixed-point coordinates
_DARK, _LIGHT = (8, 12, 20), (255, 255, 255)


def draw_snapshot(
    picture: np.ndarray,
    futures: torch.Tensor | None,
    pokes: torch.Tensor,
    *,
    focus: int = -1,
    width: int = 420,
    caption: str = "",
    places: torch.Tensor | None = None,
    field: torch.Tensor | None = None,
) -> np.ndarray:
    """The picture with whole futures, a colour a sample, and the pokes; or with a density, or a dense field, instead.

    Args:
        picture: uint8 (H, W, 3).
        futures: (K, N, T, 2), or None where there are none yet.
        pokes: (P, 5).
        focus: draw this sample alone; -1 draws all.
        width: pixels of the result.
        caption: a line under the picture; "" for none.
        places: (M, 2) where one point ends in many samples: their density is drawn.
        field: (N, T, 2) a dense grid of one sample: an arrow from start to end each, coloured by direction.

    Returns:
        uint8 (height, width, 3).
    """
    image = ground(picture, width, veil=0.0 if futures is None else 0.28)
    if places is not None:
        image = _heated(image, places)
    elif field is not None:
        image = (0.45 * image).astype(np.uint8)
        _draw_field(image, field)
    elif futures is not None:
        height = image.shape[0]
        for sample, xy in enumerate(futures):
            if focus not in (-1, sample):
                continue
            xy = moving_points(xy)
            fixed = _fixed(xy, width, height)
            colour = sample_colour(sample)
            cv2.polylines(image, list(fixed), False, colour, 1, cv2.LINE_AA, _BITS)
            reach = (xy - xy[:, :1]).norm(dim=-1).amax(-1)
            lively = reach >= QUIET * reach.max() if len(xy) else reach > 0
            for end in fixed[lively.numpy(), -1]:
                cv2.circle(image, end.tolist(), 3 << _BITS, _DARK, -1, cv2.LINE_AA, _BITS)
                cv2.circle(image, end.tolist(), 2 << _BITS, colour, -1, cv2.LINE_AA, _BITS)
    draw_pokes_on(image, pokes)
    return captioned(image, caption) if caption else image


def density_map(places: torch.Tensor, cells: int = 96, blur: float = 0.05) -> torch.Tensor:
    """Where places (M, 2) lie, as a sum of Gaussians read at the centres of cells x cells, peak 1: (cells, cells).

    Args:
        places: xy in [-1, 1]; those outside count as far as they reach in.
        cells: a side of the map.
        blur: standard deviation, in units of half a frame. The page computes the same sum.
    """
    centres = (2 * torch.arange(cells, dtype=torch.float64) + 1) / cells - 1
    # A Gaussian of the plane is a product of two: two small matrices instead of cells x cells x M terms.
    x, y = (torch.exp(-((places[:, axis, None].double() - centres) ** 2) / (2 * blur**2)) for axis in (0, 1))
    total = y.T @ x
    return total / total.max().clamp_min(1e-12)


def _heated(image: np.ndarray, places: torch.Tensor) -> np.ndarray:
    height, width = image.shape[:2]
    share = cv2.resize(density_map(places).float().numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap(np.round(255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = np.clip(2.2 * share, 0, 0.88)[..., None]
    mixed = np.ascontiguousarray(np.round(image * (1 - opacity) + heat * opacity).astype(np.uint8))
    for place in _fixed(places, width, height):
        cv2.circle(mixed, place.tolist(), 1 << _BITS, _LIGHT, -1, cv2.LINE_AA, _BITS)
    return mixed


def _draw_field(image: np.ndarray, field: torch.Tensor) -> None:
    height, width = image.shape[:2]
    for start, end in zip(_fixed(field[:, 0], width, height), _fixed(field[:, -1], width, height), strict=True):
        dx, dy = (end - start).tolist()
        hue = (np.degrees(np.arctan2(dy, dx)) + 180) / 2  # OpenCV's hues run to 180
        colour = cv2.cvtColor(np.uint8([[[hue % 180, 190, 245]]]), cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.line(image, start.tolist(), end.tolist(), colour, 1, cv2.LINE_AA, _BITS)
        cv2.circle(image, end.tolist(), (3 << _BITS) // 2, colour, -1, cv2.LINE_AA, _BITS)


def ground(picture: np.ndarray, width: int, veil: float = 0.28) -> np.ndarray:
    """The picture, `width` pixels wide and under a veil of white, for lines to stand out on."""
    image = as_image(picture)
    height = max(2, round(width * image.shape[0] / image.shape[1]))
    smaller = width < image.shape[1]
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.ascontiguousarray(np.round(image * (1 - veil) + 255 * veil).astype(np.uint8))


def moving_points(xy: torch.Tensor) -> torch.Tensor:
    """The points (M, T, 2) of one sample (N, T, 2) that move at all."""
    return xy[(xy - xy[:, :1]).norm(dim=-1).amax(-1) > STILL]


def sample_colour(sample: int) -> tuple[int, int, int]:
    """The 8-bit colour of a sample, the same in browser, film and snapshot."""
    return tuple(round(255 * part) for part in to_rgb(SAMPLE_COLOURS[sample % len(SAMPLE_COLOURS)]))


def draw_pokes_on(image: np.ndarray, pokes: torch.Tensor) -> None:
    """Draws pokes (P, 5) into an image: arrows, a crossed ring for "hold still", the time of those that are early."""
    height, width = image.shape[:2]
    for poke in pokes:
        start, goal = _fixed(poke[:4].reshape(2, 2), width, height)
        still = np.hypot(*(goal - start)) < (2 << _BITS)
        for colour, extra in ((_DARK, 2), (_LIGHT, 0)):
            ring = (8 if still else 4) << _BITS
            cv2.circle(image, start.tolist(), ring, colour, 2 + extra, cv2.LINE_AA, _BITS)
            if still:
                for step in ((4 << _BITS, 0), (0, 4 << _BITS)):
                    cv2.line(image, (start - step).tolist(), (start + step).tolist(), colour, 1 + extra, cv2.LINE_AA, _BITS)
            else:
                cv2.line(image, start.tolist(), goal.tolist(), colour, 2 + extra, cv2.LINE_AA, _BITS)
                for barb in _barbs(start, goal):
                    cv2.line(image, barb, goal.tolist(), colour, 2 + extra, cv2.LINE_AA, _BITS)
        if poke[4] < 1:
            x, y = (goal >> _BITS).tolist()
            for colour, thick in ((_DARK, 3), (_LIGHT, 1)):
                place = (min(x + 8, width - 48), max(y - 8, 12))
                cv2.putText(image, f"t {poke[4]:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, thick, cv2.LINE_AA)


def _barbs(start: np.ndarray, goal: np.ndarray, length: float = 11) -> list[list[int]]:
    away = (start - goal) / max(np.hypot(*(start - goal)), 1e-6) * (length * 2**_BITS)
    across = np.array([-away[1], away[0]])
    return [np.round(goal + 0.87 * away + side * 0.45 * across).astype(int).tolist() for side in (1, -1)]


def captioned(image: np.ndarray, words: str) -> np.ndarray:
    """The image with a line of words on white under it."""
    strip = np.full((22, image.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, words, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (70, 80, 95), 1, cv2.LINE_AA)
    return np.concatenate([image, strip])


def side_by_side(images: list[np.ndarray], gap: int = 8) -> np.ndarray:
    """Images of one height in a row."""
    space = np.full((images[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, space)][:-1], axis=1)


def _fixed(xy: torch.Tensor, width: int, height: int) -> np.ndarray:
    """Positions as OpenCV's fixed-point integers; far-away ones are clipped so that they cannot overflow."""
    pixels = (to_pixels(xy.float(), width, height) - 0.5).clamp(-4 * width, 4 * width)
    return np.round(pixels.numpy() * 2**_BITS).astype(np.int32)
