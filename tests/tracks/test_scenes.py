"""Procedural scenes: exact motion, exact visibility, pictures that agree with both, chance that can be relied upon."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from kinelib.notation import from_pixels
from kinelib.tracks.scene_looks import COLOURS
from kinelib.tracks.scenes import CHUNK, FAMILIES, concatenate, sample_scenes

SMALL = {"size": 16, "num_frames": 12, "num_points": 40}


def draw(family: str, count: int = 48, seed: int = 2, **options):
    return sample_scenes(count, seed, families=(family,), **{**SMALL, **options})


def same(one, other) -> bool:
    facts = all(torch.equal(one.facts[k].nan_to_num(9), other.facts[k].nan_to_num(9)) for k in one.facts)
    words = one.label == other.label and one.captions == other.captions
    return (
        facts
        and words
        and np.array_equal(one.first_frame, other.first_frame)
        and torch.equal(one.tracks.xy, other.tracks.xy)
        and torch.equal(one.tracks.visible, other.tracks.visible)
    )


# --- what every family promises


@pytest.fixture(scope="module")
def mixed():
    return sample_scenes(132, 7, num_frames=16, num_points=60, size=32)


def test_shapes_and_kinds(mixed):
    assert mixed.first_frame.shape == (132, 32, 32, 3) and mixed.first_frame.dtype == np.uint8
    assert mixed.tracks.xy.shape == (132, 60, 16, 2) and mixed.tracks.xy.dtype == torch.float32
    assert mixed.on_object.shape == mixed.object_index.shape == (132, 60)
    assert mixed.frames is None and len(mixed) == len(mixed.captions) == len(mixed.label) == 132
    assert all(len(value) == 132 for value in mixed.facts.values())


def test_scenes_are_spread_over_all_families(mixed):
    counts = Counter(mixed.family)
    assert set(counts) == set(FAMILIES) and min(counts.values()) >= 8
    assert all(label.startswith(f"{family}/") for family, label in zip(mixed.family, mixed.label, strict=True))


def test_points_start_visible_apart_and_mostly_on_objects(mixed):
    start = mixed.tracks.query_points
    assert mixed.tracks.visible[:, :, 0].all()
    nearest = torch.cdist(start, start) + torch.eye(60)
    assert nearest.min() > 0
    assert ((mixed.on_object.float().mean(1) > 0.58) & (mixed.on_object.float().mean(1) < 0.75)).all()
    # Random order: the first third of the points is as mixed as the whole.
    assert 0.6 < mixed.on_object[:, :20].float().mean() < 0.74
    assert (mixed.object_index[mixed.on_object] >= 0).all()


def test_something_moves_and_mostly_stays_in_the_frame(mixed):
    moving = mixed.tracks.moving()
    moves = mixed.tracks.displacement().norm(dim=-1).amax(-1)
    assert moving.any(1).all()
    assert 0.2 < moves[moving].median() < 0.9
    assert (mixed.tracks.xy.abs() <= 1).all(-1).float().mean() > 0.95


def test_background_moves_with_the_camera_only(mixed):
    for index, family in enumerate(mixed.family):
        ground = ~mixed.on_object[index]
        moved = mixed.tracks.displacement()[index, ground].abs().max()
        if mixed.facts["camera"][index]:
            assert moved > 1e-3 or family != "camera"
        else:
            assert moved == 0
    drifting = np.mean([bool(c) for c, f in zip(mixed.facts["camera"], mixed.family, strict=True) if f != "camera"])
    assert 0.05 < drifting < 0.3


def test_view_maps_the_world_to_the_screen(mixed):
    view, start = mixed.facts["view"], mixed.tracks.query_points
    ground = ~mixed.on_object
    seen = torch.einsum("btij,bnj->bnti", view[..., :2], start) + view[:, None, :, :, 2]
    assert torch.allclose(seen[ground], mixed.tracks.xy[ground], atol=1e-5)
    assert torch.allclose(view[:, 0], torch.eye(2, 3).expand(132, 2, 3))


def test_captions_are_sentences_with_a_true_colour(mixed):
    for caption in mixed.captions:
        assert len(caption.split()) >= 4 and "{" not in caption and " a orange" not in caption
        assert set(caption.replace(",", "").replace(";", "").split()) & set(COLOURS)
    assert len(set(mixed.captions)) > 100


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "deform"])
def test_rigid_parts_keep_their_distances(family):
    scenes = draw(family, 24)
    xy = scenes.tracks.xy
    view = scenes.facts["view"]
    zoom = torch.linalg.det(view[..., :2]).sqrt()  # (B, T)
    pairs = 0
    for index in range(len(scenes)):
        for part in scenes.object_index[index].unique():
            points = xy[index, scenes.object_index[index] == part] / zoom[index, :, None]
            apart = torch.cdist(points.transpose(0, 1), points.transpose(0, 1), compute_mode="donot_use_mm_for_euclid_dist")
            assert (apart - apart[:1]).abs().max() < 1e-5
            pairs += len(points) - 1
    assert pairs > 24


# --- pictures


def colours_at(frames: np.ndarray, xy: torch.Tensor) -> torch.Tensor:
    """Bilinear colours (N, T, 3) of one clip (T, H, W, 3) at (N, T, 2)."""
    pictures = torch.from_numpy(frames).float().permute(0, 3, 1, 2)
    read = torch.nn.functional.grid_sample(pictures, xy.transpose(0, 1)[:, None], align_corners=False, padding_mode="border")
    return read[:, :, 0].permute(2, 0, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_point_keeps_its_colour_while_it_is_seen(family):
    scenes = draw(family, 5, size=80, num_frames=5, num_points=80, all_frames=True)
    change, hidden = [], []
    for index in range(len(scenes)):
        colour = colours_at(scenes.frames[index], scenes.tracks.xy[index])
        off = (colour - colour[:, :1]).abs().amax(-1)
        seen = scenes.tracks.visible[index]
        inside = (scenes.tracks.xy[index].abs() <= 1).all(-1)
        change.append(off[seen]), hidden.append(off[inside & ~seen])
    change, hidden = torch.cat(change), torch.cat(hidden)
    assert change.numel() > 1000
    assert (change < 30).float().mean() > 0.93
    if hidden.numel() > 40:
        assert hidden.median() > 3 * change.median()


def test_all_frames_begin_with_the_first_frame():
    options = {"size": 24, "num_frames": 5, "num_points": 6}
    full, single = sample_scenes(12, 3, all_frames=True, **options), sample_scenes(12, 3, **options)
    assert full.frames.shape == (12, 5, 24, 24, 3)
    assert np.array_equal(full.frames[:, 0], single.first_frame) and np.array_equal(full.first_frame, single.first_frame)
    assert (full.frames[:, 2] != full.frames[:, 0]).any((1, 2, 3)).all()


def test_geometry_does_not_depend_on_picture_size_or_frame_count():
    coarse, fine = (sample_scenes(22, 5, size=s, num_frames=t, num_points=9) for s, t in ((16, 9), (40, 17)))
    assert coarse.label == fine.label
    assert torch.allclose(coarse.tracks.xy, fine.tracks.xy[:, :, ::2], atol=1e-5)
    shrunk = fine.first_frame.reshape(22, 8, 5, 8, 5, 3).mean((2, 4))
    small = coarse.first_frame.reshape(22, 8, 2, 8, 2, 3).mean((2, 4))
    assert np.abs(shrunk - small).mean() < 4


def test_pixel_centres_are_where_the_notation_says():
    scenes = draw("bounce", 24, size=64, num_frames=2, num_points=4)
    for index in range(len(scenes)):
        centre = scenes.facts["centre"][index, 0]
        column, row = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
        pixels = from_pixels(torch.tensor(np.stack([column, row], -1)), 64, 64)
        ball = ((pixels - centre).norm(dim=-1) < scenes.facts["radius"][index] - 0.05).numpy()
        name = next(word for word in scenes.captions[index].split() if word in COLOURS)
        mean = scenes.first_frame[index][ball].mean(0)
        off = {colour: np.abs(mean - value).max() for colour, value in COLOURS.items()}
        assert min(off, key=off.get) == name and off[name] < 40


# --- chance


def test_a_seed_means_the_same_scenes_whatever_the_count():
    long = sample_scenes(CHUNK + 20, 9, **SMALL)
    assert same(long, sample_scenes(CHUNK + 20, 9, **SMALL))
    assert same(long[:13], sample_scenes(13, 9, **SMALL))
    assert same(long[: CHUNK + 3], sample_scenes(CHUNK + 3, 9, **SMALL))
    assert not same(long[:13], sample_scenes(13, 10, **SMALL))
    assert not np.array_equal(long.first_frame[:20], long.first_frame[CHUNK:])


def test_one_first_frame_has_many_futures():
    draws = [sample_scenes(44, 1, future_seed=f, **SMALL) for f in range(12)]
    for other in draws[1:]:
        assert np.array_equal(other.first_frame, draws[0].first_frame)
        assert torch.equal(other.tracks.query_points, draws[0].tracks.query_points)
        assert other.family == draws[0].family
    modes = [len({d.label[i] for d in draws}) for i in range(44)]
    assert np.mean([m >= 2 for m in modes]) > 0.8 and np.mean(modes) > 2
    ends = torch.stack([d.tracks.xy[:, :, -1] for d in draws])
    spread = ends.std(0).norm(dim=-1)
    for index in range(44):
        # What lies still in all futures is static; what is on an object is not the same twice.
        assert spread[index, draws[0].on_object[index]].max() > 0.02
    assert same(sample_scenes(44, 1, future_seed=1, **SMALL), sample_scenes(44, 1, **SMALL))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_mode_takes_all(family):
    counts = Counter(draw(family, 96, num_frames=3, num_points=3, size=8).label)
    assert len(counts) >= 2 and max(counts.values()) < 0.75 * 96


# --- containers and bad input


def test_indexing_and_joining():
    scenes = sample_scenes(11, 4, **SMALL)
    assert scenes[3].label == [scenes.label[3]] and scenes[-1].captions == [scenes.captions[-1]]
    picked = scenes[[5, 2]]
    assert picked.family == [scenes.family[5], scenes.family[2]]
    assert torch.equal(picked.tracks.xy[1], scenes.tracks.xy[2])
    assert len(scenes[torch.tensor([True, False] * 5 + [True])]) == 6
    assert same(concatenate([scenes[:4], scenes[4:]]), scenes)
    with pytest.raises(IndexError):
        scenes[11]
    with pytest.raises(ValueError, match="differ"):
        concatenate([scenes, sample_scenes(2, 4, size=8, num_frames=12, num_points=40)])
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])


def test_smallest_scenes():
    scenes = sample_scenes(11, 0, size=8, num_frames=1, num_points=1)
    assert scenes.tracks.xy.shape == (11, 1, 1, 2) and scenes.tracks.visible.all()
    assert scenes.first_frame.shape == (11, 8, 8, 3)


def test_many_points_fit():
    scenes = sample_scenes(11, 0, size=8, num_frames=2, num_points=1024)
    assert scenes.tracks.xy.shape == (11, 1024, 2, 2) and scenes.tracks.visible[:, :, 0].all()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"families": ("vehicle", "boat")}, "boat.*vehicle.*billiards"),
        ({"families": ()}, "choose some of"),
        ({"count": 0}, "count must be at least 1"),
        ({"count": -3}, "got -3"),
        ({"num_points": 0}, "num_points"),
        ({"num_frames": 0}, "num_frames"),
        ({"size": 4}, "size must be at least 8"),
        ({"seed": -1}, "seeds must be"),
        ({"future_seed": -1}, "future_seed=-1"),
    ],
)
def test_bad_requests_are_refused_in_words(wrong, says):
    with pytest.raises(ValueError, match=says):
        sample_scenes(**{"count": 2, "seed": 0, **wrong})
