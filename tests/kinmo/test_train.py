"""The stages of KinMo put together at a size of seconds, and what is trained loaded again to make motion."""

from dataclasses import replace

import pytest
import torch
from toy_tokens import TINY, Letters, said_motions

from kinelib.kinmo import train
from kinelib.kinmo.align_training import alignment_data
from kinelib.kinmo.aligner import AlignerConfig
from kinelib.kinmo.coarse_to_fine import generate
from kinelib.kinmo.generator_training import LossConfig
from kinelib.kinmo.masked import GeneratorConfig
from kinelib.kinmo.pretrained import load_aligner, load_control, load_generator, load_kinmo, load_reasoner, load_tokenizer
from kinelib.kinmo.sampling import Sampler
from kinelib.kinmo.tokens import TokenizerConfig
from kinelib.kinmo.train import SHIPPED_STAGES, SIZES, STAGES, Size, reasoned_rows, train_stage
from kinelib.learning.profiles import Profile
from kinelib.learning.schedule import CONTINUED

SMALL = Size(
    10,
    AlignerConfig(width=16, layers=1, heads=2, feed_forward=16),
    replace(TINY, width=16),
    {},
    aligner_batch=4,
    generator_batch=4,
    readings=2,
)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Tiny networks, no sentence encoder, no captured motion unless a test brings some."""
    monkeypatch.delenv("KINELIB_DATA", raising=False)
    return {"profile_name": "smoke", "steps": 2, "size": SMALL, "encoder": Letters(), "out": tmp_path / "runs" / "try"}


@pytest.mark.slow
def test_all_stages_train_and_make_motion_from_words(small):
    tokenizer = TokenizerConfig(width=8, blocks=1, codes=8, code_width=4)
    for stage in (*SHIPPED_STAGES, "aligner-global"):
        changes = {"config": tokenizer, "batch": 4} if stage == "tokenizer" else {}
        result = train_stage(stage, **small, **changes)
        assert result.steps == 2
        card = (small["out"] / stage / "card.md").read_text()
        assert ("procedural clips" in card or stage == "control") and "MIT." in card and f"--stage {stage}" in card
    model = load_kinmo(folder=small["out"], encoder=Letters())
    flat = load_kinmo("flat", small["out"], Letters())
    for one in (model, flat):
        motion = generate(one, ["A person walks."], 1.0, sampler=Sampler(steps=2))[0]
        assert len(motion) == 20 and motion.provenance["prompt"] == "A person walks."
    assert model.generator.config.levels == 3 and flat.generator.config.levels == 1 and flat.aligner is None
    assert load_aligner("aligner-global", small["out"]).names == ("global",)
    assert load_control(small["out"]).config.generator == model.generator.config
    assert list((small["out"].parent / "data").glob("kinmo-tokens-*")), "codes are kept in the folder of runs"
    more = small | {"out": small["out"].parent / "more", "start": small["out"]}
    for stage in ("tokenizer", "aligner"):
        (more["out"]).mkdir(exist_ok=True)
        (more["out"] / stage).symlink_to(small["out"] / stage)
    peak = max(entry["learning_rate"] for entry in train_stage("generator", **more).losses)
    assert 0 < peak <= CONTINUED * SMALL.generator_rate, "earlier weights are not undone by a full peak"
    train_stage("generator", **more, learning_rate=1e-9, overwrite=True)
    pairs = zip(load_generator(folder=more["out"]).parameters(), model.generator.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in pairs)


def test_profiles_have_every_stage_and_sizes_that_can_be_built():
    assert set(SHIPPED_STAGES) < set(STAGES)
    for name in Profile:
        assert set(SHIPPED_STAGES) <= set(SIZES[name].seconds)
    paper = SIZES[Profile.PAPER]
    assert not paper.generator.cumulative and not paper.generator.states and paper.loss.masks.groups == 0
    assert SIZES[Profile.LAB].loss == LossConfig() and SIZES[Profile.LAB].generator == GeneratorConfig()


def test_the_reasoners_rows_are_its_sentences():
    motions, _ = said_motions()
    data = alignment_data(motions, motions.pick([0]), encoder=Letters())
    rows = reasoned_rows(data.reasoner, motions, data.bank)
    most = max(map(len, motions.prompts))
    assert rows.shape == (4, most, 21)
    said = data.reasoner.reason([motions.prompts[2][1]])[0].sentences
    assert [data.bank.sentences[row] for row in rows[2, 1].tolist()] == list(said)


def test_what_is_missing_is_named(small, tmp_path):
    with pytest.raises(ValueError, match="unknown stage"):
        train_stage("decoder", **small)
    with pytest.raises(ValueError, match="begins afresh"):
        train_stage("tokenizer", start=tmp_path, **small)
    with pytest.raises(FileNotFoundError, match="captured clips"):
        train_stage("tokenizer", captured=tmp_path / "nowhere", **small)
    for load in (load_tokenizer, load_aligner, load_generator):
        with pytest.raises(FileNotFoundError, match="which holds none"):
            load(folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="train the aligner"):
        load_reasoner(tmp_path)


def test_captured_motion_keeps_its_licence():
    motions, _ = said_motions()
    facts = train._facts(motions, "generator", Profile.LAB)
    assert "CC BY-NC" in facts["licence"] and "2 clips of captured" in facts["source"]
    free = train._facts(motions.pick([1, 3]), "generator", Profile.LAB)
    assert free["licence"] == "MIT." and "captured" not in free["source"]
