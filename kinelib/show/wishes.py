"""What a canvas can ask of a forecaster: futures of a grid, a dense field, the places of one point over many samples.

A wish takes along everything it needs, for the canvas goes on changing while a worker thread fulfils it.
Shapes: frame (1, 3, S, S), pokes (1, P, 5) with mask (1, P), tracks (K, N, T, 2).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kinelib.notation import cell_centres
from kinelib.tracks.tracks import Poke, Tracks, pack_pokes

Forecast = Callable[..., Tensor]
OPTIONAL = ("steps", "guidance", "text")  # keyword arguments a forecaster may take; a slider or a box each
FIELD_SIDE, FIELD_FRAMES = 32, 16  # points a side and moments of the dense view
WHERE_BATCH = 8  # samples of one point drawn between two reports


def free_keywords(forecast: Forecast) -> set[str]:
    """Which of the optional keywords a callable takes and nobody (`functools.partial`) has fixed."""
    fixed = getattr(forecast, "keywords", {})
    return {name for name in OPTIONAL if name in inspect.signature(forecast).parameters and name not in fixed}


def as_pokes(rows: list) -> list[Poke]:
    """`Poke`s from rows of five numbers; raises ShapeError for a row that is none."""
    return [Poke(tuple(map(float, row[:2])), tuple(map(float, row[2:4])), *map(float, row[4:])) for row in rows]


@dataclass(frozen=True)
class Wish:
    """One thing to ask of a forecaster; calling it with `report` samples and reports (tracks, milliseconds).

    Args:
        kind: "answer" (a grid and the poked points), "field" (a dense grid) or "where" (one point, many samples).
        forecast: the callable.
        frame: (1, 3, S, S).
        pokes: rows of five numbers.
        samples, seed, options: K, noise, and the optional keywords the forecaster takes.
        grid: points a side of an "answer".
        num_frames: T.
        question: xy of the point of "where".
        spread: its samples.
    """

    kind: str
    forecast: Forecast
    frame: Tensor
    pokes: list
    samples: int
    seed: int
    options: dict
    grid: int = 12
    num_frames: int = 64
    question: tuple[float, float] | None = None
    spread: int = 48

    def __call__(self, report: Callable) -> None:
        """Samples, and reports as long as `report` says that the answer is still wanted."""
        begun = time.perf_counter()
        tell = lambda tracks: report((tracks, 1000 * (time.perf_counter() - begun)))
        if self.kind == "field":
            tell(self.sample(cell_centres(FIELD_SIDE, FIELD_SIDE), FIELD_FRAMES, self.samples, self.seed))
        elif self.kind == "answer":
            starts = torch.tensor([row[:2] for row in self.pokes], dtype=torch.float32).reshape(-1, 2)
            points = torch.cat([cell_centres(self.grid, self.grid), starts])
            tell(self.sample(points, self.num_frames, self.samples, self.seed))
        else:
            point, found, wanted = torch.tensor([self.question], dtype=torch.float32), [], True
            while wanted and sum(map(len, found)) < self.spread:
                # Other seeds than the futures': this is about many samples, not about those.
                found.append(self.sample(point, self.num_frames, WHERE_BATCH, self.seed + 7919 * (len(found) + 1)))
                wanted = tell(torch.cat(found))

    def sample(self, points: Tensor, frames: int, samples: int, seed: int) -> Tensor:
        """The forecaster's (K, Q, T, 2) for points (Q, 2), checked."""
        pokes, mask = pack_pokes(as_pokes(self.pokes))
        with torch.no_grad():
            options = dict(num_frames=frames, samples=samples, seed=seed, **self.options)
            tracks = self.forecast(self.frame, pokes, mask, points[None], **options)[0].float().cpu()
        return Tracks(tracks).xy
