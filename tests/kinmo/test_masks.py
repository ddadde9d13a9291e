"""Which tokens are free and hidden in training: shares, shapes, padding, and how hidden ones look."""

import math

import pytest
import torch

from kinelib.kinmo.masks import MaskConfig, disguised, draw_free, draw_hidden, hidden_share, lowest, there

LENGTHS = torch.tensor([3, 7, 10, 10] * 100)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_schedule_falls_from_all_to_none():
    shares = hidden_share(torch.linspace(0, 1, 5))
    assert shares[0] == 1 and abs(shares[-1]) < 1e-6 and (shares[1:] < shares[:-1]).all()
    assert float(hidden_share(0.5)) == pytest.approx(math.sqrt(0.5))


def test_padding_is_never_free():
    real = there(LENGTHS, 10, 6)
    for config in (MaskConfig(), MaskConfig(groups=1, spans=0), MaskConfig(groups=0, spans=1)):
        free = draw_free(LENGTHS, 10, 6, config, seeded())
        assert not (free & ~real).any() and free.flatten(1).any(1).all()


def test_everything_is_free_without_groups_and_spans():
    assert torch.equal(draw_free(LENGTHS, 10, 6, MaskConfig(groups=0, spans=0), seeded()), there(LENGTHS, 10, 6))


def test_groups_are_free_as_a_whole_and_some_are_given():
    free = draw_free(LENGTHS, 10, 6, MaskConfig(groups=1, spans=0), seeded())
    counts = free.sum(1)  # of every group of a clip
    assert ((counts == 0) | (counts == LENGTHS[:, None])).all()
    chosen = (counts > 0).sum(1)
    assert chosen.min() == 1 and chosen.max() == 5, "at least one group is given"
    assert (counts > 0).float().mean(0).sub(0.5).abs().max() < 0.1, "no group is favoured"


def test_spans_are_connected_and_hold_all_groups():
    free = draw_free(LENGTHS, 10, 6, MaskConfig(groups=0, spans=1), seeded())
    assert torch.equal(free, free[:, :, :1].expand(-1, -1, 6))
    starts = (free[:, 1:, 0] & ~free[:, :-1, 0]).sum(1) + free[:, 0, 0]
    assert (starts == 1).all()
    share = free[..., 0].sum(1) / LENGTHS
    assert share.min() >= 0.25 and (share < 1).any() and free[:, 0, 0].any() and (~free[:, 0, 0]).any()


def test_one_stream_has_no_groups_to_choose():
    assert torch.equal(draw_free(LENGTHS, 10, 1, MaskConfig(groups=1, spans=0), seeded()), there(LENGTHS, 10, 1))


def test_hidden_tokens_are_free_ones_by_the_cosine_of_their_true_number():
    free = draw_free(LENGTHS, 10, 6, MaskConfig(groups=0, spans=0), seeded())
    hidden = draw_hidden(free, seeded(1))
    assert not (hidden & ~free).any() and hidden.flatten(1).any(1).all()
    share = hidden.flatten(1).sum(1) / free.flatten(1).sum(1)
    assert float(share.mean()) == pytest.approx(2 / math.pi, abs=0.05), "the mean of the cosine"
    short = LENGTHS == 3
    assert float(share[short].mean()) == pytest.approx(float(share[~short].mean()), abs=0.12), "padding does not count"


def test_the_lowest_scores_are_taken_from_those_that_may_be():
    scores = torch.tensor([[[0.3], [0.1], [0.2], [0.0]]])
    among = torch.tensor([[[True], [True], [True], [False]]])
    assert lowest(scores, among, 1 / 3).flatten().tolist() == [False, True, False, False]
    assert lowest(scores, among, 2 / 3).flatten().tolist() == [False, True, True, False]
    assert lowest(scores, among, 0.01).sum() == 1
    assert not lowest(scores, torch.zeros_like(among), 1.0).any()


def test_hidden_tokens_look_as_in_bert():
    codes = torch.zeros(200, 10, 6, dtype=torch.long)
    hidden = torch.rand(codes.shape, generator=seeded()) < 0.5
    seen = disguised(codes, hidden, 1000, MaskConfig(wrong=0.1, masked=0.88, slips=0.0), seeded())
    assert (seen[~hidden] == 0).all()
    own = seen[hidden]
    assert float((own == 1000).float().mean()) == pytest.approx(0.9 * 0.88, abs=0.02)
    assert float(((own > 0) & (own < 1000)).float().mean()) == pytest.approx(0.1, abs=0.02)
    slipped = disguised(codes, hidden, 1000, MaskConfig(slips=0.2), seeded())[~hidden]
    assert float((slipped > 0).float().mean()) == pytest.approx(0.2, abs=0.02) and (slipped < 1000).all()


def test_the_same_seed_hides_the_same():
    draw = lambda seed: draw_hidden(draw_free(LENGTHS, 10, 6, MaskConfig(), seeded(seed)), seeded(seed))
    assert torch.equal(draw(4), draw(4)) and not torch.equal(draw(4), draw(5))


@pytest.mark.parametrize("wrong", [{"groups": -0.1}, {"spans": 1.1}, {"groups": 0.6, "spans": 0.6}, {"slips": 2}])
def test_shares_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="shares of masks"):
        MaskConfig(**wrong)
