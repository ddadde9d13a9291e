"""The sampling loop on networks one can check by hand: what is kept, what is drawn, and from which seed."""

import pytest
import torch
from toy_tokens import TINY, words

from kinelib.kinmo.masked import MaskedMotionGenerator, all_hidden
from kinelib.kinmo.masks import there
from kinelib.kinmo.sampling import Sampler, believed, draw, fill, fill_further, generators


class Sure:
    """A network that is sure of one code everywhere; of words it reads how many calls there were."""

    config = TINY

    def __init__(self, code=3, scale=20.0):
        self.code, self.scale, self.seen = code, scale, []

    def __call__(self, codes, conditions, lengths):
        self.seen.append(codes.clone())
        logits = torch.zeros(*codes.shape[:3], TINY.codes)
        logits[..., self.code] = self.scale
        return logits

    def next_layer(self, codes, conditions, lengths):
        return self(codes[..., 0], conditions, lengths)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return MaskedMotionGenerator(TINY).eval().requires_grad_(False)


PLAIN = Sampler(steps=4, guidance=1.0, residual_guidance=1.0, kept=1.0)
LENGTHS = torch.tensor([6, 4])


def hidden(lengths=LENGTHS):
    return all_hidden(TINY, len(lengths), int(lengths.max())), there(lengths, int(lengths.max()), 6)


def test_all_hidden_tokens_are_filled_in():
    codes = fill(Sure(), *hidden(), words(2), LENGTHS, generators(0, 2), PLAIN)
    assert (codes[0] == 3).all() and (codes[1, :4] == 3).all()


def test_fewer_and_fewer_tokens_stay_hidden_by_the_cosine():
    sure = Sure()
    fill(sure, *hidden(LENGTHS[:1]), words(1), LENGTHS[:1], generators(0, 1), Sampler(steps=4, guidance=1.0))
    # cos(0), cos(22.5), cos(45), cos(67.5 degrees) of 36 tokens, rounded down
    assert [int((seen == TINY.codes).sum()) for seen in sure.seen] == [36, 33, 25, 13]


def test_what_is_not_free_stays_in_all_layers(model):
    given = torch.randint(8, (2, 6, 6, 3), generator=torch.Generator().manual_seed(0))
    free = torch.zeros(2, 6, 6, dtype=torch.bool)
    free[:, :, 3] = True
    base = fill(model, torch.where(free, 8, given[..., 0]), free, words(2), LENGTHS, generators(0, 2), PLAIN)
    whole = fill_further(
        model, torch.cat([base[..., None], given[..., 1:]], -1), free, words(2), LENGTHS, generators(0, 2), PLAIN
    )
    real = there(LENGTHS, 6, 6)
    assert torch.equal(whole[~free], given[~free]) and (whole[free & real] < 8).all()
    assert (whole[free & real] != given[free & real]).any()


def test_a_share_is_drawn_anew_and_it_is_the_least_likely_one():
    codes, free = torch.full((1, 6, 6), 3), there(LENGTHS[:1], 6, 6)
    codes[0, 2] = 5  # six of 36 tokens say something that the words do not
    found = fill(Sure(), codes, free, words(1), LENGTHS[:1], generators(0, 1), PLAIN, hidden=1 / 6)
    assert (found == 3).all()
    half = fill(Sure(), codes, free, words(1), LENGTHS[:1], generators(0, 1), PLAIN, hidden=1 / 12)
    assert int((half == 5).sum()) == 3


def test_refining_takes_fewer_steps():
    sure = Sure()
    codes, free = torch.full((1, 6, 6), 3), there(LENGTHS[:1], 6, 6)
    fill(sure, codes, free, words(1), LENGTHS[:1], generators(0, 1), Sampler(steps=10, guidance=1.0), hidden=0.3)
    assert len(sure.seen) == 1 + 3, "one pass to judge the codes, three to draw"


def test_nothing_free_is_nothing_done():
    sure, (codes, free) = Sure(), hidden()
    assert torch.equal(fill(sure, codes, free & False, words(2), LENGTHS, generators(0, 2), PLAIN), codes) and not sure.seen


def test_a_clip_is_the_same_alone_and_beside_longer_ones(model):
    sampler, both = Sampler(steps=5, kept=1.0), words(2)
    whole = fill(model, *hidden(), both, LENGTHS, generators(7, 2), sampler)
    short = LENGTHS[1:]
    draws = generators(7, 2)[1:]
    alone = fill(model, *hidden(short), both.pick(slice(1, 2)), short, draws, sampler)
    assert torch.equal(alone[0], whole[1, :4])


def test_beliefs_are_odds_of_what_is_free_and_certain_of_the_rest(model):
    codes = torch.randint(8, (2, 6, 6, 3), generator=torch.Generator().manual_seed(0))
    free = there(LENGTHS, 6, 6)
    free[:, :, 2] = False
    odds = believed(model, codes, free, words(2), LENGTHS)
    assert odds.shape == (2, 6, 6, 3, 8) and torch.allclose(odds.sum(-1), torch.ones(2, 6, 6, 3))
    assert torch.equal(odds[:, :, 2].argmax(-1), codes[:, :, 2]) and float(odds[:, :, 2].amax(-1).min()) == 1
    assert torch.allclose(odds[..., 0, :][free], model(codes[..., 0], words(2), LENGTHS).softmax(-1)[free])
    below = model.next_layer(codes[..., :2], words(2), LENGTHS).softmax(-1)
    assert torch.allclose(odds[..., 2, :][free], below[free])


def test_seeds_and_samples_differ(model):
    sample = lambda seed: fill(model, *hidden(), words(2), LENGTHS, generators(seed, 2), PLAIN)
    assert torch.equal(sample(3), sample(3)) and not torch.equal(sample(3), sample(4))
    alike = words(1).pick(torch.tensor([0, 0]))
    twins = fill(model, *hidden(torch.tensor([6, 6])), alike, torch.tensor([6, 6]), generators(0, 2), PLAIN)
    assert not torch.equal(twins[0], twins[1])
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(generators(5, 2), generators(5, 3), strict=False))


def test_temperature_zero_takes_the_likeliest_and_no_draw_leaves_the_kept_codes():
    logits = torch.randn(1, 400, 2, 8, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([400])
    assert torch.equal(draw(logits, lengths, generators(0, 1), 0.0, 1.0), logits.argmax(-1))
    drawn = draw(logits, lengths, generators(0, 1), 1.0, 0.25)
    best = logits.topk(2, -1).indices
    assert (best == drawn[..., None]).any(-1).all() and (drawn != best[..., 0]).any()


def test_draws_have_the_odds_of_the_softmax():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log().expand(1, 5000, 2, 4)
    drawn = draw(logits, torch.tensor([5000]), generators(0, 1), 1.0, 1.0)
    shares = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
    assert shares.tolist() == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.02)


def test_guidance_goes_further_in_the_direction_of_the_words():
    class Wordy(Sure):
        def __call__(self, codes, conditions, lengths):
            logits = torch.zeros(*codes.shape[:3], TINY.codes)
            logits[..., 1] = 1.0  # likely without words
            logits[..., 2] += torch.where(conditions.silent, 0.0, 0.6)[:, None, None]
            return logits

    greedy = lambda weight: Sampler(steps=1, guidance=weight, temperature=0.0)
    found = [fill(Wordy(), *hidden(), words(2), LENGTHS, generators(0, 2), greedy(weight))[0, 0, 0] for weight in (1.0, 3.0)]
    assert [int(one) for one in found] == [1, 2]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"temperature": -1}, {"kept": 0}, {"guidance": -2}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="steps are at least 1"):
        Sampler(**wrong)
