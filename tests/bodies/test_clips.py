"""Clips of mocap: names, words, licences, splits, the cache and what breaks it; on made files and on the real archives."""

from __future__ import annotations

import math
import os
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinelib.bodies import clips
from kinelib.bodies.bvh_write import bvh_text
from kinelib.bodies.clips import BANDAI_NAMCO, CMU, MISLABELLED, UNSEEN, ClipsError, bandai_namco_clips, cmu_clips, split
from kinelib.bodies.features import heading
from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural import mirrored_clip
from kinelib.bodies.rotations import from_axis_angle, geodesic
from kinelib.bodies.skeletons import SMPLX22, SOMA30

DATA = Path(os.environ.get("KINELIB_DATA", "no such folder"))
NAMES = (
    "dataset-1_bow_angry_001",
    "dataset-2_walk_normal_003",
    "dataset-2_walk_normal_007",
    "dataset-2_run_elderly_001",
    "dataset-2_walk-turn-left_masculine_006",
)


def waving(seed: int, frames: int = 45) -> Motion:
    draw = torch.Generator().manual_seed(seed)
    time = torch.linspace(0, 6, frames)[:, None, None]
    turns = from_axis_angle(0.3 * torch.randn(len(SOMA30), 3, generator=draw) * time.sin())
    path = torch.stack([time[:, 0, 0] + 3, 1 + 0 * time[:, 0, 0], time[:, 0, 0] - 5], -1)
    return Motion(turns, path, 30.0, SOMA30)


def named(found, name: str):
    return next(clip for clip in found if clip.motion.provenance["name"] == name)


@pytest.fixture
def folder(tmp_path):
    """Made clips under Bandai-Namco's and CMU's names, unpacked."""
    for seed, name in enumerate(NAMES):
        (tmp_path / f"{name}.bvh").write_text(bvh_text(waving(seed)))
    cmu = tmp_path / "cmu"
    cmu.mkdir()
    (cmu / "007_03.bvh").write_text(bvh_text(waving(9)))
    (cmu / "descriptions.csv").write_text('"Subject","Trial #","Motion Description"\n7,3,"walk, slowly"\n')
    return tmp_path


def test_made_clips_come_named_placed_and_worded(folder, tmp_path):
    found = bandai_namco_clips(folder, tmp_path / "cache", prompts=5)
    assert [clip.motion.provenance["name"] for clip in found] == sorted(set(NAMES) - MISLABELLED)
    walk = named(found, "dataset-2_walk_normal_003")
    assert (walk.content, walk.style, walk.take, walk.source) == ("walk", "normal", "003", BANDAI_NAMCO)
    assert walk.licence == "CC BY-NC 4.0" == walk.motion.provenance["licence"]
    assert walk.prompts[0] == "A person walks forward." and len(set(walk.prompts)) == 5
    assert walk.motion.skeleton is SMPLX22 and walk.motion.fps == 20 and len(walk.motion) == 30
    for clip in found:
        torch.testing.assert_close(clip.motion.root[0, [0, 2]], torch.zeros(2), atol=1e-5, rtol=0)
        assert float(clip.motion.positions()[..., 1].amin(1).quantile(0.05)) == pytest.approx(0.01, abs=1e-3)


def test_cmu_clips_have_the_words_of_the_database(folder, tmp_path):
    (clip,) = cmu_clips(folder / "cmu", tmp_path / "cache")
    assert clip.prompts == ("walk, slowly",) and clip.source == CMU and split(clip) == "test"
    assert len(clip.motion) == 29, "the first of 45 frames at 30 a second is dropped"
    (folder / "cmu" / "descriptions.csv").write_text("Subject,Trial,Text\n7,4,run\n")
    with pytest.raises(ClipsError, match=r"no row for 007_03\.bvh"):
        cmu_clips(folder / "cmu", tmp_path / "cache")


def test_the_cache_is_used_and_is_exact(folder, tmp_path, monkeypatch):
    first = bandai_namco_clips(folder, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("bandai-namco-*.safetensors"))) == 1
    monkeypatch.setattr(clips, "parse_bvh", lambda *_: pytest.fail("the cache was not used"))
    for a, b in zip(first, bandai_namco_clips(folder, tmp_path / "cache"), strict=True):
        assert torch.equal(a.motion.rotations, b.motion.rotations) and torch.equal(a.motion.root, b.motion.root)
        assert a.prompts == b.prompts


def test_the_cache_outlives_neither_the_files_nor_the_code(folder, tmp_path, monkeypatch):
    bandai_namco_clips(folder, tmp_path / "cache")
    (folder / f"{NAMES[1]}.bvh").write_text(bvh_text(waving(7, frames=60)))
    longer = bandai_namco_clips(folder, tmp_path / "cache")
    assert len(named(longer, NAMES[1]).motion) == 40
    monkeypatch.setattr(clips, "MADE_BY", ("bvh",))
    bandai_namco_clips(folder, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3


def test_cached_rotations_are_the_retargeted_ones(folder, tmp_path):
    from kinelib.bodies.bvh import read_bvh
    from kinelib.bodies.retarget import retarget

    found = named(bandai_namco_clips(folder, tmp_path / "cache"), NAMES[1]).motion
    made = retarget(read_bvh(folder / f"{NAMES[1]}.bvh").motion().resampled(20), SMPLX22)
    assert float(geodesic(found.rotations, made.rotations).max()) < 2e-3


def test_an_archive_is_read_like_the_folder(folder, tmp_path):
    place = tmp_path / "packed"
    place.mkdir()
    with zipfile.ZipFile(place / "bandai_namco.zip", "w") as file:
        for name in NAMES:
            file.write(folder / f"{name}.bvh", f"{name}.bvh")
    packed = bandai_namco_clips(place, tmp_path / "cache")
    for a, b in zip(bandai_namco_clips(folder, tmp_path / "other"), packed, strict=True):
        torch.testing.assert_close(a.motion.rotations, b.motion.rotations)
    assert bandai_namco_clips(place / "bandai_namco.zip", tmp_path / "cache")[0].prompts == packed[0].prompts


def test_a_folder_without_clips_is_refused(tmp_path):
    for read in (bandai_namco_clips, cmu_clips):
        with pytest.raises(ClipsError, match="data/README.md says"):
            read(tmp_path / "empty", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_splits_hold_out_pairs_and_takes_and_keep_mirror_images_together(folder, tmp_path):
    found = {clip.motion.provenance["name"]: clip for clip in bandai_namco_clips(folder, tmp_path / "cache")}
    parts = {name: split(clip) for name, clip in found.items()}
    assert parts["dataset-2_walk_normal_003"] == "train" and parts["dataset-2_walk_normal_007"] == "test"
    assert parts["dataset-2_run_elderly_001"] == "unseen"
    for clip in found.values():
        assert split(mirrored_clip(clip)) == split(clip)
    for content, style in UNSEEN:
        other = content.replace("left", "\0").replace("right", "left").replace("\0", "right")
        assert (other, style) in UNSEEN
    side = replace(found["dataset-1_bow_angry_001"], content="walk-left")
    assert split(side) == split(replace(side, content="walk-right")), "a pair of data set 1 and its mirror image"


# ---- the real archives


def real(archive: str):
    if not (DATA / archive).is_file():
        pytest.skip(f"KINELIB_DATA holds no {archive}")
    return DATA


def test_cmu(tmp_path):
    found = cmu_clips(real("cmu.zip"), tmp_path)
    assert len(found) == 18 and {split(clip) for clip in found} == {"test"}
    assert Counter(clip.content for clip in found)["walk"] >= 5
    walk = next(clip for clip in found if clip.take == "007_03").motion
    # Measured elsewhere on the source: 3.45 s, 4.05 m, travel along the facing direction; this body's legs are shorter.
    way = walk.root[-1] - walk.root[0]
    facing = heading(walk.positions(), SMPLX22).mean()
    assert 3.3 < walk.seconds < 3.6 and 3 < float(way.norm()) < 4.3
    assert float(way[0] * facing.sin() + way[2] * facing.cos()) > 0.98 * float(way.norm())
    for clip in found:
        assert float(clip.motion.positions()[..., 1].amin()) > (-0.15 if clip.take.startswith("003") else -0.02), clip.take


@pytest.mark.slow
def test_bandai_namco():
    found = bandai_namco_clips(real("bandai_namco.zip"))
    assert len(found) == 1154 - 5
    parts = Counter(map(split, found))
    assert parts["unseen"] == 84 and 140 < parts["test"] < 190 and parts["train"] > 880
    labels = {part: {(clip.content, clip.style) for clip in found if split(clip) == part} for part in parts}
    assert not labels["unseen"] & (labels["train"] | labels["test"])
    for clip in found:
        joints = clip.motion.positions()
        angle = heading(joints, SMPLX22)
        turn = math.degrees(float((torch.remainder(angle.diff() + math.pi, 2 * math.pi) - math.pi).sum()))
        wrists = joints[:, [SMPLX22.index("left_wrist"), SMPLX22.index("right_wrist")], 1].amax(0)
        if clip.content.startswith("walk-turn"):
            assert 60 < (turn if clip.content.endswith("left") else -turn) < 130, clip.motion.provenance
        if clip.content in ("raise-up-left-hand", "wave-left-hand"):
            assert wrists[0] > wrists[1] + 0.2, clip.motion.provenance
        if clip.content in ("raise-up-right-hand", "wave-right-hand"):
            assert wrists[1] > wrists[0] + 0.2, clip.motion.provenance
        assert float(joints[..., 1].min()) > -0.06, clip.motion.provenance
