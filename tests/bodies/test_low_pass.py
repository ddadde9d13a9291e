"""Filters and decorrelated sentences: lines pass, jitter does not, padding is left alone, and sides stand apart."""

import pytest
import torch

from kinelib.bodies.low_pass import filter_matrices, filter_matrix
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.notation import ShapeError


@pytest.mark.parametrize("length", [1, 7, 40])
def test_straight_lines_pass_and_padding_is_left_alone(length):
    matrix = filter_matrix(length, 40, 2.0)
    line = torch.linspace(-3, 5, 40)[:, None]
    assert torch.allclose((matrix @ line)[:length], line[:length], atol=1e-5)
    assert torch.equal(matrix[length:], torch.eye(40)[length:])
    assert torch.allclose(matrix.sum(1), torch.ones(40), atol=1e-6)
    assert not matrix[:length, length:].any(), "frames do not see padding"


def test_a_gaussian_weakens_a_wave_as_theory_says():
    frames = torch.arange(200.0)
    for hertz in (0.5, 1.0, 3.0):
        wave = torch.sin(2 * torch.pi * hertz * frames / 20)[:, None]
        made = (filter_matrix(200, 200, 0.8) @ wave)[40:160]
        theory = torch.exp(torch.tensor(-2 * (torch.pi * hertz * 0.8 / 20) ** 2))
        assert float(made.square().mean().sqrt() / wave[40:160].square().mean().sqrt()) == pytest.approx(
            float(theory), abs=0.02
        )


def test_jitter_of_feet_goes_down():
    noise = torch.randn(100, 50, generator=torch.Generator().manual_seed(0))
    speed = lambda x: float(x.diff(dim=0).square().mean().sqrt())
    assert speed(filter_matrix(100, 100, 2.0) @ noise) < 0.15 * speed(noise)


def test_every_clip_has_its_own():
    matrices = filter_matrices(torch.tensor([3, 7]), 8, 1.0)
    assert torch.equal(matrices[0], filter_matrix(3, 8, 1.0)) and torch.equal(matrices[1], filter_matrix(7, 8, 1.0))
    assert filter_matrices(torch.tensor([7, 7]), 8, 1.0).shape == (1, 8, 8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TwoStageDenoiser(DenoiserConfig(width=32, layers=1, ffn=32, heads=2)).eval()


def test_predictions_are_smooth_and_contacts_may_switch(model):
    noisy, steps = torch.randn(2, 40, 273), torch.tensor([0, 0])
    torch.nn.init.normal_(model.body.features_out.weight, std=0.3)
    with torch.no_grad():
        made = model(noisy, steps, lengths=torch.tensor([40, 25]))
    wild = lambda x: float(x.diff(dim=1).std() / x.std())
    assert wild(made[:1, :, [0, 2]]) < 0.5 * wild(made[:1, :, -4:])
    assert wild(made[:1, :, 5:-4]) < 0.8 * wild(made[:1, :, -4:])
    alone = model(noisy[1:, :25], steps[1:])
    assert torch.allclose(made[1, :25], alone[0], atol=1e-4), "the filter ends where the clip ends"


def test_sentences_that_nearly_agree_are_told_apart(model):
    generator = torch.Generator().manual_seed(1)
    common, side = torch.randn(384, generator=generator), 0.02 * torch.randn(384, generator=generator)
    topics = torch.randn(5, 384, generator=generator)
    vectors = torch.cat([common + topics + sense * side for sense in (-1, 1)])
    model.set_text_statistics(vectors)
    read = model.whitening(vectors[:, None])[:, 0]
    apart = lambda x: float((x[0] - x[5]).norm() / (x[0] - x[1]).norm())
    assert apart(read) > 3 * apart(vectors)
    assert not model.whitening(torch.zeros(2, 1, 384)).any(), "no text stays no text"
    for wrong in (vectors[:1], vectors[:, :10]):
        with pytest.raises(ShapeError):
            model.set_text_statistics(wrong)


def test_official_sizes_have_neither():
    with torch.device("meta"):
        model = TwoStageDenoiser(DenoiserConfig(root_filter=0.0, body_filter=0.0, whiten_text=False))
    assert not any(name.startswith("text_") for name in model.state_dict())
    with pytest.raises(ValueError, match="filters are 0 frames or wider"):
        TwoStageDenoiser(DenoiserConfig(body_filter=-1.0))
