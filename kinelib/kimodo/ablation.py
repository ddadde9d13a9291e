"""Kimodo's ablations and its scaling study in miniature: small denoisers at equal steps, one part changed in each.

Paper: Table 1 takes out one part after another (second stage, local root, curriculum, smoothed root, extra tokens), Table 2
changes how much data and how large a network. There a training takes days, here minutes of one CPU core: two layers a stage,
clips of three seconds, some hundred steps. What such a training shows is a direction at best, and a difference only where
it exceeds what another seed changes; hence the full model is trained with several (`verdicts`).

A cell is one training. Its row is written as soon as it is measured and a cell that has its row is skipped, so that a sweep
can be stopped at any time; an unfinished training goes on where it stopped. Everything is measured on clips that no training
saw, sampled as published (separated guidance 2 and 2, nothing pulled), without clean-up.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from kinelib.bodies.clips import Clip
from kinelib.bodies.evaluator import MotionEvaluator
from kinelib.bodies.evaluator import evaluate as evaluate_texts
from kinelib.bodies.evaluator_training import load_evaluator
from kinelib.bodies.truth import TRUTH_PROMPTS, follows
from kinelib.kimodo.constraints import Constraint, EndEffector, FullBody
from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.kimodo.evaluate import JUDGED, KINDS, asked_of, feet, first_headings, held_out_clips, shortened, spread_over
from kinelib.kimodo.generate import PUBLISHED, generate
from kinelib.kimodo.metrics import constraint_errors
from kinelib.kimodo.pretrained import SHIPPED as PLACE
from kinelib.kimodo.pretrained import load_denoiser
from kinelib.kimodo.train import LOSS, SMALL, Size, captured_folder, train_stage
from kinelib.learning import checkpoints, state, study_rows
from kinelib.learning.study_rows import ROWS, read_rows, write_rows

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "ablation" / "kimodo.json"
WIDTHS = {"small": 64, "medium": 128, "large": 256}  # channels of a token; half the paper's factor from S to M, and on


@dataclass(frozen=True)
class Cell:
    """One training of the study."""

    name: str  # what is changed
    stage: str = "denoiser"  # of `kinelib.kimodo.train`
    data_share: float = 1.0  # of the training clips
    size: str = "medium"  # one of `WIDTHS`
    seed: int = 0  # of weights, batches and noise

    @property
    def folder(self) -> str:
        """Where its training lives."""
        return f"{self.name.replace(' ', '-').replace('%', 'percent')}-{self.seed}"


CELLS = (
    Cell("full"),
    Cell("one stage", "one-stage"),
    Cell("global root", "global-root"),
    Cell("no curriculum", "no-curriculum"),
    Cell("no smoothed root", "no-smooth-root"),
    Cell("no extra tokens", "no-extra-tokens"),
    Cell("full", seed=1),
    Cell("10 % data", data_share=0.1),
    Cell("50 % data", data_share=0.5),
    Cell("small", size="small"),
    Cell("large", size="large"),
)


@dataclass(frozen=True)
class StudyConfig:
    """A study; the defaults are the shipped one."""

    steps: int = 500  # of every training
    batch: int = 16  # clips a step
    frames: int = 60  # longest clip, three seconds
    clips: int = 1024  # procedural ones, beside the captured ones
    layers: int = 2  # of each stage
    learning_rate: float = 2e-3  # peak
    samples: int = 2  # of each of the twenty prompts
    captions: int = 96  # held-out clips for whose captions motion is made
    constrained: int = 24  # of them, whose constraints are asked for
    procedural_held_out: int = 48  # beside the captured ones that are held out

    @property
    def digest(self) -> str:
        """Names what a row depends on besides its own cell."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]

    def network(self, size: str) -> dict[str, int]:
        """Fields of the denoiser's config.

        Raises:
            ValueError: for an unknown size.
        """
        if size not in WIDTHS:
            raise ValueError(f"unknown size {size!r}; choose one of: {', '.join(WIDTHS)}.")
        return {"width": WIDTHS[size], "ffn": 2 * WIDTHS[size], "layers": self.layers, "max_frames": self.frames}


def train_cell(config: StudyConfig, cell: Cell, folder: Path, captured: Path | None) -> TwoStageDenoiser:
    """Trains a cell, or goes on, or loads what is trained.

    Args:
        config, cell: what is trained.
        folder: of the study.
        captured: folder of captured clips; None: procedural ones alone.

    Raises:
        KeyboardInterrupt: when a signal stopped the training; its state is kept.
    """
    out = folder / cell.folder
    if not (out / cell.stage / checkpoints.CONFIG).is_file():
        size = Size(config.clips, config.batch, 0.0, config.learning_rate, ema_decay=0.99, curriculum=SMALL, loss=LOSS)
        done = train_stage(
            cell.stage,
            out=out,
            resume=state.exists(out / f"{cell.stage}-training"),
            steps=config.steps,
            seed=cell.seed,
            captured=captured,
            data_share=cell.data_share,
            network=config.network(cell.size),
            size=size,
        )
        if done.stopped_early:
            raise KeyboardInterrupt(f"stopped in the middle of {cell.name}, seed {cell.seed}")
    return load_denoiser(cell.stage, out)


def measure_cell(
    config: StudyConfig, model: TwoStageDenoiser, held_out: Sequence[Clip], evaluator: MotionEvaluator | None, smooth: bool
) -> dict[str, float]:
    """Every number of a cell; lengths in centimetres, errors as means over clips, and "NAME median".

    Args:
        config: how much is measured.
        model: trained.
        held_out: clips that no training saw.
        evaluator: for R@3 and Frechet distance; None: without.
        smooth: whether the model was trained on smoothed roots; otherwise constraints are given by the pelvis.
    """
    clips = [shortened(clip, config.frames) for clip in held_out]
    prompts, contents = zip(*TRUTH_PROMPTS, strict=True)
    told = generate(model, prompts, frames=config.frames, samples=config.samples, seed=0, **PUBLISHED)
    of = [content for content in contents for _ in range(config.samples)]
    right = [bool(follows(motion, content)) for motion, content in zip(told, of, strict=True)]
    row = {"prompts followed": 100 * sum(right) / len(right)}
    chosen = spread_over(clips, config.captions)
    captions, real = [clip.prompts[0] for clip in chosen], [clip.motion for clip in chosen]
    made = generate(model, captions, frames=[len(motion) for motion in real], seed=1, **PUBLISHED)
    standing = feet(made)
    row |= {name: float(standing[name].nanmean()) for name in ("foot skate", "contact accuracy")}
    row["captions"] = len(made)
    if evaluator is not None:
        scores = evaluate_texts(evaluator, made, captions, real)
        row |= {"R@3": scores.retrieval.text_to_motion["R@3"], "FID": scores.frechet}
    some = spread_over(chosen, config.constrained)
    asks = dict(frames=[len(clip.motion) for clip in some], heading=first_headings(some), seed=2, **PUBLISHED)
    for kind in KINDS:
        generator = torch.Generator().manual_seed(11)
        asked = [asked_of(clip, kind, generator) for clip in some]
        given = asked if smooth else [_by_pelvis(one, clip) for one, clip in zip(asked, some, strict=True)]
        found = generate(model, [clip.prompts[0] for clip in some], constraints=given, **asks)
        errors = [constraint_errors(motion, wanted).means() for motion, wanted in zip(found, asked, strict=True)]
        missed = torch.tensor([100 * one[JUDGED[kind][0]] for one in errors], dtype=torch.float64)
        row |= {kind: float(missed.nanmean()), f"{kind} median": float(missed.nanmedian())}
        if kind == "hands and feet":
            row["rotation"] = float(torch.tensor([one["effector_rotation"] for one in errors]).nanmean())
    return row | {"clips": len(some)}


def _by_pelvis(constraints: Sequence[Constraint], clip: Clip) -> list[Constraint]:
    """The same constraints for a model that knows no smoothed root: its root is the pelvis."""
    root, given = clip.motion.root, []
    for one in constraints:
        at = list(one.frames)
        if isinstance(one, FullBody):
            given.append(replace(one, root=None))
        elif isinstance(one, EndEffector):
            given.append(replace(one, root=root[at]))
        else:
            given.append(replace(one, xz=root[at][:, [0, 2]]))
    return given


def sweep(
    folder: str | Path,
    config: StudyConfig | None = None,
    *,
    cells: Sequence[Cell] = CELLS,
    captured: str | Path | None = None,
    evaluator: MotionEvaluator | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Trains and measures every cell that has no row yet, and returns all rows.

    Args:
        folder: holds `rows.jsonl` and a folder a training.
        config: default: the shipped study's.
        cells: in this order.
        captured: folder of captured clips; default: what KINELIB_DATA points at, or none.
        evaluator: for R@3 and Frechet distance.
        say: called with a line a cell.

    Raises:
        ValueError: when the folder holds rows of another config.
    """
    for row in sweep_rows(Path(folder), config or StudyConfig(), cells, captured, evaluator):
        say(
            f"{row['name']:<17} seed {row['seed']}: skate {row['foot skate']:.0f} cm/s, keyframes "
            f"{row['keyframes']:.0f} cm, {row['prompts followed']:.0f} % of prompts, {row['cell_seconds']:.0f} s"
        )
    return read_rows(folder)


def sweep_rows(
    folder: Path,
    config: StudyConfig,
    cells: Sequence[Cell],
    captured: str | Path | None,
    evaluator: MotionEvaluator | None,
) -> Iterator[dict]:
    """Works through the missing cells in order, yielding each row once it is on disk; arguments of :func:`sweep`."""
    rows = read_rows(folder)
    if any(row["config"] != config.digest for row in rows):
        raise ValueError(f"{folder / ROWS} was measured with another config; choose another folder or remove that file.")
    done, held_out = {(row["name"], row["seed"]) for row in rows}, None
    clips = captured_folder("denoiser", captured)
    for cell in cells:
        if (cell.name, cell.seed) in done:
            continue
        start = time.monotonic()
        model = train_cell(config, cell, folder, clips)
        if held_out is None:
            held_out = held_out_clips(clips, config.procedural_held_out)
        row = asdict(cell) | {"config": config.digest, "steps": config.steps, "captured": clips is not None}
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        row |= measure_cell(config, model, held_out, evaluator, smooth=cell.stage != "no-smooth-root")
        row["cell_seconds"] = time.monotonic() - start
        rows.append(row)
        write_rows(folder, rows)
        yield row


def ship(folder: str | Path, path: str | Path = SHIPPED, config: StudyConfig | None = None) -> Path:
    """Writes the rows of a study, rounded, with what made them, as the small file that notebook 12 reads.

    Raises:
        FileNotFoundError: when the folder holds no rows. ValueError: when they were measured with another config.
    """
    import kinelib

    config = config or StudyConfig()
    rows = study_rows.rows_to_ship(folder, config.digest)
    about = {
        "made_by": "python -m kinelib evaluate kimodo-ablation",
        "kinelib": kinelib.__version__,
        "torch": torch.__version__,
        "device": "cpu, one thread" if os.environ.get("OMP_NUM_THREADS") == "1" else "cpu",
        "sampling": "as published: separated guidance 2 and 2, nothing pulled, 20 steps of DPM-Solver++",
        "config": asdict(config),
    }
    return study_rows.ship_rows(path, about, rows, digits=4)


def study(
    json_path: str | Path,
    folder: str | Path,
    *,
    checkpoint: str | Path | None = None,
    captured: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Sweeps, ships to `json_path` and returns the tables as Markdown.

    Args:
        json_path: as of :func:`ship`.
        folder, captured, say: as of :func:`sweep`.
        checkpoint: folder that holds the trained evaluator; default: the shipped one.
    """
    place = Path(checkpoint or PLACE) / "evaluator"
    evaluator = load_evaluator(place) if place.is_dir() else None
    rows = sweep(folder, captured=captured, evaluator=evaluator, say=say)
    ship(folder, json_path)
    return tables(rows)


def load_shipped(path: str | Path = SHIPPED) -> tuple[dict, list[dict]]:
    """What made the shipped file, and its rows."""
    return study_rows.load_shipped(path)


COLUMNS = {  # of a row: how many digits after the point, and the unit
    "R@3": (1, "%"),
    "FID": (2, ""),
    "foot skate": (0, "cm/s"),
    "contact accuracy": (0, "%"),
    "prompts followed": (0, "%"),
    "keyframes": (0, "cm"),
    "keyframes median": (0, "cm"),
    "hands and feet": (0, "cm"),
    "hands and feet median": (0, "cm"),
    "rotation": (0, "degrees"),
    "root path": (0, "cm"),
    "waypoints": (0, "cm"),
}
SCALING = ("10 % data", "50 % data", "small", "large")


def tables(rows: Sequence[dict]) -> str:
    """Markdown: one line a training, ablations first, then the study of scale; the full model stands in both."""
    shown = [name for name in COLUMNS if any(name in row for row in rows)]
    head = "| training | seed | parameters | " + " | ".join(f"{n} {COLUMNS[n][1]}".strip() for n in shown) + " |"
    rule = "|---" * (3 + len(shown)) + "|"
    parts = []
    for title, chosen in (
        ("ablations", [row for row in rows if row["name"] not in SCALING]),
        ("scale", [row for row in rows if row["name"] in ("full", *SCALING)]),
    ):
        parts += [f"### {title}", head, rule]
        for row in chosen:
            values = [f"{row[n]:.{COLUMNS[n][0]}f}" if n in row else "-" for n in shown]
            parts.append(f"| {row['name']} | {row['seed']} | {row['parameters'] / 1e6:.1f} M | {' | '.join(values)} |")
        parts.append("")
    return "\n".join(parts)


def verdict(rows: Sequence[dict], name: str, column: str, worse: int) -> str:
    """Whether a cell differs from the full model as claimed: "appears", "the opposite", "not clear" or "not measured".

    A difference counts when the cell lies outside the full model's seeds by more than these lie apart. That is a rule, no
    test: with two or three seeds there is none.

    Args:
        rows: of a study.
        name: of the cell.
        column: what is compared.
        worse: the claim: 1 for a larger number than the full model's, -1 for a smaller one, 0 for the same.
    """
    full = [row[column] for row in rows if row["name"] == "full" and column in row]
    found = [row[column] for row in rows if row["name"] == name and column in row]
    if len(full) < 2 or not found:
        return "not measured"
    value, low, high = sum(found) / len(found), min(full), max(full)
    side = 1 if value > high + (high - low) else -1 if value < low - (high - low) else 0
    if worse == 0:
        return "the opposite" if side else "appears"
    return "not clear" if side == 0 else "appears" if side == worse else "the opposite"
