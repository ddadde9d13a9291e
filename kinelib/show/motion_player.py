"""`MotionPlayer`: bodies in motion to play, turn, zoom and compare, in a notebook, from Python, or as an offline page.

    player = MotionPlayer([motion, other], labels=["a person walks", "another sample"])
    player.frame = 40
    player.snapshot()                       # uint8 picture
    player.to_html("walks.html")            # one file, no requests

Positions are computed once in Python (`show.motion_data`); the page (`static/motion_player.js`) only draws, on a plain 2-D
canvas, so that it looks and runs the same with and without a graphics card. An executed notebook keeps a PNG of the present
moment with a strip of poses.

Shapes: T frames, P points of a figure; positions in metres, y up, the floor at y = 0.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from kinelib.bodies.motion import Motion
from kinelib.learning.files import write_text_whole, written_whole
from kinelib.show.body_scene import draw_scene
from kinelib.show.latest import Latest, Report
from kinelib.show.modules import STATIC, bundle_modules
from kinelib.show.motion_data import as_motions, pack_scene
from kinelib.show.motion_export import bodies_at, look, pose_rows, sample_colours, save_film
from kinelib.show.pictures import encode_png

FORMATS = {
    "npz": "application/octet-stream",
    "bvh": "text/plain",
    "glb": "model/gltf-binary",
    "mp4": "video/mp4",
    "png": "image/png",
    "html": "text/html",
    "csv": "text/csv",
}
LARGEST = 2_000_000  # bytes of a page
STYLES = ("poke_canvas.css", "motion_player.css")


class MotionPlayer(anywidget.AnyWidget):
    """Shows motions side by side or in one place.

    Args:
        motions: one motion, several, or several by name; of any skeletons and frame rates.
        labels: one a motion; None: the names, or the prompts the motions carry.
        targets: what was asked for, drawn with every motion: {"x", "z"} a waypoint (with "heading", radians, an arrow; "y"
            a joint's place in the air; "at", seconds, when), {"points": [[x, z], ...]} a path, or {"pose": (P, 3), "at"}
            all points of a figure.
        title: what a screen reader and the page call it.
        settings: where the switches begin: frame, follow, contacts, named, apart, colour ("sides" or "samples"),
            focus (-1: all), azimuth, elevation (radians), distance (metres, 0: all that is shown fits).

    Raises:
        TypeError, ValueError: for what is no motion, none, more than 16, or labels that are not one a motion.
    """

    _esm = bundle_modules("motion_player.js")
    _css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)

    scene = traitlets.Dict().tag(sync=True)
    targets = traitlets.List().tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    formats = traitlets.List(list(FORMATS)[:6]).tag(sync=True)  # .csv is for robots alone
    error = traitlets.Unicode("").tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    follow = traitlets.Bool(True).tag(sync=True)
    contacts = traitlets.Bool(True).tag(sync=True)
    named = traitlets.Bool(True).tag(sync=True)
    apart = traitlets.Bool(True).tag(sync=True)
    colour = traitlets.Enum(("sides", "samples"), "sides").tag(sync=True)
    focus = traitlets.Int(-1).tag(sync=True)
    azimuth = traitlets.Float(0.6).tag(sync=True)
    elevation = traitlets.Float(0.22).tag(sync=True)
    distance = traitlets.Float(0.0, min=0.0).tag(sync=True)

    def __init__(
        self,
        motions: Motion | Sequence[Motion] | Mapping[str, Motion],
        labels: Sequence[str] | None = None,
        *,
        targets: Sequence[Mapping] = (),
        title: str = "",
        **settings,
    ) -> None:
        self._motions, self._names = as_motions(motions, labels)
        scene = pack_scene(self._motions, self._names)
        first = dict(azimuth=scene["azimuth"], elevation=scene["elevation"])
        first["colour"] = "sides" if len(self._motions) == 1 else "samples"
        unknown = set(settings) - set(self.class_trait_names(sync=True))
        if unknown:
            raise ValueError(f"unknown settings {sorted(unknown)}; see the documentation of MotionPlayer.")
        self._files = 0
        self._loop = running_loop()
        self._worker = Latest(self._wake)
        super().__init__(scene=scene, targets=sound_targets(targets), title=title, **(first | settings))
        self.on_msg(self._hear)

    @property
    def motions(self) -> list[Motion]:
        """What is shown."""
        return list(self._motions)

    @property
    def frames(self) -> int:
        """How many frames the longest motion has, counted at the highest frame rate among them."""
        fps = self.fps
        return 1 + round(max((len(motion) - 1) / motion.fps for motion in self._motions) * fps)

    @property
    def fps(self) -> float:
        """Frames a second of `frame`: the highest among the motions."""
        return max(motion.fps for motion in self._motions)

    def show(
        self,
        motions: Motion | Sequence[Motion] | Mapping[str, Motion],
        labels: Sequence[str] | None = None,
        *,
        targets: Sequence[Mapping] | None = None,
    ) -> None:
        """Shows other motions in the same player; arguments as those of the class."""
        listed, names = as_motions(motions, labels)
        scene = pack_scene(listed, names)
        self._motions, self._names = listed, names
        with self.hold_trait_notifications():
            if targets is not None:
                self.targets = sound_targets(targets)
            self.focus, self.distance, self.frame = -1, 0.0, 0
            self.azimuth, self.elevation = scene["azimuth"], scene["elevation"]
            self.colour = "sides" if len(listed) == 1 else "samples"
            self.scene = scene

    def snapshot(self, width: int = 720, *, poses: int = 8) -> np.ndarray:
        """The present moment as one picture, uint8 (H, W, 3), and under it a row of poses over time for every motion.

        Args:
            width: pixels.
            poses: a row; 0 leaves the rows out.
        """
        seconds = self.frame / self.fps
        shown = [self.focus] if 0 <= self.focus < len(self._motions) else range(len(self._motions))
        colours = sample_colours(len(self._motions), self.colour)
        options = dict(colours=colours, names=self._names if self.named else None, contacts=self.contacts)
        bodies = bodies_at(self.scene, self._motions, seconds, apart=self.apart, ghosts=True, shown=shown, **options)
        aspect = 1.6
        eye = look(bodies, self.azimuth, self.elevation, self.distance, aspect)
        picture = draw_scene(bodies, eye, width=width, height=round(width / aspect), targets=self.targets)
        if poses:
            rows = pose_rows(
                self.scene, self._motions, poses, width, colours, self._names, shown=shown, azimuth=self.azimuth
            )
            picture = np.concatenate([picture, rows])
        return picture

    def to_html(self, path: str | Path, title: str = "") -> Path:
        """Writes a page that plays these motions offline: one file, nothing is loaded from anywhere.

        Args:
            path: ends in .html; the file appears once it is whole.
            title: of the page.

        Raises:
            ValueError: when the name does not end in .html, or the page would be 2 MB or more.
        """
        path = Path(path)
        if path.suffix.lower() != ".html":
            raise ValueError(f"{path.name} must end in .html.")
        names = (
            "targets",
            "frame",
            "follow",
            "contacts",
            "named",
            "apart",
            "colour",
            "focus",
            "azimuth",
            "elevation",
            "distance",
        )
        traits = (
            {name: getattr(self, name) for name in names}
            | {"formats": []}
            | {"title": title or self.title or "Bodies in motion"}
        )
        traits["scene"] = dict(self.scene, data=base64.b64encode(self.scene["data"]).decode())
        page = page_of(traits["title"], traits)
        if len(page.encode()) >= LARGEST:
            seconds = sum(motion.seconds for motion in self._motions)
            raise ValueError(
                f"the page would be {len(page.encode()) / 1e6:.1f} MB, and 2 MB is the limit: show fewer motions or shorter "
                f"ones ({len(self._motions)} of {seconds:.0f} s in all now), or resample them to 20 frames a second."
            )
        write_text_whole(path, page)
        return path

    def save(self, path: str | Path, **options) -> Path:
        """Writes what is shown: .mp4, .png, .html, or the motion itself as .npz, .bvh, .glb or .csv.

        Args:
            path: its ending says what is written.
            options: for .mp4 those of :func:`kinelib.show.motion_export.save_film`.

        Raises:
            ValueError: for another ending, or when one motion has to be chosen first (`player.focus = 0`).
        """
        path = Path(path)
        kind = path.suffix.lower().removeprefix(".")
        if kind == "mp4":
            chosen = dict(labels=self._names, apart=self.apart, colour=self.colour, contacts=self.contacts)
            eye = dict(azimuth=self.azimuth, elevation=self.elevation, follow=self.follow)
            return save_film(self._motions, path, **(chosen | eye | options))
        if kind == "html":
            return self.to_html(path)
        if kind == "png":
            with written_whole(path) as sibling:
                sibling.write_bytes(encode_png(self.snapshot()))
            return path
        if kind not in FORMATS:
            raise ValueError(f"{path.name} must end in .{', .'.join(FORMATS)}.")
        if self.focus < 0 and len(self._motions) > 1:
            raise ValueError(f"a .{kind} holds one motion: choose one first (player.focus = 0, or its chip in the page).")
        from kinelib.bodies.motion_files import save_motion

        save_motion(self._motions[max(self.focus, 0)], path)
        return path

    def open(self) -> None:
        """Opens the way to the page; where nobody watches there is none, and notebooks stay free of megabytes of state."""
        if not headless():
            super().open()

    def _repr_mimebundle_(self, **options):
        """The live widget, and a PNG for where there is no kernel; where nobody watches, the PNG alone."""
        data, metadata = ({"text/plain": repr(self)}, {}) if headless() else super()._repr_mimebundle_(**options)
        return data | {"image/png": base64.b64encode(encode_png(self.snapshot())).decode()}, metadata

    def __repr__(self) -> str:
        return f"MotionPlayer({len(self._motions)} motions, {self.frames} frames at {self.fps:g} a second)"

    # ---- from the page

    def _hear(self, _, content: dict, buffers: list) -> None:
        kind = content.get("format")
        if content.get("kind") == "save" and kind in FORMATS:
            self._files += 1
            self.error = ""
            self._worker.submit("file", self._files, partial(self._make_file, kind))

    def _make_file(self, kind: str, report: Callable) -> None:
        with tempfile.TemporaryDirectory() as folder:
            report((f"motion.{kind}", FORMATS[kind], self.save(Path(folder, f"motion.{kind}")).read_bytes()))

    def _wake(self) -> None:
        """On the worker thread: lets the owner's event loop collect. Without one, Python collects when it asks."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self, timeout: float | None = None) -> bool:
        """Takes over what the worker has reported; returns whether something is still at work."""
        reports = self._worker.collect(timeout)
        if not self._worker.busy:
            reports += self._worker.collect()
        for report in reports:
            self._take(report)
        return self._worker.busy

    def _take(self, report: Report) -> None:
        if report.error is not None:
            self.error = words_of(report.error)
            return
        name, content_type, content = report.value
        self.send({"kind": "file", "name": name, "type": content_type}, buffers=[content])

    @traitlets.validate("frame")
    def _sound_frame(self, proposal) -> int:
        return min(max(proposal["value"], 0), self.frames - 1)

    @traitlets.validate("focus")
    def _sound_focus(self, proposal) -> int:
        return proposal["value"] if -1 <= proposal["value"] < len(self._motions) else -1


def words_of(error: Exception) -> str:
    """What a reader is told of an error: its message, and its kind where the message alone would not do."""
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop this is called in, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def headless() -> bool:
    """Whether nobody watches: the notebook runner says so."""
    return bool(os.environ.get("KINELIB_HEADLESS"))


def sound_targets(targets: Sequence[Mapping]) -> list[dict]:
    """Targets as plain numbers for the page.

    Raises:
        ValueError: for one that is neither a waypoint, a joint's place nor a path; the message shows it.
    """
    sound = []
    for target in targets:
        try:
            if "points" in target:
                plain = {"points": [[float(x), float(z)] for x, z in target["points"]]}
            elif "pose" in target:
                pose = np.asarray(target["pose"], float).reshape(-1, 3)
                plain = {"pose": np.round(pose.ravel(), 4).tolist(), "at": float(target.get("at", 0.0))}
            else:
                more = [name for name in ("y", "heading", "at") if target.get(name) is not None]
                plain = {name: float(target[name]) for name in ("x", "z", *more)}
        except (KeyError, TypeError, ValueError) as error:
            forms = "{'x', 'z'}, {'points': [[x, z], ...]} or {'pose': (P, 3)}"
            raise ValueError(f"a target is {forms}; got {target!r:.200}.") from error
        if not np.isfinite(np.concatenate([np.ravel(value) for value in plain.values()])).all():
            raise ValueError(f"this target holds NaN or infinity: {target!r}.")
        sound.append(plain)
    return sound


def page_of(title: str, traits: Mapping) -> str:
    """The offline page around the player's module."""
    # A closing tag inside a script would end it.
    script = bundle_modules("motion_page.js").replace("</", "<\\/")
    data = json.dumps(traits, separators=(",", ":")).replace("</", "<\\/")
    style = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; padding: 16px; background: light-dark(#eef1f5, #0f1319); color: light-dark(#1b2330, #e8ecf2);
 font: 14px/1.5 system-ui, sans-serif; }}
main {{ max-width: 860px; margin: 0 auto; }}
h1 {{ margin: 0 0 10px; font-size: 20px; }}
{style}
</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
<div id="player"></div>
</main>
<script type="application/json" id="facts">{data}</script>
<script type="module">
{script}
</script>
</body>
</html>
"""
