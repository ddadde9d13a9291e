"""Shipped denoisers: the one that is free to use, weights as bytes, and what is said when a stage is missing."""

import pytest
import torch

from kinelib.kimodo.constraint_makers import keyframes
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.generate import generate
from kinelib.kimodo.metrics import constraint_errors
from kinelib.kimodo.pretrained import SHIPPED, compress_denoiser, load_denoiser
from kinelib.learning import checkpoints


def test_the_free_weights_are_small_say_so_and_make_motion():
    model = load_denoiser("procedural")
    card = (SHIPPED / "procedural" / "card.md").read_text()
    assert "**Licence.** MIT" in card and "procedural clips" in card and "Bandai" not in card
    assert (SHIPPED / "procedural" / checkpoints.WEIGHTS).stat().st_size < 3.5 * 2**20
    assert model.config.width < load_denoiser().config.width
    down, still = generate(model, ["A person squats.", "A person stands still."], frames=60, seed=0)
    lowest = lambda motion: float(motion.root[:, 1].min())
    assert lowest(down) < lowest(still) - 0.1
    wish = [keyframes(down, (10, 50))]
    made = generate(model, ["A person squats."], frames=60, constraints=[wish], seed=1, steps=10)[0]
    assert constraint_errors(made, wish).means()["keyframe"] < 0.1


def test_weights_as_bytes_change_little_and_only_once(tmp_path):
    torch.manual_seed(0)
    model = TwoStageDenoiser(DenoiserConfig(width=32, layers=1, ffn=32, heads=2)).eval()
    checkpoints.save(tmp_path / "denoiser", model, card="untrained, for a test")
    path = tmp_path / "denoiser" / checkpoints.WEIGHTS
    before = path.stat().st_size
    compress_denoiser(tmp_path / "denoiser")
    packed = path.read_bytes()
    assert len(packed) < 0.6 * before
    back = load_denoiser(folder=tmp_path)
    noisy, steps = torch.randn(1, 20, 273), torch.tensor([400])
    with torch.no_grad():
        apart = (model(noisy, steps) - back(noisy, steps)).square().mean().sqrt()
    assert apart < 0.02 and torch.equal(model.whitening.map, back.whitening.map)
    compress_denoiser(tmp_path / "denoiser")
    assert path.read_bytes() == packed
    with pytest.raises(FileNotFoundError, match="no weights"):
        compress_denoiser(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds denoiser"):
        load_denoiser("procedural", tmp_path)
