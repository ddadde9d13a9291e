"""The tables: every number with its interval, its baselines and its target, on tiny networks."""

import json

import pytest
import tiny
import torch

from kinelib.learning import checkpoints
from kinelib.learning.profiles import Profile
from kinelib.zipmo import evaluate as evaluation
from kinelib.zipmo.data import Clips
from kinelib.zipmo.evaluate import Extent, evaluate, moving_points, reconstruct, reconstruction_rows
from kinelib.zipmo.train import STAGES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zipmo")
    networks = (tiny.autoencoder(), tiny.planner(), tiny.regression(), tiny.direct())
    for stage, network in zip(STAGES, networks, strict=True):
        checkpoints.save(folder / stage, network, card="a test")
    return folder


EXTENT = Extent(clips=5, seeds=2, pokes=(0, 2), encoded=(5, 40), samples=2, dear_clips=4, batch=3)


@pytest.fixture(scope="module")
def measured(folder):
    """One evaluation: its JSON file, its Markdown and the lines it said."""
    lines, path = [], folder / "new" / "results.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "EXTENTS", dict.fromkeys(Profile, EXTENT))
        text = evaluate(path, profile_name="smoke", checkpoint=folder, say=lines.append)
    return path, text, lines


def test_every_row_is_complete(measured):
    path, text, lines = measured
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    content = json.loads(path.read_text())
    rows = content["rows"]
    assert content["extent"]["clips"] == 5 and len(rows) > 100
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"] and 2 <= row["n"] <= 5 and row["seeds"] in (1, 2), row
        assert row["target"] is None or row["method"].startswith("zipmo")
        if row["method"].startswith("zipmo"):
            assert {"static"} <= row["baselines"].keys() and not any(name.startswith("zipmo") for name in row["baselines"])
    for table, settings in (("reconstruction", {5, 40}), ("generation", {0, 2})):
        for method in {row["method"] for row in rows if row["table"] == table and not row["method"].startswith("zipmo, ")}:
            assert {row["setting"] for row in rows if (row["table"], row["method"]) == (table, method)} == settings
    methods = {row["method"] for row in rows if row["table"] == "generation"}
    assert {"zipmo", "zipmo, gradient", "static", "copy_nearest", "linear_local", "regression", "direct"} <= methods
    assert {row["setting"] for row in rows if row["method"] == "zipmo, gradient"} == {2}
    targets = {(row["metric"], row["setting"]) for row in rows if row["target"] is not None}
    assert {("px_moving", 40), ("delta_avg", 40), ("epe", 2)} <= targets
    sampled = {row["seeds"] for row in rows if row["method"] == "zipmo" and row["table"] == "generation"}
    assert sampled == {2} and {row["seeds"] for row in rows if row["method"] == "regression"} == {1}
    assert {row["n"] for row in rows if row["method"] == "direct" and row["metric"] == "epe"} == {4}
    assert "**Reconstruction**" in text and "**Generation**" in text and "| 2 | zipmo |" in text
    assert any(line.startswith("zipmo, 2 pokes: ") for line in lines)


def test_generation_scores_are_those_of_the_definitions(measured):
    rows = json.loads(measured[0].read_text())["rows"]
    find = lambda **want: next(row["value"] for row in rows if all(row[k] == v for k, v in want.items()))
    clips = evaluation.scene_clips(5, evaluation.TEST_SEED, size=16)
    truth = clips.tracks[:, :40].float()
    mse = ((truth - truth[:, :, :1]) * 64).square().mean()
    assert find(method="static", setting=2, metric="min_mse") == pytest.approx(float(mse), rel=1e-4)
    end = (truth[:, :2, -1] - truth[:, :2, 0]).norm(dim=-1).mean() * 64
    assert find(method="static", setting=2, metric="epe") == pytest.approx(float(end), rel=1e-4)
    assert find(method="copy_nearest", setting=2, metric="epe") == pytest.approx(0, abs=1e-3)


def still_and_moving(shift):
    """Clips of which the last 40 points hold still but 20, which move by `shift` pixels at 256."""
    tracks = tiny.starts(3, 96)[:, :, None].repeat(1, 1, 64, 1)
    tracks[:, 76:, :, 0] += shift / 128 * torch.linspace(0, 1, 64)
    return Clips(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), tracks)


def test_points_count_as_moving_from_four_pixels():
    for shift, expected in ((3.9, 0), (4.1, 20)):
        assert moving_points(still_and_moving(shift).tracks).sum(dim=1).tolist() == [expected] * 3


def test_reconstruction_rows_score_the_last_tracks_moving_and_static_apart():
    model, clips = tiny.autoencoder(), still_and_moving(40.0)
    rows = {
        (r.method, r.setting, r.metric): r for r in reconstruction_rows(model, clips, Extent(3, 1, encoded=(20,), batch=2))
    }
    static = lambda metric: rows["static", 20, metric].value
    assert static("px_static") == pytest.approx(0, abs=1e-4)
    assert static("px_moving") == pytest.approx(20, rel=0.01) and static("px") == pytest.approx(10, rel=0.01)
    # The first 20 tracks hold still, and so does whatever is made of them.
    assert rows["zipmo", 20, "px"].value == pytest.approx(10, rel=0.01)
    assert rows["copy_nearest_track", 20, "px"].value == pytest.approx(10, rel=0.01)
    assert reconstruct(model, clips, 20, batch=2).shape == (3, 40, 64, 2)


def test_mistakes_are_told_and_leave_results_alone(folder, tmp_path):
    path = tmp_path / "results.json"
    path.write_text("precious")
    with pytest.raises(ValueError, match="no profile 'quick'"):
        evaluate(path, profile_name="quick", checkpoint=folder)
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        evaluate(path, checkpoint=tmp_path / "nowhere")
    assert path.read_text() == "precious"
