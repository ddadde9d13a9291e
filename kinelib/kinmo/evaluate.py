"""Measures the trained parts of KinMo on held-out clips, beside their baselines and targets.

    tokenizer, reasoner   what is left of clips as tokens; how right guessed sentences are
    retrieval             all protocols both ways, for every ablation there is; oracle texts apart
    generation            by our own evaluator and by geometry, coarse-to-fine against the flat baseline
    edits                 one group's sentence; combinations that were never seen together; a path to follow
    uses                  gait anomaly

"test" are takes and procedural draws that no training saw; "unseen" whole pairs of content and style, and nine procedural
combinations. Numbers of our own evaluator, clips and galleries are not comparable with the paper's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from kinelib.bodies.evaluator import MotionEvaluator
from kinelib.bodies.evaluator_training import load_evaluator
from kinelib.kinmo.anomaly import gait_rows
from kinelib.kinmo.coarse_to_fine import KinMo
from kinelib.kinmo.control_branch import NAME as BRANCH
from kinelib.kinmo.control_branch import load_branch
from kinelib.kinmo.data import MotionTexts, training_set
from kinelib.kinmo.evaluate_control import control_rows
from kinelib.kinmo.evaluate_edits import edit_rows, unseen_rows
from kinelib.kinmo.evaluate_generation import POOL, evaluator_rows, systems, truth_rows
from kinelib.kinmo.evaluate_texts import ROW_NAMES, reasoner_rows, retrieval_rows, tokenizer_rows
from kinelib.kinmo.pretrained import SHIPPED, load_aligner, load_kinmo, load_reasoner, load_tokenizer
from kinelib.kinmo.rows import Row, tables
from kinelib.kinmo.sentences import SentenceBank, sentence_bank
from kinelib.kinmo.train import cache_folder, captured_folder
from kinelib.learning.files import write_text_whole
from kinelib.learning.profiles import Profile, profile
from kinelib.learning.text import TextEncoder

EVALUATOR = SHIPPED.parent / "kimodo" / "evaluator"  # our own, trained for Kimodo's part of the course
PARTS = ("tokenizer", "retrieval", "generation", "edits", "control", "uses")


@dataclass(frozen=True)
class Extent:
    """How much of everything is measured."""

    procedural: int  # held-out procedural clips, of each part
    captions: int  # held-out clips whose captions are generated from, in every repetition
    repetitions: int
    samples: int  # of every prompt of the geometric test
    edits: int  # clips of every kind of edit
    combined: int  # motions of every unseen combination
    paths: int  # held-out clips whose path is to be followed


EXTENTS = {
    Profile.SMOKE: Extent(64, 32, 2, 2, 2, 2, 4),
    Profile.LAB: Extent(192, 256, 5, 10, 12, 10, 48),
    Profile.PAPER: Extent(192, 256, 20, 20, 32, 20, 192),
}


@dataclass(frozen=True)
class Setting:
    """What is measured, and on what."""

    folder: Path  # of the checkpoints
    extent: Extent
    test: MotionTexts
    unseen: MotionTexts
    bank: SentenceBank | None  # with sentences of both, and the reasoner's; None without an aligner
    evaluator: MotionEvaluator | None
    captured: Path | None  # folder of captured clips
    cache: Path  # of clips made already
    encoder: TextEncoder | None
    say: Callable[[str], None]

    def has(self, stage: str) -> bool:
        """Whether there is a checkpoint of a stage."""
        return (self.folder / stage / "config.json").is_file()

    def model(self, stage: str) -> KinMo | None:
        """The parts of a generator; None where it was not trained."""
        return load_kinmo(stage, self.folder, self.encoder) if self.has(stage) else None


def evaluate_kinmo(
    json_path: str | Path | None = None,
    profile_name: str = "lab",
    checkpoint: str | Path | None = None,
    captured: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    *,
    parts: tuple[str, ...] = PARTS,
    extent: Extent | None = None,
    evaluator: str | Path | None = None,
    encoder: TextEncoder | None = None,
    cache: str | Path | None = None,
) -> str:
    """Measures whichever checkpoints a folder holds and returns the tables as Markdown.

    Args:
        json_path: where the rows go; None writes nothing.
        profile_name: how much is measured, see `EXTENTS`.
        checkpoint: folder of checkpoints, ablations included; default: the shipped ones.
        captured: folder of captured clips; default: what KINELIB_DATA points at, or none.
        say: called with a line of progress.
        parts: which tables, some of `PARTS`.
        extent: instead of the profile's.
        evaluator: folder of the evaluator's checkpoint; default: the shipped one, and without it no numbers of it.
        encoder: of sentences; None: MiniLM.
        cache: folder of clips and sentences made already; default: where trainings keep theirs.

    Raises:
        FileNotFoundError: when the folder holds no checkpoint that could be measured. ValueError: for an unknown part.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ValueError(f"there is no part {unknown[0]!r} of the evaluation; choose some of {', '.join(PARTS)}.")
    setting = prepare(profile_name, checkpoint, captured, say, extent, evaluator, encoder, cache)
    rows: list[Row] = []
    for part, measured in _MEASURES.items():
        if part in parts:
            begun = time.perf_counter()
            found = measured(setting)
            rows += found
            say(f"{part}: {len(found)} rows in {time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        sources = {
            name: {source: own.sources.count(source) for source in dict.fromkeys(own.sources)}
            for name, own in (("test", setting.test), ("unseen", setting.unseen))
        }
        facts = {"profile": str(profile_name), "extent": asdict(setting.extent), "held_out": sources}
        write_text_whole(Path(json_path), json.dumps(facts | {"rows": [asdict(one) for one in rows]}, indent=1) + "\n")
    return tables(rows)


def prepare(
    profile_name: str,
    checkpoint: str | Path | None,
    captured: str | Path | None,
    say: Callable[[str], None],
    extent: Extent | None,
    evaluator: str | Path | None,
    encoder: TextEncoder | None,
    cache: str | Path | None,
) -> Setting:
    """Held-out clips and what they are measured with; arguments as of :func:`evaluate_kinmo`."""
    folder = Path(checkpoint or SHIPPED)
    stages = [path.parent.name for path in folder.glob("*/config.json")]
    if not set(stages) & {*ROW_NAMES, "tokenizer"}:
        held = ", ".join(sorted(stages)) or "none"
        raise FileNotFoundError(f"there is no aligner and no tokenizer in {folder}, which holds {held}.")
    extent = extent or EXTENTS[profile(profile_name)]
    cache = Path(cache) if cache is not None else cache_folder(Path("runs/lab/kinmo"))
    clips = captured_folder(captured)
    test = training_set(clips, extent.procedural, cache, part="test")
    unseen = training_set(clips, extent.procedural, cache, part="unseen")
    bank = None
    if "aligner" in stages:
        slots = [one for slot in load_reasoner(folder, encoder).slots for one in slot]
        bank = sentence_bank(test.sentences() + unseen.sentences() + slots, encoder, cache)
    place = Path(evaluator or EVALUATOR)
    judge = load_evaluator(place) if (place / "config.json").is_file() else None
    return Setting(folder, extent, test, unseen, bank, judge, clips, cache, encoder, say)


def _tokenizer(setting: Setting) -> list[Row]:
    return tokenizer_rows(load_tokenizer(folder=setting.folder), setting.test) if setting.has("tokenizer") else []


def _retrieval(setting: Setting) -> list[Row]:
    if setting.bank is None:
        return []
    reasoner = load_reasoner(setting.folder, setting.encoder)
    aligners = {stage: load_aligner(stage, setting.folder) for stage in ROW_NAMES if setting.has(stage)}
    rows = []
    for where, clips in (("held-out takes", setting.test), ("unseen combinations", setting.unseen)):
        rows += retrieval_rows(aligners, clips, setting.bank, reasoner, where) + reasoner_rows(reasoner, clips, where)
    return rows


def _generation(setting: Setting) -> list[Row]:
    model, extent = setting.model("generator"), setting.extent
    if model is None:
        return []
    made = systems(model, setting.model("flat"))
    judge = setting.evaluator
    rows = truth_rows(made, setting.test, samples=extent.samples, evaluator=judge, say=setting.say)
    if judge is not None and len(setting.test) >= POOL:
        rows += evaluator_rows(
            made,
            model.tokenizer,
            setting.test,
            judge,
            captions=extent.captions,
            repetitions=extent.repetitions,
            encoder=setting.encoder,
            say=setting.say,
        )
    return rows


def _edits(setting: Setting) -> list[Row]:
    model, extent = setting.model("generator"), setting.extent
    if model is None:
        return []
    rows = edit_rows(model, setting.test, count=extent.edits, say=setting.say)
    return rows + unseen_rows(model, setting.unseen, setting.model("flat"), count=extent.combined, say=setting.say)


def _control(setting: Setting) -> list[Row]:
    model = setting.model("generator")
    if model is None:
        return []
    branch = load_branch(setting.folder / BRANCH) if setting.has(BRANCH) else None
    return control_rows(model, setting.test, branch, count=setting.extent.paths, say=setting.say)


def _uses(setting: Setting) -> list[Row]:
    if setting.captured is None:
        return []
    aligner = load_aligner(folder=setting.folder) if setting.has("aligner") else None
    train = training_set(setting.captured, 0, setting.cache)
    return gait_rows(train, setting.test.join(setting.unseen), aligner)


_MEASURES: dict[str, Callable[[Setting], list[Row]]] = {
    "tokenizer": _tokenizer,
    "retrieval": _retrieval,
    "generation": _generation,
    "edits": _edits,
    "control": _control,
    "uses": _uses,
}
