"""Which clips a batch holds: sources by their shares, lengths alike."""

import pytest
import torch

from kinelib.bodies.clip_draws import ClipDraws, clip_odds

SOURCES = ("walked",) * 30 + ("danced",) * 10


def test_odds_are_equal_without_shares_and_hold_the_shares_that_are_given():
    assert torch.allclose(clip_odds(SOURCES, {}), torch.full((40,), 1 / 40, dtype=torch.float64))
    odds = clip_odds(SOURCES, {"danced": 0.5})
    assert float(odds[30:].sum()) == pytest.approx(0.5) and float(odds.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("shares", "says"),
    [({"swum": 0.1}, "no clip of swum; there are clips of walked, danced"), ({"danced": 1.5}, "sum to at most 1")],
)
def test_impossible_shares_are_refused(shares, says):
    with pytest.raises(ValueError, match=says):
        clip_odds(SOURCES, shares)


def test_a_draw_holds_clips_of_like_length_and_all_of_them_are_drawn():
    lengths = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    draws, generator = ClipDraws(lengths, SOURCES, {"danced": 0.5}), torch.Generator().manual_seed(1)
    rand = lambda count: torch.rand(count, generator=generator, dtype=torch.float64)
    drawn = [draws.rows(16, rand) for _ in range(400)]
    assert max(int(lengths[rows].max() - lengths[rows].min()) for rows in drawn) == 4  # eight classes of five
    every = torch.cat(drawn)
    assert set(every.tolist()) == set(range(40))
    assert float((every >= 30).double().mean()) == pytest.approx(0.5, abs=0.06)


def test_a_source_whose_share_is_nothing_is_never_drawn():
    draws, generator = ClipDraws(torch.arange(40), SOURCES, {"danced": 0.0}), torch.Generator().manual_seed(1)
    rows = torch.cat([draws.rows(16, lambda n: torch.rand(n, generator=generator, dtype=torch.float64)) for _ in range(50)])
    assert int(rows.max()) < 30
