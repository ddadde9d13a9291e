"""Motion from words with untrained networks: lengths, seeds, stages, given tokens, sentences of groups, bad input."""

from dataclasses import replace

import pytest
import torch
from toy_tokens import TINY, Letters, loud, words

from kinelib.bodies.humanml3d import CLEAN, encode_motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.aligner import AlignerConfig, HierarchicalAligner
from kinelib.kinmo.coarse_to_fine import KinMo, decode_codes, draw_codes, generate, token_lengths
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.masked import MaskedMotionGenerator
from kinelib.kinmo.masks import there
from kinelib.kinmo.sampling import Sampler, generators
from kinelib.kinmo.tokens import MotionTokenizer, TokenizerConfig

QUICK = Sampler(steps=3, kept=1.0)
WIDTH = 16


class Parrot:
    """A reasoner that says of every group and pair what it is, after the prompt."""

    def reason(self, texts):
        assert all(texts)
        return [type("Said", (), {"sentences": [f"{text} {key}" for key in (*GROUPS, *PAIR_KEYS)]}) for text in texts]


def kinmo(**changes):
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(TokenizerConfig(width=8, blocks=1, codes=8, code_width=4)).eval()
    torch.nn.init.normal_(tokenizer.quantizer.codebooks, std=0.1)
    # About the mean of a real body, from whose joints rotations can be told without enlarging what rounding did.
    body = encode_motion(procedural_clips(1, seed=0)[0].motion, quirks=CLEAN).mean(0)
    tokenizer.statistics.set(type(tokenizer.statistics)(body, torch.full((263,), 0.2)))
    aligner = HierarchicalAligner(AlignerConfig(width=WIDTH, layers=1, heads=2, feed_forward=16)).eval()
    generator = loud(MaskedMotionGenerator(replace(TINY, text_width=WIDTH))).eval()
    parts = {"aligner": aligner, "reasoner": Parrot(), "encoder": Letters()} | changes
    return KinMo(generator.requires_grad_(False), tokenizer.requires_grad_(False), **parts)


@pytest.fixture(scope="module")
def model():
    return kinmo()


def test_every_prompt_has_its_samples_with_their_facts(model):
    motions = generate(model, ["A person walks.", "A person waves."], [2.0, 1.0], samples=2, seed=5, sampler=QUICK)
    assert [len(motion) for motion in motions] == [40, 40, 20, 20]
    assert [motion.provenance["sample"] for motion in motions] == [0, 1, 0, 1]
    first = motions[0].provenance
    assert first["prompt"] == "A person walks." and first["seed"] == 5 and first["levels"] == 3 and "groups" not in first
    assert not torch.equal(motions[0].root, motions[1].root)
    assert all(torch.isfinite(motion.positions()).all() for motion in motions)


def test_the_same_seed_is_the_same_motion_whatever_else_is_drawn(model):
    alone = generate(model, ["A person waves."], 1.0, seed=3, sampler=QUICK)[0]
    beside = generate(model, ["A person walks.", "A person waves."], [2.0, 1.0], samples=2, seed=3, sampler=QUICK)[2]
    apart = generate(model, ["A person walks.", "A person waves."], [2.0, 1.0], seed=3, sampler=QUICK, batch=1)[1]
    # Processors add up batches in orders of their own. Another code would move something by a hundredth and more.
    for other in (beside, apart):
        assert torch.allclose(alone.rotations, other.rotations, atol=1e-5)
        assert torch.allclose(alone.root, other.root, atol=1e-4)
    another = generate(model, ["A person waves."], 1.0, seed=4, sampler=QUICK)[0]
    assert (alone.rotations - another.rotations).abs().max() > 0.01


def test_words_levels_and_groups_all_matter(model):
    options = dict(seconds=1.0, seed=1, sampler=QUICK)
    draw = lambda prompt="A person walks.", **more: generate(model, [prompt], **options | more)[0].rotations
    own = draw()
    assert torch.equal(own, draw())
    assert not torch.equal(own, draw("A person squats."))
    assert not torch.equal(own, draw(levels=1)) and not torch.equal(own, draw(levels=2))
    assert not torch.equal(own, draw(groups=[{"left_arm": "The left arm waves."}]))
    assert not torch.equal(own, draw(remask=1.0))


def test_sentences_are_the_reasoners_unless_they_are_given(model):
    said = model.sentences(["Walk.", ""], [{"left_arm": "It waves.", "torso|neck": ""}, None])
    first, second = said
    assert list(first) == [*GROUPS, *PAIR_KEYS] and set(second.values()) == {""}
    assert first["left_arm"] == "It waves." and first["torso|neck"] == "" and first["torso"] == "Walk. torso"
    assert all(not first[key] for key in PAIR_KEYS if "left_arm" in key.split("|"))
    assert first["left_leg|right_leg"] == "Walk. left_leg|right_leg"
    given = model.sentences(["Walk."], [{"left_arm": "It waves.", "torso|left_arm": "They part."}])[0]
    assert given["torso|left_arm"] == "They part."


def test_every_sentence_is_embedded_once():
    model = kinmo()
    model.conditions(["Walk.", "Walk."])
    model.conditions(["Walk."])
    assert len(model.encoder.asked) == len(set(model.encoder.asked))


def test_only_no_words_at_all_are_silence(model):
    silent = model.conditions(["", "Walk.", ""], [None, None, {"neck": "It nods."}]).silent
    assert silent.tolist() == [True, False, False]


def test_given_tokens_stay_and_free_ones_are_drawn(model):
    lengths = torch.tensor([6, 4])
    given = torch.randint(8, (2, 6, 6, 3), generator=torch.Generator().manual_seed(0))
    free = there(lengths, 6, 6)
    free[:, :3] = False
    free[..., :2] = False
    both = words(2, width=WIDTH)
    draw = lambda seed, **more: draw_codes(model.generator, both, lengths, generators(seed, 2), QUICK, **more)
    found = draw(0, given=given, free=free)
    assert torch.equal(found[~free & there(lengths, 6, 6)], given[~free & there(lengths, 6, 6)])
    assert (found[free] != given[free]).any() and found.min() >= 0 and found.max() < 8
    assert not torch.equal(draw(0), draw(1)) and draw(0).shape == (2, 6, 6, 3)


def test_tokens_become_motions_of_their_own_lengths(model):
    codes = torch.randint(8, (2, 6, 6, 3), generator=torch.Generator().manual_seed(0))
    motions = decode_codes(model.tokenizer, codes, torch.tensor([6, 4]))
    assert [len(motion) for motion in motions] == [24, 16] and motions[0].fps == 20
    other = codes.clone()
    other[1, 4:] = 0
    assert torch.equal(decode_codes(model.tokenizer, other, torch.tensor([6, 4]))[1].root, motions[1].root)


def test_a_flat_generator_reads_the_sentence_itself():
    torch.manual_seed(0)
    parts = kinmo()
    flat = MaskedMotionGenerator(replace(TINY, levels=1, text_width=384)).eval().requires_grad_(False)
    model = KinMo(flat, parts.tokenizer, encoder=Letters())
    assert len(generate(model, ["A person walks."], 1.0, sampler=QUICK)[0]) == 20
    with pytest.raises(ValueError, match="single groups"):
        generate(model, ["A person walks."], 1.0, groups=[{"neck": "It nods."}])


def test_lengths_are_whole_tokens():
    assert token_lengths([0.05, 0.9, 2.0], 3, 10) == [1, 4, 10]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompts": "Walk."}, TypeError, "list of sentences"),
        ({"prompts": []}, ValueError, "at least one prompt"),
        ({"samples": 0}, ValueError, "samples"),
        ({"seconds": 0}, ValueError, "above 0"),
        ({"seconds": float("nan")}, ValueError, "above 0"),
        ({"seconds": [1.0, 1.0]}, ValueError, "one for each of 1"),
        ({"seconds": 9.0}, ValueError, "up to 2 s"),
        ({"levels": 4}, ValueError, "levels are 1 to 3"),
        ({"remask": 0}, ValueError, "remask"),
        ({"groups": [{"tail": "It wags."}]}, KeyError, "tail"),
        ({"groups": [None, None]}, ValueError, "one entry for each"),
    ],
)
def test_bad_input_is_told(model, options, error, message):
    with pytest.raises(error, match=message):
        generate(model, **{"prompts": ["Walk."], "seconds": 1.0} | options)


def test_parts_that_were_not_trained_together_are_refused(model):
    other = MaskedMotionGenerator(replace(TINY, codes=9, text_width=WIDTH))
    with pytest.raises(ValueError, match="not trained together"):
        KinMo(other, model.tokenizer, model.aligner)
    with pytest.raises(ValueError, match="no aligner"):
        KinMo(model.generator, model.tokenizer)
    with pytest.raises(ValueError, match="mask of free tokens"):
        draw_codes(
            model.generator, words(1, width=WIDTH), torch.tensor([3]), generators(0, 1), QUICK, free=torch.ones(1, 3, 6)
        )
