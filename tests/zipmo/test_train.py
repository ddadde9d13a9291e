"""Clips in memory and on disk, and the training stages at a size of seconds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from kinelib.learning import checkpoints
from kinelib.learning.profiles import Profile
from kinelib.tracks.shards import Clip, ShardCard, write_shards
from kinelib.tracks.tracks import Tracks
from kinelib.zipmo import data, train
from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder
from kinelib.zipmo.pretrained import load_latent, load_stage

TINY = {stage: getattr(tiny, stage) for stage in train.STAGES}
TINY["planner"] = lambda: tiny.planner(replace(tiny.PLANNER, text_width=384))  # reads what the real encoder says


@pytest.fixture
def small(monkeypatch):
    """Profiles and networks made tiny; returns what a training needs to be told."""
    monkeypatch.setattr(train, "SIZES", dict.fromkeys(Profile, train.Size(24, 2, dict.fromkeys(train.STAGES, 1.0))))
    monkeypatch.setattr(train, "build", lambda stage, size: TINY[stage]().requires_grad_(True).train())
    return {"profile_name": "smoke", "steps": 3}


def log(folder, stage):
    lines = (folder / f"{stage}-training" / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# ---- clips


def test_scenes_are_made_once_and_made_anew_when_their_code_changes(tmp_path, monkeypatch):
    made = data.scene_clips(5, 3, size=16, cache=tmp_path)
    assert made.frames.shape == (5, 3, 16, 16) and made.tracks.shape == (5, 96, 64, 2)
    assert made.tracks.dtype == torch.float16 and len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(data, "_scene_chunk", lambda *job: pytest.fail("made again"))
    again = data.scene_clips(5, 3, size=16, cache=tmp_path)
    assert torch.equal(made.tracks, again.tracks) and torch.equal(made.frames, again.frames)
    monkeypatch.undo()
    versions = {data.scene_version(("orbit",)), data.scene_version(("rigid",)), data.scene_version(("orbit", "rigid"))}
    assert len(versions) == 3
    monkeypatch.setattr(data, "scene_version", lambda families: "other")
    assert torch.equal(data.scene_clips(5, 3, size=16, cache=tmp_path).tracks, made.tracks)
    assert len(list(tmp_path.iterdir())) == 2


def test_chunks_have_their_own_seeds_and_frames_fit_their_model(monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 4)
    clips = data.scene_clips(10, 50, size=16, families=("rigid",))
    assert len(clips) == 10
    assert torch.equal(clips.tracks[4:8], data.scene_clips(4, 51, size=16, families=("rigid",)).tracks)
    frames = clips.model_frames()
    assert frames.dtype == torch.float32 and -1 <= frames.min() < frames.max() <= 1


def test_drawing_shuffles_points_clip_by_clip_and_mixes_real_clips():
    clips = data.Clips(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, 12, 5, 2).half())
    clips.tracks[..., 0] = torch.arange(12)[:, None]
    clips.tracks[..., 1] = torch.arange(3)[:, None, None]
    real = data.Clips(clips.frames + 9, clips.tracks + 100)
    drawn = data.draw_clips(clips, 40, torch.Generator().manual_seed(0), real, 0.25)
    points = drawn.tracks[..., 0, 0] % 100
    assert torch.equal(points.sort(dim=1).values, torch.arange(12).half().expand(40, -1))
    assert len({tuple(row.tolist()) for row in points}) == 40
    # A point's track and a clip's picture stay together.
    assert (drawn.tracks == drawn.tracks[:, :, :1]).all() and (drawn.tracks[..., 1] == drawn.tracks[:, :1, :, 1]).all()
    assert torch.equal(drawn.frames[:, 0, 0, 0] == 9, drawn.tracks[:, 0, 0, 0] >= 100)
    assert int((drawn.frames[:, 0, 0, 0] == 9).sum()) == 10
    again = data.draw_clips(clips, 40, torch.Generator().manual_seed(0), real, 0.25)
    assert torch.equal(drawn.tracks, again.tracks)
    assert set(data.draw_clips(clips, 60, torch.Generator()).tracks[:, 0, 0, 1].tolist()) == {0, 1, 2}


def test_encoding_does_not_depend_on_the_batch_and_is_normalised():
    clips, model = tiny.scenes(7), tiny.autoencoder(noise=0.02)
    raw = data.raw_latents(clips, model, batch=3)
    model.measure_statistics(raw)
    encoded = data.encode_clips(clips, model, batch=2)
    assert encoded.latents.shape == (7, *tiny.LATENT) and torch.equal(encoded.tracks, clips.tracks)
    assert torch.allclose(encoded.latents.float(), model.normalize(raw), atol=5e-3, rtol=5e-3)
    assert torch.equal(encoded.pick(torch.tensor([5, 1])).latents, encoded.latents[[5, 1]])


def shards(folder, count=4, points=96):
    """Shards of random clips, every second one of them held out."""
    generator = np.random.default_rng(0)
    clips = []
    for i in range(count):
        xy = torch.from_numpy(generator.uniform(-1, 1, (1, points, 64, 2)).astype(np.float32))
        tracks = Tracks(xy, provenance={"split": ("train", "test")[i % 2]})
        clips.append(Clip(f"clip{i}", tracks, generator.integers(0, 255, (20, 30, 3), np.uint8)))
    write_shards(clips, folder, card=ShardCard("Test tracks", "CC0", "random numbers"))
    return folder


def test_real_clips_come_from_shards_without_those_held_out(tmp_path):
    folder = shards(tmp_path / "real")
    assert len(data.shard_clips(folder, size=16)) == 4
    clips = data.shard_clips(folder, size=16, points=40, frames=32, keep=train.is_training_clip)
    assert clips.frames.shape == (2, 3, 16, 16) and clips.tracks.shape == (2, 40, 32, 2)
    with pytest.raises(ValueError, match="no clip with 97 tracks"):
        data.shard_clips(folder, size=16, points=97)


def test_no_video_outweighs_the_others(tmp_path):
    generator = np.random.default_rng(0)
    clips = []
    for i, source in enumerate(["long.mp4"] * 9 + ["short.mp4"] * 2):
        xy = torch.full((1, 96, 64, 2), i / 32)
        clips.append(
            Clip(f"clip{i}", Tracks(xy, provenance={"source": source}), generator.integers(0, 255, (8, 8, 3), np.uint8))
        )
    write_shards(clips, tmp_path, card=ShardCard("Test tracks", "CC0", "numbers"))
    kept = (data.shard_clips(tmp_path, size=8, most=3).tracks[:, 0, 0, 0] * 32).tolist()
    assert len(kept) == 5 and kept[-2:] == [9, 10] and kept == sorted(kept)
    assert kept[:3] != [0, 1, 2]  # drawn, not the first
    assert len(data.shard_clips(tmp_path, size=8)) == 11


def test_the_autoencoder_sees_real_pictures_in_other_light_and_under_drawn_cameras(tmp_path):
    scenes = tiny.scenes(40)
    real = data.Clips(scenes.frames, torch.full_like(scenes.tracks, 0.5))
    size = scenes.tracks.shape[1]
    plain = train.autoencoder_draw(train.Sources(scenes, None, 0.5), 16)(torch.Generator().manual_seed(0))
    frames = {tuple(frame.flatten().tolist()) for frame in scenes.model_frames()}
    assert all(tuple(frame.flatten().tolist()) in frames for frame in plain["frame"])
    batch = train.autoencoder_draw(train.Sources(scenes, real, 0.5), 200)(torch.Generator().manual_seed(0))
    assert batch["tracks"].shape[1] <= size and batch["tracks"].isfinite().all()
    untouched = (batch["tracks"][100:] == 0.5).flatten(1).all(dim=1)
    assert 0.4 < float(untouched.float().mean()) < 0.8 and not (batch["tracks"][:100] == 0.5).flatten(1).all(dim=1).any()
    same = [tuple(frame.flatten().tolist()) in frames for frame in batch["frame"]]
    assert 0.15 < sum(same) / len(same) < 0.45


# ---- stages


def test_all_stages_train_and_what_they_save_can_be_used(small, tmp_path):
    out = tmp_path / "runs" / "smoke" / "zipmo"
    for stage in train.STAGES:
        result = train.train_stage(stage, out=out, **small)
        assert result.steps == 3 and not result.stopped_early
        assert all(np.isfinite(line["loss"]) for line in log(out, stage))
        card = (out / stage / "card.md").read_text()
        assert f"{2 if stage == 'video' else 24} procedural scenes" in card and "MIT" in card and f"--stage {stage}" in card
        assert any(not torch.equal(a, b) for a, b in zip(
            load_stage(stage, out).parameters(), TINY[stage]().parameters(), strict=True))  # fmt: skip
    # Scenes lie in runs/data whatever the depth of the output folder; nothing else is left behind.
    assert list((tmp_path / "runs" / "data").glob("clips-*.safetensors"))
    assert train.data_folder(tmp_path / "runs" / "try") == tmp_path / "runs" / "data"
    assert {path.name for path in out.iterdir()} == {s + end for s in train.STAGES for end in ("", "-training")}
    model = checkpoints.load(out / "autoencoder", TrackAutoencoder, AutoencoderConfig)
    assert not model.latent_scale.eq(1).any()  # measured
    latents = data.encode_clips(tiny.scenes(40, 1000), model).latents.float()
    assert 0.3 < float(latents.var(dim=(0, 1, 2, 3)).mean()) < 3
    tracks = load_latent(out, steps=2)(tiny.frames(), *tiny.pokes(), tiny.starts(2, 3), samples=2)
    assert tracks.shape == (2, 2, 3, 64, 2)


def test_an_interrupted_stage_goes_on_where_it_was(small, tmp_path, monkeypatch):
    whole, parts = tmp_path / "a", tmp_path / "b"
    options = small | {"steps": 6}
    train.train_stage("autoencoder", out=whole, **options)
    draw = train.autoencoder_draw

    def interrupted(*given):
        inner, calls = draw(*given), []

        def once(generator):
            calls.append(1)
            if len(calls) == 3:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGTERM)
            return inner(generator)

        return once

    monkeypatch.setattr(train, "autoencoder_draw", interrupted)
    result = train.train_stage("autoencoder", out=parts, **options)
    assert result.stopped_early and result.steps < 6 and not (parts / "autoencoder").exists()
    monkeypatch.setattr(train, "autoencoder_draw", draw)
    assert train.train_stage("autoencoder", out=parts, resume=True, **options).steps == 6
    a, b = (checkpoints.load(folder / "autoencoder", TrackAutoencoder, AutoencoderConfig) for folder in (whole, parts))
    for name, value in a.state_dict().items():
        assert torch.allclose(value, b.state_dict()[name], atol=1e-6), name


def test_a_checkpoint_is_not_replaced_unless_asked(small, tmp_path):
    checkpoints.save(tmp_path / "direct", tiny.direct(), card="precious")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            train.train_stage("direct", out=tmp_path, resume=resume, **small)
    assert (tmp_path / "direct" / "card.md").read_text() == "precious\n"
    train.train_stage("direct", out=tmp_path, overwrite=True, **small)
    assert "precious" not in (tmp_path / "direct" / "card.md").read_text()
    with pytest.raises(FileExistsError):
        train.train_stage("direct", out=tmp_path, **small)


def test_real_clips_are_mixed_in_and_named_on_the_card(small, tmp_path):
    out = tmp_path / "out"
    train.train_stage("direct", out=out, real=shards(tmp_path / "shards"), **small)
    card = (out / "direct" / "card.md").read_text()
    assert "2 windows of real video" in card and "CC BY-NC" in card


def test_an_autoencoder_trained_on_keeps_what_planners_rely_on(small, tmp_path):
    earlier = tiny.autoencoder(noise=0.02)
    earlier.measure_statistics(torch.randn(40, *tiny.LATENT, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    checkpoints.save(tmp_path / "earlier" / "autoencoder", earlier, card="**Licence.** MIT.")
    train.train_stage("autoencoder", out=tmp_path / "out", start=tmp_path / "earlier", **small)
    later = load_stage("autoencoder", tmp_path / "out")
    for name in ("latent_shift", "latent_scale"):
        assert torch.equal(getattr(later, name), getattr(earlier, name))
    assert torch.equal(later.codec.basis.functions, earlier.codec.basis.functions)
    assert not all(torch.equal(a, b) for a, b in zip(later.parameters(), earlier.parameters(), strict=True))


def test_mistakes_are_told_before_scenes_are_made(small, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "training_sources", lambda *a, **b: pytest.fail("scenes were made"))
    calls = [
        (dict(stage="decoder"), ValueError, "choose one of: autoencoder, planner"),
        (dict(stage="direct", profile_name="large"), ValueError, "no profile 'large'"),
        (dict(stage="direct", seconds=2.0), ValueError, "exactly one of steps and seconds"),
        (dict(stage="planner"), FileNotFoundError, "no checkpoint folder .*autoencoder"),
        (dict(stage="regression"), FileNotFoundError, "no checkpoint folder .*autoencoder"),
        (dict(stage="direct", real=tmp_path / "nowhere"), FileNotFoundError, "no folder .*nowhere"),
    ]
    for options, kind, said in calls:
        with pytest.raises(kind, match=said):
            train.train_stage(out=tmp_path, **small | options)
    other = tiny.AUTOENCODER.__class__(**{**vars(tiny.AUTOENCODER), "channels": 4})
    checkpoints.save(tmp_path / "autoencoder", tiny.autoencoder(other), card="a test")
    with pytest.raises(ValueError, match="does not fit an autoencoder"):
        train.train_stage("planner", out=tmp_path, **small)


@pytest.mark.parametrize("name", list(Profile))
def test_the_networks_of_a_profile_fit_each_other(name):
    with torch.device("meta" if name is Profile.PAPER else "cpu"):  # shapes without memory
        networks = {stage: train.build(stage, name) for stage in train.STAGES}
    for stage in ("planner", "regression"):
        train.check_pair(networks["autoencoder"], networks[stage])
    assert networks["direct"].config.frame_size == networks["autoencoder"].config.frame_size
    assert train.SIZES[name].points >= 48 + 40 and set(train.SIZES[name].seconds) == set(train.STAGES)
