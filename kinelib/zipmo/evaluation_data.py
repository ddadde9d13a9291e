"""What a trained ZipMo is measured on: held-out procedural scenes, and held-out windows of real video.

The paper's benchmark is a set of web videos with stored tracks (section 4: 40 tracks of 64 frames a clip), which is not
published with a list of clips; these are ours. Scenes come from seeds that training never uses. Real clips are windows of
videos that training never saw (split by source, `tracks.real`): overlapping windows, whole frames and crops, played
forwards only. Windows of one video are alike, so intervals resample videos, not clips.

Shapes: frames uint8 (M, 3, S, S), tracks float16 (M, N, T, 2).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kinelib.zipmo.data import TEST_SEED, Clips, scene_clips, shard_clips

SCORED = 40  # tracks a clip, as in the paper's benchmark
MOVING = 4.0  # pixels at 256 a point must leave its start by, at some time, to count as moving


@dataclass(frozen=True)
class Benchmark:
    """Held-out clips and where each comes from.

    Args:
        name: what tables call it.
        clips: at least 40 + 40 tracks a clip; any first n of them are a fair sample.
        sources: name of the video of each clip; None when every clip stands for itself, as scenes do.
        windows: name of the stretch of video of each clip, which its crops share.
    """

    name: str
    clips: Clips
    sources: tuple[str, ...] | None = None
    windows: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def groups(self, rows: Tensor) -> list[str] | None:
        """Which clips of some rows an interval takes together: those of one video; of one window if there is one video."""
        if self.sources is None:
            return None
        sources = [self.sources[row] for row in rows.tolist()]
        return sources if len(set(sources)) > 1 else [self.windows[row] for row in rows.tolist()]

    def parts(self) -> dict[str, Tensor]:
        """Row numbers of each source's clips, by source; empty for scenes."""
        names = self.sources or ()
        return {name: torch.tensor([i for i, each in enumerate(names) if each == name]) for name in sorted(set(names))}

    def facts(self) -> dict:
        """How many clips, windows and moving points there are, by source; for the results file."""
        truth = self.clips.tracks[:, :SCORED].float()
        moves = moving_points(truth).float().mean(dim=1)
        facts = {"clips": len(self), "moving_share": round(float(moves.mean()), 4)}
        if self.sources is None:
            return facts
        count = Counter(self.sources)
        facts["sources"] = {
            name: {
                "clips": count[name],
                "windows": len({self.windows[i] for i in rows.tolist()}),
                "moving_share": round(float(moves[rows].mean()), 4),
            }
            for name, rows in self.parts().items()
        }
        facts["intervals"] = (
            f"whole videos are resampled, {len(count)} of them: an interval of so few is about the range between them; "
            "the rows of one video resample its windows, which overlap, so their intervals are too narrow"
        )
        return facts


def moving_points(tracks: Tensor) -> Tensor:
    """(B, N) bool: points that leave their start by more than `MOVING` pixels at 256."""
    return (tracks - tracks[:, :, :1]).norm(dim=-1).amax(-1) * 128 > MOVING


def scene_benchmark(count: int, *, size: int = 64) -> Benchmark:
    """Held-out procedural scenes, `count` of them, with frames of `size` pixels."""
    return Benchmark("scenes", scene_clips(count, TEST_SEED, size=size))


def real_benchmark(folder: str | Path, count: int | None = None, *, size: int = 64) -> Benchmark:
    """Held-out windows of real video: clips whose provenance says split "test" and that are not played backwards.

    Args:
        folder: of Parquet shards, as `tracks.real` makes them.
        count: clips at most; every source keeps its share. None: all.
        size: S, pixels of the frames.

    Raises:
        FileNotFoundError: when there are no shards.
        ValueError: when no clip is held out.
    """
    found: list[tuple[str, str]] = []

    def keep(clip) -> bool:
        facts = clip.tracks.provenance
        chosen = facts.get("split") == "test" and not facts.get("backwards", False)
        if chosen:
            source = Path(str(facts.get("source", "unknown"))).stem
            found.append((source, f"{source}, frame {facts.get('start')}, stride {facts.get('stride')}"))
        return chosen

    try:
        clips = shard_clips(folder, size=size, keep=keep)
    except ValueError as error:
        raise ValueError(
            f'{folder} holds no held-out clip that plays forwards: provenance "split" must be "test". Make the shards again '
            "with `held_out` naming some of the videos."
        ) from error
    sources, windows = zip(*found, strict=True)
    order = spread_sources(sources)[:count]
    pick = lambda names: tuple(names[i] for i in order)
    return Benchmark("real video", clips.pick(torch.tensor(order)), pick(sources), pick(windows))


def spread_sources(sources: tuple[str, ...], seed: int = 0) -> list[int]:
    """An order of the clips in which every prefix has the sources in about their proportions; random within a source."""
    generator = torch.Generator().manual_seed(seed)
    place = {}
    for name in sorted(set(sources)):
        rows = [i for i, each in enumerate(sources) if each == name]
        for rank, k in enumerate(torch.randperm(len(rows), generator=generator).tolist()):
            place[rows[k]] = ((rank + 0.5) / len(rows), name)
    return sorted(place, key=place.get)
