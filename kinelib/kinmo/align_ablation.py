"""The paper's Table 4 on our clips: what each part of the aligner brings, at equal steps or equal time, over several seeds.

Every ablation of `align_training` is trained for as many steps from each seed (or for as long), and asked to find held-out
clips by sentences that the reasoner guesses. A clip's hits are averaged over the seeds before anything is said of clips; the
numbers of every seed stand beside, since two trainings of one network can differ by more than two networks do. A study that
was interrupted goes on with the training that was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import kinelib
from kinelib.bodies.retrieval import ranks
from kinelib.kinmo.align_training import ABLATIONS
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.evaluate import Extent, prepare
from kinelib.kinmo.evaluate_texts import FULL, ROW_NAMES, WAYS, label_rows
from kinelib.kinmo.pretrained import load_aligner, load_reasoner
from kinelib.kinmo.retrieve import Report, per_clip, report
from kinelib.kinmo.rows import Row, of_interval, over_clips, plain, tables
from kinelib.kinmo.train import Size, cache_folder, train_stage
from kinelib.learning import study_rows
from kinelib.learning.intervals import bootstrap_difference
from kinelib.learning.text import TextEncoder

TABLE = "retrieval, held-out takes, predicted texts"
DEPTHS = ("R@1", "R@3", "R@10")


@dataclass(frozen=True)
class StudyConfig:
    """How long and how often everything is trained."""

    steps: int | None = 800  # of every training
    seconds: float | None = None  # instead of steps; on a shared machine equal time is not equal work
    seeds: int = 2  # trainings of every ablation
    profile: str = "lab"  # sizes and clips


def study(
    json_path: str | Path,
    folder: str | Path,
    config: StudyConfig | None = None,
    *,
    captured: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    encoder: TextEncoder | None = None,
    size: Size | None = None,
    extent: Extent | None = None,
) -> str:
    """Trains what is not trained yet, measures all of it, writes the rows, and returns the table as Markdown.

    Args:
        json_path: where the rows go.
        folder: of the trainings; one for every seed is made in it.
        config: default :class:`StudyConfig`.
        captured: folder of captured clips; default: what KINELIB_DATA points at, or none.
        say: called with a line of progress.
        encoder: of sentences; None: MiniLM.
        size, extent: of the trainings and of what is measured, instead of the profile's.

    Raises:
        KeyboardInterrupt: when a signal stopped a training; its state is kept.
    """
    config, folder = config or StudyConfig(), Path(folder)
    places = [folder / f"seed-{seed}" for seed in range(config.seeds)]
    for seed, place in enumerate(places):
        for stage in ABLATIONS:
            if not (place / stage / "config.json").is_file():
                say(f"{stage}, seed {seed}")
                budget = {"steps": config.steps} if config.seconds is None else {"seconds": config.seconds}
                options = dict(seed=seed, captured=captured, resume=True, encoder=encoder, size=size)
                if train_stage(stage, config.profile, place, **options, **budget).stopped_early:
                    raise KeyboardInterrupt(f"stopped in the middle of {stage}, seed {seed}")
    setting = prepare(config.profile, places[0], captured, say, extent, None, encoder, cache_folder(folder))
    # Reasoners look up training clips and are the same for every seed.
    reasoner = load_reasoner(places[0], encoder)
    measured = lambda stage, place: report(load_aligner(stage, place), setting.test, setting.bank, reasoner)
    found = {stage: [measured(stage, place) for place in places] for stage in ROW_NAMES}
    rows = ablation_rows(found, setting.test)
    rows += [
        plain(TABLE, f"{ROW_NAMES[stage]}, seed {seed}", "training steps", steps_of(place, stage), 1)
        for stage in ROW_NAMES
        for seed, place in enumerate(places)
    ]
    about = {
        "made_by": "python -m kinelib evaluate kinmo-ablation",
        "kinelib": kinelib.__version__,
        "torch": torch.__version__,
        "config": asdict(config),
    }
    study_rows.ship_rows(json_path, about, map(asdict, rows), digits=8)
    return tables(rows)


def ablation_rows(found: Mapping[str, Sequence[Report]], motions: MotionTexts) -> list[Row]:
    """Protocol (a) both ways for every ablation, and how far the whole aligner is above it.

    Args:
        found: a report a seed, by stage; all of the same clips.
        motions: these clips.
    """
    rows, hits = [], {}
    for stage, reports in found.items():
        one = reports[0].protocols["a"]
        for way in WAYS:
            every = [per_clip(ranks(each.scores if way == WAYS[0] else each.scores.T)) for each in reports]
            for depth in DEPTHS:
                metric, facts = f"(a) {depth}, {way}", {"gallery": one.gallery, "chance": one.chance[depth]}
                hits[stage, metric] = torch.stack([hit[depth] for hit in every])  # (seeds, clips)
                mean = hits[stage, metric].mean(0)
                rows += over_clips(TABLE, ROW_NAMES[stage], metric, mean, "%", seeds=len(every), **facts)
                rows += _by_seed(stage, metric, hits[stage, metric].mean(1), one.queries, facts)
            medians = [each.protocols["a"] for each in reports]
            medians = [(each.text_to_motion if way == WAYS[0] else each.motion_to_text)["MedR"] for each in medians]
            facts = {"gallery": one.gallery, "chance": one.chance["MedR"], "seeds": len(medians)}
            middle = sum(medians) / len(medians)
            rows.append(plain(TABLE, ROW_NAMES[stage], f"(a) MedR, {way}", middle, one.queries, **facts))
    rows += label_rows(TABLE, motions)
    for (stage, metric), own in hits.items():
        if stage != FULL:
            difference = bootstrap_difference(hits[FULL, metric].mean(0), own.mean(0))
            what = f"all minus {ROW_NAMES[stage].split(':')[0]}"
            rows.append(of_interval(TABLE, what, metric, difference, "points", target=0.0, gallery=len(motions)))
    return rows


def steps_of(place: Path, stage: str) -> int:
    """How many steps a finished training took, from the last line of its log."""
    lines = (place / f"{stage}-training" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1])["step"]


def _by_seed(stage: str, metric: str, values: Tensor, count: int, facts: dict) -> list[Row]:
    return [
        plain(TABLE, f"{ROW_NAMES[stage]}, seed {seed}", metric, value, count, "%", **facts)
        for seed, value in enumerate(values.tolist())
    ]
