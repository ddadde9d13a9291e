"""One look for every figure: fonts, a palette that colour-blind readers can tell apart, one colour a method.

The palette is Okabe and Ito's; methods keep their colour *and* marker across all notebooks, so that a reader who has
seen one comparison can read the next. Figures are made without pyplot's global list: a function's figure is shown once
in a notebook (as the cell's value), is freed when the name is, and does not depend on what was plotted before.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kinelib.notation import ShapeError

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PINK, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A",
)  # fmt: skip
# Told apart on photographs too: black and grey would drown.
SAMPLE_COLOURS = (SKY, ORANGE, PINK, GREEN, VERMILION, YELLOW, BLUE, "#B7E3B0")
TIME_MAP = "plasma"

# Method -> (colour, marker).
METHODS = {
    "truth": (BLACK, "*"),
    "zipmo": (BLUE, "o"),
    "zipmo corrected": (SKY, "P"),
    "direct": (PINK, "X"),
    "regression": (VERMILION, "s"),
    "linear": (GREEN, "^"),
    "linear_local": ("#7A9A01", "v"),
    "copy_nearest": (ORANGE, "D"),
    "constant_velocity": ("#8C5A2B", ">"),
    "static": (GREY, "8"),
}
SPARE_STYLES = (("#4B3B8F", "<"), ("#A6761D", "h"), ("#66A5AD", "p"), ("#7B3F61", "d"))

RC = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, GREY]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "font.size": 9.5,
    "image.cmap": TIME_MAP,
}


def theme() -> None:
    """Applies the look to every figure drawn from here on; a notebook's first cell calls it once."""
    matplotlib.rcParams.update(RC)


def themed(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Makes a figure function draw in this look whatever the caller's settings are, and leave those alone."""

    @functools.wraps(function)
    def inside(*args, **options):
        with matplotlib.rc_context(RC):
            return function(*args, **options)

    return inside


def method_style(name: str) -> tuple[str, str]:
    """The (colour, marker) of a method: fixed for known names, and a stable choice for others."""
    if name in METHODS:
        return METHODS[name]
    return SPARE_STYLES[zlib.crc32(name.encode()) % len(SPARE_STYLES)]


def new_figure(
    rows: int, columns: int, width: float, height: float, layout: str = "constrained"
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) array of axes; width and height in inches of one panel.

    Pass ``layout="compressed"`` for pictures, whose fixed aspect would otherwise leave gaps between panels.
    """
    figure = Figure(figsize=(columns * width, rows * height), layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False)


def stamp(figure: Figure, text: str) -> Figure:
    """Marks a figure in its lower right corner, for example "smoke": a toy number must never look like a result.

    Returns:
        The same figure.
    """
    figure.text(
        0.995, 0.005, text, ha="right", va="bottom", fontsize=8, color="white", weight="bold", zorder=100,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": VERMILION, "edgecolor": "none", "alpha": 0.9},
    )  # fmt: skip
    return figure


def as_image(frame: np.ndarray | torch.Tensor) -> np.ndarray:
    """A picture as uint8 (H, W, 3), from that or from a model frame (3, H, W) float in [-1, 1].

    Raises:
        ShapeError: when it is neither.
    """
    image = frame.detach().cpu().numpy() if isinstance(frame, torch.Tensor) else np.asarray(frame)
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3:
        return image
    if np.issubdtype(image.dtype, np.floating) and image.ndim == 3 and image.shape[0] == 3:
        if not np.isfinite(image).all() or np.abs(image).max() > 1.01:
            raise ShapeError("a model frame (3, H, W) must be finite and in [-1, 1].")
        return np.round((image.transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    raise ShapeError(
        f"a frame must be uint8 (H, W, 3) or float (3, H, W) in [-1, 1]; got {image.dtype} of shape {image.shape}. "
        "Draw one clip at a time: index the batch first."
    )


def draw_frame(axes: Axes, frame: np.ndarray | torch.Tensor, *, dim: float = 0.0) -> tuple[int, int]:
    """Shows a frame so that pixel edges, not centres, carry -1 and 1; returns its (width, height) in pixels.

    Args:
        axes: where.
        frame: as :func:`as_image`.
        dim: 0 leaves the picture, 1 turns it white, so that tracks stand out.
    """
    image = as_image(frame)
    height, width = image.shape[:2]
    faded = np.round(image * (1 - dim) + 255 * dim).astype(np.uint8)
    axes.imshow(faded, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return width, height
