"""Guidance: the formulas, from single predictions, and how few of them are made."""

import pytest
import torch
from test_denoiser import SMALL, inputs, network

from kinelib.kimodo.guidance import GuidedDenoiser
from kinelib.notation import ShapeError

KEYS = ("text", "first_heading", "mask", "target")


def conditions(seed=1):
    given = inputs(seed=seed)
    return given["noisy"], given["steps"], {key: given[key] for key in KEYS}


def predictions(model, noisy, steps, given):
    """The four single predictions: with both, the sentence, the constraints, neither."""
    silent, free = {"text": None}, {"mask": None}
    call = lambda **changes: model(noisy, steps, **{**given, **changes})
    return call(), call(**free), call(**silent), call(**silent, **free)


def test_every_kind_is_its_formula():
    model = network()
    noisy, steps, given = conditions()
    both, said, held, none = predictions(model, noisy, steps, given)
    draw = lambda **options: GuidedDenoiser(model, 11, **given, **options)(noisy, steps)
    assert torch.allclose(draw(kind="none"), both, atol=1e-5)
    assert torch.allclose(draw(kind="regular", weights=(2.5, 9.0)), none + 2.5 * (both - none), atol=1e-4)
    separated = none + 2.0 * (said - none) + 1.5 * (held - none)
    assert torch.allclose(draw(kind="separated", weights=(2.0, 1.5)), separated, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "weights", "text", "mask", "each"),
    [
        ("separated", (2, 2), True, True, 3),
        ("separated", (2, 2), True, False, 2),
        ("separated", (2, 2), False, True, 2),
        ("separated", (2, 2), False, False, 1),
        ("separated", (0.5, 0.5), True, True, 2),
        ("separated", (1, 0), True, True, 1),
        ("regular", (2, 0), True, True, 2),
        ("regular", (1, 0), True, True, 1),
        ("regular", (2, 0), False, False, 1),
        ("none", (2, 2), True, True, 1),
        ("nested", (2, 1), True, True, 2),
        ("nested", (2, 2), True, True, 2),
        ("nested", (3, 2), True, True, 3),
        ("nested", (2, 1), True, False, 2),
        ("nested", (2, 1), False, True, 1),
    ],
)
def test_equal_predictions_are_made_once_and_the_result_is_the_same(kind, weights, text, mask, each):
    model = network()
    noisy, steps, given = conditions()
    given |= {} if text else {"text": torch.zeros_like(given["text"])}
    given |= {} if mask else {"mask": torch.zeros_like(given["mask"])}
    denoise = GuidedDenoiser(model, 11, **given, kind=kind, weights=weights)
    assert denoise.predictions == 3 * each
    both, said, held, none = predictions(model, noisy, steps, given)
    expected = {
        "none": both,
        "regular": none + weights[0] * (both - none),
        "separated": none + weights[0] * (said - none) + weights[1] * (held - none),
        "nested": none + weights[1] * (held - none) + weights[0] * (both - held),
    }[kind]
    assert torch.allclose(denoise(noisy, steps), expected, atol=1e-4)


def test_clips_of_a_batch_need_different_predictions():
    model = network()
    noisy, steps, given = conditions()
    given["mask"][1] = False
    given["text"][1:] = 0
    denoise = GuidedDenoiser(model, 11, **given)
    assert denoise.predictions == 3 + 1 + 2
    together = denoise(noisy, steps)
    for clip in range(3):
        alone = GuidedDenoiser(model, 11, **{key: value[clip : clip + 1] for key, value in given.items()})
        one = slice(clip, clip + 1)
        assert torch.allclose(alone(noisy[one], steps[one])[0], together[clip], atol=1e-4)


def test_lengths_travel_with_their_clips():
    model = network()
    noisy, steps, given = conditions()
    lengths = torch.tensor([11, 4, 7])
    together = GuidedDenoiser(model, 11, **given, lengths=lengths)(noisy, steps)
    for clip, length in enumerate(lengths.tolist()):
        one = {key: value[clip : clip + 1] for key, value in given.items()}
        one |= {key: one[key][:, :length] for key in ("mask", "target")}
        alone = GuidedDenoiser(model, length, **one)(noisy[clip : clip + 1, :length], steps[clip : clip + 1])
        assert torch.allclose(alone[0], together[clip, :length], atol=1e-4)


def test_aim_moves_the_targets_and_nothing_else():
    model = network()
    noisy, steps, given = conditions()
    denoise = GuidedDenoiser(model, 11, **given)
    before, other = denoise(noisy, steps), given["target"] + 1
    denoise.aim(other)
    fresh = GuidedDenoiser(model, 11, **given | {"target": other})
    assert torch.equal(denoise(noisy, steps), fresh(noisy, steps)) and not torch.equal(fresh(noisy, steps), before)
    denoise.aim(torch.where(given["mask"], given["target"], 50.0))
    assert torch.equal(denoise(noisy, steps), before)


def test_bad_input_is_refused():
    model = network()
    _, _, given = conditions()
    with pytest.raises(ValueError, match="unknown guidance 'double'"):
        GuidedDenoiser(model, 11, **given, kind="double")
    for weights in ((float("nan"), 1), (1.0, float("inf")), (1.0,)):
        with pytest.raises(ValueError, match="two finite weights"):
            GuidedDenoiser(model, 11, **given, weights=weights)
    with pytest.raises(ShapeError, match=f"mask must have shape \\(B, 9, {SMALL.features}\\)"):
        GuidedDenoiser(model, 9, **given)
    with pytest.raises(ShapeError, match="text must have shape"):
        GuidedDenoiser(model, 11, **given | {"text": given["text"][0]})
