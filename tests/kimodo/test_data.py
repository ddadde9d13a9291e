"""Training data: what is encoded, how batches are drawn, placed, mirrored and captioned, and the cache."""

from dataclasses import replace

import pytest
import torch

from kinelib.bodies.features import FeatureLayout, encode, frame_mask, mirror_map, turned
from kinelib.bodies.motion import Motion
from kinelib.bodies.procedural import mirrored_clip, procedural_clips
from kinelib.bodies.procedural_words import mirrored_words
from kinelib.bodies.skeletons import SMPLX22, SOMA30
from kinelib.kimodo import data
from kinelib.kimodo.data import Batches, motion_set
from kinelib.learning.text import TextTable

LAYOUT = FeatureLayout(SMPLX22)


@pytest.fixture(scope="module")
def clips():
    return procedural_clips(12, seed=5, seconds=(2.0, 4.0))


@pytest.fixture(scope="module")
def motions(clips):
    return motion_set(clips)


def batches(motions, **options):
    """With vectors that tell their sentence: its number in the first channel."""
    sentences = motions.sentences()
    vectors = torch.zeros(len(sentences), 8)
    vectors[:, 0] = torch.arange(1, len(sentences) + 1)
    return Batches(motions, sentences, vectors, **{"size": 16, "silent": 0.0, **options}), sentences


def said(batch, sentences):
    return [("", *sentences)[int(number)] for number in batch["text"][:, 0, 0]]


# ---- sets


def test_clips_are_encoded_as_they_are_one_by_one(clips, motions):
    assert len(motions) == 12 and motions.frames.shape[1] == 273
    for row in (0, 7, 11):
        features, lengths = motions.padded(torch.tensor([row]), 1000)
        assert int(lengths) == len(clips[row].motion)
        assert torch.allclose(features[0], encode(clips[row].motion), atol=2e-4)
    assert motions.labels[3] == f"{clips[3].content}/{clips[3].style}" and set(motions.sources) == {"procedural"}


def test_without_smoothing_the_root_is_the_pelvis(clips):
    raw = motion_set(clips[:2], smooth=False)
    assert (raw.frames[:, LAYOUT.joint("positions", 0)][:, [0, 2]]).abs().max() < 1e-5
    assert torch.allclose(raw.frames[: len(clips[0].motion), :3], clips[0].motion.root, atol=1e-5)


def test_sets_are_joined_picked_and_padded(motions):
    both = motions.join(replace(motions, sources=("other",) * 12))
    assert len(both) == 24 and both.sources[11:13] == ("procedural", "other")
    few = both.pick([20, 3])
    assert few.prompts == (motions.prompts[8], motions.prompts[3])
    features, lengths = few.padded(torch.tensor([1, 0]), 30, torch.tensor([5, 0]))
    start = int(motions.starts[3])
    assert lengths.tolist() == [30, 30] and torch.equal(features[0], motions.frames[start + 5 : start + 35])
    features, lengths = motions.padded(torch.arange(12), 1000)
    beyond = ~frame_mask(lengths, features.shape[1])
    last = features[torch.arange(12), lengths - 1][:, None].expand_as(features)
    assert torch.equal(features[beyond], last[beyond])
    with pytest.raises(ValueError, match="do not fit"):
        replace(motions, labels=("walk",))


def test_sentences_come_with_their_mirror_images(motions):
    sentences = motions.sentences()
    assert {mirrored_words(sentence) for sentence in sentences} == set(sentences)
    assert {sentence for words in motions.prompts for sentence in words} <= set(sentences)


def test_what_cannot_be_trained_on_is_refused(clips):
    with pytest.raises(ValueError, match="no clips"):
        motion_set([])
    fast = replace(clips[0], motion=replace(clips[0].motion, fps=30.0))
    with pytest.raises(ValueError, match="smplx22 at 30 frames a second; retarget and resample"):
        motion_set([fast])
    other = Motion(torch.eye(3).expand(60, 30, 3, 3), torch.zeros(60, 3), 20.0, SOMA30)
    with pytest.raises(ValueError, match="soma30"):
        motion_set([replace(clips[0], motion=other)])


# ---- batches


def test_batches_hold_placed_clips_of_like_length(motions):
    drawing, _ = batches(motions, frames=50)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        batch = drawing.draw(generator)
        features, lengths = batch["features"], batch["lengths"]
        assert features.shape[0] == 16 and features.shape[1] == lengths.max() <= 50
        assert features[:, 0, [0, 2]].abs().max() < 1e-5
        heading = torch.atan2(features[:, 0, 4], features[:, 0, 3])
        assert torch.allclose(torch.cos(heading - batch["heading"]), torch.ones(16), atol=1e-5)
        assert batch["text"].shape == (16, 1, 8)
    assert batch["heading"].std() > 1  # any direction


def test_a_drawn_clip_is_one_of_the_set_turned_moved_and_maybe_mirrored(clips, motions):
    own = encode(clips[4].motion)
    mirrored = encode(clips[4].motion.mirrored())
    drawing, sentences = batches(motions.pick([4]), frames=1000, mirrored=0.5)
    batch = drawing.draw(torch.Generator().manual_seed(1))
    seen = set()
    for features, heading, sentence in zip(batch["features"], batch["heading"], said(batch, sentences), strict=True):
        found = []
        for flipped, source in ((False, own), (True, mirrored)):
            placed = source.clone()
            placed[:, [0, 2]] -= source[0, [0, 2]]
            placed = turned(placed[None], heading - torch.atan2(source[0, 4], source[0, 3]), LAYOUT)[0]
            if torch.allclose(placed, features, atol=2e-3):
                found.append(flipped)
        assert len(found) == 1
        words = clips[4].prompts if not found[0] else tuple(map(mirrored_words, clips[4].prompts))
        assert sentence in words
        seen.add((found[0], sentence))
    assert {flipped for flipped, _ in seen} == {True, False} and len(seen) >= 4


def test_mirroring_features_is_mirroring_motion():
    partner, sign = mirror_map(LAYOUT)
    clip = procedural_clips(1, seed=3, contents=["walk-turn-left+wave-left-hand"])[0]
    features = encode(clip.motion)
    reflected = features[:, partner] * sign
    assert torch.allclose(reflected, encode(mirrored_clip(clip).motion), atol=2e-3)
    assert torch.equal(reflected[:, partner] * sign, features)


def test_long_clips_are_cut_anywhere_and_short_ones_kept_whole(motions):
    walk = motion_set(procedural_clips(1, seed=1, contents=["walk-turn-left"], seconds=(4.0, 4.0)))
    drawing, _ = batches(walk, frames=20, mirrored=0.0, size=100)
    batch = drawing.draw(torch.Generator().manual_seed(2))
    last = int(walk.lengths) - 20
    # Heights of joints are the same wherever a clip is placed.
    heights = slice(6, 5 + 3 * 22, 3)
    windows = torch.stack([walk.frames[s : s + 20, heights].flatten() for s in range(last + 1)])
    starts = torch.cdist(batch["features"][..., heights].flatten(1), windows).argmin(1).tolist()
    assert len(set(starts)) > 10 and min(starts) < 5 and max(starts) > last - 5


def test_a_tenth_is_without_text_and_other_clips_have_all_their_wordings(motions):
    drawing, sentences = batches(motions, silent=0.1, size=64)
    generator = torch.Generator().manual_seed(3)
    words = [word for _ in range(40) for word in said(drawing.draw(generator), sentences)]
    assert 0.075 < words.count("") / len(words) < 0.125
    assert set(words) - {""} == set(sentences)


def test_shares_of_sources_hold_over_many_batches(motions):
    both = motions.join(replace(motions.pick([0, 1]), sources=("captured",) * 2, prompts=(("It moves.",),) * 2))
    drawing, sentences = batches(both, shares={"captured": 0.5}, size=8)
    generator = torch.Generator().manual_seed(4)
    words = [word for _ in range(160) for word in said(drawing.draw(generator), sentences)]
    assert 0.4 < words.count("It moves.") / len(words) < 0.6


def test_the_generator_decides_everything(motions):
    drawing, _ = batches(motions)
    a, b, c = (drawing.draw(torch.Generator().manual_seed(seed)) for seed in (6, 6, 7))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert a["features"].shape != c["features"].shape or not torch.equal(a["features"], c["features"])


def test_bad_batches_are_refused(motions):
    with pytest.raises(ValueError, match="embed all of motions.sentences"):
        Batches(motions, motions.sentences()[1:], torch.zeros(1, 8), size=2)
    with pytest.raises(ValueError, match="silent and mirrored in"):
        batches(motions, silent=2)


# ---- statistics, words, cache


def test_statistics_are_those_of_what_is_drawn(motions):
    features, local = data.statistics(motions)
    drawing, _ = batches(motions, size=64, mirrored=0.0)
    generator = torch.Generator().manual_seed(8)
    frames = []
    for _ in range(32):
        batch = drawing.draw(generator)
        frames.append(features.normalize(batch["features"])[frame_mask(batch["lengths"], batch["features"].shape[1])])
    frames = torch.cat(frames)
    # Batches weigh clips alike, statistics frames; the two nearly agree.
    spread = frames.std(0)[features.std > 1e-2]  # some channels of few clips never change
    assert frames.mean(0).abs().max() < 0.4 and len(spread) > 200 and spread.min() > 0.6 and spread.max() < 1.5
    assert features.mean[0] == features.mean[2] == 0 and features.std[0] == features.std[2]
    assert local.mean.shape == (4,) and local.std[1] == local.std[2]


def test_sentence_vectors_are_means_of_word_pieces_of_length_one():
    tokens = torch.zeros(3, 384)
    tokens[0, 0], tokens[1, 1], tokens[2, 2] = 1.0, 1.0, 5.0
    table = TextTable(["a b", "c", ""], tokens.half(), torch.tensor([2, 1, 0]))
    vectors = data.sentence_vectors(table, ["c", "a b", ""])
    assert vectors.norm(dim=1).tolist() == pytest.approx([1.0, 1.0, 0.0])
    assert vectors[0, 2] == 1.0 and torch.allclose(vectors[1, :2], torch.full((2,), 0.5**0.5))


def test_sets_are_made_once_and_made_anew_with_other_code(tmp_path, monkeypatch):
    made = data.procedural_set(3, 9, cache=tmp_path)
    monkeypatch.setattr(data, "procedural_clips", lambda *a: pytest.fail("made again"))
    again = data.procedural_set(3, 9, cache=tmp_path)
    assert torch.equal(made.frames, again.frames) and torch.equal(made.lengths, again.lengths)
    assert (made.prompts, made.labels, made.sources) == (again.prompts, again.labels, again.sources)
    monkeypatch.undo()
    next(tmp_path.iterdir()).write_bytes(b"no")
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(data.procedural_set(3, 9, cache=tmp_path).frames, made.frames)
    monkeypatch.setattr(data, "code_version", lambda *made_by: "other")
    data.procedural_set(3, 9, cache=tmp_path)
    data.procedural_set(3, 9, smooth=False, cache=tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 3 and {f"motions-procedural-3-9-{kind}-other.safetensors" for kind in ("smooth", "pelvis")} < names


def test_comments_do_not_change_the_codes_version(tmp_path, monkeypatch):
    import kinelib.bodies

    monkeypatch.setattr(kinelib.bodies, "__file__", str(tmp_path / "__init__.py"))
    versions = []
    for source in ('"""Doc."""\nx = 1\n', "# other\nx  =  1\n", "x = 2\n"):
        (tmp_path / "features.py").write_text(source)
        versions.append(data.code_version())
    assert versions[0] == versions[1] != versions[2]
