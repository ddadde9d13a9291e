"""The study of parts and sizes at a size at which it runs in seconds: cells, order, resuming, rows, tables, verdicts."""

import json
from dataclasses import replace

import pytest
import torch

from kinelib.bodies.procedural import procedural_clips
from kinelib.kimodo import ablation
from kinelib.kimodo.ablation import CELLS, Cell, StudyConfig
from kinelib.kimodo.constraints import EndEffector
from kinelib.kimodo.evaluate import KINDS, asked_of

TINY = StudyConfig(
    steps=1, batch=2, frames=24, clips=6, layers=1, samples=1, captions=2, constrained=2, procedural_held_out=4
)  # fmt: skip
SOME = (Cell("full"), Cell("no smoothed root", "no-smooth-root"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep of two cells without captured motion, and what it said."""
    folder, lines = tmp_path_factory.mktemp("runs") / "study", []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("KINELIB_DATA", raising=False)
        patch.setitem(ablation.WIDTHS, "medium", 32)
        patch.setattr(ablation, "TRUTH_PROMPTS", ablation.TRUTH_PROMPTS[:2])
        return folder, ablation.sweep(folder, TINY, cells=SOME, say=lines.append), lines


def test_every_part_and_size_has_a_cell_and_the_full_model_several_seeds():
    assert len({(cell.name, cell.seed) for cell in CELLS}) == len(CELLS)
    assert {cell.stage for cell in CELLS} == {
        *("denoiser", "one-stage", "global-root", "no-curriculum", "no-smooth-root", "no-extra-tokens")
    }
    assert {cell.data_share for cell in CELLS} == {0.1, 0.5, 1.0} and {cell.size for cell in CELLS} == set(ablation.WIDTHS)
    assert sum(cell.name == "full" for cell in CELLS) >= 2
    changes = [(c.stage != "denoiser") + (c.data_share < 1) + (c.size != "medium") for c in CELLS if c.name != "full"]
    assert set(changes) == {1}, "one thing is changed at a time"


def test_rows_hold_everything_that_tables_show(swept):
    folder, rows, lines = swept
    assert [row["name"] for row in rows] == [cell.name for cell in SOME] and len(lines) == 2
    for row in rows:
        assert row["steps"] == 1 and row["captions"] == 2 and row["clips"] == 2 and not row["captured"]
        assert all(row[kind] > 0 and row[f"{kind} median"] > 0 for kind in KINDS)
    assert ablation.read_rows(folder) == rows
    text = ablation.tables(rows)
    assert "| no smoothed root | 0 |" in text and "### scale" in text and "R@3" not in text, "no evaluator was given"


def test_a_finished_sweep_trains_nothing_and_another_config_is_refused(swept, monkeypatch):
    folder, rows, _ = swept
    monkeypatch.setattr(ablation, "train_cell", lambda *given: pytest.fail("a cell was trained again"))
    assert ablation.sweep(folder, TINY, cells=SOME) == rows
    with pytest.raises(ValueError, match="another config"):
        ablation.sweep(folder, replace(TINY, steps=2), cells=SOME)


def test_a_trained_cell_is_loaded_not_trained(swept, monkeypatch):
    folder, *_ = swept
    monkeypatch.setattr(ablation, "train_stage", lambda *given, **named: pytest.fail("it was trained already"))
    model = ablation.train_cell(TINY, SOME[0], folder, None)
    assert model.config.width == 32 and not model.training


def test_what_is_shipped_is_what_was_measured(swept, tmp_path):
    folder, rows, _ = swept
    about, back = ablation.load_shipped(ablation.ship(folder, tmp_path / "study.json", TINY))
    assert about["config"]["steps"] == 1 and [row["name"] for row in back] == [row["name"] for row in rows]
    assert back[0]["keyframes"] == pytest.approx(rows[0]["keyframes"], rel=1e-3)
    with pytest.raises(ValueError, match="another config"):
        ablation.ship(folder, tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match="no rows"):
        ablation.ship(tmp_path, tmp_path / "none.json", TINY)


def test_the_shipped_study_is_whole():
    about, rows = ablation.load_shipped()
    assert about["config"] == json.loads(json.dumps(StudyConfig().__dict__))
    assert {(row["name"], row["seed"]) for row in rows} == {(cell.name, cell.seed) for cell in CELLS}
    assert {row["steps"] for row in rows} == {StudyConfig().steps}, "equal steps"


def test_a_model_without_smoothed_roots_is_given_the_pelvis():
    clip = procedural_clips(1, 3, contents=("walk",))[0]
    for kind in KINDS:
        (one,) = asked_of(clip, kind, torch.Generator().manual_seed(0))
        (other,) = ablation._by_pelvis([one], clip)
        root = clip.motion.root[list(one.frames)]
        if kind == "keyframes":
            assert other.root is None
        else:
            there = other.root[:, [0, 2]] if isinstance(other, EndEffector) else other.xz
            assert torch.equal(there, root[:, [0, 2]])


def test_verdicts_need_a_difference_beyond_what_seeds_make():
    full = [{"name": "full", "seed": seed, "foot skate": value} for seed, value in enumerate((100.0, 110.0, 104.0))]
    row = lambda value: [*full, {"name": "one stage", "seed": 0, "foot skate": value}]
    says = lambda value: ablation.verdict(row(value), "one stage", "foot skate", worse=1)
    assert says(125.0) == "appears" and says(112.0) == "not clear" and says(80.0) == "the opposite"
    assert ablation.verdict(row(95.0), "one stage", "foot skate", worse=-1) == "not clear"
    assert ablation.verdict(row(60.0), "one stage", "foot skate", worse=-1) == "appears"
    assert ablation.verdict(full, "one stage", "foot skate", worse=1) == "not measured"
    assert ablation.verdict(row(110.0), "one stage", "foot skate", worse=0) == "appears", "equal, as claimed"


def test_unknown_sizes_are_refused():
    with pytest.raises(ValueError, match="unknown size 'huge'"):
        StudyConfig().network("huge")
