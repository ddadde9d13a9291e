"""Clips of real motion capture with words: Bandai-Namco's and CMU's, on SMPL-X's 22 joints, 20 frames a second.

Each clip is read from the archive as the user downloads it, resampled, retargeted with all clips of its rig at once, placed
with its first root above the origin, and kept with where it comes from and under which licence. Making them takes about a
minute; the result is one safetensors file in a cache, named after a hash of the archive's contents and of the code that
made it, so that neither outlives the other.

Held out (`split`), in this order: whole pairs of content and style, closed under mirroring, are "unseen"; every seventh take
of the rest is "test"; all of CMU, another studio's motion under people's own words, is "test". Everything else is "train".

Shapes: T frames; in the cache all clips end to end, N frames: quaternions (N, 22, 4), root (N, 3).
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import json
import os
import textwrap
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from kinelib.bodies import captions
from kinelib.bodies.bvh import parse_bvh
from kinelib.bodies.motion import Motion
from kinelib.bodies.retarget import retarget_all
from kinelib.bodies.rotations import from_quaternion, quaternion
from kinelib.bodies.skeletons import FPS, SMPLX22
from kinelib.learning.code_version import meaning
from kinelib.learning.files import written_whole

BANDAI_NAMCO, CMU = "Bandai-Namco Research Motiondataset", "CMU Graphics Lab Motion Capture Database"
LICENCES = {
    BANDAI_NAMCO: "CC BY-NC 4.0",
    CMU: "free for all uses; the retarget used here states no licence of its own",
}
# Left and right exchanged, or another way round than their names say: found by measuring how far each clip turns.
MISLABELLED = frozenset(
    f"dataset-2_walk-turn-{name}"
    for name in (
        "left_masculine_006",
        "left_masculine_007",
        "right_masculine_006",
        "right_masculine_007",
        "right_normal_004",
    )
    + ("right_normal_032", "right_normal_033")
)
UNSEEN = frozenset(
    {
        ("run", "elderly"),
        ("raise-up-both-hands", "youthful"),
        ("wave-left-hand", "feminine"),
        ("wave-right-hand", "feminine"),
        ("walk-turn-left", "exhausted"),
        ("walk-turn-right", "exhausted"),
    }
)
TEST_EVERY = 7
MADE_BY = ("bvh", "joint_names", "retarget", "rotations", "kinematics", "skeletons")  # modules, in the cache's name


class ClipsError(ValueError):
    """Clips cannot be found or made; the message says where they were looked for and what to do."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One motion and the words for it, the unit that data sets of captioned motion are made of.

    Args:
        motion: the body, standing on the floor.
        prompts: sentences that describe it, all of them true, the plainest first; at least one.
        content: label of what is done, such as "walk-turn-left"; parts done at once are joined by "+".
        style: label of how, such as "elderly"; "normal" where nothing is said.
        take: what tells this recording from others of the same content and style, such as "007".
        source: the data set.
        licence: under which it may be used.

    Raises:
        ValueError: for a clip without prompts.
    """

    motion: Motion
    prompts: tuple[str, ...]
    content: str
    style: str
    take: str
    source: str
    licence: str

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError(f"clip {self.take!r} of {self.content!r} needs at least one prompt.")


def split(clip: Clip) -> str:
    """Which part of a set a clip belongs to: "train", "test" or "unseen"; a mirrored clip stays with its original."""
    if (clip.content, clip.style) in UNSEEN and clip.source == BANDAI_NAMCO:
        return "unseen"
    if clip.source == CMU:
        return "test"
    if clip.motion.provenance.get("name", "").startswith("dataset-1"):  # one take of a pair: every seventh pair
        held_out = zlib.crc32(f"{_either(clip.content)}/{clip.style}".encode()) % TEST_EVERY == 0
    else:
        held_out = int("".join(filter(str.isdigit, clip.take)) or 0) % TEST_EVERY == 0
    return "test" if held_out else "train"


def bandai_namco_clips(folder: str | Path, cache: str | Path | None = None, prompts: int = 8) -> list[Clip]:
    """Bandai-Namco's clips, wrongly labelled ones left out.

    Args:
        folder: holds `bandai_namco.zip` or the unpacked `dataset-N_content_style_NNN.bvh` files; or the archive itself.
        cache: folder for the retargeted motions; None: `default_cache()`.
        prompts: sentences made for each clip.

    Raises:
        ClipsError: when there are no such files.
    """
    made = _cached("bandai-namco", BANDAI_NAMCO, _Files(folder, "bandai_namco.zip", "dataset-"), 0, cache)
    clips = []
    for name, motion in made:
        _, content, style, take = name.split("_")
        words = captions.prompts(content, style, prompts, name)
        style = "masculine" if style == "masculinity" else style
        clips.append(Clip(motion, words, content, style, take, BANDAI_NAMCO, LICENCES[BANDAI_NAMCO]))
    return clips


def cmu_clips(folder: str | Path, cache: str | Path | None = None) -> list[Clip]:
    """CMU's clips with the database's own short descriptions; the stray first frame of each is dropped.

    Args:
        folder: holds `cmu.zip` or the unpacked `SSS_TT.bvh` files and `descriptions.csv`; or the archive itself.
        cache: folder for the retargeted motions; None: `default_cache()`.

    Raises:
        ClipsError: when there are no such files, or a clip has no description.
    """
    files = _Files(folder, "cmu.zip", "")
    rows = csv.reader(io.StringIO(files.read("descriptions.csv")))
    words = {f"{int(row[0]):03d}_{int(row[1]):02d}": row[2].strip() for row in rows if row and row[0].isdigit()}
    clips = []
    for name, motion in _cached("cmu", CMU, files, 1, cache):
        if name not in words:
            raise ClipsError(f"{files.place}: descriptions.csv has no row for {name}.bvh (columns subject, trial, text).")
        clips.append(Clip(motion, (words[name],), words[name], "normal", name, CMU, LICENCES[CMU]))
    return clips


def default_cache() -> Path:
    """The folder in which motions are kept: `clips` beside the results of the notebooks."""
    root = Path(__file__).resolve().parents[2]
    runs = os.environ.get("KINELIB_RUNS") or (root if (root / "notebooks").is_dir() else Path.cwd()) / "runs"
    return Path(runs) / "clips"


class _Files:
    """BVH files of a folder or of an archive in it, by name."""

    def __init__(self, folder: str | Path, archive: str, prefix: str) -> None:
        place = Path(folder)
        self.place = place / archive if (place / archive).is_file() else place
        self.archive = zipfile.ZipFile(self.place) if self.place.is_file() else None
        listed = {}
        if self.archive:
            listed = {Path(one.filename).name: (one.filename, one.CRC) for one in self.archive.infolist()}
        elif place.is_dir():
            found = [path for path in place.rglob("*") if path.suffix in (".bvh", ".csv")]
            listed = {path.name: (path, path.stat().st_size) for path in found}
        self.listed = listed
        self.names = sorted(name for name in listed if name.startswith(prefix) and name.endswith(".bvh"))
        if not self.names:
            raise ClipsError(
                f"{folder}: holds neither {archive} nor .bvh files whose names begin with {prefix!r}. data/README.md says "
                "where the sets are published; point KINELIB_DATA at the folder you put them in."
            )

    def read(self, name: str) -> str:
        """The text of a file."""
        if name not in self.listed:
            raise ClipsError(f"{self.place}: has no file {name}.")
        where, _ = self.listed[name]
        content = self.archive.read(where) if self.archive else where.read_bytes()
        return content.decode("utf-8-sig", errors="replace")

    def version(self) -> str:
        """A short hash of what is in the files and of the code that makes motions of them."""
        modules = [(Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8") for module in MADE_BY]
        steps = [textwrap.dedent(inspect.getsource(step)) for step in (_made, Motion.resampled, Motion.translated)]
        code = [meaning(text) for text in (*modules, *steps)]
        marks = sorted((name, mark) for name, (_, mark) in self.listed.items())
        return hashlib.sha256(f"{marks}{code}".encode()).hexdigest()[:12]


def _made(files: _Files, drop: int) -> Iterator[tuple[str, Motion]]:
    """Every clip on our skeleton, rig by rig."""
    rigs: dict[tuple[str, ...], list[tuple[str, Motion]]] = {}
    for name in files.names:
        if Path(name).stem not in MISLABELLED:
            motion = parse_bvh(files.read(name), name).motion(drop=drop).resampled(FPS)
            rigs.setdefault(motion.skeleton.joints, []).append((Path(name).stem, motion))
    for named in rigs.values():
        moved = retarget_all([motion for _, motion in named], SMPLX22)
        for (name, _), motion in zip(named, moved, strict=True):
            start = motion.root[0]
            yield name, motion.translated((-float(start[0]), -float(start[2])))


def _cached(set_name: str, source: str, files: _Files, drop: int, cache: str | Path | None) -> list[tuple[str, Motion]]:
    """Motions by name, in the order of names, from the cache or made now and put there."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = Path(cache or default_cache()) / f"{set_name}-{files.version()}.safetensors"
    if not path.is_file():
        made = sorted(_made(files, drop), key=lambda pair: pair[0])
        names = json.dumps([name for name, _ in made])
        tensors = {
            "quaternions": torch.cat([quaternion(motion.rotations) for _, motion in made]),
            "root": torch.cat([motion.root for _, motion in made]),
            "lengths": torch.tensor([len(motion) for _, motion in made]),
        }
        with written_whole(path) as sibling:
            save_file(tensors, str(sibling), metadata={"names": names, "fps": str(FPS), "skeleton": SMPLX22.name})
    with safe_open(str(path), framework="pt") as file:
        names = json.loads(file.metadata()["names"])
        lengths = file.get_tensor("lengths").tolist()
        rotations, root = from_quaternion(file.get_tensor("quaternions")), file.get_tensor("root")
    pairs = zip(names, rotations.split(lengths), root.split(lengths), strict=True)
    facts = {"source": source, "licence": LICENCES[source]}
    return [(name, Motion(turns, path, FPS, SMPLX22, provenance={"name": name} | facts)) for name, turns, path in pairs]


def _either(content: str) -> str:
    """A content without its side, so that a clip and its mirror image fall on the same side of a split."""
    return content.replace("left", "side").replace("right", "side")
