"""Demonstrations on disk: Parquet shards, one episode a row, a row group each, so that one episode is read at a time.

Pictures are stored as they are; a simulator's background repeats to the bit from frame to frame, and zstd finds that.
Tracks are float16 and visibility is packed, as in track shards. States are kept, so that an episode can be drawn again in
another view or size.

Shapes: V views, T frames, side S, N points, steps K (T frames lie at steps 0, every, 2 every, ...), A action numbers,
P of proprioception, D of a state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kinelib.learning.files import written_whole
from kinelib.robots.worlds import WorldState, check_known
from kinelib.tracks.tracks import Tracks

FORMAT = "kinelib demonstrations 1"
COLUMNS = {
    "suite": "string",
    "task": "string",
    "split": "string",
    "seed": "int64",
    "text": "string",
    "views": "string",  # names, comma between
    "every": "int32",
    "hertz": "float32",
    "success_step": "int32",
    "shape": "string",  # json: the sizes below
    "pictures": "binary",  # (V, T, S, S, 3) uint8
    "tracks": "binary",  # (V, N, T, 2) little-endian float16
    "visible": "binary",  # V * N * T bits
    "proprioception": "binary",  # (K + 1, P) float32
    "actions": "binary",  # (K, A) float32
    "executed": "binary",  # (K, A) float32
    "states": "binary",  # (K + 1, D) float64
}
KINDS = {
    "pictures": ("u1", "V T S S 3"),
    "tracks": ("<f2", "V N T 2"),
    "proprioception": ("<f4", "K1 P"),
    "actions": ("<f4", "K A"),
    "executed": ("<f4", "K A"),
    "states": ("<f8", "K1 D"),
}


class DemonstrationError(ValueError):
    """Demonstrations cannot be made or read; the message names the file or task and what to do."""


class ShardCutShort(DemonstrationError):
    """A shard is not a whole Parquet file; making demonstrations again replaces it."""


@dataclass(frozen=True)
class Demonstration:
    """One successful episode of an expert."""

    suite: str  # such as "metaworld"
    task: str  # the task's name
    split: str  # "train" or "held-out"
    seed: int  # of the episode
    text: str  # the sentence it goes with
    views: tuple[str, ...]  # V names
    every: int  # steps from frame to frame
    hertz: float  # steps a second
    success_step: int  # actions after which the task was first done
    pictures: NDArray[np.uint8]  # (V, T, S, S, 3)
    tracks: NDArray[np.float16]  # (V, N, T, 2) xy in [-1, 1]
    visible: NDArray[np.bool_]  # (V, N, T)
    proprioception: NDArray[np.float32]  # (K + 1, P) before each action and after the last
    actions: NDArray[np.float32]  # (K, A) what the expert would do there: the answers to learn
    executed: NDArray[np.float32]  # (K, A) what was done: the same, unless the expert was disturbed
    states: NDArray[np.float64]  # (K + 1, D)

    @property
    def name(self) -> str:
        """Unique among demonstrations."""
        return f"{self.suite}/{self.task}/{self.seed}"

    @property
    def frame_steps(self) -> NDArray[np.int64]:
        """(T,) the step at which each frame was drawn."""
        return np.arange(self.pictures.shape[1]) * self.every

    @property
    def moments(self) -> int:
        """Frames at which an action follows; a frame after the last action is none."""
        return -(-len(self.actions) // self.every)

    def tracks_of(self, view: str) -> Tracks:
        """The exact tracks of one view, B = 1; raises WorldError for a view it lacks."""
        number = self.views.index(check_known("view of this demonstration", view, self.views))
        size = (self.pictures.shape[3], self.pictures.shape[2])
        xy = torch.from_numpy(self.tracks[number].astype(np.float32))
        facts = {"source": self.name, "tracker": "mujoco", "view": view}
        return Tracks(xy[None], torch.from_numpy(self.visible[number])[None], self.hertz / self.every, size, facts)

    def world_state(self, step: int) -> WorldState:
        """The state before action `step`, for :meth:`World.restore`."""
        return WorldState(self.seed, step, self.states[step])


def write_demonstrations(demonstrations: Sequence[Demonstration], path: str | Path, facts: dict) -> Path:
    """Writes a shard, complete or not at all; `facts` (json-serialisable) say how it was made."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()],
        metadata={"format": FORMAT, "facts": json.dumps(facts)},
    )
    table = pyarrow.Table.from_pylist([_encode(one) for one in demonstrations], schema=schema)
    with written_whole(path) as sibling:
        pyarrow.parquet.write_table(table, sibling, row_group_size=1, compression="zstd", use_dictionary=False)
    return Path(path)


def open_demonstrations(path: str | Path):
    """Opens a shard (a pyarrow ParquetFile) after checking that it is whole, and gives the facts it was made with too.

    Raises:
        FileNotFoundError: when it does not exist. ShardCutShort: when its end is missing. DemonstrationError: when it is
            a file of another kind.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no demonstrations at {path}")
    try:
        shard = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ShardCutShort(
            f"{path} is cut short or no Parquet file ({error}). Run `robots demos` again: it makes damaged shards anew."
        ) from error
    metadata = shard.schema_arrow.metadata or {}
    if metadata.get(b"format") != FORMAT.encode() or (missing := set(COLUMNS) - set(shard.schema_arrow.names)):
        lacking = f", and lacks {', '.join(sorted(missing))}" if metadata.get(b"format") == FORMAT.encode() else ""
        raise DemonstrationError(f"{path} is not a shard of {FORMAT!r}{lacking}. Make demonstrations into another folder.")
    return shard, json.loads(metadata[b"facts"])


class Demonstrations(Sequence):
    """The demonstrations of a folder in order of task and seed, read one at a time.

    Args:
        folder: where shards are.
        tasks: which; default: all that are there.
        split: "train" or "held-out".
        per_task: so many of every task; default: all.
        skip: so many of every task are left out before.

    Raises:
        FileNotFoundError: when nothing fits.
        DemonstrationError: when a shard is damaged, or a task has fewer than `skip` and `per_task` (or one) together.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        tasks: Iterable[str] | None = None,
        split: str = "train",
        per_task: int | None = None,
        skip: int = 0,
    ) -> None:
        wanted = None if tasks is None else list(tasks)
        self.index: list[tuple[Path, int, str, int]] = []  # file, row, task, seed
        counts: dict[str, int] = {}
        for path in sorted(Path(folder).glob("*.parquet")):
            shard, _ = open_demonstrations(path)
            rows = shard.read(columns=["task", "split", "seed"]).to_pylist()
            for row, known in enumerate(rows):
                task = known["task"]
                if known["split"] != split or (wanted is not None and task not in wanted):
                    continue
                counts[task] = counts.get(task, 0) + 1
                if skip < counts[task] <= skip + (per_task or counts[task]):
                    self.index.append((path, row, task, known["seed"]))
        self.index.sort(key=lambda entry: (entry[2], entry[3]))
        needed = skip + (per_task or 1)
        short = [task for task in (wanted or counts) if counts.get(task, 0) < needed]
        if not counts:
            raise FileNotFoundError(
                f"there are no {split} demonstrations of these tasks in {folder}; `robots demos` makes them."
            )
        if short:
            raise DemonstrationError(
                f"{folder} has fewer than {needed} {split} demonstrations of {', '.join(short)}; make more."
            )
        self._open: dict[Path, object] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are there, in order."""
        return tuple(dict.fromkeys(entry[2] for entry in self.index))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Demonstration:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        import pyarrow

        path, row = self.index[index][:2]
        if path not in self._open:
            self._open[path] = open_demonstrations(path)[0]
        try:
            found = self._open[path].read_row_group(row).to_pylist()[0]
        except (pyarrow.ArrowException, OSError) as error:
            raise DemonstrationError(f"{path} is damaged ({error}). Delete it and run `robots demos` again.") from error
        return _decode(found, path)


def _encode(one: Demonstration) -> dict:
    views, frames, side = one.pictures.shape[:3]
    sizes = {"V": views, "T": frames, "S": side, "N": one.tracks.shape[1], "K": len(one.actions), "K1": len(one.states)}
    sizes |= {"A": one.actions.shape[1], "P": one.proprioception.shape[1], "D": one.states.shape[1]}
    row = {name: getattr(one, name) for name in ("suite", "task", "split", "seed", "text", "every", "hertz", "success_step")}
    for name, (kind, axes) in KINDS.items():
        values, shape = getattr(one, name), _shape(axes, sizes)
        if values.shape != shape:
            raise DemonstrationError(f"{one.name}: {name} must be ({axes}) = {shape}; got {values.shape}.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DemonstrationError(f"{one.name}: {name} holds values that are NaN or infinite.")
        row[name] = np.ascontiguousarray(values, kind).tobytes()
    packed = np.packbits(one.visible).tobytes()
    return row | {"views": ",".join(one.views), "shape": json.dumps(sizes), "visible": packed}


def _decode(row: dict, path: Path) -> Demonstration:
    sizes, values = json.loads(row["shape"]), {}
    for name, (kind, axes) in KINDS.items():
        shape = _shape(axes, sizes)
        flat = np.frombuffer(row[name], kind)
        if flat.size != np.prod(shape):
            raise DemonstrationError(
                f"{path}, {row['task']} seed {row['seed']}: {name} does not hold {shape}; delete the file."
            )
        values[name] = flat.reshape(shape)
    bits = _shape("V N T", sizes)
    values["visible"] = (
        np.unpackbits(np.frombuffer(row["visible"], np.uint8), count=int(np.prod(bits))).reshape(bits).astype(bool)
    )
    facts = {name: row[name] for name in ("suite", "task", "split", "seed", "text", "every", "hertz", "success_step")}
    return Demonstration(**facts, views=tuple(row["views"].split(",")), **values)


def _shape(axes: str, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(int(axis) if axis.isdigit() else sizes[axis] for axis in axes.split())
