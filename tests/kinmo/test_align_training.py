"""Training the aligner at a size of seconds: what the data hold, ablations, mixing of texts, checkpoints and cards."""

import pytest
import torch
from toy_tokens import Letters, said_motions

from kinelib.kinmo import align_training
from kinelib.kinmo.align_training import (
    ABLATIONS,
    REASONER,
    aligner_draw,
    alignment_data,
    build,
    load_aligner,
    train_aligner,
)
from kinelib.kinmo.aligner import AlignerConfig
from kinelib.kinmo.reasoner import Reasoner

TINY = AlignerConfig(width=16, layers=1, heads=2, feed_forward=32)


@pytest.fixture(scope="module")
def data():
    motions, _ = said_motions(6)
    return alignment_data(motions.pick([0, 1, 2, 3]), motions.pick([4, 5]), encoder=Letters())


def test_predictions_are_of_other_clips(data):
    assert data.predicted.shape == (4, max(map(len, data.train.prompts)), 21)
    assert int(data.predicted.max()) < len(data.bank)
    held = {sentence for texts in (*data.held_out.groups, *data.held_out.interactions) for sentence in texts}
    assert not held & {data.bank.sentences[int(row)] for row in data.predicted.unique()}
    own = {*data.train.groups[0], *data.train.interactions[0]}
    assert {data.bank.sentences[int(row)] for row in data.predicted[0, 0]} != own


def test_statistics_are_those_of_the_training_set(data):
    model = build(data, TINY)
    rows = data.bank.rows(sorted({one for groups in data.train.groups for one in groups}))
    both = torch.cat([rows, data.bank.reflected[rows]]).unique()
    assert torch.allclose(model.whitening["group"].mean, data.bank.vectors[both].mean(0), atol=1e-5)
    assert torch.allclose(model.statistics.mean, data.train.frames.mean(0), atol=1e-4)


def test_the_share_of_predicted_texts(data):
    draw = aligner_draw(data, 32, predicted_share=1.0, captured_share=0.5)
    batch = draw(torch.Generator().manual_seed(0))
    allowed = data.predicted.unique()
    vectors = data.bank.vectors[torch.cat([allowed, data.bank.reflected[allowed], torch.tensor([data.bank.nothing])])]
    assert torch.cdist(batch["groups"].flatten(0, 1), vectors).amin(1).max() < 1e-3


@pytest.mark.parametrize("stage", [*ABLATIONS])
def test_every_stage_trains_and_saves(data, tmp_path, stage):
    model, result = train_aligner(data, tmp_path, stage=stage, config=TINY, steps=2, batch=4)
    assert result.steps == 2 and {"loss", "contrastive", "reconstruction"} <= set(result.losses[-1])
    found = load_aligner(tmp_path / stage)
    assert found.config == model.config and found.names == model.names
    card = (tmp_path / stage / "card.md").read_text()
    assert "R@1 of 2, text to motion, predicted" in card and "chance" in card
    assert (tmp_path / REASONER).exists() == (stage == "aligner")
    if stage == "aligner":
        asked = [data.train.prompts[0][0]]
        assert Reasoner.load(tmp_path / REASONER).reason(asked) == data.reasoner.reason(asked)


def test_older_checkpoints_are_kept_and_stages_are_known(data, tmp_path):
    (tmp_path / "aligner").mkdir()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        train_aligner(data, tmp_path, config=TINY, steps=1)
    with pytest.raises(ValueError, match="no stage 'best'"):
        train_aligner(data, tmp_path, stage="best", config=TINY, steps=1)


def test_an_interrupted_training_goes_on_to_the_same_weights(data, tmp_path, monkeypatch):
    whole, _ = train_aligner(data, tmp_path / "whole", stage="aligner-global", config=TINY, steps=4, batch=4)
    fit = align_training.fit

    def until_the_second_step(model, draw, *rest, **options):
        import os
        import signal

        drawn = []

        def stopping(generator):
            drawn.append(1)
            if len(drawn) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return draw(generator)

        return fit(model, stopping, *rest, **options)

    monkeypatch.setattr(align_training, "fit", until_the_second_step)
    _, result = train_aligner(data, tmp_path / "cut", stage="aligner-global", config=TINY, steps=4, batch=4)
    assert result.stopped_early and not (tmp_path / "cut" / "aligner-global").exists()
    monkeypatch.setattr(align_training, "fit", fit)
    again, _ = train_aligner(data, tmp_path / "cut", stage="aligner-global", config=TINY, steps=4, batch=4, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
