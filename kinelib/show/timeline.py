"""`MotionAuthor`: say what a body shall do, when and where, and watch what a model makes of it; by hand or from Python.

    author = MotionAuthor(generate, clips={"a walk": motion})
    author.prompt("A person walks forward.", 4.0)
    author.waypoint(0.5, 2.0, seconds=2.0, heading=0.8)
    author.path([(0, 0), (0, 1), (0.6, 2)])
    author.keyframe("a walk", frame=20, at=3.0)
    motions = author.generate()

`generate` is any callable `generate(prompts, seconds, constraints, *, samples, seed) -> list of Motion`; this room knows no
model. It runs on one worker thread (`show.latest`); the traits are only touched by the thread that owns the widget. The page
(`static/timeline.js`) holds the player of `show.motion_player`, so everything a `MotionPlayer` can do an author can.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path as FilePath

import numpy as np
import torch
import traitlets

from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import Skeleton
from kinelib.bodies.skeletons import FPS, SMPLX22
from kinelib.learning.files import write_text_whole
from kinelib.show.latest import Report
from kinelib.show.modules import STATIC, bundle_modules
from kinelib.show.motion_data import pack_scene
from kinelib.show.motion_player import STYLES, MotionPlayer, words_of
from kinelib.show.motion_script import (
    Key,
    Path,
    Prompt,
    Script,
    Waypoint,
    constraint_file,
    constraints_of,
    part_joints,
    placed_pose,
    read_script,
)
from kinelib.show.script_picture import draw_script
from kinelib.show.stick_figures import figure_of

PATIENCE = 600.0  # seconds that Python waits for motions
HISTORY = 200  # steps that can be undone
STROLL = 1.1  # metres a second, where a path does not say when it ends
Generate = Callable[..., Sequence[Motion]]


class MotionAuthor(MotionPlayer):
    """A timeline with sentences and constraints, a floor to draw on, clips to take poses from, and a player for the result.

    Args:
        generate: `generate(prompts, seconds, constraints, *, samples, seed)`: sentences, their seconds, and constraints as
            plain dicts in the vocabulary of the constraint files; a callable that takes `watch` is given
            `watch(done, total)` to tell how far it is.
        clips: motions to take keyframes from, by name.
        fps: frames a second of the result.
        skeleton: of the result; shown until there is one.
        samples, seed: where the controls begin.
        title: what a screen reader calls it.

    Raises:
        TypeError: when `generate` cannot be called, or a clip is no motion.
    """

    _esm = bundle_modules("timeline.js")
    _css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in (*STYLES, "timeline.css"))

    script = traitlets.Dict().tag(sync=True)
    clips = traitlets.Dict().tag(sync=True)
    rate = traitlets.Float(FPS).tag(sync=True)  # frames a second of the result
    samples = traitlets.Int(1, min=1, max=16).tag(sync=True)
    seed = traitlets.Int(0, min=0).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    can_undo = traitlets.Bool(False).tag(sync=True)
    can_redo = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        generate: Generate,
        clips: Mapping[str, Motion] | None = None,
        *,
        fps: float = FPS,
        skeleton: Skeleton = SMPLX22,
        title: str = "Motion author",
        **settings,
    ) -> None:
        if not callable(generate):
            raise TypeError(f"generate must be a callable; got {type(generate).__name__}.")
        self._generate = generate
        self._takes_watch = "watch" in inspect.signature(generate).parameters
        self._clips = dict(clips or {})
        for name, clip in self._clips.items():
            if not isinstance(clip, Motion):
                raise TypeError(f"clip {name!r} is a {type(clip).__name__}; give kinelib.bodies.motion.Motion objects.")
        self._skeleton = skeleton
        self._script = Script()
        self._past: list[Script] = []
        self._future: list[Script] = []
        self._result: list[Motion] | None = None
        self._failed: Exception | None = None
        self._number = 0
        rest = torch.eye(3).expand(1, len(skeleton), 3, 3)
        stands = Motion(rest, skeleton.rest()[:1], fps, skeleton)
        super().__init__(stands, ["press Generate"], title=title, rate=fps, script=self._script.plain(), **settings)
        self.clips = self._packed_clips()

    # ---- from Python, what a hand can do

    def prompt(self, text: str, seconds: float = 4.0) -> int:
        """Adds a sentence at the end; returns its number.

        Args:
            text: what happens.
            seconds: 2 to 10.
        """
        self._change(self._script.with_one("prompts", Prompt(text, seconds)))
        return len(self._script.prompts) - 1

    def waypoint(self, x: float, z: float, seconds: float, heading: float | None = None) -> None:
        """Asks that the body be at (x, z) metres at a time, and face `heading` radians (0 along +z, towards +x) if told."""
        self._change(self._script.with_one("waypoints", Waypoint(x, z, seconds, heading)))

    def path(self, points: Sequence[Sequence[float]], start: float = 0.0, stop: float | None = None) -> None:
        """Asks that the body walk along (x, z) points at even speed.

        Args:
            points: two or more.
            start: seconds.
            stop: seconds; None: after a stroll of 1.1 m/s, at the latest at the end of the last prompt.
        """
        rows = tuple((float(x), float(z)) for x, z in points)
        if stop is None:
            length = sum(((a - c) ** 2 + (b - d) ** 2) ** 0.5 for (a, b), (c, d) in zip(rows, rows[1:], strict=False))
            stop = start + max(length / STROLL, 0.1)
            stop = min(stop, self._script.seconds) if self._script.seconds > start else stop
        self._change(self._script.with_one("paths", Path(rows, start, stop)))

    def keyframe(
        self,
        motion: Motion | str,
        frame: int,
        at: float,
        part: str = "full_body",
        *,
        x: float | None = None,
        z: float | None = None,
        turn: float = 0.0,
    ) -> None:
        """Asks for a pose of a clip, or one hand or foot of it, at a time.

        Args:
            motion: a clip's name, or a motion, which joins the clips.
            frame: of the clip.
            at: seconds of the result.
            part: "full_body", "left_hand", "right_hand", "left_foot" or "right_foot".
            x, z: where its root shall be, metres; None: where it is in the clip.
            turn: radians by which it is turned about its root.
        """
        name = motion if isinstance(motion, str) else self._clip_name(motion)
        self._change(self._script.with_one("keys", Key(part, name, frame, at, x, z, turn)))

    def remove(self, kind: str, index: int) -> None:
        """Removes one of the "prompts", "waypoints", "paths" or "keys" by its number."""
        self._change(self._script.without(kind, index))

    def clear(self) -> None:
        """Removes everything."""
        self._change(Script())

    def undo(self) -> bool:
        """Takes the last change back; returns whether there was one."""
        return self._travel(self._past, self._future)

    def redo(self) -> bool:
        """Makes the last change that was taken back again; returns whether there was one."""
        return self._travel(self._future, self._past)

    @property
    def constraints(self) -> list[dict]:
        """What is asked for besides the sentences, as plain dicts in the vocabulary of the constraint files."""
        return constraints_of(self._script, self._clips, self.rate)

    def save_constraints(self, path: str | FilePath) -> FilePath:
        """Writes them as a constraint file, which `kinelib.kimodo.constraint_files.load_constraints` reads."""
        content = constraint_file(self._script, self._clips, self.rate, self._skeleton)
        write_text_whole(path, json.dumps(content))
        return FilePath(path)

    @property
    def prompts(self) -> list[str]:
        """The sentences in their order."""
        return [prompt.text for prompt in self._script.prompts]

    @property
    def seconds(self) -> list[float]:
        """How long each sentence lasts."""
        return [prompt.seconds for prompt in self._script.prompts]

    def generate(self, *, wait: bool = True) -> list[Motion] | None:
        """Runs the callable on what is asked for and shows what comes of it.

        Args:
            wait: return the motions; False returns at once and None.

        Raises:
            ValueError: without a prompt, or for constraints that cannot be; whatever the callable raises is raised here too.
        """
        self._start()
        return self.result if wait else None

    @property
    def result(self) -> list[Motion]:
        """The motions of the newest run; waits for them and raises what the callable raised.

        Raises:
            ValueError: when nothing has been generated yet.
            TimeoutError: after ten minutes.
        """
        deadline = time.monotonic() + PATIENCE
        while self._collect(0.05):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no motion within {PATIENCE:.0f} s; ask for fewer samples or steps.")
        if self._failed is not None:
            raise self._failed
        if self._result is None:
            raise ValueError("nothing has been generated yet; call generate() or press Generate.")
        return list(self._result)

    async def settled(self) -> list[Motion]:
        """Awaits the newest motions without blocking the kernel: `await author.settled()`."""
        deadline = time.monotonic() + PATIENCE
        while self._collect() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self.result

    def save_script(self, path: str | FilePath) -> FilePath:
        """Writes the script as JSON, from which :meth:`load_script` goes on."""
        write_text_whole(path, json.dumps(self._script.plain(), indent=1) + "\n")
        return FilePath(path)

    def load_script(self, path: str | FilePath) -> None:
        """Takes over a script; its clips must be among those of this author."""
        self._change(read_script(json.loads(FilePath(path).read_text(encoding="utf-8")), self._clips))

    def snapshot(self, width: int = 720, *, poses: int = 8) -> np.ndarray:
        """What is asked for, timeline and floor, and under it what the player shows: uint8 (H, W, 3)."""
        ways = [] if self._result is None else self._result
        asked = draw_script(self._script, self._clips, ways, width=width)
        return np.concatenate([asked, super().snapshot(width, poses=poses if ways else 0)]) if ways else asked

    def __repr__(self) -> str:
        script = self._script
        parts = [f"{len(getattr(script, kind))} {kind}" for kind in ("prompts", "waypoints", "paths", "keys")]
        return f"MotionAuthor({', '.join(parts)}, {script.seconds:g} s)"

    # ---- the script

    def _change(self, script: Script) -> None:
        script = read_script(script.plain(), self._clips)
        if script == self._script:
            return
        self._past = [*self._past, self._script][-HISTORY:]
        self._future = []
        self._take_over(script)

    def _travel(self, back: list[Script], forth: list[Script]) -> bool:
        if not back:
            return False
        forth.append(self._script)
        self._take_over(back.pop())
        return True

    def _take_over(self, script: Script) -> None:
        self._script = script
        with self.hold_trait_notifications():
            self.script, self.error = script.plain(), ""
            self.can_undo, self.can_redo = bool(self._past), bool(self._future)

    def _clip_name(self, motion: Motion) -> str:
        if not isinstance(motion, Motion):
            raise TypeError(f"a keyframe is taken from a Motion or a clip's name; got {type(motion).__name__}.")
        for name, clip in self._clips.items():
            if clip is motion:
                return name
        wanted = str(motion.provenance.get("prompt") or "clip")
        name, number = wanted, 2
        while name in self._clips:
            name, number = f"{wanted} {number}", number + 1
        self._clips[name] = motion
        self.clips = self._packed_clips()
        return name

    def _packed_clips(self) -> dict:
        return pack_scene(list(self._clips.values()), list(self._clips)) if self._clips else {}

    # ---- generating

    def _start(self) -> None:
        if not self._script.prompts:
            raise ValueError('there is no prompt; add one: author.prompt("A person walks forward.", 4.0).')
        constraints = self.constraints
        options = dict(samples=self.samples, seed=self.seed)
        run = partial(self._generate, list(self.prompts), list(self.seconds), constraints, **options)
        takes_watch = self._takes_watch

        def job(report: Callable) -> None:
            watch = {"watch": lambda done, total: report(("progress", done / max(total, 1)))} if takes_watch else {}
            begun = time.perf_counter()
            motions = list(run(**watch))
            report(("motions", motions, time.perf_counter() - begun))

        self._number += 1
        self._failed = self._result = None
        with self.hold_trait_notifications():
            self.busy, self.progress, self.error, self.status = True, 0.0, "", "generating …"
        self._worker.submit("motions", self._number, job)

    def _collect(self, timeout: float | None = None) -> bool:
        """Takes over what the worker has reported; returns whether motions are still awaited."""
        self.busy = super()._collect(timeout)
        return self.busy

    def _take(self, report: Report) -> None:
        if report.kind != "motions":
            super()._take(report)
        elif report.error is not None:
            self._fail(report.error)
        elif report.value[0] == "progress":
            self.progress = float(report.value[1])
        else:
            _, motions, seconds = report.value
            try:
                labels = [str(index + 1) for index in range(len(motions))] if len(motions) > 1 else None
                self.show(motions, labels, targets=self._targets())
            except (TypeError, ValueError) as error:
                self._fail(error)
            else:
                self._result = motions
                self.progress, self.status = 1.0, f"{len(motions)} motion{'s' * (len(motions) > 1)} in {seconds:.1f} s"

    def _fail(self, error: Exception) -> None:
        self._failed = error
        self.error, self.status = words_of(error), ""

    def _targets(self) -> list[dict]:
        """What was asked for, as the player draws it."""
        targets: list[dict] = [{"points": [list(point) for point in path.points]} for path in self._script.paths]
        for one in self._script.waypoints:
            targets.append({"x": one.x, "z": one.z, "heading": one.heading, "at": one.seconds})
        for key in self._script.keys:
            pose = placed_pose(key, self._clips)
            if key.part == "full_body":
                targets.append({"pose": figure_of(pose.skeleton).points(pose)[0], "at": key.at})
            else:
                joint = pose.skeleton.index(part_joints(key.part, pose)[0])
                x, y, z = pose.positions()[0, joint].tolist()
                targets.append({"x": x, "y": y, "z": z, "at": key.at})
        return targets

    # ---- from the page

    def _hear(self, _, content: dict, buffers: list) -> None:
        kind = content.get("kind")
        try:
            if kind == "edit":
                self._change(read_script(content.get("script") or {}, self._clips))
            elif kind in ("undo", "redo", "clear"):
                getattr(self, kind)()
            elif kind == "generate":
                self._start()
            else:
                super()._hear(_, content, buffers)
        except (ValueError, TypeError) as error:
            self.error = str(error)
            self.send_state("script")  # the page shows what counts, not what was refused
