"""The evaluation of KinMo run whole on networks of seconds: every table, its baselines and intervals, and refusals."""

import json
from dataclasses import replace

import pytest
import torch
from toy_model import kinmo
from toy_tokens import TINY, Letters, said_motions

from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo import evaluate_edits
from kinelib.kinmo.aligner import AlignerConfig
from kinelib.kinmo.data import HELD_OUT_COMBINATIONS, training_set
from kinelib.kinmo.evaluate import PARTS, Extent, evaluate_kinmo
from kinelib.kinmo.evaluate_edits import changes, in_place, kinds
from kinelib.kinmo.evaluate_texts import label_rows
from kinelib.kinmo.tokens import TokenizerConfig
from kinelib.kinmo.train import SHIPPED_STAGES, Size, train_stage

SMALL = Size(24, AlignerConfig(width=16, layers=1, heads=2, feed_forward=16), replace(TINY, width=16), {}, 4, 4, readings=2)
EXTENT = Extent(procedural=12, captions=32, repetitions=1, samples=1, edits=2, combined=1, paths=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with every stage, trained for two steps each without captured motion."""
    out = tmp_path_factory.mktemp("runs") / "kinmo"
    own = dict(profile_name="smoke", steps=2, size=SMALL, encoder=Letters(), out=out)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("KINELIB_DATA", raising=False)
        for stage in (*SHIPPED_STAGES, "aligner-global", "aligner-flat"):
            changes = {"config": TokenizerConfig(width=8, blocks=1, codes=8, code_width=4), "batch": 4}
            train_stage(stage, **own, **(changes if stage == "tokenizer" else {}))
    return out


@pytest.mark.slow
def test_every_table_stands_beside_its_baselines(trained, tmp_path, monkeypatch):
    monkeypatch.delenv("KINELIB_DATA", raising=False)
    options = dict(extent=EXTENT, encoder=Letters(), evaluator=tmp_path / "none", cache=tmp_path / "cache")
    text = evaluate_kinmo(tmp_path / "k.json", "smoke", trained, **options)
    kept = json.loads((tmp_path / "k.json").read_text())
    rows = kept["rows"]
    clips = kept["held_out"]["test"]["procedural"]
    assert 8 <= clips <= 12 and kept["extent"]["edits"] == 2  # held-out combinations are left out of "test"
    found = {(row["table"], row["what"], row["metric"]): row for row in rows}
    names = {table for table, _, _ in found}
    for table in ("tokenizer", "group edits", "unseen combinations", "trajectory control", "generation without evaluator"):
        assert table in names and f"### {table}" in text, names
    assert any("predicted texts" in table for table in names) and any("oracle" in table for table in names), names
    assert all(row["gallery"] == clips for row in rows if "R@1," in row["metric"] and "held-out takes" in row["table"])
    ways = {what for table, what, _ in found if table == "unseen combinations"}
    assert {"one prompt", "the going, then its arms edited", "flat baseline, one prompt"} <= ways
    assert found["unseen combinations", "one prompt", "both parts"]["n"] == len(HELD_OUT_COMBINATIONS)
    edit = found["group edits", "group edit", "change of other joints over that"]
    assert edit["value"] == 0.0, "joints of other groups turn exactly as before, whatever the network says"


def test_who_knows_labels_alone_finds_a_clip_by_luck_among_its_equals():
    motions, _ = said_motions(4)
    motions = replace(motions, labels=("a", "a", "a", "b"))
    rows = {row.metric: row for row in label_rows("retrieval", motions)}
    found = {depth: rows[f"(a) R@{depth}, text to motion"] for depth in (1, 3)}
    assert found[1].value == pytest.approx(100 * (3 / 3 + 1) / 4) and found[3].value == 100.0
    assert found[1].chance == 25.0 and found[1].gallery == 4 and found[1].low < found[1].value < found[1].high


def test_joints_are_compared_in_one_place():
    motion = procedural_clips(1, 3, contents=("walk",), seconds=(2.0, 2.0))[0].motion
    moved = motion.rotated(1.0).translated([3.0, -2.0])
    torch.testing.assert_close(in_place(moved), in_place(motion), atol=1e-4, rtol=0)
    own, others = changes([motion], [moved], "left_arm")
    assert own < 1e-4 and others < 1e-4
    bent = motion.rotations.clone()
    bent[:, motion.skeleton.index("left_elbow")] = motion.rotations[:, motion.skeleton.index("left_knee")]
    own, others = changes([motion], [replace(motion, rotations=bent)], "left_arm")
    assert own > 0.005 and others < 1e-6


def test_the_source_of_an_edit_does_not_pass_its_test_already():
    for kind in kinds():
        clips = evaluate_edits.sources_of(kind, training_set(None, 8, part="test"), 3)
        assert len(clips) == 3 and not evaluate_edits._passed(kind, [motion for motion, _ in clips]).any(), kind.name


def test_seeds_of_unseen_combinations_differ():
    model, unseen = kinmo(procedural_clips(2, 3, contents=("walk",))), training_set(None, 8, part="unseen")
    if model.reasoner is None:
        pytest.skip("the toy model has no reasoner")
    rows = evaluate_edits.unseen_rows(model, unseen, count=2)
    assert {row.n for row in rows if row.metric == "both parts"} >= {2 * len(HELD_OUT_COMBINATIONS)}


def test_what_cannot_be_measured_is_named(tmp_path):
    with pytest.raises(ValueError, match="no part 'speed'"):
        evaluate_kinmo(parts=("speed",))
    with pytest.raises(FileNotFoundError, match="no aligner and no tokenizer"):
        evaluate_kinmo(checkpoint=tmp_path, parts=PARTS[:1])
