"""Figures that know what made them: PNG files in the lesson's folder, and a manifest written by code.

A figure of the smoke and lab profiles carries the profile's name in its corner: a toy number cannot pass for a result.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kinelib.course.lesson import current
from kinelib.course.places import read_json, repository, runs_folder, write_json
from kinelib.learning.files import written_whole

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def save_figure(fig: Any, name: str, made_by: Callable[..., Any] | str = "notebook cell", dpi: int = 160) -> Path:
    """Saves a matplotlib figure as ``NN_slug-name.png`` in the lesson's folder and lists it in its manifest.

    Args:
        fig: a matplotlib figure.
        name: what it shows, in lower case with hyphens, such as ``"tracks-of-two-clips"``.
        made_by: the function that drew it, or its name.
        dpi: pixels an inch.

    Returns:
        the path of the PNG.

    Raises:
        TypeError: for anything but a matplotlib figure.
        ValueError: for a name with other characters.
    """
    if not hasattr(fig, "savefig"):
        raise TypeError(f"save_figure takes a matplotlib figure; got {type(fig).__name__}. Use ax.figure for an axes.")
    if not _NAME.fullmatch(name):
        raise ValueError(f"A figure's name is lower-case words joined by hyphens, like 'poke-futures'; got {name!r}.")
    lesson = current()
    path = lesson.out / f"{lesson.notebook}-{name}.png"
    before = list(fig.texts)
    if lesson.profile != "paper" and not any(lesson.profile in text.get_text() for text in before):
        from kinelib.show.theme import stamp

        stamp(fig, lesson.profile)
    try:
        # Without matplotlib's version in the file, the same picture has the same hash everywhere.
        with written_whole(path) as partial:
            fig.savefig(partial, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    finally:
        for text in fig.texts[len(before) :]:
            text.remove()
    _list_figure(lesson.out / "figures.json", path, made_by)
    return path


def publish(notebooks: Iterable[str], profile: str, gallery: Path | None = None) -> list[str]:
    """Copies the figures that the given notebooks made into the gallery and writes its manifest.

    Args:
        notebooks: NN_slug names whose figures to take; their older figures leave the gallery.
        profile: the profile they ran under.
        gallery: the gallery's folder, ``figures/`` of the repository by default.

    Returns:
        the names of the files copied.

    Raises:
        FileNotFoundError: when a notebook has made no figure under this profile, or a listed figure is gone.
    """
    from kinelib.learning.checkpoints import current_commit

    gallery = gallery or repository() / "figures"
    listed = {entry["file"]: entry for entry in read_json(gallery / "manifest.json").get("figures", [])}
    commit = current_commit()
    copied: dict[str, bytes] = {}
    for notebook in notebooks:
        folder = runs_folder() / profile / notebook
        entries = read_json(folder / "figures.json").get("figures", [])
        if not entries:
            raise FileNotFoundError(
                f"{notebook} has made no figure under profile {profile}. Run it first: python -m kinelib run {notebook[:2]}"
            )
        listed = {file: entry for file, entry in listed.items() if entry["notebook"] != notebook}
        for entry in entries:
            copied[entry["file"]] = (folder / entry["file"]).read_bytes()
            listed[entry["file"]] = {**entry, "commit": commit}
    for file, content in copied.items():
        with written_whole(gallery / file) as partial:
            partial.write_bytes(content)
    write_json(gallery / "manifest.json", {"figures": [listed[file] for file in sorted(listed)]})
    for stale in gallery.glob("[0-9][0-9]_*-*.png"):
        if stale.name not in listed:
            stale.unlink()
    return sorted(copied)


def _list_figure(manifest: Path, path: Path, made_by: Callable[..., Any] | str) -> None:
    lesson = current()
    entry = {
        "file": path.name,
        "notebook": lesson.notebook,
        "function": made_by if isinstance(made_by, str) else f"{made_by.__module__}.{made_by.__qualname__}",
        "profile": lesson.profile,
        "seed": lesson.seed,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    others = [one for one in read_json(manifest).get("figures", []) if one["file"] != path.name]
    write_json(manifest, {"figures": sorted([*others, entry], key=lambda one: one["file"])})
