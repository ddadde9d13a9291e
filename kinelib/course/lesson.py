"""What a notebook's first cell calls: ``start`` settles profile, seed, device and output folder, and says so.

    cfg = course.start("03_track_autoencoder", profile, seed, steps=steps)
    steps = cfg.pick("steps", smoke=200, lab=20_000, paper=500_000)

The profile is the one dial: it sets everything that an override does not.
"""

from __future__ import annotations

import os
import platform
import random
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kinelib
from kinelib.course.places import headless, lesson_folder, plain_scalar, read_json, runs_folder, write_json

SLUG = re.compile(r"\d\d_[a-z0-9_]+")


@dataclass
class Lesson:
    """One notebook being worked through: its settings, and what it has shown so far."""

    notebook: str  # NN_slug
    profile: str  # smoke, lab or paper
    seed: int  # what torch, numpy and random were seeded with
    device: str  # "cuda" or "cpu"
    out: Path = field(repr=False)  # where this notebook's figures and numbers land
    interactive: bool  # False when the runner executes the notebook
    overrides: dict[str, Any]  # settings the reader chose instead of the profile's
    started: float = field(default_factory=time.monotonic)
    expectations: list[dict[str, Any]] = field(default_factory=list)  # one record a call of expect()
    exercises: dict[str, str] = field(default_factory=dict)  # exercise name -> "open", "wrong" or "solved"

    def pick(self, setting: str, **by_profile: Any) -> Any:
        """The value of a setting: the reader's override when there is one, else the profile's.

        Args:
            setting: the name used in ``course.start(..., setting=...)``.
            by_profile: one value a profile, ``smoke=200, lab=20_000, paper=500_000``.

        Raises:
            KeyError: when neither an override nor a value for this profile was given.
        """
        if setting in self.overrides:
            return self.overrides[setting]
        if self.profile not in by_profile:
            raise KeyError(
                f"{setting} has no value for profile {self.profile!r} (only for {', '.join(by_profile) or 'none'}). "
                f"Set the parameter {setting} in the parameters cell, or add {self.profile}=... here."
            )
        return by_profile[self.profile]

    def save_state(self) -> None:
        """Writes what the runner reads: expectations, exercises and the interpreter, to ``run.json``."""
        state = {"python": sys.executable, "expectations": self.expectations, "exercises": self.exercises}
        write_json(self.out / "run.json", state)


_current: Lesson | None = None


def current() -> Lesson:
    """The lesson that the last ``start`` opened.

    Raises:
        RuntimeError: before ``start`` was called.
    """
    if _current is None:
        raise RuntimeError("No lesson has been started. Run the cell with course.start(...) first.")
    return _current


def start(notebook: str, profile: str = "smoke", seed: int = 0, **overrides: Any) -> Lesson:
    """Opens a lesson: seeds, threads, device, output folder; prints them in four lines.

    Args:
        notebook: the notebook's file name without ``.ipynb``, such as ``"03_track_autoencoder"``.
        profile: ``"smoke"``, ``"lab"`` or ``"paper"``.
        seed: for torch, numpy and random; an integer from 0 to 2**32 - 1.
        overrides: parameters of the notebook that win over the profile; None means "the profile decides".

    Returns:
        the lesson, whose ``pick``, ``device`` and ``out`` the notebook uses.

    Raises:
        ValueError: for a misspelled profile, a notebook name that is not NN_slug, or a seed out of range.
    """
    global _current
    if not SLUG.fullmatch(notebook):
        raise ValueError(
            f"The notebook is named {notebook!r}; give its file name without .ipynb, like '03_track_autoencoder'."
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 1; got {seed!r}.")
    if headless():  # before tqdm is imported: it reads its defaults from the environment then
        os.environ.setdefault("TQDM_MININTERVAL", "10")
        os.environ.setdefault("KINELIB_PROGRESS", "plain")

    import numpy as np
    import torch

    from kinelib.learning.profiles import profile as check_profile

    check_profile(profile)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that draw from numpy's global state must repeat too
    torch.manual_seed(seed)
    torch.set_num_threads(_threads())

    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = {name: value for name, value in overrides.items() if value is not None}
    out = lesson_folder(profile, notebook)
    out.mkdir(parents=True, exist_ok=True)
    _current = Lesson(notebook, profile, seed, device, out, interactive=not headless(), overrides=chosen)
    _current.save_state()
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"kinelib {kinelib.__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"profile {profile}, seed {seed}" + "".join(f", {name} {value}" for name, value in chosen.items()))
    print(f"device {device} ({where})")
    print(f"results go to {_short(out)}")
    return _current


def record(metrics: dict[str, Any]) -> None:
    """What a notebook's last cell calls: writes ``metrics.json`` with the numbers that this notebook stands for.

    Args:
        metrics: a flat dict of names and single values (numbers, text, true/false, None; numpy and torch scalars too).

    Raises:
        TypeError: when a value is not one value or a name is not text.
        ValueError: when a value is NaN or infinite, or there are none.
    """
    import torch

    lesson = current()
    if not metrics:
        raise ValueError("record() was given no metrics; name at least one number that this notebook shows.")
    for name in metrics:
        if not isinstance(name, str):
            raise TypeError(f"The metric name {name!r} is a {type(name).__name__}; names are text.")
    values = {name: plain_scalar(name, value) for name, value in metrics.items()}
    content = {
        "notebook": lesson.notebook,
        "profile": lesson.profile,
        "seed": lesson.seed,
        "overrides": {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in lesson.overrides.items()
        },
        "device": lesson.device,
        "kinelib": kinelib.__version__,
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - lesson.started, 1),
        "expectations_met": sum(one["met"] for one in lesson.expectations),
        "expectations": len(lesson.expectations),
        "metrics": values,
    }
    write_json(lesson.out / "metrics.json", content)
    print(f"recorded {len(values)} metrics in {_short(lesson.out / 'metrics.json')}")


def metrics_of(notebook: str, profile: str | None = None) -> dict[str, Any]:
    """The metrics another notebook recorded, or an empty dict when it has not run under this profile.

    Args:
        notebook: NN_slug of the other notebook.
        profile: the profile it ran under; that of the current lesson by default.
    """
    return read_json(runs_folder() / (profile or current().profile) / notebook / "metrics.json").get("metrics", {})


def _threads() -> int:
    """All the cores this process may use, at most 8 (the small networks gain nothing beyond); OMP_NUM_THREADS wins."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def _short(path: Path) -> str:
    """A path as the reader knows it: relative to the repository when it lies inside."""
    root = runs_folder().parent
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
