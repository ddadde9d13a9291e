"""Where a clicked point may be over time: densities of its sampled positions over the frame, one row a condition.

Source: the position distributions on ZipMo's project page. A row is one set of samples of the same point (no poke, one
poke, what truly may happen); a column is a moment. Filled regions hold the likeliest 50 % and 90 % of the positions, so
that rows and moments compare; the area of the larger one is printed in percent of the frame.

The density is a sum of Gaussians on a grid, normalised over the plane and not over the frame: points that leave the frame
are counted, and said, instead of being pushed back in.

Shapes: paths (K, T, 2), K samples of one point, xy in [-1, 1]; densities (cells, cells), rows from top to bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kinelib.notation import ShapeError, check_finite, check_shape, to_pixels
from kinelib.show.theme import BLACK, BLUE, SKY, draw_frame, new_figure, themed
from kinelib.show.tracks import draw_pokes

MASSES = (0.5, 0.9)  # shares of the positions that the filled regions hold
SHADES = ((BLUE, 0.75), (SKY, 0.55))


def position_density(points: torch.Tensor, blur: float = 0.05, cells: int = 128) -> np.ndarray:
    """The density of positions (K, 2) at cells x cells centres of the frame, in 1 / unit^2; integrates to 1 over the plane.

    Args:
        points: sampled positions, also outside the frame.
        blur: standard deviation of the Gaussians in units of half a frame.
        cells: a side of the grid.
    """
    sizes = check_shape("points", points, "K 2")
    check_finite("points", points)
    if not sizes["K"] or not blur > 0 or cells < 1:
        raise ShapeError(f"a density needs points, blur > 0 and cells >= 1; got {sizes['K']}, {blur} and {cells}.")
    points = points.detach().cpu().double()
    centres = (2 * torch.arange(cells, dtype=torch.float64) + 1) / cells - 1
    x, y = (torch.exp(-((points[:, axis, None] - centres) ** 2) / (2 * blur**2)) for axis in (0, 1))
    return (y.T @ x / (2 * torch.pi * blur**2 * sizes["K"])).numpy()


def region_level(density: np.ndarray, mass: float) -> float:
    """The density above which the likeliest region holds `mass`, in (0, 1], of what lies in the frame."""
    if not 0 < mass <= 1:
        raise ValueError(f"mass is a share in (0, 1]; got {mass}.")
    ordered = np.sort(density, axis=None)[::-1]
    held = np.cumsum(ordered)
    return float(ordered[np.searchsorted(held, mass * held[-1] * (1 - 1e-12))])


def region_area(density: np.ndarray, mass: float = 0.9) -> float:
    """The area, in percent of the frame, of the smallest region that holds `mass` of the density in the frame."""
    return 100.0 * float((density >= region_level(density, mass)).mean())


@themed
def show_distributions(
    frame: np.ndarray | torch.Tensor,
    rows: Mapping[str, torch.Tensor],
    times: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    *,
    pokes: Mapping[str, tuple[torch.Tensor, torch.Tensor | None]] | None = None,
    blur: float = 0.05,
    size: float = 2.1,
    title: str = "",
) -> Figure:
    """Small multiples of where one point may be: a row a condition, a column a moment.

    Args:
        frame: the first frame.
        rows: label -> (K, T, 2), the same point in K samples; K and T may differ between rows.
        times: moments in [0, 1], 1 being the last frame.
        pokes: label -> pokes (P, 5) and mask (P,) or None, drawn as arrows in that row.
        blur: as in `position_density`.
        size: inches of a panel.
        title: text above.

    Raises:
        ShapeError: on wrong shapes, values that are not finite, or times outside [0, 1].
    """
    if not rows or not times or not all(0 <= time <= 1 for time in times):
        raise ShapeError(f"give at least one row, and times in [0, 1]; got {list(rows)} and {tuple(times)}.")
    unknown = set(pokes or {}) - set(rows)
    if unknown:
        raise ShapeError(f"pokes are given for {sorted(unknown)}, which is no row; the rows are {list(rows)}.")
    figure, axes = new_figure(len(rows), len(times), size, size * 1.1, "compressed")
    for line, (label, paths) in zip(axes, rows.items(), strict=True):
        sizes = check_shape(label, paths, "K T 2")
        check_finite(label, paths)
        paths = paths.detach().cpu()
        for panel, time in zip(line, times, strict=True):
            points = paths[:, round(time * (sizes["T"] - 1))]
            density = position_density(points, blur)
            width, height = draw_frame(panel, frame, dim=0.45)
            grid = (np.arange(len(density)) + 0.5) / len(density)
            for mass, (colour, alpha) in reversed(list(zip(MASSES, SHADES, strict=True))):
                levels = [region_level(density, mass), np.inf]
                panel.contourf(grid * width, grid * height, density, levels, colors=[colour], alpha=alpha)
            panel.plot(
                *to_pixels(points, width, height).T, ".", color="white", markersize=2.6, markeredgewidth=0, alpha=0.85
            )
            start = to_pixels(paths[:1, 0], width, height)[0]
            panel.plot(*start, "+", color="white", markersize=9, markeredgewidth=2.6)
            panel.plot(*start, "+", color=BLACK, markersize=8, markeredgewidth=1.2)
            panel.set(xlim=(0, width), ylim=(height, 0))
            outside = int((points.abs().amax(-1) > 1).sum())
            note = f"90 % in {region_area(density):.1f} % of frame" + (f", {outside} left it" if outside else "")
            panel.set_xlabel(note, fontsize=7.5, labelpad=2)
            if pokes and label in pokes:
                draw_pokes(panel, *pokes[label], (width, height))
        line[0].set_ylabel(f"{label}\n{sizes['K']} samples", fontsize=8.5)
    for panel, time in zip(axes[0], times, strict=True):
        panel.set_title(f"time {time:g}", fontsize=9)
    keys = [Patch(color=c, alpha=a, label=f"likeliest {100 * m:.0f} %") for m, (c, a) in zip(MASSES, SHADES, strict=True)]
    keys += [Line2D([], [], color="white", marker=".", markeredgecolor=BLACK, linestyle="", label="one sample")]
    keys += [Line2D([], [], color=BLACK, marker="+", linestyle="", label="the clicked point")]
    figure.legend(handles=keys, loc="outside lower center", ncols=4)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure
