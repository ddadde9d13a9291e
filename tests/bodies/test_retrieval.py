"""Retrieval by hand: small matrices whose ranks can be counted, ties, chance, and Frechet distances that are known."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from kinelib.bodies.frechet import frechet_distance, gaussian_distance, moments
from kinelib.bodies.retrieval import (
    everything,
    mm_distance,
    most_different,
    on_subset,
    r_precision,
    ranks,
    small_batches,
    with_threshold,
)
from kinelib.notation import ShapeError


def random_scores(size, seed=0):
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- protocol (a)


def test_ranks_can_be_counted_by_hand():
    scores = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.9, 0.5, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    assert ranks(scores).tolist() == [0, 2, 1, 3]
    assert ranks(scores.T).tolist() == [0.5, 0, 1, 2.5]  # the first column has 0.9 twice, the last 0.1
    found = everything(scores)
    assert found.text_to_motion == {"R@1": 25, "R@2": 50, "R@3": 75, "R@5": 100, "R@10": 100, "MedR": 2.5}
    assert found.motion_to_text == {"R@1": 50, "R@2": 75, "R@3": 100, "R@5": 100, "R@10": 100, "MedR": 1.75}
    assert found.gallery == found.queries == 4


def test_ties_share_their_ranks():
    assert ranks(torch.tensor([[0.5, 0.5, 0.5, 0.1]] * 4)).tolist() == [1, 1, 1, 3]
    found = everything(torch.zeros(9, 9))
    assert found.text_to_motion["MedR"] == 5 and found.text_to_motion["R@3"] == 0 and found.text_to_motion["R@5"] == 100


def test_a_perfect_space_finds_everything():
    found = everything(torch.eye(40))
    assert all(
        numbers[f"R@{k}"] == 100 for numbers in (found.text_to_motion, found.motion_to_text) for k in (1, 2, 3, 5, 10)
    )
    assert found.text_to_motion["MedR"] == 1
    assert found.rounded()["t2m/R01"] == 100 and found.rounded()["m2t/len"] == 40


def test_the_order_of_the_clips_does_not_matter():
    scores, order = random_scores(30), torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert everything(scores) == everything(scores[order][:, order])


def test_guessing_reaches_what_chance_says():
    found = [everything(random_scores(50, seed)) for seed in range(200)]
    for name in ("R@1", "R@3", "R@10", "MedR"):
        measured = np.mean([one.text_to_motion[name] for one in found])
        assert measured == pytest.approx(found[0].chance[name], rel=0.1)
    assert everything(torch.eye(3)).chance["R@10"] == pytest.approx(100)


# ---- protocol (b)


def test_the_motion_of_a_text_that_says_the_same_counts():
    # Texts 0 and 1 are the same; text 0 finds motion 1 first, motion 1 finds text 0 first.
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.3, 0.4], [0.0, 0.1, 0.2]])
    texts = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    assert ranks(scores).tolist() == [2, 1, 0]
    found = with_threshold(scores, texts)
    assert found.text_to_motion["R@1"] == pytest.approx(200 / 3)
    assert found.text_to_motion["R@2"] == 100
    assert found.motion_to_text["R@1"] == pytest.approx(200 / 3)
    assert found.chance["R@1"] == pytest.approx(100 * (2 + 2 + 1) / 9)


def test_the_threshold_is_on_half_the_cosine_and_a_half():
    texts = torch.tensor([[1.0, 0.0], [math.cos(0.44), math.sin(0.44)], [math.cos(0.91), math.sin(0.91)]])  # 0.905 and 0.89
    scores = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert with_threshold(scores, texts).text_to_motion["R@1"] == pytest.approx(200 / 3)
    assert with_threshold(scores, texts, 0.96).text_to_motion["R@1"] == pytest.approx(100 / 3)


def test_sentences_that_stand_several_times():
    # Two sentences of three motions each; every motion is nearest to its own sentence, three times.
    texts = torch.eye(2).repeat_interleave(3, 0)
    released, ours = with_threshold(texts @ texts.T, texts), with_threshold(texts @ texts.T, texts, right_ties_count=False)
    assert released.motion_to_text["R@1"] == 0 and released.motion_to_text["MedR"] == 2
    assert ours.motion_to_text["R@1"] == 100 and ours.motion_to_text["MedR"] == 1
    # A wrong answer of the same score still shares the ranks.
    right = torch.tensor([[True, True, False, False]])
    assert ranks(torch.tensor([[0.5, 0.5, 0.5, 0.1]]), right, right_ties_count=False).tolist() == [0.5]


def test_without_texts_that_are_alike_it_is_protocol_a():
    scores = random_scores(20)
    assert with_threshold(scores, torch.eye(20)) == everything(scores)
    assert with_threshold(scores, torch.zeros(20, 4)) == everything(scores)  # empty texts are like no other


def test_guessing_with_several_right_answers():
    texts = torch.eye(10).repeat_interleave(4, 0)
    found = [with_threshold(random_scores(40, seed), texts) for seed in range(200)]
    for name in ("R@1", "R@5"):
        assert np.mean([one.text_to_motion[name] for one in found]) == pytest.approx(found[0].chance[name], rel=0.1)


# ---- protocols (c) and (d)


def test_a_subset_is_a_gallery_of_its_own():
    scores = random_scores(20)
    assert on_subset(scores, [3, 7, 11]) == everything(scores[[3, 7, 11]][:, [3, 7, 11]])
    assert on_subset(scores, range(20)) == everything(scores)


def test_most_different_texts_are_far_apart():
    angles = torch.tensor([0.0, 0.1, 0.2, 3.1, 3.0, 1.5])
    chosen = most_different(torch.stack([angles.cos(), angles.sin()], -1), 3)
    assert len(set(chosen) & {0, 1, 2}) == 1 and len(set(chosen) & {3, 4}) == 1 and 5 in chosen
    assert sorted(most_different(torch.eye(5), 5)) == list(range(5))


def test_small_batches_are_disjoint_shuffled_by_the_released_seed_and_drop_the_tail():
    scores = random_scores(70)
    order = np.arange(70)
    np.random.RandomState(0).shuffle(order)
    parts = [everything(scores[order[i : i + 32]][:, order[i : i + 32]]) for i in (0, 32)]
    found = small_batches(scores)
    assert (found.gallery, found.queries) == (32, 64)
    for name, value in found.text_to_motion.items():
        assert value == pytest.approx(np.mean([part.text_to_motion[name] for part in parts]))
    assert found.chance["R@1"] == pytest.approx(100 / 32)


def test_small_batches_sort_by_name_first():
    scores = random_scores(64)
    mixed = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    names = [f"{int(row):03d}" for row in mixed]
    assert small_batches(scores[mixed][:, mixed], names).text_to_motion == small_batches(scores).text_to_motion


# ---- the protocol of text-to-motion


def test_r_precision_and_mm_distance_by_hand():
    motions = torch.arange(64.0)[:, None] * torch.tensor([[10.0, 0.0]])
    texts = motions + torch.tensor([3.0, 4.0])
    assert r_precision(texts, motions) == (1, 1, 1)
    assert mm_distance(texts, motions) == 5
    late = motions + torch.tensor([7.0, 0.0])  # nearest to the next motion, except the last of each batch
    assert r_precision(late, motions) == (pytest.approx(2 / 64), 1, 1)
    assert r_precision(late[:40], motions[:40]) == (pytest.approx(1 / 32), 1, 1)


# ---- Frechet distance


def test_the_distance_of_two_gaussians_is_known():
    a, b = torch.tensor([[2.0, 0.0], [0.0, 0.5]]).double(), torch.tensor([[0.5, 0.0], [0.0, 2.0]]).double()
    mean = torch.zeros(2).double()
    # Diagonal: the sum of squared differences of standard deviations.
    expected = 2 * (math.sqrt(2) - math.sqrt(0.5)) ** 2
    assert gaussian_distance(mean, a, mean + 3, b) == pytest.approx(18 + expected)
    assert gaussian_distance(mean, a, mean, a) == pytest.approx(0, abs=1e-12)


def test_the_distance_is_that_of_a_general_matrix_root():
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(8, 8, generator=rng)
    a, b = torch.randn(200, 8, generator=rng) @ mix, torch.randn(300, 8, generator=rng) + 0.3
    (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
    assert np.allclose(cov_a.numpy(), np.cov(a.numpy().T.astype(np.float64)), atol=1e-6)
    root = np.real(scipy.linalg.sqrtm((cov_a @ cov_b).numpy()))
    expected = float((mean_a - mean_b).square().sum()) + np.trace(cov_a.numpy() + cov_b.numpy() - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_few_embeddings_of_many_channels_do_no_harm():
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(10, 256, generator=rng)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 256, rel=1e-4)
    assert math.isfinite(frechet_distance(a, torch.zeros(10, 256)))


# ---- bad input


def test_what_cannot_be_measured_is_refused():
    scores = random_scores(5)
    with pytest.raises(ShapeError, match="scores must have shape"):
        everything(scores[:4])
    with pytest.raises(ShapeError, match="empty"):
        everything(torch.zeros(0, 0))
    with pytest.raises(ShapeError, match="NaN"):
        everything(scores * math.nan)
    with pytest.raises(ShapeError, match="texts"):
        with_threshold(scores, torch.zeros(4, 3))
    with pytest.raises(ShapeError, match="different rows"):
        on_subset(scores, [1, 1])
    with pytest.raises(ShapeError, match="different rows"):
        on_subset(scores, [1, 5])
    with pytest.raises(ShapeError, match="at least 32"):
        small_batches(scores)
    with pytest.raises(ShapeError, match="2 names"):
        small_batches(scores, ["a", "b"], size=2)
    with pytest.raises(ValueError, match="6 of 5"):
        most_different(scores, 6)
    with pytest.raises(ShapeError, match="at least 32"):
        r_precision(scores, scores)
    with pytest.raises(ShapeError, match="at least 2"):
        frechet_distance(scores, scores[:1])
    with pytest.raises(ShapeError, match="NaN"):
        frechet_distance(scores, scores * math.nan)
