"""The autoregressive baseline: pieces, mixtures, who may know what, drawing with memory, and that a choice is shared."""

import dataclasses
import math

import pytest
import tiny
import torch
from torch.distributions import MultivariateNormal

from kinelib.notation import ShapeError
from kinelib.zipmo.autoregressive import (
    AutoregressiveConfig,
    AutoregressiveForecast,
    AutoregressiveModel,
    Mixture,
    MotionPieces,
    group_sizes,
)

CONFIG = AutoregressiveConfig(**tiny.SIZES, singles=2, components=4)


def build(config=CONFIG, noise=0.1):
    torch.manual_seed(0)
    return tiny.disturbed(AutoregressiveModel(config), noise)


@pytest.fixture(scope="module")
def model():
    return build()


def moving(batch=2, points=7, seed=0):
    """Tracks (B, N, 64, 2) on random smooth curves."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.linspace(0, 1, 64)[:, None]
    speed, bend = torch.randn(2, batch, points, 1, 2, generator=generator) * 0.3
    return tiny.starts(batch, points, seed)[:, :, None] + speed * u + bend * u**2


# ---- pieces


def test_cubic_motion_survives_its_numbers_and_rest_is_zero():
    pieces = MotionPieces(64, 16, 3)
    u = torch.linspace(0, 1, 64)[:, None]
    speed, bend, turn = torch.randn(3, 2, 5, 1, 2, generator=torch.Generator().manual_seed(0))
    tracks = tiny.starts(2, 5)[:, :, None] + speed * u + bend * u**2 - turn * u**3
    numbers = pieces.encode(tracks)
    assert numbers.shape == (2, 5, 4, 6)
    displacement = pieces.decode(numbers)
    assert torch.allclose(displacement, tracks - tracks[:, :, :1], atol=1e-4) and (displacement[:, :, 0] == 0).all()
    assert (pieces.encode(tracks[:, :, :1].expand(-1, -1, 64, -1)) == 0).all()
    right = torch.stack([u[:, 0], 0 * u[:, 0]], dim=-1)[None, None]
    assert (pieces.encode(right)[..., 0] > 0).all() and pieces.encode(right)[..., 1].abs().max() < 1e-5


def test_what_a_piece_cannot_say_is_not_passed_on():
    # A jump that cubics miss: the piece after it starts from where the written one ended, not from where it should have.
    pieces = MotionPieces(64, 16, 3)
    tracks = torch.zeros(1, 1, 64, 2)
    tracks[:, :, 13:, 0] = 1.0
    error = (pieces.decode(pieces.encode(tracks)) - tracks)[0, 0, :, 0].abs()
    assert error[:16].max() > 0.1
    assert error[32:].max() < 0.3 * error[15] and error[48:].max() < 0.1 * error[15]


# ---- mixtures


def test_a_mixture_is_what_torch_says_it_is():
    torch.manual_seed(0)
    lean = torch.randn(5, 3, 4, 4).tril(-1)
    mixture = Mixture(torch.randn(5, 3), torch.randn(5, 3, 4), torch.rand(5, 3, 4) + 0.2, lean)
    root = (torch.eye(4) + lean) / mixture.sigma[..., None]
    each = MultivariateNormal(mixture.mean, precision_matrix=root.mT @ root)
    x = torch.randn(5, 4)
    expected = (mixture.logits.log_softmax(-1) + each.log_prob(x[:, None])).logsumexp(-1)
    assert torch.allclose(mixture.log_prob(x), expected, atol=1e-4)


def test_draws_have_the_moments_of_the_mixture():
    count = 40_000
    lean = torch.zeros(2, 3, 3)
    lean[0, 1, 0], lean[0, 2, 1], lean[1, 2, 0] = -2.0, 0.5, 1.0
    mean = torch.tensor([[1.0, 0.0, 0.0], [-2.0, 1.0, 3.0]])
    one = Mixture(torch.tensor([0.3, 0.7]).log(), mean, torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.1]]), lean)
    draws = Mixture(*(x.expand(count, *x.shape) for x in one)).draw(torch.Generator().manual_seed(0))
    inverse = torch.linalg.inv(torch.eye(3) + lean) * one.sigma[:, None]
    inside = inverse @ inverse.mT
    weights, centre = torch.tensor([0.3, 0.7]), 0.3 * mean[0] + 0.7 * mean[1]
    spread = mean - centre
    covariance = (weights[:, None, None] * (inside + spread[:, :, None] * spread[:, None])).sum(0)
    assert torch.allclose(draws.mean(0), centre, atol=0.03)
    assert torch.allclose(draws.T.cov(), covariance, atol=0.06)


def test_deviations_have_a_floor_so_rest_has_a_finite_likelihood():
    model = build(dataclasses.replace(CONFIG, least_sigma=1e-2))
    with torch.no_grad():
        model.head.out.bias -= 1e4
    sigma = model.head(torch.zeros(1, 32)).sigma[0, 0]
    assert torch.allclose(sigma * model.pieces.unit, torch.full((6,), 1e-2))


# ---- who may know what


@pytest.mark.parametrize("points,singles,sizes", [(1, 8, [1]), (3, 1, [1, 1, 1]), (20, 2, [1, 1, 2, 4, 8, 4]), (0, 8, [])])
def test_groups_are_no_larger_than_what_is_known(points, singles, sizes):
    assert group_sizes(points, singles) == sizes


def test_later_pieces_and_points_do_not_change_earlier_likelihoods(model):
    tracks, frame, (pokes, mask) = moving(), tiny.frames(), tiny.pokes()
    numbers = model.pieces.encode(tracks)
    scene = model.prepare(frame, pokes, mask, tracks[:, :, 0])
    before = model.mixtures(numbers, scene).mean
    group = [0, 1, 2, 2, 3, 3, 3]  # sizes 1, 1, 2, 3 of 7 points
    for point in (0, 2, 3, 6):
        for piece in range(4):
            other = numbers.clone()
            other[:, point, piece] += 1.0
            changed = (model.mixtures(other, scene).mean - before).abs().amax(dim=(0, 3, 4)) > 1e-6
            later = torch.tensor(
                [[s > piece or (s == piece and group[n] > group[point]) for s in range(4)] for n in range(7)]
            )
            assert torch.equal(changed, later), (point, piece)


def test_pokes_the_frame_and_the_place_matter_and_other_clips_do_not(model):
    tracks, frame, (pokes, mask) = moving(), tiny.frames(), tiny.pokes()
    likelihood = model.log_likelihood(tracks, frame, pokes, mask)
    assert likelihood.shape == (2, 7, 4)
    alone = model.log_likelihood(tracks[1:], frame[1:], pokes[1:], mask[1:])
    assert torch.allclose(likelihood[1:], alone, atol=1e-3)
    for changed in (
        model.log_likelihood(tracks, frame, pokes, mask & False),
        model.log_likelihood(tracks, frame.flip(-1), pokes, mask),
        model.log_likelihood(tracks + 0.1, frame, pokes, mask),
    ):
        assert (changed - likelihood).abs().max() > 1e-2


@pytest.mark.parametrize("filling", [7.0, torch.nan])
def test_empty_slots_have_no_influence(model, filling):
    pokes, mask = tiny.pokes(count=3)
    mask[:, 1] = False
    call = lambda pokes, mask: model.sample(tiny.frames(), pokes, mask, tiny.starts(2, 3), samples=1)
    expected = call(pokes[:, [0, 2]], mask[:, [0, 2]])
    assert torch.allclose(call(torch.where(mask[..., None], pokes, filling), mask), expected, atol=1e-4)


# ---- drawing


@pytest.mark.parametrize("points", [1, 2, 7, 12])
def test_going_one_by_one_with_memory_equals_one_pass(model, points):
    tracks = moving(points=points)
    numbers, seen = model.pieces.encode(tracks), {}
    scene = model.prepare(tiny.frames(), *tiny.pokes(), tracks[:, :, 0])

    def replay(mixture, group, piece):
        seen[group.start, piece] = mixture
        return numbers[:, group, piece]

    assert torch.equal(model.one_by_one(replay, scene), numbers)
    assert len(seen) == 4 * len(group_sizes(points, 2))
    whole = model.mixtures(numbers, scene)
    for (first, piece), mixture in seen.items():
        for stepped, expected in zip(mixture, whole, strict=True):
            assert torch.allclose(stepped, expected[:, first : first + stepped.shape[1], piece], atol=1e-4)


def test_samples_start_at_the_queries_and_the_seed_decides(model):
    points = tiny.starts(2, 5)
    call = lambda seed, **more: model.sample(tiny.frames(), *tiny.pokes(), points, samples=3, seed=seed, **more)
    tracks = call(0)
    assert tracks.shape == (2, 3, 5, 64, 2) and tracks.isfinite().all()
    assert torch.equal(tracks, call(0)) and not torch.equal(tracks, call(1))
    assert torch.equal(tracks[:, :, :, 0], points[:, None].expand(-1, 3, -1, -1))
    assert (tracks[:, 0] - tracks[:, 1]).abs().max() > 0.01
    none = model.sample(tiny.frames(), *tiny.pokes(count=0), points[:, :0], samples=2)
    assert none.shape == (2, 2, 0, 64, 2)


def test_the_forecaster_resamples_time_and_reads_no_text(model):
    forecast, points = AutoregressiveForecast(model), tiny.starts(2, 3)
    call = lambda **more: forecast(tiny.frames(), *tiny.pokes(), points, samples=2, seed=3, **more)
    tracks = call()
    assert torch.equal(tracks, model.sample(tiny.frames(), *tiny.pokes(), points, samples=2, seed=3))
    assert torch.equal(tracks, call(text="ignored"))
    assert torch.equal(call(num_frames=22)[..., [0, -1], :], tracks[..., [0, -1], :])


def test_the_loss_is_the_likelihood_a_number_and_reaches_every_weight():
    model = build(dataclasses.replace(CONFIG, drop=0.0, singles=1), noise=0.0).train().requires_grad_(True)
    tracks = moving(points=1)  # one point has one order
    terms = model.loss(tracks, tiny.frames(), *tiny.pokes(), torch.Generator().manual_seed(0))
    expected = -model.log_likelihood(tracks, tiny.frames(), *tiny.pokes()).mean() / 6
    assert math.isclose(terms["loss"].item(), expected.item(), rel_tol=1e-5)
    model.loss(moving(), tiny.frames(), *tiny.pokes(), torch.Generator().manual_seed(0))["loss"].backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]


# ---- learning


def left_or_right(count, points, generator):
    """All points of a clip move left or all right, a coin decides; a poke that tells is there for half of the clips."""
    start = torch.rand(count, points, 2, generator=generator) * 1.2 - 0.6
    side = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1
    move = torch.stack([0.6 * side, torch.zeros(count)], dim=-1)[:, None, None]
    move = move + 0.03 * torch.randn(count, points, 1, 2, generator=generator)
    tracks = start[:, :, None] + torch.linspace(0, 1, 64)[:, None] * move
    pokes = torch.cat([tracks[:, :1, 0], tracks[:, :1, -1], torch.ones(count, 1, 1)], dim=-1)
    mask = torch.rand(count, 1, generator=generator) < 0.5
    return tracks, torch.zeros(count, 3, 16, 16), pokes, mask, side


def test_a_choice_is_made_once_and_a_poke_decides_it():
    torch.manual_seed(0)
    generator, steps, rate = torch.Generator().manual_seed(0), 100, 6e-3
    model = AutoregressiveModel(dataclasses.replace(CONFIG, drop=0.0, piece=32))
    optimizer = torch.optim.AdamW(model.parameters())
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 10) * max(0.05, 1 - step / steps)
        *batch, _ = left_or_right(24, 6, generator)
        loss = model.loss(*batch, generator)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    tracks, frame, pokes, mask, side = left_or_right(8, 6, torch.Generator().manual_seed(1))
    ways = lambda tracks: (tracks[..., -1, 0] - tracks[..., 0, 0]).sign()  # (B, K, Q)
    united = lambda ways: (ways.mean(dim=-1).abs() == 1).float().mean()

    free = ways(model.sample(frame, pokes, mask & False, tracks[:, :, 0], samples=16))
    assert 0.25 < (free > 0).float().mean() < 0.75, "both futures happen"
    assert united(free) > 0.8, "points share the choice"
    # The same ways, each point's drawn alone: six points agree in one of 2^5 samples.
    alone = torch.stack([free[:, torch.arange(16).roll(3 * q), q] for q in range(6)], dim=-1)
    assert united(alone) < 0.2

    poked = model.sample(frame, pokes, mask | True, tracks[:, :, 0], samples=16)
    assert (ways(poked) == side[:, None, None]).float().mean() > 0.88, "the poke decides"
    assert (poked[..., -1, :] - tracks[:, None, :, -1]).norm(dim=-1).median() < 0.1


# ---- bad input


def test_bad_input_is_refused(model):
    frame, (pokes, mask), points = tiny.frames(), tiny.pokes(), tiny.starts(2, 3)
    many = tiny.pokes(count=17)
    broken = lambda **options: AutoregressiveModel(dataclasses.replace(CONFIG, **options))
    calls = [
        (lambda: model.sample(frame, *many, points), "17 pokes .* at most 16"),
        (lambda: model.sample(frame, pokes, mask.float(), points), "must be bool"),
        (lambda: model.sample(frame, pokes + 2, mask, points), "outside the frame"),
        (lambda: model.sample(frame, pokes, mask, points[:1]), "query_points"),
        (lambda: model.sample(frame, pokes, mask, points * torch.nan), "query_points holds"),
        (lambda: model.sample(frame, pokes, mask, points, samples=0), "samples must be"),
        (lambda: model.sample(frame[..., :8], pokes, mask, points), "8, expected 16"),
        (lambda: model.loss(moving()[:, :, :32], frame, pokes, mask), "32, expected 64"),
        (lambda: model.loss(moving()[:1], frame, pokes, mask), "axis B"),
        (lambda: model.log_likelihood(moving() * torch.nan, frame, pokes, mask), "tracks holds"),
        (lambda: broken(piece=15), "do not divide"),
        (lambda: broken(basis_size=16), "1 to 15 polynomials"),
        (lambda: broken(singles=0), "must be positive"),
    ]
    for call, said in calls:
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(ShapeError):
        broken(piece=15)
