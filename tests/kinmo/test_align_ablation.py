"""The study of what each part of the aligner brings: every row, its seeds, and that nothing is trained twice."""

import json
import shutil
from dataclasses import replace

import pytest
from toy_tokens import TINY, Letters

from kinelib.kinmo.align_ablation import DEPTHS, StudyConfig, study
from kinelib.kinmo.aligner import AlignerConfig
from kinelib.kinmo.evaluate import Extent
from kinelib.kinmo.evaluate_texts import ROW_NAMES, WAYS
from kinelib.kinmo.train import Size

SMALL = Size(24, AlignerConfig(width=16, layers=1, heads=2, feed_forward=16), replace(TINY, width=16), {}, 4, 4, readings=2)
EXTENT = Extent(procedural=12, captions=32, repetitions=1, samples=1, edits=2, combined=1, paths=2)
CONFIG = StudyConfig(steps=2, seeds=2, profile="smoke")


@pytest.mark.slow
def test_every_part_left_out_over_seeds_and_an_interrupted_study_goes_on(tmp_path, monkeypatch):
    monkeypatch.delenv("KINELIB_DATA", raising=False)
    out, folder, told = tmp_path / "rows.json", tmp_path / "runs" / "alignment", []
    run = lambda: study(out, folder, CONFIG, say=told.append, encoder=Letters(), size=SMALL, extent=EXTENT)
    text = run()
    assert len(told) == 2 * len(ROW_NAMES) and "### retrieval, held-out takes, predicted texts" in text
    kept = json.loads(out.read_text())
    assert kept["about"]["config"]["seeds"] == 2
    rows = {(row["what"], row["metric"]): row for row in kept["rows"]}
    for name in ROW_NAMES.values():
        for metric in (f"(a) {depth}, {way}" for depth in DEPTHS for way in WAYS):
            row, each = rows[name, metric], [rows[f"{name}, seed {seed}", metric]["value"] for seed in range(2)]
            assert row["value"] == pytest.approx(sum(each) / 2) and row["seeds"] == 2
            assert row["low"] <= row["value"] <= row["high"] and row["chance"] == pytest.approx(
                100 * int(metric[6:].split(",")[0]) / row["gallery"]
            )
        assert rows[f"{name}, seed 1", "training steps"]["value"] == 2
    metric, full = "(a) R@3, text to motion", ROW_NAMES["aligner"]
    assert rows["all minus global only", metric]["value"] == pytest.approx(
        rows[full, metric]["value"] - rows["global only", metric]["value"]
    )
    told.clear()
    shutil.rmtree(folder / "seed-1" / "aligner-flat")
    shutil.rmtree(folder / "seed-1" / "aligner-flat-training")
    run()
    assert told == ["aligner-flat, seed 1"]
    assert json.loads(out.read_text())["rows"] == kept["rows"], "the same seed trains the same network"
