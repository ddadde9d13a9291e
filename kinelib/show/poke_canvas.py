"""`PokeCanvas`: drag a point of a picture and watch sampled futures, in a notebook or from Python.

    canvas = PokeCanvas(picture, forecast)
    canvas.poke((0.0, 0.2), (0.5, 0.2))     # what a drag does
    canvas.futures                          # Tracks (K, N, T, 2)

`forecast` is any callable like those of `zipmo.forecast`; this room knows none of them. Sampling runs on one worker thread
(`show.latest`), the traits are only touched by the thread that owns the canvas. Drawing is our own ES module
(`static/poke_canvas.js`); the same module is the offline page of `show.standalone`.

Shapes: picture uint8 (H, W, 3), pokes (P, 5) = (x, y, goal x, goal y, goal time), xy in [-1, 1], futures (K, N, T, 2).
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets
from torch import Tensor

from kinelib.learning.image import to_model_frame
from kinelib.show import export, standalone
from kinelib.show.latest import Latest, Report
from kinelib.show.modules import STATIC, bundle_modules
from kinelib.show.pictures import Picture, Source, check_picture, encode_jpeg, encode_png, open_source, read_upload, shown
from kinelib.show.snapshot import draw_snapshot, side_by_side
from kinelib.show.wishes import Forecast, Wish, as_pokes, free_keywords
from kinelib.tracks.tracks import Poke, Tracks, pack_pokes

PATIENCE = 120.0  # seconds that Python waits for an answer


class PokeCanvas(anywidget.AnyWidget):
    """A picture to poke, and the futures a forecaster draws from the pokes.

    Args:
        picture: uint8 (H, W, 3), or the name of one of `pictures`.
        forecast: `forecast(frame (1, 3, S, S), pokes (1, P, 5), mask (1, P), query_points (1, Q, 2), *, num_frames, samples,
            seed) -> (1, K, Q, T, 2)`; takes `steps`, `guidance`, `text` (a sentence or None) where it has such keywords.
            A mapping of two such callables by name shows them side by side on the same pokes; what
            `functools.partial` has fixed, the controls leave alone.
        pictures: what else the list of pictures offers, by name: arrays, films, paths, or functions of a number.
        samples, steps, guidance, seed, text: where the controls begin.
        grid: points a side whose futures are drawn.
        num_frames: T.
        frame_size: S, what the forecaster reads.
        most_pokes: how many pokes it takes.
        spread: samples of one point in the "where" view.

    Raises:
        PictureError: when the picture is not one.
        ValueError: for more than two forecasters, or none.
    """

    _esm = bundle_modules("poke_canvas.js")
    _css = (STATIC / "poke_canvas.css").read_text(encoding="utf-8")

    picture = traitlets.Bytes().tag(sync=True)
    picture_size = traitlets.List([1, 1]).tag(sync=True)
    pokes = traitlets.List().tag(sync=True)  # [[x, y, goal x, goal y, goal time], ...]
    most_pokes = traitlets.Int(16).tag(sync=True)
    samples = traitlets.Int(8, min=1, max=64).tag(sync=True)
    steps = traitlets.Int(6, min=1, max=200).tag(sync=True)
    guidance = traitlets.Float(1.0, min=0.0).tag(sync=True)
    seed = traitlets.Int(0, min=0).tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    takes_text = traitlets.Bool(False).tag(sync=True)
    controls = traitlets.List().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    request = traitlets.Int(0).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)
    view = traitlets.Enum(("futures", "field", "where"), "futures").tag(sync=True)
    focus = traitlets.Int(-1).tag(sync=True)
    question = traitlets.List(None, allow_none=True).tag(sync=True)
    sources = traitlets.List().tag(sync=True)
    source = traitlets.Unicode("").tag(sync=True)
    draw = traitlets.Int(0).tag(sync=True)  # which picture of a source that has many
    moment = traitlets.Int(0).tag(sync=True)  # which frame of a film
    moments = traitlets.Int(0).tag(sync=True)
    has_more = traitlets.Bool(False).tag(sync=True)
    accepts_upload = traitlets.Bool(True).tag(sync=True)
    formats = traitlets.List(list(export.FORMATS)).tag(sync=True)
    # What came of the wishes, a panel each: {request, samples, points, frames, milliseconds, data (float16)}.
    answer_0, answer_1 = (traitlets.Dict().tag(sync=True) for _ in range(2))
    field_0, field_1 = (traitlets.Dict().tag(sync=True) for _ in range(2))
    where_0, where_1 = (traitlets.Dict().tag(sync=True) for _ in range(2))

    def __init__(
        self,
        picture: np.ndarray | str,
        forecast: Forecast | Mapping[str, Forecast],
        *,
        pictures: Mapping[str, Source] | None = None,
        grid: int = 12,
        num_frames: int = 64,
        frame_size: int = 64,
        spread: int = 48,
        **settings,
    ) -> None:
        forecasts = dict(forecast) if isinstance(forecast, Mapping) else {"forecast": forecast}
        if not 1 <= len(forecasts) <= 2 or not all(map(callable, forecasts.values())):
            raise ValueError(f"give one forecaster, or two by name to compare; got {list(forecasts)}.")
        if min(grid, num_frames, frame_size, spread) < 1:
            raise ValueError("grid, num_frames, frame_size and spread must be at least 1.")
        unknown = set(settings) - {"samples", "steps", "guidance", "seed", "text", "most_pokes", "view", "layout"}
        if unknown:
            raise ValueError(f"unknown settings {sorted(unknown)}; see the documentation of PokeCanvas.")
        self._sources = dict(pictures or {})
        if not isinstance(picture, str):
            check_picture(picture)  # before anything is set up
            self._sources = {"this picture": picture} | self._sources
        elif picture not in self._sources:
            raise ValueError(f"there is no picture named {picture!r}; choose one of {', '.join(self._sources) or 'none'}.")
        self._forecasts = forecasts
        self._takes = {name: free_keywords(one) for name, one in forecasts.items()}
        self._frame_size, self._sizes = frame_size, dict(grid=grid, num_frames=num_frames, spread=spread)
        self._number = self._files = 0
        self._tracks: dict[str, Tensor] = {}  # report kind -> (K, N, T, 2)
        self._asked: dict[str, tuple] = {}  # report kind -> what was last asked for
        self._open: set[str] = set()  # report kinds whose answer is awaited
        self._failed: dict[str, Exception] = {}
        self._serial = 0
        self._ready = False
        self._loop = _running_loop()
        self._worker = Latest(self._wake)
        taken = set().union(*self._takes.values())
        sliders = ["samples", "seed", *(name for name in ("steps", "guidance") if name in taken)]
        names = dict(names=list(forecasts), sources=list(self._sources), controls=sliders, takes_text="text" in taken)
        super().__init__(**names, **settings)
        self.choose(next(iter(self._sources)) if not isinstance(picture, str) else picture)
        self.on_msg(self._hear)
        self._ready = True
        self._ask()

    # ---- from Python, what a hand can do

    def poke(self, start: tuple[float, float], goal: tuple[float, float], goal_time: float = 1.0, *, wait: bool = True):
        """Asks that the point at `start` be at `goal` at a time, as a drag does.

        Args:
            start, goal: xy in [-1, 1] across the picture, y down; the start lies inside it.
            goal_time: in (0, 1], 1 being the last frame.
            wait: return the new futures, `Tracks` of (K, N, T, 2); False returns at once and None.

        Raises:
            ShapeError: for a point or time out of range, or more pokes than the forecaster takes.
        """
        poke = Poke(tuple(map(float, start)), tuple(map(float, goal)), float(goal_time))
        wanted = [*self.pokes, [*poke.start_xy, *poke.goal_xy, poke.goal_time]]
        self.pokes = wanted
        return self.futures if wait else None

    def hold(self, point: tuple[float, float], goal_time: float = 1.0, *, wait: bool = True):
        """Asks that a point be where it is at a time, as a tap does; as :meth:`poke`."""
        return self.poke(point, point, goal_time, wait=wait)

    def clear(self) -> None:
        """Removes all pokes."""
        self.pokes = []

    @property
    def futures(self) -> Tracks:
        """The newest futures of the (first) forecaster, the K samples along the batch axis; waits for them."""
        return self.futures_of(self.names[0])

    def futures_of(self, name: str) -> Tracks:
        """The newest futures of one of two compared forecasters; raises what that forecaster raised."""
        return Tracks(self._result(f"answer_{self.names.index(name)}"))

    def where(self, point: tuple[float, float]) -> Tracks:
        """Where a point will be, over many samples: `Tracks` (samples, 1, T, 2); shows it, as a tap in that view does."""
        Poke(tuple(point), tuple(point))
        with self.hold_trait_notifications():
            self.view, self.question = "where", [float(value) for value in point]
        return Tracks(self._result("where_0"))

    async def settled(self) -> Tracks:
        """Awaits the newest futures without blocking the kernel: `await canvas.settled()`."""
        deadline = time.monotonic() + PATIENCE
        while self._collect() and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        return self.futures

    def choose(self, name: str, *, draw: int = 0, moment: int = 0) -> None:
        """Shows another picture of the list; its pokes begin anew.

        Args:
            name: one of `sources`.
            draw: which one, for a source that has many.
            moment: which frame, for a film.
        """
        if name not in self._sources:
            raise ValueError(f"there is no picture named {name!r}; choose one of {', '.join(self._sources)}.")
        source = self._sources[name]
        opened = open_source(source, draw)
        film = opened if opened.ndim == 4 else opened[None]
        moment = min(max(moment, 0), len(film) - 1)
        self._picture: Picture = shown(film[moment])
        self._frame = to_model_frame(film[moment][None], self._frame_size)
        self._serial += 1
        height, width = self._picture.shape[:2]
        self._tracks.clear()
        was, self._ready = self._ready, False
        with self.hold_trait_notifications():
            self.source, self.draw, self.moment = name, draw, moment
            self.moments, self.has_more = len(film), callable(source)
            self.picture, self.picture_size = encode_jpeg(self._picture), [width, height]
            self.pokes, self.question, self.error = [], None, ""
            for kind in ("answer", "field", "where"):
                for panel in range(2):
                    self.set_trait(f"{kind}_{panel}", {})
        self._ready = was
        if was:
            self._ask()

    def save(self, path: str | Path, name: str | None = None) -> Path:
        """Writes what is shown: .mp4, .gif, .png, .npz or .parquet; `name` chooses one of two compared forecasters."""
        futures = self.futures_of(name or self.names[0]).xy
        return export.save(self._shown(futures, self.focus), path)

    def to_html(self, path: str | Path, **options) -> Path:
        """Writes a page that works offline, futures computed beforehand; see :func:`kinelib.show.standalone.write_page`."""
        name = self.names[0]
        forecast = partial(self._forecasts[name], **self._options(name))
        options = dict(seed=self.seed, samples=min(self.samples, 4)) | options
        return standalone.write_page(path, self._picture, self._frame, forecast, **options)

    def snapshot(self) -> np.ndarray:
        """What is shown as one uint8 picture: futures and pokes, or the dense field, or a density; panels side by side."""
        pokes = torch.tensor(self.pokes, dtype=torch.float32).reshape(-1, 5)
        many = len(self.names) > 1
        width = 340 if many else 420
        panels = []
        for panel, name in enumerate(self.names):
            options = dict(focus=self.focus, width=width, caption=name if many else "")
            if self.view == "where" and f"where_{panel}" in self._tracks:
                options["places"] = self._tracks[f"where_{panel}"][:, 0, -1]
            elif self.view == "field" and f"field_{panel}" in self._tracks:
                options["field"] = self._tracks[f"field_{panel}"][max(0, self.focus)]
            panels.append(draw_snapshot(self._picture, self._tracks.get(f"answer_{panel}"), pokes, **options))
        return side_by_side(panels)

    def open(self) -> None:
        """Opens the way to the page; where nobody watches there is none, and notebooks stay free of megabytes of state."""
        if not _headless():
            super().open()

    def _repr_mimebundle_(self, **options):
        """The live widget, and a PNG of the present state for where there is no kernel: exported pages, code forges.

        Where nobody watches (the runner sets KINELIB_HEADLESS), the PNG alone: a dead widget would hide it.
        """
        self._wait(10.0)
        data, metadata = ({"text/plain": repr(self)}, {}) if _headless() else super()._repr_mimebundle_(**options)
        return data | {"image/png": base64.b64encode(encode_png(self.snapshot())).decode()}, metadata

    # ---- wishes

    @traitlets.validate("pokes")
    def _sound_pokes(self, proposal) -> list:
        pack_pokes(as_pokes(proposal["value"]), self.most_pokes)
        return [[float(value) for value in row] for row in proposal["value"]]

    @traitlets.observe("pokes", "samples", "steps", "guidance", "seed", "text", "view", "question", "request")
    def _wish(self, change) -> None:
        if self._ready:
            self._ask()

    @traitlets.observe("source", "moment", "draw")
    def _look_elsewhere(self, change) -> None:
        if not self._ready:
            return
        try:
            self.choose(self.source, draw=self.draw if change.name != "source" else 0, moment=self.moment)
        except (ValueError, OSError) as error:
            self.error = str(error)

    def _ask(self) -> None:
        """Sends the worker what changed since the last time; what did not change is not sampled again."""
        common = (self._serial, str(self.pokes), self.samples, self.steps, self.guidance, self.seed, self.text)
        keys = {"answer": common, "field": common, "where": (*common, str(self.question))}
        kinds = ["answer"] + [
            kind for kind in ("field", "where") if kind == self.view and (kind == "field" or self.question)
        ]
        panels = range(len(self.names))
        fresh = [(kind, panel) for kind in kinds for panel in panels if self._asked.get(f"{kind}_{panel}") != keys[kind]]
        if not fresh:
            return
        self._ready = False
        # A hand's wish comes with the next number already; Python's gets it here.
        self._number = max(self.request, self._number + 1)
        self.request, self.busy, self.error = self._number, True, ""
        self._ready = True
        for kind, panel in fresh:
            label, name = f"{kind}_{panel}", self.names[panel]
            self._asked[label] = keys[kind]
            self._open.add(label)
            self._failed.pop(label, None)
            facts = dict(samples=self.samples, seed=self.seed, options=self._options(name), question=self.question)
            wish = Wish(kind, self._forecasts[name], self._frame, list(self.pokes), **facts, **self._sizes)
            self._worker.submit(label, self._number, wish)

    def _options(self, name: str) -> dict:
        values = {"steps": self.steps, "guidance": self.guidance, "text": self.text.strip() or None}
        return {option: value for option, value in values.items() if option in self._takes[name]}

    # ---- answers

    def _wake(self) -> None:
        """On the worker thread: lets the owner's event loop collect. Without one, Python collects when it asks."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self, timeout: float | None = None) -> bool:
        """Takes over what the worker has reported; returns whether something is still awaited."""
        for report in self._worker.collect(timeout):
            self._take(report)
        if not self._worker.busy:
            for report in self._worker.collect():
                self._take(report)
            self._open.clear()
            self.busy = False
        return bool(self._open)

    def _take(self, report: Report) -> None:
        if report.kind == "file":
            if report.error:
                self.send({"kind": "problem", "words": _words(report.error)})
            else:
                name, content_type, content = report.value
                self.send({"kind": "file", "name": name, "type": content_type}, buffers=[content])
            return
        if report.error is not None:
            self._failed[report.kind] = report.error
            self._asked.pop(report.kind, None)
            self.error = _words(report.error)
            return
        tracks, milliseconds = report.value
        self._tracks[report.kind] = tracks
        samples, points, frames, _ = tracks.shape
        data = tracks.clamp(-60, 60).half().numpy().tobytes()
        facts = dict(request=report.number, samples=samples, points=points, frames=frames, milliseconds=milliseconds)
        self.set_trait(report.kind, facts | {"data": data})

    def _wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._collect(0.05):
            if time.monotonic() > deadline:
                return False
        return True

    def _result(self, kind: str) -> Tensor:
        if not self._wait(PATIENCE):
            raise TimeoutError(f"no futures within {PATIENCE:.0f} s; ask for fewer samples or steps.")
        if kind in self._failed:
            raise self._failed[kind]
        return self._tracks[kind]

    # ---- messages from the page

    def _hear(self, _, content: dict, buffers: list) -> None:
        if content.get("kind") == "upload":
            self._upload(str(content.get("name", "upload")), bytes(buffers[0]) if buffers else b"")
        elif content.get("kind") == "save" and content.get("format") in export.FORMATS and "answer_0" in self._tracks:
            kind = content["format"]
            shown_now = self._shown(self._tracks["answer_0"], int(content.get("focus", -1)))
            job = lambda report: report((f"futures.{kind}", export.FORMATS[kind], export.as_bytes(shown_now, kind)))
            self._files += 1
            self._worker.submit("file", self._files, job)

    def _upload(self, name: str, data: bytes) -> None:
        try:
            self._sources[name] = read_upload(name, data)
            self.sources = list(self._sources)
            self.choose(name)
        except ValueError as error:
            self.send({"kind": "problem", "words": str(error)})

    def _shown(self, futures: Tensor, focus: int) -> export.Shown:
        settings = {"samples": self.samples, "seed": self.seed, **self._options(self.names[0])}
        pokes = torch.tensor(self.pokes, dtype=torch.float32).reshape(-1, 5)
        return export.Shown(self._picture, futures, pokes, settings, focus if focus < len(futures) else -1)


def _headless() -> bool:
    return bool(os.environ.get("KINELIB_HEADLESS"))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
