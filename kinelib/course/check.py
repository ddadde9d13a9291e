"""``python -m kinelib check``: is this machine ready for the course? One line a thing, each failure with what to do.

[OK] is there and works, [FAIL] is required and missing, [--] is optional and absent.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kinelib.course.places import repository, shipped_checkpoints

OK, FAIL, ABSENT = "[OK]", "[FAIL]", "[--]"
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*(?:==\s*(?P<version>[^\s;#]+))?")


@dataclass(frozen=True)
class Finding:
    """One line of the check."""

    mark: str  # [OK], [FAIL] or [--]
    what: str  # the thing
    said: str  # its version or size, or what to do

    def __str__(self) -> str:
        return f"{self.mark:<6} {self.what:<28} {self.said}"


def check(root: Path | None = None) -> bool:
    """Prints every finding and returns whether nothing required is missing.

    Args:
        root: the repository.
    """
    good = True
    for finding in findings(root or repository()):
        print(finding, flush=True)
        good = good and finding.mark != FAIL
    print("\nThis machine is ready: make reproduce" if good else "\nMend the lines marked [FAIL], then check again.")
    return good


def findings(root: Path) -> Iterator[Finding]:
    """Every finding about this machine, in order."""
    yield _python()
    yield from packages(root / "requirements.txt")
    yield from (_torch(), _ffmpeg())
    yield from _checkpoints(shipped_checkpoints() if root == repository() else root / "data" / "checkpoints")
    yield from _samples(root / "data" / "samples")
    yield from _optional()


def packages(requirements: Path) -> Iterator[Finding]:
    """Compares the installed packages with the pins of a requirements file."""
    if not requirements.is_file():
        yield Finding(FAIL, "requirements.txt", f"not found in {requirements.parent}; run this in a clone of the repository")
        return
    for line in requirements.read_text(encoding="utf-8").splitlines():
        found = _REQUIREMENT.match(line.strip())
        if found is None:
            continue  # a comment, an option or an empty line
        name, wanted = found["name"], found["version"]
        pin = f"{name}=={wanted}" if wanted else name
        try:
            have = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(FAIL, name, f'not installed; run: make install   (or: pip install "{pin}")')
            continue
        # "2.13.0+cpu" satisfies the pin "2.13.0": the part after + only says how the wheel was built.
        if wanted and have.split("+")[0] != wanted.split("+")[0]:
            yield Finding(FAIL, name, f'{have}, but the course is pinned to {wanted}; run: pip install "{pin}"')
        else:
            yield Finding(OK, name, have)


def _python() -> Finding:
    return Finding(OK, "Python", f"{platform.python_version()} ({sys.executable})")


def _torch() -> Finding:
    try:
        import torch

        value = float((torch.ones(8, 8) @ torch.ones(8, 8)).sum())
    except (ImportError, OSError) as error:
        return Finding(FAIL, "torch computes", f"it does not load ({error}); run: make clean install")
    if value != 512:
        return Finding(FAIL, "torch computes", f"8 x 8 ones times ones sum to {value}, not 512: this build is broken")
    return Finding(OK, "torch computes", f"on {torch.get_num_threads()} threads")


def _ffmpeg() -> Finding:
    try:
        import imageio_ffmpeg

        binary, version = imageio_ffmpeg.get_ffmpeg_exe(), imageio_ffmpeg.get_ffmpeg_version()
    except (ImportError, RuntimeError, OSError) as error:
        return Finding(FAIL, "ffmpeg", f'{error}; run: pip install "imageio-ffmpeg", or set IMAGEIO_FFMPEG_EXE to a binary')
    return Finding(OK, "ffmpeg", f"{version} ({Path(binary).name})")


def _checkpoints(folder: Path) -> Iterator[Finding]:
    """Reads every shipped checkpoint: its config and card are there and its tensors are whole."""
    if not folder.is_dir() or not any(folder.iterdir()):
        yield Finding(FAIL, "checkpoints", f"none in {folder.name}/; run: git restore data, or train: make lab")
        return
    try:
        from kinelib.learning.checkpoints import read_config, read_tensors
    except (ImportError, OSError) as error:
        yield Finding(FAIL, "checkpoints", f"cannot be read ({error}); run: make install")
        return
    for one in sorted(path.parent for path in folder.rglob("config.json")):
        name = one.relative_to(folder).as_posix()
        try:
            kind = read_config(one)["class"]
            tensors = read_tensors(one / "model.safetensors")
        except (OSError, ValueError) as error:
            yield Finding(FAIL, f"checkpoint {name}", f"{error} Run: git restore data/checkpoints/{name}")
            continue
        size = sum(tensor.numel() for tensor in tensors.values()) / 1e6
        card = "" if (one / "card.md").is_file() else ", but it has no card.md"
        yield Finding(FAIL if card else OK, f"checkpoint {name}", f"{kind}, {size:.2f} M numbers{card}")


def _samples(folder: Path) -> Iterator[Finding]:
    """Decodes the first frames of every sample clip."""
    try:
        from kinelib.tracks.video import VideoError, list_videos, read_video

        clips = list_videos(folder) if folder.is_dir() else []
    except (ImportError, OSError) as error:
        yield Finding(FAIL, "sample clips", f"cannot be read ({error}); run: make install")
        return
    if not clips:
        yield Finding(FAIL, "sample clips", "none in data/samples; run: git restore data/samples")
    for clip in clips:
        try:
            frames = read_video(clip, max_frames=2).frames
        except (VideoError, OSError) as error:
            yield Finding(FAIL, f"clip {clip.name}", f"{error} Run: git restore data/samples")
            continue
        yield Finding(OK, f"clip {clip.name}", f"{frames.shape[2]} x {frames.shape[1]} pixels")


def _optional() -> Iterator[Finding]:
    try:
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    except (ImportError, OSError):
        gpu = ""
    yield (Finding(OK, "CUDA", gpu) if gpu else Finding(ABSENT, "CUDA", "no GPU; only the paper profile needs one"))
    extras = {
        "cotracker": "the CoTracker3 adapter needs it (CC BY-NC): pip install git+https://github.com/facebookresearch/co-tracker",
        "timm": "DINOv2 image features can come from it: pip install timm",
    }
    for name, said in extras.items():
        try:
            yield Finding(OK, name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(ABSENT, name, said)
    git = shutil.which("git")
    yield Finding(OK, "git", "commits are named in cards") if git else Finding(ABSENT, "git", "cards will not name a commit")
    data = os.environ.get("KINELIB_DATA")
    if data and Path(data).is_dir():
        yield Finding(OK, "KINELIB_DATA", "is a folder")
    else:
        yield Finding(ABSENT, "KINELIB_DATA", "not set to a folder; more real clips would be used if it held videos/")
