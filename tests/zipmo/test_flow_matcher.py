"""The planner and the baselines of its size: what conditions may and must do, sampling, and how pokes are drawn."""

import dataclasses

import pytest
import tiny
import torch

from kinelib.learning.fit import FitConfig, fit
from kinelib.learning.text import Text
from kinelib.notation import ShapeError, cell_centres
from kinelib.zipmo.autoencoder import TrackAutoencoder
from kinelib.zipmo.flow import estimate_data
from kinelib.zipmo.flow_matcher import FlowMatcher, FlowMatcherConfig
from kinelib.zipmo.pokes import blank_empty_slots, draw_pokes, pokes_at


@pytest.fixture(scope="module")
def model():
    return tiny.planner()


def noise(batch=2, seed=0):
    return torch.randn(batch, *tiny.LATENT, generator=torch.Generator().manual_seed(seed))


def sample(model, pokes, mask, **options):
    return model.sample(tiny.frames(len(pokes)), pokes, mask, **{"samples": 2, "steps": 3} | options)


def test_patches_are_cut_and_put_together_again():
    for patch, slices in ((1, 1), (2, 3), (4, 1)):
        model = FlowMatcher(dataclasses.replace(tiny.PLANNER, patch=patch, latent_shape=(slices, 4, 4, 8)))
        grid = torch.randn(2, slices, 4, 4, 8)
        tokens = model._to_tokens(grid)
        assert tokens.shape == (2, slices * 16 // patch**2, 8 * patch**2)
        assert torch.equal(model._to_grid(tokens), grid)


@pytest.mark.parametrize("count", [0, 1, 3, 16])
def test_any_number_of_pokes_gives_samples(model, count):
    pokes, mask = tiny.pokes(count=count)
    latents = sample(model, pokes, mask)
    assert latents.shape == (2, 2, *tiny.LATENT) and latents.isfinite().all()


def test_no_slot_and_only_empty_slots_are_the_same(model):
    none, empty = tiny.pokes(count=0), tiny.pokes(count=3)
    assert torch.allclose(sample(model, *none), sample(model, empty[0], ~empty[1]), atol=1e-5)


@pytest.mark.parametrize("filling", [0.0, 7.0, 1e6, torch.nan, torch.inf])
@pytest.mark.parametrize("make", [tiny.planner, tiny.regression, tiny.direct])
def test_empty_slots_have_no_influence(make, filling):
    model, (pokes, mask) = make(), tiny.pokes(count=4)
    mask[0, 1:3] = mask[1, 0] = False
    filled = torch.where(mask[..., None], pokes, filling)

    def answer(pokes):
        if make is tiny.regression:
            return model(tiny.frames(), pokes, mask)
        if make is tiny.direct:
            return model.sample(tiny.frames(), pokes, mask, tiny.starts(2, 3), samples=1, steps=2)
        return sample(model, pokes, mask)

    assert torch.allclose(answer(filled), answer(pokes), atol=1e-5)
    changed = pokes.clone()
    changed[:, 3, 2] += 0.3
    assert (answer(changed) - answer(pokes)).abs().max() > 1e-3


def test_the_order_of_pokes_and_the_batch_do_not_matter(model):
    pokes, mask = tiny.pokes(count=4)
    mask[0, 2] = False
    order = [2, 0, 3, 1]
    a, b = sample(model, pokes, mask), sample(model, pokes[:, order], mask[:, order])
    assert torch.allclose(a, b, atol=1e-4)
    x_t, t = noise(), torch.tensor([0.3, 0.9])
    both = model.clean(x_t, t, model.prepare(tiny.frames(), pokes, mask))
    one = model.clean(x_t[1:], t[1:], model.prepare(tiny.frames()[1:], pokes[1:], mask[1:]))
    assert torch.allclose(both[1:], one, atol=1e-5)


def test_prepared_conditions_equal_those_computed_anew(model):
    pokes, mask = tiny.pokes()
    prepared = model.prepare(tiny.frames(), pokes, mask)
    x_t = noise()
    for t in (0.9, 0.5, 0.1):
        time = torch.full((2,), t)
        x_t = x_t - 0.4 * model.velocity(x_t, time, prepared)
        again = model.velocity(x_t, time, model.prepare(tiny.frames(), pokes, mask))
        assert torch.equal(model.velocity(x_t, time, prepared), again)


@pytest.mark.parametrize("objective", ["clean", "velocity"])
def test_velocity_and_clean_estimate_agree(objective):
    model = tiny.planner(dataclasses.replace(tiny.PLANNER, objective=objective))
    prepared, x_t, t = model.prepare(tiny.frames(), *tiny.pokes()), noise(), torch.tensor([0.2, 0.95])
    velocity = model.velocity(x_t, t, prepared)
    assert torch.allclose(estimate_data(x_t, velocity, t), model.clean(x_t, t, prepared), atol=1e-4)


def test_guidance_mixes_two_passes(model):
    pokes, mask = tiny.pokes()
    with_pokes, without = sample(model, pokes, mask, steps=1), sample(model, pokes, mask & False, steps=1)
    assert (with_pokes - without).abs().max() > 0.01
    assert torch.equal(sample(model, pokes, mask, steps=1, guidance=0.0), without)
    assert torch.equal(sample(model, pokes, mask, steps=1, guidance=1.0), with_pokes)
    for guidance in (0.5, 3.0):
        expected = without + guidance * (with_pokes - without)
        assert torch.allclose(sample(model, pokes, mask, steps=1, guidance=guidance), expected, atol=1e-4)
    # One step from pure noise is linear in the estimate; over several steps guidance of 1 still is plain sampling.
    assert torch.allclose(sample(model, pokes, mask, guidance=1.0 + 1e-7), sample(model, pokes, mask), atol=1e-3)


def test_seeds_decide_and_samples_differ(model):
    pokes, mask = tiny.pokes()
    first = sample(model, pokes, mask, samples=3, seed=5)
    assert torch.equal(first, sample(model, pokes, mask, samples=3, seed=5))
    assert torch.equal(first, sample(model, pokes, mask, samples=3, seed=torch.Generator().manual_seed(5)))
    assert (first - sample(model, pokes, mask, samples=3, seed=6)).abs().max() > 0.01
    for k in (1, 2):
        assert (first[:, 0] - first[:, k]).abs().max() > 0.01


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_every_solver_converges_to_the_same_samples(solver):
    model = tiny.planner(noise=0.03)
    with_steps = lambda n, solver: sample(model, *tiny.pokes(1), samples=1, steps=n, solver=solver)
    reference = with_steps(60, "midpoint")
    errors = [float((with_steps(n, solver) - reference).abs().mean()) for n in (4, 40)]
    assert errors[1] < 0.5 * errors[0] and errors[0] < float(reference.abs().mean())


def test_the_loss_reaches_every_weight_and_drops_conditions():
    model = tiny.planner().requires_grad_(True)
    pokes, mask = tiny.pokes(8)[0], torch.ones(8, 3, dtype=torch.bool)
    text = tiny.text(8)

    def loss(model, pokes, text=text):
        generator = torch.Generator().manual_seed(0)
        return model.loss(noise(8), tiny.frames(8), pokes, mask, None, generator, text)

    terms = loss(model, pokes)
    terms["loss"].backward()
    assert not [n for n, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().max() > 0]
    assert float(terms["poke"]) == 0
    unconditional = tiny.planner(dataclasses.replace(tiny.PLANNER, drop=1.0))
    assert torch.equal(loss(unconditional, pokes)["loss"], loss(unconditional, pokes.flip(0))["loss"])
    assert not torch.equal(loss(tiny.planner(), pokes)["loss"], loss(tiny.planner(), pokes.flip(0))["loss"])
    speechless = tiny.planner(dataclasses.replace(tiny.PLANNER, text_drop=1.0))
    assert torch.equal(loss(speechless, pokes)["loss"], loss(speechless, pokes, tiny.text(8, seed=1))["loss"])
    assert not torch.equal(loss(tiny.planner(), pokes)["loss"], loss(tiny.planner(), pokes, tiny.text(8, seed=1))["loss"])


def test_a_sentence_matters_and_its_padding_and_an_empty_one_do_not(model):
    pokes, mask = tiny.pokes()
    text = tiny.text()
    said = sample(model, pokes, mask, text=text)
    silent = sample(model, pokes, mask)
    assert (said - silent).abs().max() > 0.01
    padding = torch.where(text.mask[..., None], text.tokens, 7.0)
    assert torch.allclose(said, sample(model, pokes, mask, text=text._replace(tokens=padding)), atol=1e-5)
    empty = text._replace(mask=text.mask & False)
    assert torch.allclose(silent, sample(model, pokes, mask, text=empty), atol=1e-5)


def test_sentences_that_nearly_agree_are_told_apart_by_whitening():
    """Two directions that differ by a hundredth of what all captions share, as left and right do."""
    plain, fine = (tiny.planner(dataclasses.replace(tiny.PLANNER, finely=finely)) for finely in (False, True))
    generator, mask = torch.Generator().manual_seed(0), torch.ones(64, 4, dtype=torch.bool)
    shared = torch.randn(tiny.PLANNER.text_width, generator=generator)
    captions = shared + 1e-3 * torch.randn(64, 4, len(shared), generator=generator)
    captions[:32, :, 0] += 0.01
    captions[32:, :, 0] -= 0.01
    plain.conditions.sentence.measure(Text(captions, mask))  # takes no statistics
    fine.conditions.sentence.measure(Text(captions, mask))
    pokes, none = tiny.pokes()
    left, right = Text(captions[:2], mask[:2]), Text(captions[32:34], mask[32:34])
    apart = [
        float((sample(m, pokes, none, text=left) - sample(m, pokes, none, text=right)).abs().mean()) for m in (plain, fine)
    ]
    assert apart[1] > 5 * apart[0]


def test_guidance_mixes_what_the_conditions_say_and_costs_only_what_it_needs(model):
    """One solver step from pure noise answers with the guided clean estimate itself, so the formula can be read off."""
    pokes, mask = tiny.pokes()
    text, sizes = tiny.text(), []

    def clean(text=None, mask=mask, **options):
        return model.sample(tiny.frames(), pokes, mask, text, samples=2, steps=1, **options)

    both, silent, none = clean(text), clean(), clean(mask=mask & False)
    expected = none + 1.5 * (both - none) + 2.0 * (both - silent)
    assert torch.allclose(clean(text, guidance=1.5, text_guidance=3.0), expected, atol=1e-4)
    assert torch.allclose(clean(text, guidance=0.0), none, atol=1e-5)
    assert torch.allclose(clean(text, text_guidance=0.0), silent, atol=1e-4)
    original = model.clean
    model.clean = lambda x_t, *rest: sizes.append(len(x_t)) or original(x_t, *rest)
    try:
        for options in ({}, {"guidance": 2.0}, {"text_guidance": 2.0}, {"guidance": 2.0, "text_guidance": 2.0}):
            clean(text, **options)
    finally:
        del model.clean
    assert sizes == [4, 8, 8, 12]


def test_the_poke_term_is_the_distance_to_the_goals_at_their_times():
    ramp = torch.linspace(0, 1, 5)[:, None]
    pokes = torch.tensor([[[0.0, 0.0, 0.5, 0.0, 0.5], [0.0, 0.0, 9.0, 9.0, 1.0]]])
    mask = torch.tensor([[True, False]])
    decode = lambda clean, points: points[:, :, None] + ramp * torch.tensor([0.4, 0.2])
    assert float(FlowMatcher.poke_error(noise(1), pokes, mask, decode)) == pytest.approx(0.3 + 0.1)
    assert float(FlowMatcher.poke_error(noise(1), pokes, mask & False, decode)) == 0


def test_regression_has_one_answer_and_it_depends_on_the_pokes():
    model, (pokes, mask) = tiny.regression(), tiny.pokes()
    answer = model(tiny.frames(), pokes, mask)
    assert answer.shape == (2, *tiny.LATENT) and torch.equal(answer, model(tiny.frames(), pokes, mask))
    assert (answer - model(tiny.frames(), pokes, mask & False)).abs().max() > 0.01


def test_direct_generates_the_queried_points_from_where_they_start():
    model, points = tiny.direct(), tiny.starts(2, 5)
    call = lambda seed: model.sample(tiny.frames(), *tiny.pokes(), points, samples=3, steps=2, seed=seed)
    tracks = call(0)
    assert tracks.shape == (2, 3, 5, 64, 2) and torch.equal(tracks, call(0)) and not torch.equal(tracks, call(1))
    assert torch.allclose(tracks[:, :, :, 0], points[:, None].expand(-1, 3, -1, -1), atol=1e-6)
    terms = model.loss(tracks[:, 0], tiny.frames(), *tiny.pokes(), torch.Generator().manual_seed(0))
    assert terms["loss"].isfinite()


def test_bad_input_is_refused(model):
    frame, (pokes, mask) = tiny.frames(), tiny.pokes()
    put = lambda column, value: torch.where(torch.arange(5) == column, value, pokes)
    many, words = tiny.pokes(count=17), tiny.text()
    silent_model = tiny.planner(dataclasses.replace(tiny.PLANNER, text_width=0))
    calls = [
        (lambda: sample(model, put(0, 1.5), mask), "outside the frame"),
        (lambda: sample(model, put(4, 0.0), mask), "goal time"),
        (lambda: sample(model, put(4, 1.5), mask), "goal time"),
        (lambda: sample(model, put(2, torch.nan), mask), "NaN"),
        (lambda: sample(model, pokes[..., :4], mask), "pokes must have shape"),
        (lambda: sample(model, pokes, mask[:, :2]), "poke mask"),
        (lambda: sample(model, pokes, mask.float()), "must be bool"),
        (lambda: sample(model, *many), "17 pokes .* at most 16"),
        (lambda: sample(model, pokes, mask, samples=0), "samples must be"),
        (lambda: sample(model, pokes, mask, steps=0), "at least 1 step"),
        (lambda: sample(model, pokes, mask, guidance=-1.0), "guidance"),
        (lambda: sample(model, pokes, mask, solver="rk4"), "unknown solver"),
        (lambda: model.sample(frame[..., :8], pokes, mask), "8, expected 16"),
        (lambda: sample(model, pokes, mask, text_guidance=-1.0), "text_guidance"),
        (lambda: sample(model, pokes, mask, text=tiny.text(3)), "text tokens"),
        (lambda: sample(model, pokes, mask, text=tiny.text()._replace(mask=torch.ones(2, 3).bool())), "text mask"),
        (lambda: sample(model, pokes, mask, text=words._replace(tokens=words.tokens * torch.nan)), "NaN"),
        (lambda: sample(silent_model, pokes, mask, text=tiny.text()), "without text"),
        (lambda: tiny.regression()(frame, *many), "at most 16"),
        (lambda: tiny.direct().sample(frame, pokes, mask, tiny.starts(1, 3)), "query_points"),
        (lambda: tiny.direct().sample(frame, pokes, mask, tiny.starts(2, 3) * torch.nan), "query_points holds"),
        (lambda: tiny.direct().sample(frame, pokes, mask, tiny.starts(2, 3), samples=0), "samples must be"),
        (lambda: FlowMatcher(FlowMatcherConfig(patch=3)), "does not divide"),
        (lambda: FlowMatcher(FlowMatcherConfig(frame_size=32)), "frame_size 64"),
        (lambda: FlowMatcher(FlowMatcherConfig(objective="noise")), "unknown objective"),
    ]
    for call, said in calls:
        with pytest.raises(ValueError, match=said):
            call()


# ---- drawing pokes


def drawn(batch=4000, slots=16, frames=64, seed=0):
    """Tracks on parabolas, and pokes drawn from them."""
    g = torch.Generator().manual_seed(seed)
    start, move = (torch.rand(batch, slots + 4, 1, 2, generator=g) * 2.4 - 1.2 for _ in range(2))
    tracks = start + move * torch.linspace(0, 1, frames)[:, None] ** 2
    return tracks, *draw_pokes(tracks, slots, torch.Generator().manual_seed(seed))


def test_every_count_of_pokes_is_drawn():
    tracks = torch.zeros(6000, 16, 8, 2)
    counts = draw_pokes(tracks, 16, torch.Generator().manual_seed(0))[1].sum(dim=1)
    share = torch.bincount(counts, minlength=17) / 6000
    usual, rare = 0.8 / 9 + 0.2 / 17, 0.2 / 17
    assert torch.allclose(share[:9], torch.full((9,), usual), atol=0.02)
    assert torch.allclose(share[9:], torch.full((8,), rare), atol=0.008) and (share > 0).all()


def test_pokes_are_true_positions_start_inside_and_spread_over_time():
    tracks, pokes, mask = drawn()
    assert (pokes[mask][:, :2].abs() <= 1).all() and (tracks[:, :16, 0].abs().amax(-1) > 1).any()
    frames = (pokes[..., 4] * 63).round().long()
    # Each real poke is met by one of the first tracks, exactly.
    at_goal = torch.take_along_dim(tracks[:, :16, None], frames[:, None, :, None, None], dim=3)[:, :, :, 0]
    misses = (at_goal - pokes[:, None, :, 2:4]).abs().sum(-1) + (tracks[:, :16, None, 0] - pokes[:, None, :, :2]).abs().sum(
        -1
    )
    assert misses.amin(dim=1)[mask].max() < 1e-5
    early = frames[mask] < 63
    assert 0.25 < float(early.float().mean()) < 0.5
    spread = torch.histc(frames[mask][early].float(), 6, 1, 63) / early.sum()
    assert (spread > 0.05).all() and (pokes[mask][:, 4] > 0).all() and (pokes[mask][:, 4] <= 1).all()


def test_some_tracks_are_poked_several_times_at_different_times():
    _, pokes, mask = drawn()
    both = mask[:, 1:] & mask[:, :-1]
    again = both & (pokes[:, 1:, :2] == pokes[:, :-1, :2]).all(-1)
    assert 0.1 < float(again.sum() / both.sum()) < 0.3
    same_time = again & (pokes[:, 1:, 4] == pokes[:, :-1, 4])
    assert float(same_time.sum() / again.sum()) < 0.05


def test_short_clips_few_slots_and_bad_input():
    for frames, slots in ((2, 3), (3, 1), (64, 0)):
        _, pokes, mask = drawn(50, slots, frames)
        assert pokes.shape == (50, slots, 5) and mask.shape == (50, slots)
        assert ((pokes[..., 4] > 0) & (pokes[..., 4] <= 1)).all()
    for tracks in (torch.zeros(2, 3, 8, 2), torch.zeros(2, 16, 1, 2), torch.zeros(2, 16, 8)):
        with pytest.raises(ShapeError):
            draw_pokes(tracks, 8, torch.Generator())


def test_pokes_at_and_empty_slots():
    tracks = torch.arange(24.0).reshape(1, 3, 4, 2)
    pokes = pokes_at(tracks, torch.tensor([[2, 0]]), torch.tensor([[3, 1]]))
    assert torch.allclose(pokes, torch.tensor([[[16.0, 17, 22, 23, 1], [0, 1, 2, 3, 1 / 3]]]))
    blank = blank_empty_slots(pokes * torch.tensor([[[1.0], [torch.nan]]]), torch.tensor([[True, False]]))
    assert torch.equal(blank[0, 0], pokes[0, 0]) and blank[0, 1].tolist() == [0, 0, 0, 0, 1]


@pytest.mark.slow
def test_a_planner_trained_on_one_picture_follows_its_poke(tmp_path):
    autoencoder = tiny.autoencoder()  # untrained, but exact on translations
    frame, grid, time = tiny.frames(1), cell_centres(5, 5), torch.linspace(0, 1, 64)[:, None]

    def draw(generator):
        frames = frame.expand(16, -1, -1, -1)
        goal = torch.rand(16, 1, 1, 2, generator=generator) - 0.5
        order = torch.rand(16, 25, generator=generator).argsort(dim=1)[:, :16]
        tracks = grid[order][:, :, None] + goal * time
        pokes, mask = draw_pokes(tracks, 4, generator)
        with torch.no_grad():
            latents = autoencoder.normalize(autoencoder.encode(tracks, frames).mean)
        return {"latents": latents, "frame": frames, "pokes": pokes, "mask": mask}

    autoencoder.measure_statistics(torch.cat([draw(torch.Generator().manual_seed(i))["latents"] for i in range(8)]))
    loss = lambda model, batch, generator: model.loss(**batch, generator=generator)
    torch.manual_seed(0)
    model = FlowMatcher(dataclasses.replace(tiny.PLANNER, depth=1))
    fit(model, draw, loss, FitConfig(steps=300, learning_rate=4e-3, ema_decay=0.98), tmp_path)

    def ends(*poke):
        pokes = torch.tensor([[poke]] if poke else [[[0.0] * 5]])
        mask = torch.ones(1, 1, dtype=torch.bool) & bool(poke)
        latents = model.sample(frame, pokes, mask, samples=16, steps=8)[0]
        decoded = autoencoder.decode(autoencoder.denormalize(latents), frame.expand(16, -1, -1, -1), torch.zeros(16, 1, 2))
        return decoded[:, 0, -1]

    goal = torch.tensor([0.4, -0.3])
    poked, free = ends(0.0, 0.0, 0.4, -0.3, 1.0), ends()
    print((poked - goal).norm(dim=-1).mean(), free.std(dim=0), poked.std(dim=0))
    assert isinstance(autoencoder, TrackAutoencoder) and float((poked - goal).norm(dim=-1).mean()) < 0.15
    assert float(free.std(dim=0).mean()) > 2 * float(poked.std(dim=0).mean())
    assert float((ends(0.2, 0.2, 0.0, 0.1, 0.5) - torch.tensor([-0.4, -0.2])).norm(dim=-1).mean()) < 0.2
