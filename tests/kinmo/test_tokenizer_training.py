"""Training the tokenizer for seconds: batches, the checkpoint and its card, resuming, and what is measured."""

from types import SimpleNamespace

import pytest
import torch

from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo import codec
from kinelib.kinmo.tokenizer_training import SIZES, load_tokenizer, measure, tokenizer_draw, train_tokenizer
from kinelib.kinmo.tokens import MotionTokenizer, TokenizerConfig
from kinelib.learning.profiles import Profile
from kinelib.notation import ShapeError

SMALL = TokenizerConfig(width=12, blocks=1, layers=2, codes=8, code_width=6)


def clips(count, seed):
    features = codec.encode_clips([clip.motion for clip in procedural_clips(count, seed=seed)])
    return SimpleNamespace(frames=torch.cat(features), lengths=torch.tensor([len(one) for one in features]))


@pytest.fixture(scope="module")
def data():
    return clips(12, 1)


@pytest.fixture(scope="module")
def held_out():
    return clips(5, 2)


def test_batches_are_windows_of_clips_and_their_mirror_images(data):
    batch = tokenizer_draw(data, 32, window=24)(torch.Generator().manual_seed(0))
    assert batch["features"].shape == (32, 24, 263) and batch["lengths"].tolist() == [24] * 32
    rows = {tuple(row[:20].tolist()) for row in torch.cat([data.frames, codec.mirrored(data.frames)])}
    assert all(tuple(row[:20].tolist()) in rows for row in batch["features"].flatten(0, 1))
    plain = {tuple(row[:20].tolist()) for row in data.frames}
    mirrored = [tuple(one[0, :20].tolist()) not in plain for one in batch["features"]]
    assert 5 < sum(mirrored) < 27
    whole = tokenizer_draw(data, 8, window=500)(torch.Generator().manual_seed(0))
    assert set(whole["lengths"].tolist()) <= set(data.lengths.tolist())


def test_training_saves_a_checkpoint_with_a_card(data, held_out, tmp_path):
    model, result = train_tokenizer(data, held_out, tmp_path, config=SMALL, steps=6, batch=4, source="procedural clips")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    found = measure(loaded, held_out)
    assert result.steps == 6 and found.clips == 5 and 0 < found.local_cm < 200 and found.original_skate_cm < 20
    card = (tmp_path / "tokenizer" / "card.md").read_text()
    assert "12 clips (procedural clips)" in card and "codes in use (perplexity), right_leg" in card
    assert torch.equal(loaded.statistics.mean, model.statistics.mean)
    stored = model.quantizer.codebooks.half().float()  # matrices are kept as float16
    assert torch.equal(loaded.quantizer.codebooks, stored)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        train_tokenizer(data, held_out, tmp_path, config=SMALL, steps=6, batch=4)


def test_a_resumed_training_is_the_uninterrupted_one(data, held_out, tmp_path, monkeypatch):
    from kinelib.kinmo import tokenizer_training

    options = {"config": SMALL, "steps": 8, "batch": 4}
    whole, _ = train_tokenizer(data, held_out, tmp_path / "whole", **options)
    drawn = tokenizer_draw(data, 4)
    calls = iter(range(100))

    def stopping(*_):
        def draw(generator):
            if next(calls) == 4:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGINT)
            return drawn(generator)

        return draw

    monkeypatch.setattr(tokenizer_training, "tokenizer_draw", stopping)
    _, stopped = train_tokenizer(data, held_out, tmp_path / "parts", **options)
    assert stopped.stopped_early and not (tmp_path / "parts" / "tokenizer").exists()
    monkeypatch.undo()
    parts, result = train_tokenizer(data, held_out, tmp_path / "parts", resume=True, **options)
    assert result.steps == 8
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def test_a_tokenizer_that_returns_its_input_measures_zero(data, held_out, monkeypatch):
    model = MotionTokenizer(SMALL).eval()
    padded = torch.nn.utils.rnn.pad_sequence(held_out.frames.split(held_out.lengths.tolist()), batch_first=True)
    monkeypatch.setattr(model, "decode", lambda codes, lengths: padded)
    found = measure(model, held_out)
    assert found.local_cm == found.global_cm == 0 and found.skate_cm == found.original_skate_cm < 20
    shifted = padded.clone()
    shifted[:, 0, 1] += 0.1  # the first step is wrong by ten centimetres, and all that follows with it
    monkeypatch.setattr(model, "decode", lambda codes, lengths: shifted)
    found = measure(model, held_out)
    assert found.local_cm < 1e-3 and 9 < found.global_cm < 10


def test_profiles_are_constructible():
    assert SIZES[Profile.PAPER].config.streams == "body" and SIZES[Profile.LAB].config.streams == "groups"
    counts = [sum(p.numel() for p in MotionTokenizer(size.config).parameters()) for size in SIZES.values()]
    assert counts == sorted(counts) and counts[-1] > 10_000_000


def test_frames_that_are_not_those_of_the_lengths_are_refused(data, tmp_path):
    wrong = SimpleNamespace(frames=data.frames[:-1], lengths=data.lengths)
    with pytest.raises(ShapeError, match="not those of 12 clips"):
        train_tokenizer(wrong, data, tmp_path, config=SMALL, steps=1)
