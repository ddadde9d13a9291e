"""The masked transformer: what it may and may not see, padding, levels of words, layers above the base, checkpoints."""

from dataclasses import replace

import pytest
import torch
from toy_tokens import TINY, loud, words

from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.groups import PAIRS
from kinelib.kinmo.masked import (
    Conditions,
    GeneratorConfig,
    MaskedMotionGenerator,
    all_hidden,
    conditions,
    masked_loss,
    pair_means,
)
from kinelib.learning import checkpoints
from kinelib.notation import ShapeError


def network(**changes):
    torch.manual_seed(0)
    return MaskedMotionGenerator(replace(TINY, **changes)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return network()


def codes(batch=2, times=5, seed=0):
    return torch.randint(8, (batch, times, 6, 3), generator=torch.Generator().manual_seed(seed))


LENGTHS = torch.tensor([5, 3])


def test_it_tells_of_every_token_what_it_may_be(model):
    logits = model(all_hidden(TINY, 2, 5), words(2), LENGTHS)
    assert logits.shape == (2, 5, 6, 8) and torch.isfinite(logits).all()


def test_padding_changes_nothing(model):
    base, both = codes()[..., 0], words(2)
    padded = model(base, both, LENGTHS)
    other = base.clone()
    other[1, 3:] = 7
    assert torch.allclose(model(other, both, LENGTHS)[1, :3], padded[1, :3], atol=1e-6)
    alone = model(base[1:, :3], both.pick(slice(1, 2)), LENGTHS[1:])
    assert torch.allclose(alone[0], padded[1, :3], atol=1e-5)


def test_a_time_sees_all_other_times_and_groups(model):
    base = codes(1)[..., 0]
    other = base.clone()
    other[0, 4, 5] = (base[0, 4, 5] + 1) % 8
    apart = (model(base, words(1), LENGTHS[:1]) - model(other, words(1), LENGTHS[:1])).abs().amax(-1)
    assert (apart > 0).all()


def test_without_words_none_are_seen(model):
    base = codes()[..., 0]
    silent = lambda seed: words(2, seed=seed)._replace(silent=torch.tensor([True, False]))
    first, second = (model(base, silent(seed), LENGTHS) for seed in (1, 2))
    assert torch.allclose(first[0], second[0], atol=1e-6) and not torch.allclose(first[1, :3], second[1, :3])


@pytest.mark.parametrize("level", [0, 1])
def test_words_of_finer_levels_are_not_seen(model, level):
    base, ours, others = codes()[..., 0], words(2, seed=1), words(2, seed=2)
    means, states = ours.means.clone(), ours.states.clone()
    means[:, level + 1 :], states[:, level:] = others.means[:, level + 1 :], others.states[:, level:]
    said = ours.said.clone()
    if level == 0:  # a group's own sentence is heard from the second level on, the whole one from the first
        said[:, 1:] = others.said[:, 1:]
    finer = Conditions(means, states, ours.level, ours.silent, said)
    same = model(base, ours.at(level), LENGTHS), model(base, finer.at(level), LENGTHS)
    assert torch.allclose(*same, atol=1e-6)
    assert not torch.allclose(model(base, ours.at(level + 1), LENGTHS), model(base, finer.at(level + 1), LENGTHS))


def test_a_level_alone_or_with_those_before_it():
    base, ours = codes()[..., 0], words(2)
    changed = ours._replace(means=torch.cat([ours.means[:, :1] + 1, ours.means[:, 1:]], 1)).at(1)
    for cumulative in (True, False):
        model = network(cumulative=cumulative)
        same = torch.allclose(model(base, ours.at(1), LENGTHS), model(base, changed, LENGTHS), atol=1e-6)
        assert same is not cumulative


def test_the_paper_reads_means_alone():
    model, base, ours = network(states=False), codes()[..., 0], words(2)
    assert torch.equal(model(base, ours, LENGTHS), model(base, ours._replace(states=ours.states + 1), LENGTHS))


def test_new_parts_are_silent_at_first():
    base, ours, others = codes()[..., 0], words(2), words(2, seed=1)
    model = network()
    assert torch.equal(model(base, ours, LENGTHS), model(base, ours._replace(said=others.said), LENGTHS))
    plain = network(modulate=False, sentence_width=0)
    plain.load_state_dict({key: one for key, one in model.state_dict().items() if key in plain.state_dict()})
    assert torch.allclose(model(base, ours, LENGTHS), plain(base, ours, LENGTHS), atol=1e-5)
    assert torch.allclose(
        model.next_layer(codes()[..., :1], ours, LENGTHS), plain.next_layer(codes()[..., :1], ours, LENGTHS), atol=1e-5
    )


def test_a_groups_own_sentence_speaks_to_its_own_tokens():
    base, ours = codes()[..., 0], words(2)
    model = network()
    torch.nn.init.normal_(model.sentences.to_own[0].weight)  # the path to all stays silent
    said = ours.said.clone()
    said[:, 1 + 2] = 1.0
    apart = (model(base, ours, LENGTHS) - model(base, ours._replace(said=said), LENGTHS)).abs().amax((0, 1, 3))
    assert apart[2] > 1e-3 and apart[[0, 1, 3, 4, 5]].max() == 0
    silent = words(2)._replace(silent=torch.tensor([True, True]))
    assert torch.equal(model(base, silent, LENGTHS), model(base, silent._replace(said=said), LENGTHS))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_whole_sentence_is_heard_at_every_level(level):
    model, base, ours = network(), codes()[..., 0], words(2).at(level)
    torch.nn.init.normal_(model.sentences.read_whole.weight)
    other = ours._replace(said=torch.cat([-ours.said[:, :1], ours.said[:, 1:]], 1))
    assert not torch.allclose(model(base, ours, LENGTHS), model(base, other, LENGTHS), atol=1e-3)
    further = [model.next_layer(codes()[..., :1], one, LENGTHS) for one in (ours, other)]
    assert not torch.allclose(*further, atol=1e-3)
    silent = torch.tensor([True, True])
    assert torch.equal(*(model(base, one._replace(silent=silent), LENGTHS) for one in (ours, other)))


def test_own_sentences_that_are_not_known_are_not_heard():
    model, base, ours = loud(network()), codes()[..., 0], words(2)
    none = model(base, ours._replace(said=ours.said[..., :0]), LENGTHS)
    assert torch.equal(none, model(base, ours._replace(said=torch.zeros_like(ours.said)), LENGTHS))
    assert not torch.allclose(none, model(base, ours, LENGTHS))
    with pytest.raises(ShapeError, match="said"):
        model(base, ours._replace(said=ours.said[..., :5]), LENGTHS)


def test_words_modulate_what_layers_read():
    model, base, ours = network(), codes()[..., 0], words(2)
    before = model(base, ours, LENGTHS)
    torch.nn.init.normal_(model.base.modulations[0].weight, std=0.1)
    assert not torch.allclose(model(base, ours, LENGTHS), before)
    assert not network(modulate=False).base.modulations


def test_a_sentence_left_out_is_not_a_state(model):
    model = network()
    generator = torch.Generator().manual_seed(0)
    means, states = torch.randn(50, 3, 8, generator=generator), 5 + torch.randn(50, 2, 6, 8, generator=generator)
    model.set_text_statistics(means, states)
    own = words(1)
    quiet = own._replace(states=torch.zeros_like(own.states))
    average = own._replace(states=model.state_mean[None].clone())
    base = codes(1)[..., 0]
    assert torch.allclose(model(base, quiet, LENGTHS[:1]), model(base, average, LENGTHS[:1]), atol=1e-5)


def test_text_statistics_take_out_the_scale_of_the_aligner():
    base, ours = codes()[..., 0], words(2)
    generator = torch.Generator().manual_seed(0)
    means, states = torch.randn(100, 3, 8, generator=generator), torch.randn(100, 2, 6, 8, generator=generator)
    small, large = network(), network()
    small.set_text_statistics(means, states)
    large.set_text_statistics(30 * means + 4, 30 * states + 4)
    wide = ours._replace(means=30 * ours.means + 4, states=30 * ours.states + 4)
    assert torch.allclose(small(base, ours, LENGTHS), large(base, wide, LENGTHS), atol=1e-3)


def test_layers_above_the_base_read_those_below(model):
    given, ours = codes(), words(2)
    logits = [model.next_layer(given[..., :layer], ours, LENGTHS) for layer in (1, 2)]
    assert all(one.shape == (2, 5, 6, 8) for one in logits) and not torch.allclose(*logits)
    other = given.clone()
    other[0, 0, 0, 0] = (given[0, 0, 0, 0] + 1) % 8
    assert not torch.allclose(model.next_layer(other[..., :2], ours, LENGTHS)[0], logits[1][0])
    for layers in (0, 3):
        with pytest.raises(ShapeError, match="codebooks"):
            model.next_layer(torch.zeros(2, 5, 6, layers, dtype=torch.long), ours, LENGTHS)


def test_links_of_a_control_branch_are_added_to_the_times(model):
    base, ours = codes()[..., 0], words(2)
    zero, one = torch.zeros(2, 5, 16), torch.ones(2, 5, 16) * torch.arange(16)
    assert torch.allclose(model(base, ours, LENGTHS, [zero]), model(base, ours, LENGTHS), atol=1e-6)
    assert not torch.allclose(model(base, ours, LENGTHS, [one]), model(base, ours, LENGTHS))


def test_a_flat_generator_has_one_level_and_no_states():
    model = network(levels=1)
    flat = conditions(torch.randn(2, 1, 8))
    assert model.sentences is None
    model.set_text_statistics(torch.randn(20, 1, 8), torch.zeros(20, 0, 6, 8))
    assert model.read_states is None and model(codes()[..., 0], flat, LENGTHS).shape == (2, 5, 6, 8)


def test_guidance_puts_a_silent_twin_behind_the_words():
    both = words(2).with_silent_twin()
    assert both.silent.tolist() == [False, False, True, True] and torch.equal(both.means[:2], both.means[2:])


def test_pairs_are_averaged_over_those_that_a_group_is_in():
    states = torch.zeros(1, 15, 2)
    states[0, PAIRS.index(("torso", "left_arm"))] = 5.0
    told = torch.ones(1, 15, dtype=torch.bool)
    touched = [1.0 if group in ("torso", "left_arm") else 0.0 for group in GROUPS]
    assert pair_means(states, told)[0, :, 0].tolist() == pytest.approx(touched)
    told[0, PAIRS.index(("torso", "neck"))] = False
    assert pair_means(states, told)[0, 0, 0] == pytest.approx(5 / 4), "what is not said does not count"
    assert not pair_means(states, told & False).any()


def test_the_loss_counts_hidden_tokens_alone():
    wanted = torch.tensor([[[0, 1]]])
    logits = torch.tensor([[[[9.0, 0.0], [9.0, 0.0]]]])
    first, second = (torch.tensor([[[where == 0, where == 1]]]) for where in (0, 1))
    loss, right = masked_loss(logits, wanted, first)
    assert float(loss) < 1e-3 and float(right) == 1
    loss, right = masked_loss(logits, wanted, second)
    assert float(loss) == pytest.approx(9, abs=0.1) and float(right) == 0


def test_it_survives_a_checkpoint_with_its_text_statistics(tmp_path):
    model, base, ours = network(), codes()[..., 0], words(2)
    model.set_text_statistics(torch.randn(50, 3, 8), torch.randn(50, 2, 6, 8))
    checkpoints.save(tmp_path / "one", model, card="A test.")
    again = checkpoints.load(tmp_path / "one", MaskedMotionGenerator, GeneratorConfig)
    assert torch.allclose(again(base, ours, LENGTHS), model(base, ours, LENGTHS), atol=1e-5)


@pytest.mark.parametrize(
    "codes_, lengths, means",
    [((2, 5, 5), (2,), (2, 3, 8)), ((2, 5, 6), (3,), (2, 3, 8)), ((2, 5, 6), (2,), (1, 3, 8)), ((2, 5, 6), (2,), (2, 3, 9))],
)
def test_other_shapes_are_refused(model, codes_, lengths, means):
    with pytest.raises(ShapeError):
        model(torch.zeros(codes_, dtype=torch.long), conditions(torch.zeros(means)), torch.full(lengths, 5))
