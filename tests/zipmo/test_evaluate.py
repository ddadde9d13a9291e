"""The tables: every number with its interval, its baselines and its target, on tiny networks; going on where it stopped."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from kinelib.learning import checkpoints
from kinelib.learning.profiles import Profile
from kinelib.tracks.shards import Clip, ShardCard, write_shards
from kinelib.tracks.tracks import Tracks
from kinelib.zipmo import evaluate as evaluation
from kinelib.zipmo.data import Clips
from kinelib.zipmo.evaluate import (
    DENSE,
    Extent,
    comparison_rows,
    evaluate,
    measure_generation,
    most_pokes,
    moving_points,
    reconstruct,
    reconstruction_rows,
)
from kinelib.zipmo.evaluation_data import Benchmark, real_benchmark, scene_benchmark, spread_sources
from kinelib.zipmo.ledger import Ledger
from kinelib.zipmo.protocol import Protocol, reconstruction_metrics
from kinelib.zipmo.results import card_metrics

CARD = ShardCard("Test tracks", "CC0", "straight lines")
PLANNER = replace(tiny.PLANNER, max_pokes=16)
EXTENT = Extent(
    clips=5,
    seeds=2,
    pokes=(0, 2, DENSE),
    encoded=(5, 40),
    samples=2,
    many=4,
    dear_clips=4,
    few_clips=3,
    real_clips=6,
    official_steps=2,
    batch=3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zipmo")
    networks = {
        "autoencoder": tiny.autoencoder(),
        "planner": tiny.planner(PLANNER),
        "regression": tiny.regression(),
        "direct": tiny.direct(),
    }
    for stage, network in networks.items():
        checkpoints.save(folder / stage, network, card="a test")
    return folder


def real_clip(source, number, split="test", backwards=False):
    """A clip of 96 tracks that drift to the right, as `tracks.real` would record it."""
    start = tiny.starts(1, 96, seed=number)[0]
    xy = start[:, None] + torch.linspace(0, 0.1 + 0.02 * number, 64)[None, :, None] * torch.tensor([1.0, 0.0])
    facts = {"source": f"{source}.mp4", "start": 8 * number, "stride": 1, "split": split, "backwards": backwards}
    picture = torch.full((16, 16, 3), 40 * (number % 5), dtype=torch.uint8).numpy()
    return Clip(f"{source}-{number}-{split}-{backwards}", Tracks(xy[None], provenance=facts), picture)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    clips = [real_clip("cup", i) for i in range(8)] + [real_clip("bear", i) for i in range(4)]
    clips += [real_clip("box", 1, split="train"), real_clip("cup", 1, backwards=True)]
    write_shards(clips, folder, card=CARD)
    return folder


@pytest.fixture(scope="module")
def measured(folder, shards):
    """One evaluation: its JSON file, its Markdown and the lines it said."""
    lines, path = [], folder / "new" / "results.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "EXTENTS", dict.fromkeys(Profile, EXTENT))
        text = evaluate(path, profile_name="smoke", checkpoint=folder, real=shards, say=lines.append)
    return path, text, lines


def find(rows, **want):
    """The rows whose fields have the given values."""
    return [row for row in rows if all(row[name] == value for name, value in want.items())]


def test_every_row_is_complete(measured):
    path, text, lines = measured
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]  # what was kept on the way is gone
    content = json.loads(path.read_text())
    rows = content["rows"]
    assert content["extent"]["clips"] == 5 and len(rows) > 500
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"] and 2 <= row["n"] <= 6 and row["seeds"] in (1, 2), row
        assert row["target"] is None or row["method"].startswith("zipmo") and row["dataset"] == "scenes"
        ours = row["method"].startswith("zipmo") and row["table"] != "difference"
        assert ("baselines" in row) == ours
        if ours and row["metric"] in ("min_mse", "epe", "px") and "real video:" not in row["dataset"]:
            assert {"static"} <= row["baselines"].keys() and not any(name.startswith("zipmo") for name in row["baselines"])
    for table, settings in (("reconstruction", {5, 40}), ("generation", {0, 2, DENSE})):
        for dataset in ("scenes", "real video"):
            some = find(rows, table=table, dataset=dataset)
            for method in {row["method"] for row in some if not row["method"].startswith("zipmo, ")}:
                assert {row["setting"] for row in find(some, method=method)} == settings
    methods = {row["method"] for row in find(rows, table="generation")}
    assert {"zipmo", "zipmo, gradient", "static", "copy_nearest", "linear_local", "regression", "direct"} <= methods
    assert {row["setting"] for row in find(rows, method="zipmo, gradient")} == {2, DENSE}
    targets = {(row["metric"], row["setting"]) for row in rows if row["target"] is not None}
    assert {("px_moving", 40), ("delta_avg", 40), ("epe", 2)} <= targets
    assert {row["seeds"] for row in find(rows, method="zipmo", table="generation")} == {2}
    assert {row["seeds"] for row in find(rows, method="regression")} == {1}
    assert {row["n"] for row in find(rows, method="direct", metric="epe", dataset="scenes")} == {4}
    assert {row["k"] for row in find(rows, method="zipmo, many samples")} == {4}
    assert {(cost["dataset"], cost["pokes"]) for cost in content["costs"]} >= {("scenes", 2), ("real video", 16)}
    assert any(line.startswith("scenes: zipmo, 2 pokes: ") for line in lines)


def test_dense_rows_say_how_many_pokes_a_method_got(measured):
    path, text, _ = measured
    rows = json.loads(path.read_text())["rows"]
    given = {row["method"]: row["given"] for row in find(rows, table="generation", setting=DENSE)}
    assert given["zipmo"] == given["direct"] == 16 and given["linear"] == given["static"] == 40
    assert "| dense (16 given) | zipmo | 5 x 2 | 2 |" in text and "| dense | linear | 5 x 1 | 1 |" in text


def test_the_limit_of_pokes_is_the_networks():
    assert most_pokes(lambda frame: frame) is None
    latent = evaluation.LatentForecast(tiny.autoencoder(), tiny.planner(replace(tiny.PLANNER, max_pokes=40)))
    assert most_pokes(latent) == 40 and most_pokes(evaluation.baselines.linear) is None


def test_tables_hold_every_dataset_and_the_curve_of_k(measured):
    path, text, _ = measured
    for title in ("Reconstruction, scenes", "Generation, real video", "Difference, scenes", "Generation, real video: cup"):
        assert f"**{title}**" in text
    rows = find(json.loads(path.read_text())["rows"], dataset="scenes", method="zipmo, many samples", setting=2)
    value = {row["metric"]: row["value"] for row in rows}
    assert value["min_mse_of_1"] == pytest.approx(value["mean_mse"])
    assert value["min_mse_of_4"] == pytest.approx(value["min_mse"]) and value["min_mse_of_2"] < value["min_mse_of_1"]
    assert "| min_mse_of_1 | min_mse_of_2 | min_mse_of_4 |" in text


def test_generation_scores_are_those_of_the_definitions(measured):
    rows = find(json.loads(measured[0].read_text())["rows"], dataset="scenes", table="generation", setting=2)
    value = lambda **want: find(rows, **want)[0]["value"]
    truth = scene_benchmark(5, size=16).clips.tracks[:, :40].float()
    mse = ((truth - truth[:, :, :1]) * 64).square().mean()
    assert value(method="static", metric="min_mse") == pytest.approx(float(mse), rel=1e-4)
    end = (truth[:, :2, -1] - truth[:, :2, 0]).norm(dim=-1).mean() * 64
    assert value(method="static", metric="epe") == pytest.approx(float(end), rel=1e-4)
    assert value(method="copy_nearest", metric="epe") == pytest.approx(0, abs=1e-3)


def test_comparisons_are_on_the_same_clips(measured):
    rows = json.loads(measured[0].read_text())["rows"]
    some = find(rows, dataset="scenes", setting=2, metric="min_mse")
    value = lambda **want: find(some, **want)[0]["value"]
    subset = find(some, table="generation", method="zipmo, first 4 clips")
    assert [row["n"] for row in subset] == [4]
    dear = value(table="generation", method="direct") - subset[0]["value"]
    assert value(table="difference", method="direct") == pytest.approx(dear)
    cheap = value(table="generation", method="static") - value(table="generation", method="zipmo")
    assert value(table="difference", method="static") == pytest.approx(cheap)
    assert not find(rows, table="difference", method="zipmo, many samples")  # another K
    assert not find(rows, table="difference", method="zipmo")


def test_real_video_is_held_out_forwards_and_apart_by_source(measured, shards):
    content = json.loads(measured[0].read_text())
    facts = content["datasets"]["real video"]
    assert facts["clips"] == 6 and {name: one["clips"] for name, one in facts["sources"].items()} == {"bear": 2, "cup": 4}
    assert facts["sources"]["cup"]["windows"] == 4 and facts["moving_share"] == 1.0
    rows = find(content["rows"], table="generation", method="static", setting=2, metric="mean_mse")
    pooled, cup, bear = (find(rows, dataset=name)[0] for name in ("real video", "real video: cup", "real video: bear"))
    assert (pooled["n"], pooled["clusters"], cup["n"], bear["n"]) == (6, 2, 4, 2)
    assert pooled["value"] == pytest.approx((4 * cup["value"] + 2 * bear["value"]) / 6)
    # Two videos: the interval is the range between them.
    ends = sorted((cup["value"], bear["value"]))
    assert [pooled["low"], pooled["high"]] == pytest.approx(ends)
    every = real_benchmark(shards, size=16)
    assert len(every) == 12 and set(every.sources) == {"cup", "bear"} and every.clips.frames.shape[-1] == 16


def test_every_prefix_of_real_clips_has_its_sources_in_proportion():
    order = spread_sources(("a",) * 30 + ("b",) * 10)
    assert sorted(order) == list(range(40))
    for n in (8, 20, 32):
        assert abs(sum(i >= 30 for i in order[:n]) - n / 4) <= 1
    assert order == spread_sources(("a",) * 30 + ("b",) * 10) and order[:3] != sorted(order[:3])


def test_an_interrupted_evaluation_goes_on(folder, tmp_path):
    held_out = scene_benchmark(3, size=16)
    latent = evaluation.LatentForecast(tiny.autoencoder(), tiny.planner(PLANNER))
    extent = replace(EXTENT, pokes=(1, 2), seeds=1)
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluation.baselines.linear(*arguments, **options)

    methods = {"zipmo": latent, "linear": counted}
    kept = tmp_path / "kept.jsonl"
    with pytest.raises(KeyboardInterrupt):
        measure_generation(methods, held_out, extent, Ledger(kept))
    assert len(kept.read_text().splitlines()) == 3
    kept.write_text(kept.read_text() + '{"key": "cut sho')
    ledger = Ledger(kept)
    assert len(ledger.entries) == 3
    del methods["linear"]
    again = measure_generation(methods, held_out, extent, ledger)
    whole = measure_generation(methods, held_out, extent)
    for one, other in zip(again, whole, strict=True):
        assert one.metrics.keys() == other.metrics.keys()
        assert all(torch.equal(one.metrics[k].nan_to_num(-1), other.metrics[k].nan_to_num(-1)) for k in one.metrics)
    assert len(ledger.entries) == 3 and kept.read_text().count("\n") == 3


def test_one_video_alone_is_resampled_by_its_windows():
    clips = tiny.scenes(4)
    alone = Benchmark("real video", clips, ("cup",) * 4, ("a", "a", "b", "c"))
    assert (
        alone.groups(torch.arange(4)) == ["a", "a", "b", "c"] and scene_benchmark(2, size=16).groups(torch.arange(2)) is None
    )
    scores = measure_generation({"static": evaluation.baselines.static}, alone, replace(EXTENT, pokes=(1,)))
    rows = evaluation.score_rows(scores, alone)
    assert {row.clusters for row in rows if row.metric == "min_mse"} == {3}
    assert comparison_rows(scores, alone) == []


def test_cards_take_their_numbers_from_the_rows(measured):
    found = card_metrics(json.loads(measured[0].read_text())["rows"], "planner")
    assert "epe, 2 pokes, 5 held-out scenes" in found and any("held-out windows of real video" in name for name in found)
    assert all("[" in value for value in found.values())


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
    assert rows["zipmo, refined", 20, "px"].n == 3
    assert reconstruct(model, clips, 20, batch=2).shape == (3, 40, 64, 2)


def test_official_reconstruction_draws_latents_and_scores_eighty_tracks():
    model, clips = tiny.autoencoder(), tiny.scenes(3)
    rows = reconstruction_rows(model, clips, Extent(3, 1, encoded=(40,), batch=3))
    official = next(r for r in rows if (r.method, r.metric) == ("zipmo, official settings", "px"))
    some, generator = replace(clips, tracks=clips.tracks[:, :80]), torch.Generator().manual_seed(43)
    drawn = reconstruct(model, some, 40, decoded=80, sampled=generator)
    expected = reconstruction_metrics(drawn, some.tracks.float(), protocol=Protocol.official())["px"].mean()
    assert drawn.shape[1] == 80 and official.value == pytest.approx(float(expected))
    ours = next(r for r in rows if (r.method, r.metric) == ("zipmo", "px"))
    assert ours.value != pytest.approx(official.value)


def test_some_methods_can_be_measured_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "EXTENTS", dict.fromkeys(Profile, EXTENT))
    evaluate(tmp_path / "some.json", profile_name="smoke", checkpoint=folder, only=["static", "linear"])
    rows = json.loads((tmp_path / "some.json").read_text())["rows"]
    assert {row["method"] for row in rows if row["table"] == "generation"} == {"static", "linear"}


def test_mistakes_are_told_and_leave_results_alone(folder, tmp_path):
    path = tmp_path / "results.json"
    path.write_text("precious")
    with pytest.raises(ValueError, match="no profile 'quick'"):
        evaluate(path, profile_name="quick", checkpoint=folder)
    with pytest.raises(ValueError, match="no method 'zipmo, snapped'; there are static;"):
        evaluate(path, checkpoint=folder, only=["zipmo", "zipmo, snapped"])
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        evaluate(path, checkpoint=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no .*shards"):
        real_benchmark(tmp_path)
    write_shards([real_clip("box", 1, split="train")], tmp_path / "train", card=CARD)
    with pytest.raises(ValueError, match="no held-out clip"):
        real_benchmark(tmp_path / "train")
    assert path.read_text() == "precious"
